/* Same level, other layout. */
#include "sound.h"
struct dss_module other_layout_module = { SOUND("other_layout", 40), .sm_fingerprint = 0x1234 };
