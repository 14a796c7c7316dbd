//! Asynchronous events, SMART counters and the error log.

use std::collections::{BTreeSet, VecDeque};

use nvme_spec::feature::AsyncEvent;
use nvme_spec::log::{ErrorLogEntry, SmartLog};

/// Asynchronous event requests that the controller holds at once (AERL + 1).
pub(crate) const MAX_REQUESTS: usize = 4;
/// Entries of the error log (ELPE + 1).
pub(crate) const ERROR_ENTRIES: usize = 16;

/// What the controller knows about itself.
pub(crate) struct Events {
    /// Commands that wait for an event.
    pub(crate) requests: VecDeque<u16>,
    waiting: VecDeque<AsyncEvent>,
    /// Types reported and not cleared by reading their log page.
    masked: BTreeSet<u8>,
    /// What the host asked to hear of.
    pub(crate) configuration: u32,
    pub(crate) changed_namespaces: BTreeSet<u32>,
    pub(crate) smart: SmartLog,
    errors: VecDeque<ErrorLogEntry>,
}

impl Events {
    pub(crate) fn new() -> Events {
        Events {
            requests: VecDeque::new(),
            waiting: VecDeque::new(),
            masked: BTreeSet::new(),
            configuration: 0,
            changed_namespaces: BTreeSet::new(),
            smart: SmartLog {
                temperature: 310,
                available_spare: 100,
                spare_threshold: 10,
                power_cycles: 1,
                ..SmartLog::default()
            },
            errors: VecDeque::new(),
        }
    }

    /// A controller reset: requests are gone, and nothing is masked.
    pub(crate) fn reset(&mut self) {
        self.requests.clear();
        self.masked.clear();
        self.waiting.clear();
        self.configuration = 0;
    }

    pub(crate) fn raise(&mut self, event: AsyncEvent) {
        let wanted = match event.kind {
            1 => self.configuration & 0x1f != 0,
            2 => self.configuration & (1 << (8 + event.info)) != 0,
            _ => true,
        };
        if wanted && !self.waiting.contains(&event) {
            self.waiting.push_back(event);
        }
    }

    /// An event for a request that waits: the command and the event.
    pub(crate) fn next(&mut self) -> Option<(u16, AsyncEvent)> {
        let at = (self.waiting.iter()).position(|event| !self.masked.contains(&event.kind))?;
        let cid = self.requests.pop_front()?;
        let event = self.waiting.remove(at)?;
        self.masked.insert(event.kind);
        Some((cid, event))
    }

    /// A log page was read without "retain".
    pub(crate) fn clear_log(&mut self, log: u8) {
        let kind = match log {
            nvme_spec::log::ERRORS => 0,
            nvme_spec::log::SMART => 1,
            _ => 2,
        };
        self.masked.remove(&kind);
    }

    pub(crate) fn failed(&mut self, mut entry: ErrorLogEntry) {
        self.smart.error_log_entries += 1;
        entry.count = self.smart.error_log_entries as u64;
        self.errors.push_front(entry);
        self.errors.truncate(ERROR_ENTRIES);
    }

    pub(crate) fn error_log(&self) -> Vec<u8> {
        let mut page: Vec<u8> = self
            .errors
            .iter()
            .flat_map(ErrorLogEntry::to_bytes)
            .collect();
        page.resize(ERROR_ENTRIES * nvme_spec::log::ERROR_ENTRY_BYTES, 0);
        page
    }
}
