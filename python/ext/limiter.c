/* limiter.c - weir._weir.Limiter, which weir.Limiter is a subclass of; weir.LimitPermit: one call
 * in flight; and weir.LimitModel: the arithmetic alone.
 *
 * Counting:   how many are in flight is the gate's to know, in C.  A `with` block of a fixed limit
 *             needs nothing else, so threads, tasks and generators may have any number of them open
 *             on one limiter: each takes one and gives one back.
 * Timing:     an adaptive limit also wants to know when the block began.  That is a context
 *             variable of the limiter, with the blocks that are open in this context: threads and
 *             tasks have contexts of their own.  A block that is left in another context than it
 *             was entered in (an asynchronous generator closed by another task can be) is given
 *             back without a time.  Each beginning is used once, so a task that was started inside
 *             a block, and has a copy of its context, takes nothing from it.
 * Permits:    give back once: by a report, at the end of `with`, or (ignored) when the object goes.
 * Fork:       a private limiter is the parent's.  A shared one goes on in both; what was in flight
 *             at the fork is the parent's, so the child gives none of it back.
 */
#include "module.h"

#include <structmember.h>

typedef struct Limiter {
    PyObject_HEAD PyObject *weakrefs;
    module_state *state;
    weir_limit *limit;
    bool is_shared, is_adaptive;
    unsigned generation;
    PyObject *drop_on;    /* a class or a tuple of classes */
    PyObject *partitions; /* a dict of names and numbers; NULL: none */
    PyObject *open;       /* a context variable: the newest Block that is open; NULL: fixed */
    ext_line line;        /* coroutines that wait */
    ext_lock lock;        /* guards what follows */
    size_t waiting;       /* calls that are without the GIL */
    size_t entered;       /* blocks of this process that are open */
    unsigned entered_generation;
} Limiter;

static weir_limit *limit_of(Limiter *self)
{
    if (!self->limit) {
        PyErr_SetString(PyExc_RuntimeError, "weir.Limiter.__init__() was not called");
        return NULL;
    }
    if (self->is_shared || self->generation == ext_fork_generation())
        return self->limit;
    PyErr_SetString(PyExc_RuntimeError,
                    "this limiter belongs to the parent process; a forked child needs its own, or "
                    "one with shared='name'");
    return NULL;
}

weir_limit *ext_limit_of(PyObject *limiter)
{
    return limit_of((Limiter *)limiter);
}

/* ---- waiting ------------------------------------------------------------------------------- */

static void count_waiting(Limiter *self, int by)
{
    EXT_LOCK(&self->lock);
    self->waiting += (size_t)by;
    EXT_UNLOCK(&self->lock);
}

/* Somebody has set the byte: asked without the GIL. */
static bool is_set(void *byte)
{
    return __atomic_load_n((unsigned char *)byte, __ATOMIC_RELAXED);
}

/* unwanted NULL, or a byte: once it is set the wait ends with WEIR_EINTR. */
static int acquire_waiting(Limiter *self, uint64_t cost, unsigned partition, int64_t timeout_ns,
                           void *unwanted, weir_permit *ret_permit)
{
    weir_time deadline = ext_deadline(timeout_ns);
    ext_wait wait;
    count_waiting(self, 1);
    ext_wait_begin_until(&wait, unwanted ? is_set : NULL, unwanted);
    int rc = weir_limit_acquire(self->limit, cost, partition, deadline, ret_permit);
    ext_wait_end(&wait);
    count_waiting(self, -1);
    if (rc >= 0 && PyErr_Occurred()) { /* a signal handler raised meanwhile */
        weir_limit_release(self->limit, ret_permit, WEIR_LIMIT_IGNORE);
        rc = WEIR_EINTR;
    }
    return rc;
}

/* timeout_ns 0: does not wait. */
static int acquire(Limiter *self, uint64_t cost, unsigned partition, int64_t timeout_ns,
                   weir_permit *ret_permit)
{
    weir_time first = timeout_ns > 0 ? WEIR_PROBE : WEIR_POLL;
    int rc = weir_limit_acquire(self->limit, cost, partition, first, ret_permit);
    if (first == WEIR_PROBE && (rc == WEIR_EFULL || rc == WEIR_ETIMEDOUT))
        rc = acquire_waiting(self, cost, partition, timeout_ns, NULL, ret_permit);
    return rc;
}

static PyObject *raise_acquire(Limiter *self, int rc, uint64_t cost)
{
    char text[160];
    switch (rc) {
    case WEIR_EFULL:
    case WEIR_ETIMEDOUT:
        return ext_raise_text(self->state, WEIR_ETIMEDOUT,
                              "no permit within the timeout: as many calls are in flight as the "
                              "limit allows");
    case WEIR_ECLOSED: return ext_raise_text(self->state, rc, "the limiter is closed");
    case WEIR_ESHED:
        return ext_raise_text(self->state, rc,
                              "shed because of overload: it had waited for longer than shed_after "
                              "in a line that does not get shorter");
    case WEIR_ETOOBIG:
        snprintf(text, sizeof text, "a cost of %llu is more than the limit of %llu",
                 (unsigned long long)cost, (unsigned long long)weir_limit_get(self->limit));
        return ext_raise_text(self->state, rc, text);
    default: return ext_raise(self->state, rc);
    }
}

/* ---- arguments ----------------------------------------------------------------------------- */

