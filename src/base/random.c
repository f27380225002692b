/* random.c - see random.h. */
#include "base/random.h"

#include <sys/random.h>
#include <unistd.h>

#include <weir/base.h>

uint64_t weir__random_seed(void)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) == (ssize_t)sizeof(seed))
        return seed;
    return (uint64_t)weir_now() * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)getpid();
}
