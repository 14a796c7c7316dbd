//! The source tree as the rules see it: text files, what stands in the Rust ones, and the manifests. Read once.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use walkdir::{DirEntry, WalkDir};

use crate::facts::Facts;

/// Directories that hold nothing of ours.
const SKIPPED: [&str; 4] = ["target", "scratch", ".git", "node_modules"];

/// Kinds of files that rules on text look at.
const TEXT: [&str; 13] = [
    "rs", "toml", "md", "c", "h", "proto", "sh", "json", "yml", "yaml", "txt", "service", "py",
];

/// Larger files are data, not text that someone wrote.
const MAX_TEXT: u64 = 4 << 20;

#[derive(Debug)]
pub(crate) struct SourceTree {
    /// By path from the top, with `/` between the parts.
    pub(crate) files: BTreeMap<String, SourceFile>,
}

#[derive(Debug)]
pub(crate) struct SourceFile {
    pub(crate) text: String,
    /// For Rust: what is in it, or why it could not be read as Rust.
    pub(crate) rust: Option<Result<Facts, String>>,
}

impl SourceTree {
    pub(crate) fn read(root: &Path) -> Result<SourceTree> {
        let mut paths = Vec::new();
        for entry in WalkDir::new(root).into_iter().filter_entry(is_ours) {
            let entry = entry.with_context(|| format!("cannot walk {}", root.display()))?;
            if entry.file_type().is_file()
                && is_text(entry.path())
                && entry.metadata()?.len() <= MAX_TEXT
            {
                paths.push(entry.into_path());
            }
        }
        let workers = thread::available_parallelism().map_or(2, |n| n.get().min(8));
        let share = paths.len().div_ceil(workers).max(1);
        let parts: Vec<Result<Vec<(String, SourceFile)>>> = thread::scope(|scope| {
            let read = |paths: &[_]| {
                paths
                    .iter()
                    .map(|path: &std::path::PathBuf| SourceFile::read(root, path))
                    .collect()
            };
            let running: Vec<_> = paths
                .chunks(share)
                .map(|paths| scope.spawn(move || read(paths)))
                .collect();
            let lost = |_| anyhow::anyhow!("a thread that reads sources panicked");
            running
                .into_iter()
                .map(|part| part.join().map_err(lost).and_then(|part| part))
                .collect()
        });
        let mut files = BTreeMap::new();
        for part in parts {
            files.extend(part?);
        }
        Ok(SourceTree { files })
    }

    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(|file| file.text.as_str())
    }

    /// Rust files that parse; one that does not is reported by [`crate::check::tidy`].
    pub(crate) fn rust(&self) -> impl Iterator<Item = (&str, &Facts)> {
        let facts = |file: &'_ SourceFile| matches!(file.rust, Some(Ok(_)));
        self.files
            .iter()
            .filter(move |(_, file)| facts(file))
            .filter_map(|(path, file)| match &file.rust {
                Some(Ok(facts)) => Some((path.as_str(), facts)),
                _ => None,
            })
    }

    /// Manifests of packages, each with its directory (empty = the top).
    pub(crate) fn manifests(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.files.iter().filter_map(|(path, file)| {
            let dir = path.strip_suffix("Cargo.toml")?;
            Some((path.as_str(), dir.trim_end_matches('/'), file.text.as_str()))
        })
    }
}

impl SourceFile {
    fn read(root: &Path, path: &Path) -> Result<(String, SourceFile)> {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let inside = path.strip_prefix(root).unwrap_or(path);
        let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
        let rust = inside
            .extension()
            .is_some_and(|ext| ext == "rs")
            .then(|| Facts::read(&text));
        Ok((parts.join("/"), SourceFile { text, rust }))
    }
}

fn is_ours(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    entry.depth() == 0 || !(entry.file_type().is_dir() && SKIPPED.contains(&name.as_ref()))
}

fn is_text(path: &Path) -> bool {
    match path.extension() {
        Some(ext) => TEXT.iter().any(|known| ext == *known),
        None => path
            .parent()
            .and_then(Path::file_name)
            .is_some_and(|dir| dir == ".ci"),
    }
}
