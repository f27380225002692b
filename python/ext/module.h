/* module.h - what the files of the extension `weir._weir` share.
 *
 * Layers:     includes <weir/...> and Python.h only.
 * State:      everything Python owned by the module lives in module_state, one per interpreter;
 *             no static PyObject.  To keep one more object, add a line to STATE_OBJECTS.
 * Types:      each file brings its heap types through one *_types_add function, listed in module.c.
 * GIL:        C callbacks into Python go through ext_callback_begin/end, waits through
 *             ext_wait_begin/end (wait.c); nothing else touches thread states.
 */
#ifndef WEIR_EXT_MODULE_H
#define WEIR_EXT_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <weir/weir.h>

#if PY_VERSION_HEX < 0x030A0000
#error "weir needs Python 3.10 or newer"
#endif

/* ---- locks of the free-threaded build --------------------------------------------------- */

/* Guards plain C state of an object: the GIL does it, or a mutex where there is none.  No Python
 * code, and no wait, inside. */
#ifdef Py_GIL_DISABLED
typedef PyMutex ext_lock;
#define EXT_LOCK(lock)   PyMutex_Lock(lock)
#define EXT_UNLOCK(lock) PyMutex_Unlock(lock)
#else
typedef char ext_lock;
#define EXT_LOCK(lock)   ((void)(lock))
#define EXT_UNLOCK(lock) ((void)(lock))
#endif

/* Makes one call on an object at a time, where there is no GIL; Python code may run inside. */
#ifdef Py_GIL_DISABLED
#define EXT_BEGIN_CRITICAL_SECTION(object) Py_BEGIN_CRITICAL_SECTION(object)
#define EXT_END_CRITICAL_SECTION()         Py_END_CRITICAL_SECTION()
#else
#define EXT_BEGIN_CRITICAL_SECTION(object) {
#define EXT_END_CRITICAL_SECTION()         }
#endif

/* ---- state ------------------------------------------------------------------------------ */

/* X(type, name): owned references, traversed and cleared with the module. */
#define STATE_OBJECTS(X)                                                                           \
    X(PyTypeObject, queue_type)                                                                    \
    X(PyTypeObject, stage_queue_type)                                                              \
    X(PyTypeObject, queue_iterator_type)                                                           \
    X(PyTypeObject, shared_queue_type)                                                             \
    X(PyTypeObject, shared_queue_iterator_type)                                                    \
    X(PyTypeObject, bucket_type)                                                                   \
    X(PyTypeObject, reservation_type)                                                              \
    X(PyTypeObject, permits_type)                                                                  \
    X(PyTypeObject, backlog_permit_type)                                                           \
    X(PyTypeObject, governor_type)                                                                 \
    X(PyTypeObject, memory_reservation_type)                                                       \
    X(PyTypeObject, pool_permit_type)                                                              \
    X(PyTypeObject, pending_type)                                                                  \
    X(PyTypeObject, coro_type)                                                                     \
    X(PyTypeObject, limiter_type)                                                                  \
    X(PyTypeObject, limit_permit_type)                                                             \
    X(PyTypeObject, limit_block_type)                                                              \
    X(PyTypeObject, failure_type)                                                                  \
    X(PyTypeObject, lease_type)                                                                    \
    X(PyTypeObject, shared_type)                                                                   \
    X(PyTypeObject, future_type)                                                                   \
    X(PyTypeObject, task_future_type)                                                              \
    X(PyTypeObject, thread_pool_type)                                                              \
    X(PyTypeObject, breaker_type)                                                                  \
    X(PyTypeObject, breaker_call_type)                                                             \
    X(PyObject, ready)           /* weir._weir.Ready, the one there is */                          \
    X(PyObject, full)            /* queue.Full */                                                  \
    X(PyObject, empty)           /* queue.Empty */                                                 \
    X(PyObject, shut_down)       /* weir.ShutDown */                                               \
    X(PyObject, too_large)       /* weir.TooLarge */                                               \
    X(PyObject, backlog_full)    /* weir.BacklogFull */                                            \
    X(PyObject, breaker_open)    /* weir.BreakerOpen */                                            \
    X(PyObject, overloaded)      /* weir.Overloaded */                                             \
    X(PyObject, throttled)       /* weir.Throttled */                                              \
    X(PyObject, timeout)         /* weir._errors.Timeout */                                        \
    X(PyObject, dropped)         /* weir.Dropped */                                                \
    X(PyObject, getsizeof)       /* sys.getsizeof */                                               \
    X(PyObject, pickle_dumps)    /* pickle.dumps */                                                \
    X(PyObject, pickle_loads)    /* pickle.loads */                                                \
    X(PyObject, pickle_protocol) /* 5 */                                                           \
    X(PyObject, condition_type)  /* threading.Condition */                                         \
    X(PyObject, base_future)     /* concurrent.futures.Future, and what it raises */               \
    X(PyObject, cancelled_error)                                                                   \
    X(PyObject, invalid_state_error)                                                               \
    X(PyObject, futures_timeout)                                                                   \
    X(PyObject, get_running_loop)  /* asyncio._get_running_loop; NULL: not needed yet */           \
    X(PyObject, str_create_future) /* what is called of loops and their futures */                 \
    X(PyObject, str_call_later)                                                                    \
    X(PyObject, str_call_soon_threadsafe)                                                          \
    X(PyObject, str_set_result)                                                                    \
    X(PyObject, str_done)                                                                          \
    X(PyObject, str_cancel)                                                                        \
    X(PyObject, str_wake)                                                                          \
    X(PyObject, str_pending) /* the states of a future, and other names */                         \
    X(PyObject, str_running)                                                                       \
    X(PyObject, str_cancelled)                                                                     \
    X(PyObject, str_cancelled_and_notified)                                                        \
    X(PyObject, str_finished)                                                                      \
    X(PyObject, str_invoke_callbacks)                                                              \
    X(PyObject, str_pool) /* attributes of weir._process._TaskFuture */                            \
    X(PyObject, str_shared)

