//! VMs for people.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use test_vm::{BootOptions, Profile};

use crate::lab;

/// Longest run of `exec`.
const LONGEST: Duration = Duration::from_secs(3600);

/// A shell on this terminal until the guest ends.
pub(crate) fn shell(profile: &str) -> Result<ExitCode> {
    ensure!(
        std::io::stdin().is_terminal(),
        "a shell needs a terminal; `cargo xtask vm exec SCRIPT` runs a script without one"
    );
    let profile = Profile::named(profile)?;
    let lab = lab(&[])?;
    let run = lab.new_run("shell")?;
    println!("{}: {}", profile.name, profile.about);
    let terminal = Terminal::raw();
    let options = BootOptions {
        terminal: Some(terminal.size),
        ..BootOptions::default()
    };
    let vm = lab.boot(&profile, lab.new_disks(&profile, &run)?, &run, options)?;
    let status = vm.wait()?;
    drop(terminal);
    std::fs::remove_dir_all(run.join("disks"))?;
    println!(
        "the VM has ended; its logs and /state are in {}",
        run.display()
    );
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Remembers the terminal's modes, which QEMU changes and, killed, does not change back.
struct Terminal {
    modes: Option<String>,
    /// Rows and columns.
    size: (u16, u16),
}

impl Terminal {
    fn raw() -> Terminal {
        let size = stty(&["size"]).and_then(|text| {
            let (rows, columns) = text.split_once(' ')?;
            Some((rows.parse().ok()?, columns.parse().ok()?))
        });
        Terminal {
            modes: stty(&["--save"]),
            size: size.unwrap_or((24, 80)),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(modes) = &self.modes {
            stty(&[modes]);
        }
    }
}

fn stty(args: &[&str]) -> Option<String> {
    let output = Command::new("stty")
        .args(args)
        .stdin(Stdio::inherit())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// A script in a fresh VM, with its outputs passed on when it has ended.
pub(crate) fn exec(profile: &str, with: &[PathBuf], script: &str) -> Result<ExitCode> {
    let profile = Profile::named(profile)?;
    let lab = lab(with)?;
    let run = lab.new_run("exec")?;
    let vm = lab.boot(
        &profile,
        lab.new_disks(&profile, &run)?,
        &run,
        BootOptions::default(),
    )?;
    let output = vm.start("exec", script)?.wait(LONGEST)?;
    print!("{}", output.stdout);
    eprint!("{}", output.stderr);
    vm.save_kernel_log()?;
    vm.power_off()?;
    std::fs::remove_dir_all(run.join("disks"))?;
    eprintln!("logs are in {}", run.display());
    let code = output.code.and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(255)))
}
