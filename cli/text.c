/* text.c - numbers for people, and characters of UTF-8; see text.h. */
#include "text.h"

#include <inttypes.h>
#include <langinfo.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Three digits that matter, or two and a point: 1.2, 34, 567. */
static cli_text scaled(double n, const char *unit)
{
    cli_text t;
    snprintf(t.s, sizeof t.s, n < 9.95 ? "%.1f%s" : "%.0f%s", n, unit);
    return t;
}

cli_text text_count(double n)
{
    static const char *const units[] = {"", "k", "M", "G", "T", "P", "E"};
    size_t i = 0;
    if (!(n >= 0))
        n = 0;
    for (; n >= 999.5 && i + 1 < sizeof units / sizeof *units; i++)
        n /= 1000;
    if (i > 0)
        return scaled(n, units[i]);
    cli_text t;
    snprintf(t.s, sizeof t.s, "%.0f", n);
    return t;
}

cli_text text_rate(double per_s)
{
    cli_text t;
    if (!(per_s >= 0.005))
        return text_count(0);
    if (per_s >= 9.95)
        return text_count(per_s);
    snprintf(t.s, sizeof t.s, per_s < 0.095 ? "%.2f" : "%.1f", per_s);
    return t;
}

static cli_text in_two(double seconds, double unit, const char *large, double part,
                       const char *small)
{
    cli_text t;
    double whole = floor(seconds / unit);
    snprintf(t.s, sizeof t.s, "%.0f%s%02.0f%s", whole, large,
             floor((seconds - whole * unit) / part), small);
    return t;
}

cli_text text_time(double ns)
{
    if (!(ns >= 0.5))
        return text_count(0);
    if (ns < 999.5) {
        cli_text t;
        snprintf(t.s, sizeof t.s, "%.0fns", ns);
        return t;
    }
    if (ns < 999.5e3)
        return scaled(ns / 1e3, "us");
    if (ns < 999.5e6)
        return scaled(ns / 1e6, "ms");
    double s = ns / 1e9;
    if (s < 59.5)
        return scaled(s, "s");
    if (s < 3600)
        return in_two(s, 60, "m", 1, "s");
    return s < 86400 ? in_two(s, 3600, "h", 60, "m") : in_two(s, 86400, "d", 3600, "h");
}

cli_text text_bytes(double bytes)
{
    static const char *const units[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB"};
    size_t i = 0;
    for (; bytes >= 1023.5 && i + 1 < sizeof units / sizeof *units; i++)
        bytes /= 1024;
    if (i > 0)
        return scaled(bytes, units[i]);
    cli_text t;
    snprintf(t.s, sizeof t.s, "%.0f B", bytes);
    return t;
}

cli_text text_share(double share)
{
    cli_text t;
    snprintf(t.s, sizeof t.s, "%.0f %%", 100 * share);
    return t;
}

cli_text text_objects(uint64_t n)
{
    cli_text t;
    snprintf(t.s, sizeof t.s, "%" PRIu64 " object%s", n, n == 1 ? "" : "s");
    return t;
}

/* ---- characters ----------------------------------------------------------------------------- */

/* How many bytes follow the first one; < 0: it is none. */
static int followers(unsigned char first)
{
    if (first < 0x80)
        return 0;
    if (first < 0xc2)
        return -1;
    return first < 0xe0 ? 1 : first < 0xf0 ? 2 : first < 0xf5 ? 3 : -1;
}

/* The code of the next one; '?' for what is none, and for control characters. */
static unsigned decode(const char **utf8)
{
    static const unsigned least[] = {0, 0x80, 0x800, 0x10000};
    const unsigned char *at = (const unsigned char *)*utf8;
    if (!*at)
        return 0;
    *utf8 += 1;
    int more = followers(*at);
    if (more <= 0)
        return more < 0 || *at < ' ' || *at == 0x7f ? '?' : *at;
    unsigned c = *at & (0x3fU >> more);
    for (int i = 1; i <= more; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return '?';
        c = c << 6 | (at[i] & 0x3f);
    }
    if (c < least[more] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return '?';
    *utf8 += more;
    return c;
}

/* What makes a terminal show the rest of a line in another order: marks, embeddings, overrides, isolates. */
static bool is_bidi_control(unsigned c)
{
    return c == 0x61c || c == 0x200e || c == 0x200f || (c >= 0x202a && c <= 0x202e) ||
           (c >= 0x2066 && c <= 0x2069);
}

wchar_t text_next(const char **utf8)
{
    unsigned c = decode(utf8);
    if (c < 0x80)
        return (wchar_t)c;
    /* What moves the cursor, or takes no room, would shift all that comes behind. */
    bool is_shown = text_is_utf8() && wcwidth((wchar_t)c) > 0 && !is_bidi_control(c);
    return is_shown ? (wchar_t)c : L'?';
}

/* Where the locale knows no UTF-8 the bytes go out as they are: it may be a file, or another program's. */
void text_print(const char *utf8, int width)
{
    for (int used = 0; *utf8;) {
        const char *begin = utf8, *end = utf8;
        unsigned code = decode(&end);
        wchar_t c = text_next(&utf8);
        used += wcwidth(c);
        if (width >= 0 && used > width)
            return;
        bool is_hidden = c == L'?' && (text_is_utf8() || code == '?' || is_bidi_control(code));
        if (is_hidden)
            putchar('?');
        else
            fwrite(begin, 1, (size_t)(end - begin), stdout);
    }
}

void text_plain(char *text, size_t length, char instead)
{
    for (char *end = text + length; text < end;) {
        const char *next = text;
        unsigned char first = (unsigned char)*text;
        unsigned c = decode(&next);
        bool is_alone = next == text + 1;
        bool is_control = is_alone ? first < 0x20 || (first >= 0x7f && first < 0xa0) : c < 0xa0;
        if (*text == '\0')
            return;
        for (; text < next && text < end; text++)
            *text = is_control ? instead : *text;
    }
}

size_t text_cut(const char *utf8, size_t size)
{
    while (size > 0 && ((unsigned char)utf8[size] & 0xc0) == 0x80)
        size--;
    return size;
}

size_t text_width(const char *utf8)
{
    size_t width = 0;
    for (wchar_t c; (c = text_next(&utf8));)
        width += (size_t)wcwidth(c);
    return width;
}

bool text_is_utf8(void)
{
    return strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}
