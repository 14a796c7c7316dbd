//! The store over C SPDK's NVMe driver: the same tests on the same machines as over our own and the kernel's.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use obj_load::{Load, Options};

use super::ends::{self, Devices, End, POOL, TARGETS};
use crate::engine::{Device, Engine, PATIENCE, bind, write_config, write_spdk_json};
use crate::rig::Rig;

/// Acknowledgements that show that the engine goes on.
const ALIVE: u32 = 20;
const KEEL_HEALTH: &str = "keel --socket /run/keel/engine.sock devices health";

fn devices(rig: &mut Rig) -> Result<Vec<Device>> {
    let vm = rig.vm()?;
    Ok(vec![Device::spdk(vm, "n0")?, Device::spdk(vm, "n1")?])
}

pub(crate) fn killed(rig: &mut Rig) -> Result<()> {
    ends::nothing_acknowledged_is_lost(rig, devices, End::Kill, 3)
}

pub(crate) fn power_cut(rig: &mut Rig) -> Result<()> {
    ends::nothing_acknowledged_is_lost(rig, devices, End::PowerCut, 2)
}

/// The same device, the same blocks, whoever drives it.
pub(crate) fn all_drivers(rig: &mut Rig) -> Result<()> {
    let mut load = Load::new(1, ends::options());
    let drivers: [Devices; 5] = [
        devices,
        super::user_driver::devices,
        devices,
        super::kernel_driver::devices,
        devices,
    ];
    for (round, driver) in drivers.into_iter().enumerate() {
        let found = driver(rig)?;
        let engine = Engine::start(rig.vm()?, TARGETS, &found)?;
        let address = rig.vm()?.rpc_address();
        if round == 0 {
            load.prepare(&address, POOL)?;
        }
        load.verify(&address)?;
        load.until_end(&address, |_| engine.stop())?;
    }
    let found = super::kernel_driver::devices(rig)?;
    let engine = Engine::start(rig.vm()?, TARGETS, &found)?;
    let address = rig.vm()?.rpc_address();
    load.verify(&address)?;
    println!("through all drivers: {:?}", load.tally);
    load.remove_all(&address)?;
    engine.stop()
}

/// SSDs with volatile write caches lose what was not flushed: SPDK passes flushes on, though it would rather not.
pub(crate) fn volatile(rig: &mut Rig) -> Result<()> {
    let found = devices(rig)?;
    let vm = rig.vm()?;
    write_config(vm, TARGETS, &found)?;
    let off = r#"{"method":"bdev_nvme_set_options","params":{"enable_flush":false}},"#;
    write_spdk_json(vm, off, &found)?;
    let end = Engine::spawn_prepared(vm)?.end()?;
    ensure!(
        end.code == Some(73)
            && end
                .stderr
                .contains("`enable_flush` of bdev_nvme_set_options"),
        "{end:?}"
    );
    ends::nothing_acknowledged_is_lost(rig, devices, End::PowerCut, 2)
}

/// What the SSDs say of themselves comes through SPDK's driver.
pub(crate) fn health(rig: &mut Rig) -> Result<()> {
    let found = devices(rig)?;
    let engine = Engine::start(rig.vm()?, TARGETS, &found)?;
    let vm = rig.vm()?;
    let said = vm.ok(KEEL_HEALTH)?;
    let of = |counter: &str| {
        let words = said.lines().map(|line| line.split_whitespace());
        let mut rows = words.map(|words| words.collect::<Vec<_>>());
        rows.find_map(|row| match row[..] {
            ["n1", "normal", name, ref value @ ..] if name == counter => Some(value.join(" ")),
            _ => None,
        })
    };
    for (counter, value) in [
        ("model", "QEMU NVMe Ctrl"),
        ("serial", "n1"),
        ("namespace", "1"),
        ("volatile_write_cache", "yes"),
        ("critical_warning", "none"),
        ("temperature", "50 C"),
    ] {
        let found = of(counter);
        ensure!(
            found.as_deref() == Some(value),
            "{counter} is {found:?} in:\n{said}"
        );
    }
    for counter in [
        "firmware",
        "power_cycles",
        "error_log_entries",
        "host_writes",
    ] {
        ensure!(of(counter).is_some(), "{counter} is missing in:\n{said}");
    }
    ensure!(of("timeouts").is_none(), "SPDK counts those:\n{said}");
    engine.stop()
}

