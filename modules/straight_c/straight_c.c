/* Straight-line C: what would be a chain of call-backs is written top to bottom, in ULTs with stacks of their own.
 *
 *     cc -shared -fPIC -I modules/abi/include -o libstraight_c.so straight_c.c
 *
 * dRPC module 103, method 1 keeps a text in the first block of target 0's device and answers what it reads back: a ULT on
 * the system xstream serves the call, another on the target's main xstream does the block I/O, an eventual brings the result
 * over. Method 2 counts to three on a beat of a millisecond, waiting on a condition. Method 3 keeps a text as method 1 does, but over an RPC, whose handler
 * waits for the device in its middle as the caller waits for the answer. The module owns the device's contents: do not load it beside a module
 * that stores things there. */
#include <stdio.h>
#include <string.h>

#include "engine_module.h"

DSS_MODULE_HOST();
DSS_MODULE_SELF(straight_c_module);

#define TEXT_MAX 256

struct note {
	char                 text[TEXT_MAX];
	uint32_t             len;
	struct dss_eventual *kept; /* how it went */
};

/* Writes the note and reads it back. On the main xstream of target 0. */
static int32_t keep(struct note *note)
{
	struct dss_bdev_info info;
	struct dss_bdev     *bdev;
	struct dss_buf       buf = { 0 };
	int32_t              rc;

	rc = dss_host->bdev_open(dss_self, &info, &bdev);
	if (rc != 0)
		return rc;
	rc = dss_host->buf_alloc(info.block_size, &buf);
	if (rc == 0) {
		memcpy(buf.addr, note->text, note->len);
		rc = dss_bdev_write(bdev, 0, 1, &buf, 0);
	}
	if (rc == 0)
		rc = dss_bdev_flush(bdev);
	if (rc == 0) {
		memset(buf.addr, 0, info.block_size);
		rc = dss_bdev_read(bdev, 0, 1, &buf);
	}
	if (rc == 0)
		memcpy(note->text, buf.addr, note->len);
	dss_host->buf_free(buf);
	dss_host->bdev_close(bdev);
	return rc;
}

static void keeper(void *arg)
{
	struct note *note = arg;

	dss_host->eventual_set(note->kept, keep(note));
}

/* Serves a call of method 1. On the system xstream; the note lives on this ULT's stack until everybody is done with it. */
static void serve_note(void *arg)
{
	struct dss_drpc     *call = arg;
	struct dss_drpc_info info;
	struct dss_ult      *ult = NULL;
	struct note          note = { .len = 0 };
	int64_t              kept = 0;
	int32_t              rc;

	dss_host->drpc_info(call, &info);
	note.len = (uint32_t)(info.body_len < TEXT_MAX ? info.body_len : TEXT_MAX);
	if (note.len > 0)
		memcpy(note.text, info.body, note.len);
	rc = dss_host->eventual_create(dss_self, &note.kept);
	if (rc == 0)
		rc = dss_ult_create(keeper, &note, DSS_XS_VOS, 0, 0, &ult);
	if (rc == 0) {
		rc = dss_host->eventual_wait(note.kept, DSS_FOREVER, &kept);
		dss_host->ult_join(ult); /* it may still be on its way out of eventual_set */
		dss_host->ult_free(ult);
	}
	dss_host->eventual_free(note.kept);
	if (rc == 0 && kept == 0)
		dss_host->drpc_reply(call, DSS_DRPC_SUCCESS, (const uint8_t *)note.text, note.len);
	else
		dss_host->drpc_reply(call, DSS_DRPC_FAILURE, NULL, 0);
}

#define KEEP_TEXT DSS_RPC_OPCODE(34, 1, 0)

/* Keeps the text of a request. In a ULT of its own on the xstream of the request's tag. */
static void rpc_keep(struct dss_rpc *rpc)
{
	struct dss_rpc_info info;
	struct note         note = { .len = 0 };
	int32_t             rc;

	dss_host->rpc_info(rpc, &info);
	note.len = (uint32_t)(info.body_len < TEXT_MAX ? info.body_len : TEXT_MAX);
	if (note.len > 0)
		memcpy(note.text, info.body, note.len);
	rc = keep(&note);
	dss_host->rpc_reply(rpc, rc, (const uint8_t *)note.text, rc == 0 ? note.len : 0, (struct dss_buf){ 0 });
}

