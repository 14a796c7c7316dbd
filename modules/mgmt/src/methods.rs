//! dRPC module ids and method numbers (DAOS `src/include/daos/drpc_modules.h`; Keel's own are the engine's).

/// DAOS's management module.
pub(crate) const MGMT: i32 = 2;
/// Keel's own.
pub(crate) const KEEL: i32 = 100;

pub(crate) const SET_RANK: i32 = 202;
pub(crate) const POOL_CREATE: i32 = 207;
pub(crate) const POOL_DESTROY: i32 = 208;
pub(crate) const SET_UP: i32 = 209;
pub(crate) const BIO_HEALTH_QUERY: i32 = 210;
pub(crate) const SMD_LIST_DEVS: i32 = 211;
pub(crate) const SMD_LIST_POOLS: i32 = 212;
pub(crate) const PREP_SHUTDOWN: i32 = 218;
pub(crate) const DEV_SET_FAULTY: i32 = 220;
pub(crate) const DEV_REPLACE: i32 = 221;
pub(crate) const LIST_CONTAINERS: i32 = 222;
pub(crate) const POOL_QUERY: i32 = 223;
pub(crate) const POOL_SET_PROP: i32 = 224;
pub(crate) const PING_RANK: i32 = 225;
pub(crate) const POOL_EVICT: i32 = 230;
pub(crate) const GROUP_UPDATE: i32 = 232;
pub(crate) const POOL_GET_PROP: i32 = 237;
pub(crate) const SET_LOG_MASKS: i32 = 238;
pub(crate) const GROUP_STATUS_GET: i32 = 248;

/// Of Keel's module: `keel.EngineStatus`.
pub(crate) const ENGINE_STATUS: u32 = 1;
/// Of Keel's module: `keel.Devices`.
pub(crate) const DEVICES: u32 = 6;
/// Of Keel's module: `keel.LogSetMaskReq` to `keel.LogSetMaskResp`.
pub(crate) const LOG_SET_MASK: u32 = 8;
/// Of Keel's module: `keel.DeviceSetFaulty` to `keel.Ack`.
pub(crate) const DEVICE_SET_FAULTY: u32 = 10;
/// Of Keel's module: `keel.DeviceReplace` to `keel.Ack`.
pub(crate) const DEVICE_REPLACE: u32 = 11;
