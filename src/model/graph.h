/* graph.h - which stages come before which, and whether any waits for itself.
 *
 * A graph is n stages, numbered from 0, and m edges; an edge may be given twice, or lead back to
 * where it comes from.  The ends of all edges are < n.  Nothing is allocated: `scratch` has room for
 * WEIR__GRAPH_SCRATCH(n) numbers.
 *
 * Cost:  n (n + m) steps, for a cycle n m times its length.  Graphs are as large as what a person
 *        writes down.
 */
#ifndef WEIR_MODEL_GRAPH_H
#define WEIR_MODEL_GRAPH_H

#include <stdbool.h>
#include <stddef.h>

#define WEIR__GRAPH_SCRATCH(n) (2 * (size_t)(n))

typedef struct weir__edge {
    unsigned from, to;
} weir__edge;

/* Puts the n stages in an order in which each edge leads forward; of those that could come next it is
 * the one with the lowest number.  false: there is a cycle, and order[] says nothing. */
bool weir__graph_order(const weir__edge *edges, size_t m, unsigned n, unsigned *order,
                       unsigned *scratch);

/* One of the shortest cycles, as the stages along it, from its lowest number on, into cycle[n].
 * Returns how many they are: 1 is a stage that feeds itself, 0: there is no cycle. */
unsigned weir__graph_cycle(const weir__edge *edges, size_t m, unsigned n, unsigned *cycle,
                           unsigned *scratch);

/* Whether a way leads from `from` to `to`; each stage reaches itself.  So an edge a -> b would close
 * a cycle where b reaches a. */
bool weir__graph_reaches(const weir__edge *edges, size_t m, unsigned n, unsigned from, unsigned to,
                         unsigned *scratch);

#endif
