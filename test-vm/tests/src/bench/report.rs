//! Medians over the rounds, and ours beside the others.

use std::collections::BTreeMap;
use std::fmt::Write;

/// What is done to the SSD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Case {
    pub(super) workload: &'static str,
    pub(super) depth: u32,
}

/// What one measurement gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) iops: f64,
    pub(super) p99_us: f64,
}

/// All measurements.
#[derive(Default)]
pub(super) struct Results(BTreeMap<Case, BTreeMap<&'static str, Vec<Sample>>>);

impl Results {
    pub(super) fn add(&mut self, case: Case, contender: &'static str, sample: Sample) {
        let of_case = self.0.entry(case).or_default();
        of_case.entry(contender).or_default().push(sample);
    }

    /// A line for each case and contender: what it did, and ours through it. Above 1 is better for IOPS, below 1 for p99.
    pub(super) fn table(&self) -> String {
        let mut text = String::from(
            "4 KiB        QD  driver       IOPS   least    most     p99 us  keel/IOPS  keel/p99\n",
        );
        for (case, contenders) in &self.0 {
            let ours = contenders.get("keel").map(|samples| Medians::of(samples));
            for (name, samples) in contenders {
                let these = Medians::of(samples);
                let _ = write!(
                    text,
                    "{:<11} {:>3}  {name:<6} {:>10.0} {:>7.0} {:>7.0} {:>10.1}",
                    case.workload, case.depth, these.iops, these.least, these.most, these.p99_us
                );
                if let Some(ours) = ours.as_ref().filter(|_| *name != "keel") {
                    let (iops, p99) = (ours.iops / these.iops, ours.p99_us / these.p99_us);
                    let _ = write!(text, " {iops:>10.2} {p99:>9.2}");
                }
                text.push('\n');
            }
        }
        text
    }
}

struct Medians {
    iops: f64,
    least: f64,
    most: f64,
    p99_us: f64,
}

impl Medians {
    /// Of at least one sample.
    fn of(samples: &[Sample]) -> Medians {
        let sorted = |pick: fn(&Sample) -> f64| {
            let mut values: Vec<f64> = samples.iter().map(pick).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let (iops, p99) = (sorted(|sample| sample.iops), sorted(|sample| sample.p99_us));
        Medians {
            iops: iops[iops.len() / 2],
            least: iops[0],
            most: iops[iops.len() - 1],
            p99_us: p99[p99.len() / 2],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_compared_and_not_means() {
        let mut results = Results::default();
        let case = Case {
            workload: "randread",
            depth: 32,
        };
        for (ours, spdk) in [(30.0, 10.0), (1.0, 20.0), (40.0, 90.0)] {
            let sample = |iops| Sample { iops, p99_us: iops };
            results.add(case, "keel", sample(ours));
            results.add(case, "spdk", sample(spdk));
        }
        let table = results.table();
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[1],
            ["randread", "32", "keel", "30", "1", "40", "30.0"]
        );
        let spdk = [
            "randread", "32", "spdk", "20", "10", "90", "20.0", "1.50", "1.50",
        ];
        assert_eq!(lines[2], spdk);
    }
}
