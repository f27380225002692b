/* cli/run/adapt.h in simulated worlds: processors that jobs share, a server that serves so many at a time, waiting.
 *
 * Each list is run with fixed numbers as well, with the same jobs: what was found is compared with the best of them.
 * Nothing here depends on the machine.
 */
#include "parts.h"

#include "run/adapt.h"

#include <math.h>

#define MS 1e6

typedef struct world {
    double cpus;
    double served, crowding; /* by the server at a time; how much each one more slows all */
    double start_ms;         /* what a start takes: of one after the other */
} world;

typedef enum phase { WAIT, CPU, SERVER } phase;

typedef struct job {
    double left[3]; /* ms of each phase, one after the other */
    double cpu_ms;  /* that it is told to have taken */
    phase phase;
    bool is_there;
} job;

typedef void make_fn(job *job, unsigned number);

/* ---- chance ----------------------------------------------------------------------------------- */

static unsigned seed;

static double chance(unsigned number, unsigned salt)
{
    uint64_t x = (number + 1) * UINT64_C(0x9e3779b97f4a7c15) +
                 (salt + 16 * seed) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return ((double)((x ^ (x >> 31)) >> 11) + 0.5) / 9007199254740992.0;
}

/* ---- running a list --------------------------------------------------------------------------- */

typedef struct list {
    world world;
    unsigned items;
    make_fn *make;
} list;

static void computes(job *j, unsigned i)
{
    j->left[CPU] = 40 + 20 * chance(i, 1);
}

/* By processes that it does not wait for, say. */
static void computes_untold(job *j, unsigned i)
{
    computes(j, i);
}

typedef struct result {
    double took_ms;
    uint64_t most, last; /* numbers of jobs, while there were enough */
    unsigned changes;    /* in the last half */
} result;

static run_adapt adapt;
static job jobs[RUN_JOBS_MAX + 1];

static void speeds(const world *w, const unsigned n[3], double speed[3])
{
    speed[WAIT] = 1;
    speed[CPU] = n[CPU] > w->cpus ? w->cpus / n[CPU] : 1;
    double over = n[SERVER] - w->served;
    speed[SERVER] = over > 0 ? w->served / n[SERVER] / (1 + w->crowding * over) : 1;
}

static phase next_phase(const job *j)
{
    phase p = WAIT;
    while (p < SERVER && j->left[p] <= 1e-9)
        p++;
    return p;
}

/* With a number that is said, or (0) found. */
static result run_list(const list *l, uint64_t fixed)
{
    result r = {0};
    double now = 1, ready = 0;
    unsigned started = 0, ended = 0, running = 0, top = 0;
    memset(jobs, 0, sizeof jobs);
    run_adapt_begin(&adapt, (uint64_t)l->world.cpus, l->world.cpus, (weir_time)MS);
    while (ended < l->items) {
        uint64_t may = fixed ? fixed : adapt.jobs;
        while (started < l->items && running < may && ready <= now) {
            unsigned slot = 1;
            while (jobs[slot].is_there)
                slot++;
            jobs[slot] = (job){.is_there = true};
            l->make(&jobs[slot], started++);
            jobs[slot].cpu_ms = l->make == computes_untold ? 0 : jobs[slot].left[CPU];
            jobs[slot].phase = next_phase(&jobs[slot]);
            top = slot > top ? slot : top;
            running++;
            ready = now + l->world.start_ms;
            run_adapt_started(&adapt, slot, (weir_time)(now * MS));
        }
        unsigned n[3] = {0};
        double speed[3], step = started < l->items && running < may ? ready - now : 1e12;
        for (unsigned s = 1; s <= top; s++)
            n[jobs[s].phase] += jobs[s].is_there;
        speeds(&l->world, n, speed);
        for (unsigned s = 1; s <= top; s++) {
            job *j = &jobs[s];
            double until = j->is_there ? j->left[j->phase] / speed[j->phase] : step;
            step = until < step ? until : step;
        }
        now += step;
        for (unsigned s = 1; s <= top; s++) {
            job *j = &jobs[s];
            if (!j->is_there)
                continue;
            j->left[j->phase] -= step * speed[j->phase];
            if (j->left[j->phase] > 1e-9)
                continue;
            j->left[j->phase] = 0;
            j->phase = next_phase(j);
            if (j->left[j->phase] > 0)
                continue;
            j->is_there = false;
            running--;
            ended++;
            uint64_t before = adapt.jobs;
            run_adapt_ended(&adapt, s, true, (int64_t)(j->cpu_ms * MS), (weir_time)(now * MS));
            r.changes += before != adapt.jobs && ended > l->items / 2;
            r.most = adapt.jobs > r.most ? adapt.jobs : r.most;
            if (started < l->items)
                r.last = adapt.base;
        }
        while (top > 0 && !jobs[top].is_there)
            top--;
    }
    r.took_ms = now;
    return r;
}

