//! Which kernel modules to load, and in which order: a module's `.modinfo` names those that it depends on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What guests are made of. Those that a kernel has built in are simply not there.
pub(crate) const WANTED: [&str; 13] = [
    "virtio_pci",       // the bus of
    "virtio_console",   // the agent's channel,
    "9pnet_virtio",     // the shared folders,
    "9p",               //
    "virtio_net",       // and the network
    "nvme",             // the kernel's own driver: what ours is compared with, and checked through
    "vfio-pci",         //
    "vfio_iommu_type1", //
    "uio_pci_generic",  //
    "ext4",             // mounted file systems that must not be touched
    "crc32c_generic",   // which ext4 asks for by name
    "md-mod",           // arrays, likewise
    "pci-stub",         // a driver that an SSD should not have
];

/// Modules by file name without `.ko`, dashes as underscores.
pub(crate) type Found = BTreeMap<String, PathBuf>;

/// All modules below a folder.
pub(crate) fn find(folder: &Path) -> Result<Found> {
    let mut found = Found::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = folder
            .read_dir()
            .with_context(|| folder.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "ko") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                found.insert(canonical(&name), path);
            }
        }
    }
    Ok(found)
}

/// The wanted modules with all that they depend on, each after those.
pub(crate) fn in_order(found: &Found, wanted: &[&str]) -> Result<Vec<String>> {
    let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
    for name in wanted {
        visit(found, &canonical(name), &mut seen, &mut order)?;
    }
    Ok(order)
}

fn visit(
    found: &Found,
    name: &str,
    seen: &mut BTreeSet<String>,
    order: &mut Vec<String>,
) -> Result<()> {
    let Some(path) = found.get(name) else {
        return Ok(()); // built into the kernel
    };
    // What is seen and not yet in order is above us: soft dependencies may go in a circle.
    if !seen.insert(name.to_owned()) {
        return Ok(());
    }
    let module = std::fs::read(path).with_context(|| path.display().to_string())?;
    // "a,b"
    let hard = info(&module, "depends")
        .into_iter()
        .flat_map(|list| names(&list));
    // "pre: a b post: c": those before `post` should be there first without being linked against.
    let soft = info(&module, "softdep").into_iter().flat_map(|list| {
        let pre = list.split("post:").next().unwrap_or_default();
        names(pre.trim_start_matches("pre:"))
    });
    for dependency in hard.chain(soft) {
        visit(found, &dependency, seen, order)?;
    }
    order.push(name.to_owned());
    Ok(())
}

fn names(list: &str) -> Vec<String> {
    list.split([',', ' '])
        .filter(|name| !name.is_empty())
        .map(canonical)
        .collect()
}

/// Values of a key in `.modinfo`: strings `key=value`, each between zero bytes.
fn info(module: &[u8], key: &str) -> Vec<String> {
    let key = format!("\0{key}=");
    let mut values = Vec::new();
    for at in 0..module.len().saturating_sub(key.len()) {
        if module[at] == 0 && module[at..].starts_with(key.as_bytes()) {
            let value = &module[at + key.len()..];
            let end = value
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(value.len());
            values.push(String::from_utf8_lossy(&value[..end]).into_owned());
        }
    }
    values
}

fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(folder: &Path, name: &str, info: &str) {
        let folder = folder.join("drivers");
        std::fs::create_dir_all(&folder).unwrap();
        let bytes = format!("\x7fELF..depends=no\0license=GPL\0{info}\0\0more");
        std::fs::write(folder.join(format!("{name}.ko")), bytes).unwrap();
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let dir = tempfile::tempdir().unwrap();
        module(dir.path(), "nvme", "depends=nvme-core");
        module(
            dir.path(),
            "nvme-core",
            "depends=t10-pi,crc64\0softdep=pre: hash",
        );
        module(dir.path(), "t10-pi", "depends=crc64");
        module(dir.path(), "crc64", "depends=");
        module(
            dir.path(),
            "hash",
            "depends=\0softdep=pre: nvme-core post: other",
        );
        module(dir.path(), "other", "depends=");
        let found = find(dir.path()).unwrap();
        assert_eq!(found.len(), 6);
        let order = in_order(&found, &["nvme", "built-in", "crc64"]).unwrap();
        assert_eq!(order, ["crc64", "t10_pi", "hash", "nvme_core", "nvme"]);
    }
}
