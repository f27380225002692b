"""The command `weir`, and a program that knows nothing of it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from terminal import Terminal

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


def told_of_nobody(pages: Path) -> str:
    done = subprocess.run(
        [WEIR, "stats"], capture_output=True, text=True, timeout=60, check=True,
        env=os.environ | {"WEIR_STATS_DIR": str(pages)},
    )  # fmt: skip
    return done.stderr.partition(f"no process shows anything in {pages}: ")[2]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look at, and give, such a folder")
def test_a_folder_of_somebody_else_is_said_to_be_one(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert told_of_nobody(tmp_path).startswith("start a program")
    os.chown(tmp_path, 65534, 65534)
    assert told_of_nobody(tmp_path).startswith("it belongs to somebody else")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_said_to_be_one(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert told_of_nobody(tmp_path) == "it cannot be written to\n"


MANY = """
import sys
import weir
queues = [weir.Queue(3) for _ in range(1024 + 6)]
print("ready", flush=True)
sys.stdin.read()
"""


def test_objects_that_found_no_record_are_said_wherever_the_others_are(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    environment = {"WEIR_STATS_DIR": str(tmp_path)}

    def printed(*arguments: str) -> list[str]:
        done = subprocess.run(
            [WEIR, *arguments], capture_output=True, text=True, timeout=60, check=True,
            env=os.environ | environment,
        )  # fmt: skip
        return done.stdout.splitlines()

    with subprocess.Popen(
        [sys.executable, "-c", MANY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | environment,
    ) as program:  # fmt: skip
        assert program.stdout and program.stdout.readline() == "ready\n"
        said = f"{program.pid}: 6 objects found no record, and are not shown"
        assert printed("top", "--once", "-d", "0.1")[-1] == said
        assert printed("stats")[-1] == "  and 6 objects without a record"
        with Terminal([WEIR, "top", "-d", "0.2"], WEIR_STATS_DIR=str(tmp_path)) as terminal:
            terminal.shows("1024 objects + 6 without a record", "  6 objects without a record")
        program.communicate()


FLOW = """
import time, weir

def numbers():
    while True:
        yield 1
        time.sleep(0.01)

pipeline = weir.Pipeline(numbers(), name="flow")
pipeline.stage(abs, name="queued")
pipeline.stage(abs, name="inline", kind="inline")
pipeline.sink(abs, name="sink")
pipeline.start()
print("ready", flush=True)
input()
"""


def test_a_stage_without_a_queue_shows_no_depth(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    environment = os.environ | {"WEIR_STATS_DIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", FLOW], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment,
    ) as program:  # fmt: skip
        assert program.stdout and program.stdout.readline() == "ready\n"
        table = subprocess.run(
            [WEIR, "top", "--once", "-d", "0.1"], capture_output=True, text=True, timeout=60,
            env=environment,
        ).stdout  # fmt: skip
        depths = dict(re.findall(r"flow/(\w+) +stage +(\S+)", table))
        assert (depths["source"], depths["inline"]) == ("-", "-")
        assert re.fullmatch(r"\d+/\d+", depths["queued"])
        with Terminal([WEIR, "top", "-l"], columns=120, WEIR_STATS_DIR=str(tmp_path)) as terminal:
            terminal.until(lambda: bool(re.search(r"/inline +stage +- ", terminal.text)), "a dash")
        program.kill()


HUNGRY = """
import threading, time, weir
hungry = weir.Queue(10, name="hungry")

def produce():
    while True:
        hungry.put(1)
        time.sleep(0.02)

threading.Thread(target=produce, daemon=True).start()
print("ready", flush=True)
for item in iter(hungry.get, None):
    pass
"""


def test_consumers_that_wait_are_told_of_without_an_alarm(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    environment = os.environ | {"WEIR_STATS_DIR": str(tmp_path)}
    sentence = "nothing holds anything back; consumers of queue 'hungry' wait"
    with subprocess.Popen(
        [sys.executable, "-c", HUNGRY], stdout=subprocess.PIPE, text=True, env=environment
    ) as program:
        try:
            assert program.stdout and program.stdout.readline() == "ready\n"
            table = subprocess.run(
                [WEIR, "top", "--once", "-d", "0.5"], capture_output=True, text=True, timeout=60,
                env=environment,
            ).stdout  # fmt: skip
            assert f"\n- {sentence}" in table and ">" not in table
            with Terminal([WEIR, "top", "-d", "0.3"], WEIR_STATS_DIR=str(tmp_path)) as terminal:
                terminal.shows(f"○ {sentence}")
                y = terminal.line_of(sentence)
                assert {terminal.screen.buffer[y][x].fg for x in range(10)} <= {"cyan", "default"}
        finally:
            program.kill()


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
