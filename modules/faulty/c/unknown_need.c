/* Needs what nobody provides. */
#include "sound.h"
static const char *const needs[] = { "time_travel", NULL };
struct dss_module unknown_need_module = { SOUND("unknown_need", 40), .sm_needs = needs };
