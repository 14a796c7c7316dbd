//! What a VM looks like, as data: `test-vm/profiles/*.toml`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// A machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The file's name.
    #[serde(skip)]
    pub name: String,
    /// What it is for, in a line.
    pub about: String,
    /// Memory of the guest.
    #[serde(default = "default_memory")]
    pub memory_mib: u32,
    /// Processors.
    #[serde(default = "default_cpus")]
    pub cpus: u32,
    /// NUMA nodes, over which memory and processors are spread evenly.
    #[serde(default = "one")]
    pub numa_nodes: u32,
    /// Whether there is an IOMMU and the kernel uses it.
    #[serde(default)]
    pub iommu: bool,
    /// 2 MiB pages set aside when the kernel starts.
    #[serde(default)]
    pub hugepages: u32,
    /// More of the kernel's command line.
    #[serde(default)]
    pub kernel_options: String,
    /// Controllers, each behind a port of its own: they can be pulled and put back.
    #[serde(default)]
    pub nvme: Vec<Nvme>,
}

/// An NVMe controller.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nvme {
    /// Its name here, and its serial number.
    pub name: String,
    /// The controller in whose slot it is, as a second function: the kernel cannot tell their memory accesses apart, so that they are in
    /// one IOMMU group. Neither can be pulled.
    pub shares_slot_of: Option<String>,
    /// Most I/O queue pairs.
    #[serde(default = "default_queues")]
    pub io_queues: u32,
    /// Largest transfer: 2^mdts pages of 4 KiB; 0: no limit.
    #[serde(default = "default_mdts")]
    pub mdts: u8,
    /// Whether what the guest has not flushed may be lost when the power goes: the image is then a qcow2 layer, whose tables QEMU
    /// keeps in memory until a flush. A raw image keeps what was written, flushed or not.
    #[serde(default)]
    pub volatile: bool,
    /// Off: a write is durable when it completes, and with `volatile` only what was under way may be lost. QEMU ignores the FUA bit
    /// (seen in 7.2), so with a cache only a flush makes durable, and who relies on FUA, as it should be able to, loses data.
    #[serde(default = "yes")]
    pub write_cache: bool,
    /// At least one; numbered from 1.
    pub namespaces: Vec<Namespace>,
}

/// A namespace.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// Its size.
    pub size_mib: u64,
    /// Bytes of a block.
    #[serde(default = "default_block")]
    pub block_size: u32,
}

fn default_memory() -> u32 {
    2048
}

fn default_cpus() -> u32 {
    2
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

fn default_queues() -> u32 {
    16
}

fn default_mdts() -> u8 {
    7
}

fn default_block() -> u32 {
    512
}

impl Profile {
    /// Whether a controller is one of two functions of its slot.
    pub(crate) fn shares_slot(&self, nvme: &Nvme) -> bool {
        let is_first = |other: &Nvme| other.shares_slot_of.as_ref() == Some(&nvme.name);
        nvme.shares_slot_of.is_some() || self.nvme.iter().any(is_first)
    }

    /// Reads a profile by name.
    pub fn named(name: &str) -> Result<Profile> {
        let path = folder().join(format!("{name}.toml"));
        let text = fs::read_to_string(&path).with_context(|| {
            let known: Vec<String> = Profile::names().unwrap_or_default();
            format!(
                "there is no profile `{name}`; there are {}",
                known.join(", ")
            )
        })?;
        Profile::parse(name, &text).with_context(|| path.display().to_string())
    }

    /// Names of all profiles, sorted.
    pub fn names() -> Result<Vec<String>> {
        let entries = folder()
            .read_dir()
            .with_context(|| folder().display().to_string())?;
        let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        let profiles = paths.filter(|path| path.extension().is_some_and(|ext| ext == "toml"));
        let stem = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
        let mut names: Vec<String> = profiles.filter_map(stem).collect();
        names.sort();
        Ok(names)
    }

    fn parse(name: &str, text: &str) -> Result<Profile> {
        let mut profile: Profile = toml::from_str(text)?;
        name.clone_into(&mut profile.name);
        ensure!(
            profile.numa_nodes > 0
                && profile.cpus.is_multiple_of(profile.numa_nodes)
                && profile.memory_mib.is_multiple_of(profile.numa_nodes),
            "processors and memory cannot be spread over {} NUMA nodes",
            profile.numa_nodes
        );
        for (at, nvme) in profile.nvme.iter().enumerate() {
            ensure!(
                !nvme.namespaces.is_empty(),
                "`{}` has no namespace",
                nvme.name
            );
            let twice = profile.nvme[..at]
                .iter()
                .any(|other| other.name == nvme.name);
            ensure!(!twice, "two controllers are called `{}`", nvme.name);
            if let Some(first) = &nvme.shares_slot_of {
                let is_there = profile.nvme[..at]
                    .iter()
                    .any(|other| other.name == *first && other.shares_slot_of.is_none());
                ensure!(
                    is_there,
                    "`{}` shares the slot of `{first}`, which is no controller before it with a slot of its own",
                    nvme.name
                );
            }
        }
        Ok(profile)
    }
}

/// Below the sources: profiles are edited and run without building anything.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../profiles")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_reads() {
        let names = Profile::names().unwrap();
        assert!(names.len() >= 5, "{names:?}");
        for name in names {
            let profile = Profile::named(&name).unwrap();
            assert!(!profile.about.is_empty());
        }
    }

    #[test]
    fn what_makes_no_machine_is_refused() {
        let refused = |text: &str| Profile::parse("x", text).unwrap_err().to_string();
        assert!(refused("about = \"\"\nmemory = 1").contains("memory"));
        assert!(refused("about = \"\"\nnuma_nodes = 3").contains("3 NUMA nodes"));
        assert!(
            refused("about = \"\"\n[[nvme]]\nname = \"a\"\nnamespaces = []")
                .contains("no namespace")
        );
        let a = "[[nvme]]\nname = \"a\"\nnamespaces = [{ size_mib = 1 }]\n";
        assert!(refused(&format!("about = \"\"\n{a}{a}")).contains("two controllers"));
        let b = "shares_slot_of = \"b\"\n";
        assert!(refused(&format!("about = \"\"\n{a}{b}")).contains("no controller before it"));
    }

    #[test]
    fn an_unknown_profile_names_the_known_ones() {
        let error = Profile::named("nonsense").unwrap_err().to_string();
        assert!(
            error.contains("`nonsense`") && error.contains("one_nvme"),
            "{error}"
        );
    }
}
