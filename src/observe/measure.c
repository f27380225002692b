/* measure.c - one object from look to look; see monitor_impl.h. */
#include <string.h>

#include "model/histogram.h"
#include "observe/monitor_impl.h"

enum { WAIT, SERVICE };
enum { PUT, GET };

static uint64_t less(uint64_t after, uint64_t before)
{
    return after > before ? after - before : 0;
}

static const weir_stats_times *times_of(const weir_stats_record *record, int which)
{
    return which == WAIT ? &record->wait : &record->service;
}

/* ---- times ------------------------------------------------------------------------------------ */

static unsigned count_new(const weir_stats_times *before, const weir_stats_times *after)
{
    unsigned n = 0;
    for (unsigned i = 0; i < WEIR_STATS_BUCKETS; i++)
        n += after->bucket[i] > before->bucket[i];
    return n;
}

/* (Samples lie where they can be seen: they are there also if this fails.) */
static void show_samples(const weir_monitor *monitor, object *o)
{
    size_t n = o->samples.n < monitor->window ? o->samples.n : monitor->window;
    o->pub.samples = weir__track_at(&o->samples, sizeof(weir_monitor_sample), o->samples.n - n);
    o->pub.sample_count = n;
}

bool weir__measure_reserve(weir_monitor *monitor, object *o)
{
    const weir_stats_record *before = record_of(o), *fresh = &o->records[1 - o->current];
    o->new_cells = o->is_known ? count_new(&before->wait, &fresh->wait) +
                                     count_new(&before->service, &fresh->service)
                               : 0;
    if (!weir__track_reserve(&o->looks, sizeof(look), 1) ||
        !weir__track_reserve(&o->cells, sizeof(cell), o->new_cells) ||
        !weir__track_reserve(&o->samples, sizeof(weir_monitor_sample), 1))
        return false;
    show_samples(monitor, o);
    return true;
}

/* Without its times a look still has its counters. */
static void forget_times(object *o, look *oldest)
{
    weir__track_drop(&o->cells, oldest->cells[WAIT] + oldest->cells[SERVICE]);
    oldest->cells[WAIT] = oldest->cells[SERVICE] = 0;
    oldest->sum_ns[WAIT] = oldest->sum_ns[SERVICE] = 0;
}

static void make_room(object *o, size_t window)
{
    while (o->looks.n > window) {
        forget_times(o, weir__track_at(&o->looks, sizeof(look), 0));
        weir__track_drop(&o->looks, 1);
        weir__track_drop(&o->samples, 1);
    }
    for (size_t i = 0; o->cells.n + o->new_cells > CELLS_MAX && i < o->looks.n; i++)
        forget_times(o, weir__track_at(&o->looks, sizeof(look), i));
}

static void keep_times(object *o, look *now, const weir_stats_times *between, int which)
{
    now->cells[which] = 0;
    now->sum_ns[which] = between->sum_ns;
    for (unsigned i = 0; i < WEIR_STATS_BUCKETS; i++) {
        if (between->bucket[i] == 0)
            continue;
        uint64_t count = between->bucket[i] < UINT32_MAX ? between->bucket[i] : UINT32_MAX;
        *(cell *)weir__track_push(&o->cells, sizeof(cell)) =
            (cell){.bucket = (uint16_t)i, .count = (uint32_t)count};
        now->cells[which]++;
    }
}

/* Adds what was timed in the looks [from, to) together. */
static void collect(const object *o, int which, size_t from, size_t to, weir_stats_times *ret)
{
    memset(ret, 0, sizeof *ret);
    size_t at = 0;
    for (size_t i = 0; i < to; i++) {
        const look *l = look_at(o, i);
        size_t begin = at + (which == SERVICE ? l->cells[WAIT] : 0);
        at += l->cells[WAIT] + l->cells[SERVICE];
        if (i < from)
            continue;
        ret->sum_ns += l->sum_ns[which];
        for (size_t c = 0; c < l->cells[which]; c++) {
            const cell *in = weir__track_at(&o->cells, sizeof(cell), begin + c);
            ret->bucket[in->bucket] += in->count;
            uint64_t last = weir_stats_bucket_floor(in->bucket + 1u) - 1;
            ret->max_ns = last > ret->max_ns ? last : ret->max_ns;
        }
    }
    uint64_t longest = times_of(record_of(o), which)->max_ns;
    bool is_open = ret->max_ns == WEIR__HISTOGRAM_END - 1; /* its bucket has no end */
    ret->max_ns = longest < ret->max_ns || (is_open && longest > 0) ? longest : ret->max_ns;
}

