/* queue_size.h - how many items a stage's queue should hold: measured, and re-tuned slowly.
 *
 *     2 x consumers x service time / time between arrivals
 *
 * Half of that is what arrives while all consumers are busy with an item each; twice, because neither
 * side is even.  A smaller one lets consumers run dry; a larger one only holds memory and makes items
 * old.  Where producers are always faster they are held back to the consumers' speed, and it is
 * 2 x consumers x consumers.
 *
 * Hand-over: a producer that waits for room is awake 0.1 ms after it was called (two wake-ups on a
 *            virtual machine; a few microseconds on metal).  What the consumers do meanwhile has to be
 *            in the queue, twice: 2 x consumers x 0.1 ms / service time.  Of items of 1 us that is 200
 *            for each consumer; of 0.1 ms, 2; of longer ones the other term is larger.
 * Bounds:    never below min, never above max, and never more than budget / mean cost, which
 *            wins over min, but for one item.
 * Slowly:    at most once a second; changes of less than a quarter are ignored (but for the budget's),
 *            and one change is at most to the double or the half.
 */
#ifndef WEIR_MODEL_QUEUE_SIZE_H
#define WEIR_MODEL_QUEUE_SIZE_H

#include <stddef.h>
#include <stdint.h>

#include <weir/base.h>

typedef struct weir__queue_size_terms {
    size_t min, max;      /* items, 1 <= min <= max */
    uint64_t budget_cost; /* of all items in the queue together, as queue costs; 0: no bound */
} weir__queue_size_terms;

/* Counters are cumulative; busy_ns is summed over the consumers. */
typedef struct weir__queue_size_sample {
    weir_time now;
    uint64_t arrived, done, busy_ns;
    double workers;   /* the consumers, now */
    double mean_cost; /* of an item; 0: not known, or costs do not matter */
} weir__queue_size_sample;

typedef struct weir__queue_size {
    weir__queue_size_terms terms;
    weir__queue_size_sample last;
    size_t size;
    double arrivals_per_s; /* moving averages; 0: nothing measured yet */
    double service_s;
} weir__queue_size;

/* Begins with `initial` items, clamped; counters begin at 0. */
void weir__queue_size_init(weir__queue_size *queue_size, const weir__queue_size_terms *terms,
                           size_t initial, weir_time now);

/* Takes a sample and returns the size from now on.  May be called more often than once a second. */
size_t weir__queue_size_step(weir__queue_size *queue_size, const weir__queue_size_sample *sample);

#endif
