/* errors.c - one table from weir_error to exceptions.
 *
 * Each row of WEIR_ERROR_MAP has to appear in the switch below: the compiler warns about a new one.
 */
#include "module.h"

#include <errno.h>

static PyObject *exception_for(module_state *state, weir_error error)
{
    switch (error) {
    case WEIR_EFULL: return state->full;
    case WEIR_EEMPTY: return state->empty;
    case WEIR_ETIMEDOUT: return PyExc_TimeoutError;
    case WEIR_ECLOSED: return state->shut_down;
    case WEIR_ESHED: return state->overloaded;
    case WEIR_EOPEN: return state->breaker_open;
    case WEIR_ETOOBIG: return state->too_large;
    case WEIR_EINVAL: return PyExc_ValueError;
    case WEIR_ENOMEM: return PyExc_MemoryError;
    case WEIR_ENOFD:
    case WEIR_ENOSHM:
    case WEIR_ESYSTEM: return PyExc_OSError;
    case WEIR_OK:
    case WEIR_EINTR: /* only where no hook was set: nobody raised anything */
    case WEIR_ESPAWN:
    case WEIR_EDIED:
    case WEIR_ENOTASK:
    case WEIR_EDEADLK: break;
    }
    return PyExc_RuntimeError;
}

static int errno_for(weir_error error)
{
    return error == WEIR_ENOFD ? EMFILE : error == WEIR_ENOSHM ? ENOSPC : EIO;
}

PyObject *ext_raise_text(module_state *state, int error, const char *text)
{
    if (error == WEIR_EINTR && PyErr_Occurred())
        return NULL;
    PyObject *exception = exception_for(state, (weir_error)error);
    if (!exception) /* the module was cleared: the interpreter is ending */
        exception = PyExc_RuntimeError;
    if (exception == PyExc_OSError) {
        PyObject *arguments = Py_BuildValue("(is)", errno_for((weir_error)error), text);
        if (arguments)
            PyErr_SetObject(exception, arguments);
        Py_XDECREF(arguments);
    } else {
        PyErr_SetString(exception, text);
    }
    return NULL;
}

PyObject *ext_raise(module_state *state, int error)
{
    /* As the standard library: Full and Empty come without a text. */
    if (error == WEIR_EFULL || error == WEIR_EEMPTY) {
        PyObject *exception = exception_for(state, (weir_error)error);
        PyErr_SetNone(exception ? exception : PyExc_RuntimeError);
        return NULL;
    }
    return ext_raise_text(state, error, weir_strerror(error));
}

static int raise_postponed(void *arg)
{
    PyObject *exception = arg;
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_DECREF(exception);
    return -1;
}

void ext_postpone_exception(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback)
        PyException_SetTraceback(value, traceback);
    if (Py_AddPendingCall(raise_postponed, Py_NewRef(value)) < 0) { /* its table is full */
        Py_DECREF(value);
        PyErr_Restore(type, value, traceback);
        PyErr_WriteUnraisable(NULL);
        return;
    }
    Py_DECREF(type);
    Py_DECREF(value);
    Py_XDECREF(traceback);
}

PyObject *ext_take_exception(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback && value)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}
