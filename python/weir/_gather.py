"""amap, gather and as_completed: what is asked for, in the terms of `Calls`."""

from __future__ import annotations

import asyncio
import inspect
from asyncio import CancelledError, Future
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
)
from contextlib import AsyncExitStack
from types import CoroutineType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from weir._calls import Calls, bucket_of, let_go, limit_of
from weir._guard import number

if TYPE_CHECKING:
    from typing_extensions import Self

    from weir._limit import Limiter
    from weir._rate import TokenBucket

__all__ = ["AsyncResults", "amap", "as_completed", "gather"]

T = TypeVar("T")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
AnyIterable = Iterable[T] | AsyncIterable[T]


# ---- sources ---------------------------------------------------------------------------------


async def _rows(iterables: tuple[AnyIterable[Any], ...]) -> AsyncGenerator[tuple[Any, ...], None]:
    """zip() of iterables of both kinds; closes the asynchronous ones at its end."""
    async with AsyncExitStack() as stack:
        iterators: list[Any] = []
        for iterable in iterables:
            if isinstance(iterable, AsyncIterable):
                iterator: Any = aiter(iterable)
                if hasattr(iterator, "aclose"):
                    stack.push_async_callback(iterator.aclose)
            else:
                iterator = iter(iterable)
            iterators.append((hasattr(iterator, "__anext__"), iterator))
        while True:
            row = []
            for is_async, iterator in iterators:
                try:
                    row.append(await anext(iterator) if is_async else next(iterator))
                except (StopIteration, StopAsyncIteration):
                    return
            yield tuple(row)


def _check_iterable(what: str, iterable: object) -> None:
    if not isinstance(iterable, (AsyncIterable, Iterable)):
        raise TypeError(f"{what} takes iterables and async iterables, not {iterable!r}")


# ---- outcomes --------------------------------------------------------------------------------


def _result(future: Future[T]) -> T:
    return future.result()


def _result_or_exception(future: Future[T]) -> T | BaseException:
    if future.cancelled():
        return CancelledError()
    return future.exception() or future.result()


def _itself(future: Future[T]) -> Future[T]:
    return future


# ---- results ---------------------------------------------------------------------------------


async def _read(calls: Calls[T]) -> AsyncGenerator[T, None]:
    async with calls:
        while await calls.wait():
            yield calls.take()  # and keep none


class AsyncResults(AsyncIterator[T], Generic[T]):
    """The results of `amap()` or `as_completed()`, for one reader.

    Nothing begins before the first result is asked for.  The calls end with the iterator: when it
    is at its end or raises, when the task that waits for the next result is cancelled, at
    aclose(), and where `async with` ends.  An iterator that is left in the middle (`break`) and
    dropped is closed by the event loop, soon; with `async with` it is closed there and then.
    """

    def __init__(self, calls: Calls[T]) -> None:
        self._calls = calls
        self._results = _read(calls)

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[T]:
        return self._results.__anext__()

    async def aclose(self) -> None:
        """Cancels what runs, and returns when all of it has ended and the source is closed.

        What the cancelled calls raise is nobody's any more.
        """
        await self._results.aclose()
        self._calls.discard()  # what never began

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


# ---- amap ------------------------------------------------------------------------------------


async def _call(fn: Callable[..., Awaitable[R]], row: tuple[Any, ...]) -> R:
    awaitable = fn(*row)
    if not isinstance(awaitable, CoroutineType) and not inspect.isawaitable(awaitable):
        raise TypeError(
            f"amap's function must return an awaitable, and {fn!r} returned {awaitable!r}; "
            "lambda item: asyncio.to_thread(fn, item) makes one of a blocking function"
        )
    return await awaitable


