"""read_chunks and copy: a chunk is read when somebody asks for it, and handed on before the next.

What they promise:

    memory:  one chunk per hop, and what the other end buffers itself (a StreamWriter up to its
             high-water mark)
    close:   what is opened here is closed here, however it ends; what was given stays open
    threads: a file blocks, so its reads and writes are steps in the loop's default executor, one
             at a time.  A cancelled step that has not begun never does; one that is under way is
             waited for, so that nobody touches the file afterwards.  A step of a pipe, terminal or
             the like may take for ever: it has a daemon thread of its own, which waits until the
             file is ready before it touches it, and stops waiting when it is cancelled.  What
             cannot be waited for like that (to open a pipe) is left to end by itself; neither the
             end of the loop nor that of the program waits for it
"""

from __future__ import annotations

import asyncio
import inspect
import io
import os
import select
import socket
import stat
import threading
from asyncio import CancelledError, Future
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar

from weir._calls import bucket_of
from weir._guard import count

if TYPE_CHECKING:
    from weir._rate import TokenBucket

__all__ = ["copy", "read_chunks"]

T = TypeVar("T")


class Readable(Protocol):
    """A binary file, or what has the `async def read(n)` of an asyncio.StreamReader."""

    def read(self, n: int, /) -> Any: ...


class Writable(Protocol):
    """A binary file, or what has write() and `async def drain()`, or an `async def write()`."""

    def write(self, data: bytes, /) -> Any: ...


Source = str | os.PathLike[str] | Readable | socket.socket | AsyncIterable[bytes]
Destination = str | os.PathLike[str] | Writable | socket.socket
_Read = Callable[[], Awaitable[bytes]]
_Write = Callable[[bytes], Awaitable[None]]


# ---- files, in a thread ----------------------------------------------------------------------


def _start_thread(run: Callable[[], None]) -> Future[None]:
    """run() in a thread that nobody waits for: not the loop, nor the program, at its end."""
    loop = asyncio.get_running_loop()
    running: Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if running.done():
            return
        if error is None:
            running.set_result(None)
        else:
            running.set_exception(error)

    def work() -> None:
        error = None
        try:
            run()
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=work, name="weir-file", daemon=True).start()
    return running


async def _in_thread(
    fn: Callable[..., T], *args: Any, left: Callable[[Future[None]], object] | None = None
) -> T:
    """fn(*args) in a thread; a cancelled call waits for it.

    A function that has not begun when its call is cancelled never does.

    left  fn may take for ever: it gets a thread of its own, and a cancelled call calls this and
          leaves it there
    """
    claim = threading.Lock()  # whoever gets it decides: the thread to run, or the call not to
    box: list[Any] = [args]  # what goes there and what comes back: the thread keeps neither

    def run() -> None:
        if claim.acquire(blocking=False):
            box.append(fn(*box.pop()))

    if left is None:
        running = asyncio.get_running_loop().run_in_executor(None, run)
    else:
        running = _start_thread(run)
    del args
    try:
        await asyncio.shield(running)
    except CancelledError:
        if left is not None:
            left(running)
            raise
        if claim.acquire(blocking=False):
            raise
        while not running.done():
            with suppress(CancelledError):  # again: it is on its way already
                await asyncio.wait((running,))
        raise
    result: T = box.pop()
    return result


def _may_take_for_ever(file: int | str | os.PathLike[str]) -> bool:
    """A pipe, a terminal, ...: no regular file."""
    try:
        return not stat.S_ISREG(os.stat(file).st_mode)
    except OSError:
        return False


_Ready = Callable[[int], bool]  # of a file, for POLLIN or POLLOUT; False: nobody wants it any more
_RAW = (io.FileIO, socket.SocketIO)


def _is_ready(fd: int, stop: socket.socket, events: int) -> bool:
    """Waits until a descriptor is ready; False: the other end of `stop` was closed."""
    poll = select.poll()
    poll.register(fd, events)
    poll.register(stop, select.POLLIN)
    return all(ready != stop.fileno() for ready, _ in poll.poll())


def _is_drained(file: Any) -> bool:
    """Whether the next read is one of the descriptor; False also where nobody can say."""
    if not isinstance(file, io.BufferedReader):
        return isinstance(file, _RAW)
    if not isinstance(file.raw, _RAW):
        return False
    raw: Any = file.raw
    raw.readinto = lambda buffer: None  # or a peek into an empty buffer would wait, and hold it
    try:
        return not file.peek(1)
    finally:
        del raw.readinto


