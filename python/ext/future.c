/* future.c - weir._weir.LazyFuture: a concurrent.futures.Future whose state lives in C.
 *
 * It makes its condition when somebody asks for it: three quarters of a standard future's memory
 * (about 1.3 KiB of 1.8) is its condition, and most futures are finished before anybody does.
 * Everything that the standard library does to a future from outside goes through `_condition`, so
 * `wait`, `as_completed` and `asyncio.wrap_future` work as ever.
 *
 * Order:      the condition is made, and a future without one is changed, under one lock (the GIL,
 *             or `lock`); so whoever has the condition sees either an unfinished future that will
 *             be finished under it, or a finished one.
 * Waiting:    result() and exception() need no condition: a thread that waits stands in a list,
 *             is taken out of it by whoever makes the state final, and rung.
 * Memory:     the fields are slots like those of a class with __slots__, so that Python's own
 *             subtype_dealloc, _traverse and _clear care for them, __dict__ and weak references.
 * Fork:       the threads in the list are the parent's; a forked child rings nobody.
 */
#include "future.h"

#include <math.h>

#define BIT(state)    (1u << (state))
#define IS_UNFINISHED (BIT(EXT_PENDING) | BIT(EXT_RUNNING))
#define IS_CANCELLED  (BIT(EXT_CANCELLED) | BIT(EXT_CANCELLED_AND_NOTIFIED))
#define IS_DONE       (IS_CANCELLED | BIT(EXT_FINISHED))

static bool is_in(ext_future *future, unsigned states)
{
    return (BIT(ext_future_get_state(future)) & states) != 0;
}

static module_state *state_of(ext_future *future)
{
    return ext_state_of(Py_TYPE(future));
}

static PyObject *name_of(module_state *module, ext_future_state state)
{
    switch (state) {
    case EXT_PENDING: return module->str_pending;
    case EXT_RUNNING: return module->str_running;
    case EXT_CANCELLED: return module->str_cancelled;
    case EXT_CANCELLED_AND_NOTIFIED: return module->str_cancelled_and_notified;
    case EXT_FINISHED: break;
    }
    return module->str_finished;
}

/* ---- threads that wait ---------------------------------------------------------------------- */

/* On the heap: a daemon thread that waits while the interpreter ends never comes back to unlink it,
 * and its stack is gone. */
struct ext_future_waiter {
    ext_bell bell;
    ext_future_waiter *next;
    unsigned generation;
};

static void ring_all(ext_future *future)
{
    ext_future_waiter *waiter = future->first;
    future->first = NULL;
    while (waiter) {
        ext_future_waiter *next = waiter->next;
        if (waiter->generation == ext_fork_generation())
            ext_bell_ring(&waiter->bell);
        waiter = next;
    }
}

static void unlink_waiter(ext_future *future, ext_future_waiter *waiter)
{
    for (ext_future_waiter **at = &future->first; *at; at = &(*at)->next) {
        if (*at == waiter) {
            *at = waiter->next;
            return;
        }
    }
}

static void set_state(ext_future *future, ext_future_state state)
{
    /* release: pairs with the acquire in ext_future_get_state; publishes the result */
    atomic_store_explicit(&future->state, (uint8_t)state, memory_order_release);
    if (BIT(state) & IS_DONE)
        ring_all(future);
}

/* As threading.Condition.wait understands it: what is not > 0 does not wait. */
static int parse_timeout(PyObject *timeout, weir_time *ret_deadline)
{
    *ret_deadline = WEIR_FOREVER;
    if (timeout == Py_None)
        return 0;
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    double ns = ceil(seconds * 1e9);
    if (!(ns > 0))
        *ret_deadline = WEIR_POLL;
    else if (ns < 9.2e18)
        *ret_deadline = weir_after((int64_t)ns);
    return 0;
}

static int wait_rung(ext_future *future, ext_future_waiter *waiter, weir_time deadline)
{
    EXT_LOCK(&future->lock);
    ext_completer *completer = (ext_completer *)Py_XNewRef((PyObject *)future->completer);
    EXT_UNLOCK(&future->lock);
    ext_turns *turns = completer ? &completer->turns : NULL;
    if (completer)
        ext_thread_pool_before_wait(completer);
    ext_wait wait;
    ext_wait_begin(&wait);
    if (turns)
        ext_turns_let_go(turns);
    int rc = ext_bell_wait(&waiter->bell, deadline, turns ? &turns->client : NULL);
    if (turns && rc >= 0)
        ext_turns_linger(turns);
    ext_wait_end(&wait);
    Py_XDECREF(completer);
    return rc;
}

