/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * engine_module.h - all that a Keel module and the engine know of each other.
 *
 * A module is a shared library lib<name>.so with one exported symbol, `struct dss_module <name>_module`. This header
 * is the truth: the Rust mirror (modules/abi/src) is compared with it field by field in a test, and both sides carry
 * DSS_ABI_FINGERPRINT, which the loader compares before it reads anything else.
 *
 * Names follow DAOS (src/include/daos_srv/daos_engine.h) where the concept is its own.
 *
 * Tags. Each function says in brackets where and when it may be called:
 *   [any]        any thread, any state
 *   [main-thread] the process's main thread, while modules are loaded (sm_init, sm_fini)
 *   [xs]         any xstream              [xs:sys] the system xstream        [xs:main] a target's main xstream
 *   [owner]      the xstream on which the object was made or handed to the module
 *   [ult]        a ULT with a stack of its own: the function of a dss_ult_create() and whatever it calls
 *   [serving]    only between sm_setup and the end of sm_cleanup
 * The host checks this at run time: a call from elsewhere is answered -DER_OP_NOT_PERMITTED (or NULL), is logged with
 * the module's name, and has no effect.
 *
 * Return convention: 0 or a positive value on success, a negative DAOS error number (-DER_*) otherwise.
 * Ownership: `const` pointers are borrowed until the call returns. A struct dss_buf passed by value moves.
 * A module never unwinds (C++ exception, Rust panic) across this border, and its library is never unloaded.
 */
#ifndef KEEL_ENGINE_MODULE_H
#define KEEL_ENGINE_MODULE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- versions and bounds ---------------------------------------------------------------------------------------- */

#define DSS_ABI_MAGIC 0x4c45454bu /* "KEEL" in little endian */
/* Grows with every addition; a module needs at most the engine's level. Additions stand behind `#if DSS_ABI_LEVEL >= n`, so a
 * module that defines a lower level before it includes this header is built as with the header of that level, and
 * loads into engines of that level and all later ones. */
#ifndef DSS_ABI_LEVEL
#define DSS_ABI_LEVEL 3u
#endif
/* Hash over names, types, offsets and sizes of everything below at the level (modules/abi/tests/layout computes it and fails
 * with the new value). A level's value never changes once an engine with it is out. */
#if DSS_ABI_LEVEL >= 3
#define DSS_ABI_FINGERPRINT 0x4b92fecb2845565full
#else
#if DSS_ABI_LEVEL >= 2
#define DSS_ABI_FINGERPRINT 0x2c8db88f90881df9ull
#else
#define DSS_ABI_FINGERPRINT 0xa728f244d7239591ull
#endif
#endif

#define DSS_MODNAME_MAX_LEN 32  /* bytes of a module's name, as in DAOS */
#define DSS_MAX_MODULE 64       /* module ids are 0 .. 63, as in DAOS */
#define DSS_MODULE_KEYS_NR 64   /* TLS keys in one engine */
#define DSS_MAX_PROTO_VERSIONS 2 /* RPC protocol versions of one module at once */
#define DSS_MAX_DRPC_MODULE 128 /* dRPC module ids are 0 .. 127 */
#define DSS_RPC_BODY_MAX (1u << 20)
#define DSS_RPC_BULK_MAX (4u << 20)

/* What sm_setup and sm_cleanup return when they will report later through dss_done(). */
#define DSS_PENDING 1

/* ---- TLS: per-xstream storage ----------------------------------------------------------------------------------- */

/* Tags of xstreams and keys; a key has a value on an xstream when the two share a bit. As in DAOS the system xstream
 * has all bits but TGT, a target's main xstream all, an offload xstream OFF: a key with SYS alone has a value on mains, too. */
#define DAOS_SYS_TAG 0x01u
#define DAOS_TGT_TAG 0x02u
#define DAOS_RDB_TAG 0x04u
#define DAOS_OFF_TAG 0x08u
#define DAOS_CLI_TAG 0x10u
#define DAOS_SERVER_TAG 0xffu

struct dss_module_key {
	uint32_t dmk_tags;  /* where the key has a value */
	int32_t  dmk_index; /* set by the engine at registration; -1 before */
	/* Makes the value of one xstream; NULL fails the xstream's start with -DER_NOMEM. [owner] */
	void *(*dmk_init)(uint32_t tags, int32_t xs_id, int32_t tgt_id);
	/* Destroys it, in reverse order of construction. [owner] */
	void (*dmk_fini)(uint32_t tags, void *value);
};

/* One xstream's storage. Only that xstream may use it. */
struct dss_thread_local_storage {
	uint32_t dtls_tag;
	uint32_t dtls_nr; /* number of slots */
	void    *dtls_values[DSS_MODULE_KEYS_NR];
};

/* Who runs this code. */
struct dss_module_info {
	int32_t  dmi_xs_id;
	int32_t  dmi_tgt_id; /* -1 on the system xstream and on pooled offload xstreams */
	uint32_t dmi_tag;
	uint32_t dmi_tgt_nr; /* targets in this engine */
};

/* ---- buffers ---------------------------------------------------------------------------------------------------- */

/* An owned, page-aligned buffer that a device may read and write. Empty when addr is NULL. */
struct dss_buf {
	void    *addr;
	uint64_t len;
	uint64_t capacity;
	void    *owner; /* the engine's; modules leave it alone */
};

/* ---- tasks ------------------------------------------------------------------------------------------------------ */

/* Which xstream: DAOS's enum dss_xs_type. SWIM and DRPC are served by the system xstream. */
enum dss_xs_type {
	DSS_XS_SELF = -1,
	DSS_XS_VOS = 0,     /* the main xstream of a target */
	DSS_XS_IOFW = 1,    /* I/O forwarding: a target's first offload xstream */
	DSS_XS_OFFLOAD = 2, /* computation: a target's last offload xstream */
	DSS_XS_SYS = 3,
	DSS_XS_SWIM = 4,
	DSS_XS_DRPC = 5,
};

/* Wakes one task; may be used and dropped from any thread. */
struct dss_waker_vtbl {
	void *(*clone)(void *data);
	void (*wake)(void *data);        /* wakes, and gives the reference up */
	void (*wake_by_ref)(void *data); /* wakes, and keeps the reference */
	void (*drop)(void *data);
};
struct dss_waker {
	void                        *data;
	const struct dss_waker_vtbl *vtbl;
};

#define DSS_TASK_PENDING 0
#define DSS_TASK_READY 1

/* A task (ULT without a stack of its own): polled on its xstream until it is ready, then dropped there. */
struct dss_task_ops {
	int32_t (*poll)(void *data, const struct dss_waker *waker); /* DSS_TASK_*; the waker is borrowed: clone it to keep it */
	void (*drop)(void *data);
};

/* ---- block devices ---------------------------------------------------------------------------------------------- */

struct dss_bdev;   /* this target's share of its device, open on this xstream */
struct dss_poller;
struct dss_timer;
struct dss_rpc;    /* one incoming request */
struct dss_drpc;   /* one incoming dRPC call */
struct dss_done;   /* a result that is owed */
struct dss_metric;

enum dss_bdev_op {
	DSS_BDEV_READ = 0,
	DSS_BDEV_WRITE = 1,
	DSS_BDEV_WRITE_ZEROES = 2,
	DSS_BDEV_UNMAP = 3,
	DSS_BDEV_FLUSH = 4,
};
#define DSS_BDEV_FUA 1u /* the write is durable when it completes */