/* Serves a call of method 3: asks target 0 from the system xstream. */
static void serve_far_note(void *arg)
{
	struct dss_drpc      *call = arg;
	struct dss_drpc_info  info;
	struct dss_rpc_answer answer = { 0 };
	int32_t               rc;

	dss_host->drpc_info(call, &info);
	rc = dss_host->rpc_call_wait(dss_self, 1, KEEP_TEXT, info.body, info.body_len, NULL, &answer);
	if (rc == 0 && answer.status == 0)
		dss_host->drpc_reply(call, DSS_DRPC_SUCCESS, answer.body, answer.body_len);
	else
		dss_host->drpc_reply(call, DSS_DRPC_FAILURE, NULL, 0);
	dss_host->rpc_answer_free(&answer);
}

struct count {
	struct dss_mutex *mutex;
	struct dss_cond  *changed;
	int               value;
};

/* One beat of the periodic ULT. */
static void beat(void *arg)
{
	struct count *count = arg;

	dss_host->mutex_lock(count->mutex, DSS_FOREVER);
	count->value++;
	dss_host->cond_signal(count->changed);
	dss_host->mutex_unlock(count->mutex);
}

/* Serves a call of method 2. */
static void serve_count(void *arg)
{
	struct dss_drpc *call = arg;
	struct dss_ult  *ult = NULL;
	struct count     count = { .value = 0 };
	char             text[32];
	int              len;

	if (dss_host->mutex_create(dss_self, &count.mutex) != 0 || dss_host->cond_create(dss_self, &count.changed) != 0 ||
	    dss_ult_every(beat, &count, DSS_XS_VOS, 0, 1, &ult) != 0) {
		dss_host->drpc_reply(call, DSS_DRPC_FAILURE, NULL, 0);
		return;
	}
	dss_host->mutex_lock(count.mutex, DSS_FOREVER);
	while (count.value < 3)
		dss_host->cond_wait(count.changed, count.mutex, DSS_FOREVER);
	dss_host->mutex_unlock(count.mutex);
	dss_host->ult_abort(ult);
	dss_host->ult_join(ult);
	dss_host->ult_free(ult);
	dss_host->cond_free(count.changed);
	dss_host->mutex_free(count.mutex);
	len = snprintf(text, sizeof(text), "counted to three");
	dss_host->drpc_reply(call, DSS_DRPC_SUCCESS, (const uint8_t *)text, (uint64_t)len);
}

/* The handler itself must not wait: each call gets a ULT. */
static void straight_drpc(struct dss_drpc *call)
{
	struct dss_drpc_info info;
	int32_t              rc = -1;

	dss_host->drpc_info(call, &info);
	if (info.method == 1)
		rc = dss_ult_create(serve_note, call, DSS_XS_SELF, -1, 0, NULL);
	else if (info.method == 2)
		rc = dss_ult_create(serve_count, call, DSS_XS_SELF, -1, 0, NULL);
	else if (info.method == 3)
		rc = dss_ult_create(serve_far_note, call, DSS_XS_SELF, -1, 0, NULL);
	else
		dss_host->drpc_reply(call, DSS_DRPC_UNKNOWN_METHOD, NULL, 0);
	if (rc != 0 && info.method >= 1 && info.method <= 3)
		dss_host->drpc_reply(call, DSS_DRPC_FAILURE, NULL, 0);
}

static const struct dss_drpc_handler straight_handlers[] = { { 103, 0, straight_drpc }, { 0, 0, NULL } };

static const struct dss_rpc_handler straight_rpcs[] = { { 0, DSS_RPC_ULT, "keep", rpc_keep } };
static const struct dss_rpc_proto   straight_proto = { 1, 1, straight_rpcs };

static int32_t straight_nothing(void)
{
	return 0;
}

struct dss_module straight_c_module = {
	DSS_MODULE_ABI,
	.sm_name = "straight_c",
	.sm_mod_id = 34,
	.sm_ver = 1u << 24,
	.sm_init = straight_nothing,
	.sm_fini = straight_nothing,
	.sm_proto_count = 1,
	.sm_proto = { &straight_proto, NULL },
	.sm_drpc_handlers = straight_handlers,
	.sm_about = "straight-line C with ULTs, block I/O, RPC and primitives",
};
