/* What a monitor makes of the pages of another process: a child, which does what it is told. */
#include "support.h"

#include <math.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/breaker.h>
#include <weir/limit.h>
#include <weir/memory.h>
#include <weir/monitor.h>
#include <weir/rate.h>
#include <weir/thread_pool.h>

#include "folder.h"

/* ---- a program that is looked at ---------------------------------------------------------------- */

typedef struct program {
    pid_t pid;
    int to, from;
} program;

typedef void order_fn(char order);

/* A child that begins, and then does one order after the other; it ends with its parent's pipe. */
static program start(void (*set_up)(void), order_fn *obey)
{
    int to[2], from[2];
    char order = 0;
    must(pipe(to) == 0 && pipe(from) == 0);
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        close(to[1]);
        close(from[0]);
        setenv("WEIR_STATS_DIR", folder, 1);
        set_up();
        do {
            if (order)
                obey(order);
            must(write(from[1], "", 1) == 1);
        } while (read(to[0], &order, 1) == 1);
        exit(0);
    }
    close(to[0]);
    close(from[1]);
    program p = {.pid = pid, .to = to[1], .from = from[0]};
    must(read(p.from, &order, 1) == 1);
    return p;
}

/* Returns when it is done. */
static void tell(program *p, char order, int times)
{
    char done;
    for (int i = 0; i < times; i++)
        must(write(p->to, &order, 1) == 1 && read(p->from, &done, 1) == 1);
}

static void stop(program *p)
{
    close(p->to);
    close(p->from);
    must(waitpid(p->pid, NULL, 0) == p->pid);
}

/* ---- what it has ---------------------------------------------------------------------------------- */

static weir_queue *jobs;

static void make_queue(const char *name, size_t capacity, weir_overflow overflow)
{
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.name = name;
    opts.capacity = capacity;
    opts.overflow = overflow;
    opts.on_drop = weir_drop_ignore;
    must(weir_queue_create(&jobs, &opts) == WEIR_OK);
}

static void make_jobs(void)
{
    make_queue("jobs", 10, WEIR_OVERFLOW_BLOCK);
}

static void make_dropping(void)
{
    make_queue("jobs", 10, WEIR_OVERFLOW_DROP_OLDEST);
}

static void *put_for_ever(void *arg)
{
    (void)arg;
    while (weir_queue_put(jobs, NULL, 1, WEIR_FOREVER) >= 0)
        ;
    return NULL;
}

static void *get_for_ever(void *arg)
{
    void *item;
    (void)arg;
    while (weir_queue_get(jobs, &item, WEIR_FOREVER) >= 0)
        ;
    return NULL;
}

static void in_thread(void *(*fn)(void *))
{
    pthread_t thread;
    must(pthread_create(&thread, NULL, fn, NULL) == 0);
}

static void obey(char order)
{
    void *item;
    switch (order) {
    case 'p': must(weir_queue_put(jobs, NULL, 1, WEIR_POLL) >= 0); break;
    case 'g': must(weir_queue_get(jobs, &item, WEIR_FOREVER) == WEIR_OK); break;
    case 'P':
        in_thread(put_for_ever);
        soon(snapshot_of(jobs).putters_waiting == 1);
        break;
    case 'G':
        in_thread(get_for_ever);
        soon(snapshot_of(jobs).getters_waiting == 1);
        break;
    default: must(false);
    }
}

/* ---- looking ---------------------------------------------------------------------------------------- */

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
}

static weir_monitor *monitor_of(size_t window, int64_t root_pid)
{
    weir_monitor_opts opts = WEIR_MONITOR_OPTS_INIT;
    weir_monitor *monitor;
    opts.folder = folder;
    opts.window = window;
    opts.root_pid = root_pid;
    must(weir_monitor_create(&monitor, &opts) == WEIR_OK);
    return monitor;
}

static void look(weir_monitor *monitor)
{
    nap();
    assert_int_equal(weir_monitor_look(monitor), WEIR_OK);
}

static const weir_monitor_object *find(weir_monitor *monitor, const char *name)
{
    for (size_t i = 0; i < weir_monitor_objects(monitor); i++)
        if (strcmp(weir_monitor_object_at(monitor, i)->record->name, name) == 0)
            return weir_monitor_object_at(monitor, i);
    return NULL;
}

