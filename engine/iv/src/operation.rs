//! Operations of this rank: attempts, pauses, deadlines, ends.

use std::fmt;

use daos_errno::Der;

use crate::iv::{Iv, Output};
use crate::message::{Change, RequestId, Stamp};
use crate::options::{How, Nanos, Shortcut, is_transient};
use crate::timers::Timer;
use crate::update::Rise;
use crate::{Key, NsId, Rank};

/// Number of an operation, never used twice by a machine.
pub type OpId = u64;

/// The end of an operation; each operation has exactly one.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// Which one.
    pub op: OpId,
    /// How often it was tried.
    pub attempts: u32,
    /// An update or invalidation, not a fetch.
    pub change: bool,
    /// When its time is up.
    pub deadline: Nanos,
    /// Version and, of a fetch or a bidirectional update, the value.
    pub result: Result<Stamp, Failure>,
}

/// Why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was wrong last; TIMEDOUT if nobody said anything.
    pub der: Der,
    /// How often it was tried.
    pub attempts: u32,
    /// Whom the last attempt asked; `None`: nobody but this rank.
    pub asked: Option<Rank>,
    /// Whether its time was up: another try could have worked.
    pub expired: bool,
}

impl std::error::Error for Failure {}

impl From<Der> for Failure {
    /// Of an operation that was not tried.
    fn from(der: Der) -> Failure {
        Failure {
            der,
            attempts: 0,
            asked: None,
            expired: false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {} attempts", self.der, self.attempts)?;
        if let Some(rank) = self.asked {
            write!(f, ", the last one by way of rank {rank}")?;
        }
        f.write_str(if self.expired {
            ", deadline reached"
        } else {
            ""
        })
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Fetch {
        shortcut: Shortcut,
    },
    Change {
        change: Change,
        how: How,
        request: RequestId,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) ns: NsId,
    pub(crate) key: Key,
    pub(crate) kind: Kind,
    pub(crate) deadline: Nanos,
    pub(crate) attempts: u32,
    pub(crate) last: Option<Der>,
    pub(crate) asked: Option<Rank>,
}

impl Iv {
    /// Takes an operation in and tries it for the first time.
    pub(crate) fn begin(&mut self, now: Nanos, operation: Operation) -> OpId {
        let op = self.number();
        let full = self.operations.len() >= self.options.max_operations;
        let deadline = operation.deadline;
        self.operations.insert(op, operation);
        if full {
            self.fail(op, Der::BUSY, false);
            return op;
        }
        self.at(deadline, Timer::Deadline(op));
        self.attempt(now, op);
        op
    }

    pub(crate) fn attempt(&mut self, now: Nanos, op: OpId) {
        let Some(operation) = self.operations.get_mut(&op) else {
            return;
        };
        operation.attempts += 1;
        let (ns, key) = (operation.ns, operation.key);
        match operation.kind.clone() {
            Kind::Fetch { shortcut } => self.attempt_fetch(now, op, ns, key, shortcut),
            Kind::Change {
                change,
                how,
                request,
            } => {
                let budget = operation.deadline.saturating_sub(now);
                let rise = Rise {
                    key,
                    change,
                    how,
                    request,
                    budget,
                };
                self.attempt_change(now, op, ns, rise);
            }
        }
    }

    /// A timer of [`Timer::Again`]: unless another attempt has been made since.
    pub(crate) fn again(&mut self, now: Nanos, op: OpId, attempt: u32) {
        if self
            .operations
            .get(&op)
            .is_some_and(|operation| operation.attempts == attempt)
        {
            self.attempt(now, op);
        }
    }

    /// Nothing came of an attempt: a pause and another one, or the end.
    pub(crate) fn refused(&mut self, now: Nanos, op: OpId, der: Der) {
        let Some(operation) = self.operations.get_mut(&op) else {
            return;
        };
        operation.last = Some(der);
        if !is_transient(der) {
            self.fail(op, der, false);
            return;
        }
        let pause = self.options.pause_ns << operation.attempts.min(20);
        let when = now + pause.min(self.options.hop_ns);
        let again = Timer::Again(op, operation.attempts);
        self.at(when, again);
    }

    /// A timer of [`Timer::Deadline`].
    pub(crate) fn expire(&mut self, op: OpId) {
        if let Some(operation) = self.operations.get(&op) {
            let der = operation.last.unwrap_or(Der::TIMEDOUT);
            self.fail(op, der, true);
        }
    }

    pub(crate) fn fail(&mut self, op: OpId, der: Der, expired: bool) {
        if let Some(operation) = self.operations.remove(&op) {
            let failure = Failure {
                der,
                attempts: operation.attempts,
                asked: operation.asked,
                expired,
            };
            self.ended(op, &operation, Err(failure));
        }
    }

    pub(crate) fn succeed(&mut self, op: OpId, stamp: Stamp) {
        if let Some(operation) = self.operations.remove(&op) {
            self.ended(op, &operation, Ok(stamp));
        }
    }

    fn ended(&mut self, op: OpId, operation: &Operation, result: Result<Stamp, Failure>) {
        self.out.push_back(Output::Done(Done {
            op,
            attempts: operation.attempts,
            change: matches!(operation.kind, Kind::Change { .. }),
            deadline: operation.deadline,
            result,
        }));
    }
}
