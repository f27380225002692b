"""Writing to a peer that may be slow: bounded for each, and for all together.

Bound:      a FlowWriter gives its transport a piece only as large as the room below `high`, and
            with `total=` only what it was granted of that; what has left the buffer goes back, to
            the byte, as soon as it is heard of.  So what is buffered is never more than `high` for
            one peer, and never more than the budget for all.
Hearing:    a transport tells its protocol, and nobody else, when its buffer has shrunk and when
            the connection is lost.  So a `_Tap` stands between the two and hands everything on.
            What the transport is to tell next is set by its write buffer limits, again and again;
            so they are the FlowWriter's.  No task, no polling.
Loss:       with the connection everything goes back, whoever waits is told, and what was buffered
            is counted as dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from weir._guard import count, number
from weir._stats import FlowBudgetStats, FlowWriterStats
from weir._watermark import check_marks

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer, Self

__all__ = ["FlowBudget", "FlowWriter"]

_GRAIN = 16384  # bytes: as much is asked of a budget, and heard to have gone, at a time
_SMALL = 4096  # bytes: writelines() joins what is smaller
_MOST = (1 << 46) - 1
_NEEDED = ("write", "get_write_buffer_size", "set_write_buffer_limits", "get_protocol", "abort")


class FlowBudget:
    """So many bytes that all the FlowWriters which share it may buffer together.

    nbytes  1 to 2**46 - 1; `limit` can be changed while it is in use
    name    for people who look at it

    Who waits for room is served first come, first served.  It belongs to one event loop, and after
    the end of that to another one.
    """

    def __init__(self, nbytes: int, *, name: str | None = None) -> None:
        self._limit, self.name = count("nbytes", nbytes, _MOST), name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._line: dict[asyncio.Future[None], int] = {}  # who waits, for how many bytes, in order
        self._used = self._peak = self._granted = 0

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        self._forget_ended_loop()
        if self._loop is not loop and (self._used > 0 or self._line):
            raise RuntimeError("this FlowBudget is in use by another event loop")
        self._loop = loop

    def _forget_ended_loop(self) -> None:
        if self._loop is not None and self._loop.is_closed():
            self._loop = None
            self._used = 0
            self._line.clear()

    def _book(self, size: int) -> None:
        self._used += size
        self._granted += size
        self._peak = max(self._peak, self._used)

    def _try(self, size: int) -> bool:
        """Grants size bytes, unless others wait, or they do not fit."""
        if self._line or size > self._limit - self._used:
            return False
        self._book(size)
        return True

    async def _wait(self, waiter: asyncio.Future[None], size: int) -> bool:
        """Joins the line.  True: the bytes are granted; False: the waiter was set by somebody
        else.  One that is cancelled gives back what it was just granted."""
        self._line[waiter] = size
        try:
            await waiter
        except BaseException:
            if waiter not in self._line:
                self._give(size)
            raise
        finally:
            is_waiting = self._line.pop(waiter, None) is not None
            if is_waiting:
                self._serve()  # it may have stood in the way of others
        return not is_waiting

    def _give(self, size: int) -> None:
        self._used -= size
        self._serve()

    def _serve(self) -> None:
        while self._line:
            waiter, size = next(iter(self._line.items()))
            if size > self._limit - self._used and size <= self._limit:
                return
            if not waiter.done():
                waiter.set_result(None)
            if size > self._limit:  # lowered meanwhile: it asks for less
                return
            del self._line[waiter]
            self._book(size)

    @property
    def limit(self) -> int:
        """Bytes; can be set.  Nobody is granted more until no more than these are used."""
        return self._limit

    @limit.setter
    def limit(self, nbytes: int) -> None:
        self._limit = count("limit", nbytes, _MOST)
        self._serve()

    @property
    def used(self) -> int:
        """Bytes that are buffered, or about to be."""
        self._forget_ended_loop()
        return self._used

    def stats(self) -> FlowBudgetStats:
        """One instant of the budget."""
        return FlowBudgetStats(
            name=self.name,
            limit=self._limit,
            used=self.used,
            peak=self._peak,
            granted=self._granted,
            returned=self._granted - self._used,
            waiting=len(self._line),
        )

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name is not None else ""
        return f"<weir.aio.FlowBudget{name}: {self.used} of {self._limit} bytes>"


class _Tap(asyncio.BaseProtocol):
    """Stands between a transport and its protocol, and hears what they tell each other."""

    def __init__(self, inner: asyncio.BaseProtocol, owner: FlowWriter) -> None:
        self._inner, self._owner = inner, owner
        for name in ("data_received", "eof_received", "get_buffer", "buffer_updated"):
            if hasattr(inner, name):  # straight through: reading costs nothing more
                setattr(self, name, getattr(inner, name))

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        try:
            self._inner.resume_writing()
        finally:
            self._owner._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        try:
            self._owner._note_loss(exc)
        finally:
            self._inner.connection_lost(exc)


class _StreamTap(_Tap, asyncio.Protocol):
    """Of a protocol that is given bytes."""


class _BufferTap(_Tap, asyncio.BufferedProtocol):
    """Of a protocol that brings its own buffer."""


def _view_of(data: Buffer) -> memoryview:
    view = memoryview(data)
    return view.cast("B") if view.nbytes > 0 else memoryview(b"")


def _merged(views: Iterable[memoryview]) -> Iterator[memoryview]:
    """The same bytes, the small ones joined: a system call for each would cost more."""
    small: list[memoryview] = []
    size = 0
    for view in views:
        is_small = len(view) < _SMALL
        if small and (not is_small or size + len(view) > _GRAIN):
            yield memoryview(b"".join(small))
            small, size = [], 0
        if is_small:
            small.append(view)
            size += len(view)
        else:
            yield view
    yield memoryview(b"".join(small))


class FlowWriter:
    """Writes to an asyncio.StreamWriter, or any write transport, in bounded memory.

    writer         a StreamWriter, a transport of asyncio or uvloop, or a subprocess's stdin; its
                   write buffer limits are the FlowWriter's from now on
    high           bytes, >= 1: never more than these are buffered above what the kernel takes; a
                   larger write is cut, and goes piece by piece
    low            bytes, 0 to high - 1: who waits goes on when so many are left; None: a quarter of
                   high
    total          a `FlowBudget`, which any number of FlowWriters share: the sum of what they have
                   buffered is never more.  A peer that stalls holds `high` of it, and no more
    stall_timeout  seconds; a peer that has bytes waiting and took none for so long (at the latest
                   for twice as long) is aborted, and what it held of `total` goes back; None: never

    Belongs to the running event loop.  Writes of several tasks go out one after the other, each in
    one piece.  The data may be changed as soon as write() has returned.  What is written past it
    is not bounded by it; drain() of the StreamWriter itself waits until most of it has gone.

    A write that is cancelled when some of its bytes have gone leaves a torn stream: later writes
    raise RuntimeError, close() and abort() are what is left.  `async with` closes and waits until
    everything has gone; left by an exception it aborts, so that the peer does not take what it has
    for all there was.

    Under TLS the encrypted bytes in the transport below come on top; asyncio bounds them by 64 KiB
    and what is written at once.
    """

    def __init__(
        self,
        writer: asyncio.StreamWriter | asyncio.WriteTransport,
        *,
        high: int = 65536,
        low: int | None = None,
        total: FlowBudget | None = None,
        stall_timeout: float | None = None,
    ) -> None:
        check_marks(high, low)
        if stall_timeout is not None and not number("stall_timeout", stall_timeout, 0) > 0:
            raise ValueError(f"'stall_timeout' must be > 0 s, or None, not {stall_timeout!r}")
        if total is not None and not isinstance(total, FlowBudget):
            raise TypeError(f"'total' must be a weir.aio.FlowBudget, or None, not {total!r}")
        self._loop = asyncio.get_running_loop()
        self._transport = _transport_of(writer)
        self._high, self._low = high, high // 4 if low is None else low
        self._total, self._stall_timeout = total, stall_timeout
        self._grain = _GRAIN if total is not None else high

        self._turn = asyncio.Lock()
        self._waiters: set[asyncio.Future[None]] = set()  # for the buffer, or for the end
        self._place: asyncio.Future[None] | None = None  # in the line of `total`
        self._held = 0  # of `total`
        self._timer: asyncio.TimerHandle | None = None
        self._is_full = self._is_torn = self._is_lost = False
        self._error: ConnectionError | None = None  # what closed the connection
        self._accepted = self._dropped = self._buffered = self._peak = 0
        self._pauses, self._paused_for, self._paused_since = 0, 0.0, 0.0
        self._join()

    def _join(self) -> None:
        """Takes the place between the transport and its protocol."""
        inner = self._transport.get_protocol()
        if isinstance(inner, _Tap):
            raise ValueError("this transport has a FlowWriter already; use that one")
        if inner is None or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed, or closing, already")
        buffered = isinstance(inner, asyncio.BufferedProtocol)
        if self._total is not None:
            self._total._bind(self._loop)
        self._transport.set_protocol((_BufferTap if buffered else _StreamTap)(inner, self))
        self._settle()

    # ---- writing ---------------------------------------------------------------------------------

    async def write(self, data: Buffer) -> None:
        """Writes data (bytes, bytearray, memoryview, ...), and returns when its last piece has gone
        to the transport or the kernel.

        Waits while the buffer is full, until it is at `low`, and for room in `total`.  Raises
        ConnectionResetError when the connection is lost or closing, ConnectionAbortedError after
        stall_timeout.
        """
        await self._send((_view_of(data),))

    async def writelines(self, data: Iterable[Buffer]) -> None:
        """Writes one after the other, with nothing of another task's in between."""
        await self._send(_merged([_view_of(part) for part in data]))

    async def _send(self, views: Iterable[memoryview]) -> None:
        began = False
        async with self._turn:
            try:
                for view in views:
                    while len(view) > 0:
                        piece = await self._send_some(view)
                        began, view = True, view[piece:]
                        if len(view) > 0 and not self._is_full:
                            await asyncio.sleep(0)  # a quick peer: others want the loop, too
            except BaseException:
                self._is_torn = self._is_torn or began
                raise

    async def _send_some(self, view: memoryview) -> int:
        """Gives the transport what there is room for; how many bytes that were."""
        await self._until_low()
        if self._is_torn:
            raise RuntimeError(
                "an earlier write ended when only some of its bytes had gone, so the stream is "
                "torn: close() or abort() it"
            )
        size = min(len(view), self._grain, self._high - self._size())
        if self._total is not None:
            size = await self._reserve(self._total, size)
        try:
            self._check_open()
            piece = view[:size]
            # The rest of what the kernel does not take is kept by some transports as it is.
            self._transport.write(piece if piece.readonly else bytes(piece))
        finally:
            self._release()
        self._accepted += size
        if self._transport.is_closing():
            self._buffered += size  # the kernel refused it: the loss is about to be told
        else:
            self._settle()
        return size

    async def _reserve(self, total: FlowBudget, size: int) -> int:
        """Has so many bytes granted, or as many as the budget is; how many."""
        while True:
            size = min(size, total.limit)
            if total._try(size):
                break
            self._place = self._loop.create_future()
            try:
                if await total._wait(self._place, size):
                    break
            finally:
                self._place = None
            self._check_open()
        self._held += size
        return size

    def _release(self) -> None:
        """Gives back what was granted and is not buffered."""
        surplus = self._held - self._size()
        if self._total is not None and surplus > 0:
            self._held -= surplus
            self._total._give(surplus)

    async def drain(self) -> None:
        """Waits while the buffer is full, until it is at `low`.

        Raises ConnectionResetError when the connection is lost or closing, ConnectionAbortedError
        after stall_timeout.
        """
        await self._until_low()

    async def _until_low(self) -> None:
        self._check_open()
        while self._is_full or self._size() >= self._high:
            if not self._is_full:
                self._settle()  # somebody else has written to the transport
            await self._wait()
            self._check_open()

    async def _wait(self) -> None:
        """Until something has happened."""
        waiter = self._loop.create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _check_open(self) -> None:
        if self._is_lost or self._error is not None:
            raise self._loss()
        if self._transport.is_closing():
            raise ConnectionResetError("the connection is closing: it takes no more data")

    def _loss(self) -> ConnectionError:
        """A new exception for each who asks."""
        if isinstance(self._error, ConnectionAbortedError):
            return ConnectionAbortedError(str(self._error))
        loss = ConnectionResetError("the connection is lost")
        loss.__cause__ = self._error
        return loss

    # ---- the buffer ------------------------------------------------------------------------------

    def _size(self) -> int:
        return 0 if self._is_lost else self._transport.get_write_buffer_size()

    def _settle(self) -> None:
        """Brings everything that follows from the size of the buffer up to date."""
        size = self._buffered = self._size()
        self._peak = max(self._peak, size)
        self._release()
        if self._is_full and size <= self._low:
            self._is_full = False
            self._paused_for += self._loop.time() - self._paused_since
            self._wake()
        elif not self._is_full and size >= self._high:
            self._is_full, self._paused_since = True, self._loop.time()
            self._pauses += 1
        if size > 0:
            step = size - _GRAIN if self._held > 0 else 0
            self._listen(max(step, self._low if self._is_full else 0))
            self._watch_for_stall()

    def _listen(self, size: int) -> None:
        """The transport shall tell when no more than `size` bytes, fewer than now, are left."""
        self._transport.set_write_buffer_limits(size, size)

    def _watch_for_stall(self) -> None:
        if self._stall_timeout is not None and self._timer is None:
            taken = self._accepted - self._buffered
            self._timer = self._loop.call_later(self._stall_timeout, self._look_for_stall, taken)

    def _look_for_stall(self, taken_before: int) -> None:
        self._timer = None
        if self._size() == 0 or self._error is not None:
            return
        self._settle()
        if self._accepted - self._buffered == taken_before:
            self._error = ConnectionAbortedError(
                f"the peer took nothing for {self._stall_timeout} s, so the connection was aborted"
            )
            self.abort()

    def _note_loss(self, exc: Exception | None) -> None:
        """By the tap, once: nothing can be written, and nothing is buffered any more."""
        self._is_lost = True
        if self._timer is not None:
            self._timer.cancel()
        self._dropped = self._buffered  # a buffer that was emptied would have been heard of
        if self._is_full:
            self._paused_for += self._loop.time() - self._paused_since
        self._buffered = 0
        self._release()
        if self._error is None and exc is not None:
            self._error = ConnectionResetError(str(exc))
            self._error.__cause__ = exc
        self._is_full = False
        self._wake_all()

    def _wake_all(self) -> None:
        self._wake()
        if self._place is not None and not self._place.done():
            self._place.set_result(None)

    # ---- the end ---------------------------------------------------------------------------------

    def can_write_eof(self) -> bool:
        """Whether the transport can do write_eof()."""
        return self._transport.can_write_eof()

    def write_eof(self) -> None:
        """Closes the writing side once what is buffered has gone; reading goes on.

        Not in the middle of a write: RuntimeError.
        """
        if self._turn.locked():
            raise RuntimeError("a write is under way: wait for it before write_eof()")
        self._transport.write_eof()

    def close(self) -> None:
        """Takes no more data, and closes once what is buffered has gone; see wait_closed().

        Whoever waits in write() or drain() gets ConnectionResetError.
        """
        self._transport.close()
        self._wake_all()

    def abort(self) -> None:
        """Closes at once; what is buffered is dropped."""
        if not self._is_lost:
            if self._size() > 0:
                self._settle()
            self._transport.abort()
            self._wake_all()

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._is_lost or self._transport.is_closing()

    async def wait_closed(self) -> None:
        """Waits until the connection is closed, and raises what closed it, if that was an error."""
        while not self._is_lost:
            await self._wait()
        if self._error is not None:
            raise self._loss()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.abort()
            return
        self.close()
        try:
            await self.wait_closed()
        except asyncio.CancelledError:
            self.abort()
            raise

    # ---- looking ---------------------------------------------------------------------------------

    @property
    def transport(self) -> asyncio.WriteTransport:
        """The transport that is written to."""
        return self._transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As of the transport: "peername", "socket", ..."""
        return self._transport.get_extra_info(name, default)

    def stats(self) -> FlowWriterStats:
        """One instant of the writer."""
        # One that is closing may have been emptied by an error.
        size = self._buffered if self.is_closing() else self._size()
        buffered = min(size, self._accepted)
        paused_for = self._paused_for
        if self._is_full:
            paused_for += self._loop.time() - self._paused_since
        return FlowWriterStats(
            high=self._high,
            low=self._low,
            accepted=self._accepted,
            delivered=self._accepted - self._dropped - buffered,
            dropped=self._dropped,
            buffered=buffered,
            peak=self._peak,
            held=self._held,
            pauses=self._pauses,
            paused_for=paused_for,
            waiting=len(self._waiters) + (self._place is not None),
            is_paused=self._is_full,
            is_closed=self._is_lost,
        )

    def __repr__(self) -> str:
        state = ", closed" if self._is_lost else ", paused" if self._is_full else ""
        return f"<weir.aio.FlowWriter: {self._size()} of {self._high} bytes{state}>"


def _transport_of(writer: object) -> asyncio.WriteTransport:
    transport: Any = writer if hasattr(writer, "set_protocol") else None
    if transport is None:
        transport = getattr(writer, "transport", None)
    if not all(hasattr(transport, name) for name in _NEEDED):
        raise TypeError(
            f"'writer' must be an asyncio.StreamWriter or a write transport, not {writer!r}"
        )
    found: asyncio.WriteTransport = transport
    return found


for _class in (FlowBudget, FlowWriter):
    _class.__module__ = "weir.aio"
