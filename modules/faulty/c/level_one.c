/* Not faulty: built with the header as it was at level 1, whose modules every later engine loads. */
#define DSS_ABI_LEVEL 1u
#include "sound.h"
#ifdef DSS_FOREVER
#error "level 2 shows at level 1"
#endif
struct dss_module level_one_module = { SOUND("level_one", 45) };
