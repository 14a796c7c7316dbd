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

    /// Ends the rig's own machine, which has no peer, and leaves the processors to two that have: 1 first, then 2, with these disks or new
    /// ones.
    pub(crate) fn boot_peer(&mut self, number: u8, disks: Option<Disks>) -> Result<Vm> {
        if let Some(vm) = self.vm.take() {
            vm.power_off()?;
        }
        let disks = match disks {
            Some(disks) => disks,
            None => {
                let folder = self.run.join("disks").join(number.to_string());
                self.lab.new_disks_in(&self.profile, &folder)?
            }
        };
        let options = BootOptions {
            peer: Some(number),
            ..BootOptions::default()
        };
        self.lab.boot(&self.profile, disks, &self.run, options)
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

    /// Powers off and starts a kernel with these options on top of what the machine has anyway.
    pub(crate) fn reboot_with(&mut self, kernel_options: &str) -> Result<()> {
        kernel_options.clone_into(&mut self.profile.kernel_options);
        self.reboot()
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
