/* scale.c - see scale.h. */
#include "model/scale.h"

#define SLOW_S        30.0
#define SERVICE_S     15.0
#define SERVED_S      2.0
#define ENOUGH        30.0 /* items, to tell that they take longer or shorter */
#define OTHER         1.5
#define FAST_S        1.0
#define ROOM          1.05 /* of the load: what keeps the queue from growing */
#define TOO_MANY      1.1
#define SURE          10.0 /* e ^ -10: as unlikely is a step that was none */
#define LEAST_FREE    0.5  /* of the producers' time: they bring at most twice as much */
#define USELESS       0.1  /* share of the workers' time */
#define SATURATED     0.03 /* idle share, at most */
#define PRESSED       0.05 /* share of the producers' time */
#define MOST_NUDGED   1.25 /* of what the estimate asks for */
#define IN_VAIN       0.2  /* of the gain that there should be */
#define EXCUSES_S     120.0
#define MOST_EXCUSES  3.5
#define EXCUSED_FOR   (10 * WEIR_SECOND)
#define SOONEST       (50 * WEIR_MILLISECOND)
#define NEXT_GROWTH   (300 * WEIR_MILLISECOND)
#define NEXT_SHRINK   (300 * WEIR_MILLISECOND)
#define PATIENCE      (2 * WEIR_SECOND)
#define AMPLE_FOR     (3 * WEIR_SECOND / 2)
#define LONG_PATIENCE (120 * WEIR_SECOND)
#define FIRST_HOLD    (120 * WEIR_SECOND)
#define LONGEST_HOLD  (32 * FIRST_HOLD)
#define LONGEST_TRIAL (60 * WEIR_SECOND)

/* ---- measuring ------------------------------------------------------------------------------ */

/* So much more, after so many seconds. */
static void add(weir__fading *fading, double sum, double per, double seconds, double fades_s)
{
    double kept = fades_s / (fades_s + seconds);
    fading->sum = fading->sum * kept + sum;
    fading->per = fading->per * kept + per;
}

static double mean(const weir__fading *fading)
{
    return fading->per > 0 ? fading->sum / fading->per : 0;
}

static double seconds_since(uint64_t now_ns, uint64_t then_ns)
{
    return (double)(now_ns - then_ns) / (double)WEIR_SECOND;
}

/* Variance over mean of what comes; chance alone makes it 1. */
static double unevenness(const weir__scale *scale)
{
    double measured = mean(&scale->unevenness);
    return measured > 1 ? measured : 1;
}

/* Where the i-th last sample is, from 1. */
static unsigned place(const weir__scale *scale, unsigned i)
{
    return (scale->n_samples - i) % WEIR__SCALE_SAMPLES;
}

/* What came in the last n samples. */
static weir__fading last_samples(const weir__scale *scale, unsigned n)
{
    weir__fading all = {0, 0};
    for (unsigned i = 1; i <= n && i <= scale->n_samples; i++) {
        const weir__arrivals *sample = &scale->samples[place(scale, i)];
        all.sum += sample->items;
        all.per += sample->free_s;
    }
    return all;
}

/* How unlikely it is that `late` is of the same rate as what came before: about so many powers of e.
 * Where m are expected, d more come with the likelihood -d^2 / 2 (m + d / 3) (Bernstein's bound). */
static double surprise(const weir__scale *scale, const weir__fading *late)
{
    double before_s = scale->arrivals.per - late->per, before = scale->arrivals.sum - late->sum;
    if (before_s <= late->per / 2)
        return 0;
    double expected = (before > 0 ? before : 0) * late->per / before_s;
    double more = late->sum - expected;
    double spread = expected * (1 + late->per / before_s) + more / 3;
    return spread > 0 ? more * more / (2 * spread * unevenness(scale)) : 0;
}

/* A step excuses what follows: it may grow and shrink again soon.  But a load that seems to take steps
 * all the time comes in bursts. */
