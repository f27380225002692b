/* What other processes see: each object is looked at from a process of its own. */
#include "support.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/breaker.h>
#include <weir/limit.h>
#include <weir/memory.h>
#include <weir/pipeline.h>
#include <weir/pool.h>
#include <weir/rate.h>
#include <weir/stats.h>
#include <weir/thread_pool.h>

#include "seen.h"

/* The outside and the inside of a queue that nobody is in a call of. */
/* A call that waits spins before it comes into line, and is told a little later that it may go; for short
 * waits both are much. */
static bool is_in_line(uint64_t told_ns, uint64_t called_ns)
{
    return told_ns <= 4 * called_ns + WEIR_MILLISECOND * 100 && (told_ns == 0 || called_ns > 0);
}

static bool is_as_inside(const weir_stats_record *out, weir_queue *queue)
{
    weir_queue_snapshot in = snapshot_of(queue);
    const uint64_t *n = out->number;
    bool same_drops = true;
    for (int i = 0; i < WEIR_DROP_REASONS; i++)
        same_drops = same_drops && n[WEIR_STATS_DROPPED_NEWEST + i] == in.dropped[i] &&
                     n[WEIR_STATS_DROPPED_NEWEST_COST + i] == in.dropped_cost[i];
    return out->is_exact && same_drops && n[WEIR_STATS_ACCEPTED] == in.accepted &&
           n[WEIR_STATS_ACCEPTED_COST] == in.accepted_cost &&
           n[WEIR_STATS_DELIVERED] == in.delivered &&
           n[WEIR_STATS_DELIVERED_COST] == in.delivered_cost && n[WEIR_STATS_DEPTH] == in.depth &&
           n[WEIR_STATS_DEPTH_COST] == in.cost && n[WEIR_STATS_IN_FLIGHT] == in.in_flight &&
           n[WEIR_STATS_IN_FLIGHT_COST] == in.in_flight_cost &&
           n[WEIR_STATS_REFUSED] == in.refused && n[WEIR_STATS_PEAK_DEPTH] == in.peak_depth &&
           is_in_line(n[WEIR_STATS_PUT_BLOCKED_NS], in.put_blocked_ns) &&
           is_in_line(n[WEIR_STATS_GET_BLOCKED_NS], in.get_blocked_ns) &&
           n[WEIR_STATS_PUT_WAITING] == in.putters_waiting &&
           n[WEIR_STATS_GET_WAITING] == in.getters_waiting && n[WEIR_STATS_CLOSED] == in.closed &&
           n[WEIR_STATS_ABOVE_HIGH] == in.above_high;
}

static weir_queue *make(const char *name, size_t capacity, weir_overflow overflow)
{
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    weir_queue *queue;
    opts.name = name;
    opts.capacity = capacity;
    opts.overflow = overflow;
    opts.on_drop = weir_drop_ignore;
    must(weir_queue_create(&queue, &opts) == WEIR_OK);
    return queue;
}

/* ---- queues ------------------------------------------------------------------------------------ */

static void a_queue_is_seen_by_its_name_with_its_process(void **state)
{
    (void)state;
    weir_queue *queue = make("jobs", 10, WEIR_OVERFLOW_BLOCK);
    look seen = look_for("jobs");
    assert_true(seen.found);
    assert_int_equal(seen.process.pid, getpid());
    assert_int_equal(seen.process.parent, getppid());
    assert_int_equal(seen.process.unrecorded, 0);
    assert_true(seen.process.rss_bytes > 100000);
    assert_string_equal(seen.process.library, weir_version());
    assert_non_null(strstr(seen.process.command, "contract_stats"));
    assert_int_equal(seen.record.kind, WEIR_STATS_QUEUE);
    assert_int_equal(seen.record.number[WEIR_STATS_CAPACITY], 10);
    assert_true(seen.record.created_ns >= seen.process.created_ns);
    weir_queue_destroy(queue);
    assert_false(look_for("jobs").found);
}

/* U+009B begins the same sequences as ESC [ does. */
static void a_name_that_would_disturb_a_terminal_is_read_without_what_would(void **state)
{
    (void)state;
    weir_queue *queue = make("\x1b[2J \xc2\x9b"
                             "2J \xc2\xa0 \xc3\x9b",
                             1, WEIR_OVERFLOW_BLOCK);
    assert_true(look_for("?[2J ??2J \xc2\xa0 \xc3\x9b").found);
    weir_queue_destroy(queue);
}

