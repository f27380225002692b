/* Four processes with eight threads each on one shared bucket, which take, wait in line and leave it;
 * then some that are killed all the time.  Of all that was taken the instants are known at which it
 * was decided: no window of them holds more than rate x window + burst.
 *
 * WEIR_STRESS_SECONDS (default 2) scales how long all cases together take. */
#include "contract/support.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/rate.h>

#include "flow/bucket.h"

#if defined(__SANITIZE_THREAD__)
#define PROCESSES 1 /* it sees the threads of one process; the others would only be slow */
#else
#define PROCESSES 4
#endif
#define THREADS 8
#define GRANTS  (1u << 17)

typedef struct grant {
    _Atomic int64_t at; /* 0: not written: its thread was killed */
    uint64_t tokens;
} grant;

/* In memory that all of them share. */
typedef struct board {
    _Atomic bool stop;
    _Atomic uint32_t n;
    _Atomic uint64_t tokens;
    grant grants[GRANTS];
} board;

static board *the_board;
static weir__bucket the_bucket;
static weir_rate *the_rate;

static void fresh_board(void)
{
    if (the_board)
        munmap(the_board, sizeof *the_board);
    the_board =
        mmap(NULL, sizeof *the_board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(the_board != MAP_FAILED);
}

static int64_t milliseconds(void)
{
    const char *asked = getenv("WEIR_STRESS_SECONDS");
    return (int64_t)((asked ? atof(asked) : 2.0) * 1000);
}

static const char *name_of_bucket(void)
{
    static char name[40];
    snprintf(name, sizeof name, "stress.%d", (int)getpid());
    return name;
}

/* ---- the bucket, with the instants --------------------------------------------------------- */

static void note(weir_time at, uint64_t tokens)
{
    uint32_t n = atomic_fetch_add(&the_board->n, 1);
    if (n >= GRANTS)
        return;
    the_board->grants[n].tokens = tokens;
    atomic_store(&the_board->grants[n].at, at);
}

static void wait_in_line(uint64_t tokens, unsigned patience)
{
    weir__turn turn = WEIR__NO_TURN;
    weir_time at, now = weir_now();
    weir__bucket_enter(&the_bucket, &turn, tokens * WEIR__TOKEN);
    for (unsigned i = 0; i < patience && !the_board->stop; i++) {
        if (weir__bucket_take(&the_bucket, &turn, tokens * WEIR__TOKEN, 0, now, &at)) {
            note(now, tokens);
            break;
        }
        if (at > now)
            nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
        now = weir_now();
    }
    weir__bucket_leave(&the_bucket, &turn);
}

static void *take_all_the_time(void *arg)
{
    unsigned seed = (unsigned)getpid() * 31 + (unsigned)(uintptr_t)arg;
    while (!the_board->stop && the_board->n < GRANTS) {
        uint64_t tokens = 1 + (uint64_t)rand_r(&seed) % 20;
        unsigned what = (unsigned)rand_r(&seed) % 4;
        weir_time now = weir_now();
        if (what == 0)
            wait_in_line(tokens, 1 + (unsigned)rand_r(&seed) % 100);
        else if (weir__bucket_try(&the_bucket, tokens * WEIR__TOKEN, now))
            note(now, tokens);
        if (what == 3)
            nanosleep(&(struct timespec){.tv_nsec = 100000 * (rand_r(&seed) % 20)}, NULL);
    }
    return NULL;
}

static void run_threads(void *(*fn)(void *))
{
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, fn, (void *)i) == 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static pid_t start_process(void *(*fn)(void *), weir__named *named)
{
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        if (named)
            the_bucket.seat = (unsigned)weir__named_seat(named);
        run_threads(fn);
        _exit(0);
    }
    return pid;
}

