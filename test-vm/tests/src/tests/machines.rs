//! The machines themselves, under the kernel's drivers: what the other tests stand on.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::rig::Rig;

const PATIENCE: Duration = Duration::from_secs(120);
const SIGTERM: i32 = 15;

pub(crate) fn agent_runs_and_moves(rig: &mut Rig) -> Result<()> {
    let vm = rig.vm()?;
    let output = vm.run("echo out; echo err >&2; exit 3")?;
    assert_eq!(
        (output.code, output.stdout.as_str(), output.stderr.as_str()),
        (Some(3), "out\n", "err\n")
    );
    assert_eq!(vm.run_as(1000, "id -u; id -g")?.stdout, "1000\n1000\n");
    // Calls run side by side, and a signal reaches a whole group.
    let sleeper = vm.start("sleeper", "echo here; sleep 1000; echo not reached")?;
    sleeper.wait_for("here", PATIENCE)?;
    assert_eq!(vm.ok("echo beside")?, "beside");
    sleeper.signal(SIGTERM)?;
    let output = sleeper.wait(PATIENCE)?;
    assert_eq!((output.code, output.stdout.as_str()), (None, "here\n"));
    let error = vm.run("exec /no/such/program")?;
    ensure!(error.code == Some(127), "{error:?}");
    // Files of several frames, exactly one, and none.
    for len in [0, 1, 256 << 10, (1 << 20) + 17] {
        let data: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        vm.put("/tmp/new/folder/file", 0o640, &data)?;
        assert!(vm.get("/tmp/new/folder/file")? == data, "{len} bytes");
        assert_eq!(
            vm.ok("stat -c '%s %a' /tmp/new/folder/file")?,
            format!("{len} 640")
        );
    }
    let error = vm.get("/no/such/file").unwrap_err();
    ensure!(error.to_string().contains("No such file"), "{error:#}");
    vm.ok("rm -r /tmp/new").map(drop)
}

pub(crate) fn one_nvme(rig: &mut Rig) -> Result<()> {
    let vm = rig.vm()?;
    let bdf = vm.bdf("n0")?;
    assert_eq!(
        vm.ok(&format!("cat /sys/bus/pci/devices/{bdf}/class"))?,
        "0x010802"
    );
    assert_eq!(vm.ok("tr -d ' ' < /sys/class/nvme/nvme0/serial")?, "n0");
    assert_eq!(
        vm.ok("blockdev --getsize64 /dev/nvme0n1")?,
        (1_u64 << 30).to_string()
    );
    vm.ok(&format!("test -e /sys/bus/pci/devices/{bdf}/iommu_group"))?;
    assert_eq!(
        vm.ok("awk '/HugePages_Free/ { print $2 }' /proc/meminfo")?,
        "256"
    );
    // `keel` runs with its libraries; `/state` is a folder of the run.
    vm.ok("keel --version")?;
    vm.ok("echo kept > /state/note && sync")?;
    assert_eq!(
        std::fs::read_to_string(rig.folder().join("state1/note"))?,
        "kept\n"
    );
    Ok(())
}

pub(crate) fn hot_plug(rig: &mut Rig) -> Result<()> {
    let vm = rig.vm()?;
    vm.ok("echo remember me | dd of=/dev/nvme0n1 bs=512 conv=sync,fsync")?;
    vm.pull("n0")?;
    assert_eq!(vm.ok("ls /sys/class/nvme | wc -l")?, "0");
    vm.plug("n0")?;
    vm.ok("for i in $(seq 600); do [ -b /dev/nvme0n1 ] && exit 0; sleep 0.1; done; exit 1")?;
    assert_eq!(vm.ok("head -c 11 /dev/nvme0n1")?, "remember me");
    Ok(())
}

