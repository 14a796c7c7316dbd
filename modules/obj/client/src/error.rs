//! What can go wrong for a client.

use std::io;

use daos_errno::Der;
use obj_proto::{NameError, OBJECT_MAX};

/// Why an operation failed. Unless the text says otherwise the object is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum ObjError {
    /// No connection, or it broke.
    #[error(transparent)]
    Transport(#[from] rpc_wire::ClientError),
    /// The engine answered with an error.
    #[error("{message} ({der})")]
    Engine {
        /// The DAOS error number.
        der: Der,
        /// The engine's sentence.
        message: String,
    },
    /// A name or label that cannot be.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The source did not have the length that was promised.
    #[error(
        "'{name}' changed while it was read: it had {promised} bytes and then {found}; nothing was stored, put it again"
    )]
    SourceChanged {
        /// Object that was put.
        name: String,
        /// Bytes that were promised.
        promised: u64,
        /// "only N" or "more".
        found: String,
    },
    /// More than an object may have.
    #[error("'{name}' is larger than {OBJECT_MAX} bytes, the most an object may have: split it")]
    TooLarge {
        /// Object that was put.
        name: String,
    },
    /// The source of a put could not be read.
    #[error("reading the source of '{name}': {source}")]
    Source {
        /// Object that was put.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The destination of a get could not be written. It may have a part of the object.
    #[error("writing '{name}' to its destination: {source}")]
    Destination {
        /// Object that was read.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Data came with checksums that are not its own. The destination may have what comes before it.
    #[error(
        "piece {piece} of '{name}' was damaged between the engine and here, {attempts} times: {detail}"
    )]
    Damaged {
        /// Object that was read.
        name: String,
        /// Its piece.
        piece: u32,
        /// How often it was asked for.
        attempts: u32,
        /// Which chunk.
        detail: String,
    },
    /// An answer that makes no sense.
    #[error(
        "the engine's answer to {op} makes no sense: {why}; are client and engine of the same release?"
    )]
    Answer {
        /// What was asked.
        op: &'static str,
        /// What is wrong with the answer.
        why: String,
    },
}

impl ObjError {
    /// The DAOS error number that describes it best, for exit codes and `-o json`.
    pub fn der(&self) -> Der {
        match self {
            ObjError::Transport(_) => Der::UNREACH,
            ObjError::Engine { der, .. } => *der,
            ObjError::Name(_) => Der::INVAL,
            ObjError::SourceChanged { .. } => Der::CANCELED,
            ObjError::TooLarge { .. } => Der::OVERFLOW,
            ObjError::Source { .. } | ObjError::Destination { .. } => Der::IO,
            ObjError::Damaged { .. } => Der::CSUM,
            ObjError::Answer { .. } => Der::PROTO,
        }
    }
}
