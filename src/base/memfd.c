/* memfd.c - see memfd.h. */
#include "base/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* Growing past RLIMIT_FSIZE would raise SIGXFSZ; ask first. */
static bool file_may_have(uint64_t size)
{
    struct rlimit limit;
    return size <= INT64_MAX && (getrlimit(RLIMIT_FSIZE, &limit) < 0 ||
                                 limit.rlim_cur == RLIM_INFINITY || size <= limit.rlim_cur);
}

int weir__memfd_reserve(int fd, uint64_t offset, uint64_t size)
{
    if (!file_may_have(offset + size))
        return WEIR_ENOSHM;
    int rc;
    do
        rc = fallocate(fd, 0, (off_t)offset, (off_t)size);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? WEIR_ENOSHM : 0;
}

void weir__memfd_release(int fd, uint64_t offset, uint64_t size)
{
    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size);
}

int weir__memfd_size(int fd, uint64_t *ret_size)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size < 0)
        return WEIR_ESYSTEM;
    *ret_size = (uint64_t)st.st_size;
    return 0;
}

void *weir__memfd_map(int fd, uint64_t offset, size_t size)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
    return at == MAP_FAILED ? NULL : at;
}

void weir__memfd_unmap(void *at, size_t size)
{
    if (at)
        munmap(at, size);
}
