/* ledger.c - a ledger that is no ledger, or a damaged one: it is refused with a sentence, or used as far as it
 * can be.  Patches of a ledger that was whole: where, and a few bytes; and its length. */
#include "fuzz.h"

#include <fcntl.h>
#include <unistd.h>

#include "run/ledger.h"

static unsigned char *whole;
static size_t length;
static char path[96];

static void say(void *ctx, const char *sentence)
{
    (void)ctx;
    fuzz_touch(sentence, strlen(sentence));
}

static run_ledger *open_ledger(bool resume)
{
    static const run_schedule_opts schedule = {.ok = {.status = {1}}};
    char error[300] = "";
    run_ledger_opts opts = {
        .path = path, .resume = resume, .command = "fuzz", .schedule = &schedule, .say = say};
    run_ledger *ledger = run_ledger_open(&opts, error, sizeof error);
    must(ledger || error[0]);
    return ledger;
}

/* Finds, starts and ends an item; each step may fail, and then says why. */
static void use(run_ledger *ledger, const char *text)
{
    run_item item = {.number = 1, .text = text, .length = strlen(text), .n_columns = 1};
    run_ledger_end end = {.is_done = true, .outcome = "exit 0"};
    uint64_t occurrence = 0;
    run_known known;
    bool ok = run_ledger_find(ledger, &item, &occurrence, &known) &&
              run_ledger_start(ledger, &item, occurrence, 1) && run_ledger_commit(ledger) &&
              run_ledger_ended(ledger, &item, occurrence, &end) && run_ledger_commit(ledger);
    if (!ok)
        fuzz_touch(run_ledger_error(ledger), strlen(run_ledger_error(ledger)));
}

static void remove_files(void)
{
    char beside[128];
    unlink(path);
    snprintf(beside, sizeof beside, "%s-wal", path);
    unlink(beside);
    snprintf(beside, sizeof beside, "%s-shm", path);
    unlink(beside);
}

static void make_whole(void)
{
    snprintf(path, sizeof path, "%s/ledger", fuzz_folder());
    run_ledger *ledger = open_ledger(false);
    must(ledger);
    use(ledger, "one");
    use(ledger, "two");
    run_ledger_close(ledger);
    FILE *file = fopen(path, "rb");
    must(file && fseek(file, 0, SEEK_END) == 0);
    length = (size_t)ftell(file);
    whole = malloc(length);
    must(whole && fseek(file, 0, SEEK_SET) == 0 && fread(whole, 1, length, file) == length);
    fclose(file);
    remove_files();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = {data, size};
    if (!whole)
        make_whole();
    unsigned char *bytes = malloc(length);
    must(bytes);
    memcpy(bytes, whole, length);
    for (unsigned patches = fuzz_byte(&f) % 16; patches > 0; patches--) {
        size_t n, at = fuzz_number(&f, 2) % length;
        const uint8_t *from = fuzz_take(&f, 1 + fuzz_byte(&f) % 8, &n);
        for (size_t i = 0; i < n && at + i < length; i++)
            bytes[at + i] = from[i];
    }
    size_t kept = fuzz_byte(&f) & 1 ? fuzz_number(&f, 2) % (length + 1) : length;
    fuzz_write("ledger", bytes, kept);
    free(bytes);
    run_ledger *ledger = open_ledger(true);
    if (ledger) {
        use(ledger, "one");
        use(ledger, "new");
        run_ledger_close(ledger);
    }
    remove_files();
    return 0;
}
