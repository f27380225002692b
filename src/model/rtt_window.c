/* rtt_window.c - see rtt_window.h. */
#include "model/rtt_window.h"

#define LONGEST_NS INT64_C(1000000000) /* to wait for what is on its way */
#define EXACT      0.02                /* standard error of an average, of the average */
#define MOST_TRIPS 4

static void empty(weir__rtt_window *window, int64_t opens_at)
{
    window->opens_at = opens_at;
    window->n = 0;
    window->most_in_flight = 0;
    window->sum = window->squares = window->min = 0;
    weir__quantile_init(&window->quantile, window->quantile.p);
}

void weir__rtt_window_init(weir__rtt_window *window, weir__rtt_kind kind, double p, uint32_t enough,
                           int64_t least_ns, int64_t now_ns)
{
    *window = (weir__rtt_window){
        .kind = kind,
        .enough = enough,
        .least_ns = least_ns,
        .forgive_before = INT64_MIN,
        .quantile.p = p,
    };
    empty(window, now_ns);
}

static double summary(const weir__rtt_window *window)
{
    switch (window->kind) {
    case WEIR__RTT_MINIMUM: return window->min;
    case WEIR__RTT_QUANTILE: return weir__quantile_get(&window->quantile);
    case WEIR__RTT_AVERAGE: break;
    }
    return window->sum / window->n;
}

static double variance_of_average(const weir__rtt_window *window)
{
    if (window->n < 2)
        return 0;
    double mean = window->sum / window->n;
    double spread = window->squares / window->n - mean * mean;
    return spread > 0 ? spread / (window->n - 1) : 0;
}

bool weir__rtt_window_add(weir__rtt_window *window, int64_t now_ns, int64_t rtt_ns,
                          uint64_t in_flight, weir__rtt *ret_rtt)
{
    if (now_ns < window->opens_at)
        return false;
    double rtt = (double)rtt_ns;
    if (window->n == 0 || rtt < window->min)
        window->min = rtt;
    if (window->kind == WEIR__RTT_QUANTILE)
        weir__quantile_add(&window->quantile, rtt);
    window->n++;
    window->sum += rtt;
    window->squares += rtt * rtt;
    if (in_flight > window->most_in_flight)
        window->most_in_flight = in_flight;
    if (window->n < window->enough || now_ns < window->closes_at)
        return false;
    double error = EXACT * window->sum / window->n, variance = variance_of_average(window);
    if (variance > error * error && now_ns < window->latest_at)
        return false;
    *ret_rtt = (weir__rtt){summary(window), variance, window->most_in_flight};
    return true;
}

bool weir__rtt_window_drop(weir__rtt_window *window, int64_t now_ns, int64_t rtt_ns)
{
    if (now_ns - rtt_ns < window->forgive_before)
        return false;
    window->forgive_before = now_ns;
    return true;
}

void weir__rtt_window_next(weir__rtt_window *window, int64_t now_ns, int64_t rtt_ns, bool changed)
{
    int64_t trip = rtt_ns < LONGEST_NS ? rtt_ns : LONGEST_NS;
    empty(window, changed ? now_ns + trip : now_ns);
    window->closes_at = window->opens_at + (trip > window->least_ns ? trip : window->least_ns);
    window->latest_at = window->closes_at + (MOST_TRIPS - 1) * trip;
}
