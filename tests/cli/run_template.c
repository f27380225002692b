/* cli/run/template.h: what a command becomes for an item. */
#include "parts.h"

#include "run/template.h"

#include <sys/wait.h>

static run_item *item(const char *text, size_t n, const char *const columns[])
{
    run_item *made = calloc(1, sizeof *made + (n + 1) * sizeof *made->columns);
    *made = (run_item){.number = 7, .text = text, .length = strlen(text), .n_columns = n ? n : 1};
    for (size_t i = 0; i < n; i++)
        made->columns[i] = columns[i];
    if (n == 0)
        made->columns[0] = text;
    return made;
}

/* What the words become, joined by '|'; or what is wrong with them. */
static const char *filled(const run_template_opts *opts, const run_item *of)
{
    static char said[512];
    said[0] = '\0';
    run_template *t = run_template_create(opts, said, sizeof said);
    char **argv = t ? run_template_fill(t, of, 3, said, sizeof said) : NULL;
    for (size_t i = 0; argv && argv[i]; i++)
        snprintf(said + strlen(said), sizeof said - strlen(said), "%s%s", i ? "|" : "", argv[i]);
    free(argv);
    run_template_destroy(t);
    return said;
}

static const char *words_for(const char *text, char *const words[])
{
    run_item *of = item(text, 0, NULL);
    const char *said = filled(&(run_template_opts){.command = words}, of);
    free(of);
    return said;
}

#define WORDS(...) ((char *const *)(uintptr_t)(const char *const[]){__VA_ARGS__, NULL})

static void an_item_takes_the_place_of_braces_or_comes_last(void **state)
{
    (void)state;
    assert_string_equal(words_for("a b", WORDS("echo", "x{}y", "{}")), "echo|xa by|a b");
    assert_string_equal(words_for("a", WORDS("echo", "-n")), "echo|-n|a");
    assert_string_equal(words_for("run", WORDS("{}")), "run");
}

static void parts_of_a_path_are_cut_off(void **state)
{
    (void)state;
    assert_string_equal(words_for("d.x/f.tar.gz", WORDS("e", "{.}", "{/}", "{//}", "{/.}")),
                        "e|d.x/f.tar|f.tar.gz|d.x|f.tar");
    assert_string_equal(words_for("name", WORDS("e", "{.}", "{/}", "{//}", "{/.}")),
                        "e|name|name|.|name");
    assert_string_equal(words_for("/f", WORDS("e", "{//}", "{/}")), "e|/|f");
    assert_string_equal(words_for("d.d/f", WORDS("e", "{.}")), "e|d.d/f");
}

static void number_and_slot_have_places(void **state)
{
    (void)state;
    assert_string_equal(words_for("a", WORDS("e", "{#}-{%}", "{}")), "e|7-3|a");
}

static void other_braces_stay_as_they_are(void **state)
{
    (void)state;
    assert_string_equal(words_for("f", WORDS("awk", "{print $1}", "{a,b}", "{{.Name}}", "{1..5}")),
                        "awk|{print $1}|{a,b}|{{.Name}}|{1..5}|f");
    assert_string_equal(words_for("f", WORDS("e", "{", "}", "{}")), "e|{|}|f");
}

static void only_what_is_to_be_replaced_is(void **state)
{
    (void)state;
    run_item *of = item("a", 0, NULL);
    const run_template_opts opts = {.command = WORDS("e", "{}", "x@@y"), .replace = "@@"};
    assert_string_equal(filled(&opts, of), "e|{}|xay");
    free(of);
}

static void columns_are_found_by_number_and_name(void **state)
{
    (void)state;
    run_item *header = item("id,file", 2, (const char *const[]){"id", "file"});
    run_item *row = item("1,a/b.c", 2, (const char *const[]){"1", "a/b.c"});
    run_template_opts opts = {.format = RUN_CSV, .header = header};
    opts.command = WORDS("e", "{id}", "{2}", "{file/.}", "{2//}", "{}");
    assert_string_equal(filled(&opts, row), "e|1|a/b.c|b|a|1,a/b.c");
    opts.command = WORDS("e", "{flie}");
    assert_non_null(strstr(filled(&opts, row), "there is no such column in \"id,file\""));
    opts.command = WORDS("e", "{3}");
    assert_non_null(strstr(filled(&opts, row), "the header has 2 columns"));
    opts.header = NULL;
    assert_non_null(strstr(filled(&opts, row), "it has no column 3, only 2"));
    opts.command = WORDS("e", "{id}");
    assert_non_null(strstr(filled(&opts, row), "--header"));
    free(row);
    free(header);
}

static void a_line_is_one_column(void **state)
{
    (void)state;
    assert_string_equal(words_for("a", WORDS("e", "{1}")), "e|a");
    assert_non_null(strstr(words_for("a", WORDS("e", "{2}")), "--csv or --tsv"));
    assert_non_null(strstr(words_for("a", WORDS("e", "{0}")), "counted from 1"));
}

/* What a shell prints that is given the script. */
static void ask_shell(const char *script, const char *text, char *said, size_t size)
{
    char error[256], script_copy[256];
    snprintf(script_copy, sizeof script_copy, "%s", script);
    run_item *of = item(text, 0, NULL);
    const run_template_opts opts = {.command = WORDS(script_copy), .is_shell = true};
    run_template *t = run_template_create(&opts, error, sizeof error);
    assert_non_null(t);
    char **argv = run_template_fill(t, of, 1, error, sizeof error);
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fds[1], STDOUT_FILENO);
        execv(argv[0], argv);
        _exit(127);
    }
    close(fds[1]);
    ssize_t n = read(fds[0], said, size - 1);
    said[n > 0 ? n : 0] = '\0';
    close(fds[0]);
    waitpid(pid, NULL, 0);
    free(argv);
    run_template_destroy(t);
    free(of);
}

static void nothing_in_an_item_is_code_to_the_shell(void **state)
{
    (void)state;
    static const char *const scripts[] = {"printf '<%s>' {}",     "printf '<%s>' \"{}\"",
                                          "printf '<%s>' '{}'",   "printf '<%s>' a{}b",
                                          "printf '<%s>' 'a{}b'", "printf '<%s>'"};
    static const char *const evil[] = {"$(echo owned)",
                                       "`echo owned`",
                                       "'; echo owned; '",
                                       "\"; echo owned; \"",
                                       "a  b*c",
                                       "-n",
                                       "\\",
                                       "$HOME",
                                       "new\nline"};
    char said[256], wanted[256];
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
        for (size_t j = 0; j < sizeof evil / sizeof *evil; j++) {
            bool between = strstr(scripts[i], "a{}b") != NULL;
            snprintf(wanted, sizeof wanted, between ? "<a%sb>" : "<%s>", evil[j]);
            ask_shell(scripts[i], evil[j], said, sizeof said);
            assert_string_equal(said, wanted);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_item_takes_the_place_of_braces_or_comes_last),
        cmocka_unit_test(parts_of_a_path_are_cut_off),
        cmocka_unit_test(number_and_slot_have_places),
        cmocka_unit_test(other_braces_stay_as_they_are),
        cmocka_unit_test(only_what_is_to_be_replaced_is),
        cmocka_unit_test(columns_are_found_by_number_and_name),
        cmocka_unit_test(a_line_is_one_column),
        cmocka_unit_test(nothing_in_an_item_is_code_to_the_shell),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
