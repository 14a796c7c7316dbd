//! The global recorder: counters and gauges live in the Prometheus exporter, histograms in buckets of our own, and
//! collectors are asked when somebody scrapes.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, SharedString, Unit,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::fixed_histogram::{FixedHistogram, sanitize};
use crate::series::SeriesTable;

const METADATA: Metadata<'static> = Metadata::new("keel", Level::INFO, None);
const REFUSED: &str = "keel_telemetry_series_refused_total";

type CollectFn = Arc<dyn Fn() + Send + Sync>;

/// What kind of metric a description belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

struct Telemetry {
    exporter: PrometheusRecorder,
    handle: PrometheusHandle,
    series: Mutex<SeriesTable>,
    refused: AtomicU64,
    histograms: Mutex<HashMap<Key, Arc<FixedHistogram>>>,
    histogram_texts: Mutex<HashMap<String, String>>,
    collectors: Mutex<BTreeMap<u64, CollectFn>>,
    next_collector: AtomicU64,
    /// One scrape at a time: collectors need not expect themselves.
    scrape: Mutex<()>,
}

impl Telemetry {
    fn new() -> Telemetry {
        let exporter = PrometheusBuilder::new().build_recorder();
        let handle = exporter.handle();
        Telemetry {
            exporter,
            handle,
            series: Mutex::default(),
            refused: AtomicU64::new(0),
            histograms: Mutex::default(),
            histogram_texts: Mutex::default(),
            collectors: Mutex::default(),
            next_collector: AtomicU64::new(0),
            scrape: Mutex::default(),
        }
    }

    fn admit(&self, key: &Key) -> bool {
        let admitted = lock(&self.series).admit(key);
        if !admitted && self.refused.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                metric = key.name(),
                "a metric has too many series or too long labels: new series are not counted (see {REFUSED})"
            );
        }
        admitted
    }

    fn add_collector(&self, collect: CollectFn) -> u64 {
        let id = self.next_collector.fetch_add(1, Ordering::Relaxed);
        lock(&self.collectors).insert(id, collect);
        id
    }

    fn remove_collector(&self, id: u64) {
        lock(&self.collectors).remove(&id);
    }

    fn render(&self) -> String {
        let _one = lock(&self.scrape);
        let collectors: Vec<CollectFn> = lock(&self.collectors).values().cloned().collect();
        for collect in collectors {
            // A collector reads other people's state: its bug must cost its numbers, not everybody's.
            if catch_unwind(AssertUnwindSafe(|| collect())).is_err() {
                tracing::error!(
                    "a metrics collector panicked: its values are stale in this scrape"
                );
            }
        }
        let refused = self
            .exporter
            .register_counter(&Key::from_static_name(REFUSED), &METADATA);
        refused.absolute(self.refused.load(Ordering::Relaxed));
        let mut text = self.handle.render();
        self.render_histograms(&mut text);
        text
    }

    fn render_histograms(&self, text: &mut String) {
        let histograms = lock(&self.histograms);
        let mut by_name: BTreeMap<&str, Vec<(&Key, &Arc<FixedHistogram>)>> = BTreeMap::new();
        for (key, histogram) in histograms.iter() {
            by_name
                .entry(key.name())
                .or_default()
                .push((key, histogram));
        }
        let texts = lock(&self.histogram_texts);
        for (name, mut series) in by_name {
            series.sort_by_key(|(key, _)| (*key).clone());
            if let Some(help) = texts.get(name) {
                text.push_str(&format!(
                    "# HELP {} {}\n",
                    sanitize(name),
                    help.replace('\n', " ")
                ));
            }
            text.push_str(&format!("# TYPE {} histogram\n", sanitize(name)));
            for (key, histogram) in series {
                histogram.render(key, text);
            }
            text.push('\n');
        }
    }
}

impl Recorder for Telemetry {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.exporter.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.exporter.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, _unit: Option<Unit>, description: SharedString) {
        lock(&self.histogram_texts).insert(key.as_str().to_owned(), description.into_owned());
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        if self.admit(key) {
            self.exporter.register_counter(key, metadata)
        } else {
            Counter::noop()
        }
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        if self.admit(key) {
            self.exporter.register_gauge(key, metadata)
        } else {
            Gauge::noop()
        }
    }

    fn register_histogram(&self, key: &Key, _metadata: &Metadata<'_>) -> Histogram {
        if !self.admit(key) {
            return Histogram::noop();
        }
        let mut histograms = lock(&self.histograms);
        let histogram = histograms
            .entry(key.to_retained())
            .or_insert_with(|| Arc::new(FixedHistogram::for_name(key.name())));
        Histogram::from_arc(Arc::clone(histogram))
    }
}

/// The recorder as the facade holds it; all handles lead to the one [`Telemetry`].
struct Global(&'static Telemetry);

impl Recorder for Global {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.0.describe_counter(key, unit, description);
    }
    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.0.describe_gauge(key, unit, description);
    }
    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.0.describe_histogram(key, unit, description);
    }
    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.0.register_counter(key, metadata)
    }
    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.0.register_gauge(key, metadata)
    }
    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.0.register_histogram(key, metadata)
    }
}

fn telemetry() -> &'static Telemetry {
    static TELEMETRY: OnceLock<Telemetry> = OnceLock::new();
    TELEMETRY.get_or_init(Telemetry::new)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The tables hold no half-made state: a panic elsewhere must not end the metrics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes this the recorder behind the `metrics` macros of the whole process. Calling it again changes nothing.
pub fn install() {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    let ours = *INSTALLED.get_or_init(|| metrics::set_global_recorder(Global(telemetry())).is_ok());
    if !ours {
        tracing::warn!(
            "another metrics recorder was installed first: metrics made by its macros are not ours to show"
        );
    }
}

