/* A monitor of pages that lie: a thousand of them, those that change from look to look, and no memory.  What
 * it writes is well-formed whatever it has read. */
#include "fault/faults.h"
#include "fault/lies.h"

#include <ctype.h>
#include <math.h>

#include <weir/monitor.h>

#include "model/histogram.h"

/* ---- what is well-formed ------------------------------------------------------------------------ */

typedef struct text {
    char *data;
    size_t n, room;
} text;

static int write_text(void *ctx, const char *data, size_t n)
{
    text *t = ctx;
    if (t->n + n + 1 > t->room) {
        t->room = 2 * (t->n + n + 1);
        t->data = realloc(t->data, t->room);
        must(t->data);
    }
    memcpy(t->data + t->n, data, n);
    t->n += n;
    t->data[t->n] = '\0';
    return WEIR_OK;
}

static const char *skip_string(const char *at)
{
    must(*at++ == '"');
    for (; *at != '"'; at++) {
        must((unsigned char)*at >= ' '); /* and not the end */
        if (*at == '\\')
            must(strchr("\"\\nu", *++at));
    }
    return at + 1;
}

static const char *skip_number(const char *at)
{
    char *end;
    must(*at == '-' || isdigit((unsigned char)*at));
    must(isfinite(strtod(at, &end)) || strlen(at) == 0);
    return end;
}

static const char *skip_value(const char *at, int depth);

static const char *skip_space(const char *at)
{
    return at + strspn(at, "\n");
}

static const char *skip_list(const char *at, int depth, char end)
{
    must(depth < 8);
    at = skip_space(at + 1);
    while (*at != end) {
        if (end == '}') {
            at = skip_string(at);
            must(*at++ == ':');
        }
        at = skip_value(at, depth + 1);
        must(*at == end || *at++ == ',');
        at = skip_space(at);
    }
    return at + 1;
}

static const char *skip_value(const char *at, int depth)
{
    static const char *const words[] = {"true", "false", "null"};
    if (*at == '{' || *at == '[')
        return skip_list(at, depth, *at == '{' ? '}' : ']');
    if (*at == '"')
        return skip_string(at);
    for (int i = 0; i < 3; i++)
        if (strncmp(at, words[i], strlen(words[i])) == 0)
            return at + strlen(words[i]);
    return skip_number(at);
}

