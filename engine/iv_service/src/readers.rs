//! The caches of the other xstreams, reached over their message rings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use engine_iv::{Item, Readers};
use engine_tls::TypedKey;
use engine_xstream::XstreamRef;
use spdk_thread::SendError;

use crate::incast::Local;

/// All other xstreams of the engine. System xstream only.
pub(crate) struct Mailboxes {
    key: TypedKey<Local>,
    system: XstreamRef,
    readers: Vec<Reader>,
}

struct Reader {
    xstream: XstreamRef,
    shared: Arc<Shared>,
}

/// What a reader writes and the system xstream reads.
#[derive(Default)]
struct Shared {
    /// Of the last message that it has taken.
    taken: AtomicU64,
    /// Somebody wants to hear of it.
    wanted: AtomicBool,
}

impl Mailboxes {
    pub(crate) fn new(
        key: TypedKey<Local>,
        system: XstreamRef,
        others: Vec<XstreamRef>,
    ) -> Mailboxes {
        let reader = |xstream| Reader {
            xstream,
            shared: Arc::default(),
        };
        Mailboxes {
            key,
            system,
            readers: others.into_iter().map(reader).collect(),
        }
    }

    /// The number of this xstream among the readers; `None`: the system xstream.
    pub(crate) fn number_of(&self, xstream: &XstreamRef) -> Option<usize> {
        let same = |reader: &Reader| reader.xstream.id() == xstream.id();
        self.readers.iter().position(same)
    }
}

impl Readers for Mailboxes {
    fn count(&self) -> usize {
        self.readers.len()
    }

    fn send(&mut self, reader: usize, number: u64, item: &Item) -> bool {
        let (key, system, item) = (self.key, self.system.clone(), item.clone());
        let reader = &self.readers[reader];
        let shared = Arc::clone(&reader.shared);
        let sent = reader.xstream.send(move |xstream| {
            if let Some(local) = key.get(xstream.tls()) {
                local.cache.apply(item);
            }
            shared.taken.store(number, Ordering::SeqCst);
            if shared.wanted.swap(false, Ordering::SeqCst) {
                // A full mailbox: the service looks again by itself.
                let _ = system.send(move |xstream| {
                    if let Some(service) = key.get(xstream.tls()).and_then(Local::service) {
                        service.taken();
                    }
                });
            }
        });
        match sent {
            Ok(()) => true,
            Err(SendError::Full) => false,
            // It has ended, and reads nothing any more.
            Err(SendError::Exited) => {
                reader.shared.taken.store(u64::MAX, Ordering::SeqCst);
                true
            }
        }
    }

    fn has_taken(&mut self, reader: usize, number: u64) -> bool {
        let shared = &self.readers[reader].shared;
        if shared.taken.load(Ordering::SeqCst) >= number {
            return true;
        }
        // Wanted first, then looked at again: the reader does it the other way round, so one of the two sees the other.
        shared.wanted.store(true, Ordering::SeqCst);
        shared.taken.load(Ordering::SeqCst) >= number
    }
}