static void a_queue_without_a_name_gets_one_and_one_named_nothing_is_not_seen(void **state)
{
    (void)state;
    weir_queue *hidden = make("", 10, WEIR_OVERFLOW_BLOCK);
    assert_false(look_for("").found);
    weir_queue *first = make(NULL, 10, WEIR_OVERFLOW_BLOCK);
    weir_queue *second = make(NULL, WEIR_UNBOUNDED, WEIR_OVERFLOW_BLOCK);
    assert_true(look_for("queue-1").found);
    assert_true(see("queue-2").number[WEIR_STATS_CAPACITY] == UINT64_MAX);
    weir_queue_destroy(hidden);
    weir_queue_destroy(first);
    weir_queue_destroy(second);
}

/* One of what a program may do, that does not wait. */
static void do_something(weir_queue *queue, unsigned *random, size_t *flying)
{
    void *items[8];
    uint64_t costs[8];
    *random = *random * 1103515245 + 12345;
    unsigned chance = *random >> 16;
    switch (chance % 8) {
    case 0:
    case 1:
    case 2: weir_queue_put(queue, queue, chance % 100, WEIR_POLL); return;
    case 3:
        for (size_t i = 0; i < 8; i++)
            items[i] = queue, costs[i] = i;
        weir_queue_put_many(queue, items, costs, chance % 8, WEIR_POLL);
        return;
    case 4:
    case 5: *flying += weir_queue_get(queue, items, WEIR_POLL) == WEIR_OK; return;
    case 6: {
        int64_t n = weir_queue_get_many(queue, items, NULL, 1 + chance % 8, WEIR_POLL, 0);
        *flying += n > 0 ? (size_t)n : 0;
        return;
    }
    default:
        if (chance % 1024 == 7)
            weir_queue_discard(queue);
        if (chance % 1024 == 15)
            weir_queue_resize(queue, 5 + chance % 20, 0);
        if (weir_queue_done(queue, *flying / 2, 0) == WEIR_OK)
            *flying -= *flying / 2;
    }
}

static void after_ten_thousand_random_calls_every_number_is_exact(void **state)
{
    (void)state;
    for (int overflow = WEIR_OVERFLOW_BLOCK; overflow <= WEIR_OVERFLOW_SAMPLE; overflow++)
        for (int in_flight = 0; in_flight < 2; in_flight++) {
            weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
            weir_queue *queue;
            opts.name = "random";
            opts.capacity = 20;
            opts.overflow = (weir_overflow)overflow;
            opts.bound_in_flight = in_flight;
            opts.on_drop = weir_drop_ignore;
            assert_int_equal(weir_queue_create(&queue, &opts), WEIR_OK);
            unsigned random = (unsigned)overflow;
            size_t flying = 0;
            for (int i = 0; i < 10000; i++)
                do_something(queue, &random, &flying);
            weir_stats_record seen = see("random");
            assert_true(seen.number[WEIR_STATS_DELIVERED] > 1000);
            assert_true(is_as_inside(&seen, queue));
            weir_queue_destroy(queue);
        }
}

static void who_waits_is_seen_while_it_waits_and_since_when(void **state)
{
    (void)state;
    weir_queue *queue = make("full", 1, WEIR_OVERFLOW_BLOCK);
    assert_int_equal(weir_queue_put(queue, NULL, 0, WEIR_POLL), WEIR_KEPT);
    weir_time before = weir_now();
    other putter = {.queue = queue, .deadline = WEIR_FOREVER};
    start_waiting_put(&putter);
    weir_stats_record seen = see("full");
    assert_int_equal(seen.number[WEIR_STATS_PUT_WAITING], 1);
    assert_true(seen.number[WEIR_STATS_PUT_WAITING_SINCE] >= (uint64_t)before &&
                seen.number[WEIR_STATS_PUT_WAITING_SINCE] <= (uint64_t)weir_now());
    assert_int_equal(seen.number[WEIR_STATS_PUT_BLOCKED_NS], 0);
    void *item;
    assert_int_equal(weir_queue_get(queue, &item, WEIR_POLL), WEIR_OK);
    assert_int_equal(finish(&putter), WEIR_KEPT);
    weir_queue_depth(queue);
    seen = see("full");
    assert_int_equal(seen.number[WEIR_STATS_PUT_WAITING], 0);
    assert_true(seen.number[WEIR_STATS_PUT_WAITING_SINCE] > (uint64_t)before);
    assert_true(seen.number[WEIR_STATS_PUT_BLOCKED_NS] > 0);
    assert_true(is_as_inside(&seen, queue));
    weir_queue_destroy(queue);
}

static void how_long_items_were_inside_is_seen(void **state)
{
    (void)state;
    weir_queue *queue = make("slow", 10, WEIR_OVERFLOW_BLOCK);
    for (int i = 0; i < 5; i++) {
        void *item;
        weir_time before = weir_now();
        assert_int_equal(weir_queue_put(queue, NULL, 0, WEIR_POLL), WEIR_KEPT);
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
        assert_int_equal(weir_queue_get(queue, &item, WEIR_POLL), WEIR_OK);
        weir_time at_most = weir_now() - before;
        weir_stats_record seen = see("slow");
        assert_int_equal(weir_stats_times_count(&seen.wait), i + 1);
        assert_true(seen.wait.max_ns >= 5000000);
        assert_true(weir_stats_percentile(&seen.wait, 0) >= 4900000);
        if (i == 0)
            assert_true(seen.wait.max_ns <= (uint64_t)at_most &&
                        seen.wait.sum_ns == seen.wait.max_ns);
    }
    weir_queue_destroy(queue);
}

