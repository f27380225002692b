"""Sources for the tests of weir.Flow that know how far they were pulled, and who closed them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any


class Counted:
    """A source of both kinds: numbers from 0, counted as they are pulled; an item and then another.

    fails_at   raises ValueError instead of this item
    step       seconds between two items, in an event loop
    """

    def __init__(
        self, items: int = 10**9, *, fails_at: int | None = None, step: float | None = None
    ) -> None:
        self.items, self.fails_at, self.step = items, fails_at, step
        self.pulled = self.read = self.furthest = 0
        self.opened = self.closed = 0
        self.entered_by: list[object] = []
        self.closed_by: list[object] = []

    def sync(self) -> Sync:
        return Sync(self)

    def aio(self) -> Aio:
        return Aio(self)

    def see(self, item: Any) -> Any:
        """For the reader: this item has arrived, so to speak."""
        self.read += 1
        return item

    def _take(self, n: int) -> int:
        if n == self.fails_at:
            raise ValueError(n)
        self.pulled += 1
        self.furthest = max(self.furthest, self.pulled - self.read)
        return n

    def _open(self, by: object) -> None:
        self.opened += 1
        self.entered_by.append(by)

    def _close(self, by: object) -> None:
        self.closed += 1
        self.closed_by.append(by)

    def generator(self) -> Generator[int, None, None]:
        self._open(threading.current_thread())
        try:
            for n in range(self.items):
                yield self._take(n)
        finally:
            self._close(threading.current_thread())

    async def agenerator(self) -> AsyncGenerator[int, None]:
        self._open(asyncio.current_task())
        try:
            for n in range(self.items):
                await asyncio.sleep(self.step or 0)
                yield self._take(n)
        finally:
            self._close(asyncio.current_task())

    def check_closed_once(self) -> None:
        assert self.opened == self.closed, f"opened {self.opened}, closed {self.closed}"

    def check_closed_where_it_was_opened(self) -> None:
        self.check_closed_once()
        assert self.entered_by == self.closed_by


class Sync:
    """The synchronous side of a Counted alone; can be read again."""

    def __init__(self, counted: Counted) -> None:
        self.counted = counted

    def __iter__(self) -> Iterator[int]:
        return self.counted.generator()


class Aio:
    """The asynchronous side."""

    def __init__(self, counted: Counted) -> None:
        self.counted = counted

    def __aiter__(self) -> AsyncIterator[int]:
        return self.counted.agenerator()


async def aenumerated(items: list[Any]) -> AsyncGenerator[Any, None]:
    for item in items:
        await asyncio.sleep(0)
        yield item


def both_ways(flow: Any) -> list[Any]:
    """The items of a flow, which has to give the same in a thread and in an event loop."""
    items = list(flow)
    assert asyncio.run(flow.ato_list()) == items
    return items
