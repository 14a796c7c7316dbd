//! Who is measured, and how their reports are read. All run on the guest's second processor, so that the first is left to the kernel.

use anyhow::{Context, Result};
use serde_json::Value;
use test_vm::Vm;

use super::report::{Case, Sample};

/// The program of SPDK's build that is its counterpart of fio.
pub(super) const SPDK_PERF: &str = "spdk_nvme_perf";

/// One that does 4 KiB I/O on an SSD.
pub(super) trait Contender {
    fn name(&self) -> &'static str;

    /// Runs for some seconds in the guest.
    fn measure(&self, vm: &Vm, case: Case, seconds: u32) -> Result<Sample>;
}

/// Ours, with the block layer that modules use, on the controller of this address.
pub(super) struct Keel(pub(super) String);

impl Contender for Keel {
    fn name(&self) -> &'static str {
        "keel"
    }

    fn measure(&self, vm: &Vm, case: Case, seconds: u32) -> Result<Sample> {
        let Case { workload, depth } = case;
        let text = vm.ok(&format!(
            "keel -o json bench bdev --device nvme:{} --workload {workload} --queue-depth {depth} --io-size 4KiB --seconds {seconds} --cores 1",
            self.0
        ))?;
        let report: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        Ok(Sample {
            iops: number(&report["iops"])?,
            p99_us: number(&report["latency_us"]["p99"])?,
        })
    }
}

/// SPDK's driver, without a block layer, on the controller of this address.
pub(super) struct Spdk(pub(super) String);

impl Contender for Spdk {
    fn name(&self) -> &'static str {
        "spdk"
    }

    fn measure(&self, vm: &Vm, case: Case, seconds: u32) -> Result<Sample> {
        let Case { workload, depth } = case;
        // OpenSSL, which it does not use, wants a configuration. DPDK leaves its huge pages behind.
        let text = vm.ok(&format!(
            "mkdir -p /var/run /var/tmp; OPENSSL_CONF=/dev/null {SPDK_PERF} -r 'trtype:PCIe traddr:{}' -q {depth} -o 4096 -w {workload} -t {seconds} -c 0x2 -s 256 -L 2>&1
             code=$?; rm -f /dev/hugepages/*; exit $code",
            self.0
        ))?;
        parse_spdk(&text).with_context(|| format!("{SPDK_PERF} says:\n{text}"))
    }
}

/// `Total : IOPS MiB/s average min max`, and of the summary of latencies `99.00000% : 322.7us`.
fn parse_spdk(text: &str) -> Option<Sample> {
    let after = |start: &str| {
        let line = text
            .lines()
            .map(str::trim)
            .find(|line| line.starts_with(start));
        line?.split_once(':')?.1.split_whitespace().next()
    };
    Some(Sample {
        iops: after("Total ")?.parse().ok()?,
        p99_us: after("99.00000%")?.strip_suffix("us")?.parse().ok()?,
    })
}

/// fio with io_uring on this block device of the kernel's.
pub(super) struct Kernel(pub(super) String);

impl Contender for Kernel {
    fn name(&self) -> &'static str {
        "fio"
    }

    fn measure(&self, vm: &Vm, case: Case, seconds: u32) -> Result<Sample> {
        let Case { workload, depth } = case;
        let text = vm.ok(&format!(
            "fio --name=bench --filename={} --direct=1 --ioengine=io_uring --rw={workload} --bs=4096 --iodepth={depth} --norandommap \
             --thread --time_based --runtime={seconds} --cpus_allowed=1 --output-format=json",
            self.0
        ))?;
        let report: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let side = &report["jobs"][0][workload.trim_start_matches("rand")];
        Ok(Sample {
            iops: number(&side["iops"])?,
            p99_us: number(&side["clat_ns"]["percentile"]["99.000000"])? / 1e3,
        })
    }
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().context("the report lacks a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_spdk_says_is_understood() {
        let text = "\
Device Information                     :       IOPS      MiB/s    Average        min        max
PCIE (0000:01:00.0) NSID 1 from core  1:   38665.50     151.04     826.93     100.10    4000.00
Total                                  :   38665.50     151.04     826.93     100.10    4000.00

Summary latency data for PCIE (0000:01:00.0) NSID 1                  from core 1:
  1.00000% :   400.100us
 99.00000% :  3036.100us
 99.90000% :  4000.000us
";
        let sample = parse_spdk(text).unwrap();
        assert_eq!((sample.iops, sample.p99_us), (38665.5, 3036.1));
        assert!(parse_spdk("no SSD").is_none());
    }
}