/* A thread that puts and one that gets, for a while. */
static _Atomic bool over;

static void *produce(void *arg)
{
    for (uintptr_t i = 0; !over; i++)
        weir_queue_put(arg, number(i), 3, WEIR_FOREVER);
    weir_queue_close(arg);
    return NULL;
}

static void *consume(void *arg)
{
    void *item;
    while (weir_queue_get(arg, &item, WEIR_FOREVER) == WEIR_OK)
        ;
    return NULL;
}

static void no_counter_goes_back_while_threads_put_get_and_drop(void **state)
{
    (void)state;
    for (int overflow = WEIR_OVERFLOW_BLOCK; overflow <= WEIR_OVERFLOW_SAMPLE; overflow++) {
        weir_queue *queue = make("busy", 50, (weir_overflow)overflow);
        pthread_t threads[2];
        over = false;
        must(pthread_create(&threads[0], NULL, produce, queue) == 0);
        must(pthread_create(&threads[1], NULL, consume, queue) == 0);
        static weir_stats_record before, now;
        memset(&before, 0, sizeof before);
        weir_stats *stats;
        weir_stats_process process = WEIR_STATS_PROCESS_INIT;
        must(weir_stats_open(&stats, NULL) == WEIR_OK);
        for (int i = 0, exact = 0; i < 3000 || exact == 0; i++, before = now) {
            now = (weir_stats_record)WEIR_STATS_RECORD_INIT;
            must(weir_stats_next_process(stats, &process) == 1);
            must(weir_stats_next_record(stats, &now) == 1 && strcmp(now.name, "busy") == 0);
            for (int j = 0; j < WEIR_STATS_NUMBERS; j++)
                assert_true(!weir_stats_is_counter(j) || now.number[j] >= before.number[j]);
            assert_true(weir_stats_times_count(&now.wait) >= weir_stats_times_count(&before.wait));
            exact += now.is_exact;
            must(weir_stats_next_process(stats, &process) == 0);
        }
        weir_stats_close(stats);
        over = true;
        for (int i = 0; i < 2; i++)
            pthread_join(threads[i], NULL);
        weir_stats_record seen = see("busy");
        assert_true(is_as_inside(&seen, queue));
        assert_int_equal(seen.number[WEIR_STATS_DEPTH], 0);
        weir_queue_destroy(queue);
    }
}

/* ---- thread pools ------------------------------------------------------------------------------- */

