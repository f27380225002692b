/* pipeline.c - weir._weir.Pipeline: a weir_pipeline whose items are Python objects and whose stages call
 * Python functions; the heart of weir.Pipeline.
 *
 * Ownership:  an item is one strong reference, wherever it is.  Queues are weir.Queue objects, lent to
 *             libweir (ext_queue_lend), so that coroutines use them, too.
 * GIL:        workers are threads that Python knows.  They hold the GIL but where libweir waits
 *             (before_wait, after_wait), and each offers it from time to time: functions in C never do.
 * Errors:     what a call raised last is its thread's until libweir says what becomes of it; the first
 *             one that stops the pipeline is kept for run().
 * End:        each thread keeps the pipeline until it has left libweir.  So whoever collects it finds
 *             no thread inside.
 * Fork:       in a forked child everything raises, and nothing is freed that the parent's threads use.
 */
#include "queue.h"

#include <sched.h>
#include <structmember.h>

/* Calls of one thread after which it offers the GIL. */
#define TURN 256

typedef struct Stage {
    struct Pipeline *pipeline; /* borrowed: it owns the stage */
    weir_stage index;
    PyObject *fn; /* of a source: the iterator; NULL: external */
    PyObject *key, *should_retry, *on_failure, *on_workers;
    PyObject *limits; /* a tuple: keeps what libweir waits for */
    Queue *queue;
    bool takes_batch, emits, is_flat, mixes_key, halts;
} Stage;

typedef struct Pipeline {
    PyObject_HEAD PyObject *weakrefs;
    module_state *state; /* kept alive by the type */
    weir_pipeline *pipeline;
    PyObject *on_drop, *start_thread, *on_end; /* NULL: none */
    PyObject *error;                           /* (exception, stage, item); NULL: none */
    Stage *stages[WEIR_STAGES_MAX];
    unsigned n;
    unsigned generation;
    ext_lock lock;         /* protects error */
    _Atomic size_t inside; /* calls that are without the GIL */
    atomic_bool stopped;   /* by hand: what calls raise from then on is no error of its own */
} Pipeline;

/* What the call that this thread made last has raised; it is on its way to on_failure. */
static _Thread_local PyObject *raised;

static bool is_usable(Pipeline *self)
{
    if (self->generation == ext_fork_generation() && self->pipeline)
        return true;
    PyErr_SetString(PyExc_RuntimeError,
                    "this weir.Pipeline belongs to the parent process; a forked child has none of "
                    "its threads: make a new one here");
    return false;
}

/* ---- waits ---------------------------------------------------------------------------------- */

#define DEPTH 8 /* a function that puts into another pipeline, whose on_drop does, ... */

typedef struct wait_stack {
    ext_wait waits[DEPTH];
    bool released[DEPTH];
    unsigned depth;
} wait_stack;

static _Thread_local wait_stack waits;

/* Workers that run with the GIL, or let go of it in a function, of all pipelines; those who look on; and
 * how often that was in vain lately.  relaxed: advice on when to ask for the GIL, nothing else. */
static atomic_int running, looking_on, in_vain;

#define LOOK_ON     (50 * WEIR_MILLISECOND / 1000) /* about as long as a queue lasts */
#define LOOKERS_MAX 8
#define VAIN_MAX    8  /* looks in vain, less two for each that was not ... */
#define TRY_EVERY   16 /* ... from which on it is only tried now and then */

static bool is_worth_looking(void)
{
    static _Thread_local unsigned tries;
    return atomic_load_explicit(&in_vain, memory_order_relaxed) < VAIN_MAX ||
           ++tries % TRY_EVERY == 0;
}

static void learn(bool was_in_vain)
{
    int n = atomic_load_explicit(&in_vain, memory_order_relaxed) + (was_in_vain ? 1 : -2);
    atomic_store_explicit(&in_vain, n < 0 ? 0 : n > VAIN_MAX ? VAIN_MAX : n, memory_order_relaxed);
}

static bool others_run(void)
{
    return atomic_load_explicit(&running, memory_order_relaxed) > 0;
}

/* Who asks for the GIL while another worker has it sleeps, and is woken once more: which takes as long
 * as a hundred items.  So who was woken looks on, and offers its CPU, until the other one waits. */
static void await_turn(void)
{
    if (!others_run() || !is_worth_looking())
        return;
    if (atomic_fetch_add_explicit(&looking_on, 1, memory_order_relaxed) < LOOKERS_MAX) {
        weir_time until = weir_after(LOOK_ON);
        while (others_run() && weir_now() < until)
            sched_yield();
        learn(others_run());
    }
    atomic_fetch_sub_explicit(&looking_on, 1, memory_order_relaxed);
}

static void before_wait(void *ctx)
{
    (void)ctx;
    unsigned i = waits.depth++;
    if (i >= DEPTH)
        return; /* waits with the GIL: better than nothing, and never seen */
    waits.released[i] = !ext_is_waiting();
    if (!waits.released[i])
        return;
    atomic_fetch_sub_explicit(&running, 1, memory_order_relaxed);
    ext_release_begin(&waits.waits[i]);
}

static void after_wait(void *ctx)
{
    (void)ctx;
    unsigned i = --waits.depth;
    if (i >= DEPTH || !waits.released[i])
        return;
    await_turn();
    ext_release_end(&waits.waits[i]);
    atomic_fetch_add_explicit(&running, 1, memory_order_relaxed);
}

/* Who calls functions in C only never lets go of the GIL. */
static void offer_turn(void)
{
    static _Thread_local unsigned calls;
    if (++calls % TURN == 0) {
        PyThreadState *saved = PyEval_SaveThread();
        PyEval_RestoreThread(saved);
    }
}

/* ---- failures ------------------------------------------------------------------------------- */

