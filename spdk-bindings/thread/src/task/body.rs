//! What a task slot holds: a future and, in the end, its output; one allocation, kept for the next task of its type.

use super::join::JoinError;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasherDefault, Hasher};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A task without its type. The executor knows nothing else, so another kind of task (a coroutine with a stack of its
/// own) is another implementation, or simply a future whose `poll` switches stacks.
pub(crate) trait Body {
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
    struct FutureBody<F: Future> {
        #[pin]
        future: Option<F>,
        output: Option<Result<F::Output, JoinError>>,
    }
}

impl<F: Future + 'static> Body for FutureBody<F> {
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            return Poll::Ready(());
        };
        match future.poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(value) => {
                *this.output = Some(Ok(value));
                this.future.set(None);
                Poll::Ready(())
            }
        }
    }

    fn fail(self: Pin<&mut Self>, error: JoinError) {
        let mut this = self.project();
        *this.output = Some(Err(error));
        this.future.set(None);
    }

    fn take_output(self: Pin<&mut Self>, output: &mut dyn Any) {
        if let Some(output) = output.downcast_mut::<Option<Result<F::Output, JoinError>>>() {
            *output = self.project().output.take();
        }
    }

    fn refill(self: Pin<&mut Self>, future: &mut dyn Any) {
        if let Some(future) = future.downcast_mut::<Option<F>>() {
            self.project().future.set(future.take());
        }
    }

    fn clear(self: Pin<&mut Self>) {
        let mut this = self.project();
        this.future.set(None);
        *this.output = None;
    }
}

/// A task's memory, and which pool it goes back to.
pub(crate) struct Boxed {
    pub(crate) body: Pin<Box<dyn Body>>,
    pool: u32,
}

/// The pool of a task whose memory is not kept.
const UNPOOLED: u32 = u32::MAX;
/// Types of tasks whose memory is kept; later types are allocated each time.
const MAX_TYPES: usize = 512;

struct Pool {
    size: usize,
    free: Vec<Boxed>,
}

/// Finished tasks' memory by type.
pub(crate) struct BodyPools {
    pools: Vec<Pool>,
    by_type: HashMap<TypeId, u32, BuildHasherDefault<TypeIdHasher>>,
    /// The last type that was asked for: tasks are mostly started in series.
    last: Option<(TypeId, u32)>,
    bytes: usize,
    max_bytes: usize,
}

impl BodyPools {
    pub(crate) fn new(max_bytes: usize) -> BodyPools {
        BodyPools {
            pools: Vec::new(),
            by_type: HashMap::default(),
            last: None,
            bytes: 0,
            max_bytes,
        }
    }

    /// A body with `future` in it.
    #[inline]
    pub(crate) fn take<F: Future + 'static>(&mut self, future: F) -> Boxed {
        let pool = self.pool_of::<F>();
        if let Some(kept) = self.pools.get_mut(pool as usize)
            && let Some(mut boxed) = kept.free.pop()
        {
            self.bytes -= kept.size;
            boxed.body.as_mut().refill(&mut Some(future));
            return boxed;
        }
        Boxed {
            body: Box::pin(FutureBody {
                future: Some(future),
                output: None,
            }),
            pool,
        }
    }

    /// Takes an empty body back; it comes out again if there is no room for it. Empty: `clear` or `take_output` after
    /// the future was done.
    #[inline]
    pub(crate) fn give(&mut self, boxed: Boxed) -> Option<Boxed> {
        let Some(pool) = self.pools.get_mut(boxed.pool as usize) else {
            return Some(boxed);
        };
        if self.bytes + pool.size > self.max_bytes {
            return Some(boxed);
        }
        self.bytes += pool.size;
        pool.free.push(boxed);
        None
    }

    #[inline]
    fn pool_of<F: Future + 'static>(&mut self) -> u32 {
        let id = TypeId::of::<F>();
        if let Some((last, pool)) = self.last
            && last == id
        {
            return pool;
        }
        let pool = match self.by_type.get(&id) {
            Some(&pool) => pool,
            None if self.pools.len() >= MAX_TYPES => return UNPOOLED,
            None => {
                let pool = self.pools.len() as u32;
                self.pools.push(Pool {
                    size: size_of::<FutureBody<F>>(),
                    free: Vec::new(),
                });
                self.by_type.insert(id, pool);
                pool
            }
        };
        self.last = Some((id, pool));
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
