//! The class of the runs: values in a store that outlives leaders, as a replicated service would keep them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use daos_errno::Der;
use engine_iv::{Change, Class, Key, Nanos, Place, RequestId, Value};

/// The store, shared by all ranks of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Store {
    /// The newest term that wrote or was elected: older ones are refused.
    pub(crate) term: u64,
    values: BTreeMap<Key, Value>,
    applied: BTreeSet<RequestId>,
    /// Changes that took effect, each with the term of the root; one that did so twice there.
    effects: BTreeSet<(u64, RequestId)>,
    pub(crate) twice: Option<RequestId>,
}

impl Store {
    /// What the truth of a variable of class 1 is.
    pub(crate) fn value(&self, key: &Key) -> Option<&Value> {
        self.values.get(key)
    }

    fn takes_effect(&mut self, at: &Place, request: RequestId) {
        if !self.effects.insert((at.term, request)) {
            self.twice = Some(request);
        }
    }
}

/// A class whose root reads and writes the store.
pub(crate) struct Authority {
    pub(crate) store: Rc<RefCell<Store>>,
    pub(crate) lease: Nanos,
}

impl Class for Authority {
    fn max_value(&self) -> usize {
        1 << 20
    }

    fn lease(&self) -> Nanos {
        self.lease
    }

    fn fetch(&mut self, at: &Place, key: &Key, _kept: Option<&Value>) -> Result<Value, Der> {
        let store = self.store.borrow();
        if at.term < store.term {
            return Err(Der::NOTLEADER);
        }
        store.values.get(key).cloned().ok_or(Der::NONEXIST)
    }

    fn update(
        &mut self,
        at: &Place,
        key: &Key,
        change: Change,
        request: RequestId,
    ) -> Result<Change, Der> {
        if !at.root {
            return Ok(change);
        }
        let mut store = self.store.borrow_mut();
        if at.term < store.term {
            return Err(Der::NOTLEADER);
        }
        store.takes_effect(at, request);
        // A change that an earlier leader applied, and whose answer was lost: what is now.
        if !store.applied.insert(request) {
            return Ok(store
                .values
                .get(key)
                .cloned()
                .map_or(Change::Invalidate, Change::Set));
        }
        match &change {
            Change::Set(value) => store.values.insert(*key, value.clone()),
            Change::Invalidate => store.values.remove(key),
        };
        Ok(change)
    }
}

/// A class without a store: the root's cache is all there is.
pub(crate) struct Plain {
    pub(crate) store: Rc<RefCell<Store>>,
    pub(crate) lease: Nanos,
}

impl Class for Plain {
    fn lease(&self) -> Nanos {
        self.lease
    }

    fn update(
        &mut self,
        at: &Place,
        _key: &Key,
        change: Change,
        request: RequestId,
    ) -> Result<Change, Der> {
        if at.root {
            self.store.borrow_mut().takes_effect(at, request);
        }
        Ok(change)
    }
}