/* Keeps the first exception that stops the pipeline. */
static void keep_error(Pipeline *self, PyObject *error, weir_stage stage, PyObject *item)
{
    if (atomic_load_explicit(&self->stopped, memory_order_relaxed))
        return;
    PyObject *entry = Py_BuildValue("(OIO)", error, stage, item ? item : Py_None);
    if (!entry) {
        PyErr_Clear();
        return;
    }
    EXT_LOCK(&self->lock);
    bool is_first = !self->error;
    if (is_first)
        self->error = entry;
    EXT_UNLOCK(&self->lock);
    if (!is_first)
        Py_DECREF(entry);
}

/* The exception that is set is of something that cannot fail for an item alone, a key function say. */
static void stop_with_exception(Stage *stage, PyObject *item)
{
    PyObject *error = ext_take_exception();
    if (!error)
        return;
    keep_error(stage->pipeline, error, stage->index, item);
    Py_DECREF(error);
    weir_pipeline_halt(stage->pipeline->pipeline);
}

/* The call has raised: puts the exception where on_failure finds it. */
static int failed(Stage *stage, bool again)
{
    PyObject *error = ext_take_exception();
    PyObject *before = raised;
    raised = error;
    Py_XDECREF(before);
    if (!error)
        return WEIR_ENOMEM;
    bool may_retry = PyExceptionInstance_Check(error) &&
                     PyObject_TypeCheck(error, (PyTypeObject *)PyExc_Exception);
    if (may_retry && again && stage->should_retry) {
        PyObject *answer = PyObject_CallOneArg(stage->should_retry, error);
        int truth = answer ? PyObject_IsTrue(answer) : -1;
        Py_XDECREF(answer);
        if (truth < 0)
            ext_report_exception(stage->should_retry);
        may_retry = truth > 0;
    }
    return may_retry ? WEIR_ESYSTEM : WEIR_FATAL;
}

static void tell_failure(Stage *stage, PyObject *item, PyObject *error)
{
    if (!stage->on_failure)
        return;
    PyObject *args[] = {item ? item : Py_None, error};
    PyObject *result = PyObject_Vectorcall(stage->on_failure, args, 2, NULL);
    if (!result)
        ext_report_exception(stage->on_failure);
    Py_XDECREF(result);
}

static void judge(Stage *stage, void *const *items, size_t n, PyObject *error)
{
    PyObject *first = n > 0 ? (PyObject *)items[0] : NULL;
    bool is_ordinary = PyObject_TypeCheck(error, (PyTypeObject *)PyExc_Exception);
    if (stage->halts || !is_ordinary)
        keep_error(stage->pipeline, error, stage->index, first);
    if (!is_ordinary)
        weir_pipeline_halt(stage->pipeline->pipeline); /* SystemExit, say: nobody skips it */
    if (n == 0)
        tell_failure(stage, NULL, error);
    for (size_t i = 0; i < n; i++)
        tell_failure(stage, items[i], error);
}

static void on_failure(void *ctx, void *const *items, size_t n, int code)
{
    Stage *stage = ctx;
    PyObject *error = raised;
    raised = NULL;
    ext_callback callback;
    ext_callback_begin(&callback);
    if (!error) { /* a limit said so, not the function */
        ext_raise(stage->pipeline->state, code);
        error = ext_take_exception();
    }
    if (error)
        judge(stage, items, n, error);
    Py_XDECREF(error);
    ext_callback_end(&callback);
}

/* ---- stage functions ------------------------------------------------------------------------ */

static void let_go_of(void *const *items, size_t n)
{
    for (size_t i = 0; i < n; i++)
        Py_DECREF((PyObject *)items[i]);
}

/* Emits each item of an iterable; -1 with its exception. */
static int emit_each(PyObject *results, const weir_run *run)
{
    PyObject *iterator = PyObject_GetIter(results);
    PyObject *item;
    if (!iterator)
        return -1;
    while ((item = PyIter_Next(iterator)))
        weir_emit(run, item, 0);
    Py_DECREF(iterator);
    return PyErr_Occurred() ? -1 : 0;
}

/* After an emit: the exception of a callback of the target's queue, of a spill's dumps say. */
static void settle(Stage *stage)
{
    if (PyErr_Occurred())
        stop_with_exception(stage, NULL);
    Py_CLEAR(raised); /* of an attempt before */
    offer_turn();
}

static PyObject *to_list(void *const *items, size_t n)
{
    PyObject *list = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; list && i < n; i++)
        PyList_SET_ITEM(list, (Py_ssize_t)i, Py_NewRef((PyObject *)items[i]));
    return list;
}

static int call(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    Stage *stage = ctx;
    PyObject *result;
    if (stage->takes_batch) {
        PyObject *list = to_list(items, n);
        result = list ? PyObject_CallOneArg(stage->fn, list) : NULL;
        Py_XDECREF(list);
    } else {
        result = PyObject_CallOneArg(stage->fn, (PyObject *)items[0]);
    }
    if (!result)
        return failed(stage, true);
    int rc = 0;
    if (stage->emits && !stage->is_flat)
        weir_emit(run, result, 0); /* takes the reference */
    else {
        rc = stage->emits ? emit_each(result, run) : 0;
        Py_DECREF(result);
    }
    if (rc < 0)
        return failed(stage, false); /* what was emitted would be emitted again */
    let_go_of(items, n);
    settle(stage);
    return 0;
}

static int next_of_source(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)items, (void)n;
    Stage *stage = ctx;
    PyObject *item = Py_TYPE(stage->fn)->tp_iternext(stage->fn);
    if (!item && PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_StopIteration))
        return failed(stage, true);
    if (!item) {
        PyErr_Clear();
        return WEIR_END;
    }
    weir_emit(run, item, 0);
    settle(stage);
    return WEIR_MORE;
}

