//! PEM files.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// The first certificate of a PEM text, in DER.
///
/// # Errors
/// There is none, or it is damaged.
pub fn first_certificate(text: &[u8]) -> Result<Vec<u8>, String> {
    CertificateDer::from_pem_slice(text)
        .map(|der| der.to_vec())
        .map_err(|e| format!("no certificate in PEM: {e}"))
}
