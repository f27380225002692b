"""A `concurrent.futures.Future` that makes its condition only when somebody waits on it.

Three quarters of a standard future's memory (about 1.3 KiB of 1.8) is its condition, and most
futures are finished before anybody waits.  Everything that the standard library does to a future
goes through `_condition`, so `wait`, `as_completed` and `asyncio.wrap_future` work as ever.

    order: a condition is made, and a future without one is finished, under one lock; so whoever has
           the condition sees either an unfinished future that will be finished through it, or a
           finished one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

__all__ = ["LazyFuture"]

T = TypeVar("T")

# Only ever held to compare and store: nothing else happens under it.
_lock = threading.Lock()


def _in_forked_child() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it


os.register_at_fork(after_in_child=_in_forked_child)

_PENDING = "PENDING"
_RUNNING = "RUNNING"
_CANCELLED = ("CANCELLED", "CANCELLED_AND_NOTIFIED")
_FINISHED = "FINISHED"


class LazyFuture(Future[T]):
    """Ready to use as a standard future; `_lazy_condition` is None until it is needed."""

    _lazy_condition: threading.Condition | None

    def __init__(self) -> None:
        # Instead of Future.__init__, which makes the condition.
        self._lazy_condition = None
        self._state = _PENDING
        self._result: T | None = None
        self._exception: BaseException | None = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Callable[[Future[T]], object]] = []

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]  # an attribute there
        condition = self._lazy_condition
        if condition is None:
            made = threading.Condition()
            with _lock:
                condition = self._lazy_condition
                if condition is None:
                    condition = self._lazy_condition = made
        return condition

    def set_result(self, result: T) -> None:
        with _lock:
            if self._lazy_condition is None and self._state in (_PENDING, _RUNNING):
                self._result = result
                self._state = _FINISHED
                return
        super().set_result(result)

    def set_exception(self, exception: BaseException | None) -> None:
        with _lock:
            if self._lazy_condition is None and self._state in (_PENDING, _RUNNING):
                self._exception = exception
                self._state = _FINISHED
                return
        super().set_exception(exception)

    # A state that is final is read without the condition.

    def done(self) -> bool:
        state = self._state
        return state == _FINISHED or state in _CANCELLED

    def cancelled(self) -> bool:
        return self._state in _CANCELLED

    def result(self, timeout: float | None = None) -> T:
        if self._state != _FINISHED:
            return super().result(timeout)
        try:
            if self._exception is not None:
                raise self._exception
            return self._result  # type: ignore[return-value]
        finally:
            del self  # the exception's traceback refers to this frame: break the cycle

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if self._state in _CANCELLED:
            raise CancelledError()
        if self._state != _FINISHED:
            return super().exception(timeout)
        return self._exception
