/* spin.h - waiting a little with the eyes open, where that is cheaper than sleeping.
 *
 * A sleep costs a wake-up, and what that costs differs by a factor of fifty between machines: so it
 * is measured, whenever one happens (base/park.c), and nobody spins for longer than that.  Where it
 * has not helped lately it is not done; where the process may use one CPU only, never.  Instead the
 * CPU is offered once to who shares it: often that is who is waited for, just preempted by the
 * wake-up it has caused, and able to do a lot before it waits itself.
 */
#ifndef WEIR_BASE_SPIN_H
#define WEIR_BASE_SPIN_H

#include <stdatomic.h>
#include <stdbool.h>

#include <weir/base.h>

/* Whether somebody can make progress while this thread spins: the process has another CPU.  Looked
 * up once. */
bool weir__spin_is_useful(void);

/* Tells the CPU n times that this is a waiting loop. */
static inline void weir__relax(unsigned n)
{
    while (n-- > 0) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
        __asm__ volatile("yield");
#else
        __asm__ volatile("");
#endif
    }
}

/* How spinning in one place has done; zero is a fresh one.  Shared by all who wait there: races
 * on it cost a wrong guess. */
typedef struct weir__spin {
    _Atomic uint32_t failures; /* in a row, roughly */
    _Atomic uint32_t skipped;
} weir__spin;

/* Spins until *word differs from `seen` (true), until it would have been cheaper to sleep, or the
 * deadline.  Where spinning does not help it yields once and looks. */
bool weir__spin_while(weir__spin *spin, _Atomic uint64_t *word, uint64_t seen, weir_time deadline);

/* A wake-up has taken `ns` from the call to the woken thread. */
void weir__spin_note_wakeup(int64_t ns);

/* What a wake-up costs here, as far as is known; the longest time anybody spins. */
int64_t weir__wakeup_cost_ns(void);

#endif
