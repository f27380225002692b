/* <weir/limit.h>: what is its own beside the promises of every limit (limits.c). */
#include "support.h"

#include <string.h>
#include <unistd.h>

#include <weir/limit.h>

#define MS WEIR_MILLISECOND

static weir_limit *create(weir_limit_opts opts)
{
    weir_limit *limit;
    must(weir_limit_create(&limit, &opts) == WEIR_OK);
    return limit;
}

static weir_limit *fixed(uint64_t n)
{
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    opts.limit = n;
    return create(opts);
}

static weir_limit_snapshot look(weir_limit *limit)
{
    weir_limit_snapshot now = WEIR_LIMIT_SNAPSHOT_INIT;
    must(weir_limit_get_snapshot(limit, &now) == WEIR_OK);
    must(now.admitted == now.released + now.in_flight + now.lost);
    return now;
}

static weir_permit let_in(weir_limit *limit, unsigned partition)
{
    weir_permit permit;
    must(weir_limit_acquire(limit, 1, partition, WEIR_POLL, &permit) == WEIR_OK);
    return permit;
}

static int try_it(weir_limit *limit, unsigned partition)
{
    weir_permit permit;
    return weir_limit_acquire(limit, 1, partition, WEIR_POLL, &permit);
}

/* One that waits on a thread of its own. */
typedef struct waiting {
    weir_limit *limit;
    unsigned partition;
    weir_permit permit;
    int rc;
    pthread_t thread;
} waiting;

static void *waits(void *arg)
{
    waiting *w = arg;
    w->rc = weir_limit_acquire(w->limit, 1, w->partition, WEIR_FOREVER, &w->permit);
    return NULL;
}

/* Who came into line, those included who were sent away meanwhile. */
static uint64_t came(weir_limit *limit)
{
    weir_limit_snapshot now = look(limit);
    return now.waiting + now.shed;
}

static void start(waiting *w)
{
    uint64_t before = came(w->limit);
    must(pthread_create(&w->thread, NULL, waits, w) == 0);
    soon(came(w->limit) == before + 1);
}

static int result_of(waiting *w)
{
    pthread_join(w->thread, NULL);
    return w->rc;
}

/* ---- options -------------------------------------------------------------------------------- */

static int create_with(void (*change)(weir_limit_opts *))
{
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    opts.limit = 5;
    change(&opts);
    weir_limit *limit = NULL;
    int rc = weir_limit_create(&limit, &opts);
    must((limit != NULL) == (rc == WEIR_OK));
    weir_limit_destroy(limit);
    return rc;
}

#define WITH(name, ...)                                                                            \
    static void name(weir_limit_opts *opts)                                                        \
    {                                                                                              \
        __VA_ARGS__;                                                                               \
    }

WITH(no_size, opts->size = 0)
WITH(no_limit, opts->limit = 0)
WITH(vast_limit, opts->limit = UINT64_C(1) << 46)
WITH(no_algorithm, opts->algorithm = (weir_limit_algorithm)4)
WITH(outside, opts->algorithm = WEIR_LIMIT_VEGAS; opts->max_limit = 4)
WITH(upside_down, opts->algorithm = WEIR_LIMIT_VEGAS; opts->limit = 0; opts->min_limit = 9;
     opts->max_limit = 4)
WITH(backoff, opts->algorithm = WEIR_LIMIT_AIMD; opts->backoff = 1)
WITH(small_backoff, opts->algorithm = WEIR_LIMIT_AIMD; opts->backoff = 0.4)
WITH(tolerance, opts->algorithm = WEIR_LIMIT_GRADIENT2; opts->tolerance = 0.9)
WITH(smoothing, opts->algorithm = WEIR_LIMIT_GRADIENT2; opts->smoothing = 1.1)
WITH(alpha, opts->algorithm = WEIR_LIMIT_VEGAS; opts->alpha = 6; opts->beta = 3)
WITH(quantile, opts->algorithm = WEIR_LIMIT_VEGAS; opts->rtt = WEIR_LIMIT_RTT_QUANTILE;
     opts->quantile = 1)
