/* Built for a level of the ABI that comes after the engine's. */
#include "sound.h"
struct dss_module new_abi_module = { SOUND("new_abi", 40), .sm_level = DSS_ABI_LEVEL + 1 };
