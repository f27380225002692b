/* base/park.h and flow/waitq.h: sleeping, waking, standing in line. */
#include "contract/support.h"

#include <signal.h>

#include "base/mutex.h"
#include "flow/waitq.h"

/* ---- parking ------------------------------------------------------------------------------------ */

static void an_unpark_that_comes_first_is_not_lost(void **state)
{
    (void)state;
    weir__parker parker;
    weir__parker_init(&parker);
    weir__unpark(&parker);
    assert_int_equal(weir__park(&parker, WEIR_FOREVER), WEIR_OK);
    weir__park_surely(&parker);
}

static void park_ends_at_its_deadline_and_not_before(void **state)
{
    (void)state;
    weir__parker parker;
    weir__parker_init(&parker);
    weir_time deadline = weir_after(3 * WEIR_MILLISECOND);
    assert_int_equal(weir__park(&parker, deadline), WEIR_ETIMEDOUT);
    assert_true(weir_now() >= deadline);
    weir__parker_init(&parker);
    assert_int_equal(weir__park(&parker, 1), WEIR_ETIMEDOUT);
}

static int asked;

static int say_no_twice(void *ctx)
{
    (void)ctx;
    return ++asked > 2;
}

static void the_hook_is_asked_at_least_every_50_ms(void **state)
{
    (void)state;
    weir__parker parker;
    weir__parker_init(&parker);
    weir_set_interrupt(say_no_twice, NULL);
    weir_time before = weir_now();
    assert_int_equal(weir__park(&parker, WEIR_FOREVER), WEIR_EINTR);
    weir_set_interrupt(NULL, NULL);
    assert_int_equal(asked, 3);
    assert_true(weir_now() - before >= 150 * WEIR_MILLISECOND);
}

static void a_hint_wakes_without_ending_the_wait(void **state)
{
    (void)state;
    weir__parker parker;
    weir__parker_init(&parker);
    assert_int_equal(weir__hint_at(&parker), WEIR__HINT_TAKEN);
    assert_int_equal(weir__hint_at(&parker), WEIR__HINT_TAKEN);
    assert_int_equal(weir__park(&parker, WEIR_FOREVER), WEIR__HINTED);
    weir__parker_rearm(&parker);
    assert_int_equal(weir__park(&parker, weir_after(1000)), WEIR_ETIMEDOUT);
    assert_int_equal(weir__hint_at(&parker), WEIR__HINT_ASLEEP); /* it may be, for all we know */
    weir__unpark(&parker);
    assert_int_equal(weir__park(&parker, WEIR_FOREVER), WEIR_OK);
}

static struct {
    weir__parker parker;
    bool unparks;
    weir__hint hint;
} in_hook;

static int sees_to_it_in_the_hook(void *ctx)
{
    (void)ctx;
    in_hook.hint = weir__hint_at(&in_hook.parker);
    if (in_hook.unparks)
        weir__unpark(&in_hook.parker);
    return 1;
}

static void a_hint_does_not_count_on_a_thread_in_its_hook(void **state)
{
    (void)state;
    weir__parker_init(&in_hook.parker);
    in_hook.unparks = false;
    weir_set_interrupt(sees_to_it_in_the_hook, NULL);
    assert_int_equal(weir__park(&in_hook.parker, WEIR_FOREVER), WEIR_EINTR);
    weir_set_interrupt(NULL, NULL);
    assert_int_equal(in_hook.hint, WEIR__HINT_AWAY);
}

static void an_unpark_during_the_hook_ends_the_wait_as_served(void **state)
{
    (void)state;
    weir__parker_init(&in_hook.parker);
    in_hook.unparks = true;
    weir_set_interrupt(sees_to_it_in_the_hook, NULL);
    assert_int_equal(weir__park(&in_hook.parker, WEIR_FOREVER), WEIR_OK);
    weir_set_interrupt(NULL, NULL);
}

static struct {
    weir__parker parker;
    _Atomic bool looked;
} hinted;

static void *looks_and_parks_again(void *arg)
{
    (void)arg;
    must(weir__park(&hinted.parker, WEIR_FOREVER) == WEIR__HINTED);
    weir__parker_rearm(&hinted.parker);
    hinted.looked = true;
    must(weir__park(&hinted.parker, WEIR_FOREVER) == WEIR_OK);
    return NULL;
}

