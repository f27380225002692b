/* out.h - text on its way to a weir_write_fn, in pieces of 4 KiB; numbers as every locale's reader expects
 * them, and strings of strangers that cannot leave their quotes. */
#ifndef WEIR_OBSERVE_OUT_H
#define WEIR_OBSERVE_OUT_H

#include <weir/monitor.h>

typedef struct weir__out {
    weir_write_fn *write;
    void *ctx;
    int rc; /* what write said; < 0: it is not called again */
    size_t n;
    char text[4096];
} weir__out;

void weir__out_begin(weir__out *out, weir_write_fn *write, void *ctx);
int weir__out_end(weir__out *out); /* returns rc, or WEIR_OK */

void weir__out_text(weir__out *out, const char *text);
void weir__out_count(weir__out *out, uint64_t n);
void weir__out_signed(weir__out *out, int64_t n);
void weir__out_seconds(weir__out *out, uint64_t ns); /* exact */
void weir__out_double(weir__out *out, double value); /* finite; to a millionth */

/* Between quotes, of a label and of JSON.  What is not UTF-8 is replaced. */
void weir__out_label(weir__out *out, const char *text);
void weir__out_string(weir__out *out, const char *text);

#endif
