/* template.h - a command with places for the item: {} {.} {/} {//} {/.} {#} {%} {1} {name} {1/.} {name.}.
 *
 * Nothing that an item says is ever read as code: without a shell each argument is an argument; with one, the
 * script is the same for all items, and gets what the item says as its positional parameters.
 */
#ifndef WEIR_CLI_RUN_TEMPLATE_H
#define WEIR_CLI_RUN_TEMPLATE_H

#include "input.h"

typedef struct run_template_opts {
    char *const *command; /* up to a NULL; at least one */
    bool is_shell;        /* the words make a script of sh */
    const char *replace; /* this, and nothing else, is replaced by the item; NULL: the list above */
    run_format format;
    const run_item *header; /* names of columns; NULL: none */
} run_template_opts;

typedef struct run_template run_template;

/* NULL: `error` says what is wrong with it.  The command has to outlive it. */
run_template *run_template_create(const run_template_opts *opts, char *error, size_t size);
void run_template_destroy(run_template *t); /* NULL is fine */

/* The arguments for an item, one allocation: free(argv).  NULL: `error` says why it has none.  slot: from 1. */
char **run_template_fill(const run_template *t, const run_item *item, unsigned slot, char *error,
                         size_t size);

/* Whether which program runs depends on the item. */
bool run_template_is_program_open(const run_template *t);

#endif
