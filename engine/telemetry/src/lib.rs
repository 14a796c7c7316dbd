//! Counters, gauges, histograms, logs and their masks.
