/* claim.pml - tasks that a parent deals to a worker which may die at any step: each ends exactly once, with its
 * permit back, and what was taken back never runs.  Mirrors the channel of the process pool.
 *
 *   here                        there
 *   slot[], worker: claim       src/exec/worker.c: claim (both exchanges), finish, sleep_unless
 *   deal                        src/exec/pool.c: deal_to, src/exec/channel.c: weir__ring_worker
 *   canceller                   src/exec/pool.c: weir_pool_cancel, take_back, weir__pool_revoke
 *   collector: scan             src/exec/collect.c: scan, read_slot, collect_reply
 *   collector: bury             src/exec/collect.c: bury_the_dead, has_replies, reclaim_tasks, settle_victim (no retries)
 *   collector: sleep            src/exec/collect.c: run_rounds (armed), set_asleep, sleep_until
 *   line[]                      src/exec/tasks.c: the line of those not dealt
 *   taking back for others      src/exec/redeal.c: take_half is the canceller's revoke, and back in line
 *
 * The worker dies once, between any two of its steps; the next one begins at the first slot.  Each operation on
 * shared memory is a step; all is as the fences of the code make it: sequentially consistent.
 *
 * Claims: no task runs that was taken back; each task ends once; a permit comes back once; both sides end (no
 * invalid end state), though each sleeps when it finds nothing to do.
 *
 * BROKEN NO_RING         a task is dealt and nobody rings
 * BROKEN NO_RECHECK      the worker does not look again after it said that it sleeps
 * BROKEN NO_RECHECK_HERE the same of the collector
 * BROKEN BLIND_CLAIM     the worker looks and stores instead of exchanging
 * BROKEN BLIND_REVOKE    the parent does
 * BROKEN BURY_FIRST      the dead is buried without a look for replies that came last
 * BROKEN TWICE           what the dead one ran ends, and goes back in line as well
 */
#define TASKS 2
#define SLOTS 2

mtype = { FREE, READY, RUNNING, DONE, REVOKED, SKIPPED, /* slots */
          INLINE, DEALT, ENDED, CANCELLED /* tasks */ };

mtype slot[SLOTS] = FREE;
byte held[SLOTS] = TASKS; /* desk.tasks: which task; TASKS: none, or revoked */
mtype task[TASKS] = INLINE;
byte place[TASKS];
byte permits = TASKS;
byte scanned, dealt;      /* positions in the ring */
bool locked;              /* pool.mutex */
bool asleep, bell;        /* the worker's: seat.asleep; bell: it is rung, so that a futex does not sleep */
bool dozes, event;        /* the collector's: collector_asleep, and its eventfd, which stays readable */
bool dead;                /* what the pidfd tells */
bool live;                /* there is a worker, as far as the collector knows */
bool killed, may_die = true, leave;

inline lock() { atomic { !locked -> locked = true } }
inline unlock() { locked = false }

inline ring_worker() {
#ifdef NO_RING
    skip
#else
    if
    :: asleep -> bell = true
    :: else
    fi
#endif
}

inline kick() {
    if
    :: dozes -> event = true
    :: else
    fi
}

inline end_task(t, how) {
    assert(task[t] != ENDED && task[t] != CANCELLED);
    task[t] = how;
    assert(permits > 0);
    permits--
}

inline revoke(s, ok) {
#ifdef BLIND_REVOKE
    ok = (slot[s] == READY);
    if
    :: ok -> slot[s] = REVOKED
    :: else
    fi
#else
    atomic { ok = (slot[s] == READY); if :: ok -> slot[s] = REVOKED :: else fi }
#endif
}

inline none_left(yes) {
    yes = true;
    t = 0;
    do
    :: t < TASKS -> yes = yes && (task[t] == ENDED || task[t] == CANCELLED); t++
    :: else -> break
    od
}

/* Under the mutex. */
inline deal() {
    t = 0;
    do
    :: t == TASKS -> break
    :: t < TASKS && task[t] == INLINE && dealt < scanned + SLOTS && live ->
        s = dealt % SLOTS;
        held[s] = t;
        place[t] = s;
        task[t] = DEALT;
        dealt++;
        slot[s] = READY;
        ring_worker();
        worked = true;
        t++
    :: else -> t++
    od
}

