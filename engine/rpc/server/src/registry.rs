//! Which handler serves which opcode.
//!
//! Modules register protocols while they initialise (DAOS `daos_rpc_register`); xstreams look handlers up for every
//! request. Registration takes a lock and publishes a new table; each xstream keeps the table it last saw and looks
//! at one counter per request, so the data path takes no lock and shares no reference count.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use daos_errno::Der;
use engine_xstream::sched::Attr;
use rpc_wire::Opcode;
use thiserror::Error;

use crate::request::Request;

/// Module ids are 7 bits wide (DAOS `src/include/daos/rpc.h`); those above are the transport's own.
pub const MAX_MODULE_ID: u8 = 127;
/// Protocol versions a module may serve at once (DAOS `sm_proto_count`): the current and the previous, so that
/// engines and clients can be upgraded one after the other.
pub const MAX_VERSIONS: usize = 2;

/// Serves the requests of one opcode.
///
/// `handle` runs on the xstream that the request's tag names, inside the transport's turn: it must not block. Work
/// that waits goes into a ULT that takes the request with it. Dropping the request unanswered, a panic included,
/// answers it with MISC.
pub trait RpcHandler: Send + Sync {
    /// Takes over one request.
    fn handle(&self, request: Request);

    /// What the request is to the scheduler of a main xstream, which then decides when it is handled; `None`: it is
    /// handled at once (DAOS: `dms_get_req_attr`, `SCHED_REQ_ANONYM`). Time-out and enqueue id that the requester gave
    /// count where the answer leaves them 0.
    fn classify(&self, request: &Request) -> Option<Attr> {
        let _ = request;
        None
    }
}

impl<F: Fn(Request) + Send + Sync> RpcHandler for F {
    fn handle(&self, request: Request) {
        self(request);
    }
}

/// One operation of a protocol.
#[derive(Clone)]
pub struct HandlerEntry {
    /// Operation index: the low 16 bits of the opcode.
    pub index: u16,
    /// For logs and metrics.
    pub name: String,
    /// Who serves it.
    pub handler: Arc<dyn RpcHandler>,
    /// Of a collective call: how answers become one on their way up; `None`: they stay apart.
    pub gather: Option<Gather>,
}

/// Puts the message of another engine's answer into the one that is there already (DAOS: `co_aggregate`). Runs on the xstream that
/// collects; the order in which answers come is not that of ranks.
pub type Gather = Arc<dyn Fn(&mut Vec<u8>, &[u8]) + Send + Sync>;

impl HandlerEntry {
    /// An entry.
    pub fn new(index: u16, name: impl Into<String>, handler: Arc<dyn RpcHandler>) -> HandlerEntry {
        HandlerEntry {
            index,
            name: name.into(),
            handler,
            gather: None,
        }
    }

    /// The same, whose answers become one in a collective call.
    pub fn gathering(
        mut self,
        gather: impl Fn(&mut Vec<u8>, &[u8]) + Send + Sync + 'static,
    ) -> HandlerEntry {
        self.gather = Some(Arc::new(gather));
        self
    }
}

impl fmt::Debug for HandlerEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.index)
    }
}

/// A registered protocol, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolInfo {
    /// Module id.
    pub module: u8,
    /// Protocol version.
    pub version: u8,
    /// Operations by index, with their names.
    pub operations: Vec<(u16, String)>,
}

/// Why a protocol cannot be registered or unregistered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RegisterError {
    /// Over [`MAX_MODULE_ID`].
    #[error("module id {0} is over {MAX_MODULE_ID}")]
    ModuleId(u8),
    /// The module id already serves this version.
    #[error("version {version} of module {module} is already registered")]
    Duplicate {
        /// Module id.
        module: u8,
        /// Protocol version.
        version: u8,
    },
    /// [`MAX_VERSIONS`] others are registered.
    #[error(
        "module {module} already serves versions {held:?}: at most {MAX_VERSIONS}; unregister one first"
    )]
    TooManyVersions {
        /// Module id.
        module: u8,
        /// The registered versions.
        held: Vec<u8>,
    },
    /// One index twice in the same protocol.
    #[error("operation {index} stands twice in version {version} of module {module}")]
    DuplicateIndex {
        /// Module id.
        module: u8,
        /// Protocol version.
        version: u8,
        /// The index.
        index: u16,
    },
    /// Nothing to unregister.
    #[error("version {version} of module {module} is not registered")]
    Unknown {
        /// Module id.
        module: u8,
        /// Protocol version.
        version: u8,
    },
}

impl RegisterError {
    /// The DAOS error number a module gets.
    pub fn der(&self) -> Der {
        match self {
            RegisterError::ModuleId(_) | RegisterError::TooManyVersions { .. } => Der::INVAL,
            RegisterError::Duplicate { .. } | RegisterError::DuplicateIndex { .. } => Der::EXIST,
            RegisterError::Unknown { .. } => Der::NONEXIST,
        }
    }
}

