//! [`Root`]: where a machine's files are.

use std::fs;
use std::path::{Path, PathBuf};

/// `/`, or a directory that has `sys`, `proc`, `dev` and `etc` of a machine that a test built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// This machine.
    #[must_use]
    pub fn this() -> Root {
        Root::at("/")
    }

    /// The machine that the files below `path` describe.
    pub fn at(path: impl Into<PathBuf>) -> Root {
        Root(path.into())
    }

    /// Where a file of the machine, such as `/proc/swaps`, is for this process.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.0.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// The text of a file without white space around it; `None` where it cannot be read: not every machine has every file.
    pub(crate) fn read(&self, absolute: impl AsRef<Path>) -> Option<String> {
        let text = fs::read_to_string(self.path(absolute)).ok()?;
        Some(text.trim().to_owned())
    }

    /// A number in a file of its own.
    pub(crate) fn number(&self, absolute: impl AsRef<Path>) -> Option<u64> {
        self.read(absolute)?.parse().ok()
    }

    pub(crate) fn exists(&self, absolute: impl AsRef<Path>) -> bool {
        self.path(absolute).exists()
    }

    /// The last part of what a symbolic link points to: how sysfs names drivers and groups.
    pub(crate) fn link_name(&self, absolute: impl AsRef<Path>) -> Option<String> {
        let target = fs::read_link(self.path(absolute)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// The names in a directory, in order; none if it is not there.
    pub(crate) fn names(&self, absolute: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(absolute)).into_iter().flatten();
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_unstable();
        names
    }
}
