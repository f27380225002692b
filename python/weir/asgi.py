"""Load shedding for web services: `LoadShed`, for FastAPI, Starlette and any other ASGI 3 app.

    app = FastAPI()
    app.add_middleware(weir.asgi.LoadShed, limit=20)         # or LoadShed(app, limit=20)

A service that is asked for more than it can do either lets everybody wait until nobody waits any
more, or does what it can and tells the others at once.  This is the second.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, cast

from weir._asgi_io import Answer, ASGIApp, Incoming, Message, Receive, Refused, Scope, Send, say
from weir._asgi_ledger import Ledger, Visit
from weir._asgi_metrics import render
from weir._errors import Overloaded, ShutDown
from weir._guard import check, number
from weir._limit import AIMD, Gradient2, Limiter, LimitPermit, Vegas
from weir._observe import METRICS_CONTENT_TYPE
from weir._stats import LoadShedStats

__all__ = ["ASGIApp", "LoadShed", "LoadShedStats", "Message", "Receive", "Scope", "Send"]

HEALTH = ("/health", "/healthz", "/livez", "/readyz")
OTHER = "other"  # the partition of requests that `priority` says nothing about
# It gets from the 20 of the start to the limit of a small or large service within seconds, where
# Gradient2 takes small steps; and one that is started under load is soon measured without.
FOUND = Vegas(min_limit=2, probe_interval=3.0)
LONGEST = 60.0  # seconds of Retry-After, before the jitter
LATEST = 2**31 - 1  # seconds of Retry-After that a client understands
LEAST_WAIT, MOST_WAIT = 0.1, 1.0  # seconds that `max_wait` is at least and most when measured

_log = logging.getLogger("weir")
_all: weakref.WeakSet[LoadShed] = weakref.WeakSet()


def _in_child() -> None:
    for shed in list(_all):
        shed._start_again()


os.register_at_fork(after_in_child=_in_child)


class LoadShed:
    """ASGI middleware that lets in as many requests as the app can serve, and refuses the others.

    limit       how many requests may be in the app at a time: a number; AIMD, Vegas or Gradient2,
                which find it by what requests take; or a weir.Limiter.  None: weir.Vegas, which
                looks every 3 s whether the app would be quicker with fewer; say a number where the
                app computes in threads: with one GIL, 1 or 2
    queue       how many more may wait for that, 0: none.  None: as many as the limit is, so that
                one who waits is through in about the time that one request takes
    max_wait    seconds that a request may wait, > 0.  None: twice what requests take, as measured,
                from 0.1 to 1 s, so that an accepted request never takes more than a few times as
                long as without a line, and a backend that stalls makes nobody wait for nothing
    retry_after what refused clients are told, in seconds: a number, or a function of the stats().
                None: how long the line takes to clear at the speed of the last seconds, 1 to 60,
                and up to a second and half as much again at random, so that they do not come back
                together.  Whole seconds, never 0.  A function that fails, or gives no number, is
                logged once ("weir"), and clients are told as for None
    status      of a refusal: 503, or 429
    max_body    bytes of a request's body; one that is larger is refused with 413: at once where
                its Content-Length says so, else when so much has come.  None: any
    max_bytes   bytes of the bodies of all requests that wait or are in the app, together; a request
                reserves its Content-Length when it comes, without one it counts as it comes.
                None: any
    exempt      what is always let through and never counted in the limit, such as health checks:
                path prefixes ("/health" is /health and /health/..., not /healthy), or a function
                of the scope
    priority    whose the request is: {path prefix: partition}, or a function of the scope that
                returns the name of a partition or None.  Those it says nothing about are "other"
    partitions  the names and the shares of the limit, and of the queue, that they are guaranteed:
                {"pay": 0.5, "search": 0.2}; "other" has what is left, if nothing is said.  Of the
                limit what is not used is lent
    websockets  "connect": one counts until it is accepted; "life": until it ends; "exempt": never
    shared      a name: one limit for all processes of the user on this host that give it (all
                workers of the service).  Queue, bytes and stats() are each process's own
    name        for people who look at metrics
    metrics_path  answers GET and HEAD there with metrics(), without a limit; None: nowhere

    A path in `exempt`, `priority` or `metrics_path` is one inside of the app, as its routes are: of
    /api/health behind a root_path of /api (a mount, a proxy), that is /health; /api/health is
    found too.

    Refusals are JSON with `error`, `reason`, `queue`, `queue_limit`, `in_flight`, `limit` and
    `retry_after`.  They are sent at once, without reading the body: a connection with up to 64 KiB
    of it still to come is kept, as the server skips those; another gets `Connection: close`.
    A websocket is refused before it is accepted, with the same answer where the server can
    ("websocket.http.response"), else with 403.

    A request whose client goes while it waits leaves the line.  One that ends with an exception or
    a 5xx answer tells an adaptive limit that there was too much; a cancelled one tells nothing, nor
    does one that took twenty times as long as the others (and 1 s): something stood still.
    Requests that last (streams, long polls) hold their place; give them a partition or exempt them.

    For asyncio; any number of event loops, in any threads, may use one.  An app finds it as
    `scope["weir.load_shed"]`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limit: int | AIMD | Vegas | Gradient2 | Limiter | None = None,
        queue: int | None = None,
        max_wait: float | None = None,
        retry_after: float | Callable[[LoadShedStats], float] | None = None,
        status: Literal[503, 429] = 503,
        max_body: int | None = None,
        max_bytes: int | None = None,
        exempt: Iterable[str] | Callable[[Scope], bool] = HEALTH,
        priority: Mapping[str, str] | Callable[[Scope], str | None] | None = None,
        partitions: Mapping[str, float] | None = None,
        websockets: Literal["connect", "life", "exempt"] = "connect",
        shared: str | None = None,
        name: str | None = None,
        metrics_path: str | None = None,
    ) -> None:
        if not callable(app):
            raise TypeError(f"'app' must be an ASGI app, not {app!r}")
        check(status in (503, 429), "status", "503 or 429", status)
        choices = ("connect", "life", "exempt")
        check(websockets in choices, "websockets", f"one of {choices}", websockets)
        for option, value, least in (
            ("queue", queue, 0), ("max_body", max_body, 0), ("max_bytes", max_bytes, 1),
        ):  # fmt: skip
            _check_count(option, value, least)
        if max_wait is not None:
            check(number("max_wait", max_wait, 0) > 0, "max_wait", "> 0 seconds", max_wait)
        if retry_after is not None and not callable(retry_after):
            number("retry_after", retry_after, 0)
        if metrics_path is not None:
            _check_prefixes("metrics_path", (metrics_path,))
        self.app = app
        self.name = name if name is not None else shared
        self._limit, self._shared = limit, shared
        self._partitions = _with_other(limit, priority, partitions, shared)
        self._queue, self._max_wait, self._retry_after = queue, max_wait, retry_after
        self._has_complained = False
        self._status, self._max_bytes = status, max_bytes
        # What is larger than the room for all bodies could never be let in.
        bounds = [bound for bound in (max_body, max_bytes) if bound is not None]
        self._max_body = min(bounds, default=None)
        self._is_exempt = exempt if callable(exempt) else _prefix_test(exempt)
        self._priority = _lookup(priority)
        self._websockets, self._metrics_path = websockets, metrics_path
        self._ledger = Ledger(max_bytes)
        self._limiter = limit if isinstance(limit, Limiter) else self._make_limiter()
        _all.add(self)

    def _make_limiter(self) -> Limiter:
        assert not isinstance(self._limit, Limiter)
        limit = FOUND if self._limit is None else self._limit
        return Limiter(limit, partitions=self._partitions, shared=self._shared, name=self.name)

    def _start_again(self) -> None:
        """In a forked child, whose requests are its own; so is its limit, unless it is shared."""
        self._ledger = Ledger(self._max_bytes)
        if self._shared is None and not isinstance(self._limit, Limiter):
            self._limiter = self._make_limiter()

    # ---- ASGI ----------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket"):  # lifespan, and what may come
            await self.app(scope, receive, send)
            return
        scope["weir.load_shed"] = self
        if kind == "http" and self._metrics_path in _paths(scope):
            await self._show(scope, send)
        elif self._is_exempt(scope) or (kind == "websocket" and self._websockets == "exempt"):
            self._ledger.pass_by()
            await self.app(scope, receive, send)
        else:
            await self._limited(scope, receive, send)

    async def _show(self, scope: Scope, send: Send) -> None:
        if scope["method"] in ("GET", "HEAD"):
            is_head = scope["method"] == "HEAD"
            await say(send, 200, self.metrics(), kind=METRICS_CONTENT_TYPE, is_head=is_head)
        else:
            content: dict[str, object] = {"error": "method not allowed", "allow": ["GET", "HEAD"]}
            await say(send, 405, content, [(b"allow", b"GET, HEAD")])

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        partition = self._partition_of(scope)
        with self._ledger.arrive() as visit:
            incoming = Incoming(scope, receive, visit, self._max_body)
            try:
                incoming.announce()
                permit = await self._admit(incoming, partition)
                if permit is not None:  # else the client has gone
                    visit.begin()
                    serve = self._serve if scope["type"] == "http" else self._connect
                    try:
                        await serve(scope, incoming, send, visit, permit)
                    finally:  # who leaves is counted out before another is let in
                        visit.end("disconnected")
                        if permit.held:  # nobody has said what became of it
                            permit.ignore()
            except Refused as refused:
                visit.end(refused.reason)
                await self._refuse(scope, incoming, send, refused.reason)
            finally:
                incoming.close()

    async def _serve(
        self, scope: Scope, incoming: Incoming, send: Send, visit: Visit, permit: LimitPermit
    ) -> None:
        answer = Answer(send, incoming)
        try:
            await self.app(scope, incoming.receive, answer.send)
        except Exception:
            if incoming.is_gone:
                raise  # counted as disconnected, and says nothing about load
            if incoming.refusal is None:
                visit.end("failed")
                permit.drop()
                raise
            if answer.has_started:
                visit.end("failed")
                permit.ignore()
                raise
        if incoming.refusal is not None and not answer.has_started:
            visit.end(incoming.refusal)
            permit.ignore()
            await self._refuse(scope, incoming, send, incoming.refusal)
            return
        stood_still = visit.stood_still()
        visit.end("served")
        if answer.is_bad:
            permit.drop()
        elif stood_still:  # a limit that learned from it would be low when things move again
            permit.ignore()
        else:
            permit.success()

    async def _connect(
        self, scope: Scope, incoming: Incoming, send: Send, visit: Visit, permit: LimitPermit
    ) -> None:
        is_short = self._websockets == "connect"

        async def answer(message: Message) -> None:
            if is_short and permit.held and message["type"] in _DECISIONS:
                visit.end("served")
                permit.ignore()
            await send(message)

        try:
            await self.app(scope, incoming.receive, answer)
        except Exception:
            if permit.held and not incoming.is_gone:
                visit.end("failed")
                permit.drop()
            raise
        visit.end("served")
        if permit.held:
            permit.ignore()  # how long it lasts is up to those who talk

    # ---- admission -----------------------------------------------------------------------------

    async def _admit(self, incoming: Incoming, partition: str | None) -> LimitPermit | None:
        """A permit; None where the client has gone meanwhile; Refused."""
        limiter = self._limiter
        try:
            if not limiter._others_wait(partition):
                permit = limiter._probe(partition)
                if permit is not None:
                    return permit
            if not self._ledger.join(partition, *self._places(partition)):
                raise Refused("queue")
            began = time.monotonic()
            try:
                return await self._wait(incoming, partition)
            finally:
                self._ledger.leave(partition, time.monotonic() - began)
        except (TimeoutError, Overloaded):
            raise Refused("wait") from None
        except ShutDown:
            raise Refused("closed") from None

    async def _wait(self, incoming: Incoming, partition: str | None) -> LimitPermit | None:
        """Stands in line, and listens whether the client goes."""
        acquiring = asyncio.ensure_future(
            self._limiter.aacquire(self._patience(), partition=partition)
        )
        is_mine = False
        try:
            while True:
                listening = incoming.listen()
                watched: set[asyncio.Future[Any]] = {acquiring}
                if listening is not None:
                    watched.add(listening)
                await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                if acquiring.done():
                    is_mine = True
                    return acquiring.result()
                if incoming.has_gone():
                    return None
        finally:
            if not is_mine:  # it leaves the line, or gives back what it was just given
                acquiring.cancel()
                acquiring.add_done_callback(_give_back)

    def _partition_of(self, scope: Scope) -> str | None:
        if self._partitions is None:
            return None
        found = self._priority(scope)
        name = OTHER if found is None else found
        if name not in self._partitions:
            raise ValueError(
                f"'priority' says {name!r} for {scope['path']!r}, and there is no such partition;"
                f" there are {', '.join(map(repr, self._partitions))}"
            )
        return name

    def _queue_limit(self) -> int:
        return self._limiter.limit if self._queue is None else self._queue

    def _places(self, partition: str | None) -> tuple[int, int]:
        """Of the line: for this partition, and for all of them.

        A share of the line is not lent, or those who are many would keep out those who are urgent.
        """
        all_ = self._queue_limit()
        if partition is None or self._partitions is None:
            return all_, all_
        return max(1, int(all_ * self._partitions[partition])), all_

    def _patience(self) -> float:
        """Seconds that one who joins the line now may wait."""
        if self._max_wait is not None:
            return self._max_wait
        service = self._ledger.service()
        return MOST_WAIT if service is None else min(MOST_WAIT, max(LEAST_WAIT, 2 * service))

    # ---- refusal -------------------------------------------------------------------------------

    def retry_after(self) -> int:
        """Whole seconds, at least 1, after which one who is refused now may come again."""
        if callable(self._retry_after):
            try:
                return _whole(self._retry_after(self.stats()))
            except Exception:
                self._complain()
        elif self._retry_after is not None:
            return _whole(self._retry_after)
        clearing = min(LONGEST, max(1.0, self._ledger.clearing()))
        return math.floor(clearing + random.uniform(0, 1 + clearing / 2))

    def _complain(self) -> None:
        """Of the function that is being handled; a refusal is no time to fail, nor to log much."""
        if not self._has_complained:
            self._has_complained = True
            _log.exception(
                "weir.asgi.LoadShed: 'retry_after' must return a number of seconds; until it does,"
                " clients are told how long the line takes (said once)"
            )

    async def _refuse(self, scope: Scope, incoming: Incoming, send: Send, reason: str) -> None:
        headers: list[tuple[bytes, bytes]] = []
        if reason == "body":
            status, content = 413, {"error": "body too large", "max_body": self._max_body}
        else:
            after, status = self.retry_after(), self._status
            headers.append((b"retry-after", str(after).encode()))
            content = {
                "error": "overloaded",
                "reason": reason,
                "queue": self._ledger.waiting,
                "queue_limit": self._queue_limit(),
                "in_flight": self._limiter.in_flight,
                "limit": self._limiter.limit,
                "retry_after": after,
            }
        if scope["type"] == "websocket":
            await self._reject(scope, incoming, send, status, content, headers)
            return
        if not incoming.is_short and scope.get("http_version", "1.1").startswith("1"):
            headers.append((b"connection", b"close"))  # nobody wants the rest of the body
        await say(send, status, cast("dict[str, object]", content), headers)

    async def _reject(
        self,
        scope: Scope,
        incoming: Incoming,
        send: Send,
        status: int,
        content: dict[str, Any],
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        """A websocket that asks to be accepted."""
        if (await incoming.receive())["type"] != "websocket.connect":
            return
        if "websocket.http.response" in (scope.get("extensions") or {}):
            await say(send, status, content, headers, protocol="websocket.http.response")
        else:
            await send({"type": "websocket.close", "code": 1013, "reason": "overloaded"})

    # ---- looking -------------------------------------------------------------------------------

    def stats(self) -> LoadShedStats:
        """One instant, of this process's requests."""
        return LoadShedStats(
            name=self.name,
            limit=self._limiter.limit,
            queue_limit=self._queue_limit(),
            max_bytes=self._max_bytes,
            **self._ledger.snapshot(),
        )

    def metrics(self) -> str:
        """stats() as OpenMetrics text, which Prometheus reads too; its content type is
        "application/openmetrics-text; version=1.0.0; charset=utf-8".
        """
        return render(self.stats())

    def __repr__(self) -> str:
        stats = self.stats()
        name = f" {self.name!r}" if self.name is not None else ""
        return (
            f"<weir.asgi.LoadShed{name}: {stats.in_flight} of {stats.limit} in,"
            f" {stats.waiting} of {stats.queue_limit} waiting>"
        )


_DECISIONS = ("websocket.accept", "websocket.close", "websocket.http.response.start")


def _give_back(acquiring: asyncio.Future[LimitPermit]) -> None:
    if not acquiring.cancelled() and acquiring.exception() is None:
        acquiring.result().ignore()


def _whole(seconds: float) -> int:
    """Seconds of Retry-After; ValueError, OverflowError or TypeError where they are no number."""
    return min(LATEST, max(1, math.ceil(seconds)))


# ---- paths -----------------------------------------------------------------------------------


def _paths(scope: Scope) -> tuple[str, ...]:
    """A request's path as the routes of the app see it, and as the client does.

    They differ where the app is mounted, or its server was told a root_path.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if not root or not _is_under(path, root):
        return (path,)
    return path[len(root) :] or "/", path


def _is_under(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else prefix + "/")


# ---- options -----------------------------------------------------------------------------------


def _check_count(name: str, value: object, least: int) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name!r} must be an int or None, not {value!r}")
    check(value >= least, name, f">= {least}", value)


def _check_prefixes(option: str, prefixes: Iterable[object]) -> None:
    for prefix in prefixes:
        if not isinstance(prefix, str) or not prefix.startswith("/"):
            raise ValueError(f"{option!r}: a path begins with '/', and {prefix!r} does not")


def _prefix_test(prefixes: Iterable[str]) -> Callable[[Scope], bool]:
    if isinstance(prefixes, str):
        raise TypeError(f"'exempt' must be several paths, such as ({prefixes!r},), not a str")
    if not isinstance(prefixes, Iterable):
        raise TypeError(
            f"'exempt' must be paths or a function of the scope, not {prefixes!r}; () exempts none"
        )
    exact = frozenset(prefixes)
    _check_prefixes("exempt", exact)
    starts = tuple(prefix.rstrip("/") + "/" for prefix in exact)
    return lambda scope: any(path in exact or path.startswith(starts) for path in _paths(scope))


def _lookup(
    priority: Mapping[str, str] | Callable[[Scope], str | None] | None,
) -> Callable[[Scope], str | None]:
    """A function of the scope; of the prefixes that fit, the longest counts."""
    if priority is None:
        return lambda scope: None
    if callable(priority):
        return priority
    prefixes = sorted(priority.items(), key=lambda item: len(item[0]), reverse=True)

    def find(scope: Scope) -> str | None:
        paths = _paths(scope)
        for prefix, name in prefixes:
            if any(_is_under(path, prefix) for path in paths):
                return name
        return None

    return find


def _with_other(
    limit: object,
    priority: Mapping[str, str] | Callable[[Scope], str | None] | None,
    partitions: Mapping[str, float] | None,
    shared: str | None,
) -> Mapping[str, float] | None:
    """The partitions and their shares, with one for all the others."""
    if isinstance(limit, Limiter):
        if partitions is not None or shared is not None:
            raise ValueError("a Limiter has partitions= and shared= of its own: say them to it")
        partitions = limit._partitions
        if partitions is not None and OTHER not in partitions:
            raise ValueError(
                f"a Limiter with partitions needs one named {OTHER!r} here, for the requests that"
                " 'priority' says nothing about"
            )
    if partitions is None:
        if priority is not None:
            raise ValueError("'priority' needs partitions={name: share} to choose from")
        return None
    if priority is None:
        raise ValueError("'partitions' need a 'priority' that says which request is whose")
    shares = dict(partitions)
    for share in shares.values():
        number("partitions", share, 0, 1)
    shares.setdefault(OTHER, max(0.0, 1 - sum(shares.values())))
    if not callable(priority):
        _check_prefixes("priority", priority)
        for path, name in priority.items():
            if name not in shares:
                raise ValueError(f"'priority' says {name!r} for {path!r}: no such partition")
    return shares
