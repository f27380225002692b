/* nth_call.c - see nth_call.h. */
#include "nth_call.h"

#include <dirent.h>
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include <fcntl.h>

static const struct {
    const char *name;
    int err;
} kinds[NTH_KINDS] = {
#define X(kind, text, err) {text, err},
    NTH_CALLS(X)
#undef X
};

/* In memory that workers share: the n-th call of all of them is one. */
static struct shared {
    _Atomic int64_t countdown; /* <= 0: none fails */
    _Atomic uint64_t hits;
    _Atomic uint64_t counts[NTH_KINDS];
    int kind;
    nth_place place;
} *shared;

static bool counts_here; /* calls of this process; changed while nobody calls */
static _Atomic int64_t allocations;
static _Atomic uint64_t eventfds; /* a bit for each descriptor below 64 */

const char *nth_name(int kind)
{
    return kinds[kind].name;
}

int nth_errno(int kind)
{
    return kinds[kind].err;
}

void *__real_mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset);

void nth_fails(int kind, int64_t n, nth_place place)
{
    if (!shared)
        shared = __real_mmap64(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    shared->kind = kind;
    shared->place = place;
    shared->hits = 0;
    for (int i = 0; i < NTH_KINDS; i++)
        shared->counts[i] = 0;
    shared->countdown = n;
    counts_here = place == NTH_HERE;
}

bool nth_end(void)
{
    shared->countdown = 0;
    counts_here = false;
    return nth_has_failed();
}

bool nth_has_failed(void)
{
    return shared->hits > 0;
}

uint64_t nth_count(int kind)
{
    return shared->counts[kind];
}

int64_t nth_allocations(void)
{
    return allocations;
}

/* Whether this call, which is of that kind, is the one. */
static bool fails(int kind)
{
    if (!counts_here)
        return false;
    shared->counts[kind]++;
    if (shared->kind != kind || shared->countdown <= 0 || --shared->countdown != 0)
        return false;
    shared->hits++;
    errno = kinds[kind].err;
    return true;
}

/* ---- memory ------------------------------------------------------------------------------------- */

#define WRAP(type, name, ...)                                                                      \
    type __real_##name(__VA_ARGS__);                                                               \
    type __wrap_##name(__VA_ARGS__);                                                               \
    type __wrap_##name(__VA_ARGS__)

static void *counted(void *p)
{
    allocations += p != NULL;
    return p;
}

WRAP(void *, malloc, size_t size)
{
    return fails(NTH_ALLOCATE) ? NULL : counted(__real_malloc(size));
}

WRAP(void *, calloc, size_t n, size_t size)
{
    return fails(NTH_ALLOCATE) ? NULL : counted(__real_calloc(n, size));
}

WRAP(void *, aligned_alloc, size_t alignment, size_t size)
{
    return fails(NTH_ALLOCATE) ? NULL : counted(__real_aligned_alloc(alignment, size));
}

WRAP(void *, realloc, void *old, size_t size)
{
    if (fails(NTH_ALLOCATE))
        return NULL;
    return old ? __real_realloc(old, size) : counted(__real_realloc(NULL, size));
}

WRAP(void, free, void *p)
{
    allocations -= p != NULL;
    __real_free(p);
}

WRAP(void *, mmap64, void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    return fails(NTH_MAP) ? MAP_FAILED : __real_mmap64(at, size, protection, flags, fd, offset);
}

void *__real_mremap(void *at, size_t size, size_t new_size, int flags, ...);
void *__wrap_mremap(void *at, size_t size, size_t new_size, int flags, ...);
void *__wrap_mremap(void *at, size_t size, size_t new_size, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    void *to = va_arg(more, void *);
    va_end(more);
    return fails(NTH_REMAP) ? MAP_FAILED : __real_mremap(at, size, new_size, flags, to);
}

/* ---- descriptors and files ------------------------------------------------------------------------ */

WRAP(int, memfd_create, const char *name, unsigned flags)
{
    return fails(NTH_MEMFD) ? -1 : __real_memfd_create(name, flags);
}

static uint64_t bit_of(int fd)
{
    return fd >= 0 && fd < 64 ? UINT64_C(1) << fd : 0;
}

WRAP(int, eventfd, unsigned value, int flags)
{
    int fd = fails(NTH_EVENTFD) ? -1 : __real_eventfd(value, flags);
    eventfds |= bit_of(fd);
    return fd;
}

WRAP(int, close, int fd)
{
    eventfds &= ~bit_of(fd);
    return __real_close(fd);
}

WRAP(int, epoll_create1, int flags)
{
    return fails(NTH_EPOLL) ? -1 : __real_epoll_create1(flags);
}

WRAP(int, epoll_ctl, int epoll, int op, int fd, struct epoll_event *event)
{
    return op == EPOLL_CTL_ADD && fails(NTH_EPOLL_ADD) ? -1
                                                       : __real_epoll_ctl(epoll, op, fd, event);
}

WRAP(int, epoll_wait, int epoll, struct epoll_event *events, int n, int timeout)
{
    return fails(NTH_EPOLL_WAIT) ? -1 : __real_epoll_wait(epoll, events, n, timeout);
}

/* A short write writes one byte. */
enum { GOES_ON, FAILED, SHORT };

static int write_fails(size_t n)
{
    if (fails(NTH_WRITE_FULL) || fails(NTH_WRITE_IO) || fails(NTH_WRITE_INTR))
        return FAILED;
    return n > 1 && fails(NTH_WRITE_SHORT) ? SHORT : GOES_ON;
}

static bool read_fails(void)
{
    return fails(NTH_READ_IO) || fails(NTH_READ_INTR);
}

/* An eventfd says EAGAIN when it cannot, and otherwise can. */
WRAP(ssize_t, write, int fd, const void *data, size_t n)
{
    if (eventfds & bit_of(fd))
        return fails(NTH_RING) ? -1 : __real_write(fd, data, n);
    int how = write_fails(n);
    return how == FAILED ? -1 : __real_write(fd, data, how == SHORT ? 1 : n);
}

WRAP(ssize_t, read, int fd, void *data, size_t n)
{
    if (eventfds & bit_of(fd))
        return fails(NTH_RING) ? -1 : __real_read(fd, data, n);
    return read_fails() ? -1 : __real_read(fd, data, n);
}

WRAP(ssize_t, pwrite64, int fd, const void *data, size_t n, off_t offset)
{
    int how = write_fails(n);
    return how == FAILED ? -1 : __real_pwrite64(fd, data, how == SHORT ? 1 : n, offset);
}

WRAP(ssize_t, pwritev64, int fd, const struct iovec *pieces, int n, off_t offset)
{
    int how = write_fails(pieces[0].iov_len);
    if (how == SHORT)
        return __real_pwritev64(fd, &(struct iovec){pieces[0].iov_base, 1}, 1, offset);
    return how == FAILED ? -1 : __real_pwritev64(fd, pieces, n, offset);
}

WRAP(ssize_t, pread64, int fd, void *data, size_t n, off_t offset)
{
    return read_fails() ? -1 : __real_pread64(fd, data, n, offset);
}

WRAP(int, fallocate64, int fd, int mode, off_t offset, off_t size)
{
    if (mode == 0 && (fails(NTH_RESERVE) || fails(NTH_RESERVE_INTR)))
        return -1;
    return __real_fallocate64(fd, mode, offset, size);
}

WRAP(int, ftruncate64, int fd, off_t size)
{
    return fails(NTH_TRUNCATE) ? -1 : __real_ftruncate64(fd, size);
}

WRAP(int, fdatasync, int fd)
{
    return fails(NTH_SYNC) ? -1 : __real_fdatasync(fd);
}

WRAP(int, fsync, int fd)
{
    return fails(NTH_SYNC) ? -1 : __real_fsync(fd);
}

WRAP(int, fstat64, int fd, struct stat *ret)
{
    return fails(NTH_STAT) ? -1 : __real_fstat64(fd, ret);
}

WRAP(int, mkdir, const char *path, mode_t mode)
{
    return fails(NTH_MKDIR) ? -1 : __real_mkdir(path, mode);
}

WRAP(int, linkat, int from_at, const char *from, int to_at, const char *to, int flags)
{
    return fails(NTH_LINK) ? -1 : __real_linkat(from_at, from, to_at, to, flags);
}

WRAP(DIR *, opendir, const char *path)
{
    return fails(NTH_LIST) ? NULL : __real_opendir(path);
}

WRAP(DIR *, fdopendir, int fd)
{
    return fails(NTH_LIST) ? NULL : __real_fdopendir(fd);
}

#define LAST(type, after)                                                                          \
    ({                                                                                             \
        va_list more_;                                                                             \
        va_start(more_, after);                                                                    \
        type last_ = va_arg(more_, type);                                                          \
        va_end(more_);                                                                             \
        last_;                                                                                     \
    })

static bool open_fails(void)
{
    return fails(NTH_OPEN) || fails(NTH_OPEN_MEMORY);
}

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...)
{
    return open_fails() ? -1 : __real_open64(path, flags, LAST(int, flags));
}

