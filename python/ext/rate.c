/* rate.c - what weir.TokenBucket is made of: weir._weir.TokenBucketBase, the bucket; Reservation,
 * tokens taken in advance; BucketPlace, a place in its line that no thread waits in.
 *
 * A call that need not wait keeps the GIL.  Everything that may call another's `wake`, or wait until
 * one has been called, is without it: `wake` takes it.
 * Ownership:  a Reservation and a BucketPlace keep their bucket.  A place that is deallocated leaves
 *             the line.
 * Fork:       a shared bucket may be used in a forked child; one that is not, and every place and
 *             reservation of the parent, may not.
 */
#include "module.h"

#include <math.h>
#include <structmember.h>

typedef struct Bucket {
    PyObject_HEAD module_state *state;
    weir_rate *rate;        /* NULL: not initialised */
    _Atomic int64_t per_ns; /* the unit in which `rate` is told */
    PyObject *name, *shared;
    PyObject *weakrefs;
    unsigned generation;
    ext_lock lock;
    size_t waiting; /* calls that are without the GIL */
} Bucket;

static bool is_usable(Bucket *self)
{
    if (!self->rate) {
        PyErr_SetString(PyExc_RuntimeError, "weir.TokenBucket.__init__() has not been called");
        return false;
    }
    if (self->shared || self->generation == ext_fork_generation())
        return true;
    PyErr_SetString(PyExc_RuntimeError,
                    "this TokenBucket belongs to the parent process; give it shared='a name' to "
                    "have one for both");
    return false;
}

weir_rate *ext_rate_of(PyObject *bucket)
{
    return is_usable((Bucket *)bucket) ? ((Bucket *)bucket)->rate : NULL;
}

/* Without the GIL between the two. */
static void begin_outside(Bucket *self, ext_wait *wait)
{
    EXT_LOCK(&self->lock);
    self->waiting++;
    EXT_UNLOCK(&self->lock);
    ext_wait_begin(wait);
}

static void end_outside(Bucket *self, ext_wait *wait)
{
    ext_wait_end(wait);
    EXT_LOCK(&self->lock);
    self->waiting--;
    EXT_UNLOCK(&self->lock);
}

/* ---- arguments ------------------------------------------------------------------------------ */

static int parse_tokens(PyObject *given, uint64_t *ret)
{
    *ret = 1;
    if (!given)
        return 0;
    int overflow = 0;
    PyObject *index = PyNumber_Index(given);
    if (!index)
        return -1;
    long long n = PyLong_AsLongLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (n == -1 && PyErr_Occurred())
        return -1;
    if (n <= 0 && overflow <= 0) {
        PyErr_Format(PyExc_ValueError, "'n' must be > 0, not %R", given);
        return -1;
    }
    *ret = overflow > 0 ? UINT64_MAX : (uint64_t)n;
    return 0;
}

static int parse_positive(PyObject *given, const char *name, const char *unit, double *ret)
{
    double value = PyFloat_AsDouble(given);
    if (value == -1.0 && PyErr_Occurred())
        return -1;
    if (value > 0 && isfinite(value)) {
        *ret = value;
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "'%s' must be a number of %s > 0, not %R", name, unit, given);
    return -1;
}

#define RATE_MAX 0x1p40 /* the ranges of weir/rate.h */
#define PER_MAX  0x1p61

/* rate tokens in per_ns as a fraction of integers: the first convergent of its continued fraction
 * that is this double (0.1 is 1 / 10), or the last that is in range. */
