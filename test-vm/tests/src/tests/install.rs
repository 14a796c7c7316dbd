//! `docs/operating/install.md` from the first command to the last, in a machine that nobody prepared.
//!
//! A guest has no systemd, no compiler and no package manager. What the guide does with these is in [`ELSEWHERE`], with the reason; for the
//! service there is a stand-in (`image/systemctl`) that does what the guide's own unit says. Everything else is run as it stands there.

use anyhow::{Context, Result, bail, ensure};
use test_vm::Vm;

use crate::engine::kernel_device;
use crate::guide::{self, Step};
use crate::rig::Rig;

/// Commands that are not run here, by how they begin.
const ELSEWHERE: [(&str, &str); 5] = [
    ("# /etc/default/grub", "a comment"),
    (
        "GRUB_CMDLINE_LINUX=",
        "the options are given to the next boot",
    ),
    ("update-grub && reboot", "the next boot"),
    (
        "apt install build-essential curl",
        "a compiler: programs come from the host",
    ),
    ("curl ", "likewise"),
];
/// Runs on the host.
const BUILD: &str = "cargo build --release --workspace";
/// Addresses of the guide's SSDs, and whose they are here.
const SSDS: [(&str, &str); 2] = [("0000:05:00.0", "n0"), ("0000:06:00.0", "n1")];

/// A file that the guide shows goes where the text before it says.
fn file_path(language: &str) -> Result<&'static str> {
    Ok(match language {
        "toml" => "/etc/keel/engine.toml",
        "ini" => "/etc/systemd/system/keel-engine.service",
        other => bail!("the guide has a file in `{other}`, and nobody knows where it goes"),
    })
}

pub(crate) fn by_the_guide(rig: &mut Rig) -> Result<()> {
    let sections = guide::sections(guide::INSTALL);
    let options = kernel_options(&sections).context("the guide does not switch the IOMMU on")?;
    let bdf = rig.vm()?.bdf("n0")?;
    let before = super::node::doctor(rig.vm()?, &bdf)?;
    assert_eq!(before, ["KN008", "KN020", "KN030"], "a machine as it comes");
    rig.reboot_with(&options)?;
    let vm = rig.vm()?;
    ensure!(vm.ok("ls /sys/kernel/iommu_groups | wc -l")? != "0");
    debian(vm)?;
    for section in &sections {
        for step in &section.steps {
            match step {
                Step::File { language, text } => {
                    let text = with_addresses(vm, text)?;
                    vm.put(file_path(language)?, 0o644, text.as_bytes())?;
                }
                Step::Command(command) => run(vm, &section.title, command)?,
            }
        }
    }
    // Left as it was found.
    for ssd in ["n0", "n1"] {
        kernel_device(vm, ssd)?;
    }
    assert_eq!(vm.ok("cat /proc/sys/vm/nr_hugepages")?, "0");
    assert_eq!(
        vm.ok("find /etc/systemd/system -type f -o -type l")?,
        "/etc/systemd/system/keel-engine.service"
    );
    Ok(())
}

fn kernel_options(sections: &[guide::Section]) -> Option<String> {
    let mut steps = sections.iter().flat_map(|section| &section.steps);
    steps.find_map(|step| match step {
        Step::Command(command) => command
            .strip_prefix("GRUB_CMDLINE_LINUX=\"")?
            .strip_suffix('"')
            .map(str::to_owned),
        Step::File { .. } => None,
    })
}

/// What every Debian has and the guest has not.
fn debian(vm: &Vm) -> Result<()> {
    vm.ok(
        "mkdir -p /usr/local/bin /usr/local/lib /usr/sbin /etc/systemd/system /var/lib /root/keel/target
         ln -s /keel /root/keel/target/release; echo keel-vm > /etc/hostname; sed -i /^keel:/d /etc/passwd /etc/group",
    )
    .map(drop)
}

fn with_addresses(vm: &Vm, text: &str) -> Result<String> {
    let mut text = text.to_owned();
    for (guide, ssd) in SSDS {
        text = text.replace(guide, &vm.bdf(ssd)?);
    }
    Ok(text)
}

/// Runs a command of the guide in the checkout, and looks at what the guide says about its outcome.
fn run(vm: &Vm, section: &str, command: &str) -> Result<()> {
    let is_elsewhere = ELSEWHERE
        .iter()
        .any(|(beginning, _)| command.starts_with(beginning));
    if is_elsewhere || command.starts_with(BUILD) {
        return Ok(());
    }
    let script = format!("cd /root/keel && export PATH=/usr/local/bin:/bin && {command}");
    let said = vm
        .ok(&script)
        .with_context(|| format!("section `{section}` of the guide"))?;
    // `# ends with `...``: the guide's word for it.
    if let Some((_, promise)) = command.split_once("# ends with `") {
        let promise = promise.trim_end_matches('`').trim_end_matches("...");
        ensure!(
            said.lines()
                .last()
                .is_some_and(|last| last.contains(promise)),
            "`{command}`:\n{said}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_in_the_guide_is_run_or_accounted_for() {
        let sections = guide::sections(guide::INSTALL);
        assert!(sections.len() >= 8, "{sections:?}");
        let steps: Vec<&Step> = sections.iter().flat_map(|section| &section.steps).collect();
        for step in &steps {
            if let Step::File { language, .. } = step {
                file_path(language).unwrap();
            }
        }
        let is_there = |beginning: &str| {
            steps.iter().any(
                |step| matches!(step, Step::Command(command) if command.starts_with(beginning)),
            )
        };
        for (beginning, why) in ELSEWHERE {
            assert!(
                is_there(beginning),
                "the guide has no more `{beginning}` ({why})"
            );
        }
        assert!(is_there(BUILD));
        assert_eq!(kernel_options(&sections).as_deref(), Some("intel_iommu=on"));
        for (address, _) in SSDS {
            assert!(guide::INSTALL.contains(address));
        }
    }
}
