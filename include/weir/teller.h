/* teller.h - telling other processes the numbers of an object of one's own; the contract, quoted by
 * weir_teller(3).
 *
 * For who builds a queue, a pool or a limit that is none of weir's, in a language say, and wants it to be
 * seen beside those.
 *
 * A copy:   a record is told; the object keeps numbers of its own, and decides by them.  NULL stands for no
 *           record, and is told as any other: so an object need not ask whether it has one.
 * Threads:  one call on a record at a time: under the object's lock, as a rule.
 * Cost:     telling is a store for each number; it makes no system call and waits for nobody.
 * Fork:     a record is the process's that opened it.  In a forked child what is told goes nowhere, and
 *           closing it is fine.
 */
#ifndef WEIR_TELLER_H
#define WEIR_TELLER_H

#include <weir/stats.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The way to a record, which readers see. */
typedef struct weir_teller weir_teller;

/* A record with all numbers 0.  name: up to 63 bytes of it are copied; NULL: "queue-1" and so on, by kind;
 * "": NULL is returned, as where there is no room for another record, or pages are switched off. */
WEIR_API weir_teller *weir_teller_open(weir_stats_kind kind, const char *name);

/* It is seen no more (NULL is fine). */
WEIR_API void weir_teller_close(weir_teller *teller);

/* As in weir_stats_record, for OWNER of its parts; 0: NULL, or from before a fork. */
WEIR_API uint64_t weir_teller_id(const weir_teller *teller);

typedef struct weir_told {
    weir_stats_number number;
    uint64_t value;
} weir_told;

/* Sets n numbers, which belong together: a reader sees all of them, or says that it does not.  Counters are
 * never to go back; numbers that weir_stats(7) says readers find are theirs.  How long callers were blocked
 * follows from how many wait (PUT_WAITING, GET_WAITING), if that is told whenever it changes.  Others
 * than those of weir_stats_number are passed over. */
WEIR_API void weir_teller_tell(weir_teller *teller, const weir_told *told, size_t n);

typedef enum weir_teller_times {
    WEIR_TELLER_WAIT = 0, /* of items inside, or of callers */
    WEIR_TELLER_SERVICE,  /* of what was delivered, until it was done */
} weir_teller_times;

/* Counts how long one thing took, which stands for n (1, where each is timed); what is negative counts as 0. */
WEIR_API void weir_teller_time(weir_teller *teller, weir_teller_times which, int64_t ns,
                               uint64_t n);

#ifdef __cplusplus
}
#endif

#endif
