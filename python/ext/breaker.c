/* breaker.c - weir._weir.Breaker: a weir_breaker around Python calls; weir.CircuitBreaker is its
 * subclass.  And weir._weir.BreakerCall: one admitted call.
 *
 * Calls:      call() keeps its call on the C stack, admit() in an object of its own.  `with breaker:`
 *             gives nothing to keep it in, and many blocks of one breaker are open at a time: in
 *             threads, tasks, generators, and nested.  What tells them apart is the frame that the
 *             block stands in: blocks of one frame are nested, so its newest call is the one that
 *             ends; and unlike a context or a thread, a frame is entered and left by the same code,
 *             also when two generators take turns or one is closed by another task.  So open calls
 *             are found by their frame.  Who enters and exits elsewhere (an ExitStack does) ends the
 *             newest call of its thread: every call is reported, once, in any case.
 * Locking:    `lock` guards the table of open calls.  libweir's mutex is taken with the GIL held and
 *             never while Python runs.
 * Forks:      see guard.h; calls that were open at the fork are the parent's to report.
 */
#include "guard.h"

#include <structmember.h>

/* A `with` block that has been entered. */
typedef struct open_call {
    weir_breaker_call call;
    const void *frame; /* compared, never followed */
    unsigned long thread;
    unsigned generation;
    uint64_t number; /* later ones have a greater one */
    struct open_call *next;
} open_call;

typedef struct Breaker {
    PyObject_HEAD PyObject *weakrefs;
    module_state *state;
    weir_breaker *breaker;
    weir_breaker_opts opts;
    unsigned generation;
    ext_judge judge;
    PyObject *on_change, *name; /* NULL: none */

    ext_lock lock;
    open_call **chains; /* by frame, the newest first */
    size_t n_chains, n_open;
    uint64_t last_number;
    open_call *spare; /* one that can be used again */
} Breaker;

static void on_change(weir_breaker_state from, weir_breaker_state to, void *ctx)
{
    Breaker *self = ctx;
    ext_callback callback;
    ext_callback_begin(&callback);
    PyObject *callable = Py_XNewRef(self->on_change);
    if (callable) {
        PyObject *result = PyObject_CallFunction(callable, "ss", weir_breaker_state_name((int)from),
                                                 weir_breaker_state_name((int)to));
        if (!result)
            PyErr_WriteUnraisable(callable);
        Py_XDECREF(result);
        Py_DECREF(callable);
    }
    ext_callback_end(&callback);
}

static int create(Breaker *self)
{
    weir_breaker *breaker;
    int rc = weir_breaker_create(&breaker, &self->opts);
    if (rc < 0) {
        ext_raise(self->state, rc);
        return -1;
    }
    self->breaker = breaker; /* a parent's is left as it is: a thread may have been in it */
    self->generation = ext_fork_generation();
    return 0;
}

/* The breaker of this process; NULL with an exception. */
static weir_breaker *breaker_of(Breaker *self)
{
    if (self->generation == ext_fork_generation())
        return self->breaker;
    int rc = 0;
    EXT_BEGIN_CRITICAL_SECTION(self);
    if (self->generation != ext_fork_generation())
        rc = create(self);
    EXT_END_CRITICAL_SECTION();
    return rc < 0 ? NULL : self->breaker;
}

weir_breaker *ext_breaker_of(PyObject *breaker)
{
    return breaker_of((Breaker *)breaker);
}

static void raise_open(Breaker *self)
{
    int64_t ns = weir_breaker_retry_after(self->breaker);
    PyObject *exception = self->state->breaker_open;
    PyObject *after = ns == INT64_MAX ? Py_NewRef(Py_None) : PyFloat_FromDouble((double)ns / 1e9);
    if (!after)
        return;
    PyObject *arguments = PyTuple_Pack(2, after, self->name ? self->name : Py_None);
    Py_DECREF(after);
    if (!arguments)
        return;
    PyErr_SetObject(exception ? exception : PyExc_RuntimeError, arguments);
    Py_DECREF(arguments);
}

