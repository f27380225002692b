/* throttle.c - see throttle.h. */
#include "model/throttle.h"

void weir__throttle_init(weir__throttle *throttle, double k, double max_chance, int64_t window_ns,
                         int64_t now_ns)
{
    throttle->k = k;
    throttle->max_chance = max_chance;
    weir__time_window_init(&throttle->window, window_ns, now_ns);
}

double weir__throttle_chance(weir__throttle *throttle, int64_t now_ns)
{
    weir__time_window_advance(&throttle->window, now_ns);
    const weir__tally *tally = &throttle->window.tally;
    if (tally->failed == 0)
        return 0;
    double requests = (double)tally->calls, accepts = (double)(tally->calls - tally->failed);
    double chance = (requests - throttle->k * accepts) / (requests + 1);
    if (chance < 0)
        return 0;
    return chance < throttle->max_chance ? chance : throttle->max_chance;
}

bool weir__throttle_admit(weir__throttle *throttle, int64_t now_ns, double draw)
{
    if (draw >= weir__throttle_chance(throttle, now_ns))
        return true;
    weir__time_window_add(&throttle->window, true, false);
    return false;
}

void weir__throttle_report(weir__throttle *throttle, int64_t now_ns, bool accepted)
{
    weir__time_window_advance(&throttle->window, now_ns);
    weir__time_window_add(&throttle->window, !accepted, false);
}
