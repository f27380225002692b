"""weir.Limiter: what is its own beside the promises of every limit (test_limits.py)."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import pytest
from conftest import InThread, output_of, wait_until

import weir


def name() -> str:
    return f"pytest.{os.getpid()}.{time.monotonic_ns()}"


# ---- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: weir.Limiter(0), "'limit' must be from 1 to 2**46 - 1, not 0"),
        (
            lambda: weir.Limiter(1, order=cast(Any, "any")),
            "'order' must be \"fifo\" or \"lifo\", not 'any'",
        ),
        (lambda: weir.Limiter(1, shed_after=0), "'shed_after' must be > 0 s, not 0"),
        (lambda: weir.Limiter(1, shared="a/b"), "'shared' must be a name of 1 to 64 letters"),
        (lambda: weir.Limiter(1, shared="a\0b"), "'shared' must be a name of 1 to 64 letters"),
        (lambda: weir.Limiter(1, partitions={}), "partitions must be a dict of 1 to 8"),
        (lambda: weir.Limiter(1, partitions={"a": 2}), "'partitions[a]' must be from 0 to 1"),
        (lambda: weir.Limiter(1, partitions={"a": 0.6, "b": 0.6}), "sum is at most 1"),
        (lambda: weir.AIMD(backoff=0.3), "'backoff' must be 0.5 to below 1, not 0.3"),
        (lambda: weir.AIMD(5, min_limit=6), "'initial' must be from min_limit to max_limit"),
        (lambda: weir.AIMD(timeout=0), "'timeout' must be > 0, or None, not 0"),
        (lambda: weir.Vegas(alpha=5, beta=3), "'alpha' must be at most beta, not 5"),
        (lambda: weir.Vegas(smoothing=0), "'smoothing' must be above 0 and at most 1, not 0"),
        (lambda: weir.Limiter(weir.Vegas(latency=1.5)), '\'latency\' must be "average", "min"'),
        (lambda: weir.Gradient2(tolerance=0.5), "'tolerance' must be >= 1, not 0.5"),
        (lambda: weir.Gradient2(window_samples=0), "'window_samples' must be an int from 1"),
    ],
)
def test_what_is_out_of_range_is_said(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=r"must be|has to be|at most") as caught:
        make()
    assert sentence in str(caught.value)


def test_what_is_no_limit_is_a_type_error() -> None:
    for wrong in ("3", 2.5, True, None):
        with pytest.raises(TypeError, match="'limit' must be an int, AIMD, Vegas or Gradient2"):
            weir.Limiter(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'drop_on' must be exception classes"):
        weir.Limiter(1, drop_on="x")  # type: ignore[arg-type]


def test_settings_are_visible_and_cannot_change() -> None:
    settings = weir.Gradient2(min_limit=4)
    assert "min_limit=4" in repr(settings)
    assert "tolerance=1.0" in repr(weir.Limiter(settings))
    with pytest.raises(AttributeError):
        settings.min_limit = 3  # type: ignore[misc]
    assert repr(weir.Limiter(3, name="db")) == "<weir.Limiter 'db': 0 of 3>"


# ---- the limit -----------------------------------------------------------------------------------


def test_a_fixed_limit_can_be_set_while_in_use() -> None:
    limiter = weir.Limiter(1)
    permit = limiter.acquire()
    waiting = InThread(limiter.acquire)
    wait_until(lambda: limiter.stats().waiting == 1)
    limiter.limit = 2
    waiting.result().release()
    permit.release()
    for wrong in (0, -1, 1 << 46):
        with pytest.raises(ValueError, match="limit must be from 1"):
            limiter.limit = wrong
    with pytest.raises(AttributeError, match="an adaptive limit finds itself"):
        weir.Limiter(weir.Vegas()).limit = 3


def test_costs_count_and_too_much_is_refused() -> None:
    limiter = weir.Limiter(5)
    with limiter.acquire(cost=4) as permit:
        assert (permit.cost, limiter.in_flight) == (4, 4)
        assert limiter.try_acquire(cost=2) is None
    with pytest.raises(weir.TooLarge, match="a cost of 6 is more than the limit of 5"):
        limiter.acquire(cost=6)
    for wrong in (0, -1, 1 << 46):
        with pytest.raises(ValueError, match="cost must be from 1"):
            limiter.acquire(cost=wrong)


def test_reports_move_an_adaptive_limit() -> None:
    limiter = weir.Limiter(weir.AIMD())
    limiter.acquire().ignore()
    assert limiter.limit == 20
    limiter.acquire().drop()
    assert limiter.limit == 18
    assert limiter.stats().why == "shrank: a call was dropped or timed out"
    assert limiter.stats().drops == 1


def test_a_block_that_ends_with_a_timeout_reports_a_drop() -> None:
    for takes_a_permit in (False, True):
        limiter = weir.Limiter(weir.AIMD())

        def block(error: type[Exception], limiter: weir.Limiter = limiter) -> None:
            with limiter.acquire() if takes_a_permit else limiter:  # noqa: B023
                raise error

        with pytest.raises(ValueError):  # noqa: PT011
            block(ValueError)
        assert (limiter.limit, limiter.stats().samples) == (20, 0)
        with pytest.raises(TimeoutError):
            block(TimeoutError)
        assert limiter.limit == 18
    limiter = weir.Limiter(weir.AIMD(), drop_on=(ConnectionError, weir.Overloaded))
    with pytest.raises(ConnectionRefusedError), limiter:
        raise ConnectionRefusedError
    assert limiter.limit == 18


def test_time_is_measured_for_each_block() -> None:
    limiter = weir.Limiter(weir.Vegas(window_samples=1))
    with limiter:
        time.sleep(0.02)
        with limiter:
            pass
    stats = limiter.stats()
    assert stats.samples == 2
    assert stats.latency is not None


# ---- partitions, order, shedding -----------------------------------------------------------------


def test_a_partition_below_its_share_goes_first() -> None:
    limiter = weir.Limiter(4, partitions={"live": 0.75, "batch": 0.25})
    batch = [limiter.acquire(partition="batch") for _ in range(4)]
    assert limiter.stats().partitions == {"live": 0, "batch": 4}
    more = InThread(limiter.acquire, partition="batch")
    wait_until(lambda: limiter.stats().waiting == 1)
    live = InThread(limiter.acquire, partition="live")
    wait_until(lambda: limiter.stats().waiting == 2)
    batch.pop().release()
    kept = live.result()
    assert not more.is_done
    batch.pop().release()
    more.result().release()
    kept.release()
    with pytest.raises(ValueError, match="there is no partition 'other'"):
        limiter.acquire(partition="other")
    with pytest.raises(TypeError, match="say partition=NAME"), limiter:
        pass


def test_with_lifo_the_last_goes_first() -> None:
    limiter = weir.Limiter(1, order="lifo")
    permit = limiter.acquire()
    first = InThread(limiter.acquire)
    wait_until(lambda: limiter.stats().waiting == 1)
    last = InThread(limiter.acquire)
    wait_until(lambda: limiter.stats().waiting == 2)
    permit.release()
    last.result().release()
    first.result().release()


def test_in_a_standing_line_the_old_are_shed() -> None:
    # Who waits for 0.4 s while nobody gets through is shed: until then all are in line.
    limiter = weir.Limiter(1, shed_after=0.02)
    first = limiter.acquire()

    def wait() -> bool:
        try:
            with limiter.acquire():
                time.sleep(0.24)
        except weir.Overloaded:
            return True
        return False

    waiting = [InThread(wait) for _ in range(20)]
    wait_until(lambda: limiter.stats().waiting + limiter.stats().shed >= 20)
    first.release()
    shed = sum(one.result() for one in waiting)
    assert 0 < shed < 20
    assert limiter.stats().shed == shed


# ---- blocks in threads, tasks, generators --------------------------------------------------------


def test_a_decorated_function_runs_inside() -> None:
    limiter = weir.Limiter(1)

    @limiter
    def square(x: int) -> int:
        """Squares."""
        assert limiter.in_flight == 1
        return x * x

    @limiter
    async def cube(x: int) -> int:
        await asyncio.sleep(0)
        assert limiter.in_flight == 1
        return x * x * x

    assert square(3) == 9
    assert square.__doc__ == "Squares."
    assert asyncio.run(cube(3)) == 27
    assert limiter.stats().released == 2

    def numbers() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="is a generator"):
        limiter(numbers)


def test_blocks_of_interleaved_generators_each_end_once() -> None:
    limiter = weir.Limiter(weir.Vegas())

    def inside() -> Iterator[None]:
        with limiter:
            yield

    one, two = inside(), inside()
    next(one)
    next(two)
    next(one, None)
    assert limiter.in_flight == 1
    next(two, None)
    third = inside()
    next(third)
    del third
    assert limiter.in_flight == 0
    assert limiter.stats().released == 3


def test_blocks_leave_nothing_in_their_context() -> None:
    before = len(contextvars.copy_context())
    for _ in range(5):
        limiter = weir.Limiter(weir.Vegas())
        with limiter, limiter:
            pass
        with contextlib.suppress(TimeoutError), limiter:
            raise TimeoutError
    assert len(contextvars.copy_context()) == before


def test_a_block_left_in_another_context_gives_back_without_a_time() -> None:
    async def run() -> None:
        limiter = weir.Limiter(weir.Vegas())

        async def inside() -> AsyncIterator[None]:
            async with limiter:
                yield

        generator = inside()
        await asyncio.create_task(generator.__anext__())  # type: ignore[arg-type]
        assert limiter.in_flight == 1
        await generator.aclose()  # type: ignore[attr-defined]
        assert limiter.in_flight == 0
        assert limiter.stats().samples == 0

    asyncio.run(run())


def test_a_task_started_in_a_block_takes_nothing_from_it() -> None:
    async def run() -> None:
        limiter = weir.Limiter(weir.Vegas(window_samples=1))

        async def child() -> None:
            async with limiter:
                await asyncio.sleep(0)

        async with limiter:
            await asyncio.gather(*(child() for _ in range(5)))
            assert limiter.in_flight == 1
        assert limiter.stats().samples == 6
        assert limiter.in_flight == 0

    asyncio.run(run())


def test_many_loops_and_threads_wait_for_one_limiter() -> None:
    limiter = weir.Limiter(2)
    done = []

    def loop() -> None:
        async def one() -> None:
            async with limiter:
                await asyncio.sleep(0.001)
                done.append(1)

        async def run() -> None:
            await asyncio.gather(*(one() for _ in range(20)))

        asyncio.run(run())

    threads = [threading.Thread(target=loop) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(done) == 100
    assert limiter.stats().peak == 2
    assert limiter.in_flight == 0


def test_ctrl_c_ends_a_wait_and_takes_nothing() -> None:
    limiter = weir.Limiter(1)
    permit = limiter.acquire()
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        wait_until(lambda: limiter.stats().waiting == 1)
        signal.pthread_kill(main, signal.SIGINT)

    helper = InThread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        limiter.acquire()
    helper.result()
    permit.release()
    assert limiter.stats().admitted == 1
    assert limiter.in_flight == 0


# ---- processes -----------------------------------------------------------------------------------


def test_a_private_limiter_is_the_parent_s() -> None:
    out = output_of("""
        import os, weir
        limiter = weir.Limiter(2)
        permit = limiter.acquire()
        with limiter:
            if (child := os.fork()) == 0:
                try:
                    limiter.acquire()
                except RuntimeError as error:
                    print(error, flush=True)
                limiter.__exit__(None, None, None)
                permit.release()
                os._exit(0)
            os.waitpid(child, 0)
            assert limiter.in_flight == 2
    """)
    assert "belongs to the parent process" in out


def test_a_forked_child_gives_back_nothing_of_its_parent_s() -> None:
    out = output_of("""
        import os, weir
        limiter = weir.Limiter(4, shared=f"fork.{os.getpid()}")
        permit = limiter.acquire()
        with limiter:
            child = os.fork()
        if child == 0:
            permit.release()
            del permit
            with limiter:
                assert limiter.in_flight >= 2
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print(limiter.in_flight, limiter.stats().lost)
    """)
    assert out.split() == ["1", "0"]


def test_a_shared_limiter_can_be_pickled_and_others_cannot() -> None:
    shared = name()
    limiter = weir.Limiter(weir.Vegas(max_limit=50), shared=shared, partitions={"a": 0.5, "b": 0.5})
    again = pickle.loads(pickle.dumps(limiter))
    with limiter.acquire(partition="a"):
        assert again.in_flight == 1
        assert again.stats().partitions == {"a": 1, "b": 0}
    assert repr(again) == repr(limiter)
    with pytest.raises(TypeError, match="one with shared='name' can"):
        pickle.dumps(weir.Limiter(1))
    with pytest.raises(TypeError):
        copy.copy(weir.Limiter(1))


def test_who_shares_a_limiter_gives_it_the_same_partitions() -> None:
    shared = name()
    limiter = weir.Limiter(3, shared=shared, partitions={"a": 1.0})
    with pytest.raises(ValueError, match=r"with the same options \(partitions, say\)"):
        weir.Limiter(3, shared=shared, partitions={"a": 0.5, "b": 0.5})
    assert limiter.limit == 3


def run_worker(limiter: weir.Limiter, count: Callable[[int], None], calls: int) -> None:
    def in_thread() -> None:
        for _ in range(calls):
            with limiter:
                count(1)
                count(-1)

    def in_loop() -> None:
        async def one() -> None:
            async with limiter:
                count(1)
                await asyncio.sleep(0)
                count(-1)

        async def run() -> None:
            await asyncio.gather(*(one() for _ in range(calls)))

        asyncio.run(run())

    threads = [threading.Thread(target=in_thread) for _ in range(3)]
    threads += [threading.Thread(target=in_loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("limit", [3, weir.AIMD(3, 1, 3), weir.Vegas(3, 1, 3)], ids=repr)
def test_threads_loops_and_processes_together_are_never_more_than_the_limit(limit: Any) -> None:
    context = multiprocessing.get_context("fork")
    limiter = weir.Limiter(limit, shared=name())
    board = context.Array("i", 2)  # inside, peak

    def count(by: int) -> None:
        with board.get_lock():
            board[0] += by
            board[1] = max(board[1], board[0])

    children = [context.Process(target=run_worker, args=(limiter, count, 40)) for _ in range(2)]
    for child in children:
        child.start()
    run_worker(limiter, count, 40)
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    stats = limiter.stats()
    assert (board[0], limiter.in_flight) == (0, 0)
    assert 1 <= board[1] <= 3
    assert stats.peak <= 3
    assert stats.admitted == stats.released == 3 * 5 * 40


def test_what_a_killed_process_held_comes_back() -> None:
    limiter = weir.Limiter(1, shared=name())
    if (child := os.fork()) == 0:
        kept = limiter.acquire()
        assert kept.held
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    limiter.acquire(timeout=20).release()
    assert limiter.in_flight == 0


def test_a_coroutine_that_gave_up_keeps_nobody_out_of_a_shared_limit() -> None:
    limiter = weir.Limiter(5, shared=name())
    kept = limiter.acquire(cost=3)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await limiter.aacquire(0.01, cost=3)
        cancelled = asyncio.create_task(limiter.aacquire(cost=4))
        await asyncio.sleep(0.01)
        cancelled.cancel()
        (await limiter.aacquire(20, cost=2)).release()  # there are two

    asyncio.run(main())
    limiter.acquire(20, cost=2).release()
    wait_until(lambda: limiter.stats().waiting == 0)
    kept.release()
    assert limiter.in_flight == 0


def test_a_coroutine_that_does_not_want_to_wait_does_not_stand_in_line() -> None:
    limiter = weir.Limiter(5, shared=name())
    with limiter.acquire(cost=3):

        async def main() -> None:
            with pytest.raises(TimeoutError):
                await limiter.aacquire(0, cost=3)
            assert limiter.stats().waiting == 0
            assert limiter.stats().refused == 1
            (await limiter.aacquire(0, cost=2)).release()

        asyncio.run(main())


@pytest.mark.parametrize("shared", [None, "by name"])
def test_coroutines_that_give_up_are_counted_like_threads(shared: str | None) -> None:
    limiter = weir.Limiter(1, shared=shared and name())

    async def main() -> None:
        waiting = [asyncio.create_task(limiter.aacquire()) for _ in range(3)]
        await asyncio.sleep(0)  # they have begun
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError):
                await limiter.aacquire(timeout)
        for task in waiting[1:]:
            task.cancel()
        await asyncio.wait(waiting[1:])
        assert limiter.stats().refused == 4
        kept.release()
        (await waiting[0]).release()

    kept = limiter.acquire()
    asyncio.run(main())
    stats = limiter.stats()
    assert (stats.admitted, stats.released, stats.refused) == (2, 2, 4)


def test_a_program_ends_while_its_coroutines_wait_and_leaves_nothing_behind() -> None:
    shared = name()
    out = output_of(f"""
        import asyncio, weir
        limiter = weir.Limiter(1, shared={shared!r})
        permit = limiter.acquire()

        async def main():
            tasks = [asyncio.create_task(limiter.aacquire()) for _ in range(3)]
            await asyncio.sleep(0.02)

        asyncio.run(main())
        print("end")
    """)
    assert out == "end\n"
    assert not [entry for entry in os.listdir("/dev/shm") if shared in entry]


# ---- the arithmetic alone ------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [weir.Vegas(), weir.Gradient2()], ids=repr)
def test_a_model_finds_the_limit_in_simulated_time(settings: Any) -> None:
    model = weir.LimitModel(settings)
    now, limit = 0.0, model.limit
    for _ in range(100_000):  # 30 servers, 10 ms
        latency = 0.01 * max(1.0, limit / 30)
        now += latency / limit
        limit = model.sample(now, latency, limit)
    assert 20 <= limit <= 33
    assert model.baseline is not None
    assert abs(model.baseline - 0.01) < 0.0005
    assert isinstance(model.why, str)
    with pytest.raises(ValueError, match="now must be >= 0 and latency > 0"):
        model.sample(0.0, -1.0, 3)
    with pytest.raises(TypeError, match="must be an AIMD, Vegas or Gradient2"):
        weir.LimitModel(3)  # type: ignore[arg-type]


# ---- settings that differ ------------------------------------------------------------------------


def test_who_names_a_limiter_that_is_another_one_is_warned() -> None:
    shared = name()
    there = weir.Limiter(3, shared=shared)
    with pytest.warns(RuntimeWarning, match="exists already, with the algorithm 'fixed'"):
        other = weir.Limiter(weir.Vegas(), shared=shared)
    assert repr(other) == f"<weir.Limiter {shared!r}: 0 of 3>"
    with pytest.warns(RuntimeWarning, match="a limit of 3; what is said here has no effect"):
        weir.Limiter(4, shared=shared)
    weir.Limiter(3, shared=shared)
    assert there.limit == 3


@pytest.mark.parametrize("limit", [weir.Limiter(5), weir.TokenBucket(5)])
def test_calling_a_limit_with_something_else_than_a_function_says_what_was_meant(
    limit: Any,
) -> None:
    with pytest.raises(TypeError, match=r"a decorator takes a function, not 5; .*acquire"):
        limit(5)


def test_numbers_that_are_none_are_named() -> None:
    with pytest.raises(TypeError, match=r"'partitions\[a\]' must be a number"):
        weir.Limiter(5, partitions={"a": "x"})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="'shed_after' must be a number"):
        weir.Limiter(5, shed_after="x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'timeout' must be a number"):
        weir.AIMD(timeout="x")  # type: ignore[arg-type]