/// In SPDK's interrupt mode its vectors wake who waits for it: a store lives through a kill -9, and at rest nothing looks after anything.
pub(crate) fn interrupts(rig: &mut Rig) -> Result<()> {
    let found = devices(rig)?;
    let vm = rig.vm()?;
    write_config(vm, TARGETS, &found)?;
    vm.ok("sed -i '/^\\[spdk\\]/a interrupt_mode = true' /run/engine.toml")?;
    let start = || -> Result<Engine> {
        let engine = Engine::spawn_prepared(vm)?;
        engine.wait_ready()?;
        Ok(engine)
    };
    let engine = start()?;
    let address = vm.rpc_address();
    let mut load = Load::new(6, ends::options());
    load.prepare(&address, POOL)?;
    load.until_end(&address, |_| engine.kill().map(drop))?;
    let engine = start()?;
    load.verify(&address)?;
    println!("in interrupt mode: {:?}", load.tally);
    load.remove_all(&address)?;
    let rests = |depth: &str| -> Result<u64> {
        let counted = vm.ok(&format!(
            "keel --socket /run/keel/engine.sock metrics | awk '/^keel_reactor_rests_total.*depth=\"{depth}\"/ {{sum += $NF}} END {{print sum + 0}}'"
        ))?;
        Ok(counted.trim().parse()?)
    };
    let (naps, sleeps) = (rests("nap")?, rests("sleep")?);
    let deadline = Instant::now() + PATIENCE;
    while rests("sleep")? < sleeps + 20 {
        ensure!(Instant::now() < deadline, "it does not sleep");
    }
    let more = rests("nap")? - naps;
    ensure!(more == 0, "{more} naps at rest");
    let counted = vm.ok(
        "grep vfio-msix /proc/interrupts | awk '{for (i = 2; $i ~ /^[0-9]+$/; i++) sum += $i} END {print sum + 0}'",
    )?;
    ensure!(counted.trim() != "0", "no interrupt came");
    println!("interrupts: {}", counted.trim());
    engine.stop()
}

/// One of two SSDs is pulled under load: the kernel wants it back and SPDK lets go of it. Its targets are down, the others serve on. Back in
/// its slot SPDK attaches it, under a name of its own making; the engine knows it, and its targets serve again with all their data: without a
/// restart, and after one.
pub(crate) fn removed(rig: &mut Rig) -> Result<()> {
    let found = devices(rig)?;
    let engine = Engine::start(rig.vm()?, TARGETS, &found)?;
    let vm = rig.vm()?;
    let address = vm.rpc_address();
    // Objects of one piece are on one target each.
    let options = Options {
        largest: 100 << 10,
        failures: true,
        ..ends::options()
    };
    let mut load = Load::new(3, options);
    load.prepare(&address, POOL)?;
    load.until_end(&address, |progress| {
        vm.pull("n0")?;
        engine.wait_log("it was removed; targets [0, 1] are down")?;
        progress.forget();
        progress.wait(ALIVE).context("the other SSD's targets")?;
        vm.plug("n0")?;
        // The kernel's own driver was first.
        bind(vm, "n0", "vfio-pci")?;
        engine.wait_log("device n0 is there again: targets [0, 1] have it again")?;
        engine.wait_log("target 0 is back: ")?;
        engine.wait_log("target 1 is back: ")?;
        progress.forget();
        progress.wait(ALIVE).context("with the SSD back")
    })?;
    load.verify(&address)?;
    let pulled = load.tally;
    println!("pulled and put back: {pulled:?}");
    ensure!(pulled.failed > 0, "nothing failed with the SSD: {pulled:?}");
    load.until_end(&address, |progress| {
        progress.wait(ALIVE)?;
        engine.stop()
    })?;
    let tally = load.tally;
    ensure!(tally.failed == pulled.failed, "it fails still: {tally:?}");
    let found = devices(rig)?;
    let engine = Engine::start(rig.vm()?, TARGETS, &found)?;
    load.verify(&address)?;
    load.remove_all(&address)?;
    engine.stop()
}
