/* named.c - see named.h.
 *
 * A file in the memory file system of the host, with the user's number in its name.  Locks are
 * POSIX record locks: they belong to the process, so the kernel releases them when it ends, and to
 * nobody it forks.  They also end when the process closes *any* descriptor of the file.  So a
 * process opens a file once (the list below), and a descriptor that is open for a moment beside it
 * is one of another file, or is closed before the seat is taken.
 *
 * Bytes of the file that are locked, all behind its contents:
 *     DOOR          by who comes or leaves, exclusively and for a moment: so the last to leave
 *                   cannot remove the name while somebody takes a seat
 *     SEAT + seat   by who has the seat
 */
#include "base/named.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/memfd.h"

#define FOLDER "/dev/shm"
#define DOOR   (INT64_C(1) << 40)
#define SEAT   (DOOR + 1)

#define PATIENCE (2 * WEIR_SECOND)

struct weir__named {
    weir__named *next;
    char path[160];
    const weir__named_ops *ops;
    int fd;
    void *data;
    size_t handles;
    int seat; /* changed by the first who asks in a forked child, then published by */
    _Atomic unsigned generation; /* of the process whose seat it is: release, acquire */
};

/* Those this process has, and everything in them that changes. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static weir__named *all;

/* How many forks lie between this process and the first. */
static _Atomic unsigned generation;

/* A child of fork must not inherit a mutex that another thread held. */
static void before_fork(void)
{
    pthread_mutex_lock(&mutex);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&mutex);
}

static void in_forked_child(void)
{
    atomic_fetch_add_explicit(&generation, 1, memory_order_relaxed); /* the only thread */
    after_fork();
}

static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork, in_forked_child);
}

unsigned weir__named_generation(void)
{
    return atomic_load_explicit(&generation, memory_order_relaxed);
}

static bool has_own_seat(const weir__named *named)
{
    /* acquire: pairs with the release in take_seat */
    return atomic_load_explicit(&named->generation, memory_order_acquire) ==
           weir__named_generation();
}

static int error_of(int err)
{
    switch (err) {
    case EMFILE:
    case ENFILE: return WEIR_ENOFD;
    case ENOMEM:
    case ENOSPC:
    case EDQUOT: return WEIR_ENOSHM;
    case ELOOP: /* a link */
    case EISDIR:
    case EACCES: return WEIR_EINVAL;
    default: return WEIR_ESYSTEM;
    }
}

static bool is_name(const char *name)
{
    size_t n = strnlen(name, WEIR__NAME_MAX + 1);
    if (n == 0 || n > WEIR__NAME_MAX || name[0] == '.')
        return false;
    return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == n;
}

/* ---- locks on bytes ------------------------------------------------------------------------- */

/* 0: got it; WEIR_EFULL: somebody has it. */
static int lock_byte(int fd, int64_t at)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    if (fcntl(fd, F_SETLK, &lock) == 0)
        return 0;
    return errno == EACCES || errno == EAGAIN ? WEIR_EFULL : WEIR_ESYSTEM;
}

/* It is held for a moment; WEIR_ETIMEDOUT: by somebody who was stopped just then. */
static int lock_door(int fd)
{
    weir_time patience = weir_after(PATIENCE);
    int rc;
    while ((rc = lock_byte(fd, DOOR)) == WEIR_EFULL && weir_now() < patience)
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    return rc == WEIR_EFULL ? WEIR_ETIMEDOUT : rc;
}

static void unlock_byte(int fd, int64_t at)
{
    struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    fcntl(fd, F_SETLK, &lock);
}

/* Whether another process has a lock in [at, at + n). */
static bool is_locked(int fd, int64_t at, int64_t n)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = n};
    return fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/* The first seat that nobody has. */
static int take_seat(weir__named *named)
{
    int rc = WEIR_EFULL;
    unsigned seat = 0;
    while (seat < WEIR__SEATS && (rc = lock_byte(named->fd, SEAT + seat)) == WEIR_EFULL)
        seat++;
    if (rc < 0 || (rc = named->ops->enter(named->data, seat)) < 0)
        return rc;
    named->seat = (int)seat;
    atomic_store_explicit(&named->generation, weir__named_generation(), memory_order_release);
    return 0;
}

/* ---- the file ------------------------------------------------------------------------------- */

/* Whether the file is one that we may use. */
static int look(int fd, size_t size)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return WEIR_ESYSTEM;
    bool ours = S_ISREG(st.st_mode) && st.st_uid == geteuid() && (st.st_mode & 0077) == 0 &&
                st.st_nlink <= 1 && (uint64_t)st.st_size == size;
    return ours ? 0 : WEIR_EINVAL;
}

/* Whether the name still leads to this file. */
static bool is_named(const char *path, int fd)
{
    struct stat there, here;
    return lstat(path, &there) == 0 && fstat(fd, &here) == 0 && there.st_ino == here.st_ino &&
           there.st_dev == here.st_dev;
}

