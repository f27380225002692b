/* model/graph.h: an order, the shortest cycle, and who reaches whom; random graphs are compared with
 * the plainest way to find out. */
#include "contract/support.h"

#include <string.h>

#include "model/graph.h"
#include "model/random.h"

#define MOST 12
#define EDGES(...)                                                                                 \
    (const weir__edge[]){__VA_ARGS__},                                                             \
        sizeof((const weir__edge[]){__VA_ARGS__}) / sizeof(weir__edge)

static unsigned scratch[WEIR__GRAPH_SCRATCH(MOST)];

static void expect_order(const weir__edge *edges, size_t m, unsigned n, const unsigned *expected)
{
    unsigned order[MOST];
    assert_true(weir__graph_order(edges, m, n, order, scratch));
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(order[i], expected[i]);
}

static void stages_come_after_what_feeds_them(void **state)
{
    (void)state;
    expect_order(EDGES({2, 0}, {0, 1}), 3, (const unsigned[]){2, 0, 1});
    expect_order(EDGES({0, 2}, {0, 1}, {1, 3}, {2, 3}), 4, (const unsigned[]){0, 1, 2, 3});
    expect_order(EDGES({3, 1}, {3, 1}, {1, 0}), 4, (const unsigned[]){2, 3, 1, 0});
}

static void without_edges_the_numbers_are_the_order(void **state)
{
    (void)state;
    expect_order(NULL, 0, 4, (const unsigned[]){0, 1, 2, 3});
    expect_order(NULL, 0, 0, NULL);
}

static unsigned cycle_of(const weir__edge *edges, size_t m, unsigned n, unsigned *cycle)
{
    return weir__graph_cycle(edges, m, n, cycle, scratch);
}

static void a_cycle_has_no_order_and_is_told_from_its_lowest_stage_on(void **state)
{
    (void)state;
    unsigned cycle[MOST];
    assert_false(weir__graph_order(EDGES({0, 3}, {3, 2}, {2, 1}, {1, 3}), 4, cycle, scratch));
    assert_int_equal(cycle_of(EDGES({0, 3}, {3, 2}, {2, 1}, {1, 3}), 4, cycle), 3);
    assert_int_equal(cycle[0], 1);
    assert_int_equal(cycle[1], 3);
    assert_int_equal(cycle[2], 2);
}

static void a_stage_that_feeds_itself_is_a_cycle_of_one(void **state)
{
    (void)state;
    unsigned cycle[MOST];
    assert_int_equal(cycle_of(EDGES({0, 1}, {1, 0}, {2, 2}), 3, cycle), 1);
    assert_int_equal(cycle[0], 2);
}

static void of_two_cycles_the_shorter_one_is_told(void **state)
{
    (void)state;
    unsigned cycle[MOST];
    assert_int_equal(cycle_of(EDGES({0, 1}, {1, 2}, {2, 3}, {3, 0}, {5, 4}, {4, 5}), 6, cycle), 2);
    assert_int_equal(cycle[0], 4);
    assert_int_equal(cycle[1], 5);
}

static void a_cycle_through_every_stage_is_found(void **state)
{
    (void)state;
    weir__edge ring[MOST];
    unsigned cycle[MOST];
    for (unsigned i = 0; i < MOST; i++)
        ring[i] = (weir__edge){i, (i + MOST - 1) % MOST};
    assert_int_equal(cycle_of(ring, MOST, MOST, cycle), MOST);
    for (unsigned i = 0; i < MOST; i++)
        assert_int_equal(cycle[i], (MOST - i) % MOST);
}

static void a_diamond_has_no_cycle(void **state)
{
    (void)state;
    unsigned cycle[MOST];
    assert_int_equal(cycle_of(EDGES({0, 1}, {0, 2}, {1, 3}, {2, 3}), 4, cycle), 0);
    assert_int_equal(cycle_of(NULL, 0, 0, cycle), 0);
}

static void a_stage_reaches_itself_and_what_lies_ahead(void **state)
{
    (void)state;
    static const weir__edge edges[] = {{0, 1}, {1, 2}, {3, 2}};
    assert_true(weir__graph_reaches(edges, 3, 4, 0, 2, scratch));
    assert_true(weir__graph_reaches(edges, 3, 4, 3, 3, scratch));
    assert_false(weir__graph_reaches(edges, 3, 4, 2, 0, scratch));
    assert_false(weir__graph_reaches(edges, 3, 4, 0, 3, scratch));
}