typedef struct module_state {
#define X(type, name) type *name;
    STATE_OBJECTS(X)
#undef X
    void *shared_buffers; /* of shared.c: those that live, no references */
    ext_lock shared_lock; /* protects that list */
} module_state;

extern struct PyModuleDef ext_module_def;

/* The state of the module that `type` (ours, or a subclass) comes from; NULL with TypeError. */
module_state *ext_state_of(PyTypeObject *type);

/* A new reference to what the module calls so; NULL with an exception. */
PyObject *ext_import(const char *module_name, const char *name);

/* Makes a heap type, adds it to the module under its short name; a new reference in *ret_type. */
int ext_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **ret_type);

int ext_queue_types_add(PyObject *module, module_state *state);
int ext_shared_queue_types_add(PyObject *module, module_state *state);
int ext_limiter_types_add(PyObject *module, module_state *state);
int ext_pending_types_add(PyObject *module, module_state *state);
int ext_coro_types_add(PyObject *module, module_state *state);
int ext_rate_types_add(PyObject *module, module_state *state);
int ext_governor_types_add(PyObject *module, module_state *state);
int ext_permits_types_add(PyObject *module, module_state *state);
int ext_buffer_types_add(PyObject *module, module_state *state);
int ext_shared_types_add(PyObject *module, module_state *state);
int ext_future_types_add(PyObject *module, module_state *state);
int ext_thread_pool_types_add(PyObject *module, module_state *state);
int ext_pool_types_add(PyObject *module, module_state *state);
int ext_worker_types_add(PyObject *module, module_state *state);
int ext_guard_types_add(PyObject *module, module_state *state);
int ext_breaker_types_add(PyObject *module, module_state *state);
int ext_throttle_types_add(PyObject *module, module_state *state);
int ext_watermark_types_add(PyObject *module, module_state *state);
int ext_pipeline_types_add(PyObject *module, module_state *state);
int ext_monitor_types_add(PyObject *module, module_state *state);

int ext_batch_add(PyObject *module, module_state *state);
int ext_results_add(PyObject *module, module_state *state);

/* What is in a TokenBucketBase, a Limiter and a Breaker, for who waits for it in libweir; NULL with an
 * exception: it is not usable here. */
weir_rate *ext_rate_of(PyObject *bucket);
weir_limit *ext_limit_of(PyObject *limiter);
weir_breaker *ext_breaker_of(PyObject *breaker);

/* results.c: stands for a result that is this exception; NULL: no memory. */
PyObject *ext_failure_new(module_state *state, PyObject *error);

/* batch.c: a small plain value (None, a number, an ASCII str, bytes) as bytes; NULL without an
 * exception: it is none.  And back. */
PyObject *ext_dump_plain(PyObject *value);
PyObject *ext_load_plain(const void *data, size_t size);

