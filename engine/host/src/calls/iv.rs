//! Incast variables: classes, operations, and what this xstream may serve.
//!
//! Invariants: H1, H3 and H4 of `guard.rs`. An operation runs as a task of the xstream that asks, so hooks never run on a module's stack.
#![allow(unsafe_code, reason = "functions that modules call")]

use super::rpc::bytes;
use super::undelivered::{is_offering, offering};
use crate::guard::{Place, coded, entry, module, place, serving, ult as calling_ult};
use crate::hooks::{self, Hooks, raw_value, raw_version};
use crate::modules::{ModuleEntry, ModuleState};
use crate::names::{c_text, task_name};
use daos_errno::Der;
use engine_iv_service::{
    Change, Failure, How, Incast, Key, NsId, Scope, Shortcut, Sync, Value, Version,
};
use engine_xstream::Xstream;
use module_abi::{
    DSS_IV_FETCH, DSS_IV_GROUP, DSS_IV_INVALIDATE, DSS_IV_NOBODY, DSS_IV_NS_CREATE,
    DSS_IV_NS_DESTROY, DSS_IV_SHORTCUT_NONE, DSS_IV_SHORTCUT_TO_ROOT, DSS_IV_SYNC_BIDIRECTIONAL,
    DSS_IV_SYNC_EAGER, DSS_IV_SYNC_LAZY, DSS_IV_SYNC_NONE, DSS_IV_UPDATE, DSS_IV_VALUE_MAX,
    dss_iv_class, dss_iv_done_t, dss_iv_key, dss_iv_op, dss_iv_result, dss_iv_value,
    dss_iv_version, dss_module,
};
use std::ffi::c_void;
use std::rc::Rc;
use std::time::Duration;

/// Ids that DAOS's classes may have, and ids that are free: between them stand the engine's own.
const DAOS_IDS: std::ops::Range<u32> = 1..64;
const FREE_IDS: u32 = 256;
const NAME_MAX: usize = 64;

pub(crate) unsafe extern "C" fn class_register(
    this: *const dss_module,
    class: *const dss_iv_class,
) -> i32 {
    coded("iv_class_register", || {
        let module = module("iv_class_register", this)?;
        if module.state() != ModuleState::Loaded {
            let (module, state) = (module.name.as_str(), module.state().text());
            let function = "iv_class_register";
            tracing::error!(module, function, state, "allowed in sm_init only");
            return Err(Der::OP_NOT_PERMITTED);
        }
        // SAFETY: H1.
        let class = *unsafe { class.as_ref() }.ok_or(Der::INVAL)?;
        // SAFETY: H1.
        let name = unsafe { c_text(class.name) }
            .to_str()
            .map_err(|_| Der::INVAL)?;
        let letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
        let fits = class.size as usize == size_of::<dss_iv_class>()
            && (DAOS_IDS.contains(&class.id) || class.id >= FREE_IDS)
            && (1..=NAME_MAX).contains(&name.len())
            && name.bytes().all(letter)
            && class.max_value <= DSS_IV_VALUE_MAX.into();
        if !fits {
            let (module, class) = (module.name.as_str(), class.id);
            tracing::error!(
                module,
                class,
                "iv_class_register: size, id, name or max_value is none"
            );
            return Err(Der::INVAL);
        }
        let hooks = Box::new(Hooks::new(module, class));
        module.lent.incast.register(class.id, name, hooks)?;
        module.done().classes.push(class.id);
        Ok(())
    })
}

/// What a module asks for, checked and copied.
enum Op {
    Fetch(NsId, Key, Duration),
    Change(NsId, Key, Change, How, Duration),
    Create(NsId, Scope),
    Destroy(NsId),
}

/// What an operation gives.
#[derive(Default)]
struct Ended {
    version: Version,
    fetched: Option<Rc<[u8]>>,
    made: Option<Value>,
}

impl Ended {
    fn value(&self) -> Option<&[u8]> {
        self.fetched.as_deref().or(self.made.as_deref())
    }
}

