"""How many small messages a second does one process send to another through a shared queue?

One producer, one consumer, messages of 16 bytes. "one by one": put and get; "in batches": put_many
and get_many of up to 100. The consumer counts; the clock stops when it has said that all came.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import harness
from harness import Subject

MESSAGE = b"sixteen bytes ok"
BATCH = 100
CAPACITY = 1000

Receive = Callable[[], int]  # waits for at least one message; how many there were
Send = Callable[[int], None]


def rate(send: Send, receive: Receive, effort: float, n: int) -> float:
    """Thousands of messages a second, from a forked process to this one."""
    context = multiprocessing.get_context("fork")
    n = max(BATCH, int(n * effort) // BATCH * BATCH)
    go = context.Event()

    def produce() -> None:
        send(BATCH)  # both ends are warm before the clock runs
        go.wait()
        send(n)

    producer = context.Process(target=produce)
    producer.start()
    left = BATCH
    while left:
        left -= receive()
    go.set()
    began = time.perf_counter()
    left = n
    while left > 0:
        left -= receive()
    seconds = time.perf_counter() - began
    producer.join()
    if left or producer.exitcode:
        raise AssertionError(f"{-left} messages too many; exit code {producer.exitcode}")
    return n / seconds / 1e3


def ends(queue: Any, batched: bool) -> tuple[Send, Receive]:
    def send(n: int) -> None:
        for _ in range(n):
            queue.put(MESSAGE)

    def receive() -> int:
        queue.get()
        return 1

    def send_many(n: int) -> None:
        batch = [MESSAGE] * BATCH
        for _ in range(n // BATCH):
            queue.put_many(batch)

    def receive_many() -> int:
        return len(queue.get_many(BATCH))

    return (send_many, receive_many) if batched else (send, receive)


def weir(case: str, effort: float) -> float:
    import weir

    if not hasattr(weir, "SharedQueue"):
        raise harness.Missing("this weir has no SharedQueue")
    queue: weir.SharedQueue[Any] = weir.SharedQueue(CAPACITY)
    return rate(*ends(queue, case == "in batches"), effort, 400_000)


def standard(case: str, effort: float) -> float:
    queue: Any = multiprocessing.get_context("fork").Queue(CAPACITY)
    return rate(*ends(queue, False), effort, 40_000)


def faster_fifo(case: str, effort: float) -> float:
    import faster_fifo
    from faster_fifo import Full

    queue = faster_fifo.Queue(max_size_bytes=1 << 20, maxsize=CAPACITY)

    def send(n: int) -> None:
        for _ in range(n):
            queue.put(MESSAGE, timeout=30)

    def receive() -> int:
        queue.get(timeout=30)
        return 1

    def send_many(n: int) -> None:
        batch = [MESSAGE] * BATCH
        for _ in range(n // BATCH):
            # All of a batch, or none of it and Full, although there may be room at the next moment.
            while True:
                try:
                    queue.put_many(batch, timeout=30)
                    break
                except Full:
                    continue

    def receive_many() -> int:
        return len(queue.get_many(max_messages_to_get=BATCH, timeout=30))

    batched = case == "in batches"
    return rate(
        send_many if batched else send, receive_many if batched else receive, effort, 100_000
    )


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="k messages/s",
    better="more",
    cases=("one by one", "in batches"),
    weir=(Subject("weir.SharedQueue", weir),),
    peers=(
        Subject(
            "multiprocessing.Queue", standard, target=">= 10", cases=("one by one",),
            note="a thread feeds a pipe; it has no batches",
        ),
        Subject("faster-fifo", faster_fifo, target=">= 2", package="faster-fifo"),
    ),
)  # fmt: skip

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
