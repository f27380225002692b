"""The types that people's checkers see: this file is checked by `mypy --strict`.

assert_type is for the checker; at run time it returns its argument.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

import weir

if sys.version_info >= (3, 11):
    from typing import assert_type
elif TYPE_CHECKING:
    from typing_extensions import assert_type
else:

    def assert_type(value, type_):
        return value


State = Literal["closed", "open", "half_open", "isolated"]


def length(text: str) -> int:
    return len(text)


def test_a_queue_knows_its_items() -> None:
    q: weir.Queue[str] = weir.Queue(3, sizer=len, on_drop=lambda item, why: (item + why).strip())
    q.put("a", timeout=1)
    q.put_many(c for c in "bc")
    assert_type(q.get(), str)
    assert_type(q.get_many(1), list[str])
    assert_type(iter(q), Iterator[str])
    assert_type(q.maxsize, int | None)
    assert_type(q.stats(), weir.QueueStats)
    assert_type(q.stats().dropped["oldest"], int)
    weir.Queue[str](3).put(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        q.put_nowait()  # type: ignore[call-arg]


def test_watermarks_and_writers_know_what_they_take() -> None:
    mark = weir.Watermark(10, on_high=lambda: None)
    assert_type(mark.add(1), bool)
    assert_type(mark.stats(), weir.WatermarkStats)
    with pytest.raises(TypeError):
        mark.add("1")  # type: ignore[arg-type]

    async def write(writer: asyncio.StreamWriter, transport: asyncio.WriteTransport) -> None:
        async with weir.aio.FlowWriter(writer, total=weir.aio.FlowBudget(10)) as out:
            await out.writelines([b"a", bytearray(b"b"), memoryview(b"c")])
            assert_type(out.stats(), weir.FlowWriterStats)
        await weir.aio.FlowWriter(transport).write("a")  # type: ignore[arg-type]

    assert write.__name__ == "write"


def test_an_executor_knows_what_its_functions_return() -> None:
    with weir.ThreadPoolExecutor(1) as pool:
        assert_type(pool.submit(length, "abc"), Future[int])
        assert_type(pool.try_submit(length, "abc"), Future[int] | None)
        assert_type(pool.map(length, ["a"]), weir.MapIterator[int])
        assert_type(pool.stats(), weir.ThreadPoolStats)
        executor: Executor = pool
        assert executor.submit(length, "abc").result() == 3
        for n in executor.map(length, ["a"], timeout=5):
            assert_type(n, int)
    with pytest.raises(ValueError, match="on_full"):
        weir.ThreadPoolExecutor(1, on_full="explode")  # type: ignore[arg-type]


def test_bounded_takes_any_executor() -> None:
    with weir.bounded(ThreadPoolExecutor(1), 3, on_full="fail") as pool:
        assert_type(pool, weir.BoundedExecutor)
        assert_type(pool.submit(length, "abc"), Future[int])
        assert_type(pool.stats(), weir.BoundedStats)


def test_guards_keep_the_types_of_what_they_guard() -> None:
    breaker = weir.CircuitBreaker(on_change=lambda before, after: assert_type(before, State))
    throttle, retry = weir.Throttle(), weir.Retry(on=(OSError, TimeoutError))

    async def later(text: str) -> int:
        return len(text)

    for guard in (breaker, throttle, retry):
        assert_type(guard.call(length, "abc"), int)
        assert_type(asyncio.run(guard.acall(later, "abc")), int)
    assert_type(breaker(length)("abc"), int)
    assert_type(retry(throttle(length))("abc"), int)
    assert_type(breaker.state, State)
    assert_type(breaker.retry_after, float | None)
    assert_type(breaker.stats(), weir.BreakerStats)
    assert_type(throttle.stats(), weir.ThrottleStats)
    assert_type(retry.stats().gave_up["budget"], int)
    assert_type(weir.RetryBudget().stats(), weir.RetryBudgetStats)
    for attempt in retry:
        with attempt:
            assert_type(attempt.number, int)
    queue: weir.Queue[str] = weir.Queue(1)
    assert_type(weir.block_and_retry(queue, "abc"), int)
    with pytest.raises(TypeError):
        weir.CircuitBreaker(is_failure="OSError")  # type: ignore[arg-type]


def test_a_token_bucket_keeps_the_types_of_what_it_wraps() -> None:
    bucket = weir.TokenBucket(1000, burst=10)
    assert_type(bucket.try_acquire(), bool)
    assert_type(bucket.acquire(2, timeout=1), bool)
    assert_type(bucket.rate, float)
    assert_type(bucket.stats(), weir.TokenBucketStats)
    assert_type(bucket.reserve(), weir.Reservation)
    assert_type(bucket(length)("abc"), int)
    with bucket as same:
        assert_type(same, weir.TokenBucket)
    with pytest.raises(TypeError):
        bucket.acquire("1")  # type: ignore[arg-type]


def test_what_runs_in_an_event_loop_knows_its_results() -> None:
    async def later(text: str) -> int:
        return len(text)

    async def add(one: int, two: str) -> str:
        return two * one

    async def main() -> None:
        results = weir.aio.amap(later, ["a"], limit=2)
        assert_type(results, weir.aio.AsyncResults[int])
        assert_type([n async for n in results], list[int])
        both = weir.aio.amap(add, [1], weir.aio.amap(add, [2], "b", limit=1), limit=1)
        assert_type([text async for text in both], list[str])
        outcomes = weir.aio.amap(later, ["a"], limit=1, return_exceptions=True)
        assert_type([n async for n in outcomes], list[int | BaseException])
        assert_type(await weir.aio.gather(later("a"), later("b"), limit=1), list[int])
        assert_type(await weir.aio.gather(map(later, "ab"), limit=1), list[int])
        async for future in weir.aio.as_completed(map(later, "ab"), limit=1):
            assert_type(await future, int)
        async with weir.aio.TaskGroup(2) as group:
            assert_type(await group.create_task(later("a")), asyncio.Task[int])
            assert_type(group.try_create_task(later("a")), asyncio.Task[int] | None)
        assert_type([c async for c in weir.aio.read_chunks(io.BytesIO(b"a"))], list[bytes])
        assert_type(await weir.aio.copy(io.BytesIO(b"a"), io.BytesIO()), int)
        with pytest.raises(TypeError):
            weir.aio.amap(later, 5, limit=1)  # type: ignore[call-overload]

    asyncio.run(main())


def test_a_flow_knows_its_items() -> None:
    async def later(text: str) -> int:
        return len(text)

    flow = weir.Flow(["a", "bc"])
    assert_type(flow, weir.Flow[str])
    assert_type(weir.Flow(lambda: ["a"]), weir.Flow[str])
    assert_type(flow.map(length), weir.Flow[int])
    assert_type(flow.map(later), weir.Flow[int])
    assert_type(flow.map(length).filter(bool).buffer(2), weir.Flow[list[int]])
    assert_type(flow.window(2), weir.Flow[weir.Flow[str]])
    assert_type(flow.flat_map(lambda text: [len(text)]), weir.Flow[int])
    assert_type(flow.concat([1]), weir.Flow[str | int])
    assert_type(flow.merge(flow.map(later)), weir.Flow[str | int])
    assert_type(flow.zip([1]), weir.Flow[tuple[str, int]])
    assert_type(flow.zip([1], [b"c"]), weir.Flow[tuple[str, int, bytes]])
    assert_type(flow.scan(lambda n, text: n + len(text), 0), weir.Flow[int])
    assert_type(flow.catch(lambda error: [5]), weir.Flow[str | int])
    assert_type(flow.tee(2), tuple[weir.Flow[str], ...])
    assert_type(flow.par_map(length, 2), weir.Flow[int])
    assert_type(flow.par_map(later, 2, kind="async"), weir.Flow[int])
    assert_type(weir.Flow.from_queue(weir.Queue[bytes](1)), weir.Flow[bytes])
    assert_type(flow.first(), str)
    assert_type(flow.first(None), str | None)
    assert_type(flow.reduce(lambda n, text: n + len(text), 0), int)
    assert_type(asyncio.run(flow.map(later).ato_list()), list[int])
    assert_type([text for text in flow], list[str])  # noqa: C416
    wider: weir.Flow[object] = flow
    assert wider.count() == 2
    with pytest.raises(TypeError):
        weir.Flow(5)  # type: ignore[arg-type]


def test_the_exceptions_are_what_the_standard_handlers_catch() -> None:
    import queue
    from concurrent.futures.process import BrokenProcessPool

    full: type[queue.Full] = weir.BacklogFull
    broken: type[BrokenProcessPool] = weir.WorkerDied
    too_large: type[ValueError] = weir.TooLarge
    assert all((full, broken, too_large))
    assert_type(weir.Dropped("oldest").reason, str)
    assert_type(weir.WorkerDied(1, 2).exitcode, int | None)


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(weir.__file__).parent / "py.typed").exists()


def test_everything_that_is_promised_can_be_imported() -> None:
    for name in weir.__all__:
        assert getattr(weir, name) is not None
    assert set(weir.__all__) <= set(dir(weir))
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        weir.Nonsense  # noqa: B018


def test_a_limiter_keeps_what_it_decorates() -> None:
    limiter = weir.Limiter(weir.Gradient2(min_limit=2), partitions={"live": 0.5})
    assert_type(limiter.acquire(timeout=1, partition="live"), weir.LimitPermit)
    assert_type(limiter.try_acquire(partition="live"), weir.LimitPermit | None)
    assert_type(limiter.limit, int)
    assert_type(limiter.stats(), weir.LimiterStats)
    assert_type(limiter.stats().latency, float | None)
    assert_type(weir.Limiter(2)(length)("abc"), int)
    assert_type(weir.LimitModel(weir.AIMD()).sample(0.0, 0.1, 3), int)
    weir.Limiter(2)(length)(3) if TYPE_CHECKING else None  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        weir.Limiter("3")  # type: ignore[arg-type]


def test_a_pipeline_takes_options_by_name_and_tells_records() -> None:
    pipeline = weir.Pipeline(["a"], on_drop=lambda item, stage, reason: stage.upper())
    stage = pipeline.stage(length, workers=(1, 2), overflow="drop_oldest", on_error="skip")
    assert_type(stage, weir.Stage)
    pipeline.sink([].append, after=[stage], kind="inline")
    assert_type(pipeline.run(), weir.PipelineReport)
    assert_type(pipeline.stats().stages["length"], weir.StageStats)
    assert_type(pipeline.report, weir.PipelineReport | None)
    with pytest.raises(ValueError, match="kind must be"):
        weir.Pipeline([]).stage(length, kind="fiber")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        weir.Pipeline([]).stage(length, worker=3)  # type: ignore[call-arg]
