//! The authority: its own certificate and key, and what it issues with them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rpc_tls::Certificate;
use rpc_tls::pem::first_certificate;
use thiserror::Error;

use crate::files::{Pair, file, write_pair};

/// Certificates are good from a while ago: clocks differ.
const SLACK: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// The authority's files are `ca.pem` and `ca-key.pem`.
const NAME: &str = "ca";
/// Longest common name (RFC 5280, ub-common-name).
const NAME_MAX: usize = 64;

/// Why there is no certificate.
#[derive(Debug, Error)]
pub enum CertError {
    /// Nothing is overwritten that was not asked for.
    #[error("{} is already there", .0.display())]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The authority's files are not what they should be.
    #[error("{} is no authority: {why}", path.display())]
    Authority {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Its certificates would be of no use.
    #[error("the authority {name:?} expired on {expired}")]
    Expired {
        /// The authority's name.
        name: String,
        /// When.
        expired: String,
    },
    /// A name that cannot stand in a certificate or file name.
    #[error("{name:?} cannot be the name of a certificate: {why}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// A name or address that cannot stand in a certificate.
    #[error("{0:?} is neither the name of a host nor an address")]
    Address(String),
    /// The library refused, which the checks before should rule out.
    #[error("the certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// When a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From.
    pub from: SystemTime,
    /// Up to.
    pub to: SystemTime,
}

impl Validity {
    /// From now on, for so many days.
    pub fn days(days: u32) -> Validity {
        let now = SystemTime::now();
        Validity {
            from: now - SLACK,
            to: now + DAY * days,
        }
    }
}

/// What is asked of the authority.
#[derive(Clone, Debug)]
pub struct Request {
    /// Common name: the engine's, or the user's.
    pub name: String,
    /// Host names and addresses that an engine is reached by.
    pub addresses: Vec<String>,
    /// An engine: it serves, and calls others. Otherwise a client, which only calls.
    pub engine: bool,
    /// When it is good; not longer than the authority's own.
    pub validity: Validity,
}

/// A certificate and its key, in PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Issued {
    /// What the certificate says.
    pub fn facts(&self) -> Option<Certificate> {
        let der = first_certificate(self.certificate.as_bytes()).ok()?;
        Certificate::from_der(&der).ok()
    }
}

/// The authority.
pub struct Authority {
    facts: Certificate,
    issued: Issued,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new one.
    ///
    /// # Errors
    /// The name cannot stand in a certificate.
    pub fn create(name: &str, validity: Validity) -> Result<Authority, CertError> {
        let mut params = params(name, &[], validity)?;
        // Path length 0: what it issues issues nothing.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let issued = Issued {
            certificate: params.self_signed(&key)?.pem(),
            key: key.serialize_pem(),
        };
        Authority::of(issued, Path::new("the new authority"))
    }

    /// Reads `ca.pem` and `ca-key.pem` of a directory.
    ///
    /// # Errors
    /// They are missing, or not an authority's.
    pub fn load(directory: &Path) -> Result<Authority, CertError> {
        let pair = Pair::of(directory, NAME);
        let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| file(path, e));
        let issued = Issued {
            certificate: read(&pair.certificate)?,
            key: read(&pair.key)?,
        };
        Authority::of(issued, &pair.certificate)
    }

    fn of(issued: Issued, path: &Path) -> Result<Authority, CertError> {
        let wrong = |why: String| CertError::Authority {
            path: path.to_owned(),
            why,
        };
        let facts = issued.facts().filter(|facts| facts.is_authority);
        let facts =
            facts.ok_or_else(|| wrong("it is not an authority's certificate".to_owned()))?;
        let key = KeyPair::from_pem(&issued.key).map_err(|e| wrong(format!("its key: {e}")))?;
        let issuer = Issuer::from_ca_cert_pem(&issued.certificate, key);
        let issuer = issuer.map_err(|e| wrong(e.to_string()))?;
        Ok(Authority {
            facts,
            issued,
            issuer,
        })
    }

    /// Writes it into a directory, which must have none yet.
    ///
    /// # Errors
    /// [`CertError::Exists`]; whatever the file system says.
    pub fn save(&self, directory: &Path) -> Result<Pair, CertError> {
        let pair = Pair::of(directory, NAME);
        write_pair(&pair, &self.issued, false)?;
        Ok(pair)
    }

    /// What its certificate says.
    pub fn facts(&self) -> &Certificate {
        &self.facts
    }

    /// Issues a certificate with a new key.
    ///
    /// # Errors
    /// A name or address cannot stand in a certificate; the authority has expired.
    pub fn issue(&self, request: &Request) -> Result<Issued, CertError> {
        let last = UNIX_EPOCH + Duration::from_secs(self.facts.not_after.max(0).unsigned_abs());
        if last <= SystemTime::now() {
            return Err(CertError::Expired {
                name: self.facts.name.clone(),
                expired: self.facts.expires(),
            });
        }
        let validity = Validity {
            from: request.validity.from,
            to: request.validity.to.min(last),
        };
        let mut params = params(&request.name, &request.addresses, validity)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if request.engine {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok(Issued {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn params(
    name: &str,
    addresses: &[String],
    validity: Validity,
) -> Result<CertificateParams, CertError> {
    let refused = |why| {
        Err(CertError::Name {
            name: name.to_owned(),
            why,
        })
    };
    if name.is_empty() || name.len() > NAME_MAX {
        return refused("it has 1 to 64 bytes");
    }
    if name.starts_with('.') || name.contains(|c: char| c == '/' || c.is_control()) {
        return refused("it names files too: no slash, no control characters, no dot in front");
    }
    let mut params = CertificateParams::default();
    for address in addresses {
        let one = CertificateParams::new([address.clone()]);
        let one = one.map_err(|_| CertError::Address(address.clone()))?;
        let sane = |c: char| c.is_ascii_alphanumeric() || ".-:*".contains(c);
        if address.is_empty() || !address.chars().all(sane) {
            return Err(CertError::Address(address.clone()));
        }
        params.subject_alt_names.extend(one.subject_alt_names);
    }
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = validity.from.into();
    params.not_after = validity.to.into();
    Ok(params)
}