static int make_fraction(double rate, int64_t per_ns, uint64_t *ret_tokens, int64_t *ret_per_ns)
{
    double p = 1, q = 0, p_before = 0, q_before = 1, rest = rate;
    for (int i = 0; i < 64; i++) {
        double whole = floor(rest);
        double p_next = whole * p + p_before, q_next = whole * q + q_before;
        if (p_next > RATE_MAX || q_next * (double)per_ns > PER_MAX)
            break;
        p_before = p;
        q_before = q;
        p = p_next;
        q = q_next;
        if (p / q == rate || rest == whole)
            break;
        rest = 1 / (rest - whole);
    }
    if (p < 1 || q < 1 || fabs(p / q - rate) > rate * 1e-6) {
        PyErr_SetString(PyExc_ValueError,
                        "'rate' in 'per' is out of range: it must be from one token in 73 years to "
                        "1e12 tokens in a second");
        return -1;
    }
    *ret_tokens = (uint64_t)p;
    *ret_per_ns = (int64_t)q * per_ns;
    return 0;
}

static int parse_burst(PyObject *given, double rate, uint64_t *ret)
{
    if (!given || given == Py_None) {
        *ret = rate >= 1 ? (uint64_t)fmin(rate, 0x1p38 - 1) : 1;
        return 0;
    }
    PyObject *index = PyNumber_Index(given);
    if (!index)
        return -1;
    int overflow = 0;
    long long n = PyLong_AsLongLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (n == -1 && PyErr_Occurred())
        return -1;
    if (overflow || n < 1 || n >= INT64_C(1) << 38) {
        PyErr_Format(PyExc_ValueError, "'burst' must be from 1 to 2**38 - 1 tokens, not %R", given);
        return -1;
    }
    *ret = (uint64_t)n;
    return 0;
}

static int parse_per(PyObject *given, int64_t *ret_ns)
{
    double per = 1.0;
    if (given && parse_positive(given, "per", "seconds", &per) < 0)
        return -1;
    double ns = round(per * 1e9);
    if (ns < 1 || ns > PER_MAX) {
        PyErr_Format(PyExc_ValueError, "'per' must be from 1e-9 to 2.3e9 seconds, not %R", given);
        return -1;
    }
    *ret_ns = (int64_t)ns;
    return 0;
}

/* ---- taking --------------------------------------------------------------------------------- */

static PyObject *raise_refused(Bucket *self, int rc, uint64_t n)
{
    if (rc == WEIR_ETOOBIG) {
        weir_rate_snapshot now = WEIR_RATE_SNAPSHOT_INIT;
        weir_rate_get_snapshot(self->rate, &now);
        char text[120];
        PyOS_snprintf(text, sizeof text,
                      "%llu tokens are more than the burst of %llu, so they can never be there",
                      (unsigned long long)n, (unsigned long long)now.burst);
        return ext_raise_text(self->state, rc, text);
    }
    if (rc == WEIR_ECLOSED)
        return ext_raise_text(self->state, rc, "this TokenBucket is closed");
    return ext_raise(self->state, rc);
}

static PyObject *try_with(Bucket *self, PyObject *given, weir_time deadline)
{
    uint64_t n;
    if (parse_tokens(given, &n) < 0 || !is_usable(self))
        return NULL;
    int rc = weir_rate_acquire(self->rate, n, deadline);
    if (rc == WEIR_OK)
        Py_RETURN_TRUE;
    if (rc == WEIR_EFULL)
        Py_RETURN_FALSE;
    return raise_refused(self, rc, n);
}

PyDoc_STRVAR(
    try_acquire_doc,
    "try_acquire($self, n=1)\n--\n\n"
    "Take n tokens if they are there and nobody waits; whether it has.\n\n"
    "Raises weir.TooLarge (n is more than the burst), weir.ShutDown (closed), ValueError.");

static PyObject *Bucket_try_acquire(Bucket *self, PyObject *const *args, Py_ssize_t n_args,
                                    PyObject *kwnames)
{
    static const char *const names[] = {"n", NULL};
    PyObject *given[1] = {NULL};
    if ((n_args > 0 || kwnames) &&
        ext_parse_args("try_acquire", names, 1, 0, args, n_args, kwnames, given) < 0)
        return NULL;
    return try_with(self, given[0], WEIR_POLL);
}

