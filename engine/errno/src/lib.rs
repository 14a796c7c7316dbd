//! DAOS error numbers.
//!
//! One open set of positive codes, spelled as in DAOS (`src/include/daos_errno.h`): range 1000 comes from its
//! run-time library, range 2000 from DAOS itself. Functions and wire messages carry the negative (`Der::neg`).
//! A leaf: everything that reports an error to a peer, a module or a tool names it from here.

mod codes;
mod from_errno;

pub use codes::Der;
pub use from_errno::from_errno;
