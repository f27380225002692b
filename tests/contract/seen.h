/* seen.h - what other processes see of a test's objects, read in a process that has none of them. */
#ifndef WEIR_TESTS_CONTRACT_SEEN_H
#define WEIR_TESTS_CONTRACT_SEEN_H

#include "folder.h"

#include <sys/wait.h>

#include <weir/stats.h>

static inline int make_folder(void **state)
{
    return begin_folder(state) < 0 ? -1 : setenv("WEIR_STATS_DIR", folder, 1);
}

/* Takes what the program's own page leaves, too: it goes when the program exits, its folder now. */
static inline int remove_folder(void **state)
{
    return end_folder(state);
}

/* ---- looking from outside --------------------------------------------------------------------- */

/* What a process that is not the one that has the object reads. */
typedef struct look {
    bool found;
    weir_stats_process process;
    weir_stats_record record;
} look;

/* pid 0: of whichever process */
static inline bool find(look *ret, pid_t pid, const char *name)
{
    weir_stats *stats;
    must(weir_stats_open(&stats, NULL) == WEIR_OK);
    ret->process = (weir_stats_process)WEIR_STATS_PROCESS_INIT;
    ret->record = (weir_stats_record)WEIR_STATS_RECORD_INIT;
    int rc = 0;
    while (!ret->found && (rc = weir_stats_next_process(stats, &ret->process)) > 0)
        while (!ret->found && (rc = weir_stats_next_record(stats, &ret->record)) > 0)
            ret->found = strcmp(ret->record.name, name) == 0 && (!pid || ret->process.pid == pid);
    must(rc >= 0);
    weir_stats_close(stats);
    return ret->found;
}

static inline void send(int fd, const void *data, size_t n)
{
    for (ssize_t sent; n > 0; data = (const char *)data + sent, n -= (size_t)sent)
        must((sent = write(fd, data, n)) > 0);
}

/* In a child, which has only what it reads. */
static inline look look_in(pid_t of, const char *name)
{
    static look seen;
    int ends[2];
    must(pipe(ends) == 0);
    memset(&seen, 0, sizeof seen);
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        find(&seen, of, name);
        send(ends[1], &seen, sizeof seen);
        _exit(0);
    }
    close(ends[1]);
    char *at = (char *)&seen;
    for (ssize_t n; (n = read(ends[0], at, (size_t)((char *)(&seen + 1) - at))) > 0;)
        at += n;
    must(at == (char *)(&seen + 1));
    close(ends[0]);
    must(waitpid(pid, NULL, 0) == pid);
    return seen;
}

static inline look look_for(const char *name)
{
    return look_in(0, name);
}

static inline weir_stats_record see(const char *name)
{
    look seen = look_for(name);
    must(seen.found);
    return seen.record;
}

static inline weir_stats_record see_in(pid_t pid, const char *name)
{
    look seen = look_in(pid, name);
    must(seen.found);
    return seen.record;
}

#endif
