#!/usr/bin/env python3
"""short_tasks.py - tasks that are shorter than the way to the worker and back (scenario S4).

One task at a time, a process pool spends more on the transport of a short task than on the task.
Chunks help, and their right size depends on tasks and machine: too small and the transport costs,
too large and a worker is idle at the end while another has a chunk left.  map() with
chunksize="auto", the default, measures the tasks while it runs.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Literal

import show
import weir

Map = Callable[[Iterable[int], Iterable[float]], Iterator[int]]


def work(number: int, seconds: float) -> int:
    """Keeps a CPU busy; each tenth task takes three times as long, as real ones do."""
    end = time.perf_counter() + seconds * (3 if number % 10 == 0 else 1)
    while time.perf_counter() < end:
        pass
    return number


def measure(mapped: Map, args: Namespace) -> tuple[float, int]:
    """Seconds, and how many of the results are right."""
    began = time.perf_counter()
    results = mapped(range(args.tasks), itertools.repeat(args.work / 1000 / args.speed))
    right = sum(number == result for number, result in enumerate(results))
    return time.perf_counter() - began, right


def main() -> int:
    args = show.options(__doc__, tasks=5_000, workers=2, work=0.2, rounds=5)
    ideal = args.tasks * 1.2 * args.work / 1000 / args.speed / args.workers
    sizes: list[int | Literal["auto"]] = [1, 50, 100, 200, args.tasks // args.workers, "auto"]
    maps: dict[str, Map] = {}
    seconds: dict[str, list[float]] = {}
    right = 0
    with (
        concurrent.futures.ProcessPoolExecutor(args.workers) as standard,
        weir.ProcessPoolExecutor(args.workers) as pool,
    ):
        maps["concurrent.futures, 1"] = partial(standard.map, work)
        for size in sizes:
            maps[f"weir, {size}"] = partial(pool.map, work, chunksize=size)
        for mapped in maps.values():
            list(mapped(range(100), [0.0] * 100))  # starts the workers
        for _ in range(args.rounds):  # in turns, so that what else the machine does hits all alike
            for name, mapped in maps.items():
                one_round, right_ones = measure(mapped, args)
                seconds.setdefault(name, []).append(one_round)
                right += right_ones
    rows = []
    for name, rounds in seconds.items():
        median, best = statistics.median(rounds), min(rounds)
        rows.append((name, f"{median:.2f}", f"{best:.2f}", f"{ideal / median:.0%}"))
    headers = ("executor, chunk size", "seconds (median)", "best", "time in tasks")
    print(show.table(headers, rows))
    return show.check_law("tasks", args.tasks * args.rounds * len(maps), {"right results": right})


if __name__ == "__main__":
    sys.exit(main())
