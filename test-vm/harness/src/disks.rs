//! The images under the controllers. They belong to a run and outlive the VMs of it: a power cut is followed by a boot on the same.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::profile::Profile;
use crate::tools;

/// All images of a profile.
#[derive(Default)]
pub struct Disks {
    folder: PathBuf,
    images: Vec<Image>,
}

/// One namespace's image.
pub(crate) struct Image {
    pub(crate) controller: String,
    pub(crate) namespace: usize,
    /// The newest layer.
    pub(crate) path: PathBuf,
    pub(crate) volatile: bool,
    layers: u32,
}

impl Image {
    pub(crate) fn format(&self) -> &'static str {
        if self.volatile { "qcow2" } else { "raw" }
    }
}

impl Disks {
    /// Sparse, empty images.
    pub(crate) fn create(profile: &Profile, folder: &Path) -> Result<Disks> {
        fs::create_dir_all(folder)?;
        let mut images = Vec::new();
        for nvme in &profile.nvme {
            for (at, namespace) in nvme.namespaces.iter().enumerate() {
                let path = folder.join(format!("{}n{}.img", nvme.name, at + 1));
                let file = File::create(&path).with_context(|| path.display().to_string())?;
                file.set_len(namespace.size_mib << 20)?;
                images.push(Image {
                    controller: nvme.name.clone(),
                    namespace: at + 1,
                    path,
                    volatile: nvme.volatile,
                    layers: 0,
                });
            }
        }
        Ok(Disks {
            folder: folder.to_owned(),
            images,
        })
    }

    /// Before each boot, images that can lose writes get a fresh layer: only what is new in a layer is at the mercy of its tables.
    pub(crate) fn before_boot(&mut self) -> Result<()> {
        for image in self.images.iter_mut().filter(|image| image.volatile) {
            let below = image.path.clone();
            let format = if image.layers == 0 { "raw" } else { "qcow2" };
            image.layers += 1;
            let name = format!(
                "{}n{}.layer{}.qcow2",
                image.controller, image.namespace, image.layers
            );
            image.path = self.folder.join(name);
            let mut command = Command::new("qemu-img");
            command
                .args(["create", "-q", "-f", "qcow2", "-F", format, "-b"])
                .arg(below)
                .arg(&image.path);
            tools::output(&mut command)?;
        }
        Ok(())
    }

    pub(crate) fn of(&self, controller: &str) -> impl Iterator<Item = &Image> {
        self.images
            .iter()
            .filter(move |image| image.controller == controller)
    }
}