#[derive(Clone)]
struct Protocol {
    module: u8,
    version: u8,
    /// By index, ascending; dense in practice, so position = index is tried first.
    handlers: Arc<[HandlerEntry]>,
}

#[derive(Clone, Default)]
struct Table {
    protocols: Vec<Protocol>,
    /// Positions in `protocols` by module id; `u16::MAX` = none.
    by_module: Vec<[u16; MAX_VERSIONS]>,
}

const NONE: u16 = u16::MAX;

impl Table {
    fn index(&mut self) {
        self.by_module = vec![[NONE; MAX_VERSIONS]; MAX_MODULE_ID as usize + 1];
        for (at, protocol) in self.protocols.iter().enumerate() {
            let row = &mut self.by_module[protocol.module as usize];
            if let Some(free) = row.iter_mut().find(|slot| **slot == NONE) {
                *free = at as u16;
            }
        }
    }

    /// UNREG for an unknown module or operation, PROTO for a version that the module does not speak.
    fn lookup(&self, opcode: Opcode) -> Result<&HandlerEntry, Der> {
        let row = self
            .by_module
            .get(opcode.module() as usize)
            .ok_or(Der::UNREG)?;
        if row[0] == NONE {
            return Err(Der::UNREG);
        }
        let protocol = row
            .iter()
            .filter_map(|&at| self.protocols.get(at as usize))
            .find(|protocol| protocol.version == opcode.version())
            .ok_or(Der::PROTO)?;
        let handlers = &protocol.handlers;
        match handlers.get(opcode.index() as usize) {
            Some(entry) if entry.index == opcode.index() => Ok(entry),
            _ => handlers
                .binary_search_by_key(&opcode.index(), |entry| entry.index)
                .map(|at| &handlers[at])
                .map_err(|_| Der::UNREG),
        }
    }
}

/// The registered protocols. A handle: clones share the same table. Any thread may register.
#[derive(Clone, Default)]
pub struct Registry {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    generation: AtomicU64,
    table: Mutex<Arc<Table>>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Registry {
        Registry::default()
    }

    /// Registers one version of a module's protocol. All or nothing.
    pub fn register_protocol(
        &self,
        module: u8,
        version: u8,
        mut handlers: Vec<HandlerEntry>,
    ) -> Result<(), RegisterError> {
        if module > MAX_MODULE_ID {
            return Err(RegisterError::ModuleId(module));
        }
        handlers.sort_by_key(|entry| entry.index);
        if let Some(pair) = handlers
            .windows(2)
            .find(|pair| pair[0].index == pair[1].index)
        {
            return Err(RegisterError::DuplicateIndex {
                module,
                version,
                index: pair[0].index,
            });
        }
        self.change(|table| {
            let held: Vec<u8> = table
                .protocols
                .iter()
                .filter(|p| p.module == module)
                .map(|p| p.version)
                .collect();
            if held.contains(&version) {
                return Err(RegisterError::Duplicate { module, version });
            }
            if held.len() >= MAX_VERSIONS {
                return Err(RegisterError::TooManyVersions { module, held });
            }
            table.protocols.push(Protocol {
                module,
                version,
                handlers: handlers.into(),
            });
            Ok(())
        })
    }

    /// Takes one version of a module's protocol out. Requests that were already given to its handlers go on.
    pub fn unregister_protocol(&self, module: u8, version: u8) -> Result<(), RegisterError> {
        self.change(|table| {
            let before = table.protocols.len();
            table
                .protocols
                .retain(|p| (p.module, p.version) != (module, version));
            if table.protocols.len() == before {
                return Err(RegisterError::Unknown { module, version });
            }
            Ok(())
        })
    }

    /// What is registered, in the order of registration.
    pub fn list(&self) -> Vec<ProtocolInfo> {
        let table = Arc::clone(&self.lock());
        let info = |protocol: &Protocol| ProtocolInfo {
            module: protocol.module,
            version: protocol.version,
            operations: protocol
                .handlers
                .iter()
                .map(|entry| (entry.index, entry.name.clone()))
                .collect(),
        };
        table.protocols.iter().map(info).collect()
    }

