//! The host under the engine, looked at before its SSDs are opened: the same that `keel node doctor` finds.

use engine_config::Config;
use engine_node::{Finding, Root, Severity, at_start};

use crate::error::{BootError, Exit};

/// An error with everything that keeps the engine from its SSDs; warnings go to the log.
pub(crate) fn look(config: &Config) -> Result<(), BootError> {
    let found = at_start(&Root::this(), config);
    for finding in found
        .iter()
        .filter(|finding| finding.severity < Severity::Fault)
    {
        tracing::warn!(
            code = finding.code,
            subject = finding.subject,
            "{}; cure: {}",
            finding.cause,
            finding.cure
        );
    }
    verdict(&found)
}

/// The codes for addresses that are not those of SSDs.
const WRONG_ADDRESS: [&str; 3] = ["KN001", "KN002", "KN003"];

fn verdict(found: &[Finding]) -> Result<(), BootError> {
    let faults: Vec<&Finding> = found
        .iter()
        .filter(|finding| finding.severity == Severity::Fault)
        .collect();
    if faults.is_empty() {
        return Ok(());
    }
    let is_config = faults
        .iter()
        .all(|fault| WRONG_ADDRESS.contains(&fault.code));
    let exit = if is_config {
        Exit::Config
    } else {
        Exit::CantCreate
    };
    let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
    Err(BootError::new(exit, texts.join("\n")))
}

#[cfg(test)]
mod tests {
    use engine_host::HostOptions;
    use engine_node::MODULE_BUFFERS;

    use super::*;

    fn finding(code: &'static str, severity: Severity) -> Finding {
        let text = |text: &str| text.to_owned();
        Finding {
            code,
            severity,
            subject: text("0000:05:00.0"),
            cause: text("why"),
            cure: text("what"),
        }
    }

    #[test]
    fn faults_are_quoted_and_warnings_are_none() {
        let warning = finding("KN030", Severity::Warning);
        assert!(verdict(std::slice::from_ref(&warning)).is_ok());
        let all = [
            finding("KN001", Severity::Fault),
            finding("KN004", Severity::Fault),
            warning,
        ];
        let error = verdict(&all).unwrap_err();
        let expected = "KN001 fault 0000:05:00.0: why\n  cure: what\nKN004 fault 0000:05:00.0: why\n  cure: what";
        assert_eq!(
            (error.exit, error.what.as_str()),
            (Exit::CantCreate, expected)
        );
        assert_eq!(verdict(&all[..1]).unwrap_err().exit, Exit::Config);
    }

    #[test]
    fn the_doctor_counts_the_buffers_that_modules_get() {
        let classes = HostOptions::buffers();
        let bytes: u64 = classes
            .iter()
            .map(|class| (class.buffer_len * class.count) as u64)
            .sum();
        assert_eq!(bytes, MODULE_BUFFERS);
    }
}
