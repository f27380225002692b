/* thread_pool.c - the heart of weir.ThreadPoolExecutor: weir._weir.ThreadPool, which the worker
 * threads share; weir._weir.TaskFuture, the future of a task and its place in the line; and
 * weir._weir.ThreadExecutor, the part of the executor that submits.
 *
 * Bound:      accepted and not finished <= backlog + workers, always: a task has one permit from
 *             before it is accepted until it has finished, was cancelled or dropped.  A permit that
 *             comes free goes to the submitter that has waited longest.
 * Order:      tasks start in the order they were accepted; workers take one at a time, so that a
 *             task that takes its time keeps no other from starting.
 * Ownership:  the line has a reference to each task in it; a task refers to its pool until it is
 *             done.
 * Signals:    a handler runs in Python code only, so what belongs together is in one piece of C
 *             without any.  When a call is interrupted, nothing of it has happened; or all, and
 *             who had to be told was told.
 * Locks:      `lock` (or the GIL) guards all fields.  A future's lock is taken first.
 * Memory:     where there is a governor, a worker has a task's bytes reserved before it takes one out
 *             of the line, and gives them back when the task has run.  So what waits for memory is in
 *             the line, where it can be cancelled; and a worker waits only while something is.
 * Fork:       in a forked child everything raises, or does nothing.
 *
 * Which worker is called, and when: a worker that is called for each task would only fight with
 * the submitter for the GIL.  So one that is coming is enough; it calls the next as it takes a task,
 * if more are waiting.  While tasks are short (history), a busy worker is as good as one that is
 * coming, and the next one only keeps guard: without the GIL it looks every GUARD_PERIOD whether
 * tasks are still completed, and works when they are not.
 */
#include "future.h"

#include "governor.h"

#include <time.h>
#include <unistd.h>

/* A task that takes less is not worth waking a thread for. */
#define SHORT_TASK_NS (20 * WEIR_MILLISECOND / 1000)
#define GUARD_PERIOD  (100 * WEIR_MILLISECOND / 1000)
#define GUARD_ROUNDS  10 /* without a task in line, then it is an idle worker again */

typedef enum { BLOCK, FAIL, DROP_NEWEST, DROP_OLDEST, CALLER_RUNS } OnFull;
typedef enum { OPEN, SHUT_DOWN, EXITING } Phase;

typedef struct Task {
    ext_future future;             /* its completer is the pool */
    PyObject *fn, *args, *kwnames; /* args: of a vectorcall, in a tuple; NULL: none */
    struct Task *prev, *next;
    bool queued;
    weir_time since; /* in line; 0: its wait is not timed */
    uint64_t stands_for;
} Task;

typedef struct Worker {
    ext_bell bell;
    struct Worker *next; /* idle */
    atomic_bool called;  /* to take a task, or to end; written under the lock, then it is rung */
    uint64_t reserved;   /* bytes, for its task */
    bool is_alone;       /* its task is the one without, at exit */
} Worker;

/* On the heap: see ext_future_waiter; or, of a coroutine, in its place's weir_pending. */
typedef struct Submitter {
    ext_bell bell;
    struct Submitter *next;
    bool in_line, has_permit;
    weir_pending *place; /* NULL: a thread */
    weir_time since;     /* of a coroutine: when it came */
} Submitter;

_Static_assert(sizeof(Submitter) <= sizeof(((weir_pending *)NULL)->opaque), "a Submitter fits");

typedef struct ThreadPool {
    ext_completer head; /* turns.pending is how many are in line */
    module_state *state;
    PyObject *name, *timeout;     /* as given */
    PyObject *threads, *enrolled; /* sets of threading.Thread: all; those that have begun */
    PyObject *broken;             /* what the initializer raised */
    PyObject *memory;             /* the MemoryGovernor; NULL: none */
    ext_governor *governor;       /* its core */
    uint64_t task_bytes;
    int64_t timeout_ns;
    size_t max_workers, backlog, limit; /* limit: backlog + workers; WEIR_UNBOUNDED */
    long pid;
    unsigned generation;
    OnFull on_full;

    ext_line line; /* coroutines that wait */

    ext_lock lock;
    Phase phase;
    Task *first, *last;
    size_t permits_out;
    Submitter *first_submitter, **last_submitter;
    Submitter *told, **last_told; /* coroutines that are served, and not told yet */
    size_t submitters;
    int64_t blocked_ns;
    /* Every worker is one of: starting (not in work()), idle or guard, coming, busy with a task. */
    size_t workers, starting, n_idle, coming, busy;
    size_t running; /* as busy, but without those in callbacks: their tasks have finished */
    Worker *idle, *guard;
    size_t blocked_workers; /* that wait for room themselves */
    /* Written under the lock; relaxed: who waits for memory looks without it, and then again. */
    atomic_bool exits, runs_alone; /* runs_alone: a task without memory, because of the exit */
    uint8_t history;               /* of the last 8 tasks: 1 where it was short */
    struct {                       /* a backlog that finds its own size; see grow */
        bool on, pressed;          /* pressed: somebody found no room since a worker ran dry last */
        size_t least;
        weir_time at;   /* when it was set last ... */
        uint64_t after; /* ... and how many tasks had finished then */
        const char *why;
    } size;
    bool has_warned;
    uint64_t accepted, finished, cancelled, refused, caller_ran;
    uint64_t busy_ns; /* of tasks that ran */
    uint64_t dropped_newest, dropped_oldest, dropped_broken;
    /* for other processes; see "what others see" */
    weir_teller *teller; /* NULL: they see nothing */
    uint64_t taken;      /* out of the line, to be run */
    uint64_t let_go;     /* of those: cancelled */
    uint64_t unaccepted; /* was accepted, and is not */
    uint64_t waits;      /* submits that waited */
} ThreadPool;

static _Thread_local ThreadPool *working_for; /* the pool whose worker this thread is */

#define PENDING(pool) (&(pool)->head.turns.pending)

static size_t pending(ThreadPool *pool)
{
    return atomic_load_explicit(PENDING(pool), memory_order_relaxed);
}

/* ---- what others see ------------------------------------------------------------------------
 *
 * Told under the lock, by whoever has changed it, and as counters that never go back: so a task counts as
 * delivered when a worker has taken it, and one whose worker could not be started as cancelled.
 */

/* What every task goes through tells one number. */
static void tell(ThreadPool *pool, weir_stats_number number, uint64_t value)
{
    weir_teller_tell(pool->teller, &(weir_told){number, value}, 1);
}

static void tell_accepted(ThreadPool *pool)
{
    tell(pool, WEIR_STATS_ACCEPTED, pool->accepted + pool->unaccepted);
}

static void tell_done(ThreadPool *pool)
{
    tell(pool, WEIR_STATS_BUSY_NS, pool->busy_ns);
    tell(pool, WEIR_STATS_DONE, pool->finished + pool->let_go);
}

static void tell_all(ThreadPool *pool)
{
    const weir_told now[] = {
        {WEIR_STATS_ACCEPTED, pool->accepted + pool->unaccepted},
        {WEIR_STATS_DELIVERED, pool->taken},
        {WEIR_STATS_DONE, pool->finished + pool->let_go},
        {WEIR_STATS_REPORTS_DONE, 1},
        {WEIR_STATS_CANCELLED, pool->cancelled - pool->let_go + pool->unaccepted},
        {WEIR_STATS_DROPPED_NEWEST, pool->dropped_newest},
        {WEIR_STATS_DROPPED_OLDEST, pool->dropped_oldest},
        {WEIR_STATS_DROPPED_DISCARDED, pool->dropped_broken},
        {WEIR_STATS_REFUSED, pool->refused},
        {WEIR_STATS_CAPACITY, pool->limit == WEIR_UNBOUNDED ? UINT64_MAX : pool->limit},
        {WEIR_STATS_WORKERS, pool->workers},
        {WEIR_STATS_PUT_WAITING, pool->submitters},
        {WEIR_STATS_PUT_WAITS, pool->waits},
        {WEIR_STATS_CLOSED, pool->phase != OPEN || pool->broken},
    };
    weir_teller_tell(pool->teller, now, sizeof now / sizeof *now);
}

static bool are_short(const ThreadPool *pool)
{
    return __builtin_popcount(pool->history) >= 5;
}

/* How many tasks the count-th stands for, which is timed; 0: it is not.  While tasks are long, each is; else one
 * of 64, and not the same places of each burst (multiplicative hashing: Knuth, The Art of Computer
 * Programming 6.4). */
