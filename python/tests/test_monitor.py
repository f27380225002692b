"""weir.Monitor: issues begin and end once, are told and logged, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import logging
import queue as stdlib_queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import output_of, run_python, wait_until

import weir

NEVER: dict[str, Any] = dict.fromkeys(
    "queue_share queue_depth service events throughput age_growth drops".split()
)


def monitor_of(*issues: str, **options: Any) -> weir.Monitor:
    """One that looks when it is told to, at these thresholds only."""
    defaults = {"queue_share": 0.8, "queue_depth": 50, "service": 1.0, "events": 10}
    defaults |= {"throughput": 1.0, "age_growth": 2.0, "drops": 0}
    chosen = {name: defaults[name] for name in issues}
    return weir.Monitor(options.pop("window", 3), None, logger=None, **NEVER | chosen | options)


def issues_of(monitor: weir.Monitor, name: str) -> set[str]:
    return {issue.issue for issue in monitor.issues if issue.name == name}


# ---- what is an issue -------------------------------------------------------------------------


def test_an_issue_begins_once_and_ends_once() -> None:
    told: list[weir.Issue] = []
    queue: weir.Queue[int] = weir.Queue(10, name="full")
    queue.put_many(range(9))
    monitor = monitor_of("queue_share", on_issue=told.append)
    for _ in range(5):
        monitor.look()
    (issue,) = monitor.issues
    assert (issue.issue, issue.kind, issue.name) == ("queue_high", "queue", "full")
    assert issue.value == pytest.approx(0.9) and issue.threshold == pytest.approx(0.8)
    assert "'full'" in issue.text and issue.ended is None
    assert abs(issue.since - time.time()) < 60
    assert monitor.stats["full"].issues == ("queue_high",)
    assert monitor.stats["full"].fullness == pytest.approx(0.9)

    queue.get_many(9)
    for _ in range(5):
        monitor.look()
    assert monitor.issues == ()
    begun, ended = told
    assert begun.ended is None and ended.ended is not None and ended.ended >= ended.since
    assert (begun.key, begun.issue, begun.since) == (ended.key, ended.issue, ended.since)
    assert monitor.past_issues == (ended,)


def test_a_queue_deeper_than_said_is_an_issue_whatever_its_bound() -> None:
    queue: weir.Queue[int] = weir.Queue(None, name="deep")
    monitor = monitor_of("queue_depth", queue_depth=20)
    queue.put_many(range(30))
    monitor.look()
    monitor.look()
    monitor.look()
    assert issues_of(monitor, "deep") == {"queue_high"}


def refuse(queue: weir.Queue[int]) -> None:
    with contextlib.suppress(stdlib_queue.Full):
        queue.put_nowait(0)


def test_calls_that_are_refused_are_backpressure_when_they_are_many() -> None:
    queue: weir.Queue[int] = weir.Queue(1, name="pressed")
    monitor = monitor_of("events", window=4)
    for _ in range(6):
        refuse(queue)
    monitor.look()
    assert issues_of(monitor, "pressed") == set()
    for _ in range(6):
        refuse(queue)
    monitor.look()
    assert issues_of(monitor, "pressed") == {"backpressure"}
    for _ in range(5):
        monitor.look()
    assert issues_of(monitor, "pressed") == set()


def test_drops_are_an_issue_from_the_first_one_or_as_many_as_said() -> None:
    queue: weir.Queue[int] = weir.Queue(1, name="dropping", overflow="drop_oldest")
    any_drop, many = monitor_of("drops"), monitor_of("drops", drops=3)
    for number in range(4):
        queue.put(number)
    any_drop.look()
    many.look()
    assert issues_of(any_drop, "dropping") == {"drops"}
    assert issues_of(many, "dropping") == set()


def test_a_breaker_that_is_open_is_an_issue_until_it_closes() -> None:
    breaker = weir.CircuitBreaker(name="fuse")
    monitor = monitor_of()
    monitor.look()
    assert issues_of(monitor, "fuse") == set()
    breaker.isolate()
    monitor.look()
    assert issues_of(monitor, "fuse") == {"breaker_open"}
    breaker.reset()
    monitor.look()
    monitor.look()
    monitor.look()
    assert issues_of(monitor, "fuse") == set()


def test_tasks_that_take_long_are_slow_service_and_little_throughput() -> None:
    monitor = monitor_of("service", "throughput", service=0.02, throughput=1000.0)
    pipeline = weir.Pipeline(range(20), name="crawl")
    pipeline.sink(lambda _: time.sleep(0.05), name="slow", queue=10)
    pipeline.start()
    seen: set[str] = set()
    for _ in range(20):
        monitor.look()
        seen |= issues_of(monitor, "crawl/slow")
        time.sleep(0.05)
    pipeline.run()
    assert seen == {"slow_service", "low_throughput"}


def test_a_queue_whose_items_wait_longer_and_longer_has_growing_age() -> None:
    queue: weir.Queue[int] = weir.Queue(None, name="ageing")
    monitor = monitor_of("age_growth", window=21)
    for number in range(20):
        queue.put(number)
        time.sleep(0.001 * 1.3**number)
        queue.get()
        monitor.look()
    assert issues_of(monitor, "ageing") == {"growing_age"}


def test_what_is_well_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    told: list[weir.Issue] = []
    with caplog.at_level(logging.DEBUG, "weir"):
        monitor = weir.Monitor(10, None, on_issue=told.append)
        queue: weir.Queue[int] = weir.Queue(10, name="well")
        with weir.ThreadPoolExecutor(2, name="well too", max_submit_backlog=100) as pool:
            for number in range(10):
                queue.put(number)
                assert pool.submit(abs, -number).result() == number
                assert queue.get() == number
                monitor.look()
    assert [issue for issue in told if issue.name.startswith("well")] == []
    assert not any("'well" in record.getMessage() for record in caplog.records)


def test_what_is_none_is_never_an_issue() -> None:
    queue: weir.Queue[int] = weir.Queue(2, name="whatever", overflow="drop_newest")
    monitor = monitor_of()
    for number in range(20):
        queue.put(number)
        monitor.look()
    assert issues_of(monitor, "whatever") == set()


def test_a_slow_source_is_told_as_what_a_pipeline_waits_for() -> None:
    def source() -> Iterator[int]:
        for number in range(10_000):
            time.sleep(0.01)
            yield number

    monitor = weir.Monitor(50, None, logger=None)
    pipeline = weir.Pipeline(source(), name="drip")
    pipeline.stage(str, name="text")
    pipeline.start()
    told = "nothing holds anything back; the source 'drip/source' is the slowest"

    def is_told() -> bool:
        time.sleep(0.05)
        monitor.look()
        return told in (monitor.root or "")

    wait_until(is_told, 30)
    assert not any(seen.is_root for seen in monitor.stats)
    pipeline.stop()


def test_the_root_is_named_by_the_issue_and_by_the_monitor() -> None:
    monitor = weir.Monitor(50, None, logger=None)
    slow = weir.Pipeline(range(60), name="chain")
    slow.stage(abs, name="fast", queue=5)
    slow.sink(lambda _: time.sleep(0.01), name="slow", queue=5)
    slow.start()
    roots: set[str] = set()
    deadline = time.monotonic() + 30
    while "chain/slow" not in " ".join(roots) and time.monotonic() < deadline:
        monitor.look()
        roots.add(monitor.root or "")
        time.sleep(0.02)
    slow.run()
    assert any("'chain/slow'" in root for root in roots), roots
    seen = monitor.look()
    assert seen.edges == () or all(a != b for a, b in seen.edges)


# ---- telling ----------------------------------------------------------------------------------


@pytest.fixture
def full() -> Iterator[weir.Queue[int]]:
    queue: weir.Queue[int] = weir.Queue(10, name="full one")
    queue.put_many(range(10))
    yield queue
    queue.discard()


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == level and "'full one'" in record.getMessage()
    ]


def test_it_logs_a_warning_at_the_beginning_and_a_line_at_the_end(
    full: weir.Queue[int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "weir.monitor"):
        monitor = weir.Monitor(3, None, **NEVER | {"queue_share": 0.8})
        for _ in range(5):
            monitor.look()
        assert len(lines(caplog, logging.WARNING)) == 1
        full.get_many(10)
        for _ in range(5):
            monitor.look()
        (over,) = lines(caplog, logging.INFO)
        assert over.startswith("over after ")
        full.put_many(range(10))  # again, within log_every
        for _ in range(5):
            monitor.look()
        assert len(lines(caplog, logging.WARNING)) == 1


def test_what_lasts_is_logged_again_but_not_at_each_look(
    full: weir.Queue[int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "weir.monitor"):
        monitor = weir.Monitor(3, None, log_every=0.2, **NEVER | {"queue_share": 0.8})
        looks, began = 0, time.monotonic()
        while len(lines(caplog, logging.WARNING)) < 3:
            monitor.look()
            looks += 1
            time.sleep(0.01)
            assert time.monotonic() - began < 30
        assert time.monotonic() - began >= 0.4
    assert looks > 3 and full.full()


def test_a_callback_that_raises_is_logged_and_looking_goes_on(
    full: weir.Queue[int], caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[weir.Issue] = []

    def fail(issue: weir.Issue) -> None:
        calls.append(issue)
        raise RuntimeError("of the callback")

    with weir.Monitor(
        3, 0.01, on_issue=fail, logger=None, **NEVER | {"queue_share": 0.8}
    ) as monitor:
        wait_until(lambda: calls)
        full.get_many(10)
        wait_until(lambda: len(calls) == 2)
        wait_until(lambda: not monitor.issues)
    assert [record.name for record in caplog.records] == ["weir.monitor"] * 2
    assert "of the callback" in caplog.text and "'full one'" in caplog.text


def test_a_callback_may_look_and_close(full: weir.Queue[int]) -> None:
    seen: list[int] = []

    def on_issue(issue: weir.Issue) -> None:
        seen.append(len(monitor.look()))
        monitor.close()

    monitor = weir.Monitor(3, None, on_issue=on_issue, logger=None, **NEVER | {"queue_share": 0.8})
    for _ in range(3):
        monitor.look()
    full.get_many(10)
    for _ in range(4):
        monitor.look()
    assert len(seen) == 2


def test_callbacks_come_in_order_and_one_at_a_time_whoever_looks() -> None:
    queue: weir.Queue[int] = weir.Queue(10, name="turns")
    told: list[bool] = []
    inside = threading.Lock()

    def on_issue(issue: weir.Issue) -> None:
        assert inside.acquire(blocking=False), "two at a time"
        told.append(issue.ended is None)
        time.sleep(0.001)
        inside.release()

    monitor = monitor_of("queue_share", on_issue=on_issue)
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            monitor.look()

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 2
    while len(told) < 20 and time.monotonic() < deadline:
        queue.put_many(range(10))
        time.sleep(0.01)
        queue.get_many(10)
        time.sleep(0.01)
    over.set()
    for thread in threads:
        thread.join()
    assert len(told) > 1
    assert told == [n % 2 == 0 for n in range(len(told))]


def test_a_callback_can_hop_into_an_event_loop(full: weir.Queue[int]) -> None:
    async def main() -> weir.Issue:
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[weir.Issue] = asyncio.Queue()

        def on_issue(issue: weir.Issue) -> None:
            loop.call_soon_threadsafe(told.put_nowait, issue)

        with weir.Monitor(3, 0.01, on_issue=on_issue, logger=None):
            while True:
                issue = await asyncio.wait_for(told.get(), 30)
                if issue.name == "full one":
                    return issue

    assert asyncio.run(main()).issue == "queue_high"


# ---- the thread -------------------------------------------------------------------------------


def threads_of_monitors() -> int:
    return sum(thread.name == "weir-monitor" for thread in threading.enumerate())


def test_a_monitor_that_nobody_holds_ends_its_thread() -> None:
    monitor = weir.Monitor(3, 3600.0, logger=None)
    reference = weakref.ref(monitor)
    assert threads_of_monitors() == 1
    del monitor
    gc.collect()
    assert reference() is None
    wait_until(lambda: threads_of_monitors() == 0)


def test_close_ends_the_thread_and_what_was_seen_stays() -> None:
    queue: weir.Queue[int] = weir.Queue(3, name="stays")
    monitor = weir.Monitor(5, 0.01, logger=None)
    wait_until(lambda: "stays" in monitor.stats and len(monitor.history("stays")) >= 3)
    monitor.close()
    monitor.close()
    assert threads_of_monitors() == 0
    history = monitor.history("stays")
    assert history.kind == "queue" and 3 <= len(history) <= 5
    assert history.at == tuple(sorted(history.at)) and queue.empty()
    assert "stays" in monitor.report()


def test_a_program_ends_with_a_monitor_in_it() -> None:
    assert output_of("import weir; m = weir.Monitor(interval=0.001); print('end')") == "end\n"


def test_a_forked_child_has_no_monitor_of_its_parents() -> None:
    code = """
        import os, sys, weir
        q = weir.Queue(3, name="q")
        m = weir.Monitor(interval=0.001)
        for _ in range(8):
            pid = os.fork()
            if not pid:
                m.close()
                try:
                    m.look()
                except RuntimeError as error:
                    assert "belongs to the parent" in str(error)
                    mine = weir.Monitor(interval=0.001)
                    mine.look()
                    del m
                    sys.exit(3)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
        print("q" in m.stats)
    """
    assert output_of(code) == "True\n"


def test_any_number_of_threads_may_use_one_monitor() -> None:
    monitor = weir.Monitor(5, 0.001, logger=None)
    over = threading.Event()
    errors: list[BaseException] = []

    def use(call: Callable[[], object]) -> None:
        try:
            while not over.is_set():
                call()
        except BaseException as error:
            errors.append(error)

    def churn() -> None:
        queue: weir.Queue[int] = weir.Queue(3, name="churn", overflow="drop_oldest")
        queue.put_many(range(5))

    calls = (monitor.look, monitor.histories, monitor.report, lambda: monitor.stats, churn)
    threads = [threading.Thread(target=use, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    time.sleep(1)
    over.set()
    for thread in threads:
        thread.join()
    monitor.close()
    assert errors == []


# ---- what is asked for ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window": 2}, "'window' must be from 3 to 1000 looks, not 2"),
        ({"window": 1001}, "'window' must be from 3 to 1000"),
        ({"window": 2.0}, "'window' must be an int"),
        ({"interval": 0}, "'interval' must be above 0, not 0"),
        ({"interval": "1"}, "'interval' must be a number, not '1'"),
        ({"log_every": -1}, "'log_every' must be above 0"),
        (
            {"queue_share": 80},
            "'queue_share' must be above 0 and at most 1, or None for never, not",
        ),
        ({"queue_depth": -5}, "'queue_depth' must be above 0"),
        ({"service": float("nan")}, "'service' must be above 0"),
        ({"events": 0}, "'events' must be >= 1, or None for never"),
        ({"events": 2.5}, "'events' must be an int"),
        ({"throughput": 0}, "'throughput' must be above 0"),
        ({"drops": -1}, "'drops' must be >= 0"),
        ({"drops": True}, "'drops' must be an int"),
        ({"on_issue": 3}, "'on_issue' must be callable"),
        ({"logger": 5}, "'logger' must be a logging.Logger or None, not 5"),
        ({"logger": "weir"}, "'logger' must be a logging.Logger or None, not 'weir'"),
        ({"processes": "mine"}, "'processes' must be 'self'"),
    ],
)
def test_options_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        weir.Monitor(**options)


def test_limits_may_be_as_large_as_one_likes() -> None:
    huge = 1e300
    monitor = weir.Monitor(1000, huge, service=huge, events=1 << 62, queue_depth=huge, logger=None)
    monitor.look()
    monitor.close()
    assert monitor.stats.at > 0


def test_a_signal_handler_may_ask_for_a_report() -> None:
    code = """
        import signal, weir
        monitor = weir.Monitor(interval=None, logger=None)
        queue = weir.Queue(3, name="asked for")
        seen = []
        def handle(*_):
            monitor.look()
            seen.append(monitor.report())
            signal.setitimer(signal.ITIMER_REAL, 0.001)
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        while len(seen) < 30:
            monitor.look()
            monitor.histories()
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        print("asked for" in seen[-1])
    """
    assert output_of(code) == "True\n"


def test_where_pages_are_switched_off_it_says_so() -> None:
    done = run_python("import os; os.environ['WEIR_STATS_DIR'] = ''; import weir; weir.Monitor()")
    assert "RuntimeError" in done.stderr and "WEIR_STATS_DIR switches" in done.stderr


def test_a_history_of_what_there_is_not_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="no object is named 'nobody'"):
        weir.Monitor(3, None).history("nobody")


def test_rates_are_of_the_window() -> None:
    queue: weir.Queue[int] = weir.Queue(None, name="rated")
    monitor = monitor_of(window=100)
    once = monitor.stats["rated"]
    assert once.rates is None
    began = time.monotonic()
    for _ in range(20):
        queue.put_many(range(10))
        queue.get_many(5)
        time.sleep(0.01)
        monitor.look()
    seconds = time.monotonic() - began
    rates = monitor.stats["rated"].rates
    assert rates is not None
    assert rates.seconds == pytest.approx(seconds, rel=0.2)
    assert rates.accepted == pytest.approx(200 / seconds, rel=0.2)
    assert rates.delivered == pytest.approx(100 / seconds, rel=0.2)
    assert sum(monitor.history("rated").accepted) > 0
    assert monitor.history("rated").depth[-1] == 100


# ---- the plot ---------------------------------------------------------------------------------


def busy_monitor() -> tuple[weir.Monitor, weir.Queue[int]]:
    queue: weir.Queue[int] = weir.Queue(10, name="drawn", overflow="drop_oldest")
    monitor = monitor_of("queue_share", "drops")
    for number in range(20):
        queue.put_many(range(number))
        monitor.look()
    return monitor, queue


@pytest.mark.parametrize("name", ["plot", "plot.pdf", "plot.png.txt"])
def test_a_plot_is_a_png_or_an_svg(name: str, tmp_path: Path) -> None:
    monitor, _queue = busy_monitor()
    with pytest.raises(ValueError, match=r"'path' must end in \.png or \.svg"):
        monitor.plot(tmp_path / name)


def test_a_plot_draws_the_objects_with_issues_first_or_says_what_is_missing(tmp_path: Path) -> None:
    monitor, _queue = busy_monitor()
    svg, png = tmp_path / "plot.svg", tmp_path / "plot.PNG"
    if importlib.util.find_spec("matplotlib") is None:
        with pytest.raises(ImportError, match="pip install 'weir"):
            monitor.plot(svg)
        return
    monitor.plot(svg, objects=1)
    monitor.plot(str(png), objects=1)
    assert svg.read_text().startswith("<?xml") and "drawn" in svg.read_text()
    assert png.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="'objects' must be >= 1"):
        monitor.plot(png, objects=0)
    assert "matplotlib.pyplot" not in sys.modules


def test_a_plot_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        weir.Monitor(3, None).plot(tmp_path / "plot.svg")
