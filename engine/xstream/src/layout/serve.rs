//! Which xstream serves which kind of work (DAOS `src/engine/ult.c`, `sched_ult2xs`).

use super::{HelperMode, Layout, SYS_XS_NR, ServeError};
use crate::{XsType, XstreamId};

impl Layout {
    /// The xstream for a kind of work. `turn` is any number that changes from call to call: it spreads work over
    /// equal helpers. `caller` is the xstream that asks, if it is one.
    pub fn serves(
        &self,
        kind: XsType,
        target: Option<u32>,
        caller: Option<XstreamId>,
        turn: u32,
    ) -> Result<XstreamId, ServeError> {
        match kind {
            XsType::OnSelf => caller.ok_or(ServeError::NoCaller),
            XsType::Sys | XsType::Swim | XsType::Drpc => Ok(XstreamId(0)),
            XsType::Vos => self.main_or_error(kind, target),
            XsType::Iofw => {
                let main = self.main_or_error(kind, target)?;
                Ok(match self.mode {
                    HelperMode::PerTarget(0) => self.next_main(target.unwrap_or_default()),
                    HelperMode::PerTarget(_) => XstreamId(main.0 + 1),
                    HelperMode::Pool => {
                        self.pool_helper(target.unwrap_or_default(), turn, self.targets)
                    }
                })
            }
            XsType::Offload => {
                let main = self.main_or_error(kind, target)?;
                Ok(match self.mode {
                    HelperMode::PerTarget(0) => self.next_main(target.unwrap_or_default()),
                    HelperMode::PerTarget(helpers) => XstreamId(main.0 + helpers),
                    HelperMode::Pool => self.pool_offload(target.unwrap_or_default(), turn),
                })
            }
        }
    }

    fn main_or_error(&self, kind: XsType, target: Option<u32>) -> Result<XstreamId, ServeError> {
        let target = target.ok_or(ServeError::NeedsTarget { kind })?;
        self.main_of(target).ok_or(ServeError::NoSuchTarget {
            target,
            targets: self.targets,
        })
    }

    /// Without helpers a neighbour's main takes the work: the next target, on the same node where nodes are told apart.
    fn next_main(&self, target: u32) -> XstreamId {
        let next = self.next_target.get(target as usize).copied();
        let main = next.and_then(|next| self.main_of(next));
        main.unwrap_or(XstreamId(SYS_XS_NR))
    }

    /// One of the first `most` helpers near the target, by turns.
    fn pool_helper(&self, target: u32, turn: u32, most: u32) -> XstreamId {
        let near = &self.near_helpers[target as usize];
        let choices = near.len().min(most as usize).max(1);
        near[turn as usize % choices]
    }

    /// With more helpers than targets the ones past the I/O forwarders do it; otherwise all share both.
    fn pool_offload(&self, target: u32, turn: u32) -> XstreamId {
        let first = SYS_XS_NR + self.targets;
        match self.placement {
            placement if placement.is_spread() => self.pool_helper(target, turn, self.helpers),
            _ if self.helpers > self.targets => {
                XstreamId(first + self.targets + target % (self.helpers - self.targets))
            }
            _ => XstreamId(first + target % self.helpers),
        }
    }
}