/* Under the mutex: as far as the ring is settled. */
inline scan() {
    do
    :: scanned < dealt && slot[scanned % SLOTS] == SKIPPED ->
        assert(held[scanned % SLOTS] == TASKS);
        scanned++;
        worked = true
    :: scanned < dealt && slot[scanned % SLOTS] == DONE ->
        s = scanned % SLOTS;
        end_task(held[s], ENDED);
        held[s] = TASKS;
        scanned++;
        worked = true
    :: else -> break
    od
}

inline bury() {
    do
    :: scanned < dealt ->
        s = scanned % SLOTS;
        if
        :: held[s] == TASKS
        :: held[s] < TASKS && slot[s] == READY -> task[held[s]] = INLINE
        :: else ->
            assert(slot[s] != DONE); /* a reply is not thrown away */
            end_task(held[s], ENDED)
#ifdef TWICE
            ; task[held[s]] = INLINE
#endif
        fi;
        held[s] = TASKS;
        scanned++
    :: else -> break
    od;
    scanned = 0;
    dealt = 0;
    s = 0;
    do
    :: s < SLOTS -> slot[s] = FREE; s++
    :: else -> break
    od;
    asleep = false;
    bell = false;
    dead = false;
    live = false
}

/* What it replied before it died comes first. */
inline has_replies(yes) {
    s = scanned;
    do
    :: s < dealt && slot[s % SLOTS] == SKIPPED -> s++
    :: else -> break
    od;
#ifdef BURY_FIRST
    yes = false;
#else
    yes = (s < dealt && slot[s % SLOTS] == DONE);
#endif
    s = 0
}

/* One look at everything, in one section of the mutex. */
inline round() {
    worked = false;
    lock();
    scan();
    if
    :: dead && !worked ->
        has_replies(later);
        if
        :: later -> worked = true /* they come first */
        :: else -> bury(); worked = true
        fi
    :: else
    fi;
    none_left(over);
    if
    :: over && !leave -> leave = true; ring_worker(); worked = true
    :: else
    fi;
    if
    :: !live && !over -> live = true; worked = true; run worker()
    :: else
    fi;
    deal();
    unlock()
}

active proctype collector() {
    byte t, s;
    bool worked, over, later;
    do
    :: round();
        if
        :: over && !live -> break
        :: worked
        :: else ->
            dozes = true;
#ifndef NO_RECHECK_HERE
            round();
#endif
            if
            :: worked || (over && !live)
            :: else -> atomic { event || dead -> event = false }
            fi;
            dozes = false
        fi
    od;
    assert(permits == 0)
}

/* At any moment. */
active proctype killer() {
    killed = true
}

/* Takes one back: for good, or to deal it again. */
active proctype canceller() {
    byte t, s;
    bool ok;
    lock();
    if
    :: t = 0
    :: t = TASKS - 1
    fi;
    if
    :: task[t] == INLINE -> end_task(t, CANCELLED)
    :: task[t] == DEALT ->
        s = place[t];
        revoke(s, ok);
        if
        :: ok ->
            held[s] = TASKS;
            if
            :: end_task(t, CANCELLED)
            :: task[t] = INLINE
            fi
        :: else
        fi
    :: else
    fi;
    unlock();
    kick()
}

/* `next` is its own, and dies with it. */
proctype worker() {
    byte next, me;
    mtype seen;
    {
    do
    ::
#ifdef BLIND_CLAIM
        atomic { seen = slot[next]; me = held[next] };
        if
        :: seen == READY -> slot[next] = RUNNING
        :: else
        fi;
#else
        atomic {
            seen = slot[next];
            me = held[next];
            if
            :: seen == READY -> slot[next] = RUNNING
            :: else
            fi
        };
#endif
        if
        :: seen == READY ->
            assert(me < TASKS && task[me] == DEALT && held[next] == me); /* it was not taken back */
            slot[next] = DONE;
            next = (next + 1) % SLOTS;
            kick()
        :: seen == REVOKED ->
            slot[next] = SKIPPED;
            next = (next + 1) % SLOTS;
            kick()
        :: else ->
            if
            :: leave -> break
            :: else
            fi;
            bell = false; /* the word is read: a ring after that is seen */
            asleep = true;
#ifndef NO_RECHECK
            if
            :: slot[next] == READY || slot[next] == REVOKED || leave
            :: else -> bell
            fi;
#else
            bell;
#endif
            asleep = false
        fi
    od
    } unless { atomic { killed && may_die -> may_die = false } };
    dead = true /* the pidfd tells, which wakes the collector in any case */
}
