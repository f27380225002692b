/* page_folder.c - the folder of the pages, as those see it who look for pages; see page.h. */
#include "base/page.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool weir__page_folder(char *ret_path, size_t size)
{
    const char *told = secure_getenv("WEIR_STATS_DIR");
    int n = told ? snprintf(ret_path, size, "%s", told)
                 : snprintf(ret_path, size, "/dev/shm/weir-%ju-stats", (uintmax_t)geteuid());
    return n > 0 && (size_t)n < size;
}

/* weir-<uid>-stats */
static bool is_folder_name(const char *name)
{
    static const char begin[] = "weir-", end[] = "-stats";
    if (strncmp(name, begin, sizeof begin - 1) != 0)
        return false;
    name += sizeof begin - 1;
    size_t uid = strspn(name, "0123456789");
    return uid > 0 && uid <= 10 && strcmp(name + uid, end) == 0;
}

int weir__page_each_folder(int (*each)(const char *path, void *ctx), void *ctx)
{
    DIR *all = opendir("/dev/shm");
    if (!all)
        return errno == EMFILE || errno == ENFILE ? WEIR_ENOFD
               : errno == ENOMEM                  ? WEIR_ENOMEM
                                                  : WEIR_OK;
    int rc = WEIR_OK;
    for (struct dirent *entry; rc >= 0 && (entry = readdir(all));) {
        char path[64];
        if (!is_folder_name(entry->d_name))
            continue;
        snprintf(path, sizeof path, "/dev/shm/%.40s", entry->d_name);
        rc = each(path, ctx);
    }
    closedir(all);
    return rc;
}

int weir__page_open_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    if (fd < 0)
        return -1;
    bool may_look = fstat(fd, &st) == 0 && (st.st_uid == geteuid() || geteuid() == 0);
    if (may_look && (st.st_mode & 0077) == 0)
        return fd;
    close(fd);
    return -1;
}

/* pid-start_ticks, in decimal. */
bool weir__page_is_name(const char *name)
{
    static const char digits[] = "0123456789";
    size_t pid = strspn(name, digits);
    if (pid == 0 || pid > 10 || name[pid] != '-')
        return false;
    size_t start = strspn(name + pid + 1, digits);
    return start > 0 && start <= 20 && name[pid + 1 + start] == '\0';
}

/* Whether somebody has it; not this descriptor's own. */
static bool is_locked(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static bool is_ours(int folder, int fd)
{
    struct stat around, here;
    return fstat(folder, &around) == 0 && fstat(fd, &here) == 0 && S_ISREG(here.st_mode) &&
           here.st_uid == around.st_uid;
}

int weir__page_open(int folder, const char *name)
{
    /* O_NONBLOCK: it may be anything, a pipe without a writer, say. */
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -1;
    if (is_ours(folder, fd) && is_locked(fd))
        return fd;
    close(fd);
    errno = 0; /* it is no page */
    return -1;
}

bool weir__page_is_deserted(int folder, const char *name)
{
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno == ELOOP; /* a link: not ours, and in the way */
    bool deserted = is_ours(folder, fd) && !is_locked(fd);
    close(fd);
    return deserted;
}
