/* Not faulty: built with the header as it was at level 2, whose modules every later engine loads. */
#define DSS_ABI_LEVEL 2u
#include "sound.h"
#ifdef DSS_IV_KEY_MAX
#error "level 3 shows at level 2"
#endif
struct dss_module level_two_module = { SOUND("level_two", 46) };
