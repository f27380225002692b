/* reader.c - reads the pages of all processes of a user; the contract is <weir/stats.h>.
 *
 * A page is another process's, and may hold anything: it may be damaged, of another version, cut short, or
 * changed while it is read.  So it is read with pread into memory of the reader's own, never mapped (what
 * is cut short under a mapping is SIGBUS); each number is read once, and checked before it is used as
 * one.  No size in a page decides how much is allocated, or how long anything takes: nothing is
 * allocated, and no page has more than WEIR__PAGE_RECORDS records.
 */
#include <weir/stats.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/memory.h"
#include "base/page.h"

_Static_assert((int)WEIR_STATS_NUMBERS == WEIR__PAGE_NUMBERS, "a record is copied as it is");
_Static_assert(WEIR_STATS_BUCKETS == WEIR__PAGE_BUCKETS, "a record is copied as it is");

#define TRIES 16 /* to read numbers that belong together */

struct weir_stats {
    char path[512];
    DIR *folder; /* NULL: the next call opens it */
    int file;    /* of the process; < 0: none */
    unsigned next, records;
    weir__page_record raw; /* as it was read */
};

int weir_stats_open(weir_stats **ret_stats, const char *folder)
{
    weir_stats *stats = weir__calloc_line(sizeof *stats);
    if (!stats)
        return WEIR_ENOMEM;
    int n = folder ? snprintf(stats->path, sizeof stats->path, "%s", folder) : 0;
    bool known = folder ? n > 0 && (size_t)n < sizeof stats->path
                        : weir__page_folder(stats->path, sizeof stats->path);
    if (!known) {
        weir__free(stats);
        return WEIR_EINVAL;
    }
    stats->file = -1;
    *ret_stats = stats;
    return WEIR_OK;
}

static void close_file(weir_stats *stats)
{
    if (stats->file >= 0)
        close(stats->file);
    stats->file = -1;
}

static void close_folder(weir_stats *stats)
{
    if (stats->folder)
        closedir(stats->folder);
    stats->folder = NULL;
}

void weir_stats_close(weir_stats *stats)
{
    if (!stats)
        return;
    close_file(stats);
    close_folder(stats);
    weir__free(stats);
}

/* Whether all n bytes are there. */
static bool read_all(int fd, uint64_t offset, void *into, size_t n)
{
    char *at = into;
    while (n > 0) {
        ssize_t got = pread(fd, at, n, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return true;
}

/* Up to size - 1 bytes of text, which may end nowhere, without what would disturb a terminal: control
 * characters, of which U+0080 to U+009F have two bytes. */
static void copy_text(char *to, const char *from, size_t size)
{
    size_t n = strnlen(from, size - 1);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)from[i];
        to[i] = c < ' ' || c == 0x7f ? '?' : from[i];
        if (i > 0 && to[i - 1] == '\xc2' && c >= 0x80 && c < 0xa0)
            to[i - 1] = to[i] = '?';
    }
    memset(to + n, 0, size - n);
}

/* ---- processes ------------------------------------------------------------------------------ */

static int error_of(int err)
{
    return err == EMFILE || err == ENFILE ? WEIR_ENOFD : err == ENOMEM ? WEIR_ENOMEM : WEIR_EINVAL;
}

/* WEIR_EEMPTY: it is not there (yet). */
static int open_folder(weir_stats *stats)
{
    struct stat st;
    if (lstat(stats->path, &st) < 0 && (errno == ENOENT || errno == ENOTDIR))
        return WEIR_EEMPTY;
    errno = 0;
    int fd = weir__page_open_folder(stats->path);
    if (fd < 0)
        return error_of(errno);
    stats->folder = fdopendir(fd);
    if (stats->folder)
        return WEIR_OK;
    close(fd);
    return WEIR_ENOMEM;
}

/* How many records there are in the file, or 0 if this is no page that we can read. */
static unsigned records_of(int fd, const weir__page_head *head)
{
    struct stat st;
    if (memcmp(head->magic, WEIR__PAGE_MAGIC, sizeof head->magic) != 0 ||
        head->version != WEIR__PAGE_VERSION || head->byte_order != WEIR__PAGE_BYTE_ORDER ||
        head->head_size != sizeof(weir__page_head) ||
        head->record_size != sizeof(weir__page_record) || head->numbers != WEIR__PAGE_NUMBERS ||
        head->buckets != WEIR__PAGE_BUCKETS || fstat(fd, &st) < 0 ||
        (uint64_t)st.st_size < sizeof(weir__page_head))
        return 0;
    uint64_t fit = ((uint64_t)st.st_size - sizeof(weir__page_head)) / sizeof(weir__page_record);
    uint64_t told = head->records;
    uint64_t records = told < fit ? told : fit;
    return records < WEIR__PAGE_RECORDS ? (unsigned)records : WEIR__PAGE_RECORDS;
}

