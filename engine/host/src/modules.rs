//! What the host knows of each module, and the table that finds it by its descriptor's address.
//!
//! Entries are never freed: libraries are never unloaded, and handles refer to their module.
#![allow(unsafe_code, reason = "entries are shared through atomic pointers")]

use crate::host::Lent;
use crate::register::Done;
use engine_iv_service::NsId;
use module_abi::dss_module;
use std::collections::BTreeMap;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where a module is in its life, as far as the host drives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ModuleState {
    /// Loaded; `sm_init` runs or is still to come.
    Loaded = 0,
    /// Its key and handlers are registered.
    Registered = 1,
    /// `sm_setup` runs.
    SettingUp = 2,
    /// Clients are let in.
    Serving = 3,
    /// `sm_cleanup` runs.
    CleaningUp = 4,
    /// Cleaned up.
    Cleaned = 5,
    /// Its last setup failed or missed its deadline.
    Failed = 6,
    /// Unregistered; `sm_fini` runs or has run.
    Finished = 7,
}

impl ModuleState {
    const ALL: [ModuleState; 8] = [
        ModuleState::Loaded,
        ModuleState::Registered,
        ModuleState::SettingUp,
        ModuleState::Serving,
        ModuleState::CleaningUp,
        ModuleState::Cleaned,
        ModuleState::Failed,
        ModuleState::Finished,
    ];

    /// As `keel modules` shows it.
    pub fn text(self) -> &'static str {
        match self {
            ModuleState::Loaded => "loaded",
            ModuleState::Registered => "initialised",
            ModuleState::SettingUp => "setting up",
            ModuleState::Serving => "serving",
            ModuleState::CleaningUp => "cleaning up",
            ModuleState::Cleaned => "cleaned up",
            ModuleState::Failed => "failed",
            ModuleState::Finished => "finished",
        }
    }

    /// The header's \[serving\]: between `sm_setup` and the end of `sm_cleanup`.
    pub(crate) fn serves(self) -> bool {
        matches!(
            self,
            ModuleState::SettingUp | ModuleState::Serving | ModuleState::CleaningUp
        )
    }
}

/// One module for listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleStatus {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: i32,
    /// Where it is.
    pub state: ModuleState,
    /// Why it failed; empty otherwise.
    pub error: String,
}

/// Modules that a process knows at once, over all its engines (tests run several).
const ENTRIES_MAX: usize = 256;

/// Descriptor and entry. The descriptor's address claims a place; the entry follows.
static ENTRIES: [(AtomicPtr<dss_module>, AtomicPtr<ModuleEntry>); ENTRIES_MAX] =
    [const { (AtomicPtr::new(null_mut()), AtomicPtr::new(null_mut())) }; ENTRIES_MAX];
/// Places in use lie below.
static USED: AtomicUsize = AtomicUsize::new(0);

/// The entry of a descriptor, by its address alone: nothing is read through it.
pub(crate) fn find(descriptor: *const dss_module) -> Option<&'static ModuleEntry> {
    if descriptor.is_null() {
        return None;
    }
    let used = &ENTRIES[..USED.load(Ordering::Acquire)];
    let (_, entry) = used
        .iter()
        .find(|(known, _)| std::ptr::eq(known.load(Ordering::Acquire), descriptor))?;
    // SAFETY: NULL or leaked by `add`, never freed.
    unsafe { entry.load(Ordering::Acquire).as_ref() }
}

pub(crate) struct ModuleEntry {
    pub(crate) name: String,
    pub(crate) descriptor: &'static dss_module,
    pub(crate) lent: Arc<Lent>,
    /// Names and targets of registered metrics with their handles.
    pub(crate) metrics: Mutex<Vec<(String, i32, usize)>>,
    /// It has told a class or flag that means nothing, and the log has said so.
    bad_attr: AtomicBool,
    done: Mutex<Done>,
    /// Namespaces of incast variables that it uses, and how often.
    namespaces: Mutex<BTreeMap<NsId, u32>>,
    state: AtomicU8,
    error: Mutex<String>,
}

impl ModuleEntry {
    /// Makes an entry and puts it into the table; `None` when that is full.
    pub(crate) fn add(
        name: String,
        descriptor: &'static dss_module,
        lent: Arc<Lent>,
    ) -> Option<&'static ModuleEntry> {
        let entry = Box::leak(Box::new(ModuleEntry {
            name,
            descriptor,
            lent,
            metrics: Mutex::default(),
            bad_attr: AtomicBool::new(false),
            done: Mutex::default(),
            namespaces: Mutex::default(),
            state: AtomicU8::new(ModuleState::Loaded as u8),
            error: Mutex::default(),
        }));
        let place = ENTRIES.iter().position(|slot| {
            slot.0
                .compare_exchange(
                    null_mut(),
                    std::ptr::from_ref(descriptor).cast_mut(),
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                )
                .is_ok()
        })?;
        ENTRIES[place].1.store(entry, Ordering::Release);
        USED.fetch_max(place + 1, Ordering::AcqRel);
        Some(entry)
    }

    /// Takes it out of the table: from now on its descriptor is unknown.
    pub(crate) fn remove(&'static self) {
        for (descriptor, entry) in &ENTRIES {
            if std::ptr::eq(entry.load(Ordering::Acquire), self) {
                entry.store(null_mut(), Ordering::Release);
                descriptor.store(null_mut(), Ordering::Release);
            }
        }
    }

    /// What is registered for it.
    pub(crate) fn done(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its namespaces.
    pub(crate) fn namespaces(&self) -> MutexGuard<'_, BTreeMap<NsId, u32>> {
        let namespaces = self.namespaces.lock();
        namespaces.unwrap_or_else(PoisonError::into_inner) // numbers only
    }

    /// One use less of a namespace; false: it has none.
    pub(crate) fn release(&self, ns: NsId) -> bool {
        let mut namespaces = self.namespaces();
        let Some(users) = namespaces.get_mut(&ns) else {
            return false;
        };
        *users -= 1;
        if *users == 0 {
            namespaces.remove(&ns);
        }
        true
    }

    pub(crate) fn state(&self) -> ModuleState {
        ModuleState::ALL[usize::from(self.state.load(Ordering::Acquire))]
    }

    /// Says once that `sm_get_req_attr` tells something that is not known: an unknown class makes a request anonymous, unknown
    /// flags are not looked at.
    pub(crate) fn note_bad_attr(&self, class: u32, flags: u32) {
        if !self.bad_attr.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                module = self.name,
                class,
                flags,
                "sm_get_req_attr tells an unknown class or flag; further ones are not logged"
            );
        }
    }

    pub(crate) fn set_state(&self, state: ModuleState) {
        self.state.store(state as u8, Ordering::Release);
        self.set_error(String::new());
    }

    pub(crate) fn fail(&self, error: String) {
        self.state
            .store(ModuleState::Failed as u8, Ordering::Release);
        self.set_error(error);
    }

    fn set_error(&self, error: String) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    pub(crate) fn status(&self) -> ModuleStatus {
        let error = self
            .error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        ModuleStatus {
            name: self.name.clone(),
            id: self.descriptor.sm_mod_id,
            state: self.state(),
            error,
        }
    }
}
