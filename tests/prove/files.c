/* files.c - descriptors and mappings.  They are real; but nobody waits in the kernel, and what is mapped twice is one
 * memory.  What one thread writes to a descriptor happens before what another reads there.
 */
#include "inside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES    512
#define MAPPINGS 256
#define WATCHES  64

typedef struct file {
    bool is_open;
    int process;
    const void *pc;
    prove_clock written;
} file;

typedef struct mapping {
    uintptr_t at;
    size_t size;
    uint64_t inode, offset;
    int process;
    const void *pc;
    bool is_shared;
} mapping;

static file files[FILES];
static mapping mappings[MAPPINGS];
static size_t n_mappings;
static struct watch {
    int epoll, fd;
    uint64_t data;
} watches[WATCHES];
static size_t n_watches;
static char changed; /* its address is what pollers wait on */

ssize_t __real_write(int fd, const void *from, size_t n);

/* ---- descriptors ------------------------------------------------------------------------------ */

static int keep(int fd, const void *pc)
{
    if (prove_self < 0 || fd < 0)
        return fd;
    if (fd >= FILES)
        prove_fail("the case has more than %d descriptors", FILES);
    files[fd] = (file){.is_open = true, .process = prove_threads[prove_self].process, .pc = pc};
    return fd;
}

static void wrote(int fd)
{
    if (prove_self < 0 || fd < 0 || fd >= FILES)
        return;
    prove_memory_publish(files[fd].written);
    prove_files_changed();
}

static void has_read(int fd)
{
    if (prove_self >= 0 && fd >= 0 && fd < FILES)
        prove_memory_learn(files[fd].written);
}

void prove_files_signal(int fd, const prove_clock known)
{
    uint64_t one = 1;
    for (int i = 0; i < PROVE_THREADS; i++)
        if (known[i] > files[fd].written[i])
            files[fd].written[i] = known[i];
    (void)!__real_write(fd, &one, sizeof one);
}

void prove_files_give(int fd, int process)
{
    files[fd].process = process;
}

void prove_files_changed(void)
{
    prove_wake(&changed, PROVE_THREADS);
}

int __real_eventfd(unsigned count, int flags);
int __wrap_eventfd(unsigned count, int flags);
int __wrap_eventfd(unsigned count, int flags)
{
    return keep(__real_eventfd(count, flags), __builtin_return_address(0));
}

int __real_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags)
{
    return keep(__real_memfd_create(name, flags), __builtin_return_address(0));
}

int __real_epoll_create1(int flags);
int __wrap_epoll_create1(int flags);
int __wrap_epoll_create1(int flags)
{
    return keep(__real_epoll_create1(flags), __builtin_return_address(0));
}

/* What the kernel tells of this machine is part of no proof. */
bool prove_files_is_of_kernel(const char *path)
{
    return prove_self >= 0 && (strncmp(path, "/proc/", 6) == 0 || strncmp(path, "/sys/", 5) == 0);
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    if (prove_self < 0)
        return __real_open(path, flags, mode);
    if (prove_files_is_of_kernel(path)) {
        errno = ENOENT;
        return -1;
    }
    char to[PROVE_PATH];
    prove_point();
    return keep(__real_open(prove_names_path(path, to), flags, mode), __builtin_return_address(0));
}

/* Under the names that they have with 64-bit offsets. */
int __wrap_open64(const char *path, int flags, ...) __attribute__((alias("__wrap_open")));

int __real_dup(int fd);
int __wrap_dup(int fd);
int __wrap_dup(int fd)
{
    int new = keep(__real_dup(fd), __builtin_return_address(0));
    if (prove_self >= 0 && new >= 0)
        memcpy(files[new].written, files[fd].written, sizeof files[new].written);
    return new;
}

int __real_fcntl64(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...)
{
    va_list args;
    va_start(args, command);
    void *arg = va_arg(args, void *);
    va_end(args);
    if (prove_self >= 0 && (command == F_SETLK || command == F_GETLK))
        return prove_names_lock(fd, command, arg);
    int rc = __real_fcntl64(fd, command, arg);
    if (prove_self < 0 || command != F_DUPFD_CLOEXEC || rc < 0)
        return rc;
    memcpy(files[rc].written, files[fd].written, sizeof files[rc].written);
    return keep(rc, __builtin_return_address(0));
}

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
    if (prove_self >= 0 && fd >= 0 && fd < FILES) {
        char text[160];
        if (!files[fd].is_open)
            prove_fail("%s closes descriptor %d, which is not open",
                       prove_place(__builtin_return_address(0), text), fd);
        files[fd].is_open = false;
        prove_processes_closed(fd);
        prove_names_closed(fd, prove_threads[prove_self].process);
    }
    return __real_close(fd);
}

