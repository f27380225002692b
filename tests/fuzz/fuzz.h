/* fuzz.h - what the fuzzers share: a harness is one function, LLVMFuzzerTestOneInput.
 *
 * Claim:      whatever the bytes are, the code under test does not crash, hang, leak, or read and write
 *             where it may not (AddressSanitizer and UBSan look on); what must() says holds.
 * Input:      eaten from the front.  What is not there reads as zero, so every input has a meaning.
 * Engines:    libFuzzer where clang is; replay.c, which runs files, where it is not.
 */
#ifndef WEIR_TESTS_FUZZ_H
#define WEIR_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Also where asserts are off. */
#define must(claim)                                                                                \
    do {                                                                                           \
        if (!(claim)) {                                                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #claim);                    \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

typedef struct fuzz {
    const uint8_t *at;
    size_t left;
} fuzz;

static inline uint64_t fuzz_number(fuzz *f, size_t bytes)
{
    uint64_t n = 0;
    for (; bytes > 0; bytes--) {
        n = n << 8 | (f->left ? *f->at : 0);
        if (f->left) {
            f->at++;
            f->left--;
        }
    }
    return n;
}

static inline uint8_t fuzz_byte(fuzz *f)
{
    return (uint8_t)fuzz_number(f, 1);
}

/* A number of any size: small ones are likely, and so are those at the edges. */
static inline uint64_t fuzz_any(fuzz *f)
{
    uint8_t how = fuzz_byte(f);
    switch (how % 8) {
    case 0: return fuzz_number(f, 8);
    case 1: return fuzz_number(f, 4);
    case 2: return UINT64_MAX - fuzz_byte(f);
    case 3: return UINT32_MAX - fuzz_byte(f);
    case 4: return UINT64_C(1) << how / 8 % 64;
    case 5: return fuzz_number(f, 2);
    default: return fuzz_byte(f);
    }
}

/* The next n bytes, or as many as there are. */
static inline const uint8_t *fuzz_take(fuzz *f, size_t n, size_t *ret_n)
{
    const uint8_t *at = f->at;
    *ret_n = n < f->left ? n : f->left;
    f->at += *ret_n;
    f->left -= *ret_n;
    return at;
}

/* All that is left, as a text that ends at its first zero: free(text).  (Of its own, so that a read
 * behind its end is found.) */
static inline char *fuzz_text(fuzz *f)
{
    char *text = malloc(f->left + 1);
    must(text);
    if (f->left)
        memcpy(text, f->at, f->left);
    text[f->left] = '\0';
    f->left = 0;
    return text;
}

/* Reads all of it: memory that is not there would end the process. */
static inline void fuzz_touch(const void *data, size_t n)
{
    volatile unsigned char sink = 0;
    for (size_t i = 0; i < n; i++)
        sink = (unsigned char)(sink ^ ((const unsigned char *)data)[i]);
}

/* A directory in the memory file system; removed, with the files in it, when the process ends. */
const char *fuzz_folder(void);

/* Writes a file there; NULL data removes it. */
void fuzz_write(const char *name, const void *data, size_t n);

#endif
