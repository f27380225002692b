/* handover.c - spin a little, then sleep; see handover.h.
 *
 * Wake-ups:   no ring is lost: waiter and ringer change one word, QUIET -> ASLEEP and
 *             {QUIET, ASLEEP} -> RUNG, so one of them sees the other.  A system call is made only
 *             for a waiter that sleeps.
 * Spinning:   bounded by SPIN, only where it was worth it lately, never by more threads than there
 *             are CPUs (but two), which offer their CPU to others meanwhile.
 */
#include "handover.h"

#include <sched.h>

enum { QUIET, ASLEEP, RUNG };

/* About what a sleep and a wake-up cost; spinning longer than what it saves would be a waste. */
#define SPIN        (100 * WEIR_MILLISECOND / 1000)
/* Where spinning was in vain, it is tried again now and then; long enough to see the end of a wait
 * whose other side had to be woken. */
#define PROBE       (250 * WEIR_MILLISECOND / 1000)
#define PROBE_EVERY 16
#define LOSSES_MAX  8  /* spins in vain, less two for each that was not */
#define LOOKS       40 /* a few microseconds */

/* Who completes nothing for so long while it has the GIL runs a task that takes its time. */
#define STALL (5 * WEIR_MILLISECOND / 1000)

/* ---- spinning ------------------------------------------------------------------------------- */

static atomic_int spinning; /* threads of this process */

static int spinning_max(void)
{
    static atomic_int known;
    int max = atomic_load_explicit(&known, memory_order_relaxed);
    if (max == 0) {
        cpu_set_t set;
        int cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
        max = cpus > 2 ? cpus : 2; /* both sides; on one CPU they offer it to each other */
        atomic_store_explicit(&known, max, memory_order_relaxed);
    }
    return max;
}

void ext_handover_forked(void)
{
    atomic_store_explicit(&spinning, 0, memory_order_relaxed);
}

static bool spin_begin(void)
{
    if (atomic_fetch_add_explicit(&spinning, 1, memory_order_relaxed) < spinning_max())
        return true;
    atomic_fetch_sub_explicit(&spinning, 1, memory_order_relaxed);
    return false;
}

static void spin_end(void)
{
    atomic_fetch_sub_explicit(&spinning, 1, memory_order_relaxed);
}

/* How often to look before this CPU is offered to others: not once if the other side needs it. */
static unsigned looks(ext_patience *patience)
{
    int others = atomic_load_explicit(&patience->others_cpu, memory_order_relaxed);
    return others == sched_getcpu() + 1 ? 0 : LOOKS;
}

