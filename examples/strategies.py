#!/usr/bin/env python3
"""strategies.py - what to do when the queue is full: three answers side by side (scenario S9).

A queue of 3; ten items, one each 0.1 s; a consumer that takes 0.3 s for each.
  block        loses nothing, and the producer pays with its time
  drop_newest  keeps what came first: the queue is full, so the new item goes
  drop_oldest  keeps what is fresh: the item that waited longest goes
"""

from __future__ import annotations

import sys
import threading
import time
from argparse import Namespace
from typing import Literal

import show
import weir

Overflow = Literal["block", "drop_newest", "drop_oldest"]
STRATEGIES: tuple[Overflow, ...] = ("block", "drop_newest", "drop_oldest")


class Outcome:
    """What became of the items under one strategy."""

    def __init__(self, overflow: Overflow, args: Namespace) -> None:
        self.args = args
        self.used: list[int] = []
        self.dropped: list[int] = []
        self.queue: weir.Queue[int] = weir.Queue(
            args.size, overflow=overflow, on_drop=lambda item, reason: self.dropped.append(item)
        )
        consumer = threading.Thread(target=self.consume)
        consumer.start()
        began = time.monotonic()
        for item in range(1, args.items + 1):
            self.queue.put(item)
            time.sleep(args.every / args.speed)
        self.seconds = (time.monotonic() - began) * args.speed
        self.queue.shutdown()
        consumer.join()

    def consume(self) -> None:
        for item in self.queue:
            self.used.append(item)
            time.sleep(self.args.work / self.args.speed)


def main() -> int:
    args = show.options(__doc__, items=10, size=3, every=0.1, work=0.3)
    outcomes = {overflow: Outcome(overflow, args) for overflow in STRATEGIES}
    headers = ("overflow", "producer took", "used", "dropped", "items used", "items dropped")
    rows = [
        (
            overflow,
            f"{one.seconds:.1f} s",
            len(one.used),
            len(one.dropped),
            " ".join(map(str, one.used)),
            " ".join(map(str, one.dropped)) or "-",
        )
        for overflow, one in outcomes.items()
    ]
    print(show.table(headers, rows))
    statuses = [
        show.check_law(
            f"put with {overflow}",
            args.items,
            {"used": len(one.used), "dropped": len(one.dropped)},
        )
        for overflow, one in outcomes.items()
    ]
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main())
