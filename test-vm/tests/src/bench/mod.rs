//! `bench`: our driver, SPDK's and the kernel's, on the same emulated SSDs in the same VM, in turns; medians over the rounds.
//!
//! An emulated device is slow and its speed is the emulator's, so only ratios mean anything: fewer instructions for an I/O, fewer
//! register accesses that trap, fewer interrupts. Ours and SPDK's are on one SSD through VFIO, the kernel's has the other one.

mod contender;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use self::contender::{Contender, Keel, Kernel, Spdk};
use self::report::{Case, Results};
use crate::lab;
use crate::rig::Rig;

/// Two SSDs behind an IOMMU, one for each side.
pub(crate) const PROFILE: &str = "bench";
const WORKLOADS: [&str; 2] = ["randread", "randwrite"];
const DEPTHS: [u32; 3] = [1, 32, 128];

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A built SPDK (its source folder): its spdk_nvme_perf is measured beside ours
    #[arg(long, value_name = "DIR")]
    peer_spdk: Option<PathBuf>,
    /// How often each is measured, in turns; the medians are shown
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Length of one measurement
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let mut programs = vec![test_vm::program("fio", "fio")?];
    if let Some(folder) = &options.peer_spdk {
        programs.push(spdk_perf(folder)?);
    }
    let lab = lab(&programs)?;
    let mut rig = Rig::boot(&lab, PROFILE, "bench")?;
    let vm = rig.vm()?;
    let contenders = contenders(vm, options)?;
    let mut results = Results::default();
    for round in 1..=options.rounds {
        for workload in WORKLOADS {
            for depth in DEPTHS {
                let case = Case { workload, depth };
                for contender in &contenders {
                    let sample = contender.measure(vm, case, options.seconds);
                    let sample = sample
                        .with_context(|| format!("{} {workload} {depth}", contender.name()))?;
                    results.add(case, contender.name(), sample);
                }
                eprintln!("round {round} of {}: {workload} {depth}", options.rounds);
            }
        }
    }
    print!("{}", results.table());
    rig.finish()?;
    Ok(ExitCode::SUCCESS)
}

fn contenders(vm: &test_vm::Vm, options: &Options) -> Result<Vec<Box<dyn Contender>>> {
    let ours = crate::engine::bind(vm, "n0", "vfio-pci")?;
    let kernel = crate::engine::kernel_device(vm, "n1")?;
    let mut all: Vec<Box<dyn Contender>> = vec![Box::new(Keel(ours.clone()))];
    if options.peer_spdk.is_some() {
        all.push(Box::new(Spdk(ours)));
    }
    all.push(Box::new(Kernel(kernel)));
    Ok(all)
}

fn spdk_perf(folder: &Path) -> Result<PathBuf> {
    let program = folder.join("build/bin").join(contender::SPDK_PERF);
    ensure!(
        program.is_file(),
        "{} is not there; build SPDK there: ./configure && make",
        program.display()
    );
    Ok(program)
}