/* The status of a reply, as weir._worker has it; one that ext_dump_plain wrote is EXT_REPLY_PLAIN. */
enum { EXT_REPLY_RESULT = 0, EXT_REPLY_EXCEPTION, EXT_REPLY_PLAIN };

/* Runs the items of the batch that the worker has taken, and replies to each: batch.c.  load(view)
 * unpickles, dump(value) and dump_error(exception) pickle.  -1: an exception that ends the worker. */
int ext_run_batch(weir_worker *worker, const char *payload, size_t size, PyObject *load,
                  PyObject *dump, PyObject *dump_error);

/* How often this process image has been forked from another; an object made in generation n is
 * unusable in every other. */
unsigned ext_fork_generation(void);

/* In a forked child, by module.c: forgets the threads that spun when it was forked. */
void ext_handover_forked(void);

/* ---- errors.c --------------------------------------------------------------------------- */

/* Raises what a weir_error means and returns NULL: EFULL queue.Full, EEMPTY queue.Empty, ETIMEDOUT
 * TimeoutError, ECLOSED weir.ShutDown, ETOOBIG weir.TooLarge, EINVAL ValueError, ENOMEM
 * MemoryError, ENOFD, ENOSHM and ESYSTEM OSError, the others RuntimeError.  EINTR: the exception of
 * the signal handler is set already and stays. */
PyObject *ext_raise(module_state *state, int error);

/* The same with a sentence of the caller's as the message. */
PyObject *ext_raise_text(module_state *state, int error, const char *text);

/* The name of what processes share: None or a str; -1 with ValueError or TypeError. */
int ext_parse_shared(PyObject *given, const char **ret);

/* As ext_raise_text, about the shared `what` of that name that could not be had. */
PyObject *ext_raise_shared(module_state *state, int error, const char *what, const char *name);

/* A call that gave the caller something was interrupted too: the exception that is set now is
 * raised by the main thread as soon as it runs Python again, so that what was given is not lost. */
void ext_postpone_exception(void);

/* Of a callback, whose exception nobody can catch: to sys.unraisablehook; but a KeyboardInterrupt, and
 * whatever is no Exception, is raised by the main thread as soon as it runs Python again. */
void ext_report_exception(PyObject *callable);

/* The current exception with its traceback, a new reference, and none is set any more; NULL: none
 * was. */
PyObject *ext_take_exception(void);

/* Sets it again; NULL: none.  Takes the reference. */
void ext_restore_exception(PyObject *error);

/* ---- wait.c ----------------------------------------------------------------------------- */

/* One wait without the GIL; on the stack of the waiting thread. */
typedef struct ext_wait {
    PyThreadState *saved; /* not NULL: this thread has released the GIL */
    struct ext_wait *outer;
    bool hooked, is_main;
    bool (*stop)(void *ctx); /* NULL: none */
    void *stop_ctx;
} ext_wait;

/* Releases the GIL around a libweir call that may wait.  On the main thread signals are handled
 * meanwhile; an exception of a handler ends the call with WEIR_EINTR and is set after end. */
void ext_wait_begin(ext_wait *wait);
void ext_wait_end(ext_wait *wait);

/* Releases the GIL around a wait whose interruption hook is not ours: a pipeline's, in its workers. */
void ext_release_begin(ext_wait *wait);
void ext_release_end(ext_wait *wait);

/* Whether this thread has released the GIL to wait. */
bool ext_is_waiting(void);

/* The same; in any thread, once stop(ctx) is true the call ends with WEIR_EINTR within 50 ms.  It is
 * called without the GIL. */
void ext_wait_begin_until(ext_wait *wait, bool (*stop)(void *ctx), void *ctx);

/* Brackets Python code in a callback from libweir: takes the GIL back if this thread released it
 * for a wait, and puts a pending exception aside. */
typedef struct ext_callback {
    ext_wait *wait;
    PyObject *type, *value, *traceback;
} ext_callback;
void ext_callback_begin(ext_callback *callback);
void ext_callback_end(ext_callback *callback);

#define EXT_FOREVER_NS INT64_MAX

/* Whether Python runs signal handlers in this thread. */
bool ext_on_main_thread(void);

/* None or NULL: EXT_FOREVER_NS; seconds >= 0: nanoseconds, rounded up, inf and huge ones are
 * EXT_FOREVER_NS.  -1 with ValueError (negative, NaN) or TypeError. */
int ext_parse_timeout(PyObject *timeout, const char *name, int64_t *ret_ns);