/* 1: it is done; 0: the deadline passed; -1: an exception. */
static int wait_done(ext_future *future, weir_time deadline)
{
    if (is_in(future, IS_DONE))
        return 1;
    if (deadline == WEIR_POLL)
        return 0;
    ext_future_waiter *waiter = PyMem_Malloc(sizeof *waiter);
    if (!waiter) {
        PyErr_NoMemory();
        return -1;
    }
    ext_bell_init(&waiter->bell);
    waiter->generation = ext_fork_generation();
    int rc = 0;
    EXT_LOCK(&future->lock);
    bool must_wait = !is_in(future, IS_DONE);
    if (must_wait) {
        waiter->next = future->first;
        future->first = waiter;
    }
    EXT_UNLOCK(&future->lock);
    if (must_wait) {
        rc = wait_rung(future, waiter, deadline);
        EXT_LOCK(&future->lock); /* whoever rings has done so when we have this */
        unlink_waiter(future, waiter);
        EXT_UNLOCK(&future->lock);
    }
    ext_bell_fini(&waiter->bell);
    PyMem_Free(waiter);
    if (PyErr_Occurred())
        return -1;
    if (rc < 0 && rc != WEIR_ETIMEDOUT) {
        ext_raise(state_of(future), rc);
        return -1;
    }
    return is_in(future, IS_DONE);
}

/* ---- changing the state --------------------------------------------------------------------- */

static PyObject *acquire_lock_of(PyObject *condition)
{
    /* The lock itself, which is C: a signal handler can raise while it waits, and nowhere else. */
    PyObject *lock = PyObject_GetAttrString(condition, "_lock");
    PyObject *rc = lock ? PyObject_CallMethod(lock, "acquire", NULL) : NULL;
    if (!rc)
        Py_CLEAR(lock);
    Py_XDECREF(rc);
    return lock;
}

static int release_lock(PyObject *lock)
{
    PyObject *rc = PyObject_CallMethod(lock, "release", NULL);
    Py_XDECREF(rc);
    Py_DECREF(lock);
    return rc ? 0 : -1;
}

int ext_future_begin(ext_future_change *change, ext_future *future)
{
    change->future = future;
    change->garbage = NULL;
    change->lock = NULL;
    EXT_LOCK(&future->lock);
    if (!future->condition)
        return 0;
    PyObject *condition = Py_NewRef(future->condition); /* it stays the same */
    EXT_UNLOCK(&future->lock);
    change->lock = acquire_lock_of(condition);
    Py_DECREF(condition);
    if (!change->lock)
        return -1;
    EXT_LOCK(&future->lock);
    return 0;
}

void ext_future_set(ext_future_change *change, ext_future_state state, PyObject *result,
                    PyObject *exception)
{
    ext_future *future = change->future;
    if (result) {
        change->garbage = future->result;
        future->result = result;
    }
    if (exception) {
        change->garbage = future->exception;
        future->exception = exception;
    }
    set_state(future, state);
}

/* An exception of several: the first one stays. */
typedef struct {
    PyObject *type, *value, *traceback;
} first_error;

static void keep_error(first_error *first)
{
    if (!PyErr_Occurred())
        return;
    if (first->type)
        PyErr_WriteUnraisable(NULL);
    else
        PyErr_Fetch(&first->type, &first->value, &first->traceback);
}

static void tell_waiters(ext_future *future, first_error *error)
{
    ext_future_state state = ext_future_get_state(future);
    const char *method = state == EXT_CANCELLED_AND_NOTIFIED ? "add_cancelled"
                         : future->exception                 ? "add_exception"
                                                             : "add_result";
    PyObject *waiters = Py_XNewRef(future->waiters);
    for (Py_ssize_t i = 0; waiters && PyList_Check(waiters) && i < PyList_GET_SIZE(waiters); i++) {
        PyObject *waiter = Py_NewRef(PyList_GET_ITEM(waiters, i));
        Py_XDECREF(PyObject_CallMethod(waiter, method, "O", future));
        Py_DECREF(waiter);
        keep_error(error);
    }
    Py_XDECREF(waiters);
}

