/* input.c - reads items; see input.h. */
#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_AHEAD                                                                                 \
    4096 /* bytes: a page; more would be taken from who reads the same pipe afterwards */

struct run_input {
    char *const *next; /* of the command line */
    uint64_t taken;    /* of those */
    int fd;
    bool is_file;     /* a regular one, which never has to be waited for */
    bool has_ended;   /* nothing comes behind what is in the buffer */
    bool is_quoted;   /* what was looked at ends inside quotes; ... */
    bool was_quote;   /* with the quote that ends them, or doubled is one; ... */
    bool inside_cell; /* and not at the beginning of a cell */
    bool wants_header;
    run_format format;
    run_item *header;
    uint64_t items;
    uint64_t offset; /* bytes that were handed out, or passed over */
    uint64_t size;   /* of a file, from where it was opened; 0: not known */
    size_t begin, looked, end, room;
    char *buffer;
    char error[256];
};

static bool is_table(run_format format)
{
    return format == RUN_CSV || format == RUN_TSV;
}

/* ---- opening -------------------------------------------------------------------------------- */

static bool open_descriptor(run_input *input, const char *path)
{
    struct stat about;
    bool is_stdin = !path || strcmp(path, "-") == 0;
    input->fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (input->fd < 0 || fstat(input->fd, &about) < 0)
        return false;
    if (S_ISDIR(about.st_mode)) {
        errno = EISDIR;
        return false;
    }
    input->is_file = S_ISREG(about.st_mode);
    off_t at = input->is_file ? lseek(input->fd, 0, SEEK_CUR) : 0;
    input->size = about.st_size > at && at >= 0 ? (uint64_t)(about.st_size - at) : 0;
    return true;
}

run_input *run_input_open(const run_input_opts *opts)
{
    run_input *input = calloc(1, sizeof *input);
    if (!input)
        return NULL;
    input->fd = -1;
    input->next = opts->items;
    input->format = opts->format;
    input->wants_header = opts->has_header;
    for (char *const *item = opts->items; item && *item; item++)
        input->size++;
    if (opts->items)
        return input;
    input->room = READ_AHEAD;
    input->buffer = malloc(input->room);
    if (input->buffer && open_descriptor(input, opts->path))
        return input;
    int why = errno;
    run_input_close(input);
    errno = why;
    return NULL;
}

void run_input_close(run_input *input)
{
    if (!input)
        return;
    if (input->fd > STDIN_FILENO)
        close(input->fd);
    free(input->header);
    free(input->buffer);
    free(input);
}

/* ---- items out of bytes ----------------------------------------------------------------------- */

static size_t count(const char *text, size_t length, char what)
{
    size_t n = 0;
    for (size_t i = 0; i < length; i++)
        n += text[i] == what;
    return n;
}

/* One cell of a row of CSV, written to `to` without its quotes.  Returns where the next one begins; NULL: it was
 * the last one. */
static const char *take_cell(const char *at, const char *end, char **to)
{
    if (at < end && *at == '"') {
        for (at++; at < end; at++) {
            if (*at == '"' && (at + 1 == end || at[1] != '"')) {
                at++;
                break;
            }
            at += *at == '"';
            *(*to)++ = *at;
        }
    }
    while (at < end && *at != ',')
        *(*to)++ = *at++;
    *(*to)++ = '\0';
    return at < end ? at + 1 : NULL;
}

static void split(run_item *item, char *to, run_format format)
{
    const char *at = item->text, *end = item->text + item->length;
    while (at && format == RUN_CSV) {
        item->columns[item->n_columns++] = to;
        at = take_cell(at, end, &to);
    }
    if (format == RUN_CSV)
        return;
    memcpy(to, item->text, item->length + 1);
    for (item->columns[item->n_columns++] = to; (to = strchr(to, '\t')); to++) {
        *to = '\0';
        item->columns[item->n_columns++] = to + 1;
    }
}

/* An item of these bytes; NULL: there is no memory. */
static run_item *make_item(const char *text, size_t length, run_format format)
{
    bool is_row = is_table(format);
    char between = format == RUN_CSV ? ',' : '\t';
    size_t cells = is_row ? count(text, length, between) + 1 : 1;
    size_t bytes = (is_row ? 2 * length + cells : length) + 2;
    run_item *item = malloc(sizeof *item + cells * sizeof *item->columns + bytes);
    if (!item)
        return NULL;
    char *copy = (char *)&item->columns[cells];
    memcpy(copy, text, length);
    copy[length] = '\0';
    *item = (run_item){.text = copy, .length = length};
    if (is_row) {
        split(item, copy + length + 1, format);
    } else {
        item->columns[0] = copy;
        item->n_columns = 1;
    }
    return item;
}

/* ---- bytes out of the file -------------------------------------------------------------------- */

static run_read fail(run_input *input, const char *what)
{
    snprintf(input->error, sizeof input->error, "item %" PRIu64 " %s", input->items + 1, what);
    input->has_ended = true;
    input->begin = input->looked = input->end;
    return RUN_READ_ERROR;
}

