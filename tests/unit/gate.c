/* flow/gate.h, of one process and shared: every test runs on both, if it says nothing else. */
#include "contract/support.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "flow/gate.h"

static const char *shared_name; /* NULL: this process's own */

static int own(void **state)
{
    (void)state;
    shared_name = NULL;
    return 0;
}

static int common(void **state)
{
    (void)state;
    static char name[32];
    snprintf(name, sizeof name, "gate.%d", (int)getpid());
    shared_name = name;
    return 0;
}

static weir__gate *create(weir__gate_opts opts)
{
    weir__gate *gate;
    opts.kind = "test";
    opts.shared = shared_name;
    must(weir__gate_create(&gate, &opts) == WEIR_OK);
    return gate;
}

static weir__gate *of(uint64_t capacity)
{
    return create((weir__gate_opts){.capacity = capacity});
}

static int try_it(weir__gate *gate, uint64_t cost)
{
    return weir__gate_acquire(gate, cost, 0, WEIR_POLL);
}

static void release(weir__gate *gate, uint64_t cost)
{
    weir__gate_release(gate, cost, 0, NULL, NULL);
}

static weir__gate_counts counts_of(weir__gate *gate)
{
    weir__gate_counts now;
    weir__gate_get_counts(gate, &now);
    must(now.admitted == now.released + now.inside + now.lost);
    return now;
}

/* One that waits on a thread of its own. */
typedef struct one {
    weir__gate *gate;
    uint64_t cost;
    unsigned partition;
    weir_time deadline;
    weir_interrupt_fn *hook;
    int rc;
    _Atomic bool done;
    pthread_t thread;
} one;

static void *waits(void *arg)
{
    one *o = arg;
    weir_set_interrupt(o->hook, NULL);
    o->rc = weir__gate_acquire(o->gate, o->cost, o->partition, o->deadline);
    o->done = true;
    return NULL;
}

static void spawn(one *o)
{
    if (o->deadline == 0)
        o->deadline = WEIR_FOREVER;
    must(pthread_create(&o->thread, NULL, waits, o) == 0);
}

/* Returns when it waits. */
static void start(one *o)
{
    size_t before = counts_of(o->gate).waiting;
    spawn(o);
    soon(counts_of(o->gate).waiting == before + 1);
}

static int end_of(one *o)
{
    pthread_join(o->thread, NULL);
    return o->rc;
}

/* ---- one thread ----------------------------------------------------------------------------- */

static void no_more_than_the_capacity_is_let_in(void **state)
{
    (void)state;
    weir__gate *gate = of(10);
    assert_int_equal(try_it(gate, 7), WEIR_OK);
    assert_int_equal(try_it(gate, 4), WEIR_EFULL);
    assert_int_equal(try_it(gate, 3), WEIR_OK);
    assert_int_equal(try_it(gate, 1), WEIR_EFULL);
    assert_int_equal(weir__gate_acquire(gate, 1, 0, weir_after(WEIR_MILLISECOND)), WEIR_ETIMEDOUT);
    assert_int_equal(try_it(gate, 11), WEIR_ETOOBIG);
    assert_int_equal(weir__gate_used(gate), 10);
    release(gate, 7);
    assert_int_equal(try_it(gate, 7), WEIR_OK);
    release(gate, 3);
    release(gate, 7);
    weir__gate_counts now = counts_of(gate);
    assert_int_equal(now.used, 0);
    assert_int_equal(now.inside, 0);
    assert_int_equal(now.admitted, 3);
    assert_int_equal(now.released, 3);
    assert_int_equal(now.refused, 3);
    assert_int_equal(now.peak_used, 10);
    weir__gate_destroy(gate);
}

static void with_one_always_even_the_largest_gets_in_alone(void **state)
{
    (void)state;
    weir__gate *gate = create((weir__gate_opts){.capacity = 10, .one_always = true});
    assert_int_equal(try_it(gate, 1), WEIR_OK);
    assert_int_equal(try_it(gate, 50), WEIR_EFULL);
    release(gate, 1);
    assert_int_equal(try_it(gate, 50), WEIR_OK);
    assert_int_equal(try_it(gate, 1), WEIR_EFULL);
    release(gate, 50);
    weir__gate_set_capacity(gate, 0);
    assert_int_equal(try_it(gate, 1), WEIR_OK);
    assert_int_equal(try_it(gate, 1), WEIR_EFULL);
    release(gate, 1);
    weir__gate_destroy(gate);
}

