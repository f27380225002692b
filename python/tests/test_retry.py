"""weir.Retry, weir.RetryBudget and weir.block_and_retry, as their docstrings say."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import InThread, wait_until
from hypothesis import given
from hypothesis import strategies as st

import weir


class Down(OSError):
    """What is called is down."""


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Flaky:
    """Fails so many times, then answers 42."""

    def __init__(self, failures: int, error: BaseException | None = None) -> None:
        self.failures = failures
        self.calls = 0
        self.error = error or Down("down")

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return 42

    async def later(self) -> int:
        await asyncio.sleep(0)
        return self()


def retry(attempts: int | None = 5, **options: Any) -> weir.Retry:
    clock = Time()
    given: dict[str, Any] = {"sleep": clock.sleep, "clock": clock, "jitter": "none"}
    return weir.Retry(attempts, **(given | options))


def slept(r: weir.Retry) -> list[float]:
    clock = r._clock
    assert isinstance(clock, Time)
    return clock.slept


def law(r: weir.Retry) -> weir.RetryStats:
    s = r.stats()
    assert s.troubled == s.recovered + sum(s.gave_up.values()) + s.stopped + s.in_progress
    return s


def loop(r: weir.Retry, error: BaseException) -> None:
    """One attempt after the other, and all fail."""
    for attempt in r:
        with attempt:
            raise error


def notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", []))


# ---- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"attempts": 0}, "'attempts' must be from 1 to"),
        ({"attempts": None}, "nothing ends the retries"),
        ({"backoff": (0, 1)}, "'backoff' must be > 0 seconds"),
        ({"backoff": (2, 1)}, r"'backoff' must be \(base, most\) with base <= most"),
        ({"multiplier": 0.9}, "'multiplier' must be >= 1"),
        ({"jitter": "some"}, "'jitter' must be one of full, none, equal, decorrelated"),
        ({"deadline": 0}, "'deadline' must be > 0 seconds"),
    ],
)
def test_an_option_out_of_range_is_a_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        weir.Retry(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 2.0},
        {"on": 5},
        {"on": (OSError, 5)},
        {"backoff": 5},
        {"backoff": (1, 2, 3)},
        {"budget": 5},
        {"sleep": 5},
        {"on_retry": 5},
    ],
)
def test_an_option_of_another_type_is_a_type_error(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        weir.Retry(**options)


# ---- when and how often -----------------------------------------------------------------------


def test_it_tries_again_with_longer_and_longer_waits() -> None:
    r = retry(8, backoff=(1, 10))
    flaky = Flaky(6)
    assert r.call(flaky) == 42
    assert flaky.calls == 7
    assert slept(r) == [1, 2, 4, 8, 10, 10]
    s = law(r)
    assert (s.troubled, s.recovered, s.retries) == (1, 1, 6)


def test_what_succeeds_at_once_costs_no_wait_and_no_count() -> None:
    r = retry()
    assert r.call(lambda *a, **k: (a, k), 1, x=2) == ((1,), {"x": 2})
    assert slept(r) == []
    assert law(r).troubled == 0


def test_when_it_gives_up_the_last_exception_comes_with_a_note() -> None:
    r = retry(3, backoff=(1, 10))
    flaky = Flaky(9)
    with pytest.raises(Down, match="down") as caught:
        r.call(flaky)
    assert flaky.calls == 3
    assert law(r).gave_up == {"attempts": 1, "deadline": 0, "budget": 0}
    if sys.version_info >= (3, 11):
        assert notes(caught.value) == ["weir.Retry: 3 attempts in 3 s; that was the last one"]


def test_one_attempt_is_no_retry() -> None:
    r = retry(1)
    with pytest.raises(Down, match="down"):
        r.call(Flaky(1))
    assert law(r).retries == 0


@pytest.mark.parametrize(
    ("on", "error", "is_retried"),
    [
        (Exception, OSError(), True),
        (OSError, TimeoutError(), True),
        ((KeyError, OSError), TimeoutError(), True),
        (OSError, ValueError(), False),
        (lambda e: e.args == (5,), ValueError(5), True),
        (lambda e: e.args == (5,), ValueError(6), False),
        (Exception, KeyboardInterrupt(), False),
        (BaseException, KeyboardInterrupt(), False),
        (BaseException, SystemExit(), False),
        (BaseException, asyncio.CancelledError(), False),
        (Exception, FutureCancelled(), False),
        (BaseException, GeneratorExit(), False),
        (lambda e: True, KeyboardInterrupt(), False),
    ],
)
def test_which_exceptions_are_retried(on: Any, error: BaseException, is_retried: bool) -> None:
    flaky = Flaky(1, error)
    r = retry(on=on)
    if is_retried:
        assert r.call(flaky) == 42
    else:
        with pytest.raises(type(error)):
            r.call(flaky)
        assert flaky.calls == 1
        assert notes(error) == []
        with pytest.raises(type(error)):
            loop(r, error)
    law(r)
    error.__traceback__ = None  # a parameter lives on, and each raise would add to it


def test_another_exception_ends_it_and_says_so() -> None:
    r = retry(on=OSError)
    errors: Iterator[Exception] = iter([OSError(), OSError(), ValueError("bad")])

    def fail() -> None:
        raise next(errors)

    with pytest.raises(ValueError, match="bad") as caught:
        r.call(fail)
    s = law(r)
    assert (s.stopped, s.retries) == (1, 2)
    if sys.version_info >= (3, 11):
        assert notes(caught.value) == ["weir.Retry: 3 attempts in 0.3 s; this is not to be retried"]


def test_no_wait_begins_that_would_end_after_the_deadline() -> None:
    r = retry(None, backoff=(1, 100), deadline=10)
    with pytest.raises(Down, match="down") as caught:
        r.call(Flaky(99))
    assert slept(r) == [1, 2, 4]  # 8 more would be 15
    assert law(r).gave_up["deadline"] == 1
    if sys.version_info >= (3, 11):
        assert "the next wait would end after the deadline of 10.0 s" in notes(caught.value)[0]


def test_the_deadline_counts_the_attempts_too() -> None:
    clock = Time()
    r = weir.Retry(9, backoff=(1, 1), jitter="none", deadline=9.5, clock=clock, sleep=clock.sleep)

    def slow() -> None:
        clock.now += 4
        raise Down

    with pytest.raises(Down):
        r.call(slow)
    assert clock.slept == [1]  # 4 + 1 + 4, and one more would end at 10


def test_retry_after_of_the_exception_is_waited_for() -> None:
    error = Down("busy")
    error.retry_after = 7  # type: ignore[attr-defined]
    r = retry(backoff=(1, 1))
    assert r.call(Flaky(1, error)) == 42
    assert slept(r) == [8]
    for nonsense in (None, "soon", -1, True, float("nan"), float("inf")):
        error.retry_after = nonsense  # type: ignore[attr-defined]
        r = retry(backoff=(1, 1))
        assert r.call(Flaky(1, error)) == 42
        assert slept(r) == [1]


def test_an_open_breaker_says_when_to_come_back() -> None:
    b = weir.CircuitBreaker(window=1, min_calls=1, open_time=50)
    r = retry(2, backoff=(1, 1))
    with pytest.raises(weir.BreakerOpen):
        r.call(b(Flaky(9)))
    (wait,) = slept(r)
    assert wait == 1  # after the failure; the second attempt finds it open
    with pytest.raises(weir.BreakerOpen):
        r.call(b(Flaky(9)))
    assert 50 < slept(r)[1] <= 51


def test_on_retry_hears_of_each_wait_and_may_end_it() -> None:
    heard: list[tuple[int, str, float]] = []
    r = retry(3, backoff=(1, 9), on_retry=lambda n, e, s: heard.append((n, str(e), s)))
    assert r.call(Flaky(2)) == 42
    assert heard == [(1, "down", 1), (2, "down", 2)]

    def stop(n: int, error: BaseException, seconds: float) -> None:
        raise KeyError("enough")

    r = retry(on_retry=stop)
    with pytest.raises(KeyError, match="enough"):
        r.call(Flaky(9))
    assert law(r).stopped == 1
    with pytest.raises(KeyError, match="enough"):
        loop(r, Down())
    assert law(r).stopped == 2


@given(
    st.sampled_from(["full", "none", "equal", "decorrelated"]),
    st.integers(1, 50),
    st.floats(0, 40),
    st.integers(0, 2**32),
)
def test_a_delay_is_never_longer_than_the_most(
    jitter: weir.Jitter, n: int, before: float, seed: int
) -> None:
    r = weir.Retry(jitter=jitter, backoff=(0.5, 20))
    random.seed(seed)
    delay = r.delay(n, before)
    random.seed(seed)
    assert r.delay(n, before) == delay  # random.seed() makes it the same again
    step = min(20, 0.5 * 2 ** (n - 1))
    low = {"full": 0, "none": step, "equal": step / 2, "decorrelated": 0.5}[jitter]
    high = min(20, 3 * max(before, 0.5)) if jitter == "decorrelated" else step
    assert low - 1e-9 <= delay <= high + 1e-9


def test_full_jitter_spreads_over_the_whole_step() -> None:
    r = weir.Retry(backoff=(1, 1))
    delays = sorted(r.delay(1) for _ in range(2000))
    assert delays[0] < 0.05
    assert delays[-1] > 0.95
    assert 0.4 < delays[1000] < 0.6


# ---- faces --------------------------------------------------------------------------------------


def test_a_decorated_function_and_method_are_retried() -> None:
    r = retry()
    flaky = Flaky(2)

    @r
    def fetch(x: int) -> int:
        "fetches"
        return flaky() + x

    class Client:
        def __init__(self) -> None:
            self.flaky = Flaky(1)

        @r
        def get(self) -> int:
            return self.flaky()

    assert fetch(1) == 43
    assert fetch.__doc__ == "fetches"
    assert Client().get() == 42
    assert law(r).recovered == 2


def test_a_decorated_coroutine_function_is_retried() -> None:
    r = retry()
    flaky = Flaky(2)

    @r
    async def fetch() -> int:
        return await flaky.later()

    assert asyncio.run(fetch()) == 42
    assert len(slept(r)) == 2

    async def with_an_awaitable_sleep() -> int:
        waits: list[float] = []

        async def sleep(seconds: float) -> None:
            waits.append(seconds)

        value = await retry(sleep=sleep).acall(Flaky(3).later)
        assert len(waits) == 3
        return value

    assert asyncio.run(with_an_awaitable_sleep()) == 42


def test_a_cancelled_task_is_not_retried() -> None:
    r = weir.Retry(backoff=(100, 100), jitter="none")
    flaky = Flaky(9)

    async def main() -> None:
        for work in (r.acall(flaky.later), by_iteration()):
            task = asyncio.create_task(work)
            before = law(r).in_progress
            while law(r).in_progress == before:  # noqa: ASYNC110
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def by_iteration() -> None:
        async for attempt in r:
            with attempt:
                await flaky.later()

    asyncio.run(main())
    assert flaky.calls == 2
    assert law(r).stopped == 2


def test_generator_functions_are_refused() -> None:
    def generator() -> Iterator[int]:
        yield 1

    async def async_generator() -> AsyncGenerator[int, None]:
        yield 1

    for fn in (generator, async_generator):
        with pytest.raises(TypeError, match="what it has yielded is delivered"):
            weir.Retry()(fn)
    with pytest.raises(TypeError, match="takes a function"):
        weir.Retry()(5)  # type: ignore[type-var]


def test_a_loop_of_attempts() -> None:
    r = retry(4, backoff=(1, 10))
    flaky = Flaky(2)
    seen = []
    for attempt in r:
        with attempt:
            seen.append(attempt.number)
            value = flaky()
    assert value == 42
    assert seen == [1, 2, 3]
    assert slept(r) == [1, 2]
    assert law(r).recovered == 1


def test_a_loop_that_gives_up_raises_the_last_exception() -> None:
    r = retry(2)
    with pytest.raises(Down, match="down"):
        loop(r, Down("down"))
    assert len(slept(r)) == 1
    assert law(r).gave_up["attempts"] == 1


def test_a_loop_may_be_left_by_return_break_and_continue() -> None:
    r = retry()

    def found() -> int:
        flaky = Flaky(1)
        for attempt in r:
            with attempt:
                return flaky()
        raise AssertionError

    assert found() == 42
    for attempt in r:
        with attempt:
            continue
    for attempt in r:
        with attempt:
            if attempt.number == 1:
                raise Down
        if attempt.number == 1:
            break  # after a failure
    s = law(r)
    assert (s.recovered, s.stopped, s.in_progress) == (1, 1, 0)


def test_a_loop_without_its_with_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="with attempt"):
        for _ in retry():
            pass


def test_an_async_loop_of_attempts() -> None:
    r = retry()
    flaky = Flaky(2)

    async def main() -> int:
        async for attempt in r:
            with attempt:
                return await flaky.later()
        raise AssertionError

    assert asyncio.run(main()) == 42
    assert law(r).recovered == 1


def test_one_retry_is_for_many_threads_and_tasks() -> None:
    r = weir.Retry(3, backoff=(1e-6, 1e-6))

    def by_thread(n: int) -> None:
        for i in range(n):
            with contextlib.suppress(OSError):
                r.call(Flaky(i % 4))

    def by_tasks(n: int) -> None:
        async def main() -> None:
            await asyncio.gather(
                *(r.acall(Flaky(i % 4).later) for i in range(n)), return_exceptions=True
            )

        asyncio.run(main())

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(f, 200) for f in (by_thread, by_tasks) for _ in range(3)]:
            future.result()
    s = law(r)
    assert s.in_progress == 0
    assert s.troubled == 6 * 150
    assert s.recovered == 6 * 100
    assert s.gave_up["attempts"] == 6 * 50
    assert s.retries == 6 * 50 * (1 + 2 + 2)


# ---- budget -------------------------------------------------------------------------------------


def test_a_budget_bounds_the_retries_of_an_outage() -> None:
    budget = weir.RetryBudget(0.2, 0, max_tokens=10)
    r = retry(5, budget=budget)
    made = 0
    for _ in range(1000):
        flaky = Flaky(99)
        with pytest.raises(Down, match="down"):
            r.call(flaky)
        made += flaky.calls
    assert made == 1200  # without a budget: 5000
    s = budget.stats()
    assert (s.calls, s.retries) == (1000, 200)
    assert s.refused == 1000  # each call is refused its next retry
    assert law(r).gave_up == {"attempts": 0, "deadline": 0, "budget": 1000}
    if sys.version_info >= (3, 11):
        error = Down()
        with pytest.raises(Down):
            r.call(Flaky(1, error))
        assert "the retry budget is used up" in notes(error)[0]


def test_a_budget_is_for_all_its_retries_and_threads() -> None:
    budget = weir.RetryBudget(0.5, 0)
    retries = [weir.Retry(2, budget=budget, backoff=(1e-9, 1e-9)) for _ in range(4)]

    def work(r: weir.Retry) -> int:
        made = 0
        for _ in range(500):
            flaky = Flaky(99)
            with contextlib.suppress(OSError):
                r.call(flaky)
            made += flaky.calls
        return made

    with ThreadPoolExecutor(4) as pool:
        made = sum(pool.map(work, retries))
    s = budget.stats()
    assert s.calls == 2000
    assert made == 2000 + s.retries
    assert s.retries <= 1000
    assert s.retries == 1000  # what is saved up is taken at once


def test_a_budget_always_allows_some() -> None:
    budget = weir.RetryBudget(0, 3, max_tokens=5)
    assert [budget.withdraw() for _ in range(3)] == [True] * 3
    assert budget.stats().tokens < 3
    wait_until(budget.withdraw)


@pytest.mark.parametrize(
    "options", [{"ratio": -1}, {"min_per_second": -1}, {"max_tokens": 0.5}, {"ratio": float("nan")}]
)
def test_a_budget_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        weir.RetryBudget(**options)


def test_attempts_may_be_unlimited_with_a_budget() -> None:
    r = retry(None, budget=weir.RetryBudget(0, 50))
    flaky = Flaky(10**6)
    with pytest.raises(Down, match="down"):
        r.call(flaky)
    assert flaky.calls >= 51


# ---- block_and_retry ----------------------------------------------------------------------------


def test_block_and_retry_puts_at_once_where_there_is_room() -> None:
    q: weir.Queue[int] = weir.Queue(1)
    assert weir.block_and_retry(q, 5) == 1
    assert q.get() == 5


def test_block_and_retry_waits_until_there_is_room() -> None:
    q: weir.Queue[int] = weir.Queue(1)
    q.put(1)
    r = weir.Retry(10**6, on=queue.Full, backoff=(1e-6, 1e-3))
    thread = InThread(weir.block_and_retry, q, 2, timeout=0.001, retry=r)
    wait_until(lambda: r.stats().retries > 2)
    assert q.get() == 1
    assert thread.result() > 2
    assert q.get() == 2
    assert law(r).recovered == 1


def test_block_and_retry_gives_up_and_counts_it() -> None:
    q: weir.Queue[int] = weir.Queue(1)
    q.put(1)
    r = retry(3, on=queue.Full)
    with pytest.raises(queue.Full):
        weir.block_and_retry(q, 2, timeout=0, retry=r)
    assert law(r).gave_up["attempts"] == 1
    assert q.stats().refused == 3
    q.shutdown()
    with pytest.raises(weir.ShutDown):
        weir.block_and_retry(q, 2, timeout=0)


def test_block_and_retry_takes_any_queue() -> None:
    standard: queue.Queue[int] = queue.Queue(1)
    assert weir.block_and_retry(standard, 1) == 1
    shared: weir.SharedQueue[int] = weir.SharedQueue(1)
    assert weir.block_and_retry(shared, 1) == 1


def test_two_threads_wait_without_delaying_each_other() -> None:
    r = weir.Retry(2, backoff=(100, 100), jitter="none", sleep=lambda s: event.wait(20))
    event = threading.Event()
    waiting = [InThread(r.call, Flaky(1)) for _ in range(3)]
    wait_until(lambda: law(r).in_progress == 3)
    assert r.call(Flaky(0)) == 42
    event.set()
    assert [thread.result() for thread in waiting] == [42] * 3
