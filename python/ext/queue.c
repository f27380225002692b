/* queue.c - weir.Queue: a weir_queue that holds Python objects.
 *
 * Ownership:  an item is one strong reference in `slots`; what libweir queues is the slot's number.
 *             So the garbage collector can see every item, and it never sees one move: slots change
 *             only while their thread holds the GIL (is attached), also when libweir moves the item
 *             between threads that wait without it.
 * Waiting:    every call tries with WEIR_POLL (or PROBE) first and releases the GIL only to wait (wait.c).
 *             Those whose wait has ended take the GIL one by one on each side of the queue, if
 *             there are many: a hundred putters that were let in at once do not stand before the
 *             getter that is to make room for their next items.
 * Drops:      libweir reports each drop once, on the thread whose call dropped the item; the slot
 *             is emptied there and on_drop gets the item.
 * Unfinished: what join() waits for.  An item counts from before its put to task_done or its drop;
 *             so that a fast consumer's task_done cannot come before the count.
 * Memory:     where there is a governor, an item's cost is reserved with it before the item is put, and
 *             the slot keeps account: so it is given back once, when the slot is emptied, whatever the
 *             reason.  What is reserved is never less than what is inside.
 * Forks:      a child cannot use its parent's queue; it only drops its references.
 */
#include "queue.h"

#include <structmember.h>

/* A thread in join(); on the heap, because a daemon thread may end in the middle of its wait. */
typedef struct joiner {
    weir_queue *bell; /* closed when nothing is unfinished */
    struct joiner *next;
} joiner;

/* ---- the items ------------------------------------------------------------------------------ */

#define FREE_SLOT(next) ((uintptr_t)(next) << 1 | 1)
#define IS_FREE(slot)   (((slot) & 1) != 0)
#define NEXT_FREE(slot) ((size_t)((slot) >> 1))
#define SLOTS_MIN       16
#define SLOTS_KEPT      1024 /* an empty queue gives back more than these */

static int grow_slots(Queue *self)
{
    size_t n = self->n_slots ? self->n_slots * 2 : SLOTS_MIN;
    if (n > PY_SSIZE_T_MAX / sizeof *self->slots)
        return -1;
    if (self->governor) {
        uint64_t *reserved = PyMem_Realloc(self->reserved, n * sizeof *reserved);
        if (!reserved)
            return -1;
        memset(reserved + self->n_slots, 0, (n - self->n_slots) * sizeof *reserved);
        self->reserved = reserved;
    }
    uintptr_t *slots = PyMem_Realloc(self->slots, n * sizeof *slots);
    if (!slots)
        return -1;
    for (size_t i = self->n_slots; i < n; i++)
        slots[i] = FREE_SLOT(i + 1);
    self->slots = slots;
    self->first_free = self->n_slots;
    self->n_slots = n;
    return 0;
}

/* Takes a reference to item for the queue, and counts it as unfinished. */
int ext_queue_hold(Queue *self, PyObject *item, size_t *ret_slot)
{
    if (self->is_bare) {
        *ret_slot = (size_t)Py_NewRef(item);
        return 0;
    }
    EXT_LOCK(&self->lock);
    if (self->first_free == self->n_slots && grow_slots(self) < 0) {
        EXT_UNLOCK(&self->lock);
        PyErr_NoMemory();
        return -1;
    }
    size_t slot = self->first_free;
    self->first_free = NEXT_FREE(self->slots[slot]);
    self->slots[slot] = (uintptr_t)Py_NewRef(item);
    self->n_held++;
    self->unfinished++;
    EXT_UNLOCK(&self->lock);
    *ret_slot = slot;
    return 0;
}

void ext_queue_note_reserved(Queue *self, size_t slot, uint64_t bytes)
{
    EXT_LOCK(&self->lock);
    self->reserved[slot] = bytes;
    EXT_UNLOCK(&self->lock);
}

/* Of an item that is no longer inside. */
static void give_memory_back(Queue *self, size_t slot)
{
    EXT_LOCK(&self->lock);
    uint64_t bytes = self->reserved[slot];
    self->reserved[slot] = 0;
    EXT_UNLOCK(&self->lock);
    if (bytes > 0)
        ext_governor_release(self->governor, bytes);
}

/* Gives the queue's reference to the caller. */
PyObject *ext_queue_let_go(Queue *self, size_t slot)
{
    if (self->is_bare)
        return (PyObject *)slot;
    if (self->governor)
        give_memory_back(self, slot);
    EXT_LOCK(&self->lock);
    PyObject *item = (PyObject *)self->slots[slot];
    self->slots[slot] = FREE_SLOT(self->first_free);
    self->first_free = slot;
    if (--self->n_held == 0 && self->n_slots > SLOTS_KEPT) {
        PyMem_Free(self->slots);
        PyMem_Free(self->reserved);
        self->slots = NULL;
        self->reserved = NULL;
        self->n_slots = self->first_free = 0;
    }
    EXT_UNLOCK(&self->lock);
    return item;
}

/* n items are finished; false: there are not so many. */
bool ext_queue_finish(Queue *self, size_t n)
{
    weir_pending *waiting = NULL;
    EXT_LOCK(&self->lock);
    bool enough = n <= self->unfinished;
    if (enough)
        self->unfinished -= n;
    if (self->unfinished == 0) {
        for (joiner *j = self->joiners; j; j = j->next)
            weir_queue_close(j->bell);
        self->joiners = NULL;
        waiting = self->waiting_joins;
        self->waiting_joins = NULL;
    }
    EXT_UNLOCK(&self->lock);
    ext_queue_tell_joins(waiting);
    return enough;
}

/* Takes an item back that the queue refused. */
void ext_queue_take_back(Queue *self, size_t slot)
{
    if (self->is_bare) {
        Py_DECREF((PyObject *)slot);
        return;
    }
    EXT_LOCK(&self->lock);
    bool is_gone = slot >= self->n_slots; /* the queue was taken apart before who waited for it */
    EXT_UNLOCK(&self->lock);
    if (is_gone)
        return;
    PyObject *item = ext_queue_let_go(self, slot);
    ext_queue_finish(self, 1);
    Py_DECREF(item);
}

/* ---- callbacks from libweir ----------------------------------------------------------------- */

static void call_and_forget(PyObject *callable, PyObject *const *args, size_t n)
{
    PyObject *result = PyObject_Vectorcall(callable, args, n, NULL);
    if (!result)
        ext_report_exception(callable);
    Py_XDECREF(result);
}

static void on_drop(void *item, weir_drop_reason reason, void *ctx)
{
    Queue *self = ctx;
    if (self->muted) { /* free_items has it, when libweir has returned */
        if (self->is_bare)
            Py_DECREF((PyObject *)item);
        return;
    }
    ext_callback callback;
    ext_callback_begin(&callback);
    PyObject *object = ext_queue_let_go(self, ext_to_slot(item));
    if (self->on_drop) {
        PyObject *name = PyUnicode_InternFromString(weir_drop_reason_name((int)reason));
        if (name) {
            PyObject *args[] = {object, name};
            call_and_forget(self->on_drop, args, 2);
            Py_DECREF(name);
        } else {
            PyErr_WriteUnraisable(self->on_drop);
        }
    }
    Py_DECREF(object);
    if (!self->is_bare)
        ext_queue_finish(self, 1);
    ext_callback_end(&callback);
}

static void on_watermark(bool above, void *ctx)
{
    Queue *self = ctx;
    if (self->muted)
        return;
    ext_callback callback;
    ext_callback_begin(&callback);
    PyObject *callable = above ? self->on_high : self->on_low;
    if (callable)
        call_and_forget(callable, NULL, 0);
    ext_callback_end(&callback);
}

/* ---- calls ---------------------------------------------------------------------------------- */

/* false with RuntimeError: the queue was not made, or not by this process. */
bool ext_queue_is_usable(Queue *self)
{
    if (!self->queue) {
        PyErr_SetString(PyExc_RuntimeError, "weir.Queue.__init__() has not been called");
        return false;
    }
    if (self->generation != ext_fork_generation()) {
        PyErr_SetString(PyExc_RuntimeError,
                        "this weir.Queue belongs to the parent process; a forked child cannot use "
                        "it (make a new one here, or a weir.SharedQueue before the fork)");
        return false;
    }
    return true;
}

weir_queue *ext_queue_lend(Queue *self)
{
    if (!ext_queue_is_usable(self))
        return NULL;
    if (self->is_bare)
        return self->queue;
    PyErr_SetString(PyExc_TypeError, "a pipeline needs a weir._weir.StageQueue");
    return NULL;
}

/* One wait of a queue's. */
typedef struct queue_wait {
    ext_wait wait;
    sem_t *gate; /* NULL: none to go through */
} queue_wait;

/* As many may wait for the GIL as they please: up to here a gate costs more than it saves. */
#define CROWD 8

/* gate: where those wait for the GIL, in a crowd, who have waited for the same thing (NULL: none);
 * one of them waits for the GIL itself.  The main thread goes past: it may have a signal to
 * handle.  Where there is no GIL there is nothing to wait for. */
static void begin_wait(Queue *self, queue_wait *w, sem_t *gate)
{
    EXT_LOCK(&self->lock);
    bool crowded = ++self->waiting > CROWD;
    EXT_UNLOCK(&self->lock);
#ifdef Py_GIL_DISABLED
    crowded = false;
#endif
    ext_wait_begin(&w->wait);
    w->gate = crowded && !w->wait.hooked ? gate : NULL;
}

static void end_wait(Queue *self, queue_wait *w)
{
    while (w->gate && sem_wait(w->gate) < 0) /* EINTR */
        ;
    ext_wait_end(&w->wait);
    if (w->gate)
        sem_post(w->gate);
    EXT_LOCK(&self->lock);
    self->waiting--;
    EXT_UNLOCK(&self->lock);
}

int ext_parse_block(PyObject *block, PyObject *timeout, int64_t *ret_ns)
{
    if (block && block != Py_True) {
        int truth = PyObject_IsTrue(block);
        if (truth < 0)
            return -1;
        if (!truth) {
            *ret_ns = 0;
            return 0;
        }
    }
    return ext_parse_timeout(timeout, "timeout", ret_ns);
}

/* ---- costs ---------------------------------------------------------------------------------- */