static void check_json(const char *json)
{
    must(strcmp(skip_value(json, 0), "\n") == 0);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* name{label="value",...} number; returns where the labels end. */
static char *check_sample(char *line, const char *family)
{
    must(strncmp(line, family, strlen(family)) == 0);
    char *at = line + strcspn(line, "{ ");
    if (*at == '{')
        do {
            at += 1 + strcspn(at + 1, "=");
            at = (char *)skip_string(at + 1);
        } while (*at == ',');
    at += *at == '}';
    must(*at == ' ');
    must(strcmp(at, " +Inf") == 0 || *skip_number(at + 1) == '\0');
    return at;
}

static void check_no_sample_twice(char **samples, size_t n)
{
    qsort(samples, n, sizeof *samples, by_text);
    for (size_t i = 1; i < n; i++)
        must(strcmp(samples[i - 1], samples[i]) != 0);
}

static void check_openmetrics(char *page)
{
    static char *samples[1 << 20];
    static char family[64];
    size_t n = 0, length = strlen(page);
    must(length > 6 && strcmp(page + length - 6, "# EOF\n") == 0);
    page[length - 6] = '\0';
    for (char *line = strtok(page, "\n"); line; line = strtok(NULL, "\n")) {
        if (strncmp(line, "# TYPE ", 7) == 0)
            must(sscanf(line + 7, "%63s", family) == 1);
        if (line[0] == '#')
            continue;
        must(n < sizeof samples / sizeof *samples);
        *check_sample(line, family) = '\0';
        samples[n++] = line;
    }
    check_no_sample_twice(samples, n);
}

/* ---- a look --------------------------------------------------------------------------------------- */

static weir_monitor *new_monitor(void)
{
    weir_monitor *monitor;
    weir_monitor_opts opts = WEIR_MONITOR_OPTS_INIT;
    opts.folder = folder;
    opts.window = 4;
    must(weir_monitor_create(&monitor, &opts) == WEIR_OK);
    return monitor;
}

static void check_object(const weir_monitor_object *o)
{
    const double numbers[] = {o->seconds,      o->accepted_per_s, o->delivered_per_s,
                              o->done_per_s,   o->dropped_per_s,  o->refused_per_s,
                              o->failed_per_s, o->put_blocked,    o->get_blocked,
                              o->pressure,     o->busy + 1,       o->fullness + 1};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        must(isfinite(numbers[i]) && numbers[i] >= 0);
    must(o->busy <= 1 && o->fullness <= 1);
    must(o->wait.p50_ns <= o->wait.p99_ns && o->wait.p99_ns <= o->wait.max_ns);
    must(o->sample_count >= 1 && o->sample_count <= 10);
}

/* All that there is, and all that can be written of it. */
static void use(weir_monitor *monitor)
{
    static text json, metrics;
    const weir_monitor_object *root;
    for (size_t i = 0; i < weir_monitor_objects(monitor); i++)
        check_object(weir_monitor_object_at(monitor, i));
    for (size_t i = 0; i < weir_monitor_issues(monitor); i++)
        must(weir_monitor_issue_at(monitor, i)->text[0] &&
             isfinite(weir_monitor_issue_at(monitor, i)->value));
    for (size_t i = 0; i < weir_monitor_processes(monitor); i++)
        must(weir_monitor_root(monitor, weir_monitor_process_at(monitor, i)->process.pid, &root));
    json.n = metrics.n = 0;
    must(weir_monitor_write_json(monitor, true, write_text, &json) == WEIR_OK);
    check_json(json.data);
    must(weir_monitor_write_openmetrics(monitor, write_text, &metrics) == WEIR_OK);
    check_openmetrics(metrics.data);
}

/* ---- tests ---------------------------------------------------------------------------------------- */

static void a_thousand_hostile_pages_are_survived(void **state)
{
    (void)state;
    static _Alignas(weir__page_record) unsigned char data[SIZE];
    weir_monitor *monitor = new_monitor();
    for (unsigned i = 0; i < HOSTILE; i += 50) {
        int fds[50];
        for (unsigned j = 0; j < 50; j++)
            fds[j] = lie(j, data, distort(data, i + j));
        must(weir_monitor_look(monitor) == WEIR_OK);
        use(monitor);
        for (unsigned j = 0; j < 50; j++)
            close(fds[j]);
    }
    weir_monitor_destroy(monitor);
}

static weir__page_record *record_in(unsigned char *data, unsigned i)
{
    return (weir__page_record *)(void *)(data + sizeof(weir__page_head) +
                                         i * sizeof(weir__page_record));
}

/* A number as it may not be: of any size, and another one each time. */
static uint64_t any_number(void)
{
    uint64_t number = weir__random_next(&chance) >> below(&chance, 64);
    return below(&chance, 8) ? number : UINT64_MAX - below(&chance, 3);
}

/* Of all kinds; counters jump to and fro, owners own each other, text has no end. */
static void make_nonsense(unsigned char *data)
{
    memcpy(data, whole, SIZE);
    for (unsigned i = 0; i < FIRST; i++) {
        weir__page_record *r = record_in(data, i);
        r->generation = 1;
        r->kind = 1 + (i + below(&chance, 2) * below(&chance, 12)) % 12;
        for (int n = 0; n < WEIR__PAGE_NUMBERS; n++)
            r->number[n] = any_number();
        r->number[WEIR_STATS_OWNER] = 1024 + below(&chance, FIRST);
        r->number[WEIR_STATS_PLACE] = below(&chance, 4);
        r->created_ns = (int64_t)any_number();
        for (int b = 0; b < 20; b++) {
            r->wait.bucket[below(&chance, WEIR__PAGE_BUCKETS)] = any_number();
            r->service.bucket[below(&chance, WEIR__PAGE_BUCKETS)] = any_number();
        }
        r->wait.sum_ns = any_number();
        r->service.max_ns = any_number();
        fill_with_noise((unsigned char *)r->name, sizeof r->name);
    }
}

static void numbers_that_jump_are_survived(void **state)
{
    (void)state;
    static _Alignas(weir__page_record) unsigned char data[SIZE];
    weir_monitor *monitor = new_monitor();
    make_nonsense(data);
    int fd = lie(1, data, SIZE);
    for (int i = 0; i < 200; i++) {
        make_nonsense(data);
        must(pwrite(fd, data, SIZE, 0) == (ssize_t)SIZE);
        must(weir_monitor_look(monitor) == WEIR_OK);
        must(weir_monitor_objects(monitor) == FIRST);
        use(monitor);
    }
    weir_monitor_destroy(monitor);
    close(fd);
}

static void of_two_processes_with_one_pid_one_is_seen(void **state)
{
    (void)state;
    int fds[] = {lie(1, whole, SIZE), lie(2, whole, SIZE)};
    weir_monitor *monitor = new_monitor();
    must(weir_monitor_look(monitor) == WEIR_OK);
    assert_int_equal(weir_monitor_processes(monitor), 1);
    assert_int_equal(weir_monitor_objects(monitor), 5);
    use(monitor);
    weir_monitor_destroy(monitor);
    close(fds[0]);
    close(fds[1]);
}

/* The page as it is before the n-th look: with more times each time, for which there has to be room. */
static void go_on(int fd, size_t n)
{
    static _Alignas(weir__page_record) unsigned char data[SIZE];
    memcpy(data, whole, SIZE);
    for (unsigned i = 0; i < 5; i++) {
        weir__page_record *r = record_in(data, i);
        r->number[WEIR_STATS_ACCEPTED] = n;
        for (unsigned b = 0; b < 100 * n; b++)
            r->wait.bucket[b] = n;
    }
    must(pwrite(fd, data, SIZE, 0) == (ssize_t)SIZE);
}

/* What a look that fails must leave as it was; `last`: the look that went well. */
static void check_same(weir_monitor *monitor, size_t objects, size_t samples, size_t last)
{
    assert_int_equal(weir_monitor_objects(monitor), objects);
    for (size_t i = 0; i < objects; i++) {
        const weir_monitor_object *o = weir_monitor_object_at(monitor, i);
        assert_int_equal(o->sample_count, samples);
        assert_int_equal(o->record->number[WEIR_STATS_ACCEPTED], last);
        assert_true(o->samples[samples - 1].depth == (double)last);
        assert_int_equal(o->process->objects, objects);
    }
    use(monitor);
}

static void without_memory_a_look_changes_nothing(void **state)
{
    (void)state;
    int fd = lie(1, whole, SIZE);
    for (size_t before = 0; before < 4; before++) /* the looks that went well */
        for (int64_t n = 1;; n++) {
            weir_monitor *monitor = new_monitor();
            for (size_t i = 1; i <= before; i++) {
                go_on(fd, i);
                must(weir_monitor_look(monitor) == WEIR_OK);
            }
            go_on(fd, before + 1);
            fail_allocation(n, false);
            int rc = weir_monitor_look(monitor);
            bool failed = stop_failing();
            must(rc == (failed ? WEIR_ENOMEM : WEIR_OK));
            size_t samples = before + !failed;
            check_same(monitor, samples ? 5 : 0, samples, samples);
            go_on(fd, before + 2);
            must(weir_monitor_look(monitor) == WEIR_OK);
            check_same(monitor, 5, samples < 4 ? samples + 1 : 4, before + 2);
            weir_monitor_destroy(monitor);
            if (!failed)
                break;
        }
    close(fd);
}

static void without_memory_there_is_no_monitor(void **state)
{
    (void)state;
    weir_monitor_opts opts = WEIR_MONITOR_OPTS_INIT;
    weir_monitor *monitor = NULL;
    opts.folder = folder;
    for (int64_t n = 1; n <= 2; n++) {
        fail_allocation(n, false);
        assert_int_equal(weir_monitor_create(&monitor, &opts), WEIR_ENOMEM);
        assert_true(stop_failing());
        assert_null(monitor);
    }
}

/* ---- other users' pages --------------------------------------------------------------------------- */

#define STRANGER 4294967293u

/* One page of a user that nobody is, in his folder; its descriptor. */
static int lie_of_stranger(void)
{
    static _Alignas(weir__page_record) unsigned char data[SIZE];
    char own[sizeof folder];
    memcpy(data, whole, SIZE);
    ((weir__page_head *)(void *)data)->pid = INT64_C(1) << 40;
    memcpy(own, folder, sizeof own);
    snprintf(folder, sizeof folder, "/dev/shm/weir-%u-stats", STRANGER);
    must(mkdir(folder, 0700) == 0 && chown(folder, STRANGER, STRANGER) == 0);
    int fd = lie(1, data, SIZE);
    must(fchown(fd, STRANGER, STRANGER) == 0);
    memcpy(folder, own, sizeof own);
    return fd;
}

static void forget_stranger(int fd)
{
    char path[96];
    close(fd);
    snprintf(path, sizeof path, "/dev/shm/weir-%u-stats/2-1", STRANGER);
    must(remove(path) == 0);
    *strrchr(path, '/') = '\0';
    must(rmdir(path) == 0);
}

/* Objects of his. */
static size_t count_strangers(weir_monitor *monitor)
{
    size_t n = 0;
    for (size_t i = 0; i < weir_monitor_objects(monitor); i++)
        n += weir_monitor_object_at(monitor, i)->process->uid == STRANGER;
    return n;
}

static void root_sees_the_pages_of_every_user(void **state)
{
    (void)state;
    weir_monitor_opts opts = WEIR_MONITOR_OPTS_INIT;
    weir_monitor *monitor;
    text metrics = {0};
    if (geteuid() != 0 || access("/dev/shm", W_OK) != 0)
        skip();
    int fd = lie_of_stranger();
    opts.every_user = true;
    must(weir_monitor_create(&monitor, &opts) == WEIR_OK);
    int rc = weir_monitor_look(monitor);
    size_t strangers = count_strangers(monitor);
    must(weir_monitor_write_openmetrics(monitor, write_text, &metrics) == WEIR_OK);
    forget_stranger(fd);
    assert_int_equal(rc, WEIR_OK);
    assert_int_equal(strangers, 5);
    assert_non_null(strstr(metrics.data, ",user=\"4294967293\"} 10\n")); /* a capacity */
    assert_int_equal(weir_monitor_look(monitor), WEIR_OK);
    assert_int_equal(count_strangers(monitor), 0);
    free(metrics.data);
    weir_monitor_destroy(monitor);
}

/* ---- what pages tell of pipelines ----------------------------------------------------------------- */

typedef struct part {
    weir_stats_kind kind;
    const char *name;
    uint64_t owner, place, feeds, workers, pressure_ns, busy_ns, idle_ns;
} part;

/* A page with these, in that order; `ns`: how far their counters are. */
static void make_parts(unsigned char *data, const part *parts, unsigned n, uint64_t ns)
{
    memcpy(data, whole, SIZE);
    for (unsigned i = 0; i < FIRST; i++) {
        weir__page_record *r = record_in(data, i);
        r->generation = i < n;
        if (i >= n)
            continue;
        memset((void *)r->number, 0, sizeof r->number);
        memset(r->name, 0, sizeof r->name);
        memcpy(r->name, parts[i].name, strlen(parts[i].name));
        r->kind = parts[i].kind;
        r->number[WEIR_STATS_OWNER] = parts[i].owner;
        r->number[WEIR_STATS_PLACE] = parts[i].place;
        r->number[WEIR_STATS_FEEDS] = parts[i].feeds;
        r->number[WEIR_STATS_WORKERS] = parts[i].workers;
        r->number[WEIR_STATS_PRESSURE_NS] = parts[i].pressure_ns * ns;
        r->number[WEIR_STATS_BUSY_NS] = (parts[i].pressure_ns + parts[i].busy_ns) * ns;
        r->number[WEIR_STATS_IDLE_NS] = parts[i].idle_ns * ns;
    }
}

static weir_monitor *look_at_parts(const part *parts, unsigned n)
{
    static _Alignas(weir__page_record) unsigned char data[SIZE];
    weir_monitor *monitor = new_monitor();
    make_parts(data, parts, n, 1);
    int fd = lie(1, data, SIZE);
    for (uint64_t i = 1; i < 4; i++) {
        make_parts(data, parts, n, i * 1000 * WEIR_SECOND);
        must(pwrite(fd, data, SIZE, 0) == (ssize_t)SIZE);
        must(weir_monitor_look(monitor) == WEIR_OK);
        /* Long beside the time that lies between two records of a look, or shares differ by that. */
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
    close(fd);
    use(monitor);
    return monitor;
}

static const char *name_at(weir_monitor *monitor, size_t i)
{
    return weir_monitor_object_at(monitor, i)->record->name;
}

/* Records of a page have the ids 1024, 1025, ... */
static void stages_and_workers_stand_with_what_they_belong_to(void **state)
{
    (void)state;
    static const part parts[] = {
        {WEIR_STATS_PROCESS_POOL, "pool", 0, 0, 0, 2, 0},
        {WEIR_STATS_STAGE, "p/read", 1025, 0, 1u << 1 | 1u << 2, 1, 0},
        {WEIR_STATS_QUEUE, "q", 0, 0, 0, 0, 0},
        {WEIR_STATS_STAGE, "p/store", 1025, 2, 0, 1, 0},
        {WEIR_STATS_WORKER, "w1", 1024, 1, 0, 0, 0},
        {WEIR_STATS_STAGE, "p/parse", 1025, 1, 1u << 2, 1, 0},
        {WEIR_STATS_WORKER, "w0", 1024, 0, 0, 0, 0},
    };
    static const char *const order[] = {"pool", "w0", "w1", "p/read", "p/parse", "p/store", "q"};
    weir_monitor *monitor = look_at_parts(parts, 7);
    text json = {0};
    assert_int_equal(weir_monitor_objects(monitor), 7);
    for (size_t i = 0; i < 7; i++)
        assert_string_equal(name_at(monitor, i), order[i]);
    must(weir_monitor_write_json(monitor, false, write_text, &json) == WEIR_OK);
    char edge[128];
    int pid = (int)weir_monitor_process_at(monitor, 0)->process.pid;
    static const int ends[][2] = {{1025, 1029}, {1025, 1027}, {1029, 1027}};
    for (int i = 0; i < 3; i++) {
        snprintf(edge, sizeof edge, "\"from\":\"%d-%d\",\"to\":\"%d-%d\"}", pid, ends[i][0], pid,
                 ends[i][1]);
        assert_non_null(strstr(json.data, edge));
    }
    free(json.data);
    weir_monitor_destroy(monitor);
}

static void the_stage_with_the_most_pressure_is_the_root(void **state)
{
    (void)state;
    static const part parts[] = {
        {WEIR_STATS_STAGE, "ingest/read", 1024, 0, 1u << 1, 1, 0},
        {WEIR_STATS_STAGE, "ingest/parse", 1024, 1, 1u << 2, 4, 6},
        {WEIR_STATS_STAGE, "ingest/store", 1024, 2, 0, 2, 94},
        {WEIR_STATS_STAGE, "other/store", 1027, 0, 0, 2, 50},
    };
    weir_monitor *monitor = look_at_parts(parts, 4);
    const weir_monitor_object *root;
    assert_string_equal(weir_monitor_root(monitor, 0, &root),
                        "stage 'ingest/store' is the bottleneck: 94 % of the blocked time of "
                        "'ingest'; it is limited by its 2 workers (busy 100 %)");
    assert_ptr_equal(root, weir_monitor_object_at(monitor, 2));
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(weir_monitor_object_at(monitor, i)->is_root, i == 2);
    weir_monitor_destroy(monitor);
}

/* As the report of the pipeline does; the numbers jump by more than time does, so shares are whole. */
static void of_a_pipeline_that_is_not_pressed_the_slow_source_is_told(void **state)
{
    (void)state;
    static const part parts[] = {
        {WEIR_STATS_STAGE, "slow/read", 1024, 0, 1u << 1, 1, 0, 9, 0},
        {WEIR_STATS_STAGE, "slow/parse", 1024, 1, 1u << 2, 4, 0, 0, 9},
        {WEIR_STATS_STAGE, "slow/store", 1024, 2, 0, 2, 0, 0, 9},
        {WEIR_STATS_STAGE, "busy/read", 1027, 0, 1u << 1, 1, 0, 0, 9},
        {WEIR_STATS_STAGE, "busy/parse", 1027, 1, 1u << 2, 1, 0, 9, 0},
        {WEIR_STATS_STAGE, "busy/store", 1027, 2, 0, 9, 0, 0, 9},
    };
    weir_monitor *monitor = look_at_parts(parts, 6);
    const weir_monitor_object *root;
    assert_string_equal(weir_monitor_root(monitor, 0, &root),
                        "nothing holds anything back; the source 'slow/read' is the slowest: the "
                        "stages of 'slow' waited for it 100 % of their time");
    assert_string_equal(root->record->name, "slow/read");
    assert_false(root->is_root);
    weir_monitor_destroy(monitor);
}

/* ---- what pages tell of trouble ------------------------------------------------------------------- */

static void make_trouble(unsigned char *data, uint64_t n)
{
    static const part parts[] = {
        {WEIR_STATS_PROCESS_POOL, "crash", 0, 0, 0, 2, 0},
        {WEIR_STATS_GOVERNOR, "memory", 0, 0, 0, 0, 0},
        {WEIR_STATS_QUEUE, "old", 0, 0, 0, 0, 0},
        {WEIR_STATS_THREAD_POOL, "slow", 0, 0, 0, 2, 0},
    };
    make_parts(data, parts, 4, 0);
    record_in(data, 0)->number[WEIR_STATS_FAILED] = n;
    record_in(data, 0)->number[WEIR_STATS_RETRIED] = 2 * n;
    record_in(data, 1)->number[WEIR_STATS_STATE] = 2; /* pause */
    record_in(data, 1)->number[WEIR_STATS_IN_FLIGHT_COST] = UINT64_C(3) << 30;
    record_in(data, 1)->number[WEIR_STATS_CAPACITY] = 1 << 29;
    record_in(data, 2)->number[WEIR_STATS_ACCEPTED] = 20;
    record_in(data, 2)->number[WEIR_STATS_CAPACITY] = UINT64_MAX;
    for (uint64_t i = 1; i <= n; i++)
        record_in(data, 2)->wait.bucket[weir__histogram_bucket(i * 20000000)] += 10;
    record_in(data, 2)->wait.max_ns = WEIR_SECOND;
    record_in(data, 3)->service.bucket[weir__histogram_bucket(2 * WEIR_SECOND)] = n;
    record_in(data, 3)->service.sum_ns = 2 * n * WEIR_SECOND;
    record_in(data, 3)->service.max_ns = 2 * WEIR_SECOND;
}

static const char *text_of(weir_monitor *monitor, weir_issue_kind kind)
{
    for (size_t i = 0; i < weir_monitor_issues(monitor); i++)
        if (weir_monitor_issue_at(monitor, i)->kind == kind)
            return weir_monitor_issue_at(monitor, i)->text;
    return "";
}

static void assert_begins(const char *said, const char *beginning)
{
    if (strncmp(said, beginning, strlen(beginning)) != 0)
        fail_msg("\"%s\" does not begin with \"%s\"", said, beginning);
}

static void each_trouble_has_its_sentence_and_the_worst_is_first(void **state)
{
    (void)state;
    static _Alignas(weir__page_record) unsigned char data[SIZE];
    weir_monitor *monitor;
    weir_monitor_opts opts = WEIR_MONITOR_OPTS_INIT;
    opts.folder = folder;
    opts.thresholds.throughput = 1e6; /* so that a moment is time enough */
    must(weir_monitor_create(&monitor, &opts) == WEIR_OK);
    make_trouble(data, 0);
    int fd = lie(1, data, SIZE);
    for (uint64_t n = 0; n < 8; n++) {
        make_trouble(data, n);
        must(pwrite(fd, data, SIZE, 0) == (ssize_t)SIZE);
        must(weir_monitor_look(monitor) == WEIR_OK);
    }
    assert_begins(text_of(monitor, WEIR_ISSUE_WORKERS_DIE),
                  "workers of process pool 'crash' died within ");
    assert_non_null(strstr(text_of(monitor, WEIR_ISSUE_WORKERS_DIE),
                           ": 7 tasks failed, 14 tasks were run again"));
    assert_string_equal(text_of(monitor, WEIR_ISSUE_MEMORY),
                        "memory governor 'memory' lets nothing in: 3 GiB reserved, of at most "
                        "512 MiB as memory is now");
    assert_begins(text_of(monitor, WEIR_ISSUE_GROWING_AGE),
                  "what comes out of queue 'old' has waited longer and longer: 1");
    assert_begins(text_of(monitor, WEIR_ISSUE_LOW_THROUGHPUT),
                  "queue 'old' lets 0 items/s through, and is never without: 20 or more inside");
    assert_begins(text_of(monitor, WEIR_ISSUE_SLOW_SERVICE),
                  "what thread pool 'slow' works on takes 2 s on average, more than 1 s");
    assert_int_equal(weir_monitor_issues(monitor), 5);
    assert_int_equal(weir_monitor_issue_at(monitor, 0)->kind, WEIR_ISSUE_WORKERS_DIE);
    assert_int_equal(weir_monitor_issue_at(monitor, 1)->kind, WEIR_ISSUE_MEMORY);
    use(monitor);
    weir_monitor_destroy(monitor);
    close(fd);
}

static void many_pages_are_looked_at(void **state)
{
    (void)state;
    static _Alignas(weir__page_record) unsigned char data[SIZE];
    enum { PAGES = 150 };
    int fds[PAGES];
    for (unsigned i = 0; i < PAGES; i++) {
        memcpy(data, whole, SIZE);
        ((weir__page_head *)(void *)data)->pid = 1 + INT64_C(1000000000) + i;
        fds[i] = lie(i, data, SIZE);
    }
    weir_monitor *monitor = new_monitor();
    for (int i = 0; i < 6; i++)
        must(weir_monitor_look(monitor) == WEIR_OK);
    assert_int_equal(weir_monitor_processes(monitor), PAGES);
    assert_int_equal(weir_monitor_objects(monitor), 5 * PAGES);
    use(monitor);
    weir_monitor_destroy(monitor);
    for (unsigned i = 0; i < PAGES; i++)
        close(fds[i]);
}

#define WITH_A_PAGE(test) cmocka_unit_test_setup_teardown(test, begin, end_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_A_PAGE(a_thousand_hostile_pages_are_survived),
        WITH_A_PAGE(numbers_that_jump_are_survived),
        WITH_A_PAGE(of_two_processes_with_one_pid_one_is_seen),
        WITH_A_PAGE(without_memory_a_look_changes_nothing),
        WITH_A_PAGE(without_memory_there_is_no_monitor),
        WITH_A_PAGE(root_sees_the_pages_of_every_user),
        WITH_A_PAGE(stages_and_workers_stand_with_what_they_belong_to),
        WITH_A_PAGE(the_stage_with_the_most_pressure_is_the_root),
        WITH_A_PAGE(of_a_pipeline_that_is_not_pressed_the_slow_source_is_told),
        WITH_A_PAGE(each_trouble_has_its_sentence_and_the_worst_is_first),
        WITH_A_PAGE(many_pages_are_looked_at),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
