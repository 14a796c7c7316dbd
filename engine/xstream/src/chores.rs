//! Chores: work in small steps for helpers, bounded by credits (DAOS `src/engine/ult.c`, `dss_chore_register`).
//!
//! A main that has steps to hand over (a checksum, a part of an encoding) takes credits of the helper first, then gives it a
//! [`Chore`]. The helper runs one step a turn, so that its ULTs, messages and devices come round in between: in rounds, those
//! that are new before those that asked to go on. A chore that is refused was never made: credits come before it.
//!
//! Nothing is allocated once queues have their size: a chore travels in a message, and [`Chore::done`] gives its box back.
//! An xstream without such a queue (there are no helpers) runs each chore in a ULT.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::mem::size_of;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, Ordering};

use daos_errno::Der;
use spdk_thread::{Period, PollResult, Poller, SendError, yield_now};

use crate::{ServeError, SpawnError, XsType, Xstream, XstreamId, XstreamRef, Xstreams, current};

/// Credits of a helper unless it is told otherwise (DAOS: `DSS_CHORE_CREDITS_DEF`).
pub const CHORE_CREDITS: u32 = 4096;
/// Fewer than these are not enough to keep a helper busy: the default stands instead (DAOS: `DSS_CHORE_CREDITS_MIN`).
pub const CHORE_CREDITS_MIN: u32 = 1024;

/// What a step says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChoreStep {
    /// There is more to do: again in the next round (DAOS: `DSS_CHORE_YIELD`).
    Yield,
    /// That was the last one (DAOS: `DSS_CHORE_DONE`).
    Done,
}

/// Work in steps. A closure that answers [`ChoreStep`] is one.
pub trait Chore: Send + 'static {
    /// A step, on the helper: short, and it does not wait. A panic ends the chore.
    fn step(&mut self, xstream: &Xstream) -> ChoreStep;

    /// After the last step, on the helper: who reuses chores takes the box back here. One that panicked, or that was on its
    /// way when its helper ended, is dropped instead.
    fn done(self: Box<Self>) {}
}

impl<F: FnMut(&Xstream) -> ChoreStep + Send + 'static> Chore for F {
    fn step(&mut self, xstream: &Xstream) -> ChoreStep {
        self(xstream)
    }
}

/// A chore was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoreError {
    /// The engine stops.
    #[error("xstream {0} is stopping and takes no chores")]
    Canceled(XstreamId),
    /// The helper has not as many credits now.
    #[error("xstream {xstream} has {available} credits for chores left: ask for fewer, or later")]
    Again {
        /// Which.
        xstream: XstreamId,
        /// What it has.
        available: u32,
    },
    /// No xstream does this kind of work for that target, or it cannot take a ULT or a message.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

impl ChoreError {
    /// The number that modules see.
    pub fn der(&self) -> Der {
        match self {
            ChoreError::Canceled(_) | ChoreError::Spawn(SpawnError::Shutdown(_)) => Der::CANCELED,
            ChoreError::Again { .. } => Der::AGAIN,
            ChoreError::Spawn(error) => error.der(),
        }
    }
}

/// What a helper can still take. Shared with all who ask.
pub(crate) struct Credits {
    total: u32,
    /// Below 0 when what has priority overdrew.
    left: AtomicI64,
}

impl Credits {
    pub(crate) fn new(wanted: u32) -> Credits {
        let total = if wanted < CHORE_CREDITS_MIN {
            CHORE_CREDITS
        } else {
            wanted
        };
        Credits {
            total,
            left: AtomicI64::new(total.into()),
        }
    }

    /// Takes credits, or says how many there are. With priority the account may be overdrawn, by as much as it has in all.
    pub(crate) fn take(&self, credits: u32, priority: bool) -> Result<(), u32> {
        let floor = if priority { -i64::from(self.total) } else { 0 };
        let take = |left: i64| {
            let after = left - i64::from(credits);
            (after >= floor).then_some(after)
        };
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken
            .map(drop)
            .map_err(|left| (left - floor).try_into().unwrap_or(0))
    }

