//! What does a read of per-xstream storage cost: by a typed key of the engine, and as a module does it over the ABI?

use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::Arc;

use anyhow::Result;
use engine_tls::{KeyRegistry, RawKey, Slots, Tags, XsInfo, current_storage, enter};
use serde::Serialize;
use spdk_env::Clock;

/// Reads between two looks at the clock.
const BATCH: u64 = 100_000;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Nanoseconds of the measuring loop alone, already taken off the two below.
    pub loop_ns: f64,
    /// Nanoseconds per read with a typed key and the xstream's slots at hand.
    pub typed_ns: f64,
    /// Nanoseconds per look-up of the current storage and load of one of its slots, as a module does it.
    pub module_ns: f64,
    /// Reads of each kind.
    pub reads: u64,
}

/// Runs both measurements, `seconds` each, on the calling thread.
pub fn run(seconds: f64) -> Result<Report> {
    let registry = KeyRegistry::new();
    let key = registry.register_typed("bench", Tags::SERVER, |_| Some(42u64))?;
    // A module's key is a pointer that only the module follows: any address will do.
    let raw = registry.register(RawKey {
        name: "bench_module".to_owned(),
        tags: Tags::SERVER,
        init: Arc::new(|_| Some(NonNull::dangling())),
        fini: Arc::new(|_, _| ()),
    })?;
    let slots = Slots::build(
        &registry,
        XsInfo {
            tags: Tags::SERVER,
            xs_id: 0,
            tgt_id: 0,
        },
    )?;
    let ns = (seconds * 1e9) as u64;
    let mut reads = 0;
    let loop_ns = time(ns / 2, &mut 0, || u64::from(*black_box(&42u64) == 42));
    let typed_ns = time(ns, &mut reads, || {
        u64::from(
            black_box(key)
                .get(black_box(&slots))
                .is_some_and(|value| *value == 42),
        )
    });
    let entered = enter(&slots);
    let mut module_reads = 0;
    let module_ns = time(ns, &mut module_reads, || {
        let here = black_box(current_storage()) == slots.as_ptr();
        u64::from(here && !slots.get(black_box(raw)).is_null())
    });
    drop(entered);
    drop(slots.destroy());
    Ok(Report {
        loop_ns,
        typed_ns: typed_ns - loop_ns,
        module_ns: module_ns - loop_ns,
        reads: reads + module_reads,
    })
}

fn time(ns: u64, reads: &mut u64, mut read: impl FnMut() -> u64) -> f64 {
    let clock = Clock::tsc();
    let start = clock.now();
    let mut right = 0;
    while clock.now() - start < ns {
        for _ in 0..BATCH {
            right += read();
        }
        *reads += BATCH;
    }
    assert_eq!(right, *reads, "every read gives the value");
    (clock.now() - start) as f64 / *reads as f64
}

#[cfg(test)]
mod tests {
    #[test]
    fn values_are_read() {
        assert!(super::run(0.005).unwrap().reads > 0);
    }
}
