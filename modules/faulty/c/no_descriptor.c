/* The symbol exists but is no descriptor. */
#include <stdint.h>
uint64_t no_descriptor_module[64] = { 0xdeadbeef };
