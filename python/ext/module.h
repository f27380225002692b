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

/* ---- state ------------------------------------------------------------------------------ */

/* X(type, name): owned references, traversed and cleared with the module. */
#define STATE_OBJECTS(X)                                                                           \
    X(PyTypeObject, queue_type)                                                                    \
    X(PyTypeObject, queue_iterator_type)                                                           \
    X(PyTypeObject, shared_queue_type)                                                             \
    X(PyTypeObject, shared_queue_iterator_type)                                                    \
    X(PyTypeObject, permits_type)                                                                  \
    X(PyTypeObject, pool_permit_type)                                                              \
    X(PyObject, full)              /* queue.Full */                                                \
    X(PyObject, empty)             /* queue.Empty */                                               \
    X(PyObject, shut_down)         /* weir.ShutDown */                                             \
    X(PyObject, too_large)         /* weir.TooLarge */                                             \
    X(PyObject, stats_type)        /* weir._stats.QueueStats */                                    \
    X(PyObject, shared_stats_type) /* weir._stats.SharedQueueStats */                              \
    X(PyObject, getsizeof)         /* sys.getsizeof */                                             \
    X(PyObject, pickle_dumps)      /* pickle.dumps */                                              \
    X(PyObject, pickle_loads)      /* pickle.loads */                                              \
    X(PyObject, pickle_protocol)   /* 5 */

typedef struct module_state {
#define X(type, name) type *name;
    STATE_OBJECTS(X)
#undef X
} module_state;

extern struct PyModuleDef ext_module_def;

/* The state of the module that `type` (ours, or a subclass) comes from; NULL with TypeError. */
module_state *ext_state_of(PyTypeObject *type);

/* Makes a heap type, adds it to the module under its short name; a new reference in *ret_type. */
int ext_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **ret_type);

int ext_queue_types_add(PyObject *module, module_state *state);
int ext_shared_queue_types_add(PyObject *module, module_state *state);
int ext_permits_types_add(PyObject *module, module_state *state);
/* Weak: the module builds and loads without the files that bring them. */
__attribute__((weak)) int ext_pool_types_add(PyObject *module, module_state *state);
__attribute__((weak)) int ext_worker_types_add(PyObject *module, module_state *state);

/* How often this process image has been forked from another; an object made in generation n is
 * unusable in every other. */
unsigned ext_fork_generation(void);

/* ---- errors.c --------------------------------------------------------------------------- */

/* Raises what a weir_error means and returns NULL: EFULL queue.Full, EEMPTY queue.Empty, ETIMEDOUT
 * TimeoutError, ECLOSED weir.ShutDown, ETOOBIG weir.TooLarge, EINVAL ValueError, ENOMEM
 * MemoryError, ENOFD, ENOSHM and ESYSTEM OSError, the others RuntimeError.  EINTR: the exception of
 * the signal handler is set already and stays. */
PyObject *ext_raise(module_state *state, int error);

/* The same with a sentence of the caller's as the message. */
PyObject *ext_raise_text(module_state *state, int error, const char *text);

/* A call that gave the caller something was interrupted too: the exception that is set now is
 * raised by the main thread as soon as it runs Python again, so that what was given is not lost. */
void ext_postpone_exception(void);

/* ---- wait.c ----------------------------------------------------------------------------- */

/* One wait without the GIL; on the stack of the waiting thread. */
typedef struct ext_wait {
    PyThreadState *saved; /* not NULL: this thread has released the GIL */
    struct ext_wait *outer;
    bool hooked;
} ext_wait;

/* Releases the GIL around a libweir call that may wait.  On the main thread signals are handled
 * meanwhile; an exception of a handler ends the call with WEIR_EINTR and is set after end. */
void ext_wait_begin(ext_wait *wait);
void ext_wait_end(ext_wait *wait);

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

/* Writes an object; the message is good until to->owner is let go.  -1 with an exception. */
int ext_item_encode(module_state *state, PyObject *object, ext_item *to, weir_message *message);

/* A new reference; NULL with what unpickling raised. */
PyObject *ext_item_decode(module_state *state, const weir_message *message);

/* ---- arguments -------------------------------------------------------------------------- */

/* What the queues have in common (queue.c); -1, or NULL, with an exception.  block= and timeout= as
 * queue.Queue reads them; the others as weir.Queue describes them. */
int ext_parse_block(PyObject *block, PyObject *timeout, int64_t *ret_ns);
int ext_parse_overflow(PyObject *value, weir_overflow *ret);
int ext_parse_max_age(PyObject *value, int64_t *ret_ns);
int ext_parse_sample(PyObject *value, uint32_t *ret);
PyObject *ext_by_reason(const uint64_t counts[WEIR_DROP_REASONS]);

/* Sorts the arguments of a METH_FASTCALL | METH_KEYWORDS call into ret[], one per name, NULL for
 * those not given.  Names up to n_positional may come by position; those up to n_required must
 * come.  names ends with NULL.  -1 with TypeError. */
int ext_parse_args(const char *function, const char *const *names, int n_positional, int n_required,
                   PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames, PyObject **ret);

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

#endif
