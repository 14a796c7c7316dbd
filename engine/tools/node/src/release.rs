//! [`Release`]: the host as it was before [`crate::Preparation`].

use crate::address::Address;
use crate::finding::Finding;
use crate::hands::Hands;
use crate::pci::PciDevice;
use crate::prepare::{Refusal, rebind};
use crate::record::{Before, Record};
use crate::root::Root;
use crate::step::Step;
use crate::usage::{Use, uses};

/// Steps that undo what is recorded.
#[derive(Debug)]
pub struct Release {
    /// What is left to undo.
    pub steps: Vec<Step>,
    /// What could not be found any more.
    pub notes: Vec<String>,
    /// What stays.
    rest: Record,
}

impl Release {
    /// Undoes what was done for some devices, or everything: huge pages, modules and the boot unit go with the last device.
    ///
    /// # Errors
    /// [`Refusal`]: a process drives one of them.
    pub fn plan(root: &Root, only: &[Address]) -> Result<Release, Refusal> {
        let mut rest = Record::load(root)?;
        let mut release = Release {
            steps: Vec::new(),
            notes: Vec::new(),
            rest: Record::default(),
        };
        let mut found = Vec::new();
        let is_meant = |address: &Address| only.is_empty() || only.contains(address);
        for unknown in only
            .iter()
            .filter(|address| !rest.wish.devices.contains(*address))
        {
            release.notes.push(format!(
                "{unknown}: it was not prepared by `keel node prepare`"
            ));
        }
        let known: Vec<Address> = rest
            .wish
            .devices
            .iter()
            .filter(|address| is_meant(address))
            .cloned()
            .collect();
        for address in known {
            rest.wish.devices.remove(&address);
            let Some(before) = rest.devices.remove(&address) else {
                // A reboot undid it.
                continue;
            };
            let Some(device) = PciDevice::read(root, &address) else {
                release.notes.push(format!("{address}: it is not there any more; when it comes back the kernel's driver takes it"));
                continue;
            };
            let processes = uses(root, &device)
                .into_iter()
                .filter(|of| matches!(of, Use::Process { .. }));
            found.extend(processes.map(|of| Finding::of_use(&device, &of)));
            release.steps.extend(undo(root, &device, &before));
        }
        if !found.is_empty() {
            return Err(Refusal::Findings(found));
        }
        if rest.wish.devices.is_empty() {
            release.all_else(&mut rest);
        }
        release.rest = rest;
        Ok(release)
    }

    /// Carries it out. `tell` hears each step before it is done.
    ///
    /// # Errors
    /// The first step that fails ends it; the record still has all, so that it can be run again.
    pub fn run(
        &self,
        root: &Root,
        hands: &mut dyn Hands,
        mut tell: impl FnMut(&Step),
    ) -> Result<(), Refusal> {
        let _lock = Record::lock(root)?;
        for step in &self.steps {
            tell(step);
            hands.act(step)?;
        }
        Ok(self.rest.save(root)?)
    }

    fn all_else(&mut self, rest: &mut Record) {
        let pages = |(path, &count): (&String, &u64)| Step::Pages {
            path: path.clone(),
            count,
        };
        self.steps.extend(rest.pages.iter().map(pages));
        let unload = |module: &String| Step::Unload {
            module: module.clone(),
        };
        self.steps.extend(rest.modules.iter().map(unload));
        // The link before the unit.
        let remove = |path: &String| Step::Remove { path: path.clone() };
        self.steps.extend(rest.files.iter().rev().map(remove));
        *rest = Record::default();
    }
}

fn undo(root: &Root, device: &PciDevice, before: &Before) -> Vec<Step> {
    if device.driver == before.driver && device.driver_override == before.driver_override {
        let owned = before.owner.zip(device.node(root));
        let own = owned.map(|((uid, gid), path)| Step::Own { path, uid, gid });
        return own.into_iter().collect();
    }
    rebind(
        device,
        before.driver_override.as_deref(),
        before.driver.as_deref(),
    )
}
