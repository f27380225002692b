#!/usr/bin/env python3
"""slow_clients.py - a server that writes faster than its clients read (scenario S17).

Hundreds of clients read a download slowly, and some of them stop reading.  With `writer.write`
alone everything that they have not read lies in the server's memory; here the run is stopped at a
cap, so that the machine survives it.  With FlowWriter each client has marks of 64 KiB and 16 KiB,
all together have one budget, and who takes nothing for a while is cut off: memory is bounded for
each client and in all, and every other client gets its download whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable

import show
from weir.aio import FlowBudget, FlowWriter

KIB = 1024
TICK = 0.2  # seconds between two reads of a client
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Client:
    """Reads so many KiB a second, or stops for good after the first."""

    def __init__(self, args: Namespace, stalls: bool) -> None:
        self.stalls, self.got = stalls, 0
        self.each = max(1, round(args.client_rate * KIB * TICK))
        self.pause = TICK / args.speed

    async def run(self, address: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * KIB)  # not in the kernel
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            with contextlib.suppress(ConnectionError):
                while data := await loop.sock_recv(sock, self.each):
                    self.got += len(data)
                    await asyncio.sleep(1e6 if self.stalls else self.pause)


class Run:
    """A server and its clients, and what was seen."""

    def __init__(self, name: str, args: Namespace) -> None:
        self.name, self.args = name, args
        self.size = args.download * KIB
        self.chunk = bytes(16 * KIB)
        self.transports: list[asyncio.WriteTransport] = []
        self.before = show.rss()
        self.buffered = self.largest = self.grown = self.left = self.ended = 0
        self.over = asyncio.Event()  # all is written

    def look(self) -> int:
        """What is buffered now; keeps the peaks."""
        sizes = [transport.get_write_buffer_size() for transport in self.transports]
        self.buffered = max(self.buffered, sum(sizes))
        self.largest = max(self.largest, *sizes, 0)
        self.grown = max(self.grown, show.rss() - self.before)
        return sum(sizes)

    async def watch(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(0.005)

    def note_end(self) -> None:
        self.ended += 1
        if self.ended == self.args.clients:
            self.over.set()

    async def serve(self, handler: Handler, *, to_the_end: bool) -> list[Client]:
        """Lets all clients come, until all is written, or also read."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=self.args.clients)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * KIB)
        server = await asyncio.start_server(handler, sock=listener, backlog=self.args.clients)
        clients = [Client(self.args, n < self.args.stalled) for n in range(self.args.clients)]
        running = [asyncio.create_task(c.run(listener.getsockname())) for c in clients]
        watcher = asyncio.create_task(self.watch())
        await self.over.wait()
        self.left = self.look()
        if to_the_end:  # the last of it is still in the kernel
            await asyncio.gather(*running[self.args.stalled :])
        server.close()
        for task in (*running, watcher):
            task.cancel()
        await asyncio.gather(*running, watcher, return_exceptions=True)
        for transport in self.transports:
            if not transport.is_closing():
                transport.abort()
        await asyncio.sleep(0)
        return clients

    def row(self, whole: int, cut_off: int) -> tuple[object, ...]:
        return (
            self.name,
            f"{self.largest // KIB} KiB",
            show.mib(self.buffered),
            show.mib(self.grown),
            whole,
            cut_off,
        )


class Plain(Run):
    """writer.write, and nothing else."""

    def __init__(self, args: Namespace) -> None:
        super().__init__("writer.write", args)
        self.written = self.rounds = 0
        self.is_capped = False

    async def handle(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.transports.append(writer.transport)
        for n in range(0, self.size, len(self.chunk)):
            if self.over.is_set():
                break
            piece = self.chunk[: self.size - n]
            writer.write(piece)
            self.written += len(piece)
            await asyncio.sleep(0)  # others want to write, too
            self.rounds += 1
            if self.rounds % 64 == 0 and self.look() >= self.args.cap * show.MIB:
                self.is_capped = True
                self.over.set()
        self.note_end()

    async def run(self) -> tuple[object, ...]:
        clients = await self.serve(self.handle, to_the_end=False)
        return self.row(sum(client.got == self.size for client in clients), 0)


class Flow(Run):
    """The same through a FlowWriter."""

    def __init__(self, args: Namespace) -> None:
        super().__init__("FlowWriter", args)
        self.total = FlowBudget(args.total * KIB)
        self.writers: list[FlowWriter] = []
        self.cut_off = 0

    async def handle(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.transports.append(writer.transport)
        out = FlowWriter(
            writer,
            high=self.args.high * KIB,
            low=self.args.low * KIB,
            total=self.total,
            stall_timeout=self.args.stall_timeout / self.args.speed,
        )
        self.writers.append(out)
        try:
            async with out:
                for n in range(0, self.size, len(self.chunk)):
                    await out.write(self.chunk[: self.size - n])
        except ConnectionAbortedError:
            self.cut_off += 1
        finally:
            self.note_end()

    async def run(self) -> tuple[object, ...]:
        clients = await self.serve(self.handle, to_the_end=True)
        return self.row(sum(client.got == self.size for client in clients), self.cut_off)

    def breaches(self) -> list[str]:
        """What was promised and not kept."""
        most = max(self.largest, *(out.stats().peak for out in self.writers))
        found = []
        if most > self.args.high * KIB:
            found.append(f"{most} bytes were buffered for one client")
        if max(self.buffered, self.total.stats().peak) > self.args.total * KIB:
            found.append(f"{self.buffered} bytes were buffered in all")
        if self.total.used:
            found.append(f"{self.total.used} bytes of the budget have not come back")
        return found


def allow_descriptors(n: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < n:
        if hard != resource.RLIM_INFINITY and hard < n:
            sys.exit(f"slow_clients.py: {n} descriptors are needed, {hard} allowed: ulimit -n {n}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (n, hard))


def main() -> int:
    args = show.options(
        __doc__,
        clients=300,
        stalled=10,
        download=1024,  # KiB each
        client_rate=128.0,  # KiB/s
        high=64,
        low=16,
        total=8192,  # KiB
        stall_timeout=2.0,
        cap=128,  # MiB, where the first run is stopped
    )
    allow_descriptors(2 * args.clients + 100)
    plain, flow = Plain(args), Flow(args)
    rows = [asyncio.run(plain.run())]
    flow.before = show.rss()
    rows.append(asyncio.run(flow.run()))
    print(
        show.table(("", "one client", "all clients", "memory", "downloads whole", "cut off"), rows)
    )
    offered = args.clients * args.download * KIB
    print(f"\n{args.clients} clients of {args.download} KiB: {show.mib(offered)} offered")
    if plain.is_capped:
        print(f"writer.write was stopped at {args.cap} MiB: nothing else would have stopped it")
    delivered = plain.written - plain.left
    status = show.check_law(
        "bytes written", plain.written, {"delivered": delivered, "in memory": plain.left}
    )
    sums = [out.stats() for out in flow.writers]
    status |= show.check_law(
        "bytes accepted",
        sum(one.accepted for one in sums),
        {
            "delivered": sum(one.delivered for one in sums),
            "dropped with the stalled clients": sum(one.dropped for one in sums),
            "inside": sum(one.buffered for one in sums),
        },
    )
    for breach in flow.breaches():
        print(f"the bound was broken: {breach}")
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
