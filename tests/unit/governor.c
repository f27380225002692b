/* flow/governor.h: the governor on a machine whose memory the test says. */
#include "unit/fake_kernel.h"

#include <signal.h>
#include <sys/wait.h>

#include "flow/governor.h"

static weir_governor *governor;

static weir_governor *make(weir_governor_opts opts)
{
    weir_governor *made;
    opts.size = sizeof opts;
    if (!opts.interval_ns)
        opts.interval_ns = WEIR_MILLISECOND;
    must(weir__governor_create_at(&made, &opts, &roots) == WEIR_OK);
    return made;
}

static int begin(void **state)
{
    if (make_cgroup(state) < 0)
        return -1;
    governor = make((weir_governor_opts){.limit_fraction = 0.8});
    return 0;
}

static int end(void **state)
{
    weir_governor_destroy(governor);
    return remove_tree(state);
}

static weir_governor_snapshot now_of(weir_governor *of)
{
    weir_governor_snapshot now = WEIR_GOVERNOR_SNAPSHOT_INIT;
    must(weir_governor_get_snapshot(of, &now) == WEIR_OK);
    must(now.admitted == now.released + now.lost + now.inside);
    return now;
}

static weir_governor_snapshot now(void)
{
    return now_of(governor);
}

static bool step_is(weir_memory_step step)
{
    return weir_governor_sample(governor) == (int)step;
}

/* One more measurement, at least. */
static void measure(void)
{
    uint64_t before = now().measured;
    soon((weir_governor_sample(governor), now().measured > before));
}

static void what_can_be_reserved_is_the_limit_less_what_is_used(void **state)
{
    (void)state;
    weir_governor_snapshot first = now();
    assert_int_equal(first.limit, 800 * MIB);
    assert_int_equal(first.memory, 1000 * MIB);
    assert_int_equal(first.usage, 100 * MIB);
    assert_int_equal(first.capacity, 700 * MIB);
    assert_true(first.is_cgroup);
    assert_int_equal(weir_governor_reserve(governor, 400 * MIB, WEIR_POLL), WEIR_OK);
    assert_int_equal(weir_governor_reserve(governor, 301 * MIB, WEIR_POLL), WEIR_EFULL);
    assert_int_equal(weir_governor_reserve(governor, 300 * MIB, WEIR_POLL), WEIR_OK);
    weir_governor_release(governor, 400 * MIB);
    weir_governor_release(governor, 300 * MIB);
    assert_int_equal(now().peak_reserved, 700 * MIB);
}

static void use_by_others_takes_from_what_can_be_reserved(void **state)
{
    (void)state;
    use(500);
    soon((weir_governor_sample(governor), now().capacity == 300 * MIB));
    use(200);
    soon((weir_governor_sample(governor), now().capacity == 600 * MIB));
}

static void a_limit_that_changes_is_followed(void **state)
{
    (void)state;
    put_number("cgroup/a/memory.max", 2000 * MIB);
    soon((weir_governor_sample(governor), now().capacity == 1500 * MIB));
    assert_int_equal(now().limit, 1600 * MIB);
}

static void one_may_always_go_however_large_and_whatever_is_used(void **state)
{
    (void)state;
    assert_int_equal(weir_governor_reserve(governor, 5000 * MIB, WEIR_POLL), WEIR_OK);
    assert_int_equal(weir_governor_reserve(governor, 1, WEIR_POLL), WEIR_EFULL);
    weir_governor_release(governor, 5000 * MIB);
    use(999);
    soon(step_is(WEIR_MEMORY_SHED));
    assert_int_equal(now().capacity, 0);
    assert_int_equal(weir_governor_reserve(governor, 1, weir_after(PATIENCE)), WEIR_OK);
    assert_int_equal(weir_governor_reserve(governor, 1, WEIR_POLL), WEIR_EFULL);
    weir_governor_release(governor, 1);
    assert_int_equal(weir_governor_reserve(governor, UINT64_C(1) << 61, WEIR_POLL), WEIR_OK);
    weir_governor_release(governor, UINT64_C(1) << 61);
}

