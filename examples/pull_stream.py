#!/usr/bin/env python3
"""pull_stream.py - a reactive stream in batches of two, and a slow subscriber (scenario S21).

An observable pushes: the subscriber gets what there is, when it is there, and whatever it has no
time for waits in a buffer.  A flow is pulled: the subscriber asks for a batch, the batch asks for
two items, and nobody makes a third one meanwhile.  So the source is never ahead of the subscriber
by more than the batch he asked for, whether he reads in a thread or in an event loop.
"""

from __future__ import annotations

import asyncio
import sys
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Iterator

import show
from weir import Flow


class Source:
    """So many items, which it makes when they are asked for, and says so."""

    def __init__(self, items: int) -> None:
        self.items = items
        self.made = self.used = self.furthest = 0

    def make(self) -> int:
        self.made += 1
        self.furthest = max(self.furthest, self.made - self.used)
        print(f"    source: {self.made}")
        return self.made

    def __iter__(self) -> Iterator[int]:
        while self.made < self.items:
            yield self.make()

    async def __aiter__(self) -> AsyncIterator[int]:
        while self.made < self.items:
            yield self.make()

    def use(self, batch: list[int]) -> None:
        self.used += len(batch)
        print(f"subscriber: {batch}")


def in_a_thread(source: Source, args: Namespace) -> None:
    for batch in Flow(source).buffer(args.batch):
        time.sleep(args.work / args.speed)
        source.use(batch)


def in_an_event_loop(source: Source, args: Namespace) -> None:
    async def main() -> None:
        async for batch in Flow(source).buffer(args.batch):
            await asyncio.sleep(args.work / args.speed)
            source.use(batch)

    asyncio.run(main())


def main() -> int:
    args = show.options(__doc__, items=10, batch=2, work=0.2)
    ways: dict[str, Callable[[Source, Namespace], None]] = {
        "for": in_a_thread,
        "async for": in_an_event_loop,
    }
    rows, status, made, used = [], 0, 0, 0
    for name, subscribe in ways.items():
        source = Source(args.items)
        subscribe(source, args)
        rows.append((name, source.made, source.furthest))
        status |= source.furthest > args.batch
        made, used = made + source.made, used + source.used
    print(show.table(("", "items", "source ahead by, at most"), rows))
    if status:
        print(f"the source was ahead by more than the demand of {args.batch}")
    return status | show.check_law("made", made, {"used": used})


if __name__ == "__main__":
    sys.exit(main())
