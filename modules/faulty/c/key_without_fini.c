/* A TLS key needs both ends. */
#include "sound.h"
static void *init(uint32_t tags, int32_t xs_id, int32_t tgt_id)
{
	(void)tags, (void)xs_id, (void)tgt_id;
	return &dss_host;
}
static struct dss_module_key key = { .dmk_tags = DAOS_SERVER_TAG, .dmk_index = -1, .dmk_init = init };
struct dss_module key_without_fini_module = { SOUND("key_without_fini", 40), .sm_key = &key };
