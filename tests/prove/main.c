/* main.c - runs the cases: prove [--case NAME [--exact]] [--seconds N] [--seed N] [--rounds N] [--replay "AT:WAY ..."]
 * [--list]
 *
 * In rounds each case is run so often, each time after others, in an order of the seed's: a run depends on its choices
 * alone, so what a case does after these and after those has to be the same.
 */
#include "inside.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void prove_history_begin(void);

typedef struct budget {
    double seconds;
    uint64_t seed;
} budget;

static double clock_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static const prove_case *running; /* whose body it is */

static bool run(const prove_case *c)
{
    running = c;
    prove_history_begin();
    return prove_run(c->body);
}

/* ---- a failure -------------------------------------------------------------------------------- */

static bool still_fails(const prove_case *c, const prove_choice *turns, size_t n)
{
    prove_replay(turns, n);
    return !run(c);
}

/* Leaves out what need not be, as long as it fails: first halves, then single ones (Zeller's delta debugging). */
static size_t shrink(const prove_case *c, prove_choice *turns, size_t n)
{
    for (size_t step = n / 2 ? n / 2 : 1; n > 0;) {
        bool shorter = false;
        for (size_t at = 0; at < n;) {
            prove_choice fewer[PROVE_TURNS];
            size_t out = at + step < n ? step : n - at;
            memcpy(fewer, turns, at * sizeof *turns);
            memcpy(fewer + at, turns + at + out, (n - at - out) * sizeof *turns);
            if (still_fails(c, fewer, n - out)) {
                n = prove_turns(turns);
                shorter = true;
            } else {
                at += step;
            }
        }
        if (!shorter && step == 1)
            break;
        step = shorter ? step : step / 2;
        step = step > n ? (n ? n : 1) : step;
    }
    return n;
}

static const char *program; /* as it was called */

static void show_choices(const prove_case *c, uint32_t choices, const prove_choice *turns, size_t n)
{
    printf("    of %u choices %zu were not the first; again: %s --exact --case %s --replay \"",
           choices, n, program, c->name);
    for (size_t i = 0; i < n; i++)
        printf("%s%u:%u", i ? " " : "", turns[i].at, turns[i].took);
    printf("\"\n");
}

/* The code has crashed, and this process is lost with it. */
static void crashed(int signal)
{
    prove_choice turns[PROVE_TURNS];
    printf("FAILED  %s: %s\n    killed by SIG%s\n", running->name, running->claim,
           sigabbrev_np(signal));
    show_choices(running, prove_choices(), turns, prove_turns(turns));
    fflush(stdout);
    _exit(1);
}

static void watch_crashes(void)
{
    static char stack[1 << 16];
    const stack_t own = {.ss_sp = stack, .ss_size = sizeof stack};
    const struct sigaction action = {.sa_handler = crashed, .sa_flags = SA_ONSTACK | SA_RESETHAND};
    sigaltstack(&own, NULL);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGFPE, &action, NULL);
}

static void show(const prove_case *c, uint64_t seed)
{
    prove_choice turns[PROVE_TURNS];
    size_t n = prove_turns(turns);
    uint32_t choices = prove_choices();
    bool again = still_fails(c, turns, n);
    if (again) {
        n = shrink(c, turns, n);
        again = still_fails(c, turns, n);
    }
    printf("FAILED  %s: %s\n%s", c->name, c->claim, prove_error);
    if (!again)
        printf("    (it does not fail again: seed %llu)\n", (unsigned long long)seed);
    show_choices(c, choices, turns, n);
}

/* Of all files of cases/, by the linker. */
extern const prove_case *const __start_prove_cases[], *const __stop_prove_cases[];

/* ---- running ---------------------------------------------------------------------------------- */

/* Of processes that may be killed: one is at each point in turn, until a run ends before it comes there; in one schedule
 * after the other. */
typedef struct walk {
    uint64_t runs, schedules;
    uint32_t points; /* of the first schedule, which is walked to its end */
} walk;

static bool walk_deaths(const prove_case *c, double end, walk *w)
{
    for (uint64_t seed = 0; seed == 0 || clock_now() < end; seed++) {
        uint32_t at = 0;
        do {
            if (at > 0 && seed > 0 && clock_now() >= end)
                return true;
            prove_choose_walk(seed, ++at);
            if (!run(c))
                return false;
            w->runs++;
        } while (prove_deaths() >= at);
        if (at == 1 && seed == 0)
            return true; /* nobody may be killed */
        w->points = seed ? w->points : at - 1;
        w->schedules++;
    }
    return true;
}

/* Deaths, for a quarter of the time; all runs with few turns, for half of the rest; random ones and by priorities. */
static bool prove(const prove_case *c, const budget *b)
{
    double begin = clock_now(), end = begin + b->seconds;
    uint64_t runs = 0, searched = 0, seed = b->seed;
    unsigned depth = 0;
    walk w = {0};
    bool ok = walk_deaths(c, begin + b->seconds / 4, &w), whole = false;
    double end_search = clock_now() / 2 + end / 2;
    for (depth = 1; ok && depth <= 4 && clock_now() < end_search; depth++) {
        prove_choose_begin(PROVE_SEARCH, 0, depth);
        do {
            ok = run(c);
            runs++;
            whole = ok && !prove_search_next();
        } while (ok && !whole && (runs & 15 || clock_now() < end_search));
        searched = whole ? depth : searched;
    }
    for (; ok && clock_now() < end; seed++, runs++) {
        unsigned by = (unsigned)(seed % 4);
        prove_choose_begin(by ? PROVE_PCT : PROVE_RANDOM, seed * 7919, by ? by + 1 : 0);
        ok = run(c);
    }
    if (ok)
        printf("ok      %s: %llu runs, all with %llu turns, seeds %llu to %llu, %.1f s\n", c->name,
               (unsigned long long)(runs + w.runs), (unsigned long long)searched,
               (unsigned long long)b->seed, (unsigned long long)seed, clock_now() - begin);
    if (ok && w.schedules)
        printf("        killed at each of %u points, and so in %llu schedules\n", w.points,
               (unsigned long long)w.schedules);
    if (!ok)
        show(c, seed);
    fflush(stdout);
    return ok;
}

