//! Who we are and whom we believe: the files that the configuration names, read, checked, and read again.

use std::fmt;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};

use crate::certificate::Certificate;
use crate::error::TlsError;

/// A file over this is none of ours: certificates have some hundred bytes.
const FILE_MAX: u64 = 1 << 20;

/// Where certificates and key are, all in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The authorities whose certificates we believe; one usually, two while one replaces the other.
    pub ca: PathBuf,
    /// Our certificate, and behind it what leads from it to the authority, if there is something between.
    pub certificate: PathBuf,
    /// The key of our certificate.
    pub key: PathBuf,
}

/// Our certificate and the authority's, as they are now. A handle: clones share it, any thread.
#[derive(Clone)]
pub struct Identity {
    shared: Arc<Shared>,
}

struct Shared {
    files: Files,
    loaded: Mutex<Arc<Loaded>>,
}

/// What the files held. Connections keep what they began with.
pub(crate) struct Loaded {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
    certificate: Certificate,
    /// Of the three files when they were read.
    stamps: [Stamp; 3],
}

/// When a file was changed last, which one it is, and how long: a renewal changes one of them.
type Stamp = (i64, i64, u64, u64);

impl Identity {
    /// Reads the files. All three must fit together.
    ///
    /// # Errors
    /// [`TlsError::File`]: which one, and what is wrong with it.
    pub fn load(files: Files) -> Result<Identity, TlsError> {
        let loaded = Mutex::new(Arc::new(read(&files)?));
        let shared = Arc::new(Shared { files, loaded });
        Ok(Identity { shared })
    }

    /// Reads the files again if one of them has changed; true if new ones are in use now. Connections that exist go on with
    /// what they began with.
    ///
    /// # Errors
    /// As [`Identity::load`]; the former certificate stays in use. So it is while a renewal is half written.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        if stamps(&self.shared.files)? == self.loaded().stamps {
            return Ok(false);
        }
        let fresh = Arc::new(read(&self.shared.files)?);
        *self.lock() = fresh;
        Ok(true)
    }

    /// Our certificate.
    pub fn certificate(&self) -> Certificate {
        self.loaded().certificate.clone()
    }

    /// Where it comes from.
    pub fn files(&self) -> &Files {
        &self.shared.files
    }

    pub(crate) fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Loaded>> {
        // It is replaced as a whole: a panic elsewhere leaves it sound.
        let locked = self.shared.loaded.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.loaded().certificate)
    }
}

fn read(files: &Files) -> Result<Loaded, TlsError> {
    // Before the contents: a change in between is noticed at the next look.
    let stamps = stamps(files)?;
    let mut roots = RootCertStore::empty();
    for ca in certificates("the authority's certificate", &files.ca)? {
        let facts = parsed("the authority's certificate", &files.ca, &ca)?;
        if !facts.is_authority {
            let why =
                format!("{facts} is no authority's: `tls.ca` is the ca.pem of `keel cert init`");
            return Err(fault("the authority's certificate", &files.ca, why));
        }
        let added = roots.add(ca);
        added.map_err(|e| fault("the authority's certificate", &files.ca, e.to_string()))?;
    }
    let chain = certificates("the certificate", &files.certificate)?;
    let certificate = parsed("the certificate", &files.certificate, &chain[0])?;
    let key = private_key(&files.key)?;
    let (client, server) = configs(files, roots, chain, key)?;
    Ok(Loaded {
        client: Arc::new(client),
        server: Arc::new(server),
        certificate,
        stamps,
    })
}

fn configs(
    files: &Files,
    roots: RootCertStore,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<(ClientConfig, ServerConfig), TlsError> {
    let provider = Arc::new(ring::default_provider());
    let tls13 = &[&version::TLS13];
    let ours = |error: rustls::Error| {
        let why = match error {
            rustls::Error::InconsistentKeys(_) => {
                format!("is not the key of {}", files.certificate.display())
            }
            error => error.to_string(),
        };
        fault("the key", &files.key, why)
    };
    let broken = |error: rustls::Error| TlsError::Broken(error.to_string());
    let roots = Arc::new(roots);
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(tls13)
        .map_err(broken)?
        .with_root_certificates(Arc::clone(&roots))
        .with_client_auth_cert(chain.clone(), key.clone_key())
        .map_err(ours)?;
    // A resumed connection would not look at certificates again: each shows them anew.
    client.resumption = Resumption::disabled();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .build()
        .map_err(|e| TlsError::Broken(e.to_string()))?;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(tls13)
        .map_err(broken)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(ours)?;
    server.send_tls13_tickets = 0;
    Ok((client, server))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = contents(what, path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|e| fault(what, path, format!("is no PEM file: {e}")))?;
    match all.is_empty() {
        true => Err(fault(what, path, "has no certificate in it".to_owned())),
        false => Ok(all),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = contents("the key", path)?;
    let mode = fs::metadata(path).map_or(0, |file| file.permissions().mode());
    if mode & 0o007 != 0 {
        let why = format!(
            "everybody on this machine may use it (mode {:03o}): chmod 600",
            mode & 0o777
        );
        return Err(fault("the key", path, why));
    }
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|e| fault("the key", path, format!("has no private key in it: {e}")))
}

fn contents(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |e: std::io::Error| fault(what, path, e.to_string());
    let long = fs::metadata(path).map_err(failed)?.len() > FILE_MAX;
    if long {
        return Err(fault(what, path, "is too long to be one".to_owned()));
    }
    fs::read(path).map_err(failed)
}

fn parsed(what: &'static str, path: &Path, der: &[u8]) -> Result<Certificate, TlsError> {
    Certificate::from_der(der).map_err(|why| fault(what, path, why))
}

fn stamps(files: &Files) -> Result<[Stamp; 3], TlsError> {
    let stamp = |what, path: &Path| -> Result<Stamp, TlsError> {
        let file = fs::metadata(path).map_err(|e| fault(what, path, e.to_string()))?;
        Ok((file.mtime(), file.mtime_nsec(), file.ino(), file.len()))
    };
    Ok([
        stamp("the authority's certificate", &files.ca)?,
        stamp("the certificate", &files.certificate)?,
        stamp("the key", &files.key)?,
    ])
}

fn fault(what: &'static str, path: &Path, why: String) -> TlsError {
    let path = path.to_owned();
    TlsError::File { what, path, why }
}
