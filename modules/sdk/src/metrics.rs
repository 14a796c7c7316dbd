//! Metrics, shown as `keel_<module>_<name>{target="<t>"}`.
//!
//! Invariants: E1 to E3 of `engine.rs`. A registered metric lives as long as the process and may be recorded from any
//! thread.
#![allow(unsafe_code, reason = "holds the engine's metrics")]

use crate::engine;
use crate::task::c_name;
use module_abi::{DSS_METRIC_COUNTER, DSS_METRIC_GAUGE, DSS_METRIC_HISTOGRAM, dss_metric};
use std::ptr::NonNull;

#[derive(Debug, Clone, Copy)]
struct Metric(Option<NonNull<dss_metric>>);

// SAFETY: the engine's metrics may be recorded from any thread, and live as long as the process.
unsafe impl Send for Metric {}
// SAFETY: likewise.
unsafe impl Sync for Metric {}

impl Metric {
    fn register(kind: i32, name: &str, help: &str, target: Option<u32>) -> Metric {
        let Some(host) = engine::try_host() else {
            return Metric(None);
        };
        let target = target.and_then(|t| i32::try_from(t).ok()).unwrap_or(-1);
        let (name_c, help) = (c_name(name), c_name(help));
        // SAFETY: E1, E2; both texts are borrowed for the call.
        let raw = unsafe {
            (host.metric_register)(
                engine::module(),
                kind,
                name_c.as_ptr(),
                help.as_ptr(),
                target,
            )
        };
        if raw.is_null() {
            crate::warn!(
                "metric {name:?} is not recorded: its name is not [a-z0-9_]+, or there are too many"
            );
        }
        Metric(NonNull::new(raw))
    }

    fn record(self, value: f64) {
        if let (Some(raw), Some(host)) = (self.0, engine::try_host()) {
            // SAFETY: registered; lives as long as the process.
            unsafe { (host.metric_record)(raw.as_ptr(), value) }
        }
    }
}

/// Only grows. Any thread.
#[derive(Debug, Clone, Copy)]
pub struct Counter(Metric);

impl Counter {
    /// Registers it, once per name and target; `name` is `[a-z0-9_]+`. A refused one is logged and records nothing.
    pub fn register(name: &str, help: &str, target: Option<u32>) -> Counter {
        Counter(Metric::register(DSS_METRIC_COUNTER, name, help, target))
    }

    /// Adds.
    pub fn add(&self, n: u64) {
        self.0.record(n as f64);
    }
}

/// Goes up and down. Any thread.
#[derive(Debug, Clone, Copy)]
pub struct Gauge(Metric);

impl Gauge {
    /// As [`Counter::register`].
    pub fn register(name: &str, help: &str, target: Option<u32>) -> Gauge {
        Gauge(Metric::register(DSS_METRIC_GAUGE, name, help, target))
    }

    /// Sets.
    pub fn set(&self, value: f64) {
        self.0.record(value);
    }
}

/// A distribution of values. Any thread.
#[derive(Debug, Clone, Copy)]
pub struct Histogram(Metric);

impl Histogram {
    /// As [`Counter::register`].
    pub fn register(name: &str, help: &str, target: Option<u32>) -> Histogram {
        Histogram(Metric::register(DSS_METRIC_HISTOGRAM, name, help, target))
    }

    /// Records one value.
    pub fn record(&self, value: f64) {
        self.0.record(value);
    }
}