    fn give_back(&self, credits: u32) {
        self.left.fetch_add(credits.into(), Ordering::Relaxed);
    }

    fn left(&self) -> i64 {
        self.left.load(Ordering::Relaxed)
    }
}

/// Credits of an xstream, for one chore. They go back when it has ended, or with this when no chore was submitted.
#[must_use = "submit a chore with it"]
pub struct ChorePermit {
    xstream: XstreamRef,
    credits: u32,
}

impl ChorePermit {
    /// Where the chore will run.
    pub fn xstream(&self) -> &XstreamRef {
        &self.xstream
    }

    /// Gives the chore to the xstream; any thread. `name` is for operators.
    ///
    /// # Errors
    /// The xstream's mailbox is full, or it has ended; the chore has been dropped.
    pub fn submit(self, name: &'static str, chore: Box<dyn Chore>) -> Result<(), ChoreError> {
        let to = self.xstream.clone();
        let accepted = Accepted {
            name,
            chore: Some(chore),
            _permit: self,
        };
        const {
            // A message takes 48 bytes without allocating (`spdk_ring::Message`).
            assert!(size_of::<Accepted>() <= 48);
        }
        if to.shared.chores.is_none() {
            to.spawn(name, move |_| accepted.alone())?;
            return Ok(());
        }
        let sent = to.send(move |xstream| match &xstream.inner.chores {
            Some(queue) => queue.push(xstream, accepted),
            None => tracing::error!(name, "a chore came to an xstream that takes none"),
        });
        sent.map_err(|error| match error {
            SendError::Full => SpawnError::Full(to.id()).into(),
            SendError::Exited => ChoreError::Canceled(to.id()),
        })
    }
}

impl Drop for ChorePermit {
    fn drop(&mut self) {
        if let Some(account) = &self.xstream.shared.chores {
            account.give_back(self.credits);
        }
    }
}

impl fmt::Debug for ChorePermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChorePermit({} of {:?})", self.credits, self.xstream)
    }
}

impl XstreamRef {
    /// Takes credits for a chore, at least one; any thread. With `priority` more than there are, within bounds.
    ///
    /// # Errors
    /// [`ChoreError::Again`] with what is left, [`ChoreError::Canceled`] once the engine stops. An xstream that is no helper
    /// has no credits to count: its bound is that of its ULTs.
    pub fn reserve_chore(&self, credits: u32, priority: bool) -> Result<ChorePermit, ChoreError> {
        if self.is_stopping() {
            return Err(ChoreError::Canceled(self.id()));
        }
        let credits = credits.max(1);
        if let Some(account) = &self.shared.chores {
            account
                .take(credits, priority)
                .map_err(|available| ChoreError::Again {
                    xstream: self.id(),
                    available,
                })?;
        }
        Ok(ChorePermit {
            xstream: self.clone(),
            credits,
        })
    }
}

impl Xstreams {
    /// Takes credits where that kind of work is done for a target: [`XsType::Iofw`] (DAOS has only this one) or
    /// [`XsType::Offload`].
    ///
    /// # Errors
    /// As [`XstreamRef::reserve_chore`], and [`ServeError`].
    pub fn reserve_chore(
        &self,
        kind: XsType,
        target: u32,
        credits: u32,
        priority: bool,
    ) -> Result<ChorePermit, ChoreError> {
        let xstream = self
            .serves(kind, Some(target))
            .map_err(|error: ServeError| SpawnError::from(error))?;
        xstream.reserve_chore(credits, priority)
    }
}

/// A chore and its credits.
struct Accepted {
    name: &'static str,
    chore: Option<Box<dyn Chore>>,
    /// Gives the credits back.
    _permit: ChorePermit,
}

