"""One run of a flow for several readers.

    bound:   a branch holds at most `buffer` items that nobody has asked it for
    demand:  the source is pulled when a branch is asked for an item that it does not hold, and
             every branch that is still open has room for one
    stuck:   who waits for a branch that only he could read gets a RuntimeError, and who waits for
             one that nobody has begun to read a RuntimeWarning, after a second
    closed:  a branch that is closed, or dropped before anybody read it, holds nobody back; the
             last one closes the source

In threads, one of those who wait pulls for all, and holds no lock meanwhile.  In an event loop a
`Pump` does, so that a reader who is cancelled takes no item from the others.
"""

from __future__ import annotations

import asyncio
import threading
import warnings
from asyncio import Task
from collections import deque
from collections.abc import AsyncGenerator, Generator
from contextlib import suppress
from typing import Any

from weir._flow_async import Bell, Pump

__all__ = ["Branch", "branches"]


PATIENCE = 1.0  # seconds until a branch that waits for one that nobody reads says so


class _Line:
    """What waits for the reader of a branch."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.items: deque[Any] = deque()
        self.is_open, self.is_begun, self.is_waiting, self.is_told = True, False, False, False
        self.reader: threading.Thread | Task[Any] | None = None  # who asked last
        self.bell = Bell()

    def find_unread(self, lines: list[_Line], buffer: int, alone: bool) -> _Line | None:
        """A line without room that nobody has begun to read, and of which nobody has been warned.

        RuntimeError where who asks would wait for ever, because nobody but he could make room.
        """
        unread = None
        for other in lines:
            if len(other.items) < buffer:
                continue
            if not other.is_begun and not other.is_told:
                unread = other
            if other.reader is self.reader or (alone and not other.is_begun):
                raise RuntimeError(
                    f"branch {self.number} of tee() would wait for ever for room in branch "
                    f"{other.number}, which holds {buffer} and is read by nobody else: read the "
                    "branches in turn, or each in a thread or task of its own, or make buffer= "
                    "larger"
                )
        return unread

    def warn_of(self, unread: _Line) -> None:
        """After PATIENCE: somebody may still come, and may not."""
        warnings.warn(
            f"branch {self.number} of tee() waits for branch {unread.number}, which nobody has "
            "begun to read: read each branch in a thread or task of its own, or drop it",
            RuntimeWarning,
            stacklevel=2,
        )
        unread.is_told = True


class Branch:
    """The source of one of the flows of tee(); can be read once."""

    runs_once = True

    def __init__(self, tee: _Tee, line: _Line) -> None:
        self._tee, self._line = tee, line

    def __repr__(self) -> str:
        return f"branch {self._line.number} of {self._tee.flow!r}"

    def _begin(self) -> None:
        if self._line.is_begun:
            raise RuntimeError(f"{self!r} can be read once: tee() into one more for another reader")
        self._line.is_begun = True

    def __iter__(self) -> Generator[Any, None, None]:
        self._begin()
        return self._read(self._tee.in_threads())

    def __aiter__(self) -> AsyncGenerator[Any, None]:
        self._begin()
        return self._aread(self._tee.in_loop())

    def _read(self, run: _InThreads) -> Generator[Any, None, None]:
        try:
            yield from run.items_of(self._line)
        finally:
            run.close(self._line)

    async def _aread(self, run: _InLoop) -> AsyncGenerator[Any, None]:
        try:
            while await run.wait(self._line):
                yield run.take(self._line)
        finally:
            run.close(self._line)
            await run.aclose_if_last()

    def __del__(self) -> None:
        self._tee.drop(self._line)


class _Tee:
    """How it is read: in threads or in an event loop, as the first reader does."""

    def __init__(self, flow: Any, n: int, buffer: int) -> None:
        self.flow = flow
        self._buffer = buffer
        self.lines = [_Line(number) for number in range(n)]
        self._lock = threading.RLock()  # again by __del__
        self._run: _InThreads | _InLoop | None = None

    def in_threads(self) -> _InThreads:
        with self._lock:
            if self._run is None:
                self._run = _InThreads(self.flow, self.lines, self._buffer)
            if not isinstance(self._run, _InThreads):
                raise RuntimeError("another branch of this tee() is read in an event loop")
            return self._run

    def in_loop(self) -> _InLoop:
        with self._lock:
            if self._run is None:
                self._run = _InLoop(self.flow, self.lines, self._buffer)
            if (
                not isinstance(self._run, _InLoop)
                or self._run.loop is not asyncio.get_running_loop()
            ):
                raise RuntimeError(
                    "another branch of this tee() is read elsewhere: in threads, or in another loop"
                )
            return self._run

    def drop(self, line: _Line) -> None:
        with self._lock:
            run = self._run
            if run is None:
                line.is_open = False
        if run is not None and line.is_open:
            run.drop(line)


class _InThreads:
    def __init__(self, flow: Any, lines: list[_Line], buffer: int) -> None:
        self._source: Generator[Any, None, None] = iter(flow)
        self._lines = lines
        self._buffer = buffer
        self._changed = threading.Condition(threading.RLock())  # again by __del__
        self._puller: _Line | None = None  # whose reader is in the source
        self._is_ended = False
        self._failure: BaseException | None = None

    def _open_lines(self) -> list[_Line]:
        return [line for line in self._lines if line.is_open]

    def items_of(self, line: _Line) -> Generator[Any, None, None]:
        while True:
            with self._changed:
                self._wait(line)
                is_there = bool(line.items)
                if is_there:
                    item = line.items.popleft()
                    self._changed.notify_all()
                elif self._is_ended:
                    break
            if is_there:
                yield item
                del item
            else:
                self._pull()
        if self._failure is not None:
            raise self._failure

    def _wait(self, line: _Line) -> None:
        """Until there is an item, or the end, or it is for this thread to pull."""
        line.reader = threading.current_thread()
        while not line.items and not self._is_ended:
            lines = self._open_lines()
            if self._puller is None and all(len(one.items) < self._buffer for one in lines):
                self._puller = line
                return
            unread = line.find_unread(lines, self._buffer, alone=threading.active_count() == 1)
            if not self._changed.wait(PATIENCE if unread else None) and unread:
                line.warn_of(unread)

    def _pull(self) -> None:
        got: list[Any] = []
        failure: BaseException | None = None
        try:
            got.append(next(self._source))
        except StopIteration:
            pass
        except BaseException as error:
            failure = error
        with self._changed:
            self._puller = None
            self._failure, self._is_ended = failure, failure is not None or not got
            for line in self._open_lines():
                line.items += got
            self._changed.notify_all()

    def close(self, line: _Line) -> None:
        with self._changed:
            if self._puller is line:  # an interrupt came between two lines of its reader
                self._puller = None
            line.is_open = False
            line.items.clear()
            is_last = not self._open_lines()
            self._changed.notify_all()
        if is_last:  # so nobody pulls
            self._source.close()

    drop = close


class _Spread(Pump):
    """Reads a source for many lines."""

    def __init__(self, flow: Any, lines: list[_Line], buffer: int) -> None:
        self._lines, self._buffer = lines, buffer
        super().__init__(flow.__aiter__, Bell())

    async def _may_pull(self) -> bool:
        while not self._is_wanted() and not self._is_stopped:
            await self._asked.wait()
        return not self._is_stopped

    def _is_wanted(self) -> bool:
        lines = [line for line in self._lines if line.is_open]
        return any(line.is_waiting for line in lines) and all(
            len(line.items) < self._buffer for line in lines
        )

    def ask(self) -> None:
        """Something has changed for the lines."""
        self._asked.ring()

    def _keep(self, item: Any) -> None:
        for line in self._lines:
            if line.is_open:
                line.items.append(item)
                line.is_waiting = False
        self._tell()

    def _tell(self) -> None:
        for line in self._lines:
            line.bell.ring()


class _InLoop:
    def __init__(self, flow: Any, lines: list[_Line], buffer: int) -> None:
        self.loop = asyncio.get_running_loop()
        self._lines = lines
        self._buffer = buffer
        self._pump = _Spread(flow, lines, buffer)

    async def wait(self, line: _Line) -> bool:
        """For an item; False: there is none any more."""
        line.reader = asyncio.current_task()
        unread: _Line | None = None
        if not line.items:
            lines = [one for one in self._lines if one.is_open]
            unread = line.find_unread(lines, self._buffer, alone=False)
            line.is_waiting = True
            self._pump.ask()
        warn_at = self.loop.time() + PATIENCE
        while not line.items and not self._pump.is_ended:
            await line.bell.wait(warn_at if unread else None)
            if unread and not unread.is_begun and self.loop.time() >= warn_at:
                line.warn_of(unread)
                unread = None
        if not line.items:
            self._pump.check()
        return bool(line.items)

    def take(self, line: _Line) -> Any:
        item = line.items.popleft()
        self._pump.ask()
        return item

    def close(self, line: _Line) -> None:
        line.is_open = line.is_waiting = False
        line.items.clear()
        self._pump.ask()

    def drop(self, line: _Line) -> None:
        """From any thread, and where nobody can wait."""
        with suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self._dropped, line)

    def _dropped(self, line: _Line) -> None:
        self.close(line)
        if self._is_last():
            self._pump.stop()

    def _is_last(self) -> bool:
        return not any(line.is_open for line in self._lines)

    async def aclose_if_last(self) -> None:
        if self._is_last():
            await self._pump.aclose()


def branches(flow: Any, n: int, buffer: int) -> list[Branch]:
    tee = _Tee(flow, n, buffer)
    return [Branch(tee, line) for line in tee.lines]
