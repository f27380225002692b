/* item.c - Python objects as the messages of a shared queue; its plain values also travel in the
 * batches of map() and in short replies.
 *
 * None, bools, ints of 64 bits, floats, str and bytes are written as they are, and so are small
 * tuples of them; everything else is pickled, which takes longer than the queue.  The tag of a
 * message says which.  What is read back was written by another process, and is checked.
 */
#include "module.h"

enum tag { PICKLE, BYTES, TEXT, INT, FLOAT, NONE, FALSE_, TRUE_, TUPLE };

static int encode_pickle(module_state *state, PyObject *item, ext_item *to, weir_message *message)
{
    PyObject *args[] = {item, state->pickle_protocol};
    to->owner = PyObject_Vectorcall(state->pickle_dumps, args, 2, NULL);
    if (!to->owner)
        return -1;
    *message =
        (weir_message){PyBytes_AS_STRING(to->owner), (size_t)PyBytes_GET_SIZE(to->owner), PICKLE};
    return 0;
}

/* Of exactly these types: a subclass is pickled, and stays one.  false: none of them. */
bool ext_plain_encode(PyObject *item, ext_item *to, weir_message *message)
{
    to->owner = NULL;
    if (PyBytes_CheckExact(item)) {
        to->owner = Py_NewRef(item);
        *message = (weir_message){PyBytes_AS_STRING(item), (size_t)PyBytes_GET_SIZE(item), BYTES};
        return true;
    }
    if (PyLong_CheckExact(item)) {
        int overflow;
        to->small.integer = PyLong_AsLongLongAndOverflow(item, &overflow);
        *message = (weir_message){&to->small, sizeof to->small.integer, INT};
        return !overflow;
    }
    if (PyUnicode_CheckExact(item)) {
        Py_ssize_t size;
        const char *text = PyUnicode_AsUTF8AndSize(item, &size);
        if (!text) {
            PyErr_Clear(); /* lone surrogates: pickle can */
            return false;
        }
        to->owner = Py_NewRef(item);
        *message = (weir_message){text, (size_t)size, TEXT};
        return true;
    }
    if (PyFloat_CheckExact(item)) {
        to->small.real = PyFloat_AS_DOUBLE(item);
        *message = (weir_message){&to->small, sizeof to->small.real, FLOAT};
        return true;
    }
    enum tag tag = item == Py_None ? NONE : item == Py_True ? TRUE_ : FALSE_;
    *message = (weir_message){NULL, 0, tag};
    return tag != FALSE_ || item == Py_False;
}

/* ---- small tuples: for each element a tag, a size and as many bytes ---- */

static bool add_element(char *to, size_t *used, enum tag tag, const void *data, size_t size)
{
    if (size > UINT8_MAX || *used + 2 + size > EXT_TUPLE_MAX)
        return false;
    to[(*used)++] = (char)tag;
    to[(*used)++] = (char)size;
    if (size)
        memcpy(to + *used, data, size);
    *used += size;
    return true;
}

/* false: to be pickled. */
static bool encode_tuple(PyObject *tuple, ext_item *to, weir_message *message)
{
    size_t used = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); i++) {
        ext_item element;
        weir_message m;
        if (!ext_plain_encode(PyTuple_GET_ITEM(tuple, i), &element, &m))
            return false;
        bool fits = add_element(to->small.tuple, &used, (enum tag)m.tag, m.data, m.size);
        Py_XDECREF(element.owner);
        if (!fits)
            return false;
    }
    *message = (weir_message){to->small.tuple, used, TUPLE};
    return true;
}

int ext_item_encode(module_state *state, PyObject *item, ext_item *to, weir_message *message)
{
    if (ext_plain_encode(item, to, message) ||
        (PyTuple_CheckExact(item) && encode_tuple(item, to, message)))
        return 0;
    return encode_pickle(state, item, to, message);
}

#define COPY_MAX 512 /* bytes; a small pickle is copied sooner than a memoryview is made */

static PyObject *decode_pickle(module_state *state, const weir_message *message)
{
    char *data = (char *)message->data;
    Py_ssize_t size = (Py_ssize_t)message->size;
    PyObject *pickled = size <= COPY_MAX ? PyBytes_FromStringAndSize(data, size)
                                         : PyMemoryView_FromMemory(data, size, PyBUF_READ);
    if (!pickled)
        return NULL;
    PyObject *item = PyObject_CallOneArg(state->pickle_loads, pickled);
    Py_DECREF(pickled);
    return item;
}

static PyObject *raise_strange(const weir_message *message)
{
    return PyErr_Format(PyExc_ValueError,
                        "the queue gave a message with tag %u and %zu bytes, which no "
                        "weir.SharedQueue has put: what else writes into it?",
                        message->tag, message->size);
}

int ext_plain_size(unsigned tag)
{
    switch (tag) {
    case INT:
    case FLOAT: return 8;
    case NONE:
    case FALSE_:
    case TRUE_: return 0;
    default: return -1;
    }
}

PyObject *ext_plain_decode(const weir_message *message)
{
    int64_t integer;
    double real;
    Py_ssize_t size = (Py_ssize_t)message->size;
    switch (message->tag) {
    case BYTES: return PyBytes_FromStringAndSize(message->data, size);
    case TEXT: return PyUnicode_DecodeUTF8(message->data, size, NULL);
    case INT:
        if (size != sizeof integer)
            break;
        memcpy(&integer, message->data, sizeof integer);
        return PyLong_FromLongLong(integer);
    case FLOAT:
        if (size != sizeof real)
            break;
        memcpy(&real, message->data, sizeof real);
        return PyFloat_FromDouble(real);
    case NONE: Py_RETURN_NONE;
    case FALSE_: Py_RETURN_FALSE;
    case TRUE_: Py_RETURN_TRUE;
    }
    return raise_strange(message);
}

/* The element at *at, which moves behind it; false: there is none. */
static bool next_element(const weir_message *tuple, size_t *at, weir_message *ret)
{
    const unsigned char *data = tuple->data;
    if (tuple->size - *at < 2 || tuple->size - *at - 2 < data[*at + 1])
        return false;
    *ret = (weir_message){data + *at + 2, data[*at + 1], data[*at]};
    *at += 2 + ret->size;
    return true;
}

static PyObject *decode_tuple(const weir_message *message)
{
    weir_message element;
    Py_ssize_t n = 0;
    size_t at = 0;
    while (next_element(message, &at, &element))
        n++;
    if (at != message->size)
        return raise_strange(message);
    PyObject *tuple = PyTuple_New(n);
    at = 0;
    for (Py_ssize_t i = 0; tuple && i < n; i++) {
        next_element(message, &at, &element);
        PyObject *item = ext_plain_decode(&element);
        if (item)
            PyTuple_SET_ITEM(tuple, i, item);
        else
            Py_CLEAR(tuple);
    }
    return tuple;
}

PyObject *ext_item_decode(module_state *state, const weir_message *message)
{
    return message->tag == PICKLE  ? decode_pickle(state, message)
           : message->tag == TUPLE ? decode_tuple(message)
                                   : ext_plain_decode(message);
}
