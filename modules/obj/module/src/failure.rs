//! Errors as replies: the number in the status, the sentence in the body.

use module_sdk::prost::Message;
use module_sdk::{Der, JoinError, Reply};
use obj_proto::{NameError, wire};
use obj_store::StoreError;
use uuid::Uuid;

/// Why a request failed.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) der: Der,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(der: Der, message: impl Into<String>) -> Failure {
        Failure {
            der,
            message: message.into(),
        }
    }

    /// A label is another's already.
    pub(crate) fn exists(what: &str, label: &str, uuid: Uuid) -> Failure {
        Failure::new(
            Der::EXIST,
            format!("{what} '{label}' exists already ({uuid})"),
        )
    }

    /// The same, said about a target.
    pub(crate) fn on(self, target: u32) -> Failure {
        Failure {
            message: format!("target {target}: {}", self.message),
            ..self
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::new(error.der(), error.to_string())
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Failure {
        Failure::new(Der::INVAL, error.to_string())
    }
}

impl From<Der> for Failure {
    fn from(der: Der) -> Failure {
        Failure::new(der, der.text())
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Failure {
        Failure::new(error.clone().into(), error.to_string())
    }
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Reply {
        let body = wire::Error {
            message: failure.message,
        };
        Reply::error(failure.der).with_body(body.encode_to_vec())
    }
}
