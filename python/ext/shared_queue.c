/* shared_queue.c - weir.SharedQueue: a weir_shared_queue of Python objects.
 *
 * Items:      what travels is bytes; item.c makes them.
 * Ownership:  the queue holds no Python object, so there is nothing for the garbage collector.
 * Waiting:    every call tries with WEIR_PROBE first, and releases the GIL for anything longer.
 * Buffers:    a get borrows the object's buffer by an atomic exchange, or makes one of its own:
 *             no lock that a fork could copy while it is held.
 * Failing:    a message is out of the queue before the object is made that it stands for.  Where that is
 *             interrupted, or there is no memory for it, the buffer is left with what is in it: the next get of
 *             this process reads it again, before any other message.  What cannot be read goes along with the
 *             exception that says why.  So no message is delivered to nobody.
 * Forks:      a child goes on using the handle it inherited; what was left is its parent's.
 */
#include "module.h"

#include <stdatomic.h>
#include <structmember.h>

typedef struct SharedQueue {
    PyObject_HEAD PyObject *weakrefs;
    module_state *state;      /* kept alive by the type */
    weir_shared_queue *queue; /* NULL: not made yet */
    PyObject *name;           /* NULL: none */
    _Atomic(void *) buffer;   /* of struct kept; NULL: in use, or none */
    _Atomic(void *) left;     /* a list of struct kept that are to be read again */
} SharedQueue;

/* ---- buffers -------------------------------------------------------------------------------- */

#define KEEP_MAX (UINT64_C(1) << 20) /* bytes; a larger buffer goes with its call */
#define FEW      64

/* What a get receives into, and has received. */
typedef struct kept {
    weir_buffer buffer;
    weir_message few[FEW], *many; /* many: if not NULL, instead of few; PyMem_Raw */
    size_t at, n;                 /* the messages [at, n) are still to be read */
    struct kept *next;            /* of those that were left, */
    unsigned generation;          /* by the process of which this is */
} kept;

static weir_message *messages_of(kept *mine)
{
    return mine->many ? mine->many : mine->few;
}

static void forget_messages(kept *mine)
{
    PyMem_RawFree(mine->many);
    mine->many = NULL;
    mine->at = mine->n = 0;
}

static void free_kept(kept *mine)
{
    for (kept *next; mine; mine = next) {
        next = mine->next;
        weir_buffer_free(&mine->buffer);
        forget_messages(mine);
        PyMem_RawFree(mine);
    }
}

/* For a later get. */
static void leave(SharedQueue *self, kept *mine)
{
    void *first = atomic_load_explicit(&self->left, memory_order_relaxed);
    do /* release: pairs with the acquire in take_left */
        mine->next = first;
    while (!atomic_compare_exchange_weak_explicit(&self->left, &first, mine, memory_order_release,
                                                  memory_order_relaxed));
}

/* Takes one that an earlier get has left; NULL: none has.  All are taken out at once, and the others left again:
 * so none can be taken twice. */
static kept *take_left(SharedQueue *self)
{
    kept *mine = atomic_exchange_explicit(&self->left, NULL, memory_order_acquire);
    for (kept *next = mine ? mine->next : NULL, *other; (other = next);) {
        next = other->next;
        leave(self, other);
    }
    if (!mine)
        return NULL;
    mine->next = NULL;
    if (mine->generation != ext_fork_generation())
        forget_messages(mine);
    return mine;
}

/* With messages, if an earlier get has left some; NULL: no memory. */
static kept *borrow(SharedQueue *self)
{
    /* relaxed: who left something for this thread to find has told it, by an exception */
    kept *mine = atomic_load_explicit(&self->left, memory_order_relaxed) ? take_left(self) : NULL;
    if (!mine) /* acquire: pairs with the release in give_back; what the last borrower did is over */
        mine = atomic_exchange_explicit(&self->buffer, NULL, memory_order_acquire);
    return mine ? mine : PyMem_RawCalloc(1, sizeof *mine);
}

static void give_back(SharedQueue *self, kept *mine)
{
    if (mine->at < mine->n) {
        mine->generation = ext_fork_generation();
        leave(self, mine);
        return;
    }
    forget_messages(mine);
    if (mine->buffer.capacity > KEEP_MAX)
        weir_buffer_free(&mine->buffer);
    /* release: pairs with borrow */
    free_kept(atomic_exchange_explicit(&self->buffer, mine, memory_order_acq_rel));
}

/* ---- calls ---------------------------------------------------------------------------------- */

static bool is_usable(SharedQueue *self)
{
    if (self->queue)
        return true;
    PyErr_SetString(PyExc_RuntimeError, "weir.SharedQueue.__init__() has not been called");
    return false;
}

static PyObject *raise_shut_down(SharedQueue *self)
{
    PyErr_SetNone(self->state->shut_down ? self->state->shut_down : PyExc_RuntimeError);
    return NULL;
}

/* ---- put ------------------------------------------------------------------------------------ */

static PyObject *raise_put(SharedQueue *self, int rc, size_t size)
{
    char text[160];
    switch (rc) {
    case WEIR_ETIMEDOUT: return ext_raise(self->state, WEIR_EFULL);
    case WEIR_ECLOSED: return raise_shut_down(self);
    case WEIR_ETOOBIG:
        PyOS_snprintf(
            text, sizeof text,
            "the item takes %zu bytes as a message, more than max_bytes: it can never fit", size);
        return ext_raise_text(self->state, rc, text);
    case WEIR_ENOSHM:
        PyOS_snprintf(text, sizeof text,
                      "out of shared memory for an item of %zu bytes; the queue has not taken it",
                      size);
        return ext_raise_text(self->state, rc, text);
    default: return ext_raise(self->state, rc);
    }
}

