/* cli/run/input.h: items out of bytes, and no more bytes than needed. */
#include "parts.h"

#include "run/input.h"

#include <fcntl.h>

typedef struct source {
    char path[32];
    run_input *input;
} source;

static void open_with(source *s, const void *bytes, size_t n, run_format format, bool has_header)
{
    strcpy(s->path, "/tmp/weir-items-XXXXXX");
    int fd = mkstemp(s->path);
    assert_int_equal(write(fd, bytes, n), n);
    close(fd);
    s->input = run_input_open(
        &(run_input_opts){.path = s->path, .format = format, .has_header = has_header});
    assert_non_null(s->input);
}

static void close_source(source *s)
{
    run_input_close(s->input);
    unlink(s->path);
}

static void expect(source *s, const char *text)
{
    run_item *item = NULL;
    assert_int_equal(run_input_next(s->input, &item), RUN_READ_ITEM);
    assert_string_equal(item->text, text);
    free(item);
}

static void expect_end(source *s)
{
    run_item *item = NULL;
    assert_int_equal(run_input_next(s->input, &item), RUN_READ_END);
    assert_int_equal(run_input_next(s->input, &item), RUN_READ_END);
}

static void lines_are_items_and_empty_ones_are_none(void **state)
{
    (void)state;
    source s;
    open_with(&s, "a\n\n b c \nlast", 13, RUN_LINES, false);
    expect(&s, "a");
    expect(&s, " b c ");
    expect(&s, "last");
    expect_end(&s);
    close_source(&s);
}

static void zero_bytes_end_items_that_hold_lines(void **state)
{
    (void)state;
    source s;
    open_with(&s, "a\nb\0c", 5, RUN_ZERO, false);
    expect(&s, "a\nb");
    expect(&s, "c");
    expect_end(&s);
    close_source(&s);
}

static void a_zero_byte_in_a_line_is_an_error_that_says_what_to_do(void **state)
{
    (void)state;
    source s;
    run_item *item;
    open_with(&s, "ok\na\0b\n", 7, RUN_LINES, false);
    expect(&s, "ok");
    assert_int_equal(run_input_next(s.input, &item), RUN_READ_ERROR);
    assert_non_null(strstr(run_input_error(s.input), "item 2"));
    assert_non_null(strstr(run_input_error(s.input), "-0"));
    close_source(&s);
}

static void rows_of_csv_have_quoted_cells_over_several_lines(void **state)
{
    (void)state;
    source s;
    run_item *item;
    static const char text[] = "id,what\r\n1,\"a, \"\"b\"\"\nc\"\r\n2,,\r\n";
    open_with(&s, text, sizeof text - 1, RUN_CSV, true);
    assert_int_equal(run_input_next(s.input, &item), RUN_READ_ITEM);
    assert_int_equal(item->number, 1);
    assert_int_equal(item->n_columns, 2);
    assert_string_equal(item->columns[1], "a, \"b\"\nc");
    assert_string_equal(run_input_header(s.input)->columns[1], "what");
    free(item);
    assert_int_equal(run_input_next(s.input, &item), RUN_READ_ITEM);
    assert_int_equal(item->n_columns, 3);
    assert_string_equal(item->columns[2], "");
    free(item);
    expect_end(&s);
    close_source(&s);
}

static void a_quote_that_is_never_closed_is_an_error(void **state)
{
    (void)state;
    source s;
    run_item *item;
    open_with(&s, "a,\"b\nc,d\n", 9, RUN_CSV, false);
    assert_int_equal(run_input_next(s.input, &item), RUN_READ_ERROR);
    assert_non_null(strstr(run_input_error(s.input), "quote"));
    close_source(&s);
}

static void tabulators_part_the_cells_of_tsv(void **state)
{
    (void)state;
    source s;
    run_item *item;
    open_with(&s, "a\t\"b\t\n", 6, RUN_TSV, false);
    assert_int_equal(run_input_next(s.input, &item), RUN_READ_ITEM);
    assert_int_equal(item->n_columns, 3);
    assert_string_equal(item->columns[1], "\"b");
    free(item);
    close_source(&s);
}

