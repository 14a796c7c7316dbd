//! [`Channel`]: one thread's way to a device.
#![allow(unsafe_code, reason = "gives buffers to SPDK and takes them back")]
//! - **C1** `raw` is live from `ks_channel_new` to `ks_channel_free`, on the thread of `core`; the descriptor outlives it (`opened`).
//! - **C2** a buffer that SPDK has is in `slots`, which lives until SPDK has given all of them back: `drop` leaves the slots to
//!   `ks_channel_free` as its orphan.
//! - **C3** a tag is given to SPDK only while its slot is free, and is named once in what is done.
//! - **C4** `done` and `done_count` lie in the shim's channel (C1). SPDK adds to them in the thread's turns, which none of our functions here
//!   causes; they are read and emptied between two additions.

use core::ffi::{c_int, c_void};
use core::fmt;
use core::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spdk_env::DmaBuf;

use crate::bdev::{Bdev, Opened};
use crate::ffi;
use crate::thread::{Core, Thread};

/// What is asked of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Op {
    /// Into the buffer.
    Read = 0,
    /// From the buffer.
    Write = 1,
    /// Without a buffer.
    WriteZeroes = 2,
    /// Without a buffer.
    Unmap = 3,
    /// Without a buffer or a range.
    Flush = 4,
}

/// Why an I/O was not started; the buffer comes back with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// SPDK has no room for it now; there will be when another one is back.
    #[error("SPDK has no room for another I/O")]
    Busy,
    /// The device is to go.
    #[error("the device was removed")]
    Removed,
    /// The number is out of range or in use.
    #[error("an I/O of this number is out, or it is too large")]
    Tag,
    /// There is no buffer, or a shorter one than the I/O.
    #[error("the buffer does not hold the I/O")]
    Buffer,
    /// SPDK's error: a range beyond the end, an operation that the device does not know.
    #[error("SPDK refuses it: {}", std::io::Error::from_raw_os_error(*.0))]
    Errno(i32),
}

/// The end of an I/O.
#[derive(Debug)]
#[must_use = "it carries the buffer of the I/O"]
pub struct Finished {
    /// Its number.
    pub tag: u32,
    /// Its buffer.
    pub buf: Option<DmaBuf>,
    /// 0, or the system's error number.
    pub errno: i32,
}

#[derive(Default)]
struct Slot {
    buf: Option<DmaBuf>,
    is_out: bool,
}

/// One thread's channel on a device (`struct spdk_io_channel`), for I/Os that are numbered by their user; `!Send`. Dropping it with
/// I/O out leaves the buffers to SPDK until the last is back.
///
/// ```compile_fail,E0277
/// fn goes_elsewhere(channel: spdk_sys::Channel) {
///     std::thread::spawn(move || drop(channel));
/// }
/// ```
///
/// There is one of it, and who uses it has it alone:
///
/// ```compile_fail,E0382
/// fn copies(channel: spdk_sys::Channel) {
///     let other = channel;
///     drop((channel, other));
/// }
/// ```
/// ```compile_fail,E0596
/// fn shares(channel: &spdk_sys::Channel) {
///     channel.reap(|_| ());
/// }
/// ```
///
/// A buffer that is under I/O is out of reach:
///
/// ```compile_fail,E0382
/// fn keeps(channel: &mut spdk_sys::Channel, buf: spdk_env::DmaBuf) {
///     let _ = channel.submit(0, spdk_sys::Op::Read, false, 0, 1, Some(buf));
///     drop(buf);
/// }
/// ```
pub struct Channel {
    raw: NonNull<ffi::Channel>,
    done: NonNull<ffi::Done>,
    done_count: NonNull<u32>,
    slots: Box<[Slot]>,
    out: u32,
    block_size: u64,
    opened: Arc<Opened>,
    core: Rc<Core>,
}

impl Channel {
    /// A channel for at most `capacity` I/Os at a time. `None`: SPDK has no memory or no queue pair left, or the device is to go.
    #[must_use]
    pub fn new<M: Send>(bdev: &Bdev, thread: &Thread<M>, capacity: u32) -> Option<Channel> {
        if bdev.is_removed() {
            return None;
        }
        let opened = Arc::clone(bdev.opened());
        let core = Rc::clone(thread.core());
        let entered = core.enter();
        // SAFETY: the thread is current; the descriptor is open (B1 of bdev.rs).
        let raw = NonNull::new(unsafe { ffi::ks_channel_new(opened.raw().as_ptr(), capacity) })?;
        drop(entered);
        let mut done = ptr::null();
        // SAFETY: C1.
        let done_count = unsafe { ffi::ks_channel_done(raw.as_ptr(), &raw mut done) };
        Some(Channel {
            raw,
            done: NonNull::new(done.cast_mut())?,
            done_count: NonNull::new(done_count)?,
            slots: (0..capacity).map(|_| Slot::default()).collect(),
            out: 0,
            block_size: u64::from(opened.facts.block_size),
            opened,
            core,
        })
    }

