//! dRPC method numbers (DAOS `src/include/daos/drpc_modules.h`) and Keel's own.
//!
//! Numbers are unique over DAOS's modules. The gaps (203 to 205, 214, 219, 234, 302) are retired there and stay unused.

macro_rules! methods {
    ($($module:ident $number:literal $name:ident;)*) => {
        $(
            #[doc = concat!("Method of module `", stringify!($module), "`.")]
            pub const $name: i32 = $number;
        )*

        /// Every method: (module, number, name), ascending.
        pub const ALL: &[(i32, i32, &str)] =
            &[$((crate::modules::$module, $number, stringify!($name)),)*];
    };
}

methods! {
    TEST 1 TEST_ECHO;
    SEC_AGENT 101 SEC_AGENT_REQUEST_CREDS;
    MGMT 201 KILL_RANK;
    MGMT 202 SET_RANK;
    MGMT 206 GET_ATTACH_INFO;
    MGMT 207 POOL_CREATE;
    MGMT 208 POOL_DESTROY;
    MGMT 209 SET_UP;
    MGMT 210 BIO_HEALTH_QUERY;
    MGMT 211 SMD_LIST_DEVS;
    MGMT 212 SMD_LIST_POOLS;
    MGMT 213 POOL_GET_ACL;
    MGMT 215 POOL_OVERWRITE_ACL;
    MGMT 216 POOL_UPDATE_ACL;
    MGMT 217 POOL_DELETE_ACL;
    MGMT 218 PREP_SHUTDOWN;
    MGMT 220 DEV_SET_FAULTY;
    MGMT 221 DEV_REPLACE;
    MGMT 222 LIST_CONTAINERS;
    MGMT 223 POOL_QUERY;
    MGMT 224 POOL_SET_PROP;
    MGMT 225 PING_RANK;
    MGMT 226 POOL_REINT;
    MGMT 227 CONT_SET_OWNER;
    MGMT 228 POOL_EXCLUDE;
    MGMT 229 POOL_EXTEND;
    MGMT 230 POOL_EVICT;
    MGMT 231 POOL_DRAIN;
    MGMT 232 GROUP_UPDATE;
    MGMT 233 NOTIFY_EXIT;
    MGMT 235 NOTIFY_POOL_CONNECT;
    MGMT 236 NOTIFY_POOL_DISCONNECT;
    MGMT 237 POOL_GET_PROP;
    MGMT 238 SET_LOG_MASKS;
    MGMT 239 POOL_UPGRADE;
    MGMT 240 POOL_QUERY_TARGETS;
    MGMT 241 LED_MANAGE;
    MGMT 242 CHK_START;
    MGMT 243 CHK_STOP;
    MGMT 244 CHK_QUERY;
    MGMT 245 CHK_PROP;
    MGMT 246 CHK_ACT;
    MGMT 247 SETUP_CLIENT_TELEM;
    MGMT 248 GROUP_STATUS_GET;
    MGMT 249 CHK_SET_POLICY;
    MGMT 250 POOL_REBUILD_START;
    MGMT 251 POOL_REBUILD_STOP;
    MGMT 252 POOL_SELF_HEAL_EVAL;
    SRV 301 NOTIFY_READY;
    SRV 303 GET_POOL_SVC;
    SRV 304 CLUSTER_EVENT;
    SRV 305 POOL_FIND_BYLABEL;
    SRV 306 CHK_LIST_POOL;
    SRV 307 CHK_REG_POOL;
    SRV 308 CHK_DEREG_POOL;
    SRV 309 CHK_REPORT;
    SRV 310 LIST_POOLS;
    SRV 311 GET_SYS_PROPS;
    SEC 401 SEC_VALIDATE_CREDS;
    KEEL 1 ENGINE_STATUS;
    KEEL 2 ENGINE_READY;
    KEEL 3 ENGINE_SHUTDOWN;
    KEEL 4 MODULES_LIST;
    KEEL 5 METRICS;
    KEEL 6 DEVICES;
    KEEL 7 TASKS;
    KEEL 8 LOG_SET_MASK;
    KEEL 9 CONFIG_EFFECTIVE;
    KEEL 10 DEVICE_SET_FAULTY;
    KEEL 11 DEVICE_REPLACE;
    KEEL 12 ENGINE_TOPOLOGY;
    KEEL 13 SLOW;
    KEEL 20 GROUP_STATUS;
    KEEL 21 IV_LIST;
    KEEL 22 GROUP_CHECK;
    KEEL 23 IV_TRACE;
}

/// The name of a method, for logs and tools.
pub fn name(module: i32, method: i32) -> Option<&'static str> {
    ALL.iter()
        .find(|(m, number, _)| (*m, *number) == (module, method))
        .map(|(_, _, name)| *name)
}

/// The (module, number) of a method name, in any case; names are unique over all modules.
pub fn by_name(name: &str) -> Option<(i32, i32)> {
    ALL.iter()
        .find(|(_, _, known)| known.eq_ignore_ascii_case(name))
        .map(|(module, number, _)| (*module, *number))
}
