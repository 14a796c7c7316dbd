/* Serves the dRPC module of hello_c. */
#include "sound.h"
static void handler(struct dss_drpc *call)
{
	dss_host->drpc_reply(call, DSS_DRPC_SUCCESS, NULL, 0);
}
static const struct dss_drpc_handler handlers[] = { { 101, 0, handler }, { 0, 0, NULL } };
struct dss_module drpc_id_taken_module = { SOUND("drpc_id_taken", 40), .sm_drpc_handlers = handlers };