static void excuse(weir__scale *scale, weir_time now)
{
    if (now >= scale->excused_until) {
        if (scale->excuses > MOST_EXCUSES)
            return;
        scale->excuses++;
    }
    scale->excused_until = now + EXCUSED_FOR;
    scale->patience_ns = PATIENCE;
}

/* By how much a sample is off; `sign` -1: takes back that it was. */
static void count_odd(weir__scale *scale, const weir__arrivals *sample, double sign)
{
    scale->unevenness.sum += sign * sample->odd;
    scale->unevenness.per += sign * sample->expected;
    if (scale->unevenness.sum < 0) /* it has faded a little since it was counted */
        scale->unevenness.sum = 0;
    if (scale->unevenness.per < 0)
        scale->unevenness.per = 0;
}

static void expect(weir__arrivals *sample, double per_s)
{
    double more = sample->items - per_s * sample->free_s;
    sample->expected = per_s * sample->free_s;
    sample->odd = more * more;
}

/* The estimate begins again with the last n samples; what made them odd was the step. */
static void begin_again(weir__scale *scale, unsigned n)
{
    scale->arrivals = last_samples(scale, n);
    for (unsigned i = 1; i <= n && i <= scale->n_samples; i++) {
        weir__arrivals *sample = &scale->samples[place(scale, i)];
        count_odd(scale, sample, -1);
        expect(sample, mean(&scale->arrivals));
        count_odd(scale, sample, 1);
    }
}

/* Looks for a step in the last 1 s to 5 s, and begins again where it most likely was. */
static void find_step(weir__scale *scale, weir_time now)
{
    double most = SURE;
    unsigned since = 0;
    for (unsigned n = 10; n <= WEIR__SCALE_SAMPLES; n += n / 2) {
        weir__fading late = last_samples(scale, n);
        double surprises = surprise(scale, &late);
        if (surprises > most) {
            most = surprises;
            since = n;
        }
    }
    if (since > 0) {
        begin_again(scale, since);
        excuse(scale, now);
    }
}

static void count_arrivals(weir__scale *scale, double items, double free_s, double seconds,
                           weir_time now)
{
    weir__arrivals sample = {.items = items, .free_s = free_s};
    expect(&sample, mean(&scale->arrivals));
    if (!(sample.expected > 0))
        sample.odd = 0;
    add(&scale->unevenness, sample.odd, sample.expected, seconds, SLOW_S);
    add(&scale->arrivals, items, free_s, seconds, SLOW_S);
    scale->samples[scale->n_samples++ % WEIR__SCALE_SAMPLES] = sample;
    scale->excuses *= EXCUSES_S / (EXCUSES_S + seconds);
    find_step(scale, now);
}

/* Busy time belongs to items that ended and to parts of those in progress: half of each, say. */
static void count_service(weir__scale *scale, double busy_s, double items, double seconds)
{
    double in_progress = busy_s / seconds;
    double done = items + (in_progress - scale->in_progress) / 2;
    add(&scale->service, busy_s, done > 0 ? done : 0, seconds, SERVICE_S);
    add(&scale->served, busy_s, done > 0 ? done : 0, seconds, SERVED_S);
    scale->in_progress = in_progress;
    double ratio = mean(&scale->served) / mean(&scale->service);
    if (scale->served.per > ENOUGH && (ratio > OTHER || ratio < 1 / OTHER))
        scale->service = scale->served;
}