/* Between two looks; left counts down. */
static void relax(unsigned *left)
{
    if (*left == 0) {
        sched_yield();
        return;
    }
    --*left;
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void was_here(ext_patience *other)
{
    atomic_store_explicit(&other->others_cpu, sched_getcpu() + 1, memory_order_relaxed);
}

static int64_t spin_ns_of(ext_patience *patience)
{
    if (atomic_load_explicit(&patience->losses, memory_order_relaxed) < LOSSES_MAX)
        return SPIN;
    uint32_t waits = atomic_fetch_add_explicit(&patience->waits, 1, memory_order_relaxed);
    return waits % PROBE_EVERY == 0 ? PROBE : 0;
}

static void learn(ext_patience *patience, bool was_rung)
{
    int losses = atomic_load_explicit(&patience->losses, memory_order_relaxed);
    losses += was_rung ? -2 : 1;
    losses = losses < 0 ? 0 : losses > LOSSES_MAX ? LOSSES_MAX : losses;
    atomic_store_explicit(&patience->losses, losses, memory_order_relaxed);
}

/* ---- bells ---------------------------------------------------------------------------------- */

void ext_bell_init(ext_bell *bell)
{
    atomic_init(&bell->state, QUIET);
    bell->queue = NULL;
}

void ext_bell_fini(ext_bell *bell)
{
    weir_queue_destroy(bell->queue);
}

void ext_bell_ring(ext_bell *bell)
{
    /* release: pairs with the acquires in ext_bell_wait; what was written before is seen there.
     * acquire: pairs with the release of ASLEEP; the queue is there. */
    if (atomic_exchange_explicit(&bell->state, RUNG, memory_order_acq_rel) == ASLEEP)
        weir_queue_put(bell->queue, NULL, 0, WEIR_POLL);
}

static bool is_rung(ext_bell *bell)
{
    return atomic_load_explicit(&bell->state, memory_order_acquire) == RUNG;
}

static void spin_for(ext_bell *bell, ext_patience *patience)
{
    int64_t spin_ns = spin_ns_of(patience);
    if (spin_ns == 0 || !spin_begin())
        return;
    weir_time until = weir_after(spin_ns);
    unsigned left = looks(patience);
    while (!is_rung(bell) && weir_now() < until)
        relax(&left);
    spin_end();
    learn(patience, is_rung(bell));
}

static int make_queue(ext_bell *bell)
{
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = 1;
    opts.on_drop = weir_drop_ignore;
    opts.name = "";
    return bell->queue ? 0 : weir_queue_create(&bell->queue, &opts);
}

static int sleep_for(ext_bell *bell, weir_time deadline)
{
    int rc = make_queue(bell);
    if (rc < 0)
        return rc;
    uint32_t state = QUIET;
    /* release: publishes the queue; acquire: pairs with the ring */
    if (!atomic_compare_exchange_strong_explicit(&bell->state, &state, ASLEEP, memory_order_acq_rel,
                                                 memory_order_acquire))
        return 0;
    void *nothing;
    rc = weir_queue_get(bell->queue, &nothing, deadline);
    state = ASLEEP;
    if (rc < 0 && atomic_compare_exchange_strong_explicit(
                      &bell->state, &state, QUIET, memory_order_acq_rel, memory_order_acquire))
        return rc;
    while (rc < 0) /* rung at this very moment: the put is certain and near */
        rc = weir_queue_get(bell->queue, &nothing, WEIR_FOREVER);
    return 0;
}

int ext_bell_wait(ext_bell *bell, weir_time deadline, ext_patience *patience)
{
    if (patience)
        spin_for(bell, patience);
    int rc = is_rung(bell) ? 1 : sleep_for(bell, deadline);
    if (rc >= 0) /* an exchange: what a second ring came to tell is seen, too */
        atomic_exchange_explicit(&bell->state, QUIET, memory_order_acq_rel);
    return rc;
}

/* ---- turns ---------------------------------------------------------------------------------- */

void ext_turns_begin(ext_turns *turns)
{
    atomic_fetch_add_explicit(&turns->active, 1, memory_order_relaxed);
}

void ext_turns_end(ext_turns *turns)
{
    was_here(&turns->client);
    atomic_fetch_sub_explicit(&turns->active, 1, memory_order_relaxed);
}

void ext_turns_let_go(ext_turns *turns)
{
    was_here(&turns->idle);
    atomic_fetch_add_explicit(&turns->let_go, 1, memory_order_relaxed);
}

void ext_turns_linger(ext_turns *turns)
{
    if (!spin_begin())
        return;
    uint32_t progress = atomic_load_explicit(&turns->progress, memory_order_relaxed);
    weir_time now = weir_now();
    weir_time stalled = now + STALL, until = now + SPIN;
    unsigned left = looks(&turns->client);
    while (atomic_load_explicit(&turns->active, memory_order_relaxed) > 0) {
        relax(&left);
        now = weir_now();
        if (now > until || now > stalled)
            break;
        uint32_t seen = atomic_load_explicit(&turns->progress, memory_order_relaxed);
        if (seen != progress) {
            progress = seen;
            stalled = now + STALL;
        }
    }
    spin_end();
}

void ext_turns_await(ext_turns *turns, uint32_t seen)
{
    int64_t spin_ns = spin_ns_of(&turns->called);
    if (spin_ns == 0 || !spin_begin())
        return;
    weir_time until = weir_after(spin_ns);
    unsigned left = looks(&turns->idle);
    while (atomic_load_explicit(&turns->let_go, memory_order_relaxed) == seen && weir_now() < until)
        relax(&left);
    spin_end();
    learn(&turns->called, atomic_load_explicit(&turns->let_go, memory_order_relaxed) != seen);
}
