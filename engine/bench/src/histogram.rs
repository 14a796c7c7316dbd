//! Latencies, one add per I/O: power-of-two ranges cut into 64 equal buckets, as SPDK's `spdk_histogram_data`.

use serde::Serialize;

const SUB_BITS: u32 = 6;
const SUB: usize = 1 << SUB_BITS;
const RANGES: usize = 64 - SUB_BITS as usize + 1;

/// Counts of values, at most 1.6 % off.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    sum: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            counts: vec![0; SUB * RANGES].into_boxed_slice(),
            total: 0,
            sum: 0,
        }
    }
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 99 in 100 were at most this.
    pub p99: f64,
    /// 999 in 1,000.
    pub p999: f64,
    /// 9,999 in 10,000.
    pub p9999: f64,
}

fn bucket(value: u64) -> usize {
    // Values below 64 have a bucket each; above, the six highest bits choose it, so the lower half of each range stays empty.
    let range = (u64::BITS - value.leading_zeros()).saturating_sub(SUB_BITS);
    ((range as usize) << SUB_BITS) | (value >> range) as usize
}

fn upper_bound(bucket: usize) -> u64 {
    let (range, sub) = ((bucket / SUB) as u32, (bucket % SUB) as u64);
    if range == 0 {
        sub
    } else {
        ((sub + 1) << range) - 1
    }
}

impl Histogram {
    /// Counts one value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.record_times(value, 1);
    }

    /// Counts a value that was seen so often.
    #[inline]
    pub fn record_times(&mut self, value: u64, times: u64) {
        self.counts[bucket(value)] += times;
        self.total += times;
        self.sum += value * times;
    }

    /// Adds another one's counts.
    pub fn add(&mut self, other: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.sum += other.sum;
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The value that `part` (0 to 1) of all are at most; 0 when empty.
    pub fn quantile(&self, part: f64) -> u64 {
        let wanted = (part * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_bound(bucket);
            }
        }
        0
    }

    /// The summary, with `ns_per_unit` nanoseconds to one unit of the recorded values.
    pub fn latency(&self, ns_per_unit: f64) -> Latency {
        let us = |units: f64| (units * ns_per_unit / 10.0).round() / 100.0;
        let quantile = |part| us(self.quantile(part) as f64);
        Latency {
            mean: us(self.sum as f64 / self.total.max(1) as f64),
            p50: quantile(0.5),
            p99: quantile(0.99),
            p999: quantile(0.999),
            p9999: quantile(0.9999),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_a_bucket_that_holds_it() {
        for shift in 0..63 {
            for value in [1u64 << shift, (1 << shift) + 1, (1 << shift) * 2 - 1] {
                let bound = upper_bound(bucket(value));
                assert!(
                    bound >= value && (bound - value) as f64 <= value as f64 / 31.0,
                    "{value}: {bound}"
                );
            }
        }
        assert_eq!(upper_bound(bucket(0)), 0);
        assert!(bucket(u64::MAX) < SUB * RANGES);
    }

    #[test]
    fn quantiles_of_a_known_row() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|value| histogram.record(value));
        assert_eq!(histogram.count(), 1000);
        for (part, exact) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let value = histogram.quantile(part) as f64;
            assert!((exact..exact * 1.04).contains(&value), "{part}: {value}");
        }
        assert_eq!(Histogram::default().quantile(0.5), 0);
    }
}
