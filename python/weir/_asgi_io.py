"""The messages of ASGI between the server, `LoadShed` and the app.

Nothing a client sends is lost while its request waits, no more of it is read than AHEAD bytes and
one message, and every byte that is read is counted before it is kept.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from weir._asgi_ledger import Visit
from weir._errors import Overloaded, TooLarge

__all__ = ["ASGIApp", "Answer", "Incoming", "Message", "Receive", "Refused", "Scope", "Send", "say"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

AHEAD = 64 * 1024  # bytes of a body that are read, or left to the server, for one who is refused
ENDLESS = 10**18  # bytes that no body has, whatever its Content-Length says


class Refused(Exception):
    """The request is shed, for one of REASONS; never seen by an app."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _look_after(task: asyncio.Future[Any]) -> None:
    """Nobody will ask this one for its exception."""
    if not task.cancelled():
        task.exception()


def _length(value: bytes) -> int | None:
    """What a Content-Length says, at most ENDLESS; None: nothing that can be read."""
    if not value.isdigit():
        return None
    digits = value.lstrip(b"0") or b"0"
    return int(digits) if len(digits) <= 18 else ENDLESS  # int() refuses some thousand digits


class Incoming:
    """What the client of one request sends."""

    def __init__(
        self, scope: Scope, receive: Receive, visit: Visit, max_body: int | None = None
    ) -> None:
        self._receive, self._visit, self._max_body = receive, visit, max_body
        self._kept: deque[Message] = deque()
        self._task: asyncio.Future[Message] | None = None
        self._is_complete = scope["type"] != "http"
        self._waits_for_leave = False  # to send its body (Expect: 100-continue)
        self._announced: int | None = None
        self._reserved = self._read = 0
        self.refusal: str | None = None  # why the rest of the body is not taken
        self.is_gone = False  # the client, and whoever listens knows it
        if not self._is_complete:
            self._read_headers(scope["headers"])

    def _read_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        is_chunked = False
        for name, value in headers:
            name = name.lower()
            if name == b"content-length":
                self._announced = _length(value)
            elif name == b"transfer-encoding":
                is_chunked = True
            elif name == b"expect":
                self._waits_for_leave = value.lower() == b"100-continue"
        self._is_complete = not is_chunked and not self._announced

    @property
    def is_short(self) -> bool:
        """What is not read yet is so little that the server may read it and keep the connection."""
        if self._is_complete:
            return True
        if self._waits_for_leave and not self._read:
            return False  # whether it will be sent at all is open
        return self._announced is not None and self._announced - self._read <= AHEAD

    def announce(self) -> None:
        """Reserves what Content-Length says; Refused where that is too much."""
        if self._announced and not self._take(self._announced):
            raise Refused(self.refusal or "body")

    def _take(self, nbytes: int) -> bool:
        """Room for a body of so many bytes in all."""
        most = ENDLESS - 1 if self._max_body is None else self._max_body
        if nbytes > most:
            self.refusal = "body"
        elif nbytes > self._reserved:
            if self._visit.reserve(nbytes - self._reserved):
                self._reserved = nbytes
            else:
                self.refusal = "bytes"
        return self.refusal is None

    def _count(self, message: Message) -> None:
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            self._is_complete = not message.get("more_body", False)
            self._take(self._read)
        elif message["type"] in ("http.disconnect", "websocket.disconnect"):
            self.is_gone = True

    # ---- while the request waits ---------------------------------------------------------------

    def listen(self) -> asyncio.Future[Message] | None:
        """What ends with the next message; None: enough has been read ahead."""
        if self._task is None and self._read < AHEAD and not self._waits_for_leave:
            self._task = asyncio.ensure_future(self._receive())
            self._task.add_done_callback(_look_after)
        return self._task

    def has_gone(self) -> bool:
        """Keeps the message that has come, if one has; whether it says that the client has gone.

        Refused, where its body is too large.
        """
        if self._task is None or not self._task.done():
            return False
        message = self._task.result()
        self._task = None
        self._count(message)
        if self.refusal is not None:
            raise Refused(self.refusal)
        self._kept.append(message)
        return self.is_gone

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    # ---- for the app ---------------------------------------------------------------------------

    async def receive(self) -> Message:
        """The next message.

        TooLarge and Overloaded where the body is more than `max_body`, or than there is room for;
        what the app answers to that is not sent, the client gets 413 or 503 instead.
        """
        self._check()
        if self._kept:
            return self._kept.popleft()
        message = await self._next()
        self._count(message)
        self._check()
        return message

    async def _next(self) -> Message:
        """Cancelled, it has taken nothing: what is being read ahead stays for the next one."""
        while (task := self._task) is not None:
            await asyncio.wait((task,))
            if task is self._task:  # else another one, at the same time, took it
                self._task = None
                return task.result()
        return await self._receive()

    def _check(self) -> None:
        if self.refusal == "body":
            raise TooLarge(f"the body of the request is larger than max_body={self._max_body}")
        if self.refusal == "bytes":
            raise Overloaded("the bodies of all requests together have reached max_bytes")


class Answer:
    """What the app answers; held back once the body of the request was refused."""

    def __init__(self, send: Send, incoming: Incoming) -> None:
        self._send, self._incoming = send, incoming
        self.has_started = False
        self.is_bad = False  # 5xx

    async def send(self, message: Message) -> None:
        if not self.has_started and message["type"] == "http.response.start":
            if self._incoming.refusal is not None:
                return
            self.has_started = True
            self.is_bad = message["status"] >= 500
        if self.has_started or self._incoming.refusal is None:
            await self._send(message)


async def say(
    send: Send,
    status: int,
    content: str | dict[str, object],
    headers: Iterable[tuple[bytes, bytes]] = (),
    *,
    kind: str = "application/json",
    protocol: str = "http.response",
    is_head: bool = False,
) -> None:
    """A whole answer; to HEAD, all but its body."""
    body = (content if isinstance(content, str) else json.dumps(content)).encode()
    own = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": f"{protocol}.start", "status": status, "headers": [*own, *headers]})
    await send({"type": f"{protocol}.body", "body": b"" if is_head else body})
