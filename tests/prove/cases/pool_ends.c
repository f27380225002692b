/* pool_ends.c - exec/pool, collect, redeal: tasks that are taken back, and pools that end, with everybody at work. */
#include "pool_kit.h"

#include "base/park.h"

/* ---- cancelling ------------------------------------------------------------------------------- */

static uint64_t ids[KIT_TASKS + 1];

/* So that some of the tasks have begun, and some have been dealt, when they are cancelled. */
static void serve_slowly(weir_worker *worker, const weir_task *task)
{
    for (unsigned i = 0; i < 3; i++)
        prove_pause();
    if (task->is_batch)
        kit_answer(worker, task);
    else
        kit_echo(worker, task);
}

static void cancel_all(void *n)
{
    for (unsigned i = 4 * prove_pick(4); i > 0; i--)
        prove_pause();
    for (unsigned tag = (unsigned)(uintptr_t)n; tag > 0; tag--) {
        int rc = weir_pool_cancel(kit.pool, ids[tag]);
        prove_claim(rc == 0 || rc == WEIR_ENOTASK);
        kit.taken_back[tag] += rc == 0;
        kit_check_laws();
    }
}

static void close_and_collect(void *arg)
{
    (void)arg;
    weir_pool_close(kit.pool);
    kit_collect_all();
}

static void pool_cancelled(void)
{
    weir_pool_opts opts = kit_opts(1, 2);
    kit.workers_may_die = !prove_pick(2);
    kit.serve = serve_slowly;
    kit_make(&opts);
    for (unsigned tag = 1; tag <= 3; tag++)
        prove_same(kit_submit(tag, WEIR_FOREVER, &ids[tag]), WEIR_KEPT);
    int t = prove_spawn(cancel_all, (void *)3);
    close_and_collect(NULL);
    prove_join(t);
    kit_end(3);
}

PROVE_CASE(pool_cancelled, "a task that is cancelled is run, or taken back, never both");

static void pool_batch_cancelled(void)
{
    weir_pool_opts opts = kit_opts(1, 1);
    kit.workers_may_die = false;
    kit_make(&opts);
    kit.serve = serve_slowly;
    unsigned tag = 1;
    kit.has_batches = true;
    weir_bytes part = {&tag, sizeof tag};
    prove_same(weir_pool_admit(kit.pool, WEIR_FOREVER), WEIR_KEPT);
    prove_same(weir_pool_post_batch(kit.pool, &part, 1, 3, (void *)1, &ids[1]), 0);
    int t = prove_spawn(cancel_all, (void *)1);
    close_and_collect(NULL);
    prove_join(t);
    for (unsigned i = 0; i < 3; i++)
        prove_claim(kit.answered[1][i] <= 1 &&
                    (i == 0 || kit.answered[1][i] <= kit.answered[1][i - 1]));
    kit_end(1);
}

PROVE_CASE(pool_batch_cancelled,
           "a batch that is cancelled ends after an item, and its tag comes once");

/* ---- closing, killing ------------------------------------------------------------------------- */

static int results[KIT_TASKS + 1];

static void submit_one(void *tag)
{
    unsigned number = (unsigned)(uintptr_t)tag;
    results[number] = kit_submit(number, WEIR_FOREVER, NULL);
    if (results[number] == WEIR_ECLOSED)
        kit.taken_back[number]++; /* it never went in */
    else
        prove_same(results[number], WEIR_KEPT);
}

static void pool_closed_with_waiters(void)
{
    weir_pool_opts opts = kit_opts(1, 1);
    kit.workers_may_die = false;
    kit_make(&opts);
    kit_submit_some((void *)2);
    int a = prove_spawn(submit_one, (void *)3), b = prove_spawn(submit_one, (void *)4);
    close_and_collect(NULL);
    prove_join(a);
    prove_join(b);
    kit_end(4);
}

PROVE_CASE(pool_closed_with_waiters, "who waits for a permit of a pool that is closed is told so");

