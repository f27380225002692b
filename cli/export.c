/* export.c - `weir export`: one HTTP endpoint for all programs of the host that use weir.
 *
 *   /             the status page, one file that asks for state.json
 *   /metrics      OpenMetrics, for Prometheus
 *   /state.json   all numbers, with ?history=1 also those of the last looks
 *   /healthz      ok
 *
 * Bound:    one thread, so many connections, and a look at the processes at most every LOOK_AGE, which all
 *           clients share; so is what was written of it: each text is made once for each look.
 * Trust:    it only reads, and only GET and HEAD.  Whoever can connect can read names and command lines.
 */
#include <errno.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "command.h"
#include "status_page.h"

#define LOOK_AGE    (500 * WEIR_MILLISECOND)
#define WINDOW      30 /* looks */
#define CONNECTIONS 64
#define IDLE_S      15 /* a connection that says nothing for so long is closed */

typedef enum text_id { TEXT_METRICS, TEXT_STATE, TEXT_HISTORY, TEXTS } text_id;

typedef struct exporter {
    weir_monitor *monitor;
    weir_time looked;                  /* 0: not yet */
    int result;                        /* of the last look */
    struct MHD_Response *texts[TEXTS]; /* of the last look, as far as they were asked for */
    struct MHD_Response *page, *healthy, *not_found, *not_allowed;
} exporter;

/* ---- texts ---------------------------------------------------------------------------------- */

typedef struct growing {
    char *bytes;
    size_t length, room;
} growing;

static int append(void *ctx, const char *text, size_t length)
{
    growing *g = ctx;
    if (g->room - g->length < length) {
        size_t room = 2 * g->room + length + 4096;
        char *bytes = realloc(g->bytes, room);
        if (!bytes)
            return WEIR_ENOMEM;
        g->bytes = bytes;
        g->room = room;
    }
    memcpy(g->bytes + g->length, text, length);
    g->length += length;
    return WEIR_OK;
}

static struct MHD_Response *with_headers(struct MHD_Response *response, const char *type)
{
    if (!response)
        return NULL;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    return response;
}

static struct MHD_Response *fixed(const void *text, size_t length, const char *type)
{
    return with_headers(
        MHD_create_response_from_buffer(length, (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT),
        type);
}

static struct MHD_Response *write_text(exporter *e, text_id id)
{
    growing g = {0};
    int rc = id == TEXT_METRICS
                 ? weir_monitor_write_openmetrics(e->monitor, append, &g)
                 : weir_monitor_write_json(e->monitor, id == TEXT_HISTORY, append, &g);
    if (rc < 0) {
        free(g.bytes);
        return NULL;
    }
    struct MHD_Response *response =
        MHD_create_response_from_buffer(g.length, g.bytes, MHD_RESPMEM_MUST_FREE);
    if (!response)
        free(g.bytes);
    return with_headers(response, id == TEXT_METRICS ? "application/openmetrics-text; "
                                                       "version=1.0.0; charset=utf-8"
                                                     : "application/json; charset=utf-8");
}

static void forget_texts(exporter *e)
{
    for (int i = 0; i < TEXTS; i++) {
        if (e->texts[i])
            MHD_destroy_response(e->texts[i]); /* clients that are being sent it keep it */
        e->texts[i] = NULL;
    }
}

/* As of a look that is recent enough; NULL: there is none to be had. */
static struct MHD_Response *current(exporter *e, text_id id)
{
    weir_time now = weir_now();
    if (!e->looked || now - e->looked >= LOOK_AGE) {
        forget_texts(e);
        e->result = weir_monitor_look(e->monitor);
        e->looked = now;
    }
    if (e->result >= 0 && !e->texts[id])
        e->texts[id] = write_text(e, id);
    return e->texts[id];
}

/* ---- requests ------------------------------------------------------------------------------- */

static enum MHD_Result answer_failure(struct MHD_Connection *connection, int result)
{
    char text[160];
    int n = snprintf(text, sizeof text, "weir: export: cannot look at the processes: %s\n",
                     weir_strerror(result < 0 ? result : WEIR_ENOMEM));
    struct MHD_Response *response = with_headers(
        MHD_create_response_from_buffer((size_t)n, text, MHD_RESPMEM_MUST_COPY), "text/plain");
    if (!response)
        return MHD_NO;
    enum MHD_Result sent = MHD_queue_response(connection, MHD_HTTP_SERVICE_UNAVAILABLE, response);
    MHD_destroy_response(response);
    return sent;
}

static enum MHD_Result answer_current(exporter *e, struct MHD_Connection *connection, text_id id)
{
    struct MHD_Response *response = current(e, id);
    if (!response)
        return answer_failure(connection, e->result);
    return MHD_queue_response(connection, MHD_HTTP_OK, response);
}

static bool wants_history(struct MHD_Connection *connection)
{
    const char *value = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "history");
    return value && strcmp(value, "1") == 0;
}

