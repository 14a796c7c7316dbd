//! What has happened to each variable at this rank, for operators.

use std::collections::HashMap;

use daos_errno::Der;
use engine_iv::{Failure, Key, NsId, QuickBuild, Rank, Version};

/// Variables that are remembered; of further ones nothing is.
const MOST: usize = 65_536;

/// The last failure of an operation of this engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastError {
    /// What was wrong.
    pub der: Der,
    /// Whom the last attempt asked; `None`: nobody but this rank.
    pub asked: Option<Rank>,
    /// How long ago, nanoseconds.
    pub ago: u64,
}

/// What became of operations of this engine on one variable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Since the version that this rank knows came here, nanoseconds.
    pub age: Option<u64>,
    /// Operations that have ended.
    pub operations: u64,
    /// How many of these failed.
    pub failures: u64,
    /// Attempts after the first, of all of them.
    pub retries: u64,
    /// Of the last one that failed.
    pub last_error: Option<LastError>,
}

#[derive(Clone, Copy, Default)]
struct Record {
    version: Version,
    since: u64,
    operations: u64,
    failures: u64,
    retries: u64,
    last: Option<(Failure, u64)>,
}

/// System xstream only.
#[derive(Default)]
pub(crate) struct History {
    records: HashMap<(NsId, Key), Record, QuickBuild>,
}

impl History {
    fn of(&mut self, ns: NsId, key: Key) -> Option<&mut Record> {
        if self.records.len() >= MOST && !self.records.contains_key(&(ns, key)) {
            return None;
        }
        Some(self.records.entry((ns, key)).or_default())
    }

    /// This rank knows this version now.
    pub(crate) fn heard(&mut self, now: u64, ns: NsId, key: Key, version: Version) {
        if let Some(record) = self.of(ns, key)
            && record.version != version
        {
            (record.version, record.since) = (version, now);
        }
    }

    /// An operation has ended.
    pub(crate) fn ended(
        &mut self,
        now: u64,
        (ns, key): (NsId, Key),
        attempts: u32,
        failure: Option<Failure>,
    ) {
        let Some(record) = self.of(ns, key) else {
            return;
        };
        record.operations += 1;
        record.retries += u64::from(attempts.saturating_sub(1));
        if let Some(failure) = failure {
            record.failures += 1;
            record.last = Some((failure, now));
        }
    }

    /// A namespace is gone.
    pub(crate) fn forget(&mut self, ns: NsId) {
        self.records.retain(|(of, _), _| *of != ns);
    }

    pub(crate) fn past(&self, now: u64, ns: NsId, key: &Key) -> Past {
        let Some(record) = self.records.get(&(ns, *key)) else {
            return Past::default();
        };
        Past {
            age: (record.since > 0).then(|| now.saturating_sub(record.since)),
            operations: record.operations,
            failures: record.failures,
            retries: record.retries,
            last_error: record.last.map(|(failure, when)| LastError {
                der: failure.der,
                asked: failure.asked,
                ago: now.saturating_sub(when),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variables_past_is_its_operations_and_the_age_of_its_version() {
        let (mut history, key) = (History::default(), Key::new(1, b"k").unwrap());
        let version = |sequence| Version { term: 1, sequence };
        assert_eq!(history.past(9, 7, &key), Past::default());
        history.heard(10, 7, key, version(1));
        history.heard(20, 7, key, version(1));
        assert_eq!(
            history.past(25, 7, &key).age,
            Some(15),
            "the same again is not new"
        );
        history.heard(30, 7, key, version(2));
        let failure = Failure {
            der: Der::GRPVER,
            attempts: 3,
            asked: Some(4),
            expired: true,
        };
        history.ended(40, (7, key), 3, Some(failure));
        history.ended(45, (7, key), 1, None);
        let past = history.past(50, 7, &key);
        assert_eq!((past.age, past.operations), (Some(20), 2));
        assert_eq!((past.failures, past.retries), (1, 2));
        let last = LastError {
            der: Der::GRPVER,
            asked: Some(4),
            ago: 10,
        };
        assert_eq!(past.last_error, Some(last));
        history.forget(7);
        assert_eq!(history.past(50, 7, &key), Past::default());
    }
}
