//! A thread's way to a namespace: its queue pair.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use spdk_bdev::{BdevChannel, BdevError, CompletionSink, Op, Request};
use spdk_env::{DeviceBacking, DmaBuf};
use spdk_nvme::{Done, Io, IoError, IoKind, IoTarget, QueuePair, Refusal};

use crate::bounce::{Bounce, Unmappable};

/// With nothing completed for so long, interrupts are let through and the thread may sleep, in ns. Shorter waits are polled: masking and
/// sleeping cost more than they spare.
const POLL_FIRST: u64 = 200_000;

pub(crate) struct NvmeChannel<B: DeviceBacking> {
    name: Arc<str>,
    backing: Arc<B>,
    pair: QueuePair<B>,
    target: IoTarget,
    bounce: Bounce,
    unmappable: Unmappable,
    /// The caller's buffer of an I/O that goes through a bounce buffer, by tag.
    originals: Box<[Option<DmaBuf>]>,
    /// I/Os that wait for a bounce buffer.
    waiting: VecDeque<u32>,
    /// Refused by the driver; reported at the next poll.
    refused: VecDeque<(u32, Refusal)>,
    wake: Option<Rc<OwnedFd>>,
    /// Interrupts are let through.
    armed: bool,
    last_progress: u64,
}

impl<B: DeviceBacking> NvmeChannel<B> {
    pub(crate) fn new(
        name: Arc<str>,
        backing: Arc<B>,
        pair: QueuePair<B>,
        target: IoTarget,
        bounce: Bounce,
        sleeps: bool,
    ) -> NvmeChannel<B> {
        let depth = pair.depth() as usize;
        // A thread that never sleeps is not interrupted. Out of descriptors: then the queue is polled, as one without interrupts.
        let wake = pair
            .interrupt_fd()
            .filter(|_| sleeps)
            .and_then(|fd| fd.as_fd().try_clone_to_owned().ok())
            .map(Rc::new);
        NvmeChannel {
            name,
            backing,
            pair,
            target,
            bounce,
            unmappable: Unmappable::default(),
            originals: (0..depth).map(|_| None).collect(),
            waiting: VecDeque::with_capacity(depth),
            refused: VecDeque::with_capacity(depth),
            wake,
            armed: false,
            last_progress: 0,
        }
    }

    /// Gives an I/O to the queue pair. What cannot go comes back into the request and is remembered.
    #[inline]
    fn start(&mut self, tag: u32, request: &mut Request) {
        let io = Io {
            buf: if request.op.has_data() {
                request.buf.take()
            } else {
                None
            },
            lba: request.lba,
            user: u64::from(tag),
            blocks: if request.op == Op::Flush {
                0
            } else {
                request.blocks
            },
            kind: kind(request.op),
            fua: request.fua,
        };
        if let Err((io, why)) = self.pair.submit(&self.target, io) {
            self.start_differently(tag, request, io, why);
        }
    }

    #[cold]
    fn start_differently(&mut self, tag: u32, request: &mut Request, io: Io, why: Refusal) {
        let Io { buf: Some(buf), .. } = io else {
            self.refused.push_back((tag, why));
            return;
        };
        if why == Refusal::Unreachable {
            if self.unmappable.map(&self.backing, &buf) {
                request.buf = Some(buf);
                // Reachable now; if not, the backing contradicts itself and the copy below is next.
                return self.start(tag, request);
            }
            if let Some(bounce) = self.bounce.take(&buf, io.kind != IoKind::Read) {
                self.originals[tag as usize] = Some(buf);
                let io = Io {
                    buf: Some(bounce),
                    ..io
                };
                if let Err((_, why)) = self.pair.submit(&self.target, io) {
                    request.buf = self.originals[tag as usize].take();
                    self.refused.push_back((tag, why));
                }
                return;
            }
            request.buf = Some(buf);
            self.waiting.push_back(tag);
            return;
        }
        request.buf = Some(buf);
        self.refused.push_back((tag, why));
    }

    #[cold]
    fn look_after_the_rest(&mut self, done: &mut CompletionSink<'_>) {
        while let Some((tag, why)) = self.refused.pop_front() {
            let error = BdevError::io(&self.name, done.request(tag), why.to_string(), Some(EINVAL));
            done.complete(tag, Err(error));
        }
        for _ in 0..self.waiting.len() {
            if let Some(tag) = self.waiting.pop_front() {
                self.start(tag, done.request(tag));
            }
        }
    }

    /// Nothing came for a while: lets interrupts through, and takes what came meanwhile.
    #[cold]
    fn arm(&mut self) {
        self.armed = self.pair.set_interrupts(true);
    }

    #[cold]
    fn disarm(&mut self) {
        self.pair.set_interrupts(false);
        self.armed = false;
    }
}

const EINVAL: i32 = 22;

#[inline]
fn kind(op: Op) -> IoKind {
    match op {
        Op::Read => IoKind::Read,
        Op::Write => IoKind::Write,
        Op::WriteZeroes => IoKind::WriteZeroes,
        Op::Unmap => IoKind::Deallocate,
        Op::Flush => IoKind::Flush,
    }
}

/// The system's number for it (errno.h), for callers that sort errors.
fn errno(error: IoError) -> i32 {
    match error {
        IoError::TimedOut => 110,
        IoError::Removed => 19,
        IoError::ShutDown => 108,
        _ => 5,
    }
}

impl<B: DeviceBacking> BdevChannel for NvmeChannel<B> {
    #[inline]
    fn submit(&mut self, tag: u32, request: &mut Request) {
        self.start(tag, request);
    }

    fn poll(&mut self, now: u64, done: &mut CompletionSink<'_>) {
        let NvmeChannel {
            pair,
            originals,
            name,
            ..
        } = self;
        let finished = pair.poll(now, |Done { io, result }| {
            let tag = io.user as u32;
            let request = done.request(tag);
            if io.kind.has_data() {
                request.buf = io.buf;
                if let Some(original) = originals[tag as usize].take() {
                    request.buf = Some(bring_back(original, request.buf.take(), io.kind));
                }
            }
            let result = result.map_err(|error| {
                BdevError::io(name, request, error.to_string(), Some(errno(error)))
            });
            done.complete(tag, result);
        });
        if !self.refused.is_empty() || !self.waiting.is_empty() {
            self.look_after_the_rest(done);
        }
        if self.wake.is_some() {
            if finished > 0 {
                self.last_progress = now;
                if self.armed {
                    self.disarm();
                }
            } else if !self.armed && now.saturating_sub(self.last_progress) > POLL_FIRST {
                self.arm();
            }
        }
    }

    fn capacity(&self) -> u32 {
        self.pair.depth()
    }

    fn wake_fd(&self) -> Option<Rc<OwnedFd>> {
        self.wake.clone()
    }

    fn clear_wake(&mut self) {
        if let Some(fd) = &self.wake {
            spdk_env::drain_eventfd(fd);
        }
    }

    fn needs_poll(&self) -> bool {
        !self.armed || self.pair.has_completions() || !self.waiting.is_empty()
    }
}

/// The caller's buffer, with what was read.
fn bring_back(mut original: DmaBuf, bounce: Option<DmaBuf>, kind: IoKind) -> DmaBuf {
    if let (IoKind::Read, Some(bounce)) = (kind, bounce) {
        let len = bounce.len();
        original.as_mut_slice()[..len].copy_from_slice(bounce.as_slice());
    }
    original
}
