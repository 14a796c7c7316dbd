/* The smallest useful module in C, built with engine_module.h alone:
 *
 *     cc -shared -fPIC -I modules/abi/include -o libhello_c.so hello_c.c
 *
 * dRPC module 101, method 1 answers "hello from xstream <n>, call <m>"; the count lives in per-xstream storage. */
#include <stdio.h>
#include <stdlib.h>

#include "engine_module.h"

DSS_MODULE_HOST();

struct hello {
	unsigned calls;
};

static void *hello_tls_init(uint32_t tags, int32_t xs_id, int32_t tgt_id)
{
	(void)tags, (void)xs_id, (void)tgt_id;
	return calloc(1, sizeof(struct hello));
}

static void hello_tls_fini(uint32_t tags, void *value)
{
	(void)tags;
	free(value);
}

static struct dss_module_key hello_key = {
	.dmk_tags = DAOS_SERVER_TAG,
	.dmk_index = -1,
	.dmk_init = hello_tls_init,
	.dmk_fini = hello_tls_fini,
};

static void hello_drpc(struct dss_drpc *call)
{
	struct hello        *hello = dss_module_key_get(dss_tls_get(), &hello_key);
	struct dss_drpc_info info;
	char                 text[64];
	int                  len;

	dss_host->drpc_info(call, &info);
	if (info.method != 1) {
		dss_host->drpc_reply(call, DSS_DRPC_UNKNOWN_METHOD, NULL, 0);
		return;
	}
	len = snprintf(text, sizeof(text), "hello from xstream %d, call %u", dss_get_module_info()->dmi_xs_id, ++hello->calls);
	dss_host->drpc_reply(call, DSS_DRPC_SUCCESS, (const uint8_t *)text, (uint64_t)len);
}

static const struct dss_drpc_handler hello_handlers[] = { { 101, 0, hello_drpc }, { 0, 0, NULL } };

static int32_t hello_nothing(void)
{
	return 0;
}

struct dss_module hello_c_module = {
	DSS_MODULE_ABI,
	.sm_name = "hello_c",
	.sm_mod_id = 33,
	.sm_ver = 1u << 24,
	.sm_key = &hello_key,
	.sm_init = hello_nothing,
	.sm_fini = hello_nothing,
	.sm_drpc_handlers = hello_handlers,
	.sm_about = "greets over dRPC, in C",
};
