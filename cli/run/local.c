/* local.c - jobs as processes of this machine; see job.h.
 *
 * Started by posix_spawn, which does not copy page tables: what a start costs does not grow with our memory.
 * Each is the leader of a process group of its own.  An end is only looked at (WNOWAIT) until it is forgotten: as
 * long as the leader is a zombie its pid is nobody else's, so the group that is killed is its own; and if we are
 * killed, whoever inherits our children sees the end as well.
 *
 * One descriptor (SIGCHLD) for all of them: a pidfd for each would cost three more system calls a job.
 */
#include "descriptors.h"
#include "job.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

typedef struct local {
    run_place place;
    posix_spawnattr_t attributes;
    int children; /* signalfd of SIGCHLD */
    char **environment;
    char mark[128]; /* the first of it */
} local;

/* ---- starting ------------------------------------------------------------------------------- */

/* `program` is where argv[0] was found; with a name only, PATH is searched each time. */
static int spawn(local *l, const run_order *order, const posix_spawn_file_actions_t *actions,
                 pid_t *ret_pid)
{
    char **environment = l->environment + (order->mark ? 0 : 1);
    if (!order->program)
        return posix_spawnp(ret_pid, order->argv[0], actions, &l->attributes, order->argv,
                            environment);
    int rc =
        posix_spawn(ret_pid, order->program, actions, &l->attributes, order->argv, environment);
    if (rc != ENOEXEC)
        return rc;
    size_t n = 0; /* a script that does not say whose: sh's, as everywhere */
    while (order->argv[n])
        n++;
    char **argv = calloc(n + 2, sizeof *argv), shell[] = "/bin/sh";
    if (!argv)
        return ENOMEM;
    argv[0] = shell;
    argv[1] = (char *)(uintptr_t)order->program;
    for (size_t i = 1; i < n; i++)
        argv[i + 1] = order->argv[i];
    rc = posix_spawn(ret_pid, shell, actions, &l->attributes, argv, environment);
    free(argv);
    return rc;
}

static int spawn_with_limit(local *l, const run_order *order,
                            const posix_spawn_file_actions_t *actions, pid_t *ret_pid)
{
    run_descriptors_lower();
    int rc = spawn(l, order, actions, ret_pid);
    run_descriptors_raise();
    return rc;
}

static int local_start(run_place *place, const run_order *order, run_job *ret_job)
{
    local *l = (local *)place;
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int rc = posix_spawn_file_actions_init(&actions);
    if (rc)
        return rc;
    if (order->mark)
        snprintf(l->mark, sizeof l->mark, RUN_MARK "=%s", order->mark);
    rc = posix_spawn_file_actions_adddup2(&actions, order->in, STDIN_FILENO);
    if (!rc)
        rc = posix_spawn_file_actions_adddup2(&actions, order->out, STDOUT_FILENO);
    if (!rc)
        rc = posix_spawn_file_actions_adddup2(&actions, order->err, STDERR_FILENO);
    if (!rc)
        rc = spawn_with_limit(l, order, &actions, &pid);
    posix_spawn_file_actions_destroy(&actions);
    if (!rc)
        *ret_job = pid;
    return rc;
}

static void local_signal(run_place *place, run_job job, int signal)
{
    (void)place;
    kill(-(pid_t)job, signal);
    if (signal != SIGKILL && signal != SIGSTOP && signal != SIGCONT)
        kill(-(pid_t)job, SIGCONT); /* who is stopped would not hear it */
}

/* ---- reaping -------------------------------------------------------------------------------- */

static int64_t ns_of(struct timeval t)
{
    return t.tv_sec * INT64_C(1000000000) + t.tv_usec * INT64_C(1000);
}

#define ALL (WEXITED | WSTOPPED | WCONTINUED)