static int to_cost(PyObject *number, uint64_t *ret_cost)
{
    PyObject *index = PyNumber_Index(number);
    if (!index)
        return -1;
    unsigned long long cost = PyLong_AsUnsignedLongLong(index);
    Py_DECREF(index);
    if (cost == (unsigned long long)-1 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError))
            PyErr_Format(PyExc_ValueError, "sizer() must return an int from 0 to 2**64 - 1, not %S",
                         number);
        return -1;
    }
    *ret_cost = cost;
    return 0;
}

static int buffer_size(PyObject *item, uint64_t *ret_cost)
{
    Py_buffer view;
    if (PyObject_GetBuffer(item, &view, PyBUF_FULL_RO) < 0)
        return -1;
    *ret_cost = (uint64_t)view.len;
    PyBuffer_Release(&view);
    return 0;
}

/* What the item adds to the queue's bytes. */
int ext_queue_measure(Queue *self, PyObject *item, uint64_t *ret_cost)
{
    *ret_cost = 0;
    if (!self->measures)
        return 0;
    PyObject *size;
    if (self->sizer) {
        size = PyObject_CallOneArg(self->sizer, item);
    } else if (PyBytes_CheckExact(item)) {
        *ret_cost = (uint64_t)PyBytes_GET_SIZE(item);
        return 0;
    } else if (PyUnicode_Check(item)) {
        *ret_cost = (uint64_t)PyUnicode_GET_LENGTH(item);
        return 0;
    } else {
        if (PyObject_CheckBuffer(item)) {
            if (buffer_size(item, ret_cost) == 0)
                return 0;
            PyErr_Clear(); /* a released memoryview, say: it is an object like any other */
        }
        size = PyObject_CallOneArg(self->state->getsizeof, item);
    }
    if (!size)
        return -1;
    int rc = to_cost(size, ret_cost);
    Py_DECREF(size);
    return rc;
}

/* ---- put ------------------------------------------------------------------------------------ */

PyObject *ext_queue_raise_put(Queue *self, int rc, uint64_t cost)
{
    if (rc == WEIR_ESHED)
        return ext_raise_text(self->state, rc,
                              "memory is so scarce that nobody may wait for some to put the item; "
                              "try again later");
    if (rc == WEIR_ETIMEDOUT)
        rc = WEIR_EFULL;
    if (rc == WEIR_ECLOSED) {
        PyErr_SetNone(self->state->shut_down ? self->state->shut_down : PyExc_RuntimeError);
        return NULL;
    }
    if (rc == WEIR_ETOOBIG) {
        char text[128];
        PyOS_snprintf(text, sizeof text,
                      "the item costs %llu bytes, more than max_bytes: it can never fit",
                      (unsigned long long)cost);
        return ext_raise_text(self->state, rc, text);
    }
    return ext_raise(self->state, rc);
}

/* Whether a put that was refused as EFULL waits. */
bool ext_queue_waits_for_room(Queue *self, int rc, int64_t timeout_ns)
{
    return rc == WEIR_EFULL && timeout_ns > 0 && ext_queue_blocks(self);
}

static bool is_closing(void *ctx)
{
    return atomic_load_explicit(&((Queue *)ctx)->closing, memory_order_relaxed);
}

/* Whether memory for an item of that cost is worth waiting for. */
static bool waits_for_memory(Queue *self, uint64_t cost, int64_t timeout_ns)
{
    EXT_LOCK(&self->lock);
    bool may_fit = self->max_cost == 0 || cost <= self->max_cost;
    EXT_UNLOCK(&self->lock);
    return timeout_ns > 0 && self->overflow == WEIR_OVERFLOW_BLOCK && may_fit && !is_closing(self);
}

/* In the governor's line, until the queue is closed: WEIR_EINTR without an exception. */
static int wait_for_memory(Queue *self, uint64_t bytes, weir_time deadline)
{
    EXT_LOCK(&self->lock);
    self->waiting++;
    EXT_UNLOCK(&self->lock);
    ext_wait wait;
    ext_wait_begin_until(&wait, is_closing, self);
    int rc = ext_governor_reserve(self->governor, bytes, deadline);
    ext_wait_end(&wait);
    EXT_LOCK(&self->lock);
    self->waiting--;
    EXT_UNLOCK(&self->lock);
    if (rc == WEIR_OK && PyErr_Occurred()) { /* a signal handler raised meanwhile */
        ext_governor_release(self->governor, bytes);
        return WEIR_EINTR;
    }
    return rc;
}

static uint64_t reservation_for(uint64_t cost)
{
    return cost < EXT_RESERVATION_MAX ? cost : EXT_RESERVATION_MAX;
}

/* Reserves an item's memory for its slot: WEIR_OK, or as the put ends without: an error, or
 * WEIR_DROPPED.  *deadline: WEIR_POLL as long as it is not known. */
static int reserve(Queue *self, size_t slot, uint64_t cost, int64_t timeout_ns, weir_time *deadline)
{
    uint64_t bytes = reservation_for(cost);
    if (bytes == 0)
        return WEIR_OK;
    int rc = ext_governor_try(self->governor, bytes);
    if (rc == WEIR_EFULL && waits_for_memory(self, cost, timeout_ns)) {
        if (*deadline == WEIR_POLL)
            *deadline = ext_deadline(timeout_ns);
        rc = wait_for_memory(self, bytes, *deadline);
        if (rc == WEIR_EINTR && PyErr_Occurred())
            return rc;
        if (rc == WEIR_ETIMEDOUT || rc == WEIR_EINTR)
            return weir_queue_overflow(self->queue, ext_to_item(slot), cost); /* EFULL or ECLOSED */
    }
    if (rc == WEIR_EFULL && timeout_ns == EXT_PROBE_NS && ext_queue_blocks(self))
        return rc;
    while (rc == WEIR_EFULL) {
        int fate = weir_queue_overflow(self->queue, ext_to_item(slot), cost);
        if (fate != WEIR_EVICTED)
            return fate;
        rc = ext_governor_try(self->governor, bytes);
    }
    if (rc == WEIR_OK)
        ext_queue_note_reserved(self, slot, bytes);
    return rc == WEIR_ECLOSED ? WEIR_OK : rc; /* a closed governor holds nothing back */
}

/* Puts what is in the slot, or takes it back; WEIR_EINTR: with an exception. */
static int put_governed(Queue *self, size_t slot, uint64_t cost, int64_t timeout_ns,
                        weir_time *deadline)
{
    int rc = reserve(self, slot, cost, timeout_ns, deadline);
    if (rc != WEIR_OK) {
        if (rc < 0)
            ext_queue_take_back(self, slot);
        return rc;
    }
    rc = weir_queue_put(self->queue, ext_to_item(slot), cost, ext_first_try(timeout_ns));
    if (ext_queue_waits_for_room(self, rc, timeout_ns)) {
        if (*deadline == WEIR_POLL)
            *deadline = ext_deadline(timeout_ns);
        queue_wait wait;
        begin_wait(self, &wait, &self->put_gate);
        rc = weir_queue_put(self->queue, ext_to_item(slot), cost, *deadline);
        end_wait(self, &wait);
        if (rc >= 0 && PyErr_Occurred())
            return WEIR_EINTR; /* a signal handler raised while the put succeeded */
    }
    if (rc < 0)
        ext_queue_take_back(self, slot);
    return rc;
}

/* The disk may have to be waited for, so always without the GIL. */
static int put_spilling(Queue *self, size_t slot, uint64_t cost, int64_t timeout_ns)
{
    weir_time deadline = timeout_ns > 0 ? ext_deadline(timeout_ns) : ext_first_try(timeout_ns);
    queue_wait wait;
    begin_wait(self, &wait, &self->put_gate);
    int rc = weir_queue_put(self->queue, ext_to_item(slot), cost, deadline);
    end_wait(self, &wait);
    return rc;
}

