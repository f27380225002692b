/* queue_async.c - the coroutines of weir.Queue: aput, aget, aget_many, ajoin, async for.
 *
 * Waiting:    in the lines of the queue's threads, as a guest (weir_queue_wait(3)): called when its turn
 *             comes, it puts or takes in its own loop, in the same step in which it returns.  So one that
 *             is cancelled, whenever that happens, has neither put nor taken anything.
 * Ownership:  an item on its way in is held by the queue from the beginning, so that join() waits for
 *             it; its slot's number is in the coroutine's data, then in its place's, and taken back
 *             by who finds it there in the end.
 */
#include "queue.h"

enum { SLOT, COST, RESERVED };    /* data of those who put: slot + 1, 0: none; bytes */
enum { ITERATES };                /* of aget, and `async for` */
enum { MAX, LINGER_NS, LINGERS }; /* of aget_many */

static Queue *queue_of(const ext_coro *coro)
{
    return (Queue *)coro->owner;
}

static Queue *place_queue(const ext_pending *place)
{
    return (Queue *)place->owner;
}

static void take_back(Queue *queue, uint64_t *data)
{
    size_t slot = (size_t)data[SLOT];
    data[SLOT] = 0;
    if (slot > 0)
        ext_queue_take_back(queue, slot - 1);
}

/* ---- putting -------------------------------------------------------------------------------- */

static int put_begin(ext_pending *place)
{
    return weir_queue_wait_room(place_queue(place)->queue, place->data[COST], &place->core);
}

static bool leave(ext_pending *place)
{
    return weir_queue_cancel(place_queue(place)->queue, &place->core);
}

static void give_turn_up(ext_pending *place)
{
    leave(place);
}

static PyObject *put_claim(ext_pending *place)
{
    Queue *queue = place_queue(place);
    size_t slot = (size_t)place->data[SLOT] - 1;
    place->data[SLOT] = 0; /* before: a consumer in another thread may be quicker than we */
    int rc = weir_queue_put_waited(queue->queue, ext_to_item(slot), &place->core);
    if (rc >= 0)
        Py_RETURN_NONE;
    place->data[SLOT] = slot + 1;
    return rc == WEIR_EFULL ? NULL : ext_queue_raise_put(queue, rc, place->data[COST]);
}

static PyObject *put_fail(ext_pending *place, int result)
{
    return ext_queue_raise_put(place_queue(place), result, place->data[COST]);
}

static void put_forget_place(ext_pending *place)
{
    take_back(place_queue(place), place->data);
}

static const ext_pending_kind put_place = {
    .begin = put_begin,
    .cancel = leave,
    .give_back = give_turn_up,
    .claim = put_claim,
    .fail = put_fail,
    .forget = put_forget_place,
};

static PyObject *aput_attempt(ext_coro *self)
{
    Queue *queue = queue_of(self);
    size_t slot;
    if (!ext_queue_is_usable(queue) ||
        ext_queue_measure(queue, self->argument, &self->data[COST]) < 0 ||
        ext_queue_hold(queue, self->argument, &slot) < 0)
        return NULL;
    if (self->data[RESERVED] > 0)
        ext_queue_note_reserved(queue, slot, self->data[RESERVED]);
    self->data[RESERVED] = 0;
    int rc = weir_queue_put(queue->queue, ext_to_item(slot), self->data[COST],
                            ext_first_try(self->timeout_ns));
    if (rc >= 0)
        Py_RETURN_NONE;
    self->data[SLOT] = slot + 1;
    if (ext_queue_waits_for_room(queue, rc, self->timeout_ns))
        return NULL;
    return ext_queue_raise_put(queue, rc, self->data[COST]);
}

static ext_pending *aput_begin(ext_coro *self)
{
    Queue *queue = queue_of(self);
    ext_pending *place =
        ext_pending_new(self->module, self->owner, &queue->line, &put_place, (PyObject *)self);
    if (!place)
        return NULL;
    place->data[SLOT] = self->data[SLOT];
    place->data[COST] = self->data[COST];
    self->data[SLOT] = 0;
    return (ext_pending *)ext_pending_begin(place);
}

static PyObject *aput_expire(ext_coro *self)
{
    weir_queue_overflow(queue_of(self)->queue, NULL, 0); /* takes nothing: the refusal is counted */
    return ext_raise(self->module, WEIR_EFULL);
}

