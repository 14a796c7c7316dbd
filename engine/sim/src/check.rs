//! The rules, and how their violation is reported.

use std::collections::BTreeMap;
use std::fmt;

use engine_iv::{Key, Nanos, Rank, Value, Version};

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The seed.
    pub seed: u64,
    /// When, in virtual time.
    pub at: Nanos,
    /// What.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ms, seed) = (self.at / 1_000_000, self.seed);
        write!(
            f,
            "seed {seed}, after {ms} ms: {}\n  replay: cargo run -p engine_sim -- --seed {seed} --trace",
            self.what
        )
    }
}

/// What has been seen of all ranks.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    /// By rank in its present life: the newest version of each variable.
    newest: BTreeMap<(Rank, Key), Version>,
    /// The same of the xstreams below it.
    below: BTreeMap<(Rank, usize, Key), Version>,
    /// Which value a version stands for, everywhere.
    values: BTreeMap<(Key, Version), Value>,
    /// By variable: the newest version whose eager update has returned.
    everywhere: BTreeMap<Key, Version>,
}

impl Checker {
    /// A rank has this version of a variable, and perhaps its value.
    pub(crate) fn seen(
        &mut self,
        rank: Rank,
        key: Key,
        version: Version,
        value: Option<&Value>,
        term: u64,
    ) -> Result<(), String> {
        let newest = self.newest.entry((rank, key)).or_default();
        if version < *newest {
            return Err(format!(
                "rank {rank} went back from {newest:?} to {version:?} of {:?}",
                key.bytes()
            ));
        }
        *newest = version;
        match value {
            Some(value) => self.stands_for(rank, key, version, value, term),
            None => Checker::is_of_a_leader(rank, version, term),
        }
    }

    fn is_of_a_leader(rank: Rank, version: Version, term: u64) -> Result<(), String> {
        if version.term > term {
            return Err(format!(
                "rank {rank} believes in {version:?}, and no leader has had a term past {term}"
            ));
        }
        Ok(())
    }

    /// A version stands for one value everywhere, and is of a leader that there was.
    pub(crate) fn stands_for(
        &mut self,
        rank: Rank,
        key: Key,
        version: Version,
        value: &Value,
        term: u64,
    ) -> Result<(), String> {
        Checker::is_of_a_leader(rank, version, term)?;
        let known = self
            .values
            .entry((key, version))
            .or_insert_with(|| value.clone());
        if known != value {
            return Err(format!(
                "{version:?} of {:?} is one value here and another on rank {rank}",
                key.bytes()
            ));
        }
        Ok(())
    }

    /// An xstream below a rank serves this version.
    pub(crate) fn seen_below(
        &mut self,
        rank: Rank,
        reader: usize,
        key: Key,
        version: Version,
    ) -> Result<(), String> {
        let newest = self.below.entry((rank, reader, key)).or_default();
        if version < *newest {
            return Err(format!(
                "xstream {reader} of rank {rank} went back from {newest:?} to {version:?} of {:?}",
                key.bytes()
            ));
        }
        *newest = version;
        Ok(())
    }

    /// A rank was told that its change has this version: from now on it knows nothing older.
    pub(crate) fn raise(&mut self, rank: Rank, key: Key, version: Version) {
        let newest = self.newest.entry((rank, key)).or_default();
        *newest = version.max(*newest);
    }

    /// A rank begins another life.
    pub(crate) fn forget(&mut self, rank: Rank) {
        self.newest.retain(|(of, _), _| *of != rank);
        self.below.retain(|(of, _, _), _| *of != rank);
    }

    pub(crate) fn eager_returned(&mut self, key: Key, version: Version) {
        let newest = self.everywhere.entry(key).or_default();
        *newest = version.max(*newest);
    }

    /// What everyone must have at least.
    pub(crate) fn everywhere(&self, key: &Key) -> Version {
        self.everywhere.get(key).copied().unwrap_or_default()
    }
}
