/* named.h - a block of shared memory that the processes of one user find by its name, and seats in
 * it that tell the living from the dead.
 *
 * Made whole: a block gets its name when it is filled in, so nobody sees half of one, whoever is
 *             killed meanwhile.
 * Ours only:  it belongs to the effective user, and nobody else can read it.  What is there under
 *             the name and is not such a file is refused, and never written to.
 * Seats:      each process holds a lock on the byte of its seat.  The kernel takes it back when
 *             the process ends, however it ends; a forked child does not inherit it, and gets a
 *             seat of its own when it first asks.
 * Life:       the last process that leaves takes the name away, if it says that nothing in there
 *             is worth keeping.  When all were killed the block stays, until somebody opens it or
 *             makes another one of its kind.
 * Threads:    everything may be called from any thread.  In one process, a name opened twice is
 *             one block with one seat.
 */
#ifndef WEIR_BASE_NAMED_H
#define WEIR_BASE_NAMED_H

#include <weir/base.h>

#define WEIR__SEATS    1024u
#define WEIR__NAME_MAX 64u /* characters */

typedef struct weir__named weir__named;

/* What the block's owner does; data is where it lies here.  enter and leave run while no other
 * thread of this process can open or close a block: they are short, and open none. */
typedef struct weir__named_ops {
    size_t size;
    /* Fills in `size` zeroed bytes; may be called for a block that somebody else turns out to have
     * made at the same time.  < 0: the block is not made. */
    int (*init)(void *data, const void *ctx);
    /* The seat is this process's from now on; somebody who is dead may have had it. */
    int (*enter)(void *data, unsigned seat);
    /* The seat is about to be left. */
    void (*leave)(void *data, unsigned seat);
    /* Whether nothing in there is worth keeping; asked when the last process has left. */
    bool (*may_remove)(const void *data);
} weir__named_ops;

/* Opens the block `name`, or makes it.  `kind` says what it holds, and in which layout: blocks of
 * different kinds (or sizes) with the same name are different blocks.  Names are of letters, digits,
 * '.', '_' and '-', and do not begin with a '.'.  The ops stay the caller's and have to last.
 * WEIR_EINVAL: the name, or what is there is not ours; WEIR_EFULL: no seat; WEIR_ETIMEDOUT: another
 * process is stopped in the middle of this call; WEIR_ENOMEM, WEIR_ENOSHM, WEIR_ENOFD, WEIR_ESYSTEM;
 * or what init or enter returned. */
int weir__named_open(weir__named **ret_named, const char *kind, const char *name,
                     const weir__named_ops *ops, const void *ctx);

/* Where it lies here; aligned to a page. */
void *weir__named_data(const weir__named *named);

/* This process's seat, < WEIR__SEATS.  In a child that was forked since: takes one first.
 * WEIR_EFULL, WEIR_ESYSTEM, or what enter returned. */
int weir__named_seat(weir__named *named);

/* Which process this is, of those that were forked from each other: another number in each child.
 * Counted since a block was opened first. */
unsigned weir__named_generation(void);

/* Whether a process that lives has this seat.  A system call. */
bool weir__named_is_taken(weir__named *named, unsigned seat);

/* Lets go (NULL is fine); the last handle of the process leaves its seat. */
void weir__named_close(weir__named *named);

#endif
