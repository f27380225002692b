/* wait.c - the one way to wait: without the GIL, with signals, with a deadline that does not move.
 *
 * A call first tries with WEIR_POLL and the GIL held; only if that would have to wait it releases
 * the GIL between ext_wait_begin and ext_wait_end.  The thread's innermost wait is noted, so that a
 * callback from libweir knows whether its thread holds the GIL.
 *
 * Signals:    Python's handlers run on the main thread.  There libweir asks `on_interrupt` when a
 *             signal ended the sleep, and every 50 ms for signals that another thread received.
 *             The waiter keeps its place in line, whatever the handler does, unless it raises.
 * Stopping:   who waits for one thing because of another (memory, to put into a queue) brings a
 *             function that says whether that is still so; it is asked at the same times.
 * Exit:       a daemon thread that waits while the interpreter ends never comes back from
 *             PyEval_RestoreThread.  It is then outside of libweir (its hook, if it has one, does not
 *             take the GIL), so nothing of its stack is referred to by a queue.
 */
#include "module.h"

#include <math.h>
#include <unistd.h>

static _Thread_local ext_wait *innermost;

static int on_interrupt(void *ctx)
{
    ext_wait *wait = ctx;
    if (wait->stop && wait->stop(wait->stop_ctx))
        return 1;
    if (!wait->is_main)
        return 0;
    PyThreadState *saved = wait->saved;
    wait->saved = NULL;
    PyEval_RestoreThread(saved);
    int raised = PyErr_Occurred() || PyErr_CheckSignals() < 0;
    wait->saved = PyEval_SaveThread();
    return raised;
}

/* NULL: none.  It is the thread's own, so this is cheap. */
static void set_hook(ext_wait *wait)
{
    weir_set_interrupt(wait ? on_interrupt : NULL, wait);
}

/* Python runs signal handlers there and nowhere else.  Asked for every wait, so the kernel is asked
 * once for each thread; again in a forked child, whose main thread was another one here. */
bool ext_on_main_thread(void)
{
    static _Thread_local struct {
        bool is_known, is_main;
        unsigned generation;
    } self;
    unsigned generation = ext_fork_generation();
    if (!self.is_known || self.generation != generation) {
        self.is_known = true;
        self.generation = generation;
        self.is_main = PyThread_get_thread_native_id() == (unsigned long)getpid();
    }
    return self.is_main;
}

void ext_wait_begin_until(ext_wait *wait, bool (*stop)(void *ctx), void *ctx)
{
    wait->stop = stop;
    wait->stop_ctx = ctx;
    wait->is_main = ext_on_main_thread();
    wait->hooked = wait->is_main || stop;
    wait->outer = innermost;
    innermost = wait;
    set_hook(wait->hooked ? wait : NULL);
    wait->saved = PyEval_SaveThread();
}

void ext_wait_begin(ext_wait *wait)
{
    ext_wait_begin_until(wait, NULL, NULL);
}

void ext_wait_end(ext_wait *wait)
{
    PyThreadState *saved = wait->saved;
    wait->saved = NULL;
    innermost = wait->outer;
    /* A handler may wait inside our wait: the outer one gets its hook back. */
    set_hook(wait->outer && wait->outer->hooked ? wait->outer : NULL);
    PyEval_RestoreThread(saved);
}

void ext_release_begin(ext_wait *wait)
{
    *wait = (ext_wait){.outer = innermost};
    innermost = wait;
    wait->saved = PyEval_SaveThread();
}

void ext_release_end(ext_wait *wait)
{
    PyThreadState *saved = wait->saved;
    wait->saved = NULL;
    innermost = wait->outer;
    PyEval_RestoreThread(saved);
}

bool ext_is_waiting(void)
{
    return innermost && innermost->saved;
}

void ext_callback_begin(ext_callback *callback)
{
    ext_wait *wait = innermost;
    callback->wait = wait && wait->saved ? wait : NULL;
    if (callback->wait) {
        PyThreadState *saved = wait->saved;
        wait->saved = NULL;
        PyEval_RestoreThread(saved);
    }
    PyErr_Fetch(&callback->type, &callback->value, &callback->traceback);
}

void ext_callback_end(ext_callback *callback)
{
    PyErr_Restore(callback->type, callback->value, callback->traceback);
    if (callback->wait)
        callback->wait->saved = PyEval_SaveThread();
}

int ext_parse_timeout(PyObject *timeout, const char *name, int64_t *ret_ns)
{
    if (!timeout || timeout == Py_None) {
        *ret_ns = EXT_FOREVER_NS;
        return 0;
    }
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError) || !PyLong_Check(timeout))
            return -1;
        PyErr_Clear(); /* an int beyond every float */
        PyObject *zero = PyLong_FromLong(0);
        int negative = zero ? PyObject_RichCompareBool(timeout, zero, Py_LT) : -1;
        Py_XDECREF(zero);
        if (negative < 0)
            return -1;
        seconds = negative ? -1.0 : HUGE_VAL;
    }
    if (isnan(seconds)) {
        PyErr_Format(PyExc_ValueError, "'%s' must not be NaN", name);
        return -1;
    }
    if (seconds < 0) {
        PyErr_Format(PyExc_ValueError, "'%s' must be a non-negative number", name);
        return -1;
    }
    double ns = ceil(seconds * 1e9);
    *ret_ns = ns >= 9.2e18 ? EXT_FOREVER_NS : (int64_t)ns;
    return 0;
}

weir_time ext_deadline(int64_t ns)
{
    return ns == EXT_FOREVER_NS ? WEIR_FOREVER : weir_after(ns);
}
