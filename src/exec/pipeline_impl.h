/* pipeline_impl.h - what the files of the pipeline share; the contract is <weir/pipeline.h>.
 *
 *     pipeline.c   building, starting and ending
 *     stage.c      what a worker does: take, call, emit
 *     emit.c       where an emitted item goes
 *     order.c      the window of an ordered stage
 *     meter.c      where the time of a worker goes
 *     tender.c     the pipeline's own thread: pressure, number of workers, size of queues
 *     look.c       snapshots
 *     show.c       what other processes see
 *
 * Locks:     none is held while a function of the caller runs, or anybody waits.  `lock` of a stage
 *            guards which seats are taken; that of an order its slots.
 * Counting:  each counter of a tally has one writer, its worker, or (the tally of a stage's caller)
 *            is added to atomically; readers add them up.
 * Inputs:    a stage counts what still feeds it: stages that have not ended, and the caller.  Who takes
 *            the last one away closes its queue.
 */
#ifndef WEIR_EXEC_PIPELINE_IMPL_H
#define WEIR_EXEC_PIPELINE_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include <weir/pipeline.h>

#include "base/alloc.h"
#include "base/mutex.h"
#include "flow/queue.h"
#include "model/bottleneck.h"
#include "model/graph.h"
#include "model/queue_size.h"
#include "model/sampler.h"
#include "model/scale.h"

typedef _Atomic uint64_t counter;

/* ---- meter: where the time of one thread goes ------------------------------------------------ */

typedef enum weir__doing {
    WEIR__BUSY = 0,
    WEIR__IDLE,    /* waits for input */
    WEIR__BLOCKED, /* waits for room in stage `where` */
    WEIR__HELD,    /* waits for its own limit `where` */
    WEIR__ABSENT,  /* there is no worker */
} weir__doing;

/* What one thread has done for one stage. */
typedef struct weir__tally {
    counter processed, failed, retried, emitted;
    counter entered;    /* inline stages: items that came in */
    counter busy_ns;    /* inline stages: in their function alone */
    counter blocked_ns; /* waited for room in this stage */
} weir__tally;

/* Times change when a wait begins or ends, and only then.  `version` is odd meanwhile: each store of a
 * field releases it, each load of one acquires, so who has seen one new field sees that version changes. */
typedef struct weir__meter {
    _Atomic uint32_t version;
    _Atomic uint32_t doing, where;
    _Atomic weir_time since; /* the state began */
    counter busy_ns, idle_ns, held_ns[WEIR_CAUSES];
    weir__tally *tallies; /* one for each stage */
    bool shared;          /* several threads use it: for callers; has no times */
    uint64_t waited_ns;   /* all waits that have ended; the thread's own */
    bool has_lost; /* the thread's own: what it emits was lost for want of memory or a disk */
    /* the thread's own, for inline stages: */
    uint64_t inner_ns;      /* in their functions */
    uint32_t calls, sample; /* one in `sample` is timed ... */
    uint32_t depth;         /* inline functions that call each other now */
    bool timing;            /* ... and this is one */
} weir__meter;

typedef struct weir__times {
    uint64_t busy_ns, idle_ns, held_ns[WEIR_CAUSES], in_progress_ns;
    uint32_t doing, where;
} weir__times;

/* A wait of the thread whose meter it is. */
typedef struct weir__wait {
    weir__doing doing;
    unsigned where;
    weir_time since;
} weir__wait;

/* Beginning and end of a wait; with `before_wait` and `after_wait` of the caller's.  What a thread waits
 * for that lock counts as part of the wait: it is the load of the others.  Returns how long it was. */
weir__wait weir__wait_begin(weir_pipeline *pipeline, weir__meter *meter, weir__doing doing,
                            unsigned where);
uint64_t weir__wait_end(weir_pipeline *pipeline, weir__meter *meter, weir__wait wait);

void weir__meter_come(weir__meter *meter);
void weir__meter_leave(weir__meter *meter);
void weir__meter_read(const weir__meter *meter, weir_time now, weir__times *ret_times);

static inline void weir__add(counter *c, uint64_t n, bool shared)
{
    if (shared)
        atomic_fetch_add_explicit(c, n, memory_order_relaxed);
    else /* one writer */
        atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n,
                              memory_order_relaxed);
}

