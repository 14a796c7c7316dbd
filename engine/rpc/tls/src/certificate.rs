//! What a certificate says.

use std::fmt;
use std::net::IpAddr;

use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

/// The parts of a certificate that people and programs ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The common name of its subject; empty if it has none.
    pub name: String,
    /// The common name of who issued it.
    pub issuer: String,
    /// Names and addresses that it is good for.
    pub addresses: Vec<String>,
    /// Whether it is an authority's, and so may issue others.
    pub is_authority: bool,
    /// Whether it may serve: an engine's, not a client's.
    pub may_serve: bool,
    /// Good from here on, seconds since 1970.
    pub not_before: i64,
    /// Good up to here, seconds since 1970.
    pub not_after: i64,
}

impl Certificate {
    /// Reads one in DER.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_der(der: &[u8]) -> Result<Certificate, String> {
        let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(|e| e.to_string())?;
        let usage = parsed.extended_key_usage().ok().flatten();
        Ok(Certificate {
            name: common_name(parsed.subject()),
            issuer: common_name(parsed.issuer()),
            addresses: addresses(&parsed),
            is_authority: parsed.is_ca(),
            may_serve: usage.is_some_and(|usage| usage.value.server_auth),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }

    /// Seconds that it is still good for at `now`, seconds since 1970; negative once it has expired.
    pub fn left(&self, now: i64) -> i64 {
        self.not_after - now
    }

    /// When it expires, as `2027-11-26 00:00:00Z`.
    pub fn expires(&self) -> String {
        date(self.not_after)
    }

    /// Since when it is good, likewise.
    pub fn begins(&self) -> String {
        date(self.not_before)
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match (self.is_authority, self.may_serve) {
            (true, _) => "authority",
            (false, true) => "engine",
            (false, false) => "client",
        };
        write!(f, "{kind} {:?}", self.name)?;
        if !self.addresses.is_empty() {
            write!(f, " ({})", self.addresses.join(", "))?;
        }
        write!(f, ", good until {}", self.expires())
    }
}

fn common_name(name: &x509_parser::x509::X509Name<'_>) -> String {
    let first = name.iter_common_name().next();
    first
        .and_then(|part| part.as_str().ok())
        .unwrap_or_default()
        .to_owned()
}

fn addresses(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|b| IpAddr::from(b).to_string()),
            _ => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|b| IpAddr::from(b).to_string()),
        },
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

/// Seconds since 1970 as a date.
pub(crate) fn date(seconds: i64) -> String {
    let Ok(at) = OffsetDateTime::from_unix_timestamp(seconds) else {
        return format!("second {seconds} since 1970");
    };
    let (day, time) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}Z",
        day.year(),
        u8::from(day.month()),
        day.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}
