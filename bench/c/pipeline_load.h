/* pipeline_load.h - the load of the pipeline benchmark: a source, three empty stages, and a sink.
 *
 *     pipeline_NAME serial | parallel BOUND ITEMS
 *
 * Items are pointers, here numbers from 1.  In `serial` each stage does one item at a time, in order;
 * in `parallel` the three stages may do several at a time, and the sink still gets them in order.
 * BOUND is how many items may be inside, or in each queue: what the subject calls it, it says.
 * Prints {"value": millions of items per second}.
 *
 * A program defines subject_run(is_parallel, bound), which calls next() until it returns NULL, hands
 * what it returned through stage() three times, and to last(); then it includes this file.
 *
 * Law:    count and sum of what came out are those of what went in, and in order, or the program
 *         fails.
 */
#ifndef PIPELINE_LOAD_H
#define PIPELINE_LOAD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STAGES 3

static void *next(void);        /* by one thread at a time */
static void *stage(void *item); /* by any */
static void last(void *item);   /* by one thread at a time */
static void subject_run(bool is_parallel, unsigned bound);

/* What the source and the sink know, a cache line apart: they may run on two CPUs. */
static struct {
    uint64_t made, most;
    char apart[112];
    uint64_t count, sum, disorder;
} ends;

static inline void *next(void)
{
    return ends.made < ends.most ? (void *)(uintptr_t)++ends.made : NULL;
}

static inline void *stage(void *item)
{
    __asm__ volatile("" : "+r"(item)); /* three empty stages are not to become none */
    return item;
}

static inline void last(void *item)
{
    ends.count++;
    ends.sum += (uintptr_t)item;
    ends.disorder += (uintptr_t)item != ends.count;
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

int main(int argc, char **argv)
{
    bool is_parallel = argc == 4 && !strcmp(argv[1], "parallel");
    bool is_known = is_parallel || (argc == 4 && !strcmp(argv[1], "serial"));
    int bound = is_known ? atoi(argv[2]) : 0;
    long items = is_known ? atol(argv[3]) : 0;
    if (bound < 1 || items < 1) {
        fprintf(stderr, "usage: %s serial | parallel BOUND ITEMS\n", argv[0]);
        return 2;
    }
    ends.most = (uint64_t)items;
    int64_t began = now_ns();
    subject_run(is_parallel, (unsigned)bound);
    int64_t took = now_ns() - began;

    if (ends.count != ends.most || ends.sum != ends.most * (ends.most + 1) / 2 || ends.disorder) {
        fprintf(stderr, "%llu items went in, %llu came out, %llu of them out of order\n",
                (unsigned long long)ends.made, (unsigned long long)ends.count,
                (unsigned long long)ends.disorder);
        return 1;
    }
    printf("{\"value\": %.6g}\n", (double)items * 1e3 / (double)took);
    return 0;
}

#endif
