"""weir.TokenBucket: in threads, loops and processes.  Who waits, waits for milliseconds."""

from __future__ import annotations

import asyncio
import copy
import gc
import multiprocessing
import os
import pickle
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from conftest import InThread, output_of, wait_until
from hypothesis import given
from hypothesis import strategies as st

import weir

HOUR = 3600.0


@pytest.fixture
def shared_name() -> Iterator[str]:
    name = f"pytest.{os.getpid()}.{time.monotonic_ns()}"
    yield name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it is there, with other terms
        last = weir.TokenBucket(1, shared=name)
    last.change(1e9, burst=1)  # full at once, so it ends here
    wait_until(lambda: last.available == 1)


def empty(rate: float = 1, *, per: float = HOUR, burst: int = 1) -> weir.TokenBucket:
    bucket = weir.TokenBucket(rate, per=per, burst=burst)
    assert bucket.try_acquire(burst)
    return bucket


# ---- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"rate": 0}, "'rate' must be a number of tokens > 0, not 0"),
        ({"rate": -3}, "'rate' must be a number of tokens > 0, not -3"),
        ({"rate": float("nan")}, "'rate' must be a number of tokens > 0, not nan"),
        ({"rate": float("inf")}, "'rate' must be a number of tokens > 0, not inf"),
        ({"rate": 1e13}, "'rate' in 'per' is out of range"),
        ({"rate": 1e-13}, "'rate' in 'per' is out of range"),
        ({"rate": 1, "per": 0}, "'per' must be a number of seconds > 0, not 0"),
        ({"rate": 1, "per": 1e10}, "'per' must be from 1e-9 to 2.3e9 seconds"),
        ({"rate": 1, "burst": 0}, r"'burst' must be from 1 to 2\*\*38 - 1 tokens, not 0"),
        ({"rate": 1, "burst": 2**40}, "'burst' must be from 1"),
        ({"rate": 1, "shared": "a/b"}, "'shared' must be a name of 1 to 64 letters"),
        ({"rate": 1, "shared": ""}, "'shared' must be a name of 1 to 64 letters"),
        ({"rate": 1, "shared": "a\0b"}, "'shared' must be a name of 1 to 64 letters"),
    ],
)
def test_a_bad_argument_is_refused_and_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        weir.TokenBucket(**arguments)