static void less_capacity_lets_nobody_in_until_there_is_room(void **state)
{
    (void)state;
    weir__gate *gate = of(4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(try_it(gate, 1), WEIR_OK);
    assert_int_equal(weir__gate_set_capacity(gate, 2), 2);
    release(gate, 1);
    release(gate, 1);
    assert_int_equal(try_it(gate, 1), WEIR_EFULL);
    release(gate, 1);
    assert_int_equal(try_it(gate, 1), WEIR_OK);
    assert_int_equal(try_it(gate, 1), WEIR_EFULL);
    weir__gate_set_capacity(gate, 3);
    assert_int_equal(try_it(gate, 1), WEIR_OK);
    assert_int_equal(weir__gate_capacity(gate), 3);
    for (int i = 0; i < 3; i++)
        release(gate, 1);
    weir__gate_destroy(gate);
}

typedef struct tally {
    uint64_t n, seen;
} tally;

static void begin_at_seven(void *state, const void *ctx)
{
    (void)ctx;
    ((tally *)state)->n = 7;
}

static uint64_t count_up(void *state, uint64_t used, uint64_t capacity, void *ctx)
{
    tally *t = state;
    t->n++;
    t->seen = used;
    *(tally *)ctx = *t;
    return capacity + 1;
}

static void the_state_changes_with_the_capacity(void **state)
{
    (void)state;
    tally seen;
    weir__gate *gate = create((weir__gate_opts){
        .capacity = 1, .state_size = sizeof(tally), .state_init = begin_at_seven});
    assert_int_equal(try_it(gate, 1), WEIR_OK);
    assert_int_equal(weir__gate_update(gate, count_up, &seen), 2);
    assert_int_equal(seen.n, 8);
    assert_int_equal(seen.seen, 1);
    weir__gate_release(gate, 1, 0, count_up, &seen);
    assert_int_equal(seen.n, 9);
    assert_int_equal(seen.seen, 1);
    assert_int_equal(weir__gate_capacity(gate), 3);
    weir__gate_destroy(gate);
}

static int create_with(weir__gate_opts opts)
{
    weir__gate *gate;
    opts.kind = "test";
    opts.shared = shared_name;
    return weir__gate_create(&gate, &opts);
}

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    assert_int_equal(create_with((weir__gate_opts){.capacity = UINT64_C(1) << 46}), WEIR_EINVAL);
    assert_int_equal(create_with((weir__gate_opts){.n_partitions = 9}), WEIR_EINVAL);
    assert_int_equal(create_with((weir__gate_opts){.n_partitions = 2, .shares = {0.6, 0.5}}),
                     WEIR_EINVAL);
    assert_int_equal(create_with((weir__gate_opts){.n_partitions = 2, .shares = {0.6, -0.1}}),
                     WEIR_EINVAL);
    assert_int_equal(create_with((weir__gate_opts){.shed_target_ns = 1}), WEIR_EINVAL);
    assert_int_equal(create_with((weir__gate_opts){.state_size = 5000}), WEIR_EINVAL);
}

/* ---- waiting -------------------------------------------------------------------------------- */

static void who_waits_is_let_in_in_order(void **state)
{
    (void)state;
    weir__gate *gate = of(1);
    one ones[4];
    assert_int_equal(try_it(gate, 1), WEIR_OK);
    for (int i = 0; i < 4; i++) {
        ones[i] = (one){.gate = gate, .cost = 1};
        start(&ones[i]);
    }
    for (int i = 0; i < 4; i++) {
        release(gate, 1);
        soon(ones[i].done);
        for (int k = i + 1; k < 4; k++)
            assert_false(ones[k].done);
        assert_int_equal(end_of(&ones[i]), WEIR_OK);
    }
    release(gate, 1);
    assert_int_equal(counts_of(gate).peak_used, 1);
    assert_true(counts_of(gate).blocked_ns > 0);
    weir__gate_destroy(gate);
}

