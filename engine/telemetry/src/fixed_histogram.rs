//! Histograms of fixed size.
//!
//! The Prometheus exporter's own histograms collect every sample on the heap until somebody scrapes. Ours have their
//! buckets from the start: recording is a short search and two atomics, memory never grows.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{HistogramFn, Key};

/// Buckets of seconds: 1 us, doubled 26 times, to 67 s.
const SECONDS: Bounds = Bounds {
    first: 1e-6,
    factor: 2.0,
    count: 27,
};
/// Buckets of bytes: 512 B, times four, to 8 GiB.
const BYTES: Bounds = Bounds {
    first: 512.0,
    factor: 4.0,
    count: 13,
};
/// Buckets of anything else: 1, doubled 20 times.
const COUNTS: Bounds = Bounds {
    first: 1.0,
    factor: 2.0,
    count: 21,
};

struct Bounds {
    first: f64,
    factor: f64,
    count: usize,
}

/// One histogram series. The unit, and with it the buckets, follow the name's suffix as Prometheus asks:
/// `_seconds`, `_bytes`, anything else counts.
pub(crate) struct FixedHistogram {
    bounds: Vec<f64>,
    /// One more than bounds: the last is "above all".
    buckets: Vec<AtomicU64>,
    /// Bits of an f64.
    sum: AtomicU64,
}

impl FixedHistogram {
    pub(crate) fn for_name(name: &str) -> FixedHistogram {
        let shape = match name {
            n if n.ends_with("_seconds") => SECONDS,
            n if n.ends_with("_bytes") => BYTES,
            _ => COUNTS,
        };
        let bounds: Vec<f64> =
            std::iter::successors(Some(shape.first), |last| Some(last * shape.factor))
                .take(shape.count)
                .collect();
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        FixedHistogram {
            bounds,
            buckets,
            sum: AtomicU64::new(0f64.to_bits()),
        }
    }

    /// Appends the Prometheus lines of this series.
    pub(crate) fn render(&self, key: &Key, out: &mut String) {
        let name = sanitize(key.name());
        let labels = render_labels(key);
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        for (bucket, bound) in self
            .buckets
            .iter()
            .zip(self.bounds.iter().map(Some).chain([None]))
        {
            below += bucket.load(Ordering::Relaxed);
            let le = bound.map_or_else(|| "+Inf".to_owned(), f64::to_string);
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{le}\"}} {below}");
        }
        let braces = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{labels}}}")
        };
        let _ = writeln!(
            out,
            "{name}_sum{braces} {}",
            f64::from_bits(self.sum.load(Ordering::Relaxed))
        );
        let _ = writeln!(out, "{name}_count{braces} {below}");
    }
}

impl HistogramFn for FixedHistogram {
    fn record(&self, value: f64) {
        self.record_many(value, 1);
    }

    fn record_many(&self, value: f64, count: usize) {
        if !value.is_finite() {
            return; // an infinity would poison the sum for ever
        }
        let index = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[index].fetch_add(count as u64, Ordering::Relaxed);
        let add = value * count as f64;
        // Never fails for good: the closure always returns a value.
        let _ = self
            .sum
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
                Some((f64::from_bits(bits) + add).to_bits())
            });
    }
}

/// A name as Prometheus accepts it: `[a-zA-Z_:][a-zA-Z0-9_:]*`.
pub(crate) fn sanitize(name: &str) -> String {
    let ok = |(at, c): (usize, char)| {
        let fits =
            c.is_ascii_alphabetic() || c == '_' || c == ':' || (at > 0 && c.is_ascii_digit());
        if fits { c } else { '_' }
    };
    name.chars().enumerate().map(ok).collect()
}

fn render_labels(key: &Key) -> String {
    let escape = |text: &str| {
        text.replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n")
    };
    let pairs: Vec<String> = key
        .labels()
        .map(|label| format!("{}=\"{}\"", sanitize(label.key()), escape(label.value())))
        .collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use metrics::Label;

    use super::*;

    #[test]
    fn samples_fall_into_cumulative_buckets() {
        let histogram = FixedHistogram::for_name("keel_depth");
        for value in [1.0, 2.0, 3.0, 5e9] {
            histogram.record(value);
        }
        histogram.record(f64::NAN);
        let mut text = String::new();
        histogram.render(
            &Key::from_parts("keel_depth", vec![Label::new("xs", "a\"b\\c\nd")]),
            &mut text,
        );
        let labels = r#"xs="a\"b\\c\nd""#;
        assert!(
            text.contains(&format!("keel_depth_bucket{{{labels},le=\"1\"}} 1\n")),
            "{text}"
        );
        assert!(
            text.contains(&format!("keel_depth_bucket{{{labels},le=\"2\"}} 2\n")),
            "{text}"
        );
        assert!(
            text.contains(&format!("keel_depth_bucket{{{labels},le=\"4\"}} 3\n")),
            "{text}"
        );
        assert!(
            text.contains(&format!("keel_depth_bucket{{{labels},le=\"+Inf\"}} 4\n")),
            "{text}"
        );
        assert!(
            text.contains(&format!("keel_depth_sum{{{labels}}} 5000000006\n")),
            "{text}"
        );
        assert!(
            text.contains(&format!("keel_depth_count{{{labels}}} 4\n")),
            "{text}"
        );
    }

    #[test]
    fn the_suffix_chooses_the_unit() {
        let last = |name: &str| *FixedHistogram::for_name(name).bounds.last().unwrap();
        assert!((last("keel_x_seconds") - 67.108_864).abs() < 1e-9);
        assert!((last("keel_x_bytes") - 8_589_934_592.0).abs() < 1.0);
        assert!((last("keel_x") - 1_048_576.0).abs() < f64::EPSILON);
    }

    #[test]
    fn names_are_made_legal() {
        assert_eq!(sanitize("9io/ops.x"), "_io_ops_x");
    }
}
