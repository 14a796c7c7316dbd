/*
 * Everything that Rust calls of SPDK. The Rust half declares these functions and nothing of SPDK itself, so that layouts,
 * enumerations and inline functions always come from the installed headers.
 *
 * Rules:
 * - K1 No function here keeps a pointer of the caller's beyond its return, but for `arg`s, which go back to the callback.
 * - K2 A callback is called on the SPDK thread that was current when it was given, unless said otherwise.
 * - K3 Rust callbacks do not unwind into C.
 */
#ifndef KEEL_SPDK_SHIM_H
#define KEEL_SPDK_SHIM_H

#define _GNU_SOURCE

#include "spdk/stdinc.h"

#include "spdk/bdev.h"
#include "spdk/env.h"
#include "spdk/init.h"
#include "spdk/log.h"
#include "spdk/rpc.h"
#include "spdk/string.h"
#include "spdk/thread.h"
#include "spdk/uuid.h"
#include "spdk/version.h"

#if SPDK_VERSION_MAJOR != 26
#error "this shim is written for SPDK 26.x"
#endif

/* level: 0 error, 1 warning, 2 notice, 3 information, 4 debug. Any OS thread. */
typedef void (*ks_log_fn)(int level, const char *origin, const char *text, size_t length);

#endif
