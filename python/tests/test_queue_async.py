"""weir.Queue in coroutines: one object for event loops and threads together."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import random
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from queue import Empty, Full
from typing import Any

import pytest
from conftest import InThread, output_of, wait_until

import weir

# ---- loops --------------------------------------------------------------------------------------


def _uvloop() -> Any:
    return pytest.importorskip("uvloop", reason="uvloop is not installed").new_event_loop()


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": _uvloop,
}

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def run_in(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, Any]) -> Any:
    try:
        return loop.run_until_complete(asyncio.wait_for(main, 30))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    return lambda main: run_in(LOOPS[request.param](), main)


async def settle() -> None:
    """Lets everybody go on who can."""
    for _ in range(5):
        await asyncio.sleep(0)


def obeys_the_law(queue: weir.Queue[Any]) -> bool:
    now = queue.stats()
    return now.accepted == now.delivered + sum(now.dropped.values()) + now.qsize


# ---- one loop -----------------------------------------------------------------------------------


def test_what_needs_no_waiting_does_not_suspend(run: Run) -> None:
    async def main() -> None:
        queue = weir.Queue[int](2)
        others: list[int] = []
        asyncio.get_running_loop().call_soon(others.append, 1)
        await queue.aput(1)
        await queue.aput(2)
        assert await queue.aget() == 1
        assert await queue.aget_many(5) == [2]
        await queue.aput_many([3, 4])
        for _ in range(4):
            queue.task_done()
        queue.discard()
        await queue.ajoin()
        assert not others

    run(main())


def test_a_put_waits_for_room_and_a_get_for_an_item(run: Run) -> None:
    async def main() -> None:
        queue = weir.Queue[int](1)
        get = asyncio.ensure_future(queue.aget())
        await settle()
        assert queue.stats().getters_waiting == 1
        await queue.aput(1)
        assert await get == 1
        await queue.aput(2)
        put = asyncio.ensure_future(queue.aput(3))
        await settle()
        assert not put.done() and queue.stats().putters_waiting == 1
        assert queue.get_nowait() == 2
        await put
        assert queue.get_nowait() == 3

    run(main())


def test_waiters_are_served_in_the_order_they_came_threads_and_tasks_alike(run: Run) -> None:
    async def main() -> None:
        queue = weir.Queue[int](9)
        order: list[str] = []

        def in_thread() -> None:
            order.append(f"thread {queue.get()}")

        async def in_task(name: str) -> None:
            order.append(f"{name} {await queue.aget()}")

        first = asyncio.ensure_future(in_task("first"))
        await settle()
        second = InThread(in_thread)
        await asyncio.to_thread(wait_until, lambda: queue.stats().getters_waiting == 2)
        third = asyncio.ensure_future(in_task("third"))
        await settle()
        for item in range(3):
            queue.put(item)
            done = [first, None, third][item]
            if done is None:
                await asyncio.to_thread(second.result)
            else:
                await done
        assert order == ["first 0", "thread 1", "third 2"]

    run(main())


def test_a_try_never_overtakes_a_coroutine_that_waits(run: Run) -> None:
    async def main() -> None:
        queue = weir.Queue[int](1)
        get = asyncio.ensure_future(queue.aget())
        await settle()
        queue.put_nowait(1)
        with pytest.raises(Empty):
            queue.get_nowait()
        assert await get == 1
        queue.put_nowait(2)
        put = asyncio.ensure_future(queue.aput(3))
        await settle()
        assert queue.get_nowait() == 2
        with pytest.raises(Full):
            queue.put_nowait(4)
        await put

    run(main())


def test_timeouts_say_what_the_other_calls_say_and_leave_nothing(run: Run) -> None:
    async def main() -> None:
        queue = weir.Queue[int](1)
        for timeout in (0, 0.01):
            with pytest.raises(Empty):
                await queue.aget(timeout)
            with pytest.raises(Empty):
                await queue.aget_many(3, timeout=timeout, linger=1)
        await queue.aput(1)
        for timeout in (0, 0.01):
            with pytest.raises(Full):
                await queue.aput(2, timeout)
            with pytest.raises(TimeoutError):
                await queue.ajoin(timeout)
        now = queue.stats()
        assert now.refused == 2 and now.putters_waiting == now.getters_waiting == 0
        assert now.unfinished_tasks == 1
        with pytest.raises(ValueError, match="'timeout' must be a non-negative number"):
            await queue.aget(-1)
        with pytest.raises(ValueError, match="'max' must be > 0, not 0"):
            await queue.aget_many(0)

    run(main())


def test_async_iteration_ends_when_the_queue_is_shut_down_and_empty(run: Run) -> None:
    async def main() -> None:
        queue = weir.Queue[int](3)

        async def produce() -> None:
            for i in range(50):
                await queue.aput(i)
            queue.shutdown()

        async def consume() -> list[int]:
            return [item async for item in queue]

        got = await asyncio.gather(produce(), consume(), consume())
        assert sorted(got[1] + got[2]) == list(range(50))
        with pytest.raises(weir.ShutDown):
            await queue.aput(1)
        with pytest.raises(weir.ShutDown):
            await queue.aget()

    run(main())


def test_shutdown_releases_every_coroutine(run: Run) -> None:
    async def main() -> None:
        queue = weir.Queue[int](1)
        gets: list[asyncio.Future[Any]] = [asyncio.ensure_future(queue.aget()) for _ in range(3)]
        await settle()
        queue.shutdown()
        outcomes = await asyncio.gather(*gets, return_exceptions=True)
        assert [type(o) for o in outcomes] == [weir.ShutDown] * 3
        queue = weir.Queue[int](1)
        await queue.aput(0)
        puts = [asyncio.ensure_future(queue.aput(i)) for i in range(3)]
        await settle()
        queue.shutdown()
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        assert [type(o) for o in outcomes] == [weir.ShutDown] * 3
        assert await queue.aget() == 0

    run(main())


def test_a_policy_that_does_not_wait_does_not_wait_here_either(run: Run) -> None:
    async def main() -> None:
        for overflow, inside in (("drop_newest", [1]), ("drop_oldest", [2])):
            queue = weir.Queue[int](1, overflow=overflow)  # type: ignore[arg-type]
            await queue.aput(1)
            await queue.aput(2)
            assert await queue.aget_many(5) == inside
        fails = weir.Queue[int](1, overflow="fail")
        await fails.aput(1)
        with pytest.raises(Full):
            await fails.aput(2)

    run(main())


def test_bytes_are_bounded_for_coroutines_too(run: Run) -> None:
    async def main() -> None:
        queue = weir.Queue[bytes](10, max_bytes=10)
        await queue.aput(b"12345678")
        put = asyncio.ensure_future(queue.aput(b"12345"))
        await settle()
        assert not put.done()
        with pytest.raises(weir.TooLarge):
            await queue.aput(b"12345678901")
        await queue.aget()
        await put
        big = asyncio.ensure_future(queue.aput(b"123456789"))
        await settle()
        queue.max_bytes = 5
        with pytest.raises(weir.TooLarge):
            await big

    run(main())


# ---- many at once -------------------------------------------------------------------------------


def test_a_batch_waits_for_the_first_item_and_lingers_for_more(run: Run) -> None:
    async def main() -> None:
        queue = weir.Queue[int](10)
        batch = asyncio.ensure_future(queue.aget_many(3, linger=30))
        await settle()
        for item in range(3):
            assert not batch.done()
            await queue.aput(item)
            await settle()
        assert await batch == [0, 1, 2]
        batch = asyncio.ensure_future(queue.aget_many(3, linger=0.01))
        await settle()
        await queue.aput(7)
        assert await batch == [7]

    run(main())


def test_a_loop_that_was_held_up_gets_its_item_beside_a_batch_that_waits_for_more(run: Run) -> None:
    queue: weir.Queue[int] = weir.Queue(10)

    async def batch() -> list[int]:
        return await queue.aget_many(3, linger=30)

    async def main() -> None:
        one = asyncio.ensure_future(queue.aget())
        await settle()
        other = InThread(asyncio.run, batch())
        wait_until(lambda: queue.stats().getters_waiting == 2)
        queue.put_many([1, 2])
        time.sleep(0.15)  # noqa: ASYNC251 - the loop is to stand still
        assert queue.qsize() == 2  # one was passed over, the other lingers
        assert await one in (1, 2)
        queue.put_many([3, 4])
        assert len(other.result()) == 3

    run(main())


def test_a_batch_does_not_linger_where_no_more_can_come(run: Run) -> None:
    async def main() -> None:
        queue = weir.Queue[int](2)
        await queue.aput_many([1, 2])
        assert await queue.aget_many(100, linger=30) == [1, 2]
        batch = asyncio.ensure_future(queue.aget_many(100, linger=30))
        await settle()
        await queue.aput_many([3, 4])
        assert await batch == [3, 4]
        batch = asyncio.ensure_future(queue.aget_many(100, linger=30))
        await settle()
        await queue.aput(5)
        await settle()
        queue.shutdown()
        assert await batch == [5]
        queue = weir.Queue[int](5)
        await queue.aput_many([1, 2])
        queue.shutdown()
        assert await queue.aget_many(100, linger=30) == [1, 2]
        with pytest.raises(weir.ShutDown):
            await queue.aget_many(100, linger=30)

    run(main())


def test_a_batch_that_is_cancelled_while_it_lingers_has_taken_nothing(run: Run) -> None:
    async def main() -> None:
        queue = weir.Queue[int](10)
        batch = asyncio.ensure_future(queue.aget_many(5, linger=30))
        await settle()
        await queue.aput_many([1, 2])
        await settle()
        batch.cancel()
        await asyncio.wait([batch])
        assert await queue.aget_many(5) == [1, 2]

    run(main())


def test_many_are_put_from_any_iterable_as_there_is_room(run: Run) -> None:
    async def main() -> None:
        async def asynchronous() -> Any:
            for i in range(10):
                yield i

        for source in (range(10), iter(range(10)), asynchronous()):
            queue = weir.Queue[int](3)
            put = asyncio.ensure_future(queue.aput_many(source))
            got = [await queue.aget() for _ in range(10)]
            assert got == list(range(10)) and await put == 10
        queue = weir.Queue[int](3)
        assert await queue.aput_many(range(10), timeout=0.01) == 3
        with pytest.raises(Full):
            await queue.aput_many(range(10), timeout=0.01)

    run(main())


# ---- joining ------------------------------------------------------------------------------------


def test_ajoin_waits_for_the_last_task_done_from_whatever_thread(run: Run) -> None:
    async def main() -> None:
        queue = weir.Queue[int](3)
        await queue.aput_many([1, 2])
        joins = [asyncio.ensure_future(queue.ajoin()) for _ in range(3)]
        await settle()
        queue.task_done()
        await settle()
        assert not any(join.done() for join in joins)
        joins[0].cancel()
        await asyncio.to_thread(queue.task_done)
        await asyncio.wait_for(asyncio.gather(*joins[1:]), 10)

    run(main())


def test_a_put_that_waits_counts_as_unfinished(run: Run) -> None:
    async def main() -> None:
        queue = weir.Queue[int](1)
        await queue.aput(1)
        put = asyncio.ensure_future(queue.aput(2))
        await settle()
        assert queue.unfinished_tasks == 2
        put.cancel()
        await asyncio.wait([put])
        assert queue.unfinished_tasks == 1

    run(main())


# ---- cancellation -------------------------------------------------------------------------------


def test_a_get_that_is_cancelled_in_its_turn_leaves_the_item_to_the_next_one(run: Run) -> None:
    async def main() -> None:
        queue = weir.Queue[int](3)
        first = asyncio.ensure_future(queue.aget())
        second = asyncio.ensure_future(queue.aget())
        await settle()
        queue.put_nowait(1)  # first is told, and has not run yet
        first.cancel()
        assert await second == 1
        assert first.cancelled() or await asyncio.wait([first])
        assert obeys_the_law(queue) and queue.stats().delivered == 1

    run(main())


def test_a_put_that_is_cancelled_in_its_turn_has_not_put(run: Run) -> None:
    async def main() -> None:
        queue = weir.Queue[int](1)
        await queue.aput(0)
        first, second = (asyncio.ensure_future(queue.aput(i)) for i in (1, 2))
        await settle()
        assert queue.get_nowait() == 0
        first.cancel()
        await second
        assert queue.get_nowait() == 2 and first.cancelled()

    run(main())


def test_wait_for_loses_no_item(run: Run) -> None:
    async def main() -> None:
        queue = weir.Queue[int](100)
        got: list[int] = []
        for item in range(300):
            asyncio.get_running_loop().call_later(0.0005, queue.put_nowait, item)
            with contextlib.suppress(asyncio.TimeoutError):
                got.append(await asyncio.wait_for(queue.aget(), 0.0005))
            if queue.qsize() > 50:
                got.extend(queue.get_many(100))
        await asyncio.sleep(0.01)
        with contextlib.suppress(Empty):
            got.extend(queue.get_many(100, timeout=0))
        assert got == list(range(300))

    run(main())


@pytest.mark.parametrize("maxsize", [1, 7])
def test_calls_that_are_cancelled_at_random_keep_the_law(maxsize: int, run: Run) -> None:
    """25,000 puts and 25,000 gets, in two sizes and two loops: half of them are cancelled."""
    calls, width = 12_500, 50

    async def main() -> None:
        queue = weir.Queue[int](maxsize)
        chance = random.Random(maxsize)
        put: list[int] = []
        got: list[int] = []
        left = calls

        async def puts() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                item = left
                await queue.aput(item)
                put.append(item)

        async def gets() -> None:
            while True:
                got.append(await queue.aget())

        async def batches() -> None:
            while True:
                got.extend(await queue.aget_many(3, linger=0.0001))

        def start(kind: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
            return asyncio.ensure_future(kind())

        kinds = [puts, gets, puts, batches, gets]
        tasks = [start(kinds[i % 5]) for i in range(width)]
        while left > 0:
            for _ in range(5):
                i = chance.randrange(width)
                tasks[i].cancel()
                tasks[i] = start(kinds[i % 5])
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        with contextlib.suppress(Empty):
            got.extend(queue.get_many(100, timeout=0))
        now = queue.stats()
        assert sorted(put) == sorted(got) and len(put) == len(set(put))
        assert now.accepted == len(put) and now.delivered == len(got)
        assert now.putters_waiting == now.getters_waiting == now.qsize == 0
        assert now.peak_qsize <= maxsize and now.unfinished_tasks == len(put)

    run(main())


# ---- several loops, and threads -----------------------------------------------------------------


def test_loops_and_threads_share_one_queue_and_keep_the_law() -> None:
    queue = weir.Queue[int](5)
    each = 1500
    got: list[list[int]] = []
    sent: list[list[int]] = []

    async def produce(items: range, mine: list[int], chance: random.Random) -> None:
        for item in items:
            while True:
                try:
                    await asyncio.wait_for(queue.aput(item), chance.choice((0.0001, 5)))
                except asyncio.TimeoutError:
                    continue
                break
            mine.append(item)

    async def consume(mine: list[int], chance: random.Random) -> None:
        while True:
            try:
                mine.append(await asyncio.wait_for(queue.aget(), chance.choice((0.0001, 5))))
            except asyncio.TimeoutError:
                continue
            except weir.ShutDown:
                return

    def loop_thread(make: Callable[[], asyncio.AbstractEventLoop], n: int) -> None:
        async def main() -> None:
            chance = random.Random(n)
            mine: list[int] = []
            sent.append(mine)
            lists: list[list[int]] = [[], []]
            got.extend(lists)
            consumers = [asyncio.ensure_future(consume(each, chance)) for each in lists]
            await produce(range(n * each, n * each + each), mine, chance)
            done.wait_turn()
            await asyncio.gather(*consumers)

        run_in(make(), main())

    class Done:
        """Shuts the queue down when all producers are through."""

        def __init__(self, n: int) -> None:
            self._left, self._lock = n, threading.Lock()

        def wait_turn(self) -> None:
            with self._lock:
                self._left -= 1
                if self._left == 0:
                    queue.shutdown()

    def plain(n: int) -> None:
        mine: list[int] = []
        sent.append(mine)
        for item in range(n * each, n * each + each):
            queue.put(item)
            mine.append(item)
        done.wait_turn()

    def plain_consumer() -> None:
        mine: list[int] = []
        got.append(mine)
        for item in queue:
            mine.append(item)

    pytest.importorskip("uvloop", reason="one of the loops is uvloop's")
    done = Done(5)
    makers = [asyncio.new_event_loop, _uvloop, asyncio.new_event_loop]
    threads = [InThread(loop_thread, make, n) for n, make in enumerate(makers)]
    threads += [InThread(plain, n) for n in (3, 4)]
    threads += [InThread(plain_consumer) for _ in range(2)]
    for thread in threads:
        thread.result(60)
    everything = list(range(5 * each))
    assert sorted(itertools.chain(*got)) == sorted(itertools.chain(*sent)) == everything
    now = queue.stats()
    assert now.accepted == now.delivered == 5 * each and now.peak_qsize <= 5
    assert now.putters_waiting == now.getters_waiting == 0


def test_a_thread_wakes_a_loop_that_sleeps(run: Run) -> None:
    async def main() -> None:
        queue = weir.Queue[float](1)
        thread = InThread(queue.put_many, range(50))
        assert [await queue.aget() for _ in range(50)] == list(range(50))
        await asyncio.to_thread(thread.result)

    run(main())


@pytest.mark.parametrize("to_the_loop", [True, False])
def test_a_thread_and_a_loop_on_one_cpu_change_places_for_many_items_not_for_each(
    to_the_loop: bool,
) -> None:
    """Else the loop is called about every third item; when other programs take the CPU, too."""
    code = """
        import asyncio, os, weir

        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        N = 5000

        async def calls(to_the_loop):
            loop, queue, called = asyncio.get_running_loop(), weir.Queue(100), 0
            call = loop.call_soon_threadsafe

            def counted(*args, **kwargs):
                nonlocal called
                called += 1
                return call(*args, **kwargs)

            def put_all():
                for item in range(N):
                    queue.put(item)

            def get_all():
                for _ in range(N):
                    queue.get()

            loop.call_soon_threadsafe = counted
            thread = asyncio.ensure_future(asyncio.to_thread(put_all if to_the_loop else get_all))
            for item in range(N):
                await (queue.aget() if to_the_loop else queue.aput(item))
            await thread
            return called

        assert any(asyncio.run(calls(%s)) < N / 10 for _ in range(100))
    """
    output_of(code % to_the_loop)


def test_a_closed_loop_with_waiters_neither_leaks_nor_blocks_the_others() -> None:
    queue = weir.Queue[object](3)
    loop = asyncio.new_event_loop()
    dead = [loop.create_task(queue.aget()) for _ in range(100)]
    loop.run_until_complete(asyncio.sleep(0))
    assert queue.stats().getters_waiting == 100
    loop.close()
    alive = InThread(queue.get)
    wait_until(lambda: queue.stats().getters_waiting == 101)
    queue.put("for the living")
    assert alive.result() == "for the living"
    wait_until(lambda: queue.stats().getters_waiting == 0)
    for task in dead:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_loop_that_was_closed_between_the_call_and_the_turn_gives_it_up() -> None:
    queue = weir.Queue[int](3)
    loop = asyncio.new_event_loop()
    task = loop.create_task(queue.aget())
    loop.run_until_complete(asyncio.sleep(0))
    queue.put(1)  # the task is called, and will never run
    loop.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    del task
    gc.collect()
    assert queue.get(timeout=5) == 1


def test_a_loop_that_stands_still_holds_up_nobody_for_long() -> None:
    queue = weir.Queue[int](1)
    queue.put(0)
    loop = asyncio.new_event_loop()
    task = loop.create_task(queue.aput(1))
    loop.run_until_complete(asyncio.sleep(0))
    assert queue.get() == 0  # the task is told, and its loop does not run
    queue.put(2, timeout=10)
    assert queue.get() == 2
    getter = loop.create_task(queue.aget())
    loop.run_until_complete(task)  # it comes late, and has its turn
    assert loop.run_until_complete(getter) == 1
    getter = loop.create_task(queue.aget())
    loop.run_until_complete(asyncio.sleep(0))
    queue.put(3)
    loop.close()
    assert queue.get(timeout=10) == 3
    getter._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_queue_its_waiters_and_their_dead_loop_go_together() -> None:
    class Item:
        pass

    queue = weir.Queue[Item](1)
    gone: list[weakref.ref[Any]] = [weakref.ref(queue)]
    loop = asyncio.new_event_loop()
    item, waiting = Item(), Item()
    gone += [weakref.ref(item), weakref.ref(waiting)]
    queue.put(item)
    tasks = [loop.create_task(queue.aput(waiting)), loop.create_task(queue.ajoin())]
    loop.run_until_complete(asyncio.sleep(0))
    assert queue.stats().putters_waiting == 1
    loop.close()
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    del queue, item, waiting, tasks, task, loop
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3


@pytest.mark.parametrize("on_drop", ["None", "lambda item, reason: None"])
@pytest.mark.parametrize("what", ["queue.get()", "queue.shutdown()", "pass", "loop.close()"])
def test_a_queue_and_those_it_has_told_go_together(what: str, on_drop: str) -> None:
    code = f"""
        import asyncio, gc, weakref, weir

        def forgotten():
            queue = weir.Queue(1, on_drop={on_drop})
            queue.put(0)
            loop = asyncio.new_event_loop()
            tasks = [loop.create_task(queue.aput(1)), loop.create_task(queue.ajoin())]
            loop.run_until_complete(asyncio.sleep(0))
            for task in tasks:
                task._log_destroy_pending = False
            {what}
            loop._closed = True  # it says nothing then, when it goes
            return weakref.ref(queue)

        gone = forgotten()
        gc.collect()
        print("fine" if gone() is None else "there")
    """
    assert output_of(code).strip() == "fine"


def test_ctrl_c_in_a_callback_is_not_lost() -> None:
    code = """
        import os, signal, weir

        def drop(item, reason):
            if item == 2:
                os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):
                pass

        queue = weir.Queue(1, overflow="drop_oldest", on_drop=drop)
        try:
            for i in range(100_000):
                queue.put(i)
        except KeyboardInterrupt:
            print("fine" if i < 100 else "late")
    """
    assert output_of(code).strip() == "fine"


def test_a_thousand_waiters_are_woken_one_by_one_and_each_once(run: Run) -> None:
    async def main() -> None:
        queue = weir.Queue[int](1000)
        order: list[int] = []

        async def wait(n: int) -> None:
            assert await queue.aget() == n
            order.append(n)

        tasks = [asyncio.ensure_future(wait(n)) for n in range(1000)]
        await settle()
        queue.put_many(range(10))
        await settle()
        assert order == list(range(10)) and queue.stats().getters_waiting == 990
        await asyncio.to_thread(queue.put_many, range(10, 1000))
        await asyncio.gather(*tasks)
        assert order == list(range(1000))

    run(main())


# ---- as coroutines ------------------------------------------------------------------------------


def test_they_are_coroutines_to_everybody(run: Run) -> None:
    async def main() -> None:
        queue = weir.Queue[int](1)
        call = queue.aput(1)
        assert isinstance(call, Coroutine) and asyncio.iscoroutine(call)
        assert repr(call) == "<coroutine Queue.aput, not begun>"
        await asyncio.create_task(call)
        assert repr(call) == "<coroutine Queue.aput, over>"
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await call
        assert await asyncio.gather(queue.aget(), queue.aput(2)) == [1, None]
        task = asyncio.ensure_future(queue.aput(3))
        await settle()
        assert "Queue.aput()" in repr(task)
        assert await asyncio.shield(queue.aget()) == 2
        await task

    run(main())
    queue = weir.Queue[int](1)
    asyncio.run(queue.aput(1))
    assert queue.qsize() == 1


def test_one_that_is_never_awaited_says_so() -> None:
    queue = weir.Queue[int](1)
    with pytest.warns(RuntimeWarning, match=r"coroutine 'Queue.aput' was never awaited"):
        _ = queue.aput(1) is None
    assert queue.qsize() == 0
    queue.aput(1).close()  # no warning, which would be an error here
    closed = queue.aget()
    closed.close()
    with pytest.raises(RuntimeError):
        closed.send(None)


def test_without_a_loop_it_says_so_only_where_it_would_wait() -> None:
    queue = weir.Queue[int](1)
    with pytest.raises(StopIteration):
        queue.aput(1).send(None)
    with pytest.raises(RuntimeError, match="no running event loop"):
        queue.aput(2).send(None)
    assert queue.unfinished_tasks == 1 and queue.stats().putters_waiting == 0


def test_an_exception_thrown_into_it_ends_it(run: Run) -> None:
    async def main() -> None:
        queue = weir.Queue[int](1)
        call = queue.aget()
        call.send(None)
        assert queue.stats().getters_waiting == 1
        with pytest.raises(KeyError):
            call.throw(KeyError("mine"))
        assert queue.stats().getters_waiting == 0
        fresh = queue.aget()
        with pytest.raises(TypeError):
            fresh.throw(3)  # type: ignore[call-overload]
        with pytest.raises(ZeroDivisionError):
            fresh.throw(ZeroDivisionError)

    run(main())


def test_a_forked_child_cannot_use_it_and_the_parent_goes_on() -> None:
    code = """
        import asyncio, os, warnings, weir
        warnings.simplefilter("ignore", DeprecationWarning)

        async def main():
            queue = weir.Queue(1)
            get = asyncio.ensure_future(queue.aget())
            await asyncio.sleep(0)
            pid = os.fork()
            if pid == 0:
                try:
                    queue.aget()
                except RuntimeError as error:
                    os._exit(0 if "parent process" in str(error) else 1)
                os._exit(2)
            assert os.waitpid(pid, 0)[1] == 0
            await queue.aput(5)
            assert await get == 5
        asyncio.run(main())
        print("fine")
    """
    assert output_of(code).strip() == "fine"


def test_a_program_that_ends_with_waiters_ends() -> None:
    code = """
        import asyncio, threading, weir
        queue = weir.Queue(1)
        kept = []

        def run():
            loop = asyncio.new_event_loop()
            kept.append((loop, loop.create_task(queue.aget())))
            loop.run_forever()

        threading.Thread(target=run, daemon=True).start()
        while queue.stats().getters_waiting == 0:
            pass
        print("fine")
    """
    assert output_of(code).strip() == "fine"


# ---- beside other features ----------------------------------------------------------------------


def test_memory_is_reserved_before_the_put(run: Run) -> None:
    async def main() -> None:
        governor = weir.MemoryGovernor(1 << 30)
        queue = weir.Queue[bytes](10, sizer=lambda _: 600 << 20, memory=governor)
        await queue.aput(b"1")
        put = asyncio.ensure_future(queue.aput(b"2"))
        await asyncio.sleep(0.02)
        assert not put.done() and governor.stats().reserved == 600 << 20
        with pytest.raises(Full):
            await queue.aput(b"3", timeout=0)
        with pytest.raises(Full):
            await queue.aput(b"3", timeout=0.02)
        assert await queue.aget() == b"1"
        await put
        assert await queue.aget() == b"2"
        assert governor.stats().reserved == 0
        await queue.aput(b"4")
        put = asyncio.ensure_future(queue.aput(b"5"))
        await asyncio.sleep(0.02)
        put.cancel()
        await asyncio.wait([put])
        put = asyncio.ensure_future(queue.aput(b"6"))
        await asyncio.sleep(0.02)
        queue.shutdown()
        with pytest.raises(weir.ShutDown):
            await put
        assert await queue.aget() == b"4" and governor.stats().reserved == 0

    run(main())


def test_reserved_memory_comes_back_when_the_room_does_not(run: Run) -> None:
    async def main() -> None:
        governor = weir.MemoryGovernor(1 << 30)
        queue = weir.Queue[bytes](1, sizer=lambda _: 100 << 20, memory=governor)
        await queue.aput(b"1")
        with pytest.raises(Full):
            await queue.aput(b"2", timeout=0.02)
        put = asyncio.ensure_future(queue.aput(b"3"))
        await asyncio.sleep(0.02)
        put.cancel()
        await asyncio.wait([put])
        assert governor.stats().reserved == 100 << 20
        assert queue.unfinished_tasks == 1 and obeys_the_law(queue)

    run(main())


def test_it_waits_on_trio() -> None:
    trio = pytest.importorskip("trio", reason="trio is not installed")
    queue = weir.Queue[int](2)
    got: list[int] = []

    async def consume() -> None:
        async for item in queue:
            got.append(item)

    async def main() -> None:
        with trio.fail_after(30):
            with pytest.raises(Empty):
                await queue.aget(0.01)
            with trio.move_on_after(0.01) as scope:
                await queue.aget()
            assert scope.cancelled_caught and queue.stats().getters_waiting == 0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(consume)
                await trio.to_thread.run_sync(queue.put_many, range(10))
                for i in range(10, 20):
                    await queue.aput(i)
                queue.shutdown()

    trio.run(main)
    assert got == list(range(20))


def test_a_bucket_waits_on_trio_too() -> None:
    trio = pytest.importorskip("trio", reason="trio is not installed")
    bucket = weir.TokenBucket(100, burst=1)

    async def main() -> None:
        with trio.fail_after(30):
            since = time.monotonic()
            for _ in range(6):
                assert await bucket.aacquire()
            assert time.monotonic() - since > 0.045
            assert not await bucket.aacquire(timeout=0.001)
            with trio.move_on_after(0.001):
                await bucket.aacquire()
            assert await bucket.aacquire()

    trio.run(main)


def test_a_loop_that_blocks_holds_up_only_what_is_kept_for_it() -> None:
    queue = weir.Queue[int](5)
    blocked, go = threading.Event(), threading.Event()

    def run_loop() -> int:
        async def main() -> int:
            get = asyncio.ensure_future(queue.aget())
            await asyncio.sleep(0)
            blocked.set()
            go.wait(20)
            return await get

        return asyncio.run(main())

    loop = InThread(run_loop)
    assert blocked.wait(20)
    queue.put_many([1, 2, 3])
    since = time.monotonic()
    assert [queue.get(timeout=5), queue.get(timeout=5)] == [1, 2]
    assert time.monotonic() - since < 5
    go.set()
    assert loop.result() == 3
