/* output.c - sheets, the line they stand in, and printing; see output.h.
 *
 * The line is those that can be printed, or come before one that can: with keep_order a sheet comes into it when it
 * is begun, else when its job has ended.  By lines, pipes of those that run are printed as they become readable.
 *
 * One stream is printed at a time, the current one, and as long as there is one nothing else is read.
 */
#include "output.h"
#include "stream.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define CHUNK    ((size_t)64 << 10) /* bytes that are read at once */
#define TAG      255                /* bytes of it that are printed */
#define TURN     64                 /* chunks that are printed before something else is looked at */
#define RESERVED 40                 /* descriptors that are not for sheets */
#define PAGE     4096               /* bytes */

enum { OUT, ERR, STREAMS };

struct run_sheet {
    run_sheet *next;
    run_stream stream[STREAMS];
    bool is_running, is_suspended, has_ended;
    uint64_t fulls; /* of the output, when the attempt began */
    size_t tag_length;
    char tag[];
};

typedef struct files {
    int fd[STREAMS];
} files;

struct run_output {
    run_output_opts opts;
    run_sheet *first, **last;
    size_t sheets,
        max_sheets; /* that were begun and are not printed; that there are descriptors for */
    size_t held;    /* sheets that have ended, and are not printed */
    uint64_t kept;  /* bytes */
    files *spare;   /* empty files */
    size_t n_spare, room_spare;
    int pipes;       /* an epoll of those that are read; -1: none are */
    bool is_holding; /* those of others than the first one are not */
    int ours[STREAMS];
    bool may_block[STREAMS]; /* ours: has to be asked before it is written to */
    bool ends[STREAMS];      /* an unfinished line is ended */
    run_sheet *current;      /* that is being printed; NULL: none is */
    int stream;              /* of the current one */
    int waits;               /* for ours: 1 or 2; 0: no */
    bool in_line;            /* what was put into the chunk last ends inside a line */
    bool is_busy;
    bool is_lost;      /* it cannot be printed, or kept: all is dropped */
    bool is_cut;       /* it could not be kept */
    uint64_t fulls;    /* how often there was no room on the disk for jobs to write */
    int chunk_of;      /* a stream */
    size_t begin, end; /* of what is left of the chunk */
    char *chunk;       /* CHUNK, and the end of a line */
    void (*before)(void *ctx);
    void *ctx;
    char folder[PATH_MAX]; /* for files without a name */
    char place[PATH_MAX + 16];
    char keep[PATH_MAX + 64];
    char error[PATH_MAX + 160];
};

static bool is_by_lines(const run_output *output)
{
    return output->opts.mode == RUN_OUTPUT_LINES;
}

/* ---- creating ------------------------------------------------------------------------------- */

/* A file never has to be waited for.  A pipe we open a second time, so that it does not block us: the descriptor that
 * we were given may be that of others, too, and they expect it to block. */
static void open_ours(run_output *output, int i, int fd)
{
    char path[32];
    struct stat about;
    bool is_known = fstat(fd, &about) == 0;
    output->ours[i] = fd;
    output->ends[i] = is_by_lines(output) || output->opts.is_tagged || isatty(fd);
    output->may_block[i] = !is_known || !S_ISREG(about.st_mode);
    if (!is_known || !S_ISFIFO(about.st_mode))
        return;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int own = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (own < 0)
        return; /* somebody else's */
    output->ours[i] = own;
    output->may_block[i] = false;
}

/* By lines each stream has a pipe, and may have a file. */
static size_t most_sheets(const run_output_opts *opts)
{
    struct rlimit limit;
    size_t each = opts->mode == RUN_OUTPUT_LINES ? 2 * STREAMS : STREAMS;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return SIZE_MAX;
    return limit.rlim_cur > RESERVED ? (size_t)(limit.rlim_cur - RESERVED) / each : 0;
}

static bool make_folder(const char *path)
{
    struct stat about;
    if (mkdir(path, 0777) == 0)
        return true;
    if (errno != EEXIST || stat(path, &about) < 0)
        return false;
    errno = ENOTDIR;
    return S_ISDIR(about.st_mode);
}