@overload
def amap(
    fn: Callable[[A], Awaitable[R]],
    iterable: AnyIterable[A],
    /,
    *,
    limit: int | Limiter,
    rate: float | TokenBucket | None = None,
    ordered: bool = True,
    buffersize: int | None = None,
    timeout: float | None = None,
    return_exceptions: Literal[False] = False,
) -> AsyncResults[R]: ...
@overload
def amap(
    fn: Callable[[A, B], Awaitable[R]],
    iterable: AnyIterable[A],
    other: AnyIterable[B],
    /,
    *,
    limit: int | Limiter,
    rate: float | TokenBucket | None = None,
    ordered: bool = True,
    buffersize: int | None = None,
    timeout: float | None = None,
    return_exceptions: Literal[False] = False,
) -> AsyncResults[R]: ...
@overload
def amap(
    fn: Callable[..., Awaitable[R]],
    /,
    *iterables: AnyIterable[Any],
    limit: int | Limiter,
    rate: float | TokenBucket | None = None,
    ordered: bool = True,
    buffersize: int | None = None,
    timeout: float | None = None,
    return_exceptions: Literal[False] = False,
) -> AsyncResults[R]: ...
@overload
def amap(
    fn: Callable[..., Awaitable[R]],
    /,
    *iterables: AnyIterable[Any],
    limit: int | Limiter,
    rate: float | TokenBucket | None = None,
    ordered: bool = True,
    buffersize: int | None = None,
    timeout: float | None = None,
    return_exceptions: bool,
) -> AsyncResults[R | BaseException]: ...
def amap(
    fn: Callable[..., Awaitable[Any]],
    /,
    *iterables: AnyIterable[Any],
    limit: int | Limiter,
    rate: float | TokenBucket | None = None,
    ordered: bool = True,
    buffersize: int | None = None,
    timeout: float | None = None,
    return_exceptions: bool = False,
) -> AsyncResults[Any]:
    """The results of `await fn(*items)` for the items of the iterables, `limit` calls at a time.

        async for page in amap(fetch, urls, limit=10, rate=50): ...
        async with amap(fetch, urls, limit=10) as pages:     # where the loop may be left early
            async for page in pages: ...

    fn           a coroutine function, or one that returns an awaitable; each call is a task
    iterables    synchronous or asynchronous, also endless; several end with the shortest.  An item
                 is taken when its call has a place, so the source is never more than
                 limit + buffersize items ahead of the reader.  A synchronous one that blocks holds
                 up the event loop.  Asynchronous ones are closed at the end, in the task that
                 pulled them
    limit        calls at a time: an int > 0, or a weir.Limiter, which may be shared with others
                 and may be adaptive: a call that fails with what its `drop_on` says is a drop
    rate         calls that begin per second, > 0, evenly; or a weir.TokenBucket, one token a call
    ordered      False: results come as calls end
    buffersize   results that may wait for the reader, beside the calls that run; None: `limit`
    timeout      seconds from this call to the last result, >= 0; then TimeoutError
    return_exceptions  an exception of a call is its result, and the others go on

    A call that raises cancels the others at once and nothing begins any more; results that were
    ready can still be read (with `ordered`, up to the first gap), then its exception is raised, as
    it is, when all has ended.  If others failed too, it has a note that says so (Python 3.11).  An
    exception of a source comes after the results of the items before it.  So at the end, each item
    taken has a result that was read, or is behind an exception that was raised.
    """
    if not callable(fn):
        raise TypeError(f"amap's first argument must be a function, not {fn!r}")
    if not iterables:
        raise TypeError("amap needs an iterable to take items from")
    for iterable in iterables:
        _check_iterable("amap", iterable)
    if buffersize is not None and (type(buffersize) is not int or buffersize < 0):
        raise ValueError(f"'buffersize' must be an int >= 0 or None, not {buffersize!r}")

    def begin(row: tuple[Any, ...]) -> Future[Any]:
        return asyncio.get_running_loop().create_task(_call(fn, row))

    return AsyncResults(
        Calls(
            _rows(iterables),
            begin,
            _result_or_exception if return_exceptions else _result,
            limit=limit_of(limit),
            rate=None if rate is None else bucket_of("rate", rate),
            buffersize=buffersize,
            ordered=ordered,
            fails=not return_exceptions,
            timeout=None if timeout is None else number("timeout", timeout, 0),
        )
    )


# ---- gather and as_completed -----------------------------------------------------------------


