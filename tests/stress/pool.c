/* Submitters under every policy, cancels, discards, payloads of mixed sizes both ways, and somebody
 * who kills workers all the time.  A checker takes snapshots meanwhile: law and bound hold in each.
 * At the end each accepted tag has come back exactly once, and each reply was the right one.
 *
 * WEIR_STRESS_SECONDS (default 2) scales how long all cases together take. */
#include "contract/support.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/pool.h>

#define SUBMITTERS 4
#define WORKERS    3
#define BACKLOG    20
#define TASKS      (1u << 19)
#define SIZE_MAX_  600000u
#define LARGE      (8u << 20)
#define CASES      10 /* that share the time */

/* ---- workers -------------------------------------------------------------------------------- */

typedef struct order {
    uint32_t number, work_us, size, reply_size; /* size: of the whole payload */
} order;

static struct board {
    _Atomic uint32_t replying, gate_open;
} *board;

static unsigned char bytes_of[2][LARGE]; /* [0] in the worker, [1] where completions are checked */

static unsigned char pattern_at(uint32_t i, uint32_t number)
{
    return (unsigned char)(i + (i >> 8) * 3 + number * 7);
}

static bool is_pattern(const unsigned char *bytes, uint32_t from, uint64_t to, uint32_t number)
{
    for (uint32_t i = from; i < to; i++)
        if (bytes[i] != pattern_at(i, number))
            return false;
    return true;
}

static void fill(unsigned char *bytes, uint32_t size, uint32_t number)
{
    for (uint32_t i = 0; i < size; i++)
        bytes[i] = pattern_at(i, number);
}

static void spin(int64_t ns)
{
    for (weir_time end = weir_after(ns); weir_now() < end;)
        ;
}

static void serve(weir_worker *worker, const weir_task *task, void *ctx)
{
    (void)ctx;
    order what;
    must(task->size >= sizeof what);
    memcpy(&what, task->data, sizeof what);
    must(task->size == what.size);
    must(is_pattern(task->data, sizeof what, what.size, what.number));
    if (what.work_us == UINT32_MAX) { /* until the gate opens */
        while (!board->gate_open)
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    } else if (what.work_us > 0) {
        nanosleep(&(struct timespec){.tv_nsec = (long)what.work_us * 1000}, NULL);
    }
    fill(bytes_of[0], what.reply_size, what.number + 1);
    board->replying++;
    weir_bytes parts[] = {
        {bytes_of[0], what.reply_size / 3},
        {bytes_of[0] + what.reply_size / 3, what.reply_size - what.reply_size / 3}};
    weir_worker_reply(worker, (int32_t)what.number, parts, 2);
}

/* ---- what has become of each task --------------------------------------------------------------- */

static struct {
    weir_pool *pool;
    weir_pool_opts opts;
    bool kills;
    _Atomic bool stop, finished;
    _Atomic uint32_t next;
    _Atomic uint64_t accepted, replied, died, not_started, dropped, cancelled;
} run;

static _Atomic uint8_t came_back[TASKS];
static uint32_t reply_size_of[TASKS];

static void comes_back(const void *tag)
{
    must((uintptr_t)tag < TASKS);
    must(atomic_fetch_add(&came_back[(uintptr_t)tag], 1) == 0);
}

static _Thread_local bool in_call;

static void on_drop(void *tag, weir_drop_reason reason, void *ctx)
{
    (void)ctx;
    must(in_call);
    must(reason == WEIR_DROP_DISCARDED || reason == WEIR_DROP_NEWEST || reason == WEIR_DROP_OLDEST);
    comes_back(tag);
    run.dropped++;
}

static void take(const weir_completion *done)
{
    uint32_t n = (uint32_t)(uintptr_t)done->tag;
    comes_back(done->tag);
    switch (done->outcome) {
    case WEIR_OUTCOME_REPLIED:
        must(done->status == (int32_t)n && done->data_size == reply_size_of[n]);
        must(is_pattern(done->data, 0, done->data_size, n + 1));
        must(done->attempts >= 1 && done->attempts <= run.opts.retries + 1);
        run.replied++;
        break;
    case WEIR_OUTCOME_DIED:
        must(run.kills && done->exit.signal == SIGKILL);
        must(done->attempts == run.opts.retries + 1);
        run.died++;
        break;
    case WEIR_OUTCOME_NOT_STARTED: /* killed twenty times before they could begin one */
        must(run.kills);
        run.not_started++;
        break;
    default: must(!"no memory");
    }
}

