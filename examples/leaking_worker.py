#!/usr/bin/env python3
"""leaking_worker.py - tasks that leak 10 MiB each, in workers that are replaced in time.

Once by size: max_worker_rss="150MiB" replaces a worker when more than that is resident after a
task; once by count: max_tasks_per_child=10.  Both between two tasks, so that none is lost.  Without
either a worker would have grown to gigabytes.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import show
import weir
from show import MIB

leaked: list[bytearray] = []


def task(number: int) -> tuple[int, int, int]:
    leaked.append(bytearray(b"\1") * (10 * MIB))
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    return number, os.getpid(), resident


def run(tasks: int, workers: int, **how: Any) -> tuple[list[object], bool]:
    """One row of the table, and whether workers were replaced and none died."""
    with weir.ProcessPoolExecutor(workers, **how) as pool:
        futures = [pool.submit(task, number) for number in range(tasks)]
        results = [future.result() for future in futures]
    stats = pool.stats()
    (name, value), *_ = how.items()
    peak = max(resident for _, _, resident in results) / MIB
    workers_used = len({pid for _, pid, _ in results})
    done = len({number for number, _, _ in results})
    row = [f"{name}={value}", done, workers_used, stats.workers_recycled, f"{peak:.0f}"]
    return row, stats.workers_died == 0 and stats.workers_recycled > 0


def main() -> int:
    args = show.options(__doc__, tasks=200, workers=2)
    by_size, size_holds = run(args.tasks, args.workers, max_worker_rss="150MiB")
    by_count, count_holds = run(args.tasks, args.workers, max_tasks_per_child=10)
    print(show.table(["", "done", "processes", "recycled", "peak MiB"], [by_size, by_count]))
    done = {"done in the first pool": int(str(by_size[1])), "in the second": int(str(by_count[1]))}
    status = show.check_law("tasks", 2 * args.tasks, done)
    return status if size_holds and count_holds else 1


if __name__ == "__main__":
    sys.exit(main())
