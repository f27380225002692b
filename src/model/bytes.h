/* bytes.h - amounts of memory as people write them: "80%", "2GiB", "512M", "1073741824". */
#ifndef WEIR_MODEL_BYTES_H
#define WEIR_MODEL_BYTES_H

#include <stdbool.h>
#include <stdint.h>

typedef struct weir__amount {
    uint64_t bytes;  /* > 0; 0: it is a fraction */
    double fraction; /* in (0, 1]; 0: it is bytes */
} weir__amount;

/* A number, which may have a fraction, and a unit: none or B; K, M, G, T with or without "i" or "iB"
 * are powers of 1024, as in cgroup files, kB, MB, GB, TB powers of 1000; or "%", of 0 < x <= 100.
 * Case and blanks before the unit do not matter.  false: none of these, 0, or 2^62 bytes or more;
 * nothing changed. */
bool weir__parse_amount(const char *text, weir__amount *ret_amount);

#endif
