"""weir.aio.FlowWriter: one peer, many before one bound, loss, stalls, every kind of transport."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import socket
import ssl
import sys
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from weir.aio import FlowBudget, FlowWriter

if TYPE_CHECKING:
    from typing_extensions import Self

Main = Callable[[], Coroutine[Any, Any, None]]


def run_asyncio(main: Main) -> None:
    asyncio.run(main())


def run_uvloop(main: Main) -> None:
    uvloop.run(main())


LOOPS = pytest.mark.parametrize("run", [run_asyncio, run_uvloop])


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "the condition did not come true"
        await asyncio.sleep(0.001)


class Peer:
    """The other end of a connection: it takes what the test says, and nothing else."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.far.setblocking(False)
        self.got = bytearray()

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(sock=self.near)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.far.close()
        if self.near.fileno() >= 0:
            self.writer.transport.abort()
        await until(lambda: self.near.fileno() < 0)

    def take(self, most: int = 1 << 20) -> int:
        if self.far.fileno() < 0:
            return 0
        try:
            data = self.far.recv(most)
        except (BlockingIOError, ConnectionError):
            return 0
        self.got += data
        return len(data)

    async def take_until(self, condition: Callable[[], object]) -> None:
        def taken() -> object:
            self.take()
            return condition()

        await until(taken)

    @property
    def buffered(self) -> int:
        return self.writer.transport.get_write_buffer_size()


def obeys_the_law(out: FlowWriter) -> bool:
    now = out.stats()
    whole = now.accepted == now.delivered + now.dropped + now.buffered
    return whole and now.delivered >= 0 and now.peak <= now.high and now.buffered <= now.high


def got_all(peer: Peer, nbytes: int) -> bool:
    return len(peer.got) == nbytes


def used_up(nbytes: int) -> FlowBudget:
    """A budget that somebody else has taken all of; total._give() returns it."""
    total = FlowBudget(nbytes, name="all")
    total._bind(asyncio.get_running_loop())
    assert total._try(nbytes)
    return total


