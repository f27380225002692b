/* batch.c - what the items of a map() batch look like on their way to a worker and back.
 *
 * A payload is   fn size (u64) | pickled fn | items (u32) | arguments of each (u32) | those
 * A reply is     the items' results
 *
 * and an item is a tag and what the tag says.  Small plain values are written as they are; everything
 * else is pickled on its own, so that what cannot be pickled is the error of its own item.
 *
 *     below 32       a plain value, as in item.c, with its size (u64) where that is not fixed
 *     p              size and a pickle; as an argument: of the one argument
 *     t              size and the pickle of a tuple of arguments
 *     x              size and a pickled exception, which is raised
 *     e              an argument that could not be pickled: the parent knows why
 *     m              a result for which there was no memory
 */
#include "module.h"

/* Of what stands behind a tag; -1: a size comes first. */
static int fixed_size(unsigned tag)
{
    return tag == 'e' || tag == 'm' ? 0 : tag < 32 ? ext_plain_size(tag) : -1;
}

/* ---- writing ------------------------------------------------------------------------------- */

/* A bytes object that grows. */
typedef struct writer {
    PyObject *bytes; /* NULL: an error is set */
    Py_ssize_t size;
} writer;

static bool writer_init(writer *w, Py_ssize_t room)
{
    w->bytes = PyBytes_FromStringAndSize(NULL, room);
    w->size = 0;
    return w->bytes != NULL;
}

static char *writer_room(writer *w, Py_ssize_t size)
{
    Py_ssize_t has = PyBytes_GET_SIZE(w->bytes);
    if (size > has - w->size) {
        Py_ssize_t want = w->size + size > 2 * has ? w->size + size : 2 * has;
        if (_PyBytes_Resize(&w->bytes, want) < 0)
            return NULL;
    }
    char *at = PyBytes_AS_STRING(w->bytes) + w->size;
    w->size += size;
    return at;
}

static PyObject *writer_finish(writer *w)
{
    _PyBytes_Resize(&w->bytes, w->size);
    return w->bytes;
}

static int write_tag(writer *w, char tag)
{
    char *at = writer_room(w, 1);
    if (at)
        *at = tag;
    return at ? 0 : -1;
}

/* With its size, unless the tag says it. */
static int write_sized(writer *w, unsigned tag, const void *data, size_t size)
{
    size_t head = fixed_size(tag) < 0 ? 9 : 1;
    uint64_t n = size;
    char *at = writer_room(w, (Py_ssize_t)(head + size));
    if (!at)
        return -1;
    *at = (char)tag;
    if (head > 1)
        memcpy(at + 1, &n, 8);
    if (size)
        memcpy(at + head, data, size);
    return 0;
}

/* A value that needs no pickle: 1; 0: it does. */
static int write_plain(writer *w, PyObject *value)
{
    ext_item plain;
    weir_message message;
    if (!ext_plain_encode(value, &plain, &message))
        return 0;
    int rc = write_sized(w, message.tag, message.data, message.size);
    Py_XDECREF(plain.owner);
    return rc < 0 ? -1 : 1;
}

/* What dump(value) returns, a bytes-like object, with its tag.  ALONE: it returned None. */
#define ALONE 1

static int write_dumped(writer *w, char tag, PyObject *dump, PyObject *value)
{
    PyObject *data = PyObject_CallOneArg(dump, value);
    Py_buffer view;
    int rc = -1;
    if (data == Py_None) {
        rc = ALONE;
    } else if (data && PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) == 0) {
        rc = write_sized(w, (unsigned char)tag, view.buf, (size_t)view.len);
        PyBuffer_Release(&view);
    }
    Py_XDECREF(data);
    return rc;
}

/* One item's arguments; a tuple of them, unless there is one.  ALONE: it does not belong here. */
static int write_call(writer *w, PyObject *call, Py_ssize_t n_args, PyObject *dump)
{
    if (n_args == 1) {
        int plain = write_plain(w, call);
        return plain ? (plain < 0 ? -1 : 0) : write_dumped(w, 'p', dump, call);
    }
    Py_ssize_t start = w->size;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(call); i++) {
        int plain = write_plain(w, PyTuple_GET_ITEM(call, i));
        if (plain < 0)
            return -1;
        if (plain == 0) { /* together: what they share stays shared */
            w->size = start;
            return write_dumped(w, 't', dump, call);
        }
    }
    return 0;
}

