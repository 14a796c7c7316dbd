//! Hosts prepared and released by `keel node`, and what its doctor finds on them.

use anyhow::{Context, Result, ensure};
use obj_load::Load;
use test_vm::{Output, Vm};

use super::ends;
use crate::engine::{Device, Engine, kernel_device, write_config};
use crate::rig::Rig;

/// Huge pages before, of which too few for an engine are left.
const FEW: u32 = 10;
/// An ordinary user.
const USER: u32 = 1000;

/// The codes that the doctor finds, worst first, and that its exit code fits them.
pub(super) fn doctor(vm: &Vm, arguments: &str) -> Result<Vec<String>> {
    codes(&vm.run(&format!("keel node doctor {arguments}"))?)
}

pub(super) fn codes(output: &Output) -> Result<Vec<String>> {
    let words = |line: &str| {
        line.split(' ')
            .take(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let found: Vec<Vec<String>> = output
        .stdout
        .lines()
        .filter(|line| line.starts_with("KN"))
        .map(words)
        .collect();
    let has = |severity: &str| found.iter().any(|words| words[1] == severity);
    let expected = if has("fault") {
        2
    } else {
        i32::from(has("warning"))
    };
    ensure!(output.code == Some(expected), "{output:?}");
    Ok(found.into_iter().map(|mut words| words.remove(0)).collect())
}

/// A command that must fail with these words.
pub(super) fn fails(vm: &Vm, command: &str, says: &str) -> Result<()> {
    let output = vm.run(command)?;
    ensure!(
        output.code != Some(0) && output.stderr.contains(says),
        "`{command}`: {output:?}"
    );
    Ok(())
}

fn driver(vm: &Vm, bdf: &str) -> Result<String> {
    vm.ok(&format!(
        "basename $(readlink /sys/bus/pci/devices/{bdf}/driver)"
    ))
}

/// The device as it would stand in a configuration, whoever has it now.
pub(super) fn device(vm: &Vm) -> Result<Device> {
    let address = vm.bdf("n0")?;
    Ok(Device {
        name: "n0".into(),
        lines: format!("kind = \"nvme\"\naddress = \"{address}\"\n"),
        spdk: None,
    })
}

/// From a machine as it boots to a running engine and back.
pub(crate) fn prepare_run_release(rig: &mut Rig) -> Result<()> {
    let vm = rig.vm()?;
    let device = device(vm)?;
    let bdf = vm.bdf("n0")?;
    let config = write_config(vm, 2, std::slice::from_ref(&device))?;
    let of_file = format!("--config {config}");
    vm.ok(&format!(
        "echo {FEW} > /proc/sys/vm/nr_hugepages && mkdir -p /etc/systemd/system"
    ))?;
    assert_eq!(doctor(vm, &of_file)?, ["KN008", "KN030"]);
    // The engine says the same.
    let refused = Engine::spawn(vm, 2, std::slice::from_ref(&device))?.end()?;
    ensure!(
        refused.code == Some(73)
            && refused.stderr.contains(&format!("KN008 fault {bdf}"))
            && refused
                .stderr
                .contains(&format!("cure: keel node prepare {bdf}")),
        "{refused:?}"
    );
    let planned = vm.ok(&format!("keel node prepare {of_file} --dry-run"))?;
    ensure!(
        planned.contains(&format!(
            "echo vfio-pci > /sys/bus/pci/devices/{bdf}/driver_override"
        )),
        "{planned}"
    );
    assert_eq!(driver(vm, &bdf)?, "nvme", "a dry run changes nothing");

    vm.ok(&format!("keel node prepare {of_file} --user keel"))?;
    assert_eq!(driver(vm, &bdf)?, "vfio-pci");
    assert_eq!(doctor(vm, &format!("{of_file} --user keel"))?, [""; 0]);
    assert_eq!(
        vm.ok(&format!("keel node prepare {of_file} --user keel"))?,
        "# this host is prepared"
    );
    limits(vm, &of_file, &bdf)?;

    let engine = Engine::start(vm, 2, std::slice::from_ref(&device))?;
    assert_eq!(doctor(vm, &of_file)?, ["KN011"]);
    let status = vm.ok(&format!("keel node status {of_file}"))?;
    ensure!(
        status.contains("0,1") && status.contains("(keel-engine) has it"),
        "{status}"
    );
    fails(vm, "keel node release", "KN010 fault")?;
    engine.stop()?;

    // What the unit does at the next boot.
    ensure!(
        vm.ok("cat /etc/systemd/system/multi-user.target.wants/keel-node.service")?
            .contains("node prepare --saved")
    );
    vm.ok(&format!(
        "cd /sys/bus/pci/devices/{bdf} && echo > driver_override && echo {bdf} > driver/unbind && echo {bdf} > /sys/bus/pci/drivers_probe"
    ))?;
    assert_eq!(driver(vm, &bdf)?, "nvme");
    vm.ok("keel node prepare --saved")?;
    assert_eq!(driver(vm, &bdf)?, "vfio-pci");

    vm.ok("keel node release")?;
    assert_eq!(driver(vm, &bdf)?, "nvme");
    kernel_device(vm, "n0").context("the kernel has its disk again")?;
    assert_eq!(vm.ok("cat /proc/sys/vm/nr_hugepages")?, FEW.to_string());
    let left = vm.ok(&format!(
        "find /etc/systemd/system /var/lib/keel-node -type f -o -type l; cat /sys/bus/pci/devices/{bdf}/driver_override"
    ))?;
    assert_eq!(left, "/var/lib/keel-node/lock\n(null)");
    Ok(())
}

/// An ordinary user with and without its group, and with too small a limit.
fn limits(vm: &Vm, of_file: &str, bdf: &str) -> Result<()> {
    let ask = |limit: &str| {
        codes(&vm.run_as(
            USER,
            &format!("ulimit -l {limit} && keel node doctor {of_file}"),
        )?)
    };
    assert_eq!(ask("64")?, ["KN041"]);
    let group = vm.ok(&format!(
        "basename $(readlink /sys/bus/pci/devices/{bdf}/iommu_group)"
    ))?;
    vm.ok(&format!("chown 0:0 /dev/vfio/{group}"))?;
    assert_eq!(ask("64")?, ["KN040", "KN041"]);
    vm.ok(&format!("keel node prepare {of_file} --user keel"))
        .map(drop)
}

/// A disk that somebody uses is not taken, and whoever uses it is named.
pub(crate) fn devices_in_use(rig: &mut Rig) -> Result<()> {
    let vm = rig.vm()?;
    let bdf = vm.bdf("n0")?;
    let disk = kernel_device(vm, "n0")?;
    let prepare = format!("keel node prepare {bdf}");
    vm.ok(&format!("mke2fs {disk} && mkdir -p '/mnt/my data' && mount -t ext4 {disk} '/mnt/my data' && echo kept > '/mnt/my data/file'"))?;
    assert_eq!(doctor(vm, &bdf)?, ["KN004", "KN008"]);
    fails(vm, &prepare, &format!("{disk} is mounted on /mnt/my data"))?;
    assert_eq!(
        vm.ok("cat '/mnt/my data/file' && umount '/mnt/my data'")?,
        "kept"
    );

    vm.ok(&format!("mkswap {disk} && swapon {disk}"))?;
    assert_eq!(doctor(vm, &bdf)?, ["KN005", "KN008"]);
    fails(vm, &prepare, &format!("{disk} is swap space"))?;
    vm.ok(&format!("swapoff {disk}"))?;

    // In a mount name space that nobody else sees.
    let hidden = vm.start(
        "hidden",
        &format!("mke2fs {disk} >/dev/null; exec unshare -m sh -c 'mount --make-rprivate /; mount -t ext4 {disk} /mnt; echo mounted; sleep 1000'"),
    )?;
    hidden.wait_for("mounted", crate::engine::PATIENCE)?;
    assert_eq!(doctor(vm, &bdf)?, ["KN007", "KN008"]);
    fails(
        vm,
        &prepare,
        &format!("{disk} is in use: something opened it for itself alone"),
    )?;
    hidden.signal(9)?;
    hidden.wait(crate::engine::PATIENCE)?;
    assert_eq!(driver(vm, &bdf)?, "nvme");

    fails(
        vm,
        "keel node prepare 0000:00:1f.7",
        "KN001 fault 0000:00:1f.7",
    )?;
    let bridge = "$(grep -l 0x06 /sys/bus/pci/devices/*/class | head -n 1 | cut -d/ -f6)";
    fails(vm, &format!("keel node prepare {bridge}"), "KN002 fault")?;
    let other =
        "$(grep -L -e 0x06 -e 0x0108 /sys/bus/pci/devices/*/class | head -n 1 | cut -d/ -f6)";
    fails(vm, &format!("keel node prepare {other}"), "KN003 fault")?;
    // Free, it is taken and given back.
    vm.ok(&format!("{prepare} --once && keel node release"))?;
    kernel_device(vm, "n0").map(drop)
}

/// More huge pages than there is memory.
pub(crate) fn few_pages(rig: &mut Rig) -> Result<()> {
    let vm = rig.vm()?;
    let device = device(vm)?;
    let bdf = vm.bdf("n0")?;
    let before = vm.ok("cat /proc/sys/vm/nr_hugepages")?;
    let config = write_config(vm, 1, &[device])?;
    let much = format!("--config {config} --set rpc.bulk_memory=8GiB");
    assert_eq!(doctor(vm, &much)?, ["KN008", "KN030", "KN032"]);
    fails(
        vm,
        &format!("keel node prepare {much}"),
        "huge pages: its memory is used or fragmented",
    )?;
    assert_eq!(driver(vm, &bdf)?, "nvme");
    vm.ok("keel node release")?;
    assert_eq!(vm.ok("cat /proc/sys/vm/nr_hugepages")?, before);
    Ok(())
}

/// Without an IOMMU only uio is left, and has to be asked for.
pub(crate) fn no_iommu(rig: &mut Rig) -> Result<()> {
    let vm = rig.vm()?;
    let bdf = vm.bdf("n0")?;
    assert_eq!(doctor(vm, &bdf)?, ["KN008", "KN020"]);
    fails(vm, &format!("keel node prepare {bdf}"), "KN020 fault")?;
    let said = vm.ok(&format!("keel node prepare --uio {bdf}"))?;
    ensure!(
        said.contains("nothing keeps these devices from memory that is not theirs"),
        "{said}"
    );
    assert_eq!(driver(vm, &bdf)?, "uio_pci_generic");
    assert_eq!(doctor(vm, &bdf)?, ["KN022"]);
    assert_eq!(
        codes(&vm.run_as(USER, &format!("keel node doctor {bdf}"))?)?,
        ["KN042", "KN022"]
    );
    vm.ok("keel node release")?;
    assert_eq!(driver(vm, &bdf)?, "nvme");
    kernel_device(vm, "n0").map(drop)
}

/// A store through uio: killed, started again, and read through the kernel's driver afterwards.
pub(crate) fn uio(rig: &mut Rig) -> Result<()> {
    const TARGETS: u32 = 2;
    const POOL: u64 = 512 << 20;
    let vm = rig.vm()?;
    let device = device(vm)?;
    let config = write_config(vm, TARGETS, std::slice::from_ref(&device))?;
    // Pages are what uio cannot do without.
    let pages = vm.ok("cat /proc/sys/vm/nr_hugepages")?;
    vm.ok(&format!("keel node prepare --uio {}", vm.bdf("n0")?))?;
    vm.ok("echo 4 > /proc/sys/vm/nr_hugepages")?;
    let refused = Engine::spawn(vm, TARGETS, std::slice::from_ref(&device))?.end()?;
    ensure!(
        refused.code == Some(73) && refused.stderr.contains("KN031 fault node 0"),
        "{refused:?}"
    );
    vm.ok(&format!("keel node prepare --uio --config {config}"))?;
    let address = vm.rpc_address();
    let mut load = Load::new(1, ends::options());
    for round in 0..2 {
        let engine = Engine::start(vm, TARGETS, std::slice::from_ref(&device))?;
        engine.wait_log("no IOMMU keeps this device to its memory")?;
        if round == 0 {
            load.prepare(&address, POOL)?;
        }
        load.verify(&address)?;
        load.until_end(&address, |_| match round {
            0 => engine.kill().map(drop),
            _ => engine.stop(),
        })?;
    }
    vm.ok("keel node release")?;
    let kernel = Device::kernel(vm, "n0")?;
    let engine = Engine::start(vm, TARGETS, &[kernel])?;
    load.verify(&address)?;
    println!("through uio and the kernel's driver: {:?}", load.tally);
    load.remove_all(&address)?;
    engine.stop()?;
    vm.ok(&format!("echo {pages} > /proc/sys/vm/nr_hugepages"))
        .map(drop)
}
