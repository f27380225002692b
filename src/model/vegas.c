/* vegas.c - see vegas.h. */
#include "model/vegas.h"

#include <stdint.h>

/* The published scale of all steps: the digits of the limit, less one, but 1. */
static double scale(double limit)
{
    double log = 0;
    for (; limit >= 10; limit /= 10)
        log++;
    return log > 1 ? log : 1;
}

static double at_most(double published, double least, double share_of_limit)
{
    double most = share_of_limit > least ? share_of_limit : least;
    return published < most ? published : most;
}

static double rounded_up(double x)
{
    double whole = (double)(int64_t)x;
    return whole < x ? whole + 1 : whole;
}

double weir__vegas_next(const weir__vegas *vegas, double limit, double rtt, double baseline)
{
    double by = scale(limit);
    double alpha = vegas->alpha > 0 ? vegas->alpha : at_most(3 * by, 2, limit / 32);
    double beta = vegas->beta > 0 ? vegas->beta : at_most(6 * by, 2, limit / 16);
    double waiting = rounded_up(limit * (1 - baseline / rtt));
    double change = 0, surplus = (waiting - beta) / 2;
    if (waiting < by)
        change = beta;
    else if (waiting < alpha)
        change = by;
    else if (waiting > beta)
        change = surplus > by ? -surplus : -by;
    return limit + vegas->smoothing * change;
}

double weir__vegas_drop(const weir__vegas *vegas, double limit)
{
    return limit - vegas->smoothing * scale(limit);
}
