/* What is seen of objects that several processes use: of each process, its own part.  And who waited. */
#include "seen.h"

#include <glob.h>

#include <weir/limit.h>
#include <weir/memory.h>
#include <weir/rate.h>
#include <weir/shared_queue.h>
#include <weir/watermark.h>

/* A name that no other run of this has. */
static const char *own_name(const char *what)
{
    static char name[64];
    snprintf(name, sizeof name, "stats.%s.%jd", what, (intmax_t)getpid());
    return name;
}

/* What is kept of a rate until its bucket is full again. */
static void forget_shared(const char *name)
{
    char pattern[128];
    glob_t found;
    snprintf(pattern, sizeof pattern, "/dev/shm/weir-*-%s", name);
    if (glob(pattern, 0, NULL, &found) == 0)
        unlink(found.gl_pathv[0]);
    globfree(&found);
}

/* ---- a child that uses what it inherits ------------------------------------------------------- */

typedef struct child {
    pid_t pid;
    int end; /* closed: it exits */
} child;

/* Returns when it has called fn. */
static child fork_to(void (*fn)(void *), void *arg)
{
    int ready[2], end[2];
    char byte;
    must(pipe(ready) == 0 && pipe(end) == 0);
    child made = {.pid = fork(), .end = end[1]};
    must(made.pid >= 0);
    if (made.pid == 0) {
        close(end[1]);
        fn(arg);
        send(ready[1], "", 1);
        must(read(end[0], &byte, 1) == 0);
        exit(0); /* which removes its page */
    }
    must(read(ready[0], &byte, 1) == 1);
    close(ready[0]), close(ready[1]), close(end[0]);
    return made;
}

static void end_child(child made)
{
    close(made.end);
    must(waitpid(made.pid, NULL, 0) == made.pid);
}

/* ---- shared queues ---------------------------------------------------------------------------- */

static weir_shared_queue *make(const char *name, size_t capacity, weir_overflow overflow)
{
    weir_shared_queue_opts opts = WEIR_SHARED_QUEUE_OPTS_INIT;
    weir_shared_queue *queue;
    opts.name = name;
    opts.capacity = capacity;
    opts.overflow = overflow;
    must(weir_shared_queue_create(&queue, &opts) == WEIR_OK);
    return queue;
}

static int put(weir_shared_queue *queue, size_t size, weir_time deadline)
{
    static char data[256];
    weir_message message = {data, size, 0};
    return weir_shared_queue_put(queue, &message, deadline);
}

static int get(weir_shared_queue *queue, weir_time deadline)
{
    weir_buffer buffer = {0};
    weir_message message;
    int rc = weir_shared_queue_get(queue, &message, &buffer, deadline);
    weir_buffer_free(&buffer);
    return rc;
}

static void get_two_and_discard(void *queue)
{
    must(get(queue, WEIR_POLL) == WEIR_OK && get(queue, WEIR_POLL) == WEIR_OK);
    must(weir_shared_queue_discard(queue) == 2);
    must(put(queue, 7, WEIR_POLL) == WEIR_KEPT);
}

static void each_process_tells_its_part_of_a_shared_queue(void **state)
{
    (void)state;
    weir_shared_queue *queue = make("mailbox", 4, WEIR_OVERFLOW_DROP_OLDEST);
    for (int i = 0; i < 6; i++)
        assert_int_equal(put(queue, 10, WEIR_POLL), WEIR_KEPT);
    child reader = fork_to(get_two_and_discard, queue);
    weir_stats_record ours = see_in(getpid(), "mailbox"), theirs = see_in(reader.pid, "mailbox");
    assert_int_equal(ours.kind, WEIR_STATS_SHARED_QUEUE);
    assert_int_equal(ours.number[WEIR_STATS_SHARED], 1);
    assert_int_equal(ours.number[WEIR_STATS_CAPACITY], 4);
    assert_int_equal(ours.number[WEIR_STATS_ACCEPTED], 6);
    assert_int_equal(ours.number[WEIR_STATS_ACCEPTED_COST], 60);
    assert_int_equal(ours.number[WEIR_STATS_DROPPED_OLDEST], 2);
    assert_int_equal(ours.number[WEIR_STATS_DROPPED_OLDEST_COST], 20);
    assert_int_equal(ours.number[WEIR_STATS_DELIVERED], 0);
    assert_int_equal(theirs.kind, WEIR_STATS_SHARED_QUEUE);
    assert_int_equal(theirs.number[WEIR_STATS_SHARED], 1);
    assert_int_equal(theirs.number[WEIR_STATS_ACCEPTED], 1);
    assert_int_equal(theirs.number[WEIR_STATS_DELIVERED], 2);
    assert_int_equal(theirs.number[WEIR_STATS_DELIVERED_COST], 20);
    assert_int_equal(theirs.number[WEIR_STATS_DROPPED_DISCARDED], 2);
    end_child(reader);
    weir_shared_queue_destroy(queue);
    assert_false(look_for("mailbox").found);
}

