/* errors.c - one table from weir_error to exceptions.
 *
 * Each row of WEIR_ERROR_MAP has to appear in the switch below: the compiler warns about a new one.
 */
#include "module.h"

#include <errno.h>
#include <string.h>

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
    case WEIR_ENOSPC:
    case WEIR_EBUSY:
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
    switch (error) {
    case WEIR_ENOFD: return EMFILE;
    case WEIR_ENOSHM:
    case WEIR_ENOSPC: return ENOSPC;
    case WEIR_EBUSY: return EBUSY;
    default: return EIO;
    }
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

void ext_report_exception(PyObject *callable)
{
    if (PyErr_ExceptionMatches(PyExc_Exception))
        PyErr_WriteUnraisable(callable);
    else
        ext_postpone_exception();
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

void ext_restore_exception(PyObject *error)
{
    if (error)
        PyErr_Restore(Py_NewRef(Py_TYPE(error)), error, PyException_GetTraceback(error));
}

/* ---- what processes share by name ----------------------------------------------------------- */

int ext_parse_shared(PyObject *given, const char **ret)
{
    *ret = NULL;
    if (!given || given == Py_None)
        return 0;
    if (!PyUnicode_Check(given)) {
        PyErr_Format(PyExc_TypeError, "'shared' must be a str or None, not %R", given);
        return -1;
    }
    Py_ssize_t size;
    const char *name = PyUnicode_AsUTF8AndSize(given, &size);
    if (!name)
        return -1;
    bool is_name = size > 0 && size <= 64 && name[0] != '.';
    for (Py_ssize_t i = 0; is_name && i < size; i++)
        is_name = Py_ISALNUM(name[i]) || (name[i] && strchr("._-", name[i]));
    if (!is_name) {
        PyErr_Format(
            PyExc_ValueError,
            "'shared' must be a name of 1 to 64 letters, digits, '.', '_' and '-' that does "
            "not begin with '.'; not %R",
            given);
        return -1;
    }
    *ret = name;
    return 0;
}

PyObject *ext_raise_shared(module_state *state, int error, const char *what, const char *name)
{
    char text[400];
    const char *why = weir_strerror(error);
    switch (error) {
    case WEIR_EINVAL:
        why = "what lies in /dev/shm under that name was not made by this user and this version of "
              "weir with the same options (partitions, say): remove it, or choose another name";
        break;
    case WEIR_ENOSHM: why = "there is no room for it in /dev/shm"; break;
    case WEIR_ESYSTEM: why = "it lies in /dev/shm, which has to be there, and writable"; break;
    case WEIR_EFULL: why = "1024 processes have it already"; break;
    case WEIR_ETIMEDOUT: why = "a process was stopped in the middle of a call on it"; break;
    default: break;
    }
    snprintf(text, sizeof text, "shared='%s': cannot have this %s: %s", name, what, why);
    if (error == WEIR_EINVAL)
        PyErr_SetString(PyExc_ValueError, text);
    else if (error == WEIR_EFULL)
        PyErr_SetString(PyExc_RuntimeError, text);
    else
        ext_raise_text(state, error, text);
    return NULL;
}
