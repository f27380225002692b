/* pool_load.h - the load of the thread pool benchmark: one thread submits, the tasks are empty.
 *
 *     pool_NAME THREADS TASKS
 *
 * Prints {"value": millions of tasks per second}, from the first submit until the last task has run.
 *
 * A program includes this file, then defines
 *     subject_new(threads), subject_submit(fn), subject_finish()   the last: until all have run
 *
 * Law:  each task counts itself; the counts must add up to what was submitted, or the program fails.
 */
#ifndef POOL_LOAD_H
#define POOL_LOAD_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define MOST_THREADS 4096 /* that ever ran a task */

/* A cell per thread, a cache line apart: counting is no point where the threads meet. */
static struct {
    uint64_t ran;
    char apart[120];
} cells[MOST_THREADS];
static unsigned cells_used; /* relaxed: it only makes the cells distinct */
static _Thread_local uint64_t *cell;

static void task(void *arg)
{
    (void)arg;
    if (!cell)
        cell = &cells[__atomic_fetch_add(&cells_used, 1, __ATOMIC_RELAXED) % MOST_THREADS].ran;
    ++*cell;
}

static void subject_new(unsigned threads);
static void subject_submit(void (*fn)(void *));
static void subject_finish(void);

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

int main(int argc, char **argv)
{
    int threads = argc == 3 ? atoi(argv[1]) : 0;
    long tasks = argc == 3 ? atol(argv[2]) : 0;
    if (threads < 1 || tasks < 1) {
        fprintf(stderr, "usage: %s THREADS TASKS\n", argv[0]);
        return 2;
    }
    subject_new((unsigned)threads);
    int64_t began = now_ns();
    for (long i = 0; i < tasks; i++)
        subject_submit(task);
    subject_finish();
    int64_t took = now_ns() - began;

    uint64_t ran = 0;
    for (unsigned i = 0; i < MOST_THREADS; i++)
        ran += cells[i].ran;
    if (ran != (uint64_t)tasks) {
        fprintf(stderr, "submitted %ld tasks and %llu ran\n", tasks, (unsigned long long)ran);
        return 1;
    }
    printf("{\"value\": %.6g}\n", (double)tasks * 1e3 / (double)took);
    return 0;
}

#endif
