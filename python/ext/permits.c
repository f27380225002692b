/* permits.c - weir._weir.Permits: so many permits, given out in the order they were asked for; and
 * weir._weir.BacklogPermit: the place of one of them.
 *
 * What bounds an executor: a fixed weir_limit.
 *
 * Ownership:  a permit that is out is in exactly one BacklogPermit, which gives it back once: by
 *             release(), or when it is deallocated.
 * Invariant:  in_use <= capacity.
 * Fork:       in a forked child nothing is given back, and every other call raises.
 */
#include "module.h"

#define ANY_NUMBER ((UINT64_C(1) << 46) - 1) /* the largest limit */

typedef struct Permits {
    PyObject_HEAD module_state *state;
    weir_limit *limit;
    unsigned generation;
    ext_lock lock;
    size_t waiting; /* calls that are without the GIL */
    ext_line line;  /* coroutines that wait */
} Permits;

typedef struct {
    PyObject_HEAD Permits *permits;
    bool held;
} BacklogPermit;

static bool is_usable(Permits *self)
{
    if (self->generation == ext_fork_generation())
        return true;
    PyErr_SetString(PyExc_RuntimeError,
                    "this executor belongs to the parent process; a forked child cannot use it");
    return false;
}

static int acquire(Permits *self, weir_time deadline)
{
    weir_permit permit;
    return weir_limit_acquire(self->limit, 1, 0, deadline, &permit);
}

static void release(Permits *self)
{
    const weir_permit permit = {.cost = 1};
    weir_limit_release(self->limit, &permit, WEIR_LIMIT_IGNORE);
}

static int acquire_waiting(Permits *self, int64_t timeout_ns)
{
    EXT_LOCK(&self->lock);
    self->waiting++;
    EXT_UNLOCK(&self->lock);
    weir_time deadline = ext_deadline(timeout_ns);
    ext_wait wait;
    ext_wait_begin(&wait);
    int rc = acquire(self, deadline);
    ext_wait_end(&wait);
    EXT_LOCK(&self->lock);
    self->waiting--;
    EXT_UNLOCK(&self->lock);
    if (rc >= 0 && PyErr_Occurred()) { /* a signal handler raised meanwhile */
        release(self);
        rc = WEIR_EINTR;
    }
    return rc;
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
                        "Give out no permits any more; those who wait get weir.ShutDown.");

