"""The stages of a flow that run in an event loop.

Each is an asynchronous generator over what `opens` gives, and closes it, once, however it ends.
Most do all of it in the task of whoever reads.  Those that have to look at a clock, or at several
sources, while they wait for an item have a `Pump` for each source: a task that pulls it, and closes
it.  A pump pulls one item when it is asked to, so it is never more than that ahead.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import CancelledError, Task
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from weir._flow_steps import AnyIterable, Open, aclose, aloop, aopen_given
from weir._gather import amap
from weir._limit import Limiter
from weir._retry import Retry

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "Bell",
    "Pump",
    "buffer",
    "catch",
    "concat_map",
    "debounce",
    "flat_map",
    "par_map",
    "retry",
    "sample",
    "timed_buffer",
    "timeout",
    "window",
    "zip_",
]

Items = AsyncGenerator[Any, None]
OnDrop = Callable[[Any, str], object]


# ---- one task for each source --------------------------------------------------------------------


class Bell:
    """What one task sleeps on until somebody rings; also if that was before."""

    def __init__(self) -> None:
        self._sleep: asyncio.Future[None] | None = None
        self._is_rung = False

    def ring(self) -> None:
        self._is_rung = True
        self._wake()

    def _wake(self) -> None:
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)

    async def wait(self, until: float | None = None) -> None:
        """Until somebody rings, or the time of the loop's clock."""
        if not self._is_rung:
            loop = asyncio.get_running_loop()
            self._sleep = loop.create_future()
            timer = None if until is None else loop.call_at(until, self._wake)
            try:
                await self._sleep
            finally:
                self._sleep = None
                if timer is not None:
                    timer.cancel()
        self._is_rung = False


# An event loop refers to its tasks weakly: nobody drops these.
_tasks: set[Task[None]] = set()


def _remember(task: Task[None]) -> None:
    for other in [other for other in list(_tasks) if other.get_loop().is_closed()]:
        _tasks.discard(other)  # nothing of it will ever go on
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def _is_cancelling(task: Task[None]) -> bool:
    return sys.version_info >= (3, 11) and task.cancelling() > 0


class Pump:
    """A task that reads a source: one item each time that it is asked, which it keeps.

    line   is told of each item, and of the end, in the order in which they come
    """

    def __init__(self, opens: Open, bell: Bell, line: deque[Pump] | None = None) -> None:
        self._opens, self._bell, self._line = opens, bell, line
        self._asked = Bell()
        self._is_asked = self._is_stopped = False
        self._items: deque[Any] = deque()  # at most one
        self.came_at = 0.0  # on the loop's clock
        self.is_ended = False
        self.error: BaseException | None = None
        self._task = asyncio.get_running_loop().create_task(self._read())
        self._task.add_done_callback(self._ended)
        _remember(self._task)

    def __bool__(self) -> bool:
        """Whether there is an item to take()."""
        return bool(self._items)

    def ask(self) -> None:
        """For an item, if none is there or on its way."""
        if not self._items and not self._is_asked:
            self._is_asked = True
            self._asked.ring()

    def take(self) -> Any:
        return self._items.popleft()

    async def wait(self, until: float | None = None) -> None:
        """For the item that was asked for, or the end; but not longer than until that time."""
        loop = asyncio.get_running_loop()
        while not self._items and not self.is_ended:
            if until is not None and loop.time() >= until:
                return
            await self._bell.wait(until)

    def check(self) -> None:
        """Raises what the source raised."""
        if self.error is not None:
            raise self.error

    async def _read(self) -> None:
        source: AsyncIterator[Any] | None = None
        try:
            if await self._may_pull():
                source = self._opens()
                async for item in source:
                    self._is_asked = False
                    self._keep(item)
                    del item
                    if not await self._may_pull():
                        return
        finally:
            await aclose(source)

    async def _may_pull(self) -> bool:
        """When it was asked; False: nothing more is wanted, though the source goes on."""
        while not self._is_asked and not self._is_stopped:
            await self._asked.wait()
        return not self._is_stopped

    def _keep(self, item: Any) -> None:
        self._items.append(item)
        self.came_at = asyncio.get_running_loop().time()
        self._tell()

    def _ended(self, task: Task[None]) -> None:
        self.is_ended = True
        self.error = CancelledError() if task.cancelled() else task.exception()
        self._tell()

    def _tell(self) -> None:
        if self._line is not None:
            self._line.append(self)
        self._bell.ring()

    def stop(self) -> None:
        """Nothing is pulled any more, and the source is closed, soon.

        It is cancelled once, by whomever: a second time would interrupt its cleaning up.
        """
        is_cancelled = self._is_stopped or _is_cancelling(self._task)
        self._is_stopped = True
        if not is_cancelled:
            self._task.cancel()

    async def aclose(self) -> None:
        """Returns when the task has ended; what the source raises while it is closed is raised."""
        was_ended = self._task.done()  # then the reader has heard of it
        self.stop()
        cancelled: CancelledError | None = None
        while not self._task.done():
            try:
                await asyncio.wait([self._task])
            except CancelledError as again:  # later: nothing may be left behind
                cancelled = again
        error, self.error = self.error, None  # its traceback may refer to who refers to this
        try:
            if cancelled is not None:
                raise cancelled
            if error is not None and not was_ended and not self._task.cancelled():
                raise error
        finally:
            del error, cancelled

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()