static void the_last_goes_first_with_lifo(void **state)
{
    (void)state;
    weir__gate *gate = create((weir__gate_opts){.capacity = 1, .lifo = true});
    one ones[3];
    assert_int_equal(try_it(gate, 1), WEIR_OK);
    for (int i = 0; i < 3; i++) {
        ones[i] = (one){.gate = gate, .cost = 1};
        start(&ones[i]);
    }
    for (int i = 2; i >= 0; i--) {
        release(gate, 1);
        assert_int_equal(end_of(&ones[i]), WEIR_OK);
    }
    release(gate, 1);
    weir__gate_destroy(gate);
}

static void a_large_one_is_waited_for(void **state)
{
    (void)state;
    weir__gate *gate = of(10);
    assert_int_equal(try_it(gate, 6), WEIR_OK);
    one large = {.gate = gate, .cost = 8}, small = {.gate = gate, .cost = 1};
    start(&large);
    assert_int_equal(try_it(gate, 1), WEIR_EFULL); /* there would be room */
    start(&small);
    release(gate, 6);
    assert_int_equal(end_of(&large), WEIR_OK);
    assert_int_equal(end_of(&small), WEIR_OK);
    release(gate, 8);
    release(gate, 1);
    weir__gate_destroy(gate);
}

static void who_gives_up_stands_in_nobodys_way(void **state)
{
    (void)state;
    weir__gate *gate = of(10);
    assert_int_equal(try_it(gate, 6), WEIR_OK);
    one large = {.gate = gate, .cost = 8, .deadline = weir_after(200 * WEIR_MILLISECOND)};
    one small = {.gate = gate, .cost = 1};
    start(&large);
    start(&small);
    assert_int_equal(end_of(&large), WEIR_ETIMEDOUT);
    assert_int_equal(end_of(&small), WEIR_OK);
    release(gate, 6);
    release(gate, 1);
    weir__gate_destroy(gate);
}

static _Atomic bool interrupted;

static int asks(void *ctx)
{
    (void)ctx;
    return interrupted;
}

static void an_interrupted_wait_takes_nothing(void **state)
{
    (void)state;
    weir__gate *gate = of(1);
    assert_int_equal(try_it(gate, 1), WEIR_OK);
    interrupted = false;
    one o = {.gate = gate, .cost = 1, .hook = asks};
    start(&o);
    interrupted = true;
    assert_int_equal(end_of(&o), WEIR_EINTR);
    release(gate, 1);
    assert_int_equal(counts_of(gate).used, 0);
    weir__gate_destroy(gate);
}

static void close_releases_who_waits_and_refuses_the_others(void **state)
{
    (void)state;
    weir__gate *gate = of(1);
    assert_int_equal(try_it(gate, 1), WEIR_OK);
    one ones[3];
    for (int i = 0; i < 3; i++) {
        ones[i] = (one){.gate = gate, .cost = 1};
        start(&ones[i]);
    }
    weir__gate_close(gate);
    for (int i = 0; i < 3; i++)
        assert_int_equal(end_of(&ones[i]), WEIR_ECLOSED);
    release(gate, 1);
    assert_int_equal(try_it(gate, 1), WEIR_ECLOSED);
    assert_int_equal(weir__gate_acquire(gate, 1, 0, WEIR_FOREVER), WEIR_ECLOSED);
    assert_true(counts_of(gate).is_closed);
    weir__gate_destroy(gate);
}