run_output *run_output_create(const run_output_opts *opts)
{
    run_output *output = calloc(1, sizeof *output);
    if (!output)
        return NULL;
    const char *folder = getenv("TMPDIR");
    output->opts = *opts;
    output->last = &output->first;
    output->max_sheets = most_sheets(opts);
    output->chunk = malloc(CHUNK + 1);
    open_ours(output, OUT, STDOUT_FILENO);
    open_ours(output, ERR, STDERR_FILENO);
    snprintf(output->folder, sizeof output->folder, "%s", folder && *folder ? folder : "/tmp");
    if (opts->results)
        snprintf(output->place, sizeof output->place, "--results %s", opts->results);
    else
        snprintf(output->place, sizeof output->place, "TMPDIR (%s)", output->folder);
    snprintf(output->keep, sizeof output->keep, "keep what jobs print: %s", output->place);
    output->pipes = is_by_lines(output) ? epoll_create1(EPOLL_CLOEXEC) : -1;
    if (output->chunk && (output->pipes >= 0 || !is_by_lines(output)) &&
        (!opts->results || make_folder(opts->results)))
        return output;
    int why = errno;
    run_output_destroy(output);
    errno = why;
    return NULL;
}

void run_output_before(run_output *output, void (*call)(void *ctx), void *ctx)
{
    output->before = call;
    output->ctx = ctx;
}

static void free_sheet(run_output *output, run_sheet *sheet)
{
    for (int i = 0; i < STREAMS; i++)
        run_stream_close(&sheet->stream[i]);
    free(sheet);
    output->sheets--;
}

void run_output_destroy(run_output *output)
{
    if (!output)
        return;
    while (output->first) {
        run_sheet *next = output->first->next;
        free_sheet(output, output->first);
        output->first = next;
    }
    while (output->n_spare > 0) {
        files spare = output->spare[--output->n_spare];
        close(spare.fd[OUT]);
        close(spare.fd[ERR]);
    }
    for (int i = 0; i < STREAMS; i++) {
        if (output->ours[i] > STDERR_FILENO)
            close(output->ours[i]);
    }
    if (output->pipes >= 0)
        close(output->pipes);
    free(output->spare);
    free(output->chunk);
    free(output);
}

const char *run_output_place(const run_output *output)
{
    return output->place;
}

/* ---- files ---------------------------------------------------------------------------------- */

