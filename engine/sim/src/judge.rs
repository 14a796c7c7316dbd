//! Looking at ranks and at what they finished.

use engine_iv::{Done, Key, Rank, Version};

use crate::cluster::{Cluster, NS, Pending};

impl Cluster {
    /// Versions never go back, are of real leaders, and stand for one value each.
    pub(crate) fn look_at(&mut self, rank: Rank) -> Result<(), String> {
        let Some(iv) = &self.nodes[rank as usize].iv else {
            return Ok(());
        };
        for key in &self.keys {
            if let Some(cached) = iv.cached(self.now, NS, key) {
                self.checker.seen(
                    rank,
                    *key,
                    cached.version,
                    cached.value,
                    self.membership.term,
                )?;
            }
        }
        Ok(())
    }

    /// An operation ended: once, in time, and with what the rules promise.
    pub(crate) fn judge(
        &mut self,
        rank: Rank,
        done: &Done,
        pending: Option<Pending>,
    ) -> Result<(), String> {
        let Some(pending) = pending else {
            return Err(format!("operation {} of rank {rank} ended twice", done.op));
        };
        if self.now > pending.deadline {
            let late = (self.now - pending.deadline) / 1000;
            return Err(format!(
                "operation {} of rank {rank} ended {late} us past its deadline",
                done.op
            ));
        }
        let Ok(stamp) = &done.result else {
            return Ok(());
        };
        if pending.fetch {
            let (value, term) = (stamp.value.as_ref(), self.membership.term);
            self.checker
                .seen(rank, pending.key, stamp.version, value, term)?;
        } else {
            self.checker.raise(rank, pending.key, stamp.version);
        }
        if pending.eager {
            return self.eager_returned(rank, pending.key, stamp.version);
        }
        if let Some(at_least) = pending.at_least
            && self.is_current(rank)
            && stamp.version < at_least
        {
            return Err(format!(
                "rank {rank} fetched {:?} of {:?}, and an eager update had returned {at_least:?} before",
                stamp.version,
                pending.key.bytes()
            ));
        }
        Ok(())
    }

    /// Whoever belongs to the group has it, or serves nothing.
    fn eager_returned(&mut self, origin: Rank, key: Key, version: Version) -> Result<(), String> {
        self.checker.eager_returned(key, version);
        for rank in self.membership.group.members().to_vec() {
            let Some(iv) = self.nodes[rank as usize]
                .iv
                .as_ref()
                .filter(|_| self.is_current(rank))
            else {
                continue;
            };
            let cached = iv.cached(self.now, NS, &key);
            if cached.is_some_and(|cached| cached.valid && cached.version < version) {
                return Err(format!(
                    "the eager update of rank {origin} returned {version:?} of {:?}, and rank {rank} still serves {:?}",
                    key.bytes(),
                    cached.map(|c| c.version)
                ));
            }
            for reader in 0..self.nodes[rank as usize].xstreams.count() {
                self.found_below(rank, reader, &key, Some(version))?;
            }
        }
        Ok(())
    }
}
