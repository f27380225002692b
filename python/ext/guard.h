/* guard.h - what the guards of calls have in common: breaker.c and throttle.c.
 *
 * Forks:      a guard is often made when a module is imported, and its functions then run in forked
 *             workers.  So a child does not refuse it: it has one of its own, which begins anew.
 */
#ifndef WEIR_EXT_GUARD_H
#define WEIR_EXT_GUARD_H

#include "module.h"

/* What an exception says about what was called. */
typedef struct ext_judge {
    PyObject *failures; /* a class, a tuple of classes, or a callable: error -> True, False, None */
    PyObject *ignored;  /* a class or a tuple of classes */
} ext_judge;

/* Takes new references; -1 with TypeError. */
int ext_judge_init(ext_judge *judge, PyObject *failures, PyObject *ignored);
void ext_judge_clear(ext_judge *judge);

/* Of an exception (NULL or None: there was none).  Raises nothing. */
weir_call_result ext_judge_result(const ext_judge *judge, module_state *state, PyObject *error);

/* The same of the exception that is set, which stays. */
weir_call_result ext_judge_raised(const ext_judge *judge, module_state *state);

/* A new reference to what `async with` awaits when there is nothing to wait for. */
PyObject *ext_ready(module_state *state);

#endif
