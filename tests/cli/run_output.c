/* cli/run/output.h: what is printed, in which order, and what is held.  Ours is a pipe that the test reads. */
#include "parts.h"

#include "run/output.h"

#include <dirent.h>
#include <fcntl.h>

static int ours[2], saved;

static void redirect(void)
{
    assert_int_equal(pipe(ours), 0);
    fcntl(ours[0], F_SETFL, O_NONBLOCK);
    fcntl(ours[0], F_SETPIPE_SZ, 65536);
    saved = dup(STDOUT_FILENO);
    dup2(ours[1], STDOUT_FILENO);
}

static void restore(void)
{
    dup2(saved, STDOUT_FILENO);
    close(saved);
    close(ours[0]);
    close(ours[1]);
}

static run_sheet *begin(run_output *output, const char *tag)
{
    run_sheet *sheet = run_output_begin(output, tag);
    assert_non_null(sheet);
    assert_true(run_output_open(output, sheet, tag));
    return sheet;
}

static void prints(run_sheet *sheet, const char *text)
{
    assert_int_equal(write(run_sheet_out(sheet), text, strlen(text)), strlen(text));
}

static const char *said(run_output *output)
{
    static char all[4096];
    assert_true(run_output_print(output));
    ssize_t n = read(ours[0], all, sizeof all - 1);
    all[n > 0 ? n : 0] = '\0';
    return all;
}

static size_t descriptors(void)
{
    size_t n = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder))
        n++;
    closedir(folder);
    return n;
}

static run_output *output_with(run_output_opts opts)
{
    opts.window_jobs = opts.window_jobs ? opts.window_jobs : 100;
    opts.window_bytes = opts.window_bytes ? opts.window_bytes : 1 << 20;
    run_output *output = run_output_create(&opts);
    assert_non_null(output);
    return output;
}

static void jobs_are_printed_whole_as_they_end(void **state)
{
    (void)state;
    redirect();
    run_output *output = output_with((run_output_opts){0});
    run_sheet *a = begin(output, "a"), *b = begin(output, "b");
    prints(a, "a1\n");
    prints(b, "b1\n");
    prints(a, "a2\n");
    run_output_end(output, b);
    assert_string_equal(said(output), "b1\n");
    run_output_end(output, a);
    assert_string_equal(said(output), "a1\na2\n");
    assert_true(run_output_is_between(output));
    run_output_destroy(output);
    restore();
}

static void in_order_the_first_one_is_waited_for_up_to_the_window(void **state)
{
    (void)state;
    redirect();
    run_output *output = output_with((run_output_opts){.keep_order = true, .window_jobs = 3});
    run_sheet *first = begin(output, "1");
    prints(first, "1\n");
    for (int i = 0; i < 3; i++) {
        assert_true(run_output_has_room(output));
        run_sheet *next = begin(output, "2");
        prints(next, "2\n");
        run_output_end(output, next);
    }
    assert_false(run_output_has_room(output));
    assert_string_equal(said(output), "");
    run_output_end(output, first);
    assert_string_equal(said(output), "1\n2\n2\n2\n");
    assert_true(run_output_has_room(output));
    run_output_destroy(output);
    restore();
}

static void bytes_fill_the_window_too(void **state)
{
    (void)state;
    redirect();
    uint64_t bytes;
    run_output *output = output_with((run_output_opts){.keep_order = true, .window_bytes = 5});
    run_sheet *first = begin(output, "1"), *next = begin(output, "2");
    prints(next, "12345");
    run_output_end(output, next);
    assert_false(run_output_has_room(output));
    assert_int_equal(run_output_held(output, &bytes), 1);
    assert_int_equal(bytes, 5);
    run_output_end(output, first);
    assert_string_equal(said(output), "12345");
    run_output_destroy(output);
    restore();
}

static void what_an_attempt_printed_is_forgotten_before_the_next(void **state)
{
    (void)state;
    redirect();
    run_output *output = output_with((run_output_opts){.keep_order = true});
    run_sheet *sheet = begin(output, "a");
    prints(sheet, "bad\n");
    run_output_again(output, sheet);
    assert_true(run_output_open(output, sheet, "a"));
    prints(sheet, "good\n");
    run_output_end(output, sheet);
    assert_string_equal(said(output), "good\n");
    run_output_destroy(output);
    restore();
}

