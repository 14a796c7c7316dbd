//! Why a ULT has no result.

use crate::memory::MAX_SIZE;
use daos_errno::Der;
use std::io;

/// Why a ULT has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UltError {
    /// It panicked, or an exception of another language left its function; the log says which.
    #[error("the ULT panicked")]
    Panicked,
    /// It never began.
    #[error("no stack for the ULT: {0}")]
    NoStack(#[from] StackError),
}

/// Why a ULT has no stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StackError {
    /// More than the largest stack was asked for.
    #[error(
        "{0} bytes were asked for, more than the largest stack ({MAX_SIZE}): ask for less (stack_size)"
    )]
    TooLarge(usize),
    /// The process has as many stacks as it may have.
    #[error(
        "all {0} stacks of the engine are in use (a quarter of the kernel's vm.max_map_count): run fewer ULTs with stacks of their \
         own at once, or raise it with `sysctl -w vm.max_map_count=N` before the engine starts"
    )]
    TooMany(usize),
    /// The system refused so many bytes, with this `errno`.
    #[error(
        "the system has no {0} bytes for a stack ({error}): give the engine more memory (LimitAS= or MemoryMax= of its unit), run fewer \
         ULTs with stacks of their own at once, or ask for smaller stacks (stack_size)",
        error = io::Error::from_raw_os_error(*.1)
    )]
    NoMemory(usize, i32),
}

impl StackError {
    /// The number that a joiner gets.
    #[must_use]
    pub fn der(&self) -> Der {
        match self {
            StackError::TooLarge(_) => Der::INVAL,
            StackError::TooMany(_) | StackError::NoMemory(..) => Der::NOMEM,
        }
    }
}
