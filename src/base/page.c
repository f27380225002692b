/* page.c - this process's page; see page.h. */
#include "base/page.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/files.h"
#include "base/memfd.h"

#define PATH_SIZE     512
#define RECORDS_FIRST 8u
#define RECORDS_SMALL 64u
#define KINDS         32u
#define SWEEP_MAX     4096 /* names of the folder that are looked at */

typedef enum state {
    UNBORN, /* the next object makes it */
    READY,
    FAILED,
} state;

/* All of it changes under the mutex. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct {
    state state;
    char path[PATH_SIZE];
    struct stat file;
    weir__page_head *head; /* where the whole page lies, also what is not in the file yet */
    unsigned room;         /* records that there is address space for */
    bool in_use[WEIR__PAGE_RECORDS];
    unsigned search; /* no record before this one is free */
    pid_t parent;    /* 0: as the kernel says */
} page;

static _Atomic unsigned forks; /* see weir__page_generation */

/* How many objects of each kind got a name from us, and where the counters of this program end. */
static unsigned nameless[KINDS];

static size_t size_of(uint64_t records)
{
    return sizeof(weir__page_head) + (size_t)records * sizeof(weir__page_record);
}

static weir__page_record *record_at(unsigned i)
{
    return (weir__page_record *)(void *)((char *)page.head + size_of(i));
}

/* ---- forks and exits ------------------------------------------------------------------------ */

/* A child of fork must not inherit a mutex that another thread held. */
static void before_fork(void)
{
    pthread_mutex_lock(&mutex);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&mutex);
}

/* Downwards: what is done is counted behind what was accepted, and other threads of the parent go on. */
static void copy_numbers(weir__page_record *to, const weir__page_record *from)
{
    for (unsigned n = WEIR__PAGE_NUMBERS; n-- > 0;) /* acquire: before the load of the next one */
        atomic_store_explicit(&to->number[n],
                              atomic_load_explicit(&from->number[n], memory_order_acquire),
                              memory_order_relaxed);
}

/* What the child still writes to its parent's records goes to memory of its own, which goes on from what
 * they hold (some objects count there only), and it lets go of the file, so that it does not keep the
 * parent's page alive. */
