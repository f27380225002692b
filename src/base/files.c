/* files.c - see files.h.
 *
 * Who has a directory holds a POSIX record lock on a file in it: it ends with the process and is not
 * inherited by a forked child.  It also ends when the process closes *any* descriptor of the file, so
 * whether this process has the directory already is looked up in a list before the file is touched.
 */
#include "base/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"

#define LOCK_NAME "lock"

int (*weir__write_fails)(size_t *n);
int (*weir__read_fails)(void);
int (*weir__sync_fails)(void);

struct weir__dir {
    weir__dir *next;
    int fd, lock_fd;
    dev_t dev; /* which directory it is */
    ino_t ino;
    pid_t pid; /* whose: a forked child has the list, and not the locks */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static weir__dir *all; /* of this process, under the mutex */

static int error_of(int number)
{
    switch (number) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return WEIR_ENOSPC;
    case EMFILE:
    case ENFILE: return WEIR_ENOFD;
    case ENOMEM: return WEIR_ENOMEM;
    default: return WEIR_ESYSTEM;
    }
}

/* ---- directories ---------------------------------------------------------------------------- */

static bool is_ours_already(const weir__dir *dir)
{
    for (const weir__dir *d = all; d; d = d->next)
        if (d->dev == dir->dev && d->ino == dir->ino && d->pid == dir->pid)
            return true;
    return false;
}

static int lock(weir__dir *dir)
{
    if (is_ours_already(dir))
        return WEIR_EBUSY;
    dir->lock_fd = openat(dir->fd, LOCK_NAME, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (dir->lock_fd < 0)
        return error_of(errno);
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(dir->lock_fd, F_SETLK, &whole) < 0)
        return errno == EACCES || errno == EAGAIN ? WEIR_EBUSY : error_of(errno);
    dir->next = all;
    all = dir;
    return WEIR_OK;
}

