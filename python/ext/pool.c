/* pool.c - weir._weir.Pool: a process pool of libweir; weir._process makes the executor of it.
 *
 * Permits:    an object each, so that one is given back whatever interrupts the submit.
 * Ownership:  post takes a reference to the task's tag (its future), given back when the task is
 *             collected, dropped or cancelled.
 * Threads:    one thread collects; it holds the GIL only between two calls.
 * Fork:       a forked child has a copy that does nothing: what ends or cancels is quiet, what
 *             submits raises.
 */
#include "module.h"

#include "future.h"
#include "governor.h"

typedef struct {
    PyObject_HEAD weir_pool *pool;
    PyObject *start;    /* start(memory_fd, bell_fd, parent_fd, seat) -> pid */
    PyObject *reap;     /* reap(seat) -> exit code, negative for a signal, None if not known */
    PyObject *on_drop;  /* on_drop(tag, reason) */
    PyObject *load;     /* load(view): unpickles */
    PyObject *governor; /* or NULL; stays until the pool is gone */
    PyTypeObject *future_type; /* tags of exactly this type, a LazyFuture, are completed here */
    module_state *state;
    unsigned generation; /* of the process that made it */
    ext_line line;       /* coroutines that wait for a permit */
} Pool;

/* ---- callbacks from libweir ---------------------------------------------------------------- */

static int start_worker(void *ctx, unsigned seat, pid_t *ret_pid)
{
    Pool *self = ctx;
    ext_callback callback;
    ext_callback_begin(&callback);
    int rc = WEIR_ESPAWN;
    weir_worker_ticket ticket;
    weir_pool_get_ticket(self->pool, seat, &ticket);
    PyObject *pid = PyObject_CallFunction(self->start, "iiiI", ticket.memory_fd, ticket.bell_fd,
                                          ticket.parent_fd, ticket.seat);
    if (pid && PyLong_Check(pid)) {
        *ret_pid = (pid_t)PyLong_AsLong(pid);
        rc = *ret_pid > 0 ? 0 : WEIR_ESPAWN;
    }
    Py_XDECREF(pid);
    if (PyErr_Occurred())
        PyErr_WriteUnraisable(self->start);
    ext_callback_end(&callback);
    return rc;
}

static void reap_worker(void *ctx, unsigned seat, weir_exit *exit)
{
    Pool *self = ctx;
    ext_callback callback;
    ext_callback_begin(&callback);
    PyObject *code = PyObject_CallFunction(self->reap, "I", seat);
    if (code && PyLong_Check(code) && exit->code < 0 && exit->signal == 0) {
        long value = PyLong_AsLong(code);
        exit->code = value >= 0 ? (int)value : -1;
        exit->signal = value < 0 ? (int)-value : 0;
    }
    Py_XDECREF(code);
    if (PyErr_Occurred())
        PyErr_WriteUnraisable(self->reap);
    ext_callback_end(&callback);
}

static bool call_on_drop(Pool *self, PyObject *tag, const char *reason)
{
    PyObject *rc = PyObject_CallFunction(self->on_drop, "Os", tag, reason);
    Py_XDECREF(rc);
    return rc != NULL;
}

/* Tells what became of a task, and gives its reference back.  A signal handler may raise in the
 * middle: then on_drop is called once more to finish, and the exception is raised later. */
static void let_go(Pool *self, PyObject *tag, const char *reason)
{
    if (self->on_drop && !call_on_drop(self, tag, reason)) { /* NULL: being deallocated */
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        if (!call_on_drop(self, tag, reason))
            PyErr_WriteUnraisable(self->on_drop);
        PyErr_Restore(type, value, traceback);
        if (ext_on_main_thread())
            ext_postpone_exception();
        else
            PyErr_WriteUnraisable(self->on_drop);
    }
    Py_DECREF(tag);
}

static void dropped(void *tag, weir_drop_reason reason, void *ctx)
{
    ext_callback callback;
    ext_callback_begin(&callback);
    let_go(ctx, tag, weir_drop_reason_name((int)reason));
    ext_callback_end(&callback);
}

