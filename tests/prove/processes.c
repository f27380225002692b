/* processes.c - threads and processes of the code, and the locks that outlive them. */
#include "inside.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES 64
#define FIRST_PID 5000
#define PIDFDS    64
#define LOCKS     512

typedef struct entry {
    bool is_there, has_ended, may_die;
    int code, signal, first; /* first: its first thread */
    prove_clock known;       /* what it knew when it ended */
} entry;

static entry processes[PROCESSES]; /* by pid - FIRST_PID; 0 is the body's */
static int n_processes;
static struct pidfd {
    int fd, process;
} pidfds[PIDFDS];
static size_t n_pidfds;

/* Threads that have not begun. */
static struct pthread {
    void *(*fn)(void *); /* NULL: free */
    void *arg;
} pthreads[PROVE_THREADS];

int __real_eventfd(unsigned count, int flags);
int __wrap_eventfd(unsigned count, int flags);
int __wrap_dup(int fd);

void prove_processes_begin(void)
{
    memset(pthreads, 0, sizeof pthreads);
    memset(processes, 0, sizeof processes);
    processes[0].is_there = true;
    n_processes = 1;
    n_pidfds = 0;
}

void prove_processes_drop(void) {}

bool prove_is_mortal(int process)
{
    return processes[process].may_die;
}

/* ---- ending ----------------------------------------------------------------------------------- */

static void end(int number, int code, int signal)
{
    entry *p = &processes[number];
    if (p->has_ended)
        return;
    *p = (entry){
        .is_there = true, .has_ended = true, .code = code, .signal = signal, .first = p->first};
    bool is_own = prove_threads[prove_self].process == number;
    if (is_own)
        prove_memory_publish(p->known);
    for (int i = 0; i < PROVE_THREADS; i++) {
        prove_thread *t = &prove_threads[i];
        if (t->process != number || t->state == PROVE_NONE) /* also one that nobody has joined */
            continue;
        for (int k = 0; k < PROVE_THREADS; k++)
            if (t->known[k] > p->known[k])
                p->known[k] = t->known[k];
        if (i != prove_self)
            t->state = PROVE_NONE;
    }
    for (size_t i = 0; i < n_pidfds; i++)
        if (pidfds[i].process == number)
            prove_files_signal(pidfds[i].fd, p->known);
    prove_locks_release(number);
    prove_files_forget(number);
    prove_names_closed(-1, number);
    prove_names_ended(p->known);
    prove_heap_forget(number);
    prove_files_changed();
    prove_wake(p, PROVE_THREADS);
}

void prove_kill(int number, int signal)
{
    bool is_own = prove_threads[prove_self].process == number;
    end(number, -1, signal);
    if (is_own)
        prove_leave(PROVE_NONE);
}

typedef struct start {
    void (*fn)(void *);
    void *arg;
} start;

static start starts[PROCESSES];

static void run_process(void *arg)
{
    int number = (int)(intptr_t)arg;
    starts[number].fn(starts[number].arg);
    prove_locks_check(number);
    end(number, 0, 0);
    prove_leave(PROVE_NONE);
}

int prove_start_process(void (*fn)(void *), void *arg, bool may_die)
{
    if (n_processes == PROCESSES)
        prove_fail("more than %d processes", PROCESSES);
    int number = n_processes++;
    processes[number] = (entry){.is_there = true, .may_die = may_die};
    starts[number] = (start){fn, arg};
    processes[number].first = prove_spawn_in(number, run_process, (void *)(intptr_t)number);
    return FIRST_PID + number;
}

int prove_inherit(int fd)
{
    int own = __wrap_dup(fd);
    prove_files_give(own, n_processes);
    return own;
}

bool prove_process_was_killed(int pid)
{
    return processes[pid - FIRST_PID].signal == SIGKILL;
}

void prove_process_wait(int pid)
{
    entry *p = &processes[pid - FIRST_PID];
    while (!p->has_ended)
        prove_wait(p, WEIR_FOREVER);
    prove_memory_learn(p->known);
}

void prove_process_wait_all(void)
{
    for (int number = 1; number < n_processes; number++)
        prove_process_wait(FIRST_PID + number);
}

