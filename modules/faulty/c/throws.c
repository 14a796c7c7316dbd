/* Throws, as C++ does, out of functions that must not be left so: of a ULT, an execute, a collective's part, an RPC handler in a ULT. dRPC module 109,
 * method 1 does all of it and answers, as little-endian 32-bit numbers: two joins of one that threw, the execute, the collective, the RPC, and how
 * many frames were cleaned up on the way. */
#include <stdlib.h>
#include <string.h>
#include <unwind.h>

#include "sound.h"

extern struct dss_module throws_module;
DSS_MODULE_SELF(throws_module);

static int32_t cleaned;

static void frame_goes(const int *frame)
{
	__atomic_fetch_add(&cleaned, *frame, __ATOMIC_ACQ_REL);
}

static void throw(void)
{
	struct _Unwind_Exception *exception = calloc(1, sizeof(*exception)); /* no cleanup: who catches it may forget it */

	memcpy(&exception->exception_class, "KEELTEST", 8);
	_Unwind_RaiseException(exception);
	abort(); /* nobody above would stop it */
}

static void throws(void *arg)
{
	int frame __attribute__((cleanup(frame_goes))) = 1;

	(void)arg;
	dss_sleep(1);
	throw();
}

static int32_t throws_on_target_1(void *arg)
{
	if (dss_get_module_info()->dmi_tgt_id == 1)
		throws(arg);
	return 0;
}

static struct dss_ult *thrower;

static int32_t joins(void *arg)
{
	(void)arg;
	return dss_host->ult_join(thrower);
}

static void serve(void *arg)
{
	struct dss_rpc_answer answer = { 0 };
	int32_t               results[6];

	dss_ult_create(throws, NULL, DSS_XS_VOS, 0, 0, &thrower);
	results[0] = dss_ult_execute(joins, NULL, NULL, NULL, DSS_XS_VOS, 1, 0);
	results[1] = joins(NULL);
	dss_host->ult_free(thrower);
	results[2] = dss_ult_execute(throws_on_target_1, NULL, NULL, NULL, DSS_XS_VOS, 1, 0);
	results[3] = dss_thread_collective(throws_on_target_1, NULL, 0);
	results[4] = dss_host->rpc_call_wait(dss_self, 1, DSS_RPC_OPCODE(51, 1, 0), NULL, 0, NULL, &answer);
	if (results[4] == 0)
		results[4] = answer.status;
	dss_host->rpc_answer_free(&answer);
	results[5] = __atomic_load_n(&cleaned, __ATOMIC_ACQUIRE);
	dss_host->drpc_reply(arg, DSS_DRPC_SUCCESS, (const uint8_t *)results, sizeof(results));
}

static void on_rpc(struct dss_rpc *rpc)
{
	throws(rpc);
}

static void on_drpc(struct dss_drpc *call)
{
	if (dss_ult_create(serve, call, DSS_XS_SELF, -1, 0, NULL) != 0)
		dss_host->drpc_reply(call, DSS_DRPC_FAILURE, NULL, 0);
}

static const struct dss_rpc_handler  rpcs[] = { { 0, DSS_RPC_ULT, "throws", on_rpc } };
static const struct dss_rpc_proto    proto = { 1, 1, rpcs };
static const struct dss_drpc_handler drpcs[] = { { 109, 0, on_drpc }, { 0, 0, NULL } };
struct dss_module throws_module = { SOUND("throws", 51), .sm_proto_count = 1, .sm_proto = { &proto, NULL }, .sm_drpc_handlers = drpcs };
