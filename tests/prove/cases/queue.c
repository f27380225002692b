/* queue.c - flow/queue: two sides, hints, lines, closing. */
#include "../prove.h"

#include <stdio.h>
#include <string.h>

#include <weir/queue.h>

static weir_queue *queue;
static uint64_t dropped;

enum { PUT, GET, CLOSE };

static void count_drop(void *item, weir_drop_reason reason, void *ctx)
{
    (void)item, (void)reason, (void)ctx;
    dropped++;
}

static void make(size_t capacity, weir_overflow overflow)
{
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = capacity;
    opts.overflow = overflow;
    opts.on_drop = count_drop;
    opts.name = "";
    dropped = 0;
    prove_claim(weir_queue_create(&queue, &opts) == WEIR_OK);
}

/* The law, at the end of each case. */
static void end(void)
{
    weir_queue_snapshot s = WEIR_QUEUE_SNAPSHOT_INIT;
    uint64_t drops = 0;
    weir_queue_get_snapshot(queue, &s);
    for (int i = 0; i < WEIR_DROP_REASONS; i++)
        drops += s.dropped[i];
    prove_claim(s.accepted == s.delivered + drops + s.depth);
    prove_claim(drops == dropped);
    prove_claim(s.putters_waiting == 0 && s.getters_waiting == 0);
    weir_queue_destroy(queue);
}

static int put(int64_t value, weir_time deadline)
{
    size_t call = prove_begin(PUT, value);
    int rc = weir_queue_put(queue, (void *)(intptr_t)value, 0, deadline);
    prove_end(call, rc);
    return rc;
}

static int64_t get(weir_time deadline)
{
    void *item = NULL;
    size_t call = prove_begin(GET, 0);
    int rc = weir_queue_get(queue, &item, deadline);
    prove_end(call, rc < 0 ? rc : (int64_t)(intptr_t)item);
    return rc < 0 ? rc : (int64_t)(intptr_t)item;
}

/* ---- what a queue of `capacity` does, one call after the other ------------------------------------ */

typedef struct fifo {
    uint8_t closed, n, items[16];
} fifo;

static size_t capacity;

static bool apply(void *state, const prove_call *call)
{
    fifo *f = state;
    switch (call->what) {
    case PUT:
        if (call->ended && call->result < 0)
            return call->result == WEIR_ECLOSED ? f->closed
                   : call->result == WEIR_EFULL || call->result == WEIR_ETIMEDOUT
                       ? f->n >= capacity && !f->closed
                       : false;
        if (f->closed || f->n >= capacity)
            return false;
        f->items[f->n++] = (uint8_t)call->arg;
        return true;
    case GET:
        if (call->ended && call->result < 0)
            return call->result == WEIR_ECLOSED ? f->closed && f->n == 0 : f->n == 0 && !f->closed;
        if (f->n == 0 || f->items[0] != call->result)
            return false;
        memmove(f->items, f->items + 1, --f->n);
        f->items[f->n] = 0;
        return true;
    default: f->closed = 1; return true;
    }
}

static const char *text(const prove_call *call, char to[96])
{
    static const char *const names[] = {"put", "get", "close"};
    snprintf(to, 96, "%s(%d): %d%s", names[call->what], (int)call->arg, (int)call->result,
             call->ended ? "" : " (did not end)");
    return to;
}

static const prove_model model = {sizeof(fifo), apply, text};

/* ---- cases ------------------------------------------------------------------------------------ */

static void put_two(void *arg)
{
    int64_t first = (int64_t)(intptr_t)arg;
    prove_claim(put(first, WEIR_FOREVER) == WEIR_KEPT);
    prove_claim(put(first + 1, WEIR_FOREVER) == WEIR_KEPT);
}

static void get_two(void *arg)
{
    (void)arg;
    prove_claim(get(WEIR_FOREVER) > 0);
    prove_claim(get(WEIR_FOREVER) > 0);
}

static void queue_all_wait(void)
{
    capacity = 1;
    make(1, WEIR_OVERFLOW_BLOCK);
    int t[] = {prove_spawn(put_two, (void *)1), prove_spawn(put_two, (void *)11),
               prove_spawn(get_two, NULL)};
    get_two(NULL);
    for (int i = 0; i < 3; i++)
        prove_join(t[i]);
    prove_linearizable(&model);
    end();
}

PROVE_CASE(queue_all_wait, "two put and two get through room for one: nobody waits for ever");

static void close_it(void *arg)
{
    (void)arg;
    size_t call = prove_begin(CLOSE, 0);
    weir_queue_close(queue);
    prove_end(call, 0);
}

static void get_until_closed(void *arg)
{
    (void)arg;
    while (get(WEIR_FOREVER) != WEIR_ECLOSED)
        continue;
}

static void queue_closed_with_waiters(void)
{
    capacity = 1;
    make(1, WEIR_OVERFLOW_BLOCK);
    int t[] = {prove_spawn(get_until_closed, NULL), prove_spawn(close_it, NULL),
               prove_spawn(get_until_closed, NULL)};
    for (int64_t value = 1; value < 3; value++)
        put(value, WEIR_FOREVER);
    for (int i = 0; i < 3; i++)
        prove_join(t[i]);
    prove_linearizable(&model);
    end();
}

PROVE_CASE(queue_closed_with_waiters, "who waits when it is closed sees that it is closed");