/* Where the items of an inline stage only take their way. */
static int pass_on(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)n;
    weir_emit(run, items[0], 0);
    settle(ctx);
    return 0;
}

/* ---- other callbacks from libweir ----------------------------------------------------------- */

static uint64_t mix(uint64_t x) /* the finalizer of splitmix64: even numbers, too, are spread */
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t key_of(void *item, void *ctx)
{
    Stage *stage = ctx;
    ext_callback callback;
    ext_callback_begin(&callback);
    PyObject *key = PyObject_CallOneArg(stage->key, item);
    Py_hash_t hash = key ? PyObject_Hash(key) : -1;
    Py_XDECREF(key);
    if (PyErr_Occurred()) {
        hash = 0;
        stop_with_exception(stage, item);
    }
    ext_callback_end(&callback);
    return stage->mixes_key ? mix((uint64_t)hash) : (uint64_t)hash;
}

static void on_drop(void *item, weir_stage index, weir_loss reason, void *ctx)
{
    Pipeline *self = ctx;
    ext_callback callback;
    ext_callback_begin(&callback);
    if (self->on_drop && (int)reason < WEIR_LOSS_REASONS) {
        PyObject *result =
            PyObject_CallFunction(self->on_drop, "OIs", item, index, weir_loss_name((int)reason));
        if (!result)
            ext_report_exception(self->on_drop);
        Py_XDECREF(result);
    }
    Py_DECREF((PyObject *)item);
    ext_callback_end(&callback);
}

static bool share(void *item, void **ret_item, void *ctx)
{
    (void)ctx;
    *ret_item = Py_NewRef((PyObject *)item);
    return true;
}

static uint64_t measure(void *item, weir_stage index, void *ctx)
{
    Stage *stage = ((Pipeline *)ctx)->stages[index];
    uint64_t cost = 0;
    ext_callback callback;
    ext_callback_begin(&callback);
    if (ext_queue_measure(stage->queue, item, &cost) < 0)
        stop_with_exception(stage, item);
    ext_callback_end(&callback);
    return cost;
}

static void on_workers(void *ctx, unsigned wanted)
{
    Stage *stage = ctx;
    ext_callback callback;
    ext_callback_begin(&callback);
    PyObject *result = PyObject_CallFunction(stage->on_workers, "I", wanted);
    if (!result)
        ext_report_exception(stage->on_workers);
    Py_XDECREF(result);
    ext_callback_end(&callback);
}

static void on_end(void *ctx)
{
    Pipeline *self = ctx;
    ext_callback callback;
    ext_callback_begin(&callback);
    if (self->on_end) {
        PyObject *result = PyObject_CallNoArgs(self->on_end);
        if (!result)
            ext_report_exception(self->on_end);
        Py_XDECREF(result);
    }
    ext_callback_end(&callback);
}

/* ---- threads -------------------------------------------------------------------------------- */

/* What a thread is to run; in a capsule, which the thread's callable keeps. */
typedef struct errand {
    void (*main)(void *arg);
    void *arg;
    Pipeline *pipeline; /* a reference */
} errand;

static void free_errand(PyObject *capsule)
{
    errand *e = PyCapsule_GetPointer(capsule, NULL);
    Py_DECREF(e->pipeline);
    PyMem_Free(e);
}

static PyObject *run_errand(PyObject *capsule, PyObject *Py_UNUSED(ignored))
{
    errand *e = PyCapsule_GetPointer(capsule, NULL);
    if (!e)
        return NULL;
    atomic_fetch_add_explicit(&running, 1, memory_order_relaxed);
    e->main(e->arg);
    atomic_fetch_sub_explicit(&running, 1, memory_order_relaxed);
    Py_CLEAR(raised);
    Py_RETURN_NONE;
}

static PyMethodDef errand_method = {"run_stage", run_errand, METH_NOARGS, NULL};

static PyObject *make_errand(Pipeline *self, void (*main)(void *arg), void *arg)
{
    errand *e = PyMem_Malloc(sizeof *e);
    if (!e)
        return PyErr_NoMemory();
    *e = (errand){main, arg, (Pipeline *)Py_NewRef(self)};
    PyObject *capsule = PyCapsule_New(e, NULL, free_errand);
    if (!capsule) {
        Py_DECREF(self);
        PyMem_Free(e);
        return NULL;
    }
    PyObject *callable = PyCFunction_New(&errand_method, capsule);
    Py_DECREF(capsule);
    return callable;
}

static int start_thread(void (*main)(void *arg), void *arg, const char *name, void *ctx)
{
    Pipeline *self = ctx;
    ext_callback callback;
    ext_callback_begin(&callback);
    PyObject *callable = make_errand(self, main, arg);
    PyObject *result =
        callable ? PyObject_CallFunction(self->start_thread, "Os", callable, name) : NULL;
    Py_XDECREF(callable);
    Py_XDECREF(result);
    if (!result)
        PyErr_Clear(); /* no thread to be had: libweir says so */
    ext_callback_end(&callback);
    return result ? 0 : WEIR_ESPAWN;
}

/* ---- building ------------------------------------------------------------------------------- */

static PyObject *refuse(Pipeline *self, int rc)
{
    if (rc == WEIR_EINVAL || rc == WEIR_EDEADLK)
        return PyErr_Format(PyExc_ValueError, "%s", weir_pipeline_trouble(self->pipeline));
    if (rc == WEIR_EFULL)
        return PyErr_Format(PyExc_ValueError,
                            "a pipeline has at most %d stages (each worker of a "
                            "stage with key= is one)",
                            WEIR_STAGES_MAX);
    return ext_raise(self->state, rc);
}

