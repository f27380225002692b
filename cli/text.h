/* text.h - numbers for people: 1.2k, 340us, 1.5 MiB.
 *
 * Each is a value, so it can be used where it is made: puts(text_count(n).s).  Width: at most six columns,
 * bytes at most ten.
 */
#ifndef WEIR_CLI_TEXT_H
#define WEIR_CLI_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <wchar.h>

typedef struct cli_text {
    char s[72]; /* a name fits in */
} cli_text;

/* 0, 7, 999, 1.2k, 34k, 567k, 8.9M, ... */
cli_text text_count(double n);

/* The same with what is after the point where it matters: 0, 0.02, 0.4, 7.3, 12, 1.2k. */
cli_text text_rate(double per_s);

/* 0, 850ns, 3.4us, 340us, 12ms, 1.2s, 3m05s, 2h10m, 4d06h */
cli_text text_time(double ns);

/* 512 B, 1.5 KiB, 45 MiB */
cli_text text_bytes(double bytes);

/* 7 % */
cli_text text_share(double share);

/* 1 object, 2 objects */
cli_text text_objects(uint64_t n);

/* The next character of UTF-8, which is moved on; 0 at the end; '?' for what is none. */
wchar_t text_next(const char **utf8);

/* Prints it to stdout, with '?' for what is none and for what turns the line around (U+202E); cut at `width` columns,
 * unless width is < 0. */
void text_print(const char *utf8, int width);

/* In place: puts `instead` where a terminal would see a control character, also one of C1 (U+0080 to U+009F, or such a
 * byte alone).  Other bytes stay as they are, also those that are no UTF-8.  A byte that is none of UTF-8 follows. */
void text_plain(char *text, size_t length, char instead);

/* How much of a text that is longer than `size` bytes fits, without cutting a character of UTF-8. */
size_t text_cut(const char *utf8, size_t size);

/* How many columns that takes on a terminal. */
size_t text_width(const char *utf8);

/* Whether the terminal shows UTF-8. */
bool text_is_utf8(void);

#endif
