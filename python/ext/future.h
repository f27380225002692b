/* future.h - weir._weir.LazyFuture from the inside, for the files whose tasks have such futures. */
#ifndef WEIR_EXT_FUTURE_H
#define WEIR_EXT_FUTURE_H

#include "handover.h"

#include <structmember.h> /* PyMemberDef, before 3.12 */

typedef enum ext_future_state {
    EXT_PENDING = 0,
    EXT_RUNNING,
    EXT_CANCELLED, /* those who wait in wait() and as_completed() have not been told */
    EXT_CANCELLED_AND_NOTIFIED,
    EXT_FINISHED,
} ext_future_state;

/* The head of a thread pool, which is what completes futures. */
typedef struct ext_completer {
    PyObject_HEAD ext_turns turns;
} ext_completer;

/* thread_pool.c: this thread is about to wait for a future of the pool.  If it is a worker, another
 * has to run what is in line. */
void ext_thread_pool_before_wait(ext_completer *completer);

typedef struct ext_future_waiter ext_future_waiter;

typedef struct ext_future {
    PyObject_HEAD void *of_base[2]; /* __dict__ and weak references, where Python keeps them */
    PyObject *result, *exception;   /* NULL: None */
    PyObject *condition;            /* threading.Condition; NULL: nobody has asked for it */
    PyObject *waiters, *callbacks;  /* lists; NULL: empty */
    ext_completer *completer;       /* NULL: not known, or it has ended */
    ext_future_waiter *first;       /* threads in result() and exception() */
    _Atomic uint8_t state;          /* of ext_future_state; written under the lock */
    ext_lock lock;
} ext_future;

/* What PyType_FromSpec needs to know of the fields above: the collector's view of them. */
#define EXT_FUTURE_MEMBERS                                                                         \
    EXT_SLOT("(result)", ext_future, result), EXT_SLOT("(exception)", ext_future, exception),      \
        EXT_SLOT("(condition)", ext_future, condition),                                            \
        EXT_SLOT("(waiters)", ext_future, waiters),                                                \
        EXT_SLOT("(callbacks)", ext_future, callbacks),                                            \
        EXT_SLOT("(completer)", ext_future, completer)

#define EXT_SLOT(name, type, field) {name, T_OBJECT_EX, offsetof(type, field), 0, NULL}

/* Makes a type whose instances begin with an ext_future, on `base`: it has the slots in `members`,
 * as if __slots__ had named them, but nobody can see them. */
int ext_future_add_type(PyObject *module, PyType_Spec *spec, PyObject *base,
                        const PyMemberDef *members, PyTypeObject **ret_type);

static inline ext_future_state ext_future_get_state(ext_future *future)
{
    /* acquire: pairs with the release in set_state; the result is there */
    return atomic_load_explicit(&future->state, memory_order_acquire);
}

/* A future that nobody has seen yet; NULL with MemoryError. */
ext_future *ext_future_new(PyTypeObject *type);

/* A change of state: begin, change, end.  Between begin and end the condition, if there is one, is
 * held, and no Python code runs.  begin: -1 with an exception, nothing held. */
typedef struct ext_future_change {
    ext_future *future;
    PyObject *lock;    /* of the condition; NULL: there is none */
    PyObject *garbage; /* what the future referred to before */
} ext_future_change;

int ext_future_begin(ext_future_change *change, ext_future *future);
/* result, exception: new references or NULL. */
void ext_future_set(ext_future_change *change, ext_future_state state, PyObject *result,
                    PyObject *exception);
/* Tells everybody who has to know of the state that was set, which is final; -1: one of them raised, but all have
 * been told. */
int ext_future_end(ext_future_change *change, module_state *state);

/* Instead of end: nothing was set.  -1 with an exception. */
int ext_future_abandon(ext_future_change *change);

/* All three in one, with references of its own; for a future that is PENDING or RUNNING, else it
 * raises InvalidStateError. */
int ext_future_finish(module_state *state, ext_future *future, PyObject *result,
                      PyObject *exception);

/* PENDING -> RUNNING: 1, or 0: cancelled; -1 with an exception. */
int ext_future_start(module_state *state, ext_future *future);

#endif
