/* heir.c - the process in front, when the one behind was killed: its jobs are ours now, and so are their ends.
 *
 * A job leads a process group in our session, or, in the instant before it does, is of the group of the one behind;
 * others that were given to us have left theirs, and nobody waits for them.
 */
#include "command.h"
#include "guard.h"
#include "ledger.h"
#include "process.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct heir {
    run_schedule_opts schedule;
    run_ledger_opts opts;
    run_ledger *ledger; /* NULL: none is kept, or it cannot be written to */
    pid_t group;        /* of the one behind */
    int signal;         /* for each job; 0: none */
    int sent;           /* because somebody wanted them ended */
    unsigned jobs;
} heir;

static bool is_job(const heir *h, pid_t pid)
{
    pid_t group = getpgid(pid);
    return (group == pid || group == h->group) && getsid(pid) == getsid(0);
}

static bool signal_job(void *ctx, int64_t pid)
{
    heir *h = ctx;
    if (!is_job(h, (pid_t)pid) || run_process_parent(pid) != getpid())
        return true;
    h->jobs++;
    if (h->signal)
        kill(-(pid_t)pid, h->signal);
    kill(-(pid_t)pid, SIGCONT);
    return true;
}

/* Returns how many there are. */
static unsigned signal_all(heir *h, int signal)
{
    h->signal = signal;
    h->jobs = 0;
    run_process_each(signal_job, h);
    return h->jobs;
}

static void written(heir *h, bool ok)
{
    if (ok)
        return;
    complain("run", "%s", run_ledger_error(h->ledger));
    run_ledger_close(h->ledger);
    h->ledger = NULL;
}

static void write_end(heir *h, const siginfo_t *ended)
{
    int status = ended->si_code == CLD_EXITED ? ended->si_status << 8 : ended->si_status;
    kill(-ended->si_pid, SIGKILL); /* what it has left behind */
    if (h->ledger)
        written(h, run_ledger_inherit(h->ledger, &h->opts, ended->si_pid, status));
}

static void take_ends(heir *h)
{
    siginfo_t ended = {0};
    while (waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid != 0) {
        if (is_job(h, ended.si_pid))
            write_end(h, &ended);
        waitpid(ended.si_pid, NULL, 0);
        ended.si_pid = 0;
    }
}

/* Who wants them ended once more wants them killed.  What is ended by us is left to be done. */
static void end_all(heir *h)
{
    h->schedule.retries = UINT64_MAX;
    h->sent = h->sent ? SIGKILL : SIGTERM;
    signal_all(h, h->sent);
}

void run_inherit(const run_settings *settings, const sigset_t *ours, pid_t group, int signal)
{
    char error[512];
    heir h = {.schedule = settings->schedule, .group = group};
    unsigned jobs = signal_all(&h, 0);
    complain("run",
             "the process that runs the jobs was killed by SIG%s; nothing new is started, and %u "
             "jobs are waited for%s",
             sigabbrev_np(signal), jobs,
             settings->ledger ? "; --resume goes on with the list" : "");
    h.opts = (run_ledger_opts){.path = settings->ledger, .schedule = &h.schedule};
    if (settings->ledger && !(h.ledger = run_ledger_reopen(&h.opts, error, sizeof error)))
        complain("run", "%s", error);
    for (int got = SIGCHLD;; got = sigwaitinfo(ours, NULL)) {
        if (got == SIGINT || got == SIGQUIT || got == SIGTERM || got == SIGHUP)
            end_all(&h);
        take_ends(&h);
        if (signal_all(&h, 0) == 0)
            break;
    }
    if (h.ledger)
        written(&h, run_ledger_inherit_end(h.ledger));
    run_ledger_close(h.ledger);
}
