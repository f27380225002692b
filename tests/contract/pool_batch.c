/* Batches of a process pool: what <weir/pool.h> and <weir/worker.h> say of items, seen from outside.
 *
 * Each reply of an item is a record that names it, so a test sees which items came back, how often,
 * and whether the bytes are right.  A checker takes snapshots meanwhile: law and bound hold. */
#include "support.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/pool.h>

#define ITEMS_MAX 20000u

/* ---- what a batch asks of its worker -------------------------------------------------------- */

typedef struct order {
    uint32_t reply_bytes; /* of each item, behind the record's head */
    uint32_t item_us;     /* each takes so long */
    uint32_t slow_item, slow_us;
    uint32_t killer; /* this item ends its worker ... */
    uint32_t kills;  /* ... so often */
    uint32_t large_item, large_bytes;
    uint32_t gate_item;   /* waits until the gate is open */
    uint32_t filler[120]; /* too large for a slot */
} order;

#define NONE UINT32_MAX

static order plain_order(void)
{
    return (order){.slow_item = NONE, .killer = NONE, .large_item = NONE, .gate_item = NONE};
}

typedef struct record {
    uint32_t item, bytes;
    pid_t pid;
} record;

static struct board {
    _Atomic uint32_t runs[ITEMS_MAX], deaths, begun, gate_open, refused;
    _Atomic int last_rc;
} *board;

static unsigned char pattern[4u << 20];

static void rest_us(uint32_t us)
{
    if (us)
        nanosleep(&(struct timespec){us / 1000000, (long)(us % 1000000) * 1000}, NULL);
}

static int reply_bytes(weir_worker *worker, uint32_t item, uint32_t bytes)
{
    record head = {item, bytes, getpid()};
    weir_bytes parts[] = {{&head, sizeof head}, {pattern, bytes}};
    return weir_worker_reply_item(worker, parts, 2);
}

static void serve(weir_worker *worker, const weir_task *task, void *ctx)
{
    (void)ctx;
    order what;
    uint32_t item;
    must(task->is_batch && task->size == sizeof what);
    memcpy(&what, task->data, sizeof what);
    while (weir_worker_next_item(worker, &item) == 0) {
        board->begun++;
        board->runs[item]++;
        rest_us(item == what.slow_item ? what.slow_us : what.item_us);
        if (item == what.killer && board->deaths++ < what.kills)
            raise(SIGKILL);
        while (item == what.gate_item && !board->gate_open)
            rest_us(100);
        int rc = reply_bytes(worker, item,
                             item == what.large_item ? what.large_bytes : what.reply_bytes);
        if (rc == WEIR_ENOSHM) {
            board->refused++;
            rc = reply_bytes(worker, item, 0);
        }
        must(rc == 0);
    }
    must(weir_worker_end_batch(worker) == 0);
}

/* ---- a pool --------------------------------------------------------------------------------- */

static _Atomic uint32_t drops;

static void note_drop(void *tag, weir_drop_reason reason, void *ctx)
{
    (void)tag, (void)reason, (void)ctx;
    drops++;
}

static struct {
    weir_pool *pool;
    pthread_t thread;
    _Atomic bool stop;
} checker;

static weir_pool_snapshot look_at(weir_pool *pool)
{
    weir_pool_snapshot now = WEIR_POOL_SNAPSHOT_INIT;
    must(weir_pool_get_snapshot(pool, &now) == WEIR_OK);
    must(now.accepted ==
         now.completed + total(now.dropped) + now.cancelled + now.waiting + now.running);
    must(now.waiting + now.running <= now.backlog + now.workers);
    return now;
}

static void *check(void *arg)
{
    (void)arg;
    while (!checker.stop) {
        look_at(checker.pool);
        rest_us(50);
    }
    return NULL;
}

static weir_pool *make(unsigned workers, unsigned retries)
{
    weir_pool *pool = NULL;
    weir_pool_opts opts = WEIR_POOL_OPTS_INIT;
    opts.workers = workers;
    opts.backlog = 8;
    opts.retries = retries;
    opts.on_drop = note_drop;
    opts.handler = serve;
    drops = 0;
    memset(board, 0, sizeof *board);
    assert_int_equal(weir_pool_create(&pool, &opts), WEIR_OK);
    checker.pool = pool;
    checker.stop = false;
    must(pthread_create(&checker.thread, NULL, check, NULL) == 0);
    return pool;
}

