"""Alerts, dashboard and configuration for Prometheus.

Against promtool, and against a real Prometheus that scrapes real programs: one under overload, one
that is calm, and `weir export` for both.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from programs import started, weir_command

if TYPE_CHECKING:
    from typing_extensions import Self

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "docs" / "prometheus" / "weir.rules.yml"
DASHBOARD = ROOT / "docs" / "grafana" / "weir.json"

# The families of the metrics; what a program really serves is compared with them below.
FAMILIES = set(
    """accepted delivered done refused dropped accepted_cost delivered_cost done_cost dropped_cost
    cancelled shed retried failed slow opened restarts blocked_seconds waits pressure_seconds
    worker_seconds depth depth_cost capacity max_cost max_age_seconds fullness_ratio spilled
    spilled_cost in_flight in_flight_cost peak_depth waiting workers closed above_high
    breaker_state memory_step rate_limit issue bottleneck wait_seconds service_seconds
    process_resident_bytes process_info process_unrecorded processes""".split()
)


def program(name: str) -> str:
    """prometheus or promtool; without it the test is skipped, but not in continuous integration."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if found is None:
        reason = f"there is no {name} (scripts/setup check)"
        if os.environ.get("CI") or os.environ.get("WERROR"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)],
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---- the files ----------------------------------------------------------------------------------


def test_promtool_accepts_the_rules_and_the_configuration() -> None:
    assert "12 rules found" in promtool("check", "rules", RULES)
    promtool("check", "config", RULES.with_name("prometheus.yml"))


def test_each_alert_fires_when_it_should_and_is_silent_when_it_should_not() -> None:
    promtool("test", "rules", RULES.with_name("weir.rules.test.yml"))


def test_the_tests_of_the_rules_fail_without_each_of_the_alerts(tmp_path: Path) -> None:
    shutil.copy(RULES.with_name("weir.rules.test.yml"), tmp_path)
    rules = RULES.read_text()
    (tmp_path / RULES.name).write_text(rules.replace("- alert: ", "- alert: No"))
    failed = subprocess.run(
        [program("promtool"), "test", "rules", "weir.rules.test.yml"],
        cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert failed.returncode != 0
    for alert in re.findall(r"- alert: (\w+)", rules):
        assert re.search(
            rf'alertname: ?(=\\?")?{alert}\b|alertname=\\?"{alert}\b', failed.stderr
        ), f"no test fails without {alert}"


def test_each_alert_says_what_is_wrong_where_and_what_to_do() -> None:
    blocks = re.split(r"- alert: ", RULES.read_text())[1:]
    for block in blocks:
        assert re.search(r"severity: '?(\{\{|info|warning|critical)", block), block
        assert "summary:" in block and "description:" in block
        assert "$labels.instance" in block and ("$labels.pid" in block or "WeirTargetDown" in block)


def dashboard() -> Any:
    return json.loads(DASHBOARD.read_text())


def expressions() -> list[str]:
    """All that the dashboard asks for, with what Grafana would put for its variables."""
    board = dashboard()
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    found += [one["expr"] for one in board["annotations"]["list"] if "expr" in one]
    for name, value in (("$__rate_interval", "6s"), ("$instance", ".*"), ("$process", ".*"),
                        ("$kind", ".*"), ("$name", ".*")):  # fmt: skip
        found = [expression.replace(name, value) for expression in found]
    return found


def metrics_of(text: str) -> set[str]:
    return {
        re.sub(r"_(total|bucket|sum|count)$", "", name)
        for name in re.findall(r"\bweir_([a-z_]+)", text)
    }


def test_the_dashboard_and_the_rules_ask_for_families_that_there_are() -> None:
    variables = [one["query"]["query"] for one in dashboard()["templating"]["list"][1:]]
    for text in [
        *expressions(),
        *variables,
        *re.findall(r"expr: (.*(?:\n +[^a-z].*)?)", RULES.read_text()),
    ]:
        if "weir_" in text:
            assert metrics_of(text) and metrics_of(text) <= FAMILIES, text


def test_each_query_of_the_dashboard_is_one(tmp_path: Path) -> None:
    rules = [
        {"record": f"expression:{i}", "expr": expression}
        for i, expression in enumerate(expressions())
    ]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "x", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", tmp_path / "rules.yml")
    assert len(rules) > 30 and not [rule for rule in rules if "$" in rule["expr"]]


def test_the_dashboard_is_laid_out_as_grafana_wants_it() -> None:
    board = dashboard()
    assert board["uid"] and board["schemaVersion"] >= 36 and "id" not in board
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + dx, place["y"] + dy)
            for dx in range(place["w"])
            for dy in range(place["h"])
        }
        assert not cells & taken, f"panel {panel['title']!r} lies on another one"
        taken |= cells
        if panel["type"] != "row":
            assert panel["title"] and panel["description"]
            assert all(one["datasource"]["uid"] == "${datasource}" for one in panel["targets"])
    names = [variable["name"] for variable in board["templating"]["list"]]
    assert names == ["datasource", "instance", "process", "kind", "name"]


