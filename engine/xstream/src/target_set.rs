//! A bit per target, as DAOS puts it on the wire.

/// Which targets a collective runs on: least significant bit first in each byte, `((n - 1) >> 3) + 1` bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct TargetSet {
    bits: Vec<u8>,
}

impl TargetSet {
    /// All of `targets` targets; bits past the last are 0. DAOS: `dss_build_coll_bitmap`.
    pub fn all(targets: u32) -> TargetSet {
        let mut set = TargetSet {
            bits: vec![0; targets.div_ceil(8) as usize],
        };
        (0..targets).for_each(|target| set.bits[(target / 8) as usize] |= 1 << (target % 8));
        set
    }

    /// The same without `target`; no change if it is not in there.
    #[must_use]
    pub fn without(mut self, target: u32) -> TargetSet {
        if let Some(byte) = self.bits.get_mut((target / 8) as usize) {
            *byte &= !(1 << (target % 8));
        }
        self
    }

    /// From the wire. Targets past its end are not in it.
    pub fn from_bytes(bits: &[u8]) -> TargetSet {
        TargetSet {
            bits: bits.to_vec(),
        }
    }

    /// For the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// Whether `target` is in it.
    pub fn contains(&self, target: u32) -> bool {
        self.bits
            .get((target / 8) as usize)
            .is_some_and(|byte| byte & (1 << (target % 8)) != 0)
    }
}

impl std::fmt::Debug for TargetSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = 0..u32::try_from(self.bits.len())
            .unwrap_or(u32::MAX)
            .saturating_mul(8);
        f.debug_set()
            .entries(all.filter(|target| self.contains(*target)))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_stand_as_in_daos() {
        assert_eq!(TargetSet::all(1).as_bytes(), [0x01]);
        assert_eq!(TargetSet::all(8).as_bytes(), [0xff]);
        assert_eq!(TargetSet::all(9).as_bytes(), [0xff, 0x01]);
        assert_eq!(
            TargetSet::all(10)
                .without(0)
                .without(9)
                .without(77)
                .as_bytes(),
            [0xfe, 0x01]
        );
        let set = TargetSet::from_bytes(&[0x05]);
        assert_eq!(
            (0..10)
                .filter(|target| set.contains(*target))
                .collect::<Vec<_>>(),
            [0, 2]
        );
        assert_eq!(format!("{set:?}"), "{0, 2}");
    }
}
