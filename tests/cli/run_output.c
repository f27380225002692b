/* cli/run/output.h: what is printed, in which order, and what is held.  Ours is a pipe that the test reads. */
#include "parts.h"

#include "run/output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

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
    sheet = begin(output, "\033[31m\tr\302\233d \303\244");
    prints(sheet, "1\n");
    run_output_end(output, sheet);
    assert_string_equal(said(output), " [31m r  d \303\244\t1\n");
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

/* ---- by lines --------------------------------------------------------------------------------- */

static run_output *by_lines(run_output_opts opts)
{
    opts.mode = RUN_OUTPUT_LINES;
    return output_with(opts);
}

/* A job that runs: what it has for its stdout, which does not block this test. */
static int job(run_output *output, const char *tag, run_sheet **ret_sheet)
{
    *ret_sheet = begin(output, tag);
    int fd = dup(run_sheet_out(*ret_sheet));
    fcntl(fd, F_SETFL, O_NONBLOCK);
    run_output_started(output, *ret_sheet);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* As much of `left` bytes as the pipe takes now. */
static size_t pour(int fd, char c, size_t left)
{
    static char piece[4096];
    size_t poured = 0;
    memset(piece, c, sizeof piece);
    while (poured < left) {
        ssize_t n = write(fd, piece, left - poured < 4096 ? left - poured : 4096);
        if (n <= 0)
            break;
        poured += (size_t)n;
    }
    return poured;
}

static void lines_are_printed_whole_while_jobs_run(void **state)
{
    (void)state;
    redirect();
    run_sheet *sheet_a, *sheet_b;
    run_output *output = by_lines((run_output_opts){0});
    int a = job(output, "a", &sheet_a), b = job(output, "b", &sheet_b);
    assert_string_equal(said(output), "");
    say(a, "a1\na");
    assert_string_equal(said(output), "a1\n");
    say(b, "b1\n");
    assert_string_equal(said(output), "b1\n");
    assert_true(run_output_is_between(output));
    say(a, "2\na3");
    assert_string_equal(said(output), "a2\n");
    say(b, "b2");
    close(a);
    assert_string_equal(said(output), "a3\n"); /* nothing more can come */
    run_output_end(output, sheet_b);
    assert_string_equal(said(output), "b2\n");
    run_output_end(output, sheet_a);
    uint64_t bytes;
    assert_int_equal(run_output_held(output, &bytes), 0);
    assert_int_equal(bytes, 0);
    close(b);
    run_output_destroy(output);
    restore();
}

static void what_a_process_writes_that_has_outlived_its_job_is_not_waited_for(void **state)
{
    (void)state;
    redirect();
    run_sheet *sheet;
    run_output *output = by_lines((run_output_opts){0});
    int left_behind = job(output, "a", &sheet);
    say(left_behind, "a1\na2");
    run_output_end(output, sheet);
    say(left_behind, "late\n");
    assert_string_equal(said(output), "a1\na2\n");
    assert_int_equal(write(left_behind, "x", 1), -1); /* EPIPE */
    close(left_behind);
    run_output_destroy(output);
    restore();
}

static void a_line_of_any_length_takes_no_memory_and_lets_others_pass(void **state)
{
    (void)state;
    redirect();
    run_sheet *sheet_a, *sheet_b;
    run_output *output = by_lines((run_output_opts){.window_bytes = UINT64_MAX});
    int a = job(output, "a", &sheet_a), b = job(output, "b", &sheet_b);
    const size_t long_line = 3000000;
    for (size_t poured = 0; poured < long_line;) {
        poured += pour(a, 'a', long_line - poured);
        say(b, "b\n");
        assert_string_equal(said(output), "b\n");
    }
    say(a, "\n");
    uint64_t bytes;
    size_t printed = 0;
    static char some[70000];
    do {
        assert_true(run_output_print(output));
        for (ssize_t n; (n = read(ours[0], some, sizeof some)) > 0;) {
            for (ssize_t i = 0; i < n; i++)
                assert_int_equal(some[i], printed++ == long_line ? '\n' : 'a');
        }
        run_output_held(output, &bytes);
    } while (bytes > 0 || run_output_wants(output) >= 0);
    assert_int_equal(printed, long_line + 1);
    say(a, "short\n"); /* the file is empty, and in use again if there is need */
    assert_string_equal(said(output), "short\n");
    close(a);
    close(b);
    run_output_end(output, sheet_a);
    run_output_end(output, sheet_b);
    run_output_destroy(output);
    restore();
}

static void while_ours_is_full_jobs_are_not_read(void **state)
{
    (void)state;
    redirect();
    run_sheet *sheet;
    run_output *output = by_lines((run_output_opts){0});
    int a = job(output, "a", &sheet);
    size_t taken = 0;
    for (int i = 0; i < 20; i++) {
        for (int line = 0; line < 100; line++)
            taken += pour(a, '\n', 4096);
        assert_true(run_output_print(output));
    }
    assert_int_equal(run_output_wants(output), STDOUT_FILENO);
    assert_int_equal(run_output_fd(output), -1);
    assert_in_range(taken, 1, 5 * 65536); /* two pipes, the text, and the chunk */
    close(a);
    run_output_end(output, sheet);
    size_t printed = 0;
    static char some[70000];
    uint64_t bytes;
    do {
        assert_true(run_output_print(output));
        for (ssize_t n; (n = read(ours[0], some, sizeof some)) > 0;)
            printed += (size_t)n;
    } while (run_output_held(output, &bytes) > 0 || run_output_wants(output) >= 0);
    assert_int_equal(printed, taken);
    run_output_destroy(output);
    restore();
}

static void in_order_by_lines_the_first_is_live_and_others_are_kept_up_to_the_window(void **state)
{
    (void)state;
    redirect();
    run_sheet *sheet_a, *sheet_b;
    run_output *output = by_lines((run_output_opts){.keep_order = true, .window_bytes = 100000});
    int a = job(output, "a", &sheet_a), b = job(output, "b", &sheet_b);
    size_t taken = 0;
    for (int i = 0; i < 20; i++) {
        taken += pour(b, '\n', 65536);
        say(a, "a\n");
        assert_string_equal(said(output), "a\n");
    }
    assert_in_range(taken, 100000, 100000 + 3 * 65536);
    uint64_t bytes;
    run_output_held(output, &bytes);
    assert_in_range(bytes, 100000, 100000 + 65536);
    assert_false(run_output_has_room(output));
    run_output_suspended(output, sheet_a, true); /* who waits cannot be waited for */
    assert_string_equal(said(output), "");
    assert_true(pour(b, '\n', 65536) > 0);
    run_output_suspended(output, sheet_a, false);
    say(a, "end");
    run_output_end(output, sheet_a);
    size_t printed = 0;
    static char some[70000];
    assert_true(run_output_print(output));
    assert_true(read(ours[0], some, 4) == 4 && memcmp(some, "end\n", 4) == 0);
    close(b);
    run_output_end(output, sheet_b);
    do {
        assert_true(run_output_print(output));
        for (ssize_t n; (n = read(ours[0], some, sizeof some)) > 0;)
            printed += (size_t)n;
    } while (run_output_held(output, &bytes) > 0 || run_output_wants(output) >= 0);
    assert_in_range(printed, taken + 1, taken + 65536);
    close(a);
    run_output_destroy(output);
    restore();
}

static void by_lines_what_each_attempt_printed_is_printed_in_its_place(void **state)
{
    (void)state;
    redirect();
    run_sheet *sheet, *next;
    run_output *output = by_lines((run_output_opts){.keep_order = true});
    int first = job(output, "a", &sheet);
    int second = job(output, "b", &next);
    say(second, "b\n");
    say(first, "one\nbecause");
    close(first);
    run_output_again(output, sheet);
    assert_string_equal(said(output), "one\nbecause\n");
    assert_true(run_output_open(output, sheet, "a"));
    say(run_sheet_out(sheet), "two");
    first = dup(run_sheet_out(sheet));
    run_output_started(output, sheet);
    run_output_end(output, next);
    assert_string_equal(said(output), "");
    run_output_end(output, sheet);
    assert_string_equal(said(output), "two\nb\n");
    close(first);
    close(second);
    run_output_destroy(output);
    restore();
}

static void where_nobody_reads_jobs_can_end_all_the_same(void **state)
{
    (void)state;
    redirect();
    run_sheet *sheet;
    run_output *output = by_lines((run_output_opts){0});
    int a = job(output, "a", &sheet);
    close(ours[0]);
    say(a, "a\n");
    assert_false(run_output_print(output));
    assert_int_equal(errno, EPIPE);
    assert_string_equal(run_output_error(output), "cannot write to standard output: Broken pipe");
    for (int i = 0; i < 20; i++) {
        assert_int_equal(pour(a, '\n', 30000), 30000);
        assert_true(run_output_print(output));
    }
    close(a);
    run_output_end(output, sheet);
    uint64_t bytes;
    assert_true(run_output_print(output));
    assert_int_equal(run_output_held(output, &bytes), 0);
    run_output_destroy(output);
    ours[0] = open("/dev/null", O_RDONLY);
    restore();
}

static void no_more_are_begun_than_there_are_descriptors_for(void **state)
{
    (void)state;
    redirect();
    struct rlimit before, few = {100, 100};
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    run_output *output = by_lines((run_output_opts){.window_jobs = 1000});
    run_sheet *sheet[100];
    size_t n = 0;
    while (run_output_has_room(output)) {
        sheet[n] = begin(output, "a");
        run_output_started(output, sheet[n++]);
    }
    assert_in_range(n, 10, 24);
    while (n > 0)
        run_output_end(output, sheet[--n]);
    assert_true(run_output_has_room(output));
    run_output_destroy(output);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    restore();
}

static void by_lines_results_are_kept_whole(void **state)
{
    (void)state;
    char folder[] = "/tmp/weir-results-XXXXXX", path[64], command[64];
    assert_non_null(mkdtemp(folder));
    redirect();
    run_sheet *sheet;
    run_output *output = by_lines((run_output_opts){.results = folder});
    int a = job(output, "1-a", &sheet);
    say(a, "1\n2");
    assert_string_equal(said(output), "1\n");
    for (int i = 0; i < 10; i++) {
        assert_int_equal(pour(a, 'x', 20000), 20000);
        assert_string_equal(said(output), "");
    }
    close(a);
    run_output_end(output, sheet);
    size_t printed = 0;
    static char some[70000];
    uint64_t bytes;
    do {
        assert_true(run_output_print(output));
        for (ssize_t n; (n = read(ours[0], some, sizeof some)) > 0;)
            printed += (size_t)n;
    } while (run_output_held(output, &bytes) > 0 || run_output_wants(output) >= 0);
    assert_int_equal(printed, 1 + 200000 + 1);
    run_output_destroy(output);
    restore();
    struct stat about;
    snprintf(path, sizeof path, "%s/1-a/stdout", folder);
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(about.st_size, 3 + 200000);
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
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
        cmocka_unit_test(lines_are_printed_whole_while_jobs_run),
        cmocka_unit_test(what_a_process_writes_that_has_outlived_its_job_is_not_waited_for),
        cmocka_unit_test(a_line_of_any_length_takes_no_memory_and_lets_others_pass),
        cmocka_unit_test(while_ours_is_full_jobs_are_not_read),
        cmocka_unit_test(in_order_by_lines_the_first_is_live_and_others_are_kept_up_to_the_window),
        cmocka_unit_test(by_lines_what_each_attempt_printed_is_printed_in_its_place),
        cmocka_unit_test(where_nobody_reads_jobs_can_end_all_the_same),
        cmocka_unit_test(no_more_are_begun_than_there_are_descriptors_for),
        cmocka_unit_test(by_lines_results_are_kept_whole),
        cmocka_unit_test(results_are_kept_and_printed),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
