/* What other processes see of pipelines: every stage, where it stands, and where the pressure comes from. */
#include "seen.h"

#include <weir/pipeline.h>

#define ITEMS 40

static void drop(void *item, weir_stage stage, weir_loss reason, void *ctx)
{
    (void)item, (void)stage, (void)reason, (void)ctx;
}

static int count_up(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    uintptr_t *made = ctx;
    (void)items, (void)n;
    weir_emit(run, number(++*made), 0);
    return *made == ITEMS ? WEIR_END : WEIR_MORE;
}

static int pass_on(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx, (void)n;
    weir_emit(run, items[0], 0);
    return WEIR_OK;
}

/* Fails with every tenth item, at the first attempt. */
static int nap(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx, (void)n;
    nanosleep(&(struct timespec){.tv_nsec = 4000000}, NULL);
    return (uintptr_t)items[0] % 10 == 0 && run->attempt == 0 ? -1 : WEIR_OK;
}

static weir_pipeline *make(const char *name)
{
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    weir_pipeline *pipeline;
    opts.name = name;
    opts.on_drop = drop;
    must(weir_pipeline_create(&pipeline, &opts) == WEIR_OK);
    return pipeline;
}

static weir_stage add(weir_pipeline *pipeline, const char *name, weir_stage_fn *fn,
                      weir_stage_opts *opts)
{
    weir_stage stage;
    opts->size = sizeof *opts;
    opts->name = name;
    opts->fn = fn;
    must(weir_pipeline_add(pipeline, opts, &stage) == WEIR_OK);
    return stage;
}

static weir_queue *make_queue(const char *name)
{
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    weir_queue *queue;
    opts.name = name;
    opts.capacity = 5;
    opts.on_drop = weir_drop_ignore;
    must(weir_queue_create(&queue, &opts) == WEIR_OK);
    return queue;
}

/* source -> inline -> a queue of its own -> a borrowed queue, which is slow. */
static void every_stage_is_seen_with_its_place_its_work_and_the_pressure(void **state)
{
    (void)state;
    uintptr_t made = 0;
    weir_queue *queue = make_queue("lent");
    weir_pipeline *pipeline = make("line");
    weir_stage source =
        add(pipeline, "count", count_up, &(weir_stage_opts){.source = true, .ctx = &made});
    weir_stage within =
        add(pipeline, "within", pass_on, &(weir_stage_opts){.kind = WEIR_STAGE_INLINE});
    weir_stage own = add(pipeline, "own", pass_on, &(weir_stage_opts){.queue = 3});
    weir_stage slow = add(
        pipeline, "slow", nap,
        &(weir_stage_opts){.borrowed = queue,
                           .attempts = 2,
                           .backoff = {.size = sizeof(weir_backoff), .base_ns = WEIR_MILLISECOND},
                           .on_error = WEIR_ON_ERROR_SKIP});
    must(weir_pipeline_connect(pipeline, source, within) == WEIR_OK);
    must(weir_pipeline_connect(pipeline, within, own) == WEIR_OK);
    must(weir_pipeline_connect(pipeline, own, slow) == WEIR_OK);
    assert_int_equal(weir_pipeline_start(pipeline), WEIR_OK);
    assert_false(look_for("lent").found);
    soon(see("line/slow").number[WEIR_STATS_WORKERS] == 1);
    soon(see("line/slow").number[WEIR_STATS_PRESSURE_NS] > 0); /* nobody has asked for it */
    assert_int_equal(weir_pipeline_wait(pipeline, WEIR_FOREVER), WEIR_OK);

    weir_stats_record count = see("line/count"), in = see("line/within"), mid = see("line/own"),
                      last = see("line/slow");
    const weir_stats_record *all[] = {&count, &in, &mid, &last};
    for (int i = 0; i < 4; i++) {
        const uint64_t *n = all[i]->number;
        assert_int_equal(all[i]->kind, WEIR_STATS_STAGE);
        assert_int_equal(n[WEIR_STATS_OWNER], count.id);
        assert_int_equal(n[WEIR_STATS_PLACE], i);
        assert_int_equal(n[WEIR_STATS_FEEDS], i < 3 ? 2 << i : 0);
        assert_int_equal(n[WEIR_STATS_ACCEPTED], ITEMS);
        assert_int_equal(n[WEIR_STATS_DELIVERED], ITEMS);
        assert_int_equal(n[WEIR_STATS_DONE], ITEMS);
        assert_int_equal(n[WEIR_STATS_EMITTED], i < 3 ? ITEMS : 0);
        assert_int_equal(n[WEIR_STATS_DEPTH], 0);
        assert_int_equal(n[WEIR_STATS_IN_FLIGHT], 0);
        assert_int_equal(n[WEIR_STATS_CLOSED], 1);
        assert_true(n[WEIR_STATS_BUSY_NS] > 0);
        assert_true(weir_stats_times_count(&all[i]->service) > 0);
    }
    assert_int_equal(last.number[WEIR_STATS_CAPACITY], 5);
    assert_int_equal(last.number[WEIR_STATS_RETRIED], ITEMS / 10);
    assert_int_equal(last.number[WEIR_STATS_FAILED], 0);
    assert_int_equal(last.number[WEIR_STATS_CAUSE], WEIR_CAUSE_WORKERS);
    assert_int_equal(weir_stats_times_count(&last.service), ITEMS + ITEMS / 10);
    assert_true(last.number[WEIR_STATS_BUSY_NS] >= ITEMS * UINT64_C(4000000));
    assert_true(mid.number[WEIR_STATS_BLOCKED_NS] > 0);
    assert_true(count.number[WEIR_STATS_BLOCKED_NS] > 0);
    assert_true(last.number[WEIR_STATS_PRESSURE_NS] > mid.number[WEIR_STATS_PRESSURE_NS]);
    weir_pipeline_destroy(pipeline);
    assert_false(look_for("line/count").found);
    assert_false(look_for("line/within").found);
    weir_queue_destroy(queue);
    assert_false(look_for("line/slow").found);
}

