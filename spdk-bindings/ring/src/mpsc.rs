//! Many senders, one receiver, bounded, FIFO per sender: the mailbox of a thread.
//!
//! A Vyukov-style ring whose consumer never writes a slot: it publishes its position once per batch instead, so a
//! batch costs the senders one line of coherence traffic and not one per message. A slot is 64-byte aligned, so two
//! senders in neighbouring slots do not disturb each other.

#![allow(
    unsafe_code,
    reason = "slots are written by senders and read by the receiver without a lock"
)]

// Invariants (cited by the SAFETY comments below). A position is a count of reservations; slot = position % capacity.
// I1. `tail` holds (position << 1 | closed). A sender owns position `p` exclusively from its successful
//     compare-exchange p -> p + 1 until it stores `sequence = p + 1`.
// I2. A sender reserves `p` only after it acquired a `head` with p - head < capacity: the receiver moved the previous
//     lap's value out of the slot before it released that `head` (directly, or through `head_seen`, which a sender
//     releases after it acquired `head`).
// I3. The receiver reads slot `p` only after it acquired `sequence == p + 1`, and only once, since `head` then passes `p`.
// I4. There is one receiver, and its methods take `&mut self` where they move values.
// I5. The shared part is dropped when no sender is left, so that all reserved positions are published by then.

use crate::primitive::{Arc, AtomicUsize, Ordering, UnsafeCell};
use crossbeam_utils::CachePadded;
use std::mem::MaybeUninit;

/// The closed flag in `tail`; positions count in twos.
const CLOSED: usize = 1;
const ONE: usize = 2;
const _: () = assert!(usize::BITS == 64, "positions must not wrap");

#[repr(C, align(64))]
struct Slot<T> {
    sequence: AtomicUsize,
    value: UnsafeCell<MaybeUninit<T>>,
}

/// What senders write: kept apart from what the receiver writes.
struct SenderSide {
    tail: AtomicUsize,
    /// The newest `head` that any sender has seen, so that most sends do not touch the receiver's line.
    head_seen: AtomicUsize,
}

struct Shared<T> {
    senders: CachePadded<SenderSide>,
    head: CachePadded<AtomicUsize>,
    slots: Box<[Slot<T>]>,
    mask: usize,
}

// SAFETY: I1 to I3 give each slot's value to one side at a time, with a release/acquire pair at each hand-over, and
// `T: Send` lets it change OS threads.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above; `&Shared` is only used through the protocol of I1 to I4.
unsafe impl<T: Send> Sync for Shared<T> {}

/// Why a value was not sent; the value comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// The ring holds `capacity` values: back-pressure, try again after the receiver has run.
    Full(T),
    /// The receiver has closed the ring or is gone; no later send will succeed.
    Closed(T),
}

impl<T> TrySendError<T> {
    /// The value that was not sent.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(value) | Self::Closed(value) => value,
        }
    }
}

/// The sending side: clone it freely, use it from any OS thread.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// The receiving side: one per ring; may move to another OS thread but is never shared.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// The receiver's own position, ahead of the published `head` within a batch.
    head: usize,
}

/// A ring of `capacity` values, rounded up to a power of two (at least 1; under 2^31).
///
/// # Panics
/// If the capacity is 2^31 or more.
pub fn channel<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(
        capacity < 1 << 31,
        "spdk_ring: a capacity of {capacity} is not a ring, it is a leak"
    );
    let capacity = capacity.max(1).next_power_of_two();
    let slots = (0..capacity)
        .map(|_| Slot {
            sequence: AtomicUsize::new(0),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        })
        .collect();
    let shared = Arc::new(Shared {
        senders: CachePadded::new(SenderSide {
            tail: AtomicUsize::new(0),
            head_seen: AtomicUsize::new(0),
        }),
        head: CachePadded::new(AtomicUsize::new(0)),
        slots,
        mask: capacity - 1,
    });
    (
        Sender {
            shared: shared.clone(),
        },
        Receiver { shared, head: 0 },
    )
}

impl<T> Shared<T> {
    fn capacity(&self) -> usize {
        self.mask + 1
    }

    /// Reserves a position for a sender, or says why not. (I1, I2)
    #[inline]
    fn reserve(&self) -> Result<usize, Refused> {
        let mut tail = self.senders.tail.load(Ordering::Relaxed);
        let mut head = self.senders.head_seen.load(Ordering::Acquire);
        loop {
            if tail & CLOSED != 0 {
                return Err(Refused::Closed);
            }
            let position = tail >> 1;
            if in_use(position, head) >= self.capacity() {
                head = self.head.load(Ordering::Acquire);
                self.senders.head_seen.store(head, Ordering::Release);
                // `head` can be ahead of an old `tail`; the compare-exchange below then fails and brings a newer one.
                if in_use(position, head) >= self.capacity() {
                    return Err(Refused::Full);
                }
            }
            let next = tail + ONE;
            match self.senders.tail.compare_exchange_weak(
                tail,
                next,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(position),
                Err(newer) => tail = newer,
            }
        }
    }
}

enum Refused {
    Full,
    Closed,
}

/// Positions between `head` and `position`; 0 when `head` is ahead of an old `position`. Positions do not wrap: 63 bits
/// at a thousand million messages a second are 292 years.
#[inline]
fn in_use(position: usize, head: usize) -> usize {
    position.saturating_sub(head)
}

