//! The fallback: a bounded set of threads that do blocking calls.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::fs::FallocateFlags;
use rustix::io::{Errno, ReadWriteFlags};
use spdk_bdev::{BdevError, Op, Request};
use spdk_env::DmaBuf;

use crate::open::OpenFile;

/// Zeroes written per call where the file system cannot zero a range itself, in bytes.
const ZEROES: usize = 64 << 10;

/// The threads of one device. Dropping it lets queued I/O finish and joins them.
pub(crate) struct IoThreads {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    file: Arc<OpenFile>,
    device: Arc<str>,
    /// Bounded by the capacities of the channels.
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: std::collections::VecDeque<(u32, Request, Arc<Mailbox>)>,
    stopping: bool,
}

/// An I/O that is done.
pub(crate) struct Finished {
    pub(crate) tag: u32,
    pub(crate) buf: Option<DmaBuf>,
    pub(crate) result: Result<(), BdevError>,
}

/// Where a channel's finished I/O waits for its poll.
pub(crate) struct Mailbox {
    finished: Mutex<Vec<Finished>>,
    bell: OwnedFd,
}

impl Mailbox {
    pub(crate) fn new(bell: OwnedFd) -> Mailbox {
        Mailbox {
            finished: Mutex::default(),
            bell,
        }
    }

    /// Moves everything finished into `into`, which is empty; the two vectors change places and keep their memory.
    pub(crate) fn collect(&self, into: &mut Vec<Finished>) {
        let mut finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        if !finished.is_empty() {
            std::mem::swap(&mut *finished, into);
            // Empties the bell; it was rung at least once since the last time.
            let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        }
    }

    fn put(&self, one: Finished) {
        let mut finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        finished.push(one);
        if finished.len() == 1 {
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }
}

impl IoThreads {
    pub(crate) fn start(
        file: Arc<OpenFile>,
        device: Arc<str>,
        count: u32,
    ) -> io::Result<IoThreads> {
        let shared = Arc::new(Shared {
            file,
            device,
            queue: Mutex::default(),
            arrived: Condvar::new(),
        });
        let mut threads = IoThreads {
            shared,
            workers: Vec::new(),
        };
        for number in 0..count.max(1) {
            let shared = Arc::clone(&threads.shared);
            let builder = std::thread::Builder::new().name(format!("keel_file_{number}"));
            threads.workers.push(builder.spawn(move || shared.work())?);
        }
        Ok(threads)
    }

    pub(crate) fn submit(&self, tag: u32, request: Request, mailbox: &Arc<Mailbox>) {
        self.shared
            .lock()
            .jobs
            .push_back((tag, request, Arc::clone(mailbox)));
        self.shared.arrived.notify_one();
    }
}

impl Drop for IoThreads {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.arrived.notify_all();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!(device = &*self.shared.device, "an I/O thread panicked");
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut queue = self.lock();
            let (tag, mut request, mailbox) = loop {
                if let Some(job) = queue.jobs.pop_front() {
                    break job;
                }
                if queue.stopping {
                    return;
                }
                queue = self
                    .arrived
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
            };
            drop(queue);
            let result = self.run(&mut request);
            mailbox.put(Finished {
                tag,
                buf: request.buf,
                result,
            });
        }
    }

    fn run(&self, request: &mut Request) -> Result<(), BdevError> {
        self.file.check_durable(&self.device, request)?;
        match self.transfer(request) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.file.stalled(&self.device, request)),
            Err(errno) => Err(self
                .file
                .failed(&self.device, request, errno.raw_os_error())),
        }
    }

    /// Does it; false when the file ended.
    fn transfer(&self, request: &mut Request) -> Result<bool, Errno> {
        let fd = &self.file.fd;
        let (offset, len) = self.file.range(request);
        match (request.op, &mut request.buf) {
            (Op::Read, Some(buf)) => {
                let data = &mut buf.as_mut_slice()[..len as usize];
                all(len, |done| {
                    rustix::io::pread(fd, &mut data[done as usize..], offset + done)
                })
            }
            (Op::Write, Some(buf)) => {
                let data = &buf.as_slice()[..len as usize];
                let flags = if request.fua {
                    ReadWriteFlags::DSYNC
                } else {
                    ReadWriteFlags::empty()
                };
                all(len, |done| {
                    let rest = [io::IoSlice::new(&data[done as usize..])];
                    rustix::io::pwritev2(fd, &rest, offset + done, flags)
                })
            }
            (Op::WriteZeroes, _) => self.zero(offset, len),
            (Op::Unmap, _) => {
                match rustix::fs::fallocate(
                    fd,
                    FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                    offset,
                    len,
                ) {
                    // A hint that a block device cannot take: nothing is lost by ignoring it.
                    Err(Errno::OPNOTSUPP) => Ok(true),
                    other => other.map(|()| true),
                }
            }
            (Op::Flush, _) => rustix::fs::fdatasync(fd).map(|()| true),
            (Op::Read | Op::Write, None) => Err(Errno::FAULT),
        }
    }

    fn zero(&self, offset: u64, len: u64) -> Result<bool, Errno> {
        let mode = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file.fd, mode, offset, len) {
            Err(Errno::OPNOTSUPP | Errno::INVAL) => {}
            other => return other.map(|()| true),
        }
        // Aligned, as O_DIRECT wants it.
        let zeroes = DmaBuf::alloc(ZEROES).map_err(|_| Errno::NOMEM)?;
        all(len, |done| {
            let piece = (len - done).min(zeroes.len() as u64) as usize;
            rustix::io::pwrite(&self.file.fd, &zeroes.as_slice()[..piece], offset + done)
        })
    }
}

/// Repeats `step` from the byte it got to until `len` are done; false when it stops moving.
fn all(len: u64, mut step: impl FnMut(u64) -> Result<usize, Errno>) -> Result<bool, Errno> {
    let mut done = 0;
    while done < len {
        match step(done) {
            Ok(0) => return Ok(false),
            Ok(bytes) => done += bytes as u64,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(true)
}