/* ---- rounds ----------------------------------------------------------------------------------- */

#define CASES   1024
#define REPEATS 8

/* A few runs of given choices: what they did in the first round they do in the others. */
static bool repeats(const prove_case *c, uint64_t traces[REPEATS], bool is_first)
{
    for (unsigned i = 0; i < REPEATS; i++) {
        prove_choose_begin(PROVE_RANDOM, i, 0);
        if (!run(c)) {
            show(c, i);
            return false;
        }
        if (is_first)
            traces[i] = prove_trace();
        if (traces[i] == prove_trace())
            continue;
        printf("FAILED  %s: its random run %u was another one after other cases\n", c->name, i);
        return false;
    }
    return true;
}

static void shuffle(unsigned *order, unsigned n, uint64_t seed)
{
    for (unsigned i = n; i-- > 1;) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407); /* Knuth's */
        unsigned k = (unsigned)((seed >> 33) % (i + 1)), was = order[i];
        order[i] = order[k];
        order[k] = was;
    }
}

/* How many of the cases fail. */
static size_t run_rounds(const prove_case *const cases[], unsigned n, const budget *b,
                         unsigned rounds)
{
    static uint64_t traces[CASES][REPEATS];
    unsigned order[CASES];
    size_t failed = 0;
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned i = 0; i < n; i++)
            order[i] = i;
        shuffle(order, n, b->seed + round);
        for (unsigned i = 0; i < n; i++) {
            const prove_case *c = cases[order[i]];
            failed += !repeats(c, traces[order[i]], round == 0) || !prove(c, b);
        }
    }
    return failed;
}

static bool replay(const prove_case *c, const char *text)
{
    prove_choice turns[PROVE_TURNS];
    size_t n = 0;
    for (int used; n < PROVE_TURNS; text += used, n++) {
        unsigned at, way;
        if (sscanf(text, " %u:%u%n", &at, &way, &used) < 2 || way > UINT8_MAX)
            break;
        turns[n] = (prove_choice){at, (uint8_t)way, UINT8_MAX};
    }
    if (text[strspn(text, " ")] != '\0') {
        fprintf(stderr, "prove: --replay: these are no choices: \"%s\"\n", text);
        return false;
    }
    if (!still_fails(c, turns, n)) {
        bool is_the_same = prove_followed() == n;
        printf(
            "%s %s%s\n", is_the_same ? "ok     " : "OTHER  ", c->name,
            is_the_same
                ? ""
                : ": not all of these choices came: it is another case, or the code has changed");
        return is_the_same;
    }
    printf("FAILED  %s: %s\n%s", c->name, c->claim, prove_error);
    return false;
}

static const struct option options[] = {
    {"case", required_argument, NULL, 'c'},   {"places", no_argument, NULL, 'p'},
    {"exact", no_argument, NULL, 'x'},        {"seconds", required_argument, NULL, 's'},
    {"seed", required_argument, NULL, 'e'},   {"rounds", required_argument, NULL, 'o'},
    {"replay", required_argument, NULL, 'r'}, {"list", no_argument, NULL, 'l'},
    {"help", no_argument, NULL, 'h'},         {0},
};

int main(int argc, char *argv[])
{
    program = argv[0];
    watch_crashes();
    budget b = {.seconds = 1, .seed = 1};
    const char *only = NULL, *turns = NULL;
    const prove_case *chosen[CASES];
    unsigned n = 0, rounds = 0;
    size_t failed = 0;
    bool shows_places = false;
    bool is_exact = false; /* --case is the whole name */
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (o) {
        case 'c': only = optarg; break;
        case 'p': shows_places = true; break;
        case 'x': is_exact = true; break;
        case 's': b.seconds = strtod(optarg, NULL); break;
        case 'e': b.seed = strtoull(optarg, NULL, 10); break;
        case 'o': rounds = (unsigned)strtoul(optarg, NULL, 10); break;
        case 'r': turns = optarg; break;
        case 'l':
            for (const prove_case *const *c = __start_prove_cases; c < __stop_prove_cases; c++)
                printf("%-32s %s\n", (*c)->name, (*c)->claim);
            return 0;
        default:
            fprintf(stderr, "prove [--case NAME [--exact]] [--seconds N for each] [--seed N] "
                            "[--rounds N] [--places] [--replay \"AT:WAY ...\"] [--list]\n");
            return o == 'h' ? 0 : 2;
        }
    }
    for (const prove_case *const *c = __start_prove_cases; c < __stop_prove_cases; c++) {
        bool is_named =
            !only || (is_exact ? strcmp((*c)->name, only) == 0 : strstr((*c)->name, only) != NULL);
        if (is_named && n < CASES)
            chosen[n++] = *c;
    }
    if (rounds > 0)
        failed = run_rounds(chosen, n, &b, rounds);
    for (unsigned i = 0; i < n && rounds == 0; i++)
        failed += !(turns ? replay(chosen[i], turns) : prove(chosen[i], &b));
    if (shows_places)
        prove_show_places();
    if (n == 0)
        fprintf(stderr, "prove: there is no case \"%s\"; --list shows them\n", only ? only : "");
    return failed || n == 0;
}