static const weir_monitor_issue *find_issue(weir_monitor *monitor, weir_issue_kind kind)
{
    for (size_t i = 0; i < weir_monitor_issues(monitor); i++)
        if (weir_monitor_issue_at(monitor, i)->kind == kind)
            return weir_monitor_issue_at(monitor, i);
    return NULL;
}

static void assert_begins(const char *text, const char *beginning)
{
    if (strncmp(text, beginning, strlen(beginning)) != 0)
        fail_msg("\"%s\" does not begin with \"%s\"", text, beginning);
}

static void about(double is, double should_be)
{
    if (!(fabs(is - should_be) < 1e-6))
        fail_msg("%g is not %g", is, should_be);
}

/* What was written. */
typedef struct text {
    char data[1 << 20];
    size_t n, most;
} text;

static text written;

static int write_text(void *ctx, const char *data, size_t n)
{
    text *t = ctx;
    if (t->n + n > t->most)
        return WEIR_ENOMEM;
    memcpy(t->data + t->n, data, n);
    t->n += n;
    t->data[t->n] = '\0';
    return WEIR_OK;
}

static const char *openmetrics(weir_monitor *monitor)
{
    written.n = 0;
    written.most = sizeof written.data - 1;
    assert_int_equal(weir_monitor_write_openmetrics(monitor, write_text, &written), WEIR_OK);
    return written.data;
}

static const char *json(weir_monitor *monitor, bool history)
{
    written.n = 0;
    written.most = sizeof written.data - 1;
    assert_int_equal(weir_monitor_write_json(monitor, history, write_text, &written), WEIR_OK);
    return written.data;
}

static void assert_has(const char *all, const char *part)
{
    if (!strstr(all, part))
        fail_msg("there is no \"%s\" in \"%.2000s\"", part, all);
}

/* ---- tests ------------------------------------------------------------------------------------------ */

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    weir_monitor *monitor = NULL;
    for (int i = 0; i < 6; i++) {
        weir_monitor_opts opts = WEIR_MONITOR_OPTS_INIT;
        opts.folder = folder;
        switch (i) {
        case 0: opts.size = 1; break;
        case 1: opts.window = 1; break;
        case 2: opts.window = 1001; break;
        case 3: opts.root_pid = -1; break;
        case 4: opts.thresholds.queue_share = NAN; break;
        default: opts.folder = ""; break;
        }
        assert_int_equal(weir_monitor_create(&monitor, &opts), WEIR_EINVAL);
        assert_null(monitor);
    }
    weir_monitor_destroy(NULL);
}

static void a_folder_that_is_not_there_yet_has_no_processes(void **state)
{
    (void)state;
    weir_monitor_opts opts = WEIR_MONITOR_OPTS_INIT;
    weir_monitor *monitor;
    char path[128];
    const weir_monitor_object *root;
    snprintf(path, sizeof path, "%s/none", folder);
    opts.folder = path;
    assert_int_equal(weir_monitor_create(&monitor, &opts), WEIR_OK);
    assert_int_equal(weir_monitor_processes(monitor), 0); /* before any look, too */
    assert_string_equal(weir_monitor_root(monitor, 0, &root), "nothing holds anything back");
    look(monitor);
    assert_int_equal(weir_monitor_objects(monitor), 0);
    assert_null(weir_monitor_process_at(monitor, 0));
    assert_null(weir_monitor_object_at(monitor, 0));
    assert_null(weir_monitor_issue_at(monitor, 0));
    assert_has(json(monitor, true), "\"objects\":[]");
    assert_has(openmetrics(monitor), "weir_processes 0\n# EOF\n");
    weir_monitor_destroy(monitor);
}

static void a_folder_of_others_is_an_error_and_what_was_seen_stays(void **state)
{
    (void)state;
    program p = start(make_jobs, obey);
    weir_monitor *monitor = monitor_of(10, 0);
    look(monitor);
    assert_int_equal(chmod(folder, 0755), 0);
    assert_int_equal(weir_monitor_look(monitor), WEIR_EINVAL);
    assert_non_null(find(monitor, "jobs"));
    assert_int_equal(chmod(folder, 0700), 0);
    look(monitor);
    assert_int_equal(find(monitor, "jobs")->sample_count, 2);
    weir_monitor_destroy(monitor);
    stop(&p);
}

