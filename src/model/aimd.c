/* aimd.c - see aimd.h. */
#include "model/aimd.h"

#include <stdint.h>

double weir__aimd_grow(const weir__aimd *aimd, double limit)
{
    (void)aimd;
    return limit + 1;
}

double weir__aimd_drop(const weir__aimd *aimd, double limit)
{
    double less = (double)(int64_t)(limit * aimd->backoff);
    return less < limit - 1 ? less : limit - 1;
}
