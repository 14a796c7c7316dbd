//! What the kernel does in a tree when steps are carried out.

use std::fs;

use engine_node::{Address, Hands, Step, StepFailed, ThisMachine};

use crate::tree::Tree;

/// Carries steps out in a tree.
pub(crate) struct Kernel<'a> {
    pub(crate) tree: &'a Tree,
    /// Pages that it can find.
    pub(crate) most_pages: u64,
    /// No driver takes a device.
    pub(crate) probes_nothing: bool,
    pub(crate) done: Vec<String>,
}

impl<'a> Kernel<'a> {
    pub(crate) fn of(tree: &'a Tree) -> Kernel<'a> {
        Kernel {
            tree,
            most_pages: u64::MAX,
            probes_nothing: false,
            done: Vec::new(),
        }
    }

    fn unbind(&self, device: &str) {
        fs::remove_file(
            self.tree
                .path(format!("sys/bus/pci/devices/{device}/driver")),
        )
        .unwrap();
        let _ = fs::remove_dir_all(self.tree.path(format!("sys/bus/pci/devices/{device}/nvme")));
        let _ = fs::remove_dir_all(self.tree.path("sys/class/block"));
        let _ = fs::remove_file(self.tree.path("dev/nvme0n1"));
        let _ = fs::remove_file(self.tree.path("dev/vfio/12"));
    }

    fn probe(&self, device: &str) {
        let at = |file: &str| format!("sys/bus/pci/devices/{device}/{file}");
        let only = fs::read_to_string(self.tree.path(at("driver_override"))).unwrap();
        let driver = if only.trim() == "(null)" {
            "nvme"
        } else {
            only.trim()
        };
        if self.probes_nothing && driver != "nvme" {
            return;
        }
        self.tree
            .link(at("driver"), &format!("../../drivers/{driver}"));
        match driver {
            "nvme" => self.tree.disk(device, "nvme0", "nvme0n1"),
            _ => self.tree.file("dev/vfio/12", ""),
        }
    }
}

impl Hands for Kernel<'_> {
    fn act(&mut self, step: &Step) -> Result<(), StepFailed> {
        self.done.push(step.to_string());
        let module = |name: &str| self.tree.path(format!("sys/bus/pci/drivers/{name}"));
        match step {
            Step::Load { module: name } => fs::create_dir_all(module(name)).unwrap(),
            Step::Unload { module: name } => fs::remove_dir(module(name)).unwrap(),
            Step::Write { path, text } if path.ends_with("/driver/unbind") => {
                assert!(path.contains(text.parse::<Address>().unwrap().as_str()));
                self.unbind(text);
            }
            Step::Write { path, text } if path == "/sys/bus/pci/drivers_probe" => self.probe(text),
            Step::Write { path, text } => {
                let text = if text.is_empty() { "(null)" } else { text };
                self.tree.file(path.trim_start_matches('/'), text);
            }
            Step::Pages { count, .. } if *count > self.most_pages => {
                self.tree.pages(self.most_pages, self.most_pages);
                return Err(StepFailed {
                    step: step.clone(),
                    why: format!("the kernel found {} of {count} huge pages", self.most_pages),
                    cure: "reboot".into(),
                });
            }
            Step::Pages { count, path } => {
                let (all, free) = (&path[1..], path[1..].replace("nr_", "free_"));
                let number = |path: &str| -> u64 {
                    let text = fs::read_to_string(self.tree.path(path)).unwrap();
                    text.trim().parse().unwrap()
                };
                let used = number(all) - number(&free);
                self.tree.file(all, &count.to_string());
                self.tree.file(&free, &(count - used).to_string());
            }
            _ => ThisMachine(self.tree.root()).act(step)?,
        }
        Ok(())
    }
}
