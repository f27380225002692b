/* shed.c - see shed.h. */
#include "model/shed.h"

bool weir__shed_is_late(weir__shed *shed, weir_time now, int64_t waited_ns)
{
    if (shed->target_ns == 0)
        return false;
    shed->served = now;
    if (now >= shed->until) {
        /* The first interval, or one after a pause, has seen nobody and says nothing. */
        bool is_next = shed->until > now - shed->interval_ns;
        shed->overloaded = is_next && shed->least_ns > shed->target_ns;
        shed->until = now + shed->interval_ns;
        shed->least_ns = waited_ns;
    } else if (waited_ns < shed->least_ns) {
        shed->least_ns = waited_ns;
    }
    return shed->overloaded && waited_ns > 2 * shed->target_ns;
}

bool weir__shed_is_stuck(const weir__shed *shed, weir_time now, int64_t waited_ns)
{
    return shed->target_ns > 0 && waited_ns > 2 * shed->target_ns &&
           waited_ns > shed->interval_ns &&
           (shed->served == 0 || now - shed->served > shed->interval_ns);
}

void weir__shed_note_empty(weir__shed *shed)
{
    shed->least_ns = 0;
    shed->served = 0;
}
