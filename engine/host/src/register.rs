//! A module's key and handlers in the engine's registries, and out again.
//!
//! Invariants: H2 and H3 of `guard.rs`.
#![allow(
    unsafe_code,
    reason = "reads a descriptor's lists, calls its constructors"
)]

use crate::calls::{drpc, rpc};
use crate::host::Host;
use crate::modules::{ModuleEntry, ModuleState};
use crate::names::c_text;
use daos_errno::Der;
use engine_loader::{LoadedModule, Registrar};
use engine_rpc::HandlerEntry;
use engine_tls::{KeyIndex, RawKey, Tags, XsInfo};
use module_abi::{
    DSS_MAX_DRPC_MODULE, DSS_MAX_PROTO_VERSIONS, DSS_RPC_ULT, dss_drpc_handler, dss_host,
    dss_module, dss_module_key, dss_rpc_proto,
};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Why a module was not registered. What had been registered is taken back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// Twice, or too many.
    #[error("{0}")]
    Module(&'static str),
    /// Its key.
    #[error("TLS key: {0}")]
    Key(String),
    /// A protocol.
    #[error("RPC protocol version {version}: {why}")]
    Rpc {
        /// Which.
        version: u32,
        /// Why.
        why: String,
    },
    /// A dRPC handler.
    #[error("dRPC module id {id}: {}", drpc_text(.der))]
    Drpc {
        /// Which.
        id: i32,
        /// Why.
        der: Der,
    },
}

fn drpc_text(der: &Der) -> String {
    match *der {
        Der::EXIST => "another handler has it".to_owned(),
        Der::INVAL => format!("ids are 0 to {}", DSS_MAX_DRPC_MODULE - 1),
        der => der.to_string(),
    }
}

impl Host {
    /// Makes a loaded module known, so that `sm_init` can log and register metrics. Main thread.
    ///
    /// # Errors
    /// [`RegisterError::Module`].
    pub fn announce(
        &self,
        name: &str,
        descriptor: &'static dss_module,
    ) -> Result<(), RegisterError> {
        if let Some(entry) = crate::modules::find(descriptor) {
            if !matches!(entry.state(), ModuleState::Finished | ModuleState::Loaded) {
                return Err(RegisterError::Module("an engine has this module already"));
            }
            entry
                .lent
                .modules()
                .retain(|known| !std::ptr::eq(*known, entry));
            entry.remove();
        }
        let entry = ModuleEntry::add(name.to_owned(), descriptor, Arc::clone(&self.0));
        let entry = entry.ok_or(RegisterError::Module("the process has too many modules"))?;
        self.0.modules().push(entry);
        Ok(())
    }

    /// Takes over a module's key, protocols and dRPC handlers: all of them or none. Main thread, before xstreams start.
    ///
    /// # Errors
    /// [`RegisterError`]; what had been registered is taken back.
    pub fn register_module(
        &self,
        name: &str,
        descriptor: &'static dss_module,
    ) -> Result<(), RegisterError> {
        if crate::modules::find(descriptor).is_none() {
            self.announce(name, descriptor)?;
        }
        let entry =
            crate::modules::find(descriptor).ok_or(RegisterError::Module("the engine lost it"))?;
        let result = self.register_parts(entry);
        match result {
            Ok(()) => entry.set_state(ModuleState::Registered),
            Err(_) => self.take_back(entry),
        }
        result
    }

    /// Takes everything back; the module stays known, so that its `sm_fini` can log. Main thread, after xstreams ended.
    pub fn unregister_module(&self, descriptor: &'static dss_module) {
        if let Some(entry) = crate::modules::find(descriptor) {
            self.take_back(entry);
            crate::shared::end(entry);
            entry.set_state(ModuleState::Finished);
        }
    }

    fn register_parts(&self, entry: &'static ModuleEntry) -> Result<(), RegisterError> {
        let descriptor = entry.descriptor;
        if let Some(key) = key_of(descriptor) {
            let index = self.0.keys.register(raw_key(&entry.name, key));
            let index = index.map_err(|error| RegisterError::Key(error.to_string()))?;
            key.dmk_index.store(index.slot() as i32, Ordering::Release);
            entry.done().key = Some(index);
        }
        for proto in protocols(descriptor) {
            let version = proto.version;
            let fail = |why: String| RegisterError::Rpc { version, why };
            let number = u8::try_from(version)
                .ok()
                .filter(|v| *v > 0)
                .ok_or_else(|| fail("versions are 1 to 255".into()))?;
            let module = u8::try_from(descriptor.sm_mod_id)
                .map_err(|_| fail("the module id is not 0 to 63".into()))?;
            let handlers = handler_entries(entry, proto).map_err(fail)?;
            self.0
                .rpc
                .register_protocol(module, number, handlers)
                .map_err(|error| fail(error.to_string()))?;
            entry.done().versions.push(number);
        }
        for handler in drpc_handlers(descriptor) {
            let (id, function) = (handler.module_id, handler.handler);
            let served = Arc::new(drpc::Served {
                module: entry,
                function,
            });
            self.0
                .drpc
                .register(id, served)
                .map_err(|der| RegisterError::Drpc { id, der })?;
            entry.done().ids.push(id);
        }
        Ok(())
    }

