"""A plugin of pytest that runs each test several times and says what grows: `scripts/refleaks`.

Counted after each run, when the collector has been three times: the interpreter's blocks of memory
(of the debug build: references, too), objects of weir's types, descriptors, threads, and mappings
of shared memory.  The first runs warm up what is made once and kept.  What has then grown by each
of two, and by each of some more, is a leak: what is kept once more, by a cache, stops.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

WARM_UP = 2
A_LOOK, RUNS = 2, 6
BLOCKS_OF_PYTEST = 1  # that it keeps of each run by itself

BLOCKS = "blocks of memory"
resting = threading.active_count()


def take_stock() -> Counter[str]:
    global resting
    give_up = time.monotonic() + 2
    while threading.active_count() > resting and time.monotonic() < give_up:
        time.sleep(0.01)  # a thread that a test has told to end
    resting = threading.active_count()
    for _ in range(3):
        gc.collect()
    sys._clear_type_cache()  # which keeps the names that were looked up
    now = Counter({"threads": resting})
    for thing in gc.get_objects():
        kind = type(thing)
        if str(kind.__module__).startswith("weir"):  # of some types it is a descriptor
            now[f"objects of {kind.__module__}.{kind.__qualname__}"] += 1
    now["descriptors"] = len(os.listdir("/proc/self/fd"))
    with open("/proc/self/maps") as maps:
        now["mappings"] = sum("memfd:weir" in line for line in maps)
    now[BLOCKS] = sys.getallocatedblocks()
    if hasattr(sys, "gettotalrefcount"):
        now["references"] = sys.gettotalrefcount()
    return now


class Sibling:
    """The test that comes next, as far as it is asked: what it has above it stays set up."""

    def __init__(self, item: Any) -> None:
        self._above: list[Any] = item.listchain()[:-1]

    def listchain(self) -> list[Any]:
        return self._above


def run_once(item: Any) -> None:
    """Sets it up, runs it and tears it down; only what the last run says is reported."""
    runtestprotocol(item, nextitem=Sibling(item), log=False)  # type: ignore[arg-type]
    item._initrequest()
    item._report_sections.clear()
    item.user_properties.clear()


def growth(item: Any, runs: int) -> Counter[str]:
    """What each of the runs has added at least."""
    least: Counter[str] | None = None
    before = take_stock()
    for _ in range(runs):
        run_once(item)
        after = take_stock()
        added = Counter({what: after[what] - before[what] for what in after})
        least = added if least is None else Counter({k: min(least[k], added[k]) for k in added})
        before = after
    least = least or Counter()
    least[BLOCKS] -= BLOCKS_OF_PYTEST
    return +least


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: Any, nextitem: Any) -> Generator[None, Any, Any]:
    for _ in range(WARM_UP):
        run_once(item)
    grown = growth(item, A_LOOK)
    if grown:
        grown &= growth(item, RUNS)
    if grown:
        what = ", ".join(f"{n} {kind}" for kind, n in grown.most_common())
        with open(os.environ["WEIR_LEAKS"], "a") as leaks:  # of all processes that run tests
            leaks.write(f"{item.nodeid}: each run leaves {what}\n")
    return (yield)
