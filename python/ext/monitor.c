/* monitor.c - weir._weir.Monitor: what weir.stats(), weir.metrics() and weir.Monitor look with.
 *
 * GIL:        looking and writing run without it; a mutex of the monitor's own makes them one at a
 *             time, so any number of threads may use one monitor.
 * Fork:       a monitor is the parent's.  A child that another thread forked in the middle of a look
 *             leaves what it inherited alone.
 */
#include "module.h"

#include <pthread.h>

typedef struct Monitor {
    PyObject_HEAD module_state *state; /* kept alive by the type */
    weir_monitor *monitor;
    unsigned generation;
    pthread_mutex_t lock; /* taken without the GIL; guards what is in `monitor` */
} Monitor;

static bool is_usable(Monitor *self)
{
    if (!self->monitor) {
        PyErr_SetString(PyExc_RuntimeError, "weir._weir.Monitor.__init__() was not called");
        return false;
    }
    if (self->generation == ext_fork_generation())
        return true;
    PyErr_SetString(PyExc_RuntimeError,
                    "this monitor belongs to the parent process; a forked child needs its own");
    return false;
}

/* And lets go of the GIL. */
static PyThreadState *lock(Monitor *self)
{
    PyThreadState *thread = PyEval_SaveThread();
    pthread_mutex_lock(&self->lock);
    return thread;
}

static void unlock(Monitor *self, PyThreadState *thread)
{
    pthread_mutex_unlock(&self->lock);
    PyEval_RestoreThread(thread);
}

PyDoc_STRVAR(
    look_doc,
    "look($self, /)\n--\n\n"
    "Read the numbers of all processes now.\n\n"
    "Raises OSError, MemoryError, ValueError (the folder is not this user's alone); what was\n"
    "seen last stays.");

static PyObject *Monitor_look(Monitor *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    PyThreadState *thread = lock(self);
    int rc = weir_monitor_look(self->monitor);
    unlock(self, thread);
    if (rc == WEIR_EINVAL)
        return ext_raise_text(self->state, rc,
                              "the folder of the stats pages is not this user's alone: it must be "
                              "a directory of mode 0700");
    if (rc < 0)
        return ext_raise(self->state, rc);
    Py_RETURN_NONE;
}

/* ---- writing ------------------------------------------------------------------------------- */

/* What was written so far. */
typedef struct text {
    char *data;
    size_t length, room;
} text;

static int append(void *ctx, const char *piece, size_t length)
{
    text *to = ctx;
    if (length > to->room - to->length) {
        size_t room = 2 * (to->length + length) + 4096;
        char *data = PyMem_RawRealloc(to->data, room);
        if (!data)
            return WEIR_ENOMEM;
        to->data = data;
        to->room = room;
    }
    memcpy(to->data + to->length, piece, length);
    to->length += length;
    return WEIR_OK;
}

static PyObject *finish(Monitor *self, text *written, int rc)
{
    PyObject *bytes = NULL;
    if (rc < 0)
        ext_raise(self->state, rc);
    else
        bytes = PyBytes_FromStringAndSize(written->data, (Py_ssize_t)written->length);
    PyMem_RawFree(written->data);
    return bytes;
}

PyDoc_STRVAR(json_doc,
             "json($self, history, /)\n--\n\n"
             "What was seen, as one JSON object in UTF-8; with the looks before, if `history`.");

static PyObject *Monitor_json(Monitor *self, PyObject *history)
{
    int with_history = PyObject_IsTrue(history);
    if (with_history < 0 || !is_usable(self))
        return NULL;
    text written = {0};
    PyThreadState *thread = lock(self);
    int rc = weir_monitor_write_json(self->monitor, with_history, append, &written);
    unlock(self, thread);
    return finish(self, &written, rc);
}

PyDoc_STRVAR(openmetrics_doc, "openmetrics($self, /)\n--\n\n"
                              "What was seen, as OpenMetrics text in UTF-8.");