struct dss_bdev_info {
	uint64_t num_blocks; /* of the share; block 0 is the share's first */
	uint32_t block_size; /* bytes */
	uint32_t max_io_blocks;
	uint32_t volatile_write_cache; /* 1: only a flush or FUA makes a write durable */
	uint32_t reserved;
	uint8_t  device_uuid[16];
	uint8_t  engine_uuid[16]; /* the engine that owns the share; stores stamp it into what they format */
	char     device_name[64]; /* NUL-terminated */
};

/* Called once per accepted I/O, on the xstream that submitted it. The buffer comes back. */
typedef void (*dss_bdev_done_t)(void *arg, int32_t rc, struct dss_buf buf);

struct dss_bdev_io {
	uint32_t        op;    /* enum dss_bdev_op */
	uint32_t        flags; /* DSS_BDEV_* */
	uint64_t        lba;   /* first block of the share */
	uint32_t        blocks;
	uint32_t        reserved;
	struct dss_buf  buf; /* moves to the engine when the submission is accepted; empty where the op has no data */
	dss_bdev_done_t done;
	void           *arg;
};

/* ---- RPC -------------------------------------------------------------------------------------------------------- */

#define DSS_RPC_OPCODE(module, version, index) (((uint32_t)(module) << 24) | ((uint32_t)(version) << 16) | (uint32_t)(index))

struct dss_rpc_info {
	uint32_t       opcode;
	uint32_t       tag; /* 0: system xstream; 1 + t: main xstream of target t */
	uint64_t       request_id;
	const uint8_t *body; /* lives until the reply */
	uint64_t       body_len;
	uint64_t       bulk_len; /* take it with dss_rpc_bulk() */
};

/* Runs on the xstream of the request's tag; replies now or later, once, with dss_rpc_reply(). [xs] */
typedef void (*dss_rpc_handler_t)(struct dss_rpc *rpc);

#if DSS_ABI_LEVEL >= 2
#define DSS_RPC_ULT 1u /* in dss_rpc_handler.flags: the handler is called in a ULT of its own, so that it may wait. [ult] */
#endif

struct dss_rpc_handler {
	uint32_t          index; /* low 16 bits of the opcode */
	uint32_t          flags; /* DSS_RPC_*; 0 at level 1 */
	const char       *name;
	dss_rpc_handler_t handler;
};

/* One version of a module's protocol. */
struct dss_rpc_proto {
	uint32_t                      version; /* 1 .. 255 */
	uint32_t                      count;
	const struct dss_rpc_handler *handlers;
};

/* Answer to dss_rpc_call(), on the caller's xstream. body is borrowed; bulk moves to the callee. */
typedef void (*dss_rpc_done_t)(void *arg, int32_t rc, const uint8_t *body, uint64_t body_len, struct dss_buf bulk);

/* ---- dRPC ------------------------------------------------------------------------------------------------------- */

enum dss_drpc_status { /* drpc.Status */
	DSS_DRPC_SUCCESS = 0,
	DSS_DRPC_SUBMITTED = 1,
	DSS_DRPC_FAILURE = 2,
	DSS_DRPC_UNKNOWN_MODULE = 3,
	DSS_DRPC_UNKNOWN_METHOD = 4,
	DSS_DRPC_FAILED_UNMARSHAL_CALL = 5,
	DSS_DRPC_FAILED_UNMARSHAL_PAYLOAD = 6,
	DSS_DRPC_FAILED_MARSHAL = 7,
};

struct dss_drpc_info {
	int32_t        module;
	int32_t        method;
	int64_t        sequence;
	const uint8_t *body; /* lives until the reply */
	uint64_t       body_len;
};

/* Runs on the system xstream; replies now or later, once, with dss_drpc_reply(). [xs:sys] */
typedef void (*dss_drpc_handler_t)(struct dss_drpc *call);

/* Ends with an entry whose handler is NULL. */
struct dss_drpc_handler {
	int32_t            module_id; /* 0 .. DSS_MAX_DRPC_MODULE - 1, unique in the engine */
	int32_t            reserved;
	dss_drpc_handler_t handler;
};

/* ---- ULTs with a stack of their own, and what they wait with (level 2) ------------------------------------------- */

#if DSS_ABI_LEVEL >= 2

/* A ULT runs straight-line C on a stack of its own, on one xstream, and never changes it. It gives way only in functions
 * marked [ult], so between two of them nothing else of its xstream runs. It must not be left by longjmp or an exception.
 * Handles are valid on every xstream of the engine; a stale one is answered -DER_INVAL. */
struct dss_ult;
struct dss_eventual; /* a value that comes later */
struct dss_mutex;    /* held over waits; handed on in order of arrival */
struct dss_cond;
struct dss_barrier;
struct dss_sched_req; /* a place in a target's scheduler */

#define DSS_ULT_PERIODIC 1u   /* housekeeping: does not count as busy, keeps no core from resting */
#define DSS_ULT_DEEP_STACK 2u /* a stack of DSS_DEEP_STACK_SZ when stack_size is 0 */
/* An abort, or the end of its xstream, also ends what the ULT waits for: the eventual_wait, mutex_lock, cond_wait, barrier_wait or ult_join under way, or
 * else the next one that would have to wait, answers -DER_CANCELED. Once: told so, or by ult_yield or ult_sleep, it waits as ever from then on,
 * so that it can clean up. I/O, RPCs, executes and collectives are never cut short: others work with the caller's memory. */
#define DSS_ULT_CANCEL 4u
#define DSS_DEEP_STACK_SZ 262144u
#define DSS_FOREVER UINT64_MAX

/* Where and how a ULT runs. */
struct dss_ult_attr {
	const char *name;       /* copied; not empty. Shown by `keel tasks`, the watchdog and the log */
	int32_t     xs_type;    /* enum dss_xs_type */
	int32_t     tgt_id;     /* where xs_type needs one */
	uint64_t    stack_size; /* bytes, rounded up; 0: the default */
	uint32_t    flags;      /* DSS_ULT_* */
	uint32_t    period_ms;  /* not 0: func runs every so often until the ULT is aborted or its xstream stops; implies PERIODIC */
};

typedef int32_t (*dss_exec_func_t)(void *arg);

#define DSS_COLL_LEFT_OUT 1 /* what co_reduce hears of a target that is not in the bitmap */

/* A collective: the same work on the main xstreams of many targets. DAOS's struct of that name; co_func gets the target's
 * argument beside the common one instead of looking it up. */
struct dss_coll_ops {
	/* Runs on each target's main xstream; 0 or a negative error. Not NULL. [xs:main] */
	int32_t (*co_func)(void *f_args, void *st_arg);
	/* On the caller, for every target in order: rc 0 or negative, or DSS_COLL_LEFT_OUT. May be NULL. [owner] */
	void (*co_reduce)(void *aggregator, int32_t tgt_id, void *st_arg, int32_t rc);
	/* On the caller, for each target in the bitmap; a negative answer is that target's result. May be NULL: st_arg is NULL. [owner] */
	int32_t (*co_reduce_arg_alloc)(void *aggregator, int32_t tgt_id, void **st_arg);
	/* On the caller, after co_reduce, where the allocation succeeded. Not NULL when there is an alloc. [owner] */
	void (*co_reduce_arg_free)(void *aggregator, void *st_arg);
};

struct dss_coll_args {
	void          *ca_func_args;
	void          *ca_aggregator;
	const uint8_t *ca_tgt_bitmap; /* a bit per target, least significant first; NULL: all. Targets past its end are left out */
	uint32_t       ca_tgt_bitmap_sz; /* bytes */
	uint32_t       ca_reserved;
};