/* ---- the threads ---------------------------------------------------------------------------- */

static uint32_t random_size(unsigned *seed)
{
    int kind = rand_r(seed) % 100;
    uint32_t n = (uint32_t)rand_r(seed);
    uint32_t below = kind < 80 ? 300 : kind < 95 ? 9000 : kind < 99 ? 200000 : SIZE_MAX_;
    return n % below;
}

static int submit(order what, unsigned char *buffer, weir_time deadline, uint64_t *id)
{
    what.number = run.next++;
    if (what.number >= TASKS)
        return WEIR_ECLOSED;
    what.size += (uint32_t)sizeof what;
    fill(buffer, what.size, what.number);
    memcpy(buffer, &what, sizeof what);
    reply_size_of[what.number] = what.reply_size;
    weir_bytes parts[] = {{buffer, 10}, {buffer + 10, what.size - 10}};
    in_call = true;
    int rc = weir_pool_submit(run.pool, parts, 2, number(what.number), deadline, id);
    in_call = false;
    run.accepted += rc >= 0;
    return rc == WEIR_KEPT ? (int)what.number : rc == WEIR_DROPPED ? -100 : rc;
}

static void *submits(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    unsigned char *buffer = malloc(SIZE_MAX_ + sizeof(order));
    must(buffer);
    while (!run.stop) {
        uint64_t id;
        order what = {0, rand_r(&seed) % 4 ? 0 : (uint32_t)rand_r(&seed) % 1000, random_size(&seed),
                      random_size(&seed)};
        int kind = rand_r(&seed) % 3;
        int rc = submit(what, buffer,
                        kind == 0   ? WEIR_FOREVER
                        : kind == 1 ? WEIR_POLL
                                    : weir_after(200000),
                        &id);
        if (rc == WEIR_ECLOSED)
            break;
        must(rc >= 0 || rc == -100 || rc == WEIR_EFULL || rc == WEIR_ETIMEDOUT);
        if (rc >= 0 && rand_r(&seed) % 8 == 0) {
            if (weir_pool_cancel(run.pool, id) == 0) {
                comes_back(number((uintptr_t)rc));
                run.cancelled++;
            }
            must(weir_pool_cancel(run.pool, id) == WEIR_ENOTASK ||
                 weir_pool_is_running(run.pool, id) <= 1);
        }
        if (rand_r(&seed) % 50 == 0 && weir_pool_admit_wait(run.pool, weir_after(100000)) == 0)
            weir_pool_unadmit(run.pool);
    }
    free(buffer);
    return NULL;
}

static void *collects(void *arg)
{
    unsigned seed = 5;
    weir_completion done[32];
    int64_t n;
    (void)arg;
    while ((n = weir_pool_collect(run.pool, done, 1 + (size_t)rand_r(&seed) % 32, WEIR_FOREVER)) >
           0) {
        for (int64_t i = 0; i < n; i++)
            take(&done[i]);
        if (rand_r(&seed) % 2)
            weir_pool_settle(run.pool, (size_t)n);
    }
    must(n == WEIR_ECLOSED);
    return NULL;
}

