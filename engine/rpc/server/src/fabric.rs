//! What all xstreams of one RPC service share: who owns which tag, the bounds, the bulk pools, the connection count.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::bulk::BulkPools;
use crate::home::Home;
use crate::options::Options;

/// Shared by every xstream of the service; nothing in it is written on the data path.
#[derive(Debug)]
pub(crate) struct Fabric {
    /// By tag: 0 = system, 1 + t = main of target t.
    pub by_tag: Vec<Arc<Home>>,
    pub options: Options,
    pub bulk: BulkPools,
    connections: Arc<AtomicUsize>,
}

impl Fabric {
    pub(crate) fn new(by_tag: Vec<Arc<Home>>, options: Options, bulk: BulkPools) -> Fabric {
        Fabric {
            by_tag,
            options,
            bulk,
            connections: Arc::default(),
        }
    }

    pub(crate) fn home(&self, tag: u32) -> Option<&Arc<Home>> {
        self.by_tag.get(tag as usize)
    }

    /// Targets of the engine: all tags but the system's.
    pub(crate) fn targets(&self) -> u32 {
        (self.by_tag.len() as u32).saturating_sub(1)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// A place for one more connection; `None` at `max_connections`.
    pub(crate) fn admit_connection(&self) -> Option<ConnectionPermit> {
        let max = self.options.max_connections;
        self.connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < max).then_some(n + 1)
            })
            .ok()
            .map(|_| ConnectionPermit(Arc::clone(&self.connections)))
    }
}

/// Counts as one connection until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit(Arc<AtomicUsize>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