impl Op {
    /// # Safety
    /// `raw` is NULL or the caller's, and so is its value (H1).
    unsafe fn read(raw: *const dss_iv_op) -> Result<Op, Der> {
        // SAFETY: the caller's promise.
        let raw = unsafe { raw.as_ref() }.ok_or(Der::INVAL)?;
        let ns = NsId::from_le_bytes(raw.ns);
        let how = How {
            sync: match raw.sync {
                DSS_IV_SYNC_NONE => Sync::None,
                DSS_IV_SYNC_EAGER => Sync::Eager,
                DSS_IV_SYNC_LAZY => Sync::Lazy,
                DSS_IV_SYNC_BIDIRECTIONAL => Sync::Bidirectional,
                _ => return Err(Der::INVAL),
            },
            shortcut: match raw.shortcut {
                DSS_IV_SHORTCUT_NONE => Shortcut::None,
                DSS_IV_SHORTCUT_TO_ROOT => Shortcut::ToRoot,
                _ => return Err(Der::INVAL),
            },
        };
        let budget = Duration::from_millis(raw.timeout_ms);
        let change = matches!(raw.opcode, DSS_IV_UPDATE | DSS_IV_INVALIDATE);
        let timed = change || raw.opcode == DSS_IV_FETCH;
        let flags = if raw.opcode == DSS_IV_NS_CREATE {
            DSS_IV_GROUP
        } else {
            0
        };
        if raw.flags & !flags != 0
            || !change && (how.sync, how.shortcut) != (Sync::None, Shortcut::None)
            || timed && budget.is_zero()
        {
            return Err(Der::INVAL);
        }
        let key = || hooks::key(&raw.key).map_err(|_| Der::INVAL);
        Ok(match raw.opcode {
            DSS_IV_FETCH => Op::Fetch(ns, key()?, budget),
            DSS_IV_UPDATE if raw.value.data.is_null() => return Err(Der::INVAL),
            DSS_IV_UPDATE if raw.value.len > DSS_IV_VALUE_MAX.into() => return Err(Der::OVERFLOW),
            DSS_IV_UPDATE => {
                // SAFETY: the caller's promise.
                let value = unsafe { bytes(raw.value.data, raw.value.len) };
                Op::Change(ns, key()?, Change::Set(value.into()), how, budget)
            }
            DSS_IV_INVALIDATE => Op::Change(ns, key()?, Change::Invalidate, how, budget),
            DSS_IV_NS_CREATE if raw.flags == DSS_IV_GROUP => Op::Create(ns, Scope::Group),
            DSS_IV_NS_CREATE => Op::Create(ns, Scope::Engine),
            DSS_IV_NS_DESTROY => Op::Destroy(ns),
            _ => return Err(Der::INVAL),
        })
    }

    async fn run(self, incast: &Incast, module: &ModuleEntry) -> Result<Ended, Failure> {
        match self {
            Op::Fetch(ns, key, budget) => {
                let (version, value) = incast.fetch(ns, key, budget).await?;
                Ok(Ended {
                    version,
                    fetched: Some(value),
                    made: None,
                })
            }
            Op::Change(ns, key, change, how, budget) => {
                let stamp = match change {
                    Change::Set(value) => incast.update(ns, key, value, how, budget).await?,
                    Change::Invalidate => incast.invalidate(ns, key, how, budget).await?,
                };
                Ok(Ended {
                    version: stamp.version,
                    fetched: None,
                    made: stamp.value,
                })
            }
            Op::Create(ns, scope) => {
                incast.connect(ns, scope).await?;
                *module.namespaces().entry(ns).or_default() += 1;
                Ok(Ended::default())
            }
            Op::Destroy(ns) => {
                if !module.release(ns) {
                    return Err(Der::NONEXIST.into());
                }
                incast.disconnect(ns).await?;
                Ok(Ended::default())
            }
        }
    }
}

/// Ends what a module forgot, named.
pub(crate) async fn end_namespaces(module: &'static ModuleEntry) {
    let left = std::mem::take(&mut *module.namespaces());
    for (ns, users) in left {
        tracing::warn!(
            module = module.name,
            ns = format_args!("{:032x}", ns.swap_bytes()),
            "a namespace left behind by the module; ended by the engine"
        );
        for _ in 0..users {
            // Gone with the service at the latest.
            let _ = module.lent.incast.disconnect(ns).await;
        }
    }
}

fn result(ended: &Result<Ended, Failure>) -> dss_iv_result {
    let mut result = dss_iv_result {
        rc: 0,
        attempts: 0,
        asked: DSS_IV_NOBODY,
        expired: 0,
        version: dss_iv_version::default(),
        value: dss_iv_value::NONE,
    };
    match ended {
        Ok(ended) => {
            result.version = raw_version(ended.version);
            result.value = raw_value(ended.value());
        }
        Err(failure) => {
            result.rc = failure.der.neg();
            result.attempts = failure.attempts;
            result.asked = failure.asked.unwrap_or(DSS_IV_NOBODY);
            result.expired = failure.expired.into();
        }
    }
    result
}

/// The checks of both ways to begin an operation.
fn admitted(
    function: &'static str,
    this: *const dss_module,
) -> Result<(&'static ModuleEntry, Xstream), Der> {
    let module = module(function, this)?;
    place(function, Some(module), Place::Xstream)?;
    serving(function, module)?;
    if hooks::inside() {
        let module = module.name.as_str();
        tracing::error!(module, function, "called from a hook of a class");
        return Err(Der::OP_NOT_PERMITTED);
    }
    let xstream = engine_xstream::current().ok_or(Der::OP_NOT_PERMITTED)?;
    Ok((module, xstream))
}

