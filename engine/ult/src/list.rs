//! What operators hear of stacks; on request only, asked on the OS thread whose stacks they are.

use crate::kept;
use crate::memory::for_all;
use std::cell::Cell;

thread_local! {
    /// ULTs that got no stack.
    static REFUSED: Cell<u64> = const { Cell::new(0) };
}

/// Whose ULT it is: what is found in [`stacks`], and named when the stack overflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The name of its xstream.
    pub xstream: &'static str,
    /// The number of its task there.
    pub task: u32,
}

/// How much of its stack a ULT has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackUse {
    /// Bytes of the stack.
    pub size: usize,
    /// Bytes down to the lowest page that was touched: by this ULT, or by one that had the stack before it and after the last
    /// list.
    pub deepest: usize,
}

/// Stacks of an OS thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StackStats {
    /// ULTs run on them.
    pub in_use: usize,
    /// Kept for the next ones.
    pub kept: usize,
    /// Bytes of those that are kept, guards included.
    pub kept_bytes: usize,
    /// ULTs that got none, since the OS thread began.
    pub refused: u64,
}

pub(crate) fn refused() {
    REFUSED.set(REFUSED.get() + 1);
}

/// The stacks of the ULTs that have begun on an xstream and not ended, by the number of their task. A system call for each; afterwards
/// the kept stacks of the OS thread have no memory, so that the next list does not show their past as a new ULT's.
#[must_use]
pub fn stacks(xstream: &str) -> Vec<(u32, StackUse)> {
    let mut found = Vec::new();
    for_all(|stack| {
        if let Some(owner) = stack.owner.get()
            && owner.xstream == xstream
        {
            let (size, deepest) = (stack.size(), stack.touched());
            found.push((owner.task, StackUse { size, deepest }));
        }
    });
    kept::forget_contents();
    found
}

/// The numbers of the calling OS thread.
#[must_use]
pub fn stack_stats() -> StackStats {
    let mut all = 0;
    for_all(|_| all += 1);
    let (kept, kept_bytes) = kept::count();
    StackStats {
        in_use: all - kept,
        kept,
        kept_bytes,
        refused: REFUSED.get(),
    }
}
