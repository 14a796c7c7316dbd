/* Its descriptor names another module. */
#include "sound.h"
struct dss_module other_name_module = { SOUND("somebody_else", 40) };
