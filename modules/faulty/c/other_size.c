/* Same level, descriptor of another size. */
#include "sound.h"
struct dss_module other_size_module = { SOUND("other_size", 40), .sm_size = 8 };
