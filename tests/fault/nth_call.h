/* nth_call.h - every call that libweir makes of the kernel or the allocator, so that the n-th of a kind can
 * fail, in this process or in the workers that it forks.
 *
 * Linked with --wrap (tests/meson.build), so it is libweir's own calls that are counted, and the test's;
 * those that libc makes for itself are not.  What is acquired is counted too: what is still there at the end
 * was leaked.
 */
#ifndef WEIR_TESTS_FAULT_NTH_CALL_H
#define WEIR_TESTS_FAULT_NTH_CALL_H

#include <stdbool.h>
#include <stdint.h>

/* X(name, what people call it, the errno it fails with) */
#define NTH_CALLS(X)                                                                               \
    X(ALLOCATE, "malloc", ENOMEM)                                                                  \
    X(MAP, "mmap", ENOMEM)                                                                         \
    X(REMAP, "mremap", ENOMEM)                                                                     \
    X(MEMFD, "memfd_create", EMFILE)                                                               \
    X(EVENTFD, "eventfd", EMFILE)                                                                  \
    X(EPOLL, "epoll_create1", EMFILE)                                                              \
    X(EPOLL_ADD, "epoll_ctl", ENOMEM)                                                              \
    X(EPOLL_WAIT, "epoll_wait", EINTR)                                                             \
    X(PIDFD, "pidfd_open", EMFILE)                                                                 \
    X(FORK, "fork", EAGAIN)                                                                        \
    X(THREAD, "pthread_create", EAGAIN)                                                            \
    X(FUTEX, "futex", EINTR)                                                                       \
    X(FUTEX_AGAIN, "futex", EAGAIN)                                                                \
    X(MEMBARRIER, "membarrier", EINVAL)                                                            \
    X(RESERVE, "fallocate", ENOSPC)                                                                \
    X(RESERVE_INTR, "fallocate", EINTR)                                                            \
    X(TRUNCATE, "ftruncate", EIO)                                                                  \
    X(WRITE_FULL, "write", ENOSPC)                                                                 \
    X(WRITE_IO, "write", EIO)                                                                      \
    X(WRITE_INTR, "write", EINTR)                                                                  \
    X(WRITE_SHORT, "write of all", 0)                                                              \
    X(SYNC, "fdatasync", EIO)                                                                      \
    X(READ_IO, "read", EIO)                                                                        \
    X(READ_INTR, "read", EINTR)                                                                    \
    X(RING, "write to an eventfd", EINTR)                                                          \
    X(OPEN, "open", EMFILE)                                                                        \
    X(OPEN_MEMORY, "open", ENOMEM)                                                                 \
    X(LIST, "opendir", ENOMEM)                                                                     \
    X(STAT, "fstat", EIO)                                                                          \
    X(MKDIR, "mkdir", ENOSPC)                                                                      \
    X(LINK, "linkat", ENOSPC)                                                                      \
    X(LOCK, "fcntl (lock)", ENOLCK)                                                                \
    X(DUP, "fcntl (dup)", EMFILE)                                                                  \
    X(POLL, "poll", EINTR)                                                                         \
    X(WAITPID, "waitpid", EINTR)                                                                   \
    X(AFFINITY, "sched_getaffinity", EINVAL)                                                       \
    X(RANDOM, "getrandom", EAGAIN)

enum nth_call {
#define X(name, text, err) NTH_##name,
    NTH_CALLS(X)
#undef X
        NTH_KINDS
};

typedef enum nth_place {
    NTH_HERE,       /* in this process */
    NTH_IN_WORKERS, /* in the first worker that comes so far */
} nth_place;

const char *nth_name(int kind);
int nth_errno(int kind);

/* From here on the n-th call of the kind fails, once (0: none).  Every kind is counted meanwhile. */
void nth_fails(int kind, int64_t n, nth_place place);

/* No more of that.  Whether one has failed. */
bool nth_end(void);

/* Whether one has failed so far, wherever. */
bool nth_has_failed(void);

/* How many calls of the kind there were between nth_fails and nth_end. */
uint64_t nth_count(int kind);

/* What libweir has allocated and not freed, in this process. */
int64_t nth_allocations(void);

#endif
