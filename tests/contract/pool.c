/* Every sentence of <weir/pool.h> and <weir/worker.h>, seen from outside.
 *
 * While a test has a pool, a checker thread takes snapshots of it: the law and the bound hold in
 * each.  When the pool is destroyed, no descriptor and no process is left. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/pool.h>

extern char **environ;

/* ---- what a task asks of its worker --------------------------------------------------------- */

enum {
    ECHO,    /* reply with the task's own bytes; so does whatever is too short for an order */
    HOLD,    /* wait until the gate is open, then reply */
    PATTERN, /* reply with n bytes */
    PID,     /* reply with the process id */
    EXIT,    /* exit with arg */
    RAISE,   /* raise signal arg */
    RAISE_AT_FIRST, /* raise SIGKILL the first arg times, then reply */
    HOLD_AND_DIE,   /* wait until the gate is open, then raise SIGKILL */
    REPLY_TWICE,    /* the second must be refused */
    FORGET,         /* return without a reply */
};

typedef struct order {
    uint32_t op, arg;
    uint64_t n;
} order;

/* Memory that the test shares with its workers. */
static struct board {
    _Atomic uint32_t begun, replied, gate_open, deaths, notes;
    _Atomic int last_rc;
} *board;

static unsigned char pattern_at(uint64_t i, uint32_t seed)
{
    return (unsigned char)(i * 31 + (i >> 8) * 7 + (i >> 16) + seed);
}

static void fill_pattern(unsigned char *bytes, uint64_t n, uint32_t seed)
{
    for (uint64_t i = 0; i < n; i++)
        bytes[i] = pattern_at(i, seed);
}

static bool is_pattern(const unsigned char *bytes, uint64_t n, uint32_t seed)
{
    for (uint64_t i = 0; i < n; i++)
        if (bytes[i] != pattern_at(i, seed))
            return false;
    return true;
}

static void wait_for_the_gate(void)
{
    while (!board->gate_open)
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

static int reply_pattern(weir_worker *worker, uint64_t n, uint32_t seed)
{
    unsigned char *bytes = malloc(n + 1);
    must(bytes);
    fill_pattern(bytes, n, seed);
    weir_bytes part = {bytes, n};
    int rc = weir_worker_reply(worker, (int32_t)seed, &part, 1);
    free(bytes);
    return rc;
}

static void serve(weir_worker *worker, const weir_task *task, void *ctx)
{
    (void)ctx;
    order what = {0};
    weir_bytes whole = {task->data, task->size};
    pid_t pid = getpid();
    if (task->size >= sizeof what)
        memcpy(&what, task->data, sizeof what);
    if (board)
        board->begun++;
    switch (what.op) {
    case PATTERN: board->last_rc = reply_pattern(worker, what.n, what.arg); break;
    case PID: weir_worker_reply(worker, 0, &(weir_bytes){&pid, sizeof pid}, 1); break;
    case EXIT: _exit((int)what.arg);
    case HOLD_AND_DIE:
        wait_for_the_gate();
        raise(SIGKILL);
        break;
    case RAISE: raise((int)what.arg); break;
    case RAISE_AT_FIRST:
        if (atomic_fetch_add(&board->deaths, 1) < what.arg)
            raise(SIGKILL);
        weir_worker_reply(worker, 0, &whole, 1);
        break;
    case REPLY_TWICE:
        weir_worker_reply(worker, 1, &whole, 1);
        board->last_rc = weir_worker_reply(worker, 2, &whole, 1);
        break;
    case FORGET: break;
    case HOLD:
        wait_for_the_gate(); /* and echo */
        /* fall through */
    default: weir_worker_reply(worker, (int32_t)what.arg, &whole, 1);
    }
    if (board)
        board->replied++;
}

/* ---- a pool, and what it dropped ------------------------------------------------------------ */

#define TAGS_MAX 5000

static struct {
    pthread_mutex_t mutex;
    size_t n;
    uintptr_t tags[TAGS_MAX];
    weir_drop_reason reasons[TAGS_MAX];
} dropped = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void note_drop(void *tag, weir_drop_reason reason, void *ctx)
{
    (void)ctx;
    pthread_mutex_lock(&dropped.mutex);
    must(dropped.n < TAGS_MAX);
    dropped.tags[dropped.n] = (uintptr_t)tag;
    dropped.reasons[dropped.n++] = reason;
    pthread_mutex_unlock(&dropped.mutex);
}

static weir_pool_snapshot look_at(weir_pool *pool)
{
    weir_pool_snapshot now = WEIR_POOL_SNAPSHOT_INIT;
    must(weir_pool_get_snapshot(pool, &now) == WEIR_OK);
    return now;
}

static void must_obey_the_law(const weir_pool_snapshot *now)
{
    must(now->accepted ==
         now->completed + total(now->dropped) + now->cancelled + now->waiting + now->running);
    must(now->backlog == WEIR_UNBOUNDED ||
         now->waiting + now->running <= now->backlog + now->workers);
    must(now->workers_alive <= now->workers);
}

static struct {
    weir_pool *pool;
    pthread_t thread;
    _Atomic bool stop;
    int fds_before;
} checker;

static void *check(void *arg)
{
    (void)arg;
    while (!checker.stop) {
        weir_pool_snapshot now = look_at(checker.pool);
        must_obey_the_law(&now);
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
    return NULL;
}

static int count_fds(void)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/fd");
    must(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static weir_pool_opts options(unsigned workers, size_t backlog)
{
    weir_pool_opts opts = WEIR_POOL_OPTS_INIT;
    opts.workers = workers;
    opts.backlog = backlog;
    opts.on_drop = note_drop;
    opts.handler = serve;
    return opts;
}

static weir_pool *make(weir_pool_opts opts)
{
    weir_pool *pool = NULL;
    dropped.n = 0;
    memset(board, 0, sizeof *board);
    checker.fds_before = count_fds();
    assert_int_equal(weir_pool_create(&pool, &opts), WEIR_OK);
    checker.pool = pool;
    checker.stop = false;
    must(pthread_create(&checker.thread, NULL, check, NULL) == 0);
    return pool;
}

static weir_pool *plain(unsigned workers, size_t backlog)
{
    return make(options(workers, backlog));
}

static weir_pool *with_policy(unsigned workers, size_t backlog, weir_overflow overflow)
{
    weir_pool_opts opts = options(workers, backlog);
    opts.overflow = overflow;
    return make(opts);
}

/* Destroys the pool; nothing of it is left. */
static void end(weir_pool *pool)
{
    checker.stop = true;
    pthread_join(checker.thread, NULL);
    weir_pool_snapshot now = look_at(pool);
    must_obey_the_law(&now);
    weir_pool_destroy(pool);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    assert_int_equal(count_fds(), checker.fds_before);
}

/* ---- submitting and collecting -------------------------------------------------------------- */

static int submit_until(weir_pool *pool, uintptr_t tag, order what, weir_time deadline,
                        uint64_t *id)
{
    weir_bytes part = {&what, sizeof what};
    return weir_pool_submit(pool, &part, 1, number(tag), deadline, id);
}

static int submit(weir_pool *pool, uintptr_t tag, order what)
{
    return submit_until(pool, tag, what, WEIR_POLL, NULL);
}

static uint64_t submit_id(weir_pool *pool, uintptr_t tag, order what)
{
    uint64_t id = 0;
    assert_int_equal(submit_until(pool, tag, what, WEIR_POLL, &id), WEIR_KEPT);
    return id;
}

/* The next completion. */
static weir_completion one(weir_pool *pool)
{
    weir_completion done;
    int64_t rc = weir_pool_collect(pool, &done, 1, weir_after(PATIENCE));
    if (rc != 1)
        fail_msg("collect returned %lld (%s)", (long long)rc, weir_error_name((int)rc));
    return done;
}

static void expect_reply(weir_pool *pool, uintptr_t tag)
{
    weir_completion done = one(pool);
    assert_int_equal(done.outcome, WEIR_OUTCOME_REPLIED);
    assert_int_equal(done.tag, tag);
}

/* Runs the pool until the condition holds; nothing completes until then. */
#define until(pool, condition)                                                                     \
    do {                                                                                           \
        weir_time give_up_ = weir_after(PATIENCE);                                                 \
        while (!(condition)) {                                                                     \
            weir_completion done_;                                                                 \
            must(weir_now() < give_up_ && "until: " #condition);                                   \
            must(weir_pool_collect(pool, &done_, 1, weir_after(WEIR_MILLISECOND)) ==               \
                 WEIR_ETIMEDOUT);                                                                  \
        }                                                                                          \
    } while (0)

static void assert_dropped(uintptr_t from, uintptr_t to, weir_drop_reason reason)
{
    assert_int_equal(dropped.n, to - from + 1);
    for (size_t i = 0; i < dropped.n; i++) {
        assert_int_equal(dropped.tags[i], from + i);
        assert_int_equal(dropped.reasons[i], reason);
    }
}

/* A submit on a thread of its own. */
typedef struct submitter {
    weir_pool *pool;
    uintptr_t tag;
    order what;
    weir_time deadline;
    weir_interrupt_fn *hook;
    void *hook_ctx;
    bool by_admit_wait;
    int rc;
    pthread_t thread;
} submitter;

static void *other_submits(void *arg)
{
    submitter *s = arg;
    weir_set_interrupt(s->hook, s->hook_ctx);
    if (!s->by_admit_wait) {
        s->rc = submit_until(s->pool, s->tag, s->what, s->deadline, NULL);
        return NULL;
    }
    s->rc = weir_pool_admit_wait(s->pool, s->deadline);
    if (s->rc == WEIR_KEPT)
        weir_pool_unadmit(s->pool);
    return NULL;
}

static void start_submit(submitter *s)
{
    must(pthread_create(&s->thread, NULL, other_submits, s) == 0);
}

/* Returns when the submit waits in line. */
static void start_waiting_submit(submitter *s)
{
    size_t before = look_at(s->pool).submitters_waiting;
    start_submit(s);
    soon(look_at(s->pool).submitters_waiting == before + 1);
}

static int join(submitter *s)
{
    pthread_join(s->thread, NULL);
    return s->rc;
}

/* Collects on a thread of its own until the pool is closed and empty. */
typedef struct collecting {
    weir_pool *pool;
    _Atomic uint32_t n, replied, died, not_started;
    _Atomic int64_t rc;
    _Atomic pid_t tid;
    pthread_t thread;
} collecting;

static void *other_collects(void *arg)
{
    collecting *c = arg;
    weir_completion done[16];
    int64_t n;
    c->tid = gettid();
    while ((n = weir_pool_collect(c->pool, done, 16, WEIR_FOREVER)) > 0) {
        for (int64_t i = 0; i < n; i++) {
            c->replied += done[i].outcome == WEIR_OUTCOME_REPLIED;
            c->died += done[i].outcome == WEIR_OUTCOME_DIED;
            c->not_started += done[i].outcome == WEIR_OUTCOME_NOT_STARTED;
        }
        c->n += (uint32_t)n;
        weir_pool_settle(c->pool, (size_t)n);
    }
    c->rc = n;
    return NULL;
}

static void start_collecting(collecting *c, weir_pool *pool)
{
    memset(c, 0, sizeof *c);
    c->pool = pool;
    must(pthread_create(&c->thread, NULL, other_collects, c) == 0);
}

/* Whether a process or thread (by its directory in /proc) has the state, as ps shows it. */
static bool has_state(const char *path, char state)
{
    char line[512];
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    char *got = fgets(line, sizeof line, file);
    fclose(file);
    char *name_end = got ? strrchr(line, ')') : NULL;
    return name_end && name_end[2] == state;
}

static bool sleeps(pid_t tid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    for (int i = 0; i < 20; i++) /* and not only for a moment */
        if (tid == 0 || !has_state(path, 'S'))
            return false;
    return true;
}

static int64_t stop_collecting(collecting *c)
{
    pthread_join(c->thread, NULL);
    return c->rc;
}

/* One worker runs task 1 and holds it; the pool is full: task 2 ... backlog + 1 wait. */
static void hold_and_fill(weir_pool *pool)
{
    uint32_t begun = board->begun;
    assert_int_equal(submit(pool, 1, (order){HOLD}), WEIR_KEPT);
    until(pool, board->begun == begun + 1);
    size_t limit = look_at(pool).backlog + look_at(pool).workers;
    for (uintptr_t tag = 2; tag <= limit; tag++)
        assert_int_equal(submit(pool, tag, (order){ECHO}), WEIR_KEPT);
}

/* ---- a backlog that finds its own size ------------------------------------------------------- */

static void *submits_without_end(void *arg)
{
    submitter *s = arg;
    while ((s->rc = submit_until(s->pool, 1, (order){ECHO}, WEIR_FOREVER, NULL)) == WEIR_KEPT)
        ;
    return NULL;
}

static void an_auto_backlog_grows_while_producers_wait_and_workers_idle(void **state)
{
    (void)state;
    weir_pool *pool = plain(2, WEIR_AUTO);
    weir_pool_snapshot now = look_at(pool);
    assert_int_equal(now.backlog, 4);
    assert_non_null(now.backlog_why);
    submitter s = {.pool = pool};
    must(pthread_create(&s.thread, NULL, submits_without_end, &s) == 0);
    weir_time give_up = weir_after(PATIENCE);
    while (look_at(pool).backlog < 64) {
        weir_completion done[64];
        must(weir_now() < give_up);
        weir_pool_collect(pool, done, 64, weir_after(WEIR_MILLISECOND));
    }
    weir_pool_close(pool);
    assert_int_equal(join(&s), WEIR_ECLOSED);
    end(pool);
}

static void a_backlog_that_is_given_stays_and_has_no_reason(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 5);
    assert_int_equal(look_at(pool).backlog, 5);
    assert_null(look_at(pool).backlog_why);
    end(pool);
}

/* ---- options -------------------------------------------------------------------------------- */

static int start_nothing(void *ctx, unsigned seat, pid_t *ret_pid)
{
    (void)ctx, (void)seat, (void)ret_pid;
    return WEIR_ESPAWN;
}

static void reap_nothing(void *ctx, unsigned seat, weir_exit *exit)
{
    (void)ctx, (void)seat, (void)exit;
}

static void create_refuses_every_option_out_of_range(void **state)
{
    (void)state;
    weir_pool_opts opts;
    weir_pool *pool = (weir_pool *)&opts;
#define REFUSES(change)                                                                            \
    opts = options(2, 2);                                                                          \
    change;                                                                                        \
    assert_int_equal(weir_pool_create(&pool, &opts), WEIR_EINVAL);                                 \
    assert_ptr_equal(pool, &opts) /* outputs change only on success */
    REFUSES(opts.size = 0);
    REFUSES(opts.size -= 1);
    REFUSES(opts.backlog = 0);
    REFUSES(opts.workers = 4097);
    REFUSES(opts.workers = UINT32_MAX);
    REFUSES(opts.overflow = (weir_overflow)-1);
    REFUSES(opts.overflow = WEIR_OVERFLOW_SAMPLE);
    REFUSES(opts.overflow = (weir_overflow)99);
    REFUSES(opts.on_drop = NULL);
    REFUSES(opts.handler = NULL);
    REFUSES(opts.start = start_nothing);
    REFUSES(opts.reap = reap_nothing);
    REFUSES(opts.handler = NULL; opts.start = start_nothing);
    REFUSES(opts.handler = NULL; opts.reap = reap_nothing);
#undef REFUSES
    assert_int_equal(weir_pool_create(&pool, NULL), WEIR_EINVAL);
}

static void create_takes_the_smallest_and_the_largest_bounds(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 1);
    assert_int_equal(look_at(pool).workers, 1);
    assert_int_equal(look_at(pool).backlog, 1);
    end(pool);
    pool = plain(4096, WEIR_UNBOUNDED);
    assert_int_equal(look_at(pool).workers, 4096);
    assert_true(look_at(pool).backlog == WEIR_UNBOUNDED);
    for (uintptr_t i = 0; i < 1000; i++)
        assert_int_equal(submit(pool, i, (order){ECHO}), WEIR_KEPT);
    end(pool);
    assert_int_equal(dropped.n, 1000);
    pool = plain(1, WEIR_UNBOUNDED - 1); /* backlog + workers does not wrap round */
    assert_int_equal(submit(pool, 1, (order){ECHO}), WEIR_KEPT);
    assert_int_equal(submit(pool, 2, (order){ECHO}), WEIR_KEPT);
    assert_int_equal(submit(pool, 3, (order){ECHO}), WEIR_KEPT);
    end(pool);
}

static void workers_0_means_as_many_as_cpus_this_process_may_use(void **state)
{
    (void)state;
    cpu_set_t set;
    must(sched_getaffinity(0, sizeof set, &set) == 0);
    weir_pool *pool = plain(0, 1);
    assert_int_equal(look_at(pool).workers, CPU_COUNT(&set));
    end(pool);
}

static void destroy_takes_null(void **state)
{
    (void)state;
    weir_pool_destroy(NULL);
}

static void workers_may_be_started_early_in_the_calling_thread(void **state)
{
    (void)state;
    weir_pool *pool = plain(3, 4);
    pid_t pids[4];
    assert_int_equal(weir_pool_start_workers(pool, 2), 2);
    assert_int_equal(weir_pool_pids(pool, pids, 4), 2);
    assert_int_equal(weir_pool_start_workers(pool, 100), 3); /* never more than the pool's */
    assert_int_equal(weir_pool_start_workers(pool, 1), 3);
    for (uintptr_t tag = 1; tag <= 3; tag++)
        submit(pool, tag, (order){ECHO});
    for (int i = 0; i < 3; i++)
        assert_int_equal(one(pool).outcome, WEIR_OUTCOME_REPLIED);
    assert_int_equal(look_at(pool).workers_started, 3);
    end(pool);
    pool = plain(1, 1);
    weir_pool_close(pool);
    assert_int_equal(weir_pool_start_workers(pool, 1), WEIR_ECLOSED);
    end(pool);
}

static void no_process_is_started_before_there_is_work(void **state)
{
    (void)state;
    weir_pool *pool = plain(2, 4);
    weir_completion done;
    pid_t pids[4];
    assert_int_equal(weir_pool_collect(pool, &done, 1, WEIR_POLL), WEIR_EEMPTY);
    assert_int_equal(weir_pool_collect(pool, &done, 1, weir_after(WEIR_MILLISECOND)),
                     WEIR_ETIMEDOUT);
    assert_int_equal(weir_pool_pids(pool, pids, 4), 0);
    assert_int_equal(look_at(pool).workers_started, 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    submit(pool, 1, (order){ECHO});
    expect_reply(pool, 1);
    assert_int_equal(weir_pool_pids(pool, pids, 4), 1); /* nor more than there is work for */
    end(pool);
}

/* ---- payloads ------------------------------------------------------------------------------- */

static const uint64_t sizes[] = {
    0,
    1,
    15,
    16,
    191,
    192,
    193,
    255,
    256,
    257,
    511,
    512,
    513,
    4095,
    4096,
    4097,
    65536,
    131071,
    131072,
    131073,
    262143,
    262144,
    262145,
    1u << 20,
    (4u << 20) - 1,
    4u << 20,
    (4u << 20) + 1,
    5u << 20,
};
#define N_SIZES (sizeof sizes / sizeof sizes[0])

static void payloads_of_every_size_go_there_and_come_back_unchanged(void **state)
{
    (void)state;
    unsigned char *bytes = malloc(sizes[N_SIZES - 1] + 1);
    weir_pool *pool = plain(1, 4);
    for (uint32_t i = 0; i < 2 * N_SIZES; i++) { /* the second time into memory used before */
        uint64_t size = sizes[i % N_SIZES];
        fill_pattern(bytes, size, i);
        memset(bytes, 0, size < 4 ? size : 4); /* ECHO */
        weir_bytes part = {bytes, size};
        assert_int_equal(weir_pool_submit(pool, &part, 1, number(i), WEIR_POLL, NULL), WEIR_KEPT);
        weir_completion done = one(pool);
        assert_int_equal(done.outcome, WEIR_OUTCOME_REPLIED);
        assert_int_equal(done.tag, i);
        assert_int_equal(done.data_size, size);
        assert_true(size == 0 || memcmp(done.data, bytes, size) == 0);
    }
    free(bytes);
    end(pool);
}

static void a_small_task_may_have_a_reply_of_any_size(void **state)
{
    (void)state;
    weir_pool *pool = plain(2, 64);
    for (uint32_t i = 0; i < N_SIZES; i++)
        assert_int_equal(submit(pool, i, (order){PATTERN, i, sizes[i]}), WEIR_KEPT);
    bool seen[N_SIZES] = {false};
    for (uint32_t i = 0; i < N_SIZES; i++) {
        weir_completion done = one(pool);
        uintptr_t tag = (uintptr_t)done.tag;
        assert_int_equal(done.outcome, WEIR_OUTCOME_REPLIED);
        assert_int_equal(done.status, tag);
        assert_int_equal(done.data_size, sizes[tag]);
        assert_true(is_pattern(done.data, done.data_size, (uint32_t)tag));
        assert_false(seen[tag]);
        seen[tag] = true;
    }
    end(pool);
}

static void parts_are_joined_in_order(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 4);
    for (size_t size = 1; size < 400000; size *= 7) { /* inline and in a block */
        unsigned char *bytes = calloc(1, 3 * size);
        fill_pattern(bytes + 4, 3 * size > 4 ? 3 * size - 4 : 0, 5);
        weir_bytes parts[] = {
            {bytes, size}, {NULL, 0}, {bytes + size, size}, {bytes, 0}, {bytes + 2 * size, size}};
        assert_int_equal(weir_pool_submit(pool, parts, 5, NULL, WEIR_POLL, NULL), WEIR_KEPT);
        weir_completion done = one(pool);
        assert_int_equal(done.data_size, 3 * size);
        assert_memory_equal(done.data, bytes, 3 * size);
        free(bytes);
    }
    assert_int_equal(weir_pool_submit(pool, NULL, 0, number(9), WEIR_POLL, NULL), WEIR_KEPT);
    expect_reply(pool, 9);
    end(pool);
}

static void post_copies_the_payload(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 8);
    hold_and_fill(pool);
    board->gate_open = 1;
    for (int i = 0; i < 9; i++)
        one(pool);
    board->gate_open = 0;
    unsigned char bytes[70000];
    weir_completion done;
    assert_int_equal(submit(pool, 1, (order){HOLD}), WEIR_KEPT);
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t size = i % 2 ? sizeof bytes : 100;
        fill_pattern(bytes, size, i);
        memset(bytes, 0, 4);
        weir_bytes part = {bytes, size};
        assert_int_equal(weir_pool_submit(pool, &part, 1, number(i), WEIR_POLL, NULL), WEIR_KEPT);
        memset(bytes, 0xee, sizeof bytes);
    }
    board->gate_open = 1;
    expect_reply(pool, 1);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(weir_pool_collect(pool, &done, 1, WEIR_FOREVER), 1);
        fill_pattern(bytes, done.data_size, i);
        memset(bytes, 0, 4);
        assert_memory_equal(done.data, bytes, done.data_size);
    }
    end(pool);
}

