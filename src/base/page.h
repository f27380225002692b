/* page.h - the numbers of a process's objects, where other processes of the user can read them; the
 * layout is weir_stats(7).
 *
 * One file per process in a folder of the user's in the memory file system, mapped by its process,
 * and read with pread by everybody else.
 *
 * Made whole: the file gets its name when its head is filled in and it is locked.
 * Alive:      whose page is locked is alive.  The lock is the mapping's: the process needs no descriptor
 *             for it, and the kernel releases it however the process ends.  (A pid can be reused, and
 *             means nothing in another namespace.)
 * Ours only:  folder 0700, file 0600; made without following a link, never over what is there.
 * Bound:      WEIR__PAGE_RECORDS records (64 in a process whose address space is limited); the file grows with
 *             them.  Objects beyond are counted.
 * Forks:      in a forked child the memory of its parent's records is its own, and nobody's to see, with the
 *             numbers of that moment; its own page comes with the first object it makes.
 * Failure:    no page, or no record: NULL, and the object does without.  It is not tried again.
 * Life:       the name goes when the process exits; of who could not remove it (killed, or exec), with
 *             the next page that is made.
 */
#ifndef WEIR_BASE_PAGE_H
#define WEIR_BASE_PAGE_H

#include <stdatomic.h>
#include <sys/types.h>

#include <weir/base.h>

#define WEIR__PAGE_MAGIC      "weirpage" /* 8 bytes, no terminator in the file */
#define WEIR__PAGE_VERSION    1u
#define WEIR__PAGE_BYTE_ORDER UINT32_C(0x01020304)
#define WEIR__PAGE_RECORDS    1024u
#define WEIR__PAGE_NUMBERS    96
#define WEIR__PAGE_BUCKETS    1152
#define WEIR__PAGE_NAME       64 /* bytes, terminator included */

typedef struct weir__page_head {
    char magic[8];
    uint32_t version, byte_order;
    uint32_t head_size, record_size, numbers, buckets;
    _Atomic uint32_t records; /* so many are in the file, in use or not */
    uint32_t reserved;
    int64_t pid, parent;
    uint64_t start_ticks;        /* of the process, as in field 22 of /proc/pid/stat */
    uint64_t pid_namespace;      /* inode of /proc/self/ns/pid: where the pids mean something */
    int64_t created_ns;          /* wall clock */
    _Atomic uint64_t unrecorded; /* objects that found no record */
    char library[16];            /* its version */
    char command[256];           /* arguments with spaces between them, cut off */
    char unused[4096 - 360];
} weir__page_head;

/* One writer at a time. */
typedef struct weir__page_times {
    _Atomic uint64_t sum_ns, max_ns;
    uint64_t unused[14];
    _Atomic uint64_t bucket[WEIR__PAGE_BUCKETS];
} weir__page_times;

typedef struct weir__page_record {
    _Atomic uint64_t generation; /* odd: in use */
    _Atomic uint64_t version;    /* odd: numbers are being changed that belong together */
    uint64_t kind;
    int64_t created_ns; /* wall clock */
    uint64_t unused[4];
    char name[WEIR__PAGE_NAME];
    /* Three parts with a writer at a time of their own: 0-15, 16-31, the rest. */
    _Alignas(128) _Atomic uint64_t number[WEIR__PAGE_NUMBERS];
    _Alignas(128) weir__page_times wait, service;
} weir__page_record;

_Static_assert(sizeof(weir__page_head) == 4096, "as documented");
_Static_assert(sizeof(weir__page_record) == 19584, "as documented");

/* A record, zeroed but for generation, kind, created_ns and name; NULL: there is none.  Without a name it
 * gets "kind_name-1" and so on. */
weir__page_record *weir__page_take(uint64_t kind, const char *kind_name, const char *name);

/* The record as one of another object, which begins with the numbers that are there. */
void weir__page_rename(weir__page_record *record, uint64_t kind, const char *name);

/* Which one it is, in its process and for ever; 0: of NULL, or of one from before a fork. */
uint64_t weir__page_id(const weir__page_record *record);

/* NULL is fine, and so is a record from before a fork. */
void weir__page_give_back(weir__page_record *record);

/* How many bytes of the name to keep, `most` or less, so that no character of UTF-8 is cut. */
size_t weir__page_cut(const char *name, size_t most);

/* As much of the name as fits, cut like that, to where it is all zero. */
void weir__page_copy_name(char to[WEIR__PAGE_NAME], const char *name);

/* Under whom this process is to be seen, if that is not its parent (a server that forks, say). */
void weir__page_set_parent(pid_t parent);

/* How many forks lie between this process and the one that loaded the library. */
unsigned weir__page_generation(void);

/* When a process began, as in field 22 of /proc/pid/stat; 0: the kernel does not tell. */
uint64_t weir__page_start_ticks(pid_t pid);

/* The parent of a process now; 0: it has none here, or the kernel does not tell. */
int64_t weir__page_parent_of(pid_t pid);

/* ---- for who reads -------------------------------------------------------------------------- */

/* The folder: $WEIR_STATS_DIR, or the user's own.  false: it is switched off. */
bool weir__page_folder(char *ret_path, size_t size);

/* Calls `each` with the path of every user's folder, as they lie in the memory file system; < 0 from it ends
 * that, and is returned.  WEIR_ENOFD, WEIR_ENOMEM: they could not be listed. */
int weir__page_each_folder(int (*each)(const char *path, void *ctx), void *ctx);

/* Opens it to be listed; < 0: it is not there, or it is not the user's alone. */
int weir__page_open_folder(const char *path);

/* Whether a file of the folder has a page's name. */
bool weir__page_is_name(const char *name);

/* Opens it to be read, if it is a regular file of the folder's owner and somebody who lives has it;
 * < 0: it is not. */
int weir__page_open(int folder, const char *name);

/* Whether what has a page's name there is what somebody left who is dead. */
bool weir__page_is_deserted(int folder, const char *name);

#endif
