//! Why a call has no answer.

use std::path::PathBuf;
use std::time::Duration;

use daos_errno::{Der, from_errno};
use rustix::io::Errno;

use crate::frame_error::FrameError;
use crate::messages::drpc::Status;

/// What went wrong on the client's side, with the cure where there is one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error("cannot connect to dRPC socket {}: {errno}{}", path.display(), cure(*errno))]
    Connect {
        /// Where.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// Sending or receiving failed.
    #[error("dRPC {what} failed: {errno}")]
    Transport {
        /// `send` or `receive`.
        what: &'static str,
        /// Why.
        errno: Errno,
    },
    /// The peer closed the connection instead of answering.
    #[error("the peer closed the dRPC connection without an answer; its log says why")]
    Closed,
    /// A former error broke this connection.
    #[error("dRPC not connected: an earlier error broke this connection; connect again")]
    NotConnected,
    /// No answer in time.
    #[error("no dRPC answer within {0:?}; the method may still be running")]
    TimedOut(Duration),
    /// The request does not fit, or the answer breaks the framing.
    #[error("dRPC framing: {0}")]
    Frame(#[from] FrameError),
    /// The answer is not a `Response`.
    #[error("the dRPC answer is not a protobuf Response: {0}")]
    Undecodable(String),
    /// The answer is to a call that was never made on this connection.
    #[error("dRPC answer has sequence {got}, the call had {sent}")]
    WrongSequence {
        /// The call's.
        sent: i64,
        /// The answer's.
        got: i64,
    },
    /// The answer came, and it says no.
    #[error("dRPC call refused: {}", .0.text())]
    Refused(Status),
    /// The method ran and answers with its own error.
    #[error("the method answers {0}")]
    Method(Der),
    /// The request made no sense; nothing was sent.
    #[error("invalid dRPC request: {0}; nothing was sent")]
    Invalid(&'static str),
}

impl ClientError {
    /// The DAOS error number of the same finding.
    pub fn der(&self) -> Der {
        match self {
            ClientError::Connect { errno, .. } | ClientError::Transport { errno, .. } => {
                from_errno(errno.raw_os_error())
            }
            ClientError::Closed => Der::TRUNC,
            ClientError::NotConnected => Der::NO_HDL,
            ClientError::TimedOut(_) => Der::TIMEDOUT,
            ClientError::Frame(error) => error.der(),
            ClientError::Undecodable(_) => Der::PROTO,
            ClientError::WrongSequence { .. } => Der::MISMATCH,
            ClientError::Refused(_) => Der::IO,
            ClientError::Method(der) => *der,
            ClientError::Invalid(_) => Der::INVAL,
        }
    }
}

fn cure(errno: Errno) -> &'static str {
    match errno {
        Errno::NOENT => " (no engine has opened it; is the engine running, is the path right?)",
        Errno::CONNREFUSED => " (stale: its engine is gone)",
        Errno::ACCESS | Errno::PERM => " (the socket is for the engine's user and root)",
        Errno::NAMETOOLONG => " (a socket path has at most 107 bytes)",
        Errno::PROTOTYPE => " (the socket is not a dRPC socket)",
        _ => "",
    }
}
