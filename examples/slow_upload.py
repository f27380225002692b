#!/usr/bin/env python3
"""slow_upload.py - a large file, and an upload that is slower than the disk (scenario S18).

`writer.write(path.read_bytes())` has the whole file in memory, and more than once, however slow the
other end is.  `copy(path, writer, 8192)` reads the next 8 KiB when the last ones have gone: the
file is read at the speed of the upload, and one chunk is in memory.  What was read and has not
arrived is that chunk and what the kernel holds of the connection.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

import show
from show import MIB
from weir.aio import copy

BUFFER = 64 << 10  # bytes that the kernel holds on each side of the connection, and doubles


class Server:
    """Takes what is uploaded to it at so many bytes a second, and counts it."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.received = 0
        self.is_done = asyncio.Event()

    async def start(self) -> tuple[asyncio.Server, tuple[str, int]]:
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        server = await asyncio.start_server(self.serve, sock=sock, limit=BUFFER)
        return server, sock.getsockname()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        before = self.received
        await copy(
            reader,
            Nowhere(),
            limit_rate=self.rate,
            progress=lambda copied: setattr(self, "received", before + copied),
        )
        writer.close()
        self.is_done.set()


class Nowhere:
    async def write(self, data: bytes) -> None:
        pass


async def connect(address: tuple[str, int]) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection(*address)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    writer.transport.set_write_buffer_limits(high=0)  # drain() waits until the kernel has it all
    return writer


async def in_chunks(path: Path, server: Server, writer: asyncio.StreamWriter, chunk: int) -> int:
    """How far the reading was ahead of the upload, at most."""
    ahead = 0

    def watch(copied: int) -> None:
        nonlocal ahead
        ahead = max(ahead, copied - server.received)

    await copy(path, writer, chunk, progress=watch)
    return ahead


async def at_once(path: Path, server: Server, writer: asyncio.StreamWriter, chunk: int) -> int:
    data = await asyncio.to_thread(path.read_bytes)
    writer.write(data)
    return len(data)


async def run(path: Path, args: Namespace) -> int:
    size, rate = args.size * MIB, args.rate * MIB * args.speed
    rows, status, received = [], 0, 0
    ways = {f"copy, {args.chunk:,} bytes at a time": in_chunks, "write(read_bytes())": at_once}
    for name, upload in ways.items():
        server = Server(rate)
        listening, address = await server.start()
        writer = await connect(address)
        rss, began = show.rss(), time.monotonic()
        ahead = await upload(path, server, writer, args.chunk)
        grown = show.rss(peak=True) - rss
        writer.close()
        await server.is_done.wait()
        seconds = time.monotonic() - began
        listening.close()
        rows.append(
            (name, f"{seconds:.1f} s", f"{size / seconds / MIB:.1f} MiB/s",
             f"{ahead / 1024:,.0f} KiB", show.mib(grown))
        )  # fmt: skip
        received += server.received
        if upload is in_chunks:
            status |= ahead > MIB or grown > max(8 * MIB, size // 4)
    print(show.table(("", "took", "speed", "read ahead of the upload", "memory grew by"), rows))
    return status | show.check_law("bytes", 2 * size, {"received": received})


def main() -> int:
    args = show.options(__doc__, size=32, rate=8.0, chunk=8192)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large")
        with path.open("wb") as file:
            for _ in range(args.size):
                file.write(os.urandom(MIB))
        return asyncio.run(run(path, args))


if __name__ == "__main__":
    sys.exit(main())
