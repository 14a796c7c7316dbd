//! Shutdown: say it, let ULTs end, end storage on its owner, exit; and say all the while what still holds it.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use spdk_reactor::ReactorSet;
use spdk_thread::{TaskState, Thread};

use crate::xstream::XstreamScope;
use crate::{Xstream, XstreamRef, Xstreams, current, request};

/// How often the control thread looks.
const LOOK: Duration = Duration::from_millis(1);
/// How often it tells.
const TICK: Duration = Duration::from_secs(1);

/// After this long without an answer an xstream counts as stuck.
const SILENT: Duration = Duration::from_millis(500);

/// The shutdown reached its deadline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shutdown is held by: {}", .holders.join("; "))]
pub struct Held {
    /// One line each: xstream, and the ULT, poller, channel or handle that holds it.
    pub holders: Vec<String>,
}

/// Sets the flag for everybody.
pub(crate) fn mark(xstreams: &Xstreams) {
    xstreams.mark_shutting_down();
    xstreams
        .all()
        .iter()
        .for_each(|xstream| xstream.shared.shutting_down.store(true, Ordering::Release));
}

/// Sets the flag and waits until every xstream has come round to see it.
pub(crate) fn announce(xstreams: &Xstreams, until: Instant) -> Result<(), Held> {
    mark(xstreams);
    let asked: Vec<_> = xstreams
        .all()
        .iter()
        .map(|xstream| (xstream, xstream.call_later(|_| ())))
        .collect();
    let mut holders = Vec::new();
    for (xstream, answer) in asked {
        let left = until.saturating_duration_since(Instant::now());
        let answered = answer.is_ok_and(|answer| answer.recv_timeout(left).is_ok());
        if !answered && !xstream.handle().is_exited() {
            holders.push(no_answer(xstream));
        }
    }
    if holders.is_empty() {
        Ok(())
    } else {
        Err(Held { holders })
    }
}

/// Stops xstreams that were started in this order.
pub(crate) fn stop(
    started: &[XstreamRef],
    until: Instant,
    on_tick: &mut dyn FnMut(&[String]),
) -> Result<(), Held> {
    started
        .iter()
        .for_each(|xstream| xstream.shared.stopping.store(true, Ordering::Release));
    let mut watch = Watch {
        until,
        next_tick: Instant::now() + TICK,
        on_tick,
    };
    // All at once: a ULT on one may wait for one on another.
    watch.repeat(started, Step::Drain)?;
    for xstream in started.iter().rev() {
        watch.repeat(std::slice::from_ref(xstream), Step::Finish)?;
    }
    Ok(())
}

/// Ends the OS threads.
pub(crate) fn stop_reactors(mut reactors: ReactorSet, until: Instant) -> Result<(), Held> {
    let left = until.saturating_duration_since(Instant::now());
    reactors.shutdown(left).map_err(|held| Held {
        holders: held.holders,
    })
}

/// The ULTs that have not ended, one line each.
fn ults(thread: &Thread) -> Vec<String> {
    let unfinished = thread
        .tasks()
        .into_iter()
        .filter(|task| task.state != TaskState::Done);
    unfinished
        .map(|task| {
            let age = task.age_ns / 1_000_000;
            let waits = if task.waits_for.is_empty() {
                ""
            } else {
                ", waits for "
            };
            format!("ULT {} (age {age} ms{waits}{})", task.name, task.waits_for)
        })
        .collect()
}

/// Wakes the ULTs that sleep, so that they see that the xstream stops, and lets queued requests out. Returns what has not
/// ended.
fn drain(thread: &Thread) -> Vec<String> {
    let mut left = Vec::new();
    if let Some(xstream) = current() {
        request::wake_all(&xstream.inner.requests);
        let queued = xstream.inner.sched.as_ref().map_or(0, |sched| sched.stop());
        if queued > 0 {
            left.push(format!("{queued} queued request(s)"));
        }
        let chores = &xstream.inner.chores;
        let chores = chores.as_ref().map_or(0, |chores| chores.queued());
        if chores > 0 {
            left.push(format!("{chores} chore(s)"));
        }
    }
    left.extend(ults(thread));
    left
}