static void get_all(void *queue)
{
    while (get(queue, WEIR_POLL) == WEIR_OK)
        ;
}

/* What it knew when it last called would be false for ever. */
static void no_process_tells_how_full_a_shared_queue_is(void **state)
{
    static const weir_stats_number never[] = {WEIR_STATS_DEPTH, WEIR_STATS_DEPTH_COST,
                                              WEIR_STATS_PEAK_DEPTH, WEIR_STATS_ABOVE_HIGH};
    (void)state;
    weir_shared_queue *queue = make("outbox", 5, WEIR_OVERFLOW_BLOCK);
    for (int i = 0; i < 5; i++)
        assert_int_equal(put(queue, 10, WEIR_POLL), WEIR_KEPT);
    child reader = fork_to(get_all, queue);
    weir_stats_record ours = see_in(getpid(), "outbox"), theirs = see_in(reader.pid, "outbox");
    assert_int_equal(theirs.number[WEIR_STATS_DELIVERED], 5);
    for (size_t i = 0; i < sizeof never / sizeof *never; i++) {
        assert_int_equal(ours.number[never[i]], 0);
        assert_int_equal(theirs.number[never[i]], 0);
    }
    end_child(reader);
    weir_shared_queue_destroy(queue);
}

typedef struct start {
    weir_shared_queue *queue;
    pthread_barrier_t line;
} start;

static void *put_first(void *arg)
{
    start *s = arg;
    pthread_barrier_wait(&s->line);
    must(put(s->queue, 1, WEIR_POLL) == WEIR_KEPT);
    return NULL;
}

static void put_from_two_threads(void *queue)
{
    start s = {.queue = queue};
    pthread_t second;
    must(pthread_barrier_init(&s.line, NULL, 2) == 0);
    must(pthread_create(&second, NULL, put_first, &s) == 0);
    put_first(&s);
    pthread_join(second, NULL);
    pthread_barrier_destroy(&s.line);
}

/* Whichever thread opens the child's record, what the other one does meanwhile is told there. */
static void all_that_the_first_threads_of_a_forked_child_do_is_told(void **state)
{
    (void)state;
    weir_shared_queue *queue = make("crowd", 100, WEIR_OVERFLOW_BLOCK);
    for (int i = 0; i < 20; i++) {
        child both = fork_to(put_from_two_threads, queue);
        assert_int_equal(see_in(both.pid, "crowd").number[WEIR_STATS_ACCEPTED], 2);
        end_child(both);
    }
    weir_shared_queue_destroy(queue);
}

