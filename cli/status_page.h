/* status_page.h - status.html, as it is built in. */
#ifndef WEIR_CLI_STATUS_PAGE_H
#define WEIR_CLI_STATUS_PAGE_H

#include <stddef.h>

extern const unsigned char status_page[];
extern const size_t status_page_size;

#endif
