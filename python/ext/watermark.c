/* watermark.c - weir._weir.Watermark, which weir.Watermark is a subclass of.
 *
 * Waiting:    threads wait as everywhere (wait.c), coroutines by a Pending; what a wait ends with is
 *             nothing that could be lost, so a cancelled one leaves nothing behind.
 * Callbacks:  on_high and on_low run on the thread whose call made the change; libweir has them
 *             strictly in turn.
 * Fork:       a watermark is the parent's.
 */
#include "module.h"

#include <structmember.h>

typedef struct Watermark {
    PyObject_HEAD PyObject *weakrefs;
    module_state *state;
    weir_watermark *mark;
    unsigned generation;
    PyObject *on_high, *on_low; /* NULL: none */
    ext_lock lock;              /* guards what follows */
    size_t waiting;             /* calls that are without the GIL */
    ext_line line;              /* coroutines that wait */
} Watermark;

static weir_watermark *mark_of(Watermark *self)
{
    if (!self->mark) {
        PyErr_SetString(PyExc_RuntimeError, "weir.Watermark.__init__() was not called");
        return NULL;
    }
    if (self->generation == ext_fork_generation())
        return self->mark;
    PyErr_SetString(PyExc_RuntimeError,
                    "this weir.Watermark belongs to the parent process; a forked child needs its "
                    "own");
    return NULL;
}

static PyObject *raise_closed(Watermark *self)
{
    return ext_raise_text(self->state, WEIR_ECLOSED, "the watermark is closed");
}

/* ---- counting ------------------------------------------------------------------------------ */

static int parse_count(PyObject *value, uint64_t *ret)
{
    PyObject *index = PyNumber_Index(value);
    if (!index)
        return -1;
    int overflow;
    long long n = PyLong_AsLongLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (overflow > 0 || n >= (long long)WEIR_WATERMARK_END)
        n = (long long)WEIR_WATERMARK_END; /* is refused, whatever it is */
    if (overflow < 0 || n < 0) {
        PyErr_Format(PyExc_ValueError, "n must be >= 0, not %R", value);
        return -1;
    }
    *ret = (uint64_t)n;
    return 0;
}

PyDoc_STRVAR(add_doc,
             "add($self, n, /)\n--\n\n"
             "Count n >= 0 more; whether it is paused now, so that it is time to drain.\n\n"
             "Never waits: what is added while it is paused is counted like anything else.\n"
             "Raises weir.ShutDown (closed), ValueError (n < 0, or the level would reach\n"
             "2**46); nothing is counted then.");

static PyObject *Watermark_add(Watermark *self, PyObject *value)
{
    uint64_t n;
    if (!mark_of(self) || parse_count(value, &n) < 0)
        return NULL;
    int rc = weir_watermark_add(self->mark, n);
    if (rc >= 0)
        return PyBool_FromLong(rc == WEIR_PAUSED);
    if (rc == WEIR_ECLOSED)
        return raise_closed(self);
    return PyErr_Format(PyExc_ValueError, "the level would reach 2**46: add(%S) to a level of %llu",
                        value, (unsigned long long)weir_watermark_level(self->mark));
}

PyDoc_STRVAR(sub_doc, "sub($self, n, /)\n--\n\n"
                      "Count n >= 0 less; whether it is still paused.\n\n"
                      "Works after close(), too.  Raises ValueError (n < 0, or more than are\n"
                      "inside); nothing is counted then.");

static PyObject *Watermark_sub(Watermark *self, PyObject *value)
{
    uint64_t n;
    if (!mark_of(self) || parse_count(value, &n) < 0)
        return NULL;
    int rc = weir_watermark_sub(self->mark, n);
    if (rc >= 0)
        return PyBool_FromLong(rc == WEIR_PAUSED);
    return PyErr_Format(PyExc_ValueError, "more than is inside: sub(%S) from a level of %llu",
                        value, (unsigned long long)weir_watermark_level(self->mark));
}

/* ---- waiting ------------------------------------------------------------------------------- */

