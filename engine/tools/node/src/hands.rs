//! [`Hands`]: who carries out steps. [`ThisMachine`] is the only one outside of tests, which put a kernel made of files in its place.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::hugepages::boot_options;
use crate::pci::PciDevice;
use crate::root::Root;
use crate::step::{Step, StepFailed};

/// Carries out steps.
pub trait Hands {
    /// One step.
    ///
    /// # Errors
    /// Why it could not be done.
    fn act(&mut self, step: &Step) -> Result<(), StepFailed>;
}

/// Changes the machine below a root.
#[derive(Debug)]
pub struct ThisMachine(pub Root);

impl Hands for ThisMachine {
    fn act(&mut self, step: &Step) -> Result<(), StepFailed> {
        let root = &self.0;
        let done = match step {
            Step::Load { module } => modprobe(&[module]),
            Step::Unload { module } => {
                // Whoever came to need it meanwhile keeps it.
                let _ = modprobe(&["-r", module]);
                Ok(())
            }
            Step::Write { path, text } => write(&root.path(path), text),
            Step::Pages { path, count } => return pages(root, step, path, *count),
            Step::Expect { address, driver } => return expect(root, step, address, driver),
            Step::Own { path, uid, gid } => chown(root.path(path), Some(*uid), Some(*gid)),
            Step::File { path, text } => file(&root.path(path), text),
            Step::Link { path, to } => link(&root.path(path), to),
            Step::Remove { path } => remove(&root.path(path)),
        };
        done.map_err(|error| failed(step, error.to_string(), cure(step, &error)))
    }
}

fn failed(step: &Step, why: String, cure: impl Into<String>) -> StepFailed {
    StepFailed {
        step: step.clone(),
        why,
        cure: cure.into(),
    }
}

fn cure(step: &Step, error: &io::Error) -> &'static str {
    match (error.kind(), step) {
        (io::ErrorKind::PermissionDenied, _) => "run it as root, outside of containers",
        (io::ErrorKind::ResourceBusy, _) => {
            "something uses the device: `keel node doctor` says what"
        }
        (_, Step::Load { .. }) => {
            "`keel node doctor` says whether the kernel has the module; see also dmesg"
        }
        _ => "see the kernel's log (dmesg)",
    }
}

fn modprobe(arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("modprobe")
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "modprobe ended with {}: {}",
        output.status,
        said.trim()
    )))
}

/// One write call: the kernel takes the text as one command.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)?;
    file.write_all(format!("{text}\n").as_bytes())
}

fn pages(root: &Root, step: &Step, path: &str, count: u64) -> Result<(), StepFailed> {
    let set = || write(&root.path(path), &count.to_string());
    let have = || root.number(path).unwrap_or(0);
    set().map_err(|error| failed(step, error.to_string(), cure(step, &error)))?;
    if have() < count {
        // Once more after the kernel has moved what can be moved; where it cannot be asked to, the next look tells.
        let _ = write(&root.path("/proc/sys/vm/compact_memory"), "1");
        let _ = set();
    }
    let have = have();
    if have < count {
        let why = format!(
            "the kernel found {have} of {count} huge pages: its memory is used or fragmented"
        );
        let cure = format!(
            "free memory and run it again, or set them aside at boot: {} in GRUB_CMDLINE_LINUX in /etc/default/grub; \
             update-grub; reboot",
            boot_options(path, count)
        );
        return Err(failed(step, why, cure));
    }
    Ok(())
}

fn expect(
    root: &Root,
    step: &Step,
    address: &crate::Address,
    driver: &str,
) -> Result<(), StepFailed> {
    let has = PciDevice::read(root, address).and_then(|device| device.driver);
    if has.as_deref() == Some(driver) {
        return Ok(());
    }
    let has = has.map_or("no driver".to_owned(), |name| {
        format!("the driver `{name}`")
    });
    Err(failed(
        step,
        format!("{address} has {has} now"),
        "see the kernel's log (dmesg); `keel node release` undoes what was done",
    ))
}

/// Whole or not at all, readable by all.
pub(crate) fn file(path: &Path, text: &str) -> io::Result<()> {
    parents(path)?;
    let beside = path.with_extension("new");
    let mut file = fs::File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

fn link(path: &Path, to: &str) -> io::Result<()> {
    parents(path)?;
    remove(path)?;
    symlink(to, path)
}

fn parents(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
