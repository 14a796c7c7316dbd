/* Threads, messages and pollers; and the subsystems, which live on the first thread, SPDK's "app thread". */
#include "shim.h"

#include <stdatomic.h>

/*
 * The process exits by itself, threads of ours or not, and DPDK's destructor gives its memory back: no turn may begin from here on, and those
 * that have begun must end. Turns are counted where their OS thread has its place, so that counting costs nobody else anything.
 */
#define KS_PLACES 64

static atomic_int g_exiting;
static struct {
	_Alignas(64) atomic_int turns;
} g_places[KS_PLACES];
static atomic_uint g_next_place;
static _Thread_local unsigned int t_place = KS_PLACES;

/* Runs before DPDK's, whose priority is the lowest there is. Waits a second at most: a turn that never ends holds nobody up. */
__attribute__((destructor)) static void
ks_exiting(void)
{
	const struct timespec moment = { .tv_nsec = 100 * 1000 };
	unsigned int place;
	int patience = 10000;

	atomic_store(&g_exiting, 1);
	for (place = 0; place < KS_PLACES; place++) {
		/* Who exits in the middle of a turn does not wait for itself. */
		while (place != t_place && atomic_load(&g_places[place].turns) > 0 && patience-- > 0) {
			nanosleep(&moment, NULL);
		}
	}
}

/* In interrupt mode SPDK asks its host for a turn of a thread that has just exited; ours turns threads until they have. */
static int
ks_thread_op(struct spdk_thread *thread, enum spdk_thread_op op)
{
	(void)thread;
	(void)op;
	return 0;
}

static bool
ks_thread_op_supported(enum spdk_thread_op op)
{
	return op == SPDK_THREAD_OP_NEW || op == SPDK_THREAD_OP_RESCHED;
}

/* `interrupt_mode`: for all threads, until the process ends. */
int
ks_thread_lib_init(int interrupt_mode)
{
	if (!interrupt_mode) {
		return spdk_thread_lib_init(NULL, 0);
	}
	if (!spdk_interrupt_mode_is_enabled() && spdk_interrupt_mode_enable() != 0) {
		return -ENOTSUP;
	}
	return spdk_thread_lib_init_ext(ks_thread_op, ks_thread_op_supported, 0, SPDK_DEFAULT_MSG_MEMPOOL_SIZE);
}

void
ks_thread_lib_fini(void)
{
	spdk_thread_lib_fini();
}

struct spdk_thread *
ks_thread_create(const char *name)
{
	return spdk_thread_create(name, NULL);
}

/* Makes `thread` (or none) the current one of the OS thread; returns the one before. */
struct spdk_thread *
ks_thread_enter(struct spdk_thread *thread)
{
	struct spdk_thread *before = spdk_get_thread();

	spdk_set_thread(thread);
	return before;
}

/* One turn; at most `max_messages` messages (0, and more than 8: SPDK's batch of 8). Whether anything was busy. */
int
ks_thread_poll(struct spdk_thread *thread, uint32_t max_messages)
{
	atomic_int *turns;
	int rc;

	if (spdk_unlikely(t_place == KS_PLACES)) {
		t_place = atomic_fetch_add(&g_next_place, 1) % KS_PLACES;
	}
	turns = &g_places[t_place].turns;
	atomic_fetch_add(turns, 1);
	if (spdk_unlikely(atomic_load(&g_exiting))) {
		atomic_fetch_sub(turns, 1);
		for (;;) {
			pause();
		}
	}
	rc = spdk_thread_poll(thread, max_messages, 0);
	atomic_fetch_sub(turns, 1);
	return rc > 0;
}

/* Aborts the process when the thread has exited, 65536 messages wait in its ring or 262143 in all rings: the caller counts. */
void
ks_thread_send(const struct spdk_thread *thread, void (*fn)(void *), void *arg)
{
	spdk_thread_send_msg(thread, fn, arg);
}

/* Ticks of the next timed poller; 0: none. */
uint64_t
ks_thread_next_expiration(struct spdk_thread *thread)
{
	return spdk_thread_next_poller_expiration(thread);
}

int
ks_thread_has_active_pollers(struct spdk_thread *thread)
{
	return spdk_thread_has_active_pollers(thread);
}

