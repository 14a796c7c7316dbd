//! A target's share of its device.
//!
//! Invariants: H1, H3 and H4 of `guard.rs`, B1 of `buffer.rs`. `done` of an accepted I/O is called once, by the share's
//! own poller.
#![allow(unsafe_code, reason = "functions that modules call")]

use super::buffer::{Covered, give};
use crate::guard::{Place, bad_handle, coded, entry, module, place};
use crate::handles::Object;
use crate::host::TargetShare;
use crate::modules::ModuleEntry;
use crate::names::task_name;
use daos_errno::{Der, from_errno};
use module_abi::{
    DSS_BDEV_FLUSH, DSS_BDEV_FUA, DSS_BDEV_READ, DSS_BDEV_UNMAP, DSS_BDEV_WRITE,
    DSS_BDEV_WRITE_ZEROES, dss_bdev, dss_bdev_info, dss_bdev_io, dss_buf, dss_module,
};
use slab::Slab;
use spdk_bdev::{BdevError, BdevErrorKind, Completion, Geometry, IoQueue, Op, Reject, Request};
use spdk_thread::{Period, PollResult, Poller};
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::rc::Rc;

type Done = unsafe extern "C" fn(arg: *mut c_void, rc: i32, buf: dss_buf);

/// Completions that one call of the poller passes on; the rest waits for the next turn.
const REAP_MAX: usize = 256;

/// A share that a module has open.
pub(crate) struct OpenShare {
    share: TargetShare,
    geometry: Geometry,
    queue: IoQueue,
    waiting: RefCell<Slab<(Done, *mut c_void)>>,
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
        let queue = share
            .descriptor
            .get_channel(thread)
            .and_then(|channel| channel.queue(depth));
        let queue = queue.map_err(|error| {
            tracing::error!(module = module.name, %error, "share not opened");
            der_of(&error)
        })?;
        let geometry = share.descriptor.geometry();
        let (waiting, poller, closed) = (RefCell::default(), RefCell::default(), Cell::new(false));
        let open = Rc::new(OpenShare {
            share,
            geometry,
            queue,
            waiting,
            poller,
            closed,
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

    fn submit(self: &Rc<Self>, io: &dss_bdev_io) -> Result<(), Der> {
        let request = self.request(io)?;
        let done = io.done.ok_or(Der::INVAL)?;
        let user = self.waiting.borrow_mut().insert((done, io.arg));
        let request = request.with_user(user as u64);
        let submitted = self.offer(request, &io.buf);
        match submitted {
            Ok(()) => self.wake_poller(),
            Err(_) => drop(self.waiting.borrow_mut().remove(user)),
        }
        submitted
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
        let (done, arg) = self.waiting.borrow_mut().remove(completion.user as usize);
        let rc = completion.result.map_or_else(
            |error| {
                tracing::warn!(device = self.share.descriptor.name(), %error, "I/O failed");
                der_of(&error).neg()
            },
            |()| 0,
        );
        let buf = completion.buf.map_or(dss_buf::EMPTY, give);
        // SAFETY: H3: once, on the xstream that submitted.
        unsafe { done(arg, rc, buf) }
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

fn der_of_reject(why: &Reject) -> Der {
    match why {
        Reject::QueueFull { .. } => Der::AGAIN,
        Reject::ReadOnly => Der::NO_PERM,
        Reject::Unsupported => Der::NOTSUPPORTED,
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
