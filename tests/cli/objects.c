/* objects.c - has objects with known numbers until its stdin ends; for the tests of the command.
 *
 *     objects [NAME]      a queue of that name ("jobs"): 7 items put, 3 got, 2 refused, room for 6 more
 *
 * Prints its pid when they are there.
 */
#include <stdio.h>
#include <unistd.h>

#include <weir/weir.h>

int main(int argc, char *argv[])
{
    static int item;
    weir_queue *queue = NULL, *full = NULL;
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = 10;
    opts.on_drop = weir_drop_ignore;
    opts.name = argc > 1 ? argv[1] : "jobs";
    if (weir_queue_create(&queue, &opts) < 0)
        return 1;
    opts.capacity = 2;
    opts.name = "full";
    if (weir_queue_create(&full, &opts) < 0)
        return 1;
    for (int i = 0; i < 7; i++)
        weir_queue_put(queue, &item, 100, WEIR_POLL);
    for (int i = 0; i < 3; i++) {
        void *got;
        weir_queue_get(queue, &got, WEIR_POLL);
    }
    for (int i = 0; i < 4; i++)
        weir_queue_put(full, &item, 0, WEIR_POLL);
    printf("%d\n", (int)getpid());
    fflush(stdout);
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
    weir_queue_destroy(queue);
    weir_queue_destroy(full);
    return 0;
}