static void close_late(void *arg)
{
    (void)arg;
    kit_pause();
    weir_pool_close(kit.pool);
}

static void pool_closed_by_another(void)
{
    weir_pool_opts opts = kit_opts(1, 1);
    kit.workers_may_die = false;
    kit_make(&opts);
    kit_submit_some((void *)1);
    int t = prove_spawn(close_late, NULL);
    kit_collect_all();
    prove_join(t);
    kit_end(1);
}

PROVE_CASE(pool_closed_by_another,
           "who collects is told that the pool was closed, and lets its workers go");

static void pool_closed_with_permits_out(void)
{
    weir_pool_opts opts = kit_opts(1, 1);
    kit.workers_may_die = false;
    kit_make(&opts);
    for (size_t i = 0; i < kit.limit; i++)
        prove_same(weir_pool_admit(kit.pool, WEIR_POLL), WEIR_KEPT);
    int t = prove_spawn(submit_one, (void *)1);
    weir_pool_close(kit.pool);
    prove_join(t);
    prove_same(results[1], WEIR_ECLOSED);
    for (size_t i = 0; i < kit.limit; i++)
        weir_pool_unadmit(kit.pool);
    kit_collect_all();
    kit_end(1);
}

PROVE_CASE(pool_closed_with_permits_out,
           "who waits for a permit does not wait for its owner when the pool is closed");

static void kill_it(void *arg)
{
    (void)arg;
    weir_pool_kill(kit.pool);
}

static void pool_killed(void)
{
    weir_pool_opts opts = kit_opts(2, 2);
    opts.retries = 1;
    kit.workers_may_die = false;
    kit_make(&opts);
    kit.retries = 0; /* killed workers are not retried */
    for (unsigned tag = 1; tag <= 3; tag++)
        submit_one((void *)(uintptr_t)tag);
    int t = prove_spawn(kill_it, NULL);
    kit_collect_all();
    prove_join(t);
    kit_end(3);
}

PROVE_CASE(pool_killed, "of a pool that is killed each task is discarded, or completes, once");

static void pool_destroyed(void)
{
    weir_pool_opts opts = kit_opts(1, 3);
    kit_make(&opts);
    kit_submit_some((void *)3);
    kit_collect_some(2 - prove_pick(3));
    weir_pool_destroy(kit.pool);
    for (unsigned tag = 1; tag <= 3; tag++)
        prove_same(kit.collected[tag] + kit.dropped[tag], 1);
}

PROVE_CASE(pool_destroyed,
           "what is in a pool that is destroyed is handed back, and no worker is left");

/* ---- overflow --------------------------------------------------------------------------------- */

static void submit_dropping(void *first)
{
    for (unsigned i = 0; i < 2; i++) {
        unsigned tag = (unsigned)(uintptr_t)first + i;
        int rc = kit_submit(tag, WEIR_FOREVER, NULL);
        prove_claim(rc == WEIR_KEPT || rc == WEIR_DROPPED);
    }
}

static void pool_overflowing(void)
{
    weir_pool_opts opts = kit_opts(1, 1);
    opts.overflow = prove_pick(2) ? WEIR_OVERFLOW_DROP_NEWEST : WEIR_OVERFLOW_DROP_OLDEST;
    opts.retries = 1;
    kit_make(&opts);
    submit_dropping((void *)1);
    int t = prove_spawn(submit_dropping, (void *)3);
    while (kit.completions < 1)
        kit_collect(WEIR_FOREVER);
    prove_join(t);
    close_and_collect(NULL);
    kit_end(4);
}

PROVE_CASE(pool_overflowing, "a task that goes for a newer one was not run, and is dropped once");

/* ---- whose permit it is ----------------------------------------------------------------------- */

