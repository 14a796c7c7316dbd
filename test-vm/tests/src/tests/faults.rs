//! What the doctor says of faults that are put into a machine one after the other, each taken out again.

use anyhow::{Context, Result, ensure};

use super::node::{codes, doctor, fails};
use crate::engine::{Device, Engine, bind, kernel_device, write_config};
use crate::rig::Rig;

/// A fault, as scripts with `$bdf` and `$disk` of the machine's SSD.
struct Fault {
    /// All that the doctor then says, worst first.
    codes: &'static [&'static str],
    plant: &'static str,
    /// What the doctor is asked about.
    about: &'static str,
    undo: &'static str,
}

/// In a machine with one SSD that the kernel has.
const ONE_SSD: &[Fault] = &[
    Fault {
        codes: &["KN006", "KN008"],
        plant: "echo md_fault > /sys/module/md_mod/parameters/new_array && cat /sys/class/block/${disk#/dev/}/dev > /sys/block/md_fault/md/new_dev",
        about: "$bdf",
        undo: "echo remove > /sys/block/md_fault/md/dev-${disk#/dev/}/state && echo clear > /sys/block/md_fault/md/array_state",
    },
    Fault {
        codes: &["KN009"],
        plant: "give pci-stub",
        about: "$bdf",
        undo: "give nvme",
    },
    Fault {
        codes: &["KN023"],
        plant: "give uio_pci_generic",
        about: "$bdf",
        undo: "give nvme",
    },
    Fault {
        codes: &["KN008", "KN024"],
        plant: "rmmod vfio_pci",
        about: "$bdf",
        undo: "insmod /lib/modules/vfio_pci.ko",
    },
    Fault {
        codes: &["KN025"],
        plant: "give vfio-pci && mv /dev/vfio/vfio /dev/vfio/away",
        about: "$bdf",
        undo: "mv /dev/vfio/away /dev/vfio/vfio && give nvme",
    },
    Fault {
        codes: &["KN008", "KN033"],
        plant: "mount -t tmpfs none /sys/devices/system/node/node0/hugepages",
        about: "--config $config",
        undo: "umount /sys/devices/system/node/node0/hugepages",
    },
    Fault {
        codes: &["KN008", "KN050"],
        plant: "echo 4.19.0-27-amd64 > /tmp/release && mount --bind /tmp/release /proc/sys/kernel/osrelease",
        about: "$bdf",
        undo: "umount /proc/sys/kernel/osrelease",
    },
    Fault {
        codes: &["KN008", "KN051"],
        plant: "true",
        about: "--config $config --set engine.idle_latency_us=0",
        undo: "true",
    },
];

/// Each fault is found, alone and by its code, and is gone when it is taken out.
pub(crate) fn planted(rig: &mut Rig) -> Result<()> {
    let vm = rig.vm()?;
    let disk = kernel_device(vm, "n0")?;
    let bdf = vm.bdf("n0")?;
    let device = super::node::device(vm)?;
    let config = write_config(vm, 2, &[device])?;
    let script = |text: &str| {
        format!(
            "bdf={bdf} disk={disk} config={config}
             give() {{
                 cd /sys/bus/pci/devices/$bdf && echo $1 > driver_override && echo $bdf > driver/unbind &&
                 echo $bdf > /sys/bus/pci/drivers_probe && [ \"$(basename \"$(readlink driver)\")\" = $1 ]
             }}
             {text}"
        )
    };
    for fault in ONE_SSD {
        let doctor = script(&format!("keel node doctor {}", fault.about));
        vm.ok(&script(fault.plant))?;
        let found = codes(&vm.run(&doctor)?).with_context(|| fault.plant)?;
        ensure!(found == fault.codes, "{}: {found:?}", fault.plant);
        vm.ok(&script(fault.undo))?;
        kernel_device(vm, "n0").with_context(|| fault.undo)?;
        if fault.plant != "true" {
            assert_eq!(codes(&vm.run(&doctor)?)?, ["KN008"], "{}", fault.undo);
        }
    }
    vm.ok("rmmod uio_pci_generic")?;
    fails(vm, &format!("keel node prepare --uio {bdf}"), "KN026 fault")
}

/// A machine without an IOMMU whose kernel lets nobody map registers: uio is out, too. It stays so until the next boot.
pub(crate) fn locked_down(rig: &mut Rig) -> Result<()> {
    let vm = rig.vm()?;
    let bdf = bind(vm, "n0", "uio_pci_generic")?;
    vm.ok("mount -t securityfs none /sys/kernel/security && echo integrity > /sys/kernel/security/lockdown")?;
    assert_eq!(doctor(vm, &bdf)?, ["KN052", "KN022"]);
    Ok(())
}

/// Two SSDs in one IOMMU group: one is not lent out without the other, and an engine drives one of them.
pub(crate) fn shared_group(rig: &mut Rig) -> Result<()> {
    let vm = rig.vm()?;
    let (first, second) = (vm.bdf("n0")?, vm.bdf("n1")?);
    kernel_device(vm, "n1")?;
    assert_eq!(doctor(vm, &first)?, ["KN008", "KN021"]);
    fails(
        vm,
        &format!("keel node prepare {first}"),
        &format!("{second} (nvme)"),
    )?;
    bind(vm, "n0", "vfio-pci")?;
    assert_eq!(doctor(vm, &first)?, ["KN021"]);
    vm.ok(&format!("keel node prepare --once {first} {second}"))?;
    assert_eq!(doctor(vm, &format!("{first} {second}"))?, [""; 0]);
    // An engine drives one of the two.
    let devices = [Device::user(vm, "n0")?, Device::user(vm, "n1")?];
    let refused = Engine::spawn(vm, 2, &devices)?.end()?;
    ensure!(
        refused.code == Some(73)
            && refused
                .stderr
                .contains("this process drives another device of the IOMMU group"),
        "{refused:?}"
    );
    Engine::start(vm, 1, &devices[..1])?.stop()?;
    vm.ok("keel node release")?;
    kernel_device(vm, "n1").map(drop)
}
