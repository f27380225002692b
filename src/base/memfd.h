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

/* Gives the memory of a range back to the system; it reads as zero when reserved again. */
void weir__memfd_release(int fd, uint64_t offset, uint64_t size);

int weir__memfd_size(int fd, uint64_t *ret_size);

/* Shared, readable and writable; NULL: cannot. */
void *weir__memfd_map(int fd, uint64_t offset, size_t size);
void weir__memfd_unmap(void *at, size_t size);

#endif
