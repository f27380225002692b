"""weir.Pipeline in a storm: random graphs to their end with both laws, and the slow stage is named.

    WEIR_STORM=10000 .venv/bin/python -m pytest -s python/tests/test_pipeline_storm.py

runs a tenth as many random graphs (1,000), and a hundredth as many pipelines with a slow stage
(100); by default they are fewer.
"""

from __future__ import annotations

import asyncio
import os
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import InThread, wait_until

import weir
from weir import strategies

STORM = int(os.environ.get("WEIR_STORM", "1000"))
GRAPHS = STORM // 10
SLOW = max(10, STORM // 100)
SLOW_QUEUES: tuple[dict[str, Any], ...] = (
    {},
    {"put_timeout": 0.02},
    {"overflow": "fail"},
    {"overflow": "drop_newest"},
    {"overflow": "drop_oldest"},
    {"overflow": "sample"},
    {"max_age": 0.05},
    {"overflow": strategies.real_time},
)


# ---- one slow stage in ten ----------------------------------------------------------------------


def slow_one_of_ten(chance: random.Random) -> tuple[str, weir.PipelineReport]:
    """A pipeline of ten stages, of which one takes a while; its name, and the report."""
    slow = chance.randrange(10)
    policy = chance.choice(SLOW_QUEUES)
    lossy = policy.get("overflow", "block") != "block"

    def numbers() -> Iterator[int]:
        for number in range(120):
            if lossy:  # somebody has to bring items while they are dropped
                time.sleep(0.0002)
            yield number

    pipeline = weir.Pipeline(numbers())
    for position in range(10):
        pause = 0.01 if position == slow else 0.0  # long beside a turn of the interpreter lock

        def work(x: int, pause: float = pause) -> int:
            if pause:
                time.sleep(pause)
            return x

        options = {"queue": chance.randint(1, 8), **policy}
        add = pipeline.sink if position == 9 else pipeline.stage
        add(work, name=f"stage {position}", workers=chance.randint(1, 2), **options)
    return f"stage {slow}", pipeline.run()


@pytest.mark.parametrize("seed", range(SLOW))
def test_the_report_names_the_slow_stage(seed: int) -> None:
    slow, report = slow_one_of_ten(random.Random(seed))
    assert report.bottleneck_stage == slow, report
    assert report.bottleneck_cause == "workers" and repr(slow) in report.bottleneck


# ---- random graphs ------------------------------------------------------------------------------


class Fault(Exception):
    """What stages raise here."""


class Work:
    """A stage function that fails now and then, and takes its time now and then."""

    def __init__(self, fails: float, sleeps: float, seed: float) -> None:
        self.fails, self.sleeps = fails, sleeps
        self.dice = random.Random(seed)

    def __call__(self, x: Any) -> Any:
        if self.dice.random() < self.fails:
            raise Fault(x)
        if self.sleeps and self.dice.random() < 0.1:
            time.sleep(self.sleeps)
        return x


class RandomGraph:
    """A pipeline of random stages, fans, policies and failures, and how often items were seen."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.dropped: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.pipeline = weir.Pipeline(name=f"graph {seed}", on_drop=self.on_drop)
        self.may_fail = self.chance.random() < 0.3
        self.names: list[str] = []
        self.kinds: dict[str, str] = {}
        self.build()

    def on_drop(self, item: int, stage: str, reason: str) -> None:
        with self.lock:
            self.dropped[reason] += 1

    def numbers(self) -> Iterator[int]:
        n = self.chance.choice([0, 1, 50, 300, 1500])
        fails = self.may_fail and self.chance.random() < 0.2

        def count() -> Iterator[int]:
            yield from range(n)
            if fails:
                raise Fault("source")

        return count()

    def build(self) -> None:
        for _ in range(self.chance.randint(1, 3)):
            self.names.append(self.pipeline.source(self.numbers()).name)
        sources = list(self.names)
        for number in range(self.chance.randint(1, 6)):
            first = sources if number == 0 else None
            self.add(f"s{number}", first)

    def add(self, name: str, first: list[str] | None) -> None:
        kinds = ["thread"] * 10 + ["async", "inline"] * 2 + ["process"]
        after = first or sorted(
            self.chance.sample(self.names, min(len(self.names), self.chance.choice([1, 1, 1, 2])))
        )
        kind = self.chance.choice(kinds)
        behind_async = any(self.kinds.get(one) == "async" for one in after)
        if kind == "inline" and (len(after) > 1 or behind_async):
            kind = "thread"
        options: dict[str, Any] = {"name": name, "kind": kind, "after": after}
        if kind != "inline":
            options.update(self.queue_options())
        if kind == "thread" and not behind_async:
            options.update(self.worker_options())
        options["on_error"] = self.chance.choice(["skip", "skip", self.on_error])
        if self.may_fail and self.chance.random() < 0.3:
            options["on_error"] = "stop"
        if self.chance.random() < 0.3:
            options["fan_out"] = self.chance.choice(["round_robin", lambda x: x])
        work = self.work()
        if kind == "async":

            async def awork(x: Any) -> Any:
                await asyncio.sleep(0)
                return work(x)

            self.pipeline.stage(awork, **options)
        else:
            self.pipeline.stage(work, **options)
        self.names.append(name)
        self.kinds[name] = kind

    def on_error(self, item: Any, error: BaseException) -> None:
        assert isinstance(error, Fault)

    def queue_options(self) -> dict[str, Any]:
        options = dict(self.chance.choice(SLOW_QUEUES))
        options["queue"] = self.chance.choice([1, 2, 10, 100, "auto"])
        options["workers"] = self.chance.choice([1, 1, 2, 4])
        if self.chance.random() < 0.2:
            options["max_bytes"] = 1000
        return options

    def worker_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        which = self.chance.randrange(6)
        if which == 0:
            options.update(batch=self.chance.randint(1, 20), linger=0.001, flat=True)
        elif which == 1:
            options.update(ordered=True, workers=3)
        elif which == 2:
            options.update(key=lambda x: x % 5, workers=3)
        elif which == 3:
            options.update(workers=(1, 4))
        if self.chance.random() < 0.2:
            options["retry"] = weir.Retry(2, backoff=(0.0001, 0.0002))
        if self.chance.random() < 0.2:
            options["limiter"] = 1
        return options

    def work(self) -> Work:
        fails = self.chance.choice([0.0, 0.0, 0.05])
        if self.may_fail and self.chance.random() < 0.2:
            fails = 0.002
        return Work(fails, self.chance.choice([0.0, 0.0, 0.001]), self.chance.random())

    def run(self) -> weir.PipelineReport:
        """To the end, or to a stop or drain at a random moment."""
        how = self.chance.choice(["run", "run", "run", "drain", "stop", "results"])
        try:
            if how == "run":
                return self.pipeline.run()
            if how == "results":
                wanted = self.chance.choice([3, 10**9])
                for number, _ in enumerate(self.pipeline.results()):
                    if number == wanted:
                        break
            else:
                self.pipeline.start()
                time.sleep(self.chance.random() * 0.02)
                if how == "stop":
                    return self.pipeline.stop()
                return self.pipeline.drain(self.chance.choice([0.001, 30]))
        except Fault:
            pass
        assert self.pipeline.report is not None
        return self.pipeline.report


@pytest.mark.parametrize("seed", range(GRAPHS))
def test_a_random_graph_comes_to_its_end_and_obeys_both_laws(seed: int) -> None:
    graph = RandomGraph(seed)
    report = InThread(graph.run).result(60)
    for stage in report.stages.values():
        lost = sum(stage.dropped.values())
        assert stage.accepted == stage.processed + stage.failed + lost and stage.left == 0, report
        assert stage.ended
        assert stage.maxsize is None or stage.peak_qsize <= 4096
        size = graph.pipeline._nodes[stage.name].queue
        assert size == "auto" or stage.kind != "thread" or stage.peak_qsize <= 4 * size
    # What a source was about to emit when all was stopped is counted and told when it comes.
    wait_until(lambda: is_settled(graph))


def is_settled(graph: RandomGraph) -> bool:
    """Each drop was told once, and what was emitted was accepted by those behind."""
    stats = graph.pipeline.stats()
    emitted = sum(stage.emitted for stage in stats.stages.values())
    accepted = sum(s.accepted for s in stats.stages.values() if s.kind != "source")
    return emitted == accepted and dict(graph.dropped) == stats.dropped and stats.left == 0


# ---- putters ------------------------------------------------------------------------------------


def test_many_threads_put_while_it_is_drained_and_nothing_is_lost() -> None:
    for seed in range(max(3, STORM // 200)):
        out: list[int] = []
        pipeline = weir.Pipeline()
        pipeline.stage(lambda x: x, queue=3, workers=2)
        pipeline.sink(out.append)
        pipeline.start()
        put: list[int] = []

        def feed(first: int, pipeline: weir.Pipeline = pipeline, put: list[int] = put) -> None:
            for x in range(first, first + 10000):
                try:
                    pipeline.put(x, timeout=1)
                except queue.Full:
                    continue
                except weir.ShutDown:
                    return
                put.append(x)

        feeding = [InThread(feed, 10000 * n) for n in range(8)]
        time.sleep(random.Random(seed).random() * 0.05)
        report = pipeline.drain()
        for thread in feeding:
            thread.result()
        assert sorted(out) == sorted(put) and report.left == 0
