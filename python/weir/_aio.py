"""Waiting in a coroutine for what a limit grants.

The place in line is in C (`_weir.Pending`); whoever lets it in tells the right event loop, from
whatever thread.  No helper thread, no polling.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from weir._weir import Pending

T = TypeVar("T")


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def wait(
    begin: Callable[[Callable[[], object]], Pending[T]], timeout: float | None = None
) -> T:
    """Joins a line with `begin(ready)` and waits until it has something to claim.

    Returns what was granted; TimeoutError after `timeout` seconds.  What is granted to a coroutine
    that was cancelled meanwhile, or whose loop has gone, is given back.  Never suspends where it
    need not wait.
    """
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def ready() -> None:
        if asyncio._get_running_loop() is loop:  # by a coroutine of the same loop: no system call
            _wake(waiter)
        else:
            loop.call_soon_threadsafe(_wake, waiter)

    pending = begin(ready)
    try:
        if not pending.done and (timeout is None or timeout > 0):
            alarm = None if timeout is None else loop.call_later(timeout, _wake, waiter)
            try:
                await waiter
            finally:
                if alarm is not None:
                    alarm.cancel()
        if not pending.done:
            raise TimeoutError
        return pending.claim()
    finally:
        pending.cancel()
