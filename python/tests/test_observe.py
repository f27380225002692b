"""weir.stats() and weir.metrics(): what is seen of this process and of others."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import math
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from queue import Full
from typing import TYPE_CHECKING, Any

import pytest
from conftest import InThread, output_of, run_python, wait_until
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import weir
from weir._observe import root_pid

if TYPE_CHECKING:
    from typing_extensions import Self


class Program:
    """A Python that runs some code, and stays until it is told to end."""

    def __init__(self, code: str) -> None:
        waiting = "\nimport sys\nprint('ready', flush=True)\nsys.stdin.read()\n"
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code) + waiting],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line == "ready\n":
                return
            self.said.append(line)
        raise AssertionError(f"the program ended too early: {self.said}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()
        assert self.process.returncode == 0


# ---- stats ------------------------------------------------------------------------------------


def test_a_program_that_only_makes_a_queue_is_seen_by_another_with_exact_numbers() -> None:
    seed = random.randrange(1 << 30)
    code = f"""
        import json, queue, random
        import weir
        q = weir.Queue(10, name="jobs", overflow="drop_oldest")
        rng = random.Random({seed})
        for number in range(10_000):
            try:
                if rng.random() < 0.6:
                    q.put_nowait(number)
                else:
                    q.get_nowait()
            except queue.Empty:
                pass
        s = q.stats()
        print(json.dumps([s.accepted, s.delivered, s.dropped["oldest"], s.qsize, s.peak_qsize]))
    """
    with Program(code) as program:
        jobs = weir.stats(processes=program.process.pid)["jobs"]
        told = [jobs[n] for n in "accepted delivered dropped_oldest depth peak_depth".split()]
        assert told == json.loads(program.said[0]), f"seed {seed}"
        assert jobs["accepted"] == jobs["delivered"] + jobs["dropped_oldest"] + jobs["depth"]
        assert jobs["capacity"] == 10
        assert jobs.kind == "queue" and jobs.pid == program.process.pid
        assert jobs.is_exact
        assert "jobs" in weir.stats(processes="all"), "also among all"
        assert jobs.key in weir.stats(), "it descends from this process"


def test_stats_tell_each_kind_of_object_by_its_name() -> None:
    queue: weir.Queue[int] = weir.Queue(None, name="k queue")
    shared: weir.SharedQueue[int] = weir.SharedQueue(4, name="k shared queue")
    limiter = weir.Limiter(3, name="k limit")
    bucket = weir.TokenBucket(10, burst=5, name="k rate")
    breaker = weir.CircuitBreaker(name="k breaker")
    governor = weir.MemoryGovernor("90%", name="k governor")
    level = weir.Watermark(10, name="k watermark")
    queue.put(1)
    shared.put(1)
    level.add(7)
    assert bucket.try_acquire(2)
    with weir.ThreadPoolExecutor(2, name="k thread pool") as pool, limiter:
        assert pool.submit(int).result() == 0
        seen = weir.stats()
    named = {o.name: o.kind for o in seen if o.name.startswith("k ")}
    assert named == {name: name[2:].replace(" ", "_") for name in named}
    assert len(named) == 8
    assert seen["k queue"]["capacity"] is None and seen["k queue"].fullness is None
    assert seen["k shared queue"]["accepted"] == 1 and seen["k shared queue"].fullness is None
    assert "depth" not in seen["k shared queue"].numbers
    assert seen["k limit"]["in_flight"] == 1 and seen["k limit"]["capacity"] == 3
    assert seen["k rate"]["accepted"] == 2 and seen["k rate"]["capacity"] == 5
    assert seen["k breaker"]["state_name"] == "closed" == breaker.state
    assert seen["k governor"]["state_name"] == "normal" == governor.stats().state
    assert seen["k watermark"]["depth"] == 7
    assert seen["k thread pool"]["accepted"] == 1
    me = next(p for p in seen.processes if p.pid == os.getpid())
    assert me.rss > 1 << 20 and me.library == weir.__version__


def test_an_object_that_is_gone_is_not_told_of() -> None:
    queue: weir.Queue[int] = weir.Queue(3, name="soon gone")
    assert "soon gone" in weir.stats()
    del queue
    assert "soon gone" not in weir.stats()


def test_a_name_that_two_objects_have_is_refused_with_their_keys() -> None:
    twins = [weir.Queue[int](3, name="twin") for _ in range(2)]
    seen = weir.stats()
    assert len(seen.named("twin")) == len(twins)
    with pytest.raises(KeyError, match=r"2 objects are named 'twin': say one of '\d+-\d+', '\d+"):
        seen["twin"]
    first = seen.named("twin")[0]
    assert seen[first.key] is first
    with pytest.raises(KeyError, match="no object is named 'nobody'"):
        seen["nobody"]


def test_stats_are_plain_records_that_can_be_copied_and_pickled() -> None:
    queue: weir.Queue[int] = weir.Queue(3, name="plain")
    seen = weir.stats()
    assert pickle.loads(pickle.dumps(seen)) == copy.deepcopy(seen) == seen
    assert json.loads(json.dumps(dataclasses.asdict(seen)))["at"] == seen.at
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen.at = 0  # type: ignore[misc]
    assert len(seen) == len(list(seen)) and queue.empty()


@pytest.mark.parametrize("processes", ["mine", "", 0, -3, True, None, 1.5])
def test_whose_is_checked(processes: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="'processes' must be"):
        weir.stats(processes=processes)


def test_where_pages_are_switched_off_that_is_said() -> None:
    done = run_python("import os; os.environ['WEIR_STATS_DIR'] = ''; import weir; weir.stats()")
    assert "RuntimeError" in done.stderr and "WEIR_STATS_DIR switches" in done.stderr


def test_a_process_that_has_made_nothing_has_nothing_to_tell() -> None:
    assert output_of("import weir; print(len(weir.stats()), weir.stats().root)") == "0 None\n"


# ---- families ---------------------------------------------------------------------------------


def hold_a_queue(name: str, made: Any, over: Any) -> None:
    queue: weir.Queue[int] = weir.Queue(5, name=name)
    queue.put(1)
    made.set()
    over.wait(60)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_appears_under_its_parent_however_it_was_started(method: str) -> None:
    mine: weir.Queue[int] = weir.Queue(5, name="of the parent")
    context: Any = multiprocessing.get_context(method)
    made, over = context.Event(), context.Event()
    child = context.Process(target=hold_a_queue, args=(f"of a {method}", made, over))
    child.start()
    try:
        assert made.wait(60)
        seen = weir.stats()
        assert seen[f"of a {method}"].pid == child.pid
        assert seen[f"of a {method}"]["depth"] == 1
        assert mine.empty() and "of the parent" in seen
        told = {p.pid: p for p in seen.processes}
        assert told[child.pid].depth >= 1
    finally:
        over.set()
        child.join()
    wait_until(lambda: f"of a {method}" not in weir.stats())


def test_a_forked_child_sees_itself_and_not_its_parent() -> None:
    code = """
        import os, weir
        before = weir.Queue(5, name="before")
        assert "before" in weir.stats()
        pid = os.fork()
        if not pid:
            after = weir.Queue(5, name="after")
            names = sorted(o.name for o in weir.stats())
            os._exit(0 if names == ["after"] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        print(sorted(o.name for o in weir.stats()))
    """
    assert output_of(code) == "['before']\n"


def test_a_family_is_of_those_above_that_run_the_same_program() -> None:
    code = """
        import subprocess, sys, weir
        top = weir.Queue(5, name="top")
        look = "import weir; q = weir.Queue(2, name='low'); s = weir.stats(processes={!r});"
        look += "print(sorted(o.name for o in s if o.name in ('top', 'low')))"
        for who in "family", "self":
            subprocess.run([sys.executable, "-c", look.format(who)], check=True)
    """
    assert output_of(code) == "['low', 'top']\n['low']\n"
    assert root_pid("self") == os.getpid()
    assert root_pid("all") == 0


def test_workers_of_a_process_pool_are_told_with_their_pool() -> None:
    with weir.ProcessPoolExecutor(2, name="crew") as pool:
        assert list(pool.map(abs, range(100))) == list(range(100))
        seen = weir.stats()
        (crew,) = (o for o in seen.named("crew") if o.kind == "process_pool")
        assert crew["workers"] == 2
        assert crew["accepted"] == crew["done"] + crew["depth"] + crew["in_flight"]
        assert crew.service.count > 0


# ---- percentiles --------------------------------------------------------------------------------

rng = random.Random(7)
DISTRIBUTIONS: dict[str, Callable[[], float]] = {  # seconds
    "constant": lambda: 0.5e-3,
    "uniform": lambda: rng.uniform(0.2e-3, 1.2e-3),
    "exponential": lambda: 0.15e-3 + rng.expovariate(1 / 0.5e-3),
    "lognormal": lambda: min(0.4e-3 * rng.lognormvariate(0, 0.6), 4e-3),
    "two humps": lambda: 0.2e-3 if rng.random() < 0.7 else 2e-3,
}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_percentiles_are_those_of_what_was_waited(distribution: str) -> None:
    queue: weir.Queue[int] = weir.Queue(2, name="timed")
    inside, outside = [], []
    for number in range(500):
        before = time.perf_counter()
        queue.put(number)
        entered = time.perf_counter()
        until = entered + DISTRIBUTIONS[distribution]()
        while time.perf_counter() < until:
            pass
        leaving = time.perf_counter()
        queue.get()
        outside.append(time.perf_counter() - before)
        inside.append(leaving - entered)
    wait = weir.stats()["timed"].wait
    assert wait.count == 500
    # What weir timed lies between the two, for each item, and so for each rank.
    for p, told in ((0.5, wait.p50), (0.9, wait.p90), (0.99, wait.p99)):
        rank = math.ceil(p * 500) - 1
        assert sorted(inside)[rank] * 0.98 <= told <= sorted(outside)[rank] * 1.02, (
            p,
            distribution,
        )
    assert max(inside) * 0.98 <= wait.max <= max(outside) * 1.02
    assert sum(inside) / 500 * 0.98 <= wait.mean <= sum(outside) / 500 * 1.02


# ---- metrics ----------------------------------------------------------------------------------


def samples(text: str, name: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Of one object; fails where the text is not OpenMetrics."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("name") == name:
                yield sample.name, sample.labels, sample.value


def test_metrics_are_open_metrics_with_the_numbers_of_the_queue() -> None:
    queue: weir.Queue[int] = weir.Queue(4, name="told", overflow="drop_newest")
    for number in range(6):
        queue.put(number)
    queue.get()
    seen = {
        (name, labels.get("reason")): value
        for name, labels, value in samples(weir.metrics(), "told")
    }
    assert seen["weir_accepted_total", None] == 6
    assert seen["weir_delivered_total", None] == 1
    assert seen["weir_dropped_total", "newest"] == 2
    assert seen["weir_depth", None] == 3
    assert seen["weir_capacity", None] == 4
    assert weir.metrics().endswith("# EOF\n")
    assert weir.METRICS_CONTENT_TYPE.startswith("application/openmetrics-text; version=1.0.0")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ('quo"te', 'quo"te'),
        ("back\\slash", "back\\slash"),
        ("\\n", "\\n"),
        (
            '"} 1\nweir_depth{name="',
            '"} 1?weir_depth{name="',
        ),  # what controls a terminal is replaced
        ("\x1b[2J", "?[2J"),
        ("naïve ✓", "naïve ✓"),
        ("<script>", "<script>"),
    ],
)
def test_a_hostile_name_stays_a_name(name: str, told: str) -> None:
    queue: weir.Queue[int] = weir.Queue(4, name=name)
    queue.put(1)
    assert [v for n, _, v in samples(weir.metrics(), told) if n == "weir_depth"] == [1]
    assert weir.stats()[told]["depth"] == 1


def test_long_names_are_cut_and_never_in_the_middle_of_a_letter() -> None:
    queue: weir.Queue[int] = weir.Queue(4, name="é" * 100)
    names = [o.name for o in weir.stats() if o.name.startswith("éé")]
    assert len(names) == 1 and set(names[0].rstrip("\N{REPLACEMENT CHARACTER}")) == {"é"}
    assert any(samples(weir.metrics(), names[0])) and queue.empty()


def test_a_put_that_waits_is_a_wait_and_no_refusal() -> None:
    queue = weir.Queue[int](1, name="one place")
    queue.put(0)
    waiting = InThread(queue.put, 1)
    wait_until(lambda: queue.stats().putters_waiting == 1)
    assert queue.get() == 0
    waiting.result()
    with pytest.raises(Full):
        queue.put(2, timeout=0.01)

    async def late() -> None:
        with pytest.raises(Full):
            await queue.aput(3, timeout=0.01)

    asyncio.run(late())
    numbers = weir.stats()["one place"].numbers
    assert (numbers["accepted"], numbers["refused"], queue.stats().refused) == (2, 2, 2)
    assert numbers["put_waits"] == 3


def test_where_address_space_is_limited_little_of_it_is_taken() -> None:
    script = """
        import resource, weir
        with open("/proc/self/statm") as statm:
            now = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + (64 << 20),) * 2)
        queues = [weir.Queue(1) for _ in range(70)]
        seen = weir.stats()
        print(len(list(seen)), seen.processes[0].unrecorded)
        with open("/proc/self/statm") as statm:
            grown = int(statm.read().split()[0]) * resource.getpagesize() - now
        print(grown < 16 << 20)
    """
    assert output_of(script).split() == ["64", "6", "True"]


def test_a_pool_that_is_stuck_shows_all_that_it_did_before() -> None:
    go = threading.Event()
    with weir.ThreadPoolExecutor(1, max_submit_backlog=None, name="stuck") as pool:
        gate = pool.submit(threading.Event().wait, 0.05)  # what follows is in line together
        short = [pool.submit(len, "") for _ in range(10)]
        long = pool.submit(go.wait)
        behind = [pool.submit(len, "") for _ in range(5)]
        wait_until(long.running)
        assert gate.done() and all(future.done() for future in short)
        numbers = weir.stats()["stuck"].numbers
        go.set()
        assert [future.result() for future in behind] == [0] * 5
    told = [numbers[name] for name in ("accepted", "done", "delivered", "in_flight", "depth")]
    assert told == [17, 11, 12, 1, 5]
