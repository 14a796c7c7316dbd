//! A private certificate authority, for the engines of one system and those who use them.
//!
//! [`Authority`] is made once ([`Authority::create`]) or read from its directory, and issues certificates
//! ([`Authority::issue`]): one for each engine, one for each client. [`write_pair`] puts a certificate and its key into files.
//! `keel cert` is made of this, and tests make theirs with it.
//!
//! Below: `rpc_tls`, which reads what is issued here. Thread rule: plain data; blocking file operations, for tools.
//!
//! | module | concept |
//! |---|---|
//! | `authority` | the authority, and what it issues |
//! | `files` | certificate and key on disk |

mod authority;
mod files;

pub use authority::{Authority, CertError, Issued, Request, Validity};
pub use files::{Pair, write_pair};
