//! Stores on SSDs and machines of other shapes: 4 KiB blocks, several namespaces, few queues, small transfers, NUMA nodes.

use anyhow::{Result, ensure};
use obj_load::Load;
use test_vm::Vm;

use super::ends;
use super::node::{device, doctor};
use crate::engine::{Device, Engine, write_config};
use crate::rig::Rig;

const POOL: u64 = 512 << 20;
/// Controllers and their namespaces: 4 KiB blocks, both of a controller that has three, two pages at once on two queues.
const NAMESPACES: [(&str, u32); 4] = [("n1", 1), ("n2", 1), ("n2", 2), ("n3", 1)];

/// A store over namespaces of three controllers, no two alike, killed and read through the kernel's driver.
pub(crate) fn namespaces(rig: &mut Rig) -> Result<()> {
    let vm = rig.vm()?;
    let over = |of: fn(&Vm, &str, u32) -> Result<Device>| -> Result<Vec<Device>> {
        let each = NAMESPACES.iter().map(|(ssd, number)| of(vm, ssd, *number));
        each.collect()
    };
    let found = over(Device::user_namespace)?;
    let targets = NAMESPACES.len() as u32;
    let address = vm.rpc_address();
    let mut load = Load::new(1, ends::options());
    let engine = Engine::start(vm, targets, &found)?;
    load.prepare(&address, POOL)?;
    load.until_end(&address, |_| engine.kill().map(drop))?;
    let engine = Engine::start(vm, targets, &found)?;
    load.verify(&address)?;
    engine.stop()?;
    let engine = Engine::start(vm, targets, &over(Device::kernel_namespace)?)?;
    load.verify(&address)?;
    println!("namespaces: {:?}", load.tally);
    load.remove_all(&address)?;
    engine.stop()
}

/// Huge pages are set aside where they are needed: what all share on the node that the configuration names, what is an SSD's on the
/// SSD's (the first, where it is on none). The engine runs on them.
pub(crate) fn numa(rig: &mut Rig) -> Result<()> {
    let vm = rig.vm()?;
    let device = device(vm)?;
    let pages = |node: u32| {
        format!("/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages")
    };
    let before = vm.ok(&format!("cat {} {}", pages(0), pages(1)))?;
    vm.ok(&format!("echo 0 | tee {} > {}", pages(0), pages(1)))?;
    let config = write_config(vm, 2, std::slice::from_ref(&device))?;
    vm.ok(&format!(
        "sed -i 's/^\\[engine\\]/&\\nnuma_node = 1/' {config}"
    ))?;
    assert_eq!(
        doctor(vm, &format!("--config {config}"))?,
        ["KN008", "KN030", "KN030"]
    );
    vm.ok(&format!("keel node prepare --once --config {config}"))?;
    let now = vm.ok(&format!("cat {} {}", pages(0), pages(1)))?;
    let (zero, one) = now.split_once('\n').unwrap_or_default();
    let (zero, one): (u32, u32) = (zero.parse()?, one.parse()?);
    ensure!((5..30).contains(&zero) && one > 100, "{now}");
    let engine = Engine::spawn_prepared(vm)?;
    engine.wait_ready()?;
    let address = vm.rpc_address();
    let mut load = Load::new(1, ends::options());
    load.prepare(&address, POOL / 2)?;
    load.until_end(&address, |_| engine.stop())?;
    vm.ok("keel node release")?;
    assert_eq!(vm.ok(&format!("cat {} {}", pages(0), pages(1)))?, "0\n0");
    let back: Vec<&str> = before.lines().collect();
    vm.ok(&format!(
        "echo {} > {}; echo {} > {}",
        back[0],
        pages(0),
        back[1],
        pages(1)
    ))
    .map(drop)
}

/// Pages of 1 GiB are used where the configuration asks for them; they are no pages of 2 MiB.
pub(crate) fn giant_pages(rig: &mut Rig) -> Result<()> {
    let vm = rig.vm()?;
    let free = || vm.ok("cat /sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages");
    let device = device(vm)?;
    let config = write_config(vm, 2, std::slice::from_ref(&device))?;
    let of_file = format!("--config {config}");
    assert_eq!(doctor(vm, &of_file)?, ["KN008", "KN030"]);
    vm.ok(&format!(
        "sed -i 's/^\\[engine\\]/&\\nhugepages = \"1GiB\"/' {config}"
    ))?;
    assert_eq!(doctor(vm, &of_file)?, ["KN008"]);
    vm.ok(&format!("keel node prepare --once {of_file}"))?;
    assert_eq!(free()?, "1");

    let engine = Engine::spawn_prepared(vm)?;
    engine.wait_log("huge pages of 1 GiB set aside for DMA")?;
    engine.wait_ready()?;
    assert_eq!(free()?, "0");
    let address = vm.rpc_address();
    let mut load = Load::new(1, ends::options());
    load.prepare(&address, POOL / 2)?;
    load.until_end(&address, |_| engine.stop())?;
    assert_eq!(free()?, "1");
    vm.ok("keel node release").map(drop)
}
