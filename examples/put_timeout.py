#!/usr/bin/env python3
"""put_timeout.py - wait five seconds for room, then decide (scenario S10).

Orders must not be lost: their put waits as long as it takes.  Clicks may be: their put waits for
five seconds, and then the click is dropped, logged and counted.  The consumer uses two items a
second, and stands still for a while in the middle, as databases do.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from argparse import Namespace
from collections import Counter

import show
import weir


def main() -> int:
    args = show.options(
        __doc__, items=24, queue=4, critical_every=4, put_timeout=5.0, work=0.5, stall=17.0
    )
    items: weir.Queue[str] = weir.Queue(args.queue)
    used: list[str] = []
    consumer = threading.Thread(target=consume, args=(items, used, args))
    consumer.start()

    counts: Counter[str] = Counter()
    longest: Counter[str] = Counter()
    for number in range(1, args.items + 1):
        kind = "click" if number % args.critical_every else "order"
        began = time.monotonic()
        try:
            # An order waits as long as it takes, a click until the timeout.
            items.put(f"{kind} {number}", timeout=patience(kind, args))
            counts[f"{kind}s put"] += 1
        except queue.Full:
            counts[f"{kind}s dropped"] += 1
            print(f"dropped {kind} {number}: no room within {args.put_timeout:g} s")
        waited = (time.monotonic() - began) * args.speed
        longest[kind] = max(longest[kind], round(waited * 1000))
    items.shutdown()
    consumer.join()

    got = Counter(item.split()[0] for item in used)
    rows = [
        (
            f"{kind}s",
            counts[f"{kind}s put"],
            counts[f"{kind}s dropped"],
            got[kind],
            f"{longest[kind] / 1000:.1f} s",
        )
        for kind in ("order", "click")
    ]
    print(show.table(("", "put", "dropped", "used", "longest wait"), rows))
    if counts["orders dropped"]:
        print("an order was lost")
        return 1
    parts = {"used": len(used), "clicks dropped": counts["clicks dropped"]}
    return show.check_law("items", args.items, parts)


def patience(kind: str, args: Namespace) -> float | None:
    return None if kind == "order" else args.put_timeout / args.speed


def consume(items: weir.Queue[str], used: list[str], args: Namespace) -> None:
    for number, item in enumerate(items):
        used.append(item)
        time.sleep((args.stall if number == args.items // 3 else args.work) / args.speed)


if __name__ == "__main__":
    sys.exit(main())
