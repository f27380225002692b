/* terminal.c - canvas to terminal, terminal to keys: all of ncurses is here; see top.h.
 *
 * Signals:  they are let through only while a key is waited for, so none can come in the middle of drawing, and
 *           none is missed.  SIGINT, SIGTERM and SIGHUP end the wait, SIGTSTP (Ctrl-Z) stops the process.
 *           ncurses has a handler for a new size; its own one for SIGTSTP would lose those that come while it
 *           draws.
 */
#include "command.h"
#include "top.h"

#define NCURSES_WIDECHAR 1
#include <curses.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <term.h>
#include <time.h>
#include <unistd.h>

#undef columns /* of term.h */

static SCREEN *screen;
static bool has_colour;
static sigset_t waiting_mask; /* while a key is waited for */
static volatile sig_atomic_t ended, stopped;

static void on_end(int signal)
{
    (void)signal;
    ended = 1;
}

static void on_stop(int signal)
{
    (void)signal;
    stopped = 1;
}

/* Before ncurses begins: it leaves alone what has a handler. */
static void hold_stop(void)
{
    struct sigaction action = {.sa_handler = on_stop};
    sigaction(SIGTSTP, &action, NULL);
}

static void hold_signals(void)
{
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_end};
    sigset_t held;
    sigemptyset(&held);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        sigaction(ends[i], &action, NULL);
        sigaddset(&held, ends[i]);
    }
    sigaddset(&held, SIGWINCH);
    sigaddset(&held, SIGTSTP);
    sigprocmask(SIG_BLOCK, &held, &waiting_mask);
}

/* ---- opening and closing -------------------------------------------------------------------- */

static const char *why_not(void)
{
    const char *term = getenv("TERM");
    int known;
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        return "this is not a terminal";
    if (!term || !*term)
        return "TERM is not set, so what the terminal can do is not known";
    if (setupterm(NULL, STDOUT_FILENO, &known) != OK)
        return "the terminal that TERM names is unknown";
    bool can = cursor_address && clear_screen;
    del_curterm(cur_term); /* newterm makes its own */
    return can ? NULL : "the terminal that TERM names cannot place the cursor";
}

static void begin_colours(bool may_colour)
{
    const char *refused = getenv("NO_COLOR");
    has_colour = may_colour && !(refused && *refused) && has_colors() && start_color() == OK;
    if (!has_colour)
        return;
    use_default_colors();
    init_pair(STYLE_GOOD, COLOR_GREEN, -1);
    init_pair(STYLE_WARN, COLOR_YELLOW, -1);
    init_pair(STYLE_BAD, COLOR_RED, -1);
    init_pair(STYLE_INFO, COLOR_CYAN, -1);
    init_pair(STYLE_FLOW, COLOR_BLUE, -1);
}

bool terminal_open(bool may_colour)
{
    const char *reason = why_not();
    hold_stop();
    if (!reason && !(screen = newterm(NULL, stdout, stdin)))
        reason = "the terminal cannot be used";
    if (reason) {
        complain("top", "%s: weir top --once prints the same as text", reason);
        return false;
    }
    hold_signals();
    set_escdelay(25); /* ms: Esc alone is a key here */
    cbreak();
    noecho();
    nonl();
    keypad(stdscr, TRUE);
    nodelay(stdscr, TRUE);
    curs_set(0);
    begin_colours(may_colour);
    return true;
}

void terminal_close(void)
{
    if (!screen)
        return;
    endwin();
    delscreen(screen);
    screen = NULL;
    sigprocmask(SIG_SETMASK, &waiting_mask, NULL);
}

void terminal_size(int *ret_rows, int *ret_columns)
{
    getmaxyx(stdscr, *ret_rows, *ret_columns);
}

/* ---- showing -------------------------------------------------------------------------------- */

static attr_t attributes_of(uint8_t style)
{
    attr_t attributes = A_NORMAL;
    if (style & STYLE_BOLD)
        attributes |= A_BOLD;
    if (style & STYLE_DIM)
        attributes |= has_colour ? A_DIM : A_NORMAL;
    if (style & STYLE_REVERSE)
        attributes |= A_REVERSE;
    return attributes;
}

