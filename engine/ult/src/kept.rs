//! Stacks that an OS thread keeps for its next ULTs, by size; beyond a bound their memory goes back to the system.

use crate::StackError;
use crate::memory::{StackMemory, limit, mapping_len};
use std::cell::RefCell;

/// Bytes of the stacks that an OS thread keeps, guards included: 85 of the default size.
const KEPT_BYTES: usize = 16 << 20;
/// Larger ones are not kept: who needs one can wait for the system.
const KEPT_LARGEST: usize = 2 << 20;
/// Sizes of which stacks are kept at once.
const SIZES_MAX: usize = 8;

thread_local! {
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept { sizes: Vec::new(), bytes: 0 }) };
}

#[derive(Default)]
struct Kept {
    sizes: Vec<(usize, Vec<StackMemory>)>,
    bytes: usize,
}

impl Kept {
    fn take(&mut self, len: usize) -> Option<StackMemory> {
        let of_size = self.sizes.iter_mut().find(|(size, _)| *size == len);
        let stack = of_size.and_then(|(_, stacks)| stacks.pop())?;
        self.bytes -= len;
        Some(stack)
    }

    /// Answers what is not kept.
    fn give(&mut self, stack: StackMemory) -> Option<StackMemory> {
        let len = stack.len();
        if len > KEPT_LARGEST {
            return Some(stack);
        }
        let place = match self.sizes.iter().position(|(size, _)| *size == len) {
            Some(place) => place,
            None => {
                if self.sizes.len() == SIZES_MAX {
                    let unused = self.sizes.iter().position(|(_, stacks)| stacks.is_empty());
                    let Some(unused) = unused else {
                        return Some(stack);
                    };
                    self.sizes.swap_remove(unused);
                }
                self.sizes.push((len, Vec::new()));
                self.sizes.len() - 1
            }
        };
        self.sizes[place].1.push(stack);
        self.bytes += len;
        None
    }

    /// Takes one of the size with the most bytes, when there are too many: sizes that are used less and less make room.
    fn too_much(&mut self) -> Option<StackMemory> {
        if self.bytes <= KEPT_BYTES {
            return None;
        }
        let most = self.sizes.iter_mut();
        let (len, stacks) = most.max_by_key(|(len, stacks)| len * stacks.len())?;
        self.bytes -= *len;
        stacks.pop()
    }
}

/// A stack for a ULT that needs `size` bytes: one of this OS thread's kept ones, or a new one.
pub(crate) fn take(size: usize) -> Result<StackMemory, StackError> {
    let len = mapping_len(size)?;
    match KEPT.with_borrow_mut(|kept| kept.take(len)) {
        Some(stack) => Ok(stack),
        None => new(len, limit()),
    }
}

#[cold]
fn new(len: usize, limit: usize) -> Result<StackMemory, StackError> {
    match StackMemory::map(len, limit) {
        Err(StackError::TooMany(_)) => {
            // Stacks of other sizes are of no use now.
            let others = KEPT.take();
            drop(others);
            StackMemory::map(len, limit)
        }
        mapped => mapped,
    }
}

/// For the next ULT of this OS thread.
pub(crate) fn give_back(stack: StackMemory) {
    let mut over = KEPT.with_borrow_mut(|kept| kept.give(stack).or_else(|| kept.too_much()));
    while let Some(stack) = over {
        drop(stack);
        over = KEPT.with_borrow_mut(Kept::too_much);
    }
}

/// Gives the memory behind the kept stacks back; their places stay.
pub(crate) fn forget_contents() {
    KEPT.with_borrow_mut(|kept| {
        let all = kept.sizes.iter_mut().flat_map(|(_, stacks)| stacks);
        all.for_each(StackMemory::forget_contents);
    });
}

/// How many are kept, and their bytes.
pub(crate) fn count() -> (usize, usize) {
    KEPT.with_borrow(|kept| {
        let stacks = kept.sizes.iter().map(|(_, stacks)| stacks.len()).sum();
        (stacks, kept.bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{DEFAULT_SIZE, ENGINE_SIZE, GUARD, MAX_SIZE};

    fn kept() -> Vec<(usize, usize)> {
        KEPT.with_borrow(|kept| {
            let sizes = kept.sizes.iter().map(|(size, all)| (*size, all.len()));
            sizes.filter(|(_, stacks)| *stacks != 0).collect()
        })
    }

    fn many(size: usize, count: usize) -> Vec<StackMemory> {
        (0..count).map(|_| take(size).unwrap()).collect()
    }

    #[test]
    fn stacks_are_kept_by_size_up_to_a_bound_of_bytes() {
        let first = take(0).unwrap();
        let (len, guard) = (first.len(), first.record().guard());
        assert_eq!(len, GUARD + DEFAULT_SIZE + ENGINE_SIZE);
        give_back(first);
        assert_eq!(kept(), [(len, 1)]);
        let again = take(1).unwrap();
        assert_eq!(again.record().guard(), guard, "rounded up to the same size");
        assert_eq!(count(), (0, 0));
        give_back(again);
        many(0, 200).into_iter().for_each(give_back);
        let most = KEPT_BYTES / len;
        assert_eq!((kept(), count()), (vec![(len, most)], (most, most * len)));
        give_back(take(MAX_SIZE).unwrap());
        assert_eq!(kept(), [(len, most)], "too large to be kept");
    }

    #[test]
    fn a_size_that_is_used_makes_room_among_those_that_are_not() {
        many(0, 200).into_iter().for_each(give_back);
        many(1 << 20, 20).into_iter().for_each(give_back);
        let kept_now = kept();
        assert_eq!(kept_now.len(), 2);
        assert!(
            kept_now
                .iter()
                .all(|(len, stacks)| len * stacks > KEPT_BYTES / 3),
            "{kept_now:?}"
        );
        assert!(count().1 <= KEPT_BYTES);
        for size in 2..20 {
            give_back(take(size * DEFAULT_SIZE).unwrap());
        }
        assert_eq!(kept().len(), SIZES_MAX);
        for (len, stacks) in kept() {
            let used = (0..stacks).filter_map(|_| KEPT.with_borrow_mut(|kept| kept.take(len)));
            used.for_each(drop);
        }
        give_back(take(20 * DEFAULT_SIZE).unwrap());
        assert_eq!(kept().len(), 1, "sizes that are gone do not count");
    }

    #[test]
    fn at_the_process_bound_kept_stacks_of_other_sizes_make_room() {
        many(0, 3).into_iter().for_each(give_back);
        let refused = new(mapping_len(1 << 20).unwrap(), 0);
        assert!(matches!(refused.err(), Some(StackError::TooMany(0))));
        assert_eq!(count(), (0, 0));
    }
}
