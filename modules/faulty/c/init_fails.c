/* sm_init returns an error. */
#include "sound.h"
static int32_t init(void)
{
	return -1007; /* -DER_NOSPACE */
}
struct dss_module init_fails_module = { SOUND("init_fails", 45), .sm_init = init };