/* The system call tells what was used as well, which the function of libc does not. */
static bool look(siginfo_t *ret_info, struct rusage *ret_used)
{
    ret_info->si_pid = 0;
    return syscall(SYS_waitid, P_ALL, 0, ret_info, ALL | WNOHANG | WNOWAIT, ret_used) == 0 &&
           ret_info->si_pid != 0;
}

static bool local_reap(run_place *place, run_news *ret_news)
{
    (void)place;
    siginfo_t info;
    struct rusage used;
    if (!look(&info, &used))
        return false;
    *ret_news = (run_news){.job = info.si_pid};
    if (info.si_code == CLD_STOPPED || info.si_code == CLD_CONTINUED) {
        bool is_stopped = info.si_code == CLD_STOPPED;
        ret_news->kind = is_stopped ? RUN_NEWS_STOPPED : RUN_NEWS_CONTINUED;
        ret_news->signal = info.si_status;
        waitid(P_PID, (id_t)info.si_pid, &info, WSTOPPED | WCONTINUED | WNOHANG); /* told once */
        return true;
    }
    ret_news->status = info.si_code == CLD_EXITED ? info.si_status : 0;
    ret_news->signal = info.si_code == CLD_EXITED ? 0 : info.si_status;
    ret_news->peak_bytes = (uint64_t)used.ru_maxrss << 10;
    ret_news->cpu_ns = ns_of(used.ru_utime) + ns_of(used.ru_stime);
    kill(-info.si_pid, SIGKILL); /* what it has left behind */
    return true;
}

static void local_forget(run_place *place, run_job job)
{
    (void)place;
    while (waitpid((pid_t)job, NULL, 0) < 0 && errno == EINTR)
        continue;
}

/* Signals that come while there is one already are one: so all of it is read before who ended is looked for. */
static int local_watch(run_place *place)
{
    local *l = (local *)place;
    struct signalfd_siginfo ignored;
    while (read(l->children, &ignored, sizeof ignored) > 0)
        continue;
    return l->children;
}

/* ---- opening -------------------------------------------------------------------------------- */

static void local_close(run_place *place)
{
    local *l = (local *)place;
    close(l->children);
    posix_spawnattr_destroy(&l->attributes);
    free(l->environment);
    free(l);
}

static const run_place_type type_local = {
    .start = local_start,
    .watch = local_watch,
    .reap = local_reap,
    .forget = local_forget,
    .signal = local_signal,
    .close = local_close,
};

static int set_attributes(local *l, const sigset_t *mask)
{
    sigset_t handled;
    sigemptyset(&handled);
    sigaddset(&handled, SIGPIPE); /* which a run ignores */
    sigaddset(&handled, SIGXFSZ);
    posix_spawnattr_setflags(&l->attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                                 POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setpgroup(&l->attributes, 0);
    posix_spawnattr_setsigmask(&l->attributes, mask);
    return posix_spawnattr_setsigdefault(&l->attributes, &handled);
}

/* Ours, behind a place for the mark of a job. */
static bool copy_environment(local *l)
{
    size_t n = 0, kept = 1;
    while (environ[n])
        n++;
    l->environment = calloc(n + 2, sizeof *l->environment);
    if (!l->environment)
        return false;
    l->environment[0] = l->mark;
    for (char **entry = environ; *entry; entry++) {
        if (strncmp(*entry, RUN_MARK "=", sizeof RUN_MARK) != 0)
            l->environment[kept++] = *entry;
    }
    return true;
}

run_place *run_local_open(const sigset_t *mask)
{
    local *l = calloc(1, sizeof *l);
    sigset_t children;
    if (!l)
        return NULL;
    l->place.type = &type_local;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, NULL);
    signal(SIGCHLD,
           SIG_DFL); /* a parent that ignores it would have us ignore it, and reap nothing */
    l->children = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
    if (l->children >= 0 && copy_environment(l) && posix_spawnattr_init(&l->attributes) == 0) {
        set_attributes(l, mask);
        return &l->place;
    }
    free(l->environment);
    free(l);
    return NULL;
}
