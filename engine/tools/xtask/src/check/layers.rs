//! Rule `layers`: who may depend on whom is written in docs/layers.toml, and the manifests keep to it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};

use serde::Deserialize;

use super::LAYERS;
use crate::finding::Finding;
use crate::source_tree::SourceTree;

/// docs/layers.toml.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Layers {
    /// Bottom to top.
    layer: Vec<Layer>,
    #[serde(default)]
    test_only: Vec<String>,
    /// Further crates that the tests of one crate may use.
    #[serde(default)]
    tests: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    unsafe_fence: Fence,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layer {
    name: String,
    /// Each crate with the crates that it may depend on.
    crates: BTreeMap<String, Vec<String>>,
}

/// Where `unsafe_code` may be allowed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fence {
    /// Directories of crates.
    crates: Vec<String>,
    /// Single files outside of them.
    files: Vec<String>,
}

/// A package of the workspace with its dependencies on others of it.
struct Package {
    name: String,
    manifest: String,
    dependencies: BTreeSet<String>,
    dev_dependencies: BTreeSet<String>,
    /// Dependencies that name a version or path of their own.
    not_shared: Vec<String>,
}

impl Layers {
    pub(crate) fn read(tree: &SourceTree) -> Result<Layers> {
        let Some(text) = tree.text(LAYERS) else {
            bail!("{LAYERS} is missing")
        };
        toml::from_str(text).with_context(|| format!("{LAYERS} is damaged"))
    }

    /// Whether a file may opt in to unsafe code.
    pub(crate) fn is_fenced(&self, path: &str) -> bool {
        let below = |dir: &String| {
            path.strip_prefix(dir.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
        };
        self.unsafe_fence.crates.iter().any(below)
            || self.unsafe_fence.files.iter().any(|file| file == path)
    }

    fn level(&self, name: &str) -> Option<usize> {
        self.layer
            .iter()
            .position(|layer| layer.crates.contains_key(name))
    }

    fn allowed(&self, name: &str) -> Option<&Vec<String>> {
        self.layer.iter().find_map(|layer| layer.crates.get(name))
    }
}

pub(crate) fn check(tree: &SourceTree, layers: &Layers) -> Vec<Finding> {
    let packages = packages(tree);
    let mut findings = downward_only(layers);
    for package in &packages {
        edges(package, layers, &mut findings);
    }
    let names: BTreeSet<&str> = packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let listed = layers.layer.iter().flat_map(|layer| layer.crates.keys());
    for name in listed.filter(|name| !names.contains(name.as_str())) {
        findings.push(Finding::fail(
            "layers",
            LAYERS,
            0,
            format!("`{name}` is listed and does not exist"),
        ));
    }
    findings
}

/// The data itself: an edge leads to a lower layer.
fn downward_only(layers: &Layers) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (level, layer) in layers.layer.iter().enumerate() {
        for (name, to) in layer
            .crates
            .iter()
            .flat_map(|(name, to)| to.iter().map(move |to| (name, to)))
        {
            if layers.level(to).is_none_or(|below| below >= level) {
                let message = format!(
                    "`{name}` -> `{to}` does not lead below layer \"{}\"",
                    layer.name
                );
                findings.push(Finding::fail("layers", LAYERS, 0, message));
            }
        }
    }
    findings
}

fn edges(package: &Package, layers: &Layers, findings: &mut Vec<Finding>) {
    let mut fail =
        |message: String| findings.push(Finding::fail("layers", &package.manifest, 0, message));
    let name = &package.name;
    for dependency in &package.not_shared {
        fail(format!(
            "`{dependency}` is not `workspace = true`: versions stand once, in the top Cargo.toml"
        ));
    }
    let (Some(level), Some(allowed)) = (layers.level(name), layers.allowed(name)) else {
        fail(format!(
            "`{name}` is in no layer: add it to {LAYERS} with what it may depend on"
        ));
        return;
    };
    for dependency in &package.dependencies {
        if layers.test_only.contains(dependency) {
            fail(format!(
                "`{name}` -> `{dependency}`, which is for tests only"
            ));
        } else if !allowed.contains(dependency) {
            fail(format!(
                "`{name}` -> `{dependency}` is not an allowed edge; {LAYERS} says what is, and why"
            ));
        }
    }
    for dependency in &package.dev_dependencies {
        let below = layers.level(dependency).is_some_and(|below| below < level);
        let listed = layers
            .tests
            .get(name)
            .is_some_and(|tests| tests.contains(dependency));
        if !below && !listed && !layers.test_only.contains(dependency) {
            fail(format!(
                "tests of `{name}` -> `{dependency}` leads sideways or up, and {LAYERS} does not have it in `test_only` or `tests`"
            ));
        }
    }
}

fn packages(tree: &SourceTree) -> Vec<Package> {
    let parsed: Vec<(&str, toml::Table)> = tree
        .manifests()
        .filter_map(|(path, _, text)| Some((path, text.parse::<toml::Table>().ok()?)))
        .filter(|(_, manifest)| manifest.contains_key("package"))
        .collect();
    let name =
        |manifest: &toml::Table| Some(manifest.get("package")?.get("name")?.as_str()?.to_owned());
    let ours: BTreeSet<String> = parsed
        .iter()
        .filter_map(|(_, manifest)| name(manifest))
        .collect();
    let package = |(path, manifest): &(&str, toml::Table)| {
        let mut package = Package {
            name: name(manifest)?,
            manifest: (*path).to_owned(),
            dependencies: BTreeSet::new(),
            dev_dependencies: BTreeSet::new(),
            not_shared: Vec::new(),
        };
        let targets = manifest
            .get("target")
            .and_then(toml::Value::as_table)
            .into_iter()
            .flatten();
        let tables =
            std::iter::once(manifest).chain(targets.filter_map(|(_, value)| value.as_table()));
        for table in tables {
            package.read(table, &ours);
        }
        Some(package)
    };
    parsed.iter().filter_map(package).collect()
}

