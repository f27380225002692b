/* shared.h - memory that several processes write; the contract, quoted by weir_shared(3).
 *
 * Each piece is a file of its own without a name (a memfd).  The kernel counts who has it: it ends
 * with the last process that does, however that ends.
 * Ownership:  a handle is its creator's or opener's, in one process; the memory is everybody's.
 * Threads:    a handle may be read from any thread; what is in the memory is for its users to order.
 * Fork:       a forked child has the same memory.
 */
#ifndef WEIR_SHARED_H
#define WEIR_SHARED_H

#include <weir/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weir_shared weir_shared;

/* Where another process finds the memory, as long as this one has it. */
typedef struct weir_shared_place {
    int64_t pid;
    int64_t fd;
    uint64_t inode;
    uint64_t size;
} weir_shared_place;

/* Takes `size` > 0 bytes of memory, zeroed, writable; nothing is missing when it is touched.
 * WEIR_EINVAL, WEIR_ENOMEM, WEIR_ENOFD, WEIR_ENOSHM (there is not so much). */
WEIR_API int weir_shared_create(weir_shared **ret_shared, uint64_t size);

/* Opens what a process of the same user has.  WEIR_EINVAL: it is not there (any more), or it is
 * something else; WEIR_ENOMEM, WEIR_ENOFD. */
WEIR_API int weir_shared_open(weir_shared **ret_shared, const weir_shared_place *place);

/* Unmaps and closes (NULL is fine). */
WEIR_API void weir_shared_destroy(weir_shared *shared);

WEIR_API void *weir_shared_data(const weir_shared *shared);
WEIR_API uint64_t weir_shared_size(const weir_shared *shared);

/* Where it is to be found in the calling process. */
WEIR_API void weir_shared_get_place(const weir_shared *shared, weir_shared_place *ret_place);

#ifdef __cplusplus
}
#endif

#endif