static void rates_are_over_the_window(void **state)
{
    (void)state;
    program p = start(make_jobs, obey);
    weir_monitor *monitor = monitor_of(2, 0);
    tell(&p, 'p', 10);
    look(monitor);
    const weir_monitor_object *o = find(monitor, "jobs");
    uint64_t key = o->key;
    assert_true(o->seconds == 0 && o->accepted_per_s == 0 && o->delivered_per_s == 0);
    assert_int_equal(o->record->number[WEIR_STATS_DEPTH], 10);
    about(o->fullness, 1);
    tell(&p, 'g', 7);
    look(monitor);
    o = find(monitor, "jobs");
    about(o->delivered_per_s * o->seconds, 7);
    about(o->accepted_per_s * o->seconds, 0);
    about(o->fullness, 0.3);
    assert_true(o->busy < 0);
    tell(&p, 'p', 2);
    look(monitor);
    o = find(monitor, "jobs");
    about(o->delivered_per_s * o->seconds, 7);
    about(o->accepted_per_s * o->seconds, 2);
    look(monitor);
    o = find(monitor, "jobs");
    about(o->delivered_per_s, 0); /* the first look is beyond the window */
    about(o->accepted_per_s * o->seconds, 2);
    assert_int_equal(o->sample_count, 2);
    assert_true(o->samples[0].accepted_per_s > 0 && o->samples[1].accepted_per_s == 0);
    assert_true(o->samples[0].at_ns < o->samples[1].at_ns);
    about(o->samples[1].depth, 5);
    assert_true(o->key == key);
    weir_monitor_destroy(monitor);
    stop(&p);
}

static void times_are_of_the_window(void **state)
{
    (void)state;
    program p = start(make_jobs, obey);
    weir_monitor *monitor = monitor_of(2, 0);
    look(monitor);
    tell(&p, 'p', 1);
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    tell(&p, 'g', 1);
    look(monitor);
    const weir_monitor_object *o = find(monitor, "jobs");
    assert_int_equal(o->wait.count, 1);
    assert_true(o->wait.p50_ns >= 49 * WEIR_MILLISECOND && o->wait.max_ns >= o->wait.p50_ns);
    assert_true(o->samples[o->sample_count - 1].wait_p99_ns >= 49 * WEIR_MILLISECOND);
    look(monitor);
    assert_int_equal(find(monitor, "jobs")->wait.count, 1);
    look(monitor);
    o = find(monitor, "jobs");
    assert_int_equal(o->wait.count, 0);
    assert_int_equal(o->wait.max_ns, 0);
    assert_int_equal(weir_stats_times_count(&o->record->wait), 1);
    weir_monitor_destroy(monitor);
    stop(&p);
}

static void who_still_waits_is_counted_and_named(void **state)
{
    (void)state;
    program p = start(make_jobs, obey);
    tell(&p, 'P', 1);
    weir_monitor *monitor = monitor_of(10, 0);
    const weir_monitor_object *root;
    look(monitor);
    assert_string_equal(weir_monitor_root(monitor, 0, &root), "nothing holds anything back");
    for (int i = 0; i < 4; i++)
        look(monitor);
    const weir_monitor_object *o = find(monitor, "jobs");
    about(o->put_blocked, 1);
    about(o->pressure, 1);
    about(o->samples[o->sample_count - 1].put_blocked, 1);
    assert_int_equal(o->record->number[WEIR_STATS_PUT_BLOCKED_NS], 0);
    assert_begins(weir_monitor_root(monitor, 0, &root),
                  "queue 'jobs' is full: producers waited 100 % of the last ");
    assert_ptr_equal(root, o);
    assert_true(o->is_root);
    assert_begins(weir_monitor_root(monitor, p.pid, &root), "queue 'jobs' is full: ");
    assert_begins(weir_monitor_root(monitor, getpid(), &root), "no process ");
    assert_null(root);
    assert_non_null(find_issue(monitor, WEIR_ISSUE_QUEUE_HIGH));
    assert_has(openmetrics(monitor), "weir_bottleneck{");
    assert_has(json(monitor, false), "\"root\":{\"text\":\"queue 'jobs' is full: ");
    weir_monitor_destroy(monitor);
    stop(&p);
}

