//! The one place where VMs run: a lock, the prepared guest, the run's folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::accel::Accel;
use crate::disks::Disks;
use crate::guest::Guest;
use crate::profile::Profile;
use crate::vm::Vm;
use crate::{boot, image, runs, tools};

/// Holds the machine's only VM slot: an emulated machine takes all processors, and two would time each other out.
pub struct Lab {
    cache: PathBuf,
    programs: PathBuf,
    guest: Guest,
    pub(crate) accel: Accel,
    /// Programs of the host that guests get in `/bin`.
    extra: Vec<PathBuf>,
    /// The socket of the network between two VMs is in it.
    sockets: TempDir,
    _slot: File,
}

/// How a VM is started.
#[derive(Clone, Copy, Default)]
pub struct BootOptions {
    /// Which of two VMs on one network, 1 or 2. The first must be there first.
    pub peer: Option<u8>,
    /// A shell on this terminal, of this many rows and columns.
    pub terminal: Option<(u16, u16)>,
}

impl Lab {
    /// Waits for the slot and prepares the guest: downloads it the first time, needs no network afterwards. `programs` is where
    /// cargo put `keel`, `keel-engine` and the agent; what is kept goes to `vm/` beside that folder.
    pub fn open(programs: &Path, extra: &[PathBuf]) -> Result<Lab> {
        tools::ensure_all(&tools::QEMU)?;
        let programs = programs
            .canonicalize()
            .with_context(|| programs.display().to_string())?;
        let agent = programs.join(image::AGENT);
        ensure!(
            agent.exists(),
            "{} is not there; build it with: cargo build --workspace",
            agent.display()
        );
        let cache = programs
            .parent()
            .context("programs are in a folder of the target directory")?
            .join("vm");
        fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
        let slot = slot()?;
        let guest = Guest::prepare(&cache)?;
        let accel = Accel::choose(&cache, &guest)?;
        Ok(Lab {
            cache,
            programs,
            guest,
            accel,
            extra: extra.to_vec(),
            sockets: TempDir::with_prefix("keel-vm-net-")?,
            _slot: slot,
        })
    }

    /// A folder for one run; the newest twenty are kept.
    pub fn new_run(&self, name: &str) -> Result<PathBuf> {
        runs::create(&self.cache.join("runs"), name)
    }

    /// Empty disks for a profile, in a run's folder.
    pub fn new_disks(&self, profile: &Profile, run: &Path) -> Result<Disks> {
        self.new_disks_in(profile, &run.join("disks"))
    }

    /// The same in a folder of their own, for runs with several machines.
    pub fn new_disks_in(&self, profile: &Profile, folder: &Path) -> Result<Disks> {
        Disks::create(profile, folder)
    }

    /// Starts a VM and waits until its agent answers. The run's folder gets console and logs, and is the guest's `/state`.
    pub fn boot(
        &self,
        profile: &Profile,
        disks: Disks,
        run: &Path,
        options: BootOptions,
    ) -> Result<Vm> {
        boot::boot(self, profile, disks, run, options)
    }

    pub(crate) fn programs(&self) -> &Path {
        &self.programs
    }

    pub(crate) fn network(&self) -> PathBuf {
        self.sockets.path().join("peer")
    }

    pub(crate) fn kernel(&self) -> PathBuf {
        self.guest.kernel()
    }

    pub(crate) fn image(&self) -> Result<Vec<u8>> {
        image::build(&self.guest, &self.programs, &self.extra)
    }
}

/// Waits for the slot, saying so if it takes more than a moment. The lock goes with the process.
fn slot() -> Result<File> {
    let user = rustix::process::getuid().as_raw();
    let path = std::env::temp_dir().join(format!("keel-vm.{user}.lock"));
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| path.display().to_string())?;
    if file.try_lock().is_err() {
        eprintln!("another VM runs; waiting for it ({})", path.display());
        file.lock().with_context(|| path.display().to_string())?;
    }
    Ok(file)
}
