//! QEMU's command line for a machine, as a pure function of its description.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::Path;

use serde_json::json;

use crate::accel::Accel;
use crate::disks::Disks;
use crate::profile::{Nvme, Profile};

/// Port of the guest's data RPC, where the host can reach it.
pub(crate) const GUEST_PORT: u16 = 10010;
/// PCI device number of the first controller's port on the root bus. QEMU's own devices stay below.
const FIRST_PORT: usize = 0x10;

/// Everything that a command line says.
pub(crate) struct Launch<'a> {
    pub(crate) profile: &'a Profile,
    pub(crate) disks: &'a Disks,
    pub(crate) accel: Accel,
    pub(crate) kernel: &'a Path,
    pub(crate) image: &'a Path,
    /// Shared as `/keel`, read-only.
    pub(crate) programs: &'a Path,
    /// Shared as `/state`.
    pub(crate) state: &'a Path,
    /// Sockets on which the harness listens.
    pub(crate) qmp: &'a Path,
    pub(crate) agent: &'a Path,
    /// The host's port for [`GUEST_PORT`].
    pub(crate) host_port: u16,
    /// Which of several VMs, from 1, and the socket of the network between them; the first listens.
    pub(crate) peer: Option<(u8, &'a Path)>,
    pub(crate) console: Console<'a>,
}

/// Where the guest's serial console is.
#[derive(Clone, Copy)]
pub(crate) enum Console<'a> {
    File(&'a Path),
    /// The terminal, of this many rows and columns, with a shell for its user.
    Terminal(u16, u16),
}

impl Launch<'_> {
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut args = Arguments::default();
        self.machine(&mut args);
        self.channels(&mut args);
        self.network(&mut args);
        for (at, nvme) in self.profile.nvme.iter().enumerate() {
            self.nvme(at, nvme, &mut args);
        }
        args.0
    }

    fn machine(&self, args: &mut Arguments) {
        let profile = self.profile;
        args.words("-nodefaults -no-user-config -display none -no-reboot");
        args.pair("-name", format!("keel-{}", profile.name));
        args.words("-machine q35,kernel-irqchip=split");
        args.words(match self.accel {
            Accel::Kvm => "-accel kvm -cpu host",
            Accel::Tcg => "-accel tcg,thread=multi -cpu max",
        });
        args.pair("-m", format!("{}M", profile.memory_mib));
        args.pair("-smp", profile.cpus.to_string());
        if profile.numa_nodes > 1 {
            let nodes = profile.numa_nodes;
            let (memory, cpus) = (profile.memory_mib / nodes, profile.cpus / nodes);
            for node in 0..nodes {
                args.pair(
                    "-object",
                    format!("memory-backend-ram,id=mem{node},size={memory}M"),
                );
                let (first, last) = (node * cpus, (node + 1) * cpus - 1);
                args.pair(
                    "-numa",
                    format!("node,nodeid={node},cpus={first}-{last},memdev=mem{node}"),
                );
            }
        }
        if profile.iommu {
            // 48 bits: with the default of 39 an IOVA above 512 GiB, where anonymous memory lies, cannot be mapped.
            args.words("-device intel-iommu,intremap=on,caching-mode=on,aw-bits=48");
        }
        args.path("-kernel", self.kernel);
        args.path("-initrd", self.image);
        args.pair("-append", self.kernel_command_line());
    }

    fn kernel_command_line(&self) -> String {
        let profile = self.profile;
        // The timer's check counts interrupts in a loop, and panics when the host had no time for the guest just then.
        let mut line =
            String::from("console=ttyS0 panic=1 mitigations=off tsc=reliable no_timer_check");
        if profile.iommu {
            line += " intel_iommu=on";
        }
        if profile.hugepages > 0 {
            let _ = write!(line, " hugepages={}", profile.hugepages);
        }
        if let Some((number, _)) = self.peer {
            let _ = write!(line, " keel.number={number}");
        }
        match self.console {
            Console::File(_) => line += " loglevel=6",
            Console::Terminal(rows, cols) => {
                let _ = write!(
                    line,
                    " quiet loglevel=3 keel.shell keel.rows={rows} keel.cols={cols}"
                );
            }
        }
        if !profile.kernel_options.is_empty() {
            line += " ";
            line += &profile.kernel_options;
        }
        line
    }

    /// Console, control, agent, shared folders.
    fn channels(&self, args: &mut Arguments) {
        match self.console {
            Console::File(path) => args.path("-serial", &prefixed("file:", path)),
            Console::Terminal(..) => {
                args.words(
                    "-chardev stdio,id=tty,mux=on,signal=off -serial chardev:tty -mon chardev=tty",
                );
            }
        }
        args.pair("-chardev", socket("qmp", self.qmp));
        args.words("-mon chardev=qmp,mode=control -device virtio-serial-pci,id=serial");
        args.pair("-chardev", socket("agent", self.agent));
        let port = format!(
            "virtserialport,bus=serial.0,chardev=agent,name={}",
            test_vm_agent::PORT
        );
        args.pair("-device", port);
        let share = |tag: &str, path: &Path, options: &str| {
            format!(
                "local,mount_tag={tag},path={},security_model=none{options}",
                doubled_commas(path)
            )
        };
        args.pair("-virtfs", share("programs", self.programs, ",readonly=on"));
        args.pair("-virtfs", share("state", self.state, ""));
    }

    fn network(&self, args: &mut Arguments) {
        let forward = format!("hostfwd=tcp:127.0.0.1:{}-:{GUEST_PORT}", self.host_port);
        args.pair("-netdev", format!("user,id=host,restrict=on,{forward}"));
        args.words("-device virtio-net-pci,netdev=host,romfile=,mac=52:54:00:00:00:01");
        if let Some((number, path)) = self.peer {
            let server = if number == 1 { "on" } else { "off" };
            let path = doubled_commas(path);
            args.pair(
                "-netdev",
                format!("stream,id=peer,server={server},addr.type=unix,addr.path={path}"),
            );
            args.pair(
                "-device",
                format!("virtio-net-pci,netdev=peer,romfile=,mac=52:54:00:00:01:0{number}"),
            );
        }
    }

    /// A port on the root bus with the controller behind it.
    fn nvme(&self, at: usize, nvme: &Nvme, args: &mut Arguments) {
        for image in self.disks.of(&nvme.name) {
            let node = json!({
                "node-name": node(&nvme.name, image.namespace), "driver": image.format(), "discard": "unmap",
                "file": { "driver": "file", "filename": image.path, "discard": "unmap" },
            });
            args.pair("-blockdev", node.to_string());
        }
        if nvme.shares_slot_of.is_none() {
            let (address, chassis) = (FIRST_PORT + at, at + 1);
            let port = format!(
                "pcie-root-port,id={},bus=pcie.0,addr={address:#x},chassis={chassis}",
                port(&nvme.name)
            );
            args.pair("-device", port);
        }
        let mut controller = String::from("nvme");
        for (key, value) in device(nvme).into_iter().skip(1) {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            let _ = write!(controller, ",{key}={text}");
        }
        if self.profile.shares_slot(nvme) {
            let _ = write!(controller, ",addr=0.{},multifunction=on", function(nvme));
        }
        args.pair("-device", controller);
        if nvme.namespaces.len() > 1 {
            for (at, namespace) in nvme.namespaces.iter().enumerate() {
                let (id, node) = (at + 1, node(&nvme.name, at + 1));
                let block = namespace.block_size;
                let namespace = format!(
                    "nvme-ns,bus={},drive={node},nsid={id},logical_block_size={block},physical_block_size={block}",
                    nvme.name
                );
                args.pair("-device", namespace);
            }
        }
    }
}

