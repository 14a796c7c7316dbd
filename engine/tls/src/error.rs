//! What can go wrong with keys and values.

use daos_errno::Der;

use crate::{KEYS, Tags, XsInfo};

/// An error of this crate. [`TlsError::der`] is what a C module sees.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// All slots are taken.
    #[error(
        "no TLS key left for {name:?}: all {KEYS} are registered; load fewer modules with a key"
    )]
    TableFull {
        /// The key that did not fit.
        name: String,
    },
    /// A key that no xstream would ever have.
    #[error(
        "TLS key {name:?} has no tags: it would have a value nowhere; give it DAOS_SERVER_TAG or a role's tag"
    )]
    NoTags {
        /// The key.
        name: String,
    },
    /// Nothing is registered under that index.
    #[error("no TLS key is registered in slot {index}")]
    NotRegistered {
        /// The slot.
        index: usize,
    },
    /// Xstreams still hold values of the key.
    #[error(
        "TLS key {name:?} still has a value on {holders} xstream(s): unregister it after they have ended"
    )]
    InUse {
        /// The key.
        name: String,
        /// How many.
        holders: usize,
    },
    /// A constructor gave no value.
    #[error(
        "TLS key {name:?}: its constructor gave no value on xstream {xs_id} (tags {tags:?}); what was made before it there is undone"
    )]
    NoValue {
        /// The key.
        name: String,
        /// Where.
        xs_id: i32,
        /// That xstream's tags.
        tags: Tags,
    },
    /// A constructor panicked.
    #[error(
        "TLS key {name:?}: its constructor panicked on xstream {xs_id}: {message}; what was made before it there is undone"
    )]
    InitPanicked {
        /// The key.
        name: String,
        /// Where.
        xs_id: i32,
        /// The panic's text.
        message: String,
    },
    /// A destructor panicked; the others still ran.
    #[error(
        "TLS key {name:?}: its destructor panicked on xstream {xs_id}: {message}; the other destructors ran"
    )]
    FiniPanicked {
        /// The key.
        name: String,
        /// Where.
        xs_id: i32,
        /// The panic's text.
        message: String,
    },
}

impl TlsError {
    /// The number that goes over the C ABI.
    pub fn der(&self) -> Der {
        match self {
            TlsError::TableFull { .. } => Der::OVERFLOW,
            TlsError::NoTags { .. } => Der::INVAL,
            TlsError::NotRegistered { .. } => Der::NONEXIST,
            TlsError::InUse { .. } => Der::BUSY,
            TlsError::NoValue { .. } => Der::NOMEM,
            TlsError::InitPanicked { .. } | TlsError::FiniPanicked { .. } => Der::MISC,
        }
    }

    pub(crate) fn no_value(name: &str, info: &XsInfo) -> TlsError {
        TlsError::NoValue {
            name: name.to_owned(),
            xs_id: info.xs_id,
            tags: info.tags,
        }
    }
}

/// The text of a caught panic.
pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().map(str::to_owned);
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no text".to_owned())
}