static void data_is_valid_until_the_next_collect(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 16);
    weir_completion done[8];
    uint32_t seen = 0;
    for (uint32_t i = 0; i < 8; i++)
        submit(pool, i, (order){PATTERN, i, i % 2 ? 20000 : 200});
    while (seen < 8) {
        int64_t n = weir_pool_collect(pool, done, 8, WEIR_FOREVER);
        assert_true(n > 0);
        /* The worker goes on, with as much as it was dealt (one that is slow gets nothing ahead), and
         * must not write over them. */
        weir_time enough = weir_after(100 * WEIR_MILLISECOND);
        soon(board->replied == 8 || weir_now() > enough);
        for (int64_t i = 0; i < n; i++, seen++) {
            assert_int_equal(done[i].tag, seen);
            assert_int_equal(done[i].data_size, seen % 2 ? 20000 : 200);
            assert_true(is_pattern(done[i].data, done[i].data_size, seen));
        }
    }
    end(pool);
}

static void replies_wait_until_the_parent_has_taken_earlier_ones(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 64);
    for (uint32_t i = 0; i < 40; i++) /* far more than is kept for one worker's replies */
        assert_int_equal(submit(pool, i, (order){PATTERN, i, 50000 + 2003 * i}), WEIR_KEPT);
    for (uint32_t i = 0; i < 40; i++) {
        weir_completion done = one(pool);
        assert_int_equal(done.tag, i);
        assert_int_equal(done.data_size, 50000 + 2003 * i);
        assert_true(is_pattern(done.data, done.data_size, i));
    }
    end(pool);
}

static void large_payloads_are_given_back_to_the_system(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 4);
    size_t size = 40u << 20;
    unsigned char *bytes = calloc(1, size);
    for (int i = 0; i < 3; i++) {
        weir_bytes part = {bytes, size};
        assert_int_equal(weir_pool_submit(pool, &part, 1, NULL, WEIR_POLL, NULL), WEIR_KEPT);
        assert_true(look_at(pool).shm_bytes >= size);
        assert_int_equal(one(pool).data_size, size);
        until(pool, look_at(pool).shm_bytes < 20u << 20); /* kept for two seconds */
    }
    free(bytes);
    end(pool);
}

/* ---- the completion ------------------------------------------------------------------------- */

static void a_completion_tells_everything(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 4);
    uint64_t id = submit_id(pool, 7, (order){HOLD, 42, 0});
    until(pool, board->begun == 1);
    weir_time before = weir_now();
    soon(weir_now() > before + 2 * WEIR_MILLISECOND);
    board->gate_open = 1;
    weir_completion done = one(pool);
    assert_int_equal(done.tag, 7);
    assert_int_equal(done.id, id);
    assert_int_equal(done.outcome, WEIR_OUTCOME_REPLIED);
    assert_int_equal(done.status, 42);
    assert_int_equal(done.attempts, 1);
    assert_int_equal(done.data_size, sizeof(order));
    assert_true(done.service_ns >= 2 * WEIR_MILLISECOND && done.service_ns < PATIENCE);
    assert_int_equal(done.exit.pid, 0);
    assert_true(look_at(pool).service_ns >= (uint64_t)done.service_ns);
    end(pool);
}

static void a_status_may_be_any_number(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 4);
    int32_t statuses[] = {0, 1, -1, INT32_MAX, INT32_MIN};
    for (int i = 0; i < 5; i++) {
        submit(pool, 1, (order){ECHO, (uint32_t)statuses[i], 0});
        assert_int_equal(one(pool).status, statuses[i]);
    }
    end(pool);
}

static void ids_are_never_used_twice(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 4);
    uint64_t ids[50];
    for (int i = 0; i < 50; i++) {
        ids[i] = submit_id(pool, 1, (order){ECHO});
        expect_reply(pool, 1);
        assert_int_equal(weir_pool_cancel(pool, ids[i]), WEIR_ENOTASK);
        for (int j = 0; j < i; j++) {
            assert_true(ids[j] != ids[i]);
            assert_int_equal(weir_pool_is_running(pool, ids[j]), WEIR_ENOTASK);
        }
    }
    assert_int_equal(weir_pool_cancel(pool, 0), WEIR_ENOTASK);
    assert_int_equal(weir_pool_cancel(pool, UINT64_MAX), WEIR_ENOTASK);
    assert_int_equal(weir_pool_is_running(pool, UINT64_MAX), WEIR_ENOTASK);
    end(pool);
}

static void collect_refuses_a_max_of_0_and_takes_a_large_one(void **state)
{
    (void)state;
    weir_pool *pool = plain(2, 2000);
    static weir_completion done[4000];
    assert_int_equal(weir_pool_collect(pool, done, 0, WEIR_POLL), WEIR_EINVAL);
    for (uintptr_t i = 0; i < 2000; i++)
        assert_int_equal(submit(pool, i, (order){ECHO}), WEIR_KEPT);
    for (int64_t seen = 0, n; seen < 2000; seen += n) {
        n = weir_pool_collect(pool, done, 4000, weir_after(PATIENCE));
        assert_true(n > 0 && n <= 4000);
    }
    end(pool);
}

/* ---- the bound ------------------------------------------------------------------------------ */

static void a_full_pool_refuses_a_poll_and_times_out_a_deadline(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 2);
    hold_and_fill(pool);
    assert_int_equal(submit(pool, 9, (order){ECHO}), WEIR_EFULL);
    assert_int_equal(look_at(pool).refused, 0); /* it was only a try */
    submitter late = {.pool = pool, .tag = 9, .deadline = weir_after(5 * WEIR_MILLISECOND)};
    start_submit(&late);
    assert_int_equal(join(&late), WEIR_ETIMEDOUT);
    weir_pool_snapshot now = look_at(pool);
    assert_int_equal(now.refused, 1);
    assert_int_equal(now.accepted, 3);
    assert_int_equal(now.waiting, 2);
    assert_int_equal(now.running, 1);
    assert_true(now.submit_blocked_ns > 0);
    assert_int_equal(now.submitters_waiting, 0);
    board->gate_open = 1;
    for (uintptr_t tag = 1; tag <= 3; tag++)
        expect_reply(pool, tag);
    end(pool);
    assert_int_equal(dropped.n, 0); /* what was refused stays the caller's */
}

static void waiting_submitters_are_served_in_the_order_they_came(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 1);
    submitter others[6];
    hold_and_fill(pool);
    for (uintptr_t i = 0; i < 6; i++) {
        others[i] = (submitter){.pool = pool, .tag = 3 + i, .deadline = WEIR_FOREVER};
        start_waiting_submit(&others[i]);
    }
    assert_int_equal(submit(pool, 99, (order){ECHO}), WEIR_EFULL);
    board->gate_open = 1;
    for (uintptr_t i = 0; i < 8; i++) {
        expect_reply(pool, 1 + i);
        weir_pool_settle(pool, 1);
        if (i < 6)
            assert_int_equal(join(&others[i]), WEIR_KEPT); /* before the next may */
    }
    assert_true(look_at(pool).submit_blocked_ns > 0);
    end(pool);
}

