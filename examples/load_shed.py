#!/usr/bin/env python3
"""load_shed.py - a web service is asked for five times what it can do: without and with LoadShed.

A real server (uvicorn) in a process of its own, a real load generator (wrk) that offers five times
the capacity, in an open loop as far as its connections go.  What counts is goodput: answers within
the deadline, because later nobody waits for them.  Meanwhile a health route is asked every 100 ms,
and the memory of the server is watched.

First the most that the service can do when nobody has to wait; then the overload without LoadShed,
where every request waits until it is too late; then with LoadShed as it comes, which finds the
limit by itself, and with a limit that was told.  Last, a backend that stalls under the same load.

  --service backend   a backend that does five requests at a time, 20 ms each (the default)
  --service cpu       10 ms of computing in a thread, for each request
  --plot FILE         draws it (needs matplotlib)

Needs uvicorn, httptools (pip) and wrk (Debian).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import importlib
import importlib.util
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import show
from weir.asgi import ASGIApp, LoadShed, Message, Receive, Scope, Send

AT_ONCE = {"backend": 5, "cpu": 1}  # requests that the service does at a time
HEALTH_EVERY, MEMORY_EVERY = 0.1, 0.25  # seconds
BIN = 0.25  # seconds of the timelines
PERIOD = 0.4  # seconds between an answer and the next request of a connection


# ---- the service ---------------------------------------------------------------------------------


class Service:
    """An ASGI app with a capacity."""

    def __init__(self, kind: str) -> None:
        self.do = self.ask_backend if kind == "backend" else self.compute
        self.free = asyncio.Semaphore(AT_ONCE["backend"])
        self.stalls_until = 0.0

    async def ask_backend(self) -> None:
        async with self.free:
            await asyncio.sleep(0.02)
            await asyncio.sleep(self.stalls_until - time.monotonic())

    async def compute(self) -> None:
        await asyncio.to_thread(burn, 0.01)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        said = b"ok"
        if scope["type"] != "http":
            return
        if scope["path"] == "/admin/stall":
            self.stalls_until = time.monotonic() + float(scope["query_string"])
        elif scope["path"] == "/admin/law" and "weir.load_shed" in scope:
            said = law_of(scope["weir.load_shed"]).encode()
        elif scope["path"] == "/":
            await self.do()
        headers = [(b"content-length", str(len(said)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": said})


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def law_of(shed: LoadShed) -> str:
    stats = shed.stats()
    refused = {f"refused ({reason})": count for reason, count in stats.shed.items() if count}
    parts = {"served": stats.served, **refused, "disconnected": stats.disconnected}
    parts["inside"] = stats.inside
    return json.dumps({"received": stats.received, "parts": parts, "limit": stats.limit})


def name_answers(app: ASGIApp) -> ASGIApp:
    """Sends each request's X-Sent back, also of those that are refused."""

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        names = [pair for pair in scope.get("headers", ()) if pair[0] == b"x-sent"]

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *names]
            await send(message)

        await app(scope, receive, answer)

    return named


def serve(kind: str, how: str, descriptor: int) -> int:
    uvicorn = importlib.import_module("uvicorn")
    app: ASGIApp = Service(kind)
    exempt = ("/health", "/admin")
    if how == "found":
        app = LoadShed(app, exempt=exempt)
    elif how == "told":
        app = LoadShed(app, exempt=exempt, limit=AT_ONCE[kind])
    config = uvicorn.Config(
        name_answers(app), http="httptools", lifespan="off", access_log=False, log_level="critical",
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])
    return 0


# ---- one run -------------------------------------------------------------------------------------


class Server:
    """The service in a process of its own, and what is seen of it from outside."""

    def __init__(self, kind: str, how: str) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
            self.port: int = listener.getsockname()[1]
            descriptor = listener.fileno()
            command = [sys.executable, __file__, "--serve", kind, how, str(descriptor)]
            self.process = subprocess.Popen(command, pass_fds=[descriptor])
        self.get("/health", 30)
        self.began = time.monotonic()
        self.healths: list[tuple[float, float]] = []  # when, seconds it took
        self.memory: list[tuple[float, int]] = []  # when, bytes
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=fn) for fn in (self.probe, self.watch)]
        for thread in self.threads:
            thread.start()

    def get(self, path: str, timeout: float = 10) -> bytes:
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        ) as connection:
            connection.request("GET", path)
            return connection.getresponse().read()

    def probe(self) -> None:
        while not self.ended.wait(HEALTH_EVERY):
            before = time.monotonic()
            with contextlib.suppress(OSError):
                self.get("/health")
            self.healths.append((before, time.monotonic() - before))

    def watch(self) -> None:
        while not self.ended.wait(MEMORY_EVERY):
            self.memory.append((time.monotonic(), show.rss(self.process.pid)))

    def stop(self) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:  # it still works off what nobody waits for
            self.process.kill()
            self.process.wait()


