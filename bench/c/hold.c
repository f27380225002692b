/* hold.c - preloaded into a runner, makes it hold memory before it begins, and its jobs not.
 *
 *     WEIR_BENCH_HOLD="MIB FD" LD_PRELOAD=libhold.so RUNNER...
 *
 * Each page is written to; then FD is closed, which says so.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((constructor)) static void hold(void)
{
    const char *told = getenv("WEIR_BENCH_HOLD");
    size_t mib;
    int fd;
    if (!told || sscanf(told, "%zu %d", &mib, &fd) != 2)
        return;
    unsetenv("LD_PRELOAD"); /* jobs inherit what is left */
    unsetenv("WEIR_BENCH_HOLD");
    char *held = malloc((mib << 20) + 1);
    if (!held)
        abort();
    memset(held, 1, mib << 20);
    close(fd);
}
