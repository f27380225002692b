/* A process pool with a governor that gets no memory, no shared memory or no process, or whose governor
 * refuses: an error or another try, an outcome for each task that was taken, nothing left reserved, and
 * pool and governor still work. */
#include "fault/calls.h"
#include "unit/fake_kernel.h"

#include <signal.h>
#include <sys/wait.h>

#include <weir/pool.h>

#include "flow/governor.h"

#define TASKS   12
#define ITEMS   20u
#define ROOM    (700 * MIB) /* of the fake cgroup: 80 % of 1000 MiB less the 100 in use */
#define NEED    (300 * MIB) /* of a task: two at a time */
#define WORKERS 3

/* ---- a pool, and what became of its tasks ------------------------------------------------------- */

static struct board {
    _Atomic int running, most;
} *board;

static weir_governor *governor;
static bool is_shared, learns, kills;
static unsigned accepted, came_back[TASKS], died;

/* A task is one byte: (k)ill yourself, or not. */
static void serve(weir_worker *worker, const weir_task *task, void *ctx)
{
    (void)ctx;
    uint32_t item;
    int running = ++board->running, most = board->most;
    while (running > most && !atomic_compare_exchange_weak(&board->most, &most, running))
        ;
    board->running--;
    if (*(const char *)task->data == 'k')
        raise(SIGKILL);
    if (!task->is_batch) {
        weir_worker_reply(worker, 0, NULL, 0);
        return;
    }
    while (weir_worker_next_item(worker, &item) == 0)
        weir_worker_reply_item(worker, NULL, 0);
    weir_worker_end_batch(worker);
}

static void note_drop(void *tag, weir_drop_reason reason, void *ctx)
{
    (void)reason, (void)ctx;
    came_back[(uintptr_t)tag]++;
}

static weir_governor_snapshot reserved_now(void)
{
    weir_governor_snapshot now = WEIR_GOVERNOR_SNAPSHOT_INIT;
    must(weir_governor_get_snapshot(governor, &now) == WEIR_OK);
    must(now.admitted == now.released + now.inside + now.lost);
    must(now.lost == 0);
    return now;
}

static weir_pool_snapshot look_at(weir_pool *pool)
{
    weir_pool_snapshot now = WEIR_POOL_SNAPSHOT_INIT;
    must(weir_pool_get_snapshot(pool, &now) == WEIR_OK);
    must(now.accepted ==
         now.completed + total(now.dropped) + now.cancelled + now.waiting + now.running);
    return now;
}

static weir_pool_opts options(void)
{
    weir_pool_opts opts = WEIR_POOL_OPTS_INIT;
    opts.workers = WORKERS;
    opts.backlog = 40;
    opts.on_drop = note_drop;
    opts.handler = serve;
    opts.governor = governor;
    opts.task_bytes = learns ? 0 : NEED;
    accepted = died = 0;
    memset(came_back, 0, sizeof came_back);
    memset(board, 0, sizeof *board);
    return opts;
}

/* Whether it was taken. */
static bool post(weir_pool *pool, uintptr_t tag, char what, uint32_t items)
{
    weir_bytes part = {&what, 1};
    int rc = weir_pool_admit(pool, WEIR_POLL);
    if (rc == WEIR_KEPT) {
        rc = weir_pool_post_kind(pool, &part, 1, items, tag % 2, number(tag), NULL);
        if (rc < 0)
            weir_pool_unadmit(pool);
    }
    assert_true(rc >= 0 || rc == WEIR_ENOMEM || rc == WEIR_ENOSHM);
    accepted += rc >= 0;
    return rc >= 0;
}

/* Takes in what comes until then; whether anything did. */
static bool collect_until(weir_pool *pool, weir_time deadline)
{
    weir_completion done[3];
    int64_t n = weir_pool_collect(pool, done, 3, deadline);
    for (int64_t i = 0; i < n; i++) {
        came_back[(uintptr_t)done[i].tag] += done[i].last;
        died += done[i].outcome == WEIR_OUTCOME_DIED;
    }
    return n > 0;
}