def task_of(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(coroutine)


# ---- one peer ------------------------------------------------------------------------------------


@LOOPS
def test_a_large_write_is_cut_and_never_more_than_high_is_buffered(
    run: Callable[..., None],
) -> None:
    async def main() -> None:
        data = random.Random(1).randbytes(600_000)
        async with Peer() as peer:
            out = FlowWriter(peer.writer, high=10_000, low=3_000)
            write = task_of(out.write(data))
            while not write.done():
                assert peer.buffered <= 10_000
                assert obeys_the_law(out)
                peer.take(20_000)
                await asyncio.sleep(0)
            await write
            await peer.take_until(lambda: len(peer.got) == len(data))
            assert peer.got == data
            now = out.stats()
            assert (now.accepted, now.delivered, now.dropped) == (len(data), len(data), 0)
            assert now.peak == 10_000
            assert now.pauses > 1

    run(main)


@LOOPS
def test_who_found_the_buffer_full_goes_on_when_it_is_low(run: Callable[..., None]) -> None:
    async def main() -> None:
        async with Peer() as peer:
            total = FlowBudget(1 << 20)
            out = FlowWriter(peer.writer, high=50_000, low=0, total=total)
            fill = task_of(out.write(bytes(200_000)))
            await until(lambda: out.stats().is_paused)
            drain = task_of(out.drain())
            await until(lambda: out.stats().waiting == 2)
            fill.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await fill
            await peer.take_until(lambda: total.used < 40_000)  # what has gone is given back
            assert 0 < peer.buffered <= total.used
            assert not drain.done()
            await peer.take_until(drain.done)
            assert peer.buffered == 0
            assert not out.stats().is_paused
            assert out.stats().paused_for > 0

    run(main)


@LOOPS
def test_a_write_that_need_not_wait_does_not_suspend(run: Callable[..., None]) -> None:
    async def main() -> None:
        async with Peer() as peer:
            out = FlowWriter(peer.writer, total=FlowBudget(1000))
            for call in (out.write(b"abc"), out.writelines([b"de", b"f"]), out.drain()):
                with pytest.raises(StopIteration):
                    call.send(None)
            await out.write(b"")
            await peer.take_until(lambda: peer.got == b"abcdef")

    run(main)


@LOOPS
def test_lines_go_out_in_order_whatever_their_size(run: Callable[..., None]) -> None:
    async def main() -> None:
        chance = random.Random(7)
        lines = [chance.randbytes(chance.choice((0, 1, 50, 4095, 4096, 9000))) for _ in range(300)]
        async with Peer() as peer:
            out = FlowWriter(peer.writer, high=8192)
            write = task_of(out.writelines(lines))
            await peer.take_until(write.done)
            await peer.take_until(lambda: len(peer.got) == sum(map(len, lines)))
            assert peer.got == b"".join(lines)
            assert obeys_the_law(out)

    run(main)


def test_writes_of_several_tasks_go_out_each_in_one_piece() -> None:
    async def main() -> None:
        async with Peer() as peer:
            out = FlowWriter(peer.writer, high=1000)
            writes = [task_of(out.write(bytes([n]) * 20_000)) for n in range(5)]
            writes.append(task_of(out.writelines([b"\x05" * 9000, b"\x05" * 11_000])))
            await peer.take_until(lambda: len(peer.got) == 120_000)
            await asyncio.gather(*writes)
            assert peer.got == b"".join(bytes([n]) * 20_000 for n in range(6))

    asyncio.run(main())


@LOOPS
def test_the_data_may_change_as_soon_as_write_has_returned(run: Callable[..., None]) -> None:
    async def main() -> None:
        async with Peer() as peer:
            out = FlowWriter(peer.writer, high=65536)
            await out.write(bytes(30_000))  # so that the next one is buffered
            data = bytearray(b"a" * 20_000)
            await out.write(data)
            data[:] = b"b" * 20_000
            data.clear()  # nobody has a view of it
            await peer.take_until(lambda: len(peer.got) == 50_000)
            assert peer.got[30_000:] == b"a" * 20_000

    run(main)


def test_data_of_any_format_is_written_as_its_bytes() -> None:
    async def main() -> None:
        import array

        async with Peer() as peer:
            out = FlowWriter(peer.writer)
            await out.write(array.array("I", [1, 2]))
            await out.write(memoryview(b"abcdef")[2:4])
            with pytest.raises(TypeError):
                await out.write("text")  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                await out.write(memoryview(b"abcd")[::2])
            await peer.take_until(lambda: len(peer.got) == 10)
            assert peer.got == array.array("I", [1, 2]).tobytes() + b"cd"

    asyncio.run(main())


def test_what_cannot_be_is_refused_in_words() -> None:
    async def main() -> None:
        async with Peer() as peer:
            wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
                ({"high": 0}, ValueError, "'high' must be from 1"),
                ({"high": 8, "low": 8}, ValueError, "'low' must be >= 0 and below high"),
                ({"stall_timeout": 0}, ValueError, "'stall_timeout' must be > 0 s, or None, not 0"),
                ({"stall_timeout": "1"}, TypeError, "'stall_timeout' must be a number"),
                ({"total": 1000}, TypeError, "'total' must be a weir.aio.FlowBudget, or None"),
            ]
            for options, error, text in wrong:
                with pytest.raises(error, match=text):
                    FlowWriter(peer.writer, **options)
            with pytest.raises(TypeError, match=r"StreamWriter or a write transport, not <_io"):
                FlowWriter(sys.stdout)  # type: ignore[arg-type]
            FlowWriter(peer.writer)
            with pytest.raises(ValueError, match="has a FlowWriter already"):
                FlowWriter(peer.writer.transport)
        with pytest.raises(ConnectionResetError, match="closed, or closing, already"):
            FlowWriter(peer.writer)

    asyncio.run(main())
    with pytest.raises(RuntimeError, match="no running event loop"):
        FlowWriter(None)  # type: ignore[arg-type]


def test_the_reading_side_and_the_plain_writer_go_on_as_before() -> None:
    async def main() -> None:
        async with Peer() as peer:
            out = FlowWriter(peer.writer, high=1000)
            peer.far.send(b"hello\n")
            assert await peer.reader.readline() == b"hello\n"
            peer.writer.write(bytes(100_000))  # past it, and past its mark
            drain = task_of(peer.writer.drain())
            write = task_of(out.write(b"end"))
            await asyncio.sleep(0.01)
            assert not drain.done()
            assert not write.done()
            await peer.take_until(lambda: peer.got.endswith(b"end"))
            await asyncio.gather(drain, write)
            assert out.get_extra_info("socket") is peer.writer.get_extra_info("socket")
            assert out.get_extra_info("nothing", 5) == 5
            assert out.transport is peer.writer.transport
            assert repr(out) == "<weir.aio.FlowWriter: 0 of 1000 bytes>"

    asyncio.run(main())