static void a_sleeper_is_woken_by_a_hint_and_then_for_good(void **state)
{
    (void)state;
    for (int i = 0; i < 300; i++) {
        pthread_t thread;
        weir__parker_init(&hinted.parker);
        hinted.looked = false;
        pthread_create(&thread, NULL, looks_and_parks_again, NULL);
        if (i % 2)
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        if (weir__hint_at(&hinted.parker) == WEIR__HINT_ASLEEP)
            weir__futex_wake(&hinted.parker.state, 1, false);
        soon(hinted.looked);
        weir__unpark(&hinted.parker);
        pthread_join(thread, NULL);
    }
}

/* ---- a line under a mutex ----------------------------------------------------------------------- */

static struct {
    weir__mutex mutex;
    weir__waitq line;
} owner;

typedef struct sleeper {
    weir_interrupt_fn *hook;
    weir__waiter waiter;
    int rc;
    pthread_t thread;
} sleeper;

/* The protocol of waitq.h, to the letter. */
static int wait_in_line(weir__waiter *waiter, weir_time deadline)
{
    weir__lock(&owner.mutex);
    weir__waitq_push(&owner.line, waiter);
    weir__unlock(&owner.mutex);
    int rc = weir__waiter_park(waiter, deadline);
    if (rc != WEIR_OK) {
        weir__lock(&owner.mutex);
        bool gave_up = weir__waitq_give_up(&owner.line, waiter);
        weir__unlock(&owner.mutex);
        if (gave_up)
            return rc;
        weir__waiter_join(waiter);
    }
    return waiter->result;
}

static void *sleeps(void *arg)
{
    sleeper *s = arg;
    weir_set_interrupt(s->hook, NULL);
    s->rc = wait_in_line(&s->waiter, WEIR_FOREVER);
    return NULL;
}

static size_t line_length(void)
{
    weir__lock(&owner.mutex);
    size_t n = owner.line.count;
    weir__unlock(&owner.mutex);
    return n;
}

static void start(sleeper *s, weir_interrupt_fn *hook)
{
    size_t before = line_length();
    s->hook = hook;
    pthread_create(&s->thread, NULL, sleeps, s);
    soon(line_length() == before + 1);
}

static int finish_sleeper(sleeper *s)
{
    pthread_join(s->thread, NULL);
    return s->rc;
}

static int begin(void **state)
{
    (void)state;
    weir__mutex_init(&owner.mutex);
    owner.line = (weir__waitq){0};
    return 0;
}

static int end(void **state)
{
    (void)state;
    weir__mutex_fini(&owner.mutex);
    return owner.line.head || owner.line.tail || owner.line.count;
}

static void the_line_is_served_from_its_head(void **state)
{
    (void)state;
    sleeper s[4];
    for (int i = 0; i < 4; i++)
        start(&s[i], NULL);
    weir__wakeups wakeups = {0};
    weir__lock(&owner.mutex);
    for (int i = 0; i < 4; i++)
        assert_ptr_equal(weir__waitq_serve(&owner.line, &wakeups, i), &s[i].waiter);
    weir__unlock(&owner.mutex);
    weir__wake_all(&wakeups);
    assert_null(wakeups.head);
    for (int i = 0; i < 4; i++)
        assert_int_equal(finish_sleeper(&s[i]), i);
}

static void one_in_the_middle_can_be_served_first(void **state)
{
    (void)state;
    sleeper s[3];
    for (int i = 0; i < 3; i++)
        start(&s[i], NULL);
    const int order[] = {1, 2, 0};
    for (int i = 0; i < 3; i++) {
        weir__wakeups wakeups = {0};
        weir__lock(&owner.mutex);
        weir__waitq_serve_this(&owner.line, &s[order[i]].waiter, &wakeups, 7);
        weir__unlock(&owner.mutex);
        weir__wake_all(&wakeups);
        assert_int_equal(finish_sleeper(&s[order[i]]), 7);
    }
}

typedef struct task {
    weir__waiter waiter; /* first */
    int told;
} task;

static void tell(weir__waiter *waiter)
{
    ((task *)waiter)->told = waiter->result;
}