#define LONG (UINT64_C(256) << 10) /* bytes; copying more takes longer than releasing the GIL */

static bool is_long(const weir_message *messages, size_t n)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += messages[i].size;
    return bytes > LONG;
}

/* How many of the messages were taken; *ret_error says why no more (0: all). */
static size_t put_messages(SharedQueue *self, const weir_message *messages, size_t n,
                           weir_time deadline, int *ret_error)
{
    int64_t put = 0;
    if (!is_long(messages, n))
        put = weir_shared_queue_put_many(self->queue, messages, n, WEIR_PROBE);
    size_t done = put > 0 ? (size_t)put : 0;
    *ret_error = 0;
    if (done == n)
        return n;
    ext_wait wait;
    ext_wait_begin(&wait);
    put = weir_shared_queue_put_many(self->queue, messages + done, n - done, deadline);
    ext_wait_end(&wait);
    done += put > 0 ? (size_t)put : 0;
    if (done < n) /* what kept the next one out, if put_many stopped before it */
        *ret_error = put < 0 ? (int)put : WEIR_ETIMEDOUT;
    return done;
}

static PyObject *put(SharedQueue *self, PyObject *item, int64_t timeout_ns)
{
    ext_item e;
    weir_message message;
    if (ext_item_encode(self->state, item, &e, &message) < 0)
        return NULL;
    int error = 0;
    if (is_long(&message, 1) || weir_shared_queue_put(self->queue, &message, WEIR_PROBE) < 0)
        put_messages(self, &message, 1, ext_deadline(timeout_ns), &error);
    Py_XDECREF(e.owner);
    if (error)
        return raise_put(self, error, message.size);
    if (PyErr_Occurred())
        return NULL; /* a signal handler raised while the put succeeded */
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    put_doc,
    "put($self, item, block=True, timeout=None)\n--\n\n"
    "Put an item into the queue; it is copied, so what is changed later stays here.\n\n"
    "When it does not fit, the queue's overflow decides: \"block\" waits for room, in line behind\n"
    "those who came earlier, for up to `timeout` seconds (None: as long as it takes) or not at all\n"
    "(block=False); the others never wait.\n\n"
    "Raises queue.Full (no room, or not in time), weir.ShutDown, weir.TooLarge (more than\n"
    "max_bytes), OSError (out of shared memory), ValueError (negative timeout), and what pickling\n"
    "raises: then the queue has not taken the item.");

static PyObject *SharedQueue_put(SharedQueue *self, PyObject *const *args, Py_ssize_t n_args,
                                 PyObject *kwnames)
{
    static const char *const names[] = {"item", "block", "timeout", NULL};
    PyObject *given[3];
    int64_t timeout_ns;
    if (ext_parse_args("put", names, 3, 1, args, n_args, kwnames, given) < 0 ||
        ext_parse_block(given[1], given[2], &timeout_ns) < 0 || !is_usable(self))
        return NULL;
    return put(self, given[0], timeout_ns);
}

PyDoc_STRVAR(put_nowait_doc, "put_nowait($self, item, /)\n--\n\n"
                             "The same as put(item, block=False).");

static PyObject *SharedQueue_put_nowait(SharedQueue *self, PyObject *item)
{
    return is_usable(self) ? put(self, item, 0) : NULL;
}

/* Items on their way in, in the order of the source. */
#define CHUNK 128

typedef struct chunk {
    ext_item items[CHUNK];
    weir_message messages[CHUNK];
    size_t n;
} chunk;

/* Where put_many takes from: a list or tuple by chunks, any other iterable one by one, so that
 * nothing is taken out of an iterator that is not offered to the queue at once. */
typedef struct source {
    PyObject *iterator;
    size_t chunk_size;
} source;

/* 1: more may follow; 0: that was all; -1: an exception, behind what the chunk holds. */
static int fill(SharedQueue *self, source *from, chunk *into)
{
    into->n = 0;
    while (into->n < from->chunk_size) {
        PyObject *item = PyIter_Next(from->iterator);
        if (!item)
            return PyErr_Occurred() ? -1 : 0;
        int rc =
            ext_item_encode(self->state, item, &into->items[into->n], &into->messages[into->n]);
        Py_DECREF(item);
        if (rc < 0)
            return -1;
        into->n++;
    }
    return 1;
}

static void empty_chunk(chunk *c)
{
    for (size_t i = 0; i < c->n; i++)
        Py_XDECREF(c->items[i].owner);
}