weir_monitor_times weir__summary_of(const weir_stats_times *times)
{
    uint64_t count = weir_stats_times_count(times);
    return (weir_monitor_times){
        .count = count,
        .mean_ns = count > 0 ? times->sum_ns / count : 0,
        .p50_ns = weir_stats_percentile(times, 0.5),
        .p90_ns = weir_stats_percentile(times, 0.9),
        .p99_ns = weir_stats_percentile(times, 0.99),
        .max_ns = times->max_ns,
    };
}

/* ---- numbers of a look ------------------------------------------------------------------------ */

static uint64_t add(uint64_t a, uint64_t b)
{
    return a < UINT64_MAX - b ? a + b : UINT64_MAX;
}

static uint64_t dropped(const uint64_t number[])
{
    uint64_t sum = 0;
    for (int i = WEIR_STATS_DROPPED_NEWEST; i <= WEIR_STATS_DROPPED_LOST; i++)
        sum = add(sum, number[i]);
    return sum;
}

static void note_marks(look *l, const uint64_t number[])
{
    l->mark[ACCEPTED] = number[WEIR_STATS_ACCEPTED];
    l->mark[DELIVERED] = number[WEIR_STATS_DELIVERED];
    l->mark[DONE] = number[WEIR_STATS_DONE];
    l->mark[DROPPED] = dropped(number);
    l->mark[DISCARDED] = number[WEIR_STATS_DROPPED_DISCARDED];
    l->mark[REFUSED] = number[WEIR_STATS_REFUSED];
    l->mark[FAILED] = number[WEIR_STATS_FAILED];
    l->mark[RETRIED] = number[WEIR_STATS_RETRIED];
    l->mark[SHED] = number[WEIR_STATS_SHED];
    l->mark[PUT_WAITS] = number[WEIR_STATS_PUT_WAITS];
    l->mark[PRESSURE] = number[WEIR_STATS_PRESSURE_NS];
    l->mark[BUSY] = number[WEIR_STATS_BUSY_NS];
    l->mark[IDLE] = number[WEIR_STATS_IDLE_NS];
    l->mark[BLOCKED] = number[WEIR_STATS_BLOCKED_NS];
}

static bool is_pool(int kind)
{
    return kind == WEIR_STATS_THREAD_POOL || kind == WEIR_STATS_PROCESS_POOL;
}

static bool holds_items(int kind)
{
    return kind == WEIR_STATS_QUEUE || kind == WEIR_STATS_SHARED_QUEUE || is_pool(kind) ||
           kind == WEIR_STATS_STAGE;
}

/* What of it counts for its bound: where done is told, also what is in hand. */
static bool bounds_in_flight(const weir_stats_record *r)
{
    return is_pool((int)r->kind) ||
           (r->kind == WEIR_STATS_QUEUE && r->number[WEIR_STATS_REPORTS_DONE]);
}

static double share(double part, double whole)
{
    return part < whole ? part / whole : 1;
}

/* (How full a queue of several processes is no page can tell.) */
static bool has_depth(int kind)
{
    return (holds_items(kind) && kind != WEIR_STATS_SHARED_QUEUE) || kind == WEIR_STATS_WATERMARK;
}

/* Of a queue or pool. */
static double fullness_of_items(const weir_stats_record *r)
{
    const uint64_t *n = r->number;
    bool all = bounds_in_flight(r);
    double items = (double)n[WEIR_STATS_DEPTH] + (all ? (double)n[WEIR_STATS_IN_FLIGHT] : 0);
    double cost =
        (double)n[WEIR_STATS_DEPTH_COST] + (all ? (double)n[WEIR_STATS_IN_FLIGHT_COST] : 0);
    double by_cost = n[WEIR_STATS_MAX_COST] > 0 ? share(cost, (double)n[WEIR_STATS_MAX_COST]) : -1;
    double by_items = n[WEIR_STATS_CAPACITY] > 0 && n[WEIR_STATS_CAPACITY] != UINT64_MAX
                          ? share(items, (double)n[WEIR_STATS_CAPACITY])
                          : -1;
    return by_cost > by_items ? by_cost : by_items;
}

