/* diagnosis.h - what is the matter with an object, from what it did in a window of time.
 *
 * No rule judges what it has not seen for long enough: rates and means need DIAGNOSIS_LOOKS looks, so a
 * program that has just started has no issues.  What two looks agree on is so: a queue that is full at both is
 * full.  An object that is full because it holds one or two items by
 * design is not called full.  What was discarded on purpose is no drop.
 */
#ifndef WEIR_MODEL_DIAGNOSIS_H
#define WEIR_MODEL_DIAGNOSIS_H

#include <stdbool.h>
#include <stdint.h>

typedef enum weir__issue {
    WEIR__QUEUE_HIGH = 0,
    WEIR__SLOW_SERVICE,
    WEIR__BACKPRESSURE,
    WEIR__LOW_THROUGHPUT,
    WEIR__GROWING_AGE,
    WEIR__DROPS,
    WEIR__BREAKER_OPEN,
    WEIR__MEMORY,
    WEIR__WORKERS_DIE,
    WEIR__ISSUES
} weir__issue;

/* As weir_thresholds, with nothing left to default. */
typedef struct weir__limits {
    double queue_share, queue_depth; /* never: infinite */
    double service_s, throughput, age_growth;
    double events, drops;
} weir__limits;

#define WEIR__DIAGNOSIS_LOOKS 3

/* What it did; numbers are over the window. */
typedef struct weir__vitals {
    unsigned looks;
    double seconds;
    bool holds_items;     /* a queue, a pool or a stage */
    bool is_process_pool; /* whose workers can die */
    bool is_breaker, is_governor;

    double depth, least_depth;       /* items inside: mean, and at the look with the fewest */
    double least_inside;             /* items inside or in hand, at the look with the fewest */
    double fullness, least_fullness; /* the same of the share of its bound; < 0: it has none */
    double places;                   /* its bound in items, 0: none */
    double out;                      /* items */
    double waits, refused, dropped, discarded; /* calls, calls, items, and of these on purpose */
    double lost_workers;                       /* tasks whose worker died */
    double service_s;                          /* mean; < 0: none was timed */
    double wait_s[3];                          /* p50 in each third of the window */
    double waited[3];                          /* how many of it were timed */
    uint64_t state;                            /* of a breaker or governor; 0: all is well */
} weir__vitals;

/* For each issue its value, in the unit of its threshold; returns 1 << weir__issue of those that are. */
uint32_t weir__diagnose(const weir__vitals *vitals, const weir__limits *limits,
                        double ret_values[WEIR__ISSUES]);

/* What it is compared with. */
double weir__diagnosis_threshold(const weir__limits *limits, weir__issue issue);

/* Which of two issues is worse: the smaller, the worse. */
int weir__diagnosis_rank(weir__issue issue);

/* ---- the root ------------------------------------------------------------------------------- */

/* How many callers wait, on average, for an object that is in no pipeline, so that it is what they wait
 * for: 0 where those who take from it wait more than those who give.  */
double weir__pressure_of_line(double put_blocked, double get_blocked);

#define WEIR__PRESSURE_MIN 0.05 /* callers on average: below that nothing is held back */
#define WEIR__STARVED_MIN  0.5
#define WEIR__CLEARLY 1.5 /* so much more at work than a source is a stage that makes it wait */

#endif
