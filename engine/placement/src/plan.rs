//! What the configuration asks for, laid out on the machine.

use std::collections::BTreeMap;

use engine_config::{Backing, Config, Machine, MachineCpu, Provider, UnusableCpu};
use engine_xstream::{Core, Layout, LayoutError, LayoutOptions};
use spdk_env::CpuError;
use spdk_env::cpu::{Disk, Host, Topology, disk_of_path, pci_node};

/// Where a configured device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePlace {
    /// Its name.
    pub name: String,
    /// `nvme`, `file`, `malloc`, `null`, `spdk`.
    pub kind: &'static str,
    /// Its path, PCI address or name in SPDK; empty if it has none.
    pub path: String,
    /// The disk under it; `None`: memory, or a file that no disk of this machine holds.
    pub disk: Option<Disk>,
    /// The targets on it.
    pub targets: Vec<u32>,
}

impl DevicePlace {
    /// Its NUMA node, if known.
    pub(crate) fn node(&self) -> Option<usize> {
        self.disk.as_ref().and_then(|disk| disk.node)
    }
}

/// Who runs where.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The machine.
    pub topology: Topology,
    /// The devices, in the order of the configuration.
    pub devices: Vec<DevicePlace>,
    /// The xstreams.
    pub layout: Layout,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The machine has not what is asked for.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A file of sysfs does not read as expected.
    #[error(transparent)]
    Machine(#[from] CpuError),
}

impl Plan {
    /// Locates the devices and lays the xstreams out.
    ///
    /// # Errors
    /// What the numbers and the machine do not allow.
    pub fn make(config: &Config, host: &Host, topology: Topology) -> Result<Plan, PlanError> {
        let devices = devices(config, host)?;
        let engine = &config.engine;
        let mut target_nodes = vec![None; engine.targets as usize];
        for device in &devices {
            for &target in &device.targets {
                target_nodes[target as usize] = device.node();
            }
        }
        let number = |n: &u32| *n as usize;
        let options = LayoutOptions {
            targets: engine.targets,
            helpers: engine.helpers,
            first_core: engine.first_core.as_ref().map(number),
            numa_node: engine.numa_node.as_ref().map(number),
            cpus: (engine.cpus.as_ref()).map(|list| list.as_slice().iter().map(number).collect()),
            target_nodes,
            oversubscribe: engine.oversubscribe,
        };
        let layout = Layout::compute(&options, &Core::of(&topology))?;
        Ok(Plan {
            topology,
            devices,
            layout,
        })
    }

    /// The device of a target.
    pub(crate) fn device_of(&self, target: u32) -> Option<&DevicePlace> {
        self.devices
            .iter()
            .find(|device| device.targets.contains(&target))
    }
}

fn devices(config: &Config, host: &Host) -> Result<Vec<DevicePlace>, CpuError> {
    let placements = config.placements();
    let place = |(index, device): (usize, &engine_config::Device)| {
        let (path, disk) = match device.backing() {
            Some(Backing::Nvme { address, .. }) => {
                let disk = Disk {
                    name: "NVMe SSD".to_owned(),
                    pci: Some(address.to_owned()),
                    node: pci_node(host, address)?,
                };
                (address.to_owned(), Some(disk))
            }
            Some(Backing::File { path, .. }) => {
                (path.display().to_string(), disk_of_path(host, path)?)
            }
            Some(Backing::Spdk { bdev }) => (bdev.to_owned(), None),
            Some(Backing::Malloc { .. } | Backing::Null { .. }) | None => (String::new(), None),
        };
        let on_it = placements
            .iter()
            .filter(|placement| placement.device == index);
        Ok(DevicePlace {
            name: device.name.clone(),
            kind: device.kind.as_str(),
            path,
            disk,
            targets: on_it.map(|placement| placement.target).collect(),
        })
    };
    config.device.iter().enumerate().map(place).collect()
}

/// What a configuration is checked against: this machine, with the CPUs that the process may use, and an engine with these providers.
pub fn machine(topology: &Topology, providers: &[Provider]) -> Machine {
    let usable = topology.cpus.iter().map(|cpu| {
        let core = topology.first_of_core(cpu.id).unwrap_or(cpu.id) as u32;
        let node = cpu.node as u32;
        (cpu.id as u32, MachineCpu { node, core })
    });
    let mut unusable = BTreeMap::new();
    for &cpu in &topology.present {
        if let Some(why) = topology.why_not(cpu) {
            let cure = why.cure(cpu);
            let why = why.to_string();
            unusable.insert(cpu as u32, UnusableCpu { why, cure });
        }
    }
    Machine::host(usable.collect(), unusable, providers.to_vec())
}