static void count_waiting(Watermark *self, int by)
{
    EXT_LOCK(&self->lock);
    self->waiting += (size_t)by;
    EXT_UNLOCK(&self->lock);
}

static int drain_waiting(Watermark *self, int64_t timeout_ns)
{
    weir_time deadline = ext_deadline(timeout_ns);
    ext_wait wait;
    count_waiting(self, 1);
    ext_wait_begin(&wait);
    int rc = weir_watermark_drain(self->mark, deadline);
    ext_wait_end(&wait);
    count_waiting(self, -1);
    return PyErr_Occurred() ? WEIR_EINTR : rc;
}

PyDoc_STRVAR(drain_doc,
             "drain($self, /, timeout=None)\n--\n\n"
             "Wait for up to `timeout` seconds (None: for ever) until it is not paused.\n\n"
             "All who wait go on together.  Raises TimeoutError, weir.ShutDown (closed).");

static PyObject *Watermark_drain(Watermark *self, PyObject *const *args, Py_ssize_t n_args,
                                 PyObject *kwnames)
{
    static const char *const names[] = {"timeout", NULL};
    PyObject *timeout = NULL;
    int64_t timeout_ns;
    if (ext_parse_args("drain", names, 1, 0, args, n_args, kwnames, &timeout) < 0 ||
        ext_parse_timeout(timeout, "timeout", &timeout_ns) < 0 || !mark_of(self))
        return NULL;
    int rc = weir_watermark_drain(self->mark, WEIR_POLL);
    if (rc == WEIR_ETIMEDOUT && timeout_ns > 0)
        rc = drain_waiting(self, timeout_ns);
    switch (rc) {
    case WEIR_OK: Py_RETURN_NONE;
    case WEIR_ECLOSED: return raise_closed(self);
    case WEIR_ETIMEDOUT:
        return ext_raise_text(self->state, rc, "it was still paused when the timeout passed");
    default: return ext_raise(self->state, rc);
    }
}

static int pending_begin(ext_pending *pending)
{
    return weir_watermark_drain_async(((Watermark *)pending->owner)->mark, &pending->core);
}

static bool pending_cancel(ext_pending *pending)
{
    return weir_watermark_cancel(((Watermark *)pending->owner)->mark, &pending->core);
}

static void pending_give_back(ext_pending *Py_UNUSED(pending)) {}

static PyObject *pending_claim(ext_pending *Py_UNUSED(pending))
{
    Py_RETURN_NONE;
}

static const ext_pending_kind pending_kind = {
    .begin = pending_begin,
    .cancel = pending_cancel,
    .give_back = pending_give_back,
    .claim = pending_claim,
};

PyDoc_STRVAR(pend_doc, "_pend($self, ready, /)\n--\n\n"
                       "Wait for a coroutine: weir._aio.wait drives it.");

static PyObject *Watermark_pend(Watermark *self, PyObject *ready)
{
    if (!mark_of(self))
        return NULL;
    ext_pending *pending =
        ext_pending_new(self->state, (PyObject *)self, &self->line, &pending_kind, ready);
    return pending ? ext_pending_begin(pending) : NULL;
}

PyDoc_STRVAR(fileno_doc,
             "fileno($self, /)\n--\n\n"
             "A file descriptor that polls readable exactly while drain() would not wait.\n\n"
             "For select, poll, epoll and loop.add_reader.  It is the watermark's: never read or\n"
             "close it.  Raises OSError when out of descriptors.");

static PyObject *Watermark_fileno(Watermark *self, PyObject *Py_UNUSED(ignored))
{
    if (!mark_of(self))
        return NULL;
    int fd = weir_watermark_fd(self->mark);
    return fd < 0 ? ext_raise(self->state, fd) : PyLong_FromLong(fd);
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
                        "Count nothing in any more; who waits, or comes to, gets weir.ShutDown.\n\n"
                        "What is inside can still leave.  Closing twice is fine.");