/* An item that cannot be pickled becomes an 'e', and errors[i] the reason. */
static int note_unsendable(writer *w, Py_ssize_t start, PyObject *errors, Py_ssize_t i)
{
    if (!w->bytes || !PyErr_ExceptionMatches(PyExc_Exception))
        return -1; /* no memory to write; a signal handler raised */
    PyObject *error = ext_take_exception();
    PyObject *index = error ? PyLong_FromSsize_t(i) : NULL;
    int rc = index ? PyDict_SetItem(errors, index, error) : -1;
    Py_XDECREF(error);
    Py_XDECREF(index);
    w->size = start;
    return rc < 0 ? -1 : write_tag(w, 'e');
}

PyDoc_STRVAR(
    dump_calls_doc,
    "dump_calls(fn, calls, n_args, dump, max_bytes, /)\n--\n\n"
    "(payload, items, errors): a batch of the first of the calls, as many as stay within max_bytes "
    "and for which dump does not return None.  A call is a tuple of n_args, or the one argument; fn "
    "is pickled already; errors: the exceptions of items that cannot be.");

static PyObject *dump_calls(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *fn, *calls, *dump;
    Py_ssize_t n_args, max_bytes;
    if (!PyArg_ParseTuple(args, "SO!nOn:dump_calls", &fn, &PyList_Type, &calls, &n_args, &dump,
                          &max_bytes))
        return NULL;
    uint64_t fn_size = (uint64_t)PyBytes_GET_SIZE(fn);
    uint32_t counts[2] = {0, (uint32_t)n_args};
    writer w;
    PyObject *errors = PyDict_New();
    if (!errors || !writer_init(&w, 256 + (Py_ssize_t)fn_size + 10 * PyList_GET_SIZE(calls)))
        goto fail_errors;
    char *head = writer_room(&w, 16 + (Py_ssize_t)fn_size); /* there is room */
    memcpy(head, &fn_size, 8);
    memcpy(head + 8, PyBytes_AS_STRING(fn), fn_size);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(calls); i++) {
        Py_ssize_t start = w.size;
        PyObject *call = Py_NewRef(PyList_GET_ITEM(calls, i));
        int rc = write_call(&w, call, n_args, dump);
        Py_DECREF(call);
        if (rc < 0 && note_unsendable(&w, start, errors, i) < 0)
            goto fail;
        if (rc == ALONE || (rc == 0 && i > 0 && w.size > max_bytes)) {
            w.size = start; /* it goes with the next batch */
            break;
        }
        counts[0]++;
    }
    memcpy(PyBytes_AS_STRING(w.bytes) + 8 + fn_size, counts, 8);
    return Py_BuildValue("(NnN)", writer_finish(&w), (Py_ssize_t)counts[0], errors);

fail:
    Py_XDECREF(w.bytes);
fail_errors:
    Py_XDECREF(errors);
    return NULL;
}

/* ---- reading ------------------------------------------------------------------------------- */

/* What is left to read; nothing behind its end is touched, whatever is written there. */
typedef struct reader {
    const char *at, *end;
} reader;

static bool read_item(reader *r, weir_message *ret)
{
    if (r->at == r->end)
        return false;
    ret->tag = (unsigned char)*r->at++;
    int64_t size = fixed_size(ret->tag);
    if (size < 0) {
        if (r->end - r->at < 8)
            return false;
        memcpy(&size, r->at, 8);
        r->at += 8;
    }
    if (size < 0 || size > r->end - r->at)
        return false;
    ret->data = r->at;
    ret->size = (size_t)size;
    r->at += size;
    return true;
}

static PyObject *load_pickle(const weir_message *it, PyObject *load)
{
    PyObject *view = PyMemoryView_FromMemory((char *)it->data, (Py_ssize_t)it->size, PyBUF_READ);
    PyObject *value = view ? PyObject_CallOneArg(load, view) : NULL;
    Py_XDECREF(view);
    return value;
}

static bool is_pickled(unsigned tag)
{
    return tag == 'p' || tag == 't' || tag == 'x';
}

/* A plain or pickled value. */
static PyObject *load_value(const weir_message *it, PyObject *load)
{
    if (is_pickled(it->tag))
        return load_pickle(it, load);
    if (it->tag != 'm')
        return ext_plain_decode(it);
    PyErr_SetString(PyExc_MemoryError, "the result did not fit into the machine's shared memory");
    return NULL;
}

/* The current exception as a Failure; NULL: it is not an item's. */
static PyObject *failure_of_error(module_state *state)
{
    PyObject *error = ext_take_exception();
    PyObject *failure = error ? ext_failure_new(state, error) : NULL;
    Py_XDECREF(error);
    return failure;
}

