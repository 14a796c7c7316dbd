//! What can go wrong with TLS: what, why, and the cure. Where is said by who reports it: it knows the peer.

use std::path::PathBuf;

use rustls::{AlertDescription, CertificateError, Error};
use thiserror::Error;

use crate::certificate::date;

/// Why there is no TLS, or none any more.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error("{what} {}: {why}", path.display())]
    File {
        /// Which of the files.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What is wrong, and the cure.
        why: String,
    },
    /// The peer's certificate is not of our authority.
    #[error(
        "the peer's certificate is not issued by our authority: both sides need certificates of the same one (`keel cert issue` with its directory)"
    )]
    UnknownAuthority,
    /// The peer's certificate has run out.
    #[error("the peer's certificate expired{}: issue it a new one with `keel cert issue --replace`, or set the clock", at(*.0))]
    Expired(Option<i64>),
    /// The peer's certificate is not good yet.
    #[error("the peer's certificate is good only later{}: one of the two clocks is wrong", at(*.0))]
    NotYet(Option<i64>),
    /// The engine answered under another name.
    #[error(
        "the peer was reached as {wanted}, and its certificate is for {found}: reach it by one of these, or issue it a certificate with --address {wanted}"
    )]
    Name {
        /// The name or address that was used.
        wanted: String,
        /// Those of the certificate.
        found: String,
    },
    /// A client's certificate serves, or the other way round.
    #[error(
        "the peer's certificate may not be used for this side of a connection: an engine needs one issued without --client"
    )]
    Purpose,
    /// The peer's certificate cannot be believed for another reason.
    #[error("the peer's certificate cannot be believed: {0}")]
    Certificate(String),
    /// The peer showed none.
    #[error(
        "the peer shows no certificate: give it one (`keel cert issue`), and its program the options or keys to use it"
    )]
    NoCertificate,
    /// The peer did not believe us.
    #[error("the peer does not accept us: {0}")]
    Refused(String),
    /// The peer speaks without TLS.
    #[error("the peer speaks without TLS: give it a [tls] section, or this side none")]
    Plaintext,
    /// Anything else: damaged records, a peer of another kind.
    #[error("TLS failed: {0}")]
    Broken(String),
}

fn at(seconds: Option<i64>) -> String {
    seconds.map_or(String::new(), |s| format!(" ({})", date(s)))
}

impl From<Error> for TlsError {
    fn from(error: Error) -> TlsError {
        match error {
            Error::InvalidCertificate(error) => certificate(error),
            Error::NoCertificatesPresented => TlsError::NoCertificate,
            Error::AlertReceived(alert) => TlsError::Refused(refusal(alert)),
            error => TlsError::Broken(error.to_string()),
        }
    }
}

fn certificate(error: CertificateError) -> TlsError {
    let seconds = |time: rustls::pki_types::UnixTime| i64::try_from(time.as_secs()).ok();
    match error {
        CertificateError::Expired => TlsError::Expired(None),
        CertificateError::ExpiredContext { not_after, .. } => TlsError::Expired(seconds(not_after)),
        CertificateError::NotValidYet => TlsError::NotYet(None),
        CertificateError::NotValidYetContext { not_before, .. } => {
            TlsError::NotYet(seconds(not_before))
        }
        // A new authority of the same name has another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            TlsError::UnknownAuthority
        }
        CertificateError::NotValidForName => TlsError::Name {
            wanted: "another name".to_owned(),
            found: "other names".to_owned(),
        },
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => TlsError::Name {
            wanted: expected.to_str().into_owned(),
            found: names(&presented),
        },
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            TlsError::Purpose
        }
        error => TlsError::Certificate(error.to_string()),
    }
}

/// webpki writes `DnsName("a")` and `IpAddress(10.0.0.1)`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').map_or(name.as_str(), |(_, rest)| rest);
        inner.trim_end_matches(')').trim_matches('"').to_owned()
    };
    match presented.is_empty() {
        true => "no name at all".to_owned(),
        false => presented.iter().map(bare).collect::<Vec<_>>().join(", "),
    }
}

/// What the peer's alert says about us.
fn refusal(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "our certificate is not issued by its authority; both sides need certificates of the same one"
        }
        AlertDescription::CertificateExpired => {
            "our certificate is not good now: it has expired, or one of the clocks is wrong; issue a new one with `keel cert issue --replace`"
        }
        AlertDescription::CertificateRequired => {
            "it wants a certificate of us, and we have none to show"
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown => {
            "our certificate is not for the address that it used, or not for this side of a connection; `keel cert show` says what it is for"
        }
        AlertDescription::ProtocolVersion => "it does not speak TLS 1.3",
        other => {
            return format!("it ended the connection with the alert {other:?}; its log says why");
        }
    };
    why.to_owned()
}
