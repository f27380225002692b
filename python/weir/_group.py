"""TaskGroup: asyncio's, with a bound on the tasks that run.

asyncio.TaskGroup itself cannot have one: it is finished as soon as no task runs, whoever waits to
start the next.  So this is its contract again, on every Python.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import CancelledError, Future, Task
from collections.abc import Coroutine
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from weir._calls import limit_of
from weir._errors import BacklogFull
from weir._guard import check
from weir._limit import Limiter

if TYPE_CHECKING:
    from contextvars import Context

    from typing_extensions import Self

    from weir._weir import LimitPermit

__all__ = ["TaskGroup"]

T = TypeVar("T")


class TaskGroup:
    """Tasks that end with the block, never more than `limit` at a time.

        async with TaskGroup(10) as group:
            for url in urls:
                await group.create_task(fetch(url))     # waits while ten run

    limit    tasks at a time: an int > 0, or a weir.Limiter, shared with others, adaptive too
    on_full  what create_task does at the limit: "block" waits for a place, first come, first
             served; "fail" raises weir.BacklogFull

    As asyncio.TaskGroup: the block waits for its tasks.  When one fails, or the block does, the
    others are cancelled, with those who wait in create_task, and no more can be created.  When all
    have ended their exceptions are raised as an ExceptionGroup; Python 3.10 has none, and gets the
    first exception.  A task that awaits create_task of its own group keeps its place: if all
    `limit` do, they wait for each other.
    """

    def __init__(
        self, limit: int | Limiter, *, on_full: Literal["block", "fail"] = "block"
    ) -> None:
        check(on_full in ("block", "fail"), "on_full", '"block" or "fail"', on_full)
        limit = limit_of(limit)
        self._limiter = limit if isinstance(limit, Limiter) else Limiter(limit)
        self._fails_when_full = on_full == "fail"
        self._tasks: set[Task[Any]] = set()
        self._line: set[Task[LimitPermit]] = set()  # those who wait in create_task
        self._errors: list[BaseException] = []
        self._base_error: BaseException | None = None  # KeyboardInterrupt, SystemExit
        self._loop: asyncio.AbstractEventLoop | None = None
        self._parent: Task[Any] | None = None
        self._is_exiting = self._is_aborting = self._has_ended = False
        self._has_cancelled_parent = False
        self._all_done: Future[None] | None = None

    # ---- creating --------------------------------------------------------------------------------

    async def create_task(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> Task[T]:
        """Starts a task, as soon as there is a place for it.

        BacklogFull: there is none, and on_full="fail".  RuntimeError: the group has not begun, has
        ended, or one of its tasks has failed.  The coroutine is closed whenever no task comes of
        it, also when this call is cancelled while it waits.  context: Python 3.11.
        """
        try:
            self._check_open(coro)
            permit = self._try_permit()
            if permit is None:
                if self._fails_when_full:
                    limit = self._limiter.limit
                    raise BacklogFull(f"the task group is full: its limit of {limit} is reached")
                permit = await self._wait_for_permit()
            return self._begin(coro, permit, name, context)
        except BaseException:
            _close(coro)
            raise

    def try_create_task(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> Task[T] | None:
        """Starts a task if there is a place for it now; if not, closes the coroutine: None."""
        try:
            self._check_open(coro)
            permit = self._limiter.try_acquire()
            if permit is not None:
                return self._begin(coro, permit, name, context)
        except BaseException:
            _close(coro)
            raise
        coro.close()
        return None

    def _check_open(self, coro: object) -> None:
        if not asyncio.iscoroutine(coro):
            raise TypeError(f"a task is made of a coroutine, not of {coro!r}")
        if self._loop is None:
            raise RuntimeError("the task group has not been entered: use `async with`")
        if self._has_ended:
            raise RuntimeError("the task group is finished")
        if self._is_aborting:
            raise RuntimeError("the task group is shutting down")

    def _try_permit(self) -> LimitPermit | None:
        return None if self._limiter._others_wait(None) else self._limiter._probe()

    async def _wait_for_permit(self) -> LimitPermit:
        """As a task of its own, which the group can end for whoever waits, its own task or not."""
        assert self._loop is not None
        acquiring = self._loop.create_task(self._limiter.aacquire())
        self._line.add(acquiring)
        try:
            await asyncio.wait((acquiring,))
            if not self._is_aborting:
                permit = acquiring.result()
                self._line.discard(acquiring)
                return permit
            raise RuntimeError("the task group is shutting down")
        finally:
            if acquiring in self._line:  # the permit that it may have is given back
                acquiring.cancel()
                acquiring.add_done_callback(self._left)

    def _left(self, acquiring: Task[LimitPermit]) -> None:
        self._line.discard(acquiring)
        if not acquiring.cancelled() and acquiring.exception() is None:
            acquiring.result().ignore()
        self._look_whether_all_are_done()

    def _begin(
        self,
        coro: Coroutine[Any, Any, T],
        permit: LimitPermit,
        name: str | None,
        context: Context | None,
    ) -> Task[T]:
        assert self._loop is not None
        how: dict[str, Any] = {} if context is None else {"context": context}
        try:
            task: Task[T] = self._loop.create_task(coro, name=name, **how)
        except BaseException:
            permit.ignore()
            raise
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, permit))
        return task

    # ---- ending ----------------------------------------------------------------------------------

    def _ended(self, permit: LimitPermit, task: Task[Any]) -> None:
        self._tasks.discard(task)
        error = CancelledError() if task.cancelled() else task.exception()
        permit.__exit__(type(error) if error is not None else None, error, None)
        if error is not None and not task.cancelled():
            self._failed(error)
        self._look_whether_all_are_done()

    def _failed(self, error: BaseException) -> None:
        assert self._parent is not None
        self._errors.append(error)
        if isinstance(error, (SystemExit, KeyboardInterrupt)) and self._base_error is None:
            self._base_error = error
        if not self._is_aborting and not self._has_cancelled_parent:
            self._abort()
            if not self._is_exiting:  # the block itself is a sibling
                self._has_cancelled_parent = True
                self._parent.cancel()

    def _abort(self) -> None:
        self._is_aborting = True
        for task in (*self._tasks, *self._line):
            task.cancel()

    def _look_whether_all_are_done(self) -> None:
        if self._tasks or self._line or self._all_done is None or self._all_done.done():
            return
        self._all_done.set_result(None)

    async def __aenter__(self) -> Self:
        if self._loop is not None:
            raise RuntimeError("the task group has already been entered")
        self._parent = asyncio.current_task()
        if self._parent is None:
            raise RuntimeError("a task group needs a parent task, which waits for it")
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_exiting = True
        if isinstance(error, (SystemExit, KeyboardInterrupt)) and self._base_error is None:
            self._base_error = error
        cancelled = error if isinstance(error, CancelledError) else None
        if error is not None and not self._is_aborting:
            self._abort()
        cancelled = await self._wait_for_all() or cancelled
        self._has_ended = True
        try:
            self._raise(error, cancelled)
        finally:  # the tracebacks refer to this frame
            self._errors, self._base_error, self._parent = [], None, None
            del error, cancelled

    async def _wait_for_all(self) -> CancelledError | None:
        assert self._loop is not None
        cancelled = None
        while self._tasks or self._line:
            self._all_done = self._loop.create_future()
            try:
                await self._all_done
            except CancelledError as again:
                if not self._is_aborting:
                    cancelled = again
                    self._abort()
        self._all_done = None
        return cancelled

    def _raise(self, error: BaseException | None, cancelled: CancelledError | None) -> None:
        assert self._parent is not None
        if self._base_error is not None:
            raise self._base_error
        if self._has_cancelled_parent and _uncancel(self._parent) == 0:
            cancelled = None  # it was ours alone
        if cancelled is not None and not self._errors:
            raise cancelled
        if error is not None and not isinstance(error, CancelledError):
            self._errors.append(error)
        if not self._errors:
            return
        _keep_cancelled(self._parent)
        raise _one_of(self._errors) from None

    def __repr__(self) -> str:
        state = "ended" if self._has_ended else "shutting down" if self._is_aborting else "open"
        if self._loop is None:
            state = "not entered"
        waiting = f", {len(self._line)} wait" if self._line else ""
        limit = self._limiter.limit
        return f"<weir.aio.TaskGroup {state}: {len(self._tasks)} of {limit} tasks{waiting}>"


def _close(coro: object) -> None:
    if asyncio.iscoroutine(coro):
        coro.close()


if sys.version_info >= (3, 11):
    from builtins import BaseExceptionGroup

    def _one_of(errors: list[BaseException]) -> BaseException:
        return BaseExceptionGroup("unhandled errors in a TaskGroup", errors)

    def _uncancel(task: Task[Any]) -> int:
        """Takes one cancellation back; how many are left."""
        return task.uncancel()

    def _keep_cancelled(task: Task[Any]) -> None:
        """Whoever cancelled the parent meanwhile is heard at its next await, as by asyncio's."""
        if task.cancelling():
            task.uncancel()
            task.cancel()

else:

    def _one_of(errors: list[BaseException]) -> BaseException:
        return errors[0]

    def _uncancel(task: Task[Any]) -> int:
        return 0  # nobody counts them

    def _keep_cancelled(task: Task[Any]) -> None:
        pass


TaskGroup.__module__ = "weir.aio"