/* As try_acquire, by who is going to wait then: not counted when it is refused. */
static PyObject *Bucket_probe(Bucket *self, PyObject *n)
{
    return try_with(self, n, WEIR_PROBE);
}

PyDoc_STRVAR(
    acquire_doc,
    "acquire($self, n=1, timeout=None)\n--\n\n"
    "Take n tokens, waiting for them; whether it has.\n\n"
    "timeout is in seconds, >= 0; None waits as long as it takes.  Where it is known already that\n"
    "the tokens cannot be there in time, False comes at once.  First come, first served; nothing is\n"
    "taken by a call that returns False or raises.  Raises weir.TooLarge (n is more than the burst),\n"
    "weir.ShutDown (closed, also while it waited), ValueError.");

static PyObject *Bucket_acquire(Bucket *self, PyObject *const *args, Py_ssize_t n_args,
                                PyObject *kwnames)
{
    static const char *const names[] = {"n", "timeout", NULL};
    PyObject *given[2];
    uint64_t n;
    int64_t timeout_ns;
    if (ext_parse_args("acquire", names, 2, 0, args, n_args, kwnames, given) < 0 ||
        parse_tokens(given[0], &n) < 0 || ext_parse_timeout(given[1], "timeout", &timeout_ns) < 0 ||
        !is_usable(self))
        return NULL;
    int rc = weir_rate_acquire(self->rate, n, timeout_ns > 0 ? WEIR_PROBE : WEIR_POLL);
    if (rc == WEIR_EFULL && timeout_ns > 0) {
        weir_time deadline = ext_deadline(timeout_ns);
        ext_wait wait;
        begin_outside(self, &wait);
        rc = weir_rate_acquire(self->rate, n, deadline);
        end_outside(self, &wait);
        if (rc == WEIR_OK && PyErr_Occurred()) /* a signal handler raised when it had the tokens */
            ext_postpone_exception();
    }
    if (rc == WEIR_OK)
        Py_RETURN_TRUE;
    if (rc == WEIR_EFULL || rc == WEIR_ETIMEDOUT)
        Py_RETURN_FALSE;
    return raise_refused(self, rc, n);
}

/* ---- reservations --------------------------------------------------------------------------- */

typedef struct Reservation {
    PyObject_HEAD Bucket *bucket;
    weir_reservation taken;
    unsigned generation;
    bool is_cancelled;
} Reservation;

PyDoc_STRVAR(
    reserve_doc,
    "reserve($self, n=1)\n--\n\n"
    "Take n tokens now, whether they are there or not; the Reservation tells when they may be\n"
    "used.\n\n"
    "It comes after those who wait and before who comes later.  Raises weir.TooLarge (n is\n"
    "more than the burst), weir.ShutDown (closed), queue.Full (more than 2**40 tokens are\n"
    "owed), ValueError.");

static PyObject *Bucket_reserve(Bucket *self, PyObject *const *args, Py_ssize_t n_args,
                                PyObject *kwnames)
{
    static const char *const names[] = {"n", NULL};
    PyObject *given[1];
    uint64_t n;
    if (ext_parse_args("reserve", names, 1, 0, args, n_args, kwnames, given) < 0 ||
        parse_tokens(given[0], &n) < 0 || !is_usable(self))
        return NULL;
    PyTypeObject *type = self->state->reservation_type;
    Reservation *reservation = (Reservation *)type->tp_alloc(type, 0);
    if (!reservation)
        return NULL;
    weir_time at;
    int rc = weir_rate_reserve(self->rate, n, &at, &reservation->taken);
    if (rc < 0) {
        Py_DECREF(reservation);
        return raise_refused(self, rc, n);
    }
    reservation->bucket = (Bucket *)Py_NewRef(self);
    reservation->generation = ext_fork_generation();
    return (PyObject *)reservation;
}

