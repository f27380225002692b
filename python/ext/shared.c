/* shared.c - weir.SharedBuffer: memory that several processes write.
 *
 * One object per piece of memory in a process and interpreter: `opened` finds the one there is, so
 * what comes back from a worker is the very object that was sent.  The list of them holds no
 * references; an object leaves it when it is deallocated, first of all.
 * Views:      each exported buffer keeps the object alive; close refuses while there is one.
 */
#include "module.h"

#include <structmember.h>

typedef struct SharedBuffer {
    PyObject_HEAD weir_shared *shared; /* NULL: closed */
    Py_ssize_t exports;
    PyObject *weakrefs;
    PyObject *self_ref;        /* without the GIL: a weak reference to itself, for try_ref */
    struct SharedBuffer *next; /* in the module's list */
    module_state *state;
} SharedBuffer;

/* ---- the list of what is there ------------------------------------------------------------- */

static void enlist(SharedBuffer *self)
{
    EXT_LOCK(&self->state->shared_lock);
    self->next = self->state->shared_buffers;
    self->state->shared_buffers = self;
    EXT_UNLOCK(&self->state->shared_lock);
}

static void delist(SharedBuffer *self)
{
    EXT_LOCK(&self->state->shared_lock);
    SharedBuffer **at = (SharedBuffer **)&self->state->shared_buffers;
    while (*at && *at != self)
        at = &(*at)->next;
    if (*at)
        *at = self->next;
    EXT_UNLOCK(&self->state->shared_lock);
}

/* Under the lock: a new reference, unless it is being deallocated. */
static PyObject *try_ref(SharedBuffer *self)
{
#ifdef Py_GIL_DISABLED
    PyObject *object;
    return PyWeakref_GetRef(self->self_ref, &object) == 1 ? object : NULL;
#else
    return Py_NewRef(self); /* with the GIL what is in the list has references */
#endif
}

static PyObject *make(PyTypeObject *type, module_state *state, weir_shared *shared)
{
    SharedBuffer *self = (SharedBuffer *)type->tp_alloc(type, 0);
    if (!self) {
        weir_shared_destroy(shared);
        return NULL;
    }
    self->shared = shared;
    self->state = state;
#ifdef Py_GIL_DISABLED
    self->self_ref = PyWeakref_NewRef((PyObject *)self, NULL);
    if (!self->self_ref) {
        Py_DECREF(self);
        return NULL;
    }
#endif
    enlist(self);
    return (PyObject *)self;
}

/* ---- the object ---------------------------------------------------------------------------- */

static PyObject *shared_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"nbytes", NULL};
    Py_ssize_t size;
    module_state *state = ext_state_of(type);
    if (!state || !PyArg_ParseTupleAndKeywords(args, kwargs, "n:SharedBuffer", names, &size))
        return NULL;
    if (size <= 0)
        return PyErr_Format(PyExc_ValueError, "nbytes must be greater than 0, not %zd", size);
    weir_shared *shared;
    int rc;
    Py_BEGIN_ALLOW_THREADS rc = weir_shared_create(&shared, (uint64_t)size);
    Py_END_ALLOW_THREADS if (rc == 0) return make(type, state, shared);
    if (rc == WEIR_ENOSHM || rc == WEIR_ENOMEM)
        return PyErr_Format(PyExc_MemoryError,
                            "there is not enough shared memory for a buffer of %zd bytes", size);
    return ext_raise(state, rc);
}

static void shared_dealloc(PyObject *object)
{
    SharedBuffer *self = (SharedBuffer *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->state)
        delist(self);
    if (self->weakrefs)
        PyObject_ClearWeakRefs(object);
    Py_XDECREF(self->self_ref);
    weir_shared *shared = self->shared;
    Py_BEGIN_ALLOW_THREADS weir_shared_destroy(shared);
    Py_END_ALLOW_THREADS type->tp_free(object);
    Py_DECREF(type);
}

static int raise_closed(void)
{
    PyErr_SetString(PyExc_ValueError, "this SharedBuffer is closed");
    return -1;
}

static int shared_get_buffer(PyObject *object, Py_buffer *view, int flags)
{
    SharedBuffer *self = (SharedBuffer *)object;
    int rc;
    EXT_BEGIN_CRITICAL_SECTION(object)
    rc = self->shared ? PyBuffer_FillInfo(view, object, weir_shared_data(self->shared),
                                          (Py_ssize_t)weir_shared_size(self->shared), 0, flags)
                      : raise_closed();
    self->exports += rc == 0;
    EXT_END_CRITICAL_SECTION()
    if (rc < 0)
        view->obj = NULL;
    return rc;
}