static PyObject *Watermark_close(Watermark *self, PyObject *Py_UNUSED(ignored))
{
    if (!mark_of(self))
        return NULL;
    weir_watermark_close(self->mark);
    Py_RETURN_NONE;
}

/* ---- looking ------------------------------------------------------------------------------- */

static PyObject *Watermark_get_level(Watermark *self, void *Py_UNUSED(closure))
{
    return mark_of(self) ? PyLong_FromUnsignedLongLong(weir_watermark_level(self->mark)) : NULL;
}

static PyObject *Watermark_get_paused(Watermark *self, void *Py_UNUSED(closure))
{
    return mark_of(self) ? PyBool_FromLong(weir_watermark_is_paused(self->mark)) : NULL;
}

PyDoc_STRVAR(snapshot_doc, "_snapshot($self, /)\n--\n\nThe counts of one instant, in a dict.");

static PyObject *Watermark_snapshot(Watermark *self, PyObject *Py_UNUSED(ignored))
{
    if (!mark_of(self))
        return NULL;
    weir_watermark_snapshot now = WEIR_WATERMARK_SNAPSHOT_INIT;
    weir_watermark_get_snapshot(self->mark, &now);
    return Py_BuildValue("{sK sK sK sK sK sK sK sd sd sn sO sO}", "high", now.high, "low", now.low,
                         "level", now.level, "added", now.in, "subtracted", now.out, "peak",
                         now.peak, "pauses", now.pauses, "paused_for", (double)now.paused_ns / 1e9,
                         "blocked", (double)now.blocked_ns / 1e9, "waiting",
                         (Py_ssize_t)now.waiting, "is_paused", now.is_paused ? Py_True : Py_False,
                         "is_closed", now.is_closed ? Py_True : Py_False);
}

/* ---- marks --------------------------------------------------------------------------------- */

/* weir._watermark has checked them: ints in range, or None for the default low mark. */
static int parse_marks(PyObject *high, PyObject *low, uint64_t *ret_high, uint64_t *ret_low)
{
    *ret_high = PyLong_AsUnsignedLongLong(high);
    *ret_low = 0;
    if (!PyErr_Occurred() && low != Py_None) {
        *ret_low = PyLong_AsUnsignedLongLong(low);
        if (*ret_low == 0)
            *ret_low = WEIR_WATERMARK_EMPTY;
    }
    return PyErr_Occurred() ? -1 : 0;
}

PyDoc_STRVAR(set_marks_doc, "_set_marks($self, high, low, /)\n--\n\n"
                            "Change both marks; low None: half of high.");

static PyObject *Watermark_set_marks(Watermark *self, PyObject *const *args, Py_ssize_t n_args)
{
    uint64_t high, low;
    if (n_args != 2) {
        PyErr_SetString(PyExc_TypeError, "_set_marks() takes high and low");
        return NULL;
    }
    if (!mark_of(self) || parse_marks(args[0], args[1], &high, &low) < 0)
        return NULL;
    int rc = weir_watermark_set(self->mark, high, low);
    if (rc < 0)
        return ext_raise(self->state, rc);
    Py_RETURN_NONE;
}

/* ---- callbacks ----------------------------------------------------------------------------- */

static void on_change(bool above, void *ctx)
{
    Watermark *self = ctx;
    ext_callback callback;
    ext_callback_begin(&callback);
    PyObject *callable = Py_XNewRef(above ? self->on_high : self->on_low);
    if (callable) {
        PyObject *result = PyObject_CallNoArgs(callable);
        if (!result)
            ext_report_exception(callable);
        Py_XDECREF(result);
        Py_DECREF(callable);
    }
    ext_callback_end(&callback);
}

static int parse_callable(PyObject *value, const char *name, PyObject **ret)
{
    if (value == Py_None)
        return 0;
    if (!PyCallable_Check(value)) {
        PyErr_Format(PyExc_TypeError, "'%s' must be callable or None, not %R", name, value);
        return -1;
    }
    Py_XSETREF(*ret, Py_NewRef(value));
    return 0;
}

