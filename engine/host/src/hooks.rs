//! A module's class of incast variables, as the machine calls it.
//!
//! Invariants: H1, H2 and H3 of `guard.rs`. Hooks run on the system xstream, one at a time, and none is begun from another:
//! what is given to one is borrowed for the call, and what one answers is copied before the next.
#![allow(
    unsafe_code,
    reason = "calls a module's hooks; they travel to the system xstream"
)]

use crate::modules::{ModuleEntry, ModuleState};
use daos_errno::Der;
use engine_iv_service::{Change, Class, Key, Place, RequestId, Value, Version};
use module_abi::{
    DSS_IV_INLINE_MAX, DSS_IV_KEY_MAX, dss_iv_class, dss_iv_key, dss_iv_place, dss_iv_request,
    dss_iv_value, dss_iv_version,
};
use std::cell::Cell;

/// What a lease is unless a class says otherwise, ms.
const LEASE_MS: u32 = 30_000;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether a hook runs: it must neither wait nor begin operations.
pub(crate) fn inside() -> bool {
    INSIDE.get()
}

fn hook<R>(f: impl FnOnce() -> R) -> R {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            INSIDE.set(false);
        }
    }
    INSIDE.set(true);
    let _reset = Reset;
    f()
}

/// A registered class.
pub(crate) struct Hooks {
    module: &'static ModuleEntry,
    class: dss_iv_class,
}

// SAFETY: H3: `arg` goes to the system xstream with its hooks and is touched there only.
unsafe impl Send for Hooks {}

impl Hooks {
    pub(crate) fn new(module: &'static ModuleEntry, class: dss_iv_class) -> Hooks {
        Hooks { module, class }
    }

    /// Whether the module can answer: values are its own between setup and the end of cleanup.
    fn ready(&self) -> Result<(), Der> {
        match self.module.state() {
            state if state.serves() => Ok(()),
            ModuleState::Cleaned | ModuleState::Finished => Err(Der::UNREACH),
            _ => Err(Der::BUSY),
        }
    }

    /// What a hook answers in place of a value, copied.
    fn taken(&self, out: dss_iv_value) -> Result<Option<Value>, Der> {
        if out.data.is_null() {
            return Ok(None);
        }
        let len = usize::try_from(out.len).map_err(|_| Der::OVERFLOW)?;
        if len > self.max_value() {
            return Err(Der::OVERFLOW);
        }
        // SAFETY: H1: `len` bytes of the module's, which live until its next hook.
        Ok(Some(
            unsafe { std::slice::from_raw_parts(out.data, len) }.into(),
        ))
    }
}

pub(crate) fn raw_key(key: &Key) -> dss_iv_key {
    let mut raw = dss_iv_key {
        class_id: key.class(),
        len: key.bytes().len() as u32,
        bytes: [0; DSS_IV_KEY_MAX as usize],
    };
    raw.bytes[..key.bytes().len()].copy_from_slice(key.bytes());
    raw
}

/// # Errors
/// `OVERFLOW`: it is too long.
pub(crate) fn key(raw: &dss_iv_key) -> Result<Key, Der> {
    let bytes = raw.bytes.get(..raw.len as usize).ok_or(Der::OVERFLOW)?;
    Key::new(raw.class_id, bytes)
}

pub(crate) fn raw_version(version: Version) -> dss_iv_version {
    dss_iv_version {
        term: version.term,
        sequence: version.sequence,
    }
}

fn raw_place(at: &Place) -> dss_iv_place {
    dss_iv_place {
        ns: at.ns.to_le_bytes(),
        term: at.term,
        root: at.root.into(),
        reserved: 0,
    }
}

pub(crate) fn raw_value(bytes: Option<&[u8]>) -> dss_iv_value {
    bytes.map_or(dss_iv_value::NONE, |bytes| dss_iv_value {
        data: bytes.as_ptr(),
        len: bytes.len() as u64,
    })
}

fn raw_change(change: &Change) -> dss_iv_value {
    raw_value(match change {
        Change::Set(value) => Some(value),
        Change::Invalidate => None,
    })
}