ssize_t __wrap_write(int fd, const void *from, size_t n);
ssize_t __wrap_write(int fd, const void *from, size_t n)
{
    prove_point();
    ssize_t rc = __real_write(fd, from, n);
    wrote(fd);
    return rc;
}

ssize_t __real_read(int fd, void *to, size_t n);
ssize_t __wrap_read(int fd, void *to, size_t n);
ssize_t __wrap_read(int fd, void *to, size_t n)
{
    prove_point();
    has_read(fd);
    return __real_read(fd, to, n);
}

/* ---- files of a directory ---------------------------------------------------------------------- */

/* What they hold lies in the kernel: one call after the other, and no thread learns by it what another one knows.  What of
 * it is on the disk: disk.c. */

int __real_openat(int dir, const char *name, int flags, ...);
int __wrap_openat(int dir, const char *name, int flags, ...);
int __wrap_openat(int dir, const char *name, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    prove_point();
    bool makes = flags & O_CREAT && faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0;
    int fd = keep(__real_openat(dir, name, flags, mode), __builtin_return_address(0));
    if (makes && fd >= 0)
        prove_disk_made(dir, fd);
    return fd;
}

int __wrap_openat64(int dir, const char *name, int flags, ...)
    __attribute__((alias("__wrap_openat")));

int __real_closedir(DIR *stream);
int __wrap_closedir(DIR *stream);
int __wrap_closedir(DIR *stream)
{
    if (prove_self >= 0)
        files[dirfd(stream)].is_open = false;
    return __real_closedir(stream);
}

ssize_t __real_pread(int fd, void *to, size_t n, off_t at);
ssize_t __wrap_pread(int fd, void *to, size_t n, off_t at);
ssize_t __wrap_pread(int fd, void *to, size_t n, off_t at)
{
    prove_point();
    ssize_t got = __real_pread(fd, to, n, at);
    if (got > 0)
        prove_memory_plain(to, (size_t)got, true, __builtin_return_address(0));
    return got;
}

ssize_t __wrap_pread64(int fd, void *to, size_t n, off_t at) __attribute__((alias("__wrap_pread")));

ssize_t __real_pwritev(int fd, const struct iovec *pieces, int n, off_t at);
ssize_t __wrap_pwritev(int fd, const struct iovec *pieces, int n, off_t at);
ssize_t __wrap_pwritev(int fd, const struct iovec *pieces, int n, off_t at)
{
    prove_point();
    for (int i = 0; i < n; i++)
        prove_memory_plain(pieces[i].iov_base, pieces[i].iov_len, false,
                           __builtin_return_address(0));
    return __real_pwritev(fd, pieces, n, at);
}

ssize_t __wrap_pwritev64(int fd, const struct iovec *pieces, int n, off_t at)
    __attribute__((alias("__wrap_pwritev")));

int __real_unlinkat(int dir, const char *name, int flags);
int __wrap_unlinkat(int dir, const char *name, int flags);
int __wrap_unlinkat(int dir, const char *name, int flags)
{
    prove_point();
    return __real_unlinkat(dir, name, flags);
}

/* ---- waiting for descriptors ------------------------------------------------------------------ */

static weir_time until(int milliseconds)
{
    return milliseconds < 0 ? WEIR_FOREVER : prove_time + milliseconds * WEIR_MILLISECOND;
}

int __real_poll(struct pollfd *fds, nfds_t n, int milliseconds);
int __wrap_poll(struct pollfd *fds, nfds_t n, int milliseconds);
int __wrap_poll(struct pollfd *fds, nfds_t n, int milliseconds)
{
    if (prove_self < 0)
        return __real_poll(fds, n, milliseconds);
    prove_point();
    for (weir_time end = until(milliseconds);;) {
        int rc = __real_poll(fds, n, 0);
        for (nfds_t i = 0; rc > 0 && i < n; i++)
            if (fds[i].revents)
                has_read(fds[i].fd);
        if (rc != 0 || milliseconds == 0 || prove_wait(&changed, end))
            return rc;
    }
}

int __real_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
    if (prove_self >= 0 && op == EPOLL_CTL_ADD) {
        if (n_watches == WATCHES)
            prove_fail("the case watches more than %d descriptors", WATCHES);
        watches[n_watches++] = (struct watch){epoll, fd, event->data.u64};
    }
    return __real_epoll_ctl(epoll, op, fd, event);
}

static void have_read(int epoll, const struct epoll_event *events, int n)
{
    for (int i = 0; i < n; i++)
        for (size_t w = 0; w < n_watches; w++)
            if (watches[w].epoll == epoll && watches[w].data == events[i].data.u64)
                has_read(watches[w].fd);
}

