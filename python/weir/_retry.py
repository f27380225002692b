"""Retry, RetryBudget, block_and_retry: trying again, not for ever, not at once, not all together.

Each run has its own state (`_Run`), so one Retry is for any number of threads and tasks at a time.
When it gives up, the last exception goes on, with a note that says how often and how long.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import queue as queues
import random
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import CancelledError
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast

from weir import _guard
from weir._stats import RetryBudgetStats, RetryStats
from weir._weir import RetryTokens, backoff_delay

if TYPE_CHECKING:
    from typing_extensions import Self

    from weir._weir import Queue, SharedQueue

__all__ = ["Attempt", "Jitter", "Retry", "RetryBudget", "block_and_retry"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

Jitter: TypeAlias = Literal["full", "none", "equal", "decorrelated"]
_JITTERS: dict[str, int] = {"full": 0, "none": 1, "equal": 2, "decorrelated": 3}

_Retryable: TypeAlias = (
    type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]
)


class RetryBudget(RetryTokens):
    """Keeps retries to a share of the calls, so that they never multiply an outage.

    Each call puts `ratio` of a token in, each retry takes one out, and `min_per_second` drop in by
    themselves.  So in any stretch of time

        retries <= max_tokens + ratio * calls + min_per_second * seconds

    Give one budget to all `Retry` objects that call one backend; it is for any number of threads.

    ratio           retries for each call; 0 to 1000
    min_per_second  retries that are always allowed; >= 0.  It begins with those of one second
    max_tokens      saved up at most; 1 to 1e9

    A forked child has a budget of its own.  Raises ValueError or TypeError for an option that is
    out of range.
    """

    def __new__(
        cls, ratio: float = 0.2, min_per_second: float = 10.0, *, max_tokens: float = 100.0
    ) -> Self:
        return super().__new__(
            cls,
            _guard.number("ratio", ratio, 0, 1000),
            _guard.number("min_per_second", min_per_second, 0, 1e9),
            _guard.number("max_tokens", max_tokens, 1, 1e9),
        )

    def stats(self) -> RetryBudgetStats:
        """One instant, all fields consistent."""
        return RetryBudgetStats(**self.snapshot())


class Retry:
    """Tries again, with exponential backoff and jitter.

        @weir.Retry(on=(OSError, TimeoutError), deadline=10)
        def fetch(url): ...                               # or: async def fetch(url)

        for attempt in weir.Retry(3, on=ConnectionError):  # or: async for attempt in ...
            with attempt:
                page = fetch(url)

        weir.Retry(3).call(fetch, url)                     # or: await weir.Retry(3).acall(...)

    attempts    calls in all, the first one too; None: as many as the deadline and the budget allow
    on          exceptions after which to try again: a class, a tuple, or a callable that takes the
                exception and returns whether to
    backoff     (base, most) seconds: the step before retry n is base * multiplier**(n - 1), at most
                `most`
    multiplier  >= 1
    jitter      "full" waits from 0 to the step, at random; "equal" from half of it; "decorrelated"
                from base to three times the wait before; "none" the step
    deadline    seconds from the start of the first attempt; no wait begins that would end after it.
                It does not interrupt an attempt
    budget      a RetryBudget; where it is used up, there is no retry
    sleep       sleep(seconds); default time.sleep, or asyncio.sleep in coroutines.  If it returns
                an awaitable, coroutines await it (trio.sleep, say)
    clock       clock() -> seconds; default time.monotonic
    on_retry    on_retry(attempt, error, seconds) before each wait: the number of the attempt that
                failed (1 is the first), its exception, and how long the wait will be.  If it
                raises, that exception goes on instead

    If the exception has a `retry_after` (seconds, as weir.BreakerOpen has), the wait is that and
    the backoff together.  When it gives up, the last exception goes on, from Python 3.11 with a
    note that says how often and how long.

    KeyboardInterrupt, SystemExit, GeneratorExit and CancelledError are never retried.  A generator
    function cannot be decorated: what it has yielded is delivered.  Raises ValueError or TypeError
    for an option out of range.
    """

    def __init__(
        self,
        attempts: int | None = 5,
        *,
        on: _Retryable = Exception,
        backoff: tuple[float, float] = (0.1, 30.0),
        multiplier: float = 2.0,
        jitter: Jitter = "full",
        deadline: float | None = None,
        budget: RetryBudget | None = None,
        sleep: Callable[[float], Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_retry: Callable[[int, BaseException, float], object] | None = None,
    ) -> None:
        if attempts is not None:
            _guard.count("attempts", attempts, 2**31 - 1)
        elif deadline is None and budget is None:
            raise ValueError(
                "'attempts' is None, so that nothing ends the retries: give a 'deadline' in "
                "seconds, or a 'budget'"
            )
        if jitter not in _JITTERS:
            raise ValueError(f"'jitter' must be one of {', '.join(_JITTERS)}, not {jitter!r}")
        if not isinstance(backoff, tuple) or len(backoff) != 2:
            raise TypeError(f"'backoff' must be a tuple (base, most) of seconds, not {backoff!r}")
        if budget is not None and not isinstance(budget, RetryBudget):
            raise TypeError(f"'budget' must be a weir.RetryBudget or None, not {budget!r}")
        for name, value in (("sleep", sleep), ("on_retry", on_retry)):
            if value is not None and not callable(value):
                raise TypeError(f"{name!r} must be callable or None, not {value!r}")
        self._base_ns = _guard.seconds("backoff", backoff[0])
        self._most_ns = _guard.seconds("backoff", backoff[1])
        if self._most_ns < self._base_ns:
            raise ValueError(f"'backoff' must be (base, most) with base <= most, not {backoff!r}")
        self._attempts = attempts
        self._on = on
        self._should: Callable[[BaseException], bool] = _retryable(on)
        self._multiplier = _guard.number("multiplier", multiplier, 1)
        self._jitter = _JITTERS[jitter]
        self._deadline = None if deadline is None else _guard.seconds("deadline", deadline) / 1e9
        self._budget = budget
        self._sleep = sleep
        self._clock = clock
        self._on_retry = on_retry
        # Only calls that fail at first come to this lock.
        self._lock = threading.Lock()
        self._troubled = self._recovered = self._stopped = self._retries = 0
        self._gave_up = {"attempts": 0, "deadline": 0, "budget": 0}
        self._in_progress = 0

    # ---- faces ---------------------------------------------------------------------------------

    def call(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Returns fn(*args, **kwargs), trying again as it says."""
        began = self._begin()
        try:
            return fn(*args, **kwargs)
        except Exception as error:
            run = _Run(self, began)
            if not run.failed(error):
                raise
        try:
            while True:
                run.wait()
                try:
                    result = fn(*args, **kwargs)
                except Exception as error:
                    if not run.failed(error):
                        raise
                else:
                    run.succeeded()
                    return result
        finally:
            run.close()

    async def acall(self, fn: Callable[..., Awaitable[T]], /, *args: Any, **kwargs: Any) -> T:
        """Returns `await fn(*args, **kwargs)`, trying again as it says."""
        began = self._begin()
        try:
            return await fn(*args, **kwargs)
        except Exception as error:
            run = _Run(self, began)
            if not run.failed(error):
                raise
        try:
            while True:
                await run.wait_async()
                try:
                    result = await fn(*args, **kwargs)
                except Exception as error:
                    if not run.failed(error):
                        raise
                else:
                    run.succeeded()
                    return result
        finally:
            run.close()

    def __call__(self, fn: F) -> F:
        """Decorates a function or a coroutine function."""
        if not callable(fn):
            raise TypeError(f"a decorator takes a function, not {fn!r}")
        kind = _guard.kind_of(fn)
        if kind.endswith("generator"):
            raise TypeError(
                f"{fn!r} is a generator function: what it has yielded is delivered, so it cannot "
                "be called again; retry inside of it"
            )
        call, acall = self.call, self.acall

        @functools.wraps(fn)
        def function(*args: Any, **kwargs: Any) -> Any:
            return call(fn, *args, **kwargs)

        @functools.wraps(fn)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            return await acall(fn, *args, **kwargs)

        return cast(F, coroutine if kind == "coroutine" else function)

    def __iter__(self) -> Generator[Attempt, None, None]:
        run = _Run(self, self._begin())
        try:
            while True:
                attempt = Attempt(run)
                yield attempt
                if attempt._is_last():
                    return
                run.wait()
        finally:
            run.close()

    async def __aiter__(self) -> AsyncGenerator[Attempt, None]:
        run = _Run(self, self._begin())
        try:
            while True:
                attempt = Attempt(run)
                yield attempt
                if attempt._is_last():
                    return
                await run.wait_async()
        finally:
            run.close()

    def _begin(self) -> float:
        if self._budget is not None:
            self._budget.deposit()
        return self._clock()

    # ---- looking -------------------------------------------------------------------------------

    def stats(self) -> RetryStats:
        """One instant; calls that succeed at once are not counted, they cost nothing."""
        with self._lock:
            return RetryStats(
                troubled=self._troubled,
                recovered=self._recovered,
                gave_up=dict(self._gave_up),
                stopped=self._stopped,
                in_progress=self._in_progress,
                retries=self._retries,
            )

    def delay(self, retry: int, before: float = 0.0) -> float:
        """Seconds to wait before retry number `retry` (1 is the first), drawn anew by each call.

        before: what was waited before the last retry; only jitter="decorrelated" asks for it.
        """
        return (
            backoff_delay(
                self._base_ns,
                self._most_ns,
                self._multiplier,
                self._jitter,
                retry,
                round(before * 1e9),
                random.getrandbits(64),
            )
            / 1e9
        )


