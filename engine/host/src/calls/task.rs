//! Tasks and tasklets.
//!
//! Invariants: H1, H3 and H4 of `guard.rs`. `data` of a task goes to one xstream and is polled and dropped there only,
//! `arg` of a tasklet is used there only: what makes moving them sound is the module's promise (H3).
#![allow(
    unsafe_code,
    reason = "functions that modules call; module pointers travel between xstreams"
)]

use super::undelivered::{is_offering, offering};
use super::waker;
use crate::guard::{Place, coded, module, place, serving};
use crate::modules::ModuleEntry;
use crate::names::{c_text, task_name};
use daos_errno::Der;
use engine_xstream::{XsType, XstreamRef, Xstreams};
use module_abi::{DSS_TASK_PENDING, dss_func_t, dss_module, dss_task_ops, dss_waker};
use spdk_thread::SendError;
use std::ffi::{c_char, c_void};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

pub(crate) unsafe extern "C" fn spawn(
    this: *const dss_module,
    name: *const c_char,
    xs_type: i32,
    tgt_id: i32,
    ops: *const dss_task_ops,
    data: *mut c_void,
) -> i32 {
    coded("task_spawn", || {
        let module = module("task_spawn", this)?;
        place("task_spawn", Some(module), Place::Xstream)?;
        // SAFETY: H1.
        let ops = unsafe { ops.as_ref() }.ok_or(Der::INVAL)?;
        let poll = ops.poll.ok_or(Der::INVAL)?;
        // SAFETY: H1.
        let name = task_name(module, unsafe { c_text(name) });
        let xstream = engine_xstream::current().ok_or(Der::OP_NOT_PERMITTED)?;
        let to = match XsType::from_raw(xs_type).ok_or(Der::INVAL)? {
            XsType::OnSelf => None,
            kind => Some(serves(module, xstream.set(), kind, tgt_id)?),
        };
        // From here on the task exists: whoever drops it must know whether it was accepted.
        let (drop, waker) = (ops.drop, waker::Lent::default());
        let task = Task {
            poll,
            drop,
            data,
            waker,
        };
        let accepted = offering(|| match to {
            None => xstream.spawn(name, task).map(|handle| handle.detach()),
            Some(to) => to.spawn(name, move |_| task),
        });
        accepted.map_err(|error| error.der())
    })
}

pub(crate) unsafe extern "C" fn tasklet(
    this: *const dss_module,
    name: *const c_char,
    xs_type: i32,
    tgt_id: i32,
    func: dss_func_t,
    arg: *mut c_void,
) -> i32 {
    coded("tasklet", || {
        let module = module("tasklet", this)?;
        serving("tasklet", module)?;
        let func = func.ok_or(Der::INVAL)?;
        let kind = XsType::from_raw(xs_type).ok_or(Der::INVAL)?;
        // SAFETY: H1.
        let name = task_name(module, unsafe { c_text(name) });
        let current = engine_xstream::current();
        let to = match (&current, kind) {
            (Some(xstream), XsType::OnSelf) => xstream.xref(),
            (None, XsType::OnSelf) => return Err(Der::INVAL),
            (current, kind) => serves(
                module,
                current.as_ref().and_then(|xs| xs.set()),
                kind,
                tgt_id,
            )?,
        };
        if to.is_stopping() {
            return Err(Der::SHUTDOWN);
        }
        let call = Call { func, arg };
        to.send(move |xstream| {
            xstream.thread().name_message(name);
            call.run(name);
        })
        .map_err(|error| match error {
            SendError::Full => Der::AGAIN,
            SendError::Exited => Der::SHUTDOWN,
        })
    })
}

/// The xstream for a kind of work.
pub(super) fn serves(
    module: &ModuleEntry,
    set: Option<&Xstreams>,
    kind: XsType,
    tgt_id: i32,
) -> Result<XstreamRef, Der> {
    let set = set.or(module.lent.xstreams.get()).ok_or(Der::UNINIT)?;
    let target = u32::try_from(tgt_id).ok();
    set.serves(kind, target)
        .cloned()
        .map_err(|error| error.der())
}

struct Call {
    func: unsafe extern "C" fn(*mut c_void),
    arg: *mut c_void,
}

// SAFETY: H3.
unsafe impl Send for Call {}

impl Call {
    fn run(self, name: &'static str) {
        tracing::trace!(tasklet = name, "runs");
        // SAFETY: H3.
        unsafe { (self.func)(self.arg) }
    }
}

/// A module's task as a future.
struct Task {
    poll: unsafe extern "C" fn(*mut c_void, *const dss_waker) -> i32,
    drop: Option<unsafe extern "C" fn(*mut c_void)>,
    data: *mut c_void,
    waker: waker::Lent,
}

// SAFETY: H3.
unsafe impl Send for Task {}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let lent = self.waker.get(cx);
        // SAFETY: H3: here, and not after it was ready (the runtime drops it then).
        let state = unsafe { (self.poll)(self.data, &raw const lent) };
        if state == DSS_TASK_PENDING {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let (Some(drop), false) = (self.drop, is_offering()) {
            // SAFETY: H3: once, on its xstream.
            unsafe { drop(self.data) }
        }
    }
}
