//! [`Address`]: the name of a PCI device.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A full PCI address, as sysfs writes it: `0000:05:00.0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(String);

/// A text that is no PCI address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a PCI address such as 0000:05:00.0; `lspci -D | grep -i nvm` lists those of SSDs"
)]
pub struct BadAddress(String);

impl Address {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The device's directory in sysfs.
    pub(crate) fn sysfs(&self) -> String {
        format!("/sys/bus/pci/devices/{}", self.0)
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    /// Domain, bus, device and function in hexadecimal; the domain may be left out where it is 0000.
    fn from_str(text: &str) -> Result<Address, BadAddress> {
        let full = match text.matches(':').count() {
            1 => format!("0000:{text}"),
            _ => text.to_owned(),
        }
        .to_ascii_lowercase();
        let parts: Vec<&str> = full.split([':', '.']).collect();
        let widths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        let is_hex = |part: &&str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
        // Domains behind a VMD have eight digits at most.
        let has_shape = matches!(widths[..], [4..=8, 2, 2, 1])
            && full.rfind(':') < full.find('.')
            && parts.iter().all(is_hex);
        let number = |at: usize| u8::from_str_radix(parts[at], 16).unwrap_or(u8::MAX);
        if has_shape && number(2) < 32 && number(3) < 8 {
            Ok(Address(full))
        } else {
            Err(BadAddress(text.to_owned()))
        }
    }
}

impl TryFrom<String> for Address {
    type Error = BadAddress;

    fn try_from(text: String) -> Result<Address, BadAddress> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_full_or_of_domain_0() {
        let read = |text: &str| text.parse::<Address>().map(|address| address.0);
        assert_eq!(read("0000:05:00.0").unwrap(), "0000:05:00.0");
        assert_eq!(read("C1:1F.7").unwrap(), "0000:c1:1f.7");
        assert_eq!(read("10000:01:00.0").unwrap(), "10000:01:00.0");
        for bad in [
            "",
            "nvme0",
            "05.00:0",
            "0000:05:00",
            "0000:05:20.0",
            "0000:05:00.8",
            "000:05:00.0",
            "0000:5:00.0",
            "../x:00:00.0",
            "0000:05:0g.0",
            "0000:05:00.0 ",
            "0000.05:00.0",
            "é:00.0",
        ] {
            assert_eq!(read(bad), Err(BadAddress(bad.into())));
        }
    }
}
