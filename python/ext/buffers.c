/* buffers.c - memory that passes between Python and libweir without a copy.
 *
 * Lease:      weir._weir.Lease, the right to data of a pool that would otherwise go back to it: a
 *             writable buffer.  Views of it, and the arrays on them, keep it alive; with the last
 *             one, in whatever thread, the data goes back.  It keeps its Pool or Worker alive.
 * Fork:       a forked child has what its parent leased, and may use it for ever.  So both sides'
 *             mappings become private (unshare), and the data goes back only when the child is gone
 *             too: it holds a lifeline, the writing end of a pipe that ends with it.
 * Parts:      a payload as one buffer or a list of them, held while libweir copies it.
 */
#include "module.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

/* A lease, apart from the object that holds it: it may outlive that. */
typedef struct leased {
    struct leased *next, *prev;
    PyObject *owner;
    void *lease; /* libweir's */
    const ext_lease_kind *kind;
    uint64_t born; /* lifelines from this number on may be of children that have it */
    unsigned generation;
} leased;

typedef struct {
    PyObject_HEAD leased *leased;
    void *data;
    Py_ssize_t size;
} Lease;

/* ---- lifelines ----------------------------------------------------------------------------- */

/* The children that were forked between two births of leases hold the writing end, and so do their
 * children.  We hold it as long as the line is the current one. */
typedef struct lifeline {
    struct lifeline *next;
    uint64_t number;
    int reading, writing; /* writing -1: closed */
} lifeline;

/* Of this process.  The mutex is held across fork; no Python code runs under it. */
static struct {
    pthread_mutex_t mutex;
    leased *live;  /* of objects that are there */
    leased *limbo; /* whose objects are gone, and forked children are not */
    lifeline *lines, *current;
    uint64_t next_number;
    uint64_t endless; /* lines below had no pipe: what they cover never goes back */
} all = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void link_to(leased **list, leased *it)
{
    it->prev = NULL;
    it->next = *list;
    if (*list)
        (*list)->prev = it;
    *list = it;
}

static void unlink_from(leased **list, leased *it)
{
    if (it->prev)
        it->prev->next = it->next;
    else
        *list = it->next;
    if (it->next)
        it->next->prev = it->prev;
}

static lifeline *new_line(void)
{
    int fds[2];
    lifeline *line = PyMem_RawMalloc(sizeof *line);
    if (!line || pipe2(fds, O_CLOEXEC) < 0) {
        PyMem_RawFree(line);
        return NULL;
    }
    *line = (lifeline){all.lines, all.next_number, fds[0], fds[1]};
    all.lines = line;
    return line;
}

static void before_fork(void)
{
    pthread_mutex_lock(&all.mutex);
    if (!all.live || all.current)
        return;
    all.current = new_line();
    all.next_number++;
    if (!all.current)
        all.endless = all.next_number;
}

static void unshare_all(void)
{
    for (leased *at = all.live; at; at = at->next)
        at->kind->unshare(at->owner, at->lease);
}

static void after_fork_in_parent(void)
{
    unshare_all();
    pthread_mutex_unlock(&all.mutex);
}

/* The writing end of the current line stays open here, and in what this child forks. */
static void after_fork_in_child(void)
{
    unshare_all();
    for (lifeline *at = all.lines; at; at = at->next)
        close(at->reading);
    all.live = all.limbo = NULL; /* the parent's */
    all.lines = all.current = NULL;
    pthread_mutex_unlock(&all.mutex);
}

/* Under the mutex: whether a forked child may have it. */
static bool is_inherited(const leased *it)
{
    for (const lifeline *line = all.lines; line; line = line->next)
        if (line->number >= it->born)
            return true;
    return it->born < all.endless;
}

/* Under the mutex: takes out the lines whose children are gone. */
static void look_at_lines(void)
{
    for (lifeline **at = &all.lines; *at;) {
        lifeline *line = *at;
        struct pollfd end = {.fd = line->reading};
        if (line->writing >= 0 || poll(&end, 1, 0) < 1) {
            at = &line->next;
            continue;
        }
        close(line->reading);
        *at = line->next;
        PyMem_RawFree(line);
    }
}

/* Under the mutex: later forks get a line of their own, so that this one can end. */
static void close_current_line(void)
{
    if (!all.current)
        return;
    close(all.current->writing);
    all.current->writing = -1;
    all.current = NULL;
}

/* Giving more than this back takes long enough to let others run. */
#define RELEASE_WITH_GIL (1 << 20)

/* With the GIL: ends a lease that nobody has any more. */
static void end_lease(leased *it, Py_ssize_t size)
{
    if (size <= RELEASE_WITH_GIL) {
        it->kind->release(it->owner, it->lease);
    } else {
        Py_BEGIN_ALLOW_THREADS it->kind->release(it->owner, it->lease);
        Py_END_ALLOW_THREADS
    }
    Py_DECREF(it->owner);
    PyMem_RawFree(it);
}

