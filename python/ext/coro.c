/* coro.c - weir._weir.Coroutine: what the methods return that are awaited.
 *
 * A coroutine in the sense of collections.abc, so that a task can run it as it is.  What it is to do
 * it does when it is awaited: at once if that needs no waiting, and then it does not suspend;
 * otherwise from a place in line (pending.c), which whoever serves it reports to the right loop.
 *
 * States:     NEW -> ASLEEP, any number of times -> OVER.
 * Waking:     from the thread that it ran in the future it sleeps on is made done; from elsewhere that
 *             is what call_soon_threadsafe is for.  Woken, it looks: whether there is something to claim,
 *             whether its time is over.  So a wake-up too many does no harm.
 * Loops:      asyncio, and what has its API.  For others weir._aio has somebody who can sleep there.
 * The end:    when it is closed, an exception is thrown into it, or it goes, it leaves the line, or gives
 *             back what it was granted.
 */
#include "module.h"

#include <sched.h>

enum state { NEW, RUNNING, ASLEEP, OVER };

/* ---- going to sleep ------------------------------------------------------------------------- */

/* The running asyncio loop, a new reference; None: there is none. */
static PyObject *running_loop(module_state *state)
{
    if (!state->get_running_loop &&
        !(state->get_running_loop = ext_import("asyncio", "_get_running_loop")))
        return NULL;
    return PyObject_CallNoArgs(state->get_running_loop);
}

/* Finds out where it runs; -1 with an exception. */
static int find_loop(ext_coro *self)
{
    PyObject *loop = running_loop(self->module);
    if (loop && loop == Py_None) {
        PyObject *find = ext_import("weir._aio", "find_sleeper");
        Py_SETREF(loop, find ? PyObject_CallNoArgs(find) : NULL);
        Py_XDECREF(find);
        self->is_foreign = true;
    }
    self->loop = loop;
    self->thread = PyThread_get_thread_ident();
    return loop ? 0 : -1;
}

/* Until the deadline; a new reference. */
static PyObject *seconds_left(const ext_coro *self)
{
    if (self->deadline == WEIR_FOREVER)
        return Py_NewRef(Py_None);
    weir_time left = self->deadline - weir_now();
    return PyFloat_FromDouble(left > 0 ? (double)left / 1e9 : 0.0);
}

/* What to await until somebody wakes it up; -1 with an exception. */
static int lie_down(ext_coro *self)
{
    if (self->is_foreign) {
        PyObject *seconds = seconds_left(self);
        if (seconds)
            self->sleep = PyObject_CallMethod(self->loop, "sleep", "(N)", seconds);
        return self->sleep ? 0 : -1;
    }
    PyObject *future = PyObject_CallMethodNoArgs(self->loop, self->module->str_create_future);
    if (!future)
        return -1;
    unaryfunc await = Py_TYPE(future)->tp_as_async ? Py_TYPE(future)->tp_as_async->am_await : NULL;
    self->sleep = await ? await(future) : NULL;
    self->future = future;
    if (!await)
        PyErr_SetString(PyExc_TypeError, "the loop's futures cannot be awaited");
    return self->sleep ? 0 : -1;
}

static void forget_timer(ext_coro *self)
{
    PyObject *timer = self->timer;
    self->timer = NULL;
    if (!timer)
        return;
    PyObject *none = PyObject_CallMethodNoArgs(timer, self->module->str_cancel);
    if (!none)
        PyErr_WriteUnraisable(timer);
    Py_XDECREF(none);
    Py_DECREF(timer);
}

int ext_coro_set_deadline(ext_coro *self, weir_time deadline)
{
    self->deadline = deadline;
    self->has_expired = false;
    forget_timer(self);
    if (self->is_foreign || deadline == WEIR_FOREVER)
        return 0;
    PyObject *expire = PyObject_GetAttrString((PyObject *)self, "_expire");
    PyObject *seconds = seconds_left(self);
    if (expire && seconds)
        self->timer = PyObject_CallMethodObjArgs(self->loop, self->module->str_call_later, seconds,
                                                 expire, NULL);
    Py_XDECREF(expire);
    Py_XDECREF(seconds);
    return self->timer ? 0 : -1;
}

/* ---- waking up ------------------------------------------------------------------------------ */

