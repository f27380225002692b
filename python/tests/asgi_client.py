"""A server for the tests of LoadShed: calls an app, and can go away in the middle of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from weir import asgi

Header = tuple[bytes, bytes]


class Call:
    """One request to an app, which runs as a task from now on."""

    def __init__(
        self,
        app: asgi.ASGIApp,
        path: str = "/",
        *,
        body: Iterable[bytes] = (),
        headers: Iterable[Header] = (),
        kind: str = "http",
        extensions: dict[str, Any] | None = None,
        method: str = "GET",
        root_path: str = "",
    ) -> None:
        chunks = list(body)
        self.scope: dict[str, Any] = {
            "type": kind,
            "method": method,
            "path": path,
            "root_path": root_path,
            "http_version": "1.1",
            "headers": list(headers),
            "extensions": extensions,
        }
        self.sent: list[asgi.Message] = []
        self.taken = 0  # messages that receive() gave
        self.inbox: asyncio.Queue[asgi.Message] = asyncio.Queue()
        if kind == "websocket":
            self.inbox.put_nowait({"type": "websocket.connect"})
        else:
            for number, chunk in enumerate(chunks or [b""], 1):
                more = number < len(chunks)
                self.give({"type": "http.request", "body": chunk, "more_body": more})
        self.task = asyncio.ensure_future(app(self.scope, self.receive, self.send))

    def give(self, message: asgi.Message) -> None:
        self.inbox.put_nowait(message)

    def go_away(self) -> None:
        self.give({"type": f"{self.scope['type']}.disconnect"})

    async def receive(self) -> asgi.Message:
        message = await self.inbox.get()
        self.taken += 1
        return message

    async def send(self, message: asgi.Message) -> None:
        await asyncio.sleep(0)
        self.sent.append(message)

    async def done(self) -> Call:
        await asyncio.wait_for(self.task, 20)
        return self

    # ---- what came back ------------------------------------------------------------------------

    @property
    def status(self) -> int | None:
        starts = [m["status"] for m in self.sent if m["type"].endswith("response.start")]
        assert len(starts) <= 1
        return starts[0] if starts else None

    @property
    def content(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.sent if m["type"].endswith(".body"))

    @property
    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.content)
        return parsed

    @property
    def headers(self) -> dict[str, str]:
        for message in self.sent:
            if message["type"].endswith("response.start"):
                return {name.decode(): value.decode() for name, value in message["headers"]}
        return {}


class Backend:
    """An app that answers when it is told to, and notes who was in it and what they sent."""

    def __init__(self, status: int = 200) -> None:
        self.open = asyncio.Event()
        self.status = status
        self.inside = self.peak = 0
        self.paths: list[str] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        self.inside += 1
        self.peak = max(self.peak, self.inside)
        self.paths.append(scope["path"])
        try:
            self.bodies.append(await read(receive))
            await self.open.wait()
            await answer(send, self.status)
        finally:
            self.inside -= 1


async def read(receive: asgi.Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client has gone")
        body += bytes(message["body"])
        if not message["more_body"]:
            return body


async def answer(send: asgi.Send, status: int = 200, body: bytes = b"ok") -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def until(condition: Any, seconds: float = 20.0) -> None:
    """wait_until for coroutines."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        assert loop.time() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.001)


def length(nbytes: int) -> Header:
    return (b"content-length", str(nbytes).encode())
