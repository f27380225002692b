"""Who may submit: the permits of an executor, and what happens when there are none.

    bound:  submitted and not finished <= max_submit_backlog + workers, always
    permit: taken before a task is accepted, given back exactly once, whatever becomes of it: it is
            always in one BacklogPermit, that of the submit() or that of the task

The options are those of all executors.  `Admission` is for executors that somebody else wrote; it
knows nothing of how tasks run: a subclass says how to launch one, which one to drop, and who must
not wait.  (weir's own have all this in C.)
"""

from __future__ import annotations

import math
import os
import sys
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Literal, NoReturn, TypeVar, get_args

from weir._errors import BacklogFull, Dropped, ShutDown, Timeout
from weir._weir import BacklogPermit, Permits, wait

__all__ = ["Admission", "OnFull", "parse_backlog", "parse_on_full", "run", "warn_in_event_loop"]

OnFull = Literal["block", "fail", "drop_newest", "drop_oldest", "caller_runs"]

T = TypeVar("T")


# ---- options --------------------------------------------------------------------------------


def parse_backlog(max_submit_backlog: object, workers: int) -> int | None:
    """The number of tasks that may wait: True means 2 x workers; None: without bound."""
    if max_submit_backlog is None:
        return None
    if max_submit_backlog is True:
        return 2 * workers
    if type(max_submit_backlog) is int and 0 < max_submit_backlog < 2**62:
        return max_submit_backlog
    raise ValueError(
        "max_submit_backlog must be True (2 x workers), an int > 0 or None (unbounded), "
        f"not {max_submit_backlog!r}"
    )


def parse_on_full(on_full: object, submit_timeout: float | None) -> OnFull:
    """Checks `on_full`, and that `submit_timeout` is seconds >= 0 and goes with it."""
    if not isinstance(on_full, str) or on_full not in get_args(OnFull):
        choices = ", ".join(f'"{choice}"' for choice in get_args(OnFull))
        raise ValueError(f"on_full must be one of {choices}, not {on_full!r}")
    if submit_timeout is not None:
        if on_full != "block":
            raise ValueError(
                f'submit_timeout only goes with on_full="block"; "{on_full}" never waits'
            )
        if math.isnan(submit_timeout) or submit_timeout < 0:
            raise ValueError(f"submit_timeout must be seconds >= 0 or None, not {submit_timeout!r}")
    return on_full  # type: ignore[return-value]  # it is one of them


# ---- helpers --------------------------------------------------------------------------------


def warn_in_event_loop(stacklevel: int) -> bool:
    """Warns that the caller is about to stall the event loop of its thread, if it has one.

    stacklevel counts from this function (1) to the line to blame; True: there is a loop.
    """
    events = sys.modules.get("asyncio.events")
    if events is None or events._get_running_loop() is None:
        return False
    warnings.warn(
        "submit() has to wait for room and stalls the event loop that runs in this thread; "
        "use `await submit_async()` or try_submit() there",
        RuntimeWarning,
        stacklevel=stacklevel,
    )
    return True


