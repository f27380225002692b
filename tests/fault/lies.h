/* lies.h - files with a page's name that are no pages, or pages that lie; for who reads them. */
#ifndef WEIR_TESTS_FAULT_LIES_H
#define WEIR_TESTS_FAULT_LIES_H

#include "contract/support.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/page.h"
#include "contract/folder.h"
#include "unit/chance.h"

#define HOSTILE 1000
#define FIRST   8 /* records in a new page */
#define SIZE    (sizeof(weir__page_head) + FIRST * sizeof(weir__page_record))

static weir__random chance = {2026};
_Alignas(weir__page_record) static unsigned char whole[SIZE]; /* a page as it should be */

/* Asked of the page of a child with a few queues, whose lock and life do not matter here. */
static inline void copy_a_page(void)
{
    int ready[2], end[2];
    must(pipe(ready) == 0 && pipe(end) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        char byte;
        close(end[1]);
        setenv("WEIR_STATS_DIR", folder, 1);
        for (int i = 0; i < 5; i++) {
            weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
            weir_queue *queue;
            opts.capacity = 10;
            opts.on_drop = weir_drop_ignore;
            must(weir_queue_create(&queue, &opts) == WEIR_OK);
            must(weir_queue_put(queue, NULL, 1, WEIR_POLL) == WEIR_KEPT);
        }
        must(write(ready[1], "", 1) == 1);
        must(read(end[0], &byte, 1) == 0);
        exit(0);
    }
    char byte, path[512] = "";
    must(read(ready[0], &byte, 1) == 1);
    must(each_file("", note_path, path) == 1);
    int fd = open(path, O_RDONLY);
    must(fd >= 0 && pread(fd, whole, SIZE, 0) == (ssize_t)SIZE);
    close(fd);
    close(end[1]);
    must(waitpid(pid, NULL, 0) == pid);
}

static inline int begin(void **state)
{
    must(begin_folder(state) == 0);
    copy_a_page();
    return 0;
}

/* A file with a page's name that is locked as one of a process that lives; its descriptor. */
static inline int lie(unsigned number, const void *data, size_t size)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%u-1", folder, number + 1);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    must(fd >= 0 && fcntl(fd, F_OFD_SETLK, &lock) == 0);
    must(write(fd, data, size) == (ssize_t)size);
    return fd;
}

static inline void fill_with_noise(unsigned char *data, size_t n)
{
    for (size_t i = 0; i < n; i++)
        data[i] = (unsigned char)weir__random_next(&chance);
}

/* What was a page until something happened to it; how many bytes are left. */
static inline size_t distort(unsigned char *data, unsigned kind)
{
    weir__page_head *head = (weir__page_head *)(void *)data;
    memcpy(data, whole, SIZE);
    switch (kind % 6) {
    case 0: /* noise */ fill_with_noise(data, SIZE); return below(&chance, SIZE);
    case 1: /* cut off */ return below(&chance, SIZE);
    case 2: /* some bits turned, anywhere */
        for (int i = 0; i < 20; i++)
            data[below(&chance, SIZE)] ^= (unsigned char)(1u << below(&chance, 8));
        return SIZE;
    case 3: /* some bits of the head turned */
        for (int i = 0; i < 3; i++)
            data[below(&chance, 64)] ^= (unsigned char)(1u << below(&chance, 8));
        return SIZE;
    case 4: /* numbers as large as can be */
        memset(&head->records, 0xff, sizeof head->records);
        memset(data + sizeof *head + 8, 0xff, SIZE - sizeof *head - 8);
        return SIZE - below(&chance, 2) * below(&chance, SIZE);
    default: /* a head, and noise */
        head->records = below(&chance, 1u << 31);
        fill_with_noise(data + sizeof *head, SIZE - sizeof *head);
        return SIZE;
    }
}

#endif
