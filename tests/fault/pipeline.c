/* A pipeline that gets no memory, or no thread: an error or a counted loss, nothing left behind. */
#include "contract/folder.h"
#include "faults.h"
#include "threads.h"
#include <string.h>

#include <weir/pipeline.h>

#include "base/files.h"

#define ITEMS 200

static _Atomic unsigned made, arrived, dropped;

static void count_drop(void *item, weir_stage stage, weir_loss reason, void *ctx)
{
    (void)item, (void)stage, (void)reason, (void)ctx;
    dropped++;
}

static int produce(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx, (void)items, (void)n;
    if (made == ITEMS)
        return WEIR_END;
    made++;
    weir_emit(run, number(made), 0);
    return WEIR_MORE;
}

static int pass(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx;
    weir_emit_many(run, items, NULL, n);
    return 0;
}

static int arrive(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx, (void)items, (void)run;
    arrived += (unsigned)n;
    return 0;
}

/* Source, four ordered workers behind a limit, sink; < 0: could not be built or started. */
static int build(weir_pipeline *pipeline, weir_limit *limit)
{
    weir_stage_opts opts[3] = {WEIR_STAGE_OPTS_INIT, WEIR_STAGE_OPTS_INIT, WEIR_STAGE_OPTS_INIT};
    weir_stage stage;
    opts[0].name = "source";
    opts[0].fn = produce;
    opts[0].source = true;
    opts[1].name = "pass";
    opts[1].fn = pass;
    opts[1].workers = 4;
    opts[1].ordered = true;
    opts[1].limit = limit;
    opts[2].name = "sink";
    opts[2].fn = arrive;
    opts[2].batch = 3;
    for (unsigned i = 0; i < 3; i++) {
        int rc = weir_pipeline_add(pipeline, &opts[i], &stage);
        if (rc == WEIR_OK && i > 0)
            rc = weir_pipeline_connect(pipeline, i - 1, i);
        if (rc != WEIR_OK)
            return rc;
    }
    return weir_pipeline_start(pipeline);
}

static void run_out_of_memory(int64_t n, bool *ret_failed)
{
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    opts.on_drop = count_drop;
    weir_limit_opts limit_opts = WEIR_LIMIT_OPTS_INIT;
    limit_opts.limit = 2;
    weir_limit *limit;
    must(weir_limit_create(&limit, &limit_opts) == WEIR_OK);
    weir_pipeline *pipeline = NULL;
    made = arrived = dropped = 0;
    fail_allocation(n, false);
    int rc = weir_pipeline_create(&pipeline, &opts);
    if (rc == WEIR_OK)
        rc = build(pipeline, limit);
    must(rc == WEIR_OK || rc == WEIR_ENOMEM);
    if (rc == WEIR_OK) {
        must(weir_pipeline_wait(pipeline, weir_after(PATIENCE)) == WEIR_OK);
        must(made == ITEMS);
    }
    *ret_failed = stop_failing();
    weir_pipeline_destroy(pipeline);
    must(made == arrived + dropped);
    weir_limit_destroy(limit);
}

static void each_allocation_may_fail(void **state)
{
    (void)state;
    bool failed = true;
    int64_t n = 1;
    for (; failed && n < 2000; n++)
        run_out_of_memory(n, &failed);
    assert_true(n > 30);
}

static void each_thread_may_fail_to_start(void **state)
{
    (void)state;
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    opts.on_drop = count_drop;
    for (int allowed = 0; allowed <= 7; allowed++) {
        weir_pipeline *pipeline;
        made = arrived = dropped = 0;
        assert_int_equal(weir_pipeline_create(&pipeline, &opts), WEIR_OK);
        threads_allowed = allowed;
        int rc = build(pipeline, NULL);
        threads_allowed = -1;
        assert_int_equal(rc, allowed < 7 ? WEIR_ESPAWN : WEIR_OK); /* the tender, 1 + 4 + 1 */
        if (rc != WEIR_OK)
            assert_int_equal(weir_pipeline_start(pipeline),
                             WEIR_OK); /* again, from the beginning */
        assert_int_equal(weir_pipeline_wait(pipeline, weir_after(PATIENCE)), WEIR_OK);
        weir_pipeline_destroy(pipeline);
        assert_int_equal(made, ITEMS);
        assert_int_equal(arrived, ITEMS);
    }
}

static weir_stage_snapshot look(weir_pipeline *pipeline, weir_stage stage)
{
    weir_stage_snapshot now = WEIR_STAGE_SNAPSHOT_INIT;
    must(weir_pipeline_get_snapshot(pipeline, stage, &now) == WEIR_OK);
    return now;
}

