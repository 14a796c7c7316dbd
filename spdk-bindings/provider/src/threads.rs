//! [`SpdkThreads`]: an SPDK thread under each of ours.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use spdk_ring::Message;
use spdk_ring::mpsc::TrySendError;
use spdk_sys::{Address, Current, Poller, Seed, SendError, Spdk};
use spdk_thread::{
    Carried, CarriedPoller, CarriedTurn, Carrier, CarrierSeed, Outbox, Provider, Thread,
};

/// A message of ours, as it travels.
type Mail = Message<Thread>;

/// The provider of threads: given to reactors' threads in their options. Holds SPDK.
#[derive(Debug, Clone)]
pub struct SpdkThreads {
    spdk: Spdk,
}

impl SpdkThreads {
    /// Threads of this SPDK.
    #[must_use]
    pub fn new(spdk: &Spdk) -> Arc<SpdkThreads> {
        Arc::new(SpdkThreads { spdk: spdk.clone() })
    }
}

impl Provider for SpdkThreads {
    fn carry(&self, name: &str, mailbox: usize) -> Result<Carried, String> {
        let (address, seed) = spdk_sys::Thread::<Mail>::create(&self.spdk, name, mailbox)
            .map_err(|error| error.to_string())?;
        Ok(Carried {
            outbox: Arc::new(Post(address)),
            seed: Box::new(SpdkSeed(seed)),
        })
    }
}

struct Post(Address<Mail>);

impl Outbox for Post {
    #[inline]
    fn try_send(&self, message: Mail) -> Result<(), TrySendError<Mail>> {
        self.0.send(message).map_err(|refused| match refused {
            SendError::Full(message) => TrySendError::Full(message),
            SendError::Gone(message) => TrySendError::Closed(message),
        })
    }

    fn is_closed(&self) -> bool {
        self.0.is_gone()
    }
}

struct SpdkSeed(Seed<Mail>);

impl CarrierSeed for SpdkSeed {
    fn start(self: Box<Self>) -> Box<dyn Carrier> {
        Box::new(SpdkCarrier {
            thread: self.0.start(),
            current: RefCell::new(None),
        })
    }
}

/// SPDK's thread under one of ours; devices find it by [`Thread::carrier`].
pub(crate) struct SpdkCarrier {
    pub(crate) thread: spdk_sys::Thread<Mail>,
    current: RefCell<Option<Current>>,
}

impl Carrier for SpdkCarrier {
    fn wake_fd(&self) -> Option<OwnedFd> {
        self.thread.interrupt_fd()
    }

    fn turn(&self, run: &mut dyn FnMut(Mail)) -> CarriedTurn {
        let handed = Cell::new(0);
        let turned = catch_unwind(AssertUnwindSafe(|| {
            self.thread.poll(0, |message| {
                handed.set(handed.get() + 1);
                run(message);
            })
        }));
        // Messages and pollers of ours contain their panics themselves.
        let busy = match turned {
            Ok(turned) => turned.busy,
            Err(_) => {
                tracing::error!("a callback of SPDK's panicked");
                true
            }
        };
        CarriedTurn {
            messages: handed.get(),
            busy,
        }
    }

    fn set_current(&self, current: bool) {
        let mut now = self.current.borrow_mut();
        match current {
            true if now.is_none() => *now = Some(self.thread.enter()),
            true => {}
            false => *now = None,
        }
    }

    fn waiting(&self) -> usize {
        self.thread.waiting()
    }

    fn settle(&self) -> bool {
        self.thread.settle()
    }

    fn close(&self) {
        self.thread.close();
    }

    fn register(
        &self,
        name: &str,
        period_ns: u64,
        call: Box<dyn FnMut() -> bool>,
    ) -> Box<dyn CarriedPoller> {
        // SPDK counts microseconds; a period of nanoseconds is not one of 0, which is every turn.
        let period_us = period_ns.div_ceil(1000);
        Box::new(SpdkPoller(Poller::register(
            &self.thread,
            name,
            period_us,
            call,
        )))
    }

    fn next_deadline_in(&self) -> Option<u64> {
        self.thread.next_deadline_in()
    }
}

/// `None`: the machine has no memory left for the hundred bytes of a poller, which aborts Rust programs elsewhere.
struct SpdkPoller(Option<Poller>);

impl CarriedPoller for SpdkPoller {
    fn pause(&self) {
        self.0.iter().for_each(Poller::pause);
    }

    fn resume(&self) {
        self.0.iter().for_each(Poller::resume);
    }
}