static void an_attached_handle_has_the_name_of_its_queue(void **state)
{
    (void)state;
    weir_shared_queue *queue = make("letters", 4, WEIR_OVERFLOW_BLOCK), *other_handle;
    assert_int_equal(weir_shared_queue_attach(&other_handle, weir_shared_queue_fd(queue)), WEIR_OK);
    weir_shared_queue_destroy(queue);
    assert_int_equal(put(other_handle, 1, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(see("letters").number[WEIR_STATS_ACCEPTED], 1);
    weir_shared_queue_destroy(other_handle);
    weir_shared_queue *hidden = make("", 4, WEIR_OVERFLOW_BLOCK);
    assert_int_equal(weir_shared_queue_attach(&other_handle, weir_shared_queue_fd(hidden)),
                     WEIR_OK);
    assert_false(look_in(getpid(), "").found);
    weir_shared_queue_destroy(hidden);
    weir_shared_queue_destroy(other_handle);
}

static void *get_one(void *queue)
{
    must(get(queue, WEIR_FOREVER) == WEIR_OK);
    return NULL;
}

static void who_waited_at_a_shared_queue_is_counted_once(void **state)
{
    (void)state;
    weir_shared_queue *queue = make("patience", 4, WEIR_OVERFLOW_BLOCK);
    pthread_t thread;
    must(pthread_create(&thread, NULL, get_one, queue) == 0);
    soon(see("patience").number[WEIR_STATS_GET_WAITING] == 1);
    assert_int_equal(see("patience").number[WEIR_STATS_GET_WAITS], 0);
    assert_int_equal(put(queue, 1, WEIR_POLL), WEIR_KEPT);
    pthread_join(thread, NULL);
    weir_stats_record seen = see("patience");
    assert_int_equal(seen.number[WEIR_STATS_GET_WAITING], 0);
    assert_int_equal(seen.number[WEIR_STATS_GET_WAITS], 1);
    assert_true(seen.number[WEIR_STATS_GET_BLOCKED_NS] > 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(put(queue, 1, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(put(queue, 1, weir_after(WEIR_MILLISECOND)), WEIR_ETIMEDOUT);
    seen = see("patience");
    assert_int_equal(seen.number[WEIR_STATS_PUT_WAITS], 1);
    assert_int_equal(seen.number[WEIR_STATS_PUT_WAITING], 0);
    assert_int_equal(seen.number[WEIR_STATS_REFUSED], 1);
    weir_shared_queue_destroy(queue);
}

/* ---- shared limits, rates and governors ------------------------------------------------------- */

static void call_twice(void *limit)
{
    weir_permit permit[2];
    must(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &permit[0]) == WEIR_OK);
    weir_limit_release(limit, &permit[0], WEIR_LIMIT_SUCCESS);
    must(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &permit[0]) == WEIR_OK);
    must(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &permit[1]) == WEIR_EFULL);
    must(weir_limit_acquire(limit, 1, 0, weir_after(WEIR_MILLISECOND), &permit[1]) ==
         WEIR_ETIMEDOUT);
}

static void each_process_tells_its_calls_of_a_shared_limit(void **state)
{
    (void)state;
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    weir_limit *limit;
    weir_permit permit;
    opts.shared = own_name("limit");
    opts.limit = 2;
    assert_int_equal(weir_limit_create(&limit, &opts), WEIR_OK);
    assert_int_equal(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &permit), WEIR_OK);
    child caller = fork_to(call_twice, limit);
    weir_stats_record ours = see_in(getpid(), opts.shared),
                      theirs = see_in(caller.pid, opts.shared);
    assert_int_equal(ours.kind, WEIR_STATS_LIMIT);
    assert_int_equal(ours.number[WEIR_STATS_SHARED], 1);
    assert_int_equal(ours.number[WEIR_STATS_CAPACITY], 2);
    assert_int_equal(ours.number[WEIR_STATS_ACCEPTED], 1);
    assert_int_equal(ours.number[WEIR_STATS_IN_FLIGHT], 1);
    assert_int_equal(theirs.number[WEIR_STATS_SHARED], 1);
    assert_int_equal(theirs.number[WEIR_STATS_CAPACITY], 2);
    assert_int_equal(theirs.number[WEIR_STATS_ACCEPTED], 2);
    assert_int_equal(theirs.number[WEIR_STATS_DONE], 1);
    assert_int_equal(theirs.number[WEIR_STATS_IN_FLIGHT], 1);
    assert_int_equal(theirs.number[WEIR_STATS_REFUSED], 2);
    assert_int_equal(theirs.number[WEIR_STATS_PUT_WAITS], 1);
    assert_int_equal(theirs.number[WEIR_STATS_PUT_WAITING], 0);
    assert_true(theirs.number[WEIR_STATS_PUT_BLOCKED_NS] > 0);
    end_child(caller);
    weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
    weir_limit_destroy(limit);
    assert_false(look_for(opts.shared).found);
}

static void take_tokens(void *rate)
{
    must(weir_rate_acquire(rate, 3, WEIR_POLL) == WEIR_OK);
    must(weir_rate_acquire(rate, 9, WEIR_POLL) == WEIR_EFULL);
}

static void each_process_tells_its_tokens_of_a_shared_rate(void **state)
{
    (void)state;
    weir_rate_opts opts = WEIR_RATE_OPTS_INIT;
    weir_rate *rate;
    weir_rate_snapshot all = WEIR_RATE_SNAPSHOT_INIT;
    opts.shared = own_name("rate");
    opts.name = "tokens";
    opts.rate = 1;
    opts.per_ns = 3600 * WEIR_SECOND;
    opts.burst = 10;
    assert_int_equal(weir_rate_create(&rate, &opts), WEIR_OK);
    assert_int_equal(weir_rate_acquire(rate, 5, WEIR_POLL), WEIR_OK);
    child taker = fork_to(take_tokens, rate);
    weir_stats_record ours = see_in(getpid(), "tokens"), theirs = see_in(taker.pid, "tokens");
    assert_int_equal(ours.kind, WEIR_STATS_RATE);
    assert_int_equal(ours.number[WEIR_STATS_SHARED], 1);
    assert_int_equal(ours.number[WEIR_STATS_ACCEPTED], 5);
    assert_int_equal(ours.number[WEIR_STATS_REFUSED], 0);
    assert_int_equal(ours.number[WEIR_STATS_CAPACITY], 10);
    assert_int_equal(theirs.number[WEIR_STATS_SHARED], 1);
    assert_int_equal(theirs.number[WEIR_STATS_ACCEPTED], 3);
    assert_int_equal(theirs.number[WEIR_STATS_REFUSED], 1);
    assert_int_equal(weir_rate_get_snapshot(rate, &all), WEIR_OK);
    assert_int_equal(all.granted, 8);
    end_child(taker);
    weir_rate_destroy(rate);
    forget_shared(opts.shared);
}

static void reserve_more(void *governor)
{
    must(weir_governor_reserve(governor, 300, WEIR_POLL) == WEIR_OK);
}

static void each_process_tells_its_reservations_of_a_shared_governor(void **state)
{
    (void)state;
    weir_governor_opts opts = WEIR_GOVERNOR_OPTS_INIT;
    weir_governor *governor;
    opts.shared = own_name("governor");
    opts.limit_bytes = UINT64_C(1) << 40;
    assert_int_equal(weir_governor_create(&governor, &opts), WEIR_OK);
    assert_int_equal(weir_governor_reserve(governor, 1000, WEIR_POLL), WEIR_OK);
    child taker = fork_to(reserve_more, governor);
    weir_stats_record ours = see_in(getpid(), opts.shared), theirs = see_in(taker.pid, opts.shared);
    assert_int_equal(ours.kind, WEIR_STATS_GOVERNOR);
    assert_int_equal(ours.number[WEIR_STATS_IN_FLIGHT_COST], 1000);
    assert_int_equal(theirs.number[WEIR_STATS_IN_FLIGHT_COST], 300);
    end_child(taker);
    weir_governor_release(governor, 1000);
    weir_governor_destroy(governor);
}

/* ---- watermarks ------------------------------------------------------------------------------- */

static void *drain(void *mark)
{
    must(weir_watermark_drain(mark, WEIR_FOREVER) == WEIR_OK);
    return NULL;
}

static void a_watermark_is_seen_with_its_level_and_its_pauses(void **state)
{
    (void)state;
    weir_watermark_opts opts = WEIR_WATERMARK_OPTS_INIT;
    weir_watermark *mark;
    pthread_t thread;
    opts.name = "river";
    opts.high = 100;
    opts.low = 40;
    assert_int_equal(weir_watermark_create(&mark, &opts), WEIR_OK);
    assert_int_equal(weir_watermark_add(mark, 90), WEIR_OK);
    assert_int_equal(see("river").number[WEIR_STATS_ABOVE_HIGH], 0);
    assert_int_equal(weir_watermark_add(mark, 60), WEIR_PAUSED);
    must(pthread_create(&thread, NULL, drain, mark) == 0);
    soon(see("river").number[WEIR_STATS_PUT_WAITING] == 1);
    weir_stats_record seen = see("river");
    assert_int_equal(seen.kind, WEIR_STATS_WATERMARK);
    assert_int_equal(seen.number[WEIR_STATS_CAPACITY], 100);
    assert_int_equal(seen.number[WEIR_STATS_LOW], 40);
    assert_int_equal(seen.number[WEIR_STATS_ACCEPTED], 150);
    assert_int_equal(seen.number[WEIR_STATS_DEPTH], 150);
    assert_int_equal(seen.number[WEIR_STATS_ABOVE_HIGH], 1);
    assert_int_equal(weir_watermark_sub(mark, 130), WEIR_OK);
    pthread_join(thread, NULL);
    seen = see("river");
    assert_int_equal(seen.number[WEIR_STATS_DELIVERED], 130);
    assert_int_equal(seen.number[WEIR_STATS_DEPTH], 20);
    assert_int_equal(seen.number[WEIR_STATS_PEAK_DEPTH], 150);
    assert_int_equal(seen.number[WEIR_STATS_ABOVE_HIGH], 0);
    assert_int_equal(seen.number[WEIR_STATS_PAUSES], 1);
    assert_int_equal(seen.number[WEIR_STATS_PUT_WAITS], 1);
    assert_int_equal(seen.number[WEIR_STATS_PUT_WAITING], 0);
    assert_true(seen.number[WEIR_STATS_PUT_BLOCKED_NS] > 0);
    weir_watermark_destroy(mark);
    assert_false(look_for("river").found);
}

/* ---- who waited ------------------------------------------------------------------------------- */

static weir_queue *make_queue(const char *name, size_t capacity)
{
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    weir_queue *queue;
    opts.name = name;
    opts.capacity = capacity;
    opts.on_drop = weir_drop_ignore;
    must(weir_queue_create(&queue, &opts) == WEIR_OK);
    return queue;
}

static void *get_many(void *queue)
{
    void *items[4];
    must(weir_queue_get_many(queue, items, NULL, 4, WEIR_FOREVER, PATIENCE) == 4);
    return NULL;
}

static void a_call_that_waits_for_several_items_is_one_that_waited(void **state)
{
    (void)state;
    weir_queue *queue = make_queue("batches", 10);
    pthread_t thread;
    must(pthread_create(&thread, NULL, get_many, queue) == 0);
    for (int i = 0; i < 4; i++) {
        soon(see("batches").number[WEIR_STATS_GET_WAITING] == 1);
        assert_int_equal(weir_queue_put(queue, NULL, 0, WEIR_POLL), WEIR_KEPT);
    }
    pthread_join(thread, NULL);
    weir_queue_depth(queue);
    weir_stats_record seen = see("batches");
    assert_int_equal(seen.number[WEIR_STATS_GET_WAITS], 1);
    assert_int_equal(seen.number[WEIR_STATS_PUT_WAITS], 0);
    weir_queue_destroy(queue);
}

static void who_gives_up_waiting_has_waited(void **state)
{
    (void)state;
    weir_queue *queue = make_queue("late", 1);
    void *item;
    for (int i = 0; i < 3; i++)
        assert_int_equal(weir_queue_get(queue, &item, weir_after(WEIR_MILLISECOND)),
                         WEIR_ETIMEDOUT);
    assert_int_equal(weir_queue_put(queue, NULL, 0, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(weir_queue_put(queue, NULL, 0, weir_after(WEIR_MILLISECOND)), WEIR_ETIMEDOUT);
    weir_stats_record seen = see("late");
    assert_int_equal(seen.number[WEIR_STATS_GET_WAITS], 3);
    assert_int_equal(seen.number[WEIR_STATS_PUT_WAITS], 1);
    weir_queue_destroy(queue);
}

static void who_waits_for_permits_and_tokens_is_counted(void **state)
{
    (void)state;
    weir_limit_opts limit_opts = WEIR_LIMIT_OPTS_INIT;
    weir_rate_opts rate_opts = WEIR_RATE_OPTS_INIT;
    weir_limit *limit;
    weir_rate *rate;
    weir_permit permit, none;
    limit_opts.name = "permits";
    limit_opts.limit = 1;
    rate_opts.name = "drips";
    rate_opts.rate = 1000;
    rate_opts.burst = 1;
    assert_int_equal(weir_limit_create(&limit, &limit_opts), WEIR_OK);
    assert_int_equal(weir_rate_create(&rate, &rate_opts), WEIR_OK);
    assert_int_equal(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &permit), WEIR_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(weir_limit_acquire(limit, 1, 0, weir_after(WEIR_MILLISECOND), &none),
                         WEIR_ETIMEDOUT);
    weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
    for (int i = 0; i < 5; i++)
        assert_int_equal(weir_rate_acquire(rate, 1, WEIR_FOREVER), WEIR_OK);
    assert_int_equal(see("permits").number[WEIR_STATS_PUT_WAITS], 2);
    weir_stats_record drips = see("drips");
    assert_in_range(drips.number[WEIR_STATS_PUT_WAITS], 1, 4);
    assert_int_equal(drips.number[WEIR_STATS_ACCEPTED], 5);
    weir_limit_destroy(limit);
    weir_rate_destroy(rate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_process_tells_its_part_of_a_shared_queue),
        cmocka_unit_test(no_process_tells_how_full_a_shared_queue_is),
        cmocka_unit_test(all_that_the_first_threads_of_a_forked_child_do_is_told),
        cmocka_unit_test(an_attached_handle_has_the_name_of_its_queue),
        cmocka_unit_test(who_waited_at_a_shared_queue_is_counted_once),
        cmocka_unit_test(each_process_tells_its_calls_of_a_shared_limit),
        cmocka_unit_test(each_process_tells_its_tokens_of_a_shared_rate),
        cmocka_unit_test(each_process_tells_its_reservations_of_a_shared_governor),
        cmocka_unit_test(a_watermark_is_seen_with_its_level_and_its_pauses),
        cmocka_unit_test(a_call_that_waits_for_several_items_is_one_that_waited),
        cmocka_unit_test(who_gives_up_waiting_has_waited),
        cmocka_unit_test(who_waits_for_permits_and_tokens_is_counted),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
