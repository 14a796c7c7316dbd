//! Several threads stepped on one OS thread, under a clock that the test turns.

use crate::task::JoinHandle;
use crate::{JoinError, Period, PollResult, Poller, Provider, Thread, ThreadOptions};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

/// A set of threads and their time. Nothing moves unless the test says so, so a run is the same every time.
///
/// ```
/// use spdk_thread::{testing::Lockstep, sleep};
/// let mut lockstep = Lockstep::new();
/// let thread = lockstep.thread("a");
/// let task = thread.spawn("nap", async { sleep(1_000).await; 7 }).unwrap();
/// lockstep.step();
/// assert!(!task.is_finished());
/// lockstep.advance(1_000);
/// lockstep.step();
/// assert!(task.is_finished());
/// ```
#[derive(Default)]
pub struct Lockstep {
    threads: Vec<Thread>,
    now: u64,
    provider: Option<Arc<dyn Provider>>,
}

impl fmt::Debug for Lockstep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lockstep")
            .field("threads", &self.threads)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl Lockstep {
    /// No threads, at time 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Threads carried by a provider. Its pollers keep its time; everything else goes by the clock that the test turns.
    #[must_use]
    pub fn over(provider: Arc<dyn Provider>) -> Self {
        Self {
            provider: Some(provider),
            ..Self::default()
        }
    }

    /// Adds a thread with default options, stepped after those that exist.
    pub fn thread(&mut self, name: &str) -> Thread {
        self.thread_with(name, ThreadOptions::default())
    }

    /// Adds a thread.
    pub fn thread_with(&mut self, name: &str, mut options: ThreadOptions) -> Thread {
        options.provider = options.provider.or_else(|| self.provider.clone());
        let thread = Thread::new(name, options);
        self.threads.push(thread.clone());
        thread
    }

    /// Nanoseconds now.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Turns the clock; nothing runs until the next step.
    pub fn advance(&mut self, ns: u64) {
        self.now += ns;
    }

    /// One turn of each thread, in the order in which they were added. Whether any of them was busy.
    pub fn step(&mut self) -> bool {
        self.threads
            .iter()
            .fold(false, |busy, thread| thread.poll(self.now).is_busy() | busy)
    }

    /// Steps until no thread has work that is ready now; time stands still. Returns the number of steps.
    ///
    /// # Panics
    /// After 100,000 steps: somebody is always busy.
    pub fn settle(&mut self) -> usize {
        for steps in 0..100_000 {
            let due = self
                .next_deadline()
                .is_some_and(|deadline| deadline <= self.now);
            if !due && !self.threads.iter().any(Thread::has_ready_work) {
                return steps;
            }
            self.step();
        }
        panic!("Lockstep::settle: still busy after 100000 steps");
    }

    /// Lets `ns` pass, stopping at each deadline on the way, and settles at each stop.
    pub fn run_for(&mut self, ns: u64) {
        let end = self.now + ns;
        self.settle();
        while let Some(deadline) = self.next_deadline().filter(|&deadline| deadline <= end) {
            self.now = deadline.max(self.now);
            self.step();
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    /// Runs `future` on `thread` until it is done, jumping to the next deadline whenever nothing is ready.
    ///
    /// # Errors
    /// [`JoinError`] if the future panicked.
    ///
    /// # Panics
    /// If the thread takes no task, or nothing is left that could ever finish it: the message names what waits.
    pub fn block_on<T: 'static>(
        &mut self,
        thread: &Thread,
        future: impl Future<Output = T> + 'static,
    ) -> Result<T, JoinError> {
        let result = Rc::new(Cell::new(None));
        let slot = result.clone();
        let task: JoinHandle<T> = match thread.spawn("block_on", future) {
            Ok(task) => task,
            Err(error) => panic!("Lockstep::block_on: {error}"),
        };
        let joined = thread.spawn("block_on join", async move { slot.set(Some(task.await)) });
        if let Ok(joined) = joined {
            joined.detach();
        }
        loop {
            self.settle();
            if let Some(result) = result.take() {
                return result;
            }
            match self.next_deadline() {
                Some(deadline) => self.now = deadline.max(self.now),
                None => panic!(
                    "Lockstep::block_on: nothing can finish it; on the thread: {:?}",
                    thread.holders()
                ),
            }
            self.step();
        }
    }

    /// The earliest deadline of all threads.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.threads.iter().filter_map(Thread::next_deadline).min()
    }
}

/// A list of events that parts of a test append to, so that a test compares the whole list.
#[derive(Debug, Clone, Default)]
pub struct Trace(Rc<RefCell<Vec<String>>>);

impl Trace {
    /// An empty trace.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an event.
    pub fn log(&self, event: impl Into<String>) {
        self.0.borrow_mut().push(event.into());
    }

    /// A poller that appends its name and the time of each call, and is busy.
    pub fn poller(&self, thread: &Thread, name: &'static str, period: Period) -> Poller {
        let trace = self.clone();
        thread.register_poller(name, period, move |now| {
            trace.log(format!("{name}@{now}"));
            PollResult::Busy
        })
    }

    /// Steps so many times, `ns` apart, and takes the events with a line for the time of each step.
    pub fn turns(&self, lockstep: &mut Lockstep, times: usize, ns: u64) -> Vec<String> {
        for _ in 0..times {
            self.log(format!("-- {}", lockstep.now()));
            lockstep.step();
            lockstep.advance(ns);
        }
        self.take()
    }

    /// Takes all events.
    #[must_use]
    pub fn take(&self) -> Vec<String> {
        self.0.take()
    }
}