#define DSS_CHORE_NEW 0       /* the first step */
#define DSS_CHORE_YIELD 1     /* one more step; as an answer: there is more to do */
#define DSS_CHORE_DONE 2      /* as an answer: that was the last step */
#define DSS_CHORE_CANCELED 3  /* no step: its xstream ends first, and it is never called again; the answer is ignored */
#define DSS_CHORE_PRIORITY 1u /* takes more credits than there are, at most twice as many */

/* Work in short steps for an offload xstream. */
struct dss_chore_attr {
	const char *name;    /* copied; not empty */
	int32_t     xs_type; /* DSS_XS_IOFW or DSS_XS_OFFLOAD */
	int32_t     tgt_id;
	uint32_t    credits; /* what it takes of the xstream's, until its last step; at least 1 */
	uint32_t    flags;   /* DSS_CHORE_PRIORITY */
};

/* A step; it must not wait. status: DSS_CHORE_NEW, then DSS_CHORE_YIELD, or DSS_CHORE_CANCELED. Answers DSS_CHORE_YIELD or DSS_CHORE_DONE. */
typedef int32_t (*dss_chore_func_t)(void *arg, int32_t status);

/* The answer to a dss_rpc_call_wait(). Give it back with dss_rpc_answer_free(). */
struct dss_rpc_answer {
	int32_t        status; /* the handler's, or the engine's when there is no such handler or target: 0 or negative */
	uint32_t       reserved;
	const uint8_t *body;
	uint64_t       body_len;
	struct dss_buf bulk;     /* goes back with the answer unless the module takes it and leaves an empty one */
	void          *owner;    /* the engine's; modules leave it alone */
};

#endif /* DSS_ABI_LEVEL >= 2 */

/* ---- incast variables (level 3) ---------------------------------------------------------------------------------- */

#if DSS_ABI_LEVEL >= 3

/* A value that all engines of a group share: stamped by the root, cached by each engine and each of its xstreams (docs/internals/iv.md).
 * What DAOS's src/include/daos_srv/iv.h calls IV. */

#define DSS_IV_KEY_MAX 48
#define DSS_IV_VALUE_MAX (4u << 20)  /* the most that a class may ask for */
#define DSS_IV_INLINE_MAX 19456u     /* longer values travel as bulk data */
#define DSS_IV_NOBODY 0xffffffffu    /* in place of a rank */

enum dss_iv_opcode {
	DSS_IV_FETCH = 0,
	DSS_IV_UPDATE = 1,
	DSS_IV_INVALIDATE = 2,
	DSS_IV_NS_CREATE = 3,  /* one more user of a namespace; the first makes it */
	DSS_IV_NS_DESTROY = 4, /* one user less; with the last one goes the namespace */
};

/* How a change comes down from the root. 0 to 2 are DAOS's sync modes, 3 is its flag BIDIRECTIONAL. */
enum dss_iv_sync {
	DSS_IV_SYNC_NONE = 0,          /* not at all: done when the root has it */
	DSS_IV_SYNC_EAGER = 1,         /* to all: done when all have it, in the caches of their xstreams, too */
	DSS_IV_SYNC_LAZY = 2,          /* to all: done when the root has it */
	DSS_IV_SYNC_BIDIRECTIONAL = 3, /* what the root makes of it comes back the way that the change went up. Updates only */
};

enum dss_iv_shortcut {
	DSS_IV_SHORTCUT_NONE = 0,    /* from parent to parent */
	DSS_IV_SHORTCUT_TO_ROOT = 1, /* straight to the root. Changes only */
};

#define DSS_IV_GROUP 1u /* of NS_CREATE: shared by all engines of the group, each of which creates it; else by the xstreams of this one */

struct dss_iv_key {
	uint32_t class_id;
	uint32_t len; /* of bytes, at most DSS_IV_KEY_MAX */
	uint8_t  bytes[DSS_IV_KEY_MAX];
};

/* Stamped by the root: the term of the leader, and a number that grows within it. Never goes back anywhere. */
struct dss_iv_version {
	uint64_t term;
	uint64_t sequence;
};

/* data NULL: an invalidation, where there may be one. An empty value has len 0 and any other data. */
struct dss_iv_value {
	const uint8_t *data;
	uint64_t       len;
};

/* Where a hook runs. */
struct dss_iv_place {
	uint8_t  ns[16];
	uint64_t term; /* of the leader, as this rank knows it */
	uint32_t root; /* 1: this rank is the root */
	uint32_t reserved;
};

/* Names a change over all its attempts. */
struct dss_iv_request {
	uint32_t rank;
	uint32_t reserved;
	uint64_t incarnation; /* which life of that rank */
	uint64_t number;
};

/* A class: what a key means, and what happens to a value. DAOS: struct ds_iv_class_ops. Any hook may be NULL, which suits a plain value.
 *
 * Hooks run on the system xstream, one at a time, as a plain call: [xs:sys], never [ult], and must return at once. One that would have to wait answers
 * -DER_BUSY, and the operation comes again until its deadline. From a hook iv_cached() answers that there is nothing, iv_call() -DER_OP_NOT_PERMITTED.
 * They are called between sm_setup and the end of sm_cleanup; before, others hear -DER_BUSY and try again, afterwards -DER_UNREACH.
 * What a hook is given is borrowed for the call; a value that it answers is the module's, and must live until the next call of a hook of this class. */
struct dss_iv_class {
	uint32_t    size;      /* sizeof(struct dss_iv_class) */
	uint32_t    id;        /* the same in every engine: 1 .. 63 as in DAOS, from 256 on for others */
	const char *name;      /* copied; [a-z0-9_]+. Shown by `keel iv`, in metrics and the log */
	uint64_t    max_value; /* bytes, at most DSS_IV_VALUE_MAX; 0: DSS_IV_INLINE_MAX */
	uint32_t    lease_ms;  /* how long a rank may serve a value after the root vouched for it; 0: 30 s */
	uint32_t    reserved;
	void       *arg;       /* of all hooks */

	/* Equal keys: writes the one that stands for all that are equal to this one (DAOS compares; one that stands for others can be looked up).
	 * Not 0: the key stands for itself. */
	int32_t (*ivc_key_canonical)(void *arg, const struct dss_iv_key *key, struct dss_iv_key *out);
	/* This rank is about to keep something for the key, and keeps nothing any more. */
	void (*ivc_ent_init)(void *arg, const struct dss_iv_key *key);
	void (*ivc_ent_put)(void *arg, const struct dss_iv_key *key);
	/* At the root, which has no valid value: gives one. kept is what this rank had, data NULL if nothing. An error goes to whoever asked:
	 * -DER_NONEXIST for a variable that nobody has set. NULL: what was kept. */
	int32_t (*ivc_ent_fetch)(void *arg, const struct dss_iv_place *at, const struct dss_iv_key *key, const struct dss_iv_value *kept, struct dss_iv_value *out);
	/* A change on its way up, at each rank that it passes, and at the root, where it takes effect. out, the change itself before, is what goes on.
	 * request is the same when a change comes again. An error refuses it. */
	int32_t (*ivc_ent_update)(void *arg, const struct dss_iv_place *at, const struct dss_iv_key *key, const struct dss_iv_request *request, const struct dss_iv_value *change, struct dss_iv_value *out);
	/* This rank learns of a newer version: back from a fetch, or down from a change. An error: it does not take it, and an eager update fails. */
	int32_t (*ivc_ent_refresh)(void *arg, const struct dss_iv_place *at, const struct dss_iv_key *key, const struct dss_iv_version *version, const struct dss_iv_value *change);
	/* 1: what this rank has may be served, beyond what leases say. */
	int32_t (*ivc_ent_valid)(void *arg, const struct dss_iv_key *key, const struct dss_iv_version *version);
	/* Before a change goes on to this rank's children. */
	void (*ivc_pre_sync)(void *arg, const struct dss_iv_place *at, const struct dss_iv_key *key, const struct dss_iv_value *change);
};

