//! What does a message from one core to another cost? Throughput with a full mailbox, and the round trip of a single one.
//!
//! Comparable with `spdk_thread_send_msg` between two SPDK threads on two cores.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::mpsc;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use spdk_env::Clock;
use spdk_thread::{Period, PollResult, Poller, Thread, ThreadHandle};

use crate::histogram::{Histogram, Latency};
use crate::lane::Lanes;
use crate::peer::Figure;

/// Messages sent in one turn of the sender, as SPDK's pollers would.
const BURST: u32 = 64;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// CPUs of sender and receiver.
    pub cores: [usize; 2],
    /// Messages that ran on the other core, per second.
    pub messages_per_s: f64,
    /// There and back again, one at a time.
    pub round_trip_us: Latency,
    /// Round trips measured.
    pub round_trips: u64,
}

impl Report {
    /// For a comparison.
    pub fn figures(&self) -> Vec<Figure> {
        let same = |name, value| Figure {
            name,
            value,
            peer_name: name,
        };
        vec![
            same("messages_per_s", self.messages_per_s),
            same("ping_pong_p50_ns", self.round_trip_us.p50 * 1e3),
            same("ping_pong_p99_ns", self.round_trip_us.p99 * 1e3),
        ]
    }
}

/// Whose threads pass messages on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// Our own.
    Native,
    /// C SPDK's.
    #[cfg(feature = "libspdk")]
    Libspdk,
}

/// Runs both measurements, `seconds` each.
pub fn run(seconds: f64, threads: Threads) -> Result<Report> {
    let cpus = spdk_env::cpu::allowed()?;
    ensure!(
        cpus.len() >= 2,
        "messages between cores need two of them; this process may use {cpus:?}"
    );
    let cores = [cpus[0], cpus[1]];
    let lanes = match threads {
        Threads::Native => Lanes::start(&cores)?,
        #[cfg(feature = "libspdk")]
        Threads::Libspdk => Lanes::with(&cores, 0, Some(crate::spdk::threads()?))?,
    };
    let messages_per_s = throughput(&lanes, seconds)?;
    let histogram = ping_pong(&lanes, seconds)?;
    lanes.stop()?;
    let ns_per_tick = Clock::tsc().ticks_to_ns(1 << 30) as f64 / (1u64 << 30) as f64;
    Ok(Report {
        cores,
        messages_per_s,
        round_trip_us: histogram.latency(ns_per_tick),
        round_trips: histogram.count(),
    })
}

thread_local! {
    /// Messages that ran on this OS thread: a counter that no other core touches.
    static RECEIVED: Cell<u64> = const { Cell::new(0) };
}

fn throughput(lanes: &Lanes, seconds: f64) -> Result<f64> {
    let (receiver, _) = lanes.run::<()>(1, |_, _| RECEIVED.set(0))?;
    let (_, done) = lanes.run(0, move |thread, done| {
        start_sender(thread, receiver, seconds, done)
    })?;
    let (elapsed_ns, received) = done.recv().context("the sender ended without a result")?;
    Ok(received as f64 * 1e9 / elapsed_ns as f64)
}

/// Sends as fast as the mailbox takes them for `seconds`, then asks the receiver how many ran.
fn start_sender(thread: &Thread, to: ThreadHandle, seconds: f64, done: mpsc::Sender<(u64, u64)>) {
    let clock = Clock::tsc();
    let start = clock.now();
    let end = start + (seconds * 1e9) as u64;
    let handle: Rc<RefCell<Option<Poller>>> = Rc::default();
    let own = handle.clone();
    let poller = thread.register_poller("bench_send", Period::EveryTurn, move |now| {
        if now < end {
            let sent = (0..BURST)
                .take_while(|_| to.send(|_| RECEIVED.set(RECEIVED.get() + 1)).is_ok())
                .count();
            return if sent > 0 {
                PollResult::Busy
            } else {
                PollResult::Idle
            };
        }
        let report = done.clone();
        // FIFO: when this one runs, all the others have.
        if to
            .send(move |_| {
                let _ = report.send((Clock::tsc().now() - start, RECEIVED.get()));
            })
            .is_ok()
        {
            own.borrow_mut().take();
        }
        PollResult::Busy
    });
    *handle.borrow_mut() = Some(poller);
}

fn ping_pong(lanes: &Lanes, seconds: f64) -> Result<Histogram> {
    let (pong, _) = lanes.run::<()>(1, |_, _| {})?;
    let (_, done) = lanes.run(0, move |thread, done| {
        let clock = Clock::tsc();
        let ping = thread.handle();
        // The first message of all: once it has run, no ball needs to bring an address along.
        let known = pong.send(move |_| OTHER.set(Some(ping)));
        OTHER.set(Some(pong));
        GAME.set(known.ok().map(|()| Game {
            clock,
            caught: clock.raw(),
            histogram: Histogram::default(),
            end: clock.now() + (seconds * 1e9) as u64,
            done,
        }));
        hit(return_ball);
    })?;
    done.recv().context("the ping-pong ended without a result")
}

/// What the serving side keeps.
struct Game {
    clock: Clock,
    /// When the ball was caught last. From one catch to the next, since a processor reads its counter ahead of time, before
    /// the load that it waits for: between a serve and a catch some of the way is missing.
    caught: u64,
    histogram: Histogram,
    end: u64,
    done: mpsc::Sender<Histogram>,
}

// The balls carry nothing, as SPDK's would: all that a side needs is its own OS thread's.
thread_local! {
    static GAME: RefCell<Option<Game>> = const { RefCell::new(None) };
    static OTHER: RefCell<Option<ThreadHandle>> = const { RefCell::new(None) };
}

fn return_ball() {
    hit(caught);
}

/// One ball is under way at a time: the mailbox is never full.
fn hit(then: fn()) {
    OTHER.with_borrow(|other| other.as_ref().map(|other| other.send(move |_| then())));
}

fn caught() {
    let again = GAME.with_borrow_mut(|game| {
        let running = game.as_mut()?;
        let now = running.clock.raw();
        running.histogram.record(now - running.caught);
        running.caught = now;
        if running.clock.now() < running.end {
            return Some(());
        }
        let ended = game.take()?;
        let _ = ended.done.send(ended.histogram);
        None
    });
    if again.is_some() {
        hit(return_ball);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn messages_run_and_come_back() {
        if spdk_env::cpu::allowed().unwrap().len() < 2 {
            assert!(
                super::run(0.01, super::Threads::Native)
                    .unwrap_err()
                    .to_string()
                    .starts_with("messages between cores need two of them")
            );
            return;
        }
        let report = super::run(0.05, super::Threads::Native).unwrap();
        assert!(
            report.messages_per_s > 0.0 && report.round_trips > 0,
            "{report:?}"
        );
    }
}
