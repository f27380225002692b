/* random.h - where randomness enters: from the kernel, so that a forked child has its own. */
#ifndef WEIR_BASE_RANDOM_H
#define WEIR_BASE_RANDOM_H

#include <stdint.h>

/* 64 random bits, a system call each; enough to seed model/random.h.  Not for secrets: where the
 * kernel has none to give, they are made of the time. */
uint64_t weir__random_seed(void);

#endif