static void each_line_begins_with_the_tag_and_the_last_one_is_ended(void **state)
{
    (void)state;
    redirect();
    run_output *output = output_with((run_output_opts){.is_tagged = true});
    run_sheet *sheet = begin(output, "x\ny");
    prints(sheet, "1\n\n2");
    run_output_end(output, sheet);
    assert_string_equal(said(output), "x y\t1\nx y\t\nx y\t2\n");
    run_output_destroy(output);
    restore();
}

/* A reader that takes it slowly, byte by byte the same, and nobody is blocked. */
static void print_much(bool is_tagged)
{
    redirect();
    run_output *output = output_with((run_output_opts){.is_tagged = is_tagged});
    run_sheet *sheet = begin(output, "t");
    static char piece[1000];
    for (int i = 0; i < 1000; i++)
        piece[i] = i % 10 == 9 ? '\n' : (char)('a' + i % 10);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(write(run_sheet_out(sheet), piece, sizeof piece), sizeof piece);
    run_output_end(output, sheet);
    uint64_t bytes, total = 0, lines = 0;
    char read_now[5000];
    do {
        assert_true(run_output_print(output));
        ssize_t n = read(ours[0], read_now, sizeof read_now);
        for (ssize_t i = 0; i < n; i++)
            lines += read_now[i] == '\n';
        total += n > 0 ? (uint64_t)n : 0;
    } while (run_output_held(output, &bytes) > 0 || total < (is_tagged ? 1200000 : 1000000));
    assert_int_equal(lines, 100000);
    assert_int_equal(total, is_tagged ? 1200000 : 1000000);
    assert_int_equal(run_output_wants(output), -1);
    run_output_destroy(output);
    restore();
}

static void much_is_printed_without_waiting_for_the_reader(void **state)
{
    (void)state;
    print_much(false);
    print_much(true);
}

static void files_that_stay_empty_are_used_again(void **state)
{
    (void)state;
    redirect();
    run_output *output = output_with((run_output_opts){.keep_order = true, .window_jobs = 10000});
    run_sheet *first = begin(output, "1");
    size_t before = descriptors();
    for (int i = 0; i < 1000; i++) {
        run_sheet *sheet = begin(output, "2");
        run_output_end(output, sheet);
    }
    assert_true(descriptors() <= before + 2);
    run_output_end(output, first);
    assert_string_equal(said(output), "");
    run_output_destroy(output);
    restore();
}

static void results_are_kept_and_printed(void **state)
{
    (void)state;
    char folder[] = "/tmp/weir-results-XXXXXX", path[64], text[8] = "";
    assert_non_null(mkdtemp(folder));
    redirect();
    run_output *output = output_with((run_output_opts){.results = folder});
    run_sheet *sheet = begin(output, "1-a");
    prints(sheet, "out\n");
    run_output_end(output, sheet);
    assert_string_equal(said(output), "out\n");
    run_output_destroy(output);
    restore();
    snprintf(path, sizeof path, "%s/1-a/stdout", folder);
    FILE *kept = fopen(path, "r");
    assert_non_null(kept);
    assert_non_null(fgets(text, sizeof text, kept));
    fclose(kept);
    assert_string_equal(text, "out\n");
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_are_printed_whole_as_they_end),
        cmocka_unit_test(in_order_the_first_one_is_waited_for_up_to_the_window),
        cmocka_unit_test(bytes_fill_the_window_too),
        cmocka_unit_test(what_an_attempt_printed_is_forgotten_before_the_next),
        cmocka_unit_test(each_line_begins_with_the_tag_and_the_last_one_is_ended),
        cmocka_unit_test(much_is_printed_without_waiting_for_the_reader),
        cmocka_unit_test(files_that_stay_empty_are_used_again),
        cmocka_unit_test(results_are_kept_and_printed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
