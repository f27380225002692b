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

int weir__level_open(weir__level *level)
{
    return level->fd >= 0 ? WEIR_OK : weir__bell_create(&level->fd);
}

void weir__level_close(weir__level *level)
{
    if (level->fd >= 0)
        close(level->fd);
    *level = WEIR__LEVEL_INIT;
}

void weir__level_set(weir__level *level, bool readable)
{
    if (level->fd < 0 || level->readable == readable)
        return;
    if (readable)
        weir__bell_ring(level->fd);
    else
        weir__bell_clear(level->fd);
    level->readable = readable;
}
