/* worker.c - weir._weir.Worker: a worker's end of a process pool; weir._worker runs tasks on it. */
#include "module.h"

typedef struct {
    PyObject_HEAD weir_worker *worker;
    module_state *state;
    weir_task task; /* taken last */
} Worker;

static PyObject *worker_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"memory_fd", "bell_fd", "parent_fd", "seat", NULL};
    weir_worker_ticket ticket;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iiiI:Worker", names, &ticket.memory_fd,
                                     &ticket.bell_fd, &ticket.parent_fd, &ticket.seat))
        return NULL;
    Worker *self = (Worker *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->state = ext_state_of(type);
    int rc = self->state ? weir_worker_open(&self->worker, &ticket) : 0;
    if (rc == WEIR_EINVAL)
        PyErr_SetString(PyExc_RuntimeError,
                        "the parent's channel is not one of this version of weir");
    else if (rc < 0)
        ext_raise(self->state, rc);
    if (rc == 0 && self->state)
        return (PyObject *)self;
    Py_DECREF(self);
    return NULL;
}

static void worker_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    weir_worker_close(((Worker *)object)->worker);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *worker_ready(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    weir_worker_ready(((Worker *)object)->worker);
    Py_RETURN_NONE;
}

static PyObject *worker_fail(PyObject *object, PyObject *message)
{
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(message, &data, &size) < 0)
        return NULL;
    weir_worker_fail(((Worker *)object)->worker, data, (size_t)size);
    Py_RETURN_NONE;
}

/* take(): the next task's bytes, readable until reply; True: run_batch is to run it; None: leave. */
static PyObject *worker_take(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Worker *self = (Worker *)object;
    weir_task *task = &self->task;
    int rc = weir_worker_take(self->worker, task, WEIR_POLL);
    while (rc == WEIR_EEMPTY || rc == WEIR_ENOSHM) { /* ENOSHM: that task has failed, the next */
        ext_wait wait;
        ext_wait_begin(&wait);
        rc = weir_worker_take(self->worker, task, WEIR_FOREVER);
        ext_wait_end(&wait);
    }
    if (rc == WEIR_ECLOSED)
        Py_RETURN_NONE;
    if (rc < 0)
        return ext_raise(self->state, rc);
    if (task->is_batch)
        Py_RETURN_TRUE;
    return PyMemoryView_FromMemory((char *)task->data, (Py_ssize_t)task->size, PyBUF_READ);
}

/* run_batch(load, dump, dump_error): each item of the batch taken last, with a reply to each. */
static PyObject *worker_run_batch(PyObject *object, PyObject *args)
{
    Worker *self = (Worker *)object;
    PyObject *load, *dump, *dump_error;
    if (!PyArg_ParseTuple(args, "OOO:run_batch", &load, &dump, &dump_error))
        return NULL;
    if (ext_run_batch(self->worker, self->task.data, self->task.size, load, dump, dump_error) < 0)
        return NULL;
    int rc = weir_worker_end_batch(self->worker);
    if (rc < 0)
        return ext_raise(self->state, rc);
    Py_RETURN_NONE;
}

/* reply(status, data) */
static PyObject *worker_reply(PyObject *object, PyObject *args)
{
    Worker *self = (Worker *)object;
    int status;
    Py_buffer data;
    if (!PyArg_ParseTuple(args, "iy*:reply", &status, &data))
        return NULL;
    weir_bytes part = {data.buf, (size_t)data.len};
    int rc;
    Py_BEGIN_ALLOW_THREADS rc = weir_worker_reply(self->worker, status, &part, 1);
    Py_END_ALLOW_THREADS PyBuffer_Release(&data);
    if (rc < 0 && rc != WEIR_ENOSHM) /* ENOSHM: the parent knows */
        return ext_raise(self->state, rc);
    Py_RETURN_NONE;
}

static PyMethodDef worker_methods[] = {
    {"ready", worker_ready, METH_NOARGS, NULL},
    {"fail", worker_fail, METH_O, NULL},
    {"take", worker_take, METH_NOARGS, NULL},
    {"reply", worker_reply, METH_VARARGS, NULL},
    {"run_batch", worker_run_batch, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot worker_slots[] = {
    {Py_tp_new, worker_new},
    {Py_tp_dealloc, worker_dealloc},
    {Py_tp_methods, worker_methods},
    {Py_tp_doc, (void *)"A worker's end of a process pool of libweir."},
    {0, NULL},
};

static PyType_Spec worker_spec = {
    .name = "weir._weir.Worker",
    .basicsize = sizeof(Worker),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = worker_slots,
};

int ext_worker_types_add(PyObject *module, module_state *Py_UNUSED(state))
{
    PyTypeObject *type;
    if (ext_add_type(module, &worker_spec, &type) < 0)
        return -1;
    Py_DECREF(type);
    return 0;
}
