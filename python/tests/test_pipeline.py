"""weir.Pipeline: what each option does, how it ends, and what it tells."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import logging
import queue
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import InThread, output_of, run_python, wait_until

import weir
from weir import strategies


def plus_one(x: int) -> int:
    return x + 1


def obeys_the_laws(stats: weir.PipelineStats, stopped: bool = False) -> bool:
    """Of each stage, and between stages where nobody broadcasts."""
    for stage in stats.stages.values():
        assert stage.left >= 0, stage
        if stage.kind != "source":
            lost = sum(stage.dropped.values())
            assert stage.accepted == stage.processed + stage.failed + lost + stage.left, stage
        if stage.maxsize is not None:
            assert stage.peak_qsize <= stage.maxsize, stage
    assert stopped or stats.left == 0
    return True


def later(seconds: float, *calls: Callable[[], object]) -> InThread:
    """Makes some calls in a while."""

    def make() -> None:
        time.sleep(seconds)
        for call in calls:
            call()

    return InThread(make)


def slowly(seconds: float, into: list[Any]) -> Callable[[Any], Any]:
    """A stage function that takes its time."""

    def work(item: Any) -> Any:
        time.sleep(seconds)
        into.append(item)
        return item

    return work


class Endless:
    """A source that counts, and knows how far it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.asked += 1
        return self.asked


