/* throttle.c - weir._weir.ClientThrottle around Python calls, whose subclass is weir.Throttle; and
 * weir._weir.RetryTokens, of which weir.RetryBudget is made, and backoff_delay().
 *
 * A throttle keeps nothing of a single request, so `with` needs nothing but the counts.
 * Forks:      see guard.h; requests that were under way at the fork are the parent's to report.
 */
#include "guard.h"

#include <structmember.h>

/* ---- throttle --------------------------------------------------------------------------------- */

typedef struct ClientThrottle {
    PyObject_HEAD PyObject *weakrefs;
    module_state *state;
    weir_throttle *throttle;
    weir_throttle_opts opts;
    unsigned generation;
    ext_judge judge;
    PyObject *name; /* NULL: none */
} ClientThrottle;

static int create_throttle(ClientThrottle *self)
{
    weir_throttle *throttle;
    int rc = weir_throttle_create(&throttle, &self->opts);
    if (rc < 0) {
        ext_raise(self->state, rc);
        return -1;
    }
    self->throttle = throttle; /* a parent's is left as it is: a thread may have been in it */
    self->generation = ext_fork_generation();
    return 0;
}

/* The throttle of this process; NULL with an exception. */
static weir_throttle *throttle_of(ClientThrottle *self)
{
    if (self->generation == ext_fork_generation())
        return self->throttle;
    int rc = 0;
    EXT_BEGIN_CRITICAL_SECTION(self);
    if (self->generation != ext_fork_generation())
        rc = create_throttle(self);
    EXT_END_CRITICAL_SECTION();
    return rc < 0 ? NULL : self->throttle;
}

static void raise_throttled(ClientThrottle *self)
{
    weir_throttle_snapshot now = WEIR_THROTTLE_SNAPSHOT_INIT;
    weir_throttle_get_snapshot(self->throttle, &now);
    PyObject *exception = self->state->throttled;
    PyObject *arguments = Py_BuildValue("(dO)", now.chance, self->name ? self->name : Py_None);
    if (!arguments)
        return;
    PyErr_SetObject(exception ? exception : PyExc_RuntimeError, arguments);
    Py_DECREF(arguments);
}

static int go(ClientThrottle *self)
{
    weir_throttle *throttle = throttle_of(self);
    if (!throttle)
        return -1;
    if (weir_throttle_admit(throttle) == WEIR_OK)
        return 0;
    raise_throttled(self);
    return -1;
}

static void come_back(ClientThrottle *self, weir_call_result result)
{
    if (self->generation == ext_fork_generation())
        weir_throttle_report(self->throttle, result);
}

static int leave(ClientThrottle *self, PyObject *const *args, Py_ssize_t n_args)
{
    if (n_args != 3) {
        PyErr_SetString(PyExc_TypeError, "__exit__() takes the three values of an exception");
        return -1;
    }
    PyObject *error = args[1] == Py_None ? args[0] : args[1];
    come_back(self, ext_judge_result(&self->judge, self->state, error));
    return 0;
}

PyDoc_STRVAR(enter_doc, "__enter__($self, /)\n--\n\nBegin a request, or raise weir.Throttled.");

