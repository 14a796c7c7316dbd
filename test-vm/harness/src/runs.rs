//! Where a run leaves what it has: `target/vm/runs/NUMBER-NAME`, the newest few.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Runs that are kept. Disk images are deleted with the run's success, so a run is mostly logs.
const KEPT: usize = 20;

/// Makes the folder of a new run and deletes the oldest beyond those that are kept.
pub(crate) fn create(runs: &Path, name: &str) -> Result<PathBuf> {
    fs::create_dir_all(runs).with_context(|| runs.display().to_string())?;
    let mut numbered: Vec<(u32, PathBuf)> = runs
        .read_dir()?
        .filter_map(Result::ok)
        .filter_map(|entry| Some((number(entry.file_name().to_str()?)?, entry.path())))
        .collect();
    numbered.sort();
    let next = numbered.last().map_or(1, |(number, _)| number + 1);
    let kept = KEPT - 1; // and the new one
    for (_, old) in numbered.iter().take(numbered.len().saturating_sub(kept)) {
        fs::remove_dir_all(old).with_context(|| old.display().to_string())?;
    }
    let folder = runs.join(format!("{next:04}-{name}"));
    fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

fn number(name: &str) -> Option<u32> {
    name.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_runs_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("note"), "not a run").unwrap();
        for _ in 0..KEPT + 3 {
            create(dir.path(), "x").unwrap();
        }
        let mut left: Vec<_> = dir
            .path()
            .read_dir()
            .unwrap()
            .filter_map(|entry| number(entry.unwrap().file_name().to_str().unwrap()))
            .collect();
        left.sort_unstable();
        let last = u32::try_from(KEPT).unwrap() + 3;
        assert_eq!(left, (4..=last).collect::<Vec<_>>());
    }
}