static PyObject *Monitor_openmetrics(Monitor *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    text written = {0};
    PyThreadState *thread = lock(self);
    int rc = weir_monitor_write_openmetrics(self->monitor, append, &written);
    unlock(self, thread);
    return finish(self, &written, rc);
}

/* ---- beginning and end ---------------------------------------------------------------------- */

static PyObject *Monitor_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
                             PyObject *Py_UNUSED(kwargs))
{
    Monitor *self = (Monitor *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    pthread_mutex_init(&self->lock, NULL);
    self->state = ext_state_of(type);
    if (!self->state)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int init(Monitor *self, const weir_monitor_opts *opts)
{
    if (self->monitor) {
        PyErr_SetString(PyExc_RuntimeError,
                        "weir._weir.Monitor.__init__() has been called already");
        return -1;
    }
    int rc = weir_monitor_create(&self->monitor, opts);
    self->generation = ext_fork_generation();
    if (rc == WEIR_EINVAL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "there are no numbers to look at: WEIR_STATS_DIR switches stats pages off, "
                        "or its path is too long");
        return -1;
    }
    if (rc < 0)
        ext_raise(self->state, rc);
    return rc < 0 ? -1 : 0;
}

static int Monitor_init(Monitor *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"window",     "root_pid", "queue_share", "queue_depth",
                                        "service_ns", "events",   "throughput",  "age_growth",
                                        "drops",      NULL};
    weir_monitor_opts opts = WEIR_MONITOR_OPTS_INIT;
    weir_thresholds *limits = &opts.thresholds;
    Py_ssize_t window = 0;
    long long root_pid = 0, service_ns = 0;
    unsigned long long events = 0, drops = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|nLddLKddK:Monitor", (char **)names, &window,
                                     &root_pid, &limits->queue_share, &limits->queue_depth,
                                     &service_ns, &events, &limits->throughput, &limits->age_growth,
                                     &drops))
        return -1;
    opts.window = (size_t)window;
    opts.root_pid = root_pid;
    limits->service_ns = service_ns;
    limits->events = events;
    limits->drops = drops;
    int rc;
    EXT_BEGIN_CRITICAL_SECTION(self)
    rc = init(self, &opts);
    EXT_END_CRITICAL_SECTION()
    return rc;
}

static int Monitor_traverse(Monitor *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void Monitor_dealloc(Monitor *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    /* Held: by a thread that did not come along when this process was forked. */
    if (pthread_mutex_trylock(&self->lock) == 0) {
        weir_monitor_destroy(self->monitor);
        pthread_mutex_unlock(&self->lock);
        pthread_mutex_destroy(&self->lock);
    }
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef monitor_methods[] = {
    {"look", (PyCFunction)Monitor_look, METH_NOARGS, look_doc},
    {"json", (PyCFunction)Monitor_json, METH_O, json_doc},
    {"openmetrics", (PyCFunction)Monitor_openmetrics, METH_NOARGS, openmetrics_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(
    monitor_doc,
    "Monitor(window=0, root_pid=0, queue_share=0.0, queue_depth=0.0, service_ns=0, events=0, "
    "throughput=0.0, age_growth=0.0, drops=0)\n--\n\n"
    "Looks at the numbers of the processes of this user.  0: the default.");

static PyType_Slot monitor_slots[] = {
    {Py_tp_doc, (void *)monitor_doc},
    {Py_tp_new, Monitor_new},
    {Py_tp_init, Monitor_init},
    {Py_tp_traverse, Monitor_traverse},
    {Py_tp_dealloc, Monitor_dealloc},
    {Py_tp_methods, monitor_methods},
    {0, NULL},
};

static PyType_Spec monitor_spec = {
    .name = "weir._weir.Monitor",
    .basicsize = sizeof(Monitor),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = monitor_slots,
};

int ext_monitor_types_add(PyObject *module, module_state *Py_UNUSED(state))
{
    PyTypeObject *type;
    if (ext_add_type(module, &monitor_spec, &type) < 0)
        return -1;
    Py_DECREF(type); /* the module keeps it */
    return 0;
}
