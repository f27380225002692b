/* A process that is killed at any instruction of the shared gate's calls: what it held comes back,
 * the capacity holds, whoever waits is let in, and the gate's state is as before or after.
 *
 *     WEIR_KILL_STRIDE=1 build/tests/fault_shared_gate
 */
#include "faults.h"
#include "steps.h"

#include <glob.h>
#include <stdio.h>

#include "flow/gate.h"

#define CAPACITY 4u
#define SOON     WEIR_SECOND /* 10 times what a killed process may cost */

static char name[32];

/* Both of one update. */
typedef struct pair {
    uint64_t a, b;
} pair;

static weir__gate *create(void)
{
    weir__gate *gate;
    weir__gate_opts opts = {
        .capacity = CAPACITY, .kind = "kill", .shared = name, .state_size = sizeof(pair)};
    must(weir__gate_create(&gate, &opts) == WEIR_OK);
    return gate;
}

static weir__gate_counts look(weir__gate *gate)
{
    weir__gate_counts now;
    weir__gate_get_counts(gate, &now);
    must(now.admitted == now.released + now.inside + now.lost);
    return now;
}

static uint64_t count(void *state, uint64_t used, uint64_t capacity, void *ctx)
{
    pair *p = state;
    (void)used;
    p->a++;
    p->b++;
    if (ctx)
        *(pair *)ctx = *p;
    return capacity;
}

/* ---- victims -------------------------------------------------------------------------------- */

static void take_seat(weir__gate *gate)
{
    must(weir__gate_acquire(gate, 1, 0, WEIR_POLL) == WEIR_OK);
    weir__gate_release(gate, 1, 0, NULL, NULL);
}

static void acquires(void *gate)
{
    take_seat(gate);
    stop_here();
    weir__gate_acquire(gate, 2, 0, WEIR_POLL);
}

static void comes_new(void *gate)
{
    stop_here();
    weir__gate_acquire(gate, 2, 0, WEIR_POLL);
}

static void waits(void *gate)
{
    stop_here();
    weir__gate_acquire(gate, CAPACITY, 0, WEIR_FOREVER);
}

static void releases(void *gate)
{
    must(weir__gate_acquire(gate, 3, 0, WEIR_POLL) == WEIR_OK);
    stop_here();
    weir__gate_release(gate, 3, 0, NULL, NULL);
}

static void releases_and_counts(void *gate)
{
    must(weir__gate_acquire(gate, 3, 0, WEIR_POLL) == WEIR_OK);
    stop_here();
    weir__gate_release(gate, 3, 0, count, NULL);
}

static void leaves(void *gate)
{
    must(weir__gate_acquire(gate, 3, 0, WEIR_POLL) == WEIR_OK);
    stop_here();
    weir__gate_destroy(gate);
}

static void opens(void *unused)
{
    (void)unused;
    stop_here();
    weir__gate *gate = create();
    weir__gate_acquire(gate, 2, 0, WEIR_POLL);
    weir__gate_destroy(gate);
}

/* ---- survivors ------------------------------------------------------------------------------ */

typedef struct survivor {
    weir__gate *gate;
    int rc;
    pthread_t thread;
} survivor;

static void *survives(void *arg)
{
    survivor *s = arg;
    s->rc = weir__gate_acquire(s->gate, 2, 0, weir_after(PATIENCE));
    return NULL;
}

static void check_it_works(weir__gate *gate, uint64_t held)
{
    weir_time since = weir_now();
    must(weir__gate_acquire(gate, CAPACITY - held, 0, weir_after(PATIENCE)) == WEIR_OK);
    must(weir_now() - since < SOON);
    weir__gate_counts now = look(gate);
    must(now.used == CAPACITY);
    must(weir__gate_acquire(gate, 1, 0, WEIR_POLL) == WEIR_EFULL);
    weir__gate_release(gate, CAPACITY - held, 0, NULL, NULL);
    pair p;
    weir__gate_update(gate, count, &p);
    must(p.a == p.b);
    must(look(gate).used == held && look(gate).peak_used <= CAPACITY);
}

