/* A quantile of numbers that are not kept. */
#include "contract/support.h"

#include "model/quantile.h"

static double quantile_of(double p, const double *numbers, size_t n)
{
    weir__quantile quantile;
    weir__quantile_init(&quantile, p);
    for (size_t i = 0; i < n; i++)
        weir__quantile_add(&quantile, numbers[i]);
    return weir__quantile_get(&quantile);
}

static bool is_near(double a, double b, double off)
{
    return a - b < off && b - a < off;
}

static void the_paper_s_example_comes_out(void **state)
{
    (void)state; /* Jain and Chlamtac 1985, table I: 4.44 after twenty observations */
    const double numbers[] = {0.02,  0.15,  0.74, 3.39, 0.83, 22.37, 10.15, 15.43, 38.62, 15.92,
                              34.60, 10.28, 1.47, 0.40, 0.05, 11.39, 0.27,  0.42,  0.09,  11.37};
    assert_true(is_near(quantile_of(0.5, numbers, 20), 4.44, 0.005));
}

static void few_numbers_are_exact(void **state)
{
    (void)state;
    const double numbers[] = {5, 1, 4, 2, 3};
    assert_true(quantile_of(0.5, numbers, 0) == 0);
    assert_true(quantile_of(0.5, numbers, 1) == 5);
    assert_true(quantile_of(0.5, numbers, 2) == 1);
    assert_true(quantile_of(0.5, numbers, 3) == 4);
    assert_true(quantile_of(0.5, numbers, 5) == 3);
    assert_true(quantile_of(0.2, numbers, 5) == 1);
    assert_true(quantile_of(0.99, numbers, 5) == 5);
}

static void many_numbers_are_near(void **state)
{
    (void)state;
    static double numbers[10007];
    for (size_t i = 0; i < 10007; i++)
        numbers[i] = (double)(i * 7919 % 10007);
    const double p[] = {0.1, 0.5, 0.9, 0.99};
    for (size_t i = 0; i < 4; i++)
        assert_true(is_near(quantile_of(p[i], numbers, 10007), p[i] * 10007, 60));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_paper_s_example_comes_out),
        cmocka_unit_test(few_numbers_are_exact),
        cmocka_unit_test(many_numbers_are_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
