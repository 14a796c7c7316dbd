//! [`Spdk`]: the process's one SPDK.

use core::fmt;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use crate::app::{self, App, Job, Order, Started};
use crate::env::{Env, Options};
use crate::error::{StartError, StillHeld};

/// SPDK, running: its environment, its subsystems with the devices of its configuration, and the OS thread `spdk_app` that looks after
/// them. `Clone + Send + Sync`; all clones are one. It ends with the last clone, thread, device and piece of memory, and may be started again
/// with the same options.
#[derive(Clone)]
pub struct Spdk(Arc<Inner>);

/// A reference that does not keep it from ending.
#[derive(Clone)]
pub struct WeakSpdk(Weak<Inner>);

impl WeakSpdk {
    /// SPDK, if it runs.
    #[must_use]
    pub fn upgrade(&self) -> Option<Spdk> {
        self.0.upgrade().map(Spdk)
    }
}

impl fmt::Debug for WeakSpdk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakSpdk")
    }
}

struct Inner {
    app: App,
    orders: Sender<Order>,
    running: Mutex<Option<JoinHandle<()>>>,
    env: Arc<Env>,
}

impl Spdk {
    /// Starts SPDK: takes memory and devices, and runs what the JSON configuration says. Signals, standard output and the calling OS
    /// thread's cores stay as they are; what SPDK and DPDK log goes to `tracing` under the target `spdk`.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(options: &Options) -> Result<Spdk, StartError> {
        let Started {
            app,
            env,
            running,
            orders,
        } = app::start(options)?;
        Ok(Spdk(Arc::new(Inner {
            app,
            orders,
            running: Mutex::new(Some(running)),
            env,
        })))
    }

    /// A reference that does not keep it from ending.
    #[must_use]
    pub fn downgrade(&self) -> WeakSpdk {
        WeakSpdk(Arc::downgrade(&self.0))
    }

    /// Whether devices of the PCI bus may be used, which reach registered memory only ([`crate::Registered`]).
    #[must_use]
    pub fn has_pci(&self) -> bool {
        self.0.env.has_pci()
    }

    pub(crate) fn env(&self) -> &Arc<Env> {
        &self.0.env
    }

    /// Runs the methods of a JSON configuration, as in [`Options::json`], while all is up: to make devices, change or delete them.
    ///
    /// # Errors
    /// [`StartError::Config`]; the methods before the one that failed stay done.
    pub fn load(&self, json: &str) -> Result<(), StartError> {
        let (reply, answer) = channel();
        let gone = || StartError::Threads(std::io::Error::other("SPDK's app thread is gone"));
        let order = Order::Load(json.to_owned(), reply);
        self.0.orders.send(order).map_err(|_| gone())?;
        self.0.app.wake();
        answer.recv().map_err(|_| gone())?
    }

    /// Runs `job` on the app thread soon; `false`: 1,024 wait there already.
    pub(crate) fn on_app(&self, job: Job) -> bool {
        self.0.app.send(job).is_ok()
    }

    /// Runs `f` on the app thread and waits; `None`: not to be had there.
    pub(crate) fn call<R: Send + 'static>(
        &self,
        f: impl FnOnce() -> R + Send + 'static,
    ) -> Option<R> {
        let (reply, answer) = channel();
        let job = move || {
            let _ = reply.send(f());
        };
        if !self.on_app(Box::new(job)) {
            return None;
        }
        answer.recv().ok()
    }

    /// Ends it, and waits until it has ended.
    ///
    /// # Errors
    /// [`StillHeld`] while there are clones, threads, devices or memory; nothing has changed then.
    pub fn stop(self) -> Result<(), StillHeld> {
        match Arc::try_unwrap(self.0) {
            Ok(inner) => {
                drop(inner);
                Ok(())
            }
            Err(shared) => {
                let holders = Arc::strong_count(&shared) - 1;
                let spdk = Spdk(shared);
                Err(StillHeld { spdk, holders })
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // It ends when it is told, or when nobody is left to tell it.
        let _ = self.orders.send(Order::Stop);
        self.app.wake();
        let running = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(running) = running {
            // The last reference can go on the app thread itself, in a job: then it ends a little later.
            if running.thread().id() != std::thread::current().id() && running.join().is_err() {
                tracing::error!("SPDK's app thread has panicked");
            }
        }
    }
}

impl fmt::Debug for Spdk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spdk")
    }
}
