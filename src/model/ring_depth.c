/* ring_depth.c - see ring_depth.h. */
#include "model/ring_depth.h"

/* A hand-over between processes costs 0.1 ms at worst (two futex wake-ups on a virtual machine).
 * Twenty of them as work in hand hide it; a task 500 times as long does not feel it. */
#define WORK_AHEAD_NS INT64_C(2000000)
#define LONG_TASK_NS  INT64_C(50000000)

void weir__ring_depth_measure(weir__ring_depth *depth, int64_t service_ns)
{
    if (service_ns < 1)
        service_ns = 1;
    if (depth->service_ns == 0)
        depth->service_ns = service_ns;
    else
        depth->service_ns += (service_ns - depth->service_ns) / 8;
    if (depth->service_ns < 1)
        depth->service_ns = 1;
}

unsigned weir__ring_depth_get(const weir__ring_depth *depth, unsigned slots)
{
    if (depth->service_ns == 0)
        return slots < 2 ? slots : 2;
    if (depth->service_ns >= LONG_TASK_NS)
        return 1;
    int64_t ahead = WORK_AHEAD_NS / depth->service_ns;
    if (ahead < 1)
        ahead = 1;
    return ahead < (int64_t)slots - 1 ? 1 + (unsigned)ahead : slots;
}