static void tell_condition(ext_future_change *change, first_error *error)
{
    ext_future *future = change->future;
    if (is_in(future, BIT(EXT_FINISHED) | BIT(EXT_CANCELLED_AND_NOTIFIED)))
        tell_waiters(future, error);
    Py_XDECREF(PyObject_CallMethod(future->condition, "notify_all", NULL));
    keep_error(error);
    release_lock(change->lock);
    keep_error(error);
}

int ext_future_end(ext_future_change *change, module_state *state)
{
    ext_future *future = change->future;
    EXT_UNLOCK(&future->lock);
    if (!change->lock && !change->garbage && !future->callbacks)
        return 0;
    first_error error = {0};
    if (change->lock)
        tell_condition(change, &error);
    Py_XDECREF(change->garbage);
    if (future->callbacks) {
        Py_XDECREF(PyObject_CallMethodNoArgs((PyObject *)future, state->str_invoke_callbacks));
        keep_error(&error);
    }
    if (!error.type)
        return 0;
    PyErr_Restore(error.type, error.value, error.traceback);
    return -1;
}

int ext_future_abandon(ext_future_change *change)
{
    EXT_UNLOCK(&change->future->lock);
    return change->lock ? release_lock(change->lock) : 0;
}

static int raise_invalid_state(module_state *state, ext_future *future)
{
    PyErr_Format(state->invalid_state_error, "%U: %R", name_of(state, ext_future_get_state(future)),
                 future);
    return -1;
}

int ext_future_finish(module_state *state, ext_future *future, PyObject *result,
                      PyObject *exception)
{
    ext_future_change change;
    if (ext_future_begin(&change, future) < 0)
        return -1;
    if (is_in(future, IS_UNFINISHED)) {
        ext_future_set(&change, EXT_FINISHED, Py_XNewRef(result), Py_XNewRef(exception));
        return ext_future_end(&change, state);
    }
    return ext_future_abandon(&change) < 0 ? -1 : raise_invalid_state(state, future);
}

int ext_future_start(module_state *state, ext_future *future)
{
    EXT_LOCK(&future->lock);
    bool is_simple = !future->condition && is_in(future, BIT(EXT_PENDING));
    if (is_simple)
        set_state(future, EXT_RUNNING);
    EXT_UNLOCK(&future->lock);
    if (is_simple)
        return 1;
    /* Who has the condition may be looking at the state: as the standard class does it. */
    PyObject *rc = PyObject_CallMethod(state->base_future, "set_running_or_notify_cancel", "O",
                                       (PyObject *)future);
    int is_running = rc ? PyObject_IsTrue(rc) : -1;
    Py_XDECREF(rc);
    return is_running;
}

/* ---- methods -------------------------------------------------------------------------------- */

ext_future *ext_future_new(PyTypeObject *type)
{
    return (ext_future *)type->tp_alloc(type, 0);
}

static PyObject *future_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
                            PyObject *Py_UNUSED(kwargs))
{
    return type->tp_alloc(type, 0);
}

/* Instead of Future.__init__, which makes the condition. */
static int future_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_GET_SIZE(args) == 0 && (!kwargs || PyDict_GET_SIZE(kwargs) == 0))
        return 0;
    PyErr_Format(PyExc_TypeError, "%s() takes no arguments", Py_TYPE(self)->tp_name);
    return -1;
}

static PyObject *raise_timeout(module_state *state)
{
    PyErr_SetNone(state->futures_timeout);
    return NULL;
}

/* The one argument of result(timeout=None) and exception(timeout=None). */
static int wait_as_told(module_state *state, ext_future *future, const char *function,
                        PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    static const char *const names[] = {"timeout", NULL};
    PyObject *given[1];
    weir_time deadline;
    if (ext_parse_args(function, names, 1, 0, args, n_args, kwnames, given) < 0 ||
        parse_timeout(given[0] ? given[0] : Py_None, &deadline) < 0)
        return -1;
    int is_done = wait_done(future, deadline);
    if (is_done == 0)
        raise_timeout(state);
    if (is_done <= 0)
        return -1;
    if (is_in(future, IS_CANCELLED)) {
        PyErr_SetNone(state->cancelled_error);
        return -1;
    }
    return 0;
}