static void aput_forget(ext_coro *self)
{
    Queue *queue = queue_of(self);
    if (self->data[RESERVED] > 0)
        ext_governor_release(queue->governor, self->data[RESERVED]);
    self->data[RESERVED] = 0;
    take_back(queue, self->data);
}

static bool has_more_room(ext_coro *self)
{
    Queue *queue = queue_of(self);
    if (queue->generation != ext_fork_generation())
        return true; /* a forked child must not touch it */
    EXT_LOCK(&queue->lock);
    size_t capacity = queue->capacity;
    EXT_UNLOCK(&queue->lock);
    return weir_queue_depth(queue->queue) + 1 < capacity;
}

static const ext_coro_kind aput_kind = {
    .name = "Queue.aput",
    .attempt = aput_attempt,
    .begin = aput_begin,
    .expire = aput_expire,
    .forget = aput_forget,
    .has_plenty = has_more_room,
};

/* A coroutine function of weir._aio, called with the queue and two more. */
static PyObject *in_python(const char *name, Queue *self, PyObject *first, PyObject *second)
{
    PyObject *function = ext_import("weir._aio", name);
    PyObject *coroutine = function ? PyObject_CallFunctionObjArgs(function, self, first,
                                                                  second ? second : Py_None, NULL)
                                   : NULL;
    Py_XDECREF(function);
    return coroutine;
}

const char ext_queue_aput_doc[] =
    "aput($self, item, timeout=None)\n--\n\n"
    "put() for coroutines, of any number of event loops: in the same line as threads.  One whose loop\n"
    "stands still for 100 ms when its turn comes is passed over, and has its turn when it comes.\n\n"
    "Does not suspend if there is room; else waits for up to `timeout` seconds (None: as long as it\n"
    "takes).  Raises what put() raises.  One that is cancelled has not put its item.";

PyObject *ext_queue_aput(Queue *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    static const char *const names[] = {"item", "timeout", NULL};
    PyObject *given[2] = {n == 1 ? args[0] : NULL, NULL};
    int64_t timeout_ns = EXT_FOREVER_NS;
    if ((n != 1 || kwnames) && (ext_parse_args("aput", names, 2, 1, args, n, kwnames, given) < 0 ||
                                ext_parse_timeout(given[1], "timeout", &timeout_ns) < 0))
        return NULL;
    if (!ext_queue_is_usable(self))
        return NULL;
    if (self->governor)
        return in_python("put_governed", self, given[0], given[1]);
    return (PyObject *)ext_coro_new(self->state, &aput_kind, (PyObject *)self, given[0],
                                    timeout_ns);
}

const char ext_queue_aput_reserved_doc[] =
    "_aput_reserved($self, item, reservation, timeout, /)\n--\n\n"
    "aput() of an item whose memory is reserved; the queue takes the reservation over.";

PyObject *ext_queue_aput_reserved(Queue *self, PyObject *const *args, Py_ssize_t n)
{
    int64_t timeout_ns;
    uint64_t bytes = 0;
    if (n != 3) {
        PyErr_SetString(PyExc_TypeError, "_aput_reserved() takes item, reservation and timeout");
        return NULL;
    }
    if (ext_parse_timeout(args[2], "timeout", &timeout_ns) < 0 || !ext_queue_is_usable(self))
        return NULL;
    ext_coro *coro = ext_coro_new(self->state, &aput_kind, (PyObject *)self, args[0], timeout_ns);
    if (coro && args[1] != Py_None && ext_reservation_take(self->state, args[1], &bytes) < 0)
        Py_CLEAR(coro);
    if (coro)
        coro->data[RESERVED] = bytes;
    return (PyObject *)coro;
}

const char ext_queue_aput_many_doc[] =
    "aput_many($self, iterable, timeout=None)\n--\n\n"
    "put_many() for coroutines; the iterable may be an asynchronous one.  Return how many.\n\n"
    "Cancelled, it has put those items that came before the one it waits with.  Of an iterator, one\n"
    "item more than it put has been taken then, or when the time is over, and is lost to it.";

PyObject *ext_queue_aput_many(Queue *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    static const char *const names[] = {"iterable", "timeout", NULL};
    PyObject *given[2];
    int64_t timeout_ns;
    if (ext_parse_args("aput_many", names, 2, 1, args, n, kwnames, given) < 0 ||
        ext_parse_timeout(given[1], "timeout", &timeout_ns) < 0 || !ext_queue_is_usable(self))
        return NULL;
    return in_python("put_many", self, given[0], given[1]);
}

