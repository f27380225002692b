/* canvas.h - a screen of cells in memory: what is drawn, apart from how it gets to a terminal.
 *
 * All drawing is clipped.  Where the terminal shows no UTF-8, blocks and lines become ASCII.
 */
#ifndef WEIR_CLI_CANVAS_H
#define WEIR_CLI_CANVAS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <wchar.h>

/* A colour, and what else: STYLE_BAD | STYLE_BOLD.  Nothing is told by colour alone. */
enum {
    STYLE_PLAIN,
    STYLE_GOOD, /* green */
    STYLE_WARN, /* yellow */
    STYLE_BAD,  /* red */
    STYLE_INFO, /* cyan */
    STYLE_FLOW, /* blue */
    STYLE_COLOURS,
    STYLE_COLOUR = 15,
    STYLE_BOLD = 16,
    STYLE_DIM = 32,
    STYLE_REVERSE = 64,
};

typedef struct cell {
    wchar_t c; /* 0: the right half of the one before */
    uint8_t style;
} cell;

typedef struct cli_canvas {
    int rows, columns;
    bool utf8;
    cell *cells;
} cli_canvas;

/* Empty.  false: no memory; it is as it was. */
bool canvas_resize(cli_canvas *canvas, int rows, int columns);
void canvas_fini(cli_canvas *canvas);
void canvas_clear(cli_canvas *canvas);

static inline cell *canvas_at(const cli_canvas *canvas, int y, int x)
{
    return &canvas->cells[(size_t)y * (size_t)canvas->columns + (size_t)x];
}

/* Text from (y, x) on, in at most `width` columns; what does not fit is marked.  Returns the columns used. */
int canvas_put(cli_canvas *canvas, int y, int x, int width, int style, const char *text);

/* The same, at the right end of the `width` columns. */
void canvas_put_right(cli_canvas *canvas, int y, int x, int width, int style, const char *text);

/* Text in as many as `lines` lines, broken at spaces.  Returns how many were used. */
int canvas_wrap(cli_canvas *canvas, int y, int x, int width, int lines, int style,
                const char *text);

/* Changes the look of what is there. */
void canvas_style(cli_canvas *canvas, int y, int x, int width, int style);

/* A bar, full at share 1. */
void canvas_bar(cli_canvas *canvas, int y, int x, int width, int style, double share);

/* The last values, one a column, the newest at the right; as high as `top` is full. */
void canvas_spark(cli_canvas *canvas, int y, int x, int width, int style, const double values[],
                  size_t count, double top);

/* The same, so many rows high. */
void canvas_chart(cli_canvas *canvas, int y, int x, int height, int width, int style,
                  const double values[], size_t count, double top);

/* The rows of another one, from `first` on. */
void canvas_copy_rows(cli_canvas *canvas, int y, int rows, const cli_canvas *from, int first);

/* A line across. */
void canvas_rule(cli_canvas *canvas, int y, int x, int width, int style);

#endif
