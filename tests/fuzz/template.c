/* template.c - a command with places for the item, and an item: the words of the command are lines, the
 * first byte says how it is read.  What an item says is never code: the script does not depend on it. */
#include "fuzz.h"

#include "run/template.h"

#define WORDS 32

static const run_format formats[] = {RUN_LINES, RUN_ZERO, RUN_CSV, RUN_TSV};

typedef struct item_of {
    uint64_t number;
    const char *text;
    size_t length;
    size_t n_columns;
    const char *columns[3];
} item_of;

static const item_of first = {1, "a/b.c", 5, 3, {"x/y.z", "", "."}};
static const item_of second = {2, "$(id) `x` '\" ; \\", 16, 3, {"'", "\"", "$1"}};
static const item_of header = {0, "name,b,c", 8, 3, {"name", "b", "name"}};

static char **fill(const run_template *t, const item_of *item)
{
    char error[200];
    char **argv =
        run_template_fill(t, (const run_item *)(const void *)item, 3, error, sizeof error);
    for (char **arg = argv; arg && *arg; arg++)
        fuzz_touch(*arg, strlen(*arg));
    return argv;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = {data, size};
    uint8_t how = fuzz_byte(&f);
    char *text = fuzz_text(&f), *words[WORDS + 1] = {NULL}, *save = NULL, error[200];
    size_t n = 0;
    for (char *at = strtok_r(text, "\n", &save); at && n < WORDS; at = strtok_r(NULL, "\n", &save))
        words[n++] = at;
    run_template_opts opts = {
        .command = words,
        .format = formats[how % 4],
        .is_shell = how & 4,
        .replace = how & 8 ? "{}" : NULL,
        .header = how & 16 ? (const run_item *)(const void *)&header : NULL,
    };
    run_template *t = n > 0 ? run_template_create(&opts, error, sizeof error) : NULL;
    if (t) {
        char **a = fill(t, &first), **b = fill(t, &second);
        must(!opts.is_shell || !a || !b || strcmp(a[2], b[2]) == 0);
        free(a);
        free(b);
        run_template_destroy(t);
    }
    free(text);
    return 0;
}
