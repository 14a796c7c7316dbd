//! A channel on an io_uring of its own.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use spdk_bdev::{BdevChannel, BdevError, CompletionSink, DeviceIo, Op};
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
    /// By the number that the ring carries. While an I/O is in the kernel its buffer is in the ring's table.
    jobs: Vec<Option<Job>>,
    free: Vec<u32>,
    /// Finished without the kernel.
    refused: Vec<(DeviceIo, BdevError)>,
    /// Moved in part: to be submitted again. Reused by every poll.
    again: Vec<u32>,
    wake: Option<Rc<OwnedFd>>,
}

struct Job {
    io: DeviceIo,
    /// Bytes done.
    moved: u64,
    /// For write-zeroes without `ZERO_RANGE`.
    zeroes: Option<DmaBuf>,
}

/// What to do with a job after the kernel's answer.
enum Next {
    Done(Result<(), BdevError>),
    Again,
}

impl UringChannel {
    pub(crate) fn new(
        file: Arc<OpenFile>,
        device: Arc<str>,
        depth: u32,
    ) -> Result<UringChannel, UringError> {
        let uring = Uring::new(depth, &[file.fd.as_fd()])?;
        let wake = uring.wake_fd().ok().map(Rc::new);
        if wake.is_none() {
            tracing::warn!(
                device = &*device,
                "no descriptor left to wake a sleeping reactor with: it will poll"
            );
        }
        Ok(UringChannel {
            uring,
            file,
            device,
            jobs: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            refused: Vec::new(),
            again: Vec::new(),
            wake,
        })
    }

    /// Gives the rest of a job to the ring. `buf` is the request's buffer.
    fn start(&mut self, number: u32, buf: Option<DmaBuf>) {
        let Some(job) = &mut self.jobs[number as usize] else {
            return;
        };
        let (offset, len) = self.file.range(&job.io.request);
        let (offset, rest) = (offset + job.moved, len - job.moved);
        // The layer bounds a read or write by 1 GiB.
        let (at, rest32) = (job.moved as u32, u32::try_from(rest).unwrap_or(u32::MAX));
        let dsync = job.io.request.fua;
        let (op, buf) = match job.io.request.op {
            Op::Read => (
                UringOp::Read {
                    offset,
                    at,
                    len: rest32,
                },
                buf,
            ),
            Op::Write => (
                UringOp::Write {
                    offset,
                    at,
                    len: rest32,
                    dsync,
                },
                buf,
            ),
            Op::Flush => (UringOp::Fdatasync, None),
            Op::Unmap => {
                let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                (
                    UringOp::Fallocate {
                        mode: mode.bits(),
                        offset,
                        len: rest,
                    },
                    None,
                )
            }
            Op::WriteZeroes => match job.zeroes.take() {
                Some(zeroes) => {
                    let len = rest.min(zeroes.len() as u64) as u32;
                    (
                        UringOp::Write {
                            offset,
                            at: 0,
                            len,
                            dsync: false,
                        },
                        Some(zeroes),
                    )
                }
                None => {
                    let mode = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
                    (
                        UringOp::Fallocate {
                            mode: mode.bits(),
                            offset,
                            len: rest,
                        },
                        None,
                    )
                }
            },
        };
        if let Err(buf) = self.uring.submit(op, FILE, buf, u64::from(number)) {
            // There are as many jobs as places in the ring, so it has stopped taking entries.
            let Some(Job { mut io, .. }) = self.jobs[number as usize].take() else {
                return;
            };
            self.free.push(number);
            io.request.buf = io.request.buf.take().or(buf);
            let error = self
                .file
                .failed(&self.device, &io.request, Errno::AGAIN.raw_os_error());
            self.refused.push((io, error));
        }
    }