static void more_capacity_lets_in_who_waits(void **state)
{
    (void)state;
    weir__gate *gate = of(0);
    weir__gate_set_capacity(gate, 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(try_it(gate, 1), WEIR_OK);
    one ones[2];
    for (int i = 0; i < 2; i++) {
        ones[i] = (one){.gate = gate, .cost = 1};
        start(&ones[i]);
    }
    weir__gate_set_capacity(gate, 7);
    for (int i = 0; i < 2; i++)
        assert_int_equal(end_of(&ones[i]), WEIR_OK);
    for (int i = 0; i < 7; i++)
        release(gate, 1);
    weir__gate_destroy(gate);
}

static void who_can_never_fit_any_more_is_told_so(void **state)
{
    (void)state;
    weir__gate *gate = of(10);
    assert_int_equal(try_it(gate, 7), WEIR_OK);
    one large = {.gate = gate, .cost = 8}, small = {.gate = gate, .cost = 1};
    start(&large);
    start(&small);
    weir__gate_set_capacity(gate, 7);
    assert_int_equal(end_of(&large), WEIR_ETOOBIG);
    assert_false(small.done);
    release(gate, 7);
    assert_int_equal(end_of(&small), WEIR_OK);
    assert_int_equal(counts_of(gate).peak_used, 7);
    release(gate, 1);
    weir__gate_destroy(gate);
}

static void a_partition_below_its_share_goes_first(void **state)
{
    (void)state;
    weir__gate *gate =
        create((weir__gate_opts){.capacity = 4, .n_partitions = 2, .shares = {0.5, 0.25}});
    for (int i = 0; i < 4; i++) /* all of it to one, while nobody else wants any */
        assert_int_equal(weir__gate_acquire(gate, 1, 0, WEIR_POLL), WEIR_OK);
    one more = {.gate = gate, .cost = 1, .partition = 0};
    one others[2] = {{.gate = gate, .cost = 1, .partition = 1},
                     {.gate = gate, .cost = 1, .partition = 1}};
    start(&more);
    start(&others[0]);
    start(&others[1]);
    weir__gate_release(gate, 1, 0, NULL, NULL);
    assert_int_equal(end_of(&others[0]), WEIR_OK); /* came later, but has less than its quarter */
    assert_false(more.done);
    weir__gate_release(gate, 1, 0, NULL, NULL);
    assert_int_equal(end_of(&more), WEIR_OK); /* it has its quarter now: in order again */
    assert_false(others[1].done);
    weir__gate_counts now = counts_of(gate);
    assert_int_equal(now.used_by[0], 3);
    assert_int_equal(now.used_by[1], 1);
    weir__gate_release(gate, 1, 1, NULL, NULL);
    assert_int_equal(end_of(&others[1]), WEIR_OK);
    for (int i = 0; i < 3; i++)
        weir__gate_release(gate, 1, 0, NULL, NULL);
    weir__gate_release(gate, 1, 1, NULL, NULL);
    assert_int_equal(counts_of(gate).used, 0);
    weir__gate_destroy(gate);
}

/* A line that nobody comes through quickly: the late ones are sent away. */
static void a_standing_line_is_shed(void **state)
{
    (void)state;
    enum { N = 40 };
    weir__gate *gate = create((weir__gate_opts){
        .capacity = 1, .shed_target_ns = 1000, .shed_interval_ns = 20 * WEIR_MILLISECOND});
    assert_int_equal(try_it(gate, 1), WEIR_OK);
    static one ones[N];
    for (int i = 0; i < N; i++) {
        ones[i] = (one){.gate = gate, .cost = 1};
        spawn(&ones[i]); /* some may be shed before the last has come */
    }
    int in = 0, shed = 0;
    while (in + shed < N) {
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
        if (counts_of(gate).inside > 0)
            release(gate, 1);
        weir__gate_counts now = counts_of(gate);
        in = (int)now.admitted - 1;
        shed = (int)now.shed;
    }
    int ok = 0;
    for (int i = 0; i < N; i++) {
        int rc = end_of(&ones[i]);
        assert_true(rc == WEIR_OK || rc == WEIR_ESHED);
        ok += rc == WEIR_OK;
    }
    assert_int_equal(ok, in);
    assert_true(shed > 0); /* all of them, where this thread was kept waiting */
    while (counts_of(gate).inside > 0)
        release(gate, 1);
    weir__gate_destroy(gate);
}

/* Nobody ever leaves: who waits for an interval is sent away all the same. */
static void a_line_behind_one_that_hangs_is_shed(void **state)
{
    (void)state;
    weir__gate *gate = create((weir__gate_opts){
        .capacity = 1, .shed_target_ns = 1000, .shed_interval_ns = 50 * WEIR_MILLISECOND});
    assert_int_equal(try_it(gate, 1), WEIR_OK);
    one ones[3];
    for (int i = 0; i < 3; i++) {
        ones[i] = (one){.gate = gate, .cost = 1};
        spawn(&ones[i]); /* some may be shed before the last has come */
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(end_of(&ones[i]), WEIR_ESHED);
    assert_int_equal(counts_of(gate).shed, 3);
    release(gate, 1);
    assert_int_equal(try_it(gate, 1), WEIR_OK);
    release(gate, 1);
    weir__gate_destroy(gate);
}

/* ---- without a thread ----------------------------------------------------------------------- */

typedef struct told {
    weir_pending pending;
    int n, result;
} told;

static void tell(weir_pending *pending, int result)
{
    told *t = pending->ctx;
    t->n++;
    t->result = result;
}

static void begin_told(told *t)
{
    *t = (told){.pending = {.ready = tell}, .result = -99};
    t->pending.ctx = t;
}

static void one_without_a_thread_is_told_once(void **state)
{
    (void)state;
    weir__gate *gate = of(1);
    told a, b, c, d;
    begin_told(&a);
    begin_told(&b);
    begin_told(&c);
    begin_told(&d);
    assert_int_equal(weir__gate_acquire_async(gate, 1, 0, &a.pending), WEIR_OK);
    assert_int_equal(weir__gate_acquire_async(gate, 1, 0, &b.pending), WEIR_WAITING);
    assert_int_equal(weir__gate_acquire_async(gate, 1, 0, &c.pending), WEIR_WAITING);
    assert_int_equal(weir__gate_acquire_async(gate, 1, 0, &d.pending), WEIR_WAITING);
    assert_int_equal(weir__gate_acquire_async(gate, 2, 0, &a.pending), WEIR_ETOOBIG);
    assert_true(weir__gate_cancel(gate, &c.pending));
    release(gate, 1);
    assert_int_equal(b.n, 1);
    assert_int_equal(b.result, WEIR_OK);
    assert_false(weir__gate_cancel(gate, &b.pending));
    weir__gate_close(gate);
    assert_int_equal(d.n, 1);
    assert_int_equal(d.result, WEIR_ECLOSED);
    assert_int_equal(a.n + c.n, 0);
    release(gate, 1);
    weir__gate_destroy(gate);
}

static void who_waits_is_told_in_numbers_that_belong_together(void **state)
{
    (void)state;
    weir__gate *gate = create((weir__gate_opts){.capacity = 1, .stats_kind = WEIR_STATS_LIMIT});
    weir__record *record = weir__gate_record(gate);
    assert_non_null(record);
    assert_int_equal(try_it(gate, 1), WEIR_OK);
    uint64_t before = record->version;
    assert_int_equal(weir__gate_acquire(gate, 1, 0, weir_after(WEIR_MILLISECOND)), WEIR_ETIMEDOUT);
    assert_true(record->number[WEIR_STATS_PUT_BLOCKED_NS] > 0);
    assert_true(record->version >= before + 4 && record->version % 2 == 0);
    release(gate, 1);
    weir__gate_destroy(gate);
}

static void a_shared_gate_cannot_tell(void **state)
{
    (void)state;
    weir__gate *gate = of(1);
    told a;
    begin_told(&a);
    assert_int_equal(weir__gate_acquire_async(gate, 1, 0, &a.pending), WEIR_EINVAL);
    weir__gate_destroy(gate);
}

/* ---- processes ------------------------------------------------------------------------------ */

static int ends_with(pid_t pid)
{
    int status;
    must(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void what_a_killed_process_held_is_given_back(void **state)
{
    (void)state;
    weir__gate *gate = of(3);
    assert_int_equal(try_it(gate, 1), WEIR_OK);
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        must(try_it(gate, 2) == WEIR_OK);
        raise(SIGKILL);
    }
    assert_int_equal(ends_with(pid), -SIGKILL);
    assert_int_equal(counts_of(gate).used, 3);
    assert_int_equal(weir__gate_acquire(gate, 2, 0, weir_after(PATIENCE)), WEIR_OK);
    weir__gate_counts now = counts_of(gate);
    assert_int_equal(now.used, 3);
    assert_int_equal(now.lost, 1);
    release(gate, 2);
    release(gate, 1);
    weir__gate_destroy(gate);
}

static void one_gate_has_one_capacity_for_all_handles(void **state)
{
    (void)state;
    weir__gate *a = of(2), *b = of(50);
    assert_int_equal(weir__gate_capacity(b), 2);
    assert_int_equal(try_it(a, 1), WEIR_OK);
    assert_int_equal(try_it(b, 1), WEIR_OK);
    assert_int_equal(try_it(a, 1), WEIR_EFULL);
    release(a, 1);
    release(b, 1);
    weir__gate_close(b);
    assert_int_equal(try_it(b, 1), WEIR_ECLOSED);
    assert_int_equal(try_it(a, 1), WEIR_OK);
    weir__gate_destroy(a); /* with something inside */
    weir__gate_destroy(b);
    a = of(1);
    assert_int_equal(counts_of(a).used, 0);
    weir__gate_destroy(a);
}

static void a_process_that_waits_is_woken_by_another(void **state)
{
    (void)state;
    weir__gate *gate = of(1);
    assert_int_equal(try_it(gate, 1), WEIR_OK);
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        must(weir__gate_acquire(gate, 1, 0, weir_after(PATIENCE)) == WEIR_OK);
        release(gate, 1);
        weir__gate_destroy(gate);
        _exit(7);
    }
    soon(counts_of(gate).waiting == 1);
    release(gate, 1);
    assert_int_equal(ends_with(pid), 7);
    assert_int_equal(try_it(gate, 1), WEIR_OK);
    release(gate, 1);
    assert_int_equal(counts_of(gate).admitted, 3);
    weir__gate_destroy(gate);
}

static void one_that_waits_and_is_killed_is_not_waited_for(void **state)
{
    (void)state;
    weir__gate *gate = of(10);
    assert_int_equal(try_it(gate, 5), WEIR_OK);
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        weir__gate_acquire(gate, 9, 0, WEIR_FOREVER);
        _exit(1);
    }
    soon(counts_of(gate).waiting == 1);
    assert_int_equal(try_it(gate, 2), WEIR_EFULL);
    kill(pid, SIGKILL);
    assert_int_equal(ends_with(pid), -SIGKILL);
    assert_int_equal(weir__gate_acquire(gate, 2, 0, weir_after(PATIENCE)), WEIR_OK);
    release(gate, 2);
    release(gate, 5);
    weir__gate_destroy(gate);
}

static uint64_t to_none(void *state, uint64_t used, uint64_t capacity, void *ctx)
{
    (void)state, (void)used, (void)capacity, (void)ctx;
    return 0;
}

/* As a daemon does that closes all descriptors: it cannot take a seat of its own. */
static void a_forked_child_without_the_file_comes_in_nowhere(void **state)
{
    (void)state;
    weir__gate *gate = of(2);
    assert_int_equal(try_it(gate, 1), WEIR_OK);
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        for (int fd = 3; fd < 256; fd++)
            close(fd);
        must(try_it(gate, 1) == WEIR_ESYSTEM);
        weir__gate_release(gate, 1, 0, to_none, NULL);
        _exit(7);
    }
    assert_int_equal(ends_with(pid), 7);
    assert_int_equal(counts_of(gate).used, 1);
    assert_int_equal(counts_of(gate).capacity, 2);
    release(gate, 1);
    weir__gate_destroy(gate);
}

