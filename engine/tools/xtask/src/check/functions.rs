//! Rule `function-length`: at most 70 lines. Older ones stand in a baseline and may only get shorter (a ratchet).

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::finding::Finding;
use crate::source_tree::SourceTree;

/// One screen: what is longer is read in parts anyway, so it should be written in parts.
const LONGEST: usize = 70;

pub(crate) const BASELINE: &str = "engine/tools/xtask/function_lengths.toml";

const HEADER: &str = "# Functions longer than 70 lines, by `path::function`. They may get shorter, not longer, and none may be added.\n\
                      # Written by `cargo xtask check --update`.\n";

/// Lengths that are tolerated, by `path::function`.
#[derive(Debug, Default)]
pub(crate) struct Baseline(BTreeMap<String, usize>);

impl Baseline {
    pub(crate) fn read(tree: &SourceTree) -> Result<Baseline> {
        let text = tree.text(BASELINE).unwrap_or("");
        let lengths = toml::from_str(text).with_context(|| format!("{BASELINE} is damaged"))?;
        Ok(Baseline(lengths))
    }
}

pub(crate) fn check(tree: &SourceTree, baseline: &Baseline) -> Vec<Finding> {
    let mut findings = Vec::new();
    let now = long(tree);
    for (key, (path, line, lines)) in &now {
        let name = key.rsplit(".rs::").next().unwrap_or(key);
        match baseline.0.get(key) {
            Some(tolerated) if lines <= tolerated => {}
            Some(tolerated) => findings.push(Finding::fail(
                "function-length",
                path,
                *line,
                format!(
                    "`{name}` grew from {tolerated} to {lines} lines; at most {LONGEST} are wanted"
                ),
            )),
            None => findings.push(Finding::fail(
                "function-length",
                path,
                *line,
                format!(
                    "`{name}` has {lines} lines, more than {LONGEST}: cut it into steps with names"
                ),
            )),
        }
    }
    for (key, tolerated) in &baseline.0 {
        let lines = now.get(key).map_or(0, |(_, _, lines)| *lines);
        if lines < *tolerated {
            let message = format!(
                "`{key}` is shorter now: run `cargo xtask check --update` to hold on to it"
            );
            findings.push(Finding::fail("function-length", BASELINE, 0, message));
        }
    }
    findings
}

/// The baseline as it should be. Nothing is added to it: what is too long and new stays an error.
pub(crate) fn updated(tree: &SourceTree) -> (&'static str, String) {
    let tolerated = Baseline::read(tree).unwrap_or_default().0;
    let mut text = HEADER.to_owned();
    for (key, (_, _, lines)) in long(tree) {
        if let Some(tolerated) = tolerated.get(&key) {
            text += &format!("{key:?} = {}\n", lines.min(*tolerated));
        }
    }
    (BASELINE, text)
}

/// By `path::function`: path, line, lines. Of two with the same name the longer one counts.
fn long(tree: &SourceTree) -> BTreeMap<String, (String, usize, usize)> {
    let mut found = BTreeMap::new();
    for (path, facts) in tree.rust() {
        for function in facts
            .functions
            .iter()
            .filter(|function| function.lines > LONGEST)
        {
            let key = format!("{path}::{}", function.name);
            let entry = found
                .entry(key)
                .or_insert((path.to_owned(), function.line, 0));
            if function.lines > entry.2 {
                *entry = (path.to_owned(), function.line, function.lines);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::trees::{places, tree};

    fn function(lines: usize) -> String {
        format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2))
    }

    fn found(lines: usize, baseline: &str) -> Vec<Finding> {
        let tree = tree(&[("a.rs", &function(lines)), (BASELINE, baseline)]);
        check(&tree, &Baseline::read(&tree).unwrap())
    }

    #[test]
    fn seventy_lines_are_enough() {
        assert!(found(70, "").is_empty());
        assert_eq!(places(&found(71, "")), ["a.rs:1 function-length"]);
    }

    #[test]
    fn the_ratchet_only_turns_one_way() {
        assert!(found(80, "\"a.rs::f\" = 80\n").is_empty());
        assert!(
            found(81, "\"a.rs::f\" = 80\n")[0]
                .message
                .contains("grew from 80 to 81")
        );
        assert_eq!(
            places(&found(79, "\"a.rs::f\" = 80\n")),
            [format!("{BASELINE}:0 function-length")]
        );
        assert!(
            found(60, "\"a.rs::f\" = 80\n")[0]
                .message
                .contains("shorter now")
        );
    }

    #[test]
    fn an_update_shortens_and_never_adds() {
        let text = function(75) + &function(90).replace("fn f", "fn g");
        let tree = tree(&[("a.rs", &text), (BASELINE, "\"a.rs::f\" = 80\n")]);
        assert_eq!(updated(&tree).1, format!("{HEADER}\"a.rs::f\" = 75\n"));
    }
}