def _read_some(ready: _Ready | None, file: Any, n: int) -> Any:
    if ready is not None and _is_drained(file) and not ready(select.POLLIN):
        return b""
    return getattr(file, "read1", file.read)(n)  # of a pipe, what is there


def _write_all(ready: _Ready | None, file: Any, data: bytes) -> None:
    """A file without a buffer may take less than all."""
    most = len(data)
    if ready is not None and isinstance(file, io.BufferedWriter) and isinstance(file.raw, _RAW):
        file.flush()
        file = file.raw  # a buffer is held by whoever waits in it, and the program's end needs it
    if not isinstance(file, _RAW):
        ready = None
    if ready is not None:
        most = select.PIPE_BUF  # there is room for so much in a pipe that is ready
    view = memoryview(data)
    while view and (ready is None or ready(select.POLLOUT)):
        written = file.write(view[:most])
        if written is None and isinstance(file, io.RawIOBase):
            raise BlockingIOError(
                f"{file!r} has no room and does not wait for any: it is a file in non-blocking "
                "mode; give the socket, or an asyncio.StreamWriter"
            )
        view = view[len(view) if written is None else written :]


def _flush(ready: _Ready | None, file: Any) -> None:
    file.flush()


class _File:
    """A binary file, as whoever gave it opened it or as we did; one step at a time."""

    def __init__(self, file: Any, *, is_ours: bool) -> None:
        self.file = file
        self._is_ours = is_ours
        self._is_left = False  # to a step, which closes it

    @classmethod
    async def open(cls, path: str | os.PathLike[str], mode: str) -> _File:
        """Without a buffer: an error is that of the write it belongs to."""
        opened: list[IO[bytes]] = []

        def open_file() -> IO[bytes]:
            opened.append(open(path, mode, buffering=0))  # noqa: SIM115
            return opened[0]

        def close(running: Future[None]) -> None:
            for file in opened:
                file.close()

        def left(running: Future[None]) -> None:
            running.add_done_callback(close)

        may_wait = await _in_thread(_may_take_for_ever, path)
        try:
            file = await _in_thread(open_file, left=left if may_wait else None)
        except CancelledError:
            for file in opened:
                file.close()
            raise
        return cls(file, is_ours=True)

    async def read(self, n: int) -> Any:
        return await self._step(_read_some, self.file, n)

    async def write(self, data: bytes) -> None:
        await self._step(_write_all, self.file, data)

    async def flush(self) -> None:
        await self._step(_flush, self.file)

    async def _step(self, fn: Callable[..., T], *args: Any) -> T:
        """fn(ready, *args) in a thread; ready is None where nothing takes for ever."""
        fd = self._waits_on()
        if fd is None:
            return await _in_thread(fn, None, *args)
        ours, theirs = socket.socketpair()

        def run(*args: Any) -> T:
            with theirs:
                return fn(partial(_is_ready, fd, theirs), *args)

        with ours:  # closed, the thread stops waiting
            return await _in_thread(run, *args, left=self._leave)

    def _waits_on(self) -> int | None:
        """The descriptor whose reads and writes may take for ever, if it is one."""
        try:
            fd: int = self.file.fileno()
            return fd if _may_take_for_ever(fd) and os.get_blocking(fd) else None
        except (AttributeError, OSError, ValueError):  # io.BytesIO and the like have no descriptor
            return None

    def _leave(self, running: Future[None]) -> None:
        self._is_left = True
        if self._is_ours:
            running.add_done_callback(lambda _: self.file.close())

    async def aclose(self) -> None:
        if not self._is_ours or self._is_left:
            return
        try:
            await _in_thread(self.file.close)  # which may say that there is no space after all
        finally:
            self.file.close()


# ---- sources ---------------------------------------------------------------------------------


def _bytes_of(data: object, what: str) -> bytes:
    if isinstance(data, bytes):
        return data
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data)
    if data is None:
        raise BlockingIOError(
            f"{what} has no data and does not wait for any: it is a file in non-blocking mode; "
            "give the socket, or an asyncio.StreamReader"
        )
    instead = '; open it with mode "rb"' if isinstance(data, str) else ""
    raise TypeError(f"{what} must give bytes, not {type(data).__name__}{instead}")