static inline uint64_t weir__read(const counter *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

/* ---- stages ---------------------------------------------------------------------------------- */

typedef struct weir__held {
    void *item;
    uint64_t cost;
} weir__held;

/* What a call came to that is emitted later. */
typedef struct weir__outcome {
    size_t n, capacity;
    weir__held *items;
    uint64_t *seqs; /* to acknowledge then; a batch of them, or NULL */
    size_t n_seqs;
    bool has_lost; /* while the call ran: they are not to be acknowledged */
    bool ready;
} weir__outcome;

typedef struct weir__order {
    weir_queue *baton;  /* one token: who has it takes the next items */
    weir_queue *window; /* a token for each call that has begun and is not emitted */
    size_t size;
    uint64_t next_in;            /* whoever has the baton */
    _Atomic unsigned blocked_on; /* stage that who emits waits for, + 1; 0: none */
    weir__mutex lock;
    uint64_t next_out;
    bool emitting;
    weir__outcome *slots; /* [seq % size] */
} weir__order;

struct weir_output {
    weir__meter *meter;
    weir__outcome *outcome; /* where to keep what is emitted later; NULL: at once */
};

typedef struct weir__worker {
    weir__meter meter;
    weir_pipeline *pipeline;
    struct weir__stage *stage;
    void **items;
    uint64_t *costs;
    weir__outcome outcome; /* of the call; only `seqs` counts where there is no order */
    _Atomic uint32_t in_hand;
    weir__sampler sampler; /* of its calls, */
    uint32_t until_timed;  /* of which one is timed after so many; 0: the next one */
    bool taken;            /* the seat; under the stage's lock */
    bool joinable;         /* `thread` has to be joined; who starts threads' */
    void (*main)(void *);
    pthread_t thread;
    char name[64];
} weir__worker;

typedef struct weir__stage {
    weir_pipeline *pipeline;
    weir_stage index;
    weir_stage_opts opts;
    char *name;
    weir_queue *queue; /* NULL: source or inline */
    bool owns_queue;
    weir__record *record;     /* what other processes see: the queue's, or ... */
    weir__record *own_record; /* ... this, where that has none; set at the start */
    weir_stage host;          /* whose workers run it: itself, unless it is inline */
    weir_stage *behind;       /* where its items go */
    unsigned n_behind;
    _Atomic uint64_t turn;      /* round robin */
    _Atomic unsigned inputs;    /* what still feeds it; acq_rel: the last one sees what all did */
    _Atomic bool input_is_open; /* for puts from outside */
    _Atomic bool ended;
    _Atomic uint32_t wanted;  /* workers */
    _Atomic uint32_t running; /* workers; acq_rel: the last one ends the stage */
    unsigned workers_peak;    /* under the pipeline's lock */
    weir__mutex lock;
    weir__worker *seats;
    unsigned n_seats;
    _Atomic unsigned
        n_used; /* seats that somebody ever had: the first ones; all others are as made */
    weir__order *order;
    weir__meter caller; /* for emits and reports from outside */
    counter waits, outside_ns;
    counter turned_away[WEIR_LOSS_REASONS]; /* never were in the queue */
    counter let_go[WEIR_LOSS_REASONS];      /* in hand, and not worked on */
    counter reported_busy_ns, reported_idle_ns, reported_held_ns[WEIR_CAUSES];
    _Atomic unsigned reported_workers;
    /* the tender's */
    weir__scale scale;
    weir__queue_size queue_size;
    /* under the pipeline's lock */
    weir__pressure total; /* when it was charged last */
    double worker_ns;     /* workers, summed over time */
} weir__stage;

/* What there is to see of a stage. */
typedef struct weir__look {
    weir__pressure sum; /* since the start */
    uint64_t accepted, emitted;
    weir_queue_snapshot queue;
} weir__look;

/* What is told and charged of it: all that is looked at without the lock. */
typedef struct weir__sight {
    weir__pressure sum; /* since the start */
    uint64_t delivered, settled, emitted, failed, retried, turned_away;
    uint64_t in_hand;
} weir__sight;

struct weir_pipeline {
    weir_pipeline_opts opts;
    char *name;
    weir__stage *stages[WEIR_STAGES_MAX];
    unsigned n;
    bool started;
    char trouble[256];
    unsigned *order;   /* of stages, as graph.h says */
    weir__edge *edges; /* all connections, dead letters too */
    size_t n_edges;
    weir_time started_at;  /* 0: not yet */
    _Atomic uint32_t done; /* futex: 1 when all stages have ended; release: pairs with who waits */
    _Atomic uint32_t halted, stopping; /* futexes; stopping, too, when halted */
    _Atomic weir_time stopped_at;
    _Atomic int error;        /* of the call that halted it */
    _Atomic unsigned alive;   /* stages that have not ended; and the start, until it has worked */
    _Atomic uint32_t threads; /* futex: that run, the tender included */
    weir__worker tender;
    weir__sight *sights; /* its own */
    /* charges; under `lock` */
    weir__mutex lock;
    weir_time charged_at;
    bool end_is_told;
    double *charged, *window_charged, *scratch;
    uint64_t *blocked,
        *blocked_before; /* [i * n + j]: i waited for room in j; in the window, in all */
    weir__pressure *window;
};

/* The worker that this thread is; the tender is one without a stage. */
extern _Thread_local weir__worker *weir__self;

/* stage.c */
void weir__stage_work(void *worker);
int weir__stage_call(weir__stage *stage, void *const *items, size_t n, weir_output *output);
/* Starts a worker, which `running` counts already.  WEIR_ESPAWN; WEIR_EFULL: all seats are taken, by some
 * that are about to leave maybe.  It does not count then. */
int weir__stage_spawn(weir__stage *stage);
void weir__stage_unseat(weir__worker *worker);

/* The seats to look at: as many as there ever were workers, where there may be many more. */
static inline unsigned weir__seats_used(const weir__stage *stage)
{
    /* relaxed: the seats were made before the start, and what is in them is atomic */
    return atomic_load_explicit(&((weir__stage *)stage)->n_used, memory_order_relaxed);
}

/* emit.c */
void weir__emit_now(weir__stage *stage, weir__meter *meter, void *const *items,
                    const uint64_t *costs, size_t n, size_t *ret_dropped);
void weir__emit_lost(weir__stage *stage, weir__meter *meter, void *item, weir_loss reason);
void weir__let_go(weir__stage *stage, void *item, weir_loss reason);
void weir__dead_letter(weir__stage *stage, weir__meter *meter, void *item);

/* order.c; batch > 0: with room to acknowledge so many items for each call */
int weir__order_create(weir__order **ret_order, size_t size, size_t batch);
void weir__acknowledge(weir__stage *stage, weir__meter *meter, weir__outcome *outcome);
void weir__order_destroy(weir__order *order);
bool weir__order_keep(weir__outcome *outcome, void *item, uint64_t cost);
void weir__emit_kept(weir__stage *stage, weir__meter *meter, weir__outcome *outcome);
void weir__order_submit(weir__stage *stage, weir__meter *meter, uint64_t seq,
                        weir__outcome *outcome);

/* pipeline.c */
void weir__stage_end(weir__stage *stage);
void weir__pipeline_fail(weir_pipeline *pipeline, int error);
void weir__thread_gone(weir_pipeline *pipeline, weir__worker *worker);
int weir__start_thread(weir_pipeline *pipeline, weir__worker *worker, void (*main)(void *));

/* tender.c */
void weir__tend(void *worker);
int weir__tender_init(weir_pipeline *pipeline);
void weir__tender_fini(weir_pipeline *pipeline);

void weir__look_at_charges(weir__stage *stage, weir_stage_snapshot *snapshot);
void weir__tell_the_end(weir_pipeline *pipeline);

/* look.c */
void weir__stage_look(weir__stage *stage, weir_time now, weir__look *ret_look);
void weir__stage_see(weir__stage *stage, weir_time now, weir__sight *ret_sight);
void weir__stage_blocked(weir__stage *stage, weir_time now, uint64_t *blocked);
unsigned weir__stage_workers(const weir__stage *stage);
uint64_t weir__stage_failed(weir__stage *stage);

/* show.c; telling is under the pipeline's lock */
void weir__stage_name(const weir__stage *stage, char ret_name[WEIR__PAGE_NAME]);
void weir__pipeline_show(weir_pipeline *pipeline);
void weir__stage_hide(weir__stage *stage);
void weir__pipeline_tell(weir_pipeline *pipeline, const weir__sight *seen);

/* Whether it has as many workers as it needs. */
static inline bool weir__is_scaled(const weir__stage *stage)
{
    return stage->opts.workers_max > stage->opts.workers_min;
}

/* Whether who finds no room in the stage waits. */
static inline bool weir__waits(const weir__stage *stage)
{
    return stage->opts.overflow == WEIR_OVERFLOW_BLOCK ||
           stage->opts.overflow == WEIR_OVERFLOW_SPILL;
}

static inline bool weir__is_halted(const weir_pipeline *pipeline)
{
    return atomic_load_explicit(&((weir_pipeline *)pipeline)->halted, memory_order_acquire);
}

#endif
