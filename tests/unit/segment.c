/* model/segment.h: what is written is read, and nothing else is. */
#include "contract/support.h"

#include <string.h>

#include "model/segment.h"

static void the_checksum_is_that_of_the_standard(void **state)
{
    (void)state;
    unsigned char zeros[32] = {0}, ones[32], up[32];
    memset(ones, 0xff, sizeof ones);
    for (size_t i = 0; i < sizeof up; i++)
        up[i] = (unsigned char)i;
    /* RFC 3720, B.4 */
    assert_int_equal(weir__crc32c(0, zeros, 32), 0x8a9136aa);
    assert_int_equal(weir__crc32c(0, ones, 32), 0x62a8ab43);
    assert_int_equal(weir__crc32c(0, up, 32), 0x46dd794e);
    assert_int_equal(weir__crc32c(0, "123456789", 9), 0xe3069283);
}

static void a_checksum_can_be_made_in_pieces(void **state)
{
    (void)state;
    const char text[] = "a low dam that holds the level upstream";
    for (size_t n = 0; n < sizeof text; n++) {
        uint32_t first = weir__crc32c(0, text, n);
        assert_int_equal(weir__crc32c(first, text + n, sizeof text - n),
                         weir__crc32c(0, text, sizeof text));
    }
}

static void a_name_says_what_the_file_is(void **state)
{
    (void)state;
    for (int kind = WEIR__FILE_SEGMENT; kind <= WEIR__FILE_PASSING; kind++) {
        char name[WEIR__SEGMENT_NAME];
        uint64_t seq = 0;
        weir__segment_name(name, 0xabc123, (weir__segment_file)kind);
        assert_int_equal(weir__segment_parse_name(name, &seq), kind);
        assert_int_equal(seq, 0xabc123);
    }
}

static void other_names_are_not_ours(void **state)
{
    (void)state;
    static const char *const others[] = {
        "",
        ".",
        "..",
        "lock",
        "1.seg",
        "0000000000000000.seg",
        "ffffffffffffffff.seg",
        "0000000000000001.SEG",
        "0000000000000001",
        "0000000000000001.seg.old",
        "000000000000000A.seg",
        " 000000000000001.seg",
        "-000000000000001.seg",
        "0x00000000000001.seg",
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        uint64_t seq = 7;
        assert_int_equal(weir__segment_parse_name(others[i], &seq), WEIR__FILE_OTHER);
        assert_int_equal(seq, 7);
    }
}

static void a_head_belongs_to_its_segment(void **state)
{
    (void)state;
    unsigned char head[WEIR__SEGMENT_HEAD];
    weir__segment_head(head, 5);
    assert_true(weir__segment_is_head(head, 5));
    assert_false(weir__segment_is_head(head, 6));
    for (size_t i = 0; i < sizeof head; i++) {
        head[i] ^= 1;
        assert_false(weir__segment_is_head(head, 5));
        head[i] ^= 1;
    }
}

static void a_record_is_read_as_it_was_written(void **state)
{
    (void)state;
    unsigned char head[WEIR__RECORD_HEAD];
    weir__record record;
    weir__record_head(head, 1234567890123, "abcde", 5);
    assert_int_equal(weir__record_look(head, &record), WEIR__RECORD);
    assert_int_equal(record.seq, 1234567890123);
    assert_int_equal(record.n, 5);
    assert_int_equal(record.crc, weir__crc32c(0, "abcde", 5));
    weir__record_end(head, 9);
    assert_int_equal(weir__record_look(head, &record), WEIR__RECORD_END);
    assert_int_equal(record.seq, 9);
}

static void no_changed_bit_of_a_head_passes(void **state)
{
    (void)state;
    unsigned char head[WEIR__RECORD_HEAD];
    weir__record record;
    weir__record_head(head, 42, "abc", 3);
    for (size_t bit = 0; bit < 8 * sizeof head; bit++) {
        head[bit / 8] ^= (unsigned char)(1u << bit % 8);
        assert_int_equal(weir__record_look(head, &record), WEIR__RECORD_NONE);
        head[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
}

static void records_take_multiples_of_eight(void **state)
{
    (void)state;
    for (size_t n = 0; n < 40; n++) {
        assert_int_equal(weir__record_size(n) % 8, 0);
        assert_true(weir__record_size(n) >= WEIR__RECORD_HEAD + n);
        assert_true(weir__record_size(n) < WEIR__RECORD_HEAD + n + 8);
    }
    assert_true(weir__record_size(WEIR__RECORD_MAX) > WEIR__RECORD_MAX);
}

static void an_acknowledgement_belongs_to_its_segment(void **state)
{
    (void)state;
    unsigned char entry[WEIR__ACK_ENTRY];
    weir__ack ack;
    weir__ack_write(entry, 77, (weir__ack){3, 64});
    assert_true(weir__ack_read(entry, 77, &ack));
    assert_int_equal(ack.index, 3);
    assert_int_equal(ack.n, 64);
    assert_false(weir__ack_read(entry, 78, &ack));
    for (size_t i = 0; i < sizeof entry; i++) {
        entry[i] ^= 0x80;
        assert_false(weir__ack_read(entry, 77, &ack));
        entry[i] ^= 0x80;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_checksum_is_that_of_the_standard),
        cmocka_unit_test(a_checksum_can_be_made_in_pieces),
        cmocka_unit_test(a_name_says_what_the_file_is),
        cmocka_unit_test(other_names_are_not_ours),
        cmocka_unit_test(a_head_belongs_to_its_segment),
        cmocka_unit_test(a_record_is_read_as_it_was_written),
        cmocka_unit_test(no_changed_bit_of_a_head_passes),
        cmocka_unit_test(records_take_multiples_of_eight),
        cmocka_unit_test(an_acknowledgement_belongs_to_its_segment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
