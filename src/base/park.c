/* park.c - sleeping and waking by futex; see park.h. */
#include "base/park.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { EMPTY, SLEEPING, WOKEN };

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

int weir__park(weir__parker *parker, weir_time deadline)
{
    uint32_t state = EMPTY;
    /* acquire: pairs with the release in unpark, on success and on failure */
    if (!atomic_compare_exchange_strong_explicit(&parker->state, &state, SLEEPING,
                                                 memory_order_acquire, memory_order_acquire) &&
        state == WOKEN)
        return WEIR_OK;
    for (;;) {
        int rc = weir__futex_wait(&parker->state, SLEEPING, deadline, false);
        if (atomic_load_explicit(&parker->state, memory_order_acquire) == WOKEN)
            return WEIR_OK;
        if (rc != 0)
            return rc; /* still SLEEPING: a late unpark then wakes nobody, which is harmless */
    }
}

void weir__park_surely(weir__parker *parker)
{
    uint32_t state = EMPTY;
    atomic_compare_exchange_strong_explicit(&parker->state, &state, SLEEPING, memory_order_acquire,
                                            memory_order_acquire);
    while (atomic_load_explicit(&parker->state, memory_order_acquire) != WOKEN)
        sleep_while(&parker->state, SLEEPING, WEIR_FOREVER, false);
}

void weir__unpark(weir__parker *parker)
{
    /* release: publishes the waiter's result to park */
    if (atomic_exchange_explicit(&parker->state, WOKEN, memory_order_release) == SLEEPING)
        weir__futex_wake(&parker->state, 1, false);
}