    /// The kernel answered for one job: bytes, or a negative errno.
    fn judge(file: &OpenFile, device: &str, job: &mut Job, result: i32) -> Next {
        let request = &job.io.request;
        let Ok(bytes) = u32::try_from(result) else {
            return Self::judge_error(file, device, job, -result);
        };
        let zeroing = request.op == Op::WriteZeroes && job.zeroes.is_some();
        if !request.op.has_data() && !zeroing {
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
    fn judge_error(file: &OpenFile, device: &str, job: &mut Job, errno: i32) -> Next {
        let request = &job.io.request;
        match (Errno::from_raw_os_error(errno), request.op) {
            (Errno::AGAIN | Errno::INTR, _) => return Next::Again,
            (Errno::OPNOTSUPP | Errno::INVAL, Op::WriteZeroes) if job.zeroes.is_none() => {
                file.no_zero_range.store(true, Ordering::Relaxed);
                if let Some(zeroes) = zeroes(file.range(request).1) {
                    job.zeroes = Some(zeroes);
                    return Next::Again;
                }
            }
            // A hint that a block device cannot take: nothing is lost by ignoring it.
            (Errno::OPNOTSUPP, Op::Unmap) => return Next::Done(Ok(())),
            _ => {}
        }
        Next::Done(Err(file.failed(device, request, errno)))
    }
}

/// Zeroes to write, for a range of `len` bytes.
fn zeroes(len: u64) -> Option<DmaBuf> {
    DmaBuf::alloc(ZEROES.min(usize::try_from(len).unwrap_or(ZEROES))).ok()
}

impl BdevChannel for UringChannel {
    fn submit(&mut self, mut io: DeviceIo) {
        if let Err(error) = self.file.check_durable(&self.device, &io.request) {
            self.refused.push((io, error));
            return;
        }
        let Some(number) = self.free.pop() else {
            debug_assert!(false, "the layer exceeded the channel's capacity");
            let error = self
                .file
                .failed(&self.device, &io.request, Errno::AGAIN.raw_os_error());
            self.refused.push((io, error));
            return;
        };
        let buf = if io.request.op.has_data() {
            io.request.buf.take()
        } else {
            None
        };
        let by_hand =
            io.request.op == Op::WriteZeroes && self.file.no_zero_range.load(Ordering::Relaxed);
        let zeroes = if by_hand {
            zeroes(self.file.range(&io.request).1)
        } else {
            None
        };
        self.jobs[number as usize] = Some(Job {
            io,
            moved: 0,
            zeroes,
        });
        self.start(number, buf);
    }

    fn poll(&mut self, _now: u64, done: &mut CompletionSink<'_>) {
        if let Err(error) = self.uring.flush() {
            // Nothing sensible is left to do but to try again; the I/O stays where it is.
            tracing::error!(device = &*self.device, %error, "io_uring does not take work");
        }
        for (io, error) in self.refused.drain(..) {
            done.complete(io, Err(error));
        }
        let UringChannel {
            uring,
            file,
            device,
            jobs,
            free,
            again,
            ..
        } = self;
        uring.reap(|number, result, buf| {
            let Some(job) = jobs.get_mut(number as usize).and_then(Option::as_mut) else {
                return;
            };
            let writes_zeroes = job.io.request.op == Op::WriteZeroes;
            if writes_zeroes {
                job.zeroes = buf;
            } else {
                job.io.request.buf = job.io.request.buf.take().or(buf);
            }
            match Self::judge(file, device, job, result) {
                Next::Again => again.push(number as u32),
                Next::Done(result) => {
                    if let Some(job) = jobs[number as usize].take() {
                        free.push(number as u32);
                        done.complete(job.io, result);
                    }
                }
            }
        });
        while let Some(number) = self.again.pop() {
            let buf = self.jobs[number as usize].as_mut().and_then(|job| {
                if job.io.request.op.has_data() {
                    job.io.request.buf.take()
                } else {
                    None
                }
            });
            self.start(number, buf);
        }
    }

    fn capacity(&self) -> u32 {
        self.jobs.len() as u32
    }

    fn wake_fd(&self) -> Option<Rc<OwnedFd>> {
        self.wake.clone()
    }

    fn needs_poll(&self) -> bool {
        self.uring.has_unsubmitted() || !self.refused.is_empty()
    }
}