/* A signal handler's exception that is set already comes before the source's. */
static void restore_unless_set(PyObject *type, PyObject *value, PyObject *traceback)
{
    if (type && !PyErr_Occurred()) {
        PyErr_Restore(type, value, traceback);
        return;
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

static PyObject *put_many(SharedQueue *self, source *from, int64_t timeout_ns)
{
    weir_time deadline = ext_deadline(timeout_ns);
    size_t total = 0;
    chunk c;
    for (int more = 1; more > 0;) {
        more = fill(self, from, &c);
        PyObject *type = NULL, *value = NULL, *traceback = NULL;
        if (more < 0)
            PyErr_Fetch(&type, &value, &traceback);
        int error = 0;
        size_t done = c.n ? put_messages(self, c.messages, c.n, deadline, &error) : 0;
        size_t refused = done < c.n ? c.messages[done].size : 0;
        total += done;
        empty_chunk(&c);
        restore_unless_set(type, value, traceback);
        if (PyErr_Occurred())
            return NULL;
        if (error && total == 0)
            return raise_put(self, error, refused);
        if (error)
            break;
    }
    return PyLong_FromSize_t(total);
}

PyDoc_STRVAR(
    put_many_doc,
    "put_many($self, iterable, timeout=None)\n--\n\n"
    "Put the items of an iterable, in order, each as put() would; return how many.\n\n"
    "Fewer than there were: the `timeout` (seconds, for all of them together) has passed, the queue\n"
    "was shut down, or the next item can never fit.  Raises what put() raises only if not even the\n"
    "first item went in.  A list or tuple can be continued at the returned index; from any other\n"
    "iterable one item more than returned has been taken then, and is lost to it.  An exception of\n"
    "the iterable, or of pickling, comes after the items before it have been put.");

static PyObject *SharedQueue_put_many(SharedQueue *self, PyObject *const *args, Py_ssize_t n_args,
                                      PyObject *kwnames)
{
    static const char *const names[] = {"iterable", "timeout", NULL};
    PyObject *given[2];
    int64_t timeout_ns;
    if (ext_parse_args("put_many", names, 2, 1, args, n_args, kwnames, given) < 0 ||
        ext_parse_timeout(given[1], "timeout", &timeout_ns) < 0 || !is_usable(self))
        return NULL;
    bool continues = PyList_Check(given[0]) || PyTuple_Check(given[0]);
    source from = {PyObject_GetIter(given[0]), continues ? CHUNK : 1};
    if (!from.iterator)
        return NULL;
    PyObject *result = put_many(self, &from, timeout_ns);
    Py_DECREF(from.iterator);
    return result;
}

/* ---- get ------------------------------------------------------------------------------------ */

static PyObject *raise_get(SharedQueue *self, int rc)
{
    if (rc == WEIR_ECLOSED)
        return raise_shut_down(self);
    return ext_raise(self->state, rc == WEIR_ETIMEDOUT ? WEIR_EEMPTY : rc);
}

/* Waits as it has to.  How many messages there are, or an error. */
static int64_t receive(SharedQueue *self, kept *mine, size_t max, int64_t timeout_ns,
                       int64_t linger_ns)
{
    weir_message *messages = messages_of(mine);
    int64_t n = WEIR_ETIMEDOUT;
    if (linger_ns == 0)
        n = weir_shared_queue_get_many(self->queue, messages, max, &mine->buffer, WEIR_PROBE, 0);
    if (n != WEIR_ETIMEDOUT && (n != WEIR_EEMPTY || timeout_ns == 0))
        return n;
    weir_time deadline = ext_deadline(timeout_ns);
    ext_wait wait;
    ext_wait_begin(&wait);
    n = weir_shared_queue_get_many(self->queue, messages, max, &mine->buffer, deadline, linger_ns);
    ext_wait_end(&wait);
    if (n >= 0 && PyErr_Occurred())
        ext_postpone_exception();
    return n;
}

/* Receives up to max messages, unless some are there that were left.  0, or an error. */
static int fill_kept(SharedQueue *self, kept *mine, size_t max, int64_t timeout_ns,
                     int64_t linger_ns)
{
    if (mine->at < mine->n)
        return 0;
    if (max > FEW && !(mine->many = PyMem_RawMalloc(max * sizeof *mine->many)))
        return WEIR_ENOMEM;
    int64_t n = receive(self, mine, max, timeout_ns, linger_ns);
    mine->n = n > 0 ? (size_t)n : 0;
    return n < 0 ? (int)n : 0;
}

/* What could not be read, and what came with it. */
typedef struct unread {
    PyObject *error;    /* the first, which will be raised; NULL: none */
    PyObject *messages; /* of all, a list of bytes */
} unread;

static void clear_unread(unread *u)
{
    Py_CLEAR(u->error);
    Py_CLEAR(u->messages);
}

/* Whether it says nothing about the message: it was interrupted, or there was no memory. */
static bool may_pass(PyObject *error)
{
    return PyErr_GivenExceptionMatches(error, PyExc_MemoryError) ||
           !PyErr_GivenExceptionMatches(error, PyExc_Exception);
}

/* Takes the exception that is set, and the message that it is about.  false, with an exception: the message is to
 * be read again. */
static bool add_unread(unread *u, const weir_message *message)
{
    PyObject *error = ext_take_exception();
    if (may_pass(error)) {
        ext_restore_exception(error);
        return false;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(message->data, (Py_ssize_t)message->size);
    if (bytes && !u->messages)
        u->messages = PyList_New(0);
    bool added = bytes && u->messages && PyList_Append(u->messages, bytes) == 0;
    if (added && !u->error)
        u->error = Py_NewRef(error);
    Py_XDECREF(bytes);
    Py_DECREF(error);
    return added;
}

/* (Whatever the exception's class thinks of that.) */
static bool attach(PyObject *error, const char *name, PyObject *value)
{
    PyObject *key = PyUnicode_FromString(name);
    int rc = key ? PyObject_GenericSetAttr(error, key, value) : -1;
    Py_XDECREF(key);
    return rc == 0;
}

/* Raises what could not be read, with it and the rest of its batch (NULL: there is none).  false, with another
 * exception: it would have been lost, so it is to be read again. */
static bool raise_unread(unread *u, PyObject *batch)
{
    bool is_whole =
        attach(u->error, "messages", u->messages) && (!batch || attach(u->error, "batch", batch));
    if (is_whole)
        ext_restore_exception(Py_NewRef(u->error));
    clear_unread(u);
    return is_whole;
}

/* The object that the next message stands for. */
static PyObject *read_one(SharedQueue *self, kept *mine)
{
    const weir_message *message = &messages_of(mine)[mine->at];
    PyObject *item = ext_item_decode(self->state, message);
    unread u = {NULL, NULL};
    if (item || (add_unread(&u, message) && raise_unread(&u, NULL)))
        mine->at++;
    clear_unread(&u);
    return item;
}

/* The item; or NULL, with nothing set and the reason in *ret_error, or an exception and 0. */
static PyObject *get(SharedQueue *self, int64_t timeout_ns, int *ret_error)
{
    *ret_error = 0;
    kept *mine = borrow(self);
    if (!mine)
        return PyErr_NoMemory();
    *ret_error = fill_kept(self, mine, 1, timeout_ns, 0);
    PyObject *item = *ret_error == 0 ? read_one(self, mine) : NULL;
    give_back(self, mine);
    return item;
}

PyDoc_STRVAR(
    get_doc,
    "get($self, block=True, timeout=None)\n--\n\n"
    "Remove and return the oldest item.\n\n"
    "Waits for one, in line behind those who came earlier, for up to `timeout` seconds (None: as\n"
    "long as it takes) or not at all (block=False).\n\n"
    "Raises queue.Empty (none there, or not in time), weir.ShutDown (shut down and empty),\n"
    "ValueError (negative timeout).  An item that cannot be unpickled raises its exception, whose\n"
    "attribute `messages` is a list of its bytes: the item is delivered with it.  MemoryError, and an\n"
    "interruption (KeyboardInterrupt), leave the item to the next get() or get_many() of this object\n"
    "in this process.  It counts as delivered by then, and goes with the object.");

static PyObject *SharedQueue_get(SharedQueue *self, PyObject *const *args, Py_ssize_t n_args,
                                 PyObject *kwnames)
{
    static const char *const names[] = {"block", "timeout", NULL};
    PyObject *given[2];
    int64_t timeout_ns;
    if (ext_parse_args("get", names, 2, 0, args, n_args, kwnames, given) < 0 ||
        ext_parse_block(given[0], given[1], &timeout_ns) < 0 || !is_usable(self))
        return NULL;
    int error;
    PyObject *item = get(self, timeout_ns, &error);
    return error ? raise_get(self, error) : item;
}

PyDoc_STRVAR(get_nowait_doc, "get_nowait($self, /)\n--\n\n"
                             "The same as get(block=False).");

static PyObject *SharedQueue_get_nowait(SharedQueue *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    int error;
    PyObject *item = get(self, 0, &error);
    return error ? raise_get(self, error) : item;
}

/* get_many never keeps room for more; a batch is then smaller than asked for. */
#define BATCH_MAX 65536

/* Reads messages, up to the first one that is to be read again: false, with an exception.  The list has room for
 * them; each comes into its sight with its object. */
static bool read_into(SharedQueue *self, kept *mine, PyObject *list, size_t end, unread *u)
{
    for (; mine->at < end; mine->at++) {
        const weir_message *message = &messages_of(mine)[mine->at];
        PyObject *item = ext_item_decode(self->state, message);
        if (!item && !add_unread(u, message))
            return false;
        if (!item)
            continue;
        Py_ssize_t n = PyList_GET_SIZE(list);
        PyList_SET_ITEM(list, n, item);
        Py_SET_SIZE(list, n + 1);
    }
    return true;
}

/* The next messages, up to max.  One that cannot be unpickled does not take the others with it; one that there is
 * no memory for comes with the next batch.  Where anything else is raised, all of them do. */
static PyObject *read_many(SharedQueue *self, kept *mine, size_t max)
{
    size_t first = mine->at, n = mine->n - first < max ? mine->n - first : max;
    PyObject *list = PyList_New((Py_ssize_t)n);
    if (!list)
        return NULL;
    Py_SET_SIZE(list, 0);
    unread u = {NULL, NULL};
    bool is_all = read_into(self, mine, list, first + n, &u);
    if (!is_all && mine->at > first && PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyErr_Clear();
        is_all = true; /* of this batch */
    }
    bool is_raised = is_all && u.error && raise_unread(&u, list);
    if (!is_raised && PyErr_Occurred())
        mine->at = first;
    clear_unread(&u);
    if (PyErr_Occurred())
        Py_CLEAR(list);
    return list;
}

static PyObject *get_list(SharedQueue *self, size_t max, int64_t timeout_ns, int64_t linger_ns)
{
    kept *mine = borrow(self);
    if (!mine)
        return PyErr_NoMemory();
    int error = fill_kept(self, mine, max, timeout_ns, linger_ns);
    PyObject *list = error < 0 ? raise_get(self, error) : read_many(self, mine, max);
    give_back(self, mine);
    return list;
}

PyDoc_STRVAR(
    get_many_doc,
    "get_many($self, max, *, timeout=None, linger=0.0)\n--\n\n"
    "Remove and return up to `max` items, oldest first, as a list of at least one.\n\n"
    "Waits up to `timeout` seconds for the first item (None: as long as it takes); then for more,\n"
    "until there are `max` or `linger` seconds have passed since the first.  Never more than 65,536\n"
    "at once.\n\n"
    "Raises queue.Empty, weir.ShutDown (shut down and empty), ValueError.  Items that cannot be\n"
    "unpickled raise the exception of the first, whose attribute `messages` is a list of their bytes,\n"
    "and `batch` the list of the others.  An item for which there is no memory ends the batch before\n"
    "it, and is left to the next call; MemoryError: it would have been the first.");

static PyObject *SharedQueue_get_many(SharedQueue *self, PyObject *const *args, Py_ssize_t n_args,
                                      PyObject *kwnames)
{
    static const char *const names[] = {"max", "timeout", "linger", NULL};
    PyObject *given[3];
    int64_t timeout_ns, linger_ns = 0;
    if (ext_parse_args("get_many", names, 1, 1, args, n_args, kwnames, given) < 0)
        return NULL;
    Py_ssize_t max = PyNumber_AsSsize_t(given[0], NULL);
    if (max == -1 && PyErr_Occurred())
        return NULL;
    if (max <= 0) {
        PyErr_Format(PyExc_ValueError, "'max' must be > 0, not %zd", max);
        return NULL;
    }
    if (ext_parse_timeout(given[1], "timeout", &timeout_ns) < 0 || !is_usable(self) ||
        (given[2] && ext_parse_timeout(given[2], "linger", &linger_ns) < 0))
        return NULL;
    return get_list(self, max < BATCH_MAX ? (size_t)max : BATCH_MAX, timeout_ns, linger_ns);
}

/* ---- ending --------------------------------------------------------------------------------- */

/* -1 with an exception of a signal handler. */
static int64_t discard(SharedQueue *self)
{
    ext_wait wait;
    ext_wait_begin(&wait);
    int64_t n = weir_shared_queue_discard(self->queue);
    ext_wait_end(&wait);
    if (n < 0)
        ext_raise(self->state, (int)n);
    return PyErr_Occurred() ? -1 : n;
}

PyDoc_STRVAR(
    discard_doc,
    "discard($self, /)\n--\n\n"
    "Drop everything inside (reason \"discarded\"); return how many items.  The queue stays open.");

static PyObject *SharedQueue_discard(SharedQueue *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    int64_t n = discard(self);
    return n < 0 ? NULL : PyLong_FromLongLong(n);
}

PyDoc_STRVAR(
    shutdown_doc,
    "shutdown($self, immediate=False)\n--\n\n"
    "Refuse items from now on, in every process: put() raises weir.ShutDown, also where it waits.\n\n"
    "What is inside can still be taken; then get() raises weir.ShutDown and iteration ends.\n"
    "immediate=True drops it instead (reason \"discarded\").");

static PyObject *SharedQueue_shutdown(SharedQueue *self, PyObject *const *args, Py_ssize_t n_args,
                                      PyObject *kwnames)
{
    static const char *const names[] = {"immediate", NULL};
    PyObject *given[1];
    if (ext_parse_args("shutdown", names, 1, 0, args, n_args, kwnames, given) < 0 ||
        !is_usable(self))
        return NULL;
    int immediate = given[0] ? PyObject_IsTrue(given[0]) : 0;
    if (immediate < 0)
        return NULL;
    ext_wait wait;
    ext_wait_begin(&wait);
    int rc = weir_shared_queue_close(self->queue);
    ext_wait_end(&wait);
    if (rc < 0)
        return ext_raise(self->state, rc);
    if (PyErr_Occurred() || (immediate && discard(self) < 0))
        return NULL;
    Py_RETURN_NONE;
}

/* ---- looking -------------------------------------------------------------------------------- */

static weir_shared_queue_snapshot look(SharedQueue *self)
{
    weir_shared_queue_snapshot now = WEIR_SHARED_QUEUE_SNAPSHOT_INIT;
    weir_shared_queue_get_snapshot(self->queue, &now);
    return now;
}

PyDoc_STRVAR(qsize_doc, "qsize($self, /)\n--\n\n"
                        "How many items are inside; a hint by the time it returns.");

static PyObject *SharedQueue_qsize(SharedQueue *self, PyObject *Py_UNUSED(ignored))
{
    return is_usable(self) ? PyLong_FromSize_t(weir_shared_queue_depth(self->queue)) : NULL;
}

PyDoc_STRVAR(empty_doc, "empty($self, /)\n--\n\n"
                        "Whether nothing is inside; a hint by the time it returns.");

static PyObject *SharedQueue_empty(SharedQueue *self, PyObject *Py_UNUSED(ignored))
{
    return is_usable(self) ? PyBool_FromLong(weir_shared_queue_depth(self->queue) == 0) : NULL;
}

PyDoc_STRVAR(full_doc, "full($self, /)\n--\n\n"
                       "Whether maxsize or max_bytes is reached; a hint by the time it returns.");

static PyObject *SharedQueue_full(SharedQueue *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    weir_shared_queue_snapshot now = look(self);
    return PyBool_FromLong(now.depth >= now.capacity || now.bytes >= now.max_bytes);
}

PyDoc_STRVAR(stats_doc, "stats($self, /)\n--\n\n"
                        "Everything the queue counts, for all its processes: a "
                        "weir.SharedQueueStats.  Never waits.");

static PyObject *SharedQueue_stats(SharedQueue *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    weir_shared_queue_snapshot now = look(self);
    PyObject *fields = Py_BuildValue(
        "{sO sn sK sn sK sK sK sK sK sN sN sK sd sd sn sn sn sK sO sO}", "name",
        self->name ? self->name : Py_None, "maxsize", (Py_ssize_t)now.capacity, "max_bytes",
        (unsigned long long)now.max_bytes, "qsize", (Py_ssize_t)now.depth, "bytes",
        (unsigned long long)now.bytes, "accepted", (unsigned long long)now.accepted,
        "accepted_bytes", (unsigned long long)now.accepted_bytes, "delivered",
        (unsigned long long)now.delivered, "delivered_bytes",
        (unsigned long long)now.delivered_bytes, "dropped", ext_by_reason(now.dropped),
        "dropped_bytes", ext_by_reason(now.dropped_bytes), "refused",
        (unsigned long long)now.refused, "put_blocked", (double)now.put_blocked_ns / 1e9,
        "get_blocked", (double)now.get_blocked_ns / 1e9, "putters_waiting",
        (Py_ssize_t)now.putters_waiting, "getters_waiting", (Py_ssize_t)now.getters_waiting,
        "peak_qsize", (Py_ssize_t)now.peak_depth, "recovered", (unsigned long long)now.recovered,
        "above_high", now.above_high ? Py_True : Py_False, "is_shutdown",
        now.closed ? Py_True : Py_False);
    PyObject *none = fields ? PyTuple_New(0) : NULL;
    PyObject *stats_type = none ? ext_import("weir._stats", "SharedQueueStats") : NULL;
    PyObject *stats = stats_type ? PyObject_Call(stats_type, none, fields) : NULL;
    Py_XDECREF(stats_type);
    Py_XDECREF(none);
    Py_XDECREF(fields);
    return stats;
}

PyDoc_STRVAR(
    fileno_doc,
    "fileno($self, /)\n--\n\n"
    "The descriptor of the queue's shared memory.\n\n"
    "To send to another process (socket.send_fds, say), which calls SharedQueue.attach.  It\n"
    "is the queue's: never close it.  It says nothing to select or poll.");

static PyObject *SharedQueue_fileno(SharedQueue *self, PyObject *Py_UNUSED(ignored))
{
    return is_usable(self) ? PyLong_FromLong(weir_shared_queue_fd(self->queue)) : NULL;
}

static PyObject *SharedQueue_repr(SharedQueue *self)
{
    const char *type = Py_TYPE(self)->tp_name;
    if (!self->queue)
        return PyUnicode_FromFormat("<%s, not initialised>", type);
    weir_shared_queue_snapshot now = look(self);
    return PyUnicode_FromFormat("<%s%s%V %zu of %zu items%s>", type, self->name ? " " : "",
                                self->name, "", now.depth, now.capacity,
                                now.closed ? ", shut down" : "");
}

/* Only to a child that is being started: see weir._shared_queue. */
static PyObject *SharedQueue_reduce(SharedQueue *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    PyObject *module = PyImport_ImportModule("weir._shared_queue");
    if (!module)
        return NULL;
    PyObject *reduced = PyObject_CallMethod(module, "reduce", "O", self);
    Py_DECREF(module);
    return reduced;
}

static PyObject *SharedQueue_get_maxsize(SharedQueue *self, void *Py_UNUSED(closure))
{
    return is_usable(self) ? PyLong_FromSize_t(look(self).capacity) : NULL;
}

static PyObject *SharedQueue_get_max_bytes(SharedQueue *self, void *Py_UNUSED(closure))
{
    return is_usable(self) ? PyLong_FromUnsignedLongLong(look(self).max_bytes) : NULL;
}

static PyObject *SharedQueue_get_name(SharedQueue *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->name ? self->name : Py_None);
}

static PyObject *SharedQueue_get_is_shutdown(SharedQueue *self, void *Py_UNUSED(closure))
{
    return is_usable(self) ? PyBool_FromLong(look(self).closed) : NULL;
}

/* ---- iteration ------------------------------------------------------------------------------ */

typedef struct SharedQueueIterator {
    PyObject_HEAD SharedQueue *queue;
} SharedQueueIterator;

static PyObject *SharedQueue_iter(SharedQueue *self)
{
    if (!is_usable(self))
        return NULL;
    SharedQueueIterator *iterator =
        PyObject_New(SharedQueueIterator, self->state->shared_queue_iterator_type);
    if (iterator)
        iterator->queue = (SharedQueue *)Py_NewRef(self);
    return (PyObject *)iterator;
}

static PyObject *SharedQueueIterator_next(SharedQueueIterator *self)
{
    int error;
    PyObject *item = get(self->queue, EXT_FOREVER_NS, &error);
    if (!error || error == WEIR_ECLOSED)
        return item; /* NULL and no exception: the end */
    return raise_get(self->queue, error);
}

static void SharedQueueIterator_dealloc(SharedQueueIterator *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF(self->queue);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyType_Slot iterator_slots[] = {
    {Py_tp_dealloc, SharedQueueIterator_dealloc},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, SharedQueueIterator_next},
    {0, NULL},
};

static PyType_Spec iterator_spec = {
    .name = "weir._weir.SharedQueueIterator",
    .basicsize = sizeof(SharedQueueIterator),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = iterator_slots,
};

/* ---- beginning and end ---------------------------------------------------------------------- */

static int parse_bound(PyObject *value, const char *text, uint64_t max, uint64_t *ret)
{
    PyObject *index = PyBool_Check(value) ? NULL : PyNumber_Index(value);
    if (!index && !PyBool_Check(value))
        return -1;
    int overflow = 0;
    long long n = index ? PyLong_AsLongLongAndOverflow(index, &overflow) : 0;
    Py_XDECREF(index);
    if (n > 0 && (uint64_t)n <= max) {
        *ret = (uint64_t)n;
        return 0;
    }
    PyErr_Format(PyExc_ValueError, text, value);
    return -1;
}

/* For the first queue of this interpreter: pickle is much to load for those who have none. */
static int load_pickle(module_state *state)
{
    if (state->pickle_protocol)
        return 0;
    PyObject *pickle = PyImport_ImportModule("pickle");
    if (!pickle)
        return -1;
    Py_XSETREF(state->pickle_dumps, PyObject_GetAttrString(pickle, "dumps"));
    Py_XSETREF(state->pickle_loads, PyObject_GetAttrString(pickle, "loads"));
    Py_DECREF(pickle);
    if (!state->pickle_dumps || !state->pickle_loads)
        return -1;
    state->pickle_protocol = PyLong_FromLong(5);
    return state->pickle_protocol ? 0 : -1;
}

/* false with RuntimeError or another: the object cannot be made now. */
static bool begin_init(SharedQueue *self, PyObject *name)
{
    if (self->queue) {
        PyErr_SetString(PyExc_RuntimeError, "weir.SharedQueue.__init__() has been called already");
        return false;
    }
    self->state = ext_state_of(Py_TYPE(self));
    if (!self->state || load_pickle(self->state) < 0)
        return false;
    if (name && name != Py_None && !PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "name must be a str or None, not %R", name);
        return false;
    }
    Py_XSETREF(self->name, name && name != Py_None ? Py_NewRef(name) : NULL);
    return true;
}

static int raise_create(SharedQueue *self, int rc)
{
    if (rc == WEIR_ENOSHM)
        ext_raise_text(self->state, rc,
                       "out of shared memory, or of file size (ulimit -f), for "
                       "a queue of this maxsize and max_bytes");
    else if (rc < 0)
        ext_raise(self->state, rc);
    return rc < 0 ? -1 : 0;
}

static int init(SharedQueue *self, const weir_shared_queue_opts *opts, PyObject *name)
{
    if (!begin_init(self, name))
        return -1;
    return raise_create(self, weir_shared_queue_create(&self->queue, opts));
}

static const char maxsize_text[] =
    "maxsize must be an int from 1 to 2**31 - 1, not %R (memory that processes share has to be "
    "bounded)";
static const char max_bytes_text[] =
    "max_bytes must be an int from 1 to 2**46, or None for the default, not %R";

static int SharedQueue_init(SharedQueue *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"maxsize", "max_bytes", "overflow", "max_age",
                                        "sample",  "name",      NULL};
    PyObject *maxsize, *max_bytes = NULL, *overflow = NULL, *max_age = NULL, *sample = NULL,
                       *name = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OOOOO:SharedQueue", (char **)names, &maxsize,
                                     &max_bytes, &overflow, &max_age, &sample, &name))
        return -1;
    weir_shared_queue_opts opts = WEIR_SHARED_QUEUE_OPTS_INIT;
    uint64_t capacity;
    if (parse_bound(maxsize, maxsize_text, INT32_MAX, &capacity) < 0 ||
        (max_bytes && max_bytes != Py_None &&
         parse_bound(max_bytes, max_bytes_text, UINT64_C(1) << 46, &opts.max_bytes) < 0) ||
        ext_parse_max_age(max_age, &opts.max_age_ns) < 0 ||
        ext_parse_overflow(overflow, false, &opts.overflow) < 0 ||
        ext_parse_sample(sample, &opts.sample_keep_one_of) < 0)
        return -1;
    opts.capacity = (size_t)capacity;
    opts.name = ext_shown_name(name);
    int rc;
    EXT_BEGIN_CRITICAL_SECTION(self);
    rc = init(self, &opts, name);
    EXT_END_CRITICAL_SECTION();
    return rc;
}