# ---- the bound for all ---------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def peers(n: int) -> AsyncIterator[list[Peer]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Peer()) for _ in range(n)]


@LOOPS
def test_all_together_never_buffer_more_than_the_total(run: Callable[..., None]) -> None:
    async def main() -> None:
        total = FlowBudget(50_000)
        async with peers(20) as those:
            outs = [FlowWriter(peer.writer, high=16_384, total=total) for peer in those]
            writes = [task_of(out.write(bytes([n]) * 60_000)) for n, out in enumerate(outs)]

            def check() -> bool:
                buffered = sum(peer.buffered for peer in those)
                held = sum(out.stats().held for out in outs)
                assert buffered <= held <= total.used <= 50_000
                assert all(obeys_the_law(out) for out in outs)
                return all(write.done() for write in writes)

            await until(lambda: total.stats().waiting > 3 or check())
            assert sum(peer.buffered for peer in those) > 30_000
            while not check():
                for peer in random.sample(those, 5):
                    peer.take(10_000)
                await asyncio.sleep(0)
            for n, peer in enumerate(those):
                await peer.take_until(partial(got_all, peer, 60_000))
                assert peer.got == bytes([n]) * 60_000
            await until(lambda: total.used == 0)
            assert total.stats().peak <= 50_000
            assert total.stats().granted == total.stats().returned == 20 * 60_000

    run(main)


def test_a_stalled_peer_holds_its_share_and_the_others_go_on() -> None:
    async def main() -> None:
        total = FlowBudget(40_000)
        async with peers(2) as (stalled, quick):
            slow = FlowWriter(stalled.writer, high=16_000, total=total)
            fast = FlowWriter(quick.writer, high=16_000, total=total)
            stuck = task_of(slow.write(bytes(100_000)))
            await until(lambda: slow.stats().is_paused)
            assert slow.stats().held == 16_000
            write = task_of(fast.write(bytes(300_000)))
            await quick.take_until(write.done)
            stuck.cancel()

    asyncio.run(main())


def test_who_waits_for_the_total_is_served_in_the_order_they_came() -> None:
    async def main() -> None:
        total = used_up(1000)
        async with peers(5) as those:
            served: list[int] = []

            async def write(n: int) -> None:
                await FlowWriter(those[n].writer, high=4000, total=total).write(bytes(1000))
                served.append(n)

            writes = []
            for n in (3, 1, 4, 0, 2):
                writes.append(task_of(write(n)))
                await until(lambda: total.stats().waiting == len(writes))
            total._give(1000)
            await asyncio.gather(*writes)
            assert served == [3, 1, 4, 0, 2]
            assert total.used == 0

    asyncio.run(main())


def test_nobody_overtakes_in_the_line_and_who_leaves_it_lets_the_next_one_through() -> None:
    async def main() -> None:
        total = used_up(1000)
        async with peers(2) as (one, other):
            large = task_of(FlowWriter(one.writer, total=total).write(bytes(1000)))
            await until(lambda: total.stats().waiting == 1)
            total._give(400)  # not enough for it
            small = task_of(FlowWriter(other.writer, total=total).write(bytes(10)))
            await until(lambda: total.stats().waiting == 2)
            assert not small.done()
            large.cancel()
            await small
            assert total.stats().waiting == 0
            assert total.used == 600

    asyncio.run(main())


def test_a_total_that_is_lowered_while_one_waits() -> None:
    async def main() -> None:
        total = used_up(8000)
        async with Peer() as peer:
            out = FlowWriter(peer.writer, total=total)
            write = task_of(out.write(bytes(8000)))
            await until(lambda: total.stats().waiting == 1)
            total.limit = 100  # less than the piece that waits
            assert repr(total) == "<weir.aio.FlowBudget 'all': 8000 of 100 bytes>"
            total._give(7999)
            await until(lambda: total.stats().waiting == 1)
            assert out.stats().accepted == 0  # 99 are not 100
            total._give(1)
            await peer.take_until(write.done)
            assert total.stats().peak == 8000
            with pytest.raises(ValueError, match="'limit' must be from 1"):
                total.limit = 0

    asyncio.run(main())