static uint64_t weight_of(const ThreadPool *pool, uint64_t count)
{
    if (!pool->teller)
        return 0;
    if (!are_short(pool))
        return 1;
    return (uint32_t)count * 2654435761u >> 26 == 0 ? 64 : 0;
}

/* ---- refusals ------------------------------------------------------------------------------- */

static bool is_parents(ThreadPool *pool)
{
    return pool->generation != ext_fork_generation();
}

static int check_process(ThreadPool *pool)
{
    if (!is_parents(pool))
        return 0;
    PyErr_Format(PyExc_RuntimeError,
                 "this executor belongs to process %ld; a forked child has none of its workers: "
                 "make a new executor here",
                 pool->pid);
    return -1;
}

static int raise_closed(ThreadPool *pool)
{
    if (pool->broken) {
        PyObject *error = PyObject_CallMethod((PyObject *)pool, "broken_error", NULL);
        if (error)
            PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_XDECREF(error);
    } else {
        PyErr_Format(PyExc_RuntimeError, "cannot schedule new futures after %s",
                     pool->phase == EXITING ? "interpreter shutdown" : "shutdown");
    }
    return -1;
}

static int check_open(ThreadPool *pool)
{
    if (check_process(pool) < 0)
        return -1;
    return pool->phase == OPEN && !pool->broken ? 0 : raise_closed(pool);
}

/* "the backlog of 'jobs' is full (max_submit_backlog=4, workers=2)" */
static PyObject *fullness(ThreadPool *pool)
{
    PyObject *named = pool->name == Py_None ? PyUnicode_FromString("")
                                            : PyUnicode_FromFormat(" of %R", pool->name);
    if (!named)
        return NULL;
    PyObject *text =
        PyUnicode_FromFormat("the backlog%U is full (max_submit_backlog=%zu, workers=%zu)", named,
                             pool->backlog, pool->max_workers);
    Py_DECREF(named);
    return text;
}

static void count_refused(ThreadPool *pool)
{
    EXT_LOCK(&pool->lock);
    pool->refused++;
    tell_all(pool);
    EXT_UNLOCK(&pool->lock);
}

/* Raises with a sentence in which %U is the fullness; counts. */
static int refuse(ThreadPool *pool, PyObject *exception, const char *format, PyObject *argument)
{
    count_refused(pool);
    PyObject *text = fullness(pool);
    if (text && argument)
        PyErr_Format(exception, format, argument, text);
    else if (text)
        PyErr_Format(exception, format, text);
    Py_XDECREF(text);
    return -1;
}

/* ---- calling workers; under the lock -------------------------------------------------------- */

static Worker *pop_idle(ThreadPool *pool)
{
    Worker *worker = pool->idle;
    if (worker) {
        pool->idle = worker->next;
        pool->n_idle--;
    }
    return worker;
}

static void call(ThreadPool *pool, Worker *worker)
{
    worker->called = true;
    pool->coming++;
    ext_bell_ring(&worker->bell);
}

static void call_one(ThreadPool *pool)
{
    Worker *worker = pop_idle(pool);
    if (!worker) {
        worker = pool->guard;
        pool->guard = NULL;
    }
    if (worker)
        call(pool, worker);
}

static void post_guard(ThreadPool *pool)
{
    if (pool->guard)
        return;
    pool->guard = pop_idle(pool);
    if (pool->guard)
        ext_bell_ring(&pool->guard->bell);
}

/* Sees to it that the tasks in line will be taken; now: by one more worker in any case. */
static void see_to_tasks(ThreadPool *pool, bool now)
{
    if (pending(pool) == 0 || pool->coming > 0)
        return;
    if (pool->busy > 0 && !now && are_short(pool))
        post_guard(pool);
    else
        call_one(pool);
}

/* ---- permits and the line; under the lock --------------------------------------------------- */

static bool take_permit(ThreadPool *pool)
{
    if (pool->permits_out >= pool->limit) {
        pool->size.pressed = true;
        return false;
    }
    pool->permits_out++;
    return true;
}

static Submitter *pop_submitter(ThreadPool *pool)
{
    Submitter *submitter = pool->first_submitter;
    if (!submitter)
        return NULL;
    pool->first_submitter = submitter->next;
    if (!pool->first_submitter)
        pool->last_submitter = &pool->first_submitter;
    submitter->in_line = false;
    return submitter;
}

/* Its wait is over.  A coroutine is told later, without the lock: by tell_coroutines. */
static void serve(ThreadPool *pool, Submitter *submitter)
{
    if (!submitter->place) {
        ext_bell_ring(&submitter->bell);
        return;
    }
    pool->submitters--;
    pool->waits++;
    pool->blocked_ns += weir_now() - submitter->since;
    tell_all(pool);
    submitter->next = NULL;
    *pool->last_told = submitter;
    pool->last_told = &submitter->next;
}

static void give_permit_back(ThreadPool *pool)
{
    Submitter *submitter = pop_submitter(pool);
    if (!submitter) {
        pool->permits_out--;
        return;
    }
    submitter->has_permit = true;
    serve(pool, submitter);
}

/* Without the lock, by everybody who may have served some; keeps an exception that is set. */
static void tell_coroutines(ThreadPool *pool)
{
    for (;;) {
        EXT_LOCK(&pool->lock);
        Submitter *first = pool->told;
        if (first && !(pool->told = first->next))
            pool->last_told = &pool->told;
        EXT_UNLOCK(&pool->lock);
        if (!first)
            return;
        first->place->ready(first->place, first->has_permit ? WEIR_OK : WEIR_ECLOSED);
    }
}

static void set_backlog(ThreadPool *pool, size_t backlog)
{
    pool->backlog = backlog;
    pool->limit =
        backlog > WEIR_UNBOUNDED - pool->max_workers ? WEIR_UNBOUNDED : backlog + pool->max_workers;
}

/* The backlog of max_submit_backlog="auto" begins with twice the workers.  When a worker has nothing
 * to do although somebody was held back since, it was too small to bridge the time that producers
 * take to come back, and doubles: up to what is finished in 20 ms. */
#define AHEAD      (20 * WEIR_MILLISECOND)
#define MOST_AHEAD ((uint64_t)1 << 16)

static void grow(ThreadPool *pool)
{
    uint64_t finished = pool->finished - pool->size.after;
    pool->size.pressed = false;
    if (finished < pool->backlog)
        return; /* the last change has not had its effect yet */
    weir_time now = weir_now();
    uint64_t enough =
        finished < MOST_AHEAD ? finished * AHEAD / (uint64_t)(now - pool->size.at + 1) : MOST_AHEAD;
    if (enough > MOST_AHEAD)
        enough = MOST_AHEAD;
    bool is_enough = enough <= 2 * pool->backlog;
    size_t size = is_enough ? (size_t)enough : 2 * pool->backlog;
    set_backlog(pool, size > pool->size.least ? size : pool->size.least);
    tell_all(pool);
    pool->size.why = is_enough ? "20 ms of work, or twice the workers"
                               : "workers ran dry while producers waited for room";
    pool->size.at = now;
    pool->size.after = pool->finished;
    while (pool->first_submitter && pool->permits_out < pool->limit) {
        pool->permits_out++; /* which the submitter takes over */
        give_permit_back(pool);
    }
}

static void unlink_submitter(ThreadPool *pool, Submitter *submitter)
{
    for (Submitter **at = &pool->first_submitter; *at; at = &(*at)->next) {
        if (*at != submitter)
            continue;
        *at = submitter->next;
        if (!*at)
            pool->last_submitter = at;
        submitter->in_line = false;
        return;
    }
}

static void set_pending(ThreadPool *pool, size_t n)
{
    atomic_store_explicit(PENDING(pool), n, memory_order_relaxed);
}

static void append(ThreadPool *pool, Task *task)
{
    Py_INCREF(task);
    task->queued = true;
    task->stands_for = weight_of(pool, pool->accepted);
    task->since = task->stands_for > 0 ? weir_now() : 0;
    task->prev = pool->last;
    if (pool->last)
        pool->last->next = task;
    else
        pool->first = task;
    pool->last = task;
    set_pending(pool, pending(pool) + 1);
    pool->accepted++;
}

/* The line's reference is the caller's now. */
static void unlink_task(ThreadPool *pool, Task *task)
{
    *(task->prev ? &task->prev->next : &pool->first) = task->next;
    *(task->next ? &task->next->prev : &pool->last) = task->prev;
    task->prev = task->next = NULL;
    task->queued = false;
    set_pending(pool, pending(pool) - 1);
}

/* ---- tasks ---------------------------------------------------------------------------------- */