class Answered(NamedTuple):
    sent: float  # seconds of the monotonic clock
    took: float  # seconds
    status: int


class Run:
    """What one load has shown."""

    def __init__(self, server: Server, began: float, seconds: float, log: str) -> None:
        self.server, self.began, self.seconds = server, began, seconds
        self.answers: list[Answered] = []
        unanswered: set[int] = set()
        for line in log.splitlines():
            kind, *numbers = line.split()
            if kind == "S":
                unanswered.add(int(numbers[0]))
                continue
            sent, at, status = map(int, numbers)
            unanswered.discard(sent)
            self.answers.append(Answered(sent / 1e6, (at - sent) / 1e6, status))
        self.unanswered = [sent / 1e6 for sent in unanswered]

    def good(self, deadline: float) -> list[Answered]:
        return [a for a in self.answers if a.status == 200 and a.took <= deadline]

    def goodput(self, deadline: float) -> float:
        """Answers within the deadline, a second; the first tenth is left to begin with."""
        start = self.began + self.seconds / 10
        return sum(a.sent >= start for a in self.good(deadline)) / (0.9 * self.seconds)

    def refused(self) -> int:
        return sum(a.status != 200 for a in self.answers)

    def accepted(self) -> list[float]:
        """What requests took that were let in, seconds."""
        start = self.began + self.seconds / 10
        return [a.took for a in self.answers if a.status == 200 and a.sent >= start]

    def offered(self) -> float:
        return (len(self.answers) + len(self.unanswered)) / self.seconds

    def slowest_health(self) -> float:
        end = self.began + self.seconds
        return max((took for at, took in self.server.healths if self.began <= at < end), default=0)

    def memory(self) -> list[int]:
        end = self.began + self.seconds
        return [size for at, size in self.server.memory if self.began <= at <= end]

    def growth(self) -> int:
        """Bytes, from the first third to the last one."""
        third = max(1, len(self.memory()) // 3)
        return max(self.memory()[-third:]) - max(self.memory()[:third])

    def timeline(self, good: list[Answered]) -> list[float]:
        """Good answers a second, as they came."""
        bins: Counter[int] = Counter(int((a.sent + a.took - self.began) / BIN) for a in good)
        return [bins[number] / BIN for number in range(round(self.seconds / BIN))]


def load(server: Server, connections: int, period: float, seconds: float) -> Run:
    with tempfile.NamedTemporaryFile("r", suffix=".log") as log:
        script = Path(__file__).with_suffix(".lua")
        command: list[object] = [
            "wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}", "--timeout", 120,
            "-s", script, f"http://127.0.0.1:{server.port}/", "--", log.name, round(period * 1e3),
        ]  # fmt: skip
        began = time.monotonic()
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
        if "Non-2xx" not in done.stdout and "requests in" not in done.stdout:
            raise RuntimeError(f"wrk: {done.stdout}{done.stderr}")
        return Run(server, began, max(1, round(seconds)), log.read())


@contextlib.contextmanager
def served(kind: str, how: str) -> Iterator[Server]:
    server = Server(kind, how)
    try:
        yield server
    finally:
        server.stop()


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))] if values else float("nan")


# ---- the questions -------------------------------------------------------------------------------

HEADERS = (
    "", "asked", "goodput", "of most", "median", "p99", "of unloaded", "health, at most", "memory",
    "growth",
)  # fmt: skip
NAMES = {"bare": "without", "found": "LoadShed(app)", "told": "LoadShed(app, limit={})"}


