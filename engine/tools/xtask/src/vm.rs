//! `cargo xtask vm` and `cargo xtask bench vm`: build what goes into a VM, then are `keel-vm` (`test-vm/tests`) with the same arguments.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::cargo::{self, Profile};

/// Programs, modules, the agent, and the program that starts VMs.
const ALL: [&str; 7] = [
    "engine",
    "engine_ctl",
    "hello",
    "mgmt",
    "obj",
    "test_vm_agent",
    "vm_tests",
];
/// What measurements need of these.
const FOR_BENCH: [&str; 3] = ["engine_ctl", "test_vm_agent", "vm_tests"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What `keel-vm` is told
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn command(root: &Path, args: &Args) -> Result<ExitCode> {
    start(root, &ALL, Profile::Debug, &args.args)
}

/// Which benchmark; those on this machine are `keel bench`.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// Our NVMe driver beside SPDK's and the kernel's, in one VM (`--peer-spdk DIR`)
    #[command(disable_help_flag = true)]
    Vm(Args),
}

pub(crate) fn bench(root: &Path, Bench::Vm(args): &Bench) -> Result<ExitCode> {
    let mut words = vec!["bench".to_owned()];
    words.extend(args.args.iter().cloned());
    start(root, &FOR_BENCH, Profile::Release, &words)
}

fn start(root: &Path, packages: &[&str], profile: Profile, args: &[String]) -> Result<ExitCode> {
    let program = cargo::build(root, packages, profile, |_| ())?.join("keel-vm");
    // In this process's place: the terminal, its signals and the exit code are the VM's.
    let error = Command::new(&program).args(args).exec();
    Err(error).with_context(|| program.display().to_string())
}
