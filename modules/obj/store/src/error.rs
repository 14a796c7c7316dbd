//! Every failure of the store, with its cure and its `DER` number.

use daos_errno::Der;
use uuid::Uuid;

use crate::device::DevError;

/// What there is no space for. All in bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSpace {
    /// The pool's share of this target is used up.
    #[error(
        "pool {pool} has {left} bytes left on this target and {needed} are needed: remove objects or create a larger pool"
    )]
    Quota {
        /// The pool.
        pool: Uuid,
        /// Asked for.
        needed: u64,
        /// Still free.
        left: u64,
    },
    /// The data region has no free blocks, or only crumbs.
    #[error("the device has {left} bytes left and {needed} are needed: remove objects")]
    Data {
        /// Asked for.
        needed: u64,
        /// Still free.
        left: u64,
    },
    /// The metadata log is as full as it may get.
    #[error(
        "the metadata log may hold {limit} bytes of names and extents and {used} are used: remove objects, or format with a larger log"
    )]
    Metadata {
        /// In use.
        used: u64,
        /// Most that is allowed.
        limit: u64,
    },
    /// Pools are promised their size; this much is not promised yet.
    #[error(
        "a pool of {needed} bytes per target was asked for and {left} are not promised to other pools"
    )]
    Promised {
        /// Asked for.
        needed: u64,
        /// Not promised.
        left: u64,
    },
}

/// Where stored data no longer has its checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDamage {
    /// Pool of the object.
    pub pool: Uuid,
    /// Container of the object.
    pub cont: Uuid,
    /// Its name, as far as this target knows it.
    pub object: String,
    /// Damaged version.
    pub version: u64,
    /// Piece of the object.
    pub piece: u32,
    /// Damaged chunk of the piece.
    pub chunk: u32,
    /// First unit (4 KiB) of that chunk on the device.
    pub unit: u64,
}

/// Why an operation failed. Nothing that was acknowledged before is lost by any of them unless the text says so.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum StoreError {
    #[error("device {op} at block {unit} (of 4 KiB) failed: {source}")]
    Device {
        op: &'static str,
        unit: u64,
        source: DevError,
    },
    #[error("no buffer memory: {why}")]
    NoMemory { why: String },
    #[error("the device has blocks of {found} bytes: 512 to 4096, dividing 4096, are supported")]
    BlockSize { found: u32 },
    #[error("the device has {found} bytes: a store needs at least {needed}")]
    TooSmall { found: u64, needed: u64 },
    #[error("the device is empty: format it first")]
    NotFormatted,
    #[error(
        "the device holds something that is not a Keel store ({what}): it is left alone; format it explicitly to overwrite it"
    )]
    Foreign { what: String },
    #[error(
        "the store on the device has format version {found} and this engine knows up to {supported}: use a newer engine"
    )]
    NewerFormat { found: u32, supported: u32 },
    #[error(
        "both superblock copies are damaged: the store cannot be opened; restore the device or format it explicitly"
    )]
    SuperblockDamaged,
    #[error("the device belongs to engine {found}, not to {expected}: check the device list")]
    OtherEngine { found: Uuid, expected: Uuid },
    #[error(
        "the device is target {found} of {found_of}, not {expected} of {expected_of}: check the order and number of devices"
    )]
    OtherTarget {
        found: u32,
        found_of: u32,
        expected: u32,
        expected_of: u32,
    },
    #[error(
        "the device has {found} bytes and the store on it was made for {expected}: it was truncated or is another one"
    )]
    Shrunk { found: u64, expected: u64 },
    #[error(
        "the device is not empty: formatting would destroy what is on it, so it must be forced"
    )]
    NotEmpty,
    #[error(
        "metadata log, half {half}, block {unit} (of 4 KiB) is damaged: {why}; acknowledged changes would be lost, so the target stays down: restore the device or format it explicitly"
    )]
    LogDamaged { half: u8, unit: u64, why: String },
    #[error(
        "the target takes no more changes since its log failed: {cause}; reads go on; replace the device and restart the engine"
    )]
    ReadOnly { cause: String },
    #[error("the store is closing")]
    Closing,
    #[error("pool {0} does not exist")]
    NoPool(Uuid),
    #[error("container {0} does not exist")]
    NoContainer(Uuid),
    #[error("object '{name}' does not exist")]
    NoObject { name: String },
    #[error(
        "version {version:#x} of object '{name}' is gone: it was replaced, removed or aborted in the meantime"
    )]
    Stale { name: String, version: u64 },
    #[error("{what} exists already")]
    Exists { what: String },
    #[error("pool {0} still has containers: destroy them first, or force it")]
    PoolBusy(Uuid),
    #[error("no space: {0}")]
    NoSpace(#[from] NoSpace),
    #[error("stored data is damaged: pool {}, container {}, object '{}' (version {:#x}), piece {}, chunk {}, at device block {} (of 4 KiB)", .0.pool, .0.cont, .0.object, .0.version, .0.piece, .0.chunk, .0.unit)]
    Csum(Box<DataDamage>),
    #[error(
        "chunk {chunk} of the data does not have the checksum that was sent with it: it was damaged on the way; send it again"
    )]
    CsumOnWrite { chunk: usize },
    #[error("{what}")]
    Invalid { what: String },
    #[error("{open} uploads are open on this target, no more are allowed: finish or abort some")]
    TooManyUploads { open: usize },
}

impl StoreError {
    /// The DAOS error number that goes over the wire.
    pub fn der(&self) -> Der {
        match self {
            StoreError::Device { .. } => Der::NVME_IO,
            StoreError::NoMemory { .. } => Der::NOMEM,
            StoreError::BlockSize { .. } | StoreError::Invalid { .. } => Der::INVAL,
            StoreError::TooSmall { .. } | StoreError::NoSpace(NoSpace::Promised { .. }) => {
                Der::NOSPACE
            }
            StoreError::NoSpace(_) => Der::NOSPACE,
            StoreError::NotFormatted => Der::UNINIT,
            StoreError::Foreign { .. } => Der::DF_INVAL,
            StoreError::NewerFormat { .. } => Der::DF_INCOMPT,
            StoreError::SuperblockDamaged | StoreError::LogDamaged { .. } => Der::DATA_LOSS,
            StoreError::OtherEngine { .. } | StoreError::OtherTarget { .. } => Der::ID_MISMATCH,
            StoreError::Shrunk { .. } => Der::MISMATCH,
            StoreError::NotEmpty | StoreError::Exists { .. } => Der::EXIST,
            StoreError::ReadOnly { .. } => Der::IO,
            StoreError::Closing => Der::SHUTDOWN,
            StoreError::NoPool(_) | StoreError::NoObject { .. } => Der::NONEXIST,
            StoreError::NoContainer(_) => Der::CONT_NONEXIST,
            StoreError::Stale { .. } => Der::STALE,
            StoreError::PoolBusy(_) | StoreError::TooManyUploads { .. } => Der::BUSY,
            StoreError::Csum(_) | StoreError::CsumOnWrite { .. } => Der::CSUM,
        }
    }
}