class _Newest(Pump):
    """A pump that reads all the time, and keeps the newest item only."""

    def __init__(self, opens: Open, bell: Bell, on_drop: OnDrop | None) -> None:
        self._on_drop = on_drop
        super().__init__(opens, bell)

    async def _may_pull(self) -> bool:
        await asyncio.sleep(0)  # a source that is always ready leaves others their turn
        return not self._is_stopped

    def _keep(self, item: Any) -> None:
        if self._items:
            older = self.take()
            if self._on_drop is not None:
                self._on_drop(older, "oldest")
        super()._keep(item)

    async def aclose(self) -> None:
        await super().aclose()
        if self._items and self._on_drop is not None:
            self._on_drop(self.take(), "discarded")


# ---- one at a time -------------------------------------------------------------------------------


async def concat_map(opens: Open, fn: Callable[[Any], AnyIterable[Any]]) -> Items:
    async with aclosing(opens()) as source:
        async for item in source:
            async with aclosing(_inner(fn, item)) as inner:
                async for x in inner:
                    yield x


def _inner(fn: Callable[[Any], AnyIterable[Any]], item: Any) -> Items:
    return aloop(partial(aopen_given, fn(item), is_ours=True))


async def zip_(opens: Open, others: tuple[Any, ...], strict: bool) -> Items:
    async with AsyncExitStack() as stack:
        sources = [await stack.enter_async_context(aclosing(opens()))]
        sources += [await stack.enter_async_context(aclosing(aiter(other))) for other in others]
        while True:
            row: list[Any] = []
            for source in sources:
                try:
                    row.append(await anext(source))
                except StopAsyncIteration:
                    if strict:
                        await _check_all_ended(sources, len(row))
                    return
            yield tuple(row)


async def _check_all_ended(sources: list[Any], ended: int) -> None:
    """In the words of zip(): the source number `ended`, from 0, has ended."""
    if ended:
        before = " 1" if ended == 1 else f"s 1-{ended}"
        raise ValueError(f"zip() argument {ended + 1} is shorter than argument{before}")
    for n, source in enumerate(sources[1:], 2):
        try:
            await anext(source)
        except StopAsyncIteration:
            continue
        before = " 1" if n == 2 else f"s 1-{n - 1}"
        raise ValueError(f"zip() argument {n} is longer than argument{before}")


async def buffer(opens: Open, count: int) -> Items:
    """What was read before the source failed comes before its exception."""
    async with aclosing(opens()) as source:
        failure: Exception | None = None
        is_more = True
        while is_more:
            batch: list[Any] = []
            try:
                while len(batch) < count:
                    batch.append(await anext(source))
            except StopAsyncIteration:
                is_more = False
            except Exception as error:
                is_more, failure = False, error
            if batch:
                yield batch
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # its traceback refers to this frame


async def retry(opens: Open, policy: Retry) -> Items:
    async with aclosing(aiter(policy)) as attempts:
        async for attempt in attempts:
            with attempt:
                async with aclosing(opens()) as source:
                    async for x in source:
                        yield x


async def catch(
    opens: Open,
    fn: Callable[[Any], AnyIterable[Any]],
    on: type[BaseException] | tuple[type[BaseException], ...],
) -> Items:
    async with aclosing(opens()) as source:
        try:
            async for x in source:
                yield x
            return
        except on as error:
            instead = fn(error)
    async with aclosing(aloop(partial(aopen_given, instead, is_ours=True))) as inner:
        async for x in inner:
            yield x