def test_arguments_of_the_wrong_type_are_refused() -> None:
    with pytest.raises(TypeError):
        weir.TokenBucket("fast")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        weir.TokenBucket(1, burst=1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'shared' must be a str"):
        weir.TokenBucket(1, shared=b"x")  # type: ignore[arg-type]
    bucket = weir.TokenBucket(1)
    for n in (0, -1, -(2**70)):
        with pytest.raises(ValueError, match="'n' must be > 0"):
            bucket.try_acquire(n)
    with pytest.raises(ValueError, match="'timeout' must be"):
        bucket.acquire(timeout=-1)
    with pytest.raises(ValueError, match="'timeout' must not be NaN"):
        asyncio.run(bucket.aacquire(timeout=float("nan")))
    with pytest.raises(ValueError, match="'timeout' must be a non-negative number"):
        asyncio.run(bucket.aacquire(timeout=-1))
    with pytest.raises(AttributeError):
        del bucket.rate


@pytest.mark.parametrize("rate", [1, 0.1, 2.5, 1 / 3, 1000, 123.456, 1e12, 1e-6, 3.7e-9])
def test_a_rate_is_told_as_it_was_given(rate: float) -> None:
    bucket = weir.TokenBucket(rate, burst=3)
    assert bucket.rate == pytest.approx(rate, rel=1e-9)
    assert (bucket.per, bucket.burst) == (1.0, 3)
    bucket.rate = 2 * rate if rate < 1e9 else rate / 2
    assert bucket.rate == pytest.approx(2 * rate if rate < 1e9 else rate / 2, rel=1e-9)
    assert bucket.burst == 3


def test_the_burst_is_what_comes_in_the_period_unless_it_is_said() -> None:
    assert weir.TokenBucket(10).burst == 10
    assert weir.TokenBucket(0.5).burst == 1
    assert weir.TokenBucket(2.9, per=60).burst == 2


# ---- threads ------------------------------------------------------------------------------------


def test_capacity_5_and_2_per_second_gives_5_at_once() -> None:
    bucket = weir.TokenBucket(2, burst=5)
    assert [bucket.try_acquire() for _ in range(6)] == [True] * 5 + [False]
    stats = bucket.stats()
    assert isinstance(stats, weir.TokenBucketStats)
    assert (stats.granted, stats.refused, stats.available) == (5, 1, 0)


def test_acquire_waits_for_its_tokens_and_not_less() -> None:
    bucket = weir.TokenBucket(100, burst=1)
    began = time.monotonic()
    assert all(bucket.acquire() for _ in range(6))
    assert time.monotonic() - began >= 0.05
    assert bucket.stats().blocked > 0


def test_a_timeout_that_cannot_be_kept_is_false_at_once() -> None:
    bucket = empty()
    began = time.monotonic()
    assert bucket.acquire(timeout=HOUR / 2) is False
    assert bucket.acquire(timeout=0) is False
    assert asyncio.run(bucket.aacquire(timeout=HOUR / 2)) is False
    assert asyncio.run(bucket.aacquire(timeout=0)) is False
    assert time.monotonic() - began < HOUR / 4
    assert bucket.stats().granted == 1


def test_more_than_the_burst_is_too_large() -> None:
    bucket = weir.TokenBucket(5)
    with pytest.raises(weir.TooLarge, match="6 tokens are more than the burst of 5"):
        bucket.try_acquire(6)
    with pytest.raises(weir.TooLarge):
        bucket.acquire(2**80)
    with pytest.raises(weir.TooLarge):
        asyncio.run(bucket.aacquire(6))
    with pytest.raises(weir.TooLarge):
        bucket.reserve(6)


def test_a_try_never_overtakes_who_waits() -> None:
    bucket = weir.TokenBucket(1, per=HOUR, burst=10)
    assert bucket.try_acquire(8)
    large = InThread(bucket.acquire, 5)
    wait_until(lambda: bucket.stats().waiting == 1)
    assert not bucket.try_acquire(1)
    bucket.close()
    with pytest.raises(weir.ShutDown, match="closed"):
        large.result()
    with pytest.raises(weir.ShutDown):
        bucket.try_acquire()


def test_another_rate_moves_threads_and_tasks_that_wait() -> None:
    bucket = empty(burst=4)
    threads = [InThread(bucket.acquire) for _ in range(2)]
    tasks = InThread(asyncio.run, bucket.aacquire(2))
    wait_until(lambda: bucket.stats().waiting == 3)
    bucket.rate = 1e6
    assert all(call.result() for call in [*threads, tasks])
    assert bucket.stats().granted == 8


def test_a_smaller_burst_ends_waits_that_it_makes_impossible() -> None:
    bucket = empty(burst=10)
    thread = InThread(bucket.acquire, 10)
    task = InThread(asyncio.run, bucket.aacquire(10))
    wait_until(lambda: bucket.stats().waiting == 2)
    bucket.burst = 5
    for call in (thread, task):
        with pytest.raises(weir.TooLarge):
            call.result()


def test_threads_together_get_no_more_than_the_rate() -> None:
    began = time.monotonic()
    bucket = weir.TokenBucket(2000, burst=20)
    done = threading.Event()

    def take() -> int:
        taken = 0
        while not done.is_set():
            taken += bucket.acquire(timeout=0.05)
        return taken

    threads = [InThread(take) for _ in range(8)]
    time.sleep(0.3)
    done.set()
    total = sum(thread.result() for thread in threads)
    assert total == bucket.stats().granted
    assert total <= 2000 * (time.monotonic() - began) + 20


def test_a_signal_ends_a_wait_and_takes_nothing() -> None:
    assert (
        output_of(
            """
            import signal, threading, weir
            bucket = weir.TokenBucket(1, per=3600)
            assert bucket.try_acquire()
            def stop(number, frame):
                raise KeyError("stop")
            signal.signal(signal.SIGALRM, stop)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            try:
                bucket.acquire()
            except KeyError:
                print("ended", bucket.stats().waiting, bucket.stats().granted)
            """
        )
        == "ended 0 1\n"
    )


def test_a_program_ends_although_threads_and_tasks_wait() -> None:
    assert (
        output_of(
            """
            import asyncio, threading, time, weir
            bucket = weir.TokenBucket(1, per=3600)
            bucket.acquire()
            for target in (bucket.acquire, lambda: asyncio.run(bucket.aacquire())):
                threading.Thread(target=target, daemon=True).start()
            while bucket.stats().waiting < 2:
                time.sleep(0.001)
            print("end")
            """
        )
        == "end\n"
    )


# ---- asyncio ------------------------------------------------------------------------------------


def test_tasks_of_several_loops_and_threads_share_one_line() -> None:
    bucket = weir.TokenBucket(1000, burst=5)

    async def many() -> list[bool]:
        return await asyncio.gather(*(bucket.aacquire() for _ in range(30)))

    began = time.monotonic()
    calls = [InThread(asyncio.run, many()) for _ in range(3)]
    threads = [InThread(bucket.acquire, 3) for _ in range(5)]
    assert all(all(call.result()) for call in calls)
    assert all(thread.result() for thread in threads)
    assert bucket.stats().granted == 105
    assert bucket.stats().waiting == 0
    assert time.monotonic() - began >= 0.1


def test_tasks_are_served_in_the_order_they_came() -> None:
    async def run() -> list[int]:
        bucket = weir.TokenBucket(500, burst=5)
        order: list[int] = []

        async def take(which: int) -> None:
            await bucket.aacquire(1 + which % 5)
            order.append(which)

        await asyncio.gather(*(take(which) for which in range(20)))
        return order

    assert asyncio.run(run()) == list(range(20))


def test_a_cancelled_task_has_taken_nothing_and_the_next_goes_on() -> None:
    async def run() -> None:
        bucket = empty(10, per=1, burst=1000)
        large = asyncio.create_task(bucket.aacquire(1000))
        small = asyncio.create_task(bucket.aacquire(1))
        await asyncio.sleep(0)
        assert bucket.stats().waiting == 2
        large.cancel()
        with pytest.raises(asyncio.CancelledError):
            await large
        assert await small  # and not after 100 s
        assert bucket.stats().granted == 1001

    asyncio.run(run())


def test_cancelling_at_random_neither_loses_nor_leaks_tokens() -> None:
    async def run() -> None:
        bucket = weir.TokenBucket(2000, burst=10)
        granted = 0

        async def take(n: int) -> None:
            nonlocal granted
            if await bucket.aacquire(n):
                granted += n

        tasks = [asyncio.create_task(take(1 + i % 3)) for i in range(150)]
        for i, task in enumerate(tasks):
            if i % 2:
                await asyncio.sleep(0.0005)
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert bucket.stats().granted == granted
        assert bucket.stats().waiting == 0

    asyncio.run(run())


def test_wait_for_and_the_timeout_do_the_same() -> None:
    async def run() -> None:
        bucket = empty()
        with pytest.raises((TimeoutError, asyncio.TimeoutError)):
            await asyncio.wait_for(bucket.aacquire(), 0.01)
        assert await bucket.aacquire(timeout=0.01) is False
        assert bucket.stats().waiting == 0

    asyncio.run(run())


def test_a_closed_bucket_ends_tasks_that_wait() -> None:
    bucket = empty()
    task = InThread(asyncio.run, bucket.aacquire())
    wait_until(lambda: bucket.stats().waiting == 1)
    bucket.close()
    bucket.close()
    with pytest.raises(weir.ShutDown):
        task.result()
    assert bucket.is_closed and "closed" in repr(bucket)


def test_a_loop_that_is_gone_holds_nobody_up() -> None:
    bucket = empty(1000, per=1)
    loop = asyncio.new_event_loop()
    task = loop.create_task(bucket.aacquire())
    bucket.rate = 1e-3
    loop.run_until_complete(asyncio.sleep(0))
    assert bucket.stats().waiting == 1
    bucket.rate = 1000  # tells a loop that does not run
    assert bucket.acquire()
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    assert bucket.stats().waiting == 0


def test_with_and_decorators_take_a_token_each() -> None:
    bucket = weir.TokenBucket(1, per=HOUR, burst=10)

    @bucket
    def double(n: int) -> int:
        """Twice."""
        return 2 * n

    @bucket
    async def triple(n: int) -> int:
        return 3 * n

    async def run() -> int:
        async with bucket as same:
            assert same is bucket
            return await triple(2)

    with bucket as same:
        assert same is bucket
    assert double(4) == 8 and double.__doc__ == "Twice."
    assert asyncio.run(run()) == 6
    assert bucket.stats().granted == 4


# ---- reservations -------------------------------------------------------------------------------


def test_a_reservation_tells_when_and_can_be_cancelled() -> None:
    bucket = weir.TokenBucket(1, per=10, burst=5)
    now = bucket.reserve(5)
    assert isinstance(now, weir.Reservation)
    assert (now.n, now.delay) == (5, 0.0)
    later = bucket.reserve(2)
    assert 15 < later.delay <= 20
    assert later.at == pytest.approx(time.monotonic() + later.delay, abs=1)
    assert bucket.available < 0
    assert later.cancel() is True
    assert later.cancel() is False
    assert bucket.stats().returned == 2
    last = bucket.reserve()
    assert 5 < last.delay <= 10
    bucket.rate = 1000
    assert last.delay < 0.1


# ---- against a plain model ----------------------------------------------------------------------

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("try"), st.integers(1, 12)),
        st.tuples(st.just("rate"), st.integers(1, 2_000_000)),
        st.tuples(st.just("burst"), st.integers(1, 12)),
    ),
    max_size=60,
)