/* Who has just collected one submits the next with its permit, which does not come back as well. */
static void pool_permit_taken_over(void)
{
    weir_completion done;
    weir_pool_opts opts = kit_opts(1, 1);
    kit.workers_may_die = false;
    kit_make(&opts);
    kit_submit_some((void *)2);
    prove_same(weir_pool_collect(kit.pool, &done, 1, WEIR_FOREVER), 1);
    kit_note(&done);
    prove_same(kit_submit(3, WEIR_POLL, NULL), WEIR_KEPT);
    weir_pool_settle(kit.pool, 1);
    prove_same(kit_submit(4, WEIR_POLL, NULL), WEIR_EFULL);
    kit_collect_some(3);
    kit_check_permits();
    close_and_collect(NULL);
    kit_end(3);
}

PROVE_CASE(pool_permit_taken_over,
           "a permit that a completion gave to the next task is there once");

/* ---- waiting for time ------------------------------------------------------------------------- */

static void pool_timed_out(void)
{
    weir_pool_opts opts = kit_opts(1, 1);
    kit.workers_may_die = false;
    kit_make(&opts);
    kit_submit_some((void *)2);
    int t = prove_spawn(close_and_collect, NULL);
    int rc = kit_submit(3, weir_after(WEIR_MILLISECOND), NULL);
    prove_claim(rc == WEIR_KEPT || rc == WEIR_ETIMEDOUT || rc == WEIR_ECLOSED);
    prove_same(kit_look().refused, rc == WEIR_ETIMEDOUT);
    kit.taken_back[3] += rc < 0;
    prove_join(t);
    kit_end(3);
}

PROVE_CASE(pool_timed_out, "a permit that comes with the deadline is had or given on, not lost");

/* ---- workers that come and go ----------------------------------------------------------------- */

static void pool_recycled(void)
{
    weir_pool_opts opts = kit_opts(1, 2);
    opts.tasks_per_worker = 1;
    kit.workers_may_die = false;
    kit_make(&opts);
    kit_submit_some((void *)3);
    kit_collect_some(3);
    kit_check_permits();
    close_and_collect(NULL);
    weir_pool_snapshot s = kit_look();
    prove_claim(s.workers_died == 0 && s.workers_started == 3);
    kit_end(3);
}

PROVE_CASE(pool_recycled, "a worker that leaves after its last task takes none with it");

static void allow(unsigned n)
{
    prove_same(weir_pool_set_workers(kit.pool, n), 0);
}

static void allow_one(void *arg)
{
    (void)arg;
    allow(1);
    allow(2);
}

static void pool_resized(void)
{
    weir_pool_opts opts = kit_opts(2, 2);
    kit.workers_may_die = false;
    kit_make(&opts);
    kit_submit_some((void *)3);
    int t = prove_spawn(allow_one, NULL);
    kit_collect_some(3);
    prove_join(t);
    close_and_collect(NULL);
    prove_same(kit_look().workers_died, 0);
    kit_end(3);
}

PROVE_CASE(pool_resized, "a worker that is told to leave finishes what it has");

static void pool_dismissed(void)
{
    weir_pool_opts opts = kit_opts(2, 2);
    kit.workers_may_die = false;
    kit_make(&opts);
    prove_same(weir_pool_start_workers(kit.pool, 2), 2);
    kit_submit_some((void *)2);
    kit_collect_some(2);
    for (unsigned tag = 3; tag <= 4; tag++)
        prove_same(kit_submit(tag, WEIR_FOREVER, NULL), WEIR_KEPT);
    allow(1);
    kit_collect_some(4);
    close_and_collect(NULL);
    weir_pool_snapshot s = kit_look();
    prove_claim(s.workers_died == 0 && s.workers_started == 2);
    kit_end(4);
}

PROVE_CASE(pool_dismissed, "a worker that is told to leave runs what it was dealt before");