class Gate:
    """A stage function that waits until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()

    def __call__(self, item: Any) -> Any:
        self.entered.set()
        assert self.open.wait(30)
        return item


# ---- flowing ------------------------------------------------------------------------------------


def test_items_go_through_all_stages_in_order() -> None:
    out: list[int] = []
    pipeline = weir.Pipeline(range(1000), name="numbers")
    pipeline.stage(plus_one)
    pipeline.stage(lambda x: x * 2, name="double")
    pipeline.sink(out.append)
    report = pipeline.run()
    assert out == [2 * (x + 1) for x in range(1000)]
    assert report.outcome == "finished" and report.error is None and report.interrupted is None
    assert list(report.stages) == ["source", "plus_one", "double", "append"]
    assert report.accepted == 1000 and not report.dropped and obeys_the_laws(report)
    assert pipeline.report is report


@pytest.mark.parametrize("queue_size", [1, 7, 1000])
def test_the_source_is_asked_no_further_than_there_is_room(queue_size: int) -> None:
    source, gate = Endless(), Gate()
    pipeline = weir.Pipeline(source)
    pipeline.sink(gate, queue=queue_size)
    with pipeline:
        wait_until(lambda: pipeline.stats().stages["Gate"].waits)
        assert source.asked <= queue_size + 2  # queue, in the sink's hands, in the source's
        gate.open.set()
    assert obeys_the_laws(pipeline.stats())


def test_leaving_its_block_drains_it_and_an_exception_stops_it() -> None:
    out: list[int] = []

    def leave(error: type[Exception] | None) -> weir.PipelineReport:
        pipeline = weir.Pipeline(Endless())
        pipeline.sink(slowly(0.001, out), queue=50)
        with contextlib.suppress(ZeroDivisionError), pipeline:
            wait_until(lambda: pipeline.stats().left > 50)
            if error is not None:
                raise error
        assert pipeline.report is not None and obeys_the_laws(pipeline.report)
        return pipeline.report

    report = leave(None)
    assert report.outcome == "drained" and not report.dropped
    report = leave(ZeroDivisionError)
    assert report.outcome == "stopped" and report.dropped["discarded"] >= 50


def test_several_sources_flow_together() -> None:
    out: list[int] = []
    pipeline = weir.Pipeline()
    pipeline.source(range(100))
    pipeline.source(range(100, 200), name="others")
    pipeline.stage(plus_one)
    pipeline.sink(out.append)
    assert pipeline.run().accepted == 200
    assert sorted(out) == list(range(1, 201))


def test_sources_are_lines_of_paths_files_and_queues(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\r\ntwo\n\xff three")
    given: weir.Queue[str] = weir.Queue(10)
    given.put_many(["seven", "eight"])
    given.shutdown()
    out: list[object] = []
    pipeline = weir.Pipeline(path)
    pipeline.source(str(path), name="as text")
    pipeline.source(io.StringIO("four\nfive"))
    pipeline.source(io.BytesIO(b"six\n"))
    pipeline.source(given)
    pipeline.sink(out.append)
    pipeline.run()
    lines = ["one", "two", "\udcff three"]
    assert Counter(out) == Counter([*lines, *lines, "four", "five", b"six", "seven", "eight"])


def test_sinks_are_functions_queues_and_files() -> None:
    taken: weir.Queue[object] = weir.Queue(10)
    shared: weir.SharedQueue[object] = weir.SharedQueue(10)
    text, raw = io.StringIO(), io.BytesIO()
    pipeline = weir.Pipeline(["a", "b"])
    stage = pipeline.stage(str.upper)
    pipeline.sink(taken, after=stage)
    pipeline.sink(shared, after=stage)
    pipeline.sink(text, after="upper")
    encode = pipeline.stage(str.encode, after=[stage])
    pipeline.sink(raw, after=encode)
    pipeline.run()
    assert taken.get_many(10) == ["A", "B"] == shared.get_many(10)
    assert text.getvalue() == "A\nB\n" and raw.getvalue() == b"A\nB\n"


def test_a_source_that_is_a_queue_ends_when_the_pipeline_is_stopped_and_loses_nothing() -> None:
    given: weir.Queue[int] = weir.Queue(1000)
    out: list[int] = []
    given.put_many(range(500))
    pipeline = weir.Pipeline(given)
    pipeline.sink(out.append)
    with pipeline:
        wait_until(lambda: out)
    assert out == list(range(len(out)))
    assert len(out) + given.qsize() == 500


def test_flat_results_are_emitted_one_by_one_and_none_filters() -> None:
    out: list[str] = []
    pipeline = weir.Pipeline(["a b", "", "c"])
    pipeline.stage(str.split, flat=True)
    pipeline.sink(out.append)
    report = pipeline.run()
    assert out == ["a", "b", "c"] and report.stages["split"].processed == 3


def test_a_batch_is_what_is_there_or_what_comes_while_it_lingers() -> None:
    sizes: list[int] = []
    pipeline = weir.Pipeline(range(100))
    pipeline.stage(
        lambda items: [len(items)], name="count", batch=32, linger=5, queue=64, flat=True
    )
    pipeline.sink(sizes.append)
    report = pipeline.run()
    assert sizes == [32, 32, 32, 4] and report.stages["count"].processed == 100


def test_ordered_workers_emit_in_the_order_of_the_items() -> None:
    out: list[int] = []

    def jitter(x: int) -> int:
        time.sleep(0.002 * (x % 3))
        return x

    pipeline = weir.Pipeline(range(200))
    pipeline.stage(jitter, workers=4, ordered=True)
    pipeline.sink(out.append)
    pipeline.run()
    assert out == list(range(200))


def test_inline_stages_run_in_the_workers_of_the_stage_before() -> None:
    threads: list[set[int]] = [set(), set()]
    pipeline = weir.Pipeline(range(50))
    pipeline.stage(lambda x: threads[0].add(threading.get_ident()))
    pipeline.stage(lambda x: threads[1].add(threading.get_ident()), kind="inline")
    report = pipeline.run()
    assert threads[0] == threads[1] and len(threads[0]) == 1
    assert report.stages["stage-2"].processed == 50 and report.stages["stage-2"].maxsize is None


def test_items_of_one_key_are_processed_by_one_worker_in_order() -> None:
    seen: dict[int, list[tuple[int, int]]] = {}

    def note(x: int) -> None:
        seen.setdefault(x % 10, []).append((x, threading.get_ident()))

    pipeline = weir.Pipeline(range(1000))
    pipeline.sink(note, key=lambda x: x % 10, workers=3)
    report = pipeline.run()
    assert list(report.stages) == ["source", "note"], "its parts are told as one"
    assert report.stages["note"].processed == 1000 and report.stages["note"].workers_peak == 3
    for items in seen.values():
        assert [x for x, _ in items] == sorted(x for x, _ in items)
        assert len({thread for _, thread in items}) == 1
    assert len({items[0][1] for items in seen.values()}) > 1, "the keys are spread"


def test_a_keyed_stage_beside_others_gets_everything_in_order() -> None:
    seen: list[int] = []
    by_key: list[int] = []
    pipeline = weir.Pipeline(range(300))
    first = pipeline.stage(plus_one)
    pipeline.sink(by_key.append, after=first, key=lambda x: x, workers=4, name="by key")
    pipeline.sink(seen.append, after=first, name="all")
    report = pipeline.run()
    assert sorted(by_key) == seen == list(range(1, 301))
    assert report.stages["by key"].accepted == 300 and obeys_the_laws(report)


def test_results_are_broadcast_or_dealt_in_turn_or_by_a_function() -> None:
    def fan(how: Any) -> list[list[int]]:
        out: list[list[int]] = [[], [], []]
        pipeline = weir.Pipeline(range(30))
        stage = pipeline.stage(lambda x: x, name="first", fan_out=how)
        for number, into in enumerate(out):
            pipeline.sink(into.append, after=stage, name=f"out {number}")
        assert obeys_the_laws(pipeline.run())
        return out

    everything = list(range(30))
    assert fan("broadcast") == [everything] * 3
    assert fan("round_robin") == [everything[i::3] for i in range(3)]
    assert fan(lambda x: x // 10) == [everything[i : i + 10] for i in (0, 10, 20)]


def test_put_feeds_the_first_stage_and_draining_ends_it() -> None:
    out: list[int] = []
    pipeline = weir.Pipeline()
    pipeline.stage(plus_one)
    pipeline.sink(out.append)
    with pipeline:
        for x in range(100):
            pipeline.put(x)
    assert out == list(range(1, 101))
    assert pipeline.report is not None and pipeline.report.outcome == "drained"
    assert pipeline.report.accepted == 100
    with pytest.raises(weir.ShutDown):
        pipeline.put(1)


def test_put_waits_for_room_and_raises_full_after_its_timeout() -> None:
    gate = Gate()
    pipeline = weir.Pipeline()
    pipeline.sink(gate, queue=2)
    with pipeline:
        pipeline.put(0)
        assert gate.entered.wait(10)
        pipeline.put(1)
        pipeline.put(2)
        with pytest.raises(queue.Full):
            pipeline.put(3, timeout=0.01)
        with pytest.raises(queue.Full):
            pipeline.put(3, timeout=0)
        gate.open.set()
    assert pipeline.stats().stages["Gate"].processed == 3


def test_put_keeps_to_the_key_of_the_first_stage() -> None:
    seen: dict[int, list[int]] = {n: [] for n in range(5)}
    threads: dict[int, set[int]] = {n: set() for n in range(5)}

    def note(x: int) -> None:
        seen[x % 5].append(x)
        threads[x % 5].add(threading.get_ident())

    pipeline = weir.Pipeline()
    pipeline.sink(note, key=lambda x: x % 5, workers=3)
    with pipeline:
        for x in range(500):
            pipeline.put(x)
    assert all(items == sorted(items) and len(items) == 100 for items in seen.values())
    assert all(len(one) == 1 for one in threads.values())


def test_a_worker_that_would_wait_for_itself_is_refused() -> None:
    raised: list[BaseException] = []
    pipeline = weir.Pipeline()

    def again(x: int) -> int:
        if x < 100:
            pipeline.put(x + 100)  # for ever, if it waited: only we take from there
        return x

    pipeline.stage(again, queue=1, on_error=lambda item, error: raised.append(error))
    with pipeline:
        for x in range(10):
            pipeline.put(x)
    assert raised and "would wait for itself" in str(raised[0])
    assert obeys_the_laws(pipeline.stats())


def test_results_are_iterated_through_a_bounded_queue() -> None:
    source = Endless()
    pipeline = weir.Pipeline(source)
    pipeline.stage(plus_one, queue=4)
    results = pipeline.results()
    assert [next(results) for _ in range(5)] == [2, 3, 4, 5, 6]
    assert source.asked < 60, "nobody ran ahead"
    results.close()  # type: ignore[attr-defined]
    assert pipeline.report is not None and pipeline.report.outcome == "stopped"
    assert obeys_the_laws(pipeline.report)

    pipeline = weir.Pipeline(range(100))
    pipeline.stage(plus_one)
    assert list(pipeline.results()) == list(range(1, 101))
    assert pipeline.report is not None and pipeline.report.outcome == "finished"


def test_results_raise_what_stopped_the_pipeline_behind_those_that_came_before() -> None:
    pipeline = weir.Pipeline([4, 2, 0, 1])
    pipeline.stage(lambda x: 8 // x, name="divide")
    got: list[int] = []
    with pytest.raises(ZeroDivisionError):
        got.extend(pipeline.results())
    assert got in ([], [2], [2, 4]), "those that the stop has not dropped"


# ---- overflow -----------------------------------------------------------------------------------


def overloaded(**options: Any) -> tuple[weir.PipelineReport, list[int], list[tuple[int, str, str]]]:
    """100 items for a sink that takes its time; what it got and what was dropped."""
    out: list[int] = []
    dropped: list[tuple[int, str, str]] = []
    pipeline = weir.Pipeline(range(100), on_drop=lambda *args: dropped.append(args))
    pipeline.sink(slowly(0.002, out), name="slow", **{"queue": 4, **options})
    report = pipeline.run()
    assert obeys_the_laws(report)
    assert sorted([*out, *(item for item, _, _ in dropped)]) == list(range(100))
    assert {stage for _, stage, _ in dropped} <= {"slow"}
    counted = {reason: n for reason, n in report.stages["slow"].dropped.items() if n}
    assert counted == Counter(reason for _, _, reason in dropped) == Counter(report.dropped)
    return report, out, dropped


def test_each_overflow_policy_does_what_it_says_and_counts_it() -> None:
    report, out, dropped = overloaded()
    assert out == list(range(100)) and not dropped and report.stages["slow"].waits
    assert report.bottleneck_stage == "slow", report
    report, out, dropped = overloaded(overflow="drop_oldest")
    assert out[-1] == 99 and {reason for *_, reason in dropped} == {"oldest"}
    report, out, dropped = overloaded(overflow="drop_newest")
    assert out[0] == 0 and {reason for *_, reason in dropped} == {"newest"}
    report, out, dropped = overloaded(overflow="fail")
    assert out[0] == 0 and {reason for *_, reason in dropped} == {"refused"}
    report, out, dropped = overloaded(overflow="sample", queue=20)
    assert {reason for *_, reason in dropped} <= {"sampled", "newest"}
    report, out, dropped = overloaded(put_timeout=0.0001)
    assert {reason for *_, reason in dropped} == {"timeout"}
    report, out, dropped = overloaded(overflow=strategies.real_time)
    assert out[-1] == 99 and {reason for *_, reason in dropped} == {"oldest"}
    report, out, dropped = overloaded(queue=50, max_age=0.01)
    assert {reason for *_, reason in dropped} == {"expired"}


def test_a_queue_bounds_bytes_too() -> None:
    gate, source = Gate(), (b"x" * 100 for _ in range(50))
    pipeline = weir.Pipeline(source)
    pipeline.sink(gate, queue=1000, max_bytes=1000)
    with pipeline:
        assert gate.entered.wait(10)
        wait_until(lambda: pipeline.stats().left == 11)
        assert pipeline.stats().stages["Gate"].qsize == 10
        gate.open.set()
        assert pipeline.wait(10)
    assert pipeline.stats().stages["Gate"].processed == 50


def test_an_on_drop_that_raises_is_logged_once_and_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def complain(item: object, stage: str, reason: str) -> None:
        raise ValueError("no")

    pipeline = weir.Pipeline(range(100), on_drop=complain)
    pipeline.sink(lambda x: time.sleep(0.001), queue=1, overflow="drop_oldest")
    with caplog.at_level(logging.ERROR, "weir"):
        report = pipeline.run()
    assert report.dropped["oldest"] > 1 and len(caplog.records) == 1
    assert "on_drop" in caplog.text


# ---- limits -------------------------------------------------------------------------------------


def test_a_rate_a_limiter_and_a_breaker_hold_a_stage_back_and_are_named() -> None:
    def bottleneck(**options: Any) -> str:
        pipeline = weir.Pipeline(range(40))
        pipeline.sink(lambda x: time.sleep(0.001), workers=2, queue=2, name="s", **options)
        report = pipeline.run()
        assert report.stages["s"].processed == 40 and report.bottleneck_stage == "s", report
        return report.bottleneck_cause

    assert bottleneck(rate=weir.TokenBucket(200, burst=1)) == "rate"
    assert bottleneck() == "workers"
    limiter = weir.Limiter(1)
    permit = limiter.acquire()
    later(0.5, permit.release)
    assert bottleneck(limiter=limiter) == "limiter"
    breaker = weir.CircuitBreaker(name="b")
    breaker.isolate()
    later(0.5, breaker.reset)
    assert bottleneck(breaker=breaker) == "breaker"


def test_a_batch_takes_a_token_for_each_item() -> None:
    pipeline = weir.Pipeline(range(130))  # the burst is 100
    pipeline.sink(len, batch=10, linger=1, rate=100)
    began = time.monotonic()
    assert pipeline.run().stages["len"].processed == 130
    assert time.monotonic() - began >= 0.2


def test_a_breaker_sees_what_fails_and_the_stage_waits_while_it_is_open() -> None:
    breaker = weir.CircuitBreaker(min_calls=5, failure_ratio=0.5, open_time=0.2)
    calls: list[float] = []

    def fail(x: int) -> None:
        calls.append(time.monotonic())
        if len(calls) <= 5:
            raise OSError("down")

    pipeline = weir.Pipeline(range(10))
    pipeline.sink(fail, breaker=breaker, on_error="skip")
    report = pipeline.run()
    assert report.stages["fail"].failed == 5 and report.stages["fail"].processed == 5
    assert calls[5] - calls[4] >= 0.1, "it was left alone"


def test_memory_is_reserved_for_each_call() -> None:
    governor = weir.MemoryGovernor(10 << 30)
    seen: list[int] = []
    pipeline = weir.Pipeline(range(20))
    pipeline.sink(
        lambda x: seen.append(governor.stats().reserved),
        memory=governor,
        memory_per_item="1MiB",
        workers=2,
    )
    pipeline.run()
    assert min(seen) >= 1 << 20 and max(seen) <= 2 << 20
    assert governor.stats().reserved == 0


def test_an_auto_queue_finds_its_size() -> None:
    pipeline = weir.Pipeline(range(20000))
    pipeline.stage(plus_one, queue="auto")
    pipeline.sink(lambda x: None, name="s", queue="auto", workers=2)
    report = pipeline.run()
    assert report.stages["s"].processed == 20000
    assert report.stages["s"].maxsize is not None and 1 <= report.stages["s"].maxsize <= 4096


# ---- errors -------------------------------------------------------------------------------------


def fail_on_odd(x: int) -> int:
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x


def test_an_error_stops_the_pipeline_and_run_raises_it() -> None:
    pipeline = weir.Pipeline(Endless())
    pipeline.stage(fail_on_odd, name="check")
    pipeline.sink(lambda x: None)
    with pytest.raises(ValueError, match="1 is odd") as caught:
        pipeline.run()
    notes = getattr(caught.value, "__notes__", ["stage 'check', item 1"])
    assert "stage 'check', item 1" in notes[0]
    report = pipeline.report
    assert report is not None and report.outcome == "failed" and report.error is caught.value
    assert report.stages["check"].failed >= 1 and obeys_the_laws(report)
    assert "ValueError: 1 is odd" in str(report)


def test_skipped_errors_are_counted_and_a_callable_is_told() -> None:
    told: list[tuple[int, str]] = []
    for on_error in ("skip", lambda item, error: told.append((item, str(error)))):
        out: list[int] = []
        pipeline = weir.Pipeline(range(10))
        pipeline.stage(fail_on_odd, name="check", on_error=on_error)
        pipeline.sink(out.append)
        report = pipeline.run()
        assert out == [0, 2, 4, 6, 8]
        assert report.stages["check"].failed == 5 and obeys_the_laws(report)
    assert told == [(x, f"{x} is odd") for x in (1, 3, 5, 7, 9)]


def test_an_on_error_that_raises_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def complain(item: object, error: BaseException) -> None:
        raise RuntimeError("no")

    pipeline = weir.Pipeline(range(10))
    pipeline.stage(fail_on_odd, on_error=complain)
    with caplog.at_level(logging.ERROR, "weir"):
        assert pipeline.run().failed == 5
    assert len(caplog.records) == 1 and "on_error of stage 'fail_on_odd'" in caplog.text


def test_dead_letters_go_to_another_stage() -> None:
    out: list[int] = []
    letters: list[int] = []
    pipeline = weir.Pipeline(range(100))
    pipeline.stage(fail_on_odd, on_error="letters")
    pipeline.sink(out.append)
    pipeline.sink(letters.append, name="letters", after=[])
    report = pipeline.run()
    assert out == list(range(0, 100, 2)) and letters == list(range(1, 100, 2))
    assert report.stages["letters"].accepted == 50 and obeys_the_laws(report)


def test_a_call_is_made_again_as_often_as_retry_says() -> None:
    calls: Counter[int] = Counter()

    def flaky(x: int) -> int:
        calls[x] += 1
        if calls[x] < 3:
            raise OSError("again")
        return x

    out: list[int] = []
    pipeline = weir.Pipeline(range(5))
    pipeline.stage(flaky, retry=weir.Retry(3, backoff=(0.001, 0.002)))
    pipeline.sink(out.append)
    report = pipeline.run()
    assert out == [0, 1, 2, 3, 4] and set(calls.values()) == {3}
    assert report.stages["flaky"].retried == 10 and report.stages["flaky"].failed == 0

    calls.clear()
    pipeline = weir.Pipeline(range(5))
    pipeline.stage(
        flaky, retry=weir.Retry(9, on=ValueError, backoff=(0.001, 0.002)), on_error="skip"
    )
    report = pipeline.run()
    assert set(calls.values()) == {1} and report.failed == 5, "only what `on` names is tried again"


@pytest.mark.parametrize("on_error", ["skip", "stop"])
def test_system_exit_stops_the_pipeline_whatever_on_error_says(on_error: Any) -> None:
    def leave(x: int) -> None:
        raise SystemExit(3)

    pipeline = weir.Pipeline(Endless())
    pipeline.sink(leave, on_error=on_error)
    with pytest.raises(SystemExit):
        pipeline.run()


def test_a_source_that_raises_stops_the_pipeline() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("disk")

    pipeline = weir.Pipeline(source())
    pipeline.sink(lambda x: None)
    with pytest.raises(OSError, match="disk"):
        pipeline.run()
    assert pipeline.report is not None and obeys_the_laws(pipeline.report)


def test_a_key_function_or_sizer_that_raises_stops_the_pipeline() -> None:
    def bad(x: Any) -> int:
        raise KeyError("no")

    for options in ({"key": bad, "workers": 2}, {"sizer": bad, "max_bytes": 10}):
        pipeline = weir.Pipeline(Endless())
        pipeline.stage(plus_one)
        pipeline.sink(lambda x: None, **options)  # type: ignore[arg-type]
        with pytest.raises(KeyError):
            pipeline.run()
        assert pipeline.report is not None and obeys_the_laws(pipeline.report)


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"queue": -3}, "stage 'clean': queue must be > 0 or \"auto\", not -3"),
        ({"queue": True}, "queue must be > 0"),
        ({"workers": 0}, "workers must be > 0, or (min, max), not 0"),
        ({"workers": (3, 1)}, "min <= max"),
        ({"kind": "fiber"}, 'kind must be "thread", "inline", "process" or "async"'),
        ({"overflow": "panic"}, 'overflow must be one of "block"'),
        ({"put_timeout": 0}, "put_timeout must be seconds > 0"),
        ({"put_timeout": 1, "overflow": "fail"}, "never waits"),
        ({"rate": 0}, "rate must be a number per second > 0"),
        ({"limiter": 0}, "limiter must be > 0"),
        ({"retry": 0}, "retry must be > 0 attempts"),
        ({"retry": weir.Retry(3, deadline=3)}, "not its deadline"),
        ({"on_error": 3}, 'on_error must be "stop", "skip"'),
        ({"batch": 0}, "batch must be > 0"),
        ({"linger": 1}, "say batch=, too"),
        ({"kind": "inline", "queue": 3}, "an inline stage runs in the workers of the stage before"),
        ({"key": len, "workers": (1, 3)}, "fixed number of workers"),
        ({"key": len, "ordered": True}, "choose one"),
        ({"memory_per_item": 3}, "go together"),
        ({"fan_out": "everywhere"}, "fan_out must be"),
        ({"batch": 9, "rate": weir.TokenBucket(5)}, "more tokens than the burst of its bucket"),
    ],
)
def test_a_bad_option_is_refused_with_its_stage_and_what_it_must_be(
    options: dict[str, Any], text: str
) -> None:
    pipeline = weir.Pipeline([])
    with pytest.raises(ValueError, match="stage 'clean'") as caught:
        pipeline.stage(len, name="clean", **options)
    assert text in str(caught.value)


def test_an_unknown_option_is_refused_and_a_near_one_is_named() -> None:
    pipeline = weir.Pipeline([])
    with pytest.raises(TypeError, match="no option 'worker'; did you mean 'workers'"):
        pipeline.stage(len, worker=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="a stage needs a function"):
        pipeline.stage(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be callable, a queue or a file"):
        pipeline.sink(3)
    with pytest.raises(TypeError, match="must be an iterable"):
        pipeline.source(3)
    with pytest.raises(ValueError, match="already"):
        pipeline.stage(len, name="source")


def test_a_cycle_is_refused_with_its_stages_named() -> None:
    pipeline = weir.Pipeline(range(3))
    pipeline.stage(len, name="clean", after=["source", "enrich"])
    pipeline.stage(len, name="enrich")
    with pytest.raises(ValueError, match="clean -> enrich -> clean"):
        pipeline.run()
    pipeline = weir.Pipeline(range(3))
    pipeline.stage(len, name="self", on_error="self")
    with pytest.raises(ValueError, match="self -> self"):
        pipeline.start()


def test_stages_that_do_not_fit_together_are_refused_at_the_start() -> None:
    pipeline = weir.Pipeline(range(3))
    pipeline.stage(len, after="nowhere")
    with pytest.raises(ValueError, match="'nowhere', and there is no such stage"):
        pipeline.run()
    pipeline = weir.Pipeline(range(3))
    sink = pipeline.sink(len)
    pipeline.stage(len, name="behind", after=sink)
    with pytest.raises(ValueError, match="emits nothing"):
        pipeline.run()
    pipeline = weir.Pipeline()
    with pytest.raises(ValueError, match="there is no stage"):
        pipeline.run()
    pipeline = weir.Pipeline([1])
    pipeline.source([2])
    pipeline.stage(len, name="fast", kind="inline")
    with pytest.raises(ValueError, match="'fast' is inline"):
        pipeline.run()


def test_a_pipeline_runs_once() -> None:
    pipeline = weir.Pipeline([1])
    with pytest.raises(RuntimeError, match="has not been started"):
        pipeline.stats()
    pipeline.sink(len, on_error="skip")
    pipeline.run()
    with pytest.raises(RuntimeError, match="runs once"):
        pipeline.run()
    with pytest.raises(RuntimeError, match="have to be added before"):
        pipeline.stage(len)


# ---- ending -------------------------------------------------------------------------------------


def test_drain_lets_what_is_inside_go_its_way() -> None:
    source = Endless()
    out: list[int] = []
    pipeline = weir.Pipeline(source)
    pipeline.stage(plus_one)
    pipeline.sink(slowly(0.0005, out), name="s")
    pipeline.start()
    wait_until(lambda: len(out) > 20)
    report = pipeline.drain()
    assert report.outcome == "drained" and obeys_the_laws(report)
    assert out == list(range(2, len(out) + 2)) and len(out) == source.asked


def test_drain_drops_what_is_left_after_its_deadline() -> None:
    gate = Gate()
    pipeline = weir.Pipeline(Endless())
    pipeline.sink(gate, queue=10)
    pipeline.start()
    wait_until(lambda: pipeline.stats().stages["Gate"].qsize == 10)
    opener = later(0.3, gate.open.set)
    report = pipeline.drain(deadline=0.05)
    opener.result()
    assert report.outcome == "stopped" and report.dropped["discarded"] >= 10
    assert obeys_the_laws(report)


def test_stop_drops_what_waits_and_lets_calls_finish() -> None:
    gate = Gate()
    dropped: list[int] = []
    pipeline = weir.Pipeline(Endless(), on_drop=lambda item, stage, reason: dropped.append(item))
    pipeline.sink(gate, queue=5)
    pipeline.start()
    assert gate.entered.wait(10)
    wait_until(lambda: pipeline.stats().left == 6)
    stopping = InThread(pipeline.stop)
    wait_until(lambda: len(dropped) >= 5)
    assert not stopping.is_done
    gate.open.set()
    report = stopping.result()
    assert report.outcome == "stopped" and report.stages["Gate"].processed == 1
    assert len(dropped) == report.dropped["discarded"] and obeys_the_laws(report)


def test_stop_does_not_wait_for_room_in_a_queue_that_nobody_empties() -> None:
    taken: weir.Queue[int] = weir.Queue(3)
    pipeline = weir.Pipeline(Endless())
    pipeline.sink(taken, queue=4)
    pipeline.start()
    wait_until(lambda: taken.full() and pipeline.stats().left == 5)
    report = InThread(pipeline.stop).result(20)
    assert report.outcome == "stopped" and report.error is None, "nobody's fault"
    assert report.stages["Queue"].failed == 1 and obeys_the_laws(report)


def test_a_source_that_is_a_generator_is_closed_when_the_pipeline_has_ended() -> None:
    closed: list[bool] = []

    def source() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    pipeline = weir.Pipeline(source())
    pipeline.sink(slowly(0.001, []))
    pipeline.start()
    pipeline.drain()
    wait_until(lambda: closed)


def test_wait_tells_whether_it_has_ended() -> None:
    gate = Gate()
    pipeline = weir.Pipeline([1])
    pipeline.sink(gate)
    pipeline.start()
    assert not pipeline.wait(0.01)
    gate.open.set()
    assert pipeline.wait(10) and pipeline.drain().outcome == "finished"


def test_a_stage_may_use_its_pipeline_while_it_is_being_started() -> None:
    for _ in range(50):
        log: list[int] = []
        pipeline = weir.Pipeline(range(3))

        def use(x: int, pipeline: weir.Pipeline = pipeline) -> int:
            pipeline.stats()
            pipeline.put(x, stage="log")
            return x

        pipeline.stage(use)
        pipeline.sink(abs)
        pipeline.sink(log.append, name="log", after=[])
        pipeline.start()
        while len(log) < 3:
            assert not pipeline.wait(0.001)
        assert pipeline.drain().outcome == "drained"


def test_a_coroutine_function_is_refused_where_nobody_would_await_it() -> None:
    async def store(x: int) -> None: ...

    with pytest.raises(TypeError, match=r"sink 'store' is a coroutine function.*kind=.async."):
        weir.Pipeline([1]).sink(store)
    pipeline = weir.Pipeline([1])
    pipeline.sink(abs, kind="async")
    with pytest.raises(TypeError, match=r"sink 'abs': kind=.async. needs a coroutine function"):
        pipeline.run()


def test_a_call_that_is_cancelled_from_within_has_failed() -> None:
    async def cancelled(x: int) -> int:
        if x == 2:
            raise asyncio.CancelledError
        return x

    out: list[int] = []
    pipeline = weir.Pipeline(range(5))
    pipeline.stage(cancelled, kind="async", on_error="skip")
    pipeline.sink(out.append)
    report = pipeline.run()
    assert sorted(out) == [0, 1, 3, 4] and report.stages["cancelled"].failed == 1
    pipeline = weir.Pipeline(range(5))
    pipeline.sink(cancelled, kind="async")
    with pytest.raises(RuntimeError, match="cancelled from within"):
        pipeline.run()


def test_a_put_that_would_wait_for_itself_names_the_cycle() -> None:
    for kind in ("thread", "async"):
        pipeline = weir.Pipeline()

        async def again(x: int, pipeline: weir.Pipeline = pipeline) -> None:
            for _ in range(9):
                await pipeline.aput(x, stage="first")

        def once_more(x: int, pipeline: weir.Pipeline = pipeline) -> None:
            for _ in range(9):
                pipeline.put(x, stage="first")

        pipeline.stage(lambda x: x, name="first", queue=2)
        pipeline.sink(
            again if kind == "async" else once_more,
            name="last-one",
            queue=2,
            kind="async" if kind == "async" else "thread",
        )
        pipeline.start()
        pipeline.put(1)
        assert pipeline.wait(30)
        assert pipeline.report is not None
        assert str(pipeline.report.error).startswith("first -> last-one -> first: this ")


def test_a_queue_that_is_source_and_sink_is_refused() -> None:
    queue = weir.Queue[int](2)
    for sink in (queue, queue.put):
        pipeline = weir.Pipeline(queue)
        pipeline.stage(abs, name="a")
        pipeline.sink(sink, name="b")
        with pytest.raises(ValueError, match="source -> a -> b -> source; one queue"):
            pipeline.run()


def test_a_source_that_leads_nowhere_is_refused() -> None:
    pipeline = weir.Pipeline([1, 2])
    with pytest.raises(ValueError, match="the source 'source' leads nowhere"):
        pipeline.run()


def test_who_has_waited_finds_the_report() -> None:
    pipeline = weir.Pipeline([0])
    pipeline.sink(lambda x: 1 / x, name="invert")
    pipeline.start()
    assert pipeline.wait(30) and pipeline.report is not None
    assert isinstance(pipeline.report.error, ZeroDivisionError)


def test_a_rate_is_kept_from_the_beginning() -> None:
    pipeline = weir.Pipeline(range(30))
    pipeline.sink(abs, rate=200)
    began = time.monotonic()
    pipeline.run()
    assert time.monotonic() - began > 0.1


def test_a_text_file_is_flushed_at_the_end(tmp_path: Path) -> None:
    with open(tmp_path / "lines", "w") as file:
        pipeline = weir.Pipeline(range(3))
        pipeline.sink(file)
        pipeline.run()
        assert (tmp_path / "lines").read_text() == "0\n1\n2\n"


INTERRUPTED = """
    import itertools, os, signal, threading, time, weir
    done, started = [], threading.Event()
    def slow(x):
        started.set()
        time.sleep({sleep})
        done.append(x)
    pipeline = weir.Pipeline(itertools.count())
    pipeline.sink(slow, queue=8)
    def kill():
        started.wait()
        for _ in range({signals}):
            time.sleep(0.2)
            os.kill(os.getpid(), {signal})
    threading.Thread(target=kill).start()
    before = signal.getsignal(signal.SIGINT)
    report = pipeline.run()
    assert signal.getsignal(signal.SIGINT) is before
    sink = report.stages["slow"]
    assert sink.accepted == sink.processed + sink.dropped["discarded"] and report.left == 0
    assert sink.processed == len(done)
    print(report.outcome, report.interrupted, report.dropped.get("discarded", 0) > 0)