static double fullness_of(const weir_stats_record *r)
{
    if (has_depth((int)r->kind))
        return fullness_of_items(r);
    bool is_gate = r->kind == WEIR_STATS_LIMIT || r->kind == WEIR_STATS_GOVERNOR;
    uint64_t capacity = r->number[WEIR_STATS_CAPACITY]; /* of a gate, in cost; 0: no room at all */
    if (!is_gate || capacity == UINT64_MAX)
        return -1;
    return share((double)r->number[WEIR_STATS_IN_FLIGHT_COST], (double)capacity);
}

static double depth_of(const weir_stats_record *r)
{
    return (double)r->number[has_depth((int)r->kind) ? WEIR_STATS_DEPTH : WEIR_STATS_IN_FLIGHT];
}

static double inside_of(const weir_stats_record *r)
{
    return (double)r->number[WEIR_STATS_DEPTH] + (double)r->number[WEIR_STATS_SPILLED] +
           (double)r->number[WEIR_STATS_IN_FLIGHT];
}

/* What comes out is what is done, where that is what people wait for. */
static mark out_of(int kind)
{
    bool is_done = is_pool(kind) || kind == WEIR_STATS_LIMIT || kind == WEIR_STATS_BREAKER ||
                   kind == WEIR_STATS_GOVERNOR || kind == WEIR_STATS_WORKER;
    return is_done ? DONE : DELIVERED;
}

/* (Of numbers that do not belong together since when is not known.) */
static weir__line line_of(const weir_stats_record *r, int side, int64_t now_ns)
{
    const uint64_t *n = r->number + (side == GET);
    return (weir__line){
        .at_ns = now_ns,
        .waiting = n[WEIR_STATS_PUT_WAITING],
        .since_ns = r->is_exact ? (int64_t)n[WEIR_STATS_PUT_WAITING_SINCE] : 0,
        .blocked_ns = n[WEIR_STATS_PUT_BLOCKED_NS],
    };
}

_Static_assert(WEIR_STATS_GET_WAITING == WEIR_STATS_PUT_WAITING + 1 &&
                   WEIR_STATS_GET_WAITING_SINCE == WEIR_STATS_PUT_WAITING_SINCE + 1 &&
                   WEIR_STATS_GET_BLOCKED_NS == WEIR_STATS_PUT_BLOCKED_NS + 1,
               "line_of takes the neighbours");

static double per_second(uint64_t n, int64_t elapsed_ns)
{
    return elapsed_ns > 0 ? (double)n * 1e9 / (double)elapsed_ns : 0;
}

/* ---- a look ----------------------------------------------------------------------------------- */

static void push_first(object *o)
{
    for (int side = PUT; side <= GET; side++) {
        weir__line line = line_of(record_of(o), side, o->read_ns);
        weir__waits_begin(&o->waits[side], &line);
    }
}

static void push_next(weir_monitor *monitor, object *o, look *l, weir_monitor_sample *sample,
                      const look *before)
{
    const weir_stats_record *now = record_of(o), *then = &o->records[1 - o->current];
    int64_t elapsed_ns = l->at_ns - before->at_ns;
    mark out = out_of((int)now->kind);
    sample->accepted_per_s =
        per_second(less(l->mark[ACCEPTED], before->mark[ACCEPTED]), elapsed_ns);
    sample->delivered_per_s = per_second(less(l->mark[out], before->mark[out]), elapsed_ns);
    sample->dropped_per_s = per_second(less(l->mark[DROPPED], before->mark[DROPPED]), elapsed_ns);
    weir__line put = line_of(now, PUT, l->at_ns), get = line_of(now, GET, l->at_ns);
    sample->put_blocked = weir__waits_look(&o->waits[PUT], &put);
    sample->get_blocked = weir__waits_look(&o->waits[GET], &get);
    for (int which = WAIT; which <= SERVICE; which++) {
        weir_stats_times *between = &monitor->times;
        weir_stats_times_between(times_of(then, which), times_of(now, which), between);
        uint64_t p99_ns = weir_stats_percentile(between, 0.99);
        *(which == WAIT ? &sample->wait_p99_ns : &sample->service_p99_ns) = p99_ns;
        keep_times(o, l, between, which);
    }
}

