//! Which changes the root has seen: a change that comes again, by a lost reply or a network that duplicates, takes effect once.

use std::collections::BTreeMap;

use daos_errno::Der;

use crate::message::RequestId;
use crate::{Rank, Version};

/// Changes of one rank that are remembered. A rank has fewer under way; one that comes again after so many later ones of its rank is
/// refused: STALE.
const REMEMBERED: usize = 256;

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is on its way down, as this spread.
    Spreading(u64),
    /// It took effect with this version; and `Err`: not everyone took it.
    Applied(Version, Result<(), Der>),
}

/// The changes of all ranks.
#[derive(Debug, Default)]
pub(crate) struct Window(BTreeMap<Rank, Origin>);

#[derive(Debug, Default)]
struct Origin {
    incarnation: u64,
    /// All up to this one are forgotten.
    floor: u64,
    seen: BTreeMap<u64, Seen>,
}

impl Window {
    /// What is known of a change; `Ok(None)`: it is new.
    pub(crate) fn look(&mut self, request: RequestId) -> Result<Option<Seen>, Der> {
        let origin = self.0.entry(request.rank).or_default();
        if request.incarnation > origin.incarnation {
            *origin = Origin {
                incarnation: request.incarnation,
                ..Origin::default()
            };
        }
        if request.incarnation < origin.incarnation || request.number <= origin.floor {
            return Err(Der::STALE);
        }
        Ok(origin.seen.get(&request.number).copied())
    }

    pub(crate) fn note(&mut self, request: RequestId, seen: Seen) {
        let origin = self.0.entry(request.rank).or_default();
        if request.incarnation != origin.incarnation || request.number <= origin.floor {
            return;
        }
        origin.seen.insert(request.number, seen);
        while origin.seen.len() > REMEMBERED {
            let oldest = origin.seen.pop_first();
            origin.floor = oldest.map_or(origin.floor, |(number, _)| number);
        }
    }

    /// A new leader knows nothing of what earlier ones did.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(incarnation: u64, number: u64) -> RequestId {
        RequestId {
            rank: 7,
            incarnation,
            number,
        }
    }

    #[test]
    fn a_change_is_new_once_and_too_old_in_the_end() {
        let mut window = Window::default();
        let applied = Seen::Applied(Version::default(), Ok(()));
        assert_eq!(window.look(request(1, 2)), Ok(None));
        window.note(request(1, 2), applied);
        assert_eq!(window.look(request(1, 2)), Ok(Some(applied)));
        assert_eq!(window.look(request(1, 1)), Ok(None), "reordered, not seen");
        for number in 3..3 + REMEMBERED as u64 {
            window.note(request(1, number), applied);
        }
        assert_eq!(window.look(request(1, 2)), Err(Der::STALE));
        assert_eq!(window.look(request(1, 1)), Err(Der::STALE));
    }

    #[test]
    fn a_new_life_counts_anew_and_an_old_one_is_over() {
        let mut window = Window::default();
        window.note(request(0, 5), Seen::Spreading(1));
        assert_eq!(window.look(request(2, 5)), Ok(None));
        assert_eq!(window.look(request(0, 5)), Err(Der::STALE));
        assert_eq!(window.look(request(1, 9)), Err(Der::STALE));
    }
}