/* One kill after n instructions; false: the call was over before. */
static bool kill_after(victim_fn *call, bool somebody_waits, uint64_t n)
{
    weir__gate *gate = create();
    uint64_t held = call == waits ? 1 : 0;
    if (held)
        must(weir__gate_acquire(gate, held, 0, WEIR_POLL) == WEIR_OK);
    survivor s = {.gate = gate};
    pid_t pid = start(call, gate); /* no thread runs yet that could hold malloc's lock */
    if (somebody_waits) {
        must(pthread_create(&s.thread, NULL, survives, &s) == 0);
        soon(look(gate).waiting == 1);
    }
    enum end end = STEPPED;
    bool woken = false;
    for (uint64_t i = 0; i < n && end != OVER; i++) {
        end = step(pid, 1);
        if (end != ASLEEP)
            continue;
        if (i + 1 == n || call != waits)
            break;
        if (!woken)
            weir__gate_release(gate, held, 0, NULL, NULL);
        woken = true;
        while ((end = wait_for_step(pid, true)) == ASLEEP)
            ;
    }
    if (end != OVER)
        bury(pid);
    if (woken)
        held = 0;
    if (somebody_waits) {
        weir_time since = weir_now();
        pthread_join(s.thread, NULL);
        must(s.rc == WEIR_OK && weir_now() - since < SOON);
        weir__gate_release(gate, 2, 0, NULL, NULL);
    }
    check_it_works(gate, held);
    weir__gate_destroy(gate);
    return end != OVER && (end != ASLEEP || call == waits);
}

static void kill_everywhere(victim_fn *call, bool somebody_waits)
{
    skip_under_tsan();
    uint64_t n = 0, by = stride() > 1 ? 3 * stride() : 1, phase = (uint64_t)weir_now() % by;
    while (kill_after(call, somebody_waits, 1 + phase + n * by))
        n++;
    printf("           %llu kills\n", (unsigned long long)n);
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void who_is_killed_as_it_comes_in_holds_nothing_for_long(void **state)
{
    (void)state;
    kill_everywhere(acquires, false);
    kill_everywhere(comes_new, false);
}

static void who_is_killed_as_it_waits_stands_in_nobodys_way(void **state)
{
    (void)state;
    kill_everywhere(waits, false);
}

static void who_is_killed_as_it_leaves_lets_others_in(void **state)
{
    (void)state;
    kill_everywhere(releases, true);
    kill_everywhere(releases_and_counts, true);
    kill_everywhere(leaves, true);
}

/* What there is of ours in the memory file system. */
static size_t count_names(void)
{
    char pattern[160];
    glob_t found;
    snprintf(pattern, sizeof pattern, "/dev/shm/weir-*-%s", name);
    size_t n = glob(pattern, 0, NULL, &found) == 0 ? found.gl_pathc : 0;
    globfree(&found);
    return n;
}

/* Behind each end of a system call some instructions further: an opening is long, and most of it fills memory. */
static void who_is_killed_as_it_opens_leaves_a_gate_that_opens(void **state)
{
    (void)state;
    skip_under_tsan();
    uint64_t by = 100 * stride(), kills = 0;
    for (bool goes_on = true; goes_on; kills++) {
        pid_t pid = start(opens, NULL);
        goes_on = run_to_call(pid, kills);
        if (goes_on && step(pid, 1 + (uint64_t)weir_now() % by) != OVER)
            bury(pid);
        weir__gate *gate = create();
        must(count_names() == 1);
        check_it_works(gate, 0);
        weir__gate_destroy(gate);
        must(count_names() == 0);
    }
    printf("           %llu kills\n", (unsigned long long)kills);
}

static int begin(void **state)
{
    (void)state;
    snprintf(name, sizeof name, "kill.%d", (int)getpid());
    stay_on_one_cpu();
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_killed_as_it_comes_in_holds_nothing_for_long),
        cmocka_unit_test(who_is_killed_as_it_waits_stands_in_nobodys_way),
        cmocka_unit_test(who_is_killed_as_it_leaves_lets_others_in),
        cmocka_unit_test(who_is_killed_as_it_opens_leaves_a_gate_that_opens),
    };
    return cmocka_run_group_tests(tests, begin, NULL);
}
