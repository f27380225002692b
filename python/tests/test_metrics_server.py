"""weir.serve_metrics(): what it answers, to whom, and that nobody can make it large."""

from __future__ import annotations

import contextlib
import gc
import http.client
import json
import os
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from conftest import InThread, output_of, run_python, wait_until
from prometheus_client import parser as prometheus_parser
from prometheus_client.openmetrics import parser as openmetrics_parser

import weir
from weir import _metrics_server
from weir._metrics_server import CONNECTIONS, prefers_openmetrics, to_prometheus

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
# As a Prometheus server sends it.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.fixture
def server() -> Iterator[weir.MetricsServer]:
    with weir.serve_metrics() as server:
        yield server


def get(
    server: weir.MetricsServer, path: str, headers: dict[str, str] | None = None
) -> tuple[str, str]:
    """Content type and body."""
    request = urllib.request.Request(server.url + path, headers=headers or {})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


# ---- what it answers --------------------------------------------------------------------------


def test_a_scrape_is_open_metrics_for_who_asks_for_it(server: weir.MetricsServer) -> None:
    queue: weir.Queue[int] = weir.Queue(7, name="served")
    queue.put(1)
    for headers in (OPENMETRICS, {"Accept": PROMETHEUS}):
        content_type, text = get(server, "metrics", headers)
        assert content_type == weir.METRICS_CONTENT_TYPE
        families = {f.name: f for f in openmetrics_parser.text_string_to_metric_families(text)}
        assert families["weir_accepted"].type == "counter"
        told = [s.value for s in families["weir_depth"].samples if s.labels["name"] == "served"]
        assert told == [1]


def test_a_scrape_is_the_text_format_of_prometheus_for_others(server: weir.MetricsServer) -> None:
    queue: weir.Queue[int] = weir.Queue(7, name='ser"ved')
    queue.put(1)
    for headers in (None, {"Accept": "text/plain"}, {"Accept": "*/*"}):
        content_type, text = get(server, "metrics", headers)
        assert content_type == "text/plain; version=0.0.4; charset=utf-8"
        assert "# EOF" not in text and "# UNIT" not in text
        assert "# TYPE weir_accepted_total counter\n" in text
        families = {f.name: f for f in prometheus_parser.text_string_to_metric_families(text)}
        assert families["weir_wait_seconds"].type == "histogram"
        told = [s.value for s in families["weir_accepted"].samples if s.labels["name"] == 'ser"ved']
        assert told == [1]


def test_both_formats_tell_the_same() -> None:
    queue: weir.Queue[int] = weir.Queue(7, name='both\u2028\x85"\\ ')
    queue.put(1)
    queue.get()
    text = weir.metrics()

    def samples(families: object) -> set[tuple[object, ...]]:
        return {
            (s.name, *sorted(s.labels.items()), s.value)
            for family in families  # type: ignore[attr-defined]
            for s in family.samples
        }

    plain = samples(prometheus_parser.text_string_to_metric_families(to_prometheus(text)))
    assert plain == samples(openmetrics_parser.text_string_to_metric_families(text))


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/html", False),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", False),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; Version=1.0.0; Q=0.9, text/plain;q=0.5", True),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.9", False),
        ("application/openmetrics-text;q=nonsense", False),
        (PROMETHEUS, True),
    ],
)
def test_the_accept_header_decides(accept: str, wanted: bool) -> None:
    assert prefers_openmetrics(accept) is wanted


def test_the_state_is_json_with_its_history_for_who_asks(server: weir.MetricsServer) -> None:
    queue: weir.Queue[int] = weir.Queue(7, name="state")
    content_type, text = get(server, "state.json")
    assert content_type == "application/json"
    plain = next(o for o in json.loads(text)["objects"] if o["name"] == "state")
    assert plain["numbers"]["capacity"] == 7 and "history" not in plain
    _, text = get(server, "state.json?history=1")
    told = next(o for o in json.loads(text)["objects"] if o["name"] == "state")
    assert told["history"]["depth"] == [0] * len(told["history"]["at"]) != [] and queue.empty()


def test_health_is_said_in_a_word(server: weir.MetricsServer) -> None:
    assert get(server, "healthz") == ("text/plain; charset=utf-8", "ok\n")


