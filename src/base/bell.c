/* bell.c - see bell.h. */
#include "base/bell.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

int weir__bell_create(int *ret_fd)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return errno == EMFILE || errno == ENFILE ? WEIR_ENOFD
               : errno == ENOMEM                  ? WEIR_ENOMEM
                                                  : WEIR_ESYSTEM;
    *ret_fd = fd;
    return 0;
}

void weir__bell_ring(int fd)
{
    uint64_t one = 1;
    ssize_t rc;
    do
        rc = write(fd, &one, sizeof one);
    while (rc < 0 && errno == EINTR); /* EAGAIN: the counter is at its end, so it is readable */
}

void weir__bell_clear(int fd)
{
    uint64_t count;
    ssize_t rc;
    do
        rc = read(fd, &count, sizeof count);
    while (rc < 0 && errno == EINTR);
}
