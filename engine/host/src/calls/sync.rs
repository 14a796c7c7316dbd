//! Eventuals, mutexes, conditions and barriers by handle.
//!
//! Invariants: H1 and H4 of `guard.rs`.
#![allow(unsafe_code, reason = "functions that modules call")]

use crate::guard::{Place, bad_handle, coded, entry, module, place, ult as calling_ult};
use crate::shared::{self, Shared};
use crate::sync::{Barrier, Cond, Mutex, within};
use daos_errno::Der;
use module_abi::{dss_barrier, dss_cond, dss_eventual, dss_module, dss_mutex};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

/// Makes an object and writes its handle.
fn create<T>(
    function: &'static str,
    this: *const dss_module,
    out: *mut *mut T,
    object: impl FnOnce() -> Result<Shared, Der>,
) -> i32 {
    coded(function, || {
        let module = module(function, this)?;
        let here = place(function, Some(module), Place::Xstream)?;
        if out.is_null() {
            return Err(Der::INVAL);
        }
        let handle = shared::insert(here.info.dmi_xs_id, module, object()?)?;
        // SAFETY: H1.
        unsafe { out.write(handle) };
        Ok(())
    })
}

/// The object behind a handle.
macro_rules! found {
    ($function:literal, $kind:ident, $handle:expr) => {
        shared::get($handle, |object| match object {
            Shared::$kind(found) => Some(Arc::clone(found)),
            _ => None,
        })
        .map_err(bad_handle($function))
    };
}

/// Ends an object unless `$busy` holds of it.
macro_rules! freed {
    ($function:literal, $kind:ident, $handle:expr, $busy:expr) => {
        coded($function, || {
            let busy: fn(&$kind) -> bool = $busy;
            let taken = shared::take($handle, |object| match object {
                Shared::$kind(found) if busy(found) => Some(Err(Der::BUSY)),
                Shared::$kind(_) => Some(Ok(())),
                _ => None,
            });
            match taken {
                Err(Der::BUSY) => Err(Der::BUSY),
                taken => taken.map(drop).map_err(bad_handle($function)),
            }
        })
    };
}

pub(crate) unsafe extern "C" fn eventual_create(
    this: *const dss_module,
    out: *mut *mut dss_eventual,
) -> i32 {
    create("eventual_create", this, out, || {
        Ok(Shared::Eventual(Arc::default()))
    })
}

pub(crate) unsafe extern "C" fn eventual_set(eventual: *mut dss_eventual, value: i64) -> i32 {
    coded("eventual_set", || {
        found!("eventual_set", Eventual, eventual)?.set(value)
    })
}