struct other_reserve {
    weir_governor *of;
    uint64_t bytes;
    weir_time deadline;
    int rc;
    pthread_t thread;
};

static void *reserve(void *arg)
{
    struct other_reserve *r = arg;
    r->rc = weir_governor_reserve(r->of, r->bytes, r->deadline);
    return NULL;
}

static void start_waiting(struct other_reserve *r)
{
    size_t before = now_of(r->of).waiting;
    must(pthread_create(&r->thread, NULL, reserve, r) == 0);
    soon(now_of(r->of).waiting == before + 1);
}

static int result(struct other_reserve *r)
{
    pthread_join(r->thread, NULL);
    return r->rc;
}

static void who_waits_measures_by_itself(void **state)
{
    (void)state;
    use(700);
    soon((weir_governor_sample(governor), now().capacity == 100 * MIB));
    assert_int_equal(weir_governor_reserve(governor, 10 * MIB, WEIR_POLL), WEIR_OK);
    struct other_reserve r = {governor, 300 * MIB, WEIR_FOREVER, 0, 0};
    start_waiting(&r);
    use(200); /* nobody but the waiter can find out */
    assert_int_equal(result(&r), WEIR_OK);
    weir_governor_release(governor, 300 * MIB);
    weir_governor_release(governor, 10 * MIB);
}

static void measuring_leaves_the_order_of_the_line_as_it_is(void **state)
{
    (void)state;
    assert_int_equal(weir_governor_reserve(governor, 700 * MIB, WEIR_POLL), WEIR_OK);
    struct other_reserve large = {governor, 600 * MIB, WEIR_FOREVER, 0, 0};
    struct other_reserve small = {governor, 200 * MIB, WEIR_FOREVER, 0, 0};
    start_waiting(&large);
    start_waiting(&small);
    weir_time until = weir_after(200 * WEIR_MILLISECOND); /* some hooks, and measurements */
    while (weir_now() < until)
        measure();
    weir_governor_release(governor, 700 * MIB);
    assert_int_equal(result(&large), WEIR_OK);
    assert_int_equal(now().waiting, 1);
    weir_governor_release(governor, 600 * MIB);
    assert_int_equal(result(&small), WEIR_OK);
    weir_governor_release(governor, 200 * MIB);
}

static void slow_gives_half_and_pause_nothing(void **state)
{
    (void)state;
    weir_governor *all = make((weir_governor_opts){
        .limit_fraction = 0.8, .slow_at = 0.3, .pause_at = 0.5, .shed_at = 0.7});
    use(300);
    soon(weir_governor_sample(all) == WEIR_MEMORY_SLOW);
    soon((weir_governor_sample(all), now_of(all).capacity == 250 * MIB));
    use(500);
    soon(weir_governor_sample(all) == WEIR_MEMORY_PAUSE);
    assert_int_equal(now_of(all).capacity, 0);
    use(450); /* above the mark down */
    uint64_t before = now_of(all).measured;
    soon((weir_governor_sample(all), now_of(all).measured > before));
    assert_int_equal(weir_governor_sample(all), WEIR_MEMORY_PAUSE);
    use(100);
    soon(weir_governor_sample(all) == WEIR_MEMORY_NORMAL);
    weir_governor_destroy(all);
}

static void shed_sends_away_who_waits_and_who_would(void **state)
{
    (void)state;
    assert_int_equal(weir_governor_reserve(governor, 700 * MIB, WEIR_POLL), WEIR_OK);
    struct other_reserve r = {governor, 300 * MIB, WEIR_FOREVER, 0, 0};
    start_waiting(&r);
    use(980);
    assert_int_equal(result(&r), WEIR_ESHED);
    assert_int_equal(weir_governor_reserve(governor, 1, WEIR_FOREVER), WEIR_ESHED);
    assert_int_equal(weir_governor_reserve(governor, 1, WEIR_POLL), WEIR_EFULL);
    assert_int_equal(now().shed, 2);
    weir_governor_release(governor, 700 * MIB);
    use(100);
    soon(step_is(WEIR_MEMORY_NORMAL));
}

