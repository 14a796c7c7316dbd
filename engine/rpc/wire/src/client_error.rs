//! What can go wrong for a client, with the cure where there is one.

use std::io;
use std::time::Duration;

use daos_errno::Der;
use rpc_tls::TlsError;
use thiserror::Error;

use crate::header::HeaderError;
use crate::hello::PROTOCOL;

/// An error of [`crate::Client`]. After any of them but [`ClientError::Damaged`], [`ClientError::TooLong`] and
/// [`ClientError::NoOffers`] the connection is of no more use.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody answered at the address.
    #[error(
        "cannot connect to {addr}: {source}; is the engine running, and is this its RPC address?"
    )]
    Connect {
        /// The address as given.
        addr: String,
        /// Of the last address tried.
        source: io::Error,
    },
    /// One side does not believe the other.
    #[error("no TLS with {addr}: {error}")]
    Tls {
        /// The address as given.
        addr: String,
        /// Why.
        error: TlsError,
    },
    /// The engine did not accept the HELLO.
    #[error("{addr} refused the connection for tag {tag}: {der}{}", cure(*.der))]
    Refused {
        /// The address as given.
        addr: String,
        /// The tag asked for.
        tag: u32,
        /// Its reason.
        der: Der,
    },
    /// Both sides work, but not with each other.
    #[error(
        "{addr} speaks RPC protocol {theirs}, this program speaks {PROTOCOL}: use the client of the engine's release"
    )]
    Protocol {
        /// The address as given.
        addr: String,
        /// What the engine speaks.
        theirs: u32,
    },
    /// The engine's module and this program have no protocol version in common.
    #[error(
        "the engine serves versions {served:?} of module {module}, this program speaks {known:?}: use the client of the engine's release, or load the module"
    )]
    Versions {
        /// The module's id.
        module: u8,
        /// What the engine serves; nothing: it has no such module.
        served: Vec<u8>,
        /// What this program speaks.
        known: Vec<u8>,
    },
    /// A system call failed.
    #[error("{what} failed: {source}")]
    Io {
        /// Which one.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// No byte moved for that long.
    #[error("no progress for {after:?} while {what}, {outstanding} requests unanswered")]
    TimedOut {
        /// Connecting, sending or receiving.
        what: &'static str,
        /// The time-out that ran out.
        after: Duration,
        /// Requests without an answer.
        outstanding: usize,
    },
    /// The engine closed the connection.
    #[error(
        "the engine closed the connection with {outstanding} requests unanswered; its log says why"
    )]
    Closed {
        /// Requests without an answer.
        outstanding: usize,
    },
    /// What came is not a frame.
    #[error("the stream from the engine is damaged: {0}")]
    Stream(#[from] HeaderError),
    /// A frame that answers nothing that was asked.
    #[error("the engine answered request {0}, which is not outstanding")]
    Unexpected(u64),
    /// One reply was damaged on the way; the others are sound. Ask again.
    #[error("the {part} of the reply to request {id} does not match its checksum")]
    Damaged {
        /// The request whose reply it is.
        id: u64,
        /// "body" or "bulk".
        part: &'static str,
    },
    /// The request was not sent: a piece of it is over the limit.
    #[error("{part} of {len} bytes is over the limit of {limit}: split the request")]
    TooLong {
        /// "body" or "bulk".
        part: &'static str,
        /// Its length.
        len: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The engine does not know requests that offer data instead of carrying it.
    #[error("the engine is older than offers of data: upgrade it, or send the data with requests")]
    NoOffers,
    /// [`crate::Client::recv`] with nothing outstanding.
    #[error("no request is outstanding, so no reply can come")]
    NothingOutstanding,
}

impl ClientError {
    /// A failure of the socket, or of TLS on it.
    pub(crate) fn io(what: &'static str, source: io::Error) -> ClientError {
        let tls = source.get_ref().and_then(|e| e.downcast_ref::<TlsError>());
        match tls {
            Some(error) => ClientError::Tls {
                addr: "the engine".to_owned(),
                error: error.clone(),
            },
            None => ClientError::Io { what, source },
        }
    }

    /// Names the engine where only the caller knows it.
    pub(crate) fn with_address(self, address: &str) -> ClientError {
        match self {
            ClientError::Tls { error, .. } => ClientError::Tls {
                addr: address.to_owned(),
                error,
            },
            error => error,
        }
    }
}

fn cure(der: Der) -> &'static str {
    match der {
        Der::BUSY => "; it has reached max_connections",
        Der::BAD_TARGET => "; it has no such target",
        Der::SHUTDOWN => "; it is shutting down",
        Der::NO_PERM => {
            "; it requires TLS: give a certificate of its authority, with that certificate's key (`keel cert issue --client`)"
        }
        _ => "",
    }
}