pub(crate) unsafe extern "C" fn eventual_wait(
    eventual: *mut dss_eventual,
    timeout_ms: u64,
    out: *mut i64,
) -> i32 {
    coded("eventual_wait", || {
        let me = calling_ult("eventual_wait")?;
        let eventual = found!("eventual_wait", Eventual, eventual)?;
        let value = me.wait_or_stop(within(timeout_ms, "eventual", eventual.wait("eventual")))?;
        if !out.is_null() {
            // SAFETY: H1.
            unsafe { out.write(value) };
        }
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn eventual_test(eventual: *mut dss_eventual, out: *mut i64) -> i32 {
    entry("eventual_test", Der::MISC.neg(), || {
        let value = found!("eventual_test", Eventual, eventual).map(|found| found.value());
        match value {
            Err(der) => der.neg(),
            Ok(None) => 0,
            Ok(Some(value)) => {
                if !out.is_null() {
                    // SAFETY: H1.
                    unsafe { out.write(value) };
                }
                1
            }
        }
    })
}

pub(crate) unsafe extern "C" fn eventual_reset(eventual: *mut dss_eventual) -> i32 {
    coded("eventual_reset", || {
        found!("eventual_reset", Eventual, eventual)?.reset();
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn eventual_free(eventual: *mut dss_eventual) -> i32 {
    coded("eventual_free", || {
        let taken = shared::take(eventual, |object| {
            matches!(object, Shared::Eventual(_)).then_some(Ok(()))
        });
        if let Shared::Eventual(eventual) = taken.map_err(bad_handle("eventual_free"))? {
            eventual.close();
        }
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn mutex_create(
    this: *const dss_module,
    out: *mut *mut dss_mutex,
) -> i32 {
    create("mutex_create", this, out, || {
        Ok(Shared::Mutex(Arc::default()))
    })
}

pub(crate) unsafe extern "C" fn mutex_lock(mutex: *mut dss_mutex, timeout_ms: u64) -> i32 {
    coded("mutex_lock", || {
        let me = calling_ult("mutex_lock")?;
        let mutex = found!("mutex_lock", Mutex, mutex)?;
        me.wait_or_stop(within(timeout_ms, "mutex", mutex.lock(me.key)))
    })
}

pub(crate) unsafe extern "C" fn mutex_unlock(mutex: *mut dss_mutex) -> i32 {
    coded("mutex_unlock", || {
        let me = calling_ult("mutex_unlock")?;
        found!("mutex_unlock", Mutex, mutex)?.unlock(me.key)
    })
}

pub(crate) unsafe extern "C" fn mutex_free(mutex: *mut dss_mutex) -> i32 {
    freed!("mutex_free", Mutex, mutex, Mutex::is_held)
}

pub(crate) unsafe extern "C" fn cond_create(
    this: *const dss_module,
    out: *mut *mut dss_cond,
) -> i32 {
    create("cond_create", this, out, || {
        Ok(Shared::Cond(Arc::default()))
    })
}

pub(crate) unsafe extern "C" fn cond_wait(
    cond: *mut dss_cond,
    mutex: *mut dss_mutex,
    timeout_ms: u64,
) -> i32 {
    coded("cond_wait", || {
        let me = calling_ult("cond_wait")?;
        let cond = found!("cond_wait", Cond, cond)?;
        let mutex = found!("cond_wait", Mutex, mutex)?;
        if !mutex.holds(me.key) {
            return Err(Der::NO_PERM);
        }
        let signalled = within(timeout_ms, "condition", async {
            let mut signalled = pin!(cond.signalled());
            // In the queue first, then the lock: a signal in between is not lost.
            let mut unlocked = false;
            poll_fn(|cx| {
                let polled = signalled.as_mut().poll(cx);
                if !std::mem::replace(&mut unlocked, true) {
                    mutex.unlock(me.key)?;
                }
                match polled {
                    Poll::Ready(signalled) => Poll::Ready(signalled),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await
        });
        let signalled = me.wait_or_stop(signalled);
        me.wait(mutex.lock(me.key))?;
        signalled
    })
}

pub(crate) unsafe extern "C" fn cond_signal(cond: *mut dss_cond) -> i32 {
    coded("cond_signal", || {
        found!("cond_signal", Cond, cond)?.signal();
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn cond_broadcast(cond: *mut dss_cond) -> i32 {
    coded("cond_broadcast", || {
        found!("cond_broadcast", Cond, cond)?.broadcast();
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn cond_free(cond: *mut dss_cond) -> i32 {
    freed!("cond_free", Cond, cond, Cond::is_waited_for)
}

pub(crate) unsafe extern "C" fn barrier_create(
    this: *const dss_module,
    count: u32,
    out: *mut *mut dss_barrier,
) -> i32 {
    create("barrier_create", this, out, || match count {
        0 => Err(Der::INVAL),
        count => Ok(Shared::Barrier(Arc::new(Barrier::new(count)))),
    })
}

pub(crate) unsafe extern "C" fn barrier_wait(barrier: *mut dss_barrier) -> i32 {
    entry("barrier_wait", Der::MISC.neg(), || {
        let waited = || {
            let me = calling_ult("barrier_wait")?;
            let barrier = found!("barrier_wait", Barrier, barrier)?;
            me.wait_or_stop(barrier.wait())
        };
        waited().map_or_else(Der::neg, i32::from)
    })
}

pub(crate) unsafe extern "C" fn barrier_free(barrier: *mut dss_barrier) -> i32 {
    freed!("barrier_free", Barrier, barrier, Barrier::is_waited_for)
}