static int says_yes(void *ctx)
{
    ++*(int *)ctx;
    return 1;
}

static void *reserve_hooked(void *arg)
{
    struct other_reserve *r = arg;
    int asked = 0;
    weir_set_interrupt(says_yes, &asked);
    r->rc = weir_governor_reserve(r->of, r->bytes, r->deadline);
    must(asked == 1);
    return NULL;
}

static void a_hook_of_the_waiters_own_still_ends_its_wait(void **state)
{
    (void)state;
    assert_int_equal(weir_governor_reserve(governor, 700 * MIB, WEIR_POLL), WEIR_OK);
    struct other_reserve r = {governor, 300 * MIB, WEIR_FOREVER, 0, 0};
    must(pthread_create(&r.thread, NULL, reserve_hooked, &r) == 0);
    assert_int_equal(result(&r), WEIR_EINTR);
    weir_governor_release(governor, 700 * MIB);
    assert_int_equal(now().waiting, 0);
}

struct note {
    weir_pending pending;
    _Atomic int result; /* 77: not called */
};

static void ready(weir_pending *pending, int rc)
{
    struct note *note = (struct note *)pending;
    must(note->result == 77);
    note->result = rc;
}

#define NOTE {.pending = {.ready = ready}, .result = 77}

static void a_wait_without_a_thread_ends_once(void **state)
{
    (void)state;
    struct note at_once = NOTE, served = NOTE, cancelled = NOTE, shed = NOTE, closed = NOTE;
    assert_int_equal(weir_governor_reserve_async(governor, 700 * MIB, &at_once.pending), WEIR_OK);
    assert_int_equal(weir_governor_reserve_async(governor, 100 * MIB, &served.pending),
                     WEIR_WAITING);
    assert_int_equal(weir_governor_reserve_async(governor, 500 * MIB, &cancelled.pending),
                     WEIR_WAITING);
    weir_governor_release(governor, 700 * MIB);
    assert_int_equal(served.result, WEIR_OK);
    assert_int_equal(cancelled.result, WEIR_OK); /* 600 in all */
    assert_int_equal(at_once.result, 77);

    cancelled.result = 77;
    assert_int_equal(weir_governor_reserve_async(governor, 500 * MIB, &cancelled.pending),
                     WEIR_WAITING);
    assert_true(weir_governor_cancel(governor, &cancelled.pending));
    assert_false(weir_governor_cancel(governor, &cancelled.pending));
    assert_int_equal(cancelled.result, 77);

    assert_int_equal(weir_governor_reserve_async(governor, 500 * MIB, &shed.pending), WEIR_WAITING);
    use(990);
    soon(step_is(WEIR_MEMORY_SHED));
    assert_int_equal(shed.result, WEIR_ESHED);
    assert_int_equal(weir_governor_reserve_async(governor, 500 * MIB, &shed.pending), WEIR_ESHED);
    use(100);
    soon(step_is(WEIR_MEMORY_NORMAL));
    assert_int_equal(now().refused, 1); /* the cancelled one: who was shed is counted as that */

    assert_int_equal(weir_governor_reserve_async(governor, 500 * MIB, &closed.pending),
                     WEIR_WAITING);
    weir_governor_close(governor);
    assert_int_equal(closed.result, WEIR_ECLOSED);
    assert_int_equal(weir_governor_reserve(governor, 1, WEIR_POLL), WEIR_ECLOSED);
    weir_governor_release(governor, 100 * MIB);
    weir_governor_release(governor, 500 * MIB);
    assert_int_equal(now().reserved, 0);
}

