/* governor.h - of the memory governor, what is not the contract's: one whose kernel files lie somewhere
 * else, for tests; and its limit. */
#ifndef WEIR_FLOW_GOVERNOR_H
#define WEIR_FLOW_GOVERNOR_H

#include <weir/memory.h>

#include "base/memory.h"

/* As weir_governor_create.  The strings stay the caller's, as long as the governor lives. */
int weir__governor_create_at(weir_governor **ret_governor, const weir_governor_opts *opts,
                             const weir__memory_roots *roots);

/* Measures even if it is not time, but not more than every millisecond. */
void weir__governor_measure(weir_governor *governor);

/* Bytes; as last measured, without a lock. */
uint64_t weir__governor_limit(const weir_governor *governor);

/* How many peaks of a kind were observed. */
uint64_t weir__governor_seen(weir_governor *governor, uint64_t kind);

#endif
