/* spin.c - see spin.h. */
#include "base/spin.h"

#include <sched.h>

#include "base/process.h"

/* What a wake-up is taken to cost before one was seen, and in what range a measurement is believed:
 * a thread that had to wait for a CPU says nothing about the machine. */
#define WAKEUP_GUESS_NS 10000
#define WAKEUP_MAX_NS   50000

/* Relaxed: numbers that stand for themselves. */
static _Atomic int64_t wakeup_ns = WAKEUP_GUESS_NS;
static _Atomic unsigned cpus;

bool weir__spin_is_useful(void)
{
    unsigned n = atomic_load_explicit(&cpus, memory_order_relaxed);
    if (n == 0) {
        n = weir__main_thread_cpu_count();
        atomic_store_explicit(&cpus, n, memory_order_relaxed);
    }
    return n > 1;
}

void weir__spin_note_wakeup(int64_t ns)
{
    if (ns < 0 || ns > WAKEUP_MAX_NS)
        return;
    int64_t old = atomic_load_explicit(&wakeup_ns, memory_order_relaxed);
    atomic_store_explicit(&wakeup_ns, old + (ns - old) / 8, memory_order_relaxed);
}

int64_t weir__wakeup_cost_ns(void)
{
    return atomic_load_explicit(&wakeup_ns, memory_order_relaxed);
}

/* After n failures only every 2^n-th wait spins; a success makes up for two. */
#define FAILURES_MAX 6

static bool may_help(weir__spin *spin)
{
    uint32_t failures = atomic_load_explicit(&spin->failures, memory_order_relaxed);
    if (failures == 0)
        return true;
    uint32_t skipped = atomic_load_explicit(&spin->skipped, memory_order_relaxed) + 1;
    bool again = skipped >= UINT32_C(1) << failures;
    atomic_store_explicit(&spin->skipped, again ? 0 : skipped, memory_order_relaxed);
    return again;
}

static void note(weir__spin *spin, bool success)
{
    uint32_t failures = atomic_load_explicit(&spin->failures, memory_order_relaxed);
    uint32_t now = success                   ? (failures > 2 ? failures - 2 : 0)
                   : failures < FAILURES_MAX ? failures + 1
                                             : failures;
    if (now != failures)
        atomic_store_explicit(&spin->failures, now, memory_order_relaxed);
}

/* Pauses between two looks double, so that the line stays with who works on it. */
#define LONGEST_PAUSE 64

/* Relaxed: who sees a change looks again with whatever guards it. */
static bool has_changed(_Atomic uint64_t *word, uint64_t seen)
{
    return atomic_load_explicit(word, memory_order_relaxed) != seen;
}

bool weir__spin_while(weir__spin *spin, _Atomic uint64_t *word, uint64_t seen, weir_time deadline)
{
    if (!weir__spin_is_useful() || !may_help(spin)) {
        sched_yield();
        return has_changed(word, seen);
    }
    weir_time now = weir_now(), until = now + weir__wakeup_cost_ns();
    if (until > deadline)
        until = deadline;
    for (unsigned pause = 8; now < until; now = weir_now()) {
        weir__relax(pause);
        if (pause < LONGEST_PAUSE)
            pause *= 2;
        if (has_changed(word, seen)) {
            note(spin, true);
            return true;
        }
    }
    note(spin, false);
    return false;
}
