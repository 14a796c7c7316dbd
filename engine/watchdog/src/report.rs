//! What the watchdog has to say, as text for the log.

use spdk_thread::Unit;
use std::fmt;

/// One finding, with all that an operator needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A unit runs longer than allowed.
    LongUnit {
        /// Name of the xstream.
        xstream: String,
        /// What runs.
        unit: Unit,
        /// For how long it has been seen running, without the time in which others had the core.
        ran_ms: u64,
        /// The limit.
        limit_ms: u64,
        /// Where it is now, innermost first; or why that is not known.
        backtrace: Vec<String>,
    },
    /// An xstream makes no progress.
    Stalled {
        /// Name of the xstream.
        xstream: String,
        /// What runs on it, and for how many milliseconds.
        running: Option<(Unit, u64)>,
        /// How long it has made no progress.
        still_s: u64,
        /// Where it is now, innermost first; or why that is not known.
        backtrace: Vec<String>,
    },
    /// A stalled xstream makes progress again.
    Recovered {
        /// Name of the xstream.
        xstream: String,
        /// How long the stall lasted.
        still_s: u64,
    },
}

/// Owner and name: the host names what modules start `module:name`.
pub(crate) fn owner(name: &'static str) -> (&'static str, &'static str) {
    name.split_once(':').unwrap_or(("engine", name))
}

/// `ULT scrub of module obj`.
pub(crate) fn describe(unit: Unit) -> String {
    match owner(unit.name) {
        ("engine", name) => format!("{} {name} of the engine", unit.kind.as_str()),
        (module, name) => format!("{} {name} of module {module}", unit.kind.as_str()),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::LongUnit {
                xstream,
                unit,
                ran_ms,
                limit_ms,
                backtrace,
            } => {
                write!(
                    f,
                    "{xstream}: {} has not returned for {ran_ms} ms (limit {limit_ms} ms): nothing else runs on that xstream; it is at",
                    describe(*unit)
                )?;
                frames(f, backtrace)
            }
            Report::Stalled {
                xstream,
                running,
                still_s,
                backtrace,
            } => {
                write!(f, "{xstream}: no progress for {still_s} s: ")?;
                match running {
                    Some((unit, ms)) => {
                        write!(f, "{} has not returned for {ms} ms", describe(*unit))?
                    }
                    None => f.write_str(
                        "nothing runs on it; another xstream of the same core, or the reactor itself, does not return",
                    )?,
                }
                f.write_str("; its core is at")?;
                frames(f, backtrace)
            }
            Report::Recovered { xstream, still_s } => {
                write!(f, "{xstream}: makes progress again after {still_s} s")
            }
        }
    }
}

fn frames(f: &mut fmt::Formatter<'_>, backtrace: &[String]) -> fmt::Result {
    backtrace
        .iter()
        .try_for_each(|line| write!(f, "\n  {line}"))
}

impl Report {
    /// Writes it to the log.
    pub fn log(&self) {
        match self {
            Report::LongUnit { .. } => tracing::warn!("{self}"),
            Report::Stalled { .. } => tracing::error!("{self}"),
            Report::Recovered { .. } => tracing::info!("{self}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Report;
    use spdk_thread::{Unit, UnitKind};

    #[test]
    fn reports_read_as_sentences() {
        let unit = |name| Unit {
            kind: UnitKind::Task,
            name,
            sequence: 3,
        };
        let long = Report::LongUnit {
            xstream: "keel_io_1".into(),
            unit: unit("obj:scrub"),
            ran_ms: 40,
            limit_ms: 32,
            backtrace: vec!["#0 spin at scrub.c:12".into(), "#1 main".into()],
        };
        assert_eq!(
            long.to_string(),
            "keel_io_1: ULT scrub of module obj has not returned for 40 ms (limit 32 ms): nothing else runs on that xstream; it is at\n  #0 spin at scrub.c:12\n  #1 main"
        );
        let mut stalled = Report::Stalled {
            xstream: "keel_sys_0".into(),
            running: Some((unit("pool refresh"), 301_000)),
            still_s: 300,
            backtrace: Vec::new(),
        };
        assert_eq!(
            stalled.to_string(),
            "keel_sys_0: no progress for 300 s: ULT pool refresh of the engine has not returned for 301000 ms; its core is at"
        );
        if let Report::Stalled { running, .. } = &mut stalled {
            *running = None;
        }
        assert!(
            stalled
                .to_string()
                .contains("nothing runs on it; another xstream")
        );
        let again = Report::Recovered {
            xstream: "keel_io_0".into(),
            still_s: 400,
        };
        assert_eq!(
            again.to_string(),
            "keel_io_0: makes progress again after 400 s"
        );
    }
}
