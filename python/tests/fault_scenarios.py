"""What test_faults.py runs, in an interpreter with build/tests/libweir_faults.so preloaded.

    python fault_scenarios.py NAME

A scenario is a life of one object.  It is lived once for each kind of call and each n, with the
n-th call of that kind failing, until a life ends before its n-th call.  What fails must raise
MemoryError or OSError (or what says that a worker or a thread could not be started), once; the same
call then succeeds; every item comes out once; and no object, descriptor or allocation is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import json
import os
import pickle
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

import weir
from weir import _weir

T = TypeVar("T")

KINDS = [
    *("python", "malloc", "mmap", "memfd_create", "eventfd", "fallocate"),
    *("open", "pthread_create", "fork", "pwrite", "pread"),
]  # as in preload.c


def explains(kind: str, error: BaseException) -> bool:
    """Whether that is what may be raised when a call of the kind has failed."""
    if kind in ("pthread_create", "fork"):
        return isinstance(error, (OSError, RuntimeError))
    if kind in ("python", "malloc"):  # the interpreter has a lock of its own, and its own words
        return isinstance(error, MemoryError) or str(error) == "can't allocate lock"
    if kind == "pread":
        return isinstance(error, OSError) and "cannot be read" in str(error)
    return isinstance(error, (OSError, MemoryError))


class Control(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("countdown", "hits", "kind", "allocations")]


library = ctypes.CDLL(os.environ["LD_PRELOAD"])
control = Control.in_dll(library, "weir_faults")


class Item:
    """Who is alive is counted."""

    alive = 0

    def __init__(self, number: int) -> None:
        self.number = number
        Item.alive += 1

    def __del__(self) -> None:
        Item.alive -= 1

    def __reduce__(self) -> tuple[Any, ...]:
        return Item, (self.number,)


class Explodes:
    """Cannot be unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return explode, ()


def explode() -> None:
    raise ZeroDivisionError("as it was unpickled")


