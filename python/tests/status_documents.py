"""What a server of the status page sends, made up, for any time."""

from __future__ import annotations

import math
from typing import Any

HOSTILE = '<script>document.title="owned"</script><img src=x onerror="document.title=1">'
SERIES = ("depth", "accepted", "delivered", "dropped", "put_blocked", "get_blocked", "wait_p99",
          "service_p99")  # fmt: skip


def times(p50: float, count: int = 1000) -> dict[str, float | int]:
    return {"count": count, "mean": p50 * 1.2, "p50": p50, "p90": p50 * 2, "p99": p50 * 3.5,
            "max": p50 * 6}  # fmt: skip


def nothing_timed() -> dict[str, float | int | None]:
    return {"count": 0, "mean": None, "p50": None, "p90": None, "p99": None, "max": None}


class Document:
    """A state.json that is put together object by object."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.content: dict[str, Any] = {
            "version": 1, "at": at, "window": 10.0, "objects_beyond": 0, "root": None,
            "processes": [], "objects": [], "edges": [], "issues": [],
        }  # fmt: skip

    def process(self, pid: int, command: str, parent: int = 1, depth: int = 0) -> None:
        self.content["processes"].append(
            {"pid": pid, "uid": 1000, "parent": parent, "depth": depth, "command": command,
             "library": "0.1.0", "started": self.at - 4000, "rss_bytes": (80 + pid % 50) << 20,
             "unrecorded": 0}
        )  # fmt: skip

    def object(
        self,
        pid: int,
        kind: str,
        name: str,
        *,
        flow: float = 0.0,
        out: float | None = None,
        capacity: int | None = 100,
        full: float = 0.1,
        blocked: float = 0.0,
        hungry: float = 0.0,
        dropped: float = 0.0,
        wait: float | None = 0.01,
        service: float | None = None,
        numbers: dict[str, Any] | None = None,
        busy: float | None = None,
        length: int = 120,
    ) -> dict[str, Any]:
        """Adds one; what it does now and did before follows a curve around `full` and `flow`."""
        out = flow if out is None else out
        number = len(self.content["objects"]) + 1

        def curve(when: float, size: float) -> float:
            swing = math.sin(when / 7 + number) + 0.4 * math.sin(when / 2.3 + 2 * number)
            return max(0.0, size * (1 + 0.16 * swing))

        seen = [self.at - length + 1 + i for i in range(length)]
        bound = capacity or 1000
        history: dict[str, list[float | None]] = {
            "depth": [min(bound, round(curve(t, full * bound))) for t in seen],
            "accepted": [curve(t, flow) for t in seen],
            "delivered": [curve(t + 1, out) for t in seen],
            "dropped": [curve(t, dropped) for t in seen],
            "put_blocked": [curve(t, blocked) for t in seen],
            "get_blocked": [curve(t, hungry) for t in seen],
            "wait_p99": [None if wait is None else curve(t, wait * 3.5) for t in seen],
            "service_p99": [None if service is None else curve(t, service * 3.5) for t in seen],
        }
        depth = round(history["depth"][-1] or 0)
        delivered = 120_000 + number
        lost = 40 if dropped else 0
        one: dict[str, Any] = {
            "key": f"{pid}-{number}", "pid": pid, "id": number, "kind": kind, "name": name,
            "created": self.at - 3600, "exact": True,
            "numbers": {"accepted": delivered + lost + depth, "delivered": delivered,
                        "done": delivered - 3, "depth": depth, "capacity": capacity,
                        "peak_depth": bound, "in_flight": 3, "dropped_oldest": lost,
                        "put_blocked_seconds": 12.5, "workers": 4, **(numbers or {})},
            "rates": {"seconds": 10.0, "accepted": history["accepted"][-1],
                      "delivered": history["delivered"][-1], "done": history["delivered"][-1],
                      "dropped": history["dropped"][-1], "refused": 0.0, "failed": 0.0,
                      "put_blocked": history["put_blocked"][-1],
                      "get_blocked": history["get_blocked"][-1],
                      "pressure": 0.0, "busy": busy},
            "fullness": None if capacity is None else depth / bound,
            "wait": nothing_timed() if wait is None else times(wait),
            "wait_total": nothing_timed() if wait is None else times(wait * 0.9, 120_000),
            "service": nothing_timed() if service is None else times(service),
            "service_total": nothing_timed() if service is None else times(service, 120_000),
            "issues": [], "root": False, "history": {"at": seen, **history},
        }  # fmt: skip
        self.content["objects"].append(one)
        return one

    def edge(self, source: dict[str, Any], target: dict[str, Any]) -> None:
        edge = {"pid": source["pid"], "from": source["key"], "to": target["key"]}
        self.content["edges"].append(edge)

    def issue(self, one: dict[str, Any], kind: str, text: str, ago: float = 40.0) -> None:
        one["issues"].append(kind)
        self.content["issues"].append(
            {"issue": kind, "pid": one["pid"], "id": one["id"], "object": one["key"],
             "kind": one["kind"], "name": one["name"], "value": 0.9, "threshold": 0.8,
             "since": self.at - ago, "text": text}
        )  # fmt: skip

    def root(self, one: dict[str, Any], text: str) -> None:
        one["root"] = True
        one["rates"]["pressure"] = 3.4
        self.content["root"] = {"text": text, "pid": one["pid"], "id": one["id"]}


def busy_host(at: float, many: int = 0) -> dict[str, Any]:
    """Two services and a batch job, under pressure; and `many` queues more in a process."""
    document = Document(at)
    document.process(4242, "python ingest.py --source s3://measurements/2026 --workers 8")
    read = document.object(4242, "stage", "ingest/read", flow=310, out=300, full=0.35, wait=0.02,
                           service=0.004, busy=0.31)  # fmt: skip
    parse = document.object(4242, "stage", "ingest/parse", flow=300, out=296, full=0.71,
                            blocked=0.4, wait=0.24, service=0.012, busy=0.55,
                            numbers={"workers": 8})  # fmt: skip
    enrich = document.object(4242, "stage", "ingest/enrich", flow=210, full=0.88, blocked=2.2,
                             wait=1.4, service=0.05, busy=0.64,
                             numbers={"workers": 50})  # fmt: skip
    thumbs = document.object(4242, "stage", "ingest/thumbnails", flow=86, full=0.22, wait=0.09,
                             service=0.03, busy=0.4, numbers={"workers": 2})  # fmt: skip
    store = document.object(4242, "stage", "ingest/store", flow=296, full=0.96, blocked=4.1,
                            wait=0.33, service=0.118, busy=0.99,
                            numbers={"cause": 1, "cause_name": "workers"})  # fmt: skip
    for source, target in ((read, parse), (parse, enrich), (parse, thumbs), (enrich, store),
                           (thumbs, store), (read, store)):  # fmt: skip
        document.edge(source, target)
    pool = document.object(4242, "process_pool", "resize", flow=86, full=0.5, capacity=24, wait=0.2,
                           service=0.09, busy=0.9)  # fmt: skip
    document.process(4250, "resize worker 0", 4242, 1)
    document.object(4250, "limit", "gpu", flow=40, capacity=4, full=0.7, service=0.02)
    document.process(5100, "uvicorn app:api --workers 2")
    jobs = document.object(5100, "queue", "jobs", flow=1240, out=1180, capacity=1000, full=0.93,
                           dropped=60, wait=0.7)  # fmt: skip
    document.object(5100, "queue", "mail", flow=3.2, capacity=None, full=0.004, hungry=1.0)
    document.object(5100, "rate", "partner api", flow=98, capacity=20, full=0.1, blocked=1.3,
                    numbers={"rate_per_hour": 360_000})  # fmt: skip
    breaker = document.object(5100, "breaker", "payments", flow=0.2, capacity=None, service=1.9,
                              wait=None, numbers={"state": 1, "state_name": "open"})  # fmt: skip
    governor = document.object(
        5100, "governor", "memory", flow=12, capacity=6 << 30, full=0.0, wait=0.4,
        numbers={"state": 1, "state_name": "slow", "in_flight_cost": 5 << 30},
    )  # fmt: skip
    governor["fullness"] = 5 / 6
    document.process(6001, "python nightly_report.py")
    rows = document.object(6001, "stage", "report/rows", flow=4100, full=0.2, service=0.0002)
    sums = document.object(6001, "stage", "report/sums", flow=4100, full=0.1, service=0.0001)
    document.edge(rows, sums)
    if many:
        document.process(7000, "python many_queues.py")
    for i in range(many):
        document.object(7000, "queue", f"shard {i:03}", flow=i, full=(i % 70) / 100, length=10)
    document.root(store, "stage 'ingest/store' is the bottleneck: 94 % of blocked time; it is "
                         "limited by its 4 workers, which are busy 99 % of the time")  # fmt: skip
    document.issue(store, "queue_high", "stage 'ingest/store' is 96 % full: 96 of 100 places")
    document.issue(store, "backpressure", "stage 'ingest/store' made 412 calls wait in 10 s")
    document.issue(enrich, "queue_high", "stage 'ingest/enrich' is 88 % full: 88 of 100 places", 25)
    document.issue(jobs, "drops", "queue 'jobs' dropped 604 items in 10 s, the oldest first", 130)
    document.issue(breaker, "breaker_open", "breaker 'payments' is open: calls are rejected", 8)
    document.issue(governor, "memory", "governor 'memory' slows down: 5.0 of 6.0 GiB are reserved")
    assert pool["key"]
    return document.content


def calm_host(at: float) -> dict[str, Any]:
    document = Document(at)
    document.process(77, "python service.py")
    document.object(77, "queue", "jobs", flow=12, full=0.04, hungry=2.0)
    return document.content


def empty_host(at: float) -> dict[str, Any]:
    return Document(at).content


def hostile_host(at: float) -> dict[str, Any]:
    """Names, commands and sentences that would be markup if anybody took them for it."""
    document = Document(at)
    document.process(666, HOSTILE)
    one = document.object(666, "queue", HOSTILE, full=0.9)
    stages = [document.object(666, "stage", f"{HOSTILE}/{HOSTILE}{i}") for i in range(3)]
    for i, stage in enumerate(stages):  # a cycle, an edge to itself, and one to nowhere
        document.edge(stage, stages[(i + 1) % 3])
    document.edge(one, one)
    document.edge(one, {"pid": 666, "key": "no such"})
    document.object(666, HOSTILE, "\u202e" + "w" * 63)
    odd = document.object(666, "queue", "")
    odd["numbers"] = {"depth": None, "accepted": "many", "capacity": [], "__proto__": 5}
    odd["rates"] = odd["wait"] = odd["history"] = odd["issues"] = None
    odd["fullness"] = "full"
    document.issue(one, HOSTILE, HOSTILE)
    document.root(one, HOSTILE)
    document.content["objects"] += [None, 5, "text"]
    return document.content