def _check_socket(sock: socket.socket) -> None:
    if sock.gettimeout() != 0:
        raise ValueError(f"{sock!r} must be non-blocking: call setblocking(False) first")


def _file_reader(file: _File, n: int) -> _Read:
    async def read() -> bytes:
        return _bytes_of(await file.read(n), f"{file.file!r}")

    return read


def _stream_reader(stream: Any, n: int) -> _Read:
    async def read() -> bytes:
        return _bytes_of(await stream.read(n), f"{stream!r}")

    return read


def _socket_reader(sock: socket.socket, n: int) -> _Read:
    _check_socket(sock)
    loop = asyncio.get_running_loop()

    async def read() -> bytes:
        return await loop.sock_recv(sock, n)

    return read


def _iterable_reader(iterable: AsyncIterable[bytes], n: int) -> _Read:
    pieces = aiter(iterable)
    piece, at = b"", 0

    async def read() -> bytes:
        nonlocal piece, at
        while at >= len(piece):
            piece, at = b"", 0
            try:
                piece = _bytes_of(await anext(pieces), f"{iterable!r}")
            except StopAsyncIteration:
                return b""
        chunk = piece if len(piece) <= n else piece[at : at + n]
        at += n
        return chunk

    return read


def _check_source(source: object) -> None:
    has_read = hasattr(source, "read") or isinstance(source, (str, os.PathLike, socket.socket))
    if not has_read and not isinstance(source, AsyncIterable):
        instead = "; io.BytesIO makes a file of them" if isinstance(source, bytes) else ""
        raise TypeError(
            "a source must be a path, a binary file, an asyncio.StreamReader, a socket or an async "
            f"iterable of bytes, not {type(source).__name__}{instead}"
        )


async def _enter_source(stack: AsyncExitStack, source: Any, n: int) -> _Read:
    """What reads the next chunk, b"" at the end; the stack closes what was opened for it."""
    if isinstance(source, (str, os.PathLike)):
        file = await stack.enter_async_context(aclosing(await _File.open(source, "rb")))
        return _file_reader(file, n)
    if isinstance(source, socket.socket):
        return _socket_reader(source, n)
    if hasattr(source, "read"):
        if inspect.iscoroutinefunction(source.read):
            return _stream_reader(source, n)
        return _file_reader(_File(source, is_ours=False), n)
    iterator = aiter(source)
    if hasattr(iterator, "aclose"):
        await stack.enter_async_context(aclosing(iterator))
    return _iterable_reader(iterator, n)


def read_chunks(source: Source, chunk_size: int = 65536) -> AsyncGenerator[bytes, None]:
    """The bytes of a source, in chunks that are read when they are asked for.

        async for chunk in read_chunks("large.bin"): ...

    source      a path: is opened when the first chunk is asked for, and closed with the generator;
                a binary file: is read in a worker thread, and stays open;
                an asyncio.StreamReader, or whatever has an `async def read(n)`;
                a non-blocking socket;
                an async iterable of bytes, whose pieces are cut where they are larger: is closed
    chunk_size  bytes, > 0; the most that a chunk has.  Only the end of a regular file has fewer;
                a pipe or connection gives what has come

    Nothing is read ahead.  OSError as the source raises it.  What the last read took before the
    reader was cancelled is lost where the source cannot be set back (a pipe, a file object).
    """
    _check_source(source)
    return _chunks(source, count("chunk_size", chunk_size, 2**31 - 1))


async def _chunks(source: Source, n: int) -> AsyncGenerator[bytes, None]:
    async with AsyncExitStack() as stack:
        read = await _enter_source(stack, source, n)
        while chunk := await read():
            yield chunk
            del chunk  # not two of them while we wait


# ---- destinations ----------------------------------------------------------------------------


def _check_destination(destination: object) -> None:
    if hasattr(destination, "get_write_buffer_size") and not hasattr(destination, "drain"):
        raise TypeError("a transport does not say when it has room: give its asyncio.StreamWriter")
    if isinstance(destination, io.TextIOBase):
        raise TypeError(f'{destination!r} must take bytes; open it with mode "wb"')
    is_known = isinstance(destination, (str, os.PathLike, socket.socket))
    if not is_known and not hasattr(destination, "write"):
        raise TypeError(
            "a destination must be a path, a binary file, an asyncio.StreamWriter, a socket or "
            f"something with a write() that takes bytes, not {type(destination).__name__}"
        )