static void one_without_a_thread_is_told_in_its_turn(void **state)
{
    (void)state;
    sleeper s;
    task first = {.told = -99}, last = {.told = -99};
    weir__waitq_push_async(&owner.line, &first.waiter, tell);
    start(&s, NULL);
    weir__waitq_push_async(&owner.line, &last.waiter, tell);
    weir__wakeups wakeups = {0};
    weir__lock(&owner.mutex);
    assert_ptr_equal(weir__waitq_serve(&owner.line, &wakeups, 1), &first.waiter);
    assert_ptr_equal(weir__waitq_serve(&owner.line, &wakeups, 2), &s.waiter);
    assert_true(weir__waitq_give_up(&owner.line, &last.waiter));
    assert_false(weir__waitq_give_up(&owner.line, &first.waiter));
    weir__unlock(&owner.mutex);
    assert_int_equal(first.told, -99);
    weir__wake_all(&wakeups);
    assert_int_equal(first.told, 1);
    assert_int_equal(last.told, -99);
    assert_int_equal(finish_sleeper(&s), 2);
}

static _Atomic bool told_to_give_up;

static int gives_up(void *ctx)
{
    (void)ctx;
    return told_to_give_up;
}

static void one_that_gives_up_leaves_the_others_in_line(void **state)
{
    (void)state;
    sleeper s[3];
    start(&s[0], NULL);
    start(&s[1], gives_up);
    start(&s[2], NULL);
    told_to_give_up = true;
    assert_int_equal(finish_sleeper(&s[1]), WEIR_EINTR);
    weir__wakeups wakeups = {0};
    weir__lock(&owner.mutex);
    assert_ptr_equal(weir__waitq_serve(&owner.line, &wakeups, 1), &s[0].waiter);
    assert_ptr_equal(weir__waitq_serve(&owner.line, &wakeups, 2), &s[2].waiter);
    weir__unlock(&owner.mutex);
    weir__wake_all(&wakeups);
    assert_int_equal(finish_sleeper(&s[0]), 1);
    assert_int_equal(finish_sleeper(&s[2]), 2);
}

/* Being served and giving up race; each wait ends one way, and the servings add up. */
#define ROUNDS 3000

static void *races(void *arg)
{
    size_t *served = arg;
    for (int i = 0; i < ROUNDS; i++) {
        weir__waiter waiter; /* gone with this round: the waker must not touch it later */
        int rc = wait_in_line(&waiter, weir_after(i % 7 * 1000 + 1));
        must(rc == 5 || rc == WEIR_ETIMEDOUT);
        *served += rc == 5;
    }
    return NULL;
}

static void serving_and_giving_up_may_race(void **state)
{
    (void)state;
    pthread_t threads[3];
    size_t served[3] = {0}, serves = 0;
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, races, &served[i]);
    for (weir_time until = weir_after(WEIR_SECOND / 2); weir_now() < until;) {
        weir__wakeups wakeups = {0};
        weir__lock(&owner.mutex);
        while (owner.line.head) {
            weir__waitq_serve(&owner.line, &wakeups, 5);
            serves++;
        }
        weir__unlock(&owner.mutex);
        weir__wake_all(&wakeups);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(serves, served[0] + served[1] + served[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unpark_that_comes_first_is_not_lost),
        cmocka_unit_test(park_ends_at_its_deadline_and_not_before),
        cmocka_unit_test(the_hook_is_asked_at_least_every_50_ms),
        cmocka_unit_test(a_hint_wakes_without_ending_the_wait),
        cmocka_unit_test(a_hint_does_not_count_on_a_thread_in_its_hook),
        cmocka_unit_test(an_unpark_during_the_hook_ends_the_wait_as_served),
        cmocka_unit_test(a_sleeper_is_woken_by_a_hint_and_then_for_good),
        cmocka_unit_test_setup_teardown(the_line_is_served_from_its_head, begin, end),
        cmocka_unit_test_setup_teardown(one_in_the_middle_can_be_served_first, begin, end),
        cmocka_unit_test_setup_teardown(one_without_a_thread_is_told_in_its_turn, begin, end),
        cmocka_unit_test_setup_teardown(one_that_gives_up_leaves_the_others_in_line, begin, end),
        cmocka_unit_test_setup_teardown(serving_and_giving_up_may_race, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