WITH(negative_probe, opts->algorithm = WEIR_LIMIT_VEGAS; opts->probe_interval_ns = -1)
WITH(negative_timeout, opts->algorithm = WEIR_LIMIT_AIMD; opts->timeout_ns = -1)
WITH(negative_shed, opts->shed_after_ns = -1)
WITH(partitions, opts->n_partitions = WEIR_LIMIT_PARTITIONS + 1)
WITH(shares, opts->n_partitions = 2; opts->shares[0] = 0.7; opts->shares[1] = 0.4)
WITH(share, opts->n_partitions = 1; opts->shares[0] = -0.1)
WITH(name, opts->shared = "a/b")
WITH(good, opts->n_partitions = 2; opts->shares[0] = 0.7; opts->shares[1] = 0.3)
WITH(begins, opts->algorithm = WEIR_LIMIT_VEGAS; opts->limit = 0; opts->min_limit = 30)

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    void (*const bad[])(weir_limit_opts *) = {
        no_size,   no_limit,  vast_limit, no_algorithm,  outside,        upside_down,      backoff,
        tolerance, smoothing, alpha,      quantile,      negative_probe, negative_timeout, share,
        shares,    name,      partitions, small_backoff, negative_shed,
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(create_with(bad[i]), WEIR_EINVAL);
    assert_int_equal(create_with(good), WEIR_OK);
    assert_int_equal(create_with(begins), WEIR_OK);
}

static void an_adaptive_limit_begins_where_it_is_told(void **state)
{
    (void)state;
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    opts.algorithm = WEIR_LIMIT_GRADIENT2;
    weir_limit *limit = create(opts);
    assert_int_equal(weir_limit_get(limit), 20);
    assert_int_equal(look(limit).reason, WEIR_LIMIT_INITIAL);
    weir_limit_destroy(limit);
    opts.max_limit = 7;
    limit = create(opts);
    assert_int_equal(weir_limit_get(limit), 7);
    weir_limit_destroy(limit);
}

/* ---- fixed ---------------------------------------------------------------------------------- */

static void a_fixed_limit_changes_while_in_use(void **state)
{
    (void)state;
    weir_limit *limit = fixed(2);
    weir_permit permits[3] = {let_in(limit, 0), let_in(limit, 0)};
    waiting w = {.limit = limit};
    start(&w);
    assert_int_equal(weir_limit_set(limit, 3), WEIR_OK);
    assert_int_equal(result_of(&w), WEIR_OK);
    permits[2] = w.permit;
    assert_int_equal(weir_limit_set(limit, 1), WEIR_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(try_it(limit, 0), WEIR_EFULL);
        weir_limit_release(limit, &permits[i], WEIR_LIMIT_SUCCESS);
    }
    assert_int_equal(try_it(limit, 0), WEIR_OK);
    assert_int_equal(weir_limit_set(limit, 0), WEIR_EINVAL);
    assert_int_equal(look(limit).reason, WEIR_LIMIT_BY_HAND);
    assert_int_equal(look(limit).peak, 3);
    weir_limit_destroy(limit);
}

static void what_can_never_fit_a_fixed_limit_is_refused(void **state)
{
    (void)state;
    weir_limit *limit = fixed(3);
    weir_permit permit;
    assert_int_equal(weir_limit_acquire(limit, 4, 0, WEIR_FOREVER, &permit), WEIR_ETOOBIG);
    assert_int_equal(weir_limit_acquire(limit, 1, 1, WEIR_FOREVER, &permit), WEIR_EINVAL);
    weir_limit_destroy(limit);
}

static void a_probe_that_is_refused_is_not_counted(void **state)
{
    (void)state;
    weir_limit *limit = fixed(1);
    weir_permit permit = let_in(limit, 0), more;
    assert_int_equal(weir_limit_acquire(limit, 1, 0, WEIR_PROBE, &more), WEIR_EFULL);
    assert_int_equal(look(limit).refused, 0);
    assert_int_equal(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &more), WEIR_EFULL);
    assert_int_equal(look(limit).refused, 1);
    weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
    assert_int_equal(weir_limit_acquire(limit, 1, 0, WEIR_PROBE, &more), WEIR_OK);
    weir_limit_destroy(limit);
}

