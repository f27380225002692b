/* governor.c - weir._weir.Governor: memory that is reserved before it is used; and
 * weir._weir.MemoryReservation: some of it.
 *
 * Ownership:  what is reserved is in exactly one Reservation, or in a Pending, and given back once: by
 *             release(), at the end of a `with`, or when the object is deallocated.
 * Pools:      a Pool has a reference to its governor, and asks libweir itself; a Queue and a ThreadPool
 *             have one, and ask here.  Each keeps its own account of what it has reserved.
 * Fork:       in a forked child nothing is given back, and every other call raises.
 */
#include "governor.h"

static bool is_ours(const ext_governor *self)
{
    return self->generation == ext_fork_generation();
}

static bool is_usable(const ext_governor *self)
{
    if (is_ours(self))
        return true;
    PyErr_SetString(
        PyExc_RuntimeError,
        "this MemoryGovernor belongs to the parent process; make one in the child, with "
        "the same shared= if they are to be one");
    return false;
}

/* ---- reservations -------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD ext_governor *governor;
    uint64_t bytes; /* 0: none is held */
} Reservation;

static uint64_t set_bytes(Reservation *self, uint64_t bytes)
{
    EXT_LOCK(&self->governor->lock);
    uint64_t before = self->bytes;
    self->bytes = bytes;
    EXT_UNLOCK(&self->governor->lock);
    return before;
}

static Reservation *new_reservation(ext_governor *governor)
{
    PyTypeObject *type = governor->state->memory_reservation_type;
    Reservation *self = (Reservation *)type->tp_alloc(type, 0);
    if (self)
        self->governor = (ext_governor *)Py_NewRef(governor);
    return self;
}

static void give_back(Reservation *self)
{
    uint64_t bytes = set_bytes(self, 0);
    if (bytes > 0 && is_ours(self->governor))
        weir_governor_release(self->governor->governor, bytes);
}

PyDoc_STRVAR(release_doc, "release($self, /)\n--\n\n"
                          "Give the memory back now; nothing if it was given back before.");

int ext_reservation_take(module_state *state, PyObject *reservation, uint64_t *ret_bytes)
{
    if (Py_TYPE(reservation) != state->memory_reservation_type) {
        PyErr_Format(PyExc_TypeError, "a weir.MemoryReservation is needed, not %R", reservation);
        return -1;
    }
    *ret_bytes = set_bytes((Reservation *)reservation, 0);
    return 0;
}

static PyObject *reservation_release(Reservation *self, PyObject *Py_UNUSED(ignored))
{
    give_back(self);
    Py_RETURN_NONE;
}

static PyObject *reservation_enter(Reservation *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self);
}

static PyObject *reservation_exit(Reservation *self, PyObject *Py_UNUSED(args))
{
    give_back(self);
    Py_RETURN_NONE;
}

static PyObject *reservation_nbytes(Reservation *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(self->bytes);
}

static PyObject *reservation_repr(Reservation *self)
{
    return PyUnicode_FromFormat("<weir.MemoryReservation of %llu bytes>",
                                (unsigned long long)self->bytes);
}