class Report:
    """Runs them one after the other, and prints what they have shown."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.kind = args, args.service
        self.rows: list[tuple[object, ...]] = []
        self.runs: dict[str, Run] = {}
        self.status = 0
        with served(self.kind, "bare") as server:
            load(server, AT_ONCE[self.kind], 0, 1)
            unloaded = load(server, AT_ONCE[self.kind], 0, max(2, args.seconds / 6))
        self.most = unloaded.goodput(args.deadline)
        self.p99 = quantile(unloaded.accepted(), 0.99)
        self.add("unloaded", unloaded)
        self.connections = max(10, round(args.times * self.most * (PERIOD + 0.02)))

    def add(self, name: str, run: Run) -> None:
        accepted = run.accepted()
        p99 = quantile(accepted, 0.99)
        goodput = run.goodput(self.args.deadline)
        self.runs[name] = run
        self.rows.append(
            (
                name,
                f"{run.offered():,.0f}/s",
                f"{goodput:,.0f}/s",
                f"{goodput / self.most:.2f}",
                f"{1e3 * quantile(accepted, 0.5):,.0f} ms",
                f"{1e3 * p99:,.0f} ms",
                f"{p99 / self.p99:.1f}",
                f"{1e3 * run.slowest_health():,.0f} ms",
                show.mib(max(run.memory(), default=0)),
                f"{run.growth() / show.MIB:+.1f} MiB" if run.memory() else "",
            )
        )

    def table(self) -> str:
        return show.table(HEADERS, self.rows)

    def check(self, name: str, server: Server) -> None:
        """The law, once the load is over."""
        deadline = time.monotonic() + 20
        while True:
            said = json.loads(server.get("/admin/law"))
            if said["parts"]["inside"] == 0 or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        parts = {part: count for part, count in said["parts"].items() if count}
        print(f"{name}: limit at the end: {said['limit']}; ", end="")
        self.status |= show.check_law("requests", said["received"], parts)
        self.status |= said["parts"]["inside"] != 0

    def overload(self, how: str) -> None:
        name = NAMES[how].format(AT_ONCE[self.kind])
        with served(self.kind, how) as server:
            self.add(name, load(server, self.connections, PERIOD, self.args.seconds))
            if how != "bare":
                self.check(name, server)

    def stall(self, seconds: float) -> None:
        """The backend stands still under the same load, with LoadShed as it comes."""
        before, after = max(1.5, seconds / 3), max(2.5, seconds / 3)
        with served(self.kind, "found") as server:
            stops: list[float] = []

            def stop() -> None:
                server.get(f"/admin/stall?{seconds}")
                stops.append(time.monotonic())

            timer = threading.Timer(before, stop)
            timer.start()
            run = load(server, self.connections, PERIOD, before + seconds + after)
            timer.join()
            self.runs["stall"] = run
            self.check("stall", server)
        begin, end = stops[0], stops[0] + seconds
        late = [sent for sent in run.unanswered if sent < run.began + run.seconds - 2]
        memory = [
            max((size for at, size in server.memory if since <= at < until), default=0)
            for since, until in ((0, begin), (begin, end), (end, end + after))
        ]
        print(
            f"stall of {seconds:g} s: memory before, in and after it"
            f" {', '.join(map(show.mib, memory))}; as good as before"
            f" {self.recovery(run, begin, end):.2f} s after it; {run.refused():,} refused,"
            f" {len(late)} without an answer; health at most {1e3 * run.slowest_health():,.0f} ms"
        )
        self.stalled = (begin - run.began, end - run.began)
        self.status |= bool(late)

    def recovery(self, run: Run, begin: float, end: float) -> float:
        """Seconds after the stall until, for half a second, 90 % come of what came before it."""
        times = sorted(a.sent + a.took for a in run.good(self.args.deadline))
        after = [at for at in times if at > end]
        before = [at for at in times if run.began + 1 <= at < begin]
        wanted = max(2, round(0.9 * 0.5 * len(before) / (begin - run.began - 1)))
        for first, last in zip(after, after[wanted - 1 :], strict=False):
            if last - first <= 0.5:
                return first - end
        return float("inf")


def main() -> int:
    if sys.argv[1:2] == ["--serve"]:
        return serve(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    number = show.positive(float)
    parser.add_argument("--service", choices=list(AT_ONCE), default="backend")
    parser.add_argument("--seconds", type=number, default=60, metavar="N", help="of overload")
    parser.add_argument("--stall", type=number, default=30, metavar="N", help="seconds of it")
    parser.add_argument("--times", type=number, default=5, metavar="N", help="what it can do")
    parser.add_argument("--deadline", type=number, default=0.5, metavar="N", help="seconds")
    parser.add_argument("--plot", type=Path, default=None, metavar="FILE")
    parser.add_argument("--speed", type=number, default=1, metavar="N", help="divide durations")
    args = parser.parse_args()
    args.seconds, args.stall = args.seconds / args.speed, args.stall / args.speed
    if what := missing(args.plot):
        print(f"load_shed.py needs {what}", file=sys.stderr)
        return 2
    report = Report(args)
    for how in NAMES:
        report.overload(how)
    if args.service == "backend":
        report.stall(args.stall)
    print(report.table())
    if args.plot:
        draw(args.plot, report)
        print(f"chart: {args.plot}")
    return report.status


def missing(plot: Path | None) -> str:
    wanted = ["uvicorn", "httptools", *(["matplotlib"] if plot else [])]
    absent = [name for name in wanted if importlib.util.find_spec(name) is None]
    if absent:
        return f"{' and '.join(absent)}: pip install {' '.join(absent)}"
    return "" if shutil.which("wrk") else "wrk: apt install wrk"


# ---- the picture ---------------------------------------------------------------------------------

COLOURS = {"bare": "#c44e52", "found": "#2a6f97", "told": "#55a868"}


def draw(path: Path, report: Report) -> None:
    importlib.import_module("matplotlib").use("Agg")
    plt = importlib.import_module("matplotlib.pyplot")
    figure, axes = plt.subplots(3, 1, figsize=(9, 10), layout="constrained")
    deadline = report.args.deadline
    for how, colour in COLOURS.items():
        name = NAMES[how].format(AT_ONCE[report.kind])
        run = report.runs[name]
        seconds = [BIN * (number + 0.5) for number in range(round(run.seconds / BIN))]
        style = {"color": colour, "label": name, "linewidth": 1}
        axes[0].plot(seconds, run.timeline(run.good(deadline)), **style)
        accepted = [a for a in run.answers if a.status == 200]
        axes[1].plot(*slowest(run, accepted), **style)
    axes[0].axhline(report.most, color="0.6", linestyle=":", label="the most it can do")
    axes[0].set_title(
        f"Asked for {report.args.times:g} times what it can do: answers within {deadline:g} s,"
        " a second", loc="left",
    )  # fmt: skip
    axes[1].axhline(3e3 * report.p99, color="0.6", linestyle=":", label="3 x the unloaded p99")
    axes[1].set_yscale("log")
    ticks = [20, 50, 100, 200, 500, 1000, 2000]
    axes[1].set_yticks(ticks, labels=map(str, ticks))
    axes[1].minorticks_off()
    axes[1].set_title("p99 of those that were let in, ms", loc="left")
    draw_stall(axes[2], report)
    for one in axes:
        one.set_xlabel("seconds")
        one.legend(frameon=False, fontsize="small", ncols=2)
        one.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format=path.suffix[1:] or "png", dpi=120)
    plt.close(figure)


def slowest(run: Run, answers: list[Answered]) -> tuple[list[float], list[float]]:
    """When, and p99 in ms, for each second."""
    by_second: dict[int, list[float]] = {}
    for a in answers:
        by_second.setdefault(int(a.sent + a.took - run.began), []).append(a.took)
    seconds = sorted(by_second)
    return [s + 0.5 for s in seconds], [1e3 * quantile(by_second[s], 0.99) for s in seconds]


def draw_stall(axes: Any, report: Report) -> None:
    run = report.runs.get("stall")
    if run is None:
        axes.set_axis_off()
        return
    seconds = [BIN * (number + 0.5) for number in range(round(run.seconds / BIN))]
    refused = [a for a in run.answers if a.status != 200]
    good = run.timeline(run.good(report.args.deadline))
    axes.plot(seconds, good, color=COLOURS["found"], label="answered a second")
    axes.plot(seconds, run.timeline(refused), color="0.7", label="refused a second")
    axes.plot(
        [at - run.began for at, _ in run.server.memory],
        [size / show.MIB for _, size in run.server.memory],
        color=COLOURS["told"], label="memory, MiB",
    )  # fmt: skip
    axes.axvspan(*report.stalled, color="0.92")
    axes.set_xlim(0, run.seconds)
    axes.set_title("LoadShed(app), and the backend stalls under the same load", loc="left")


if __name__ == "__main__":
    sys.exit(main())
