//! A module's own class of incast variables.
//!
//! Invariants, besides E1 and E2 of `engine.rs`:
//! - C1: `arg` of a class is a leaked `Held<C>`: registered once in a process, used on the system xstream, by one hook at a time; hooks do not
//!   begin one another.
//! - C2: what a hook is given lives until it returns, and may be NULL only where the header says so; `out` is the engine's.
#![allow(unsafe_code, reason = "called by the engine")]

use super::{IvKey, IvVersion, NsId};
use crate::engine::{self, contained};
use crate::rpc::bytes;
use daos_errno::Der;
use module_abi::{
    dss_iv_class, dss_iv_key, dss_iv_place, dss_iv_request, dss_iv_value, dss_iv_version,
};
use prost::Message;
use std::ffi::{CString, c_void};
use std::time::Duration;

/// Where a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IvPlace {
    /// The namespace.
    pub ns: NsId,
    /// Term of the leader, as this rank knows it.
    pub term: u64,
    /// Whether this rank is the root.
    pub root: bool,
}

/// Names a change over all its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IvRequest {
    /// Whose it is.
    pub rank: u32,
    /// Which life of that rank.
    pub incarnation: u64,
    /// Counts there.
    pub number: u64,
}

/// A new state of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IvChange<T> {
    /// This value.
    Set(T),
    /// None that may be served: whoever wants one asks the root.
    Invalidate,
}

/// The hooks of a class; their defaults suit a plain value that lives in the caches alone. They run on the system xstream as plain functions, one
/// at a time, and return at once: one that would have to wait answers `DER_BUSY`, and the operation comes again until its deadline. They cannot begin operations.
/// A panic refuses what the hook was asked (`DER_MISC`). Fetch, update and refresh are called from setup to cleanup only.
pub trait IvClass: Send + 'static {
    /// A protobuf message; numbers, strings and byte vectors are, too.
    type Value: Message + Default;
    /// The same in every engine: from 256 on, or one of DAOS's.
    const ID: u32;
    /// Shown by `keel iv`, in metrics and the log: `[a-z0-9_]+`.
    const NAME: &'static str;
    /// Most bytes of an encoded value, up to 4 MiB; those over 19,456 bytes travel as bulk data.
    const MAX_VALUE: u32 = module_abi::DSS_IV_INLINE_MAX;
    /// How long a rank may serve a value after the root vouched for it.
    const LEASE: Duration = Duration::from_secs(30);

    /// The key that stands for all keys equal to this one.
    fn canonical(&self, key: &IvKey) -> IvKey {
        *key
    }

    /// This rank is about to keep something for the key.
    fn init(&mut self, _key: &IvKey) {}

    /// It keeps nothing for it any more.
    fn forget(&mut self, _key: &IvKey) {}

    /// At the root, which has no valid value: gives one. `kept` is what this rank had, perhaps as a mere member of an earlier tree.
    ///
    /// # Errors
    /// Goes to whoever asked: `DER_NONEXIST` for a variable that nobody has set.
    fn fetch(
        &mut self,
        _at: &IvPlace,
        _key: &IvKey,
        kept: Option<Self::Value>,
    ) -> Result<Self::Value, Der> {
        kept.ok_or(Der::NONEXIST)
    }

    /// A change on its way up, at each rank that it passes, and at the root, where it takes effect. The answer is what goes on.
    ///
    /// # Errors
    /// Refuses the change.
    fn update(
        &mut self,
        _at: &IvPlace,
        _key: &IvKey,
        change: IvChange<Self::Value>,
        _request: IvRequest,
    ) -> Result<IvChange<Self::Value>, Der> {
        Ok(change)
    }

    /// This rank learns of a newer version: back from a fetch, or down from a change.
    ///
    /// # Errors
    /// The rank does not take it; an eager update fails with this code.
    fn refresh(
        &mut self,
        _at: &IvPlace,
        _key: &IvKey,
        _change: &IvChange<Self::Value>,
        _version: IvVersion,
    ) -> Result<(), Der> {
        Ok(())
    }

    /// Whether what this rank has may be served, beyond what leases say.
    fn valid(&self, _key: &IvKey, _version: IvVersion) -> bool {
        true
    }

    /// Before a change goes on to this rank's children.
    fn pre_sync(&mut self, _at: &IvPlace, _key: &IvKey, _change: &IvChange<Self::Value>) {}
}