static PyObject *Pipeline_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"name",   "on_drop",    "start_thread",
                                        "on_end", "auto_bytes", NULL};
    PyObject *drop, *start, *end;
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    unsigned long long auto_bytes;
    module_state *state = ext_state_of(type);
    if (!state || !PyArg_ParseTupleAndKeywords(args, kwargs, "sOOOK:Pipeline", (char **)names,
                                               &opts.name, &drop, &start, &end, &auto_bytes))
        return NULL;
    Pipeline *self = (Pipeline *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->state = state;
    self->generation = ext_fork_generation();
    self->on_drop = drop == Py_None ? NULL : Py_NewRef(drop);
    self->start_thread = Py_NewRef(start);
    self->on_end = end == Py_None ? NULL : Py_NewRef(end);
    opts.auto_bytes = auto_bytes;
    opts.on_drop = on_drop;
    opts.share = share;
    opts.measure = measure;
    opts.ctx = self;
    opts.before_wait = before_wait;
    opts.after_wait = after_wait;
    opts.start_thread = start_thread;
    opts.on_end = on_end;
    int rc = weir_pipeline_create(&self->pipeline, &opts);
    if (rc == WEIR_OK)
        return (PyObject *)self;
    Py_DECREF(self);
    return ext_raise(state, rc);
}

static PyObject *none_to_null(PyObject *value)
{
    return value == Py_None ? NULL : value;
}

/* What add() is given; borrowed. */
typedef struct arguments {
    PyObject *fn, *queue, *key, *should_retry, *on_failure, *on_workers;
    PyObject *bucket, *limiter, *breaker, *governor;
    int kind, source, emits, flat, passes, measures, ordered, mixes, on_error, open;
    int overflow, acknowledge, route, jitter, part_of;
    unsigned long long max_bytes;
    long long base_ns, max_ns;
    double multiplier;
} arguments;

static bool is_a(PyObject *object, PyTypeObject *type)
{
    return PyObject_TypeCheck(object, type);
}

/* The handles that libweir waits for. */
static int read_limits(Pipeline *self, const arguments *a, weir_stage_opts *opts)
{
    module_state *state = self->state;
    if (a->bucket != Py_None &&
        (!is_a(a->bucket, state->bucket_type) || !(opts->rate = ext_rate_of(a->bucket))))
        goto fail;
    if (a->limiter != Py_None &&
        (!is_a(a->limiter, state->limiter_type) || !(opts->limit = ext_limit_of(a->limiter))))
        goto fail;
    if (a->breaker != Py_None &&
        (!is_a(a->breaker, state->breaker_type) || !(opts->breaker = ext_breaker_of(a->breaker))))
        goto fail;
    if (a->governor != Py_None) {
        if (!is_a(a->governor, state->governor_type))
            goto fail;
        opts->governor = ((ext_governor *)a->governor)->governor;
    }
    return 0;
fail:
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_TypeError, "a limit is of the wrong type");
    return -1;
}

static void fill_options(Stage *stage, const arguments *a, weir_stage_opts *opts)
{
    opts->kind = (weir_stage_kind)a->kind;
    opts->source = a->source;
    opts->ctx = stage;
    opts->fn = a->source ? next_of_source : a->passes ? pass_on : call;
    if (opts->kind == WEIR_STAGE_EXTERNAL)
        opts->fn = NULL;
    opts->is_part = a->part_of >= 0;
    opts->part_of = a->part_of >= 0 ? (weir_stage)a->part_of : 0;
    opts->ordered = a->ordered;
    opts->open = a->open;
    opts->acknowledge = a->acknowledge;
    opts->overflow = (weir_overflow)a->overflow;
    opts->max_cost = a->max_bytes;
    opts->route = (weir_route)a->route;
    opts->key = a->key == Py_None ? NULL : key_of;
    opts->backoff = (weir_backoff)WEIR_BACKOFF_INIT;
    opts->backoff.base_ns = a->base_ns;
    opts->backoff.max_ns = a->max_ns;
    opts->backoff.multiplier = a->multiplier;
    opts->backoff.jitter = (weir_jitter)a->jitter;
    opts->on_error = (weir_on_error)a->on_error;
    opts->on_failure = opts->kind == WEIR_STAGE_EXTERNAL ? NULL : on_failure;
    opts->on_workers = a->on_workers == Py_None ? NULL : on_workers;
}

static void free_stage(Stage *stage)
{
    if (!stage)
        return;
    Py_XDECREF(stage->fn);
    Py_XDECREF(stage->key);
    Py_XDECREF(stage->should_retry);
    Py_XDECREF(stage->on_failure);
    Py_XDECREF(stage->on_workers);
    Py_XDECREF(stage->limits);
    Py_XDECREF((PyObject *)stage->queue);
    PyMem_Free(stage);
}

static Stage *make_stage(Pipeline *self, const arguments *a, size_t batch)
{
    Stage *stage = PyMem_Calloc(1, sizeof *stage);
    if (!stage) {
        PyErr_NoMemory();
        return NULL;
    }
    stage->pipeline = self;
    stage->index = self->n;
    stage->fn = Py_XNewRef(none_to_null(a->fn));
    stage->key = Py_XNewRef(none_to_null(a->key));
    stage->should_retry = Py_XNewRef(none_to_null(a->should_retry));
    stage->on_failure = Py_XNewRef(none_to_null(a->on_failure));
    stage->on_workers = Py_XNewRef(none_to_null(a->on_workers));
    stage->queue = (Queue *)Py_XNewRef(none_to_null(a->queue));
    stage->takes_batch = batch > 0;
    stage->emits = a->emits;
    stage->is_flat = a->flat;
    stage->mixes_key = a->mixes;
    stage->halts = a->on_error == WEIR_ON_ERROR_HALT;
    stage->limits = PyTuple_Pack(4, a->bucket, a->limiter, a->breaker, a->governor);
    if (stage->limits)
        return stage;
    free_stage(stage);
    return NULL;
}

