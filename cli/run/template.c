/* template.c - finds the places in a command, and fills them; see template.h.
 *
 * A command is parts, one after the other: text, or a place; an argument ends with the part that says so.
 */
#include "template.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHELL "/bin/sh"

typedef enum place { PLACE_NONE, PLACE_ITEM, PLACE_COLUMN, PLACE_NUMBER, PLACE_SLOT } place;

typedef enum cut { CUT_NONE, CUT_EXTENSION, CUT_FOLDER, CUT_BOTH, CUT_NAME } cut;

static const char *const cuts[] = {"", ".", "/", "/.", "//"}; /* as written, by cut */

#define CUTS (sizeof cuts / sizeof *cuts)

typedef struct part {
    place what;
    cut how;
    size_t column; /* from 0 */
    const char *text;
    size_t length;
    bool ends; /* an argument */
} part;

struct run_template {
    part *parts;
    size_t n, room;
    size_t places;
    size_t open;  /* places in the first argument */
    char *script; /* of a shell */
};

/* ---- parsing -------------------------------------------------------------------------------- */

typedef struct parsing {
    run_template *t;
    const run_template_opts *opts;
    char *error;
    size_t size;
} parsing;

__attribute__((format(printf, 2, 3))) static bool refuse(const parsing *p, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(p->error, p->size, format, args);
    va_end(args);
    return false;
}

static bool add(parsing *p, part next)
{
    run_template *t = p->t;
    if (t->n == t->room) {
        size_t room = 2 * t->room + 16;
        part *larger = realloc(t->parts, room * sizeof *larger);
        if (!larger)
            return refuse(p, "out of memory");
        t->parts = larger;
        t->room = room;
    }
    t->parts[t->n++] = next;
    t->places += next.what != PLACE_NONE;
    return true;
}

/* What is cut off is said at the end: the longest that fits.  Returns how long what is in front of it is. */
static size_t read_cut(const char *inside, size_t n, cut *ret_how)
{
    *ret_how = CUT_NONE;
    for (size_t i = 1; i < CUTS; i++) {
        size_t length = strlen(cuts[i]);
        bool is_it = n >= length && memcmp(inside + n - length, cuts[i], length) == 0;
        if (is_it && length >= strlen(cuts[*ret_how]))
            *ret_how = (cut)i;
    }
    return n - strlen(cuts[*ret_how]);
}

static bool is_row(const parsing *p)
{
    return p->opts->format == RUN_CSV || p->opts->format == RUN_TSV;
}

static bool read_number(const parsing *p, const char *digits, size_t n, part *into)
{
    size_t column = 0;
    for (size_t i = 0; i < n && column < 1000000; i++)
        column = 10 * column + (size_t)(digits[i] - '0');
    into->what = PLACE_COLUMN;
    into->column = column - 1;
    size_t there = p->opts->header ? p->opts->header->n_columns : is_row(p) ? SIZE_MAX : 1;
    if (column == 0)
        return refuse(p, "{0}: columns are counted from 1");
    if (column > there && !is_row(p))
        return refuse(p,
                      "{%zu}: a line is one column; say --csv or --tsv, or with --replace what "
                      "is replaced instead of braces",
                      column);
    if (column > there)
        return refuse(p, "{%zu}: the header has %zu columns", column, there);
    return true;
}

static bool looks_like_a_name(const char *s, size_t n)
{
    if (n == 0 || (!isalpha((unsigned char)s[0]) && s[0] != '_'))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)s[i]) && s[i] != '_' && s[i] != '-')
            return false;
    }
    return true;
}

static bool find_column(const run_item *header, const char *name, size_t n, size_t *ret_column)
{
    for (size_t i = 0; header && i < header->n_columns; i++) {
        if (strlen(header->columns[i]) == n && memcmp(header->columns[i], name, n) == 0) {
            *ret_column = i;
            return true;
        }
    }
    return false;
}

static bool read_name(const parsing *p, const char *name, size_t n, part *into)
{
    if (find_column(p->opts->header, name, n, &into->column)) {
        into->what = PLACE_COLUMN;
        return true;
    }
    if (!is_row(p) || !looks_like_a_name(name, n))
        return true; /* braces that mean something to somebody else */
    if (!p->opts->header)
        return refuse(p, "{%.*s}: columns have names with --header only", (int)n, name);
    return refuse(p, "{%.*s}: there is no such column in \"%.120s\"", (int)n, name,
                  p->opts->header->text);
}