/* From its loop's thread. */
static PyObject *wake(ext_coro *self)
{
    if (!self->future)
        Py_RETURN_NONE;
    PyObject *future = Py_NewRef(self->future);
    PyObject *done = PyObject_CallMethodNoArgs(future, self->module->str_done);
    PyObject *none = NULL;
    if (done == Py_False)
        none = PyObject_CallMethodOneArg(future, self->module->str_set_result, Py_None);
    else if (done)
        none = Py_NewRef(Py_None);
    Py_XDECREF(done);
    Py_DECREF(future);
    return none;
}

/* A call from another thread that comes sooner than so after the last one belongs to a conversation. */
#define SOON        WEIR_MILLISECOND
/* Who keeps the GIL for longer than so takes no part in it: for so many times as long as that took
 * nobody is let go on, so a twentieth of the time is the most that is lost to others. */
#define LONG        (2 * WEIR_MILLISECOND)
#define PAUSE       20
/* Where it was in vain so often in a row, it is tried again now and then. */
#define LOSSES_MAX  8
#define PROBE_EVERY 32

/* To call a loop is a system call, in which Python lets go of the GIL: where there are not CPUs for both,
 * the loop takes it from the caller, and they change places for every item.  So in a conversation the
 * caller goes on first, until it waits itself: by then there is enough for many turns. */
static void let_caller_go_on(ext_coro *self)
{
    static _Thread_local struct {
        weir_time last, not_before;
        unsigned losses, skipped;
    } talk;
    weir_time now = weir_now();
    bool is_talk = now - talk.last < SOON && now >= talk.not_before;
    talk.last = now;
    if (!is_talk || self->kind->has_plenty(self) ||
        (talk.losses >= LOSSES_MAX && ++talk.skipped % PROBE_EVERY > 0))
        return;
    PyThreadState *saved = PyEval_SaveThread();
    sched_yield();
    PyEval_RestoreThread(saved);
    talk.last = weir_now();
    if (talk.last - now > LONG)
        talk.not_before = talk.last + PAUSE * (talk.last - now);
    bool has_helped = self->state == ASLEEP && self->kind->has_plenty(self);
    talk.losses = has_helped ? 0 : talk.losses + 1;
}

PyDoc_STRVAR(wake_doc, "_wake($self, /)\n--\n\n"
                       "Let it look, from its loop's thread; another thread has called.");

static PyObject *coro_wake(ext_coro *self, PyObject *Py_UNUSED(ignored))
{
    if (self->kind->has_plenty && self->state == ASLEEP)
        let_caller_go_on(self);
    return wake(self);
}

PyObject *ext_coro_ready(ext_coro *self)
{
    if (!self->loop)
        Py_RETURN_NONE; /* it is over: what it was granted is given back */
    if (self->is_foreign)
        return PyObject_CallMethodNoArgs(self->loop, self->module->str_wake);
    if (PyThread_get_thread_ident() == self->thread)
        return wake(self);
    PyObject *call = PyObject_GetAttrString((PyObject *)self, "_wake");
    PyObject *handle = NULL;
    if (call)
        handle =
            PyObject_CallMethodOneArg(self->loop, self->module->str_call_soon_threadsafe, call);
    Py_XDECREF(call);
    return handle;
}

PyDoc_STRVAR(ready_doc, "_ready($self, /)\n--\n\n"
                        "Let it look, from whatever thread.  Raises RuntimeError where its loop is "
                        "closed.");

static PyObject *coro_ready(ext_coro *self, PyObject *Py_UNUSED(ignored))
{
    return ext_coro_ready(self);
}

PyDoc_STRVAR(expire_doc, "_expire($self, /)\n--\n\nIts time is over.");

static PyObject *coro_expire(ext_coro *self, PyObject *Py_UNUSED(ignored))
{
    self->has_expired = true;
    return wake(self);
}

/* ---- running -------------------------------------------------------------------------------- */

static void wake_up(ext_coro *self)
{
    Py_CLEAR(self->sleep);
    Py_CLEAR(self->future);
}

/* Whatever the state.  Keeps an exception that is set. */
static void end(ext_coro *self)
{
    PyObject *error = PyErr_Occurred() ? ext_take_exception() : NULL;
    self->state = OVER;
    forget_timer(self);
    if (self->pending)
        ext_pending_cancel(self->pending);
    if (self->kind->forget && self->owner)
        self->kind->forget(self);
    wake_up(self);
    Py_CLEAR(self->pending);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->argument);
    Py_CLEAR(self->owner);
    ext_restore_exception(error);
}