static void join_process(pid_t pid)
{
    int status;
    must(waitpid(pid, &status, 0) == pid);
    must(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static int by_time(const void *a, const void *b)
{
    const grant *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* For each grant: how far the sum of all so far is ahead of the rate may rise by a burst and no more
 * above the lowest it was before.  That is all windows in one pass, in millionths of a token. */
static void check_windows(uint64_t rate, uint64_t burst)
{
    uint32_t n = the_board->n < GRANTS ? (uint32_t)the_board->n : GRANTS;
    qsort(the_board->grants, n, sizeof(grant), by_time);
    double lowest = 0, sum = 0, worst = 0;
    weir_time first = 0;
    for (uint32_t i = 0; i < n; i++) {
        const grant *g = &the_board->grants[i];
        if (g->at == 0)
            continue;
        if (!first)
            first = g->at;
        double made = (double)(g->at - first) * (double)rate / 1e9;
        if (sum - made < lowest)
            lowest = sum - made;
        sum += (double)g->tokens;
        if (sum - made - lowest > worst)
            worst = sum - made - lowest;
    }
    printf("           %u grants, %.0f tokens; most in a window: rate x window + %.6f\n", n, sum,
           worst);
    assert_true(sum > (double)burst);
    assert_true(worst <= (double)burst + 2e-6);
}

static void run_buckets(bool killing)
{
    enum { RATE = 20000, BURST = 50 };
    weir__rate_terms terms = {
        .t0 = weir_now(), .rate = RATE, .per_ns = WEIR_SECOND, .burst = BURST * WEIR__TOKEN};
    weir__named *named;
    must(weir__named_open(&named, "rate", name_of_bucket(), &weir__bucket_ops, &terms) == WEIR_OK);
    the_bucket = (weir__bucket){.page = weir__named_data(named), .named = named};
    the_bucket.seat = (unsigned)weir__named_seat(named);
    weir__bucket_begin_counting(&the_bucket, NULL, NULL);
    fresh_board();
    pid_t pids[PROCESSES] = {0};
    unsigned kills = 0;
    for (int i = 1; i < PROCESSES; i++)
        pids[i] = start_process(take_all_the_time, named);
    pthread_t here;
    if (PROCESSES == 1)
        must(pthread_create(&here, NULL, take_all_the_time, NULL) == 0);
    weir_time until = weir_after(milliseconds() * WEIR_MILLISECOND / 3);
    while (weir_now() < until) {
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        if (!killing || PROCESSES == 1)
            continue;
        int which = 1 + (int)(kills++ % (PROCESSES > 1 ? PROCESSES - 1 : 1));
        must(kill(pids[which], SIGKILL) == 0 && waitpid(pids[which], NULL, 0) == pids[which]);
        pids[which] = start_process(take_all_the_time, named);
    }
    the_board->stop = true;
    for (int i = 1; i < PROCESSES; i++)
        join_process(pids[i]);
    if (PROCESSES == 1)
        pthread_join(here, NULL);
    check_windows(RATE, BURST);
    /* Whoever was killed in line holds nobody up. */
    soon(weir__bucket_try(&the_bucket, BURST * WEIR__TOKEN, weir_now()));
    soon(weir__bucket_level(&the_bucket, weir_now()) >= BURST * (int64_t)WEIR__TOKEN);
    weir__named_close(named);
}

static void no_window_of_many_processes_holds_too_much(void **state)
{
    (void)state;
    run_buckets(false);
}

static void nor_does_one_when_processes_are_killed_all_the_time(void **state)
{
    (void)state;
    run_buckets(true);
}

/* ---- waiting -------------------------------------------------------------------------------- */

static _Atomic uint64_t *the_sum;

static void *acquire_all_the_time(void *arg)
{
    unsigned seed = (unsigned)getpid() * 31 + (unsigned)(uintptr_t)arg;
    while (!the_board->stop) {
        uint64_t tokens = rand_r(&seed) % 16 ? 1 : 10;
        weir_time patience = rand_r(&seed) % 4 ? WEIR_FOREVER : weir_after(20 * WEIR_MILLISECOND);
        int rc = weir_rate_acquire(the_rate, tokens, patience);
        must(rc == WEIR_OK || rc == WEIR_ETIMEDOUT || rc == WEIR_EFULL);
        if (rc == WEIR_OK)
            atomic_fetch_add(the_sum, tokens);
    }
    return NULL;
}

static void processes_that_wait_get_the_whole_rate_and_keep_the_law(void **state)
{
    (void)state;
    enum { RATE = 2000, BURST = 40 };
    weir_rate_opts opts = WEIR_RATE_OPTS_INIT;
    opts.rate = RATE;
    opts.burst = BURST;
    opts.shared = name_of_bucket();
    weir_time began = weir_now();
    must(weir_rate_create(&the_rate, &opts) == WEIR_OK);
    fresh_board();
    the_sum = &the_board->tokens;
    pid_t pids[PROCESSES];
    for (int i = 1; i < PROCESSES; i++)
        pids[i] = start_process(acquire_all_the_time, NULL);
    pthread_t here;
    if (PROCESSES == 1)
        must(pthread_create(&here, NULL, acquire_all_the_time, NULL) == 0);
    nanosleep(&(struct timespec){.tv_sec = milliseconds() / 3000,
                                 .tv_nsec = milliseconds() / 3 % 1000 * 1000000},
              NULL);
    the_board->stop = true;
    for (int i = 1; i < PROCESSES; i++)
        join_process(pids[i]);
    if (PROCESSES == 1)
        pthread_join(here, NULL);
    double possible = (double)(weir_now() - began) * RATE / 1e9 + BURST;
    weir_rate_snapshot now = WEIR_RATE_SNAPSHOT_INIT;
    must(weir_rate_get_snapshot(the_rate, &now) == WEIR_OK);
    printf("           %llu tokens of %.0f\n", (unsigned long long)now.granted, possible);
    assert_int_equal(now.granted, *the_sum);
    assert_true((double)now.granted <= possible);
    assert_int_equal(now.waiting, 0);
    must(weir_rate_set(the_rate, 1000000, 1000, 1) == WEIR_OK);
    weir_rate_destroy(the_rate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_window_of_many_processes_holds_too_much),
        cmocka_unit_test(nor_does_one_when_processes_are_killed_all_the_time),
        cmocka_unit_test(processes_that_wait_get_the_whole_rate_and_keep_the_law),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