static enum MHD_Result answer(void *ctx, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_size, void **state)
{
    static char seen;
    exporter *e = ctx;
    (void)version, (void)upload;
    if (!*state) { /* the head is there; a body is not waited for */
        *state = &seen;
        return MHD_YES;
    }
    if (*upload_size) {
        *upload_size = 0; /* what somebody sends is dropped */
        return MHD_YES;
    }
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return MHD_queue_response(connection, MHD_HTTP_METHOD_NOT_ALLOWED, e->not_allowed);
    if (strcmp(url, "/metrics") == 0)
        return answer_current(e, connection, TEXT_METRICS);
    if (strcmp(url, "/state.json") == 0)
        return answer_current(e, connection, wants_history(connection) ? TEXT_HISTORY : TEXT_STATE);
    if (strcmp(url, "/") == 0)
        return MHD_queue_response(connection, MHD_HTTP_OK, e->page);
    if (strcmp(url, "/healthz") == 0)
        return MHD_queue_response(connection, MHD_HTTP_OK, e->healthy);
    return MHD_queue_response(connection, MHD_HTTP_NOT_FOUND, e->not_found);
}

static bool make_answers(exporter *e)
{
    static const char ok[] = "ok\n", none[] = "there are /, /metrics, /state.json and /healthz\n",
                      only[] = "only GET and HEAD\n";
    e->page = fixed(status_page, status_page_size, "text/html; charset=utf-8");
    e->healthy = fixed(ok, sizeof ok - 1, "text/plain");
    e->not_found = fixed(none, sizeof none - 1, "text/plain");
    e->not_allowed = fixed(only, sizeof only - 1, "text/plain");
    if (e->page) /* its own policy says the rest; this cannot be said there */
        MHD_add_response_header(e->page, "Content-Security-Policy", "frame-ancestors 'none'");
    if (e->not_allowed)
        MHD_add_response_header(e->not_allowed, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    return e->page && e->healthy && e->not_found && e->not_allowed;
}

static void fini(exporter *e)
{
    struct MHD_Response *answers[] = {e->page, e->healthy, e->not_found, e->not_allowed};
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        if (answers[i])
            MHD_destroy_response(answers[i]);
    }
    forget_texts(e);
    weir_monitor_destroy(e->monitor);
}

/* ---- listening ------------------------------------------------------------------------------ */

static int listen_at(const struct addrinfo *where)
{
    int on = 1, fd = socket(where->ai_family, where->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, where->ai_addr, where->ai_addrlen) == 0 && listen(fd, CONNECTIONS) == 0)
        return fd;
    int err = errno;
    close(fd);
    errno = err;
    return -1;
}

/* < 0: a complaint was made. */
static int open_socket(const char *address, int64_t port)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV},
                    *where = NULL;
    char service[8];
    snprintf(service, sizeof service, "%d", (int)port);
    int rc = getaddrinfo(address, service, &hints, &where);
    if (rc != 0) {
        complain("export", "--address: \"%s\" is no address of this host: %s", address,
                 gai_strerror(rc));
        return -1;
    }
    int fd = listen_at(where), err = errno;
    freeaddrinfo(where);
    if (fd < 0 && err == EADDRINUSE)
        complain("export", "port %d of %s is in use: say another --port, or 0 for any", (int)port,
                 address);
    else if (fd < 0)
        complain("export", "cannot listen at port %d of %s: %s", (int)port, address, strerror(err));
    return fd;
}

static int port_of(int fd)
{
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    if (getsockname(fd, (struct sockaddr *)&bound, &size) < 0)
        return 0;
    return ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                             : ((struct sockaddr_in *)&bound)->sin_port);
}

/* ---- serving -------------------------------------------------------------------------------- */

static volatile sig_atomic_t ended;

