/* adapt.c - tries numbers of jobs, and keeps what is worth it; see adapt.h.
 *
 * A window is what one number came to.  Where jobs are few and long, the ends that fall into it say little: of eight
 * jobs of a second all may end in it, or none.  So what still ran at its edges counts for the part that was done,
 * taken by how long jobs take: their geometric mean, which a few long ones do not move.
 */
#include "adapt.h"

#include <math.h>
#include <string.h>

#define SHORTEST   (100 * WEIR_MILLISECOND) /* a window */
#define FEWEST     4.0                      /* ends in it */
#define MOST       400.0
#define NOISE      0.2    /* of what a window comes to, for a step to twice as many */
#define WORTH_MORE 0.35   /* the gain for which more are kept */
#define WORTH_LESS 0.15   /* the loss for which fewer are */
#define WORSE      (-0.5) /* more are slower */
#define USED       0.8    /* of the number: else it is not what holds back */
#define BUSY       0.85   /* processors */
#define FADE       0.8    /* a window: what is known of the processor time a job takes */
#define IDLE       0.5    /* processors: */
#define FEW 4.0 /* then so many for each are not too many, and a few ends say too little to ask */
#define CHANGED    0.4 /* of a throughput, a logarithm: it is another world */
#define STEP_MOST  0.6931471805599453
#define STEP_LEAST 0.12
#define STEP_AGAIN 0.41 /* after a pause: half as many more */
#define PAUSE_MOST 5    /* at last 32 windows */

/* ---- windows ---------------------------------------------------------------------------------- */

static void open_window(run_adapt *a, weir_time now)
{
    run_window *w = &a->window;
    w->opened = w->last = now;
    w->ended = 0;
    w->busy_ns = w->logs = w->squares = w->cpu_ns = 0;
    w->slots = a->slots;
    memcpy(w->since, a->since, (a->slots + 1) * sizeof *a->since);
}

static void pass(run_adapt *a, weir_time now)
{
    a->window.busy_ns += (double)a->running * (double)(now - a->window.last);
    a->window.last = now;
}

/* How much was done of what ran then, in jobs. */
static double begun(const weir_time since[], unsigned slots, weir_time now, double took)
{
    double sum = 0;
    for (unsigned slot = 1; slot <= slots; slot++) {
        double part = since[slot] ? (double)(now - since[slot]) / took : 0;
        sum += part < 1 ? part : 1;
    }
    return sum;
}

/* How long a job takes. */
static double typical(const run_window *w)
{
    return exp(w->logs / (double)w->ended);
}

/* As many as it needs: the more their lengths differ and the smaller the step is, the more. */
static bool is_full(const run_adapt *a, weir_time now)
{
    const run_window *w = &a->window;
    double n = (double)w->ended, part = fmin(1, fabs(a->step) / STEP_MOST), noise = NOISE * part;
    if (!a->has_turned && (double)a->jobs < FEW * a->cpus)
        noise *= 2; /* not much can go wrong */
    if (n < FEWEST / (part * part) || now - w->opened < SHORTEST ||
        n < fmin((double)a->jobs, MOST) || (double)(now - w->opened) < typical(w))
        return false;
    double mean = w->logs / n, variance = fmax(0, w->squares / n - mean * mean);
    return n >= fmin(MOST, variance / (noise * noise));
}

/* Jobs a nanosecond. */
static double rate_of(const run_adapt *a, weir_time now)
{
    const run_window *w = &a->window;
    double took = typical(w);
    double done = (double)w->ended + begun(a->since, a->slots, now, took) -
                  begun(w->since, w->slots, w->opened, took);
    return fmax(done, 0.5) / (double)(now - w->opened);
}

/* ---- climbing --------------------------------------------------------------------------------- */

/* Of fewer: how they do is seen when most of those have ended that ran beside more, and were the slower for it. */
static void go_to(run_adapt *a, uint64_t jobs)
{
    jobs = jobs < 1 ? 1 : jobs > a->most ? a->most : jobs;
    if (jobs < a->jobs)
        a->leaving = a->running - a->running / 4;
    a->jobs = jobs;
}

/* Nothing is tried for a while, each time a longer one. */
static void rest(run_adapt *a)
{
    a->calm = 1u << a->pauses;
    a->pauses += a->pauses < PAUSE_MOST;
    a->step = a->step > 0 ? -STEP_AGAIN : STEP_AGAIN;
}

static uint64_t after(const run_adapt *a)
{
    double to = (double)a->base * exp(a->step);
    return (uint64_t)(a->step > 0 ? ceil(to - 0.01) : floor(to));
}