/* Fills in a file without a name, and gives it the name.  0; EEXIST: somebody else did. */
static int make(const char *path, const weir__named_ops *ops, const void *ctx)
{
    int fd = open(FOLDER, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_of(errno);
    int rc = weir__memfd_reserve(fd, 0, ops->size);
    void *data = rc < 0 ? NULL : weir__memfd_map(fd, 0, ops->size);
    if (rc == 0 && !data)
        rc = WEIR_ENOMEM;
    if (rc == 0)
        rc = ops->init(data, ctx);
    if (rc == 0) {
        char self[64];
        snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
        if (linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0)
            rc = errno == EEXIST ? EEXIST : error_of(errno);
    }
    weir__memfd_unmap(data, ops->size);
    close(fd); /* no lock of this file is held yet: it is not in the list */
    return rc;
}

/* Takes a seat, if the name still leads here.  EEXIST: try again, it has just gone. */
static int sit_down(weir__named *named)
{
    int rc = lock_door(named->fd);
    if (rc < 0)
        return rc;
    rc = is_named(named->path, named->fd) ? take_seat(named) : EEXIST;
    unlock_byte(named->fd, DOOR);
    return rc;
}

/* Opens what has the name and takes a seat in it.  EEXIST as above. */
static int enter(weir__named *named)
{
    size_t size = named->ops->size;
    named->fd = open(named->path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (named->fd < 0)
        return errno == ENOENT ? EEXIST : error_of(errno);
    int rc = look(named->fd, size);
    if (rc == 0 && !(named->data = weir__memfd_map(named->fd, 0, size)))
        rc = WEIR_ENOMEM;
    if (rc == 0)
        rc = sit_down(named);
    if (rc != 0) {
        weir__memfd_unmap(named->data, size);
        named->data = NULL;
        close(named->fd); /* and with it the seat */
        named->fd = -1;
    }
    return rc;
}

static weir__named *find(const char *path)
{
    for (weir__named *named = all; named; named = named->next)
        if (strcmp(named->path, path) == 0)
            return named;
    return NULL;
}

/* Takes the name away, if nobody sits there and nothing in there is worth keeping. */
static void remove_if_deserted(const char *path, int fd, const void *data,
                               const weir__named_ops *ops)
{
    if (lock_byte(fd, DOOR) == 0 && !is_locked(fd, SEAT, WEIR__SEATS) && is_named(path, fd) &&
        ops->may_remove(data))
        unlink(path);
}

/* Of blocks of this kind: those that killed processes left.  None that this process has open: to
 * close another descriptor of it would give its seat away. */
static void sweep(const char *prefix, const weir__named_ops *ops)
{
    DIR *folder = opendir(FOLDER);
    struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        char path[sizeof((weir__named *)NULL)->path];
        int n = snprintf(path, sizeof path, FOLDER "/%s", entry->d_name);
        if (n < 0 || (size_t)n >= sizeof path || strncmp(path, prefix, strlen(prefix)) != 0 ||
            find(path))
            continue;
        int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0)
            continue;
        void *data = look(fd, ops->size) == 0 ? weir__memfd_map(fd, 0, ops->size) : NULL;
        if (data)
            remove_if_deserted(path, fd, data, ops);
        weir__memfd_unmap(data, ops->size);
        close(fd);
    }
    if (folder)
        closedir(folder);
}

/* Under the mutex. */
static int open_or_make(weir__named **ret_named, const char *path, const char *prefix,
                        const weir__named_ops *ops, const void *ctx)
{
    weir__named *named = find(path);
    if (named && is_named(path, named->fd)) {
        named->handles++;
        *ret_named = named;
        return WEIR_OK;
    }
    if (!(named = weir__calloc(1, sizeof *named)))
        return WEIR_ENOMEM;
    memcpy(named->path, path, strlen(path) + 1);
    named->ops = ops;
    named->handles = 1;
    int rc;
    while ((rc = enter(named)) == EEXIST) {
        sweep(prefix, ops); /* a new name: so that old ones do not pile up */
        rc = make(path, ops, ctx);
        if (rc < 0)
            break;
    }
    if (rc < 0) {
        weir__free(named);
        return rc;
    }
    named->next = all;
    all = named;
    *ret_named = named;
    return WEIR_OK;
}

int weir__named_open(weir__named **ret_named, const char *kind, const char *name,
                     const weir__named_ops *ops, const void *ctx)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    char prefix[sizeof((weir__named *)NULL)->path], path[sizeof prefix];
    if (!is_name(name))
        return WEIR_EINVAL;
    /* The size is part of the name: another layout is another block. */
    snprintf(prefix, sizeof prefix, FOLDER "/weir-%ju-%s-%zu-", (uintmax_t)geteuid(), kind,
             ops->size);
    int n = snprintf(path, sizeof path, "%s%s", prefix, name);
    if (n < 0 || (size_t)n >= sizeof path)
        return WEIR_EINVAL;
    pthread_mutex_lock(&mutex);
    int rc = open_or_make(ret_named, path, prefix, ops, ctx);
    pthread_mutex_unlock(&mutex);
    return rc;
}

void *weir__named_data(const weir__named *named)
{
    return named->data;
}

int weir__named_seat(weir__named *named)
{
    if (has_own_seat(named))
        return named->seat;
    pthread_mutex_lock(&mutex);
    int rc = has_own_seat(named) ? 0 : take_seat(named);
    pthread_mutex_unlock(&mutex);
    return rc < 0 ? rc : named->seat;
}

bool weir__named_is_taken(weir__named *named, unsigned seat)
{
    if (has_own_seat(named) && named->seat == (int)seat)
        return true; /* one's own locks do not show */
    return is_locked(named->fd, SEAT + seat, 1);
}

static void forget(weir__named *named)
{
    weir__named **at = &all;
    while (*at != named)
        at = &(*at)->next;
    *at = named->next;
}

/* Under the mutex, by the last handle. */
static void leave(weir__named *named)
{
    forget(named);
    if (has_own_seat(named))
        named->ops->leave(named->data, (unsigned)named->seat);
    remove_if_deserted(named->path, named->fd, named->data, named->ops);
    weir__memfd_unmap(named->data, named->ops->size);
    close(named->fd);
    weir__free(named);
}

void weir__named_close(weir__named *named)
{
    if (!named)
        return;
    pthread_mutex_lock(&mutex);
    if (--named->handles == 0)
        leave(named);
    pthread_mutex_unlock(&mutex);
}
