//! The store over C SPDK's NVMe driver: the same tests on the same machines as over our own and the kernel's.

use std::time::Instant;

use anyhow::{Result, ensure};
use obj_load::Load;
use test_vm::Vm;

use super::ends::{self, End, KEEL_HEALTH, POOL, TARGETS};
use crate::engine::{Device, Engine, PATIENCE, bind, write_config, write_spdk_json};
use crate::rig::Rig;

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
    let (user, kernel) = (super::user_driver::devices, super::kernel_driver::devices);
    ends::through(rig, &[devices, user, devices, kernel, devices, kernel])
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
    ends::vectors_have_rung(vm)?;
    engine.stop()
}

/// One of two SSDs is pulled under load: the kernel wants it back and SPDK lets go of it. Its targets are down, the others serve on. Back in
/// its slot SPDK attaches it, under a name of its own making; the engine knows it, and its targets serve again with all their data: without a
/// restart, and after one.
pub(crate) fn removed(rig: &mut Rig) -> Result<()> {
    let put_back = |vm: &mut Vm| {
        vm.plug("n0")?;
        // The kernel's own driver was first.
        bind(vm, "n0", "vfio-pci").map(drop)
    };
    let back = "device n0 is there again: targets [0, 1] have it again";
    ends::pulled_and_put_back(rig, devices, put_back, back)
}
