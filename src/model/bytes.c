/* bytes.c - see bytes.h. */
#include "model/bytes.h"

#include <stddef.h>

#define BYTES_MAX (UINT64_C(1) << 62)

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool is(const char *text, const char *word)
{
    while (*word && lower(*text) == *word) {
        text++;
        word++;
    }
    return *word == '\0' && *text == '\0';
}

/* The factor of a unit; 0: there is no such unit. */
static uint64_t factor_of(const char *unit)
{
    static const char letters[] = "kmgt";
    if (is(unit, "") || is(unit, "b"))
        return 1;
    uint64_t binary = 1, decimal = 1;
    for (const char *letter = letters; *letter; letter++) {
        binary *= 1024;
        decimal *= 1000;
        if (lower(*unit) != *letter)
            continue;
        if (is(unit + 1, "") || is(unit + 1, "i") || is(unit + 1, "ib"))
            return binary;
        return is(unit + 1, "b") ? decimal : 0;
    }
    return 0;
}

/* Reads digits, with a point among them or not, into whole and part / 10^digits. */
static const char *read_number(const char *at, uint64_t *ret_whole, double *ret_part)
{
    const char *begin = at;
    uint64_t whole = 0;
    double part = 0, scale = 1;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (whole > BYTES_MAX)
            return NULL;
        whole = whole * 10 + (uint64_t)(*at - '0');
    }
    bool digits = at > begin;
    if (*at == '.')
        for (at++; *at >= '0' && *at <= '9'; at++, digits = true)
            part += (*at - '0') * (scale /= 10);
    *ret_whole = whole;
    *ret_part = part;
    return digits ? at : NULL;
}

bool weir__parse_amount(const char *text, weir__amount *ret_amount)
{
    uint64_t whole;
    double part;
    while (is_blank(*text))
        text++;
    const char *unit = read_number(text, &whole, &part);
    if (!unit)
        return false;
    while (is_blank(*unit))
        unit++;
    if (is(unit, "%")) {
        double percent = (double)whole + part;
        if (percent <= 0 || percent > 100)
            return false;
        *ret_amount = (weir__amount){.fraction = percent / 100};
        return true;
    }
    uint64_t factor = factor_of(unit);
    if (factor == 0 || whole >= BYTES_MAX / factor)
        return false;
    uint64_t bytes = whole * factor + (uint64_t)(part * (double)factor);
    if (bytes == 0)
        return false;
    *ret_amount = (weir__amount){.bytes = bytes};
    return true;
}
