//! An erased closure in 56 bytes: with the sequence number of a ring's slot it is one cache line.

#![allow(
    unsafe_code,
    reason = "erases a closure into inline storage; the fence of docs/UNSAFE.md"
)]

// Invariants (cited by the SAFETY comments below):
// I1. `vtable` is the table of exactly one type `S`, chosen in `Message::new`, and `storage` holds a valid `S` from
//     construction until `call` or `drop` takes it; nobody takes it twice, since both consume the message.
// I2. `S` is stored inline only if it fits the storage in size and alignment; otherwise `S` is a `Box`, which does.
// I3. `S: Send`, so that the message may be consumed on another OS thread than the one that made it.

use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit, align_of, size_of};

/// Words of inline storage: 48 bytes.
const WORDS: usize = 6;
type Storage = [MaybeUninit<usize>; WORDS];

struct Vtable<C: ?Sized> {
    /// Moves the closure out of the storage and calls it.
    call: unsafe fn(*mut Storage, &C),
    /// Drops the closure in the storage.
    drop: unsafe fn(*mut Storage),
}

/// A `FnOnce(&C) + Send` of unknown type, stored inline when it takes at most 48 bytes with the alignment of a
/// pointer, and boxed otherwise. 56 bytes in all.
///
/// This is SPDK's `struct spdk_msg` (function and argument) with the argument owned: a message that is never
/// delivered drops what it captured.
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// let add = spdk_ring::Message::new(|total: &AtomicU32| { total.fetch_add(3, Ordering::Relaxed); });
/// let total = AtomicU32::new(0);
/// add.call(&total);
/// assert_eq!(total.into_inner(), 3);
/// ```
pub struct Message<C: ?Sized + 'static> {
    vtable: &'static Vtable<C>,
    storage: Storage,
    not_sync: PhantomData<*const ()>,
}

// SAFETY: I3; the raw pointer in the marker only keeps the message from being `Sync`.
unsafe impl<C: ?Sized> Send for Message<C> {}

struct Inline<F>(PhantomData<F>);
struct Boxed<F>(PhantomData<F>);

impl<F> Inline<F> {
    const FITS: bool =
        size_of::<F>() <= size_of::<Storage>() && align_of::<F>() <= align_of::<Storage>();

    const fn vtable<C: ?Sized>() -> &'static Vtable<C>
    where
        F: FnOnce(&C),
    {
        const {
            &Vtable {
                call: call_inline::<F, C>,
                drop: drop_inline::<F>,
            }
        }
    }
}

impl<F> Boxed<F> {
    const fn vtable<C: ?Sized>() -> &'static Vtable<C>
    where
        F: FnOnce(&C),
    {
        const {
            &Vtable {
                call: call_boxed::<F, C>,
                drop: drop_inline::<Box<F>>,
            }
        }
    }
}

/// # Safety
/// `storage` holds a valid `F`, which the caller gives up.
unsafe fn call_inline<F: FnOnce(&C), C: ?Sized>(storage: *mut Storage, context: &C) {
    // SAFETY: I1 and I2: the storage holds an `F` at a suitable address, and it is read once.
    let f = unsafe { storage.cast::<F>().read() };
    f(context);
}

/// # Safety
/// `storage` holds a valid `Box<F>`, which the caller gives up.
unsafe fn call_boxed<F: FnOnce(&C), C: ?Sized>(storage: *mut Storage, context: &C) {
    // SAFETY: I1 and I2: the storage holds a `Box<F>`, and it is read once.
    let f = unsafe { storage.cast::<Box<F>>().read() };
    f(context);
}

/// # Safety
/// `storage` holds a valid `S`, which the caller gives up.
unsafe fn drop_inline<S>(storage: *mut Storage) {
    // SAFETY: I1 and I2: the storage holds an `S` at a suitable address, and it is dropped once.
    unsafe { storage.cast::<S>().drop_in_place() }
}

impl<C: ?Sized> Message<C> {
    /// Erases `f`. Allocates only if `f` is larger than 48 bytes or aligned to more than a pointer.
    #[inline]
    pub fn new<F>(f: F) -> Self
    where
        F: FnOnce(&C) + Send + 'static,
    {
        let mut storage: Storage = [MaybeUninit::uninit(); WORDS];
        let vtable = if Inline::<F>::FITS {
            // SAFETY: I2: `F` fits in size and alignment.
            unsafe { (&raw mut storage).cast::<F>().write(f) };
            Inline::<F>::vtable()
        } else {
            // SAFETY: I2: a `Box` of a sized type is one pointer.
            unsafe { (&raw mut storage).cast::<Box<F>>().write(Box::new(f)) };
            Boxed::<F>::vtable()
        };
        Self {
            vtable,
            storage,
            not_sync: PhantomData,
        }
    }

    /// Whether a closure of this type travels in the slot itself.
    #[must_use]
    pub const fn fits_inline<F>() -> bool {
        Inline::<F>::FITS
    }

    /// Runs the closure. If it panics, what it captured is dropped by the unwinding, once.
    #[inline]
    pub fn call(self, context: &C) {
        let mut this = ManuallyDrop::new(self);
        let call = this.vtable.call;
        // SAFETY: I1: `self` was consumed and will not be dropped, so the closure is given up here, once.
        unsafe { call(&raw mut this.storage, context) }
    }
}

impl<C: ?Sized> Drop for Message<C> {
    fn drop(&mut self) {
        // SAFETY: I1: a message that is being dropped was not called, so its storage still holds the closure.
        unsafe { (self.vtable.drop)(&raw mut self.storage) }
    }
}

impl<C: ?Sized> std::fmt::Debug for Message<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Message")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::sync::Arc;

    #[test]
    fn message_and_sequence_number_are_one_cache_line() {
        assert_eq!(size_of::<Message<str>>() + size_of::<usize>(), 64);
    }

    #[test]
    fn small_closures_are_inline_and_large_or_aligned_ones_are_boxed() {
        #[repr(align(16))]
        struct Aligned;
        assert!(Message::<()>::fits_inline::<[u64; 6]>());
        assert!(!Message::<()>::fits_inline::<[u64; 7]>());
        assert!(!Message::<()>::fits_inline::<Aligned>());
    }

    #[test]
    fn calling_runs_once_and_drops_the_captures_once() {
        let held = Arc::new(());
        let (small, large) = (held.clone(), (held.clone(), [0u8; 100]));
        let sum = Cell::new(0);
        let a = Message::new(move |c: &Cell<i32>| {
            let _ = &small;
            c.set(c.get() + 1);
        });
        let b = Message::new(move |c: &Cell<i32>| {
            let _ = &large;
            c.set(c.get() + 10);
        });
        assert_eq!(Arc::strong_count(&held), 3);
        a.call(&sum);
        assert_eq!(Arc::strong_count(&held), 2);
        b.call(&sum);
        assert_eq!((Arc::strong_count(&held), sum.get()), (1, 11));
    }

    #[test]
    fn dropping_uncalled_drops_the_captures() {
        let held = Arc::new(());
        let (small, large) = (held.clone(), (held.clone(), [0u8; 100]));
        drop(Message::<()>::new(move |_| drop(small)));
        drop(Message::<()>::new(move |_| drop(large)));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn a_panic_inside_drops_the_captures_once() {
        let held = Arc::new(());
        let small = held.clone();
        let message = Message::<()>::new(move |_| {
            let _ = &small;
            panic!("inside");
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| message.call(&())));
        assert!(result.is_err());
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
