//! The start-up as a row of named phases, timed one by one.

use std::time::Instant;

use drpc_wire::keel::Phase;

/// Times each phase and logs it.
pub(crate) struct Phases {
    started: Instant,
    done: Vec<Phase>,
}

impl Phases {
    pub(crate) fn new() -> Phases {
        Phases {
            started: Instant::now(),
            done: Vec::new(),
        }
    }

    /// Runs one phase.
    pub(crate) fn run<T>(&mut self, name: &str, phase: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = phase();
        let micros = begun.elapsed().as_micros() as u64;
        tracing::debug!(phase = name, micros, "start-up phase done");
        self.done.push(Phase {
            name: name.to_owned(),
            micros,
        });
        result
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn into_list(self) -> Vec<Phase> {
        self.done
    }
}
