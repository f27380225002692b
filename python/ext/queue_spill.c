/* queue_spill.c - the disk of weir.Queue: items to bytes and back, and what is said about it.
 *
 * Ownership:  what is put lies in a slot; when its bytes are on disk the slot is let go.  What comes back
 *             gets a new one.  It is unfinished all the time, so join() waits for what is on disk.
 * GIL:        libweir writes and reads without it; the calls back take it for dumps and loads alone.
 * Exceptions: one of dumps is put's: the callback leaves it set, and says WEIR_EINTR.
 */
#include "queue.h"

static PyObject *item_in(Queue *self, size_t slot)
{
    if (self->is_bare)
        return Py_NewRef((PyObject *)slot);
    EXT_LOCK(&self->lock);
    PyObject *item = Py_NewRef((PyObject *)self->slots[slot]);
    EXT_UNLOCK(&self->lock);
    return item;
}

/* 0, a weir_error, or -1 with an exception. */
static int add_bytes(PyObject *bytes, weir_record *into)
{
    Py_buffer view;
    if (PyObject_GetBuffer(bytes, &view, PyBUF_SIMPLE) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_TypeError))
            return -1;
        PyErr_Format(PyExc_TypeError, "dumps() of a weir.Spill must return bytes, not %.200s",
                     Py_TYPE(bytes)->tp_name);
        return -1;
    }
    int rc = weir_record_add(into, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    if (rc == WEIR_ENOMEM)
        PyErr_NoMemory();
    return rc < 0 ? -1 : 0;
}

static int encode(void *item, weir_record *into, void *ctx)
{
    Queue *self = ctx;
    ext_callback callback;
    ext_callback_begin(&callback);
    PyObject *object = item_in(self, ext_to_slot(item));
    PyObject *bytes = PyObject_CallOneArg(self->dumps, object);
    int rc = bytes ? add_bytes(bytes, into) : -1;
    Py_XDECREF(bytes);
    Py_DECREF(object);
    if (rc < 0) { /* stays set: put() raises it */
        Py_XDECREF(callback.type), Py_XDECREF(callback.value), Py_XDECREF(callback.traceback);
        PyErr_Fetch(&callback.type, &callback.value, &callback.traceback);
    }
    ext_callback_end(&callback);
    return rc < 0 ? WEIR_EINTR : WEIR_OK;
}

/* Into a slot again.  It has been unfinished all the time, so this does not count it once more. */
static int hold_again(Queue *self, PyObject *object, size_t *ret_slot)
{
    if (ext_queue_hold(self, object, ret_slot) < 0)
        return -1;
    ext_queue_finish(self, 1);
    return 0;
}

static int decode(const void *data, size_t n, void **ret_item, void *ctx)
{
    Queue *self = ctx;
    if (self->muted)
        return WEIR_EINVAL; /* the queue is being taken apart: nobody will see it */
    ext_callback callback;
    ext_callback_begin(&callback);
    PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)n);
    PyObject *object = bytes ? PyObject_CallOneArg(self->loads, bytes) : NULL;
    Py_XDECREF(bytes);
    size_t slot = 0;
    int rc = object ? hold_again(self, object, &slot) : -1;
    Py_XDECREF(object);
    if (rc < 0 && PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyErr_Clear();
        rc = WEIR_ENOMEM;
    } else if (rc < 0 && !PyErr_ExceptionMatches(PyExc_Exception)) {
        ext_postpone_exception(); /* it was interrupted, which says nothing about the item: */
        rc = WEIR_ENOMEM;         /* it is tried again */
    } else if (rc < 0) {
        ext_report_exception(self->loads);
        rc = WEIR_EINVAL;
    }
    ext_callback_end(&callback);
    if (rc == 0)
        *ret_item = ext_to_item(slot);
    return rc;
}

static void release(void *item, void *ctx)
{
    Queue *self = ctx;
    if (self->muted && !self->is_bare)
        return; /* the slots are gone */
    ext_callback callback;
    ext_callback_begin(&callback);
    Py_DECREF(ext_queue_let_go(self, ext_to_slot(item)));
    ext_callback_end(&callback);
}

static void lost(uint64_t n, void *ctx)
{
    Queue *self = ctx;
    if (self->muted)
        return;
    ext_callback callback;
    ext_callback_begin(&callback);
    ext_queue_finish(self, (size_t)n);
    ext_callback_end(&callback);
}

/* ---- what is said --------------------------------------------------------------------------- */

static void on_event(weir_spill_event event, void *ctx)
{
    Queue *self = ctx;
    if (self->muted)
        return;
    ext_callback callback;
    ext_callback_begin(&callback);
    PyObject *path = PyObject_GetAttrString(self->spill_settings, "path");
    PyObject *text = path ? PyOS_FSPath(path) : NULL;
    PyObject *tell = text ? ext_import("weir._spill", "tell") : NULL;
    PyObject *done = tell ? PyObject_CallFunction(tell, "iO", (int)event, text) : NULL;
    if (!done)
        ext_report_exception((PyObject *)self);
    Py_XDECREF(done);
    Py_XDECREF(tell);
    Py_XDECREF(text);
    Py_XDECREF(path);
    ext_callback_end(&callback);
}

