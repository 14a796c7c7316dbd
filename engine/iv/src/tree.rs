//! Who is whose parent (DAOS `src/cart/crt_tree_{flat,kary,knomial}.c`).
//!
//! Nodes are numbered from the root, which is 0: a rank's number is its place among the members, counted from the root's place and
//! around the end. So all ranks compute the same tree from the same group and the same root.

use daos_errno::Der;

use crate::{Group, Rank};

/// The shape of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// Everyone is a child of the root.
    Flat,
    /// Every node has up to this many children.
    Kary(u32),
    /// Binomial, with this base: most nodes are near the root.
    Knomial(u32),
}

impl Default for Tree {
    /// What DAOS's engine uses.
    fn default() -> Tree {
        Tree::Knomial(4)
    }
}

impl Tree {
    /// Checks the ratio.
    ///
    /// # Errors
    /// `INVAL` unless it is from 2 to 64, as in DAOS.
    pub fn checked(self) -> Result<Tree, Der> {
        match self {
            Tree::Flat | Tree::Kary(2..=64) | Tree::Knomial(2..=64) => Ok(self),
            Tree::Kary(_) | Tree::Knomial(_) => Err(Der::INVAL),
        }
    }

    /// The parent of `rank` under `root`; `None` for the root, and if one of them is no member.
    pub fn parent(self, group: &Group, root: Rank, rank: Rank) -> Option<Rank> {
        let (size, root) = (group.members().len() as u32, group.position(root)?);
        let node = (group.position(rank)? + size - root) % size;
        let parent = self.parent_node(node)?;
        group
            .members()
            .get(((parent + root) % size) as usize)
            .copied()
    }

    /// The children of `rank` under `root`, none if one of them is no member.
    pub fn children(self, group: &Group, root: Rank, rank: Rank) -> Vec<Rank> {
        let size = group.members().len() as u32;
        let (Some(root), Some(at)) = (group.position(root), group.position(rank)) else {
            return Vec::new();
        };
        let nodes = self.child_nodes((at + size - root) % size, size);
        let rank = |node: u32| group.members()[((node + root) % size) as usize];
        nodes.into_iter().map(rank).collect()
    }

    /// Messages from `rank` up to `root`.
    pub fn depth(self, group: &Group, root: Rank, rank: Rank) -> u32 {
        std::iter::successors(Some(rank), |&at| self.parent(group, root, at)).count() as u32 - 1
    }

    fn parent_node(self, node: u32) -> Option<u32> {
        if node == 0 {
            return None;
        }
        Some(match self {
            Tree::Flat => 0,
            Tree::Kary(ratio) => (node - 1) / ratio,
            Tree::Knomial(base) => {
                // Clear the lowest digit that is not zero.
                let mut unit = 1;
                while (node / unit).is_multiple_of(base) {
                    unit *= base;
                }
                node - node / unit % base * unit
            }
        })
    }

    fn child_nodes(self, node: u32, size: u32) -> Vec<u32> {
        match self {
            Tree::Flat if node == 0 => (1..size).collect(),
            Tree::Flat => Vec::new(),
            Tree::Kary(ratio) => {
                let first = node.saturating_mul(ratio).saturating_add(1);
                (first..first.saturating_add(ratio).min(size)).collect()
            }
            Tree::Knomial(base) => {
                // While all digits at and below this one are zero, it may become 1 to base - 1.
                let mut children = Vec::new();
                let mut unit = 1_u32;
                while unit < size && (node / unit).is_multiple_of(base) {
                    let all = (1..base).map(|digit| node + digit * unit);
                    children.extend(all.filter(|&child| child < size));
                    unit = unit.saturating_mul(base);
                }
                children
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(size: u32) -> Group {
        Group::new(1, (0..size).map(|at| at * 3 + 1))
    }

    #[test]
    fn knomial_trees_are_daos() {
        let group = Group::new(1, 0..20);
        let tree = Tree::Knomial(4);
        assert_eq!(tree.children(&group, 0, 0), [1, 2, 3, 4, 8, 12, 16]);
        assert_eq!(tree.children(&group, 0, 4), [5, 6, 7]);
        assert_eq!(tree.children(&group, 0, 16), [17, 18, 19]);
        assert_eq!(tree.children(&group, 0, 5), [0; 0]);
        assert_eq!(
            [4, 7, 18].map(|rank| tree.parent(&group, 0, rank)),
            [Some(0), Some(4), Some(16)]
        );
        // The root at 18: rank 19 is node 1, rank 2 is node 4.
        assert_eq!(tree.children(&group, 18, 18), [19, 0, 1, 2, 6, 10, 14]);
        assert_eq!(
            (tree.parent(&group, 18, 3), tree.depth(&group, 18, 3)),
            (Some(2), 2)
        );
    }

    #[test]
    fn parents_and_children_agree_and_reach_everyone() {
        for tree in [
            Tree::Flat,
            Tree::Kary(2),
            Tree::Kary(7),
            Tree::Knomial(2),
            Tree::Knomial(4),
            Tree::Knomial(64),
        ] {
            for size in [1, 2, 3, 5, 16, 17, 64, 100] {
                let group = group(size);
                for root in [group.members()[0], group.members()[size as usize / 2]] {
                    let mut children = 0;
                    for &rank in group.members() {
                        let own = tree.children(&group, root, rank);
                        children += own.len();
                        assert!(
                            own.iter()
                                .all(|&child| tree.parent(&group, root, child) == Some(rank))
                        );
                        assert!(tree.depth(&group, root, rank) < size);
                    }
                    assert_eq!(children, size as usize - 1, "{tree:?} of {size}");
                }
            }
        }
    }

    #[test]
    fn strangers_have_no_place() {
        let group = group(4);
        assert_eq!(Tree::Flat.parent(&group, 1, 2), None);
        assert_eq!(Tree::Flat.parent(&group, 2, 1), None);
        assert_eq!(Tree::Flat.children(&group, 2, 1), [0; 0]);
        for tree in [Tree::Kary(1), Tree::Knomial(65), Tree::Knomial(0)] {
            assert_eq!(tree.checked(), Err(Der::INVAL));
        }
        assert_eq!(Tree::Knomial(2).checked(), Ok(Tree::Knomial(2)));
    }
}