static void what_waiting_adds_up_to_moves_and_never_goes_back(void **state)
{
    (void)state;
    static const char name[] = "weir_blocked_seconds_total";
    program p = start(make_jobs, obey);
    tell(&p, 'P', 1);
    weir_monitor *monitor = monitor_of(10, 0);
    double last = -1;
    for (int i = 0; i < 5; i++) {
        look(monitor);
        const char *at = strstr(openmetrics(monitor), name);
        double now = strtod(strstr(at, "} ") + 2, NULL);
        assert_true(now > last);
        last = now;
        if (i == 2)
            tell(&p, 'g', 1); /* one wait ends, the next one begins */
    }
    weir_monitor_destroy(monitor);
    stop(&p);
}

static void an_idle_program_has_no_issue_and_no_root(void **state)
{
    (void)state;
    program p = start(make_jobs, obey);
    weir_monitor *monitor = monitor_of(10, 0);
    const weir_monitor_object *root;
    for (int i = 0; i < 12; i++)
        look(monitor);
    assert_int_equal(weir_monitor_issues(monitor), 0);
    assert_string_equal(weir_monitor_root(monitor, 0, &root), "nothing holds anything back");
    assert_null(root);
    tell(&p, 'G', 1);
    for (int i = 0; i < 12; i++)
        look(monitor);
    about(find(monitor, "jobs")->get_blocked, 1);
    assert_string_equal(weir_monitor_root(monitor, 0, &root), "nothing holds anything back");
    assert_int_equal(weir_monitor_issues(monitor), 0);
    weir_monitor_destroy(monitor);
    stop(&p);
}

static void consumers_that_wait_are_told_of_where_nothing_presses(void **state)
{
    (void)state;
    program p = start(make_jobs, obey);
    tell(&p, 'G', 1);
    weir_monitor *monitor = monitor_of(10, 0);
    const weir_monitor_object *root;
    look(monitor);
    tell(&p, 'p', 1);
    for (int i = 0; i < 9; i++)
        look(monitor);
    assert_begins(weir_monitor_root(monitor, 0, &root),
                  "nothing holds anything back; consumers of queue 'jobs' wait for work ");
    assert_ptr_equal(root, find(monitor, "jobs"));
    assert_false(root->is_root);
    weir_monitor_destroy(monitor);
    stop(&p);
}

static void drops_are_an_issue_as_long_as_they_are_in_the_window(void **state)
{
    (void)state;
    program p = start(make_dropping, obey);
    weir_monitor *monitor = monitor_of(3, 0);
    look(monitor);
    tell(&p, 'p', 12);
    look(monitor);
    const weir_monitor_issue *i = find_issue(monitor, WEIR_ISSUE_DROPS);
    assert_non_null(i);
    int64_t since = i->since_ns;
    assert_begins(i->text, "queue 'jobs' dropped 2 items within ");
    assert_true(i->value == 2 && i->threshold == 0);
    assert_ptr_equal(i->object, find(monitor, "jobs"));
    assert_true(i->object->issues & 1u << WEIR_ISSUE_DROPS);
    assert_has(openmetrics(monitor), "issue=\"drops\"} 1\n");
    look(monitor);
    assert_true(find_issue(monitor, WEIR_ISSUE_DROPS)->since_ns == since);
    look(monitor);
    look(monitor);
    assert_null(find_issue(monitor, WEIR_ISSUE_DROPS));
    weir_monitor_destroy(monitor);
    stop(&p);
}

static void thresholds_are_the_callers(void **state)
{
    (void)state;
    program p = start(make_dropping, obey);
    weir_monitor_opts opts = WEIR_MONITOR_OPTS_INIT;
    weir_monitor *monitor;
    opts.folder = folder;
    opts.thresholds.drops = UINT64_MAX;
    opts.thresholds.queue_share = -1;
    opts.thresholds.queue_depth = 5;
    opts.thresholds.events = 1;
    assert_int_equal(weir_monitor_create(&monitor, &opts), WEIR_OK);
    look(monitor);
    tell(&p, 'p', 12);
    for (int i = 0; i < 5; i++)
        look(monitor);
    const weir_monitor_issue *i = find_issue(monitor, WEIR_ISSUE_QUEUE_HIGH);
    assert_null(find_issue(monitor, WEIR_ISSUE_DROPS));
    assert_non_null(i);
    about(i->threshold, 5);
    assert_begins(i->text, "queue 'jobs' holds ");
    assert_non_null(find_issue(monitor, WEIR_ISSUE_BACKPRESSURE));
    weir_monitor_destroy(monitor);
    stop(&p);
}