/* An operation. */
struct dss_iv_op {
	uint32_t            opcode;     /* enum dss_iv_opcode */
	uint32_t            sync;       /* enum dss_iv_sync; of changes */
	uint32_t            shortcut;   /* enum dss_iv_shortcut; of changes */
	uint32_t            flags;      /* DSS_IV_GROUP; of NS_CREATE */
	uint64_t            timeout_ms; /* not 0; of FETCH, UPDATE and INVALIDATE: it is tried again until then */
	uint8_t             ns[16];
	struct dss_iv_key   key;   /* not of NS_* */
	struct dss_iv_value value; /* of UPDATE; copied */
};

/* What became of it. */
struct dss_iv_result {
	int32_t               rc;       /* 0, or what was wrong last */
	uint32_t              attempts; /* of one that failed */
	uint32_t              asked;    /* the rank that the last attempt asked, or DSS_IV_NOBODY */
	uint32_t              expired;  /* 1: its time was up, another try could have worked */
	struct dss_iv_version version;
	struct dss_iv_value   value;    /* of FETCH, and of a bidirectional UPDATE; borrowed */
};

/* On the xstream that asked. */
typedef void (*dss_iv_done_t)(void *arg, const struct dss_iv_result *result);

#endif /* DSS_ABI_LEVEL >= 3 */

/* ---- engine queries --------------------------------------------------------------------------------------------- */

/* Asks the engine itself; the numbers are the methods of Keel's dRPC module (docs/internals/drpc.md), in and out are
 * their protobuf messages. Answered on the caller's xstream. */
typedef void (*dss_query_done_t)(void *arg, int32_t rc, const uint8_t *out, uint64_t out_len);

/* ---- metrics ---------------------------------------------------------------------------------------------------- */

enum dss_metric_type { DSS_METRIC_COUNTER = 0, DSS_METRIC_GAUGE = 1, DSS_METRIC_HISTOGRAM = 2 };

/* ---- the host: what the engine offers --------------------------------------------------------------------------- */

enum dss_log_level { DSS_LOG_ERROR = 1, DSS_LOG_WARN = 2, DSS_LOG_INFO = 3, DSS_LOG_DEBUG = 4, DSS_LOG_TRACE = 5 };

typedef void (*dss_func_t)(void *arg);
typedef int32_t (*dss_poller_fn_t)(void *arg); /* 1: did something, 0: idle */

struct dss_module;
struct dss_req_attr;

struct dss_host {
	uint32_t size;  /* sizeof(struct dss_host) */
	uint32_t level; /* DSS_ABI_LEVEL of the engine */

	/* Logs one message; bytes, need not end with NUL. [any] */
	void (*log)(const struct dss_module *self, int32_t level, const char *msg, uint64_t len);
	/* 1 when the log mask lets messages of this level through: ask before formatting a costly one. [any] */
	int32_t (*log_enabled)(const struct dss_module *self, int32_t level);
	/* Monotonic time in nanoseconds. [any] */
	uint64_t (*now_ns)(void);

	/* This xstream's storage; NULL on a thread that is no xstream. [any] */
	struct dss_thread_local_storage *(*tls_get)(void);
	/* Who runs this code; NULL on a thread that is no xstream. [any] */
	const struct dss_module_info *(*module_info)(void);
	/* 1 once the engine has begun to shut down. [any] */
	int32_t (*shutting_down)(void);

	/* Runs a task on an xstream; name is copied. The engine owns data from success on. [xs]
	 * -DER_SHUTDOWN once the engine stops, -DER_NOMEM at the task limit, -DER_INVAL for an unknown kind or target. */
	int32_t (*task_spawn)(const struct dss_module *self, const char *name, int32_t xs_type, int32_t tgt_id, const struct dss_task_ops *ops, void *data);
	/* Runs func(arg) once, to completion, on an xstream. Same errors. [any, serving] */
	int32_t (*tasklet)(const struct dss_module *self, const char *name, int32_t xs_type, int32_t tgt_id, dss_func_t func, void *arg);
	/* Wakes the waker once, no earlier than deadline_ns; NULL at the limit. [xs] */
	struct dss_timer *(*timer_arm)(const struct dss_module *self, uint64_t deadline_ns, const struct dss_waker *waker);
	/* Ends a timer, fired or not. [owner] */
	void (*timer_free)(struct dss_timer *timer);
	/* Calls fn on this xstream every turn (period_ns 0) or every period_ns. [xs] */
	struct dss_poller *(*poller_register)(const struct dss_module *self, const char *name, uint64_t period_ns, dss_poller_fn_t fn, void *arg);
	/* Legal from inside the poller. [owner] */
	void (*poller_unregister)(struct dss_poller *poller);

	/* A zeroed buffer of at least len bytes; -DER_NOMEM when the engine's pool is empty. [xs] */
	int32_t (*buf_alloc)(uint64_t len, struct dss_buf *out);
	/* Gives a buffer back; an empty one is fine. [any] */
	void (*buf_free)(struct dss_buf buf);

	/* Opens this target's share of its device. [xs:main] -DER_NONEXIST: the target has no device. -DER_IO: the device is evicted or removed. */
	int32_t (*bdev_open)(const struct dss_module *self, struct dss_bdev_info *info, struct dss_bdev **out);
	/* Starts an I/O. 0: done will be called once. Negative: it will not, and io->buf stays the caller's.
	 * -DER_AGAIN: queue full, -DER_INVAL: outside the share or buffer too small. [owner] */
	int32_t (*bdev_submit)(struct dss_bdev *bdev, const struct dss_bdev_io *io);
	/* Closes it; I/O in flight completes first. [owner] */
	void (*bdev_close)(struct dss_bdev *bdev);

	/* The request as received. [owner] */
	void (*rpc_info)(struct dss_rpc *rpc, struct dss_rpc_info *out);
	/* Takes the request's bulk data; empty when there is none. [owner] */
	struct dss_buf (*rpc_bulk)(struct dss_rpc *rpc);
	/* Answers and ends the request; body is copied, bulk moves (its first bulk.len bytes are sent). [owner] */
	void (*rpc_reply)(struct dss_rpc *rpc, int32_t rc, const uint8_t *body, uint64_t body_len, struct dss_buf bulk);
	/* Calls a handler in this engine, on the xstream of a tag. 0: done will be called once. Negative: it will not, and
	 * bulk stays the caller's. [xs, serving or sm_setup] */
	int32_t (*rpc_call)(const struct dss_module *self, uint32_t tag, uint32_t opcode, const uint8_t *body, uint64_t body_len, struct dss_buf bulk, dss_rpc_done_t done, void *arg);

	/* The call as received. [owner] */
	void (*drpc_info)(struct dss_drpc *call, struct dss_drpc_info *out);
	/* Answers and ends the call; body is copied. status: enum dss_drpc_status. [owner] */
	void (*drpc_reply)(struct dss_drpc *call, int32_t status, const uint8_t *body, uint64_t body_len);