static void collect_all(weir_pool *pool)
{
    while (look_at(pool).waiting + look_at(pool).running > 0)
        if (!collect_until(pool, weir_after(2 * PATIENCE)))
            fail_msg("%zu wait, %zu run, %llu bytes are reserved by %llu, and nothing comes",
                     look_at(pool).waiting, look_at(pool).running,
                     (unsigned long long)reserved_now().reserved,
                     (unsigned long long)reserved_now().inside);
}

static void assert_each_came_back_once(void)
{
    unsigned n = 0;
    for (int i = 0; i < TASKS; i++) {
        assert_true(came_back[i] <= 1);
        n += came_back[i];
    }
    assert_int_equal(n, accepted);
}

static void make_governor(void)
{
    char name[64];
    weir_governor_opts opts = WEIR_GOVERNOR_OPTS_INIT;
    snprintf(name, sizeof name, "fault-%s", top + sizeof "/tmp/weir-memory-" - 1);
    opts.interval_ns = WEIR_MILLISECOND;
    opts.shared = is_shared ? name : NULL;
    must(weir__governor_create_at(&governor, &opts, &roots) == WEIR_OK);
}

/* ---- a life --------------------------------------------------------------------------------- */

/* Somebody else has the memory at first, so the pool stands in the governor's line; then it has enough
 * for two tasks at a time, of three workers, and one of them may die. */
static void live(weir_pool *pool)
{
    must(weir_governor_reserve(governor, ROOM - NEED / 2, WEIR_POLL) == WEIR_OK);
    for (uintptr_t tag = 0; tag < 4; tag++)
        post(pool, tag, 'n', 0);
    collect_until(pool, weir_after(2 * WEIR_MILLISECOND));
    assert_int_equal(reserved_now().inside, 1); /* nobody has begun */
    assert_int_equal(board->most, 0);
    weir_governor_release(governor, ROOM - NEED / 2);
    collect_until(pool, weir_after(2 * WEIR_MILLISECOND));
    post(pool, 4, kills ? 'k' : 'n', 0);
    post(pool, 5, 'n', ITEMS);
    post(pool, 6, 'n', 0);
    collect_all(pool);
}

/* What it needs no more is given back; and it takes, runs and measures as before. */
static void assert_works(weir_pool *pool)
{
    unsigned before = died;
    for (uintptr_t tag = 7; tag < 10; tag++)
        assert_true(post(pool, tag, 'n', 0));
    collect_all(pool);
    assert_int_equal(died, before);
    soon((weir_pool_collect(pool, &(weir_completion){0}, 1, WEIR_POLL),
          reserved_now().reserved == 0));
}

static bool lived_with_the_nth_failing(int kind, int64_t n, bool stays, bool in_workers)
{
    weir_pool *pool = NULL;
    make_governor();
    weir_pool_opts opts = options();
    kills = kind == ALLOCATE || !stays; /* a pool without a new worker gives up after 14 s only */
    start_failing(kind, n, stays, in_workers);
    int rc = weir_pool_create(&pool, &opts);
    if (rc == WEIR_OK)
        live(pool);
    bool failed = end_failing();
    if (rc == WEIR_OK) {
        assert_true(learns || board->most <= 2);
        if (!in_workers) /* else those that are there may have a fault to come */
            assert_works(pool);
        assert_each_came_back_once();
    } else {
        assert_true(failed);
        assert_null(pool);
    }
    start_failing(ALLOCATE, 1, true, false);
    weir_pool_destroy(pool); /* needs no memory */
    end_failing();
    assert_each_came_back_once();
    weir_governor_snapshot last = reserved_now();
    assert_int_equal(last.reserved + last.inside + last.waiting, 0);
    assert_int_equal(weir_governor_reserve(governor, ROOM, WEIR_POLL), WEIR_OK);
    weir_governor_release(governor, ROOM);
    weir_governor_destroy(governor);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    return failed;
}

/* How many calls there are depends on who is quicker: a run that came to an end with fewer is not
 * believed at once. */
static void until_none_fails(int kind, bool stays, int at_least)
{
    int n = 1;
    for (int ended = 0; ended < 3; ended++)
        while (lived_with_the_nth_failing(kind, n, stays, false))
            n++;
    assert_true(n > at_least);
}