static void nap(void *arg)
{
    (void)arg;
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

static void drop_task(weir_task_fn *fn, void *arg, weir_drop_reason reason, void *ctx)
{
    (void)fn, (void)arg, (void)reason, (void)ctx;
}

static void a_thread_pool_is_seen_with_its_tasks_and_how_long_they_take(void **state)
{
    (void)state;
    weir_thread_pool_opts opts = WEIR_THREAD_POOL_OPTS_INIT;
    weir_thread_pool *pool;
    opts.name = "nappers";
    opts.threads = 3;
    opts.backlog = 5;
    opts.on_drop = drop_task;
    assert_int_equal(weir_thread_pool_create(&pool, &opts), WEIR_OK);
    for (int i = 0; i < 20; i++)
        assert_int_equal(weir_thread_pool_submit(pool, nap, NULL, WEIR_FOREVER), WEIR_KEPT);
    assert_int_equal(weir_thread_pool_drain(pool, WEIR_FOREVER), WEIR_OK);
    weir_stats_record seen = see("nappers");
    assert_int_equal(seen.kind, WEIR_STATS_THREAD_POOL);
    assert_int_equal(seen.number[WEIR_STATS_WORKERS], 3);
    assert_int_equal(seen.number[WEIR_STATS_CAPACITY], 8);
    assert_int_equal(seen.number[WEIR_STATS_ACCEPTED], 20);
    assert_int_equal(seen.number[WEIR_STATS_DONE], 20);
    assert_int_equal(seen.number[WEIR_STATS_IN_FLIGHT], 0);
    assert_int_equal(seen.number[WEIR_STATS_DEPTH], 0);
    assert_true(seen.number[WEIR_STATS_PUT_BLOCKED_NS] > 0);
    assert_int_equal(weir_stats_times_count(&seen.service), 20);
    assert_true(weir_stats_percentile(&seen.service, 0.5) >= 1900000);
    weir_thread_pool_destroy(pool);
    assert_false(look_for("nappers").found);
}

/* ---- pipelines ---------------------------------------------------------------------------------- */

static int take_a_nap(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx, (void)items, (void)n, (void)run;
    nap(NULL);
    return WEIR_OK;
}

static void drop_item(void *item, weir_stage stage, weir_loss reason, void *ctx)
{
    (void)item, (void)stage, (void)reason, (void)ctx;
}

static void the_stages_of_a_pipeline_are_seen_with_its_name_and_how_long_they_work(void **state)
{
    (void)state;
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    weir_stage_opts stage_opts = WEIR_STAGE_OPTS_INIT;
    weir_pipeline *pipeline;
    weir_stage stage;
    opts.name = "photos";
    opts.on_drop = drop_item;
    stage_opts.name = "resize";
    stage_opts.fn = take_a_nap;
    stage_opts.open = true;
    stage_opts.queue = 4;
    assert_int_equal(weir_pipeline_create(&pipeline, &opts), WEIR_OK);
    assert_int_equal(weir_pipeline_add(pipeline, &stage_opts, &stage), WEIR_OK);
    assert_int_equal(weir_pipeline_start(pipeline), WEIR_OK);
    for (int i = 0; i < 20; i++)
        assert_int_equal(weir_pipeline_put(pipeline, stage, NULL, 2, WEIR_FOREVER), WEIR_KEPT);
    soon(see("photos/resize").number[WEIR_STATS_WORKERS] == 1);
    weir_pipeline_close_input(pipeline, stage);
    assert_int_equal(weir_pipeline_wait(pipeline, WEIR_FOREVER), WEIR_OK);
    weir_stats_record seen = see("photos/resize");
    assert_int_equal(seen.kind, WEIR_STATS_STAGE);
    assert_int_equal(seen.number[WEIR_STATS_CAPACITY], 4);
    assert_int_equal(seen.number[WEIR_STATS_ACCEPTED], 20);
    assert_int_equal(seen.number[WEIR_STATS_ACCEPTED_COST], 40);
    assert_int_equal(seen.number[WEIR_STATS_DELIVERED], 20);
    assert_int_equal(seen.number[WEIR_STATS_DEPTH], 0);
    assert_int_equal(seen.number[WEIR_STATS_CLOSED], 1);
    assert_true(seen.number[WEIR_STATS_PUT_BLOCKED_NS] > 0);
    assert_int_equal(weir_stats_times_count(&seen.service), 20);
    assert_true(weir_stats_percentile(&seen.service, 0.5) >= 1900000);
    weir_pipeline_destroy(pipeline);
    assert_false(look_for("photos/resize").found);
}

/* ---- process pools ------------------------------------------------------------------------------ */

/* Replies after two milliseconds; dies of a task that is 1. */
static void work(weir_worker *worker, const weir_task *task, void *ctx)
{
    (void)ctx;
    nap(NULL);
    if (*(const char *)task->data == 1)
        abort();
    weir_worker_reply(worker, 0, NULL, 0);
}

static size_t collect(weir_pool *pool, size_t n)
{
    weir_completion done[8];
    size_t got = 0;
    while (got < n) {
        int64_t rc = weir_pool_collect(pool, done, 8, WEIR_FOREVER);
        must(rc > 0);
        weir_pool_settle(pool, (size_t)rc);
        got += (size_t)rc;
    }
    return got;
}

static void a_process_pool_is_seen_with_its_tasks_and_its_workers(void **state)
{
    (void)state;
    weir_pool_opts opts = WEIR_POOL_OPTS_INIT;
    weir_pool *pool;
    opts.name = "crunchers";
    opts.workers = 2;
    opts.backlog = 8;
    opts.on_drop = weir_drop_ignore;
    opts.handler = work;
    assert_int_equal(weir_pool_create(&pool, &opts), WEIR_OK);
    for (int i = 0; i < 10; i++) {
        char task = i == 5;
        weir_bytes part = {&task, 1};
        assert_int_equal(weir_pool_submit(pool, &part, 1, NULL, WEIR_POLL, NULL), WEIR_KEPT);
    }
    weir_stats_record seen = see("crunchers");
    assert_int_equal(seen.kind, WEIR_STATS_PROCESS_POOL);
    assert_int_equal(seen.number[WEIR_STATS_CAPACITY], 10);
    assert_int_equal(seen.number[WEIR_STATS_ACCEPTED], 10);
    assert_int_equal(seen.number[WEIR_STATS_DEPTH], 10);
    assert_int_equal(weir_pool_submit(pool, &(weir_bytes){"", 1}, 1, NULL, WEIR_POLL, NULL),
                     WEIR_EFULL);
    assert_int_equal(collect(pool, 10), 10);
    seen = see("crunchers");
    assert_true(seen.is_exact);
    assert_int_equal(seen.number[WEIR_STATS_ACCEPTED], 10);
    assert_int_equal(seen.number[WEIR_STATS_DONE], 10);
    assert_int_equal(seen.number[WEIR_STATS_DELIVERED], 10);
    assert_int_equal(seen.number[WEIR_STATS_DEPTH], 0);
    assert_int_equal(seen.number[WEIR_STATS_IN_FLIGHT], 0);
    assert_int_equal(seen.number[WEIR_STATS_FAILED], 1);
    assert_int_equal(seen.number[WEIR_STATS_RESTARTS], 1);
    assert_in_range(seen.number[WEIR_STATS_WORKERS], 1, 2);
    assert_int_equal(weir_stats_times_count(&seen.service), 9);
    assert_true(seen.number[WEIR_STATS_BUSY_NS] >= UINT64_C(9) * 1900000);
    assert_int_equal(seen.number[WEIR_STATS_BUSY_NS], seen.service.sum_ns);
    assert_true(weir_stats_percentile(&seen.service, 0.5) >= 1900000);
    weir_pool_destroy(pool);
    assert_false(look_for("crunchers").found);
}

/* A worker that has a queue of its own. */
static void make_and_work(weir_worker *worker, const weir_task *task, void *ctx)
{
    static weir_queue *queue;
    if (!queue)
        queue = make("inner", 3, WEIR_OVERFLOW_BLOCK);
    work(worker, task, ctx);
}

static void submit_byte(weir_pool *pool, char task)
{
    weir_bytes part = {&task, 1};
    must(weir_pool_submit(pool, &part, 1, NULL, WEIR_POLL, NULL) == WEIR_KEPT);
}

static void the_workers_of_a_process_pool_are_seen_with_what_they_do(void **state)
{
    (void)state;
    weir_pool_opts opts = WEIR_POOL_OPTS_INIT;
    weir_pool *pool;
    opts.name = "hands";
    opts.workers = 1;
    opts.backlog = 8;
    opts.on_drop = weir_drop_ignore;
    opts.handler = make_and_work;
    assert_int_equal(weir_pool_create(&pool, &opts), WEIR_OK);
    assert_false(look_for("hands/0").found);
    submit_byte(pool, 0);
    assert_int_equal(collect(pool, 1), 1);
    weir_stats_record seen = see("hands/0");
    look inner = look_for("inner");
    assert_true(inner.found);
    assert_int_equal(inner.process.parent, getpid());
    assert_int_equal(seen.kind, WEIR_STATS_WORKER);
    assert_int_equal(seen.number[WEIR_STATS_PID], inner.process.pid);
    assert_int_equal(seen.number[WEIR_STATS_OWNER], see("hands").id);
    assert_int_equal(seen.number[WEIR_STATS_PLACE], 0);
    for (char task = 0; task < 3; task++)
        submit_byte(pool, task);
    assert_int_equal(collect(pool, 3), 3);
    soon((seen = see("hands/0")).number[WEIR_STATS_IN_FLIGHT] == 0);
    assert_int_equal(seen.number[WEIR_STATS_DONE], 3);
    assert_int_equal(seen.number[WEIR_STATS_FAILED], 1);
    assert_int_equal(seen.number[WEIR_STATS_RESTARTS], 1);
    assert_int_equal(weir_stats_times_count(&seen.service), 3);
    assert_int_equal(seen.number[WEIR_STATS_BUSY_NS], seen.service.sum_ns);
    weir_pool_destroy(pool);
    assert_false(look_for("hands/0").found);
}

static const uint64_t *numbers_of(look *ret, const char *name)
{
    memset(ret, 0, sizeof *ret);
    return find(ret, 0, name) ? ret->record.number : NULL;
}

/* Looks as long as the pool is there.  Whether a counter went back, or the law did not hold. */
static bool sees_wrong(const char *name)
{
    static look seen;
    const uint64_t *n;
    uint64_t before = 0;
    bool is_wrong = false;
    while (!(n = numbers_of(&seen, name)))
        continue;
    for (; n; n = numbers_of(&seen, name)) {
        is_wrong |= n[WEIR_STATS_DELIVERED] < before;
        is_wrong |= seen.record.is_exact && n[WEIR_STATS_ACCEPTED] != n[WEIR_STATS_DONE] +
                                                                          n[WEIR_STATS_DEPTH] +
                                                                          n[WEIR_STATS_IN_FLIGHT];
        before = n[WEIR_STATS_DELIVERED];
    }
    return is_wrong;
}

static void what_was_delivered_does_not_go_back_when_a_worker_dies_and_its_task_is_run_again(
    void **state)
{
    (void)state;
    weir_pool_opts opts = WEIR_POOL_OPTS_INIT;
    weir_pool *pool;
    int status;
    opts.name = "phoenix";
    opts.workers = 1;
    opts.backlog = 8;
    opts.retries = 3;
    opts.on_drop = weir_drop_ignore;
    opts.handler = work;
    pid_t watcher = fork();
    must(watcher >= 0);
    if (watcher == 0)
        _exit(sees_wrong("phoenix"));
    assert_int_equal(weir_pool_create(&pool, &opts), WEIR_OK);
    for (char task = 0; task < 4; task++)
        submit_byte(pool, task);
    assert_int_equal(collect(pool, 4), 4);
    weir_stats_record seen = see("phoenix");
    assert_int_equal(seen.number[WEIR_STATS_DONE], 4);
    assert_int_equal(seen.number[WEIR_STATS_RETRIED], 3);
    weir_pool_destroy(pool);
    assert_int_equal(waitpid(watcher, &status, 0), watcher);
    assert_int_equal(status, 0);
}

/* ---- breakers ----------------------------------------------------------------------------------- */

static void a_breaker_is_seen_with_its_calls_and_its_state(void **state)
{
    (void)state;
    weir_breaker_opts opts = WEIR_BREAKER_OPTS_INIT;
    weir_breaker *breaker;
    weir_breaker_call call;
    opts.name = "backend";
    opts.window_calls = opts.min_calls = 4;
    opts.open_ns = 1000 * WEIR_SECOND;
    assert_int_equal(weir_breaker_create(&breaker, &opts), WEIR_OK);
    assert_int_equal(see("backend").number[WEIR_STATS_STATE], WEIR_BREAKER_CLOSED);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(weir_breaker_admit(breaker, &call), WEIR_OK);
        assert_int_equal(see("backend").number[WEIR_STATS_IN_FLIGHT], 1);
        weir_breaker_report(breaker, &call, i ? WEIR_CALL_FAILURE : WEIR_CALL_SUCCESS);
    }
    assert_int_equal(weir_breaker_admit(breaker, &call), WEIR_EOPEN);
    weir_stats_record seen = see("backend");
    assert_int_equal(seen.kind, WEIR_STATS_BREAKER);
    assert_int_equal(seen.number[WEIR_STATS_STATE], WEIR_BREAKER_OPEN);
    assert_int_equal(seen.number[WEIR_STATS_ACCEPTED], 4);
    assert_int_equal(seen.number[WEIR_STATS_DONE], 4);
    assert_int_equal(seen.number[WEIR_STATS_FAILED], 3);
    assert_int_equal(seen.number[WEIR_STATS_REFUSED], 1);
    assert_int_equal(seen.number[WEIR_STATS_OPENED], 1);
    weir_breaker_destroy(breaker);
    assert_false(look_for("backend").found);
}

