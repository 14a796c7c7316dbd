//! What a controller and its queue pairs share across threads.
//!
//! A reset is a conversation through two words. The controller sets the *phase* to resetting and disables the device; a queue
//! pair that is *active* (has I/O) sees the phase at its next call, lets go of the queue's doorbells and acknowledges; when
//! all have, the controller enables the device, creates the queues anew and sets the phase to running with the next
//! generation; each queue pair then starts from empty queues and submits again what was out. A queue pair without I/O
//! is not active and need not be woken: becoming active it looks at the phase before it touches anything.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use spdk_env::{DeviceBacking, DmaBuf, DmaMemory};

use crate::Options;
use crate::doorbell::Shadows;

/// What a controller is doing, as its queue pairs need to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum State {
    /// I/O goes to the device.
    Running = 0,
    /// The device is being reset; I/O waits.
    Resetting = 1,
    /// The controller is gone for good and reaches no memory.
    Ended = 2,
    /// The controller is gone for good, but it may still write to memory that it was given.
    EndedUnsafe = 3,
}

/// A state with the number of resets before it, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Phase(u32);

impl Phase {
    pub(crate) fn new(state: State, generation: u32) -> Phase {
        Phase(generation << 2 | state as u32)
    }

    pub(crate) fn state(self) -> State {
        match self.0 & 3 {
            0 => State::Running,
            1 => State::Resetting,
            2 => State::Ended,
            _ => State::EndedUnsafe,
        }
    }

    pub(crate) fn generation(self) -> u32 {
        self.0 >> 2
    }
}

/// Why a queue pair or the owner asks for a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ResetReason {
    /// The owner asked.
    Requested = 1,
    /// A command did not complete, and its abort did not help.
    TimedOut = 2,
    /// Completions that make no sense.
    Nonsense = 3,
    /// CSTS.CFS.
    Fatal = 4,
    /// An admin command did not complete.
    AdminTimeout = 5,
}

impl ResetReason {
    fn from_word(word: u32) -> Option<ResetReason> {
        [
            ResetReason::Requested,
            ResetReason::TimedOut,
            ResetReason::Nonsense,
            ResetReason::Fatal,
            ResetReason::AdminTimeout,
        ]
        .into_iter()
        .find(|reason| *reason as u32 == word)
    }
}

/// Why the controller ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum End {
    Removed = 1,
    Failed = 2,
    ShutDown = 3,
}

/// A queue pair's part.
pub(crate) struct QueueShared {
    /// I/O queue id, from 1.
    pub(crate) id: u16,
    pub(crate) entries: u32,
    pub(crate) sq: DmaMemory,
    pub(crate) cq: DmaMemory,
    /// PRP lists and deallocate ranges, one for each command, in chunks.
    pub(crate) lists: Box<[DmaMemory]>,
    /// MSI-X vector and its descriptor, if the queue interrupts.
    pub(crate) interrupt: Option<(u16, OwnedFd)>,
    /// 1 while the queue pair may touch the queue (see the top of the file).
    pub(crate) active: AtomicU32,
    /// Phase word of the last acknowledged reset.
    acknowledged: AtomicU32,
    /// A command to abort: `1 << 16 | cid`; 0 for none.
    pub(crate) abort: AtomicU32,
    pub(crate) taken: AtomicBool,
    pub(crate) position: Mutex<Position>,
    /// I/O that was out when its queue pair was dropped: buffers stay here until the queue is deleted or the device reset.
    orphans: Mutex<Vec<DmaBuf>>,
    pub(crate) has_orphans: AtomicBool,
    pub(crate) counters: Counters,
}

/// Where a queue pair left its queue when it was dropped without I/O.
#[derive(Clone, Copy, Default)]
pub(crate) struct Position {
    /// The phase that the rest is true in.
    pub(crate) phase: Option<Phase>,
    pub(crate) tail: u32,
    pub(crate) head: u32,
    pub(crate) expected_phase: bool,
}

/// What went wrong on a queue, for health.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) retries: AtomicU64,
    pub(crate) timeouts: AtomicU64,
    pub(crate) nonsense: AtomicU64,
    pub(crate) lost: AtomicU64,
}

impl QueueShared {
    pub(crate) fn new(
        id: u16,
        entries: u32,
        sq: DmaMemory,
        cq: DmaMemory,
        lists: Box<[DmaMemory]>,
        interrupt: Option<(u16, OwnedFd)>,
    ) -> QueueShared {
        QueueShared {
            id,
            entries,
            sq,
            cq,
            lists,
            interrupt,
            active: AtomicU32::new(0),
            acknowledged: AtomicU32::new(u32::MAX),
            abort: AtomicU32::new(0),
            taken: AtomicBool::new(false),
            position: Mutex::default(),
            orphans: Mutex::default(),
            has_orphans: AtomicBool::new(false),
            counters: Counters::default(),
        }
    }

    /// Wakes a thread that sleeps until the queue interrupts, as if it had.
    pub(crate) fn wake(&self) {
        if let Some((_, fd)) = &self.interrupt {
            spdk_env::ring_eventfd(fd);
        }
    }

    /// The queue pair has let go of the queue for this reset.
    pub(crate) fn acknowledge(&self, phase: Phase) {
        self.acknowledged.store(phase.0, Ordering::Release);
    }

