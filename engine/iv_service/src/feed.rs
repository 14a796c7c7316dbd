//! The system xstream tells the others: who has what, what they were told, and whether they have taken it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use engine_iv::{Key, NsId};
use engine_tls::TypedKey;
use engine_xstream::XstreamRef;
use spdk_thread::SendError;

use crate::cache::Item;
use crate::hash::QuickBuild;
use crate::incast::Local;

/// What may wait for an xstream whose mailbox is full. Beyond it is told once to drop all that it has.
const BACKLOG: usize = 1024;

/// All other xstreams of the engine. System xstream only.
pub(crate) struct Feed {
    key: TypedKey<Local>,
    system: XstreamRef,
    readers: Vec<Reader>,
    /// Which readers have a variable, as bits.
    holders: HashMap<(NsId, Key), Vec<u64>, QuickBuild>,
    /// Of the last message.
    number: u64,
}

struct Reader {
    xstream: XstreamRef,
    shared: Arc<Shared>,
    /// Of its last message.
    told: u64,
    backlog: VecDeque<(u64, Item)>,
}

/// What a reader writes and the system xstream reads.
#[derive(Default)]
struct Shared {
    /// Of the last message that it has taken.
    taken: AtomicU64,
    /// Somebody wants to hear of it.
    wanted: AtomicBool,
}

impl Feed {
    pub(crate) fn new(key: TypedKey<Local>, system: XstreamRef, others: Vec<XstreamRef>) -> Feed {
        let reader = |xstream| Reader {
            xstream,
            shared: Arc::default(),
            told: 0,
            backlog: VecDeque::new(),
        };
        Feed {
            key,
            system,
            readers: others.into_iter().map(reader).collect(),
            holders: HashMap::default(),
            number: 0,
        }
    }

    /// The number of this xstream among the readers; `None`: the system xstream.
    pub(crate) fn reader(&self, xstream: &XstreamRef) -> Option<usize> {
        let same = |reader: &Reader| reader.xstream.id() == xstream.id();
        self.readers.iter().position(same)
    }

    /// A reader asked for a variable: it gets it, and what becomes of it.
    pub(crate) fn subscribe(&mut self, reader: usize, ns: NsId, key: Key, item: Item) {
        let words = self.readers.len().div_ceil(64);
        let bits = self
            .holders
            .entry((ns, key))
            .or_insert_with(|| vec![0; words]);
        bits[reader / 64] |= 1 << (reader % 64);
        self.tell(reader, item);
    }

    /// Whether any xstream has it.
    pub(crate) fn is_held(&self, ns: NsId, key: &Key) -> bool {
        self.holders.contains_key(&(ns, *key))
    }

    /// Tells those that have the variable.
    pub(crate) fn changed(&mut self, ns: NsId, key: Key, item: &Item) {
        let Some(bits) = self.holders.get(&(ns, key)) else {
            return;
        };
        let bits = bits.clone();
        for reader in (0..self.readers.len()).filter(|at| bits[at / 64] & 1 << (at % 64) != 0) {
            self.tell(reader, item.clone());
        }
    }

    /// Nothing of a namespace may be served.
    pub(crate) fn drop_space(&mut self, ns: NsId) {
        self.holders.retain(|(of, _), _| *of != ns);
        for reader in 0..self.readers.len() {
            self.tell(reader, Item::DropSpace(ns));
        }
    }

    fn tell(&mut self, at: usize, item: Item) {
        self.number += 1;
        let number = self.number;
        let (key, system) = (self.key, self.system.clone());
        let reader = &mut self.readers[at];
        reader.told = number;
        if reader.backlog.is_empty() && reader.send(key, &system, number, &item) {
            return;
        }
        if reader.backlog.len() >= BACKLOG {
            reader.backlog.clear();
            reader.backlog.push_back((number, Item::DropAll));
        } else {
            reader.backlog.push_back((number, item));
        }
    }

    /// Sends what did not fit into mailboxes; whether something is left.
    pub(crate) fn retry(&mut self) -> bool {
        let (key, system) = (self.key, self.system.clone());
        let mut left = false;
        for reader in &mut self.readers {
            while let Some((number, item)) = reader.backlog.front().cloned() {
                if !reader.send(key, &system, number, &item) {
                    left = true;
                    break;
                }
                reader.backlog.pop_front();
            }
        }
        left
    }

    /// Whether messages wait that [`Feed::retry`] has to send.
    pub(crate) fn has_backlog(&self) -> bool {
        self.readers.iter().any(|reader| !reader.backlog.is_empty())
    }

    /// The number of the last message.
    pub(crate) fn told(&self) -> u64 {
        self.number
    }

    /// Whether all readers have taken what they were told up to `number`. If not, the system xstream hears when one goes on.
    pub(crate) fn all_taken(&self, number: u64) -> bool {
        self.readers.iter().all(|reader| reader.has_taken(number))
    }
}

impl Reader {
    /// False: its mailbox is full.
    fn send(&self, key: TypedKey<Local>, system: &XstreamRef, number: u64, item: &Item) -> bool {
        let (shared, system, item) = (Arc::clone(&self.shared), system.clone(), item.clone());
        let sent = self.xstream.send(move |xstream| {
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
                self.shared.taken.store(u64::MAX, Ordering::SeqCst);
                true
            }
        }
    }

    fn has_taken(&self, number: u64) -> bool {
        let due = number.min(self.told);
        if self.shared.taken.load(Ordering::SeqCst) >= due {
            return true;
        }
        // Wanted first, then looked at again: the reader does it the other way round, so one of the two sees the other.
        self.shared.wanted.store(true, Ordering::SeqCst);
        self.shared.taken.load(Ordering::SeqCst) >= due
    }
}