static int admit(Breaker *self, weir_breaker_call *ret_call)
{
    weir_breaker *breaker = breaker_of(self);
    if (!breaker)
        return -1;
    if (weir_breaker_admit(breaker, ret_call) == WEIR_OK)
        return 0;
    raise_open(self);
    return -1;
}

/* Also with an exception set, which stays. */
static void report(Breaker *self, weir_breaker_call *call, unsigned generation,
                   weir_call_result result)
{
    if (generation == ext_fork_generation() && generation == self->generation)
        weir_breaker_report(self->breaker, call, result);
}

/* ---- open calls ------------------------------------------------------------------------------- */

static size_t chain_of(const Breaker *self, const void *frame)
{
    return ((uintptr_t)frame >> 4) * (size_t)UINT64_C(0x9e3779b97f4a7c15) >> 7 &
           (self->n_chains - 1);
}

/* As many chains as calls; a power of two.  false: no memory. */
static bool grow_chains(Breaker *self)
{
    size_t before = self->n_chains;
    open_call **old = self->chains;
    open_call **chains = PyMem_RawCalloc(before ? 4 * before : 8, sizeof(*chains));
    if (!chains)
        return before > 0; /* longer chains do as well */
    self->chains = chains;
    self->n_chains = before ? 4 * before : 8;
    for (size_t i = 0; i < before; i++) {
        open_call *reversed = NULL; /* so that the newest comes last, and so first again */
        for (open_call *call = old[i], *next; call; call = next) {
            next = call->next;
            call->next = reversed;
            reversed = call;
        }
        for (open_call *call = reversed, *next; call; call = next) {
            open_call **chain = &chains[chain_of(self, call->frame)];
            next = call->next;
            call->next = *chain;
            *chain = call;
        }
    }
    PyMem_RawFree(old);
    return true;
}

/* false: no memory.  Under the lock. */
static bool keep(Breaker *self, const weir_breaker_call *call, const void *frame)
{
    if (self->n_open >= self->n_chains && !grow_chains(self))
        return false;
    open_call *open = self->spare ? self->spare : PyMem_RawMalloc(sizeof(*open));
    if (!open)
        return false;
    self->spare = NULL;
    open_call **chain = &self->chains[chain_of(self, frame)];
    *open = (open_call){
        *call, frame, PyThread_get_thread_ident(), self->generation, ++self->last_number, *chain};
    *chain = open;
    self->n_open++;
    return true;
}

/* Where the call that ends now hangs; NULL: there is none.  Under the lock. */
static open_call **find(Breaker *self, const void *frame)
{
    if (self->n_open == 0)
        return NULL;
    for (open_call **at = &self->chains[chain_of(self, frame)]; *at; at = &(*at)->next)
        if ((*at)->frame == frame)
            return at;
    unsigned long thread = PyThread_get_thread_ident();
    open_call **newest = NULL;
    for (size_t i = 0; i < self->n_chains; i++)
        for (open_call **at = &self->chains[i]; *at; at = &(*at)->next)
            if ((*at)->thread == thread && (!newest || (*at)->number > (*newest)->number))
                newest = at;
    return newest;
}

static bool take(Breaker *self, open_call *ret_call)
{
    const void *frame = PyEval_GetFrame(); /* which may collect garbage */
    EXT_LOCK(&self->lock);
    open_call **at = find(self, frame), *gone = NULL;
    if (at) {
        open_call *open = *at;
        *ret_call = *open;
        *at = open->next;
        self->n_open--;
        gone = self->spare;
        self->spare = open;
    }
    EXT_UNLOCK(&self->lock);
    PyMem_RawFree(gone);
    return at != NULL;
}

