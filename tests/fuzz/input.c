/* input.c - the items of a run: lines, zero-ended, CSV and TSV, with and without a header; and a command
 * filled in with each.  The first byte says which. */
#include "fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include "run/input.h"
#include "run/template.h"

static const run_format formats[] = {RUN_LINES, RUN_ZERO, RUN_CSV, RUN_TSV};

static void check_item(const run_item *item, uint64_t number)
{
    must(item->number == number && item->length <= RUN_ITEM_MAX && item->n_columns > 0);
    must(item->text[item->length] == '\0');
    fuzz_touch(item->text, item->length);
    for (size_t i = 0; i < item->n_columns; i++)
        fuzz_touch(item->columns[i], strlen(item->columns[i]));
}

static void fill(const run_template *t, const run_item *item)
{
    char error[200];
    char **argv = run_template_fill(t, item, 1, error, sizeof error);
    for (char **arg = argv; arg && *arg; arg++)
        fuzz_touch(*arg, strlen(*arg));
    if (!argv)
        fuzz_touch(error, strlen(error));
    free(argv);
}

static run_template *make_template(const run_input *input, run_format format, bool is_shell)
{
    static char echo[] = "echo", all[] = "{} {.} {/} {//} {/.} {#} {%}", columns[] = "{1} '{2/.}'";
    char *command[] = {echo, all, format == RUN_LINES || format == RUN_ZERO ? NULL : columns, NULL};
    char error[200];
    run_template_opts opts = {
        .command = command,
        .is_shell = is_shell,
        .format = format,
        .header = run_input_header(input),
    };
    return run_template_create(&opts, error, sizeof error);
}

static void read_all(const run_input_opts *opts, bool is_shell)
{
    run_input *input = run_input_open(opts);
    run_template *t = NULL;
    run_item *item;
    run_read rc;
    uint64_t n = 0, total;
    must(input);
    while ((rc = run_input_next(input, &item)) == RUN_READ_ITEM) {
        check_item(item, ++n);
        if (!t)
            t = make_template(input, opts->format, is_shell);
        if (t)
            fill(t, item);
        free(item);
        must(run_input_position(input, &total) <= total || total == 0);
    }
    must(rc == RUN_READ_END || rc == RUN_READ_ERROR);
    if (rc == RUN_READ_ERROR)
        fuzz_touch(run_input_error(input), strlen(run_input_error(input)));
    run_template_destroy(t);
    run_input_close(input);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = {data, size};
    uint8_t how = fuzz_byte(&f);
    char path[64];
    int fd = memfd_create("list", MFD_CLOEXEC);
    must(fd >= 0 && (f.left == 0 || write(fd, f.at, f.left) == (ssize_t)f.left));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    run_input_opts opts = {.path = path, .format = formats[how % 4], .has_header = how & 4};
    if (opts.format == RUN_LINES || opts.format == RUN_ZERO)
        opts.has_header = false; /* the settings refuse it */
    read_all(&opts, how & 8);
    close(fd);
    return 0;
}