class Model:
    """A token bucket in fractions.  The clock is read before and after each call, so what is inside
    is known between two bounds, to the grain that the bucket is exact to."""

    GRAIN = Fraction(1, 2**20)

    def __init__(self, rate: int, burst: int) -> None:
        self.before = time.monotonic_ns()
        self.bucket = weir.TokenBucket(rate, burst=burst)
        self.after = time.monotonic_ns()
        self.rate, self.burst = Fraction(rate, 10**9), Fraction(burst)
        self.least = self.most = self.burst

    def pass_time(self, before: int, slowest: Fraction, fastest: Fraction) -> None:
        after = time.monotonic_ns()
        self.least += slowest * (before - self.after) - self.GRAIN
        self.most += fastest * (after - self.before) + self.GRAIN
        self.before, self.after = before, after
        self.cap(self.burst)

    def cap(self, burst: Fraction) -> None:
        self.least = min(self.least, burst)
        self.most = min(self.most, burst)

    def take(self, n: int) -> None:
        before = time.monotonic_ns()
        took = self.bucket.try_acquire(n)
        self.pass_time(before, self.rate, self.rate)
        if took:
            assert n <= self.most
            self.least, self.most = max(self.least, Fraction(n)) - n, self.most - n
        else:
            assert self.least < n
            self.most = min(self.most, Fraction(n))

    def change(self, rate: Fraction, burst: int) -> None:
        before = time.monotonic_ns()
        self.bucket.change(float(rate * 10**9), burst=burst)
        self.pass_time(before, min(rate, self.rate), max(rate, self.rate))
        self.rate = rate
        self.cap(Fraction(burst))
        self.burst = Fraction(burst)


