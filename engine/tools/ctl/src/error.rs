//! How a command fails: what, why, what cures it, and the exit code that tells a script which kind it is.

use daos_errno::Der;

/// Exit codes, after sysexits(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Failed = 1,
    DataErr = 65,
    NoInput = 66,
    Unavailable = 69,
    Software = 70,
    CantCreate = 73,
    IoErr = 74,
    TempFail = 75,
    NoPerm = 77,
    Config = 78,
}

/// A command's failure.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) exit: Exit,
    pub(crate) what: String,
    pub(crate) cure: Option<String>,
}

impl CliError {
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> CliError {
        CliError {
            exit,
            what: what.into(),
            cure: None,
        }
    }

    pub(crate) fn cure(mut self, cure: impl Into<String>) -> CliError {
        self.cure = Some(cure.into());
        self
    }

    /// A DAOS error that the engine answered.
    pub(crate) fn der(der: Der, what: impl Into<String>) -> CliError {
        CliError::new(exit_of(der), what)
    }

    /// A system call on a file of the user's.
    pub(crate) fn file(path: &std::path::Path, error: &std::io::Error) -> CliError {
        let exit = match error.kind() {
            std::io::ErrorKind::NotFound => Exit::NoInput,
            std::io::ErrorKind::PermissionDenied => Exit::NoPerm,
            _ => Exit::IoErr,
        };
        CliError::new(exit, format!("{}: {error}", path.display()))
    }
}

fn exit_of(der: Der) -> Exit {
    match der {
        Der::NONEXIST | Der::ENOENT | Der::CONT_NONEXIST => Exit::NoInput,
        Der::EXIST | Der::ALREADY => Exit::CantCreate,
        Der::NO_PERM | Der::OP_NOT_PERMITTED => Exit::NoPerm,
        Der::CSUM | Der::DATA_LOSS => Exit::DataErr,
        Der::IO | Der::NVME_IO | Der::NOSPACE => Exit::IoErr,
        Der::BUSY | Der::AGAIN | Der::OVERLOAD_RETRY | Der::TIMEDOUT | Der::INPROGRESS => {
            Exit::TempFail
        }
        Der::UNREACH | Der::SHUTDOWN | Der::NO_SERVICE => Exit::Unavailable,
        Der::PROTO | Der::UNREG => Exit::Software,
        _ => Exit::Failed,
    }
}
