/* jobs.c - how many jobs at a time: as said, as a file says, or as found.
 *
 * A file is looked at once a second, by its time of change: a kernel tells (inotify) of what it has changed itself, and
 * not of what another machine has, and lists are run where files are shared.
 */
#include "command.h"
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOOK_EVERY WEIR_SECOND

static const char wanted[] = "a number from 0 to 4096, \"auto\", or like 150%, +2, -1";

/* ---- the number ------------------------------------------------------------------------------- */

/* `jobs` is where to begin, if it is to be found. */
static void set(run *r, uint64_t number, bool is_auto)
{
    bool was_auto = r->settings.jobs_auto && r->adapt.jobs > 0;
    r->settings.jobs_auto = is_auto;
    if (!is_auto) {
        r->schedule.jobs = number;
        return;
    }
    if (was_auto)
        return;
    run_adapt_begin(&r->adapt, number, run_cpus(), r->now);
    for (unsigned slot = 1; slot <= r->slots; slot++) {
        if (r->slot[slot])
            run_adapt_started(&r->adapt, slot, r->now);
    }
    r->schedule.jobs = r->adapt.jobs;
}

void run_jobs_started(run *r, const run_task *t)
{
    if (r->settings.jobs_auto)
        run_adapt_started(&r->adapt, t->slot, r->now);
}

void run_jobs_ended(run *r, const run_task *t, bool is_done, int64_t cpu_ns)
{
    if (!r->settings.jobs_auto)
        return;
    run_adapt_ended(&r->adapt, t->slot, is_done, cpu_ns, r->now);
    r->schedule.jobs = r->adapt.jobs;
}

void run_jobs_disturbed(run *r, int64_t paused_ns)
{
    if (r->settings.jobs_auto)
        run_adapt_disturbed(&r->adapt, paused_ns, r->now);
}

void run_jobs_crowded(run *r)
{
    if (r->settings.jobs_auto)
        run_adapt_bound(&r->adapt, r->schedule.jobs, r->now);
}

/* ---- the file --------------------------------------------------------------------------------- */

/* What it says now; 0, or an errno, or -1: it says no number.  It is not waited for, whatever it is. */
static int read_file(run *r, uint64_t *ret_number, bool *ret_auto)
{
    char text[64];
    struct stat s;
    int fd = open(r->settings.jobs_file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd >= 0 && fstat(fd, &s) == 0 ? read(fd, text, sizeof text - 1) : -1;
    int error = n < 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
    if (error)
        return error;
    text[n] = '\0';
    r->jobs_file.changed = s.st_mtim;
    r->jobs_file.inode = s.st_ino;
    r->jobs_file.size = s.st_size;
    if (!S_ISREG(s.st_mode))
        r->jobs_file.look = WEIR_FOREVER;
    return run_parse_jobs_file(text, ret_number, ret_auto) ? 0 : -1;
}

static bool has_changed(const run *r)
{
    struct stat s;
    const run_jobs_file *f = &r->jobs_file;
    return stat(r->settings.jobs_file, &s) < 0 || s.st_ino != f->inode || s.st_size != f->size ||
           s.st_mtim.tv_sec != f->changed.tv_sec || s.st_mtim.tv_nsec != f->changed.tv_nsec;
}

bool run_jobs_begin(run *r)
{
    uint64_t number = r->settings.jobs;
    bool is_auto = r->settings.jobs_auto;
    r->now = weir_now();
    r->settings.jobs_auto = false;
    r->jobs_file.look = r->settings.jobs_file ? r->now + LOOK_EVERY : WEIR_FOREVER;
    int error = r->settings.jobs_file ? read_file(r, &number, &is_auto) : 0;
    if (error > 0)
        complain("run", "--jobs: \"%s\" is no number, and no file that says one: %s",
                 r->settings.jobs_file, strerror(error));
    else if (error < 0)
        complain("run", "--jobs: %s: its first word is not %s", r->settings.jobs_file, wanted);
    else
        set(r, number, is_auto);
    return error == 0;
}

/* An editor may have emptied it, or moved it away, and be about to write it: what is wrong is said once, at the second
 * look. */
void run_jobs_look(run *r)
{
    uint64_t number;
    bool is_auto;
    if (r->now < r->jobs_file.look)
        return;
    r->jobs_file.look = r->now + LOOK_EVERY;
    if (!has_changed(r) && r->jobs_file.wrong != 1)
        return;
    int error = read_file(r, &number, &is_auto);
    if (error == 0)
        set(r, number, is_auto);
    else if (r->jobs_file.wrong == 1)
        run_report_say(&r->report, "--jobs: %s: %s%s; it stays at %" PRIu64, r->settings.jobs_file,
                       error > 0 ? strerror(error) : "its first word is not ",
                       error > 0 ? "" : wanted, r->schedule.jobs);
    r->jobs_file.wrong = error ? r->jobs_file.wrong + 1 : 0;
}
