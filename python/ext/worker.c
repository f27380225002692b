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

static void release_lease(PyObject *owner, void *lease)
{
    weir_worker_release(((Worker *)owner)->worker, lease);
}

static void unshare_lease(PyObject *owner, void *lease)
{
    weir_worker_unshare(((Worker *)owner)->worker, lease);
}

static const ext_lease_kind lease_kind = {release_lease, unshare_lease};

/* The next task's bytes; True: run_batch is to run it; None: leave.  They are readable until reply,
 * or, if it is a view of a Lease, as long as somebody refers to them.  TimeoutError: none until the
 * deadline. */
static PyObject *take(Worker *self, weir_time deadline)
{
    weir_task *task = &self->task;
    task->size = 0;
    int rc = weir_worker_take(self->worker, task, WEIR_POLL);
    while (rc == WEIR_EEMPTY || rc == WEIR_ENOSHM) { /* ENOSHM: that task has failed, the next */
        ext_wait wait;
        ext_wait_begin(&wait);
        rc = weir_worker_take(self->worker, task, deadline);
        ext_wait_end(&wait);
    }
    if (rc == WEIR_ECLOSED)
        Py_RETURN_NONE;
    if (rc < 0)
        return ext_raise(self->state, rc);
    if (task->is_batch)
        Py_RETURN_TRUE;
    weir_lease *lease;
    void *kept;
    if (weir_worker_keep(self->worker, &lease, &kept) == 0)
        return ext_lease_view(self->state, (PyObject *)self, &lease_kind, lease, kept,
                              (Py_ssize_t)task->size);
    return PyMemoryView_FromMemory((char *)task->data, (Py_ssize_t)task->size, PyBUF_READ);
}

/* take() */
static PyObject *worker_take(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    return take((Worker *)object, WEIR_FOREVER);
}

/* take_within(seconds) */
static PyObject *worker_take_within(PyObject *object, PyObject *seconds)
{
    int64_t ns;
    if (ext_parse_timeout(seconds, "seconds", &ns) < 0)
        return NULL;
    return take((Worker *)object, ext_deadline(ns));
}

/* positions(): how far the worker's replies are, and how far the parent has read them. */
static PyObject *worker_positions(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    uint64_t replied, read;
    weir_worker_get_positions(((Worker *)object)->worker, &replied, &read);
    return Py_BuildValue("(KK)", (unsigned long long)replied, (unsigned long long)read);
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

/* reply(status, data): a buffer, or a list of them. */
static PyObject *worker_reply(PyObject *object, PyObject *args)
{
    Worker *self = (Worker *)object;
    int status, rc;
    PyObject *data;
    ext_parts parts;
    if (!PyArg_ParseTuple(args, "iO:reply", &status, &data) || ext_parts_get(data, &parts) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS rc = weir_worker_reply(self->worker, status, parts.bytes, parts.n);
    Py_END_ALLOW_THREADS ext_parts_release(&parts);
    if (rc < 0 && rc != WEIR_ENOSHM) /* ENOSHM: the parent knows */
        return ext_raise(self->state, rc);
    Py_RETURN_NONE;
}

/* reply_in_place(status, head): the reply is the task's own data, with `head` written over its
 * beginning. */
static PyObject *worker_reply_in_place(PyObject *object, PyObject *args)
{
    Worker *self = (Worker *)object;
    int status, rc;
    Py_buffer head;
    if (!PyArg_ParseTuple(args, "iy*:reply_in_place", &status, &head))
        return NULL;
    Py_BEGIN_ALLOW_THREADS rc =
        weir_worker_reply_in_place(self->worker, status, head.buf, (size_t)head.len);
    Py_END_ALLOW_THREADS PyBuffer_Release(&head);
    if (rc < 0 && rc != WEIR_ENOSHM)
        return ext_raise(self->state, rc);
    Py_RETURN_NONE;
}

/* offset_of(part): where the bytes of a buffer begin in the task's; -1: not inside. */
static PyObject *worker_offset_of(PyObject *object, PyObject *part)
{
    Worker *self = (Worker *)object;
    Py_buffer view;
    if (PyObject_GetBuffer(part, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    uintptr_t begin = (uintptr_t)self->task.data, at = (uintptr_t)view.buf;
    bool inside = at >= begin && at - begin <= self->task.size &&
                  (size_t)view.len <= self->task.size - (at - begin);
    PyBuffer_Release(&view);
    return PyLong_FromSsize_t(inside ? (Py_ssize_t)(at - begin) : -1);
}

static PyMethodDef worker_methods[] = {
    {"offset_of", worker_offset_of, METH_O, NULL},
    {"ready", worker_ready, METH_NOARGS, NULL},
    {"fail", worker_fail, METH_O, NULL},
    {"take", worker_take, METH_NOARGS, NULL},
    {"take_within", worker_take_within, METH_O, NULL},
    {"positions", worker_positions, METH_NOARGS, NULL},
    {"reply", worker_reply, METH_VARARGS, NULL},
    {"reply_in_place", worker_reply_in_place, METH_VARARGS, NULL},
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
