/* rate.c - weir_rate for the driver.  A reservation has the id of the call that made it. */
#include "driver.h"

static weir_rate *rate;
static weir_reservation reservations[CALLS_MAX];

static int create(void)
{
    weir_rate_opts opts = WEIR_RATE_OPTS_INIT;
    opts.rate = option("rate", 0);
    opts.per_ns = (int64_t)option("per", 0);
    opts.burst = option("burst", 0);
    opts.shared = option_text("shared");
    opts.name = option_text("name");
    return weir_rate_create(&rate, &opts);
}

static void close_rate(void)
{
    weir_rate_close(rate);
}

static void destroy(void)
{
    weir_rate_destroy(rate);
}

/* ---- verbs ---------------------------------------------------------------------------------------- */

static void acquire(request *call)
{
    answer(call, weir_rate_acquire(rate, argument(call, 0), deadline_argument(call, 1)), "%s", "");
}

static void reserve(request *call)
{
    weir_time at = 0;
    int result = weir_rate_reserve(rate, argument(call, 0), &at, &reservations[call->id]);
    answer(call, result, "%lld", (long long)(at - weir_now()));
}

static void unreserve(request *call)
{
    int result = weir_rate_unreserve(rate, &reservations[argument(call, 0) % CALLS_MAX]);
    answer(call, result, "%d", result);
}

/* So many tokens one after the other; says of each between which two times it was got. */
static void work(request *call)
{
    int result = WEIR_OK;
    for (uint64_t i = 0; i < argument(call, 0) && result >= 0; i++) {
        weir_time before = weir_now();
        result = weir_rate_acquire(rate, 1, WEIR_FOREVER);
        if (result >= 0)
            say("got %s %lld %lld", call->words[0], (long long)before, (long long)weir_now());
    }
    answer(call, result, "%s", "");
}

static void set(request *call)
{
    int result =
        weir_rate_set(rate, argument(call, 0), (int64_t)argument(call, 1), argument(call, 2));
    answer(call, result, "%s", "");
}

static void close_verb(request *call)
{
    weir_rate_close(rate);
    answer(call, WEIR_OK, "%s", "");
}

static void look(request *call)
{
    typedef unsigned long long number;
    weir_rate_snapshot now = WEIR_RATE_SNAPSHOT_INIT;
    int result = weir_rate_get_snapshot(rate, &now);
    answer(call, result,
           "burst=%llu available=%lld granted=%llu returned=%llu refused=%llu waiting=%zu "
           "is_closed=%d",
           (number)now.burst, (long long)now.available, (number)now.granted, (number)now.returned,
           (number)now.refused, now.waiting, now.closed);
}

static const verb verbs[] = {
    {"acquire", 2, acquire},  {"reserve", 1, reserve}, {"unreserve", 1, unreserve},
    {"work", 1, work},        {"set", 3, set},         {"look", 0, look},
    {"close", 0, close_verb}, {NULL, 0, NULL},
};

const subject rate_subject = {"rate", create, close_rate, destroy, verbs};
