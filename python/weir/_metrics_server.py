"""`weir.serve_metrics()`: metrics, numbers as JSON and the status page, over HTTP.

Bound:    one thread that accepts, and at most CONNECTIONS that answer.  When all of them are
          taken, the connection that has been there longest is closed as soon as it has been there
          for PATIENCE seconds; until then the next ones wait in the kernel's line.  So clients that
          are slow, or say nothing, cost a fixed number of threads, and do not keep others out.
Waiting:  in the kernel only; nothing polls.  Numbers are looked at when somebody asks for them.
Fork:     the server is the parent's: a child closes what it has inherited of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from weir import _weir
from weir._observe import METRICS_CONTENT_TYPE, Looker, Processes, check_processes

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["MetricsServer", "serve_metrics"]

CONNECTIONS = 8
PATIENCE = 1.0  # seconds
TIMEOUT = 10.0  # seconds that a client may say nothing, or take nothing
REQUESTS_WAITING = 64  # in the kernel's line

PROMETHEUS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


# ---- what is told -------------------------------------------------------------------------------


def to_prometheus(openmetrics: str) -> str:
    """OpenMetrics as the text format of Prometheus, version 0.0.4.

    There counters are called as their samples are, units and the end are not told, info and state
    sets are gauges.
    """
    lines = []
    kinds: dict[str, str] = {}
    for line in openmetrics.rstrip("\n").split("\n"):  # names may hold other ends of lines
        if not line.startswith("# "):
            lines.append(line)
            continue
        word, _, rest = line[2:].partition(" ")
        if word not in ("TYPE", "HELP"):
            continue
        name, _, text = rest.partition(" ")
        if word == "TYPE":
            kinds[name] = text
            text = {"info": "gauge", "stateset": "gauge", "unknown": "untyped"}.get(text, text)
        else:
            text = text.replace(r"\"", '"')
        suffix = {"counter": "_total", "info": "_info"}.get(kinds.get(name, ""), "")
        lines.append(f"# {word} {name}{suffix} {text}")
    return "".join(line + "\n" for line in lines)


def prefers_openmetrics(accept: str) -> bool:
    """Whether an Accept header asks for OpenMetrics, rather than for any text."""
    weights = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.lower().split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        if kind in weights and re.fullmatch(r"\d(\.\d*)?", weight):
            weights[kind] = max(weights[kind], float(weight))
    openmetrics, plain = weights.values()
    return openmetrics > 0 and openmetrics >= plain


def _status_page() -> bytes:
    return Path(__file__).with_name("status.html").read_bytes()


# ---- one connection -----------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    """One request and its answer, HTTP/1.0: a connection is closed behind it."""

    server_version = f"weir/{_weir.__version__}"
    sys_version = ""
    timeout = TIMEOUT
    server: Any  # the MetricsServer

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        answer = {
            "/": self._page,
            "/metrics": self._metrics,
            "/state.json": self._state,
            "/healthz": self._health,
        }.get(url.path)
        if answer is None:
            text = f"There is no {url.path} here, but /, /metrics, /state.json and /healthz.\n"
            self._send(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", text.encode())
            return
        try:
            content_type, body = answer(url.query)
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            text = f"The numbers cannot be read: {error}\n"
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", text.encode())
            return
        self._send(HTTPStatus.OK, content_type, body)

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self.send_error(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD are possible here")

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse

    def _page(self, _query: str) -> tuple[str, bytes]:
        return "text/html; charset=utf-8", _status_page()

    def _metrics(self, _query: str) -> tuple[str, bytes]:
        text = self.server._metrics.look().openmetrics()
        if prefers_openmetrics(self.headers.get("Accept", "")):
            return METRICS_CONTENT_TYPE, text
        return PROMETHEUS_CONTENT_TYPE, to_prometheus(text.decode()).encode()

    def _state(self, query: str) -> tuple[str, bytes]:
        history = parse_qs(query).get("history", ["0"])[-1] not in ("0", "")
        return "application/json", self.server._state.look().json(history)

    def _health(self, _query: str) -> tuple[str, bytes]:
        return "text/plain; charset=utf-8", b"ok\n"

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: a scrape is no news."""


class _Connections:
    """At most `limit` at a time; see above."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._since: dict[socket.socket, float] = {}  # oldest first
        self._is_closed = False

    def add(self, connection: socket.socket) -> bool:
        """Waits for a place; False: closed."""
        with self._changed:
            while len(self._since) >= self._limit and not self._is_closed:
                oldest = next(iter(self._since))
                left = self._since[oldest] + PATIENCE - time.monotonic()
                if left <= 0:
                    _cut(oldest)  # its thread ends, and takes it out
                self._changed.wait(left if left > 0 else None)
            if not self._is_closed:
                self._since[connection] = time.monotonic()
            return not self._is_closed

    def remove(self, connection: socket.socket) -> None:
        with self._changed:
            del self._since[connection]
            self._changed.notify_all()

    def close(self, patience: float) -> None:
        """Nobody comes in any more; cuts off those who are still there in `patience` seconds."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._since, patience)
            for connection in self._since:
                _cut(connection)
            self._changed.wait_for(lambda: not self._since, patience)

    def abandon(self) -> None:
        """In a forked child, which has none of the threads."""
        for connection in self._since:
            connection.close()


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the client was quicker
        connection.shutdown(socket.SHUT_RDWR)