/* What stands between braces; the place stays PLACE_NONE where it is no place. */
static bool read_place(const parsing *p, const char *inside, size_t n, part *into)
{
    if (n == 1 && (*inside == '#' || *inside == '%')) {
        into->what = *inside == '#' ? PLACE_NUMBER : PLACE_SLOT;
        return true;
    }
    if (find_column(p->opts->header, inside, n, &into->column)) { /* its name may end in a dot */
        into->what = PLACE_COLUMN;
        return true;
    }
    size_t named = read_cut(inside, n, &into->how);
    if (named == 0) {
        into->what = PLACE_ITEM;
        return true;
    }
    if (strspn(inside, "0123456789") >= named)
        return read_number(p, inside, named, into);
    return read_name(p, inside, named, into);
}

/* The next place in s, in *ret_place, with where it begins and ends.  false: an error, or there is none. */
static bool next_place(const parsing *p, const char *s, part *ret_place, const char **ret_begin,
                       const char **ret_end)
{
    const char *replace = p->opts->replace;
    *ret_begin = NULL;
    if (replace) {
        *ret_place = (part){.what = PLACE_ITEM};
        *ret_begin = strstr(s, replace);
        *ret_end = *ret_begin ? *ret_begin + strlen(replace) : NULL;
        return true;
    }
    for (const char *at = strchr(s, '{'); at; at = strchr(at + 1, '{')) {
        size_t n = strcspn(at + 1, "{}");
        *ret_place = (part){0};
        if (at[n + 1] != '}')
            continue;
        if (!read_place(p, at + 1, n, ret_place))
            return false;
        if (ret_place->what == PLACE_NONE)
            continue;
        *ret_begin = at;
        *ret_end = at + n + 2;
        return true;
    }
    return true;
}

static bool parse_argument(parsing *p, const char *s)
{
    for (;;) {
        part found;
        const char *begin, *end;
        if (!next_place(p, s, &found, &begin, &end))
            return false;
        if (!begin)
            return add(p, (part){.text = s, .length = strlen(s), .ends = true});
        if (!add(p, (part){.text = s, .length = (size_t)(begin - s)}) || !add(p, found))
            return false;
        s = end;
    }
}

/* ---- a shell's script ------------------------------------------------------------------------- */

/* In which quotes of the shell what follows `s` stands: ' or " or 0. */
static char quote_after(const char *s, size_t n, char quote)
{
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\\' && quote != '\'')
            i++;
        else if (quote == 0 && (s[i] == '\'' || s[i] == '"'))
            quote = s[i];
        else if (quote == s[i])
            quote = 0;
    }
    return quote;
}

/* The parameter n as one word, in whichever quotes the place is. */
static int print_parameter(char *to, size_t size, char quote, size_t n)
{
    const char *before = quote == '"' ? "" : quote == '\'' ? "'\"" : "\"";
    const char *after = quote == '"' ? "" : quote == '\'' ? "\"'" : "\"";
    return snprintf(to, size, "%s${%zu}%s", before, n, after);
}

static char *join(char *const *words)
{
    size_t length = 1;
    for (char *const *word = words; *word; word++)
        length += strlen(*word) + 1;
    char *all = malloc(length), *at = all;
    for (; all && *words; words++)
        at += sprintf(at, "%s%s", at == all ? "" : " ", *words);
    return all;
}

/* sh -c SCRIPT sh PLACE...: a place in the words becomes a parameter in the script. */
static bool parse_script(parsing *p)
{
    char *words = join(p->opts->command), quote = 0;
    char *to = p->t->script = words ? malloc(8 * strlen(words) + 64) : NULL;
    bool ok = to != NULL;
    for (const char *s = words; ok;) {
        part found;
        const char *begin, *end;
        ok = next_place(p, s, &found, &begin, &end);
        if (!ok)
            break;
        size_t n = begin ? (size_t)(begin - s) : strlen(s);
        memcpy(to, s, n);
        to += n;
        *to = '\0';
        quote = quote_after(s, n, quote);
        if (!begin)
            break;
        found.ends = true;
        ok = add(p, found);
        to += print_parameter(to, 32, quote, p->t->n);
        s = end;
    }
    if (ok && p->t->places == 0) { /* as without a shell: the item comes last */
        print_parameter(to + sprintf(to, " "), 32, 0, 1);
        ok = add(p, (part){.what = PLACE_ITEM, .ends = true});
    }
    free(words);
    return ok || (to ? false : refuse(p, "out of memory"));
}

static bool parse_words(parsing *p)
{
    for (char *const *word = p->opts->command; *word; word++) {
        if (!parse_argument(p, *word))
            return false;
        if (word == p->opts->command)
            p->t->open = p->t->places;
    }
    return p->t->places > 0 || add(p, (part){.what = PLACE_ITEM, .ends = true});
}

