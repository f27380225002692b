/* model/bytes.h: amounts of memory as people write them. */
#include "contract/support.h"

#include "model/bytes.h"

static uint64_t bytes_of(const char *text)
{
    weir__amount amount = {0};
    assert_true(weir__parse_amount(text, &amount));
    assert_true(amount.fraction == 0);
    return amount.bytes;
}

static double fraction_of(const char *text)
{
    weir__amount amount = {0};
    assert_true(weir__parse_amount(text, &amount));
    assert_int_equal(amount.bytes, 0);
    return amount.fraction;
}

static void units_are_powers_of_1024_and_with_a_b_alone_of_1000(void **state)
{
    (void)state;
    assert_int_equal(bytes_of("1"), 1);
    assert_int_equal(bytes_of("1073741824"), 1073741824);
    assert_int_equal(bytes_of("7B"), 7);
    assert_int_equal(bytes_of("2K"), 2048);
    assert_int_equal(bytes_of("512M"), UINT64_C(512) << 20);
    assert_int_equal(bytes_of("512 MiB"), UINT64_C(512) << 20);
    assert_int_equal(bytes_of("2GiB"), UINT64_C(2) << 30);
    assert_int_equal(bytes_of("2gi"), UINT64_C(2) << 30);
    assert_int_equal(bytes_of("3T"), UINT64_C(3) << 40);
    assert_int_equal(bytes_of("2kB"), 2000);
    assert_int_equal(bytes_of("2GB"), 2000000000);
    assert_int_equal(bytes_of("1.5GiB"), UINT64_C(3) << 29);
    assert_int_equal(bytes_of(" .5M"), UINT64_C(1) << 19);
}

static void percents_are_fractions_of_what_there_is(void **state)
{
    (void)state;
    assert_true(fraction_of("80%") == 0.8);
    assert_true(fraction_of("100 %") == 1.0);
    assert_true(fraction_of("0.5%") == 0.005);
}

static void what_is_no_amount_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        " ",
        "x",
        "-1",
        "80%%",
        "0",
        "0%",
        "101%",
        "2X",
        "2GiBs",
        "GiB",
        "2 G B",
        ".",
        "1e9",
        "+1",
        "0.0001B",
        "5000000T",
        "2iB",
        "2kk",
        "%",
        "nan",
        "inf",
        "0x10",
        "4611686018427387904",
        "99999999999999999999999",
        "1,5G",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        weir__amount amount = {.bytes = 77};
        if (weir__parse_amount(bad[i], &amount))
            fail_msg("'%s' was taken", bad[i]);
        assert_int_equal(amount.bytes, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(units_are_powers_of_1024_and_with_a_b_alone_of_1000),
        cmocka_unit_test(percents_are_fractions_of_what_there_is),
        cmocka_unit_test(what_is_no_amount_is_refused_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
