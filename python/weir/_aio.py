"""What the coroutines of `weir._weir` need of Python: other event loops than asyncio's, and what is
better said in Python.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterable, Iterable
from queue import Full
from typing import TYPE_CHECKING, Any, Protocol

from weir._errors import ShutDown, TooLarge
from weir._weir import MemoryReservation, Queue

if TYPE_CHECKING:
    from weir._memory import MemoryGovernor

# ---- event loops --------------------------------------------------------------------------------


class Sleeper(Protocol):
    """Sleeps in the loop that it was made in."""

    def wake(self) -> None:
        """Ends the sleep, from any thread; RuntimeError when the loop has gone."""

    async def sleep(self, timeout: float | None) -> bool:
        """Until it is woken, also before; False: after `timeout` seconds."""


class _AsyncioSleeper:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._sleep: asyncio.Future[bool] | None = None
        self._is_woken = False

    def wake(self) -> None:
        self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._is_woken = True
        self._end(True)

    def _end(self, is_woken: bool) -> None:
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(is_woken)

    async def sleep(self, timeout: float | None) -> bool:
        is_woken = self._is_woken
        if not is_woken:
            self._sleep = self._loop.create_future()
            timer = None if timeout is None else self._loop.call_later(timeout, self._end, False)
            try:
                is_woken = await self._sleep
            finally:
                self._sleep = None
                if timer is not None:
                    timer.cancel()
        self._is_woken = False
        return is_woken


class _TrioSleeper:
    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()

    def wake(self) -> None:
        self._token.run_sync_soon(self._event.set)  # RunFinishedError is a RuntimeError

    async def sleep(self, timeout: float | None) -> bool:
        limit = float("inf") if timeout is None else timeout
        with self._trio.move_on_after(limit) as scope:
            await self._event.wait()
            self._event = self._trio.Event()
        return not scope.cancelled_caught


def find_sleeper() -> Sleeper:
    """For the loop that runs in this thread."""
    loop = asyncio._get_running_loop()
    if loop is not None:
        return _AsyncioSleeper(loop)
    trio = sys.modules.get("trio")
    if trio is not None:
        try:
            return _TrioSleeper(trio)
        except RuntimeError:
            pass
    raise RuntimeError("no running event loop")


# ---- queues -------------------------------------------------------------------------------------


async def put_many(
    queue: Queue[Any],
    iterable: Iterable[Any] | AsyncIterable[Any],
    timeout: float | None,
) -> int:
    """Queue.aput_many()."""
    deadline = None if timeout is None else time.monotonic() + timeout
    done = 0

    async def put(item: Any) -> bool:
        """False: it was refused, and is not the first one."""
        nonlocal done
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            await queue.aput(item, left)
        except (Full, ShutDown, TooLarge):
            if done == 0:
                raise
            return False
        done += 1
        return True

    if isinstance(iterable, AsyncIterable):
        async for item in iterable:
            if not await put(item):
                break
    else:
        for item in iterable:
            if not await put(item):
                break
    return done


LOOK_EVERY = 0.05  # seconds: whether the queue was shut down, by who waits for memory


async def _reserve(
    queue: Queue[Any], governor: MemoryGovernor, nbytes: int, timeout: float | None
) -> MemoryReservation | None:
    """None: the governor is closed, and holds nothing back."""
    waiting = asyncio.ensure_future(governor.areserve(nbytes, timeout))
    try:
        while not (await asyncio.wait([waiting], timeout=LOOK_EVERY))[0]:
            if queue.is_shutdown:
                raise ShutDown
    except BaseException:
        if not waiting.cancel() and waiting.exception() is None:
            waiting.result().release()
        raise
    try:
        return waiting.result()
    except TimeoutError:
        raise Full from None
    except ShutDown:
        return None


async def put_governed(queue: Queue[Any], item: Any, timeout: float | None) -> None:
    """Queue.aput() where memory has to be reserved first, in the governor's line."""
    if queue._try_put(item):
        return
    if timeout == 0:
        raise Full
    deadline = None if timeout is None else time.monotonic() + timeout
    nbytes, governor = queue._measure(item)
    reservation = await _reserve(queue, governor, nbytes, timeout) if nbytes > 0 else None
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    await queue._aput_reserved(item, reservation, left)