/// The controller's properties, as `-device` and QMP's `device_add` take them; `driver` first.
pub(crate) fn device(nvme: &Nvme) -> Vec<(&'static str, serde_json::Value)> {
    let mut properties = vec![
        ("driver", json!("nvme")),
        ("id", json!(nvme.name)),
        ("serial", json!(nvme.name)),
        ("bus", json!(port(slot(nvme)))),
        ("max_ioqpairs", json!(nvme.io_queues)),
        ("mdts", json!(nvme.mdts)),
    ];
    if let [only] = nvme.namespaces.as_slice() {
        properties.push(("drive", json!(node(&nvme.name, 1))));
        properties.push(("logical_block_size", json!(only.block_size)));
        properties.push(("physical_block_size", json!(only.block_size)));
        if !nvme.write_cache {
            properties.push(("write-cache", json!("off")));
        }
    }
    properties
}

/// The controller whose port it is behind.
pub(crate) fn slot(nvme: &Nvme) -> &str {
    nvme.shares_slot_of.as_deref().unwrap_or(&nvme.name)
}

/// Its PCI function there.
pub(crate) fn function(nvme: &Nvme) -> u8 {
    u8::from(nvme.shares_slot_of.is_some())
}

/// Where the guest sees a controller's port: its PCI address on the root bus.
pub(crate) fn port_address(at: usize) -> String {
    format!("0000:00:{:02x}.0", FIRST_PORT + at)
}

pub(crate) fn node(controller: &str, namespace: usize) -> String {
    format!("{controller}n{namespace}")
}

fn port(controller: &str) -> String {
    format!("{controller}.port")
}

/// The harness listens, QEMU connects: there is no moment at which the other side is not there yet.
fn socket(id: &str, path: &Path) -> String {
    format!("socket,id={id},path={}", doubled_commas(path))
}

/// As QEMU's option parser wants a comma in a value.
fn doubled_commas(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

fn prefixed(prefix: &str, path: &Path) -> std::path::PathBuf {
    let mut text = OsString::from(prefix);
    text.push(path);
    text.into()
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn words(&mut self, words: &str) {
        self.0.extend(words.split(' ').map(OsString::from));
    }

    fn pair(&mut self, option: &str, value: String) {
        self.0.extend([option.into(), value.into()]);
    }

    fn path(&mut self, option: &str, path: &Path) {
        self.0.extend([OsString::from(option), path.into()]);
    }
}

#[cfg(test)]
mod tests;
