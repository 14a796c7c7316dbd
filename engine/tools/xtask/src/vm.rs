//! `cargo xtask vm`: builds what goes into a VM, then is `keel-vm` (`test-vm/tests`) with the same arguments.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

/// Programs, modules, the agent, and the program that starts VMs.
const PACKAGES: [&str; 7] = [
    "engine",
    "engine_ctl",
    "hello",
    "mgmt",
    "obj",
    "test_vm_agent",
    "vm_tests",
];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build and run optimised programs: for `bench`
    #[arg(long)]
    release: bool,
    /// What `keel-vm` is told
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn command(root: &Path, args: &Args) -> Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(root).args(["build", "--locked"]);
    build.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
    if args.release {
        build.arg("--release");
    }
    let status = build.status().context("cargo does not run")?;
    ensure!(status.success(), "the build failed");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let profile = if args.release { "release" } else { "debug" };
    // In this process's place: the terminal, its signals and the exit code are the VM's.
    let program = target.join(profile).join("keel-vm");
    let error = Command::new(&program).args(&args.args).exec();
    Err(error).with_context(|| program.display().to_string())
}
