//! Bounded lock-free queues between cores, and the message that fits into one of their slots.
//!
//! * [`mpsc`]: many senders, one receiver; the mailbox of a thread (SPDK `spdk_ring` in its MP/SC mode).
//! * [`spsc`]: one sender, one receiver; for pairs (SPDK `spdk_ring` in its SP/SC mode).
//! * [`oneshot`]: one value, once, to a task that waits for it.
//! * [`Doorbell`]: resting without missing what senders bring.
//! * [`Marker`]: which unit of work a core runs now, for those who watch it.
//! * [`Message`]: an erased closure of one cache line with its slot, so that sending allocates nothing.
//!
//! Neighbours: `spdk_thread` builds mailboxes and replies from these; nothing below.
//!
//! Thread rule: senders may be used from any OS thread; a receiver belongs to whoever holds it and may move
//! between OS threads, but is never shared.
//!
//! Full is an error that gives the value back; nothing here spins, parks, or allocates after construction.
//! The order is FIFO per sender. `docs/internals/ring.md` has the invariants.

mod doorbell;
mod marker;
mod message;
pub mod mpsc;
pub mod oneshot;
mod primitive;
pub mod spsc;

pub use doorbell::Doorbell;
pub use marker::{Marker, PackedStr, Unit, UnitKind, UnitName};
pub use message::Message;
