//! The cargo that runs us, as a command.

use std::process::Command;

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
