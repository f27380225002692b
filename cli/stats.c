/* stats.c - `weir stats`: all numbers of all objects, once: for people, or for programs. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "text.h"

static void print_number(const char *name, uint64_t value)
{
    if (value == UINT64_MAX)
        printf("    %-22s no bound\n", name);
    else
        printf("    %-22s %" PRIu64 "\n", name, value);
}

/* What is 0 is left out: most numbers are those of other kinds. */
static void print_numbers(const weir_stats_record *record)
{
    for (int n = 0; n < WEIR_STATS_NUMBERS; n++) {
        const char *name = weir_stats_number_name(n);
        bool always = n == WEIR_STATS_ACCEPTED || n == WEIR_STATS_DELIVERED ||
                      (n == WEIR_STATS_DEPTH && record->kind != WEIR_STATS_SHARED_QUEUE);
        if (name && (record->number[n] || always))
            print_number(name, record->number[n]);
    }
}

static void print_times(const char *name, const weir_stats_times *times)
{
    uint64_t count = weir_stats_times_count(times);
    if (count == 0)
        return;
    printf("    %-22s p50 %s  p90 %s  p99 %s  max %s  (of about %" PRIu64 ")\n", name,
           text_time((double)weir_stats_percentile(times, 0.5)).s,
           text_time((double)weir_stats_percentile(times, 0.9)).s,
           text_time((double)weir_stats_percentile(times, 0.99)).s,
           text_time((double)times->max_ns).s, count);
}

static void print_object(const weir_monitor_object *object)
{
    const weir_stats_record *record = object->record;
    printf("  %s ", weir_stats_kind_name((int)record->kind));
    text_print(record->name[0] ? record->name : "(no name)", -1);
    putchar('\n');
    print_numbers(record);
    print_times("wait", &record->wait);
    print_times("service", &record->service);
}

static void print_all(const weir_monitor *monitor)
{
    size_t processes = weir_monitor_processes(monitor);
    for (size_t i = 0; i < processes; i++) {
        const weir_monitor_process *process = weir_monitor_process_at(monitor, i);
        printf("%s%" PRId64 "  %s  ", i ? "\n" : "", process->process.pid,
               text_bytes((double)process->process.rss_bytes).s);
        text_print(process->process.command, -1);
        putchar('\n');
        for (size_t j = 0; j < process->objects; j++)
            print_object(weir_monitor_object_at(monitor, process->first + j));
        if (process->process.unrecorded)
            printf("  and %s without a record\n", text_objects(process->process.unrecorded).s);
    }
}

static int run(int argc, char *argv[])
{
    int64_t pid = 0;
    bool json = false, openmetrics = false, every_user = false;
    const option_row rows[] = {
        {'j', "json", NULL, OPTION_FLAG, &json, 0, 0, "as JSON"},
        {'o', "openmetrics", NULL, OPTION_FLAG, &openmetrics, 0, 0, "as OpenMetrics text"},
        {'p', "pid", "PID", OPTION_NUMBER, &pid, 1, INT32_MAX,
         "only this process, and what descends from it"},
        {'a', "all-users", NULL, OPTION_FLAG, &every_user, 0, 0,
         "of all users whose numbers can be read (root: all)"},
        OPTIONS_END,
    };
    int status = options_read(&command_stats, rows, argc, argv);
    if (status != GO_ON)
        return status;
    if (json && openmetrics) {
        complain("stats", "--json or --openmetrics: one of them");
        return EXIT_USAGE;
    }
    weir_monitor *monitor = open_monitor("stats", pid, 2, every_user);
    if (!monitor)
        return EXIT_FAILURE;
    status = EXIT_FAILURE;
    if (look("stats", monitor)) {
        if (weir_monitor_processes(monitor) == 0)
            say_nobody("stats", pid);
        if (json)
            weir_monitor_write_json(monitor, false, write_stdout, NULL);
        else if (openmetrics)
            weir_monitor_write_openmetrics(monitor, write_stdout, NULL);
        else
            print_all(monitor);
        if (json)
            write_stdout(NULL, "\n", 1);
        status = flush_stdout("stats") ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    weir_monitor_destroy(monitor);
    return status;
}

const cli_command command_stats = {
    .name = "stats",
    .summary = "all numbers, once: as text, JSON or OpenMetrics",
    .about = "Prints the numbers of all objects of all programs of this user that use weir.\n"
             "Numbers that are 0 are left out of the text.\n",
    .run = run,
};
