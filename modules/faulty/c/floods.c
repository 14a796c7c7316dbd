/* Creates a million ULTs without giving way. dRPC module 110, method 1: all in one go from a ULT on target 0, of its own xstream; method 2: the same, but on target 1.
 * The answer: how many creations were accepted, how many were refused with the error that the body holds as a little-endian 32-bit number (and of another
 * kind: any other), and how many ULTs ran. */
#include <string.h>

#include "sound.h"

extern struct dss_module floods_module;
DSS_MODULE_SELF(floods_module);

static int32_t ran;

static void runs(void *arg)
{
	(void)arg;
	__atomic_fetch_add(&ran, 1, __ATOMIC_ACQ_REL);
}

struct flood {
	struct dss_drpc *call;
	int32_t          target, expected;
	int32_t          accepted, refused, other;
};

static int32_t floods(void *arg)
{
	struct flood *flood = arg;
	int           i;

	for (i = 0; i < 1000000; i++) {
		int32_t rc = dss_ult_create(runs, NULL, DSS_XS_VOS, flood->target, 0, NULL);

		flood->accepted += rc == 0;
		flood->refused += rc == flood->expected;
		flood->other += rc != 0 && rc != flood->expected;
	}
	return 0;
}

static int32_t comes_last(void *arg)
{
	(void)arg;
	return 0;
}

/* On the system xstream. */
static void serve(void *arg)
{
	struct flood         flood = { .call = arg };
	struct dss_drpc_info info;
	int32_t              results[4];

	dss_host->drpc_info(arg, &info);
	memcpy(&flood.expected, info.body, sizeof(flood.expected));
	flood.target = info.method - 1;
	__atomic_store_n(&ran, 0, __ATOMIC_RELEASE);
	dss_ult_execute(floods, &flood, NULL, NULL, DSS_XS_VOS, 0, 0);
	/* Behind all that were accepted; it has to come in itself. */
	while (dss_ult_execute(comes_last, NULL, NULL, NULL, DSS_XS_VOS, flood.target, 0) != 0 && dss_ult_yield() == 0)
		;
	results[0] = flood.accepted;
	results[1] = flood.refused;
	results[2] = flood.other;
	results[3] = __atomic_load_n(&ran, __ATOMIC_ACQUIRE);
	dss_host->drpc_reply(arg, DSS_DRPC_SUCCESS, (const uint8_t *)results, sizeof(results));
}

static void handler(struct dss_drpc *call)
{
	if (dss_ult_create(serve, call, DSS_XS_SELF, -1, 0, NULL) != 0)
		dss_host->drpc_reply(call, DSS_DRPC_FAILURE, NULL, 0);
}

static const struct dss_drpc_handler handlers[] = { { 110, 0, handler }, { 0, 0, NULL } };
struct dss_module floods_module = { SOUND("floods", 52), .sm_drpc_handlers = handlers };