/* `file`: which one could not be read; "": that is not why. */
static int raise_open(Queue *self, int error, PyObject *path, const char *file)
{
    const char *why = weir_strerror(error);
    char unreadable[160];
    switch (error) {
    case WEIR_EBUSY:
        why = "another queue, of this process or another one, has this directory";
        break;
    case WEIR_EINVAL:
        why =
            "a durable queue has left items there: say durable=True to have them, or choose another "
            "directory";
        break;
    case WEIR_ESYSTEM:
        why =
            "it cannot be made or opened: its parent has to be there, and it has to be a directory "
            "that can be written to";
        break;
    default: break;
    }
    if (*file && error == WEIR_ESYSTEM) {
        PyOS_snprintf(
            unreadable, sizeof unreadable,
            "the file %s in it cannot be read; nothing was removed: try again, or move it "
            "away to go on without what is in it",
            file);
        why = unreadable;
    }
    PyObject *text = PyUnicode_FromFormat("spill=Spill(%R): %s", path, why);
    const char *utf8 = text ? PyUnicode_AsUTF8(text) : NULL;
    if (utf8)
        ext_raise_text(self->state, error, utf8);
    Py_XDECREF(text);
    return -1;
}

/* ---- beginning ------------------------------------------------------------------------------ */

static int read_size(PyObject *settings, const char *name, uint64_t *ret)
{
    PyObject *value = PyObject_GetAttrString(settings, name);
    if (!value)
        return -1;
    *ret = value == Py_None ? 0 : PyLong_AsUnsignedLongLong(value);
    Py_DECREF(value);
    return PyErr_Occurred() ? -1 : 0;
}

/* Opens the directory as the settings say. */
static int open_spill(Queue *self, PyObject *settings)
{
    weir_spill_opts opts = WEIR_SPILL_OPTS_INIT;
    char unreadable[WEIR_SPILL_NAME] = "";
    PyObject *bytes = NULL;
    PyObject *path = PyObject_GetAttrString(settings, "path");
    PyObject *durable = PyObject_GetAttrString(settings, "durable");
    int rc = -1;
    if (path && durable && read_size(settings, "max_bytes", &opts.max_bytes) == 0 &&
        read_size(settings, "segment_bytes", &opts.segment_bytes) == 0 &&
        PyUnicode_FSConverter(path, &bytes)) {
        opts.dir = PyBytes_AS_STRING(bytes);
        opts.durable = self->is_durable = durable == Py_True;
        opts.on_event = on_event;
        opts.event_ctx = self;
        opts.ret_unreadable = unreadable;
        int error = weir_spill_create(&self->spill, &opts);
        rc = error < 0 ? raise_open(self, error, path, unreadable) : 0;
    }
    Py_XDECREF(bytes);
    Py_XDECREF(durable);
    Py_XDECREF(path);
    return rc;
}

static int refuse(const char *text)
{
    PyErr_SetString(PyExc_ValueError, text);
    return -1;
}

int ext_queue_spill_open(Queue *self, PyObject *settings, weir_queue_opts *opts)
{
    static const weir_codec functions = {encode, decode, release, lost, NULL};
    bool spills = opts->overflow == WEIR_OVERFLOW_SPILL;
    if (!settings || settings == Py_None)
        return spills ? refuse("overflow=\"spill\" needs spill=weir.Spill(path, max_bytes=...)")
                      : 0;
    if (!spills)
        return refuse("spill= goes with overflow=\"spill\"");
    if (self->governor)
        return refuse(
            "memory= does not go with overflow=\"spill\": what comes back from disk could "
            "not wait for memory; bound it with max_bytes");
    PyObject *type = ext_import("weir._spill", "Spill");
    int is_one = type ? PyObject_IsInstance(settings, type) : -1;
    Py_XDECREF(type);
    if (is_one == 0)
        PyErr_Format(PyExc_TypeError, "spill must be a weir.Spill or None, not %R", settings);
    if (is_one <= 0)
        return -1;
    self->spill_settings = Py_NewRef(settings);
    self->dumps = PyObject_GetAttrString(settings, "dumps");
    self->loads = PyObject_GetAttrString(settings, "loads");
    if (!self->dumps || !self->loads || open_spill(self, settings) < 0)
        return -1;
    self->codec = functions;
    self->codec.ctx = self;
    opts->spill = self->spill;
    opts->codec = &self->codec;
    return 0;
}

void ext_queue_spill_begin(Queue *self)
{
    if (!self->spill)
        return;
    weir_queue_snapshot now = WEIR_QUEUE_SNAPSHOT_INIT;
    weir_queue_get_snapshot(self->queue, &now);
    EXT_LOCK(&self->lock);
    self->unfinished += now.recovered;
    EXT_UNLOCK(&self->lock);
}

void ext_queue_spill_clear(Queue *self)
{
    if (self->spill && !self->is_durable)
        weir_spill_clear(self->spill);
}

void ext_queue_spill_leave(Queue *self)
{
    if (self->spill && self->generation == ext_fork_generation())
        weir_spill_close(self->spill);
}

void ext_queue_spill_forget(Queue *self)
{
    if (self->spill && self->generation == ext_fork_generation())
        weir_spill_destroy(self->spill);
    self->spill = NULL;
    Py_CLEAR(self->spill_settings);
    Py_CLEAR(self->dumps);
    Py_CLEAR(self->loads);
}

/* ---- looking -------------------------------------------------------------------------------- */

int ext_queue_spill_stats(Queue *self, const weir_queue_snapshot *now, PyObject *fields)
{
    weir_spill_snapshot disk = WEIR_SPILL_SNAPSHOT_INIT;
    if (self->spill)
        weir_spill_get_snapshot(self->spill, &disk);
    PyObject *more = Py_BuildValue(
        "{sK sK sK sK sK sK sO}", "spilled", (unsigned long long)now->spilled, "spilled_bytes",
        (unsigned long long)now->spilled_cost, "spills", (unsigned long long)now->spills,
        "recovered", (unsigned long long)now->recovered, "disk_bytes",
        (unsigned long long)disk.bytes, "damaged_files", (unsigned long long)disk.segments_damaged,
        "disk_full", disk.disk_full ? Py_True : Py_False);
    int rc = more ? PyDict_Update(fields, more) : -1;
    Py_XDECREF(more);
    return rc;
}