static int parse_partition(Limiter *self, PyObject *name, unsigned *ret)
{
    *ret = 0;
    if (!name || name == Py_None) {
        if (!self->partitions)
            return 0;
        PyErr_SetString(PyExc_TypeError, "this limiter has partitions: say partition=NAME");
        return -1;
    }
    PyObject *number = self->partitions ? PyDict_GetItemWithError(self->partitions, name) : NULL;
    if (!number) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_ValueError, "there is no partition %R", name);
        return -1;
    }
    *ret = (unsigned)PyLong_AsUnsignedLong(number);
    return 0;
}

static int parse_cost(PyObject *cost, uint64_t *ret)
{
    *ret = 1;
    if (!cost)
        return 0;
    PyObject *index = PyNumber_Index(cost);
    if (!index)
        return -1;
    int overflow;
    long long n = PyLong_AsLongLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (n == -1 && PyErr_Occurred())
        return -1;
    if (overflow || n < 1 || n >= INT64_C(1) << 46) {
        PyErr_Format(PyExc_ValueError, "cost must be from 1 to 2**46 - 1, not %R", cost);
        return -1;
    }
    *ret = (uint64_t)n;
    return 0;
}

/* ---- one call ------------------------------------------------------------------------------ */

typedef struct Permit {
    PyObject_HEAD Limiter *limiter;
    weir_permit core;
    unsigned generation;
    bool held;
} Permit;

/* Owns what core says; on failure it is given back. */
static PyObject *permit_new(Limiter *limiter, const weir_permit *core)
{
    PyTypeObject *type = limiter->state->limit_permit_type;
    Permit *self = (Permit *)type->tp_alloc(type, 0);
    if (!self) {
        weir_limit_release(limiter->limit, core, WEIR_LIMIT_IGNORE);
        return NULL;
    }
    self->limiter = (Limiter *)Py_NewRef(limiter);
    self->core = *core;
    self->generation = ext_fork_generation();
    self->held = true;
    return (PyObject *)self;
}

/* Whether it was held until now. */
static bool give_back(Permit *self, weir_limit_report report)
{
    EXT_LOCK(&self->limiter->lock);
    bool held = self->held;
    self->held = false;
    EXT_UNLOCK(&self->limiter->lock);
    if (held && self->generation == ext_fork_generation())
        weir_limit_release(self->limiter->limit, &self->core, report);
    return held;
}

PyDoc_STRVAR(release_doc, "release($self, /)\n--\n\n"
                          "The call has ended well: give its place back.  The same as success().");
PyDoc_STRVAR(success_doc, "success($self, /)\n--\n\n"
                          "The call has ended well; an adaptive limit learns from what it took.\n\n"
                          "Only the first of release(), success(), drop() and ignore() counts.");
PyDoc_STRVAR(drop_doc, "drop($self, /)\n--\n\n"
                       "The call was refused, or given up, because of overload.");
PyDoc_STRVAR(ignore_doc, "ignore($self, /)\n--\n\n"
                         "The call has ended, and says nothing about load: it failed early, say.");

static PyObject *permit_success(Permit *self, PyObject *Py_UNUSED(ignored))
{
    give_back(self, WEIR_LIMIT_SUCCESS);
    Py_RETURN_NONE;
}

static PyObject *permit_drop(Permit *self, PyObject *Py_UNUSED(ignored))
{
    give_back(self, WEIR_LIMIT_DROP);
    Py_RETURN_NONE;
}

static PyObject *permit_ignore(Permit *self, PyObject *Py_UNUSED(ignored))
{
    give_back(self, WEIR_LIMIT_IGNORE);
    Py_RETURN_NONE;
}

/* What an exception (None: none) says about the call; -1 with an exception. */
static int report_of(Limiter *limiter, PyObject *type)
{
    if (type == Py_None)
        return WEIR_LIMIT_SUCCESS;
    return PyErr_GivenExceptionMatches(type, limiter->drop_on) ? WEIR_LIMIT_DROP
                                                               : WEIR_LIMIT_IGNORE;
}

static PyObject *permit_enter(Permit *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self);
}

static PyObject *permit_exit(Permit *self, PyObject *const *args, Py_ssize_t n_args)
{
    give_back(self, (weir_limit_report)report_of(self->limiter, n_args > 0 ? args[0] : Py_None));
    Py_RETURN_NONE;
}

static PyObject *permit_held(Permit *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->held);
}

static PyObject *permit_cost(Permit *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(self->core.cost);
}

static int permit_traverse(Permit *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->limiter);
    return 0;
}

