/* Limits that move while many threads, of several processes, come and go: never more inside than
 * the limit when they came in, and the law at the end.
 *
 * WEIR_STRESS_SECONDS (default 2) scales how long all cases together take. */
#include "contract/support.h"

#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/limit.h>

#define THREADS 8
#define CEILING 6

#if defined(__SANITIZE_THREAD__)
#define PROCESSES 1 /* it sees the threads of one process */
#else
#define PROCESSES 3
#endif

/* In memory that all of them share. */
typedef struct board {
    _Atomic bool stop;
    _Atomic int inside, most;
    _Atomic uint64_t admitted;
} board;

static board *the_board;
static weir_limit *limit;

static int64_t run_for(void)
{
    const char *asked = getenv("WEIR_STRESS_SECONDS");
    return (int64_t)((asked ? atof(asked) : 2.0) / 8 * 1e9);
}

static void work(unsigned n)
{
    for (volatile unsigned i = 0; i < n; i++)
        ;
}

static void *calls(void *arg)
{
    uint32_t random = (uint32_t)(uintptr_t)arg * 2654435761u + 1;
    while (!the_board->stop) {
        random = random * 1664525 + 1013904223;
        weir_time deadline = random >> 30 ? weir_after(WEIR_MILLISECOND) : WEIR_POLL;
        weir_permit permit;
        int rc = weir_limit_acquire(limit, 1, random >> 29 & 1, deadline, &permit);
        must(rc == WEIR_OK || rc == WEIR_EFULL || rc == WEIR_ETIMEDOUT || rc == WEIR_ESHED);
        if (rc != WEIR_OK)
            continue;
        int now = atomic_fetch_add(&the_board->inside, 1) + 1, seen = the_board->most;
        while (now > seen && !atomic_compare_exchange_weak(&the_board->most, &seen, now))
            ;
        the_board->admitted++;
        work(random >> 24);
        atomic_fetch_sub(&the_board->inside, 1);
        weir_limit_release(limit, &permit, random >> 26 ? WEIR_LIMIT_SUCCESS : WEIR_LIMIT_DROP);
    }
    return NULL;
}

static void run_threads(void)
{
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, calls, (void *)(i + (uintptr_t)getpid() * 64)) == 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void *keep_time(void *arg)
{
    weir_time end = weir_after(*(int64_t *)arg);
    while (weir_now() < end) {
        weir_limit_snapshot now = WEIR_LIMIT_SNAPSHOT_INIT;
        must(weir_limit_get_snapshot(limit, &now) == WEIR_OK);
        must(now.admitted == now.released + now.in_flight + now.lost);
        must(now.limit >= 1 && now.limit <= CEILING && now.used <= CEILING);
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    the_board->stop = true;
    return NULL;
}

static void run(weir_limit_algorithm algorithm, const char *shared, int processes, bool lifo)
{
    the_board =
        mmap(NULL, sizeof *the_board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(the_board != MAP_FAILED);
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    opts.algorithm = algorithm;
    opts.limit = 4;
    opts.max_limit = CEILING;
    opts.n_partitions = 2;
    opts.shares[0] = 0.5;
    opts.lifo = lifo;
    opts.shed_after_ns = 100000;
    opts.shared = shared;
    must(weir_limit_create(&limit, &opts) == WEIR_OK);
    pid_t children[PROCESSES];
    for (int i = 1; i < processes; i++) {
        children[i] = fork();
        must(children[i] >= 0);
        if (children[i] == 0) {
            run_threads();
            _exit(0);
        }
    }
    int64_t length = run_for();
    pthread_t clock;
    must(pthread_create(&clock, NULL, keep_time, &length) == 0);
    run_threads();
    pthread_join(clock, NULL);
    for (int i = 1; i < processes; i++) {
        int status;
        must(waitpid(children[i], &status, 0) == children[i] && status == 0);
    }
    weir_limit_snapshot now = WEIR_LIMIT_SNAPSHOT_INIT;
    must(weir_limit_get_snapshot(limit, &now) == WEIR_OK);
    print_message("%llu calls, at most %d at once, limit %llu, %llu shed\n",
                  (unsigned long long)now.admitted, the_board->most, (unsigned long long)now.limit,
                  (unsigned long long)now.shed);
    assert_int_equal(now.admitted, the_board->admitted);
    assert_int_equal(now.released + now.lost, now.admitted);
    assert_int_equal(now.in_flight, 0);
    assert_int_equal(now.used, 0);
    assert_int_equal(now.waiting, 0);
    assert_true(the_board->most > 0 && the_board->most <= CEILING);
    assert_true(now.peak <= CEILING);
    weir_limit_destroy(limit);
    munmap(the_board, sizeof *the_board);
}

static void the_bound_holds_while_the_limit_moves(void **state)
{
    (void)state;
    for (int algorithm = WEIR_LIMIT_FIXED; algorithm <= WEIR_LIMIT_GRADIENT2; algorithm++)
        run((weir_limit_algorithm)algorithm, NULL, 1, algorithm % 2);
}

static void the_bound_holds_for_processes_together(void **state)
{
    (void)state;
    char shared[32];
    snprintf(shared, sizeof shared, "stress.%d", (int)getpid());
    for (int algorithm = WEIR_LIMIT_FIXED; algorithm <= WEIR_LIMIT_GRADIENT2; algorithm++)
        run((weir_limit_algorithm)algorithm, shared, PROCESSES, algorithm % 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bound_holds_while_the_limit_moves),
        cmocka_unit_test(the_bound_holds_for_processes_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