static PyObject *put(Queue *self, PyObject *item, int64_t timeout_ns)
{
    uint64_t cost;
    size_t slot;
    if (ext_queue_measure(self, item, &cost) < 0 || ext_queue_hold(self, item, &slot) < 0)
        return NULL;
    if (self->governor) {
        weir_time deadline = WEIR_POLL;
        int rc = put_governed(self, slot, cost, timeout_ns, &deadline);
        return rc < 0 ? ext_queue_raise_put(self, rc, cost) : Py_NewRef(Py_None);
    }
    int rc = self->spill
                 ? put_spilling(self, slot, cost, timeout_ns)
                 : weir_queue_put(self->queue, ext_to_item(slot), cost, ext_first_try(timeout_ns));
    if (!self->spill && ext_queue_waits_for_room(self, rc, timeout_ns)) {
        weir_time deadline = ext_deadline(timeout_ns);
        queue_wait wait;
        begin_wait(self, &wait, &self->put_gate);
        rc = weir_queue_put(self->queue, ext_to_item(slot), cost, deadline);
        end_wait(self, &wait);
    }
    if (rc >= 0 && PyErr_Occurred())
        return NULL; /* a signal handler raised while the put succeeded */
    if (rc < 0) {
        ext_queue_take_back(self, slot);
        return ext_queue_raise_put(self, rc, cost);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    put_doc,
    "put($self, item, block=True, timeout=None)\n--\n\n"
    "Put an item into the queue.\n\n"
    "When it does not fit, the queue's overflow decides: \"block\" waits for room, in line behind\n"
    "those who came earlier, for up to `timeout` seconds (None: as long as it takes) or not at all\n"
    "(block=False); the others never wait.  A dropped item goes to on_drop.\n\n"
    "Raises queue.Full (no room, or not in time), weir.ShutDown, weir.TooLarge (it costs more than\n"
    "max_bytes), weir.Overloaded (it would wait for memory, and its governor sheds), ValueError\n"
    "(negative timeout): then the queue has not taken the item.");

static PyObject *Queue_put(Queue *self, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    static const char *const names[] = {"item", "block", "timeout", NULL};
    PyObject *given[3];
    int64_t timeout_ns;
    if (n_args == 1 && !kwnames) /* as almost always */
        return ext_queue_is_usable(self) ? put(self, args[0], EXT_FOREVER_NS) : NULL;
    if (ext_parse_args("put", names, 3, 1, args, n_args, kwnames, given) < 0 ||
        ext_parse_block(given[1], given[2], &timeout_ns) < 0 || !ext_queue_is_usable(self))
        return NULL;
    return put(self, given[0], timeout_ns);
}

PyDoc_STRVAR(try_put_doc,
             "_try_put($self, item, /)\n--\n\n"
             "put(block=False) for who will wait else: False, and not counted as refused.");

static PyObject *Queue_try_put(Queue *self, PyObject *item)
{
    if (!ext_queue_is_usable(self))
        return NULL;
    PyObject *none = put(self, item, EXT_PROBE_NS);
    if (!none && ext_queue_blocks(self) && PyErr_ExceptionMatches(self->state->full)) {
        PyErr_Clear();
        Py_RETURN_FALSE;
    }
    Py_XDECREF(none);
    return none ? Py_NewRef(Py_True) : NULL;
}

PyDoc_STRVAR(measure_doc,
             "_measure($self, item, /)\n--\n\n"
             "What has to be reserved for the item, in bytes, and with which governor.");

static PyObject *Queue_measure(Queue *self, PyObject *item)
{
    uint64_t cost;
    if (!ext_queue_is_usable(self) || ext_queue_measure(self, item, &cost) < 0)
        return NULL;
    return Py_BuildValue("KO", (unsigned long long)reservation_for(cost),
                         self->memory ? self->memory : Py_None);
}

PyDoc_STRVAR(put_nowait_doc, "put_nowait($self, item, /)\n--\n\n"
                             "The same as put(item, block=False).");

static PyObject *Queue_put_nowait(Queue *self, PyObject *item)
{
    return ext_queue_is_usable(self) ? put(self, item, 0) : NULL;
}

/* Items on their way in: held, measured, in the order of the source. */
#define CHUNK 64

typedef struct chunk {
    void *items[CHUNK];
    uint64_t costs[CHUNK];
    size_t n;
} chunk;

/* Where put_many takes from: a list or tuple by chunks, any other iterable one by one, so that
 * nothing is taken out of an iterator that is not offered to the queue at once. */
typedef struct source {
    PyObject *iterator;
    size_t chunk_size;
} source;

/* What fill returns; the last two with an exception, behind what the chunk holds. */
enum { FILL_MORE = 1, FILL_END = 0, FILL_RAISED = -1, FILL_NO_MEMORY = -2 };

static int fill(Queue *self, source *from, chunk *into)
{
    into->n = 0;
    while (into->n < from->chunk_size) {
        PyObject *item = PyIter_Next(from->iterator);
        if (!item)
            return PyErr_Occurred() ? FILL_RAISED : FILL_END;
        size_t slot;
        int rc = ext_queue_measure(self, item, &into->costs[into->n]) < 0 ? FILL_RAISED
                 : ext_queue_hold(self, item, &slot) < 0                  ? FILL_NO_MEMORY
                                                                          : FILL_MORE;
        Py_DECREF(item);
        if (rc < 0)
            return rc;
        into->items[into->n++] = ext_to_item(slot);
    }
    return FILL_MORE;
}

/* Puts a chunk as far as it goes: returns how many, and why no more (0: all). */
static size_t put_chunk(Queue *self, const chunk *c, int64_t timeout_ns, weir_time *deadline,
                        int *ret_error)
{
    size_t done = 0;
    int rc = 0;
    while (done < c->n) {
        if (!self->spill) {
            rc = weir_queue_put(self->queue, c->items[done], c->costs[done],
                                ext_first_try(timeout_ns));
            if (rc >= 0) {
                done++;
                continue;
            }
            if (!ext_queue_waits_for_room(self, rc, timeout_ns))
                break;
        }
        if (*deadline == WEIR_POLL && timeout_ns != 0)
            *deadline = ext_deadline(timeout_ns);
        queue_wait wait;
        begin_wait(self, &wait, &self->put_gate);
        int64_t put = weir_queue_put_many(self->queue, c->items + done, c->costs + done,
                                          c->n - done, *deadline);
        end_wait(self, &wait);
        rc = put < 0 ? (int)put : 0;
        done += put < 0 ? 0 : (size_t)put;
        if (put < 0 || PyErr_Occurred())
            break;
    }
    *ret_error = rc < 0 ? rc : 0;
    return done;
}

static PyObject *put_many(Queue *self, source *from, int64_t timeout_ns)
{
    weir_time deadline = WEIR_POLL; /* not known before the first wait */
    size_t total = 0;
    chunk c;
    for (int more = FILL_MORE; more == FILL_MORE;) {
        more = fill(self, from, &c);
        PyObject *type = NULL, *value = NULL, *traceback = NULL;
        if (more < 0)
            PyErr_Fetch(&type, &value, &traceback);
        int error;
        size_t done = put_chunk(self, &c, timeout_ns, &deadline, &error);
        total += done;
        for (size_t i = done; i < c.n; i++)
            ext_queue_take_back(self, ext_to_slot(c.items[i]));
        bool is_told_by_count = more == FILL_NO_MEMORY && total > 0;
        if (more < 0 && !is_told_by_count && !PyErr_Occurred())
            PyErr_Restore(type, value, traceback);
        else
            Py_XDECREF(type), Py_XDECREF(value), Py_XDECREF(traceback);
        if (PyErr_Occurred())
            return NULL;
        if (error && total == 0)
            return ext_queue_raise_put(self, error, c.costs[done]);
        if (error)
            break;
    }
    return PyLong_FromSize_t(total);
}

/* One by one: each reserves its own memory when its turn comes. */
static PyObject *put_many_governed(Queue *self, PyObject *iterator, int64_t timeout_ns)
{
    weir_time deadline = WEIR_POLL;
    size_t total = 0;
    uint64_t cost = 0;
    int rc = WEIR_OK;
    for (PyObject *item; rc >= 0 && (item = PyIter_Next(iterator));) {
        size_t slot;
        bool is_measured = ext_queue_measure(self, item, &cost) == 0;
        bool is_held = is_measured && ext_queue_hold(self, item, &slot) == 0;
        Py_DECREF(item);
        if (is_measured && !is_held && total > 0) {
            PyErr_Clear(); /* the count tells */
            break;
        }
        if (!is_held)
            return NULL;
        rc = put_governed(self, slot, cost, timeout_ns, &deadline);
        total += rc >= 0;
    }
    if (PyErr_Occurred())
        return NULL;
    return rc < 0 && total == 0 ? ext_queue_raise_put(self, rc, cost) : PyLong_FromSize_t(total);
}

PyDoc_STRVAR(
    put_many_doc,
    "put_many($self, iterable, timeout=None)\n--\n\n"
    "Put the items of an iterable, in order, each as put() would; return how many.\n\n"
    "Fewer than there were: the `timeout` (seconds, for all of them together) has passed, the queue\n"
    "was shut down, or the next item can never fit.  Raises what put() raises only if not even the\n"
    "first item went in.  A list or tuple can be continued at the returned index; from any other\n"
    "iterable one item more than returned has been taken then, and is lost to it.  An exception of\n"
    "the iterable comes after the items before it have been put.");

static PyObject *Queue_put_many(Queue *self, PyObject *const *args, Py_ssize_t n_args,
                                PyObject *kwnames)
{
    static const char *const names[] = {"iterable", "timeout", NULL};
    PyObject *given[2];
    int64_t timeout_ns;
    if (ext_parse_args("put_many", names, 2, 1, args, n_args, kwnames, given) < 0 ||
        ext_parse_timeout(given[1], "timeout", &timeout_ns) < 0 || !ext_queue_is_usable(self))
        return NULL;
    bool continues = PyList_Check(given[0]) || PyTuple_Check(given[0]);
    source from = {PyObject_GetIter(given[0]), continues ? CHUNK : 1};
    if (!from.iterator)
        return NULL;
    PyObject *result = self->governor ? put_many_governed(self, from.iterator, timeout_ns)
                                      : put_many(self, &from, timeout_ns);
    Py_DECREF(from.iterator);
    return result;
}

/* ---- get ------------------------------------------------------------------------------------ */

PyObject *ext_queue_raise_get(Queue *self, int rc)
{
    if (rc == WEIR_ETIMEDOUT)
        rc = WEIR_EEMPTY;
    if (rc == WEIR_ECLOSED) {
        PyErr_SetNone(self->state->shut_down ? self->state->shut_down : PyExc_RuntimeError);
        return NULL;
    }
    return ext_raise(self->state, rc);
}

/* The item, or NULL with nothing set and the reason in *ret_error. */
static PyObject *get_numbered(Queue *self, int64_t timeout_ns, uint64_t *ret_seq, int *ret_error)
{
    void *item;
    int rc = self->spill ? WEIR_EEMPTY : weir_queue_get(self->queue, &item, WEIR_POLL);
    if (rc == WEIR_EEMPTY && (timeout_ns > 0 || self->spill)) {
        weir_time deadline = timeout_ns > 0 ? ext_deadline(timeout_ns) : WEIR_POLL;
        queue_wait wait;
        begin_wait(self, &wait, &self->get_gate);
        rc = ret_seq ? weir_queue_get_seq(self->queue, &item, NULL, ret_seq, deadline)
                     : weir_queue_get(self->queue, &item, deadline);
        end_wait(self, &wait);
        if (rc >= 0 && PyErr_Occurred())
            ext_postpone_exception();
    }
    if (rc < 0) {
        *ret_error = rc;
        return NULL;
    }
    return ext_queue_let_go(self, ext_to_slot(item));
}

static PyObject *get(Queue *self, int64_t timeout_ns, int *ret_error)
{
    return get_numbered(self, timeout_ns, NULL, ret_error);
}

PyDoc_STRVAR(
    get_doc,
    "get($self, block=True, timeout=None)\n--\n\n"
    "Remove and return the oldest item.\n\n"
    "Waits for one, in line behind those who came earlier, for up to `timeout` seconds (None: as\n"
    "long as it takes) or not at all (block=False).  The item is the caller's.\n\n"
    "Raises queue.Empty (none there, or not in time), weir.ShutDown (shut down and empty),\n"
    "ValueError (negative timeout).");

static PyObject *get_or_raise(Queue *self, int64_t timeout_ns)
{
    if (!ext_queue_is_usable(self))
        return NULL;
    int error = WEIR_OK;
    PyObject *item = get(self, timeout_ns, &error);
    return item ? item : ext_queue_raise_get(self, error);
}

static PyObject *Queue_get(Queue *self, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    static const char *const names[] = {"block", "timeout", NULL};
    PyObject *given[2];
    int64_t timeout_ns;
    if (n_args == 0 && !kwnames) /* as almost always */
        return get_or_raise(self, EXT_FOREVER_NS);
    if (ext_parse_args("get", names, 2, 0, args, n_args, kwnames, given) < 0 ||
        ext_parse_block(given[0], given[1], &timeout_ns) < 0)
        return NULL;
    return get_or_raise(self, timeout_ns);
}

PyDoc_STRVAR(get_nowait_doc, "get_nowait($self, /)\n--\n\n"
                             "The same as get(block=False).");

static PyObject *Queue_get_nowait(Queue *self, PyObject *Py_UNUSED(ignored))
{
    return get_or_raise(self, 0);
}

PyDoc_STRVAR(
    get_ack_doc,
    "get_ack($self, block=True, timeout=None)\n--\n\n"
    "As get(), but a durable queue keeps the item on disk: return it with a function to call when it\n"
    "is dealt with.\n\n"
    "`item, ack = queue.get_ack()`.  Until `ack()` was called, by any thread, in any order, a restart\n"
    "delivers the item again.  Calling it twice is fine; where the queue is not durable it does\n"
    "nothing.  (Everything else that gets items acknowledges them at once.)  Raises what get() raises.");

/* ack() of get_ack(). */
static PyObject *make_ack(Queue *self, uint64_t seq)
{
    PyObject *partial = ext_import("functools", "partial");
    PyObject *method = partial ? PyObject_GetAttrString((PyObject *)self, "_ack") : NULL;
    PyObject *ack =
        method ? PyObject_CallFunction(partial, "OK", method, (unsigned long long)seq) : NULL;
    Py_XDECREF(partial);
    Py_XDECREF(method);
    return ack;
}

static PyObject *Queue_get_ack(Queue *self, PyObject *const *args, Py_ssize_t n_args,
                               PyObject *kwnames)
{
    static const char *const names[] = {"block", "timeout", NULL};
    PyObject *given[2];
    int64_t timeout_ns;
    if (ext_parse_args("get_ack", names, 2, 0, args, n_args, kwnames, given) < 0 ||
        ext_parse_block(given[0], given[1], &timeout_ns) < 0 || !ext_queue_is_usable(self))
        return NULL;
    uint64_t seq = 0;
    int error = WEIR_OK;
    PyObject *item = get_numbered(self, timeout_ns, self->spill ? &seq : NULL, &error);
    if (!item)
        return ext_queue_raise_get(self, error);
    PyObject *ack = make_ack(self, seq);
    PyObject *pair = ack ? PyTuple_Pack(2, item, ack) : NULL;
    Py_XDECREF(ack);
    Py_DECREF(item);
    return pair;
}

PyDoc_STRVAR(ack_doc, "_ack($self, number, /)\n--\n\n"
                      "An item that get_ack() returned is dealt with.");

static PyObject *Queue_ack(Queue *self, PyObject *number)
{
    unsigned long long seq = PyLong_AsUnsignedLongLong(number);
    if ((seq == (unsigned long long)-1 && PyErr_Occurred()) || !ext_queue_is_usable(self))
        return NULL;
    queue_wait wait; /* a file may go */
    begin_wait(self, &wait, NULL);
    weir_queue_ack(self->queue, seq);
    end_wait(self, &wait);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

/* Fills items[] with up to max; how many, or an error. */
static int64_t get_many(Queue *self, void **items, size_t max, int64_t timeout_ns,
                        int64_t linger_ns)
{
    int64_t n = WEIR_EEMPTY;
    if (linger_ns == 0 && !self->spill) {
        n = weir_queue_get_many(self->queue, items, NULL, max, WEIR_POLL, 0);
        if (n != WEIR_EEMPTY || timeout_ns == 0)
            return n;
    }
    weir_time deadline = timeout_ns > 0 ? ext_deadline(timeout_ns) : WEIR_POLL;
    queue_wait wait;
    begin_wait(self, &wait, &self->get_gate);
    n = weir_queue_get_many(self->queue, items, NULL, max, deadline, linger_ns);
    end_wait(self, &wait);
    if (n >= 0 && PyErr_Occurred())
        ext_postpone_exception();
    return n;
}

/* Of many slots nobody pays for making them NULL: the list has room for them, and holds none. */
static PyObject *new_list_with_room(size_t max)
{
#ifdef Py_GIL_DISABLED
    return PyList_New((Py_ssize_t)max); /* whose room has a head of its own */
#else
    PyListObject *list = (PyListObject *)PyList_New(0);
    PyObject **room = list ? PyMem_New(PyObject *, max) : NULL;
    if (!room) {
        Py_XDECREF(list);
        return PyErr_NoMemory();
    }
    list->ob_item = room;
    list->allocated = (Py_ssize_t)max;
    return (PyObject *)list;
#endif
}

/* Out of sight of the collector, and so of everybody, as long as there is nothing in it. */
PyObject *ext_queue_new_list(size_t max)
{
    PyObject *list = max > CHUNK ? new_list_with_room(max) : PyList_New((Py_ssize_t)max);
    if (list)
        PyObject_GC_UnTrack(list);
    return list;
}

static PyObject **slots_of(PyObject *list)
{
    return ((PyListObject *)list)->ob_item;
}

int64_t ext_queue_fill_list(Queue *self, PyObject **list, ext_queue_take_fn *take, void *ctx)
{
    PyObject *room = *list, **slots = slots_of(room);
    Py_ssize_t max = ((PyListObject *)room)->allocated;
    int64_t n = take(self, (void **)slots, (size_t)max, ctx);
    for (int64_t i = 0; i < n; i++)
        slots[i] = ext_queue_let_go(self, ext_to_slot((void *)slots[i]));
    PyObject *fitting = n > 0 && n < max && max > CHUNK ? PyList_New((Py_ssize_t)n) : NULL;
    if (fitting) { /* a list of 65,536 that holds three would keep its memory */
        memcpy(slots_of(fitting), slots, (size_t)n * sizeof *slots);
        memset(slots, 0, (size_t)n * sizeof *slots);
        Py_SETREF(*list, fitting);
    } else if (n > 0) {
        PyErr_Clear(); /* of no memory: then this one */
        Py_SET_SIZE(room, (Py_ssize_t)n);
        PyObject_GC_Track(room);
    } else {
        Py_CLEAR(*list);
    }
    return n;
}

typedef struct patience {
    int64_t timeout_ns, linger_ns;
} patience;

static int64_t take_many(Queue *self, void **items, size_t max, void *ctx)
{
    const patience *p = ctx;
    return get_many(self, items, max, p->timeout_ns, p->linger_ns);
}

static PyObject *get_list(Queue *self, size_t max, int64_t timeout_ns, int64_t linger_ns)
{
    PyObject *list = ext_queue_new_list(max);
    if (!list)
        return NULL;
    int64_t n = ext_queue_fill_list(self, &list, take_many, &(patience){timeout_ns, linger_ns});
    return n < 0 ? ext_queue_raise_get(self, (int)n) : list;
}

int ext_queue_parse_batch(PyObject *max, PyObject *linger, size_t *ret_max, int64_t *ret_linger_ns)
{
    Py_ssize_t n = PyNumber_AsSsize_t(max, NULL);
    if (n == -1 && PyErr_Occurred())
        return -1;
    if (n <= 0) {
        PyErr_Format(PyExc_ValueError, "'max' must be > 0, not %zd", n);
        return -1;
    }
    *ret_max = n < EXT_BATCH_MAX ? (size_t)n : EXT_BATCH_MAX;
    *ret_linger_ns = 0;
    return linger ? ext_parse_timeout(linger, "linger", ret_linger_ns) : 0;
}

PyDoc_STRVAR(
    get_many_doc,
    "get_many($self, max, *, timeout=None, linger=0.0)\n--\n\n"
    "Remove and return up to `max` items, oldest first, as a list of at least one.\n\n"
    "Waits up to `timeout` seconds for the first item (None: as long as it takes); then for more,\n"
    "until there are `max` or `linger` seconds have passed since the first.  Never more than 65,536\n"
    "at once.\n\n"
    "Raises queue.Empty, weir.ShutDown (shut down and empty), ValueError.");

static PyObject *Queue_get_many(Queue *self, PyObject *const *args, Py_ssize_t n_args,
                                PyObject *kwnames)
{
    static const char *const names[] = {"max", "timeout", "linger", NULL};
    PyObject *given[3];
    int64_t timeout_ns, linger_ns;
    size_t max;
    if (ext_parse_args("get_many", names, 1, 1, args, n_args, kwnames, given) < 0 ||
        ext_queue_parse_batch(given[0], given[2], &max, &linger_ns) < 0 ||
        ext_parse_timeout(given[1], "timeout", &timeout_ns) < 0 || !ext_queue_is_usable(self))
        return NULL;
    return get_list(self, max, timeout_ns, linger_ns);
}

/* ---- done ----------------------------------------------------------------------------------- */

PyDoc_STRVAR(task_done_doc, "task_done($self, /)\n--\n\n"
                            "Say that an item which get() returned is dealt with; see join().\n\n"
                            "Raises ValueError when called more often than items were put.");

static PyObject *Queue_task_done(Queue *self, PyObject *Py_UNUSED(ignored))
{
    if (!ext_queue_is_usable(self))
        return NULL;
    if (!ext_queue_finish(self, 1)) {
        PyErr_SetString(PyExc_ValueError, "task_done() called too many times");
        return NULL;
    }
    Py_RETURN_NONE;
}

static int make_bell(weir_queue **ret_bell)
{
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = 1;
    opts.on_drop = weir_drop_ignore;
    opts.name = "";
    return weir_queue_create(ret_bell, &opts);
}

/* Joins those who wait; false: nothing is unfinished. */
static bool link_joiner(Queue *self, joiner *j)
{
    EXT_LOCK(&self->lock);
    bool unfinished = self->unfinished > 0;
    if (unfinished) {
        j->next = self->joiners;
        self->joiners = j;
    }
    EXT_UNLOCK(&self->lock);
    return unfinished;
}

static void unlink_joiner(Queue *self, joiner *j)
{
    EXT_LOCK(&self->lock);
    joiner **link = &self->joiners;
    while (*link && *link != j)
        link = &(*link)->next;
    if (*link)
        *link = j->next;
    EXT_UNLOCK(&self->lock);
}

static int wait_joined(Queue *self, joiner *j, int64_t timeout_ns)
{
    if (!link_joiner(self, j))
        return WEIR_ECLOSED;
    weir_time deadline = ext_deadline(timeout_ns);
    void *never;
    queue_wait wait;
    begin_wait(self, &wait, NULL);
    int rc = weir_queue_get(j->bell, &never, deadline);
    end_wait(self, &wait);
    unlink_joiner(self, j);
    return rc == WEIR_EEMPTY ? WEIR_ETIMEDOUT : rc;
}

PyDoc_STRVAR(join_doc,
             "join($self, timeout=None)\n--\n\n"
             "Wait until every item put so far is dealt with: task_done() called, or dropped.\n\n"
             "Raises TimeoutError after `timeout` seconds (None: never).");

static PyObject *Queue_join(Queue *self, PyObject *const *args, Py_ssize_t n_args,
                            PyObject *kwnames)
{
    static const char *const names[] = {"timeout", NULL};
    PyObject *given[1];
    int64_t timeout_ns;
    if (ext_parse_args("join", names, 1, 0, args, n_args, kwnames, given) < 0 ||
        ext_parse_timeout(given[0], "timeout", &timeout_ns) < 0 || !ext_queue_is_usable(self))
        return NULL;
    joiner *j = PyMem_Malloc(sizeof *j);
    if (!j)
        return PyErr_NoMemory();
    int rc = make_bell(&j->bell);
    if (rc == WEIR_OK) {
        rc = wait_joined(self, j, timeout_ns);
        weir_queue_destroy(j->bell);
    }
    PyMem_Free(j);
    if (rc != WEIR_ECLOSED)
        return ext_raise(self->state, rc);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(drain_doc, "drain($self, timeout=None)\n--\n\n"
                        "Wait until nothing is inside.\n\n"
                        "Raises TimeoutError after `timeout` seconds (None: never).");

static PyObject *Queue_drain(Queue *self, PyObject *const *args, Py_ssize_t n_args,
                             PyObject *kwnames)
{
    static const char *const names[] = {"timeout", NULL};
    PyObject *given[1];
    int64_t timeout_ns;
    if (ext_parse_args("drain", names, 1, 0, args, n_args, kwnames, given) < 0 ||
        ext_parse_timeout(given[0], "timeout", &timeout_ns) < 0 || !ext_queue_is_usable(self))
        return NULL;
    int rc = weir_queue_drain(self->queue, WEIR_POLL);
    if (rc == WEIR_ETIMEDOUT && timeout_ns > 0) {
        weir_time deadline = ext_deadline(timeout_ns);
        queue_wait wait;
        begin_wait(self, &wait, NULL);
        rc = weir_queue_drain(self->queue, deadline);
        end_wait(self, &wait);
    }
    if (rc < 0)
        return ext_raise(self->state, rc);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    discard_doc,
    "discard($self, /)\n--\n\n"
    "Drop everything inside (reason \"discarded\"); return how many items.  The queue stays open.");

static size_t discard(Queue *self)
{
    if (!self->spill)
        return weir_queue_discard(self->queue);
    queue_wait wait; /* there may be much to read */
    begin_wait(self, &wait, NULL);
    size_t n = weir_queue_discard(self->queue);
    end_wait(self, &wait);
    return n;
}

static PyObject *Queue_discard(Queue *self, PyObject *Py_UNUSED(ignored))
{
    if (!ext_queue_is_usable(self))
        return NULL;
    size_t n = discard(self);
    return PyErr_Occurred() ? NULL : PyLong_FromSize_t(n);
}

PyDoc_STRVAR(
    shutdown_doc,
    "shutdown($self, immediate=False)\n--\n\n"
    "Refuse items from now on: put() raises weir.ShutDown, also where it waits.\n\n"
    "What is inside can still be taken; then get() raises weir.ShutDown and iteration ends.\n"
    "immediate=True drops it instead (reason \"discarded\").");

static PyObject *Queue_shutdown(Queue *self, PyObject *const *args, Py_ssize_t n_args,
                                PyObject *kwnames)
{
    static const char *const names[] = {"immediate", NULL};
    PyObject *given[1];
    if (ext_parse_args("shutdown", names, 1, 0, args, n_args, kwnames, given) < 0 ||
        !ext_queue_is_usable(self))
        return NULL;
    int immediate = given[0] ? PyObject_IsTrue(given[0]) : 0;
    if (immediate < 0)
        return NULL;
    weir_queue_close(self->queue);
    atomic_store_explicit(&self->closing, true, memory_order_relaxed);
    if (immediate)
        discard(self);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

/* ---- looking -------------------------------------------------------------------------------- */

static weir_queue_snapshot look(Queue *self)
{
    weir_queue_snapshot now = WEIR_QUEUE_SNAPSHOT_INIT;
    weir_queue_get_snapshot(self->queue, &now);
    return now;
}

PyDoc_STRVAR(qsize_doc, "qsize($self, /)\n--\n\n"
                        "How many items are inside; a hint by the time it returns.");

static PyObject *Queue_qsize(Queue *self, PyObject *Py_UNUSED(ignored))
{
    return ext_queue_is_usable(self) ? PyLong_FromSize_t(weir_queue_depth(self->queue)) : NULL;
}

PyDoc_STRVAR(empty_doc, "empty($self, /)\n--\n\n"
                        "Whether nothing is inside; a hint by the time it returns.");

static PyObject *Queue_empty(Queue *self, PyObject *Py_UNUSED(ignored))
{
    return ext_queue_is_usable(self) ? PyBool_FromLong(weir_queue_depth(self->queue) == 0) : NULL;
}

PyDoc_STRVAR(full_doc, "full($self, /)\n--\n\n"
                       "Whether maxsize or max_bytes is reached; a hint by the time it returns.");

static PyObject *Queue_full(Queue *self, PyObject *Py_UNUSED(ignored))
{
    if (!ext_queue_is_usable(self))
        return NULL;
    weir_queue_snapshot now = look(self);
    return PyBool_FromLong(now.depth >= now.capacity || (now.max_cost && now.cost >= now.max_cost));
}

PyObject *ext_by_reason(const uint64_t counts[WEIR_DROP_REASONS])
{
    PyObject *dict = PyDict_New();
    for (int i = 0; dict && i < WEIR_DROP_REASONS; i++) {
        PyObject *count = PyLong_FromUnsignedLongLong(counts[i]);
        if (!count || PyDict_SetItemString(dict, weir_drop_reason_name(i), count) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(count);
    }
    return dict;
}

static PyObject *size_or_none(uint64_t size, uint64_t none)
{
    return size == none ? Py_NewRef(Py_None) : PyLong_FromUnsignedLongLong(size);
}

PyDoc_STRVAR(stats_doc, "stats($self, /)\n--\n\n"
                        "Everything the queue counts, at one instant: a weir.QueueStats.");

static PyObject *Queue_stats(Queue *self, PyObject *Py_UNUSED(ignored))
{
    if (!ext_queue_is_usable(self))
        return NULL;
    EXT_LOCK(&self->lock);
    size_t unfinished = self->unfinished;
    EXT_UNLOCK(&self->lock);
    weir_queue_snapshot now = look(self);
    PyObject *fields = Py_BuildValue(
        "{sO sN sN sn sK sK sK sK sK sN sN sK sd sd sn sn sn sn sO sO}", "name",
        self->name ? self->name : Py_None, "maxsize", size_or_none(now.capacity, WEIR_UNBOUNDED),
        "max_bytes", size_or_none(now.max_cost, 0), "qsize", (Py_ssize_t)(now.depth + now.spilled),
        "bytes", (unsigned long long)(now.cost + now.spilled_cost), "accepted",
        (unsigned long long)now.accepted, "accepted_bytes", (unsigned long long)now.accepted_cost,
        "delivered", (unsigned long long)now.delivered, "delivered_bytes",
        (unsigned long long)now.delivered_cost, "dropped", ext_by_reason(now.dropped),
        "dropped_bytes", ext_by_reason(now.dropped_cost), "refused",
        (unsigned long long)now.refused, "put_blocked", (double)now.put_blocked_ns / 1e9,
        "get_blocked", (double)now.get_blocked_ns / 1e9, "putters_waiting",
        (Py_ssize_t)now.putters_waiting, "getters_waiting", (Py_ssize_t)now.getters_waiting,
        "peak_qsize", (Py_ssize_t)now.peak_depth, "unfinished_tasks", (Py_ssize_t)unfinished,
        "above_high", now.above_high ? Py_True : Py_False, "is_shutdown",
        now.closed ? Py_True : Py_False);
    if (fields && ext_queue_spill_stats(self, &now, fields) < 0)
        Py_CLEAR(fields);
    PyObject *none = fields ? PyTuple_New(0) : NULL;
    PyObject *type = none ? ext_import("weir._stats", "QueueStats") : NULL;
    PyObject *stats = type ? PyObject_Call(type, none, fields) : NULL;
    Py_XDECREF(type);
    Py_XDECREF(none);
    Py_XDECREF(fields);
    return stats;
}

PyDoc_STRVAR(
    item_fd_doc,
    "item_fd($self, /)\n--\n\n"
    "A file descriptor that polls readable exactly while get() would not wait.\n\n"
    "For select, poll, epoll and loop.add_reader.  It is the queue's: never read or close it.\n"
    "Raises OSError when out of descriptors.");

static PyObject *Queue_item_fd(Queue *self, PyObject *Py_UNUSED(ignored))
{
    if (!ext_queue_is_usable(self))
        return NULL;
    int fd = weir_queue_item_fd(self->queue);
    return fd < 0 ? ext_raise(self->state, fd) : PyLong_FromLong(fd);
}

PyDoc_STRVAR(
    room_fd_doc,
    "room_fd($self, /)\n--\n\n"
    "A file descriptor that polls readable exactly while put() of an empty item would not wait.\n\n"
    "For select, poll, epoll and loop.add_reader.  It is the queue's: never read or close it.\n"
    "Raises OSError when out of descriptors.");

static PyObject *Queue_room_fd(Queue *self, PyObject *Py_UNUSED(ignored))
{
    if (!ext_queue_is_usable(self))
        return NULL;
    int fd = weir_queue_room_fd(self->queue);
    return fd < 0 ? ext_raise(self->state, fd) : PyLong_FromLong(fd);
}

static PyObject *Queue_repr(Queue *self)
{
    const char *type = Py_TYPE(self)->tp_name;
    if (!self->queue)
        return PyUnicode_FromFormat("<%s, not initialised>", type);
    if (self->generation != ext_fork_generation())
        return PyUnicode_FromFormat("<%s of the parent process>", type);
    weir_queue_snapshot now = look(self);
    PyObject *maxsize = size_or_none(now.capacity, WEIR_UNBOUNDED);
    if (!maxsize)
        return NULL;
    char on_disk[48] = "";
    if (self->spill)
        PyOS_snprintf(on_disk, sizeof on_disk, ", %llu on disk", (unsigned long long)now.spilled);
    PyObject *repr = PyUnicode_FromFormat("<%s%s%V %zu of %S items%s%s>", type,
                                          self->name ? " " : "", self->name, "", now.depth, maxsize,
                                          on_disk, now.closed ? ", shut down" : "");
    Py_DECREF(maxsize);
    return repr;
}

static PyObject *Queue_reduce(Queue *self, PyObject *Py_UNUSED(ignored))
{
    (void)self;
    PyErr_SetString(PyExc_TypeError,
                    "a weir.Queue cannot be pickled or copied: it is shared by the threads of one "
                    "process (between processes use weir.SharedQueue or "
                    "weir.ProcessPoolExecutor)");
    return NULL;
}

/* ---- properties ----------------------------------------------------------------------------- */

/* None: *ret = none; an int > 0.  -1 with TypeError or ValueError. */
static int parse_bound(PyObject *value, const char *text, uint64_t none, uint64_t *ret)
{
    if (!value || value == Py_None) {
        *ret = none;
        return 0;
    }
    if (!PyBool_Check(value)) {
        PyObject *index = PyNumber_Index(value);
        if (!index)
            return -1;
        int overflow;
        long long n = PyLong_AsLongLongAndOverflow(index, &overflow);
        Py_DECREF(index);
        if (n == -1 && !overflow && PyErr_Occurred())
            return -1;
        if (n > 0) {
            *ret = (uint64_t)n;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, text, value);
    return -1;
}

static const char maxsize_text[] =
    "maxsize must be an int from 1 to 2**63 - 1, or None for a queue without that bound, not %R "
    "(0 means infinite to queue.Queue; weir wants an unbounded queue to say so)";
static const char max_bytes_text[] =
    "max_bytes must be an int from 1 to 2**63 - 1, or None for no bound on bytes, not %R";

static int parse_maxsize(PyObject *value, size_t *ret)
{
    uint64_t maxsize;
    if (parse_bound(value, maxsize_text, WEIR_UNBOUNDED, &maxsize) < 0)
        return -1;
    *ret = (size_t)maxsize;
    return 0;
}

/* NULL: keeps that bound. */
static int resize(Queue *self, const size_t *capacity, const uint64_t *max_cost)
{
    int rc;
    EXT_BEGIN_CRITICAL_SECTION(self); /* one resize at a time: neither loses the other's bound */
    EXT_LOCK(&self->lock);
    size_t new_capacity = capacity ? *capacity : self->capacity;
    uint64_t new_max_cost = max_cost ? *max_cost : self->max_cost;
    self->capacity = new_capacity;
    self->max_cost = new_max_cost;
    EXT_UNLOCK(&self->lock);
    rc = weir_queue_resize(self->queue, new_capacity, new_max_cost);
    EXT_END_CRITICAL_SECTION();
    if (rc >= 0)
        return PyErr_Occurred() ? -1 : 0;
    ext_raise(self->state, rc);
    return -1;
}

static PyObject *Queue_get_maxsize(Queue *self, void *Py_UNUSED(closure))
{
    return ext_queue_is_usable(self) ? size_or_none(look(self).capacity, WEIR_UNBOUNDED) : NULL;
}

static int Queue_set_maxsize(Queue *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (!value) {
        PyErr_SetString(PyExc_AttributeError, "maxsize cannot be deleted; None means unbounded");
        return -1;
    }
    size_t capacity;
    if (!ext_queue_is_usable(self) || parse_maxsize(value, &capacity) < 0)
        return -1;
    return resize(self, &capacity, NULL);
}

static PyObject *Queue_get_max_bytes(Queue *self, void *Py_UNUSED(closure))
{
    return ext_queue_is_usable(self) ? size_or_none(look(self).max_cost, 0) : NULL;
}

static int Queue_set_max_bytes(Queue *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (!value) {
        PyErr_SetString(PyExc_AttributeError, "max_bytes cannot be deleted; None means no bound");
        return -1;
    }
    uint64_t max_cost;
    if (!ext_queue_is_usable(self) || parse_bound(value, max_bytes_text, 0, &max_cost) < 0)
        return -1;
    if (!self->measures && max_cost) {
        PyErr_SetString(PyExc_ValueError,
                        "this queue was made without max_bytes and sizer, so what is inside was "
                        "not measured; make it with one of them to bound its bytes later");
        return -1;
    }
    return resize(self, NULL, &max_cost);
}

static PyObject *Queue_get_name(Queue *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->name ? self->name : Py_None);
}

static PyObject *Queue_get_is_shutdown(Queue *self, void *Py_UNUSED(closure))
{
    return ext_queue_is_usable(self) ? PyBool_FromLong(look(self).closed) : NULL;
}

static PyObject *Queue_get_unfinished(Queue *self, void *Py_UNUSED(closure))
{
    if (!ext_queue_is_usable(self))
        return NULL;
    EXT_LOCK(&self->lock);
    size_t unfinished = self->unfinished;
    EXT_UNLOCK(&self->lock);
    return PyLong_FromSize_t(unfinished);
}

/* ---- iteration ------------------------------------------------------------------------------ */

typedef struct QueueIterator {
    PyObject_HEAD Queue *queue; /* NULL: at its end */
} QueueIterator;

static PyObject *Queue_iter(Queue *self)
{
    if (!ext_queue_is_usable(self))
        return NULL;
    QueueIterator *iterator = PyObject_GC_New(QueueIterator, self->state->queue_iterator_type);
    if (!iterator)
        return NULL;
    iterator->queue = (Queue *)Py_NewRef(self);
    PyObject_GC_Track(iterator);
    return (PyObject *)iterator;
}

static PyObject *QueueIterator_next(QueueIterator *self)
{
    Queue *queue = self->queue;
    if (!ext_queue_is_usable(queue))
        return NULL;
    int error = WEIR_OK;
    PyObject *item = get(queue, EXT_FOREVER_NS, &error);
    if (item || error == WEIR_ECLOSED)
        return item; /* NULL and no exception: the end */
    return ext_queue_raise_get(queue, error);
}

static int QueueIterator_traverse(QueueIterator *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->queue);
    return 0;
}

static void QueueIterator_dealloc(QueueIterator *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->queue);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyType_Slot iterator_slots[] = {
    {Py_tp_dealloc, QueueIterator_dealloc},
    {Py_tp_traverse, QueueIterator_traverse},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, QueueIterator_next},
    {0, NULL},
};

static PyType_Spec iterator_spec = {
    .name = "weir._weir.QueueIterator",
    .basicsize = sizeof(QueueIterator),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = iterator_slots,
};

/* ---- beginning ------------------------------------------------------------------------------ */

int ext_parse_overflow(PyObject *value, bool may_spill, weir_overflow *ret)
{
    static const struct {
        const char *name;
        weir_overflow overflow;
    } table[] = {
        {"block", WEIR_OVERFLOW_BLOCK},
        {"fail", WEIR_OVERFLOW_FAIL},
        {"drop_newest", WEIR_OVERFLOW_DROP_NEWEST},
        {"drop_oldest", WEIR_OVERFLOW_DROP_OLDEST},
        {"sample", WEIR_OVERFLOW_SAMPLE},
        {"spill", WEIR_OVERFLOW_SPILL},
    };
    size_t n = sizeof table / sizeof *table - !may_spill;
    *ret = WEIR_OVERFLOW_BLOCK;
    if (!value)
        return 0;
    for (size_t i = 0; PyUnicode_Check(value) && i < n; i++) {
        if (PyUnicode_CompareWithASCIIString(value, table[i].name) == 0) {
            *ret = table[i].overflow;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError,
                 "overflow must be \"block\", \"fail\", \"drop_newest\", \"drop_oldest\"%s, not %R",
                 may_spill ? ", \"sample\" or \"spill\"" : " or \"sample\"", value);
    return -1;
}

const char *ext_shown_name(PyObject *name)
{
    const char *text = name && PyUnicode_Check(name) ? PyUnicode_AsUTF8(name) : NULL;
    if (!text)
        PyErr_Clear();
    return text;
}

int ext_parse_max_age(PyObject *value, int64_t *ret_ns)
{
    *ret_ns = 0;
    if (!value || value == Py_None)
        return 0;
    if (ext_parse_timeout(value, "max_age", ret_ns) < 0)
        return -1;
    if (*ret_ns == 0) {
        PyErr_SetString(PyExc_ValueError, "max_age must be > 0 seconds, or None for no bound");
        return -1;
    }
    if (*ret_ns == EXT_FOREVER_NS)
        *ret_ns = 0;
    return 0;
}

int ext_parse_sample(PyObject *value, uint32_t *ret)
{
    *ret = 0;
    if (!value)
        return 0;
    long n = PyLong_AsLong(value);
    if (n == -1 && PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_OverflowError))
        return -1;
    PyErr_Clear();
    if (n < 2 || n > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "sample must be an int >= 2 (keep 1 of so many), not %R",
                     value);
        return -1;
    }
    *ret = (uint32_t)n;
    return 0;
}

/* A new reference in *ret, or NULL for None. */
static int parse_callable(PyObject *value, const char *name, PyObject **ret)
{
    *ret = NULL;
    if (!value || value == Py_None)
        return 0;
    if (!PyCallable_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%s must be callable or None, not %R", name, value);
        return -1;
    }
    *ret = Py_NewRef(value);
    return 0;
}

static int parse_mark(PyObject *value, const char *text, uint64_t *ret)
{
    return parse_bound(value, text, 0, ret);
}

/* What __init__ was given; borrowed. */
typedef struct arguments {
    PyObject *maxsize, *max_bytes, *sizer, *memory, *max_age, *overflow, *on_drop, *sample;
    PyObject *high, *low, *high_bytes, *low_bytes, *on_high, *on_low, *name, *spill;
} arguments;

static int parse_options(Queue *self, const arguments *a, weir_queue_opts *opts)
{
    uint64_t high, low;
    if (parse_maxsize(a->maxsize, &opts->capacity) < 0 ||
        parse_bound(a->max_bytes, max_bytes_text, 0, &opts->max_cost) < 0 ||
        ext_parse_max_age(a->max_age, &opts->max_age_ns) < 0 ||
        ext_parse_overflow(a->overflow, true, &opts->overflow) < 0 ||
        ext_parse_sample(a->sample, &opts->sample_keep_one_of) < 0 ||
        parse_mark(a->high, "high must be an int > 0, or None, not %R", &high) < 0 ||
        parse_mark(a->low, "low must be an int > 0, or None, not %R", &low) < 0 ||
        parse_mark(a->high_bytes, "high_bytes must be an int > 0, or None, not %R",
                   &opts->high_cost) < 0 ||
        parse_mark(a->low_bytes, "low_bytes must be an int > 0, or None, not %R", &opts->low_cost) <
            0)
        return -1;
    opts->high_items = (size_t)high;
    opts->low_items = (size_t)low;
    if (a->name && a->name != Py_None && !PyUnicode_Check(a->name)) {
        PyErr_Format(PyExc_TypeError, "name must be a str or None, not %R", a->name);
        return -1;
    }
    if (parse_callable(a->sizer, "sizer", &self->sizer) < 0 ||
        parse_callable(a->on_drop, "on_drop", &self->on_drop) < 0 ||
        parse_callable(a->on_high, "on_high", &self->on_high) < 0 ||
        parse_callable(a->on_low, "on_low", &self->on_low) < 0)
        return -1;
    self->name = a->name && a->name != Py_None ? Py_NewRef(a->name) : NULL;
    if (ext_governor_parse(self->state, a->memory, &self->governor) < 0)
        return -1;
    self->memory = self->governor ? Py_NewRef(a->memory) : NULL;
    return 0;
}

static void forget_callbacks(Queue *self)
{
    Py_CLEAR(self->sizer);
    Py_CLEAR(self->on_drop);
    Py_CLEAR(self->on_high);
    Py_CLEAR(self->on_low);
    Py_CLEAR(self->name);
}

static void forget_memory(Queue *self)
{
    Py_CLEAR(self->memory);
    Py_CLEAR(self->governor);
}

static int create(Queue *self, const arguments *a)
{
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    if (parse_options(self, a, &opts) < 0)
        return -1;
    self->is_bare = PyObject_TypeCheck(self, self->state->stage_queue_type);
    self->measures = opts.max_cost || self->sizer || self->governor;
    self->overflow = opts.overflow;
    self->capacity = opts.capacity;
    self->max_cost = opts.max_cost;
    self->generation = ext_fork_generation();
    sem_init(&self->put_gate, 0, 1); /* nothing to free */
    sem_init(&self->get_gate, 0, 1);
    opts.on_drop = on_drop;
    opts.drop_ctx = self;
    opts.on_watermark = self->on_high || self->on_low ? on_watermark : NULL;
    opts.watermark_ctx = self;
    opts.name = ext_shown_name(self->name);
    if (ext_queue_spill_open(self, a->spill, &opts) < 0)
        return -1;
    int rc = weir_queue_create(&self->queue, &opts);
    if (rc == WEIR_OK)
        ext_queue_spill_begin(self);
    if (rc == WEIR_EINVAL)
        ext_raise_text(self->state, rc,
                       "the marks must be 0 < low < high < maxsize (and 0 < low_bytes < high_bytes "
                       "< max_bytes), and a queue without any bound has no default for high");
    else if (rc < 0)
        ext_raise(self->state, rc);
    return rc < 0 ? -1 : 0;
}

static int init(Queue *self, const arguments *a)
{
    if (self->queue) {
        PyErr_SetString(PyExc_RuntimeError, "weir.Queue.__init__() has been called already");
        return -1;
    }
    self->state = ext_state_of(Py_TYPE(self));
    if (!self->state)
        return -1;
    forget_callbacks(self); /* of an earlier __init__ that failed */
    forget_memory(self);
    if (create(self, a) == 0)
        return 0;
    ext_queue_spill_forget(self);
    forget_callbacks(self);
    forget_memory(self);
    return -1;
}

/* What a strategy (weir.strategies) says instead of a policy. */
typedef struct strategy {
    PyObject *self; /* NULL: none was given */
    PyObject *overflow, *max_age;
} strategy;

static void forget_strategy(strategy *s)
{
    Py_CLEAR(s->self);
    Py_CLEAR(s->overflow);
    Py_CLEAR(s->max_age);
}

/* -1 with an exception. */
static int read_strategy(PyObject *given, strategy *ret)
{
    *ret = (strategy){NULL, NULL, NULL};
    if (!given || given == Py_None || PyUnicode_Check(given))
        return 0;
    PyObject *type = ext_import("weir.strategies", "Strategy");
    int is_one = type ? PyObject_IsInstance(given, type) : -1;
    Py_XDECREF(type);
    if (is_one <= 0)
        return is_one; /* whatever it is: it will be refused */
    ret->self = Py_NewRef(given);
    ret->overflow = PyObject_GetAttrString(given, "overflow");
    ret->max_age = PyObject_GetAttrString(given, "max_age");
    if (ret->overflow && ret->max_age)
        return 0;
    forget_strategy(ret);
    return -1;
}

/* Its puts ask the strategy's keeper from now on.  Only Queue itself cannot change its class. */
static int keep_to(Queue *self, const strategy *s)
{
    PyObject *keep = ext_import("weir._keeper", "keep_queue");
    PyObject *done = keep ? PyObject_CallFunctionObjArgs(keep, self, s->self, NULL) : NULL;
    Py_XDECREF(keep);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static PyObject *Queue_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    strategy s = {NULL, NULL, NULL};
    module_state *state = ext_state_of(type);
    if (!state)
        return NULL;
    if (type == state->queue_type && kwargs &&
        read_strategy(PyDict_GetItemString(kwargs, "overflow"), &s) < 0)
        return NULL;
    if (!s.self)
        return PyType_GenericNew(type, args, kwargs);
    forget_strategy(&s);
    PyObject *guarded = ext_import("weir._keeper", "GuardedQueue");
    PyObject *self = guarded ? PyType_GenericNew((PyTypeObject *)guarded, args, kwargs) : NULL;
    Py_XDECREF(guarded);
    return self;
}

static int Queue_init(Queue *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"maxsize",    "max_bytes", "sizer",   "memory", "max_age",
                                        "overflow",   "on_drop",   "sample",  "high",   "low",
                                        "high_bytes", "low_bytes", "on_high", "on_low", "name",
                                        "spill",      NULL};
    arguments a = {0};
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "|O$OOOOOOOOOOOOOOO:Queue", (char **)names, &a.maxsize, &a.max_bytes,
            &a.sizer, &a.memory, &a.max_age, &a.overflow, &a.on_drop, &a.sample, &a.high, &a.low,
            &a.high_bytes, &a.low_bytes, &a.on_high, &a.on_low, &a.name, &a.spill))
        return -1;
    if (!a.maxsize) {
        PyErr_SetString(PyExc_TypeError, "Queue() needs maxsize: an int > 0, or None for a queue "
                                         "without that bound");
        return -1;
    }
    strategy s;
    if (read_strategy(a.overflow, &s) < 0)
        return -1;
    if (s.self) {
        a.overflow = s.overflow;
        if (!a.max_age)
            a.max_age = s.max_age;
    }
    int rc;
    EXT_BEGIN_CRITICAL_SECTION(self);
    rc = init(self, &a);
    EXT_END_CRITICAL_SECTION();
    if (rc == 0 && s.self)
        rc = keep_to(self, &s);
    forget_strategy(&s);
    return rc;
}

