/* replay.c - runs files through a harness, where there is no libFuzzer: files, or directories of them. */
#include "fuzz.h"

#include <dirent.h>

static size_t runs;

static void replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    must(file && fseek(file, 0, SEEK_END) == 0);
    size_t n = (size_t)ftell(file);
    uint8_t *data = malloc(n + 1); /* n bytes and no more are the harness's: see the copy */
    must(data && fseek(file, 0, SEEK_SET) == 0 && fread(data, 1, n, file) == n);
    fclose(file);
    uint8_t *exact = malloc(n ? n : 1);
    must(exact);
    memcpy(exact, data, n);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    free(data);
    runs++;
}

static void replay(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) {
        replay_file(path);
        return;
    }
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        char below[4096];
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        if (entry->d_name[0] != '.')
            replay_file(below);
    }
    closedir(dir);
}

int main(int argc, char *argv[])
{
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++)
        if (argv[i][0] != '-') /* libFuzzer's options */
            replay(argv[i]);
    printf("%zu inputs replayed\n", runs);
    return 0;
}
