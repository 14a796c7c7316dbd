//! The same site is reported once in two seconds, however many units of it run too long.

use crate::observer::AGAIN_NS;
use spdk_thread::{Unit, UnitKind};
use std::collections::HashMap;

/// Sites that are remembered; beyond that the one reported longest ago is forgotten.
const SITES: usize = 256;

/// When each site was reported last.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    last: HashMap<(UnitKind, &'static str), u64>,
}

impl Sites {
    /// Whether `unit` may be reported at `now` nanoseconds, which is remembered.
    pub(crate) fn admit(&mut self, now: u64, unit: Unit) -> bool {
        let key = (unit.kind, unit.name);
        if let Some(&last) = self.last.get(&key)
            && now.saturating_sub(last) < AGAIN_NS
        {
            return false;
        }
        if self.last.len() >= SITES
            && !self.last.contains_key(&key)
            && let Some(oldest) = self
                .last
                .iter()
                .min_by_key(|(_, at)| **at)
                .map(|(key, _)| *key)
        {
            self.last.remove(&oldest);
        }
        self.last.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{SITES, Sites};
    use spdk_thread::{Unit, UnitKind};

    fn unit(kind: UnitKind, name: &'static str) -> Unit {
        Unit {
            kind,
            name,
            sequence: 0,
        }
    }

    #[test]
    fn a_site_is_admitted_once_in_two_seconds() {
        const S: u64 = 1_000_000_000;
        let mut sites = Sites::default();
        let scrub = unit(UnitKind::Task, "obj:scrub");
        assert!(sites.admit(10 * S, scrub));
        assert!(!sites.admit(12 * S - 1, scrub));
        assert!(sites.admit(11 * S, unit(UnitKind::Poller, "obj:scrub")));
        assert!(sites.admit(11 * S, unit(UnitKind::Task, "obj:gc")));
        assert!(sites.admit(12 * S, scrub));
        assert!(!sites.admit(13 * S, scrub));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut sites = Sites::default();
        for i in 0..2 * SITES as u64 {
            let name: &'static str = Box::leak(format!("site {i}").into_boxed_str());
            assert!(sites.admit(i, unit(UnitKind::Task, name)));
        }
        assert_eq!(sites.last.len(), SITES);
    }
}
