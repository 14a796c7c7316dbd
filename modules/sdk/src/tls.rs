//! A module's key: one typed value per matching xstream.
//!
//! Invariants, besides E1 to E3 of `engine.rs`:
//! - T1: a value under a registered key's index was made by `make::<T>` of that key's own `T`, on this xstream.
//! - T2: the engine calls `destroy` on the owning xstream, outside of any call into the module, and empties no slot
//!   before. `Slot::alive` answers for the time in which `T`'s own destructor runs.
#![allow(unsafe_code, reason = "reads the engine's slots")]

use crate::engine::{self, contained};
use module_abi::{DAOS_OFF_TAG, DAOS_SERVER_TAG, DAOS_SYS_TAG, DAOS_TGT_TAG, dss_module_key};
use std::cell::Cell;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::BitOr;
use std::sync::atomic::{AtomicI32, Ordering};

/// Kinds of xstream; a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tags(pub u32);

impl Tags {
    /// The system xstream; main xstreams share this bit, as in DAOS, so a value exists there, too.
    pub const SYSTEM: Tags = Tags(DAOS_SYS_TAG);
    /// Main xstreams of targets.
    pub const TARGET: Tags = Tags(DAOS_TGT_TAG);
    /// Offload xstreams.
    pub const OFFLOAD: Tags = Tags(DAOS_OFF_TAG);
    /// Every xstream.
    pub const ALL: Tags = Tags(DAOS_SERVER_TAG);

    /// The two together, in constants.
    pub const fn and(self, other: Tags) -> Tags {
        Tags(self.0 | other.0)
    }

    /// True when they share a kind.
    pub const fn intersects(self, other: Tags) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Tags {
    type Output = Tags;
    fn bitor(self, other: Tags) -> Tags {
        self.and(other)
    }
}

/// Which xstream this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModuleInfo {
    /// The xstream's id.
    pub xs_id: u32,
    /// The target whose main (or own offload) xstream it is.
    pub target: Option<u32>,
    /// Its kind.
    pub tags: Tags,
}

/// Which xstream runs this code; `None` on any other thread, and without an engine.
pub fn module_info() -> Option<ModuleInfo> {
    // SAFETY: E1; the answer, when not NULL, lives as long as the xstream that we are on.
    let info = unsafe { (engine::try_host()?.module_info)().as_ref()? };
    Some(ModuleInfo {
        xs_id: info.dmi_xs_id.unsigned_abs(),
        target: u32::try_from(info.dmi_tgt_id).ok(),
        tags: Tags(info.dmi_tag),
    })
}

/// Targets in this engine; 0 on a thread that is no xstream.
pub fn targets() -> u32 {
    // SAFETY: as in `module_info`.
    engine::try_host()
        .and_then(|host| unsafe { (host.module_info)().as_ref() })
        .map_or(0, |info| info.dmi_tgt_nr)
}

/// A module's state on one xstream: made before the module's tasks can run there, dropped after the last of them.
pub trait PerXstream: Sized + 'static {
    /// The kinds of xstream that have a value.
    const TAGS: Tags;
    /// Makes the value of one xstream, on it. `None` fails the engine's start with `DER_NOMEM`.
    fn new(xstream: &ModuleInfo) -> Option<Self>;
}

/// A module's key; one static of each module, named in [`module!`](crate::module) as `tls`.
///
/// ```
/// use module_sdk::{ModuleInfo, PerXstream, Tags, TlsKey};
/// use std::cell::Cell;
/// struct Calls(Cell<u64>);
/// impl PerXstream for Calls {
///     const TAGS: Tags = Tags::SYSTEM;
///     fn new(_: &ModuleInfo) -> Option<Self> {
///         Some(Calls(Cell::new(0)))
///     }
/// }
/// static CALLS: TlsKey<Calls> = TlsKey::new();
/// assert_eq!(CALLS.try_with(|calls| calls.0.get()), None); // no engine here
/// ```
pub struct TlsKey<T> {
    key: dss_module_key,
    _value: PhantomData<fn() -> T>,
}

struct Slot<T> {
    alive: Cell<bool>,
    value: T,
}

impl<T: PerXstream> TlsKey<T> {
    /// A key that no engine has registered yet.
    #[allow(clippy::new_without_default, reason = "a key is a static")]
    pub const fn new() -> Self {
        Self {
            key: dss_module_key {
                dmk_tags: T::TAGS.0,
                dmk_index: AtomicI32::new(-1),
                dmk_init: Some(make::<T>),
                dmk_fini: Some(destroy::<T>),
            },
            _value: PhantomData,
        }
    }

    /// For the descriptor.
    #[doc(hidden)]
    pub const fn descriptor(&'static self) -> *const dss_module_key {
        &raw const self.key
    }

    /// Uses this xstream's value: one indexed load.
    ///
    /// # Panics
    /// Where the key has no value: on an xstream without one of its tags, on any other thread, without an engine.
    #[track_caller]
    pub fn with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        match self.slot() {
            Some(slot) => f(&slot.value),
            None => panic!(
                "TlsKey: no value on this thread; the key's tags are {:#x}",
                self.key.dmk_tags
            ),
        }
    }

    /// Uses this xstream's value where there is one.
    pub fn try_with<R>(&self, f: impl FnOnce(&T) -> R) -> Option<R> {
        self.slot().map(|slot| f(&slot.value))
    }

    #[inline]
    fn slot(&self) -> Option<&Slot<T>> {
        let index = usize::try_from(self.key.dmk_index.load(Ordering::Relaxed)).ok()?;
        // SAFETY: E1; the storage lives as long as this xstream.
        let storage = unsafe { (engine::try_host()?.tls_get)().as_ref()? };
        // SAFETY: T1, T2; shared, for nothing gives out `&mut`. The borrow ends with the caller's closure.
        let slot = unsafe { storage.dtls_values.get(index)?.cast::<Slot<T>>().as_ref()? };
        slot.alive.get().then_some(slot)
    }
}

unsafe extern "C" fn make<T: PerXstream>(tags: u32, xs_id: i32, tgt_id: i32) -> *mut c_void {
    let info = ModuleInfo {
        xs_id: xs_id.unsigned_abs(),
        target: u32::try_from(tgt_id).ok(),
        tags: Tags(tags),
    };
    contained(
        "the TLS constructor",
        std::ptr::null_mut(),
        || match T::new(&info) {
            Some(value) => Box::into_raw(Box::new(Slot {
                alive: Cell::new(true),
                value,
            }))
            .cast(),
            None => std::ptr::null_mut(),
        },
    )
}

unsafe extern "C" fn destroy<T: PerXstream>(_tags: u32, value: *mut c_void) {
    if value.is_null() {
        return;
    }
    // SAFETY: T1, T2: made by `make::<T>`, and nobody borrows it now.
    let slot = unsafe { Box::from_raw(value.cast::<Slot<T>>()) };
    contained("the TLS destructor", (), || {
        slot.alive.set(false);
        let _value = slot; // T's destructor may look for its own value: it finds none
    });
}