def test_a_budget_is_of_one_loop_at_a_time() -> None:
    total = FlowBudget(1000)
    for wrong in (0, -1, True, 1.5, None):
        with pytest.raises((ValueError, TypeError), match="'nbytes' must be"):
            FlowBudget(wrong)  # type: ignore[arg-type]

    async def inner() -> None:
        async with Peer() as peer:
            with pytest.raises(RuntimeError, match="in use by another event loop"):
                FlowWriter(peer.writer, total=total)

    async def main() -> None:
        async with Peer() as peer:
            out = FlowWriter(peer.writer, total=total)
            write = task_of(out.write(bytes(50_000)))
            await until(lambda: total.used > 0)
            await asyncio.to_thread(asyncio.run, inner())
            write.cancel()

    asyncio.run(main())
    asyncio.run(main())


# ---- loss ----------------------------------------------------------------------------------------


@LOOPS
def test_a_lost_peer_gives_everything_back_and_its_writers_hear_of_it(
    run: Callable[..., None],
) -> None:
    async def main() -> None:
        total = FlowBudget(100_000)
        async with Peer() as peer:
            out = FlowWriter(peer.writer, high=20_000, total=total)
            calls = [task_of(out.write(bytes(90_000))), task_of(out.write(b"behind it"))]
            await until(lambda: out.stats().is_paused)
            calls.append(task_of(out.drain()))
            assert total.used > 0
            peer.far.close()
            for call in calls:
                with pytest.raises(ConnectionResetError):
                    await call
            await until(lambda: out.stats().is_closed)
            assert total.used == 0
            with pytest.raises(ConnectionResetError):
                await out.write(b"x")
            now = out.stats()
            assert obeys_the_law(out)
            assert now.dropped == 20_000
            assert (now.held, now.waiting, now.is_paused) == (0, 0, False)
            assert repr(out).endswith("0 of 20000 bytes, closed>")

    run(main)


@LOOPS
def test_bytes_that_the_kernel_refuses_are_dropped_not_delivered(run: Callable[..., None]) -> None:
    async def main() -> None:
        async with Peer() as peer:
            out = FlowWriter(peer.writer, total=FlowBudget(1000))
            peer.far.close()
            with contextlib.suppress(ConnectionError):
                await out.write(bytes(500))
            await until(lambda: out.stats().is_closed)
            assert out.stats().delivered == 0
            assert obeys_the_law(out)

    run(main)


@LOOPS
def test_who_waits_for_the_total_is_told_when_its_own_peer_is_lost_or_closed(
    run: Callable[..., None],
) -> None:
    async def main() -> None:
        total = used_up(1000)
        async with peers(3) as (lost, closed, cancelled):
            outs = [FlowWriter(p.writer, total=total) for p in (lost, closed, cancelled)]
            writes = [task_of(out.write(b"x" * 10)) for out in outs]
            await until(lambda: total.stats().waiting == 3)
            lost.writer.transport.abort()
            outs[1].close()
            writes[2].cancel()
            for write in writes[:2]:
                with pytest.raises(ConnectionResetError):
                    await write
            with pytest.raises(asyncio.CancelledError):
                await writes[2]
            assert total.stats().waiting == 0
            total._give(1000)
            assert total.used == 0
            await outs[2].write(b"nothing had gone, so it goes on")
            await cancelled.take_until(lambda: cancelled.got.endswith(b"goes on"))

    run(main)


def test_a_write_cancelled_half_way_leaves_a_torn_stream_that_says_so() -> None:
    async def main() -> None:
        async with Peer() as peer:
            out = FlowWriter(peer.writer, high=1000)
            write = task_of(out.write(bytes(50_000)))
            behind = task_of(out.write(b"behind it"))
            await until(lambda: out.stats().is_paused)
            write.cancel()
            with pytest.raises(asyncio.CancelledError):
                await write
            await peer.take_until(behind.done)
            for call in (behind, out.write(b"x")):
                with pytest.raises(RuntimeError, match="torn: close"):
                    await call
            assert b"x" not in peer.got
            out.close()
            await peer.take_until(lambda: out.stats().is_closed)

    asyncio.run(main())


