//! What every guest needs from Debian: a kernel, its modules and a busybox, prepared once and kept with checksums.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::debian;
use crate::kernel_modules::{self, WANTED};
use crate::tools::{self, Unavailable};

const KERNEL: &str = "linux-image-amd64";
const BUSYBOX: &str = "busybox-static";
/// Names of the prepared files with their checksums, as `sha256sum` writes them; written last.
const SUMS: &str = "SHA256SUMS";
/// The order in which modules are loaded, one a line.
const ORDER: &str = "modules.order";
/// For which list of modules this folder was made.
const MADE_FOR: &str = "modules.wanted";

/// The prepared folder.
pub(crate) struct Guest {
    folder: PathBuf,
}

impl Guest {
    /// Uses what is there if it is whole, without a network; otherwise downloads and prepares it.
    pub(crate) fn prepare(cache: &Path) -> Result<Guest> {
        if !cfg!(target_arch = "x86_64") {
            let why = "VMs are made of x86_64 guests and programs; this machine is another";
            bail!(Unavailable(why.to_owned()));
        }
        let guest = Guest {
            folder: cache.join("guest"),
        };
        if !guest.is_whole() {
            guest.make(cache)?;
        }
        Ok(guest)
    }

    /// The kernel as an ELF file where it could be unpacked: it then starts without the firmware's and its own detours.
    pub(crate) fn kernel(&self) -> PathBuf {
        let unpacked = self.folder.join("vmlinux");
        if unpacked.exists() {
            unpacked
        } else {
            self.folder.join("vmlinuz")
        }
    }

    pub(crate) fn busybox(&self) -> PathBuf {
        self.folder.join("busybox")
    }

    /// Modules in the order in which they are loaded.
    pub(crate) fn modules(&self) -> Result<Vec<(String, PathBuf)>> {
        let order = fs::read_to_string(self.folder.join(ORDER))?;
        let module = |name: &str| (name.to_owned(), self.folder.join(format!("{name}.ko")));
        Ok(order.lines().map(module).collect())
    }

    fn is_whole(&self) -> bool {
        let made_for = fs::read_to_string(self.folder.join(MADE_FOR));
        let sums = Command::new("sha256sum")
            .args(["--check", "--quiet", "--status", SUMS])
            .current_dir(&self.folder)
            .status();
        made_for.is_ok_and(|made_for| made_for == WANTED.join("\n"))
            && sums.is_ok_and(|status| status.success())
    }

    fn make(&self, cache: &Path) -> Result<()> {
        let packages = cache.join("packages");
        let kernel = debian::download(&debian::resolve(KERNEL)?, &packages)?;
        let busybox = debian::download(BUSYBOX, &packages)?;
        let unpacked = tempfile::tempdir_in(cache)?;
        debian::unpack(&kernel, unpacked.path())?;
        debian::unpack(&busybox, unpacked.path())?;
        let new = tempfile::tempdir_in(cache)?;
        let take = |from: &Path, to: &str| {
            fs::copy(from, new.path().join(to))
                .map(drop)
                .with_context(|| from.display().to_string())
        };
        take(
            &first_of(&unpacked.path().join("boot"), "vmlinuz-")?,
            "vmlinuz",
        )?;
        take(&unpacked.path().join("bin/busybox"), "busybox")?;
        unpack_kernel(new.path())?;
        let found = kernel_modules::find(&unpacked.path().join("lib/modules"))?;
        let order = kernel_modules::in_order(&found, &WANTED)?;
        ensure!(
            order.iter().any(|name| name == "nvme"),
            "{} has no NVMe driver among {} modules: not a kernel that guests can be made of",
            kernel.display(),
            found.len()
        );
        for name in &order {
            take(&found[name], &format!("{name}.ko"))?;
        }
        fs::write(new.path().join(ORDER), order.join("\n") + "\n")?;
        fs::write(new.path().join(MADE_FOR), WANTED.join("\n"))?;
        seal(new.path())?;
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)?;
        }
        fs::rename(new.keep(), &self.folder)?;
        Ok(())
    }
}

fn first_of(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = folder
        .read_dir()
        .with_context(|| folder.display().to_string())?;
    let mut paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    paths
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .with_context(|| format!("{} has no {prefix}*", folder.display()))
}

/// Writes the checksums of all files of a folder.
fn seal(folder: &Path) -> Result<()> {
    let mut names: Vec<_> = folder
        .read_dir()?
        .filter_map(Result::ok)
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    let sums = tools::output(
        Command::new("sha256sum")
            .arg("--binary")
            .args(names)
            .current_dir(folder),
    )?;
    fs::write(folder.join(SUMS), sums)?;
    Ok(())
}

/// Takes the ELF file out of `vmlinuz`, if it is packed as Debian packs it. An emulated CPU takes four seconds for that. Where
/// it cannot be taken out, the packed one serves, too.
fn unpack_kernel(folder: &Path) -> Result<()> {
    if tools::find("xz").is_none() {
        eprintln!("xz not found (package xz-utils): guests will take some seconds longer to start");
        return Ok(());
    }
    let image = fs::read(folder.join("vmlinuz"))?;
    let Some(packed) = payload(&image).filter(|packed| packed.starts_with(b"\xfd7zXZ\0")) else {
        return Ok(());
    };
    let file = folder.join("payload.xz");
    fs::write(&file, packed)?;
    let elf = tools::output(
        Command::new("xz")
            .args(["--decompress", "--stdout"])
            .arg(&file),
    );
    fs::remove_file(&file)?;
    let elf = elf?;
    ensure!(
        elf.starts_with(b"\x7fELF"),
        "the kernel's payload is not an ELF file"
    );
    fs::write(folder.join("vmlinux"), elf)?;
    Ok(())
}

/// The compressed kernel within a `bzImage` (Documentation/arch/x86/boot.rst): behind the set-up sectors, at `payload_offset`,
/// with the unpacked length in its last four bytes.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes) as usize)
    };
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let sectors = usize::from(*image.get(0x1f1)?) + 1;
    let from = sectors * 512 + word(0x248)?;
    image.get(from..(from + word(0x24c)?).checked_sub(4)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_where_the_boot_protocol_says() {
        let mut image = vec![0; 2048];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248] = 16;
        image[0x24c] = 9;
        image[1024 + 16..1024 + 21].copy_from_slice(b"hello");
        assert_eq!(payload(&image), Some(&b"hello"[..]));
        image[0x24f] = 0xff;
        assert_eq!(payload(&image), None);
        assert_eq!(payload(b"MZ"), None);
    }

    #[test]
    fn a_damaged_folder_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let guest = Guest {
            folder: dir.path().to_owned(),
        };
        fs::write(dir.path().join("busybox"), "x").unwrap();
        fs::write(dir.path().join(MADE_FOR), WANTED.join("\n")).unwrap();
        assert!(!guest.is_whole(), "no checksums");
        seal(dir.path()).unwrap();
        assert!(guest.is_whole());
        fs::write(dir.path().join("busybox"), "y").unwrap();
        assert!(!guest.is_whole(), "another busybox");
    }
}
