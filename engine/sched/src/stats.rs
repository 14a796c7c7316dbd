//! What the scheduler counts.

use crate::attr::{CLASSES, Class};

/// Of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClassStats {
    /// Requests that wait now.
    pub queued: u32,
    /// Requests kicked, those run without waiting included.
    pub kicked: u64,
    /// Of these, for their deadline or because they must not wait.
    pub urgent: u64,
    /// Refused.
    pub rejected: u64,
    /// Came back after a refusal.
    pub resent: u64,
}

/// Totals and the present state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SchedStats {
    /// By class.
    pub classes: [ClassStats; CLASSES],
    /// Cycles with something queued.
    pub cycles: u64,
    /// Weights of kicked requests that are not finished.
    pub in_service: u32,
    /// Pools with a record.
    pub pools: u32,
    /// Bytes of queues and records.
    pub bytes: usize,
}

impl SchedStats {
    /// Of a class.
    #[must_use]
    pub fn class(&self, class: Class) -> &ClassStats {
        &self.classes[class.at()]
    }

    /// Requests that wait, of all classes.
    #[must_use]
    pub fn queued(&self) -> u32 {
        self.classes.iter().map(|class| class.queued).sum()
    }
}
