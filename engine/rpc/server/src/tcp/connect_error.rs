//! Why there is no connection to another engine.

use std::io;
use std::net::SocketAddr;

use daos_errno::Der;
use rpc_tls::TlsError;
use thiserror::Error;

use super::socket::tls_error;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Nobody answers there, or not in time.
    #[error("cannot connect to engine {addr}: {source}")]
    Unreachable {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Somebody answers there, and one side does not believe the other.
    #[error("cannot connect to engine {addr}: {error}")]
    Tls {
        /// The address.
        addr: SocketAddr,
        /// Why.
        error: TlsError,
    },
    /// The engine does not want this connection.
    #[error("engine {addr} refused the connection for tag {tag}: {der}{}", cure(*.der))]
    Refused {
        /// The address.
        addr: SocketAddr,
        /// The tag asked for.
        tag: u32,
        /// Its reason.
        der: Der,
    },
    /// Not on a thread, or the thread takes no more tasks.
    #[error("no RPC connection can be made from here: {0}")]
    Here(Der),
}

fn cure(der: Der) -> &'static str {
    match der {
        Der::NO_PERM => "; it requires TLS: give this engine a [tls] section",
        _ => "",
    }
}

pub(super) fn unreachable(addr: SocketAddr, source: io::Error) -> ConnectError {
    match tls_error(&source) {
        Some(error) => ConnectError::Tls {
            addr,
            error: error.clone(),
        },
        None => ConnectError::Unreachable { addr, source },
    }
}