static PySendResult end_with(ext_coro *self, PyObject *value, PyObject **ret)
{
    end(self);
    *ret = value;
    return value ? PYGEN_RETURN : PYGEN_ERROR;
}

static PySendResult time_out(ext_coro *self, PyObject **ret)
{
    if (self->pending)
        ext_pending_cancel(self->pending);
    PyObject *value = self->kind->expire ? self->kind->expire(self) : NULL;
    if (!value && !PyErr_Occurred())
        ext_raise(self->module, WEIR_ETIMEDOUT);
    return end_with(self, value, ret);
}

/* After the sleep has gone on with arg: false: *ret is how it ended, or for the loop. */
static bool has_slept(ext_coro *self, PyObject *arg, PySendResult *result, PyObject **ret)
{
    *result = PyIter_Send(self->sleep, arg, ret);
    if (*result == PYGEN_NEXT)
        self->state = ASLEEP;
    else if (*result == PYGEN_ERROR)
        end_with(self, NULL, ret);
    if (*result != PYGEN_RETURN)
        return false;
    if (self->is_foreign && *ret == Py_False)
        self->has_expired = true;
    Py_CLEAR(*ret);
    wake_up(self);
    return true;
}

/* Waits until there is something to claim, or its time is over. */
static PySendResult run(ext_coro *self, PyObject *arg, PyObject **ret)
{
    for (;; arg = Py_None) {
        PySendResult result;
        if (self->sleep && !has_slept(self, arg, &result, ret))
            return result;
        if (ext_pending_is_done(self->pending)) {
            PyObject *value = ext_pending_claim(self->pending);
            if (value || PyErr_Occurred() || (self->kind->again && self->kind->again(self) < 0))
                return end_with(self, value, ret);
        } else if (self->has_expired) {
            bool waits_on = self->kind->is_patient && self->kind->is_patient(self);
            if (PyErr_Occurred())
                return end_with(self, NULL, ret);
            if (!waits_on)
                return time_out(self, ret);
        } else if (lie_down(self) < 0) {
            return end_with(self, NULL, ret);
        }
    }
}

static PySendResult begin(ext_coro *self, PyObject **ret)
{
    self->state = RUNNING;
    PyObject *value = self->kind->attempt ? self->kind->attempt(self) : NULL;
    if (value || PyErr_Occurred())
        return end_with(self, value, ret);
    if (self->timeout_ns == 0 && self->kind->attempt)
        return time_out(self, ret);
    if (find_loop(self) < 0)
        return end_with(self, NULL, ret);
    self->pending = self->kind->begin(self);
    if (!self->pending)
        return end_with(self, NULL, ret);
    if (!ext_pending_is_done(self->pending)) {
        if (self->timeout_ns == 0)
            return time_out(self, ret);
        if (ext_coro_set_deadline(self, ext_deadline(self->timeout_ns)) < 0)
            return end_with(self, NULL, ret);
    }
    return run(self, Py_None, ret);
}

/* One thread at a time drives it; the other is told so by the state, like a generator's. */
static PySendResult go_on(ext_coro *self, PyObject *arg, PyObject **ret)
{
    *ret = NULL;
    switch (self->state) {
    case NEW:
        if (arg == Py_None)
            return begin(self, ret);
        PyErr_SetString(PyExc_TypeError, "can't send non-None value to a just-started coroutine");
        return PYGEN_ERROR;
    case ASLEEP: self->state = RUNNING; return run(self, arg, ret);
    case RUNNING: PyErr_SetString(PyExc_ValueError, "coroutine already executing"); break;
    default: PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
    }
    return PYGEN_ERROR;
}

static PySendResult coro_am_send(ext_coro *self, PyObject *arg, PyObject **ret)
{
    PySendResult result;
    EXT_BEGIN_CRITICAL_SECTION(self);
    result = go_on(self, arg, ret);
    EXT_END_CRITICAL_SECTION();
    return result;
}

/* As an iterator's next says it. */
static PyObject *to_next(PySendResult result, PyObject *value)
{
    if (result != PYGEN_RETURN)
        return value;
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, value);
    Py_DECREF(value);
    if (stop)
        PyErr_SetObject(PyExc_StopIteration, stop);
    Py_XDECREF(stop);
    return NULL;
}

static PyObject *coro_next(ext_coro *self)
{
    PyObject *value;
    PySendResult result = coro_am_send(self, Py_None, &value);
    return to_next(result, value);
}

