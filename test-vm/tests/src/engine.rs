//! An engine in a guest: its configuration, start and ends.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Result, ensure};
use test_vm::{Output, Process, Vm};

/// Longest wait for an engine to do something. Emulated, with all of the machine's processors taken, it is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const CONFIG: &str = "/run/engine.toml";
const SPDK_JSON: &str = "/run/spdk.json";
/// Of the machine's 768 MiB in huge pages the engine's own buffers take 250.
const SPDK_MEMORY: &str = "448MiB";
/// Folder of the socket; an unprivileged engine has everything there.
const RUN: &str = "/run/keel";

/// What is under the targets.
pub(crate) struct Device {
    /// In the configuration.
    pub(crate) name: String,
    /// Lines of the `[[device]]` table that say what it is.
    pub(crate) lines: String,
    /// The PCI address where C SPDK finds it.
    pub(crate) spdk: Option<String>,
}

impl Device {
    /// The kernel's block device of a controller's only namespace.
    pub(crate) fn kernel(vm: &Vm, controller: &str) -> Result<Device> {
        Device::kernel_namespace(vm, controller, 1)
    }

    /// The kernel's block device of one of several.
    pub(crate) fn kernel_namespace(vm: &Vm, controller: &str, number: u32) -> Result<Device> {
        let first = kernel_device(vm, controller)?;
        let path = format!("{}{number}", first.trim_end_matches('1'));
        Ok(Device {
            name: format!("{controller}n{number}"),
            lines: format!("kind = \"file\"\npath = \"{path}\"\n"),
            spdk: None,
        })
    }

    /// One of several namespaces of a controller that the engine drives itself.
    pub(crate) fn user_namespace(vm: &Vm, controller: &str, number: u32) -> Result<Device> {
        let device = Device::user(vm, controller)?;
        Ok(Device {
            name: format!("{controller}n{number}"),
            lines: format!("{}namespace = {number}\n", device.lines),
            spdk: None,
        })
    }

    /// A controller that the engine drives itself.
    pub(crate) fn user(vm: &Vm, controller: &str) -> Result<Device> {
        let address = bind(vm, controller, "vfio-pci")?;
        Ok(Device {
            name: controller.to_owned(),
            lines: format!("kind = \"nvme\"\naddress = \"{address}\"\n"),
            spdk: None,
        })
    }

    /// A controller that C SPDK drives for the engine.
    pub(crate) fn spdk(vm: &Vm, controller: &str) -> Result<Device> {
        let address = bind(vm, controller, "vfio-pci")?;
        Ok(Device {
            name: controller.to_owned(),
            lines: format!("kind = \"spdk\"\nbdev = \"{controller}n1\"\n"),
            spdk: Some(address),
        })
    }
}