/* ---- limits ------------------------------------------------------------------------------------- */

static void *acquire_and_release(void *limit)
{
    for (int i = 0; i < 10000; i++) {
        weir_permit permit;
        must(weir_limit_acquire(limit, 1, 0, WEIR_FOREVER, &permit) == WEIR_OK);
        weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
    }
    return NULL;
}

static void a_limit_is_seen_with_its_calls_from_many_threads(void **state)
{
    (void)state;
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    weir_limit *limit;
    weir_permit permits[3];
    pthread_t threads[4];
    opts.name = "database";
    opts.limit = 2;
    assert_int_equal(weir_limit_create(&limit, &opts), WEIR_OK);
    for (int i = 0; i < 4; i++)
        must(pthread_create(&threads[i], NULL, acquire_and_release, limit) == 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++)
        assert_int_equal(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &permits[i]),
                         i < 2 ? WEIR_OK : WEIR_EFULL);
    weir_stats_record seen = see("database");
    assert_int_equal(seen.kind, WEIR_STATS_LIMIT);
    assert_int_equal(seen.number[WEIR_STATS_CAPACITY], 2);
    assert_int_equal(seen.number[WEIR_STATS_ACCEPTED], 40002);
    assert_int_equal(seen.number[WEIR_STATS_DELIVERED], 40002);
    assert_int_equal(seen.number[WEIR_STATS_DONE], 40000);
    assert_int_equal(seen.number[WEIR_STATS_IN_FLIGHT], 2);
    assert_int_equal(seen.number[WEIR_STATS_REFUSED], 1);
    weir_limit_destroy(limit);
    assert_false(look_for("database").found);
}

