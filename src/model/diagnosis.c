/* diagnosis.c - see diagnosis.h. */
#include "model/diagnosis.h"

#define PLACES_MIN   4    /* fewer are full whenever they are used */
#define EXPECTED_MIN 3    /* items that should have come out before too few of them mean anything */
#define AGE_LOOKS    6    /* two in each third */
#define AGE_TIMED    5    /* in each third */
#define AGE_SECONDS  0.01 /* shorter waits may grow as they like */

static double events_of(const weir__vitals *v)
{
    return v->waits + v->refused + v->dropped - v->discarded;
}

/* On average; of two looks, at both. */
static bool is_above(const weir__vitals *v, double mean, double least, double limit)
{
    bool is_seen = v->looks >= WEIR__DIAGNOSIS_LOOKS || (v->looks == 2 && least > limit);
    return is_seen && mean > limit;
}

static bool is_queue_high(const weir__vitals *v, const weir__limits *limits, double *ret)
{
    if (v->holds_items && is_above(v, v->depth, v->least_depth, limits->queue_depth)) {
        *ret = v->depth;
        return true;
    }
    *ret = v->fullness;
    bool hands_over = v->places > 0 && v->places < PLACES_MIN;
    return v->holds_items && !hands_over &&
           is_above(v, v->fullness, v->least_fullness, limits->queue_share);
}

static bool is_slow(const weir__vitals *v, const weir__limits *limits, double *ret)
{
    *ret = v->service_s;
    return v->service_s > limits->service_s;
}

static bool pushes_back(const weir__vitals *v, const weir__limits *limits, double *ret)
{
    *ret = events_of(v);
    return *ret > limits->events;
}

/* It had work at every look, and time enough to do some. */
static bool is_low(const weir__vitals *v, const weir__limits *limits, double *ret)
{
    *ret = v->seconds > 0 ? v->out / v->seconds : 0;
    return v->holds_items && v->least_inside > 0 && *ret < limits->throughput &&
           v->seconds * limits->throughput >= EXPECTED_MIN;
}

static bool grows_old(const weir__vitals *v, const weir__limits *limits, double *ret)
{
    const double *wait = v->wait_s;
    *ret = wait[0] > 0 ? wait[2] / wait[0] : 0;
    for (int i = 0; i < 3; i++)
        if (v->waited[i] < AGE_TIMED)
            return false;
    return v->looks >= AGE_LOOKS && v->holds_items && wait[2] >= AGE_SECONDS && wait[0] < wait[1] &&
           wait[1] < wait[2] && wait[2] > limits->age_growth * wait[0];
}

static bool drops(const weir__vitals *v, const weir__limits *limits, double *ret)
{
    *ret = v->dropped - v->discarded;
    return *ret > limits->drops;
}

static bool is_open(const weir__vitals *v, double *ret)
{
    *ret = (double)v->state;
    return v->is_breaker && v->state > 0;
}

static bool is_short_of_memory(const weir__vitals *v, double *ret)
{
    *ret = (double)v->state;
    return v->is_governor && v->state > 0;
}

static bool loses_workers(const weir__vitals *v, double *ret)
{
    *ret = v->lost_workers;
    return v->is_process_pool && v->lost_workers > 0;
}

uint32_t weir__diagnose(const weir__vitals *v, const weir__limits *limits,
                        double ret_values[WEIR__ISSUES])
{
    bool is[WEIR__ISSUES] = {false}, has_seen = v->looks >= WEIR__DIAGNOSIS_LOOKS;
    double *value = ret_values;
    for (int i = 0; i < WEIR__ISSUES; i++)
        value[i] = 0;
    is[WEIR__QUEUE_HIGH] = is_queue_high(v, limits, &value[WEIR__QUEUE_HIGH]);
    is[WEIR__SLOW_SERVICE] = is_slow(v, limits, &value[WEIR__SLOW_SERVICE]) && has_seen;
    is[WEIR__BACKPRESSURE] = pushes_back(v, limits, &value[WEIR__BACKPRESSURE]) && has_seen;
    is[WEIR__LOW_THROUGHPUT] = is_low(v, limits, &value[WEIR__LOW_THROUGHPUT]) && has_seen;
    is[WEIR__GROWING_AGE] = grows_old(v, limits, &value[WEIR__GROWING_AGE]);
    is[WEIR__DROPS] = drops(v, limits, &value[WEIR__DROPS]);
    is[WEIR__BREAKER_OPEN] = is_open(v, &value[WEIR__BREAKER_OPEN]);
    is[WEIR__MEMORY] = is_short_of_memory(v, &value[WEIR__MEMORY]);
    is[WEIR__WORKERS_DIE] = loses_workers(v, &value[WEIR__WORKERS_DIE]);
    uint32_t issues = 0;
    for (int i = 0; i < WEIR__ISSUES; i++)
        issues |= is[i] ? UINT32_C(1) << i : 0;
    return issues;
}

double weir__diagnosis_threshold(const weir__limits *limits, weir__issue issue)
{
    switch (issue) {
    case WEIR__QUEUE_HIGH: return limits->queue_share;
    case WEIR__SLOW_SERVICE: return limits->service_s;
    case WEIR__BACKPRESSURE: return limits->events;
    case WEIR__LOW_THROUGHPUT: return limits->throughput;
    case WEIR__GROWING_AGE: return limits->age_growth;
    case WEIR__DROPS: return limits->drops;
    default: return 0;
    }
}

int weir__diagnosis_rank(weir__issue issue)
{
    static const int rank[WEIR__ISSUES] = {
        [WEIR__WORKERS_DIE] = 0,  [WEIR__MEMORY] = 1,       [WEIR__BREAKER_OPEN] = 2,
        [WEIR__DROPS] = 3,        [WEIR__GROWING_AGE] = 4,  [WEIR__LOW_THROUGHPUT] = 5,
        [WEIR__SLOW_SERVICE] = 6, [WEIR__BACKPRESSURE] = 7, [WEIR__QUEUE_HIGH] = 8,
    };
    return rank[issue];
}

/* ---- the root ------------------------------------------------------------------------------- */

double weir__pressure_of_line(double put_blocked, double get_blocked)
{
    return put_blocked > get_blocked ? put_blocked : 0;
}
