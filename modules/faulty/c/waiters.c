/* Not faulty: a ULT for everything that a ULT can wait for, all on the main xstream of target 0. dRPC module 108, method 1 creates them and answers; with a body
 * they are made so that an abort ends their waits. Method 2 lets each have what it waits for, method 3 aborts each; both join all and answer how each wait went,
 * as little-endian 32-bit numbers in the order of `all`. */
#include "sound.h"

extern struct dss_module waiters_module;
DSS_MODULE_SELF(waiters_module);

static struct dss_eventual *go;
static struct dss_mutex    *mutex, *own;
static struct dss_cond     *cond;
static struct dss_barrier  *barrier;
static struct dss_ult      *holder;

/* Holds the mutex until all may go on. */
static void holds(void *arg)
{
	(void)arg;
	dss_host->mutex_lock(mutex, DSS_FOREVER);
	dss_host->eventual_wait(go, DSS_FOREVER, NULL);
	dss_host->mutex_unlock(mutex);
}

static void sleeps(void *arg)
{
	*(int32_t *)arg = dss_sleep(3600u * 1000u);
}

static void waits_for_eventual(void *arg)
{
	*(int32_t *)arg = dss_host->eventual_wait(go, DSS_FOREVER, NULL);
}

static void waits_a_while(void *arg)
{
	*(int32_t *)arg = dss_host->eventual_wait(go, 3600u * 1000u, NULL);
}

static void waits_for_mutex(void *arg)
{
	*(int32_t *)arg = dss_host->mutex_lock(mutex, DSS_FOREVER);
	if (*(int32_t *)arg == 0)
		dss_host->mutex_unlock(mutex);
}

static void waits_for_condition(void *arg)
{
	dss_host->mutex_lock(own, DSS_FOREVER);
	*(int32_t *)arg = dss_host->cond_wait(cond, own, DSS_FOREVER);
	if (dss_host->mutex_unlock(own) != 0)
		*(int32_t *)arg = 1; /* it should have had it again */
}

static void waits_at_barrier(void *arg)
{
	*(int32_t *)arg = dss_host->barrier_wait(barrier);
}

static void joins(void *arg)
{
	*(int32_t *)arg = dss_host->ult_join(holder);
}

/* Has used 150 KiB of its stack. */
static void went_deep(void *arg)
{
	{
		volatile uint8_t frame[150 << 10];
		uint32_t         i;

		for (i = 0; i < sizeof(frame); i += 1024)
			frame[i] = 1;
		*(int32_t *)arg = frame[0];
	}
	*(int32_t *)arg = dss_host->eventual_wait(go, DSS_FOREVER, NULL);
}

static struct {
	const char     *name;
	dss_func_t      func;
	struct dss_ult *ult;
	int32_t         rc;
} all[] = {
	{ "sleeps", sleeps, NULL, 0 },
	{ "waits_for_eventual", waits_for_eventual, NULL, 0 },
	{ "waits_a_while", waits_a_while, NULL, 0 },
	{ "waits_for_mutex", waits_for_mutex, NULL, 0 },
	{ "waits_for_condition", waits_for_condition, NULL, 0 },
	{ "waits_at_barrier", waits_at_barrier, NULL, 0 },
	{ "joins", joins, NULL, 0 },
	{ "went_deep", went_deep, NULL, 0 },
};

#define ALL (sizeof(all) / sizeof(all[0]))

static int32_t make(uint32_t flags)
{
	uint32_t i;
	int32_t  rc = 0;

	rc = rc ? rc : dss_host->eventual_create(dss_self, &go);
	rc = rc ? rc : dss_host->mutex_create(dss_self, &mutex);
	rc = rc ? rc : dss_host->mutex_create(dss_self, &own);
	rc = rc ? rc : dss_host->cond_create(dss_self, &cond);
	rc = rc ? rc : dss_host->barrier_create(dss_self, 2, &barrier);
	rc = rc ? rc : dss_ult_create_named("holds", holds, NULL, DSS_XS_VOS, 0, 0, flags, &holder);
	for (i = 0; i < ALL; i++)
		rc = rc ? rc : dss_ult_create_named(all[i].name, all[i].func, &all[i].rc, DSS_XS_VOS, 0, 256u << 10, flags, &all[i].ult);
	return rc;
}

static void let_go(void)
{
	dss_host->eventual_set(go, 0);
	dss_host->cond_broadcast(cond);
	dss_host->barrier_wait(barrier);
	dss_host->ult_wake(all[0].ult);
}

static void stop(void)
{
	uint32_t i;

	for (i = 0; i < ALL; i++)
		dss_host->ult_abort(all[i].ult);
	dss_host->ult_abort(holder);
}

static void serve_end(void *arg)
{
	struct dss_drpc_info info;
	int32_t              results[ALL];
	uint32_t             i;

	dss_host->drpc_info(arg, &info);
	if (info.method == 2)
		let_go();
	else
		stop();
	for (i = 0; i < ALL; i++) {
		dss_host->ult_join(all[i].ult);
		dss_host->ult_free(all[i].ult);
		results[i] = all[i].rc;
	}
	dss_host->ult_join(holder);
	dss_host->ult_free(holder);
	dss_host->barrier_free(barrier);
	dss_host->cond_free(cond);
	dss_host->mutex_free(own);
	dss_host->mutex_free(mutex);
	dss_host->eventual_free(go);
	dss_host->drpc_reply(arg, DSS_DRPC_SUCCESS, (const uint8_t *)results, sizeof(results));
}

static void handler(struct dss_drpc *call)
{
	struct dss_drpc_info info;

	dss_host->drpc_info(call, &info);
	if (info.method == 1)
		dss_host->drpc_reply(call, make(info.body_len ? DSS_ULT_CANCEL : 0) == 0 ? DSS_DRPC_SUCCESS : DSS_DRPC_FAILURE, NULL, 0);
	else if (dss_ult_create(serve_end, call, DSS_XS_SELF, -1, 0, NULL) != 0)
		dss_host->drpc_reply(call, DSS_DRPC_FAILURE, NULL, 0);
}

static const struct dss_drpc_handler handlers[] = { { 108, 0, handler }, { 0, 0, NULL } };
struct dss_module waiters_module = { SOUND("waiters", 50), .sm_drpc_handlers = handlers };
