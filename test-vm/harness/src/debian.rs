//! Packages from Debian's archive, downloaded and unpacked into a folder. Nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::tools;

/// The package that a meta package stands for: `linux-image-amd64` depends on the newest kernel.
pub(crate) fn resolve(meta: &str) -> Result<String> {
    let depends = || -> Result<Option<String>> {
        let text = tools::output(Command::new("apt-cache").args(["depends", meta]))?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut names = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.next().map(str::to_owned))
    };
    let known = depends();
    if let Ok(Some(name)) = known {
        return Ok(name);
    }
    update(meta)?;
    depends()?.with_context(|| {
        format!("apt knows no {meta}; the guest's kernel comes from Debian's archive")
    })
}

/// Downloads a package unless it is there, and gives its file. apt verifies it against the signed index; once here, it is
/// verified against the checksum noted then.
pub(crate) fn download(package: &str, folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let note = folder.join(format!("{package}.sha256"));
    let file = folder.join(format!("{package}.deb"));
    if let Ok(noted) = fs::read_to_string(&note) {
        if file.exists() && tools::sha256(&file)? == noted {
            return Ok(file);
        }
        eprintln!(
            "{} does not have the checksum in {}; downloading it again",
            file.display(),
            note.display()
        );
    }
    let part = tempfile::tempdir_in(folder)?;
    eprintln!("downloading {package} into {} (once)", folder.display());
    if fetch(package, part.path()).is_err() {
        // Package lists that are missing or older than the archive.
        update(package)?;
        fetch(package, part.path()).with_context(|| {
            format!(
                "{package} is needed for the guest and is not in {}",
                folder.display()
            )
        })?;
    }
    let mut debs = fs::read_dir(part.path())?
        .filter_map(Result::ok)
        .map(|entry| entry.path());
    let Some(deb) = debs.find(|path| path.extension().is_some_and(|ext| ext == "deb")) else {
        bail!("apt-get download {package} left no package");
    };
    fs::write(&note, tools::sha256(&deb)?)?;
    fs::rename(&deb, &file)?;
    Ok(file)
}

fn fetch(package: &str, into: &Path) -> Result<()> {
    tools::output(
        Command::new("apt-get")
            .args(["-q", "download", package])
            .current_dir(into),
    )
    .map(drop)
}

fn update(package: &str) -> Result<()> {
    ensure!(
        tools::find("apt-get").is_some(),
        "the guest's {package} comes from Debian's archive, and this machine has no apt"
    );
    ensure!(
        rustix::process::geteuid().is_root(),
        "apt does not know {package} or cannot fetch it; refresh its lists with: sudo apt-get update"
    );
    eprintln!("apt cannot fetch {package} with the lists that it has: apt-get update");
    tools::apt(&["update"])
}

/// Unpacks a package below a folder.
pub(crate) fn unpack(package: &Path, into: &Path) -> Result<()> {
    tools::output(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(package)
            .arg(into),
    )
    .map(drop)
}
