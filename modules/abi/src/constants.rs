//! Versions, bounds, tags and enumerators.

/// "KEEL" in little endian: first field of every descriptor.
pub const DSS_ABI_MAGIC: u32 = 0x4c45_454b;
/// Grows with every addition; a module needs at most the engine's level.
pub const DSS_ABI_LEVEL: u32 = 3;
/// Hash over names, types, offsets and sizes of the whole ABI at this level.
pub const DSS_ABI_FINGERPRINT: u64 = 0x4b92_fecb_2845_565f;

/// Bytes of a module's name, as in DAOS.
pub const DSS_MODNAME_MAX_LEN: u32 = 32;
/// Module ids are below this, as in DAOS.
pub const DSS_MAX_MODULE: u32 = 64;
/// TLS keys in one engine.
pub const DSS_MODULE_KEYS_NR: u32 = 64;
/// RPC protocol versions of one module at once.
pub const DSS_MAX_PROTO_VERSIONS: u32 = 2;
/// dRPC module ids are below this.
pub const DSS_MAX_DRPC_MODULE: u32 = 128;
/// Bytes of an RPC's body at most.
pub const DSS_RPC_BODY_MAX: u32 = 1 << 20;
/// Bytes of an RPC's bulk data at most.
pub const DSS_RPC_BULK_MAX: u32 = 4 << 20;

/// What `sm_setup` and `sm_cleanup` return when they will report later through `dss_host::done`.
pub const DSS_PENDING: i32 = 1;

/// The system xstream.
pub const DAOS_SYS_TAG: u32 = 0x01;
/// A target's main xstream.
pub const DAOS_TGT_TAG: u32 = 0x02;
/// Replicated database (DAOS); no xstream of Keel has it.
pub const DAOS_RDB_TAG: u32 = 0x04;
/// An offload xstream.
pub const DAOS_OFF_TAG: u32 = 0x08;
/// A client's thread (DAOS); no xstream of Keel has it.
pub const DAOS_CLI_TAG: u32 = 0x10;
/// Every xstream of the engine.
pub const DAOS_SERVER_TAG: u32 = 0xff;

/// The caller's own xstream.
pub const DSS_XS_SELF: i32 = -1;
/// The main xstream of a target.
pub const DSS_XS_VOS: i32 = 0;
/// I/O forwarding: a target's first offload xstream.
pub const DSS_XS_IOFW: i32 = 1;
/// Computation: a target's last offload xstream.
pub const DSS_XS_OFFLOAD: i32 = 2;
/// The system xstream.
pub const DSS_XS_SYS: i32 = 3;
/// Membership: served by the system xstream.
pub const DSS_XS_SWIM: i32 = 4;
/// dRPC: served by the system xstream.
pub const DSS_XS_DRPC: i32 = 5;

/// The task waits; its waker will be called.
pub const DSS_TASK_PENDING: i32 = 0;
/// The task is done.
pub const DSS_TASK_READY: i32 = 1;

/// In `dss_rpc_handler::flags`: the handler is called in a ULT of its own, so that it may wait.
pub const DSS_RPC_ULT: u32 = 1;

/// Housekeeping: does not count as busy, keeps no core from resting.
pub const DSS_ULT_PERIODIC: u32 = 1;
/// A stack of [`DSS_DEEP_STACK_SZ`] when `stack_size` is 0.
pub const DSS_ULT_DEEP_STACK: u32 = 2;
/// An abort, or the end of its xstream, also ends what the ULT waits for, once.
pub const DSS_ULT_CANCEL: u32 = 4;
/// Bytes of a deep stack: four default ones, as in DAOS.
pub const DSS_DEEP_STACK_SZ: u32 = 262_144;
/// A wait without end.
pub const DSS_FOREVER: u64 = u64::MAX;
/// What `co_reduce` hears of a target that is not in the bitmap.
pub const DSS_COLL_LEFT_OUT: i32 = 1;

/// A chore's first step.
pub const DSS_CHORE_NEW: i32 = 0;
/// One more step; as an answer: there is more to do.
pub const DSS_CHORE_YIELD: i32 = 1;
/// As an answer: that was the last step.
pub const DSS_CHORE_DONE: i32 = 2;
/// No step: its xstream ends first.
pub const DSS_CHORE_CANCELED: i32 = 3;
/// Takes more credits than there are, at most twice as many.
pub const DSS_CHORE_PRIORITY: u32 = 1;

