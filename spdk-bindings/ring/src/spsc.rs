//! One sender, one receiver, bounded, FIFO: for a pair of cores.
//!
//! Values lie dense in the slots; each side keeps a copy of the other side's position and looks at the real one only
//! when its copy says full or empty, so that in a steady stream the positions' lines seldom travel.

#![allow(
    unsafe_code,
    reason = "slots are written by the sender and read by the receiver without a lock"
)]

// Invariants (cited by the SAFETY comments below). A position is a count of values; slot = position % capacity.
// I1. Only the sender writes `tail`, only the receiver writes `head`; each has one owner and takes `&mut self`.
// I2. The sender writes slot `p` only after it acquired a `head` with p - head < capacity, that is after the receiver
//     moved the previous lap's value out and released `head`.
// I3. The receiver reads slot `p` only after it acquired a `tail` > p, and once, since `head` then passes `p`.
// I4. The shared part is dropped when both sides are gone.

use crate::mpsc::TrySendError;
use crate::primitive::{Arc, AtomicUsize, Ordering, UnsafeCell};
use crossbeam_utils::CachePadded;
use std::mem::MaybeUninit;

/// Set in `tail` by the sender's drop, or in `head` by the receiver's; positions count in twos.
const CLOSED: usize = 1;
const ONE: usize = 2;

struct Shared<T> {
    tail: CachePadded<AtomicUsize>,
    head: CachePadded<AtomicUsize>,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    mask: usize,
}

// SAFETY: I1 to I3 give each slot to one side at a time, with a release/acquire pair at each hand-over, and `T: Send`
// lets the value change OS threads.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above; `&Shared` is only used through the protocol of I1 to I3.
unsafe impl<T: Send> Sync for Shared<T> {}

/// The sending side; may move to another OS thread, cannot be cloned or shared.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    head_seen: usize,
}

/// The receiving side; may move to another OS thread, is never shared.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    tail_seen: usize,
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
    let shared = Arc::new(Shared {
        tail: CachePadded::new(AtomicUsize::new(0)),
        head: CachePadded::new(AtomicUsize::new(0)),
        slots: (0..capacity)
            .map(|_| UnsafeCell::new(MaybeUninit::uninit()))
            .collect(),
        mask: capacity - 1,
    });
    (
        Sender {
            shared: shared.clone(),
            tail: 0,
            head_seen: 0,
        },
        Receiver {
            shared,
            head: 0,
            tail_seen: 0,
        },
    )
}

impl<T: Send> Sender<T> {
    /// Puts `value` at the end. Never blocks, never allocates.
    ///
    /// # Errors
    /// [`TrySendError::Full`] at the bound, [`TrySendError::Closed`] once the receiver is gone; both return the value.
    /// A receiver that is gone is noticed at the latest when the ring has filled.
    #[inline]
    pub fn try_send(&mut self, value: T) -> Result<(), TrySendError<T>> {
        if self.tail - self.head_seen > self.shared.mask {
            let head = self.shared.head.load(Ordering::Acquire);
            if head & CLOSED != 0 {
                return Err(TrySendError::Closed(value));
            }
            self.head_seen = head / ONE;
            if self.tail - self.head_seen > self.shared.mask {
                return Err(TrySendError::Full(value));
            }
        }
        self.shared.slots[self.tail & self.shared.mask].with_mut(|cell| {
            // SAFETY: I2: the previous lap's value has been moved out.
            unsafe { (*cell).write(value) };
        });
        self.tail += 1;
        self.shared.tail.store(self.tail * ONE, Ordering::Release);
        Ok(())
    }

    /// Whether the receiver is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.head.load(Ordering::Acquire) & CLOSED != 0
    }

    /// How many values the ring holds at most.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.mask + 1
    }
}

impl<T> Receiver<T> {
    /// Values known to be there, after looking at the sender's position if the copy says fewer than are wanted.
    #[inline]
    fn available(&mut self, wanted: usize) -> usize {
        if self.tail_seen - self.head < wanted {
            self.tail_seen = self.shared.tail.load(Ordering::Acquire) / ONE;
        }
        self.tail_seen - self.head
    }

    /// The value at `head`, moved out. Call only with [`available`](Self::available) at least 1.
    #[inline]
    fn take(&mut self) -> T {
        let slot = &self.shared.slots[self.head & self.shared.mask];
        self.head += 1;
        // SAFETY: I3: `tail` has passed it; read once, since `head` has passed it now.
        slot.with(|cell| unsafe { (*cell).assume_init_read() })
    }

    /// The oldest value, if there is one.
    #[inline]
    pub fn try_recv(&mut self) -> Option<T> {
        if self.available(1) == 0 {
            return None;
        }
        let value = self.take();
        self.shared.head.store(self.head * ONE, Ordering::Release);
        Some(value)
    }

    /// Gives at most `max` of the values that were there at the start to `consume`, oldest first, and returns how many. Their slots are
    /// free for the sender when the batch ends. If `consume` panics, the values that it was given are gone and the
    /// rest stay.
    #[inline]
    pub fn drain(&mut self, max: usize, mut consume: impl FnMut(T)) -> usize {
        let count = self.available(max).min(max);
        if count == 0 {
            return 0;
        }
        let batch = Batch(self);
        for _ in 0..count {
            let value = batch.0.take();
            consume(value);
        }
        count
    }

    /// Values sent and not yet received.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.tail.load(Ordering::Acquire) / ONE - self.head
    }

    /// Whether [`len`](Self::len) is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the sender is gone; what it sent stays receivable.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.tail.load(Ordering::Acquire) & CLOSED != 0
    }

    /// How many values the ring holds at most.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.mask + 1
    }
}

/// Publishes the receiver's position when a batch ends, also when the batch ends by a panic of its consumer.
struct Batch<'a, T>(&'a mut Receiver<T>);

impl<T> Drop for Batch<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0
            .shared
            .head
            .store(self.0.head * ONE, Ordering::Release);
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared
            .tail
            .store((self.tail * ONE) | CLOSED, Ordering::Release);
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        while self.try_recv().is_some() {}
        self.shared
            .head
            .store((self.head * ONE) | CLOSED, Ordering::Release);
    }
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("spsc::Sender")
            .field("capacity", &(self.shared.mask + 1))
            .finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("spsc::Receiver")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .finish()
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let tail = self.tail.load(Ordering::Relaxed) / ONE;
        for position in self.head.load(Ordering::Relaxed) / ONE..tail {
            // SAFETY: I4: both sides are gone; positions from `head` up to `tail` were sent and not received.
            self.slots[position & self.mask].with_mut(|cell| unsafe { (*cell).assume_init_drop() });
        }
    }
}
