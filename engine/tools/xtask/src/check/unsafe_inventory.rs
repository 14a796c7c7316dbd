//! Rule `unsafe-inventory`: docs/UNSAFE.md lists every file with unsafe code, generated and compared.

use anyhow::{Result, bail};

use crate::facts::Facts;
use crate::finding::Finding;
use crate::source_tree::SourceTree;

const DOCUMENT: &str = "docs/UNSAFE.md";
const BEGIN: &str = "<!-- inventory: written by `cargo xtask check --update` -->\n";
const END: &str = "<!-- end of inventory -->\n";

pub(crate) fn check(tree: &SourceTree) -> Vec<Finding> {
    let fail = |message: String| vec![Finding::fail("unsafe-inventory", DOCUMENT, 0, message)];
    match updated(tree) {
        Err(error) => fail(error.to_string()),
        Ok((_, text)) if tree.text(DOCUMENT) == Some(&text) => Vec::new(),
        Ok(_) => fail(
            "the inventory is stale: run `cargo xtask check --update`, and read the difference"
                .into(),
        ),
    }
}

/// The document with its inventory written anew.
pub(crate) fn updated(tree: &SourceTree) -> Result<(&'static str, String)> {
    let text = tree.text(DOCUMENT).unwrap_or("");
    let Some((before, rest)) = text.split_once(BEGIN) else {
        bail!("{DOCUMENT} has no line {}", BEGIN.trim_end())
    };
    let Some((_, after)) = rest.split_once(END) else {
        bail!("{DOCUMENT} has no line {}", END.trim_end())
    };
    Ok((
        DOCUMENT,
        format!("{before}{BEGIN}{}{END}{after}", inventory(tree)),
    ))
}

fn inventory(tree: &SourceTree) -> String {
    let mut table = String::from(
        "\n| file | blocks | fns | impls | in macros | why |\n|---|--:|--:|--:|--:|---|\n",
    );
    let mut all = 0;
    for (path, facts) in tree
        .rust()
        .filter(|(_, facts)| facts.unsafe_sites.sum() > 0)
    {
        let sites = facts.unsafe_sites;
        all += sites.sum();
        table += &format!(
            "| `{path}` | {} | {} | {} | {} | {} |\n",
            sites.blocks,
            sites.functions,
            sites.impls,
            sites.in_macros,
            reason(facts).replace('|', "\\|")
        );
    }
    format!("{table}\n{all} sites.\n\n")
}

/// The reason of the file's opt-in; a file without one is covered by the module above it.
fn reason(facts: &Facts) -> &str {
    let opt_in = facts
        .opt_outs
        .iter()
        .find(|opt_out| opt_out.lints.iter().any(|lint| lint == "unsafe_code"));
    opt_in
        .and_then(|opt_in| opt_in.reason.as_deref())
        .unwrap_or("as the module around it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::trees::tree;

    const CODE: (&str, &str) = (
        "a.rs",
        "#![allow(unsafe_code, reason = \"maps | memory\")]\nfn f() { unsafe { g() } }\n",
    );

    #[test]
    fn a_fresh_inventory_passes_and_a_stale_one_fails() {
        let stale = tree(&[
            CODE,
            (DOCUMENT, &format!("# Unsafe\n{BEGIN}old\n{END}after\n")),
        ]);
        assert_eq!(check(&stale).len(), 1);
        let (_, text) = updated(&stale).unwrap();
        assert!(text.starts_with("# Unsafe\n"), "{text}");
        assert!(
            text.contains("| `a.rs` | 1 | 0 | 0 | 0 | maps \\| memory |\n"),
            "{text}"
        );
        assert!(
            text.ends_with("1 sites.\n\n<!-- end of inventory -->\nafter\n"),
            "{text}"
        );
        assert!(check(&tree(&[CODE, (DOCUMENT, &text)])).is_empty());
    }

    #[test]
    fn a_document_without_its_marks_is_named() {
        assert!(check(&tree(&[CODE]))[0].message.contains("has no line"));
    }
}
