"""submit_async() and amap(): executors from event loops, in line with threads."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor as StandardPool
from queue import Full
from typing import Any

import pytest
from conftest import InThread, wait_until

import weir

Make = Callable[..., Any]


def bounded(workers: int, **options: Any) -> weir.BoundedExecutor:
    return weir.bounded(StandardPool(workers), **options)


MAKERS: dict[str, Make] = {
    "processes": weir.ProcessPoolExecutor,
    "threads": weir.ThreadPoolExecutor,
    "bounded": bounded,
}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Make:
    return MAKERS[request.param]


def run(main: Awaitable[Any]) -> Any:
    return asyncio.run(asyncio.wait_for(main, 60))


def double(n: int) -> int:
    return 2 * n


def slow(seconds: float, value: int = 0) -> int:
    time.sleep(seconds)
    return value


def fail() -> None:
    raise KeyError("of the task")


def waiting(pool: Any) -> int:
    return int(pool.stats().submitters_waiting)


def completed(pool: Any) -> int:
    now = pool.stats()
    return int(now.finished if isinstance(now, weir.ThreadPoolStats) else now.completed)


def inside(pool: Any) -> int:
    now = pool.stats()
    return int(now.accepted - completed(pool) - now.cancelled - sum(now.dropped.values()))


async def until(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(wait_until, condition)


@contextlib.contextmanager
def full(pool: Any, places: int, seconds: float = 0.15) -> Iterator[list[Any]]:
    """Every place of the pool is taken, for that long."""
    yield [pool.submit(slow, seconds) for _ in range(places)]


def test_it_returns_a_future_to_await(make: Make) -> None:
    async def main() -> None:
        with make(2) as pool:
            future = await pool.submit_async(double, 4)
            assert isinstance(future, asyncio.Future) and await future == 8
            assert await (await pool.submit_async(slow, 0.0, value=3)) == 3
            with pytest.raises(KeyError, match="of the task"):
                await (await pool.submit_async(fail))

    run(main())


def test_it_waits_for_room_without_holding_up_the_loop(make: Make) -> None:
    async def main() -> None:
        with make(1, max_submit_backlog=1) as pool, full(pool, 2):
            submit = asyncio.ensure_future(pool.submit_async(double, 1))
            await asyncio.sleep(0.01)
            assert not submit.done() and waiting(pool) == 1
            assert await (await submit) == 2
            assert waiting(pool) == 0

    run(main())


def test_threads_and_coroutines_stand_in_one_line(make: Make) -> None:
    order: list[str] = []

    async def main() -> None:
        with make(1, max_submit_backlog=1) as pool, full(pool, 2):

            async def in_task(name: str) -> None:
                await pool.submit_async(slow, 0.05)
                order.append(name)

            def in_thread() -> None:
                pool.submit(slow, 0.05)
                order.append("thread")

            first = asyncio.ensure_future(in_task("first"))
            await until(lambda: waiting(pool) == 1)
            second = InThread(in_thread)
            await until(lambda: waiting(pool) == 2)
            third = asyncio.ensure_future(in_task("third"))
            await asyncio.gather(first, third, asyncio.to_thread(second.result))

    run(main())
    assert order == ["first", "thread", "third"]


def test_one_that_is_cancelled_has_submitted_nothing(make: Make) -> None:
    async def main() -> None:
        with make(1, max_submit_backlog=1) as pool, full(pool, 2) as taken:
            submits = [asyncio.ensure_future(pool.submit_async(double, i)) for i in range(5)]
            await asyncio.sleep(0.01)
            for submit in submits[:4]:
                submit.cancel()
            await asyncio.wait(submits[:4])
            assert waiting(pool) == 1
            assert await (await submits[4]) == 8
            for future in taken:
                future.result(10)
            await until(lambda: completed(pool) == 3)
            assert pool.stats().accepted == 3

    run(main())


def test_a_timeout_says_so(make: Make) -> None:
    async def main() -> None:
        with make(1, max_submit_backlog=1, submit_timeout=0.02) as pool, full(pool, 2):
            with pytest.raises(TimeoutError, match=r"no room .*within"):
                await pool.submit_async(double, 1)
            assert waiting(pool) == 0
            assert pool.stats().refused == 1

    run(main())


def test_its_repr_says_what_it_is(make: Make) -> None:
    with make(2, max_submit_backlog=3, on_full="fail") as pool:
        assert "2 workers, backlog 3, on_full='fail'>" in repr(pool)
        assert repr(pool).startswith("<weir.")
    assert repr(pool).endswith(", shut down>")


def test_a_policy_that_does_not_wait_does_not_wait_here_either(make: Make) -> None:
    async def main() -> None:
        with make(1, max_submit_backlog=1, on_full="fail") as pool, full(pool, 2):
            with pytest.raises(weir.BacklogFull):
                await pool.submit_async(double, 1)
        with make(1, max_submit_backlog=1, on_full="drop_newest") as pool, full(pool, 2):
            with pytest.raises(weir.Dropped):
                await (await pool.submit_async(double, 1))
        with make(1, max_submit_backlog=1, on_full="caller_runs") as pool, full(pool, 2):
            since = time.monotonic()
            assert await (await pool.submit_async(double, 1)) == 2
            assert pool.stats().caller_ran == 0 and time.monotonic() > since

    run(main())


def test_shutdown_releases_who_waits(make: Make) -> None:
    async def main() -> None:
        pool = make(1, max_submit_backlog=1)
        with full(pool, 2):
            submits = [asyncio.ensure_future(pool.submit_async(double, i)) for i in range(3)]
            await until(lambda: waiting(pool) == 3)
            pool.shutdown(wait=False)
            outcomes = await asyncio.gather(*submits, return_exceptions=True)
            assert all(isinstance(o, RuntimeError) for o in outcomes), outcomes
            with pytest.raises(RuntimeError, match="after shutdown"):
                await pool.submit_async(double, 1)
        pool.shutdown()

    run(main())


def test_cancelling_the_future_cancels_a_task_that_has_not_started(make: Make) -> None:
    async def main() -> None:
        with make(1, max_submit_backlog=5) as pool:
            first = await pool.submit_async(slow, 0.2)
            second = await pool.submit_async(double, 1)
            second.cancel()
            await first
            await until(lambda: pool.stats().cancelled == 1)

    run(main())


def test_a_closed_loop_does_not_keep_the_others_out(make: Make) -> None:
    with make(1, max_submit_backlog=1) as pool, full(pool, 2):
        loop = asyncio.new_event_loop()
        dead = [loop.create_task(pool.submit_async(double, i)) for i in range(20)]
        loop.run_until_complete(asyncio.sleep(0.01))
        assert waiting(pool) == 20
        loop.close()
        assert pool.submit(double, 5).result(20) == 10
        wait_until(lambda: waiting(pool) == 0)
        for task in dead:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        del dead, task
        gc.collect()


def test_many_loops_and_threads_lose_no_task(make: Make) -> None:
    """Half of the submits from loops are cancelled, whenever that happens."""
    results: list[int] = []
    lock = threading.Lock()

    def note(values: list[int]) -> None:
        with lock:
            results.extend(values)

    def loop_thread(pool: Any, n: int) -> int:
        async def main() -> int:
            chance = random.Random(n)
            mine: list[int] = []

            async def one(i: int) -> None:
                future = await pool.submit_async(double, i)
                mine.append(i)
                assert await future == 2 * i

            tasks = []
            for i in range(n * 1000, n * 1000 + 200):
                task = asyncio.ensure_future(one(i))
                tasks.append(task)
                if chance.random() < 0.5:
                    asyncio.get_running_loop().call_later(chance.random() / 500, task.cancel)
                if i % 10 == 0:
                    await asyncio.sleep(0)
            await asyncio.wait(tasks)
            note(mine)
            return len(mine)

        return asyncio.run(main())

    with make(2, max_submit_backlog=2) as pool:
        loops = [InThread(loop_thread, pool, n) for n in range(2)]
        plain = InThread(lambda: [pool.submit(double, i).result() for i in range(5000, 5100)])
        sent = sum(loop.result(60) for loop in loops)
        assert len(plain.result(60)) == 100 and len(results) == len(set(results)) == sent
        wait_until(lambda: inside(pool) == 0, 20)
        assert pool.stats().accepted >= sent + 100 and waiting(pool) == 0


def test_amap_is_lazy_and_bounded_on_both_sides(make: Make) -> None:
    async def main() -> None:
        taken = 0

        def endless() -> Iterator[int]:
            nonlocal taken
            while True:
                taken += 1
                yield taken - 1

        async def asynchronous() -> Any:
            for i in range(10):
                yield i

        with make(2, max_submit_backlog=2) as pool:
            assert [r async for r in pool.amap(double, range(20))] == list(range(0, 40, 2))
            got = [r async for r in pool.amap(double, asynchronous(), ordered=False)]
            assert sorted(got) == list(range(0, 20, 2))
            async with pool.amap(double, endless(), buffersize=3) as results:
                seen = [await results.__anext__() for _ in range(10)]
                assert seen == list(range(0, 20, 2))
                await asyncio.sleep(0.05)
                assert taken <= 10 + 4 + 3
            with pytest.raises(KeyError):
                async for _ in pool.amap(lambda_fails, range(3)):
                    pass

    run(main())


def lambda_fails(_: int) -> None:
    fail()


def test_a_strategy_paces_coroutines_too() -> None:
    async def main() -> None:
        strategy = weir.strategies.batch(rate=50, burst=1)
        with weir.ThreadPoolExecutor(2, on_full=strategy) as pool:
            since = time.monotonic()
            futures = [await pool.submit_async(double, i) for i in range(6)]
            assert await asyncio.gather(*futures) == [0, 2, 4, 6, 8, 10]
            assert time.monotonic() - since > 0.09
        queue = weir.Queue[int](10, overflow=strategy)
        since = time.monotonic()
        for i in range(6):
            await queue.aput(i)
        assert await queue.aput_many([6, 7]) == 2
        assert time.monotonic() - since > 0.12
        assert await queue.aget_many(10) == list(range(8))

    run(main())


def test_a_strategy_tries_again_and_breaks_for_coroutines_too() -> None:
    async def main() -> None:
        critical = weir.strategies.critical(patience=0.01, attempts=2, backoff=(0.001, 0.002))
        queue = weir.Queue[int](1, overflow=critical)
        await queue.aput(1)
        with pytest.raises(Full):
            await queue.aput(2)
        assert queue.keeper.stalls == 2  # type: ignore[attr-defined]
        facing = weir.strategies.user_facing
        shedding = weir.Queue[int](1, overflow=facing)
        for i in range(300):
            with contextlib.suppress(Exception):
                await shedding.aput(i, timeout=0)
        with pytest.raises(weir.BreakerOpen):
            await shedding.aput(1, timeout=0)

    run(main())
