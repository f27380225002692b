/* files.h - the files of one directory: made, written, read, removed, and waited for until the disk has
 * them.
 *
 * Results:  a weir_error where nothing else is said.  WEIR_ENOSPC: the disk, the quota or the file size
 *           limit is at its end; WEIR_ENOFD, WEIR_ENOMEM; WEIR_ESYSTEM for all the rest.
 * Links:    a name that is a symbolic link is never followed.
 */
#ifndef WEIR_BASE_FILES_H
#define WEIR_BASE_FILES_H

#include <sys/types.h>

#include <weir/base.h>

/* ---- a directory for one ---------------------------------------------------------------------- */

typedef struct weir__dir weir__dir;

/* Opens the directory, makes it (mode 0700) if it is not there, and takes it for this object alone:
 * WEIR_EBUSY where another one has it, of this process or another.  The kernel gives it back when the
 * process ends, however it ends; a forked child does not hold it. */
int weir__dir_open(weir__dir **ret_dir, const char *path);
void weir__dir_close(weir__dir *dir); /* NULL is fine */

/* Calls `each` with every name; < 0 from it ends that, and is returned. */
int weir__dir_list(weir__dir *dir, int (*each)(const char *name, void *ctx), void *ctx);

/* Waits until the disk knows which files there are. */
int weir__dir_sync(weir__dir *dir);

/* The same of the directory itself, which may be new.  Where who runs this may not read the one that it is in, nothing
 * is done: then it is up to who made it. */
int weir__dir_sync_name(weir__dir *dir);

/* What the file system has left; UINT64_MAX: it does not say. */
uint64_t weir__dir_free_bytes(weir__dir *dir);

void weir__file_remove(weir__dir *dir, const char *name);

/* ---- files in it ------------------------------------------------------------------------------ */

typedef enum weir__file_mode {
    WEIR__FILE_NEW,    /* must not be there; mode 0600; to read and write */
    WEIR__FILE_MEND,   /* must be there; to read and write */
    WEIR__FILE_READ,   /* must be there */
    WEIR__FILE_APPEND, /* made if it is not there; what is written goes to the end */
} weir__file_mode;

/* Of one that must be there: WEIR_EEMPTY: it is not; WEIR_EINVAL: it is no regular file. */
int weir__file_open(weir__dir *dir, const char *name, weir__file_mode mode, int *ret_fd);
void weir__file_close(int fd); /* < 0 is fine */

int weir__file_size(int fd, uint64_t *ret_size);
int weir__file_truncate(int fd, uint64_t size);

typedef struct weir__piece {
    const void *data;
    size_t n;
} weir__piece;

#define WEIR__PIECES_MAX 4

/* Writes all of the pieces, or fails having written some. */
int weir__file_write(int fd, uint64_t offset, const weir__piece *pieces, size_t n);

/* Adds the bytes at the end of a file opened with APPEND. */
int weir__file_append(int fd, const void *data, size_t n);

/* Reads up to n bytes; fewer: the file ends there. */
int weir__file_read(int fd, uint64_t offset, void *data, size_t n, size_t *ret_n);

/* Waits until the disk has what was written. */
int weir__file_sync(int fd);

/* Whether a file may become so large: growing past RLIMIT_FSIZE would raise SIGXFSZ. */
bool weir__file_may_have(uint64_t size);

/* Nanoseconds since 1970: what a later process, too, can compare with. */
int64_t weir__wall_clock(void);

/* Tests: asked before each write (of n bytes; how many of them to write), read and sync; an errno makes it
 * fail.  Set while one thread runs. */
extern int (*weir__write_fails)(size_t *n);
extern int (*weir__read_fails)(void);
extern int (*weir__sync_fails)(void);

#endif
