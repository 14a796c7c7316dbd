//! The reactor's epoll: its doorbell, and the descriptors that its threads watch.

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;
use spdk_env::Notifier;
use spdk_thread::{FdChange, Interest, Thread};
use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};

/// The doorbell's event.
const DOORBELL: u64 = u64::MAX;
/// Events taken per wait; more come with the next.
const BATCH: usize = 64;

pub(crate) struct Epoll {
    fd: OwnedFd,
    /// (thread's key, watch) -> what is registered.
    registered: HashMap<(u32, u32), Interest>,
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Its time was over.
    Timeout,
    /// The doorbell, perhaps beside other events.
    Doorbell,
    /// Watched descriptors.
    Events,
    /// A signal.
    Early,
}

/// One event for a thread.
pub(crate) struct Ready {
    pub(crate) thread: u32,
    pub(crate) watch: u32,
    pub(crate) ready: Interest,
}

impl Epoll {
    pub(crate) fn new(doorbell: &Notifier) -> std::io::Result<Epoll> {
        let fd = epoll::create(CreateFlags::CLOEXEC)?;
        // Edge-triggered: each ring is one event, and nobody has to read the counter.
        epoll::add(
            &fd,
            doorbell,
            EventData::new_u64(DOORBELL),
            EventFlags::IN | EventFlags::ET,
        )?;
        Ok(Epoll {
            fd,
            registered: HashMap::new(),
        })
    }

    /// Whether any descriptor is watched.
    pub(crate) fn has_watches(&self) -> bool {
        !self.registered.is_empty()
    }

    /// Waits for at most `timeout` nanoseconds (none: for ever) and gives the threads' events to `each`.
    pub(crate) fn wait(&self, timeout: Option<u64>, mut each: impl FnMut(Ready)) -> Woken {
        let timeout = timeout.map(|ns| Timespec {
            tv_sec: (ns / 1_000_000_000) as i64,
            tv_nsec: (ns % 1_000_000_000) as i64,
        });
        let mut events = [MaybeUninit::<Event>::uninit(); BATCH];
        // An interrupted wait is a short one; any other failure of a valid epoll does not exist.
        let Ok((events, _)) = epoll::wait(&self.fd, &mut events, timeout.as_ref()) else {
            return Woken::Early;
        };
        let mut woken = if events.is_empty() {
            Woken::Timeout
        } else {
            Woken::Events
        };
        for event in events {
            let data = event.data.u64();
            if data == DOORBELL {
                woken = Woken::Doorbell;
                continue;
            }
            let flags = event.flags;
            let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
            let ready = Interest {
                readable: broken || flags.intersects(EventFlags::IN | EventFlags::RDHUP),
                writable: broken || flags.contains(EventFlags::OUT),
            };
            each(Ready {
                thread: (data >> 32) as u32,
                watch: data as u32,
                ready,
            });
        }
        woken
    }

    /// Makes the registration what `change` says.
    pub(crate) fn apply(&mut self, key: u32, thread: &Thread, change: &FdChange) {
        let place = (key, change.id);
        let wanted = (!change.closed && !change.interest.is_none()).then_some(change.interest);
        let data = EventData::new_u64(u64::from(key) << 32 | u64::from(change.id));
        let result = match (self.registered.get(&place).copied(), wanted) {
            (None, None) => Ok(()),
            (Some(before), Some(wanted)) if before == wanted => Ok(()),
            (None, Some(wanted)) => epoll::add(&self.fd, &change.fd, data, flags(wanted)),
            (Some(_), Some(wanted)) => epoll::modify(&self.fd, &change.fd, data, flags(wanted)),
            (Some(_), None) => {
                // A descriptor that is gone has left epoll by itself.
                let _ = epoll::delete(&self.fd, &change.fd);
                Ok(())
            }
        };
        match (result, wanted) {
            (Ok(()), Some(wanted)) => {
                self.registered.insert(place, wanted);
            }
            (Ok(()), None) => {
                self.registered.remove(&place);
            }
            (Err(errno), _) => {
                self.registered.remove(&place);
                // Regular files are always ready (EPERM); anything else the user shall find by reading or writing.
                if errno != Errno::PERM {
                    tracing::error!(thread = thread.name(), fd = change.fd.as_raw_fd(), error = %errno,
                        "cannot watch a descriptor (a second watch of it on this reactor?): reported as ready");
                }
                thread.fd_ready(change.id, change.interest);
            }
        }
    }
}

fn flags(interest: Interest) -> EventFlags {
    let mut flags = EventFlags::empty();
    if interest.readable {
        flags |= EventFlags::IN | EventFlags::RDHUP;
    }
    if interest.writable {
        flags |= EventFlags::OUT;
    }
    flags
}
