//! Engines among themselves: who belongs together, how a rank is reached, and what makes a call count once.
//!
//! | module | concept |
//! |---|---|
//! | `membership` | ranks and their addresses, shared by all xstreams of an engine; who this engine is among them |
//! | `ranks` | calls by rank |
//! | `link` | the connection to one xstream of one rank, made again when it breaks |
//! | `duplicates` | calls that came before |
//! | `heartbeat` | who is there |

mod collective;
mod duplicates;
mod heartbeat;
mod link;
mod membership;
mod ranks;

pub use collective::{Collective, Part};
pub(crate) use duplicates::{Admitted, Duplicates};
pub use heartbeat::{GROUP_MODULE, GROUP_TELL, Heartbeat, Presence, Seen, register};
pub(crate) use link::Links;
pub(crate) use membership::View;
pub use membership::{Group, Member, Membership};
pub use ranks::{Again, RankCall, Ranks};