class Life:
    """One life of a scenario's object, and what failed in it."""

    def __init__(self, kind: str, n: int) -> None:
        self.kind = kind
        self.refused = 0
        self._left = n
        control.hits = 0
        control.kind = KINDS.index(kind)

    def call(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Calls it, once more if it failed for want of what is made to fail."""
        control.countdown = self._left
        try:
            result = fn(*args, **kwargs)
            self._left, control.countdown = control.countdown, 0
            return result
        except BaseException as error:
            self._left, control.countdown = control.countdown, 0
            for told in (error, error.__context__):  # (no memory for a traceback, behind the call)
                if told and hasattr(told, "messages"):
                    raise told from None  # with what could not be read, so nothing is lost
            self._excuse(error)
        return fn(*args, **kwargs)

    def result(self, future: Future[T], expected: T) -> None:
        """It is that, or the future says why not."""
        try:
            assert future.result(60) == expected
        except (OSError, MemoryError, RuntimeError) as error:
            self._excuse(error)

    def _excuse(self, error: BaseException) -> None:
        assert control.hits == 1, error
        assert explains(self.kind, error), repr(error)
        assert str(error) or isinstance(error, MemoryError), repr(error)
        self.refused += 1
        assert self.refused == 1, error


# ---- the scenarios ---------------------------------------------------------------------------


def queue(life: Life) -> None:
    dropped: list[int] = []
    q = life.call(weir.Queue, 40, on_drop=lambda item, reason: dropped.append(item.number))
    items = [Item(n) for n in range(40)]
    for item in items[:20]:
        life.call(q.put, item)
    rest = items[20:]
    while rest:
        rest = rest[life.call(q.put_many, rest, timeout=0) :]
    life.call(q.item_fd)
    got = [life.call(q.get).number for _ in range(10)]
    got += [item.number for item in life.call(q.get_many, 10)]
    assert got == list(range(20)), got
    life.call(q.stats)
    life.call(setattr, q, "maxsize", 50)
    assert life.call(q.get, timeout=1).number == 20
    life.call(repr, q)
    q.shutdown(immediate=True)
    assert dropped == list(range(21, 40))


def awaited(life: Life, make: Callable[[], Awaitable[T]]) -> T:
    """What is awaited, without an event loop: it need not wait."""
    results: list[Any] = [life]  # in place: to append may fail, too

    async def keep() -> None:
        results[0] = await make()

    def run() -> None:
        if results[0] is life:  # else it was there, and there was no memory to say so
            with contextlib.suppress(StopIteration):
                keep().send(None)

    life.call(run)
    result: T = results[0]
    return result


def queue_that_is_awaited(life: Life) -> None:
    q: weir.Queue[int] = weir.Queue(40)
    for n in range(10):
        awaited(life, partial(q.aput, n))
    assert q.put_many(range(10, 30)) == 20
    got = [awaited(life, q.aget) for _ in range(5)]
    for _ in range(5):
        got += awaited(life, partial(q.aget_many, 5))
    assert got == list(range(30)), got
    q.shutdown()


def queue_of_bytes(life: Life) -> None:
    q = life.call(
        weir.Queue, 10, max_bytes=1000, sizer=len, overflow="drop_oldest", max_age=60, name="b"
    )
    for n in range(30):
        life.call(q.put, bytes(10 * n))
    stats = life.call(q.stats)
    assert stats.accepted == stats.delivered + sum(stats.dropped.values()) + q.qsize()
    for _ in range(q.qsize()):
        life.call(q.get_nowait)
    q.shutdown()


def queue_that_spills(life: Life) -> None:
    if life.kind == "pread":
        return  # what cannot be read is lost, and counted: see queue_that_is_opened_again
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        disk = life.call(weir.Spill, folder, max_bytes=1 << 20)
        q = life.call(weir.Queue, 4, overflow="spill", spill=disk)
        for n in range(20):
            life.call(q.put, n)
        assert [life.call(q.get) for _ in range(20)] == list(range(20))
        q.shutdown()


def queue_that_is_opened_again(life: Life) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        disk = weir.Spill(folder, max_bytes=1 << 20, segment_bytes=512, durable=True)
        q: weir.Queue[int] = weir.Queue(50, overflow="spill", spill=disk)
        assert q.put_many(range(40)) == 40
        assert q.get() == 0
        del q
        again = life.call(weir.Queue, 50, overflow="spill", spill=disk)
        again.shutdown()
        got = list(again)  # what could not be read by now is there for the next one
        del again
        last: weir.Queue[int] = weir.Queue(50, overflow="spill", spill=disk)
        last.shutdown()
        assert sorted({*got, *last}) == list(range(1, 40))


def shared_queue(life: Life) -> None:
    q: weir.SharedQueue[Any] = life.call(weir.SharedQueue, 20, max_bytes=1 << 20)
    values = [1, 2.5, "text", None, b"x" * 100000, (1, 2), [1, 2, 3]]
    for value in values:
        life.call(q.put, value)
    got = [life.call(q.get, timeout=0) for _ in values]
    assert got == values, got
    values = [*values, Explodes(), *range(10), {1: 2}]
    for value in values:  # (pickle says of any failure that a function cannot be pickled)
        q.put(value)
    got = []
    while q.qsize() or len(got) < len(values) - 1:
        try:
            got += life.call(q.get_many, 80, timeout=0)
        except (ZeroDivisionError, pickle.UnpicklingError) as error:  # or what hides a MemoryError
            got += error.batch  # type: ignore[union-attr]
            for message in error.messages:  # type: ignore[union-attr]
                if b"explode" not in message:
                    got.append(pickle.loads(message))
    del values[7]
    assert sorted(map(str, got)) == sorted(map(str, values)), got
    stats = life.call(q.stats)
    assert stats.accepted == stats.delivered == 2 * 7 + 12
    q.shutdown()


def bucket(life: Life) -> None:
    b = life.call(weir.TokenBucket, 1000, burst=5)
    for _ in range(8):
        life.call(b.acquire)
    life.call(b.try_acquire)
    reservation = life.call(b.reserve, 2)
    reservation.cancel()
    life.call(b.stats)


def limiter(life: Life) -> None:
    limits = life.call(weir.Limiter, weir.Gradient2(), partitions={"live": 0.8, "batch": 0.2})
    for _ in range(3):
        with life.call(limits.acquire, partition="live") as permit:
            permit.drop()
        life.call(lambda: limits.acquire(partition="batch").__enter__().__exit__(None, None, None))
    stats = life.call(limits.stats)
    assert stats.in_flight == 0, stats


def breaker(life: Life) -> None:
    b = life.call(weir.CircuitBreaker, is_failure=ValueError)
    for _ in range(3):
        assert life.call(b.call, int, "5") == 5
    life.call(b.stats)


def watermark(life: Life) -> None:
    mark = life.call(weir.Watermark, 10)
    assert mark.add(20)
    life.call(mark.fileno)
    assert not mark.sub(20)
    life.call(mark.drain)
    life.call(mark.stats)


def governor(life: Life) -> None:
    g = life.call(weir.MemoryGovernor, 1 << 40)
    for _ in range(3):
        with life.call(g.reserve, 1 << 20):
            pass
    life.call(g.stats)


def thread_pool(life: Life) -> None:
    ran: list[int] = []
    pool = weir.ThreadPoolExecutor(2)
    futures = [life.call(pool.submit, ran.append, n) for n in range(8)]
    for future in futures:
        assert future.result(30) is None
    life.call(pool.stats)
    pool.shutdown()
    assert sorted(ran) == list(range(8))


def process_pool(life: Life) -> None:
    pool = life.call(weir.ProcessPoolExecutor, 1)
    payloads = [b"a", b"b" * 5000, b"c" * 400000]
    futures = [life.call(pool.submit, len, payload) for payload in payloads]
    for future, payload in zip(futures, payloads, strict=True):
        life.result(future, len(payload))
    pool.shutdown()


def shared_array(life: Life) -> None:
    buffer = life.call(weir.SharedBuffer, 100000)
    with memoryview(buffer) as view:
        view[:5] = b"hello"
    del buffer, view


SCENARIOS: dict[str, Callable[[Life], None]] = {
    function.__name__: function
    for function in (
        queue,
        queue_that_is_awaited,
        queue_of_bytes,
        queue_that_spills,
        queue_that_is_opened_again,
        shared_queue,
        bucket,
        limiter,
        breaker,
        watermark,
        governor,
        thread_pool,
        process_pool,
        shared_array,
    )
}

# Not with Python's own allocations: it takes locks in Python, and `with lock:` of the interpreter
# does not release the lock when there is no memory for the arguments of its __exit__.
NOT_IN_PYTHON = {"process_pool"}


# ---- living them -----------------------------------------------------------------------------


def stock() -> dict[str, int]:
    for _ in range(3):
        gc.collect()
    return {
        "items": Item.alive,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "allocations": control.allocations,
        "objects": sum(type(o).__module__.startswith("weir") for o in gc.get_objects()),
    }


def live(scenario: Callable[[Life], None], kind: str, n: int) -> bool:
    """Whether the n-th call came."""
    life = Life(kind, n)
    try:
        scenario(life)
    finally:
        control.countdown = 0
    return bool(control.hits > 0)


def ns() -> Iterator[int]:
    """Each one at first, then strides that grow."""
    every = bool(os.environ.get("WEIR_EVERY_CALL"))
    n = 1
    while True:
        yield n
        n += 1 if every else 1 + n // 8


def main(name: str) -> None:
    faulthandler.dump_traceback_later(100, exit=True)  # whatever hangs says where
    scenario = SCENARIOS[name]
    assert library.weir_faults_watch(os.path.realpath(_weir.__file__).encode()) == 0
    for _ in range(3):  # what is made once and kept
        live(scenario, "malloc", 0)
    failed = {}
    for kind in KINDS:
        if kind == "python" and name in NOT_IN_PYTHON:
            continue
        before = stock()
        for n in ns():
            print(f"{kind} {n}", end=" ", file=sys.stderr)  # the last one, should it end here
            if not live(scenario, kind, n):
                break
            after = stock()
            assert after == before, f"{kind} {n}: {before} became {after}"
        failed[kind] = n - 1
    print(json.dumps(failed))


if __name__ == "__main__":
    main(sys.argv[1])
