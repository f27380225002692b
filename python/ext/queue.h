/* queue.h - what the two faces of weir.Queue share: queue.c for threads, queue_async.c for coroutines. */
#ifndef WEIR_EXT_QUEUE_H
#define WEIR_EXT_QUEUE_H

#include "governor.h"

#include <semaphore.h>

typedef struct Queue {
    PyObject_HEAD PyObject *weakrefs;

    /* set by __init__ */
    module_state *state; /* kept alive by the type */
    weir_queue *queue;   /* NULL: __init__ has not been called */
    weir_overflow overflow;
    bool measures; /* items have a cost */
    bool is_bare;  /* a StageQueue: what libweir queues is the item itself; see ext_queue_lend */
    unsigned generation;
    PyObject *sizer, *on_drop, *on_high, *on_low, *name; /* NULL: none */
    PyObject *memory;                                    /* the MemoryGovernor; NULL: none */
    ext_governor *governor;                              /* its core */
    weir_spill *spill;                                   /* NULL: it does not */
    bool is_durable;
    PyObject *spill_settings, *dumps, *loads; /* of it */
    weir_codec codec;
    atomic_bool closing; /* relaxed: a hint for who waits for memory, who then asks libweir */

    ext_line line; /* coroutines that wait */

    /* under lock */
    ext_lock lock;
    uintptr_t *slots;   /* a PyObject *, or a free slot: next free << 1 | 1 */
    uint64_t *reserved; /* for each slot, bytes; NULL: without a governor, or no slots */
    size_t n_slots, n_held;
    size_t first_free; /* n_slots: none */
    size_t unfinished;
    size_t waiting; /* calls of this queue that are without the GIL */
    struct joiner *joiners;
    weir_pending *waiting_joins; /* coroutines in ajoin() */
    sem_t put_gate, get_gate;    /* see begin_wait */
    size_t capacity;
    uint64_t max_cost; /* 0: no bound */

    bool muted; /* the queue is being taken apart: no callbacks any more */
} Queue;

/* What libweir queues. */
static inline void *ext_to_item(size_t slot)
{
    return (void *)(uintptr_t)slot;
}

static inline size_t ext_to_slot(void *item)
{
    return (size_t)(uintptr_t)item;
}

/* ---- queue.c -------------------------------------------------------------------------------- */

/* false with RuntimeError: the queue was not made, or not by this process. */
bool ext_queue_is_usable(Queue *self);

/* For a pipeline whose workers put into it and take from it themselves: the queue in a StageQueue.  There
 * libweir queues references to items, not numbers of slots, and nothing counts as unfinished.  (So the
 * garbage collector does not see what is inside: an item that refers to its pipeline keeps it until it is
 * processed.)  NULL with TypeError: it is another Queue. */
weir_queue *ext_queue_lend(Queue *self);

/* What the item adds to the queue's bytes; -1 with an exception. */
int ext_queue_measure(Queue *self, PyObject *item, uint64_t *ret_cost);

/* Takes a reference to item for the queue, and counts it as unfinished; -1 with an exception. */
int ext_queue_hold(Queue *self, PyObject *item, size_t *ret_slot);

/* Takes an item back that the queue refused. */
void ext_queue_take_back(Queue *self, size_t slot);

/* n items are finished; false: there are not so many. */
bool ext_queue_finish(Queue *self, size_t n);

/* Gives the queue's reference to the caller. */
PyObject *ext_queue_let_go(Queue *self, size_t slot);

/* The slot's item has so much reserved, which goes back when the slot is emptied. */
void ext_queue_note_reserved(Queue *self, size_t slot, uint64_t bytes);

/* As a timeout: not to wait, nor to count who finds no room as refused. */
#define EXT_PROBE_NS INT64_C(-1)

/* The deadline of a put's first try: who will wait else is not refused. */
static inline weir_time ext_first_try(int64_t timeout_ns)
{
    return timeout_ns != 0 ? WEIR_PROBE : WEIR_POLL;
}

/* Whether a put that was refused as EFULL waits. */
bool ext_queue_waits_for_room(Queue *self, int rc, int64_t timeout_ns);

/* Raises why a put, or a get, ended; NULL. */
PyObject *ext_queue_raise_put(Queue *self, int rc, uint64_t cost);
PyObject *ext_queue_raise_get(Queue *self, int rc);

/* get_many never keeps room for more; a batch is then smaller than asked for. */
#define EXT_BATCH_MAX 65536

/* max= of get_many; and linger=.  -1 with an exception. */
int ext_queue_parse_batch(PyObject *max, PyObject *linger, size_t *ret_max, int64_t *ret_linger_ns);

/* A list for what is to be taken out, made before it is: then nothing that was taken has nowhere to go.
 * NULL with MemoryError. */
PyObject *ext_queue_new_list(size_t max);

/* Takes up to max items, as weir_queue_get_many. */
typedef int64_t ext_queue_take_fn(Queue *self, void **items, size_t max, void *ctx);

/* Fills such a list with what `take` gets, and cuts it to that; without any, it is gone and *list NULL.
 * What `take` returned. */
int64_t ext_queue_fill_list(Queue *self, PyObject **list, ext_queue_take_fn *take, void *ctx);

/* Whether a put waits that finds no room. */
static inline bool ext_queue_blocks(const Queue *self)
{
    return self->overflow == WEIR_OVERFLOW_BLOCK || self->overflow == WEIR_OVERFLOW_SPILL;
}

/* ---- queue_spill.c -------------------------------------------------------------------------- */

/* Reads spill= and opens its directory; nothing without.  -1 with an exception. */
int ext_queue_spill_open(Queue *self, PyObject *settings, weir_queue_opts *opts);

/* The queue is made: what was found on disk is unfinished. */
void ext_queue_spill_begin(Queue *self);

/* Nobody will get what is on disk, so nobody has to read it. */
void ext_queue_spill_clear(Queue *self);

/* Nobody puts or gets any more: leaves the directory to others. */
void ext_queue_spill_leave(Queue *self);

/* What __init__ or the garbage collector takes apart. */
void ext_queue_spill_forget(Queue *self);

/* Adds what stats() tells of the disk to its fields.  -1 with an exception. */
int ext_queue_spill_stats(Queue *self, const weir_queue_snapshot *now, PyObject *fields);

/* ---- queue_async.c -------------------------------------------------------------------------- */

/* Nothing is unfinished: tells those who were taken off the list. */
void ext_queue_tell_joins(weir_pending *first);

PyObject *ext_queue_aput(Queue *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames);
PyObject *ext_queue_aput_reserved(Queue *self, PyObject *const *args, Py_ssize_t n);
PyObject *ext_queue_aget(Queue *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames);
PyObject *ext_queue_aput_many(Queue *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames);
PyObject *ext_queue_aget_many(Queue *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames);
PyObject *ext_queue_ajoin(Queue *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames);
PyObject *ext_queue_anext(Queue *self);

extern const char ext_queue_aput_doc[], ext_queue_aput_reserved_doc[], ext_queue_aget_doc[],
    ext_queue_aput_many_doc[], ext_queue_aget_many_doc[], ext_queue_ajoin_doc[];

#endif