static void a_permit_is_held_until_settle_or_the_next_collect(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 1);
    weir_completion done;
    for (int by_settle = 0; by_settle <= 1; by_settle++) {
        board->gate_open = 0;
        hold_and_fill(pool);
        submitter second = {.pool = pool, .tag = 3, .deadline = WEIR_FOREVER};
        start_waiting_submit(&second);
        board->gate_open = 1;
        expect_reply(pool, 1);
        assert_int_equal(look_at(pool).submitters_waiting, 1);
        if (by_settle)
            weir_pool_settle(pool, 1);
        else
            assert_true(weir_pool_collect(pool, &done, 1, WEIR_POLL) <= 1);
        assert_int_equal(join(&second), WEIR_KEPT);
        soon(look_at(pool).waiting + look_at(pool).running == 0 ||
             weir_pool_collect(pool, &done, 1, WEIR_POLL) == WEIR_ECLOSED);
    }
    end(pool);
}

static void settling_more_than_is_held_gives_back_what_is_held(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 1);
    weir_pool_settle(pool, 100);
    hold_and_fill(pool);
    weir_pool_settle(pool, 100);
    assert_int_equal(submit(pool, 9, (order){ECHO}), WEIR_EFULL);
    board->gate_open = 1;
    expect_reply(pool, 1);
    weir_pool_settle(pool, 100);
    assert_int_equal(submit(pool, 3, (order){ECHO}), WEIR_KEPT);
    assert_int_equal(weir_pool_admit(pool, WEIR_POLL), WEIR_EFULL);
    end(pool);
}

static void a_permit_is_posted_or_given_back(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 2);
    order what = {ECHO};
    weir_bytes part = {&what, sizeof what};
    for (int i = 0; i < 3; i++)
        assert_int_equal(weir_pool_admit(pool, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(weir_pool_admit(pool, WEIR_POLL), WEIR_EFULL);
    assert_int_equal(look_at(pool).accepted, 0); /* not posted: neither accepted nor inside */
    assert_int_equal(look_at(pool).waiting, 0);

    submitter second = {.pool = pool, .deadline = WEIR_FOREVER, .by_admit_wait = true};
    start_waiting_submit(&second);
    weir_pool_unadmit(pool); /* goes to the one who waits */
    assert_int_equal(join(&second), WEIR_KEPT);

    uint64_t id = 0;
    assert_int_equal(weir_pool_post(pool, &part, 1, number(1), &id), WEIR_OK);
    assert_true(id != 0);
    assert_int_equal(weir_pool_post(pool, &part, 1, number(2), NULL), WEIR_OK);
    assert_int_equal(look_at(pool).accepted, 2);
    expect_reply(pool, 1);
    expect_reply(pool, 2);
    end(pool);
}

/* Fills the pool to its bound again and again: no permit is lost and none made. */
static void the_pool_takes_its_full_bound_after_everything(void **state)
{
    (void)state;
    weir_pool_opts opts = options(2, 5);
    opts.retries = 1;
    weir_pool *pool = make(opts);
    for (int round = 0; round < 6; round++) {
        order what = {round % 3 == 0 ? ECHO : round % 3 == 1 ? RAISE : HOLD, SIGKILL, 0};
        uint64_t ids[7];
        uint32_t cancelled = 0;
        board->gate_open = 0;
        for (uintptr_t i = 0; i < 7; i++)
            ids[i] = submit_id(pool, i, what);
        assert_int_equal(weir_pool_admit(pool, WEIR_POLL), WEIR_EFULL);
        for (int i = 0; i < 7; i += 2)
            cancelled += weir_pool_cancel(pool, ids[i]) == 0;
        for (uint32_t i = 0; i < cancelled; i++)
            assert_int_equal(weir_pool_admit(pool, WEIR_POLL), WEIR_KEPT);
        assert_int_equal(weir_pool_admit(pool, WEIR_POLL), WEIR_EFULL);
        for (uint32_t i = 0; i < cancelled; i++)
            weir_pool_unadmit(pool);
        board->gate_open = 1;
        for (uint32_t i = cancelled; i < 7; i++)
            assert_int_equal(one(pool).outcome,
                             what.op == RAISE ? WEIR_OUTCOME_DIED : WEIR_OUTCOME_REPLIED);
        weir_pool_settle(pool, 1);
    }
    end(pool);
}

/* ---- overflow policies ---------------------------------------------------------------------- */

static void fail_refuses_at_once_whatever_the_deadline(void **state)
{
    (void)state;
    weir_pool *pool = with_policy(1, 1, WEIR_OVERFLOW_FAIL);
    hold_and_fill(pool);
    assert_int_equal(submit_until(pool, 9, (order){ECHO}, WEIR_FOREVER, NULL), WEIR_EFULL);
    assert_int_equal(weir_pool_admit(pool, WEIR_FOREVER), WEIR_EFULL);
    assert_int_equal(look_at(pool).refused, 2);
    end(pool);
    assert_int_equal(dropped.n, 2); /* what was inside; what was refused stays the caller's */
}

static void drop_newest_takes_the_task_and_drops_it(void **state)
{
    (void)state;
    weir_pool *pool = with_policy(1, 1, WEIR_OVERFLOW_DROP_NEWEST);
    hold_and_fill(pool);
    uint64_t id = 77;
    assert_int_equal(submit_until(pool, 3, (order){ECHO}, WEIR_FOREVER, &id), WEIR_DROPPED);
    assert_dropped(3, 3, WEIR_DROP_NEWEST); /* before the call returns */
    assert_int_equal(id, 77);
    assert_int_equal(weir_pool_admit(pool, WEIR_FOREVER), WEIR_DROPPED);
    assert_int_equal(dropped.n, 1); /* the tag is not known yet */
    weir_pool_snapshot now = look_at(pool);
    assert_int_equal(now.accepted, 4);
    assert_int_equal(now.dropped[WEIR_DROP_NEWEST], 2);
    assert_int_equal(now.refused, 0);
    board->gate_open = 1;
    expect_reply(pool, 1);
    expect_reply(pool, 2);
    end(pool);
}

static void drop_oldest_drops_the_oldest_task_that_no_worker_has_started(void **state)
{
    (void)state;
    weir_pool *pool = with_policy(1, 3, WEIR_OVERFLOW_DROP_OLDEST);
    hold_and_fill(pool); /* 1 runs; 2 is dealt to the worker already, 3 and 4 wait in line */
    for (uintptr_t tag = 5; tag <= 10; tag++) {
        assert_int_equal(submit_until(pool, tag, (order){ECHO}, WEIR_FOREVER, NULL), WEIR_KEPT);
        assert_dropped(2, tag - 3, WEIR_DROP_OLDEST);
    }
    board->gate_open = 1;
    expect_reply(pool, 1);
    for (uintptr_t tag = 8; tag <= 10; tag++)
        expect_reply(pool, tag);
    assert_int_equal(look_at(pool).dropped[WEIR_DROP_OLDEST], 6);
    end(pool);
}

static void drop_oldest_drops_the_newest_when_everything_inside_has_started(void **state)
{
    (void)state;
    weir_pool *pool = with_policy(1, 2, WEIR_OVERFLOW_DROP_OLDEST);
    assert_int_equal(submit(pool, 1, (order){HOLD}), WEIR_KEPT);
    until(pool, board->begun == 1);
    assert_int_equal(weir_pool_admit(pool, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(weir_pool_admit(pool, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(submit(pool, 9, (order){ECHO}), WEIR_DROPPED);
    assert_dropped(9, 9, WEIR_DROP_NEWEST);
    weir_pool_unadmit(pool);
    weir_pool_unadmit(pool);
    assert_int_equal(submit(pool, 10, (order){ECHO}), WEIR_KEPT);
    board->gate_open = 1;
    expect_reply(pool, 1);
    expect_reply(pool, 10);
    end(pool);
}

static void admit_wait_waits_whatever_the_overflow(void **state)
{
    (void)state;
    weir_overflow all[] = {WEIR_OVERFLOW_BLOCK, WEIR_OVERFLOW_FAIL, WEIR_OVERFLOW_DROP_NEWEST,
                           WEIR_OVERFLOW_DROP_OLDEST};
    for (int i = 0; i < 4; i++) {
        weir_pool *pool = with_policy(1, 1, all[i]);
        hold_and_fill(pool);
        submitter second = {.pool = pool, .deadline = WEIR_FOREVER, .by_admit_wait = true};
        assert_int_equal(weir_pool_admit_wait(pool, WEIR_POLL), WEIR_EFULL);
        start_waiting_submit(&second);
        board->gate_open = 1;
        expect_reply(pool, 1);
        weir_pool_settle(pool, 1);
        assert_int_equal(join(&second), WEIR_KEPT);
        expect_reply(pool, 2);
        end(pool);
        assert_int_equal(dropped.n, 0);
    }
}

/* ---- without a thread ----------------------------------------------------------------------- */

typedef struct guest {
    weir_pending pending;
    weir_pool *pool;
    int rc, told, result;
} guest;

static void tell_guest(weir_pending *pending, int result)
{
    guest *g = pending->ctx;
    g->result = result;
    g->told++;
}

static void *guest_comes(void *arg)
{
    guest *g = arg;
    g->pending.ready = tell_guest;
    g->pending.ctx = g;
    g->rc = weir_pool_admit_async(g->pool, &g->pending);
    return NULL;
}

/* On a thread that does not collect. */
static int come(guest *g, weir_pool *pool)
{
    pthread_t thread;
    *g = (guest){.pool = pool};
    must(pthread_create(&thread, NULL, guest_comes, g) == 0);
    pthread_join(thread, NULL);
    return g->rc;
}

static void a_guest_gets_its_permit_in_line_with_threads(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 1);
    guest none = {.pool = pool}, first, gone, third, last;
    assert_int_equal(weir_pool_admit_async(pool, &none.pending), WEIR_EINVAL);
    hold_and_fill(pool);
    submitter second = {.pool = pool, .deadline = WEIR_FOREVER, .by_admit_wait = true};
    assert_int_equal(come(&first, pool), WEIR_WAITING);
    assert_int_equal(come(&gone, pool), WEIR_WAITING);
    start_waiting_submit(&second);
    assert_int_equal(come(&third, pool), WEIR_WAITING);
    assert_int_equal(come(&last, pool), WEIR_WAITING);
    assert_int_equal(look_at(pool).submitters_waiting, 5);
    assert_true(weir_pool_cancel_admit(pool, &gone.pending));
    assert_false(weir_pool_cancel_admit(pool, &gone.pending));
    guest_comes(&none); /* on the collecting thread */
    assert_int_equal(none.rc, WEIR_EDEADLK);

    board->gate_open = 1;
    expect_reply(pool, 1);
    weir_pool_settle(pool, 1);
    assert_int_equal(first.told, 1);
    assert_int_equal(first.result, WEIR_KEPT);
    assert_int_equal(third.told, 0);
    assert_false(weir_pool_cancel_admit(pool, &first.pending));
    weir_pool_unadmit(pool); /* to the thread, which passes it on */
    assert_int_equal(join(&second), WEIR_KEPT);
    assert_int_equal(third.told, 1);
    expect_reply(pool, 2);
    weir_pool_settle(pool, 1);
    assert_int_equal(last.told, 1);
    weir_pool_unadmit(pool);
    weir_pool_unadmit(pool);
    assert_int_equal(come(&last, pool), WEIR_KEPT);
    weir_pool_unadmit(pool);
    assert_int_equal(gone.told, 0);
    end(pool);
}

static void close_tells_every_guest(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 1);
    hold_and_fill(pool);
    guest waits, late;
    assert_int_equal(come(&waits, pool), WEIR_WAITING);
    weir_pool_close(pool);
    assert_int_equal(waits.told, 1);
    assert_int_equal(waits.result, WEIR_ECLOSED);
    assert_int_equal(come(&late, pool), WEIR_ECLOSED);
    board->gate_open = 1;
    end(pool);
}

/* ---- the collecting thread ------------------------------------------------------------------ */

static void a_submit_that_would_wait_on_the_collecting_thread_is_refused(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 1);
    hold_and_fill(pool); /* which collects: it is this thread */
    assert_int_equal(submit_until(pool, 9, (order){ECHO}, WEIR_FOREVER, NULL), WEIR_EDEADLK);
    assert_int_equal(weir_pool_admit_wait(pool, weir_after(PATIENCE)), WEIR_EDEADLK);
    assert_int_equal(look_at(pool).refused, 2);
    assert_int_equal(submit(pool, 9, (order){ECHO}), WEIR_EFULL);
    assert_int_equal(look_at(pool).refused, 2);
    end(pool);
    assert_int_equal(dropped.n, 2);
}

static void a_submit_of_the_collecting_thread_takes_over_an_unsettled_permit(void **state)
{
    (void)state;
    weir_overflow all[] = {WEIR_OVERFLOW_BLOCK, WEIR_OVERFLOW_FAIL, WEIR_OVERFLOW_DROP_NEWEST,
                           WEIR_OVERFLOW_DROP_OLDEST};
    for (int i = 0; i < 4; i++) {
        weir_pool *pool = with_policy(1, 1, all[i]);
        hold_and_fill(pool);
        board->gate_open = 1;
        expect_reply(pool, 1); /* 2 is inside, 1 unsettled: full for everybody else */
        submitter second = {.pool = pool, .deadline = WEIR_FOREVER, .by_admit_wait = true};
        start_waiting_submit(&second);
        assert_int_equal(submit_until(pool, 3, (order){ECHO}, WEIR_FOREVER, NULL), WEIR_KEPT);
        assert_int_equal(dropped.n, 0);
        weir_pool_settle(pool, 1); /* there is nothing left to give back */
        assert_int_equal(look_at(pool).submitters_waiting, 1);
        expect_reply(pool, 2);
        expect_reply(pool, 3);
        assert_int_equal(join(&second), WEIR_KEPT);
        end(pool);
    }
}

static void a_thread_that_collected_earlier_may_wait_while_another_collects(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 1);
    collecting second;
    hold_and_fill(pool);             /* this thread collects */
    start_collecting(&second, pool); /* and now another does */
    board->gate_open = 1;
    soon(second.replied == 2); /* it is the collecting thread now */
    for (uintptr_t tag = 3; tag < 200; tag++)
        assert_int_equal(submit_until(pool, tag, (order){ECHO}, WEIR_FOREVER, NULL), WEIR_KEPT);
    weir_pool_close(pool);
    assert_int_equal(stop_collecting(&second), WEIR_ECLOSED);
    assert_int_equal(second.replied, 199);
    end(pool);
}

/* ---- cancel --------------------------------------------------------------------------------- */

static void a_task_can_be_cancelled_until_it_starts(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 5);
    uint64_t ids[6];
    ids[0] = submit_id(pool, 1, (order){HOLD});
    assert_int_equal(weir_pool_is_running(pool, ids[0]), 0);
    until(pool, board->begun == 1);
    for (uintptr_t i = 1; i < 6; i++) /* some go to the worker at once, some wait in line */
        ids[i] = submit_id(pool, 1 + i, (order){ECHO});
    assert_int_equal(weir_pool_is_running(pool, ids[0]), 1);
    assert_int_equal(weir_pool_cancel(pool, ids[0]), WEIR_ENOTASK);
    for (int i = 1; i < 5; i++) {
        assert_int_equal(weir_pool_is_running(pool, ids[i]), 0);
        assert_int_equal(weir_pool_cancel(pool, ids[i]), 0);
        assert_int_equal(weir_pool_cancel(pool, ids[i]), WEIR_ENOTASK);
        assert_int_equal(weir_pool_is_running(pool, ids[i]), WEIR_ENOTASK);
    }
    assert_int_equal(look_at(pool).cancelled, 4);
    board->gate_open = 1;
    expect_reply(pool, 1);
    assert_int_equal(weir_pool_is_running(pool, ids[0]), WEIR_ENOTASK);
    assert_int_equal(weir_pool_cancel(pool, ids[0]), WEIR_ENOTASK);
    expect_reply(pool, 6);
    assert_int_equal(board->begun, 2); /* no worker saw the others */
    end(pool);
    assert_int_equal(dropped.n, 0); /* a cancelled tag is the caller's, not on_drop's */
}

