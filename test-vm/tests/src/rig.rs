//! What a test is given: a VM that it may cut off and start again, and engines in it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use test_vm::{BootOptions, Disks, Lab, Profile, Vm};

/// One machine of a profile with its disks, through any number of boots.
pub(crate) struct Rig<'a> {
    lab: &'a Lab,
    profile: Profile,
    run: PathBuf,
    vm: Option<Vm>,
}

impl<'a> Rig<'a> {
    /// Boots a machine with empty disks. Logs go to a run's folder of this name.
    pub(crate) fn boot(lab: &'a Lab, profile: &str, name: &str) -> Result<Rig<'a>> {
        let profile = Profile::named(profile)?;
        let run = lab.new_run(name)?;
        let disks = lab.new_disks(&profile, &run)?;
        let mut rig = Rig {
            lab,
            profile,
            run,
            vm: None,
        };
        rig.start(disks)?;
        Ok(rig)
    }

    pub(crate) fn lab(&self) -> &'a Lab {
        self.lab
    }

    pub(crate) fn profile(&self) -> &Profile {
        &self.profile
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.run
    }

    /// The running VM.
    pub(crate) fn vm(&mut self) -> Result<&mut Vm> {
        self.vm
            .as_mut()
            .context("the VM could not be started again")
    }

    /// Kills QEMU where it stands and starts it on what the disks have.
    pub(crate) fn cut_power_and_boot(&mut self) -> Result<()> {
        let disks = self.vm.take().context("no VM")?.cut_power()?;
        self.start(disks)
    }

    /// Powers off and on.
    pub(crate) fn reboot(&mut self) -> Result<()> {
        let disks = self.vm.take().context("no VM")?.power_off()?;
        self.start(disks)
    }

    fn start(&mut self, disks: Disks) -> Result<()> {
        self.vm = Some(
            self.lab
                .boot(&self.profile, disks, &self.run, BootOptions::default())?,
        );
        Ok(())
    }

    /// After a success: the machine ends, its disks go, its logs stay for a while.
    pub(crate) fn finish(mut self) -> Result<()> {
        if let Some(vm) = self.vm.take() {
            vm.power_off()?;
        }
        std::fs::remove_dir_all(self.run.join("disks")).context("the run's disks")
    }
}