/// Bytes of a variable's key.
pub const DSS_IV_KEY_MAX: u32 = 48;
/// Bytes of a value that a class may ask for at most.
pub const DSS_IV_VALUE_MAX: u32 = 4 << 20;
/// Longer values travel as bulk data.
pub const DSS_IV_INLINE_MAX: u32 = 19_456;
/// In place of a rank.
pub const DSS_IV_NOBODY: u32 = u32::MAX;
/// Fetches a variable.
pub const DSS_IV_FETCH: u32 = 0;
/// Gives it a value.
pub const DSS_IV_UPDATE: u32 = 1;
/// Takes its value: whoever wants one asks the root.
pub const DSS_IV_INVALIDATE: u32 = 2;
/// One more user of a namespace.
pub const DSS_IV_NS_CREATE: u32 = 3;
/// One user less.
pub const DSS_IV_NS_DESTROY: u32 = 4;
/// A change does not come down from the root.
pub const DSS_IV_SYNC_NONE: u32 = 0;
/// Done when all have it.
pub const DSS_IV_SYNC_EAGER: u32 = 1;
/// Done when the root has it.
pub const DSS_IV_SYNC_LAZY: u32 = 2;
/// It comes back the way that it went up.
pub const DSS_IV_SYNC_BIDIRECTIONAL: u32 = 3;
/// From parent to parent.
pub const DSS_IV_SHORTCUT_NONE: u32 = 0;
/// Straight to the root.
pub const DSS_IV_SHORTCUT_TO_ROOT: u32 = 1;
/// A namespace that all engines of the group share.
pub const DSS_IV_GROUP: u32 = 1;

/// Reads blocks into the buffer.
pub const DSS_BDEV_READ: u32 = 0;
/// Writes blocks from the buffer.
pub const DSS_BDEV_WRITE: u32 = 1;
/// Makes blocks read as zeroes; no buffer.
pub const DSS_BDEV_WRITE_ZEROES: u32 = 2;
/// Tells the device that blocks are no longer needed; no buffer.
pub const DSS_BDEV_UNMAP: u32 = 3;
/// Makes completed writes durable; no buffer.
pub const DSS_BDEV_FLUSH: u32 = 4;
/// The write is durable when it completes.
pub const DSS_BDEV_FUA: u32 = 1;

/// drpc.Status: the call was understood; domain errors stand in its body.
pub const DSS_DRPC_SUCCESS: i32 = 0;
/// drpc.Status: accepted, not finished.
pub const DSS_DRPC_SUBMITTED: i32 = 1;
/// drpc.Status: failed.
pub const DSS_DRPC_FAILURE: i32 = 2;
/// drpc.Status: nobody registered that module id.
pub const DSS_DRPC_UNKNOWN_MODULE: i32 = 3;
/// drpc.Status: the module has no such method.
pub const DSS_DRPC_UNKNOWN_METHOD: i32 = 4;
/// drpc.Status: the call itself could not be decoded.
pub const DSS_DRPC_FAILED_UNMARSHAL_CALL: i32 = 5;
/// drpc.Status: the call's body could not be decoded.
pub const DSS_DRPC_FAILED_UNMARSHAL_PAYLOAD: i32 = 6;
/// drpc.Status: the answer could not be encoded.
pub const DSS_DRPC_FAILED_MARSHAL: i32 = 7;

/// Only grows.
pub const DSS_METRIC_COUNTER: i32 = 0;
/// Goes up and down.
pub const DSS_METRIC_GAUGE: i32 = 1;
/// A distribution of values.
pub const DSS_METRIC_HISTOGRAM: i32 = 2;

/// Something failed that an operator must know of.
pub const DSS_LOG_ERROR: i32 = 1;
/// Something is off, and the engine copes.
pub const DSS_LOG_WARN: i32 = 2;
/// Milestones.
pub const DSS_LOG_INFO: i32 = 3;
/// For whoever looks for a fault.
pub const DSS_LOG_DEBUG: i32 = 4;
/// Each step.
pub const DSS_LOG_TRACE: i32 = 5;

/// The opcode of one handler: `module << 24 | version << 16 | index` (DAOS `src/include/daos/rpc.h`).
#[allow(non_snake_case, reason = "the header's macro of that name")]
pub const fn DSS_RPC_OPCODE(module: u32, version: u32, index: u32) -> u32 {
    (module << 24) | (version << 16) | index
}
