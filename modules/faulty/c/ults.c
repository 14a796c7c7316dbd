/* Not faulty: every convenience of the header for ULTs, as a C module uses it. dRPC module 107, method 1 runs them in a ULT on the system
 * xstream and answers a line of text for each that gave something else than it should; nothing is a success. */
#include <stdio.h>
#include <string.h>

#include "sound.h"

extern struct dss_module ults_module;
DSS_MODULE_SELF(ults_module);

static char   said[2048];
static size_t said_len;

static void expect(int64_t got, int64_t wanted, const char *what)
{
	int len;

	if (got == wanted || said_len > sizeof(said) - 128)
		return;
	len = snprintf(said + said_len, sizeof(said) - said_len, "%s: %lld, not %lld\n", what, (long long)got, (long long)wanted);
	said_len += (size_t)len;
}

static int32_t on_which(void *arg)
{
	(void)arg;
	expect(dss_sleep(0), 0, "sleep(0)");
	return dss_get_module_info()->dmi_xs_id;
}

static int32_t target_times_ten(void *arg)
{
	(void)arg;
	return dss_get_module_info()->dmi_tgt_id == 1 ? -1007 : 0;
}

static void set(void *arg)
{
	dss_host->eventual_set(arg, dss_get_module_info()->dmi_xs_id);
}

static void waits_for_abort(void *arg)
{
	while (!dss_ult_yield())
		dss_sleep(1);
	dss_host->eventual_set(arg, 42);
}

static void arrives(void *arg)
{
	dss_host->barrier_wait(arg);
}

/* ---- a collective with an argument and a result for each target ---- */

struct part {
	int32_t tgt;
	int32_t seen_xs;
};

struct total {
	struct part parts[16];
	uint32_t    asked, freed, left_out, reduced;
};

static int32_t part_run(void *f_args, void *st_arg)
{
	struct part *part = st_arg;

	part->seen_xs = dss_get_module_info()->dmi_xs_id + *(int32_t *)f_args;
	return dss_get_module_info()->dmi_tgt_id == part->tgt ? 0 : -1003;
}

static int32_t part_alloc(void *aggregator, int32_t tgt_id, void **st_arg)
{
	struct total *total = aggregator;

	total->asked++;
	total->parts[tgt_id].tgt = tgt_id;
	*st_arg = &total->parts[tgt_id];
	return 0;
}

static void part_free(void *aggregator, void *st_arg)
{
	(void)st_arg;
	((struct total *)aggregator)->freed++;
}

static void part_reduce(void *aggregator, int32_t tgt_id, void *st_arg, int32_t rc)
{
	struct total *total = aggregator;

	expect(tgt_id, total->reduced, "the order of reduction");
	total->reduced++;
	if (rc == DSS_COLL_LEFT_OUT) {
		expect(st_arg == NULL, 1, "no argument where it is left out");
		total->left_out++;
	} else {
		expect(rc, 0, "a part");
	}
}

static void collectives(uint32_t targets)
{
	const struct dss_coll_ops ops = { part_run, part_reduce, part_alloc, part_free };
	const uint32_t            without[] = { 0, 9999 };
	uint8_t                   bitmap[DSS_COLL_BITMAP_SZ(16)];
	int32_t                   add = 1000;
	int                       task;

	dss_build_coll_bitmap(without, 2, targets, bitmap);
	expect(bitmap[0], (1 << targets) - 2, "the bitmap");
	for (task = 0; task < 2; task++) {
		struct total         total = { 0 };
		struct dss_coll_args args = { &add, &total, bitmap, DSS_COLL_BITMAP_SZ(targets), 0 };

		expect(task ? dss_task_collective_reduce(&ops, &args, 0) : dss_thread_collective_reduce(&ops, &args, DSS_ULT_DEEP_STACK), 0,
		       "collective");
		expect(total.asked, targets - 1, "arguments asked for");
		expect(total.freed, targets - 1, "arguments freed");
		expect(total.left_out, 1, "left out");
		expect(total.reduced, targets, "reduced");
		expect(total.parts[1].seen_xs > 1000, 1, "what a part wrote");
	}
	expect(dss_thread_collective(target_times_ten, NULL, 0), -1007, "first error of a thread collective");
	expect(dss_task_collective(target_times_ten, NULL, 0), -1007, "first error of a task collective");
	expect(dss_thread_collective(NULL, NULL, 0), -1003, "a collective of nothing");
}

static void lives(void)
{
	struct dss_eventual *ev = NULL;
	struct dss_barrier  *barrier = NULL;
	struct dss_ult      *ult = NULL;
	int64_t              value = -1;

	expect(dss_ult_execute(on_which, NULL, NULL, NULL, DSS_XS_SELF, -1, 0), 0, "execute here");
	expect(dss_host->eventual_create(dss_self, &ev), 0, "eventual");
	expect(dss_ult_execute(on_which, NULL, set, ev, DSS_XS_VOS, 0, DSS_DEEP_STACK_SZ), 0, "execute with a call-back");
	expect(dss_host->eventual_wait(ev, DSS_FOREVER, &value), 0, "the call-back");
	expect(value > 0, 1, "the call-back's xstream");
	expect(dss_host->eventual_reset(ev), 0, "reset");
	expect(dss_ult_periodic(waits_for_abort, ev, DSS_XS_VOS, 0, 0, &ult), 0, "periodic");
	expect(dss_host->ult_abort(ult), 0, "abort");
	expect(dss_host->ult_join(ult), 0, "join");
	expect(dss_host->ult_free(ult), 0, "free");
	expect(dss_host->eventual_test(ev, &value), 1, "what the aborted one set");
	expect(value, 42, "its value");
	expect(dss_host->eventual_free(ev), 0, "free an eventual");
	expect(dss_main_exec(arrives, NULL), 0, "main_exec");
	expect(dss_host->barrier_create(dss_self, 1 + dss_get_module_info()->dmi_tgt_nr, &barrier), 0, "barrier");
	expect(dss_ult_create_all(arrives, barrier, 1), 0, "create_all on mains");
	expect(dss_host->barrier_wait(barrier) >= 0, 1, "the barrier");
	dss_sleep(2); /* the others are on their way out of it */
	expect(dss_host->barrier_free(barrier), 0, "free a barrier");
	expect(dss_offload_exec(on_which, NULL) < 0, 1, "offload from the system xstream");
}

static void serve(void *arg)
{
	said_len = 0;
	collectives(dss_get_module_info()->dmi_tgt_nr);
	lives();
	dss_host->drpc_reply(arg, DSS_DRPC_SUCCESS, (const uint8_t *)said, said_len);
}

static void handler(struct dss_drpc *call)
{
	if (dss_ult_create(serve, call, DSS_XS_SELF, -1, 128u << 10, NULL) != 0)
		dss_host->drpc_reply(call, DSS_DRPC_FAILURE, NULL, 0);
}

static const struct dss_drpc_handler handlers[] = { { 107, 0, handler }, { 0, 0, NULL } };
struct dss_module ults_module = { SOUND("ults", 49), .sm_drpc_handlers = handlers };