/// Registers a class, in the module's `init`.
///
/// # Errors
/// `DER_EXIST`: the id is taken. `DER_INVAL`: its id, name or bound is none. `DER_OP_NOT_PERMITTED` later than `init`.
pub fn register_class<C: IvClass>(class: C) -> Result<(), Der> {
    let name = CString::new(C::NAME).map_err(|_| Der::INVAL)?;
    let held = Box::into_raw(Box::new(Held {
        class,
        out: Vec::new(),
    }));
    let raw = dss_iv_class {
        size: size_of::<dss_iv_class>() as u32,
        id: C::ID,
        name: name.as_ptr(),
        max_value: C::MAX_VALUE.into(),
        lease_ms: u32::try_from(C::LEASE.as_millis()).unwrap_or(u32::MAX),
        reserved: 0,
        arg: held.cast(),
        ivc_key_canonical: Some(canonical::<C>),
        ivc_ent_init: Some(init::<C>),
        ivc_ent_put: Some(put::<C>),
        ivc_ent_fetch: Some(fetch::<C>),
        ivc_ent_update: Some(update::<C>),
        ivc_ent_refresh: Some(refresh::<C>),
        ivc_ent_valid: Some(valid::<C>),
        ivc_pre_sync: Some(pre_sync::<C>),
    };
    // SAFETY: E1, E2; the name is lent for the call, which copies it.
    let rc = unsafe { (engine::host().iv_class_register)(engine::module(), &raw const raw) };
    Der::check(rc).inspect_err(|_| {
        // SAFETY: C1: refused, so nobody has it.
        drop(unsafe { Box::from_raw(held) });
    })
}

struct Held<C> {
    class: C,
    /// What the last hook answered, until the engine has copied it.
    out: Vec<u8>,
}

/// # Safety
/// `arg` is a class's (C1).
unsafe fn held<'a, C>(arg: *mut c_void) -> &'a mut Held<C> {
    // SAFETY: C1.
    unsafe { &mut *arg.cast::<Held<C>>() }
}

/// # Safety
/// `raw` lives until the hook returns (C2).
unsafe fn place(raw: *const dss_iv_place) -> IvPlace {
    // SAFETY: C2.
    let raw = unsafe { &*raw };
    IvPlace {
        ns: raw.ns,
        term: raw.term,
        root: raw.root != 0,
    }
}

/// # Safety
/// As [`place`].
unsafe fn named(raw: *const dss_iv_key) -> IvKey {
    // SAFETY: C2.
    IvKey::from_raw(unsafe { &*raw })
}

/// # Safety
/// As [`place`], with its bytes.
unsafe fn read<T: Message + Default>(raw: *const dss_iv_value) -> Result<Option<T>, Der> {
    // SAFETY: C2.
    let raw = unsafe { &*raw };
    if raw.data.is_null() {
        return Ok(None);
    }
    // SAFETY: C2.
    let bytes = unsafe { bytes(raw.data, raw.len) };
    T::decode(bytes).map(Some).map_err(|_| Der::PROTO)
}

/// # Safety
/// As [`read`].
unsafe fn change<T: Message + Default>(raw: *const dss_iv_value) -> Result<IvChange<T>, Der> {
    // SAFETY: the caller's promise.
    let value = unsafe { read(raw) }?;
    Ok(value.map_or(IvChange::Invalidate, IvChange::Set))
}

fn code(what: &str, f: impl FnOnce() -> Result<(), Der>) -> i32 {
    contained(what, Der::MISC.neg(), || Der::rc(f()))
}

/// Keeps an answer until it is copied.
fn give(out: &mut Vec<u8>, value: Vec<u8>) -> dss_iv_value {
    *out = value;
    dss_iv_value {
        // Of an empty vector, too, it is not NULL.
        data: out.as_ptr(),
        len: out.len() as u64,
    }
}

