/* main.c - the command `weir`: the table of its subcommands. */
#include "command.h"

#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cli_command *const commands[] = {
    &command_run, &command_ledger, &command_top, &command_stats, &command_export,
};

#define COMMANDS (sizeof commands / sizeof *commands)

static int print_usage(FILE *to)
{
    fputs(
        "usage: weir COMMAND [options]\n\n"
        "Runs a command for each item of a list, and sees what programs that use weir are doing.\n\n"
        "commands:\n",
        to);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(to, "  %-8s %s\n", commands[i]->name, commands[i]->summary);
    fputs("  help     print this, or the help of a command: weir help top\n\n"
          "weir COMMAND --help tells the options of a command, weir --version the version.\n",
          to);
    if (to == stderr)
        return EXIT_USAGE;
    return flush_stdout(NULL) ? EXIT_SUCCESS : EXIT_FAILURE;
}

static const cli_command *find(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    }
    return NULL;
}

static const char *name_of_command(const void *ctx, size_t i)
{
    (void)ctx;
    return i < COMMANDS ? commands[i]->name : i == COMMANDS ? "help" : NULL;
}

static int complain_unknown(const char *said)
{
    const char *name = nearest(said, name_of_command, NULL);
    const char *what = said[0] == '-' ? "option" : "command";
    complain(NULL, "there is no %s \"%s\"%s%s%s; see weir --help", what, said,
             name ? " (did you mean \"" : "", name ? name : "", name ? "\"?)" : "");
    return EXIT_USAGE;
}

static int help(int argc, char *argv[])
{
    if (argc < 2)
        return print_usage(stdout);
    if (argc > 2) {
        complain("help", "one command at a time: weir help %s", argv[1]);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "help") == 0)
        return print_usage(stdout);
    const cli_command *command = find(argv[1]);
    char flag[] = "--help", *args[] = {argv[1], flag, NULL};
    return command ? command->run(2, args) : complain_unknown(argv[1]);
}

/* A standard stream that is closed would be the next file or socket that is opened.  What takes its place can be
 * used for nothing, and says so: EBADF. */
static void occupy_standard_streams(void)
{
    static const int modes[] = {O_WRONLY, O_RDONLY, O_RDONLY};
    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) < 0)
            (void)!open("/dev/null", modes[fd]); /* the lowest that is free: this one */
    }
}

int main(int argc, char *argv[])
{
    occupy_standard_streams();
    setlocale(LC_CTYPE, "");
    if (argc < 2)
        return print_usage(stderr);
    const char *first = argv[1];
    if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0)
        return print_usage(stdout);
    if (strcmp(first, "help") == 0)
        return help(argc - 1, argv + 1);
    if (strcmp(first, "--version") == 0 || strcmp(first, "-V") == 0) {
        printf("weir %s\n", weir_version());
        return flush_stdout(NULL) ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    const cli_command *command = find(first);
    return command ? command->run(argc - 1, argv + 1) : complain_unknown(first);
}
