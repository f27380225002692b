/* park.pml - one thread sleeps, others wake it: no wake-up is lost, and nobody touches the sleeper's memory
 * when it is gone.  Mirrors src/base/park.c and the use of it that src/flow/waitq.h gives.
 *
 *   here                          there
 *   futex_wait, futex_wake        sleep_while, weir__futex_wake: the kernel compares the word and joins its
 *                                 line in one step; `queued` says that the thread is in it
 *   sleeper: again, sleep, ask    weir__park; the two changes of state in ask: weir__parker_ask
 *   sleeper: hinted               what waitq.h says of a hint: takes the mutex, serves itself or rearms
 *   sleeper: left                 weir__waitq_give_up after WEIR_ETIMEDOUT and WEIR_EINTR
 *   sleeper: join                 weir__waiter_join: weir__park_surely
 *   server                        weir__waitq_serve under the mutex, weir__wake_all after it: weir__unpark
 *   hinter                        weir__hint_at under the mutex; WEIR__HINT_AWAY: serves on the spot
 *
 * Claims: whoever waits ends (no invalid end state); what was put is got or still there, once; no touch of memory
 * that is gone.
 *
 * BROKEN NO_WAKE      an unpark that does not call the kernel
 * BROKEN NO_RECHECK   a kernel that puts to sleep without comparing the word
 * BROKEN NO_JOIN      who was served as its time was over does not wait for the wake-up
 * BROKEN LATE_STAMP   the time of the wake-up is written after the change of state
 * BROKEN BLIND_ASK    who comes back from its hook stores SLEEPING instead of exchanging it
 */
mtype = { EMPTY, SLEEPING, HINTED, AWAY, WOKEN, NOTHING, TIMEDOUT, INTERRUPTED };

mtype state = EMPTY; /* weir__parker.state */
bool queued;         /* in the kernel's line of that word */
bool waiting;        /* weir__waiter.waiting */
bool locked;         /* the owner's mutex */
bool gone;           /* the waiter's memory is its thread's again */
byte items, got, put;
byte timeouts, signals; /* in this run: none or one of each, so that nobody is saved by another one */

inline lock() { atomic { !locked -> locked = true } }
inline unlock() { locked = false }
inline touch() { assert(!gone) }
inline futex_wake() { queued = false }

inline futex_wait(err) {
    atomic {
#ifdef NO_RECHECK
        queued = true
#else
        queued = (state == SLEEPING)
#endif
    };
    if
    :: !queued -> err = NOTHING
    :: atomic { queued && timeouts > 0 -> timeouts--; queued = false; err = TIMEDOUT }
    :: atomic { queued && signals > 0 -> signals--; queued = false; err = INTERRUPTED }
    fi
}

inline exchange(from, to) { /* seen: what it was */
    atomic { seen = state; if :: state == from -> state = to :: else fi }
}

/* weir__unpark */
inline unpark() {
#ifndef LATE_STAMP
    touch();
#endif
    atomic { touch(); was = state; state = WOKEN };
#ifdef LATE_STAMP
    touch();
#endif
#ifndef NO_WAKE
    if
    :: was == SLEEPING -> futex_wake()
    :: else
    fi
#endif
}

proctype sleeper() {
    mtype seen, err;
    bool stop;
    lock();
    if
    :: items > 0 -> items--; got++; unlock(); goto done
    :: else -> waiting = true; unlock()
    fi;
again:
    exchange(EMPTY, SLEEPING);
    if
    :: seen == EMPTY || seen == SLEEPING
    :: seen == WOKEN -> goto served
    :: seen == HINTED -> goto hinted
    fi;
sleep:
    futex_wait(err);
    seen = state;
    if
    :: seen == WOKEN -> goto served
    :: seen == HINTED -> goto hinted
    :: else
    fi;
    if
    :: err == TIMEDOUT -> goto left
    :: err == INTERRUPTED -> goto ask
    :: else -> goto sleep
    fi;
ask:
    exchange(SLEEPING, AWAY);
    if
    :: seen != SLEEPING -> goto sleep
    :: else
    fi;
    if /* the hook */
    :: stop = true
    :: stop = false
    fi;
#ifdef BLIND_ASK
    seen = AWAY;
    state = SLEEPING;
#else
    exchange(AWAY, SLEEPING);
#endif
    if
    :: seen == AWAY && stop -> goto left
    :: else -> goto sleep
    fi;
hinted:
    lock();
    if
    :: waiting && items > 0 -> items--; got++; waiting = false; unlock(); goto done
    :: waiting && items == 0 -> state = EMPTY; unlock(); goto again
    :: !waiting -> unlock(); goto join
    fi;
left:
    lock();
    if
    :: waiting -> waiting = false; unlock(); goto done
    :: else -> unlock()
    fi;
join:
#ifdef NO_JOIN
    goto done;
#endif
    seen = state;
    do
    :: seen == WOKEN -> break
    :: seen == SLEEPING ->
        atomic { queued = (state == SLEEPING) };
        !queued;
        seen = state
    :: seen != WOKEN && seen != SLEEPING ->
        exchange(seen, SLEEPING);
        if
        :: seen != WOKEN -> seen = SLEEPING
        :: else
        fi
    od;
served:
    skip;
done:
    gone = true
}

/* Gives the item to whoever waits, else leaves it there. */
proctype server() {
    mtype was;
    lock();
    put++;
    if
    :: waiting -> waiting = false; got++; unlock(); unpark()
    :: else -> items++; unlock()
    fi
}

/* Leaves the item there, and hints at who waits. */
proctype hinter() {
    mtype was;
    lock();
    put++;
    items++;
    if
    :: waiting ->
        atomic {
            touch();
            was = state;
            if
            :: was == EMPTY || was == SLEEPING || was == WOKEN -> state = HINTED
            :: else
            fi
        };
        if
        :: was == AWAY -> items--; got++; waiting = false; unlock(); unpark()
        :: was == SLEEPING -> unlock(); futex_wake()
        :: else -> unlock()
        fi
    :: else -> unlock()
    fi
}

init {
    if
    :: timeouts = 1
    :: timeouts = 0
    fi;
    if
    :: signals = 1
    :: signals = 0
    fi;
    atomic { run sleeper(); run server(); run hinter() };
    _nr_pr == 1;
    assert(put == items + got && !locked)
}
