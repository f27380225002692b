/* quantile.h - a quantile of numbers that are not kept: five markers, whatever their count.
 *
 * The P-square algorithm: R. Jain, I. Chlamtac, "The P2 Algorithm for Dynamic Calculation of
 * Quantiles and Histograms Without Storing Observations", Communications of the ACM 28 (10), 1985.
 */
#ifndef WEIR_MODEL_QUANTILE_H
#define WEIR_MODEL_QUANTILE_H

#include <stdint.h>

typedef struct weir__quantile {
    double p;           /* in (0, 1) */
    uint32_t n;         /* numbers seen */
    double height[5];   /* of the markers: minimum, p/2, p, (1+p)/2, maximum */
    double position[5]; /* how many numbers are not above each marker */
} weir__quantile;

void weir__quantile_init(weir__quantile *quantile, double p);
void weir__quantile_add(weir__quantile *quantile, double x);

/* Exact up to five numbers, then an estimate; 0 before the first. */
double weir__quantile_get(const weir__quantile *quantile);

#endif
