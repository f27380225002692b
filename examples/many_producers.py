#!/usr/bin/env python3
"""many_producers.py - a hundred producers before one process pool (scenario S1).

A listing gives objects page by page; 100 threads load them and submit them; the next page is asked
for when the last one is handed over.  A task takes 0.8 to 1.6 s, so 8 workers finish 5 to 10
objects a second.  How many tasks may wait for a worker?
  1      a worker that is done finds nothing while the next page is on its way: it idles
  2x-4x  the workers: lasts over the gap, so nobody idles, and the latency has a bound
  None   nobody idles either, but whatever was listed lies in memory, and waits for all before it
Each row takes about 40 s; --speed 10 is sooner, --objects 20000 is the real thing.
"""

from __future__ import annotations

import math
import random
import sys
import threading
import time
from argparse import Namespace
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple

import show
import weir


class Task(NamedTuple):
    """When a task was submitted, accepted, started and finished: seconds on the monotonic clock,
    which is the same in all processes of a machine."""

    submitted: float
    accepted: float
    started: float
    finished: float


def work(content: bytes, seconds: float) -> tuple[float, float]:
    """One task, in a worker."""
    started = time.monotonic()
    time.sleep(seconds)
    return started, time.monotonic()


class Run:
    """All objects once, with one size of backlog."""

    def __init__(self, backlog: int | bool | None, args: Namespace) -> None:
        self.args, self.backlog = args, backlog
        self.tasks: list[Task] = []
        before, self.grown = show.rss(), 0
        durations = random.Random(1)  # the same tasks for each backlog
        listed: weir.Queue[float] = weir.Queue(args.page)
        with weir.ProcessPoolExecutor(args.workers, max_submit_backlog=backlog) as pool:
            producers = [
                threading.Thread(target=self.produce, args=(listed, pool))
                for _ in range(args.producers)
            ]
            for producer in producers:
                producer.start()
            for number in range(1, args.objects + 1):
                listed.put(durations.uniform(0.8, 1.6) / args.speed)
                if number % args.page == 0:
                    listed.join()  # the page is handed over
                    self.grown = max(self.grown, show.rss() - before)
                    time.sleep(args.gap / args.speed)  # the next one is on its way
            listed.shutdown()
            for producer in producers:
                producer.join()

    def produce(self, listed: weir.Queue[float], pool: weir.ProcessPoolExecutor) -> None:
        for seconds in listed:
            content = b"x" * self.args.size
            submitted = time.monotonic()
            future = pool.submit(work, content, seconds)  # waits while the backlog is full
            future.add_done_callback(partial(self.note, submitted, time.monotonic()))
            listed.task_done()
            del content, future

    def note(self, submitted: float, accepted: float, future: Future[tuple[float, float]]) -> None:
        self.tasks.append(Task(submitted, accepted, *future.result()))

    def idle(self) -> float:
        """Share of the workers' time without a task, while there was something to come."""
        first = min(task.started for task in self.tasks)
        last = max(task.accepted for task in self.tasks)
        busy = sum(max(0.0, min(task.finished, last) - task.started) for task in self.tasks)
        return max(0.0, 1 - busy / float(self.args.workers * (last - first)))

    def row(self) -> tuple[object, ...]:
        seconds = [(task.finished - task.accepted) * self.args.speed for task in self.tasks]
        waits = [(task.accepted - task.submitted) * self.args.speed for task in self.tasks]
        places = 2 * self.args.workers if self.backlog is True else self.backlog
        # In 1.6 s each worker ends its task and takes the next, so a whole row of them moves on.
        bound = f"{(math.ceil(places / self.args.workers) + 1) * 1.6:.1f} s" if places else "none"
        return (
            str(self.backlog),
            f"{self.idle():.0%}",
            f"{max(waits):.1f} s",
            f"{max(seconds):.1f} s",
            bound,
            show.mib(self.grown),
        )


def main() -> int:
    args = show.options(
        __doc__, objects=200, producers=100, workers=8, size=256 << 10, page=50, gap=2.0
    )
    runs = []
    for backlog in (1, args.workers, True, *(n * args.workers for n in (2, 3, 4)), None):
        print(f"backlog {backlog} ...", file=sys.stderr)
        runs.append(Run(backlog, args))
    headers = ("backlog", "workers idle", "wait in submit", "latency", "its bound", "memory grew")
    print(show.table(headers, [run.row() for run in runs]))
    print("wait and latency: the longest; bound: (backlog + workers) / rate, if tasks took 1.6 s")
    done = sum(len(run.tasks) for run in runs)
    return show.check_law("objects", args.objects * len(runs), {"done": done})


if __name__ == "__main__":
    sys.exit(main())