/* How many times as long as with the best number. */
static double against_best(const list *l, result *ret_found)
{
    double best = INFINITY;
    uint64_t best_n = 0;
    for (uint64_t n = 1; n <= 64; n *= 2) {
        double took = run_list(l, n).took_ms;
        if (took < best)
            best_n = n;
        best = took < best ? took : best;
    }
    *ret_found = run_list(l, 0);
    print_message("best %lu: %.1f s; found %lu (at most %lu, %u changes): %.1f s\n",
                  (unsigned long)best_n, best / 1e3, (unsigned long)ret_found->last,
                  (unsigned long)ret_found->most, ret_found->changes, ret_found->took_ms / 1e3);
    return ret_found->took_ms / best;
}

/* ---- worlds ----------------------------------------------------------------------------------- */

static const world two_cpus = {2, 1e9, 0, 0.5}, server = {2, 20, 0.02, 0.5};

static void sleeps_100ms(job *j, unsigned i)
{
    (void)i;
    j->left[WAIT] = 100;
}

static void sleeps_1s(job *j, unsigned i)
{
    (void)i;
    j->left[WAIT] = 1000;
}

static void sleeps_somehow(job *j, unsigned i)
{
    j->left[WAIT] = 100 + 900 * chance(i, 2);
    j->left[CPU] = 2;
}

static void asks_the_server(job *j, unsigned i)
{
    j->left[SERVER] = 80 + 40 * chance(i, 3);
    j->left[CPU] = 1;
}

static void computes_and_waits(job *j, unsigned i)
{
    j->left[CPU] = i % 2 ? 50 : 2;
    j->left[WAIT] = i % 2 ? 0 : 300;
}

/* Pareto, 1.2: the mean is six times the least. */
static double heavy(unsigned i, unsigned salt)
{
    return fmin(pow(chance(i, salt), -1 / 1.2), 1000);
}

static void computes_heavily(job *j, unsigned i)
{
    j->left[CPU] = 20 * heavy(i, 4);
}

static void waits_heavily(job *j, unsigned i)
{
    j->left[WAIT] = 20 * heavy(i, 5);
    j->left[CPU] = 1;
}

static void is_nothing(job *j, unsigned i)
{
    (void)i;
    j->left[CPU] = 0.6;
}

static void waits_then_computes(job *j, unsigned i)
{
    j->left[i < 2000 ? WAIT : CPU] = i < 2000 ? 200 : 50;
}

static void computes_then_waits(job *j, unsigned i)
{
    j->left[i < 1000 ? CPU : WAIT] = i < 1000 ? 50 : 200;
}

static void slower_together(job *j, unsigned i)
{
    j->left[SERVER] = 40 + 20 * chance(i, 6);
}

/* ---- sentences -------------------------------------------------------------------------------- */

static void what_computes_gets_as_many_as_there_are_processors(void **state)
{
    (void)state;
    result found;
    for (double cpus = 1; cpus <= 32; cpus *= 2) {
        const list l = {{cpus, 1e9, 0, 0.5}, 1000, computes};
        assert_true(against_best(&l, &found) < 1.05);
        assert_true((double)found.last == cpus && (double)found.most <= 2 * cpus);
    }
}

static void it_does_not_run_away_where_its_time_is_not_known(void **state)
{
    (void)state;
    result found;
    const list l = {{2, 1e9, 0, 0.5}, 4000, computes_untold};
    assert_true(against_best(&l, &found) < 1.1);
    assert_true(found.last <= 4 && found.most <= 16);
}

static void what_waits_gets_many(void **state)
{
    (void)state;
    result found;
    const list l[] = {{two_cpus, 1000, sleeps_100ms}, {two_cpus, 1000, sleeps_1s}};
    for (size_t i = 0; i < 2; i++) {
        assert_true(against_best(&l[i], &found) < 1.25);
        assert_true(found.last >= 32);
    }
}

static void waits_of_all_lengths_get_many(void **state)
{
    (void)state;
    result found;
    const list l = {two_cpus, 1000, sleeps_somehow};
    for (seed = 0; seed < 8; seed++)
        assert_true(against_best(&l, &found) < 1.35);
}

static void a_server_is_asked_for_what_it_can_do(void **state)
{
    (void)state;
    result found;
    const list l = {server, 4000, asks_the_server};
    for (seed = 0; seed < 4; seed++) {
        assert_true(against_best(&l, &found) < 1.25);
        assert_true(found.last >= 12 && found.last <= 32 && found.most <= 64);
    }
}

static void a_mixture_keeps_the_processors_busy(void **state)
{
    (void)state;
    result found;
    const list l = {two_cpus, 1000, computes_and_waits};
    assert_true(against_best(&l, &found) < 1.25);
    assert_true(found.most <= 64);
}

static void a_few_long_ones_do_not_mislead(void **state)
{
    (void)state;
    result found;
    const list waiting = {two_cpus, 1000, waits_heavily},
               computing = {two_cpus, 2000, computes_heavily};
    for (seed = 0; seed < 6; seed++) {
        assert_true(against_best(&waiting, &found) < 1.35);
        assert_true(against_best(&computing, &found) < 1.45); /* the last one may be long */
        assert_true(found.most <= 256);
    }
}