def _retryable(on: _Retryable) -> Callable[[BaseException], bool]:
    classes = on if isinstance(on, tuple) else (on,)
    if all(isinstance(one, type) and issubclass(one, BaseException) for one in classes):
        return lambda error: isinstance(error, cast(Any, on))
    if isinstance(on, tuple) or not callable(on):
        raise TypeError(
            "'on' must be a class of exceptions, a tuple of them, or a callable that takes the "
            f"exception, not {on!r}"
        )
    return cast(Callable[[BaseException], bool], on)


class _Run:
    """One call with its retries.

    Counted in its Retry from its first failure that may be retried, until it ends in one of:
    recovered, gave_up (by reason), stopped (anything else, such as an exception not to be retried).
    """

    __slots__ = ("_before", "_began", "_counted", "_delay", "_retry", "attempts")

    def __init__(self, retry: Retry, began: float) -> None:
        self._retry = retry
        self.attempts = 0  # that have failed
        self._before = self._delay = 0.0  # seconds
        self._counted = False
        self._began = began

    def failed(self, error: BaseException) -> bool:
        """Whether to wait and try again; if not, the run has ended."""
        try:
            return self._decide(error)
        except BaseException:  # of the caller's callables
            self._end("stopped")
            raise

    def _decide(self, error: BaseException) -> bool:
        retry = self._retry
        self.attempts += 1
        if (
            not isinstance(error, Exception)
            or isinstance(error, CancelledError)
            or not retry._should(error)
        ):
            self._end("stopped")
            self._note(error, None)
            return False
        if not self._counted:
            self._counted = True
            with retry._lock:
                retry._troubled += 1
                retry._in_progress += 1
        reason = self._why_not(error)
        if reason is not None:
            self._end(reason)
            self._note(error, reason)
            return False
        with retry._lock:
            retry._retries += 1
        if retry._on_retry is not None:
            retry._on_retry(self.attempts, error, self._delay)
        return True

    def _why_not(self, error: BaseException) -> str | None:
        retry = self._retry
        if retry._attempts is not None and self.attempts >= retry._attempts:
            return "attempts"
        self._before = retry.delay(self.attempts, self._before)
        after = getattr(error, "retry_after", None)
        if isinstance(after, bool) or not isinstance(after, (int, float)) or not 0 < after < 1e9:
            after = 0.0  # None, or nothing that anybody could wait for
        self._delay = self._before + after
        deadline = retry._deadline
        if deadline is not None and retry._clock() - self._began + self._delay > deadline:
            return "deadline"
        if retry._budget is not None and not retry._budget.withdraw():
            return "budget"
        return None

    def _note(self, error: BaseException, reason: str | None) -> None:
        add_note = getattr(error, "add_note", None)  # from Python 3.11
        if add_note is None or (reason is None and self.attempts == 1):
            return
        took = self._retry._clock() - self._began
        times = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        why = {
            None: "this is not to be retried",
            "attempts": "that was the last one",
            "deadline": f"the next wait would end after the deadline of {self._retry._deadline} s",
            "budget": "the retry budget is used up",
        }[reason]
        add_note(f"weir.Retry: {times} in {took:.3g} s; {why}")

    def succeeded(self) -> None:
        self._end("recovered")

    def close(self) -> None:
        self._end("stopped")

    def _end(self, how: str) -> None:
        """Once; only of a run that is counted."""
        if not self._counted:
            return
        self._counted = False
        retry = self._retry
        with retry._lock:
            retry._in_progress -= 1
            if how == "recovered":
                retry._recovered += 1
            elif how == "stopped":
                retry._stopped += 1
            else:
                retry._gave_up[how] += 1

    def wait(self) -> None:
        (self._retry._sleep or time.sleep)(self._delay)

    async def wait_async(self) -> None:
        waited = (self._retry._sleep or asyncio.sleep)(self._delay)
        if inspect.isawaitable(waited):
            await waited


