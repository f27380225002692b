/* stream.c - pipes of jobs, and what was read from them; see stream.h. */
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

int run_open_nameless(const char *folder)
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

/* ---- opening and closing ---------------------------------------------------------------------- */

bool run_stream_open_pipe(run_stream *s)
{
    int fd[2];
    if (pipe2(fd, O_CLOEXEC) < 0)
        return false;
    fcntl(fd[0], F_SETFL, O_NONBLOCK); /* our end only: few programs are written for the other */
    s->pipe = fd[0];
    s->job = fd[1];
    return true;
}

static void close_one(int *fd)
{
    if (*fd > STDERR_FILENO)
        close(*fd);
    *fd = -1;
}

/* An epoll keeps what anybody has open, and a job that is just being started has it for a moment (until its exec closes
 * it): so it is taken out before. */
static void close_pipe(run_stream *s)
{
    if (s->is_watched)
        epoll_ctl(s->watcher, EPOLL_CTL_DEL, s->pipe, NULL);
    s->is_watched = false;
    close_one(&s->pipe);
}

void run_stream_started(run_stream *s)
{
    if (s->pipe >= 0)
        close_one(&s->job);
}

void run_stream_close(run_stream *s)
{
    if (s->job == s->file)
        s->job = -1;
    close_one(&s->job);
    close_pipe(s);
    close_one(&s->file);
    free(s->text);
    *s = RUN_STREAM_INIT;
}

/* No more will come, so all of it may be printed. */
static void finish(run_stream *s)
{
    close_pipe(s);
    s->whole = run_stream_kept(s);
}

void run_stream_end(run_stream *s)
{
    int n = 0;
    run_stream_started(s);
    s->has_ended = true;
    if (s->pipe >= 0)
        s->left = ioctl(s->pipe, FIONREAD, &n) == 0 ? (uint64_t)n : 0;
    if (s->left == 0)
        finish(s);
}

/* ---- keeping ---------------------------------------------------------------------------------- */

static bool write_file(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, text, length);
        if (n < 0 && errno != EINTR)
            return false;
        text += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

/* What is in memory goes into the file, behind what is there; in one with a name it is already. */
static bool spill(run_stream *s, const char *folder)
{
    if (s->file < 0)
        s->file = run_open_nameless(folder);
    if (s->file < 0 || (!s->is_named && !write_file(s->file, s->text, s->length)))
        return false;
    s->size += s->is_named ? 0 : s->length;
    if (s->from == s->to)
        s->from = s->size - s->length;
    s->to = s->size;
    s->length = 0;
    return true;
}

/* n more bytes are behind the text. */
static bool keep(run_stream *s, size_t n)
{
    const char *added = s->text + s->length;
    const char *line_end = memrchr(added, '\n', n);
    if (line_end)
        s->whole = s->to - s->from + (size_t)(line_end + 1 - s->text);
    s->length += n;
    if (!s->is_named)
        return true;
    s->size += n;
    return write_file(s->file, added, n);
}

run_got run_stream_read(run_stream *s, const char *folder)
{
    if (s->pipe < 0)
        return RUN_GOT_NOTHING;
    if (s->length == RUN_STREAM_TEXT && !spill(s, folder))
        return RUN_GOT_ERROR;
    char *text = realloc(s->text, RUN_STREAM_TEXT);
    if (!text)
        return RUN_GOT_ERROR;
    s->text = text;
    size_t room = RUN_STREAM_TEXT - s->length;
    if (s->has_ended && s->left < room)
        room = (size_t)s->left;
    ssize_t n = read(s->pipe, s->text + s->length, room);
    if (n < 0 && !s->has_ended && (errno == EAGAIN || errno == EINTR))
        return RUN_GOT_NOTHING;
    if (n > 0 && !keep(s, (size_t)n))
        return RUN_GOT_ERROR;
    s->left -= s->has_ended && n > 0 ? (uint64_t)n : 0;
    if (n <= 0 || (s->has_ended && s->left == 0))
        finish(s);
    return RUN_GOT_SOME;
}

/* ---- taking ----------------------------------------------------------------------------------- */

/* The file is not in use any more: its disk is given back. */
static void empty_file(run_stream *s)
{
    if (s->is_named || s->pipe < 0 || ftruncate(s->file, 0) < 0)
        return;
    s->from = s->to = s->size = 0;
}

size_t run_stream_peek(run_stream *s, char *to, size_t size)
{
    uint64_t in_file = s->to - s->from;
    size = size < s->whole ? size : (size_t)s->whole;
    if (in_file == 0) {
        memcpy(to, s->text + s->begin, size);
        return size;
    }
    ssize_t n = pread(s->file, to, size < in_file ? size : (size_t)in_file, (off_t)s->from);
    if (n > 0)
        return (size_t)n;
    s->whole -= s->whole < in_file ? s->whole : in_file;
    s->from = s->to;
    return 0;
}

void run_stream_skip(run_stream *s, size_t n)
{
    s->whole -= n;
    if (s->from == s->to) {
        s->begin += n;
        return;
    }
    s->from += n;
    if (s->from == s->to)
        empty_file(s);
}

void run_stream_forget(run_stream *s)
{
    s->from = s->to = s->size;
    s->begin = s->length = 0;
    s->whole = 0;
}

void run_stream_fit(run_stream *s)
{
    s->length -= s->begin;
    if (s->begin > 0 && s->length > 0)
        memmove(s->text, s->text + s->begin, s->length);
    s->begin = 0;
    if (s->length == 0) {
        free(s->text);
        s->text = NULL;
        return;
    }
    char *text = realloc(s->text, s->length);
    s->text = text ? text : s->text;
}
