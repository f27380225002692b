/* options.c - reads options by a table, and writes the help from the same table; see command.h.
 *
 * -x, --long, -d2, -d 2, --interval=2, --interval 2, and flags in one: -tr.  What a command
 * does not say it takes is complained about.
 */
#include "command.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT 26 /* the column at which the texts of the help begin */

static void print_option(const option_row *row)
{
    char left[64];
    int n = row->letter ? snprintf(left, sizeof left, "  -%c, ", row->letter)
                        : snprintf(left, sizeof left, "      ");
    n += snprintf(left + n, sizeof left - (size_t)n, "--%s%s%s", row->name, row->value ? " " : "",
                  row->value ? row->value : "");
    printf("%-*s%s%s\n", AT, left, n >= AT ? " " : "", row->help);
}

static int print_help(const cli_command *command, const option_row rows[])
{
    static const option_row help = {'h', "help", NULL, OPTION_FLAG, NULL, 0, 0, "print this"};
    printf("usage: weir %s [options]%s%s\n\n%s\noptions:\n", command->name,
           command->operands ? " " : "", command->operands ? command->operands : "",
           command->about);
    for (const option_row *row = rows; row->name; row++)
        print_option(row);
    print_option(&help);
    printf("\nweir-%s(1) tells more.\n", command->name);
    return flush_stdout(command->name) ? EXIT_SUCCESS : EXIT_FAILURE;
}

static const char *name_of_row(const void *ctx, size_t i)
{
    return ((const option_row *)ctx)[i].name;
}

static int complain_unknown(const cli_command *command, const option_row rows[], const char *said)
{
    const char *name = strncmp(said, "--", 2) == 0 ? nearest(said + 2, name_of_row, rows) : NULL;
    complain(command->name, "there is no option \"%s\"%s%s%s; see weir %s --help", said,
             name ? " (did you mean --" : "", name ? name : "", name ? "?)" : "", command->name);
    return EXIT_USAGE;
}

/* ---- values --------------------------------------------------------------------------------- */

static bool read_number(const char *text, double *ret)
{
    char *end;
    *ret = strtod(text, &end);
    return end != text && *end == '\0' && isfinite(*ret);
}

static int complain_value(const cli_command *command, const option_row *row, const char *text)
{
    const char *what = row->type == OPTION_SECONDS ? "a number of seconds" : "a whole number";
    complain(command->name, "--%s: \"%s\" is not %s from %.10g to %.10g", row->name, text, what,
             row->min, row->max);
    return EXIT_USAGE;
}

static int set(const cli_command *command, const option_row *row, const char *text)
{
    double number;
    if (row->type == OPTION_FLAG) {
        *(bool *)row->into = true;
        return GO_ON;
    }
    if (row->type == OPTION_TEXT) {
        *(const char **)row->into = text;
        return GO_ON;
    }
    if (!read_number(text, &number) || number < row->min || number > row->max ||
        (row->type == OPTION_NUMBER && number != floor(number)))
        return complain_value(command, row, text);
    if (row->type == OPTION_SECONDS)
        *(double *)row->into = number;
    else
        *(int64_t *)row->into = (int64_t)number;
    return GO_ON;
}

/* ---- reading -------------------------------------------------------------------------------- */

typedef struct reading {
    const cli_command *command;
    const option_row *rows;
    char **next; /* the next argument; NULL ends them */
} reading;

/* With its value, which is `attached` or the next argument. */
static int take(reading *r, const option_row *row, const char *attached)
{
    if (!row->value && attached) {
        complain(r->command->name, "--%s takes no value, but was given \"%s\"", row->name,
                 attached);
        return EXIT_USAGE;
    }
    if (row->value && !attached && !(attached = *r->next++)) {
        complain(r->command->name, "--%s needs a value: --%s %s", row->name, row->name, row->value);
        return EXIT_USAGE;
    }
    return set(r->command, row, attached ? attached : "");
}

static int take_long(reading *r, const char *arg)
{
    const char *name = arg + 2;
    size_t n = strcspn(name, "=");
    if (strcmp(name, "help") == 0)
        return print_help(r->command, r->rows);
    for (const option_row *row = r->rows; row->name; row++) {
        if (strlen(row->name) == n && strncmp(row->name, name, n) == 0)
            return take(r, row, name[n] ? name + n + 1 : NULL);
    }
    return complain_unknown(r->command, r->rows, arg);
}

static const option_row *by_letter(const option_row *row, char letter)
{
    for (; row->name; row++) {
        if (row->letter == letter)
            return row;
    }
    return NULL;
}

static int take_letters(reading *r, const char *letters)
{
    int rc = GO_ON;
    while (*letters && rc == GO_ON) {
        const option_row *row = by_letter(r->rows, *letters++);
        if (letters[-1] == 'h' && !row)
            return print_help(r->command, r->rows);
        if (!row) {
            const char said[] = {'-', letters[-1], '\0'};
            return complain_unknown(r->command, r->rows, said);
        }
        if (row->value)
            return take(r, row, *letters ? letters : NULL);
        rc = take(r, row, NULL);
    }
    return rc;
}

static int complain_operand(const cli_command *command, const char *said)
{
    complain(command->name,
             "\"%s\" is not an option, and nothing else is expected; see weir %s --help", said,
             command->name);
    return EXIT_USAGE;
}

int options_read_some(const cli_command *command, const option_row rows[], int argc, char *argv[],
                      char ***ret_rest)
{
    reading r = {.command = command, .rows = rows, .next = argc > 0 ? argv + 1 : argv};
    int rc = GO_ON;
    while (rc == GO_ON && *r.next) {
        const char *arg = *r.next;
        if (arg[0] != '-' || !arg[1])
            break;
        r.next++;
        if (strcmp(arg, "--") == 0)
            break;
        rc = arg[1] == '-' ? take_long(&r, arg) : take_letters(&r, arg + 1);
    }
    *ret_rest = r.next;
    return rc;
}

int options_read(const cli_command *command, const option_row rows[], int argc, char *argv[])
{
    char **rest;
    int rc = options_read_some(command, rows, argc, argv, &rest);
    return rc == GO_ON && *rest ? complain_operand(command, *rest) : rc;
}
