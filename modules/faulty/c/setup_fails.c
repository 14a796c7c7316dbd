/* sm_setup fails the first time and works the second: SetUp can be called again. */
#include "sound.h"
static int calls;
static int32_t setup(struct dss_done *done)
{
	(void)done;
	return calls++ == 0 ? -1007 : 0; /* -DER_NOSPACE */
}
struct dss_module setup_fails_module = { SOUND("setup_fails", 42), .sm_setup = setup };