static int add(Pipeline *self, Stage *stage, const arguments *a, weir_stage_opts *opts)
{
    if (a->source && a->kind != WEIR_STAGE_EXTERNAL && !PyIter_Check(a->fn)) {
        PyErr_SetString(PyExc_TypeError, "a source must be an iterator");
        return -1;
    }
    if (stage->queue) {
        if (!is_a(a->queue, self->state->queue_type)) {
            PyErr_SetString(PyExc_TypeError, "a stage needs a weir.Queue");
            return -1;
        }
        if (!(opts->borrowed = ext_queue_lend(stage->queue)))
            return -1;
    }
    if (read_limits(self, a, opts) < 0)
        return -1;
    fill_options(stage, a, opts);
    weir_stage index;
    int rc = weir_pipeline_add(self->pipeline, opts, &index);
    if (rc >= 0)
        return 0;
    refuse(self, rc);
    return -1;
}

PyDoc_STRVAR(add_doc, "add($self, /, **options)\n--\n\n"
                      "One more stage, as weir_stage_opts has it; its number.");

static PyObject *Pipeline_add(Pipeline *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"name",
                                        "kind",
                                        "fn",
                                        "source",
                                        "emits",
                                        "flat",
                                        "passes",
                                        "batch",
                                        "linger_ns",
                                        "queue",
                                        "size",
                                        "max_bytes",
                                        "overflow",
                                        "acknowledge",
                                        "put_timeout_ns",
                                        "workers",
                                        "workers_min",
                                        "workers_max",
                                        "ordered",
                                        "window",
                                        "route",
                                        "key",
                                        "mixes",
                                        "bucket",
                                        "limiter",
                                        "breaker",
                                        "governor",
                                        "governor_bytes",
                                        "attempts",
                                        "base_ns",
                                        "max_ns",
                                        "multiplier",
                                        "jitter",
                                        "should_retry",
                                        "on_error",
                                        "dead_letter",
                                        "on_failure",
                                        "on_workers",
                                        "part_of",
                                        "open",
                                        NULL};
    arguments a = {0};
    weir_stage_opts opts = WEIR_STAGE_OPTS_INIT;
    Py_ssize_t batch, size, window;
    long long linger_ns, put_timeout_ns;
    unsigned long long governor_bytes;
    if (!is_usable(self) ||
        !PyArg_ParseTupleAndKeywords(
            args, kwargs,
            "$siOpppp"
            "nLOnKipL"
            "IIIpni"
            "OpOOOOKILLdiOiIOOip:add",
            (char **)names, &opts.name, &a.kind, &a.fn, &a.source, &a.emits, &a.flat, &a.passes,
            &batch, &linger_ns, &a.queue, &size, &a.max_bytes, &a.overflow, &a.acknowledge,
            &put_timeout_ns, &opts.workers, &opts.workers_min, &opts.workers_max, &a.ordered,
            &window, &a.route, &a.key, &a.mixes, &a.bucket, &a.limiter, &a.breaker, &a.governor,
            &governor_bytes, &opts.attempts, &a.base_ns, &a.max_ns, &a.multiplier, &a.jitter,
            &a.should_retry, &a.on_error, &opts.dead_letter, &a.on_failure, &a.on_workers,
            &a.part_of, &a.open))
        return NULL;
    if (self->n == WEIR_STAGES_MAX)
        return refuse(self, WEIR_EFULL);
    opts.batch = batch > 0 ? (size_t)batch : 1;
    opts.linger_ns = linger_ns;
    opts.queue = size < 0 ? WEIR_AUTO_QUEUE : (size_t)size;
    opts.window = (size_t)window;
    opts.put_timeout_ns = put_timeout_ns;
    opts.governor_bytes = governor_bytes;
    Stage *stage = make_stage(self, &a, (size_t)(batch > 0 ? batch : 0));
    if (!stage)
        return NULL;
    if (add(self, stage, &a, &opts) < 0) {
        free_stage(stage);
        return NULL;
    }
    self->stages[self->n] = stage;
    return PyLong_FromUnsignedLong(self->n++);
}

static PyObject *Pipeline_connect(Pipeline *self, PyObject *args)
{
    unsigned from, to;
    if (!is_usable(self) || !PyArg_ParseTuple(args, "II:connect", &from, &to))
        return NULL;
    int rc = weir_pipeline_connect(self->pipeline, from, to);
    return rc < 0 ? refuse(self, rc) : Py_NewRef(Py_None);
}

static PyObject *Pipeline_start(Pipeline *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    int rc = weir_pipeline_start(self->pipeline);
    if (rc == WEIR_ESPAWN) {
        PyErr_SetString(PyExc_RuntimeError, "can't start new thread for a worker of the pipeline");
        return NULL;
    }
    return rc < 0 ? refuse(self, rc) : Py_NewRef(Py_None);
}

/* ---- running -------------------------------------------------------------------------------- */

static bool is_stage(Pipeline *self, unsigned stage)
{
    if (stage < self->n)
        return true;
    PyErr_Format(PyExc_ValueError, "there is no stage number %u", stage);
    return false;
}

/* A call of libweir that may wait is between the two; Queue's drops take the GIL by themselves. */
static void begin_outside(Pipeline *self, ext_wait *wait)
{
    self->inside++;
    ext_wait_begin(wait);
}

static void end_outside(Pipeline *self, ext_wait *wait)
{
    ext_wait_end(wait);
    self->inside--;
}

static PyObject *raise_put(Stage *stage, int rc, uint64_t cost)
{
    if (rc == WEIR_EDEADLK)
        return PyErr_Format(PyExc_RuntimeError, "%s",
                            "this put would wait for itself: its stage is full, and feeds the "
                            "stage that puts; give the item another way, or a larger queue");
    return ext_queue_raise_put(stage->queue, rc, cost);
}

