/* sm_cleanup fails: logged, and the others are cleaned up all the same. */
#include "sound.h"
static int32_t cleanup(struct dss_done *done)
{
	(void)done;
	return -1025; /* -DER_MISC */
}
struct dss_module cleanup_fails_module = { SOUND("cleanup_fails", 43), .sm_cleanup = cleanup };