/* ---- end ------------------------------------------------------------------------------------ */

static int Queue_traverse(Queue *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->sizer);
    Py_VISIT(self->on_drop);
    Py_VISIT(self->on_high);
    Py_VISIT(self->on_low);
    Py_VISIT(self->memory);
    Py_VISIT(self->governor);
    Py_VISIT(self->spill_settings);
    Py_VISIT(self->dumps);
    Py_VISIT(self->loads);
    int left = ext_line_traverse(&self->line, visit, arg);
    if (left)
        return left;
    for (size_t i = 0; i < self->n_slots; i++)
        if (!IS_FREE(self->slots[i]))
            Py_VISIT((PyObject *)self->slots[i]);
    return 0;
}

/* Whether this process may touch the queue. */
static bool is_ours(Queue *self)
{
    return self->queue && self->generation == ext_fork_generation();
}

/* Nobody can get the items any more: on_drop has them, as long as the callbacks still work. */
static void Queue_finalize(Queue *self)
{
    if (!self->on_drop || !is_ours(self) || self->is_durable || weir_queue_depth(self->queue) == 0)
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    weir_queue_discard(self->queue);
    PyErr_Restore(type, value, traceback);
}

/* Not inside of libweir: an item may be a queue that holds a queue that holds... */
static void free_items(Queue *self)
{
    uintptr_t *slots = self->slots;
    uint64_t *reserved = self->reserved;
    size_t n_slots = self->n_slots;
    self->slots = NULL;
    self->reserved = NULL;
    self->n_slots = self->first_free = self->n_held = 0;
    for (size_t i = 0; i < n_slots; i++)
        if (reserved && reserved[i] > 0)
            ext_governor_release(self->governor, reserved[i]);
    for (size_t i = 0; i < n_slots; i++)
        if (!IS_FREE(slots[i]))
            Py_DECREF((PyObject *)slots[i]);
    PyMem_Free(slots);
    PyMem_Free(reserved);
}

