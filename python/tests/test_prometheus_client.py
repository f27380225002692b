"""weir.prometheus.Collector: in a registry, and in servers with many worker processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import output_of, run_python, wait_until
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.openmetrics import exposition
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

import weir


def test_a_registry_tells_the_numbers_of_this_process() -> None:
    queue: weir.Queue[int] = weir.Queue(4, name="collected", overflow="drop_oldest")
    registry = CollectorRegistry()
    registry.register(weir.prometheus.Collector(processes="self"))
    for number in range(6):
        queue.put(number)
    labels = {"pid": str(os.getpid()), "kind": "queue", "name": "collected"}
    labels["object"] = str(weir.stats()["collected"].id)
    assert registry.get_sample_value("weir_accepted_total", labels) == 6
    assert registry.get_sample_value("weir_depth", labels) == 4
    assert registry.get_sample_value("weir_dropped_total", labels | {"reason": "oldest"}) == 2
    for text in (generate_latest(registry), exposition.generate_latest(registry)):
        assert b"weir_accepted_total{" in text


def told(families: Iterable[Metric], own: set[str]) -> list[tuple[Any, ...]]:
    """Of these objects, and of the process: other objects of it may change meanwhile."""
    changing = "weir_process_resident_bytes"
    all_samples = [
        (f.name, f.type, f.documentation, s.name, s.labels, s.value)
        for f in families
        for s in f.samples
        if (s.labels["name"] in own if "name" in s.labels else f.name != changing)
    ]
    assert len(all_samples) > len(own)
    return all_samples


def test_what_it_collects_is_what_the_clients_own_parser_reads() -> None:
    names = ['quo"te', "back\\slash", "\\n", "a} 1", "naïve\u2028", 'x="y",z="'] * 2
    queues = [weir.Queue[int](2, name=name) for name in names]
    queues[0].put(1)
    queues[0].get()
    pool = weir.ThreadPoolExecutor(1, name="pool of the parser")
    own = {*names, "pool of the parser"}
    collected = list(weir.prometheus.Collector(processes="self").collect())
    parsed = list(openmetrics_parser.text_string_to_metric_families(weir.metrics()))
    for ours, theirs in zip(told(collected, own), told(parsed, own), strict=True):
        assert ours == theirs
    pool.shutdown()


def test_a_second_collector_in_a_registry_is_refused() -> None:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(weir.prometheus.Collector())
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(weir.prometheus.Collector())


def test_without_prometheus_client_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['prometheus_client.core'] = None\n"
    done = run_python(code + "import weir.prometheus; weir.prometheus.Collector()")
    assert (
        "ImportError: weir.prometheus.Collector needs prometheus_client: pip install" in done.stderr
    )
    assert output_of("import weir.prometheus, sys; print('prometheus_client' in sys.modules)") == (
        "False\n"
    )


def test_a_collector_made_before_a_fork_is_right_behind_it() -> None:
    code = """
        import os, time, weir
        from prometheus_client import CollectorRegistry, Metric, generate_latest
        registry = CollectorRegistry()
        registry.register(weir.prometheus.Collector(processes="self"))
        generate_latest(registry)
        before = weir.Queue(3, name="before")
        pid = os.fork()
        if not pid:
            after = weir.Queue(3, name="after")
            for _ in range(50):
                text = generate_latest(registry).decode()
                if "after" in text and "before" not in text:
                    os._exit(0)
                time.sleep(0.1)
            os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    assert output_of(code) == "0\n"


# ---- servers with workers ---------------------------------------------------------------------

APP = """
    import os

    import weir
    from prometheus_client import CollectorRegistry, Metric, generate_latest

    registry = CollectorRegistry()
    registry.register(weir.prometheus.Collector())
    queue = None

    def answer(path):
        global queue
        if queue is None:  # a queue of each worker's own
            queue = weir.Queue(1000, name="requests", overflow="drop_oldest")
        queue.put(path)
        return generate_latest(registry) if path == "/metrics" else str(os.getpid()).encode()

    def wsgi(environ, start_response):
        body = answer(environ["PATH_INFO"])
        start_response("200 OK", [("Content-Type", "text/plain"), ("Connection", "close")])
        return [body]

    async def asgi(scope, receive, send):
        assert scope["type"] == "http"
        body = answer(scope["path"])
        headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def ask(port: int, path: str = "/") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        body: bytes = answer.read()
        return body.decode()


@contextmanager
def serving(folder: Path, *command: str) -> Iterator[int]:
    """A server of three workers; its port."""
    (folder / "app.py").write_text(textwrap.dedent(APP))
    port = free_port()
    arguments = [part.format(port=port) for part in command]
    # A shell in between: another program, at which the family ends.
    server = subprocess.Popen(
        ["/bin/sh", "-c", '"$@" & trap "kill $!" TERM; wait $!; wait $!', "sh", *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield port
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)


def workers_of(port: int) -> set[str]:
    """Asks until three workers have answered."""
    pids: set[str] = set()

    def three_have_answered() -> bool:
        try:
            pids.add(ask(port))
        except OSError:
            time.sleep(0.05)
        return len(pids) == 3

    wait_until(three_have_answered, 60)
    return pids


def accepted(text: str) -> dict[str, float]:
    """What the queue of each worker has taken; fails where a series is there twice."""
    seen: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "weir_accepted_total" and sample.labels["name"] == "requests":
                assert sample.labels["pid"] not in seen
                seen[sample.labels["pid"]] = sample.value
    return seen


GUNICORN = (sys.executable, "-m", "gunicorn", "-w", "3", "-b", "127.0.0.1:{port}")
SERVERS = {
    "gunicorn": (*GUNICORN, "app:wsgi"),
    "gunicorn, preloaded": (*GUNICORN, "--preload", "app:wsgi"),
    "uvicorn": (sys.executable, "-m", "uvicorn", "--workers", "3", "--port", "{port}", "app:asgi"),
}


@pytest.mark.parametrize("server", SERVERS)
def test_whichever_worker_answers_tells_of_all_and_no_counter_goes_back(
    server: str, tmp_path: Path
) -> None:
    mine: weir.Queue[int] = weir.Queue(1, name="not of the family")
    with serving(tmp_path, *SERVERS[server]) as port:
        pids = workers_of(port)
        last: dict[str, float] = defaultdict(float)
        for _ in range(30):
            text = ask(port, "/metrics")
            told = accepted(text)
            assert set(told) == pids
            assert all(value >= last[pid] for pid, value in told.items())
            last.update(told)
        assert sum(last.values()) >= 30
        assert "not of the family" not in text and mine.empty()

        victim = pids.pop()
        os.kill(int(victim), signal.SIGKILL)  # it takes its series along

        def others_tell() -> bool:
            try:
                told = set(accepted(ask(port, "/metrics")))
            except OSError:  # it was asked when it died
                return False
            return victim not in told and pids <= told

        wait_until(others_tell, 60)