PyDoc_STRVAR(
    attach_doc,
    "attach($type, fd, *, name=None)\n--\n\n"
    "The queue whose shared memory a descriptor from fileno() refers to.\n\n"
    "The descriptor stays the caller's: close it.  Raises ValueError (it is no queue of this\n"
    "version of weir), OSError.");

static PyObject *SharedQueue_attach(PyTypeObject *type, PyObject *const *args, Py_ssize_t n_args,
                                    PyObject *kwnames)
{
    static const char *const names[] = {"fd", "name", NULL};
    PyObject *given[2];
    if (ext_parse_args("attach", names, 1, 1, args, n_args, kwnames, given) < 0)
        return NULL;
    int fd = PyObject_AsFileDescriptor(given[0]);
    if (fd < 0)
        return NULL;
    SharedQueue *self = (SharedQueue *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    if (begin_init(self, given[1])) {
        int rc = weir_shared_queue_attach(&self->queue, fd);
        if (rc == WEIR_OK)
            return (PyObject *)self;
        if (rc == WEIR_EINVAL)
            PyErr_Format(PyExc_ValueError,
                         "descriptor %d is not that of a SharedQueue of this version of weir", fd);
        else
            raise_create(self, rc);
    }
    Py_DECREF(self);
    return NULL;
}

static void SharedQueue_dealloc(SharedQueue *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->weakrefs)
        PyObject_ClearWeakRefs((PyObject *)self);
    weir_shared_queue_destroy(self->queue);
    free_kept(atomic_load_explicit(&self->buffer, memory_order_relaxed));
    free_kept(atomic_load_explicit(&self->left, memory_order_relaxed));
    Py_XDECREF(self->name);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

PyDoc_STRVAR(
    shared_queue_doc,
    "SharedQueue(maxsize, *, max_bytes=None, overflow='block', max_age=None, sample=10, name=None)\n"
    "--\n\n"
    "A bounded first-in first-out queue for the threads of many processes.\n\n"
    "maxsize    the most items inside, 1 to 2**31 - 1\n"
    "max_bytes  the most bytes inside, 1 to 2**46: of the items as messages (the pickle; a str in\n"
    "           UTF-8; 8 for an int or float; 0 for None; 2 more for each in a tuple).  None: 64 MiB,\n"
    "           or maxsize KiB if that is more.  Memory is taken for what is inside (and up to 4 MiB\n"
    "           beside), not for this bound\n"
    "overflow   what put() does when an item does not fit: \"block\" (wait), \"fail\" (raise Full at\n"
    "           once), \"drop_newest\" (drop it), \"drop_oldest\" (drop from the front until it fits),\n"
    "           \"sample\" (above 80 % of a bound keep 1 of `sample` items, and drop the newest when\n"
    "           full)\n"
    "max_age    seconds; an item that is older when its turn comes is dropped; None: no such bound\n"
    "name       for people who look at it\n\n"
    "A child process has it by fork, or as an argument of multiprocessing.Process or in the initargs\n"
    "of weir.ProcessPoolExecutor.  Any process may be killed at any instant: the others go on, and\n"
    "stats() still adds up.  Items are pickled (protocol 5), except None, bool, int, float, str, bytes\n"
    "and small tuples of them, which need none of that.\n\n"
    "Drops are counted by reason for all processes together.  There is no on_drop: what is dropped are\n"
    "bytes in shared memory, and whichever process made room for a newer item may not even be able to\n"
    "import what they were pickled from.\n\n"
    "`for item in queue` gets items until the queue is shut down and empty.  A call that waits gets its\n"
    "turn in the order they came, and those behind it leave it what it waits for; but one that is\n"
    "stopped and does not come within 0.1 s holds nobody up.");

#define FAST(name) (PyCFunction)(void (*)(void)) SharedQueue_##name, METH_FASTCALL | METH_KEYWORDS

static PyMethodDef shared_queue_methods[] = {
    {"put", FAST(put), put_doc},
    {"get", FAST(get), get_doc},
    {"put_nowait", (PyCFunction)SharedQueue_put_nowait, METH_O, put_nowait_doc},
    {"get_nowait", (PyCFunction)SharedQueue_get_nowait, METH_NOARGS, get_nowait_doc},
    {"put_many", FAST(put_many), put_many_doc},
    {"get_many", FAST(get_many), get_many_doc},
    {"qsize", (PyCFunction)SharedQueue_qsize, METH_NOARGS, qsize_doc},
    {"empty", (PyCFunction)SharedQueue_empty, METH_NOARGS, empty_doc},
    {"full", (PyCFunction)SharedQueue_full, METH_NOARGS, full_doc},
    {"discard", (PyCFunction)SharedQueue_discard, METH_NOARGS, discard_doc},
    {"shutdown", FAST(shutdown), shutdown_doc},
    {"stats", (PyCFunction)SharedQueue_stats, METH_NOARGS, stats_doc},
    {"fileno", (PyCFunction)SharedQueue_fileno, METH_NOARGS, fileno_doc},
    {"attach", (PyCFunction)(void (*)(void))SharedQueue_attach,
     METH_FASTCALL | METH_KEYWORDS | METH_CLASS, attach_doc},
    {"__reduce__", (PyCFunction)SharedQueue_reduce, METH_NOARGS, NULL},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "SharedQueue[T]: a queue of T."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef shared_queue_properties[] = {
    {"maxsize", (getter)SharedQueue_get_maxsize, NULL, "The most items inside.", NULL},
    {"max_bytes", (getter)SharedQueue_get_max_bytes, NULL, "The most bytes inside.", NULL},
    {"name", (getter)SharedQueue_get_name, NULL, "As given, or None.", NULL},
    {"is_shutdown", (getter)SharedQueue_get_is_shutdown, NULL, "Whether shutdown() was called.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef shared_queue_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(SharedQueue, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot shared_queue_slots[] = {
    {Py_tp_doc, (void *)shared_queue_doc}, {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, SharedQueue_init},        {Py_tp_dealloc, SharedQueue_dealloc},
    {Py_tp_repr, SharedQueue_repr},        {Py_tp_iter, SharedQueue_iter},
    {Py_tp_methods, shared_queue_methods}, {Py_tp_getset, shared_queue_properties},
    {Py_tp_members, shared_queue_members}, {0, NULL},
};

static PyType_Spec shared_queue_spec = {
    .name = "weir.SharedQueue",
    .basicsize = sizeof(SharedQueue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = shared_queue_slots,
};

int ext_shared_queue_types_add(PyObject *module, module_state *state)
{
    if (ext_add_type(module, &shared_queue_spec, &state->shared_queue_type) < 0)
        return -1;
    state->shared_queue_iterator_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &iterator_spec, NULL);
    return state->shared_queue_iterator_type ? 0 : -1;
}