	/* Reports the result of a setup or cleanup that returned DSS_PENDING. [xs:sys] */
	void (*done)(struct dss_done *done, int32_t rc);

	/* Asks the engine; 0: done will be called once. [xs:sys] */
	int32_t (*query)(const struct dss_module *self, uint32_t method, const uint8_t *in, uint64_t in_len, dss_query_done_t done, void *arg);

	/* Registers a metric, shown as keel_<module>_<name>{target="<tgt_id>"} (no label for tgt_id < 0). NULL when the name is
	 * not [a-z0-9_]+ or the module has 256 of them. [any] */
	struct dss_metric *(*metric_register)(const struct dss_module *self, int32_t type, const char *name, const char *help, int32_t tgt_id);
	/* Adds to a counter, sets a gauge, records into a histogram. [any] */
	void (*metric_record)(struct dss_metric *metric, double value);

#if DSS_ABI_LEVEL >= 2
	/* Creates a ULT that runs func(arg). ult: NULL detaches it; else a handle, to be given up with ult_free. [xs]
	 * -DER_SHUTDOWN once the engine stops, -DER_NOMEM at a limit (ULTs, stacks, handles), -DER_AGAIN when the other xstream is
	 * overloaded, -DER_INVAL without func or name and for an unknown kind or target. */
	int32_t (*ult_create)(const struct dss_module *self, const struct dss_ult_attr *attr, dss_func_t func, void *arg, struct dss_ult **ult);
	/* Runs func(arg) in a new ULT. Without done it waits and answers func's result [ult]; with done it does not wait, and the new
	 * ULT calls done(done_arg) after func [xs]. Errors as ult_create; -DER_MISC when the ULT ended without a result. */
	int32_t (*ult_execute)(const struct dss_module *self, const struct dss_ult_attr *attr, dss_exec_func_t func, void *arg, dss_func_t done, void *done_arg);
	/* Creates a detached ULT on every xstream (main_only: on every main xstream) in id order; the kind and target of attr
	 * are not looked at. Stops at the first failure; those before it run. [xs] Errors as ult_create. */
	int32_t (*ult_create_all)(const struct dss_module *self, const struct dss_ult_attr *attr, dss_func_t func, void *arg, int32_t main_only);
	/* Runs a collective and waits: in ULTs, or (tasklets) each part in one go without a stack of its own. The answer is the first
	 * error in target order. -DER_INVAL without ops, args or co_func, and for an alloc without a free; -DER_CANCELED without targets. [ult] */
	int32_t (*collective)(const struct dss_module *self, const struct dss_ult_attr *attr, const struct dss_coll_ops *ops, const struct dss_coll_args *args, int32_t tasklets);
	/* Runs func(arg) in a ULT on this target's offload xstream and answers its result. [ult, xs:main] */
	int32_t (*offload_exec)(const struct dss_module *self, const char *name, dss_exec_func_t func, void *arg);
	/* Creates a detached ULT here. [xs:main, xs:sys] */
	int32_t (*main_exec)(const struct dss_module *self, const char *name, dss_func_t func, void *arg);

	/* Waits for a ULT's end: 0, or -DER_MISC when it did not come to the end of its function. Any number of times. [ult] */
	int32_t (*ult_join)(struct dss_ult *ult);
	/* Gives a handle up; a ULT that runs is detached. [any] */
	int32_t (*ult_free)(struct dss_ult *ult);
	/* Ends its dss_sleep(); nothing if it does not sleep or has ended. [xs] */
	int32_t (*ult_wake)(struct dss_ult *ult);
	/* Asks it to end: wakes it, ult_yield answers 1 from then on. It ends only where it asks (see DSS_ULT_CANCEL). [xs] */
	int32_t (*ult_abort)(struct dss_ult *ult);
	/* A handle on the calling ULT, to be given up with ult_free; NULL at the limit. [ult] */
	struct dss_ult *(*ult_self)(void);
	/* 1: come to your end (aborted, or the xstream stops). Otherwise lets others run, and 0. [ult] */
	int32_t (*ult_yield)(void);
	/* Sleeps: 0 when the time was up, 1 when woken or aborted before. 0 ms, after an abort and on a stopping xstream it only yields. [ult] */
	int32_t (*ult_sleep)(uint64_t ms);

	/* Primitives: made on any xstream, used on all of them. At the bound of objects -DER_NOMEM. Those that wait do so for
	 * timeout_ms (DSS_FOREVER: without end; 0: not at all) and answer -DER_TIMEDOUT; an abort ends the wait with DSS_ULT_CANCEL only. */
	int32_t (*eventual_create)(const struct dss_module *self, struct dss_eventual **out); /* [xs] */
	/* -DER_ALREADY when it is set. Wakes all who wait. [any] */
	int32_t (*eventual_set)(struct dss_eventual *eventual, int64_t value);
	int32_t (*eventual_wait)(struct dss_eventual *eventual, uint64_t timeout_ms, int64_t *value); /* value may be NULL. [ult] */
	int32_t (*eventual_test)(struct dss_eventual *eventual, int64_t *value); /* 1: set, 0: not yet. [any] */
	int32_t (*eventual_reset)(struct dss_eventual *eventual); /* unset again. [any] */
	int32_t (*eventual_free)(struct dss_eventual *eventual);  /* who waits gets -DER_CANCELED. [any] */

	int32_t (*mutex_create)(const struct dss_module *self, struct dss_mutex **out); /* [xs] */
	int32_t (*mutex_lock)(struct dss_mutex *mutex, uint64_t timeout_ms); /* -DER_BUSY: this ULT holds it already. [ult] */
	int32_t (*mutex_unlock)(struct dss_mutex *mutex); /* -DER_NO_PERM: this ULT does not hold it. [ult] */
	int32_t (*mutex_free)(struct dss_mutex *mutex);   /* -DER_BUSY while it is held. [any] */

	int32_t (*cond_create)(const struct dss_module *self, struct dss_cond **out); /* [xs] */
	/* Unlocks the mutex and waits as one step; has the mutex again when it answers, -DER_TIMEDOUT included. [ult] */
	int32_t (*cond_wait)(struct dss_cond *cond, struct dss_mutex *mutex, uint64_t timeout_ms);
	int32_t (*cond_signal)(struct dss_cond *cond);    /* wakes the one that has waited longest. [any] */
	int32_t (*cond_broadcast)(struct dss_cond *cond); /* [any] */
	int32_t (*cond_free)(struct dss_cond *cond);      /* -DER_BUSY while somebody waits. [any] */

	int32_t (*barrier_create)(const struct dss_module *self, uint32_t count, struct dss_barrier **out); /* [xs] */
	int32_t (*barrier_wait)(struct dss_barrier *barrier); /* 1 for the last to come, 0 for the others; then it begins anew. [ult] */
	int32_t (*barrier_free)(struct dss_barrier *barrier); /* -DER_BUSY while somebody waits. [any] */

	/* An I/O, waited for: its result. io->done and io->arg are not looked at; the buffer is in io->buf again afterwards.
	 * Waits for a place when the queue is full. Errors as bdev_submit, and those of the device. [ult, owner] */
	int32_t (*bdev_io_wait)(struct dss_bdev *bdev, struct dss_bdev_io *io);
	/* An RPC, waited for. 0: out is filled. Negative: it is not, the call was not made or has no answer. bulk moves when it is
	 * not NULL, and is empty afterwards. [ult, serving] */
	int32_t (*rpc_call_wait)(const struct dss_module *self, uint32_t tag, uint32_t opcode, const uint8_t *body, uint64_t body_len, struct dss_buf *bulk, struct dss_rpc_answer *out);
	void (*rpc_answer_free)(struct dss_rpc_answer *answer); /* [any] */

