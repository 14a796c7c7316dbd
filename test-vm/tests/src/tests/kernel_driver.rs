//! The store over the kernel's NVMe driver: what the same tests over our own driver are compared with.

use anyhow::Result;

use super::ends::{self, End};
use crate::engine::Device;
use crate::rig::Rig;

pub(crate) fn devices(rig: &mut Rig) -> Result<Vec<Device>> {
    let vm = rig.vm()?;
    Ok(vec![Device::kernel(vm, "n0")?, Device::kernel(vm, "n1")?])
}

pub(crate) fn killed(rig: &mut Rig) -> Result<()> {
    ends::nothing_acknowledged_is_lost(rig, devices, End::Kill, 3)
}

pub(crate) fn power_cut(rig: &mut Rig) -> Result<()> {
    ends::nothing_acknowledged_is_lost(rig, devices, End::PowerCut, 2)
}