/* Callers that waited, on average over the window. */
static double mean_blocked(const object *o, size_t member)
{
    double sum = 0, seconds = 0;
    for (size_t i = 1; i < o->looks.n; i++) {
        const char *sample = weir__track_at(&o->samples, sizeof(weir_monitor_sample), i);
        double elapsed = (double)(look_at(o, i)->at_ns - look_at(o, i - 1)->at_ns);
        double blocked;
        memcpy(&blocked, sample + member, sizeof blocked);
        sum += elapsed * blocked;
        seconds += elapsed;
    }
    return seconds > 0 ? sum / seconds : 0;
}

uint64_t weir__within(const object *o, mark m)
{
    return less(look_at(o, o->looks.n - 1)->mark[m], look_at(o, 0)->mark[m]);
}

static double time_of_workers(const object *o, size_t i)
{
    const look *l = look_at(o, i), *before = look_at(o, i - 1);
    double workers = (l->workers + before->workers) / 2;
    return (workers > 0 ? workers : 1) * (double)(l->at_ns - before->at_ns);
}

/* Since the look before.  A pool tells what a task took when it is over, so while none is, those that run
 * count; and what tasks took that are not all timed is known from those that are. */
static double time_at_work(const object *o, size_t i, bool is_told)
{
    const look *l = look_at(o, i), *before = look_at(o, i - 1);
    uint64_t done = less(l->mark[DONE], before->mark[DONE]);
    double run_on = l->in_flight < before->in_flight ? l->in_flight : before->in_flight;
    if (done == 0 && !is_kind(o, WEIR_STATS_STAGE))
        return run_on * (double)(l->at_ns - before->at_ns);
    return is_told ? (double)less(l->mark[BUSY], before->mark[BUSY])
                   : (double)done * (double)o->pub.service.mean_ns;
}

/* Of the time of its workers. */
static double busy_of(const object *o)
{
    const look *last = look_at(o, o->looks.n - 1);
    bool is_told = last->mark[BUSY] > 0 || last->mark[IDLE] > 0 || last->mark[BLOCKED] > 0;
    bool has_tasks = is_pool((int)record_of(o)->kind) || is_kind(o, WEIR_STATS_WORKER);
    bool is_known = is_told || weir__within(o, DONE) == 0 || o->pub.service.count > 0;
    if (o->pub.seconds <= 0 || (!is_told && !has_tasks) || !is_known)
        return -1;
    double at_work = 0, all = 0;
    for (size_t i = 1; i < o->looks.n; i++) {
        double most = time_of_workers(o, i), took = time_at_work(o, i, is_told);
        at_work += took < most ? took : most;
        all += most;
    }
    return all > 0 ? share(at_work, all) : -1;
}

static double idle_of(const object *o)
{
    double all = 0;
    for (size_t i = 1; i < o->looks.n; i++)
        all += time_of_workers(o, i);
    return all > 0 ? share((double)weir__within(o, IDLE), all) : 0;
}

static void measure_times(weir_monitor *monitor, object *o)
{
    for (int which = WAIT; which <= SERVICE; which++) {
        collect(o, which, 1, o->looks.n, &monitor->times);
        *(which == WAIT ? &o->pub.wait : &o->pub.service) = weir__summary_of(&monitor->times);
    }
}

static void measure_window(weir_monitor *monitor, object *o)
{
    weir_monitor_object *pub = &o->pub;
    int64_t elapsed_ns = look_at(o, o->looks.n - 1)->at_ns - look_at(o, 0)->at_ns;
    pub->seconds = (double)elapsed_ns / 1e9;
    pub->accepted_per_s = per_second(weir__within(o, ACCEPTED), elapsed_ns);
    pub->delivered_per_s = per_second(weir__within(o, DELIVERED), elapsed_ns);
    pub->done_per_s = per_second(weir__within(o, DONE), elapsed_ns);
    pub->dropped_per_s = per_second(weir__within(o, DROPPED), elapsed_ns);
    pub->refused_per_s = per_second(weir__within(o, REFUSED), elapsed_ns);
    pub->failed_per_s = per_second(weir__within(o, FAILED), elapsed_ns);
    pub->put_blocked = mean_blocked(o, offsetof(weir_monitor_sample, put_blocked));
    pub->get_blocked = mean_blocked(o, offsetof(weir_monitor_sample, get_blocked));
    pub->fullness = fullness_of(record_of(o));
    if (is_kind(o, WEIR_STATS_STAGE))
        pub->pressure = elapsed_ns > 0 ? (double)weir__within(o, PRESSURE) / (double)elapsed_ns : 0;
    else
        pub->pressure = pub->put_blocked;
    measure_times(monitor, o);
    pub->busy = busy_of(o);
    o->idle = idle_of(o);
}

