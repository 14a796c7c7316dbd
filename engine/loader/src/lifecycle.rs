//! The modules of one engine, from load to fini.
//!
//! ```text
//! Loaded --init--> Initialised --register--> Registered   (setup, serving, cleanup: engine_host)
//!    \                 |                         |
//!     \                +--fini on failure--+     +--unregister, fini--> Finished
//!      +---------------------------------- Failed
//! ```
//! Failure undoes exactly what was done: registered modules are unregistered and finished in reverse order, modules
//! after the failing one are never initialised.
//!
//! Invariant C1: `sm_init` and `sm_fini` are called on the main thread, each once per module, `sm_init` after the
//! host table's address was stored through `sm_host`.
#![allow(unsafe_code, reason = "calls through a module's function pointers")]

use daos_errno::Der;
use module_abi::dss_host;

use crate::error::{LoadError, LoadErrors};
use crate::module::LoadedModule;
use crate::order::start_order;
use crate::search_path::SearchPath;
use crate::{handshake, library};

/// Where a module is in its life, as far as the loader drives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Open and sound.
    Loaded,
    /// `sm_init` returned 0.
    Initialised,
    /// The engine knows its key and its handlers.
    Registered,
    /// Unregistered, `sm_fini` was called.
    Finished,
    /// `sm_init` or its registration failed.
    Failed,
}

/// What the engine's side does with a module between init and fini. Implemented by `engine_host`.
pub trait Registrar {
    /// The table that modules call; valid until the process ends.
    fn table(&self) -> *const dss_host;
    /// Makes the module known before its `sm_init`, so that what it logs and measures there has its name.
    fn announce(&self, module: &LoadedModule) -> Result<(), String>;
    /// Takes over the module's TLS key, RPC protocols and dRPC handlers: all of them or none.
    fn register(&self, module: &LoadedModule) -> Result<(), String>;
    /// Takes them back.
    fn unregister(&self, module: &LoadedModule);
}

/// The modules of one engine, in start order.
#[derive(Debug)]
pub struct Modules(Vec<(LoadedModule, State)>);

impl Modules {
    /// Opens, checks and orders all of `names`. Every error of every module is reported at once.
    pub fn load(names: &[String], path: &SearchPath) -> Result<Modules, LoadErrors> {
        let mut errors = Vec::new();
        let mut loaded: Vec<LoadedModule> = Vec::new();
        for (i, name) in names.iter().enumerate() {
            if names[..i].contains(name) {
                errors.push(LoadError::Twice { name: name.clone() });
                continue;
            }
            match load_one(name, path).and_then(|module| check_unique(module, &loaded)) {
                Ok(module) => loaded.push(module),
                Err(error) => errors.push(error),
            }
        }
        // Needs are judged only when every module is there: a missing file must not be reported twice.
        if !errors.is_empty() {
            return Err(LoadErrors(errors));
        }
        let infos: Vec<_> = loaded.iter().map(LoadedModule::info).collect();
        let order = start_order(&infos).map_err(LoadErrors)?;
        Ok(Modules(
            order
                .into_iter()
                .map(|i| (loaded[i].clone(), State::Loaded))
                .collect(),
        ))
    }

    /// Modules and their states, in start order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&LoadedModule, State)> {
        self.0.iter().map(|(module, state)| (module, *state))
    }

    /// Initialises and registers all, in start order. On an error everything done is undone.
    pub fn init(&mut self, registrar: &impl Registrar) -> Result<(), LoadError> {
        for i in 0..self.0.len() {
            if let Err(error) = self.init_one(i, registrar) {
                self.0[i].1 = State::Failed;
                self.fini(registrar);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Unregisters and finishes all that are registered, in reverse start order. Errors are logged, the rest goes on.
    pub fn fini(&mut self, registrar: &impl Registrar) {
        for (module, state) in self
            .0
            .iter_mut()
            .rev()
            .filter(|(_, state)| *state == State::Registered)
        {
            registrar.unregister(module);
            call_fini(module);
            *state = State::Finished;
        }
    }

    fn init_one(&mut self, i: usize, registrar: &impl Registrar) -> Result<(), LoadError> {
        let (module, state) = &mut self.0[i];
        let name = module.name().to_owned();
        registrar
            .announce(module)
            .map_err(|why| LoadError::RegisterFailed {
                name: name.clone(),
                why,
            })?;
        call_init(module, registrar.table()).map_err(|der| LoadError::InitFailed {
            name: name.clone(),
            der,
        })?;
        *state = State::Initialised;
        if let Err(why) = registrar.register(module) {
            call_fini(module);
            return Err(LoadError::RegisterFailed { name, why });
        }
        *state = State::Registered;
        tracing::info!(
            module = name,
            version = module.info().version_text(),
            "module initialised"
        );
        Ok(())
    }
}

fn load_one(name: &str, path: &SearchPath) -> Result<LoadedModule, LoadError> {
    let file = path.find(name)?;
    let library = library::open(&file).map_err(|why| LoadError::Open {
        name: name.to_owned(),
        path: file.clone(),
        why,
    })?;
    handshake::handshake(library, name, file)
}

fn check_unique(module: LoadedModule, earlier: &[LoadedModule]) -> Result<LoadedModule, LoadError> {
    let name = module.name().to_owned();
    if let Some(owner) = earlier.iter().find(|other| other.info.id == module.info.id) {
        return Err(LoadError::DuplicateId {
            name,
            id: module.info.id,
            owner: owner.name().to_owned(),
        });
    }
    for &id in &module.info.drpc_ids {
        if let Some(owner) = earlier
            .iter()
            .find(|other| other.info.drpc_ids.contains(&id))
        {
            return Err(LoadError::DuplicateDrpcId {
                name,
                id,
                owner: owner.name().to_owned(),
            });
        }
    }
    Ok(module)
}

fn call_init(module: &LoadedModule, table: *const dss_host) -> Result<(), Der> {
    let descriptor = module.descriptor();
    // SAFETY: H2 (handshake.rs): sm_host is a valid address in the module's data; C1: no other thread uses it yet.
    unsafe { descriptor.sm_host.write(table) };
    let init = descriptor.sm_init.ok_or(Der::INVAL)?;
    // SAFETY: C1.
    Der::check(unsafe { init() })
}

fn call_fini(module: &LoadedModule) {
    let Some(fini) = module.descriptor().sm_fini else {
        return;
    };
    // SAFETY: C1.
    if let Err(der) = Der::check(unsafe { fini() }) {
        tracing::error!(module = module.name(), %der, "module fini failed");
    }
}