/* ---- others that make callers wait ------------------------------------------------------------------ */

static weir_limit *limit;
static weir_rate *rate;
static weir_governor *governor;
static weir_thread_pool *pool;

static void *acquire(void *arg)
{
    weir_permit permit;
    (void)arg;
    weir_limit_acquire(limit, 1, 0, WEIR_FOREVER, &permit);
    return NULL;
}

static void make_limit(void)
{
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    weir_limit_snapshot now = WEIR_LIMIT_SNAPSHOT_INIT;
    opts.limit = 1;
    opts.name = "db";
    must(weir_limit_create(&limit, &opts) == WEIR_OK);
    acquire(NULL);
    in_thread(acquire);
    in_thread(acquire);
    soon(weir_limit_get_snapshot(limit, &now) == WEIR_OK && now.waiting == 2);
}

static void *take_token(void *arg)
{
    (void)arg;
    weir_rate_acquire(rate, 1, WEIR_FOREVER);
    return NULL;
}

static void make_rate(void)
{
    weir_rate_opts opts = WEIR_RATE_OPTS_INIT;
    weir_rate_snapshot now = WEIR_RATE_SNAPSHOT_INIT;
    opts.rate = 1;
    opts.per_ns = 3600 * WEIR_SECOND;
    opts.name = "api";
    must(weir_rate_create(&rate, &opts) == WEIR_OK);
    take_token(NULL);
    in_thread(take_token);
    soon(weir_rate_get_snapshot(rate, &now) == WEIR_OK && now.waiting == 1);
}

static void *reserve(void *arg)
{
    (void)arg;
    weir_governor_reserve(governor, 1 << 20, WEIR_FOREVER);
    return NULL;
}

static void *take_and_return(void *arg)
{
    weir_permit permit;
    (void)arg;
    while (weir_limit_acquire(limit, 1, 0, WEIR_FOREVER, &permit) == WEIR_OK) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        weir_limit_release(limit, &permit, WEIR_LIMIT_IGNORE);
    }
    return NULL;
}

static void make_crowd(bool lifo)
{
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    opts.limit = 1;
    opts.lifo = lifo;
    opts.name = "crowd";
    must(weir_limit_create(&limit, &opts) == WEIR_OK);
    for (int i = 0; i < 8; i++)
        in_thread(take_and_return);
}

static void make_queueing_crowd(void)
{
    make_crowd(false);
}

static void make_stacked_crowd(void)
{
    make_crowd(true);
}

static void *take_tokens(void *arg)
{
    (void)arg;
    while (weir_rate_acquire(rate, 1, WEIR_FOREVER) == WEIR_OK)
        continue;
    return NULL;
}

static void make_drip(void)
{
    weir_rate_opts opts = WEIR_RATE_OPTS_INIT;
    opts.rate = 300;
    opts.burst = 1;
    opts.name = "crowd";
    must(weir_rate_create(&rate, &opts) == WEIR_OK);
    in_thread(take_tokens);
}

static void make_governor(void)
{
    weir_governor_opts opts = WEIR_GOVERNOR_OPTS_INIT;
    weir_governor_snapshot now = WEIR_GOVERNOR_SNAPSHOT_INIT;
    opts.limit_bytes = 1 << 20; /* this process has more: one reservation goes in all the same */
    opts.name = "memory";
    must(weir_governor_create(&governor, &opts) == WEIR_OK);
    reserve(NULL);
    in_thread(reserve);
    soon(weir_governor_get_snapshot(governor, &now) == WEIR_OK && now.waiting == 1);
}

static void work_for_ever(void *arg)
{
    (void)arg;
    for (;;)
        pause();
}