#define BOTH(test)                                                                                 \
    {#test, test, own, NULL, NULL},                                                                \
    {                                                                                              \
        #test "_shared", test, common, NULL, NULL                                                  \
    }
#define OWN(test)    {#test, test, own, NULL, NULL}
#define SHARED(test) {#test, test, common, NULL, NULL}

int main(int argc, char **argv)
{
    if (argc == 2)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        BOTH(no_more_than_the_capacity_is_let_in),
        BOTH(with_one_always_even_the_largest_gets_in_alone),
        BOTH(less_capacity_lets_nobody_in_until_there_is_room),
        BOTH(the_state_changes_with_the_capacity),
        BOTH(options_out_of_range_are_refused),
        BOTH(who_waits_is_let_in_in_order),
        BOTH(the_last_goes_first_with_lifo),
        BOTH(a_large_one_is_waited_for),
        BOTH(who_gives_up_stands_in_nobodys_way),
        BOTH(an_interrupted_wait_takes_nothing),
        BOTH(close_releases_who_waits_and_refuses_the_others),
        BOTH(more_capacity_lets_in_who_waits),
        BOTH(who_can_never_fit_any_more_is_told_so),
        BOTH(a_partition_below_its_share_goes_first),
        BOTH(a_standing_line_is_shed),
        BOTH(a_line_behind_one_that_hangs_is_shed),
        OWN(one_without_a_thread_is_told_once),
        OWN(who_waits_is_told_in_numbers_that_belong_together),
        SHARED(a_shared_gate_cannot_tell),
        SHARED(what_a_killed_process_held_is_given_back),
        SHARED(one_gate_has_one_capacity_for_all_handles),
        SHARED(a_process_that_waits_is_woken_by_another),
        SHARED(one_that_waits_and_is_killed_is_not_waited_for),
        SHARED(a_forked_child_without_the_file_comes_in_nowhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