impl Class for Hooks {
    fn canonical(&self, own: &Key) -> Key {
        let Some(f) = self.class.ivc_key_canonical else {
            return *own;
        };
        let raw = raw_key(own);
        let mut out = raw;
        // SAFETY: H2, H3; both are ours for the call.
        let rc = hook(|| unsafe { f(self.class.arg, &raw const raw, &raw mut out) });
        // One of another class would be another class's variable.
        let found = key(&out).ok().filter(|key| key.class() == own.class());
        found.filter(|_| rc == 0).unwrap_or(*own)
    }

    fn max_value(&self) -> usize {
        match self.class.max_value {
            0 => DSS_IV_INLINE_MAX as usize,
            most => most as usize,
        }
    }

    fn lease(&self) -> u64 {
        let ms = match self.class.lease_ms {
            0 => LEASE_MS,
            ms => ms,
        };
        u64::from(ms) * 1_000_000
    }

    fn init(&mut self, key: &Key) {
        if let Some(f) = self.class.ivc_ent_init {
            let key = raw_key(key);
            // SAFETY: H2, H3.
            hook(|| unsafe { f(self.class.arg, &raw const key) });
        }
    }

    fn forget(&mut self, key: &Key) {
        if let Some(f) = self.class.ivc_ent_put {
            let key = raw_key(key);
            // SAFETY: H2, H3.
            hook(|| unsafe { f(self.class.arg, &raw const key) });
        }
    }

    fn fetch(&mut self, at: &Place, key: &Key, kept: Option<&Value>) -> Result<Value, Der> {
        self.ready()?;
        let Some(f) = self.class.ivc_ent_fetch else {
            return kept.cloned().ok_or(Der::NONEXIST);
        };
        let (at, key, kept) = (raw_place(at), raw_key(key), raw_value(kept.map(|v| &**v)));
        let mut out = dss_iv_value::NONE;
        let (arg, kept) = (self.class.arg, &raw const kept);
        // SAFETY: H2, H3; all are ours for the call.
        let rc = hook(|| unsafe { f(arg, &raw const at, &raw const key, kept, &raw mut out) });
        Der::check(rc)?;
        self.taken(out)?.ok_or(Der::NONEXIST)
    }

    fn update(
        &mut self,
        at: &Place,
        key: &Key,
        change: Change,
        request: RequestId,
    ) -> Result<Change, Der> {
        self.ready()?;
        let Some(f) = self.class.ivc_ent_update else {
            return Ok(change);
        };
        let (at, key, value) = (raw_place(at), raw_key(key), raw_change(&change));
        let request = dss_iv_request {
            rank: request.rank,
            reserved: 0,
            incarnation: request.incarnation,
            number: request.number,
        };
        let mut out = value;
        let arg = self.class.arg;
        // SAFETY: H2, H3; all are ours for the call.
        let rc = hook(|| unsafe {
            let (at, key, request) = (&raw const at, &raw const key, &raw const request);
            f(arg, at, key, request, &raw const value, &raw mut out)
        });
        Der::check(rc)?;
        if (out.data, out.len) == (value.data, value.len) {
            return Ok(change);
        }
        Ok(self.taken(out)?.map_or(Change::Invalidate, Change::Set))
    }

    fn refresh(
        &mut self,
        at: &Place,
        key: &Key,
        change: &Change,
        version: Version,
    ) -> Result<(), Der> {
        self.ready()?;
        let Some(f) = self.class.ivc_ent_refresh else {
            return Ok(());
        };
        let (at, key, value) = (raw_place(at), raw_key(key), raw_change(change));
        let (version, arg) = (raw_version(version), self.class.arg);
        // SAFETY: H2, H3; all are ours for the call.
        Der::check(hook(|| unsafe {
            let (at, key) = (&raw const at, &raw const key);
            f(arg, at, key, &raw const version, &raw const value)
        }))
    }

    fn valid(&self, key: &Key, version: Version) -> bool {
        self.class.ivc_ent_valid.is_none_or(|f| {
            let (key, version) = (raw_key(key), raw_version(version));
            // SAFETY: H2, H3.
            hook(|| unsafe { f(self.class.arg, &raw const key, &raw const version) }) == 1
        })
    }

    fn pre_sync(&mut self, at: &Place, key: &Key, change: &Change) {
        if let Some(f) = self.class.ivc_pre_sync {
            let (at, key, value) = (raw_place(at), raw_key(key), raw_change(change));
            let arg = self.class.arg;
            // SAFETY: H2, H3; all are ours for the call.
            hook(|| unsafe { f(arg, &raw const at, &raw const key, &raw const value) });
        }
    }
}
