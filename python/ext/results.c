/* results.c - the two ends of map(): taking items from an iterable, and handing results out.
 *
 * Results holds what is there and asks its subclass (weir._map.MapIterator) for more; a Failure
 * among the results is raised.
 */
#include "module.h"

#include <structmember.h>

typedef struct Failure {
    PyObject_HEAD PyObject *error;
} Failure;

PyObject *ext_failure_new(module_state *state, PyObject *error)
{
    Failure *failure = (Failure *)state->failure_type->tp_alloc(state->failure_type, 0);
    if (failure)
        failure->error = Py_NewRef(error);
    return (PyObject *)failure;
}

/* ---- Failure ------------------------------------------------------------------------------- */

static int failure_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((Failure *)object)->error);
    return 0;
}

static int failure_clear(PyObject *object)
{
    Py_CLEAR(((Failure *)object)->error);
    return 0;
}

static void failure_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    failure_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *failure_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"", NULL};
    PyObject *error;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Failure", names, &error))
        return NULL;
    if (!PyExceptionInstance_Check(error))
        return PyErr_Format(PyExc_TypeError, "Failure() needs an exception, not %R", error);
    Failure *self = (Failure *)type->tp_alloc(type, 0);
    if (self)
        self->error = Py_NewRef(error);
    return (PyObject *)self;
}

static PyMemberDef failure_members[] = {
    {"error", T_OBJECT, offsetof(Failure, error), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot failure_slots[] = {
    {Py_tp_doc, (void *)"Failure(error, /)\n--\n\nStands for a result that is an exception."},
    {Py_tp_members, failure_members},
    {Py_tp_new, failure_new},
    {Py_tp_dealloc, failure_dealloc},
    {Py_tp_traverse, failure_traverse},
    {Py_tp_clear, failure_clear},
    {0, NULL},
};

static PyType_Spec failure_spec = {
    .name = "weir._weir.Failure",
    .basicsize = sizeof(Failure),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = failure_slots,
};

/* ---- Results ------------------------------------------------------------------------------- */

/* The iterator under weir._map.MapIterator: what is there is handed out here, the rest is a method
 * of the subclass. */
typedef struct Results {
    PyObject_HEAD module_state *state;
    ext_lock lock;
    PyObject *ready; /* a list of ours alone; NULL: nothing */
    Py_ssize_t at;   /* those before it are handed out */
} Results;

static PyObject *Results_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
                             PyObject *Py_UNUSED(kwargs))
{
    module_state *state = ext_state_of(type);
    Results *self = state ? (Results *)type->tp_alloc(type, 0) : NULL;
    if (self)
        self->state = state;
    return (PyObject *)self;
}

/* The next that is there; NULL, without an exception: none is. */
static PyObject *pop(Results *self)
{
    PyObject *result = NULL, *done = NULL;
    EXT_LOCK(&self->lock);
    if (self->ready) {
        result = PyList_GET_ITEM(self->ready, self->at);
        PyList_SET_ITEM(self->ready, self->at, NULL); /* the reference is ours */
        if (++self->at == PyList_GET_SIZE(self->ready)) {
            done = self->ready;
            self->ready = NULL;
        }
    }
    EXT_UNLOCK(&self->lock);
    Py_XDECREF(done);
    return result;
}

/* Raises what an item raised.  It must not look like the end of the iteration. */
static void raise_failure(PyObject *error)
{
    if (!PyErr_GivenExceptionMatches(error, PyExc_StopIteration)) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        return;
    }
    PyErr_SetString(PyExc_RuntimeError, "the function raised StopIteration");
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyException_SetCause(value, Py_NewRef(error));
    PyErr_Restore(type, value, traceback);
}

static PyObject *Results_next(PyObject *object)
{
    Results *self = (Results *)object;
    PyObject *result;
    while (!(result = pop(self))) {
        PyObject *rc = PyObject_CallMethod(object, "_advance", NULL);
        if (!rc)
            return NULL;
        Py_DECREF(rc);
    }
    if (!Py_IS_TYPE(result, self->state->failure_type))
        return result;
    raise_failure(((Failure *)result)->error);
    Py_DECREF(result);
    return NULL;
}

