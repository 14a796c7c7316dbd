//! This target's share of its block device.
//!
//! Invariants, besides E1 to E3 of `engine.rs` and B1 of `buffer.rs`:
//! - V1: `Share::raw` is open until `Share` is dropped; `Share` is reached through `Rc`s only, so all of this happens on
//!   the xstream that opened it.
//! - V2: `arg` of an accepted I/O is an `Rc<Io>` reference; the engine calls `done` exactly once for it. That reference
//!   holds the `Share`, so it is not closed before. The buffer is the engine's until then: dropping the future
//!   leaves it where it is.
#![allow(unsafe_code, reason = "hands buffers to the engine")]

use crate::DmaBuf;
use crate::engine::{self, contained};
use crate::sync::remember;
use crate::waker::lend;
use daos_errno::Der;
use module_abi::{
    DSS_BDEV_FLUSH, DSS_BDEV_FUA, DSS_BDEV_READ, DSS_BDEV_UNMAP, DSS_BDEV_WRITE,
    DSS_BDEV_WRITE_ZEROES, dss_bdev, dss_bdev_info, dss_bdev_io, dss_buf,
};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::c_void;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::ptr::NonNull;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// What the share is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BdevInfo {
    /// Blocks of the share; block 0 is the share's first.
    pub num_blocks: u64,
    /// Bytes of a block.
    pub block_size: u32,
    /// Blocks of one I/O at most.
    pub max_io_blocks: u32,
    /// Only a flush or a FUA write makes data durable.
    pub volatile_write_cache: bool,
    /// The device's own id.
    pub device_uuid: [u8; 16],
    /// The engine that owns the share; a store stamps it into what it formats.
    pub engine_uuid: [u8; 16],
    /// The device's name in the configuration.
    pub device_name: String,
}

/// This target's share, open on this xstream. Clones share it; the last one closes it, once the last I/O has ended.
#[derive(Clone)]
pub struct Bdev(Rc<Share>);

struct Share {
    raw: NonNull<dss_bdev>,
    info: BdevInfo,
    idle: RefCell<Vec<Rc<Io>>>, // kept for the next I/O, so that I/O does not allocate
    waiting: RefCell<VecDeque<Rc<Io>>>, // found the queue full; in order of arrival
    in_flight: Cell<u32>,
}

const IDLE_MAX: usize = 1024; // I/O states kept; beyond that they are freed

#[derive(Default)]
struct Io {
    share: RefCell<Option<Rc<Share>>>, // set while in flight (V2)
    result: RefCell<Option<(i32, DmaBuf)>>,
    waker: RefCell<Option<Waker>>,
    queued: Cell<bool>, // stands in `Share::waiting`
}

struct Wanted {
    op: u32,
    flags: u32,
    lba: u64,
    blocks: u32,
    buf: DmaBuf,
}

impl Bdev {
    /// Opens this target's share. On a target's main xstream.
    ///
    /// # Errors
    /// `DER_NONEXIST`: the target has no device. `DER_OP_NOT_PERMITTED`: not on a main xstream.
    pub fn open() -> Result<Bdev, Der> {
        let mut info = dss_bdev_info {
            num_blocks: 0,
            block_size: 0,
            max_io_blocks: 0,
            volatile_write_cache: 0,
            reserved: 0,
            device_uuid: [0; 16],
            engine_uuid: [0; 16],
            device_name: [0; 64],
        };
        let mut raw = std::ptr::null_mut();
        // SAFETY: E1, E2; both results are ours to write.
        Der::check(unsafe {
            (engine::host().bdev_open)(engine::module(), &raw mut info, &raw mut raw)
        })?;
        let raw = NonNull::new(raw).ok_or(Der::MISC)?;
        let name = info
            .device_name
            .iter()
            .take_while(|c| **c != 0)
            .map(|c| *c as u8)
            .collect::<Vec<u8>>();
        let info = BdevInfo {
            num_blocks: info.num_blocks,
            block_size: info.block_size,
            max_io_blocks: info.max_io_blocks,
            volatile_write_cache: info.volatile_write_cache != 0,
            device_uuid: info.device_uuid,
            engine_uuid: info.engine_uuid,
            device_name: String::from_utf8_lossy(&name).into_owned(),
        };
        let (idle, waiting) = (RefCell::default(), RefCell::default());
        Ok(Bdev(Rc::new(Share {
            raw,
            info,
            idle,
            waiting,
            in_flight: Cell::new(0),
        })))
    }

