/* Exports a descriptor under another name than <name>_module. */
#include "sound.h"
struct dss_module some_module = { SOUND("no_symbol", 40) };
