"""What reads a flow to its end: into a value, or into a queue.

Each method closes the flow before it returns, in the task that read it; its twin for an event loop
begins with an `a`.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing
from typing import Any, Generic, TypeVar, overload

from weir._guard import kind_of
from weir._weir import Queue, SharedQueue

__all__ = ["MISSING", "Ends", "check_function", "check_plain"]

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")
R = TypeVar("R")

MISSING: Any = object()


def check_function(name: str, fn: object) -> None:
    if not callable(fn):
        raise TypeError(f"{name}() takes a function, not {fn!r}")


def check_plain(name: str, fn: object) -> None:
    check_function(name, fn)
    if callable(fn) and kind_of(fn) == "coroutine":
        raise TypeError(
            f"{name}() calls a plain function, and {fn!r} is a coroutine function: map(), "
            'filter(), par_map(kind="async") and afor_each() await those'
        )


def _default(default: Any, flow: object) -> Any:
    if default is MISSING:
        raise LookupError(f"there is no item in {flow!r}")
    return default


class Ends(Generic[T_co]):
    """The part of a Flow that needs no more than its two kinds of iterator."""

    __slots__ = ()

    @abstractmethod
    def __iter__(self) -> Generator[T_co, None, None]: ...  # noqa: PYI058  (it has a close)

    @abstractmethod
    def __aiter__(self) -> AsyncGenerator[T_co, None]: ...  # noqa: PYI058

    def to_queue(
        self,
        queue: Queue[T_co] | SharedQueue[T_co],
        *,
        timeout: float | None = None,
        shutdown: bool = False,
        on_drop: Callable[[T_co, str], object] | None = None,
    ) -> int:
        """Puts every item into a queue, as it has room; how many.

        timeout    seconds for each item, >= 0; None: as long as it takes
        shutdown   shut the queue down at the end, so that its readers end, also after an exception
        on_drop    called as on_drop(item, "refused") with the item that the queue did not take

        Raises queue.Full, weir.ShutDown, weir.TooLarge as put() does.
        """
        done = 0
        try:
            with closing(iter(self)) as items:
                for item in items:
                    try:
                        queue.put(item, timeout=timeout)
                    except BaseException:
                        if on_drop is not None:
                            on_drop(item, "refused")
                        raise
                    done += 1
        finally:
            if shutdown:
                queue.shutdown()
        return done

    async def ato_queue(
        self,
        queue: Queue[T_co],
        *,
        timeout: float | None = None,
        shutdown: bool = False,
        on_drop: Callable[[T_co, str], object] | None = None,
    ) -> int:
        """`to_queue` in an event loop.

        When it is cancelled while it waits for room, the item it waits with is not in the queue,
        and on_drop is told.
        """
        if not isinstance(queue, Queue):
            raise TypeError(f"ato_queue() takes a weir.Queue, not {queue!r}: use to_queue()")
        done = 0
        try:
            async with aclosing(aiter(self)) as items:
                async for item in items:
                    try:
                        await queue.aput(item, timeout)
                    except BaseException:
                        if on_drop is not None:
                            on_drop(item, "refused")
                        raise
                    done += 1
        finally:
            if shutdown:
                queue.shutdown()
        return done

    # ---- values ----------------------------------------------------------------------------------

    def to_list(self) -> list[T_co]:
        """All items: make sure that there is an end, and memory for them."""
        return list(self)

    async def ato_list(self) -> list[T_co]:
        """`to_list` in an event loop."""
        async with aclosing(aiter(self)) as items:
            return [item async for item in items]

    @overload
    def first(self) -> T_co: ...
    @overload
    def first(self, default: U) -> T_co | U: ...
    def first(self, default: Any = MISSING) -> Any:
        """The first item; of an empty flow, `default`, or LookupError."""
        with closing(iter(self)) as items:
            for item in items:
                return item
        return _default(default, self)

    @overload
    async def afirst(self) -> T_co: ...
    @overload
    async def afirst(self, default: U) -> T_co | U: ...
    async def afirst(self, default: Any = MISSING) -> Any:
        """`first` in an event loop."""
        async with aclosing(aiter(self)) as items:
            async for item in items:
                return item
        return _default(default, self)

    def count(self) -> int:
        """How many items there are."""
        return sum(1 for _ in self)

    async def acount(self) -> int:
        """`count` in an event loop."""
        n = 0
        async with aclosing(aiter(self)) as items:
            async for _ in items:
                n += 1
        return n

    def for_each(self, fn: Callable[[T_co], object]) -> None:
        """Calls fn(item) for each item, one after the other."""
        check_plain("for_each", fn)
        with closing(iter(self)) as items:
            for item in items:
                fn(item)

    async def afor_each(self, fn: Callable[[T_co], object]) -> None:
        """`for_each` in an event loop; what fn returns is awaited if it can be."""
        check_function("afor_each", fn)
        async with aclosing(aiter(self)) as items:
            async for item in items:
                result = fn(item)
                if inspect.isawaitable(result):
                    await result

    @overload
    def reduce(self, fn: Callable[[T_co, T_co], T_co]) -> T_co: ...
    @overload
    def reduce(self, fn: Callable[[R, T_co], R], initial: R) -> R: ...
    def reduce(self, fn: Callable[[Any, Any], Any], initial: Any = MISSING) -> Any:
        """fn(... fn(fn(initial, item), item) ..., item), as functools.reduce; `initial`, or
        LookupError, if there is no item.
        """
        check_plain("reduce", fn)
        result = initial
        with closing(iter(self)) as items:
            for item in items:
                result = item if result is MISSING else fn(result, item)
        return _default(result, self)

    @overload
    async def areduce(self, fn: Callable[[T_co, T_co], T_co]) -> T_co: ...
    @overload
    async def areduce(self, fn: Callable[[R, T_co], R], initial: R) -> R: ...
    async def areduce(self, fn: Callable[[Any, Any], Any], initial: Any = MISSING) -> Any:
        """`reduce` in an event loop."""
        check_plain("areduce", fn)
        result = initial
        async with aclosing(aiter(self)) as items:
            async for item in items:
                result = item if result is MISSING else fn(result, item)
        return _default(result, self)