/// A counter's handle: keep it. Past a bound of [`crate::MAX_SERIES`] and its kin: a handle that counts nothing.
///
/// Names are snake case, begin with `keel_` and end with the unit and `_total`.
pub fn counter(name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
    telemetry().register_counter(&key(name, labels), &METADATA)
}

/// A gauge's handle: keep it. Bounds as for [`counter`].
pub fn gauge(name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
    telemetry().register_gauge(&key(name, labels), &METADATA)
}

/// A histogram's handle: keep it. Buckets follow the name's suffix (`_seconds`: 1 us to 67 s, `_bytes`: 512 B to
/// 8 GiB, else 1 to 2^20). Bounds as for [`counter`].
pub fn histogram(name: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
    telemetry().register_histogram(&key(name, labels), &METADATA)
}

/// Says in one sentence what a metric means; shown as `# HELP`.
pub fn describe(kind: Kind, name: &'static str, help: &'static str) {
    let (name, help) = (KeyName::from_const_str(name), SharedString::const_str(help));
    match kind {
        Kind::Counter => telemetry().describe_counter(name, None, help),
        Kind::Gauge => telemetry().describe_gauge(name, None, help),
        Kind::Histogram => telemetry().describe_histogram(name, None, help),
    }
}

/// The Prometheus text of everything, after asking every collector. Control threads only: it allocates and locks.
pub fn render() -> String {
    telemetry().render()
}

/// Calls `collect` before each scrape, on the scraping thread: the place to copy numbers that are counted elsewhere
/// into handles. Ends when the returned guard drops; a scrape under way may still call it once.
pub fn register_collector(collect: impl Fn() + Send + Sync + 'static) -> Collector {
    Collector {
        id: telemetry().add_collector(Arc::new(collect)),
    }
}

/// Keeps a collector registered; see [`register_collector`].
#[must_use = "dropping it unregisters the collector"]
#[derive(Debug)]
pub struct Collector {
    id: u64,
}

impl Drop for Collector {
    fn drop(&mut self) {
        telemetry().remove_collector(self.id);
    }
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> = labels
        .iter()
        .map(|(label, value)| Label::new(*label, (*value).to_owned()))
        .collect();
    Key::from_parts(name, labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_of_one_series_are_one_and_appear_in_the_text() {
        let telemetry = Telemetry::new();
        let key = key("keel_test_ios_total", &[("target", "3")]);
        telemetry.describe_counter("keel_test_ios_total".into(), None, "I/Os done".into());
        telemetry.register_counter(&key, &METADATA).increment(2);
        telemetry.register_counter(&key, &METADATA).increment(3);
        let text = telemetry.render();
        assert!(
            text.contains("# HELP keel_test_ios_total I/Os done"),
            "{text}"
        );
        assert!(
            text.contains("keel_test_ios_total{target=\"3\"} 5"),
            "{text}"
        );
    }

    #[test]
    fn histograms_stand_in_the_text_with_help_and_type() {
        let telemetry = Telemetry::new();
        telemetry.describe_histogram("keel_test_wait_seconds".into(), None, "how long".into());
        telemetry
            .register_histogram(&key("keel_test_wait_seconds", &[]), &METADATA)
            .record(0.5);
        let text = telemetry.render();
        assert!(text.contains(
            "# HELP keel_test_wait_seconds how long\n# TYPE keel_test_wait_seconds histogram\n"
        ));
        assert!(text.contains("keel_test_wait_seconds_count 1\n"), "{text}");
        assert!(text.contains("keel_test_wait_seconds_sum 0.5\n"), "{text}");
    }

    #[test]
    fn past_the_bound_handles_count_nothing_and_the_text_says_how_many() {
        let telemetry = Telemetry::new();
        for n in 0..crate::MAX_SERIES_PER_NAME + 5 {
            let value = n.to_string();
            telemetry
                .register_gauge(&key("keel_test_peers", &[("port", &value)]), &METADATA)
                .set(1.0);
        }
        let text = telemetry.render();
        assert_eq!(
            text.lines()
                .filter(|l| l.starts_with("keel_test_peers{"))
                .count(),
            crate::MAX_SERIES_PER_NAME
        );
        assert!(text.contains(&format!("{REFUSED} 5")), "{text}");
    }

    #[test]
    fn collectors_run_at_scrape_and_may_panic() {
        let telemetry: &'static Telemetry = Box::leak(Box::new(Telemetry::new()));
        let key = key("keel_test_collected_total", &[]);
        telemetry.add_collector(Arc::new(|| panic!("a collector's bug")));
        let good = telemetry.add_collector(Arc::new(move || {
            telemetry.register_counter(&key, &METADATA).increment(1);
        }));
        assert!(telemetry.render().contains("keel_test_collected_total 1"));
        assert!(telemetry.render().contains("keel_test_collected_total 2"));
        telemetry.remove_collector(good);
        assert!(telemetry.render().contains("keel_test_collected_total 2"));
    }

    #[test]
    fn a_dropped_guard_takes_its_collector_along() {
        let guard = register_collector(|| ());
        let id = guard.id;
        assert!(lock(&telemetry().collectors).contains_key(&id));
        drop(guard);
        assert!(!lock(&telemetry().collectors).contains_key(&id));
    }

    #[test]
    fn the_facade_leads_here() {
        install();
        install();
        metrics::counter!("keel_test_facade_total", "k" => "v").increment(7);
        assert!(render().contains("keel_test_facade_total{k=\"v\"} 7"));
    }
}
