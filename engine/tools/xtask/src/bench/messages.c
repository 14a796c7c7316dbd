/*
 * What plain SPDK's messages cost: two SPDK threads on two cores, as `keel bench message` measures ours. Prints the lines that
 * `keel bench message --peer` reads. Arguments: seconds, first core, second core.
 */
#define _GNU_SOURCE
#include "spdk/stdinc.h"

#include "spdk/env.h"
#include "spdk/log.h"
#include "spdk/thread.h"

#include <pthread.h>
#include <sched.h>

#define BURST 64
/* SPDK aborts when its ring is full: the sender counts. As our mailbox. */
#define BOUND 4096
#define BUCKETS (1 << 20)

static struct spdk_thread *g_sender, *g_receiver;
static uint64_t g_received __attribute__((aligned(128)));
static volatile int g_stop __attribute__((aligned(128)));
static int g_cores[2];
static uint64_t g_end, g_caught, g_trips;
static int g_playing;
static uint32_t g_ticks[BUCKETS];

static void
pin(int core)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(core, &cpus);
	pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus);
}

static void
receive(void *arg)
{
	(void)arg;
	__atomic_store_n(&g_received, g_received + 1, __ATOMIC_RELEASE);
}

static void *
receiver(void *arg)
{
	(void)arg;
	pin(g_cores[1]);
	while (!g_stop) {
		spdk_thread_poll(g_receiver, 0, 0);
	}
	return NULL;
}

static void catch_ball(void *arg);

static void
return_ball(void *arg)
{
	spdk_thread_send_msg(g_sender, catch_ball, arg);
}

static void
catch_ball(void *arg)
{
	uint64_t now = spdk_get_ticks(), took = now - g_caught;

	g_ticks[took < BUCKETS ? took : BUCKETS - 1]++;
	g_trips++;
	g_caught = now;
	if (now < g_end) {
		spdk_thread_send_msg(g_receiver, return_ball, arg);
	} else {
		g_playing = 0;
	}
}

static double
percentile(double part, uint64_t hz)
{
	uint64_t seen = 0, want = (uint64_t)((double)g_trips * part);
	uint32_t ticks = 0;

	for (; ticks < BUCKETS - 1 && seen <= want; ticks++) {
		seen += g_ticks[ticks];
	}
	return (double)ticks * 1e9 / (double)hz;
}

int
main(int argc, char **argv)
{
	struct spdk_env_opts opts = { .opts_size = sizeof(opts) };
	double seconds = argc > 1 ? atof(argv[1]) : 2;
	uint64_t hz, start, sent = 0;
	pthread_t other;
	int i;

	g_cores[0] = argc > 2 ? atoi(argv[2]) : 0;
	g_cores[1] = argc > 3 ? atoi(argv[3]) : 1;
	spdk_log_set_print_level(SPDK_LOG_ERROR);
	spdk_env_opts_init(&opts);
	opts.name = "messages";
	opts.no_pci = true;
	opts.mem_size = 512;
	opts.env_context = (char *)"--log-level=lib.eal:4";
	if (spdk_env_init(&opts) != 0 || spdk_thread_lib_init(NULL, 0) != 0) {
		return 1;
	}
	g_sender = spdk_thread_create("sender", NULL);
	g_receiver = spdk_thread_create("receiver", NULL);
	pthread_create(&other, NULL, receiver, NULL);
	pin(g_cores[0]);
	hz = spdk_get_ticks_hz();

	start = spdk_get_ticks();
	g_end = start + (uint64_t)(seconds * (double)hz);
	spdk_set_thread(g_sender);
	while (spdk_get_ticks() < g_end) {
		uint64_t received = __atomic_load_n(&g_received, __ATOMIC_ACQUIRE);

		for (i = 0; i < BURST && sent - received < BOUND; i++, sent++) {
			spdk_thread_send_msg(g_receiver, receive, NULL);
		}
		spdk_thread_poll(g_sender, 0, 0);
	}
	while (__atomic_load_n(&g_received, __ATOMIC_ACQUIRE) < sent) {
	}
	printf("messages_per_s %.0f\n", (double)sent * (double)hz / (double)(spdk_get_ticks() - start));

	g_playing = 1;
	g_caught = spdk_get_ticks();
	g_end = g_caught + (uint64_t)(seconds * (double)hz);
	spdk_set_thread(g_sender);
	spdk_thread_send_msg(g_receiver, return_ball, NULL);
	while (g_playing) {
		spdk_thread_poll(g_sender, 0, 0);
	}
	printf("ping_pong_p50_ns %.1f\nping_pong_p99_ns %.1f\n", percentile(0.5, hz), percentile(0.99, hz));
	g_stop = 1;
	pthread_join(other, NULL);
	fflush(stdout);
	_exit(0);
}