static PyObject *Reservation_get_at(Reservation *self, void *Py_UNUSED(closure))
{
    if (!is_usable(self->bucket))
        return NULL;
    return PyFloat_FromDouble((double)weir_rate_due(self->bucket->rate, &self->taken) / 1e9);
}

static PyObject *Reservation_get_delay(Reservation *self, void *Py_UNUSED(closure))
{
    if (!is_usable(self->bucket))
        return NULL;
    weir_time at = weir_rate_due(self->bucket->rate, &self->taken), now = weir_now();
    return PyFloat_FromDouble(at > now ? (double)(at - now) / 1e9 : 0.0);
}

static PyObject *Reservation_get_n(Reservation *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(self->taken.cost);
}

PyDoc_STRVAR(
    reservation_cancel_doc,
    "cancel($self, /)\n--\n\n"
    "Give the tokens back, which must not have been used; whether they are back.\n\n"
    "False: others have taken theirs after them, or had waited since before and were told\n"
    "times that count on it, so that the tokens are lost; or it was cancelled before.");

static PyObject *Reservation_cancel(Reservation *self, PyObject *Py_UNUSED(ignored))
{
    Bucket *bucket = self->bucket;
    if (!is_usable(bucket))
        return NULL;
    EXT_LOCK(&bucket->lock);
    bool was_cancelled = self->is_cancelled || self->generation != ext_fork_generation();
    self->is_cancelled = true;
    EXT_UNLOCK(&bucket->lock);
    if (was_cancelled)
        Py_RETURN_FALSE;
    ext_wait wait;
    begin_outside(bucket, &wait);
    int back = weir_rate_unreserve(bucket->rate, &self->taken);
    end_outside(bucket, &wait);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(back);
}

