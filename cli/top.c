/* top.c - `weir top`: what every program that uses weir is doing, live.
 *
 * Look, make the rows, draw, wait for a key or for the next look; see top.h for who does what.
 */
#include "top.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "command.h"

#define WINDOW         30 /* looks */
#define FIRST_INTERVAL (300 * WEIR_MILLISECOND)

typedef struct top_options {
    double interval;
    int64_t pid, window;
    const char *filter, *sort;
    bool once, json, no_colour, reverse, flat, every_user;
} top_options;

/* ---- without a terminal --------------------------------------------------------------------- */

static void sleep_for(double seconds)
{
    struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&time, NULL);
}

static int width_of_stdout(bool *ret_is_terminal)
{
    struct winsize size;
    const char *told = getenv("COLUMNS");
    *ret_is_terminal = isatty(STDOUT_FILENO) == 1;
    if (*ret_is_terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    int width = told ? atoi(told) : 0;
    return width > 0 ? width : 80;
}

/* Two looks, so that there are rates. */
static int run_once(top_view *view, const top_options *options)
{
    if (!look("top", view->monitor))
        return EXIT_FAILURE;
    sleep_for(options->interval);
    if (!look("top", view->monitor))
        return EXIT_FAILURE;
    bool is_terminal, is_empty = weir_monitor_processes(view->monitor) == 0;
    int width = width_of_stdout(&is_terminal);
    if (is_empty)
        say_nobody("top", options->pid);
    if (options->json) {
        weir_monitor_write_json(view->monitor, false, write_stdout, NULL);
        write_stdout(NULL, "\n", 1);
    } else if (!is_empty && top_view_update(view)) {
        top_print(view, width, is_terminal);
    }
    return flush_stdout("top") ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* ---- on a terminal -------------------------------------------------------------------------- */

/* Both follow the terminal. */
static bool draw(top_view *view, cli_canvas *canvas)
{
    int rows, width;
    terminal_size(&rows, &width);
    bool fits = rows == canvas->rows && width == canvas->columns;
    if (!fits && !canvas_resize(canvas, rows > 0 ? rows : 1, width > 0 ? width : 1))
        return false;
    top_draw(view, canvas);
    terminal_show(canvas);
    return true;
}

/* Keys, until it is time to look again.  false: that is all. */
static bool follow_keys(top_view *view, cli_canvas *canvas, int64_t looked)
{
    for (;;) {
        int64_t until = looked + (int64_t)(view->interval * 1e9);
        int key = terminal_key(view->paused ? weir_now() + WEIR_SECOND : until);
        if (key == TERMINAL_TIME)
            return true;
        if (key == TERMINAL_END || !top_key(view, key) || !draw(view, canvas))
            return false;
    }
}

static int run_live(top_view *view, bool may_colour)
{
    cli_canvas canvas = {0};
    int rc = WEIR_OK;
    bool was_old = false;
    if (!look("top", view->monitor))
        return EXIT_FAILURE; /* and said so, before the screen is taken */
    if (!terminal_open(may_colour))
        return EXIT_USAGE;
    /* The second look comes soon: only then are there rates. */
    int64_t looked = weir_now() - (int64_t)(view->interval * 1e9) + FIRST_INTERVAL;
    for (;;) {
        if (!top_view_update(view) || !draw(view, &canvas) || !follow_keys(view, &canvas, looked))
            break;
        looked = weir_now();
        if (!view->paused)
            rc = weir_monitor_look(view->monitor);
        if (rc < 0)
            snprintf(view->notice, sizeof view->notice, "this is old: cannot look: %s",
                     weir_strerror(rc));
        else if (was_old)
            view->notice[0] = '\0';
        was_old = rc < 0;
    }
    terminal_close();
    canvas_fini(&canvas);
    return EXIT_SUCCESS;
}

/* ---- the command ---------------------------------------------------------------------------- */

static bool choose_order(top_view *view, const char *name)
{
    view->in_order = !name;
    if (!name)
        return true;
    view->sort = columns_find(name);
    if (view->sort != COLUMNS)
        return true;
    const char *meant = nearest(name, columns_name, NULL);
    fprintf(stderr, "weir: top: --sort: there is no column \"%s\"%s%s%s; there are", name,
            meant ? " (did you mean " : "", meant ? meant : "", meant ? "?)" : "");
    for (size_t i = 0; columns_name(NULL, i); i++)
        fprintf(stderr, " %s", columns_name(NULL, i));
    fputc('\n', stderr);
    return false;
}

static int run(int argc, char *argv[])
{
    top_options options = {.interval = 1, .window = WINDOW, .filter = ""};
    const option_row rows[] = {
        {'d', "interval", "SECONDS", OPTION_SECONDS, &options.interval, 0.1, 3600,
         "look so often (default 1)"},
        {'p', "pid", "PID", OPTION_NUMBER, &options.pid, 1, INT32_MAX,
         "only this process, and what descends from it"},
        {'f', "filter", "TEXT", OPTION_TEXT, &options.filter, 0, 0,
         "only what has it in its name, kind or command, or as its pid"},
        {'s', "sort", "COLUMN", OPTION_TEXT, &options.sort, 0, 0,
         "name kind depth in out drop blocked starved wait service workers"},
        {'r', "reverse", NULL, OPTION_FLAG, &options.reverse, 0, 0, "sort the other way round"},
        {'l', "list", NULL, OPTION_FLAG, &options.flat, 0, 0,
         "one list, not objects below their processes"},
        {'w', "window", "LOOKS", OPTION_NUMBER, &options.window, 2, 1000,
         "percentiles, issues and charts are of so many (default 30)"},
        {'a', "all-users", NULL, OPTION_FLAG, &options.every_user, 0, 0,
         "of all users whose numbers can be read (root: all)"},
        {'1', "once", NULL, OPTION_FLAG, &options.once, 0, 0, "look twice, print a table, and end"},
        {'j', "json", NULL, OPTION_FLAG, &options.json, 0, 0,
         "the same as JSON, with all numbers and without filter"},
        {'\0', "no-color", NULL, OPTION_FLAG, &options.no_colour, 0, 0,
         "no colours (also if NO_COLOR is set)"},
        OPTIONS_END,
    };
    int status = options_read(&command_top, rows, argc, argv);
    if (status != GO_ON)
        return status;
    top_view view = {.interval = options.interval,
                     .window = (size_t)options.window,
                     .tree = !options.flat,
                     .reverse = options.reverse};
    snprintf(view.filter, sizeof view.filter, "%s", options.filter);
    if (!choose_order(&view, options.sort))
        return EXIT_USAGE;
    view.monitor = open_monitor("top", options.pid, view.window, options.every_user);
    if (!view.monitor)
        return EXIT_FAILURE;
    status = options.once || options.json ? run_once(&view, &options)
                                          : run_live(&view, !options.no_colour);
    top_view_fini(&view);
    weir_monitor_destroy(view.monitor);
    return status;
}

const cli_command command_top = {
    .name = "top",
    .summary = "what every program that uses weir is doing, live",
    .about =
        "Shows the queues, pools, stages and limits of all programs of this user that use weir:\n"
        "how full they are, what flows, who waits, and what holds everything back.\n",
    .run = run,
};
