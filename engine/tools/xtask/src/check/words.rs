//! Rules `stubs` and `private-paths`: what must not be on main.

use crate::finding::Finding;
use crate::source_tree::SourceTree;

/// Paths of a developer's machine; put together here so that this file does not contain them.
const PRIVATE: [&str; 2] = [concat!("/wo", "rk/"), concat!("../sha", "red")];

pub(crate) fn check(tree: &SourceTree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, facts) in tree.rust() {
        for call in &facts.calls {
            let message = match call.what {
                "#[ignore]" => "#[ignore]: a test that does not run holds nothing",
                "dbg!" => "dbg!: a leftover",
                other => &format!("{other}: no stubs on main"),
            };
            findings.push(Finding::fail("stubs", path, call.line, message));
        }
    }
    for (path, file) in &tree.files {
        for (number, line) in file.text.lines().enumerate() {
            if let Some(private) = PRIVATE.iter().find(|private| mentions(line, private)) {
                let message = format!("mentions `{private}`, a path of a developer's machine");
                findings.push(Finding::fail("private-paths", path, number + 1, message));
            }
        }
    }
    findings
}

/// Whether the path stands there by itself, not within a longer one.
fn mentions(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::trees::{places, tree};

    #[test]
    fn whole_code_passes() {
        let good = tree(&[
            ("a.rs", "fn f() {} // todo!() is not a call here\n"),
            ("b.md", concat!("the net/wo", "rk/queue\n")),
        ]);
        assert!(check(&good).is_empty());
    }

    #[test]
    fn stubs_and_sleeping_tests_are_found() {
        let bad = tree(&[(
            "a.rs",
            "fn f() { todo!() }\n#[test]\n#[ignore]\nfn g() { dbg!(1); }\n",
        )]);
        assert_eq!(
            places(&check(&bad)),
            ["a.rs:1 stubs", "a.rs:3 stubs", "a.rs:4 stubs"]
        );
    }

    #[test]
    fn private_paths_are_found_in_any_text() {
        let text = format!("see {}plan and {}/x\n", PRIVATE[0], PRIVATE[1]);
        let bad = tree(&[
            ("a.md", &format!("fine\n{text}")),
            ("b.rs", &format!("// {text}")),
        ]);
        assert_eq!(
            places(&check(&bad)),
            ["a.md:2 private-paths", "b.rs:1 private-paths"]
        );
    }
}
