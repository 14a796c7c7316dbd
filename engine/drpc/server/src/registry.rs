//! Who answers for which module id (DAOS `src/engine/drpc_handler.c`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock};

use daos_errno::Der;
use drpc_wire::{Call, Status, methods, modules};

use crate::reply::Reply;

/// Answers the calls of one dRPC module. Runs in a task of its own on the system xstream: it may take long by giving `reply`
/// away, it must not block the thread. A panic is contained and answers FAILURE.
pub trait Handler: Send + Sync {
    /// One call. An unknown method is `reply.fail(Status::UnknownMethod)`, a body that does not decode
    /// `FailedUnmarshalPayload`; a method's own error goes into the body of a SUCCESS.
    fn handle(&self, call: Call, reply: Reply);
}

impl<F: Fn(Call, Reply) + Send + Sync> Handler for F {
    fn handle(&self, call: Call, reply: Reply) {
        self(call, reply);
    }
}

const SLOTS: usize = modules::LIMIT as usize;

type Table = [Option<Arc<dyn Handler>>; SLOTS];

/// The table of handlers, one per module id from 0 to 127. Clones are the same table. Any thread.
#[derive(Clone)]
pub struct Registry {
    /// `None` after [`Registry::fini`].
    table: Arc<RwLock<Option<Box<Table>>>>,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::new()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Registry").field(&self.ids()).finish()
    }
}

impl Registry {
    /// An empty table.
    pub fn new() -> Registry {
        let table: Table = std::array::from_fn(|_| None);
        Registry {
            table: Arc::new(RwLock::new(Some(Box::new(table)))),
        }
    }

    /// Puts a handler in. `INVAL` for an id outside 0..128, `EXIST` if the id is taken (the first handler stays), `UNINIT`
    /// after `fini`.
    pub fn register(&self, id: i32, handler: Arc<dyn Handler>) -> Result<(), Der> {
        self.change(id, |slot| match slot {
            Some(_) => Err(Der::EXIST),
            None => {
                *slot = Some(handler);
                Ok(())
            }
        })
    }

    /// Registers every entry, also after one failed; answers with the last error.
    pub fn register_all(
        &self,
        handlers: impl IntoIterator<Item = (i32, Arc<dyn Handler>)>,
    ) -> Result<(), Der> {
        let mut result = self.initialised();
        for (id, handler) in handlers {
            if let Err(error) = self.register(id, handler) {
                result = Err(error);
            }
        }
        result
    }

    /// Takes a handler out. An empty slot is fine; `INVAL` and `UNINIT` as for `register`. Calls already running go on.
    pub fn unregister(&self, id: i32) -> Result<(), Der> {
        self.change(id, |slot| {
            *slot = None;
            Ok(())
        })
    }

    /// Takes all these out; ids outside the table are skipped.
    pub fn unregister_all(&self, ids: impl IntoIterator<Item = i32>) -> Result<(), Der> {
        self.initialised()?;
        for id in ids {
            // An id that cannot be in the table is not in it afterwards either.
            let _ = self.unregister(id);
        }
        Ok(())
    }

    /// The handler of an id; `None` if there is none, or no table.
    pub fn get(&self, id: i32) -> Option<Arc<dyn Handler>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let slot = usize::try_from(id).ok()?;
        table.as_ref()?.get(slot)?.clone()
    }

    /// Ids that have a handler, ascending.
    pub fn ids(&self) -> Vec<i32> {
        (0..modules::LIMIT)
            .filter(|id| self.get(*id).is_some())
            .collect()
    }

    /// Drops the table: no handler any more, and none can be registered (DAOS `drpc_hdlr_fini`).
    pub fn fini(&self) {
        let table = self
            .table
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Outside the lock: a handler's drop may come back here.
        drop(table);
    }

    /// Answers one call by its module's handler (DAOS `drpc_hdlr_process_msg`): no handler is UNKNOWN_MODULE, a handler
    /// that panics FAILURE.
    pub fn process(&self, call: Call, reply: Reply) {
        let Some(handler) = self.get(call.module) else {
            reply.fail(Status::UnknownModule);
            return;
        };
        let (module, method) = (call.module, call.method);
        let outcome = catch_unwind(AssertUnwindSafe(|| handler.handle(call, reply)));
        if outcome.is_err() {
            let name = methods::name(module, method).unwrap_or("?");
            tracing::error!(
                module,
                method,
                name,
                "dRPC handler panicked; answered FAILURE"
            );
        }
    }

    fn initialised(&self) -> Result<(), Der> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.as_ref().map(drop).ok_or(Der::UNINIT)
    }

    fn change(
        &self,
        id: i32,
        act: impl FnOnce(&mut Option<Arc<dyn Handler>>) -> Result<(), Der>,
    ) -> Result<(), Der> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let table = table.as_mut().ok_or(Der::UNINIT)?;
        let slot = usize::try_from(id).map_err(|_| Der::INVAL)?;
        act(table.get_mut(slot).ok_or(Der::INVAL)?)
    }
}