static int Queue_clear(Queue *self)
{
    self->muted = true; /* on_drop had its turn in finalize */
    ext_line_clear(&self->line);
    if (self->waiting == 0) { /* else a daemon thread waits that has no interpreter left */
        if (is_ours(self) && !self->is_durable) {
            ext_queue_spill_clear(self);
            weir_queue_discard(self->queue);
        }
        free_items(self);
        forget_memory(self);
    }
    forget_callbacks(self);
    return 0;
}

static void free_queue(Queue *self)
{
    Queue_clear(self);
    if (self->waiting > 0)
        return;
    if (is_ours(self))
        weir_queue_destroy(self->queue);
    ext_queue_spill_forget(self);
}

static void Queue_dealloc(Queue *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, Queue_dealloc) /* queues in queues in queues */
        PyObject_GC_Track(self);
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0)
        goto end; /* on_drop kept the queue */
    PyObject_GC_UnTrack(self);
    if (self->weakrefs)
        PyObject_ClearWeakRefs((PyObject *)self);
    free_queue(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
end:;
    Py_TRASHCAN_END
}

PyDoc_STRVAR(
    queue_doc,
    "Queue(maxsize, *, max_bytes=None, sizer=None, memory=None, max_age=None, overflow='block', "
    "on_drop=None, sample=10, high=None, low=None, high_bytes=None, low_bytes=None, on_high=None, on_low=None, "
    "name=None, spill=None)\n--\n\n"
    "A bounded first-in first-out queue for the threads of one process.\n\n"
    "maxsize    the most items inside, > 0; None for a queue without that bound; can be changed later\n"
    "max_bytes  the most bytes inside, summed by `sizer`; can be changed later; None: no such bound\n"
    "sizer      sizer(item) -> int >= 0; by default the bytes of a bytes-like object, the characters of\n"
    "           a str, sys.getsizeof() of anything else (which does not follow references)\n"
    "memory     a weir.MemoryGovernor: what `sizer` says is reserved with it before the item is put, and\n"
    "           given back when the item leaves, got or dropped.  put() waits for memory as for room, in\n"
    "           the governor's line (those let in at once may swap places); where `overflow` does not wait,\n"
    "           no memory is no room (\"drop_oldest\" drops from the front until there is some, and the item\n"
    "           itself when nothing is left).  What was got is no longer reserved.  Who empties the queue\n"
    "           must not wait for memory of the same governor: it may be in this very queue.  Once the\n"
    "           governor is closed, items go in without it\n"
    "max_age    seconds; an item that is older when its turn comes is dropped; None: no such bound\n"
    "overflow   what put() does when an item does not fit: \"block\" (wait), \"fail\" (raise Full at\n"
    "           once), \"drop_newest\" (drop it), \"drop_oldest\" (drop from the front until it fits),\n"
    "           \"sample\" (above the high mark keep 1 of `sample` items, and drop the newest when full),\n"
    "           \"spill\" (write it to disk, see `spill`, and wait only when that is full);\n"
    "           or a strategy of weir.strategies, which also paces, tries again or breaks\n"
    "on_drop    on_drop(item, reason), called exactly once for each item that the queue took and no\n"
    "           consumer gets, by the thread whose call dropped it; reason is \"newest\", \"oldest\",\n"
    "           \"sampled\", \"expired\" or \"discarded\".  An exception in it goes to sys.unraisablehook.\n"
    "           (What was \"lost\" on a damaged disk is only counted)\n"
    "high, low  marks in items (high_bytes, low_bytes: in bytes): on_high() is called when the queue\n"
    "           rises above `high` (default 80 %), on_low() when it has fallen to `low` (default half of\n"
    "           high); strictly in turn\n"
    "name       for people who look at it\n"
    "spill      with overflow=\"spill\": a weir.Spill, which says where to, how much, and whether the queue\n"
    "           is durable.  maxsize and max_bytes then bound what is in memory\n\n"
    "`for item in queue` gets items until the queue is shut down and empty.  Waiting putters and getters\n"
    "are served in the order they came, and a put that does not wait never overtakes one that does.\n"
    "Differs from queue.Queue: maxsize has to be said, and 0 is not infinite; join() takes a timeout,\n"
    "and waits for items that are still being put, too.");

