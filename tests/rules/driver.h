/* driver.h - a program that holds one object of libweir and does with it what its stdin says.
 *
 * The rules that all faces keep are written once, in Python (python/tests/test_rules_*.py).  So that they
 * hold for C too, this program is their hand there: it decides nothing, and checks nothing.
 *
 *     driver KIND [OPTION=VALUE]...     prints "ready", or the error that the constructor returned
 *     ID VERB [WORD]...                 each line is a call, in a thread of its own
 *     ID ok [WORD]...  or  ID WEIR_E... what it returned
 *     drop NUMBER REASON                on_drop was called
 *
 * At the end of its input it closes the object, which has to release whoever still waits, and destroys it.
 */
#ifndef WEIR_TESTS_RULES_DRIVER_H
#define WEIR_TESTS_RULES_DRIVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <weir/weir.h>

enum { WORDS_MAX = 300, CALLS_MAX = 4096 };

typedef struct request {
    char *line;
    unsigned id;                  /* < CALLS_MAX */
    const char *words[WORDS_MAX]; /* id, verb, arguments */
    int n_words;
    atomic_bool cancelled; /* asked by the interruption hook */
} request;

typedef struct verb {
    const char *name;
    int n_words; /* it needs so many arguments */
    void (*run)(request *call);
} verb;

typedef struct subject {
    const char *kind;
    int (*create)(void); /* from the options; WEIR_OK or an error */
    void (*close)(void);
    void (*destroy)(void);
    const verb *verbs; /* ends with a name that is NULL */
} subject;

extern const subject queue_subject, shared_queue_subject, limit_subject, rate_subject,
    thread_pool_subject;

/* ---- options of the command line ------------------------------------------------------------- */

const char *option_text(const char *key); /* NULL: not given */
uint64_t option(const char *key, uint64_t otherwise);
weir_overflow option_overflow(void);

/* ---- arguments of a call, from 0 ------------------------------------------------------------- */

uint64_t argument(const request *call, int i);

/* "forever", "past" (a point long gone), or nanoseconds from now; 0 does not wait. */
weir_time deadline_argument(const request *call, int i);

/* ---- answers ----------------------------------------------------------------------------------- */

/* What a function of libweir returned: the error's name, or "ok" and the text. */
void answer(const request *call, int64_t result, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

void answer_numbers(const request *call, int64_t n, const unsigned long long *numbers);
void answer_look(const request *call, int result, const weir_queue_snapshot *now);

/* A line that is no answer. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