static void *watches(void *arg)
{
    (void)arg;
    while (!run.finished) {
        weir_pool_snapshot now = WEIR_POOL_SNAPSHOT_INIT;
        must(weir_pool_get_snapshot(run.pool, &now) == WEIR_OK);
        must(now.accepted ==
             now.completed + total(now.dropped) + now.cancelled + now.waiting + now.running);
        must(now.waiting + now.running <= BACKLOG + WORKERS && now.workers_alive <= WORKERS);
        must(now.running <= WORKERS * 128);
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
    return NULL;
}

static void *kills(void *arg)
{
    unsigned seed = 9;
    (void)arg;
    while (!run.stop) { /* every few milliseconds */
        pid_t pids[WORKERS];
        size_t n = weir_pool_pids(run.pool, pids, WORKERS);
        if (n > 0)
            kill(pids[(unsigned)rand_r(&seed) % n], SIGKILL);
        nanosleep(&(struct timespec){.tv_nsec = 2000000 + rand_r(&seed) % 6000000}, NULL);
    }
    return NULL;
}

static void *discards(void *arg)
{
    (void)arg;
    in_call = true;
    while (!run.stop) {
        weir_pool_discard(run.pool);
        nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
    }
    return NULL;
}

/* ---- the cases ------------------------------------------------------------------------------ */

static double seconds(void)
{
    const char *asked = getenv("WEIR_STRESS_SECONDS");
    double value = asked ? strtod(asked, NULL) : 0;
    return value > 0 ? value : 2;
}

static const char *what_runs;

static void give_up(int signal)
{
    (void)signal;
    static const char text[] = "stress/pool hangs in: ";
    ssize_t rc = write(2, text, sizeof text - 1);
    rc = write(2, what_runs, strlen(what_runs));
    rc = write(2, "\n", 1);
    (void)rc;
    abort();
}

static void begin(const char *name, weir_overflow overflow, unsigned retries)
{
    what_runs = name;
    signal(SIGALRM, give_up);
    alarm(40 + (unsigned)seconds());
    memset(&run, 0, sizeof run);
    memset(board, 0, sizeof *board);
    for (uint32_t i = 0; i < TASKS; i++)
        came_back[i] = 0;
    run.opts = (weir_pool_opts)WEIR_POOL_OPTS_INIT;
    run.opts.workers = WORKERS;
    run.opts.backlog = BACKLOG;
    run.opts.overflow = overflow;
    run.opts.retries = retries;
    run.opts.on_drop = on_drop;
    run.opts.handler = serve;
}

static void create(void)
{
    assert_int_equal(weir_pool_create(&run.pool, &run.opts), WEIR_OK);
}

static void destroy(void)
{
    in_call = true;
    weir_pool_destroy(run.pool);
    in_call = false;
    uint64_t back = 0;
    for (uint32_t i = 0; i < TASKS; i++)
        back += came_back[i];
    assert_int_equal(back, run.accepted);
    assert_int_equal(run.replied + run.died + run.not_started + run.dropped + run.cancelled,
                     run.accepted);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    alarm(0);
}

static void start(pthread_t *thread, void *(*fn)(void *), uintptr_t arg)
{
    must(pthread_create(thread, NULL, fn, number(arg)) == 0);
}

static void rush(bool killing, bool discarding, uint64_t tasks_per_worker)
{
    pthread_t submitters[SUBMITTERS], collector, checker, killer, discarder;
    run.kills = killing;
    run.opts.tasks_per_worker = tasks_per_worker;
    create();
    start(&checker, watches, 0);
    start(&collector, collects, 0);
    if (killing)
        start(&killer, kills, 0);
    if (discarding)
        start(&discarder, discards, 0);
    for (uintptr_t i = 0; i < SUBMITTERS; i++)
        start(&submitters[i], submits, i + 1);
    weir_time until = weir_after((int64_t)(seconds() / CASES * (double)WEIR_SECOND));
    while (weir_now() < until)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    if (discarding)
        weir_pool_close(run.pool); /* while all of them are at it */
    run.stop = true;
    for (int i = 0; i < SUBMITTERS; i++)
        pthread_join(submitters[i], NULL);
    if (killing)
        pthread_join(killer, NULL);
    if (discarding)
        pthread_join(discarder, NULL);
    weir_pool_close(run.pool);
    pthread_join(collector, NULL);
    run.finished = true;
    pthread_join(checker, NULL);
    assert_true(run.accepted > 0);
    destroy();
}

#define RUSH(name, overflow, killing, retries, discarding, tasks_per_worker)                       \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        begin(#name, overflow, retries);                                                           \
        rush(killing, discarding, tasks_per_worker);                                               \
    }

RUSH(every_tag_comes_back_once_when_submits_block, WEIR_OVERFLOW_BLOCK, false, 0, false, 0)
RUSH(every_tag_comes_back_once_when_submits_fail, WEIR_OVERFLOW_FAIL, false, 0, false, 0)
RUSH(every_tag_comes_back_once_when_the_newest_is_dropped, WEIR_OVERFLOW_DROP_NEWEST, true, 0,
     false, 0)
RUSH(every_tag_comes_back_once_when_the_oldest_is_dropped, WEIR_OVERFLOW_DROP_OLDEST, false, 0,
     true, 0)
RUSH(every_tag_comes_back_once_when_workers_are_killed, WEIR_OVERFLOW_BLOCK, true, 0, false, 0)
RUSH(every_tag_comes_back_once_when_workers_are_killed_and_tasks_run_again, WEIR_OVERFLOW_BLOCK,
     true, 3, false, 0)
RUSH(every_tag_comes_back_once_when_workers_are_killed_and_tasks_discarded, WEIR_OVERFLOW_FAIL,
     true, 1, true, 0)
