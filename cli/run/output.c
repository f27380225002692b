/* output.c - sheets, the line they stand in, and printing; see output.h.
 *
 * The line is those that can be printed, or come before one that can: with keep_order a sheet comes into it when it
 * is begun, else when its job has ended.
 */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK ((size_t)64 << 10) /* bytes that are read at once */
#define TAG   255                /* bytes of it that are printed */

enum { OUT, ERR, STREAMS };

struct run_sheet {
    run_sheet *next;
    int fd[STREAMS];
    uint64_t bytes[STREAMS]; /* when it has ended */
    bool has_ended;
    bool is_kept; /* its files have names */
    size_t tag_length;
    char tag[];
};

typedef struct files {
    int fd[STREAMS];
} files;

struct run_output {
    run_output_opts opts;
    run_sheet *first, **last;
    size_t held; /* sheets that have ended, and are not printed */
    uint64_t held_bytes;
    files *spare; /* empty files */
    size_t n_spare, room_spare;
    bool is_file[STREAMS]; /* ours: never has to be waited for */
    int stream;            /* of the first sheet, that is being printed */
    uint64_t offset;       /* in it: before this all is in the chunk, or printed */
    bool in_line;          /* what was put into the chunk last ends inside a line */
    int waits;             /* for ours: 1 or 2; 0: no */
    size_t begin, end;     /* of what is left of the chunk */
    char *chunk;           /* CHUNK, and room for tags */
    char folder[PATH_MAX]; /* for files without a name */
};

/* ---- creating ------------------------------------------------------------------------------- */

static bool is_file(int fd)
{
    struct stat about;
    return fstat(fd, &about) == 0 && S_ISREG(about.st_mode);
}

run_output *run_output_create(const run_output_opts *opts)
{
    run_output *output = calloc(1, sizeof *output);
    if (!output)
        return NULL;
    const char *folder = getenv("TMPDIR");
    output->opts = *opts;
    output->last = &output->first;
    output->chunk = malloc(CHUNK);
    output->is_file[OUT] = is_file(STDOUT_FILENO);
    output->is_file[ERR] = is_file(STDERR_FILENO);
    snprintf(output->folder, sizeof output->folder, "%s", folder && *folder ? folder : "/tmp");
    bool ok = output->chunk != NULL;
    if (opts->results)
        ok = ok && (mkdir(opts->results, 0777) == 0 || errno == EEXIST);
    if (ok)
        return output;
    int why = errno;
    run_output_destroy(output);
    errno = why;
    return NULL;
}

static void close_files(const int fd[STREAMS])
{
    for (int i = 0; i < STREAMS; i++) {
        if (fd[i] > STDERR_FILENO)
            close(fd[i]);
    }
}

void run_output_destroy(run_output *output)
{
    if (!output)
        return;
    while (output->first) {
        run_sheet *next = output->first->next;
        close_files(output->first->fd);
        free(output->first);
        output->first = next;
    }
    while (output->n_spare > 0)
        close_files(output->spare[--output->n_spare].fd);
    free(output->spare);
    free(output->chunk);
    free(output);
}

/* ---- files ---------------------------------------------------------------------------------- */

