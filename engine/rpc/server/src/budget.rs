//! Memory for request bodies on one xstream: a bound on what is held, and a few buffers kept for reuse.

use std::cell::{Cell, RefCell};

/// Bodies kept for reuse, and the capacity up to which one is worth keeping.
const KEPT: usize = 256;
const KEPT_CAPACITY: usize = 64 << 10;

/// One xstream's.
#[derive(Debug)]
pub(crate) struct Budget {
    requests: Cell<usize>,
    bytes: Cell<usize>,
    max_requests: usize,
    max_bytes: usize,
    free: RefCell<Vec<Vec<u8>>>,
}

impl Budget {
    pub(crate) fn new(max_requests: usize, max_bytes: usize) -> Budget {
        Budget {
            requests: Cell::new(0),
            bytes: Cell::new(0),
            max_requests,
            // One body always fits, or the largest could never be received.
            max_bytes: max_bytes.max(rpc_wire::MAX_BODY),
            free: RefCell::new(Vec::with_capacity(KEPT)),
        }
    }

    /// Counts a request with a body of `len` bytes and gives memory for it; `None` at a bound.
    pub(crate) fn charge(&self, len: u32) -> Option<Vec<u8>> {
        let bytes = self.bytes.get() + len as usize;
        if self.requests.get() >= self.max_requests || bytes > self.max_bytes {
            return None;
        }
        self.requests.set(self.requests.get() + 1);
        self.bytes.set(bytes);
        Some(self.free.borrow_mut().pop().unwrap_or_default())
    }

    /// The request of [`Budget::charge`] has its answer or is gone.
    pub(crate) fn release(&self, len: u32) {
        self.requests.set(self.requests.get() - 1);
        self.bytes.set(self.bytes.get() - len as usize);
    }

    /// Takes back a body's memory.
    pub(crate) fn recycle(&self, body: Vec<u8>) {
        let mut free = self.free.borrow_mut();
        if free.len() < KEPT && (1..=KEPT_CAPACITY).contains(&body.capacity()) {
            free.push(body);
        }
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_memory_comes_back() {
        let budget = Budget::new(3, 2 << 20);
        assert!(budget.charge(1 << 20).is_some());
        assert!(budget.charge(1 << 20).is_some());
        assert!(budget.charge(1).is_none(), "bytes");
        let mut body = budget.charge(0).unwrap();
        assert!(budget.charge(0).is_none(), "requests");
        budget.release(1 << 20);
        body.reserve(100);
        let capacity = body.capacity();
        budget.recycle(body);
        assert_eq!(budget.charge(5).unwrap().capacity(), capacity);
        assert_eq!(budget.requests(), 3);
    }
}