static void leave_page(void)
{
    size_t size = size_of(page.room);
    void *own = mmap(NULL, size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (unsigned i = 0; own != MAP_FAILED && i < page.room; i++)
        if (page.in_use[i])
            copy_numbers((weir__page_record *)(void *)((char *)own + size_of(i)), record_at(i));
    if (own == MAP_FAILED ||
        mremap(own, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, page.head) == MAP_FAILED)
        mmap(page.head, size, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static void in_forked_child(void)
{
    if (page.head)
        leave_page();
    memset(&page, 0, sizeof page);
    atomic_fetch_add_explicit(&forks, 1, memory_order_relaxed); /* the only thread */
    after_fork();
}

unsigned weir__page_generation(void)
{
    return atomic_load_explicit(&forks, memory_order_relaxed);
}

/* Not unmapped: other threads may go on. */
static void remove_name(void)
{
    pthread_mutex_lock(&mutex);
    if (page.state == READY &&
        page.head->pid == getpid()) /* not of a clone, which ran no handlers */
        unlink(page.path);
    page.state = FAILED; /* whoever still makes an object does without */
    pthread_mutex_unlock(&mutex);
}

/* When the library is loaded, before any thread can hold the mutex: a fork that had begun without these
 * handlers would leave the child a mutex that is locked for ever. */
__attribute__((constructor)) static void watch_process(void)
{
    pthread_atfork(before_fork, after_fork, in_forked_child);
    atexit(remove_name);
}

/* ---- what the head says --------------------------------------------------------------------- */

/* Up to size - 1 bytes, and a terminator. */
static size_t slurp(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, size - 1);
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

static uint64_t stat_field(pid_t pid, int wanted)
{
    char path[48], text[1024];
    snprintf(path, sizeof path, "/proc/%jd/stat", (intmax_t)pid);
    slurp(path, text, sizeof text);
    char *at = strrchr(text, ')'); /* the second field may hold anything */
    for (int field = 2; at && field < wanted; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at, NULL, 10) : 0;
}

uint64_t weir__page_start_ticks(pid_t pid)
{
    return stat_field(pid, 22);
}

int64_t weir__page_parent_of(pid_t pid)
{
    return (int64_t)stat_field(pid, 4);
}

static void tell_command(char *command, size_t size)
{
    size_t n = slurp("/proc/self/cmdline", command, size);
    for (size_t i = 0; i + 1 < n; i++)
        if (command[i] == '\0')
            command[i] = ' ';
}

static void fill_in(weir__page_head *head)
{
    struct stat namespace;
    memcpy(head->magic, WEIR__PAGE_MAGIC, sizeof head->magic);
    head->version = WEIR__PAGE_VERSION;
    head->byte_order = WEIR__PAGE_BYTE_ORDER;
    head->head_size = sizeof(weir__page_head);
    head->record_size = sizeof(weir__page_record);
    head->numbers = WEIR__PAGE_NUMBERS;
    head->buckets = WEIR__PAGE_BUCKETS;
    head->records = RECORDS_FIRST;
    head->pid = getpid();
    head->parent = page.parent ? page.parent : getppid();
    head->start_ticks = weir__page_start_ticks(getpid());
    head->pid_namespace = stat("/proc/self/ns/pid", &namespace) == 0 ? namespace.st_ino : 0;
    head->created_ns = weir__wall_clock();
    snprintf(head->library, sizeof head->library, "%s", weir_version());
    tell_command(head->command, sizeof head->command);
}

/* ---- making it ------------------------------------------------------------------------------ */

/* Removes what dead processes left. */
static void sweep(const char *path)
{
    int fd = weir__page_open_folder(path);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    for (int n = 0; folder && n < SWEEP_MAX && (entry = readdir(folder)); n++)
        if (weir__page_is_name(entry->d_name) && weir__page_is_deserted(fd, entry->d_name))
            unlinkat(fd, entry->d_name, 0);
    if (folder)
        closedir(folder);
    else if (fd >= 0)
        close(fd);
}

/* The folder, made if it is not there; < 0: it is not the user's alone. */
static int open_folder(const char *path)
{
    mkdir(path, 0700);
    return weir__page_open_folder(path);
}

/* 20 MiB of address space are nothing, but where a process has been given so much and no more. */
static unsigned choose_room(void)
{
    struct rlimit limit;
    bool is_scarce = getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
    return is_scarce ? RECORDS_SMALL : WEIR__PAGE_RECORDS;
}

/* Of a file without a name: locks it and fills it in. */
static bool prepare(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fchmod(fd, 0600) < 0 || fcntl(fd, F_OFD_SETLK, &lock) < 0 ||
        weir__memfd_reserve(fd, 0, size_of(RECORDS_FIRST)) < 0 || fstat(fd, &page.file) < 0)
        return false;
    page.room = choose_room();
    page.head = weir__memfd_map(fd, 0, size_of(page.room));
    if (page.head)
        fill_in(page.head);
    return page.head;
}

/* Where the folder lies, whatever the process calls its working directory later. */
static bool find_folder(int folder_fd, char *ret_path, size_t size)
{
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", folder_fd);
    ssize_t n = readlink(self, ret_path, size - 1);
    ret_path[n > 0 ? n : 0] = '\0';
    return n > 0 && (size_t)n < size - 1;
}

static bool give_name(int folder_fd, int fd)
{
    char folder[PATH_SIZE - 64], name[48], self[64];
    if (!find_folder(folder_fd, folder, sizeof folder))
        return false;
    snprintf(name, sizeof name, "%" PRId64 "-%" PRIu64, page.head->pid, page.head->start_ticks);
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    int n = snprintf(page.path, sizeof page.path, "%s/%s", folder, name);
    return n > 0 && (size_t)n < sizeof page.path &&
           linkat(AT_FDCWD, self, folder_fd, name, AT_SYMLINK_FOLLOW) == 0;
}

static bool make_page(void)
{
    char folder[PATH_SIZE - 64];
    if (!weir__page_folder(folder, sizeof folder))
        return false;
    int folder_fd = open_folder(folder);
    if (folder_fd < 0)
        return false;
    sweep(folder);
    int fd = openat(folder_fd, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    bool made = fd >= 0 && prepare(fd) && give_name(folder_fd, fd);
    if (!made && page.head) {
        weir__memfd_unmap(page.head, size_of(page.room));
        page.head = NULL;
    }
    if (fd >= 0)
        close(fd); /* the mapping keeps the file, and its lock */
    close(folder_fd);
    return made;
}

/* ---- records -------------------------------------------------------------------------------- */

/* Twice as many.  (The file is opened anew because no descriptor is kept: who closes all of a process's
 * would close it, and the number would be another file's.) */
static bool grow(void)
{
    unsigned records = atomic_load_explicit(&page.head->records, memory_order_relaxed);
    if (records >= page.room)
        return false;
    int fd = open(page.path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    bool grown = fd >= 0 && fstat(fd, &st) == 0 && st.st_ino == page.file.st_ino &&
                 st.st_dev == page.file.st_dev &&
                 weir__memfd_reserve(fd, size_of(records), size_of(records) - size_of(0)) == 0;
    if (fd >= 0)
        close(fd);
    if (grown) /* release: who reads the count finds the file as long */
        atomic_store_explicit(&page.head->records, 2 * records, memory_order_release);
    return grown;
}

/* A free one, < page.room; else that. */
static unsigned find_record(void)
{
    while (page.search < page.room && page.in_use[page.search])
        page.search++;
    if (page.search < atomic_load_explicit(&page.head->records, memory_order_relaxed) || grow())
        return page.search;
    return page.room;
}

size_t weir__page_cut(const char *name, size_t most)
{
    size_t n = strnlen(name, most + 1);
    if (n > most)
        for (n--; n > 0 && ((unsigned char)name[n] & 0xc0) == 0x80;)
            n--;
    return n;
}

void weir__page_copy_name(char to[WEIR__PAGE_NAME], const char *name)
{
    memcpy(to, name, weir__page_cut(name, WEIR__PAGE_NAME - 1));
}

static weir__page_record *take(unsigned i, uint64_t kind, const char *kind_name, const char *name)
{
    weir__page_record *record = record_at(i);
    uint64_t generation = atomic_load_explicit(&record->generation, memory_order_relaxed);
    page.in_use[i] = true;
    if (generation > 0)
        memset((void *)&record->version, 0, sizeof *record - offsetof(weir__page_record, version));
    record->kind = kind;
    record->created_ns = weir__wall_clock();
    if (name)
        weir__page_copy_name(record->name, name);
    else
        snprintf(record->name, sizeof record->name, "%s-%u", kind_name, ++nameless[kind % KINDS]);
    /* release: whoever sees it in use sees it filled in */
    atomic_store_explicit(&record->generation, generation + 1, memory_order_release);
    return record;
}

weir__page_record *weir__page_take(uint64_t kind, const char *kind_name, const char *name)
{
    weir__page_record *record = NULL;
    pthread_mutex_lock(&mutex);
    if (page.state == UNBORN)
        page.state = make_page() ? READY : FAILED;
    if (page.state == READY) {
        unsigned i = find_record();
        if (i < page.room)
            record = take(i, kind, kind_name, name);
        else
            atomic_fetch_add_explicit(&page.head->unrecorded, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&mutex);
    return record;
}

static bool is_of_this_page(const weir__page_record *record)
{
    return page.head && record >= record_at(0) && record < record_at(page.room);
}

void weir__page_rename(weir__page_record *record, uint64_t kind, const char *name)
{
    pthread_mutex_lock(&mutex);
    if (is_of_this_page(record)) {
        atomic_fetch_add_explicit(&record->generation, 1, memory_order_relaxed);
        atomic_thread_fence(memory_order_release); /* who sees what follows sees it unused */
        record->kind = kind;
        memset(record->name, 0, sizeof record->name);
        weir__page_copy_name(record->name, name);
        atomic_fetch_add_explicit(&record->generation, 1, memory_order_release);
    }
    pthread_mutex_unlock(&mutex);
}

uint64_t weir__page_id(const weir__page_record *record)
{
    uint64_t id = 0;
    pthread_mutex_lock(&mutex);
    if (record && is_of_this_page(record))
        id = atomic_load_explicit(&record->generation, memory_order_relaxed) * WEIR__PAGE_RECORDS +
             (uint64_t)(record - record_at(0));
    pthread_mutex_unlock(&mutex);
    return id;
}

void weir__page_set_parent(pid_t parent)
{
    pthread_mutex_lock(&mutex);
    page.parent = parent;
    if (page.head)
        page.head->parent = parent;
    pthread_mutex_unlock(&mutex);
}

void weir__page_give_back(weir__page_record *record)
{
    if (!record)
        return;
    pthread_mutex_lock(&mutex);
    if (is_of_this_page(record)) {
        unsigned i = (unsigned)(record - record_at(0));
        atomic_fetch_add_explicit(&record->generation, 1, memory_order_release);
        page.in_use[i] = false;
        if (i < page.search)
            page.search = i;
    }
    pthread_mutex_unlock(&mutex);
}
