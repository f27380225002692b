/* graph.c - see graph.h. */
#include "model/graph.h"

#define NONE (~0u)

static unsigned first_free(const unsigned *waits_for, unsigned n)
{
    unsigned i = 0;
    while (i < n && waits_for[i])
        i++;
    return i;
}

bool weir__graph_order(const weir__edge *edges, size_t m, unsigned n, unsigned *order,
                       unsigned *scratch)
{
    unsigned *waits_for = scratch; /* so many edges from stages that are not placed; NONE: placed */
    for (unsigned i = 0; i < n; i++)
        waits_for[i] = 0;
    for (size_t e = 0; e < m; e++)
        waits_for[edges[e].to]++;
    for (unsigned placed = 0; placed < n; placed++) {
        unsigned next = first_free(waits_for, n);
        if (next == n)
            return false;
        order[placed] = next;
        waits_for[next] = NONE;
        for (size_t e = 0; e < m; e++)
            if (edges[e].from == next)
                waits_for[edges[e].to]--;
    }
    return true;
}

/* One step on from all that are `steps` away, over stages from `least` on.  false: there was nowhere to
 * go. */
static bool spread(const weir__edge *edges, size_t m, unsigned least, unsigned steps,
                   unsigned *distance, unsigned *came_from)
{
    bool spreads = false;
    for (size_t e = 0; e < m; e++) {
        unsigned from = edges[e].from, to = edges[e].to;
        if (from < least || to < least || distance[from] != steps || distance[to] != NONE)
            continue;
        distance[to] = steps + 1;
        came_from[to] = from;
        spreads = true;
    }
    return spreads;
}

/* A stage from which an edge leads back to `to`, so many steps away; NONE: none. */
static unsigned closes(const weir__edge *edges, size_t m, const unsigned *distance, unsigned steps,
                       unsigned to)
{
    for (size_t e = 0; e < m; e++)
        if (edges[e].to == to && distance[edges[e].from] == steps)
            return edges[e].from;
    return NONE;
}

/* The shortest cycle of which `start` is the lowest, if it is shorter than `shortest`; else that. */
static unsigned cycle_through(const weir__edge *edges, size_t m, unsigned n, unsigned start,
                              unsigned shortest, unsigned *cycle, unsigned *scratch)
{
    unsigned *distance = scratch, *came_from = scratch + n;
    for (unsigned i = 0; i < n; i++)
        distance[i] = NONE;
    distance[start] = 0;
    for (unsigned steps = 0; steps + 1 < shortest; steps++) {
        unsigned last = closes(edges, m, distance, steps, start);
        if (last != NONE) {
            for (unsigned at = steps; at > 0; at--, last = came_from[last])
                cycle[at] = last;
            cycle[0] = start;
            return steps + 1;
        }
        if (!spread(edges, m, start, steps, distance, came_from))
            break;
    }
    return shortest;
}

unsigned weir__graph_cycle(const weir__edge *edges, size_t m, unsigned n, unsigned *cycle,
                           unsigned *scratch)
{
    if (weir__graph_order(edges, m, n, cycle, scratch))
        return 0;
    unsigned shortest = NONE;
    for (unsigned start = 0; start < n; start++)
        shortest = cycle_through(edges, m, n, start, shortest, cycle, scratch);
    return shortest;
}

bool weir__graph_reaches(const weir__edge *edges, size_t m, unsigned n, unsigned from, unsigned to,
                         unsigned *scratch)
{
    unsigned *distance = scratch, *came_from = scratch + n, steps = 0;
    for (unsigned i = 0; i < n; i++)
        distance[i] = NONE;
    distance[from] = 0;
    while (distance[to] == NONE && spread(edges, m, 0, steps, distance, came_from))
        steps++;
    return distance[to] != NONE;
}