static struct {
    int calls;
    weir_memory_step last;
} told;

static void on_change(weir_memory_step step, void *ctx)
{
    (void)ctx;
    must(step != told.last);
    told.calls++;
    told.last = step;
}

static void a_change_of_the_step_is_told(void **state)
{
    (void)state;
    told.calls = 0;
    told.last = WEIR_MEMORY_NORMAL;
    weir_governor *with = make((weir_governor_opts){.on_change = on_change});
    use(870);
    soon(weir_governor_sample(with) == WEIR_MEMORY_SLOW);
    assert_int_equal(told.last, WEIR_MEMORY_SLOW);
    use(100);
    soon(weir_governor_sample(with) == WEIR_MEMORY_NORMAL);
    assert_int_equal(told.calls, 2);
    weir_governor_destroy(with);
}

static void files_that_vanish_leave_the_last_measurement(void **state)
{
    (void)state;
    use(300);
    soon((weir_governor_sample(governor), now().capacity == 500 * MIB));
    remove_tree(NULL);
    measure();
    measure();
    assert_int_equal(now().capacity, 500 * MIB);
    assert_int_equal(now().usage, 300 * MIB);
    make_cgroup(NULL);
    soon((weir_governor_sample(governor), now().capacity == 700 * MIB));
}

static void a_limit_in_bytes_is_for_this_process_and_its_children(void **state)
{
    (void)state;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    put("proc/self/statm", "1000 2560 5 1 0 1 0\n");
    put("proc/self/task/1/children", "2 ");
    put("proc/2/statm", "1000 5120 5 1 0 1 0\n");
    weir_governor *own = make((weir_governor_opts){.limit_bytes = 200 * MIB});
    assert_int_equal(now_of(own).capacity, 200 * MIB - 7680 * page);
    assert_int_equal(now_of(own).processes, 2);
    use(990); /* the cgroup is full: the ladder sees to that */
    soon(weir_governor_sample(own) == WEIR_MEMORY_SHED);
    weir_governor_destroy(own);
}

static void a_fraction_of_nobody_knows_what_is_an_error(void **state)
{
    (void)state;
    static const weir__memory_roots nothing = {"/nonexistent", "/nonexistent"};
    weir_governor *made = NULL;
    weir_governor_opts opts = WEIR_GOVERNOR_OPTS_INIT;
    assert_int_equal(weir__governor_create_at(&made, &opts, &nothing), WEIR_ESYSTEM);
    opts.limit_bytes = MIB;
    assert_int_equal(weir__governor_create_at(&made, &opts, &nothing), WEIR_OK);
    assert_int_equal(weir_governor_reserve(made, MIB, WEIR_POLL), WEIR_OK);
    weir_governor_release(made, MIB);
    weir_governor_destroy(made);
}

/* ---- shared --------------------------------------------------------------------------------- */

static char name[64];

/* One for each test, which has a folder of its own. */
static weir_governor_opts shared_opts(void)
{
    snprintf(name, sizeof name, "test-%s", top + sizeof "/tmp/weir-memory-" - 1);
    return (weir_governor_opts){.limit_fraction = 0.8, .shared = name};
}

static void processes_that_share_one_have_one_bound(void **state)
{
    (void)state;
    weir_governor *mine = make(shared_opts());
    int to_child[2], to_parent[2];
    char byte = 0;
    must(pipe(to_child) == 0 && pipe(to_parent) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        weir_governor *its = make((weir_governor_opts){.limit_fraction = 0.1, .shared = name});
        must(now_of(its).limit == 800 * MIB); /* as who made it said */
        must(weir_governor_reserve(its, 400 * MIB, WEIR_POLL) == WEIR_OK);
        must(write(to_parent[1], &byte, 1) == 1);
        must(read(to_child[0], &byte, 1) == 1);
        weir_governor_release(its, 400 * MIB);
        weir_governor_destroy(its);
        _exit(0);
    }
    must(read(to_parent[0], &byte, 1) == 1);
    assert_int_equal(now_of(mine).reserved, 400 * MIB);
    assert_int_equal(weir_governor_reserve(mine, 400 * MIB, WEIR_POLL), WEIR_EFULL);
    must(write(to_child[1], &byte, 1) == 1);
    assert_int_equal(weir_governor_reserve(mine, 400 * MIB, weir_after(PATIENCE)), WEIR_OK);
    weir_governor_release(mine, 400 * MIB);
    int status;
    must(waitpid(pid, &status, 0) == pid && status == 0);
    weir_governor_destroy(mine);
}