"""


@pytest.mark.parametrize(
    ("signals", "signal", "sleep", "said"),
    [
        (1, "signal.SIGINT", 0.01, "drained 2 False"),
        (1, "signal.SIGTERM", 0.01, "drained 15 False"),
        (2, "signal.SIGINT", 0.3, "stopped 2 True"),
    ],
)
def test_the_first_signal_drains_and_the_second_stops(
    signals: int, signal: str, sleep: float, said: str
) -> None:
    code = INTERRUPTED.format(signals=signals, signal=signal, sleep=sleep)
    assert output_of(code).strip() == said


def test_a_drain_that_takes_too_long_after_a_signal_is_stopped() -> None:
    code = INTERRUPTED.format(signals=1, signal="signal.SIGINT", sleep=0.5).replace(
        "itertools.count())", "itertools.count(), drain_deadline=0.2)"
    )
    assert output_of(code).strip() == "stopped 2 True"


INTERRUPTED_IN_A_LOOP = """
    import asyncio, itertools, os, signal, threading, time, weir
    done = []
    async def endless():
        for n in itertools.count():
            yield n
    async def hand_on(x):
        return x
    def slow(x):
        time.sleep({sleep})
        done.append(x)
    def pipeline():
        p = weir.Pipeline(endless(), drain_deadline={deadline})
        p.stage(hand_on, kind="async", workers=3, queue=3)
        p.sink(slow, queue=8)
        return p
    def kill():
        while not done: time.sleep(0.01)
        for _ in range({signals}):
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGINT)
    async def main():
        before = signal.getsignal(signal.SIGINT)
        threading.Thread(target=kill).start()
        reports = await asyncio.gather(pipeline().arun(), pipeline().arun())
        assert signal.getsignal(signal.SIGINT) is before
        return reports
    for report in asyncio.run(main()):
        print(report.outcome, report.interrupted, report.left)