static void a_limit_and_a_rate_have_counted_in_a_forked_child_what_they_had_before(void **state)
{
    (void)state;
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    weir_rate_opts rate_opts = WEIR_RATE_OPTS_INIT;
    weir_limit *limit;
    weir_rate *rate;
    weir_permit permits[2];
    opts.limit = 4;
    rate_opts.rate = 1;
    rate_opts.burst = 100;
    assert_int_equal(weir_limit_create(&limit, &opts), WEIR_OK);
    assert_int_equal(weir_rate_create(&rate, &rate_opts), WEIR_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &permits[i]), WEIR_OK);
    assert_int_equal(weir_rate_acquire(rate, 3, WEIR_POLL), WEIR_OK);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        weir_limit_snapshot now = WEIR_LIMIT_SNAPSHOT_INIT;
        weir_rate_snapshot tokens = WEIR_RATE_SNAPSHOT_INIT;
        weir_limit_release(limit, &permits[0], WEIR_LIMIT_SUCCESS);
        weir_limit_get_snapshot(limit, &now);
        weir_rate_get_snapshot(rate, &tokens);
        _exit(now.admitted == 2 && now.in_flight == 1 && tokens.granted == 3 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    for (int i = 0; i < 2; i++)
        weir_limit_release(limit, &permits[i], WEIR_LIMIT_SUCCESS);
    weir_limit_destroy(limit);
    weir_rate_destroy(rate);
}

