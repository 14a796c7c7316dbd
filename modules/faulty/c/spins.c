/* Starts well; then dRPC module 103 method 0 runs a tasklet on target 0 that never returns. */
#include "sound.h"

extern struct dss_module spins_module;

static volatile uint64_t rounds;

__attribute__((noinline)) static void spin_for_ever(void *arg)
{
	(void)arg;
	for (;;)
		rounds++;
}

static void handler(struct dss_drpc *call)
{
	int32_t rc = dss_host->tasklet(&spins_module, "spins", DSS_XS_VOS, 0, spin_for_ever, NULL);

	dss_host->drpc_reply(call, DSS_DRPC_SUCCESS, (const uint8_t *)&rc, sizeof(rc));
}

static const struct dss_drpc_handler handlers[] = { { 103, 0, handler }, { 0, 0, NULL } };
struct dss_module spins_module = { SOUND("spins", 45), .sm_drpc_handlers = handlers };