# ---- the real thing -----------------------------------------------------------------------------

# For each of two queues one producer and one consumer; arguments: how many seconds each takes.
PROGRAM = """
import sys, threading, time, weir

make, use = float(sys.argv[1]), float(sys.argv[2])
jobs = weir.Queue(10, name="jobs")
prices = weir.Queue(5, overflow="drop_oldest", name="prices")
keep = [weir.CircuitBreaker(name="payments"), weir.TokenBucket(100, name="api"),
        weir.Limiter(4, name="gpu"), weir.MemoryGovernor(name="memory"),
        weir.ThreadPoolExecutor(2, name="threads")]

def produce(queue):
    while True:
        queue.put("item")
        time.sleep(make)

def consume(queue):
    while True:
        queue.get()
        time.sleep(use)

for run in (produce, consume):
    for queue in (jobs, prices):
        threading.Thread(target=run, args=(queue,), daemon=True).start()
with weir.serve_metrics(0, processes="self") as server:
    print(server.port, flush=True)
    sys.stdin.read()
"""


class Prometheus:
    """A real one that scrapes these ports each second and keeps what it saw in `folder`."""

    def __init__(self, folder: Path, ports: list[int], rules: str) -> None:
        (folder / "rules.yml").write_text(rules)
        targets = [f"127.0.0.1:{port}" for port in ports]
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s",
                       "evaluation_interval": "500ms"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "weir", "static_configs": [{"targets": targets}]}],
        }  # fmt: skip
        (folder / "prometheus.yml").write_text(json.dumps(config))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        self.log = folder / "log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [program("prometheus"), f"--config.file={folder / 'prometheus.yml'}",
                 f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={self.url[7:]}",
                 "--log.level=warn"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait()

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer; an error of Prometheus is one of the test."""
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(
                    f"{self.url}{path}?{urllib.parse.urlencode(query)}"
                ) as answer:
                    return json.load(answer)["data"]
            except urllib.error.HTTPError as error:
                if error.code != 503:  # it is not ready yet
                    raise AssertionError(f"{query}: {error.read().decode()}") from None
            except OSError:
                assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "Prometheus did not answer in time"
            time.sleep(0.1)

    def query(self, expression: str) -> list[Any]:
        result = self.ask("/api/v1/query", query=expression)["result"]
        assert isinstance(result, list)
        return result

    def alerts(self) -> set[tuple[str, str, int, str]]:
        """(alert, instance, pid, name) of each that fires."""
        return {
            (
                label["alertname"],
                label.get("instance", ""),
                int(label.get("pid", 0)),
                label.get("name", ""),
            )
            for one in self.ask("/api/v1/alerts")["alerts"]
            if one["state"] == "firing" and (label := one["labels"])
        }


def sooner(rules: str) -> str:
    """The rules with a tenth of their ranges, and a twentieth of the time that it has to last."""
    seconds, sooner = {"s": 1, "m": 60}, {"[": 10, "for: ": 20}

    def scaled(match: re.Match[str]) -> str:
        milliseconds = 1000 * int(match[2]) * seconds[match[3]] // sooner[match[1]]
        return f"{match[1]}{milliseconds}ms{match[4]}"

    return re.sub(r"(\[|for: )(\d+)([sm])(\]|\n)", scaled, rules)


def test_durations_are_scaled_and_nothing_else() -> None:
    scaled = sooner(RULES.read_text())
    assert "for: 1500ms\n" in scaled and "[6000ms]" in scaled and "m])" not in scaled
    assert re.sub(r"\d+ms", "", scaled) == re.sub(
        r"(?<=\[)\d+[sm]|(?<=for: )\d+[sm]", "", RULES.read_text()
    )


def test_prometheus_scrapes_and_alerts_under_overload_and_not_without(tmp_path: Path) -> None:
    program("prometheus")
    pages = tmp_path / "pages"
    with (
        started(sys.executable, "-c", PROGRAM, "0.002", "0.02", folder=pages) as (overload, pid),
        started(sys.executable, "-c", PROGRAM, "0.02", "0.001", folder=pages) as (calm, _),
        started(weir_command(), "export", "--port", "0", folder=pages) as (export, _),
    ):
        rules = sooner(RULES.read_text())
        with Prometheus(tmp_path, [overload, calm, export], rules) as prometheus:
            check_alerts(prometheus, [f"127.0.0.1:{overload}", f"127.0.0.1:{export}"], pid)
            check_scrapes(prometheus, f"127.0.0.1:{overload}")


@pytest.fixture(autouse=True)
def _own_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests, which run at the same time, have objects, too."""
    pages = tmp_path / "pages"
    pages.mkdir(mode=0o700)
    monkeypatch.setenv("WEIR_STATS_DIR", str(pages))


