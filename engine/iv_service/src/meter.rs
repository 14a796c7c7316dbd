//! Counters of a rank's operations, by class, and of other ranks' questions.

use std::cell::RefCell;
use std::collections::BTreeMap;

use engine_telemetry::counter;
use metrics::Counter;

use crate::incast::Incast;
use crate::wire::Kind;

struct OfClass {
    fetches: Counter,
    changes: Counter,
    failures: Counter,
    attempts: Counter,
    retries: Counter,
}

/// System xstream only.
pub(crate) struct Meter {
    names: Incast,
    classes: RefCell<BTreeMap<u32, OfClass>>,
    questions: [Counter; 3],
}

impl Meter {
    pub(crate) fn new(names: Incast) -> Meter {
        let question = |kind| counter("keel_iv_questions_total", &[("kind", kind)]);
        Meter {
            names,
            classes: RefCell::default(),
            questions: [question("fetch"), question("update"), question("sync")],
        }
    }

    /// An operation of this engine has ended.
    pub(crate) fn ended(&self, class: u32, fetch: bool, attempts: u32, succeeded: bool) {
        let mut classes = self.classes.borrow_mut();
        // Ids of classes come from this engine's modules; an operation on an unknown one is counted under its number.
        let of = classes.entry(class).or_insert_with(|| {
            let name = self.names.class_name(class);
            let labels = [("class", name.as_str())];
            OfClass {
                fetches: counter("keel_iv_fetches_total", &labels),
                changes: counter("keel_iv_changes_total", &labels),
                failures: counter("keel_iv_failures_total", &labels),
                attempts: counter("keel_iv_failed_attempts_total", &labels),
                retries: counter("keel_iv_retries_total", &labels),
            }
        });
        let which = if fetch { &of.fetches } else { &of.changes };
        which.increment(1);
        of.retries.increment(attempts.saturating_sub(1).into());
        if !succeeded {
            of.failures.increment(1);
            of.attempts.increment(attempts.into());
        }
    }

    /// A question of another rank.
    pub(crate) fn question(&self, kind: Kind) {
        self.questions[kind as usize].increment(1);
    }
}