static void never_ready(weir_pending *pending, int result)
{
    (void)pending, (void)result;
    abort();
}

static void who_leaves_the_line_without_a_thread_is_counted_as_refused(void **state)
{
    (void)state;
    weir_limit *limit = fixed(1);
    weir_permit permit = let_in(limit, 0);
    weir_pending pending = {.ready = never_ready};
    assert_int_equal(weir_limit_acquire_async(limit, 1, 0, &pending), WEIR_WAITING);
    assert_true(weir_limit_cancel(limit, &pending));
    assert_false(weir_limit_cancel(limit, &pending));
    assert_int_equal(look(limit).refused, 1);
    weir_limit_count_refused(limit);
    assert_int_equal(look(limit).refused, 2);
    weir_limit_release(limit, &permit, WEIR_LIMIT_IGNORE);
    weir_limit_destroy(limit);
}

static void a_fixed_limit_asks_no_clock(void **state)
{
    (void)state;
    weir_limit *limit = fixed(3);
    weir_permit permit = let_in(limit, 0);
    assert_int_equal(permit.since, 0);
    weir_limit_release(limit, &permit, WEIR_LIMIT_DROP);
    assert_int_equal(weir_limit_get(limit), 3);
    weir_limit_destroy(limit);
}

/* ---- adaptive ------------------------------------------------------------------------------- */

static void a_drop_makes_an_adaptive_limit_smaller(void **state)
{
    (void)state;
    for (int algorithm = WEIR_LIMIT_AIMD; algorithm <= WEIR_LIMIT_GRADIENT2; algorithm++) {
        weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
        opts.algorithm = (weir_limit_algorithm)algorithm;
        weir_limit *limit = create(opts);
        weir_permit permit = let_in(limit, 0);
        weir_limit_release(limit, &permit, WEIR_LIMIT_DROP);
        assert_true(weir_limit_get(limit) < 20);
        weir_limit_snapshot now = look(limit);
        assert_int_equal(now.reason, WEIR_LIMIT_DROPS);
        assert_int_equal(now.drops, 1);
        assert_int_equal(weir_limit_set(limit, 5), WEIR_EINVAL);
        weir_limit_destroy(limit);
    }
}

static void what_is_ignored_says_nothing(void **state)
{
    (void)state;
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    opts.algorithm = WEIR_LIMIT_AIMD;
    weir_limit *limit = create(opts);
    for (int i = 0; i < 100; i++) {
        weir_permit permit = let_in(limit, 0);
        weir_limit_release(limit, &permit, WEIR_LIMIT_IGNORE);
    }
    assert_int_equal(look(limit).samples, 0);
    assert_int_equal(weir_limit_get(limit), 20);
    weir_limit_destroy(limit);
}

static void calls_that_succeed_make_it_larger(void **state)
{
    (void)state;
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    opts.algorithm = WEIR_LIMIT_AIMD;
    opts.limit = 2;
    weir_limit *limit = create(opts);
    weir_permit held = let_in(limit, 0);
    for (int i = 0; i < 100000 && weir_limit_get(limit) == 2; i++) {
        weir_permit permit = let_in(limit, 0);
        weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
    }
    assert_true(weir_limit_get(limit) > 2);
    assert_int_equal(look(limit).reason, WEIR_LIMIT_ROOM);
    assert_true(look(limit).rtt_ns > 0);
    weir_limit_release(limit, &held, WEIR_LIMIT_IGNORE);
    weir_limit_destroy(limit);
}

static void more_than_an_adaptive_limit_goes_alone(void **state)
{
    (void)state;
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    opts.algorithm = WEIR_LIMIT_VEGAS;
    opts.limit = 2;
    weir_limit *limit = create(opts);
    weir_permit one = let_in(limit, 0), large;
    assert_int_equal(weir_limit_acquire(limit, 5, 0, WEIR_POLL, &large), WEIR_EFULL);
    weir_limit_release(limit, &one, WEIR_LIMIT_IGNORE);
    assert_int_equal(weir_limit_acquire(limit, 5, 0, WEIR_POLL, &large), WEIR_OK);
    assert_int_equal(try_it(limit, 0), WEIR_EFULL);
    weir_limit_release(limit, &large, WEIR_LIMIT_IGNORE);
    weir_limit_destroy(limit);
}

