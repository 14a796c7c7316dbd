//! The store over our own driver: VFIO, real DMA through an emulated IOMMU, doorbells that trap.

use anyhow::{Context, Result, ensure};
use obj_load::Load;

use super::ends::{self, End, POOL, TARGETS};
use crate::engine::{Device, Engine};
use crate::rig::Rig;

/// Acknowledgements that show that the engine goes on.
const ALIVE: u32 = 20;

fn devices(rig: &mut Rig) -> Result<Vec<Device>> {
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
    let mut load = Load::new(1, ends::options());
    for round in 0..3 {
        let found = match round {
            1 => super::kernel_driver::devices(rig)?,
            _ => devices(rig)?,
        };
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
    println!("through both drivers: {:?}", load.tally);
    load.remove_all(&address)?;
    engine.stop()
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
        let counted = vm.ok(
            "grep vfio-msix /proc/interrupts | awk '{for (i = 2; $i ~ /^[0-9]+$/; i++) sum += $i} END {print sum + 0}'",
        )?;
        let counted: u64 = counted.trim().parse()?;
        ensure!(counted > 0, "no interrupt came");
        println!("interrupts: {counted}");
        engine.stop()
    })
}
