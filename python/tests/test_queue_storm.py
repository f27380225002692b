"""weir.Queue in a storm: coroutines of several loops, cancelled at random, among threads.

Each call waits until it is served, its timeout is over, or somebody cancels it, whichever comes
first, and often two of these come in the same instant.  In the end every item that was put has come
out, once, and nobody waits.

    WEIR_STORM=100000 .venv/bin/python -m pytest -s python/tests/test_queue_storm.py

says how many calls are cancelled, and shows what else happened; by default they are fewer.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
import time
from collections import Counter
from queue import Empty, Full

import pytest
from conftest import InThread
from test_queue_async import LOOPS, obeys_the_law

import weir
from weir._weir import Pending

STORM = int(os.environ.get("WEIR_STORM", "10000"))
WIDTH = 40  # calls at a time, of each loop
TIMEOUTS = (None, None, 0.0005, 0.005)


class Witness:
    """Puts and gets for one thread, whether it runs a loop or not, and what became of them."""

    def __init__(self, queue: weir.Queue[int], number: int) -> None:
        self._queue = queue
        self._chance = random.Random(number)
        self._next = number << 32
        self.put: list[int] = []
        self.got: list[int] = []
        self.cancelled: Counter[str] = Counter()
        self.expired = 0

    def _item(self) -> int:
        self._next += 1
        return self._next

    # ---- as coroutines ----

    async def _aput(self) -> None:
        item = self._item()
        await self._queue.aput(item, self._chance.choice(TIMEOUTS))
        self.put.append(item)

    async def _aget(self) -> None:
        self.got.append(await self._queue.aget(self._chance.choice(TIMEOUTS)))

    async def _aget_many(self) -> None:
        timeout = self._chance.choice(TIMEOUTS)
        self.got += await self._queue.aget_many(3, timeout=timeout, linger=0.0002)

    def _start(self) -> asyncio.Task[None]:
        kinds = (self._aput, self._aput, self._aput, self._aget, self._aget, self._aget_many)
        kind = self._chance.choice(kinds)
        return asyncio.get_running_loop().create_task(kind(), name=kind.__name__.lstrip("_"))

    def _note(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self.cancelled[task.get_name()] += 1
        elif isinstance(task.exception(), (Full, Empty)):
            self.expired += 1
        else:
            task.result()

    async def storm(self, cancellations: int) -> None:
        tasks = [self._start() for _ in range(WIDTH)]
        while self.cancelled.total() < cancellations:
            for i in self._chance.sample(range(WIDTH), 5):
                tasks[i].cancel()
            await asyncio.sleep(self._chance.choice((0, 0, 0, 0.0005)))
            for i, task in enumerate(tasks):
                if task.done():
                    self._note(task)
                    tasks[i] = self._start()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            self._note(task)

    # ---- as a thread ----

    def put_until(self, stop: threading.Event) -> None:
        while not stop.is_set():
            item = self._item()
            try:
                self._queue.put(item, timeout=0.002)
            except Full:
                self.expired += 1
            else:
                self.put.append(item)

    def get_until(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self.got.append(self._queue.get(timeout=0.002))
            except Empty:
                self.expired += 1


def run_loop(kind: str, witness: Witness, cancellations: int) -> None:
    loop = LOOPS[kind]()
    try:
        loop.run_until_complete(asyncio.wait_for(witness.storm(cancellations), 600))
    finally:
        loop.close()


@pytest.mark.timeout(600 if "WEIR_STORM" in os.environ else 60)
@pytest.mark.parametrize("maxsize", [1, 20])
def test_a_storm_of_cancellations_loses_no_item_and_leaves_no_waiter(maxsize: int) -> None:
    pytest.importorskip("uvloop", reason="uvloop is not installed")
    queue, stop, began = weir.Queue[int](maxsize), threading.Event(), time.monotonic()
    *of_loops, putter, getter = (Witness(queue, number) for number in range(5))
    loops = [
        InThread(run_loop, kind, witness, STORM // len(of_loops) + 1)
        for kind, witness in zip(("asyncio", "uvloop", "asyncio"), of_loops, strict=True)
    ]
    threads = [InThread(putter.put_until, stop), InThread(getter.get_until, stop)]
    for loop in loops:
        loop.result(600)
    stop.set()
    for thread in threads:
        thread.result()

    now = queue.stats()
    assert now.putters_waiting == now.getters_waiting == 0
    gc.collect()
    assert not [one for one in gc.get_referrers(queue) if type(one) is Pending], "places left"
    left = queue.get_many(maxsize, timeout=0) if now.qsize else []

    witnesses = [*of_loops, putter, getter]
    put = [item for witness in witnesses for item in witness.put]
    got = [item for witness in witnesses for item in witness.got] + left
    assert sorted(got) == sorted(put) and len(set(put)) == len(put)
    now = queue.stats()
    assert obeys_the_law(queue) and now.qsize == 0 and sum(now.dropped.values()) == 0
    assert now.accepted == now.delivered == now.unfinished_tasks == len(put)
    assert now.peak_qsize <= maxsize
    cancelled = sum((witness.cancelled for witness in of_loops), Counter[str]())
    assert cancelled.total() >= STORM
    assert cancelled["aput"] and cancelled["aget"] and cancelled["aget_many"]
    print(
        f"\nmaxsize {maxsize}: {cancelled.total():,} cancelled {dict(cancelled)}, "
        f"{sum(witness.expired for witness in witnesses):,} expired, {len(put):,} items, "
        f"each once, in {time.monotonic() - began:.1f} s"
    )
