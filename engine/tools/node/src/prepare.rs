//! [`Preparation`]: from what is asked for to the steps that are left to do, all refusals first.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::address::Address;
use crate::code;
use crate::doctor::{device, host, iommu};
use crate::finding::Finding;
use crate::hands::Hands;
use crate::hugepages::{NodePages, PageSize, count_file};
use crate::need::Need;
use crate::pci::{PciDevice, UIO, VFIO};
use crate::record::{Before, Record, RecordError};
use crate::root::Root;
use crate::step::{Step, StepFailed};
use crate::unit;
use crate::usage::{Use, claim, uses};

/// What an operator asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Wish {
    /// SSDs to lend out.
    pub devices: BTreeSet<Address>,
    /// Bytes of huge pages of each size on each node.
    pub bytes: BTreeMap<PageSize, BTreeMap<u32, u64>>,
    /// The user that gets the devices.
    pub user: Option<String>,
    /// Through `uio_pci_generic`, without protection.
    pub uio: bool,
    /// Again at each boot.
    pub at_boot: bool,
}

impl Wish {
    /// Devices and memory of a configuration, or of single devices.
    #[must_use]
    pub fn of(need: Need) -> Wish {
        Wish {
            bytes: need
                .page_size()
                .map(|size| (size, need.bytes))
                .into_iter()
                .collect(),
            devices: need.devices,
            ..Wish::default()
        }
    }
}

/// Why the host cannot be prepared, or not be released, or not any further.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Something is in the way; nothing was changed.
    #[error("{}", texts(.0))]
    Findings(Vec<Finding>),
    /// A step failed.
    #[error(transparent)]
    Step(#[from] StepFailed),
    /// The record cannot be kept: nothing was changed.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// No such user; nothing was changed.
    #[error(transparent)]
    Account(#[from] crate::UnknownAccount),
}

fn texts(findings: &[Finding]) -> String {
    let texts: Vec<String> = findings.iter().map(ToString::to_string).collect();
    texts.join("\n")
}

/// Steps that make the host what is wished, and the record that undoes them.
#[derive(Debug)]
pub struct Preparation {
    /// What is left to do; empty if the host is ready.
    pub steps: Vec<Step>,
    /// What the operator should know.
    pub notes: Vec<String>,
    record: Record,
    /// The devices that change hands.
    taken: Vec<PciDevice>,
}

impl Preparation {
    /// Looks at the host. `program` is the path of `keel`, for the boot unit.
    ///
    /// # Errors
    /// [`Refusal`], with everything that is in the way.
    pub fn plan(root: &Root, wish: &Wish, program: &str) -> Result<Preparation, Refusal> {
        let mut record = Record::load(root)?;
        let account = wish
            .user
            .as_deref()
            .map(|name| Account::named(root, name))
            .transpose()?;
        let devices = check(root, wish)?;
        let mut plan = Preparation {
            steps: Vec::new(),
            notes: Vec::new(),
            record: Record::default(),
            taken: Vec::new(),
        };
        plan.pages(root, wish, &devices, &mut record);
        let driver = driver(wish);
        for device in &devices {
            plan.bind(root, device, driver, account.as_ref(), &mut record);
        }
        if !plan.taken.is_empty() && !root.exists(format!("/sys/bus/pci/drivers/{driver}")) {
            plan.steps.insert(
                0,
                Step::Load {
                    module: driver.into(),
                },
            );
            record.modules.insert(driver.into());
        }
        if wish.uio {
            plan.notes.push(format!("{UIO}: nothing keeps these devices from memory that is not theirs; for development only"));
        }
        if wish.at_boot {
            plan.at_boot(root, program, &mut record);
        }
        merge(&mut record.wish, wish);
        plan.record = record;
        Ok(plan)
    }

    /// Carries it out. `tell` hears each step before it is done.
    ///
    /// # Errors
    /// [`Refusal`]: the first step that fails ends it, and [`crate::Release`] undoes those before it.
    pub fn run(
        &self,
        root: &Root,
        hands: &mut dyn Hands,
        mut tell: impl FnMut(&Step),
    ) -> Result<(), Refusal> {
        let _lock = Record::lock(root)?;
        // As long as these are open nobody mounts what was not mounted when it was looked at.
        let mut held: Vec<File> = Vec::new();
        for device in &self.taken {
            let claimed = claim(root, device);
            held.extend(
                claimed.map_err(|of| Refusal::Findings(vec![Finding::of_use(device, &of)]))?,
            );
        }
        self.record.save(root)?;
        for step in &self.steps {
            tell(step);
            hands.act(step)?;
        }
        Ok(())
    }

    fn pages(&mut self, root: &Root, wish: &Wish, devices: &[PciDevice], record: &mut Record) {
        let all = NodePages::all(root);
        let is_driven = |device: &PciDevice| {
            uses(root, device)
                .iter()
                .any(|of| matches!(of, Use::Process { .. }))
        };
        let runs = devices.iter().any(is_driven);
        let needs = wish.bytes.iter().flat_map(|(&size, nodes)| {
            let of_node = move |(&node, &bytes)| (size, node, size.pages(bytes));
            nodes.iter().map(of_node)
        });
        for (size, node, need) in needs {
            let Some(pages) = NodePages::of(&all, node, size) else {
                self.notes
                    .push(format!("node {node} has no huge pages of {size}"));
                continue;
            };
            // Pages that the running engine holds count as there.
            let have = if runs { pages.total } else { pages.free };
            let missing = need.saturating_sub(have);
            if missing > 0 {
                let path = count_file(root, node, size);
                record.pages.entry(path.clone()).or_insert(pages.total);
                self.steps.push(Step::Pages {
                    path,
                    count: pages.total + missing,
                });
            }
        }
    }

    fn bind(
        &mut self,
        root: &Root,
        device: &PciDevice,
        driver: &str,
        account: Option<&Account>,
        record: &mut Record,
    ) {
        let PciDevice { address, .. } = device;
        let file = device
            .node(root)
            .and_then(|node| root.path(node).metadata().ok());
        record
            .devices
            .entry(address.clone())
            .or_insert_with(|| Before {
                driver: device.driver.clone(),
                driver_override: device.driver_override.clone(),
                owner: file.as_ref().map(|file| (file.uid(), file.gid())),
            });
        let rebinds = device.driver.as_deref() != Some(driver);
        if rebinds {
            self.steps
                .extend(rebind(device, Some(driver), Some(driver)));
            self.taken.push(device.clone());
        }
        // uio is root's.
        if let (Some(account), Some(group), VFIO) = (account, device.group, driver) {
            let is_own = !rebinds && file.is_some_and(|file| file.uid() == account.uid);
            if !is_own {
                self.steps.push(Step::Own {
                    path: format!("/dev/vfio/{group}"),
                    uid: account.uid,
                    gid: account.gid,
                });
            }
        }
    }

    fn at_boot(&mut self, root: &Root, program: &str, record: &mut Record) {
        match unit::steps(root, program) {
            Some((files, steps)) => {
                record.files.extend(files);
                self.steps.extend(steps);
            }
            None => self.notes.push(
                "there is no systemd here: after a reboot run `keel node prepare --saved`".into(),
            ),
        }
    }
}

fn driver(wish: &Wish) -> &'static str {
    if wish.uio { UIO } else { VFIO }
}

