//! Metrics of modules.
//!
//! Invariants: H1 and H4 of `guard.rs`.
#![allow(unsafe_code, reason = "functions that modules call")]

use crate::guard::{entry, module};
use crate::modules::ModuleEntry;
use crate::names::{c_text, kept};
use engine_telemetry::{Kind, counter, describe, gauge, histogram};
use metrics::{Counter, Gauge, Histogram};
use module_abi::{
    DSS_METRIC_COUNTER, DSS_METRIC_GAUGE, DSS_METRIC_HISTOGRAM, dss_metric, dss_module,
};
use std::ffi::c_char;
use std::ptr::{null_mut, without_provenance_mut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{OnceLock, PoisonError};

/// Metrics of one module.
const METRICS_PER_MODULE: usize = 256;
/// Metrics of all modules.
const METRICS_MAX: usize = 64 * METRICS_PER_MODULE;

/// By handle - 1. A metric lives as long as the process, so recording needs no lock and no count.
static METRICS: [OnceLock<Metric>; METRICS_MAX] = [const { OnceLock::new() }; METRICS_MAX];
static NEXT: AtomicUsize = AtomicUsize::new(0);

enum Metric {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

pub(crate) unsafe extern "C" fn register(
    this: *const dss_module,
    kind: i32,
    name: *const c_char,
    help: *const c_char,
    tgt_id: i32,
) -> *mut dss_metric {
    entry("metric_register", null_mut(), || {
        let Ok(module) = module("metric_register", this) else {
            return null_mut();
        };
        // SAFETY: H1.
        let (name, help) = unsafe { (c_text(name), c_text(help)) };
        let number = registered(
            module,
            kind,
            name.to_bytes(),
            &help.to_string_lossy(),
            tgt_id,
        );
        number.map_or(null_mut(), without_provenance_mut)
    })
}

/// The handle: a number from 1.
fn registered(
    module: &ModuleEntry,
    kind: i32,
    name: &[u8],
    help: &str,
    tgt_id: i32,
) -> Option<usize> {
    let allowed = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'_';
    if name.is_empty() || name.len() > 128 || !name.iter().all(allowed) {
        return None;
    }
    let full = format!("keel_{}_{}", module.name, String::from_utf8_lossy(name));
    let tgt_id = tgt_id.max(-1);
    let mut known = module
        .metrics
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some((_, _, number)) = known.iter().find(|(n, t, _)| *n == full && *t == tgt_id) {
        return Some(*number);
    }
    if known.len() >= METRICS_PER_MODULE {
        return None;
    }
    let metric = made(kind, kept(full.clone())?, kept(help.to_owned())?, tgt_id)?;
    let place = NEXT
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, |next| {
            (next < METRICS_MAX).then_some(next + 1)
        })
        .ok()?;
    METRICS[place].set(metric).ok()?;
    known.push((full, tgt_id, place + 1));
    Some(place + 1)
}

fn made(kind: i32, name: &'static str, help: &'static str, tgt_id: i32) -> Option<Metric> {
    let target = tgt_id.to_string();
    let labels: &[(&'static str, &str)] = if tgt_id < 0 {
        &[]
    } else {
        &[("target", &target)]
    };
    let (shown, metric) = match kind {
        DSS_METRIC_COUNTER => (Kind::Counter, Metric::Counter(counter(name, labels))),
        DSS_METRIC_GAUGE => (Kind::Gauge, Metric::Gauge(gauge(name, labels))),
        DSS_METRIC_HISTOGRAM => (Kind::Histogram, Metric::Histogram(histogram(name, labels))),
        _ => return None,
    };
    describe(shown, name, help);
    Some(metric)
}

pub(crate) unsafe extern "C" fn record(metric: *mut dss_metric, value: f64) {
    entry("metric_record", (), || {
        let place = metric.addr().wrapping_sub(1);
        match METRICS.get(place).and_then(OnceLock::get) {
            // Negative and huge values saturate: a counter only grows.
            Some(Metric::Counter(counter)) => counter.increment(value as u64),
            Some(Metric::Gauge(gauge)) => gauge.set(value),
            Some(Metric::Histogram(histogram)) => histogram.record(value),
            None => tracing::error!(
                function = "metric_record",
                "called with a handle that is none"
            ),
        }
    });
}