/// Gives a controller to a driver of the kernel's, if another one has it. The controller's address.
pub(crate) fn bind(vm: &Vm, controller: &str, driver: &str) -> Result<String> {
    let bdf = vm.bdf(controller)?;
    vm.ok(&format!(
        "cd /sys/bus/pci/devices/{bdf} && [ \"$(basename \"$(readlink driver)\")\" = {driver} ] && exit
         echo {driver} > driver_override
         [ ! -e driver ] || echo {bdf} > driver/unbind
         echo {bdf} > /sys/bus/pci/drivers_probe
         [ \"$(basename \"$(readlink driver)\")\" = {driver} ]"
    ))?;
    Ok(bdf)
}

/// `/dev/nvme...` of a controller's first namespace, once it is there.
pub(crate) fn kernel_device(vm: &Vm, controller: &str) -> Result<String> {
    let bdf = bind(vm, controller, "nvme")?;
    vm.ok(&format!(
        "for i in $(seq 600); do
            name=$(ls -d /sys/bus/pci/devices/{bdf}/nvme/nvme*/nvme*n1 2>/dev/null) && echo /dev/$(basename $name) && exit
            sleep 0.1
         done; exit 1"
    ))
}

/// A running engine, which the host's port leads to.
pub(crate) struct Engine {
    process: Process,
}

impl Engine {
    /// Starts an engine with this many targets over the devices and waits until it serves.
    pub(crate) fn start(vm: &Vm, targets: u32, devices: &[Device]) -> Result<Engine> {
        let engine = Engine::spawn(vm, targets, devices)?;
        engine.wait_ready()?;
        Ok(engine)
    }

    /// Starts it and waits for nothing.
    pub(crate) fn spawn(vm: &Vm, targets: u32, devices: &[Device]) -> Result<Engine> {
        write_config(vm, targets, devices)?;
        Engine::spawn_prepared(vm)
    }

    /// Starts it with the configuration that is there, and waits for nothing.
    pub(crate) fn spawn_prepared(vm: &Vm) -> Result<Engine> {
        let process = vm.start("engine", &format!("exec keel-engine --config {CONFIG}"))?;
        Ok(Engine { process })
    }

    /// Starts it as a member of a group whose ranks are at these addresses, and waits until it serves.
    pub(crate) fn start_member(
        vm: &Vm,
        rank: usize,
        addresses: &[&str],
        devices: &[Device],
    ) -> Result<Engine> {
        let mut text = config("/state/storage", 1, devices)
            .replace("[engine]\n", &format!("[engine]\nrank = {rank}\n"))
            .replace("10.0.2.15:10010", "0.0.0.0:10010");
        // An emulated machine may be silent for a while.
        text += "\n[group]\nversion = 1\nheartbeat_ms = 500\nsilent_ms = 10000\n";
        for (rank, address) in addresses.iter().enumerate() {
            let _ = write!(
                text,
                "\n[[group.member]]\nrank = {rank}\naddress = \"{address}:10010\"\n"
            );
        }
        prepare(vm, &text)?;
        let process = vm.start(
            &format!("engine{rank}"),
            &format!("exec keel-engine --config {CONFIG}"),
        )?;
        let engine = Engine { process };
        engine.wait_ready()?;
        Ok(engine)
    }

    /// Starts it as an ordinary user who may lock so much memory (KiB, or `unlimited`), and waits for nothing.
    pub(crate) fn spawn_unprivileged(
        vm: &Vm,
        locked: &str,
        targets: u32,
        devices: &[Device],
    ) -> Result<Engine> {
        let storage = format!("{RUN}/storage");
        prepare(vm, &config(&storage, targets, devices))?;
        let script = format!(
            "chown keel {RUN}; ulimit -l {locked}; exec su keel -c 'exec keel-engine --config {CONFIG}'"
        );
        Ok(Engine {
            process: vm.start("engine", &script)?,
        })
    }

    pub(crate) fn wait_ready(&self) -> Result<()> {
        self.process.wait_for("ready after ", PATIENCE)
    }

    /// Waits until its log has this.
    pub(crate) fn wait_log(&self, text: &str) -> Result<()> {
        self.process.wait_for(text, PATIENCE)
    }

    /// Waits until it ends by itself.
    pub(crate) fn end(&self) -> Result<Output> {
        self.process.wait(PATIENCE)
    }

    /// SIGTERM; it must end in good order.
    pub(crate) fn stop(&self) -> Result<()> {
        self.process.signal(SIGTERM)?;
        let end = self.process.wait(PATIENCE)?;
        ensure!(
            end.code == Some(0),
            "the engine ended with {:?}:\n{}",
            end.code,
            end.stderr
        );
        Ok(())
    }

    /// kill -9, and waits until it is gone.
    pub(crate) fn kill(&self) -> Result<Output> {
        self.process.signal(SIGKILL)?;
        self.process.wait(PATIENCE)
    }
}

/// Writes the file that an engine is started with, and gives its path.
pub(crate) fn write_config(vm: &Vm, targets: u32, devices: &[Device]) -> Result<&'static str> {
    prepare(vm, &config("/state/storage", targets, devices))?;
    if devices.iter().any(|device| device.spdk.is_some()) {
        write_spdk_json(vm, "", devices)?;
    }
    Ok(CONFIG)
}

/// Writes what SPDK is told, with these calls (each with a comma behind it) before the others.
pub(crate) fn write_spdk_json(vm: &Vm, first: &str, devices: &[Device]) -> Result<()> {
    vm.put(SPDK_JSON, 0o644, spdk_json(first, devices).as_bytes())
}

/// What SPDK is told: to attach the controllers, and then to look for those that come and go; the other way round it gives those that it
/// finds names of its own.
fn spdk_json(first: &str, devices: &[Device]) -> String {
    let mut calls = first.to_owned();
    for Device { name, spdk, .. } in devices {
        if let Some(address) = spdk {
            let _ = write!(
                calls,
                r#"{{"method":"bdev_nvme_attach_controller","params":{{"name":"{name}","trtype":"PCIe","traddr":"{address}"}}}},"#
            );
        }
    }
    calls += r#"{"method":"bdev_nvme_set_hotplug","params":{"enable":true,"period_us":100000}}"#;
    format!(r#"{{"subsystems":[{{"subsystem":"bdev","config":[{calls}]}}]}}"#)
}

fn prepare(vm: &Vm, config: &str) -> Result<()> {
    vm.ok(&format!("mkdir -p {RUN}"))?;
    vm.put(CONFIG, 0o644, config.as_bytes())
}

fn config(storage: &str, targets: u32, devices: &[Device]) -> String {
    let allowed: Vec<&String> = devices
        .iter()
        .filter_map(|device| device.spdk.as_ref())
        .collect();
    let (provider, spdk) = if allowed.is_empty() {
        ("", String::new())
    } else {
        let section = format!(
            "\n[spdk]\nmemory = \"{SPDK_MEMORY}\"\njson = \"{SPDK_JSON}\"\npci_allowed = {allowed:?}\n"
        );
        ("provider = \"libspdk\"\n\n", section)
    };
    let mut text = format!(
        "{provider}[engine]\nstorage_dir = \"{storage}\"\ntargets = {targets}\noversubscribe = true\nidle_latency_us = 50\n\n\
         [modules]\nload = [\"mgmt\", \"obj\"]\n\n\
         [drpc]\nsocket = \"{RUN}/engine.sock\"\n\n\
         [rpc]\nlisten = \"10.0.2.15:10010\"\nallow_insecure = true # the host's end of this network is the test\n\
         bulk_memory = \"32MiB\"\n{spdk}"
    );
    for Device { name, lines, .. } in devices {
        let _ = write!(text, "\n[[device]]\nname = \"{name}\"\n{lines}");
    }
    text
}
