//! What a task slot holds: a future and, in the end, its output in the same place; one allocation, kept for the next task of its type.

use super::join::JoinError;
use super::slot::Stack;
use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasherDefault, Hasher};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A task without its type. The executor knows nothing else, so another kind of task (a coroutine with a stack of its
/// own) is another implementation, or simply a future whose `poll` switches stacks.
pub(super) trait Body {
    /// One step; after `Ready` the output waits inside.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;
    /// Drops the future and puts an error in the output's place.
    fn fail(self: Pin<&mut Self>, error: JoinError);
    /// Moves the output into `output`, which is an `Option<Result<T, JoinError>>`.
    fn take_output(self: Pin<&mut Self>, output: &mut dyn Any);
    /// Starts over with the future in `future`, which is an `Option<F>`.
    fn refill(self: Pin<&mut Self>, future: &mut dyn Any);
    /// Drops what is inside, future or output.
    fn clear(self: Pin<&mut Self>);
}

pin_project_lite::pin_project! {
    #[project = Inside]
    #[project_replace = Taken]
    enum FutureBody<F: Future> {
        Future { #[pin] future: F },
        Output { output: Result<F::Output, JoinError> },
        Nothing,
    }
}

/// A body with `future` in it.
pub(super) fn body<F: Future + 'static>(future: F) -> Pin<Box<dyn Body>> {
    Box::pin(FutureBody::Future { future })
}

impl<F: Future + 'static> Body for FutureBody<F> {
    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Inside::Future { future } = self.as_mut().project() else {
            return Poll::Ready(());
        };
        let Poll::Ready(output) = future.poll(cx) else {
            return Poll::Pending;
        };
        // The output is in its place even if the drop of the future, which comes first, panics.
        self.set(FutureBody::Output { output: Ok(output) });
        Poll::Ready(())
    }

    fn fail(mut self: Pin<&mut Self>, error: JoinError) {
        self.set(FutureBody::Output { output: Err(error) });
    }

    fn take_output(self: Pin<&mut Self>, output: &mut dyn Any) {
        if let Some(place) = output.downcast_mut::<Option<Result<F::Output, JoinError>>>()
            && let Taken::Output { output } = self.project_replace(FutureBody::Nothing)
        {
            *place = Some(output);
        }
    }

    fn refill(mut self: Pin<&mut Self>, future: &mut dyn Any) {
        if let Some(future) = future.downcast_mut::<Option<F>>().and_then(Option::take) {
            self.set(FutureBody::Future { future });
        }
    }

    fn clear(mut self: Pin<&mut Self>) {
        self.set(FutureBody::Nothing);
    }
}

/// The pool of a body that is not kept.
const UNPOOLED: u16 = u16::MAX;
/// Types of tasks whose memory is kept; later types are allocated each time.
const MAX_TYPES: usize = 512;

/// Free slots with the memory of tasks of one type in them.
struct Pool {
    size: Cell<usize>,
    free: Stack,
}

/// Finished tasks' memory by type. It stays in the slots, which are in lists by type.
pub(super) struct BodyPools {
    pools: Box<[Pool]>,
    by_type: RefCell<HashMap<TypeId, u16, BuildHasherDefault<TypeIdHasher>>>,
    /// The last type that was asked for: tasks are mostly started in series.
    last: Cell<Option<(TypeId, u16)>>,
    bytes: Cell<usize>,
    max_bytes: usize,
}

impl BodyPools {
    pub(super) fn new(max_bytes: usize) -> BodyPools {
        let pool = |_| Pool {
            size: Cell::new(0),
            free: Stack::new(),
        };
        BodyPools {
            pools: (0..MAX_TYPES).map(pool).collect(),
            by_type: RefCell::default(),
            last: Cell::new(None),
            bytes: Cell::new(0),
            max_bytes,
        }
    }

    /// Free slots with a body of this pool, if it is one; what is taken from them is to be [counted](Self::took).
    #[inline]
    pub(super) fn free(&self, pool: u16) -> Option<&Stack> {
        self.pools.get(usize::from(pool)).map(|pool| &pool.free)
    }

    /// A free slot was taken with its body.
    #[inline]
    pub(super) fn took(&self, pool: u16) {
        let size = self
            .pools
            .get(usize::from(pool))
            .map(|pool| pool.size.get());
        self.bytes.set(self.bytes.get() - size.unwrap_or(0));
    }

    /// Where a slot goes that is free from now on, with the body in it. None: the body is not to be kept.
    #[inline]
    pub(super) fn keep(&self, pool: u16) -> Option<&Stack> {
        let pool = self.pools.get(usize::from(pool))?;
        let bytes = self.bytes.get() + pool.size.get();
        if bytes > self.max_bytes {
            return None;
        }
        self.bytes.set(bytes);
        Some(&pool.free)
    }

    /// The pools that are in use, by number.
    pub(super) fn numbers(&self) -> std::ops::Range<u16> {
        0..u16::try_from(self.by_type.borrow().len()).unwrap_or(UNPOOLED)
    }

    /// The number of the pool for tasks of type `F`.
    #[inline]
    pub(super) fn of<F: Future + 'static>(&self) -> u16 {
        let id = TypeId::of::<F>();
        match self.last.get() {
            Some((last, pool)) if last == id => pool,
            _ => self.look_up(id, size_of::<FutureBody<F>>()),
        }
    }

    fn look_up(&self, id: TypeId, size: usize) -> u16 {
        let mut by_type = self.by_type.borrow_mut();
        let next = by_type.len();
        let pool = match by_type.get(&id) {
            Some(&pool) => pool,
            None if next >= MAX_TYPES => return UNPOOLED,
            None => {
                self.pools[next].size.set(size);
                by_type.insert(id, next as u16);
                next as u16
            }
        };
        self.last.set(Some((id, pool)));
        pool
    }
}

/// A `TypeId` is a hash already.
#[derive(Default)]
struct TypeIdHasher(u64);

impl Hasher for TypeIdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_ne_bytes(word);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 ^= word;
    }
}
