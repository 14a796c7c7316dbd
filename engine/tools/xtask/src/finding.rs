//! What a rule found, and how it is shown.

use std::fmt;

/// One place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) path: String,
    /// From 1; 0 = the file as such.
    pub(crate) line: usize,
    /// Short name of the rule, as in docs/STYLE.md.
    pub(crate) rule: &'static str,
    pub(crate) severity: Severity,
    pub(crate) message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Breaks the build.
    Fail,
    /// Is said, and passes.
    Warn,
}

impl Finding {
    pub(crate) fn fail(
        rule: &'static str,
        path: &str,
        line: usize,
        message: impl Into<String>,
    ) -> Finding {
        Finding {
            path: path.to_owned(),
            line,
            rule,
            severity: Severity::Fail,
            message: message.into(),
        }
    }

    pub(crate) fn warn(
        rule: &'static str,
        path: &str,
        line: usize,
        message: impl Into<String>,
    ) -> Finding {
        Finding {
            severity: Severity::Warn,
            ..Finding::fail(rule, path, line, message)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Fail => "error",
            Severity::Warn => "warning",
        };
        write!(f, "{word}[{}]: {}", self.rule, self.path)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", self.message)
    }
}