/* With the GIL: ends the leases whose children have gone since. */
void ext_leases_look(void)
{
    leased *free_ones = NULL;
    pthread_mutex_lock(&all.mutex);
    if (all.limbo) {
        look_at_lines();
        for (leased *at = all.limbo, *next; at; at = next) {
            next = at->next;
            if (is_inherited(at))
                continue;
            unlink_from(&all.limbo, at);
            link_to(&free_ones, at);
        }
    }
    pthread_mutex_unlock(&all.mutex);
    while (free_ones) {
        leased *next = free_ones->next;
        end_lease(free_ones, PY_SSIZE_T_MAX);
        free_ones = next;
    }
}

void ext_leases_watch_forks(void)
{
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* ---- the object ---------------------------------------------------------------------------- */

PyObject *ext_lease_view(module_state *state, PyObject *owner, const ext_lease_kind *kind,
                         void *lease, void *data, Py_ssize_t size)
{
    ext_leases_look();
    PyTypeObject *type = state->lease_type;
    leased *it = PyMem_RawMalloc(sizeof *it);
    Lease *self = it ? (Lease *)type->tp_alloc(type, 0) : NULL;
    if (!self) {
        PyMem_RawFree(it);
        kind->release(owner, lease);
        return PyErr_NoMemory();
    }
    *it = (leased){.owner = Py_NewRef(owner),
                   .lease = lease,
                   .kind = kind,
                   .generation = ext_fork_generation()};
    self->leased = it;
    self->data = data;
    self->size = size;
    pthread_mutex_lock(&all.mutex);
    close_current_line(); /* its children have not got this lease */
    it->born = all.next_number;
    link_to(&all.live, it);
    pthread_mutex_unlock(&all.mutex);
    PyObject *view = PyMemoryView_FromObject((PyObject *)self);
    Py_DECREF(self); /* without a view it goes back */
    return view;
}

static void lease_dealloc(PyObject *object)
{
    Lease *self = (Lease *)object;
    PyTypeObject *type = Py_TYPE(object);
    leased *it = self->leased;
    Py_ssize_t size = self->size;
    type->tp_free(object);
    Py_DECREF(type);
    if (it->generation != ext_fork_generation()) { /* a forked child's: on no list of ours */
        end_lease(it, size);
        return;
    }
    pthread_mutex_lock(&all.mutex);
    unlink_from(&all.live, it);
    if (is_inherited(it)) {
        close_current_line();
        look_at_lines();
    }
    bool waits = is_inherited(it);
    if (waits)
        link_to(&all.limbo, it);
    pthread_mutex_unlock(&all.mutex);
    if (!waits)
        end_lease(it, size);
}

static int lease_get_buffer(PyObject *object, Py_buffer *view, int flags)
{
    Lease *self = (Lease *)object;
    return PyBuffer_FillInfo(view, object, self->data, self->size, 0, flags);
}

static PyType_Slot lease_slots[] = {
    {Py_tp_dealloc, lease_dealloc},
    {Py_bf_getbuffer, lease_get_buffer},
    {Py_tp_doc, (void *)"Memory of a process pool; it goes back with the last reference."},
    {0, NULL},
};

static PyType_Spec lease_spec = {
    .name = "weir._weir.Lease",
    .basicsize = sizeof(Lease),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = lease_slots,
};

/* ---- parts --------------------------------------------------------------------------------- */

int ext_parts_get(PyObject *data, ext_parts *parts)
{
    parts->n = 0;
    parts->size = 0;
    parts->views = &parts->one_view;
    parts->bytes = &parts->one;
    bool many = PyList_Check(data);
    Py_ssize_t n = many ? PyList_GET_SIZE(data) : 1;
    if (n > 1) {
        parts->views = PyMem_New(Py_buffer, n);
        parts->bytes = PyMem_New(weir_bytes, n);
        if (!parts->views || !parts->bytes) {
            ext_parts_release(parts);
            PyErr_NoMemory();
            return -1;
        }
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *part = many ? PyList_GET_ITEM(data, i) : data;
        if (PyObject_GetBuffer(part, &parts->views[i], PyBUF_SIMPLE) < 0) {
            ext_parts_release(parts);
            return -1;
        }
        parts->n = (size_t)i + 1;
        parts->bytes[i] = (weir_bytes){parts->views[i].buf, (size_t)parts->views[i].len};
        parts->size += parts->views[i].len;
    }
    return 0;
}

void ext_parts_release(ext_parts *parts)
{
    for (size_t i = 0; i < parts->n; i++)
        PyBuffer_Release(&parts->views[i]);
    if (parts->views != &parts->one_view)
        PyMem_Free(parts->views);
    if (parts->bytes != &parts->one)
        PyMem_Free(parts->bytes);
}

int ext_buffer_types_add(PyObject *module, module_state *state)
{
    return ext_add_type(module, &lease_spec, &state->lease_type);
}