    /// What it is.
    pub fn info(&self) -> &BdevInfo {
        &self.0.info
    }

    /// Reads `blocks` from `lba` into the buffer, which is at least as long. Starts at once.
    pub fn read(&self, lba: u64, blocks: u32, buf: DmaBuf) -> IoFuture {
        IoFuture(self.start(Wanted {
            op: DSS_BDEV_READ,
            flags: 0,
            lba,
            blocks,
            buf,
        }))
    }

    /// Writes `blocks` to `lba`. With `fua`, the data is durable when it completes. Starts at once.
    pub fn write(&self, lba: u64, blocks: u32, buf: DmaBuf, fua: bool) -> IoFuture {
        let flags = if fua { DSS_BDEV_FUA } else { 0 };
        IoFuture(self.start(Wanted {
            op: DSS_BDEV_WRITE,
            flags,
            lba,
            blocks,
            buf,
        }))
    }

    /// Makes blocks read as zeroes. Starts at once.
    pub fn write_zeroes(
        &self,
        lba: u64,
        blocks: u32,
    ) -> impl Future<Output = Result<(), Der>> + use<> {
        self.without_data(DSS_BDEV_WRITE_ZEROES, lba, blocks)
    }

    /// Tells the device that blocks are no longer needed; what they read as is the device's choice. Starts at once.
    pub fn unmap(&self, lba: u64, blocks: u32) -> impl Future<Output = Result<(), Der>> + use<> {
        self.without_data(DSS_BDEV_UNMAP, lba, blocks)
    }

    /// Makes all writes that have completed durable. Starts at once.
    pub fn flush(&self) -> impl Future<Output = Result<(), Der>> + use<> {
        self.without_data(DSS_BDEV_FLUSH, 0, 0)
    }