impl Accepted {
    /// One step; a panic counts as the last one, without `done`.
    fn step(&mut self, xstream: &Xstream) -> ChoreStep {
        let Some(chore) = &mut self.chore else {
            return ChoreStep::Done;
        };
        let step = catch_unwind(AssertUnwindSafe(|| chore.step(xstream)));
        let ended = match step {
            Ok(ChoreStep::Yield) => return ChoreStep::Yield,
            Ok(ChoreStep::Done) => {
                let chore = self.chore.take();
                catch_unwind(AssertUnwindSafe(|| chore.map(Chore::done).unwrap_or(())))
            }
            Err(panic) => {
                let chore = self.chore.take();
                // What a panic leaves, and what it says, may panic when dropped: then once more.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(chore)));
                Err(panic)
            }
        };
        if let Err(panic) = ended {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            let (name, xstream, panic) = (self.name, xstream.name(), text.unwrap_or_default());
            tracing::error!(chore = name, xstream, panic, "a chore panicked and is over");
        }
        ChoreStep::Done
    }

    /// On an xstream that has no queue for chores, as a ULT.
    async fn alone(mut self) {
        loop {
            let Some(xstream) = current() else { return };
            if self.step(&xstream) == ChoreStep::Done {
                return;
            }
            drop(xstream);
            yield_now().await;
        }
    }
}

/// A helper's chores since its start, and what it has now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChoreStats {
    /// Chores that are not done.
    pub queued: u64,
    /// Chores that have ended.
    pub done: u64,
    /// Steps that were run.
    pub steps: u64,
    /// Credits left; below 0 when chores with priority overdrew.
    pub credits: i64,
}

/// The chores of the helper that it belongs to.
#[derive(Default)]
pub(crate) struct ChoreQueue {
    /// Come since the round began.
    arrived: RefCell<VecDeque<Accepted>>,
    /// Of this round.
    round: RefCell<VecDeque<Accepted>>,
    /// Had their turn in this round and go on in the next.
    again: RefCell<VecDeque<Accepted>>,
    poller: RefCell<Option<Poller>>,
    done: Cell<u64>,
    steps: Cell<u64>,
}

impl ChoreQueue {
    fn push(self: &Rc<Self>, xstream: &Xstream, accepted: Accepted) {
        self.arrived.borrow_mut().push_back(accepted);
        let mut poller = self.poller.borrow_mut();
        match &*poller {
            Some(poller) => poller.resume(),
            None => {
                let queue = Rc::downgrade(self);
                let turn = move |_| {
                    let (queue, xstream) = (queue.upgrade(), current());
                    queue
                        .zip(xstream)
                        .map_or(PollResult::Idle, |(q, x)| q.turn(&x))
                };
                let thread = xstream.thread();
                *poller = Some(thread.register_poller("chores", Period::EveryTurn, turn));
            }
        }
    }

    /// One step of one chore.
    fn turn(&self, xstream: &Xstream) -> PollResult {
        let mut next = self.round.borrow_mut().pop_front();
        if next.is_none() {
            let mut round = self.round.borrow_mut();
            round.append(&mut self.arrived.borrow_mut());
            round.append(&mut self.again.borrow_mut());
            next = round.pop_front();
        }
        let Some(mut chore) = next else {
            if let Some(poller) = &*self.poller.borrow() {
                poller.pause();
            }
            return PollResult::Idle;
        };
        self.steps.set(self.steps.get() + 1);
        match chore.step(xstream) {
            ChoreStep::Yield => self.again.borrow_mut().push_back(chore),
            ChoreStep::Done => self.done.set(self.done.get() + 1),
        }
        PollResult::Busy
    }

    pub(crate) fn queued(&self) -> usize {
        self.arrived.borrow().len() + self.round.borrow().len() + self.again.borrow().len()
    }

    pub(crate) fn stats(&self, address: &XstreamRef) -> ChoreStats {
        ChoreStats {
            queued: self.queued() as u64,
            done: self.done.get(),
            steps: self.steps.get(),
            credits: address.shared.chores.as_ref().map_or(0, Credits::left),
        }
    }
}
