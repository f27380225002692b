"""So many calls at a time: `Limiter`, the ways to find the limit, and `LimitModel`."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from weir import _weir
from weir._guard import check, check_timeout, number, warn_of_settings, wrap_entered
from weir._stats import LimiterStats
from weir._weir import LimitPermit

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AIMD", "Gradient2", "LimitModel", "LimitPermit", "Limiter", "Vegas"]

F = TypeVar("F", bound=Callable[..., Any])
_NEVER = 9e9  # seconds
_Settings = tuple[Any, ...]  # as parse_settings in ext/limiter.c reads them


@dataclass(frozen=True)
class _Adaptive:
    """What the ways to find a limit have in common.

    initial, min_limit, max_limit  where it begins, and what it never leaves; 1 to 2**46 - 1
    """

    initial: int = 20
    min_limit: int = 1
    max_limit: int = 1000

    def __post_init__(self) -> None:
        for name in ("initial", "min_limit", "max_limit"):
            value = getattr(self, name)
            is_int = isinstance(value, int) and not isinstance(value, bool)
            check(is_int and 1 <= value < 1 << 46, name, "an int from 1 to 2**46 - 1", value)
        fits = self.min_limit <= self.initial <= self.max_limit
        check(fits, "initial", "from min_limit to max_limit", self.initial)
        values = vars(self)
        if "window_samples" in values:
            count = values["window_samples"]
            ok = isinstance(count, int) and 1 <= count <= 1_000_000
            check(ok, "window_samples", "an int from 1 to 1000000", count)
        for name in ("timeout", "probe_interval", "queue", "alpha", "beta"):
            value = values.get(name)
            check(value is None or number(name, value, 0) > 0, name, "> 0, or None", value)
        number("window", values.get("window", 0), 0)
        smoothing = values.get("smoothing", 1)
        check(0 < smoothing <= 1, "smoothing", "above 0 and at most 1", smoothing)

    def _settings(self) -> _Settings:
        values = vars(self)
        rtt = values.get("latency", "average")
        check(
            rtt in ("average", "min") or (isinstance(rtt, float) and 0 < rtt < 1),
            "latency",
            '"average", "min" or a quantile between 0 and 1',
            rtt,
        )
        timeout, interval = values["timeout"], values.get("probe_interval", None)
        return (
            type(self).__name__.lower(),
            self.initial,
            self.min_limit,
            self.max_limit,
            _NEVER if timeout is None else float(timeout),
            float(values.get("backoff", 0)),
            float(values.get("alpha") or 0),
            float(values.get("beta") or 0),
            float(values.get("smoothing", 0)),
            float(values.get("tolerance", 0)),
            float(values.get("queue") or 0),
            0 if rtt == "average" else 1 if rtt == "min" else 2,
            rtt if isinstance(rtt, float) else 0.0,
            values["window_samples"],
            float(values["window"]),
            -1.0 if interval is None else float(interval),
        )


@dataclass(frozen=True)
class AIMD(_Adaptive):
    """A limit that grows by one while all is well, and shrinks by a tenth after a drop.

    It sees no latency: with a service that neither refuses nor takes longer than `timeout` it
    grows to max_limit.

    backoff         what is left of the limit after a drop, 0.5 to below 1
    timeout         seconds; a call that took longer was dropped; None: there is no such bound
    window_samples  it changes once for so many calls at least
    window          seconds that a window lasts at least; 0: as long as a call takes
    """

    backoff: float = 0.9
    timeout: float | None = 5.0
    window_samples: int = 10
    window: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0.5 <= self.backoff < 1, "backoff", "0.5 to below 1", self.backoff)


@dataclass(frozen=True)
class Vegas(_Adaptive):
    """A limit that keeps a few calls, and no more, waiting in front of what serves them.

    alpha, beta     so many should wait, from and to; None: three and six times the digits of the
                    limit, but at most 1/32 and 1/16 of it, and at least 2
    smoothing       how much of a step is taken, above 0 to 1
    probe_interval  seconds after which the latency without a queue is measured again, about; the
                    limit is lower by a quarter for two round trips then; None: never
    latency         what the latencies of a window come to: "average", "min", or a quantile (0.5)
    timeout         seconds; a call that took longer was dropped; None: there is no such bound
    window_samples  the limit changes once for so many calls at least
    window          seconds that a window lasts at least; 0: as long as a call takes
    """

    alpha: float | None = None
    beta: float | None = None
    smoothing: float = 1.0
    probe_interval: float | None = 10.0
    latency: Literal["average", "min"] | float = "average"
    timeout: float | None = None
    window_samples: int = 10
    window: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha is not None and self.beta is not None:
            check(self.alpha <= self.beta, "alpha", "at most beta", self.alpha)


@dataclass(frozen=True)
class Gradient2(_Adaptive):
    """A limit that follows the ratio of the latency without a queue to the latency now.

    tolerance       how many times longer than without a queue calls may take, 1 or more
    queue           how many calls may wait; None: 5 % of the limit, at least 1
    smoothing       how much of a step is taken, above 0 to 1

    probe_interval, latency, timeout, window_samples and window are as for `Vegas`.
    """

    tolerance: float = 1.0
    queue: float | None = None
    smoothing: float = 0.2
    probe_interval: float | None = 10.0
    latency: Literal["average", "min"] | float = "average"
    timeout: float | None = None
    window_samples: int = 10
    window: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.tolerance >= 1, "tolerance", ">= 1", self.tolerance)


def _settings_of(limit: int | AIMD | Vegas | Gradient2) -> _Settings:
    if isinstance(limit, _Adaptive):
        return limit._settings()
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise TypeError(f"'limit' must be an int, AIMD, Vegas or Gradient2, not {limit!r}")
    check(1 <= limit < 1 << 46, "limit", "from 1 to 2**46 - 1", limit)
    return ("fixed", limit, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


class LimitModel(_weir.LimitModel):
    """Finds a limit without enforcing one: for simulations, and other ways to enforce it.

    It has no clock, so thirty seconds may pass in a millisecond.
    """

    def __new__(cls, limit: AIMD | Vegas | Gradient2) -> Self:
        if not isinstance(limit, _Adaptive):
            raise TypeError(f"'limit' must be an AIMD, Vegas or Gradient2, not {limit!r}")
        return super().__new__(cls, limit._settings())

    def __init__(self, limit: AIMD | Vegas | Gradient2) -> None:
        self._settings = limit

    def __repr__(self) -> str:
        return f"<weir.LimitModel {self._settings!r}: {self.limit}>"


if sys.version_info >= (3, 11):
    _TIMEOUTS: tuple[type[BaseException], ...] = (TimeoutError,)
else:
    _TIMEOUTS = (TimeoutError, asyncio.TimeoutError)


_all_shared: weakref.WeakSet[Limiter] = weakref.WeakSet()


@atexit.register
def _at_exit() -> None:
    """Ends the threads that wait for coroutines, so that the shared memory is let go."""
    for limiter in list(_all_shared):
        limiter._end()


class Limiter(_weir.Limiter):
    """So many calls at a time, for threads, event loops and processes together.

        limiter = weir.Limiter(10)             # or weir.Gradient2(), weir.Vegas(), weir.AIMD()
        with limiter: ...                      # or `async with limiter:`, or @limiter
        with limiter.acquire(timeout=1): ...   # or `with await limiter.aacquire(timeout=1):`

    limit       how many, or how to find out: an adaptive limit learns from what each call takes,
                and from those that are dropped
    partitions  names and their guaranteed shares of the limit, {"live": 0.8, "batch": 0.2}; up to
                8.  A share that is not used is lent; acquire(partition=...) says which
    order       "fifo": who waits is admitted in the order they came; "lifo": the last first
    shed_after  seconds; in a line through which nobody gets quicker than this, those who have
                waited for twice as long get weir.Overloaded; None: nobody does
    shared      a name: one limit for all processes of the user on this host that give it.  The
                first one says what it is.  What a killed process had in flight comes back
    name        for people who look at it
    drop_on     exceptions that report a drop when a `with` block or a decorated call ends with
                them; by default TimeoutError.  With others the call is ignored (they say nothing
                about load), without one it is a success

    Any number of `with` blocks may be open on one limiter, in any threads and tasks, nested too
    (who nests them holds several places: with a small limit that can wait for itself).
    """

    def __init__(
        self,
        limit: int | AIMD | Vegas | Gradient2,
        *,
        partitions: Mapping[str, float] | None = None,
        order: Literal["fifo", "lifo"] = "fifo",
        shed_after: float | None = None,
        shared: str | None = None,
        name: str | None = None,
        drop_on: type[BaseException] | tuple[type[BaseException], ...] = _TIMEOUTS,
    ) -> None:
        check(order in ("fifo", "lifo"), "order", '"fifo" or "lifo"', order)
        if shed_after is not None:
            check(number("shed_after", shed_after, 0, 1e6) > 0, "shed_after", "> 0 s", shed_after)
        shares = None if partitions is None else dict(partitions)
        if shares is not None:
            for key, share in shares.items():
                number(f"partitions[{key}]", share, 0, 1)
            total = sum(shares.values())
            check(total <= 1 + 1e-9, "partitions", "shares whose sum is at most 1", partitions)
        for kind in drop_on if isinstance(drop_on, tuple) else (drop_on,):
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise TypeError(f"'drop_on' must be exception classes, not {drop_on!r}")
        self._limit, self._partitions, self._order = limit, shares, order
        self._shed_after, self._shared, self._drop_on = shed_after, shared, drop_on
        self.name = name if name is not None else shared
        self._lines: dict[str | None, _Line] = {}
        self._lines_of = os.getpid()
        self._lines_lock = threading.Lock()
        super().__init__(
            _settings_of(limit), shares, order == "lifo", shed_after or 0, 0, shared, drop_on, name
        )
        if shared is not None:
            _all_shared.add(self)
        if shared is not None and not self._is_as_said():
            there = self._snapshot()
            warn_of_settings(
                f"the limiter {shared!r}",
                f"the algorithm {there['algorithm']!r} and a limit of {there['limit']}",
            )

    def _is_as_said(self) -> bool:
        """Not so where a shared limiter had been there with other settings, or was changed."""
        there = self._snapshot()
        if isinstance(self._limit, int):
            return bool(there["algorithm"] == "fixed" and there["limit"] == self._limit)
        return bool(there["algorithm"] == type(self._limit).__name__.lower())

    # ---- as a coroutine --------------------------------------------------------------------------

    async def aacquire(
        self, timeout: float | None = None, *, partition: str | None = None, cost: int = 1
    ) -> LimitPermit:
        """acquire() for coroutines, of any number of event loops; timeout in seconds, >= 0.

        One that is cancelled leaves the line, or gives back what it was just given.
        """
        check_timeout(timeout)
        if timeout == 0:
            return self._try_at_once(partition, cost)
        permit = None if self._others_wait(partition) else self._probe(partition, cost)
        if permit is not None:
            return permit
        if self._shared is not None:
            return await self._line(partition).wait(cost, timeout)
        try:
            return await _weir.wait(lambda ready: self._pend(ready, partition, cost), timeout)
        except TimeoutError:
            raise TimeoutError("no permit within the timeout") from None

    def _try_at_once(self, partition: str | None, cost: int) -> LimitPermit:
        """Without a place in line, which would keep others out while it is given up again."""
        if not self._others_wait(partition):
            permit = self.try_acquire(partition=partition, cost=cost)
            if permit is not None:
                return permit
        else:
            self._count_refused()
        raise TimeoutError("no permit within the timeout")

    def _others_wait(self, partition: str | None) -> bool:
        """Coroutines of this process, of which only the first stands in the shared line."""
        line = self._lines.get(partition)
        return line is not None and line.is_busy and self._lines_of == os.getpid()

    def _line(self, partition: str | None) -> _Line:
        if self._lines_of != os.getpid():  # its threads are the parent's
            self._lines, self._lines_lock = {}, threading.Lock()
            self._lines_of = os.getpid()
        with self._lines_lock:
            if partition not in self._lines:
                self._lines[partition] = _Line(self, partition)
            return self._lines[partition]

    def _end(self) -> None:
        self.close()
        if self._lines_of == os.getpid():
            for line in self._lines.values():
                line.join()

    async def __aenter__(self) -> None:
        if self._others_wait(None) or not self._try_enter():
            self._enter_with(await self.aacquire())

    async def __aexit__(self, *exception: object) -> None:
        self.__exit__(*exception)

    # ---- as a decorator --------------------------------------------------------------------------

    def __call__(self, fn: F) -> F:
        """Makes a function, or an async one, that runs inside `with limiter`."""
        return wrap_entered(self, fn, f"to be admitted: acquire(), or acquire(cost={fn!r})")

    # ---- looking ---------------------------------------------------------------------------------

    def stats(self) -> LimiterStats:
        """One instant of the limiter."""
        return LimiterStats(name=self.name, **self._snapshot())

    def __repr__(self) -> str:
        adapts = not isinstance(self._limit, int) and self._is_as_said()
        how = f" by {self._limit!r}" if adapts else ""
        name = f" {self.name!r}" if self.name is not None else ""
        return f"<weir.Limiter{name}: {self.in_flight} of {self.limit}{how}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._shared is None:
            raise TypeError(
                "this limiter is of one process and cannot be pickled; one with shared='name' can"
            )
        again = functools.partial(
            type(self),
            partitions=self._partitions,
            order=self._order,
            shed_after=self._shed_after,
            shared=self._shared,
            name=self.name,
            drop_on=self._drop_on,
        )
        return again, (self._limit,)


# ---- coroutines before a shared limit ------------------------------------------------------------


class _Call:
    """A coroutine that waits; its line's lock guards it."""

    def __init__(self, cost: int) -> None:
        self.cost = cost
        self.loop = asyncio.get_running_loop()
        self.waiter: asyncio.Future[None] = self.loop.create_future()
        self.permit: LimitPermit | None = None
        self.error: BaseException | None = None
        self.is_served = False  # with the one or the other
        self.is_over = False


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class _Line:
    """The coroutines of this process before a shared limit, in the order they came.

    No process can tell the event loop of another, so a thread stands in the shared line for all of
    them, as long as there are any, and hands on what it gets.  What it gets for one that has gone
    meanwhile is the next one's, or given back; and where nobody is left who would take it, it
    leaves the line within 50 ms, so that those who have gone keep out nobody.
    """

    def __init__(self, limiter: Limiter, partition: str | None) -> None:
        self._limiter, self._partition = limiter, partition
        self._lock = threading.Lock()
        self._calls: deque[_Call] = deque()
        self._runs = False
        self._cost = 0  # that the thread stands in line for
        self._unwanted = bytearray(1)  # set: nobody wants that any more
        self._thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        return self._runs

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join(1.0)

    async def wait(self, cost: int, timeout: float | None) -> LimitPermit:
        call = _Call(cost)
        with self._lock:
            self._calls.append(call)
            if not self._runs:
                self._thread = threading.Thread(target=self._run, name="weir-limit", daemon=True)
                self._thread.start()
                self._runs = True
        alarm = None if timeout is None else call.loop.call_later(timeout, _wake, call.waiter)
        try:
            await call.waiter
            with self._lock:
                permit, call.permit = call.permit, None
            if permit is not None:
                return permit
            raise call.error or TimeoutError("no permit within the timeout")
        finally:
            if alarm is not None:
                alarm.cancel()
            with self._lock:
                call.is_over = True
                permit, call.permit = call.permit, None
                head = self._head()
                if head is None or head.cost != self._cost:
                    self._unwanted[0] = 1
            if not call.is_served:
                self._limiter._count_refused()
            if permit is not None:  # cancelled
                permit.ignore()

    def _head(self) -> _Call | None:
        """The first who still waits; the lock is held."""
        while self._calls and self._calls[0].is_over:
            self._calls.popleft()
        return self._calls[0] if self._calls else None

    def _run(self) -> None:
        while True:
            with self._lock:
                first = self._head()
                if first is None:
                    self._runs = False
                    return
                self._cost = cost = first.cost
                self._unwanted = unwanted = bytearray(1)
            del first
            permit, error = None, None
            try:
                permit = self._limiter._stand(unwanted, self._partition, cost)
            except BaseException as raised:
                error = raised
            if permit is not None or error is not None:
                self._hand_on(permit, error, cost)
            del permit, error

    def _hand_on(self, permit: LimitPermit | None, error: BaseException | None, cost: int) -> None:
        with self._lock:
            call = self._head()
            if call is not None and call.cost == cost:
                self._calls.popleft()
                call.permit, call.error, call.is_served = permit, error, True
                try:
                    call.loop.call_soon_threadsafe(_wake, call.waiter)
                    return
                except RuntimeError:  # its loop is closed: nobody will come
                    call.is_over, call.permit = True, None
        if permit is not None:
            permit.ignore()


for _class in (AIMD, Gradient2, LimitModel, Limiter, Vegas):
    _class.__module__ = "weir"