unsafe extern "C" fn canonical<C: IvClass>(
    arg: *mut c_void,
    key: *const dss_iv_key,
    out: *mut dss_iv_key,
) -> i32 {
    code("a key's canonical form", || {
        // SAFETY: C1, C2.
        let found = unsafe { held::<C>(arg).class.canonical(&named(key)) };
        // SAFETY: C2.
        unsafe { out.write(found.raw()) };
        Ok(())
    })
}

unsafe extern "C" fn init<C: IvClass>(arg: *mut c_void, key: *const dss_iv_key) {
    contained("a class's init", (), || {
        // SAFETY: C1, C2.
        unsafe { held::<C>(arg).class.init(&named(key)) }
    });
}

unsafe extern "C" fn put<C: IvClass>(arg: *mut c_void, key: *const dss_iv_key) {
    contained("a class's forget", (), || {
        // SAFETY: C1, C2.
        unsafe { held::<C>(arg).class.forget(&named(key)) }
    });
}

unsafe extern "C" fn fetch<C: IvClass>(
    arg: *mut c_void,
    at: *const dss_iv_place,
    key: *const dss_iv_key,
    kept: *const dss_iv_value,
    out: *mut dss_iv_value,
) -> i32 {
    code("a class's fetch", || {
        // SAFETY: C1, C2. What was kept and is no value of ours any more is none.
        let (held, at, key, kept) = unsafe {
            (
                held::<C>(arg),
                place(at),
                named(key),
                read(kept).unwrap_or(None),
            )
        };
        let value = held.class.fetch(&at, &key, kept)?;
        let value = give(&mut held.out, value.encode_to_vec());
        // SAFETY: C2.
        unsafe { out.write(value) };
        Ok(())
    })
}

unsafe extern "C" fn update<C: IvClass>(
    arg: *mut c_void,
    at: *const dss_iv_place,
    key: *const dss_iv_key,
    request: *const dss_iv_request,
    value: *const dss_iv_value,
    out: *mut dss_iv_value,
) -> i32 {
    code("a class's update", || {
        // SAFETY: C1, C2.
        let (held, at, key, raw) = unsafe { (held::<C>(arg), place(at), named(key), &*request) };
        let request = IvRequest {
            rank: raw.rank,
            incarnation: raw.incarnation,
            number: raw.number,
        };
        // SAFETY: C2.
        let wanted = unsafe { change(value) }?;
        let value = match held.class.update(&at, &key, wanted, request)? {
            IvChange::Set(value) => give(&mut held.out, value.encode_to_vec()),
            IvChange::Invalidate => dss_iv_value::NONE,
        };
        // SAFETY: C2.
        unsafe { out.write(value) };
        Ok(())
    })
}

unsafe extern "C" fn refresh<C: IvClass>(
    arg: *mut c_void,
    at: *const dss_iv_place,
    key: *const dss_iv_key,
    version: *const dss_iv_version,
    value: *const dss_iv_value,
) -> i32 {
    code("a class's refresh", || {
        // SAFETY: C1, C2.
        let (held, at, key, version) = unsafe { (held::<C>(arg), place(at), named(key), *version) };
        // SAFETY: C2.
        let news = unsafe { change(value) }?;
        held.class.refresh(&at, &key, &news, version.into())
    })
}

unsafe extern "C" fn valid<C: IvClass>(
    arg: *mut c_void,
    key: *const dss_iv_key,
    version: *const dss_iv_version,
) -> i32 {
    contained("a class's look at a value", 0, || {
        // SAFETY: C1, C2.
        let valid = unsafe { held::<C>(arg).class.valid(&named(key), (*version).into()) };
        valid.into()
    })
}

unsafe extern "C" fn pre_sync<C: IvClass>(
    arg: *mut c_void,
    at: *const dss_iv_place,
    key: *const dss_iv_key,
    value: *const dss_iv_value,
) {
    contained("a class's pre-sync", (), || {
        // SAFETY: C1, C2.
        let (held, at, key, news) =
            unsafe { (held::<C>(arg), place(at), named(key), change(value)) };
        if let Ok(news) = news {
            held.class.pre_sync(&at, &key, &news);
        }
    });
}
