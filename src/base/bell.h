/* bell.h - an eventfd that one side rings and the other polls, across threads and processes. */
#ifndef WEIR_BASE_BELL_H
#define WEIR_BASE_BELL_H

#include <weir/base.h>

/* WEIR_ENOFD, WEIR_ENOMEM; WEIR_ESYSTEM. */
int weir__bell_create(int *ret_fd);

/* Makes the descriptor readable until it is cleared. */
void weir__bell_ring(int fd);
void weir__bell_clear(int fd);

#endif