static void permit_dealloc(Permit *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    give_back(self, WEIR_LIMIT_IGNORE);
    Py_DECREF(self->limiter);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef permit_methods[] = {
    {"release", (PyCFunction)permit_success, METH_NOARGS, release_doc},
    {"success", (PyCFunction)permit_success, METH_NOARGS, success_doc},
    {"drop", (PyCFunction)permit_drop, METH_NOARGS, drop_doc},
    {"ignore", (PyCFunction)permit_ignore, METH_NOARGS, ignore_doc},
    {"__enter__", (PyCFunction)permit_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))permit_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef permit_properties[] = {
    {"held", (getter)permit_held, NULL, "Whether the call is still in flight.", NULL},
    {"cost", (getter)permit_cost, NULL, "How much of the limit it takes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(
    permit_doc,
    "One call in flight, from Limiter.acquire(); `with permit:` gives it back at the end.\n\n"
    "One that nobody refers to any more is given back by itself (and ignored).");

static PyType_Slot permit_slots[] = {
    {Py_tp_doc, (void *)permit_doc},   {Py_tp_dealloc, permit_dealloc},
    {Py_tp_traverse, permit_traverse}, {Py_tp_methods, permit_methods},
    {Py_tp_getset, permit_properties}, {0, NULL},
};

static PyType_Spec permit_spec = {
    .name = "weir.LimitPermit",
    .basicsize = sizeof(Permit),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = permit_slots,
};

/* ---- acquiring ----------------------------------------------------------------------------- */

PyDoc_STRVAR(
    acquire_doc,
    "acquire($self, /, timeout=None, *, partition=None, cost=1)\n--\n\n"
    "Wait for up to `timeout` seconds (None: for ever) until a call is admitted; its permit.\n\n"
    "partition  its name, if the limiter has partitions\n"
    "cost       how much of the limit it takes, 1 to 2**46 - 1\n\n"
    "Raises TimeoutError, weir.Overloaded (shed), weir.ShutDown (closed), weir.TooLarge (a cost\n"
    "above a fixed limit).");

static PyObject *Limiter_acquire(Limiter *self, PyObject *const *args, Py_ssize_t n_args,
                                 PyObject *kwnames)
{
    static const char *const names[] = {"timeout", "partition", "cost", NULL};
    PyObject *given[3] = {NULL, NULL, NULL};
    int64_t timeout_ns = EXT_FOREVER_NS;
    uint64_t cost = 1;
    unsigned partition;
    weir_permit permit;
    if (((n_args > 0 || kwnames) &&
         (ext_parse_args("acquire", names, 1, 0, args, n_args, kwnames, given) < 0 ||
          ext_parse_timeout(given[0], "timeout", &timeout_ns) < 0 ||
          parse_cost(given[2], &cost) < 0)) ||
        parse_partition(self, given[1], &partition) < 0 || !limit_of(self))
        return NULL;
    int rc = acquire(self, cost, partition, timeout_ns, &permit);
    return rc < 0 ? raise_acquire(self, rc, cost) : permit_new(self, &permit);
}

PyDoc_STRVAR(try_acquire_doc, "try_acquire($self, /, *, partition=None, cost=1)\n--\n\n"
                              "A permit if the call is admitted at once, or None.\n\n"
                              "Never overtakes who waits.  Raises weir.ShutDown, weir.TooLarge.");

static PyObject *Limiter_try_acquire(Limiter *self, PyObject *const *args, Py_ssize_t n_args,
                                     PyObject *kwnames)
{
    static const char *const names[] = {"partition", "cost", NULL};
    PyObject *given[2];
    uint64_t cost;
    unsigned partition;
    weir_permit permit;
    if (ext_parse_args("try_acquire", names, 0, 0, args, n_args, kwnames, given) < 0 ||
        parse_partition(self, given[0], &partition) < 0 || parse_cost(given[1], &cost) < 0 ||
        !limit_of(self))
        return NULL;
    int rc = acquire(self, cost, partition, 0, &permit);
    if (rc == WEIR_EFULL || rc == WEIR_ETIMEDOUT)
        Py_RETURN_NONE;
    return rc < 0 ? raise_acquire(self, rc, cost) : permit_new(self, &permit);
}

PyDoc_STRVAR(probe_doc, "_probe($self, partition=None, cost=1, /)\n--\n\n"
                        "try_acquire(), for who will wait else: not counted as refused.");

static PyObject *Limiter_probe(Limiter *self, PyObject *const *args, Py_ssize_t n_args)
{
    uint64_t cost;
    unsigned partition;
    weir_permit permit;
    if (parse_partition(self, n_args > 0 ? args[0] : NULL, &partition) < 0 ||
        parse_cost(n_args > 1 ? args[1] : NULL, &cost) < 0 || !limit_of(self))
        return NULL;
    int rc = weir_limit_acquire(self->limit, cost, partition, WEIR_PROBE, &permit);
    if (rc == WEIR_EFULL || rc == WEIR_ETIMEDOUT)
        Py_RETURN_NONE;
    return rc < 0 ? raise_acquire(self, rc, cost) : permit_new(self, &permit);
}

PyDoc_STRVAR(stand_doc,
             "_stand($self, unwanted, partition, cost, /)\n--\n\n"
             "acquire(), for a thread that waits for others: None, and out of the line, soon\n"
             "after the first byte of `unwanted` was set.");

static PyObject *Limiter_stand(Limiter *self, PyObject *const *args, Py_ssize_t n_args)
{
    uint64_t cost;
    unsigned partition;
    weir_permit permit;
    Py_buffer unwanted;
    if (n_args != 3) {
        PyErr_SetString(PyExc_TypeError, "_stand() takes unwanted, partition and cost");
        return NULL;
    }
    if (parse_partition(self, args[1], &partition) < 0 || parse_cost(args[2], &cost) < 0 ||
        !limit_of(self) || PyObject_GetBuffer(args[0], &unwanted, PyBUF_WRITABLE) < 0)
        return NULL;
    int rc = WEIR_EINTR;
    if (unwanted.len > 0)
        rc = acquire_waiting(self, cost, partition, EXT_FOREVER_NS, unwanted.buf, &permit);
    PyBuffer_Release(&unwanted);
    if (rc == WEIR_EINTR && !PyErr_Occurred())
        Py_RETURN_NONE;
    return rc < 0 ? raise_acquire(self, rc, cost) : permit_new(self, &permit);
}

PyDoc_STRVAR(count_refused_doc, "_count_refused($self, /)\n--\n\n"
                                "Count a call that gave up before it was in line.");

static PyObject *Limiter_count_refused(Limiter *self, PyObject *Py_UNUSED(ignored))
{
    if (!limit_of(self))
        return NULL;
    weir_limit_count_refused(self->limit);
    Py_RETURN_NONE;
}

/* ---- as a coroutine -------------------------------------------------------------------------- */

enum { COST, PARTITION }; /* in a pending's data */

static int pending_begin(ext_pending *pending)
{
    Limiter *self = (Limiter *)pending->owner;
    return weir_limit_acquire_async(self->limit, pending->data[COST],
                                    (unsigned)pending->data[PARTITION], &pending->core);
}

static bool pending_cancel(ext_pending *pending)
{
    return weir_limit_cancel(((Limiter *)pending->owner)->limit, &pending->core);
}

static void pending_permit(ext_pending *pending, weir_permit *ret_permit)
{
    weir_limit_begin(((Limiter *)pending->owner)->limit, pending->data[COST],
                     (unsigned)pending->data[PARTITION], ret_permit);
}

static void pending_give_back(ext_pending *pending)
{
    weir_permit permit;
    pending_permit(pending, &permit);
    weir_limit_release(((Limiter *)pending->owner)->limit, &permit, WEIR_LIMIT_IGNORE);
}

static PyObject *pending_claim(ext_pending *pending)
{
    weir_permit permit;
    pending_permit(pending, &permit);
    return permit_new((Limiter *)pending->owner, &permit);
}

static const ext_pending_kind pending_kind = {
    .begin = pending_begin,
    .cancel = pending_cancel,
    .give_back = pending_give_back,
    .claim = pending_claim,
};

PyDoc_STRVAR(pend_doc, "_pend($self, ready, partition=None, cost=1, /)\n--\n\n"
                       "Join the line for a coroutine: weir._aio.wait drives the place in line.");

static PyObject *Limiter_pend(Limiter *self, PyObject *const *args, Py_ssize_t n_args)
{
    uint64_t cost;
    unsigned partition;
    if (n_args < 1 || n_args > 3) {
        PyErr_SetString(PyExc_TypeError, "_pend() takes ready, partition and cost");
        return NULL;
    }
    if (parse_partition(self, n_args > 1 ? args[1] : NULL, &partition) < 0 ||
        parse_cost(n_args > 2 ? args[2] : NULL, &cost) < 0 || !limit_of(self))
        return NULL;
    ext_pending *pending =
        ext_pending_new(self->state, (PyObject *)self, &self->line, &pending_kind, args[0]);
    if (!pending)
        return NULL;
    pending->data[COST] = cost;
    pending->data[PARTITION] = partition;
    return ext_pending_begin(pending);
}

/* ---- with ---------------------------------------------------------------------------------- */

/* An open `with` block of an adaptive limit, in a context. */
typedef struct Block {
    PyObject_HEAD PyObject *outer; /* the Block around it in the same context, or NULL */
    PyObject *token; /* of the context before it; refers to that, and it to the Block */
    weir_permit core;
    unsigned generation;
    bool is_over;
} Block;

static int block_traverse(Block *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->outer);
    Py_VISIT(self->token);
    return 0;
}

static int block_clear(Block *self)
{
    Py_CLEAR(self->outer);
    Py_CLEAR(self->token);
    return 0;
}

static void block_dealloc(Block *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    block_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyType_Slot block_slots[] = {
    {Py_tp_doc, (void *)"A `with` block that is open."},
    {Py_tp_dealloc, block_dealloc},
    {Py_tp_traverse, block_traverse},
    {Py_tp_clear, block_clear},
    {0, NULL},
};

static PyType_Spec block_spec = {
    .name = "weir._weir.LimitBlock",
    .basicsize = sizeof(Block),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = block_slots,
};

/* The outermost block takes its entry out of the context, or each limiter would leave one there. */
static void set_open_to_outer(Limiter *self, Block *ended, PyObject *outer)
{
    PyObject *token = ended ? ended->token : NULL;
    bool is_outermost = !outer || outer == Py_None;
    if (ended)
        ended->token = NULL;
    if (!token || !is_outermost || PyContextVar_Reset(self->open, token) < 0) {
        PyErr_Clear(); /* it began in another context, which this is a copy of */
        Py_XSETREF(token, PyContextVar_Set(self->open, is_outermost ? Py_None : outer));
        if (!token)
            PyErr_Clear();
    }
    Py_XDECREF(token);
}

/* Notes when the block began; -1 with an exception. */
static int note_block(Limiter *self, const weir_permit *permit)
{
    PyTypeObject *type = self->state->limit_block_type;
    PyObject *outer;
    if (PyContextVar_Get(self->open, NULL, &outer) < 0)
        return -1;
    Block *block = (Block *)type->tp_alloc(type, 0);
    if (!block) {
        Py_XDECREF(outer);
        return -1;
    }
    block->outer = outer; /* those that are over are not kept */
    while (block->outer && block->outer != Py_None && ((Block *)block->outer)->is_over) {
        PyObject *next = ((Block *)block->outer)->outer;
        Py_XSETREF(block->outer, Py_XNewRef(next));
    }
    block->core = *permit;
    block->generation = ext_fork_generation();
    block->token = PyContextVar_Set(self->open, (PyObject *)block);
    int rc = block->token ? 0 : -1;
    Py_DECREF(block);
    return rc;
}

/* When the newest open block of this context began, which ends now; 0: there is none. */
static weir_time end_block(Limiter *self)
{
    PyObject *newest;
    weir_time since = 0;
    if (PyContextVar_Get(self->open, NULL, &newest) < 0) {
        PyErr_Clear();
        return 0;
    }
    PyObject *at = newest;
    Block *ended = NULL;
    while (at && at != Py_None && since == 0) {
        Block *block = (Block *)at;
        EXT_LOCK(&self->lock);
        bool was_over = block->is_over;
        block->is_over = true;
        EXT_UNLOCK(&self->lock);
        if (!was_over)
            ended = block;
        if (!was_over && block->generation == ext_fork_generation())
            since = block->core.since;
        at = block->outer;
    }
    set_open_to_outer(self, ended, at);
    Py_XDECREF(newest);
    return since;
}

/* One more block of this process is open, or one less; false: none was. */
static bool count_block(Limiter *self, int by)
{
    unsigned generation = ext_fork_generation();
    EXT_LOCK(&self->lock);
    if (self->entered_generation != generation) { /* those are the parent's */
        self->entered_generation = generation;
        self->entered = 0;
    }
    bool is_fine = by > 0 || self->entered > 0;
    if (is_fine)
        self->entered += (size_t)by;
    EXT_UNLOCK(&self->lock);
    return is_fine;
}

static int enter(Limiter *self, const weir_permit *permit)
{
    if (self->open && note_block(self, permit) < 0) {
        weir_limit_release(self->limit, permit, WEIR_LIMIT_IGNORE);
        return -1;
    }
    count_block(self, 1);
    return 0;
}

static PyObject *Limiter_enter(Limiter *self, PyObject *Py_UNUSED(ignored))
{
    unsigned partition;
    weir_permit permit;
    if (parse_partition(self, NULL, &partition) < 0 || !limit_of(self))
        return NULL;
    int rc = acquire(self, 1, partition, EXT_FOREVER_NS, &permit);
    if (rc < 0)
        return raise_acquire(self, rc, 1);
    if (enter(self, &permit) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(try_enter_doc, "_try_enter($self, /)\n--\n\n"
                            "__enter__() if it need not wait; whether it did.");

static PyObject *Limiter_try_enter(Limiter *self, PyObject *Py_UNUSED(ignored))
{
    unsigned partition;
    weir_permit permit;
    if (parse_partition(self, NULL, &partition) < 0 || !limit_of(self))
        return NULL;
    int rc = weir_limit_acquire(self->limit, 1, partition, WEIR_PROBE, &permit);
    if (rc == WEIR_EFULL || rc == WEIR_ETIMEDOUT)
        Py_RETURN_FALSE;
    if (rc < 0)
        return raise_acquire(self, rc, 1);
    if (enter(self, &permit) < 0)
        return NULL;
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(enter_with_doc, "_enter_with($self, permit, /)\n--\n\n"
                             "__enter__() with the place of a permit, which is empty after it.");

static PyObject *Limiter_enter_with(Limiter *self, PyObject *object)
{
    Permit *permit = (Permit *)object;
    if (Py_TYPE(object) != self->state->limit_permit_type || permit->limiter != self) {
        PyErr_SetString(PyExc_TypeError, "_enter_with() needs a permit of this limiter");
        return NULL;
    }
    EXT_LOCK(&self->lock);
    bool held = permit->held;
    permit->held = false;
    EXT_UNLOCK(&self->lock);
    if (held && enter(self, &permit->core) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *Limiter_exit(Limiter *self, PyObject *const *args, Py_ssize_t n_args)
{
    weir_permit permit = {.cost = 1};
    weir_limit_report report = (weir_limit_report)report_of(self, n_args > 0 ? args[0] : Py_None);
    if (self->open)
        permit.since = end_block(self);
    if (self->limit && count_block(self, -1))
        weir_limit_release(self->limit, &permit, report);
    Py_RETURN_NONE;
}

/* ---- looking ------------------------------------------------------------------------------- */

PyDoc_STRVAR(close_doc,
             "close($self, /)\n--\n\n"
             "Admit nobody any more; those of this process who wait get weir.ShutDown.\n\n"
             "What is in flight goes on.  A shared limiter stays open for the other processes.");

static PyObject *Limiter_close(Limiter *self, PyObject *Py_UNUSED(ignored))
{
    if (!limit_of(self))
        return NULL;
    weir_limit_close(self->limit);
    Py_RETURN_NONE;
}

static int set_item(PyObject *dict, const char *name, PyObject *value)
{
    int rc = value ? PyDict_SetItemString(dict, name, value) : -1;
    Py_XDECREF(value);
    return rc;
}

static PyObject *by_partition(Limiter *self, const weir_limit_snapshot *now)
{
    PyObject *dict = PyDict_New(), *name, *number;
    Py_ssize_t at = 0;
    while (dict && self->partitions && PyDict_Next(self->partitions, &at, &name, &number)) {
        unsigned long i = PyLong_AsUnsignedLong(number);
        PyObject *used = PyLong_FromUnsignedLongLong(now->used_by[i]);
        if (!used || PyDict_SetItem(dict, name, used) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(used);
    }
    return dict;
}

static PyObject *seconds_or_none(int64_t ns)
{
    return ns > 0 ? PyFloat_FromDouble((double)ns / 1e9) : Py_NewRef(Py_None);
}

static const char *const algorithms[] = {
    [WEIR_LIMIT_FIXED] = "fixed",
    [WEIR_LIMIT_AIMD] = "aimd",
    [WEIR_LIMIT_VEGAS] = "vegas",
    [WEIR_LIMIT_GRADIENT2] = "gradient2",
};

PyDoc_STRVAR(snapshot_doc, "_snapshot($self, /)\n--\n\nThe fields of weir.LimiterStats.");

static PyObject *Limiter_snapshot(Limiter *self, PyObject *Py_UNUSED(ignored))
{
    if (!limit_of(self))
        return NULL;
    weir_limit_snapshot now = WEIR_LIMIT_SNAPSHOT_INIT;
    weir_limit_get_snapshot(self->limit, &now);
    PyObject *dict = PyDict_New();
    if (!dict)
        return NULL;
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"limit", now.limit},       {"in_flight", now.in_flight}, {"used", now.used},
        {"peak", now.peak},         {"waiting", now.waiting},     {"admitted", now.admitted},
        {"released", now.released}, {"refused", now.refused},     {"shed", now.shed},
        {"lost", now.lost},         {"samples", now.samples},     {"drops", now.drops},
    };
    int rc = 0;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers && rc == 0; i++)
        rc = set_item(dict, numbers[i].name, PyLong_FromUnsignedLongLong(numbers[i].value));
    if (rc < 0 ||
        set_item(dict, "algorithm", PyUnicode_FromString(algorithms[now.algorithm])) < 0 ||
        set_item(dict, "why", PyUnicode_FromString(weir_limit_why((int)now.reason))) < 0 ||
        set_item(dict, "latency", seconds_or_none(now.rtt_ns)) < 0 ||
        set_item(dict, "baseline", seconds_or_none(now.baseline_ns)) < 0 ||
        set_item(dict, "partitions", by_partition(self, &now)) < 0 ||
        set_item(dict, "blocked", PyFloat_FromDouble((double)now.blocked_ns / 1e9)) < 0 ||
        set_item(dict, "is_closed", PyBool_FromLong(now.is_closed)) < 0)
        Py_CLEAR(dict);
    return dict;
}

static PyObject *Limiter_get_limit(Limiter *self, void *Py_UNUSED(closure))
{
    return limit_of(self) ? PyLong_FromUnsignedLongLong(weir_limit_get(self->limit)) : NULL;
}

static int parse_limit(PyObject *value, uint64_t *ret)
{
    PyObject *index = PyBool_Check(value) ? NULL : PyNumber_Index(value);
    if (!index) {
        if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "limit must be an int, not %R", value);
        return -1;
    }
    int overflow;
    long long n = PyLong_AsLongLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (overflow || n < 1 || n >= INT64_C(1) << 46) {
        PyErr_Format(PyExc_ValueError, "limit must be from 1 to 2**46 - 1, not %R", value);
        return -1;
    }
    *ret = (uint64_t)n;
    return 0;
}

static int Limiter_set_limit(Limiter *self, PyObject *value, void *Py_UNUSED(closure))
{
    uint64_t n;
    if (!value) {
        PyErr_SetString(PyExc_AttributeError, "the limit cannot be deleted");
        return -1;
    }
    if (parse_limit(value, &n) < 0 || !limit_of(self))
        return -1;
    if (weir_limit_set(self->limit, n) == WEIR_OK)
        return 0;
    PyErr_SetString(PyExc_AttributeError,
                    "an adaptive limit finds itself; only a fixed one can be set");
    return -1;
}

static PyObject *Limiter_get_in_flight(Limiter *self, void *Py_UNUSED(closure))
{
    return limit_of(self) ? PyLong_FromUnsignedLongLong(weir_limit_used(self->limit)) : NULL;
}

/* ---- beginning and end --------------------------------------------------------------------- */

static double seconds_to_ns(double seconds)
{
    return seconds * 1e9 < 9e18 ? seconds * 1e9 : 9e18;
}

/* weir._limit has checked types, and says what is out of range; what it has not seen is EINVAL. */
static int parse_opts(PyObject *algorithm, weir_limit_opts *opts)
{
    const char *name = PyUnicode_Check(algorithm) ? PyUnicode_AsUTF8(algorithm) : "";
    for (size_t i = 0; name && i < sizeof algorithms / sizeof *algorithms; i++) {
        if (strcmp(name, algorithms[i]) == 0) {
            opts->algorithm = (weir_limit_algorithm)i;
            return 0;
        }
    }
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_ValueError, "there is no algorithm %R", algorithm);
    return -1;
}

/* The numbers of an adaptive limit, as weir._limit writes them: a tuple. */
static int parse_settings(PyObject *settings, weir_limit_opts *opts)
{
    PyObject *algorithm;
    double timeout, window, probe_interval;
    int rtt;
    unsigned long long initial, least, most;
    if (!PyArg_ParseTuple(settings, "UKKKdddddddidIdd:settings", &algorithm, &initial, &least,
                          &most, &timeout, &opts->backoff, &opts->alpha, &opts->beta,
                          &opts->smoothing, &opts->tolerance, &opts->queue, &rtt, &opts->quantile,
                          &opts->window_samples, &window, &probe_interval) ||
        parse_opts(algorithm, opts) < 0)
        return -1;
    opts->limit = initial;
    opts->min_limit = least;
    opts->max_limit = most;
    opts->timeout_ns = (int64_t)seconds_to_ns(timeout);
    opts->window_ns = (int64_t)seconds_to_ns(window);
    opts->rtt = (weir_limit_rtt)rtt;
    opts->probe_interval_ns =
        probe_interval < 0 ? WEIR_FOREVER : (int64_t)seconds_to_ns(probe_interval);
    return 0;
}

static int parse_shares(PyObject *partitions, weir_limit_opts *opts, PyObject **ret_names)
{
    *ret_names = NULL;
    if (partitions == Py_None)
        return 0;
    if (!PyDict_Check(partitions) || PyDict_GET_SIZE(partitions) == 0 ||
        PyDict_GET_SIZE(partitions) > (Py_ssize_t)WEIR_LIMIT_PARTITIONS) {
        PyErr_Format(PyExc_ValueError,
                     "partitions must be a dict of 1 to 8 names and shares, not %R", partitions);
        return -1;
    }
    PyObject *names = PyDict_New(), *name, *share;
    Py_ssize_t at = 0;
    while (names && PyDict_Next(partitions, &at, &name, &share)) {
        double value = PyFloat_AsDouble(share);
        PyObject *number = PyErr_Occurred() ? NULL : PyLong_FromUnsignedLong(opts->n_partitions);
        if (!number || PyDict_SetItem(names, name, number) < 0)
            Py_CLEAR(names);
        Py_XDECREF(number);
        opts->shares[opts->n_partitions++] = value;
    }
    *ret_names = names;
    return names ? 0 : -1;
}

static int create(Limiter *self, const weir_limit_opts *opts)
{
    int rc = weir_limit_create(&self->limit, opts);
    if (rc == WEIR_OK) {
        weir_limit_snapshot now = WEIR_LIMIT_SNAPSHOT_INIT;
        weir_limit_get_snapshot(self->limit, &now);
        self->is_adaptive = now.algorithm != WEIR_LIMIT_FIXED;
        self->is_shared = opts->shared != NULL;
        self->generation = ext_fork_generation();
        self->open = self->is_adaptive ? PyContextVar_New("weir.Limiter", NULL) : NULL;
        return self->is_adaptive && !self->open ? -1 : 0;
    }
    if (opts->shared)
        ext_raise_shared(self->state, rc, "limiter", opts->shared);
    else
        ext_raise(self->state, rc);
    return -1;
}

static int Limiter_init(Limiter *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"settings",   "partitions",    "lifo",
                                        "shed_after", "shed_interval", "shared",
                                        "drop_on",    "name",          NULL};
    PyObject *settings, *partitions, *drop_on, *shared, *name = NULL;
    int lifo;
    double shed_after, shed_interval;
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!OpddOO|O:Limiter", (char **)names,
                                     &PyTuple_Type, &settings, &partitions, &lifo, &shed_after,
                                     &shed_interval, &shared, &drop_on, &name) ||
        ext_parse_shared(shared, &opts.shared) < 0)
        return -1;
    if (self->limit) {
        PyErr_SetString(PyExc_RuntimeError, "weir.Limiter.__init__() has been called already");
        return -1;
    }
    self->state = ext_state_of(Py_TYPE(self));
    PyObject *numbers;
    if (!self->state || parse_settings(settings, &opts) < 0 ||
        parse_shares(partitions, &opts, &numbers) < 0)
        return -1;
    Py_XSETREF(self->partitions, numbers);
    Py_XSETREF(self->drop_on, Py_NewRef(drop_on));
    opts.lifo = lifo;
    opts.name = ext_shown_name(name);
    opts.shed_after_ns = (int64_t)seconds_to_ns(shed_after);
    opts.shed_interval_ns = (int64_t)seconds_to_ns(shed_interval);
    return create(self, &opts);
}