/* When a wait of ns from now ends: WEIR_POLL for 0, WEIR_FOREVER for EXT_FOREVER_NS. */
weir_time ext_deadline(int64_t ns);

/* ---- buffers.c -------------------------------------------------------------------------- */

/* What a Pool and a Worker do with a lease; both may be called without the GIL, and unshare in a
 * fork handler. */
typedef struct ext_lease_kind {
    void (*release)(PyObject *owner, void *lease);
    void (*unshare)(PyObject *owner, void *lease);
} ext_lease_kind;

/* A writable memoryview of leased data; the lease ends with the last view.  NULL: an exception is
 * set, and the lease has been given back. */
PyObject *ext_lease_view(module_state *state, PyObject *owner, const ext_lease_kind *kind,
                         void *lease, void *data, Py_ssize_t size);

/* Gives back what forked children had, and do not have any more. */
void ext_leases_look(void);
void ext_leases_watch_forks(void);

/* A payload: one buffer, or a list of them. */
typedef struct ext_parts {
    size_t n;
    Py_ssize_t size; /* in all */
    weir_bytes *bytes;
    Py_buffer *views;
    weir_bytes one;
    Py_buffer one_view;
} ext_parts;

int ext_parts_get(PyObject *data, ext_parts *parts); /* -1: an exception is set */
void ext_parts_release(ext_parts *parts);

/* ---- pending.c -------------------------------------------------------------------------- */

/* A coroutine's place in the line of an object; a coro (below) drives it. */
typedef struct ext_pending ext_pending;

/* What an object does with its places.  With the GIL; give_back and forget may also run in a
 * dealloc. */
typedef struct ext_pending_kind {
    /* Joins the line with &pending->core: WEIR_WAITING, or how it ended at once. */
    int (*begin)(ext_pending *pending);
    /* Leaves the line; false: core.ready was called, or is being called. */
    bool (*cancel)(ext_pending *pending);
    /* Returns what was granted and not claimed. */
    void (*give_back)(ext_pending *pending);
    /* A new reference to what the coroutine gets for its grant; NULL with an exception, and then
     * the grant has been given back; NULL without one: it is in line again. */
    PyObject *(*claim)(ext_pending *pending);
    /* Raises what a result below 0 means, or returns a result all the same; NULL: ext_raise. */
    PyObject *(*fail)(ext_pending *pending, int result);
    /* It is over, and was not claimed: whatever its data still holds; NULL: nothing. */
    void (*forget)(ext_pending *pending);
} ext_pending_kind;

/* The places in an object's lines, so that the garbage collector sees who waits there.  Zeroed. */
typedef struct ext_line {
    ext_pending *first;
    ext_lock lock;
} ext_line;

struct ext_pending {
    PyObject_HEAD module_state *module; /* kept alive by the type */
    const ext_pending_kind *kind;
    PyObject *owner; /* what it waits for */
    ext_line *line;  /* the owner's; NULL: it keeps none */
    PyObject
        *ready; /* told when there is something to claim: a coro, or called without arguments */
    weir_pending core;
    uint64_t data[8]; /* the kind's own */
    int result;
    unsigned generation;
    ext_lock lock;
    char state;
    ext_pending *next, *prev; /* in `line` */
};

/* One that has not begun: its data can be filled in. */
ext_pending *ext_pending_new(module_state *state, PyObject *owner, ext_line *line,
                             const ext_pending_kind *kind, PyObject *ready);

/* Joins the line, or is done at once.  Returns the pending, whose reference it takes over. */
PyObject *ext_pending_begin(ext_pending *pending);

bool ext_pending_is_done(const ext_pending *pending);

/* What was waited for, once it is done: a new reference; NULL with an exception; NULL without one: it
 * waits again. */
PyObject *ext_pending_claim(ext_pending *pending);

/* Leaves the line, or gives back; nothing when it is over. */
void ext_pending_cancel(ext_pending *pending);

/* In the owner's traverse; and in its clear: whoever is still there leaves. */
int ext_line_traverse(ext_line *line, visitproc visit, void *arg);
void ext_line_clear(ext_line *line);

/* ---- coro.c ----------------------------------------------------------------------------- */

/* What a method returns that is awaited: a coroutine, as asyncio and others know them. */
typedef struct ext_coro ext_coro;