static void end(weir_pool *pool)
{
    checker.stop = true;
    pthread_join(checker.thread, NULL);
    weir_pool_destroy(pool);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static uint64_t post(weir_pool *pool, order what, uint32_t items)
{
    uint64_t id = 0;
    assert_int_equal(weir_pool_admit(pool, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(
        weir_pool_post_batch(pool, &(weir_bytes){&what, sizeof what}, 1, items, number(7), &id), 0);
    return id;
}

/* What came back of a batch. */
typedef struct result {
    uint8_t replied[ITEMS_MAX], died[ITEMS_MAX];
    pid_t by[ITEMS_MAX];
    uint32_t n_replied, n_died, completions, lasts;
} result;

static result got;

static void read_records(const weir_completion *done)
{
    const char *at = done->data, *end = at + done->data_size;
    for (uint32_t i = 0; i < done->items; i++) {
        record head;
        must(end - at >= (ptrdiff_t)sizeof head);
        memcpy(&head, at, sizeof head);
        must(head.item == done->first + i);
        must(end - at >= (ptrdiff_t)(sizeof head + head.bytes));
        must(memcmp(at + sizeof head, pattern, head.bytes) == 0);
        at += sizeof head + head.bytes;
        got.replied[head.item]++;
        got.by[head.item] = head.pid;
    }
    must(at == end);
    got.n_replied += done->items;
}

static void take_in(const weir_completion *done)
{
    assert_ptr_equal(done->tag, number(7));
    got.completions++;
    got.lasts += done->last;
    if (done->outcome == WEIR_OUTCOME_DIED) {
        assert_int_equal(done->exit.signal, SIGKILL);
        got.died[done->first + done->items]++;
        got.n_died++;
    } else {
        assert_int_equal(done->outcome, WEIR_OUTCOME_REPLIED);
    }
    read_records(done);
}

static void collect_until_last(weir_pool *pool)
{
    memset(&got, 0, sizeof got);
    while (got.lasts == 0) {
        weir_completion done[4];
        int64_t n = weir_pool_collect(pool, done, 4, weir_after(PATIENCE));
        must(n > 0);
        for (int64_t i = 0; i < n; i++)
            take_in(&done[i]);
    }
    assert_int_equal(got.lasts, 1);
}

static void assert_each_once(uint32_t items)
{
    for (uint32_t i = 0; i < items; i++)
        if (got.replied[i] + got.died[i] != 1)
            fail_msg("item %u: %u replies, %u deaths", i, got.replied[i], got.died[i]);
}

/* ---- the cases ------------------------------------------------------------------------------ */

static void each_item_comes_back_once_and_the_last_completion_says_so(void **state)
{
    (void)state;
    weir_pool *pool = make(2, 0);
    post(pool, plain_order(), 1000);
    collect_until_last(pool);
    assert_each_once(1000);
    assert_int_equal(got.n_replied, 1000);
    weir_pool_snapshot now = look_at(pool);
    assert_int_equal(now.accepted, now.completed);
    end(pool);
}

static void a_batch_of_no_items_is_refused(void **state)
{
    (void)state;
    weir_pool *pool = make(1, 0);
    assert_int_equal(weir_pool_admit(pool, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(weir_pool_post_batch(pool, NULL, 0, 0, NULL, NULL), WEIR_EINVAL);
    weir_pool_unadmit(pool);
    end(pool);
}

static void an_idle_worker_takes_over_items_that_wait_behind_a_long_one(void **state)
{
    (void)state;
    weir_pool *pool = make(2, 0);
    order what = plain_order();
    what.slow_item = 0;
    what.slow_us = 300000;
    weir_time begin = weir_now();
    post(pool, plain_order(), 1); /* somebody is started */
    collect_until_last(pool);
    post(pool, what, 100);
    post(pool, plain_order(), 1);
    memset(&got, 0, sizeof got);
    while (got.n_replied < 101) {
        weir_completion done;
        assert_int_equal(weir_pool_collect(pool, &done, 1, weir_after(PATIENCE)), 1);
        take_in(&done);
        if (got.n_replied == 100) /* all but the long one, and the single batch */
            assert_true(got.replied[0] == 1 && board->gate_open == 0);
    }
    assert_true(weir_now() - begin < 20 * WEIR_SECOND);
    assert_int_equal(got.lasts, 2);
    assert_true(got.by[99] != got.by[0]);
    end(pool);
}

static void a_long_batch_is_shared_until_nobody_idles(void **state)
{
    (void)state;
    weir_pool *pool = make(2, 0);
    order what = plain_order();
    what.item_us = 1000;
    assert_int_equal(weir_pool_start_workers(pool, 2), 2);
    post(pool, what, 400);
    collect_until_last(pool);
    assert_each_once(400);
    uint32_t by_first = 0;
    for (uint32_t i = 0; i < 400; i++)
        by_first += got.by[i] == got.by[0];
    assert_in_range(by_first, 100, 300);
    end(pool);
}

static void a_dead_worker_loses_only_the_item_that_it_ran(void **state)
{
    (void)state;
    weir_pool *pool = make(1, 0);
    order what = plain_order();
    what.killer = 500;
    what.kills = 1;
    post(pool, what, 1000);
    collect_until_last(pool);
    assert_each_once(1000);
    assert_int_equal(got.died[500], 1);
    assert_int_equal(got.n_died, 1);
    assert_int_equal(got.n_replied, 999);
    for (uint32_t i = 0; i < 1000; i++)
        assert_int_equal(board->runs[i], 1); /* nothing is run twice */
    assert_int_equal(look_at(pool).died, 1);
    end(pool);
}

static void a_first_and_a_last_item_may_die_too(void **state)
{
    (void)state;
    for (uint32_t killer = 0; killer < 3; killer++) {
        weir_pool *pool = make(1, 0);
        order what = plain_order();
        what.killer = killer;
        what.kills = 1;
        post(pool, what, 3);
        collect_until_last(pool);
        assert_each_once(3);
        assert_int_equal(got.died[killer], 1);
        end(pool);
    }
}

static void only_the_item_of_a_dead_worker_is_retried(void **state)
{
    (void)state;
    weir_pool *pool = make(1, 2);
    order what = plain_order();
    what.killer = 50;
    what.kills = 2;
    post(pool, what, 100);
    collect_until_last(pool);
    assert_int_equal(got.n_replied, 100);
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(board->runs[i], i == 50 ? 3 : 1);
    assert_int_equal(look_at(pool).retried, 2);
    end(pool);
}

static void retries_are_counted_for_each_item_alone(void **state)
{
    (void)state;
    weir_pool *pool = make(1, 1);
    order what = plain_order();
    what.killer = 3;
    what.kills = 9;
    post(pool, what, 10);
    collect_until_last(pool);
    assert_each_once(10);
    assert_int_equal(got.died[3], 1);
    assert_int_equal(board->runs[3], 2);
    end(pool);
}

static void replies_that_fill_the_room_come_in_parts(void **state)
{
    (void)state;
    weir_pool *pool = make(2, 0);
    order what = plain_order();
    what.reply_bytes = 3000;
    post(pool, what, 1000);
    collect_until_last(pool);
    assert_each_once(1000);
    assert_true(got.completions > 10);
    end(pool);
}

static void a_reply_larger_than_the_room_gets_a_block(void **state)
{
    (void)state;
    for (uint32_t large = 0; large < 30; large += 29) {
        weir_pool *pool = make(1, 0);
        order what = plain_order();
        what.reply_bytes = 100;
        what.large_item = large;
        what.large_bytes = sizeof pattern;
        post(pool, what, 30);
        collect_until_last(pool);
        assert_each_once(30);
        assert_int_equal(got.n_replied, 30);
        end(pool);
    }
}

static void replies_before_a_death_are_kept_in_a_block_as_well(void **state)
{
    (void)state;
    weir_pool *pool = make(1, 0);
    order what = plain_order();
    what.reply_bytes = 1000;
    what.killer = 60; /* 60 kB are there */
    what.kills = 1;
    post(pool, what, 100);
    collect_until_last(pool);
    assert_each_once(100);
    assert_int_equal(got.died[60], 1);
    end(pool);
}

static void a_cancelled_batch_that_waits_is_the_callers(void **state)
{
    (void)state;
    weir_pool *pool = make(1, 0);
    order held = plain_order();
    held.gate_item = 0;
    post(pool, held, 1);
    uint64_t id = post(pool, plain_order(), 10);
    assert_int_equal(weir_pool_cancel(pool, id), 0);
    assert_int_equal(weir_pool_cancel(pool, id), WEIR_ENOTASK);
    assert_int_equal(look_at(pool).cancelled, 1);
    board->gate_open = 1;
    collect_until_last(pool);
    assert_int_equal(got.n_replied, 1);
    end(pool);
}

static void cancelling_a_batch_that_runs_takes_back_what_has_not_begun(void **state)
{
    (void)state;
    weir_pool *pool = make(1, 0);
    order what = plain_order();
    what.gate_item = 5;
    uint64_t id = post(pool, what, 1000);
    weir_completion none;
    while (board->begun < 6)
        assert_int_equal(weir_pool_collect(pool, &none, 1, weir_after(WEIR_MILLISECOND)),
                         WEIR_ETIMEDOUT);
    assert_int_equal(weir_pool_cancel(pool, id), WEIR_ENOTASK);
    board->gate_open = 1;
    collect_until_last(pool);
    assert_int_equal(got.n_replied, 6);
    assert_int_equal(board->begun, 6);
    end(pool);
}

static void a_batch_that_waits_is_discarded_once(void **state)
{
    (void)state;
    weir_pool *pool = make(1, 0);
    order held = plain_order();
    held.gate_item = 0;
    post(pool, held, 1);
    post(pool, plain_order(), 10);
    weir_completion none;
    while (board->begun < 1)
        assert_int_equal(weir_pool_collect(pool, &none, 1, weir_after(WEIR_MILLISECOND)),
                         WEIR_ETIMEDOUT);
    assert_int_equal(weir_pool_discard(pool), 1);
    assert_int_equal(drops, 1);
    board->gate_open = 1;
    collect_until_last(pool);
    end(pool);
}

static void a_pool_killed_in_the_middle_hands_the_tag_back_once(void **state)
{
    (void)state;
    weir_pool *pool = make(1, 5);
    order what = plain_order();
    what.gate_item = 50;
    post(pool, what, 100);
    weir_completion done;
    while (board->begun < 51)
        assert_int_equal(weir_pool_collect(pool, &done, 1, weir_after(WEIR_MILLISECOND)),
                         WEIR_ETIMEDOUT);
    weir_pool_kill(pool);
    collect_until_last(pool);
    assert_int_equal(got.n_replied, 50);
    assert_int_equal(got.n_died, 1);
    assert_int_equal(weir_pool_collect(pool, &done, 1, WEIR_FOREVER), WEIR_ECLOSED);
    end(pool);
}

/* ---- calls at the wrong time ---------------------------------------------------------------- */

static void serve_wrongly(weir_worker *worker, const weir_task *task, void *ctx)
{
    uint32_t item;
    weir_bytes part = {"x", 1};
    (void)ctx;
    if (!task->is_batch) {
        must(weir_worker_next_item(worker, &item) == WEIR_EINVAL);
        must(weir_worker_reply_item(worker, &part, 1) == WEIR_EINVAL);
        must(weir_worker_end_batch(worker) == WEIR_EINVAL);
        must(weir_worker_reply(worker, 0, &part, 1) == 0);
        return;
    }
    must(weir_worker_reply_item(worker, &part, 1) == WEIR_EINVAL);
    must(weir_worker_reply(worker, 0, &part, 1) == WEIR_EINVAL);
    must(weir_worker_next_item(worker, &item) == 0);
    must(weir_worker_next_item(worker, &item) == WEIR_EINVAL);
    must(weir_worker_end_batch(worker) == WEIR_EINVAL);
    must(weir_worker_reply_item(worker, &part, 1) == 0);
    must(weir_worker_reply_item(worker, &part, 1) == WEIR_EINVAL);
    must(weir_worker_end_batch(worker) == 0); /* early: others get the rest */
    must(weir_worker_next_item(worker, &item) == WEIR_EINVAL);
}

static void calls_at_the_wrong_time_are_refused(void **state)
{
    (void)state;
    weir_pool *pool;
    weir_pool_opts opts = WEIR_POOL_OPTS_INIT;
    opts.workers = 1;
    opts.backlog = 4;
    opts.on_drop = note_drop;
    opts.handler = serve_wrongly;
    assert_int_equal(weir_pool_create(&pool, &opts), WEIR_OK);
    weir_completion done;
    weir_bytes part = {"y", 1};
    assert_int_equal(weir_pool_submit(pool, &part, 1, NULL, WEIR_POLL, NULL), WEIR_KEPT);
    assert_int_equal(weir_pool_collect(pool, &done, 1, weir_after(PATIENCE)), 1);
    assert_int_equal(done.outcome, WEIR_OUTCOME_REPLIED);
    assert_true(done.last);
    assert_int_equal(weir_pool_admit(pool, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(weir_pool_post_batch(pool, &part, 1, 3, NULL, NULL), 0);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(weir_pool_collect(pool, &done, 1, weir_after(PATIENCE)), 1);
        assert_int_equal(done.outcome, WEIR_OUTCOME_REPLIED);
        assert_int_equal(done.first, i);
        assert_int_equal(done.items, 1);
        assert_int_equal(done.last, i == 2);
    }
    weir_pool_destroy(pool);
}

/* ---- somebody kills all the time ------------------------------------------------------------ */

/* One worker after every hundred items or so, wherever it is then. */
static void *kill_workers(void *arg)
{
    weir_pool *pool = arg;
    uint32_t killed_at = 0;
    while (!checker.stop) {
        pid_t pids[4];
        uint32_t begun = board->begun;
        size_t n = begun - killed_at > 100 ? weir_pool_pids(pool, pids, 4) : 0;
        if (n > 0) {
            kill(pids[(size_t)weir_now() / 1000 % n], SIGKILL);
            killed_at = begun;
        }
        rest_us(300);
    }
    return NULL;
}

static void under_random_kills_each_item_has_one_outcome(void **state)
{
    (void)state;
    weir_pool *pool = make(3, 0);
    pthread_t killer;
    order what = plain_order();
    what.item_us = 20;
    what.reply_bytes = 200;
    must(pthread_create(&killer, NULL, kill_workers, pool) == 0);
    uint32_t runs_at_least = 0;
    for (int round = 0; round < 12; round++) {
        memset(board->runs, 0, sizeof board->runs);
        post(pool, what, 1500);
        collect_until_last(pool);
        assert_each_once(1500);
        for (uint32_t i = 0; i < 1500; i++) {
            must(board->runs[i] <= 1); /* without retries nothing begins twice */
            runs_at_least += board->runs[i];
        }
    }
    assert_true(runs_at_least >= 12 * 1500 - look_at(pool).died);
    checker.stop = true;
    pthread_join(killer, NULL);
    assert_true(look_at(pool).workers_died > 0);
    end(pool);
}

int main(void)
{
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(board != MAP_FAILED);
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (unsigned char)(i * 31 + (i >> 8));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_item_comes_back_once_and_the_last_completion_says_so),
        cmocka_unit_test(a_batch_of_no_items_is_refused),
        cmocka_unit_test(an_idle_worker_takes_over_items_that_wait_behind_a_long_one),
        cmocka_unit_test(a_long_batch_is_shared_until_nobody_idles),
        cmocka_unit_test(a_dead_worker_loses_only_the_item_that_it_ran),
        cmocka_unit_test(a_first_and_a_last_item_may_die_too),
        cmocka_unit_test(only_the_item_of_a_dead_worker_is_retried),
        cmocka_unit_test(retries_are_counted_for_each_item_alone),
        cmocka_unit_test(replies_that_fill_the_room_come_in_parts),
        cmocka_unit_test(a_reply_larger_than_the_room_gets_a_block),
        cmocka_unit_test(replies_before_a_death_are_kept_in_a_block_as_well),
        cmocka_unit_test(a_cancelled_batch_that_waits_is_the_callers),
        cmocka_unit_test(cancelling_a_batch_that_runs_takes_back_what_has_not_begun),
        cmocka_unit_test(a_batch_that_waits_is_discarded_once),
        cmocka_unit_test(a_pool_killed_in_the_middle_hands_the_tag_back_once),
        cmocka_unit_test(calls_at_the_wrong_time_are_refused),
        cmocka_unit_test(under_random_kills_each_item_has_one_outcome),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
