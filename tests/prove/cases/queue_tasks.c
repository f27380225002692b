/* queue_tasks.c - flow/queue as thread pools have it: tasks, done and next in one, and insiders. */
#include "queue_support.h"

#include <stdatomic.h>

#include "flow/queue.h"

static atomic_int ran;

static void run(void *arg)
{
    (void)arg;
    atomic_fetch_add(&ran, 1);
}

static void no_drop(const weir__entry *entry, weir_drop_reason reason, void *ctx)
{
    (void)entry, (void)reason, (void)ctx;
    prove_fail("nothing is dropped");
}

static void make(size_t capacity)
{
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = capacity;
    opts.bound_in_flight = true;
    opts.on_drop = weir_drop_ignore;
    opts.name = "";
    atomic_store(&ran, 0);
    prove_claim(weir__queue_create(&queue, &opts, no_drop, WEIR_STATS_QUEUE) == WEIR_OK);
}

static void end(int tasks)
{
    weir_queue_snapshot s = WEIR_QUEUE_SNAPSHOT_INIT;
    prove_claim(weir_queue_get_snapshot(queue, &s) == WEIR_OK);
    prove_claim(s.accepted == (uint64_t)tasks && s.delivered == s.accepted);
    prove_claim(s.in_flight == 0 && s.depth == 0);
    prove_same(atomic_load(&ran), tasks);
    weir_queue_destroy(queue);
}

static void work(void *arg)
{
    (void)arg;
    size_t finished = 0;
    weir__entry task;
    while (weir__queue_next_task(queue, finished, &task) == WEIR_OK) {
        task.fn(task.item);
        finished = 1;
    }
}

static void submit_two(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2; i++)
        prove_claim(weir__queue_put_task(queue, run, NULL, WEIR_FOREVER, 0) == WEIR_KEPT);
}

static void submit_two_drain_and_close(void *arg)
{
    submit_two(arg);
    prove_claim(weir_queue_drain(queue, WEIR_FOREVER) == WEIR_OK);
    weir_queue_close(queue);
}

static void queue_tasks(void)
{
    make(1 + prove_pick(2));
    Q_TOGETHER(work, work, submit_two_drain_and_close);
    end(2);
}

PROVE_CASE(queue_tasks, "each task runs once, a drain waits for the last one, and the workers end");

/* ---- insiders --------------------------------------------------------------------------------- */

static atomic_int refused;

/* A task that submits another one: it may be the last who could make room. */
static void run_and_submit(void *arg)
{
    run(arg);
    int rc = weir__queue_put_task(queue, run, NULL, WEIR_FOREVER, 2);
    prove_claim(rc == WEIR_KEPT || rc == WEIR_EDEADLK);
    if (rc == WEIR_EDEADLK) {
        atomic_fetch_add(&refused, 1);
        run(NULL); /* as a pool does: on the spot */
    }
}

static void submit_two_that_submit(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2; i++)
        prove_claim(weir__queue_put_task(queue, run_and_submit, NULL, WEIR_FOREVER, 0) ==
                    WEIR_KEPT);
    prove_claim(weir_queue_drain(queue, WEIR_FOREVER) == WEIR_OK);
    weir_queue_close(queue);
}

static void queue_insiders(void)
{
    atomic_store(&refused, 0);
    make(2);
    Q_TOGETHER(work, work, submit_two_that_submit);
    prove_claim(atomic_load(&ran) == 4 && atomic_load(&refused) <= 2);
    atomic_fetch_sub(&ran, atomic_load(&refused));
    end(4 - atomic_load(&refused));
}

PROVE_CASE(queue_insiders, "workers that submit do not all wait for each other");
