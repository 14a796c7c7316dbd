//! Counters, gauges, histograms, logs and their masks.
//!
//! Two halves that share nothing but their reader, the operator:
//!
//! - **metrics**: the [`metrics`](https://docs.rs/metrics) facade in front of one global recorder. Ask for a handle once
//!   ([`counter`], [`gauge`], [`histogram`]) and keep it: using it is one relaxed atomic, asking for it takes a lock.
//!   What an xstream already counts for itself is not counted twice: a [collector](register_collector) copies it when
//!   somebody scrapes. [`render`] gives the Prometheus text, [`serve_http`] serves it on a thread of its own.
//! - **logs**: [`log::init`] sends `tracing` events, as text or JSON, through a bounded queue to a writer thread;
//!   [`log::LogControl::set_mask`] changes what is logged while the engine runs, in DAOS's mask syntax.
//!
//! Neighbours: everything above the block layer emits through here; the daemon calls the two `init` functions, the
//! HTTP server and the mask control. Source: DAOS `src/gurt/telemetry.c`, `src/gurt/dlog.c`; ours is pulled over HTTP
//! and dRPC instead of shared memory.
//!
//! Thread rule: everything here may be called from any thread. Handles may be used on a data path; making them,
//! rendering and changing masks belongs to control threads.
//!
//! Modules: `recorder` the global recorder · `fixed_histogram` histograms of fixed size · `series` the bound on
//! series · `http` the local port · `log` the log half.

mod fixed_histogram;
mod http;
pub mod log;
mod recorder;
mod series;

pub use ::metrics::{Counter, Gauge, Histogram};
pub use http::{HttpError, MetricsServer, serve_http};
pub use recorder::{
    Collector, Kind, counter, describe, gauge, histogram, install, register_collector, render,
};
pub use series::{MAX_LABELS, MAX_SERIES, MAX_SERIES_PER_NAME, MAX_TEXT};