static void pool_dismissed_idle(void)
{
    weir_pool_opts opts = kit_opts(2, 2);
    kit.workers_may_die = false;
    kit_make(&opts);
    prove_same(weir_pool_start_workers(kit.pool, 2), 2);
    kit_submit_some((void *)2);
    kit_collect_some(2);
    allow(1);
    while (kit_look().workers_alive > 1)
        prove_same(kit_collect(weir_after(WEIR_MILLISECOND)), WEIR_ETIMEDOUT);
    close_and_collect(NULL);
    kit_end(2);
}

PROVE_CASE(pool_dismissed_idle, "a worker that sleeps is told to leave, too");

static void fail_at_once(void *arg)
{
    weir_worker *worker;
    static const char why[] = "no licence";
    prove_same(weir_worker_open(&worker, arg), WEIR_OK);
    weir_worker_fail(worker, why, sizeof why);
    weir_worker_close(worker);
}

static void pool_not_started(void)
{
    weir_pool_opts opts = kit_opts(1, 1);
    kit.main = fail_at_once;
    kit.workers_may_die = false;
    kit_make(&opts);
    kit_submit_some((void *)1);
    weir_completion done;
    prove_same(weir_pool_collect(kit.pool, &done, 1, WEIR_FOREVER), 1);
    prove_same(done.outcome, WEIR_OUTCOME_NOT_STARTED);
    prove_claim(strcmp(done.data, "no licence") == 0);
    kit.collected[1]++;
    weir_pool_settle(kit.pool, 1);
    kit_check_permits();
    close_and_collect(NULL);
    kit_end(1);
}

PROVE_CASE(pool_not_started, "a worker that cannot serve says why, and the task comes back");

/* One that is killed before it has said that it failed is followed by another one. */
static void pool_killed_as_it_fails(void)
{
    enum { TRIES = 20 };
    weir_pool_opts opts = kit_opts(1, 1);
    kit.main = fail_at_once;
    kit_make(&opts);
    kit_submit_some((void *)1);
    weir_completion done;
    prove_same(weir_pool_collect(kit.pool, &done, 1, WEIR_FOREVER), 1);
    prove_same(done.outcome, WEIR_OUTCOME_NOT_STARTED);
    prove_claim(kit.starts == TRIES || done.data_size == sizeof "no licence");
    prove_claim(kit.starts == TRIES || strcmp(done.data, "no licence") == 0);
    kit.collected[1]++;
    close_and_collect(NULL);
    kit_end(1);
}

PROVE_CASE(pool_killed_as_it_fails, "a worker that has said that it failed has said why");

static unsigned lent; /* by the worker, until the parent has read its reply */

static void serve_lent(weir_worker *worker, const weir_task *task)
{
    uint64_t replied, has_read;
    while (weir_worker_get_positions(worker, &replied, &has_read), has_read + 1 < replied)
        prove_pause(); /* this one is among those replied */
    lent = *(const unsigned *)task->data;
    kit_echo(worker, task);
}

static void pool_read_replies(void)
{
    weir_pool_opts opts = kit_opts(1, 2);
    kit.workers_may_die = false;
    kit.serve = serve_lent;
    kit_make(&opts);
    kit_submit_some((void *)3);
    for (unsigned i = 1; i <= 3; i++) {
        kit_collect_some(i);
        prove_claim(lent <= 3); /* a race, if it is written meanwhile */
    }
    close_and_collect(NULL);
    kit_end(3);
}

PROVE_CASE(pool_read_replies, "what a reply tells of stays as it is until the parent has read it");

/* ---- work that waits behind a long task -------------------------------------------------------- */

static _Atomic uint32_t others_are_done;

static void serve_late(weir_worker *worker, const weir_task *task)
{
    unsigned tag = *(const unsigned *)task->data;
    if (tag == 1)
        while (!others_are_done)
            prove_same(weir__futex_wait(&others_are_done, 0, WEIR_FOREVER, true), 0);
    kit_echo(worker, task);
}

