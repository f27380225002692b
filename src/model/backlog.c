/* backlog.c - see backlog.h. */
#include "model/backlog.h"

#define AHEAD_NS    INT64_C(20000000)    /* of work for each worker, at most */
#define MOST_BYTES  (UINT64_C(64) << 20) /* of payloads, at most */
#define MOST_TASKS  ((size_t)1 << 16)
#define CALM_FOR_NS INT64_C(10000000000) /* without need, until it shrinks */

void weir__backlog_init(weir__backlog *backlog, unsigned workers, int64_t now_ns)
{
    *backlog = (weir__backlog){.now = 2 * (size_t)workers,
                               .least = 2 * (size_t)workers,
                               .workers = workers,
                               .needed_at = now_ns,
                               .reason = WEIR__BACKLOG_TWICE_THE_WORKERS};
}

/* The most that makes sense, and what limits it. */
static size_t most(const weir__backlog *backlog, int64_t service_ns, uint64_t bytes,
                   weir__backlog_reason *ret_reason)
{
    uint64_t by_work =
        service_ns > 0 ? (uint64_t)(AHEAD_NS / service_ns) * backlog->workers : backlog->least;
    uint64_t by_bytes = bytes > 0 ? MOST_BYTES / bytes : MOST_TASKS;
    uint64_t limit = by_work < by_bytes ? by_work : by_bytes;
    *ret_reason = by_work < by_bytes ? WEIR__BACKLOG_ENOUGH_WORK : WEIR__BACKLOG_ENOUGH_BYTES;
    if (limit > MOST_TASKS)
        limit = MOST_TASKS;
    return limit > backlog->least ? (size_t)limit : backlog->least;
}

static void set(weir__backlog *backlog, size_t size, weir__backlog_reason reason,
                uint64_t completed)
{
    backlog->now = size;
    backlog->reason = reason;
    backlog->tried_since = completed;
}

void weir__backlog_starved(weir__backlog *backlog, int64_t service_ns, uint64_t bytes,
                           uint64_t completed, int64_t now_ns)
{
    backlog->starved++;
    backlog->needed_at = now_ns;
    if (completed - backlog->tried_since < backlog->now)
        return; /* the last change has not had its effect yet */
    weir__backlog_reason reason;
    size_t limit = most(backlog, service_ns, bytes, &reason);
    if (backlog->now >= limit)
        set(backlog, limit, reason, completed);
    else if (2 * backlog->now >= limit)
        set(backlog, limit, reason, completed);
    else
        set(backlog, 2 * backlog->now, WEIR__BACKLOG_WORKERS_RAN_DRY, completed);
}

void weir__backlog_review(weir__backlog *backlog, int64_t service_ns, uint64_t bytes,
                          uint64_t completed, int64_t now_ns)
{
    weir__backlog_reason reason;
    size_t limit = most(backlog, service_ns, bytes, &reason);
    if (service_ns > 0 && backlog->now > limit) {
        set(backlog, limit, reason, completed);
    } else if (backlog->now > backlog->least && now_ns - backlog->needed_at > CALM_FOR_NS) {
        size_t less = backlog->now - (backlog->now + 7) / 8;
        set(backlog, less > backlog->least ? less : backlog->least, WEIR__BACKLOG_NOT_NEEDED,
            completed);
        backlog->needed_at = now_ns;
    }
}

const char *weir__backlog_why(const weir__backlog *backlog)
{
    static const char *const why[] = {
        [WEIR__BACKLOG_TWICE_THE_WORKERS] = "twice the workers: no worker has run dry",
        [WEIR__BACKLOG_WORKERS_RAN_DRY] = "workers ran dry while producers waited for room",
        [WEIR__BACKLOG_ENOUGH_WORK] = "20 ms of work for each worker, or twice the workers",
        [WEIR__BACKLOG_ENOUGH_BYTES] = "64 MiB of payloads",
        [WEIR__BACKLOG_NOT_NEEDED] = "no worker has run dry for 10 s",
    };
    return why[backlog->reason];
}
