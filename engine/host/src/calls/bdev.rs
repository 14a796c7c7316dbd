//! A target's share of its device.
//!
//! Invariants: H1, H3 and H4 of `guard.rs`, B1 of `buffer.rs`, W2 of `waker.rs`. `done` of an accepted I/O is called once, by the share's
//! own poller.
#![allow(unsafe_code, reason = "functions that modules call")]

use super::buffer::{Covered, give, taken};
use super::waker::Kept;
use crate::guard::{Place, bad_handle, coded, entry, module, place, ult as calling_ult};
use crate::handles::Object;
use crate::host::TargetShare;
use crate::modules::ModuleEntry;
use crate::names::task_name;
use daos_errno::{Der, from_errno};
use module_abi::{
    DSS_BDEV_FLUSH, DSS_BDEV_FUA, DSS_BDEV_READ, DSS_BDEV_UNMAP, DSS_BDEV_WRITE,
    DSS_BDEV_WRITE_ZEROES, dss_bdev, dss_bdev_info, dss_bdev_io, dss_buf, dss_module, dss_waker,
};
use slab::Slab;
use spdk_bdev::{
    BdevError, BdevErrorKind, Completion, EndWatch, Geometry, IoQueue, Op, Reject, Request,
};
use spdk_thread::sync::Notify;
use spdk_thread::{Period, PollResult, Poller, TaskWaker};
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

type Done = unsafe extern "C" fn(arg: *mut c_void, rc: i32, buf: dss_buf);

/// Who hears of a completion.
enum Waiter {
    /// A call-back.
    Call(Done, *mut c_void),
    /// A ULT that sleeps on its stack.
    Ult(Option<TaskWaker>),
    /// The same, woken.
    Ended(i32, dss_buf),
    /// Nobody any more; the buffer goes back to the engine.
    Gone,
}

/// Completions that one call of the poller passes on; the rest waits for the next turn.
const REAP_MAX: usize = 256;

/// A share that a module has open.
pub(crate) struct OpenShare {
    share: TargetShare,
    geometry: Geometry,
    queue: IoQueue,
    end: EndWatch,
    waiting: RefCell<Slab<Waiter>>,
    /// ULTs that wait for a place in the queue; each completion lets one try.
    room: Notify,
    /// Holds the share while I/O is in flight; runs only then.
    poller: RefCell<Option<Poller>>,
    closed: Cell<bool>,
}