static int Limiter_traverse(Limiter *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->drop_on);
    Py_VISIT(self->partitions);
    Py_VISIT(self->open);
    return ext_line_traverse(&self->line, visit, arg);
}

static int Limiter_clear(Limiter *self)
{
    ext_line_clear(&self->line);
    Py_CLEAR(self->drop_on);
    return 0;
}

static void Limiter_dealloc(Limiter *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs)
        PyObject_ClearWeakRefs((PyObject *)self);
    bool is_ours = self->is_shared || self->generation == ext_fork_generation();
    if (is_ours && self->waiting == 0)
        weir_limit_destroy(self->limit);
    Py_XDECREF(self->drop_on);
    Py_XDECREF(self->partitions);
    Py_XDECREF(self->open);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

#define FAST(name) (PyCFunction)(void (*)(void)) Limiter_##name, METH_FASTCALL | METH_KEYWORDS

static PyMethodDef limiter_methods[] = {
    {"acquire", FAST(acquire), acquire_doc},
    {"try_acquire", FAST(try_acquire), try_acquire_doc},
    {"close", (PyCFunction)Limiter_close, METH_NOARGS, close_doc},
    {"_probe", (PyCFunction)(void (*)(void))Limiter_probe, METH_FASTCALL, probe_doc},
    {"_count_refused", (PyCFunction)Limiter_count_refused, METH_NOARGS, count_refused_doc},
    {"_stand", (PyCFunction)(void (*)(void))Limiter_stand, METH_FASTCALL, stand_doc},
    {"_pend", (PyCFunction)(void (*)(void))Limiter_pend, METH_FASTCALL, pend_doc},
    {"_try_enter", (PyCFunction)Limiter_try_enter, METH_NOARGS, try_enter_doc},
    {"_enter_with", (PyCFunction)Limiter_enter_with, METH_O, enter_with_doc},
    {"_snapshot", (PyCFunction)Limiter_snapshot, METH_NOARGS, snapshot_doc},
    {"__enter__", (PyCFunction)Limiter_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))Limiter_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef limiter_properties[] = {
    {"limit", (getter)Limiter_get_limit, (setter)Limiter_set_limit,
     "The limit now; a fixed one can be set while it is in use.", NULL},
    {"in_flight", (getter)Limiter_get_in_flight, NULL,
     "The cost of the calls in flight (each 1, if nothing else was said).", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef limiter_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Limiter, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot limiter_slots[] = {
    {Py_tp_doc, (void *)"What weir.Limiter is made of."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, Limiter_init},
    {Py_tp_traverse, Limiter_traverse},
    {Py_tp_clear, Limiter_clear},
    {Py_tp_dealloc, Limiter_dealloc},
    {Py_tp_methods, limiter_methods},
    {Py_tp_getset, limiter_properties},
    {Py_tp_members, limiter_members},
    {0, NULL},
};

static PyType_Spec limiter_spec = {
    .name = "weir._weir.Limiter",
    .basicsize = sizeof(Limiter),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = limiter_slots,
};

/* ---- the arithmetic alone ------------------------------------------------------------------- */

typedef struct Model {
    PyObject_HEAD weir_limit_model *model;
} Model;

static PyObject *Model_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"settings", NULL};
    PyObject *settings;
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    module_state *state = ext_state_of(type);
    if (!state ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "O!:LimitModel", (char **)names, &PyTuple_Type,
                                     &settings) ||
        parse_settings(settings, &opts) < 0)
        return NULL;
    Model *self = (Model *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    int rc = weir_limit_model_create(&self->model, &opts, 0);
    if (rc < 0) {
        Py_DECREF(self);
        return ext_raise(state, rc);
    }
    return (PyObject *)self;
}

