/* The memory governor under load: the bound at every instant, steps that change, and the law. */
#include "unit/fake_kernel.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "flow/governor.h"

#define THREADS 8
#define ROUNDS  4000

static weir_governor *governor;
static _Atomic uint64_t held; /* added after, taken off before: at most what is reserved */
static _Atomic uint64_t admitted;
static _Atomic bool wild; /* the use changes: the bound is not known here */
static _Atomic bool stop;

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static void hold(uint64_t bytes)
{
    uint64_t sum = atomic_fetch_add(&held, bytes) + bytes;
    must(wild || sum <= 700 * MIB);
    admitted++;
    held -= bytes;
    weir_governor_release(governor, bytes);
}

struct async {
    weir_pending pending;
    uint64_t bytes;
    _Atomic int state; /* 0: waits; 1: ended */
};

static void ready(weir_pending *pending, int result)
{
    struct async *async = (struct async *)pending;
    must(result == WEIR_OK || result == WEIR_ESHED || result == WEIR_ECLOSED);
    if (result == WEIR_OK)
        hold(async->bytes);
    must(atomic_exchange(&async->state, 1) == 0);
}

static void reserve_async(uint64_t bytes, bool cancels)
{
    struct async async = {.pending = {.ready = ready}, .bytes = bytes};
    int rc = weir_governor_reserve_async(governor, bytes, &async.pending);
    must(rc == WEIR_OK || rc == WEIR_WAITING || rc == WEIR_ESHED);
    if (rc == WEIR_OK)
        hold(bytes);
    if (rc != WEIR_WAITING || (cancels && weir_governor_cancel(governor, &async.pending)))
        return;
    soon((weir_governor_sample(governor), async.state == 1));
}

static void *work(void *arg)
{
    uint32_t seed = (uint32_t)(uintptr_t)arg;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t bytes = (1 + next(&seed) % 600) * MIB;
        unsigned kind = next(&seed) % 8;
        if (kind < 2) {
            reserve_async(bytes, kind == 1);
            continue;
        }
        weir_time deadline = kind == 2   ? WEIR_POLL
                             : kind == 3 ? weir_after(next(&seed) % 100000)
                                         : WEIR_FOREVER;
        int rc = weir_governor_reserve(governor, bytes, deadline);
        must(rc == WEIR_OK || rc == WEIR_ESHED || (kind == 2 && rc == WEIR_EFULL) ||
             (kind == 3 && rc == WEIR_ETIMEDOUT));
        if (rc == WEIR_OK)
            hold(bytes);
    }
    return NULL;
}

static void *watch(void *arg)
{
    (void)arg;
    for (uint32_t seed = 5; !stop;) {
        if (wild)
            use(100 + next(&seed) % 900);
        weir_governor_snapshot now = WEIR_GOVERNOR_SNAPSHOT_INIT;
        must(weir_governor_get_snapshot(governor, &now) == WEIR_OK);
        must(now.admitted == now.released + now.inside);
        must(wild || now.reserved <= 700 * MIB);
        weir_governor_sample(governor);
    }
    return NULL;
}

static void load(bool with_wild_use)
{
    weir_governor_opts opts = WEIR_GOVERNOR_OPTS_INIT;
    opts.interval_ns = WEIR_MILLISECOND;
    must(make_cgroup(NULL) == 0);
    must(weir__governor_create_at(&governor, &opts, &roots) == WEIR_OK);
    wild = with_wild_use;
    stop = false;
    admitted = 0;
    pthread_t threads[THREADS], watcher;
    must(pthread_create(&watcher, NULL, watch, NULL) == 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, work, (void *)(i + 1)) == 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    stop = true;
    pthread_join(watcher, NULL);
    weir_governor_snapshot now = WEIR_GOVERNOR_SNAPSHOT_INIT;
    must(weir_governor_get_snapshot(governor, &now) == WEIR_OK);
    assert_int_equal(now.reserved, 0);
    assert_int_equal(now.inside, 0);
    assert_int_equal(now.waiting, 0);
    assert_int_equal(now.admitted, admitted);
    assert_int_equal(now.released, admitted);
    weir_governor_destroy(governor);
    remove_tree(NULL);
}

static void threads_never_hold_more_than_the_limit(void **state)
{
    (void)state;
    load(false);
}

static void whatever_is_measured_everybody_comes_through_or_is_told(void **state)
{
    (void)state;
    load(true);
}

/* ---- processes, some of them killed --------------------------------------------------------- */

static weir_governor *open_shared(void)
{
    char name[64];
    weir_governor *made;
    weir_governor_opts opts = WEIR_GOVERNOR_OPTS_INIT;
    snprintf(name, sizeof name, "stress-%s", top + sizeof "/tmp/weir-memory-" - 1);
    opts.shared = name;
    opts.interval_ns = WEIR_MILLISECOND;
    must(weir__governor_create_at(&made, &opts, &roots) == WEIR_OK);
    return made;
}

static void work_as_process(uint32_t seed, int rounds)
{
    governor = open_shared();
    for (int i = 0; i < rounds; i++) {
        uint64_t bytes = (1 + next(&seed) % 600) * MIB;
        must(weir_governor_reserve(governor, bytes, WEIR_FOREVER) == WEIR_OK);
        weir_governor_release(governor, bytes);
    }
    weir_governor_destroy(governor);
}

static void killed_processes_hold_nothing(void **state)
{
    (void)state;
    must(make_cgroup(NULL) == 0);
    weir_governor *mine = open_shared();
    uint32_t seed = 9;
    for (int round = 0; round < 20; round++) {
        pid_t pids[4];
        for (uint32_t i = 0; i < 4; i++) {
            pids[i] = fork();
            must(pids[i] >= 0);
            if (pids[i] == 0) {
                work_as_process(i + 1, i < 2 ? INT32_MAX : 50); /* two of them until killed */
                _exit(0);
            }
        }
        int status;
        nanosleep(&(struct timespec){.tv_nsec = 1000000 + (long)(next(&seed) % 5000000)}, NULL);
        for (int i = 0; i < 2; i++)
            must(kill(pids[i], SIGKILL) == 0 && waitpid(pids[i], &status, 0) == pids[i]);
        for (int i = 2; i < 4; i++) /* those that live get what they need */
            must(waitpid(pids[i], &status, 0) == pids[i] && status == 0);
        weir_governor_snapshot now = WEIR_GOVERNOR_SNAPSHOT_INIT;
        must(weir_governor_get_snapshot(mine, &now) == WEIR_OK);
        must(now.admitted == now.released + now.lost + now.inside);
    }
    assert_int_equal(weir_governor_reserve(mine, 700 * MIB, weir_after(PATIENCE)), WEIR_OK);
    weir_governor_snapshot now = WEIR_GOVERNOR_SNAPSHOT_INIT;
    must(weir_governor_get_snapshot(mine, &now) == WEIR_OK);
    assert_int_equal(now.reserved, 700 * MIB);
    assert_int_equal(now.inside, 1);
    weir_governor_release(mine, 700 * MIB);
    weir_governor_destroy(mine);
    remove_tree(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_never_hold_more_than_the_limit),
        cmocka_unit_test(whatever_is_measured_everybody_comes_through_or_is_told),
        cmocka_unit_test(killed_processes_hold_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
