//! What the engine lends to modules.

use crate::here;
use crate::modules::ModuleEntry;
use crate::table::TABLE;
use daos_errno::Der;
use engine_iv_service::{Incast, NsId};
use engine_tls::{KeyRegistry, Tags, TlsError};
use engine_xstream::Xstreams;
use module_abi::dss_host;
use spdk_bdev::Descriptor;
use spdk_env::{DmaBuf, DmaPool, OutOfMemory};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Answer to a query.
pub type QueryFuture = Pin<Box<dyn Future<Output = Result<Vec<u8>, Der>>>>;

/// What modules may ask the engine itself. Implemented by the daemon.
pub trait Control: Send + Sync {
    /// A method of Keel's dRPC module with its protobuf message, or, with a control server, one of DAOS's methods that
    /// the engine owns (SET_RANK, SET_UP, PREP_SHUTDOWN; body and answer as in DAOS). Called on the system xstream, where
    /// the future runs. `DER_NOSYS` for an unknown method, `DER_PROTO` for a body that does not decode.
    fn query(&self, method: u32, body: Vec<u8>) -> QueryFuture;
}

/// One target's part of a device.
#[derive(Clone)]
pub struct TargetShare {
    /// The device.
    pub descriptor: Descriptor,
    /// Where the share begins, in blocks of the device.
    pub first_block: u64,
    /// How long it is.
    pub num_blocks: u64,
    /// The device's own id.
    pub device_uuid: [u8; 16],
    /// The engine that owns the share.
    pub engine_uuid: [u8; 16],
}

/// Buffers of one size for modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferClass {
    /// Bytes of each.
    pub buffer_len: usize,
    /// How many.
    pub count: usize,
}

/// What a [`Host`] is made of.
pub struct HostOptions {
    /// Where modules' keys go; not used for an xstream yet.
    pub keys: KeyRegistry,
    /// Where their RPC protocols go.
    pub rpc: engine_rpc::Registry,
    /// Where their dRPC handlers go.
    pub drpc: engine_drpc::Registry,
    /// Where their classes of incast variables go.
    pub incast: Incast,
    /// The namespace that all engines of the system share.
    pub system_ns: NsId,
    /// Answers queries.
    pub control: Arc<dyn Control>,
    /// By target; `None`: the target has no device.
    pub shares: Vec<Option<TargetShare>>,
    /// Targets of the engine.
    pub targets: u32,
    /// Buffers for modules, all targets together; `DER_NOMEM` when a class and all larger ones are out.
    pub buffers: Vec<BufferClass>,
    /// I/Os that one open share holds at most; one more is `DER_AGAIN`.
    pub queue_depth: u32,
    /// How long one module's setup or cleanup may take.
    pub deadline: Duration,
}

impl HostOptions {
    /// The buffers that modules get unless told otherwise.
    pub fn buffers() -> Vec<BufferClass> {
        let class = |buffer_len, count| BufferClass { buffer_len, count };
        vec![
            class(4 << 10, 4096),
            class(64 << 10, 512),
            class(1 << 20, 64),
            class(4 << 20, 16),
        ]
    }

    /// With default bounds, no devices and no namespace of the system.
    pub fn new(
        keys: KeyRegistry,
        (rpc, drpc): (engine_rpc::Registry, engine_drpc::Registry),
        incast: Incast,
        control: Arc<dyn Control>,
    ) -> HostOptions {
        HostOptions {
            keys,
            rpc,
            drpc,
            incast,
            system_ns: 0,
            control,
            shares: Vec::new(),
            targets: 0,
            buffers: HostOptions::buffers(),
            queue_depth: 256,
            deadline: Duration::from_secs(60),
        }
    }
}

/// A host that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No memory for the buffers.
    #[error("buffers for modules: {0}")]
    Buffers(#[from] OutOfMemory),
    /// No key left.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

pub(crate) struct Lent {
    pub(crate) keys: KeyRegistry,
    pub(crate) rpc: engine_rpc::Registry,
    pub(crate) drpc: engine_drpc::Registry,
    pub(crate) incast: Incast,
    pub(crate) system_ns: [u8; 16],
    pub(crate) control: Arc<dyn Control>,
    pub(crate) shares: Vec<Option<TargetShare>>,
    pub(crate) targets: u32,
    pub(crate) queue_depth: u32,
    pub(crate) deadline: Duration,
    pools: Vec<DmaPool>, // smallest first
    /// Known from the first setup on.
    pub(crate) xstreams: OnceLock<Xstreams>,
    modules: Mutex<Vec<&'static ModuleEntry>>, // in the order of registration
}

/// The host of one engine; clones share it. Any thread.
#[derive(Clone)]
pub struct Host(pub(crate) Arc<Lent>);

impl Host {
    /// Makes it. Before any xstream starts, and before modules register keys: it takes a key of its own, so that what it
    /// holds for an xstream ends after the modules' values there.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn new(mut options: HostOptions) -> Result<Host, HostError> {
        engine_ult::name_overflows();
        options.buffers.sort_by_key(|class| class.buffer_len);
        let pools = options
            .buffers
            .iter()
            .map(|class| DmaPool::new(class.buffer_len, class.count));
        let lent = Arc::new(Lent {
            rpc: options.rpc,
            drpc: options.drpc,
            incast: options.incast,
            system_ns: options.system_ns.to_le_bytes(),
            control: options.control,
            shares: options.shares,
            targets: options.targets,
            queue_depth: options.queue_depth,
            deadline: options.deadline,
            pools: pools.collect::<Result<_, _>>()?,
            xstreams: OnceLock::new(),
            modules: Mutex::default(),
            keys: options.keys,
        });
        let mine = Arc::downgrade(&lent);
        lent.keys
            .register_typed("engine_host", Tags::SERVER, move |info| {
                Some(here::Guard::new(mine.upgrade()?, info))
            })?;
        Ok(Host(lent))
    }

    /// The table of functions, the same for all hosts.
    pub fn table(&self) -> &'static dss_host {
        &TABLE
    }

    /// What is known of each module, in the order of registration.
    pub fn modules(&self) -> Vec<crate::ModuleStatus> {
        self.0
            .modules()
            .iter()
            .map(|module| module.status())
            .collect()
    }
}

impl Lent {
    pub(crate) fn modules(&self) -> MutexGuard<'_, Vec<&'static ModuleEntry>> {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner) // pushes and removals only
    }

    /// A zeroed buffer of `len` bytes.
    pub(crate) fn buffer(&self, len: usize) -> Option<DmaBuf> {
        let mut buf = self
            .pools
            .iter()
            .filter(|pool| pool.buf_len() >= len)
            .find_map(DmaPool::get)?;
        buf.set_len(len);
        buf.as_mut_slice().fill(0);
        Some(buf)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("modules", &self.modules())
            .finish_non_exhaustive()
    }
}
