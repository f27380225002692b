/* pool_kit.h - a process pool in a case: its workers are processes of the prover, and what was submitted is counted
 * back, task by task and item by item. */
#ifndef WEIR_PROVE_POOL_KIT_H
#define WEIR_PROVE_POOL_KIT_H

#include "../prove.h"

#include <stdio.h>
#include <string.h>

#include <weir/pool.h>

#include "exec/pool_impl.h"

#define KIT_TASKS  8 /* tags are 1 to KIT_TASKS */
#define KIT_ITEMS  4 /* of a batch */
#define KIT_STARTS 48

typedef void kit_serve_fn(weir_worker *worker, const weir_task *task);

static struct {
    weir_pool *pool;
    size_t limit; /* permits */
    unsigned retries;
    kit_serve_fn *serve;
    void (*main)(void *ticket); /* of a worker's process */
    bool workers_may_die;
    weir_worker_ticket tickets[KIT_STARTS];
    unsigned starts;
    /* each has one writer, and is read when that one is done */
    unsigned collected[KIT_TASKS + 1], dropped[KIT_TASKS + 1], taken_back[KIT_TASKS + 1];
    unsigned answered[KIT_TASKS + 1][KIT_ITEMS], died[KIT_TASKS + 1][KIT_ITEMS];
    unsigned completions;
    unsigned died_running; /* workers that had begun a task, and not replied */
    bool has_batches;
} kit;

/* ---- a worker --------------------------------------------------------------------------------- */

static void kit_work(void *arg)
{
    weir_worker *worker;
    weir_task task;
    int rc;
    prove_claim(weir_worker_open(&worker, arg) == WEIR_OK);
    while ((rc = weir_worker_take(worker, &task, WEIR_FOREVER)) != WEIR_ECLOSED) {
        prove_same(rc, WEIR_OK);
        kit.serve(worker, &task);
    }
    weir_worker_close(worker);
}

/* The reply is the tag. */
__attribute__((unused)) static void kit_echo(weir_worker *worker, const weir_task *task)
{
    weir_bytes reply = {task->data, sizeof(unsigned)};
    prove_claim(task->size >= sizeof(unsigned));
    prove_same(weir_worker_reply(worker, 7, &reply, 1), WEIR_OK);
}

/* The reply to each item is its number. */
__attribute__((unused)) static void kit_answer(weir_worker *worker, const weir_task *task)
{
    uint32_t item;
    prove_claim(task->is_batch);
    while (weir_worker_next_item(worker, &item) == WEIR_OK) {
        weir_bytes reply = {&item, sizeof item};
        prove_same(weir_worker_reply_item(worker, &reply, 1), WEIR_OK);
    }
    prove_same(weir_worker_end_batch(worker), WEIR_OK);
}

static int kit_start(void *ctx, unsigned seat, pid_t *ret_pid)
{
    (void)ctx;
    prove_claim(kit.starts < KIT_STARTS);
    weir_worker_ticket *ticket = &kit.tickets[kit.starts++];
    weir_pool_get_ticket(kit.pool, seat, ticket);
    ticket->memory_fd = prove_inherit(ticket->memory_fd);
    ticket->bell_fd = prove_inherit(ticket->bell_fd);
    ticket->parent_fd = prove_inherit(ticket->parent_fd);
    *ret_pid = prove_start_process(kit.main, ticket, kit.workers_may_die);
    return 0;
}

/* What the worker was doing is read from where a kill has left it. */
static void kit_reap(void *ctx, unsigned seat, weir_exit *exit)
{
    (void)ctx, (void)exit;
    const weir__desk *desk = &kit.pool->desks[seat];
    for (uint64_t at = desk->scanned; at < desk->dealt; at++)
        kit.died_running += atomic_load_explicit(&weir__slot_at(desk, at)->state,
                                                 memory_order_relaxed) == SLOT_RUNNING;
}

/* ---- the parent ------------------------------------------------------------------------------- */

