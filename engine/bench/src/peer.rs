//! Ours and a peer's figures in the same run: a comparison means little when the machine was another one, or another hour.
//!
//! A peer is a program that a user has built on Argobots, SPDK or whatever else. It measures once, prints one figure per line to
//! its standard output, and ends with status 0:
//!
//! ```text
//! create_run_join_ns 115.2
//! yield_ns 50.1
//! ```
//!
//! A line is a name, blanks and a positive number; all others are ignored, so that a library's banner does no harm. Names are those
//! of [`Figure::peer_name`]; a name that comes twice counts with its last value. Each round runs ours, then the peer; medians count.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

/// Bytes of a peer's output that are read; one that prints more is refused.
const OUTPUT_MAX: u64 = 1 << 20;

/// One of our figures.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// With its unit at the end.
    pub name: &'static str,
    /// Of one round.
    pub value: f64,
    /// The peer's figure that it stands beside.
    pub peer_name: &'static str,
}

/// A figure of both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// As in [`Figure`].
    pub name: &'static str,
    /// Median over the rounds.
    pub ours: f64,
    /// Median over the rounds; none where the peer does not measure it.
    pub peer: Option<f64>,
    /// Ours through the peer's: below 1 is better where the unit is a time, above 1 where it is a rate.
    pub ratio: Option<f64>,
}

/// What all rounds gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The peer's command.
    pub peer: String,
    /// Rounds of each.
    pub rounds: u32,
    /// In our order.
    pub figures: Vec<Compared>,
}

/// Runs ours and the peer, in turns, `rounds` times each. The command goes to `sh -c`; it runs on the CPUs of this process, and is
/// waited for as long as it takes.
///
/// # Errors
/// When one of them fails, or the peer prints none of the figures.
pub fn compare(
    command: &str,
    rounds: u32,
    mut ours: impl FnMut() -> Result<Vec<Figure>>,
) -> Result<Comparison> {
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds.max(1) {
        mine.push(ours()?);
        theirs.push(run(command)?);
    }
    let compared = mine[0].iter().enumerate().map(|(at, figure)| {
        let ours = median(mine.iter().map(|round| round[at].value).collect());
        let peer = theirs
            .iter()
            .map(|round| round.get(figure.peer_name).copied());
        let peer = peer.collect::<Option<Vec<f64>>>().map(median);
        Compared {
            name: figure.name,
            ours,
            peer,
            ratio: peer.map(|peer| ours / peer),
        }
    });
    let figures: Vec<_> = compared.collect();
    let names: Vec<_> = mine[0].iter().map(|figure| figure.peer_name).collect();
    ensure!(
        figures.iter().any(|figure| figure.peer.is_some()),
        "the peer {command:?} printed none of the figures {}, one `name number` per line",
        names.join(", ")
    );
    Ok(Comparison {
        peer: command.to_owned(),
        rounds: rounds.max(1),
        figures,
    })
}

fn run(command: &str) -> Result<BTreeMap<String, f64>> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("the peer {command:?} does not start"))?;
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        // Closed at the bound: a peer that prints without end is ended by its broken pipe.
        stdout.take(OUTPUT_MAX).read_to_end(&mut output)?;
    }
    let status = child.wait()?;
    ensure!(
        (output.len() as u64) < OUTPUT_MAX,
        "the peer {command:?} printed more than {OUTPUT_MAX} bytes: that is no list of figures"
    );
    ensure!(status.success(), "the peer {command:?} failed: {status}");
    Ok(parse(&String::from_utf8_lossy(&output)))
}

fn parse(output: &str) -> BTreeMap<String, f64> {
    let figures = output.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (name, number) = (words.next()?, words.next()?);
        let number: f64 = number.parse().ok()?;
        let good = words.next().is_none() && number.is_finite() && number > 0.0;
        good.then(|| (name.to_owned(), number))
    });
    figures.collect()
}

/// Of at least one value.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(values: &mut impl Iterator<Item = f64>) -> Vec<Figure> {
        let value = values.next().unwrap();
        let figure = |name, peer_name| Figure {
            name,
            value,
            peer_name,
        };
        vec![
            figure("a_ns", "a_ns"),
            figure("b_ns", "a_ns"),
            figure("c_ns", "c_ns"),
        ]
    }

    #[test]
    fn rounds_alternate_and_medians_are_compared() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let command = format!(
            "echo peer >> {0}; echo banner of two words; echo a_ns nan; echo a_ns 10; echo a_ns $(grep -c peer {0})00; echo c_ns -1",
            log.display()
        );
        let mut values = [30.0, 50.0, 90.0].into_iter();
        let ours = || {
            let before = std::fs::read_to_string(&log).unwrap_or_default();
            std::fs::write(&log, before + "ours\n")?;
            Ok(figures(&mut values))
        };
        let comparison = compare(&command, 3, ours).unwrap();
        assert_eq!(
            std::fs::read_to_string(&log).unwrap(),
            "ours\npeer\nours\npeer\nours\npeer\n"
        );
        let with = |name| Compared {
            name,
            ours: 50.0,
            peer: Some(200.0),
            ratio: Some(0.25),
        };
        let without = Compared {
            name: "c_ns",
            ours: 50.0,
            peer: None,
            ratio: None,
        };
        assert_eq!(comparison.figures, [with("a_ns"), with("b_ns"), without]);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
    }

    #[test]
    fn a_peer_that_fails_or_says_nothing_of_use_is_named() {
        let error = |command: &str| {
            let mut values = [1.0].into_iter();
            compare(command, 1, || Ok(figures(&mut values)))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            error("exit 3"),
            "the peer \"exit 3\" failed: exit status: 3"
        );
        assert_eq!(
            error("echo d_ns 1"),
            "the peer \"echo d_ns 1\" printed none of the figures a_ns, a_ns, c_ns, one `name number` per line"
        );
        assert!(error("yes").contains("printed more than"));
    }
}