pub(crate) fn four_nvme(rig: &mut Rig) -> Result<()> {
    let vm = rig.vm()?;
    // Serial of the controller, number of the namespace, size in MiB, block size.
    let script = "for n in /sys/class/nvme/nvme*/nvme*n*; do b=$(basename $n); \
        echo $(tr -d ' ' < $n/../serial) $(cat $n/nsid) $(($(cat $n/size) / 2048)) $(cat $n/queue/logical_block_size); done | sort";
    let expected =
        "n0 1 512 512\nn1 1 512 4096\nn2 1 256 512\nn2 2 512 4096\nn2 3 256 512\nn3 1 512 512";
    assert_eq!(vm.ok(script)?, expected);
    let n3 = "for n in /sys/class/nvme/nvme*; do grep -q n3 $n/serial && echo $n; done";
    // 2^1 pages of 4 KiB.
    assert_eq!(
        vm.ok(&format!("cat $({n3})/nvme*n*/queue/max_hw_sectors_kb"))?,
        "8"
    );
    Ok(())
}

pub(crate) fn power_cut(rig: &mut Rig) -> Result<()> {
    let vm = rig.vm()?;
    // The first MiB is flushed; the second is written and not flushed.
    vm.ok("yes flushed | dd of=/dev/nvme0n1 bs=1M count=1 iflag=fullblock conv=fsync")?;
    vm.ok("yes written | dd of=/dev/nvme0n1 bs=1M count=1 seek=1 iflag=fullblock oflag=direct")?;
    rig.cut_power_and_boot()?;
    let vm = rig.vm()?;
    assert_eq!(vm.ok("head -c 7 /dev/nvme0n1")?, "flushed");
    // Of the second it is only known that this machine can lose it: that is what it is for.
    let second =
        vm.ok("dd if=/dev/nvme0n1 bs=1M skip=1 count=1 2>/dev/null | head -c 7 | tr -d '\\0'")?;
    ensure!(
        second.is_empty(),
        "the disk keeps what was not flushed ({second}): no power cut is tested on it"
    );
    rig.reboot()?;
    assert_eq!(rig.vm()?.ok("head -c 7 /dev/nvme0n1")?, "flushed");
    Ok(())
}

pub(crate) fn no_iommu(rig: &mut Rig) -> Result<()> {
    let vm = rig.vm()?;
    assert_eq!(vm.ok("ls /sys/kernel/iommu_groups | wc -l")?, "0");
    let bdf = vm.bdf("n0")?;
    let bind = |from: &str, to: &str| {
        format!(
            "echo {bdf} > /sys/bus/pci/drivers/{from}/unbind; echo {to} > /sys/bus/pci/devices/{bdf}/driver_override; \
             echo {bdf} > /sys/bus/pci/drivers_probe; readlink /sys/bus/pci/devices/{bdf}/driver"
        )
    };
    ensure!(
        vm.ok(&bind("nvme", "uio_pci_generic"))?
            .ends_with("/uio_pci_generic")
    );
    vm.ok("test -c /dev/uio0")?;
    ensure!(vm.ok(&bind("uio_pci_generic", ""))?.ends_with("/nvme"));
    Ok(())
}

pub(crate) fn numa(rig: &mut Rig) -> Result<()> {
    let vm = rig.vm()?;
    assert_eq!(vm.ok("cat /sys/devices/system/node/node*/cpulist")?, "0\n1");
    let pages =
        vm.ok("cat /sys/devices/system/node/node*/hugepages/hugepages-2048kB/nr_hugepages")?;
    assert_eq!(pages, "128\n128");
    Ok(())
}

pub(crate) fn pair(rig: &mut Rig) -> Result<()> {
    // The rig's own machine has no peer: this test is about two others.
    let (first, second) = (rig.boot_peer(1, None)?, rig.boot_peer(2, None)?);
    first.ok("ping -c 1 -W 30 10.20.0.2")?;
    second.ok("ping -c 1 -W 30 10.20.0.1")?;
    for vm in [first, second] {
        vm.power_off()?;
    }
    Ok(())
}
