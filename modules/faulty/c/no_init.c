/* sm_init is required. */
#include "sound.h"
struct dss_module no_init_module = { SOUND("no_init", 40), .sm_init = NULL };