#define FAST(name) (PyCFunction)(void (*)(void)) Queue_##name, METH_FASTCALL | METH_KEYWORDS

#define ASYNC(name) (PyCFunction)(void (*)(void)) ext_queue_##name, METH_FASTCALL | METH_KEYWORDS

static PyMethodDef queue_methods[] = {
    {"put", FAST(put), put_doc},
    {"get", FAST(get), get_doc},
    {"get_ack", FAST(get_ack), get_ack_doc},
    {"_ack", (PyCFunction)Queue_ack, METH_O, ack_doc},
    {"put_nowait", (PyCFunction)Queue_put_nowait, METH_O, put_nowait_doc},
    {"get_nowait", (PyCFunction)Queue_get_nowait, METH_NOARGS, get_nowait_doc},
    {"put_many", FAST(put_many), put_many_doc},
    {"get_many", FAST(get_many), get_many_doc},
    {"qsize", (PyCFunction)Queue_qsize, METH_NOARGS, qsize_doc},
    {"empty", (PyCFunction)Queue_empty, METH_NOARGS, empty_doc},
    {"full", (PyCFunction)Queue_full, METH_NOARGS, full_doc},
    {"aput", ASYNC(aput), ext_queue_aput_doc},
    {"aget", ASYNC(aget), ext_queue_aget_doc},
    {"aput_many", ASYNC(aput_many), ext_queue_aput_many_doc},
    {"aget_many", ASYNC(aget_many), ext_queue_aget_many_doc},
    {"ajoin", ASYNC(ajoin), ext_queue_ajoin_doc},
    {"_try_put", (PyCFunction)Queue_try_put, METH_O, try_put_doc},
    {"_measure", (PyCFunction)Queue_measure, METH_O, measure_doc},
    {"_aput_reserved", (PyCFunction)(void (*)(void))ext_queue_aput_reserved, METH_FASTCALL,
     ext_queue_aput_reserved_doc},
    {"task_done", (PyCFunction)Queue_task_done, METH_NOARGS, task_done_doc},
    {"join", FAST(join), join_doc},
    {"drain", FAST(drain), drain_doc},
    {"discard", (PyCFunction)Queue_discard, METH_NOARGS, discard_doc},
    {"shutdown", FAST(shutdown), shutdown_doc},
    {"stats", (PyCFunction)Queue_stats, METH_NOARGS, stats_doc},
    {"item_fd", (PyCFunction)Queue_item_fd, METH_NOARGS, item_fd_doc},
    {"room_fd", (PyCFunction)Queue_room_fd, METH_NOARGS, room_fd_doc},
    {"__reduce__", (PyCFunction)Queue_reduce, METH_NOARGS, NULL},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "Queue[T]: a queue of T."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef queue_properties[] = {
    {"maxsize", (getter)Queue_get_maxsize, (setter)Queue_set_maxsize,
     "The most items inside; None: unbounded.  Set it to resize the queue while it is in use: items\n"
     "above a smaller bound stay until they are taken.",
     NULL},
    {"max_bytes", (getter)Queue_get_max_bytes, (setter)Queue_set_max_bytes,
     "The most bytes inside; None: no such bound.  Can be set if the queue measures its items.\n"
     "Waiting putters whose item can no longer fit raise weir.TooLarge.",
     NULL},
    {"name", (getter)Queue_get_name, NULL, "As given, or None.", NULL},
    {"is_shutdown", (getter)Queue_get_is_shutdown, NULL, "Whether shutdown() was called.", NULL},
    {"unfinished_tasks", (getter)Queue_get_unfinished, NULL, "What join() waits for.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef queue_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Queue, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_doc, (void *)queue_doc},
    {Py_tp_new, Queue_new},
    {Py_tp_init, Queue_init},
    {Py_tp_dealloc, Queue_dealloc},
    {Py_tp_finalize, Queue_finalize},
    {Py_tp_traverse, Queue_traverse},
    {Py_tp_clear, Queue_clear},
    {Py_tp_repr, Queue_repr},
    {Py_tp_iter, Queue_iter},
    {Py_am_aiter, PyObject_SelfIter},
    {Py_am_anext, ext_queue_anext},
    {Py_tp_methods, queue_methods},
    {Py_tp_getset, queue_properties},
    {Py_tp_members, queue_members},
    {0, NULL},
};

static PyType_Spec queue_spec = {
    .name = "weir.Queue",
    .basicsize = sizeof(Queue),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = queue_slots,
};

PyDoc_STRVAR(stage_queue_doc,
             "A weir.Queue in front of a stage of a pipeline, which holds bare references.");

/* leave_disk(): the stage has ended: its directory is free for the next pipeline. */
static PyObject *StageQueue_leave_disk(Queue *self, PyObject *Py_UNUSED(ignored))
{
    ext_queue_spill_leave(self);
    Py_RETURN_NONE;
}

static PyMethodDef stage_queue_methods[] = {
    {"leave_disk", (PyCFunction)StageQueue_leave_disk, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot stage_queue_slots[] = {
    {Py_tp_methods, stage_queue_methods}, {Py_tp_doc, (void *)stage_queue_doc},
    {Py_tp_dealloc, Queue_dealloc},       {Py_tp_traverse, Queue_traverse},
    {Py_tp_clear, Queue_clear},           {0, NULL},
};

static PyType_Spec stage_queue_spec = {
    .name = "weir._weir.StageQueue",
    .basicsize = sizeof(Queue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = stage_queue_slots,
};

static int add_stage_queue(PyObject *module, module_state *state)
{
    PyObject *base = (PyObject *)state->queue_type;
    PyObject *type = PyType_FromModuleAndSpec(module, &stage_queue_spec, base);
    state->stage_queue_type = (PyTypeObject *)type;
    return type ? PyModule_AddType(module, (PyTypeObject *)type) : -1;
}

int ext_queue_types_add(PyObject *module, module_state *state)
{
    if (ext_add_type(module, &queue_spec, &state->queue_type) < 0 ||
        add_stage_queue(module, state) < 0)
        return -1;
    state->queue_iterator_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &iterator_spec, NULL);
    return state->queue_iterator_type ? 0 : -1;
}
