"""Stages of a pipeline in processes and in event loops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from conftest import InThread, output_of, wait_until
from test_pipeline import Endless, obeys_the_laws, slowly

import weir

InLoop = Callable[[Coroutine[Any, Any, Any]], Any]


# ---- in processes: functions that can be pickled ------------------------------------------------


def double(x: int) -> int:
    return 2 * x


def fail_on_odd(x: int) -> int:
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x


def die_on_seven(x: int) -> int:
    if x == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def sleep_long(x: int) -> int:
    time.sleep(60)
    return x


def pid_of(x: int) -> int:
    time.sleep(0.005)
    return os.getpid()


def spread(x: int) -> list[int]:
    return [x] * (x % 3)


def fail_once(name: str) -> str:
    if not os.path.exists(name):
        with open(name, "w"):
            raise OSError("not yet")
    return name


def test_processes_work_on_items_and_results_come_in_order_if_asked() -> None:
    out: list[int] = []
    pipeline = weir.Pipeline(range(3000))
    pipeline.stage(double, kind="process", workers=2, ordered=True, queue=100)
    pipeline.sink(out.append)
    report = pipeline.run()
    assert out == [2 * x for x in range(3000)] and obeys_the_laws(report)
    assert report.stages["double"].kind == "process" and report.stages["double"].busy > 0


def test_a_process_stage_works_in_all_of_its_processes_and_in_none_of_ours() -> None:
    out: list[int] = []
    pipeline = weir.Pipeline(range(100))
    pipeline.stage(pid_of, kind="process", workers=2)
    pipeline.sink(out.append)
    assert obeys_the_laws(pipeline.run())
    assert len(out) == 100 and len(set(out)) == 2 and os.getpid() not in out


def test_an_item_that_fails_in_a_process_is_one_failure() -> None:
    told: list[tuple[int, BaseException]] = []
    out: list[int] = []
    pipeline = weir.Pipeline(range(1000))
    pipeline.stage(
        fail_on_odd,
        kind="process",
        workers=2,
        queue=64,
        on_error=lambda item, error: told.append((item, error)),
    )
    pipeline.sink(out.append)
    report = pipeline.run()
    assert sorted(out) == list(range(0, 1000, 2)) and obeys_the_laws(report)
    assert sorted(item for item, _ in told) == list(range(1, 1000, 2))
    assert all(isinstance(error, ValueError) for _, error in told)


def test_a_process_that_dies_costs_the_item_that_it_worked_on() -> None:
    told: list[tuple[int, BaseException]] = []
    out: list[int] = []
    pipeline = weir.Pipeline(range(200))
    pipeline.stage(
        die_on_seven,
        kind="process",
        workers=2,
        queue=64,
        on_error=lambda item, error: told.append((item, error)),
    )
    pipeline.sink(out.append)
    report = pipeline.run()
    assert sorted(out) == [x for x in range(200) if x != 7] and obeys_the_laws(report)
    assert [item for item, _ in told] == [7] and isinstance(told[0][1], weir.WorkerDied)


def test_an_error_in_a_process_stops_the_pipeline_and_what_runs_there() -> None:
    pipeline = weir.Pipeline(Endless())
    pipeline.stage(fail_on_odd, kind="process")
    pipeline.stage(sleep_long, kind="process")
    pipeline.sink(print)
    with pytest.raises(ValueError, match="is odd"):
        InThread(pipeline.run).result(30)
    assert pipeline.report is not None and obeys_the_laws(pipeline.report)


def test_stop_does_not_wait_for_calls_in_processes() -> None:
    dropped: list[int] = []
    pipeline = weir.Pipeline(Endless(), on_drop=lambda item, stage, reason: dropped.append(item))
    pipeline.sink(sleep_long, kind="process", workers=2, queue=4)
    pipeline.start()
    wait_until(lambda: pipeline.stats().stages["sleep_long"].waits)
    report = InThread(pipeline.stop).result(30)
    assert report.dropped["discarded"] == len(dropped) and obeys_the_laws(report)


def test_batches_flat_results_and_retries_work_in_processes(tmp_path: Any) -> None:
    out: list[int] = []
    pipeline = weir.Pipeline(range(30))
    pipeline.stage(spread, kind="process", flat=True)
    pipeline.stage(sum, kind="process", batch=10, linger=5, queue=64)
    pipeline.sink(out.append)
    assert obeys_the_laws(pipeline.run())
    assert len(out) == 3 and sum(out) == sum(x * (x % 3) for x in range(30))

    names = [str(tmp_path / str(n)) for n in range(5)]
    found: list[str] = []
    pipeline = weir.Pipeline(names)
    pipeline.stage(fail_once, kind="process", retry=weir.Retry(2, backoff=(0.001, 0.001)))
    pipeline.sink(found.append)
    pipeline.run()
    assert sorted(found) == names


def test_limits_hold_process_stages_back() -> None:
    limiter = weir.Limiter(1)
    pipeline = weir.Pipeline(range(20))
    pipeline.stage(
        double,
        kind="process",
        workers=2,
        rate=weir.TokenBucket(100, burst=1),
        limiter=limiter,
        breaker=weir.CircuitBreaker(),
    )
    began = time.monotonic()
    report = pipeline.run()
    assert time.monotonic() - began >= 0.15 and limiter.stats().in_flight == 0
    assert report.stages["double"].held["rate"] > 0 and obeys_the_laws(report)


def sleep_briefly(x: int) -> int:
    time.sleep(0.02)
    return x


async def asleep_briefly(x: int) -> int:
    await asyncio.sleep(0.02)
    return x


def test_workers_of_every_kind_come_and_go_between_their_bounds() -> None:
    kinds: dict[str, Any] = {
        "thread": sleep_briefly,
        "process": sleep_briefly,
        "async": asleep_briefly,
    }
    pipelines = {kind: weir.Pipeline() for kind in kinds}
    with contextlib.ExitStack() as stack:
        for kind, pipeline in pipelines.items():
            work, name = kinds[kind], "s"
            pipeline.sink(work, name=name, kind=kind, workers=(1, 4), queue=64)  # type: ignore[arg-type]
            stack.enter_context(pipeline)
        for x in range(200):
            for pipeline in pipelines.values():
                pipeline.put(x)
        for pipeline in pipelines.values():
            wait_until(lambda p=pipeline: p.stats().stages["s"].workers == 1, 40)  # type: ignore[misc]
    for pipeline in pipelines.values():
        stage = pipeline.stats().stages["s"]
        assert stage.processed == 200 and 3 <= stage.workers_peak <= 4
        assert obeys_the_laws(pipeline.stats())


@pytest.mark.parametrize("kind", ["process", "async", "thread"])
def test_two_stages_with_one_limiter_do_not_wait_for_each_other(kind: Any) -> None:
    limiter = weir.Limiter(1)
    work: Any = adouble if kind == "async" else double
    pipeline = weir.Pipeline(range(50))
    pipeline.stage(work, name="first", kind=kind, workers=2, limiter=limiter, queue=1)
    pipeline.stage(work, name="second", kind=kind, workers=2, limiter=limiter, queue=1)
    report = InThread(pipeline.run).result(60)
    assert report.stages["second"].processed == 50 and limiter.stats().in_flight == 0


# ---- in event loops -----------------------------------------------------------------------------


async def adouble(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


async def afail_on_odd(x: int) -> int:
    await asyncio.sleep(0)
    return fail_on_odd(x)


async def asleep_long(x: int) -> int:
    await asyncio.sleep(60)
    return x


async def count_to(n: int) -> AsyncIterator[int]:
    for x in range(n):
        await asyncio.sleep(0)
        yield x


def test_coroutines_run_in_a_loop_of_their_own_under_run() -> None:
    threads: set[int] = set()

    async def note(x: int) -> int:
        threads.add(threading.get_ident())
        await asyncio.sleep(0.001 * (x % 3))
        return x

    out: list[int] = []
    pipeline = weir.Pipeline(range(300))
    pipeline.stage(note, kind="async", workers=20, ordered=True)
    pipeline.stage(adouble, kind="async", workers=3)
    pipeline.sink(out.append)
    report = pipeline.run()
    assert sorted(out) == [2 * x for x in range(300)] and obeys_the_laws(report)
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_ordered_coroutines_emit_in_order() -> None:
    async def jitter(x: int) -> int:
        await asyncio.sleep(0.002 * (x % 5))
        return x

    out: list[int] = []
    pipeline = weir.Pipeline(range(200))
    pipeline.stage(jitter, kind="async", workers=10, ordered=True)
    pipeline.sink(out.append)
    pipeline.run()
    assert out == list(range(200))


def test_arun_runs_coroutines_in_its_loop_and_does_not_hold_it_up(in_loop: InLoop) -> None:
    out: list[int] = []
    threads: set[int] = set()

    async def note(x: int) -> int:
        threads.add(threading.get_ident())
        await asyncio.sleep(0)
        return x

    async def main() -> weir.PipelineReport:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        pipeline = weir.Pipeline(count_to(200))
        pipeline.stage(note, kind="async", workers=4)
        pipeline.stage(slowly(0.001, []), name="thread")
        pipeline.sink(out.append)
        report = await pipeline.arun()
        assert ticks > 10
        ticking.cancel()
        await asyncio.wait([ticking])
        return report

    report = in_loop(main())
    assert sorted(out) == list(range(200)) and threads == {threading.get_ident()}
    assert report.outcome == "finished" and obeys_the_laws(report) and report.accepted == 200


def test_an_error_in_a_coroutine_stops_the_pipeline(in_loop: InLoop) -> None:
    async def main() -> None:
        pipeline = weir.Pipeline(Endless())
        pipeline.stage(afail_on_odd, kind="async", workers=2)
        pipeline.stage(asleep_long, kind="async", workers=2)
        with pytest.raises(ValueError, match="is odd"):
            await pipeline.arun()
        assert pipeline.report is not None and obeys_the_laws(pipeline.report)

    in_loop(main())


def test_errors_in_coroutines_are_skipped_told_or_go_to_dead_letters() -> None:
    told: list[int] = []
    for on_error in ("skip", lambda item, error: told.append(item), "letters"):
        out: list[int] = []
        letters: list[int] = []
        pipeline = weir.Pipeline(range(50))
        if on_error != "letters":
            pipeline.stage(afail_on_odd, kind="async", on_error=on_error, workers=3)
        else:
            pipeline.stage(afail_on_odd, kind="async", on_error="letters")
        pipeline.sink(out.append)
        if on_error == "letters":
            pipeline.sink(letters.append, name="letters", after=[], queue=1)
        report = pipeline.run()
        assert sorted(out) == list(range(0, 50, 2)) and report.failed == 25
        assert letters in ([], list(range(1, 50, 2))) and obeys_the_laws(report)
    assert sorted(told) == letters == list(range(1, 50, 2))


def test_cancelling_arun_stops_at_once_and_tells_what_was_dropped(in_loop: InLoop) -> None:
    dropped: list[int] = []

    async def main() -> weir.Pipeline:
        pipeline = weir.Pipeline(Endless(), on_drop=lambda item, stage, why: dropped.append(item))
        pipeline.stage(asleep_long, kind="async", workers=3, queue=4)
        running = asyncio.ensure_future(pipeline.arun())
        await asyncio.to_thread(wait_until, lambda: pipeline._run and pipeline.stats().left >= 7)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return pipeline

    report = in_loop(main()).report
    assert report.outcome == "stopped" and obeys_the_laws(report)
    assert report.dropped["discarded"] == len(dropped) >= 7


def test_async_with_and_aput_feed_and_drain(in_loop: InLoop) -> None:
    out: list[int] = []

    async def main() -> None:
        pipeline = weir.Pipeline()
        pipeline.stage(adouble, kind="async", queue=2)
        pipeline.sink(out.append, queue=1)
        async with pipeline:
            for x in range(100):
                await pipeline.aput(x)
        assert pipeline.report is not None and pipeline.report.accepted == 100
        assert obeys_the_laws(pipeline.report)
        with pytest.raises(weir.ShutDown):
            await pipeline.aput(1)

    in_loop(main())
    assert out == [2 * x for x in range(100)]


def test_async_with_is_stopped_by_an_exception_in_its_block(in_loop: InLoop) -> None:
    async def main() -> None:
        pipeline = weir.Pipeline(Endless())
        pipeline.sink(asleep_long, kind="async")
        with contextlib.suppress(ZeroDivisionError):
            async with pipeline:
                await asyncio.sleep(0.01)
                raise ZeroDivisionError
        assert pipeline.report is not None and pipeline.report.outcome == "stopped"
        assert obeys_the_laws(pipeline.report)

    in_loop(main())


def test_adrain_and_astop_end_it_and_what_would_hold_up_its_loop_is_refused(
    in_loop: InLoop,
) -> None:
    async def main() -> None:
        for graceful in (True, False):
            pipeline = weir.Pipeline(Endless())
            pipeline.stage(adouble, kind="async", workers=2)
            running = asyncio.ensure_future(pipeline.arun())
            await asyncio.sleep(0.02)
            for method in (pipeline.drain, pipeline.stop, pipeline.wait):
                with pytest.raises(RuntimeError, match="would hold up the event loop"):
                    method()
            report = await (pipeline.adrain(10) if graceful else pipeline.astop())
            assert report.outcome == ("drained" if graceful else "stopped")
            assert await running is report and obeys_the_laws(report)
            assert pipeline.drain() is report

    in_loop(main())


def test_aresults_are_iterated_and_left_at_any_time(in_loop: InLoop) -> None:
    async def main() -> None:
        pipeline = weir.Pipeline(count_to(100))
        pipeline.stage(adouble, kind="async")
        assert [x async for x in pipeline.aresults()] == [2 * x for x in range(100)]

        pipeline = weir.Pipeline(Endless())
        pipeline.stage(adouble, kind="async")
        results = pipeline.aresults()
        async for x in results:
            if x >= 10:
                break
        await results.aclose()  # type: ignore[attr-defined]
        assert pipeline.report is not None and pipeline.report.outcome == "stopped"
        assert obeys_the_laws(pipeline.report)

    in_loop(main())


@pytest.mark.parametrize("given", [range(20), count_to(20)])
def test_a_flow_is_a_source_in_a_thread_or_in_a_loop(given: Any) -> None:
    out: list[int] = []
    pipeline = weir.Pipeline(weir.Flow(given).map(double))
    pipeline.sink(out.append)
    assert pipeline.run().accepted == 20
    assert out == [2 * x for x in range(20)]


def test_an_asynchronous_source_is_closed_when_the_pipeline_is_stopped() -> None:
    closed = threading.Event()

    async def source() -> AsyncIterator[int]:
        try:
            n = 0
            while True:
                await asyncio.sleep(0.001 if n < 20 else 60)
                yield n
                n += 1
        finally:
            closed.set()

    out: list[int] = []
    pipeline = weir.Pipeline(source())
    pipeline.sink(out.append)
    pipeline.start()
    wait_until(lambda: len(out) == 20)
    report = InThread(pipeline.drain).result(20)
    assert report.outcome == "drained" and out == list(range(20)) and closed.is_set()


def test_limits_retries_and_batches_work_in_coroutines() -> None:
    tried: set[int] = set()

    async def flaky(items: list[int]) -> list[int]:
        if items[0] not in tried:
            tried.add(items[0])
            raise OSError("again")
        return items

    limiter = weir.Limiter(1)
    governor = weir.MemoryGovernor(1 << 40)
    out: list[int] = []
    pipeline = weir.Pipeline(range(20))
    pipeline.stage(
        flaky,
        name="flaky",
        kind="async",
        batch=5,
        linger=1,
        workers=2,
        flat=True,
        retry=weir.Retry(3, backoff=(0.001, 0.001)),
        rate=1000,
        limiter=limiter,
        breaker=weir.CircuitBreaker(min_calls=100),
        memory=governor,
        memory_per_item=1024,
    )
    pipeline.sink(out.append)
    report = pipeline.run()
    assert sorted(out) == list(range(20)) and obeys_the_laws(report)
    assert report.stages["flaky"].retried >= 4 and limiter.stats().in_flight == 0
    assert governor.stats().reserved == 0


def test_a_put_timeout_drops_what_a_coroutine_emits_and_counts_it() -> None:
    dropped: list[tuple[str, str]] = []
    pipeline = weir.Pipeline(
        range(30), on_drop=lambda item, stage, why: dropped.append((stage, why))
    )
    pipeline.stage(adouble, kind="async")
    pipeline.sink(lambda x: time.sleep(0.01), name="slow", queue=1, put_timeout=0.001)
    report = pipeline.run()
    assert set(dropped) == {("slow", "timeout")} and obeys_the_laws(report)
    assert report.dropped == {"timeout": len(dropped)}


def test_an_inline_stage_behind_a_coroutine_is_refused() -> None:
    pipeline = weir.Pipeline([1])
    pipeline.stage(adouble, kind="async")
    pipeline.sink(print, kind="inline", name="fast")
    with pytest.raises(ValueError, match="'fast' is inline and would hold up the event loop"):
        pipeline.run()


def test_a_key_behind_a_coroutine_keeps_the_order_of_each_key() -> None:
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
    pipeline = weir.Pipeline(range(300))
    pipeline.stage(adouble, kind="async")
    pipeline.sink(lambda x: seen[x % 3].append(x), key=lambda x: x % 3, workers=2, name="keyed")
    assert obeys_the_laws(pipeline.run())
    assert all(items == sorted(items) and len(items) == 100 for items in seen.values())


def test_a_keyed_stage_of_coroutines_keeps_the_order_of_each_key() -> None:
    seen: dict[int, list[int]] = {n: [] for n in range(4)}

    async def note(x: int) -> None:
        await asyncio.sleep(0.001 * (x % 2))
        seen[x % 4].append(x)

    pipeline = weir.Pipeline(range(100))
    pipeline.sink(note, kind="async", key=lambda x: x % 4, workers=3)
    report = pipeline.run()
    assert all(items == sorted(items) and len(items) == 25 for items in seen.values())
    assert report.stages["note"].workers_peak == 3 and obeys_the_laws(report)


def test_a_program_that_ends_lets_processes_and_coroutines_finish() -> None:
    said = output_of(
        """
        import time, weir
        async def work(x):
            return x
        pipeline = weir.Pipeline(range(20))
        pipeline.stage(abs, kind="process")
        pipeline.stage(work, kind="async")
        pipeline.sink(lambda x: print(x, flush=True))
        pipeline.start()
        while pipeline.stats().stages["source"].emitted < 20:
            time.sleep(0.01)
        """
    )
    assert sorted(map(int, said.split())) == list(range(20))
