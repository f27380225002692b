/* names.c - what processes find each other by: files with names, and the locks of POSIX on them.  The files are real, in a
 * folder of the prover's own; the locks are not, for all that is proved is one process of the kernel's.
 *
 * And what is static in the code, which is each process's own: it is exchanged where another process goes on, and begins
 * in each as it does in a program.
 */
#include "inside.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER    "/dev/shm"
#define LOCKS     64
#define STATICS   64
#define PROCESSES 64
#define IMAGE     (16u << 10) /* bytes that are static, of one process */

/* ---- names ------------------------------------------------------------------------------------ */

static char folder[64];

static void remove_folder(void)
{
    rmdir(folder);
}

static void make_folder(void)
{
    snprintf(folder, sizeof folder, FOLDER "/weir-prove-%ld", (long)getpid());
    mkdir(folder, 0700);
    atexit(remove_folder);
}

static prove_clock released; /* what is known to who asks for a name, or a lock */

/* Where a path of the code's really leads. */
const char *prove_names_path(const char *path, char to[PROVE_PATH])
{
    size_t n = sizeof FOLDER - 1;
    if (prove_self < 0 || strncmp(path, FOLDER, n) != 0 || (path[n] && path[n] != '/'))
        return path;
    snprintf(to, PROVE_PATH, "%s%s", folder, path + n);
    prove_memory_learn(released);
    return to;
}

int __real_linkat(int from_at, const char *from, int to_at, const char *to, int flags);
int __wrap_linkat(int from_at, const char *from, int to_at, const char *to, int flags);
int __wrap_linkat(int from_at, const char *from, int to_at, const char *to, int flags)
{
    char path[PROVE_PATH];
    prove_point();
    prove_memory_publish(released);
    return __real_linkat(from_at, from, to_at, prove_names_path(to, path), flags);
}

int __real_unlink(const char *path);
int __wrap_unlink(const char *path);
int __wrap_unlink(const char *path)
{
    char to[PROVE_PATH];
    prove_point();
    prove_memory_publish(released);
    return __real_unlink(prove_names_path(path, to));
}

int __real_lstat64(const char *path, struct stat *st);
int __wrap_lstat64(const char *path, struct stat *st);
int __wrap_lstat64(const char *path, struct stat *st)
{
    char to[PROVE_PATH];
    prove_point();
    return __real_lstat64(prove_names_path(path, to), st);
}

DIR *__real_opendir(const char *path);
DIR *__wrap_opendir(const char *path);
DIR *__wrap_opendir(const char *path)
{
    char to[PROVE_PATH];
    if (prove_files_is_of_kernel(path)) {
        errno = ENOENT;
        return NULL;
    }
    return __real_opendir(prove_names_path(path, to));
}

/* How many there are; they may be removed, too. */
static unsigned count_names(bool removes)
{
    unsigned n = 0;
    DIR *all = __real_opendir(folder);
    for (struct dirent *entry; all && (entry = readdir(all));) {
        if (entry->d_name[0] == '.')
            continue;
        n++;
        if (removes)
            unlinkat(dirfd(all), entry->d_name, 0);
    }
    if (all)
        closedir(all);
    return n;
}

unsigned prove_names(void)
{
    return count_names(false);
}

/* ---- locks on bytes --------------------------------------------------------------------------- */

static struct byte {
    uint64_t inode;
    int64_t at;
    int process;
} locks[LOCKS];
static size_t n_locks;

