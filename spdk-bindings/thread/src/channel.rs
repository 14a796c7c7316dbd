//! I/O channels: a thread's private handle on a device, shared within the thread by reference count.

use crate::Thread;
use crate::panics;
use std::any::Any;
use std::cell::RefCell;
use std::error::Error;
use std::marker::PhantomData;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

type Create<C> = Box<dyn Fn(&Thread) -> Result<C, Box<dyn Error + Send + Sync>> + Send + Sync>;

/// A device whose channels have type `C`: an entry of the registry (SPDK: `spdk_io_device_register`). Clone it freely,
/// use it from any OS thread.
pub struct IoDevice<C> {
    shared: Arc<DeviceShared<C>>,
}

struct DeviceShared<C> {
    id: u64,
    name: Box<str>,
    create: Create<C>,
    closed: AtomicBool,
    channels: AtomicUsize,
    marker: PhantomData<fn() -> C>,
}

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The thread is exiting and takes no new channels.
    #[error("no channel of {device}: the thread is exiting")]
    Exiting {
        /// The device.
        device: String,
    },
    /// The device was closed.
    #[error("no channel of {device}: the device has been closed")]
    Closed {
        /// The device.
        device: String,
    },
    /// The device's constructor failed.
    #[error("no channel of {device}: {source}")]
    Create {
        /// The device.
        device: String,
        /// What it said.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl<C: 'static> IoDevice<C> {
    /// Registers a device. `create` makes a channel on the thread that asks for the first one; it may register pollers
    /// and watch descriptors there. A channel is destroyed by its `Drop`, on its thread.
    pub fn new<E: Into<Box<dyn Error + Send + Sync>>>(
        name: &str,
        create: impl Fn(&Thread) -> Result<C, E> + Send + Sync + 'static,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            shared: Arc::new(DeviceShared {
                id: NEXT.fetch_add(1, Ordering::Relaxed),
                name: name.into(),
                create: Box::new(move |thread| create(thread).map_err(Into::into)),
                closed: AtomicBool::new(false),
                channels: AtomicUsize::new(0),
                marker: PhantomData,
            }),
        }
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Refuses new channels from now on (SPDK: `spdk_io_device_unregister`); those that exist live on. The device can
    /// be taken apart once [`channels`](Self::channels) is 0.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
    }

    /// Channels that exist on all threads.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.shared.channels.load(Ordering::Acquire)
    }
}

impl<C> Clone for IoDevice<C> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<C> std::fmt::Debug for IoDevice<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IoDevice({:?})", self.shared.name)
    }
}

/// A channel in the thread's table: the user's value, and the device's count of it.
struct Held<C> {
    channel: C,
    device: Arc<DeviceShared<C>>,
}

impl<C> Drop for Held<C> {
    fn drop(&mut self) {
        self.device.channels.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Entry {
    device: u64,
    name: String,
    references: usize,
    held: Rc<dyn Any>,
}

#[derive(Default)]
pub(crate) struct ChannelTable {
    entries: RefCell<Vec<Entry>>,
    unreferenced: std::cell::Cell<usize>,
}

impl ChannelTable {
    pub(crate) fn get<C: 'static>(
        &self,
        thread: &Thread,
        device: &IoDevice<C>,
    ) -> Result<IoChannel<C>, ChannelError> {
        if let Some(held) = self.reference::<C>(device.shared.id) {
            return Ok(IoChannel {
                held,
                thread: thread.clone(),
            });
        }
        let name = || device.name().to_owned();
        if !thread.is_running() {
            return Err(ChannelError::Exiting { device: name() });
        }
        if device.shared.closed.load(Ordering::Acquire) {
            return Err(ChannelError::Closed { device: name() });
        }
        let channel = (device.shared.create)(thread).map_err(|source| ChannelError::Create {
            device: name(),
            source,
        })?;
        device.shared.channels.fetch_add(1, Ordering::AcqRel);
        let held = Rc::new(Held {
            channel,
            device: device.shared.clone(),
        });
        // The constructor may have asked for its own device's channel: the first one stays.
        if let Some(first) = self.reference::<C>(device.shared.id) {
            return Ok(IoChannel {
                held: first,
                thread: thread.clone(),
            });
        }
        let entry = Entry {
            device: device.shared.id,
            name: name(),
            references: 1,
            held: held.clone(),
        };
        self.entries.borrow_mut().push(entry);
        Ok(IoChannel {
            held,
            thread: thread.clone(),
        })
    }

    fn reference<C: 'static>(&self, device: u64) -> Option<Rc<Held<C>>> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.iter_mut().find(|entry| entry.device == device)?;
        let held = entry.held.clone().downcast::<Held<C>>().ok()?;
        if entry.references == 0 {
            self.unreferenced.set(self.unreferenced.get() - 1);
        }
        entry.references += 1;
        Some(held)
    }