/* ---- who comes first ------------------------------------------------------------------------ */

static void a_partition_below_its_share_goes_first(void **state)
{
    (void)state;
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    opts.limit = 4;
    opts.n_partitions = 2;
    opts.shares[0] = 0.75;
    opts.shares[1] = 0.25;
    weir_limit *limit = create(opts);
    weir_permit batch[4]; /* all of it, while nobody else wants it */
    for (int i = 0; i < 4; i++)
        batch[i] = let_in(limit, 1);
    assert_int_equal(look(limit).used_by[1], 4);
    waiting more = {.limit = limit, .partition = 1}, live = {.limit = limit, .partition = 0};
    start(&more);
    start(&live);
    weir_limit_release(limit, &batch[0], WEIR_LIMIT_SUCCESS);
    assert_int_equal(result_of(&live), WEIR_OK);
    assert_int_equal(look(limit).waiting, 1);
    assert_int_equal(look(limit).used_by[0], 1);
    weir_limit_release(limit, &batch[1], WEIR_LIMIT_SUCCESS);
    assert_int_equal(result_of(&more), WEIR_OK);
    weir_limit_destroy(limit);
}

static void with_lifo_the_last_goes_first(void **state)
{
    (void)state;
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    opts.limit = 1;
    opts.lifo = true;
    weir_limit *limit = create(opts);
    weir_permit permit = let_in(limit, 0);
    waiting first = {.limit = limit}, last = {.limit = limit};
    start(&first);
    start(&last);
    weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
    assert_int_equal(result_of(&last), WEIR_OK);
    assert_int_equal(look(limit).waiting, 1);
    weir_limit_release(limit, &last.permit, WEIR_LIMIT_SUCCESS);
    assert_int_equal(result_of(&first), WEIR_OK);
    weir_limit_destroy(limit);
}

static void in_a_standing_line_those_too_old_are_shed(void **state)
{
    (void)state;
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    opts.limit = 1;
    opts.shed_after_ns = 1;
    opts.shed_interval_ns = 20 * MS;
    weir_limit *limit = create(opts);
    weir_permit permit = let_in(limit, 0);
    waiting line[20];
    for (int i = 0; i < 20; i++) {
        line[i] = (waiting){.limit = limit};
        start(&line[i]);
    }
    unsigned shed = 0;
    weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
    for (int i = 0; i < 20; i++) {
        int rc = result_of(&line[i]);
        assert_true(rc == WEIR_OK || rc == WEIR_ESHED);
        shed += rc == WEIR_ESHED;
        if (rc != WEIR_OK)
            continue;
        weir_time end = weir_after(12 * MS); /* of the call: two in each interval */
        soon(weir_now() >= end);
        weir_limit_release(limit, &line[i].permit, WEIR_LIMIT_SUCCESS);
    }
    assert_true(shed > 0);
    assert_int_equal(look(limit).shed, shed);
    weir_limit_destroy(limit);
}

/* ---- shared --------------------------------------------------------------------------------- */

static void one_name_is_one_limit(void **state)
{
    (void)state;
    char shared[32];
    snprintf(shared, sizeof shared, "limit.%d", (int)getpid());
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    opts.limit = 2;
    opts.shared = shared;
    weir_limit *one = create(opts);
    opts.limit = 99;
    opts.algorithm = WEIR_LIMIT_VEGAS;
    weir_limit *second = create(opts);
    assert_int_equal(weir_limit_get(second), 2);
    assert_int_equal(look(second).algorithm, WEIR_LIMIT_FIXED);
    weir_permit permits[2] = {let_in(one, 0), let_in(second, 0)};
    assert_int_equal(try_it(one, 0), WEIR_EFULL);
    assert_int_equal(weir_limit_set(second, 3), WEIR_OK);
    assert_int_equal(weir_limit_get(one), 3);
    weir_limit_release(one, &permits[1], WEIR_LIMIT_SUCCESS);
    weir_limit_release(second, &permits[0], WEIR_LIMIT_SUCCESS);
    opts.n_partitions = 2;
    weir_limit *third;
    assert_int_equal(weir_limit_create(&third, &opts), WEIR_EINVAL);
    weir_limit_destroy(one);
    weir_limit_destroy(second);
}

