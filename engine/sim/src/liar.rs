//! A rank that sends what it should not.

use daos_errno::Der;
use engine_iv::{Body, Change, Copy, Message, Nanos, Rank, Version};

use crate::cluster::{Cluster, NS};
use crate::scenario::MS;

impl Cluster {
    /// A message from a rank that lies: a version of a leader that does not exist, and one past the child's own parent.
    pub(crate) fn lie(&mut self, liar: Rank) {
        let (group, term) = (self.membership.group.version(), self.membership.term);
        for to in 0..self.nodes.len() as Rank {
            let key = self.rng.pick(&self.keys.clone());
            let future = Version {
                term: term + 7,
                sequence: 1,
            };
            let copy = Copy {
                version: future,
                value: [0_u8; 8].as_slice().into(),
                fresh_for: Nanos::MAX,
            };
            let value = copy.value.clone();
            let forged = Body::Sync {
                token: self.rng.number(),
                key,
                version: future,
                change: Change::Set(value),
                wait: false,
                budget: 1_000 * MS,
            };
            let answer = Body::Fetched {
                token: self.rng.below(8),
                result: Ok(copy),
            };
            for body in [
                forged,
                answer,
                Body::Synced {
                    token: self.rng.below(8),
                    result: Err(Der::INVAL),
                },
            ] {
                let message = Message {
                    ns: NS,
                    group,
                    term,
                    body,
                };
                self.post(liar, to, message);
            }
        }
    }
}
