/* canvas.c - a screen of cells in memory; see canvas.h. */
#include "canvas.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

#define EIGHTHS 8

static const wchar_t upwards[] = L" \u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588";
static const wchar_t upwards_ascii[] = L" ._-=+*##";

bool canvas_resize(cli_canvas *canvas, int rows, int columns)
{
    cell *cells = calloc((size_t)rows * (size_t)columns, sizeof *cells);
    if (!cells)
        return false;
    free(canvas->cells);
    canvas->cells = cells;
    canvas->rows = rows;
    canvas->columns = columns;
    canvas->utf8 = text_is_utf8();
    canvas_clear(canvas);
    return true;
}

void canvas_fini(cli_canvas *canvas)
{
    free(canvas->cells);
    canvas->cells = NULL;
}

void canvas_clear(cli_canvas *canvas)
{
    size_t n = (size_t)canvas->rows * (size_t)canvas->columns;
    for (size_t i = 0; i < n; i++)
        canvas->cells[i] = (cell){L' ', STYLE_PLAIN};
}

/* How many of `width` columns from x on there are; 0 outside. */
static int clip(const cli_canvas *canvas, int y, int x, int width)
{
    if (y < 0 || y >= canvas->rows || x < 0 || x >= canvas->columns)
        return 0;
    return width < canvas->columns - x ? width : canvas->columns - x;
}

static void set(cli_canvas *canvas, int y, int x, int style, wchar_t c)
{
    if (clip(canvas, y, x, 1) > 0)
        *canvas_at(canvas, y, x) = (cell){c, (uint8_t)style};
}

/* ---- text ----------------------------------------------------------------------------------- */

int canvas_put(cli_canvas *canvas, int y, int x, int width, int style, const char *text)
{
    int room = clip(canvas, y, x, width), used = 0;
    bool fits = (int)text_width(text) <= room;
    int end = fits ? room : room - 1; /* the last one is for the mark */
    for (wchar_t c; (c = text_next(&text));) {
        int n = wcwidth(c);
        if (used + n > end)
            break;
        set(canvas, y, x + used, style, c);
        if (n == 2)
            set(canvas, y, x + used + 1, style, 0);
        used += n;
    }
    if (!fits && room > 0)
        set(canvas, y, x + used++, style, canvas->utf8 ? L'\u2026' : L'~');
    return used;
}

void canvas_put_right(cli_canvas *canvas, int y, int x, int width, int style, const char *text)
{
    int room = width - (int)text_width(text);
    canvas_put(canvas, y, x + (room > 0 ? room : 0), room > 0 ? width - room : width, style, text);
}

/* How many bytes of text fit, up to a space if there is one. */
static size_t line_length(const char *text, int width)
{
    const char *at = text;
    size_t at_space = 0;
    int used = 0;
    while (*at) {
        if (*at == ' ')
            at_space = (size_t)(at - text);
        const char *before = at;
        used += wcwidth(text_next(&at));
        if (used > width)
            return at_space ? at_space : (size_t)(before - text);
    }
    return (size_t)(at - text);
}

int canvas_wrap(cli_canvas *canvas, int y, int x, int width, int lines, int style, const char *text)
{
    char line[1024];
    int n = 0;
    for (; n < lines && *text && width > 0; n++) {
        size_t length = line_length(text, width);
        if (n + 1 == lines || length == 0) {
            canvas_put(canvas, y + n, x, width, style, text);
            return n + 1;
        }
        length = length < sizeof line ? length : sizeof line - 1;
        memcpy(line, text, length);
        line[length] = '\0';
        canvas_put(canvas, y + n, x, width, style, line);
        text += length;
        text += strspn(text, " ");
    }
    return n;
}

void canvas_style(cli_canvas *canvas, int y, int x, int width, int style)
{
    int room = clip(canvas, y, x, width);
    for (int i = 0; i < room; i++)
        canvas_at(canvas, y, x + i)->style = (uint8_t)style;
}

void canvas_copy_rows(cli_canvas *canvas, int y, int rows, const cli_canvas *from, int first)
{
    int columns = from->columns < canvas->columns ? from->columns : canvas->columns;
    for (int i = 0; i < rows && first + i < from->rows && y + i < canvas->rows; i++)
        memcpy(canvas_at(canvas, y + i, 0), canvas_at(from, first + i, 0),
               (size_t)columns * sizeof(cell));
}

/* ---- pictures ------------------------------------------------------------------------------- */

/* Of `most` parts. */
static int parts_of(double share, int most)
{
    if (!(share > 0))
        return 0;
    int parts = share < 1 ? (int)lround(share * most) : most;
    return parts > 0 ? parts : 1; /* a little is not nothing */
}

void canvas_bar(cli_canvas *canvas, int y, int x, int width, int style, double share)
{
    int full = parts_of(share, width);
    wchar_t filled = canvas->utf8 ? L'\u25a0' : L'#', empty = canvas->utf8 ? L'\u00b7' : L'.';
    for (int i = 0; i < width; i++)
        set(canvas, y, x + i, i < full ? style : STYLE_DIM, i < full ? filled : empty);
}

void canvas_spark(cli_canvas *canvas, int y, int x, int width, int style, const double values[],
                  size_t count, double top)
{
    /* A little air above, or the rows of a list would run together. */
    canvas_chart(canvas, y, x, 1, width, style, values, count, top * EIGHTHS / (EIGHTHS - 1));
}

void canvas_chart(cli_canvas *canvas, int y, int x, int height, int width, int style,
                  const double values[], size_t count, double top)
{
    const wchar_t *glyphs = canvas->utf8 ? upwards : upwards_ascii;
    for (int i = 0; i < width && (size_t)i < count; i++) {
        double value = values[count - 1 - (size_t)i];
        int parts = top > 0 ? parts_of(value / top, height * EIGHTHS) : 0;
        for (int row = 0; row < height; row++) {
            int here = parts - (height - 1 - row) * EIGHTHS;
            int part = here < 0 ? 0 : here < EIGHTHS ? here : EIGHTHS;
            if (part > 0)
                set(canvas, y + row, x + width - 1 - i, style, glyphs[part]);
        }
    }
}

void canvas_rule(cli_canvas *canvas, int y, int x, int width, int style)
{
    for (int i = 0; i < width; i++)
        set(canvas, y, x + i, style, canvas->utf8 ? L'\u2500' : L'-');
}
