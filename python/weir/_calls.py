"""Calls that run so many at a time, and results that wait for one reader: what `amap`, `gather` and
`as_completed` have in common.

    bound:   running <= limit; taken from the source and not yet read <= limit + buffersize
    source:  pulled, and closed, by one task of its own; it asks for an item only when there is
             room for it
    end:     the block ends when the source is closed and every call has ended, however it ends
    errors:  the first one stops everything; what had finished before can still be read

All of it happens in one event loop, so between two awaits nothing changes: who looks and then
waits misses nothing.
"""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio import CancelledError, Future, Task
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from weir._guard import count, number
from weir._limit import Limiter
from weir._rate import TokenBucket

if TYPE_CHECKING:
    from typing_extensions import Self

    from weir._weir import LimitPermit

__all__ = ["Calls", "bucket_of", "let_go", "limit_of"]

T = TypeVar("T")

# An event loop refers to its tasks weakly: nobody drops these.
_open: dict[asyncio.AbstractEventLoop, set[Calls[Any]]] = {}


def _remember(calls: Calls[Any], loop: asyncio.AbstractEventLoop) -> None:
    for other in [other for other in list(_open) if other.is_closed()]:
        _open.pop(other, None)  # nothing of it will ever go on
    _open.setdefault(loop, set()).add(calls)


def _forget(calls: Calls[Any], loop: asyncio.AbstractEventLoop) -> None:
    those = _open.get(loop, set())
    those.discard(calls)
    if not those:
        _open.pop(loop, None)


def limit_of(limit: int | Limiter) -> int | Limiter:
    """A limit that somebody gave; TypeError, ValueError."""
    return limit if isinstance(limit, Limiter) else count("limit", limit, 2**31 - 1)


def bucket_of(name: str, rate: float | TokenBucket, burst: int = 1) -> TokenBucket:
    """A rate that somebody gave: a bucket, or so many a second; TypeError, ValueError.

    burst: at once, at least.  An event loop wakes up late, by a millisecond or by more, so 10 ms
    may be made up for.
    """
    if isinstance(rate, TokenBucket):
        return rate
    if number(name, rate, 0, 1e12) == 0:
        raise ValueError(f"{name!r} must be > 0 a second, not {rate!r}")
    return TokenBucket(rate, burst=max(burst, int(rate / 100)))


def let_go(awaitables: Iterable[Any]) -> list[Future[Any]]:
    """Closes coroutines, and cancels futures, which it returns."""
    futures = []
    for awaitable in awaitables:
        if asyncio.iscoroutine(awaitable):
            awaitable.close()
        elif asyncio.isfuture(awaitable):
            awaitable.cancel()
            futures.append(awaitable)
    return futures


class _Bell:
    """What one task sleeps on until somebody rings."""

    def __init__(self) -> None:
        self._sleep: Future[None] | None = None

    def ring(self) -> None:
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)

    async def wait(self) -> None:
        self._sleep = asyncio.get_running_loop().create_future()
        try:
            await self._sleep
        finally:
            self._sleep = None


