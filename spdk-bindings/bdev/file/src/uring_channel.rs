//! A channel on an io_uring of its own.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use spdk_bdev::{BdevChannel, BdevError, CompletionSink, Op, Request};
use spdk_env::{DmaBuf, Uring, UringError, UringOp};

use crate::open::OpenFile;

/// Zeroes are written in pieces of at most this many bytes where the file system cannot zero a range itself.
const ZEROES: usize = 256 << 10;

/// The only file of each ring.
const FILE: u32 = 0;

pub(crate) struct UringChannel {
    uring: Uring,
    file: Arc<OpenFile>,
    device: Arc<str>,
    /// By tag.
    jobs: Vec<Job>,
    /// Finished without the kernel.
    refused: Vec<(u32, BdevError)>,
    /// Moved in part: to be submitted again. Empty between polls.
    again: Vec<u32>,
    wake: Option<Rc<OwnedFd>>,
}

/// How far an I/O has got. While it is in the kernel, its buffer is in the ring's table.
#[derive(Default)]
struct Job {
    /// Bytes done.
    moved: u64,
    /// Write-zeroes by writing zeroes.
    by_hand: bool,
}

/// What to do with an I/O after the kernel's answer.
enum Next {
    Done(Result<(), BdevError>),
    Again,
}

impl UringChannel {
    pub(crate) fn new(
        file: Arc<OpenFile>,
        device: Arc<str>,
        depth: u32,
        sleeps: bool,
    ) -> Result<UringChannel, UringError> {
        let mut uring = Uring::new(depth, &[file.fd.as_fd()])?;
        // The kernel writes to it at each completion: not for a thread that looks all the time.
        let wake = sleeps.then(|| uring.wake_fd().ok().map(Rc::new)).flatten();
        if sleeps && wake.is_none() {
            tracing::warn!(
                device = &*device,
                "no descriptor left to wake a sleeping reactor with: it will poll"
            );
        }
        let jobs = (0..depth).map(|_| Job::default()).collect();
        Ok(UringChannel {
            uring,
            file,
            device,
            jobs,
            refused: Vec::new(),
            again: Vec::new(),
            wake,
        })
    }

    /// Gives an I/O, or the rest of it, to the ring.
    fn start(&mut self, tag: u32, request: &mut Request) {
        let job = &self.jobs[tag as usize];
        let (offset, len) = self.file.range(request);
        let (offset, rest) = (offset + job.moved, len - job.moved);
        // The layer bounds a read or write by 1 GiB.
        let (at, rest32) = (job.moved as u32, u32::try_from(rest).unwrap_or(u32::MAX));
        let fallocate = |mode: FallocateFlags| UringOp::Fallocate {
            mode: (mode | FallocateFlags::KEEP_SIZE).bits(),
            offset,
            len: rest,
        };
        let (op, buf) = match request.op {
            Op::Read => (
                UringOp::Read {
                    offset,
                    at,
                    len: rest32,
                },
                request.buf.take(),
            ),
            Op::Write => (
                UringOp::Write {
                    offset,
                    at,
                    len: rest32,
                    dsync: request.fua,
                },
                request.buf.take(),
            ),
            Op::Flush => (UringOp::Fdatasync, None),
            Op::Unmap => (fallocate(FallocateFlags::PUNCH_HOLE), None),
            Op::WriteZeroes if job.by_hand => {
                let Ok(zeroes) = DmaBuf::alloc(ZEROES.min(usize::try_from(rest).unwrap_or(ZEROES)))
                else {
                    return self.refuse(tag, request, Errno::NOMEM);
                };
                (
                    UringOp::Write {
                        offset,
                        at: 0,
                        len: zeroes.len() as u32,
                        dsync: false,
                    },
                    Some(zeroes),
                )
            }
            Op::WriteZeroes => (fallocate(FallocateFlags::ZERO_RANGE), None),
        };
        if let Err(buf) = self.uring.submit(op, FILE, buf, u64::from(tag)) {
            // There are as many tags as places in the ring: it has stopped taking entries.
            if request.op.has_data() {
                request.buf = buf;
            }
            self.refuse(tag, request, Errno::AGAIN);
        }
    }

    #[cold]
    fn refuse(&mut self, tag: u32, request: &Request, errno: Errno) {
        let error = self
            .file
            .failed(&self.device, request, errno.raw_os_error());
        self.refused.push((tag, error));
    }

    /// The kernel answered: bytes, or a negative errno.
    fn judge(file: &OpenFile, device: &str, job: &mut Job, request: &Request, result: i32) -> Next {
        let Ok(bytes) = u32::try_from(result) else {
            return Self::judge_error(file, device, job, request, -result);
        };
        if !request.op.has_data() && !job.by_hand {
            return Next::Done(Ok(()));
        }
        if bytes == 0 {
            return Next::Done(Err(file.stalled(device, request)));
        }
        job.moved += u64::from(bytes);
        if job.moved < file.range(request).1 {
            Next::Again
        } else {
            Next::Done(Ok(()))
        }
    }

    #[cold]
    fn judge_error(
        file: &OpenFile,
        device: &str,
        job: &mut Job,
        request: &Request,
        errno: i32,
    ) -> Next {
        match (Errno::from_raw_os_error(errno), request.op) {
            (Errno::AGAIN | Errno::INTR, _) => return Next::Again,
            (Errno::OPNOTSUPP, Op::WriteZeroes) if !job.by_hand => {
                file.no_zero_range.store(true, Ordering::Relaxed);
                job.by_hand = true;
                return Next::Again;
            }
            // A hint that a block device cannot take: nothing is lost by ignoring it.
            (Errno::OPNOTSUPP, Op::Unmap) => return Next::Done(Ok(())),
            _ => {}
        }
        Next::Done(Err(file.failed(device, request, errno)))
    }
}

impl BdevChannel for UringChannel {
    fn submit(&mut self, tag: u32, request: &mut Request) {
        if let Err(error) = self.file.check_durable(&self.device, request) {
            self.refused.push((tag, error));
            return;
        }
        let by_hand =
            request.op == Op::WriteZeroes && self.file.no_zero_range.load(Ordering::Relaxed);
        self.jobs[tag as usize] = Job { moved: 0, by_hand };
        self.start(tag, request);
    }

    fn poll(&mut self, _now: u64, done: &mut CompletionSink<'_>) {
        if let Err(error) = self.uring.flush() {
            // Nothing sensible is left to do but to try again; the I/O stays where it is.
            tracing::error!(device = &*self.device, %error, "io_uring does not take work");
        }
        for (tag, error) in self.refused.drain(..) {
            done.complete(tag, Err(error));
        }
        let UringChannel {
            uring,
            file,
            device,
            jobs,
            again,
            ..
        } = self;
        uring.reap(|user, result, buf| {
            // What the ring carries is the tag it was given.
            let tag = user as u32;
            let request = done.request(tag);
            if request.op.has_data() {
                request.buf = buf;
            }
            match Self::judge(file, device, &mut jobs[tag as usize], request, result) {
                Next::Again => again.push(tag),
                Next::Done(result) => done.complete(tag, result),
            }
        });
        while let Some(tag) = self.again.pop() {
            self.start(tag, done.request(tag));
            done.progress();
        }
    }

    fn capacity(&self) -> u32 {
        self.jobs.len() as u32
    }

    fn wake_fd(&self) -> Option<Rc<OwnedFd>> {
        self.wake.clone()
    }

    fn clear_wake(&mut self) {
        self.uring.clear_wake();
    }

    fn needs_poll(&self) -> bool {
        self.uring.has_unsubmitted() || !self.refused.is_empty()
    }
}
