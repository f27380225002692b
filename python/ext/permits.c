/* permits.c - weir._weir.Permits: so many permits, given out in the order they were asked for; and
 * weir._weir.BacklogPermit: the place of one of them.
 *
 * What bounds an executor.  Permits is a weir_queue with bound_in_flight that holds nothing: to
 * acquire is to put an item and take it at once, so that it is in flight until it is released.  Put
 * and take are one C call: a signal cannot come between them and keep a permit for ever.
 *
 * Ownership:  a permit that is out is in exactly one BacklogPermit, which gives it back once: by
 *             release(), or when it is deallocated.
 * Invariant:  in_use <= capacity (after a resize to less: once the surplus was released).
 * Fork:       in a forked child nothing is given back, and every other call raises.
 */
#include "module.h"

typedef struct Permits {
    PyObject_HEAD module_state *state;
    weir_queue *queue;
    unsigned generation;
    ext_lock lock;
    size_t waiting; /* calls that are without the GIL */
} Permits;

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
    int rc = weir_queue_put(self->queue, NULL, 0, deadline);
    if (rc < 0)
        return rc;
    void *nothing;
    return weir_queue_get(self->queue, &nothing, WEIR_POLL); /* there is one for each put */
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
        weir_queue_done(self->queue, 1, 0);
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
    weir_queue_close(self->queue);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(stats_doc,
             "stats($self, /)\n--\n\n"
             "(permits in use, threads that wait for one, seconds they waited) at one instant.");

static PyObject *Permits_stats(Permits *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    weir_queue_snapshot now = WEIR_QUEUE_SNAPSHOT_INIT;
    weir_queue_get_snapshot(self->queue, &now);
    return Py_BuildValue("(nnd)", (Py_ssize_t)(now.depth + now.in_flight),
                         (Py_ssize_t)now.putters_waiting, (double)now.put_blocked_ns / 1e9);
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
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    if (given == Py_None)
        opts.capacity = WEIR_UNBOUNDED;
    else
        opts.capacity = capacity > 0 ? (size_t)capacity : 0;
    opts.bound_in_flight = true;
    opts.on_drop = weir_drop_ignore;
    int rc = weir_queue_create(&self->queue, &opts);
    if (rc < 0) {
        Py_DECREF(self);
        return ext_raise(state, rc);
    }
    return (PyObject *)self;
}

static int Permits_traverse(Permits *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void Permits_dealloc(Permits *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->generation == ext_fork_generation() && self->waiting == 0)
        weir_queue_destroy(self->queue);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef permits_methods[] = {
    {"close", (PyCFunction)Permits_close, METH_NOARGS, close_doc},
    {"stats", (PyCFunction)Permits_stats, METH_NOARGS, stats_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot permits_slots[] = {
    {Py_tp_doc, (void *)"Permits(capacity, /)\n--\n\nSo many permits (None: any number), first "
                        "come, first served."},
    {Py_tp_new, Permits_new},
    {Py_tp_dealloc, Permits_dealloc},
    {Py_tp_traverse, Permits_traverse},
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

typedef struct {
    PyObject_HEAD Permits *permits;
    bool held;
} BacklogPermit;

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
        weir_queue_done(self->permits->queue, 1, 0);
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
        weir_queue_done(permits->queue, 1, 0);
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
        weir_queue_done(self->permits->queue, 1, 0);
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
    PyTypeObject *type;
    if (ext_add_type(module, &permits_spec, &state->permits_type) < 0 ||
        ext_add_type(module, &permit_spec, &type) < 0)
        return -1;
    Py_DECREF(type); /* the module keeps it */
    return 0;
}
