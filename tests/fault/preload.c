/* preload.c - fails the n-th call that the extension makes of libc, or of Python's allocators: to be
 * preloaded into an interpreter (python/tests/test_faults.py).
 *
 * A call of libc counts when its caller lies in the extension, where libweir is too.  One of Python's
 * allocators counts on the thread that watches, whoever makes it: what the extension asks of the interpreter
 * fails in the same way.  weir_faults.countdown is set by whoever tests, right before a call, and cleared right
 * after it, through a pointer: that allocates nothing itself.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <fcntl.h>

#define EXPORT __attribute__((visibility("default")))

enum { PYTHON, MALLOC, MAP, MEMFD, EVENTFD, RESERVE, OPEN, THREAD, FORK, WRITE, READ, KINDS };

EXPORT struct {
    _Atomic int64_t countdown; /* 1: the next one fails; <= 0: none */
    _Atomic int64_t hits;
    _Atomic int64_t kind;
    _Atomic int64_t allocations; /* of the extension: made and not freed */
} weir_faults;

static uintptr_t from, to; /* where the extension's code lies */
static pthread_t watcher;

static bool fails(int kind, int err)
{
    if (weir_faults.kind != kind || weir_faults.countdown <= 0 || --weir_faults.countdown != 0)
        return false;
    weir_faults.hits++;
    errno = err;
    return true;
}

static bool is_of_extension(const void *caller)
{
    return (uintptr_t)caller - from < to - from;
}

#define CALLER_FAILS(kind, err) (is_of_extension(__builtin_return_address(0)) && fails(kind, err))

/* ---- Python's allocators ------------------------------------------------------------------------- */

/* PyMemAllocatorEx. */
typedef struct allocator {
    void *ctx;
    void *(*malloc)(void *ctx, size_t size);
    void *(*calloc)(void *ctx, size_t n, size_t size);
    void *(*realloc)(void *ctx, void *old, size_t size);
    void (*free)(void *ctx, void *p);
} allocator;

static allocator before[3];

static bool python_fails(void)
{
    return weir_faults.countdown > 0 && pthread_equal(pthread_self(), watcher) &&
           fails(PYTHON, ENOMEM);
}

static void *python_malloc(void *ctx, size_t size)
{
    const allocator *real = ctx;
    return python_fails() ? NULL : real->malloc(real->ctx, size);
}

static void *python_calloc(void *ctx, size_t n, size_t size)
{
    const allocator *real = ctx;
    return python_fails() ? NULL : real->calloc(real->ctx, n, size);
}

static void *python_realloc(void *ctx, void *old, size_t size)
{
    const allocator *real = ctx;
    return python_fails() ? NULL : real->realloc(real->ctx, old, size);
}

static void python_free(void *ctx, void *p)
{
    const allocator *real = ctx;
    real->free(real->ctx, p);
}

/* Where the file lies in memory, from its first mapping to the end of its last one. */
static bool find_extension(const char *path)
{
    char line[512];
    uintptr_t low, high;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps)) {
        line[strcspn(line, "\n")] = '\0';
        const char *file = strchr(line, '/');
        if (!file || strcmp(file, path) != 0 || sscanf(line, "%lx-%lx", &low, &high) != 2)
            continue;
        from = from ? from : low;
        to = high;
    }
    if (maps)
        fclose(maps);
    return to > from;
}

static void stop(void)
{
    weir_faults.countdown = 0;
}

/* Begins, with the file of the extension.  By the thread whose Python allocations are to fail, once. */
int weir_faults_watch(const char *path);
EXPORT int weir_faults_watch(const char *path)
{
    void (*get)(int, allocator *), (*set)(int, allocator *);
    *(void **)&get = dlsym(RTLD_DEFAULT, "PyMem_GetAllocator");
    *(void **)&set = dlsym(RTLD_DEFAULT, "PyMem_SetAllocator");
    if (!get || !set || to > 0 || !find_extension(path))
        return -1;
    watcher = pthread_self();
    pthread_atfork(NULL, NULL, stop); /* a worker's calls are not counted */
    for (int domain = 0; domain < 3; domain++) {
        get(domain, &before[domain]);
        allocator ours = {&before[domain], python_malloc, python_calloc, python_realloc,
                          python_free};
        set(domain, &ours);
    }
    return 0;
}

