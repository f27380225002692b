/* command.c - what the subcommands share: complaints, stdout, monitors; see command.h. */
#include "command.h"
#include "text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

void complain(const char *command, const char *format, ...)
{
    char text[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    text_plain(text, strlen(text), '?'); /* it may quote what was said, or read */
    fflush(stdout); /* so that the two come in order where they go to one place */
    fprintf(stderr, "weir: %s%s%s\n", command ? command : "", command ? ": " : "", text);
}

/* ---- what was meant ------------------------------------------------------------------------- */

#define LONGEST 32

static size_t least(size_t a, size_t b, size_t c)
{
    size_t ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* How many letters to insert, remove, change or swap with the next to make b of a (Damerau, Levenshtein). */
static size_t distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b), d[LONGEST + 1][LONGEST + 1];
    if (n > LONGEST || m > LONGEST)
        return LONGEST;
    for (size_t i = 0; i <= n; i++) {
        for (size_t j = 0; j <= m; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            bool same = a[i - 1] == b[j - 1];
            d[i][j] = least(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + !same);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < d[i][j])
                d[i][j] = d[i - 2][j - 2] + 1;
        }
    }
    return d[n][m];
}

const char *nearest(const char *said, const char *(*next)(const void *ctx, size_t i),
                    const void *ctx)
{
    const char *best = NULL, *name;
    size_t best_distance = strlen(said) < 4 ? 2 : 3; /* more is another word */
    for (size_t i = 0; (name = next(ctx, i)); i++) {
        bool begins = strlen(said) >= 2 && strncmp(name, said, strlen(said)) == 0;
        size_t far = begins ? 0 : distance(said, name);
        if (far < best_distance && far < strlen(name)) {
            best = name;
            best_distance = far;
        }
    }
    return best;
}

/* ---- stdout --------------------------------------------------------------------------------- */

int write_stdout(void *ctx, const char *text, size_t length)
{
    (void)ctx;
    return fwrite(text, 1, length, stdout) == length ? 0 : -1;
}

bool flush_stdout(const char *command)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return true;
    complain(command, "cannot write to standard output: %s",
             errno ? strerror(errno) : "an earlier write failed");
    return false;
}

/* ---- monitors ------------------------------------------------------------------------------- */

static const char *folder_name(char *into, size_t size)
{
    const char *told = getenv("WEIR_STATS_DIR");
    if (told)
        return told;
    snprintf(into, size, "/dev/shm/weir-%ju-stats", (uintmax_t)geteuid());
    return into;
}

weir_monitor *open_monitor(const char *command, int64_t root_pid, size_t window, bool every_user)
{
    weir_monitor_opts opts = WEIR_MONITOR_OPTS_INIT;
    weir_monitor *monitor = NULL;
    opts.root_pid = root_pid;
    opts.window = window;
    opts.every_user = every_user;
    int rc = weir_monitor_create(&monitor, &opts);
    if (rc >= 0)
        return monitor;
    const char *told = getenv("WEIR_STATS_DIR");
    if (rc == WEIR_EINVAL && told && told[0])
        complain(command, "WEIR_STATS_DIR is too long for the path of a folder: %zu bytes",
                 strlen(told));
    else if (rc == WEIR_EINVAL && told)
        complain(command, "WEIR_STATS_DIR=\"\" is not the path of a folder: empty, it switches the "
                          "stats pages off");
    else
        complain(command, "cannot look at other processes: %s", weir_strerror(rc));
    return NULL;
}

bool look(const char *command, weir_monitor *monitor)
{
    char path[64];
    int rc = weir_monitor_look(monitor);
    if (rc == WEIR_EINVAL)
        complain(command,
                 "%s cannot be read: it has to be a folder of this user, with mode 0700 and not a "
                 "link",
                 folder_name(path, sizeof path));
    else if (rc < 0)
        complain(command, "cannot look at other processes: %s", weir_strerror(rc));
    return rc >= 0;
}

/* Not there yet: the first program makes it, but not what it lies in. */
static const char *missing_fault(const char *path)
{
    char above[512];
    const char *slash = strrchr(path, '/');
    int n = slash ? (int)(slash - path) : 0;
    snprintf(above, sizeof above, "%.*s", n > 0 ? n : 1, slash ? path : ".");
    if (access(above, F_OK) < 0)
        return "what it lies in is not there, and programs do not make that";
    return access(above, W_OK | X_OK) < 0 ? "it is not there, and cannot be made" : NULL;
}

/* Why no program of this user can show anything there, as far as that can be known; or NULL. */
static const char *folder_fault(const char *path)
{
    struct stat st;
    struct statvfs fs;
    if (stat(path, &st) < 0)
        return missing_fault(path);
    if (st.st_uid != geteuid())
        return "it belongs to somebody else, and only programs of that user can be seen there";
    if (access(path, W_OK | X_OK) < 0)
        return "it cannot be written to";
    if (statvfs(path, &fs) == 0 && (fs.f_bavail == 0 || (fs.f_files > 0 && fs.f_favail == 0)))
        return "its file system is full";
    return NULL;
}

void say_nobody(const char *command, int64_t root_pid)
{
    char own[64];
    const char *path = folder_name(own, sizeof own), *fault = folder_fault(path);
    if (root_pid)
        complain(command, "process %" PRId64 " shows nothing: it is not there, or uses no weir yet",
                 root_pid);
    else if (fault)
        complain(command, "no process shows anything in %s: %s", path, fault);
    else
        complain(command,
                 "no process shows anything in %s: start a program that uses weir, as this user%s",
                 path, getenv("WEIR_STATS_DIR") ? " and with the same WEIR_STATS_DIR" : "");
}