/* From the base, which was measured. */
static void try_another(run_adapt *a, double busy)
{
    bool may = a->step > 0 ? busy < BUSY && a->base < a->most
                           : a->base > 1 && (a->base > a->first || a->was_slower);
    if (may)
        go_to(a, after(a));
    if (a->jobs == a->base)
        rest(a);
}

static void measured_base(run_adapt *a, double rate, double busy)
{
    bool is_other = a->rate > 0 && a->calm > 0 && fabs(log(rate / a->rate)) > CHANGED;
    a->rate = rate;
    if (is_other) {
        a->calm = a->pauses = 0;
        a->was_slower = a->has_turned = false;
        a->cpu_ns = a->cpu_jobs = 0;
        a->step = STEP_MOST;
    }
    if (a->calm > 0)
        a->calm--;
    else
        try_another(a, busy);
}

static void measured_trial(run_adapt *a, double rate, double busy)
{
    double gain = log(rate / a->rate) / log((double)a->jobs / (double)a->base);
    bool is_more = a->jobs > a->base;
    bool is_free = !a->has_turned && is_more && gain > WORSE && busy < IDLE &&
                   (double)a->jobs <= FEW * a->cpus;
    if (is_free || (is_more ? gain >= WORTH_MORE : gain <= WORTH_LESS)) {
        a->base = a->jobs;
        a->rate = rate;
        a->pauses = 0;
        a->step = copysign(fmin(fabs(a->step) * 2, STEP_MOST), a->step);
        try_another(a, busy);
        return;
    }
    a->has_turned = true;
    a->was_slower = is_more ? gain < WORSE : a->was_slower;
    a->step /= is_more && gain < WORSE ? -2 : 2;
    go_to(a, a->base);
    if (fabs(a->step) < STEP_LEAST || after(a) == a->base)
        rest(a);
}

static void decide(run_adapt *a, weir_time now)
{
    const run_window *w = &a->window;
    double length = (double)(now - w->opened), rate = rate_of(a, now);
    a->cpu_ns = a->cpu_ns * FADE + w->cpu_ns;
    a->cpu_jobs = a->cpu_jobs * FADE + (double)w->ended;
    double busy = a->cpu_ns / a->cpu_jobs * rate / a->cpus;
    if (w->busy_ns < USED * length * (double)a->jobs)
        return;
    if (a->jobs == a->base)
        measured_base(a, rate, busy);
    else
        measured_trial(a, rate, busy);
}

/* ---- news ------------------------------------------------------------------------------------- */

void run_adapt_begin(run_adapt *a, uint64_t jobs, double cpus, weir_time now)
{
    *a = (run_adapt){.most = RUN_ADAPT_MAX, .cpus = cpus, .step = STEP_MOST};
    go_to(a, jobs);
    a->first = a->base = a->jobs;
    open_window(a, now);
}

void run_adapt_started(run_adapt *a, unsigned slot, weir_time now)
{
    pass(a, now);
    a->since[slot] = now;
    a->slots = slot > a->slots ? slot : a->slots;
    a->running++;
}

void run_adapt_ended(run_adapt *a, unsigned slot, bool is_done, int64_t cpu_ns, weir_time now)
{
    run_window *w = &a->window;
    double took = now > a->since[slot] ? log((double)(now - a->since[slot])) : 0;
    pass(a, now);
    a->since[slot] = 0;
    while (a->slots > 0 && !a->since[a->slots])
        a->slots--;
    a->running--;
    if (!is_done)
        return;
    w->ended++;
    w->logs += took;
    w->squares += took * took;
    w->cpu_ns += (double)cpu_ns;
    if (a->leaving > 0 || a->running > a->jobs) {
        a->leaving -= a->leaving > 0;
        open_window(a, now);
        return;
    }
    if (!is_full(a, now))
        return;
    decide(a, now);
    open_window(a, now);
}

void run_adapt_disturbed(run_adapt *a, int64_t paused_ns, weir_time now)
{
    for (unsigned slot = 1; slot <= a->slots; slot++)
        a->since[slot] += a->since[slot] ? paused_ns : 0;
    open_window(a, now);
}

void run_adapt_bound(run_adapt *a, uint64_t most, weir_time now)
{
    a->most = most < 1 ? 1 : most < RUN_ADAPT_MAX ? most : RUN_ADAPT_MAX;
    go_to(a, a->jobs);
    a->base = a->base < a->most ? a->base : a->most;
    a->first = a->first < a->most ? a->first : a->most;
    a->rate = 0;
    open_window(a, now);
}
