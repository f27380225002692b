/* disk.c - what of a file is on the disk.  What the code writes into a file that it has made is in memory.  What a sync of
 * it came behind is on the disk, and its name, or a folder's, when the folder that it is in was synced.  Of the rest all
 * may be there when the power is cut, or some, or the length alone, or nothing.
 *
 * A sync promises what was written before it began, when it has returned.  Not looked at: that a file which was removed
 * may be there again, and what is written over where a sync has been.
 */
#include "inside.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MADE 64

/* A file, or a folder, that was made in this run. */
static struct made {
    ino_t inode, folder;
    unsigned number; /* of all that were made */
    off_t synced;    /* bytes */
    bool has_name;
} made[MADE];
static size_t n_made; /* one that was removed leaves its place to who gets its inode */
static unsigned numbers;

static struct made *find(ino_t inode)
{
    for (size_t i = 0; i < n_made; i++)
        if (made[i].inode == inode)
            return &made[i];
    return NULL;
}

static struct stat look(int fd)
{
    struct stat is = {0};
    fstat(fd, &is);
    return is;
}

void prove_disk_made(int folder, int fd)
{
    ino_t inode = look(fd).st_ino;
    struct made *file = find(inode);
    if (!file && n_made == MADE)
        prove_fail("the case makes more than %d files", MADE);
    file = file ? file : &made[n_made++];
    *file = (struct made){.inode = inode, .folder = look(folder).st_ino, .number = numbers++};
}

int __real_close(int fd);
int __real_openat(int dir, const char *name, int flags, ...);

int __real_mkdir(const char *path, mode_t mode);
int __wrap_mkdir(const char *path, mode_t mode);
int __wrap_mkdir(const char *path, mode_t mode)
{
    int rc = __real_mkdir(path, mode);
    if (prove_self < 0 || rc < 0)
        return rc;
    int fd = __real_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int parent = __real_openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    prove_disk_made(parent, fd);
    __real_close(parent);
    __real_close(fd);
    return rc;
}

/* ---- writing ---------------------------------------------------------------------------------- */

int __real_ftruncate(int fd, off_t size);
int __wrap_ftruncate(int fd, off_t size);
int __wrap_ftruncate(int fd, off_t size)
{
    prove_point();
    struct made *file = find(look(fd).st_ino);
    if (file && file->synced > size)
        file->synced = size;
    return __real_ftruncate(fd, size);
}

int __wrap_ftruncate64(int fd, off_t size) __attribute__((alias("__wrap_ftruncate")));

static void sync_file(ino_t inode, off_t size)
{
    struct made *file = find(inode);
    if (file && file->synced < size)
        file->synced = size;
}

static void sync_names(ino_t folder, unsigned up_to)
{
    for (size_t i = 0; i < n_made; i++)
        made[i].has_name |= made[i].folder == folder && made[i].number < up_to;
}

/* Others may go on meanwhile. */
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
    struct stat is = look(fd);
    unsigned up_to = numbers;
    prove_yield();
    if (S_ISDIR(is.st_mode))
        sync_names(is.st_ino, up_to);
    else
        sync_file(is.st_ino, is.st_size);
    return 0;
}

int __wrap_fsync(int fd) __attribute__((alias("__wrap_fdatasync")));

/* A disk without end. */
int __wrap_fstatvfs(int fd, struct statvfs *to);
int __wrap_fstatvfs(int fd, struct statvfs *to)
{
    (void)fd;
    *to = (struct statvfs){.f_bavail = 1u << 30, .f_frsize = 4096};
    return 0;
}

int __wrap_fstatvfs64(int fd, struct statvfs *to) __attribute__((alias("__wrap_fstatvfs")));

/* ---- the power is cut --------------------------------------------------------------------------- */

void __real_free(void *p);
int __real_unlinkat(int dir, const char *name, int flags);
ssize_t __real_pread(int fd, void *to, size_t n, off_t at);
ssize_t __real_write(int fd, const void *from, size_t n);

static void copy(int from, int to, off_t n)
{
    char bytes[4096];
    off_t at = 0;
    for (ssize_t got = 1; at < n && got > 0; at += got) {
        size_t most = (size_t)(n - at) < sizeof bytes ? (size_t)(n - at) : sizeof bytes;
        got = __real_pread(from, bytes, most, at);
        if (got < 0 || __real_write(to, bytes, (size_t)got) != got)
            prove_fail("what is on the disk could not be copied");
    }
}

/* What was synced, and what is chosen of the rest. */
static void keep_file(int from, int to)
{
    const struct made *file = find(look(from).st_ino);
    off_t size = look(from).st_size, synced = file ? file->synced : size;
    unsigned way = synced < size ? prove_pick(4) : 0;
    off_t written[] = {synced, synced, synced + (size - synced) / 2, size};
    copy(from, to, written[way]);
    if (way == 1 && __real_ftruncate(to, size) < 0)
        prove_fail("a file could not be made longer");
}

static bool is_left(ino_t inode)
{
    const struct made *it = find(inode);
    return !it || it->has_name || prove_pick(2);
}

static void keep_named(int from, const char *name, int to)
{
    int fd = __real_openat(from, name, O_RDONLY | O_CLOEXEC);
    if (is_left(look(fd).st_ino)) {
        int copied = __real_openat(to, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        keep_file(fd, copied);
        __real_close(copied);
    }
    __real_close(fd);
}

/* All files of a folder, in the order of their names, or the choices would not be the same again. */
static void for_each(const char *folder, void (*each)(int at, const char *name, int to), int to)
{
    struct dirent **entries;
    int at = __real_openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int n = scandir(folder, &entries, NULL, alphasort);
    if (at < 0 || n < 0)
        prove_fail("%s cannot be read", folder);
    for (int i = 0; i < n; i++) {
        if (entries[i]->d_type == DT_REG)
            each(at, entries[i]->d_name, to);
        __real_free(entries[i]);
    }
    __real_free(entries);
    __real_close(at);
}

static void remove_named(int at, const char *name, int to)
{
    (void)to;
    __real_unlinkat(at, name, 0);
}

void prove_cut_power(const char *folder, const char *left)
{
    int to = __real_openat(AT_FDCWD, left, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for_each(left, remove_named, -1);
    struct stat is = {0};
    if (stat(folder, &is) == 0 && is_left(is.st_ino))
        for_each(folder, keep_named, to);
    __real_close(to);
}

void prove_disk_begin(void)
{
    n_made = 0;
    numbers = 0;
}