    fn add_reference(&self, device: u64) {
        if let Some(entry) = self
            .entries
            .borrow_mut()
            .iter_mut()
            .find(|entry| entry.device == device)
        {
            entry.references += 1;
        }
    }

    fn release(&self, device: u64) {
        if let Some(entry) = self
            .entries
            .borrow_mut()
            .iter_mut()
            .find(|entry| entry.device == device)
        {
            entry.references -= 1;
            if entry.references == 0 {
                self.unreferenced.set(self.unreferenced.get() + 1);
            }
        }
    }

    /// Whether a channel waits to be destroyed.
    pub(crate) fn has_unreferenced(&self) -> bool {
        self.unreferenced.get() > 0
    }

    /// Destroys the channels that nobody refers to any more. Not in the release itself: that may be deep inside the
    /// channel's own code, and the next user is often near.
    #[inline]
    pub(crate) fn reap(&self, thread: &Thread) {
        while self.unreferenced.get() > 0 {
            let entry = {
                let mut entries = self.entries.borrow_mut();
                let Some(place) = entries.iter().position(|entry| entry.references == 0) else {
                    return;
                };
                self.unreferenced.set(self.unreferenced.get() - 1);
                entries.remove(place)
            };
            let Entry { name, held, .. } = entry;
            if let Err(text) = panics::contain(|| drop(held)) {
                thread.report_panic("io channel (while it was destroyed)", &name, &text);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.borrow().is_empty()
    }

    pub(crate) fn holders(&self) -> Vec<String> {
        let entries = self.entries.borrow();
        let say = |entry: &Entry| match entry.references {
            1 => format!("io channel of {} (1 reference)", entry.name),
            n => format!("io channel of {} ({n} references)", entry.name),
        };
        entries.iter().map(say).collect()
    }
}

/// A reference to a thread's channel on a device; own thread only. Clones count; when the last is dropped, the channel
/// is destroyed at the end of a turn of its thread (SPDK: `spdk_get_io_channel`, `spdk_put_io_channel`).
pub struct IoChannel<C: 'static> {
    held: Rc<Held<C>>,
    thread: Thread,
}

impl<C> IoChannel<C> {
    /// The thread that it belongs to.
    #[must_use]
    pub fn thread(&self) -> &Thread {
        &self.thread
    }
}

impl<C> Deref for IoChannel<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.held.channel
    }
}

impl<C> Clone for IoChannel<C> {
    fn clone(&self) -> Self {
        self.thread
            .inner()
            .channels
            .add_reference(self.held.device.id);
        Self {
            held: self.held.clone(),
            thread: self.thread.clone(),
        }
    }
}

impl<C> Drop for IoChannel<C> {
    fn drop(&mut self) {
        self.thread.inner().channels.release(self.held.device.id);
    }
}

impl<C> std::fmt::Debug for IoChannel<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "IoChannel({:?} of {:?})",
            self.held.device.name,
            self.thread.name()
        )
    }
}