static void a_rate_is_seen_with_its_tokens_and_its_terms(void **state)
{
    (void)state;
    weir_rate_opts opts = WEIR_RATE_OPTS_INIT;
    weir_rate *rate;
    opts.name = "requests";
    opts.rate = 1;
    opts.per_ns = 3600 * WEIR_SECOND;
    opts.burst = 10;
    assert_int_equal(weir_rate_create(&rate, &opts), WEIR_OK);
    assert_int_equal(weir_rate_acquire(rate, 7, WEIR_POLL), WEIR_OK);
    assert_int_equal(weir_rate_acquire(rate, 7, WEIR_POLL), WEIR_EFULL);
    weir_stats_record seen = see("requests");
    assert_int_equal(seen.kind, WEIR_STATS_RATE);
    assert_int_equal(seen.number[WEIR_STATS_ACCEPTED], 7);
    assert_int_equal(seen.number[WEIR_STATS_REFUSED], 1);
    assert_int_equal(seen.number[WEIR_STATS_CAPACITY], 10);
    assert_int_equal(seen.number[WEIR_STATS_RATE_PER_HOUR], 1);
    assert_int_equal(weir_rate_set(rate, 5, WEIR_SECOND, 20), WEIR_OK);
    seen = see("requests");
    assert_int_equal(seen.number[WEIR_STATS_CAPACITY], 20);
    assert_int_equal(seen.number[WEIR_STATS_RATE_PER_HOUR], 18000);
    weir_rate_destroy(rate);
    assert_false(look_for("requests").found);
}

static void a_governor_is_seen_with_what_is_reserved(void **state)
{
    (void)state;
    weir_governor_opts opts = WEIR_GOVERNOR_OPTS_INIT;
    weir_governor *governor;
    opts.name = "memory";
    opts.limit_bytes = UINT64_C(1) << 40;
    assert_int_equal(weir_governor_create(&governor, &opts), WEIR_OK);
    assert_int_equal(weir_governor_reserve(governor, 1000, WEIR_POLL), WEIR_OK);
    assert_int_equal(weir_governor_reserve(governor, 500, WEIR_POLL), WEIR_OK);
    weir_governor_release(governor, 1000);
    weir_stats_record seen = see("memory");
    assert_int_equal(seen.kind, WEIR_STATS_GOVERNOR);
    assert_int_equal(seen.number[WEIR_STATS_ACCEPTED], 2);
    assert_int_equal(seen.number[WEIR_STATS_IN_FLIGHT], 1);
    assert_int_equal(seen.number[WEIR_STATS_IN_FLIGHT_COST], 500);
    assert_true(seen.number[WEIR_STATS_CAPACITY] > 0);
    weir_governor_release(governor, 500);
    weir_governor_destroy(governor);
    assert_false(look_for("memory").found);
}

/* ---- reading ------------------------------------------------------------------------------------ */

static void a_folder_that_is_not_there_yet_has_no_processes(void **state)
{
    (void)state;
    char path[96];
    weir_stats *stats;
    weir_stats_process process = WEIR_STATS_PROCESS_INIT;
    weir_stats_record record = WEIR_STATS_RECORD_INIT;
    snprintf(path, sizeof path, "%s/nowhere", folder);
    assert_int_equal(weir_stats_open(&stats, path), WEIR_OK);
    assert_int_equal(weir_stats_next_process(stats, &process), 0);
    assert_int_equal(weir_stats_next_record(stats, &record), WEIR_EINVAL);
    weir_stats_close(stats);
    weir_stats_close(NULL);
}