/* Appended to, so that a job that opens /dev/stdout again writes behind what is there, too. */
static int open_nameless(const char *folder)
{
    int fd = open(folder, O_TMPFILE | O_RDWR | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
        return fd;
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/weir-XXXXXX", folder);
    fd = mkostemp(path, O_APPEND | O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    return fd;
}

static int open_named(const run_output *output, const char *name, const char *file)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", output->opts.results, name);
    if (n < 0 || (size_t)n + strlen(file) + 2 > sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    if (mkdir(path, 0777) < 0 && errno != EEXIST)
        return -1;
    snprintf(path + n, sizeof path - (size_t)n, "/%s", file);
    return open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
}

bool run_output_open(run_output *output, run_sheet *sheet, const char *name)
{
    static const char *const file[STREAMS] = {"stdout", "stderr"};
    if (output->opts.mode == RUN_OUTPUT_DIRECT) {
        sheet->fd[OUT] = STDOUT_FILENO;
        sheet->fd[ERR] = STDERR_FILENO;
        return true;
    }
    if (!output->opts.results && output->n_spare > 0) {
        memcpy(sheet->fd, output->spare[--output->n_spare].fd, sizeof sheet->fd);
        return true;
    }
    sheet->is_kept = output->opts.results != NULL;
    for (int i = 0; i < STREAMS; i++) {
        sheet->fd[i] =
            sheet->is_kept ? open_named(output, name, file[i]) : open_nameless(output->folder);
        if (sheet->fd[i] < 0) {
            int why = errno;
            close_files(sheet->fd);
            sheet->fd[OUT] = sheet->fd[ERR] = -1;
            errno = why;
            return false;
        }
    }
    return true;
}

/* Nothing was written to it: the next one may have it.  (What a job leaves behind was killed before.) */
static bool keep_spare(run_output *output, const int fd[STREAMS])
{
    if (output->n_spare == output->room_spare) {
        size_t room = 2 * output->room_spare + 16;
        files *larger = realloc(output->spare, room * sizeof *larger);
        if (!larger)
            return false;
        output->spare = larger;
        output->room_spare = room;
    }
    memcpy(output->spare[output->n_spare++].fd, fd, sizeof output->spare->fd);
    return true;
}

/* ---- sheets --------------------------------------------------------------------------------- */

bool run_output_has_room(const run_output *output)
{
    return output->held < output->opts.window_jobs &&
           output->held_bytes < output->opts.window_bytes;
}

static void append(run_output *output, run_sheet *sheet)
{
    sheet->next = NULL;
    *output->last = sheet;
    output->last = &sheet->next;
}

run_sheet *run_output_begin(run_output *output, const char *tag)
{
    size_t length = output->opts.is_tagged ? strnlen(tag, TAG) : 0;
    run_sheet *sheet = malloc(sizeof *sheet + length + 1);
    if (!sheet)
        return NULL;
    *sheet = (run_sheet){.fd = {-1, -1}, .tag_length = length};
    memcpy(sheet->tag, tag, length);
    sheet->tag[length] = '\t';
    for (size_t i = 0; i < length; i++) /* a tag is one line, whatever is in the item */
        sheet->tag[i] = sheet->tag[i] == '\n' ? ' ' : sheet->tag[i];
    if (output->opts.keep_order)
        append(output, sheet);
    return sheet;
}

int run_sheet_out(const run_sheet *sheet)
{
    return sheet->fd[OUT];
}

int run_sheet_err(const run_sheet *sheet)
{
    return sheet->fd[ERR];
}

/* They go to the next one if they are empty, and are closed if not. */
static void give_up_files(run_output *output, run_sheet *sheet, bool are_empty)
{
    bool is_spare = are_empty && !sheet->is_kept && sheet->fd[OUT] > STDERR_FILENO;
    if (!is_spare || !keep_spare(output, sheet->fd))
        close_files(sheet->fd);
    sheet->fd[OUT] = sheet->fd[ERR] = -1;
}

void run_output_again(run_output *output, run_sheet *sheet)
{
    give_up_files(output, sheet, false);
}

static void release(run_output *output, run_sheet *sheet)
{
    give_up_files(output, sheet, sheet->bytes[OUT] + sheet->bytes[ERR] == 0);
    free(sheet);
}

static void measure(run_sheet *sheet)
{
    for (int i = 0; i < STREAMS; i++) {
        struct stat about;
        sheet->bytes[i] =
            sheet->fd[i] >= 0 && fstat(sheet->fd[i], &about) == 0 ? (uint64_t)about.st_size : 0;
    }
}

void run_output_end(run_output *output, run_sheet *sheet)
{
    sheet->has_ended = true;
    if (output->opts.mode == RUN_OUTPUT_GROUPED)
        measure(sheet);
    uint64_t bytes = sheet->bytes[OUT] + sheet->bytes[ERR];
    if (!output->opts.keep_order) {
        if (bytes == 0) {
            release(output, sheet);
            return;
        }
        append(output, sheet);
    }
    output->held++;
    output->held_bytes += bytes;
    if (bytes == 0)
        give_up_files(output, sheet, true); /* it waits for its turn without any */
}

/* ---- printing ------------------------------------------------------------------------------- */

/* From the file into the chunk: as it is, or each line with its tag, and the last one with an end. */
static void load(run_output *output, const run_sheet *sheet)
{
    uint64_t left = sheet->bytes[output->stream] - output->offset;
    size_t room = sheet->tag_length ? CHUNK / 2 : CHUNK;
    size_t want = left < room ? (size_t)left : room;
    char *from = output->chunk + CHUNK - want;
    ssize_t n = want ? pread(sheet->fd[output->stream], from, want, (off_t)output->offset) : 0;
    output->begin = output->end = 0;
    if (n <= 0) {
        output->offset = sheet->bytes[output->stream]; /* somebody has cut it */
        if (output->in_line && sheet->tag_length)
            output->chunk[output->end++] = '\n';
        output->in_line = false;
        return;
    }
    if (!sheet->tag_length) {
        memmove(output->chunk, from, (size_t)n);
        output->end = (size_t)n;
        output->offset += (size_t)n;
        return;
    }
    size_t at = 0;
    for (; at < (size_t)n; at++) {
        size_t needs = output->in_line ? 1 : sheet->tag_length + 2;
        if (output->end + needs > (size_t)(from - output->chunk) + at)
            break; /* the rest is read again */
        if (!output->in_line) {
            memcpy(output->chunk + output->end, sheet->tag, sheet->tag_length + 1);
            output->end += sheet->tag_length + 1;
        }
        output->chunk[output->end++] = from[at];
        output->in_line = from[at] != '\n';
    }
    output->offset += at;
}

static bool can_write(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    return poll(&ready, 1, 0) != 0;
}

/* 1: all of the chunk is written; 0: it would have to wait; -1: it cannot, and errno says why. */
static int write_chunk(run_output *output)
{
    int fd = output->stream == OUT ? STDOUT_FILENO : STDERR_FILENO;
    bool never_waits = output->is_file[output->stream];
    output->waits = 0;
    while (output->begin < output->end) {
        size_t n = output->end - output->begin;
        if (!never_waits && !can_write(fd)) {
            output->waits = fd;
            return 0;
        }
        if (!never_waits && n > PIPE_BUF)
            n = PIPE_BUF; /* so much can be written to a pipe that can be written to */
        ssize_t written = write(fd, output->chunk + output->begin, n);
        if (written < 0 && errno != EINTR && errno != EAGAIN)
            return -1;
        output->begin += written > 0 ? (size_t)written : 0;
    }
    return 1;
}

static void leave(run_output *output)
{
    run_sheet *sheet = output->first;
    output->first = sheet->next;
    if (!output->first)
        output->last = &output->first;
    output->held--;
    output->held_bytes -= sheet->bytes[OUT] + sheet->bytes[ERR];
    output->stream = OUT;
    output->offset = 0;
    release(output, sheet);
}

bool run_output_print(run_output *output)
{
    for (;;) {
        int rc = write_chunk(output);
        if (rc <= 0)
            return rc == 0;
        run_sheet *sheet = output->first;
        if (!sheet || !sheet->has_ended)
            return true;
        if (output->offset < sheet->bytes[output->stream] || output->in_line) {
            load(output, sheet);
        } else if (output->stream == OUT) {
            output->stream = ERR;
            output->offset = 0;
        } else {
            leave(output);
        }
    }
}

int run_output_wants(const run_output *output)
{
    return output->waits ? output->waits : -1;
}

bool run_output_is_between(const run_output *output)
{
    return output->begin == output->end && output->stream == OUT && output->offset == 0;
}

size_t run_output_held(const run_output *output, uint64_t *ret_bytes)
{
    *ret_bytes = output->held_bytes;
    return output->held;
}
