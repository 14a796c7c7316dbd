//! How tools find the engines of this machine: each serving engine leaves a note named after its process id.
//!
//! A note is a file `<pid>.engine` whose text is the absolute path of the engine's dRPC socket. It lies in
//! `$KEEL_RUN_DIR`, else `$RUNTIME_DIRECTORY` (systemd's for a service), else `/run/keel` for root, else `$XDG_RUNTIME_DIR/keel`, else
//! `/tmp/keel-<uid>`. Tools look there and, unless `$KEEL_RUN_DIR` is set, in `/run/keel`: a service runs as a user of its own. A note
//! whose process is gone is ignored by readers and removed by the next engine.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, geteuid, test_kill_process};

const SUFFIX: &str = "engine";
/// Of services and of root.
const SYSTEM: &str = "/run/keel";
/// Names the folder, for tests and for several installations.
const CHOSEN: &str = "KEEL_RUN_DIR";

/// An engine that runs on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalEngine {
    /// Its process id.
    pub pid: u32,
    /// Its dRPC socket.
    pub socket: PathBuf,
}

/// The note of this process; dropped, it is removed.
#[derive(Debug)]
pub struct Announcement(PathBuf);

impl Announcement {
    /// Announces this process as an engine that serves `socket`.
    pub fn new(socket: &Path) -> io::Result<Announcement> {
        Announcement::in_folder(
            &folder(|name| std::env::var_os(name), geteuid().as_raw()),
            socket,
        )
    }

    fn in_folder(folder: &Path, socket: &Path) -> io::Result<Announcement> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)?;
        // A folder under /tmp that somebody else made could send this user's tools to a socket of theirs.
        if fs::metadata(folder)?.uid() != geteuid().as_raw() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{} belongs to another user", folder.display()),
            ));
        }
        for (path, _) in notes(folder).filter(|(_, engine)| !alive(engine.pid)) {
            let _ = fs::remove_file(path);
        }
        let socket = std::path::absolute(socket)?;
        let path = folder.join(format!("{}.{SUFFIX}", std::process::id()));
        // Written aside and renamed: a reader never sees half a path.
        let aside = path.with_extension("new");
        fs::write(&aside, socket.as_os_str().as_encoded_bytes())?;
        fs::rename(&aside, &path)?;
        Ok(Announcement(path))
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // Nothing to do about a failure here: readers ignore the notes of dead processes.
        let _ = fs::remove_file(&self.0);
    }
}

/// The engines that run now, by process id.
pub fn local_engines() -> Vec<LocalEngine> {
    let own = folder(|name| std::env::var_os(name), geteuid().as_raw());
    let system = PathBuf::from(SYSTEM);
    if own == system || std::env::var_os(CHOSEN).is_some() {
        return engines_in(&[own]);
    }
    engines_in(&[own, system])
}

fn engines_in(folders: &[PathBuf]) -> Vec<LocalEngine> {
    let mut engines: Vec<LocalEngine> = (folders.iter())
        .flat_map(|folder| notes(folder))
        .map(|(_, engine)| engine)
        .filter(|engine| alive(engine.pid))
        .collect();
    engines.sort_by_key(|engine| engine.pid);
    engines
}

/// Where a process of this user and environment leaves its note.
fn folder(var: impl Fn(&str) -> Option<OsString>, uid: u32) -> PathBuf {
    if let Some(folder) = var(CHOSEN) {
        return folder.into();
    }
    // Several are separated by colons, as in a PATH.
    if let Some(folders) = var("RUNTIME_DIRECTORY")
        && let Some(first) = std::env::split_paths(&folders).next()
    {
        return first;
    }
    if uid == 0 {
        return SYSTEM.into();
    }
    match var("XDG_RUNTIME_DIR") {
        Some(folder) => Path::new(&folder).join("keel"),
        None => format!("/tmp/keel-{uid}").into(),
    }
}

fn notes(folder: &Path) -> impl Iterator<Item = (PathBuf, LocalEngine)> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let path = entry.path();
        if path.extension()? != SUFFIX {
            return None;
        }
        let pid = path.file_stem()?.to_str()?.parse().ok()?;
        let socket = PathBuf::from(fs::read_to_string(&path).ok()?);
        Some((path, LocalEngine { pid, socket }))
    })
}

fn alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // A process of another user answers EPERM: it is there.
    pid.is_some_and(|pid| !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_engine_is_found_until_its_note_is_dropped() {
        let folder = tempfile::TempDir::new().unwrap();
        let note = Announcement::in_folder(folder.path(), Path::new("/run/some.sock")).unwrap();
        let engine = LocalEngine {
            pid: std::process::id(),
            socket: "/run/some.sock".into(),
        };
        assert_eq!(engines_in(&[folder.path().to_owned()]), [engine]);
        drop(note);
        assert_eq!(engines_in(&[folder.path().to_owned()]), []);
    }

    #[test]
    fn a_service_leaves_its_note_where_systemd_says() {
        let with = |set: &[(&str, &str)], uid| {
            let var = |name: &str| {
                let (_, value) = set.iter().find(|(known, _)| *known == name)?;
                Some(OsString::from(value))
            };
            folder(var, uid).to_string_lossy().into_owned()
        };
        let service = ("RUNTIME_DIRECTORY", "/run/keel:/run/other");
        let session = ("XDG_RUNTIME_DIR", "/run/user/7");
        assert_eq!(with(&[service, session], 7), "/run/keel");
        assert_eq!(with(&[service, (CHOSEN, "/tmp/t")], 7), "/tmp/t");
        assert_eq!(with(&[session], 7), "/run/user/7/keel");
        assert_eq!(with(&[session], 0), "/run/keel");
        assert_eq!(with(&[], 7), "/tmp/keel-7");
    }

    #[test]
    fn dead_foreign_and_broken_notes_are_ignored_and_cleared() {
        let folder = tempfile::TempDir::new().unwrap();
        // The largest possible pid is 2^22; no process has this number.
        fs::write(folder.path().join("99999999.engine"), "/run/dead.sock").unwrap();
        fs::write(folder.path().join("words.engine"), "/run/words.sock").unwrap();
        fs::write(folder.path().join("readme.txt"), "not a note").unwrap();
        assert_eq!(engines_in(&[folder.path().to_owned()]), []);
        let _note = Announcement::in_folder(folder.path(), Path::new("/run/some.sock")).unwrap();
        assert!(!folder.path().join("99999999.engine").exists());
        assert!(folder.path().join("readme.txt").exists());
    }
}