async def par_map(
    opens: Open, fn: Callable[[Any], Any], workers: int | Limiter, kind: str, is_ordered: bool
) -> Items:
    """amap() pulls and closes the source; its results in flight are `workers`."""
    if kind == "async":
        results = amap(fn, opens(), limit=workers, buffersize=0, ordered=is_ordered)
        async with results:
            async for x in results:
                yield x
        return
    from weir import ProcessPoolExecutor, ThreadPoolExecutor

    assert isinstance(workers, int)
    pool = ThreadPoolExecutor(workers) if kind == "thread" else ProcessPoolExecutor(workers)

    async def call(item: Any) -> Any:
        return await (await pool.submit_async(fn, item))

    try:
        results = amap(call, opens(), limit=workers, buffersize=0, ordered=is_ordered)
        async with results:
            async for x in results:
                yield x
    finally:
        # A call that runs cannot be interrupted; this waits for it, and the loop does not.
        pool.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(pool.shutdown)


# ---- several sources at a time -------------------------------------------------------------------


async def flat_map(opens: Open, fn: Callable[[Any], AnyIterable[Any]], concurrency: int) -> Items:
    """Reads up to `concurrency` inner streams at a time, each one item ahead."""
    bell, line = Bell(), deque[Pump]()
    outer = Pump(opens, bell, line)
    inners: set[Pump] = set()
    outer.ask()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_close_all, inners)
        stack.push_async_callback(outer.aclose)
        while inners or not outer.is_ended or line:
            while not line:
                await bell.wait()
            pump = line.popleft()
            if not pump:
                pump.check()
                inners.discard(pump)
            elif pump is outer:
                inner = Pump(partial(_inner, fn, pump.take()), bell, line)
                inners.add(inner)
                inner.ask()
            else:
                yield pump.take()
                pump.ask()
            if len(inners) < concurrency:
                outer.ask()


async def _close_all(pumps: set[Pump]) -> None:
    async with AsyncExitStack() as stack:
        for pump in pumps:
            stack.push_async_callback(pump.aclose)


# ---- time ----------------------------------------------------------------------------------------


async def timed_buffer(opens: Open, count: int, seconds: float) -> Items:
    loop = asyncio.get_running_loop()
    async with Pump(opens, Bell()) as pump:
        while not pump.is_ended:
            batch: list[Any] = []
            until: float | None = None
            while len(batch) < count:
                pump.ask()
                await pump.wait(until)
                if not pump:
                    break
                batch.append(pump.take())
                if until is None:
                    until = loop.time() + seconds
            if batch:
                yield batch
        pump.check()


class _Window:
    """The items of a pump until so many have come, or the time has."""

    runs_once = True

    def __init__(self, pump: Pump, count: int | None, seconds: float | None) -> None:
        self._pump = pump
        self._left = count
        self._until = None if seconds is None else asyncio.get_running_loop().time() + seconds
        self._is_open = True

    async def __aiter__(self) -> Items:
        while not self._is_over():
            self._pump.ask()
            await self._pump.wait(self._until)
            if self._is_over():
                return
            if not self._pump:
                self.end()
                self._pump.check()
                return
            if self._left is not None:
                self._left -= 1
            yield self._pump.take()

    def _is_over(self) -> bool:
        return not self._is_open or self._left == 0

    async def pass_over(self) -> None:
        async for _ in aiter(self):
            pass

    def end(self) -> None:
        self._is_open = False


async def window(
    opens: Open, flow: Callable[[Any], Any], count: int | None, seconds: float | None = None
) -> Items:
    async with Pump(opens, Bell()) as pump:
        while True:
            pump.ask()
            await pump.wait()
            if not pump:
                pump.check()
                return
            window = _Window(pump, count, seconds)
            try:
                yield flow(window)
                await window.pass_over()
            finally:
                window.end()


async def timeout(opens: Open, seconds: float) -> Items:
    loop = asyncio.get_running_loop()
    async with Pump(opens, Bell()) as pump:
        while True:
            pump.ask()
            await pump.wait(loop.time() + seconds)
            if pump:
                yield pump.take()
            elif pump.is_ended:
                pump.check()
                return
            else:
                raise TimeoutError(f"no item came within the {seconds:g} s of timeout()")


async def debounce(opens: Open, seconds: float, on_drop: OnDrop | None) -> Items:
    loop = asyncio.get_running_loop()
    bell = Bell()
    async with _Newest(opens, bell, on_drop) as pump:
        while True:
            await pump.wait()
            while not pump.is_ended and loop.time() < pump.came_at + seconds:
                await bell.wait(pump.came_at + seconds)
            if not pump:
                pump.check()
                return
            yield pump.take()


async def sample(opens: Open, seconds: float, on_drop: OnDrop | None) -> Items:
    loop = asyncio.get_running_loop()
    bell = Bell()
    async with _Newest(opens, bell, on_drop) as pump:
        due = loop.time() + seconds
        while True:
            while not pump.is_ended and loop.time() < due:
                await bell.wait(due)
            await pump.wait()
            if not pump:
                pump.check()
                return
            due = max(due + seconds, loop.time())
            yield pump.take()
