/* close.pml - a queue that is closed while putters and getters wait: everybody is released, who gets "closed" has
 * left nothing inside, and what was accepted is got or still there.  Mirrors src/flow/queue.c.
 *
 *   here                      there
 *   enter, leave              enter, leave: both mutexes, and the wake-ups after they are released
 *   served                    weir__waitq_serve, weir__waiter_park: see park.pml
 *   serve_putters             serve_putters: an item for each, as long as there is room
 *   serve_getters             serve_getters
 *   putter: the long way      weir_queue_put: decide under the mutexes, else come into line there
 *   putter: the short way     put_short: only its own mutex; who waits is hinted at, and serves the line
 *   getter                    weir_queue_get
 *   closer                    weir_queue_close: serve_all of both lines with WEIR_ECLOSED
 *
 * The short way is open only while nobody stands in the putters' line and the queue is not closed (is_short,
 * which changes under both mutexes).
 *
 * BROKEN NO_WAKE_PUTTERS  close forgets the putters
 * BROKEN NO_WAKE_GETTERS  close forgets the getters
 * BROKEN NO_RECHECK       who finds nothing comes into line in a section of its own, without looking again
 * BROKEN NO_HINT          the short way does not look for a getter that waits
 * BROKEN CLOSE_FIRST      who finds the queue closed does not look whether something is inside
 */
#define PUTTERS  2
#define GETTERS  2
#define CAPACITY 1

mtype = { NOT_YET, OK, CLOSED };

bool locked_put, locked_get; /* the mutexes of the two sides */
bool closed, is_short = true;
byte inside, accepted, delivered, refused, told;
bool waits_put[PUTTERS], waits_get[GETTERS]; /* in line; the lower number came first, or it does not matter */
mtype served_put[PUTTERS] = NOT_YET, served_get[GETTERS] = NOT_YET;
bool hinted;                                 /* a getter that waits has been told to look */

inline lock_put() { atomic { !locked_put -> locked_put = true } }
inline lock_get() { atomic { !locked_get -> locked_get = true } }
inline enter() { lock_put(); lock_get() }

/* Under both: as far as there is something for each. */
inline serve_lines() {
    d_step {
        i = 0;
        do
        :: i < GETTERS && waits_get[i] && inside > 0 ->
            inside--;
            delivered++;
            waits_get[i] = false;
            served_get[i] = OK;
            i++
        :: i < GETTERS && !(waits_get[i] && inside > 0) -> i++
        :: i == GETTERS -> break
        od;
        i = 0;
        do
        :: i < PUTTERS && waits_put[i] && inside < CAPACITY && !closed ->
            inside++;
            accepted++;
            waits_put[i] = false;
            served_put[i] = OK;
            i++
        :: i < PUTTERS && !(waits_put[i] && inside < CAPACITY && !closed) -> i++
        :: i == PUTTERS -> break
        od;
        i = 0
    }
}

inline leave() {
    serve_lines();
    serve_lines(); /* an item that came in may be for a getter */
    is_short = !closed && !waits_put[0] && !waits_put[1];
    locked_get = false;
    locked_put = false
}

proctype putter(byte me) {
    byte i;
    /* the short way */
    lock_put();
    if
    :: is_short && inside < CAPACITY ->
        inside++;
        accepted++;
#ifndef NO_HINT
        hinted = true; /* who waits, now or from now on, looks */
#endif
        locked_put = false;
        goto done
    :: else -> locked_put = false
    fi;
    enter();
    if
    :: closed -> refused++; leave(); goto done
    :: !closed && inside < CAPACITY -> inside++; accepted++; leave(); goto done
    :: else
    fi;
#ifdef NO_RECHECK
    leave();
    enter();
#endif
    waits_put[me] = true;
    leave();
    served_put[me] != NOT_YET;
    if
    :: served_put[me] == CLOSED -> refused++
    :: else
    fi;
done:
    skip
}

proctype getter(byte me) {
    byte i;
    enter();
#ifdef CLOSE_FIRST
    if
    :: closed -> assert(inside == 0); told++; leave(); goto done
    :: else
    fi;
#endif
    if
    :: inside > 0 -> inside--; delivered++; leave(); goto done
    :: inside == 0 && closed -> told++; leave(); goto done
    :: else
    fi;
#ifdef NO_RECHECK
    leave();
    enter();
#endif
    waits_get[me] = true;
    leave();
sleep:
    if
    :: served_get[me] != NOT_YET
    :: hinted && served_get[me] == NOT_YET -> hinted = false; enter(); leave(); goto sleep
    fi;
    if
    :: served_get[me] == CLOSED -> told++
    :: else
    fi;
done:
    skip
}

proctype closer() {
    byte i;
    if
    :: skip /* at any moment */
    :: skip; timeout; /* when all others wait or have ended: nobody may wait for what is there */
        assert(inside == 0 || !(waits_get[0] || waits_get[1]));
        assert(inside == CAPACITY || !(waits_put[0] || waits_put[1]))
    fi;
    enter();
    closed = true;
    serve_lines();
    i = 0;
    do
    :: i < PUTTERS ->
#ifndef NO_WAKE_PUTTERS
        if
        :: waits_put[i] -> waits_put[i] = false; served_put[i] = CLOSED
        :: else
        fi;
#endif
        i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < GETTERS ->
#ifndef NO_WAKE_GETTERS
        if
        :: waits_get[i] -> assert(inside == 0); waits_get[i] = false; served_get[i] = CLOSED
        :: else
        fi;
#endif
        i++
    :: else -> break
    od;
    leave()
}

init {
    atomic { run putter(0); run putter(1); run getter(0); run getter(1); run closer() };
    _nr_pr == 1;
    assert(accepted == delivered + inside);
    assert(accepted + refused == PUTTERS && delivered + told == GETTERS);
    assert(told == 0 || inside == 0 || accepted > 0)
}
