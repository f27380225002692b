/* weir/pool.h with a governor: what runs has its memory reserved; and workers that grow. */
#include "support.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/memory.h>
#include <weir/pool.h>

#define GIB     (UINT64_C(1) << 30)
#define MIB     (UINT64_C(1) << 20)
#define WORKERS 4

/* Seen by the workers, too. */
static struct shared {
    _Atomic int running, most;
    _Atomic int ran;
    _Atomic int n_pids, may_die;
    pid_t pids[WORKERS];
} *shared;

static weir_governor *governor;
static unsigned tasks_per_worker; /* 0: any number */

/* More than any machine has, so that what is really used does not matter: 10,000 GiB. */
static int begin(void **state)
{
    (void)state;
    tasks_per_worker = 0;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    weir_governor_opts opts = WEIR_GOVERNOR_OPTS_INIT;
    opts.limit_bytes = 10000 * GIB;
    return shared == MAP_FAILED ? -1 : weir_governor_create(&governor, &opts);
}

static int end(void **state)
{
    (void)state;
    weir_governor_destroy(governor);
    return munmap(shared, sizeof *shared);
}

static uint64_t reserved(void)
{
    weir_governor_snapshot now = WEIR_GOVERNOR_SNAPSHOT_INIT;
    must(weir_governor_get_snapshot(governor, &now) == WEIR_OK);
    must(now.admitted == now.released + now.inside);
    return now.reserved;
}

static void enter(void)
{
    int running = ++shared->running;
    int most = shared->most;
    while (running > most && !atomic_compare_exchange_weak(&shared->most, &most, running))
        ;
}