static void drop_task(weir_task_fn *fn, void *arg, weir_drop_reason reason, void *ctx)
{
    (void)fn, (void)arg, (void)reason, (void)ctx;
}

static void *submit_for_ever(void *arg)
{
    (void)arg;
    while (weir_thread_pool_submit(pool, work_for_ever, NULL, WEIR_FOREVER) >= 0)
        ;
    return NULL;
}

static void make_pool(void)
{
    weir_thread_pool_opts opts = WEIR_THREAD_POOL_OPTS_INIT;
    weir_thread_pool_snapshot now = WEIR_THREAD_POOL_SNAPSHOT_INIT;
    opts.threads = 1;
    opts.backlog = 4;
    opts.on_drop = drop_task;
    opts.name = "resize";
    must(weir_thread_pool_create(&pool, &opts) == WEIR_OK);
    in_thread(submit_for_ever);
    soon(weir_thread_pool_get_snapshot(pool, &now) == WEIR_OK && now.running == 1 &&
         now.waiting == 4); /* so it has come to the one that has to wait, or soon will */
}

/* Programs that exit would wait for what holds them. */
static void kill_off(program *p)
{
    must(kill(p->pid, SIGKILL) == 0);
    stop(p);
}

static void work_a_while(void *done)
{
    nap();
    sem_post(done);
}

/* Returns when the pool's one thread has nothing to do again. */
static void obey_with_a_task(char order)
{
    weir_thread_pool_snapshot now = WEIR_THREAD_POOL_SNAPSHOT_INIT;
    sem_t done;
    (void)order;
    must(sem_init(&done, 0, 0) == 0);
    must(weir_thread_pool_submit(pool, work_a_while, &done, WEIR_POLL) >= 0);
    must(sem_wait(&done) == 0);
    soon(weir_thread_pool_get_snapshot(pool, &now) == WEIR_OK && now.running == 0);
}

static void make_calm_pool(void)
{
    weir_thread_pool_opts opts = WEIR_THREAD_POOL_OPTS_INIT;
    opts.threads = 1;
    opts.backlog = 4;
    opts.on_drop = drop_task;
    opts.name = "resize";
    must(weir_thread_pool_create(&pool, &opts) == WEIR_OK);
}

/* Whatever the looks see it do. */
static void workers_are_busy_for_as_long_as_their_tasks_take(void **state)
{
    (void)state;
    program p = start(make_calm_pool, obey_with_a_task);
    weir_monitor *monitor = monitor_of(10, p.pid);
    look(monitor);
    for (int i = 0; i < 6; i++) {
        tell(&p, 't', 1);
        look(monitor); /* a nap later */
    }
    const weir_monitor_object *o = find(monitor, "resize");
    assert_int_equal(o->record->number[WEIR_STATS_IN_FLIGHT], 0);
    assert_true(o->busy > 0.1 && o->busy < 0.9);
    weir_monitor_destroy(monitor);
    kill_off(&p);
}

/* Whoever is let in first, and whenever the looks come. */
static void as_many_callers_wait_as_do_on_average(void **state)
{
    (void)state;
    static const struct {
        void (*set_up)(void);
        double callers;
    } all[] = {{make_queueing_crowd, 7}, {make_stacked_crowd, 7}, {make_drip, 1}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        program p = start(all[i].set_up, obey);
        weir_monitor *monitor = monitor_of(10, p.pid);
        const weir_monitor_object *o;
        do
            look(monitor);
        while (!(o = find(monitor, "crowd")) || o->record->number[WEIR_STATS_PUT_WAITS] < 10);
        for (int j = 0; j < 10; j++) {
            look(monitor);
            o = find(monitor, "crowd");
            assert_true(o->put_blocked <= all[i].callers * 1.01);
            assert_true(o->record->number[WEIR_STATS_PUT_WAITING_SINCE] > 0);
        }
        assert_true(o->put_blocked >= all[i].callers * 0.7);
        weir_monitor_destroy(monitor);
        kill_off(&p);
    }
}

