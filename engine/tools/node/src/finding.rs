//! [`Finding`]: one thing that is not as it should be, for people and programs.

use std::fmt;

use serde::Serialize;

use crate::code::{Code, Severity};
use crate::usage::Use;
use crate::{code, pci::PciDevice};

/// What was found, where, why, and what cures it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of its kind ([`crate::CODES`]).
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// A PCI address, `node 0`, or `host`.
    pub subject: String,
    /// What is so, with names and numbers.
    pub cause: String,
    /// A command, or what else to do.
    pub cure: String,
}

impl Finding {
    pub(crate) fn new(
        code: &'static Code,
        subject: impl fmt::Display,
        cause: impl Into<String>,
        cure: impl Into<String>,
    ) -> Finding {
        Finding {
            code: code.id,
            severity: code.severity,
            subject: subject.to_string(),
            cause: cause.into(),
            cure: cure.into(),
        }
    }

    /// A use of a device that keeps it from being taken.
    pub(crate) fn of_use(device: &PciDevice, of: &Use) -> Finding {
        let code = match of {
            Use::Mounted { .. } => &code::MOUNTED,
            Use::Swap { .. } => &code::SWAP,
            Use::Held { .. } => &code::HELD,
            Use::Claimed { .. } => &code::CLAIMED,
            Use::Process { .. } => &code::TAKEN,
        };
        Finding::new(code, &device.address, of.to_string(), of.cure())
    }
}

impl fmt::Display for Finding {
    /// Two lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {}: {}\n  cure: {}",
            self.code,
            self.severity.word(),
            self.subject,
            self.cause,
            self.cure
        )
    }
}

/// The worst severity; `None` without findings.
#[must_use]
pub fn worst(findings: &[Finding]) -> Option<Severity> {
    findings.iter().map(|finding| finding.severity).max()
}
