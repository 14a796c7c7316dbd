/* Half of a circle: needs need_cycle_b, which needs this. */
#include "sound.h"
static const char *const needs[] = { "need_cycle_b", NULL };
struct dss_module need_cycle_a_module = { SOUND("need_cycle_a", 40), .sm_needs = needs };
