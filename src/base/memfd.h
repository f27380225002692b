/* memfd.h - shared memory without a name: it ends with the last process that has it. */
#ifndef WEIR_BASE_MEMFD_H
#define WEIR_BASE_MEMFD_H

#include <weir/base.h>

/* WEIR_ENOFD, WEIR_ENOSHM, WEIR_ESYSTEM. */
int weir__memfd_create(int *ret_fd, const char *name);

/* Makes [offset, offset + size) usable, so that touching it cannot end in SIGBUS; the file grows
 * as needed and never shrinks.  WEIR_ENOSHM: there is not so much memory, or a file size limit is
 * in the way. */
int weir__memfd_reserve(int fd, uint64_t offset, uint64_t size);

/* Writes into the file, which grows as needed: as reserving and copying, but pages that are written
 * whole are not cleared before.  WEIR_ENOSHM as above; a part may have been written. */
int weir__memfd_write(int fd, uint64_t offset, const void *data, size_t size);

/* Gives the memory of a range back to the system; it reads as zero when reserved again. */
void weir__memfd_release(int fd, uint64_t offset, uint64_t size);

/* Which memfd it is, among all that live. */
int weir__memfd_inode(int fd, uint64_t *ret_inode);

/* The memfd behind a descriptor of another process.  WEIR_EINVAL: there is none with that inode
 * number and size; WEIR_ENOFD, WEIR_ENOMEM. */
int weir__memfd_open(int *ret_fd, int64_t pid, int64_t fd, uint64_t inode, uint64_t size);

int weir__memfd_size(int fd, uint64_t *ret_size);

/* Shared, readable and writable; NULL: cannot. */
void *weir__memfd_map(int fd, uint64_t offset, size_t size);

/* The same, but what this process writes stays its own. */
void *weir__memfd_map_private(int fd, uint64_t offset, size_t size);

/* Maps again what is mapped at `at`, shared or private, without a gap.  False: it is as it was. */
bool weir__memfd_remap(int fd, uint64_t offset, size_t size, void *at, bool shared);

void weir__memfd_unmap(void *at, size_t size);

#endif