/* ---- libc ------------------------------------------------------------------------------------------ */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *p);

static void *counted(void *p, const void *caller)
{
    if (p && is_of_extension(caller))
        weir_faults.allocations++;
    return p;
}

EXPORT void *malloc(size_t size)
{
    const void *caller = __builtin_return_address(0);
    return CALLER_FAILS(MALLOC, ENOMEM) ? NULL : counted(__libc_malloc(size), caller);
}

EXPORT void *calloc(size_t n, size_t size)
{
    const void *caller = __builtin_return_address(0);
    return CALLER_FAILS(MALLOC, ENOMEM) ? NULL : counted(__libc_calloc(n, size), caller);
}

EXPORT void *realloc(void *old, size_t size)
{
    const void *caller = __builtin_return_address(0);
    if (CALLER_FAILS(MALLOC, ENOMEM))
        return NULL;
    return old ? __libc_realloc(old, size) : counted(__libc_malloc(size), caller);
}

EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
    const void *caller = __builtin_return_address(0);
    return CALLER_FAILS(MALLOC, ENOMEM) ? NULL : counted(__libc_memalign(alignment, size), caller);
}

EXPORT void free(void *p)
{
    if (p && is_of_extension(__builtin_return_address(0)))
        weir_faults.allocations--;
    __libc_free(p);
}

#define REAL(type, name, ...)                                                                      \
    static type (*real)(__VA_ARGS__);                                                              \
    if (!real)                                                                                     \
    *(void **)&real = dlsym(RTLD_NEXT, name)

EXPORT void *mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    REAL(void *, "mmap64", void *, size_t, int, int, int, off_t);
    return CALLER_FAILS(MAP, ENOMEM) ? MAP_FAILED : real(at, size, protection, flags, fd, offset);
}

EXPORT int memfd_create(const char *name, unsigned flags)
{
    REAL(int, "memfd_create", const char *, unsigned);
    return CALLER_FAILS(MEMFD, EMFILE) ? -1 : real(name, flags);
}

EXPORT int eventfd(unsigned value, int flags)
{
    REAL(int, "eventfd", unsigned, int);
    return CALLER_FAILS(EVENTFD, EMFILE) ? -1 : real(value, flags);
}

EXPORT int fallocate64(int fd, int mode, off_t offset, off_t size)
{
    REAL(int, "fallocate64", int, int, off_t, off_t);
    return mode == 0 && CALLER_FAILS(RESERVE, ENOSPC) ? -1 : real(fd, mode, offset, size);
}

EXPORT int open64(const char *path, int flags, ...)
{
    REAL(int, "open64", const char *, int, ...);
    va_list more;
    va_start(more, flags);
    int mode = va_arg(more, int);
    va_end(more);
    return CALLER_FAILS(OPEN, EMFILE) ? -1 : real(path, flags, mode);
}

EXPORT int openat64(int at, const char *path, int flags, ...)
{
    REAL(int, "openat64", int, const char *, int, ...);
    va_list more;
    va_start(more, flags);
    int mode = va_arg(more, int);
    va_end(more);
    return CALLER_FAILS(OPEN, EMFILE) ? -1 : real(at, path, flags, mode);
}

EXPORT int pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*start)(void *),
                          void *arg)
{
    REAL(int, "pthread_create", pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    return CALLER_FAILS(THREAD, EAGAIN) ? EAGAIN : real(id, attr, start, arg);
}

EXPORT pid_t fork(void)
{
    REAL(pid_t, "fork", void);
    return CALLER_FAILS(FORK, EAGAIN) ? -1 : real();
}

EXPORT ssize_t pwrite64(int fd, const void *data, size_t n, off_t offset)
{
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
    return CALLER_FAILS(WRITE, ENOSPC) ? -1 : real(fd, data, n, offset);
}

EXPORT ssize_t pread64(int fd, void *data, size_t n, off_t offset)
{
    REAL(ssize_t, "pread64", int, void *, size_t, off_t);
    return CALLER_FAILS(READ, EIO) ? -1 : real(fd, data, n, offset);
}

EXPORT ssize_t pwritev64(int fd, const struct iovec *pieces, int n, off_t offset)
{
    REAL(ssize_t, "pwritev64", int, const struct iovec *, int, off_t);
    return CALLER_FAILS(WRITE, ENOSPC) ? -1 : real(fd, pieces, n, offset);
}
