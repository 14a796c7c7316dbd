/* Built for an earlier level of the ABI. */
#include "sound.h"
struct dss_module old_abi_module = { SOUND("old_abi", 40), .sm_level = DSS_ABI_LEVEL - 1 };