def test_a_write_cancelled_before_its_first_byte_has_not_happened() -> None:
    async def main() -> None:
        async with Peer() as peer:
            out = FlowWriter(peer.writer, high=1000)
            fill = task_of(out.write(bytes(50_000)))
            await until(lambda: out.stats().is_paused)
            write = task_of(out.write(b"x" * 10))
            await asyncio.sleep(0)
            write.cancel()
            with pytest.raises(asyncio.CancelledError):
                await write
            await peer.take_until(fill.done)
            await out.write(b"end")
            await peer.take_until(lambda: peer.got.endswith(b"end"))
            assert len(peer.got) == 50_003

    asyncio.run(main())


@LOOPS
def test_a_peer_that_takes_nothing_is_aborted_after_the_stall_timeout(
    run: Callable[..., None],
) -> None:
    async def main() -> None:
        total = FlowBudget(50_000)
        async with peers(2) as (stalled, other):
            out = FlowWriter(stalled.writer, high=20_000, total=total, stall_timeout=0.1)
            idle = FlowWriter(other.writer, high=20_000, total=total, stall_timeout=0.1)
            await idle.write(b"all of it goes")
            with pytest.raises(ConnectionAbortedError, match=r"took nothing for 0.1 s"):
                await out.write(bytes(100_000))
            with pytest.raises(ConnectionAbortedError):
                await out.wait_closed()
            with pytest.raises(ConnectionAbortedError):
                await out.write(b"x")
            assert total.used == 0
            assert out.stats().dropped == 20_000
            assert obeys_the_law(out)
            assert not idle.is_closing()

    run(main)


def test_a_peer_that_takes_a_little_is_not_aborted() -> None:
    async def main() -> None:
        async with Peer() as peer:
            out = FlowWriter(peer.writer, high=20_000, stall_timeout=0.15)
            write = task_of(out.write(bytes(60_000)))
            loop = asyncio.get_running_loop()
            end = loop.time() + 0.6
            while loop.time() < end:
                peer.take(4096)
                await asyncio.sleep(0.02)
            assert not out.is_closing()
            await peer.take_until(write.done)
            await write

    asyncio.run(main())


# ---- the end -------------------------------------------------------------------------------------


@LOOPS
def test_async_with_waits_until_everything_has_gone(run: Callable[..., None]) -> None:
    async def main() -> None:
        total = FlowBudget(50_000)
        async with Peer() as peer:

            async def use() -> None:
                async with FlowWriter(peer.writer, high=30_000, total=total) as out:
                    await out.write(bytes(30_000))
                with pytest.raises(ConnectionResetError):
                    await out.write(b"x")
                now = out.stats()
                assert (now.delivered, now.dropped, now.is_closed) == (30_000, 0, True)

            using = task_of(use())
            await asyncio.sleep(0.01)
            assert not using.done()
            await peer.take_until(using.done)
            await using
            await peer.take_until(lambda: len(peer.got) == 30_000)
            assert total.used == 0

    run(main)


@LOOPS
def test_async_with_left_by_an_exception_or_cancelled_aborts(run: Callable[..., None]) -> None:
    async def main() -> None:
        total = FlowBudget(100_000)
        async with peers(2) as (one, other):
            out = FlowWriter(one.writer, high=30_000, total=total)

            async def fail() -> None:
                async with out:
                    await out.write(bytes(30_000))
                    raise KeyError

            with pytest.raises(KeyError):
                await fail()
            await until(lambda: out.stats().is_closed)
            assert out.stats().dropped > 0
            assert obeys_the_law(out)

            async def use() -> None:
                async with FlowWriter(other.writer, high=30_000, total=total) as out:
                    await out.write(bytes(30_000))

            using = task_of(use())
            await asyncio.sleep(0.01)
            using.cancel()
            with pytest.raises(asyncio.CancelledError):
                await using
            await until(lambda: total.used == 0)

    run(main)


@LOOPS
def test_close_releases_who_waits_for_the_buffer(run: Callable[..., None]) -> None:
    async def main() -> None:
        async with Peer() as peer:
            out = FlowWriter(peer.writer, high=1000)
            calls = [task_of(out.write(bytes(50_000))), task_of(out.write(b"x"))]
            await until(lambda: out.stats().is_paused)
            calls.append(task_of(out.drain()))
            await asyncio.sleep(0)
            out.close()
            for call in calls:
                with pytest.raises(ConnectionResetError, match="closing"):
                    await call
            out.close()
            assert out.is_closing()
            await peer.take_until(lambda: out.stats().is_closed)
            await out.wait_closed()
            out.abort()

    run(main)