static void whatever_makes_callers_wait_is_named(void **state)
{
    (void)state;
    static const struct {
        void (*set_up)(void);
        const char *beginning, *end;
    } all[] = {
        {make_limit, "limit 'db' is reached: 2 callers waited on average over the last ",
         "; 1 call is under way, of 1"},
        {make_rate, "rate 'api' is used up: callers waited 100 % of the last ",
         "; it allows 1 token an hour"},
        {make_governor,
         "memory governor 'memory' holds work back: callers waited 100 % of the last ",
         "; 1 MiB reserved, of at most "},
        {make_pool, "thread pool 'resize' is full: submitters waited ",
         "; its 1 worker (busy 100 %) completes 0 tasks/s"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        program p = start(all[i].set_up, obey);
        weir_monitor *monitor = monitor_of(10, p.pid);
        const weir_monitor_object *root;
        do
            look(monitor);
        while (weir_monitor_object_at(monitor, 0)->record->number[WEIR_STATS_PUT_WAITING] == 0);
        for (int j = 0; j < 9; j++)
            look(monitor);
        const char *said = weir_monitor_root(monitor, 0, &root);
        assert_begins(said, all[i].beginning);
        assert_has(said, all[i].end);
        assert_true(root->is_root);
        weir_monitor_destroy(monitor);
        kill_off(&p);
    }
}

/* ---- processes -------------------------------------------------------------------------------------- */

static void make_family(void)
{
    int ready[2];
    char byte;
    make_queue("parent's", 10, WEIR_OVERFLOW_BLOCK);
    must(pipe(ready) == 0);
    if (fork() == 0) {
        pid_t parent = getppid();
        make_queue("child's 1", 10, WEIR_OVERFLOW_BLOCK);
        make_queue("child's 2", 10, WEIR_OVERFLOW_BLOCK);
        must(write(ready[1], "", 1) == 1);
        while (getppid() == parent)
            nap();
        exit(0);
    }
    must(read(ready[0], &byte, 1) == 1);
}

static void children_come_below_their_parents(void **state)
{
    (void)state;
    program stranger = start(make_jobs, obey), p = start(make_family, obey);
    weir_monitor *all = monitor_of(2, 0), *family = monitor_of(2, p.pid);
    look(all);
    look(family);
    assert_int_equal(weir_monitor_processes(all), 3);
    assert_int_equal(weir_monitor_objects(all), 4);
    assert_int_equal(weir_monitor_processes(family), 2);
    const weir_monitor_process *parent = weir_monitor_process_at(family, 0);
    const weir_monitor_process *child = weir_monitor_process_at(family, 1);
    assert_int_equal(parent->process.pid, p.pid);
    assert_int_equal(child->process.parent, p.pid);
    assert_int_equal(parent->depth, 0);
    assert_int_equal(child->depth, 1);
    assert_int_equal(child->first, 1);
    assert_int_equal(child->objects, 2);
    assert_int_equal(child->uid, geteuid());
    assert_string_equal(weir_monitor_object_at(family, 1)->record->name, "child's 1");
    assert_string_equal(weir_monitor_object_at(family, 2)->record->name, "child's 2");
    assert_ptr_equal(weir_monitor_object_at(family, 2)->process, child);
    weir_monitor_destroy(all);
    weir_monitor_destroy(family);
    stop(&p); /* first: it has inherited the other one's pipe */
    stop(&stranger);
    soon(files("") == 0);
}

static void what_has_gone_is_forgotten(void **state)
{
    (void)state;
    program p = start(make_jobs, obey);
    weir_monitor *monitor = monitor_of(10, 0);
    look(monitor);
    assert_int_equal(weir_monitor_objects(monitor), 1);
    stop(&p);
    look(monitor);
    assert_int_equal(weir_monitor_processes(monitor), 0);
    assert_int_equal(weir_monitor_objects(monitor), 0);
    weir_monitor_destroy(monitor);
}

/* ---- writing it down -------------------------------------------------------------------------------- */

static void make_hostile(void)
{
    weir_breaker_opts opts = WEIR_BREAKER_OPTS_INIT;
    weir_breaker *breaker;
    opts.name = "db";
    must(weir_breaker_create(&breaker, &opts) == WEIR_OK);
    must(weir_breaker_isolate(breaker) == WEIR_OK);
    make_queue("a\"b\\c\n\xff\xc3\xa9", 10, WEIR_OVERFLOW_BLOCK);
    must(weir_queue_put(jobs, NULL, 3, WEIR_POLL) >= 0);
}

static void names_stay_within_their_quotes(void **state)
{
    (void)state;
    program p = start(make_hostile, obey);
    weir_monitor *monitor = monitor_of(10, 0);
    look(monitor);
    char line[256];
    uint64_t id = weir_monitor_object_at(monitor, 1)->record->id;
    snprintf(
        line, sizeof line,
        "\nweir_accepted_cost_total{pid=\"%d\",kind=\"queue\",name=\"a\\\"b\\\\c?\xef\xbf\xbd\xc3"
        "\xa9\",object=\"%llu\"} 3\n",
        (int)p.pid, (unsigned long long)id);
    assert_has(openmetrics(monitor), line);
    snprintf(line, sizeof line, "{\"key\":\"%d-%llu\",", (int)p.pid, (unsigned long long)id);
    assert_has(json(monitor, false), line);
    assert_has(written.data, "\"name\":\"a\\\"b\\\\c?\xef\xbf\xbd\xc3\xa9\"");
    weir_monitor_destroy(monitor);
    stop(&p);
}

static void states_are_written_by_name(void **state)
{
    (void)state;
    program p = start(make_hostile, obey);
    weir_monitor *monitor = monitor_of(10, 0);
    look(monitor);
    assert_has(openmetrics(monitor), "state=\"isolated\"} 1\n");
    assert_has(written.data, "state=\"closed\"} 0\n");
    assert_has(json(monitor, true), "\"state_name\":\"isolated\"");
    assert_has(written.data, "\"history\":{\"at\":[");
    assert_null(strstr(json(monitor, false), "\"history\""));
    const weir_monitor_issue *i = find_issue(monitor, WEIR_ISSUE_BREAKER_OPEN);
    assert_non_null(i);
    assert_begins(i->text, "circuit breaker 'db' is isolated: 0 calls were not let through");
    weir_monitor_destroy(monitor);
    stop(&p);
}

static void what_write_says_ends_it(void **state)
{
    (void)state;
    program p = start(make_jobs, obey);
    weir_monitor *monitor = monitor_of(10, 0);
    look(monitor);
    written.n = 0;
    written.most = 4096;
    assert_int_equal(weir_monitor_write_openmetrics(monitor, write_text, &written), WEIR_ENOMEM);
    assert_int_equal(written.n, 4096);
    written.most = 0;
    written.n = 0;
    assert_int_equal(weir_monitor_write_json(monitor, true, write_text, &written), WEIR_ENOMEM);
    weir_monitor_destroy(monitor);
    stop(&p);
}

static void issues_have_names(void **state)
{
    (void)state;
    assert_string_equal(weir_issue_name(WEIR_ISSUE_QUEUE_HIGH), "queue_high");
    assert_string_equal(weir_issue_name(WEIR_ISSUE_WORKERS_DIE), "workers_die");
    assert_string_equal(weir_issue_name(WEIR_ISSUES), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(options_out_of_range_are_refused),
        IN_FOLDER(a_folder_that_is_not_there_yet_has_no_processes),
        IN_FOLDER(a_folder_of_others_is_an_error_and_what_was_seen_stays),
        IN_FOLDER(rates_are_over_the_window),
        IN_FOLDER(times_are_of_the_window),
        IN_FOLDER(who_still_waits_is_counted_and_named),
        IN_FOLDER(what_waiting_adds_up_to_moves_and_never_goes_back),
        IN_FOLDER(an_idle_program_has_no_issue_and_no_root),
        IN_FOLDER(consumers_that_wait_are_told_of_where_nothing_presses),
        IN_FOLDER(drops_are_an_issue_as_long_as_they_are_in_the_window),
        IN_FOLDER(thresholds_are_the_callers),
        IN_FOLDER(workers_are_busy_for_as_long_as_their_tasks_take),
        IN_FOLDER(as_many_callers_wait_as_do_on_average),
        IN_FOLDER(whatever_makes_callers_wait_is_named),
        IN_FOLDER(children_come_below_their_parents),
        IN_FOLDER(what_has_gone_is_forgotten),
        IN_FOLDER(names_stay_within_their_quotes),
        IN_FOLDER(states_are_written_by_name),
        IN_FOLDER(what_write_says_ends_it),
        cmocka_unit_test(issues_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
