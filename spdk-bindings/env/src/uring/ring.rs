#![allow(
    unsafe_code,
    reason = "gives buffer addresses to the kernel; the sites rest on U1 to U3 of uring.rs"
)]
//! [`Uring`]: the ring, its slot table and its registered pools.

use core::marker::PhantomData;
use core::mem;
use core::time::Duration;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use io_uring::types::{Fixed, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use rustix::event::EventfdFlags;

use super::setup::{self, TaskRun, UringError};
use crate::DmaBuf;
use crate::dma::{MAX_REGISTERED, PoolInner};

/// How long a dropped ring waits for the kernel before it leaks the buffers still in its hands.
const DROP_PATIENCE: Duration = Duration::from_secs(10);

/// One operation on a registered file. Offsets and lengths are bytes; `at` is where in the buffer the data starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UringOp {
    /// Read `len` bytes of the file at `offset` into the buffer from `at`.
    Read {
        /// In the file.
        offset: u64,
        /// In the buffer.
        at: u32,
        /// Bytes.
        len: u32,
    },
    /// Write `len` bytes of the buffer from `at` to the file at `offset`; `dsync`: durable before it completes (`RWF_DSYNC`).
    Write {
        /// In the file.
        offset: u64,
        /// In the buffer.
        at: u32,
        /// Bytes.
        len: u32,
        /// Durable before completion.
        dsync: bool,
    },
    /// `fdatasync`.
    Fdatasync,
    /// `fallocate` with the given mode bits (`FALLOC_FL_*`).
    Fallocate {
        /// `FALLOC_FL_*`.
        mode: u32,
        /// In the file.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

struct Slot {
    user: u64,
    buf: Option<DmaBuf>,
    busy: bool,
}

enum PoolSlot {
    Unseen,
    Registered { _kept: Arc<PoolInner> },
    Refused,
}

/// An io_uring instance with owned buffers. `!Send`: made, used and dropped on one OS thread, as `SINGLE_ISSUER` demands.
///
/// At most `depth` operations are in flight; one more is refused and its buffer handed back. Submission is batched:
/// [`Uring::submit`] only fills the queue, [`Uring::flush`] enters the kernel once for all of it.
pub struct Uring {
    ring: mem::ManuallyDrop<IoUring>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    pools: Vec<PoolSlot>,
    fixed_buffers: bool,
    task_run: TaskRun,
    unsubmitted: u32,
    /// Rung by the kernel for every completion; made when somebody asks.
    bell: Option<OwnedFd>,
    _own_thread: PhantomData<*const ()>,
}

impl Uring {
    /// A ring for `depth` operations in flight (rounded up to a power of two by the kernel) on `files`, which operations
    /// name by their place in the slice.
    ///
    /// # Errors
    /// [`UringError::Unavailable`] where io_uring is missing or forbidden; [`UringError::Setup`] otherwise.
    pub fn new(depth: u32, files: &[BorrowedFd<'_>]) -> Result<Uring, UringError> {
        let depth = depth.clamp(1, 32_768);
        let made = setup::make(depth, files)?;
        Ok(Uring {
            ring: mem::ManuallyDrop::new(made.ring),
            slots: (0..depth)
                .map(|_| Slot {
                    user: 0,
                    buf: None,
                    busy: false,
                })
                .collect(),
            free: (0..depth).rev().collect(),
            pools: (0..MAX_REGISTERED).map(|_| PoolSlot::Unseen).collect(),
            fixed_buffers: made.fixed_buffers,
            task_run: made.task_run,
            unsubmitted: 0,
            bell: None,
            _own_thread: PhantomData,
        })
    }

    /// How completions are handed over (what the kernel offered).
    #[must_use]
    pub fn task_run(&self) -> TaskRun {
        self.task_run
    }

    /// Operations given to [`Uring::submit`] and not yet reaped.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        (self.slots.len() - self.free.len()) as u32
    }

    /// Operations that one more [`Uring::submit`] would still take.
    #[must_use]
    pub fn room(&self) -> u32 {
        self.free.len() as u32
    }

    /// True while operations wait for [`Uring::flush`].
    #[must_use]
    pub fn has_unsubmitted(&self) -> bool {
        self.unsubmitted > 0
    }

    /// Puts one operation on file number `file` into the submission queue. The buffer stays inside until the completion;
    /// `user` comes back with it.
    ///
    /// # Errors
    /// Gives the buffer back when `depth` operations are in flight.
    ///
    /// # Panics
    /// When a read or write has no buffer or one that is shorter than `at + len`: the caller's bug, caught before the kernel
    /// sees it.
    pub fn submit(
        &mut self,
        op: UringOp,
        file: u32,
        mut buf: Option<DmaBuf>,
        user: u64,
    ) -> Result<(), Option<DmaBuf>> {
        let Some(&slot) = self.free.last() else {
            return Err(buf);
        };
        let entry = self
            .entry(op, file, buf.as_mut())
            .user_data(u64::from(slot));
        self.free.pop();
        let place = &mut self.slots[slot as usize];
        *place = Slot {
            user,
            buf,
            busy: true,
        };
        // SAFETY: U1: the entry points into the buffer now in the slot table; U3: its file is registered.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            // The queue is as deep as the slot table, so this needs a kernel that stopped taking entries.
            place.busy = false;
            let buf = place.buf.take();
            self.free.push(slot);
            return Err(buf);
        }
        self.unsubmitted += 1;
        Ok(())
    }

    fn entry(&mut self, op: UringOp, file: u32, buf: Option<&mut DmaBuf>) -> squeue::Entry {
        let fd = Fixed(file);
        match op {
            UringOp::Fdatasync => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
            UringOp::Fallocate { mode, offset, len } => opcode::Fallocate::new(fd, len)
                .offset(offset)
                .mode(mode.cast_signed())
                .build(),
            UringOp::Read { offset, at, len } => {
                let (ptr, index) = self.address(buf, at, len);
                match index {
                    Some(index) => opcode::ReadFixed::new(fd, ptr, len, index)
                        .offset(offset)
                        .build(),
                    None => opcode::Read::new(fd, ptr, len).offset(offset).build(),
                }
            }
            UringOp::Write {
                offset,
                at,
                len,
                dsync,
            } => {
                let flags = if dsync { libc::RWF_DSYNC } else { 0 };
                let (ptr, index) = self.address(buf, at, len);
                match index {
                    Some(index) => opcode::WriteFixed::new(fd, ptr, len, index)
                        .offset(offset)
                        .rw_flags(flags)
                        .build(),
                    None => opcode::Write::new(fd, ptr, len)
                        .offset(offset)
                        .rw_flags(flags)
                        .build(),
                }
            }
        }
    }

    fn address(&mut self, buf: Option<&mut DmaBuf>, at: u32, len: u32) -> (*mut u8, Option<u16>) {
        let Some(buf) = buf else {
            panic!("a read or write of {len} bytes without a buffer")
        };
        let end = at as usize + len as usize;
        assert!(
            end <= buf.len(),
            "{len} bytes from {at} lie outside a buffer of {} bytes",
            buf.len()
        );
        let index = self.registered(buf);
        (buf.as_mut_ptr().wrapping_add(at as usize), index)
    }

    /// The index of the buffer's pool in this ring's table; registers the pool when it is seen for the first time.
    fn registered(&mut self, buf: &DmaBuf) -> Option<u16> {
        let index = buf.pool_index()?;
        match &self.pools[index as usize] {
            PoolSlot::Registered { .. } => Some(index),
            PoolSlot::Refused => None,
            PoolSlot::Unseen => self.register(index, buf.pool()?),
        }
    }

    #[cold]
    fn register(&mut self, index: u16, pool: &Arc<PoolInner>) -> Option<u16> {
        let (base, len) = pool.span();
        let iovec = [libc::iovec {
            iov_base: base.as_ptr().cast(),
            iov_len: len,
        }];
        let taken = self.fixed_buffers && {
            // SAFETY: U2: the pool is kept in `self.pools` for as long as the ring exists, so the memory stays mapped.
            unsafe {
                self.ring
                    .submitter()
                    .register_buffers_update(u32::from(index), &iovec, None)
            }
            .is_ok()
        };
        // The index stays this pool's own while we hold the reference, so a slot never names another pool's memory.
        self.pools[index as usize] = if taken {
            PoolSlot::Registered {
                _kept: Arc::clone(pool),
            }
        } else {
            PoolSlot::Refused
        };
        taken.then_some(index)
    }

    /// Enters the kernel once if there is a reason: entries to submit, or completions that wait for this thread to finish
    /// them. Otherwise reads two words of shared memory.
    ///
    /// # Errors
    /// [`UringError::Enter`]; a kernel that is merely busy (`EAGAIN`, `EBUSY`, `EINTR`) is not an error, the next call
    /// tries again.
    pub fn flush(&mut self) -> Result<(), UringError> {
        let queue = self.ring.submission();
        let wanted = !queue.is_empty() || queue.taskrun() || queue.cq_overflow();
        drop(queue);
        if !wanted {
            return Ok(());
        }
        self.enter(None)
    }

    fn enter(&mut self, wait: Option<Duration>) -> Result<(), UringError> {
        let result = match wait {
            None => self.ring.submit(),
            Some(patience) => {
                let time = Timespec::from(patience);
                self.ring
                    .submitter()
                    .submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
        };
        self.unsubmitted = self.ring.submission().len() as u32;
        match result {
            Ok(_) => Ok(()),
            Err(busy)
                if matches!(
                    busy.raw_os_error(),
                    Some(libc::EAGAIN | libc::EBUSY | libc::EINTR | libc::ETIME)
                ) =>
            {
                Ok(())
            }
            Err(source) => Err(UringError::Enter { source }),
        }
    }

    /// Hands every finished operation to `done(user, result, buffer)`: bytes moved, or a negative errno. Never enters the
    /// kernel. Returns how many there were.
    pub fn reap(&mut self, mut done: impl FnMut(u64, i32, Option<DmaBuf>)) -> usize {
        let mut count = 0;
        let Uring {
            ring, slots, free, ..
        } = self;
        for cqe in ring.completion() {
            let index = cqe.user_data() as usize;
            let Some(slot) = slots.get_mut(index).filter(|slot| slot.busy) else {
                debug_assert!(
                    false,
                    "a completion for slot {index}, which has no operation"
                );
                continue;
            };
            slot.busy = false;
            free.push(index as u32);
            count += 1;
            done(slot.user, cqe.result(), slot.buf.take());
        }
        count
    }

    /// Submits everything and sleeps in the kernel until at least one operation finishes or `patience` is over. For
    /// shutting down and for tests; a reactor polls.
    ///
    /// # Errors
    /// [`UringError::Enter`].
    pub fn wait(&mut self, patience: Duration) -> Result<(), UringError> {
        if self.in_flight() == 0 || !self.ring.completion().is_empty() {
            return Ok(());
        }
        self.enter(Some(patience))
    }

    /// A descriptor for the reactor's epoll: readable when completions wait, until [`Uring::clear_wake`]. An eventfd and not the
    /// ring itself: with [`TaskRun::Deferred`] the ring does not become readable when I/O finishes.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn wake_fd(&mut self) -> io::Result<OwnedFd> {
        if self.bell.is_none() {
            let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            self.ring.submitter().register_eventfd(bell.as_raw_fd())?;
            self.bell = Some(bell);
        }
        match &self.bell {
            Some(bell) => bell.try_clone(),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Makes the descriptor of [`Uring::wake_fd`] unreadable until the next completion. Call it before looking for completions,
    /// so that none is missed.
    pub fn clear_wake(&self) {
        if let Some(bell) = &self.bell {
            // Nothing to read means that nothing rang.
            let _ = rustix::io::read(bell, &mut [0; 8]);
        }
    }
}

impl Uring {
    /// U1: the kernel still owns the buffers; to leak them, the ring and the pools it registered is the only safe end.
    #[cold]
    fn leak(&mut self) {
        let buffers: Vec<_> = self
            .slots
            .iter_mut()
            .filter_map(|slot| slot.buf.take())
            .collect();
        tracing::error!(
            buffers = buffers.len(),
            "the kernel did not finish I/O within {DROP_PATIENCE:?} of closing its ring: its buffers are leaked"
        );
        // ManuallyDrop: never dropped.
        let _ = mem::ManuallyDrop::new((buffers, mem::take(&mut self.pools)));
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        let deadline = std::time::Instant::now() + DROP_PATIENCE;
        while self.in_flight() > 0 {
            self.reap(|_, _, _| ());
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if self.in_flight() > 0 && (left.is_zero() || self.wait(left).is_err()) {
                self.leak();
                return;
            }
        }
        // Closing the ring lets go of its files only later, from a kernel worker.
        let _ = self.ring.submitter().unregister_files();
        // SAFETY: dropped once, here; nothing is in flight, and the pools (U2) are dropped after it.
        unsafe { mem::ManuallyDrop::drop(&mut self.ring) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    use rustix::event::{PollFd, PollFlags, Timespec};

    use super::*;
    use crate::DmaPool;

    const WAIT: Duration = Duration::from_secs(5);

    fn drain(uring: &mut Uring) -> HashMap<u64, (i32, Option<DmaBuf>)> {
        let mut done = HashMap::new();
        while uring.in_flight() > 0 {
            uring.wait(WAIT).unwrap();
            uring.reap(|user, result, buf| {
                done.insert(user, (result, buf));
            });
        }
        done
    }

    #[test]
    fn reads_writes_and_syncs_come_back_with_their_buffers() {
        let file = tempfile::tempfile().unwrap();
        let mut uring = Uring::new(8, &[file.as_fd()]).unwrap();
        let pool = DmaPool::new(4096, 2).unwrap();
        let mut buf = pool.get().unwrap();
        buf.as_mut_slice().fill(0x5a);
        uring
            .submit(
                UringOp::Write {
                    offset: 8192,
                    at: 0,
                    len: 4096,
                    dsync: true,
                },
                0,
                Some(buf),
                1,
            )
            .unwrap();
        let mut done = drain(&mut uring);
        assert_eq!(done.remove(&1).unwrap().0, 4096);
        let heap = DmaBuf::alloc(4096).unwrap();
        uring
            .submit(
                UringOp::Read {
                    offset: 8192,
                    at: 0,
                    len: 4096,
                },
                0,
                Some(heap),
                2,
            )
            .unwrap();
        uring
            .submit(
                UringOp::Read {
                    offset: 0,
                    at: 512,
                    len: 1024,
                },
                0,
                pool.get(),
                3,
            )
            .unwrap();
        uring.submit(UringOp::Fdatasync, 0, None, 4).unwrap();
        let done = drain(&mut uring);
        assert_eq!((done[&2].0, done[&3].0, done[&4].0), (4096, 1024, 0));
        assert_eq!(done[&2].1.as_ref().unwrap().as_slice(), [0x5a; 4096]);
        assert!(done[&4].1.is_none());
    }

    #[test]
    fn a_full_ring_gives_the_buffer_back() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 4096]).unwrap();
        let mut uring = Uring::new(2, &[file.as_fd()]).unwrap();
        let read = UringOp::Read {
            offset: 0,
            at: 0,
            len: 4096,
        };
        for user in 0..2 {
            uring
                .submit(read, 0, Some(DmaBuf::alloc(4096).unwrap()), user)
                .unwrap();
        }
        let back = uring
            .submit(read, 0, Some(DmaBuf::alloc(4096).unwrap()), 2)
            .unwrap_err();
        assert!(back.is_some() && uring.room() == 0 && uring.has_unsubmitted());
        assert_eq!(drain(&mut uring).len(), 2);
    }

    #[test]
    fn errors_are_negative_errnos() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let mut uring = Uring::new(2, &[file.as_fd()]).unwrap();
        uring
            .submit(
                UringOp::Fallocate {
                    mode: 0,
                    offset: 0,
                    len: 4096,
                },
                0,
                None,
                7,
            )
            .unwrap();
        assert!(drain(&mut uring)[&7].0 < 0);
    }

    #[test]
    fn a_dropped_ring_gives_its_buffers_back_only_after_the_kernel_did() {
        // A read of an empty pipe stays with the kernel until the writer writes.
        let (reader, mut writer) = std::io::pipe().unwrap();
        let pool = DmaPool::new(4096, 1).unwrap();
        let mut uring = Uring::new(2, &[reader.as_fd()]).unwrap();
        uring
            .submit(
                UringOp::Read {
                    offset: 0,
                    at: 0,
                    len: 4096,
                },
                0,
                pool.get(),
                1,
            )
            .unwrap();
        uring.flush().unwrap();
        assert_eq!(pool.available(), 0);
        let writing = std::thread::spawn({
            let pool = pool.clone();
            move || {
                let held = pool.available() == 0;
                writer.write_all(b"late").unwrap();
                held
            }
        });
        drop(uring);
        assert!(writing.join().unwrap());
        assert_eq!(pool.available(), 1);
    }

    #[test]
    fn a_sleeper_on_the_wake_descriptor_is_woken_by_a_completion() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut uring = Uring::new(2, &[reader.as_fd()]).unwrap();
        let bell = uring.wake_fd().unwrap();
        let rings = |patience| {
            let limit = Timespec {
                tv_sec: patience,
                tv_nsec: 0,
            };
            rustix::event::poll(&mut [PollFd::new(&bell, PollFlags::IN)], Some(&limit)).unwrap()
                == 1
        };
        for user in 0..3 {
            let read = UringOp::Read {
                offset: 0,
                at: 0,
                len: 4,
            };
            uring.submit(read, 0, DmaBuf::alloc(4).ok(), user).unwrap();
            uring.flush().unwrap();
            assert!(!rings(0));
            writer.write_all(b"ring").unwrap();
            assert!(rings(60), "nobody rang");
            uring.clear_wake();
            assert!(!rings(0));
            uring.flush().unwrap();
            assert_eq!(
                uring.reap(|done, result, _| assert_eq!((done, result), (user, 4))),
                1
            );
            uring.clear_wake();
        }
    }

    #[test]
    #[should_panic(expected = "4096 bytes from 512 lie outside a buffer of 4096 bytes")]
    fn a_range_outside_the_buffer_never_reaches_the_kernel() {
        let file = tempfile::tempfile().unwrap();
        let mut uring = Uring::new(2, &[file.as_fd()]).unwrap();
        let _ = uring.submit(
            UringOp::Read {
                offset: 0,
                at: 512,
                len: 4096,
            },
            0,
            DmaBuf::alloc(4096).ok(),
            1,
        );
    }
}