/* In interrupt mode only. */
int
ks_thread_interrupt_fd(struct spdk_thread *thread)
{
	return spdk_thread_get_interrupt_fd(thread);
}

/* On the current thread. */
void
ks_thread_exit(struct spdk_thread *thread)
{
	spdk_thread_exit(thread);
}

int
ks_thread_is_exited(struct spdk_thread *thread)
{
	return spdk_thread_is_exited(thread);
}

void
ks_thread_destroy(struct spdk_thread *thread)
{
	spdk_thread_destroy(thread);
}

struct spdk_poller *
ks_poller_register(int (*fn)(void *), void *arg, uint64_t period_us, const char *name)
{
	return spdk_poller_register_named(fn, arg, period_us, name);
}

void
ks_poller_unregister(struct spdk_poller *poller)
{
	spdk_poller_unregister(&poller);
}

void
ks_poller_pause(struct spdk_poller *poller)
{
	spdk_poller_pause(poller);
}

void
ks_poller_resume(struct spdk_poller *poller)
{
	spdk_poller_resume(poller);
}

/* The way up: methods that JSON allows before subsystems start, the subsystems, the rest of the JSON. */
struct ks_start {
	void *json;
	size_t length;
	void (*done)(int rc, int step, void *arg);
	void *arg;
};

static void
ks_start_end(struct ks_start *start, int rc, int step)
{
	start->done(rc, step, start->arg);
	free(start->json);
	free(start);
}

static void
ks_started(int rc, void *ctx)
{
	ks_start_end(ctx, rc, rc == 0 ? 0 : 3);
}

static void
ks_subsystems_up(int rc, void *ctx)
{
	struct ks_start *start = ctx;

	if (rc != 0) {
		ks_start_end(start, rc, 2);
		return;
	}
	spdk_rpc_set_state(SPDK_RPC_RUNTIME);
	if (start->length == 0) {
		ks_start_end(start, 0, 0);
		return;
	}
	spdk_subsystem_load_config(start->json, (ssize_t)start->length, ks_started, start, true);
}

static void
ks_before_subsystems(int rc, void *ctx)
{
	struct ks_start *start = ctx;

	if (rc != 0) {
		ks_start_end(start, rc, 1);
		return;
	}
	spdk_subsystem_init(ks_subsystems_up, start);
}

/* In bdev.c. */
int ks_nvme_flush(void);

/*
 * On the app thread. `done` is called there with 0, or the error and the step that failed: 1 the JSON itself or what stands in it for
 * before the start, 2 a subsystem, 3 the rest of the JSON. `json` is copied and may be empty.
 */
int
ks_subsystems_start(const char *json, size_t length, void (*done)(int, int, void *), void *arg)
{
	struct ks_start *start;
	int rc = ks_nvme_flush();

	if (rc != 0) {
		return rc;
	}
	start = calloc(1, sizeof(*start));
	if (start == NULL) {
		return -ENOMEM;
	}
	start->done = done;
	start->arg = arg;
	start->length = length;
	if (length == 0) {
		spdk_subsystem_init(ks_subsystems_up, start);
		return 0;
	}
	start->json = malloc(length);
	if (start->json == NULL) {
		free(start);
		return -ENOMEM;
	}
	memcpy(start->json, json, length);
	spdk_rpc_set_state(SPDK_RPC_STARTUP);
	spdk_subsystem_load_config(start->json, (ssize_t)length, ks_before_subsystems, start, true);
	return 0;
}

void
ks_subsystems_stop(void (*done)(void *), void *arg)
{
	spdk_subsystem_fini(done, arg);
}

/* Runs the methods of a JSON configuration while everything is up. On the app thread; `step` is 0 or 3. */
int
ks_config_load(const char *json, size_t length, void (*done)(int, int, void *), void *arg)
{
	struct ks_start *start = calloc(1, sizeof(*start));

	if (start == NULL) {
		return -ENOMEM;
	}
	start->done = done;
	start->arg = arg;
	/* SPDK copies it before it returns. */
	spdk_subsystem_load_config((void *)json, (ssize_t)length, ks_started, start, true);
	return 0;
}

/* On the app thread. */
int
ks_rpc_open(const char *socket)
{
	return spdk_rpc_initialize(socket, NULL);
}

/* On the app thread; nothing where it was not opened. */
void
ks_rpc_close(void)
{
	spdk_rpc_finish();
}