static void a_cancel_makes_room_for_a_waiting_submitter(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 1);
    submit(pool, 1, (order){HOLD});
    until(pool, board->begun == 1);
    uint64_t id = submit_id(pool, 2, (order){ECHO});
    submitter second = {.pool = pool, .tag = 3, .deadline = WEIR_FOREVER};
    start_waiting_submit(&second);
    assert_int_equal(weir_pool_cancel(pool, id), 0);
    assert_int_equal(join(&second), WEIR_KEPT);
    board->gate_open = 1;
    expect_reply(pool, 1);
    expect_reply(pool, 3);
    end(pool);
}

static void a_cancelled_large_payload_is_freed(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 4);
    static unsigned char bytes[20u << 20];
    weir_bytes part = {bytes, sizeof bytes};
    uint64_t id;
    submit(pool, 1, (order){HOLD});
    until(pool, board->begun == 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(weir_pool_submit(pool, &part, 1, NULL, WEIR_POLL, &id), WEIR_KEPT);
        assert_true(look_at(pool).shm_bytes >= sizeof bytes);
        assert_int_equal(weir_pool_cancel(pool, id), 0);
        until(pool, look_at(pool).shm_bytes < sizeof bytes); /* kept for two seconds */
    }
    end(pool);
}

/* More cancelled tasks than a worker's ring has slots, while the worker cannot run. */
static void a_task_behind_many_cancelled_ones_is_run(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 4);
    pid_t pid;
    collecting second;
    submit(pool, 1, (order){ECHO});
    expect_reply(pool, 1);
    weir_completion done;
    assert_int_equal(weir_pool_collect(pool, &done, 1, WEIR_POLL), WEIR_EEMPTY);
    assert_int_equal(weir_pool_pids(pool, &pid, 1), 1);
    kill(pid, SIGSTOP);
    for (int i = 0; i < 300; i++)
        assert_int_equal(weir_pool_cancel(pool, submit_id(pool, 2, (order){ECHO})), 0);
    submit(pool, 3, (order){ECHO});
    start_collecting(&second, pool);
    soon(sleeps(second.tid));
    kill(pid, SIGCONT);
    soon(second.n == 1);
    weir_pool_close(pool);
    assert_int_equal(stop_collecting(&second), WEIR_ECLOSED);
    end(pool);
}

/* ---- crashes -------------------------------------------------------------------------------- */

static void a_worker_killed_by_a_signal_fails_the_task_it_was_running(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 4);
    pid_t pid;
    submit(pool, 1, (order){HOLD_AND_DIE});
    until(pool, board->begun == 1);
    assert_int_equal(weir_pool_pids(pool, &pid, 1), 1);
    board->gate_open = 1;
    weir_completion done = one(pool);
    assert_int_equal(done.outcome, WEIR_OUTCOME_DIED);
    assert_int_equal(done.tag, 1);
    assert_int_equal(done.attempts, 1);
    assert_int_equal(done.exit.pid, pid);
    assert_int_equal(done.exit.signal, SIGKILL);
    assert_int_equal(done.exit.code, -1);
    assert_true(done.exit.peak_rss_bytes > 100000 && done.exit.peak_rss_bytes < 1ull << 42);
    assert_true(done.exit.oom == 0 || done.exit.oom == -1);
    assert_int_equal(done.data_size, 0);
    submit(pool, 2, (order){ECHO}); /* the pool goes on with another */
    expect_reply(pool, 2);
    weir_pool_snapshot now = look_at(pool);
    assert_int_equal(now.died, 1);
    assert_int_equal(now.workers_died, 1);
    assert_int_equal(now.workers_started, 2);
    assert_int_equal(now.workers_alive, 1);
    end(pool);
}

static void a_worker_that_exits_fails_the_task_it_was_running(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 4);
    int codes[] = {0, 1, 77, 255};
    for (int i = 0; i < 4; i++) {
        submit(pool, 1, (order){EXIT, (uint32_t)codes[i], 0});
        weir_completion done = one(pool);
        assert_int_equal(done.outcome, WEIR_OUTCOME_DIED);
        assert_int_equal(done.exit.code, codes[i]);
        assert_int_equal(done.exit.signal, 0);
        assert_int_equal(done.exit.oom, 0);
    }
    submit(pool, 1, (order){RAISE, SIGTERM, 0});
    assert_int_equal(one(pool).exit.signal, SIGTERM);
    end(pool);
}

static void tasks_that_a_dead_worker_had_not_started_go_to_others(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 20);
    submit(pool, 1, (order){HOLD_AND_DIE});
    until(pool, board->begun == 1);
    for (uintptr_t tag = 2; tag <= 20; tag++)
        submit(pool, tag, (order){ECHO});
    board->gate_open = 1;
    assert_int_equal(one(pool).outcome, WEIR_OUTCOME_DIED);
    for (uintptr_t tag = 2; tag <= 20; tag++) { /* in their old order */
        weir_completion done = one(pool);
        assert_int_equal(done.tag, tag);
        assert_int_equal(done.outcome, WEIR_OUTCOME_REPLIED);
        assert_int_equal(done.attempts, 1);
    }
    assert_int_equal(look_at(pool).retried, 0);
    end(pool);
}

static void a_task_is_run_again_as_often_as_retries_allow(void **state)
{
    (void)state;
    weir_pool_opts opts = options(1, 4);
    opts.retries = 3;
    weir_pool *pool = make(opts);
    submit(pool, 1, (order){RAISE_AT_FIRST, 3, 0});
    weir_completion done = one(pool);
    assert_int_equal(done.outcome, WEIR_OUTCOME_REPLIED);
    assert_int_equal(done.attempts, 4);
    assert_int_equal(look_at(pool).retried, 3);
    board->deaths = 0;
    submit(pool, 2, (order){RAISE_AT_FIRST, 4, 0});
    done = one(pool);
    assert_int_equal(done.outcome, WEIR_OUTCOME_DIED);
    assert_int_equal(done.attempts, 4);
    assert_int_equal(done.exit.signal, SIGKILL);
    assert_int_equal(look_at(pool).retried, 6);
    assert_int_equal(look_at(pool).died, 1);
    assert_int_equal(board->deaths, 4);
    end(pool);
}

static void a_reply_that_was_given_before_the_death_counts(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 20);
    submit(pool, 1, (order){HOLD});
    until(pool, board->begun == 1);
    for (uintptr_t tag = 2; tag <= 11; tag++)
        submit(pool, tag, (order){ECHO});
    submit(pool, 12, (order){RAISE, SIGKILL, 0});
    board->gate_open = 1;
    for (uintptr_t tag = 1; tag <= 11; tag++)
        expect_reply(pool, tag);
    assert_int_equal(one(pool).outcome, WEIR_OUTCOME_DIED);
    end(pool);
}

static void an_idle_worker_that_dies_fails_no_task(void **state)
{
    (void)state;
    weir_pool *pool = plain(2, 4);
    pid_t pid;
    submit(pool, 1, (order){ECHO});
    expect_reply(pool, 1);
    assert_int_equal(weir_pool_pids(pool, &pid, 1), 1);
    kill(pid, SIGKILL);
    until(pool, look_at(pool).workers_alive == 0);
    assert_int_equal(look_at(pool).workers_died, 1);
    submit(pool, 2, (order){ECHO});
    expect_reply(pool, 2);
    end(pool);
}

static void a_stopped_worker_does_not_delay_the_others(void **state)
{
    (void)state;
    weir_pool *pool = plain(2, 200);
    pid_t pid;
    submit(pool, 1, (order){PID});
    weir_completion done = one(pool);
    memcpy(&pid, done.data, sizeof pid);
    kill(pid, SIGSTOP); /* it has nothing to do, so it is given the next task */
    for (uintptr_t tag = 2; tag <= 100; tag++)
        assert_int_equal(submit(pool, tag, (order){ECHO}), WEIR_KEPT);
    for (int i = 2; i <= 100; i++)
        assert_int_equal(one(pool).outcome, WEIR_OUTCOME_REPLIED);
    kill(pid, SIGCONT);
    end(pool);
}

static void a_worker_stopped_in_a_task_delays_that_one_only(void **state)
{
    (void)state;
    weir_pool *pool = plain(2, 200);
    pid_t pid;
    submit(pool, 1, (order){HOLD});
    until(pool, board->begun == 1);
    assert_int_equal(weir_pool_pids(pool, &pid, 1), 1);
    kill(pid, SIGSTOP);
    board->gate_open = 1;
    for (uintptr_t tag = 2; tag <= 100; tag++)
        assert_int_equal(submit(pool, tag, (order){ECHO}), WEIR_KEPT);
    for (int i = 2; i <= 100; i++)
        assert_true((uintptr_t)one(pool).tag != 1);
    kill(pid, SIGCONT);
    expect_reply(pool, 1);
    end(pool);
}

static void a_long_task_holds_up_nobody_else(void **state)
{
    (void)state;
    weir_pool *pool = plain(2, 200);
    for (uintptr_t tag = 1; tag <= 20; tag++) /* the pool has seen short ones: it deals far ahead */
        submit(pool, tag, (order){ECHO});
    for (int i = 0; i < 20; i++)
        one(pool);
    submit(pool, 1, (order){HOLD});
    for (uintptr_t tag = 2; tag <= 150; tag++)
        submit(pool, tag, (order){ECHO});
    for (int i = 2; i <= 150; i++)
        assert_true((uintptr_t)one(pool).tag != 1);
    board->gate_open = 1;
    expect_reply(pool, 1);
    end(pool);
}

static void the_outcome_of_every_task_is_known_when_workers_die_at_random(void **state)
{
    (void)state;
    weir_pool_opts opts = options(3, 50);
    opts.retries = 1;
    weir_pool *pool = make(opts);
    int replied = 0, died = 0;
    for (uintptr_t tag = 0; tag < 50; tag++)
        submit(pool, tag, tag % 5 == 0 ? (order){RAISE, SIGKILL, 0} : (order){PATTERN, 1, 3000});
    for (int i = 0; i < 50; i++) {
        weir_completion done = one(pool);
        bool dies = (uintptr_t)done.tag % 5 == 0;
        assert_int_equal(done.outcome, dies ? WEIR_OUTCOME_DIED : WEIR_OUTCOME_REPLIED);
        assert_int_equal(done.attempts, dies ? 2 : 1);
        replied += !dies;
        died += dies;
    }
    assert_int_equal(replied, 40);
    assert_int_equal(died, 10);
    end(pool);
}

/* ---- recycling ------------------------------------------------------------------------------ */

static void a_worker_is_replaced_after_so_many_tasks(void **state)
{
    (void)state;
    weir_pool_opts opts = options(2, 100);
    opts.tasks_per_worker = 3;
    weir_pool *pool = make(opts);
    pid_t pids[30];
    for (uintptr_t tag = 0; tag < 30; tag++)
        submit(pool, tag, (order){PID});
    for (int i = 0; i < 30; i++) {
        weir_completion done = one(pool);
        memcpy(&pids[i], done.data, sizeof(pid_t));
        assert_int_equal(done.attempts, 1);
        int same = 0;
        for (int j = 0; j < i; j++)
            same += pids[j] == pids[i];
        assert_true(same < 3);
    }
    until(pool, look_at(pool).workers_alive == 0 || look_at(pool).workers_recycled >= 9);
    assert_true(look_at(pool).workers_recycled >= 9);
    assert_int_equal(look_at(pool).workers_died, 0);
    end(pool);
}

/* ---- fewer and more workers ----------------------------------------------------------------- */

static void fewer_workers_are_allowed_and_more_again(void **state)
{
    (void)state;
    weir_pool *pool = plain(4, 100);
    assert_int_equal(weir_pool_set_workers(pool, 0), WEIR_EINVAL);
    assert_int_equal(weir_pool_set_workers(pool, 5), WEIR_EINVAL);
    uintptr_t tag = 1;
    for (int round = 0; round < 3; round++) {
        assert_int_equal(weir_pool_set_workers(pool, 4), 0);
        assert_int_equal(weir_pool_start_workers(pool, 4), 4);
        for (int i = 0; i < 60; i++, tag++)
            submit(pool, tag, (order){ECHO});
        assert_int_equal(weir_pool_set_workers(pool, 1), 0);
        for (int i = 0; i < 60; i++)
            assert_int_equal(one(pool).outcome, WEIR_OUTCOME_REPLIED);
        until(pool, look_at(pool).workers_alive == 1);
        assert_int_equal(look_at(pool).workers_allowed, 1);
        assert_int_equal(weir_pool_start_workers(pool, 4), 1);
    }
    assert_int_equal(look_at(pool).workers_died, 0);
    assert_int_equal(look_at(pool).workers_recycled, 9);
    assert_int_equal(look_at(pool).workers_started, 10);
    end(pool);
}

static void a_worker_that_is_one_too_many_finishes_its_task(void **state)
{
    (void)state;
    weir_pool *pool = plain(2, 10);
    board->gate_open = 0;
    submit(pool, 1, (order){HOLD});
    submit(pool, 2, (order){HOLD});
    until(pool, look_at(pool).running == 2);
    assert_int_equal(weir_pool_set_workers(pool, 1), 0);
    submit(pool, 3, (order){PID});
    board->gate_open = 1;
    for (int i = 0; i < 3; i++) {
        weir_completion done = one(pool);
        assert_int_equal(done.outcome, WEIR_OUTCOME_REPLIED);
        assert_int_equal(done.attempts, 1);
    }
    until(pool, look_at(pool).workers_alive == 1);
    assert_int_equal(look_at(pool).workers_recycled, 1);
    end(pool);
}

