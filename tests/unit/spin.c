/* base/spin.h: spinning is bounded, measured, and given up where it does not help. */
#include "contract/support.h"

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/spin.h"

/* First of all tests: what the process may use is looked up once. */
static void a_process_with_one_cpu_never_spins(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(sched_getcpu(), &one);
        must(sched_setaffinity(0, sizeof(one), &one) == 0);
        weir__spin spin = {0};
        _Atomic uint64_t word = 0;
        must(!weir__spin_is_useful());
        must(!weir__spin_while(&spin, &word, 0, WEIR_FOREVER));
        must(spin.failures == 0);
        must(weir__spin_while(&spin, &word, 1, WEIR_FOREVER)); /* it looks, after a yield */
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* How often a word that stays as it is was spun on, of n times. */
static size_t spins(weir__spin *spin, size_t n)
{
    _Atomic uint64_t word = 7;
    size_t spun = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t failures = spin->failures, skipped = spin->skipped;
        assert_false(weir__spin_while(spin, &word, 7, WEIR_FOREVER));
        spun += spin->failures > failures || (failures > 0 && spin->skipped <= skipped);
    }
    return spun;
}

static void where_it_does_not_help_it_is_soon_not_done(void **state)
{
    (void)state;
    weir__spin spin = {0};
    if (!weir__spin_is_useful())
        skip(); /* one CPU: nobody ever spins, which is a test of its own */
    assert_int_equal(spins(&spin, 1), 1);
    size_t spun = spins(&spin, 6400);
    assert_in_range(spun, 6400 / 64, 6400 / 64 + 10);
}

static void where_it_helps_again_it_is_done_again(void **state)
{
    (void)state;
    weir__spin spin = {0};
    _Atomic uint64_t word = 7;
    if (!weir__spin_is_useful())
        skip(); /* one CPU: nobody ever spins, which is a test of its own */
    spins(&spin, 1000);
    int tries = 0;
    for (; spin.failures > 0 && tries < 1000; tries++) /* it differs at once */
        assert_true(weir__spin_while(&spin, &word, 6, WEIR_FOREVER));
    assert_in_range(tries, 3, 64 + 16 + 4);
}

static void a_spin_ends_at_its_deadline_and_within_a_few_wake_ups(void **state)
{
    (void)state;
    weir_time shortest = WEIR_FOREVER, shortest_with_deadline = WEIR_FOREVER;
    _Atomic uint64_t word = 7;
    for (int i = 0; i < 200; i++) {
        weir__spin spin = {0};
        weir_time before = weir_now();
        weir__spin_while(&spin, &word, 7, WEIR_FOREVER);
        weir_time took = weir_now() - before;
        shortest = took < shortest ? took : shortest;
        spin = (weir__spin){0};
        before = weir_now();
        weir__spin_while(&spin, &word, 7, before);
        took = weir_now() - before;
        shortest_with_deadline = took < shortest_with_deadline ? took : shortest_with_deadline;
    }
    /* The shortest: any other one may have lost its CPU meanwhile. */
    assert_true(shortest < 3 * weir__wakeup_cost_ns());
    assert_true(shortest_with_deadline <= shortest);
}

static void what_a_wake_up_costs_follows_the_measurements(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++)
        weir__spin_note_wakeup(2000);
    assert_in_range(weir__wakeup_cost_ns(), 1900, 2100);
    weir__spin_note_wakeup(-5);
    weir__spin_note_wakeup(10 * WEIR_SECOND); /* it waited for a CPU */
    assert_in_range(weir__wakeup_cost_ns(), 1900, 2100);
    for (int i = 0; i < 100; i++)
        weir__spin_note_wakeup(40000);
    assert_in_range(weir__wakeup_cost_ns(), 39000, 41000);
}

static void *changes_it(void *arg)
{
    _Atomic uint64_t *word = arg;
    while (*word < 1000)
        ++*word;
    return NULL;
}

static void a_change_by_another_thread_is_seen(void **state)
{
    (void)state;
    _Atomic uint64_t word = 0;
    pthread_t thread;
    pthread_create(&thread, NULL, changes_it, &word);
    for (uint64_t seen = 0; seen < 1000; seen = word) {
        weir__spin spin = {0};
        if (weir__spin_while(&spin, &word, seen, WEIR_FOREVER))
            assert_true(word > seen);
    }
    pthread_join(thread, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_process_with_one_cpu_never_spins),
        cmocka_unit_test(where_it_does_not_help_it_is_soon_not_done),
        cmocka_unit_test(where_it_helps_again_it_is_done_again),
        cmocka_unit_test(a_spin_ends_at_its_deadline_and_within_a_few_wake_ups),
        cmocka_unit_test(what_a_wake_up_costs_follows_the_measurements),
        cmocka_unit_test(a_change_by_another_thread_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
