/* quantile.c - see quantile.h. */
#include "model/quantile.h"

void weir__quantile_init(weir__quantile *quantile, double p)
{
    *quantile = (weir__quantile){.p = p, .position = {1, 2, 3, 4, 5}};
}

/* The first five are the markers, in order. */
static void insert(weir__quantile *quantile, double x)
{
    uint32_t i = quantile->n++;
    for (; i > 0 && quantile->height[i - 1] > x; i--)
        quantile->height[i] = quantile->height[i - 1];
    quantile->height[i] = x;
}

/* Counts x in: the markers above it move by one. */
static void count(weir__quantile *quantile, double x)
{
    if (x < quantile->height[0])
        quantile->height[0] = x;
    if (x > quantile->height[4])
        quantile->height[4] = x;
    for (int i = 1; i < 4; i++)
        quantile->position[i] += x < quantile->height[i];
    quantile->position[4]++;
}

static double parabola(const weir__quantile *quantile, int i, double step)
{
    const double *n = quantile->position, *q = quantile->height;
    return q[i] + step / (n[i + 1] - n[i - 1]) *
                      ((n[i] - n[i - 1] + step) * (q[i + 1] - q[i]) / (n[i + 1] - n[i]) +
                       (n[i + 1] - n[i] - step) * (q[i] - q[i - 1]) / (n[i] - n[i - 1]));
}

static void move(weir__quantile *quantile, int i, int step)
{
    double *n = quantile->position, *q = quantile->height;
    double moved = parabola(quantile, i, step);
    if (moved <= q[i - 1] || moved >= q[i + 1])
        moved = q[i] + step * (q[i + step] - q[i]) / (n[i + step] - n[i]);
    q[i] = moved;
    n[i] += step;
}

void weir__quantile_add(weir__quantile *quantile, double x)
{
    if (quantile->n < 5) {
        insert(quantile, x);
        return;
    }
    count(quantile, x);
    quantile->n++;
    const double wanted[5] = {0, quantile->p / 2, quantile->p, (1 + quantile->p) / 2, 1};
    for (int i = 1; i < 4; i++) {
        const double *n = quantile->position;
        double off = 1 + (quantile->n - 1) * wanted[i] - n[i];
        if (off >= 1 && n[i + 1] - n[i] > 1)
            move(quantile, i, 1);
        else if (off <= -1 && n[i - 1] - n[i] < -1)
            move(quantile, i, -1);
    }
}

double weir__quantile_get(const weir__quantile *quantile)
{
    if (quantile->n > 5)
        return quantile->height[2];
    if (quantile->n == 0)
        return 0;
    uint32_t rank = (uint32_t)(quantile->p * quantile->n); /* the ceil(p n)-th, counted from 1 */
    if (rank == quantile->n || (rank > 0 && rank >= quantile->p * quantile->n))
        rank--;
    return quantile->height[rank];
}
