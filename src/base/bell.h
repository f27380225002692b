/* bell.h - an eventfd that one side rings and the other polls, across threads and processes; and a
 * descriptor that polls readable for as long as something is so. */
#ifndef WEIR_BASE_BELL_H
#define WEIR_BASE_BELL_H

#include <stdbool.h>

#include <weir/base.h>

/* WEIR_ENOFD, WEIR_ENOMEM; WEIR_ESYSTEM. */
int weir__bell_create(int *ret_fd);

/* Makes the descriptor readable until it is cleared. */
void weir__bell_ring(int fd);
void weir__bell_clear(int fd);

/* ---- level-triggered -------------------------------------------------------------------- */

/* Made when somebody asks for it.  The owner's lock guards it. */
typedef struct weir__level {
    int fd;        /* < 0: not asked for */
    bool readable; /* what the kernel was told */
} weir__level;

#define WEIR__LEVEL_INIT ((weir__level){.fd = -1})

/* Makes the descriptor, not readable, unless there is one; as weir__bell_create. */
int weir__level_open(weir__level *level);
void weir__level_close(weir__level *level);

/* Nothing without a descriptor; no system call where it is so already. */
void weir__level_set(weir__level *level, bool readable);

#endif