class Attempt:
    """One attempt of `for attempt in Retry(...)`: what `with attempt:` holds is tried.

    number  1 for the first
    error   the exception of the attempt before, or None
    """

    __slots__ = ("_error", "_run", "_state", "error", "number")

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._state: Literal["new", "last", "again"] = "new"
        self.number = run.attempts + 1
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._state = "last"
        if error is None:
            self._run.succeeded()
            return False
        if not self._run.failed(error):
            return False
        self._state = "again"
        return True

    def _is_last(self) -> bool:
        if self._state == "new":
            raise RuntimeError(
                "the body of 'for attempt in Retry(...)' must be in a 'with attempt:' block"
            )
        return self._state == "last"


_PUTTING = Retry(5, on=queues.Full, backoff=(0.1, 5.0))


def block_and_retry(
    queue: Queue[T] | SharedQueue[T] | queues.Queue[T],
    item: T,
    *,
    timeout: float = 5.0,
    retry: Retry | None = None,
) -> int:
    """Puts an item that must not be dropped: waits for room, and when the time passes, tries again.

    Each try is `queue.put(item, timeout=timeout)`, which waits in line for up to `timeout` seconds;
    between two tries it backs off.  `retry` says how often; by default there are 5 tries, so with
    the default timeout it takes 25 s and the waits between (up to 1.5 s) until it gives up.

    Returns how many tries it took.  Raises queue.Full when it gave up, weir.ShutDown,
    weir.TooLarge: then the queue has not taken the item.  Pass a `retry` of your own to have its
    `stats()` count.
    """
    for attempt in retry or _PUTTING:
        with attempt:
            queue.put(item, timeout=timeout)
            return attempt.number
    raise AssertionError("an attempt succeeds or raises")
