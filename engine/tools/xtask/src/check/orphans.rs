//! Rule `orphans`: every Rust file is part of a crate. One that no `mod` leads to is not compiled, and nobody notices.

use std::collections::BTreeSet;

use crate::facts::ModuleDecl;
use crate::finding::Finding;
use crate::source_tree::SourceTree;

pub(crate) fn check(tree: &SourceTree) -> Vec<Finding> {
    let mut reached = BTreeSet::new();
    let mut waiting = roots(tree);
    while let Some(path) = waiting.pop() {
        if reached.insert(path.clone()) {
            waiting.extend(children(tree, &path));
        }
    }
    let rust = tree.files.iter().filter(|(_, file)| file.rust.is_some());
    let lost = rust.filter(|(path, _)| !reached.contains(*path));
    lost.map(|(path, _)| {
        Finding::fail(
            "orphans",
            path,
            0,
            "no crate contains this file: add its `mod` or remove it",
        )
    })
    .collect()
}

/// Where cargo begins: by place, or by a `path` in the manifest.
fn roots(tree: &SourceTree) -> Vec<String> {
    let mut roots = Vec::new();
    for (_, dir, text) in tree.manifests() {
        let at = |inside: &str| {
            if dir.is_empty() {
                inside.to_owned()
            } else {
                format!("{dir}/{inside}")
            }
        };
        roots.extend(["src/lib.rs", "src/main.rs", "build.rs"].map(at));
        for folder in ["src/bin", "tests", "benches", "examples"] {
            let folder = at(folder) + "/";
            let inside = |path: &&String| path.strip_prefix(&folder).is_some_and(is_target);
            roots.extend(tree.files.keys().filter(inside).cloned());
        }
        let manifest: toml::Table = text.parse().unwrap_or_default();
        roots.extend(named_targets(&manifest).iter().map(|path| at(path)));
    }
    roots.retain(|path| tree.files.contains_key(path));
    roots
}

/// `name.rs` or `name/main.rs` in a folder of targets.
fn is_target(inside: &str) -> bool {
    match inside.split_once('/') {
        None => inside.ends_with(".rs"),
        Some((_, rest)) => rest == "main.rs",
    }
}

fn named_targets(manifest: &toml::Table) -> Vec<String> {
    let mut tables = Vec::new();
    tables.extend(manifest.get("lib").and_then(toml::Value::as_table));
    tables.extend(
        manifest
            .get("package")
            .and_then(toml::Value::as_table)
            .filter(|table| table.contains_key("build")),
    );
    for kind in ["bin", "test", "bench", "example"] {
        let targets = manifest
            .get(kind)
            .and_then(toml::Value::as_array)
            .into_iter()
            .flatten();
        tables.extend(targets.filter_map(toml::Value::as_table));
    }
    let path = |table: &&toml::Table| {
        table
            .get("path")
            .or(table.get("build"))?
            .as_str()
            .map(str::to_owned)
    };
    tables.iter().filter_map(path).collect()
}

fn children(tree: &SourceTree, path: &str) -> Vec<String> {
    let Some(Ok(facts)) = tree.files.get(path).and_then(|file| file.rust.as_ref()) else {
        return Vec::new();
    };
    let (dir, file) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = file.trim_end_matches(".rs");
    // A crate's root and a mod.rs own their directory; any other file owns the one that is called like it.
    let owner = matches!(stem, "lib" | "main" | "mod" | "build") || !is_module_file(tree, path);
    let own = if owner {
        dir.to_owned()
    } else {
        join(dir, stem)
    };
    let mut children: Vec<String> = facts
        .includes
        .iter()
        .map(|include| join(dir, include))
        .collect();
    for module in facts.modules.iter().filter(|module| !module.inline) {
        children.extend(places(module, dir, &own));
    }
    children
}

/// A target like `tests/a.rs` looks for its modules beside it, as a crate's root does.
fn is_module_file(tree: &SourceTree, path: &str) -> bool {
    !roots_contain(tree, path)
}

fn roots_contain(tree: &SourceTree, path: &str) -> bool {
    let targets = ["/tests/", "/benches/", "/examples/", "/src/bin/"];
    targets.iter().any(|folder| match path.rsplit_once(folder) {
        Some((dir, inside)) => {
            is_target(inside) && tree.files.contains_key(&format!("{dir}/Cargo.toml"))
        }
        None => false,
    })
}

/// Where the file of `mod x;` may be.
fn places(module: &ModuleDecl, dir: &str, own: &str) -> Vec<String> {
    let (name, around) = match module.path.split_last() {
        Some((name, around)) => (name, around),
        None => return Vec::new(),
    };
    let folder = around
        .iter()
        .fold(own.to_owned(), |dir, part| join(&dir, part));
    match &module.file {
        Some(file) if around.is_empty() => vec![join(dir, file)],
        Some(file) => vec![join(&folder, file)],
        None => vec![
            join(&folder, &format!("{name}.rs")),
            join(&folder, &format!("{name}/mod.rs")),
        ],
    }
}

/// Joins and resolves `.` and `..`.
fn join(dir: &str, path: &str) -> String {
    let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::trees::{places, tree};

    const MANIFEST: (&str, &str) = (
        "a/Cargo.toml",
        "[package]\nname = \"a\"\n[[bin]]\nname = \"b\"\npath = \"odd/b.rs\"\n",
    );

    #[test]
    fn every_way_to_be_part_of_a_crate_counts() {
        let good = tree(&[
            MANIFEST,
            ("a/build.rs", "fn main() {}"),
            ("a/odd/b.rs", "fn main() {}"),
            (
                "a/src/lib.rs",
                "mod one; mod two; mod three { mod deep; }\n#[path = \"else/where.rs\"]\nmod four;\ninclude!(\"five.rs\");",
            ),
            ("a/src/one.rs", "mod inner;"),
            ("a/src/one/inner.rs", ""),
            ("a/src/two/mod.rs", "#[cfg(test)] mod tests;"),
            ("a/src/two/tests.rs", ""),
            ("a/src/three/deep.rs", ""),
            ("a/src/else/where.rs", ""),
            ("a/src/five.rs", ""),
            ("a/src/bin/tool.rs", "fn main() {}"),
            ("a/tests/outer.rs", "mod support;"),
            ("a/tests/support/mod.rs", ""),
            ("a/tests/big/main.rs", "mod part;"),
            ("a/tests/big/part.rs", ""),
            ("a/examples/e.rs", ""),
            ("a/benches/b.rs", ""),
        ]);
        assert_eq!(places(&check(&good)), [""; 0]);
    }

    #[test]
    fn a_file_that_nothing_leads_to_is_named() {
        let bad = tree(&[
            MANIFEST,
            ("a/src/lib.rs", "mod one; // mod two;"),
            ("a/src/one.rs", ""),
            ("a/src/two.rs", ""),
            ("a/tests/big/part.rs", ""),
            ("stray.rs", ""),
        ]);
        assert_eq!(
            places(&check(&bad)),
            [
                "a/src/two.rs:0 orphans",
                "a/tests/big/part.rs:0 orphans",
                "stray.rs:0 orphans"
            ]
        );
    }
}
