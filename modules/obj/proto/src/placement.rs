//! Which target holds what.

use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

/// Bytes of an object that one target holds together. The last piece may be shorter.
pub const PIECE_SIZE: usize = 1 << 20;
/// Largest object, bytes.
pub const OBJECT_MAX: u64 = 1 << 30;

/// Number of pieces of an object: an empty object has none.
pub const fn pieces_of(size: u64) -> u32 {
    size.div_ceil(PIECE_SIZE as u64) as u32
}

/// The RPC tag of a target's main xstream: the system xstream is 0, target `t` is `1 + t`.
pub const fn main_tag(target: u32) -> u32 {
    1 + target
}

/// Where one object lives: its head record at the target that the hash names, piece `i` on the `i`-th target after it.
/// Piece 0 is with the head, so that a small object is one request to one target; consecutive pieces are on different
/// targets, so that a large one moves at the speed of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    hash: u64,
    targets: u32,
}

impl Placement {
    /// Placement of object `name` of container `cont` over `targets` targets (at least 1).
    pub fn new(cont: &Uuid, name: &str, targets: u32) -> Placement {
        let mut hasher = Xxh3::new();
        hasher.update(cont.as_bytes());
        hasher.update(name.as_bytes());
        Placement {
            hash: hasher.digest(),
            targets: targets.max(1),
        }
    }

    /// Target of the head record.
    pub fn head(&self) -> u32 {
        (self.hash % u64::from(self.targets)) as u32
    }

    /// Target of a piece.
    pub fn piece(&self, index: u32) -> u32 {
        ((self.hash % u64::from(self.targets) + u64::from(index)) % u64::from(self.targets)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pieces_are_counted_in_mebibytes() {
        assert_eq!(pieces_of(0), 0);
        assert_eq!(pieces_of(1), 1);
        assert_eq!(pieces_of(PIECE_SIZE as u64), 1);
        assert_eq!(pieces_of(PIECE_SIZE as u64 + 1), 2);
        assert_eq!(pieces_of(OBJECT_MAX), 1024);
    }

    #[test]
    fn placement_is_fixed_for_ever() {
        let cont = Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        let at = Placement::new(&cont, "dir/file", 16);
        assert_eq!(
            at.hash,
            xxhash_rust::xxh3::xxh3_64(&[&cont.as_bytes()[..], b"dir/file"].concat())
        );
        assert_eq!(at.piece(0), at.head());
    }

    #[test]
    fn heads_spread_evenly() {
        let cont = Uuid::from_u128(7);
        let mut count = [0u32; 4];
        for i in 0..4000 {
            count[Placement::new(&cont, &format!("object-{i}"), 4).head() as usize] += 1;
        }
        assert!(count.iter().all(|&n| (900..1100).contains(&n)), "{count:?}");
    }

    proptest! {
        #[test]
        fn consecutive_pieces_visit_every_target(name in ".{1,40}", targets in 1u32..64, start in 0u32..900) {
            let at = Placement::new(&Uuid::from_u128(1), &name, targets);
            let mut seen: Vec<u32> = (start..start + targets).map(|i| at.piece(i)).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..targets).collect::<Vec<_>>());
        }
    }
}
