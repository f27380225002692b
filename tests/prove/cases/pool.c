/* pool.c - exec/pool, collect, worker, channel: a process pool whose workers are killed at any point. */
#include "../prove.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <weir/pool.h>

#define TASKS 3

static weir_pool *pool;
static unsigned came_back[TASKS + 1];

static void note_drop(void *tag, weir_drop_reason reason, void *ctx)
{
    (void)reason, (void)ctx;
    came_back[(uintptr_t)tag]++;
}

/* ---- a worker --------------------------------------------------------------------------------- */

static weir_worker_ticket tickets[8];

static void work(void *arg)
{
    weir_worker_ticket mine = *(weir_worker_ticket *)arg;
    weir_worker *worker;
    weir_task task;
    mine.memory_fd = dup(mine.memory_fd);
    mine.bell_fd = dup(mine.bell_fd);
    mine.parent_fd = dup(mine.parent_fd);
    prove_claim(weir_worker_open(&worker, &mine) == WEIR_OK);
    weir_worker_ready(worker);
    while (weir_worker_take(worker, &task, WEIR_FOREVER) == WEIR_OK) {
        weir_bytes reply = {task.data, task.size};
        prove_claim(task.size == sizeof(unsigned));
        weir_worker_reply(worker, 7, &reply, 1);
    }
    weir_worker_close(worker);
}

static int start(void *ctx, unsigned seat, pid_t *ret_pid)
{
    (void)ctx;
    weir_pool_get_ticket(pool, seat, &tickets[seat]);
    *ret_pid = prove_start_process(work, &tickets[seat], true);
    return 0;
}

static void reap(void *ctx, unsigned seat, weir_exit *exit)
{
    (void)ctx, (void)seat, (void)exit;
}

/* ---- the parent ------------------------------------------------------------------------------- */

static void make(unsigned workers, size_t backlog, unsigned retries)
{
    weir_pool_opts opts = WEIR_POOL_OPTS_INIT;
    opts.workers = workers;
    opts.backlog = backlog;
    opts.retries = retries;
    opts.overflow = WEIR_OVERFLOW_BLOCK;
    opts.on_drop = note_drop;
    opts.start = start;
    opts.reap = reap;
    opts.name = "";
    memset(came_back, 0, sizeof came_back);
    prove_claim(weir_pool_create(&pool, &opts) == WEIR_OK);
}

static void submit_all(void *arg)
{
    (void)arg;
    for (unsigned tag = 1; tag <= TASKS; tag++) {
        weir_bytes part = {&tag, sizeof tag};
        int rc = weir_pool_submit(pool, &part, 1, (void *)(uintptr_t)tag, WEIR_FOREVER, NULL);
        prove_same(rc, WEIR_KEPT);
    }
    weir_pool_close(pool);
}

static void collect_all(unsigned retries)
{
    weir_completion done[4];
    int64_t n;
    while ((n = weir_pool_collect(pool, done, 4, WEIR_FOREVER)) != WEIR_ECLOSED) {
        prove_claim(n > 0);
        for (int64_t i = 0; i < n; i++) {
            unsigned tag = (unsigned)(uintptr_t)done[i].tag;
            came_back[tag]++;
            prove_claim(done[i].outcome == WEIR_OUTCOME_REPLIED ||
                        (done[i].outcome == WEIR_OUTCOME_DIED && done[i].attempts == retries + 1));
            if (done[i].outcome == WEIR_OUTCOME_REPLIED)
                prove_claim(done[i].status == 7 && done[i].data_size == sizeof tag &&
                            memcmp(done[i].data, &tag, sizeof tag) == 0);
        }
        weir_pool_settle(pool, (size_t)n);
    }
}

static void check_law(void)
{
    weir_pool_snapshot s = WEIR_POOL_SNAPSHOT_INIT;
    weir_pool_get_snapshot(pool, &s);
    prove_same(s.accepted, TASKS);
    prove_same(s.completed, TASKS);
    prove_same(s.waiting + s.running, 0);
    for (unsigned tag = 1; tag <= TASKS; tag++)
        prove_same(came_back[tag], 1);
}

static void pool_killed_workers(void)
{
    unsigned retries = prove_pick(2);
    make(1, 1, retries);
    int t = prove_spawn(submit_all, NULL);
    collect_all(retries);
    prove_join(t);
    check_law();
    weir_pool_destroy(pool);
}

PROVE_CASE(pool_killed_workers,
           "each task comes back once, whatever point its worker is killed at");
