/* Three protocol versions where two are possible. */
#include "sound.h"
struct dss_module too_many_protos_module = { SOUND("too_many_protos", 40), .sm_proto_count = 3 };
