"""weir.aio: read_chunks and copy, on asyncio's event loop and on uvloop's.

The loop of each test is checked: no task is left in it, and nothing was logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import gc
import io
import itertools
import os
import random
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import weir
from weir.aio import copy, read_chunks

Run = Callable[[Coroutine[Any, Any, Any]], Any]
DATA = bytes(random.Random(1).randbytes(300_000))


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.001)


def is_open(path: Path) -> bool:
    """Whether this process has it open."""
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{fd}") == str(path):
                return True
    return False


async def open_for_writing(fifo: Path) -> int:
    """Opens the other end as soon as there is a reader; to wait for one would hold up the loop."""
    opened: list[int] = []

    def has_reader() -> bool:
        with contextlib.suppress(OSError):  # ENXIO: nobody has it open, or is about to
            opened.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        return bool(opened)

    await until(has_reader)
    return opened[0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


@contextlib.contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets, neither of which blocks."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


class Reads(io.BytesIO):
    """A file that knows who reads it, and how often."""

    def __init__(self, data: bytes = DATA) -> None:
        super().__init__(data)
        self.reads = 0
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()

    def read1(self, n: int | None = -1, /) -> bytes:
        self.reads += 1
        self.threads.add(threading.get_ident())
        assert self.gate.wait(20)
        return super().read(n)


# ---- read_chunks --------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [1000, 65536, 300_000, 1_000_000])
def test_a_path_is_read_in_chunks_and_closed_at_the_end(
    in_loop: Run, file: Path, chunk_size: int
) -> None:
    async def main() -> None:
        chunks = [chunk async for chunk in read_chunks(file, chunk_size)]
        assert b"".join(chunks) == DATA
        assert {len(chunk) for chunk in chunks[:-1]} <= {chunk_size}
        assert not is_open(file)
        assert b"".join([chunk async for chunk in read_chunks(str(file))]) == DATA

    in_loop(main())


def test_nothing_is_read_before_it_is_asked_for(in_loop: Run) -> None:
    async def main() -> None:
        source = Reads()
        chunks = read_chunks(source, 1000)
        await asyncio.sleep(0.01)
        assert source.reads == 0
        for asked in range(1, 6):
            await anext(chunks)
            await asyncio.sleep(0.002)
            assert source.reads == asked
        assert threading.get_ident() not in source.threads, "the loop is not held up"
        await chunks.aclose()
        assert not source.closed

    in_loop(main())


def test_stream_readers_sockets_and_iterables_are_sources_too(in_loop: Run) -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        for piece in (b"", DATA[:10], b"", DATA[10:50_000], DATA[50_000:]):
            yield piece

    async def by_stream(sock: socket.socket) -> bytes:
        reader, writer = await asyncio.open_connection(sock=sock.dup())
        got = b"".join([chunk async for chunk in read_chunks(reader, 1000)])
        writer.close()
        await writer.wait_closed()
        return got

    async def by_socket(sock: socket.socket) -> bytes:
        return b"".join([chunk async for chunk in read_chunks(sock, 1000)])

    async def main() -> None:
        for read in (by_stream, by_socket):
            with pair() as (ours, theirs):
                reading = asyncio.create_task(read(theirs))
                assert await copy(pieces(), ours) == len(DATA)
                ours.shutdown(socket.SHUT_WR)
                assert await reading == DATA
        sizes = [len(chunk) async for chunk in read_chunks(pieces(), 40_000)]
        assert sizes[:4] == [10, 40_000, 9_990, 40_000] and sum(sizes) == len(DATA)

    in_loop(main())


@pytest.mark.parametrize("how", ["break", "cancel", "drop", "error"])
def test_a_source_is_closed_however_reading_ends(in_loop: Run, file: Path, how: str) -> None:
    closed = []

    async def pieces() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"piece"
        finally:
            closed.append(True)

    async def read(chunks: AsyncGenerator[bytes, None]) -> None:
        async with contextlib.aclosing(chunks):
            async for _ in chunks:
                if how == "break":
                    break
                if how == "error":
                    raise ValueError
                await asyncio.sleep(0)

    async def main() -> None:
        tasks = asyncio.all_tasks()
        for source in (file, pieces()):
            if how == "drop":
                chunks = read_chunks(source, 100)
                await anext(chunks)
                del chunks
                gc.collect()
            else:
                reading = asyncio.create_task(read(read_chunks(source, 100)))
                await asyncio.sleep(0.01)
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                assert not is_open(file)
        await until(lambda: not is_open(file) and closed)
        await until(lambda: asyncio.all_tasks() == tasks)

    in_loop(main())


def test_a_cancelled_read_of_a_regular_file_has_ended_when_the_reader_has(in_loop: Run) -> None:
    async def main() -> None:
        source = Reads()
        source.gate.clear()
        reading = asyncio.ensure_future(anext(read_chunks(source, 1000)))
        await until(lambda: source.reads == 1)
        for _ in range(3):
            reading.cancel()
            await asyncio.sleep(0.002)
        assert not reading.done()
        source.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert source.tell() == 1000

    in_loop(main())


def test_a_read_that_has_not_begun_when_it_is_cancelled_never_does(in_loop: Run) -> None:
    async def main() -> None:
        gate, source = threading.Event(), Reads()
        loop = asyncio.get_running_loop()
        busy = [loop.run_in_executor(None, gate.wait, 20) for _ in range(64)]
        reading = asyncio.ensure_future(anext(read_chunks(source, 1000)))
        await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.wait([reading])
        assert reading.cancelled(), "it does not wait for a thread to come free"
        gate.set()
        await asyncio.gather(*busy)
        assert source.reads == 0

    in_loop(main())


def test_whoever_reads_a_pipe_can_be_cancelled_and_it_is_closed_when_the_read_ends(
    in_loop: Run, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    async def main() -> None:
        opening = asyncio.ensure_future(anext(read_chunks(fifo)))
        await asyncio.sleep(0.01)
        opening.cancel()
        await asyncio.wait([opening])
        assert opening.cancelled(), "nobody has opened the other end"
        chunks = read_chunks(fifo)
        reading = asyncio.ensure_future(anext(chunks))
        end = await open_for_writing(fifo)
        os.write(end, b"hello")
        assert await reading == b"hello", "what is there, not a whole chunk"
        reading = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.wait([reading])
        assert reading.cancelled(), "the other end writes nothing"
        os.close(end)
        await until(lambda: not is_open(fifo))

    in_loop(main())


@pytest.mark.parametrize(
    "call",
    [
        "copy(sys.stdin.buffer, io.BytesIO())",
        "copy(sys.stdin.buffer.raw, io.BytesIO())",
        "copy('/dev/stdin', io.BytesIO())",
        "copy(sys.argv[1], io.BytesIO())",
        "anext(read_chunks(sys.stdin.buffer))",
        "copy(io.BytesIO(bytes(1 << 20)), sys.stdout.buffer)",
        "copy(io.BytesIO(bytes(1 << 20)), '/dev/stdout')",
        "copy(io.BytesIO(bytes(1 << 20)), sys.argv[1])",
    ],
)
@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_a_program_whose_call_was_cancelled_ends_whatever_its_pipes_do(
    tmp_path: Path, call: str, kind: str
) -> None:
    program = f"""if True:
        import asyncio, io, sys
        from weir.aio import copy, read_chunks
        async def main():
            try:
                await asyncio.wait_for({call}, 0.1)
            except asyncio.TimeoutError:
                print("cancelled", file=sys.stderr)
        asyncio.run(main())
    """
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    ends = os.pipe() + os.pipe() if kind == "pipe" else os.openpty() + os.openpty()
    # What the program reads, and where it writes: nobody is at the other ends.
    stdin, stdout = (ends[0], ends[3]) if kind == "pipe" else (ends[1], ends[3])
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, str(fifo)],
            stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=30, check=False,
        )  # fmt: skip
    finally:
        for end in ends:
            os.close(end)
    assert (done.returncode, done.stderr) == (0, "cancelled\n")


def bytes_in(pipe: Any) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def waiting_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "weir-file"]


def test_a_cancelled_read_of_a_pipe_takes_nothing_and_leaves_no_thread(in_loop: Run) -> None:
    async def main() -> None:
        ends = os.pipe()
        with open(ends[0], "rb") as pipe, open(ends[1], "wb", buffering=0) as end:
            for _ in range(40):  # more than the default executor has threads
                reading = asyncio.ensure_future(anext(read_chunks(pipe)))
                await asyncio.sleep(0.001)
                reading.cancel()
                await asyncio.wait([reading])
                assert reading.cancelled()
            await until(lambda: not waiting_threads())
            end.write(b"line\nrest")
            assert pipe.readline() == b"line\n"
            assert await anext(read_chunks(pipe)) == b"rest", "what its buffer has is there"

    in_loop(main())


def test_a_cancelled_write_to_a_pipe_leaves_a_prefix_and_no_thread(in_loop: Run) -> None:
    async def copy_and_close(end: Any) -> int:
        with end:
            return await copy(io.BytesIO(DATA), end)

    async def main() -> None:
        for buffering in (-1, 0):
            ends = os.pipe()
            with open(ends[0], "rb", 0) as pipe, open(ends[1], "wb", buffering) as end:
                end.write(b"before ")
                copying = asyncio.ensure_future(copy(io.BytesIO(DATA), end, 100_000))
                await until(lambda: bytes_in(pipe) > len(b"before "))
                copying.cancel()
                await asyncio.wait([copying])
                assert copying.cancelled()
                await until(lambda: not waiting_threads())
                got = pipe.read(1 << 20)
                assert got.startswith(b"before ") and DATA.startswith(got[7:])
                copying = asyncio.ensure_future(copy_and_close(end))
                rest = b"".join([chunk async for chunk in read_chunks(pipe)])
                assert rest == DATA and await copying == len(DATA)

    in_loop(main())


def test_what_is_no_source_is_said(in_loop: Run, file: Path) -> None:
    for wrong in (5, None, ["a"]):
        with pytest.raises(TypeError, match="a source must be a path, a binary file"):
            read_chunks(cast(Any, wrong))
    with pytest.raises(TypeError, match=r"not bytes; io\.BytesIO makes a file of them"):
        read_chunks(cast(Any, b"data"))
    with pytest.raises(ValueError, match="'chunk_size' must be from 1"):
        read_chunks(file, 0)

    async def main() -> None:
        with pytest.raises(FileNotFoundError, match="nowhere"):
            await anext(read_chunks("/nowhere"))
        with file.open(encoding="latin-1") as text:
            with pytest.raises(TypeError, match='must give bytes, not str; open it with mode "rb"'):
                await anext(read_chunks(cast(Any, text)))
        blocking, other = socket.socketpair()
        with blocking, other:
            with pytest.raises(ValueError, match=r"call setblocking\(False\) first"):
                await anext(read_chunks(blocking))
            with pytest.raises(ValueError, match=r"call setblocking\(False\) first"):
                await copy(io.BytesIO(b"x"), blocking)
        ends = os.pipe()
        os.set_blocking(ends[0], False)
        with open(ends[0], "rb", buffering=0) as pipe:
            with pytest.raises(BlockingIOError, match="it is a file in non-blocking mode"):
                await anext(read_chunks(pipe))
        os.close(ends[1])

    in_loop(main())


# ---- copy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [999, 65536])
def test_copy_gives_the_destination_all_bytes(
    in_loop: Run, file: Path, tmp_path: Path, chunk_size: int
) -> None:
    async def main() -> None:
        seen: list[int] = []
        there = tmp_path / "there"
        assert await copy(file, there, chunk_size, progress=seen.append) == len(DATA)
        assert there.read_bytes() == DATA
        assert seen == sorted(set(seen)) and seen[-1] == len(DATA)
        assert len(seen) == -(-len(DATA) // chunk_size)
        assert not is_open(there) and not is_open(file)
        with there.open("wb") as given:
            await copy(io.BytesIO(DATA[::-1]), given, chunk_size)
            assert there.read_bytes() == DATA[::-1], "it is flushed"
            assert not given.closed
        await copy(io.BytesIO(b""), there)
        assert there.read_bytes() == b""

    in_loop(main())


def test_copy_waits_for_whatever_has_an_asynchronous_write_or_drain(in_loop: Run) -> None:
    class Slow:
        def __init__(self) -> None:
            self.got, self.undrained = b"", 0

        def write(self, data: bytes) -> None:
            assert self.undrained == 0, "a chunk is drained before the next is written"
            self.got += data
            self.undrained = len(data)

        async def drain(self) -> None:
            await asyncio.sleep(0)
            self.undrained = 0

    class Asynchronous:
        def __init__(self) -> None:
            self.got = b""

        async def read(self, n: int) -> bytes:
            return b"" if self.got else b"read"

        async def write(self, data: bytes) -> None:
            await asyncio.sleep(0)
            self.got += data

    async def main() -> None:
        slow, other = Slow(), Asynchronous()
        await copy(io.BytesIO(DATA), slow, 1000)
        assert slow.got == DATA
        assert await copy(other, other) == 4
        assert other.got == b"read"

    in_loop(main())


def test_copy_reads_at_the_speed_of_the_other_end(in_loop: Run) -> None:
    async def main() -> None:
        source = Reads(bytes(4 << 20))
        with pair() as (ours, theirs):
            copying = asyncio.create_task(copy(source, ours, 8192))
            taken = 0
            for _ in range(5):
                before = -1
                while source.tell() != before:  # until it stands still
                    before = source.tell()
                    await asyncio.sleep(0.02)
                assert not copying.done() and before < 2 << 20
                taken += len(theirs.recv(65536))
            copying.add_done_callback(lambda _: ours.shutdown(socket.SHUT_WR))
            async for chunk in read_chunks(theirs):
                taken += len(chunk)
            assert taken == await copying == 4 << 20

    in_loop(main())


class Chunk(bytes):
    """Knows how many of them there are."""

    alive = most = 0

    def __init__(self, _: bytes) -> None:
        Chunk.alive += 1
        Chunk.most = max(Chunk.most, Chunk.alive)

    def __del__(self) -> None:
        Chunk.alive -= 1


class Maker:
    """Reads 200 chunks, in the event loop."""

    def __init__(self) -> None:
        self.left = 200

    async def read(self, n: int) -> bytes:
        return self.make(n)

    def make(self, n: int) -> bytes:
        self.left -= 1
        return Chunk(b"x" * n) if self.left >= 0 else b""


class BlockingMaker(Maker):
    """Reads them in threads."""

    def read(self, n: int) -> bytes:  # type: ignore[override]
        return self.make(n)


class Sink:
    async def write(self, data: bytes) -> None:
        await asyncio.sleep(0)


class BlockingSink:
    def write(self, data: bytes) -> None:
        pass


@pytest.mark.parametrize("in_threads", [False, True])
def test_one_chunk_is_in_memory(in_loop: Run, in_threads: bool) -> None:
    async def main() -> None:
        make, sink = (BlockingMaker, BlockingSink()) if in_threads else (Maker, Sink())
        Chunk.most = 0
        assert await copy(make(), cast(Any, sink), 100) == 20_000
        async for chunk in read_chunks(make(), 100):
            assert len(chunk) == 100
            del chunk
        assert Chunk.most == 1

    in_loop(main())
    gc.collect()
    assert Chunk.alive == 0


def test_copy_keeps_to_a_rate_in_bytes_per_second(in_loop: Run) -> None:
    async def main() -> None:
        began = time.monotonic()
        await copy(io.BytesIO(bytes(30_000)), io.BytesIO(), 1000, limit_rate=200_000)
        assert time.monotonic() - began >= 28_000 / 200_000
        bucket = weir.TokenBucket(1_000_000, burst=300)  # less than a chunk
        assert await copy(io.BytesIO(bytes(5_000)), io.BytesIO(), 1000, limit_rate=bucket) == 5_000
        assert bucket.stats().granted == 5_000

    in_loop(main())


def test_a_full_disk_is_the_error_of_the_write(in_loop: Run, file: Path) -> None:
    async def main() -> None:
        for full in (Path("/dev/full"), open("/dev/full", "wb", buffering=0)):  # noqa: SIM115
            with pytest.raises(OSError, match="No space left on device"):
                await copy(file, full)
            assert not is_open(file)
        cast(Any, full).close()
        with open("/dev/full", "wb") as buffered:
            with pytest.raises(OSError, match="No space left on device"):
                await copy(io.BytesIO(b"less than its buffer"), buffered)
            with contextlib.suppress(OSError):
                buffered.close()
        assert not is_open(Path("/dev/full"))

    in_loop(main())


def test_a_closed_connection_is_an_error_and_the_source_is_closed(in_loop: Run, file: Path) -> None:
    async def main() -> None:
        with pair() as (ours, theirs):
            theirs.close()
            with pytest.raises(OSError, match=r"Broken pipe|reset"):
                await copy(file, ours)
        assert not is_open(file)
        with pair() as (ours, theirs):
            _, writer = await asyncio.open_connection(sock=ours.dup())
            ours.close()
            theirs.close()
            with pytest.raises((ConnectionError, OSError)):
                await copy(itertools_source(), writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        ends = os.pipe()
        os.close(ends[0])
        with open(ends[1], "wb", buffering=0) as pipe:
            with pytest.raises(BrokenPipeError) as caught:
                await copy(file, pipe)
            assert caught.value.errno == errno.EPIPE and not pipe.closed

    async def itertools_source() -> AsyncGenerator[bytes, None]:
        for _ in itertools.count():
            await asyncio.sleep(0)
            yield bytes(1000)

    in_loop(main())


def test_a_destination_is_left_alone_when_the_source_cannot_be_opened(
    in_loop: Run, tmp_path: Path, file: Path
) -> None:
    async def main() -> None:
        with pytest.raises(FileNotFoundError):
            await copy(tmp_path / "nowhere", file)
        assert file.read_bytes() == DATA
        link = tmp_path / "link"
        link.symlink_to(file)
        with pytest.raises(ValueError, match="are the same file"):
            await copy(file, link)
        assert file.read_bytes() == DATA
        for buffering in (-1, 0):
            with open(file, "rb", buffering) as given:
                with pytest.raises(ValueError, match="are the same file"):
                    await copy(given, link)
        assert file.read_bytes() == DATA
        with pytest.raises(TypeError, match="a destination must be a path"):
            await copy(file, cast(Any, 5))
        with pytest.raises(TypeError, match='must take bytes; open it with mode "wb"'):
            await copy(file, cast(Any, io.StringIO()))
        with pair() as (ours, _theirs):
            _, writer = await asyncio.open_connection(sock=ours.dup())
            with pytest.raises(TypeError, match=r"give its asyncio\.StreamWriter"):
                await copy(file, cast(Any, writer.transport))
            writer.close()
            await writer.wait_closed()

    in_loop(main())


def test_a_copy_cancelled_at_any_point_leaves_a_prefix_and_nothing_open(
    in_loop: Run, file: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"

    async def once(rng: random.Random) -> None:
        told = [0]
        copying = asyncio.create_task(copy(file, there, 5_000, progress=told.append))
        for _ in range(rng.randrange(60)):
            await asyncio.sleep(0)
        await asyncio.sleep(rng.random() * 0.004)
        copying.cancel()
        await asyncio.wait([copying])
        await until(lambda: not is_open(file) and not is_open(there))
        written = there.read_bytes() if there.exists() else b""
        assert DATA.startswith(written)
        assert told[-1] <= len(written) <= told[-1] + 5_000
        assert copying.cancelled() or copying.result() == len(DATA) == len(written)
        there.unlink(missing_ok=True)

    async def main() -> None:
        rng = random.Random(2)
        for _ in range(60):
            await once(rng)

    in_loop(main())


def test_a_writer_that_is_not_read_holds_no_more_than_its_mark(in_loop: Run) -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await gate.wait()
            got.append(await copy(reader, io.BytesIO()))
            writer.close()

        gate, got = asyncio.Event(), list[int]()
        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=4096)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        copying = asyncio.create_task(copy(io.BytesIO(bytes(16 << 20)), writer, 8192))
        most, rounds = 0, 0
        while rounds < 50 and not copying.done():
            most = max(most, cast(Any, writer.transport).get_write_buffer_size())
            await asyncio.sleep(0.002)
            rounds += 1
        assert not copying.done() and most <= 65536 + 8192
        gate.set()
        assert await copying == 16 << 20
        writer.close()
        await writer.wait_closed()
        await until(lambda: got == [16 << 20])
        server.close()
        await server.wait_closed()

    in_loop(main())
