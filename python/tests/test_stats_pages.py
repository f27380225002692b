"""What other processes see of Python programs, read by the layout that weir_stats(7) documents."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from stats_pages import Record, find, read

PATIENCE = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pages"
    folder.mkdir(mode=0o700)
    return folder


class Program:
    """A program that runs up to `pause()`, where it says what it knows and waits for us."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def pause(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the program has ended"
        return json.loads(line)

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()


@contextmanager
def running(folder: Path, text: str) -> Iterator[Program]:
    path = folder.parent / "program.py"
    pause = """
        def pause(known=None):
            print(json.dumps(known), flush=True)
            sys.stdin.readline()
    """
    path.write_text("import json, sys\n" + textwrap.dedent(pause) + textwrap.dedent(text))
    environment = os.environ | {"WEIR_STATS_DIR": str(folder)}
    with subprocess.Popen(
        [sys.executable, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            yield Program(process)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


def see(folder: Path, name: str, pid: int | None = None) -> Record:
    record = find(folder, name, pid)
    assert record is not None, [record.name for record in read(folder)]
    return record


def soon(condition: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_program_that_only_has_a_queue_is_seen(folder: Path) -> None:
    with running(folder, 'import weir; q = weir.Queue(10, name="jobs"); pause()') as program:
        program.pause()
        jobs = see(folder, "jobs")
        assert (jobs.pid, jobs.parent, jobs.kind) == (program.pid, os.getpid(), "queue")
        assert jobs.number["capacity"] == 10
    assert not list(folder.iterdir())


RANDOM = """
import asyncio, queue, random
import weir

mine = dict(accepted=0, delivered=0, refused=0, dropped=0)
overflow = sys.argv[1] if sys.argv[1:] else OVERFLOW

def drop(item, reason):
    mine["dropped"] += 1

q = weir.Queue(10, name="jobs", overflow=overflow, on_drop=drop)
chance = random.Random(OVERFLOW)

def put():
    try:
        q.put_nowait(1)
        mine["accepted"] += 1
    except queue.Full:
        mine["refused"] += 1

def get():
    try:
        q.get_nowait()
        mine["delivered"] += 1
    except queue.Empty:
        pass

def put_some():
    room = 1000 if overflow.startswith("drop") or overflow == "sample" else q.maxsize - q.qsize()
    n = min(chance.randrange(8), max(room, 0))
    q.put_many(range(n))
    mine["accepted"] += n

def get_some():
    if q.qsize():
        mine["delivered"] += len(q.get_many(chance.randrange(1, 8)))

def resize():
    if chance.random() < 0.05:
        q.maxsize = chance.randrange(5, 20)

def discard():
    if chance.random() < 0.02:
        q.discard()

async def step_async():
    if chance.random() < 0.5:
        if overflow not in ("block", "fail") or q.qsize() < q.maxsize:
            await q.aput(2)
            mine["accepted"] += 1
    elif q.qsize():
        await q.aget()
        mine["delivered"] += 1

async def steps_async(n):
    for _ in range(n):
        await step_async()

steps = [put, put, get, get, put_some, get_some, resize, discard]
for _ in range(100):
    for _ in range(80):
        chance.choice(steps)()
    asyncio.run(steps_async(20))
stats = q.stats()
pause(mine | {"qsize": q.qsize(), "maxsize": q.maxsize, "by_reason": dict(stats.dropped)})
"""


@pytest.mark.parametrize("overflow", ["block", "fail", "drop_newest", "drop_oldest", "sample"])
def test_after_ten_thousand_random_operations_every_counter_is_exact(
    folder: Path, overflow: str
) -> None:
    with running(folder, RANDOM.replace("OVERFLOW", repr(overflow))) as program:
        mine = program.pause()
        jobs = see(folder, "jobs")
        assert mine["delivered"] > 1000
        for name in ("accepted", "delivered", "refused"):
            assert jobs.number[name] == mine[name], name
        assert jobs.dropped == mine["dropped"] == sum(mine["by_reason"].values())
        for reason, n in mine["by_reason"].items():
            assert jobs.number[f"dropped_{reason}"] == n
        assert jobs.depth == mine["qsize"]
        assert jobs.number["capacity"] == mine["maxsize"]


def test_every_object_is_seen_by_its_name(folder: Path) -> None:
    text = """
        import weir
        from weir import ThreadPoolExecutor
        held = [
            weir.SharedQueue(5, name="a-shared-queue"),
            weir.Limiter(3, name="a-limit"),
            weir.TokenBucket(5, name="a-rate"),
            weir.CircuitBreaker(name="a-breaker"),
            weir.MemoryGovernor(name="a-governor"),
            weir.Watermark(10, name="a-watermark"),
        ]
        threads = ThreadPoolExecutor(2, name="a-thread-pool")
        processes = weir.ProcessPoolExecutor(1, name="a-process-pool")
        hidden = weir.Queue(3, name="")
        pause()
    """
    with running(folder, text) as program:
        program.pause()
        kinds = {record.name: record.kind for record in read(folder)}
        for (
            kind
        ) in "shared_queue limit rate breaker governor watermark thread_pool process_pool".split():
            assert kinds[f"a-{kind.replace('_', '-')}"] == kind
        assert "" not in kinds


def test_a_thread_pool_tells_of_its_tasks(folder: Path) -> None:
    text = """
        import threading, weir
        go = threading.Event()
        pool = weir.ThreadPoolExecutor(1, max_submit_backlog=3, on_full="fail", name="pool")
        futures = [pool.submit(go.wait) for _ in range(4)]
        while futures[0].running() is False:
            pass
        try:
            pool.submit(len, "")
        except weir.BacklogFull:
            pass
        assert futures[3].cancel()
        pause()
        go.set()
        for future in futures[:3]:
            future.result()
        assert sum(pool.map(len, ["a"] * 100)) == 100
        pause()
        pool.shutdown()
        pause()
    """
    with running(folder, text) as program:
        program.pause()
        pool = see(folder, "pool")
        assert pool.kind == "thread_pool"
        assert pool.depth == 2
        n = pool.number
        assert (n["capacity"], n["accepted"], n["delivered"], n["done"]) == (4, 4, 1, 0)
        assert (n["cancelled"], n["refused"], n["workers"]) == (1, 1, 1)
        program.go_on()
        program.pause()
        pool = see(folder, "pool")
        assert pool.depth == 0
        assert pool.number["done"] == pool.number["delivered"] == 103
        assert pool.number["accepted"] == 104
        assert 1 <= pool.n_served <= pool.number["done"] + 64  # one of 64 stands for them
        assert pool.number["busy_ns"] > 0
        assert pool.n_waited >= 1
        assert pool.number["closed"] == 0
        program.go_on()
        program.pause()
        assert see(folder, "pool").number["closed"] == 1


WORKERS = """
import multiprocessing, os, time
import weir

held = []

def work():
    if not held:
        held.append(weir.Queue(3, name="inner"))
    return os.getpid()

def wait_for_file(path):
    while not os.path.exists(path):
        time.sleep(0.001)

if __name__ == "__main__":
    context = multiprocessing.get_context(METHOD)
    with weir.ProcessPoolExecutor(1, mp_context=context, name="pool") as pool:
        worker = [pool.submit(work).result() for _ in range(3)][0]
        pause(worker)
        long = pool.submit(wait_for_file, sys.argv[0] + ".go")
        pause()
        open(sys.argv[0] + ".go", "w").close()
        long.result()
        pause()
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_worker_and_what_it_makes_are_seen_under_the_pool(folder: Path, method: str) -> None:
    with running(folder, WORKERS.replace("METHOD", repr(method))) as program:
        pid = program.pause()
        inner = see(folder, "inner")
        assert (inner.pid, inner.parent) == (pid, program.pid)
        soon(lambda: see(folder, "pool/0").number["done"] == 3)
        worker, pool = see(folder, "pool/0"), see(folder, "pool")
        assert (worker.kind, worker.pid, worker.number["pid"]) == ("worker", program.pid, pid)
        assert (worker.number["owner"], worker.number["place"]) == (pool.id, 0)
        assert worker.n_served == 3
        program.go_on()
        program.pause()
        soon(lambda: see(folder, "pool/0").number["in_flight"] == 1)
        program.go_on()
        program.pause()
        soon(lambda: see(folder, "pool/0").number["done"] == 4)
        assert see(folder, "pool/0").number["in_flight"] == 0


def test_every_stage_of_a_pipeline_is_seen_once(folder: Path) -> None:
    text = """
        import time, weir
        p = weir.Pipeline(range(40), name="photos")
        p.stage(str, name="text", kind="inline")
        p.stage(len, name="count", queue=4)
        p.stage(lambda item: time.sleep(0.004), name="slow", queue=3)
        p.run()
        pause()
    """
    with running(folder, text) as program:
        program.pause()
        seen = {record.name: record for record in read(folder)}
        stages = {name: record for name, record in seen.items() if record.kind == "stage"}
        places = ["photos/source", "photos/text", "photos/count", "photos/slow"]
        assert sorted(stages) == sorted(places)
        assert not any(record.kind == "queue" for record in seen.values()), seen
        for i, name in enumerate(places):
            n = stages[name].number
            assert n["owner"] == stages["photos/source"].id
            assert (n["place"], n["feeds"]) == (i, 2 << i if i < 3 else 0)
            assert (n["accepted"], n["delivered"], n["done"]) == (40, 40, 40), name
            assert stages[name].n_served > 0
        assert stages["photos/slow"].number["capacity"] == 3
        assert stages["photos/slow"].number["pressure_ns"] > 0
        assert stages["photos/slow"].number["busy_ns"] >= 40 * 4_000_000
