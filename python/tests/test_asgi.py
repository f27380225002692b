"""LoadShed lets in what the app can serve, refuses the rest at once, and counts every request."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import pytest
from asgi_client import Backend, Call, answer, length, read, until
from conftest import output_of, wait_until
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import weir
from weir._asgi_ledger import REASONS, Drain, Ledger
from weir.asgi import LoadShed, LoadShedStats, Receive, Scope, Send

Test = Callable[..., Coroutine[Any, Any, None]]
NEVER = 1000.0  # seconds that no test waits for


def in_loop(test: Test) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def check_law(shed: LoadShed, *, inside: int = 0) -> LoadShedStats:
    stats = shed.stats()
    ended = stats.served + sum(stats.shed.values()) + stats.disconnected
    assert stats.received == ended + stats.inside
    assert stats.inside == inside
    if not inside:
        assert (stats.waiting, stats.in_flight, stats.bytes) == (0, 0, 0)
        assert shed._limiter.in_flight == 0
        assert shed._limiter.stats().waiting == 0
    return stats


async def fill(shed: LoadShed, backend: Backend, calls: int, **options: Any) -> list[Call]:
    """So many requests, all of them in the app."""
    made = [Call(shed, **options) for _ in range(calls)]
    await until(lambda: backend.inside == calls)
    return made


# ---- the limit and the line ----------------------------------------------------------------------


@in_loop
async def test_a_request_beyond_the_limit_and_the_line_is_refused_with_numbers() -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=2, queue=3, max_wait=NEVER)
    inside = await fill(shed, backend, 2)
    waiting = [Call(shed) for _ in range(3)]
    await until(lambda: shed.stats().waiting == 3)
    refused = await Call(shed).done()
    assert refused.status == 503
    after = int(refused.headers["retry-after"])
    assert after >= 1
    assert refused.json == {
        "error": "overloaded", "reason": "queue", "queue": 3, "queue_limit": 3,
        "in_flight": 2, "limit": 2, "retry_after": after,
    }  # fmt: skip
    assert refused.headers["content-type"] == "application/json"
    assert int(refused.headers["content-length"]) == len(refused.content)
    assert "connection" not in refused.headers
    check_law(shed, inside=5)
    backend.open.set()
    for call in inside + waiting:
        assert (await call.done()).status == 200
    stats = check_law(shed)
    assert (stats.received, stats.served, stats.shed["queue"]) == (6, 5, 1)
    assert backend.peak == 2
    assert (stats.peak_in_flight, stats.peak_waiting) == (2, 3)


@in_loop
async def test_the_line_is_served_in_order() -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=1, queue=9, max_wait=NEVER)
    calls = []
    for number in range(10):
        calls.append(Call(shed, f"/{number}"))
        await until(lambda n=number: shed.stats().inside == n + 1)
        await asyncio.sleep(0)
    await until(lambda: shed.stats().waiting == 9)
    backend.open.set()
    for call in calls:
        await call.done()
    assert backend.paths == [f"/{number}" for number in range(10)]
    check_law(shed)


@in_loop
async def test_with_no_line_nobody_waits() -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=1, queue=0, status=429)
    (inside,) = await fill(shed, backend, 1)
    refused = await Call(shed).done()
    assert (refused.status, refused.json["queue_limit"]) == (429, 0)
    backend.open.set()
    await inside.done()
    check_law(shed)


@in_loop
async def test_by_default_the_line_is_as_long_as_the_limit() -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=weir.AIMD(3, 3, 3), max_wait=NEVER)
    inside = await fill(shed, backend, 3)
    waiting = [Call(shed) for _ in range(3)]
    await until(lambda: shed.stats().waiting == 3)
    assert (await Call(shed).done()).json["queue_limit"] == 3
    backend.open.set()
    for call in inside + waiting:
        await call.done()
    check_law(shed)


@in_loop
async def test_who_has_waited_for_max_wait_is_refused() -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=1, queue=5, max_wait=0.02)
    (inside,) = await fill(shed, backend, 1)
    refused = await Call(shed).done()
    assert (refused.status, refused.json["reason"]) == (503, "wait")
    assert shed.stats().waited >= 0.02
    backend.open.set()
    await inside.done()
    check_law(shed)


@in_loop
async def test_without_max_wait_patience_follows_what_requests_take() -> None:
    clock = [0.0]
    shed = LoadShed(Backend(), limit=1)
    shed._ledger = Ledger(None, lambda: clock[0])
    assert shed._patience() == 1.0  # nothing known
    for seconds, patience in ((0.2, 0.4), (30.0, 1.0), (0.001, 0.1)):
        for _ in range(1 + int(100 / seconds)):
            with shed._ledger.arrive() as visit:
                visit.begin()
                clock[0] += seconds
                visit.end("served")
        assert shed._patience() == pytest.approx(patience, rel=0.2)


@in_loop
async def test_a_limiter_of_ones_own_sheds_its_standing_line() -> None:
    backend = Backend()
    limiter = weir.Limiter(1, shed_after=0.002)
    shed = LoadShed(backend, limit=limiter, queue=50, max_wait=NEVER)
    (inside,) = await fill(shed, backend, 1)
    backend.open.set()
    calls = [inside]

    async def slow() -> None:
        while shed.stats().shed["wait"] == 0:
            calls.extend(Call(shed) for _ in range(4))
            await asyncio.sleep(0.005)

    backend.open = SlowGate(0.004)
    await asyncio.wait_for(slow(), 20)
    for call in calls:
        await call.done()
    assert {call.status for call in calls} == {200, 503}
    check_law(shed)


class SlowGate(asyncio.Event):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    async def wait(self) -> Any:
        await asyncio.sleep(self.seconds)


@in_loop
async def test_a_closed_limiter_refuses_everybody_and_releases_who_waits() -> None:
    backend = Backend()
    limiter = weir.Limiter(1)
    shed = LoadShed(backend, limit=limiter, queue=5, max_wait=NEVER)
    (inside,) = await fill(shed, backend, 1)
    waiting = Call(shed)
    await until(lambda: shed.stats().waiting == 1)
    limiter.close()
    assert (await waiting.done()).json["reason"] == "closed"
    assert (await Call(shed).done()).json["reason"] == "closed"
    backend.open.set()
    await inside.done()
    assert check_law(shed).shed["closed"] == 2


# ---- clients that go, tasks that are cancelled ---------------------------------------------------


@in_loop
async def test_a_client_that_goes_leaves_the_line_at_once() -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=1, queue=2, max_wait=NEVER)
    (inside,) = await fill(shed, backend, 1)
    waiting = [Call(shed, f"/{n}") for n in range(2)]
    await until(lambda: shed.stats().waiting == 2)
    waiting[0].go_away()
    await waiting[0].done()
    assert waiting[0].sent == []
    assert shed.stats().waiting == 1
    last = Call(shed, "/last")  # has the place that was left
    await until(lambda: shed.stats().waiting == 2)
    backend.open.set()
    for call in (inside, waiting[1], last):
        assert (await call.done()).status == 200
    assert backend.paths == ["/", "/1", "/last"]
    assert check_law(shed).disconnected == 1


@in_loop
async def test_what_a_waiting_client_has_sent_reaches_the_app_whole_and_in_order() -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=1, queue=2, max_wait=NEVER)
    (inside,) = await fill(shed, backend, 1)
    chunks = [bytes([n]) * n for n in range(1, 30)]
    waiting = Call(shed, body=chunks)
    await until(lambda: waiting.taken == len(chunks))
    backend.open.set()
    await inside.done()
    await waiting.done()
    assert backend.bodies == [b"", b"".join(chunks)]
    check_law(shed)


@in_loop
async def test_a_message_that_comes_after_the_permit_is_not_lost() -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=1, queue=1, max_wait=NEVER)
    (inside,) = await fill(shed, backend, 1)
    waiting = Call(shed, body=[b"a", b"b"])
    waiting.inbox.get_nowait(), waiting.inbox.get_nowait()
    await until(lambda: shed.stats().waiting == 1)
    await asyncio.sleep(0.01)  # it listens now
    backend.open.set()
    await inside.done()
    await until(lambda: backend.inside == 1)
    waiting.give({"type": "http.request", "body": b"a", "more_body": True})
    waiting.give({"type": "http.request", "body": b"b", "more_body": False})
    await waiting.done()
    assert backend.bodies[-1] == b"ab"
    check_law(shed)


@in_loop
async def test_a_receive_that_the_app_gives_up_loses_no_message() -> None:
    async def impatient(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(3):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(receive(), 0.005)
        gave_up.set()
        await answer(send, body=await read(receive))

    gave_up = asyncio.Event()
    limiter = weir.Limiter(1)
    shed = LoadShed(impatient, limit=limiter, queue=1, max_wait=NEVER)
    call = Call(shed, body=[b"late"])
    call.inbox.get_nowait()
    with limiter.acquire():
        await until(lambda: shed.stats().waiting == 1)
        await asyncio.sleep(0.005)  # it listens now
    await gave_up.wait()
    call.give({"type": "http.request", "body": b"late", "more_body": False})
    assert (await call.done()).content == b"late"
    check_law(shed)


@pytest.mark.parametrize("steps", range(8))
@in_loop
async def test_a_receive_that_is_cancelled_at_any_step_has_taken_nothing(steps: int) -> None:
    async def fickle(scope: Scope, receive: Receive, send: Send) -> None:
        reading = asyncio.ensure_future(receive())
        await asyncio.sleep(0.005)
        call.give({"type": "http.request", "body": b"a", "more_body": True})
        for _ in range(steps):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        taken = b"" if reading.cancelled() else reading.result()["body"]
        call.give({"type": "http.request", "body": b"b", "more_body": False})
        await answer(send, body=taken + await read(receive))

    limiter = weir.Limiter(1)
    shed = LoadShed(fickle, limit=limiter, queue=1, max_wait=NEVER)
    call = Call(shed)
    call.inbox.get_nowait()
    with limiter.acquire():
        await until(lambda: shed.stats().waiting == 1)
        await asyncio.sleep(0.005)  # it listens now
    assert (await call.done()).content == b"ab"
    check_law(shed)


@in_loop
async def test_two_receives_at_a_time_share_no_message() -> None:
    async def double(scope: Scope, receive: Receive, send: Send) -> None:
        both = [asyncio.ensure_future(receive()) for _ in range(2)]
        await asyncio.sleep(0.005)
        call.give({"type": "http.request", "body": b"a", "more_body": True})
        call.give({"type": "http.request", "body": b"b", "more_body": False})
        await answer(send, body=b"".join([(await one)["body"] for one in both]))

    limiter = weir.Limiter(1)
    shed = LoadShed(double, limit=limiter, queue=1, max_wait=NEVER)
    call = Call(shed)
    call.inbox.get_nowait()
    with limiter.acquire():
        await until(lambda: shed.stats().waiting == 1)
        await asyncio.sleep(0.005)  # it listens now
    assert sorted((await call.done()).content) == sorted(b"ab")
    check_law(shed)


@in_loop
async def test_no_more_than_64_kib_and_a_message_of_a_waiting_body_are_read() -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=1, queue=1, max_wait=NEVER)
    (inside,) = await fill(shed, backend, 1)
    waiting = Call(shed, body=[bytes(20_000)] * 50, headers=[(b"transfer-encoding", b"chunked")])
    await until(lambda: waiting.taken == 4)
    for _ in range(50):
        await asyncio.sleep(0)
    assert (waiting.taken, shed.stats().bytes) == (4, 80_000)
    backend.open.set()
    await inside.done()
    await waiting.done()
    assert len(backend.bodies[-1]) == 1_000_000
    assert check_law(shed).peak_bytes == 1_000_000


@in_loop
async def test_a_client_that_asks_before_it_sends_is_not_told_to_while_it_waits() -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=1, queue=1, max_wait=NEVER)
    (inside,) = await fill(shed, backend, 1)
    asks = [(b"expect", b"100-continue"), length(3)]
    waiting = Call(shed, body=[b"abc"], headers=asks)
    await until(lambda: shed.stats().waiting == 1)
    for _ in range(20):
        await asyncio.sleep(0)
    assert waiting.taken == 0
    refused = await Call(shed, body=[b"abc"], headers=asks).done()
    assert (refused.status, refused.taken, refused.headers["connection"]) == (503, 0, "close")
    backend.open.set()
    await inside.done()
    await waiting.done()
    assert backend.bodies == [b"", b"abc"]
    check_law(shed)


@in_loop
async def test_a_cancelled_request_gives_back_its_place_wherever_it_is() -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=1, queue=2, max_wait=NEVER)
    (inside,) = await fill(shed, backend, 1)
    waiting = [Call(shed) for _ in range(2)]
    await until(lambda: shed.stats().waiting == 2)
    for call in (waiting[0], inside):
        call.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call.task
    backend.open.set()
    assert (await waiting[1].done()).status == 200
    stats = check_law(shed)
    assert (stats.disconnected, stats.served, stats.failed) == (2, 1, 0)


# ---- bodies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bounds", [{}, {"max_body": 10}, {"max_bytes": 10}])
@in_loop
async def test_a_length_that_no_body_has_is_refused(bounds: dict[str, Any]) -> None:
    backend = Backend()
    backend.open.set()
    shed = LoadShed(backend, limit=1, **bounds)
    refused = await Call(shed, headers=[(b"content-length", b"9" * 5000)]).done()
    assert (refused.status, refused.json["error"]) == (413, "body too large")
    padded = await Call(shed, body=[b"a"], headers=[(b"content-length", b"0" * 5000 + b"1")]).done()
    assert padded.status == 200
    assert check_law(shed).shed["body"] == 1


@in_loop
async def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read() -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=1, max_body=1000)
    refused = await Call(shed, body=[bytes(1001)], headers=[length(1001)]).done()
    assert (refused.status, refused.taken) == (413, 0)
    assert refused.json == {"error": "body too large", "max_body": 1000}
    assert "retry-after" not in refused.headers
    assert "connection" not in refused.headers  # so little the server skips
    huge = await Call(shed, headers=[length(1 << 20)]).done()
    assert (huge.status, huge.headers["connection"]) == (413, "close")
    newer = Call(shed, headers=[length(1 << 20)])
    newer.scope["http_version"] = "2"  # which has no such header
    assert "connection" not in (await newer.done()).headers
    backend.open.set()
    assert (await Call(shed, body=[bytes(1000)], headers=[length(1000)]).done()).status == 200
    assert check_law(shed).shed["body"] == 3


@pytest.mark.parametrize(
    ("headers", "closes"),
    [([], "close"), ([length(3)], None), ([(b"transfer-encoding", b"chunked")], "close")],
)
@in_loop
async def test_a_body_that_lies_is_refused_when_it_has_become_too_large(
    headers: Any, closes: str | None
) -> None:
    backend = Backend()
    backend.open.set()
    shed = LoadShed(backend, limit=1, max_body=1000)
    call = await Call(shed, body=[bytes(400)] * 9, headers=headers).done()
    assert (call.status, call.taken) == (413, 3)
    assert call.headers.get("connection") == closes
    assert backend.bodies == []
    stats = check_law(shed)
    assert (stats.shed["body"], stats.served, stats.peak_bytes <= 1000) == (1, 0, True)


@in_loop
async def test_a_body_is_refused_whatever_the_app_says_to_its_error() -> None:
    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(3):
            with pytest.raises(weir.TooLarge, match="max_body=5"):
                await read(receive)
        await answer(send, 400)

    shed = LoadShed(stubborn, limit=1, max_body=5)
    call = await Call(shed, body=[b"abc"] * 4).done()
    assert (call.status, call.json["error"]) == (413, "body too large")
    check_law(shed)


@in_loop
async def test_an_answer_that_has_begun_is_the_apps_to_end() -> None:
    async def eager(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await read(receive)

    shed = LoadShed(eager, limit=weir.AIMD(), max_body=5)
    call = Call(shed, body=[b"abc"] * 4)
    with pytest.raises(weir.TooLarge):
        await call.done()
    assert call.status == 200
    assert check_law(shed).failed == 1
    assert shed._limiter.stats().drops == 0  # no overload


@in_loop
async def test_the_bodies_of_all_requests_together_have_a_hard_bound() -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=5, queue=1, max_bytes=1000)
    first = Call(shed, body=[bytes(600)], headers=[length(600)])
    await until(lambda: backend.inside == 1)
    refused = await Call(shed, body=[bytes(401)], headers=[length(401)]).done()
    assert (refused.status, refused.json["reason"], refused.taken) == (503, "bytes", 0)
    assert int(refused.headers["retry-after"]) >= 1
    chunked = Call(shed, body=[bytes(300)] * 2, headers=[(b"transfer-encoding", b"chunked")])
    assert (await chunked.done()).json["reason"] == "bytes"
    second = Call(shed, body=[bytes(400)], headers=[length(400)])
    await until(lambda: backend.inside == 2)
    assert shed.stats().bytes == 1000
    backend.open.set()
    await first.done()
    await second.done()
    third = await Call(shed, body=[bytes(1000)]).done()
    assert third.status == 200
    never_fits = await Call(shed, headers=[length(1001)]).done()
    assert never_fits.status == 413
    stats = check_law(shed)
    assert (stats.shed["bytes"], stats.shed["body"], stats.peak_bytes) == (2, 1, 1000)


@in_loop
async def test_a_body_that_grows_too_large_while_it_waits_is_refused() -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=1, queue=1, max_wait=NEVER, max_body=1000)
    (inside,) = await fill(shed, backend, 1)
    waiting = Call(shed, body=[bytes(600)] * 2)
    assert (await waiting.done()).status == 413
    backend.open.set()
    await inside.done()
    check_law(shed)


# ---- who is let through --------------------------------------------------------------------------


@in_loop
async def test_exempt_paths_are_always_let_through() -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=1, queue=0)
    calls = [Call(shed)]
    for number, path in enumerate(("/health", "/healthz", "/livez", "/readyz", "/health/db"), 2):
        calls.append(Call(shed, path))
        await until(lambda n=number: backend.inside == n)
    assert (await Call(shed, "/healthy").done()).status == 503
    backend.open.set()
    for call in calls:
        await call.done()
    stats = check_law(shed)
    assert (stats.exempt, stats.received) == (5, 2)


@pytest.mark.parametrize("path", ["/api/health", "/api/health/db", "/health"])
@in_loop
async def test_exempt_paths_are_those_inside_of_a_root_path(path: str) -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=1, queue=0)
    calls = [Call(shed, "/api/work", root_path="/api")]
    await until(lambda: backend.inside == 1)
    calls.append(Call(shed, path, root_path="/api"))
    await until(lambda: backend.inside == 2)
    for other in ("/api/healthy", "/apix/health", "/x/health"):
        assert (await Call(shed, other, root_path="/api").done()).status == 503
    backend.open.set()
    for call in calls:
        await call.done()
    assert check_law(shed).exempt == 1


@in_loop
async def test_exempt_paths_may_be_said_with_the_root_path() -> None:
    backend = Backend()
    backend.open.set()
    shed = LoadShed(backend, limit=1, exempt=("/api/health",))
    for path in ("/api/health", "/api/work", "/health"):
        await Call(shed, path, root_path="/api/").done()
    assert check_law(shed).exempt == 1


@in_loop
async def test_exempt_paths_are_found_in_an_app_that_is_mounted() -> None:
    health = Route("/health", lambda request: PlainTextResponse("well"))
    inner = LoadShed(Starlette(routes=[health]), limit=1, queue=0, metrics_path="/metrics")
    outer = Starlette(routes=[Mount("/api", Mount("/v1", inner))])
    with inner._limiter.acquire():
        well = await Call(outer, "/api/v1/health").done()
        assert (well.status, well.content) == (200, b"well")
        assert (await Call(outer, "/api/v1/metrics").done()).content.endswith(b"# EOF\n")
        assert (await Call(outer, "/api/v1/work").done()).status == 503
        assert (await Call(outer, "/proxy/api/v1/health", root_path="/proxy").done()).status == 200
    assert inner.stats().exempt == 2


@in_loop
async def test_what_is_exempt_may_be_a_function() -> None:
    backend = Backend()
    backend.open.set()
    by_function = LoadShed(backend, limit=1, exempt=lambda scope: "admin" in scope["path"])
    for path in ("/x/admin", "/health"):
        await Call(by_function, path).done()
    assert (by_function.stats().exempt, by_function.stats().received) == (1, 1)


SHARES = {"pay": 0.5, "search": 0.25}


@pytest.mark.parametrize(
    "priority",
    [
        {"/pay": "pay", "/": "search", "/static": "other"},
        lambda scope: {"/pay": "pay", "/": "search"}.get(scope["path"]),
    ],
)
@in_loop
async def test_a_flood_of_others_leaves_each_partition_its_share(priority: Any) -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=4, queue=8, max_wait=NEVER, priority=priority, partitions=SHARES)
    flood = await fill(shed, backend, 4, path="/static")  # what is free is lent
    flood += [Call(shed, "/static") for _ in range(30)]
    await until(lambda: shed.stats().shed["queue"] == 28)
    assert shed.stats().waiting == 2  # a quarter of the line
    urgent = [Call(shed, "/pay") for _ in range(5)]
    await until(lambda: shed.stats().waiting == 6)
    assert (await urgent[4].done()).status == 503
    backend.open.set()
    for call in flood + urgent:
        await call.done()
    assert backend.paths[4:6] == ["/pay", "/pay"]  # before those who came before them
    check_law(shed)


@in_loop
async def test_the_longest_prefix_says_whose_a_request_is() -> None:
    priority = {"/": "search", "/pay": "pay", "/pay/history": "search"}
    shed = LoadShed(Backend(), limit=4, priority=priority, partitions=SHARES)
    for path, name in (("/pay", "pay"), ("/pay/history/1", "search"), ("/payroll", "search")):
        assert shed._partition_of({"path": path}) == name


@in_loop
async def test_priorities_are_found_inside_of_a_root_path_and_with_it() -> None:
    priority = {"/": "search", "/pay": "pay", "/api/pay/history": "search"}
    shed = LoadShed(Backend(), limit=4, priority=priority, partitions=SHARES)
    for path, name in (("/api/pay", "pay"), ("/api/pay/history/1", "search"), ("/api", "search")):
        assert shed._partition_of({"path": path, "root_path": "/api"}) == name


@in_loop
async def test_a_partition_that_does_not_exist_is_an_error_that_names_it() -> None:
    shed = LoadShed(Backend(), limit=4, priority=lambda _: "vip", partitions=SHARES)
    with pytest.raises(ValueError, match=r"'vip' for '/x'.*there are 'pay', 'search', 'other'"):
        await Call(shed, "/x").done()
    check_law(shed)


@in_loop
async def test_lifespan_is_none_of_its_business() -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope, receive, send))

    shed = LoadShed(app, limit=1)
    call = await Call(shed, kind="lifespan").done()
    assert seen == [(call.scope, call.receive, call.send)]
    assert "weir.load_shed" not in call.scope
    assert check_law(shed).received == 0


@in_loop
async def test_an_app_finds_its_load_shed_in_the_scope() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, body=str(scope["weir.load_shed"].stats().in_flight).encode())

    assert (await Call(LoadShed(app, limit=1)).done()).content == b"1"


# ---- what the limit learns -----------------------------------------------------------------------


@in_loop
async def test_an_exception_of_the_app_gives_back_the_permit_and_counts_as_a_drop() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("a bug")

    shed = LoadShed(broken, limit=weir.AIMD(5, window_samples=1), queue=0)
    for _ in range(20):
        with pytest.raises(KeyError, match="a bug"):
            await Call(shed).done()
    stats = check_law(shed)
    assert (stats.served, stats.failed) == (20, 20)
    assert shed._limiter.stats().drops == 20
    assert stats.limit < 5


@pytest.mark.parametrize(("status", "drops"), [(200, 0), (404, 0), (500, 1), (503, 1)])
@in_loop
async def test_an_answer_of_5xx_counts_as_a_drop(status: int, drops: int) -> None:
    backend = Backend(status)
    backend.open.set()
    shed = LoadShed(backend, limit=weir.AIMD())
    assert (await Call(shed).done()).status == status
    assert shed._limiter.stats().drops == drops
    check_law(shed)


@in_loop
async def test_a_client_that_goes_in_the_middle_teaches_nothing() -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=weir.AIMD())
    call = Call(shed, body=[b"a", b"b"])
    call.inbox.get_nowait(), call.inbox.get_nowait()
    call.give({"type": "http.request", "body": b"a", "more_body": True})
    call.go_away()
    with pytest.raises(ConnectionError):
        await call.done()
    assert shed._limiter.stats().samples == 0
    stats = check_law(shed)
    assert (stats.disconnected, stats.served, stats.failed) == (1, 0, 0)


@in_loop
async def test_a_cancelled_request_teaches_nothing() -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=weir.AIMD())
    (call,) = await fill(shed, backend, 1)
    call.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.task
    assert shed._limiter.stats().samples == 0
    check_law(shed)


@in_loop
async def test_a_request_that_hung_teaches_nothing_and_a_service_that_got_slow_does() -> None:
    clock, backend = [0.0], Backend()
    shed = LoadShed(backend, limit=weir.AIMD(5, 1, 5))
    shed._ledger = Ledger(None, lambda: clock[0])
    taught = []
    for seconds in (0.1, 0.1, 30.0, 0.1, *[10.0] * 5):
        backend.open.clear()
        (call,) = await fill(shed, backend, 1)
        clock[0] += seconds
        backend.open.set()
        await call.done()
        taught.append(shed._limiter.stats().samples)
    assert taught[:4] == [1, 2, 2, 3]
    assert taught[-1] >= 6
    check_law(shed)


# ---- Retry-After ---------------------------------------------------------------------------------


def test_what_requests_take_is_measured_while_they_are_inside() -> None:
    drain = Drain(0.0)
    assert drain.service(100.0) is None
    now = 100.0
    for _ in range(10):
        drain.begin(now)
    for _ in range(2000):  # ten at a time, 20 a second
        now += 0.05
        drain.end(now)
        drain.begin(now)
    assert drain.service(now) == pytest.approx(0.5, rel=0.01)
    for _ in range(10):
        drain.end(now)
    between = drain.service(now)
    assert drain.service(now + 1000) == between  # a pause says nothing
    now += 1000
    for _ in range(10):
        drain.begin(now)
    fresh = drain.rate(now) or 0
    assert fresh == pytest.approx(20, rel=0.15)
    stalled = [drain.rate(now + after) or 0 for after in (1, 5, 30)]
    assert fresh > stalled[0] > stalled[1] > stalled[2] > 0  # those that hang count meanwhile


@in_loop
async def test_retry_after_is_how_long_the_line_takes_and_some_jitter() -> None:
    clock = [0.0]
    shed = LoadShed(Backend(), limit=10)
    shed._ledger = ledger = Ledger(None, lambda: clock[0])
    assert {shed.retry_after() for _ in range(300)} == {1, 2}  # nothing known
    visits = [ledger.arrive() for _ in range(10)]
    for visit in visits:
        visit.begin()
    for _ in range(200):  # ten at a time, 2.5 a second
        clock[0] += 0.4
        visits.pop(0).end("served")
        visits.append(ledger.arrive())
        visits[-1].begin()
    for _ in range(19):
        assert ledger.join(None, 50, 50)
    said = {shed.retry_after() for _ in range(1000)}  # 20 are through in 8 s
    assert min(said) in (7, 8)
    assert max(said) == 12
    clock[0] += 1000  # a stall
    said = {shed.retry_after() for _ in range(1000)}
    assert min(said) == 60
    assert 60 < max(said) <= 90


@pytest.mark.parametrize(
    ("given", "expected"),
    [(7, 7), (0, 1), (0.2, 1), (2.5, 3), (lambda stats: stats.limit * 1.5, 6), (lambda _: -5, 1)],
)
@in_loop
async def test_retry_after_may_be_said_and_is_never_zero(given: Any, expected: int) -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=4, queue=0, retry_after=given)
    inside = await fill(shed, backend, 4)
    refused = await Call(shed).done()
    assert refused.headers["retry-after"] == str(expected)
    assert refused.json["retry_after"] == expected
    backend.open.set()
    for call in inside:
        await call.done()


def fail(stats: LoadShedStats) -> float:
    raise KeyError("no such thing")


@pytest.mark.parametrize(
    "given",
    [fail, lambda _: math.nan, lambda _: math.inf, lambda _: None, lambda _: "5"],
)
@in_loop
async def test_a_retry_after_that_fails_is_reported_once_and_refuses_all_the_same(
    given: Any, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=1, queue=0, retry_after=given)
    (inside,) = await fill(shed, backend, 1)
    for _ in range(3):
        refused = await Call(shed).done()
        assert refused.status == 503
        assert refused.headers["retry-after"] in ("1", "2")  # as without the function
    (record,) = caplog.records
    assert record.name == "weir" and "'retry_after' must return a number" in record.message
    assert record.exc_info is not None
    backend.open.set()
    await inside.done()
    check_law(shed)


@pytest.mark.parametrize("given", [1e300, lambda _: 10**5000])
@in_loop
async def test_a_retry_after_is_no_longer_than_a_client_understands(given: Any) -> None:
    assert LoadShed(Backend(), limit=1, retry_after=given).retry_after() == 2**31 - 1


# ---- websockets ----------------------------------------------------------------------------------


class Chat:
    """Accepts, echoes, and ends when the client does."""

    def __init__(self, decision: str = "accept") -> None:
        self.decision = decision

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await answer(send)
            return
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": f"websocket.{self.decision}"})
        if self.decision == "accept":
            while (message := await receive())["type"] != "websocket.disconnect":
                await send({"type": "websocket.send", "text": message["text"]})


async def accepted(call: Call) -> Call:
    await until(lambda: any(m["type"] == "websocket.accept" for m in call.sent))
    return call


@in_loop
async def test_a_websocket_counts_while_it_connects() -> None:
    shed = LoadShed(Chat(), limit=1, queue=0)
    calls = [await accepted(Call(shed, kind="websocket")) for _ in range(5)]
    assert check_law(shed).served == 5
    for call in calls:
        call.give({"type": "websocket.receive", "text": "hello"})
        call.go_away()
        await call.done()
        assert call.sent[-1] == {"type": "websocket.send", "text": "hello"}
    assert check_law(shed).received == 5


@in_loop
async def test_a_websocket_that_the_app_refuses_has_been_served() -> None:
    shed = LoadShed(Chat("close"), limit=1, queue=0)
    await Call(shed, kind="websocket").done()
    assert check_law(shed).served == 1


@in_loop
async def test_a_websocket_may_count_until_it_ends() -> None:
    shed = LoadShed(Chat(), limit=1, queue=0, websockets="life")
    first = await accepted(Call(shed, kind="websocket"))
    check_law(shed, inside=1)
    refused = await Call(shed, kind="websocket").done()
    (message,) = refused.sent
    assert message == {"type": "websocket.close", "code": 1013, "reason": "overloaded"}
    extended: dict[str, Any] = {"websocket.http.response": {}}
    told = await Call(shed, kind="websocket", extensions=extended).done()
    assert (told.status, told.json["reason"]) == (503, "queue")
    assert int(told.headers["retry-after"]) >= 1
    first.go_away()
    await first.done()
    assert check_law(shed).served == 1
    assert shed._limiter.stats().samples == 0


@in_loop
async def test_websockets_may_be_exempt() -> None:
    shed = LoadShed(Chat(), limit=1, queue=0, websockets="exempt")
    calls = [await accepted(Call(shed, kind="websocket")) for _ in range(3)]
    for call in calls:
        call.go_away()
        await call.done()
    assert (check_law(shed).received, shed.stats().exempt) == (0, 3)


@in_loop
async def test_a_websocket_waits_in_line_and_leaves_it() -> None:
    shed = LoadShed(Chat(), limit=1, queue=2, max_wait=NEVER, websockets="life")
    first = await accepted(Call(shed, kind="websocket"))
    gone, second = Call(shed, kind="websocket"), Call(shed, kind="websocket")
    await until(lambda: shed.stats().waiting == 2)
    gone.go_away()
    await gone.done()
    first.go_away()
    await accepted(second)
    second.give({"type": "websocket.receive", "text": "at last"})
    second.go_away()
    await second.done()
    assert second.sent[-1]["text"] == "at last"
    await first.done()
    assert check_law(shed).disconnected == 1


@in_loop
async def test_a_websocket_that_ends_with_an_error_because_its_client_went_teaches_nothing() -> (
    None
):
    async def strict(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if (await receive())["type"] == "websocket.disconnect":
            raise ConnectionError("the client has gone")

    shed = LoadShed(strict, limit=weir.AIMD(), websockets="life")
    call = await accepted(Call(shed, kind="websocket"))
    call.go_away()
    with pytest.raises(ConnectionError):
        await call.done()
    assert (check_law(shed).disconnected, shed._limiter.stats().drops) == (1, 0)


@pytest.mark.parametrize("websockets", ["connect", "life"])
@in_loop
async def test_an_app_that_breaks_a_websocket_holds_nothing(websockets: Any) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] == "/late":
            await send({"type": "websocket.accept"})
        raise KeyError("a bug")

    shed = LoadShed(broken, limit=1, websockets=websockets)
    for path in ("/", "/late"):
        with pytest.raises(KeyError):
            await Call(shed, path, kind="websocket").done()
    stats = check_law(shed)
    assert (stats.served, stats.failed) == (2, 1 if websockets == "connect" else 2)


# ---- metrics -------------------------------------------------------------------------------------


@in_loop
async def test_metrics_say_what_stats_say_and_the_law_holds_in_them() -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=1, queue=0, name='a "b"', metrics_path="/metrics")
    (inside,) = await fill(shed, backend, 1)
    await Call(shed).done()
    page = await Call(shed, "/metrics").done()
    assert page.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    text = page.content.decode()
    assert text.endswith("# EOF\n")
    labels = rf'name="a \\"b\\"",pid="{os.getpid()}"'
    numbers = dict(re.findall(rf"^weir_requests_(\w+){{{labels}}} (\S+)$", text, re.MULTILINE))
    shed_of = dict(
        re.findall(rf'^weir_requests_shed_total{{{labels},reason="(\w+)"}} (\d+)$', text, re.M)
    )
    assert shed_of == {reason: "1" if reason == "queue" else "0" for reason in REASONS}
    assert float(numbers["received_total"]) == 2
    assert (numbers["in_flight"], numbers["limit"], numbers["waiting"]) == ("1", "1", "0")
    typed = re.findall(r"^# TYPE (\w+) (counter|gauge)$", text, re.MULTILINE)
    assert len({name for name, _ in typed}) == len(typed)
    backend.open.set()
    await inside.done()
    check_law(shed)
    assert "0 of 1 in, 0 of 0 waiting" in repr(shed)


@in_loop
async def test_metrics_are_for_get_and_head_only() -> None:
    shed = LoadShed(Backend(), limit=1, metrics_path="/metrics")
    page = await Call(shed, "/api/metrics", root_path="/api").done()
    head = await Call(shed, "/metrics", method="HEAD").done()
    assert (head.status, head.content) == (200, b"")
    assert head.headers == page.headers
    for method in ("POST", "DELETE", "OPTIONS"):
        refused = await Call(shed, "/metrics", method=method).done()
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
        assert refused.json["error"] == "method not allowed"
    assert check_law(shed).received == 0


# ---- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"limit": 0}, "'limit'"),
        ({"limit": "10"}, "'limit'"),
        ({"queue": -1}, "'queue' must be >= 0, not -1"),
        ({"queue": 2.5}, "'queue' must be an int or None"),
        ({"max_wait": 0}, "'max_wait' must be > 0 seconds"),
        ({"retry_after": -1}, "'retry_after'"),
        ({"status": 500}, "'status' must be 503 or 429"),
        ({"max_body": True}, "'max_body'"),
        ({"max_bytes": 0}, "'max_bytes' must be >= 1"),
        ({"exempt": "/health"}, "'exempt' must be several paths"),
        ({"exempt": None}, "'exempt' must be paths or a function of the scope, not None; ()"),
        ({"exempt": ("health",)}, "'exempt': a path begins with '/'"),
        ({"websockets": "maybe"}, "'websockets' must be one of"),
        ({"metrics_path": "metrics"}, "'metrics_path': a path begins with '/'"),
        ({"priority": {"/": "a"}}, "'priority' needs partitions"),
        ({"partitions": {"a": 0.5}}, "'partitions' need a 'priority'"),
        ({"partitions": {"a": 0.5}, "priority": {"/": "b"}}, "'b' for '/': no such partition"),
        ({"partitions": {"a": 0.5}, "priority": {"x": "a"}}, "'priority': a path begins"),
        ({"partitions": {"a": 1.5}, "priority": {"/": "a"}}, "'partitions'"),
        ({"partitions": {"a": 0.9, "b": 0.9}, "priority": {"/": "a"}}, "'partitions'"),
        ({"limit": weir.Limiter(1), "shared": "x"}, "a Limiter has partitions= and shared="),
        ({"limit": weir.Limiter(1, partitions={"a": 1}), "priority": {}}, "one named 'other'"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(says)):
        LoadShed(Chat(), **options)


def test_an_app_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="'app' must be an ASGI app, not None"):
        LoadShed(None)  # type: ignore[arg-type]


# ---- many of everything --------------------------------------------------------------------------


async def storm(shed: LoadShed, seed: int | str, calls: int) -> None:
    """Requests of all kinds; some go, some are cancelled, some lie, some fail."""
    rng = random.Random(seed)
    made: list[Call] = []
    for _ in range(calls):
        kind = "websocket" if rng.random() < 0.1 else "http"
        body = [bytes(rng.randrange(300)) for _ in range(rng.randrange(5))]
        said = sum(map(len, body)) - rng.choice((0, 0, 0, 10))
        headers = [length(max(said, 0))] if rng.random() < 0.5 else []
        path = rng.choice(("/", "/", "/fail", "/bad", "/health"))
        call = Call(shed, path, body=body, headers=headers, kind=kind)
        made.append(call)
        if rng.random() < 0.2:
            asyncio.get_running_loop().call_later(rng.random() * 0.01, call.go_away)
        if rng.random() < 0.2:
            asyncio.get_running_loop().call_later(rng.random() * 0.01, call.task.cancel)
        if rng.random() < 0.3:
            await asyncio.sleep(rng.random() * 0.003)
            stats = shed.stats()
            ended = stats.served + sum(stats.shed.values()) + stats.disconnected
            assert stats.received == ended + stats.inside
            assert stats.waiting <= 6
            assert stats.bytes <= 3000
    for call in made:
        call.go_away()
    outcomes = await asyncio.gather(*(call.task for call in made), return_exceptions=True)
    expected = (type(None), asyncio.CancelledError, KeyError, ConnectionError, weir.TooLarge)
    assert {type(outcome) for outcome in outcomes} <= {*expected, weir.Overloaded}
    for call in made:
        if call.status in (503, 413):
            assert not any(m.get("status") == 200 for m in call.sent)


async def moody(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await Chat()(scope, receive, send)
        return
    await read(receive)
    await asyncio.sleep(random.random() * 0.004)
    if scope["path"] == "/fail":
        raise KeyError("a bug")
    await answer(send, 503 if scope["path"] == "/bad" else 200)


@pytest.mark.parametrize("limit", [3, weir.Gradient2(3, 2, 8), weir.AIMD(3, 1, 6)])
@pytest.mark.parametrize("websockets", ["connect", "life"])
@in_loop
async def test_a_storm_leaves_nothing_behind(limit: Any, websockets: Any) -> None:
    shed = LoadShed(
        moody, limit=limit, queue=6, max_wait=0.01, max_body=900, max_bytes=3000,
        websockets=websockets,
    )  # fmt: skip
    await storm(shed, seed=f"{limit} {websockets}", calls=400)
    stats = check_law(shed)
    assert stats.received + stats.exempt == 400
    assert sum(stats.shed.values()) and stats.disconnected and stats.served
    assert stats.peak_waiting <= 6
    assert stats.peak_bytes <= 3000
    if isinstance(limit, int):
        assert stats.peak_in_flight <= limit
    limiter = shed._limiter.stats()
    assert limiter.admitted == limiter.released


def test_several_loops_may_use_one() -> None:
    shed = LoadShed(moody, limit=3, queue=6, max_wait=0.01, max_body=900, max_bytes=3000)
    errors: list[BaseException] = []

    def loop(seed: int) -> None:
        try:
            asyncio.run(storm(shed, seed, 200))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=loop, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    stats = check_law(shed)
    assert stats.received + stats.exempt == 800
    assert stats.peak_in_flight <= 3


@in_loop
async def test_a_loop_that_ends_releases_who_waits_in_it() -> None:
    backend = Backend()
    shed = LoadShed(backend, limit=1, queue=3, max_wait=NEVER)

    def loop() -> None:
        async def leave() -> None:
            calls = [Call(shed) for _ in range(3)]
            await until(lambda: shed.stats().waiting == 3)
            assert calls

        asyncio.run(leave())

    (inside,) = await fill(shed, backend, 1)
    await asyncio.to_thread(loop)
    backend.open.set()
    await inside.done()
    assert check_law(shed).disconnected == 3


# ---- processes -----------------------------------------------------------------------------------


def test_a_forked_child_has_a_limit_and_numbers_of_its_own() -> None:
    said = output_of("""
        import asyncio, os, sys
        sys.path.insert(0, "python/tests")
        import weir
        from weir.asgi import LoadShed

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        async def receive(): return {"type": "http.request", "body": b"", "more_body": False}
        async def send(message): pass
        shed = LoadShed(app, limit=2)
        scope = {"type": "http", "path": "/", "headers": []}
        call = lambda: asyncio.run(shed(scope, receive, send))
        call()
        child = os.fork()
        if child == 0:
            call(), call()
            print(shed.stats().received, flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print(shed.stats().received)
    """)
    assert said.split() == ["2", "1"]


def test_processes_with_one_name_share_one_limit() -> None:
    name = f"weir-test-asgi-{os.getpid()}"
    program = textwrap.dedent(f"""
        import asyncio, sys
        from weir.asgi import LoadShed
        async def app(scope, receive, send):
            print("in", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            await send({{"type": "http.response.start", "status": 200, "headers": []}})
            await send({{"type": "http.response.body", "body": b""}})
        async def receive(): return {{"type": "http.request", "body": b"", "more_body": False}}
        async def send(message):
            if "status" in message: print(message["status"], flush=True)
        shed = LoadShed(app, limit=1, queue=0, shared={name!r})
        asyncio.run(shed({{"type": "http", "path": "/", "headers": []}}, receive, send))
    """)

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    with start() as first:
        assert first.stdout
        assert first.stdout.readline() == "in\n"
        with start() as second:
            assert second.communicate(timeout=20)[0] == "503\n"
        first.kill()  # what it held comes back
    with start() as third:
        said = third.communicate("\n", timeout=20)[0]
    assert said in ("in\n200\n", "503\n")

    def let_in() -> bool:
        with start() as later:
            return later.communicate("\n", timeout=20)[0] == "in\n200\n"

    wait_until(let_in)


@in_loop
async def test_a_shared_limit_waits_in_line_and_leaves_it() -> None:
    backend = Backend()
    shed = LoadShed(
        backend, limit=1, queue=2, max_wait=NEVER, shared=f"weir-test-asgi-line-{os.getpid()}"
    )
    (inside,) = await fill(shed, backend, 1)
    gone, waiting = Call(shed, "/gone"), Call(shed, "/waiting")
    await until(lambda: shed.stats().waiting == 2)
    assert (await Call(shed).done()).status == 503
    gone.go_away()
    await gone.done()
    backend.open.set()
    for call in (inside, waiting):
        assert (await call.done()).status == 200
    assert backend.paths == ["/", "/waiting"]
    await until(lambda: shed._limiter.in_flight == 0)
    assert check_law(shed).disconnected == 1