static bool is_asleep(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    return has_state(path, 'S');
}

/* All of them serve, have nothing to do, and sleep. */
static void start_idle(weir_pool *pool, unsigned n)
{
    pid_t pids[32];
    assert_int_equal(weir_pool_start_workers(pool, n), n);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(submit(pool, i + 1, (order){HOLD}), WEIR_KEPT);
    until(pool, look_at(pool).running == n);
    board->gate_open = 1;
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(one(pool).outcome, WEIR_OUTCOME_REPLIED);
    assert_int_equal(weir_pool_pids(pool, pids, 32), n);
    for (unsigned i = 0; i < n; i++)
        soon(is_asleep(pids[i]));
}

/* More than the eight that are noted down to be woken when the lock is free. */
static void each_of_many_sleeping_workers_is_told_to_leave(void **state)
{
    (void)state;
    for (int closes = 0; closes < 2; closes++) {
        weir_completion none;
        weir_pool *pool = plain(12, 100);
        start_idle(pool, 12);
        if (closes) {
            weir_pool_close(pool);
            assert_int_equal(weir_pool_collect(pool, &none, 1, weir_after(PATIENCE)), WEIR_ECLOSED);
            assert_int_equal(look_at(pool).workers_died, 0);
        } else {
            assert_int_equal(weir_pool_set_workers(pool, 1), 0);
            until(pool, look_at(pool).workers_alive == 1);
            assert_int_equal(look_at(pool).workers_recycled, 11);
        }
        end(pool);
    }
}

/* ---- processes that the caller starts ------------------------------------------------------- */

static struct {
    weir_pool *pool;
    int (*body)(const weir_worker_ticket *);
    int fail; /* so many starts return WEIR_ESPAWN */
    _Atomic unsigned started, reaped, asked;
    pthread_t thread; /* that called */
    bool spawns;      /* a fresh program, which inherits nothing but three descriptors */
} starter;

static int spawn_program(const weir_worker_ticket *ticket, pid_t *ret_pid)
{
    char seat[16];
    char *argv[] = {(char *)(uintptr_t)"pool", (char *)(uintptr_t)"worker", seat, NULL};
    snprintf(seat, sizeof seat, "%u", ticket->seat);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ticket->memory_fd, 60);
    posix_spawn_file_actions_adddup2(&actions, ticket->bell_fd, 61);
    posix_spawn_file_actions_adddup2(&actions, ticket->parent_fd, 62);
    int err = posix_spawn(ret_pid, "/proc/self/exe", &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    return err ? WEIR_ESPAWN : 0;
}

static int start(void *ctx, unsigned seat, pid_t *ret_pid)
{
    must(ctx == &starter);
    starter.asked++;
    starter.thread = pthread_self();
    if (starter.fail > 0) {
        starter.fail--;
        return WEIR_ESPAWN;
    }
    weir_worker_ticket ticket;
    must(weir_pool_get_ticket(starter.pool, seat, &ticket) == 0 && ticket.seat == seat);
    look_at(starter.pool); /* no lock is held */
    if (starter.spawns) {
        int rc = spawn_program(&ticket, ret_pid);
        starter.started += rc == 0;
        return rc;
    }
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0)
        _exit(starter.body(&ticket));
    *ret_pid = pid;
    starter.started++;
    return 0;
}

static void reap(void *ctx, unsigned seat, weir_exit *exit)
{
    must(ctx == &starter && seat < 16);
    look_at(starter.pool);
    int status;
    must(waitpid(exit->pid, &status, 0) == exit->pid);
    exit->code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    exit->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    starter.reaped++;
}

static weir_pool *started_by(int (*body)(const weir_worker_ticket *), unsigned workers,
                             size_t backlog)
{
    weir_pool_opts opts = options(workers, backlog);
    opts.handler = NULL;
    opts.start = start;
    opts.reap = reap;
    opts.process_ctx = &starter;
    memset(&starter, 0, sizeof starter);
    starter.body = body;
    return starter.pool = make(opts);
}

static int work(const weir_worker_ticket *ticket)
{
    weir_worker *worker;
    weir_task task;
    int rc;
    if (weir_worker_open(&worker, ticket) < 0)
        return 90;
    while ((rc = weir_worker_take(worker, &task, WEIR_FOREVER)) == 0)
        serve(worker, &task, NULL);
    weir_worker_close(worker);
    return rc == WEIR_ECLOSED ? 0 : 91;
}

static void the_caller_may_start_and_reap_the_processes(void **state)
{
    (void)state;
    weir_pool *pool = started_by(work, 2, 20);
    for (uintptr_t tag = 0; tag < 20; tag++)
        submit(pool, tag, (order){tag == 7 ? EXIT : ECHO, 9, 0});
    for (int i = 0; i < 20; i++) {
        weir_completion done = one(pool);
        if ((uintptr_t)done.tag != 7)
            assert_int_equal(done.outcome, WEIR_OUTCOME_REPLIED);
        else
            assert_int_equal(done.exit.code, 9);
    }
    assert_true(pthread_equal(starter.thread, pthread_self()));
    weir_pool_close(pool);
    weir_completion done;
    assert_int_equal(weir_pool_collect(pool, &done, 1, weir_after(PATIENCE)), WEIR_ECLOSED);
    assert_true(starter.started >= 2);
    assert_int_equal(starter.reaped, starter.started);
    end(pool);
}

static void a_worker_may_be_another_program(void **state)
{
    (void)state;
    weir_pool *pool = started_by(NULL, 2, 60);
    starter.spawns = true;
    unsigned char *bytes = calloc(1, sizes[N_SIZES - 1] + 1);
    for (uint32_t i = 0; i < N_SIZES; i++) {
        weir_bytes part = {bytes, sizes[i]};
        fill_pattern(bytes, sizes[i], i);
        memset(bytes, 0, sizes[i] < 4 ? sizes[i] : 4);
        assert_int_equal(weir_pool_submit(pool, &part, 1, number(i), WEIR_POLL, NULL), WEIR_KEPT);
        weir_completion done = one(pool);
        assert_int_equal(done.outcome, WEIR_OUTCOME_REPLIED);
        assert_int_equal(done.data_size, sizes[i]);
        assert_true(sizes[i] == 0 || memcmp(done.data, bytes, sizes[i]) == 0);
    }
    free(bytes);
    end(pool);
    assert_int_equal(starter.reaped, starter.started);
}

static void a_start_that_fails_is_tried_again(void **state)
{
    (void)state;
    weir_pool *pool = started_by(work, 2, 4);
    starter.fail = 2;
    submit(pool, 1, (order){ECHO});
    expect_reply(pool, 1);
    assert_int_equal(starter.asked, 3);
    assert_int_equal(look_at(pool).workers_started, 1);
    end(pool);
}

static void tasks_complete_as_not_started_after_three_failed_starts(void **state)
{
    (void)state;
    weir_pool *pool = started_by(work, 2, 4);
    starter.fail = 3;
    for (uintptr_t tag = 1; tag <= 5; tag++)
        submit(pool, tag, (order){ECHO});
    for (uintptr_t tag = 1; tag <= 5; tag++) {
        weir_completion done = one(pool);
        assert_int_equal(done.outcome, WEIR_OUTCOME_NOT_STARTED);
        assert_int_equal(done.tag, tag);
        assert_int_equal(done.attempts, 0);
        assert_int_equal(done.data_size, 0);
        assert_int_equal(done.exit.code, -1);
        assert_int_equal(done.exit.signal, 0);
    }
    assert_int_equal(starter.asked, 3);
    submit(pool, 6, (order){ECHO}); /* and the pool goes on */
    expect_reply(pool, 6);
    end(pool);
}

static int exit_at_once(const weir_worker_ticket *ticket)
{
    (void)ticket;
    return 33;
}

static int die_at_once(const weir_worker_ticket *ticket)
{
    (void)ticket;
    raise(SIGTERM);
    return 0;
}

static int open_and_exit(const weir_worker_ticket *ticket)
{
    weir_worker *worker;
    must(weir_worker_open(&worker, ticket) == 0);
    weir_worker_close(worker);
    return 34;
}

static void workers_that_die_before_they_are_ready_count_as_failed_starts(void **state)
{
    (void)state;
    struct {
        int (*body)(const weir_worker_ticket *);
        int code, signal;
    } cases[] = {{exit_at_once, 33, 0}, {die_at_once, -1, SIGTERM}, {open_and_exit, 34, 0}};
    for (int i = 0; i < 3; i++) {
        weir_pool *pool = started_by(cases[i].body, 1, 4);
        submit(pool, 1, (order){ECHO});
        submit(pool, 2, (order){ECHO});
        for (uintptr_t tag = 1; tag <= 2; tag++) {
            weir_completion done = one(pool);
            assert_int_equal(done.tag, tag);
            assert_int_equal(done.outcome, WEIR_OUTCOME_NOT_STARTED);
            assert_int_equal(done.exit.code, cases[i].code);
            assert_int_equal(done.exit.signal, cases[i].signal);
            assert_true(done.exit.pid > 0);
        }
        assert_int_equal(starter.asked, 3);
        starter.body = work;
        submit(pool, 3, (order){ECHO});
        expect_reply(pool, 3);
        end(pool);
    }
}

static void tasks_that_came_after_the_failed_starts_get_a_start_of_their_own(void **state)
{
    (void)state;
    weir_pool *pool = started_by(work, 1, 10);
    uint64_t ids[6];
    starter.fail = 3;
    for (uintptr_t tag = 1; tag <= 5; tag++)
        ids[tag] = submit_id(pool, tag, (order){ECHO});
    assert_int_equal(one(pool).outcome, WEIR_OUTCOME_NOT_STARTED); /* the others are due next */
    for (uintptr_t tag = 2; tag <= 5; tag++)
        assert_int_equal(weir_pool_cancel(pool, ids[tag]), 0);
    for (uintptr_t tag = 6; tag <= 9; tag++)
        submit(pool, tag, (order){ECHO});
    for (uintptr_t tag = 6; tag <= 9; tag++)
        expect_reply(pool, tag);
    end(pool);
}

static int be_ready_and_exit(const weir_worker_ticket *ticket)
{
    weir_worker *worker;
    must(weir_worker_open(&worker, ticket) == 0);
    weir_worker_ready(worker);
    return 35;
}

static void workers_that_die_before_their_first_task_are_not_started_for_ever(void **state)
{
    (void)state;
    weir_pool *pool = started_by(be_ready_and_exit, 1, 4);
    submit(pool, 1, (order){ECHO});
    weir_completion done = one(pool);
    assert_int_equal(done.outcome, WEIR_OUTCOME_NOT_STARTED);
    assert_int_equal(done.exit.code, 35);
    assert_true(starter.asked <= 10);
    end(pool);
}

static char long_message[6000];

static int fail_with_a_message(const weir_worker_ticket *ticket)
{
    weir_worker *worker;
    must(weir_worker_open(&worker, ticket) == 0);
    const char *message = long_message[0] ? long_message : "no such module";
    weir_worker_fail(worker, message, strlen(message));
    weir_worker_close(worker);
    return 3;
}

static void a_worker_that_says_why_it_cannot_serve_fails_the_tasks_with_its_words(void **state)
{
    (void)state;
    long_message[0] = '\0';
    weir_pool *pool = started_by(fail_with_a_message, 1, 4);
    submit(pool, 1, (order){ECHO});
    weir_completion done = one(pool);
    assert_int_equal(done.outcome, WEIR_OUTCOME_NOT_STARTED);
    assert_int_equal(done.data_size, strlen("no such module"));
    assert_memory_equal(done.data, "no such module", done.data_size);
    assert_int_equal(done.exit.code, 3);
    assert_int_equal(starter.asked, 1); /* it is not going to be better next time */
    memset(long_message, 'x', sizeof long_message - 1);
    submit(pool, 2, (order){ECHO});
    done = one(pool);
    assert_int_equal(done.outcome, WEIR_OUTCOME_NOT_STARTED);
    assert_int_equal(done.data_size, 4096); /* at most 4 KiB are kept */
    assert_memory_equal(done.data, long_message, 4096);
    end(pool);
}

/* A start that says 0 but tells no process must not make the pool signal pid 0 or -1, which is
 * this process's group, or everybody. */
static int start_tells_no_pid(void *ctx, unsigned seat, pid_t *ret_pid)
{
    (void)seat;
    *ret_pid = *(pid_t *)ctx;
    return 0;
}

static void a_start_that_tells_no_process_is_a_failed_start(void **state)
{
    (void)state;
    pid_t child = fork();
    must(child >= 0);
    if (child == 0) {
        setpgid(0, 0); /* whom kill(0, SIGKILL) would hit */
        pid_t pid = 0;
        weir_pool *pool;
        weir_pool_opts opts = options(1, 1);
        opts.handler = NULL;
        opts.start = start_tells_no_pid;
        opts.reap = reap_nothing;
        opts.process_ctx = &pid;
        must(weir_pool_create(&pool, &opts) == 0);
        must(submit(pool, 1, (order){ECHO}) == WEIR_KEPT);
        must(one(pool).outcome == WEIR_OUTCOME_NOT_STARTED);
        weir_pool_destroy(pool);
        _exit(0);
    }
    int status;
    must(waitpid(child, &status, 0) == child);
    assert_int_equal(status, 0);
}

/* ---- the worker's end ----------------------------------------------------------------------- */

static bool hook_says_stop;
static int stop_hook(void *ctx)
{
    (void)ctx;
    return hook_says_stop;
}

/* Each must() here ends the process by SIGABRT before it is ready, or in its task. */
static int probe_the_worker_calls(const weir_worker_ticket *ticket)
{
    weir_worker *worker;
    weir_task task = {.id = 123};
    must(weir_worker_open(&worker, ticket) == 0);
    weir_worker_ready(worker);
    weir_worker_ready(worker);
    must(weir_worker_reply(worker, 0, NULL, 0) == WEIR_EINVAL); /* there is no task */

    while (!board->notes) { /* nothing is dealt until the test says so, but one task is there */
        int rc = weir_worker_take(worker, &task, WEIR_POLL);
        must(rc == 0 || rc == WEIR_EEMPTY);
        if (rc == 0) {
            must(task.id != 123 && task.size == sizeof(order));
            serve(worker, &task, NULL);
        }
    }
    task.id = 123;
    weir_time before = weir_now();
    must(weir_worker_take(worker, &task, weir_after(3 * WEIR_MILLISECOND)) == WEIR_ETIMEDOUT);
    must(weir_now() >= before + 3 * WEIR_MILLISECOND);
    must(task.id == 123); /* outputs change only on success */
    hook_says_stop = true;
    weir_set_interrupt(stop_hook, NULL);
    must(weir_worker_take(worker, &task, WEIR_FOREVER) == WEIR_EINTR);
    weir_set_interrupt(NULL, NULL);
    board->notes = 2;
    while (weir_worker_take(worker, &task, WEIR_FOREVER) == 0)
        serve(worker, &task, NULL);
    must(weir_worker_take(worker, &task, WEIR_POLL) == WEIR_ECLOSED);
    weir_worker_close(worker);
    weir_worker_close(NULL);
    return 0;
}