def run(
    future: Future[T], fn: Callable[..., T], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    """Calls fn in this thread and puts what comes of it into the future."""
    future.set_running_or_notify_cancel()
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:
        future.set_exception(error)
        if not isinstance(error, Exception):
            raise  # KeyboardInterrupt in the caller's own thread is the caller's, too
    else:
        future.set_result(result)


def _dropped(reason: str) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    future.set_exception(Dropped(reason))
    return future


# ---- admission ------------------------------------------------------------------------------


class Admission(ABC):
    """The permits of one executor, its policy, and its counts."""

    def __init__(
        self,
        workers: int,
        max_submit_backlog: int | bool | None,
        on_full: OnFull,
        submit_timeout: float | None,
    ) -> None:
        self.workers = workers
        self.backlog = parse_backlog(max_submit_backlog, workers)
        self.on_full = parse_on_full(on_full, submit_timeout)
        self.submit_timeout = submit_timeout
        self.permits = Permits(None if self.backlog is None else self.backlog + workers)
        self.pid = os.getpid()
        # Reentrant: the garbage collector may run a cancel() inside of any critical section.
        self.lock = threading.RLock()
        self.accepted = self.finished = self.cancelled = self.refused = self.caller_ran = 0
        self.dropped = {"newest": 0, "oldest": 0}
        self.blocked_insiders = 0
        self.has_warned = False

    # -- what a subclass says

    @abstractmethod
    def check_open(self) -> None:
        """Raises RuntimeError when the executor takes no more tasks."""

    @abstractmethod
    def launch(
        self,
        permit: BacklogPermit,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Future[Any]:
        """Accepts a task, which takes over the permit."""

    @abstractmethod
    def evict_oldest(self, permit: BacklogPermit) -> bool:
        """Drops the oldest task that has not started; `permit` takes over its permit.

        False: nothing can be dropped.
        """

    @abstractmethod
    def insiders(self) -> int:
        """0, or if this thread is one of those that give permits back: how many there are."""

    # -- permits

    def acquire_now(self, permit: BacklogPermit) -> bool:
        try:
            return permit.acquire(0)
        except ShutDown:
            self._refuse_as_closed()

    def acquire(self, permit: BacklogPermit, timeout: float | None, stacklevel: int) -> bool:
        """Waits in line for a permit; RuntimeError where that could never end."""
        if self.acquire_now(permit):
            return True
        if not self.has_warned and timeout != 0:
            self.has_warned = warn_in_event_loop(stacklevel + 1)
        insiders = self.insiders()
        if not insiders:
            return self._wait_in_line(permit, timeout)
        with self.lock:
            if self.blocked_insiders + 1 >= insiders:
                self.refused += 1
                raise RuntimeError(
                    "submit() inside a task or callback of this executor would wait for "
                    f"itself: {self._fullness()}, and every other worker waits here already; "
                    "use try_submit(), or a larger max_submit_backlog"
                )
            self.blocked_insiders += 1
        try:
            return self._wait_in_line(permit, timeout)
        finally:
            with self.lock:
                self.blocked_insiders -= 1

    def _wait_in_line(self, permit: BacklogPermit, timeout: float | None) -> bool:
        try:
            return permit.acquire(timeout)
        except ShutDown:
            self._refuse_as_closed()

    def _refuse_as_closed(self) -> NoReturn:
        self.check_open()
        raise RuntimeError("cannot schedule new futures after shutdown")

    def check_process(self) -> None:
        if self.pid != os.getpid():
            raise RuntimeError(
                f"this executor belongs to process {self.pid}; a forked child has none of its "
                "workers: make a new executor here"
            )

    def _fullness(self) -> str:
        return f"the backlog is full (max_submit_backlog={self.backlog}, workers={self.workers})"

    def _count_refused(self) -> None:
        with self.lock:
            self.refused += 1

    # -- submitting

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        stacklevel: int = 1,
    ) -> Future[Any]:
        self.check_process()
        self.check_open()
        permit = BacklogPermit(self.permits)
        try:
            if not self.acquire_now(permit):
                if self.on_full == "block":
                    self._acquire_or_time_out(permit, self.submit_timeout, stacklevel + 1)
                elif self.on_full == "fail":
                    self._count_refused()
                    raise BacklogFull(self._fullness())
                elif self.on_full == "caller_runs":
                    return self._run_here(fn, args, kwargs)
                elif self.on_full == "drop_newest" or not self._evict(permit):
                    return self._drop_newest()
            return self.launch(permit, fn, args, kwargs)
        finally:
            permit.release()  # if no task has it: a traceback may keep it alive

    def try_submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        counts: bool = True,
    ) -> Future[Any] | None:
        """counts: to find no room is a refusal in the statistics."""
        self.check_process()
        self.check_open()
        permit = BacklogPermit(self.permits)
        try:
            if self.acquire_now(permit):
                return self.launch(permit, fn, args, kwargs)
        finally:
            permit.release()
        if counts:
            self._count_refused()
        return None

    def submit_wait(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        timeout: float | None,
        stacklevel: int = 1,
    ) -> Future[Any]:
        """Waits for room, whatever `on_full` says."""
        self.check_process()
        self.check_open()
        permit = BacklogPermit(self.permits)
        try:
            self._acquire_or_time_out(permit, timeout, stacklevel + 1)
            return self.launch(permit, fn, args, {})
        finally:
            permit.release()

    async def submit_async(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        """submit() where waiting is a coroutine's, which "caller_runs" does, too."""
        if self.on_full not in ("block", "caller_runs"):
            return self.submit(fn, args, kwargs)
        self.check_process()
        self.check_open()
        try:
            permit = await wait(self.permits.pend, self.submit_timeout)
        except ShutDown:
            self._refuse_as_closed()
        except TimeoutError:
            self._count_refused()
            raise Timeout(f"no room within {self.submit_timeout} s: {self._fullness()}") from None
        try:
            return self.launch(permit, fn, args, kwargs)
        finally:
            permit.release()

    def _acquire_or_time_out(
        self, permit: BacklogPermit, timeout: float | None, stacklevel: int
    ) -> None:
        if not self.acquire(permit, timeout, stacklevel + 1):
            self._count_refused()
            raise Timeout(f"no room within {timeout} s: {self._fullness()}")

    def _drop_newest(self) -> Future[Any]:
        with self.lock:
            self.accepted += 1
            self.dropped["newest"] += 1
        return _dropped("newest")

    def _evict(self, permit: BacklogPermit) -> bool:
        return self.evict_oldest(permit) or self.acquire_now(permit)

    def _run_here(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            run(future, fn, args, kwargs)
        finally:
            with self.lock:
                self.accepted += 1
                self.finished += 1
                self.caller_ran += 1
        return future

    # -- looking

    def waits(self) -> tuple[int, float]:
        """Threads that wait to submit now, and seconds waited by those whose wait has ended."""
        _, waiting, blocked = self.permits.stats()
        return waiting, blocked
