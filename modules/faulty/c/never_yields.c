/* Has a ULT that computes without ever giving way. dRPC module 105, method 1: spins on the system xstream for the milliseconds in the
 * body (decimal), then ends; method 2: the same on target 0's main xstream. */
#include <stdlib.h>
#include <string.h>

#include "sound.h"

extern struct dss_module never_yields_module;
DSS_MODULE_SELF(never_yields_module);

static void never_yields(void *arg)
{
	uint64_t end = dss_host->now_ns() + (uint64_t)(uintptr_t)arg * 1000000u;

	while (dss_host->now_ns() < end)
		;
}

static void handler(struct dss_drpc *call)
{
	struct dss_drpc_info info;
	char                 ms[16] = { 0 };
	uintptr_t            wanted;
	int32_t              rc;

	dss_host->drpc_info(call, &info);
	memcpy(ms, info.body, info.body_len < sizeof(ms) - 1 ? info.body_len : sizeof(ms) - 1);
	wanted = (uintptr_t)strtoul(ms, NULL, 10);
	rc = dss_ult_create(never_yields, (void *)wanted, info.method == 2 ? DSS_XS_VOS : DSS_XS_SELF, 0, 0, NULL);
	dss_host->drpc_reply(call, rc == 0 ? DSS_DRPC_SUCCESS : DSS_DRPC_FAILURE, NULL, 0);
}

static const struct dss_drpc_handler handlers[] = { { 105, 0, handler }, { 0, 0, NULL } };
struct dss_module never_yields_module = { SOUND("never_yields", 47), .sm_drpc_handlers = handlers };
