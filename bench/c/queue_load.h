/* queue_load.h - the load of the queue benchmarks: threads that put and threads that get.
 *
 *     queue_NAME PRODUCERS CONSUMERS MILLISECONDS [none | fixed | fresh]
 *
 * The last argument is the deadline of every put and get: none, one point in time for all calls, or
 * a new one computed for each call.  Prints {"value": millions of items per second}.
 *
 * A program defines its queue, then includes this file:
 *     subject_new()                          the one queue, of CAPACITY items
 *     subject_put(item), subject_get()       wait as long as it takes
 *     HAS_DEADLINES 1 and subject_put_until(item, ns), subject_get_until(ns), where ns is on the
 *     monotonic clock; they never run out here.  HAS_DEADLINES 0: there are none.
 *
 * Bound:  producers stop when the time is up or after MOST_ITEMS together, so that a queue without a
 *         bound of its own stays small.
 * Law:    count and sum of what came out are those of what went in, or the program fails.
 */
#ifndef QUEUE_LOAD_H
#define QUEUE_LOAD_H

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST_ITEMS 8000000
#define HOUR_NS    INT64_C(3600000000000)
#define STOP       UINTPTR_MAX /* an item that ends one consumer; the others are numbers from 1 */

enum deadline { NONE, FIXED, FRESH };

typedef struct side {
    pthread_t thread;
    uint64_t count, sum;
} side;

static pthread_barrier_t start;
static sem_t produced; /* posted by each producer that has ended */
static int time_is_up; /* relaxed: only ever asks the producers to stop; join orders the rest */
static uint64_t most_each;
static enum deadline deadline;
static int64_t fixed_ns;

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static inline void put(uintptr_t number)
{
#if HAS_DEADLINES
    if (deadline == FIXED) {
        subject_put_until((void *)number, fixed_ns);
        return;
    }
    if (deadline == FRESH) {
        subject_put_until((void *)number, now_ns() + HOUR_NS);
        return;
    }
#endif
    subject_put((void *)number);
}

static inline uintptr_t get(void)
{
#if HAS_DEADLINES
    if (deadline == FIXED)
        return (uintptr_t)subject_get_until(fixed_ns);
    if (deadline == FRESH)
        return (uintptr_t)subject_get_until(now_ns() + HOUR_NS);
#endif
    return (uintptr_t)subject_get();
}

static void *produce(void *arg)
{
    side *me = (side *)arg;
    pthread_barrier_wait(&start);
    uint64_t n = 0;
    while (n < most_each && !__atomic_load_n(&time_is_up, __ATOMIC_RELAXED))
        put(++n);
    me->count = n;
    me->sum = n * (n + 1) / 2;
    sem_post(&produced);
    return NULL;
}

static void *consume(void *arg)
{
    side *me = (side *)arg;
    pthread_barrier_wait(&start);
    uint64_t count = 0, sum = 0;
    for (uintptr_t number; (number = get()) != STOP; count++)
        sum += number;
    me->count = count;
    me->sum = sum;
    return NULL;
}

static side *begin(unsigned n, void *(*run)(void *))
{
    side *sides = (side *)calloc(n, sizeof(*sides));
    for (unsigned i = 0; i < n; i++)
        if (!sides || pthread_create(&sides[i].thread, NULL, run, &sides[i])) {
            fprintf(stderr, "could not start %u threads\n", n);
            exit(1);
        }
    return sides;
}

static side end(side *sides, unsigned n)
{
    side all = {};
    for (unsigned i = 0; i < n; i++) {
        pthread_join(sides[i].thread, NULL);
        all.count += sides[i].count;
        all.sum += sides[i].sum;
    }
    free(sides);
    return all;
}

/* Until the time is up, or all producers have ended before. */
static void wait_for(unsigned n_producers, long ms)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until); /* the clock of sem_timedwait */
    int64_t ns = until.tv_nsec + ms * INT64_C(1000000);
    until.tv_sec += ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    while (n_producers)
        if (!sem_timedwait(&produced, &until))
            n_producers--;
        else if (errno != EINTR)
            return;
}

static int usage(const char *program)
{
    fprintf(stderr, "usage: %s PRODUCERS CONSUMERS MILLISECONDS [none%s]\n", program,
            HAS_DEADLINES ? " | fixed | fresh" : "");
    return 2;
}

int main(int argc, char **argv)
{
    int n_producers = argc > 3 ? atoi(argv[1]) : 0, n_consumers = argc > 3 ? atoi(argv[2]) : 0;
    long ms = argc > 3 ? atol(argv[3]) : 0;
    const char *named = argc > 4 ? argv[4] : "none";
    if (n_producers < 1 || n_consumers < 1 || ms < 1 || argc > 5)
        return usage(argv[0]);
    if (HAS_DEADLINES && !strcmp(named, "fixed"))
        deadline = FIXED;
    else if (HAS_DEADLINES && !strcmp(named, "fresh"))
        deadline = FRESH;
    else if (strcmp(named, "none"))
        return usage(argv[0]);
    most_each = MOST_ITEMS / (unsigned)n_producers;
    fixed_ns = now_ns() + HOUR_NS;

    subject_new();
    sem_init(&produced, 0, 0);
    pthread_barrier_init(&start, NULL, (unsigned)n_producers + (unsigned)n_consumers + 1);
    side *producers = begin((unsigned)n_producers, produce);
    side *consumers = begin((unsigned)n_consumers, consume);
    pthread_barrier_wait(&start);
    int64_t began = now_ns();
    wait_for((unsigned)n_producers, ms);
    __atomic_store_n(&time_is_up, 1, __ATOMIC_RELAXED);
    side in = end(producers, (unsigned)n_producers);
    for (int i = 0; i < n_consumers; i++)
        put(STOP);
    side out = end(consumers, (unsigned)n_consumers);
    int64_t took = now_ns() - began;

    if (in.count != out.count || in.sum != out.sum) {
        fprintf(stderr, "put %llu items and got %llu, or not the same ones\n",
                (unsigned long long)in.count, (unsigned long long)out.count);
        return 1;
    }
    printf("{\"value\": %.6g}\n", (double)out.count * 1e3 / (double)took);
    return 0;
}

#endif