@LOOPS
def test_write_eof_follows_what_is_buffered(run: Callable[..., None]) -> None:
    async def main() -> None:
        async with Peer() as peer:
            out = FlowWriter(peer.writer, high=30_000)
            assert out.can_write_eof()
            write = task_of(out.write(bytes(90_000)))
            await until(lambda: out.stats().is_paused)
            with pytest.raises(RuntimeError, match="a write is under way"):
                out.write_eof()
            await peer.take_until(write.done)
            out.write_eof()
            with pytest.raises(RuntimeError):
                await out.write(b"x")
            await peer.take_until(lambda: len(peer.got) == 90_000)
            peer.far.send(b"answer")
            peer.far.shutdown(socket.SHUT_WR)
            assert await peer.reader.read() == b"answer"

    run(main)


def test_a_loop_that_ends_takes_what_its_writers_held_with_it() -> None:
    total = FlowBudget(50_000)
    gone: list[weakref.ref[FlowWriter]] = []

    async def main() -> None:
        peer = Peer()
        _, writer = await asyncio.open_connection(sock=peer.near)
        out = FlowWriter(writer, total=total)
        await out.write(bytes(40_000))
        assert total.used > 0
        gone.append(weakref.ref(out))
        peer.far.close()  # which nobody hears of any more

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of the transport
        asyncio.run(main())
        gc.collect()
    assert gone[0]() is None
    assert total.used == 0


# ---- every kind of transport ---------------------------------------------------------------------


