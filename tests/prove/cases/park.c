/* park.c - base/park and base/mutex. */
#include "../prove.h"

#include "base/mutex.h"
#include "base/park.h"

static weir__parker parker;
static int published;

static void unpark(void *arg)
{
    (void)arg;
    published = 1;
    weir__unpark(&parker);
}

static void park_meets_unpark(void)
{
    weir__parker_init(&parker);
    published = 0;
    int t = prove_spawn(unpark, NULL);
    prove_claim(weir__park(&parker, WEIR_FOREVER) == WEIR_OK);
    prove_claim(published == 1);
    prove_join(t);
}

PROVE_CASE(park_meets_unpark, "who is unparked wakes, and sees what was done before");

/* A deadline that passes while it is unparked: the unpark is certain, and is waited for. */
static void park_times_out(void)
{
    weir__parker_init(&parker);
    published = 0;
    int t = prove_spawn(unpark, NULL);
    int rc = weir__park(&parker, weir_after(WEIR_MILLISECOND));
    prove_claim(rc == WEIR_OK || rc == WEIR_ETIMEDOUT);
    if (rc == WEIR_ETIMEDOUT)
        weir__park_surely(&parker);
    prove_claim(published == 1);
    prove_join(t);
}

PROVE_CASE(park_times_out, "who has timed out can wait for the unpark that is on its way");

static int interrupt_perhaps(void *ctx)
{
    (void)ctx;
    return (int)prove_pick(2);
}

static void park_is_interrupted(void)
{
    weir__parker_init(&parker);
    published = 0;
    weir_set_interrupt(interrupt_perhaps, NULL);
    int t = prove_spawn(unpark, NULL);
    weir_time deadline = weir_after(WEIR_SECOND);
    int rc = weir__park(&parker, deadline);
    prove_claim(rc == WEIR_OK || rc == WEIR_EINTR ||
                (rc == WEIR_ETIMEDOUT && weir_now() >= deadline));
    if (rc != WEIR_OK)
        weir__park_surely(&parker);
    prove_claim(published == 1);
    weir_set_interrupt(NULL, NULL);
    prove_join(t);
}

PROVE_CASE(park_is_interrupted, "who is unparked while it is away in its hook wakes all the same");

/* An answer that comes after the unpark. */
static int unparker;

static int interrupt_too_late(void *ctx)
{
    bool *is_late = ctx;
    if (*is_late)
        return 0;
    *is_late = true;
    prove_join(unparker);
    return 1;
}

static void park_is_interrupted_too_late(void)
{
    bool is_late = false;
    weir__parker_init(&parker);
    weir_set_interrupt(interrupt_too_late, &is_late);
    unparker = prove_spawn(unpark, NULL);
    prove_claim(weir__park(&parker, WEIR_FOREVER) == WEIR_OK);
    weir_set_interrupt(NULL, NULL);
    if (!is_late)
        prove_join(unparker);
}

PROVE_CASE(park_is_interrupted_too_late,
           "who was unparked before its hook answered is not interrupted");

/* ---- hints ------------------------------------------------------------------------------------ */

static void hint(void *arg)
{
    (void)arg;
    published = 1;
    weir__hint hint = weir__hint_at(&parker);
    if (hint == WEIR__HINT_ASLEEP)
        weir__futex_wake(&parker.state, 1, false);
    if (hint == WEIR__HINT_AWAY) /* it cannot be counted on */
        weir__unpark(&parker);
}

static void nudge(void *arg)
{
    (void)arg;
    published = 1;
    if (weir__nudge(&parker))
        weir__futex_wake(&parker.state, 1, false);
}

static void park_until_hinted_at(void (*by)(void *))
{
    weir__parker_init(&parker);
    published = 0;
    if (prove_pick(2))
        weir_set_interrupt(interrupt_perhaps, NULL);
    int t = prove_spawn(by, NULL);
    int rc = weir__park(&parker, WEIR_FOREVER);
    weir_set_interrupt(NULL, NULL);
    if (rc == WEIR_EINTR)
        rc = weir__park(&parker, WEIR_FOREVER);
    prove_claim(rc == WEIR__HINTED || rc == WEIR_OK);
    prove_claim(published == 1);
    prove_join(t);
}