/* ---- creating ------------------------------------------------------------------------------ */

static int parse_overflow(const char *name, weir_overflow *ret)
{
    static const struct {
        const char *name;
        weir_overflow overflow;
    } names[] = {{"block", WEIR_OVERFLOW_BLOCK},
                 {"fail", WEIR_OVERFLOW_FAIL},
                 {"drop_newest", WEIR_OVERFLOW_DROP_NEWEST},
                 {"drop_oldest", WEIR_OVERFLOW_DROP_OLDEST}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i].name) == 0) {
            *ret = names[i].overflow;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "unknown overflow '%s'", name);
    return -1;
}

static PyObject *pool_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"workers",          "backlog", "overflow", "retries",
                            "tasks_per_worker", "start",   "reap",     "on_drop",
                            "future_type",      "load",    "governor", "task_bytes",
                            "max_worker_rss",   "name",    NULL};
    unsigned workers, retries;
    Py_ssize_t backlog; /* -1: unbounded; -2: auto */
    const char *overflow;
    unsigned long long tasks_per_worker;
    PyObject *start, *reap, *on_drop, *future_type, *load, *governor, *name = NULL;
    unsigned long long task_bytes, max_worker_rss;
    module_state *state = ext_state_of(type);
    if (!state || !PyArg_ParseTupleAndKeywords(
                      args, kwargs, "InsIKOOOO!OOKK|O:Pool", names, &workers, &backlog, &overflow,
                      &retries, &tasks_per_worker, &start, &reap, &on_drop, &PyType_Type,
                      &future_type, &load, &governor, &task_bytes, &max_worker_rss, &name))
        return NULL;
    if (governor != Py_None && Py_TYPE(governor) != state->governor_type) {
        PyErr_SetString(PyExc_TypeError, "governor must be a Governor or None");
        return NULL;
    }
    if (!PyType_IsSubtype((PyTypeObject *)future_type, state->future_type)) {
        PyErr_SetString(PyExc_TypeError, "future_type must be a subclass of LazyFuture");
        return NULL;
    }
    weir_pool_opts opts = WEIR_POOL_OPTS_INIT;
    if (parse_overflow(overflow, &opts.overflow) < 0)
        return NULL;
    Pool *self = (Pool *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->state = state;
    self->generation = ext_fork_generation();
    self->start = Py_NewRef(start);
    self->reap = Py_NewRef(reap);
    self->on_drop = Py_NewRef(on_drop);
    self->load = Py_NewRef(load);
    self->future_type = (PyTypeObject *)Py_NewRef(future_type);
    opts.workers = workers;
    opts.backlog = backlog == -2 ? WEIR_AUTO : backlog < 0 ? WEIR_UNBOUNDED : (size_t)backlog;
    opts.retries = retries;
    opts.tasks_per_worker = tasks_per_worker;
    opts.max_worker_rss = max_worker_rss;
    opts.task_bytes = task_bytes;
    if (governor != Py_None) {
        self->governor = Py_NewRef(governor);
        opts.governor = ((ext_governor *)governor)->governor;
    }
    opts.on_drop = dropped;
    opts.drop_ctx = self;
    opts.start = start_worker;
    opts.reap = reap_worker;
    opts.process_ctx = self;
    opts.name = ext_shown_name(name);
    int rc = weir_pool_create(&self->pool, &opts);
    if (rc == 0)
        return (PyObject *)self;
    if (rc == WEIR_ENOSHM)
        ext_raise_text(self->state, rc, "there is not enough shared memory for a process pool");
    else
        ext_raise(self->state, rc);
    Py_DECREF(self);
    return NULL;
}

static int pool_traverse(PyObject *object, visitproc visit, void *arg)
{
    Pool *self = (Pool *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->start);
    Py_VISIT(self->reap);
    Py_VISIT(self->on_drop);
    Py_VISIT(self->load);
    Py_VISIT(self->future_type);
    Py_VISIT(self->governor);
    return ext_line_traverse(&self->line, visit, arg);
}