# ---- the server ---------------------------------------------------------------------------------


class MetricsServer:
    """What `weir.serve_metrics()` returns.  It ends with close(), `with`, or the program."""

    def __init__(self, port: int, addr: str, processes: Processes) -> None:
        self._metrics = Looker(processes, 10)
        self._state = Looker(processes, 120, 0.5)
        self._metrics.look()  # what cannot be looked at is told now, not to who scrapes
        self._pid = os.getpid()
        self._addr = addr
        self._connections = _Connections(CONNECTIONS)
        self._listener = _listen(addr, port)
        self._port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, name="weir-metrics", daemon=True)
        _servers.add(self)
        self._thread.start()

    @property
    def port(self) -> int:
        """That it listens at; with port=0 the one that was free."""
        return self._port

    @property
    def url(self) -> str:
        """Of the status page; metrics are at /metrics below it."""
        wildcard = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
        host = wildcard.get(self._addr, self._addr)
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}/"

    def close(self) -> None:
        """Listen no longer; who is being answered has a second to take it.  Twice is fine."""
        if os.getpid() != self._pid:
            return  # a forked child has closed what it had of it
        with self._lock:
            if self._listener.fileno() >= 0:
                _cut(self._listener)  # accept() returns
                self._connections.close(PATIENCE)
                self._thread.join()
                self._listener.close()
        _servers.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<weir.MetricsServer {self.url}>"

    def _accept(self) -> None:
        while True:
            try:
                connection, client = self._listener.accept()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    if error.errno == errno.ECONNABORTED:
                        continue
                    return  # closed
                time.sleep(PATIENCE)  # until there are descriptors again
                continue
            if not self._connections.add(connection):
                connection.close()
                return
            self._start(self._answer, connection, client)

    def _start(self, answer: Callable[..., None], connection: socket.socket, client: Any) -> None:
        thread = threading.Thread(
            target=answer, args=(connection, client), name="weir-metrics-client", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads
            self._connections.remove(connection)
            connection.close()

    def _answer(self, connection: socket.socket, client: Any) -> None:
        try:
            _Handler(connection, client, self)  # type: ignore[arg-type]  # it asks nothing of a server
        except OSError:
            pass  # the client went, or was too slow
        finally:
            self._connections.remove(connection)
            connection.close()

    def _forked(self) -> None:
        self._listener.close()
        self._connections.abandon()


_servers: set[MetricsServer] = set()  # that listen


def _in_forked_child() -> None:
    for server in list(_servers):
        server._forked()
    _servers.clear()


os.register_at_fork(after_in_child=_in_forked_child)


def _listen(addr: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((addr, port))
        listener.listen(REQUESTS_WAITING)
    except OSError as error:
        listener.close()
        raise _explained(error, addr, port) from None
    return listener


def _explained(error: OSError, addr: str, port: int) -> OSError:
    if error.errno == errno.EADDRINUSE:
        text = f"port {port} of {addr} is in use: say another one, or 0 for one that is free"
    elif error.errno == errno.EACCES:
        text = f"port {port} is for root: say one from 1024 on, or 0 for one that is free"
    elif error.errno == errno.EADDRNOTAVAIL:
        text = f"{addr!r} is no address of this machine: say '127.0.0.1', or '' for all it has"
    else:  # a host name that nobody knows, and the like
        text = f"cannot listen at port {port} of {addr!r}: {error.strerror or error}"
    return OSError(error.errno, f"weir.serve_metrics: {text}")


def serve_metrics(
    port: int = 0, addr: str = "127.0.0.1", *, processes: Processes = "self"
) -> MetricsServer:
    """Answer http://addr:port/ with a status page, /metrics for Prometheus, /state.json,
    /healthz.

    port       0 (default): any that is free, see `.port`; 1 to 65535
    addr       "127.0.0.1" (default): this machine only; "" or "0.0.0.0": whoever reaches it.  Names
               of objects and arguments of processes are told, and nobody is asked who he is.
    processes  as in `weir.stats()`

        with weir.serve_metrics(9187) as server:
            print(server.url)

    /metrics is OpenMetrics or, for who does not ask for that, the text format of Prometheus;
    /state.json is what weir_json(7) says, with ?history=1 the last looks too; /healthz is "ok",
    without a look at anything.  In daemon threads, for eight clients at a time, however many there
    are and however slow they be.

    In a server with several processes, each of which calls this, only one can have the port: say
    processes="family" there, or use `weir.prometheus.Collector`.

    Raises OSError (the port is in use, or cannot be had), ValueError, TypeError; RuntimeError (the
    environment switches stats pages off).
    """
    if not isinstance(port, int) or isinstance(port, bool):
        raise TypeError(f"'port' must be an int, not {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"'port' must be from 0 to 65535, not {port!r}")
    if not isinstance(addr, str):
        raise TypeError(f"'addr' must be a str, not {addr!r}")
    check_processes(processes)
    return MetricsServer(port, addr, processes)
