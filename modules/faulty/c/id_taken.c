/* Has the module id of hello_c. */
#include "sound.h"
struct dss_module id_taken_module = { SOUND("id_taken", 33) };