/* ---- random graphs -------------------------------------------------------------------------- */

typedef struct graph {
    unsigned n;
    size_t m;
    weir__edge edges[3 * MOST];
    unsigned steps[MOST][MOST]; /* of the shortest way of one step or more; 0: there is none */
} graph;

/* Floyd and Warshall's. */
static void measure(graph *g)
{
    memset(g->steps, 0, sizeof g->steps);
    for (size_t e = 0; e < g->m; e++)
        g->steps[g->edges[e].from][g->edges[e].to] = 1;
    for (unsigned k = 0; k < g->n; k++)
        for (unsigned i = 0; i < g->n; i++)
            for (unsigned j = 0; j < g->n; j++) {
                unsigned way = g->steps[i][k] + g->steps[k][j];
                bool is_way = g->steps[i][k] && g->steps[k][j];
                if (is_way && (!g->steps[i][j] || way < g->steps[i][j]))
                    g->steps[i][j] = way;
            }
}

static graph random_graph(weir__random *random)
{
    graph g = {.n = 1 + (unsigned)(weir__random_next(random) % MOST)};
    g.m = weir__random_next(random) % (2 * g.n);
    for (size_t e = 0; e < g.m; e++) {
        g.edges[e].from = (unsigned)(weir__random_next(random) % g.n);
        g.edges[e].to = (unsigned)(weir__random_next(random) % g.n);
    }
    measure(&g);
    return g;
}

static unsigned shortest_cycle(const graph *g)
{
    unsigned shortest = 0;
    for (unsigned i = 0; i < g->n; i++)
        if (g->steps[i][i] && (!shortest || g->steps[i][i] < shortest))
            shortest = g->steps[i][i];
    return shortest;
}

static bool has_edge(const graph *g, unsigned from, unsigned to)
{
    return g->steps[from][to] == 1;
}

static void check_order(const graph *g)
{
    unsigned order[MOST], place[MOST];
    assert_true(weir__graph_order(g->edges, g->m, g->n, order, scratch));
    for (unsigned i = 0; i < g->n; i++)
        place[order[i]] = i;
    for (size_t e = 0; e < g->m; e++)
        assert_true(place[g->edges[e].from] < place[g->edges[e].to]);
    for (unsigned i = 0; i + 1 < g->n; i++) /* a lower number comes later only if it has to */
        assert_true(order[i] < order[i + 1] || has_edge(g, order[i], order[i + 1]));
}

static void check_cycle(const graph *g, unsigned length)
{
    unsigned cycle[MOST], found = weir__graph_cycle(g->edges, g->m, g->n, cycle, scratch);
    assert_int_equal(found, length);
    for (unsigned i = 0; i < found; i++) {
        assert_true(has_edge(g, cycle[i], cycle[(i + 1) % found]));
        assert_true(cycle[0] <= cycle[i]);
    }
}

static void random_graphs_agree_with_the_plainest_way(void **state)
{
    (void)state;
    weir__random random = {6};
    unsigned with_cycle = 0;
    for (unsigned round = 0; round < 20000; round++) {
        graph g = random_graph(&random);
        unsigned length = shortest_cycle(&g), order[MOST];
        check_cycle(&g, length);
        with_cycle += length > 0;
        if (length)
            assert_false(weir__graph_order(g.edges, g.m, g.n, order, scratch));
        else
            check_order(&g);
        for (unsigned i = 0; i < g.n; i++)
            for (unsigned j = 0; j < g.n; j++)
                assert_int_equal(weir__graph_reaches(g.edges, g.m, g.n, i, j, scratch),
                                 i == j || g.steps[i][j]);
    }
    assert_in_range(with_cycle, 2000, 18000); /* both kinds were seen */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_come_after_what_feeds_them),
        cmocka_unit_test(without_edges_the_numbers_are_the_order),
        cmocka_unit_test(a_cycle_has_no_order_and_is_told_from_its_lowest_stage_on),
        cmocka_unit_test(a_stage_that_feeds_itself_is_a_cycle_of_one),
        cmocka_unit_test(of_two_cycles_the_shorter_one_is_told),
        cmocka_unit_test(a_cycle_through_every_stage_is_found),
        cmocka_unit_test(a_diamond_has_no_cycle),
        cmocka_unit_test(a_stage_reaches_itself_and_what_lies_ahead),
        cmocka_unit_test(random_graphs_agree_with_the_plainest_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