def check_alerts(prometheus: Prometheus, busy: list[str], pid: int) -> None:
    """Those of the overload fire, from the program and from `weir export`; and no other one."""
    names = (("WeirQueueHigh", "jobs"), ("WeirBackpressure", "jobs"), ("WeirDrops", "prices"))
    wanted = {(alert, instance, pid, name) for alert, name in names for instance in busy}
    deadline = time.monotonic() + 90
    while not wanted <= (alerts := prometheus.alerts()):
        assert time.monotonic() < deadline, (
            alerts,
            prometheus.query("up"),
            prometheus.log.read_text(),
        )
        time.sleep(0.2)
    assert {of for _, _, of, _ in alerts} == {pid}
    assert {alert for alert, *_ in alerts} == {alert for alert, _ in names}


def check_scrapes(prometheus: Prometheus, busy: str) -> None:
    up = prometheus.query("up")
    assert len(up) == 3 and all(one["value"][1] == "1" for one in up)
    served = set(prometheus.ask("/api/v1/label/__name__/values"))
    ours = {name for name in served if name.startswith("weir_")}
    assert metrics_of(" ".join(ours)) <= FAMILIES
    check_law(prometheus, busy)
    answered = {text: prometheus.query(text) for text in expressions()}
    with_data = [text for text, result in answered.items() if result]
    assert len(with_data) > len(answered) // 2, [text for text in answered if text not in with_data]
    for needed in ("weir_fullness_ratio", "weir_wait_seconds_bucket", "weir_blocked_seconds_total",
                   "weir_breaker_state", "weir_process_resident_bytes",
                   "weir_dropped_total", "(state) 2 * weir_breaker_state",
                   "(state) 2 * weir_memory_step"):  # fmt: skip
        assert any(needed in text for text in with_data), needed
    assert prometheus.ask("/api/v1/targets")["activeTargets"][0]["lastError"] == ""


def check_law(prometheus: Prometheus, instance: str) -> None:
    """Accepted = delivered + dropped + depth of the queue that drops, as one scrape saw it."""
    of = f'{{instance="{instance}", name="prices"}}'
    at = prometheus.query(f"timestamp(weir_depth{of})")[0]["value"][1]

    def value(name: str) -> float:
        answer = prometheus.ask("/api/v1/query", query=f"sum(weir_{name}{of})", time=at)
        return float(answer["result"][0]["value"][1])

    assert value("accepted_total") == value("delivered_total") + value("dropped_total") + value(
        "depth"
    )
    assert value("dropped_total") > 0
