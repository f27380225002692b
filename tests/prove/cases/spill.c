/* spill.c - flow/spill: appends, reads and acknowledgements of several threads, and the disk that one waits for. */
#include "spill_support.h"

#include <string.h>

static weir_spill *spill;

/* Larger than half a segment: so each second append goes to the next one. */
typedef struct record {
    unsigned char bytes[180];
} record;

static int append(unsigned value, uint64_t *ret_seq)
{
    record r;
    memset(r.bytes, (int)value, sizeof r.bytes);
    return weir_spill_append(spill, &r, sizeof r, ret_seq);
}

/* The value of the next record; 0: there is none. */
static unsigned read_one(weir_record *into, uint64_t *ret_seq)
{
    int rc = weir_spill_read(spill, into, ret_seq);
    prove_claim(rc == WEIR_OK || rc == WEIR_EEMPTY);
    if (rc != WEIR_OK)
        return 0;
    prove_claim(into->size == sizeof(record));
    for (size_t i = 1; i < into->size; i++)
        prove_claim(into->data[i] == into->data[0]);
    return into->data[0];
}

static uint64_t numbers[16]; /* of what was appended; 0: it was not */

static void append_two_as(unsigned first)
{
    for (unsigned value = first; value < first + 2; value++) {
        uint64_t seq = 0;
        int rc = append(value, &seq);
        prove_claim(rc == WEIR_OK || rc == WEIR_ESYSTEM);
        numbers[value] = rc == WEIR_OK ? seq : 0;
        weir_spill_snapshot s = s_look(spill);
        prove_claim(s.bytes <= 512 * s.segments);
    }
    prove_claim(!numbers[first] || !numbers[first + 1] || numbers[first] < numbers[first + 1]);
}

static void append_two(void *arg)
{
    (void)arg;
    append_two_as(1);
}

static void append_two_others(void *arg)
{
    (void)arg;
    append_two_as(9);
}

static uint64_t was_read[16];

/* Reads and acknowledges what there is, in order. */
static void read_what_is_there(void *arg)
{
    (void)arg;
    weir_record into = {0};
    uint64_t seq = 0, last = 0;
    for (unsigned value; (value = read_one(&into, &seq)) > 0; last = seq) {
        prove_claim(value < 16 && seq > last && was_read[value] == 0);
        was_read[value] = seq;
        weir_spill_ack(spill, seq);
    }
    weir_record_free(&into);
}

static void begin(bool durable)
{
    memset(numbers, 0, sizeof numbers);
    memset(was_read, 0, sizeof was_read);
    s_make(&spill, durable);
}

/* What was appended, and nothing else, is read once. */
static void end(void)
{
    read_what_is_there(NULL);
    for (int i = 0; i < 16; i++)
        prove_same(was_read[i], numbers[i]);
    prove_same(s_look(spill).pending, 0);
    weir_spill_destroy(spill);
}

static void spill_log(void)
{
    begin(prove_pick(2));
    int t[] = {prove_spawn(append_two, NULL), prove_spawn(read_what_is_there, NULL)};
    append_two_others(NULL);
    s_look(spill);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    end();
}

PROVE_CASE(spill_log, "what two append one reads, once, in order, while files come and go");

/* Each in turn syncs for the others; nobody sleeps through the end of a round. */
static void spill_group_commit(void)
{
    begin(true);
    s_syncs_may_fail(prove_pick(2));
    int t[] = {prove_spawn(append_two, NULL), prove_spawn(append_two_others, NULL)};
    uint64_t seq = 0;
    int rc = append(5, &seq);
    prove_claim(rc == WEIR_OK || rc == WEIR_ESYSTEM);
    numbers[5] = rc == WEIR_OK ? seq : 0;
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    end();
}

PROVE_CASE(spill_group_commit,
           "who is told that it is on the disk has it there; who is not has nothing there");

/* While one syncs the others gather, and one of them syncs for all of them. */
static void append_first(void *arg)
{
    (void)arg;
    prove_claim(append(1, &numbers[1]) == WEIR_OK);
}

static void append_second(void *arg)
{
    (void)arg;
    prove_claim(append(2, &numbers[2]) == WEIR_OK);
}

static void append_third(void *arg)
{
    (void)arg;
    prove_claim(append(3, &numbers[3]) == WEIR_OK);
}

static void spill_round_of_several(void)
{
    begin(true);
    int t[] = {prove_spawn(append_first, NULL), prove_spawn(append_second, NULL),
               prove_spawn(append_third, NULL)};
    prove_claim(append(9, &numbers[9]) == WEIR_OK);
    for (int i = 0; i < 3; i++)
        prove_join(t[i]);
    end();
}