static void Reservation_dealloc(Reservation *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(self->bucket);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef reservation_methods[] = {
    {"cancel", (PyCFunction)Reservation_cancel, METH_NOARGS, reservation_cancel_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef reservation_properties[] = {
    {"n", (getter)Reservation_get_n, NULL, "How many tokens.", NULL},
    {"at", (getter)Reservation_get_at, NULL,
     "When they may be used, as time.monotonic() tells time; now, if that is past.", NULL},
    {"delay", (getter)Reservation_get_delay, NULL, "In how many seconds; 0.0: now.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(reservation_doc, "Tokens that weir.TokenBucket.reserve() has taken in advance.");

static PyType_Slot reservation_slots[] = {
    {Py_tp_doc, (void *)reservation_doc},
    {Py_tp_dealloc, Reservation_dealloc},
    {Py_tp_methods, reservation_methods},
    {Py_tp_getset, reservation_properties},
    {0, NULL},
};

static PyType_Spec reservation_spec = {
    .name = "weir.Reservation",
    .basicsize = sizeof(Reservation),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = reservation_slots,
};

/* ---- places without a thread ---------------------------------------------------------------- */

typedef struct BucketPlace {
    PyObject_HEAD Bucket *bucket;
    weir_pending pending;
    PyObject *wake;
    uint64_t n;
    unsigned generation;
    bool is_waiting;
} BucketPlace;

/* On any thread of Python, which may have released the GIL. */
static void on_ready(weir_pending *pending, int result)
{
    (void)result;
    BucketPlace *self = pending->ctx;
    ext_callback callback;
    ext_callback_begin(&callback);
    PyObject *none = PyObject_CallNoArgs(self->wake);
    if (!none && PyErr_ExceptionMatches(PyExc_RuntimeError))
        PyErr_Clear(); /* its loop is closed: nobody is there to be told */
    else if (!none)
        PyErr_WriteUnraisable(self->wake);
    Py_XDECREF(none);
    ext_callback_end(&callback);
}

static PyObject *BucketPlace_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"", "", "", NULL};
    module_state *state = ext_state_of(type);
    PyObject *bucket, *n, *wake;
    if (!state || !PyArg_ParseTupleAndKeywords(args, kwargs, "O!OO:BucketPlace", (char **)names,
                                               state->bucket_type, &bucket, &n, &wake))
        return NULL;
    uint64_t tokens;
    if (parse_tokens(n, &tokens) < 0 || !is_usable((Bucket *)bucket))
        return NULL;
    BucketPlace *self = (BucketPlace *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->bucket = (Bucket *)Py_NewRef(bucket);
    self->wake = Py_NewRef(wake);
    self->n = tokens;
    self->generation = ext_fork_generation();
    self->pending = (weir_pending){.ready = on_ready, .ctx = self};
    return (PyObject *)self;
}

/* Whether the line that it waits in is this process's. */
static bool is_in_line(BucketPlace *self)
{
    return self->is_waiting && self->generation == ext_fork_generation();
}

PyDoc_STRVAR(
    poll_doc,
    "poll($self, /)\n--\n\n"
    "Come into line, or look: None when the tokens are taken, else the time at which to poll\n"
    "again (time.monotonic), or earlier when `wake` is called.");

static PyObject *BucketPlace_poll(BucketPlace *self, PyObject *Py_UNUSED(ignored))
{
    Bucket *bucket = self->bucket;
    if (!is_usable(bucket))
        return NULL;
    weir_time at = 0;
    ext_wait wait;
    begin_outside(bucket, &wait);
    int rc = is_in_line(self) ? weir_rate_poll(bucket->rate, &self->pending, &at)
                              : weir_rate_acquire_async(bucket->rate, self->n, &self->pending, &at);
    self->is_waiting = rc == WEIR_WAITING;
    end_outside(bucket, &wait);
    if (rc == WEIR_OK && PyErr_Occurred())
        ext_postpone_exception();
    if (rc == WEIR_OK)
        Py_RETURN_NONE;
    if (PyErr_Occurred())
        return NULL;
    return rc == WEIR_WAITING ? PyFloat_FromDouble((double)at / 1e9)
                              : raise_refused(bucket, rc, self->n);
}

static void leave_line(BucketPlace *self)
{
    if (!is_in_line(self))
        return;
    ext_wait wait;
    begin_outside(self->bucket, &wait);
    weir_rate_cancel(self->bucket->rate, &self->pending);
    self->is_waiting = false;
    end_outside(self->bucket, &wait);
}

PyDoc_STRVAR(cancel_doc, "cancel($self, /)\n--\n\nLeave the line, if it waits there.");

static PyObject *BucketPlace_cancel(BucketPlace *self, PyObject *Py_UNUSED(ignored))
{
    leave_line(self);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static void BucketPlace_dealloc(BucketPlace *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->bucket) {
        PyObject *error = ext_take_exception();
        leave_line(self);
        if (error)
            PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_XDECREF(error);
    }
    Py_XDECREF(self->bucket);
    Py_XDECREF(self->wake);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef place_methods[] = {
    {"poll", (PyCFunction)BucketPlace_poll, METH_NOARGS, poll_doc},
    {"cancel", (PyCFunction)BucketPlace_cancel, METH_NOARGS, cancel_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(place_doc, "BucketPlace(bucket, n, wake, /)\n--\n\n"
                        "A place in a bucket's line that no thread waits in; `wake()` says to poll "
                        "now.");

static PyType_Slot place_slots[] = {
    {Py_tp_doc, (void *)place_doc},
    {Py_tp_new, BucketPlace_new},
    {Py_tp_dealloc, BucketPlace_dealloc},
    {Py_tp_methods, place_methods},
    {0, NULL},
};

static PyType_Spec place_spec = {
    .name = "weir._weir.BucketPlace",
    .basicsize = sizeof(BucketPlace),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = place_slots,
};

/* ---- changes and looks ---------------------------------------------------------------------- */

static weir_rate_snapshot look(Bucket *self)
{
    weir_rate_snapshot now = WEIR_RATE_SNAPSHOT_INIT;
    weir_rate_get_snapshot(self->rate, &now);
    return now;
}

static double told_rate(const Bucket *self, const weir_rate_snapshot *now)
{
    return (double)now->rate * ((double)self->per_ns / (double)now->per_ns);
}

PyDoc_STRVAR(
    change_doc,
    "change($self, rate=None, *, per=None, burst=None)\n--\n\n"
    "Another rate or burst from now on; what is None stays as it is.\n\n"
    "For everybody who has the bucket, those who wait included (in other processes: within 0.05 s).\n"
    "What is inside stays, up to the burst.  Raises ValueError for what is out of range.");

static PyObject *change(Bucket *self, PyObject *rate, PyObject *per, PyObject *burst)
{
    if (!is_usable(self))
        return NULL;
    weir_rate_snapshot now = look(self);
    double value = told_rate(self, &now);
    int64_t per_ns = self->per_ns, in_ns = now.per_ns;
    uint64_t tokens = now.rate, most = now.burst;
    bool is_new = (rate && rate != Py_None) || (per && per != Py_None);
    if ((rate && rate != Py_None && parse_positive(rate, "rate", "tokens", &value) < 0) ||
        (per && per != Py_None && parse_per(per, &per_ns) < 0) ||
        (is_new && make_fraction(value, per_ns, &tokens, &in_ns) < 0) ||
        (burst && burst != Py_None && parse_burst(burst, value, &most) < 0))
        return NULL;
    ext_wait wait;
    begin_outside(self, &wait);
    int rc = weir_rate_set(self->rate, tokens, in_ns, most);
    end_outside(self, &wait);
    if (rc == WEIR_EINVAL) {
        PyErr_Format(PyExc_ValueError,
                     "'rate' in 'per' is out of range: at most 1e12 tokens in a second");
        return NULL;
    }
    if (rc < 0)
        return ext_raise(self->state, rc);
    self->per_ns = per_ns;
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *Bucket_change(Bucket *self, PyObject *const *args, Py_ssize_t n_args,
                               PyObject *kwnames)
{
    static const char *const names[] = {"rate", "per", "burst", NULL};
    PyObject *given[3];
    if (ext_parse_args("change", names, 1, 0, args, n_args, kwnames, given) < 0)
        return NULL;
    return change(self, given[0], given[1], given[2]);
}

static int set_to(Bucket *self, PyObject *rate, PyObject *burst)
{
    if (!rate && !burst) {
        PyErr_SetString(PyExc_AttributeError, "a TokenBucket has a rate and a burst always");
        return -1;
    }
    PyObject *none = change(self, rate, NULL, burst);
    Py_XDECREF(none);
    return none ? 0 : -1;
}

static PyObject *Bucket_get_rate(Bucket *self, void *Py_UNUSED(closure))
{
    if (!is_usable(self))
        return NULL;
    weir_rate_snapshot now = look(self);
    return PyFloat_FromDouble(told_rate(self, &now));
}

static int Bucket_set_rate(Bucket *self, PyObject *value, void *Py_UNUSED(closure))
{
    return set_to(self, value, NULL);
}

static PyObject *Bucket_get_burst(Bucket *self, void *Py_UNUSED(closure))
{
    return is_usable(self) ? PyLong_FromUnsignedLongLong(look(self).burst) : NULL;
}

static int Bucket_set_burst(Bucket *self, PyObject *value, void *Py_UNUSED(closure))
{
    return set_to(self, NULL, value);
}

static PyObject *Bucket_get_per(Bucket *self, void *Py_UNUSED(closure))
{
    return PyFloat_FromDouble((double)self->per_ns / 1e9);
}

static PyObject *Bucket_get_available(Bucket *self, void *Py_UNUSED(closure))
{
    return is_usable(self) ? PyLong_FromLongLong(look(self).available) : NULL;
}

static PyObject *Bucket_get_name(Bucket *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->name ? self->name : Py_None);
}

static PyObject *Bucket_get_shared(Bucket *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->shared ? self->shared : Py_None);
}

static PyObject *Bucket_get_is_closed(Bucket *self, void *Py_UNUSED(closure))
{
    return is_usable(self) ? PyBool_FromLong(look(self).closed) : NULL;
}

PyDoc_STRVAR(close_doc,
             "close($self, /)\n--\n\n"
             "Give nothing out any more: who waits, and who comes, gets weir.ShutDown.\n\n"
             "A shared bucket goes on elsewhere.  Closing twice is fine.");

static PyObject *Bucket_close(Bucket *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    ext_wait wait;
    begin_outside(self, &wait);
    weir_rate_close(self->rate);
    end_outside(self, &wait);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(stats_doc,
             "stats($self, /)\n--\n\nEverything that is counted: weir.TokenBucketStats.");

static PyObject *Bucket_stats(Bucket *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    weir_rate_snapshot now = look(self);
    PyObject *fields = Py_BuildValue(
        "{sO sO sd sd sK sL sK sK sK sn sd sO}", "name", self->name ? self->name : Py_None,
        "shared", self->shared ? self->shared : Py_None, "rate", told_rate(self, &now), "per",
        (double)self->per_ns / 1e9, "burst", (unsigned long long)now.burst, "available",
        (long long)now.available, "granted", (unsigned long long)now.granted, "returned",
        (unsigned long long)now.returned, "refused", (unsigned long long)now.refused, "waiting",
        (Py_ssize_t)now.waiting, "blocked", (double)now.blocked_ns / 1e9, "is_closed",
        now.closed ? Py_True : Py_False);
    PyObject *none = fields ? PyTuple_New(0) : NULL;
    PyObject *stats_type = none ? ext_import("weir._stats", "TokenBucketStats") : NULL;
    PyObject *stats = stats_type ? PyObject_Call(stats_type, none, fields) : NULL;
    Py_XDECREF(stats_type);
    Py_XDECREF(none);
    Py_XDECREF(fields);
    return stats;
}

/* ---- beginning and end ---------------------------------------------------------------------- */

static int raise_create(Bucket *self, int rc, const char *shared)
{
    if (shared)
        ext_raise_shared(self->state, rc, "bucket", shared);
    else if (rc == WEIR_EINVAL)
        PyErr_SetString(PyExc_ValueError,
                        "'rate' in 'per' is out of range: at most 1e12 tokens in a second");
    else
        ext_raise(self->state, rc);
    return -1;
}

static int init(Bucket *self, weir_rate_opts *opts, PyObject *shared, PyObject *name)
{
    if (self->rate) {
        PyErr_SetString(PyExc_RuntimeError, "weir.TokenBucket.__init__() has been called already");
        return -1;
    }
    self->state = ext_state_of(Py_TYPE(self));
    if (!self->state)
        return -1;
    int rc;
    Py_BEGIN_ALLOW_THREADS rc = weir_rate_create(&self->rate, opts);
    Py_END_ALLOW_THREADS if (rc < 0) return raise_create(self, rc, opts->shared);
    self->generation = ext_fork_generation();
    Py_XSETREF(self->name, Py_XNewRef(name));
    Py_XSETREF(self->shared, Py_XNewRef(shared));
    return 0;
}

static bool is_text(PyObject **given, const char *name)
{
    if (*given == Py_None)
        *given = NULL;
    if (!*given || PyUnicode_Check(*given))
        return true;
    PyErr_Format(PyExc_TypeError, "%s must be a str or None, not %R", name, *given);
    return false;
}

static int Bucket_init(Bucket *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"rate", "per", "burst", "shared", "name", NULL};
    PyObject *rate, *per = NULL, *burst = NULL, *shared = NULL, *name = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OOOO:TokenBucket", (char **)names, &rate,
                                     &per, &burst, &shared, &name))
        return -1;
    weir_rate_opts opts = WEIR_RATE_OPTS_INIT;
    double value;
    int64_t per_ns;
    if (parse_positive(rate, "rate", "tokens", &value) < 0 || parse_per(per, &per_ns) < 0 ||
        make_fraction(value, per_ns, &opts.rate, &opts.per_ns) < 0 ||
        parse_burst(burst, value, &opts.burst) < 0 || ext_parse_shared(shared, &opts.shared) < 0 ||
        !is_text(&name, "name"))
        return -1;
    if (shared == Py_None)
        shared = NULL;
    opts.name = ext_shown_name(name);
    int rc;
    EXT_BEGIN_CRITICAL_SECTION(self)
    self->per_ns = self->rate ? self->per_ns : per_ns;
    rc = init(self, &opts, shared, name);
    EXT_END_CRITICAL_SECTION()
    return rc;
}

static void Bucket_dealloc(Bucket *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs)
        PyObject_ClearWeakRefs((PyObject *)self);
    if (self->waiting == 0)
        weir_rate_destroy(self->rate);
    Py_XDECREF(self->name);
    Py_XDECREF(self->shared);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static int Bucket_traverse(Bucket *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

#define FAST(name) (PyCFunction)(void (*)(void)) Bucket_##name, METH_FASTCALL | METH_KEYWORDS

static PyMethodDef bucket_methods[] = {
    {"try_acquire", FAST(try_acquire), try_acquire_doc},
    {"acquire", FAST(acquire), acquire_doc},
    {"reserve", FAST(reserve), reserve_doc},
    {"change", FAST(change), change_doc},
    {"close", (PyCFunction)Bucket_close, METH_NOARGS, close_doc},
    {"stats", (PyCFunction)Bucket_stats, METH_NOARGS, stats_doc},
    {"_probe", (PyCFunction)Bucket_probe, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef bucket_properties[] = {
    {"rate", (getter)Bucket_get_rate, (setter)Bucket_set_rate,
     "Tokens in `per` seconds; may be changed at any time.", NULL},
    {"per", (getter)Bucket_get_per, NULL, "Seconds.", NULL},
    {"burst", (getter)Bucket_get_burst, (setter)Bucket_set_burst,
     "The most tokens inside; may be changed at any time.", NULL},
    {"available", (getter)Bucket_get_available, NULL,
     "Whole tokens inside now; below 0: so many are reserved that are not there yet.", NULL},
    {"name", (getter)Bucket_get_name, NULL, "As given, or None.", NULL},
    {"shared", (getter)Bucket_get_shared, NULL, "As given, or None.", NULL},
    {"is_closed", (getter)Bucket_get_is_closed, NULL, "Whether close() was called here.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef bucket_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Bucket, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(bucket_doc,
             "TokenBucketBase(rate, *, per=1.0, burst=None, shared=None, name=None)\n--\n\n"
             "What weir.TokenBucket is without asyncio.");

static PyType_Slot bucket_slots[] = {
    {Py_tp_doc, (void *)bucket_doc},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, Bucket_init},
    {Py_tp_dealloc, Bucket_dealloc},
    {Py_tp_traverse, Bucket_traverse},
    {Py_tp_methods, bucket_methods},
    {Py_tp_getset, bucket_properties},
    {Py_tp_members, bucket_members},
    {0, NULL},
};

static PyType_Spec bucket_spec = {
    .name = "weir._weir.TokenBucketBase",
    .basicsize = sizeof(Bucket),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = bucket_slots,
};

int ext_rate_types_add(PyObject *module, module_state *state)
{
    PyTypeObject *place;
    if (ext_add_type(module, &bucket_spec, &state->bucket_type) < 0 ||
        ext_add_type(module, &reservation_spec, &state->reservation_type) < 0 ||
        ext_add_type(module, &place_spec, &place) < 0)
        return -1;
    Py_DECREF(place); /* the module keeps it */
    return 0;
}
