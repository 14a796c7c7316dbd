/* Waits where nothing can wait: on the main thread, in a dRPC handler (a plain call on the system xstream), in the destructor of its storage, and in one of
 * the OS thread. Each must be refused, none may crash or hang. The results go back over dRPC module 104, method 1, as little-endian 32-bit numbers;
 * those of destructors are written to standard error. */
#include <pthread.h>
#include <stdio.h>

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

static void in_destructor(const char *which)
{
	fprintf(stderr, "wrong_waits: %s: %d %d\n", which, dss_ult_yield(), dss_sleep(1000));
}

static pthread_key_t of_thread;

static void thread_ends(void *value)
{
	(void)value;
	in_destructor("end of the OS thread");
}

static void *storage(uint32_t tags, int32_t xs_id, int32_t tgt_id)
{
	(void)tags, (void)xs_id, (void)tgt_id;
	pthread_setspecific(of_thread, &of_thread);
	return &of_thread;
}

static void storage_ends(uint32_t tags, void *value)
{
	(void)tags, (void)value;
	in_destructor("end of the storage");
}

static struct dss_module_key key = { .dmk_tags = DAOS_SERVER_TAG, .dmk_index = -1, .dmk_init = storage, .dmk_fini = storage_ends };

static int32_t init(void)
{
	pthread_key_create(&of_thread, thread_ends);
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
struct dss_module wrong_waits_module = { SOUND("wrong_waits", 46), .sm_init = init, .sm_key = &key, .sm_drpc_handlers = handlers };