static int enter(Breaker *self)
{
    weir_breaker_call call;
    if (admit(self, &call) < 0)
        return -1;
    const void *frame = PyEval_GetFrame(); /* which may collect garbage */
    EXT_LOCK(&self->lock);
    bool kept = keep(self, &call, frame);
    EXT_UNLOCK(&self->lock);
    if (kept)
        return 0;
    report(self, &call, self->generation, WEIR_CALL_IGNORED);
    PyErr_NoMemory();
    return -1;
}

static int leave(Breaker *self, PyObject *const *args, Py_ssize_t n_args)
{
    open_call open;
    if (n_args != 3) {
        PyErr_SetString(PyExc_TypeError, "__exit__() takes the three values of an exception");
        return -1;
    }
    if (!take(self, &open)) {
        PyErr_SetString(PyExc_RuntimeError, "this breaker has not been entered");
        return -1;
    }
    PyObject *error = args[1] == Py_None ? args[0] : args[1];
    report(self, &open.call, open.generation, ext_judge_result(&self->judge, self->state, error));
    return 0;
}

PyDoc_STRVAR(enter_doc, "__enter__($self, /)\n--\n\nBegin a call, or raise weir.BreakerOpen.");

static PyObject *Breaker_enter(Breaker *self, PyObject *Py_UNUSED(ignored))
{
    if (enter(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(exit_doc, "__exit__($self, type, value, traceback, /)\n--\n\n"
                       "Report the call that ends here; its exception goes on.");

static PyObject *Breaker_exit(Breaker *self, PyObject *const *args, Py_ssize_t n_args)
{
    if (leave(self, args, n_args) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(aenter_doc, "__aenter__($self, /)\n--\n\nThe same for `async with`; nothing waits.");

static PyObject *Breaker_aenter(Breaker *self, PyObject *Py_UNUSED(ignored))
{
    return enter(self) < 0 ? NULL : ext_ready(self->state);
}

PyDoc_STRVAR(aexit_doc, "__aexit__($self, type, value, traceback, /)\n--\n\n"
                        "The same for `async with`; nothing waits.");

static PyObject *Breaker_aexit(Breaker *self, PyObject *const *args, Py_ssize_t n_args)
{
    return leave(self, args, n_args) < 0 ? NULL : ext_ready(self->state);
}

/* ---- other calls ------------------------------------------------------------------------------ */

PyDoc_STRVAR(
    call_doc,
    "call($self, fn, /, *args, **kwargs)\n--\n\n"
    "Return fn(*args, **kwargs), and report what became of it.\n\n"
    "Raises weir.BreakerOpen without calling it while the breaker is open.  For a coroutine\n"
    "function use acall().");

static PyObject *Breaker_call(Breaker *self, PyObject *const *args, Py_ssize_t n_args,
                              PyObject *kwnames)
{
    if (n_args < 1) {
        PyErr_SetString(PyExc_TypeError, "call() is missing its argument 'fn'");
        return NULL;
    }
    weir_breaker_call call;
    if (admit(self, &call) < 0)
        return NULL;
    unsigned generation = self->generation;
    PyObject *result = PyObject_Vectorcall(args[0], args + 1, (size_t)n_args - 1, kwnames);
    report(self, &call, generation,
           result ? WEIR_CALL_SUCCESS : ext_judge_raised(&self->judge, self->state));
    return result;
}

typedef struct {
    PyObject_HEAD Breaker *breaker;
    weir_breaker_call call;
    unsigned generation;
} BreakerCall;

PyDoc_STRVAR(admit_doc, "admit($self, /)\n--\n\n"
                        "Begin a call, and return it as an object that reports it.\n\n"
                        "Raises weir.BreakerOpen.");

static PyObject *Breaker_admit(Breaker *self, PyObject *Py_UNUSED(ignored))
{
    weir_breaker_call call;
    if (admit(self, &call) < 0)
        return NULL;
    PyTypeObject *type = self->state->breaker_call_type;
    BreakerCall *object = type ? (BreakerCall *)type->tp_alloc(type, 0) : NULL;
    if (!object) {
        report(self, &call, self->generation, WEIR_CALL_IGNORED);
        return PyErr_NoMemory();
    }
    object->breaker = (Breaker *)Py_NewRef(self);
    object->call = call;
    object->generation = self->generation;
    return (PyObject *)object;
}

/* Once; false: it has been reported. */
static bool report_object(BreakerCall *self, weir_call_result result)
{
    Breaker *breaker = self->breaker;
    EXT_LOCK(&breaker->lock);
    weir_breaker_call call = self->call;
    self->call.admitted = false;
    EXT_UNLOCK(&breaker->lock);
    bool is_first = call.admitted;
    if (is_first)
        report(breaker, &call, self->generation, result);
    return is_first;
}

static PyObject *report_or_raise(BreakerCall *self, weir_call_result result)
{
    if (!report_object(self, result)) {
        PyErr_SetString(PyExc_RuntimeError, "this call has been reported already");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *call_success(BreakerCall *self, PyObject *Py_UNUSED(ignored))
{
    return report_or_raise(self, WEIR_CALL_SUCCESS);
}

static PyObject *call_failure(BreakerCall *self, PyObject *Py_UNUSED(ignored))
{
    return report_or_raise(self, WEIR_CALL_FAILURE);
}

static PyObject *call_ignore(BreakerCall *self, PyObject *Py_UNUSED(ignored))
{
    return report_or_raise(self, WEIR_CALL_IGNORED);
}

static PyObject *call_enter(BreakerCall *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self);
}

/* What has been reported inside the block stays. */
static PyObject *call_exit(BreakerCall *self, PyObject *const *args, Py_ssize_t n_args)
{
    PyObject *error = n_args == 3 ? (args[1] == Py_None ? args[0] : args[1]) : NULL;
    if (self->call.admitted)
        report_object(self, ext_judge_result(&self->breaker->judge, self->breaker->state, error));
    Py_RETURN_NONE;
}

/* Nobody can report it any more. */
static void call_dealloc(BreakerCall *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->breaker)
        report_object(self, WEIR_CALL_IGNORED);
    Py_XDECREF(self->breaker);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static int call_traverse(BreakerCall *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->breaker);
    return 0;
}

static PyMethodDef call_methods[] = {
    {"success", (PyCFunction)call_success, METH_NOARGS,
     "success($self, /)\n--\n\nReport that it succeeded; RuntimeError if it has been reported."},
    {"failure", (PyCFunction)call_failure, METH_NOARGS,
     "failure($self, /)\n--\n\nReport that it failed; RuntimeError if it has been reported."},
    {"ignore", (PyCFunction)call_ignore, METH_NOARGS,
     "ignore($self, /)\n--\n\nReport that it says nothing; RuntimeError if it has been reported."},
    {"__enter__", (PyCFunction)call_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))call_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot call_slots[] = {
    {Py_tp_doc,
     (void *)"A call that a breaker has admitted; one that is thrown away says nothing."},
    {Py_tp_dealloc, call_dealloc},
    {Py_tp_traverse, call_traverse},
    {Py_tp_methods, call_methods},
    {0, NULL},
};

static PyType_Spec call_spec = {
    .name = "weir._weir.BreakerCall",
    .basicsize = sizeof(BreakerCall),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = call_slots,
};

/* ---- by hand, and looking --------------------------------------------------------------------- */

static PyObject *raise_told_late(void)
{
    PyErr_SetString(PyExc_RuntimeError,
                    "on_change does not return, and has 64 changes to be told of first");
    return NULL;
}

PyDoc_STRVAR(isolate_doc, "isolate($self, /)\n--\n\n"
                          "Reject all calls from now on, until reset().");

static PyObject *Breaker_isolate(Breaker *self, PyObject *Py_UNUSED(ignored))
{
    weir_breaker *breaker = breaker_of(self);
    if (!breaker)
        return NULL;
    if (weir_breaker_isolate(breaker) < 0)
        return raise_told_late();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(reset_doc, "reset($self, /)\n--\n\n"
                        "Close the breaker, and forget the calls so far.");

static PyObject *Breaker_reset(Breaker *self, PyObject *Py_UNUSED(ignored))
{
    weir_breaker *breaker = breaker_of(self);
    if (!breaker)
        return NULL;
    if (weir_breaker_reset(breaker) < 0)
        return raise_told_late();
    Py_RETURN_NONE;
}

static PyObject *seconds_or_none(int64_t ns)
{
    if (ns == INT64_MAX)
        Py_RETURN_NONE;
    return PyFloat_FromDouble((double)ns / 1e9);
}

PyDoc_STRVAR(snapshot_doc, "snapshot($self, /)\n--\n\nThe counts of one instant, in a dict.");

static PyObject *Breaker_snapshot(Breaker *self, PyObject *Py_UNUSED(ignored))
{
    weir_breaker *breaker = breaker_of(self);
    if (!breaker)
        return NULL;
    weir_breaker_snapshot now = WEIR_BREAKER_SNAPSHOT_INIT;
    weir_breaker_get_snapshot(breaker, &now);
    return Py_BuildValue(
        "{sOsssKsKsKsKsKsKsKsKsKsKsKsKsKsKsIsIsNsd}", "name", self->name ? self->name : Py_None,
        "state", weir_breaker_state_name((int)now.state), "admitted", now.admitted, "succeeded",
        now.succeeded, "failed", now.failed, "ignored", now.ignored, "expired", now.expired,
        "in_flight", now.in_flight, "rejected", now.rejected, "slow", now.slow, "stale", now.stale,
        "late", now.late, "opened", now.opened, "window_calls", now.window_calls, "window_failed",
        now.window_failed, "window_slow", now.window_slow, "probes", now.probes, "peak_probes",
        now.peak_probes, "retry_after", seconds_or_none(now.retry_after_ns), "open_time",
        (double)now.open_ns / 1e9);
}

static PyObject *Breaker_get_state(Breaker *self, void *Py_UNUSED(closure))
{
    weir_breaker *breaker = breaker_of(self);
    if (!breaker)
        return NULL;
    return PyUnicode_InternFromString(
        weir_breaker_state_name((int)weir_breaker_get_state(breaker)));
}

static PyObject *Breaker_get_retry_after(Breaker *self, void *Py_UNUSED(closure))
{
    weir_breaker *breaker = breaker_of(self);
    return breaker ? seconds_or_none(weir_breaker_retry_after(breaker)) : NULL;
}

static PyObject *Breaker_get_name(Breaker *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->name ? self->name : Py_None);
}

/* ---- beginning and end ------------------------------------------------------------------------ */

static PyObject *Breaker_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"", "", "", "", "", "", "", "",  "",
                                        "", "", "", "", "", "", "", NULL};
    unsigned int window_calls, min_calls, half_open_calls;
    long long window_ns, slow_ns, half_open_ns, open_ns, max_open_ns;
    double failure_ratio, slow_ratio, multiplier, jitter;
    PyObject *failures, *ignored, *changed, *name;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "ILIdLdILLLddOOOO:Breaker", (char **)names, &window_calls, &window_ns,
            &min_calls, &failure_ratio, &slow_ns, &slow_ratio, &half_open_calls, &half_open_ns,
            &open_ns, &max_open_ns, &multiplier, &jitter, &failures, &ignored, &changed, &name))
        return NULL;
    module_state *state = ext_state_of(type);
    Breaker *self = state ? (Breaker *)type->tp_alloc(type, 0) : NULL;
    if (!self)
        return NULL;
    self->state = state;
    self->generation = ext_fork_generation();
    self->on_change = changed != Py_None ? Py_NewRef(changed) : NULL;
    self->name = name != Py_None ? Py_NewRef(name) : NULL;
    self->opts = (weir_breaker_opts)WEIR_BREAKER_OPTS_INIT;
    self->opts.window_calls = window_calls;
    self->opts.window_ns = window_ns;
    self->opts.min_calls = min_calls;
    self->opts.failure_ratio = failure_ratio;
    self->opts.slow_call_ns = slow_ns;
    self->opts.slow_ratio = slow_ratio;
    self->opts.half_open_calls = half_open_calls;
    self->opts.half_open_max_ns = half_open_ns;
    self->opts.open_ns = open_ns;
    self->opts.max_open_ns = max_open_ns;
    self->opts.multiplier = multiplier;
    self->opts.jitter = jitter;
    self->opts.on_change = self->on_change ? on_change : NULL;
    self->opts.change_ctx = self;
    self->opts.name = ext_shown_name(self->name);
    if (ext_judge_init(&self->judge, failures, ignored) < 0 || create(self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int Breaker_traverse(Breaker *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->judge.failures);
    Py_VISIT(self->judge.ignored);
    Py_VISIT(self->on_change);
    return 0;
}

static int Breaker_clear(Breaker *self)
{
    ext_judge_clear(&self->judge);
    Py_CLEAR(self->on_change);
    return 0;
}

static void Breaker_dealloc(Breaker *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs)
        PyObject_ClearWeakRefs((PyObject *)self);
    Breaker_clear(self);
    Py_XDECREF(self->name);
    for (size_t i = 0; i < self->n_chains; i++)
        for (open_call *call = self->chains[i], *next; call; call = next) {
            next = call->next;
            PyMem_RawFree(call);
        }
    PyMem_RawFree(self->chains);
    PyMem_RawFree(self->spare);
    weir_breaker_destroy(self->breaker);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef breaker_methods[] = {
    {"__enter__", (PyCFunction)Breaker_enter, METH_NOARGS, enter_doc},
    {"__exit__", (PyCFunction)(void (*)(void))Breaker_exit, METH_FASTCALL, exit_doc},
    {"__aenter__", (PyCFunction)Breaker_aenter, METH_NOARGS, aenter_doc},
    {"__aexit__", (PyCFunction)(void (*)(void))Breaker_aexit, METH_FASTCALL, aexit_doc},
    {"call", (PyCFunction)(void (*)(void))Breaker_call, METH_FASTCALL | METH_KEYWORDS, call_doc},
    {"admit", (PyCFunction)Breaker_admit, METH_NOARGS, admit_doc},
    {"isolate", (PyCFunction)Breaker_isolate, METH_NOARGS, isolate_doc},
    {"reset", (PyCFunction)Breaker_reset, METH_NOARGS, reset_doc},
    {"snapshot", (PyCFunction)Breaker_snapshot, METH_NOARGS, snapshot_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef breaker_properties[] = {
    {"state", (getter)Breaker_get_state, NULL,
     "\"closed\", \"open\", \"half_open\" or \"isolated\".", NULL},
    {"retry_after", (getter)Breaker_get_retry_after, NULL,
     "Seconds until a call may be admitted; 0.0: now; None: not before reset().", NULL},
    {"name", (getter)Breaker_get_name, NULL, "As given, or None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef breaker_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Breaker, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot breaker_slots[] = {
    {Py_tp_doc, (void *)"What weir.CircuitBreaker is made of."},
    {Py_tp_new, Breaker_new},
    {Py_tp_dealloc, Breaker_dealloc},
    {Py_tp_traverse, Breaker_traverse},
    {Py_tp_clear, Breaker_clear},
    {Py_tp_methods, breaker_methods},
    {Py_tp_getset, breaker_properties},
    {Py_tp_members, breaker_members},
    {0, NULL},
};

static PyType_Spec breaker_spec = {
    .name = "weir._weir.Breaker",
    .basicsize = sizeof(Breaker),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = breaker_slots,
};

int ext_breaker_types_add(PyObject *module, module_state *state)
{
    if (ext_add_type(module, &breaker_spec, &state->breaker_type) < 0)
        return -1;
    return ext_add_type(module, &call_spec, &state->breaker_call_type);
}