PyDoc_STRVAR(
    sample_doc,
    "sample($self, now, latency, in_flight, dropped=False, /)\n--\n\n"
    "A call has ended at `now` that took `latency` (both in seconds, any clock), while so many\n"
    "were in flight, itself included.  Returns the limit from then on.");

static PyObject *Model_sample(Model *self, PyObject *const *args, Py_ssize_t n_args)
{
    if (n_args < 3 || n_args > 4) {
        PyErr_SetString(PyExc_TypeError, "sample() takes now, latency, in_flight and dropped");
        return NULL;
    }
    double now = PyFloat_AsDouble(args[0]), latency = PyFloat_AsDouble(args[1]);
    unsigned long long in_flight = PyErr_Occurred() ? 0 : PyLong_AsUnsignedLongLong(args[2]);
    int dropped = n_args == 4 && !PyErr_Occurred() ? PyObject_IsTrue(args[3]) : 0;
    if (PyErr_Occurred())
        return NULL;
    if (!(now >= 0 && now < 9e9) || !(latency > 0 && latency < 9e9)) {
        PyErr_SetString(PyExc_ValueError, "now must be >= 0 and latency > 0, in seconds");
        return NULL;
    }
    int64_t rtt_ns = (int64_t)(latency * 1e9);
    uint64_t limit;
    EXT_BEGIN_CRITICAL_SECTION(self);
    limit = weir_limit_model_sample(self->model, (weir_time)(now * 1e9), rtt_ns > 0 ? rtt_ns : 1,
                                    in_flight, dropped ? WEIR_LIMIT_DROP : WEIR_LIMIT_SUCCESS);
    EXT_END_CRITICAL_SECTION();
    return PyLong_FromUnsignedLongLong(limit);
}

