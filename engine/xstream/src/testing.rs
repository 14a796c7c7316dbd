//! Xstreams stepped on one OS thread, under a clock that the test turns: the same code as on reactors, and the same run
//! every time.

use std::future::Future;
use std::sync::Arc;

use engine_tls::{KeyRegistry, TlsError};
use spdk_thread::testing::Lockstep;
use spdk_thread::{JoinError, Provider, Thread, ThreadOptions};

use crate::start::bring_up;
use crate::{CHORE_CREDITS, Core, Layout, LayoutOptions, XstreamId, Xstreams};

/// Who carries threads in this crate's own tests.
#[cfg(not(all(test, feature = "libspdk")))]
pub(crate) fn provider() -> Option<Arc<dyn Provider>> {
    None
}

/// C SPDK, once in a process.
#[cfg(all(test, feature = "libspdk"))]
pub(crate) fn provider() -> Option<Arc<dyn Provider>> {
    use spdk_provider::{Options, Spdk, SpdkThreads};
    static SPDK: std::sync::OnceLock<Spdk> = std::sync::OnceLock::new();
    let spdk = SPDK.get_or_init(|| {
        let options = Options {
            no_huge: true,
            ..Options::default()
        };
        match Spdk::start(&options) {
            Ok(spdk) => spdk,
            Err(error) => panic!("{error}"),
        }
    });
    Some(SpdkThreads::new(spdk))
}

/// The xstreams of a small engine and their time.
#[derive(Debug)]
pub struct Stepped {
    /// The clock and the turns.
    pub lockstep: Lockstep,
    threads: Vec<Thread>,
    xstreams: Xstreams,
}

impl Stepped {
    /// One system xstream, `targets` mains and `helpers` offload xstreams, past the start-up barrier.
    ///
    /// # Errors
    /// The storage of one could not be made.
    ///
    /// # Panics
    /// If there can be no such layout (no targets, or too many).
    pub fn new(targets: u32, helpers: u32, registry: &KeyRegistry) -> Result<Stepped, TlsError> {
        Stepped::with_options(targets, helpers, registry, &ThreadOptions::default())
    }

    /// The same with bounds of the caller's choice.
    ///
    /// # Errors
    /// As [`Stepped::new`].
    ///
    /// # Panics
    /// As [`Stepped::new`].
    pub fn with_options(
        targets: u32,
        helpers: u32,
        registry: &KeyRegistry,
        options: &ThreadOptions,
    ) -> Result<Stepped, TlsError> {
        let wanted = LayoutOptions {
            targets,
            helpers,
            oversubscribe: true,
            ..LayoutOptions::default()
        };
        let layout = match Layout::compute(&wanted, &[Core::alone(0, 0)]) {
            Ok(layout) => layout,
            Err(error) => panic!("Stepped: {error}"),
        };
        let mut options = options.clone();
        options.provider = options.provider.or_else(provider);
        let mut lockstep = Lockstep::new();
        let (mut threads, mut by_id) = (Vec::new(), Vec::new());
        for spec in layout.xstreams() {
            let thread = lockstep.thread_with(&spec.name(), options.clone());
            by_id.push(bring_up(&thread, spec.clone(), registry, CHORE_CREDITS)?);
            threads.push(thread);
        }
        let xstreams = Xstreams::new(layout, by_id);
        for xstream in xstreams.all() {
            let all = xstreams.clone();
            if let Err(error) = xstream.send(move |xstream| xstream.install_set(all)) {
                panic!("Stepped: {error}");
            }
        }
        lockstep.settle();
        Ok(Stepped {
            lockstep,
            threads,
            xstreams,
        })
    }

    /// The table.
    pub fn xstreams(&self) -> &Xstreams {
        &self.xstreams
    }

    /// The thread of an xstream.
    ///
    /// # Panics
    /// If there is no such xstream.
    pub fn thread(&self, id: XstreamId) -> &Thread {
        &self.threads[id.0 as usize]
    }

    /// Runs `future` as a ULT of an xstream until it is done; see [`Lockstep::block_on`].
    ///
    /// # Errors
    /// As [`Lockstep::block_on`].
    ///
    /// # Panics
    /// As [`Lockstep::block_on`], and if there is no such xstream.
    pub fn block_on<T: 'static>(
        &mut self,
        id: XstreamId,
        future: impl Future<Output = T> + 'static,
    ) -> Result<T, JoinError> {
        let thread = self.threads[id.0 as usize].clone();
        self.lockstep.block_on(&thread, future)
    }
}

impl Drop for Stepped {
    /// Lets the threads go of their xstreams, which refer to their threads.
    fn drop(&mut self) {
        self.threads
            .iter()
            .for_each(|thread| thread.set_scope(None));
    }
}
