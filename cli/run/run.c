/* run.c - `weir run`: a command for each item of a list; begins a run, and ends it. */
#include "command.h"
#include "descriptors.h"
#include "guard.h"
#include "process.h"
#include "signals.h"
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* ---- beginning ------------------------------------------------------------------------------ */

static bool find_in(const char *folder, size_t length, const char *name, char to[PATH_MAX])
{
    int n = snprintf(to, PATH_MAX, "%.*s%s%s", (int)length, folder, length ? "/" : "", name);
    return n < PATH_MAX && access(to, X_OK) == 0;
}

/* Looks for it once, not for each job. */
static bool find_program(const char *name, char to[PATH_MAX])
{
    const char *path = getenv("PATH");
    if (strchr(name, '/'))
        return find_in("", 0, name, to);
    for (path = path ? path : "/usr/bin:/bin";; path++) {
        size_t length = strcspn(path, ":");
        if (find_in(length ? path : ".", length ? length : 1, name, to))
            return true;
        path += length;
        if (!*path)
            return false;
    }
}

static bool open_input(run *r, int *ret_status)
{
    const char *path = r->settings.input.path;
    r->input = run_input_open(&r->settings.input);
    if (!r->input) {
        complain("run", "--input: %s: %s", path ? path : "standard input", strerror(errno));
        *ret_status = EXIT_FAILURE;
        return false;
    }
    run_report_begin(&r->report, &r->settings, &r->schedule, r->input);
    if (!r->settings.input.has_header && !run_parse_command(r, ret_status))
        return false;
    const char *name = r->settings.is_shell ? "/bin/sh" : r->settings.command[0];
    if (r->settings.dry_run)
        return true;
    bool is_open =
        !r->settings.is_shell && (!r->template || run_template_is_program_open(r->template));
    if (is_open || find_program(name, r->program))
        return true;
    complain("run",
             strchr(name, '/') ? "%s is no program that can be run"
                               : "there is no program \"%s\" in PATH",
             name);
    *ret_status = EXIT_NO_PROGRAM;
    return false;
}

static void clear_progress(void *ctx)
{
    run_report_clear(ctx);
}

static bool open_output(run *r)
{
    run_descriptors_raise();
    r->output = run_output_create(&r->settings.output);
    if (r->output)
        run_output_before(r->output, clear_progress, &r->report);
    else if (r->settings.output.results)
        complain("run", "--results: %s: %s", r->settings.output.results, strerror(errno));
    else
        complain("run", "cannot begin: %s", strerror(errno));
    return r->output != NULL;
}

static bool watch(run *r, int fd, uint32_t what)
{
    struct epoll_event wanted = {.events = EPOLLIN, .data.u32 = what};
    return fd >= 0 && epoll_ctl(r->events, EPOLL_CTL_ADD, fd, &wanted) == 0;
}

