"""MemoryGovernor: work waits until there is memory for it.

`_weir.Governor` decides and waits; here are the arguments as people write them, coroutines, and the
thread that tells `on_change`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

from weir import _weir
from weir._guard import check_timeout, number, share, warn_of_settings
from weir._stats import MemoryStats
from weir._weir import MemoryReservation

__all__ = ["MemoryGovernor", "MemoryReservation", "parse_bytes"]

_LOGGER = logging.getLogger("weir")

State = Literal["normal", "slow", "pause", "shed"]

_HOW = 'bytes (an int > 0, "512M", "2GiB") or a share of the memory there is ("80%")'


def _parse_limit(limit: int | str, name: str) -> tuple[int, float]:
    """(bytes, 0.0) or (0, fraction)."""
    if isinstance(limit, str):
        parsed = _weir.parse_memory(limit)
        if parsed is None:
            raise ValueError(f"{name!r} must be {_HOW}, not {limit!r}")
        return parsed
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise TypeError(f"{name!r} must be {_HOW}, not {limit!r}")
    if not 0 < limit < 2**62:
        raise ValueError(f"{name!r} must be > 0 and < 2**62 bytes, not {limit!r}")
    return limit, 0.0


def parse_bytes(value: int | str, name: str) -> int:
    """Bytes as people write them."""
    nbytes, fraction = _parse_limit(value, name)
    if fraction:
        raise ValueError(f'{name!r} must be bytes (an int > 0, "512M", "2GiB"), not {value!r}')
    return nbytes


def _parse_mark(value: float | None, name: str) -> float:
    return 0.0 if value is None else share(name, value)


def kind_of(key: object) -> int:
    """64 bits that stand for a function or any hashable key, in this process."""
    while isinstance(key, partial):
        key = key.func
    if not isinstance(key, (str, bytes, int, tuple)):
        key = (getattr(key, "__module__", None), getattr(key, "__qualname__", None) or type(key))
    return hash(key) & (2**64 - 1)


def core_of(memory: MemoryGovernor | None) -> _weir.Governor | None:
    """What a pool needs of a governor."""
    if memory is None:
        return None
    if not isinstance(memory, MemoryGovernor):
        raise TypeError(f"'memory' must be a weir.MemoryGovernor or None, not {memory!r}")
    return memory._core


def _watch(
    core: _weir.Governor,
    interval: float,
    on_change: Callable[[str], object],
    stop: threading.Event,
    last: str,
) -> None:
    """The thread of one governor with on_change; it does not refer to the governor."""
    while not stop.wait(interval):
        state = core.sample()
        if state != last:
            last = state
            try:
                on_change(state)
            except Exception:
                _LOGGER.exception("exception in on_change of a MemoryGovernor")


class MemoryGovernor:
    """Admits work by the memory it is going to use, so that the sum stays below a limit.

    limit      "80%": a share of the memory there is, which is the smallest of the machine's and of
               the bounds of this process's cgroup and all above it; whatever else is used of that,
               by whomever, is taken off.  Or bytes (an int, "2GiB", "512M"): what this process and
               its children use is taken off.  K, M, G, T are powers of 1024; kB, MB, GB, TB of
               1000.
    shared     a name: one governor for all processes of this user on this host that use the name;
               limit and marks are those of the process that makes it.  With a limit in bytes it
               bounds the sum of the reservations only.  What a killed process held comes back.
    name       shown in `repr` and `stats`
    interval   seconds between two measurements, at least 0.001
    slow, pause, shed    shares of the memory there is at which only half of what is left is given
               out, nothing, and at which who waits gets Overloaded; each is left again an eighth
               lower.  Default: a quarter, half and three quarters of the way from the limit to all
               there is; 0.85, 0.90 and 0.95 for "80%" and for bytes.
    on_change  called with the new state when it changes, in a thread of its own, within an interval

    One reservation may always be out, whatever is measured and however large it is, so that nobody
    waits for ever as long as memory is given back.  First come, first served.  Do not reserve more
    while holding a reservation of the same governor: two who do that wait for each other.  For the
    same reason, nobody who is to make a queue or a pool give memory back may wait for some: neither
    the consumer of a queue with memory=, nor a task of a pool with memory=.

    weir.Queue, weir.ThreadPoolExecutor and weir.ProcessPoolExecutor take it as memory=.

    In a forked child it is unusable.  All methods are thread-safe.
    """

    def __init__(
        self,
        limit: int | str = "80%",
        *,
        shared: str | None = None,
        name: str | None = None,
        interval: float = 0.1,
        slow: float | None = None,
        pause: float | None = None,
        shed: float | None = None,
        on_change: Callable[[State], object] | None = None,
    ) -> None:
        nbytes, fraction = _parse_limit(limit, "limit")
        number("interval", interval, 0.001, 3600)
        if on_change is not None and not callable(on_change):
            raise TypeError("'on_change' must be callable or None")
        slow_at = _parse_mark(slow, "slow")
        pause_at = _parse_mark(pause, "pause")
        shed_at = _parse_mark(shed, "shed")
        self._limit, self._shared, self._name, self._interval = limit, shared, name, interval
        self._core = _weir.Governor(
            nbytes, fraction, interval, slow_at, pause_at, shed_at, shared, name
        )
        self._marks = (slow, pause, shed)
        if shared is not None:
            there = self._core.snapshot()["limit"]
            if nbytes and there != nbytes:
                warn_of_settings(f"the governor {shared!r}", f"a limit of {there:,} bytes")
        self._stop: threading.Event | None = None
        if on_change is not None:
            self._stop = threading.Event()
            threading.Thread(
                target=_watch,
                args=(
                    self._core,
                    interval,
                    cast("Callable[[str], object]", on_change),
                    self._stop,
                    "normal",
                ),
                name=f"weir-memory-{name}" if name else "weir-memory",
                daemon=True,
            ).start()
            weakref.finalize(self, self._stop.set).atexit = False

    def __reduce__(self) -> tuple[Any, ...]:
        """A shared governor goes to other processes by its name, without `on_change`."""
        if self._shared is None:
            raise TypeError(
                "this governor is of one process and cannot be pickled; one with shared='name' can"
            )
        slow, pause, shed = self._marks
        again = partial(
            type(self),
            shared=self._shared,
            name=self._name,
            interval=self._interval,
            slow=slow,
            pause=pause,
            shed=shed,
        )
        return again, (self._limit,)

    # ---- reserving ------------------------------------------------------------------------------

    def reserve(self, nbytes: int, timeout: float | None = None) -> MemoryReservation:
        """Reserves memory, waiting in line for it; use it in a `with`, or `release` it.

        Raises TimeoutError after `timeout` seconds, Overloaded when the state is "shed" and it
        would have to wait, ShutDown once closed; ValueError unless 0 < nbytes < 2**62.
        """
        return self._core.reserve(nbytes, timeout)

    def try_reserve(self, nbytes: int) -> MemoryReservation | None:
        """Reserves memory if that needs no wait, else returns None.  Raises ShutDown."""
        return self._core.try_reserve(nbytes)

    async def areserve(self, nbytes: int, timeout: float | None = None) -> MemoryReservation:
        """As `reserve`, in a coroutine.

        With `shared` it asks again and again, so that who waits in `reserve` comes first.
        """
        if self._shared is not None:
            return await self._areserve_shared(nbytes, timeout)
        loop = asyncio.get_running_loop()
        alarm: asyncio.TimerHandle | None = None

        def measure() -> None:
            nonlocal alarm
            alarm = loop.call_later(self._interval, measure)
            self._core.sample()

        def begin(ready: Callable[[], object]) -> _weir.Pending[MemoryReservation]:
            nonlocal alarm
            pending = self._core.begin(nbytes, ready)
            if not pending.done:
                alarm = loop.call_later(self._interval, measure)
            return pending

        try:
            return await _weir.wait(begin, timeout)
        except TimeoutError:
            raise TimeoutError(f"no memory for {nbytes} bytes within {timeout} s") from None
        finally:
            if alarm is not None:
                alarm.cancel()

    async def _areserve_shared(self, nbytes: int, timeout: float | None) -> MemoryReservation:
        check_timeout(timeout)
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        pause = 0.001
        while True:
            reservation = self._core.try_reserve(nbytes)
            if reservation is not None:
                return reservation
            if self._core.sample() == "shed":
                return self._core.reserve(nbytes)  # raises Overloaded, or need not wait
            if until is not None and loop.time() >= until:
                raise TimeoutError(f"no memory for {nbytes} bytes within {timeout} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.05)

    # ---- learning -------------------------------------------------------------------------------

    def observe(self, key: object, peak_bytes: int) -> None:
        """A task of this kind (a function, or any str, int or tuple) took so much at its peak."""
        self._core.observe(kind_of(key), max(peak_bytes, 1))

    def estimate(self, key: object) -> int | None:
        """Bytes that the next one should reserve; None: nothing is known yet, let it run alone.

        The 95th percentile of the last 32 peaks and a tenth more; of up to seven, a fifth more.
        """
        return self._core.estimate(kind_of(key)) or None

    # ---- looking --------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """ "normal", "slow", "pause" or "shed", measured an interval ago at most."""
        return cast("State", self._core.sample())

    def stats(self) -> MemoryStats:
        """One instant of what is reserved, and the last measurement."""
        return MemoryStats(name=self._name, **self._core.snapshot())

    def close(self) -> None:
        """Admits nobody any more; who waits gets ShutDown; queues and pools go on without it."""
        self._core.close()
        if self._stop is not None:
            self._stop.set()

    def __repr__(self) -> str:
        name = f" {self._name!r}" if self._name else ""
        shared = f", shared={self._shared!r}" if self._shared is not None else ""
        return f"<weir.MemoryGovernor{name}: limit {self._limit!r}{shared}>"