@given(st.integers(1, 2_000_000), st.integers(1, 12), OPERATIONS)
def test_it_agrees_with_a_bucket_of_fractions(
    rate: int, burst: int, operations: list[tuple[str, int]]
) -> None:
    model = Model(rate, burst)
    for operation, n in operations:
        if operation == "rate":
            model.change(Fraction(n, 10**9), int(model.burst))
        elif operation == "burst":
            model.change(model.rate, n)
        elif n <= model.burst:
            model.take(n)
        else:
            with pytest.raises(weir.TooLarge):
                model.bucket.try_acquire(n)


# ---- life ---------------------------------------------------------------------------------------


def test_a_bucket_ends_when_nobody_has_it() -> None:
    bucket = weir.TokenBucket(1)
    seen = weakref.ref(bucket)
    bucket.reserve()
    del bucket
    gc.collect()
    assert seen() is None


def test_init_is_called_once() -> None:
    bucket = weir.TokenBucket(1)
    with pytest.raises(RuntimeError, match="called already"):
        bucket.__init__(2)  # type: ignore[misc]
    with pytest.raises(RuntimeError, match="has not been called"):
        weir.TokenBucket.__new__(weir.TokenBucket).try_acquire()


def test_one_that_is_not_shared_cannot_be_pickled_or_used_in_a_child() -> None:
    bucket = weir.TokenBucket(1)
    with pytest.raises(TypeError, match="give it shared="):
        pickle.dumps(bucket)
    with pytest.raises(TypeError, match="give it shared="):
        copy.copy(bucket)
    pid = os.fork()
    if pid == 0:
        try:
            bucket.try_acquire()
        except RuntimeError as error:
            os._exit(7 if "belongs to the parent" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


# ---- processes ----------------------------------------------------------------------------------


def test_a_name_leads_to_one_bucket(shared_name: str) -> None:
    one = weir.TokenBucket(1, per=HOUR, burst=5, shared=shared_name, name="one")
    two = pickle.loads(pickle.dumps(one))
    assert (two.shared, two.name, two.burst) == (shared_name, "one", 5)
    assert two.try_acquire(3)
    assert one.available == 2
    one.burst = 9
    assert two.burst == 9
    two.close()
    assert one.try_acquire()


def take_for(bucket: weir.TokenBucket, seconds: float, grants: Any) -> None:
    """Eight threads of one process."""
    end = time.monotonic() + seconds

    def take() -> int:
        taken = 0
        while (left := end - time.monotonic()) > 0:
            taken += bucket.acquire(timeout=left)
        return taken

    threads = [InThread(take) for _ in range(8)]
    grants.put(sum(thread.result() for thread in threads))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_together_get_the_rate_and_no_more(shared_name: str, method: Any) -> None:
    context = multiprocessing.get_context(method)
    grants = context.Queue()
    began = time.monotonic()
    bucket = weir.TokenBucket(1000, burst=50, shared=shared_name)
    processes: list[Any] = [
        context.Process(target=take_for, args=(bucket, 0.5, grants)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    total = sum(grants.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert total == bucket.stats().granted
    assert 400 < total <= 1000 * (time.monotonic() - began) + 50


def test_a_process_killed_in_line_for_more_than_is_there_keeps_nobody_out(shared_name: str) -> None:
    bucket = weir.TokenBucket(1, per=HOUR, burst=5, shared=shared_name)
    assert bucket.try_acquire(3)
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(tell, b"!")
        bucket.acquire(5)  # for three hours
        os._exit(0)
    os.read(told, 1)
    wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "S")  # it sleeps in line
    os.close(told)
    os.close(tell)
    waiter = InThread(bucket.acquire, 2)  # there are two, but for who is first
    wait_until(lambda: bucket.stats().waiting == 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert waiter.result()


def test_a_process_killed_in_line_holds_nobody_up_for_long(shared_name: str) -> None:
    bucket = weir.TokenBucket(1, per=HOUR, burst=3, shared=shared_name)
    assert bucket.try_acquire()
    pid = os.fork()
    if pid == 0:
        bucket.acquire(3)
        os._exit(0)
    wait_until(lambda: not bucket.try_acquire(1))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    bucket.change(1e6, per=1)
    assert bucket.acquire(3)