/* A new one, also where there is one of a run or of an attempt before: who has that may still write to it. */
static int open_named(const run_output *output, const char *name, const char *file)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", output->opts.results, name);
    if (n < 0 || (size_t)n + strlen(file) + 2 > sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    if (!make_folder(path))
        return -1;
    snprintf(path + n, sizeof path - (size_t)n, "/%s", file);
    if (unlink(path) < 0 && errno != ENOENT)
        return -1;
    return open(path, O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
}

static bool open_stream(const run_output *output, run_stream *s, int i, const char *name)
{
    static const char *const file[STREAMS] = {"stdout", "stderr"};
    if (output->opts.mode == RUN_OUTPUT_DIRECT) {
        s->job = i == OUT ? STDOUT_FILENO : STDERR_FILENO;
        return true;
    }
    if (is_by_lines(output) && !run_stream_open_pipe(s))
        return false;
    s->is_named = output->opts.results != NULL;
    if (s->is_named)
        s->file = open_named(output, name, file[i]);
    else if (!is_by_lines(output))
        s->file = run_open_nameless(output->folder);
    if (!is_by_lines(output))
        s->job = s->file;
    return s->job >= 0 && (s->file >= 0 || !s->is_named);
}

/* Closed, or (grouped, empty) kept for the next one.  (What a job leaves behind was killed before.) */
static void close_streams(run_output *output, run_sheet *sheet)
{
    run_stream *out = &sheet->stream[OUT], *err = &sheet->stream[ERR];
    bool is_spare = output->opts.mode == RUN_OUTPUT_GROUPED && !out->is_named && out->file >= 0 &&
                    err->file >= 0 && out->size + err->size == 0 && sheet->has_ended;
    if (is_spare && output->n_spare == output->room_spare) {
        size_t room = 2 * output->room_spare + 16;
        files *larger = realloc(output->spare, room * sizeof *larger);
        is_spare = larger != NULL;
        output->spare = is_spare ? larger : output->spare;
        output->room_spare = is_spare ? room : output->room_spare;
    }
    if (is_spare) {
        output->spare[output->n_spare++] = (files){{out->file, err->file}};
        *out = *err = RUN_STREAM_INIT;
    }
    run_stream_close(out);
    run_stream_close(err);
}

bool run_output_open(run_output *output, run_sheet *sheet, const char *name)
{
    sheet->fulls = output->fulls;
    if (output->n_spare > 0) {
        files spare = output->spare[--output->n_spare];
        for (int i = 0; i < STREAMS; i++)
            sheet->stream[i].job = sheet->stream[i].file = spare.fd[i];
        return true;
    }
    for (int i = 0; i < STREAMS; i++) {
        if (!open_stream(output, &sheet->stream[i], i, name)) {
            int why = errno;
            close_streams(output, sheet);
            errno = why;
            return false;
        }
    }
    return true;
}

/* Whether a job that has written to it could have written more.  (Asking for a page tells of quotas, too; of a file
 * that is kept it would be seen.) */
static bool has_disk(const run_stream *s)
{
    struct statvfs disk;
    if (s->size > 0 && !s->is_named)
        return fallocate(s->file, FALLOC_FL_KEEP_SIZE, (off_t)s->size, PAGE) == 0 ||
               (errno != ENOSPC && errno != EDQUOT);
    if (s->file < 0 || fstatvfs(s->file, &disk) < 0 || disk.f_blocks == 0)
        return true;
    return (geteuid() == 0 ? disk.f_bfree : disk.f_bavail) > 0;
}

/* Disk comes back when something was printed.  So who ran when there was none, at an end or before that, may have
 * found none. */
static void look_at_disk(run_output *output, const run_sheet *sheet)
{
    if (output->opts.mode == RUN_OUTPUT_GROUPED &&
        !(has_disk(&sheet->stream[OUT]) && has_disk(&sheet->stream[ERR])))
        output->fulls++;
}

/* ---- sheets --------------------------------------------------------------------------------- */

bool run_output_has_room(const run_output *output)
{
    return output->held < output->opts.window_jobs && output->kept < output->opts.window_bytes &&
           (output->sheets == 0 || output->sheets < output->max_sheets);
}

static run_sheet *new_sheet(run_output *output, const char *tag, size_t length)
{
    run_sheet *sheet = malloc(sizeof *sheet + length + 1);
    if (!sheet)
        return NULL;
    *sheet = (run_sheet){.stream = {RUN_STREAM_INIT, RUN_STREAM_INIT}, .tag_length = length};
    memcpy(sheet->tag, tag, length);
    sheet->tag[length] = '\t';
    output->sheets++;
    return sheet;
}

/* Before another one; NULL: at the end. */
static void put_into_line(run_output *output, run_sheet *sheet, const run_sheet *before)
{
    run_sheet **at = before ? &output->first : output->last;
    while (before && *at != before)
        at = &(*at)->next;
    sheet->next = *at;
    *at = sheet;
    if (!before)
        output->last = &sheet->next;
}

run_sheet *run_output_begin(run_output *output, const char *tag)
{
    size_t length = output->opts.is_tagged ? strnlen(tag, TAG) : 0;
    length = length < TAG ? length : text_cut(tag, TAG);
    run_sheet *sheet = new_sheet(output, tag, length);
    if (!sheet)
        return NULL;
    text_plain(sheet->tag, length, ' '); /* it is one cell of one line */
    if (output->opts.keep_order)
        put_into_line(output, sheet, NULL);
    return sheet;
}

int run_sheet_out(const run_sheet *sheet)
{
    return sheet->stream[OUT].job;
}

int run_sheet_err(const run_sheet *sheet)
{
    return sheet->stream[ERR].job;
}

/* ---- which pipes are read ----------------------------------------------------------------------- */

static bool is_live(const run_output *output, const run_sheet *sheet)
{
    return !output->opts.keep_order || sheet == output->first;
}

static void watch(run_output *output, run_sheet *sheet)
{
    for (int i = 0; i < STREAMS; i++) {
        run_stream *s = &sheet->stream[i];
        bool wanted =
            sheet->is_running && s->pipe >= 0 && (!output->is_holding || is_live(output, sheet));
        /* a sheet's address is even: which of its two streams it is goes into the last bit */
        struct epoll_event event = {.events = EPOLLIN,
                                    .data.u64 = (uint64_t)(uintptr_t)sheet + (unsigned)i};
        if (wanted != s->is_watched && s->pipe >= 0)
            epoll_ctl(output->pipes, wanted ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, s->pipe, &event);
        s->is_watched = wanted;
        s->watcher = output->pipes;
    }
}

/* Too much is kept for the first one, which can go on: so it will be less. */
static void hold(run_output *output)
{
    const run_sheet *first = output->first;
    bool holds = output->opts.keep_order && output->kept >= output->opts.window_bytes && first &&
                 (first->has_ended || (first->is_running && !first->is_suspended));
    if (holds == output->is_holding)
        return;
    output->is_holding = holds;
    for (run_sheet *sheet = output->first; sheet; sheet = sheet->next)
        watch(output, sheet);
}

void run_output_started(run_output *output, run_sheet *sheet)
{
    sheet->is_running = true;
    sheet->is_suspended = false;
    for (int i = 0; i < STREAMS; i++)
        run_stream_started(&sheet->stream[i]);
    if (is_by_lines(output))
        watch(output, sheet);
}

void run_output_suspended(run_output *output, run_sheet *sheet, bool is_suspended)
{
    (void)output;
    sheet->is_suspended = is_suspended;
}

/* ---- ends ------------------------------------------------------------------------------------- */

static uint64_t kept_of(const run_sheet *sheet)
{
    return run_stream_kept(&sheet->stream[OUT]) + run_stream_kept(&sheet->stream[ERR]);
}

static void measure(run_output *output, run_sheet *sheet)
{
    struct stat about;
    for (int i = 0; i < STREAMS && output->opts.mode == RUN_OUTPUT_GROUPED; i++) {
        run_stream *s = &sheet->stream[i];
        if (s->file >= 0 && fstat(s->file, &about) == 0)
            s->size = (uint64_t)about.st_size;
    }
}

/* What its files, or its pipes, hold now is what there is to be printed. */
static void end_streams(run_output *output, run_sheet *sheet)
{
    sheet->is_running = false;
    if (is_by_lines(output))
        watch(output, sheet);
    measure(output, sheet);
    for (int i = 0; i < STREAMS; i++) {
        run_stream *s = &sheet->stream[i];
        if (!is_by_lines(output))
            s->to = s->size;
        run_stream_end(s);
    }
    output->kept += is_by_lines(output) ? 0 : kept_of(sheet);
}

/* Whether there is, or may be, something of it to be printed. */
static bool has_more(const run_output *output, const run_sheet *sheet)
{
    return output->current == sheet || !run_stream_is_over(&sheet->stream[OUT]) ||
           !run_stream_is_over(&sheet->stream[ERR]);
}

bool run_output_is_whole(run_output *output, run_sheet *sheet)
{
    measure(output, sheet);
    look_at_disk(output, sheet);
    return sheet->fulls == output->fulls && !output->is_cut;
}

/* By lines, what is left of an attempt is a sheet of its own in front of that of the next one. */
static bool split(run_output *output, run_sheet *sheet)
{
    run_sheet *rest = new_sheet(output, sheet->tag, sheet->tag_length);
    if (!rest)
        return false;
    memcpy(rest->stream, sheet->stream, sizeof rest->stream);
    rest->has_ended = true;
    sheet->stream[OUT] = sheet->stream[ERR] = RUN_STREAM_INIT;
    output->current = output->current == sheet ? rest : output->current;
    output->held++;
    put_into_line(output, rest, output->opts.keep_order ? sheet : NULL);
    return true;
}

void run_output_again(run_output *output, run_sheet *sheet)
{
    if (is_by_lines(output)) {
        end_streams(output, sheet);
        if (has_more(output, sheet) && split(output, sheet))
            return;
        output->kept -= kept_of(sheet);
    }
    sheet->is_running = false;
    close_streams(output, sheet);
}

void run_output_end(run_output *output, run_sheet *sheet)
{
    end_streams(output, sheet);
    sheet->has_ended = true;
    bool more = has_more(output, sheet);
    if (!more)
        close_streams(output, sheet); /* if it has to wait for its turn, then without any */
    if (!output->opts.keep_order && !more) {
        free_sheet(output, sheet);
        return;
    }
    if (!output->opts.keep_order)
        put_into_line(output, sheet, NULL);
    output->held++;
}

/* ---- printing ------------------------------------------------------------------------------- */

/* From the current stream into the chunk: as it is, or each line with its tag, and the last one with an end. */
static void load(run_output *output)
{
    const run_sheet *sheet = output->current;
    run_stream *s = &output->current->stream[output->stream];
    size_t room = sheet->tag_length ? CHUNK / 2 : CHUNK;
    size_t want = s->whole < room ? (size_t)s->whole : room;
    char *from = output->chunk + CHUNK - want;
    uint64_t kept = run_stream_kept(s);
    size_t n = run_stream_peek(s, from, want), at = 0;
    output->begin = output->end = 0;
    output->chunk_of = output->stream;
    if (!sheet->tag_length && n > 0) {
        memmove(output->chunk, from, n);
        output->in_line = output->chunk[n - 1] != '\n';
        output->end = at = n;
    }
    for (; at < n; at++) {
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
    run_stream_skip(s, at);
    output->kept -= kept - run_stream_kept(s);
    if (!run_stream_is_over(s))
        return;
    if (output->in_line && output->ends[output->stream])
        output->chunk[output->end++] = '\n';
    output->in_line = false;
}

static bool can_write(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    return poll(&ready, 1, 0) != 0;
}

/* 1: all of the chunk is written; 0: it would have to wait; -1: it cannot, and errno says why. */
static int write_chunk(run_output *output)
{
    int given = output->chunk_of == OUT ? STDOUT_FILENO : STDERR_FILENO;
    int fd = output->ours[output->chunk_of];
    bool may_block = output->may_block[output->chunk_of];
    output->waits = 0;
    if (output->begin < output->end && output->before && !output->is_lost)
        output->before(output->ctx);
    while (output->begin < output->end && !output->is_lost) {
        size_t n = output->end - output->begin;
        if (may_block && n > PIPE_BUF)
            n = PIPE_BUF; /* so much can be written to a pipe that can be written to */
        bool is_full = may_block && !can_write(fd);
        ssize_t written = is_full ? 0 : write(fd, output->chunk + output->begin, n);
        if (is_full || (written < 0 && errno == EAGAIN && !may_block)) {
            output->waits = given;
            return 0;
        }
        if (written < 0 && errno == EBADF && given == STDERR_FILENO)
            written = (ssize_t)n; /* who has closed it does not want to see it */
        if (written < 0 && errno != EINTR && errno != EAGAIN)
            return -1;
        output->begin += written > 0 ? (size_t)written : 0;
    }
    output->begin = output->end;
    return 1;
}

static void leave(run_output *output)
{
    run_sheet *sheet = output->first;
    look_at_disk(output, sheet);
    output->first = sheet->next;
    if (!output->first)
        output->last = &output->first;
    output->held--;
    output->kept -= kept_of(sheet);
    close_streams(output, sheet);
    free_sheet(output, sheet);
    if (is_by_lines(output) && output->first)
        watch(output, output->first);
}

/* ---- what is printed next ------------------------------------------------------------------------ */

static bool fail(run_output *output, const char *what)
{
    int why = errno;
    snprintf(output->error, sizeof output->error, "cannot %s: %s", what, strerror(why));
    output->is_lost = true;
    errno = why;
    return false;
}

/* What it holds is whole lines, or (there will be no more) all: then it is printed. */
static bool take(run_output *output, run_sheet *sheet, int i)
{
    if (sheet->stream[i].whole == 0 || !is_live(output, sheet))
        return false;
    output->current = sheet;
    output->stream = i;
    output->in_line = false;
    return true;
}

static bool read_stream(run_output *output, run_sheet *sheet, int i, run_got *ret_got)
{
    run_stream *s = &sheet->stream[i];
    uint64_t kept = run_stream_kept(s);
    *ret_got = run_stream_read(s, output->folder);
    int why = errno;
    if (*ret_got == RUN_GOT_ERROR) {
        output->is_cut = output->is_cut || !output->is_lost;
        run_stream_forget(s);
    }
    errno = why;
    output->kept += run_stream_kept(s) - kept;
    return *ret_got != RUN_GOT_ERROR || output->is_lost || fail(output, output->keep);
}

/* A stream of the first one in line, which is ours to be printed. */
static bool take_from_line(run_output *output, bool *ret_taken)
{
    run_sheet *sheet = output->first;
    for (int i = 0; i < STREAMS; i++) {
        run_got got = RUN_GOT_SOME;
        while (sheet->has_ended && sheet->stream[i].whole == 0 && sheet->stream[i].pipe >= 0 &&
               got == RUN_GOT_SOME) {
            if (!read_stream(output, sheet, i, &got))
                return false;
        }
        *ret_taken = take(output, sheet, i);
        if (*ret_taken)
            return true;
    }
    *ret_taken = sheet->has_ended;
    if (sheet->has_ended)
        leave(output);
    return true;
}

/* One that runs, and has written. */
static bool take_from_pipes(run_output *output, bool *ret_taken)
{
    struct epoll_event ready;
    run_got got;
    hold(output);
    *ret_taken = epoll_wait(output->pipes, &ready, 1, 0) == 1;
    if (!*ret_taken)
        return true;
    run_sheet *sheet = (run_sheet *)(uintptr_t)(ready.data.u64 & ~UINT64_C(1));
    int i = (int)(ready.data.u64 & 1);
    if (!read_stream(output, sheet, i, &got))
        return false;
    if (!take(output, sheet, i))
        run_stream_fit(&sheet->stream[i]);
    return true;
}

static bool take_next(run_output *output, bool *ret_taken)
{
    *ret_taken = false;
    if (output->current && output->current->stream[output->stream].whole > 0)
        return *ret_taken = true;
    if (output->current)
        run_stream_fit(&output->current->stream[output->stream]);
    output->current = NULL;
    if (output->first && !take_from_line(output, ret_taken))
        return false;
    return *ret_taken || !is_by_lines(output) || take_from_pipes(output, ret_taken);
}

bool run_output_print(run_output *output)
{
    output->is_busy = false;
    for (int turn = 0;; turn++) {
        bool is_taken;
        int rc = write_chunk(output);
        if (rc < 0)
            return fail(output, output->chunk_of == OUT ? "write to standard output"
                                                        : "write to standard error");
        if (rc == 0)
            return true;
        if (turn == TURN) {
            output->is_busy = true;
            return true;
        }
        if (!take_next(output, &is_taken))
            return false;
        if (!is_taken)
            return true;
        if (output->current)
            load(output);
    }
}

const char *run_output_error(const run_output *output)
{
    return output->error;
}

int run_output_wants(const run_output *output)
{
    return output->waits ? output->waits : -1;
}

int run_output_fd(const run_output *output)
{
    return output->waits ? -1 : output->pipes;
}

bool run_output_is_busy(const run_output *output)
{
    return output->is_busy;
}

bool run_output_is_between(const run_output *output)
{
    return output->begin == output->end && !output->current;
}

size_t run_output_held(const run_output *output, uint64_t *ret_bytes)
{
    *ret_bytes = output->kept;
    return output->held;
}
