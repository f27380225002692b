/* A monitor of pages that lie: a thousand of them, those that change from look to look, and no memory.  What
 * it writes is well-formed whatever it has read. */
#include "fault/faults.h"
#include "fault/lies.h"

#include <ctype.h>
#include <math.h>

#include <weir/monitor.h>

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
    must(o->sample_count >= 1 && o->sample_count <= 4);
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
    _Alignas(weir__page_record) static unsigned char data[SIZE];
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
    _Alignas(weir__page_record) static unsigned char data[SIZE];
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

/* What a look that fails must leave as it was. */
static void check_same(weir_monitor *monitor, size_t objects, size_t samples)
{
    assert_int_equal(weir_monitor_objects(monitor), objects);
    for (size_t i = 0; i < objects; i++) {
        const weir_monitor_object *o = weir_monitor_object_at(monitor, i);
        assert_int_equal(o->sample_count, samples);
        assert_int_equal(o->record->number[WEIR_STATS_ACCEPTED], 1);
        assert_true(o->samples[samples - 1].depth == 1);
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
            for (size_t i = 0; i < before; i++)
                must(weir_monitor_look(monitor) == WEIR_OK);
            fail_allocation(n, false);
            int rc = weir_monitor_look(monitor);
            bool failed = stop_failing();
            must(rc == (failed ? WEIR_ENOMEM : WEIR_OK));
            size_t samples = before + !failed;
            check_same(monitor, samples ? 5 : 0, samples);
            must(weir_monitor_look(monitor) == WEIR_OK);
            check_same(monitor, 5, samples < 4 ? samples + 1 : 4);
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

/* 1000 objects: more than one page has records for what it counts, and none twice. */
static void many_pages_are_looked_at(void **state)
{
    (void)state;
    _Alignas(weir__page_record) static unsigned char data[SIZE];
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
        WITH_A_PAGE(many_pages_are_looked_at),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