/* Whether the pid is one here, and of the process that wrote the page. */
static bool is_that_process(const weir__page_head *head)
{
    struct stat here;
    return head->pid > 0 && head->pid <= INT32_MAX && stat("/proc/self/ns/pid", &here) == 0 &&
           here.st_ino == head->pid_namespace &&
           weir__page_start_ticks((pid_t)head->pid) == head->start_ticks;
}

static void describe(const weir__page_head *head, weir_stats_process *ret)
{
    static const weir__memory_roots roots;
    *ret = (weir_stats_process){
        .size = sizeof *ret,
        .pid = head->pid,
        .parent = head->parent,
        .start_ticks = head->start_ticks,
        .created_ns = head->created_ns,
        .unrecorded = head->unrecorded,
        .rss_bytes = is_that_process(head) ? weir__rss_of(&roots, (pid_t)head->pid) : 0,
    };
    copy_text(ret->library, head->library, sizeof ret->library);
    copy_text(ret->command, head->command, sizeof ret->command);
}

/* 1: it is a page, open now; 0: it is none; < 0: whether it is one cannot be told now. */
static int open_page(weir_stats *stats, const char *name, weir__page_head *head)
{
    stats->next = stats->records = 0;
    stats->file = weir__page_open(dirfd(stats->folder), name);
    if (stats->file < 0) {
        int rc = error_of(errno);
        return rc == WEIR_EINVAL ? 0 : rc;
    }
    if (read_all(stats->file, 0, head, sizeof *head))
        stats->records = records_of(stats->file, head);
    if (stats->records == 0)
        close_file(stats);
    return stats->records > 0;
}

int weir_stats_next_process(weir_stats *stats, weir_stats_process *ret_process)
{
    if (ret_process->size != sizeof *ret_process)
        return WEIR_EINVAL; /* there is one version so far */
    close_file(stats);
    if (!stats->folder) {
        int rc = open_folder(stats);
        if (rc < 0)
            return rc == WEIR_EEMPTY ? 0 : rc;
    }
    struct dirent *entry;
    while ((entry = readdir(stats->folder))) {
        weir__page_head head;
        int rc = weir__page_is_name(entry->d_name) ? open_page(stats, entry->d_name, &head) : 0;
        if (rc == 0)
            continue;
        if (rc < 0)
            close_folder(stats);
        else
            describe(&head, ret_process);
        return rc;
    }
    close_folder(stats);
    return 0;
}

/* ---- records -------------------------------------------------------------------------------- */

#define NUMBERS_END offsetof(weir__page_record, wait)

static uint64_t offset_of(unsigned i)
{
    return sizeof(weir__page_head) + (uint64_t)i * sizeof(weir__page_record);
}

/* Generation and version, as they are between what is read before and what is read after.  (Within a call
 * pread may copy in any order: a CPU may load later bytes before earlier ones.)  The fences pair with those
 * of weir__tell_begin and weir__tell_end. */
static bool read_marks(int fd, uint64_t offset, uint64_t ret_marks[2])
{
    atomic_thread_fence(memory_order_acquire);
    bool done = read_all(fd, offset, ret_marks, 2 * sizeof *ret_marks);
    atomic_thread_fence(memory_order_acquire);
    return done;
}

/* Reads all but the times, between two looks at the version.  false: it is not in use. */
static bool read_numbers(weir_stats *stats, uint64_t offset, bool *ret_exact)
{
    *ret_exact = false;
    for (int i = 0; i < TRIES && !*ret_exact; i++) {
        uint64_t before[2], after[2];
        if (!read_marks(stats->file, offset, before) || before[0] % 2 == 0 ||
            !read_all(stats->file, offset, &stats->raw, NUMBERS_END) ||
            !read_marks(stats->file, offset, after))
            return false;
        stats->raw.generation = before[0];
        *ret_exact = before[1] % 2 == 0 && before[0] == after[0] && before[1] == after[1];
    }
    return true;
}

