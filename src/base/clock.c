/* clock.c - the only place that reads a clock; see weir/base.h. */
#include <time.h>

#include <weir/base.h>

weir_time weir_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    weir_time now = (weir_time)ts.tv_sec * WEIR_SECOND + ts.tv_nsec;
    return now > 0 ? now : 1; /* 0 means WEIR_POLL */
}

weir_time weir_after(int64_t ns)
{
    if (ns <= 0)
        return WEIR_POLL;
    weir_time now = weir_now();
    return ns < WEIR_FOREVER - now ? now + ns : WEIR_FOREVER - 1;
}
