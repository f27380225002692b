#!/usr/bin/env python3
"""throttled_requests.py - HTTP requests, never more than so many at a time (scenario S12).

A server of this program's own counts how many requests it works on at once.  The same URLs are
fetched by threads, by asyncio, and by asyncio until the first failure, which cancels the rest.  The
limit is one line in each: `with limiter:` or `async with limiter:`.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import urllib.request
from collections.abc import Coroutine
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import show
import weir

Task = asyncio.Task[bytes]


class Server(ThreadingHTTPServer):
    """Takes `work` seconds for a request; /broken fails at once."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(self, work: float) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.work = work
        self.lock = threading.Lock()
        self.inside = self.peak = self.served = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, path: object) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"

    def count(self, by: int) -> None:
        with self.lock:
            self.inside += by
            self.peak = max(self.peak, self.inside)
            self.served += by > 0

    def start_again(self) -> None:
        with self.lock:
            self.peak = self.served = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.count(+1)
        try:
            time.sleep(self.server.work)
        finally:
            self.server.count(-1)  # before the client can know
        broken = self.path == "/broken"
        self.send_response(500 if broken else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        pass


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as response:
        body: bytes = response.read()
        return body


async def fetch_async(url: str) -> bytes:
    """A GET without a library: one connection, and the body up to its end."""
    host, _, path = url.removeprefix("http://").partition("/")
    name, port = host.split(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    try:
        writer.write(f"GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    status = head.partition(b"\r\n")[0].decode()
    if " 200 " not in status:
        raise ConnectionError(f"{url}: {status}")
    return body


def by_threads(urls: list[str], limiter: weir.Limiter) -> int:
    done: list[bytes] = []

    @limiter
    def get(url: str) -> None:
        done.append(fetch(url))

    threads = [threading.Thread(target=get, args=(url,)) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(done)


if sys.version_info >= (3, 11):

    async def all_or_none(gets: list[Coroutine[Any, Any, bytes]], tasks: list[Task]) -> None:
        """Runs them as tasks of one group: the first failure cancels the rest."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks += map(group.create_task, gets)
        except Exception as error:
            print(f"cancelled the rest: {error.exceptions[0]}")  # type: ignore[attr-defined]

else:

    async def all_or_none(gets: list[Coroutine[Any, Any, bytes]], tasks: list[Task]) -> None:
        """The same without asyncio.TaskGroup."""
        tasks += map(asyncio.create_task, gets)
        try:
            await asyncio.gather(*tasks)
        except Exception as error:
            print(f"cancelled the rest: {error}")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def by_tasks(urls: list[str], limiter: weir.Limiter) -> tuple[int, int, int]:
    """How many were done, failed, cancelled."""

    async def get(url: str) -> bytes:
        async with limiter:
            return await fetch_async(url)

    tasks: list[Task] = []
    await all_or_none([get(url) for url in urls], tasks)
    cancelled = sum(task.cancelled() for task in tasks)
    failed = sum(not task.cancelled() and task.exception() is not None for task in tasks)
    return len(tasks) - cancelled - failed, failed, cancelled


def main() -> int:
    args = show.options(__doc__, urls=24, few=3, many=10, work=0.1)
    server = Server(args.work / args.speed)
    urls = [server.url(number) for number in range(args.urls)]
    rows, status = [], 0
    total = {"done": 0, "failed": 0, "cancelled": 0}

    def one(name: str, limit: int, done: int, failed: int = 0, cancelled: int = 0) -> None:
        nonlocal status
        rows.append((name, limit, server.peak, done, failed, cancelled, server.served))
        status |= server.peak > limit or limiter.in_flight != 0
        for part, number in zip(total, (done, failed, cancelled), strict=True):
            total[part] += number
        server.start_again()

    for limit in (args.few, args.many):
        limiter = weir.Limiter(limit)
        one(f"threads, {limit} at a time", limit, by_threads(urls, limiter))
        limiter = weir.Limiter(limit)
        one(f"asyncio, {limit} at a time", limit, *asyncio.run(by_tasks(urls, limiter)))
    limiter = weir.Limiter(args.few)
    some = [*urls[:5], server.url("broken"), *urls[6:]]
    one("asyncio, one fails", args.few, *asyncio.run(by_tasks(some, limiter)))
    server.shutdown()
    headers = ("", "limit", "peak", "done", "failed", "cancelled", "requests seen")
    print(show.table(headers, rows))
    return status | show.check_law("URLs", 5 * args.urls, total)


if __name__ == "__main__":
    sys.exit(main())
