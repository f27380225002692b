/* calls.h - the n-th call of a kind fails, in the parent or in each worker: an allocation, a reservation
 * of shared memory, a mapping, a fork.  Its functions stand before libc's: include it once. */
#ifndef WEIR_TESTS_FAULT_CALLS_H
#define WEIR_TESTS_FAULT_CALLS_H

#include "fault/faults.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ALLOCATE, RESERVE, MAP, FORK, KINDS };

static const int kind_errno[KINDS] = {ENOMEM, ENOSPC, ENOMEM, EAGAIN};

static struct {
    int kind;
    int64_t countdown; /* 0: none fails */
    bool stays, in_workers;
    pid_t owner;
    _Atomic unsigned hits;
} fault;

static pthread_t main_thread; /* the others, a sanitizer's say, are left alone */

static bool fails(int kind)
{
    if (fault.kind != kind || fault.countdown <= 0 ||
        (getpid() == fault.owner) == fault.in_workers ||
        (!fault.in_workers && !pthread_equal(pthread_self(), main_thread)) || --fault.countdown > 0)
        return false;
    fault.hits++;
    fault.countdown = fault.stays ? 1 : 0;
    errno = kind_errno[kind];
    return true;
}

static bool allocation_fails(void)
{
    return fails(ALLOCATE);
}

static inline void start_failing(int kind, int64_t n, bool stays, bool in_workers)
{
    fault.kind = kind;
    fault.stays = stays;
    fault.in_workers = in_workers;
    fault.owner = getpid();
    fault.hits = 0;
    fault.countdown = n;
    weir__alloc_fails = allocation_fails;
}

/* Whether one has failed (in the parent). */
static inline bool end_failing(void)
{
    fault.countdown = 0;
    return fault.hits > 0;
}

/* These stand before libc's (and the sanitizers') for the whole program. */
int fallocate(int fd, int mode, off_t offset, off_t size)
{
    if (mode == 0 && fails(RESERVE))
        return -1;
    return (int)syscall(SYS_fallocate, fd, mode, offset, size);
}

#ifndef __SANITIZE_THREAD__ /* which maps before dlsym works */
void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    typedef void *map_fn(void *, size_t, int, int, int, off_t);
    map_fn *real;
    if (fd >= 0 && fails(MAP))
        return MAP_FAILED;
    *(void **)&real = dlsym(RTLD_NEXT, "mmap");
    return real(at, size, protection, flags, fd, offset);
}
#endif

pid_t fork(void)
{
    typedef pid_t fork_fn(void);
    fork_fn *real;
    if (fails(FORK))
        return -1;
    *(void **)&real = dlsym(RTLD_NEXT, "fork");
    return real();
}

#endif