static PyObject *ref_of(ext_future *future, PyObject **field)
{
    EXT_LOCK(&future->lock);
    PyObject *value = Py_NewRef(*field ? *field : Py_None);
    EXT_UNLOCK(&future->lock);
    return value;
}

PyDoc_STRVAR(result_doc, "result($self, /, timeout=None)\n--\n\n"
                         "The result of the call, waiting for it up to `timeout` seconds; or what "
                         "the call raised.\n\n"
                         "Raises CancelledError, TimeoutError.");

static PyObject *future_result(ext_future *self, PyObject *const *args, Py_ssize_t n_args,
                               PyObject *kwnames)
{
    if (!is_in(self, BIT(EXT_FINISHED)) || n_args || kwnames) {
        module_state *state = state_of(self);
        if (!state || wait_as_told(state, self, "result", args, n_args, kwnames) < 0)
            return NULL;
    }
    PyObject *exception = ref_of(self, &self->exception);
    if (exception == Py_None) {
        Py_DECREF(exception);
        return ref_of(self, &self->result);
    }
    if (PyExceptionInstance_Check(exception))
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    else
        PyErr_SetString(PyExc_TypeError, "exceptions must derive from BaseException");
    Py_DECREF(exception);
    return NULL;
}

PyDoc_STRVAR(exception_doc,
             "exception($self, /, timeout=None)\n--\n\n"
             "What the call raised, or None, waiting for it up to `timeout` seconds.\n\n"
             "Raises CancelledError, TimeoutError.");

static PyObject *future_exception(ext_future *self, PyObject *const *args, Py_ssize_t n_args,
                                  PyObject *kwnames)
{
    module_state *state = state_of(self);
    if (!state || wait_as_told(state, self, "exception", args, n_args, kwnames) < 0)
        return NULL;
    return ref_of(self, &self->exception);
}

static PyObject *future_done(ext_future *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(is_in(self, IS_DONE));
}

static PyObject *future_cancelled(ext_future *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(is_in(self, IS_CANCELLED));
}

static PyObject *future_running(ext_future *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(is_in(self, BIT(EXT_RUNNING)));
}

static PyObject *future_cancel(ext_future *self, PyObject *Py_UNUSED(ignored))
{
    module_state *state = state_of(self);
    ext_future_change change;
    if (!state || ext_future_begin(&change, self) < 0)
        return NULL;
    if (is_in(self, BIT(EXT_PENDING))) {
        ext_future_set(&change, EXT_CANCELLED, NULL, NULL);
        return ext_future_end(&change, state) < 0 ? NULL : Py_NewRef(Py_True);
    }
    return ext_future_abandon(&change) < 0 ? NULL : PyBool_FromLong(is_in(self, IS_CANCELLED));
}

