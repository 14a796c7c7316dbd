//! What a user of incast variables supplies.

use daos_errno::Der;

use crate::message::{Change, RequestId};
use crate::options::{INLINE, Nanos};
use crate::{Key, NsId, Value, Version};

/// Where a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The namespace.
    pub ns: NsId,
    /// Term of the leader, as this rank knows it. An authority that outlives leaders refuses terms older than the newest it has seen.
    pub term: u64,
    /// Whether this rank is the root.
    pub root: bool,
}

/// The hooks of a class (DAOS: `struct ds_iv_class_ops`). Each has a default that suits a plain value kept in the caches alone. A hook
/// returns at once; one that would have to wait answers `BUSY`, and the operation comes again until its deadline.
pub trait Class {
    /// The key that stands for all keys equal to this one (DAOS compares; a canonical form can be looked up).
    fn canonical(&self, key: &Key) -> Key {
        *key
    }

    /// Most bytes of a value. Past 19,456 a value travels by bulk.
    fn max_value(&self) -> usize {
        INLINE
    }

    /// How long a rank may serve a value after the root vouched for it. What an update that does not reach a rank costs at most.
    fn lease(&self) -> Nanos {
        30_000_000_000
    }

    /// A rank is about to keep something for this key.
    fn init(&mut self, _key: &Key) {}

    /// A rank keeps nothing for this key any more.
    fn forget(&mut self, _key: &Key) {}

    /// At the root, which has no valid value: gives one. `kept` is what this rank had, perhaps as a mere member of an earlier tree.
    ///
    /// # Errors
    /// Goes to whoever asked: `NONEXIST` for a variable that nobody has set.
    fn fetch(&mut self, _at: &Place, _key: &Key, kept: Option<&Value>) -> Result<Value, Der> {
        kept.cloned().ok_or(Der::NONEXIST)
    }

    /// A change on its way up, at each rank that it passes (`at.root` false), and then at the root, where it takes effect. The answer
    /// is what goes on. `request` is the same when a change comes again after a lost reply or to a new leader: an authority that must not
    /// apply it twice remembers it.
    ///
    /// # Errors
    /// Refuses the change.
    fn update(
        &mut self,
        _at: &Place,
        _key: &Key,
        change: Change,
        _request: RequestId,
    ) -> Result<Change, Der> {
        Ok(change)
    }

    /// A rank learns of a newer version: from below the root it is the value that comes back from a fetch, or down from an update.
    ///
    /// # Errors
    /// The rank does not take it; an eager update fails with this code.
    fn refresh(
        &mut self,
        _at: &Place,
        _key: &Key,
        _change: &Change,
        _version: Version,
    ) -> Result<(), Der> {
        Ok(())
    }

    /// Whether a value that this rank has may be served, beyond what leases say. Copies of it that other xstreams of an engine keep were asked
    /// about when they were handed out.
    fn valid(&self, _key: &Key, _version: Version) -> bool {
        true
    }

    /// Before a change goes on to a rank's children.
    fn pre_sync(&mut self, _at: &Place, _key: &Key, _change: &Change) {}
}