/* ---- getting -------------------------------------------------------------------------------- */

static int get_begin(ext_pending *place)
{
    return weir_queue_wait_items(place_queue(place)->queue, 1, &place->core);
}

/* Why there is no item; to `async for` a queue that is shut down and empty is at its end. */
static PyObject *raise_get(Queue *queue, int rc, bool iterates)
{
    if (!iterates || rc != WEIR_ECLOSED)
        return ext_queue_raise_get(queue, rc);
    PyErr_SetNone(PyExc_StopAsyncIteration);
    return NULL;
}

static PyObject *get_claim(ext_pending *place)
{
    Queue *queue = place_queue(place);
    void *item;
    int64_t n = weir_queue_get_waited(queue->queue, &item, NULL, 1, &place->core);
    if (n > 0)
        return ext_queue_let_go(queue, ext_to_slot(item));
    return n == WEIR_EEMPTY ? NULL : raise_get(queue, (int)n, place->data[ITERATES]);
}

static PyObject *get_fail(ext_pending *place, int result)
{
    return raise_get(place_queue(place), result, place->data[ITERATES]);
}

static const ext_pending_kind get_place = {
    .begin = get_begin,
    .cancel = leave,
    .give_back = give_turn_up,
    .claim = get_claim,
    .fail = get_fail,
};

static PyObject *aget_attempt(ext_coro *self)
{
    Queue *queue = queue_of(self);
    void *item;
    if (!ext_queue_is_usable(queue))
        return NULL;
    int rc = weir_queue_get(queue->queue, &item, WEIR_POLL);
    if (rc >= 0)
        return ext_queue_let_go(queue, ext_to_slot(item));
    return rc == WEIR_EEMPTY ? NULL : raise_get(queue, rc, self->data[ITERATES]);
}

static ext_pending *aget_begin(ext_coro *self)
{
    ext_pending *place = ext_pending_new(self->module, self->owner, &queue_of(self)->line,
                                         &get_place, (PyObject *)self);
    if (!place)
        return NULL;
    place->data[ITERATES] = self->data[ITERATES];
    return (ext_pending *)ext_pending_begin(place);
}

static PyObject *aget_expire(ext_coro *self)
{
    return ext_raise(self->module, WEIR_EEMPTY);
}

static bool has_more_items(ext_coro *self)
{
    Queue *queue = queue_of(self);
    return queue->generation != ext_fork_generation() || weir_queue_depth(queue->queue) > 1;
}

static const ext_coro_kind aget_kind = {
    .name = "Queue.aget",
    .attempt = aget_attempt,
    .begin = aget_begin,
    .expire = aget_expire,
    .has_plenty = has_more_items,
};

static const ext_coro_kind anext_kind = {
    .name = "Queue.__anext__",
    .attempt = aget_attempt,
    .begin = aget_begin,
    .has_plenty = has_more_items,
};

const char ext_queue_aget_doc[] =
    "aget($self, timeout=None)\n--\n\n"
    "get() for coroutines, of any number of event loops: in the same line as threads.  One whose loop\n"
    "stands still for 100 ms when its turn comes is passed over, and has its turn when it comes.  (An\n"
    "item is kept for it, not a certain one: a thread served behind it may have the older one.)\n\n"
    "Does not suspend if an item is there; else waits for up to `timeout` seconds (None: as long as\n"
    "it takes).  Raises what get() raises.  One that is cancelled has taken no item.";

PyObject *ext_queue_aget(Queue *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    static const char *const names[] = {"timeout", NULL};
    PyObject *given[1];
    int64_t timeout_ns = EXT_FOREVER_NS;
    if ((n > 0 || kwnames) && (ext_parse_args("aget", names, 1, 0, args, n, kwnames, given) < 0 ||
                               ext_parse_timeout(given[0], "timeout", &timeout_ns) < 0))
        return NULL;
    if (!ext_queue_is_usable(self))
        return NULL;
    return (PyObject *)ext_coro_new(self->state, &aget_kind, (PyObject *)self, NULL, timeout_ns);
}

