/* Its module id is outside the table. */
#include "sound.h"
struct dss_module id_out_of_range_module = { SOUND("id_out_of_range", DSS_MAX_MODULE) };