run_template *run_template_create(const run_template_opts *opts, char *error, size_t size)
{
    run_template *t = calloc(1, sizeof *t);
    parsing p = {t, opts, error, size};
    if (!t)
        refuse(&p, "out of memory");
    if (t && (opts->is_shell ? parse_script(&p) : parse_words(&p)))
        return t;
    run_template_destroy(t);
    return NULL;
}

void run_template_destroy(run_template *t)
{
    if (!t)
        return;
    free(t->script);
    free(t->parts);
    free(t);
}

bool run_template_is_program_open(const run_template *t)
{
    return t->open > 0;
}

/* ---- filling -------------------------------------------------------------------------------- */

typedef struct piece {
    const char *text;
    size_t length;
} piece;

static piece cut_extension(piece p)
{
    for (size_t i = p.length; i-- > 0 && p.text[i] != '/';) {
        if (p.text[i] == '.') {
            p.length = i;
            break;
        }
    }
    return p;
}

static size_t after_slash(piece p)
{
    size_t at = p.length;
    while (at > 0 && p.text[at - 1] != '/')
        at--;
    return at;
}

static piece cut_folder(piece p)
{
    size_t at = after_slash(p);
    return (piece){p.text + at, p.length - at};
}

static piece cut_name(piece p)
{
    size_t at = after_slash(p);
    if (at == 0)
        return (piece){".", 1};
    return (piece){p.text, at > 1 ? at - 1 : 1}; /* of "/x": "/" */
}

static piece cut_off(piece p, cut how)
{
    switch (how) {
    case CUT_NONE: return p;
    case CUT_EXTENSION: return cut_extension(p);
    case CUT_FOLDER: return cut_folder(p);
    case CUT_BOTH: return cut_extension(cut_folder(p));
    case CUT_NAME: return cut_name(p);
    }
    return p;
}

typedef struct filling {
    const run_item *item;
    char number[24], slot[16];
} filling;

static piece fill_part(const filling *f, const part *p)
{
    switch (p->what) {
    case PLACE_NONE: return (piece){p->text, p->length};
    case PLACE_ITEM: return cut_off((piece){f->item->text, f->item->length}, p->how);
    case PLACE_COLUMN: {
        const char *cell = f->item->columns[p->column];
        return cut_off((piece){cell, strlen(cell)}, p->how);
    }
    case PLACE_NUMBER: return (piece){f->number, strlen(f->number)};
    case PLACE_SLOT: return (piece){f->slot, strlen(f->slot)};
    }
    return (piece){"", 0};
}

/* Its columns are all there; else `error` says which is not. */
static bool is_filled(const run_template *t, const run_item *item, char *error, size_t size)
{
    for (size_t i = 0; i < t->n; i++) {
        if (t->parts[i].what == PLACE_COLUMN && t->parts[i].column >= item->n_columns) {
            snprintf(error, size, "it has no column %zu, only %zu", t->parts[i].column + 1,
                     item->n_columns);
            return false;
        }
    }
    return true;
}

/* Writes all arguments to `bytes`, or only counts them: NULL.  Returns how many there are, and bytes. */
static size_t write_arguments(const run_template *t, const filling *f, char **argv, char *bytes,
                              size_t *ret_bytes)
{
    size_t at = 0, begin = 0, n = 0;
    for (size_t i = 0; i < t->n; i++) {
        piece p = fill_part(f, &t->parts[i]);
        if (bytes)
            memcpy(bytes + at, p.text, p.length);
        at += p.length;
        if (!t->parts[i].ends)
            continue;
        if (bytes) {
            bytes[at] = '\0';
            argv[n] = bytes + begin;
        }
        begin = ++at;
        n++;
    }
    *ret_bytes = at;
    return n;
}

char **run_template_fill(const run_template *t, const run_item *item, unsigned slot, char *error,
                         size_t size)
{
    filling f = {.item = item};
    size_t bytes;
    snprintf(f.number, sizeof f.number, "%" PRIu64, item->number);
    snprintf(f.slot, sizeof f.slot, "%u", slot);
    if (!is_filled(t, item, error, size))
        return NULL;
    size_t lead = t->script ? 4 : 0;
    size_t n = write_arguments(t, &f, NULL, NULL, &bytes);
    char **argv = malloc((lead + n + 1) * sizeof *argv + bytes);
    if (!argv) {
        snprintf(error, size, "out of memory");
        return NULL;
    }
    if (t->script) {
        static char shell[] = SHELL, c[] = "-c", name[] = "sh";
        argv[0] = shell, argv[1] = c, argv[2] = t->script, argv[3] = name;
    }
    write_arguments(t, &f, argv + lead, (char *)(argv + lead + n + 1), &bytes);
    argv[lead + n] = NULL;
    return argv;
}