static void what_is_slower_together_runs_alone(void **state)
{
    (void)state;
    result found;
    const list l = {{4, 1, 0.5, 0.5}, 2000, slower_together};
    assert_true(against_best(&l, &found) < 1.5);
    assert_true(found.last <= 2 && found.most <= 16);
}

static void the_number_follows_when_the_jobs_change(void **state)
{
    (void)state;
    result found;
    const list waits_first = {two_cpus, 4000, waits_then_computes},
               computes_first = {two_cpus, 4000, computes_then_waits};
    assert_true(against_best(&waits_first, &found) < 1.25);
    assert_true(found.last <= 8);
    assert_true(against_best(&computes_first, &found) < 1.25);
    assert_true(found.last >= 32);
}

static void short_ones_do_not_need_more(void **state)
{
    (void)state;
    result found;
    const list l = {{2, 1e9, 0, 0.4}, 8000, is_nothing};
    assert_true(against_best(&l, &found) < 1.1);
    assert_true(found.most <= 8);
}

static void it_settles(void **state)
{
    (void)state;
    result found;
    const list l = {two_cpus, 8000, computes_and_waits};
    against_best(&l, &found);
    assert_true(found.changes <= 12);
}

/* ---- by hand ---------------------------------------------------------------------------------- */

/* Each of them takes so long; all n are started at once, and end at once. */
static weir_time round_of(weir_time now, unsigned n, int64_t ns, bool is_done)
{
    for (unsigned slot = 1; slot <= n; slot++)
        run_adapt_started(&adapt, slot, now);
    for (unsigned slot = 1; slot <= n; slot++)
        run_adapt_ended(&adapt, slot, is_done, 0, now + ns);
    return now + ns;
}

static void it_does_not_grow_while_fewer_run_than_may(void **state)
{
    (void)state;
    weir_time now = WEIR_SECOND;
    run_adapt_begin(&adapt, 8, 8, now);
    for (int i = 0; i < 100; i++)
        now = round_of(now, 3, WEIR_SECOND, true);
    assert_int_equal(adapt.jobs, 8);
    for (int i = 0; i < 2; i++)
        now = round_of(now, 8, WEIR_SECOND, true);
    assert_int_equal(adapt.jobs, 16);
}

static void what_fails_is_no_throughput(void **state)
{
    (void)state;
    weir_time now = WEIR_SECOND;
    run_adapt_begin(&adapt, 8, 8, now);
    for (int i = 0; i < 100; i++)
        now = round_of(now, 8, WEIR_SECOND, false);
    assert_int_equal(adapt.jobs, 8);
}

static void a_pause_is_not_counted(void **state)
{
    (void)state;
    weir_time now = WEIR_SECOND;
    run_adapt_begin(&adapt, 8, 8, now);
    for (int i = 0; i < 3; i++)
        now = round_of(now, (unsigned)adapt.jobs, WEIR_SECOND, true);
    double rate = adapt.rate;
    uint64_t was = adapt.jobs;
    for (unsigned slot = 1; slot <= was; slot++)
        run_adapt_started(&adapt, slot, now);
    now += 3600 * WEIR_SECOND;
    run_adapt_disturbed(&adapt, 3600 * WEIR_SECOND, now);
    for (unsigned slot = 1; slot <= was; slot++)
        run_adapt_ended(&adapt, slot, true, 0, now + WEIR_SECOND);
    assert_true(adapt.rate >= rate * 0.9 && adapt.jobs >= was);
}

static void a_bound_for_memory_holds(void **state)
{
    (void)state;
    weir_time now = WEIR_SECOND;
    run_adapt_begin(&adapt, 8, 8, now);
    run_adapt_bound(&adapt, 3, now);
    assert_int_equal(adapt.jobs, 3);
    for (int i = 0; i < 200; i++)
        now = round_of(now, (unsigned)adapt.jobs, WEIR_SECOND, true);
    assert_in_range(adapt.jobs, 1, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_computes_gets_as_many_as_there_are_processors),
        cmocka_unit_test(it_does_not_run_away_where_its_time_is_not_known),
        cmocka_unit_test(what_waits_gets_many),
        cmocka_unit_test(waits_of_all_lengths_get_many),
        cmocka_unit_test(a_server_is_asked_for_what_it_can_do),
        cmocka_unit_test(a_mixture_keeps_the_processors_busy),
        cmocka_unit_test(a_few_long_ones_do_not_mislead),
        cmocka_unit_test(what_is_slower_together_runs_alone),
        cmocka_unit_test(the_number_follows_when_the_jobs_change),
        cmocka_unit_test(short_ones_do_not_need_more),
        cmocka_unit_test(it_settles),
        cmocka_unit_test(it_does_not_grow_while_fewer_run_than_may),
        cmocka_unit_test(what_fails_is_no_throughput),
        cmocka_unit_test(a_pause_is_not_counted),
        cmocka_unit_test(a_bound_for_memory_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