int __real_openat64(int at, const char *path, int flags, ...);
int __wrap_openat64(int at, const char *path, int flags, ...);
int __wrap_openat64(int at, const char *path, int flags, ...)
{
    return open_fails() ? -1 : __real_openat64(at, path, flags, LAST(int, flags));
}

static bool fcntl_fails(int op)
{
    return op == F_DUPFD_CLOEXEC ? fails(NTH_DUP)
                                 : (op == F_SETLK || op == F_OFD_SETLK) && fails(NTH_LOCK);
}

int __real_fcntl64(int fd, int op, ...);
int __wrap_fcntl64(int fd, int op, ...);
int __wrap_fcntl64(int fd, int op, ...)
{
    return fcntl_fails(op) ? -1 : __real_fcntl64(fd, op, LAST(void *, op));
}

/* ---- threads, processes, the rest ------------------------------------------------------------------ */

WRAP(pid_t, fork, void)
{
    if (fails(NTH_FORK))
        return -1;
    pid_t pid = __real_fork();
    if (pid == 0)
        counts_here = shared && shared->place == NTH_IN_WORKERS && shared->countdown > 0;
    return pid;
}

WRAP(int, pthread_create, pthread_t *id, const pthread_attr_t *attr, void *(*start)(void *),
     void *arg)
{
    return fails(NTH_THREAD) ? EAGAIN : __real_pthread_create(id, attr, start, arg);
}