int weir__dir_open(weir__dir **ret_dir, const char *path)
{
    weir__dir *dir = weir__calloc(1, sizeof *dir);
    if (!dir)
        return WEIR_ENOMEM;
    dir->fd = dir->lock_fd = -1;
    dir->pid = getpid();
    struct stat is;
    int rc = WEIR_OK;
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        rc = error_of(errno);
    else if ((dir->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 ||
             fstat(dir->fd, &is) < 0)
        rc = error_of(errno);
    if (rc == WEIR_OK) {
        dir->dev = is.st_dev;
        dir->ino = is.st_ino;
        pthread_mutex_lock(&mutex);
        rc = lock(dir);
        pthread_mutex_unlock(&mutex);
    }
    if (rc != WEIR_OK) {
        weir__file_close(dir->lock_fd);
        weir__file_close(dir->fd);
        weir__free(dir);
        return rc;
    }
    *ret_dir = dir;
    return WEIR_OK;
}

void weir__dir_close(weir__dir *dir)
{
    if (!dir)
        return;
    pthread_mutex_lock(&mutex);
    weir__dir **link = &all;
    while (*link && *link != dir)
        link = &(*link)->next;
    if (*link)
        *link = dir->next;
    close(dir->lock_fd); /* the lock with it; its file stays, or two could lock two of that name */
    pthread_mutex_unlock(&mutex);
    close(dir->fd);
    weir__free(dir);
}

int weir__dir_list(weir__dir *dir, int (*each)(const char *name, void *ctx), void *ctx)
{
    int fd = openat(dir->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_of(errno);
    DIR *stream = fdopendir(fd);
    if (!stream) {
        int rc = error_of(errno);
        close(fd);
        return rc;
    }
    int rc = WEIR_OK;
    for (const struct dirent *entry; rc >= 0; rc = each(entry->d_name, ctx)) {
        errno = 0;
        if (!(entry = readdir(stream))) {
            rc = errno ? error_of(errno) : rc;
            break;
        }
    }
    closedir(stream);
    return rc;
}

int weir__dir_sync(weir__dir *dir)
{
    return fsync(dir->fd) < 0 ? error_of(errno) : WEIR_OK;
}

int weir__dir_sync_name(weir__dir *dir)
{
    int fd = openat(dir->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == EACCES ? WEIR_OK : error_of(errno);
    struct stat is;
    bool is_of_same_disk = fstat(fd, &is) == 0 && is.st_dev == dir->dev;
    int rc = is_of_same_disk && fsync(fd) < 0 ? error_of(errno) : WEIR_OK;
    close(fd);
    return rc;
}

uint64_t weir__dir_free_bytes(weir__dir *dir)
{
    struct statvfs is;
    if (fstatvfs(dir->fd, &is) < 0)
        return UINT64_MAX;
    uint64_t blocks = is.f_bavail, unit = is.f_frsize ? is.f_frsize : 1;
    return blocks > UINT64_MAX / unit ? UINT64_MAX : blocks * unit;
}

void weir__file_remove(weir__dir *dir, const char *name)
{
    unlinkat(dir->fd, name, 0);
}

/* ---- files ---------------------------------------------------------------------------------- */

static int error_of_open(int number, weir__file_mode mode)
{
    if (mode != WEIR__FILE_MEND && mode != WEIR__FILE_READ)
        return error_of(number);
    switch (number) {
    case ENOENT: return WEIR_EEMPTY;
    case ELOOP:  /* a symbolic link, */
    case EISDIR: /* a directory, to be written to, */
    case ENXIO: /* a socket, or a pipe that nobody reads */ return WEIR_EINVAL;
    default: return error_of(number);
    }
}

int weir__file_open(weir__dir *dir, const char *name, weir__file_mode mode, int *ret_fd)
{
    static const int flags[] = {
        [WEIR__FILE_NEW] = O_RDWR | O_CREAT | O_EXCL,
        [WEIR__FILE_MEND] = O_RDWR,
        [WEIR__FILE_READ] = O_RDONLY,
        [WEIR__FILE_APPEND] = O_WRONLY | O_CREAT | O_APPEND,
    };
    /* A pipe of that name must not hold anybody up. */
    int fd = openat(dir->fd, name, flags[mode] | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
    if (fd < 0)
        return error_of_open(errno, mode);
    struct stat is;
    int rc = fstat(fd, &is) < 0 ? error_of(errno) : S_ISREG(is.st_mode) ? WEIR_OK : WEIR_EINVAL;
    if (rc < 0) {
        close(fd);
        if (mode == WEIR__FILE_NEW) /* or its name would be taken for ever */
            weir__file_remove(dir, name);
        return rc;
    }
    *ret_fd = fd;
    return WEIR_OK;
}

void weir__file_close(int fd)
{
    if (fd >= 0)
        close(fd);
}

int weir__file_size(int fd, uint64_t *ret_size)
{
    struct stat is;
    if (fstat(fd, &is) < 0)
        return error_of(errno);
    *ret_size = (uint64_t)is.st_size;
    return WEIR_OK;
}

int weir__file_truncate(int fd, uint64_t size)
{
    return ftruncate(fd, (off_t)size) < 0 ? error_of(errno) : WEIR_OK;
}

bool weir__file_may_have(uint64_t size)
{
    struct rlimit limit;
    return size <= INT64_MAX && (getrlimit(RLIMIT_FSIZE, &limit) < 0 ||
                                 limit.rlim_cur == RLIM_INFINITY || size <= limit.rlim_cur);
}

/* What is left of the pieces, behind `done` bytes. */
static int left_of(const weir__piece *pieces, size_t n, size_t done, struct iovec *left)
{
    int count = 0;
    for (size_t i = 0; i < n; i++) {
        size_t skip = done < pieces[i].n ? done : pieces[i].n;
        done -= skip;
        if (skip < pieces[i].n)
            left[count++] = (struct iovec){(char *)pieces[i].data + skip, pieces[i].n - skip};
    }
    return count;
}

/* As pwritev, when the tests let it. */
static ssize_t write_some(int fd, const struct iovec *left, int count, uint64_t offset)
{
    size_t n = left[0].iov_len;
    int number = weir__write_fails ? weir__write_fails(&n) : 0;
    if (number == 0)
        return pwritev(fd, left, count, (off_t)offset);
    if (n > 0 && n < left[0].iov_len && pwrite(fd, left[0].iov_base, n, (off_t)offset) < 0)
        return -1;
    errno = number;
    return -1;
}

int weir__file_write(int fd, uint64_t offset, const weir__piece *pieces, size_t n)
{
    size_t total = 0;
    for (size_t i = 0; i < n; i++)
        total += pieces[i].n;
    if (!weir__file_may_have(offset + total))
        return WEIR_ENOSPC;
    for (size_t done = 0; done < total;) {
        struct iovec left[WEIR__PIECES_MAX];
        int count = left_of(pieces, n, done, left);
        ssize_t written = write_some(fd, left, count, offset + done);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return written < 0 ? error_of(errno) : WEIR_ENOSPC;
        done += (size_t)written;
    }
    return WEIR_OK;
}

int weir__file_append(int fd, const void *data, size_t n)
{
    struct stat is;
    if (fstat(fd, &is) < 0)
        return error_of(errno);
    if (!weir__file_may_have((uint64_t)is.st_size + n))
        return WEIR_ENOSPC;
    ssize_t written;
    do
        written = write(fd, data, n);
    while (written < 0 && errno == EINTR);
    return written == (ssize_t)n ? WEIR_OK : written < 0 ? error_of(errno) : WEIR_ENOSPC;
}

/* As pread, when the tests let it. */
static ssize_t read_some(int fd, void *data, size_t n, uint64_t offset)
{
    int number = weir__read_fails ? weir__read_fails() : 0;
    if (number == 0)
        return pread(fd, data, n, (off_t)offset);
    errno = number;
    return -1;
}

int weir__file_read(int fd, uint64_t offset, void *data, size_t n, size_t *ret_n)
{
    size_t done = 0;
    while (done < n) {
        ssize_t got = read_some(fd, (char *)data + done, n - done, offset + done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_of(errno);
        if (got == 0)
            break;
        done += (size_t)got;
    }
    *ret_n = done;
    return WEIR_OK;
}

int weir__file_sync(int fd)
{
    int number = weir__sync_fails ? weir__sync_fails() : 0;
    if (number != 0)
        return error_of(number);
    int rc;
    do
        rc = fdatasync(fd);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? error_of(errno) : WEIR_OK;
}

int64_t weir__wall_clock(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * WEIR_SECOND + ts.tv_nsec;
}