/* The cells from x on that look the same; returns where they end. */
static int show_run(const cli_canvas *canvas, int y, int x)
{
    wchar_t text[512];
    uint8_t style = canvas_at(canvas, y, x)->style;
    int n = 0, end = x;
    for (; end < canvas->columns && n < 511 && canvas_at(canvas, y, end)->style == style; end++) {
        wchar_t c = canvas_at(canvas, y, end)->c;
        if (c)
            text[n++] = c;
    }
    attr_set(attributes_of(style), has_colour ? (short)(style & STYLE_COLOUR) : 0, NULL);
    mvaddnwstr(y, x, text, n);
    return end;
}

void terminal_show(const cli_canvas *canvas)
{
    for (int y = 0; y < canvas->rows; y++) {
        for (int x = 0; x < canvas->columns;)
            x = show_run(canvas, y, x);
    }
    refresh();
}

/* ---- keys ----------------------------------------------------------------------------------- */

static int key_of(int code)
{
    switch (code) {
    case KEY_UP: return KEY_IS_UP;
    case KEY_DOWN: return KEY_IS_DOWN;
    case KEY_LEFT: return KEY_IS_LEFT;
    case KEY_RIGHT: return KEY_IS_RIGHT;
    case KEY_PPAGE: return KEY_IS_PAGE_UP;
    case KEY_NPAGE: return KEY_IS_PAGE_DOWN;
    case KEY_HOME: return KEY_IS_HOME;
    case KEY_END: return KEY_IS_END;
    case KEY_ENTER: return KEY_IS_ENTER;
    case KEY_BACKSPACE: return KEY_IS_BACKSPACE;
    case KEY_RESIZE: return KEY_IS_RESIZE;
    default: return KEY_IS_OTHER;
    }
}

static int key_of_character(wint_t c)
{
    switch (c) {
    case '\r':
    case '\n': return KEY_IS_ENTER;
    case 27: return KEY_IS_ESCAPE;
    case 8:
    case 127: return KEY_IS_BACKSPACE;
    default: return (int)c;
    }
}

/* A key that is there already, or TERMINAL_TIME. */
static int read_key(void)
{
    wint_t c;
    switch (get_wch(&c)) {
    case OK: return key_of_character(c);
    case KEY_CODE_YES: return key_of((int)c);
    default: return TERMINAL_TIME;
    }
}

/* Whether nobody will write to the terminal any more: poll says that there is something, but there is not. */
static bool is_hung_up(const struct pollfd *ready)
{
    int bytes = 0;
    if (ready->revents & (POLLHUP | POLLERR | POLLNVAL))
        return true;
    return (ready->revents & POLLIN) && ioctl(STDIN_FILENO, FIONREAD, &bytes) == 0 && bytes == 0;
}

/* Leaves the terminal to others, until somebody says SIGCONT. */
static void stop(void)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    struct winsize size;
    sigset_t held;
    stopped = 0;
    endwin();
    sigaction(SIGTSTP, &action, NULL);
    sigprocmask(SIG_SETMASK, &waiting_mask, &held);
    kill(getpid(), SIGTSTP); /* here it stands */
    sigprocmask(SIG_SETMASK, &held, NULL);
    hold_stop();
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0)
        resizeterm(size.ws_row, size.ws_col);
    clearok(stdscr, TRUE); /* others have written on it */
}

int terminal_key(int64_t until)
{
    struct pollfd ready = {.fd = STDIN_FILENO, .events = POLLIN};
    int key = read_key(); /* ncurses may have read more than one */
    while (key == TERMINAL_TIME && !ended) {
        int64_t left = until - weir_now();
        if (left <= 0)
            return TERMINAL_TIME;
        struct timespec timeout = {left / WEIR_SECOND, left % WEIR_SECOND};
        int n = ppoll(&ready, 1, &timeout, &waiting_mask);
        if (n < 0 && errno != EINTR)
            return TERMINAL_END;
        if (stopped) {
            stop();
            return KEY_IS_RESIZE;
        }
        bool is_gone = n > 0 && is_hung_up(&ready);
        key = read_key();
        if (is_gone && key == TERMINAL_TIME)
            return TERMINAL_END;
    }
    return ended ? TERMINAL_END : key;
}