static void what_one_process_learns_all_know(void **state)
{
    (void)state;
    char shared[32];
    snprintf(shared, sizeof shared, "limit.%d", (int)getpid());
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    opts.algorithm = WEIR_LIMIT_AIMD;
    opts.shared = shared;
    weir_limit *one = create(opts), *second = create(opts);
    weir_permit permit = let_in(one, 0);
    weir_limit_release(one, &permit, WEIR_LIMIT_DROP);
    assert_int_equal(weir_limit_get(second), 18);
    assert_int_equal(look(second).reason, WEIR_LIMIT_DROPS);
    weir_limit_destroy(one);
    weir_limit_destroy(second);
}

/* ---- looking, and the arithmetic alone --------------------------------------------------------
 * */

static void every_reason_has_a_phrase(void **state)
{
    (void)state;
    for (int i = WEIR_LIMIT_BY_HAND; i <= WEIR_LIMIT_CEILING; i++)
        assert_true(strlen(weir_limit_why(i)) > 5);
    assert_string_equal(weir_limit_why(-1), weir_limit_why(100));
    weir_limit *limit = fixed(1);
    weir_limit_snapshot unsized = {0};
    assert_int_equal(weir_limit_get_snapshot(limit, &unsized), WEIR_EINVAL);
    weir_limit_destroy(limit);
}

static void the_model_needs_no_clock(void **state)
{
    (void)state;
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    opts.algorithm = WEIR_LIMIT_VEGAS;
    weir_limit_model *model;
    assert_int_equal(weir_limit_model_create(&model, &opts, 0), WEIR_OK);
    uint64_t limit = 20;
    weir_time now = 0; /* calls take 10 ms as long as no more than 50 are in flight */
    for (int i = 0; i < 200000; i++) {
        int64_t rtt = limit > 50 ? (int64_t)(10 * MS * limit / 50) : 10 * MS;
        now += rtt / (int64_t)limit;
        limit = weir_limit_model_sample(model, now, rtt, limit, WEIR_LIMIT_SUCCESS);
    }
    weir_limit_snapshot last = WEIR_LIMIT_SNAPSHOT_INIT;
    assert_int_equal(weir_limit_model_get_snapshot(model, &last), WEIR_OK);
    assert_in_range(last.limit, 36, 55); /* 37: in a probe */
    assert_in_range(last.baseline_ns, 99 * MS / 10, 101 * MS / 10);
    assert_int_equal(last.samples, 200000);
    weir_limit_model_destroy(model);
    opts.algorithm = WEIR_LIMIT_FIXED;
    opts.limit = 5;
    assert_int_equal(weir_limit_model_create(&model, &opts, 0), WEIR_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_out_of_range_are_refused),
        cmocka_unit_test(an_adaptive_limit_begins_where_it_is_told),
        cmocka_unit_test(a_fixed_limit_changes_while_in_use),
        cmocka_unit_test(what_can_never_fit_a_fixed_limit_is_refused),
        cmocka_unit_test(a_probe_that_is_refused_is_not_counted),
        cmocka_unit_test(who_leaves_the_line_without_a_thread_is_counted_as_refused),
        cmocka_unit_test(a_fixed_limit_asks_no_clock),
        cmocka_unit_test(a_drop_makes_an_adaptive_limit_smaller),
        cmocka_unit_test(what_is_ignored_says_nothing),
        cmocka_unit_test(calls_that_succeed_make_it_larger),
        cmocka_unit_test(more_than_an_adaptive_limit_goes_alone),
        cmocka_unit_test(a_partition_below_its_share_goes_first),
        cmocka_unit_test(with_lifo_the_last_goes_first),
        cmocka_unit_test(in_a_standing_line_those_too_old_are_shed),
        cmocka_unit_test(one_name_is_one_limit),
        cmocka_unit_test(what_one_process_learns_all_know),
        cmocka_unit_test(every_reason_has_a_phrase),
        cmocka_unit_test(the_model_needs_no_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