static int pool_clear(PyObject *object)
{
    Pool *self = (Pool *)object;
    ext_line_clear(&self->line);
    Py_CLEAR(self->start);
    Py_CLEAR(self->on_drop);
    Py_CLEAR(self->load);
    Py_CLEAR(self->future_type);
    return 0; /* reap stays: workers that are still there are reaped by dealloc */
}

static void pool_dealloc(PyObject *object)
{
    Pool *self = (Pool *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    weir_pool_destroy(self->pool);
    Py_CLEAR(self->start);
    Py_CLEAR(self->reap);
    Py_CLEAR(self->on_drop);
    Py_CLEAR(self->load);
    Py_CLEAR(self->future_type);
    Py_CLEAR(self->governor);
    type->tp_free(object);
    Py_DECREF(type);
}

/* In a forked child: the pool is its parent's. */
static bool is_copy(const Pool *self)
{
    return self->generation != ext_fork_generation();
}

/* NULL with RuntimeError in a forked child. */
static weir_pool *pool_of(PyObject *object)
{
    Pool *self = (Pool *)object;
    if (!is_copy(self))
        return self->pool;
    PyErr_SetString(PyExc_RuntimeError,
                    "this pool belongs to the process that created it, not to its forked child");
    return NULL;
}

/* ---- submitting ---------------------------------------------------------------------------- */

/* A permit for one task: post uses it; dropped unused, in whatever way, it goes back. */
typedef struct {
    PyObject_HEAD Pool *pool; /* NULL: used */
} Permit;

/* Whoever takes its pool uses it, once: a reference, or NULL. */
static Pool *use(Permit *self)
{
    Pool *pool;
    EXT_BEGIN_CRITICAL_SECTION(self);
    pool = self->pool;
    self->pool = NULL;
    EXT_END_CRITICAL_SECTION();
    return pool;
}

static void give_back(Permit *self)
{
    Pool *pool = use(self);
    if (pool && !is_copy(pool))
        weir_pool_unadmit(pool->pool);
    Py_XDECREF(pool);
}

static void permit_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    give_back((Permit *)object);
    type->tp_free(object);
    Py_DECREF(type);
}

/* release(): now, not only when the last reference is gone (a traceback may hold one). */
static PyObject *permit_release(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    give_back((Permit *)object);
    Py_RETURN_NONE;
}

