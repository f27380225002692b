#!/usr/bin/env python3
"""submit_window.py - from one event loop, at most 50 requests pending (scenario S2 in asyncio).

By hand: start 50 tasks, asyncio.wait for the first, start more until 50 are pending again, and do
not forget the rest at the end.  With weir: `async for result in amap(fn, source, limit=50)`, also
where the calls go to a pool of processes.  A pool alone has the same as map(buffersize=50).  Each
takes items as results are used, so the source may be endless.
"""

from __future__ import annotations

import asyncio
import sys
import time
from argparse import Namespace
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import repeat

import show
import weir
from show import Source
from weir.aio import amap


async def square(number: int, seconds: float) -> int:
    await asyncio.sleep(seconds)
    return number * number


def square_in_a_worker(number: int, seconds: float) -> int:
    time.sleep(seconds)
    return number * number


async def by_hand(source: Source, args: Namespace, work: float) -> AsyncGenerator[int, None]:
    pending: set[asyncio.Task[int]] = set()
    try:
        while True:
            while len(pending) < args.window:
                pending.add(asyncio.create_task(square(next(source), work)))
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def with_amap(source: Source, args: Namespace, work: float) -> AsyncGenerator[int, None]:
    async with amap(
        square, source, repeat(work), limit=args.window, buffersize=0, ordered=False
    ) as results:
        async for result in results:
            yield result


async def with_amap_in_a_pool(
    source: Source, args: Namespace, work: float
) -> AsyncGenerator[int, None]:
    loop = asyncio.get_running_loop()
    with weir.ProcessPoolExecutor(args.workers, max_submit_backlog=args.window) as pool:

        def submit(number: int) -> asyncio.Future[int]:
            return loop.run_in_executor(pool, square_in_a_worker, number, work)

        async with amap(submit, source, limit=args.window, buffersize=0) as results:
            async for result in results:
                yield result


async def with_map(source: Source, args: Namespace, work: float) -> AsyncGenerator[int, None]:
    """Without an event loop, for comparison: here it holds up the loop while it waits."""
    with weir.ProcessPoolExecutor(args.workers, max_submit_backlog=args.window) as pool:
        for result in pool.map(
            square_in_a_worker, source, repeat(work), chunksize=1, buffersize=args.window
        ):
            yield result


async def run(args: Namespace) -> int:
    rows, status, total = [], 0, {"used": 0, "pending at the end": 0}
    ways = {
        "by hand": by_hand,
        "amap": with_amap,
        "amap, process pool": with_amap_in_a_pool,
        "ProcessPoolExecutor.map": with_map,
    }
    for name, way in ways.items():
        source, began, got = Source(), time.monotonic(), []
        async with aclosing(way(source, args, args.work / args.speed)) as results:
            async for result in results:
                source.used += 1
                got.append(result)
                if len(got) == args.items:
                    break
        seconds = time.monotonic() - began
        right = len(set(got)) == args.items and all(n == int(n**0.5) ** 2 for n in got)
        left = len(asyncio.all_tasks()) - 1
        rows.append((name, f"{seconds:.1f} s", source.furthest, "yes" if right else "NO", left))
        status |= not right or left > 0 or (name != "by hand" and source.furthest > args.window)
        total["used"] += source.used
        total["pending at the end"] += source.taken - source.used
    headers = ("", "took", "most pending", "results are right", "tasks left")
    print(show.table(headers, rows))
    return status | show.check_law("taken", sum(total.values()), total)


def main() -> int:
    return asyncio.run(run(show.options(__doc__, items=1000, window=50, workers=8, work=0.02)))


if __name__ == "__main__":
    sys.exit(main())
