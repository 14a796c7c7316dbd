//! What modules hold: numbers that lead to objects of one xstream.
//!
//! A handle carries the xstream's id, an index and a generation that no other object of the xstream has had (before
//! 2^28 of them). A handle of another xstream, one that was given back, and any other number are told apart and refused.

use crate::calls::bdev::OpenShare;
use crate::calls::sched::Turns;
use crate::modules::ModuleEntry;
use daos_errno::Der;
use drpc_wire::Call;
use slab::Slab;
use spdk_thread::sync::oneshot;
use spdk_thread::{JoinHandle, Poller};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

const INDEX_BITS: u32 = 24;
const XS_BITS: u32 = 12;
const GENERATIONS: u32 = 1 << 28;

/// Objects that one xstream holds for modules at most; beyond, making one answers `DER_NOMEM`.
const OBJECTS_MAX: usize = 1 << 20;

pub(crate) enum Object {
    Poller(Poller),
    Timer(JoinHandle<()>),
    Bdev(Rc<OpenShare>),
    Rpc(engine_rpc::Request),
    Drpc(Call, engine_drpc::Reply),
    Done(oneshot::Sender<i32>),
    Sched(Rc<Turns>),
}

struct Held {
    generation: u32,
    module: &'static ModuleEntry,
    object: Object,
}

pub(crate) struct Handles {
    xs_id: u64,
    next: Cell<u32>,
    table: RefCell<Slab<Held>>,
}

impl Handles {
    pub(crate) fn new(xs_id: i32) -> Handles {
        let xs_id = u64::from(xs_id.unsigned_abs()) & ((1 << XS_BITS) - 1);
        Handles {
            xs_id,
            next: Cell::new(1),
            table: RefCell::default(),
        }
    }

    /// A handle for an object, or the object back at the bound.
    #[allow(
        clippy::result_large_err,
        reason = "the object comes back by value; once per handle, never per I/O"
    )]
    pub(crate) fn insert<T>(
        &self,
        module: &'static ModuleEntry,
        object: Object,
    ) -> Result<*mut T, Object> {
        let mut table = self.table.borrow_mut();
        if table.len() >= OBJECTS_MAX {
            return Err(object);
        }
        let generation = self.next.get();
        self.next.set(if generation + 1 < GENERATIONS {
            generation + 1
        } else {
            1
        });
        let index = table.insert(Held {
            generation,
            module,
            object,
        }) as u64;
        let number =
            u64::from(generation) << (INDEX_BITS + XS_BITS) | self.xs_id << INDEX_BITS | index;
        Ok(std::ptr::without_provenance_mut(number as usize))
    }

    /// Uses an object. `f` answers `None` when it is of another kind. `f` calls nobody else.
    pub(crate) fn with<T, R>(
        &self,
        handle: *mut T,
        f: impl FnOnce(&'static ModuleEntry, &mut Object) -> Option<R>,
    ) -> Result<R, Der> {
        let (index, generation) = self.split(handle)?;
        let mut table = self.table.borrow_mut();
        let held = table
            .get_mut(index)
            .filter(|held| held.generation == generation)
            .ok_or(Der::INVAL)?;
        f(held.module, &mut held.object).ok_or(Der::INVAL)
    }

    /// Takes an object of the wanted kind; the handle is stale afterwards.
    pub(crate) fn take<T>(
        &self,
        handle: *mut T,
        wanted: impl FnOnce(&Object) -> bool,
    ) -> Result<(&'static ModuleEntry, Object), Der> {
        let (index, generation) = self.split(handle)?;
        let mut table = self.table.borrow_mut();
        match table.get(index) {
            Some(held) if held.generation == generation && wanted(&held.object) => {
                let held = table.remove(index);
                Ok((held.module, held.object))
            }
            _ => Err(Der::INVAL),
        }
    }

    fn split<T>(&self, handle: *mut T) -> Result<(usize, u32), Der> {
        let number = handle.addr() as u64;
        let generation = (number >> (INDEX_BITS + XS_BITS)) as u32;
        if generation == 0 {
            return Err(Der::INVAL); // NULL and small numbers
        }
        if (number >> INDEX_BITS) & ((1 << XS_BITS) - 1) != self.xs_id {
            return Err(Der::OP_NOT_PERMITTED);
        }
        Ok(((number & ((1 << INDEX_BITS) - 1)) as usize, generation))
    }

    /// The xstream ends: what modules forgot goes, named.
    pub(crate) fn end(&self) {
        loop {
            // One at a time, without the borrow: what goes may look at the table.
            let first = self.table.borrow().iter().next().map(|(index, _)| index);
            let Some(index) = first else { return };
            let held = self.table.borrow_mut().remove(index);
            tracing::warn!(
                module = held.module.name,
                what = held.object.kind(),
                "left behind by the module; ended by the engine"
            );
            drop(held.object);
        }
    }
}

impl Object {
    fn kind(&self) -> &'static str {
        match self {
            Object::Poller(_) => "poller",
            Object::Timer(_) => "timer",
            Object::Bdev(_) => "open device share",
            Object::Rpc(_) => "unanswered request",
            Object::Drpc(..) => "unanswered dRPC call",
            Object::Done(_) => "unfinished setup or cleanup",
            Object::Sched(_) => "place in the scheduler",
        }
    }
}

const _: () = assert!(usize::BITS == 64, "handles are 64 bits wide");