PyDoc_STRVAR(load_doc, "_load($self, results, /)\n--\n\n"
                       "Hand these out next, when nothing is ready; the list is copied.");

static PyObject *Results_load(PyObject *object, PyObject *results)
{
    Results *self = (Results *)object;
    PyObject *ready = PySequence_List(results);
    if (!ready)
        return NULL;
    if (PyList_GET_SIZE(ready) == 0)
        Py_CLEAR(ready);
    EXT_LOCK(&self->lock);
    PyObject *before = self->ready;
    self->ready = ready;
    self->at = 0;
    EXT_UNLOCK(&self->lock);
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(count_doc, "_count($self, /)\n--\n\nHow many are ready.");

static PyObject *Results_count(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Results *self = (Results *)object;
    EXT_LOCK(&self->lock);
    Py_ssize_t n = self->ready ? PyList_GET_SIZE(self->ready) - self->at : 0;
    EXT_UNLOCK(&self->lock);
    return PyLong_FromSsize_t(n);
}

static int Results_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((Results *)object)->ready);
    return 0;
}

static int Results_clear(PyObject *object)
{
    Py_CLEAR(((Results *)object)->ready);
    return 0;
}

static void Results_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Results_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef results_methods[] = {
    {"_load", Results_load, METH_O, load_doc},
    {"_count", Results_count, METH_NOARGS, count_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot results_slots[] = {
    {Py_tp_doc,
     (void *)"Results()\n--\n\nHands results out; _advance() of a subclass loads more, or "
             "raises StopIteration."},
    {Py_tp_new, Results_new},
    {Py_tp_dealloc, Results_dealloc},
    {Py_tp_traverse, Results_traverse},
    {Py_tp_clear, Results_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, Results_next},
    {Py_tp_methods, results_methods},
    {0, NULL},
};

static PyType_Spec results_spec = {
    .name = "weir._weir.Results",
    .basicsize = sizeof(Results),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = results_slots,
};

/* ---- taking from an iterator ---------------------------------------------------------------- */

PyDoc_STRVAR(
    take_items_doc,
    "take_items(iterator, into, size, patience, /)\n--\n\n"
    "Append the next items to the list until it has `size`, or `patience` seconds (< 0: any "
    "number) have passed and it has one; False: the iterator is at its end.");

/* So many items may be taken between two looks at the clock, if the last ones came quickly. */
#define CLOCK_EVERY 16
#define QUICK_NS    (2 * WEIR_MICROSECOND)

static PyObject *take_items(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *iterator, *into;
    Py_ssize_t size;
    double patience;
    if (!PyArg_ParseTuple(args, "OO!nd:take_items", &iterator, &PyList_Type, &into, &size,
                          &patience))
        return NULL;
    weir_time now = weir_now();
    weir_time latest = patience < 0 ? WEIR_FOREVER : now + (int64_t)(patience * 1e9);
    Py_ssize_t until_clock = 1;
    while (PyList_GET_SIZE(into) < size) {
        PyObject *value = PyIter_Next(iterator);
        if (!value) {
            if (PyErr_Occurred())
                return NULL;
            Py_RETURN_FALSE;
        }
        int rc = PyList_Append(into, value);
        Py_DECREF(value);
        if (rc < 0)
            return NULL;
        if (--until_clock == 0) {
            weir_time before = now;
            now = weir_now();
            if (now > latest)
                break;
            until_clock = now - before < QUICK_NS ? CLOCK_EVERY : 1;
        }
    }
    Py_RETURN_TRUE;
}

static PyMethodDef functions[] = {
    {"take_items", take_items, METH_VARARGS, take_items_doc},
    {NULL, NULL, 0, NULL},
};

int ext_results_add(PyObject *module, module_state *state)
{
    PyTypeObject *type;
    if (ext_add_type(module, &failure_spec, &state->failure_type) < 0 ||
        ext_add_type(module, &results_spec, &type) < 0)
        return -1;
    Py_DECREF(type); /* the module keeps it */
    return PyModule_AddFunctions(module, functions);
}