/* ---- as the code asks the kernel -------------------------------------------------------------- */

pid_t __real_getpid(void);
pid_t __wrap_getpid(void);
pid_t __wrap_getpid(void)
{
    return prove_self < 0 ? __real_getpid() : FIRST_PID + prove_threads[prove_self].process;
}

static int number_of(int pid)
{
    int number = pid - FIRST_PID;
    return number >= 0 && number < n_processes && processes[number].is_there ? number : -1;
}

int __wrap_kill(pid_t pid, int signal);
int __wrap_kill(pid_t pid, int signal)
{
    int number = number_of(pid);
    prove_point();
    if (number < 0) {
        errno = ESRCH;
        return -1;
    }
    if (signal == SIGKILL)
        prove_kill(number, signal);
    return 0;
}

long prove_pidfd_open(int pid);
long prove_pidfd_open(int pid)
{
    int number = number_of(pid);
    if (number < 0) {
        errno = ESRCH;
        return -1;
    }
    int fd = __wrap_eventfd(processes[number].has_ended, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd >= 0 && n_pidfds < PIDFDS)
        pidfds[n_pidfds++] = (struct pidfd){fd, number};
    return fd;
}

static int process_of(int fd)
{
    for (size_t i = 0; i < n_pidfds; i++)
        if (pidfds[i].fd == fd)
            return pidfds[i].process;
    return -1;
}

/* The number may be another file's from now on. */
void prove_processes_closed(int fd)
{
    for (size_t i = n_pidfds; i-- > 0;)
        if (pidfds[i].fd == fd)
            pidfds[i] = pidfds[--n_pidfds];
}

long prove_pidfd_signal(int fd, int signal);
long prove_pidfd_signal(int fd, int signal)
{
    int number = process_of(fd);
    if (number >= 0 && signal == SIGKILL)
        prove_kill(number, signal);
    return number >= 0 ? 0 : -1;
}

long prove_waitid(int fd, siginfo_t *info, struct rusage *usage);
long prove_waitid(int fd, siginfo_t *info, struct rusage *usage)
{
    int number = process_of(fd);
    memset(info, 0, sizeof *info);
    memset(usage, 0, sizeof *usage);
    if (number < 0 || !processes[number].has_ended)
        return number < 0 ? -1 : 0;
    const entry *p = &processes[number];
    prove_memory_learn(p->known);
    info->si_pid = FIRST_PID + number;
    info->si_code = p->signal ? CLD_KILLED : CLD_EXITED;
    info->si_status = p->signal ? p->signal : p->code;
    return 0;
}

pid_t __wrap_waitpid(pid_t pid, int *status, int options);
pid_t __wrap_waitpid(pid_t pid, int *status, int options)
{
    int number = number_of(pid);
    if (number <= 0) {
        errno = ECHILD;
        return -1;
    }
    entry *p = &processes[number];
    if (!p->has_ended && (options & WNOHANG))
        return 0;
    prove_process_wait(pid);
    *status = p->signal ? p->signal : p->code << 8;
    p->is_there = false;
    return pid;
}

int __wrap_getrusage(int who, struct rusage *usage);
int __wrap_getrusage(int who, struct rusage *usage)
{
    (void)who;
    memset(usage, 0, sizeof *usage);
    return 0;
}

/* ---- threads ---------------------------------------------------------------------------------- */

static void run_pthread(void *arg)
{
    struct pthread *p = arg, mine = *p;
    p->fn = NULL;
    mine.fn(mine.arg);
}

int __wrap_pthread_create(pthread_t *to, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *to, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
    (void)attr;
    struct pthread *p = pthreads; /* one is free: there are no more threads than these */
    while (p->fn)
        p++;
    *p = (struct pthread){fn, arg};
    *to = (pthread_t)prove_spawn(run_pthread, p);
    return 0;
}

pthread_t __real_pthread_self(void);
pthread_t __wrap_pthread_self(void);
pthread_t __wrap_pthread_self(void)
{
    return prove_self < 0 ? __real_pthread_self() : (pthread_t)(prove_self + 1);
}

int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_join(pthread_t thread, void **result)
{
    prove_join((int)thread);
    if (result)
        *result = NULL;
    return 0;
}

