/* pending.c - weir._weir.Pending: a place in line that a coroutine waits in.
 *
 * States:     WAITING -> GRANTED or FAILED (libweir calls on_ready) -> OVER (claimed or cancelled), or
 *             WAITING again.  Whatever was granted and is not claimed is given back: by a cancel, when
 *             the event loop cannot be told, or when the object goes.
 * Ownership:  while it is in line, the line has a reference to it, and shows it to the garbage
 *             collector: an object, its waiters and their dead loop can go together.
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

/* By who ended it without claiming it; keeps an exception that is set. */
static void forget(ext_pending *self)
{
    if (!self->kind->forget || !is_ours(self))
        return;
    PyObject *error = ext_take_exception();
    self->kind->forget(self);
    ext_restore_exception(error);
}

static void give_back(ext_pending *self)
{
    if (move(self, GRANTED, OVER) != GRANTED)
        return;
    if (is_ours(self))
        self->kind->give_back(self);
    forget(self);
}

static PyObject *call_ready(ext_pending *self)
{
    return Py_TYPE(self->ready) == self->module->coro_type ? ext_coro_ready((ext_coro *)self->ready)
                                                           : PyObject_CallNoArgs(self->ready);
}

static void tell(ext_pending *self)
{
    PyObject *told = call_ready(self);
    if (!told && !PyErr_ExceptionMatches(PyExc_Exception)) { /* a signal handler's, meanwhile */
        ext_postpone_exception();
        told = call_ready(self); /* once more does no harm */
    }
    if (!told) { /* the loop is closed: nobody will come for it */
        if (PyErr_ExceptionMatches(PyExc_RuntimeError))
            PyErr_Clear();
        else
            ext_report_exception(self->ready);
        give_back(self);
    }
    Py_XDECREF(told);
}

/* ---- the line ------------------------------------------------------------------------------- */

/* The line has a reference from now on. */
static void enter_line(ext_pending *self)
{
    Py_INCREF(self);
    if (!self->line)
        return;
    EXT_LOCK(&self->line->lock);
    self->prev = NULL;
    self->next = self->line->first;
    if (self->next)
        self->next->prev = self;
    self->line->first = self;
    EXT_UNLOCK(&self->line->lock);
}

static void unlink_from_line(ext_pending *self)
{
    if (!self->line)
        return;
    EXT_LOCK(&self->line->lock);
    *(self->prev ? &self->prev->next : &self->line->first) = self->next;
    if (self->next)
        self->next->prev = self->prev;
    EXT_UNLOCK(&self->line->lock);
}

static void leave_line(ext_pending *self)
{
    unlink_from_line(self);
    Py_DECREF(self);
}

int ext_line_traverse(ext_line *line, visitproc visit, void *arg)
{
    for (ext_pending *pending = line->first; pending; pending = pending->next)
        Py_VISIT(pending);
    return 0;
}

void ext_line_clear(ext_line *line)
{
    for (;;) {
        EXT_LOCK(&line->lock);
        ext_pending *first = line->first;
        Py_XINCREF(first);
        EXT_UNLOCK(&line->lock);
        if (!first)
            return;
        ext_pending_cancel(first);
        bool is_left = line->first != first;
        Py_DECREF(first);
        if (!is_left)
            return; /* somebody is telling it */
    }
}

/* Called by libweir, with or without the GIL. */
static void on_ready(weir_pending *core, int result)
{
    ext_pending *self = core->ctx;
    ext_callback callback;
    ext_callback_begin(&callback);
    self->result = result;
    unlink_from_line(self); /* before: once it is told it may come into line again */
    if (move(self, WAITING, result >= 0 ? GRANTED : FAILED) == WAITING)
        tell(self);
    else if (result >= 0 && is_ours(self)) /* cancelled meanwhile */
        self->kind->give_back(self);
    Py_DECREF(self);
    ext_callback_end(&callback);
}

ext_pending *ext_pending_new(module_state *state, PyObject *owner, ext_line *line,
                             const ext_pending_kind *kind, PyObject *ready)
{
    PyTypeObject *type = state->pending_type;
    ext_pending *self = (ext_pending *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->module = state;
    self->kind = kind;
    self->owner = Py_NewRef(owner);
    self->line = line;
    self->ready = Py_NewRef(ready);
    self->core = (weir_pending){.ready = on_ready, .ctx = self};
    self->generation = ext_fork_generation();
    return self;
}

PyObject *ext_pending_begin(ext_pending *self)
{
    enter_line(self);
    int rc = self->kind->begin(self);
    if (rc == WEIR_WAITING)
        return (PyObject *)self;
    self->result = rc;
    self->state = rc >= 0 ? GRANTED : FAILED;
    leave_line(self);
    return (PyObject *)self;
}

/* ---- the end -------------------------------------------------------------------------------- */

void ext_pending_cancel(ext_pending *self)
{
    if (self->state == WAITING && is_ours(self)) {
        bool left = self->kind->cancel(self);
        /* Not left: libweir has let it in, and on_ready may be waiting for the GIL.  It will find
         * that it is over, and give back. */
        if (move(self, WAITING, OVER) == WAITING) {
            forget(self);
            if (left)
                leave_line(self);
            return;
        }
    }
    give_back(self);
    if (move(self, FAILED, OVER) == FAILED)
        forget(self);
}

bool ext_pending_is_done(const ext_pending *self)
{
    return self->state == GRANTED || self->state == FAILED;
}

static PyObject *claim_grant(ext_pending *self)
{
    enter_line(self); /* perhaps: WAITING is what on_ready has to find then */
    move(self, OVER, WAITING);
    PyObject *value = self->kind->claim(self);
    if (!value && !PyErr_Occurred())
        return NULL;
    move(self, WAITING, OVER);
    leave_line(self);
    if (!value)
        forget(self);
    return value;
}

static PyObject *claim_failure(ext_pending *self)
{
    PyObject *value = self->kind->fail ? self->kind->fail(self, self->result)
                                       : ext_raise(self->module, self->result);
    forget(self);
    return value;
}

PyObject *ext_pending_claim(ext_pending *self)
{
    if (move(self, GRANTED, OVER) == GRANTED)
        return claim_grant(self);
    if (move(self, FAILED, OVER) == FAILED)
        return claim_failure(self);
    PyErr_SetString(PyExc_RuntimeError, "there is nothing to claim");
    return NULL;
}

/* ---- the type ------------------------------------------------------------------------------- */

static int pending_traverse(ext_pending *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->owner);
    Py_VISIT(self->ready);
    return 0;
}

static int pending_clear(ext_pending *self)
{
    ext_pending_cancel(self);
    return 0;
}

static void pending_dealloc(ext_pending *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    PyObject *error = ext_take_exception();
    ext_pending_cancel(self); /* it is not in line: the line would have a reference */
    ext_restore_exception(error);
    Py_XDECREF(self->owner);
    Py_XDECREF(self->ready);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *pending_done(ext_pending *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(ext_pending_is_done(self));
}

static PyGetSetDef pending_getset[] = {
    {"done", (getter)pending_done, NULL, "Whether there is something to claim.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot pending_slots[] = {
    {Py_tp_doc, (void *)"A place in line that a coroutine waits in."},
    {Py_tp_dealloc, pending_dealloc},
    {Py_tp_traverse, pending_traverse},
    {Py_tp_clear, pending_clear},
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
