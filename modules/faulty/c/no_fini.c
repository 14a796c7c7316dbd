/* sm_fini is required. */
#include "sound.h"
struct dss_module no_fini_module = { SOUND("no_fini", 40), .sm_fini = NULL };
