//! TLS of the data RPC: who we are, whom we believe, and the encrypted stream. No I/O of its own.
//!
//! An engine and its clients have certificates of one private authority, and each shows its own to the other: TLS 1.3 with
//! both sides authenticated, by rustls. [`Identity`] holds what was read from the files that the configuration names, and
//! reads them again while connections go on; a [`Stream`] is one connection: the caller moves bytes between it and a socket,
//! blocking or not. [`Certificate`] says what a certificate says. [`TlsError`] says what, where, why and how to cure it.
//!
//! What a certificate may be used for tells engines from clients: one that may serve (extended key usage *serverAuth*) is an
//! engine's, and only such a peer may speak to an engine as an engine ([`Certificate::may_serve`]).
//!
//! A leaf: the engine drives streams from its reactors, the blocking client from its own thread; neither is known here. (The
//! per-xstream storage that DAOS also calls TLS is `engine_tls`.)
//!
//! Thread rule: [`Identity`] may be shared by all threads; a [`Stream`] is moved, not shared.
//!
//! | module | concept |
//! |---|---|
//! | `identity` | the files, read and read again |
//! | `certificate` | names, purpose and expiry of one certificate |
//! | `pem` | certificates out of PEM |
//! | `stream` | one connection |
//! | `error` | what can go wrong |

mod certificate;
mod error;
mod identity;
pub mod pem;
mod stream;

pub use certificate::Certificate;
pub use error::TlsError;
pub use identity::{Files, Identity};
pub use stream::{Plain, RECORD, Stream, is_tls};
