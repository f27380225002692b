/* options.c - the command line, read by a table: arguments are the lines of the input. */
#include "fuzz.h"

#include <math.h>

#include "command.h"

#define ARGUMENTS 64

static bool flag;
static const char *word;
static int64_t number;
static double seconds;

static const option_row rows[] = {
    {'a', "all", NULL, OPTION_FLAG, &flag, 0, 0, "a flag"},
    {'n', "name", "NAME", OPTION_TEXT, &word, 0, 0, "a text"},
    {'j', "jobs", "N", OPTION_NUMBER, &number, 1, 4096, "a number"},
    {'\0', "interval", "SECONDS", OPTION_SECONDS, &seconds, 0.1, 3600, "a time"},
    OPTIONS_END,
};

static const cli_command command = {.name = "fuzz", .about = "A command.\n", .operands = "WORD..."};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = {data, size};
    char name[] = "fuzz", *argv[ARGUMENTS + 2] = {name}, **rest, *save = NULL;
    char *text = fuzz_text(&f);
    int argc = 1;
    for (char *at = strtok_r(text, "\n", &save); at && argc < ARGUMENTS; argc++) {
        argv[argc] = at;
        at = strtok_r(NULL, "\n", &save);
    }
    flag = false, word = NULL, number = 1, seconds = 1;
    int rc = options_read_some(&command, rows, argc, argv, &rest);
    must(rc == GO_ON || rc == EXIT_SUCCESS || rc == EXIT_FAILURE || rc == EXIT_USAGE);
    must(number >= 1 && number <= 4096 && seconds >= 0.1 && seconds <= 3600);
    must(rc != GO_ON || (rest > argv && rest <= argv + argc));
    options_read(&command, rows, argc, argv);
    free(text);
    return 0;
}
