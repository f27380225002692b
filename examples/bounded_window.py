#!/usr/bin/env python3
"""bounded_window.py - at most 50 tasks pending, without the loop (scenario S2).

By hand: submit 50, wait for the first to finish, submit more until 50 are pending again, and do
not forget the rest at the end.  With weir: map(..., buffersize=50).  It takes items as results are
used, so the source may be endless, and what is pending stays at 50 even when nobody reads.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import sys
import time
from argparse import Namespace

import show
import weir
from show import Source


def square(number: int, seconds: float) -> int:
    time.sleep(seconds)
    return number * number


def by_hand(pool: concurrent.futures.Executor, source: Source, args: Namespace) -> int:
    total = 0
    pending = set()
    for number in itertools.islice(source, args.items):
        pending.add(pool.submit(square, number, args.work / args.speed))
        if len(pending) >= args.window:
            done, pending = concurrent.futures.wait(
                pending, return_when=concurrent.futures.FIRST_COMPLETED
            )
            source.used += len(done)
            total += sum(future.result() for future in done)
    return total + sum(future.result() for future in pending)


def with_map(pool: weir.ProcessPoolExecutor, source: Source, args: Namespace) -> int:
    total = 0
    seconds = itertools.repeat(args.work / args.speed)
    results = pool.map(square, source, seconds, chunksize=1, buffersize=args.window)
    for result in itertools.islice(results, args.items):
        source.used += 1
        total += result
    return total


def main() -> int:
    args = show.options(__doc__, items=2000, window=50, workers=8, work=0.02)
    right = sum(number * number for number in range(1, args.items + 1))
    rows = []
    for name in ("by hand", "weir map"):
        source, began = Source(), time.monotonic()
        if name == "by hand":
            with concurrent.futures.ProcessPoolExecutor(args.workers) as pool:
                total = by_hand(pool, source, args)
        else:
            with weir.ProcessPoolExecutor(
                args.workers, max_submit_backlog=args.window
            ) as weir_pool:
                total = with_map(weir_pool, source, args)
        seconds = time.monotonic() - began
        rows.append((name, f"{seconds:.1f} s", source.furthest, "yes" if total == right else "NO"))
    print(show.table(("", "took", "most pending", "sum is right"), rows))
    if source.furthest > args.window:
        print(f"the bound was broken: {source.furthest} items pending")
        return 1
    parts = {"used": source.used, "pending at the end": source.taken - source.used}
    status = show.check_law("taken", source.taken, parts)
    return status if total == right and source.used == args.items else 1


if __name__ == "__main__":
    sys.exit(main())