    /// Starts an I/O of `blocks` blocks from `lba`; a flush is one of the whole device. With `fua`, writes are flushed before they finish. The buffer belongs to the I/O until
    /// [`Channel::reap`] gives it back.
    ///
    /// # Errors
    /// [`Refused`], with the buffer; nothing was started.
    #[inline]
    pub fn submit(
        &mut self,
        tag: u32,
        op: Op,
        fua: bool,
        lba: u64,
        blocks: u32,
        buf: Option<DmaBuf>,
    ) -> Result<(), (Refused, Option<DmaBuf>)> {
        let Some(slot) = self.slots.get_mut(tag as usize).filter(|slot| !slot.is_out) else {
            return Err((Refused::Tag, buf));
        };
        if self.opened.state.removed.load(Ordering::Relaxed) {
            return Err((Refused::Removed, buf));
        }
        let data: *mut c_void = match (&buf, op) {
            (Some(buf), Op::Read | Op::Write)
                if u64::from(blocks) * self.block_size <= buf.len() as u64 =>
            {
                buf.as_ptr().cast_mut().cast()
            }
            (_, Op::Read | Op::Write) => return Err((Refused::Buffer, buf)),
            _ => ptr::null_mut(),
        };
        let _entered = self.core.enter();
        let (raw, blocks, fua) = (self.raw.as_ptr(), u64::from(blocks), c_int::from(fua));
        // SAFETY: C1, C3; the buffer holds the I/O and stays in its slot until it is back (C2); its bytes are reached through the pointer that
        // it was made with.
        let rc = unsafe {
            match op {
                Op::Read => ffi::ks_read(raw, tag, data, lba, blocks),
                Op::Write => ffi::ks_write(raw, tag, data, lba, blocks, fua),
                _ => ffi::ks_submit(raw, tag, op as c_int, fua, lba, blocks),
            }
        };
        if rc != 0 {
            return Err((refused(rc), buf));
        }
        slot.buf = buf;
        slot.is_out = true;
        self.out += 1;
        Ok(())
    }

    /// Hands what has finished since the last call to `done`; returns how many. I/O finishes in turns of the thread.
    #[inline]
    pub fn reap(&mut self, mut done: impl FnMut(Finished)) -> u32 {
        // SAFETY: C4.
        let count = unsafe { self.done_count.replace(0) };
        for place in 0..count as usize {
            // SAFETY: C4: there are so many, and they stay until the thread's next turn.
            let ffi::Done { tag, status } = unsafe { self.done.add(place).read() };
            let Some(slot) = self.slots.get_mut(tag as usize) else {
                continue;
            };
            slot.is_out = false;
            self.out -= 1;
            done(Finished {
                tag,
                buf: slot.buf.take(),
                errno: status.saturating_neg(),
            });
        }
        count
    }

    /// Whether [`Channel::reap`] would find something.
    #[inline]
    #[must_use]
    pub fn has_finished(&self) -> bool {
        // SAFETY: C4.
        unsafe { self.done_count.read() != 0 }
    }

    /// I/Os that are out.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.out
    }

    /// I/Os that may be.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Whether the device is to go: the channel should, too, when its I/O is back.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.opened.state.removed.load(Ordering::Acquire)
    }
}

#[cold]
fn refused(rc: c_int) -> Refused {
    const NO_MEMORY: c_int = -12;
    match rc {
        NO_MEMORY => Refused::Busy,
        error => Refused::Errno(error.saturating_neg()),
    }
}

/// What a channel leaves behind while its I/O is out.
struct Orphan {
    _slots: Box<[Slot]>,
    _opened: Arc<Opened>,
    core: Rc<Core>,
}

impl Drop for Orphan {
    fn drop(&mut self) {
        self.core.adopted();
    }
}

unsafe extern "C" fn orphaned(orphan: *mut c_void) {
    // SAFETY: made by `drop`, given back once, on the same thread.
    drop(unsafe { Box::from_raw(orphan.cast::<Orphan>()) });
}

impl Drop for Channel {
    fn drop(&mut self) {
        let orphan = Box::new(Orphan {
            _slots: core::mem::take(&mut self.slots),
            _opened: Arc::clone(&self.opened),
            core: Rc::clone(&self.core),
        });
        self.core.orphan();
        let _entered = self.core.enter();
        // SAFETY: C1; C2: the orphan holds what SPDK still uses.
        unsafe {
            ffi::ks_channel_free(
                self.raw.as_ptr(),
                self.out,
                orphaned,
                Box::into_raw(orphan).cast(),
            );
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("device", &self.opened.name)
            .field("outstanding", &self.out)
            .finish_non_exhaustive()
    }
}
