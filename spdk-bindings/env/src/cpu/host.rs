//! Where sysfs and procfs are: this machine's, or a tree that a test built.

use std::fs;
use std::path::{Path, PathBuf};

use super::{CpuError, parse_list};

/// The root of a machine's files: `/`, or a directory with `sys` and `proc` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// This machine.
    #[must_use]
    pub fn this() -> Host {
        Host::at("/")
    }

    /// The machine that the files below `root` describe.
    pub fn at(root: impl Into<PathBuf>) -> Host {
        Host { root: root.into() }
    }

    /// A path of the machine, such as `/sys/bus/pci`.
    pub(super) fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.root
            .join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// The text of a file without white space around it; `None` if it cannot be read: not every kernel and container has every
    /// file, and some of those that are there refuse to be read.
    pub(super) fn read(&self, absolute: impl AsRef<Path>) -> Option<String> {
        let text = fs::read_to_string(self.path(absolute)).ok()?;
        Some(text.trim().to_owned())
    }

    /// A list of CPUs or nodes; `None` if there is no such file.
    pub(super) fn list(&self, absolute: impl AsRef<Path>) -> Result<Option<Vec<usize>>, CpuError> {
        let absolute = absolute.as_ref();
        let Some(text) = self.read(absolute) else {
            return Ok(None);
        };
        // `nohz_full` of a kernel that was not told any is "(null)".
        if text == "(null)" {
            return Ok(Some(Vec::new()));
        }
        match parse_list(&text) {
            Some(list) => Ok(Some(list)),
            None => Err(self.malformed(absolute, "a list such as 0-3,8", text)),
        }
    }

    /// A number; `None` if there is no such file, or it says -1, which is what boards and virtual machines write for "unknown".
    pub(super) fn number(&self, absolute: impl AsRef<Path>) -> Result<Option<usize>, CpuError> {
        let absolute = absolute.as_ref();
        let Some(text) = self.read(absolute) else {
            return Ok(None);
        };
        match text.parse::<i64>() {
            Ok(value) => Ok(usize::try_from(value).ok()),
            Err(_) => Err(self.malformed(absolute, "a number", text)),
        }
    }

    /// The names in a directory that are `prefix` and a number: the numbers, ascending.
    pub(super) fn numbered(&self, directory: &str, prefix: &str) -> Vec<usize> {
        let entries = fs::read_dir(self.path(directory)).into_iter().flatten();
        let mut numbers: Vec<usize> = entries
            .flatten()
            .filter_map(|entry| {
                entry
                    .file_name()
                    .to_str()?
                    .strip_prefix(prefix)?
                    .parse()
                    .ok()
            })
            .collect();
        numbers.sort_unstable();
        numbers
    }

    pub(super) fn malformed(
        &self,
        absolute: &Path,
        expected: &'static str,
        found: String,
    ) -> CpuError {
        CpuError::Sysfs {
            path: self.path(absolute),
            expected,
            found,
        }
    }
}