static PyMethodDef permit_methods[] = {
    {"release", permit_release, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot permit_slots[] = {
    {Py_tp_dealloc, permit_dealloc},
    {Py_tp_methods, permit_methods},
    {Py_tp_doc, (void *)"A permit for one task of a Pool."},
    {0, NULL},
};

static PyType_Spec permit_spec = {
    .name = "weir._weir.Permit",
    .basicsize = sizeof(Permit),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = permit_slots,
};

/* Why a task was not accepted, in the words of the standard executor where it has them. */
static PyObject *raise_refusal(Pool *self, int rc)
{
    if (rc == WEIR_EDEADLK)
        return ext_raise_text(self->state, rc,
                              "submit() in a callback of this executor would wait for itself: its "
                              "backlog is full, and it goes on when the callback returns; use "
                              "try_submit(), or submit from another thread");
    if (rc != WEIR_ECLOSED)
        return ext_raise(self->state, rc);
    PyErr_SetString(PyExc_RuntimeError, "cannot schedule new futures after shutdown");
    return NULL;
}

/* What admit says of a result of weir_pool_admit: a Permit, False (dropped as the newest), or an
 * exception.  `permit` was made before, so that none can be lost for lack of memory. */
static PyObject *admitted(Pool *self, Permit *permit, int rc)
{
    if (rc == WEIR_KEPT) {
        permit->pool = (Pool *)Py_NewRef(self);
        if (!PyErr_Occurred())
            return (PyObject *)permit;
        Py_DECREF(permit); /* served, and a signal handler has raised: give it back */
        return NULL;
    }
    Py_DECREF(permit);
    if (rc == WEIR_DROPPED && !PyErr_Occurred())
        Py_RETURN_FALSE;
    return rc < 0 ? raise_refusal(self, rc) : NULL;
}

static Permit *new_permit(Pool *self)
{
    PyTypeObject *type = self->state->pool_permit_type;
    return (Permit *)type->tp_alloc(type, 0);
}

/* admit(timeout, wait) -> Permit | False */
static PyObject *pool_admit(PyObject *object, PyObject *args)
{
    Pool *self = (Pool *)object;
    PyObject *timeout;
    int must_wait;
    int64_t ns;
    if (!PyArg_ParseTuple(args, "Op:admit", &timeout, &must_wait) ||
        ext_parse_timeout(timeout, "timeout", &ns) < 0)
        return NULL;
    weir_pool *pool = pool_of(object);
    Permit *permit = pool ? new_permit(self) : NULL;
    if (!permit)
        return NULL;
    int (*admit)(weir_pool *, weir_time) = must_wait ? weir_pool_admit_wait : weir_pool_admit;
    weir_time deadline = ext_deadline(ns);
    ext_wait wait;
    ext_wait_begin(&wait);
    int rc = admit(pool, deadline);
    ext_wait_end(&wait);
    return admitted(self, permit, rc == WEIR_EFULL ? WEIR_ETIMEDOUT : rc); /* a timeout of 0 */
}

static PyObject *try_admit(PyObject *object, int (*admit)(weir_pool *, weir_time))
{
    Pool *self = (Pool *)object;
    weir_pool *pool = pool_of(object);
    Permit *permit = pool ? new_permit(self) : NULL;
    if (!permit)
        return NULL;
    int rc = admit(pool, WEIR_POLL);
    if (rc != WEIR_EFULL)
        return admitted(self, permit, rc);
    Py_DECREF(permit);
    Py_RETURN_NONE;
}

/* try_admit() -> Permit | False | None: it would have to wait */
static PyObject *pool_try_admit(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    return try_admit(object, weir_pool_admit);
}

/* try_admit_wait() -> Permit | None: it would have to wait, whatever the overflow */
static PyObject *pool_try_admit_wait(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    return try_admit(object, weir_pool_admit_wait);
}

/* ---- waiting for a permit in a coroutine ----------------------------------------------------- */

static weir_pool *pending_pool(const ext_pending *pending)
{
    return ((Pool *)pending->owner)->pool;
}

static int pending_begin(ext_pending *pending)
{
    return weir_pool_admit_async(pending_pool(pending), &pending->core);
}

static bool pending_cancel(ext_pending *pending)
{
    return weir_pool_cancel_admit(pending_pool(pending), &pending->core);
}

static void pending_give_back(ext_pending *pending)
{
    weir_pool_unadmit(pending_pool(pending));
}

static PyObject *pending_claim(ext_pending *pending)
{
    Permit *permit = new_permit((Pool *)pending->owner);
    if (permit)
        return admitted((Pool *)pending->owner, permit, WEIR_KEPT);
    pending_give_back(pending);
    return NULL;
}

static PyObject *pending_fail(ext_pending *pending, int result)
{
    return raise_refusal((Pool *)pending->owner, result);
}

static const ext_pending_kind pending_kind = {
    .begin = pending_begin,
    .cancel = pending_cancel,
    .give_back = pending_give_back,
    .claim = pending_claim,
    .fail = pending_fail,
};

/* pend_permit(ready) -> Pending[Permit] */
static PyObject *pool_pend_permit(PyObject *object, PyObject *ready)
{
    Pool *self = (Pool *)object;
    if (!pool_of(object))
        return NULL;
    ext_pending *pending = ext_pending_new(self->state, object, &self->line, &pending_kind, ready);
    return pending ? ext_pending_begin(pending) : NULL;
}

/* Payloads above this are copied without the GIL. */
#define COPY_WITH_GIL (32 << 10)

static int post_parts(weir_pool *pool, const ext_parts *parts, uint32_t items, uint64_t kind,
                      PyObject *tag, uint64_t *ret_id)
{
    return weir_pool_post_kind(pool, parts->bytes, parts->n, items, kind, tag, ret_id);
}

static int post(weir_pool *pool, PyObject *tag, const ext_parts *parts, uint32_t items,
                uint64_t kind, uint64_t *ret_id)
{
    int rc;
    Py_INCREF(tag); /* before: it may be collected at once */
    if (parts->size <= COPY_WITH_GIL) {
        rc = post_parts(pool, parts, items, kind, tag, ret_id);
    } else {
        Py_BEGIN_ALLOW_THREADS rc = post_parts(pool, parts, items, kind, tag, ret_id);
        Py_END_ALLOW_THREADS
    }
    if (rc < 0)
        Py_DECREF(tag);
    return rc;
}

/* post(permit, tag, data, items=0, kind=0) -> id; data is a buffer or a list of them; items > 0: a
 * batch of so many, from dump_calls; tasks of one kind take about as much memory.  The permit is used unless it raises. */
static PyObject *pool_post(PyObject *object, PyObject *args)
{
    Pool *self = (Pool *)object;
    Permit *permit;
    PyObject *tag, *data;
    ext_parts parts;
    unsigned items = 0;
    unsigned long long kind = 0;
    weir_pool *pool = pool_of(object);
    if (!pool ||
        !PyArg_ParseTuple(args, "O!OO|IK:post", self->state->pool_permit_type, &permit, &tag, &data,
                          &items, &kind) ||
        ext_parts_get(data, &parts) < 0)
        return NULL;
    uint64_t id = 0;
    Pool *used = use(permit);
    int rc = used == self ? post(pool, tag, &parts, items, kind, &id) : WEIR_EINVAL;
    if (rc < 0)
        permit->pool = used; /* its use again: nobody else's before this call has returned */
    else
        Py_DECREF(used);
    Py_ssize_t size = parts.size;
    ext_parts_release(&parts);
    if (rc == WEIR_ENOSHM)
        return PyErr_Format(PyExc_MemoryError,
                            "there is not enough shared memory for the task's %zd bytes", size);
    if (rc < 0)
        return raise_refusal(self, rc);
    return PyLong_FromUnsignedLongLong(id);
}

/* cancel(id, tag): True: the task never starts, and on_drop has been called. */
static PyObject *pool_cancel(PyObject *object, PyObject *args)
{
    unsigned long long id;
    PyObject *tag;
    if (!PyArg_ParseTuple(args, "KO:cancel", &id, &tag))
        return NULL;
    Pool *self = (Pool *)object;
    if (is_copy(self) || weir_pool_cancel(self->pool, id) < 0)
        Py_RETURN_FALSE;
    let_go(self, tag, "cancelled");
    Py_RETURN_TRUE;
}

static PyObject *pool_is_running(PyObject *object, PyObject *id)
{
    unsigned long long number = PyLong_AsUnsignedLongLong(id);
    if (number == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    Pool *self = (Pool *)object;
    return PyBool_FromLong(!is_copy(self) && weir_pool_is_running(self->pool, number) == 1);
}

/* ---- collecting ---------------------------------------------------------------------------- */

static PyObject *exit_tuple(const weir_exit *exit)
{
    return Py_BuildValue("(iiiKi)", (int)exit->pid, exit->code, exit->signal,
                         (unsigned long long)exit->peak_rss_bytes, exit->oom);
}

/* Of a batch: (first, items, last). */
static PyObject *part_tuple(const weir_completion *completion)
{
    if (!completion->is_batch)
        Py_RETURN_NONE;
    return Py_BuildValue("(IIO)", completion->first, completion->items,
                         completion->last ? Py_True : Py_False);
}

static void release_lease(PyObject *owner, void *lease)
{
    Pool *self = (Pool *)owner;
    if (!is_copy(self)) /* a child's copy of the lease has nothing to give back */
        weir_pool_release(self->pool, lease);
}

static void unshare_lease(PyObject *owner, void *lease)
{
    weir_pool_unshare(((Pool *)owner)->pool, lease);
}

static const ext_lease_kind lease_kind = {release_lease, unshare_lease};

/* A completion's data: leased where it can be kept, else readable until the next collect. */
static PyObject *view_of(Pool *self, weir_completion *completion)
{
    static const char nothing[1];
    const char *data = completion->data ? completion->data : nothing;
    Py_ssize_t size = (Py_ssize_t)completion->data_size;
    weir_pool_lease *lease;
    void *kept;
    if (completion->block && weir_pool_keep(self->pool, completion, &lease, &kept) == 0)
        return ext_lease_view(self->state, (PyObject *)self, &lease_kind, lease, kept, size);
    return PyMemoryView_FromMemory((char *)data, size, PyBUF_READ);
}

/* (tag, outcome, status, data, service seconds, exit, part) */
static PyObject *completion_tuple(Pool *self, weir_completion *completion)
{
    PyObject *view = view_of(self, completion);
    PyObject *exit = completion->exit.pid || completion->outcome == WEIR_OUTCOME_DIED ||
                             completion->outcome == WEIR_OUTCOME_NOT_STARTED
                         ? exit_tuple(&completion->exit)
                         : Py_NewRef(Py_None);
    PyObject *part = part_tuple(completion);
    if (!view || !exit || !part) {
        Py_XDECREF(view);
        Py_XDECREF(exit);
        Py_XDECREF(part);
        return NULL;
    }
    return Py_BuildValue("(OiiNdNN)", (PyObject *)completion->tag, (int)completion->outcome,
                         (int)completion->status, view, (double)completion->service_ns / 1e9, exit,
                         part);
}

#define BATCH 64

/* Most tasks return something small, and nobody has added a callback to their futures: they are
 * completed without a frame of Python's. */
static bool is_simple(Pool *self, const weir_completion *completion)
{
    return completion->outcome == WEIR_OUTCOME_REPLIED && !completion->is_batch &&
           !completion->block && completion->data_size > 0 &&
           (completion->status == EXT_REPLY_PLAIN ||
            (completion->status == EXT_REPLY_RESULT &&
             *(const uint8_t *)completion->data == 0x80)) &&
           Py_TYPE((PyObject *)completion->tag) == self->future_type &&
           ((ext_future *)completion->tag)->callbacks == NULL;
}

static PyObject *load_result(Pool *self, const weir_completion *completion)
{
    if (completion->status == EXT_REPLY_PLAIN)
        return ext_load_plain(completion->data, completion->data_size);
    PyObject *view = PyMemoryView_FromMemory((char *)completion->data,
                                             (Py_ssize_t)completion->data_size, PyBUF_READ);
    PyObject *result = view ? PyObject_CallOneArg(self->load, view) : NULL;
    Py_XDECREF(view);
    return result;
}

/* What the future needed as long as it was not done. */
static int forget(module_state *state, PyObject *future)
{
    PyObject *shared = PyObject_GetAttr(future, state->str_shared);
    int rc = shared ? PyObject_SetAttr(future, state->str_pool, Py_None) : -1;
    if (rc == 0 && PyObject_IsTrue(shared)) {
        PyObject *none = PyTuple_New(0);
        rc = none ? PyObject_SetAttr(future, state->str_shared, none) : -1;
        Py_XDECREF(none);
    }
    Py_XDECREF(shared);
    return rc;
}

/* Completes a future; its permit is settled. */
static void complete(module_state *state, PyObject *future, PyObject *result)
{
    if (ext_future_finish(state, (ext_future *)future, result, NULL) < 0 ||
        forget(state, future) < 0)
        PyErr_WriteUnraisable(future); /* somebody has set its state */
    Py_DECREF(result);
    Py_DECREF(future);
}

/* Settles and completes the simple ones among the completions; returns how many others are left, at
 * the front.  One whose result does not load is left: Python finds out why, and tells the future. */
static int64_t complete_simple(Pool *self, weir_completion *completions, int64_t n)
{
    PyObject *futures[BATCH], *results[BATCH];
    size_t done = 0;
    int64_t left = 0;
    for (int64_t i = 0; i < n; i++) {
        PyObject *result = NULL;
        if (is_simple(self, &completions[i]) && !(result = load_result(self, &completions[i])))
            PyErr_Clear();
        if (result) {
            futures[done] = completions[i].tag;
            results[done++] = result;
        } else {
            completions[left++] = completions[i];
        }
    }
    weir_pool_settle(self->pool, done); /* before: who sees a result can submit */
    for (size_t i = 0; i < done; i++)
        complete(self->state, futures[i], results[i]);
    return left;
}

/* set_workers(n): at most so many from now on, 1 to max_workers. */
static PyObject *pool_set_workers(PyObject *object, PyObject *n)
{
    weir_pool *pool = pool_of(object);
    long number = PyLong_AsLong(n);
    if (!pool || (number == -1 && PyErr_Occurred()))
        return NULL;
    if (number < 1 || number > UINT32_MAX || weir_pool_set_workers(pool, (unsigned)number) < 0) {
        PyErr_Format(PyExc_ValueError, "workers must be in [1, max_workers], not %ld", number);
        return NULL;
    }
    Py_RETURN_NONE;
}

/* start_workers(n): now, in this thread, before anybody collects. */
static PyObject *pool_start_workers(PyObject *object, PyObject *n)
{
    unsigned long number = PyLong_AsUnsignedLong(n);
    if (number == (unsigned long)-1 && PyErr_Occurred())
        return NULL;
    weir_pool *pool = pool_of(object);
    if (!pool)
        return NULL;
    weir_pool_start_workers(pool, (unsigned)number); /* what fails now is tried again later */
    Py_RETURN_NONE;
}

/* collect(): a list of completions, without those that it completed itself; None: the end.  Data is readable until the next call, or, if it
 * is a view of a Lease, as long as somebody refers to it. */
static PyObject *pool_collect(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Pool *self = (Pool *)object;
    weir_pool *pool = pool_of(object);
    if (!pool)
        return NULL;
    weir_completion completions[BATCH];
    ext_wait wait;
    ext_wait_begin(&wait);
    int64_t n = weir_pool_collect(pool, completions, BATCH, WEIR_FOREVER);
    ext_wait_end(&wait);
    if (n == WEIR_ECLOSED)
        Py_RETURN_NONE;
    if (n < 0)
        return ext_raise(self->state, (int)n);
    n = complete_simple(self, completions, n);
    PyObject *list = PyList_New(0);
    for (int64_t i = 0; i < n; i++) {
        PyObject *item = list ? completion_tuple(self, &completions[i]) : NULL;
        if (item && PyList_Append(list, item) == 0) {
            if (completions[i].last)
                Py_DECREF((PyObject *)completions[i].tag);
        } else if (!completions[i].last) {
            PyErr_Clear(); /* no memory: these items count as never done */
        } else {           /* no memory even for a tuple: the future is told, if that is possible */
            PyErr_Clear();
            let_go(self, completions[i].tag, "lost for lack of memory");
        }
        Py_XDECREF(item);
    }
    return list ? list : PyList_New(0);
}

static PyObject *pool_settle(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    weir_pool *pool = pool_of(object);
    if (!pool)
        return NULL;
    weir_pool_settle(pool, 1);
    Py_RETURN_NONE;
}

/* ---- ending and looking -------------------------------------------------------------------- */

static PyObject *pool_close(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Pool *self = (Pool *)object;
    if (!is_copy(self))
        weir_pool_close(self->pool);
    Py_RETURN_NONE;
}

static PyObject *pool_discard(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    weir_pool *pool = pool_of(object);
    if (!pool)
        return NULL;
    return PyLong_FromSize_t(weir_pool_discard(pool));
}

static PyObject *pool_kill(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    weir_pool *pool = pool_of(object);
    if (!pool)
        return NULL;
    weir_pool_kill(pool);
    Py_RETURN_NONE;
}

static PyObject *pool_pids(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    weir_pool *pool = pool_of(object);
    if (!pool)
        return NULL;
    pid_t pids[4096];
    size_t n = weir_pool_pids(pool, pids, 4096);
    PyObject *list = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; list && i < n; i++) {
        PyObject *pid = PyLong_FromLong(pids[i]);
        if (pid)
            PyList_SET_ITEM(list, (Py_ssize_t)i, pid);
        else
            Py_CLEAR(list);
    }
    return list;
}

/* snapshot(): a dict of numbers; weir._process makes it typed. */
static PyObject *pool_snapshot(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    weir_pool *pool = pool_of(object);
    if (!pool)
        return NULL;
    ext_leases_look();
    weir_pool_snapshot s = WEIR_POOL_SNAPSHOT_INIT;
    weir_pool_get_snapshot(pool, &s);
    PyObject *dropped_by = PyDict_New();
    for (int reason = 0; dropped_by && reason < WEIR_DROP_REASONS; reason++) {
        PyObject *count = PyLong_FromUnsignedLongLong(s.dropped[reason]);
        if (!count || PyDict_SetItemString(dropped_by, weir_drop_reason_name(reason), count) < 0)
            Py_CLEAR(dropped_by);
        Py_XDECREF(count);
    }
    if (!dropped_by)
        return NULL;
#define U(n) (unsigned long long)(n)
    return Py_BuildValue(
        "{sI sK sz sK sK sK sK sK sN sK sK sK sK sK sK sd sd sK sK sO}", "workers", s.workers_alive,
        "max_submit_backlog", U(s.backlog), "backlog_why", s.backlog_why, "waiting", U(s.waiting),
        "running", U(s.running - s.replied), "accepted", U(s.accepted), "completed",
        U(s.completed + s.replied), "cancelled", U(s.cancelled), "dropped", dropped_by, "refused",
        U(s.refused), "retried", U(s.retried), "died", U(s.died), "workers_started",
        U(s.workers_started), "workers_died", U(s.workers_died), "workers_recycled",
        U(s.workers_recycled), "submit_blocked", (double)s.submit_blocked_ns / 1e9, "service",
        (double)s.service_ns / 1e9, "shm_bytes", U(s.shm_bytes), "submitters_waiting",
        U(s.submitters_waiting), "is_shutdown", s.closed ? Py_True : Py_False);
#undef U
}

/* ---- the type ------------------------------------------------------------------------------ */

static PyMethodDef pool_methods[] = {
    {"admit", pool_admit, METH_VARARGS, NULL},
    {"pend_permit", pool_pend_permit, METH_O, NULL},
    {"try_admit", pool_try_admit, METH_NOARGS, NULL},
    {"try_admit_wait", pool_try_admit_wait, METH_NOARGS, NULL},
    {"post", pool_post, METH_VARARGS, NULL},
    {"cancel", pool_cancel, METH_VARARGS, NULL},
    {"is_running", pool_is_running, METH_O, NULL},
    {"start_workers", pool_start_workers, METH_O, NULL},
    {"set_workers", pool_set_workers, METH_O, NULL},
    {"collect", pool_collect, METH_NOARGS, NULL},
    {"settle", pool_settle, METH_NOARGS, NULL},
    {"close", pool_close, METH_NOARGS, NULL},
    {"discard", pool_discard, METH_NOARGS, NULL},
    {"kill", pool_kill, METH_NOARGS, NULL},
    {"pids", pool_pids, METH_NOARGS, NULL},
    {"snapshot", pool_snapshot, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_new, pool_new},
    {Py_tp_traverse, pool_traverse},
    {Py_tp_clear, pool_clear},
    {Py_tp_dealloc, pool_dealloc},
    {Py_tp_methods, pool_methods},
    {Py_tp_doc, (void *)"A process pool of libweir; see weir.ProcessPoolExecutor."},
    {0, NULL},
};

static PyType_Spec pool_spec = {
    .name = "weir._weir.Pool",
    .basicsize = sizeof(Pool),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = pool_slots,
};

int ext_pool_types_add(PyObject *module, module_state *state)
{
    PyTypeObject *type;
    if (ext_add_type(module, &permit_spec, &state->pool_permit_type) < 0 ||
        ext_add_type(module, &pool_spec, &type) < 0)
        return -1;
    Py_DECREF(type); /* the module keeps it */
    return 0;
}