static PyObject *future_set_result(ext_future *self, PyObject *result)
{
    module_state *state = state_of(self);
    if (!state || ext_future_finish(state, self, result, NULL) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *future_set_exception(ext_future *self, PyObject *exception)
{
    module_state *state = state_of(self);
    if (!state || ext_future_finish(state, self, NULL, exception) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *future_set_running(ext_future *self, PyObject *Py_UNUSED(ignored))
{
    module_state *state = state_of(self);
    int is_running = state ? ext_future_start(state, self) : -1;
    return is_running < 0 ? NULL : PyBool_FromLong(is_running);
}

/* The list in *field, made on need; a new reference. */
static PyObject *list_of(ext_future *self, PyObject **field)
{
    EXT_LOCK(&self->lock);
    PyObject *list = Py_XNewRef(*field);
    EXT_UNLOCK(&self->lock);
    if (list)
        return list;
    PyObject *made = PyList_New(0);
    if (!made)
        return NULL;
    EXT_LOCK(&self->lock);
    if (!*field)
        *field = Py_NewRef(made);
    list = Py_NewRef(*field);
    EXT_UNLOCK(&self->lock);
    Py_DECREF(made);
    return list;
}

static PyObject *future_add_done_callback(ext_future *self, PyObject *fn)
{
    PyObject *callbacks = list_of(self, &self->callbacks);
    if (!callbacks)
        return NULL;
    int rc = 0;
    EXT_LOCK(&self->lock); /* appending to a list runs no Python code */
    bool is_simple = !self->condition && is_in(self, IS_UNFINISHED) && PyList_CheckExact(callbacks);
    if (is_simple)
        rc = PyList_Append(callbacks, fn);
    EXT_UNLOCK(&self->lock);
    Py_DECREF(callbacks);
    if (is_simple)
        return rc < 0 ? NULL : Py_NewRef(Py_None);
    module_state *state = state_of(self);
    return state ? PyObject_CallMethod(state->base_future, "add_done_callback", "OO", self, fn)
                 : NULL;
}

/* ---- what the standard library calls its own ------------------------------------------------ */

static PyObject *get_condition(ext_future *self, void *Py_UNUSED(closure))
{
    EXT_LOCK(&self->lock);
    PyObject *condition = Py_XNewRef(self->condition);
    EXT_UNLOCK(&self->lock);
    if (condition)
        return condition;
    module_state *state = state_of(self);
    PyObject *made = state ? PyObject_CallNoArgs(state->condition_type) : NULL;
    if (!made)
        return NULL;
    EXT_LOCK(&self->lock);
    if (!self->condition)
        self->condition = Py_NewRef(made);
    condition = Py_NewRef(self->condition);
    EXT_UNLOCK(&self->lock);
    Py_DECREF(made);
    return condition;
}

static PyObject *get_lazy_condition(ext_future *self, void *Py_UNUSED(closure))
{
    return ref_of(self, &self->condition);
}

static PyObject *get_state(ext_future *self, void *Py_UNUSED(closure))
{
    module_state *state = state_of(self);
    return state ? Py_NewRef(name_of(state, ext_future_get_state(self))) : NULL;
}

static int refuse_delete(PyObject *value)
{
    if (value)
        return 0;
    PyErr_SetString(PyExc_AttributeError, "an attribute of a future cannot be deleted");
    return -1;
}

/* The standard methods set it with the condition held. */
static int set_state_by_name(ext_future *self, PyObject *name, void *Py_UNUSED(closure))
{
    module_state *state = state_of(self);
    if (!state || refuse_delete(name) < 0)
        return -1;
    for (ext_future_state each = EXT_PENDING; each <= EXT_FINISHED; each++) {
        int is_it = PyObject_RichCompareBool(name, name_of(state, each), Py_EQ);
        if (is_it < 0)
            return -1;
        if (is_it) {
            EXT_LOCK(&self->lock);
            set_state(self, each);
            EXT_UNLOCK(&self->lock);
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "a future has no state %R", name);
    return -1;
}

static PyObject **field_at(ext_future *self, void *offset)
{
    return (PyObject **)((char *)self + (size_t)offset);
}

static PyObject *get_field(ext_future *self, void *offset)
{
    return ref_of(self, field_at(self, offset));
}

static int set_field(ext_future *self, PyObject *value, void *offset)
{
    if (refuse_delete(value) < 0)
        return -1;
    PyObject **field = field_at(self, offset);
    PyObject *new = value == Py_None ? NULL : Py_NewRef(value);
    EXT_LOCK(&self->lock);
    PyObject *old = *field;
    *field = new;
    EXT_UNLOCK(&self->lock);
    Py_XDECREF(old);
    return 0;
}

static PyObject *get_list(ext_future *self, void *offset)
{
    return list_of(self, field_at(self, offset));
}

#define OFFSET(field) ((void *)offsetof(ext_future, field))

static PyGetSetDef future_getset[] = {
    {"_condition", (getter)get_condition, NULL, NULL, NULL},
    {"_lazy_condition", (getter)get_lazy_condition, NULL, "None until it is needed.", NULL},
    {"_state", (getter)get_state, (setter)set_state_by_name, NULL, NULL},
    {"_result", (getter)get_field, (setter)set_field, NULL, OFFSET(result)},
    {"_exception", (getter)get_field, (setter)set_field, NULL, OFFSET(exception)},
    {"_waiters", (getter)get_list, (setter)set_field, NULL, OFFSET(waiters)},
    {"_done_callbacks", (getter)get_list, (setter)set_field, NULL, OFFSET(callbacks)},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef future_methods[] = {
    {"result", (PyCFunction)(void (*)(void))future_result, METH_FASTCALL | METH_KEYWORDS,
     result_doc},
    {"exception", (PyCFunction)(void (*)(void))future_exception, METH_FASTCALL | METH_KEYWORDS,
     exception_doc},
    {"done", (PyCFunction)future_done, METH_NOARGS,
     "done($self, /)\n--\n\nWhether it was cancelled or has finished."},
    {"cancelled", (PyCFunction)future_cancelled, METH_NOARGS,
     "cancelled($self, /)\n--\n\nWhether it was cancelled."},
    {"running", (PyCFunction)future_running, METH_NOARGS,
     "running($self, /)\n--\n\nWhether the call has started and not finished."},
    {"cancel", (PyCFunction)future_cancel, METH_NOARGS,
     "cancel($self, /)\n--\n\nCancel the call unless it has started; whether it is cancelled."},
    {"add_done_callback", (PyCFunction)future_add_done_callback, METH_O,
     "add_done_callback($self, fn, /)\n--\n\nCall fn(future) when it is done; now, if it is."},
    {"set_result", (PyCFunction)future_set_result, METH_O,
     "set_result($self, result, /)\n--\n\nFor executors: the call has returned."},
    {"set_exception", (PyCFunction)future_set_exception, METH_O,
     "set_exception($self, exception, /)\n--\n\nFor executors: the call has raised."},
    {"set_running_or_notify_cancel", (PyCFunction)future_set_running, METH_NOARGS,
     "set_running_or_notify_cancel($self, /)\n--\n\n"
     "For executors: whether to make the call; not if it was cancelled."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot future_slots[] = {
    {Py_tp_doc, (void *)"LazyFuture()\n--\n\n"
                        "A concurrent.futures.Future that makes its condition when it is needed."},
    {Py_tp_new, future_new},
    {Py_tp_init, future_init},
    {Py_tp_methods, future_methods},
    {Py_tp_getset, future_getset},
    {0, NULL}, /* the members */
    {0, NULL},
};

/* Not IMMUTABLETYPE: its base is not. */
static PyType_Spec future_spec = {
    .name = "weir._weir.LazyFuture",
    .basicsize = sizeof(ext_future),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = future_slots,
};

static const PyMemberDef future_members[] = {
    EXT_FUTURE_MEMBERS,
    {NULL, 0, 0, 0, NULL},
};

/* ---- types ---------------------------------------------------------------------------------- */

int ext_future_add_type(PyObject *module, PyType_Spec *spec, PyObject *base,
                        const PyMemberDef *members, PyTypeObject **ret_type)
{
    /* A copy of the slots, with the members in the empty row before the last. */
    PyType_Slot slots[16] = {{0, NULL}};
    size_t n = 0;
    for (; spec->slots[n].slot && n < 14; n++)
        slots[n] = spec->slots[n];
    slots[n] = (PyType_Slot){Py_tp_members, (void *)members};
    PyType_Spec whole = *spec;
    whole.slots = slots;

    PyObject *bases = PyTuple_Pack(1, base);
    PyTypeObject *type =
        bases ? (PyTypeObject *)PyType_FromModuleAndSpec(module, &whole, bases) : NULL;
    Py_XDECREF(bases);
    if (!type)
        return -1;
    for (const PyMemberDef *member = members; member->name; member++)
        if (PyDict_DelItemString(type->tp_dict, member->name) < 0)
            goto fail;
    PyType_Modified(type);
    if (PyModule_AddType(module, type) < 0)
        goto fail;
    *ret_type = type;
    return 0;
fail:
    Py_DECREF(type);
    return -1;
}

int ext_future_types_add(PyObject *module, module_state *state)
{
    PyTypeObject *base = (PyTypeObject *)state->base_future;
    if (base->tp_basicsize > (Py_ssize_t)offsetof(ext_future, result)) {
        PyErr_SetString(PyExc_ImportError, "concurrent.futures.Future of this Python is larger "
                                           "than weir knows: update weir");
        return -1;
    }
    return ext_future_add_type(module, &future_spec, state->base_future, future_members,
                               &state->future_type);
}
