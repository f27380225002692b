#!/usr/bin/env python3
"""big_file.py - a file that is larger than the memory there is (scenario S6).

Each row is a process of its own that may have 64 MiB more than it began with (RLIMIT_AS), and a
file of 128 MiB to digest.  read_bytes() ends with MemoryError; read_chunks() does with one chunk,
whatever its size, and its memory does not grow with the file.
"""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import show
import weir
from show import MIB
from weir.aio import read_chunks


class Digest(NamedTuple):
    text: str
    nbytes: int
    seconds: float
    grown: int  # bytes, at the peak


def limit_memory(nbytes: int) -> None:
    with open("/proc/self/statm", encoding="ascii") as statm:
        now = int(statm.read().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + nbytes, now + nbytes))
    threading.stack_size(MIB // 2)  # each counts; the loop may have 32 threads for its reads


async def digest_chunks(path: str, chunk_size: int) -> tuple[str, int]:
    digest, nbytes = hashlib.sha256(), 0
    async for chunk in read_chunks(path, chunk_size):
        digest.update(chunk)
        nbytes += len(chunk)
    return digest.hexdigest(), nbytes


def digest_whole(path: str) -> tuple[str, int]:
    data = Path(path).read_bytes()
    return hashlib.sha256(data).hexdigest(), len(data)


def work(path: str, chunk_size: int | None, limit: int) -> Digest:
    limit_memory(limit)
    before, began = show.rss(), time.monotonic()
    if chunk_size is None:
        text, nbytes = digest_whole(path)
    else:
        text, nbytes = asyncio.run(digest_chunks(path, chunk_size))
    return Digest(text, nbytes, time.monotonic() - began, show.rss(peak=True) - before)


def make_file(path: Path, mebibytes: int) -> str:
    """Its digest."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(mebibytes):
            block = os.urandom(MIB)
            file.write(block)
            digest.update(block)
    return digest.hexdigest()


def main() -> int:
    args = show.options(__doc__, file=128, limit=64)
    sizes = {"read_bytes()": None, "8 KiB": 8 << 10, "64 KiB": 64 << 10, "1 MiB": MIB}
    rows, status, read = [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "big")
        right = make_file(path, args.file)
        context = multiprocessing.get_context("spawn")
        with weir.ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
            for name, size in sizes.items():
                try:
                    found = pool.submit(work, str(path), size, args.limit * MIB).result()
                except MemoryError:
                    rows.append((name, "out of memory", "", "", ""))
                    status |= size is not None
                    continue
                is_right = found.text == right
                read += found.nbytes
                speed = f"{args.file / found.seconds:,.0f} MiB/s"
                verdict = "yes" if is_right else "NO"
                rows.append((name, f"{found.seconds:.1f} s", speed, show.mib(found.grown), verdict))
                status |= not is_right or size is None or found.grown > args.limit * MIB // 2
    print(f"a file of {args.file} MiB in {args.limit} MiB of memory")
    print(show.table(("read by", "took", "speed", "memory grew by", "digest is right"), rows))
    return status | show.check_law("bytes", 3 * args.file * MIB, {"read": read})


if __name__ == "__main__":
    sys.exit(main())