static void a_worker_may_poll_wait_and_be_interrupted(void **state)
{
    (void)state;
    weir_pool *pool = started_by(probe_the_worker_calls, 1, 4);
    submit(pool, 1, (order){ECHO});
    expect_reply(pool, 1);
    board->notes = 1;
    until(pool, board->notes == 2);
    submit(pool, 2, (order){ECHO});
    expect_reply(pool, 2);
    weir_pool_close(pool);
    weir_completion done;
    assert_int_equal(weir_pool_collect(pool, &done, 1, weir_after(PATIENCE)), WEIR_ECLOSED);
    assert_int_equal(look_at(pool).workers_died, 0);
    end(pool);
}

static void a_second_reply_to_a_task_is_refused(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 4);
    submit(pool, 1, (order){REPLY_TWICE});
    assert_int_equal(one(pool).status, 1);
    soon(board->replied == 1);
    assert_int_equal(board->last_rc, WEIR_EINVAL);
    submit(pool, 2, (order){ECHO, 5, 0});
    assert_int_equal(one(pool).status, 5);
    end(pool);
}

static void a_handler_that_forgets_to_reply_does_not_stop_the_pool(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 4);
    bool seen[3] = {false};
    submit(pool, 1, (order){FORGET});
    submit(pool, 2, (order){ECHO});
    for (int i = 0; i < 2; i++)
        seen[(uintptr_t)one(pool).tag] = true;
    assert_true(seen[1] && seen[2]);
    end(pool);
}

static int memfd_with(const void *bytes, size_t size)
{
    int fd = memfd_create("foreign", MFD_CLOEXEC);
    must(fd >= 0 && (size == 0 || write(fd, bytes, size) == (ssize_t)size));
    return fd;
}

/* In a child: a wrong step ends in SIGBUS there. */
static int open_in_a_child(weir_worker_ticket ticket)
{
    pid_t child = fork();
    must(child >= 0);
    if (child == 0) {
        signal(SIGBUS, SIG_DFL); /* not cmocka's */
        signal(SIGSEGV, SIG_DFL);
        weir_worker *worker;
        _exit(100 - weir_worker_open(&worker, &ticket));
    }
    int status;
    must(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? 100 - WEXITSTATUS(status) : WTERMSIG(status);
}

static void open_refuses_what_is_not_a_channel(void **state)
{
    (void)state;
    static unsigned char bytes[8192];
    weir_pool *pool = plain(2, 4);
    weir_worker_ticket good, ticket;
    assert_int_equal(weir_pool_get_ticket(pool, 0, &good), WEIR_OK);
    assert_int_equal(weir_pool_get_ticket(pool, 2, &ticket), WEIR_EINVAL);

    int pipes[2];
    must(pipe(pipes) == 0);
    int fds[] = {-1,
                 999,
                 open("/dev/null", O_RDWR),
                 open("/proc/self/exe", O_RDONLY),
                 pipes[0],
                 memfd_with(bytes, 0),
                 memfd_with(bytes, 1),
                 memfd_with(bytes, sizeof bytes)};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        ticket = good;
        ticket.memory_fd = fds[i];
        assert_int_equal(open_in_a_child(ticket), WEIR_EINVAL);
        if (fds[i] >= 0)
            close(fds[i]);
    }
    close(pipes[1]);
    ticket = good;
    ticket.seat = 2; /* of two: 0 and 1 */
    assert_int_equal(open_in_a_child(ticket), WEIR_EINVAL);
    ticket.seat = UINT32_MAX;
    assert_int_equal(open_in_a_child(ticket), WEIR_EINVAL);
    end(pool);
}

static void open_refuses_a_truncated_channel(void **state)
{
    (void)state;
    static unsigned char bytes[8192];
    weir_pool *pool = plain(2, 4);
    weir_worker_ticket ticket;
    assert_int_equal(weir_pool_get_ticket(pool, 1, &ticket), WEIR_OK);
    must(pread(ticket.memory_fd, bytes, 4096, 0) == 4096);
    ticket.memory_fd = memfd_with(bytes, 4096); /* a good header, and nothing behind it */
    assert_int_equal(open_in_a_child(ticket), WEIR_EINVAL);
    close(ticket.memory_fd);
    end(pool);
}

/* ---- ending --------------------------------------------------------------------------------- */

static void what_was_accepted_still_runs_after_close(void **state)
{
    (void)state;
    weir_pool *pool = plain(2, 10);
    weir_completion done;
    order what = {ECHO};
    weir_bytes part = {&what, sizeof what};
    assert_int_equal(weir_pool_admit(pool, WEIR_POLL), WEIR_KEPT);
    for (uintptr_t tag = 1; tag <= 8; tag++)
        submit(pool, tag, (order){ECHO});
    weir_pool_close(pool);
    weir_pool_close(pool); /* twice is fine */
    assert_true(look_at(pool).closed);
    assert_int_equal(weir_pool_admit(pool, WEIR_FOREVER), WEIR_ECLOSED);
    assert_int_equal(weir_pool_admit_wait(pool, WEIR_POLL), WEIR_ECLOSED);
    assert_int_equal(submit(pool, 9, (order){ECHO}), WEIR_ECLOSED);
    assert_int_equal(weir_pool_post(pool, &part, 1, NULL, NULL), WEIR_ECLOSED);
    weir_pool_unadmit(pool); /* the permit was still ours */
    for (int i = 0; i < 8; i++)
        assert_int_equal(one(pool).outcome, WEIR_OUTCOME_REPLIED);
    assert_int_equal(weir_pool_collect(pool, &done, 1, weir_after(PATIENCE)), WEIR_ECLOSED);
    assert_int_equal(weir_pool_collect(pool, &done, 1, WEIR_POLL), WEIR_ECLOSED);
    assert_int_equal(look_at(pool).workers_alive, 0);
    assert_int_equal(look_at(pool).workers_died, 0);
    assert_int_equal(look_at(pool).workers_recycled, 0);
    end(pool);
    assert_int_equal(dropped.n, 0);
}

static void a_closed_pool_that_never_had_work_is_gone_at_once(void **state)
{
    (void)state;
    weir_pool *pool = plain(2, 10);
    weir_completion done;
    weir_pool_close(pool);
    assert_int_equal(weir_pool_collect(pool, &done, 1, WEIR_FOREVER), WEIR_ECLOSED);
    end(pool);
}

static void close_releases_every_waiting_submitter(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 1);
    submitter others[5];
    hold_and_fill(pool);
    for (uintptr_t i = 0; i < 5; i++) {
        others[i] = (submitter){.pool = pool, .tag = 3 + i, .deadline = WEIR_FOREVER};
        others[i].by_admit_wait = i % 2;
        start_waiting_submit(&others[i]);
    }
    weir_pool_close(pool);
    for (int i = 0; i < 5; i++)
        assert_int_equal(join(&others[i]), WEIR_ECLOSED);
    end(pool);
    assert_int_equal(dropped.n, 2);
}

static void close_wakes_the_collecting_thread(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 1);
    collecting second;
    start_collecting(&second, pool);
    submit(pool, 1, (order){ECHO});
    soon(second.n == 1);
    weir_pool_close(pool);
    assert_int_equal(stop_collecting(&second), WEIR_ECLOSED);
    end(pool);
}

static void discard_drops_every_task_that_no_worker_has_started(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 9);
    assert_int_equal(weir_pool_discard(pool), 0);
    hold_and_fill(pool);
    submitter second = {.pool = pool, .tag = 50, .deadline = WEIR_FOREVER};
    start_waiting_submit(&second);
    assert_int_equal(weir_pool_discard(pool), 9);
    assert_dropped(2, 10, WEIR_DROP_DISCARDED); /* in order */
    assert_int_equal(join(&second), WEIR_KEPT); /* the pool stays open */
    assert_int_equal(look_at(pool).running, 1);
    board->gate_open = 1;
    expect_reply(pool, 1);
    expect_reply(pool, 50);
    end(pool);
}

static weir_pool *submits_again;
static void submit_in_on_drop(void *tag, weir_drop_reason reason, void *ctx)
{
    note_drop(tag, reason, ctx);
    if ((uintptr_t)tag < 100)
        must(submit(submits_again, (uintptr_t)tag + 100, (order){ECHO}) == WEIR_KEPT);
}

static void on_drop_may_submit_and_discard_leaves_what_came_later(void **state)
{
    (void)state;
    weir_pool_opts opts = options(1, 9);
    opts.on_drop = submit_in_on_drop;
    weir_pool *pool = submits_again = make(opts);
    hold_and_fill(pool);
    assert_int_equal(weir_pool_discard(pool), 9);
    assert_int_equal(look_at(pool).waiting, 9);
    board->gate_open = 1;
    expect_reply(pool, 1);
    for (uintptr_t tag = 102; tag <= 110; tag++)
        expect_reply(pool, tag);
    end(pool);
}

static void kill_ends_running_tasks_without_retries_and_drops_the_others(void **state)
{
    (void)state;
    weir_pool_opts opts = options(2, 8);
    opts.retries = 5;
    weir_pool *pool = make(opts);
    collecting second;
    start_collecting(&second, pool);
    submit(pool, 1, (order){HOLD});
    submit(pool, 2, (order){HOLD});
    soon(board->begun == 2);
    for (uintptr_t tag = 3; tag <= 10; tag++)
        submit(pool, tag, (order){ECHO});
    submitter waiting = {.pool = pool, .deadline = WEIR_FOREVER};
    start_waiting_submit(&waiting);
    weir_pool_kill(pool);
    assert_dropped(3, 10, WEIR_DROP_DISCARDED); /* before it returns */
    assert_int_equal(join(&waiting), WEIR_ECLOSED);
    assert_int_equal(stop_collecting(&second), WEIR_ECLOSED);
    assert_int_equal(second.died, 2);
    assert_int_equal(second.n, 2);
    assert_int_equal(look_at(pool).retried, 0);
    weir_pool_kill(pool); /* twice is fine */
    end(pool);
    assert_int_equal(dropped.n, 8);
}

static void kill_ends_a_stopped_worker_too(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 8);
    pid_t pid;
    submit(pool, 1, (order){HOLD});
    until(pool, board->begun == 1);
    assert_int_equal(weir_pool_pids(pool, &pid, 1), 1);
    kill(pid, SIGSTOP);
    weir_pool_kill(pool);
    assert_int_equal(one(pool).outcome, WEIR_OUTCOME_DIED);
    weir_completion done;
    assert_int_equal(weir_pool_collect(pool, &done, 1, weir_after(PATIENCE)), WEIR_ECLOSED);
    end(pool);
}

static void destroy_hands_back_every_tag(void **state)
{
    (void)state;
    for (int how = 0; how < 4; how++) {
        weir_pool *pool = plain(2, 6);
        pid_t pids[2];
        if (how > 0) {
            submit(pool, 1, (order){HOLD});
            submit(pool, 2, (order){HOLD});
            until(pool, board->begun == 2);
            must(weir_pool_pids(pool, pids, 2) == 2);
        }
        for (uintptr_t tag = how > 0 ? 3 : 1; tag <= 8; tag++)
            submit(pool, tag, (order){ECHO});
        if (how == 2)
            weir_pool_close(pool);
        if (how == 3)
            kill(pids[0], SIGKILL);
        end(pool);
        assert_int_equal(dropped.n, 8);
        bool seen[9] = {false};
        for (int i = 0; i < 8; i++) {
            assert_int_equal(dropped.reasons[i], WEIR_DROP_DISCARDED);
            assert_false(seen[dropped.tags[i]]);
            seen[dropped.tags[i]] = true;
        }
    }
}

static void destroy_after_a_batch_that_was_not_settled(void **state)
{
    (void)state;
    weir_pool *pool = plain(2, 8);
    static unsigned char bytes[300000];
    weir_bytes part = {bytes, sizeof bytes};
    for (uintptr_t tag = 1; tag <= 6; tag++)
        weir_pool_submit(pool, &part, 1, number(tag), WEIR_POLL, NULL);
    weir_completion done = one(pool);
    assert_int_equal(done.data_size, sizeof bytes);
    end(pool);
    assert_int_equal(dropped.n, 5);
}

static void a_forked_child_that_destroys_its_copy_leaves_the_pool_alone(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 4);
    static unsigned char bytes[600000];
    weir_bytes part = {bytes, sizeof bytes};
    pid_t before, after;
    submit(pool, 1, (order){PID});
    weir_completion done = one(pool);
    memcpy(&before, done.data, sizeof before);
    submit(pool, 2, (order){HOLD});
    until(pool, board->begun == 2);
    weir_pool_submit(pool, &part, 1, number(3), WEIR_POLL, NULL);

    int fds = count_fds();
    pid_t child = fork();
    must(child >= 0);
    if (child == 0) {
        weir_pool_destroy(pool);
        must(count_fds() <= checker.fds_before);
        _exit(dropped.n == 0 ? 0 : 1);
    }
    int status;
    must(waitpid(child, &status, 0) == child);
    assert_int_equal(status, 0);
    assert_int_equal(count_fds(), fds);

    board->gate_open = 1;
    expect_reply(pool, 2);
    done = one(pool);
    assert_int_equal(done.data_size, sizeof bytes);
    submit(pool, 4, (order){PID});
    done = one(pool);
    memcpy(&after, done.data, sizeof after);
    assert_int_equal(before, after);
    end(pool);
    assert_int_equal(dropped.n, 0);
}

/* ---- interruption --------------------------------------------------------------------------- */

typedef struct hook {
    weir_pool *pool;
    _Atomic int asked;
    _Atomic bool stop;
} hook;

static int ask(void *ctx)
{
    hook *h = ctx;
    if (h->pool)
        look_at(h->pool); /* no lock is held */
    h->asked++;
    return h->stop;
}

static void an_interruption_ends_the_wait_of_a_submit(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 1);
    hook h = {.pool = pool};
    hold_and_fill(pool);
    submitter second = {
        .pool = pool, .tag = 3, .deadline = WEIR_FOREVER, .hook = ask, .hook_ctx = &h};
    start_waiting_submit(&second);
    soon(h.asked >= 2); /* at least every 50 ms, and its place in line is kept */
    assert_int_equal(look_at(pool).submitters_waiting, 1);
    h.stop = true;
    assert_int_equal(join(&second), WEIR_EINTR);
    assert_int_equal(look_at(pool).submitters_waiting, 0);
    assert_int_equal(look_at(pool).refused, 0);
    board->gate_open = 1;
    expect_reply(pool, 1);
    expect_reply(pool, 2);
    assert_int_equal(look_at(pool).accepted, 2); /* nothing happened */
    end(pool);
}

static void nothing(int signal)
{
    (void)signal;
}