pub(crate) unsafe extern "C" fn call(
    this: *const dss_module,
    op: *const dss_iv_op,
    done: dss_iv_done_t,
    arg: *mut c_void,
) -> i32 {
    coded("iv_call", || {
        let (module, xstream) = admitted("iv_call", this)?;
        // SAFETY: H1.
        let op = unsafe { Op::read(op) }?;
        let owed = Owed { done, arg };
        let task = async move {
            let ended = op.run(&module.lent.incast, module).await;
            owed.pay(&ended);
        };
        let spawned = offering(|| xstream.spawn(task_name(module, c"iv"), task));
        spawned
            .map(|handle| handle.detach())
            .map_err(|error| error.der())
    })
}

pub(crate) unsafe extern "C" fn call_wait(
    this: *const dss_module,
    op: *const dss_iv_op,
    buf: *mut c_void,
    capacity: u64,
    out: *mut dss_iv_result,
) -> i32 {
    coded("iv_call_wait", || {
        let me = calling_ult("iv_call_wait")?;
        let (module, xstream) = admitted("iv_call_wait", this)?;
        // SAFETY: H1.
        let op = unsafe { Op::read(op) }?;
        let task = async move { op.run(&module.lent.incast, module).await };
        let spawned = xstream.spawn(task_name(module, c"iv"), task);
        let spawned = spawned.map_err(|error| error.der())?;
        let ended = me.wait(spawned).unwrap_or(Err(Der::CANCELED.into()));
        let mut result = result(&ended);
        // SAFETY: H1: the caller's buffer of so many bytes, or NULL.
        result.value = unsafe { copied(result.value, buf, capacity) };
        // SAFETY: H1.
        if let Some(out) = unsafe { out.as_mut() } {
            *out = result;
        }
        Der::check(result.rc)
    })
}

/// A value in the caller's buffer, or just its length if it does not fit.
///
/// # Safety
/// `buf` is NULL or has `capacity` bytes.
unsafe fn copied(value: dss_iv_value, buf: *mut c_void, capacity: u64) -> dss_iv_value {
    if value.data.is_null() || buf.is_null() || value.len > capacity {
        return dss_iv_value {
            data: std::ptr::null(),
            len: value.len,
        };
    }
    // SAFETY: the value is ours, the buffer the caller's; it fits.
    unsafe { std::ptr::copy_nonoverlapping(value.data, buf.cast(), value.len as usize) };
    dss_iv_value {
        data: buf.cast(),
        len: value.len,
    }
}

pub(crate) unsafe extern "C" fn cached(
    ns: *const u8,
    key: *const dss_iv_key,
    version: *mut dss_iv_version,
    buf: *mut c_void,
    capacity: u64,
) -> i64 {
    let wrong = |der: Der| i64::from(der.neg());
    entry("iv_cached", wrong(Der::MISC), || {
        let Ok(here) = place("iv_cached", None, Place::Xstream) else {
            return wrong(Der::OP_NOT_PERMITTED);
        };
        // SAFETY: H1.
        let (ns, raw) = unsafe { (ns.cast::<[u8; 16]>().as_ref(), key.as_ref()) };
        let (Some(ns), Some(raw)) = (ns, raw) else {
            return wrong(Der::INVAL);
        };
        let Ok(key) = hooks::key(raw) else {
            return wrong(Der::INVAL);
        };
        if hooks::inside() {
            return wrong(Der::NONEXIST);
        }
        let Some((stamp, value)) = here.lent.incast.cached(NsId::from_le_bytes(*ns), &key) else {
            return wrong(Der::NONEXIST);
        };
        // SAFETY: H1.
        unsafe {
            if let Some(version) = version.as_mut() {
                *version = raw_version(stamp);
            }
            copied(raw_value(Some(&value)), buf, capacity);
        }
        value.len() as i64
    })
}

pub(crate) unsafe extern "C" fn system_ns(this: *const dss_module, ns: *mut u8) -> i32 {
    coded("iv_system_ns", || {
        let module = module("iv_system_ns", this)?;
        // SAFETY: H1: 16 bytes.
        let out = unsafe { ns.cast::<[u8; 16]>().as_mut() }.ok_or(Der::INVAL)?;
        *out = module.lent.system_ns;
        Ok(())
    })
}

/// A call-back that is called exactly once, also when the task that owes it is dropped.
struct Owed {
    done: dss_iv_done_t,
    arg: *mut c_void,
}

impl Owed {
    fn pay(self, ended: &Result<Ended, Failure>) {
        std::mem::ManuallyDrop::new(self).tell(ended);
    }

    fn tell(&self, ended: &Result<Ended, Failure>) {
        let result = result(ended);
        if let Some(done) = self.done {
            // SAFETY: H3; the result is lent for the call.
            unsafe { done(self.arg, &raw const result) }
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if !is_offering() {
            self.tell(&Err(Der::CANCELED.into()));
        }
    }
}
