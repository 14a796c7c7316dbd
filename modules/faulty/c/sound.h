/* A sound descriptor; each faulty module changes the one field that is its defect. */
#include "engine_module.h"

DSS_MODULE_HOST();

static inline int32_t nothing(void)
{
	return 0;
}

#define SOUND(name, id) DSS_MODULE_ABI, .sm_name = name, .sm_mod_id = id, .sm_ver = 1u << 24, .sm_init = nothing, .sm_fini = nothing