PyDoc_STRVAR(send_doc, "send($self, value, /)\n--\n\nRun until it suspends, or is over.");

static PyObject *coro_send(ext_coro *self, PyObject *arg)
{
    PyObject *value;
    PySendResult result = coro_am_send(self, arg, &value);
    return to_next(result, value);
}

/* ---- ending it ------------------------------------------------------------------------------ */

/* Sets what throw() was given; -1 with another exception. */
static int set_thrown(PyObject *const *args, Py_ssize_t n)
{
    PyObject *type = n > 0 ? args[0] : NULL, *value = n > 1 && args[1] != Py_None ? args[1] : NULL;
    if (n < 1 || n > 3) {
        PyErr_SetString(PyExc_TypeError, "throw() takes an exception");
        return -1;
    }
    if (PyExceptionInstance_Check(type)) {
        PyErr_SetObject((PyObject *)Py_TYPE(type), type);
    } else if (PyExceptionClass_Check(type)) {
        PyErr_SetObject(type, value);
    } else {
        PyErr_Format(PyExc_TypeError,
                     "exceptions must be classes or instances deriving from "
                     "BaseException, not %s",
                     Py_TYPE(type)->tp_name);
        return -1;
    }
    return 0;
}

static PyObject *end_by_throw(ext_coro *self, PyObject *const *args, Py_ssize_t n)
{
    if (self->state == RUNNING) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return NULL;
    }
    if (self->state == OVER) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return NULL;
    }
    if (self->is_foreign && self->sleep) { /* it may have to tidy up, and may suspend for that */
        PyObject *throw = PyObject_GetAttrString(self->sleep, "throw");
        PyObject *value = throw ? PyObject_Vectorcall(throw, args, (size_t)n, NULL) : NULL;
        Py_XDECREF(throw);
        if (value)
            return value;
    } else if (set_thrown(args, n) < 0) {
        return NULL;
    }
    end(self);
    return NULL;
}

PyDoc_STRVAR(throw_doc, "throw($self, type, value=None, traceback=None, /)\n--\n\n"
                        "End it with an exception: it leaves the line.");

static PyObject *coro_throw(ext_coro *self, PyObject *const *args, Py_ssize_t n)
{
    PyObject *value;
    EXT_BEGIN_CRITICAL_SECTION(self);
    value = end_by_throw(self, args, n);
    EXT_END_CRITICAL_SECTION();
    return value;
}

static PyObject *end_by_close(ext_coro *self)
{
    if (self->state == RUNNING) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return NULL;
    }
    if (self->is_foreign && self->sleep && self->state == ASLEEP) {
        PyObject *none = PyObject_CallMethod(self->sleep, "close", NULL);
        if (!none)
            return NULL;
        Py_DECREF(none);
    }
    end(self);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\nEnd it: it leaves the line.");

static PyObject *coro_close(ext_coro *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *none;
    EXT_BEGIN_CRITICAL_SECTION(self);
    none = end_by_close(self);
    EXT_END_CRITICAL_SECTION();
    return none;
}

/* ---- the type ------------------------------------------------------------------------------- */

ext_coro *ext_coro_new(module_state *state, const ext_coro_kind *kind, PyObject *owner,
                       PyObject *argument, int64_t timeout_ns)
{
    ext_coro *self = PyObject_GC_New(ext_coro, state->coro_type);
    if (!self)
        return NULL;
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    self->module = state;
    self->kind = kind;
    self->owner = Py_NewRef(owner);
    self->argument = Py_XNewRef(argument);
    self->timeout_ns = timeout_ns;
    PyObject_GC_Track(self);
    return self;
}

static int coro_traverse(ext_coro *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->owner);
    Py_VISIT(self->argument);
    Py_VISIT(self->pending);
    Py_VISIT(self->loop);
    Py_VISIT(self->sleep);
    Py_VISIT(self->future);
    Py_VISIT(self->timer);
    return 0;
}

static int coro_clear(ext_coro *self)
{
    end(self);
    return 0;
}

static void coro_finalize(ext_coro *self)
{
    if (self->state != NEW)
        return;
    PyObject *error = ext_take_exception();
    if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%s' was never awaited",
                         self->kind->name) < 0)
        PyErr_WriteUnraisable((PyObject *)self);
    ext_restore_exception(error);
}