static int refuse(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx, (void)items, (void)n, (void)run;
    return -1;
}

static void a_stage_that_is_not_seen_by_its_queue_is_seen_all_the_same(void **state)
{
    (void)state;
    weir_queue *queue = make_queue("");
    weir_pipeline *pipeline = make("quiet");
    weir_stage stage =
        add(pipeline, "fail", refuse,
            &(weir_stage_opts){.borrowed = queue, .open = true, .on_error = WEIR_ON_ERROR_SKIP});
    assert_int_equal(weir_pipeline_start(pipeline), WEIR_OK);
    for (int i = 0; i < 7; i++)
        assert_int_equal(weir_pipeline_put(pipeline, stage, NULL, 0, WEIR_FOREVER), WEIR_KEPT);
    weir_pipeline_close_input(pipeline, stage);
    assert_int_equal(weir_pipeline_wait(pipeline, WEIR_FOREVER), WEIR_OK);
    weir_stats_record seen = see("quiet/fail");
    assert_int_equal(seen.number[WEIR_STATS_FAILED], 7);
    assert_int_equal(seen.number[WEIR_STATS_DONE], 7);
    assert_int_equal(seen.number[WEIR_STATS_IN_FLIGHT], 0);
    weir_pipeline_destroy(pipeline);
    assert_false(look_for("quiet/fail").found);
    weir_queue_destroy(queue);
}

/* U+00FC has two bytes, and the 30th byte of each name is the first of one. */
#define LONG "aüüüüüüüüüüüüüüüüüü"

static void a_long_name_of_a_stage_is_cut_between_characters(void **state)
{
    (void)state;
    weir_queue *queue = make_queue("kept short");
    weir_pipeline *pipeline = make(LONG);
    weir_stage stage =
        add(pipeline, LONG, refuse,
            &(weir_stage_opts){.borrowed = queue, .open = true, .on_error = WEIR_ON_ERROR_SKIP});
    assert_int_equal(weir_pipeline_start(pipeline), WEIR_OK);
    assert_true(look_for("aüüüüüüüüüüüüüü/aüüüüüüüüüüüüüü").found);
    weir_pipeline_close_input(pipeline, stage);
    assert_int_equal(weir_pipeline_wait(pipeline, WEIR_FOREVER), WEIR_OK);
    weir_pipeline_destroy(pipeline);
    weir_queue_destroy(queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_stage_is_seen_with_its_place_its_work_and_the_pressure),
        cmocka_unit_test(a_stage_that_is_not_seen_by_its_queue_is_seen_all_the_same),
        cmocka_unit_test(a_long_name_of_a_stage_is_cut_between_characters),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
