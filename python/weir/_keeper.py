"""What a strategy does at one queue or executor: its keeper.

A queue or executor without a strategy knows nothing of this: one with a strategy is of a subclass,
made once for each class, whose put and submit ask the keeper first.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, TypeVar

from weir._breaker import CircuitBreaker
from weir._errors import BacklogFull, ShutDown, Timeout
from weir._rate import TokenBucket
from weir._retry import Retry
from weir._weir import Queue
from weir.strategies import Strategy

if TYPE_CHECKING:
    from weir._weir import BreakerCall

__all__ = ["GuardedQueue", "Keeper", "keep_executor", "keep_queue"]

_LOGGER = logging.getLogger("weir")

T = TypeVar("T")

_NO_ROOM = (queue.Full, TimeoutError)  # BacklogFull is a Full


class Keeper:
    """Lets in what a strategy lets in.

    strategy   the settings
    bucket     the TokenBucket of its rate, or None
    breaker    the CircuitBreaker, or None
    stalls     tries that found no room for `patience` seconds
    too_fast   puts and submits that were refused because of the rate
    """

    def __init__(self, strategy: Strategy, what: str) -> None:
        self.strategy = strategy
        self.stalls = self.too_fast = 0
        self.bucket = (
            None if strategy.rate is None else TokenBucket(strategy.rate, burst=strategy.burst)
        )
        self.breaker = (
            None
            if strategy.breaker is None
            else CircuitBreaker(**{"name": what, **strategy.breaker})
        )
        self._what = what
        self._lock = threading.Lock()
        self._bell = Queue[None](1)  # for who pauses: shut down when nobody is held up any more
        self.pauses = Retry(2**31 - 1, backoff=strategy.backoff)

    def pace(self, timeout: float | None = None) -> bool:
        """Waits for the rate; False: not within `timeout` seconds.  True once closed."""
        if self.bucket is None:
            return True
        try:
            if self.bucket.acquire(timeout=timeout):
                return True
        except ShutDown:  # what comes next will say so
            return True
        with self._lock:
            self.too_fast += 1
        return False

    def waits(self) -> bool:
        """Whether a put or submit may be kept waiting; map() always may."""
        return self.strategy.overflow == "block"

    def too_fast_text(self) -> str:
        return f"{self._what} lets in {self.strategy.rate:g} per second, and there is no token now"

    def close(self) -> None:
        """Holds up nobody any more."""
        self._bell.shutdown()
        if self.bucket is not None:
            self.bucket.close()

    def stalled(self, patience: float, attempt: int) -> None:
        """There was no room for so many seconds."""
        with self._lock:
            self.stalls += 1
        _LOGGER.warning("weir: %s has had no room for %g s (try %d)", self._what, patience, attempt)

    def admit(self) -> BreakerCall | None:
        """Asks the breaker; raises BreakerOpen."""
        return None if self.breaker is None else self.breaker.admit()

    def try_for_long(self, once: Callable[[float | None], T], timeout: float | None) -> T:
        """Calls once(seconds) until there was room, with pauses, up to `timeout` seconds."""
        tries = _Tries(self, timeout)
        while True:
            try:
                return once(tries.begin())
            except _NO_ROOM:
                if tries.is_over():
                    raise
            with contextlib.suppress(queue.Empty, ShutDown):
                self._bell.get(timeout=tries.pause())

    # ---- as a coroutine --------------------------------------------------------------------------

    async def apace(self, timeout: float | None = None) -> bool:
        """pace() for coroutines."""
        if self.bucket is None:
            return True
        try:
            if await self.bucket.aacquire(timeout=timeout):
                return True
        except ShutDown:
            return True
        with self._lock:
            self.too_fast += 1
        return False

    async def atry_for_long(
        self, once: Callable[[float | None], Awaitable[T]], timeout: float | None
    ) -> T:
        """try_for_long() for coroutines."""
        tries = _Tries(self, timeout)
        while True:
            try:
                return await once(tries.begin())
            except _NO_ROOM:
                if tries.is_over():
                    raise
            with contextlib.suppress(queue.Empty, ShutDown):
                await self._bell.aget(tries.pause())


class _Tries:
    """The tries of one put or submit: how long each may take, and the pauses between them."""

    def __init__(self, keeper: Keeper, timeout: float | None) -> None:
        self._keeper = keeper
        self._patience = keeper.strategy.patience
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._left: float | None = None
        self._attempt = 0

    def begin(self) -> float | None:
        """Seconds for the next one."""
        self._attempt += 1
        if self._patience is None:
            return self._timeout
        if self._deadline is None:
            return self._patience
        self._left = max(0.0, self._deadline - time.monotonic())
        return min(self._patience, self._left)

    def is_over(self) -> bool:
        """There was no room: whether that was the last one."""
        if self._patience is None or (self._left is not None and self._left <= self._patience):
            return True
        self._keeper.stalled(self._patience, self._attempt)
        return self._attempt == self._keeper.strategy.attempts

    def pause(self) -> float:
        """Seconds before the next one."""
        pause = self._keeper.pauses.delay(self._attempt)
        if self._deadline is not None:
            pause = max(0.0, min(pause, self._deadline - time.monotonic()))
        return pause


@contextlib.contextmanager
def _judged(call: BreakerCall | None, failure: type[Exception]) -> Iterator[None]:
    """Reports how what is inside ended: `failure` fails, other exceptions say nothing."""
    if call is None:
        yield
        return
    try:
        yield
    except failure:
        call.failure()
        raise
    except BaseException:
        call.ignore()
        raise
    call.success()


# ---- queues -------------------------------------------------------------------------------------


class _GuardedQueue:
    """Before the put methods of a queue."""

    keeper: Keeper

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        put: Callable[..., None] = super().put  # type: ignore[misc]
        if block and timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        since = time.monotonic()
        if not self.keeper.pace(timeout if block and self.keeper.waits() else 0):
            raise queue.Full(self.keeper.too_fast_text())
        if timeout is not None:
            timeout = max(0.0, timeout - (time.monotonic() - since))
        with _judged(self.keeper.admit(), queue.Full):
            if block:
                self.keeper.try_for_long(lambda seconds: put(item, True, seconds), timeout)
            else:
                put(item, False)

    async def aput(self, item: Any, timeout: float | None = None) -> None:
        aput: Callable[..., Awaitable[None]] = super().aput  # type: ignore[misc]
        if timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        since = time.monotonic()
        if not await self.keeper.apace(timeout if self.keeper.waits() else 0):
            raise queue.Full(self.keeper.too_fast_text())
        if timeout is not None:
            timeout = max(0.0, timeout - (time.monotonic() - since))
        with _judged(self.keeper.admit(), queue.Full):
            await self.keeper.atry_for_long(lambda seconds: aput(item, seconds), timeout)

    def shutdown(self, immediate: bool = False) -> None:
        super().shutdown(immediate)  # type: ignore[misc]
        self.keeper.close()

    def put_nowait(self, item: Any, /) -> None:
        self.put(item, False)

    def put_many(self, iterable: Iterable[Any], timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        done = 0
        for item in iterable:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                self.put(item, timeout=left)
            except Exception:
                if done:
                    return done
                raise
            done += 1
        return done


# ---- executors ----------------------------------------------------------------------------------


def _report(call: BreakerCall, future: Future[Any]) -> None:
    try:
        error = future.exception()
    except CancelledError:
        call.ignore()
    else:
        call.success() if error is None else call.failure()


class _GuardedExecutor:
    """Before the submit methods of an executor."""

    keeper: Keeper
    _deadline: float | None  # seconds for a submit, all its tries together

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        since = time.monotonic()
        timeout = self._deadline
        waits = self.keeper.waits()
        if not self.keeper.pace(timeout if waits else 0):
            raise (Timeout if waits else BacklogFull)(self.keeper.too_fast_text())
        if timeout is not None:
            timeout = max(0.0, timeout - (time.monotonic() - since))
        submit: Callable[..., Future[T]] = super().submit  # type: ignore[misc]
        future: Future[T] = self._guard(lambda: submit(fn, *args, **kwargs), True, timeout)
        return future

    async def _submit_async(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[T]:
        if not self.keeper.waits():
            return self.submit(fn, *args, **kwargs)
        since = time.monotonic()
        timeout = self._deadline
        if not await self.keeper.apace(timeout):
            raise Timeout(self.keeper.too_fast_text())
        if timeout is not None:
            timeout = max(0.0, timeout - (time.monotonic() - since))
        submit: Callable[..., Awaitable[Future[T]]] = super()._submit_async  # type: ignore[misc]
        call = self.keeper.admit()
        try:
            future = await self.keeper.atry_for_long(lambda _: submit(fn, args, kwargs), timeout)
        except BaseException as error:
            if call is not None:
                call.failure() if isinstance(error, _NO_ROOM) else call.ignore()
            raise
        if call is not None:
            future.add_done_callback(functools.partial(_report, call))
        return future

    def try_submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T] | None:
        if not self.keeper.pace(0):
            return None
        try_submit: Callable[..., Future[T] | None] = super().try_submit  # type: ignore[misc]
        future: Future[T] | None = self._guard(lambda: try_submit(fn, *args, **kwargs), False, 0)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        shutdown: Callable[..., None] = super().shutdown  # type: ignore[misc]
        shutdown(False, cancel_futures=cancel_futures)
        self.keeper.close()  # before waiting: who is held up has to see that it is shut down
        if wait:
            shutdown(True, cancel_futures=cancel_futures)

    def _guard(self, once: Callable[[], Any], waits: bool, timeout: float | None) -> Any:
        call = self.keeper.admit()
        try:
            future = self.keeper.try_for_long(lambda _: once(), timeout) if waits else once()
        except BaseException as error:
            if call is not None:
                call.failure() if isinstance(error, _NO_ROOM) else call.ignore()
            raise
        if call is not None:
            if future is None:
                call.failure()
            else:
                future.add_done_callback(functools.partial(_report, call))
        return future

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any], **kwargs: Any) -> Any:
        """As without a strategy, but the items are read at its rate, and while its breaker lets."""
        if iterables:
            iterables = (self._paced(iter(iterables[0])), *iterables[1:])
        return super().map(fn, *iterables, **kwargs)  # type: ignore[misc]

    def _paced(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            self.keeper.pace()
            call = self.keeper.admit()
            if call is not None:
                call.ignore()  # its results are in the hands of who iterates
            yield item


# ---- the classes --------------------------------------------------------------------------------


_classes: dict[type, type] = {}


def _mixed(mixin: type, base: type) -> type:
    """The subclass of base that asks a keeper first."""
    if base not in _classes:
        namespace = {"__module__": base.__module__, "__doc__": base.__doc__}
        _classes.setdefault(base, type(base.__name__, (mixin, base), namespace))
    return _classes[base]


GuardedQueue = _mixed(_GuardedQueue, Queue)


def keep_queue(queue: Any, strategy: Strategy) -> None:
    """Makes a queue one whose puts ask a keeper; by weir.Queue, when it is given a strategy."""
    queue.keeper = Keeper(strategy, f"the queue {queue.name!r}" if queue.name else "a queue")
    if not isinstance(queue, _GuardedQueue):
        queue.__class__ = _mixed(_GuardedQueue, type(queue))


def keep_executor(
    executor: Any, strategy: object, submit_timeout: float | None
) -> tuple[Any, float | None]:
    """Makes an executor one whose submits ask a keeper; the plain policy and timeout it needs."""
    if not isinstance(strategy, Strategy):
        return strategy, submit_timeout  # whatever it is, it will be refused
    executor.keeper = Keeper(strategy, f"a {type(executor).__name__}")
    executor.__class__ = _mixed(_GuardedExecutor, type(executor))
    executor._deadline = submit_timeout
    if submit_timeout is None or strategy.patience is not None:
        submit_timeout = strategy.patience
    return strategy.overflow, submit_timeout
