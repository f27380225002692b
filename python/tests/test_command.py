"""The command `weir`, and a program that knows nothing of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WEIR = Path(os.environ.get("WEIR_COMMAND", ROOT / "build/cli/weir"))

PROGRAM = """
import queue, random, sys
import weir; q = weir.Queue(10, name="jobs")

draw = random.Random(20)
put = got = refused = 0
for _ in range(10_000):
    try:
        if draw.random() < 0.6:
            q.put_nowait(1)
            put += 1
        else:
            q.get_nowait()
            got += 1
    except queue.Full:
        refused += 1
    except queue.Empty:
        pass
print(put, got, refused, q.qsize(), flush=True)
sys.stdin.read()
"""


def seen(*arguments: str, pages: Path) -> Any:
    done = subprocess.run(
        [WEIR, *arguments], capture_output=True, text=True, timeout=60,
        env=os.environ | {"WEIR_STATS_DIR": str(pages)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_ten_thousand_operations_are_counted_exactly_from_outside(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"WEIR_STATS_DIR": str(tmp_path)},
    )  # fmt: skip
    try:
        assert program.stdout
        put, got, refused, inside = map(int, program.stdout.readline().split())
        for arguments in (["top", "--once", "--json", "-d", "0.1"], ["stats", "--json"]):
            state = seen(*arguments, pages=tmp_path)
            (process,) = state["processes"]
            assert process["pid"] == program.pid
            (jobs,) = state["objects"]
            assert (jobs["kind"], jobs["name"], jobs["exact"]) == ("queue", "jobs", True)
            numbers = jobs["numbers"]
            counted = [numbers[name] for name in ("accepted", "delivered", "refused", "depth")]
            assert counted == [put, got, refused, inside]
            assert numbers["accepted"] == numbers["delivered"] + numbers["depth"]
            assert 0 <= numbers["depth"] <= numbers["capacity"] == 10
    finally:
        program.communicate()
    assert seen("stats", "--json", pages=tmp_path)["objects"] == []


# ---- weir export ------------------------------------------------------------------------------

CONNECTIONS = 64  # as in cli/export.c; one that is silent for 15 seconds is closed


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """That `weir export` listens at."""
    tmp_path.chmod(0o700)
    export = subprocess.Popen(
        [WEIR, "export", "--port", "0"], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"WEIR_STATS_DIR": str(tmp_path)},
    )  # fmt: skip
    assert export.stdout
    address = export.stdout.readline().split()[2]
    yield int(address.rstrip("/").rpartition(":")[2])
    export.send_signal(signal.SIGTERM)
    export.communicate(timeout=30)
    assert export.returncode == 0


@pytest.mark.slow
def test_export_answers_again_when_all_its_connections_have_timed_out(port: int) -> None:
    clients = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(CONNECTIONS)]
    for client in clients:
        assert client.recv(1) == b""  # it was closed
        client.close()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30) as answer:
        assert answer.read() == b"ok\n"
