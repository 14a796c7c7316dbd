//! Who this engine is across restarts: a directory of its own, locked while it runs, with its uuid and the number of its lives in it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

/// Why the storage directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error("another engine (pid {pid}) runs on storage directory {}", dir.display())]
    InUse { dir: PathBuf, pid: String },
    #[error("storage directory {}: {why}", dir.display())]
    Dir { dir: PathBuf, why: String },
    #[error("{} does not hold the number of starts but `{text}`", path.display())]
    NotACount { path: PathBuf, text: String },
    #[error("{} does not hold a uuid but `{text}`", path.display())]
    NotAUuid { path: PathBuf, text: String },
}

/// The engine's uuid, and the lock that keeps others out for as long as this lives.
pub(crate) struct Identity {
    pub(crate) uuid: Uuid,
    /// Counts the engine's starts: other engines tell its lives apart by it, and a leader's terms are its lives.
    pub(crate) incarnation: u64,
    _lock: File,
}

impl Identity {
    /// Locks `dir`, making it if need be, and reads the uuid in it, choosing one the first time.
    pub(crate) fn open(dir: &Path) -> Result<Identity, IdentityError> {
        let failed = |why: String| IdentityError::Dir {
            dir: dir.to_owned(),
            why,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| failed(e.to_string()))?;
        let lock = lock(dir)?;
        let path = dir.join("engine.uuid");
        let uuid = match fs::read_to_string(&path) {
            Ok(text) => Uuid::parse_str(text.trim()).map_err(|_| IdentityError::NotAUuid {
                path,
                text: text.trim().to_owned(),
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                choose(dir, &path).map_err(|e| failed(e.to_string()))?
            }
            Err(error) => return Err(failed(format!("{}: {error}", path.display()))),
        };
        let incarnation = one_more_life(dir)?;
        Ok(Identity {
            uuid,
            incarnation,
            _lock: lock,
        })
    }
}

fn lock(dir: &Path) -> Result<File, IdentityError> {
    let path = dir.join("engine.lock");
    let failed = |e: std::io::Error| IdentityError::Dir {
        dir: dir.to_owned(),
        why: format!("{}: {e}", path.display()),
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        file.read_to_string(&mut pid).map_err(failed)?;
        return Err(IdentityError::InUse {
            dir: dir.to_owned(),
            pid: pid.trim().to_owned(),
        });
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(failed)?;
    Ok(file)
}

/// Counts this start; on the disk before anybody hears of it.
pub(crate) fn one_more_life(dir: &Path) -> Result<u64, IdentityError> {
    let path = dir.join("engine.starts");
    let failed = |e: std::io::Error| IdentityError::Dir {
        dir: dir.to_owned(),
        why: format!("{}: {e}", path.display()),
    };
    let before = match fs::read_to_string(&path) {
        Ok(text) => text
            .trim()
            .parse::<u32>()
            .map_err(|_| IdentityError::NotACount {
                path: path.clone(),
                text: text.trim().to_owned(),
            })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(failed(error)),
    };
    let life = u64::from(before) + 1;
    replace(dir, &path, &life.to_string()).map_err(failed)?;
    Ok(life)
}

/// Devices are stamped with the uuid, so it must be on the disk before it is used.
fn choose(dir: &Path, path: &Path) -> std::io::Result<Uuid> {
    let uuid = Uuid::new_v4();
    replace(dir, path, &uuid.to_string())?;
    Ok(uuid)
}

/// Whole or not at all, and on the disk.
fn replace(dir: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uuid_stays_and_a_second_engine_is_told_the_firsts_pid() {
        let dir = tempfile::TempDir::new().unwrap();
        let first = Identity::open(dir.path()).unwrap();
        let refused = Identity::open(dir.path()).err().unwrap().to_string();
        assert_eq!(
            refused,
            format!(
                "another engine (pid {}) runs on storage directory {}",
                std::process::id(),
                dir.path().display()
            )
        );
        let uuid = first.uuid;
        assert_eq!(first.incarnation, 1);
        drop(first);
        let second = Identity::open(dir.path()).unwrap();
        assert_eq!((second.uuid, second.incarnation), (uuid, 2));
    }

    #[test]
    fn a_damaged_count_of_lives_is_not_begun_anew() {
        let dir = tempfile::TempDir::new().unwrap();
        fs::write(dir.path().join("engine.starts"), "many\n").unwrap();
        let message = Identity::open(dir.path()).err().unwrap().to_string();
        assert!(
            message.ends_with("engine.starts does not hold the number of starts but `many`"),
            "{message}"
        );
    }

    #[test]
    fn a_damaged_uuid_is_not_replaced() {
        let dir = tempfile::TempDir::new().unwrap();
        fs::write(dir.path().join("engine.uuid"), "not one\n").unwrap();
        let message = Identity::open(dir.path()).err().unwrap().to_string();
        assert!(
            message.ends_with("engine.uuid does not hold a uuid but `not one`"),
            "{message}"
        );
    }
}