typedef struct ext_coro_kind {
    const char *name; /* "Queue.aget", for people */
    /* Does it now: a new reference to the result; NULL with an exception; NULL without one: it has
     * to wait, or to time out. */
    PyObject *(*attempt)(ext_coro *coro);
    /* Comes into line; NULL with an exception. */
    ext_pending *(*begin)(ext_coro *coro);
    /* Its place is in line again, which it was not claimed for in vain; NULL: nothing to do. */
    int (*again)(ext_coro *coro);
    /* Its time is over: whether it waits on all the same, until another one; NULL: it does not. */
    bool (*is_patient)(ext_coro *coro);
    /* Has left the line, too late: a result all the same, or an exception; NULL: TimeoutError. */
    PyObject *(*expire)(ext_coro *coro);
    /* It is over: whatever its data still holds; NULL: nothing. */
    void (*forget)(ext_coro *coro);
    /* It was called: whether there is something for the next ones like it, too; a hint.  NULL: where
     * it makes no difference whether others of its thread are quick to follow. */
    bool (*has_plenty)(ext_coro *coro);
} ext_coro_kind;

struct ext_coro {
    PyObject_HEAD module_state *module; /* kept alive by the type */
    const ext_coro_kind *kind;
    PyObject *owner, *argument; /* argument: the kind's own, or NULL */
    uint64_t data[3];           /* the kind's own */
    int64_t timeout_ns;         /* 0: never waits */
    weir_time deadline;         /* once it waits */
    ext_pending *pending;       /* its place, once it waits */
    PyObject *loop;             /* asyncio's, or what weir._aio has for another library's */
    PyObject *sleep;            /* what it awaits; NULL: it is not asleep */
    PyObject *future;           /* that is over when it wakes up; NULL: not asyncio */
    PyObject *timer;            /* NULL: none */
    unsigned long thread;       /* that the loop runs in */
    char state;
    bool is_foreign, has_expired;
};

/* Lets it look, from whatever thread; NULL with RuntimeError where its loop is closed. */
PyObject *ext_coro_ready(ext_coro *coro);

/* -1 with an exception: from now on it waits until then. */
int ext_coro_set_deadline(ext_coro *coro, weir_time deadline);

/* It has not begun. */
ext_coro *ext_coro_new(module_state *state, const ext_coro_kind *kind, PyObject *owner,
                       PyObject *argument, int64_t timeout_ns);

/* ---- item.c ----------------------------------------------------------------------------- */

#define EXT_TUPLE_MAX 192 /* bytes of a tuple that is not pickled */

/* What the data of an item's message lies in. */
typedef struct ext_item {
    PyObject *owner; /* a reference, or NULL */
    union {
        int64_t integer;
        double real;
        char tuple[EXT_TUPLE_MAX];
    } small;
} ext_item;

/* A value of a type that needs no pickle (None, bool, int of 64 bits, float, str, bytes): as
 * below; false: it is none.  And back.  The size of what a tag stands for, or -1: it varies. */
bool ext_plain_encode(PyObject *object, ext_item *to, weir_message *message);
PyObject *ext_plain_decode(const weir_message *message);
int ext_plain_size(unsigned tag);

/* Writes an object; the message is good until to->owner is let go.  -1 with an exception. */
int ext_item_encode(module_state *state, PyObject *object, ext_item *to, weir_message *message);

/* A new reference; NULL with what unpickling raised. */
PyObject *ext_item_decode(module_state *state, const weir_message *message);

/* ---- arguments -------------------------------------------------------------------------- */

/* What the queues have in common (queue.c); -1, or NULL, with an exception.  block= and timeout= as
 * queue.Queue reads them; the others as weir.Queue describes them. */
int ext_parse_block(PyObject *block, PyObject *timeout, int64_t *ret_ns);
int ext_parse_overflow(PyObject *value, bool may_spill, weir_overflow *ret);
int ext_parse_max_age(PyObject *value, int64_t *ret_ns);
int ext_parse_sample(PyObject *value, uint32_t *ret);
PyObject *ext_by_reason(const uint64_t counts[WEIR_DROP_REASONS]);

/* What other processes are to see of a name (a str, or NULL or None): its UTF-8, the str's own; NULL:
 * nothing, or it has lone surrogates, which are good enough for repr. */
const char *ext_shown_name(PyObject *name);

/* Sorts the arguments of a METH_FASTCALL | METH_KEYWORDS call into ret[], one per name, NULL for
 * those not given.  Names up to n_positional may come by position; those up to n_required must
 * come.  names ends with NULL.  -1 with TypeError. */
int ext_parse_args(const char *function, const char *const *names, int n_positional, int n_required,
                   PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames, PyObject **ret);

#endif