def test_the_page_is_whole_and_asks_nobody_else(server: weir.MetricsServer) -> None:
    content_type, text = get(server, "")
    assert content_type == "text/html; charset=utf-8"
    assert text.lstrip().lower().startswith("<!doctype html>") and "state.json" in text
    addresses = set(re.findall(r"\bhttps?://[^\s\"'<>]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}


def test_head_is_get_without_the_body(server: weir.MetricsServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("HEAD", "/")
    answer = connection.getresponse()
    assert answer.status == 200
    assert int(answer.headers["Content-Length"]) > 100
    assert answer.read() == b""
    connection.close()


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        (
            "GET",
            "/nothing",
            404,
            "There is no /nothing here, but /, /metrics, /state.json and /healthz",
        ),
        ("GET", "/../../etc/passwd", 404, "There is no /../../etc/passwd here"),
        ("POST", "/metrics", 405, "Only GET and HEAD are possible here"),
        ("BREW", "/metrics", 501, "BREW"),
    ],
)
def test_what_there_is_not_is_said(
    server: weir.MetricsServer, method: str, path: str, status: int, said: str
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, path)
    answer = connection.getresponse()
    assert answer.status == status
    assert said in answer.read().decode()
    connection.close()


def test_nonsense_is_refused_and_the_next_one_is_served(server: weir.MetricsServer) -> None:
    for nonsense in (
        b"\r\n",
        b"\0" * 100 + b"\r\n\r\n",
        b"GET " + b"x" * 100_000,
        b"GET / HTTP/9.9\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.port), 30) as client:
            with contextlib.suppress(OSError):  # it does not read all of that
                client.sendall(nonsense)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
    assert "weir_processes" in get(server, "metrics")[1]


# ---- beginning and end ------------------------------------------------------------------------


def test_a_port_in_use_is_said_to_be() -> None:
    with weir.serve_metrics() as first:
        with pytest.raises(
            OSError, match=rf"port {first.port} of 127.0.0.1 is in use: say another"
        ):
            weir.serve_metrics(first.port)


def test_an_address_of_another_machine_is_said_to_be_one() -> None:
    with pytest.raises(OSError, match=r"'192\.0\.2\.1' is no address of this machine"):
        weir.serve_metrics(addr="192.0.2.1")


@pytest.mark.parametrize("port", [-1, 65536, True, "80", None, 1.0])
def test_a_port_is_checked(port: object) -> None:
    with pytest.raises((TypeError, ValueError), match="'port' must be"):
        weir.serve_metrics(port)  # type: ignore[arg-type]


def test_a_closed_server_gives_its_port_and_its_threads_back() -> None:
    before = threading.active_count()
    server = weir.serve_metrics()
    assert "weir_processes" in get(server, "metrics")[1]
    server.close()
    server.close()
    wait_until(lambda: threading.active_count() == before)
    with weir.serve_metrics(server.port) as again:
        assert again.port == server.port
    with pytest.raises(urllib.error.URLError):
        get(server, "metrics")


def test_it_listens_on_ipv6_where_there_is_any() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        with pytest.raises(OSError, match=r"weir\.serve_metrics"):
            weir.serve_metrics(addr="::1")
        return
    with weir.serve_metrics(addr="::1") as server:
        assert server.url == f"http://[::1]:{server.port}/"
        assert "weir_processes" in get(server, "metrics")[1]


def test_a_server_that_nobody_holds_goes_on_and_does_not_keep_the_program() -> None:
    code = """
        import gc, urllib.request, weir
        url = weir.serve_metrics().url
        gc.collect()
        print(b"weir_processes" in urllib.request.urlopen(url + "metrics").read())
    """
    assert output_of(code) == "True\n"


def test_a_forked_child_does_not_hold_the_port() -> None:
    code = """
        import os, socket, urllib.request, weir
        server = weir.serve_metrics()
        url = server.url + "metrics"
        assert urllib.request.urlopen(url).read()
        told, tell = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(tell)
            server.close()  # nothing to do
            os.read(told, 1)  # until the parent has tried
            with weir.serve_metrics() as mine:  # of its own
                ok = b"weir_processes" in urllib.request.urlopen(mine.url + "metrics").read()
            os._exit(0 if ok else 1)
        assert urllib.request.urlopen(url).read()
        server.close()
        try:
            socket.create_connection(("127.0.0.1", server.port))
            print("somebody listens")
        except ConnectionRefusedError:
            print("nobody listens")
        os.close(tell)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    assert output_of(code) == "nobody listens\n0\n"


def test_where_pages_are_switched_off_it_says_so_at_once() -> None:
    done = run_python(
        "import os; os.environ['WEIR_STATS_DIR'] = ''; import weir; weir.serve_metrics()"
    )
    assert "RuntimeError" in done.stderr and "WEIR_STATS_DIR switches" in done.stderr


# ---- bounds -----------------------------------------------------------------------------------


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_fifty_slow_clients_cost_no_more_than_eight_and_keep_nobody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_metrics_server, "PATIENCE", 0.2)
    threads, files = threading.active_count(), descriptors()
    server = weir.serve_metrics()
    clients = [socket.create_connection(("127.0.0.1", server.port), 60) for _ in range(50)]
    try:
        for client in clients:
            client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")  # and never the rest
        most = 0
        scrape = InThread(get, server, "metrics")
        deadline = time.monotonic() + 60
        while not scrape.is_done and time.monotonic() < deadline:
            most = max(most, len(server._connections._since))
            # Who accepts, the scrape's own, and a predecessor of each may still be ending.
            assert threading.active_count() <= threads + 2 + 2 * CONNECTIONS
            assert descriptors() - files <= 2 * 50 + 2 * CONNECTIONS + 8
            time.sleep(0.01)
        assert "weir_processes" in scrape.result()[1]
        assert 1 < most <= CONNECTIONS
    finally:
        for client in clients:
            client.close()
        server.close()
    gc.collect()
    wait_until(lambda: threading.active_count() == threads and descriptors() <= files)


def test_clients_that_do_not_read_are_cut_off_when_it_closes() -> None:
    queues = [weir.Queue[int](3, name=f"many {n}") for n in range(200)]  # a megabyte of text
    server = weir.serve_metrics()
    clients = []
    for _ in range(CONNECTIONS):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        clients.append(client)
    closing = InThread(server.close)
    closing.result(30)
    for client in clients:
        client.close()
    assert queues


def test_many_threads_may_scrape_at_once(server: weir.MetricsServer) -> None:
    queue: weir.Queue[int] = weir.Queue(7, name="crowd")
    done: list[str] = []

    def scrape() -> None:
        for path in ("metrics", "state.json?history=1") * 5:
            done.append(get(server, path)[1])

    threads = [threading.Thread(target=scrape) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 120 and all('"crowd"' in text for text in done) and queue.empty()