static uint64_t inode_of(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

/* The lock of another process, or (own) of this one, in [at, at + n); NULL: there is none. */
static struct byte *find(uint64_t inode, int64_t at, int64_t n, bool own)
{
    int process = prove_threads[prove_self].process;
    for (size_t i = 0; i < n_locks; i++)
        if (locks[i].inode == inode && locks[i].at >= at && locks[i].at < at + n &&
            (locks[i].process == process) == own)
            return &locks[i];
    return NULL;
}

int prove_names_lock(int fd, int command, struct flock *lock)
{
    uint64_t inode = inode_of(fd);
    prove_point();
    prove_memory_learn(released);
    const struct byte *other = find(inode, lock->l_start, lock->l_len, false);
    if (command == F_GETLK) {
        lock->l_type = other ? F_WRLCK : F_UNLCK;
        return 0;
    }
    struct byte *own = find(inode, lock->l_start, lock->l_len, true);
    if (lock->l_type == F_UNLCK) {
        prove_memory_publish(released);
        if (own)
            *own = locks[--n_locks];
    } else if (other) {
        errno = EAGAIN;
        return -1;
    } else if (!own) {
        if (n_locks == LOCKS)
            prove_fail("the case locks more than %d bytes", LOCKS);
        locks[n_locks++] = (struct byte){inode, lock->l_start, prove_threads[prove_self].process};
    }
    return 0;
}

/* Whichever descriptor of the file a process closes, it has no lock there any more; fd < 0: it has ended. */
void prove_names_closed(int fd, int process)
{
    uint64_t inode = fd < 0 || n_locks == 0 ? 0 : inode_of(fd);
    for (size_t i = n_locks; i-- > 0;) {
        if (locks[i].process != process || (fd >= 0 && locks[i].inode != inode))
            continue;
        if (fd >= 0)
            prove_memory_publish(released);
        locks[i] = locks[--n_locks];
    }
}

void prove_names_ended(const prove_clock known)
{
    for (int i = 0; i < PROVE_THREADS; i++)
        if (known[i] > released[i])
            released[i] = known[i];
}

/* ---- what is static --------------------------------------------------------------------------- */

static struct variable {
    uintptr_t at;
    size_t size;
} variables[STATICS];
static size_t n_variables, image_size;
static char images[PROCESSES][IMAGE], first_image[IMAGE];
static bool has_image[PROCESSES];
static int current; /* whose values are in place */

/* Of these files; what is there once for a process of the kernel's, like its handlers of fork, is not among them. */
static bool is_of_processes(const char *file, const char *name)
{
    static const char *const files[] = {"named.c", "spin.c"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (strcmp(file, files[i]) == 0)
            return strncmp(name, "once", 4) != 0;
    return false;
}

static void add_variable(const Elf64_Sym *symbol)
{
    if (n_variables == STATICS || image_size + symbol->st_size > IMAGE)
        abort();
    variables[n_variables++] = (struct variable){symbol->st_value, symbol->st_size};
    image_size += symbol->st_size;
}

/* The program's own table of symbols: it is not moved when it is loaded. */
static void find_variables(void)
{
    struct stat st;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    const char *at = fd < 0 || fstat(fd, &st) < 0
                         ? MAP_FAILED
                         : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (at == MAP_FAILED)
        abort();
    const Elf64_Ehdr *head = (const Elf64_Ehdr *)at;
    const Elf64_Shdr *sections = (const Elf64_Shdr *)(at + head->e_shoff);
    for (unsigned i = 0; i < head->e_shnum; i++) {
        if (sections[i].sh_type != SHT_SYMTAB)
            continue;
        const Elf64_Sym *symbols = (const Elf64_Sym *)(at + sections[i].sh_offset);
        const char *names = at + sections[sections[i].sh_link].sh_offset, *file = "";
        for (size_t k = 0; k < sections[i].sh_size / sizeof *symbols; k++) {
            const char *name = names + symbols[k].st_name;
            unsigned type = ELF64_ST_TYPE(symbols[k].st_info);
            uint16_t of = symbols[k].st_shndx;
            if (type == STT_FILE)
                file = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
            else if (type == STT_OBJECT && of < head->e_shnum &&
                     (sections[of].sh_flags & SHF_WRITE) && is_of_processes(file, name))
                add_variable(&symbols[k]);
        }
    }
    munmap((void *)at, (size_t)st.st_size);
    close(fd);
}

static void take(char *image)
{
    for (size_t i = 0; i < n_variables; image += variables[i++].size)
        memcpy(image, (const void *)variables[i].at, variables[i].size);
}

static void put(const char *image)
{
    for (size_t i = 0; i < n_variables; image += variables[i++].size)
        memcpy((void *)variables[i].at, image, variables[i].size);
}

void prove_names_switch(int process)
{
    if (process == current)
        return;
    take(images[current]);
    has_image[current] = true;
    put(has_image[process] ? images[process] : first_image);
    current = process;
}

uintptr_t prove_names_address(uintptr_t address)
{
    for (size_t i = 0; i < n_variables; i++)
        if (address - variables[i].at < variables[i].size)
            return address | (uintptr_t)(current + 1) << 48;
    return address;
}

/* ---- beginning and ending --------------------------------------------------------------------- */

void prove_names_begin(void)
{
    if (!folder[0]) {
        make_folder();
        find_variables();
        take(first_image);
    }
    put(first_image);
    memset(has_image, 0, sizeof has_image);
    memset(released, 0, sizeof released);
    current = 0;
    n_locks = 0;
}

void prove_names_check(void)
{
    if (count_names(false) > 0)
        prove_fail("a name is left in " FOLDER);
}

void prove_names_drop(void)
{
    count_names(true);
}
