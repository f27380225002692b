/* monitor_impl.h - what a monitor remembers; the contract is <weir/monitor.h>.
 *
 *     monitor.c      looks: reads all pages, finds what it knows already, lets go of what has gone
 *     tree.c         who is whose child, and in which order they and their objects are
 *     measure.c      one object from look to look: rates, blocked callers, percentiles
 *     judge.c        issues and the root
 *     say.c          the sentences for both
 *
 * A look has two halves.  The first reads, and makes room for all that will be kept; it may fail, and then
 * nothing has changed.  The second cannot fail.
 *
 * Bound:  an object has two records (as of this look and of the one before), what is remembered of each
 *         look of the window, and its times in at most CELLS_MAX cells: 41 KiB, 500 bytes for each
 *         look, and up to 128 KiB of times (some 8 KiB in practice).
 */
#ifndef WEIR_OBSERVE_MONITOR_IMPL_H
#define WEIR_OBSERVE_MONITOR_IMPL_H

#include <weir/monitor.h>

#include "model/diagnosis.h"
#include "model/waits.h"
#include "observe/track.h"

#define TEXT_MAX  384  /* a sentence with its terminator */
#define CELLS_MAX 8192 /* times remembered of one object */
#define ANCESTORS 64   /* that are looked for */

typedef struct process process;
typedef struct object object;

/* A process that was seen in a look, and is forgotten with the next one. */
struct process {
    weir_monitor_process pub;
    process *above; /* its nearest ancestor here */
    size_t rank;    /* in their order */
    object *root;   /* of it and those below it, once it was asked for */
    object *most;   /* the same, of one that is below no other */
    char root_text[TEXT_MAX];
    bool root_is_said;
};

/* The counters of a look that rates are made from. */
typedef enum mark {
    ACCEPTED,
    DELIVERED,
    DONE,
    DROPPED, /* for all reasons */
    DISCARDED,
    REFUSED,
    FAILED,
    RETRIED,
    SHED,
    PUT_WAITS,
    PRESSURE,
    BUSY,
    IDLE,
    BLOCKED,
    MARKS
} mark;

typedef struct look {
    int64_t at_ns; /* monotonic */
    uint64_t mark[MARKS];
    double inside, fullness, workers, in_flight; /* gauges */
    uint64_t sum_ns[2];                          /* of waits, of services since the look before */
    unsigned cells[2];                           /* so many of the object's cells are of these */
} look;

/* So many times in a bucket, since the look before. */
typedef struct cell {
    uint16_t bucket;
    uint32_t count;
} cell;

typedef struct issue {
    weir_monitor_issue pub;
    char text[TEXT_MAX];
} issue;

struct object {
    weir_monitor_object pub;
    process *process;
    object *leader;   /* of the pipeline or pool it is a part of; itself: of none */
    object *next;     /* in its row of the table */
    uint64_t seen_at; /* the number of the look */
    int64_t read_ns;  /* when it was read */
    process *read_of; /* by the look under way: its process */
    int64_t pid, uid;
    uint64_t start_ticks, id;

    weir_stats_record records[2];
    unsigned current;     /* which of them is of the last look that succeeded */
    bool is_known;        /* there is one */
    unsigned new_cells;   /* that the look under way will add */
    weir__waits waits[2]; /* to put, to get */
    double idle;          /* of its workers' time, the share that they waited for input */
    weir__track looks, samples, cells;

    issue issues[WEIR_ISSUES];
};

#define ROWS 4096

typedef struct found {
    process **processes;
    size_t n_processes, room_processes;
    object **objects;
    size_t n_objects, room_objects;
    uint64_t beyond;
} found;

struct weir_monitor {
    char folder[512]; /* "": the user's own */
    bool every_user;
    int64_t root_pid;
    size_t window;
    weir__limits limits;
    uint64_t look;  /* their number */
    int64_t at_ns;  /* of the last look, since 1970 */
    double seconds; /* that the window covers */

    found now, next;
    object *rows[ROWS]; /* the objects of now, and while it looks of next, too */
    issue **issues;
    size_t n_issues, room_issues;

    object *root;
    bool root_is_said;
    char root_text[TEXT_MAX], nobody_text[TEXT_MAX];
    weir_stats_times times; /* for the arithmetic of one object */
};

static inline const weir_stats_record *record_of(const object *o)
{
    return &o->records[o->current];
}

static inline const look *look_at(const object *o, size_t i)
{
    return weir__track_at(&o->looks, sizeof(look), i);
}

static inline bool is_kind(const object *o, weir_stats_kind kind)
{
    return record_of(o)->kind == kind;
}

/* ---- tree.c --------------------------------------------------------------------------------- */

/* Whether a process is `root` or descends from it, as the kernel tells. */
bool weir__descends_from(const weir_stats_process *process, int64_t root);

/* Finds parents and puts processes into their order. */
void weir__order_processes(found *now);

/* Finds leaders, puts objects into their order, and tells processes which are theirs. */
void weir__order_objects(weir_monitor *monitor, found *now);

static inline bool is_below(const process *p, const process *top)
{
    for (; p; p = p->above)
        if (p == top)
            return true;
    return false;
}

/* ---- measure.c ------------------------------------------------------------------------------ */

/* Makes room for what the record that was just read adds; false: no memory. */
bool weir__measure_reserve(weir_monitor *monitor, object *o);

/* Takes that record in.  Cannot fail. */
void weir__measure(weir_monitor *monitor, object *o, int64_t wall_ns);

weir_monitor_times weir__summary_of(const weir_stats_times *times);

/* What the rules are asked with. */
weir__vitals weir__vitals_of(weir_monitor *monitor, const object *o);

/* What of a counter came within the window. */
uint64_t weir__within(const object *o, mark mark);

/* ---- judge.c -------------------------------------------------------------------------------- */

/* Finds the issues of all objects, and the roots.  Room for issues is there. */
void weir__judge(weir_monitor *monitor);

/* ---- say.c ---------------------------------------------------------------------------------- */

void weir__say_issue(char *buf, size_t size, const object *o, weir_issue_kind kind,
                     const weir__vitals *vitals, const weir__limits *limits);

/* The sentence for what has the most pressure; share: of its pipeline's pressure, its own. */
void weir__say_root(char *buf, size_t size, const object *o, double share);

/* What is healthy, but could do more: consumers of a queue, or the stages of a pipeline, wait for so much of
 * their time for what a source makes. */
void weir__say_starved(char *buf, size_t size, const object *o);
void weir__say_source(char *buf, size_t size, const object *o, double share);

/* ---- numbers.c ------------------------------------------------------------------------------ */

/* Whether a record has such a number: its kind has, or it is told. */
bool weir__has_number(const weir_stats_record *record, int number);

/* Whether its kind has such times: of waits (0), of services (1). */
bool weir__has_times(const weir_stats_record *record, int which);

/* "open", "slow", ...; NULL: it has no such state. */
const char *weir__state_name(int kind, uint64_t state);
const char *weir__cause_name(uint64_t cause);

/* "thread pool". */
const char *weir__kind_words(int kind);

#endif
