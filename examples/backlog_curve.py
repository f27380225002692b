#!/usr/bin/env python3
"""backlog_curve.py - how large should a backlog be? (scenario S20)

Two worker processes, tasks of 50 us, and one producer that submits without a pause.  Each row is a
backlog, from one task to all of them.
  too small   the workers have done everything before the producer is awake again: throughput lost
  too large   no faster, but each task waits for all before it, and all of them lie in memory
  "auto"      begins with twice the workers and doubles while workers run dry: it ends where the
              curve is flat, and stats() says why
With tasks of 50 ms the smallest sizes are right: try --task-ms 50 --tasks 200.  --speed takes fewer
tasks, not shorter ones.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from typing import Literal, NamedTuple

import show
import weir


def work(seconds: float) -> float:
    """One task, in a worker; when it began."""
    began = end = time.perf_counter()
    while end - began < seconds:
        end = time.perf_counter()
    return began


class Row(NamedTuple):
    """What one size of backlog did."""

    backlog: str
    per_second: float
    wait_ms: float  # from the moment the submit returned to the start of the task, on average
    memory: int  # bytes
    chosen: int
    why: str | None
    law: bool


def run(backlog: int | Literal["auto"] | None, args: Namespace) -> Row:
    """All tasks once."""
    seconds = args.task_ms / 1000
    with weir.ProcessPoolExecutor(2, max_submit_backlog=backlog) as pool:
        list(pool.map(work, [0.0] * 10))  # both workers are there
        warm_up = args.tasks // 2 if backlog == "auto" else 0  # it learns on the first half
        for future in [pool.submit(work, seconds) for _ in range(warm_up)]:
            future.result()
        before = show.rss()
        start = time.perf_counter()
        submitted, futures = [], []
        for _ in range(args.tasks):
            futures.append(pool.submit(work, seconds))
            submitted.append(time.perf_counter())
        grown = show.rss() - before
        began = [future.result() for future in futures]
        took = time.perf_counter() - start
        waits = [b - s for b, s in zip(began, submitted, strict=True)]
        stats = pool.stats()
    inside = stats.waiting + stats.running
    return Row(
        "None" if backlog is None else str(backlog),
        args.tasks / took,
        1000 * sum(waits) / len(waits),
        grown,
        stats.max_submit_backlog or 0,
        stats.backlog_why,
        stats.accepted == stats.completed + inside,
    )


def main() -> int:
    args = show.options(__doc__, tasks=20_000, task_ms=0.05)
    args.tasks = max(10, int(args.tasks / args.speed))
    backlogs: list[int | Literal["auto"] | None] = [
        1,
        2,
        4,
        16,
        64,
        256,
        1024,
        10_000,
        None,
        "auto",
    ]
    rows = [run(backlog, args) for backlog in backlogs]
    best = max(row.per_second for row in rows)
    print(
        show.table(
            ["backlog", "tasks/s", "", "mean wait", "memory"],
            [
                (
                    row.backlog,
                    f"{row.per_second:,.0f}",
                    f"{'#' * round(30 * row.per_second / best):<30}",
                    f"{max(row.wait_ms, 0):.1f} ms",
                    show.mib(max(row.memory, 0)),
                )
                for row in rows
            ],
        )
    )
    print(f'"auto" ended at {rows[-1].chosen:,}: {rows[-1].why}.')
    if not all(row.law for row in rows):
        print("law: BROKEN")
        return 1
    print("law: accepted = completed + inside: holds in each row")
    return 0


if __name__ == "__main__":
    sys.exit(main())