impl Package {
    fn read(&mut self, table: &toml::Table, ours: &BTreeSet<String>) {
        for kind in ["dependencies", "build-dependencies", "dev-dependencies"] {
            let Some(dependencies) = table.get(kind).and_then(toml::Value::as_table) else {
                continue;
            };
            for (name, value) in dependencies {
                let shared = value.get("workspace").and_then(toml::Value::as_bool) == Some(true);
                if !shared {
                    self.not_shared.push(name.clone());
                }
                // A renamed dependency says what it is in `package`.
                let real = value
                    .get("package")
                    .and_then(toml::Value::as_str)
                    .unwrap_or(name);
                if !ours.contains(real) {
                    continue;
                }
                let set = if kind == "dev-dependencies" {
                    &mut self.dev_dependencies
                } else {
                    &mut self.dependencies
                };
                set.insert(real.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::trees::tree;

    const DATA: &str = "test_only = [\"fake\"]\n\
        [[layer]]\nname = \"low\"\ncrates = { ring = [], errno = [] }\n\
        [[layer]]\nname = \"mid\"\ncrates = { thread = [\"ring\"], fake = [\"ring\"] }\n";

    fn manifest(name: &str, rest: &str) -> String {
        format!("[package]\nname = \"{name}\"\n{rest}")
    }

    fn found(data: &str, thread: &str) -> Vec<String> {
        let tree = tree(&[
            (LAYERS, data),
            ("ring/Cargo.toml", &manifest("ring", "")),
            ("errno/Cargo.toml", &manifest("errno", "")),
            (
                "fake/Cargo.toml",
                &manifest("fake", "[dependencies]\nring.workspace = true\n"),
            ),
            ("thread/Cargo.toml", &manifest("thread", thread)),
        ]);
        let layers = Layers::read(&tree).unwrap();
        check(&tree, &layers)
            .into_iter()
            .map(|finding| finding.message)
            .collect()
    }

    #[test]
    fn allowed_edges_and_tests_that_look_down_pass() {
        let thread = "[dependencies]\nring.workspace = true\nserde.workspace = true\n[dev-dependencies]\nerrno.workspace = true\nfake.workspace = true\n";
        assert_eq!(found(DATA, thread), [""; 0]);
    }

    #[test]
    fn an_edge_that_is_not_written_down_is_refused_on_every_target() {
        let said = found(
            DATA,
            "[target.'cfg(loom)'.dependencies]\nerrno.workspace = true\n",
        );
        assert_eq!(
            said,
            ["`thread` -> `errno` is not an allowed edge; docs/layers.toml says what is, and why"]
        );
    }

    #[test]
    fn tests_may_not_look_up_unless_the_crate_is_for_tests() {
        let data = DATA.replace("test_only = [\"fake\"]", "");
        let said = found(&data, "[dev-dependencies]\nfake.workspace = true\n");
        assert!(said[0].contains("sideways or up"), "{said:?}");
        let said = found(DATA, "[dependencies]\nfake.workspace = true\n");
        assert!(said[0].contains("for tests only"), "{said:?}");
    }

    #[test]
    fn an_edge_of_tests_is_for_one_crate_only() {
        let data =
            format!("{DATA}[tests]\nthread = [\"fake\"]\n").replace("test_only = [\"fake\"]", "");
        assert_eq!(
            found(&data, "[dev-dependencies]\nfake.workspace = true\n"),
            [""; 0]
        );
        let other = data.replace("[tests]\nthread", "[tests]\nring");
        assert!(
            found(&other, "[dev-dependencies]\nfake.workspace = true\n")[0]
                .contains("sideways or up")
        );
    }

    #[test]
    fn the_data_itself_leads_downward() {
        let data = DATA.replace("thread = [\"ring\"]", "thread = [\"fake\"]");
        assert!(found(&data, "")[0].contains("does not lead below layer \"mid\""));
    }

    #[test]
    fn crates_and_data_name_each_other() {
        let said = found(&DATA.replace("thread = [\"ring\"], ", ""), "");
        assert!(said[0].contains("`thread` is in no layer"), "{said:?}");
        let said = found(&DATA.replace("errno = []", "errno = [], gone = []"), "");
        assert!(
            said[0].contains("`gone` is listed and does not exist"),
            "{said:?}"
        );
    }

    #[test]
    fn a_version_of_its_own_is_refused() {
        assert!(
            found(DATA, "[dependencies]\nserde = \"1\"\n")[0]
                .contains("`serde` is not `workspace = true`")
        );
    }

    #[test]
    fn the_fence_is_a_crate_or_a_file() {
        let layers: Layers = toml::from_str(
            "layer = []\n[unsafe_fence]\ncrates = [\"spdk-bindings/env\"]\nfiles = [\"engine/xstream/src/task_stack.rs\"]\n",
        )
        .unwrap();
        assert!(layers.is_fenced("spdk-bindings/env/src/dma.rs"));
        assert!(!layers.is_fenced("spdk-bindings/environment/src/lib.rs"));
        assert!(layers.is_fenced("engine/xstream/src/task_stack.rs"));
        assert!(!layers.is_fenced("engine/xstream/src/lib.rs"));
    }
}