static PyObject *Throttle_enter(ClientThrottle *self, PyObject *Py_UNUSED(ignored))
{
    if (go(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(exit_doc, "__exit__($self, type, value, traceback, /)\n--\n\n"
                       "Report the request; its exception goes on.");

static PyObject *Throttle_exit(ClientThrottle *self, PyObject *const *args, Py_ssize_t n_args)
{
    if (leave(self, args, n_args) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(aenter_doc, "__aenter__($self, /)\n--\n\nThe same for `async with`; nothing waits.");

static PyObject *Throttle_aenter(ClientThrottle *self, PyObject *Py_UNUSED(ignored))
{
    return go(self) < 0 ? NULL : ext_ready(self->state);
}

PyDoc_STRVAR(aexit_doc, "__aexit__($self, type, value, traceback, /)\n--\n\n"
                        "The same for `async with`; nothing waits.");

static PyObject *Throttle_aexit(ClientThrottle *self, PyObject *const *args, Py_ssize_t n_args)
{
    return leave(self, args, n_args) < 0 ? NULL : ext_ready(self->state);
}

PyDoc_STRVAR(call_doc,
             "call($self, fn, /, *args, **kwargs)\n--\n\n"
             "Return fn(*args, **kwargs), and report what became of it.\n\n"
             "Raises weir.Throttled without calling it when the request is kept back.  For a\n"
             "coroutine function use acall().");

static PyObject *Throttle_call(ClientThrottle *self, PyObject *const *args, Py_ssize_t n_args,
                               PyObject *kwnames)
{
    if (n_args < 1) {
        PyErr_SetString(PyExc_TypeError, "call() is missing its argument 'fn'");
        return NULL;
    }
    if (go(self) < 0)
        return NULL;
    PyObject *result = PyObject_Vectorcall(args[0], args + 1, (size_t)n_args - 1, kwnames);
    come_back(self, result ? WEIR_CALL_SUCCESS : ext_judge_raised(&self->judge, self->state));
    return result;
}

PyDoc_STRVAR(snapshot_doc, "snapshot($self, /)\n--\n\nThe counts of one instant, in a dict.");

static PyObject *Throttle_snapshot(ClientThrottle *self, PyObject *Py_UNUSED(ignored))
{
    weir_throttle *throttle = throttle_of(self);
    if (!throttle)
        return NULL;
    weir_throttle_snapshot now = WEIR_THROTTLE_SNAPSHOT_INIT;
    weir_throttle_get_snapshot(throttle, &now);
    return Py_BuildValue("{sOsKsKsKsKsKsKsKsKsd}", "name", self->name ? self->name : Py_None,
                         "admitted", now.admitted, "accepted", now.accepted, "refused", now.refused,
                         "ignored", now.ignored, "in_flight", now.in_flight, "shed", now.shed,
                         "window_requests", now.window_requests, "window_accepts",
                         now.window_accepts, "chance", now.chance);
}

static PyObject *Throttle_get_name(ClientThrottle *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->name ? self->name : Py_None);
}

static PyObject *Throttle_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"", "", "", "", "", "", NULL};
    double k, max_chance;
    long long window_ns;
    PyObject *failures, *ignored, *name;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "dLdOOO:ClientThrottle", (char **)names, &k,
                                     &window_ns, &max_chance, &failures, &ignored, &name))
        return NULL;
    module_state *state = ext_state_of(type);
    ClientThrottle *self = state ? (ClientThrottle *)type->tp_alloc(type, 0) : NULL;
    if (!self)
        return NULL;
    self->state = state;
    self->name = name != Py_None ? Py_NewRef(name) : NULL;
    self->opts = (weir_throttle_opts)WEIR_THROTTLE_OPTS_INIT;
    self->opts.k = k;
    self->opts.window_ns = window_ns;
    self->opts.max_chance = max_chance;
    if (ext_judge_init(&self->judge, failures, ignored) < 0 || create_throttle(self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int Throttle_traverse(ClientThrottle *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->judge.failures);
    Py_VISIT(self->judge.ignored);
    return 0;
}

static int Throttle_clear(ClientThrottle *self)
{
    ext_judge_clear(&self->judge);
    return 0;
}

static void Throttle_dealloc(ClientThrottle *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs)
        PyObject_ClearWeakRefs((PyObject *)self);
    Throttle_clear(self);
    Py_XDECREF(self->name);
    weir_throttle_destroy(self->throttle);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef throttle_methods[] = {
    {"__enter__", (PyCFunction)Throttle_enter, METH_NOARGS, enter_doc},
    {"__exit__", (PyCFunction)(void (*)(void))Throttle_exit, METH_FASTCALL, exit_doc},
    {"__aenter__", (PyCFunction)Throttle_aenter, METH_NOARGS, aenter_doc},
    {"__aexit__", (PyCFunction)(void (*)(void))Throttle_aexit, METH_FASTCALL, aexit_doc},
    {"call", (PyCFunction)(void (*)(void))Throttle_call, METH_FASTCALL | METH_KEYWORDS, call_doc},
    {"snapshot", (PyCFunction)Throttle_snapshot, METH_NOARGS, snapshot_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef throttle_properties[] = {
    {"name", (getter)Throttle_get_name, NULL, "As given, or None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef throttle_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(ClientThrottle, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot throttle_slots[] = {
    {Py_tp_doc, (void *)"What weir.Throttle is made of."},
    {Py_tp_new, Throttle_new},
    {Py_tp_dealloc, Throttle_dealloc},
    {Py_tp_traverse, Throttle_traverse},
    {Py_tp_clear, Throttle_clear},
    {Py_tp_methods, throttle_methods},
    {Py_tp_getset, throttle_properties},
    {Py_tp_members, throttle_members},
    {0, NULL},
};

static PyType_Spec throttle_spec = {
    .name = "weir._weir.ClientThrottle",
    .basicsize = sizeof(ClientThrottle),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = throttle_slots,
};

/* ---- budget ----------------------------------------------------------------------------------- */

typedef struct RetryTokens {
    PyObject_HEAD PyObject *weakrefs;
    module_state *state;
    weir_retry_budget *budget;
    weir_retry_budget_opts opts;
    unsigned generation;
} RetryTokens;

static int create_budget(RetryTokens *self)
{
    weir_retry_budget *budget;
    int rc = weir_retry_budget_create(&budget, &self->opts);
    if (rc < 0) {
        ext_raise(self->state, rc);
        return -1;
    }
    self->budget = budget;
    self->generation = ext_fork_generation();
    return 0;
}

static weir_retry_budget *budget_of(RetryTokens *self)
{
    if (self->generation == ext_fork_generation())
        return self->budget;
    int rc = 0;
    EXT_BEGIN_CRITICAL_SECTION(self);
    if (self->generation != ext_fork_generation())
        rc = create_budget(self);
    EXT_END_CRITICAL_SECTION();
    return rc < 0 ? NULL : self->budget;
}

PyDoc_STRVAR(deposit_doc, "deposit($self, /)\n--\n\nCount a call that is no retry.");

static PyObject *Tokens_deposit(RetryTokens *self, PyObject *Py_UNUSED(ignored))
{
    weir_retry_budget *budget = budget_of(self);
    if (!budget)
        return NULL;
    weir_retry_budget_deposit(budget);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(withdraw_doc, "withdraw($self, /)\n--\n\n"
                           "Whether there may be a retry now; if so, it is counted.");

static PyObject *Tokens_withdraw(RetryTokens *self, PyObject *Py_UNUSED(ignored))
{
    weir_retry_budget *budget = budget_of(self);
    return budget ? PyBool_FromLong(weir_retry_budget_withdraw(budget) == WEIR_OK) : NULL;
}

static PyObject *Tokens_snapshot(RetryTokens *self, PyObject *Py_UNUSED(ignored))
{
    weir_retry_budget *budget = budget_of(self);
    if (!budget)
        return NULL;
    weir_retry_budget_snapshot now = WEIR_RETRY_BUDGET_SNAPSHOT_INIT;
    weir_retry_budget_get_snapshot(budget, &now);
    return Py_BuildValue("{sKsKsKsd}", "calls", now.calls, "retries", now.retries, "refused",
                         now.refused, "tokens", now.tokens);
}

static PyObject *Tokens_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"", "", "", NULL};
    double ratio, min_per_second, max_tokens;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "ddd:RetryTokens", (char **)names, &ratio,
                                     &min_per_second, &max_tokens))
        return NULL;
    module_state *state = ext_state_of(type);
    RetryTokens *self = state ? (RetryTokens *)type->tp_alloc(type, 0) : NULL;
    if (!self)
        return NULL;
    self->state = state;
    self->opts = (weir_retry_budget_opts)WEIR_RETRY_BUDGET_OPTS_INIT;
    self->opts.ratio = ratio > 0 ? ratio : -1; /* in C 0 is the default */
    self->opts.min_per_second = min_per_second > 0 ? min_per_second : -1;
    self->opts.max_tokens = max_tokens;
    if (create_budget(self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int Tokens_traverse(RetryTokens *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void Tokens_dealloc(RetryTokens *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs)
        PyObject_ClearWeakRefs((PyObject *)self);
    weir_retry_budget_destroy(self->budget);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef tokens_methods[] = {
    {"deposit", (PyCFunction)Tokens_deposit, METH_NOARGS, deposit_doc},
    {"withdraw", (PyCFunction)Tokens_withdraw, METH_NOARGS, withdraw_doc},
    {"snapshot", (PyCFunction)Tokens_snapshot, METH_NOARGS, snapshot_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef tokens_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(RetryTokens, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot tokens_slots[] = {
    {Py_tp_doc, (void *)"What weir.RetryBudget is made of."},
    {Py_tp_new, Tokens_new},
    {Py_tp_dealloc, Tokens_dealloc},
    {Py_tp_traverse, Tokens_traverse},
    {Py_tp_methods, tokens_methods},
    {Py_tp_members, tokens_members},
    {0, NULL},
};

static PyType_Spec tokens_spec = {
    .name = "weir._weir.RetryTokens",
    .basicsize = sizeof(RetryTokens),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = tokens_slots,
};

/* ---- backoff ---------------------------------------------------------------------------------- */

PyDoc_STRVAR(
    backoff_delay_doc,
    "backoff_delay($module, base_ns, max_ns, multiplier, jitter, retry, before_ns, random, "
    "/)\n--\n\n"
    "Nanoseconds to wait before retry number `retry`, by 64 random bits.");

static PyObject *backoff_delay(PyObject *Py_UNUSED(module), PyObject *args)
{
    weir_backoff backoff = WEIR_BACKOFF_INIT;
    int jitter;
    unsigned int retry;
    long long base_ns, max_ns, before_ns;
    unsigned long long random;
    if (!PyArg_ParseTuple(args, "LLdiILK:backoff_delay", &base_ns, &max_ns, &backoff.multiplier,
                          &jitter, &retry, &before_ns, &random))
        return NULL;
    backoff.base_ns = base_ns;
    backoff.max_ns = max_ns;
    backoff.jitter = (weir_jitter)jitter;
    int64_t delay = weir_backoff_delay(&backoff, retry, before_ns, random);
    if (delay < 0) {
        PyErr_SetString(PyExc_ValueError, weir_strerror((int)delay));
        return NULL;
    }
    return PyLong_FromLongLong(delay);
}

static PyMethodDef functions[] = {
    {"backoff_delay", backoff_delay, METH_VARARGS, backoff_delay_doc},
    {NULL, NULL, 0, NULL},
};

int ext_throttle_types_add(PyObject *module, module_state *state)
{
    (void)state;
    PyTypeObject *type;
    if (ext_add_type(module, &throttle_spec, &type) < 0)
        return -1;
    Py_DECREF(type); /* the module keeps it */
    if (ext_add_type(module, &tokens_spec, &type) < 0)
        return -1;
    Py_DECREF(type);
    return PyModule_AddFunctions(module, functions);
}
