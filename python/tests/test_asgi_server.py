"""LoadShed in a FastAPI app, behind a real server, with real connections."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import uvicorn
from conftest import InThread, wait_until
from fastapi import FastAPI, Request, WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from weir.asgi import LoadShed, LoadShedStats


class Service:
    """A FastAPI app with a LoadShed, served from a thread."""

    def __init__(self, http: str, **options: Any) -> None:
        self.open = threading.Event()
        self.started = False
        self.inside = 0
        self.shed: LoadShed | None = None
        app = FastAPI(lifespan=self.lifespan)
        app.add_api_route("/work", self.work, methods=["POST", "GET"])
        app.add_api_route("/health", lambda: "ok")
        app.add_api_websocket_route("/chat", self.chat)
        app.add_middleware(LoadShed, metrics_path="/metrics", **options)
        listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = listener.getsockname()[1]
        config = uvicorn.Config(
            app, http=http, log_level="critical", lifespan="on", timeout_graceful_shutdown=20
        )
        self.server = uvicorn.Server(config)
        self.thread = InThread(self.server.run, sockets=[listener])
        self.listener = listener
        wait_until(lambda: self.server.started or self.thread.is_done)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        self.started = True
        yield

    async def work(self, request: Request) -> dict[str, int]:
        self.shed = request.scope["weir.load_shed"]
        body = await request.body()
        self.inside += 1
        await asyncio.to_thread(self.open.wait, 20)
        self.inside -= 1
        return {"length": len(body)}

    async def chat(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.receive_text()

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def ask(self, method: str = "GET", path: str = "/work", body: Any = None) -> tuple[int, Any]:
        with contextlib.closing(self.connection()) as connection:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"null")

    def stats(self) -> LoadShedStats:
        assert self.shed is not None
        return self.shed.stats()

    def fill(self, calls: int) -> list[InThread]:
        made = [InThread(self.ask) for _ in range(calls)]
        wait_until(lambda: self.inside == calls)
        return made

    def stop(self) -> None:
        self.open.set()
        self.server.should_exit = True
        self.thread.result()
        self.listener.close()


@pytest.fixture(params=["httptools", "h11"])
def serve(request: pytest.FixtureRequest) -> Iterator[Any]:
    services: list[Service] = []

    def start(**options: Any) -> Service:
        services.append(Service(request.param, **options))
        return services[-1]

    yield start
    for service in services:
        service.stop()
        if service.shed is not None:
            stats = service.stats()
            ended = stats.served + sum(stats.shed.values()) + stats.disconnected
            assert (stats.received, stats.inside) == (ended, 0)


def test_a_connection_is_kept_when_a_request_with_a_small_body_is_refused(serve: Any) -> None:
    service = serve(limit=1, queue=0)
    assert service.started
    (inside,) = service.fill(1)
    with contextlib.closing(service.connection()) as connection:
        connection.connect()
        local = connection.sock.getsockname()
        for _ in range(3):
            connection.request("POST", "/work", bytes(30_000))
            response = connection.getresponse()
            assert (response.status, json.loads(response.read())["limit"]) == (503, 1)
            assert int(response.getheader("Retry-After") or 0) >= 1
            assert connection.sock.getsockname() == local
        connection.request("GET", "/health")
        assert connection.getresponse().read() == b'"ok"'
        service.open.set()
        assert inside.result() == (200, {"length": 0})
        connection.request("POST", "/work", bytes(30_000))
        assert json.loads(connection.getresponse().read()) == {"length": 30_000}
        assert connection.sock.getsockname() == local
    assert service.stats().shed["queue"] == 3


def test_a_connection_is_closed_when_a_request_with_a_large_body_is_refused(serve: Any) -> None:
    service = serve(limit=1, max_body=100_000)
    with socket.create_connection(("127.0.0.1", service.port), 20) as client:
        client.sendall(b"POST /work HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n")
        said = b""
        while chunk := client.recv(4096):
            said += chunk
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in said.lower()


def test_a_chunked_body_that_grows_too_large_gets_413_whatever_the_framework_makes_of_it(
    serve: Any,
) -> None:
    service = serve(limit=1, max_body=100_000)
    service.open.set()
    with socket.create_connection(("127.0.0.1", service.port), 20) as client:
        client.sendall(b"POST /work HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.sendall((b"8000\r\n" + bytes(0x8000) + b"\r\n") * 4)
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")
    assert service.ask("POST", body=bytes(100_000)) == (200, {"length": 100_000})


def test_a_client_that_hangs_up_leaves_the_line(serve: Any) -> None:
    service = serve(limit=1, queue=1, max_wait=1000)
    (inside,) = service.fill(1)
    with socket.create_connection(("127.0.0.1", service.port), 20) as client:
        client.sendall(b"GET /work HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: service.stats().waiting == 1)
    wait_until(lambda: service.stats().disconnected == 1)
    assert service.stats().waiting == 0
    service.open.set()
    assert inside.result()[0] == 200


def test_who_waits_is_answered_when_the_server_stops(serve: Any) -> None:
    service = serve(limit=1, queue=1, max_wait=1000)
    service.fill(1)
    waiting = InThread(service.ask)
    wait_until(lambda: service.stats().waiting == 1)
    service.server.should_exit = True
    service.open.set()
    assert waiting.result() == (200, {"length": 0})


def test_a_websocket_is_refused_with_an_answer(serve: Any) -> None:
    service = serve(limit=1, queue=0, websockets="life")
    url = f"ws://127.0.0.1:{service.port}/chat"
    with connect(url) as first:
        first.send("hello")
        assert first.recv(20) == "hello"
        with pytest.raises(InvalidStatus) as refused:
            connect(url)
        response = refused.value.response
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) >= 1
        assert json.loads(response.body or b"")["error"] == "overloaded"
        assert service.ask("GET", "/health") == (200, "ok")

    def is_let_in() -> bool:
        try:
            with connect(url) as second:
                second.send("again")
                return second.recv(20) == "again"
        except InvalidStatus:
            return False

    wait_until(is_let_in)


def test_the_metrics_page_answers_when_nobody_is_let_in(serve: Any) -> None:
    service = serve(limit=1, queue=0, name="api")
    service.fill(1)
    assert service.ask()[0] == 503
    with contextlib.closing(service.connection()) as connection:
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
    assert 'weir_requests_shed_total{name="api",pid="' in page