static void an_interruption_ends_the_wait_of_a_collect(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 1);
    hook h = {.pool = pool, .stop = true};
    weir_completion done;
    weir_set_interrupt(ask, &h);
    assert_int_equal(weir_pool_collect(pool, &done, 1, WEIR_FOREVER), WEIR_EINTR);
    assert_int_equal(weir_pool_collect(pool, &done, 1, WEIR_POLL), WEIR_EEMPTY);
    submit(pool, 1, (order){HOLD});
    do
        assert_int_equal(weir_pool_collect(pool, &done, 1, WEIR_FOREVER), WEIR_EINTR);
    while (board->begun == 0);
    weir_set_interrupt(NULL, NULL);
    board->gate_open = 1;
    expect_reply(pool, 1);
    end(pool);
}

static void a_signal_without_a_hook_does_not_end_a_wait(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 1);
    struct sigaction action = {.sa_handler = nothing}, before;
    sigaction(SIGUSR1, &action, &before);
    hold_and_fill(pool);
    submitter second = {.pool = pool, .tag = 3, .deadline = WEIR_FOREVER};
    start_waiting_submit(&second);
    for (int i = 0; i < 20; i++)
        pthread_kill(second.thread, SIGUSR1);
    assert_int_equal(look_at(pool).submitters_waiting, 1);
    board->gate_open = 1;
    expect_reply(pool, 1);
    weir_pool_settle(pool, 1);
    assert_int_equal(join(&second), WEIR_KEPT);
    sigaction(SIGUSR1, &before, NULL);
    end(pool);
}

/* ---- looking -------------------------------------------------------------------------------- */

static void a_snapshot_of_unknown_size_is_refused(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 1);
    weir_pool_snapshot now = {.size = sizeof now - 1, .accepted = 77};
    assert_int_equal(weir_pool_get_snapshot(pool, &now), WEIR_EINVAL);
    assert_int_equal(now.accepted, 77);
    end(pool);
}

static void a_snapshot_shows_every_field(void **state)
{
    (void)state;
    weir_pool *pool = plain(2, 3);
    submit(pool, 1, (order){HOLD});
    submit(pool, 2, (order){HOLD});
    until(pool, board->begun == 2);
    submit(pool, 3, (order){ECHO});
    uint64_t id = submit_id(pool, 4, (order){ECHO});
    weir_pool_cancel(pool, id);
    weir_pool_snapshot now = look_at(pool);
    assert_int_equal(now.size, sizeof now);
    assert_int_equal(now.workers, 2);
    assert_int_equal(now.workers_alive, 2);
    assert_int_equal(now.workers_started, 2);
    assert_int_equal(now.backlog, 3);
    assert_int_equal(now.waiting, 1);
    assert_int_equal(now.running, 2);
    assert_int_equal(now.accepted, 4);
    assert_int_equal(now.cancelled, 1);
    assert_int_equal(now.completed, 0);
    assert_int_equal(total(now.dropped), 0);
    assert_true(now.shm_bytes > 0);
    assert_false(now.closed);
    pid_t pids[3] = {0, 0, -7};
    assert_int_equal(weir_pool_pids(pool, pids, 1), 2); /* how many there are */
    assert_true(pids[0] > 0 && pids[1] == 0);
    assert_int_equal(weir_pool_pids(pool, NULL, 0), 2);
    assert_int_equal(weir_pool_pids(pool, pids, 3), 2);
    assert_true(pids[0] != pids[1] && pids[1] > 0 && pids[2] == -7);
    board->gate_open = 1;
    for (int i = 0; i < 3; i++)
        one(pool);
    now = look_at(pool);
    assert_int_equal(now.completed, 3);
    assert_int_equal(now.running + now.waiting, 0);
    assert_true(now.service_ns > 0);
    end(pool);
}

/* ---- when the parent dies ------------------------------------------------------------------- */

static bool is_gone(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    return access(path, F_OK) != 0 || has_state(path, 'Z'); /* a zombie waits for init only */
}

static void the_workers_die_within_a_second_when_the_parent_is_killed(void **state)
{
    (void)state;
    int pipes[2];
    pid_t pids[3];
    memset(board, 0, sizeof *board);
    must(pipe(pipes) == 0);
    pid_t parent = fork();
    must(parent >= 0);
    if (parent == 0) {
        weir_pool *pool;
        weir_pool_opts opts = options(3, 20);
        must(weir_pool_create(&pool, &opts) == 0);
        submit(pool, 1, (order){HOLD}); /* one is busy for ever */
        submit(pool, 2, (order){HOLD});
        until(pool, board->begun == 2);
        submit(pool, 3, (order){ECHO}); /* one is idle */
        one(pool);
        submit(pool, 4, (order){ECHO});
        must(weir_pool_pids(pool, pids, 3) == 3);
        must(write(pipes[1], pids, sizeof pids) == sizeof pids);
        pause();
    }
    must(read(pipes[0], pids, sizeof pids) == sizeof pids);
    for (int i = 0; i < 3; i++)
        assert_false(is_gone(pids[i]));
    weir_time before = weir_now();
    kill(parent, SIGKILL);
    for (int i = 0; i < 3; i++)
        soon(is_gone(pids[i]));
    assert_true(weir_now() - before < WEIR_SECOND);
    must(waitpid(parent, NULL, 0) == parent);
    close(pipes[0]);
    close(pipes[1]);
}

/* --------------------------------------------------------------------------------------------- */

/* The other program: a worker that knows three descriptors. */
static int be_a_worker(const char *seat)
{
    weir_worker_ticket ticket = {60, 61, 62, (unsigned)atoi(seat)};
    return work(&ticket);
}

/* ---- data that is kept ---------------------------------------------------------------------- */

static weir_completion submit_bytes(weir_pool *pool, const void *bytes, size_t size)
{
    weir_bytes part = {bytes, size};
    assert_int_equal(weir_pool_submit(pool, &part, 1, NULL, WEIR_POLL, NULL), WEIR_KEPT);
    return one(pool);
}

static void a_large_reply_can_be_kept_until_it_is_released(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 4);
    static const size_t large[] = {131073, 200000, 262145, 3u << 20};
    struct {
        weir_pool_lease *lease;
        unsigned char *data;
    } kept[4][3];
    for (unsigned s = 0; s < 4; s++)
        for (unsigned i = 0; i < 3; i++) {
            submit(pool, 1, (order){PATTERN, s * 3 + i, large[s]});
            weir_completion done = one(pool);
            void *data;
            assert_int_equal(weir_pool_keep(pool, &done, &kept[s][i].lease, &data), WEIR_OK);
            assert_ptr_equal(data, done.data);
            assert_int_equal((uintptr_t)data % 4096, 0);
            weir_pool_lease *second = NULL;
            assert_int_equal(weir_pool_keep(pool, &done, &second, &data), WEIR_EINVAL);
            assert_null(second);
            kept[s][i].data = data;
            kept[s][i].data[0] ^= 0xff; /* ours to write */
        }
    uint64_t held = look_at(pool).shm_bytes;
    for (unsigned s = 0; s < 4; s++)
        for (unsigned i = 0; i < 3; i++) {
            kept[s][i].data[0] ^= 0xff;
            assert_true(is_pattern(kept[s][i].data, large[s], s * 3 + i));
            weir_pool_release(pool, kept[s][i].lease);
        }
    weir_pool_release(pool, NULL);
    submit(pool, 1, (order){PATTERN, 1, large[3]});
    assert_int_equal(one(pool).data_size, large[3]);
    assert_true(look_at(pool).shm_bytes <= held); /* it came in what was released */
    end(pool);
}

static void a_kept_reply_outlives_the_workers(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 4);
    submit(pool, 1, (order){PATTERN, 7, 1u << 20});
    weir_completion done = one(pool);
    weir_pool_lease *lease;
    void *data;
    assert_int_equal(weir_pool_keep(pool, &done, &lease, &data), WEIR_OK);
    weir_pool_close(pool);
    assert_int_equal(weir_pool_collect(pool, &done, 1, weir_after(PATIENCE)), WEIR_ECLOSED);
    assert_int_equal(look_at(pool).workers_alive, 0);
    assert_true(is_pattern(data, 1u << 20, 7));
    uint64_t held = look_at(pool).shm_bytes;
    weir_pool_release(pool, lease);
    assert_true(look_at(pool).shm_bytes <= held - (1u << 20)); /* at once: nobody needs it again */
    end(pool);
}

static void what_is_not_in_a_block_cannot_be_kept(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 4);
    static const size_t large[] = {0, 256, 257, 131072};
    for (unsigned s = 0; s < 4; s++) {
        submit(pool, 1, (order){PATTERN, 1, large[s]});
        weir_completion done = one(pool);
        weir_pool_lease *lease = NULL;
        void *data = NULL;
        assert_int_equal(weir_pool_keep(pool, &done, &lease, &data), WEIR_EINVAL);
        assert_true(!lease && !data);
    }
    end(pool);
}

/* The worker's side: what it keeps, and what it replies with. */
enum {
    KEEP = 100,
    CHECK,
    RELEASE,
    IN_PLACE,
    KEEP_AND_REPLY_IN_PLACE,
    FORK_AND_REPLY_IN_PLACE,
    KEEP_REFUSED,
    POSITIONS,
    SPOIL_AND_DIE
};

static struct {
    weir_lease *lease;
    unsigned char *data;
    size_t size;
    uint32_t seed;
} kept[300];
static unsigned n_kept;

static void reply_number(weir_worker *worker, uint64_t n)
{
    must(weir_worker_reply(worker, 0, &(weir_bytes){&n, sizeof n}, 1) == WEIR_OK);
}

/* Keeps the task's data as a pattern of its own. */
static void keep_task(weir_worker *worker, const weir_task *task, uint32_t seed)
{
    void *data;
    must(n_kept < 300);
    must(weir_worker_keep(worker, &kept[n_kept].lease, &data) == WEIR_OK);
    must(data == task->data && (uintptr_t)data % 4096 == 0);
    kept[n_kept].data = data;
    kept[n_kept].size = task->size;
    kept[n_kept].seed = seed;
    fill_pattern(kept[n_kept].data, task->size, seed);
    weir_lease *second = NULL;
    must(weir_worker_keep(worker, &second, &data) == WEIR_EINVAL && !second);
    n_kept++;
}

static uint64_t count_intact(void)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < n_kept; i++)
        n += is_pattern(kept[i].data, kept[i].size, kept[i].seed);
    return n;
}

static void *release_all(void *arg)
{
    for (unsigned i = 0; i < n_kept; i++)
        weir_worker_release(arg, kept[i].lease);
    n_kept = 0;
    return NULL;
}

static void release_by_thread(weir_worker *worker)
{
#ifdef __SANITIZE_THREAD__ /* which ends a forked process that has had threads and starts one */
    release_all(worker);
#else
    pthread_t thread;
    must(pthread_create(&thread, NULL, release_all, worker) == 0);
    pthread_join(thread, NULL);
#endif
}

static void serve_keeping(weir_worker *worker, const weir_task *task, void *ctx)
{
    (void)ctx;
    order what = {0};
    memcpy(&what, task->data, sizeof what);
    weir_lease *lease = NULL;
    void *data = NULL;
    uint64_t positions[2];
    switch (what.op) {
    case KEEP:
        keep_task(worker, task, what.arg);
        reply_number(worker, n_kept);
        break;
    case CHECK: reply_number(worker, count_intact()); break;
    case RELEASE: /* by another thread than the one that serves */
        release_by_thread(worker);
        reply_number(worker, 0);
        break;
    case IN_PLACE:
        must(weir_worker_reply_in_place(worker, 5, task->data, task->size + 1) == WEIR_EINVAL);
        if (weir_worker_keep(worker, &lease, &data) == WEIR_OK) {
            memset((char *)data + task->size - 8, 0x77, 8);
            weir_worker_release(worker, lease);
        }
        must(weir_worker_reply_in_place(worker, 5, "head", 4) == WEIR_OK);
        must(weir_worker_reply_in_place(worker, 5, "head", 4) == WEIR_EINVAL);
        break;
    case KEEP_AND_REPLY_IN_PLACE:
        keep_task(worker, task, what.arg);
        must(weir_worker_reply_in_place(worker, 5, "head", 4) == WEIR_OK);
        must(count_intact() == n_kept); /* the reply was a copy */
        break;
    case FORK_AND_REPLY_IN_PLACE: /* what was written after the fork comes back, too */
        must(weir_worker_keep(worker, &lease, &data) == WEIR_OK);
        weir_worker_unshare(worker, lease);
        memset((char *)data + task->size - 8, 0x77, 8);
        weir_worker_release(worker, lease);
        must(weir_worker_reply_in_place(worker, 5, "head", 4) == WEIR_OK);
        break;
    case KEEP_REFUSED:
        reply_number(worker, weir_worker_keep(worker, &lease, &data) == WEIR_EINVAL && !lease);
        break;
    case POSITIONS:
        weir_worker_get_positions(worker, &positions[0], &positions[1]);
        weir_worker_reply(worker, 0, &(weir_bytes){positions, sizeof positions}, 1);
        break;
    case SPOIL_AND_DIE: /* at first; then tell whether all is as it was sent */
        must(weir_worker_keep(worker, &lease, &data) == WEIR_OK);
        if (atomic_fetch_add(&board->deaths, 1) == 0) {
            memset((char *)data + sizeof what, 0, task->size - sizeof what);
            raise(SIGKILL);
        }
        fill_pattern(data, sizeof what, 99);
        reply_number(worker, is_pattern(data, task->size, 99));
        weir_worker_release(worker, lease);
        break;
    default: serve(worker, task, NULL);
    }
}

static weir_pool *keeping(unsigned retries)
{
    weir_pool_opts opts = options(1, 4);
    opts.handler = serve_keeping;
    opts.retries = retries;
    return make(opts);
}

/* A large payload with an order at its beginning; what follows is a pattern. */
static weir_completion submit_large(weir_pool *pool, order what, size_t size)
{
    unsigned char *bytes = malloc(size);
    must(bytes);
    fill_pattern(bytes, size, 99);
    memcpy(bytes, &what, sizeof what);
    weir_completion done = submit_bytes(pool, bytes, size);
    free(bytes);
    assert_int_equal(done.outcome, WEIR_OUTCOME_REPLIED);
    return done;
}

static uint64_t ask_for(weir_pool *pool, order what, size_t size)
{
    weir_completion done = submit_large(pool, what, size);
    uint64_t n;
    assert_int_equal(done.data_size, sizeof n);
    memcpy(&n, done.data, sizeof n);
    return n;
}

static void check_keeping(unsigned retries)
{
    weir_pool *pool = keeping(retries);
    static const size_t large[] = {65536, 100000, 262144, 262145, 2u << 20};
    uint64_t before = 0;
    for (int round = 0; round < 4; round++) {
        for (uint32_t i = 0; i < 40; i++) /* other tasks reuse no memory of theirs */
            assert_int_equal(ask_for(pool, (order){KEEP, i, 0}, large[i % 5]), i + 1);
        assert_int_equal(ask_for(pool, (order){CHECK}, 300000), 40);
        assert_int_equal(ask_for(pool, (order){RELEASE}, 64), 0);
        assert_int_equal(ask_for(pool, (order){CHECK}, 64), 0);
        uint64_t now = look_at(pool).shm_bytes;
        if (round > 0)
            assert_int_equal(now, before); /* all came back, and was used again */
        before = now;
    }
    end(pool);
}

