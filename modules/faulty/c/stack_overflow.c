/* Has a ULT that needs more stack than there is. dRPC module 106, method 1: recurses until the guard page is hit; method 2: needs most
 * of a stack of 256 KiB and ends well. */
#include "sound.h"

extern struct dss_module stack_overflow_module;
DSS_MODULE_SELF(stack_overflow_module);

static uint32_t deeper(uint32_t levels)
{
	volatile uint8_t frame[1024];
	uint32_t         i, sum = 0;

	for (i = 0; i < sizeof(frame); i++)
		frame[i] = (uint8_t)levels;
	if (levels > 1)
		sum = deeper(levels - 1);
	return sum + frame[levels % sizeof(frame)];
}

static volatile uint32_t kept;

static void recurses_without_end(void *arg)
{
	(void)arg;
	kept = deeper(UINT32_MAX);
}

static void needs_a_large_stack(void *arg)
{
	struct dss_drpc *call = arg;

	kept = deeper(160);
	dss_host->drpc_reply(call, DSS_DRPC_SUCCESS, NULL, 0);
}

static void handler(struct dss_drpc *call)
{
	struct dss_drpc_info info;

	dss_host->drpc_info(call, &info);
	if (info.method == 2) {
		if (dss_ult_create(needs_a_large_stack, call, DSS_XS_SELF, -1, 256u << 10, NULL) != 0)
			dss_host->drpc_reply(call, DSS_DRPC_FAILURE, NULL, 0);
		return;
	}
	dss_host->drpc_reply(call, DSS_DRPC_SUBMITTED, NULL, 0);
	dss_ult_create(recurses_without_end, NULL, DSS_XS_SELF, -1, 0, NULL);
}

static const struct dss_drpc_handler handlers[] = { { 106, 0, handler }, { 0, 0, NULL } };
struct dss_module stack_overflow_module = { SOUND("stack_overflow", 48), .sm_drpc_handlers = handlers };
