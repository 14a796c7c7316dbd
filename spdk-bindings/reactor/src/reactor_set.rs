//! Several reactors, started and shut down together.

use crate::handle::{Command, ReactorHandle};
use crate::idle::IdleGoal;
use crate::reactor::Reactor;
use spdk_env::{CpuError, cpu};
use std::num::NonZeroU64;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How a set of reactors is made.
#[derive(Debug, Clone)]
pub struct ReactorOptions {
    /// One reactor for each entry; a CPU may be given twice (over-subscription).
    pub cpus: Vec<usize>,
    /// How deep a reactor may rest, in microseconds of added latency; 0 always polls.
    pub idle_latency_us: u64,
    /// Whether each OS thread is bound to its CPU.
    pub pin: bool,
    /// Reactors are called `<prefix>_<number>`, which is also the OS thread's name (the kernel shows 15 characters).
    pub name_prefix: String,
}

impl Default for ReactorOptions {
    fn default() -> Self {
        Self {
            cpus: vec![0],
            idle_latency_us: 50,
            pin: true,
            name_prefix: "reactor".to_owned(),
        }
    }
}

/// Why the set did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No CPU was given.
    #[error("no CPU was given: a set of reactors needs at least one")]
    NoCpus,
    /// An OS thread, a descriptor or an epoll could not be made.
    #[error("reactor {reactor}: {source}")]
    Io {
        /// Its name.
        reactor: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The CPU cannot be used.
    #[error("reactor {reactor}: {source}")]
    Cpu {
        /// Its name.
        reactor: String,
        /// Why.
        source: CpuError,
    },
}

/// The reactors did not all end in time; they keep running, and the shutdown can be tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("still held after {waited_ms} ms: {}", holders.join("; "))]
pub struct Held {
    /// How long it was waited for.
    pub waited_ms: u64,
    /// What holds which thread, one line each.
    pub holders: Vec<String>,
}

/// One reactor per CPU, each on an OS thread of its own. May be used from any OS thread.
#[derive(Debug)]
pub struct ReactorSet {
    reactors: Vec<ReactorHandle>,
    running: Vec<Option<JoinHandle<()>>>,
    ended: Receiver<usize>,
}

impl ReactorSet {
    /// Starts the reactors and waits until all of them are bound and turning.
    ///
    /// # Errors
    /// [`StartError`]; the reactors that had started are stopped.
    pub fn start(options: &ReactorOptions) -> Result<ReactorSet, StartError> {
        if options.cpus.is_empty() {
            return Err(StartError::NoCpus);
        }
        // Calibrated once, before anybody measures with it.
        let _ = spdk_env::Clock::tsc();
        let (ended, receiver) = channel();
        let mut set = ReactorSet {
            reactors: Vec::new(),
            running: Vec::new(),
            ended: receiver,
        };
        for index in 0..options.cpus.len() {
            // Dropping the set stops those that run.
            set.start_one(options, index, ended.clone())?;
        }
        Ok(set)
    }

