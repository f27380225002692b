/* pending.c - weir._weir.Pending: a place in line that a coroutine waits in.
 *
 * States:     WAITING -> GRANTED or FAILED (libweir calls on_ready) -> OVER (claimed or cancelled).
 *             Whatever was granted and is not claimed is given back: by cancel(), when the event
 *             loop cannot be told, or when the object goes.
 * Ownership:  while it is in line, the line has a reference to it.
 * Threads:    `ready` is called on whichever thread lets it in; the other methods belong to who
 *             waits.  `lock` guards the state.
 * Fork:       a child has none of its parent's places; everything there does nothing.
 */
#include "module.h"

enum state { WAITING, GRANTED, FAILED, OVER };

static bool is_ours(const ext_pending *self)
{
    return self->generation == ext_fork_generation();
}

/* The new state, unless another one was quicker; what it was before. */
static int move(ext_pending *self, int from, int to)
{
    EXT_LOCK(&self->lock);
    int before = self->state;
    if (before == from)
        self->state = (char)to;
    EXT_UNLOCK(&self->lock);
    return before;
}

static void give_back(ext_pending *self)
{
    if (move(self, GRANTED, OVER) == GRANTED && is_ours(self))
        self->kind->give_back(self);
}

static void tell(ext_pending *self)
{
    PyObject *told = PyObject_CallNoArgs(self->ready);
    if (!told) { /* the loop is closed: nobody will come for it */
        if (PyErr_ExceptionMatches(PyExc_RuntimeError))
            PyErr_Clear();
        else
            PyErr_WriteUnraisable(self->ready);
        give_back(self);
    }
    Py_XDECREF(told);
}

/* Called by libweir, with or without the GIL. */
static void on_ready(weir_pending *core, int result)
{
    ext_pending *self = core->ctx;
    ext_callback callback;
    ext_callback_begin(&callback);
    self->result = result;
    if (move(self, WAITING, result >= 0 ? GRANTED : FAILED) == WAITING)
        tell(self);
    else if (result >= 0 && is_ours(self)) /* cancelled meanwhile */
        self->kind->give_back(self);
    Py_DECREF(self); /* the line's */
    ext_callback_end(&callback);
}

ext_pending *ext_pending_new(module_state *state, PyObject *owner, const ext_pending_kind *kind,
                             PyObject *ready)
{
    PyTypeObject *type = state->pending_type;
    ext_pending *self = (ext_pending *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->module = state;
    self->kind = kind;
    self->owner = Py_NewRef(owner);
    self->ready = Py_NewRef(ready);
    self->core = (weir_pending){.ready = on_ready, .ctx = self};
    self->generation = ext_fork_generation();
    return self;
}

PyObject *ext_pending_begin(ext_pending *self)
{
    Py_INCREF(self); /* the line's */
    int rc = self->kind->begin(self);
    if (rc == WEIR_WAITING)
        return (PyObject *)self;
    Py_DECREF(self);
    self->result = rc;
    self->state = rc >= 0 ? GRANTED : FAILED;
    return (PyObject *)self;
}

/* Leaves the line, or gives back; nothing when it is over. */
static void end(ext_pending *self)
{
    if (self->state == WAITING && is_ours(self)) {
        bool left = self->kind->cancel(self);
        /* Not left: libweir has let it in, and on_ready may be waiting for the GIL.  It will find
         * that it is over, and give back. */
        if (move(self, WAITING, OVER) == WAITING) {
            if (left)
                Py_DECREF(self); /* the line's */
            return;
        }
    }
    give_back(self);
}

PyDoc_STRVAR(cancel_doc, "cancel($self, /)\n--\n\n"
                         "Leave the line; what was granted meanwhile is given back.");

static PyObject *pending_cancel(ext_pending *self, PyObject *Py_UNUSED(ignored))
{
    end(self);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(claim_doc, "claim($self, /)\n--\n\n"
                        "What was waited for; once, and only when it is done.");

static PyObject *pending_claim(ext_pending *self, PyObject *Py_UNUSED(ignored))
{
    switch (move(self, GRANTED, OVER)) {
    case GRANTED: return self->kind->claim(self);
    case FAILED: return ext_raise(self->module, self->result);
    default: PyErr_SetString(PyExc_RuntimeError, "there is nothing to claim"); return NULL;
    }
}

static PyObject *pending_done(ext_pending *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->state == GRANTED || self->state == FAILED);
}

static int pending_traverse(ext_pending *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->owner);
    Py_VISIT(self->ready);
    return 0;
}

static void pending_dealloc(ext_pending *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->owner)
        give_back(self); /* not in line: the line would have a reference */
    Py_XDECREF(self->owner);
    Py_XDECREF(self->ready);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef pending_methods[] = {
    {"cancel", (PyCFunction)pending_cancel, METH_NOARGS, cancel_doc},
    {"claim", (PyCFunction)pending_claim, METH_NOARGS, claim_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef pending_getset[] = {
    {"done", (getter)pending_done, NULL, "Whether there is something to claim.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot pending_slots[] = {
    {Py_tp_doc, (void *)"A place in line that a coroutine waits in."},
    {Py_tp_dealloc, pending_dealloc},
    {Py_tp_traverse, pending_traverse},
    {Py_tp_methods, pending_methods},
    {Py_tp_getset, pending_getset},
    {0, NULL},
};

static PyType_Spec pending_spec = {
    .name = "weir._weir.Pending",
    .basicsize = sizeof(ext_pending),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = pending_slots,
};

int ext_pending_types_add(PyObject *module, module_state *state)
{
    return ext_add_type(module, &pending_spec, &state->pending_type);
}