/* As take_cell reads them: quotes are such where a cell begins with one, and others are letters. */
static bool ends_row(run_input *input, char c)
{
    bool is_quote = c == '"' && (input->is_quoted || input->was_quote || !input->inside_cell);
    bool ends = c == '\n' && !input->is_quoted;
    input->was_quote = is_quote && input->is_quoted;
    if (is_quote)
        input->is_quoted = !input->is_quoted;
    input->inside_cell = is_quote || input->is_quoted || (c != ',' && c != '\n');
    return ends;
}

/* Where the item ends that begins at `begin`; `end`: its end is not in the buffer.  Looks at each byte once. */
static size_t find_end(run_input *input)
{
    if (input->format != RUN_CSV) {
        char ends = input->format == RUN_ZERO ? '\0' : '\n';
        char *at = memchr(input->buffer + input->looked, ends, input->end - input->looked);
        input->looked = at ? (size_t)(at - input->buffer) : input->end;
        return input->looked;
    }
    while (input->looked < input->end && !ends_row(input, input->buffer[input->looked]))
        input->looked++;
    return input->looked;
}

static bool make_room(run_input *input)
{
    memmove(input->buffer, input->buffer + input->begin, input->end - input->begin);
    input->end -= input->begin;
    input->looked -= input->begin;
    input->begin = 0;
    if (input->room - input->end >= READ_AHEAD / 2)
        return true;
    char *larger = realloc(input->buffer, 2 * input->room);
    if (!larger)
        return false;
    input->buffer = larger;
    input->room *= 2;
    return true;
}

/* Of a table: what some programs write first, to say that it is UTF-8, is no part of a name. */
static void pass_over_mark(run_input *input)
{
    static const char mark[] = "\xef\xbb\xbf";
    if (!is_table(input->format) || input->offset > 0 || input->end < 3 ||
        memcmp(input->buffer, mark, 3) != 0)
        return;
    input->begin = input->looked = 3;
    input->offset = 3;
}

static run_read read_more(run_input *input)
{
    if (input->end - input->begin > RUN_ITEM_MAX)
        return fail(input, "is longer than 1 MiB: are its items ended by something else?");
    if (!make_room(input))
        return fail(input, "cannot be read: out of memory");
    struct pollfd ready = {.fd = input->fd, .events = POLLIN};
    if (!input->is_file && poll(&ready, 1, 0) == 0)
        return RUN_READ_WAIT;
    size_t room = input->room - input->end;
    ssize_t n = read(input->fd, input->buffer + input->end, room < READ_AHEAD ? room : READ_AHEAD);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return RUN_READ_WAIT;
    if (n < 0) {
        char why[128];
        snprintf(why, sizeof why, "cannot be read: %s", strerror(errno));
        return fail(input, why);
    }
    input->has_ended = n == 0;
    input->end += (size_t)n;
    pass_over_mark(input);
    return RUN_READ_ITEM;
}

/* ---- one by one ------------------------------------------------------------------------------- */

static run_read hand_out(run_input *input, run_item *item, run_item **ret_item)
{
    if (!item)
        return fail(input, "cannot be kept: out of memory");
    item->number = ++input->items;
    *ret_item = item;
    return RUN_READ_ITEM;
}

/* What lies between begin and `end` is an item, the header, or empty: then it is none, and RUN_READ_WAIT. */
static run_read take(run_input *input, size_t end, run_item **ret_item)
{
    const char *text = input->buffer + input->begin;
    size_t length = end - input->begin;
    bool is_row = is_table(input->format);
    input->offset += length + (end < input->end);
    input->begin = input->looked = end + (end < input->end);
    length -= is_row && length > 0 && text[length - 1] == '\r';
    if (length == 0)
        return RUN_READ_WAIT;
    if (input->format != RUN_ZERO && memchr(text, '\0', length))
        return fail(input, "has a zero byte in it; items that are ended by those need -0");
    run_item *item = make_item(text, length, input->format);
    if (!input->wants_header || !item)
        return hand_out(input, item, ret_item);
    input->header = item;
    input->wants_header = false;
    return RUN_READ_WAIT;
}

static run_read next_argument(run_input *input, run_item **ret_item)
{
    const char *text = *input->next;
    if (!text)
        return RUN_READ_END;
    input->next++;
    input->taken++;
    return hand_out(input, make_item(text, strlen(text), input->format), ret_item);
}

run_read run_input_next(run_input *input, run_item **ret_item)
{
    if (input->error[0])
        return RUN_READ_ERROR;
    if (input->next)
        return next_argument(input, ret_item);
    for (;;) {
        size_t end = find_end(input);
        if (end == input->end && !input->has_ended) {
            run_read how = read_more(input);
            if (how != RUN_READ_ITEM)
                return how;
            continue;
        }
        if (end == input->end && input->begin == input->end)
            return RUN_READ_END;
        if (end == input->end && input->is_quoted)
            return fail(input, "begins a quote that is never closed");
        run_read how = take(input, end, ret_item);
        if (how != RUN_READ_WAIT)
            return how;
    }
}

const char *run_input_error(const run_input *input)
{
    return input->error;
}

int run_input_fd(const run_input *input)
{
    return input->is_file ? -1 : input->fd;
}

const run_item *run_input_header(const run_input *input)
{
    return input->header;
}

uint64_t run_input_position(const run_input *input, uint64_t *ret_total)
{
    *ret_total = input->size;
    return input->next ? input->taken : input->offset;
}