    fn start_one(
        &mut self,
        options: &ReactorOptions,
        index: usize,
        ended: Sender<usize>,
    ) -> Result<(), StartError> {
        let cpu = options.cpus[index];
        let name = format!("{}_{index}", options.name_prefix);
        let io = |source: std::io::Error| StartError::Io {
            reactor: name.clone(),
            source,
        };
        let goal = IdleGoal::from_micros(options.idle_latency_us);
        let (handle, commands) = ReactorHandle::new(name.clone(), Some(cpu), goal).map_err(io)?;
        let pin = options.pin.then_some(cpu);
        let (ready, is_ready) = channel();
        let own = handle.clone();
        let body = move || {
            let reactor = match prepare(own, commands, goal, pin) {
                Ok(reactor) => reactor,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            reactor.run_contained();
            drop(reactor);
            // The set may be gone already.
            let _ = ended.send(index);
        };
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn(body)
            .map_err(io)?;
        match is_ready.recv() {
            Ok(Ok(())) => {
                self.reactors.push(handle);
                self.running.push(Some(thread));
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io(std::io::Error::other(
                "its OS thread ended before it was ready",
            ))),
        }
    }

    /// The reactors' addresses, in the order of `cpus`.
    #[must_use]
    pub fn reactors(&self) -> &[ReactorHandle] {
        &self.reactors
    }

    /// What holds the threads of all reactors, one line each. A reactor that does not answer within 200 ms is named as stuck.
    #[must_use]
    pub fn holders(&self) -> Vec<String> {
        self.reactors.iter().flat_map(holders_of).collect()
    }

    /// Asks all threads to exit and waits until they have: first what they hold goes (pollers, tasks, channels, watched
    /// descriptors), then they, then the reactors.
    ///
    /// # Errors
    /// [`Held`] says what still holds which thread at the deadline. Everything keeps running; call again, or drop the
    /// set to give up.
    pub fn shutdown(&mut self, deadline: Duration) -> Result<(), Held> {
        self.shutdown_with(deadline, |_| {})
    }

    /// As [`shutdown`](Self::shutdown), and tells each second what still holds.
    ///
    /// # Errors
    /// As `shutdown`.
    pub fn shutdown_with(
        &mut self,
        deadline: Duration,
        mut on_tick: impl FnMut(&[String]),
    ) -> Result<(), Held> {
        let started = Instant::now();
        for reactor in &self.reactors {
            // One that has ended needs no telling; one that is stuck is named by `holders`.
            let _ = reactor.command(Command::Exit);
        }
        while self.running.iter().any(Option::is_some) {
            let left = deadline.saturating_sub(started.elapsed());
            match self.ended.recv_timeout(left.min(Duration::from_secs(1))) {
                Ok(index) => self.join(index),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if started.elapsed() < deadline => {
                    on_tick(&self.holders())
                }
                Err(RecvTimeoutError::Timeout) => {
                    let waited_ms =
                        u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                    return Err(Held {
                        waited_ms,
                        holders: self.holders(),
                    });
                }
            }
        }
        Ok(())
    }

    fn join(&mut self, index: usize) {
        if let Some(thread) = self.running.get_mut(index).and_then(Option::take) {
            // Its panics were contained and kept in `failure`.
            let _ = thread.join();
        }
    }
}

fn holders_of(reactor: &ReactorHandle) -> Vec<String> {
    if let Some(text) = reactor.failure() {
        return vec![format!(
            "reactor {}: its loop has panicked: {text}",
            reactor.name()
        )];
    }
    let (reply, answer) = channel();
    if reactor.command(Command::Holders { reply }).is_err() {
        return Vec::new();
    }
    match answer.recv_timeout(Duration::from_millis(200)) {
        Ok(holders) => holders,
        Err(RecvTimeoutError::Disconnected) => Vec::new(),
        Err(RecvTimeoutError::Timeout) => {
            vec![format!(
                "reactor {}: no answer within 200 ms: a message, poller or task does not return",
                reactor.name()
            )]
        }
    }
}

fn prepare(
    handle: ReactorHandle,
    commands: spdk_ring::mpsc::Receiver<Command>,
    goal: IdleGoal,
    pin: Option<usize>,
) -> Result<Reactor, StartError> {
    let reactor = handle.name().to_owned();
    if let Some(cpu) = pin {
        cpu::pin_current_thread(cpu).map_err(|source| StartError::Cpu {
            reactor: reactor.clone(),
            source,
        })?;
    }
    // The kernel rounds sleeps up by 50 us by default, which is more than most goals. Where it refuses, sleeps are
    // a little longer.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    Reactor::with(handle, commands, goal).map_err(|source| StartError::Io { reactor, source })
}

impl Drop for ReactorSet {
    /// Stops the loops as they are; what their threads hold is dropped where they lived. Does not wait for a loop that does not return.
    fn drop(&mut self) {
        for reactor in &self.reactors {
            let _ = reactor.command(Command::Stop);
        }
    }
}
