//! The cargo that runs us, as a command, and what it builds.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What cargo tells a program that it runs about the package. Build scripts of other packages (ring's) watch the same names: left in place
/// they would be built anew each time that cargo is started by us after it was started by hand, and by hand after us.
const OF_PACKAGE: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

/// As if it were started by hand.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if OF_PACKAGE
            .iter()
            .any(|start| name.to_string_lossy().starts_with(start))
        {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Where it puts what it builds.
pub(crate) fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

/// How programs are built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Debug,
    Release,
}

/// Builds packages, and gives the folder of their programs. `more` is for arguments and variables besides.
pub(crate) fn build(
    root: &Path,
    packages: &[&str],
    profile: Profile,
    more: impl FnOnce(&mut Command),
) -> Result<PathBuf> {
    let mut build = cargo();
    build.current_dir(root).args(["build", "--locked"]);
    build.args(packages.iter().flat_map(|package| ["--package", package]));
    let folder = match profile {
        Profile::Debug => "debug",
        Profile::Release => {
            build.arg("--release");
            "release"
        }
    };
    more(&mut build);
    let status = build.status().context("cargo does not run")?;
    ensure!(status.success(), "the build failed");
    Ok(target(root).join(folder))
}

#[cfg(test)]
mod tests {
    use super::cargo;

    #[test]
    fn cargo_is_told_nothing_of_this_package() {
        assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
        let removed = |(name, value): (&std::ffi::OsStr, Option<&std::ffi::OsStr>)| {
            value.is_none() && name == "CARGO_PKG_NAME"
        };
        assert!(cargo().get_envs().any(removed));
    }
}