	/* The scheduler of a target (docs/internals/sched.md): work in slices, which waits for its turn before each. */
	/* A place for work of attr->type on behalf of attr->pool_uuid, to be given up with sched_req_put. [xs:main]
	 * -DER_INVAL for an anonymous or unknown class, -DER_NOMEM at the limit of handles. */
	int32_t (*sched_req_get)(const struct dss_module *self, const struct dss_req_attr *attr, struct dss_sched_req **out);
	/* From a task's poll: DSS_TASK_READY when the turn of the next slice has come, else DSS_TASK_PENDING, and the waker is woken then. By one
	 * task at a time. [owner] */
	int32_t (*sched_req_turn)(struct dss_sched_req *req, const struct dss_waker *waker);
	int32_t (*sched_req_yield)(struct dss_sched_req *req); /* waits for the turn. [ult, owner] */
	/* 1: it has nothing to do until its next turn, so that a pool without space does not wait for it. [owner] */
	int32_t (*sched_req_asleep)(struct dss_sched_req *req, int32_t asleep);
	void (*sched_req_put)(struct dss_sched_req *req); /* [owner] */
	/* What a pool has on this target, bytes; total 0: no limit. gc_gap_ms: how long freeing may have to sleep though there is
	 * something to free. As often as it changes: it is looked at every 2000 ms. [xs:main] */
	int32_t (*space_report)(const struct dss_module *self, const uint8_t *pool_uuid, uint64_t total, uint64_t free, uint32_t gc_gap_ms);
	int32_t (*space_pressure)(const struct dss_module *self, const uint8_t *pool_uuid); /* 0 (none) to 5. [xs:main] */
	int32_t (*space_forget)(const struct dss_module *self, const uint8_t *pool_uuid); /* the pool is gone. [xs:main] */

	/* Chores (docs/internals/xstream.md): one step of one chore a turn, in rounds, new ones first. Without offload xstreams each runs as a
	 * task on the main that would serve attr->xs_type. -DER_AGAIN without enough credits (*available, which may be NULL, says how many there are) or
	 * at the mailbox's bound, -DER_CANCELED when the engine stops, -DER_INVAL for what is not as above. func is called only if it answers 0. [any, serving] */
	int32_t (*chore_register)(const struct dss_module *self, const struct dss_chore_attr *attr, dss_chore_func_t func, void *arg, uint32_t *available);
#endif

#if DSS_ABI_LEVEL >= 3
	/* Registers a class; the struct is copied, its arg and hooks are used until the xstreams have ended. In sm_init, so that every engine knows it before
	 * others ask. -DER_EXIST: the id is taken; -DER_INVAL: size, id, name or max_value; -DER_OP_NOT_PERMITTED after sm_init. [main-thread] */
	int32_t (*iv_class_register)(const struct dss_module *self, const struct dss_iv_class *iv_class);
	/* Starts an operation. 0: done will be called once, if it is not NULL. Negative: it will not. [xs, serving]
	 * -DER_INVAL: an unknown opcode, sync, shortcut or flag, a key that is too long, no time-out, an update with a NULL value, a shortcut of what is no change.
	 * In the result: -DER_NONEXIST for an unknown namespace or class and for a variable that nobody has set, -DER_OVERFLOW for a value over the class's
	 * bound, -DER_INVAL for a bidirectional invalidation, -DER_BUSY and -DER_NOMEM at bounds, -DER_SHUTDOWN, what a hook answered; after the time-out the last of
	 * -DER_TIMEDOUT, -DER_GRPVER, -DER_NOTLEADER, -DER_OOG, -DER_UNREACH, -DER_BUSY. An eager update that fails may have reached some. Namespaces that a module
	 * has created and not destroyed end after its sm_cleanup. */
	int32_t (*iv_call)(const struct dss_module *self, const struct dss_iv_op *op, dss_iv_done_t done, void *arg);
	/* The same, waited for: answers result->rc, or why it did not start. The value is copied to buf if it fits, and result->value.data is buf, or else NULL
	 * with the value's len (so that a fetch without a buffer fills the cache). result may be NULL. [ult, serving] */
	int32_t (*iv_call_wait)(const struct dss_module *self, const struct dss_iv_op *op, void *buf, uint64_t capacity, struct dss_iv_result *result);
	/* What this xstream may serve at once, without asking any other: the bytes of the value, which is copied if it fits, or -DER_NONEXIST. version may be
	 * NULL. A variable comes into an xstream's cache with its first fetch there, and is kept up to date from then on. Where keys are
	 * equal to others, it is found by the one that stands for them. [xs] */
	int64_t (*iv_cached)(const uint8_t *ns, const struct dss_iv_key *key, struct dss_iv_version *version, void *buf, uint64_t capacity);
	/* The namespace that all engines of the system share; it is there as long as the engine. [any] */
	int32_t (*iv_system_ns)(const struct dss_module *self, uint8_t *ns);

	/* 1: the device was evicted or removed, and this handle takes no more I/O, also when the device is back: close it; bdev_open answers
	 * -DER_IO until the device can be used again. What of the last writes arrived is unknown. 0: it is there, and the waker, which may be NULL and
	 * takes the place of the one before, is woken when it is not. [owner] */
	int32_t (*bdev_gone)(struct dss_bdev *bdev, const struct dss_waker *waker);
#endif
};

/* ---- the descriptor: what the module offers --------------------------------------------------------------------- */

/* Scheduler hooks, called for each incoming request of the module. Both may be NULL. */
struct dss_req_attr {
	uint32_t type;       /* 0 update, 1 fetch, 2 gc, 3 scrub, 4 migrate, 5 anonymous */
	uint32_t flags;
	uint32_t timeout_ms; /* 0: none */
	uint32_t reserved;
	uint8_t  pool_uuid[16];
};

struct dss_module {
	/* The first four fields never move: the loader reads them before it trusts the rest. */
	uint32_t sm_magic;       /* DSS_ABI_MAGIC */
	uint32_t sm_size;        /* sizeof(struct dss_module) */
	uint64_t sm_fingerprint; /* DSS_ABI_FINGERPRINT */
	uint32_t sm_level;       /* DSS_ABI_LEVEL the module was built for */

	int32_t                 sm_mod_id; /* 0 .. DSS_MAX_MODULE - 1, unique in the engine */
	uint32_t                sm_ver;    /* the module's own version: major << 24 | minor << 16 | patch << 8 */
	uint32_t                sm_reserved;
	const char             *sm_name;   /* equals the name in the file's name */
	uint64_t                sm_facs;   /* facility bits; none is defined at this level: 0 */
	const struct dss_host **sm_host;   /* the engine stores its table here before sm_init */

	struct dss_module_key *sm_key; /* NULL: no per-xstream storage */

	/* Once, before any xstream runs; not NULL. A failure fails the module's load. [main-thread] */
	int32_t (*sm_init)(void);
	/* Once, after every xstream ended; not NULL. [main-thread] */
	int32_t (*sm_fini)(void);
	/* Storage and xstreams are up, clients are not let in yet. May be NULL. Runs again after a failed SetUp. [xs:sys]
	 * 0 or negative: finished. DSS_PENDING: dss_done(done, rc) follows. */
	int32_t (*sm_setup)(struct dss_done *done);
	/* Before the xstreams stop, in reverse order of setup. May be NULL. Same returns. [xs:sys] */
	int32_t (*sm_cleanup)(struct dss_done *done);

