/* gradient2.c - see gradient2.h. */
#include "model/gradient2.h"

static double towards(const weir__gradient2 *gradient2, double limit, double gradient)
{
    double queue = gradient2->queue;
    if (!(queue > 0))
        queue = limit > 20 ? limit / 20 : 1;
    return limit + gradient2->smoothing * (gradient * limit + queue - limit);
}

double weir__gradient2_next(const weir__gradient2 *gradient2, double limit, double rtt,
                            double baseline)
{
    double gradient = gradient2->tolerance * baseline / rtt;
    if (gradient < 0.5)
        gradient = 0.5;
    return towards(gradient2, limit, gradient < 1 ? gradient : 1);
}

double weir__gradient2_drop(const weir__gradient2 *gradient2, double limit)
{
    double next = towards(gradient2, limit, 0.5);
    return next < limit ? next : limit;
}