impl<T: Send> Sender<T> {
    /// Puts `value` at the end. Never blocks, never allocates.
    ///
    /// # Errors
    /// [`TrySendError::Full`] at the bound, [`TrySendError::Closed`] once the receiver has closed; both return the value.
    #[inline]
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let position = match self.shared.reserve() {
            Ok(position) => position,
            Err(Refused::Full) => return Err(TrySendError::Full(value)),
            Err(Refused::Closed) => return Err(TrySendError::Closed(value)),
        };
        let slot = &self.shared.slots[position & self.shared.mask];
        self.prefetch(position);
        slot.value.with_mut(|cell| {
            // SAFETY: I1: this sender owns the position; I2: the previous lap's value has been moved out.
            unsafe { (*cell).write(value) };
        });
        slot.sequence.store(position + 1, Ordering::Release);
        Ok(())
    }

    /// Asks for the line of a slot that is soon to be written, so that its ownership arrives in the meantime.
    #[inline(always)]
    fn prefetch(&self, position: usize) {
        #[cfg(all(target_arch = "x86_64", not(loom), not(miri)))]
        {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            const AHEAD: usize = 8;
            let ahead = &raw const self.shared.slots[(position + AHEAD) & self.shared.mask];
            // SAFETY: a prefetch reads and writes nothing; the address is inside the slots anyway.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(ahead.cast()) };
        }
        #[cfg(not(all(target_arch = "x86_64", not(loom), not(miri))))]
        let _ = position;
    }
}

impl<T> Sender<T> {
    /// How many values the ring holds at most.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.capacity()
    }

    /// Whether the receiver has closed the ring.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.senders.tail.load(Ordering::Acquire) & CLOSED != 0
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("mpsc::Sender")
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

/// Publishes the receiver's position when a batch ends, also when the batch ends by a panic of its consumer.
struct Batch<'a, T> {
    receiver: &'a mut Receiver<T>,
    published: usize,
}

impl<T> Drop for Batch<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // An empty batch leaves the senders' copy of the line alone.
        if self.receiver.head != self.published {
            self.receiver
                .shared
                .head
                .store(self.receiver.head, Ordering::Release);
        }
    }
}

impl<T> Receiver<T> {
    /// The value at `head` if its sender has finished, moved out; `head` is not published yet.
    #[inline]
    fn take(&mut self) -> Option<T> {
        let slot = &self.shared.slots[self.head & self.shared.mask];
        let next = self.head + 1;
        if slot.sequence.load(Ordering::Acquire) != next {
            return None;
        }
        self.head = next;
        // SAFETY: I3: published, read once (I4: `&mut self`, and `head` has passed it).
        Some(
            slot.value
                .with(|cell| unsafe { (*cell).assume_init_read() }),
        )
    }

    /// The oldest value, if there is one.
    #[inline]
    pub fn try_recv(&mut self) -> Option<T> {
        let value = self.take()?;
        self.shared.head.store(self.head, Ordering::Release);
        Some(value)
    }

    /// Gives at most `max` values to `consume`, oldest first, and returns how many. Their slots are free for senders
    /// when the batch ends. If `consume` panics, the values that it was given are gone and the rest stay.
    #[inline]
    pub fn drain(&mut self, max: usize, mut consume: impl FnMut(T)) -> usize {
        let published = self.head;
        let batch = Batch {
            receiver: self,
            published,
        };
        let mut count = 0;
        while count < max {
            let Some(value) = batch.receiver.take() else {
                break;
            };
            count += 1;
            consume(value);
        }
        count
    }

    /// Whether the next value is there to be received now: one load, for the top of a turn.
    #[must_use]
    #[inline]
    pub fn has_next(&self) -> bool {
        let slot = &self.shared.slots[self.head & self.shared.mask];
        slot.sequence.load(Ordering::Acquire) == self.head + 1
    }

    /// Values sent and not yet received, including those whose senders are still writing them.
    #[must_use]
    pub fn len(&self) -> usize {
        in_use(
            self.shared.senders.tail.load(Ordering::Acquire) >> 1,
            self.head,
        )
    }

    /// Whether [`len`](Self::len) is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last look before sleeping: whether no send has begun, ordered against senders.
    ///
    /// The receiver sets its "I am asleep" flag, then calls this; a sender sends, then reads the flag. If this returns
    /// true, every later sender sees the flag as set: the read-modify-write here and the sender's reservation are
    /// ordered by the same word, and a reservation that comes later acquires what was done before this call. No fence
    /// on the senders' path.
    #[must_use]
    pub fn settle(&self) -> bool {
        let tail = self.shared.senders.tail.fetch_or(0, Ordering::AcqRel);
        in_use(tail >> 1, self.head) == 0
    }

    /// Refuses all later sends. What was sent before stays receivable; with [`is_empty`](Self::is_empty) the receiver
    /// knows when it has everything.
    pub fn close(&self) {
        self.shared.senders.tail.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// How many values the ring holds at most.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.capacity()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.close();
        // What a sender is still writing is dropped with the shared part.
        while self.try_recv().is_some() {}
    }
}

impl<T> std::fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("mpsc::Receiver")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .finish()
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let mut head = self.head.load(Ordering::Relaxed);
        let tail = self.senders.tail.load(Ordering::Relaxed) >> 1;
        while in_use(tail, head) > 0 {
            let slot = &self.slots[head & self.mask];
            // SAFETY: I5: all reserved positions are published, and those from `head` on were not received.
            slot.value
                .with_mut(|cell| unsafe { (*cell).assume_init_drop() });
            head += 1;
        }
    }
}
