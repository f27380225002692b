/* parts.h - what the tests of the command's parts share. */
#ifndef WEIR_TESTS_CLI_PARTS_H
#define WEIR_TESTS_CLI_PARTS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#endif
