//! How values go together, and whether the machine has what they ask for.
//!
//! Each rule is one function that reads the typed configuration and reports at the keys it is about. A rule stays silent when a key
//! that it reads was already reported.

mod devices;
mod etcd;
mod files;
mod group;
mod network;
mod spdk;
mod xstreams;

use crate::Config;
use crate::error::{ConfigError, Kind};
use crate::machine::Machine;
use crate::tree::{At, Node, Step};

/// Runs every rule.
pub(crate) fn all(rules: &mut Rules<'_>) {
    spdk::check(rules);
    xstreams::check(rules);
    devices::check(rules);
    files::check(rules);
    network::check(rules);
    group::check(rules);
    etcd::check(rules);
}

/// What rules read, and what they found.
pub(crate) struct Rules<'a> {
    config: &'a Config,
    machine: Option<&'a Machine>,
    hidden: &'a [String],
    errors: Vec<ConfigError>,
}

impl<'a> Rules<'a> {
    pub(crate) fn new(
        config: &'a Config,
        machine: Option<&'a Machine>,
        hidden: &'a [String],
    ) -> Rules<'a> {
        Rules {
            config,
            machine,
            hidden,
            errors: Vec::new(),
        }
    }

    pub(crate) fn into_errors(self) -> Vec<ConfigError> {
        self.errors
    }

    /// Whether none of these keys, nor a table round them, was already reported.
    fn sound(&self, keys: &[&str]) -> bool {
        let covers = |hidden: &str, key: &str| match key.strip_prefix(hidden) {
            Some(rest) => rest.is_empty() || rest.starts_with(['.', '[']),
            None => false,
        };
        !self
            .hidden
            .iter()
            .any(|hidden| keys.iter().any(|key| covers(hidden, key)))
    }

    fn report(&mut self, error: Fault<'_>) {
        let mut report = ConfigError::new(error.kind, error.key, error.message).help(error.help);
        if let Some(at) = self.place(error.key) {
            report = report.at(&at, error.label);
        }
        if let Some((key, label)) = error.also
            && let Some(at) = self.place(key)
        {
            report = report.at(&at, label);
        }
        self.errors.push(report);
    }

    /// Where a key stands; for one that was left out, where the table round it begins.
    fn place(&self, key: &str) -> Option<At> {
        let root: &Node = self.config.origin.0.as_deref()?;
        let steps = steps(key);
        let found = (0..=steps.len())
            .rev()
            .find_map(|depth| root.find(&steps[..depth]));
        found.map(|node| node.at.clone())
    }
}

/// One finding of a rule.
struct Fault<'a> {
    kind: Kind,
    key: &'a str,
    message: String,
    label: &'a str,
    help: String,
    /// A second place that the message refers to.
    also: Option<(&'a str, &'a str)>,
}

/// "1 target", "2 targets".
fn count(n: u32, noun: &str) -> String {
    let ending = if n == 1 { "" } else { "s" };
    format!("{n} {noun}{ending}")
}

/// `device[1].path` in steps.
fn steps(key: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for part in key.split('.') {
        let mut pieces = part.split('[');
        steps.extend(pieces.next().map(Step::Key));
        let index = |piece: &str| piece.trim_end_matches(']').parse().ok().map(Step::Index);
        steps.extend(pieces.filter_map(index));
    }
    steps
}