/* libweir waits; who only looks is the test. */
WRAP(int, poll, struct pollfd *fds, nfds_t n, int timeout)
{
    return timeout != 0 && fails(NTH_POLL) ? -1 : __real_poll(fds, n, timeout);
}

WRAP(pid_t, waitpid, pid_t pid, int *status, int options)
{
    return fails(NTH_WAITPID) ? -1 : __real_waitpid(pid, status, options);
}

WRAP(int, sched_getaffinity, pid_t pid, size_t size, cpu_set_t *ret)
{
    return fails(NTH_AFFINITY) ? -1 : __real_sched_getaffinity(pid, size, ret);
}

WRAP(ssize_t, getrandom, void *data, size_t n, unsigned flags)
{
    return fails(NTH_RANDOM) ? -1 : __real_getrandom(data, n, flags);
}

/* A wake-up cannot fail, and what sleeps can be woken for nothing. */
static bool futex_fails(long op)
{
    op &= FUTEX_CMD_MASK;
    return (op == FUTEX_WAIT || op == FUTEX_WAIT_BITSET) &&
           (fails(NTH_FUTEX) || fails(NTH_FUTEX_AGAIN));
}

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
    long arg[6];
    va_list more;
    va_start(more, number);
    for (int i = 0; i < 6; i++)
        arg[i] = va_arg(more, long);
    va_end(more);
    if ((number == SYS_futex && futex_fails(arg[1])) ||
        (number == SYS_membarrier && fails(NTH_MEMBARRIER)) ||
        (number == SYS_pidfd_open && fails(NTH_PIDFD)))
        return -1;
    return __real_syscall(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
}
