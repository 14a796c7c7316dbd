/* Waits where nothing can wait: on the main thread, in a dRPC handler (a plain call on the system xstream), in a tasklet of a main.
 * Each must be refused, none may crash or hang. The results go back over dRPC module 104, method 1, as little-endian 32-bit numbers. */
#include "sound.h"

extern struct dss_module wrong_waits_module;
DSS_MODULE_SELF(wrong_waits_module);

static int32_t results[32];
static uint32_t count;

static void note(int32_t rc)
{
	if (count < 32)
		results[count++] = rc;
}

static int32_t exec(void *arg)
{
	(void)arg;
	return 0;
}

static void func(void *arg)
{
	(void)arg;
}

static void waits(void)
{
	note(dss_ult_yield()); /* 1: a loop that does not belong here ends */
	note(dss_sleep(1000));
	note(dss_ult_execute(exec, NULL, NULL, NULL, DSS_XS_SYS, -1, 0));
	note(dss_offload_exec(exec, NULL));
	note(dss_thread_collective(exec, NULL, 0));
	note(dss_bdev_flush(NULL));
}

static int32_t init(void)
{
	note(dss_ult_create(func, NULL, DSS_XS_SYS, -1, 0, NULL));
	waits();
	return 0;
}

static void handler(struct dss_drpc *call)
{
	waits();
	dss_host->drpc_reply(call, DSS_DRPC_SUCCESS, (const uint8_t *)results, count * sizeof(results[0]));
}

static const struct dss_drpc_handler handlers[] = { { 104, 0, handler }, { 0, 0, NULL } };
struct dss_module wrong_waits_module = { SOUND("wrong_waits", 46), .sm_init = init, .sm_drpc_handlers = handlers };