PROVE_CASE(spill_round_of_several, "all whose record a sync was for go on after it");

/* Two read: what one was handed out the other one is not. */
static void read_with_another(void *arg)
{
    read_what_is_there(arg);
}

static void spill_readers(void)
{
    begin(prove_pick(2));
    append_two_as(1);
    append_two_as(3);
    int t = prove_spawn(read_with_another, NULL);
    read_what_is_there(NULL);
    prove_join(t);
    end();
}

PROVE_CASE(spill_readers, "two who read share the records");

static void clear(void *arg)
{
    (void)arg;
    weir_spill_clear(spill);
}

static void spill_clear(void)
{
    begin(prove_pick(2));
    append_two_as(1);
    int t[] = {prove_spawn(clear, NULL), prove_spawn(append_two_others, NULL)};
    read_what_is_there(NULL);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    read_what_is_there(NULL);
    prove_same(s_look(spill).pending, 0);
    weir_spill_destroy(spill);
}

PROVE_CASE(spill_clear, "what is cleared is read by nobody, and all is accounted for");

static void close_it(void *arg)
{
    (void)arg;
    weir_spill_close(spill);
}

static void spill_closed_while_read(void)
{
    begin(false);
    append_two_as(1);
    int t[] = {prove_spawn(close_it, NULL), prove_spawn(read_what_is_there, NULL)};
    weir_spill_snapshot s = WEIR_SPILL_SNAPSHOT_INIT;
    prove_claim(weir_spill_get_snapshot(spill, &s) == WEIR_OK);
    weir_spill_ack(spill, 1);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    prove_claim(append(3, NULL) == WEIR_ECLOSED);
    weir_spill_destroy(spill);
}

PROVE_CASE(spill_closed_while_read, "a reader is not in the way of a close");

/* A kept record is not read; it is acknowledged by who keeps it. */
static void append_kept(void *arg)
{
    (void)arg;
    record r;
    uint64_t seq = 0;
    memset(&r, 7, sizeof r);
    prove_claim(weir_spill_append_kept(spill, &r, sizeof r, &seq) == WEIR_OK);
    weir_spill_ack(spill, seq);
}

static void spill_kept(void)
{
    begin(true);
    int t[] = {prove_spawn(append_kept, NULL), prove_spawn(append_two, NULL)};
    read_what_is_there(NULL);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    end();
}

PROVE_CASE(spill_kept, "what is kept is not read, and in nobody's way");

/* ---- the power is cut --------------------------------------------------------------------------- */

/* The log that is found then has `value`; of the others each once or not at all, and all whole. */
static void find_what_is_left(unsigned value)
{
    weir_spill_destroy(spill);
    s_open_what_is_left(&spill);
    memset(was_read, 0, sizeof was_read);
    read_what_is_there(NULL);
    prove_claim(was_read[value] > 0);
    prove_same(s_look(spill).pending, 0);
    weir_spill_destroy(spill);
}

static void append_first_and_cut(void *arg)
{
    append_first(arg);
    s_cut_power();
}

/* The others' records come before it, after it, into its segment and the next one, and into the middle of its sync. */
static void spill_power_is_cut(void)
{
    begin(true);
    int t = prove_spawn(append_first_and_cut, NULL);
    append_second(NULL);
    append_third(NULL);
    prove_join(t);
    find_what_is_left(1);
}

PROVE_CASE(spill_power_is_cut,
           "whose append has returned has its record when the power is cut, whoever else writes");

static void spill_power_is_cut_in_a_new_folder(void)
{
    memset(numbers, 0, sizeof numbers);
    s_make_with_folder(&spill);
    append_first_and_cut(NULL);
    find_what_is_left(1);
}

PROVE_CASE(spill_power_is_cut_in_a_new_folder,
           "the folder that a durable log has made is there, too, when the power is cut");

static void spill_power_is_cut_after_a_read(void)
{
    weir_record into = {0};
    uint64_t seq;
    begin(true);
    int t[] = {prove_spawn(append_first, NULL), prove_spawn(append_second, NULL)};
    unsigned value = read_one(&into, &seq);
    if (value > 0)
        s_cut_power();
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    weir_record_free(&into);
    if (value > 0)
        find_what_is_left(value);
    else
        weir_spill_destroy(spill);
}

PROVE_CASE(spill_power_is_cut_after_a_read, "what was handed out is there when the power is cut");