"""


@pytest.mark.parametrize(
    ("signals", "sleep", "deadline", "said"),
    [
        (1, 0.01, 30, "drained 2 0"),
        (2, 0.3, 30, "stopped 2 0"),
        (1, 0.3, 0.2, "stopped 2 0"),
    ],
)
def test_signals_end_the_pipelines_of_a_loop_as_well(
    signals: int, sleep: float, deadline: float, said: str
) -> None:
    code = INTERRUPTED_IN_A_LOOP.format(signals=signals, sleep=sleep, deadline=deadline)
    assert output_of(code).splitlines() == [said, said]


def test_a_program_that_ends_drains_its_pipeline_and_is_not_held_up_by_a_source_that_hangs() -> (
    None
):
    done = run_python(
        """
        import sys, time, weir
        def source():
            yield from range(50)
            time.sleep(3600)
        pipeline = weir.Pipeline(source(), drain_deadline=5)
        pipeline.sink(lambda x: (time.sleep(0.001), print(x, flush=True)), name="s")
        pipeline.start()
        while pipeline.stats().stages["source"].emitted < 50:
            time.sleep(0.01)
        """,
        timeout=30,
    )
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.split() == [str(x) for x in range(50)]


def test_a_forked_child_cannot_use_it_and_ends_well() -> None:
    said = output_of(
        """
        import itertools, os, sys, weir
        pipeline = weir.Pipeline(itertools.count())
        pipeline.sink(lambda x: None)
        pipeline.start()
        pid = os.fork()
        if pid == 0:
            try:
                pipeline.stats()
            except RuntimeError as error:
                print("child:", "belongs to the parent process" in str(error), flush=True)
            del pipeline
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print(pipeline.stop().outcome)
        """
    )
    assert said.split("\n")[:2] == ["child: True", "stopped"]


def test_a_pipeline_that_nobody_holds_stops_its_sources_and_is_collected() -> None:
    source = Endless()
    out: list[int] = []
    pipeline = weir.Pipeline(source)
    pipeline.sink(out.append)
    pipeline.start()
    run = weakref.ref(pipeline._run)
    wait_until(lambda: out)
    del pipeline

    def is_gone() -> bool:
        gc.collect()
        return run() is None

    wait_until(is_gone)
    assert out == list(range(1, source.asked + 1)), "what was inside has gone its way"


def test_a_pipeline_that_its_own_functions_refer_to_is_collected() -> None:
    class Owner:
        pipeline: weir.Pipeline

        def work(self, x: int) -> int:
            return x

    owner = Owner()
    owner.pipeline = weir.Pipeline([1])
    owner.pipeline.stage(owner.work)
    gone = weakref.ref(owner)
    owner.pipeline.run()
    del owner

    def is_gone() -> bool:
        gc.collect()
        return gone() is None

    wait_until(is_gone)  # as soon as its threads have left


def test_no_reference_is_lost_or_kept() -> None:
    class Item:
        alive = 0

        def __init__(self) -> None:
            Item.alive += 1

        def __del__(self) -> None:
            Item.alive -= 1

    def pick(item: Item) -> Item:
        if Item.alive % 7 == 0:
            raise ValueError
        return item

    pipeline = weir.Pipeline(Item() for _ in range(500))
    first = pipeline.stage(lambda x: x, workers=2)
    pipeline.stage(
        pick, on_error="skip", after=first, retry=weir.Retry(2, backoff=(0.0001, 0.0002))
    )
    pipeline.stage(lambda items: items, batch=5, flat=True, queue=2, overflow="drop_oldest")
    pipeline.sink(lambda x: None, key=id, workers=2, name="sink")
    pipeline.sink(lambda x: None, after=first, overflow="drop_newest", queue=1, name="other")
    obeys_the_laws(pipeline.run())
    del pipeline, first
    gc.collect()
    wait_until(lambda: Item.alive == 0)


# ---- looking ------------------------------------------------------------------------------------


def test_a_report_is_a_table_with_a_line_for_each_stage_and_the_bottleneck() -> None:
    pipeline = weir.Pipeline(range(50), name="demo")
    pipeline.stage(plus_one, queue=5)
    pipeline.sink(lambda x: time.sleep(0.002), name="store", queue=5, overflow="block")
    lines = str(pipeline.run()).splitlines()
    assert lines[0].startswith("pipeline 'demo' finished after")
    assert lines[1].split() == [
        "stage",
        "in",
        "out",
        "failed",
        "dropped",
        "left",
        "workers",
        "queue",
        "busy",
        "blocked",
        "waits",
    ]
    assert [line.split()[0] for line in lines[2:5]] == ["source", "plus_one", "store"]
    assert lines[5].startswith("stage 'store' is the bottleneck")
    assert "1 worker" in lines[5]


def test_stats_can_be_taken_while_it_runs() -> None:
    gate = Gate()
    pipeline = weir.Pipeline(Endless())
    pipeline.sink(gate, queue=10)
    pipeline.start()
    assert gate.entered.wait(10)
    wait_until(lambda: pipeline.stats().left == 11)
    stats = pipeline.stats()
    assert stats.stages["Gate"].utilisation == 1.0 and stats.stages["Gate"].in_hand == 1
    assert stats.elapsed > 0 and stats.left == 11
    later(0.05, gate.open.set)
    pipeline.stop()
    assert repr(pipeline) == f"<weir.Pipeline {pipeline.name!r}: source -> Gate; stopped>"


def test_functions_in_c_do_not_keep_the_interpreter_to_themselves() -> None:
    pipeline = weir.Pipeline(iter(int, 1))  # an endless source that is all C
    pipeline.stage(abs, kind="inline")
    pipeline.sink(len, batch=1 << 16, linger=1e6, queue=1000, overflow="drop_newest")
    pipeline.start()
    began = time.monotonic()
    time.sleep(0.05)
    assert time.monotonic() - began < 10
    pipeline.stop()


# ---- spilling -----------------------------------------------------------------------------------


def test_a_stage_spills_to_disk_what_finds_no_room_and_gets_all_in_order(tmp_path: Path) -> None:
    out: list[int] = []
    pipeline = weir.Pipeline(range(500))
    disk = weir.Spill(tmp_path / "spill", max_bytes=1 << 20)
    gate = Gate()

    def work(x: int) -> None:
        gate(x)
        out.append(x)

    pipeline.sink(work, name="s", queue=5, overflow="spill", spill=disk)
    pipeline.start()
    wait_until(lambda: pipeline.stats().stages["source"].ended)
    stage = pipeline.stats().stages["s"]
    assert stage.spilled >= 490 and stage.left == 500 and stage.waits == 0, "nobody waited"
    gate.open.set()
    report = pipeline.drain()
    assert out == list(range(500)) and report.left == 0 and not report.dropped


def test_a_durable_stage_goes_on_after_a_kill_with_what_was_not_done(tmp_path: Path) -> None:
    program = f"""
        import os, weir
        def work(x):
            if x == 50:
                os._exit(9)
            print(x, flush=True)
        pipeline = weir.Pipeline(range(FIRST, LAST))
        disk = weir.Spill({str(tmp_path / "spill")!r}, max_bytes=1 << 20, durable=True)
        pipeline.stage(work, queue=200, overflow="spill", spill=disk)
        pipeline.run()
        """
    first = run_python(program.replace("FIRST", "0").replace("LAST", "100"))
    assert first.returncode == 9, first.stderr
    again = run_python(program.replace("FIRST", "0").replace("LAST", "0").replace("50", "-1"))
    assert again.returncode == 0, again.stderr
    seen = [int(x) for x in (first.stdout + again.stdout).split()]
    accepted = max(seen) + 1
    assert set(seen) == set(range(accepted)) and accepted > 50, "each at least once"


def test_a_durable_pipeline_that_is_killed_again_and_again_loses_nothing(tmp_path: Path) -> None:
    program = f"""
        import os, sys, time, weir
        def sink(x):
            os.write(out, b"%d\\n" % x)
        out = os.open({str(tmp_path / "out")!r}, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        pipeline = weir.Pipeline(durable={str(tmp_path / "disk")!r}, durable_bytes=1 << 22)
        pipeline.stage(abs, name="one")
        pipeline.stage(int, name="two/", kind="process")
        pipeline.sink(sink, name="three")
        with pipeline:
            for x in map(int, sys.argv[1:]):
                for n in range(x, x + 10000):
                    pipeline.put(n)
                    print(n, flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    accepted: set[int] = set()
    for number in range(5):
        more = [*command, str(10000 * number)]
        killed = subprocess.Popen(more, stdout=subprocess.PIPE, text=True)
        assert killed.stdout is not None
        accepted.update(int(killed.stdout.readline()) for _ in range(20 + 30 * number))
        killed.kill()
        accepted.update(int(line) for line in killed.stdout if line.endswith("\n"))
        killed.wait()
        killed.stdout.close()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    delivered = [int(line) for line in (tmp_path / "out").read_text().split()]
    assert len(accepted) >= 400 and accepted <= set(delivered)


def test_spill_without_a_place_and_a_durable_one_without_threads_are_refused(
    tmp_path: Path,
) -> None:
    disk = weir.Spill(tmp_path / "spill", max_bytes=1 << 20, durable=True)
    with pytest.raises(ValueError, match="a durable spill= goes with kind"):
        weir.Pipeline([]).sink(len, kind="async", overflow="spill", spill=disk)
    with pytest.raises(ValueError, match="needs spill=, a"):
        weir.Pipeline([]).sink(len, overflow="spill")