static PyObject *Permits_close(Permits *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    weir_limit_close(self->limit);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(stats_doc,
             "stats($self, /)\n--\n\n"
             "(permits in use, threads that wait for one, seconds they waited) at one instant.");

static PyObject *Permits_stats(Permits *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    weir_limit_snapshot now = WEIR_LIMIT_SNAPSHOT_INIT;
    weir_limit_get_snapshot(self->limit, &now);
    return Py_BuildValue("(nnd)", (Py_ssize_t)now.used, (Py_ssize_t)now.waiting,
                         (double)now.blocked_ns / 1e9);
}

static PyObject *Permits_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *given;
    static const char *const names[] = {"", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Permits", (char **)names, &given))
        return NULL;
    Py_ssize_t capacity = given == Py_None ? 0 : PyLong_AsSsize_t(given);
    if (capacity == -1 && PyErr_Occurred())
        return NULL;
    module_state *state = ext_state_of(type);
    Permits *self = state ? (Permits *)type->tp_alloc(type, 0) : NULL;
    if (!self)
        return NULL;
    self->state = state;
    self->generation = ext_fork_generation();
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    opts.limit = capacity > 0 ? (uint64_t)capacity : 0;
    if (given == Py_None || opts.limit > ANY_NUMBER)
        opts.limit = ANY_NUMBER;
    int rc = weir_limit_create(&self->limit, &opts);
    if (rc < 0) {
        Py_DECREF(self);
        return ext_raise(state, rc);
    }
    return (PyObject *)self;
}

static int Permits_traverse(Permits *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return ext_line_traverse(&self->line, visit, arg);
}

static int Permits_clear(Permits *self)
{
    ext_line_clear(&self->line);
    return 0;
}

static void Permits_dealloc(Permits *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->generation == ext_fork_generation() && self->waiting == 0)
        weir_limit_destroy(self->limit);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* ---- waiting in a coroutine ---------------------------------------------------------------- */

static Permits *permits_of(const ext_pending *pending)
{
    return (Permits *)pending->owner;
}

static int pending_begin(ext_pending *pending)
{
    return weir_limit_acquire_async(permits_of(pending)->limit, 1, 0, &pending->core);
}

static bool pending_cancel(ext_pending *pending)
{
    return weir_limit_cancel(permits_of(pending)->limit, &pending->core);
}

static void pending_give_back(ext_pending *pending)
{
    release(permits_of(pending));
}

static PyObject *pending_claim(ext_pending *pending)
{
    PyTypeObject *type = pending->module->backlog_permit_type;
    BacklogPermit *permit = (BacklogPermit *)type->tp_alloc(type, 0);
    if (!permit) {
        pending_give_back(pending);
        return NULL;
    }
    permit->permits = (Permits *)Py_NewRef(pending->owner);
    permit->held = true;
    return (PyObject *)permit;
}

static const ext_pending_kind pending_kind = {
    .begin = pending_begin,
    .cancel = pending_cancel,
    .give_back = pending_give_back,
    .claim = pending_claim,
};

PyDoc_STRVAR(pend_doc, "pend($self, ready, /)\n--\n\n"
                       "Join the line for a coroutine: weir._weir.wait drives the place in line.");

static PyObject *Permits_pend(Permits *self, PyObject *ready)
{
    if (!is_usable(self))
        return NULL;
    ext_pending *pending =
        ext_pending_new(self->state, (PyObject *)self, &self->line, &pending_kind, ready);
    return pending ? ext_pending_begin(pending) : NULL;
}

static PyMethodDef permits_methods[] = {
    {"close", (PyCFunction)Permits_close, METH_NOARGS, close_doc},
    {"stats", (PyCFunction)Permits_stats, METH_NOARGS, stats_doc},
    {"pend", (PyCFunction)Permits_pend, METH_O, pend_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot permits_slots[] = {
    {Py_tp_doc, (void *)"Permits(capacity, /)\n--\n\nSo many permits (None: any number), first "
                        "come, first served."},
    {Py_tp_new, Permits_new},
    {Py_tp_dealloc, Permits_dealloc},
    {Py_tp_traverse, Permits_traverse},
    {Py_tp_clear, Permits_clear},
    {Py_tp_methods, permits_methods},
    {0, NULL},
};

static PyType_Spec permits_spec = {
    .name = "weir._weir.Permits",
    .basicsize = sizeof(Permits),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = permits_slots,
};

/* ---- one permit ---------------------------------------------------------------------------- */

static bool set_held(BacklogPermit *self, bool held)
{
    EXT_LOCK(&self->permits->lock);
    bool before = self->held;
    self->held = held;
    EXT_UNLOCK(&self->permits->lock);
    return before;
}

static void give_back(BacklogPermit *self)
{
    if (set_held(self, false) && self->permits->generation == ext_fork_generation())
        release(self->permits);
}

PyDoc_STRVAR(
    acquire_doc,
    "acquire($self, timeout=None)\n--\n\n"
    "Get a permit, waiting in line for up to `timeout` seconds; whether it holds one now.\n\n"
    "Raises weir.ShutDown once closed.");

static PyObject *permit_acquire(BacklogPermit *self, PyObject *const *args, Py_ssize_t n_args,
                                PyObject *kwnames)
{
    static const char *const names[] = {"timeout", NULL};
    PyObject *given[1];
    int64_t timeout_ns;
    Permits *permits = self->permits;
    if (ext_parse_args("acquire", names, 1, 0, args, n_args, kwnames, given) < 0 ||
        ext_parse_timeout(given[0], "timeout", &timeout_ns) < 0 || !is_usable(permits))
        return NULL;
    if (self->held)
        Py_RETURN_TRUE;
    int rc = acquire(permits, WEIR_POLL);
    if (rc == WEIR_EFULL && timeout_ns > 0)
        rc = acquire_waiting(permits, timeout_ns);
    if (rc == WEIR_EFULL || rc == WEIR_ETIMEDOUT)
        Py_RETURN_FALSE;
    if (rc < 0)
        return ext_raise(permits->state, rc);
    if (set_held(self, true)) /* another thread was quicker: one is enough */
        release(permits);
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(take_doc, "take($self, other, /)\n--\n\n"
                       "Take over the permit that `other` holds; whether it held one.");

static PyObject *permit_take(BacklogPermit *self, PyObject *object)
{
    BacklogPermit *other = (BacklogPermit *)object;
    if (Py_TYPE(object) != Py_TYPE(self) || other->permits != self->permits) {
        PyErr_SetString(PyExc_TypeError, "take() needs a permit of the same Permits");
        return NULL;
    }
    if (self == other || !set_held(other, false))
        Py_RETURN_FALSE;
    if (set_held(self, true) && is_usable(self->permits))
        release(self->permits);
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(release_doc, "release($self, /)\n--\n\n"
                          "Give the permit back now; nothing if none is held.");

static PyObject *permit_release(BacklogPermit *self, PyObject *Py_UNUSED(ignored))
{
    give_back(self);
    Py_RETURN_NONE;
}

static PyObject *permit_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    module_state *state = ext_state_of(type);
    PyObject *permits;
    static const char *const names[] = {"", NULL};
    if (!state || !PyArg_ParseTupleAndKeywords(args, kwargs, "O!:BacklogPermit", (char **)names,
                                               state->permits_type, &permits))
        return NULL;
    BacklogPermit *self = (BacklogPermit *)type->tp_alloc(type, 0);
    if (self)
        self->permits = (Permits *)Py_NewRef(permits);
    return (PyObject *)self;
}

static void permit_dealloc(BacklogPermit *self)
{
    PyTypeObject *type = Py_TYPE(self);
    give_back(self);
    Py_DECREF(self->permits);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef permit_methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))permit_acquire, METH_FASTCALL | METH_KEYWORDS,
     acquire_doc},
    {"take", (PyCFunction)permit_take, METH_O, take_doc},
    {"release", (PyCFunction)permit_release, METH_NOARGS, release_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot permit_slots[] = {
    {Py_tp_doc,
     (void *)"BacklogPermit(permits, /)\n--\n\nThe place of one permit; empty at first."},
    {Py_tp_new, permit_new},
    {Py_tp_dealloc, permit_dealloc},
    {Py_tp_methods, permit_methods},
    {0, NULL},
};

static PyType_Spec permit_spec = {
    .name = "weir._weir.BacklogPermit",
    .basicsize = sizeof(BacklogPermit),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = permit_slots,
};

int ext_permits_types_add(PyObject *module, module_state *state)
{
    if (ext_add_type(module, &permits_spec, &state->permits_type) < 0)
        return -1;
    return ext_add_type(module, &permit_spec, &state->backlog_permit_type);
}
