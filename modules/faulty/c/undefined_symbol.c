/* Calls a function that nobody has: shows at load, not at its first call. */
#include "sound.h"
int32_t nobody_defines_this(void);
struct dss_module undefined_symbol_module = { SOUND("undefined_symbol", 40), .sm_fini = nobody_defines_this };
