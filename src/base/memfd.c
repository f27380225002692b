/* memfd.c - see memfd.h. */
#include "base/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/files.h"

int weir__memfd_create(int *ret_fd, const char *name)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0)
        return errno == EMFILE || errno == ENFILE ? WEIR_ENOFD
               : errno == ENOMEM                  ? WEIR_ENOSHM
                                                  : WEIR_ESYSTEM;
    *ret_fd = fd;
    return 0;
}

int weir__memfd_reserve(int fd, uint64_t offset, uint64_t size)
{
    if (!weir__file_may_have(offset + size))
        return WEIR_ENOSHM;
    int rc;
    do
        rc = fallocate(fd, 0, (off_t)offset, (off_t)size);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? WEIR_ENOSHM : 0;
}

int weir__memfd_write(int fd, uint64_t offset, const void *data, size_t size)
{
    if (!weir__file_may_have(offset + size))
        return WEIR_ENOSHM;
    const char *at = data;
    while (size > 0) {
        ssize_t n = pwrite(fd, at, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return WEIR_ENOSHM;
        at += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

void weir__memfd_release(int fd, uint64_t offset, uint64_t size)
{
    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size);
}

int weir__memfd_open(int *ret_fd, int64_t pid, int64_t fd, uint64_t inode, uint64_t size)
{
    char path[64];
    struct stat st;
    snprintf(path, sizeof path, "/proc/%" PRId64 "/fd/%" PRId64, pid, fd);
    /* Looked at first: opening something else may have effects. */
    if (stat(path, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_ino != inode)
        return WEIR_EINVAL;
    int own = open(path, O_RDWR | O_CLOEXEC);
    if (own < 0)
        return errno == EMFILE || errno == ENFILE ? WEIR_ENOFD
               : errno == ENOMEM                  ? WEIR_ENOMEM
                                                  : WEIR_EINVAL;
    if (fcntl(own, F_GET_SEALS) < 0 /* not in memory */ || fstat(own, &st) < 0 ||
        (uint64_t)st.st_ino != inode || (uint64_t)st.st_size != size) {
        close(own);
        return WEIR_EINVAL;
    }
    *ret_fd = own;
    return 0;
}

int weir__memfd_inode(int fd, uint64_t *ret_inode)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return WEIR_ESYSTEM;
    *ret_inode = (uint64_t)st.st_ino;
    return 0;
}

int weir__memfd_size(int fd, uint64_t *ret_size)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size < 0)
        return WEIR_ESYSTEM;
    *ret_size = (uint64_t)st.st_size;
    return 0;
}

static void *map(int fd, uint64_t offset, size_t size, int kind)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, kind, fd, (off_t)offset);
    return at == MAP_FAILED ? NULL : at;
}

void *weir__memfd_map(int fd, uint64_t offset, size_t size)
{
    return map(fd, offset, size, MAP_SHARED);
}

void *weir__memfd_map_private(int fd, uint64_t offset, size_t size)
{
    return map(fd, offset, size, MAP_PRIVATE | MAP_NORESERVE);
}

bool weir__memfd_remap(int fd, uint64_t offset, size_t size, void *at, bool shared)
{
    int kind = shared ? MAP_SHARED : MAP_PRIVATE | MAP_NORESERVE;
    return mmap(at, size, PROT_READ | PROT_WRITE, kind | MAP_FIXED, fd, (off_t)offset) !=
           MAP_FAILED;
}

void weir__memfd_unmap(void *at, size_t size)
{
    if (at)
        munmap(at, size);
}
