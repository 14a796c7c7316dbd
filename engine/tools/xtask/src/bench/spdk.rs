//! Native, libspdk and plain SPDK beside each other: the same device, size, depth and core, in turns, medians and ratios.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::{self, Profile};

/// Bytes of one I/O.
const SIZE: &str = "4096";
const DEVICES: [&str; 2] = ["null", "malloc"];
const DEPTHS: [&str; 2] = ["32", "128"];
const WORKLOADS: [&str; 2] = ["randread", "randwrite"];

pub(crate) fn run(root: &Path, dir: &Path, rounds: u32, seconds: u32) -> Result<ExitCode> {
    let dir = dir
        .canonicalize()
        .with_context(|| dir.display().to_string())?;
    let bdevperf = dir.join("build/examples/bdevperf");
    ensure!(
        bdevperf.is_file(),
        "{}: not there: DIR is a source tree of SPDK that was built with its examples (./configure && make)",
        bdevperf.display()
    );
    let keel = build(root, &dir)?;
    let scratch = tempfile::tempdir().context("no scratch directory")?;
    let measure = Measure {
        keel,
        bdevperf,
        scratch: scratch.path().to_owned(),
        seconds: seconds.to_string(),
    };
    println!(
        "random 4 KiB, one core, {rounds} rounds of {seconds} s each in turns; medians of IOPS, beside bdevperf's\n\
         spdk_sys: our wrapper of SPDK alone; libspdk: through the block layer, on our reactors and SPDK's threads; native: nothing of SPDK's"
    );
    println!(
        "{}",
        row(&[
            "device", "workload", "QD", "bdevperf", "spdk_sys", "ratio", "libspdk", "ratio",
            "native", "ratio"
        ])
    );
    for device in DEVICES {
        for workload in WORKLOADS {
            for depth in DEPTHS {
                let case = Case {
                    device,
                    workload,
                    depth,
                };
                println!("{}", measure.compare(&case, rounds)?);
            }
        }
    }
    let peer = messages(&dir, scratch.path())?;
    for (provider, arguments) in [("libspdk", &["--libspdk"][..]), ("native", &[])] {
        println!("\nmessages from core to core, {provider} beside plain SPDK");
        let mut command = Command::new(&measure.keel);
        command.args(["bench", "message", "--rounds", &rounds.to_string()]);
        command.args(["--seconds", &measure.seconds, "--peer"]);
        command.arg(format!("{} {seconds}", peer.display()));
        print!("{}", output(command.args(arguments))?);
    }
    Ok(ExitCode::SUCCESS)
}