static void reservation_dealloc(Reservation *self)
{
    PyTypeObject *type = Py_TYPE(self);
    give_back(self);
    Py_DECREF(self->governor);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef reservation_methods[] = {
    {"release", (PyCFunction)reservation_release, METH_NOARGS, release_doc},
    {"__enter__", (PyCFunction)reservation_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)reservation_exit, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef reservation_getset[] = {
    {"nbytes", (getter)reservation_nbytes, NULL, "Bytes reserved; 0 once given back.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot reservation_slots[] = {
    {Py_tp_doc, (void *)"Memory that is reserved until release(), or the end of a `with`."},
    {Py_tp_dealloc, reservation_dealloc},
    {Py_tp_repr, reservation_repr},
    {Py_tp_methods, reservation_methods},
    {Py_tp_getset, reservation_getset},
    {0, NULL},
};

static PyType_Spec reservation_spec = {
    .name = "weir._weir.MemoryReservation",
    .basicsize = sizeof(Reservation),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = reservation_slots,
};

/* ---- for queues and thread pools ------------------------------------------------------------ */

int ext_governor_parse(module_state *state, PyObject *memory, ext_governor **ret)
{
    *ret = NULL;
    if (!memory || memory == Py_None)
        return 0;
    PyObject *core_of = ext_import("weir._memory", "core_of");
    PyObject *core = core_of ? PyObject_CallOneArg(core_of, memory) : NULL;
    Py_XDECREF(core_of);
    if (core && Py_TYPE(core) != state->governor_type)
        PyErr_SetString(PyExc_TypeError,
                        "'memory' must be a weir.MemoryGovernor of this interpreter");
    else if (core && is_usable((ext_governor *)core)) {
        *ret = (ext_governor *)core;
        return 0;
    }
    Py_XDECREF(core);
    return -1;
}

int ext_governor_try(ext_governor *self, uint64_t bytes)
{
    return weir_governor_reserve(self->governor, bytes, WEIR_POLL);
}

int ext_governor_reserve(ext_governor *self, uint64_t bytes, weir_time deadline)
{
    /* relaxed: read by dealloc, which comes after the last reference */
    atomic_fetch_add_explicit(&self->waiting, 1, memory_order_relaxed);
    int rc = weir_governor_reserve(self->governor, bytes, deadline);
    atomic_fetch_sub_explicit(&self->waiting, 1, memory_order_relaxed);
    return rc;
}

void ext_governor_release(ext_governor *self, uint64_t bytes)
{
    if (is_ours(self))
        weir_governor_release(self->governor, bytes);
}

/* ---- reserving ----------------------------------------------------------------------------- */

/* -1 with an exception. */
static int parse_bytes(PyObject *value, uint64_t *ret_bytes)
{
    if (!PyLong_Check(value) || PyBool_Check(value)) {
        PyErr_Format(PyExc_TypeError, "'nbytes' must be an int, not %R", value);
        return -1;
    }
    unsigned long long bytes = PyLong_AsUnsignedLongLong(value);
    if (PyErr_Occurred())
        PyErr_Clear(); /* negative, or beyond 64 bits */
    else if (bytes > 0 && bytes < UINT64_C(1) << 62) {
        *ret_bytes = bytes;
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "'nbytes' must be > 0 and < 2**62, not %R", value);
    return -1;
}

static PyObject *raise_refusal(ext_governor *self, int rc, uint64_t bytes)
{
    char text[200];
    if (rc == WEIR_ETIMEDOUT)
        snprintf(text, sizeof text, "no memory for %llu bytes within the timeout",
                 (unsigned long long)bytes);
    else if (rc == WEIR_ESHED)
        snprintf(text, sizeof text,
                 "memory is so scarce that nobody may wait for %llu bytes; try again later",
                 (unsigned long long)bytes);
    else
        return ext_raise(self->state, rc);
    return ext_raise_text(self->state, rc, text);
}

static int reserve_waiting(ext_governor *self, uint64_t bytes, int64_t timeout_ns)
{
    weir_time deadline = ext_deadline(timeout_ns);
    ext_wait wait;
    ext_wait_begin(&wait);
    int rc = ext_governor_reserve(self, bytes, deadline);
    ext_wait_end(&wait);
    return rc;
}

PyDoc_STRVAR(reserve_doc,
             "reserve($self, /, nbytes, timeout=None)\n--\n\n"
             "Reserve memory, waiting in line for up to `timeout` seconds; a MemoryReservation.");

static PyObject *governor_reserve(ext_governor *self, PyObject *const *args, Py_ssize_t n_args,
                                  PyObject *kwnames)
{
    static const char *const names[] = {"nbytes", "timeout", NULL};
    PyObject *given[2];
    uint64_t bytes;
    int64_t timeout_ns;
    if (ext_parse_args("reserve", names, 2, 1, args, n_args, kwnames, given) < 0 ||
        parse_bytes(given[0], &bytes) < 0 ||
        ext_parse_timeout(given[1], "timeout", &timeout_ns) < 0 || !is_usable(self))
        return NULL;
    Reservation *reservation = new_reservation(self); /* before: then nothing can be lost */
    if (!reservation)
        return NULL;
    int rc = weir_governor_reserve(self->governor, bytes, WEIR_POLL);
    if (rc == WEIR_EFULL && timeout_ns > 0)
        rc = reserve_waiting(self, bytes, timeout_ns);
    if (rc == WEIR_OK)
        reservation->bytes = bytes;
    if (rc == WEIR_OK && !PyErr_Occurred())
        return (PyObject *)reservation;
    Py_DECREF(reservation); /* gives back, if a signal handler has raised */
    if (rc == WEIR_OK || PyErr_Occurred())
        return NULL;
    return raise_refusal(self, rc == WEIR_EFULL ? WEIR_ETIMEDOUT : rc, bytes);
}

PyDoc_STRVAR(try_doc, "try_reserve($self, nbytes, /)\n--\n\n"
                      "Reserve memory if that needs no wait: a MemoryReservation, or None.");

static PyObject *governor_try_reserve(ext_governor *self, PyObject *value)
{
    uint64_t bytes;
    if (parse_bytes(value, &bytes) < 0 || !is_usable(self))
        return NULL;
    Reservation *reservation = new_reservation(self);
    if (!reservation)
        return NULL;
    int rc = weir_governor_reserve(self->governor, bytes, WEIR_POLL);
    if (rc == WEIR_OK) {
        reservation->bytes = bytes;
        return (PyObject *)reservation;
    }
    Py_DECREF(reservation);
    if (rc == WEIR_EFULL)
        Py_RETURN_NONE;
    return raise_refusal(self, rc, bytes);
}

/* ---- in a coroutine ------------------------------------------------------------------------ */

static weir_governor *core_of(const ext_pending *pending)
{
    return ((ext_governor *)pending->owner)->governor;
}

static int pending_begin(ext_pending *pending)
{
    return weir_governor_reserve_async(core_of(pending), pending->data[0], &pending->core);
}

static bool pending_cancel(ext_pending *pending)
{
    return weir_governor_cancel(core_of(pending), &pending->core);
}

static void pending_give_back(ext_pending *pending)
{
    weir_governor_release(core_of(pending), pending->data[0]);
}

static PyObject *pending_claim(ext_pending *pending)
{
    Reservation *reservation = new_reservation((ext_governor *)pending->owner);
    if (!reservation) {
        pending_give_back(pending);
        return NULL;
    }
    reservation->bytes = pending->data[0];
    return (PyObject *)reservation;
}

static const ext_pending_kind pending_kind = {
    .begin = pending_begin,
    .cancel = pending_cancel,
    .give_back = pending_give_back,
    .claim = pending_claim,
};

PyDoc_STRVAR(begin_doc, "begin($self, nbytes, ready, /)\n--\n\n"
                        "Stand in line without a thread: a Pending, for weir._aio.wait.");

static PyObject *governor_begin(ext_governor *self, PyObject *args)
{
    PyObject *value, *ready;
    uint64_t bytes;
    if (!PyArg_ParseTuple(args, "OO:begin", &value, &ready) || parse_bytes(value, &bytes) < 0 ||
        !is_usable(self))
        return NULL;
    ext_pending *pending =
        ext_pending_new(self->state, (PyObject *)self, &self->line, &pending_kind, ready);
    if (!pending)
        return NULL;
    pending->data[0] = bytes;
    return ext_pending_begin(pending);
}

/* ---- learning, measuring, looking ---------------------------------------------------------- */

PyDoc_STRVAR(observe_doc, "observe($self, kind, peak_bytes, /)\n--\n\n"
                          "A task of this kind (a number of 64 bits) has taken so much.");

static PyObject *governor_observe(ext_governor *self, PyObject *args)
{
    unsigned long long kind;
    PyObject *value;
    uint64_t bytes;
    if (!PyArg_ParseTuple(args, "KO:observe", &kind, &value) || parse_bytes(value, &bytes) < 0 ||
        !is_usable(self))
        return NULL;
    weir_governor_observe(self->governor, kind, bytes);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(estimate_doc, "estimate($self, kind, /)\n--\n\n"
                           "Bytes that the next one should reserve; 0: nothing is known.");

static PyObject *governor_estimate(ext_governor *self, PyObject *value)
{
    unsigned long long kind = PyLong_AsUnsignedLongLong(value);
    if ((kind == (unsigned long long)-1 && PyErr_Occurred()) || !is_usable(self))
        return NULL;
    return PyLong_FromUnsignedLongLong(weir_governor_estimate(self->governor, kind));
}

PyDoc_STRVAR(sample_doc, "sample($self, /)\n--\n\n"
                         "Measure if it is time; the name of the step.");

static PyObject *governor_sample(ext_governor *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    return PyUnicode_FromString(weir_memory_step_name(weir_governor_sample(self->governor)));
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
                        "Admit nobody any more; those who wait get weir.ShutDown.");

static PyObject *governor_close(ext_governor *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    weir_governor_close(self->governor);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(snapshot_doc, "snapshot($self, /)\n--\n\nThe numbers of weir.MemoryStats.");

static PyObject *governor_snapshot(ext_governor *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    weir_governor_snapshot now = WEIR_GOVERNOR_SNAPSHOT_INIT;
    weir_governor_get_snapshot(self->governor, &now);
    return Py_BuildValue(
        "{sKsKsKsOsKsIsdsdsssKsKsKsKsKsKsKsKsKsKsnsdsKsO}", "limit", (unsigned long long)now.limit,
        "memory", (unsigned long long)now.memory, "usage", (unsigned long long)now.usage,
        "is_cgroup", now.is_cgroup ? Py_True : Py_False, "rss", (unsigned long long)now.rss,
        "processes", now.processes, "psi_some", now.psi_some, "psi_full", now.psi_full, "state",
        weir_memory_step_name((int)now.step), "base", (unsigned long long)now.base, "capacity",
        (unsigned long long)now.capacity, "reserved", (unsigned long long)now.reserved,
        "peak_reserved", (unsigned long long)now.peak_reserved, "inside",
        (unsigned long long)now.inside, "admitted", (unsigned long long)now.admitted, "released",
        (unsigned long long)now.released, "lost", (unsigned long long)now.lost, "refused",
        (unsigned long long)now.refused, "shed", (unsigned long long)now.shed, "waiting",
        (Py_ssize_t)now.waiting, "blocked", (double)now.blocked_ns / 1e9, "measured",
        (unsigned long long)now.measured, "is_shutdown", now.is_closed ? Py_True : Py_False);
}

PyDoc_STRVAR(parse_doc, "parse_memory(text, /)\n--\n\n"
                        "(bytes, 0.0) or (0, fraction) of what people write; None: it is neither.");

static PyObject *parse_memory(PyObject *Py_UNUSED(module), PyObject *text)
{
    uint64_t bytes;
    double fraction;
    const char *utf8 = PyUnicode_AsUTF8(text);
    if (!utf8)
        return NULL;
    if (weir_parse_memory(utf8, &bytes, &fraction) < 0)
        Py_RETURN_NONE;
    return Py_BuildValue("(Kd)", (unsigned long long)bytes, fraction);
}

/* ---- the type ------------------------------------------------------------------------------ */

/* What a governor of the same marks, and of this process alone, says to them. */
static bool are_marks_valid(weir_governor_opts opts)
{
    weir_governor *governor = NULL;
    opts.shared = NULL;
    opts.name = "";
    int rc = weir_governor_create(&governor, &opts);
    weir_governor_destroy(governor);
    return rc != WEIR_EINVAL;
}

static PyObject *governor_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"bytes", "fraction", "interval", "slow", "pause",
                                        "shed",  "shared",   "name",     NULL};
    weir_governor_opts opts = WEIR_GOVERNOR_OPTS_INIT;
    unsigned long long bytes;
    PyObject *interval, *shared, *name = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KdOdddO|O:Governor", (char **)names, &bytes,
                                     &opts.limit_fraction, &interval, &opts.slow_at, &opts.pause_at,
                                     &opts.shed_at, &shared, &name) ||
        ext_parse_shared(shared, &opts.shared) < 0 ||
        ext_parse_timeout(interval, "interval", &opts.interval_ns) < 0)
        return NULL;
    opts.limit_bytes = bytes;
    opts.name = ext_shown_name(name);
    module_state *state = ext_state_of(type);
    ext_governor *self = state ? (ext_governor *)type->tp_alloc(type, 0) : NULL;
    if (!self)
        return NULL;
    self->state = state;
    self->generation = ext_fork_generation();
    int rc = weir_governor_create(&self->governor, &opts);
    if (rc == 0)
        return (PyObject *)self;
    Py_DECREF(self);
    if (rc == WEIR_EINVAL && !are_marks_valid(opts))
        return ext_raise_text(state, rc,
                              "'slow', 'pause' and 'shed' must ascend (a default lies between the "
                              "limit and all there is)");
    if (opts.shared)
        return ext_raise_shared(state, rc, "governor", opts.shared);
    if (rc == WEIR_ESYSTEM)
        return ext_raise_text(
            state, rc,
            "the kernel does not tell how much memory there is (is /proc mounted?); "
            "give the limit in bytes");
    return ext_raise(state, rc);
}

static int governor_traverse(ext_governor *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return ext_line_traverse(&self->line, visit, arg);
}

static int governor_clear(ext_governor *self)
{
    ext_line_clear(&self->line);
    return 0;
}

static void governor_dealloc(ext_governor *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (is_ours(self) && self->waiting == 0)
        weir_governor_destroy(self->governor);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef governor_methods[] = {
    {"reserve", (PyCFunction)(void (*)(void))governor_reserve, METH_FASTCALL | METH_KEYWORDS,
     reserve_doc},
    {"try_reserve", (PyCFunction)governor_try_reserve, METH_O, try_doc},
    {"begin", (PyCFunction)governor_begin, METH_VARARGS, begin_doc},
    {"observe", (PyCFunction)governor_observe, METH_VARARGS, observe_doc},
    {"estimate", (PyCFunction)governor_estimate, METH_O, estimate_doc},
    {"sample", (PyCFunction)governor_sample, METH_NOARGS, sample_doc},
    {"snapshot", (PyCFunction)governor_snapshot, METH_NOARGS, snapshot_doc},
    {"close", (PyCFunction)governor_close, METH_NOARGS, close_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot governor_slots[] = {
    {Py_tp_doc, (void *)"Memory that is reserved before it is used; weir.MemoryGovernor has one."},
    {Py_tp_new, governor_new},
    {Py_tp_dealloc, governor_dealloc},
    {Py_tp_traverse, governor_traverse},
    {Py_tp_clear, governor_clear},
    {Py_tp_methods, governor_methods},
    {0, NULL},
};

static PyType_Spec governor_spec = {
    .name = "weir._weir.Governor",
    .basicsize = sizeof(ext_governor),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = governor_slots,
};

static PyMethodDef functions[] = {
    {"parse_memory", parse_memory, METH_O, parse_doc},
    {NULL, NULL, 0, NULL},
};

int ext_governor_types_add(PyObject *module, module_state *state)
{
    if (ext_add_type(module, &governor_spec, &state->governor_type) < 0 ||
        ext_add_type(module, &reservation_spec, &state->memory_reservation_type) < 0)
        return -1;
    return PyModule_AddFunctions(module, functions);
}
