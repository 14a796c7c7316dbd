//! [`IoQueue`]: the fast path of a channel.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::rc::Rc;

use crate::channel::Core;
use crate::table::Lane;
use crate::{Channel, Completion, Geometry, Op, OpSet, Reject, Rejected, Request};

/// What a request must fulfil, in one place and without a pointer to follow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    num_blocks: u64,
    block_size: u32,
    max_io_blocks: u32,
    supports: OpSet,
    allowed: OpSet,
}

impl Limits {
    pub(crate) fn new(geometry: &Geometry, read_only: bool) -> Limits {
        let mode = if read_only {
            OpSet::READ_ONLY
        } else {
            OpSet::ALL
        };
        Limits {
            num_blocks: geometry.num_blocks,
            block_size: geometry.block_size,
            max_io_blocks: geometry.max_io_blocks,
            supports: geometry.supports,
            allowed: geometry.supports.and(mode),
        }
    }

    /// Whether a device may see the request.
    #[inline]
    pub(crate) fn accepts(&self, request: &Request) -> bool {
        let blocks = u64::from(request.blocks);
        let in_range = request.lba < self.num_blocks && blocks <= self.num_blocks - request.lba;
        let data = match (&request.buf, request.op.has_data()) {
            (Some(buf), true) => {
                request.blocks <= self.max_io_blocks
                    && blocks * u64::from(self.block_size) <= buf.len() as u64
            }
            (None, true) => false,
            (_, false) => true,
        };
        let range = (in_range && blocks != 0) || request.op == Op::Flush;
        self.allowed.contains(request.op) && range && data
    }

    /// Why a request is refused.
    #[cold]
    pub(crate) fn why(&self, request: &Request, core: &Core) -> Reject {
        let blocks = u64::from(request.blocks);
        if core.is_over() {
            Reject::Evicted
        } else if !self.supports.contains(request.op) {
            Reject::Unsupported
        } else if !self.allowed.contains(request.op) {
            Reject::ReadOnly
        } else if blocks == 0 {
            Reject::NoBlocks
        } else if request.lba >= self.num_blocks || blocks > self.num_blocks - request.lba {
            Reject::OutOfRange {
                num_blocks: self.num_blocks,
            }
        } else if request.blocks > self.max_io_blocks {
            Reject::TooLong {
                max_io_blocks: self.max_io_blocks,
            }
        } else {
            match &request.buf {
                None => Reject::NoBuffer,
                Some(buf) => Reject::ShortBuffer {
                    need: blocks * u64::from(self.block_size),
                    have: buf.len() as u64,
                },
            }
        }
    }
}

/// A bounded lane on a channel: requests in by [`IoQueue::submit`], completions out by [`IoQueue::reap`], both by value,
/// nothing allocated, locked or counted per I/O (SPDK: `spdk_bdev_read` with its call-back, without the call-back).
///
/// Own thread only. Completions arrive while the thread runs its pollers; reap in a poller or a task. Dropping the queue
/// with I/O in flight lets the I/O run to its end; the buffers are freed then.
pub struct IoQueue {
    core: Rc<Core>,
    limits: Limits,
    route: u32,
    depth: u32,
    channel: Channel,
}

impl IoQueue {
    pub(crate) fn new(
        channel: Channel,
        core: Rc<Core>,
        route: u32,
        depth: u32,
        limits: Limits,
    ) -> IoQueue {
        IoQueue {
            core,
            limits,
            route,
            depth,
            channel,
        }
    }

    /// Gives one I/O to the device. It starts at the latest in the thread's next turn.
    ///
    /// # Errors
    /// [`Rejected`] with the request: bad range, length, buffer or mode, or the queue is full (reap first).
    #[inline]
    pub fn submit(&self, request: Request) -> Result<(), Rejected> {
        if !self.limits.accepts(&request) || self.core.is_over() {
            return Err(self.refuse(request));
        }
        match self.core.submit(self.route, request) {
            Ok(()) => Ok(()),
            Err(request) => Err(Rejected {
                request,
                why: Reject::QueueFull { depth: self.depth },
            }),
        }
    }

    /// By value: whose address is taken is built in memory, and read back slowly, also on the way that is always taken.
    #[cold]
    #[inline(never)]
    fn refuse(&self, request: Request) -> Rejected {
        let why = self.limits.why(&request, &self.core);
        Rejected { request, why }
    }

    /// Hands at most `max` finished I/Os to `done`, oldest first; returns how many. `done` may submit to this queue.
    #[inline]
    pub fn reap(&self, max: usize, mut done: impl FnMut(Completion)) -> usize {
        let mut count = 0;
        while count < max {
            let Some(completion) = self.core.pop(self.route) else {
                break;
            };
            count += 1;
            done(completion);
        }
        count
    }

    /// Takes the oldest finished I/O.
    #[inline]
    pub fn pop(&self) -> Option<Completion> {
        self.core.pop(self.route)
    }

    /// Waits until there is something to reap. At most one task waits at a time; a second one takes its place.
    pub fn ready(&self) -> Ready<'_> {
        Ready { queue: self }
    }

    /// I/Os submitted and not reaped.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.core.lane(self.route, Lane::in_flight)
    }

    /// I/Os that it holds at most.
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// The channel that it is a lane of.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }
}

impl Drop for IoQueue {
    fn drop(&mut self) {
        self.core.abandon(self.route);
    }
}

impl fmt::Debug for IoQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoQueue")
            .field("device", &self.core.name())
            .field("depth", &self.depth())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// Future of [`IoQueue::ready`].
#[derive(Debug)]
#[must_use = "a future does nothing until it is awaited"]
pub struct Ready<'a> {
    queue: &'a IoQueue,
}

impl Future for Ready<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.queue
            .core
            .lane(self.queue.route, |lane| lane.poll_ready(cx))
    }
}