static PyObject *load_result(module_state *state, const weir_message *it, PyObject *load,
                             PyObject *errors, Py_ssize_t i)
{
    PyObject *value = NULL;
    if (it->tag == 'e') {
        PyObject *index = PyLong_FromSsize_t(i);
        PyObject *error = index ? PyDict_GetItemWithError(errors, index) : NULL;
        Py_XDECREF(index);
        if (error)
            return ext_failure_new(state, error);
        PyErr_SetString(PyExc_RuntimeError, "the item could not be sent");
    } else {
        value = load_value(it, load);
        if (value && it->tag == 'x')
            Py_SETREF(value, ext_failure_new(state, value));
    }
    return value ? value : failure_of_error(state);
}

PyDoc_STRVAR(
    load_results_doc,
    "load_results(data, items, first, load, errors, /)\n--\n\n"
    "The results of `items` items, of which the first is number `first`; a Failure for each "
    "that raised.");

static PyObject *load_results(PyObject *module, PyObject *args)
{
    module_state *state = PyModule_GetState(module);
    Py_buffer data;
    Py_ssize_t items, first;
    PyObject *load, *errors;
    if (!PyArg_ParseTuple(args, "y*nnOO!:load_results", &data, &items, &first, &load, &PyDict_Type,
                          &errors))
        return NULL;
    reader r = {data.buf, (const char *)data.buf + data.len};
    PyObject *results = PyList_New(items);
    for (Py_ssize_t i = 0; results && i < items; i++) {
        weir_message it;
        PyObject *result = NULL;
        if (read_item(&r, &it))
            result = load_result(state, &it, load, errors, first + i);
        else
            PyErr_SetString(PyExc_RuntimeError, "the worker's reply makes no sense");
        if (!result)
            Py_CLEAR(results);
        else
            PyList_SET_ITEM(results, i, result);
    }
    PyBuffer_Release(&data);
    return results;
}

/* ---- a reply that is one plain value -------------------------------------------------------- */

PyObject *ext_dump_plain(PyObject *value)
{
    writer w;
    if (!writer_init(&w, 32))
        return NULL;
    int plain = write_plain(&w, value);
    if (plain == 1)
        return writer_finish(&w);
    Py_XDECREF(w.bytes);
    return NULL;
}

PyObject *ext_load_plain(const void *data, size_t size)
{
    reader r = {data, (const char *)data + size};
    weir_message it;
    if (read_item(&r, &it) && r.at == r.end)
        return ext_plain_decode(&it);
    PyErr_SetString(PyExc_RuntimeError, "the worker's reply makes no sense");
    return NULL;
}

PyDoc_STRVAR(load_plain_doc, "load_plain(data, /)\n--\n\nThe value of a plain reply.");

