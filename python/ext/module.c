/* module.c - the extension module weir._weir: its state and its types.
 *
 * Multi-phase initialisation: every interpreter, also one with its own GIL, has its own state.
 */
#include "module.h"

#include <pthread.h>
#include <stdatomic.h>

/* The files that bring types and functions. */
static int (*const types_add[])(PyObject *, module_state *) = {
    ext_queue_types_add,
    ext_shared_queue_types_add,
    ext_pending_types_add,
    ext_coro_types_add,
    ext_permits_types_add,
    ext_future_types_add,
    ext_buffer_types_add,
    ext_shared_types_add,
    ext_thread_pool_types_add,
    ext_governor_types_add,
    ext_pool_types_add,
    ext_worker_types_add,
    ext_batch_add,
    ext_results_add,
    ext_guard_types_add,
    ext_breaker_types_add,
    ext_throttle_types_add,
    ext_limiter_types_add,
    ext_rate_types_add,
    ext_watermark_types_add,
    ext_pipeline_types_add,
    ext_monitor_types_add,
};

/* ---- forks ------------------------------------------------------------------------------ */

static atomic_uint fork_generation;

static void in_forked_child(void)
{
    atomic_fetch_add_explicit(&fork_generation, 1, memory_order_relaxed);
    ext_handover_forked();
}

static void count_forks(void)
{
    pthread_atfork(NULL, NULL, in_forked_child);
    ext_leases_watch_forks();
}

unsigned ext_fork_generation(void)
{
    return atomic_load_explicit(&fork_generation, memory_order_relaxed);
}

/* ---- shared helpers --------------------------------------------------------------------- */

module_state *ext_state_of(PyTypeObject *type)
{
    /* PyType_GetModuleByDef is younger than 3.10. */
    PyObject *mro = type->tp_mro;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(mro); i++) {
        PyTypeObject *base = (PyTypeObject *)PyTuple_GET_ITEM(mro, i);
        if (!PyType_HasFeature(base, Py_TPFLAGS_HEAPTYPE))
            continue;
        PyObject *module = ((PyHeapTypeObject *)base)->ht_module;
        if (module && PyModule_Check(module) && PyModule_GetDef(module) == &ext_module_def)
            return PyModule_GetState(module);
    }
    PyErr_Format(PyExc_TypeError, "%s is not a type of weir", type->tp_name);
    return NULL;
}

int ext_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **ret_type)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (!type)
        return -1;
    if (PyModule_AddType(module, (PyTypeObject *)type) < 0) {
        Py_DECREF(type);
        return -1;
    }
    *ret_type = (PyTypeObject *)type;
    return 0;
}

static int index_of(const char *const *names, PyObject *name)
{
    for (int i = 0; names[i]; i++)
        if (PyUnicode_CompareWithASCIIString(name, names[i]) == 0)
            return i;
    return -1;
}

int ext_parse_args(const char *function, const char *const *names, int n_positional, int n_required,
                   PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames, PyObject **ret)
{
    if (n_args > n_positional) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %d positional argument%s (%zd given)",
                     function, n_positional, n_positional == 1 ? "" : "s", n_args);
        return -1;
    }
    for (int i = 0; names[i]; i++)
        ret[i] = i < n_args ? args[i] : NULL;

    Py_ssize_t n_keywords = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    for (Py_ssize_t k = 0; k < n_keywords; k++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, k);
        int i = index_of(names, name);
        if (i < 0) {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R", function,
                         name);
            return -1;
        }
        if (ret[i]) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument %R", function,
                         name);
            return -1;
        }
        ret[i] = args[n_args + k];
    }
    for (int i = 0; i < n_required; i++) {
        if (!ret[i]) {
            PyErr_Format(PyExc_TypeError, "%s() is missing its argument '%s'", function, names[i]);
            return -1;
        }
    }
    return 0;
}

/* ---- the module ------------------------------------------------------------------------- */

PyObject *ext_import(const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *object = module ? PyObject_GetAttrString(module, name) : NULL;
    Py_XDECREF(module);
    return object;
}

static int import_into(PyObject **ret, const char *module_name, const char *name)
{
    *ret = ext_import(module_name, name);
    return *ret ? 0 : -1;
}

static int import_objects(module_state *state)
{
    const struct {
        PyObject **ret;
        const char *module, *name;
    } rows[] = {
        {&state->full, "queue", "Full"},
        {&state->empty, "queue", "Empty"},
        {&state->getsizeof, "sys", "getsizeof"},
        {&state->shut_down, "weir._errors", "ShutDown"},
        {&state->too_large, "weir._errors", "TooLarge"},
        {&state->backlog_full, "weir._errors", "BacklogFull"},
        {&state->breaker_open, "weir._errors", "BreakerOpen"},
        {&state->overloaded, "weir._errors", "Overloaded"},
        {&state->throttled, "weir._errors", "Throttled"},
        {&state->timeout, "weir._errors", "Timeout"},
        {&state->dropped, "weir._errors", "Dropped"},
        {&state->condition_type, "threading", "Condition"},
        {&state->base_future, "concurrent.futures._base", "Future"},
        {&state->cancelled_error, "concurrent.futures._base", "CancelledError"},
        {&state->invalid_state_error, "concurrent.futures._base", "InvalidStateError"},
        {&state->futures_timeout, "concurrent.futures._base", "TimeoutError"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (import_into(rows[i].ret, rows[i].module, rows[i].name) < 0)
            return -1;
    return 0;
}

static int make_names(module_state *state)
{
    const struct {
        PyObject **ret;
        const char *text;
    } rows[] = {
        {&state->str_create_future, "create_future"},
        {&state->str_call_later, "call_later"},
        {&state->str_call_soon_threadsafe, "call_soon_threadsafe"},
        {&state->str_set_result, "set_result"},
        {&state->str_done, "done"},
        {&state->str_cancel, "cancel"},
        {&state->str_wake, "wake"},
        {&state->str_pending, "PENDING"},
        {&state->str_running, "RUNNING"},
        {&state->str_cancelled, "CANCELLED"},
        {&state->str_cancelled_and_notified, "CANCELLED_AND_NOTIFIED"},
        {&state->str_finished, "FINISHED"},
        {&state->str_invoke_callbacks, "_invoke_callbacks"},
        {&state->str_pool, "_pool"},
        {&state->str_shared, "_shared"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!(*rows[i].ret = PyUnicode_InternFromString(rows[i].text)))
            return -1;
    return 0;
}

static int module_exec(PyObject *module)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, count_forks);

    module_state *state = PyModule_GetState(module);
    if (import_objects(state) < 0 || make_names(state) < 0)
        return -1;
    for (size_t i = 0; i < sizeof types_add / sizeof *types_add; i++)
        if (types_add[i](module, state) < 0)
            return -1;
    return PyModule_AddStringConstant(module, "__version__", weir_version());
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    module_state *state = PyModule_GetState(module);
#define X(type, name) Py_VISIT(state->name);
    STATE_OBJECTS(X)
#undef X
    return 0;
}

static int module_clear(PyObject *module)
{
    module_state *state = PyModule_GetState(module);
#define X(type, name) Py_CLEAR(state->name);
    STATE_OBJECTS(X)
#undef X
    return 0;
}

static void module_free(void *module)
{
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

struct PyModuleDef ext_module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "weir._weir",
    .m_doc = "libweir for Python; use the package weir.",
    .m_size = sizeof(module_state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__weir(void)
{
    return PyModuleDef_Init(&ext_module_def);
}