static PyObject *Pipeline_put(Pipeline *self, PyObject *args)
{
    unsigned index;
    PyObject *item, *timeout;
    int64_t timeout_ns;
    uint64_t cost = 0;
    if (!is_usable(self) || !PyArg_ParseTuple(args, "IOO:put", &index, &item, &timeout) ||
        ext_parse_timeout(timeout, "timeout", &timeout_ns) < 0 || !is_stage(self, index))
        return NULL;
    Stage *stage = self->stages[index];
    if (ext_queue_measure(stage->queue, item, &cost) < 0)
        return NULL;
    Py_INCREF(item);
    int rc = weir_pipeline_put(self->pipeline, index, item, cost, WEIR_POLL);
    if (rc == WEIR_EFULL && stage->queue->overflow == WEIR_OVERFLOW_BLOCK && timeout_ns > 0) {
        weir_time deadline = ext_deadline(timeout_ns);
        ext_wait wait;
        begin_outside(self, &wait);
        rc = weir_pipeline_put(self->pipeline, index, item, cost, deadline);
        end_outside(self, &wait);
        if (rc >= 0 && PyErr_Occurred())
            return NULL; /* a signal handler raised while the put succeeded */
    }
    if (rc >= 0)
        Py_RETURN_NONE;
    Py_DECREF(item);
    return raise_put(stage, rc, cost);
}

static PyObject *Pipeline_close_input(Pipeline *self, PyObject *arg)
{
    unsigned long stage = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred() || !is_usable(self) || !is_stage(self, (unsigned)stage))
        return NULL;
    weir_pipeline_close_input(self->pipeline, (weir_stage)stage);
    Py_RETURN_NONE;
}

static PyObject *Pipeline_emit(Pipeline *self, PyObject *args)
{
    unsigned index;
    PyObject *item;
    if (!is_usable(self) || !PyArg_ParseTuple(args, "IO:emit", &index, &item) ||
        !is_stage(self, index))
        return NULL;
    Stage *stage = self->stages[index];
    int rc = 0;
    if (stage->emits && stage->is_flat) {
        PyObject *iterator = PyObject_GetIter(item);
        PyObject *one;
        if (!iterator)
            return NULL;
        while ((one = PyIter_Next(iterator)))
            weir_pipeline_emit(self->pipeline, index, one, 0);
        Py_DECREF(iterator);
    } else if (stage->emits) {
        rc = weir_pipeline_emit(self->pipeline, index, Py_NewRef(item), 0);
    }
    if (PyErr_Occurred())
        return NULL;
    return PyLong_FromLong(rc);
}

static PyObject *Pipeline_route(Pipeline *self, PyObject *args)
{
    unsigned index;
    PyObject *item;
    weir_stage targets[WEIR_STAGES_MAX];
    if (!is_usable(self) || !PyArg_ParseTuple(args, "IO:route", &index, &item))
        return NULL;
    int n = weir_pipeline_route(self->pipeline, index, item, targets, WEIR_STAGES_MAX);
    if (n < 0)
        return ext_raise(self->state, n);
    PyObject *list = PyList_New(n);
    for (int i = 0; list && i < n; i++) {
        PyObject *number = PyLong_FromUnsignedLong(targets[i]);
        if (!number)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, number);
    }
    return list;
}

static PyObject *Pipeline_account(Pipeline *self, PyObject *args)
{
    unsigned index, target;
    const char *outcome;
    double blocked;
    if (!is_usable(self) ||
        !PyArg_ParseTuple(args, "IIsd:account", &index, &target, &outcome, &blocked))
        return NULL;
    int rc = !strcmp(outcome, "kept")      ? WEIR_KEPT
             : !strcmp(outcome, "timeout") ? WEIR_ETIMEDOUT
             : !strcmp(outcome, "refused") ? WEIR_EFULL
                                           : WEIR_ECLOSED;
    weir_pipeline_account(self->pipeline, index, target, rc, (int64_t)(blocked * 1e9));
    Py_RETURN_NONE;
}

static PyObject *Pipeline_report(Pipeline *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"stage", "processed", "retried", "busy",
                                        "idle",  "held",      "workers", NULL};
    unsigned index;
    unsigned long long processed = 0, retried = 0;
    double busy = 0, idle = 0;
    PyObject *held = NULL;
    weir_work work = WEIR_WORK_INIT;
    if (!is_usable(self) ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "I|$KKddOI:report", (char **)names, &index,
                                     &processed, &retried, &busy, &idle, &held, &work.workers))
        return NULL;
    work.processed = processed;
    work.retried = retried;
    work.busy_ns = (uint64_t)(busy * 1e9);
    work.idle_ns = (uint64_t)(idle * 1e9);
    for (int i = 0; held && i < WEIR_CAUSES; i++) {
        PyObject *seconds = PyDict_GetItemString(held, weir_cause_name(i));
        if (seconds)
            work.held_ns[i] = (uint64_t)(PyFloat_AsDouble(seconds) * 1e9);
    }
    if (PyErr_Occurred())
        return NULL;
    int rc = weir_pipeline_report(self->pipeline, index, &work);
    return rc < 0 ? ext_raise(self->state, rc) : Py_NewRef(Py_None);
}

static PyObject *Pipeline_end_stage(Pipeline *self, PyObject *arg)
{
    unsigned long stage = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred() || !is_usable(self))
        return NULL;
    int rc = weir_pipeline_end_stage(self->pipeline, (weir_stage)stage);
    return rc < 0 ? ext_raise(self->state, rc) : Py_NewRef(Py_None);
}