static weir_stage must_add(weir_pipeline *pipeline, weir_stage_opts opts)
{
    weir_stage stage;
    must(weir_pipeline_add(pipeline, &opts, &stage) == WEIR_OK);
    return stage;
}

/* ---- one more worker cannot be started, and the last one leaves meanwhile ------------------------- */

static _Atomic unsigned ends;

static weir_pipeline *starting;
static _Atomic bool is_last; /* what is being started, until the others have left */

static int arrive_slowly(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    if (!is_last)
        nanosleep(&(struct timespec){.tv_nsec = 5 * WEIR_MILLISECOND}, NULL);
    return arrive(ctx, items, n, run);
}

typedef struct thread {
    void (*main)(void *arg);
    void *arg;
} thread;

static void *run_detached(void *ctx)
{
    thread it = *(thread *)ctx;
    free(ctx);
    it.main(it.arg);
    return NULL;
}

static int start_no_second(void (*main_of)(void *arg), void *arg, const char *name, void *ctx)
{
    (void)ctx;
    if (strcmp(name, "sink-1") == 0) {
        is_last = true;
        soon(look(starting, 0).workers == 1); /* this one: the other has left */
        return WEIR_ESPAWN;
    }
    thread *it = malloc(sizeof(*it));
    *it = (thread){main_of, arg};
    pthread_t id;
    must(pthread_create(&id, NULL, run_detached, it) == 0);
    return pthread_detach(id);
}

static _Thread_local bool is_inside;
static _Atomic bool ended_inside;

static void go_outside(void *ctx)
{
    (void)ctx;
    is_inside = false;
}

static void come_inside(void *ctx)
{
    (void)ctx;
    is_inside = true;
}

static void note_where(void *ctx)
{
    (void)ctx;
    ended_inside = is_inside;
    ends++;
}

static void a_stage_ends_though_one_more_worker_could_not_be_started(void **state)
{
    (void)state;
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    opts.on_drop = count_drop;
    opts.start_thread = start_no_second;
    opts.before_wait = go_outside;
    opts.after_wait = come_inside;
    opts.on_end = note_where;
    must(weir_pipeline_create(&starting, &opts) == WEIR_OK);
    weir_stage_opts o = WEIR_STAGE_OPTS_INIT;
    o.name = "sink";
    o.fn = arrive_slowly;
    o.workers_max = 2;
    weir_stage sink = must_add(starting, o);
    o = (weir_stage_opts)WEIR_STAGE_OPTS_INIT;
    o.name = "source";
    o.fn = produce;
    o.source = true;
    must(weir_pipeline_connect(starting, must_add(starting, o), sink) == WEIR_OK);
    made = arrived = dropped = ends = 0;
    is_last = ended_inside = false;
    must(weir_pipeline_start(starting) == WEIR_OK);
    assert_int_equal(weir_pipeline_wait(starting, weir_after(PATIENCE)), WEIR_OK);
    soon(ends == 1);
    assert_true(is_last);
    assert_true(ended_inside);
    weir_pipeline_destroy(starting);
    assert_int_equal(arrived, ITEMS);
}

/* ---- no memory for what lies on disk -------------------------------------------------------------- */

static int encode(void *item, weir_record *into, void *ctx)
{
    (void)ctx;
    return weir_record_add(into, &item, sizeof(item));
}

static int decode(const void *data, size_t n, void **ret_item, void *ctx)
{
    (void)ctx;
    must(n == sizeof(*ret_item));
    memcpy(ret_item, data, n);
    return fault_now() ? WEIR_ENOMEM : WEIR_OK;
}

static _Atomic bool is_open;

static int arrive_when_open(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    soon(is_open);
    return arrive(ctx, items, n, run);
}

static void what_lies_on_disk_waits_for_memory(void **state)
{
    (void)state;
    weir_spill *spill = open_spill(1 << 20, 0, false);
    const weir_codec codec = {.encode = encode, .decode = decode};
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    opts.on_drop = count_drop;
    weir_pipeline *pipeline;
    must(weir_pipeline_create(&pipeline, &opts) == WEIR_OK);
    weir_stage_opts o = WEIR_STAGE_OPTS_INIT;
    o.name = "sink";
    o.fn = arrive_when_open;
    o.queue = 2;
    o.overflow = WEIR_OVERFLOW_SPILL;
    o.spill = spill;
    o.codec = &codec;
    weir_stage sink = must_add(pipeline, o);
    o = (weir_stage_opts)WEIR_STAGE_OPTS_INIT;
    o.name = "source";
    o.fn = produce;
    o.source = true;
    must(weir_pipeline_connect(pipeline, must_add(pipeline, o), sink) == WEIR_OK);
    made = arrived = dropped = 0;
    is_open = false;
    fail_allocation(0, true); /* none yet */
    must(weir_pipeline_start(pipeline) == WEIR_OK);
    soon(look(pipeline, 1).ended);
    fault_countdown = 1; /* all, from the next */
    is_open = true;
    soon(fault_hits > 3);
    stop_failing();
    assert_int_equal(weir_pipeline_wait(pipeline, weir_after(PATIENCE)), WEIR_OK);
    assert_int_equal(look(pipeline, sink).depth, 0);
    weir_pipeline_destroy(pipeline);
    assert_int_equal(arrived, ITEMS);
    weir_spill_destroy(spill);
}