/// Steps from the driver that a device has to another one, or to none.
pub(crate) fn rebind(device: &PciDevice, only: Option<&str>, driver: Option<&str>) -> Vec<Step> {
    let (address, sysfs) = (&device.address, device.address.sysfs());
    let write = |path: String, text: &str| Step::Write {
        path,
        text: text.to_owned(),
    };
    let mut steps = vec![write(
        format!("{sysfs}/driver_override"),
        only.unwrap_or_default(),
    )];
    if device.driver.is_some() {
        steps.push(write(format!("{sysfs}/driver/unbind"), address.as_str()));
    }
    if let Some(driver) = driver {
        steps.push(write("/sys/bus/pci/drivers_probe".into(), address.as_str()));
        steps.push(Step::Expect {
            address: address.clone(),
            driver: driver.to_owned(),
        });
    }
    steps
}

/// All that is in the way of a wish, else its devices.
fn check(root: &Root, wish: &Wish) -> Result<Vec<PciDevice>, Refusal> {
    let (mut devices, mut found) = (Vec::new(), Vec::new());
    for address in &wish.devices {
        match device::right_kind(root, address) {
            Ok(device) => devices.push(device),
            Err(finding) => found.push(finding),
        }
    }
    let driver = driver(wish);
    for device in &devices {
        match device.driver.as_deref() {
            None | Some("nvme" | VFIO | UIO) => {}
            Some(other) => found.push(device::other_driver(&device.address, other)),
        }
        // Who drives it already may go on doing so; it is not touched.
        let is_done = device.driver.as_deref() == Some(driver);
        let in_the_way = uses(root, device)
            .into_iter()
            .filter(|of| !(is_done && matches!(of, Use::Process { .. })));
        found.extend(in_the_way.map(|of| Finding::of_use(device, &of)));
        found.extend(match (wish.uio, device.group) {
            (true, group) => iommu::translated(root, device, group),
            (false, None) => Some(iommu::no_iommu(root, device)),
            (false, Some(_)) => iommu::shared(root, device, &devices),
        });
    }
    if !devices.is_empty() {
        found.extend(host::module(
            root,
            if wish.uio {
                &code::NO_UIO
            } else {
                &code::NO_VFIO
            },
            driver,
        ));
    }
    if found.is_empty() {
        Ok(devices)
    } else {
        Err(Refusal::Findings(found))
    }
}

/// What is asked for now on top of what was asked for before.
fn merge(before: &mut Wish, now: &Wish) {
    before.devices.extend(now.devices.iter().cloned());
    for (&size, nodes) in &now.bytes {
        let before = before.bytes.entry(size).or_default();
        for (&node, &bytes) in nodes {
            let most = before.entry(node).or_insert(0);
            *most = bytes.max(*most);
        }
    }
    if now.user.is_some() {
        before.user.clone_from(&now.user);
    }
    before.uio = now.uio;
    before.at_boot |= now.at_boot;
}