static void kit_note_drop(void *tag, weir_drop_reason reason, void *ctx)
{
    (void)reason, (void)ctx;
    kit.dropped[(uintptr_t)tag]++;
}

static weir_pool_opts kit_opts(unsigned workers, size_t backlog)
{
    weir_pool_opts opts = WEIR_POOL_OPTS_INIT;
    memset(&kit, 0, sizeof kit);
    kit.serve = kit_echo;
    kit.main = kit_work;
    kit.workers_may_die = true;
    opts.workers = workers;
    opts.backlog = backlog;
    opts.overflow = WEIR_OVERFLOW_BLOCK;
    opts.on_drop = kit_note_drop;
    opts.start = kit_start;
    opts.reap = kit_reap;
    opts.name = "";
    return opts;
}

static void kit_make(const weir_pool_opts *opts)
{
    kit.limit = opts->backlog + opts->workers;
    kit.retries = opts->retries;
    prove_same(weir_pool_create(&kit.pool, opts), WEIR_OK);
}

/* A task whose payload is its tag; what submit said. */
static int kit_submit(unsigned tag, weir_time deadline, uint64_t *ret_id)
{
    weir_bytes part = {&tag, sizeof tag};
    return weir_pool_submit(kit.pool, &part, 1, (void *)(uintptr_t)tag, deadline, ret_id);
}

__attribute__((unused)) static void kit_submit_some(void *n)
{
    for (unsigned tag = 1; tag <= (uintptr_t)n; tag++)
        prove_same(kit_submit(tag, WEIR_FOREVER, NULL), WEIR_KEPT);
}

/* Until the others have nothing to do, most of the time. */
__attribute__((unused)) static void kit_pause(void)
{
    for (unsigned i = 0; i < 30; i++)
        prove_pause();
}

__attribute__((unused)) static void kit_submit_batch(unsigned tag, uint32_t items)
{
    weir_bytes part = {&tag, sizeof tag};
    kit.has_batches = true;
    prove_same(weir_pool_admit(kit.pool, WEIR_FOREVER), WEIR_KEPT);
    prove_same(weir_pool_post_batch(kit.pool, &part, 1, items, (void *)(uintptr_t)tag, NULL), 0);
}

static weir_pool_snapshot kit_look(void)
{
    weir_pool_snapshot s = WEIR_POOL_SNAPSHOT_INIT;
    weir_pool_get_snapshot(kit.pool, &s);
    return s;
}

static uint64_t kit_drops(const weir_pool_snapshot *s)
{
    uint64_t sum = 0;
    for (int i = 0; i < WEIR_DROP_REASONS; i++)
        sum += s->dropped[i];
    return sum;
}

/* The two laws, at any moment. */
static void kit_check_laws(void)
{
    weir_pool_snapshot s = kit_look();
    prove_same(s.accepted, s.completed + kit_drops(&s) + s.cancelled + s.waiting + s.running);
    prove_claim(s.waiting + s.running <= kit.limit);
}

static void kit_note_items(const weir_completion *done, unsigned tag)
{
    bool lost_one = done->outcome == WEIR_OUTCOME_DIED;
    prove_claim(done->outcome == WEIR_OUTCOME_REPLIED || lost_one);
    prove_claim(done->first + done->items + lost_one <= KIT_ITEMS);
    prove_same(done->data_size, done->items * sizeof(uint32_t));
    for (uint32_t i = 0; i < done->items; i++) {
        uint32_t item;
        memcpy(&item, (const char *)done->data + i * sizeof item, sizeof item);
        prove_same(item, done->first + i);
        kit.answered[tag][item]++;
    }
    if (lost_one)
        kit.died[tag][done->first + done->items]++;
}

