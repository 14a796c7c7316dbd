//! Pools that have something queued, in a ring that is gone round: who has had its turn comes last.

use crate::slab::NONE;

/// A pool's place in a ring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    prev: u32,
    next: u32,
    /// Weights that it may still kick before the next one's turn; overdrawn by one request at most.
    pub(crate) deficit: i32,
    pub(crate) linked: bool,
}

impl Link {
    pub(crate) const OUT: Link = Link {
        prev: NONE,
        next: NONE,
        deficit: 0,
        linked: false,
    };
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Ring {
    cursor: u32,
    len: u32,
}

impl Ring {
    pub(crate) const EMPTY: Ring = Ring {
        cursor: NONE,
        len: 0,
    };

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Whose turn it is.
    pub(crate) fn at(&self) -> u32 {
        self.cursor
    }

    pub(crate) fn advance(&mut self, link: Link) {
        self.cursor = link.next;
    }

    /// As the last to have a turn.
    pub(crate) fn insert<L>(
        &mut self,
        all: &mut [L],
        index: u32,
        link: impl Fn(&mut L) -> &mut Link,
    ) {
        let (prev, next) = match self.cursor {
            NONE => (index, index),
            cursor => (link(&mut all[cursor as usize]).prev, cursor),
        };
        *link(&mut all[index as usize]) = Link {
            prev,
            next,
            deficit: 0,
            linked: true,
        };
        link(&mut all[prev as usize]).next = index;
        link(&mut all[next as usize]).prev = index;
        if self.cursor == NONE {
            self.cursor = index;
        }
        self.len += 1;
    }

    pub(crate) fn remove<L>(
        &mut self,
        all: &mut [L],
        index: u32,
        link: impl Fn(&mut L) -> &mut Link,
    ) {
        let Link { prev, next, .. } = std::mem::replace(link(&mut all[index as usize]), Link::OUT);
        self.len -= 1;
        if self.len == 0 {
            self.cursor = NONE;
            return;
        }
        link(&mut all[prev as usize]).next = next;
        link(&mut all[next as usize]).prev = prev;
        if self.cursor == index {
            self.cursor = next;
        }
    }
}