/* ---- beginning and end --------------------------------------------------------------------- */

static int Watermark_init(Watermark *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"high", "low", "on_high", "on_low", "name", NULL};
    PyObject *high, *low, *on_high, *on_low, *name = NULL;
    weir_watermark_opts opts = WEIR_WATERMARK_OPTS_INIT;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO|O:Watermark", (char **)names, &high, &low,
                                     &on_high, &on_low, &name))
        return -1;
    if (self->mark) {
        PyErr_SetString(PyExc_RuntimeError, "weir.Watermark.__init__() has been called already");
        return -1;
    }
    self->state = ext_state_of(Py_TYPE(self));
    if (!self->state || parse_marks(high, low, &opts.high, &opts.low) < 0 ||
        parse_callable(on_high, "on_high", &self->on_high) < 0 ||
        parse_callable(on_low, "on_low", &self->on_low) < 0)
        return -1;
    self->generation = ext_fork_generation();
    opts.on_change = self->on_high || self->on_low ? on_change : NULL;
    opts.change_ctx = self;
    opts.name = ext_shown_name(name);
    int rc = weir_watermark_create(&self->mark, &opts);
    if (rc < 0)
        ext_raise(self->state, rc);
    return rc < 0 ? -1 : 0;
}

static int Watermark_traverse(Watermark *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->on_high);
    Py_VISIT(self->on_low);
    return ext_line_traverse(&self->line, visit, arg);
}

static int Watermark_clear(Watermark *self)
{
    ext_line_clear(&self->line);
    Py_CLEAR(self->on_high);
    Py_CLEAR(self->on_low);
    return 0;
}

static void Watermark_dealloc(Watermark *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs)
        PyObject_ClearWeakRefs((PyObject *)self);
    Watermark_clear(self);
    /* Not where a daemon thread waits that has no interpreter left. */
    if (self->generation == ext_fork_generation() && self->waiting == 0)
        weir_watermark_destroy(self->mark);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef watermark_methods[] = {
    {"add", (PyCFunction)Watermark_add, METH_O, add_doc},
    {"sub", (PyCFunction)Watermark_sub, METH_O, sub_doc},
    {"drain", (PyCFunction)(void (*)(void))Watermark_drain, METH_FASTCALL | METH_KEYWORDS,
     drain_doc},
    {"fileno", (PyCFunction)Watermark_fileno, METH_NOARGS, fileno_doc},
    {"close", (PyCFunction)Watermark_close, METH_NOARGS, close_doc},
    {"_pend", (PyCFunction)Watermark_pend, METH_O, pend_doc},
    {"_set_marks", (PyCFunction)(void (*)(void))Watermark_set_marks, METH_FASTCALL, set_marks_doc},
    {"_snapshot", (PyCFunction)Watermark_snapshot, METH_NOARGS, snapshot_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef watermark_properties[] = {
    {"level", (getter)Watermark_get_level, NULL, "What was added and has not left.", NULL},
    {"paused", (getter)Watermark_get_paused, NULL,
     "Whether the level has reached high, and not fallen to low since.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef watermark_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Watermark, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot watermark_slots[] = {
    {Py_tp_doc, (void *)"What weir.Watermark is made of."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, Watermark_init},
    {Py_tp_traverse, Watermark_traverse},
    {Py_tp_clear, Watermark_clear},
    {Py_tp_dealloc, Watermark_dealloc},
    {Py_tp_methods, watermark_methods},
    {Py_tp_getset, watermark_properties},
    {Py_tp_members, watermark_members},
    {0, NULL},
};

static PyType_Spec watermark_spec = {
    .name = "weir._weir.Watermark",
    .basicsize = sizeof(Watermark),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = watermark_slots,
};

int ext_watermark_types_add(PyObject *module, module_state *Py_UNUSED(state))
{
    PyTypeObject *type;
    if (ext_add_type(module, &watermark_spec, &type) < 0)
        return -1;
    Py_DECREF(type); /* the module keeps it */
    return 0;
}