	uint32_t                       sm_proto_count; /* 0 .. DSS_MAX_PROTO_VERSIONS */
	uint32_t                       sm_reserved2;
	const struct dss_rpc_proto    *sm_proto[DSS_MAX_PROTO_VERSIONS];
	const struct dss_drpc_handler *sm_drpc_handlers; /* NULL: none */

	/* Classifies an incoming request for the scheduler; NULL: anonymous. [xs] */
	int32_t (*sm_get_req_attr)(const struct dss_rpc_info *rpc, struct dss_req_attr *out);

	const char *const *sm_needs;    /* NULL-terminated names of modules or capabilities that come first; NULL: none */
	const char *const *sm_provides; /* NULL-terminated capabilities beyond the module's own name; NULL: none */
	const char        *sm_about;    /* one sentence for `keel modules`; may be NULL */
};

/* ---- conveniences for C modules --------------------------------------------------------------------------------- */

#ifndef KEEL_MODULE_NO_INLINES

/* In exactly one file of the module: DSS_MODULE_HOST(); defines where the engine stores its table. */
extern const struct dss_host *dss_host;
#define DSS_MODULE_HOST() const struct dss_host *dss_host

/* The descriptor's first fields. */
#define DSS_MODULE_ABI                                                                                                 \
	.sm_magic = DSS_ABI_MAGIC, .sm_size = sizeof(struct dss_module), .sm_fingerprint = DSS_ABI_FINGERPRINT,        \
	.sm_level = DSS_ABI_LEVEL, .sm_host = &dss_host

/* This xstream's storage, as in DAOS; NULL on a thread that is no xstream. [any] */
static inline struct dss_thread_local_storage *dss_tls_get(void)
{
	return dss_host->tls_get();
}

/* The value of a key on this xstream; NULL when the key is not registered or has no value here. [owner] */
static inline void *dss_module_key_get(struct dss_thread_local_storage *dtls, const struct dss_module_key *key)
{
	if (dtls == NULL || key->dmk_index < 0 || (uint32_t)key->dmk_index >= dtls->dtls_nr)
		return NULL;
	return dtls->dtls_values[key->dmk_index];
}

static inline const struct dss_module_info *dss_get_module_info(void)
{
	return dss_host->module_info();
}

#if DSS_ABI_LEVEL >= 2

/* In exactly one file of a module that uses what follows: DSS_MODULE_SELF(<name>_module). */
extern const struct dss_module *const dss_self;
#define DSS_MODULE_SELF(descriptor)                                                                                    \
	extern struct dss_module         descriptor;                                                                   \
	const struct dss_module *const dss_self = &descriptor

/* The functions below have DAOS's names and arguments; a ULT is named after its function. */

