//! Why the engine did not start, with the exit code that tells scripts and systemd which kind it is.

use std::process::ExitCode;

/// Exit codes, after sysexits(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Software = 70,
    OsErr = 71,
    CantCreate = 73,
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// A failed start: which phase, what, and the exit code.
#[derive(Debug)]
pub(crate) struct BootError {
    pub(crate) exit: Exit,
    pub(crate) what: String,
}

impl BootError {
    pub(crate) fn new(exit: Exit, what: impl std::fmt::Display) -> BootError {
        BootError {
            exit,
            what: what.to_string(),
        }
    }

    pub(crate) fn config(what: impl std::fmt::Display) -> BootError {
        BootError::new(Exit::Config, what)
    }

    pub(crate) fn cannot_use(what: impl std::fmt::Display) -> BootError {
        BootError::new(Exit::CantCreate, what)
    }

    pub(crate) fn system(what: impl std::fmt::Display) -> BootError {
        BootError::new(Exit::OsErr, what)
    }

    pub(crate) fn software(what: impl std::fmt::Display) -> BootError {
        BootError::new(Exit::Software, what)
    }
}
