/* words.h - bytes that some read while another writes them: word by word, each of them relaxed.
 *
 * What puts the words of one version in order, and shows a reader that he was overtaken, is the caller's.
 */
#ifndef WEIR_BASE_WORDS_H
#define WEIR_BASE_WORDS_H

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

/* n words. */
static inline void weir__words_load(void *to, const _Atomic uint64_t *from, size_t n)
{
    unsigned char *at = to;
    for (size_t i = 0; i < n; i++) {
        uint64_t word = atomic_load_explicit(&from[i], memory_order_relaxed);
        memcpy(at + i * sizeof word, &word, sizeof word);
    }
}

static inline void weir__words_store(_Atomic uint64_t *to, const void *from, size_t n)
{
    const unsigned char *at = from;
    for (size_t i = 0; i < n; i++) {
        uint64_t word;
        memcpy(&word, at + i * sizeof word, sizeof word);
        atomic_store_explicit(&to[i], word, memory_order_relaxed);
    }
}

#endif