RUSH(every_tag_comes_back_once_when_workers_are_replaced, WEIR_OVERFLOW_BLOCK, false, 0, true, 5)
RUSH(every_tag_comes_back_once_whatever_happens, WEIR_OVERFLOW_DROP_OLDEST, true, 1, true, 7)

static void collect_one(void)
{
    weir_completion done;
    must(weir_pool_collect(run.pool, &done, 1, weir_after(PATIENCE)) == 1);
    take(&done);
}

static int submit_small(uint32_t work_us, uint32_t reply_size)
{
    static unsigned char buffer[1000];
    return submit((order){0, work_us, 100, reply_size}, buffer, WEIR_POLL, NULL);
}

static uint64_t shm_bytes(void)
{
    weir_pool_snapshot now = WEIR_POOL_SNAPSHOT_INIT;
    must(weir_pool_get_snapshot(run.pool, &now) == WEIR_OK);
    return now.shm_bytes;
}

static void a_worker_killed_in_the_middle_of_a_large_reply_leaves_nothing(void **state)
{
    (void)state;
    begin(__func__, WEIR_OVERFLOW_BLOCK, 0);
    run.opts.workers = 1;
    run.kills = true;
    create();
    unsigned seed = 3;
    for (int i = 0; i < 40; i++) {
        pid_t pid;
        uint32_t before = board->replying;
        must(submit_small(0, LARGE) >= 0);
        weir_completion done;
        int64_t n = 0;
        while (n != 1 && board->replying == before) /* the pool runs until the reply has begun */
            n = weir_pool_collect(run.pool, &done, 1, weir_after(WEIR_MILLISECOND / 10));
        if (n != 1)
            n = weir_pool_collect(run.pool, &done, 1, WEIR_POLL); /* gives it a block */
        if (n != 1 && weir_pool_pids(run.pool, &pid, 1) == 1) {
            spin(rand_r(&seed) % 6000000);
            kill(pid, SIGKILL);
            n = weir_pool_collect(run.pool, &done, 1, weir_after(PATIENCE));
        }
        must(n == 1);
        take(&done);
    }
    assert_true(run.died > 0);
    must(submit_small(0, 100) >= 0);
    collect_one();
    assert_true(shm_bytes() < (24u << 20)); /* 16 MiB are kept for the next */
    weir_pool_close(run.pool);
    destroy();
}

static void a_stopped_worker_delays_at_most_the_task_it_has_begun(void **state)
{
    (void)state;
    begin(__func__, WEIR_OVERFLOW_BLOCK, 0);
    create();
    pid_t pids[WORKERS];
    for (int i = 0; i < WORKERS; i++) /* all are there */
        must(submit_small(UINT32_MAX, 10) >= 0);
    weir_completion done;
    while (weir_pool_pids(run.pool, pids, WORKERS) < WORKERS)
        must(weir_pool_collect(run.pool, &done, 1, weir_after(WEIR_MILLISECOND)) == WEIR_ETIMEDOUT);
    board->gate_open = 1;
    for (int i = 0; i < WORKERS; i++)
        collect_one();
    for (int round = 0; round < 20; round++) {
        pid_t stopped = pids[round % WORKERS];
        for (int i = 0; i < BACKLOG; i++)
            must(submit_small(200, 300) >= 0);
        kill(stopped, SIGSTOP); /* at any instruction */
        for (int i = 0; i < BACKLOG - 1; i++)
            collect_one();
        kill(stopped, SIGCONT);
        collect_one();
    }
    weir_pool_close(run.pool);
    destroy();
}

int main(int argc, char **argv)
{
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(board != MAP_FAILED);
    if (argc == 2)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tag_comes_back_once_when_submits_block),
        cmocka_unit_test(every_tag_comes_back_once_when_submits_fail),
        cmocka_unit_test(every_tag_comes_back_once_when_the_newest_is_dropped),
        cmocka_unit_test(every_tag_comes_back_once_when_the_oldest_is_dropped),
        cmocka_unit_test(every_tag_comes_back_once_when_workers_are_killed),
        cmocka_unit_test(every_tag_comes_back_once_when_workers_are_killed_and_tasks_run_again),
        cmocka_unit_test(every_tag_comes_back_once_when_workers_are_killed_and_tasks_discarded),
        cmocka_unit_test(every_tag_comes_back_once_when_workers_are_replaced),
        cmocka_unit_test(every_tag_comes_back_once_whatever_happens),
        cmocka_unit_test(a_worker_killed_in_the_middle_of_a_large_reply_leaves_nothing),
        cmocka_unit_test(a_stopped_worker_delays_at_most_the_task_it_has_begun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
