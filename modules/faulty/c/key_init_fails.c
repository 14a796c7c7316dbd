/* Has no value for the main xstreams: their start must fail, and undo what was done. */
#include "sound.h"
static void *init(uint32_t tags, int32_t xs_id, int32_t tgt_id)
{
	(void)tags, (void)xs_id;
	return tgt_id == 1 ? NULL : &dss_host;
}
static void fini(uint32_t tags, void *value)
{
	(void)tags, (void)value;
}
static struct dss_module_key key = { .dmk_tags = DAOS_SERVER_TAG, .dmk_index = -1, .dmk_init = init, .dmk_fini = fini };
struct dss_module key_init_fails_module = { SOUND("key_init_fails", 46), .sm_key = &key };