static void measure(weir__scale *scale, const weir__scale_sample *s, double seconds)
{
    const weir__scale_sample *last = &scale->last;
    double producers = s->producers > 0 ? s->producers : 1;
    double refused = seconds_since(s->upstream_blocked_ns, last->upstream_blocked_ns) / producers;
    double free_s = seconds - refused;
    if (free_s < LEAST_FREE * seconds)
        free_s = LEAST_FREE * seconds;
    double busy_s = seconds_since(s->busy_ns, last->busy_ns);
    double idle_s = seconds_since(s->idle_ns, last->idle_ns);
    double useless_s = seconds_since(s->blocked_ns + s->held_ns, last->blocked_ns + last->held_ns);
    double workers_s = busy_s + idle_s + useless_s;
    double done = (double)(s->done - last->done);

    count_arrivals(scale, (double)(s->arrived - last->arrived), free_s, seconds, s->now);
    count_service(scale, busy_s, done, seconds);
    add(&scale->finished, done, seconds, seconds, FAST_S);
    add(&scale->idle, idle_s, workers_s, seconds, FAST_S);
    add(&scale->useless, useless_s, workers_s, seconds, FAST_S);
    add(&scale->refused, refused + (s->lost > last->lost ? seconds : 0), seconds, seconds, FAST_S);
}

double weir__scale_load(const weir__scale *scale)
{
    return mean(&scale->arrivals) * mean(&scale->service);
}

/* The square of how far the load may be off by chance, relative to it. */
static double uncertainty(const weir__scale *scale)
{
    double items = scale->arrivals.sum / unevenness(scale), served = scale->service.per;
    return items > 0 && served > 0 ? 1 / items + 1 / served : 1;
}

/* ---- whether growing helps ------------------------------------------------------------------ */

static void begin_trial(weir__scale *scale, const weir__scale_sample *s)
{
    if (scale->trial.workers == 0 && mean(&scale->idle) < USELESS) {
        scale->trial.workers = s->workers;
        scale->trial.rate = mean(&scale->finished);
        scale->trial.items = scale->finished.sum;
    }
    scale->trial.done = s->done;
}

/* Whether the growth since the trial began was clearly in vain. */
static bool was_in_vain(weir__scale *scale, const weir__scale_sample *s)
{
    unsigned before = scale->trial.workers;
    weir_time since = s->now - scale->grown_at;
    double settled_s = 2 * mean(&scale->service) + 1;
    double seconds = (double)since / (double)WEIR_SECOND,
           items = (double)(s->done - scale->trial.done);
    if (before == 0 || seconds < settled_s)
        return false;
    bool is_over = mean(&scale->idle) > USELESS || mean(&scale->useless) > USELESS ||
                   since > LONGEST_TRIAL || s->workers <= before;
    double growth = (double)s->workers / (double)before - 1;
    double least = scale->trial.rate * (1 + IN_VAIN * growth), missing = least - items / seconds;
    double variance = least * least * (1 / (items + 1) + 1 / (scale->trial.items + 1));
    bool is_clear = missing * missing > 4 * variance;
    if (is_over || is_clear)
        scale->trial.workers = 0;
    return !is_over && is_clear && missing > 0;
}

static unsigned go_back(weir__scale *scale, weir_time now, unsigned before)
{
    scale->hold_ns = !scale->hold_ns                     ? FIRST_HOLD
                     : scale->hold_ns < LONGEST_HOLD / 2 ? 2 * scale->hold_ns
                                                         : LONGEST_HOLD;
    scale->ceiling = before;
    scale->ceiling_until = now + scale->hold_ns;
    return before;
}

/* ---- deciding ------------------------------------------------------------------------------- */

static unsigned clamp(const weir__scale *scale, double workers)
{
    unsigned least = scale->terms.min, most = scale->terms.max;
    return workers < least ? least : workers > most ? most : (unsigned)workers;
}

static double at_least(double load)
{
    double whole = (double)(uint64_t)load;
    return whole < load ? whole + 1 : whole;
}

/* Since when, or 0. */
static void keep_time(weir_time *since, bool holds, weir_time now)
{
    *since = !holds ? 0 : *since ? *since : now;
}