static void on_end(int signal)
{
    (void)signal;
    ended = 1;
}

/* Signals come only while it waits, so none is missed. */
static void hold_signals(sigset_t *ret_waiting_mask)
{
    struct sigaction action = {.sa_handler = on_end};
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, SIGINT);
    sigaddset(&held, SIGTERM);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_BLOCK, &held, ret_waiting_mask);
}

static unsigned connections_of(struct MHD_Daemon *daemon)
{
    return MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS)->num_connections;
}

/* At the limit it listens no longer, and it begins to again only at the start of a run.  So where a run has ended
 * connections there is another one: with nobody left to say anything, nothing would ever wake us. */
static void run_until_it_listens(struct MHD_Daemon *daemon)
{
    unsigned before;
    do {
        before = connections_of(daemon);
        MHD_run(daemon);
    } while (connections_of(daemon) < before);
}

static void serve(struct MHD_Daemon *daemon, const sigset_t *waiting_mask)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_EPOLL_FD);
    struct pollfd ready = {.fd = info->epoll_fd, .events = POLLIN};
    while (!ended) {
        MHD_UNSIGNED_LONG_LONG ms;
        bool has_timeout = MHD_get_timeout(daemon, &ms) == MHD_YES;
        struct timespec timeout = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
        if (ppoll(&ready, 1, has_timeout ? &timeout : NULL, waiting_mask) < 0 && errno != EINTR)
            break;
        run_until_it_listens(daemon);
    }
}

static int run_daemon(exporter *e, int fd, const char *address)
{
    sigset_t waiting_mask;
    hold_signals(&waiting_mask);
    struct MHD_Daemon *daemon =
        MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, answer, e, MHD_OPTION_LISTEN_SOCKET, fd,
                         MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS,
                         MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S, MHD_OPTION_END);
    if (!daemon) {
        close(fd);
        complain("export", "cannot serve: out of memory or of file descriptors");
        return EXIT_FAILURE;
    }
    bool is_v6 = strchr(address, ':');
    printf("weir: export: http://%s%s%s:%d/ (metrics at /metrics)\n", is_v6 ? "[" : "", address,
           is_v6 ? "]" : "", port_of(fd));
    bool is_told = flush_stdout("export");
    if (is_told)
        serve(daemon, &waiting_mask);
    MHD_stop_daemon(daemon); /* and closes fd */
    return is_told ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int run(int argc, char *argv[])
{
    int64_t port = -1, pid = 0, window = WINDOW;
    const char *address = "127.0.0.1";
    bool every_user = false;
    const option_row rows[] = {
        {'P', "port", "PORT", OPTION_NUMBER, &port, 0, 65535, "where; 0 takes a free one"},
        {'A', "address", "ADDRESS", OPTION_TEXT, &address, 0, 0,
         "of which interface (default 127.0.0.1: this host only)"},
        {'p', "pid", "PID", OPTION_NUMBER, &pid, 1, INT32_MAX,
         "only this process, and what descends from it"},
        {'w', "window", "LOOKS", OPTION_NUMBER, &window, 2, 1000,
         "percentiles, issues and charts are of so many (default 30)"},
        {'a', "all-users", NULL, OPTION_FLAG, &every_user, 0, 0,
         "of all users whose numbers can be read (root: all)"},
        OPTIONS_END,
    };
    int status = options_read(&command_export, rows, argc, argv);
    if (status != GO_ON)
        return status;
    if (port < 0) {
        complain("export", "which port? Say --port PORT, or --port 0 for a free one");
        return EXIT_USAGE;
    }
    exporter e = {.monitor = open_monitor("export", pid, (size_t)window, every_user)};
    if (!e.monitor)
        return EXIT_FAILURE;
    status = EXIT_FAILURE;
    if (!make_answers(&e)) {
        complain("export", "cannot serve: %s", weir_strerror(WEIR_ENOMEM));
    } else {
        int fd = open_socket(address, port);
        if (fd >= 0)
            status = run_daemon(&e, fd, address);
    }
    fini(&e);
    return status;
}

const cli_command command_export = {
    .name = "export",
    .summary = "one HTTP endpoint for the host: Prometheus metrics, a status page",
    .about = "Serves the numbers of all programs of this user that use weir, until it is stopped:\n"
             "/metrics for Prometheus, / for a browser, /state.json, /healthz.\n",
    .run = run,
};
