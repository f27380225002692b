/* dry_run.c - the commands as they would be run, so that a shell would read them. */
#include "command.h"
#include "state.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* So that a shell would read it as this one argument. */
static void print_quoted(const char *s)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-+=:,./@%^";
    if (*s && s[strspn(s, plain)] == '\0') {
        fputs(s, stdout);
        return;
    }
    putchar('\'');
    for (; *s; s++) {
        if (*s == '\'')
            fputs("'\\''", stdout);
        else
            putchar(*s);
    }
    putchar('\'');
}

static bool print_job(const run *r, const run_task *t)
{
    char error[256];
    char **argv = run_template_fill(r->template, t->item, 1, error, sizeof error);
    if (!argv) {
        fflush(stdout);
        complain("run", "item %" PRIu64 ": %s", t->item->number, error);
        return false;
    }
    for (char **arg = argv; *arg; arg++) {
        if (arg != argv)
            putchar(' ');
        print_quoted(*arg);
    }
    putchar('\n');
    free(argv);
    return true;
}

int run_print_jobs(run *r)
{
    int status = EXIT_SUCCESS;
    while (!r->input_ended && !r->is_broken && !ferror(stdout)) {
        run_task *t = run_task_read(r);
        struct pollfd more = {.fd = run_input_fd(r->input), .events = POLLIN};
        if (t && !print_job(r, t))
            status = EXIT_ITEMS_FAILED;
        if (!t && !r->input_ended && !r->is_broken)
            poll(&more, 1, -1);
        run_task_free(t);
    }
    run_report_flush(&r->report);
    return !flush_stdout("run") || r->is_broken ? EXIT_FAILURE : status;
}