PyObject *ext_queue_anext(Queue *self)
{
    if (!ext_queue_is_usable(self))
        return NULL;
    ext_coro *coro = ext_coro_new(self->state, &anext_kind, (PyObject *)self, NULL, EXT_FOREVER_NS);
    if (coro)
        coro->data[ITERATES] = true;
    return (PyObject *)coro;
}

/* ---- many at once --------------------------------------------------------------------------- */

static int64_t take_waited(Queue *queue, void **items, size_t max, void *ctx)
{
    ext_pending *place = ctx;
    return place ? weir_queue_get_waited(queue->queue, items, NULL, max, &place->core)
                 : weir_queue_get_many(queue->queue, items, NULL, max, WEIR_POLL, 0);
}

/* Up to max items, of a place or none: a list; NULL with an exception; NULL without one, and *ret_rc. */
static PyObject *take_list(Queue *queue, size_t max, ext_pending *place, int *ret_rc)
{
    *ret_rc = WEIR_OK;
    PyObject *list = ext_queue_new_list(max);
    if (!list)
        return NULL;
    int64_t n = ext_queue_fill_list(queue, &list, take_waited, place);
    if (n < 0)
        *ret_rc = (int)n;
    return list;
}

/* Its turn has come.  The first time it lingers for more, if it should; that is a turn, too. */
static PyObject *many_claim(ext_pending *place)
{
    Queue *queue = place_queue(place);
    size_t max = (size_t)place->data[MAX];
    if (place->data[LINGER_NS] > 0 && !place->data[LINGERS]) {
        place->data[LINGERS] = true;
        if (weir_queue_wait_items(queue->queue, max, &place->core) == WEIR_WAITING)
            return NULL;
    }
    int rc;
    PyObject *list = take_list(queue, max, place, &rc);
    if (rc == WEIR_OK)
        return list;
    place->data[LINGERS] = false;
    return rc == WEIR_EEMPTY ? NULL : ext_queue_raise_get(queue, rc);
}

static PyObject *many_fail(ext_pending *place, int result)
{
    return ext_queue_raise_get(place_queue(place), result);
}

static const ext_pending_kind many_place = {
    .begin = get_begin,
    .cancel = leave,
    .give_back = give_turn_up,
    .claim = many_claim,
    .fail = many_fail,
};

static PyObject *aget_many_attempt(ext_coro *self)
{
    Queue *queue = queue_of(self);
    size_t max = (size_t)self->data[MAX];
    if (!ext_queue_is_usable(queue))
        return NULL;
    if (self->data[LINGER_NS] > 0 && weir_queue_depth(queue->queue) < max && self->timeout_ns > 0)
        return NULL; /* comes into line to linger */
    int rc;
    PyObject *list = take_list(queue, max, NULL, &rc);
    return rc == WEIR_OK || rc == WEIR_EEMPTY ? list : ext_queue_raise_get(queue, rc);
}

static ext_pending *aget_many_begin(ext_coro *self)
{
    ext_pending *place = ext_pending_new(self->module, self->owner, &queue_of(self)->line,
                                         &many_place, (PyObject *)self);
    if (!place)
        return NULL;
    place->data[MAX] = self->data[MAX];
    place->data[LINGER_NS] = self->data[LINGER_NS];
    return (ext_pending *)ext_pending_begin(place);
}

/* It lingers from now on, or the batch was dropped and it waits for a first item again. */
static int aget_many_again(ext_coro *self)
{
    if (self->pending->data[LINGERS])
        return ext_coro_set_deadline(self, ext_deadline((int64_t)self->data[LINGER_NS]));
    return ext_coro_set_deadline(self, ext_deadline(self->timeout_ns));
}

/* It has lingered long enough: takes what there is, for which it will be called. */
static bool aget_many_is_patient(ext_coro *self)
{
    ext_pending *place = self->pending;
    if (!place->data[LINGERS])
        return false;
    weir_queue_wait_items(queue_of(self)->queue, 1, &place->core);
    return ext_coro_set_deadline(self, WEIR_FOREVER) == 0;
}

static const ext_coro_kind aget_many_kind = {
    .name = "Queue.aget_many",
    .attempt = aget_many_attempt,
    .begin = aget_many_begin,
    .again = aget_many_again,
    .is_patient = aget_many_is_patient,
    .expire = aget_expire,
};

const char ext_queue_aget_many_doc[] =
    "aget_many($self, max, *, timeout=None, linger=0.0)\n--\n\n"
    "get_many() for coroutines: a list of up to `max` items, at least one.\n\n"
    "While it lingers for more, none of them is taken: cancelled, it has taken nothing.";

