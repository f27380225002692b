/* segment.h - the bytes of a spill's files: heads, records, acknowledgements, and their checks.
 *
 *     segment file   head, record, record, ..., end       named <first number, 16 hex digits>.seg
 *     its acks       entry, entry, ...                    the same name, .ack
 *
 * A record is a head (what follows, how much, which number, two checksums), its bytes, and zeros up to
 * a multiple of 8.  So whoever has lost his way finds the next one by looking at every eighth byte: a
 * head is believed if its own checksum is right, its bytes if theirs is.  The end says that there were
 * no more, and with its number how many.  Numbers are little-endian.
 *
 * Arithmetic on bytes; no file, no allocation.
 */
#ifndef WEIR_MODEL_SEGMENT_H
#define WEIR_MODEL_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WEIR__SEGMENT_HEAD 24 /* bytes, of a file */
#define WEIR__RECORD_HEAD  24 /* bytes, of a record or the end */
#define WEIR__ACK_ENTRY    12 /* bytes */
#define WEIR__RECORD_MAX   UINT32_MAX

/* CRC-32C (Castagnoli), as iSCSI has it (RFC 3720, appendix B.4).  crc: of what comes before, or 0. */
uint32_t weir__crc32c(uint32_t crc, const void *data, size_t n);

/* ---- files ---------------------------------------------------------------------------------- */

#define WEIR__SEGMENT_NAME 24 /* bytes, with the zero */

typedef enum weir__segment_file {
    WEIR__FILE_OTHER, /* not ours */
    WEIR__FILE_SEGMENT,
    WEIR__FILE_ACKS,
    WEIR__FILE_PASSING, /* a segment that does not outlive its process */
} weir__segment_file;

void weir__segment_name(char name[WEIR__SEGMENT_NAME], uint64_t first_seq, weir__segment_file kind);
weir__segment_file weir__segment_parse_name(const char *name, uint64_t *ret_first_seq);

void weir__segment_head(unsigned char head[WEIR__SEGMENT_HEAD], uint64_t first_seq);
bool weir__segment_is_head(const unsigned char head[WEIR__SEGMENT_HEAD], uint64_t first_seq);

/* ---- records -------------------------------------------------------------------------------- */

typedef struct weir__record {
    uint64_t seq; /* of the end: one past the last */
    uint32_t n;   /* bytes, without head and zeros */
    uint32_t crc; /* of them */
} weir__record;

typedef enum weir__record_kind {
    WEIR__RECORD_NONE, /* no head lies here */
    WEIR__RECORD,
    WEIR__RECORD_END,
} weir__record_kind;

/* How many zeros follow n bytes. */
static inline size_t weir__record_padding(size_t n)
{
    return (size_t)(-(uint64_t)n & 7);
}

/* What a record of n bytes takes in the file. */
static inline uint64_t weir__record_size(uint64_t n)
{
    return WEIR__RECORD_HEAD + n + weir__record_padding(n);
}

void weir__record_head(unsigned char head[WEIR__RECORD_HEAD], uint64_t seq, const void *data,
                       uint32_t n);
void weir__record_end(unsigned char head[WEIR__RECORD_HEAD], uint64_t next_seq);
weir__record_kind weir__record_look(const unsigned char head[WEIR__RECORD_HEAD],
                                    weir__record *ret_record);

/* ---- acknowledgements: the n records from the index-th of the segment on ---------------------- */

typedef struct weir__ack {
    uint32_t index, n;
} weir__ack;

void weir__ack_write(unsigned char entry[WEIR__ACK_ENTRY], uint64_t first_seq, weir__ack ack);
bool weir__ack_read(const unsigned char entry[WEIR__ACK_ENTRY], uint64_t first_seq,
                    weir__ack *ret_ack);

#endif
