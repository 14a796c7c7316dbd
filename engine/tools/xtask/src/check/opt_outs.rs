//! Rules `reasons` and `unsafe-fence`: an exception says why, and unsafe code is allowed only inside the fence, at the top of a file.

use super::layers::Layers;
use crate::facts::OptOut;
use crate::finding::Finding;
use crate::source_tree::SourceTree;

pub(crate) fn check(tree: &SourceTree, layers: &Layers) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, facts) in tree.rust() {
        for opt_out in &facts.opt_outs {
            findings.extend(one(path, opt_out, layers));
        }
    }
    findings
}

fn one(path: &str, opt_out: &OptOut, layers: &Layers) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lints = opt_out.lints.join(", ");
    if opt_out
        .reason
        .as_deref()
        .is_none_or(|reason| reason.trim().is_empty())
    {
        let message = format!("allow({lints}) without `reason = \"...\"`: an exception says why");
        findings.push(Finding::fail("reasons", path, opt_out.line, message));
    }
    if opt_out.lints.iter().any(|lint| lint == "unsafe_code") {
        let message = if !layers.is_fenced(path) {
            "unsafe code is allowed outside the fence; docs/layers.toml says where it may be"
        } else if !opt_out.inner {
            "a whole file opts in to unsafe code, at its top: `#![allow(unsafe_code, reason = \"...\")]`"
        } else {
            return findings;
        };
        findings.push(Finding::fail("unsafe-fence", path, opt_out.line, message));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::LAYERS;
    use crate::check::trees::{places, tree};

    fn found(path: &str, text: &str) -> Vec<String> {
        let data = "layer = []\n[unsafe_fence]\ncrates = [\"env\"]\nfiles = []\n";
        let tree = tree(&[(LAYERS, data), (path, text)]);
        places(&check(&tree, &Layers::read(&tree).unwrap()))
    }

    #[test]
    fn a_reason_is_enough_for_ordinary_lints() {
        assert!(
            found(
                "a/src/lib.rs",
                "#[allow(dead_code, reason = \"read by C\")]\nfn f() {}\n"
            )
            .is_empty()
        );
        assert_eq!(
            found("a/src/lib.rs", "#[allow(dead_code)]\nfn f() {}\n"),
            ["a/src/lib.rs:1 reasons"]
        );
        assert_eq!(
            found("a/src/lib.rs", "#![expect(unused, reason = \" \")]\n"),
            ["a/src/lib.rs:1 reasons"]
        );
    }

    #[test]
    fn unsafe_code_stays_inside_the_fence() {
        let top = "#![allow(unsafe_code, reason = \"maps memory\")]\n";
        assert!(found("env/src/dma.rs", top).is_empty());
        assert_eq!(
            found("thread/src/lib.rs", top),
            ["thread/src/lib.rs:1 unsafe-fence"]
        );
    }

    #[test]
    fn unsafe_code_is_opted_in_to_by_the_file() {
        let item = "#[allow(unsafe_code, reason = \"maps memory\")]\nfn f() {}\n";
        assert_eq!(
            found("env/src/dma.rs", item),
            ["env/src/dma.rs:1 unsafe-fence"]
        );
    }
}