static weir_limit_snapshot look_at(Model *self)
{
    weir_limit_snapshot now = WEIR_LIMIT_SNAPSHOT_INIT;
    EXT_BEGIN_CRITICAL_SECTION(self);
    weir_limit_model_get_snapshot(self->model, &now);
    EXT_END_CRITICAL_SECTION();
    return now;
}

static PyObject *Model_limit(Model *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(look_at(self).limit);
}

static PyObject *Model_why(Model *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(weir_limit_why((int)look_at(self).reason));
}

static PyObject *Model_baseline(Model *self, void *Py_UNUSED(closure))
{
    return seconds_or_none(look_at(self).baseline_ns);
}

static void Model_dealloc(Model *self)
{
    PyTypeObject *type = Py_TYPE(self);
    weir_limit_model_destroy(self->model);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef model_methods[] = {
    {"sample", (PyCFunction)(void (*)(void))Model_sample, METH_FASTCALL, sample_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef model_properties[] = {
    {"limit", (getter)Model_limit, NULL, "The limit now.", NULL},
    {"why", (getter)Model_why, NULL, "Why it is what it is, in words.", NULL},
    {"baseline", (getter)Model_baseline, NULL,
     "Seconds that a call takes when nobody waits; None: not known, or not needed.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot model_slots[] = {
    {Py_tp_doc, (void *)"What weir.LimitModel is made of."},
    {Py_tp_new, Model_new},
    {Py_tp_dealloc, Model_dealloc},
    {Py_tp_methods, model_methods},
    {Py_tp_getset, model_properties},
    {0, NULL},
};

static PyType_Spec model_spec = {
    .name = "weir._weir.LimitModel",
    .basicsize = sizeof(Model),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = model_slots,
};

int ext_limiter_types_add(PyObject *module, module_state *state)
{
    PyTypeObject *type;
    if (ext_add_type(module, &permit_spec, &state->limit_permit_type) < 0 ||
        ext_add_type(module, &limiter_spec, &state->limiter_type) < 0)
        return -1;
    if (ext_add_type(module, &model_spec, &type) < 0)
        return -1;
    Py_DECREF(type); /* the module keeps it */
    state->limit_block_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &block_spec, NULL);
    return state->limit_block_type ? 0 : -1;
}