/* A call of fn with the arguments of a vectorcall. */
static Task *new_task(ThreadPool *pool, PyObject *fn, PyObject *const *args, Py_ssize_t n_args,
                      PyObject *kwnames)
{
    Task *task = (Task *)ext_future_new(pool->state->task_future_type);
    if (!task)
        return NULL;
    Py_ssize_t n = n_args + (kwnames ? PyTuple_GET_SIZE(kwnames) : 0);
    if (n > 0) {
        task->args = PyTuple_New(n);
        if (!task->args) {
            Py_DECREF(task);
            return NULL;
        }
        for (Py_ssize_t i = 0; i < n; i++)
            PyTuple_SET_ITEM(task->args, i, Py_NewRef(args[i]));
    }
    task->fn = Py_NewRef(fn);
    task->kwnames = Py_XNewRef(kwnames);
    task->future.completer = (ext_completer *)Py_NewRef((PyObject *)pool);
    return task;
}

static PyObject *call_task(Task *task)
{
    if (!task->args)
        return PyObject_CallNoArgs(task->fn);
    Py_ssize_t n = PyTuple_GET_SIZE(task->args);
    if (task->kwnames)
        n -= PyTuple_GET_SIZE(task->kwnames);
    return PyObject_Vectorcall(task->fn, &PyTuple_GET_ITEM(task->args, 0), (size_t)n,
                               task->kwnames);
}

static void forget_call(Task *task)
{
    Py_CLEAR(task->fn);
    Py_CLEAR(task->args);
    Py_CLEAR(task->kwnames);
}

static void forget_pool(Task *task)
{
    EXT_LOCK(&task->future.lock);
    ext_completer *pool = task->future.completer;
    task->future.completer = NULL;
    EXT_UNLOCK(&task->future.lock);
    Py_XDECREF((PyObject *)pool);
}

/* Takes a task out of the line, cancelled (exception NULL) or with an exception, and counts it in
 * *count.  *ret_left: it was still there.  keep: its permit is the caller's then.  -1: an exception,
 * also when it left and somebody who was told has raised. */
static int leave(ThreadPool *pool, Task *task, PyObject *exception, uint64_t *count, bool keep,
                 bool *ret_left)
{
    ext_future_change change;
    *ret_left = false;
    if (ext_future_begin(&change, &task->future) < 0)
        return -1;
    EXT_LOCK(&pool->lock);
    bool left = *ret_left = task->queued;
    if (left) {
        unlink_task(pool, task);
        (*count)++;
        if (!keep)
            give_permit_back(pool); /* before the callbacks, which may submit */
        tell_all(pool);
    }
    EXT_UNLOCK(&pool->lock);
    if (!left)
        return ext_future_abandon(&change);
    ext_future_state state = ext_future_get_state(&task->future);
    if (exception && state == EXT_PENDING)
        ext_future_set(&change, EXT_FINISHED, NULL, Py_NewRef(exception));
    else if (state != EXT_FINISHED)
        ext_future_set(&change, EXT_CANCELLED_AND_NOTIFIED, NULL, NULL);
    int rc = ext_future_end(&change, pool->state);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    tell_coroutines(pool);
    forget_call(task);
    forget_pool(task);
    Py_DECREF(task);
    PyErr_Restore(type, value, traceback);
    return rc;
}

/* ---- submitting ----------------------------------------------------------------------------- */

