//! KVM or TCG. That `/dev/kvm` exists says little (nested, it may refuse or hang), so the kernel is started on it once.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cpio::Archive;
use crate::guest::Guest;

/// How the guest's instructions are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accel {
    /// By the processor.
    Kvm,
    /// By QEMU's translator.
    Tcg,
}

/// Longest time that a working KVM takes to start a kernel that ends at once; it is a tenth of that.
const PROBE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(50);
/// What the probe's guest says.
const SAID: &str = "keel: kvm works";

impl Accel {
    /// As `KEEL_VM_ACCEL` says (`kvm`, `tcg`), or what works here; that is found out once per start of the machine.
    pub(crate) fn choose(cache: &Path, guest: &Guest) -> Result<Accel> {
        match std::env::var("KEEL_VM_ACCEL").as_deref() {
            Ok("kvm") => return Ok(Accel::Kvm),
            Ok("tcg") => return Ok(Accel::Tcg),
            Ok(other) if other != "auto" => {
                bail!("KEEL_VM_ACCEL is {other:?}; it may be kvm, tcg or auto")
            }
            _ => {}
        }
        if File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_err()
        {
            return Ok(Accel::Tcg);
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let note = cache.join("accel");
        let noted = fs::read_to_string(&note).unwrap_or_default();
        if let Some(found) = noted.strip_prefix(&boot) {
            return Ok(if found == "kvm" {
                Accel::Kvm
            } else {
                Accel::Tcg
            });
        }
        let works = probe(cache, guest)?;
        fs::write(&note, boot + if works { "kvm" } else { "tcg" })?;
        if !works {
            eprintln!(
                "KVM is there and does not start a kernel: the VMs are emulated (noted in {})",
                note.display()
            );
        }
        Ok(if works { Accel::Kvm } else { Accel::Tcg })
    }
}

/// Starts the guest's kernel under KVM with an image that says a line and powers off.
fn probe(cache: &Path, guest: &Guest) -> Result<bool> {
    let folder = tempfile::tempdir_in(cache)?;
    let (image, console) = (folder.path().join("image"), folder.path().join("console"));
    let mut archive = Archive::default();
    archive.folder("/dev");
    archive.copy("/bin/busybox", 0o755, &guest.busybox())?;
    let init = format!(
        "#!/bin/busybox sh\n/bin/busybox mount -t devtmpfs dev /dev\necho '{SAID}' >/dev/ttyS0\n/bin/busybox poweroff -f\n"
    );
    archive.file("/init", 0o755, init.as_bytes());
    fs::write(&image, archive.finish())?;
    let mut qemu = Command::new("qemu-system-x86_64")
        .args("-nodefaults -display none -no-reboot -machine q35,kernel-irqchip=split -accel kvm -cpu host -m 512 -append".split(' '))
        .arg("console=ttyS0 quiet panic=1")
        .arg("-kernel")
        .arg(guest.kernel())
        .arg("-initrd")
        .arg(&image)
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run qemu-system-x86_64")?;
    let deadline = Instant::now() + PROBE;
    while qemu.try_wait()?.is_none() && Instant::now() < deadline {
        std::thread::sleep(LOOK);
    }
    let _ = qemu.kill();
    qemu.wait()?;
    Ok(fs::read_to_string(&console)
        .unwrap_or_default()
        .contains(SAID))
}
