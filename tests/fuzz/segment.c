/* segment.c - the bytes of a spill's files, one kind after the other; names of files, too. */
#include "fuzz.h"

#include "model/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = {data, size};
    unsigned char head[WEIR__RECORD_HEAD] = {0}, again[WEIR__RECORD_HEAD];
    weir__record record = {0};
    uint64_t seq = 0;
    weir__ack ack;
    memcpy(head, data, size < sizeof head ? size : sizeof head);
    weir__segment_is_head(head, fuzz_any(&f));
    weir__record_kind kind = weir__record_look(head, &record);
    if (kind == WEIR__RECORD_END) { /* what is believed is what would have been written */
        weir__record_end(again, record.seq);
        must(memcmp(head, again, sizeof head) == 0);
    }
    weir__ack_read(head, seq, &ack);
    char *name = fuzz_text(&f), same[WEIR__SEGMENT_NAME];
    weir__segment_file file = weir__segment_parse_name(name, &seq);
    if (file != WEIR__FILE_OTHER) {
        weir__segment_name(same, seq, file);
        must(strcmp(name, same) == 0);
    }
    free(name);
    return 0;
}