/* ---- no memory for a while ----------------------------------------------------------------------- */

static int produce_for_ever(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx, (void)items, (void)n;
    made++;
    weir_emit(run, number(made), 0);
    return WEIR_MORE;
}

static int pass_now_and_then(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    if ((uintptr_t)items[0] % 64 == 0) /* the others finish first, and fill the window */
        nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    return pass(ctx, items, n, run);
}

static void an_ordered_stage_survives_that_there_is_no_memory_for_a_while(void **state)
{
    (void)state;
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    opts.on_drop = count_drop;
    weir_pipeline *pipeline;
    must(weir_pipeline_create(&pipeline, &opts) == WEIR_OK);
    weir_stage_opts o = WEIR_STAGE_OPTS_INIT;
    o.name = "source";
    o.fn = produce_for_ever;
    o.source = true;
    weir_stage at = must_add(pipeline, o);
    for (int i = 0; i < 2; i++) {
        o = (weir_stage_opts)WEIR_STAGE_OPTS_INIT;
        o.name = i ? "sink" : "ordered";
        o.fn = i ? arrive : pass_now_and_then;
        o.workers = i ? 1 : 4;
        o.ordered = !i;
        o.window = i ? 0 : 256;
        o.queue = 256;
        weir_stage next = must_add(pipeline, o);
        must(weir_pipeline_connect(pipeline, at, next) == WEIR_OK);
        at = next;
    }
    made = arrived = dropped = 0;
    fail_allocation(0, true); /* none yet */
    must(weir_pipeline_start(pipeline) == WEIR_OK);
    for (int i = 0; i < 20; i++) {
        unsigned before = arrived;
        soon(arrived > before + 100);
        fault_countdown = 1; /* all, from the next */
        nanosleep(&(struct timespec){.tv_nsec = 10 * WEIR_MILLISECOND}, NULL);
        fault_countdown = 0;
    }
    weir_pipeline_stop(pipeline);
    assert_int_equal(weir_pipeline_wait(pipeline, weir_after(PATIENCE)), WEIR_OK);
    weir_pipeline_destroy(pipeline);
    assert_int_equal(made, arrived + dropped);
}

/* ---- the disk of the stage behind fails ---------------------------------------------------------- */

static int io_error(size_t *n)
{
    *n = 0;
    return EIO;
}

static int pass_while_the_disk_fails(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx;
    soon(is_open);
    weir__write_fails = io_error;
    weir_emit_many(run, items, NULL, n);
    weir__write_fails = NULL;
    return 0;
}

static weir_spill *open_durable(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    weir_spill_opts opts = spill_opts(1 << 20, 0, true);
    opts.dir = path;
    weir_spill *spill;
    must(weir_spill_create(&spill, &opts) == WEIR_OK);
    return spill;
}

static void empty_durable(const char *name)
{
    char whole[sizeof folder];
    memcpy(whole, folder, sizeof folder);
    snprintf(folder, sizeof folder, "%.40s/%s", whole, name);
    each_file("", remove_path, NULL);
    memcpy(folder, whole, sizeof folder);
}