PyDoc_STRVAR(fail_doc, "fail($self, stage, item, error, /)\n--\n\n"
                       "Of an external stage: its item, which was taken, has failed for good.");

static PyObject *Pipeline_fail(Pipeline *self, PyObject *args)
{
    unsigned index;
    PyObject *item, *error;
    if (!is_usable(self) || !PyArg_ParseTuple(args, "IOO:fail", &index, &item, &error) ||
        !is_stage(self, index))
        return NULL;
    void *one = item;
    judge(self->stages[index], &one, 1, error);
    int rc = weir_pipeline_fail(self->pipeline, index, Py_NewRef(item), WEIR_ESYSTEM);
    if (rc < 0)
        Py_DECREF(item);
    return rc < 0 ? ext_raise(self->state, rc) : Py_NewRef(Py_None);
}

/* Of an external stage: its item will not be worked on; in a pipeline that is halted. */
static PyObject *Pipeline_drop(Pipeline *self, PyObject *args)
{
    unsigned index;
    PyObject *item;
    if (!is_usable(self) || !PyArg_ParseTuple(args, "IO:drop", &index, &item) ||
        !is_stage(self, index))
        return NULL;
    int rc = weir_pipeline_drop(self->pipeline, index, Py_NewRef(item), WEIR_LOSS_DISCARDED);
    if (rc < 0)
        Py_DECREF(item);
    return rc < 0 ? ext_raise(self->state, rc) : Py_NewRef(Py_None);
}

/* An external stage or source cannot go on: whatever it is, it stops the pipeline. */
static PyObject *Pipeline_break_down(Pipeline *self, PyObject *args)
{
    unsigned index;
    PyObject *error;
    if (!is_usable(self) || !PyArg_ParseTuple(args, "IO:break_down", &index, &error) ||
        !is_stage(self, index))
        return NULL;
    keep_error(self, error, index, NULL);
    weir_pipeline_halt(self->pipeline);
    Py_RETURN_NONE;
}

/* ---- ending --------------------------------------------------------------------------------- */

static PyObject *Pipeline_wait(Pipeline *self, PyObject *timeout)
{
    int64_t timeout_ns;
    if (ext_parse_timeout(timeout, "timeout", &timeout_ns) < 0 || !is_usable(self))
        return NULL;
    weir_time deadline = ext_deadline(timeout_ns);
    ext_wait wait;
    begin_outside(self, &wait);
    int rc = weir_pipeline_wait(self->pipeline, deadline);
    end_outside(self, &wait);
    if (PyErr_Occurred())
        return NULL;
    if (rc == WEIR_EDEADLK || rc == WEIR_EINVAL) {
        PyErr_SetString(PyExc_RuntimeError, rc == WEIR_EDEADLK
                                                ? "a stage cannot wait for the end of its pipeline"
                                                : "the pipeline has not been started");
        return NULL;
    }
    return PyBool_FromLong(rc != WEIR_ETIMEDOUT);
}

static PyObject *Pipeline_stop(Pipeline *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    weir_pipeline_stop(self->pipeline);
    Py_RETURN_NONE;
}

static PyObject *Pipeline_halt(Pipeline *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    atomic_store_explicit(&self->stopped, true, memory_order_relaxed);
    weir_pipeline_halt(self->pipeline);
    Py_RETURN_NONE;
}

/* ---- looking -------------------------------------------------------------------------------- */