static void what_a_killed_process_had_reserved_comes_back(void **state)
{
    (void)state;
    weir_governor *mine = make(shared_opts());
    int to_parent[2];
    char byte = 0;
    must(pipe(to_parent) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        weir_governor *its = make(shared_opts());
        must(weir_governor_reserve(its, 600 * MIB, WEIR_POLL) == WEIR_OK);
        must(write(to_parent[1], &byte, 1) == 1);
        for (;;)
            pause();
    }
    must(read(to_parent[0], &byte, 1) == 1);
    assert_int_equal(weir_governor_reserve(mine, 600 * MIB, WEIR_POLL), WEIR_EFULL);
    must(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
    assert_int_equal(weir_governor_reserve(mine, 600 * MIB, weir_after(PATIENCE)), WEIR_OK);
    weir_governor_snapshot last = now_of(mine);
    assert_int_equal(last.lost, 1);
    assert_int_equal(last.reserved, 600 * MIB);
    weir_governor_release(mine, 600 * MIB);
    weir_governor_destroy(mine);
}

static void who_waits_for_a_shared_one_measures_and_is_shed(void **state)
{
    (void)state;
    weir_governor *mine = make(shared_opts());
    assert_int_equal(weir_governor_reserve(mine, 600 * MIB, WEIR_POLL), WEIR_OK);
    struct other_reserve r = {mine, 300 * MIB, WEIR_FOREVER, 0, 0};
    start_waiting(&r);
    use(990);
    assert_int_equal(result(&r), WEIR_ESHED);
    struct note note = NOTE;
    assert_int_equal(weir_governor_reserve_async(mine, 1, &note.pending), WEIR_EINVAL);
    weir_governor_release(mine, 600 * MIB);
    weir_governor_destroy(mine);
}

#define GOVERNOR_TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        GOVERNOR_TEST(what_can_be_reserved_is_the_limit_less_what_is_used),
        GOVERNOR_TEST(use_by_others_takes_from_what_can_be_reserved),
        GOVERNOR_TEST(a_limit_that_changes_is_followed),
        GOVERNOR_TEST(one_may_always_go_however_large_and_whatever_is_used),
        GOVERNOR_TEST(who_waits_measures_by_itself),
        GOVERNOR_TEST(measuring_leaves_the_order_of_the_line_as_it_is),
        GOVERNOR_TEST(slow_gives_half_and_pause_nothing),
        GOVERNOR_TEST(shed_sends_away_who_waits_and_who_would),
        GOVERNOR_TEST(a_hook_of_the_waiters_own_still_ends_its_wait),
        GOVERNOR_TEST(a_wait_without_a_thread_ends_once),
        GOVERNOR_TEST(a_change_of_the_step_is_told),
        GOVERNOR_TEST(files_that_vanish_leave_the_last_measurement),
        GOVERNOR_TEST(a_limit_in_bytes_is_for_this_process_and_its_children),
        GOVERNOR_TEST(a_fraction_of_nobody_knows_what_is_an_error),
        GOVERNOR_TEST(processes_that_share_one_have_one_bound),
        GOVERNOR_TEST(what_a_killed_process_had_reserved_comes_back),
        GOVERNOR_TEST(who_waits_for_a_shared_one_measures_and_is_shed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
