//! [`Step`]: one change of the host, as a value: it can be shown, carried out and tested.

use std::fmt;

use crate::address::Address;

/// One change. Paths are the machine's, below the [`crate::Root`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Loads a kernel module.
    Load {
        /// Its name.
        module: String,
    },
    /// Unloads one; it stays if something uses it.
    Unload {
        /// Its name.
        module: String,
    },
    /// Writes a file of the kernel's.
    Write {
        /// Which.
        path: String,
        /// What; empty: a line end, which is how `driver_override` is cleared.
        text: String,
    },
    /// Sets the number of huge pages of a node, and looks whether the kernel could.
    Pages {
        /// The kernel's file.
        path: String,
        /// How many.
        count: u64,
    },
    /// Looks who has a device now; an error if it is another.
    Expect {
        /// The device.
        address: Address,
        /// Its driver.
        driver: String,
    },
    /// Gives a file to a user.
    Own {
        /// Which.
        path: String,
        /// The user's number.
        uid: u32,
        /// Its group's.
        gid: u32,
    },
    /// Writes a file, with the directories above it.
    File {
        /// Where.
        path: String,
        /// What.
        text: String,
    },
    /// Makes a symbolic link, with the directories above it.
    Link {
        /// Where.
        path: String,
        /// To what.
        to: String,
    },
    /// Removes a file or link.
    Remove {
        /// Which.
        path: String,
    },
}

impl fmt::Display for Step {
    /// As a shell command that does the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Load { module } => write!(f, "modprobe {module}"),
            Step::Unload { module } => write!(f, "modprobe -r {module} || true"),
            Step::Write { path, text } if text.is_empty() => write!(f, "echo > {path}"),
            Step::Write { path, text } => write!(f, "echo {text} > {path}"),
            Step::Pages { path, count } => write!(f, "echo {count} > {path}"),
            Step::Expect { address, driver } => write!(
                f,
                "test \"$(basename $(readlink {}/driver))\" = {driver}",
                address.sysfs()
            ),
            Step::Own { path, uid, gid } => write!(f, "chown {uid}:{gid} {path}"),
            Step::File { path, text } => write!(f, "cat > {path} <<'END'\n{text}END"),
            Step::Link { path, to } => write!(f, "ln -sf {to} {path}"),
            Step::Remove { path } => write!(f, "rm -f {path}"),
        }
    }
}

/// A step that could not be done; those before it are.
#[derive(Debug, thiserror::Error)]
#[error("`{step}`: {why}")]
pub struct StepFailed {
    /// Which.
    pub step: Step,
    /// Why.
    pub why: String,
    /// What to do about it.
    pub cure: String,
}