static void a_folder_that_others_can_enter_is_refused(void **state)
{
    (void)state;
    char path[96];
    weir_stats *stats;
    weir_stats_process process = WEIR_STATS_PROCESS_INIT;
    snprintf(path, sizeof path, "%s/open", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(chmod(path, 0755), 0);
    assert_int_equal(weir_stats_open(&stats, path), WEIR_OK);
    assert_int_equal(weir_stats_next_process(stats, &process), WEIR_EINVAL);
    weir_stats_close(stats);
    rmdir(path);
}

static void a_forked_child_that_makes_a_queue_is_seen_under_its_parent(void **state)
{
    (void)state;
    weir_queue *queue = make("parent", 10, WEIR_OVERFLOW_BLOCK);
    int ready[2], end[2];
    assert_int_equal(pipe(ready) | pipe(end), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char byte;
        close(end[1]);
        make("child", 10, WEIR_OVERFLOW_BLOCK);
        send(ready[1], "", 1);
        must(read(end[0], &byte, 1) == 0);
        exit(0); /* which removes its page */
    }
    char byte;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    look seen = look_for("child");
    assert_true(seen.found);
    assert_int_equal(seen.process.pid, pid);
    assert_int_equal(seen.process.parent, getpid());
    assert_int_equal(look_for("parent").process.pid, getpid());
    close(end[1]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_false(look_for("child").found);
    weir_queue_destroy(queue);
}

static void kinds_and_numbers_have_names(void **state)
{
    (void)state;
    assert_string_equal(weir_stats_kind_name(WEIR_STATS_BREAKER), "breaker");
    assert_string_equal(weir_stats_kind_name(0), "unknown");
    assert_string_equal(weir_stats_number_name(WEIR_STATS_DROPPED_OLDEST), "dropped_oldest");
    assert_null(weir_stats_number_name(WEIR_STATS_NUMBERS));
    assert_true(weir_stats_is_counter(WEIR_STATS_ACCEPTED));
    assert_false(weir_stats_is_counter(WEIR_STATS_DEPTH));
    assert_false(weir_stats_is_counter(-1));
}

static void times_between_two_looks_are_those_counted_in_between(void **state)
{
    (void)state;
    static weir_stats_times before, after, between;
    unsigned second = 0;
    while (weir_stats_bucket_floor(second + 1) <= 1000000000)
        second++;
    before.bucket[3] = after.bucket[3] = 100;
    after.bucket[second] = 10;
    before.sum_ns = 1000, after.sum_ns = 10000001000, after.max_ns = 1000000000;
    weir_stats_times_between(&before, &after, &between);
    assert_int_equal(weir_stats_times_count(&between), 10);
    assert_int_equal(between.sum_ns, 10000000000);
    assert_in_range(weir_stats_percentile(&between, 0.5), 980000000, 1000000000);
    weir_stats_times_between(&after, &after, &between);
    assert_int_equal(weir_stats_times_count(&between), 0);
    assert_int_equal(weir_stats_percentile(&between, 0.5), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_queue_is_seen_by_its_name_with_its_process),
        cmocka_unit_test(a_name_that_would_disturb_a_terminal_is_read_without_what_would),
        cmocka_unit_test(a_queue_without_a_name_gets_one_and_one_named_nothing_is_not_seen),
        cmocka_unit_test(after_ten_thousand_random_calls_every_number_is_exact),
        cmocka_unit_test(who_waits_is_seen_while_it_waits_and_since_when),
        cmocka_unit_test(how_long_items_were_inside_is_seen),
        cmocka_unit_test(no_counter_goes_back_while_threads_put_get_and_drop),
        cmocka_unit_test(a_thread_pool_is_seen_with_its_tasks_and_how_long_they_take),
        cmocka_unit_test(the_stages_of_a_pipeline_are_seen_with_its_name_and_how_long_they_work),
        cmocka_unit_test(a_process_pool_is_seen_with_its_tasks_and_its_workers),
        cmocka_unit_test(the_workers_of_a_process_pool_are_seen_with_what_they_do),
        cmocka_unit_test(
            what_was_delivered_does_not_go_back_when_a_worker_dies_and_its_task_is_run_again),
        cmocka_unit_test(a_breaker_is_seen_with_its_calls_and_its_state),
        cmocka_unit_test(a_limit_is_seen_with_its_calls_from_many_threads),
        cmocka_unit_test(a_limit_and_a_rate_have_counted_in_a_forked_child_what_they_had_before),
        cmocka_unit_test(a_rate_is_seen_with_its_tokens_and_its_terms),
        cmocka_unit_test(a_governor_is_seen_with_what_is_reserved),
        cmocka_unit_test(a_folder_that_is_not_there_yet_has_no_processes),
        cmocka_unit_test(a_folder_that_others_can_enter_is_refused),
        cmocka_unit_test(a_forked_child_that_makes_a_queue_is_seen_under_its_parent),
        cmocka_unit_test(kinds_and_numbers_have_names),
        cmocka_unit_test(times_between_two_looks_are_those_counted_in_between),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
