/* The other half. */
#include "sound.h"
static const char *const needs[] = { "need_cycle_a", NULL };
struct dss_module need_cycle_b_module = { SOUND("need_cycle_b", 41), .sm_needs = needs };
