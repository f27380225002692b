/* text.c - what programs call their objects, and items say, on its way to a terminal: no byte of it may control
 * the terminal, and nothing is read behind its end. */
#include "fuzz.h"

#include "text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = {data, size};
    size_t width = fuzz_byte(&f) % 80, n = f.left;
    char *text = fuzz_text(&f);
    const char *at = text;
    size_t characters = 0;
    while (text_next(&at))
        characters++;
    must(at == text + strlen(text) && characters <= n);
    if (strlen(text) > width)
        must(text_cut(text, width) <= width);
    text_width(text);
    text_plain(text, strlen(text), '?');
    for (size_t i = 0; text[i]; i++)
        must((unsigned char)text[i] >= ' ' && text[i] != 0x7f);
    free(text);
    return 0;
}
