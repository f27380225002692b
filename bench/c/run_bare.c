/* run_bare.c - the least that running a program so often can cost: posix_spawn, wait, again.
 * As all the others it gives each an argument, its number, which the program may look at.
 *
 *     run_bare JOBS AT_A_TIME PROGRAM
 */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

extern char **environ;

static void start(char *program, long n)
{
    char number[24], *argv[] = {program, number, NULL};
    pid_t pid;
    snprintf(number, sizeof number, "%ld", n);
    if (posix_spawn(&pid, program, NULL, NULL, argv, environ) != 0)
        abort();
}

int main(int argc, char *argv[])
{
    if (argc != 4)
        return 2;
    long jobs = atol(argv[1]), at_a_time = atol(argv[2]), started = 0, ended = 0;
    while (ended < jobs) {
        for (; started < jobs && started - ended < at_a_time; started++)
            start(argv[3], started + 1);
        if (wait(NULL) < 0)
            abort();
        ended++;
    }
    return 0;
}
