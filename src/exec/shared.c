/* shared.c - see weir/shared.h.
 *
 * The descriptor stays open as long as the handle: through it, in /proc, other processes come to the
 * file.  An inode number is given to one memfd at a time, so that and the size tell whether what lies
 * behind the number of a descriptor is still what was meant.
 */
#include <weir/shared.h>

#include <unistd.h>

#include "base/alloc.h"
#include "base/memfd.h"
#include "base/memory.h"

#define HUGE_PIECE (UINT64_C(16) << 20) /* worth asking first how much memory there is */

struct weir_shared {
    int fd;
    void *data;
    uint64_t size, inode;
};

/* Takes the descriptor over, also when it fails. */
static int make(weir_shared **ret, int fd, uint64_t size, uint64_t inode)
{
    weir_shared *shared = weir__malloc(sizeof *shared);
    void *data = shared ? weir__memfd_map(fd, 0, size) : NULL;
    if (!data) {
        weir__free(shared);
        close(fd);
        return WEIR_ENOMEM;
    }
    *shared = (weir_shared){fd, data, size, inode};
    *ret = shared;
    return 0;
}

int weir_shared_create(weir_shared **ret_shared, uint64_t size)
{
    int fd;
    uint64_t inode;
    if (size == 0)
        return WEIR_EINVAL;
    if (size > INT64_MAX || (size >= HUGE_PIECE && size > weir__memory_available()))
        return WEIR_ENOSHM;
    int rc = weir__memfd_create(&fd, "weir-shared");
    if (rc < 0)
        return rc;
    rc = weir__memfd_reserve(fd, 0, size);
    if (rc == 0)
        rc = weir__memfd_inode(fd, &inode);
    if (rc == 0)
        return make(ret_shared, fd, size, inode);
    close(fd);
    return rc;
}

int weir_shared_open(weir_shared **ret_shared, const weir_shared_place *place)
{
    int fd;
    if (place->pid <= 0 || place->fd < 0 || place->size == 0)
        return WEIR_EINVAL;
    int rc = weir__memfd_open(&fd, place->pid, place->fd, place->inode, place->size);
    return rc < 0 ? rc : make(ret_shared, fd, place->size, place->inode);
}

void weir_shared_destroy(weir_shared *shared)
{
    if (!shared)
        return;
    weir__memfd_unmap(shared->data, shared->size);
    close(shared->fd);
    weir__free(shared);
}

void *weir_shared_data(const weir_shared *shared)
{
    return shared->data;
}

uint64_t weir_shared_size(const weir_shared *shared)
{
    return shared->size;
}

void weir_shared_get_place(const weir_shared *shared, weir_shared_place *ret_place)
{
    *ret_place = (weir_shared_place){getpid(), shared->fd, shared->inode, shared->size};
}