int __real_epoll_wait(int epoll, struct epoll_event *events, int max, int milliseconds);
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int max, int milliseconds);
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int max, int milliseconds)
{
    if (prove_self < 0)
        return __real_epoll_wait(epoll, events, max, milliseconds);
    prove_point();
    for (weir_time end = until(milliseconds);;) {
        int rc = __real_epoll_wait(epoll, events, max, 0);
        have_read(epoll, events, rc);
        if (rc != 0 || milliseconds == 0 || prove_wait(&changed, end))
            return rc;
    }
}

/* ---- mappings --------------------------------------------------------------------------------- */

static const mapping *find_shared(uintptr_t address)
{
    for (size_t i = 0; i < n_mappings; i++)
        if (mappings[i].is_shared && address - mappings[i].at < mappings[i].size)
            return &mappings[i];
    return NULL;
}

bool prove_files_is_shared(uintptr_t address)
{
    return find_shared(address) != NULL;
}

uintptr_t prove_files_address(uintptr_t address)
{
    const mapping *m = find_shared(address);
    if (m)
        return UINT64_C(1) << 62 | (m->inode & 0xfff) << 48 | (m->offset + (address - m->at));
    return prove_names_address(address);
}

/* What lay there does not any more. */
static void cut(uintptr_t at, size_t size)
{
    for (size_t i = 0; i < n_mappings;) {
        mapping *m = &mappings[i];
        if (m->at >= at + size || m->at + m->size <= at) {
            i++;
        } else if (m->at >= at && m->at + m->size <= at + size) {
            *m = mappings[--n_mappings];
        } else {
            mapping tail = *m;
            uintptr_t end = at + size;
            if (m->at + m->size > end && m->at < at && n_mappings < MAPPINGS) {
                tail.offset += end - m->at;
                tail.size = m->at + m->size - end;
                tail.at = end;
                mappings[n_mappings++] = tail;
            }
            if (m->at < at) {
                m->size = at - m->at;
            } else {
                m->offset += end - m->at;
                m->size = m->at + m->size - end;
                m->at = end;
            }
            i++;
        }
    }
}

void *__real_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    struct stat about = {0};
    void *p = __real_mmap(at, size, protection, flags, fd, offset);
    if (prove_self < 0 || p == MAP_FAILED)
        return p;
    if (flags & MAP_FIXED)
        cut((uintptr_t)p, size);
    if (n_mappings == MAPPINGS)
        prove_fail("the case maps more than %d times", MAPPINGS);
    if (fd >= 0)
        fstat(fd, &about);
    if (fd < 0 || !(flags & MAP_SHARED))
        prove_memory_fresh(p, size);
    mappings[n_mappings++] = (mapping){.at = (uintptr_t)p,
                                       .size = size,
                                       .inode = (uint64_t)about.st_ino,
                                       .offset = (uint64_t)offset,
                                       .process = prove_threads[prove_self].process,
                                       .pc = __builtin_return_address(0),
                                       .is_shared = fd >= 0 && (flags & MAP_SHARED)};
    return p;
}

void *__wrap_mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset)
    __attribute__((alias("__wrap_mmap")));

int __real_munmap(void *at, size_t size);
int __wrap_munmap(void *at, size_t size);
int __wrap_munmap(void *at, size_t size)
{
    if (prove_self >= 0)
        cut((uintptr_t)at, size);
    return __real_munmap(at, size);
}

/* ---- beginning and ending --------------------------------------------------------------------- */

void prove_files_begin(void)
{
    memset(files, 0, sizeof files);
    n_mappings = n_watches = 0;
}

void prove_files_check(void)
{
    char text[160];
    for (int fd = 0; fd < FILES; fd++)
        if (files[fd].is_open)
            prove_fail("a descriptor of %s is never closed", prove_place(files[fd].pc, text));
    for (size_t i = 0; i < n_mappings; i++)
        prove_fail("a mapping of %s is never undone", prove_place(mappings[i].pc, text));
}

/* It is dead: its descriptors and mappings are gone. */
void prove_files_forget(int process)
{
    for (int fd = 0; fd < FILES; fd++) {
        if (!files[fd].is_open || files[fd].process != process)
            continue;
        files[fd].is_open = false;
        prove_processes_closed(fd);
        __real_close(fd);
    }
    for (size_t i = n_mappings; i-- > 0;) {
        mapping m = mappings[i];
        if (m.process != process)
            continue;
        mappings[i] = mappings[--n_mappings];
        __real_munmap((void *)m.at, m.size);
    }
}

void prove_files_drop(void)
{
    for (int fd = 0; fd < FILES; fd++)
        if (files[fd].is_open)
            __real_close(fd);
    for (size_t i = 0; i < n_mappings; i++)
        __real_munmap((void *)mappings[i].at, mappings[i].size);
    prove_files_begin();
}