/// Ends the storage and asks the thread to exit; on the thread, in a message. Returns what is in the way.
fn finish(thread: &Thread) -> Vec<String> {
    let Some(xstream) = current() else {
        return thread.holders(); // the storage has ended before; now pollers and channels must go
    };
    let running = ults(thread);
    if !running.is_empty() {
        return running;
    }
    let name = xstream.name().to_owned();
    // The scope and "current" let go of the xstream; if ours is the last handle, nothing can use the storage again.
    thread.set_scope(None);
    match Rc::try_unwrap(xstream.inner) {
        Ok(inner) => {
            match inner.slots.destroy() {
                Ok(problems) => problems
                    .iter()
                    .for_each(|error| tracing::error!(xstream = name, %error, "TLS")),
                Err(_held) => tracing::error!(
                    xstream = name,
                    "TLS is still referenced and ends with its last handle"
                ),
            }
            thread.request_exit();
            thread.holders()
        }
        Err(inner) => {
            let others = Rc::strong_count(&inner) - 1;
            thread.set_scope(Some(Rc::new(XstreamScope::new(Xstream { inner }))));
            let mut held = thread.holders();
            held.push(format!(
                "{others} handle(s) on the xstream, kept by a poller or by a value outside"
            ));
            held
        }
    }
}

fn no_answer(xstream: &XstreamRef) -> String {
    format!(
        "{}: does not answer: a ULT, poller or message there does not return",
        xstream.name()
    )
}

/// What is done to an xstream, again and again, until it is through.
#[derive(Clone, Copy)]
enum Step {
    /// Wait for its ULTs to end; through when there are none.
    Drain,
    /// End its storage and its thread; through when the thread has exited.
    Finish,
}

/// An xstream that is not through with a step.
struct Open<'a> {
    xstream: &'a XstreamRef,
    /// The step runs there; its answer will come out here.
    asked: Option<(Instant, Receiver<Vec<String>>)>,
    /// What was in the way the last time.
    lines: Vec<String>,
}

impl Open<'_> {
    /// Asks, or looks for the answer. Whether the xstream is through.
    fn look(&mut self, step: Step) -> bool {
        if self.xstream.handle().is_exited() {
            return true;
        }
        let Some((_, asked)) = &self.asked else {
            let (sender, receiver) = mpsc::sync_channel(1);
            let sent = self.xstream.handle().send(move |thread| {
                let lines = match step {
                    Step::Drain => drain(thread),
                    Step::Finish => finish(thread),
                };
                // The control thread may have given up.
                let _ = sender.try_send(lines);
            });
            self.asked = sent.is_ok().then(|| (Instant::now(), receiver)); // a full mailbox: again in a moment
            return false;
        };
        let Ok(lines) = asked.try_recv() else {
            return false;
        };
        self.asked = None;
        self.lines = lines
            .iter()
            .map(|line| format!("{}: {line}", self.xstream.name()))
            .collect();
        matches!(step, Step::Drain) && lines.is_empty()
    }

    fn holders(&self) -> Vec<String> {
        let silent = self
            .asked
            .as_ref()
            .is_some_and(|(since, _)| since.elapsed() >= SILENT);
        if silent {
            vec![no_answer(self.xstream)]
        } else {
            self.lines.clone()
        }
    }
}

/// Repeats steps until a deadline, and tells what is in the way.
struct Watch<'a> {
    until: Instant,
    next_tick: Instant,
    on_tick: &'a mut dyn FnMut(&[String]),
}

impl Watch<'_> {
    fn repeat(&mut self, xstreams: &[XstreamRef], step: Step) -> Result<(), Held> {
        let open = |xstream| Open {
            xstream,
            asked: None,
            lines: vec![no_answer(xstream)],
        };
        let mut open: Vec<Open<'_>> = xstreams.iter().map(open).collect();
        loop {
            open.retain_mut(|xstream| !xstream.look(step));
            if open.is_empty() {
                return Ok(());
            }
            let now = Instant::now();
            let holders =
                |open: &[Open<'_>]| open.iter().flat_map(Open::holders).collect::<Vec<_>>();
            if now >= self.until {
                return Err(Held {
                    holders: holders(&open),
                });
            }
            if now >= self.next_tick {
                (self.on_tick)(&holders(&open));
                self.next_tick = now + TICK;
            }
            std::thread::sleep(LOOK.min(self.until - now));
        }
    }
}
