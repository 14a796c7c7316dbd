//! A reactor seen from other OS threads.

use crate::idle::IdleGoal;
use crate::stats::{Published, ReactorStats};
use engine_telemetry::{Histogram, Kind};
use spdk_env::Notifier;
use spdk_ring::mpsc::{self, TrySendError};
use spdk_thread::{CarryError, Thread, ThreadHandle, ThreadOptions, ThreadSeed, Wake};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What a reactor can be told.
pub(crate) enum Command {
    /// Bring a thread to life here and run its first function.
    Host {
        seed: ThreadSeed,
        init: Box<dyn FnOnce(&Thread) + Send>,
    },
    /// Ask all threads to exit; the loop ends when they have.
    Exit,
    /// End the loop now, whatever the threads hold.
    Stop,
    /// Say what holds the threads.
    Holders {
        reply: std::sync::mpsc::Sender<Vec<String>>,
    },
}

/// Commands that may wait; more are refused.
const COMMANDS: usize = 1024;

pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) cpu: Option<usize>,
    /// As low as its latency goal allows: 0 polls always.
    pub(crate) goal: IdleGoal,
    pub(crate) doorbell: Notifier,
    pub(crate) stats: Published,
    /// The kernel's number of the OS thread; 0 before the loop is made.
    pub(crate) os_thread: AtomicI32,
    pub(crate) wake_latency: Histogram,
    pub(crate) failure: Mutex<Option<String>>,
    commands: mpsc::Sender<Command>,
}

impl Wake for Shared {
    #[inline]
    fn wake(&self) {
        self.doorbell.notify();
    }

    fn sleeps(&self) -> bool {
        self.goal.ns() > 0
    }
}

/// How late the reactor woke: from the ring of its doorbell, or the time that it wanted to wake at, until it looked for work.
fn wake_latency(cpu: Option<usize>) -> Histogram {
    const NAME: &str = "keel_reactor_wake_latency_seconds";
    engine_telemetry::describe(
        Kind::Histogram,
        NAME,
        "From what ended a sleep (a ring, or its time) until the core's loop ran",
    );
    let cpu = cpu.map_or_else(|| "none".to_owned(), |cpu| cpu.to_string());
    engine_telemetry::histogram(NAME, &[("cpu", cpu.as_str())])
}

/// Why a reactor did not take a thread.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The reactor has ended.
    #[error("reactor {reactor} has ended and hosts no threads")]
    Ended {
        /// Its name.
        reactor: String,
    },
    /// The thread's provider has no room for it.
    #[error("reactor {reactor}: {why}")]
    Carry {
        /// Its name.
        reactor: String,
        /// Why.
        why: CarryError,
    },
    /// Too many commands wait for it.
    #[error("reactor {reactor} is stuck: {COMMANDS} commands wait for it")]
    Full {
        /// Its name.
        reactor: String,
    },
}

/// A reactor's address: clone it freely, use it from any OS thread.
#[derive(Clone)]
pub struct ReactorHandle {
    pub(crate) shared: Arc<Shared>,
}

impl ReactorHandle {
    pub(crate) fn new(
        name: String,
        cpu: Option<usize>,
        goal: IdleGoal,
    ) -> std::io::Result<(ReactorHandle, mpsc::Receiver<Command>)> {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let shared = Shared {
            name,
            cpu,
            goal,
            doorbell: Notifier::new()?,
            stats: Published::default(),
            os_thread: AtomicI32::new(0),
            wake_latency: wake_latency(cpu),
            failure: Mutex::new(None),
            commands,
        };
        Ok((
            ReactorHandle {
                shared: Arc::new(shared),
            },
            receiver,
        ))
    }

    /// The reactor's name, which is also its OS thread's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The CPU that it is bound to, or meant for; none for a reactor that a test turns.
    #[must_use]
    pub fn cpu(&self) -> Option<usize> {
        self.shared.cpu
    }

    /// Makes a thread on the reactor and runs `init` as its first function there. Returns at once; messages sent to the
    /// handle run after `init`. The thread's wake-up is the reactor's: `options.wake` is replaced (SPDK: `spdk_thread_create`).
    ///
    /// # Errors
    /// [`HostError`] if the reactor has ended or is stuck, or the thread's provider has no room.
    pub fn spawn_thread(
        &self,
        name: &str,
        mut options: ThreadOptions,
        init: impl FnOnce(&Thread) + Send + 'static,
    ) -> Result<ThreadHandle, HostError> {
        options.wake = Some(self.shared.clone());
        let (handle, seed) = ThreadSeed::new(name, options).map_err(|why| HostError::Carry {
            reactor: self.shared.name.clone(),
            why,
        })?;
        self.command(Command::Host {
            seed,
            init: Box::new(init),
        })?;
        Ok(handle)
    }

    pub(crate) fn command(&self, command: Command) -> Result<(), HostError> {
        let reactor = || self.shared.name.clone();
        self.shared
            .commands
            .try_send(command)
            .map_err(|refused| match refused {
                TrySendError::Full(_) => HostError::Full { reactor: reactor() },
                TrySendError::Closed(_) => HostError::Ended { reactor: reactor() },
            })?;
        self.shared.doorbell.notify();
        Ok(())
    }

    /// What the reactor did with its time, as last published.
    #[must_use]
    pub fn stats(&self) -> ReactorStats {
        self.shared.stats.load()
    }

    /// The kernel's number of its OS thread, for those who watch it.
    #[must_use]
    pub fn os_thread(&self) -> Option<i32> {
        Some(self.shared.os_thread.load(Ordering::Relaxed)).filter(|&tid| tid != 0)
    }

    /// Whether it sleeps, or is about to, and nothing has woken it yet.
    #[must_use]
    pub fn is_resting(&self) -> bool {
        self.shared.doorbell.is_resting()
    }

    /// What the loop's panic said, if one has ended it. Panics of messages, pollers and tasks do not get that far.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.shared
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether the loop has ended, by shutdown or failure.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shared.commands.is_closed()
    }
}

impl std::fmt::Debug for ReactorHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReactorHandle({:?})", self.shared.name)
    }
}