static inline int32_t dss_ult_create_named(const char *name, dss_func_t func, void *arg, int32_t xs_type, int32_t tgt_id, uint64_t stack_size, uint32_t flags, struct dss_ult **ult)
{
	struct dss_ult_attr attr = { name, xs_type, tgt_id, stack_size, flags, 0 };
	return dss_host->ult_create(dss_self, &attr, func, arg, ult);
}
#define dss_ult_create(func, arg, xs_type, tgt_id, stack_size, ult)                                                    \
	dss_ult_create_named(#func, func, arg, xs_type, tgt_id, stack_size, 0, ult)
#define dss_ult_periodic(func, arg, xs_type, tgt_id, stack_size, ult)                                                  \
	dss_ult_create_named(#func, func, arg, xs_type, tgt_id, stack_size, DSS_ULT_PERIODIC, ult)

/* Runs func every period_ms milliseconds until it is aborted or its xstream stops. */
static inline int32_t dss_ult_every_named(const char *name, dss_func_t func, void *arg, int32_t xs_type, int32_t tgt_id, uint32_t period_ms, struct dss_ult **ult)
{
	struct dss_ult_attr attr = { name, xs_type, tgt_id, 0, DSS_ULT_PERIODIC, period_ms };
	return dss_host->ult_create(dss_self, &attr, func, arg, ult);
}
#define dss_ult_every(func, arg, xs_type, tgt_id, period_ms, ult)                                                      \
	dss_ult_every_named(#func, func, arg, xs_type, tgt_id, period_ms, ult)

static inline int32_t dss_ult_execute_named(const char *name, dss_exec_func_t func, void *arg, dss_func_t user_cb, void *cb_args, int32_t xs_type, int32_t tgt_id, uint64_t stack_size)
{
	struct dss_ult_attr attr = { name, xs_type, tgt_id, stack_size, 0, 0 };
	return dss_host->ult_execute(dss_self, &attr, func, arg, user_cb, cb_args);
}
#define dss_ult_execute(func, arg, user_cb, cb_args, xs_type, tgt_id, stack_size)                                      \
	dss_ult_execute_named(#func, func, arg, user_cb, cb_args, xs_type, tgt_id, stack_size)

static inline int32_t dss_ult_create_all_named(const char *name, dss_func_t func, void *arg, int32_t main_only)
{
	struct dss_ult_attr attr = { name, DSS_XS_SELF, -1, 0, 0, 0 };
	return dss_host->ult_create_all(dss_self, &attr, func, arg, main_only);
}
#define dss_ult_create_all(func, arg, main_only) dss_ult_create_all_named(#func, func, arg, main_only)

/* DAOS: dss_chore_register(). flags: DSS_CHORE_PRIORITY. */
static inline int32_t dss_chore_register_named(const char *name, dss_chore_func_t func, void *arg, int32_t tgt_id, uint32_t credits, uint32_t flags, uint32_t *available)
{
	struct dss_chore_attr attr = { name, DSS_XS_IOFW, tgt_id, credits, flags };
	return dss_host->chore_register(dss_self, &attr, func, arg, available);
}
#define dss_chore_register(func, arg, tgt_id, credits, flags, available)                                               \
	dss_chore_register_named(#func, func, arg, tgt_id, credits, flags, available)

#define dss_offload_exec(func, arg) dss_host->offload_exec(dss_self, #func, func, arg)
#define dss_main_exec(func, arg) dss_host->main_exec(dss_self, #func, func, arg)

/* flags: DSS_ULT_DEEP_STACK. */
static inline int32_t dss_thread_collective_reduce(const struct dss_coll_ops *ops, const struct dss_coll_args *args, uint32_t flags)
{
	struct dss_ult_attr attr = { "collective", DSS_XS_VOS, -1, 0, flags, 0 };
	return dss_host->collective(dss_self, &attr, ops, args, 0);
}
static inline int32_t dss_task_collective_reduce(const struct dss_coll_ops *ops, const struct dss_coll_args *args, uint32_t flags)
{
	struct dss_ult_attr attr = { "collective", DSS_XS_VOS, -1, 0, flags, 0 };
	return dss_host->collective(dss_self, &attr, ops, args, 1);
}

struct dss_coll_plain {
	dss_exec_func_t func;
	void           *arg;
};
static inline int32_t dss_coll_plain_run(void *f_args, void *st_arg)
{
	const struct dss_coll_plain *plain = (const struct dss_coll_plain *)f_args;
	(void)st_arg;
	return plain->func(plain->arg);
}
static inline int32_t dss_coll_plain_all(dss_exec_func_t func, void *arg, uint32_t flags, int32_t tasklets)
{
	struct dss_coll_plain      plain = { func, arg };
	const struct dss_coll_ops  ops = { func == NULL ? NULL : dss_coll_plain_run, NULL, NULL, NULL };
	const struct dss_coll_args args = { &plain, NULL, NULL, 0, 0 };
	return tasklets ? dss_task_collective_reduce(&ops, &args, flags) : dss_thread_collective_reduce(&ops, &args, flags);
}
static inline int32_t dss_thread_collective(dss_exec_func_t func, void *arg, uint32_t flags)
{
	return dss_coll_plain_all(func, arg, flags, 0);
}
static inline int32_t dss_task_collective(dss_exec_func_t func, void *arg, uint32_t flags)
{
	return dss_coll_plain_all(func, arg, flags, 1);
}

/* Bytes of a bitmap for tgt_nr targets. */
#define DSS_COLL_BITMAP_SZ(tgt_nr) ((((uint32_t)(tgt_nr) - 1) >> 3) + 1)

/* All tgt_nr targets but the nr excluded ones; bitmap holds DSS_COLL_BITMAP_SZ(tgt_nr) bytes. */
static inline void dss_build_coll_bitmap(const uint32_t *exclude, uint32_t nr, uint32_t tgt_nr, uint8_t *bitmap)
{
	uint32_t i;

	for (i = 0; i < DSS_COLL_BITMAP_SZ(tgt_nr); i++)
		bitmap[i] = 0;
	for (i = 0; i < tgt_nr; i++)
		bitmap[i >> 3] = (uint8_t)(bitmap[i >> 3] | 1u << (i & 7));
	for (i = 0; i < nr; i++)
		if (exclude[i] < tgt_nr)
			bitmap[exclude[i] >> 3] = (uint8_t)(bitmap[exclude[i] >> 3] & ~(1u << (exclude[i] & 7)));
}

/* True: come to your end. Also outside a ULT, so that a loop that does not belong there ends. */
static inline int32_t dss_ult_yield(void)
{
	return dss_host->ult_yield() != 0;
}
static inline int32_t dss_sleep(uint64_t ms)
{
	return dss_host->ult_sleep(ms);
}

static inline int32_t dss_bdev_rw(struct dss_bdev *bdev, uint32_t op, uint32_t flags, uint64_t lba, uint32_t blocks, struct dss_buf *buf)
{
	const struct dss_buf none = { NULL, 0, 0, NULL };
	struct dss_bdev_io   io = { op, flags, lba, blocks, 0, buf == NULL ? none : *buf, NULL, NULL };
	int32_t              rc = dss_host->bdev_io_wait(bdev, &io);

	if (buf != NULL)
		*buf = io.buf;
	return rc;
}
static inline int32_t dss_bdev_read(struct dss_bdev *bdev, uint64_t lba, uint32_t blocks, struct dss_buf *buf)
{
	return dss_bdev_rw(bdev, DSS_BDEV_READ, 0, lba, blocks, buf);
}
static inline int32_t dss_bdev_write(struct dss_bdev *bdev, uint64_t lba, uint32_t blocks, struct dss_buf *buf, uint32_t flags)
{
	return dss_bdev_rw(bdev, DSS_BDEV_WRITE, flags, lba, blocks, buf);
}
static inline int32_t dss_bdev_write_zeroes(struct dss_bdev *bdev, uint64_t lba, uint32_t blocks)
{
	return dss_bdev_rw(bdev, DSS_BDEV_WRITE_ZEROES, 0, lba, blocks, NULL);
}
static inline int32_t dss_bdev_unmap(struct dss_bdev *bdev, uint64_t lba, uint32_t blocks)
{
	return dss_bdev_rw(bdev, DSS_BDEV_UNMAP, 0, lba, blocks, NULL);
}
static inline int32_t dss_bdev_flush(struct dss_bdev *bdev)
{
	return dss_bdev_rw(bdev, DSS_BDEV_FLUSH, 0, 0, 0, NULL);
}

#endif /* DSS_ABI_LEVEL >= 2 */

#if DSS_ABI_LEVEL >= 3

/* DAOS: ds_iv_fetch(), ds_iv_update(), ds_iv_invalidate(), ds_iv_ns_create(), ds_iv_ns_stop(). They wait. [ult, serving] */

static inline int32_t ds_iv_change(uint32_t opcode, const uint8_t *ns, const struct dss_iv_key *key, const void *value, uint64_t len, uint32_t shortcut, uint32_t sync, uint64_t timeout_ms)
{
	struct dss_iv_op op = { opcode, sync, shortcut, 0, timeout_ms, { 0 }, *key, { (const uint8_t *)value, len } };
	uint32_t         i;

	for (i = 0; i < sizeof(op.ns); i++)
		op.ns[i] = ns[i];
	return dss_host->iv_call_wait(dss_self, &op, NULL, 0, NULL);
}
static inline int32_t ds_iv_update(const uint8_t *ns, const struct dss_iv_key *key, const void *value, uint64_t len, uint32_t shortcut, uint32_t sync, uint64_t timeout_ms)
{
	return ds_iv_change(DSS_IV_UPDATE, ns, key, value, len, shortcut, sync, timeout_ms);
}
static inline int32_t ds_iv_invalidate(const uint8_t *ns, const struct dss_iv_key *key, uint32_t shortcut, uint32_t sync, uint64_t timeout_ms)
{
	return ds_iv_change(DSS_IV_INVALIDATE, ns, key, NULL, 0, shortcut, sync, timeout_ms);
}
/* From this xstream's cache if it is there. *len: the buffer's before, the value's afterwards; nothing is copied if it does not fit. */
static inline int32_t ds_iv_fetch(const uint8_t *ns, const struct dss_iv_key *key, void *buf, uint64_t *len, uint64_t timeout_ms)
{
	struct dss_iv_op     op = { DSS_IV_FETCH, 0, 0, 0, timeout_ms, { 0 }, *key, { NULL, 0 } };
	struct dss_iv_result result;
	int64_t              cached = dss_host->iv_cached(ns, key, NULL, buf, *len);
	int32_t              rc;
	uint32_t             i;

	if (cached >= 0) {
		*len = (uint64_t)cached;
		return 0;
	}
	for (i = 0; i < sizeof(op.ns); i++)
		op.ns[i] = ns[i];
	rc = dss_host->iv_call_wait(dss_self, &op, buf, *len, &result);
	if (rc == 0)
		*len = result.value.len;
	return rc;
}
static inline int32_t ds_iv_ns(uint32_t opcode, const uint8_t *ns, uint32_t flags)
{
	struct dss_iv_op op = { opcode, 0, 0, flags, 0, { 0 }, { 0, 0, { 0 } }, { NULL, 0 } };
	uint32_t         i;

	for (i = 0; i < sizeof(op.ns); i++)
		op.ns[i] = ns[i];
	return dss_host->iv_call_wait(dss_self, &op, NULL, 0, NULL);
}
static inline int32_t ds_iv_ns_create(const uint8_t *ns, uint32_t flags)
{
	return ds_iv_ns(DSS_IV_NS_CREATE, ns, flags);
}
static inline int32_t ds_iv_ns_destroy(const uint8_t *ns)
{
	return ds_iv_ns(DSS_IV_NS_DESTROY, ns, 0);
}

#endif /* DSS_ABI_LEVEL >= 3 */

#endif /* KEEL_MODULE_NO_INLINES */

#ifdef __cplusplus
}
#endif

#endif /* KEEL_ENGINE_MODULE_H */