static PyObject *by_cause(const double seconds[WEIR_CAUSES])
{
    PyObject *dict = PyDict_New();
    for (int i = 0; dict && i < WEIR_CAUSES; i++) {
        PyObject *value = PyFloat_FromDouble(seconds[i]);
        if (!value || PyDict_SetItemString(dict, weir_cause_name(i), value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(value);
    }
    return dict;
}

static PyObject *by_loss(const uint64_t counts[WEIR_LOSS_REASONS])
{
    PyObject *dict = PyDict_New();
    for (int i = 0; dict && i < WEIR_LOSS_REASONS; i++) {
        PyObject *value = PyLong_FromUnsignedLongLong(counts[i]);
        if (!value || PyDict_SetItemString(dict, weir_loss_name(i), value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(value);
    }
    return dict;
}

static PyObject *Pipeline_snapshot(Pipeline *self, PyObject *arg)
{
    unsigned long index = PyLong_AsUnsignedLong(arg);
    weir_stage_snapshot now = WEIR_STAGE_SNAPSHOT_INIT;
    if (PyErr_Occurred() || !is_usable(self))
        return NULL;
    /* Without the GIL: the pipeline's thread may hold its lock and want the GIL, for a spill's loads. */
    ext_wait wait;
    begin_outside(self, &wait);
    int rc = weir_pipeline_get_snapshot(self->pipeline, (weir_stage)index, &now);
    end_outside(self, &wait);
    if (rc < 0)
        return ext_raise(self->state, rc);
    double held[WEIR_CAUSES], charged[WEIR_CAUSES];
    for (int i = 0; i < WEIR_CAUSES; i++) {
        held[i] = (double)now.held_ns[i] / 1e9;
        charged[i] = now.charged_ns[i] / 1e9;
    }
    return Py_BuildValue(
        "{sI sI sn sn sn sK sn sK sK sK sK sK sK sd sd sd sd sN sN sN sO}", "workers", now.workers,
        "workers_peak", now.workers_peak, "queue_size", (Py_ssize_t)now.queue, "qsize",
        (Py_ssize_t)now.depth, "peak_qsize", (Py_ssize_t)now.peak_depth, "spilled",
        (unsigned long long)now.spilled, "in_hand", (Py_ssize_t)now.in_hand, "accepted",
        (unsigned long long)now.accepted, "processed", (unsigned long long)now.processed, "failed",
        (unsigned long long)now.failed, "retried", (unsigned long long)now.retried, "emitted",
        (unsigned long long)now.emitted, "waits", (unsigned long long)now.waits, "busy",
        (double)now.busy_ns / 1e9, "idle", (double)now.idle_ns / 1e9, "blocked",
        (double)now.blocked_ns / 1e9, "pressed", (double)now.pressed_ns / 1e9, "held",
        by_cause(held), "charged", by_cause(charged), "dropped", by_loss(now.dropped), "ended",
        now.ended ? Py_True : Py_False);
}

static PyObject *Pipeline_verdict(Pipeline *self, PyObject *Py_UNUSED(ignored))
{
    weir_verdict verdict = WEIR_VERDICT_INIT;
    if (!is_usable(self))
        return NULL;
    ext_wait wait; /* as above */
    begin_outside(self, &wait);
    int rc = weir_pipeline_get_verdict(self->pipeline, &verdict);
    end_outside(self, &wait);
    if (rc < 0)
        return ext_raise(self->state, rc);
    int stage = verdict.stage == WEIR_NO_STAGE ? -1 : (int)verdict.stage;
    return Py_BuildValue("(isds)", stage, weir_cause_name((int)verdict.cause), verdict.share,
                         verdict.text);
}

static PyObject *Pipeline_get_error(Pipeline *self, void *Py_UNUSED(closure))
{
    EXT_LOCK(&self->lock);
    PyObject *error = Py_XNewRef(self->error);
    EXT_UNLOCK(&self->lock);
    return error ? error : Py_NewRef(Py_None);
}

/* ---- end ------------------------------------------------------------------------------------ */

static int Pipeline_traverse(Pipeline *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->on_drop);
    Py_VISIT(self->start_thread);
    Py_VISIT(self->on_end);
    Py_VISIT(self->error);
    for (unsigned i = 0; i < self->n; i++) {
        Stage *stage = self->stages[i];
        Py_VISIT(stage->fn);
        Py_VISIT(stage->key);
        Py_VISIT(stage->should_retry);
        Py_VISIT(stage->on_failure);
        Py_VISIT(stage->on_workers);
        Py_VISIT(stage->limits);
        Py_VISIT(stage->queue);
    }
    return 0;
}

/* No thread is inside: each of them would keep it.  Who still waits for external stages is let go. */
static int Pipeline_clear(Pipeline *self)
{
    bool is_ours = self->generation == ext_fork_generation();
    Py_CLEAR(self->on_drop);
    Py_CLEAR(self->on_end);
    if (self->pipeline && is_ours && self->inside == 0) {
        weir_pipeline *pipeline = self->pipeline;
        self->pipeline = NULL;
        weir_pipeline_halt(pipeline);
        weir_pipeline_destroy(pipeline);
    }
    Py_CLEAR(self->start_thread);
    Py_CLEAR(self->error);
    if (self->pipeline && is_ours)
        return 0; /* a daemon thread waits that has no interpreter left */
    unsigned n = self->n;
    self->n = 0;
    for (unsigned i = 0; i < n; i++) {
        Stage *stage = self->stages[i];
        self->stages[i] = NULL;
        free_stage(stage);
    }
    return 0;
}

static void Pipeline_dealloc(Pipeline *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs)
        PyObject_ClearWeakRefs((PyObject *)self);
    Pipeline_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"add", (PyCFunction)(void (*)(void))Pipeline_add, METH_VARARGS | METH_KEYWORDS, add_doc},
    {"connect", (PyCFunction)Pipeline_connect, METH_VARARGS, NULL},
    {"start", (PyCFunction)Pipeline_start, METH_NOARGS, NULL},
    {"put", (PyCFunction)Pipeline_put, METH_VARARGS, NULL},
    {"close_input", (PyCFunction)Pipeline_close_input, METH_O, NULL},
    {"emit", (PyCFunction)Pipeline_emit, METH_VARARGS, NULL},
    {"route", (PyCFunction)Pipeline_route, METH_VARARGS, NULL},
    {"account", (PyCFunction)Pipeline_account, METH_VARARGS, NULL},
    {"report", (PyCFunction)(void (*)(void))Pipeline_report, METH_VARARGS | METH_KEYWORDS, NULL},
    {"end_stage", (PyCFunction)Pipeline_end_stage, METH_O, NULL},
    {"fail", (PyCFunction)Pipeline_fail, METH_VARARGS, fail_doc},
    {"drop", (PyCFunction)Pipeline_drop, METH_VARARGS, NULL},
    {"break_down", (PyCFunction)Pipeline_break_down, METH_VARARGS, NULL},
    {"wait", (PyCFunction)Pipeline_wait, METH_O, NULL},
    {"stop", (PyCFunction)Pipeline_stop, METH_NOARGS, NULL},
    {"halt", (PyCFunction)Pipeline_halt, METH_NOARGS, NULL},
    {"snapshot", (PyCFunction)Pipeline_snapshot, METH_O, NULL},
    {"verdict", (PyCFunction)Pipeline_verdict, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"error", (getter)Pipeline_get_error, NULL,
     "(exception, number of the stage, item) of what stopped it, or None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Pipeline, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)"The stages of a weir.Pipeline, by their numbers."},
    {Py_tp_new, Pipeline_new},
    {Py_tp_dealloc, Pipeline_dealloc},
    {Py_tp_traverse, Pipeline_traverse},
    {Py_tp_clear, Pipeline_clear},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_tp_members, members},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "weir._weir.Pipeline",
    .basicsize = sizeof(Pipeline),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int ext_pipeline_types_add(PyObject *module, module_state *state)
{
    (void)state;
    PyTypeObject *type;
    if (ext_add_type(module, &spec, &type) < 0)
        return -1;
    Py_DECREF(type); /* the module keeps it */
    return 0;
}
