/* Built for a level of the ABI that no engine has any more. */
#include "sound.h"
struct dss_module old_abi_module = { SOUND("old_abi", 40), .sm_level = 0 };