    /// Undoes exactly what was done, last first; dRPC handlers of a list that failed half-way included.
    fn take_back(&self, entry: &'static ModuleEntry) {
        let done = std::mem::take(&mut *entry.done());
        for class in done.classes {
            self.0.incast.unregister(class);
        }
        for id in done.ids.into_iter().rev() {
            if let Err(der) = self.0.drpc.unregister(id) {
                tracing::error!(module = entry.name, id, %der, "dRPC handler not unregistered");
            }
        }
        for version in done.versions.into_iter().rev() {
            let module = entry.descriptor.sm_mod_id as u8; // it was registered as one
            if let Err(error) = self.0.rpc.unregister_protocol(module, version) {
                tracing::error!(module = entry.name, version, %error, "RPC protocol not unregistered");
            }
        }
        if let (Some(index), Some(key)) = (done.key, key_of(entry.descriptor)) {
            match self.0.keys.unregister(index) {
                Ok(()) => key.dmk_index.store(-1, Ordering::Release),
                Err(error) => {
                    tracing::error!(module = entry.name, %error, "TLS key not unregistered")
                }
            }
        }
    }
}

impl Registrar for Host {
    fn table(&self) -> *const dss_host {
        Host::table(self)
    }

    fn announce(&self, module: &LoadedModule) -> Result<(), String> {
        Host::announce(self, module.name(), module.descriptor()).map_err(|error| error.to_string())
    }

    fn register(&self, module: &LoadedModule) -> Result<(), String> {
        self.register_module(module.name(), module.descriptor())
            .map_err(|error| error.to_string())
    }

    fn unregister(&self, module: &LoadedModule) {
        self.unregister_module(module.descriptor());
    }
}

/// What was registered for a module so far.
#[derive(Default)]
pub(crate) struct Done {
    key: Option<KeyIndex>,
    versions: Vec<u8>,
    ids: Vec<i32>,
    /// Of incast variables, in `sm_init`.
    pub(crate) classes: Vec<u32>,
}

fn key_of(descriptor: &'static dss_module) -> Option<&'static dss_module_key> {
    // SAFETY: H2; NULL: no key.
    unsafe { descriptor.sm_key.as_ref() }
}

fn protocols(descriptor: &'static dss_module) -> impl Iterator<Item = &'static dss_rpc_proto> {
    let count = descriptor.sm_proto_count.min(DSS_MAX_PROTO_VERSIONS) as usize;
    // SAFETY: H2; a NULL entry is no protocol (DAOS: registering it does nothing).
    descriptor.sm_proto[..count]
        .iter()
        .filter_map(|proto| unsafe { proto.as_ref() })
}

fn drpc_handlers(
    descriptor: &'static dss_module,
) -> impl Iterator<Item = &'static dss_drpc_handler> {
    let first = descriptor.sm_drpc_handlers;
    let bound = if first.is_null() {
        0
    } else {
        DSS_MAX_DRPC_MODULE as usize
    };
    // SAFETY: H2; the list ends with an entry without a handler, and nothing behind that is read.
    (0..bound)
        .map(move |i| unsafe { &*first.add(i) })
        .take_while(|entry| entry.handler.is_some())
}

fn handler_entries(
    entry: &'static ModuleEntry,
    proto: &'static dss_rpc_proto,
) -> Result<Vec<HandlerEntry>, String> {
    let handlers = match proto.handlers.is_null() {
        true => &[],
        // SAFETY: H2: `count` handlers.
        false => unsafe { std::slice::from_raw_parts(proto.handlers, proto.count as usize) },
    };
    let mut entries = Vec::new();
    for handler in handlers {
        // SAFETY: H2: a name or NULL.
        let name = unsafe { c_text(handler.name) }
            .to_string_lossy()
            .into_owned();
        let index = u16::try_from(handler.index)
            .map_err(|_| format!("handler {name}: index {} is over 65535", handler.index))?;
        let function = handler
            .handler
            .ok_or_else(|| format!("handler {name} ({index}) has no function"))?;
        let in_ult = handler.flags & DSS_RPC_ULT != 0;
        if handler.flags & !DSS_RPC_ULT != 0 {
            return Err(format!(
                "handler {name}: flags {:#x} are unknown",
                handler.flags
            ));
        }
        let served = rpc::Served::new(entry, function, in_ult.then_some(name.as_str()));
        entries.push(HandlerEntry::new(index, name, Arc::new(served)));
    }
    Ok(entries)
}

fn raw_key(name: &str, key: &'static dss_module_key) -> RawKey {
    let init = move |info: &XsInfo| {
        let init = key.dmk_init?;
        // SAFETY: H2, H3: on the xstream that will own the value.
        NonNull::new(unsafe { init(info.tags.0, info.xs_id, info.tgt_id) })
    };
    let fini = move |info: &XsInfo, value: NonNull<c_void>| {
        if let Some(fini) = key.dmk_fini {
            // SAFETY: H2, H3: the value that `dmk_init` made, on its xstream.
            unsafe { fini(info.tags.0, value.as_ptr()) }
        }
    };
    RawKey {
        name: name.to_owned(),
        tags: Tags(key.dmk_tags),
        init: Arc::new(init),
        fini: Arc::new(fini),
    }
}
