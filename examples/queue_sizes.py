#!/usr/bin/env python3
"""queue_sizes.py - how large should a queue be? (scenario S20)

Four consumers, whose times vary (now and then one takes ten times as long), and a producer that
comes in bursts.  A queue that is too small lets consumers go idle between bursts, one that is too
large holds memory and makes every item wait, and is not faster.  Between the two is a bend, at

    2 x consumers x time of an item / time between items

queue="auto" measures both, and finds it.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from typing import Literal

import show
import weir

CONSUMERS = 4
BURST = 20  # items at once
SERVICE = 0.002  # seconds an item takes, mostly

Size = int | Literal["auto"]


class Case:
    """One size of the queue, and what came of it."""

    def __init__(self, size: Size, items: int) -> None:
        self.size, self.items = size, items
        self.waited: list[float] = []  # seconds from the source to the consumer
        self._chance = random.Random(1)

    def bursts(self) -> Iterator[float]:
        for number in range(self.items):
            if number % BURST == 0:  # on average a little faster than the consumers
                time.sleep(BURST * SERVICE * 1.2 / CONSUMERS)
            yield time.monotonic()

    def consume(self, made: float) -> None:
        self.waited.append(time.monotonic() - made)
        time.sleep(SERVICE * (10 if self._chance.random() < 0.05 else 1))

    def run(self) -> tuple[weir.PipelineReport, tuple[object, ...]]:
        pipeline = weir.Pipeline(self.bursts())
        pipeline.sink(self.consume, name="consume", queue=self.size, workers=CONSUMERS)
        report = pipeline.run()
        stage = report.stages["consume"]
        waits = sorted(self.waited)
        shown = f"auto: {stage.maxsize}" if self.size == "auto" else f"{self.size:,}"
        return report, (
            shown,
            f"{self.items / report.elapsed:,.0f}/s",
            f"{stage.share(stage.idle):.0%}",
            f"{waits[len(waits) // 2] * 1e3:.1f} ms",
            f"{waits[len(waits) * 99 // 100] * 1e3:.1f} ms",
            f"{stage.peak_qsize:,}",
        )


def main() -> int:
    args = show.options(__doc__, items=2000)
    sizes: list[Size] = [1, 2, 5, 10, 20, 50, 200, 10_000, "auto"]
    rows = []
    status = 0
    for size in sizes:
        report, row = Case(size, max(100, int(args.items / args.speed))).run()
        rows.append(row)
        stage = report.stages["consume"]
        status |= stage.processed != report.accepted or stage.peak_qsize > (stage.maxsize or 0)
    headers = ("queue", "throughput", "consumers idle", "wait, median", "99 %", "deepest")
    print(show.table(headers, rows))
    total = len(sizes) * max(100, int(args.items / args.speed))
    return status or show.check_law("made", total, {"consumed": total})


if __name__ == "__main__":
    sys.exit(main())