/* Two durable stages, and an inline one between them, which runs where the first one emits. */
static void put_while_the_disk_behind_fails(bool ordered)
{
    weir_spill *spills[2] = {open_durable("first"), open_durable("second")};
    const weir_codec codec = {.encode = encode, .decode = decode};
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    opts.on_drop = count_drop;
    weir_pipeline *pipeline;
    must(weir_pipeline_create(&pipeline, &opts) == WEIR_OK);
    for (int i = 0; i < 2; i++) {
        weir_stage_opts o = WEIR_STAGE_OPTS_INIT;
        o.name = i ? "second" : "first";
        o.fn = i ? arrive : pass;
        o.open = i == 0;
        o.workers = ordered ? 3 : 1;
        o.ordered = ordered;
        o.overflow = WEIR_OVERFLOW_SPILL;
        o.spill = spills[i];
        o.codec = &codec;
        o.acknowledge = true;
        must_add(pipeline, o);
    }
    weir_stage_opts o = WEIR_STAGE_OPTS_INIT;
    o.name = "between";
    o.kind = WEIR_STAGE_INLINE;
    o.fn = pass_while_the_disk_fails;
    weir_stage between = must_add(pipeline, o);
    must(weir_pipeline_connect(pipeline, 0, between) == WEIR_OK);
    must(weir_pipeline_connect(pipeline, between, 1) == WEIR_OK);
    arrived = dropped = 0;
    is_open = false;
    must(weir_pipeline_start(pipeline) == WEIR_OK);
    for (uintptr_t i = 0; i < 5; i++)
        must(weir_pipeline_put(pipeline, 0, number(i), 0, WEIR_FOREVER) == WEIR_KEPT);
    must(weir_pipeline_close_input(pipeline, 0) == WEIR_OK);
    is_open = true;
    must(weir_pipeline_wait(pipeline, weir_after(PATIENCE)) == WEIR_OK);
    assert_int_equal(look(pipeline, 1).dropped[WEIR_LOSS_REFUSED], 5);
    assert_int_equal(look(pipeline, 1).waits, 5); /* what waits for a disk waits */
    weir_pipeline_destroy(pipeline);
    assert_int_equal(dropped, 5);
    for (int i = 0; i < 2; i++)
        weir_spill_destroy(spills[i]);
    spills[0] = open_durable("first");
    uint64_t recovered = log_of(spills[0]).recovered;
    weir_spill_destroy(spills[0]);
    empty_durable("first");
    empty_durable("second");
    assert_int_equal(recovered, 5);
}

static void what_the_disk_behind_did_not_take_is_not_acknowledged(void **state)
{
    (void)state;
    put_while_the_disk_behind_fails(false);
    put_while_the_disk_behind_fails(true);
}

/* ---- a start that fails half way ---------------------------------------------------------------- */

static _Atomic bool is_endless;

static void count_end(void *ctx)
{
    (void)ctx;
    ends++;
}

static int produce_until_halted(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    soon(!is_endless || weir_run_is_halted(run));
    return produce(ctx, items, n, run);
}

static int arrive_or_fail(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    return is_endless ? WEIR_ESYSTEM : arrive(ctx, items, n, run);
}

static void a_start_that_failed_leaves_nothing_to_the_next(void **state)
{
    (void)state;
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    opts.on_drop = count_drop;
    opts.on_end = count_end;
    weir_pipeline *pipeline;
    must(weir_pipeline_create(&pipeline, &opts) == WEIR_OK);
    weir_stage_opts o = WEIR_STAGE_OPTS_INIT;
    o.name = "sink";
    o.fn = arrive_or_fail;
    weir_stage sink = must_add(pipeline, o);
    o.source = true;
    o.fn = produce_until_halted;
    for (int i = 0; i < 2; i++) {
        o.name = i ? "second" : "first";
        must(weir_pipeline_connect(pipeline, must_add(pipeline, o), sink) == WEIR_OK);
    }
    made = arrived = dropped = ends = 0;
    is_endless = true;
    threads_allowed = 3; /* the tender, the sink and one source */
    must(weir_pipeline_start(pipeline) == WEIR_ESPAWN);
    threads_allowed = -1;
    assert_int_equal(ends, 0);
    assert_int_equal(made, dropped); /* by who was halted */
    made = dropped = 0;
    is_endless = false;
    must(weir_pipeline_start(pipeline) == WEIR_OK);
    assert_int_equal(weir_pipeline_wait(pipeline, weir_after(PATIENCE)), WEIR_OK);
    soon(ends == 1);
    weir_stage_snapshot first = look(pipeline, 1), second = look(pipeline, 2);
    assert_int_equal(look(pipeline, sink).accepted, first.emitted + second.emitted);
    assert_int_equal(look(pipeline, sink).accepted, arrived);
    weir_pipeline_destroy(pipeline);
    assert_int_equal(dropped, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_allocation_may_fail),
        cmocka_unit_test(each_thread_may_fail_to_start),
        cmocka_unit_test(a_start_that_failed_leaves_nothing_to_the_next),
        cmocka_unit_test(a_stage_ends_though_one_more_worker_could_not_be_started),
        cmocka_unit_test(an_ordered_stage_survives_that_there_is_no_memory_for_a_while),
        IN_FOLDER(what_lies_on_disk_waits_for_memory),
        IN_FOLDER(what_the_disk_behind_did_not_take_is_not_acknowledged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