static void a_worker_may_keep_its_tasks_data(void **state)
{
    (void)state;
    check_keeping(0);
}

static void a_worker_may_keep_data_that_a_retry_needs(void **state)
{
    (void)state;
    check_keeping(2);
}

static void more_data_than_the_ring_has_places_comes_back(void **state)
{
    (void)state;
    weir_pool *pool = keeping(0);
    uint64_t before = 0;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 5; i++) {
            for (uint32_t k = 0; k < 300; k++)
                ask_for(pool, (order){KEEP, k, 0}, 70000);
            ask_for(pool, (order){RELEASE}, 64); /* all at once */
        }
        uint64_t now = look_at(pool).shm_bytes;
        if (round > 0)
            assert_int_equal(now, before);
        before = now;
    }
    end(pool);
}

static void a_dead_worker_keeps_nothing(void **state)
{
    (void)state;
    weir_pool *pool = keeping(0);
    for (uint32_t i = 0; i < 20; i++)
        ask_for(pool, (order){KEEP, i, 0}, 3u << 20);
    assert_true(look_at(pool).shm_bytes >= 60u << 20);
    submit(pool, 1, (order){RAISE, SIGKILL, 0});
    assert_int_equal(one(pool).outcome, WEIR_OUTCOME_DIED);
    until(pool, look_at(pool).shm_bytes < 20u << 20);
    end(pool);
}

static void small_data_cannot_be_kept(void **state)
{
    (void)state;
    weir_pool *pool = keeping(0);
    static const size_t large[] = {16, 192, 193, 65535};
    for (int i = 0; i < 4; i++)
        assert_int_equal(ask_for(pool, (order){KEEP_REFUSED}, large[i]), 1);
    end(pool);
}

static void expect_in_place(const weir_completion *done, size_t size, bool was_written)
{
    const unsigned char *data = done->data;
    assert_int_equal(done->status, 5);
    assert_int_equal(done->data_size, size);
    assert_memory_equal(data, "head", 4);
    for (size_t i = sizeof(order); i < size - 8; i++)
        if (data[i] != pattern_at(i, 99))
            fail_msg("byte %zu of %zu is wrong", i, size);
    for (size_t i = size - 8; i < size; i++)
        assert_int_equal(data[i], was_written ? 0x77 : pattern_at(i, 99));
}

static void check_in_place(unsigned retries)
{
    weir_pool *pool = keeping(retries);
    static const size_t large[] = {64, 192, 193, 5000, 65536, 262144, 262145, 5u << 20};
    for (int i = 0; i < 8; i++) {
        weir_completion done = submit_large(pool, (order){IN_PLACE}, large[i]);
        expect_in_place(&done, large[i], large[i] >= 65536);
        if (large[i] < 65536)
            continue;
        done = submit_large(pool, (order){FORK_AND_REPLY_IN_PLACE}, large[i]);
        expect_in_place(&done, large[i], true);
        done = submit_large(pool, (order){IN_PLACE}, large[i]); /* all is as it was */
        expect_in_place(&done, large[i], true);
    }
    weir_completion done = submit_large(pool, (order){KEEP_AND_REPLY_IN_PLACE, 3, 0}, 5u << 20);
    assert_int_equal(done.data_size, 5u << 20);
    assert_int_equal(ask_for(pool, (order){CHECK}, 64), 1);
    assert_int_equal(ask_for(pool, (order){RELEASE}, 64), 0);
    end(pool);
}

static void a_reply_may_lie_in_the_tasks_own_data(void **state)
{
    (void)state;
    check_in_place(0);
}

static void a_reply_in_place_leaves_a_retry_its_data(void **state)
{
    (void)state;
    check_in_place(1);
}

static void a_reply_in_place_can_be_kept_and_takes_no_more_memory(void **state)
{
    (void)state;
    weir_pool *pool = keeping(0);
    size_t size = 20u << 20;
    weir_completion done = submit_large(pool, (order){IN_PLACE}, size);
    weir_pool_lease *lease;
    void *data;
    assert_int_equal(weir_pool_keep(pool, &done, &lease, &data), WEIR_OK);
    assert_true(look_at(pool).shm_bytes < 22u << 20); /* one block, not two */
    submit(pool, 1, (order){ECHO});
    expect_reply(pool, 1);
    expect_in_place(&(weir_completion){.data = data, .data_size = size, .status = 5}, size, true);
    weir_pool_release(pool, lease);
    end(pool);
}

static void a_retry_sees_its_data_as_it_was_sent(void **state)
{
    (void)state;
    weir_pool *pool = keeping(1);
    static const size_t large[] = {65536, 262144, 262145, 3u << 20};
    for (int i = 0; i < 4; i++) {
        board->deaths = 0;
        assert_int_equal(ask_for(pool, (order){SPOIL_AND_DIE}, large[i]), 1);
        assert_int_equal(board->deaths, 2);
    }
    end(pool);
}

static void a_worker_knows_which_replies_have_been_read(void **state)
{
    (void)state;
    weir_pool *pool = keeping(0);
    for (uint64_t i = 0; i < 300; i++) {
        weir_completion done = submit_large(pool, (order){POSITIONS}, 64);
        uint64_t positions[2];
        assert_int_equal(done.data_size, sizeof positions);
        memcpy(positions, done.data, sizeof positions);
        assert_int_equal(positions[0], i + 1);           /* with this one */
        assert_in_range(positions[1], i ? i - 1 : 0, i); /* never one that we still read */
    }
    end(pool);
}

static void data_that_is_unshared_is_its_process_s_own(void **state)
{
    (void)state;
    weir_pool *pool = plain(1, 4);
    static const size_t large[] = {200000, 1u << 20};
    for (int i = 0; i < 2; i++) {
        submit(pool, 1, (order){PATTERN, 7, large[i]});
        weir_completion done = one(pool);
        weir_pool_lease *lease;
        void *data;
        assert_int_equal(weir_pool_keep(pool, &done, &lease, &data), WEIR_OK);
        unsigned char *bytes = data;
        pid_t pid = fork();
        must(pid >= 0);
        weir_pool_unshare(pool, lease);
        if (pid == 0) {
            bytes[5] ^= 0xff;
            wait_for_the_gate();
            bytes[5] ^= 0xff;
            _exit(is_pattern(bytes, large[i], 7) ? 0 : 1);
        }
        bytes[10000] ^= 0xff;
        board->gate_open = 1;
        int status = -1;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        bytes[10000] ^= 0xff;
        assert_true(is_pattern(bytes, large[i], 7));
        weir_pool_release(pool, lease);
        submit(pool, 1, (order){PATTERN, 8, large[i]}); /* the block is an ordinary one again */
        done = one(pool);
        assert_true(is_pattern(done.data, large[i], 8));
        board->gate_open = 0;
    }
    end(pool);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "worker") == 0)
        return be_a_worker(argv[2]);
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(board != MAP_FAILED);
    if (argc == 2)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_auto_backlog_grows_while_producers_wait_and_workers_idle),
        cmocka_unit_test(a_backlog_that_is_given_stays_and_has_no_reason),
        cmocka_unit_test(create_refuses_every_option_out_of_range),
        cmocka_unit_test(create_takes_the_smallest_and_the_largest_bounds),
        cmocka_unit_test(workers_0_means_as_many_as_cpus_this_process_may_use),
        cmocka_unit_test(destroy_takes_null),
        cmocka_unit_test(no_process_is_started_before_there_is_work),
        cmocka_unit_test(workers_may_be_started_early_in_the_calling_thread),
        cmocka_unit_test(payloads_of_every_size_go_there_and_come_back_unchanged),
        cmocka_unit_test(a_small_task_may_have_a_reply_of_any_size),
        cmocka_unit_test(parts_are_joined_in_order),
        cmocka_unit_test(post_copies_the_payload),
        cmocka_unit_test(data_is_valid_until_the_next_collect),
        cmocka_unit_test(replies_wait_until_the_parent_has_taken_earlier_ones),
        cmocka_unit_test(large_payloads_are_given_back_to_the_system),
        cmocka_unit_test(a_completion_tells_everything),
        cmocka_unit_test(a_status_may_be_any_number),
        cmocka_unit_test(ids_are_never_used_twice),
        cmocka_unit_test(collect_refuses_a_max_of_0_and_takes_a_large_one),
        cmocka_unit_test(a_full_pool_refuses_a_poll_and_times_out_a_deadline),
        cmocka_unit_test(waiting_submitters_are_served_in_the_order_they_came),
        cmocka_unit_test(a_permit_is_held_until_settle_or_the_next_collect),
        cmocka_unit_test(settling_more_than_is_held_gives_back_what_is_held),
        cmocka_unit_test(a_permit_is_posted_or_given_back),
        cmocka_unit_test(the_pool_takes_its_full_bound_after_everything),
        cmocka_unit_test(fail_refuses_at_once_whatever_the_deadline),
        cmocka_unit_test(drop_newest_takes_the_task_and_drops_it),
        cmocka_unit_test(drop_oldest_drops_the_oldest_task_that_no_worker_has_started),
        cmocka_unit_test(drop_oldest_drops_the_newest_when_everything_inside_has_started),
        cmocka_unit_test(admit_wait_waits_whatever_the_overflow),
        cmocka_unit_test(a_guest_gets_its_permit_in_line_with_threads),
        cmocka_unit_test(close_tells_every_guest),
        cmocka_unit_test(a_submit_that_would_wait_on_the_collecting_thread_is_refused),
        cmocka_unit_test(a_submit_of_the_collecting_thread_takes_over_an_unsettled_permit),
        cmocka_unit_test(a_thread_that_collected_earlier_may_wait_while_another_collects),
        cmocka_unit_test(a_task_can_be_cancelled_until_it_starts),
        cmocka_unit_test(a_cancel_makes_room_for_a_waiting_submitter),
        cmocka_unit_test(a_cancelled_large_payload_is_freed),
        cmocka_unit_test(a_task_behind_many_cancelled_ones_is_run),
        cmocka_unit_test(a_worker_killed_by_a_signal_fails_the_task_it_was_running),
        cmocka_unit_test(a_worker_that_exits_fails_the_task_it_was_running),
        cmocka_unit_test(tasks_that_a_dead_worker_had_not_started_go_to_others),
        cmocka_unit_test(a_task_is_run_again_as_often_as_retries_allow),
        cmocka_unit_test(a_reply_that_was_given_before_the_death_counts),
        cmocka_unit_test(an_idle_worker_that_dies_fails_no_task),
        cmocka_unit_test(a_stopped_worker_does_not_delay_the_others),
        cmocka_unit_test(a_worker_stopped_in_a_task_delays_that_one_only),
        cmocka_unit_test(a_long_task_holds_up_nobody_else),
        cmocka_unit_test(the_outcome_of_every_task_is_known_when_workers_die_at_random),
        cmocka_unit_test(a_worker_is_replaced_after_so_many_tasks),
        cmocka_unit_test(fewer_workers_are_allowed_and_more_again),
        cmocka_unit_test(a_worker_that_is_one_too_many_finishes_its_task),
        cmocka_unit_test(each_of_many_sleeping_workers_is_told_to_leave),
        cmocka_unit_test(the_caller_may_start_and_reap_the_processes),
        cmocka_unit_test(a_worker_may_be_another_program),
        cmocka_unit_test(a_start_that_fails_is_tried_again),
        cmocka_unit_test(tasks_complete_as_not_started_after_three_failed_starts),
        cmocka_unit_test(workers_that_die_before_they_are_ready_count_as_failed_starts),
        cmocka_unit_test(tasks_that_came_after_the_failed_starts_get_a_start_of_their_own),
        cmocka_unit_test(workers_that_die_before_their_first_task_are_not_started_for_ever),
        cmocka_unit_test(a_worker_that_says_why_it_cannot_serve_fails_the_tasks_with_its_words),
        cmocka_unit_test(a_start_that_tells_no_process_is_a_failed_start),
        cmocka_unit_test(a_worker_may_poll_wait_and_be_interrupted),
        cmocka_unit_test(a_second_reply_to_a_task_is_refused),
        cmocka_unit_test(a_handler_that_forgets_to_reply_does_not_stop_the_pool),
        cmocka_unit_test(open_refuses_what_is_not_a_channel),
        cmocka_unit_test(open_refuses_a_truncated_channel),
        cmocka_unit_test(what_was_accepted_still_runs_after_close),
        cmocka_unit_test(a_closed_pool_that_never_had_work_is_gone_at_once),
        cmocka_unit_test(close_releases_every_waiting_submitter),
        cmocka_unit_test(close_wakes_the_collecting_thread),
        cmocka_unit_test(discard_drops_every_task_that_no_worker_has_started),
        cmocka_unit_test(on_drop_may_submit_and_discard_leaves_what_came_later),
        cmocka_unit_test(kill_ends_running_tasks_without_retries_and_drops_the_others),
        cmocka_unit_test(kill_ends_a_stopped_worker_too),
        cmocka_unit_test(destroy_hands_back_every_tag),
        cmocka_unit_test(destroy_after_a_batch_that_was_not_settled),
        cmocka_unit_test(a_forked_child_that_destroys_its_copy_leaves_the_pool_alone),
        cmocka_unit_test(an_interruption_ends_the_wait_of_a_submit),
        cmocka_unit_test(an_interruption_ends_the_wait_of_a_collect),
        cmocka_unit_test(a_signal_without_a_hook_does_not_end_a_wait),
        cmocka_unit_test(a_snapshot_of_unknown_size_is_refused),
        cmocka_unit_test(a_snapshot_shows_every_field),
        cmocka_unit_test(a_large_reply_can_be_kept_until_it_is_released),
        cmocka_unit_test(a_kept_reply_outlives_the_workers),
        cmocka_unit_test(what_is_not_in_a_block_cannot_be_kept),
        cmocka_unit_test(a_worker_may_keep_its_tasks_data),
        cmocka_unit_test(a_worker_may_keep_data_that_a_retry_needs),
        cmocka_unit_test(more_data_than_the_ring_has_places_comes_back),
        cmocka_unit_test(a_dead_worker_keeps_nothing),
        cmocka_unit_test(small_data_cannot_be_kept),
        cmocka_unit_test(a_reply_may_lie_in_the_tasks_own_data),
        cmocka_unit_test(a_reply_in_place_leaves_a_retry_its_data),
        cmocka_unit_test(a_reply_in_place_can_be_kept_and_takes_no_more_memory),
        cmocka_unit_test(a_retry_sees_its_data_as_it_was_sent),
        cmocka_unit_test(a_worker_knows_which_replies_have_been_read),
        cmocka_unit_test(data_that_is_unshared_is_its_process_s_own),
        cmocka_unit_test(the_workers_die_within_a_second_when_the_parent_is_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
