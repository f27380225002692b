#!/usr/bin/env python3
"""submit_data.py - a web service that takes data in and works on it later (scenario S16).

POST /submit_data puts an item into a bounded weir.Queue and answers 202 with the queue's size; a
processor in the background takes items out, a batch at a time.  The clients of this program send
five times what it can process.  When the queue is full the answer is 503, with the queue's size and
Retry-After: how long the processor takes for what is ahead, as measured.  So memory is bounded, and
so is what a client waits for.  In front of it LoadShed bounds the requests that are read at the
same time, and their bodies.

At the end the server is told to stop, with the queue full: it takes no more, and works off what it
has accepted.  Nothing that was accepted is lost.

Needs fastapi, uvicorn and httptools (pip).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import queue
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import show
import weir
from weir.asgi import LoadShed

MISSING = [
    name for name in ("fastapi", "uvicorn", "httptools") if not importlib.util.find_spec(name)
]
if MISSING:
    need = f"{' and '.join(MISSING)}: pip install {' '.join(MISSING)}"
    print(f"submit_data.py needs {need}", file=sys.stderr)
    sys.exit(2)

import uvicorn  # noqa: E402
from fastapi import Body, FastAPI, Response  # noqa: E402

# ---- the service ---------------------------------------------------------------------------------


class Processor:
    """Takes items out of the queue, in the service's own loop, until it is shut down and empty.

    A batch is done in one go, as databases like it; `rate` items a second, at most.
    """

    def __init__(self, line: weir.Queue[dict[str, Any]], rate: float) -> None:
        self.line, self.rate = line, rate
        self.processed: dict[int, float] = {}  # number of the item, when
        self.twice = 0
        self.speed = rate  # items a second, as measured

    async def run(self) -> None:
        with contextlib.suppress(weir.ShutDown):
            while True:
                batch = await self.line.aget_many(20, linger=0.01)
                began = time.monotonic()
                await asyncio.sleep(len(batch) / self.rate)  # the work
                ended = time.monotonic()
                for item in batch:
                    self.twice += item["number"] in self.processed
                    self.processed[item["number"]] = ended
                self.speed += 0.1 * (len(batch) / (ended - began) - self.speed)

    def seconds_for(self, items: int) -> float:
        return items / self.speed


def make_app(line: weir.Queue[dict[str, Any]], processor: Processor) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        processing = asyncio.create_task(processor.run())
        yield
        line.shutdown()  # takes no more; the processor sees the end when it is empty
        await processing

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(
        LoadShed, limit=50, max_body=64 << 10, max_bytes=1 << 20, metrics_path="/metrics"
    )

    @app.post("/submit_data", status_code=202)
    async def submit_data(response: Response, item: dict[str, Any] = Body()) -> dict[str, Any]:  # noqa: B008
        try:
            line.put_nowait(item)
        except weir.ShutDown:
            response.status_code = 503
            return {"error": "shutting down", "queue": line.qsize()}
        except queue.Full:
            waiting = line.qsize()
            # A tenth of the queue has to be through before it is worth coming again.
            after = max(1, round(processor.seconds_for(waiting // 10) + random.random()))
            response.status_code = 503
            response.headers["Retry-After"] = str(after)
            return {"error": "queue full", "queue": waiting, "retry_after": after}
        return {"status": "accepted", "queue": line.qsize()}

    @app.get("/health")
    async def health() -> dict[str, int]:
        return {"queue": line.qsize()}

    return app


# ---- its clients ---------------------------------------------------------------------------------


class Clients:
    """So many requests a second over a few connections, whatever the answers say."""

    def __init__(self, port: int, rate: float, connections: int) -> None:
        self.port, self.pause, self.connections = port, connections / rate, connections
        self.outcomes: Counter[str] = Counter()
        self.accepted: dict[int, float] = {}  # number of the item, when
        self.latencies: list[float] = []
        self.sizes: list[int] = []  # of the queue, as the answers say
        self.afters: list[int] = []
        self.numbers = iter(range(1 << 60))

    async def run(self) -> None:
        await asyncio.gather(*(self.client() for _ in range(self.connections)))

    async def client(self) -> None:
        """One that stops when the server has gone."""
        await asyncio.sleep(random.random() * self.pause)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        due = time.monotonic()
        with contextlib.suppress(OSError, EOFError), contextlib.closing(writer):
            while True:
                number, began = next(self.numbers), time.monotonic()
                self.outcomes["sent"] += 1
                writer.write(request(number))
                status, head, said = await answer(reader)
                self.note(number, status, head, said, time.monotonic() - began)
                due += self.pause * random.uniform(0.5, 1.5)
                await asyncio.sleep(due - time.monotonic())

    def note(self, number: int, status: int, head: str, said: dict[str, Any], took: float) -> None:
        self.latencies.append(took)
        self.sizes.append(said["queue"])
        if status == 202:
            self.outcomes["accepted"] += 1
            self.accepted[number] = time.monotonic()
            return
        self.outcomes[f"refused ({said['error']})"] += 1
        if "retry_after" in said:
            assert f"retry-after: {said['retry_after']}" in head.lower()
            self.afters.append(said["retry_after"])


def request(number: int) -> bytes:
    body = json.dumps({"number": number, "data": "x" * 200}).encode()
    return (
        "POST /submit_data HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, str, dict[str, Any]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(head.lower().partition("content-length:")[2].split()[0])
    return int(head.split()[1]), head, json.loads(await reader.readexactly(length))


# ---- together ------------------------------------------------------------------------------------


def main() -> int:
    args = show.options(
        __doc__, queue=1000, rate=100.0, times=5.0, seconds=20.0, connections=25
    )  # rate: items a second that are processed; times: how much more is sent
    size = max(10, round(args.queue / args.speed))
    line: weir.Queue[dict[str, Any]] = weir.Queue(size, name="submit_data")
    processor = Processor(line, args.rate)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio cannot tell here
        config = uvicorn.Config(
            make_app(line, processor), http="httptools", access_log=False, log_level="warning"
        )
        server = uvicorn.Server(config)
        serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        serving.start()
        clients = Clients(listener.getsockname()[1], args.rate * args.times, args.connections)

        def stop() -> None:  # as SIGTERM does, where the server is a process of its own
            server.should_exit = True

        threading.Timer(args.seconds / args.speed, stop).start()
        asyncio.run(clients.run())
        told, full = time.monotonic(), line.qsize()
        serving.join()
    return report(clients, processor, line, full, time.monotonic() - told)


def report(
    clients: Clients,
    processor: Processor,
    line: weir.Queue[dict[str, Any]],
    full: int,
    stopping: float,
) -> int:
    sent = clients.outcomes.pop("sent")
    took, waits = sorted(clients.latencies), waited(clients, processor)
    afters = clients.afters
    rows = [
        ("requests answered within", f"{1e3 * took[len(took) * 99 // 100]:,.0f} ms (99 %)",
         f"{1e3 * took[-1]:,.0f} ms (all)"),
        ("queue, as answers say", f"{min(clients.sizes)} - {max(clients.sizes)}",
         f"of {line.maxsize}"),
        ("Retry-After", f"{min(afters)} - {max(afters)} s" if afters else "none", ""),
        ("accepted to processed", f"{waits[len(waits) // 2]:.2f} s (median)",
         f"{waits[-1]:.2f} s (at most)"),
        ("stop", f"{full} in the queue", f"{stopping:.2f} s"),
    ]  # fmt: skip
    print(show.table(["", "", ""], rows))
    clients.outcomes["no answer, because the server had stopped"] = sent - clients.outcomes.total()
    parts = {what: count for what, count in sorted(clients.outcomes.items()) if count}
    status = show.check_law("requests", sent, parts)
    stats = line.stats()
    status |= show.check_law(
        "items accepted",
        stats.accepted,
        {"processed": len(processor.processed), "in the queue": line.qsize()},
    )
    lost = clients.accepted.keys() - processor.processed.keys()
    print(f"{len(clients.accepted):,} were answered with 202; {len(lost)} of them were lost")
    return status | bool(lost) | bool(processor.twice)


def waited(clients: Clients, processor: Processor) -> list[float]:
    """Seconds from the answer to the end of the work, of those that were both."""
    return sorted(
        max(0.0, at - clients.accepted[number])
        for number, at in processor.processed.items()
        if number in clients.accepted
    )


if __name__ == "__main__":
    sys.exit(main())
