/* guard.c - see guard.h; and weir._weir.Ready, which is awaited at once. */
#include "guard.h"

/* ---- judging -------------------------------------------------------------------------------- */

static bool is_exception_class(PyObject *object)
{
    return PyExceptionClass_Check(object);
}

/* A class of exceptions, or a tuple of them. */
static bool is_classes(PyObject *object)
{
    if (!PyTuple_Check(object))
        return is_exception_class(object);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); i++)
        if (!is_exception_class(PyTuple_GET_ITEM(object, i)))
            return false;
    return true;
}

int ext_judge_init(ext_judge *judge, PyObject *failures, PyObject *ignored)
{
    if (!is_classes(failures) && !PyCallable_Check(failures)) {
        PyErr_Format(PyExc_TypeError,
                     "'is_failure' must be a class of exceptions, a tuple of them, or a callable "
                     "that takes the exception, not %R",
                     failures);
        return -1;
    }
    if (!is_classes(ignored)) {
        PyErr_Format(PyExc_TypeError,
                     "'ignore' must be a class of exceptions or a tuple of them, not %R", ignored);
        return -1;
    }
    judge->failures = Py_NewRef(failures);
    judge->ignored = Py_NewRef(ignored);
    return 0;
}

void ext_judge_clear(ext_judge *judge)
{
    Py_CLEAR(judge->failures);
    Py_CLEAR(judge->ignored);
}

/* What the callable says; one that raises is told to the unraisable hook, and the call has failed. */
static weir_call_result ask(PyObject *callable, PyObject *error)
{
    PyObject *answer = PyObject_CallOneArg(callable, error);
    int truth = answer && answer != Py_None ? PyObject_IsTrue(answer) : -1;
    bool ignored = answer == Py_None;
    Py_XDECREF(answer);
    if (ignored)
        return WEIR_CALL_IGNORED;
    if (truth < 0)
        PyErr_WriteUnraisable(callable);
    return truth == 0 ? WEIR_CALL_SUCCESS : WEIR_CALL_FAILURE;
}

weir_call_result ext_judge_result(const ext_judge *judge, module_state *state, PyObject *error)
{
    if (!error || error == Py_None)
        return WEIR_CALL_SUCCESS;
    if (!judge->failures) /* taken apart by the garbage collector */
        return WEIR_CALL_IGNORED;
    if (PyErr_GivenExceptionMatches(error, judge->ignored))
        return WEIR_CALL_IGNORED;
    bool listed = is_classes(judge->failures);
    if (listed && judge->failures != PyExc_Exception &&
        PyErr_GivenExceptionMatches(error, judge->failures))
        return WEIR_CALL_FAILURE;
    /* Cancelled, interrupted, or closed: it says nothing about what was called. */
    if (!PyErr_GivenExceptionMatches(error, PyExc_Exception) ||
        (state->cancelled_error && PyErr_GivenExceptionMatches(error, state->cancelled_error)))
        return WEIR_CALL_IGNORED;
    if (listed)
        return judge->failures == PyExc_Exception ? WEIR_CALL_FAILURE : WEIR_CALL_SUCCESS;
    return ask(judge->failures, error);
}

weir_call_result ext_judge_raised(const ext_judge *judge, module_state *state)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    weir_call_result result = ext_judge_result(judge, state, value);
    PyErr_Restore(type, value, traceback);
    return result;
}

/* ---- Ready ---------------------------------------------------------------------------------- */

static PyObject *ready_iter(PyObject *self)
{
    return Py_NewRef(self);
}

static PyObject *ready_next(PyObject *Py_UNUSED(self))
{
    return NULL; /* it has ended, with None */
}

static PyType_Slot ready_slots[] = {
    {Py_tp_doc, (void *)"An awaitable that has its result, None."},
    {Py_am_await, ready_iter},
    {Py_tp_iter, ready_iter},
    {Py_tp_iternext, ready_next},
    {0, NULL},
};

static PyType_Spec ready_spec = {
    .name = "weir._weir.Ready",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = ready_slots,
};

PyObject *ext_ready(module_state *state)
{
    if (!state->ready) {
        PyErr_SetString(PyExc_RuntimeError, "the interpreter is ending");
        return NULL;
    }
    return Py_NewRef(state->ready);
}

int ext_guard_types_add(PyObject *module, module_state *state)
{
    PyTypeObject *type;
    if (ext_add_type(module, &ready_spec, &type) < 0)
        return -1;
    state->ready = type->tp_alloc(type, 0);
    Py_DECREF(type);
    return state->ready ? 0 : -1;
}
