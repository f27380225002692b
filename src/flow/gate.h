/* gate.h - so much of something at a time: a counting semaphore with costs, and a line before it.
 *
 * What limits of concurrency and of memory have in common.  The gate knows costs, a capacity that may
 * change at any time, partitions, and who waits in which order; it does not know what decides about
 * the capacity.  That state, if it has to change together with the gate, is the gate's `state`.
 *
 * Bound:      used <= capacity at every instant; after set_capacity to less, nobody is admitted until
 *             that is so again.  With one_always, one that costs more is admitted when nothing else is
 *             inside.
 * Order:      who waits is admitted first come, first served (lifo: the last first); one that costs
 *             much is waited for.  Those of a partition below its share go first.  A later try never
 *             overtakes who waits.
 * Law:        admitted == released + inside, in calls and in cost; for a shared gate
 *             admitted == released + inside + lost, where `lost` is what killed processes held.
 * Shared:     a gate with a name is one for all processes of the user.  What a killed process held is
 *             given back when somebody has to wait, within 100 ms.  Usable on both sides of a fork:
 *             what the parent holds stays the parent's.
 * Threads:    all but create and destroy may be called from any thread.
 */
#ifndef WEIR_FLOW_GATE_H
#define WEIR_FLOW_GATE_H

#include "flow/record.h"

#define WEIR__PARTITIONS 8u
#define WEIR__GATE_STATE 1024u /* bytes at most */

typedef struct weir__gate weir__gate;

typedef struct weir__gate_opts {
    uint64_t capacity;  /* cost that may be inside, < 2^46; 0 is fine: nothing is let in */
    const char *kind;   /* of a shared gate: what it limits; see base/named.h */
    const char *shared; /* its name; NULL: this process's own.  Where it exists already, its
                           capacity, options and state are as who made it said. */
    bool one_always;
    bool lifo;
    unsigned n_partitions;           /* 0 and 1: none; up to WEIR__PARTITIONS */
    double shares[WEIR__PARTITIONS]; /* guaranteed, of the capacity; sum <= 1 */
    /* Shedding, after CoDel: overloaded is when nobody who was admitted in the last interval had
     * waited for less than the target; then who has waited for longer than twice the target is
     * sent away (WEIR_ESHED) instead of being admitted.  Where nobody is admitted for an interval,
     * those go who have waited for longer than that. */
    int64_t shed_target_ns; /* 0: nobody is shed */
    int64_t shed_interval_ns;
    /* Of the caller; lies with the gate, also shared, and changes under its lock. */
    size_t state_size;
    void (*state_init)(void *state, const void *ctx); /* NULL: zeroed */
    const void *state_ctx;
    /* What other processes see it as; one that is shared: in each process that has it. */
    weir_stats_kind stats_kind; /* 0: nothing */
    const char *stats_name;     /* as of a queue; NULL: its shared name, if it has one */
    bool tells_cost;            /* costs are no mere calls: they see their sum, too */
} weir__gate_opts;

/* WEIR_EINVAL: an option or the name is out of range; WEIR_ENOMEM; shared: as weir__named_open. */
int weir__gate_create(weir__gate **ret_gate, const weir__gate_opts *opts);

/* Nobody waits, or comes any more (NULL is fine).  What this process still holds of a shared gate is
 * given back with the last handle of the process. */
void weir__gate_destroy(weir__gate *gate);

/* Lets in a cost in [1, 2^46) for a partition.  < 0: WEIR_EFULL (WEIR_POLL, WEIR_PROBE),
 * WEIR_ETIMEDOUT, WEIR_ECLOSED, WEIR_ESHED, WEIR_EINTR; WEIR_ETOOBIG: more than
 * the capacity and not one_always, now or because it has fallen meanwhile. */
int weir__gate_acquire(weir__gate *gate, uint64_t cost, unsigned partition, weir_time deadline);

/* The same without a thread: WEIR_OK, or WEIR_WAITING and `ready` is called with WEIR_OK or an error
 * above.  WEIR_EINVAL for a shared gate: it has no thread that could call. */
int weir__gate_acquire_async(weir__gate *gate, uint64_t cost, unsigned partition,
                             weir_pending *pending);

/* Leaves the line: true, and `ready` is not called.  false: it was called or is being called. */
bool weir__gate_cancel(weir__gate *gate, weir_pending *pending);

/* Counts a call as refused that gave up waiting, and was no thread's in line. */
void weir__gate_count_refused(weir__gate *gate);

/* Under the gate's lock.  Sees the state and what is inside (before this release), and says the
 * capacity from now on.  Killed in the middle of it, the state of a shared gate is as it was before.
 * No lock, no waiting, no user's code. */
typedef uint64_t weir__gate_update_fn(void *state, uint64_t used, uint64_t capacity, void *ctx);

/* Gives back what was let in; fn (NULL: none) is called first. */
void weir__gate_release(weir__gate *gate, uint64_t cost, unsigned partition,
                        weir__gate_update_fn *fn, void *ctx);

/* Changes capacity and state; returns the capacity.  Of a shared gate, not while a process is stopped
 * in the middle of a call: then fn is not called. */
uint64_t weir__gate_update(weir__gate *gate, weir__gate_update_fn *fn, void *ctx);

/* Copies the state, whatever others do. */
void weir__gate_look(weir__gate *gate, void *ret_state);

uint64_t weir__gate_set_capacity(weir__gate *gate, uint64_t capacity);

/* Lets nobody in any more; those of this process who wait return WEIR_ECLOSED.  A shared gate stays
 * open for the other processes. */
void weir__gate_close(weir__gate *gate);

typedef struct weir__gate_counts {
    uint64_t capacity, used; /* cost inside; shared: of all processes */
    uint64_t used_by[WEIR__PARTITIONS];
    uint64_t inside;                                  /* calls */
    uint64_t admitted, released, lost, refused, shed; /* calls */
    uint64_t peak_used;
    size_t waiting;
    uint64_t blocked_ns; /* waited, summed over waits that have ended */
    bool is_closed;
} weir__gate_counts;

void weir__gate_get_counts(weir__gate *gate, weir__gate_counts *ret_counts);

/* What other processes see of this one; NULL: nothing. */
weir__record *weir__gate_record(weir__gate *gate);

/* Hints, without the lock. */
uint64_t weir__gate_capacity(const weir__gate *gate);
uint64_t weir__gate_used(const weir__gate *gate);

#endif