static void items_around_every_length_of_the_buffer_come_whole(void **state)
{
    (void)state;
    static char text[70000];
    for (size_t length = 1; length < 30000; length = length < 4000 ? 2 * length : length + 1021) {
        source s;
        memset(text, 'x', 2 * length + 2);
        text[length] = text[2 * length + 1] = '\n';
        open_with(&s, text, 2 * length + 2, RUN_LINES, false);
        text[length] = '\0';
        expect(&s, text);
        expect(&s, text);
        expect_end(&s);
        close_source(&s);
    }
}

static void an_item_that_never_ends_is_an_error_and_not_all_memory(void **state)
{
    (void)state;
    run_item *item;
    run_input *input = run_input_open(&(run_input_opts){.path = "/dev/zero"});
    run_read how;
    while ((how = run_input_next(input, &item)) == RUN_READ_WAIT)
        continue;
    assert_int_equal(how, RUN_READ_ERROR);
    assert_non_null(strstr(run_input_error(input), "item 1 is longer than 1 MiB"));
    run_input_close(input);
}

static void a_pipe_is_never_waited_for_and_hardly_read_ahead(void **state)
{
    (void)state;
    int fds[2], unread = 0;
    static char many[32768];
    memset(many, '\n', sizeof many);
    for (size_t i = 0; i < sizeof many; i += 2)
        many[i] = 'a';
    assert_int_equal(pipe(fds), 0);
    char path[32];
    snprintf(path, sizeof path, "/dev/fd/%d", fds[0]);
    source s = {.input = run_input_open(&(run_input_opts){.path = path})};
    run_item *item;
    assert_int_equal(run_input_next(s.input, &item), RUN_READ_WAIT);
    assert_int_equal(write(fds[1], many, sizeof many), sizeof many);
    expect(&s, "a");
    char rest[sizeof many];
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    unread = (int)read(fds[0], rest, sizeof rest);
    assert_true(unread >= (int)sizeof many - 4096);
    close(fds[1]);
    run_input_close(s.input);
    close(fds[0]);
}

static void arguments_are_items_even_empty_ones(void **state)
{
    (void)state;
    char *items[] = {(char[]){"a"}, (char[]){""}, NULL};
    uint64_t total;
    source s = {.input = run_input_open(&(run_input_opts){.items = items})};
    expect(&s, "a");
    assert_int_equal(run_input_position(s.input, &total), 1);
    assert_int_equal(total, 2);
    expect(&s, "");
    expect_end(&s);
    run_input_close(s.input);
}

static void the_position_is_what_was_handed_out(void **state)
{
    (void)state;
    source s;
    uint64_t total;
    open_with(&s, "abc\ndef\n", 8, RUN_LINES, false);
    expect(&s, "abc");
    assert_int_equal(run_input_position(s.input, &total), 4);
    assert_int_equal(total, 8);
    close_source(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_items_and_empty_ones_are_none),
        cmocka_unit_test(zero_bytes_end_items_that_hold_lines),
        cmocka_unit_test(a_zero_byte_in_a_line_is_an_error_that_says_what_to_do),
        cmocka_unit_test(rows_of_csv_have_quoted_cells_over_several_lines),
        cmocka_unit_test(a_quote_that_is_never_closed_is_an_error),
        cmocka_unit_test(tabulators_part_the_cells_of_tsv),
        cmocka_unit_test(items_around_every_length_of_the_buffer_come_whole),
        cmocka_unit_test(an_item_that_never_ends_is_an_error_and_not_all_memory),
        cmocka_unit_test(a_pipe_is_never_waited_for_and_hardly_read_ahead),
        cmocka_unit_test(arguments_are_items_even_empty_ones),
        cmocka_unit_test(the_position_is_what_was_handed_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
