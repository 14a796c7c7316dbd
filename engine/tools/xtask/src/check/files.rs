//! Rules `file-size`, `names` and `parses`: small files, crates and modules that are called after what they do.

use crate::finding::Finding;
use crate::source_tree::SourceTree;

/// A file longer than this should be cut along its concepts.
const ASK_AT: usize = 500;
/// A file longer than this fails.
const FAIL_AT: usize = 1000;

/// Names that say nothing about what is inside.
const BANNED: [&str; 7] = ["base", "util", "utils", "common", "helpers", "misc", "core"];

pub(crate) fn check(tree: &SourceTree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, file) in &tree.files {
        if let Some(Err(error)) = &file.rust {
            findings.push(Finding::fail(
                "parses",
                path,
                0,
                format!("cannot be read as Rust: {error}"),
            ));
        }
        if is_code(path) {
            findings.extend(size(path, file.text.lines().count()));
        }
    }
    for (path, facts) in tree.rust() {
        let named = |module: &&crate::facts::ModuleDecl| {
            module.path.last().is_some_and(|name| is_banned(name))
        };
        for module in facts.modules.iter().filter(named) {
            let name = module.path.last().map_or("", String::as_str);
            findings.push(name_finding(path, module.line, "module", name));
        }
    }
    for (path, _, text) in tree.manifests() {
        let name = package_name(text);
        // Of `spdk_ring` the last part names the crate; the family says nothing.
        if let Some(name) =
            name.filter(|name| name.rsplit(['_', '-']).next().is_some_and(is_banned))
        {
            findings.push(name_finding(path, 0, "package", &name));
        }
    }
    findings
}

fn size(path: &str, lines: usize) -> Option<Finding> {
    let ask = "cut it along its concepts";
    if lines > FAIL_AT {
        Some(Finding::fail(
            "file-size",
            path,
            0,
            format!("{lines} lines, more than {FAIL_AT}: {ask}"),
        ))
    } else if lines > ASK_AT {
        Some(Finding::warn(
            "file-size",
            path,
            0,
            format!("{lines} lines, more than {ASK_AT}: {ask}?"),
        ))
    } else {
        None
    }
}

fn name_finding(path: &str, line: usize, what: &str, name: &str) -> Finding {
    Finding::fail(
        "names",
        path,
        line,
        format!("{what} `{name}`: name it after what it does"),
    )
}

fn is_banned(name: &str) -> bool {
    BANNED.contains(&name)
}

fn is_code(path: &str) -> bool {
    [".rs", ".c", ".h", ".proto"]
        .iter()
        .any(|ending| path.ends_with(ending))
}

fn package_name(manifest: &str) -> Option<String> {
    let manifest: toml::Table = manifest.parse().ok()?;
    Some(manifest.get("package")?.get("name")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::trees::{places, tree};

    #[test]
    fn small_well_named_files_pass() {
        let good = tree(&[
            ("a/Cargo.toml", "[package]\nname = \"spdk_ring\"\n"),
            ("a/src/lib.rs", "mod mpsc;\n"),
            ("a/src/mpsc.rs", &"// line\n".repeat(500)),
        ]);
        assert!(check(&good).is_empty());
    }

    #[test]
    fn long_files_are_asked_about_then_refused() {
        let bad = tree(&[
            ("a.rs", &"// line\n".repeat(501)),
            ("b.h", &"// line\n".repeat(1001)),
        ]);
        let shown: Vec<String> = check(&bad).iter().map(ToString::to_string).collect();
        assert_eq!(
            shown[0],
            "warning[file-size]: a.rs: 501 lines, more than 500: cut it along its concepts?"
        );
        assert_eq!(
            shown[1],
            "error[file-size]: b.h: 1001 lines, more than 1000: cut it along its concepts"
        );
    }

    #[test]
    fn names_that_say_nothing_are_refused() {
        let bad = tree(&[
            ("a/Cargo.toml", "[package]\nname = \"engine_common\"\n"),
            ("a/src/lib.rs", "mod util;\nmod fine { mod misc {} }\n"),
        ]);
        assert_eq!(
            places(&check(&bad)),
            [
                "a/src/lib.rs:1 names",
                "a/src/lib.rs:2 names",
                "a/Cargo.toml:0 names"
            ]
        );
    }

    #[test]
    fn a_file_that_is_not_rust_is_named() {
        assert_eq!(
            places(&check(&tree(&[("a.rs", "fn (\n")]))),
            ["a.rs:0 parses"]
        );
    }
}