static void shared_release_buffer(PyObject *object, Py_buffer *Py_UNUSED(view))
{
    EXT_BEGIN_CRITICAL_SECTION(object)
    ((SharedBuffer *)object)->exports--;
    EXT_END_CRITICAL_SECTION()
}

static PyObject *shared_close(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    SharedBuffer *self = (SharedBuffer *)object;
    weir_shared *shared = NULL;
    Py_ssize_t exports;
    EXT_BEGIN_CRITICAL_SECTION(object)
    exports = self->exports;
    if (exports == 0) {
        EXT_LOCK(&self->state->shared_lock); /* find looks at it under this lock only */
        shared = self->shared;
        self->shared = NULL;
        EXT_UNLOCK(&self->state->shared_lock);
    }
    EXT_END_CRITICAL_SECTION()
    if (exports > 0)
        return PyErr_Format(PyExc_BufferError,
                            "this SharedBuffer cannot be closed: %zd views or arrays of it exist",
                            exports);
    Py_BEGIN_ALLOW_THREADS weir_shared_destroy(shared);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

static Py_ssize_t shared_len(PyObject *object)
{
    SharedBuffer *self = (SharedBuffer *)object;
    Py_ssize_t size;
    EXT_BEGIN_CRITICAL_SECTION(object)
    size = self->shared ? (Py_ssize_t)weir_shared_size(self->shared) : 0;
    EXT_END_CRITICAL_SECTION()
    return size;
}

static PyObject *shared_nbytes(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(shared_len(object));
}

static PyObject *shared_repr(PyObject *object)
{
    Py_ssize_t size = shared_len(object);
    if (size == 0)
        return PyUnicode_FromString("<weir.SharedBuffer, closed>");
    return PyUnicode_FromFormat("<weir.SharedBuffer of %zd bytes>", size);
}

static PyObject *shared_enter(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(object);
}

static PyObject *shared_exit(PyObject *object, PyObject *Py_UNUSED(args))
{
    return shared_close(object, NULL);
}

/* place(): (pid, fd, inode, size), which opens it in another process of the same user. */
static PyObject *shared_place(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    SharedBuffer *self = (SharedBuffer *)object;
    weir_shared_place place;
    bool open;
    EXT_BEGIN_CRITICAL_SECTION(object)
    open = self->shared != NULL;
    if (open)
        weir_shared_get_place(self->shared, &place);
    EXT_END_CRITICAL_SECTION()
    if (!open) {
        raise_closed();
        return NULL;
    }
    return Py_BuildValue("(LLKK)", (long long)place.pid, (long long)place.fd,
                         (unsigned long long)place.inode, (unsigned long long)place.size);
}

/* Pickled by itself it is a copy; weir sends where it is (weir._transfer). */
static PyObject *shared_reduce_ex(PyObject *object, PyObject *protocol)
{
    PyObject *module = PyImport_ImportModule("weir._transfer");
    PyObject *reduced =
        module ? PyObject_CallMethod(module, "reduce_shared", "OO", object, protocol) : NULL;
    Py_XDECREF(module);
    return reduced;
}

static PyMethodDef shared_methods[] = {
    {"close", shared_close, METH_NOARGS,
     "close($self, /)\n--\n\n"
     "Gives the memory back, as far as this process has it; BufferError while a view or an array\n"
     "of it exists.  Whoever else has it keeps it.  May be called twice."},
    {"place", shared_place, METH_NOARGS, NULL},
    {"__enter__", shared_enter, METH_NOARGS, NULL},
    {"__exit__", shared_exit, METH_VARARGS, NULL},
    {"__reduce_ex__", shared_reduce_ex, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef shared_getset[] = {
    {"nbytes", shared_nbytes, NULL, "The size in bytes; 0 when closed.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef shared_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(SharedBuffer, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(
    shared_doc,
    "SharedBuffer(nbytes)\n--\n\n"
    "Memory that several processes write: zeroed, nbytes > 0 long, a writable buffer.\n\n"
    "It travels to the workers of a weir.ProcessPoolExecutor and back without a copy, and so does\n"
    "any contiguous view of it (memoryview(buffer)[a:b], a NumPy array on it): each side sees what\n"
    "the other writes.  Ordering that is the program's business: a task's writes are there when its\n"
    "result is.  What comes back is the same object.\n\n"
    "The memory is taken at once: MemoryError when there is not so much.  It ends with the last\n"
    "process that has it, however that ends; a forked child has it too.  It costs a descriptor\n"
    "(OSError when there is none).  Pickled elsewhere it is a copy.  Thread-safe.");

static PyType_Slot shared_slots[] = {
    {Py_tp_new, shared_new},
    {Py_tp_dealloc, shared_dealloc},
    {Py_tp_repr, shared_repr},
    {Py_tp_methods, shared_methods},
    {Py_tp_getset, shared_getset},
    {Py_tp_members, shared_members},
    {Py_sq_length, shared_len},
    {Py_bf_getbuffer, shared_get_buffer},
    {Py_bf_releasebuffer, shared_release_buffer},
    {Py_tp_doc, (void *)shared_doc},
    {0, NULL},
};

static PyType_Spec shared_spec = {
    .name = "weir.SharedBuffer",
    .basicsize = sizeof(SharedBuffer),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = shared_slots,
};

/* ---- finding ------------------------------------------------------------------------------- */

/* Under the lock: whether the object has the memory from `at` on for `size` bytes. */
static bool covers(const SharedBuffer *self, uintptr_t at, size_t size)
{
    if (!self->shared)
        return false;
    uintptr_t begin = (uintptr_t)weir_shared_data(self->shared);
    uint64_t has = weir_shared_size(self->shared);
    return at >= begin && at - begin <= has && size <= has - (at - begin);
}

/* find_shared(part): (SharedBuffer, offset) of the memory that a buffer lies in; None: none of
 * ours. */
static PyObject *find_shared(PyObject *module, PyObject *part)
{
    module_state *state = PyModule_GetState(module);
    if (!state->shared_buffers) /* a hint; what the caller has a view of is in the list */
        Py_RETURN_NONE;
    Py_buffer view;
    if (PyObject_GetBuffer(part, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *found = NULL;
    Py_ssize_t offset = 0;
    EXT_LOCK(&state->shared_lock);
    for (SharedBuffer *at = state->shared_buffers; at && !found; at = at->next) {
        if (!covers(at, (uintptr_t)view.buf, (size_t)view.len))
            continue;
        found = try_ref(at);
        offset = (char *)view.buf - (char *)weir_shared_data(at->shared);
    }
    EXT_UNLOCK(&state->shared_lock);
    PyBuffer_Release(&view);
    if (!found)
        Py_RETURN_NONE;
    return Py_BuildValue("(Nn)", found, offset);
}

/* open_shared(pid, fd, inode, size): the SharedBuffer at a place; the one there is, if this process
 * has it already.  OSError: it is not there any more. */
static PyObject *open_shared(PyObject *module, PyObject *args)
{
    module_state *state = PyModule_GetState(module);
    long long pid, fd;
    unsigned long long inode, size;
    if (!PyArg_ParseTuple(args, "LLKK:open_shared", &pid, &fd, &inode, &size))
        return NULL;
    PyObject *found = NULL;
    EXT_LOCK(&state->shared_lock);
    for (SharedBuffer *at = state->shared_buffers; at && !found; at = at->next) {
        weir_shared_place place;
        if (!at->shared)
            continue;
        weir_shared_get_place(at->shared, &place);
        if (place.inode == inode && place.size == size)
            found = try_ref(at);
    }
    EXT_UNLOCK(&state->shared_lock);
    if (found)
        return found;
    weir_shared *shared;
    int rc = weir_shared_open(&shared, &(weir_shared_place){pid, fd, inode, size});
    if (rc == 0)
        return make(state->shared_type, state, shared);
    if (rc != WEIR_EINVAL)
        return ext_raise(state, rc);
    char text[160];
    PyOS_snprintf(text, sizeof text,
                  "the shared memory of %llu bytes is not there any more: process %lld has closed "
                  "it or has ended",
                  size, pid);
    return ext_raise_text(state, WEIR_ESYSTEM, text);
}

static PyMethodDef functions[] = {
    {"find_shared", find_shared, METH_O, NULL},
    {"open_shared", open_shared, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int ext_shared_types_add(PyObject *module, module_state *state)
{
    if (PyModule_AddFunctions(module, functions) < 0)
        return -1;
    return ext_add_type(module, &shared_spec, &state->shared_type);
}