PyObject *ext_queue_aget_many(Queue *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    static const char *const names[] = {"max", "timeout", "linger", NULL};
    PyObject *given[3];
    int64_t timeout_ns, linger_ns;
    size_t max;
    if (ext_parse_args("aget_many", names, 1, 1, args, n, kwnames, given) < 0 ||
        ext_queue_parse_batch(given[0], given[2], &max, &linger_ns) < 0 ||
        ext_parse_timeout(given[1], "timeout", &timeout_ns) < 0 || !ext_queue_is_usable(self))
        return NULL;
    ext_coro *coro = ext_coro_new(self->state, &aget_many_kind, (PyObject *)self, NULL, timeout_ns);
    if (!coro)
        return NULL;
    coro->data[MAX] = max;
    coro->data[LINGER_NS] = (uint64_t)linger_ns;
    return (PyObject *)coro;
}

/* ---- joining -------------------------------------------------------------------------------- */

/* In a pending of ajoin(): it is on the queue's list, under its lock. */
typedef struct join {
    weir_pending *next;
    bool waits;
} join;

static join *join_of(weir_pending *core)
{
    return (join *)(void *)core->opaque;
}

static int join_begin(ext_pending *place)
{
    Queue *queue = place_queue(place);
    join *self = join_of(&place->core);
    EXT_LOCK(&queue->lock);
    self->waits = queue->unfinished > 0;
    if (self->waits) {
        self->next = queue->waiting_joins;
        queue->waiting_joins = &place->core;
    }
    EXT_UNLOCK(&queue->lock);
    return self->waits ? WEIR_WAITING : WEIR_OK;
}

static bool join_leave(ext_pending *place)
{
    Queue *queue = place_queue(place);
    EXT_LOCK(&queue->lock);
    weir_pending **link = &queue->waiting_joins;
    while (*link && *link != &place->core)
        link = &join_of(*link)->next;
    bool waited = *link;
    if (waited)
        *link = join_of(*link)->next;
    EXT_UNLOCK(&queue->lock);
    return waited;
}

void ext_queue_tell_joins(weir_pending *first)
{
    for (weir_pending *core = first, *next; core; core = next) {
        next = join_of(core)->next; /* before: it may be gone after that */
        core->ready(core, WEIR_OK);
    }
}

static void join_give_back(ext_pending *place)
{
    (void)place; /* nothing was granted but the knowledge */
}

static PyObject *join_claim(ext_pending *place)
{
    (void)place;
    Py_RETURN_NONE;
}

static const ext_pending_kind join_place = {
    .begin = join_begin,
    .cancel = join_leave,
    .give_back = join_give_back,
    .claim = join_claim,
};

static PyObject *ajoin_attempt(ext_coro *self)
{
    Queue *queue = queue_of(self);
    if (!ext_queue_is_usable(queue))
        return NULL;
    EXT_LOCK(&queue->lock);
    bool is_done = queue->unfinished == 0;
    EXT_UNLOCK(&queue->lock);
    return is_done ? Py_NewRef(Py_None) : NULL;
}

static ext_pending *ajoin_begin(ext_coro *self)
{
    ext_pending *place = ext_pending_new(self->module, self->owner, &queue_of(self)->line,
                                         &join_place, (PyObject *)self);
    return place ? (ext_pending *)ext_pending_begin(place) : NULL;
}

static const ext_coro_kind ajoin_kind = {
    .name = "Queue.ajoin",
    .attempt = ajoin_attempt,
    .begin = ajoin_begin,
};

const char ext_queue_ajoin_doc[] = "ajoin($self, timeout=None)\n--\n\n"
                                   "join() for coroutines.  TimeoutError after `timeout` seconds.";

PyObject *ext_queue_ajoin(Queue *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    static const char *const names[] = {"timeout", NULL};
    PyObject *given[1];
    int64_t timeout_ns;
    if (ext_parse_args("ajoin", names, 1, 0, args, n, kwnames, given) < 0 ||
        ext_parse_timeout(given[0], "timeout", &timeout_ns) < 0 || !ext_queue_is_usable(self))
        return NULL;
    return (PyObject *)ext_coro_new(self->state, &ajoin_kind, (PyObject *)self, NULL, timeout_ns);
}