class Calls(Generic[T]):
    """The calls of one `amap`, `gather` or `as_completed`; used as `async with calls:`.

    source      gives the arguments of each call
    begin       starts the call with these arguments
    outcome     what the reader gets of a call that has ended
    limit       calls at a time
    rate        calls per second; None: any
    buffersize  results that may wait for the reader beside the calls that run; None: `limit`
    ordered     results come in the order of the source
    fails       a call that raises, or was cancelled, is an error
    timeout     seconds from now until the last result, else TimeoutError; None: no such bound
    rest        what is left of the source, where arguments are awaitables that are ours: those
                that never begin are let go.  None: they are not
    """

    def __init__(
        self,
        source: AsyncGenerator[tuple[Any, ...], None],
        begin: Callable[[tuple[Any, ...]], Future[Any]],
        outcome: Callable[[Future[Any]], T],
        *,
        limit: int | Limiter,
        rate: TokenBucket | None = None,
        buffersize: float | None = None,
        ordered: bool,
        fails: bool,
        timeout: float | None = None,
        rest: Iterator[tuple[Any, ...]] | None = None,
    ) -> None:
        self._source, self._begin, self._outcome = source, begin, outcome
        self._limit, self._rate, self._buffersize = limit, rate, buffersize
        self._is_ordered, self._fails, self._rest = ordered, fails, rest
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pump: Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._line: deque[Future[Any]] = deque()  # ordered: all that began; else those that ended
        self._futures: set[Future[Any]] = set()  # that run
        self._running = 0
        self._ahead = 0  # taken from the source and not yet read
        self._room, self._news = _Bell(), _Bell()  # for the pump, for the reader
        self._is_leaving = False  # the pump closes the source
        self._is_pulled = False  # the source has ended, and is closed
        self._is_stopped = self._is_closing = False
        self._error: BaseException | None = None  # the first one
        self._others: list[BaseException] = []
        self._source_error: BaseException | None = None

    # ---- the reader ------------------------------------------------------------------------------

    async def wait(self) -> bool:
        """Waits for a result to take(); False: there will be none any more."""
        while not self._is_ready():
            if self._error is not None or (self._is_pulled and not self._ahead):
                return False
            await self._news.wait()
        return True

    def take(self) -> T:
        future = self._line.popleft()
        self._ahead -= 1
        self._room.ring()
        return self._outcome(future)

    def _is_ready(self) -> bool:
        if not self._line or not self._line[0].done():
            return False
        if self._fails:
            return _error_of(self._line[0]) is None
        return self._error is None or not self._line[0].cancelled()

    # ---- the source ------------------------------------------------------------------------------

    def _has_room(self) -> bool:
        most = self._limit if isinstance(self._limit, int) else self._limit.limit
        waiting = most if self._buffersize is None else self._buffersize
        return self._running < most and self._ahead < most + waiting

    async def _pull(self) -> None:
        async with aclosing(self._source) as source:
            try:
                while await self._pull_one(source):
                    pass
            finally:
                self._is_leaving = True

    async def _pull_one(self, source: AsyncGenerator[tuple[Any, ...], None]) -> bool:
        """Begins the next call when there is room for it; False: there is no next one."""
        while not self._has_room():
            await self._room.wait()
        try:
            args = await source.__anext__()
        except StopAsyncIteration:
            return False
        self._ahead += 1
        if self._is_stopped:  # the source did not mind being cancelled
            self._discard(args)
            return False
        await self._admit(args)
        return True

    async def _admit(self, args: tuple[Any, ...]) -> None:
        """Begins a call when rate and limit let it in; what they raise is the call's.

        The token first: who holds a permit and waits keeps others out, and looks slow.
        """
        assert self._loop is not None
        permit = None
        try:
            if self._rate is not None:
                await self._rate.aacquire()
            if isinstance(self._limit, Limiter):
                permit = await self._limit.aacquire()
            future = self._begin(args)
        except BaseException as error:
            if permit is not None:
                permit.ignore()
                permit = None
            self._discard(args)
            if not isinstance(error, Exception):
                raise
            future = self._loop.create_future()
            future.set_exception(error)
        self._running += 1
        self._futures.add(future)
        if self._is_ordered:
            self._line.append(future)
        future.add_done_callback(partial(self._ended, permit))

    def _pulled(self, pump: Task[None]) -> None:
        self._is_pulled = True
        if pump.cancelled():
            self._fail(CancelledError())
        else:
            self._source_error = pump.exception()
        self._news.ring()

    # ---- the calls -------------------------------------------------------------------------------

    def _ended(self, permit: LimitPermit | None, future: Future[Any]) -> None:
        self._running -= 1
        self._futures.discard(future)
        error = _error_of(future) if self._fails or permit is not None else None
        if permit is not None:
            permit.__exit__(type(error) if error is not None else None, error, None)
        if self._fails and error is not None:
            self._fail(error)
        elif not self._is_ordered:
            self._line.append(future)
        self._room.ring()
        self._news.ring()

    def _fail(self, error: BaseException) -> None:
        if self._is_closing or self._error is not None:
            if not isinstance(error, CancelledError):
                self._others.append(error)
            return
        self._error = error
        self._stop()
        self._news.ring()

    def _expire(self) -> None:
        self._fail(TimeoutError("not all results came within the timeout"))

    def _stop(self) -> None:
        """Nothing begins any more, and what runs is cancelled: once, its cleaning up is not."""
        if self._is_stopped:
            return
        self._is_stopped = True
        if self._pump is not None and not self._is_leaving:
            self._pump.cancel()
        for future in list(self._futures):
            future.cancel()
        self.discard()

    def discard(self) -> None:
        """Lets go of what will not begin."""
        for args in self._rest or ():
            self._discard(args)

    def _discard(self, args: tuple[Any, ...]) -> None:
        for future in () if self._rest is None else let_go(args):
            self._running += 1
            future.add_done_callback(self._gone)

    def _gone(self, future: Future[Any]) -> None:
        self._running -= 1
        self._news.ring()

    # ---- begin and end ---------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        _remember(self, self._loop)
        if self._deadline is not None:
            delay = max(0.0, self._deadline - time.monotonic())
            self._alarm = self._loop.call_later(delay, self._expire)
        self._pump = self._loop.create_task(self._pull())
        self._pump.add_done_callback(self._pulled)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_closing = True
        if self._alarm is not None:
            self._alarm.cancel()
        was_pulled = self._is_pulled
        self._stop()
        cancelled: CancelledError | None = None
        while self._running or not self._is_pulled:
            try:
                await self._news.wait()
            except CancelledError as again:  # later: nothing may be left behind
                cancelled = again
        assert self._loop is not None
        _forget(self, self._loop)
        if error is None:
            self._raise(cancelled)
        if cancelled is not None and not isinstance(error, CancelledError):
            raise cancelled
        if isinstance(error, GeneratorExit) and not was_pulled and self._source_error is not None:
            raise self._source_error  # which it raised while it was closed

    def _raise(self, cancelled: CancelledError | None) -> None:
        """What the reader is told at the end, if there is anything."""
        error = cancelled or self._error or self._source_error
        if error is None:
            return
        others = [other for other in (*self._others, self._source_error) if other is not None]
        others = [other for other in others if other is not error]
        self._error = self._source_error = None
        self._others = []
        if others and sys.version_info >= (3, 11) and error is not cancelled:
            said = ", ".join(repr(other) for other in others)
            error.add_note(f"weir: {len(others)} more failed before all had ended: {said}")
        try:
            raise error
        finally:  # the traceback refers to this frame
            del error, others, cancelled


def _error_of(future: Future[Any]) -> BaseException | None:
    return CancelledError() if future.cancelled() else future.exception()