    /// Whether the queue pair touches nothing of the queue until the phase changes again.
    pub(crate) fn has_let_go(&self, phase: Phase) -> bool {
        self.active.load(Ordering::SeqCst) == 0
            || self.acknowledged.load(Ordering::Acquire) == phase.0
            || self.has_orphans.load(Ordering::Acquire)
    }

    /// The device has forgotten the queue: whoever is next starts from empty rings. Frees what a dropped queue pair left behind.
    pub(crate) fn made_anew(&self) {
        if self.has_orphans.load(Ordering::Acquire) {
            self.drop_orphans(true);
            self.active.store(0, Ordering::Release);
            self.taken.store(false, Ordering::Release);
        }
    }

    pub(crate) fn orphan(&self, bufs: Vec<DmaBuf>) {
        let mut orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        orphans.extend(bufs);
        self.has_orphans.store(true, Ordering::Release);
    }

    /// The device has let go of everything of this queue: what was left behind is freed, or never used again.
    pub(crate) fn drop_orphans(&self, safe: bool) {
        let mut orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        let bufs = core::mem::take(&mut *orphans);
        self.has_orphans.store(false, Ordering::Release);
        if !safe {
            bufs.into_iter().for_each(leak);
        }
    }
}

/// Gives a buffer to the device for ever.
#[cold]
pub(crate) fn leak(buf: DmaBuf) {
    #[expect(
        clippy::mem_forget,
        reason = "the device may write here at any time and could not be stopped"
    )]
    core::mem::forget(buf);
}

/// All of it.
pub(crate) struct Shared<B: DeviceBacking> {
    pub(crate) backing: Arc<B>,
    pub(crate) options: Options,
    pub(crate) dstrd: u8,
    /// Longest transfer of a command in bytes.
    pub(crate) max_transfer: u32,
    /// Bytes between PRP lists.
    pub(crate) list_stride: usize,
    pub(crate) sgl: bool,
    pub(crate) oncs: u16,
    pub(crate) granted: u16,
    phase: AtomicU32,
    end: AtomicU32,
    reset: AtomicU32,
    pub(crate) queues: OnceLock<Box<[Arc<QueueShared>]>>,
    pub(crate) shadows: OnceLock<Shadows>,
    /// Whether the device was told of the shadows since its last reset.
    pub(crate) shadows_on: AtomicBool,
    /// The device is known to reach no memory.
    pub(crate) quiet: AtomicBool,
}

impl<B: DeviceBacking> Shared<B> {
    pub(crate) fn new(backing: Arc<B>, options: Options, dstrd: u8, facts: Facts) -> Shared<B> {
        Shared {
            backing,
            options,
            dstrd,
            max_transfer: facts.max_transfer,
            list_stride: facts.list_stride,
            sgl: facts.sgl,
            oncs: facts.oncs,
            granted: facts.granted,
            phase: AtomicU32::new(Phase::new(State::Resetting, 0).0),
            end: AtomicU32::new(0),
            reset: AtomicU32::new(0),
            queues: OnceLock::new(),
            shadows: OnceLock::new(),
            shadows_on: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
        }
    }

    #[inline]
    pub(crate) fn phase(&self) -> Phase {
        Phase(self.phase.load(Ordering::Acquire))
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase.0, Ordering::SeqCst);
        // Against the fence of a queue pair that becomes active.
        fence(Ordering::SeqCst);
        // One with I/O may sleep until the device interrupts, which it will not do now.
        self.queues().iter().for_each(|queue| queue.wake());
    }

    pub(crate) fn end(&self) -> Option<End> {
        match self.end.load(Ordering::Acquire) {
            1 => Some(End::Removed),
            2 => Some(End::Failed),
            3 => Some(End::ShutDown),
            _ => None,
        }
    }

    /// The controller is over. `safe`: it reaches no memory any more.
    pub(crate) fn set_end(&self, end: End, safe: bool) {
        self.end.store(end as u32, Ordering::Release);
        self.quiet.store(safe, Ordering::Release);
        let state = if safe {
            State::Ended
        } else {
            State::EndedUnsafe
        };
        self.set_phase(Phase::new(state, self.phase().generation()));
        self.queues()
            .iter()
            .for_each(|queue| queue.drop_orphans(safe));
    }

    /// Asks for a reset; the first reason stands.
    #[cold]
    pub(crate) fn request_reset(&self, reason: ResetReason) {
        let _ = self
            .reset
            .compare_exchange(0, reason as u32, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(crate) fn reset_wanted(&self) -> Option<ResetReason> {
        ResetReason::from_word(self.reset.load(Ordering::Acquire))
    }

    pub(crate) fn clear_reset(&self) {
        self.reset.store(0, Ordering::Release);
    }

    pub(crate) fn queues(&self) -> &[Arc<QueueShared>] {
        self.queues.get().map_or(&[], |queues| queues)
    }
}

/// What bring-up found out once and for all.
pub(crate) struct Facts {
    pub(crate) max_transfer: u32,
    pub(crate) list_stride: usize,
    pub(crate) sgl: bool,
    pub(crate) oncs: u16,
    pub(crate) granted: u16,
}

impl<B: DeviceBacking> Drop for Shared<B> {
    fn drop(&mut self) {
        let quiet = *self.quiet.get_mut();
        if quiet || self.backing.isolate().is_ok() {
            return;
        }
        #[expect(
            clippy::mem_forget,
            reason = "the device may write to its queues at any time and could not be stopped"
        )]
        core::mem::forget((self.queues.take(), self.shadows.take()));
    }
}