/* Each on a governor of this process and on a shared one, with sizes that are told or learned. */
static void in_each_way(int kind, bool stays, int at_least)
{
    for (int way = 0; way < 4; way++) {
        is_shared = way & 1;
        learns = way & 2;
        until_none_fails(kind, stays, at_least);
    }
}

static void any_one_allocation_may_fail(void **state)
{
    (void)state;
    in_each_way(ALLOCATE, false, 5);
}

static void all_allocations_may_fail_from_any_one_on(void **state)
{
    (void)state;
    in_each_way(ALLOCATE, true, 5);
}

static void any_reservation_of_shared_memory_may_fail(void **state)
{
    (void)state;
    in_each_way(RESERVE, false, 4);
    in_each_way(RESERVE, true, 4);
}

static void any_fork_may_fail(void **state)
{
    (void)state;
    in_each_way(FORK, false, 1);
    in_each_way(FORK, true, 1);
}

static void any_call_may_fail_in_every_worker(void **state)
{
    (void)state;
    for (int n = 1; n <= 4; n++)
        lived_with_the_nth_failing(ALLOCATE, n, n % 2, true);
    for (int n = 1; n <= 8; n++)
        lived_with_the_nth_failing(MAP, n, n % 2, true);
}

/* ---- a governor that refuses ------------------------------------------------------------------- */

/* Before the n-th look the machine is out of memory, for three looks. */
static void whenever_the_governor_sheds_the_pool_asks_again(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        is_shared = way & 1;
        learns = way & 2;
        for (int n = 0; n < 12; n++) {
            weir_pool *pool = NULL;
            make_governor();
            weir_pool_opts opts = options();
            must(weir_pool_create(&pool, &opts) == WEIR_OK);
            for (uintptr_t tag = 0; tag < 6; tag++)
                assert_true(post(pool, tag, tag == 3 ? 'k' : 'n', tag == 5 ? ITEMS : 0));
            for (int look = 0; look_at(pool).waiting + look_at(pool).running > 0; look++) {
                must(look < 60000);
                use(look >= n && look < n + 3 ? 990 : 100);
                weir__governor_measure(governor);
                collect_until(pool, weir_after(WEIR_MILLISECOND));
            }
            use(100);
            assert_works(pool);
            assert_each_came_back_once();
            weir_pool_destroy(pool);
            assert_int_equal(reserved_now().reserved + reserved_now().waiting, 0);
            weir_governor_destroy(governor);
        }
    }
}

/* Nobody gets through, and the pool goes: from its place in line, and without memory for it. */
static void a_pool_goes_that_has_never_been_let_in(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        is_shared = way & 1;
        for (int64_t n = 0; n < 3; n++) {
            weir_pool *pool = NULL;
            make_governor();
            weir_pool_opts opts = options();
            must(weir_pool_create(&pool, &opts) == WEIR_OK);
            must(weir_governor_reserve(governor, ROOM, WEIR_POLL) == WEIR_OK);
            assert_true(post(pool, 0, 'n', 0) && post(pool, 1, 'n', ITEMS));
            must(weir_pool_start_workers(pool, WORKERS) == WORKERS);
            start_failing(ALLOCATE, n, way & 2, false);
            collect_until(pool, weir_after(WEIR_MILLISECOND));
            end_failing();
            weir_pool_destroy(pool);
            assert_each_came_back_once();
            assert_int_equal(reserved_now().waiting, 0);
            assert_int_equal(reserved_now().reserved, ROOM);
            weir_governor_release(governor, ROOM);
            weir_governor_destroy(governor);
        }
    }
}

#define MEMORY_TEST(name) cmocka_unit_test_setup_teardown(name, make_cgroup, remove_tree)

int main(void)
{
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(board != MAP_FAILED);
    main_thread = pthread_self();
    const struct CMUnitTest tests[] = {
        MEMORY_TEST(any_one_allocation_may_fail),
        MEMORY_TEST(all_allocations_may_fail_from_any_one_on),
        MEMORY_TEST(any_reservation_of_shared_memory_may_fail),
        MEMORY_TEST(any_fork_may_fail),
        MEMORY_TEST(any_call_may_fail_in_every_worker),
        MEMORY_TEST(whenever_the_governor_sheds_the_pool_asks_again),
        MEMORY_TEST(a_pool_goes_that_has_never_been_let_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
