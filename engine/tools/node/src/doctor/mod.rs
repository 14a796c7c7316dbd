//! [`examine`]: the checks, each of which reads and changes nothing.

pub(crate) mod device;
pub(crate) mod host;
pub(crate) mod iommu;
mod memory;

use engine_config::Config;

use crate::account::Account;
use crate::finding::Finding;
use crate::need::Need;
use crate::pci::PciDevice;
use crate::root::Root;

/// What to look at.
#[derive(Clone, Debug)]
pub struct Questions {
    /// The SSDs that are to be driven, and the memory for them.
    pub need: Need,
    /// The user that the engine runs as.
    pub account: Account,
    /// The engine is this process, about to start: its own limits count, and whoever has a device is in the way.
    pub at_start: bool,
    /// CPUs that will always poll.
    pub polled: Vec<usize>,
}

/// Looks at the host; worst findings first, then in the order of codes.
#[must_use]
pub fn examine(root: &Root, questions: &Questions) -> Vec<Finding> {
    let mut found = Vec::new();
    host::kernel(root, &mut found);
    let present = device::all(root, questions, &mut found);
    let any = |test: fn(&PciDevice) -> bool| present.iter().any(test);
    let is_uio = any(device::is_uio);
    iommu::all(root, &present, &mut found);
    if is_uio {
        host::uio(root, questions, &mut found);
    }
    if any(|device| !device::is_uio(device)) {
        host::vfio(root, &present, &mut found);
        memory::locked(root, questions, &mut found);
    }
    if !questions.need.bytes.is_empty() {
        memory::huge(root, questions, is_uio, &mut found);
    }
    host::isolation(root, &questions.polled, &mut found);
    found.sort_by(|a, b| {
        b.severity
            .cmp(&a.severity)
            .then(a.code.cmp(b.code))
            .then(a.subject.cmp(&b.subject))
    });
    found.dedup();
    found
}

/// What the engine asks before it opens the devices of its configuration. Nothing is read if it has none of kind `nvme`, and SPDK
/// needs nothing.
#[must_use]
pub fn at_start(root: &Root, config: &Config) -> Vec<Finding> {
    let need = Need::of_config(root, config);
    if need.bytes.is_empty() {
        return Vec::new();
    }
    // Cores are what `keel engine topology` speaks of.
    let questions = Questions {
        need,
        account: Account::own(),
        at_start: true,
        polled: Vec::new(),
    };
    examine(root, &questions)
}
