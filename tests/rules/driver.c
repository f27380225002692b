/* driver.c - reads calls, runs each in a thread of its own, and says what it returned; see driver.h. */
#include "driver.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const subject *const subjects[] = {&queue_subject, &shared_queue_subject, &limit_subject,
                                          &rate_subject, &thread_pool_subject};
static const subject *held;

static char *const *options; /* up to NULL */

static request
    *calls[CALLS_MAX]; /* by id; never freed before the end, so a late cancel finds its call */
static atomic_int running;

static pthread_mutex_t output = PTHREAD_MUTEX_INITIALIZER;

/* ---- options and arguments --------------------------------------------------------------------- */

static void give_up(const char *why, const char *what)
{
    fprintf(stderr, "driver: %s: %s\n", why, what);
    exit(2);
}

const char *option_text(const char *key)
{
    size_t n = strlen(key);
    for (char *const *at = options; *at; at++)
        if (strncmp(*at, key, n) == 0 && (*at)[n] == '=')
            return *at + n + 1;
    return NULL;
}

uint64_t option(const char *key, uint64_t otherwise)
{
    const char *text = option_text(key);
    if (!text)
        return otherwise;
    return strcmp(text, "unbounded") == 0 ? WEIR_UNBOUNDED : strtoull(text, NULL, 10);
}

weir_overflow option_overflow(void)
{
    static const char *const names[] = {"block",       "fail",   "drop_newest",
                                        "drop_oldest", "sample", "spill"};
    const char *text = option_text("overflow");
    if (!text)
        return WEIR_OVERFLOW_BLOCK;
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
        if (strcmp(text, names[i]) == 0)
            return (weir_overflow)i;
    return (weir_overflow)strtol(text, NULL, 10);
}

uint64_t argument(const request *call, int i)
{
    if (i + 2 >= call->n_words)
        give_up("too few words", call->words[1]);
    return strtoull(call->words[i + 2], NULL, 10);
}

weir_time deadline_argument(const request *call, int i)
{
    uint64_t ns = argument(call, i);
    if (strcmp(call->words[i + 2], "forever") == 0)
        return WEIR_FOREVER;
    if (strcmp(call->words[i + 2], "past") == 0)
        return 1;
    return weir_after((int64_t)ns);
}

/* ---- answers -------------------------------------------------------------------------------------- */

void answer(const request *call, int64_t result, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    pthread_mutex_lock(&output);
    printf("%s %s ", call->words[0], result < 0 ? weir_error_name((int)result) : "ok");
    if (result >= 0)
        vprintf(format, values);
    putchar('\n');
    fflush(stdout);
    pthread_mutex_unlock(&output);
    va_end(values);
}

void say(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    pthread_mutex_lock(&output);
    vprintf(format, values);
    putchar('\n');
    fflush(stdout);
    pthread_mutex_unlock(&output);
    va_end(values);
}

void answer_numbers(const request *call, int64_t n, const unsigned long long *numbers)
{
    char text[WORDS_MAX * 21] = "";
    size_t at = 0;
    for (int64_t i = 0; i < n; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%llu ", numbers[i]);
    answer(call, n, "%s", text);
}

void answer_look(const request *call, int result, const weir_queue_snapshot *now)
{
    typedef unsigned long long number;
    char drops[512] = "";
    size_t at = 0;
    for (int i = 0; i < WEIR_DROP_REASONS; i++)
        at += (size_t)snprintf(drops + at, sizeof drops - at, " dropped.%s=%llu bytes.%s=%llu",
                               weir_drop_reason_name(i), (number)now->dropped[i],
                               weir_drop_reason_name(i), (number)now->dropped_cost[i]);
    answer(call, result,
           "maxsize=%zu max_bytes=%llu qsize=%llu bytes=%llu spilled=%llu spilled_bytes=%llu "
           "accepted=%llu accepted_bytes=%llu delivered=%llu delivered_bytes=%llu refused=%llu "
           "putters_waiting=%zu getters_waiting=%zu peak_qsize=%zu is_shutdown=%d%s",
           now->capacity, (number)now->max_cost, (number)(now->depth + now->spilled),
           (number)(now->cost + now->spilled_cost), (number)now->spilled, (number)now->spilled_cost,
           (number)now->accepted, (number)now->accepted_cost, (number)now->delivered,
           (number)now->delivered_cost, (number)now->refused, now->putters_waiting,
           now->getters_waiting, now->peak_depth, now->closed, drops);
}

/* ---- calls ------------------------------------------------------------------------------------------ */

static int is_cancelled(void *ctx)
{
    return atomic_load(&((request *)ctx)->cancelled);
}

static void *run(void *arg)
{
    request *call = arg;
    weir_set_interrupt(is_cancelled, call);
    for (const verb *each = held->verbs; each->name; each++) {
        if (strcmp(each->name, call->words[1]) != 0)
            continue;
        if (call->n_words < each->n_words + 2)
            give_up("too few words", each->name);
        each->run(call);
        atomic_fetch_sub(&running, 1);
        return NULL;
    }
    give_up("no such verb", call->words[1]);
    return NULL;
}

static request *request_of(const char *line)
{
    request *call = calloc(1, sizeof *call);
    if (!call || !(call->line = strdup(line)))
        give_up("out of memory", line);
    char *rest = call->line, *word;
    while ((word = strsep(&rest, " \n")))
        if (*word && call->n_words < WORDS_MAX)
            call->words[call->n_words++] = word;
    if (call->n_words < 2 || (call->id = (unsigned)strtoul(call->words[0], NULL, 10)) >= CALLS_MAX)
        give_up("no call", line);
    return call;
}

static void cancel(request *call)
{
    struct request *other = calls[argument(call, 0) % CALLS_MAX];
    if (other)
        atomic_store(&other->cancelled, true);
    answer(call, WEIR_OK, "%s", "");
}

static void begin(const char *line)
{
    request *call = request_of(line);
    calls[call->id] = call;
    if (strcmp(call->words[1], "cancel") == 0) {
        cancel(call);
        return;
    }
    pthread_t thread;
    atomic_fetch_add(&running, 1);
    if (pthread_create(&thread, NULL, run, call) != 0)
        give_up("no thread for", line);
    pthread_detach(thread);
}

static const subject *find(const char *kind)
{
    for (size_t i = 0; i < sizeof subjects / sizeof *subjects; i++)
        if (strcmp(subjects[i]->kind, kind) == 0)
            return subjects[i];
    give_up("no such kind", kind);
    return NULL;
}

int main(int argc, char *argv[])
{
    if (argc < 2)
        give_up("say of which kind", "driver KIND [OPTION=VALUE]...");
    held = find(argv[1]);
    options = argv + 2;
    int created = held->create();
    say("%s", created < 0 ? weir_error_name(created) : "ready");
    if (created < 0)
        return 0;
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0)
        begin(line);
    free(line);
    held->close();
    while (atomic_load(&running) > 0)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    held->destroy();
    for (int i = 0; i < CALLS_MAX; i++) {
        if (calls[i])
            free(calls[i]->line);
        free(calls[i]);
    }
    return 0;
}
