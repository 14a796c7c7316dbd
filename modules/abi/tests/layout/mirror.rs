//! What the Rust mirror says of itself.

use module_abi::*;
use std::mem::offset_of;

pub struct Struct {
    pub name: &'static str,
    pub size: usize,
    pub align: usize,
    pub fields: Vec<(String, usize, usize)>, // name, offset, size
}

fn field_size<S, F>(_: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! structs {
    ($($name:ident { $($field:ident),* $(,)? })*) => {
        vec![$(Struct {
            name: stringify!($name),
            size: size_of::<$name>(),
            align: align_of::<$name>(),
            fields: vec![$((
                stringify!($field).trim_start_matches("r#").to_owned(),
                offset_of!($name, $field),
                field_size(|s: &$name| &s.$field),
            )),*],
        }),*]
    };
}

pub fn structs() -> Vec<Struct> {
    structs! {
        dss_module_key { dmk_tags, dmk_index, dmk_init, dmk_fini }
        dss_thread_local_storage { dtls_tag, dtls_nr, dtls_values }
        dss_module_info { dmi_xs_id, dmi_tgt_id, dmi_tag, dmi_tgt_nr }
        dss_buf { addr, len, capacity, owner }
        dss_waker_vtbl { clone, wake, wake_by_ref, drop }
        dss_waker { data, vtbl }
        dss_task_ops { poll, drop }
        dss_bdev_info { num_blocks, block_size, max_io_blocks, volatile_write_cache, reserved, device_uuid, engine_uuid, device_name }
        dss_bdev_io { op, flags, lba, blocks, reserved, buf, done, arg }
        dss_rpc_info { opcode, tag, request_id, body, body_len, bulk_len }
        dss_rpc_handler { index, flags, name, handler }
        dss_rpc_proto { version, count, handlers }
        dss_drpc_info { module, method, sequence, body, body_len }
        dss_drpc_handler { module_id, reserved, handler }
        dss_host { size, level, log, log_enabled, now_ns, tls_get, module_info, shutting_down, task_spawn, tasklet, timer_arm, timer_free, poller_register, poller_unregister, buf_alloc, buf_free, bdev_open, bdev_submit, bdev_close, rpc_info, rpc_bulk, rpc_reply, rpc_call, drpc_info, drpc_reply, done, query, metric_register, metric_record,
            ult_create, ult_execute, ult_create_all, collective, offload_exec, main_exec,
            ult_join, ult_free, ult_wake, ult_abort, ult_self, ult_yield, ult_sleep,
            eventual_create, eventual_set, eventual_wait, eventual_test, eventual_reset, eventual_free,
            mutex_create, mutex_lock, mutex_unlock, mutex_free,
            cond_create, cond_wait, cond_signal, cond_broadcast, cond_free,
            barrier_create, barrier_wait, barrier_free, bdev_io_wait, rpc_call_wait, rpc_answer_free,
            sched_req_get, sched_req_turn, sched_req_yield, sched_req_asleep, sched_req_put,
            space_report, space_pressure, space_forget, chore_register,
            iv_class_register, iv_call, iv_call_wait, iv_cached, iv_system_ns, bdev_gone }
        dss_iv_key { class_id, len, bytes }
        dss_iv_version { term, sequence }
        dss_iv_value { data, len }
        dss_iv_place { ns, term, root, reserved }
        dss_iv_request { rank, reserved, incarnation, number }
        dss_iv_class { size, id, name, max_value, lease_ms, reserved, arg, ivc_key_canonical, ivc_ent_init, ivc_ent_put, ivc_ent_fetch, ivc_ent_update, ivc_ent_refresh, ivc_ent_valid, ivc_pre_sync }
        dss_iv_op { opcode, sync, shortcut, flags, timeout_ms, ns, key, value }
        dss_iv_result { rc, attempts, asked, expired, version, value }
        dss_ult_attr { name, xs_type, tgt_id, stack_size, flags, period_ms }
        dss_coll_ops { co_func, co_reduce, co_reduce_arg_alloc, co_reduce_arg_free }
        dss_coll_args { ca_func_args, ca_aggregator, ca_tgt_bitmap, ca_tgt_bitmap_sz, ca_reserved }
        dss_chore_attr { name, xs_type, tgt_id, credits, flags }
        dss_rpc_answer { status, reserved, body, body_len, bulk, owner }
        dss_req_attr { r#type, flags, timeout_ms, reserved, pool_uuid }
        dss_module { sm_magic, sm_size, sm_fingerprint, sm_level, sm_mod_id, sm_ver, sm_reserved, sm_name, sm_facs, sm_host, sm_key, sm_init, sm_fini, sm_setup, sm_cleanup, sm_proto_count, sm_reserved2, sm_proto, sm_drpc_handlers, sm_get_req_attr, sm_needs, sm_provides, sm_about }
    }
}

macro_rules! constants {
    ($($name:ident),* $(,)?) => { vec![$((stringify!($name), i128::from($name))),*] };
}

pub fn constants() -> Vec<(&'static str, i128)> {
    [of_the_engine(), of_incast_variables()].concat()
}

fn of_incast_variables() -> Vec<(&'static str, i128)> {
    constants![
        DSS_IV_KEY_MAX,
        DSS_IV_VALUE_MAX,
        DSS_IV_INLINE_MAX,
        DSS_IV_NOBODY,
        DSS_IV_FETCH,
        DSS_IV_UPDATE,
        DSS_IV_INVALIDATE,
        DSS_IV_NS_CREATE,
        DSS_IV_NS_DESTROY,
        DSS_IV_SYNC_NONE,
        DSS_IV_SYNC_EAGER,
        DSS_IV_SYNC_LAZY,
        DSS_IV_SYNC_BIDIRECTIONAL,
        DSS_IV_SHORTCUT_NONE,
        DSS_IV_SHORTCUT_TO_ROOT,
        DSS_IV_GROUP,
    ]
}

fn of_the_engine() -> Vec<(&'static str, i128)> {
    constants![
        DSS_ABI_MAGIC,
        DSS_ABI_LEVEL,
        DSS_ABI_FINGERPRINT,
        DSS_MODNAME_MAX_LEN,
        DSS_MAX_MODULE,
        DSS_MODULE_KEYS_NR,
        DSS_MAX_PROTO_VERSIONS,
        DSS_MAX_DRPC_MODULE,
        DSS_RPC_BODY_MAX,
        DSS_RPC_BULK_MAX,
        DSS_PENDING,
        DAOS_SYS_TAG,
        DAOS_TGT_TAG,
        DAOS_RDB_TAG,
        DAOS_OFF_TAG,
        DAOS_CLI_TAG,
        DAOS_SERVER_TAG,
        DSS_TASK_PENDING,
        DSS_TASK_READY,
        DSS_RPC_ULT,
        DSS_ULT_PERIODIC,
        DSS_ULT_DEEP_STACK,
        DSS_ULT_CANCEL,
        DSS_DEEP_STACK_SZ,
        DSS_FOREVER,
        DSS_COLL_LEFT_OUT,
        DSS_CHORE_NEW,
        DSS_CHORE_YIELD,
        DSS_CHORE_DONE,
        DSS_CHORE_CANCELED,
        DSS_CHORE_PRIORITY,
        DSS_BDEV_FUA,
        DSS_XS_SELF,
        DSS_XS_VOS,
        DSS_XS_IOFW,
        DSS_XS_OFFLOAD,
        DSS_XS_SYS,
        DSS_XS_SWIM,
        DSS_XS_DRPC,
        DSS_BDEV_READ,
        DSS_BDEV_WRITE,
        DSS_BDEV_WRITE_ZEROES,
        DSS_BDEV_UNMAP,
        DSS_BDEV_FLUSH,
        DSS_DRPC_SUCCESS,
        DSS_DRPC_SUBMITTED,
        DSS_DRPC_FAILURE,
        DSS_DRPC_UNKNOWN_MODULE,
        DSS_DRPC_UNKNOWN_METHOD,
        DSS_DRPC_FAILED_UNMARSHAL_CALL,
        DSS_DRPC_FAILED_UNMARSHAL_PAYLOAD,
        DSS_DRPC_FAILED_MARSHAL,
        DSS_METRIC_COUNTER,
        DSS_METRIC_GAUGE,
        DSS_METRIC_HISTOGRAM,
        DSS_LOG_ERROR,
        DSS_LOG_WARN,
        DSS_LOG_INFO,
        DSS_LOG_DEBUG,
        DSS_LOG_TRACE,
    ]
}

macro_rules! function_types {
    ($($name:ident),* $(,)?) => { vec![$((stringify!($name), size_of::<$name>())),*] };
}

/// Name and size, sorted by name.
pub fn function_types() -> Vec<(&'static str, usize)> {
    function_types![
        dss_bdev_done_t,
        dss_chore_func_t,
        dss_drpc_handler_t,
        dss_exec_func_t,
        dss_func_t,
        dss_iv_done_t,
        dss_poller_fn_t,
        dss_query_done_t,
        dss_rpc_done_t,
        dss_rpc_handler_t,
    ]
}
