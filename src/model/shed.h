/* shed.h - when a line has become a standing one, and who in it has waited for too long.
 *
 * A line that empties now and then does its work, however long it gets; one that nobody comes
 * through quickly for a whole interval only adds its length to every wait.  Then it pays to send
 * those away who have waited for long: nobody waits for them any more.
 *
 * After CoDel (Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012) in the form
 * that folly's executors use: the *minimum* wait over an interval decides, and the limit for one who
 * waits is twice the target.
 */
#ifndef WEIR_MODEL_SHED_H
#define WEIR_MODEL_SHED_H

#include <stdbool.h>
#include <stdint.h>

#include <weir/base.h>

typedef struct weir__shed {
    int64_t target_ns; /* 0: nobody is ever late */
    int64_t interval_ns;
    weir_time until;  /* when this interval ends */
    int64_t least_ns; /* shortest wait in it */
    weir_time served; /* when a wait has ended last; 0: not since the line was empty */
    bool overloaded;  /* says the last one */
} weir__shed;

/* Somebody's wait has ended after waited_ns >= 0.  Whether it was too long. */
bool weir__shed_is_late(weir__shed *shed, weir_time now, int64_t waited_ns);

/* Somebody still waits, has for waited_ns.  Whether to send him away although nobody comes through: for
 * an interval nobody has, and he has waited for longer than that. */
bool weir__shed_is_stuck(const weir__shed *shed, weir_time now, int64_t waited_ns);

/* Nobody waits: the line has emptied. */
void weir__shed_note_empty(weir__shed *shed);

#endif