/* Of a thread that waits in poll. */
int __wrap_pthread_cancel(pthread_t thread);
int __wrap_pthread_cancel(pthread_t thread)
{
    prove_point();
    prove_threads[thread].state = PROVE_OVER;
    return 0;
}

int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *old);
int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    (void)how, (void)set, (void)old;
    return 0;
}

/* ---- mutexes of the system: robust or not ----------------------------------------------------- */

typedef struct lock {
    uintptr_t address;
    int owner, process; /* -1: nobody */
    bool owner_died;
    prove_clock released;
} lock;

static lock locks[LOCKS];
static size_t n_locks;

void prove_locks_begin(void)
{
    n_locks = 0;
}

static lock *find_lock(uintptr_t address)
{
    for (size_t i = 0; i < n_locks; i++)
        if (locks[i].address == address)
            return &locks[i];
    return NULL;
}

static lock *lock_of(const pthread_mutex_t *mutex)
{
    uintptr_t address = prove_files_address((uintptr_t)mutex);
    lock *found = find_lock(address);
    if (found)
        return found;
    if (n_locks == LOCKS)
        prove_fail("the case has more than %d mutexes", LOCKS);
    locks[n_locks] = (lock){.address = address, .owner = -1, .process = -1};
    return &locks[n_locks++];
}

static int take(lock *l)
{
    l->owner = prove_self;
    l->process = prove_threads[prove_self].process;
    prove_memory_learn(l->released);
    int rc = l->owner_died ? EOWNERDEAD : 0;
    l->owner_died = false;
    return rc;
}

int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr);
int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr)
{
    (void)attr;
    lock *l = prove_self < 0 ? NULL : find_lock(prove_files_address((uintptr_t)mutex));
    if (l) { /* one that nobody has asked for yet is free anyhow */
        l->owner = -1;
        l->owner_died = false;
    }
    return 0;
}

int __wrap_pthread_mutex_trylock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_trylock(pthread_mutex_t *mutex)
{
    prove_point();
    lock *l = lock_of(mutex);
    return l->owner >= 0 ? EBUSY : take(l);
}

int __wrap_pthread_mutex_clocklock(pthread_mutex_t *mutex, clockid_t clock,
                                   const struct timespec *ts);
int __wrap_pthread_mutex_clocklock(pthread_mutex_t *mutex, clockid_t clock,
                                   const struct timespec *ts)
{
    (void)clock;
    prove_point();
    lock *l = lock_of(mutex);
    weir_time until = ts->tv_sec * WEIR_SECOND + ts->tv_nsec;
    while (l->owner >= 0)
        if (prove_wait(l, until))
            return ETIMEDOUT;
    return take(l);
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    if (prove_self < 0)
        return 0;
    prove_point();
    lock *l = lock_of(mutex);
    while (l->owner >= 0)
        prove_wait(l, WEIR_FOREVER);
    return take(l);
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    if (prove_self < 0)
        return 0;
    prove_point();
    lock *l = lock_of(mutex);
    if (l->owner != prove_self)
        prove_fail("a mutex is unlocked by who does not hold it");
    prove_memory_publish(l->released);
    l->owner = -1;
    prove_wake(l, 1);
    return 0;
}

int __wrap_pthread_mutex_consistent(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_consistent(pthread_mutex_t *mutex)
{
    (void)mutex;
    return 0;
}

void prove_locks_check(int process)
{
    for (size_t i = 0; i < n_locks; i++)
        if (locks[i].owner >= 0 && locks[i].process == process)
            prove_fail("a process ends, and holds a mutex");
}

void prove_locks_release(int process)
{
    for (size_t i = 0; i < n_locks; i++) {
        if (locks[i].owner < 0 || locks[i].process != process)
            continue;
        prove_clock *from = &prove_threads[locks[i].owner].known;
        for (int k = 0; k < PROVE_THREADS; k++)
            if ((*from)[k] > locks[i].released[k])
                locks[i].released[k] = (*from)[k];
        locks[i].owner = -1;
        locks[i].owner_died = true;
        prove_wake(&locks[i], 1);
    }
}
