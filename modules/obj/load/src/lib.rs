//! Write load with a memory: what was acknowledged must be there afterwards, byte for byte; what was not is old or new, whole.
//!
//! A [`Load`] has workers with names of their own. [`Load::until_end`] lets them put, replace and remove objects until the engine
//! is gone, by whatever the caller does to it; [`Load::verify`] compares a restarted engine with the record. The record is in this
//! process, so it outlives engines and whole machines.
//!
//! For tests (of the daemon, and in VMs): what must not be panics, with the object's name. Any thread may use it; it blocks.

mod record;
mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use daos_errno::Der;
use obj_client::{Container, Engine, GetOptions, ObjError};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use record::Slot;

/// The pool that the load makes and uses, and the container in it.
pub const POOL: &str = "pool";
/// See [`POOL`].
pub const CONT: &str = "cont";

/// What all rounds came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that were acknowledged, and found to have taken effect.
    pub acknowledged: u64,
    /// Requests that were sent and not answered.
    pub unanswered: u64,
    /// Requests that were answered with an error: only with [`Options::failures`].
    pub failed: u64,
    /// Unanswered or failed ones that had taken effect all the same.
    pub took_effect: u64,
}

/// How much and how large.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads, each with a connection.
    pub workers: usize,
    /// Objects of each worker.
    pub names: usize,
    /// Largest object in bytes.
    pub largest: usize,
    /// Acknowledgements of a round before its end, at most; each round draws a number.
    pub acknowledgements: u32,
    /// Whether requests may fail on a living engine, as when a device is pulled. A name whose request failed is left alone until it
    /// is verified.
    pub failures: bool,
    /// Longest wait for an acknowledgement.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            workers: 4,
            names: 8,
            largest: (3 << 20) + 17,
            acknowledgements: 1,
            failures: false,
            patience: Duration::from_secs(60),
        }
    }
}

/// What the workers have done so far, for whoever ends the engine.
pub struct Progress {
    works: mpsc::Receiver<()>,
    patience: Duration,
}

impl Progress {
    /// Waits until so many more requests are acknowledged.
    ///
    /// # Errors
    /// When one does not come in time.
    pub fn wait(&self, more: u32) -> Result<(), RecvTimeoutError> {
        (0..more).try_for_each(|_| self.works.recv_timeout(self.patience))
    }

    /// Forgets what is acknowledged by now, so that [`Progress::wait`] is about what comes.
    pub fn forget(&self) {
        while self.works.try_recv().is_ok() {}
    }
}

/// Workers and what they know.
pub struct Load {
    options: Options,
    rng: SmallRng,
    slots: Vec<Vec<Slot>>,
    /// What came of it so far.
    pub tally: Tally,
}

/// Bytes that repeat for the same seed and do not compress.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut data);
    data
}

/// The engine is gone, or says that it goes.
fn is_end(error: &ObjError) -> bool {
    matches!(error, ObjError::Transport(_)) || error.der() == Der::SHUTDOWN
}

fn container(address: &str) -> Result<Container, ObjError> {
    Engine::connect(address)?.pool(POOL)?.container(CONT)
}

impl Load {
    /// The seed repeats the choices, not the moments.
    pub fn new(seed: u64, options: Options) -> Load {
        let of_worker = |worker| {
            let name = |nr| Slot::new(format!("worker {worker}/object {nr}"));
            (0..options.names).map(name).collect()
        };
        Load {
            options,
            rng: SmallRng::seed_from_u64(seed),
            slots: (0..options.workers).map(of_worker).collect(),
            tally: Tally::default(),
        }
    }

    /// Makes the pool, of this many bytes, and the container.
    pub fn prepare(&self, address: &str, size: u64) -> Result<(), ObjError> {
        let pool = Engine::connect(address)?.create_pool(POOL, size)?;
        pool.create_container(CONT).map(drop)
    }

    /// Runs the workers; when a drawn number of requests is acknowledged calls `end`, which ends the engine; gives `end`'s result when
    /// all workers have noticed. They also stop when `end` has left the engine alive.
    ///
    /// # Panics
    /// If an acknowledgement does not come in time, or a request fails for another reason than the engine's end.
    pub fn until_end<T>(&mut self, address: &str, end: impl FnOnce(&Progress) -> T) -> T {
        let seeds: Vec<u64> = self.slots.iter().map(|_| self.rng.random()).collect();
        let (sender, works) = mpsc::channel();
        let (options, tally) = (self.options, &mut self.tally);
        let wanted = self.rng.random_range(1..=options.acknowledgements.max(1));
        let progress = Progress {
            works,
            patience: options.patience,
        };
        let stop = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            let workers = self.slots.iter_mut().zip(seeds);
            let workers: Vec<_> = workers
                .map(|(slots, seed)| {
                    let sender = sender.clone();
                    scope.spawn(move || worker::work(address, seed, options, slots, &sender, stop))
                })
                .collect();
            drop(sender);
            let began = progress.wait(wanted);
            let ended = end(&progress);
            stop.store(true, Ordering::Relaxed);
            for worker in workers {
                let worked = worker.join().expect("a worker");
                tally.acknowledged += worked.expect("a worker's only error is the engine's end");
            }
            began.expect("acknowledgements");
            ended
        })
    }

    /// Compares everything with what is known, and learns what became of the unanswered.
    ///
    /// # Panics
    /// If an object is neither what was acknowledged last nor what was asked for last.
    pub fn verify(&mut self, address: &str) -> Result<(), ObjError> {
        let cont = container(address)?;
        for slot in self.slots.iter_mut().flatten() {
            let found = content(&cont, &slot.name)?;
            slot.compare(found.as_deref(), &mut self.tally);
        }
        Ok(())
    }

    /// Removes what is there and waits until all space is free again: half-done uploads of killed engines must not hold it for ever.
    ///
    /// # Panics
    /// If objects or used space are left in the end.
    pub fn remove_all(&mut self, address: &str) -> Result<(), ObjError> {
        let pool = Engine::connect(address)?.pool(POOL)?;
        let cont = pool.container(CONT)?;
        for slot in self.slots.iter_mut().flatten() {
            if slot.exists() {
                cont.remove(&slot.name)?;
                slot.forget();
            }
        }
        assert_eq!(cont.list("").count(), 0);
        let deadline = std::time::Instant::now() + self.options.patience;
        while pool.status()?.pool.used != 0 {
            assert!(std::time::Instant::now() < deadline, "space is still used");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

fn content(cont: &Container, name: &str) -> Result<Option<Vec<u8>>, ObjError> {
    let mut data = Vec::new();
    match cont.get(name, &mut data, GetOptions::default()) {
        Ok(info) => {
            assert_eq!(info.size, data.len() as u64, "{name}");
            Ok(Some(data))
        }
        Err(error) if error.der() == Der::NONEXIST => Ok(None),
        Err(error) => Err(error),
    }
}