static void coro_dealloc(ext_coro *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->state == NEW && PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0)
        return;
    PyObject_GC_UnTrack(self);
    if (self->state != OVER)
        end(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyObject *coro_name(ext_coro *self, void *Py_UNUSED(closure))
{
    const char *dot = strrchr(self->kind->name, '.');
    return PyUnicode_FromString(dot ? dot + 1 : self->kind->name);
}

static PyObject *coro_qualname(ext_coro *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(self->kind->name);
}

static PyObject *coro_running(ext_coro *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->state == RUNNING);
}

static PyObject *coro_repr(ext_coro *self)
{
    static const char *const states[] = {"not begun", "running", "waiting", "over"};
    return PyUnicode_FromFormat("<coroutine %s, %s>", self->kind->name,
                                states[(unsigned char)self->state]);
}

static PyMethodDef coro_methods[] = {
    {"send", (PyCFunction)coro_send, METH_O, send_doc},
    {"throw", (PyCFunction)(void (*)(void))coro_throw, METH_FASTCALL, throw_doc},
    {"close", (PyCFunction)coro_close, METH_NOARGS, close_doc},
    {"_wake", (PyCFunction)coro_wake, METH_NOARGS, wake_doc},
    {"_ready", (PyCFunction)coro_ready, METH_NOARGS, ready_doc},
    {"_expire", (PyCFunction)coro_expire, METH_NOARGS, expire_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef coro_getset[] = {
    {"__name__", (getter)coro_name, NULL, NULL, NULL},
    {"__qualname__", (getter)coro_qualname, NULL, NULL, NULL},
    {"cr_running", (getter)coro_running, NULL, "Whether it is executing right now.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot coro_slots[] = {
    {Py_tp_doc, (void *)"A coroutine of weir's own."},
    {Py_tp_dealloc, coro_dealloc},
    {Py_tp_finalize, coro_finalize},
    {Py_tp_traverse, coro_traverse},
    {Py_tp_clear, coro_clear},
    {Py_tp_repr, coro_repr},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, coro_am_send},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, coro_next},
    {Py_tp_methods, coro_methods},
    {Py_tp_getset, coro_getset},
    {0, NULL},
};

static PyType_Spec coro_spec = {
    .name = "weir._weir.Coroutine",
    .basicsize = sizeof(ext_coro),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = coro_slots,
};

/* ---- any place in line ---------------------------------------------------------------------- */

/* argument(ready) makes the place. */
static ext_pending *place_begin(ext_coro *self)
{
    PyObject *ready = PyObject_GetAttrString((PyObject *)self, "_ready");
    PyObject *place = ready ? PyObject_CallOneArg(self->argument, ready) : NULL;
    Py_XDECREF(ready);
    if (place && Py_TYPE(place) != self->module->pending_type) {
        PyErr_Format(PyExc_TypeError, "begin(ready) must return a Pending, not %s",
                     Py_TYPE(place)->tp_name);
        Py_CLEAR(place);
    }
    return (ext_pending *)place;
}

static const ext_coro_kind place_kind = {.name = "weir.wait", .begin = place_begin};

PyDoc_STRVAR(
    wait_doc,
    "wait(begin, timeout=None, /)\n--\n\n"
    "Join a line with begin(ready) and wait, as a coroutine, for what it grants.\n\n"
    "TimeoutError after `timeout` seconds.  What is granted to a coroutine that was\n"
    "cancelled meanwhile, or whose loop has gone, is given back.  Never suspends where it\n"
    "need not wait.");

static PyObject *wait(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    int64_t timeout_ns;
    if (n < 1 || n > 2) {
        PyErr_SetString(PyExc_TypeError, "wait() takes begin and timeout");
        return NULL;
    }
    if (ext_parse_timeout(n > 1 ? args[1] : NULL, "timeout", &timeout_ns) < 0)
        return NULL;
    /* 0: it looks, once it is there */
    return (PyObject *)ext_coro_new(PyModule_GetState(module), &place_kind, module, args[0],
                                    timeout_ns);
}

static PyMethodDef functions[] = {
    {"wait", (PyCFunction)(void (*)(void))wait, METH_FASTCALL, wait_doc},
    {NULL, NULL, 0, NULL},
};

int ext_coro_types_add(PyObject *module, module_state *state)
{
    if (PyModule_AddFunctions(module, functions) < 0)
        return -1;
    return ext_add_type(module, &coro_spec, &state->coro_type);
}
