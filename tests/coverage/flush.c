/* flush.c - preloaded while coverage is measured: counters are also written where a process ends by _exit.
 *
 * Workers end like that, and would otherwise seem never to have run.  (One that is killed tells nothing:
 * what only it has run counts as not covered.)
 */
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OBJECTS_MAX = 64 };

static void (*dumps[OBJECTS_MAX])(void);
static int n_dumps; /* objects come with dlopen, under its lock */

void weir_coverage_register(void (*dump)(void));
void weir_coverage_register(void (*dump)(void))
{
    if (n_dumps < OBJECTS_MAX)
        dumps[n_dumps++] = dump;
}

void _exit(int status)
{
    for (int i = 0; i < n_dumps; i++)
        dumps[i]();
    for (;;)
        syscall(SYS_exit_group, status);
}

void _Exit(int status)
{
    _exit(status);
}
