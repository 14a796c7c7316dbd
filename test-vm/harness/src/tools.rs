//! Programs of the host that a VM needs, and how one gets them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// A program and the Debian package that has it.
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
}

/// Why no VM can run on this machine as it is, and what to do about it. A test run then leaves VMs out instead of failing.
#[derive(Debug)]
pub struct Unavailable(pub(crate) String);

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// All that a VM needs beyond what every Debian has.
pub(crate) const QEMU: [Tool; 2] = [
    Tool {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
    },
    Tool {
        program: "qemu-img",
        package: "qemu-utils",
    },
];

const INSTALL: &str = "apt-get install --no-install-recommends";

/// Where a program is, along the PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Makes sure of the tools: as root on a machine with apt they are installed, otherwise the error is [`Unavailable`] and has the command.
pub(crate) fn ensure_all(tools: &[Tool]) -> Result<()> {
    let missing: Vec<&Tool> = tools
        .iter()
        .filter(|tool| find(tool.program).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let (programs, packages) = named(&missing);
    may_install(
        &missing,
        find("apt-get").is_some(),
        rustix::process::geteuid().is_root(),
    )?;
    eprintln!("{programs} not found; as root, so: {INSTALL} {packages}");
    let mut args: Vec<&str> = INSTALL.split(' ').skip(1).chain(["-y"]).collect();
    args.extend(packages.split(' '));
    if apt(&args).is_err() {
        // The package lists may be older than the archive, or missing.
        apt(&["update"])?;
        apt(&args)?;
    }
    match missing.iter().find(|tool| find(tool.program).is_none()) {
        None => Ok(()),
        Some(tool) => bail!("{} is installed and has no {}", tool.package, tool.program),
    }
}

/// The programs and their packages, for people.
fn named(tools: &[&Tool]) -> (String, String) {
    let programs: Vec<&str> = tools.iter().map(|tool| tool.program).collect();
    let packages: Vec<&str> = tools.iter().map(|tool| tool.package).collect();
    (programs.join(", "), packages.join(" "))
}

/// Whether they can be installed here and now; if not, how a person does.
fn may_install(missing: &[&Tool], has_apt: bool, is_root: bool) -> Result<(), Unavailable> {
    let (programs, packages) = named(missing);
    match (has_apt, is_root) {
        (true, true) => Ok(()),
        (true, false) => Err(Unavailable(format!(
            "{programs} not found; install with: sudo {INSTALL} {packages}"
        ))),
        (false, _) => Err(Unavailable(format!(
            "{programs} not found, and this machine has no apt: install what Debian calls {packages}"
        ))),
    }
}

/// A program of this machine that a guest is to have, from a Debian package where it is missing, as in [`ensure_all`].
pub fn program(program: &'static str, package: &'static str) -> Result<PathBuf> {
    ensure_all(&[Tool { program, package }])?;
    find(program).with_context(|| format!("{program} is not on the PATH"))
}

/// Runs apt-get without questions.
pub(crate) fn apt(args: &[&str]) -> Result<()> {
    output(
        Command::new("apt-get")
            .arg("-q")
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
    .map(drop)
}

/// Runs a program that must succeed and gives what it wrote.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let shown = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{shown}`"))?;
    ensure!(
        output.status.success(),
        "`{shown}` failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

/// SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256(file: &Path) -> Result<String> {
    let line = output(Command::new("sha256sum").arg("--binary").arg(file))?;
    let line = String::from_utf8_lossy(&line).into_owned();
    // A name with a backslash or newline is escaped, and the line then begins with a backslash.
    let sum = line.trim_start_matches('\\').split(' ').next();
    Ok(sum.unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_along_the_path() {
        assert!(find("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find("no-such-program-anywhere"), None);
    }

    #[test]
    fn what_cannot_be_installed_is_said_with_the_command() {
        let missing: Vec<&Tool> = QEMU.iter().collect();
        assert!(may_install(&missing, true, true).is_ok());
        let why = |has_apt, is_root| may_install(&missing, has_apt, is_root).unwrap_err().0;
        assert_eq!(
            why(true, false),
            "qemu-system-x86_64, qemu-img not found; install with: sudo apt-get install --no-install-recommends qemu-system-x86 qemu-utils"
        );
        let no_apt = why(false, true);
        assert!(
            no_apt.contains("no apt") && no_apt.contains("qemu-system-x86 qemu-utils"),
            "{no_apt}"
        );
    }

    #[test]
    fn a_failed_program_is_quoted() {
        let error = output(Command::new("sh").args(["-c", "echo out; echo why >&2; exit 3"]));
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("out\nwhy") && error.contains("exit status: 3"),
            "{error}"
        );
    }

    #[test]
    fn checksums_are_those_of_sha256() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("abc");
        std::fs::write(&file, "abc").unwrap();
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&file).unwrap(), known);
    }
}
