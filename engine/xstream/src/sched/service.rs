//! Requests that have been kicked and not answered yet.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use engine_sched::Class;

use super::metrics::Histograms;

/// Answers are counted where they are given, on any thread; the scheduler takes the counts in each cycle.
pub(super) struct InService {
    answered: [AtomicU32; Class::ALL.len()],
    times: Histograms,
}

impl InService {
    pub(super) fn new(xstream: &str) -> InService {
        InService {
            answered: Default::default(),
            times: Histograms::new("keel_sched_service_seconds", xstream),
        }
    }

    /// Calls `finished` once for each answer since the last time.
    pub(super) fn take(&self, mut finished: impl FnMut(Class)) {
        for class in Class::ALL {
            let count = &self.answered[class as usize];
            if count.load(Ordering::Relaxed) != 0 {
                (0..count.swap(0, Ordering::Relaxed)).for_each(|_| finished(class));
            }
        }
    }
}

/// One request in service; its end is the request's. Any thread.
pub struct ServiceTicket {
    service: Arc<InService>,
    class: Class,
    began: u64,
}

impl ServiceTicket {
    pub(super) fn new(service: &Arc<InService>, class: Class, now: u64) -> ServiceTicket {
        ServiceTicket {
            service: Arc::clone(service),
            class,
            began: now,
        }
    }
}

impl Drop for ServiceTicket {
    fn drop(&mut self) {
        // Off any xstream nobody knows the time; the request was answered from a control thread.
        if let Some(thread) = spdk_thread::current() {
            let took = thread.now().saturating_sub(self.began);
            self.service.times.record(self.class, took);
        }
        self.service.answered[self.class as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for ServiceTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceTicket({})", self.class.name())
    }
}
