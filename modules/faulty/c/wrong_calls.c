/* Calls the host from states and xstreams where the header forbids it; each must be refused, none may crash. The results
 * go back over dRPC module 102 as little-endian 32-bit numbers: those collected in sm_init first, then those of sm_setup. */
#include "sound.h"

extern struct dss_module wrong_calls_module;

static int32_t results[16];
static uint32_t count;

static void note(int32_t rc)
{
	if (count < 16)
		results[count++] = rc;
}

static void func(void *arg)
{
	(void)arg;
}

static void done_never(void *arg, int32_t rc, const uint8_t *body, uint64_t len, struct dss_buf bulk)
{
	(void)arg, (void)rc, (void)body, (void)len;
	dss_host->buf_free(bulk);
}

static int32_t init(void)
{
	struct dss_bdev_info info;
	struct dss_bdev *bdev;
	struct dss_buf none = { 0 };

	note(dss_host->tls_get() == NULL ? 0 : 1);
	note(dss_host->bdev_open(&wrong_calls_module, &info, &bdev));
	note(dss_host->tasklet(&wrong_calls_module, "early", DSS_XS_SELF, 0, func, NULL));
	note(dss_host->rpc_call(&wrong_calls_module, 0, DSS_RPC_OPCODE(4, 1, 0), NULL, 0, none, done_never, NULL));
	return 0;
}

static int32_t setup(struct dss_done *done)
{
	struct dss_bdev_info info;
	struct dss_bdev *bdev;

	(void)done;
	note(dss_host->bdev_open(&wrong_calls_module, &info, &bdev)); /* the system xstream has no target */
	note(dss_host->tasklet(&wrong_calls_module, "nowhere", DSS_XS_VOS, 9999, func, NULL));
	note(dss_host->tasklet(&wrong_calls_module, "unknown", 77, 0, func, NULL));
	return 0;
}

static void handler(struct dss_drpc *call)
{
	dss_host->drpc_reply(call, DSS_DRPC_SUCCESS, (const uint8_t *)results, count * sizeof(results[0]));
}

static const struct dss_drpc_handler handlers[] = { { 102, 0, handler }, { 0, 0, NULL } };
struct dss_module wrong_calls_module = { SOUND("wrong_calls", 44), .sm_init = init, .sm_setup = setup, .sm_drpc_handlers = handlers };