def _calls_of(
    who: str,
    awaitables: AnyIterable[Awaitable[Any]],
    outcome: Callable[[Future[Any]], T],
    limit: int | Limiter,
    timeout: float | None = None,
    **how: Any,
) -> Calls[T]:
    """Each call is an awaitable.  Those of a collection are ours from the beginning, others when
    they are pulled.
    """
    _check_iterable(who, awaitables)
    items: AnyIterable[Awaitable[Any]] = awaitables
    rest: Iterator[tuple[Any, ...]] = iter(())
    if isinstance(awaitables, Collection):
        items = iter(awaitables)
        rest = zip(items, strict=False)

    def begin(args: tuple[Any, ...]) -> Future[Any]:
        if not inspect.isawaitable(args[0]):
            raise TypeError(f"{who} takes awaitables, not {args[0]!r}")
        return asyncio.ensure_future(args[0])

    try:
        limit = limit_of(limit)
        timeout = None if timeout is None else number("timeout", timeout, 0)
    except BaseException:
        for args in rest:
            let_go(args)
        raise
    source = _rows((items,))
    return Calls(source, begin, outcome, limit=limit, timeout=timeout, rest=rest, **how)


@overload
async def gather(
    awaitables: AnyIterable[Awaitable[T]],
    /,
    *,
    limit: int | Limiter,
    return_exceptions: Literal[False] = False,
) -> list[T]: ...
@overload
async def gather(
    *awaitables: Awaitable[T],
    limit: int | Limiter,
    return_exceptions: Literal[False] = False,
) -> list[T]: ...
@overload
async def gather(
    awaitables: AnyIterable[Awaitable[T]],
    /,
    *,
    limit: int | Limiter,
    return_exceptions: bool,
) -> list[T | BaseException]: ...
@overload
async def gather(
    *awaitables: Awaitable[T],
    limit: int | Limiter,
    return_exceptions: bool,
) -> list[T | BaseException]: ...
async def gather(
    *awaitables: Any,
    limit: int | Limiter,
    return_exceptions: bool = False,
) -> list[Any]:
    """The results of the awaitables, in their order; at most `limit` of them run at a time.

        pages = await gather(*map(fetch, urls), limit=10)
        pages = await gather(map(fetch, urls), limit=10)    # one iterable, which is pulled lazily

    limit   at a time: an int > 0, or a weir.Limiter.  What runs already (tasks, futures) counts
            when its turn comes
    return_exceptions   an exception is a result, and the others go on

    Unlike asyncio.gather it is a coroutine: nothing begins before it is awaited, and nothing is
    left when it ends.  The first exception cancels the others, waits until they have ended, and
    is raised as it is; if others failed too it has a note (Python 3.11).  Coroutines that never
    began are closed, tasks and futures cancelled; an iterable that is no collection is left where
    it is (an asynchronous one is closed).
    """
    source: Any = awaitables
    if len(awaitables) == 1 and not inspect.isawaitable(awaitables[0]):
        source = awaitables[0]
    calls = _calls_of(
        "gather",
        source,
        _result_or_exception if return_exceptions else _result,
        limit,
        buffersize=float("inf"),  # all of them are the result
        ordered=True,
        fails=not return_exceptions,
    )
    results: list[Any] = []
    async with calls:
        while await calls.wait():
            results.append(calls.take())
    return results


def as_completed(
    awaitables: AnyIterable[Awaitable[T]],
    /,
    *,
    limit: int | Limiter,
    timeout: float | None = None,
) -> AsyncResults[Future[T]]:
    """The awaitables as futures that are done, in the order in which they end.

        async for page in as_completed(map(fetch, urls), limit=10):
            try:
                use(await page)            # does not wait; raises what fetch() raised
            except OSError as error: ...

    awaitables   an iterable of them, synchronous or asynchronous.  They begin as there is room: at
                 most `limit` run, and at most as many wait for the reader.  A task or future comes
                 back as itself, a coroutine as the task that it became
    limit        at a time: an int > 0, or a weir.Limiter
    timeout      seconds from this call until all are done, >= 0; then TimeoutError

    As the asynchronous iteration of asyncio.as_completed in Python 3.13, but for the limit, and
    because it leaves nothing behind: whoever leaves the loop cancels what runs, and what never
    began is let go as by gather().  One that fails is its own future's matter; `amap` is for
    results alone, where the first failure ends all.
    """
    return AsyncResults(
        _calls_of("as_completed", awaitables, _itself, limit, timeout, ordered=False, fails=False)
    )


AsyncResults.__module__ = amap.__module__ = gather.__module__ = as_completed.__module__ = "weir.aio"
