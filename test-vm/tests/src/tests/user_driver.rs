//! The store over our own driver: VFIO, real DMA through an emulated IOMMU, doorbells that trap.

use anyhow::{Context, Result, ensure};
use obj_load::Load;
use test_vm::Vm;

use super::ends::{self, ALIVE, End, KEEL_HEALTH, POOL, TARGETS};
use crate::engine::{Device, Engine, bind};
use crate::rig::Rig;

pub(crate) fn devices(rig: &mut Rig) -> Result<Vec<Device>> {
    let vm = rig.vm()?;
    Ok(vec![Device::user(vm, "n0")?, Device::user(vm, "n1")?])
}

pub(crate) fn killed(rig: &mut Rig) -> Result<()> {
    ends::nothing_acknowledged_is_lost(rig, devices, End::Kill, 3)
}

pub(crate) fn power_cut(rig: &mut Rig) -> Result<()> {
    ends::nothing_acknowledged_is_lost(rig, devices, End::PowerCut, 2)
}

/// Written through one driver and read through the other, both ways: the same device, the same blocks.
pub(crate) fn both_drivers(rig: &mut Rig) -> Result<()> {
    let kernel = super::kernel_driver::devices;
    ends::through(rig, &[devices, kernel, devices, kernel])
}

/// Somebody disables the controller: its queues are forgotten and commands on them are not answered. The driver notices by the
/// time-outs, resets, and submits again; nobody sees an error.
pub(crate) fn reset(rig: &mut Rig) -> Result<()> {
    let found = devices(rig)?;
    let bdf = rig.vm()?.bdf("n0")?;
    let engine = Engine::start(rig.vm()?, TARGETS, &found)?;
    let vm = rig.vm()?;
    let address = vm.rpc_address();
    let mut load = Load::new(2, ends::options());
    load.prepare(&address, POOL)?;
    load.until_end(&address, |progress| {
        // The register CC, at 0x14 of BAR 0.
        vm.ok(&format!(
            "read bar rest < /sys/bus/pci/devices/{bdf}/resource && devmem $(printf %#x $((bar + 0x14))) 32 0"
        ))?;
        engine.wait_log("reset: I/O waits")?;
        engine.wait_log("reset done: I/O goes on")?;
        progress.forget();
        progress.wait(ALIVE).context("after the reset")?;
        engine.stop()
    })?;
    let engine = Engine::start(rig.vm()?, TARGETS, &found)?;
    load.verify(&address)?;
    println!("reset: {:?}", load.tally);
    load.remove_all(&address)?;
    engine.stop()
}

/// Threads that sleep while the SSD works are woken by its vectors, which the kernel counts.
pub(crate) fn interrupts(rig: &mut Rig) -> Result<()> {
    let found = devices(rig)?;
    let engine = Engine::start(rig.vm()?, TARGETS, &found)?;
    let vm = rig.vm()?;
    let address = vm.rpc_address();
    let mut load = Load::new(3, ends::options());
    load.prepare(&address, POOL)?;
    load.until_end(&address, |progress| {
        progress.wait(ALIVE)?;
        ends::vectors_have_rung(vm)?;
        engine.stop()
    })
}

/// One of two SSDs is pulled under load: the kernel wants it back and the engine lets go of it. Its targets are down, the others serve
/// on. Back in its slot it is taken back, and its targets serve again with all their data: without a restart, and after one.
pub(crate) fn removed(rig: &mut Rig) -> Result<()> {
    let put_back = |vm: &mut Vm| {
        // Makes it look into the slot now, and not at its next turn.
        vm.ok(KEEL_HEALTH)?;
        vm.plug("n0")?;
        // The kernel's own driver was first; the engine tries until it may have it.
        bind(vm, "n0", "vfio-pci").map(drop)
    };
    let back = "is back in its slot: targets [0, 1] have it again";
    ends::pulled_and_put_back(rig, devices, put_back, back)
}

/// A namespace grows: its targets keep their shares and their data. It shrinks below them: the engine says so and does not start.
pub(crate) fn resized(rig: &mut Rig) -> Result<()> {
    let found = devices(rig)?;
    let engine = Engine::start(rig.vm()?, TARGETS, &found)?;
    let address = rig.vm()?.rpc_address();
    let mut load = Load::new(4, ends::options());
    load.prepare(&address, POOL)?;
    load.until_end(&address, |_| engine.stop())?;
    rig.vm()?.resize("n0", 1536)?;
    let found = devices(rig)?;
    let engine = Engine::start(rig.vm()?, TARGETS, &found)?;
    load.verify(&address)?;
    println!("grown: {:?}", load.tally);
    engine.stop()?;
    rig.vm()?.resize("n0", 512)?;
    let found = devices(rig)?;
    let end = Engine::spawn(rig.vm()?, TARGETS, &found)?.end()?;
    ensure!(
        end.code.is_some_and(|code| code != 0) && end.stderr.contains("n0"),
        "on a namespace that lost half of its blocks the engine says {end:?}"
    );
    println!("{}", end.stderr.trim_end());
    Ok(())
}

/// The engine as an ordinary user: it is told what it may not do, and needs no more than a group of VFIO's and locked memory.
pub(crate) fn unprivileged(rig: &mut Rig) -> Result<()> {
    let found = devices(rig)?;
    let vm = rig.vm()?;
    let refused = |locked: &str, words: &str| -> Result<()> {
        let end = Engine::spawn_unprivileged(vm, locked, TARGETS, &found)?.end()?;
        ensure!(
            end.code.is_some_and(|code| code != 0) && end.stderr.contains(words),
            "`{words}` is not in {end:?}"
        );
        Ok(())
    };
    refused(
        "unlimited",
        "cure: keel node prepare 0000:01:00.0 --user NAME",
    )?;
    for ssd in ["n0", "n1"] {
        vm.ok(&format!("keel node prepare {} --user keel", vm.bdf(ssd)?))?;
    }
    // KiB.
    refused("64", "ulimit -l unlimited")?;
    let engine = Engine::spawn_unprivileged(vm, "unlimited", TARGETS, &found)?;
    engine.wait_ready()?;
    ensure!(vm.ok("stat -c %U /proc/$(pidof keel-engine)")? == "keel");
    let address = vm.rpc_address();
    let mut load = Load::new(5, ends::options());
    load.prepare(&address, POOL)?;
    load.until_end(&address, |progress| {
        progress.wait(ALIVE)?;
        engine.stop()
    })
}