static void pool_redealt(void)
{
    weir_pool_opts opts = kit_opts(2, 2);
    kit.workers_may_die = false;
    kit_make(&opts);
    kit.serve = serve_late;
    atomic_store(&others_are_done, 0);
    kit_submit_some((void *)4);
    kit_collect_some(3);
    prove_same(kit.collected[1], 0);
    atomic_store(&others_are_done, 1);
    weir__futex_wake(&others_are_done, 8, true);
    close_and_collect(NULL);
    kit_end(4);
}

PROVE_CASE(pool_redealt, "what waits behind a long task goes to the worker that idles");

static void serve_together(weir_worker *worker, const weir_task *task)
{
    unsigned tag = *(const unsigned *)task->data;
    if (tag == 2) {
        atomic_store(&others_are_done, 1);
        weir__futex_wake(&others_are_done, 8, true);
    }
    serve_late(worker, task);
}

static void allow_two(void *arg)
{
    (void)arg;
    kit_pause();
    allow(2);
}

static void pool_allowed_more(void)
{
    weir_pool_opts opts = kit_opts(2, 2);
    kit.workers_may_die = false;
    kit_make(&opts);
    kit.serve = serve_together;
    atomic_store(&others_are_done, 0);
    allow(1);
    kit_submit_some((void *)2);
    int t = prove_spawn(allow_two, NULL);
    kit_collect_some(2);
    prove_join(t);
    close_and_collect(NULL);
    kit_end(2);
}

PROVE_CASE(pool_allowed_more, "a worker that is allowed later comes, and gets what waits");

static void answer_late(weir_worker *worker, const weir_task *task)
{
    uint32_t item;
    while (weir_worker_next_item(worker, &item) == WEIR_OK) {
        weir_bytes reply = {&item, sizeof item};
        if (item == 0 && *(const unsigned *)task->data == 1)
            while (!others_are_done)
                prove_same(weir__futex_wait(&others_are_done, 0, WEIR_FOREVER, true), 0);
        prove_same(weir_worker_reply_item(worker, &reply, 1), WEIR_OK);
        if (item == KIT_ITEMS - 1) {
            atomic_store(&others_are_done, 1);
            weir__futex_wake(&others_are_done, 8, true);
        }
    }
    prove_same(weir_worker_end_batch(worker), WEIR_OK);
}

static void submit_long_batch(void *arg)
{
    (void)arg;
    kit_submit_batch(1, KIT_ITEMS);
}

static void pool_batch_shared_out(void)
{
    weir_pool_opts opts = kit_opts(2, 2);
    kit.workers_may_die = false;
    kit_make(&opts);
    kit.serve = answer_late;
    atomic_store(&others_are_done, 0);
    bool is_first = !prove_pick(2); /* else the workers idle when it comes */
    if (is_first)
        submit_long_batch(NULL);
    prove_claim(weir_pool_start_workers(kit.pool, 2) == 2);
    if (!is_first) {
        kit_submit_batch(2, 1);
        kit_collect_some(1);
    }
    int t = is_first ? -1 : prove_spawn(submit_long_batch, NULL);
    kit_collect_some(2 - is_first);
    if (!is_first)
        prove_join(t);
    for (unsigned i = 0; i < KIT_ITEMS; i++)
        prove_same(kit.answered[1][i], 1);
    kit_check_permits();
    close_and_collect(NULL);
    kit_end(2 - is_first);
}

PROVE_CASE(pool_batch_shared_out,
           "an item that waits behind a long one is done by the worker that idles");

/* ---- nobody sleeps through -------------------------------------------------------------------- */

static void pool_woken(void)
{
    weir_pool_opts opts = kit_opts(1, 1);
    kit.workers_may_die = false;
    kit_make(&opts);
    prove_let_time_stand_still();
    int t = prove_spawn(kit_submit_some, (void *)4);
    kit_collect_some(4);
    prove_join(t);
    close_and_collect(NULL);
    prove_same(prove_stalls(), 0);
    kit_end(4);
}

PROVE_CASE(pool_woken, "who can go on is woken, and not by the clock");