class Plain(asyncio.Protocol):
    """Of a program that does without streams."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.read = b""

    def data_received(self, data: bytes) -> None:
        self.read += data

    def pause_writing(self) -> None:
        self.said.append("pause")

    def resume_writing(self) -> None:
        self.said.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.said.append("lost")


class Buffered(asyncio.BufferedProtocol):
    def __init__(self) -> None:
        self.memory = bytearray(100)
        self.read = b""

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.memory

    def buffer_updated(self, nbytes: int) -> None:
        self.read += self.memory[:nbytes]


@LOOPS
@pytest.mark.parametrize("kind", [Plain, Buffered])
def test_a_transport_with_a_protocol_of_its_own(
    run: Callable[..., None], kind: type[Plain | Buffered]
) -> None:
    async def main() -> None:
        peer = Peer()
        loop = asyncio.get_running_loop()
        protocol = kind()
        transport, _ = await loop.create_connection(lambda: protocol, sock=peer.near)
        out = FlowWriter(transport, high=5_000)
        peer.far.send(b"in")
        await until(lambda: protocol.read == b"in")
        write = task_of(out.write(bytes(100_000)))
        await peer.take_until(write.done)
        await peer.take_until(lambda: len(peer.got) == 100_000)
        out.close()
        await out.wait_closed()
        if isinstance(protocol, Plain):
            pairs = protocol.said[:-1]
            assert protocol.said[-1] == "lost"
            assert pairs == ["pause", "resume"] * (len(pairs) // 2)
            assert pairs
        peer.far.close()

    run(main)


@LOOPS
def test_a_pipe(run: Callable[..., None]) -> None:
    async def main() -> None:
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(write_end, "wb"))
        out = FlowWriter(transport, high=20_000)
        write = task_of(out.write(bytes(300_000)))
        got = 0

        def take() -> bool:
            nonlocal got
            with contextlib.suppress(BlockingIOError):
                got += len(os.read(read_end, 50_000))
            return write.done() and got == 300_000

        await until(take)
        await write
        assert out.stats().peak <= 20_000
        assert obeys_the_law(out)
        out.close()
        await out.wait_closed()
        os.close(read_end)

    run(main)


@LOOPS
def test_the_standard_input_of_a_subprocess(run: Callable[..., None]) -> None:
    code = "import sys, hashlib; print(hashlib.md5(sys.stdin.buffer.read()).hexdigest())"

    async def main() -> None:
        import hashlib

        data = random.Random(3).randbytes(2_000_000)
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        async with FlowWriter(child.stdin, high=30_000) as out:
            await out.write(data)
        assert out.stats().peak <= 30_000
        said = await child.stdout.read()
        assert said.decode().strip() == hashlib.md5(data).hexdigest()
        assert await child.wait() == 0

    run(main)


CERTIFICATE = """
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgafLD1EgeWHLniDjk
jgGLD9/aF7FpWyfxY3sAZJYmXtahRANCAAR6B185foIdncXmtXPIcGWCt1rBttt5
elqos2h3ixzkzXRct0oJsO8OrO5/TThHGD+mKuRMDeDx+rOH1wSDB75U
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBlTCCATugAwIBAgIUN3C4qotP1ks95iAyaIa+5BeuIT0wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyODE4MTQzMFoYDzIxMjYxMTA0
MTgxNDMwWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAR6B185foIdncXmtXPIcGWCt1rBttt5elqos2h3ixzkzXRct0oJsO8O
rO5/TThHGD+mKuRMDeDx+rOH1wSDB75Uo2kwZzAdBgNVHQ4EFgQUCOQfdfrFMzj7
lEdkxqCeNiv2oz8wHwYDVR0jBBgwFoAUCOQfdfrFMzj7lEdkxqCeNiv2oz8wDwYD
VR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwCgYIKoZIzj0EAwID
SAAwRQIhAKceE+wpjub/3LNVWYIYLpOn7w9qLv4EBReS3HuHTQsNAiB5fl0wakUe
CJxDI9CmFmh77hFScjt78uDt+LnAsvSfkA==
-----END CERTIFICATE-----
"""


@LOOPS
def test_tls(run: Callable[..., None], tmp_path: Path) -> None:
    file = tmp_path / "both.pem"
    file.write_text(CERTIFICATE)
    for_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for_server.load_cert_chain(file)
    for_client = ssl.create_default_context(cafile=str(file))
    data = random.Random(5).randbytes(1_500_000)

    async def main() -> None:
        total = FlowBudget(30_000)
        outs: list[FlowWriter] = []

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            out = FlowWriter(writer, high=16_384, total=total)
            outs.append(out)
            await out.write(data)
            out.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=for_server)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=for_client, server_hostname="localhost", limit=4096
        )
        got = bytearray()
        while chunk := await reader.read(30_000):
            got += chunk
            await asyncio.sleep(0.0005)
        assert got == data
        writer.close()
        await until(lambda: outs[0].stats().is_closed)
        assert obeys_the_law(outs[0])
        assert total.used == 0
        assert total.stats().peak <= 30_000
        server.close()

    run(main)


# ---- everything at once --------------------------------------------------------------------------


@LOOPS
def test_under_load_with_losses_cancels_and_stalls_the_bounds_and_the_law_hold(
    run: Callable[..., None],
) -> None:
    chance = random.Random(11)

    async def main() -> None:
        total = FlowBudget(60_000)
        outs: list[FlowWriter] = []

        async def client(n: int) -> None:
            async with Peer() as peer:
                out = FlowWriter(peer.writer, high=8_000, total=total, stall_timeout=0.3)
                outs.append(out)
                write = task_of(out.write(bytes([n]) * chance.randrange(1, 60_000)))
                kind = n % 5  # reads; is lost; is cancelled; stalls; is closed
                for _ in range(chance.randrange(1, 20)):
                    peer.take(3_000)
                    await asyncio.sleep(0.001)
                if kind == 1:
                    peer.far.close()
                elif kind == 2:
                    write.cancel()
                elif kind == 4:
                    out.close()
                deadline = asyncio.get_running_loop().time() + 20
                while not write.done():
                    assert asyncio.get_running_loop().time() < deadline
                    assert sum(o.stats().held for o in outs) <= total.used <= 60_000
                    assert obeys_the_law(out)
                    if kind != 3 or write.cancelled():
                        peer.take(3_000)
                    await asyncio.sleep(0.001)
                with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                    await write
                out.abort()
            await until(lambda: out.stats().is_closed)

        await asyncio.gather(*(client(n) for n in range(60)))
        assert total.used == 0
        assert total.stats().peak <= 60_000
        assert total.stats().waiting == 0
        assert all(obeys_the_law(out) for out in outs)
        assert sum(out.stats().accepted for out in outs) > 0

    run(main)