/// SPDK's own messages: a program of a page of C, compiled against DIR.
fn messages(dir: &Path, scratch: &Path) -> Result<PathBuf> {
    let source = scratch.join("messages.c");
    fs::write(&source, include_str!("messages.c")).context("messages.c")?;
    let flags = |arguments: &[&str]| {
        let mut command = Command::new("pkg-config");
        command.env("PKG_CONFIG_PATH", dir.join("build/lib/pkgconfig"));
        let words = output(command.args(arguments))?;
        Ok::<_, anyhow::Error>(
            words
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    };
    let program = scratch.join("messages");
    let mut compile = Command::new("cc");
    compile.arg("-O2").arg("-o").arg(&program).arg(&source);
    compile.args(flags(&["--cflags", "spdk_thread"])?);
    // Drivers and memory pools announce themselves in constructors.
    compile.args(["-Wl,--whole-archive", "-Wl,-Bstatic"]);
    compile.args(flags(&[
        "--libs",
        "--static",
        "spdk_env_dpdk",
        "spdk_thread",
    ])?);
    compile.args(["-Wl,-Bdynamic", "-Wl,--no-whole-archive"]);
    compile.args(flags(&["--libs", "--static", "spdk_syslibs"])?);
    output(compile.arg("-lnuma"))?;
    Ok(program)
}

/// `keel` with both providers, optimised.
fn build(root: &Path, dir: &Path) -> Result<PathBuf> {
    let programs = cargo::build(root, &["engine_ctl"], Profile::Release, |build| {
        build
            .env("SPDK_DIR", dir)
            .args(["--features", "engine_ctl/libspdk"]);
    })?;
    Ok(programs.join("keel"))
}

struct Case {
    device: &'static str,
    workload: &'static str,
    depth: &'static str,
}

struct Measure {
    keel: PathBuf,
    bdevperf: PathBuf,
    scratch: PathBuf,
    seconds: String,
}

impl Measure {
    fn compare(&self, case: &Case, rounds: u32) -> Result<String> {
        let mut found = [const { Vec::new() }; 4];
        for _ in 0..rounds {
            found[0].push(self.plain(case)?);
            for (place, provider) in ["spdk_sys:", "spdk:", ""].into_iter().enumerate() {
                let device = format!("{provider}{}", case.device);
                found[place + 1].push(self.keel(case, &device)?);
            }
        }
        let [plain, wrapper, libspdk, native] = found.map(median);
        let million = |iops: f64| format!("{:.3} M", iops / 1e6);
        let ratio = |iops: f64| format!("{:.2}", iops / plain);
        Ok(row(&[
            case.device,
            case.workload,
            case.depth,
            &million(plain),
            &million(wrapper),
            &ratio(wrapper),
            &million(libspdk),
            &ratio(libspdk),
            &million(native),
            &ratio(native),
        ]))
    }

    fn keel(&self, case: &Case, device: &str) -> Result<f64> {
        let mut command = Command::new(&self.keel);
        command.args(["-o", "json", "bench", "bdev", "--device", device]);
        command.args(["--io-size", SIZE, "--queue-depth", case.depth]);
        command.args(["--workload", case.workload, "--seconds", &self.seconds]);
        let text = output(&mut command)?;
        let report: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("keel says: {text}"))?;
        ensure!(report["errors"] == 0, "I/Os failed: {text}");
        report["iops"]
            .as_f64()
            .with_context(|| format!("no IOPS in: {text}"))
    }

    fn plain(&self, case: &Case) -> Result<f64> {
        let blocks = if case.device == "null" {
            1 << 21
        } else {
            1 << 20
        };
        let json = self.scratch.join("bdevperf.json");
        let text = format!(
            r#"{{"subsystems":[{{"subsystem":"bdev","config":[{{"method":"bdev_{}_create","params":{{"name":"b","num_blocks":{blocks},"block_size":512}}}}]}}]}}"#,
            case.device
        );
        fs::write(&json, text).with_context(|| json.display().to_string())?;
        let mut command = Command::new(&self.bdevperf);
        command.args(["-m", "0x1", "-q", case.depth, "-o", SIZE]);
        command.args(["-w", case.workload, "-t", &self.seconds, "-c"]);
        command.arg(&json);
        let text = output(&mut command)?;
        iops_of(&text).with_context(|| format!("bdevperf says:\n{text}"))
    }
}

/// The last line with a total: `Total : 3028563.87 11830.33 0.00 ...`.
fn iops_of(text: &str) -> Option<f64> {
    let line = text.lines().rev().find(|line| {
        line.trim_start()
            .trim_start_matches('\r')
            .starts_with("Total")
    })?;
    line.split_whitespace()
        .find_map(|word| word.parse::<f64>().ok())
}

fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| name.clone())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("{name} failed:\n{said}{why}");
    }
    Ok(said)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn row(cells: &[&str]) -> String {
    let mut text = String::new();
    for (place, cell) in cells.iter().enumerate() {
        let _ = if place < 2 {
            write!(text, "{cell:<10}")
        } else {
            write!(text, "{cell:>12}")
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bdevperfs_total_is_read() {
        let text = "Running I/O for 2 seconds...\n Device Information : runtime(s) IOPS MiB/s Fail/s TO/s Average min max\n\
                    \r\tb : 2.00 3028563.87 11830.33 0.00 0.00 10.41 1.0 99.0\n\
                    \r ===================\n\r\tTotal : 3028563.87 11830.33 0.00 0.00 10.41 1.0 99.0\n";
        assert_eq!(iops_of(text), Some(3_028_563.87));
        assert_eq!(iops_of("nothing"), None);
    }

    #[test]
    fn the_middle_counts() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