/* Times only grow: what is counted while they are read is there next time. */
static bool read_times(weir_stats *stats, uint64_t offset)
{
    uint64_t after[2];
    return read_all(stats->file, offset + NUMBERS_END, &stats->raw.wait,
                    sizeof stats->raw - NUMBERS_END) &&
           read_marks(stats->file, offset, after) && after[0] == stats->raw.generation;
}

static void copy_times(weir_stats_times *to, const weir__page_times *from)
{
    to->sum_ns = from->sum_ns;
    to->max_ns = from->max_ns;
    for (unsigned i = 0; i < WEIR_STATS_BUCKETS; i++)
        to->bucket[i] = from->bucket[i];
}

static uint64_t difference(uint64_t in, uint64_t out)
{
    return in > out && in - out <= INT64_MAX ? in - out : 0;
}

/* What is inside a queue is nobody's to store: it follows from what went in and out, by the law. */
static void find_depth(uint64_t number[])
{
    uint64_t out =
        number[WEIR_STATS_DELIVERED] + number[WEIR_STATS_SPILLED] + number[WEIR_STATS_CANCELLED];
    uint64_t out_cost = number[WEIR_STATS_DELIVERED_COST] + number[WEIR_STATS_SPILLED_COST];
    for (int i = WEIR_STATS_DROPPED_NEWEST; i <= WEIR_STATS_DROPPED_LOST; i++)
        out += number[i];
    for (int i = WEIR_STATS_DROPPED_NEWEST_COST; i <= WEIR_STATS_DROPPED_LOST_COST; i++)
        out_cost += number[i];
    number[WEIR_STATS_DEPTH] = difference(number[WEIR_STATS_ACCEPTED], out);
    number[WEIR_STATS_DEPTH_COST] = difference(number[WEIR_STATS_ACCEPTED_COST], out_cost);
}

/* What is let in is handed out. */
static void find_delivered(uint64_t number[])
{
    number[WEIR_STATS_DELIVERED] = number[WEIR_STATS_ACCEPTED];
    number[WEIR_STATS_DELIVERED_COST] = number[WEIR_STATS_ACCEPTED_COST];
}

static void find_in_flight(uint64_t number[])
{
    number[WEIR_STATS_IN_FLIGHT] =
        difference(number[WEIR_STATS_DELIVERED], number[WEIR_STATS_DONE]);
    number[WEIR_STATS_IN_FLIGHT_COST] =
        difference(number[WEIR_STATS_DELIVERED_COST], number[WEIR_STATS_DONE_COST]);
}

static bool is_queue(int kind)
{
    return kind == WEIR_STATS_QUEUE || kind == WEIR_STATS_THREAD_POOL ||
           kind == WEIR_STATS_PROCESS_POOL || kind == WEIR_STATS_STAGE ||
           kind == WEIR_STATS_WATERMARK;
}

static void copy_record(const weir__page_record *raw, weir_stats_record *ret)
{
    ret->kind = raw->kind <= INT32_MAX ? (weir_stats_kind)raw->kind : (weir_stats_kind)0;
    ret->id = raw->generation;
    ret->created_ns = raw->created_ns;
    copy_text(ret->name, raw->name, sizeof ret->name);
    for (int i = 0; i < WEIR_STATS_NUMBERS; i++)
        ret->number[i] = raw->number[i];
    if (ret->kind == WEIR_STATS_LIMIT || ret->kind == WEIR_STATS_GOVERNOR)
        find_delivered(ret->number);
    if (is_queue(ret->kind))
        find_depth(ret->number);
    if (ret->kind == WEIR_STATS_PROCESS_POOL)
        ret->number[WEIR_STATS_DEPTH] =
            difference(ret->number[WEIR_STATS_DEPTH], ret->number[WEIR_STATS_IN_FLIGHT]);
    if (ret->number[WEIR_STATS_REPORTS_DONE])
        find_in_flight(ret->number);
    copy_times(&ret->wait, &raw->wait);
    copy_times(&ret->service, &raw->service);
}

int weir_stats_next_record(weir_stats *stats, weir_stats_record *ret_record)
{
    if (ret_record->size != sizeof *ret_record || stats->file < 0)
        return WEIR_EINVAL;
    while (stats->next < stats->records) {
        unsigned i = stats->next++;
        bool is_exact;
        if (!read_numbers(stats, offset_of(i), &is_exact) || !read_times(stats, offset_of(i)))
            continue;
        copy_record(&stats->raw, ret_record);
        ret_record->id = ret_record->id * WEIR__PAGE_RECORDS + i;
        ret_record->is_exact = is_exact;
        return 1;
    }
    return 0;
}
