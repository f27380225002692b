/* out.c - see out.h. */
#include "observe/out.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void weir__out_begin(weir__out *out, weir_write_fn *write, void *ctx)
{
    out->write = write;
    out->ctx = ctx;
    out->rc = WEIR_OK;
    out->n = 0;
}

static void flush(weir__out *out)
{
    if (out->n > 0 && out->rc >= 0)
        out->rc = out->write(out->ctx, out->text, out->n);
    out->n = 0;
}

int weir__out_end(weir__out *out)
{
    flush(out);
    return out->rc < 0 ? out->rc : WEIR_OK;
}

static void put(weir__out *out, const char *text, size_t n)
{
    while (n > 0) {
        if (out->n == sizeof out->text)
            flush(out);
        size_t room = sizeof out->text - out->n, piece = n < room ? n : room;
        memcpy(out->text + out->n, text, piece);
        out->n += piece;
        text += piece;
        n -= piece;
    }
}

void weir__out_text(weir__out *out, const char *text)
{
    put(out, text, strlen(text));
}

/* ---- numbers -------------------------------------------------------------------------------- */

void weir__out_count(weir__out *out, uint64_t n)
{
    char text[24];
    put(out, text, (size_t)snprintf(text, sizeof text, "%" PRIu64, n));
}

void weir__out_signed(weir__out *out, int64_t n)
{
    char text[24];
    put(out, text, (size_t)snprintf(text, sizeof text, "%" PRId64, n));
}

/* A whole part, and a fraction of so many digits without the zeros behind. */
static void put_decimal(weir__out *out, uint64_t whole, uint64_t fraction, int digits)
{
    char text[48];
    int n = snprintf(text, sizeof text, "%" PRIu64 ".%0*" PRIu64, whole, digits, fraction);
    while (text[n - 1] == '0')
        n--;
    put(out, text, (size_t)(text[n - 1] == '.' ? n - 1 : n));
}

void weir__out_seconds(weir__out *out, uint64_t ns)
{
    put_decimal(out, ns / 1000000000, ns % 1000000000, 9);
}

void weir__out_double(weir__out *out, double value)
{
    if (value < 0)
        weir__out_text(out, "-");
    double size = value < 0 ? -value : value;
    if (!(size < 1e12)) { /* or no number, which it never is */
        char text[32];
        int n = snprintf(text, sizeof text, "%.6e", size < 1e300 ? size : 1e300);
        for (int i = 0; i < n; i++)
            if (text[i] == ',') /* of the locale */
                text[i] = '.';
        put(out, text, (size_t)n);
        return;
    }
    uint64_t millionths = (uint64_t)(size * 1e6 + 0.5);
    put_decimal(out, millionths / 1000000, millionths % 1000000, 6);
}

/* ---- strings -------------------------------------------------------------------------------- */

static bool continues(unsigned char byte)
{
    return (byte & 0xc0) == 0x80;
}

/* How many bytes the character at the beginning has; 0: it is none.  (Not cut off: a terminator ends it.) */
static size_t character(const unsigned char *s)
{
    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xc2 && s[0] < 0xe0)
        return continues(s[1]) ? 2 : 0;
    if (s[0] >= 0xe0 && s[0] < 0xf0) {
        bool is_short = s[0] == 0xe0 && s[1] < 0xa0, is_surrogate = s[0] == 0xed && s[1] > 0x9f;
        return continues(s[1]) && continues(s[2]) && !is_short && !is_surrogate ? 3 : 0;
    }
    if (s[0] >= 0xf0 && s[0] < 0xf5) {
        bool is_short = s[0] == 0xf0 && s[1] < 0x90, is_beyond = s[0] == 0xf4 && s[1] > 0x8f;
        return continues(s[1]) && continues(s[2]) && continues(s[3]) && !is_short && !is_beyond ? 4
                                                                                                : 0;
    }
    return 0;
}

static void put_quoted(weir__out *out, const char *text,
                       void (*put_one)(weir__out *out, unsigned char byte))
{
    put(out, "\"", 1);
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        size_t n = character(s);
        if (n == 1)
            put_one(out, *s);
        else if (n > 1)
            put(out, (const char *)s, n);
        else
            weir__out_text(out, "\xef\xbf\xbd"); /* U+FFFD */
        s += n > 0 ? n : 1;
    }
    put(out, "\"", 1);
}

static void put_in_label(weir__out *out, unsigned char byte)
{
    char c = (char)byte;
    if (byte == '\n')
        weir__out_text(out, "\\n");
    else if (byte == '"' || byte == '\\')
        put(out, (char[]){'\\', c}, 2);
    else
        put(out, &c, 1);
}

static void put_in_string(weir__out *out, unsigned char byte)
{
    char escape[8];
    if (byte < ' ' || byte == 0x7f)
        put(out, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", byte));
    else
        put_in_label(out, byte);
}

void weir__out_label(weir__out *out, const char *text)
{
    put_quoted(out, text, put_in_label);
}

void weir__out_string(weir__out *out, const char *text)
{
    put_quoted(out, text, put_in_string);
}
