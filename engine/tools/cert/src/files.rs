//! A certificate and its key on disk: written whole or not at all, the key for its owner alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::authority::{CertError, Issued};

/// Where the two are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// `NAME.pem`.
    pub certificate: PathBuf,
    /// `NAME-key.pem`.
    pub key: PathBuf,
}

impl Pair {
    /// The files of `name` in `directory`.
    pub fn of(directory: &Path, name: &str) -> Pair {
        Pair {
            certificate: directory.join(format!("{name}.pem")),
            key: directory.join(format!("{name}-key.pem")),
        }
    }
}

/// Writes a certificate (mode 0644) and its key (mode 0600). Each is written beside its place and then put there, the key first:
/// an engine that looks in between finds a pair that does not fit, keeps what it has, and looks again.
///
/// # Errors
/// [`CertError::Exists`] if one of them is there and `replace` is false; whatever the file system says.
pub fn write_pair(pair: &Pair, issued: &Issued, replace: bool) -> Result<(), CertError> {
    for path in [&pair.certificate, &pair.key] {
        if !replace && path.symlink_metadata().is_ok() {
            return Err(CertError::Exists(path.clone()));
        }
    }
    if let Some(folder) = pair.key.parent().filter(|f| !f.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|e| file(folder, e))?;
    }
    put(&pair.key, &issued.key, 0o600)?;
    put(&pair.certificate, &issued.certificate, 0o644)
}

fn put(path: &Path, text: &str, mode: u32) -> Result<(), CertError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".new-{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = write(&beside, text, mode).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|e| {
        // What is left of the attempt, if there is something.
        let _ = std::fs::remove_file(&beside);
        file(path, e)
    })
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

pub(crate) fn file(path: &Path, error: io::Error) -> CertError {
    CertError::File {
        path: path.to_owned(),
        source: error,
    }
}
