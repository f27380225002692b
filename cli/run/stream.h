/* stream.h - one of the two that a job prints on, and what of it has been kept for us to print.
 *
 * Grouped:    the job writes to a file, and when it has ended all of that is there to be printed.
 * By lines:   the job writes to a pipe.  What is read from it is kept in memory, up to RUN_STREAM_TEXT bytes, and what
 *             there is no room for goes into a file: an unfinished line may be of any length and takes no memory.
 *
 * Invariant:  kept == (to - from) in the file, and behind it (length - begin) in memory; whole <= kept.
 * Ownership:  the descriptors are the stream's, but for `job` where it is one of ours (RUN_STREAM_OURS).
 */
#ifndef WEIR_CLI_RUN_STREAM_H
#define WEIR_CLI_RUN_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RUN_STREAM_TEXT ((size_t)64 << 10) /* bytes in memory */

typedef struct run_stream {
    int job;         /* where the job writes; -1: nowhere */
    int pipe;        /* where that is read; -1: there is no more to be read */
    int file;        /* -1: none */
    bool is_named;   /* the file: it keeps all that was read */
    bool is_watched; /* for who uses it: the pipe is in `watcher`, an epoll */
    int watcher;
    bool has_ended;    /* what may still be read is `left` bytes */
    uint64_t left;     /* in the pipe */
    uint64_t from, to; /* of the file: is kept */
    uint64_t size;     /* of the file, as far as we wrote it */
    char *text;
    size_t begin, length;
    uint64_t whole; /* bytes from the front of what is kept that may be printed: whole lines */
} run_stream;

#define RUN_STREAM_INIT                                                                            \
    (run_stream)                                                                                   \
    {                                                                                              \
        .job = -1, .pipe = -1, .file = -1,                                                         \
    }

/* A file in that folder that has no name and is gone when it is closed; appended to, so that a job that opens
 * /dev/stdout again writes behind what is there.  -1: errno says why. */
int run_open_nameless(const char *folder);

/* false: errno says why, and nothing was changed. */
bool run_stream_open_pipe(run_stream *s);

/* Closes all, and forgets what was kept. */
void run_stream_close(run_stream *s);

/* The job has its end of the pipe now. */
void run_stream_started(run_stream *s);

/* It has ended.  What it wrote is there to be read, and no more than that: a process that has left its group may have
 * the pipe for ever. */
void run_stream_end(run_stream *s);

typedef enum run_got { RUN_GOT_ERROR = -1, RUN_GOT_NOTHING, RUN_GOT_SOME } run_got;

/* Reads once, without waiting.  SOME: or has seen its end.  ERROR: what was read cannot be kept, and errno says why.
 * folder: for files without a name. */
run_got run_stream_read(run_stream *s, const char *folder);

static inline uint64_t run_stream_kept(const run_stream *s)
{
    return s->to - s->from + (s->length - s->begin);
}

/* Whether there is nothing kept and nothing to come. */
static inline bool run_stream_is_over(const run_stream *s)
{
    return s->pipe < 0 && run_stream_kept(s) == 0;
}

/* Copies from the front of what is whole; 0: somebody has cut the file, and what was in it is lost. */
size_t run_stream_peek(run_stream *s, char *to, size_t size);

/* So many bytes of it are done with. */
void run_stream_skip(run_stream *s, size_t n);

/* What is kept is dropped. */
void run_stream_forget(run_stream *s);

/* Gives memory back that is not in use. */
void run_stream_fit(run_stream *s);

#endif