void weir__measure(weir_monitor *monitor, object *o, int64_t wall_ns)
{
    o->current = 1 - o->current;
    const weir_stats_record *record = record_of(o);
    make_room(o, monitor->window);
    size_t n = o->looks.n;
    look *l = weir__track_push(&o->looks, sizeof(look));
    weir_monitor_sample *sample = weir__track_push(&o->samples, sizeof *sample);
    *l = (look){
        .at_ns = o->read_ns,
        .inside = inside_of(record),
        .fullness = fullness_of(record),
        .workers = (double)record->number[WEIR_STATS_WORKERS],
        .in_flight = (double)record->number[WEIR_STATS_IN_FLIGHT],
    };
    *sample = (weir_monitor_sample){.at_ns = wall_ns, .depth = depth_of(record)};
    note_marks(l, record->number);
    if (n == 0)
        push_first(o);
    else
        push_next(monitor, o, l, sample, look_at(o, n - 1));
    o->is_known = true;
    o->pub.record = record;
    measure_window(monitor, o);
    show_samples(monitor, o);
}

/* ---- for the rules ---------------------------------------------------------------------------- */

static void measure_thirds(weir_monitor *monitor, const object *o, weir__vitals *v)
{
    size_t n = o->looks.n - 1; /* the first one has no times */
    for (size_t i = 0; i < 3; i++) {
        collect(o, WAIT, 1 + n * i / 3, 1 + n * (i + 1) / 3, &monitor->times);
        v->wait_s[i] = (double)weir_stats_percentile(&monitor->times, 0.5) / 1e9;
        v->waited[i] = (double)weir_stats_times_count(&monitor->times);
    }
}

static void measure_gauges(const object *o, weir__vitals *v)
{
    const weir_monitor_sample *first = weir__track_at(&o->samples, sizeof *first, 0);
    v->least_inside = look_at(o, 0)->inside;
    v->least_fullness = look_at(o, 0)->fullness;
    v->least_depth = first->depth;
    for (size_t i = 0; i < o->looks.n; i++) {
        const look *l = look_at(o, i);
        const weir_monitor_sample *sample = weir__track_at(&o->samples, sizeof *sample, i);
        v->depth += sample->depth / (double)o->looks.n;
        v->fullness += l->fullness / (double)o->looks.n;
        v->least_inside = l->inside < v->least_inside ? l->inside : v->least_inside;
        v->least_fullness = l->fullness < v->least_fullness ? l->fullness : v->least_fullness;
        v->least_depth = sample->depth < v->least_depth ? sample->depth : v->least_depth;
    }
}

weir__vitals weir__vitals_of(weir_monitor *monitor, const object *o)
{
    const weir_stats_record *record = record_of(o);
    const weir_monitor_times *service = &o->pub.service;
    uint64_t capacity = record->number[WEIR_STATS_CAPACITY];
    weir__vitals v = {
        .looks = (unsigned)o->looks.n,
        .seconds = o->pub.seconds,
        .holds_items = holds_items((int)record->kind),
        .is_process_pool = is_kind(o, WEIR_STATS_PROCESS_POOL),
        .is_breaker = is_kind(o, WEIR_STATS_BREAKER),
        .is_governor = is_kind(o, WEIR_STATS_GOVERNOR),
        .places = capacity != UINT64_MAX ? (double)capacity : 0,
        .out = (double)weir__within(o, out_of((int)record->kind)),
        .waits = (double)weir__within(o, PUT_WAITS),
        .refused = (double)add(weir__within(o, REFUSED), weir__within(o, SHED)),
        .dropped = (double)weir__within(o, DROPPED),
        .discarded = (double)weir__within(o, DISCARDED),
        .lost_workers = (double)add(weir__within(o, FAILED), weir__within(o, RETRIED)),
        .service_s = service->count > 0 ? (double)service->mean_ns / 1e9 : -1,
        .state = record->number[WEIR_STATS_STATE],
    };
    measure_gauges(o, &v);
    measure_thirds(monitor, o, &v);
    return v;
}