static void kit_note_reply(const weir_completion *done, unsigned tag)
{
    if (done->outcome == WEIR_OUTCOME_REPLIED) {
        unsigned told;
        prove_same(done->status, 7);
        prove_claim(done->data_size >= sizeof told);
        memcpy(&told, done->data, sizeof told);
        prove_same(told, tag);
        prove_claim(done->attempts <= kit.retries + 1);
    } else {
        prove_same(done->outcome, WEIR_OUTCOME_DIED);
        prove_same(done->attempts, kit.retries + 1);
    }
    prove_claim(done->last);
}

static void kit_note(const weir_completion *done)
{
    unsigned tag = (unsigned)(uintptr_t)done->tag;
    if (done->is_batch)
        kit_note_items(done, tag);
    else
        kit_note_reply(done, tag);
    kit.collected[tag] += done->last;
    kit.completions += done->last;
}

/* Collects once, with what was said; the number of tags that came back. */
static int64_t kit_collect(weir_time deadline)
{
    weir_completion done[4];
    int64_t n = weir_pool_collect(kit.pool, done, 4, deadline);
    for (int64_t i = 0; i < n; i++)
        kit_note(&done[i]);
    kit_check_laws();
    if (n > 0)
        weir_pool_settle(kit.pool, (size_t)n);
    return n;
}

__attribute__((unused)) static void kit_collect_some(unsigned completions)
{
    while (kit.completions < completions)
        prove_claim(kit_collect(WEIR_FOREVER) > 0);
}

static void kit_collect_all(void)
{
    while (kit_collect(WEIR_FOREVER) != WEIR_ECLOSED)
        continue;
}

/* With nothing inside all permits are there, and no more. */
__attribute__((unused)) static void kit_check_permits(void)
{
    for (size_t i = 0; i < kit.limit; i++)
        prove_same(weir_pool_admit(kit.pool, WEIR_POLL), WEIR_KEPT);
    prove_same(weir_pool_admit(kit.pool, WEIR_POLL), WEIR_EFULL);
    for (size_t i = 0; i < kit.limit; i++)
        weir_pool_unadmit(kit.pool);
}

/* With all tasks and workers gone none is counted on any more: while one is starting nobody is dealt tasks ahead, and
 * without a permit nothing is shared out. */
static void kit_check_counts(void)
{
    prove_same(kit.pool->starting, 0);
    prove_same(kit.pool->dismissed, 0);
    prove_same(kit.pool->permits, kit.pool->unsettled);
}

/* With all tasks gone, all blocks are back but for the stretches of replies, and each is free once. */
static void kit_check_blocks(void)
{
    const weir__arena *arena = &kit.pool->arena;
    uint64_t back = 0;
    for (unsigned i = 0; i < kit.pool->n_desks; i++)
        back += kit.pool->desks[i].extent.offset ? WEIR__EXTENT : 0;
    for (unsigned class = 0; class < WEIR__ARENA_CLASSES; class ++)
        for (const void *free = arena->classes[class].free_list; free;
             free = *(const void *const *)free) { /* a record begins with the next one */
            back += UINT64_C(512) << class;
            prove_claim(back <= arena->reserved_bytes);
        }
    prove_same(back, arena->reserved_bytes);
}

/* After the last collect: each of the tags that were accepted came back once, one way or the other. */
static void kit_end(unsigned tags)
{
    weir_pool_snapshot s = kit_look();
    prove_same(s.waiting + s.running, 0);
    prove_same(s.accepted, s.completed + kit_drops(&s) + s.cancelled);
    prove_same(s.workers_alive, 0);
    if (!kit.has_batches) /* who had not begun a task is no victim, and each victim is one once */
        prove_same(s.died + s.retried, kit.died_running);
    for (unsigned tag = 1; tag <= tags; tag++)
        prove_same(kit.collected[tag] + kit.dropped[tag] + kit.taken_back[tag], 1);
    kit_check_counts();
    kit_check_blocks();
    weir_pool_destroy(kit.pool);
    for (unsigned tag = 1; tag <= tags; tag++)
        prove_same(kit.collected[tag] + kit.dropped[tag] + kit.taken_back[tag], 1);
}

#endif
