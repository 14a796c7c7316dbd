//! The scheduler in a simulator on virtual time: a seed is a run. `SCHED_SEEDS=N` runs more of them.
#![allow(
    missing_docs,
    clippy::print_stderr,
    reason = "a test, which says which seed failed"
)]

mod fairness;
mod model;
mod properties;
mod rules;

/// Runs `f` with one seed after another; a failure names its seed.
fn seeds(default: u64, f: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let count = std::env::var("SCHED_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok());
    for seed in 0..count.unwrap_or(default) {
        if let Err(panic) = std::panic::catch_unwind(|| f(seed)) {
            eprintln!("failed with seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