static PyObject *load_plain(PyObject *Py_UNUSED(module), PyObject *object)
{
    Py_buffer data;
    if (PyObject_GetBuffer(object, &data, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *value = ext_load_plain(data.buf, (size_t)data.len);
    PyBuffer_Release(&data);
    return value;
}

/* ---- running ------------------------------------------------------------------------------- */

#define ARGS_MAX 64

/* One item's arguments.  A 't' is a tuple of all, in args[0]. */
typedef struct call {
    bool is_unsendable;
    bool is_tuple;
    PyObject *args[ARGS_MAX];
    Py_ssize_t n;
} call;

static void clear_call(call *c)
{
    for (Py_ssize_t i = 0; i < c->n; i++)
        Py_DECREF(c->args[i]);
    c->n = 0;
}

/* Steps over an item, and loads its arguments unless load is NULL.  1; 0: an exception, which is the
 * item's; -1: the payload makes no sense. */
static int read_call(reader *r, Py_ssize_t n_args, PyObject *load, call *ret)
{
    int rc = 1;
    ret->n = 0;
    ret->is_unsendable = ret->is_tuple = false;
    for (Py_ssize_t i = 0; i < n_args; i++) {
        weir_message it;
        if (!read_item(r, &it))
            return -1;
        if (load && rc == 1 && it.tag != 'e') {
            PyObject *value = load_value(&it, load);
            if (value)
                ret->args[ret->n++] = value;
            else
                rc = 0;
        }
        ret->is_unsendable |= it.tag == 'e';
        ret->is_tuple |= it.tag == 't';
        if (it.tag == 'e' || it.tag == 't')
            break;
    }
    return rc;
}

static PyObject *run_call(PyObject *fn, call *c)
{
    if (c->is_tuple)
        return PyObject_CallObject(fn, c->args[0]);
    return PyObject_Vectorcall(fn, c->args, (size_t)c->n, NULL);
}

/* The result of one item, or the exception that is set, into the empty writer. */
static int write_result(writer *w, PyObject *result, PyObject *dump, PyObject *dump_error)
{
    if (result) {
        int plain = write_plain(w, result);
        if (plain)
            return plain;
        if (write_dumped(w, 'p', dump, result) == 0)
            return 0;
    }
    if (!w->bytes)
        return -1;
    w->size = 0;
    PyObject *error = ext_take_exception();
    int rc = error ? write_dumped(w, 'x', dump_error, error) : -1;
    Py_XDECREF(error);
    return rc;
}

/* With the GIL where it surely does not wait. */
static int reply_item(weir_worker *worker, const writer *w, Py_ssize_t *replied)
{
    weir_bytes part = {PyBytes_AS_STRING(w->bytes), (size_t)w->size};
    bool may_wait = *replied == 0 || *replied + w->size > (32 << 10);
    int rc;
    *replied += w->size;
    if (!may_wait)
        return weir_worker_reply_item(worker, &part, 1);
    Py_BEGIN_ALLOW_THREADS rc = weir_worker_reply_item(worker, &part, 1);
    Py_END_ALLOW_THREADS return rc;
}

/* What a batch needs from weir._worker. */
typedef struct batch {
    weir_worker *worker;
    PyObject *fn, *fn_error; /* fn, or why it could not be loaded */
    Py_ssize_t n_args;
    PyObject *load, *dump, *dump_error;
} batch;

/* Runs the item that r stands at, and replies. */
static int run_item(const batch *b, reader *r, writer *w, Py_ssize_t *replied)
{
    call c;
    int read = read_call(r, b->n_args, b->fn ? b->load : NULL, &c);
    if (read < 0) {
        PyErr_SetString(PyExc_RuntimeError, "the batch makes no sense");
        return -1;
    }
    w->size = 0;
    int rc = 0;
    if (c.is_unsendable) {
        rc = write_tag(w, 'e');
    } else {
        PyObject *result = NULL;
        if (!b->fn)
            PyErr_SetObject((PyObject *)Py_TYPE(b->fn_error), b->fn_error);
        else if (read == 1)
            result = run_call(b->fn, &c);
        rc = write_result(w, result, b->dump, b->dump_error);
        Py_XDECREF(result);
    }
    clear_call(&c);
    if (rc < 0)
        return -1;
    rc = reply_item(b->worker, w, replied);
    if (rc == WEIR_ENOSHM) {
        w->size = 0;
        rc = write_tag(w, 'm') < 0 ? -1 : reply_item(b->worker, w, replied);
    }
    return rc < 0 ? -1 : 0;
}

static int run_items(const batch *b, reader *r)
{
    writer w;
    uint32_t number, next = 0;
    Py_ssize_t replied = 0;
    if (!writer_init(&w, 256))
        return -1;
    int rc = 0;
    while (rc == 0 && weir_worker_next_item(b->worker, &number) == 0) {
        call skipped;
        for (; rc == 0 && next < number; next++)
            rc = read_call(r, b->n_args, NULL, &skipped) < 0 ? -1 : 0;
        if (rc == 0)
            rc = run_item(b, r, &w, &replied);
        next++;
    }
    Py_XDECREF(w.bytes);
    return rc;
}

int ext_run_batch(weir_worker *worker, const char *payload, size_t size, PyObject *load,
                  PyObject *dump, PyObject *dump_error)
{
    uint64_t fn_size = 0;
    uint32_t counts[2] = {0, 0};
    if (size >= 16)
        memcpy(&fn_size, payload, 8);
    if (size >= 16 && fn_size <= size - 16)
        memcpy(counts, payload + 8 + fn_size, 8);
    if (counts[1] < 1 || counts[1] > ARGS_MAX) {
        PyErr_SetString(PyExc_RuntimeError, "the batch makes no sense");
        return -1;
    }
    batch b = {.worker = worker,
               .n_args = counts[1],
               .load = load,
               .dump = dump,
               .dump_error = dump_error};
    weir_message fn = {payload + 8, fn_size, 'p'};
    b.fn = load_pickle(&fn, load);
    if (!b.fn && !(b.fn_error = ext_take_exception()))
        return -1;
    reader r = {payload + 16 + fn_size, payload + size};
    int rc = run_items(&b, &r);
    Py_XDECREF(b.fn);
    Py_XDECREF(b.fn_error);
    return rc;
}

static PyMethodDef functions[] = {
    {"dump_calls", dump_calls, METH_VARARGS, dump_calls_doc},
    {"load_results", load_results, METH_VARARGS, load_results_doc},
    {"load_plain", load_plain, METH_O, load_plain_doc},
    {NULL, NULL, 0, NULL},
};

int ext_batch_add(PyObject *module, module_state *Py_UNUSED(state))
{
    return PyModule_AddFunctions(module, functions);
}
