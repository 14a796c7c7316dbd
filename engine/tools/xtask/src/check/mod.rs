//! `cargo xtask check`: rules on the source tree itself. Each rule is a function from the tree to findings, with tests of its own
//! on small good and bad trees.

mod files;
mod functions;
mod layers;
mod opt_outs;
mod orphans;
mod schema;
#[cfg(test)]
mod trees;
mod unsafe_inventory;
mod words;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::finding::{Finding, Severity};
use crate::source_tree::SourceTree;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write the generated files anew: function baseline, unsafe inventory, configuration schema
    #[arg(long)]
    update: bool,
}

/// Where the layers and the fence are written down.
pub(crate) const LAYERS: &str = "docs/layers.toml";

pub(crate) fn command(root: &Path, args: &Args) -> Result<ExitCode> {
    let begun = Instant::now();
    if args.update {
        update(root)?;
    }
    let report = run(root)?;
    let failures = report.show();
    println!(
        "check: {} rules, {failures} errors, {:.2} s",
        report.rules,
        begun.elapsed().as_secs_f64()
    );
    Ok(if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What all rules found.
pub(crate) struct Report {
    rules: usize,
    findings: Vec<Finding>,
}

impl Report {
    /// Prints the findings and counts the failures.
    pub(crate) fn show(&self) -> usize {
        self.findings
            .iter()
            .for_each(|finding| println!("{finding}"));
        self.findings
            .iter()
            .filter(|finding| finding.severity == Severity::Fail)
            .count()
    }
}

pub(crate) fn run(root: &Path) -> Result<Report> {
    let tree = SourceTree::read(root)?;
    let layers = layers::Layers::read(&tree)?;
    let baseline = functions::Baseline::read(&tree)?;
    let mut findings = Vec::new();
    let rules: [&mut dyn FnMut() -> Vec<Finding>; 8] = [
        &mut || layers::check(&tree, &layers),
        &mut || files::check(&tree),
        &mut || functions::check(&tree, &baseline),
        &mut || orphans::check(&tree),
        &mut || opt_outs::check(&tree, &layers),
        &mut || words::check(&tree),
        &mut || unsafe_inventory::check(&tree),
        &mut || schema::check(&tree),
    ];
    let count = rules.len();
    for rule in rules {
        findings.extend(rule());
    }
    findings.sort();
    Ok(Report {
        rules: count,
        findings,
    })
}

fn update(root: &Path) -> Result<()> {
    let tree = SourceTree::read(root)?;
    let files = [
        functions::updated(&tree),
        unsafe_inventory::updated(&tree)?,
        schema::updated(),
    ];
    for (path, text) in files {
        if tree.text(path) != Some(&text) {
            std::fs::write(root.join(path), text)
                .with_context(|| format!("cannot write {path}"))?;
            println!("updated {path}");
        }
    }
    Ok(())
}