pub(crate) unsafe extern "C" fn open(
    this: *const dss_module,
    info: *mut dss_bdev_info,
    out: *mut *mut dss_bdev,
) -> i32 {
    coded("bdev_open", || {
        let module = module("bdev_open", this)?;
        let here = place("bdev_open", Some(module), Place::Main)?;
        if info.is_null() || out.is_null() {
            return Err(Der::INVAL);
        }
        let target = usize::try_from(here.info.dmi_tgt_id).map_err(|_| Der::NONEXIST)?;
        let share = here
            .lent
            .shares
            .get(target)
            .cloned()
            .flatten()
            .ok_or(Der::NONEXIST)?;
        let open = OpenShare::new(module, share, here.lent.queue_depth)?;
        let described = open.describe();
        let handle = here.handles.insert(module, Object::Bdev(Rc::clone(&open)));
        let handle = handle.map_err(|_| {
            open.close();
            Der::NOMEM
        })?;
        // SAFETY: H1.
        unsafe {
            info.write(described);
            out.write(handle);
        }
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn submit(bdev: *mut dss_bdev, io: *const dss_bdev_io) -> i32 {
    coded("bdev_submit", || {
        let here = place("bdev_submit", None, Place::Xstream)?;
        let open = here.handles.with(bdev, |_, object| match object {
            Object::Bdev(open) => Some(Rc::clone(open)),
            _ => None,
        });
        let open = open.map_err(bad_handle("bdev_submit"))?;
        // SAFETY: H1.
        open.submit(unsafe { io.as_ref() }.ok_or(Der::INVAL)?)
    })
}

pub(crate) unsafe extern "C" fn io_wait(bdev: *mut dss_bdev, io: *mut dss_bdev_io) -> i32 {
    coded("bdev_io_wait", || {
        let me = calling_ult("bdev_io_wait")?;
        let here = place("bdev_io_wait", None, Place::Xstream)?;
        let open = here.handles.with(bdev, |_, object| match object {
            Object::Bdev(open) => Some(Rc::clone(open)),
            _ => None,
        });
        let open = open.map_err(bad_handle("bdev_io_wait"))?;
        // SAFETY: H1: the caller's until it returns.
        let io = unsafe { io.as_mut() }.ok_or(Der::INVAL)?;
        me.wait(open.io(io))
    })
}

pub(crate) unsafe extern "C" fn gone(bdev: *mut dss_bdev, lent: *const dss_waker) -> i32 {
    entry("bdev_gone", Der::MISC.neg(), || {
        let open = place("bdev_gone", None, Place::Xstream).and_then(|here| {
            here.handles.with(bdev, |_, object| match object {
                Object::Bdev(open) => Some(Rc::clone(open)),
                _ => None,
            })
        });
        let open = match open.map_err(bad_handle("bdev_gone")) {
            Ok(open) => open,
            Err(der) => return der.neg(),
        };
        // SAFETY: W2: lent for this call, or NULL.
        let waker = unsafe { Kept::clone_of(lent) }.map(|kept| Arc::new(kept).into());
        i32::from(open.end.is_over(waker.as_ref()))
    })
}

pub(crate) unsafe extern "C" fn close(bdev: *mut dss_bdev) {
    entry("bdev_close", (), || {
        let Ok(here) = place("bdev_close", None, Place::Xstream) else {
            return;
        };
        let taken = here
            .handles
            .take(bdev, |object| matches!(object, Object::Bdev(_)));
        if let Ok((_, Object::Bdev(open))) = taken.map_err(bad_handle("bdev_close")) {
            open.close();
        }
    });
}

impl OpenShare {
    fn new(
        module: &'static ModuleEntry,
        share: TargetShare,
        depth: u32,
    ) -> Result<Rc<OpenShare>, Der> {
        let xstream = engine_xstream::current().ok_or(Der::OP_NOT_PERMITTED)?;
        let thread = xstream.thread();
        let opened = share.descriptor.get_channel(thread).and_then(|channel| {
            let queue = channel.queue(depth)?;
            Ok((queue, channel.watch_end()))
        });
        let (queue, end) = opened.map_err(|error| {
            // Who waits for the device asks every now and then.
            match error.kind() {
                BdevErrorKind::Gone { .. } => {
                    tracing::debug!(module = module.name, %error, "share not opened");
                }
                _ => tracing::error!(module = module.name, %error, "share not opened"),
            }
            der_of(&error)
        })?;
        let geometry = share.descriptor.geometry();
        let open = Rc::new(OpenShare {
            share,
            geometry,
            queue,
            end,
            waiting: RefCell::default(),
            room: Notify::new(),
            poller: RefCell::default(),
            closed: Cell::new(false),
        });
        let mine = Rc::clone(&open);
        let name = task_name(module, c"share");
        let poller = thread.register_poller(name, Period::EveryTurn, move |_| mine.reap());
        // The channel's own poller, which runs before this one, announces or asks for turns.
        poller.set_interrupt_mode(true);
        poller.pause();
        *open.poller.borrow_mut() = Some(poller);
        Ok(open)
    }

    fn describe(&self) -> dss_bdev_info {
        let mut device_name = [0; 64];
        for (to, from) in device_name
            .iter_mut()
            .take(63)
            .zip(self.share.descriptor.name().bytes())
        {
            *to = from as std::ffi::c_char;
        }
        dss_bdev_info {
            num_blocks: self.share.num_blocks,
            block_size: self.geometry.block_size,
            max_io_blocks: self.geometry.max_io_blocks,
            volatile_write_cache: u32::from(self.geometry.volatile_write_cache),
            reserved: 0,
            device_uuid: self.share.device_uuid,
            engine_uuid: self.share.engine_uuid,
            device_name,
        }
    }

    /// A module's I/O as the device's: checked against the share and moved to its place.
    fn request(&self, io: &dss_bdev_io) -> Result<Request, Der> {
        let op = match io.op {
            DSS_BDEV_READ => Op::Read,
            DSS_BDEV_WRITE => Op::Write,
            DSS_BDEV_WRITE_ZEROES => Op::WriteZeroes,
            DSS_BDEV_UNMAP => Op::Unmap,
            DSS_BDEV_FLUSH => Op::Flush,
            _ => return Err(Der::INVAL),
        };
        if io.flags & !DSS_BDEV_FUA != 0 || self.closed.get() {
            return Err(Der::INVAL);
        }
        if op == Op::Flush {
            return Ok(Request::flush());
        }
        let end = io.lba.checked_add(u64::from(io.blocks)).ok_or(Der::INVAL)?;
        if end > self.share.num_blocks {
            return Err(Der::INVAL);
        }
        let lba = self.share.first_block + io.lba;
        Ok(Request {
            buf: None,
            lba,
            user: 0,
            blocks: io.blocks,
            op,
            fua: io.flags & DSS_BDEV_FUA != 0,
        })
    }

    fn submit(&self, io: &dss_bdev_io) -> Result<(), Der> {
        let done = io.done.ok_or(Der::INVAL)?;
        self.start(io, Waiter::Call(done, io.arg)).map(drop)
    }

    /// Where `waiter` will be told.
    fn start(&self, io: &dss_bdev_io, waiter: Waiter) -> Result<usize, Der> {
        let request = self.request(io)?;
        let user = self.waiting.borrow_mut().insert(waiter);
        let request = request.with_user(user as u64);
        let submitted = self.offer(request, &io.buf);
        match submitted {
            Ok(()) => self.wake_poller(),
            Err(_) => drop(self.waiting.borrow_mut().remove(user)),
        }
        submitted.map(|()| user)
    }

    /// An I/O from its submission to its end; the buffer is in `io` again then. While it waits for a place it is in `io`, too.
    async fn io(&self, io: &mut dss_bdev_io) -> Result<(), Der> {
        let user = loop {
            match self.start(io, Waiter::Ult(None)) {
                // Others fill the queue: the device's, and of this share nothing is in flight that could end.
                Err(Der::AGAIN) if self.queue.in_flight() == 0 => spdk_thread::yield_now().await,
                Err(Der::AGAIN) => self.room.notified().await,
                started => break started?,
            }
        };
        let (rc, buf) = Ending { share: self, user }.await;
        io.buf = buf;
        Der::check(rc)
    }

    /// To the device, with the module's buffer where the operation has data.
    fn offer(&self, request: Request, buf: &dss_buf) -> Result<(), Der> {
        if !request.op.has_data() {
            return self
                .queue
                .submit(request)
                .map_err(|rejected| der_of_reject(&rejected.why));
        }
        Covered::of(buf)?.ok_or(Der::INVAL)?.offer(|buf| {
            let request = Request {
                buf: Some(buf),
                ..request
            };
            let submitted = self.queue.submit(request);
            submitted.map_err(|rejected| (der_of_reject(&rejected.why), rejected.request.buf))
        })
    }

    fn wake_poller(&self) {
        if let Some(poller) = &*self.poller.borrow() {
            poller.resume();
        }
    }

    /// The poller: passes completions on.
    fn reap(&self) -> PollResult {
        let count = self
            .queue
            .reap(REAP_MAX, |completion| self.complete(completion));
        if self.queue.in_flight() == 0 {
            self.rest();
        }
        if count > 0 {
            PollResult::Busy
        } else {
            PollResult::Idle
        }
    }

    fn complete(&self, completion: Completion) {
        let rc = completion.result.map_or_else(
            |error| {
                tracing::warn!(device = self.share.descriptor.name(), %error, "I/O failed");
                der_of(&error).neg()
            },
            |()| 0,
        );
        let buf = completion.buf.map_or(dss_buf::EMPTY, give);
        self.tell(completion.user as usize, rc, buf);
        self.room.notify_one();
    }

    fn tell(&self, user: usize, rc: i32, buf: dss_buf) {
        let mut waiting = self.waiting.borrow_mut();
        match &mut waiting[user] {
            Waiter::Ult(waker) => {
                let waker = waker.take();
                waiting[user] = Waiter::Ended(rc, buf);
                drop(waiting);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Waiter::Call(..) | Waiter::Ended(..) | Waiter::Gone => {
                let waiter = waiting.remove(user);
                drop(waiting);
                match waiter {
                    // SAFETY: H3: once, on the xstream that submitted.
                    Waiter::Call(done, arg) => unsafe { done(arg, rc, buf) },
                    _ => drop(taken("bdev_io_wait", &buf)),
                }
            }
        }
    }

    fn rest(&self) {
        if self.closed.get() {
            let poller = self.poller.borrow_mut().take();
            drop(poller);
        } else if let Some(poller) = &*self.poller.borrow() {
            poller.pause();
        }
    }

    pub(crate) fn close(&self) {
        self.closed.set(true);
        if self.queue.in_flight() == 0 {
            self.rest();
        }
    }
}

/// A submitted I/O that a ULT waits for.
struct Ending<'a> {
    share: &'a OpenShare,
    user: usize,
}

impl Future for Ending<'_> {
    type Output = (i32, dss_buf);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut waiting = self.share.waiting.borrow_mut();
        match &mut waiting[self.user] {
            Waiter::Ended(rc, buf) => {
                let ended = (*rc, std::mem::replace(buf, dss_buf::EMPTY));
                Poll::Ready(ended)
            }
            waiter => {
                *waiter = Waiter::Ult(Some(TaskWaker::from_cx(cx, "block I/O")));
                Poll::Pending
            }
        }
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut waiting = self.share.waiting.borrow_mut();
        if matches!(waiting[self.user], Waiter::Ult(_)) {
            waiting[self.user] = Waiter::Gone;
            return;
        }
        let ended = waiting.remove(self.user);
        drop(waiting);
        if let Waiter::Ended(_, buf) = ended {
            drop(taken("bdev_io_wait", &buf)); // empty when it was seen
        }
    }
}

fn der_of_reject(why: &Reject) -> Der {
    match why {
        Reject::QueueFull { .. } => Der::AGAIN,
        Reject::ReadOnly => Der::NO_PERM,
        Reject::Unsupported => Der::NOTSUPPORTED,
        Reject::Evicted => Der::IO,
        _ => Der::INVAL,
    }
}

fn der_of(error: &BdevError) -> Der {
    match error.kind() {
        BdevErrorKind::Rejected { why, .. } => der_of_reject(why),
        BdevErrorKind::QueueDepth { .. } => Der::NOMEM,
        _ => error.errno().map_or(Der::IO, from_errno),
    }
}