static PyObject *start_thread(ThreadPool *pool)
{
    PyObject *thread = PyObject_CallMethod((PyObject *)pool, "new_thread", NULL);
    if (!thread || PySet_Add(pool->threads, thread) < 0) {
        Py_XDECREF(thread);
        return NULL;
    }
    PyObject *rc = PyObject_CallMethod(thread, "start", NULL);
    if (rc || PySet_Contains(pool->enrolled, thread) == 1) {
        Py_DECREF(thread);
        return rc; /* NULL: interrupted, but it runs */
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PySet_Discard(pool->threads, thread); /* if it runs nevertheless, it comes back */
    EXT_LOCK(&pool->lock);
    pool->workers--;
    pool->starting--;
    tell_all(pool);
    EXT_UNLOCK(&pool->lock);
    PyErr_Restore(type, value, traceback);
    Py_DECREF(thread);
    return NULL;
}

static int add_worker(ThreadPool *pool, Task *task)
{
    PyObject *rc = start_thread(pool);
    Py_XDECREF(rc);
    /* No more threads can be started: those there are will do. */
    if (!rc && pool->workers > 0 && PyErr_ExceptionMatches(PyExc_RuntimeError)) {
        PyErr_Clear();
        EXT_LOCK(&pool->lock);
        see_to_tasks(pool, true);
        EXT_UNLOCK(&pool->lock);
        return 0;
    }
    if (rc)
        return 0;
    EXT_LOCK(&pool->lock);
    bool is_back = task->queued;
    if (is_back) {
        unlink_task(pool, task);
        pool->accepted--;
        pool->unaccepted++;
        give_permit_back(pool);
        tell_all(pool);
    }
    EXT_UNLOCK(&pool->lock);
    tell_coroutines(pool);
    if (is_back)
        Py_DECREF(task);
    return -1;
}

/* Accepts a task, which takes over a permit.  Steals the reference. */
static PyObject *launch(ThreadPool *pool, Task *task)
{
    EXT_LOCK(&pool->lock);
    if (pool->phase != OPEN || pool->broken) {
        give_permit_back(pool);
        EXT_UNLOCK(&pool->lock);
        tell_coroutines(pool);
        Py_DECREF(task);
        raise_closed(pool);
        return NULL;
    }
    append(pool, task);
    see_to_tasks(pool, false);
    size_t at_hand = pool->starting + pool->coming + pool->n_idle + (pool->guard != NULL);
    bool needs_worker = pool->workers < pool->max_workers && pending(pool) > at_hand;
    if (needs_worker) {
        pool->workers++;
        pool->starting++;
        tell_all(pool);
    } else {
        tell_accepted(pool);
    }
    EXT_UNLOCK(&pool->lock);
    if (needs_worker && add_worker(pool, task) < 0)
        Py_CLEAR(task);
    return (PyObject *)task;
}

/* A submit() inside of an event loop that has to wait stalls it: says so once. */
static int warn_in_event_loop(ThreadPool *pool)
{
    PyObject *modules = PyImport_GetModuleDict();
    if (pool->has_warned || !PyDict_GetItemString(modules, "asyncio.events"))
        return 0;
    PyObject *warned = PyObject_CallMethod((PyObject *)pool, "warn_in_event_loop", NULL);
    if (!warned)
        return -1;
    pool->has_warned = warned == Py_True;
    Py_DECREF(warned);
    return 0;
}

/* Waits in line, without the GIL: 1: has got a permit; 0: not in time, or closed; -1 exception. */
static int wait_in_line(ThreadPool *pool, Submitter *self, weir_time deadline)
{
    ext_turns *turns = &pool->head.turns;
    weir_time before = weir_now();
    ext_wait wait;
    ext_wait_begin(&wait);
    ext_turns_let_go(turns);
    int rc = ext_bell_wait(&self->bell, deadline, &turns->client);
    if (rc >= 0)
        ext_turns_linger(turns);
    ext_wait_end(&wait);
    EXT_LOCK(&pool->lock);
    if (self->in_line)
        unlink_submitter(pool, self);
    pool->submitters--;
    pool->waits++;
    pool->blocked_ns += weir_now() - before;
    if (self->has_permit && PyErr_Occurred()) /* a signal handler raised meanwhile */
        give_permit_back(pool);
    tell_all(pool);
    EXT_UNLOCK(&pool->lock);
    tell_coroutines(pool);
    if (PyErr_Occurred())
        return -1;
    if (rc < 0 && rc != WEIR_ETIMEDOUT && !self->has_permit) {
        ext_raise(pool->state, rc);
        return -1;
    }
    return self->has_permit;
}

static int stand_in_line(ThreadPool *pool, weir_time deadline)
{
    Submitter *self = PyMem_Calloc(1, sizeof *self);
    if (!self) {
        PyErr_NoMemory();
        return -1;
    }
    ext_bell_init(&self->bell);
    int rc = 1;
    EXT_LOCK(&pool->lock);
    bool must_wait = pool->phase == OPEN && !take_permit(pool);
    if (must_wait) {
        *pool->last_submitter = self;
        pool->last_submitter = &self->next;
        self->in_line = true;
        pool->submitters++;
        see_to_tasks(pool, working_for == pool);
        tell_all(pool);
    } else if (pool->phase != OPEN) {
        rc = 0;
    }
    EXT_UNLOCK(&pool->lock);
    if (must_wait)
        rc = wait_in_line(pool, self, deadline);
    ext_bell_fini(&self->bell);
    PyMem_Free(self);
    return rc;
}

/* The same by one of the pool's own threads, which others may be waiting for. */
static int stand_in_line_inside(ThreadPool *pool, weir_time deadline)
{
    EXT_LOCK(&pool->lock);
    bool is_last = pool->blocked_workers + 1 >= pool->workers;
    if (!is_last)
        pool->blocked_workers++;
    EXT_UNLOCK(&pool->lock);
    if (is_last)
        return refuse(pool, PyExc_RuntimeError,
                      "submit() inside a task or callback of this executor would wait for itself: "
                      "%U, and every other worker waits here already; use try_submit(), or a "
                      "larger max_submit_backlog",
                      NULL);
    int rc = stand_in_line(pool, deadline);
    EXT_LOCK(&pool->lock);
    pool->blocked_workers--;
    EXT_UNLOCK(&pool->lock);
    return rc;
}

static int wait_for_permit(ThreadPool *pool, int64_t timeout_ns, PyObject *timeout)
{
    if (timeout_ns != 0 && warn_in_event_loop(pool) < 0)
        return -1;
    int rc = 0;
    weir_time deadline = ext_deadline(timeout_ns);
    if (working_for == pool)
        rc = stand_in_line_inside(pool, deadline);
    else if (timeout_ns > 0)
        rc = stand_in_line(pool, deadline);
    if (rc != 0)
        return rc < 0 ? -1 : 0;
    if (pool->phase != OPEN || pool->broken)
        return raise_closed(pool);
    return refuse(pool, pool->state->timeout, "no room within %S s: %U", timeout);
}

static PyObject *new_dropped(ThreadPool *pool, const char *reason)
{
    return PyObject_CallFunction(pool->state->dropped, "s", reason);
}

static PyObject *drop_newest(ThreadPool *pool)
{
    ext_future *future = ext_future_new(pool->state->future_type);
    PyObject *error = future ? new_dropped(pool, "newest") : NULL;
    if (!error || ext_future_finish(pool->state, future, NULL, error) < 0) {
        Py_XDECREF(future);
        Py_XDECREF(error);
        return NULL;
    }
    Py_DECREF(error);
    EXT_LOCK(&pool->lock);
    pool->accepted++;
    pool->dropped_newest++;
    tell_all(pool);
    EXT_UNLOCK(&pool->lock);
    return (PyObject *)future;
}

/* 1: has the permit of the oldest task in line, which was dropped; 0: there is none; -1. */
static int drop_oldest(ThreadPool *pool, PyObject *error)
{
    for (;;) {
        EXT_LOCK(&pool->lock);
        bool has_permit = take_permit(pool); /* one may have come back meanwhile */
        Task *oldest = has_permit ? NULL : (Task *)Py_XNewRef((PyObject *)pool->first);
        EXT_UNLOCK(&pool->lock);
        if (!oldest)
            return has_permit;
        bool left;
        int rc = leave(pool, oldest, error, &pool->dropped_oldest, true, &left);
        Py_DECREF(oldest);
        if (rc == 0 && left)
            return 1;
        if (rc < 0 && left) {
            EXT_LOCK(&pool->lock);
            give_permit_back(pool);
            EXT_UNLOCK(&pool->lock);
            tell_coroutines(pool);
        }
        if (rc < 0)
            return -1;
    }
}

static int evict_oldest(ThreadPool *pool)
{
    PyObject *error = new_dropped(pool, "oldest");
    int rc = error ? drop_oldest(pool, error) : -1;
    Py_XDECREF(error);
    return rc;
}

/* Memory for a task that its submitter runs: *ret_bytes, 0: it needs none.  A task that submits one has
 * its own.  -1: an exception. */
static int reserve_here(ThreadPool *pool, uint64_t *ret_bytes)
{
    *ret_bytes = 0;
    if (!pool->governor || working_for == pool)
        return 0;
    int rc = ext_governor_try(pool->governor, pool->task_bytes);
    if (rc == WEIR_EFULL) {
        ext_wait wait;
        ext_wait_begin(&wait);
        rc = ext_governor_reserve(pool->governor, pool->task_bytes, WEIR_FOREVER);
        ext_wait_end(&wait);
    }
    if (rc == WEIR_OK)
        *ret_bytes = pool->task_bytes;
    if (rc == WEIR_ECLOSED || (rc == WEIR_OK && !PyErr_Occurred()))
        return 0;
    if (rc == WEIR_OK)
        ext_governor_release(pool->governor, *ret_bytes); /* a signal handler raised meanwhile */
    else if (rc == WEIR_ESHED)
        ext_raise_text(
            pool->state, rc,
            "memory is so scarce that nobody may wait for some to run the task; try again "
            "later");
    else
        ext_raise(pool->state, rc);
    return -1;
}

static void give_memory_back(ThreadPool *pool, uint64_t bytes)
{
    if (bytes > 0)
        ext_governor_release(pool->governor, bytes);
}

/* In the submitting thread. */
static PyObject *run_here(ThreadPool *pool, Task *task)
{
    uint64_t bytes;
    if (reserve_here(pool, &bytes) < 0)
        return NULL;
    ext_future *future = ext_future_new(pool->state->future_type);
    if (!future) {
        give_memory_back(pool, bytes);
        return NULL;
    }
    PyObject *result = call_task(task);
    EXT_LOCK(&pool->lock);
    pool->accepted++;
    pool->taken++;
    pool->finished++;
    pool->caller_ran++;
    tell_all(pool);
    EXT_UNLOCK(&pool->lock);
    PyObject *error = result ? NULL : ext_take_exception();
    give_memory_back(pool, bytes);
    if (ext_future_finish(pool->state, future, result, error) < 0) {
        Py_CLEAR(future);
    } else if (error && !PyErr_GivenExceptionMatches(error, PyExc_Exception)) {
        /* KeyboardInterrupt in the caller's own thread is the caller's, too. */
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_CLEAR(future);
    }
    Py_XDECREF(result);
    Py_XDECREF(error);
    return (PyObject *)future;
}

/* When there is no room: 1: has got a permit; 0: *ret_outcome is what submit returns. */
static int overflow(ThreadPool *pool, Task *task, PyObject **ret_outcome)
{
    int rc;
    switch (pool->on_full) {
    case FAIL: return refuse(pool, pool->state->backlog_full, "%U", NULL);
    case CALLER_RUNS: *ret_outcome = run_here(pool, task); return 0;
    case DROP_OLDEST:
        rc = evict_oldest(pool);
        if (rc != 0)
            return rc;
        *ret_outcome = drop_newest(pool);
        return 0;
    case DROP_NEWEST: *ret_outcome = drop_newest(pool); return 0;
    case BLOCK: break;
    }
    return wait_for_permit(pool, pool->timeout_ns, pool->timeout) < 0 ? -1 : 1;
}

static bool try_permit(ThreadPool *pool)
{
    EXT_LOCK(&pool->lock);
    bool has_permit = take_permit(pool);
    EXT_UNLOCK(&pool->lock);
    return has_permit;
}

static PyObject *submit(ThreadPool *pool, PyObject *const *args, Py_ssize_t n_args,
                        PyObject *kwnames)
{
    if (check_open(pool) < 0)
        return NULL;
    Task *task = new_task(pool, args[0], args + 1, n_args - 1, kwnames);
    if (!task)
        return NULL;
    if (try_permit(pool))
        return launch(pool, task);
    PyObject *outcome = NULL;
    if (overflow(pool, task, &outcome) == 1)
        return launch(pool, task);
    Py_DECREF(task);
    return outcome;
}

static PyObject *pool_count_refused(ThreadPool *self, PyObject *Py_UNUSED(ignored))
{
    count_refused(self);
    Py_RETURN_NONE;
}

static PyObject *try_submit(ThreadPool *pool, PyObject *const *args, Py_ssize_t n_args,
                            PyObject *kwnames, bool counts)
{
    if (check_open(pool) < 0)
        return NULL;
    if (!try_permit(pool)) {
        EXT_LOCK(&pool->lock);
        pool->refused += counts;
        tell_all(pool);
        EXT_UNLOCK(&pool->lock);
        Py_RETURN_NONE;
    }
    Task *task = new_task(pool, args[0], args + 1, n_args - 1, kwnames);
    if (task)
        return launch(pool, task);
    EXT_LOCK(&pool->lock);
    give_permit_back(pool);
    EXT_UNLOCK(&pool->lock);
    tell_coroutines(pool);
    return NULL;
}

/* ---- submitting from a coroutine ------------------------------------------------------------ */

enum { TASK }; /* in a place's data */

static ThreadPool *place_pool(const ext_pending *place)
{
    return (ThreadPool *)place->owner;
}

static Submitter *place_submitter(ext_pending *place)
{
    return (Submitter *)(void *)place->core.opaque;
}

static int place_begin(ext_pending *place)
{
    ThreadPool *pool = place_pool(place);
    Submitter *self = place_submitter(place);
    int rc = WEIR_WAITING;
    EXT_LOCK(&pool->lock);
    if (pool->phase != OPEN || pool->broken) {
        rc = WEIR_ECLOSED;
    } else if (take_permit(pool)) {
        self->has_permit = true;
        rc = WEIR_OK;
    } else {
        self->place = &place->core;
        self->since = weir_now();
        *pool->last_submitter = self;
        pool->last_submitter = &self->next;
        self->in_line = true;
        pool->submitters++;
        see_to_tasks(pool, working_for == pool);
        tell_all(pool);
    }
    EXT_UNLOCK(&pool->lock);
    return rc;
}

static bool place_leave(ext_pending *place)
{
    ThreadPool *pool = place_pool(place);
    Submitter *self = place_submitter(place);
    EXT_LOCK(&pool->lock);
    bool was_in_line = self->in_line;
    if (was_in_line) {
        unlink_submitter(pool, self);
        pool->submitters--;
        pool->waits++;
        pool->blocked_ns += weir_now() - self->since;
        tell_all(pool);
    }
    EXT_UNLOCK(&pool->lock);
    return was_in_line;
}

static void place_give_back(ext_pending *place)
{
    ThreadPool *pool = place_pool(place);
    EXT_LOCK(&pool->lock);
    give_permit_back(pool);
    EXT_UNLOCK(&pool->lock);
    tell_coroutines(pool);
}

static PyObject *place_claim(ext_pending *place)
{
    Task *task = (Task *)(uintptr_t)place->data[TASK];
    place->data[TASK] = 0;
    return launch(place_pool(place), task);
}

static PyObject *place_fail(ext_pending *place, int result)
{
    if (result != WEIR_ECLOSED)
        return ext_raise(place->module, result);
    raise_closed(place_pool(place));
    return NULL;
}

static void place_forget(ext_pending *place)
{
    PyObject *task = (PyObject *)(uintptr_t)place->data[TASK];
    place->data[TASK] = 0;
    Py_XDECREF(task);
}

static const ext_pending_kind place_kind = {
    .begin = place_begin,
    .cancel = place_leave,
    .give_back = place_give_back,
    .claim = place_claim,
    .fail = place_fail,
    .forget = place_forget,
};

PyDoc_STRVAR(pend_doc, "pend($self, ready, fn, /, *args, **kwargs)\n--\n\n"
                       "Stand in the line of those who submit, for a coroutine; claimed, it is the "
                       "task's future.");

static PyObject *pool_pend(ThreadPool *self, PyObject *const *args, Py_ssize_t n_args,
                           PyObject *kwnames)
{
    if (n_args < 2) {
        PyErr_SetString(PyExc_TypeError, "pend() takes ready and a function");
        return NULL;
    }
    if (check_open(self) < 0)
        return NULL;
    Task *task = new_task(self, args[1], args + 2, n_args - 2, kwnames);
    ext_pending *place =
        task ? ext_pending_new(self->state, (PyObject *)self, &self->line, &place_kind, args[0])
             : NULL;
    if (!place) {
        Py_XDECREF(task);
        return NULL;
    }
    place->data[TASK] = (uintptr_t)task;
    return ext_pending_begin(place);
}

/* ---- working -------------------------------------------------------------------------------- */

/* Looks, without the GIL, whether tasks are completed while some are in line.  True: they are not;
 * false: there is nothing to guard, or the worker was called. */
static bool keep_guard(ThreadPool *pool, Worker *self)
{
    ext_turns *turns = &pool->head.turns;
    for (int quiet = 0; quiet < GUARD_ROUNDS;) {
        uint32_t before = atomic_load_explicit(&turns->progress, memory_order_relaxed);
        if (ext_bell_wait(&self->bell, weir_after(GUARD_PERIOD), NULL) >= 0)
            return false;
        bool is_empty = pending(pool) == 0;
        if (!is_empty && atomic_load_explicit(&turns->progress, memory_order_relaxed) == before)
            return true;
        quiet = is_empty ? quiet + 1 : 0;
    }
    return false;
}

/* With the lock, which it gives up: waits until called, or for a reason to look. */
static void be_idle(ThreadPool *pool, Worker *self)
{
    ext_turns *turns = &pool->head.turns;
    uint32_t let_go = atomic_load_explicit(&turns->let_go, memory_order_relaxed);
    if (pool->size.on && pool->size.pressed)
        grow(pool);
    pool->coming--;
    self->called = false;
    self->next = pool->idle;
    pool->idle = self;
    pool->n_idle++;
    EXT_UNLOCK(&pool->lock);
    tell_coroutines(pool); /* those who fit into a larger backlog */

    ext_wait wait;
    ext_wait_begin(&wait);
    ext_turns_end(turns);
    bool is_awake = ext_bell_wait(&self->bell, WEIR_FOREVER, &turns->idle) == 1;
    bool has_stalled = !self->called && keep_guard(pool, self);
    if (is_awake && self->called)
        ext_turns_await(turns, let_go);
    ext_turns_begin(turns);
    ext_wait_end(&wait);

    EXT_LOCK(&pool->lock);
    if (!self->called) {
        pool->guard = NULL;
        pool->coming++;
        if (has_stalled)
            pool->history = 0;
    }
}

/* ---- memory for a task ---------------------------------------------------------------------- */

#define LOOK_AGAIN (20 * WEIR_MILLISECOND) /* when nobody may wait for memory */

/* Once the interpreter ends, whoever has the memory may never give it back: so then one task at a time
 * may run without. */
static bool may_run_alone(ThreadPool *pool)
{
    return atomic_load_explicit(&pool->exits, memory_order_relaxed) &&
           !atomic_load_explicit(&pool->runs_alone, memory_order_relaxed);
}

static bool needs_no_memory(void *ctx)
{
    return pending(ctx) == 0 || may_run_alone(ctx);
}

static int wait_for_memory(ThreadPool *pool)
{
    ext_turns *turns = &pool->head.turns;
    ext_wait wait;
    ext_wait_begin_until(&wait, needs_no_memory, pool);
    ext_turns_end(turns);
    int rc = ext_governor_reserve(pool->governor, pool->task_bytes, WEIR_FOREVER);
    if (rc == WEIR_ESHED)
        nanosleep(&(struct timespec){.tv_nsec = LOOK_AGAIN}, NULL);
    ext_turns_begin(turns);
    ext_wait_end(&wait);
    return rc;
}

/* Before a worker takes a task; false: there is none any more. */
static bool reserve_for_task(ThreadPool *pool, Worker *self)
{
    int rc = ext_governor_try(pool->governor, pool->task_bytes);
    while (rc != WEIR_OK && rc != WEIR_ECLOSED) { /* a closed governor holds nothing back */
        EXT_LOCK(&pool->lock);
        bool is_empty = !pool->first;
        self->is_alone = !is_empty && may_run_alone(pool);
        if (self->is_alone)
            atomic_store_explicit(&pool->runs_alone, true, memory_order_relaxed);
        EXT_UNLOCK(&pool->lock);
        if (is_empty || self->is_alone)
            return !is_empty;
        rc = wait_for_memory(pool);
    }
    if (rc == WEIR_OK)
        self->reserved = pool->task_bytes;
    return true;
}

static void end_reservation(ThreadPool *pool, Worker *self)
{
    give_memory_back(pool, self->reserved);
    self->reserved = 0;
    if (self->is_alone)
        atomic_store_explicit(&pool->runs_alone, false, memory_order_relaxed);
    self->is_alone = false;
}

/* ---- running one ---------------------------------------------------------------------------- */

/* took_ns: -1: it was cancelled, and did not run. */
static void end_task(ThreadPool *pool, Worker *self, int64_t took_ns)
{
    if (is_parents(pool)) /* the task has forked */
        return;
    if (pool->governor)
        end_reservation(pool, self);
    EXT_LOCK(&pool->lock);
    pool->running--;
    pool->busy_ns += took_ns > 0 ? (uint64_t)took_ns : 0;
    pool->history = (uint8_t)(pool->history << 1 | (took_ns < SHORT_TASK_NS));
    if (took_ns < 0) {
        pool->cancelled++;
        pool->let_go++;
    } else {
        pool->finished++;
        uint64_t weight = weight_of(pool, pool->finished);
        if (weight > 0)
            weir_teller_time(pool->teller, WEIR_TELLER_SERVICE, took_ns, weight);
    }
    tell_done(pool);
    give_permit_back(pool);
    EXT_UNLOCK(&pool->lock);
    tell_coroutines(pool);
}

/* A task that was taken out of the line; -1: something that had to be told raised. */
static int run_task(ThreadPool *pool, Worker *self, Task *task)
{
    module_state *state = pool->state;
    ext_future_state is = ext_future_get_state(&task->future);
    bool may_start = is == EXT_PENDING || is == EXT_CANCELLED;
    int started = may_start ? ext_future_start(state, &task->future) : 0;
    if (started <= 0) { /* somebody used the standard class's cancel() on it */
        end_task(pool, self, -1);
        forget_call(task);
        forget_pool(task);
        return started;
    }
    weir_time before = weir_now();
    PyObject *result = call_task(task);
    int64_t took_ns = weir_now() - before;
    PyObject *error = result ? NULL : ext_take_exception();
    forget_call(task);
    /* The permit is free before the future is done: who sees the result can submit. */
    end_task(pool, self, took_ns > 0 ? took_ns : 0);
    int rc = ext_future_finish(state, &task->future, result, error);
    atomic_fetch_add_explicit(&pool->head.turns.progress, 1, memory_order_relaxed);
    Py_XDECREF(result);
    Py_XDECREF(error);
    forget_pool(task);
    return rc;
}

/* Under the lock: NULL: there is none. */
static Task *pop_task(ThreadPool *pool)
{
    Task *task = pool->first;
    if (task) {
        unlink_task(pool, task);
        pool->coming--;
        pool->busy++;
        pool->running++;
        pool->taken++;
        if (task->since)
            weir_teller_time(pool->teller, WEIR_TELLER_WAIT, weir_now() - task->since,
                             task->stands_for);
        tell(pool, WEIR_STATS_DELIVERED, pool->taken);
        see_to_tasks(pool, false);
    }
    return task;
}

/* The same where a task needs memory. */
static Task *take_governed(ThreadPool *pool, Worker *self)
{
    for (;;) {
        EXT_LOCK(&pool->lock);
        while (!pool->first && pool->phase == OPEN)
            be_idle(pool, self);
        bool is_empty = !pool->first;
        EXT_UNLOCK(&pool->lock);
        if (is_empty)
            return NULL;
        if (!reserve_for_task(pool, self))
            continue;
        EXT_LOCK(&pool->lock);
        Task *task = pop_task(pool);
        EXT_UNLOCK(&pool->lock);
        if (task)
            return task;
        end_reservation(pool, self); /* somebody else took it, or cancelled it */
    }
}

/* The next task, which it waits for; NULL: there are no more, and never will be. */
static Task *take_task(ThreadPool *pool, Worker *self)
{
    if (pool->governor)
        return take_governed(pool, self);
    EXT_LOCK(&pool->lock);
    while (!pool->first && pool->phase == OPEN)
        be_idle(pool, self);
    Task *task = pop_task(pool);
    EXT_UNLOCK(&pool->lock);
    return task;
}

/* Until there are no more; -1: something that had to be told raised. */
static int run_tasks(ThreadPool *pool, Worker *self)
{
    int rc = 0;
    for (Task *task; rc == 0 && !is_parents(pool) && (task = take_task(pool, self));) {
        rc = run_task(pool, self, task);
        EXT_LOCK(&pool->lock);
        pool->busy--;
        pool->coming++;
        EXT_UNLOCK(&pool->lock);
        Py_DECREF(task);
    }
    return rc;
}

PyDoc_STRVAR(work_doc, "work($self, /)\n--\n\n"
                       "The life of an enrolled thread.  If a callback raises, so does this: call "
                       "it again.");

static PyObject *pool_work(ThreadPool *self, PyObject *Py_UNUSED(ignored))
{
    Worker *worker = PyMem_Calloc(1, sizeof *worker);
    if (!worker)
        return PyErr_NoMemory();
    ext_bell_init(&worker->bell);
    ThreadPool *outer = working_for;
    working_for = self;
    ext_turns_begin(&self->head.turns);
    EXT_LOCK(&self->lock);
    self->starting--;
    self->coming++;
    EXT_UNLOCK(&self->lock);
    int rc = run_tasks(self, worker);
    EXT_LOCK(&self->lock);
    self->coming--;
    self->starting += rc < 0;
    EXT_UNLOCK(&self->lock);
    ext_turns_end(&self->head.turns);
    working_for = outer;
    ext_bell_fini(&worker->bell);
    PyMem_Free(worker);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(enrol_doc, "enrol($self, thread, /)\n--\n\n"
                        "By a thread that begins: whether to work; not if its start was "
                        "interrupted and it was replaced.");

static PyObject *pool_enrol(ThreadPool *self, PyObject *thread)
{
    int is_known = PySet_Contains(self->threads, thread);
    if (is_known < 0 || PySet_Add(self->enrolled, thread) < 0)
        return NULL;
    EXT_LOCK(&self->lock);
    bool is_welcome = is_known || self->workers < self->max_workers;
    if (!is_known && is_welcome) {
        self->workers++;
        self->starting++;
        tell_all(self);
    }
    EXT_UNLOCK(&self->lock);
    if (is_welcome && !is_known && PySet_Add(self->threads, thread) < 0)
        return NULL;
    return PyBool_FromLong(is_welcome);
}

/* ---- ending --------------------------------------------------------------------------------- */

PyDoc_STRVAR(close_doc, "close($self, is_exit=False, /)\n--\n\n"
                        "Take no more tasks; the workers end when they have run those in line.");

static PyObject *pool_close(ThreadPool *self, PyObject *const *args, Py_ssize_t n_args)
{
    int is_exit = n_args > 0 ? PyObject_IsTrue(args[0]) : 0;
    if (is_exit < 0)
        return NULL;
    if (is_parents(self))
        Py_RETURN_NONE;
    EXT_LOCK(&self->lock);
    if (is_exit || self->phase == OPEN)
        self->phase = is_exit ? EXITING : SHUT_DOWN;
    atomic_store_explicit(&self->exits, self->phase == EXITING, memory_order_relaxed);
    while (self->idle || self->guard)
        call_one(self);
    for (Submitter *waits; (waits = pop_submitter(self));)
        serve(self, waits);
    tell_all(self);
    EXT_UNLOCK(&self->lock);
    tell_coroutines(self);
    Py_RETURN_NONE;
}

/* Every task in line leaves; -1 with the exception that ended this, or with the first of those that
 * callbacks raised, which end nothing. */
static int leave_all(ThreadPool *pool, PyObject *exception, uint64_t *count)
{
    PyObject *type = NULL, *value = NULL, *traceback = NULL;
    for (;;) {
        EXT_LOCK(&pool->lock);
        Task *task = (Task *)Py_XNewRef((PyObject *)pool->first);
        EXT_UNLOCK(&pool->lock);
        if (!task)
            break;
        bool left;
        int rc = leave(pool, task, exception, count, false, &left);
        Py_DECREF(task);
        if (rc < 0 && type)
            PyErr_WriteUnraisable(NULL);
        else if (rc < 0)
            PyErr_Fetch(&type, &value, &traceback);
        if (rc < 0 && !left)
            break;
    }
    if (!type)
        return 0;
    PyErr_Restore(type, value, traceback);
    return -1;
}

static PyObject *pool_cancel_pending(ThreadPool *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_parents(self) && leave_all(self, NULL, &self->cancelled) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(break_down_doc, "break_down($self, error, /)\n--\n\n"
                             "The initializer raised: nothing will ever run here.");

static PyObject *pool_break_down(ThreadPool *self, PyObject *error)
{
    if (is_parents(self)) /* the initializer has forked */
        Py_RETURN_NONE;
    EXT_LOCK(&self->lock);
    if (!self->broken)
        self->broken = Py_NewRef(error);
    tell_all(self);
    self->starting--; /* the caller, which is not going to work */
    EXT_UNLOCK(&self->lock);
    PyObject *closed = pool_close(self, NULL, 0);
    Py_XDECREF(closed);
    PyObject *told = PyObject_CallMethod((PyObject *)self, "broken_error", NULL);
    int rc = told ? leave_all(self, told, &self->dropped_broken) : -1;
    Py_XDECREF(told);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- looking -------------------------------------------------------------------------------- */

static PyObject *pool_counts(ThreadPool *self, PyObject *Py_UNUSED(ignored))
{
    if (check_process(self) < 0)
        return NULL;
    EXT_LOCK(&self->lock);
    ThreadPool now = *self;
    size_t waiting = pending(self);
    EXT_UNLOCK(&self->lock);
    return Py_BuildValue(
        "{s:n,s:n,s:K,s:K,s:K,s:{s:K,s:K,s:K},s:K,s:K,s:n,s:d,s:O}", "waiting", (Py_ssize_t)waiting,
        "running", (Py_ssize_t)now.running, "accepted", now.accepted, "finished", now.finished,
        "cancelled", now.cancelled, "dropped", "newest", now.dropped_newest, "oldest",
        now.dropped_oldest, "broken", now.dropped_broken, "caller_ran", now.caller_ran, "refused",
        now.refused, "submitters_waiting", (Py_ssize_t)now.submitters, "submit_blocked",
        (double)now.blocked_ns / 1e9, "is_shutdown", now.phase == OPEN ? Py_False : Py_True);
}

static PyObject *get_idle(ThreadPool *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(self->n_idle + (self->guard != NULL));
}

static PyObject *get_permits_out(ThreadPool *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(self->permits_out);
}

static PyObject *get_backlog(ThreadPool *self, void *Py_UNUSED(closure))
{
    return self->backlog == WEIR_UNBOUNDED ? Py_NewRef(Py_None) : PyLong_FromSize_t(self->backlog);
}

static PyObject *get_backlog_why(ThreadPool *self, void *Py_UNUSED(closure))
{
    if (!self->size.on)
        Py_RETURN_NONE;
    return PyUnicode_FromString(self->size.why);
}

static PyObject *get_closed(ThreadPool *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->phase != OPEN);
}

static PyGetSetDef pool_getset[] = {
    {"idle", (getter)get_idle, NULL, "Workers that wait for a task.", NULL},
    {"permits_out", (getter)get_permits_out, NULL, "Tasks accepted and not finished.", NULL},
    {"backlog", (getter)get_backlog, NULL, "None: without bound.", NULL},
    {"backlog_why", (getter)get_backlog_why, NULL, "Of an auto backlog: what made it so large.",
     NULL},
    {"closed", (getter)get_closed, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef pool_members[] = {
    {"name", T_OBJECT, offsetof(ThreadPool, name), READONLY, NULL},
    {"workers", T_PYSSIZET, offsetof(ThreadPool, max_workers), READONLY, "The most there are."},
    {"threads", T_OBJECT, offsetof(ThreadPool, threads), READONLY, NULL},
    {"broken", T_OBJECT, offsetof(ThreadPool, broken), READONLY, "What the initializer raised."},
    {"pid", T_LONG, offsetof(ThreadPool, pid), READONLY, "Of the process it belongs to."},
    {NULL, 0, 0, 0, NULL},
};

/* ---- the pool's own life -------------------------------------------------------------------- */

static int parse_on_full(const char *text, OnFull *ret)
{
    static const char *const names[] = {"block", "fail", "drop_newest", "drop_oldest",
                                        "caller_runs"};
    for (int i = 0; i < 5; i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret = (OnFull)i;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "unknown on_full '%s'", text);
    return -1;
}

static int parse_bounds(ThreadPool *self, Py_ssize_t workers, PyObject *backlog)
{
    size_t bound = WEIR_UNBOUNDED;
    self->size.on =
        PyUnicode_Check(backlog) && PyUnicode_CompareWithASCIIString(backlog, "auto") == 0;
    if (self->size.on && workers > 0)
        bound = self->size.least = 2 * (size_t)workers;
    else if (backlog != Py_None)
        bound = PyLong_AsSize_t(backlog);
    if (bound == (size_t)-1 && PyErr_Occurred())
        return -1;
    if (workers <= 0 || bound == 0) {
        PyErr_SetString(PyExc_ValueError, "workers and backlog must be > 0");
        return -1;
    }
    self->max_workers = (size_t)workers;
    self->size.at = weir_now();
    self->size.why = "twice the workers: no worker has run dry";
    set_backlog(self, bound);
    return 0;
}

static PyObject *pool_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    Py_ssize_t workers;
    PyObject *backlog, *timeout, *name, *memory;
    unsigned long long task_bytes;
    const char *on_full;
    if (!PyArg_ParseTuple(args, "nOsOOOK:ThreadPool", &workers, &backlog, &on_full, &timeout, &name,
                          &memory, &task_bytes))
        return NULL;
    ThreadPool *self = (ThreadPool *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->last_submitter = &self->first_submitter;
    self->last_told = &self->told;
    self->state = ext_state_of(type);
    self->generation = ext_fork_generation();
    self->pid = (long)getpid();
    self->task_bytes = task_bytes;
    self->memory = Py_NewRef(memory);
    self->name = Py_NewRef(name);
    self->timeout = Py_NewRef(timeout);
    self->threads = PySet_New(NULL);
    self->enrolled = PySet_New(NULL);
    if (self->state && self->threads && self->enrolled &&
        parse_on_full(on_full, &self->on_full) == 0 && parse_bounds(self, workers, backlog) == 0 &&
        ext_parse_timeout(timeout, "submit_timeout", &self->timeout_ns) == 0 &&
        ext_governor_parse(self->state, memory, &self->governor) == 0) {
        self->teller = weir_teller_open(WEIR_STATS_THREAD_POOL, ext_shown_name(name));
        tell_all(self);
        return (PyObject *)self;
    }
    Py_DECREF(self);
    return NULL;
}

static int pool_traverse(ThreadPool *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->name);
    Py_VISIT(self->timeout);
    Py_VISIT(self->threads);
    Py_VISIT(self->enrolled);
    Py_VISIT(self->broken);
    Py_VISIT(self->memory);
    Py_VISIT(self->governor);
    for (Task *task = self->first; task; task = task->next)
        Py_VISIT(task);
    return ext_line_traverse(&self->line, visit, arg);
}

static int pool_clear(ThreadPool *self)
{
    ext_line_clear(&self->line);
    Py_CLEAR(self->name);
    Py_CLEAR(self->timeout);
    Py_CLEAR(self->threads);
    Py_CLEAR(self->enrolled);
    Py_CLEAR(self->broken);
    Py_CLEAR(self->memory);
    for (Task *task; (task = self->first);) {
        unlink_task(self, task);
        Py_DECREF(task);
    }
    return 0;
}

static void pool_dealloc(ThreadPool *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    pool_clear(self);
    Py_XDECREF(self->governor);
    weir_teller_close(self->teller);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef pool_methods[] = {
    {"work", (PyCFunction)pool_work, METH_NOARGS, work_doc},
    {"enrol", (PyCFunction)pool_enrol, METH_O, enrol_doc},
    {"close", (PyCFunction)(void (*)(void))pool_close, METH_FASTCALL, close_doc},
    {"cancel_pending", (PyCFunction)pool_cancel_pending, METH_NOARGS,
     "cancel_pending($self, /)\n--\n\nCancel every task that has not started."},
    {"break_down", (PyCFunction)pool_break_down, METH_O, break_down_doc},
    {"pend", (PyCFunction)(void (*)(void))pool_pend, METH_FASTCALL | METH_KEYWORDS, pend_doc},
    {"count_refused", (PyCFunction)pool_count_refused, METH_NOARGS,
     "count_refused($self, /)\n--\n\nA coroutine's wait for room ended without."},
    {"counts", (PyCFunction)pool_counts, METH_NOARGS,
     "counts($self, /)\n--\n\nWhat stats() tells, at one instant."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_doc, (void *)"ThreadPool(workers, backlog, on_full, submit_timeout, name, memory, "
                        "task_bytes, /)\n--\n\n"
                        "What the worker threads of a ThreadPoolExecutor share.  A subclass says "
                        "how a thread is made: new_thread(); and broken_error(), "
                        "warn_in_event_loop()."},
    {Py_tp_new, pool_new},
    {Py_tp_dealloc, pool_dealloc},
    {Py_tp_traverse, pool_traverse},
    {Py_tp_clear, pool_clear},
    {Py_tp_methods, pool_methods},
    {Py_tp_getset, pool_getset},
    {Py_tp_members, pool_members},
    {0, NULL},
};

static PyType_Spec pool_spec = {
    .name = "weir._weir.ThreadPool",
    .basicsize = sizeof(ThreadPool),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = pool_slots,
};

/* ---- futures -------------------------------------------------------------------------------- */

PyDoc_STRVAR(cancel_doc,
             "cancel($self, /)\n--\n\n"
             "Cancel the task unless it has started; its place in the backlog is free at once.");

static PyObject *task_cancel(Task *self, PyObject *Py_UNUSED(ignored))
{
    EXT_LOCK(&self->future.lock);
    ThreadPool *pool = (ThreadPool *)Py_XNewRef((PyObject *)self->future.completer);
    EXT_UNLOCK(&self->future.lock);
    bool left = false;
    int rc = 0;
    if (pool && is_parents(pool)) { /* it is the parent's, like the locks */
        Py_DECREF(pool);
        Py_RETURN_FALSE;
    }
    if (pool)
        rc = leave(pool, self, NULL, &pool->cancelled, false, &left);
    Py_XDECREF(pool);
    if (rc < 0)
        return NULL;
    ext_future_state state = ext_future_get_state(&self->future);
    return PyBool_FromLong(state == EXT_CANCELLED || state == EXT_CANCELLED_AND_NOTIFIED);
}

static PyObject *task_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
                          PyObject *Py_UNUSED(kwargs))
{
    PyErr_Format(PyExc_TypeError, "cannot create '%s' instances: submit() does", type->tp_name);
    return NULL;
}

static PyMethodDef task_methods[] = {
    {"cancel", (PyCFunction)task_cancel, METH_NOARGS, cancel_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot task_slots[] = {
    {Py_tp_doc, (void *)"The future of a task of a ThreadPoolExecutor."},
    {Py_tp_new, task_new},
    {Py_tp_methods, task_methods},
    {0, NULL},
};

static const PyMemberDef task_members[] = {
    EXT_SLOT("(fn)", Task, fn),
    EXT_SLOT("(args)", Task, args),
    EXT_SLOT("(kwnames)", Task, kwnames),
    {NULL, 0, 0, 0, NULL},
};

static PyType_Spec task_spec = {
    .name = "weir._weir.TaskFuture",
    .basicsize = sizeof(Task),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = task_slots,
};

void ext_thread_pool_before_wait(ext_completer *completer)
{
    ThreadPool *pool = (ThreadPool *)completer;
    if (working_for != pool)
        return;
    EXT_LOCK(&pool->lock);
    see_to_tasks(pool, true);
    EXT_UNLOCK(&pool->lock);
}

/* ---- the executor --------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD ThreadPool *pool;
} ThreadExecutor;

/* A reference: the executor may lose its own meanwhile. */
static ThreadPool *pool_of(ThreadExecutor *self, const char *function, Py_ssize_t n_args)
{
    if (!self->pool) {
        PyErr_SetString(PyExc_RuntimeError, "super().__init__() was not called");
        return NULL;
    }
    if (n_args < 1) {
        PyErr_Format(PyExc_TypeError, "%s() is missing its argument 'fn'", function);
        return NULL;
    }
    return (ThreadPool *)Py_NewRef((PyObject *)self->pool);
}

PyDoc_STRVAR(
    submit_doc,
    "submit($self, fn, /, *args, **kwargs)\n--\n\n"
    "Schedule fn(*args, **kwargs); when there is no room, `on_full` decides.\n\n"
    "Raises RuntimeError (shut down; or it would wait for itself, inside a task of this very\n"
    "pool), BrokenThreadPool (the initializer raised), weir.BacklogFull, TimeoutError.  The\n"
    "function has not been called then.");

static PyObject *executor_submit(ThreadExecutor *self, PyObject *const *args, Py_ssize_t n_args,
                                 PyObject *kwnames)
{
    ThreadPool *pool = pool_of(self, "submit", n_args);
    PyObject *future = pool ? submit(pool, args, n_args, kwnames) : NULL;
    Py_XDECREF(pool);
    return future;
}

PyDoc_STRVAR(try_submit_doc,
             "try_submit($self, fn, /, *args, **kwargs)\n--\n\n"
             "Schedule fn(*args, **kwargs) if there is room now, else return None.\n\n"
             "Never waits, drops or runs anything, whatever `on_full` says.");

static PyObject *executor_try_submit(ThreadExecutor *self, PyObject *const *args, Py_ssize_t n_args,
                                     PyObject *kwnames)
{
    ThreadPool *pool = pool_of(self, "try_submit", n_args);
    PyObject *future = pool ? try_submit(pool, args, n_args, kwnames, true) : NULL;
    Py_XDECREF(pool);
    return future;
}

PyDoc_STRVAR(map_try_doc, "_try_submit($self, fn, /, *args)\n--\n\n"
                          "As try_submit(), for map(): to find no room is no refusal.");

static PyObject *executor_map_try(ThreadExecutor *self, PyObject *const *args, Py_ssize_t n_args)
{
    ThreadPool *pool = pool_of(self, "_try_submit", n_args);
    PyObject *future = pool ? try_submit(pool, args, n_args, NULL, false) : NULL;
    Py_XDECREF(pool);
    return future;
}

PyDoc_STRVAR(submit_wait_doc,
             "_submit_wait($self, fn, args, timeout, /)\n--\n\n"
             "Schedule fn(*args), waiting for room up to `timeout` seconds whatever `on_full` is.");

static PyObject *executor_submit_wait(ThreadExecutor *self, PyObject *const *args,
                                      Py_ssize_t n_args)
{
    int64_t timeout_ns;
    if (n_args != 3 || !PyTuple_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "_submit_wait() takes fn, a tuple and a timeout");
        return NULL;
    }
    if (ext_parse_timeout(args[2], "timeout", &timeout_ns) < 0)
        return NULL;
    ThreadPool *pool = pool_of(self, "_submit_wait", n_args);
    Task *task = NULL;
    if (pool && check_open(pool) == 0)
        task =
            new_task(pool, args[0], &PyTuple_GET_ITEM(args[1], 0), PyTuple_GET_SIZE(args[1]), NULL);
    if (task && !try_permit(pool) && wait_for_permit(pool, timeout_ns, args[2]) < 0)
        Py_CLEAR(task);
    PyObject *future = task ? launch(pool, task) : NULL;
    Py_XDECREF(pool);
    return future;
}

static PyObject *get_pool(ThreadExecutor *self, void *Py_UNUSED(closure))
{
    if (self->pool)
        return Py_NewRef((PyObject *)self->pool);
    PyErr_SetString(PyExc_AttributeError, "_pool");
    return NULL;
}

static int set_pool(ThreadExecutor *self, PyObject *pool, void *Py_UNUSED(closure))
{
    module_state *state = ext_state_of(Py_TYPE(self));
    if (!state)
        return -1;
    if (!pool || !PyObject_TypeCheck(pool, state->thread_pool_type)) {
        PyErr_SetString(PyExc_TypeError, "_pool must be a ThreadPool");
        return -1;
    }
    Py_XSETREF(self->pool, (ThreadPool *)Py_NewRef(pool));
    return 0;
}

static int executor_traverse(ThreadExecutor *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->pool);
    return 0;
}

static int executor_clear(ThreadExecutor *self)
{
    Py_CLEAR(self->pool);
    return 0;
}

static void executor_dealloc(ThreadExecutor *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->pool);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef executor_methods[] = {
    {"submit", (PyCFunction)(void (*)(void))executor_submit, METH_FASTCALL | METH_KEYWORDS,
     submit_doc},
    {"try_submit", (PyCFunction)(void (*)(void))executor_try_submit, METH_FASTCALL | METH_KEYWORDS,
     try_submit_doc},
    {"_try_submit", (PyCFunction)(void (*)(void))executor_map_try, METH_FASTCALL, map_try_doc},
    {"_submit_wait", (PyCFunction)(void (*)(void))executor_submit_wait, METH_FASTCALL,
     submit_wait_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef executor_getset[] = {
    {"_pool", (getter)get_pool, (setter)set_pool, "What the worker threads share.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot executor_slots[] = {
    {Py_tp_doc, (void *)"The part of a ThreadPoolExecutor that submits to its `_pool`."},
    {Py_tp_dealloc, executor_dealloc},
    {Py_tp_traverse, executor_traverse},
    {Py_tp_clear, executor_clear},
    {Py_tp_methods, executor_methods},
    {Py_tp_getset, executor_getset},
    {0, NULL},
};

static PyType_Spec executor_spec = {
    .name = "weir._weir.ThreadExecutor",
    .basicsize = sizeof(ThreadExecutor),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = executor_slots,
};

int ext_thread_pool_types_add(PyObject *module, module_state *state)
{
    PyTypeObject *executor;
    if (ext_future_add_type(module, &task_spec, (PyObject *)state->future_type, task_members,
                            &state->task_future_type) < 0 ||
        ext_add_type(module, &pool_spec, &state->thread_pool_type) < 0 ||
        ext_add_type(module, &executor_spec, &executor) < 0)
        return -1;
    Py_DECREF(executor); /* the module keeps it */
    return 0;
}