static void park_meets_hint(void)
{
    park_until_hinted_at(hint);
}

PROVE_CASE(park_meets_hint,
           "who is hinted at looks, and sees what was done before; or was away, as the hint says");

static void park_meets_nudge(void)
{
    park_until_hinted_at(nudge);
}

PROVE_CASE(park_meets_nudge,
           "who is nudged looks, also after its hook, and sees what was done before");

static int interrupt_always(void *ctx)
{
    *(bool *)ctx = true;
    return 1;
}

static void park_is_interrupted_in_vain(void)
{
    bool was_asked = false;
    weir__parker_init(&parker);
    weir_set_interrupt(interrupt_always, &was_asked);
    prove_claim(weir__park(&parker, WEIR_FOREVER) == WEIR_EINTR && was_asked);
    weir_set_interrupt(NULL, NULL);
}

PROVE_CASE(park_is_interrupted_in_vain, "who is never unparked comes back when its hook says so");

/* ---- futex words ------------------------------------------------------------------------------ */

static _Atomic uint32_t word;

static void change_word(void *arg)
{
    (void)arg;
    published = 1;
    atomic_store_explicit(&word, 1, memory_order_release);
    weir__futex_wake(&word, 1, false);
}

/* Until the word changes, or why it did not wait for that. */
static int wait_for_word(weir_time deadline)
{
    int rc = 0;
    while (rc == 0 && atomic_load_explicit(&word, memory_order_acquire) == 0)
        rc = weir__futex_wait(&word, 0, deadline, false);
    return rc;
}

static void park_on_a_word(void)
{
    bool was_asked = false, has_hook = prove_pick(2);
    weir_time deadline = prove_pick(2) ? WEIR_FOREVER : weir_after(WEIR_SECOND);
    atomic_store(&word, 0);
    published = 0;
    if (has_hook)
        weir_set_interrupt(interrupt_always, &was_asked);
    int t = prove_spawn(change_word, NULL);
    int rc = wait_for_word(deadline);
    prove_claim(rc == 0 || (rc == WEIR_EINTR && was_asked) ||
                (rc == WEIR_ETIMEDOUT && weir_now() >= deadline));
    prove_claim(rc < 0 || published == 1);
    weir_set_interrupt(NULL, NULL);
    prove_join(t);
}

PROVE_CASE(park_on_a_word, "who sleeps on a word wakes when it has changed, or in time");

static void park_on_a_word_in_vain(void)
{
    bool was_asked = false, has_hook = prove_pick(2);
    weir_time deadline = has_hook ? WEIR_FOREVER : weir_after(WEIR_SECOND);
    atomic_store(&word, 0);
    if (has_hook)
        weir_set_interrupt(interrupt_always, &was_asked);
    int rc = wait_for_word(deadline);
    prove_claim(has_hook ? rc == WEIR_EINTR && was_asked
                         : rc == WEIR_ETIMEDOUT && weir_now() >= deadline);
    weir_set_interrupt(NULL, NULL);
}

PROVE_CASE(park_on_a_word_in_vain,
           "who sleeps on a word that nobody changes comes back all the same");

/* ---- the mutex -------------------------------------------------------------------------------- */

static weir__mutex mutex;
static int sum;

static void add(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2; i++) {
        weir__lock(&mutex);
        sum++;
        weir__unlock(&mutex);
    }
}

static void mutex_excludes(void)
{
    weir__mutex_init(&mutex);
    sum = 0;
    int a = prove_spawn(add, NULL), b = prove_spawn(add, NULL);
    add(NULL);
    prove_join(a);
    prove_join(b);
    prove_claim(sum == 6);
}

PROVE_CASE(mutex_excludes, "one at a time, nobody sleeps for ever");