static bool is_saturated(const weir__scale *scale, const weir__scale_sample *s)
{
    bool is_full = (s->capacity && s->depth >= s->capacity) || s->depth > 2 * (size_t)s->workers;
    weir__fading lately = last_samples(scale, 10);
    bool comes_more = mean(&lately) > mean(&scale->finished);
    bool is_pressed = is_full || mean(&scale->refused) > PRESSED;
    return mean(&scale->idle) < SATURATED && is_pressed && comes_more;
}

/* How many there should be by growing; `now`: it should not. */
static double grown(weir__scale *scale, const weir__scale_sample *s, double now)
{
    double load = weir__scale_load(scale), need = at_least(load * ROOM);
    bool is_useless = mean(&scale->useless) > USELESS;
    keep_time(&scale->short_since, !is_useless && is_saturated(scale, s), s->now);
    if (is_useless || s->now - scale->grown_at < NEXT_GROWTH)
        return now;
    double lacks = load * (ROOM - 0.03) - now;
    if (lacks > 0 && (lacks * lacks > load * load * uncertainty(scale) || scale->short_since))
        return need < 2 * now ? need : 2 * now;
    weir_time saturated = scale->short_since ? s->now - scale->short_since : 0;
    bool is_time = saturated > WEIR_SECOND && s->now - scale->grown_at > WEIR_SECOND;
    double most = MOST_NUDGED * need;
    return !is_time || now >= most ? now : now + at_least(now / 8);
}

/* And by shrinking: soon where they are too many by twice what chance explains, at once by four times. */
static double shrunk(weir__scale *scale, const weir__scale_sample *s, double now)
{
    double load = weir__scale_load(scale), need = at_least(load * ROOM);
    double spare = now - load, chance = load * load * uncertainty(scale);
    bool is_ample = now > need * TOO_MANY && spare * spare > 4 * chance;
    keep_time(&scale->ample_since, is_ample, s->now);
    bool is_sure = spare * spare > 16 * chance || s->now - scale->ample_since > AMPLE_FOR;
    bool is_time =
        s->now - scale->grown_at > scale->patience_ns && s->now - scale->shrunk_at > NEXT_SHRINK;
    if (!is_ample || !is_sure || !is_time)
        return now;
    return need > now / 2 ? need : now / 2;
}

/* Goes by how many were wanted, `now`, not by how many there are: those that come take time to start,
 * and those that go finish what they do. */
static unsigned decide(weir__scale *scale, const weir__scale_sample *s, unsigned now)
{
    unsigned before = scale->trial.workers;
    if (was_in_vain(scale, s))
        return go_back(scale, s->now, before);
    double more = grown(scale, s, now), fewer = shrunk(scale, s, now);
    unsigned ceiling = s->now < scale->ceiling_until ? scale->ceiling : scale->terms.max;
    if (more > ceiling)
        more = ceiling > now ? ceiling : now;
    return clamp(scale, more > now ? more : fewer);
}

void weir__scale_init(weir__scale *scale, const weir__scale_terms *terms, weir_time now)
{
    *scale = (weir__scale){
        .terms = *terms,
        .last = {.now = now},
        .wanted = terms->min,
        .patience_ns = PATIENCE,
        .grown_at = now,
        .shrunk_at = now,
    };
}

unsigned weir__scale_step(weir__scale *scale, const weir__scale_sample *sample)
{
    if (sample->now - scale->last.now < SOONEST)
        return scale->wanted;
    bool is_first = scale->n_samples == 0;
    measure(scale, sample, (double)(sample->now - scale->last.now) / (double)WEIR_SECOND);
    unsigned before = is_first ? clamp(scale, sample->workers) : scale->wanted;
    unsigned wanted = decide(scale, sample, before);
    if (wanted > before) {
        if (scale->shrunk_at > scale->grown_at && sample->now >= scale->excused_until)
            scale->patience_ns = LONG_PATIENCE;
        begin_trial(scale, sample);
        scale->grown_at = sample->now;
    } else if (wanted < before) {
        scale->shrunk_at = sample->now;
    }
    scale->last = *sample;
    scale->wanted = wanted;
    return wanted;
}
