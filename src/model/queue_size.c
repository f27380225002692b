/* queue_size.c - see queue_size.h. */
#include "model/queue_size.h"

#define HAND_OVER_S     1e-4
#define LEAST_SERVICE_S 1e-7 /* what the queue itself takes for an item */
#define WEIGHT          0.25
#define IGNORED         0.25

static double clamp(double size, double least, double most)
{
    return size < least ? least : size > most ? most : size;
}

void weir__queue_size_init(weir__queue_size *queue_size, const weir__queue_size_terms *terms,
                           size_t initial, weir_time now)
{
    *queue_size = (weir__queue_size){.terms = *terms, .last = {.now = now}};
    queue_size->size = initial < terms->min   ? terms->min
                       : initial > terms->max ? terms->max
                                              : initial;
}

static void average(double *mean, double value)
{
    *mean = *mean > 0 ? *mean + WEIGHT * (value - *mean) : value;
}

static void measure(weir__queue_size *queue_size, const weir__queue_size_sample *sample)
{
    const weir__queue_size_sample *last = &queue_size->last;
    double seconds = (double)(sample->now - last->now) / (double)WEIR_SECOND;
    double busy_s = (double)(sample->busy_ns - last->busy_ns) / (double)WEIR_SECOND;
    double done = (double)(sample->done - last->done);
    average(&queue_size->arrivals_per_s, (double)(sample->arrived - last->arrived) / seconds);
    if (done > 0)
        average(&queue_size->service_s, clamp(busy_s / done, LEAST_SERVICE_S, 1e9));
    queue_size->last = *sample;
}

/* What the measured times ask for. */
static double wanted(const weir__queue_size *queue_size, double workers)
{
    double service_s = queue_size->service_s;
    double while_busy = 2 * workers * service_s * queue_size->arrivals_per_s;
    double while_waking = 2 * workers * HAND_OVER_S / service_s;
    return while_busy > while_waking ? while_busy : while_waking;
}

static size_t most_items(const weir__queue_size *queue_size, double mean_cost)
{
    const weir__queue_size_terms *terms = &queue_size->terms;
    if (!terms->budget_cost || !(mean_cost > 0))
        return terms->max;
    double fit = (double)terms->budget_cost / mean_cost;
    return fit < 1 ? 1 : fit < (double)terms->max ? (size_t)fit : terms->max;
}

/* One change: towards what is wanted, or none. */
static double changed(double size, double want)
{
    if (want >= size * (1 - IGNORED) && want <= size * (1 + IGNORED))
        return size;
    return clamp(want, size / 2, size * 2);
}

size_t weir__queue_size_step(weir__queue_size *queue_size, const weir__queue_size_sample *sample)
{
    if (sample->now - queue_size->last.now < WEIR_SECOND)
        return queue_size->size;
    measure(queue_size, sample);
    size_t most = most_items(queue_size, sample->mean_cost), least = queue_size->terms.min;
    if (queue_size->service_s > 0) {
        double want = clamp(wanted(queue_size, sample->workers), (double)least, (double)most);
        double size = changed((double)queue_size->size, want) + 0.5;
        queue_size->size = size < (double)most ? (size_t)size : most;
    }
    if (queue_size->size > most)
        queue_size->size = most;
    return queue_size->size;
}
