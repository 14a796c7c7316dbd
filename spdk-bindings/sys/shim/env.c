/* The environment: DPDK's memory, cores and PCI devices, and both libraries' logs. */
#include "shim.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#ifdef KS_MODULES
#include <dlfcn.h>
#endif

/* DPDK's own; by hand, so that its headers need not be found. */
extern int rte_openlog_stream(FILE *f);
extern int rte_log_cur_msg_loglevel(void);

static ks_log_fn g_log;
static FILE *g_dpdk_log;
/* What the libraries say of themselves while they start, which is what is linked and not what was compiled against. */
static unsigned g_major, g_minor;

static void
ks_log(int level, const char *file, const int line, const char *func, const char *format, va_list args)
{
	char text[1024], origin[128];
	int length;

	(void)func;
	length = vsnprintf(text, sizeof(text), format, args);
	if (length < 0) {
		return;
	}
	if ((size_t)length >= sizeof(text)) {
		length = sizeof(text) - 1;
	}
	if (g_major == 0) {
		sscanf(text, "Starting SPDK v%u.%u", &g_major, &g_minor);
	}
	while (length > 0 && text[length - 1] == '\n') {
		length--;
	}
	if (file != NULL) {
		snprintf(origin, sizeof(origin), "%s:%d", file, line);
	} else {
		origin[0] = '\0';
	}
	if (g_log != NULL && length > 0) {
		g_log(level, origin, text, (size_t)length);
	}
}

static ssize_t
ks_dpdk_write(void *cookie, const char *text, size_t length)
{
	/* RTE_LOG_EMERG 1 ... ERR 4, WARNING 5, NOTICE 6, INFO 7, DEBUG 8 */
	int level = rte_log_cur_msg_loglevel() - 4;
	size_t used = length;

	(void)cookie;
	while (used > 0 && text[used - 1] == '\n') {
		used--;
	}
	if (g_log != NULL && used > 0) {
		g_log(level < 0 ? 0 : level, "dpdk", text, used);
	}
	return (ssize_t)length;
}

/* Both logs go to `log` from here on; nothing is printed any more. */
int
ks_log_open(ks_log_fn log)
{
	static cookie_io_functions_t functions = { .write = ks_dpdk_write };

	g_log = log;
	spdk_log_open(ks_log);
	spdk_log_set_print_level(SPDK_LOG_DISABLED);
	if (g_dpdk_log == NULL) {
		g_dpdk_log = fopencookie(NULL, "w", functions);
		if (g_dpdk_log == NULL) {
			return -errno;
		}
		setvbuf(g_dpdk_log, NULL, _IOLBF, 4096);
	}
	return rte_openlog_stream(g_dpdk_log);
}

/* 0 error ... 4 debug: what is less is not even formatted by SPDK's own debug macros. */
void
ks_log_set_level(int level)
{
	spdk_log_set_level((enum spdk_log_level)level);
}

uint32_t
ks_version_of_headers(void)
{
	return SPDK_VERSION_MAJOR * 100 + SPDK_VERSION_MINOR;
}

/* 0 before ks_env_init. */
uint32_t
ks_version_of_library(void)
{
	return g_major * 100 + g_minor;
}

#ifdef KS_MODULES
/* A symbol of each library, made by build.rs: the program needs them. */
extern const void *const ks_needed[];
#endif

/*
 * Linked against shared libraries: loads those that have no symbols, whose constructors announce modules. The name of the one that cannot be
 * loaded is left in `missing` with the loader's words, and -ENOENT returned.
 */
int
ks_modules_load(char *missing, size_t length)
{
#ifdef KS_MODULES
	static const char modules[] = KS_MODULES;
	const char *begin = modules;
	const void *volatile needed = ks_needed[0];
	char name[128];

	(void)needed;

	while (*begin != '\0') {
		size_t used = strcspn(begin, ":");

		snprintf(name, sizeof(name), "%.*s", (int)used, begin);
		if (dlopen(name, RTLD_NOW | RTLD_GLOBAL) == NULL) {
			snprintf(missing, length, "%s", dlerror());
			return -ENOENT;
		}
		begin += used + (begin[used] == ':');
	}
#endif
	(void)missing;
	(void)length;
	return 0;
}

/*
 * Takes memory and cores. `pci` are `pci_count` addresses that may be used; none: no PCI device at all. `again`: the same
 * process has done so before and let go of it with ks_env_fini. The calling thread keeps its affinity, and SIGBUS its
 * default when no device is there that could be pulled.
 */
int
ks_env_init(const char *name, const char *core_mask, int memory_mib, int no_huge, const char *const *pci,
	    size_t pci_count, int again)
{
	struct spdk_env_opts opts = { .opts_size = sizeof(opts) };
	struct spdk_pci_addr *allowed = NULL;
	cpu_set_t cpus;
	size_t i;
	int rc, has_cpus;

	if (again) {
		return spdk_env_init(NULL);
	}
	spdk_env_opts_init(&opts);
	opts.name = name;
	opts.core_mask = core_mask;
	opts.mem_size = memory_mib;
	opts.no_huge = no_huge;
	opts.no_pci = pci_count == 0;
	opts.shm_id = -1;
	if (pci_count > 0) {
		allowed = calloc(pci_count, sizeof(*allowed));
		if (allowed == NULL) {
			return -ENOMEM;
		}
		for (i = 0; i < pci_count; i++) {
			rc = spdk_pci_addr_parse(&allowed[i], pci[i]);
			if (rc != 0) {
				free(allowed);
				return rc;
			}
		}
		opts.pci_allowed = allowed;
		opts.num_pci_addr = pci_count;
	}
	has_cpus = pthread_getaffinity_np(pthread_self(), sizeof(cpus), &cpus) == 0;
	rc = spdk_env_init(&opts);
	if (has_cpus) {
		pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus);
	}
	if (pci_count == 0) {
		signal(SIGBUS, SIG_DFL);
	}
	free(allowed);
	return rc;
}

void
ks_env_fini(void)
{
	spdk_env_fini();
}

uint64_t
ks_ticks(void)
{
	return spdk_get_ticks();
}

uint64_t
ks_ticks_hz(void)
{
	return spdk_get_ticks_hz();
}

/* Zeroed memory that devices reach, or NULL. */
void *
ks_dma_alloc(size_t size, size_t align, int numa)
{
	return spdk_zmalloc(size, align, NULL, numa < 0 ? SPDK_ENV_NUMA_ID_ANY : numa, SPDK_MALLOC_DMA);
}

void
ks_dma_free(void *memory)
{
	spdk_free(memory);
}

/* Memory of ours that devices shall reach: whole huge pages. */
int
ks_mem_register(void *start, size_t length)
{
	return spdk_mem_register(start, length);
}

int
ks_mem_unregister(void *start, size_t length)
{
	return spdk_mem_unregister(start, length);
}
