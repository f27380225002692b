/* limit.c - weir_limit for the driver.  A permit has the id of the call that got it. */
#include "driver.h"

#include <sched.h>

static weir_limit *limit;
static weir_permit permits[CALLS_MAX];
static atomic_uint_fast64_t inside; /* counted here, beside the limit */

static int create(void)
{
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    opts.limit = option("limit", 0);
    opts.shared = option_text("shared");
    opts.name = option_text("name");
    return weir_limit_create(&limit, &opts);
}

static void close_limit(void)
{
    weir_limit_close(limit);
}

static void destroy(void)
{
    weir_limit_destroy(limit);
}

/* ---- verbs ---------------------------------------------------------------------------------------- */

static void acquire(request *call)
{
    int result = weir_limit_acquire(limit, argument(call, 0), 0, deadline_argument(call, 1),
                                    &permits[call->id]);
    answer(call, result, "%s", "");
}

static void release(request *call)
{
    weir_limit_release(limit, &permits[argument(call, 0) % CALLS_MAX], WEIR_LIMIT_SUCCESS);
    answer(call, WEIR_OK, "%s", "");
}

/* So many calls one after the other; says how many were inside at once, at most. */
static void work(request *call)
{
    uint64_t peak = 0;
    int result = WEIR_OK;
    for (uint64_t i = 0; i < argument(call, 0) && result >= 0; i++) {
        weir_permit permit;
        result = weir_limit_acquire(limit, 1, 0, WEIR_FOREVER, &permit);
        if (result < 0)
            break;
        uint64_t now = atomic_fetch_add(&inside, 1) + 1;
        peak = now > peak ? now : peak;
        sched_yield();
        atomic_fetch_sub(&inside, 1);
        weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
    }
    answer(call, result, "%llu", (unsigned long long)peak);
}

static void set(request *call)
{
    answer(call, weir_limit_set(limit, argument(call, 0)), "%s", "");
}

static void close_verb(request *call)
{
    weir_limit_close(limit);
    answer(call, WEIR_OK, "%s", "");
}

static void look(request *call)
{
    typedef unsigned long long number;
    weir_limit_snapshot now = WEIR_LIMIT_SNAPSHOT_INIT;
    int result = weir_limit_get_snapshot(limit, &now);
    answer(call, result,
           "limit=%llu used=%llu in_flight=%llu admitted=%llu released=%llu refused=%llu lost=%llu "
           "waiting=%zu peak=%llu is_closed=%d",
           (number)now.limit, (number)now.used, (number)now.in_flight, (number)now.admitted,
           (number)now.released, (number)now.refused, (number)now.lost, now.waiting,
           (number)now.peak, now.is_closed);
}

static const verb verbs[] = {
    {"acquire", 2, acquire}, {"release", 1, release},  {"work", 1, work}, {"set", 1, set},
    {"look", 0, look},       {"close", 0, close_verb}, {NULL, 0, NULL},
};

const subject limit_subject = {"limit", create, close_limit, destroy, verbs};