    /// Ends when the device was evicted or removed. This handle and its clones take no more I/O then, also after the device is back: drop them, wait
    /// until nothing of it is [in flight](Bdev::in_flight), and open again: until the device can be used that is answered `DER_IO`. One
    /// task waits at a time.
    pub async fn gone(&self) {
        poll_fn(|cx| {
            let waker = lend(cx.waker());
            // SAFETY: V1; the waker is lent for the call.
            let gone = unsafe { (engine::host().bdev_gone)(self.0.raw.as_ptr(), &raw const waker) };
            // An error is a handle that is no more.
            if gone == 0 {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }

    /// I/Os at the device.
    pub fn in_flight(&self) -> u32 {
        self.0.in_flight.get()
    }

    fn without_data(
        &self,
        op: u32,
        lba: u64,
        blocks: u32,
    ) -> impl Future<Output = Result<(), Der>> + use<> {
        let started = self.start(Wanted {
            op,
            flags: 0,
            lba,
            blocks,
            buf: DmaBuf::empty(),
        });
        async move { started.await.0 }
    }

    fn start(&self, wanted: Wanted) -> Started {
        let io = self.0.idle.borrow_mut().pop().unwrap_or_default();
        let mut future = Started {
            share: Rc::clone(&self.0),
            io,
            wanted: Some(wanted),
        };
        future.submit();
        future
    }
}

impl fmt::Debug for Bdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bdev")
            .field("info", &self.0.info)
            .field("in_flight", &self.0.in_flight.get())
            .finish()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // SAFETY: V1.
        unsafe { (engine::host().bdev_close)(self.raw.as_ptr()) }
    }
}

/// An I/O that has been started: gives its result, and the buffer back. When the device's queue is full it waits for a
/// place. Dropping it forgets the result, not the I/O: the buffer goes back to the engine once the device is done.
pub struct IoFuture(Started);

impl Future for IoFuture {
    type Output = (Result<(), Der>, DmaBuf);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

struct Started {
    share: Rc<Share>,
    io: Rc<Io>,
    wanted: Option<Wanted>, // not accepted yet
}

impl Started {
    /// Offers the I/O to the engine.
    fn submit(&mut self) {
        let Some(wanted) = self.wanted.take() else {
            return;
        };
        let arg = Rc::into_raw(Rc::clone(&self.io));
        *self.io.share.borrow_mut() = Some(Rc::clone(&self.share));
        let io = dss_bdev_io {
            op: wanted.op,
            flags: wanted.flags,
            lba: wanted.lba,
            blocks: wanted.blocks,
            reserved: 0,
            buf: wanted.buf.give(),
            done: Some(done),
            arg: arg.cast_mut().cast(),
        };
        // SAFETY: V1, V2.
        let rc = unsafe { (engine::host().bdev_submit)(self.share.raw.as_ptr(), &raw const io) };
        if rc >= 0 {
            self.share.in_flight.set(self.share.in_flight.get() + 1);
            return;
        }
        // SAFETY: not accepted, so `done` will not have it (V2).
        drop(unsafe { Rc::from_raw(arg) });
        *self.io.share.borrow_mut() = None;
        let buf = DmaBuf::take(io.buf); // still ours
        if rc == Der::AGAIN.neg() {
            self.wanted = Some(Wanted { buf, ..wanted });
        } else {
            *self.io.result.borrow_mut() = Some((rc, buf));
        }
    }
}

impl Future for Started {
    type Output = (Result<(), Der>, DmaBuf);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.submit();
        if let Some((rc, buf)) = self.io.result.borrow_mut().take() {
            return Poll::Ready((Der::check(rc), buf));
        }
        if self.wanted.is_some() && self.share.in_flight.get() == 0 {
            cx.waker().wake_by_ref(); // others fill the queue: ask again next turn
            return Poll::Pending;
        }
        remember(&mut self.io.waker.borrow_mut(), cx);
        if self.wanted.is_some() && !self.io.queued.replace(true) {
            self.share
                .waiting
                .borrow_mut()
                .push_back(Rc::clone(&self.io));
        }
        Poll::Pending
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.io.waker.borrow_mut().take();
        if self.wanted.is_some() && !self.io.queued.get() {
            self.share.wake_next(); // a wake-up meant for us goes on
        }
        self.share.keep(&mut self.io);
    }
}

impl Share {
    fn wake_next(&self) {
        loop {
            let Some(next) = self.waiting.borrow_mut().pop_front() else {
                return;
            };
            next.queued.set(false);
            let waker = next.waker.borrow_mut().take();
            if let Some(waker) = waker {
                return waker.wake();
            }
        }
    }

    /// Keeps, for the next one, the state of an ended I/O that nobody refers to any more.
    fn keep(&self, io: &mut Rc<Io>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_MAX && Rc::get_mut(io).is_some() {
            io.result.borrow_mut().take();
            idle.push(Rc::clone(io));
        }
    }
}

unsafe extern "C" fn done(arg: *mut c_void, rc: i32, buf: dss_buf) {
    // SAFETY: V2.
    let mut io = unsafe { Rc::from_raw(arg.cast::<Io>().cast_const()) };
    contained("an I/O completion", (), || {
        let Some(share) = io.share.borrow_mut().take() else {
            return;
        };
        *io.result.borrow_mut() = Some((rc, DmaBuf::take(buf)));
        let waker = io.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
        share.in_flight.set(share.in_flight.get() - 1);
        share.wake_next();
        share.keep(&mut io); // where the future is gone: the buffer goes back to the engine here
    });
}
