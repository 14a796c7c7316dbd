//! The plan as a message.

use drpc_wire::keel;
use engine_xstream::{Placement, Role, XstreamSpec};
use spdk_env::cpu::{Cpu, Node, format_list};

use crate::plan::{DevicePlace, Plan};
use crate::warnings::warnings;

impl Plan {
    /// What `keel engine topology` shows. Interrupts are not in it: see [`crate::add_interrupts`].
    pub fn report(&self) -> keel::Topology {
        keel::Topology {
            placement: self.placement(),
            nodes: self.nodes(),
            cpus: self.topology.cpus.iter().map(|cpu| self.cpu(cpu)).collect(),
            devices: self.devices.iter().map(device).collect(),
            xstreams: self.layout.xstreams().iter().map(xstream).collect(),
            warnings: warnings(self),
        }
    }

    fn placement(&self) -> String {
        match self.layout.placement() {
            Placement::Linear => "in the order of the cores".to_owned(),
            Placement::SingleNuma => "on one NUMA node".to_owned(),
            Placement::MultiSocket(nodes) => format!("spread evenly over {nodes} NUMA nodes"),
            Placement::NearDevices => "each target near its device".to_owned(),
        }
    }

    /// The nodes; a machine without NUMA is one node.
    fn nodes(&self) -> Vec<keel::TopologyNode> {
        if self.topology.nodes.is_empty() {
            let cpus = format_list(self.topology.online.iter().copied());
            return vec![keel::TopologyNode {
                cpus,
                ..keel::TopologyNode::default()
            }];
        }
        self.topology.nodes.iter().map(node).collect()
    }

    fn cpu(&self, cpu: &Cpu) -> keel::TopologyCpu {
        keel::TopologyCpu {
            id: cpu.id as u32,
            node: cpu.node as u32,
            package: cpu.package as u32,
            core: self.topology.first_of_core(cpu.id).unwrap_or(cpu.id) as u32,
            isolated: cpu.isolated,
            interrupts: Vec::new(),
        }
    }
}

fn node(node: &Node) -> keel::TopologyNode {
    let huge = node.hugepages.iter().map(|p| (p.size_kib * p.total) as u64);
    let distance = |&(node, distance): &(usize, usize)| keel::TopologyDistance {
        node: node as u32,
        distance: distance as u32,
    };
    keel::TopologyNode {
        id: node.id as u32,
        cpus: format_list(node.cpus.iter().copied()),
        memory_bytes: node.memory_kib << 10,
        free_bytes: node.free_kib << 10,
        hugepage_bytes: huge.sum::<u64>() << 10,
        distances: node.distances.iter().map(distance).collect(),
    }
}

fn device(device: &DevicePlace) -> keel::TopologyDevice {
    let disk = device.disk.as_ref();
    keel::TopologyDevice {
        name: device.name.clone(),
        kind: device.kind.to_owned(),
        path: device.path.clone(),
        disk: disk.map(|disk| disk.name.clone()).unwrap_or_default(),
        pci: disk.and_then(|disk| disk.pci.clone()).unwrap_or_default(),
        node: device.node().map(|node| node as u32),
        targets: device.targets.clone(),
    }
}

fn xstream(xs: &XstreamSpec) -> keel::TopologyXstream {
    let role = match xs.role {
        Role::System => "system",
        Role::Main => "main",
        Role::Offload => "offload",
    };
    keel::TopologyXstream {
        id: xs.id.0,
        name: xs.name(),
        role: role.to_owned(),
        target: xs.target,
        cpu: xs.cpu as u32,
        node: xs.node as u32,
    }
}