static void nap(long ns)
{
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

/* A task is one byte: what to do. */
static void handle(weir_worker *worker, const weir_task *task, void *ctx)
{
    (void)ctx;
    char what = *(const char *)task->data;
    uint32_t item;
    enter();
    if (what == 'k') { /* it is dead, and does not run any more */
        shared->running--;
        kill(getpid(), SIGKILL);
    }
    if (what == 'd') { /* dies when it is told to */
        shared->running--;
        shared->pids[shared->n_pids++] = getpid();
        while (!shared->may_die)
            nap(100000);
        kill(getpid(), SIGKILL);
    }
    if (what == 'g') { /* grows */
        char *bytes = malloc(10 * MIB);
        must(bytes);
        memset(bytes, 1, 10 * MIB);
        __asm__ volatile("" : : "r"(bytes) : "memory");
    }
    if (what == 'b') { /* has 50 MiB for a moment */
        char *bytes =
            mmap(NULL, 50 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        must(bytes != MAP_FAILED);
        memset(bytes, 1, 50 * MIB);
        must(munmap(bytes, 50 * MIB) == 0);
    }
    if (what != 's' && what != 'k')
        nap(2000000);
    shared->ran++;
    shared->running--;
    if (task->is_batch) {
        while (weir_worker_next_item(worker, &item) == 0)
            weir_worker_reply_item(worker, NULL, 0);
        weir_worker_end_batch(worker);
        return;
    }
    weir_worker_reply(worker, 0, NULL, 0);
}

static void drop(void *tag, weir_drop_reason reason, void *ctx)
{
    (void)tag;
    (void)reason;
    (void)ctx;
}

static weir_pool *make(uint64_t task_bytes, uint64_t max_worker_rss)
{
    weir_pool *pool;
    weir_pool_opts opts = WEIR_POOL_OPTS_INIT;
    opts.workers = WORKERS;
    opts.backlog = 1000;
    opts.governor = governor;
    opts.task_bytes = task_bytes;
    opts.max_worker_rss = max_worker_rss;
    opts.tasks_per_worker = tasks_per_worker;
    opts.handler = handle;
    opts.on_drop = drop;
    must(weir_pool_create(&pool, &opts) == WEIR_OK);
    return pool;
}

static void submit(weir_pool *pool, char what, uint64_t kind)
{
    weir_bytes part = {&what, 1};
    must(weir_pool_admit(pool, WEIR_FOREVER) == WEIR_KEPT);
    must(weir_pool_post_kind(pool, &part, 1, 0, kind, NULL, NULL) == 0);
}

/* Collects n completions; how many of them are replies. */
static int collect(weir_pool *pool, int n)
{
    weir_completion completions[16];
    int replied = 0;
    weir_time deadline = weir_after(PATIENCE);
    while (n > 0) {
        int64_t got = weir_pool_collect(pool, completions, n < 16 ? (size_t)n : 16, deadline);
        must(got > 0);
        for (int64_t i = 0; i < got; i++)
            replied += completions[i].outcome == WEIR_OUTCOME_REPLIED;
        n -= (int)got;
    }
    return replied;
}

static weir_pool_snapshot snapshot_of_pool(weir_pool *pool)
{
    weir_pool_snapshot now = WEIR_POOL_SNAPSHOT_INIT;
    must(weir_pool_get_snapshot(pool, &now) == WEIR_OK);
    return now;
}

static void no_more_run_than_there_is_memory_for(void **state)
{
    (void)state;
    weir_pool *pool = make(4000 * GIB, 0);
    for (int i = 0; i < 60; i++)
        submit(pool, 'n', 0);
    assert_int_equal(collect(pool, 60), 60);
    assert_in_range(shared->most, 1, 2);
    weir_pool_destroy(pool);
    assert_int_equal(reserved(), 0);
}

static void short_tasks_share_their_workers_reservation(void **state)
{
    (void)state;
    weir_pool *pool = make(4000 * GIB, 0);
    for (int i = 0; i < 900; i++)
        submit(pool, 's', 0);
    assert_int_equal(collect(pool, 900), 900);
    assert_in_range(shared->most, 1, 2);
    weir_pool_destroy(pool);
    assert_int_equal(reserved(), 0);
}

static void a_task_larger_than_the_limit_runs_alone(void **state)
{
    (void)state;
    weir_pool *pool = make(20000 * GIB, 0);
    for (int i = 0; i < 12; i++)
        submit(pool, 'n', 0);
    assert_int_equal(collect(pool, 12), 12);
    assert_int_equal(shared->most, 1);
    weir_pool_destroy(pool);
}

static void a_kind_that_is_not_known_runs_alone_until_it_is(void **state)
{
    (void)state;
    weir_pool *pool = make(0, 0);
    submit(pool, 'b', 7);
    submit(pool, 'b', 7);
    assert_int_equal(collect(pool, 1), 1);
    assert_int_equal(shared->most, 1);
    uint64_t estimate = weir_governor_estimate(governor, 7);
    assert_in_range(estimate, 58 * MIB, 750 * MIB); /* of one: a fifth more */
    for (int i = 0; i < 30; i++)
        submit(pool, 'b', 7);
    assert_int_equal(collect(pool, 31), 31);
    assert_in_range(shared->most, 2, WORKERS);
    estimate = weir_governor_estimate(governor, 7);
    assert_in_range(estimate, 50 * MIB, 750 * MIB);
    assert_int_equal(weir_governor_estimate(governor, 8), 0);
    weir_pool_destroy(pool);
    assert_int_equal(reserved(), 0);
}

static void the_completion_tells_the_peak(void **state)
{
    (void)state;
    weir_pool *pool = make(0, 0);
    weir_completion completion;
    submit(pool, 'b', 7);
    assert_int_equal(weir_pool_collect(pool, &completion, 1, weir_after(PATIENCE)), 1);
    /* The kernel counts in lumps, and a sanitizer has memory of its own. */
    assert_in_range(completion.peak_bytes, 49 * MIB, 600 * MIB);
    weir_pool_destroy(pool);
}

static void what_a_dead_worker_had_reserved_comes_back(void **state)
{
    (void)state;
    weir_pool *pool = make(4000 * GIB, 0);
    for (int i = 0; i < 24; i++)
        submit(pool, i % 4 == 1 ? 'k' : 'n', 0);
    assert_int_equal(collect(pool, 24), 18);
    assert_in_range(shared->most, 1, 2);
    soon((weir_pool_collect(pool, &(weir_completion){0}, 1, WEIR_POLL), reserved() == 0));
    weir_pool_destroy(pool);
}

/* Both reservations come back while a third one waits in line, to which one of them is enough. */
static void what_two_dead_workers_had_reserved_comes_back(void **state)
{
    (void)state;
    tasks_per_worker = 1; /* so nothing lies behind another task */
    weir_pool *pool = make(4000 * GIB, 0);
    weir_completion completions[4];
    for (int i = 0; i < 2; i++) {
        submit(pool, 'd', 0);
        soon((weir_pool_collect(pool, completions, 4, WEIR_POLL), shared->n_pids == i + 1));
    }
    submit(pool, 'n', 0);
    weir_governor_snapshot now = WEIR_GOVERNOR_SNAPSHOT_INIT;
    soon((weir_pool_collect(pool, completions, 4, WEIR_POLL),
          weir_governor_get_snapshot(governor, &now), now.waiting == 1));
    shared->may_die = 1;
    siginfo_t ended;
    for (int i = 0; i < 2; i++) /* the pool will see both at once */
        must(waitid(P_PID, (id_t)shared->pids[i], &ended, WEXITED | WNOWAIT) == 0);
    assert_int_equal(collect(pool, 3), 1);
    soon((weir_pool_collect(pool, completions, 4, WEIR_POLL), reserved() == 0));
    weir_pool_destroy(pool);
}

static void pools_share_what_there_is(void **state)
{
    (void)state;
    weir_pool *pools[] = {make(4000 * GIB, 0), make(4000 * GIB, 0)};
    for (int i = 0; i < 40; i++)
        submit(pools[i % 2], 'n', 0);
    int left[] = {20, 20};
    weir_completion completions[4];
    weir_time deadline = weir_after(PATIENCE);
    while (left[0] + left[1] > 0) {
        must(weir_now() < deadline);
        for (int i = 0; i < 2; i++) {
            int64_t n = weir_pool_collect(pools[i], completions, 4, weir_after(1000000));
            left[i] -= n > 0 ? (int)n : 0;
        }
    }
    assert_in_range(shared->most, 1, 2);
    weir_pool_destroy(pools[0]);
    weir_pool_destroy(pools[1]);
    assert_int_equal(reserved(), 0);
}

static void who_else_holds_the_memory_is_waited_for(void **state)
{
    (void)state;
    weir_pool *pool = make(4000 * GIB, 0);
    assert_int_equal(weir_governor_reserve(governor, 8000 * GIB, WEIR_POLL), WEIR_OK);
    submit(pool, 'n', 0);
    weir_completion completion;
    weir_time until = weir_after(100 * WEIR_MILLISECOND);
    assert_int_equal(weir_pool_collect(pool, &completion, 1, until), WEIR_ETIMEDOUT);
    assert_int_equal(shared->ran, 0);
    weir_governor_release(governor, 8000 * GIB);
    assert_int_equal(collect(pool, 1), 1);
    weir_pool_destroy(pool);
    assert_int_equal(reserved(), 0);
}

static void a_pool_that_goes_leaves_the_governors_line(void **state)
{
    (void)state;
    assert_int_equal(weir_governor_reserve(governor, 8000 * GIB, WEIR_POLL), WEIR_OK);
    for (int round = 0; round < 10; round++) {
        weir_pool *pool = make(4000 * GIB, 0);
        weir_completion completion;
        submit(pool, 'n', 0);
        weir_pool_collect(pool, &completion, 1, weir_after(10 * WEIR_MILLISECOND));
        weir_pool_destroy(pool);
    }
    weir_governor_release(governor, 8000 * GIB);
    assert_int_equal(reserved(), 0);
}

static void a_closed_governor_holds_nobody_back(void **state)
{
    (void)state;
    weir_pool *pool = make(4000 * GIB, 0);
    submit(pool, 'n', 0);
    assert_int_equal(collect(pool, 1), 1);
    weir_governor_close(governor);
    for (int i = 0; i < 10; i++)
        submit(pool, 'n', 0);
    assert_int_equal(collect(pool, 10), 10);
    weir_pool_destroy(pool);
    assert_int_equal(reserved(), 0);
}

static void a_batch_is_shared_out_when_there_is_memory(void **state)
{
    (void)state;
    weir_pool *pool = make(4000 * GIB, 0);
    char what = 'n';
    weir_bytes part = {&what, 1};
    int items = 0;
    weir_completion completion;
    must(weir_pool_admit(pool, WEIR_FOREVER) == WEIR_KEPT);
    must(weir_pool_post_kind(pool, &part, 1, 100, 3, NULL, NULL) == 0);
    do {
        must(weir_pool_collect(pool, &completion, 1, weir_after(PATIENCE)) == 1);
        items += (int)completion.items;
    } while (!completion.last);
    assert_int_equal(items, 100);
    weir_pool_destroy(pool);
    assert_int_equal(reserved(), 0);
}

static void a_worker_that_has_grown_is_replaced_between_two_tasks(void **state)
{
    (void)state;
    weir_governor_destroy(governor);
    governor = NULL;
    weir_pool *pool = make(0, 100 * MIB);
    for (int i = 0; i < 100; i++)
        submit(pool, 'g', 0);
    assert_int_equal(collect(pool, 100), 100);
    weir_pool_close(pool);
    weir_completion completion;
    assert_int_equal(weir_pool_collect(pool, &completion, 1, weir_after(PATIENCE)), WEIR_ECLOSED);
    weir_pool_snapshot last = snapshot_of_pool(pool);
    assert_in_range(last.workers_recycled, 4, 100); /* 1,000 MiB in pieces of up to 100 */
    assert_int_equal(last.workers_died, 0);
    assert_int_equal(last.died, 0);
    assert_int_equal(shared->ran, 100);
    weir_pool_destroy(pool);
}

static void bytes_without_a_governor_are_refused(void **state)
{
    (void)state;
    weir_pool *pool;
    weir_pool_opts opts = WEIR_POOL_OPTS_INIT;
    opts.backlog = 1;
    opts.handler = handle;
    opts.on_drop = drop;
    opts.task_bytes = 1;
    assert_int_equal(weir_pool_create(&pool, &opts), WEIR_EINVAL);
}

#define POOL_TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        POOL_TEST(no_more_run_than_there_is_memory_for),
        POOL_TEST(short_tasks_share_their_workers_reservation),
        POOL_TEST(a_task_larger_than_the_limit_runs_alone),
        POOL_TEST(a_kind_that_is_not_known_runs_alone_until_it_is),
        POOL_TEST(the_completion_tells_the_peak),
        POOL_TEST(what_a_dead_worker_had_reserved_comes_back),
        POOL_TEST(what_two_dead_workers_had_reserved_comes_back),
        POOL_TEST(pools_share_what_there_is),
        POOL_TEST(who_else_holds_the_memory_is_waited_for),
        POOL_TEST(a_pool_that_goes_leaves_the_governors_line),
        POOL_TEST(a_closed_governor_holds_nobody_back),
        POOL_TEST(a_batch_is_shared_out_when_there_is_memory),
        POOL_TEST(a_worker_that_has_grown_is_replaced_between_two_tasks),
        POOL_TEST(bytes_without_a_governor_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
