/* park.c - sleeping and waking by futex; see park.h. */
#include "base/park.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/spin.h"

enum { EMPTY, SLEEPING, HINTED, AWAY, WOKEN };

#define HOOK_EVERY (50 * WEIR_MILLISECOND)

static _Thread_local struct {
    weir_interrupt_fn *fn;
    void *ctx;
} hook;

void weir_set_interrupt(weir_interrupt_fn *fn, void *ctx)
{
    hook.fn = fn;
    hook.ctx = ctx;
}

weir_interrupt_fn *weir__get_interrupt(void **ret_ctx)
{
    *ret_ctx = hook.ctx;
    return hook.fn;
}

int weir__interrupted(void)
{
    return hook.fn ? hook.fn(hook.ctx) : 0;
}

weir_time weir__slice(weir_time deadline)
{
    if (!hook.fn)
        return deadline;
    weir_time slice = weir_after(HOOK_EVERY);
    return slice < deadline ? slice : deadline;
}

/* FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC point, so retries do not drift. */
static int sleep_while(_Atomic uint32_t *word, uint32_t expected, weir_time until, bool shared)
{
    if (until < WEIR_POLL)
        until = WEIR_POLL; /* the kernel knows no negative times */
    struct timespec ts = {.tv_sec = until / WEIR_SECOND, .tv_nsec = until % WEIR_SECOND};
    int op = FUTEX_WAIT_BITSET | (shared ? 0 : FUTEX_PRIVATE_FLAG);
    long rc = syscall(SYS_futex, word, op, expected, until == WEIR_FOREVER ? NULL : &ts, NULL,
                      FUTEX_BITSET_MATCH_ANY);
    return rc == 0 ? 0 : errno;
}

int weir__futex_wait(_Atomic uint32_t *word, uint32_t expected, weir_time deadline, bool shared)
{
    for (;;) {
        int err = sleep_while(word, expected, weir__slice(deadline), shared);
        if (err != ETIMEDOUT && err != EINTR)
            return 0;
        if (err == ETIMEDOUT && deadline != WEIR_FOREVER && weir_now() >= deadline)
            return WEIR_ETIMEDOUT;
        if (weir__interrupted())
            return WEIR_EINTR;
    }
}

void weir__futex_wake(_Atomic uint32_t *word, int n, bool shared)
{
    syscall(SYS_futex, word, FUTEX_WAKE | (shared ? 0 : FUTEX_PRIVATE_FLAG), n, NULL, NULL, 0);
}

void weir__futex_sleep(_Atomic uint32_t *word, uint32_t expected, weir_time until)
{
    sleep_while(word, expected, until, false);
}

/* What the state lets park return; < 0: nothing yet. */
static int outcome(uint32_t state)
{
    return state == WOKEN ? WEIR_OK : state == HINTED ? WEIR__HINTED : -1;
}

/* acquire on success and on failure: pairs with the release in unpark and hint_at */
static bool change(weir__parker *parker, uint32_t *from, uint32_t to)
{
    return atomic_compare_exchange_strong_explicit(&parker->state, from, to, memory_order_acquire,
                                                   memory_order_acquire);
}

int weir__parker_ask(weir__parker *parker)
{
    uint32_t state = SLEEPING;
    if (!hook.fn || !change(parker, &state, AWAY))
        return 0;
    int rc = weir__interrupted() ? WEIR_EINTR : 0;
    state = AWAY;
    return change(parker, &state, SLEEPING) ? rc : 0; /* unparked meanwhile: the hook came late */
}

int weir__park(weir__parker *parker, weir_time deadline)
{
    uint32_t state = EMPTY;
    if (!change(parker, &state, SLEEPING) && state != SLEEPING)
        return outcome(state);
    for (;;) {
        int err = sleep_while(&parker->state, SLEEPING, weir__slice(deadline), false);
        int rc = outcome(atomic_load_explicit(&parker->state, memory_order_acquire));
        if (rc >= 0) {
            if (err == 0)
                weir__spin_note_wakeup(
                    weir_now() - atomic_load_explicit(&parker->woken_at, memory_order_relaxed));
            return rc;
        }
        /* Still SLEEPING: a late waker then wakes nobody, which is harmless. */
        if (err == ETIMEDOUT && deadline != WEIR_FOREVER && weir_now() >= deadline)
            return WEIR_ETIMEDOUT;
        if ((err == ETIMEDOUT || err == EINTR) && (rc = weir__parker_ask(parker)) < 0)
            return rc;
    }
}

void weir__park_surely(weir__parker *parker)
{
    uint32_t state = atomic_load_explicit(&parker->state, memory_order_acquire);
    while (state != WOKEN)
        if (state == SLEEPING || change(parker, &state, SLEEPING)) {
            weir__futex_sleep(&parker->state, SLEEPING, WEIR_FOREVER);
            state = atomic_load_explicit(&parker->state, memory_order_acquire);
        }
}

/* Before the change of state, while the thread cannot be gone. */
static void stamp(weir__parker *parker, uint32_t state)
{
    if (state == SLEEPING)
        atomic_store_explicit(&parker->woken_at, weir_now(), memory_order_relaxed);
}

void weir__unpark(weir__parker *parker)
{
    stamp(parker, atomic_load_explicit(&parker->state, memory_order_relaxed));
    /* release: publishes the waiter's result to park */
    if (atomic_exchange_explicit(&parker->state, WOKEN, memory_order_release) == SLEEPING)
        weir__futex_wake(&parker->state, 1, false);
}

weir__hint weir__hint_at(weir__parker *parker)
{
    uint32_t state = atomic_load_explicit(&parker->state, memory_order_relaxed);
    while (state != AWAY && state != HINTED) {
        stamp(parker, state);
        /* release: what is hinted at comes before it */
        if (atomic_compare_exchange_weak_explicit(&parker->state, &state, HINTED,
                                                  memory_order_release, memory_order_relaxed))
            return state == SLEEPING ? WEIR__HINT_ASLEEP : WEIR__HINT_TAKEN;
    }
    return state == AWAY ? WEIR__HINT_AWAY : WEIR__HINT_TAKEN;
}

/* From AWAY, too: the change back to SLEEPING then fails, and the sleeper sees HINTED. */
bool weir__nudge(weir__parker *parker)
{
    uint32_t state = atomic_load_explicit(&parker->state, memory_order_relaxed);
    do {
        if (state == HINTED || state == WOKEN)
            return false;
        stamp(parker, state);
        /* release: what is hinted at comes before it */
    } while (!atomic_compare_exchange_weak_explicit(&parker->state, &state, HINTED,
                                                    memory_order_release, memory_order_relaxed));
    return state == SLEEPING;
}