    fn change(
        &self,
        edit: impl FnOnce(&mut Table) -> Result<(), RegisterError>,
    ) -> Result<(), RegisterError> {
        let mut current = self.lock();
        let mut next = Table::clone(&current);
        edit(&mut next)?;
        next.index();
        *current = Arc::new(next);
        self.shared.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Table>> {
        // A table is replaced as a whole, so a panic elsewhere cannot leave it half changed.
        self.shared
            .table
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

/// One xstream's view of the registry.
pub(crate) struct View {
    registry: Registry,
    seen: RefCell<(u64, Rc<Table>)>,
}

/// A handler that stays valid while it runs, whatever is registered meanwhile.
pub(crate) struct Found {
    table: Rc<Table>,
    opcode: Opcode,
}

impl View {
    pub(crate) fn new(registry: Registry) -> View {
        // Generation MAX is never reached, so the first look-up fetches the table.
        View {
            registry,
            seen: RefCell::new((u64::MAX, Rc::default())),
        }
    }

    pub(crate) fn lookup(&self, opcode: Opcode) -> Result<Found, Der> {
        let generation = self.registry.shared.generation.load(Ordering::Acquire);
        let mut seen = self.seen.borrow_mut();
        if seen.0 != generation {
            *seen = (generation, Rc::new(Table::clone(&self.registry.lock())));
        }
        seen.1.lookup(opcode)?;
        Ok(Found {
            table: Rc::clone(&seen.1),
            opcode,
        })
    }

    /// The versions that a module serves; none: there is no such module.
    pub(crate) fn versions(&self, module: u8) -> Vec<u8> {
        // Any operation: a look-up makes the view fresh.
        let _ = self.lookup(Opcode::new(module, 0, 0));
        let seen = self.seen.borrow();
        let protocols = seen.1.protocols.iter();
        let of_module = protocols.filter(|protocol| protocol.module == module);
        of_module.map(|protocol| protocol.version).collect()
    }

    /// The operation's registered name, for logs.
    pub(crate) fn name(&self, opcode: Opcode) -> String {
        match self.lookup(opcode) {
            Ok(found) => found
                .table
                .lookup(opcode)
                .map(|entry| entry.name.clone())
                .unwrap_or_default(),
            Err(_) => "unregistered".to_owned(),
        }
    }
}

impl Found {
    pub(crate) fn classify(&self, request: &Request) -> Option<Attr> {
        let entry = self.table.lookup(self.opcode).ok()?;
        entry.handler.classify(request)
    }

    pub(crate) fn gather(&self) -> Option<Gather> {
        self.table.lookup(self.opcode).ok()?.gather.clone()
    }

    pub(crate) fn handle(&self, request: Request) {
        if let Ok(entry) = self.table.lookup(self.opcode) {
            entry.handler.handle(request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u16) -> HandlerEntry {
        HandlerEntry::new(index, format!("op{index}"), Arc::new(|_: Request| {}))
    }

    fn found(view: &View, opcode: Opcode) -> Result<String, Der> {
        view.lookup(opcode).map(|_| view.name(opcode))
    }

    #[test]
    fn unknown_module_version_and_operation_differ() {
        let registry = Registry::new();
        let view = View::new(registry.clone());
        assert_eq!(found(&view, Opcode::new(4, 1, 0)), Err(Der::UNREG));
        registry
            .register_protocol(4, 9, vec![entry(0), entry(1), entry(700)])
            .unwrap();
        registry.register_protocol(4, 10, vec![entry(5)]).unwrap();
        assert_eq!(found(&view, Opcode::new(4, 9, 1)), Ok("op1".into()));
        assert_eq!(found(&view, Opcode::new(4, 9, 700)), Ok("op700".into()));
        assert_eq!(found(&view, Opcode::new(4, 10, 5)), Ok("op5".into()));
        assert_eq!(found(&view, Opcode::new(4, 9, 2)), Err(Der::UNREG));
        assert_eq!(found(&view, Opcode::new(4, 8, 1)), Err(Der::PROTO));
        assert_eq!(found(&view, Opcode::new(5, 9, 1)), Err(Der::UNREG));
        assert_eq!(found(&view, Opcode::HELLO), Err(Der::UNREG));
    }

    #[test]
    fn bounds_and_duplicates_are_refused_and_change_nothing() {
        let registry = Registry::new();
        registry.register_protocol(4, 1, vec![entry(0)]).unwrap();
        let der = |result: Result<(), RegisterError>| result.unwrap_err().der();
        assert_eq!(
            der(registry.register_protocol(4, 1, vec![entry(0)])),
            Der::EXIST
        );
        assert_eq!(
            der(registry.register_protocol(4, 2, vec![entry(3), entry(1), entry(3)])),
            Der::EXIST
        );
        registry.register_protocol(4, 2, vec![]).unwrap();
        assert_eq!(
            der(registry.register_protocol(4, 3, vec![entry(0)])),
            Der::INVAL
        );
        assert_eq!(der(registry.register_protocol(128, 1, vec![])), Der::INVAL);
        assert_eq!(der(registry.unregister_protocol(4, 3)), Der::NONEXIST);
        assert_eq!(registry.list().len(), 2);
    }

    #[test]
    fn unregistered_protocols_are_gone_for_new_requests() {
        let registry = Registry::new();
        let view = View::new(registry.clone());
        registry.register_protocol(4, 1, vec![entry(0)]).unwrap();
        registry.register_protocol(4, 2, vec![entry(0)]).unwrap();
        let held = view.lookup(Opcode::new(4, 1, 0)).unwrap();
        registry.unregister_protocol(4, 1).unwrap();
        assert_eq!(found(&view, Opcode::new(4, 1, 0)), Err(Der::PROTO));
        assert!(
            held.table.lookup(Opcode::new(4, 1, 0)).is_ok(),
            "a look-up in use stays valid"
        );
        registry.register_protocol(4, 3, vec![entry(0)]).unwrap();
        assert!(view.lookup(Opcode::new(4, 3, 0)).is_ok());
    }
}
