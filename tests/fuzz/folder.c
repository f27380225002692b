/* folder.c - a directory for a harness; see fuzz.h. */
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];
static int folder_fd = -1;

static void remove_all(int fd)
{
    DIR *dir = fdopendir(dup(fd));
    struct dirent *entry;
    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.' && unlinkat(fd, entry->d_name, 0) < 0) {
            int below = openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
            if (below >= 0) {
                remove_all(below);
                close(below);
                unlinkat(fd, entry->d_name, AT_REMOVEDIR);
            }
        }
    if (dir)
        closedir(dir);
}

static void remove_folder(void)
{
    remove_all(folder_fd);
    rmdir(folder);
}

const char *fuzz_folder(void)
{
    if (folder_fd < 0) {
        snprintf(folder, sizeof folder, "/dev/shm/weir-fuzz-XXXXXX");
        must(mkdtemp(folder));
        folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        must(folder_fd >= 0);
        atexit(remove_folder);
    }
    return folder;
}

/* Makes the directories before the name. */
static void make_way(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s", name);
    for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdirat(folder_fd, path, 0700);
        *slash = '/';
    }
}

void fuzz_write(const char *name, const void *data, size_t n)
{
    fuzz_folder();
    if (!data) {
        unlinkat(folder_fd, name, 0);
        return;
    }
    int fd = openat(folder_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        make_way(name);
        fd = openat(folder_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    }
    must(fd >= 0 && write(fd, data, n) == (ssize_t)n);
    close(fd);
}
