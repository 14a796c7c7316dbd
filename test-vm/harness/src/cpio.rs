//! Writes the archive that Linux unpacks as its first root file system (format `newc`: Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;

/// An archive in memory. Folders above an entry are made by themselves.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
}

impl Archive {
    pub(crate) fn folder(&mut self, path: &str) {
        self.parents(path);
        if self.folders.insert(path.to_owned()) {
            self.entry(path, FOLDER | 0o755, b"");
        }
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, data: &[u8]) {
        self.parents(path);
        self.entry(path, FILE | mode, data);
    }

    /// A file of the host, under another name.
    pub(crate) fn copy(&mut self, path: &str, mode: u32, from: &Path) -> Result<()> {
        let data = fs::read(from).with_context(|| from.display().to_string())?;
        self.file(path, mode, &data);
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, b"");
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/').filter(|(at, _)| *at > 0) {
            self.folder(&path[..at]);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, data: &[u8]) {
        let name = path.trim_start_matches('/');
        self.entries += 1;
        // ino, mode, uid, gid, nlink, mtime, size, device and its own device (major, minor each), length of name, checksum.
        let size = u32::try_from(data.len()).expect("files of the image are small");
        let name_len = u32::try_from(name.len() + 1).expect("names are short");
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            0,
            0,
            name_len,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    /// Headers and data begin at multiples of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_as_the_kernel_reads_it() {
        let mut archive = Archive::default();
        archive.file("/ab", 0o644, b"hello");
        let expected = "070701\
            00000001000081A4000000000000000000000001000000000000000500000000000000000000000000000000\
            0000000300000000ab\0\0\0\0hello\0\0\0";
        assert_eq!(String::from_utf8_lossy(&archive.bytes), expected);
    }

    #[test]
    fn folders_come_once_and_first() {
        let mut archive = Archive::default();
        archive.file("/x/y/a", 0o644, b"");
        archive.file("/x/y/b", 0o644, b"");
        archive.folder("/x");
        assert_eq!(archive.entries, 4);
        let text = String::from_utf8_lossy(&archive.finish()).into_owned();
        let at = |name: &str| text.find(name).unwrap();
        assert!(at("x\0") < at("x/y\0") && at("x/y\0") < at("x/y/a\0"));
        assert!(text.len().is_multiple_of(4) && text.contains("TRAILER!!!\0"));
    }
}