def _check_not_the_same(source: Any, destination: str | os.PathLike[str]) -> None:
    """Before the destination is opened, which would empty the source."""
    try:
        is_path = isinstance(source, (str, os.PathLike))
        from_ = os.stat(source if is_path else source.fileno())
        to = os.stat(destination)
    except (AttributeError, OSError, ValueError):  # no descriptor; or not there yet
        return
    # Of what is given open, only a regular file is emptied: a terminal may be both.
    if os.path.samestat(from_, to) and (is_path or stat.S_ISREG(to.st_mode)):
        raise ValueError(f"{source!r} and {destination!r} are the same file")


def _stream_writer(stream: Any) -> _Write:
    drain = getattr(stream, "drain", None)

    async def write(data: bytes) -> None:
        for method, args in ((stream.write, (data,)), (drain, ())):
            done = method(*args) if method is not None else None
            if inspect.isawaitable(done):
                await done

    return write


def _socket_writer(sock: socket.socket) -> _Write:
    _check_socket(sock)
    loop = asyncio.get_running_loop()

    async def write(data: bytes) -> None:
        await loop.sock_sendall(sock, data)

    return write


async def _enter_destination(
    stack: AsyncExitStack, destination: Any
) -> tuple[_Write, _File | None]:
    """What writes a chunk; and the file that was given and has to be flushed at the end."""
    if isinstance(destination, (str, os.PathLike)):
        ours = await stack.enter_async_context(aclosing(await _File.open(destination, "wb")))
        return ours.write, None
    if isinstance(destination, socket.socket):
        return _socket_writer(destination), None
    if hasattr(destination, "drain") or inspect.iscoroutinefunction(destination.write):
        return _stream_writer(destination), None
    file = _File(destination, is_ours=False)
    return file.write, file if hasattr(destination, "flush") else None


async def _pay(bucket: TokenBucket, n: int) -> None:
    """n tokens, also of a bucket that never holds so many."""
    while n:
        part = min(n, bucket.burst)
        await bucket.aacquire(part)
        n -= part


async def copy(
    source: Source,
    destination: Destination,
    chunk_size: int = 65536,
    *,
    limit_rate: float | TokenBucket | None = None,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Writes all bytes of a source to a destination, at the speed of the slower; how many.

        await copy("large.bin", writer, limit_rate=10 << 20)

    source       as for `read_chunks`
    destination  a path: is created or emptied once the source is open, and closed at the end;
                 a binary file: is written in a worker thread, flushed at the end, and stays open;
                 an asyncio.StreamWriter, or whatever has write() and `async def drain()`, or an
                 `async def write()`: is drained after each chunk, and stays open;
                 a non-blocking socket
    chunk_size   bytes, > 0: the most that is read at once.  One chunk is in memory; a StreamWriter
                 keeps up to its high-water mark (64 KiB, see its transport) and a chunk
    limit_rate   bytes per second, > 0; or a weir.TokenBucket, one token a byte
    progress     is called with the bytes written so far after each chunk, in the event loop

    OSError as source or destination raises it (ENOSPC, BrokenPipeError, ...).  When it fails or is
    cancelled, what was opened here is closed, what was given stays open, and what was written stays
    written: all chunks that `progress` was told of, and some of the next, perhaps.
    """
    _check_source(source)
    _check_destination(destination)
    n = count("chunk_size", chunk_size, 2**31 - 1)
    bucket = None if limit_rate is None else bucket_of("limit_rate", limit_rate, n)
    copied = 0
    async with AsyncExitStack() as stack:
        read = await _enter_source(stack, source, n)
        if isinstance(destination, (str, os.PathLike)):
            await _in_thread(_check_not_the_same, source, destination)
        write, given = await _enter_destination(stack, destination)
        while chunk := await read():
            size = len(chunk)
            if bucket is not None:
                await _pay(bucket, size)
            await write(chunk)
            del chunk  # not two of them while we wait
            copied += size
            if progress is not None:
                progress(copied)
        if given is not None:
            await given.flush()
    return copied


copy.__module__ = read_chunks.__module__ = "weir.aio"
