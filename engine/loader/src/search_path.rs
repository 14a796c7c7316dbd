//! From a module's name to a file that may be opened.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use module_abi::DSS_MODNAME_MAX_LEN;

use crate::error::LoadError;

/// Folders that may hold modules, first match wins.
#[derive(Debug, Clone)]
pub struct SearchPath(Vec<PathBuf>);

impl SearchPath {
    /// A path of the given folders, in order.
    pub fn new(folders: impl IntoIterator<Item = PathBuf>) -> SearchPath {
        SearchPath(folders.into_iter().collect())
    }

    /// The file of module `name`, checked as far as that goes without running any of it.
    pub fn find(&self, name: &str) -> Result<PathBuf, LoadError> {
        check_name(name)?;
        let file = format!("lib{name}.so");
        let path = self
            .0
            .iter()
            .map(|folder| folder.join(&file))
            .find(|path| path.symlink_metadata().is_ok());
        let path = path.ok_or_else(|| self.not_found(name))?;
        check_file(name, &path)?;
        Ok(path)
    }

    /// Names of all modules on the path, for hints and listings.
    pub fn available(&self) -> Vec<String> {
        let entries = self
            .0
            .iter()
            .filter_map(|folder| folder.read_dir().ok())
            .flatten()
            .flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter_map(|file| Some(file.strip_prefix("lib")?.strip_suffix(".so")?.to_owned()))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn not_found(&self, name: &str) -> LoadError {
        let searched: Vec<String> = self
            .0
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        LoadError::NotFound {
            name: name.to_owned(),
            searched: searched.join(", "),
            hint: closest(name, self.available()),
        }
    }
}

/// The candidate most like `name`, if one is alike at all.
pub(crate) fn closest(name: &str, candidates: impl IntoIterator<Item = String>) -> Option<String> {
    let scored = candidates
        .into_iter()
        .map(|c| (strsim::jaro_winkler(name, &c), c));
    scored
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

fn check_name(name: &str) -> Result<(), LoadError> {
    if name.len() > DSS_MODNAME_MAX_LEN as usize {
        return Err(LoadError::NameTooLong {
            name: name.to_owned(),
            len: name.len(),
        });
    }
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || !name.chars().all(plain) {
        return Err(LoadError::NameInvalid {
            name: name.to_owned(),
        });
    }
    Ok(())
}

fn check_file(name: &str, path: &Path) -> Result<(), LoadError> {
    let not_readable = |why: String| LoadError::NotReadable {
        name: name.to_owned(),
        path: path.to_owned(),
        why,
    };
    let mut file = File::open(path).map_err(|e| not_readable(e.to_string()))?;
    let metadata = file.metadata().map_err(|e| not_readable(e.to_string()))?;
    if !metadata.is_file() {
        return Err(not_readable("not a regular file".to_owned()));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    for (bit, who) in [(0o002, "others"), (0o020, "its group")] {
        if mode & bit != 0 {
            return Err(LoadError::Writable {
                name: name.to_owned(),
                path: path.to_owned(),
                mode,
                who,
            });
        }
    }
    let mut magic = Vec::with_capacity(4);
    file.by_ref()
        .take(4)
        .read_to_end(&mut magic)
        .map_err(|e| not_readable(e.to_string()))?;
    if magic != *b"\x7fELF" {
        let starts = match magic.is_empty() {
            true => "nothing: it is empty".to_owned(),
            false => magic
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect::<Vec<_>>()
                .join(" "),
        };
        return Err(LoadError::NotElf {
            name: name.to_owned(),
            path: path.to_owned(),
            starts,
        });
    }
    Ok(())
}