/* After the place was opened, so that jobs do not have these blocked. */
static int open_signals(void)
{
    sigset_t ours;
    sigemptyset(&ours);
    sigaddset(&ours, SIGINT);
    run_signals_want(&ours, SIGQUIT);
    run_signals_want(&ours, SIGTERM);
    run_signals_want(&ours, SIGHUP);
    run_signals_want(&ours, SIGTSTP);
    sigaddset(&ours, SIGUSR1);
    sigaddset(&ours, RUN_ORPHANED);
    sigprocmask(SIG_BLOCK, &ours, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void say(void *ctx, const char *sentence)
{
    (void)ctx;
    complain("run", "%s", sentence);
}

/* The command as it was typed, as far as there is room; for who reads the ledger. */
static void print_command(const run *r, char *to, size_t size)
{
    *to = '\0';
    for (char *const *word = r->settings.command; *word; word++)
        snprintf(to + strlen(to), size - strlen(to), "%s%s", *to ? " " : "", *word);
}

static bool open_ledger(run *r)
{
    char error[512], command[1024];
    if (!r->settings.ledger)
        return true;
    print_command(r, command, sizeof command);
    const run_ledger_opts opts = {
        .path = r->settings.ledger,
        .resume = r->settings.resume,
        .command = command,
        .schedule = &r->settings.schedule,
        .front = r->front,
        .say = say,
    };
    r->ledger = run_ledger_open(&opts, error, sizeof error);
    if (!r->ledger)
        complain("run", "%s", error);
    return r->ledger != NULL;
}

static void hint(weir_pending *pending, int result)
{
    (void)pending, (void)result; /* nobody but this thread changes the rate */
}

static bool open_rate(run *r)
{
    weir_rate_opts opts = WEIR_RATE_OPTS_INIT;
    if (!r->settings.rate)
        return true;
    r->turn.ready = hint;
    opts.rate = r->settings.rate;
    opts.per_ns = r->settings.rate_per_ns;
    opts.burst = 1; /* a start is a start: no rush after a pause */
    return weir_rate_create(&r->rate, &opts) == WEIR_OK;
}

static bool open_memory(run *r)
{
    int error;
    if (!r->settings.memory)
        return true;
    r->memory = run_memory_open(r->settings.memory, r->settings.job_bytes, &error);
    r->report.memory = r->memory;
    if (!r->memory)
        complain("run", "--memory: %s: %s", r->settings.memory, weir_strerror(error));
    return r->memory != NULL;
}

static const char *base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static bool open_all(run *r)
{
    r->place = run_local_open(&r->mask);
    r->events = epoll_create1(EPOLL_CLOEXEC);
    r->signals = open_signals();
    r->nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (!r->place || r->events < 0 || r->nothing < 0 ||
        !watch(r, r->place->type->watch(r->place), EVENT_JOBS) ||
        !watch(r, r->signals, EVENT_SIGNALS) || !open_rate(r)) {
        complain("run", "cannot begin: %s", strerror(errno));
        return false;
    }
    r->teller = run_teller_open(r->settings.name ? r->settings.name : base(r->settings.command[0]));
    return true;
}

/* ---- ending --------------------------------------------------------------------------------- */

static int status_of(const run *r)
{
    const run_schedule *s = &r->schedule;
    if (r->stopped_by)
        return EXIT_SIGNAL + r->stopped_by;
    if (r->is_broken)
        return EXIT_FAILURE;
    if (s->halted && !s->has_enough)
        return EXIT_HALTED;
    bool has_failed = s->failed > 0 || s->failed_before > 0;
    return has_failed && !s->has_enough ? EXIT_ITEMS_FAILED : EXIT_SUCCESS;
}

static void close_all(run *r)
{
    run_memory_close(r->memory);
    if (r->in_line)
        weir_rate_cancel(r->rate, &r->turn);
    weir_rate_destroy(r->rate);
    run_teller_close(r->teller);
    run_ledger_close(r->ledger);
    if (r->place)
        r->place->type->close(r->place);
    run_output_destroy(r->output);
    run_template_destroy(r->template);
    run_input_close(r->input);
    free(r);
}

static int run_all(run *r)
{
    int status = EXIT_FAILURE;
    if (!open_input(r, &status)) {
        run_report_flush(&r->report);
        return status;
    }
    if (r->settings.dry_run)
        return run_print_jobs(r);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error of a write */
    if (!open_output(r) || !open_memory(r) || !open_ledger(r) || !open_all(r))
        return EXIT_FAILURE;
    r->now = weir_now();
    r->born = run_process_start(getpid());
    r->kills = run_memory_kills();
    r->check = WEIR_FOREVER;
    run_loop(r);
    status = status_of(r);
    bool read_all = r->input_ended && !*run_input_error(r->input);
    run_report_end(&r->report, read_all,
                   r->is_orphaned          ? "the process in front of it was killed"
                   : status == EXIT_HALTED ? "ended by --halt"
                                           : NULL);
    run_report_clear(&r->report);
    run_report_flush(&r->report);
    return status;
}

static int run_command(int argc, char *argv[])
{
    run *r = calloc(1, sizeof *r);
    if (!r) {
        complain("run", "out of memory");
        return EXIT_FAILURE;
    }
    r->events = -1;
    sigprocmask(SIG_BLOCK, NULL, &r->mask);
    int status = run_settings_read(&r->settings, argc, argv);
    bool is_guarded = r->settings.ledger || r->settings.memory;
    if (status == GO_ON && is_guarded && !r->settings.dry_run)
        status = run_guard(&r->settings, &r->front);
    if (status == GO_ON) {
        r->schedule.opts = r->settings.schedule;
        status = run_jobs_begin(r) ? run_all(r) : EXIT_USAGE;
    }
    close_all(r);
    return status;
}

const cli_command command_run = {
    .name = "run",
    .summary = "a command for each item of a list, so many at a time",
    .about = "Runs COMMAND once for each item; the item takes the place of {} or comes last.\n"
             "{.} without extension, {/} without folder, {//} the folder, {/.} neither,\n"
             "{#} number, {%} slot, {1} {name} column, {1/.} and so on.\n",
    .run = run_command,
    .operands = "[--] COMMAND [ARG | {}]... [::: ITEM...]",
};
