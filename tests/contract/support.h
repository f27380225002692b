/* support.h - what the C tests share: cmocka, and conditions that are waited for, never slept for. */
#ifndef WEIR_TESTS_CONTRACT_SUPPORT_H
#define WEIR_TESTS_CONTRACT_SUPPORT_H

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include <weir/queue.h>

#define PATIENCE (30 * WEIR_SECOND) /* for what is certain to happen */

/* For threads of a test, which cmocka's assertions cannot leave. */
#define must(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: must(%s)\n", __FILE__, __LINE__, #condition);                  \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* Waits until the condition holds. */
#define soon(condition)                                                                            \
    do {                                                                                           \
        weir_time give_up_ = weir_after(PATIENCE);                                                 \
        while (!(condition)) {                                                                     \
            must(weir_now() < give_up_ && "soon: " #condition);                                    \
            nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);                                 \
        }                                                                                          \
    } while (0)

static inline void *number(uintptr_t n)
{
    return (void *)n;
}

static inline weir_queue_snapshot snapshot_of(weir_queue *queue)
{
    weir_queue_snapshot now = WEIR_QUEUE_SNAPSHOT_INIT;
    must(weir_queue_get_snapshot(queue, &now) == WEIR_OK);
    return now;
}

static inline uint64_t total(const uint64_t by_reason[WEIR_DROP_REASONS])
{
    uint64_t sum = 0;
    for (int i = 0; i < WEIR_DROP_REASONS; i++)
        sum += by_reason[i];
    return sum;
}

/* The law, at one instant. */
static inline bool obeys_the_law(const weir_queue_snapshot *now)
{
    return now->accepted == now->delivered + total(now->dropped) + now->depth + now->spilled &&
           now->accepted_cost ==
               now->delivered_cost + total(now->dropped_cost) + now->cost + now->spilled_cost;
}

static inline bool is_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    must(poll(&p, 1, 0) >= 0);
    return p.revents & POLLIN;
}

/* A put or get on a thread of its own. */
typedef struct other {
    weir_queue *queue;
    void *item;
    uint64_t cost;
    weir_time deadline;
    weir_interrupt_fn *hook;
    void *hook_ctx;
    int rc;
    pthread_t thread;
} other;

static inline void *other_puts(void *arg)
{
    other *o = arg;
    weir_set_interrupt(o->hook, o->hook_ctx);
    o->rc = weir_queue_put(o->queue, o->item, o->cost, o->deadline);
    return NULL;
}

static inline void *other_gets(void *arg)
{
    other *o = arg;
    weir_set_interrupt(o->hook, o->hook_ctx);
    o->rc = weir_queue_get_cost(o->queue, &o->item, &o->cost, o->deadline);
    return NULL;
}

/* Returns when the put waits in line. */
static inline void start_waiting_put(other *o)
{
    size_t before = snapshot_of(o->queue).putters_waiting;
    must(pthread_create(&o->thread, NULL, other_puts, o) == 0);
    soon(snapshot_of(o->queue).putters_waiting == before + 1);
}

/* Returns when the get waits in line. */
static inline void start_waiting_get(other *o)
{
    size_t before = snapshot_of(o->queue).getters_waiting;
    must(pthread_create(&o->thread, NULL, other_gets, o) == 0);
    soon(snapshot_of(o->queue).getters_waiting == before + 1);
}

static inline int finish(other *o)
{
    pthread_join(o->thread, NULL);
    return o->rc;
}

#endif
