/* The process that holds the lock of a shared queue is stopped there: what becomes of those who are interrupted
 * meanwhile. */
#include "contract/seen.h"
#include "steps.h"

#include <weir/shared_queue.h>

static weir_shared_queue *make(const char *name)
{
    weir_shared_queue *queue;
    weir_shared_queue_opts opts = WEIR_SHARED_QUEUE_OPTS_INIT;
    opts.capacity = 4;
    opts.name = name;
    must(weir_shared_queue_create(&queue, &opts) == WEIR_OK);
    return queue;
}

static int put(weir_shared_queue *queue, weir_time deadline)
{
    weir_message message = {"message", 7, 0};
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

static weir_shared_queue_snapshot snapshot(const weir_shared_queue *queue)
{
    weir_shared_queue_snapshot now = WEIR_SHARED_QUEUE_SNAPSHOT_INIT;
    must(weir_shared_queue_get_snapshot(queue, &now) == WEIR_OK);
    must(now.accepted == now.delivered + total(now.dropped) + now.depth);
    return now;
}

/* ---- who holds the lock ----------------------------------------------------------------------- */

/* The first call makes its page, which takes many instructions. */
static void put_one(void *queue)
{
    must(get(queue, WEIR_POLL) == WEIR_EEMPTY);
    stop_here();
    put(queue, WEIR_POLL);
}

/* Lets it run until it is inside: only then does a try not come in. */
static void stop_inside(weir_shared_queue *queue, pid_t pid)
{
    do
        must(step(pid, 10) == STEPPED);
    while (get(queue, WEIR_POLL) != WEIR_ETIMEDOUT);
}

static void let_go_on(pid_t pid)
{
    int status;
    must(ptrace(PTRACE_DETACH, pid, NULL, NULL) == 0);
    must(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
}

/* ---- who does not wait yet -------------------------------------------------------------------- */

static int always(void *ctx)
{
    (void)ctx;
    return 1;
}

static void an_interruption_ends_the_wait_for_the_lock_and_nothing_happened(void **state)
{
    (void)state;
    weir_shared_queue *queue = make("entrance");
    pid_t pid = start(put_one, queue);
    stop_inside(queue, pid);
    weir_set_interrupt(always, NULL);
    assert_int_equal(put(queue, WEIR_FOREVER), WEIR_EINTR);
    assert_int_equal(get(queue, WEIR_FOREVER), WEIR_EINTR);
    assert_int_equal(weir_shared_queue_discard(queue), WEIR_EINTR);
    assert_int_equal(weir_shared_queue_close(queue), WEIR_EINTR);
    weir_set_interrupt(NULL, NULL);
    assert_int_equal(put(queue, WEIR_PROBE), WEIR_ETIMEDOUT); /* it is still inside */
    let_go_on(pid);
    weir_shared_queue_snapshot now = snapshot(queue);
    assert_true(!now.closed && now.accepted == 1 && now.depth == 1);
    assert_int_equal(get(queue, WEIR_POLL), WEIR_OK);
    weir_shared_queue_destroy(queue);
}

/* ---- who waits in line ------------------------------------------------------------------------ */

/* When it is asked for the first time, in its sleep, somebody is stopped inside. */
typedef struct waiter {
    weir_shared_queue *queue;
    pid_t holder;
    unsigned asked;
    unsigned says_no; /* so often, then yes */
    unsigned lets_go; /* the holder, when it is asked for that time */
} waiter;

static int ask(void *ctx)
{
    waiter *w = ctx;
    w->asked++;
    if (w->asked == 1) {
        weir_set_interrupt(NULL, NULL); /* its own calls ask nobody */
        stop_inside(w->queue, w->holder);
        weir_set_interrupt(ask, w);
    }
    if (w->asked == w->lets_go)
        let_go_on(w->holder);
    return w->asked > w->says_no;
}

static int wait_for_one(waiter *w)
{
    w->holder = start(put_one, w->queue);
    weir_set_interrupt(ask, w);
    int rc = get(w->queue, WEIR_FOREVER);
    weir_set_interrupt(NULL, NULL);
    return rc;
}

/* It does not come in to say so: interrupted as it slept, or at the lock. */
static void who_is_interrupted_at_the_lock_leaves_the_line_and_waits_no_more(void **state)
{
    (void)state;
    for (unsigned says_no = 0; says_no <= 3; says_no += 3) {
        weir_shared_queue *queue = make("line");
        waiter w = {.queue = queue, .says_no = says_no};
        assert_int_equal(wait_for_one(&w), WEIR_EINTR);
        assert_true(w.asked <= says_no + 3); /* it tries once more, not for as long as that lasts */
        weir_stats_record seen = see_in(getpid(), "line");
        assert_int_equal(seen.number[WEIR_STATS_GET_WAITING], 0);
        assert_int_equal(seen.number[WEIR_STATS_GET_WAITS], 1);
        assert_true(seen.number[WEIR_STATS_GET_BLOCKED_NS] > 0);
        assert_int_equal(snapshot(queue).getters_waiting, 0);
        assert_int_equal(put(queue, WEIR_PROBE), WEIR_ETIMEDOUT); /* the other is still inside */
        let_go_on(w.holder);
        assert_int_equal(get(queue, WEIR_POLL), WEIR_OK);
        weir_shared_queue_destroy(queue);
    }
}

/* The lock is free when it tries once more: so what it waited is counted in the queue, and the next one gets its turn. */
static void who_is_interrupted_comes_in_once_more_to_leave_in_good_order(void **state)
{
    (void)state;
    weir_shared_queue *queue = make("order");
    waiter w = {.queue = queue, .lets_go = 2};
    assert_int_equal(wait_for_one(&w), WEIR_EINTR);
    weir_shared_queue_snapshot now = snapshot(queue);
    assert_int_equal(now.getters_waiting, 0);
    assert_true(now.get_blocked_ns > 0);
    assert_int_equal(see_in(getpid(), "order").number[WEIR_STATS_GET_WAITING], 0);
    assert_int_equal(get(queue, WEIR_POLL), WEIR_OK);
    weir_shared_queue_destroy(queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_interruption_ends_the_wait_for_the_lock_and_nothing_happened),
        cmocka_unit_test(who_is_interrupted_at_the_lock_leaves_the_line_and_waits_no_more),
        cmocka_unit_test(who_is_interrupted_comes_in_once_more_to_leave_in_good_order),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
