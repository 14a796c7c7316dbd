//! The files that are stored: the project's own sources, and generated ones that nothing can compress.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use walkdir::WalkDir;

/// Same files at every run: a difference is the engine's, not the generator's.
const SEED: u64 = 0x4b65_656c;
/// Generated files are between these sizes, in bytes.
const SIZES: std::ops::Range<u64> = (64 << 10)..(48 << 20);

/// A file to store.
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) crc: u32,
}

/// All of them.
pub(crate) struct Files {
    pub(crate) items: Vec<Item>,
    pub(crate) bytes: u64,
    pub(crate) scratch: PathBuf,
}

impl Files {
    pub(crate) fn collect(root: &Path, mib: u64) -> Result<Files> {
        let scratch = root.join("scratch/run");
        generate(&scratch.join("generated"), mib << 20)?;
        let mut items = Vec::new();
        let sources = WalkDir::new(root)
            .sort_by_file_name()
            .into_iter()
            .filter_entry(|entry| {
                let name = entry.file_name().to_string_lossy();
                entry.depth() == 0
                    || !(name.starts_with('.')
                        || entry.depth() == 1 && (name == "target" || name == "scratch"))
            });
        for entry in sources.chain(WalkDir::new(scratch.join("generated")).sort_by_file_name()) {
            let entry = entry?;
            if entry.file_type().is_file() {
                let (size, crc) = checksum(entry.path())?;
                let name = entry
                    .path()
                    .strip_prefix(root)
                    .unwrap_or(entry.path())
                    .to_string_lossy()
                    .into_owned();
                items.push(Item {
                    name,
                    path: entry.into_path(),
                    size,
                    crc,
                });
            }
        }
        Ok(Files {
            bytes: items.iter().map(|item| item.size).sum(),
            items,
            scratch,
        })
    }
}

/// Writes files of random size and content until there are `bytes` of them, unless an earlier run has.
fn generate(folder: &Path, bytes: u64) -> Result<()> {
    let done = folder.with_extension("done");
    if fs::read_to_string(&done).is_ok_and(|text| text == bytes.to_string()) {
        return Ok(());
    }
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder)?;
    let mut random = SmallRng::seed_from_u64(SEED);
    let (mut left, mut number, mut block) = (bytes, 0, vec![0; 1 << 20]);
    while left > 0 {
        let size = random.random_range(SIZES).min(left);
        let mut file = BufWriter::new(File::create(
            folder.join(format!("random-{number:03}.bin")),
        )?);
        let mut rest = size;
        while rest > 0 {
            let part = rest.min(block.len() as u64) as usize;
            random.fill_bytes(&mut block[..part]);
            file.write_all(&block[..part])?;
            rest -= part as u64;
        }
        file.flush()?;
        left -= size;
        number += 1;
    }
    fs::write(done, bytes.to_string())?;
    Ok(())
}

/// Size and CRC-32C of a file.
pub(crate) fn checksum(path: &Path) -> Result<(u64, u32)> {
    let mut file = File::open(path)?;
    let (mut size, mut crc, mut block) = (0, 0, vec![0; 1 << 20]);
    loop {
        let count = file.read(&mut block)?;
        if count == 0 {
            return Ok((size, crc));
        }
        crc = crc32c::crc32c_append(crc, &block[..count]);
        size += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_files_have_the_size_asked_for_and_are_the_same_again() {
        let folder = tempfile::TempDir::new().unwrap();
        let sum = |name: &str| {
            let at = folder.path().join(name);
            generate(&at, 3 << 20).unwrap();
            let all: Vec<_> = WalkDir::new(at)
                .sort_by_file_name()
                .into_iter()
                .flatten()
                .filter(|e| e.file_type().is_file())
                .map(|e| checksum(e.path()).unwrap())
                .collect();
            assert_eq!(all.iter().map(|(size, _)| size).sum::<u64>(), 3 << 20);
            all
        };
        assert_eq!(sum("a"), sum("b"));
    }
}
