"""weir.CircuitBreaker and weir.Throttle, as their docstrings say."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import InThread, output_of, wait_until

import weir

FOR_EVER = 1e6


class Down(OSError):
    """What is called is down."""


def breaker(**options: Any) -> weir.CircuitBreaker:
    """One that opens after four failures."""
    given: dict[str, Any] = {"window": 10, "min_calls": 4, "half_open_calls": 2}
    given |= {"open_time": FOR_EVER}
    return weir.CircuitBreaker(**(given | options))


def fail(error: BaseException | None = None) -> None:
    raise error or Down("down")


def open_it(b: weir.CircuitBreaker) -> weir.CircuitBreaker:
    for _ in range(4):
        with contextlib.suppress(OSError):
            b.call(fail)
    assert law(b).state == "open"
    return b


def law(b: weir.CircuitBreaker) -> weir.BreakerStats:
    s = b.stats()
    assert s.admitted == s.succeeded + s.failed + s.ignored + s.expired + s.in_flight
    return s


# ---- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"failure_ratio": 0}, "'failure_ratio' must be > 0 and <= 1, not 0"),
        ({"failure_ratio": float("nan")}, "'failure_ratio' must be > 0 and <= 1, not nan"),
        ({"slow_ratio": 1.1}, "'slow_ratio' must be > 0 and <= 1"),
        ({"window": 0}, "'window' must be from 1 to 1,000,000, not 0"),
        ({"window": 10, "window_seconds": 5}, "not both"),
        ({"window_seconds": -5}, "'window_seconds' must be > 0 seconds, not -5"),
        ({"window": 10, "min_calls": 11}, "'min_calls' must be from 1 to 10, not 11"),
        ({"slow_call": 0}, "'slow_call' must be > 0 seconds"),
        ({"half_open_calls": 0}, "'half_open_calls' must be from 1"),
        ({"half_open_timeout": 0}, "'half_open_timeout' must be > 0"),
        ({"open_time": 0}, "'open_time' must be > 0"),
        ({"open_time": 5, "max_open_time": 4}, "'max_open_time' must not be less"),
        ({"multiplier": 0.5}, "'multiplier' must be >= 1, not 0.5"),
        ({"jitter": 2}, "'jitter' must be from 0 to 1, not 2"),
    ],
)
def test_an_option_out_of_range_is_a_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        weir.CircuitBreaker(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"failure_ratio": "half"},
        {"window": 5.0},
        {"window": True},
        {"open_time": None},
        {"multiplier": True},
        {"is_failure": 5},
        {"is_failure": (OSError, 5)},
        {"ignore": len},
        {"on_change": 5},
        {"name": 5},
    ],
)
def test_an_option_of_another_type_is_a_type_error(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        weir.CircuitBreaker(**options)


def test_huge_times_are_taken_as_for_ever() -> None:
    b = open_it(breaker(open_time=float("inf"), slow_call=1e300))
    assert b.retry_after is not None
    assert b.retry_after > 1e9


# ---- states -----------------------------------------------------------------------------------


def test_it_opens_and_says_when_to_come_back() -> None:
    b = open_it(breaker(open_time=50, name="payments"))
    with pytest.raises(
        weir.BreakerOpen, match=r"'payments' is open for another (50|49\.\d+) s"
    ) as e:
        b.call(fail)
    assert e.value.name == "payments"
    assert e.value.retry_after is not None
    assert 0 < e.value.retry_after <= 50
    assert law(b).rejected == 1
    assert repr(b) == "<weir.CircuitBreaker 'payments' open>"


def test_it_probes_after_the_open_time_and_closes() -> None:
    b = open_it(breaker(open_time=1e-6))
    wait_until(lambda: b.retry_after == 0)
    assert law(b).state == "open"  # until a call comes
    assert b.call(int, "5") == 5
    assert law(b).state == "half_open"
    assert b.call(int, "6") == 6
    assert law(b).state == "closed"
    assert law(b).peak_probes == 1


def test_probes_that_fail_open_it_again_for_longer() -> None:
    b = open_it(breaker(open_time=1e-6, multiplier=3, half_open_calls=1))
    assert law(b).open_time == pytest.approx(1e-6)
    wait_until(lambda: b.retry_after == 0)
    with pytest.raises(Down, match="down"):
        b.call(fail)
    assert law(b).open_time == pytest.approx(3e-6)
    assert law(b).opened == 2


def test_a_probe_that_hangs_does_not_keep_it_half_open() -> None:
    b = open_it(breaker(open_time=1e-6, half_open_calls=1, half_open_timeout=0.01))
    wait_until(lambda: b.retry_after == 0)
    hanging = b.admit()
    with pytest.raises(weir.BreakerOpen):
        b.call(int)
    wait_until(lambda: b.retry_after == 0)
    assert b.call(int) == 0
    assert law(b).state == "closed"
    assert law(b).expired == 1
    hanging.failure()
    assert law(b).late == 1


def test_slow_calls_open_it() -> None:
    b = breaker(slow_call=1e-9)
    for _ in range(4):
        b.call(int)
    assert law(b).state == "open"
    assert law(b).slow == 4


def test_a_window_of_seconds_opens_it() -> None:
    b = breaker(window=None, window_seconds=3600)
    open_it(b)


def test_isolate_and_reset() -> None:
    b = breaker()
    b.isolate()
    b.isolate()
    assert law(b).state == "isolated"
    assert b.retry_after is None
    with pytest.raises(weir.BreakerOpen, match="is isolated") as e:
        b.call(int)
    assert e.value.retry_after is None
    b.reset()
    assert b.call(int) == 0


# ---- what counts as what ------------------------------------------------------------------------


def outcome(b: weir.CircuitBreaker, error: BaseException | None) -> str:
    """What one call was counted as."""
    before = law(b)
    with contextlib.suppress(BaseException):
        b.call(int) if error is None else b.call(fail, error)
    if error is not None:
        error.__traceback__ = None  # a parameter lives on, and each raise would add to it
    after = law(b)
    (changed,) = [
        name
        for name in ("succeeded", "failed", "ignored")
        if getattr(after, name) != getattr(before, name)
    ]
    return changed


class Refused(Exception):
    pass


class Gone(Refused):
    pass


@pytest.mark.parametrize(
    ("options", "error", "counts_as"),
    [
        ({}, None, "succeeded"),
        ({}, OSError(), "failed"),
        ({}, KeyboardInterrupt(), "ignored"),
        ({}, SystemExit(), "ignored"),
        ({}, asyncio.CancelledError(), "ignored"),
        ({}, FutureCancelled(), "ignored"),
        ({}, GeneratorExit(), "ignored"),
        ({"is_failure": OSError}, TimeoutError(), "failed"),
        ({"is_failure": (OSError, Refused)}, Gone(), "failed"),
        ({"is_failure": OSError}, ValueError(), "succeeded"),
        ({"is_failure": OSError}, asyncio.CancelledError(), "ignored"),
        ({"is_failure": asyncio.CancelledError}, asyncio.CancelledError(), "failed"),
        ({"is_failure": BaseException}, KeyboardInterrupt(), "failed"),
        ({"ignore": Refused}, Gone(), "ignored"),
        ({"ignore": (Refused, OSError)}, OSError(), "ignored"),
        ({"is_failure": Refused, "ignore": Gone}, Gone(), "ignored"),
        ({"is_failure": lambda e: e.errno == 5}, OSError(5, ""), "failed"),
        ({"is_failure": lambda e: e.errno == 5}, OSError(6, ""), "succeeded"),
        ({"is_failure": lambda e: None}, OSError(), "ignored"),
        ({"is_failure": lambda e: True}, asyncio.CancelledError(), "ignored"),
    ],
)
def test_what_an_exception_counts_as(
    options: dict[str, Any], error: BaseException | None, counts_as: str
) -> None:
    assert outcome(breaker(**options), error) == counts_as


def test_a_predicate_that_raises_is_reported_and_the_call_has_failed(unraisable: list[Any]) -> None:
    b = breaker(is_failure=lambda e: 1 / 0)
    with pytest.raises(Down, match="down") as caught:
        b.call(fail)
    assert caught.value.__context__ is None
    assert law(b).failed == 1
    assert [type(error) for error in unraisable] == [ZeroDivisionError]


def test_the_exception_comes_out_as_it_was() -> None:
    error = Down("down")
    for b in (breaker(), breaker(is_failure=lambda e: True)):
        with pytest.raises(Down) as caught:
            b.call(fail, error)
        assert caught.value is error
        with pytest.raises(Down) as caught, b:
            raise error
        assert caught.value is error


# ---- faces --------------------------------------------------------------------------------------


def test_call_passes_arguments_of_every_kind() -> None:
    b = breaker()
    assert b.call(lambda *a, **k: (a, k), 1, 2, x=3) == ((1, 2), {"x": 3})
    with pytest.raises(TypeError, match="'fn'"):
        b.call()  # type: ignore[call-arg]


def test_a_decorated_function_is_called_through_it() -> None:
    b = breaker()

    @b
    def double(x: int) -> int:
        "doubles"
        return 2 * x

    class Client:
        @b
        def get(self, x: int) -> int:
            return x

    assert double(4) == 8
    assert double.__doc__ == "doubles"
    assert Client().get(5) == 5
    assert law(b).succeeded == 2
    with pytest.raises(TypeError, match="takes a function"):
        b(5)  # type: ignore[type-var]


def test_a_decorated_coroutine_function_counts_until_it_ends() -> None:
    b = breaker()

    @b
    async def work(event: asyncio.Event) -> str:
        await event.wait()
        return "done"

    async def main() -> None:
        event = asyncio.Event()
        tasks = [asyncio.create_task(work(event)) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert law(b).in_flight == 5
        tasks[0].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert law(b).ignored == 1
        event.set()
        assert await asyncio.gather(*tasks[1:]) == ["done"] * 4
        assert await b.acall(work, event) == "done"

    asyncio.run(main())
    assert law(b).succeeded == 6
    assert law(b).in_flight == 0


def test_a_decorated_generator_is_one_call_from_first_item_to_end() -> None:
    b = breaker()

    @b
    def items(n: int, error: Exception | None = None) -> Generator[int, int | None, str]:
        for i in range(n):
            i = (yield i) or i
        if error:
            raise error
        return "end"

    assert list(items(3)) == [0, 1, 2]
    assert law(b).succeeded == 1
    one, other = items(3), items(3, Down())
    next(one), next(other), next(one)
    assert law(b).in_flight == 2
    with pytest.raises(Down):
        list(other)  # they take turns, and each ends its own call
    assert law(b).failed == 1
    one.close()
    assert law(b).ignored == 1
    never_begun = items(3)
    never_begun.close()
    assert law(b).admitted == 3


def test_a_decorated_async_generator_passes_everything_through() -> None:
    b = breaker()

    @b
    async def echo() -> AsyncGenerator[Any, Any]:
        got: Any = "first"
        while got != "stop":
            try:
                got = yield got
            except ValueError as error:
                got = error
        raise Down("end")

    async def main() -> None:
        generator = echo()
        assert await generator.__anext__() == "first"
        assert await generator.asend(5) == 5
        error = ValueError()
        assert await generator.athrow(error) is error
        assert law(b).in_flight == 1
        with pytest.raises(Down, match="end"):
            await generator.asend("stop")
        assert law(b).failed == 1
        generator = echo()
        await generator.__anext__()
        await generator.aclose()
        assert law(b).ignored == 1

    asyncio.run(main())


def test_with_blocks_nest_and_each_reports_its_own() -> None:
    b = breaker()

    def nested() -> None:
        with b:
            with b, b:
                assert law(b).in_flight == 3
            assert law(b).succeeded == 2
            raise Down

    with pytest.raises(Down):
        nested()
    assert law(b).failed == 1
    assert law(b).in_flight == 0


def test_interleaved_generators_end_their_own_call_and_not_the_newest() -> None:
    """Told by time: with calls on a stack, the old one would end in place of the young one."""
    b = breaker(slow_call=0.05)

    def work() -> Generator[None, None, None]:
        with b:
            yield

    old = work()
    next(old)
    time.sleep(0.06)
    young = work()
    next(young)
    next(old, None)
    assert (law(b).slow, law(b).succeeded) == (1, 1)
    next(young, None)
    assert law(b).succeeded == 2
    assert law(b).slow in (1, 2)  # 2 on a machine that stood still for 50 ms


def test_async_with_ends_the_call_of_its_own_task() -> None:
    b = breaker(slow_call=0.05)

    async def work(seconds: float) -> None:
        async with b:
            await asyncio.sleep(seconds)

    async def main() -> None:
        await asyncio.gather(work(0.1), *(work(0) for _ in range(3)))

    asyncio.run(main())
    assert law(b).succeeded == 4
    assert law(b).slow >= 1


def test_a_thousand_blocks_are_open_at_a_time() -> None:
    b = breaker()

    async def work(barrier: asyncio.Event) -> None:
        async with b:
            await barrier.wait()

    async def main() -> None:
        barrier = asyncio.Event()
        tasks = [asyncio.create_task(work(barrier)) for _ in range(1000)]
        while law(b).in_flight < 1000:  # noqa: ASYNC110
            await asyncio.sleep(0)
        barrier.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert law(b).succeeded == 1000


def test_an_exit_stack_ends_what_it_entered() -> None:
    b = breaker()
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(b)
        call = stack.enter_context(b.admit())
        assert law(b).in_flight == 6
        assert call is not None
    assert law(b).succeeded == 6


def test_leaving_what_was_not_entered_is_an_error() -> None:
    b = breaker()
    with pytest.raises(RuntimeError, match="has not been entered"):
        b.__exit__(None, None, None)
    with b:
        with pytest.raises(RuntimeError, match="has not been entered"):
            InThread(lambda: b.__exit__(None, None, None)).result()
    assert law(b).succeeded == 1


def test_an_admitted_call_is_reported_once() -> None:
    b = breaker()
    call = b.admit()
    call.success()
    with pytest.raises(RuntimeError, match="reported already"):
        call.failure()
    b.admit().failure()
    b.admit().ignore()
    del call
    b.admit()  # thrown away
    gc.collect()
    with b.admit() as inside:
        inside.failure()
    with contextlib.suppress(OSError), b.admit():
        raise Down
    s = law(b)
    assert (s.succeeded, s.failed, s.ignored, s.in_flight) == (1, 3, 2, 0)


# ---- on_change ----------------------------------------------------------------------------------


def test_on_change_hears_every_transition_in_order() -> None:
    heard: list[tuple[str, str]] = []
    b = breaker(open_time=1e-6, on_change=lambda a, z: heard.append((a, z)))
    open_it(b)
    wait_until(lambda: b.retry_after == 0)
    b.call(int)
    b.call(int)
    b.isolate()
    b.reset()
    assert heard == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
        ("closed", "isolated"),
        ("isolated", "closed"),
    ]


def test_on_change_may_call_back_and_what_it_raises_is_told(unraisable: list[Any]) -> None:
    heard: list[str] = []

    def on_change(before: str, after: str) -> None:
        heard.append(after)
        if after == "open":
            b.isolate()
            raise RuntimeError("in on_change")

    b = breaker(on_change=on_change)
    with contextlib.suppress(OSError):
        for _ in range(3):
            with contextlib.suppress(OSError):
                b.call(fail)
        with pytest.raises(Down, match="down"):
            b.call(fail)  # it opens, and the exception of the call is what comes out
    assert heard == ["open", "isolated"]
    assert [str(error) for error in unraisable] == ["in on_change"]


def test_a_listener_that_never_returns_is_told_of_64_more_at_most() -> None:
    refused: list[str] = []

    def on_change(before: str, after: str) -> None:
        if refused:
            return
        try:
            while True:
                b.isolate()
                b.reset()
        except RuntimeError as error:
            refused.append(str(error))

    b = breaker(on_change=on_change)
    b.isolate()
    assert refused == ["on_change does not return, and has 64 changes to be told of first"]


# ---- threads, forks, memory ---------------------------------------------------------------------


def test_a_slow_call_does_not_delay_another() -> None:
    b = breaker()
    inside, may_end = threading.Event(), threading.Event()

    def slow() -> None:
        inside.set()
        assert may_end.wait(20)

    thread = InThread(b.call, slow)
    assert inside.wait(20)
    for _ in range(1000):
        b.call(int)  # each returns, while the slow one is under way
    assert law(b).in_flight == 1
    may_end.set()
    thread.result()
    assert law(b).succeeded == 1001


def test_threads_and_tasks_and_generators_together_lose_no_call() -> None:
    log: list[tuple[str, str]] = []
    b = weir.CircuitBreaker(
        window=20,
        min_calls=10,
        half_open_calls=3,
        open_time=20e-6,
        max_open_time=200e-6,
        is_failure=OSError,
        on_change=lambda a, z: log.append((a, z)),
    )
    made: list[int] = []
    rejected: list[int] = []

    def is_ill(i: int) -> bool:
        return i % 400 > 300

    def by_call(n: int) -> None:
        for i in range(n):
            try:
                b.call(fail) if is_ill(i) else b.call(int)
                made.append(1)
            except OSError:
                made.append(1)
            except weir.BreakerOpen:
                rejected.append(1)

    def by_block(n: int) -> None:
        for i in range(n):
            try:
                with b:
                    made.append(1)
                    if is_ill(i):
                        raise Down
            except (OSError, weir.BreakerOpen) as error:
                if isinstance(error, weir.BreakerOpen):
                    rejected.append(1)

    def by_task(n: int) -> None:
        async def one(i: int) -> None:
            try:
                async with b:
                    made.append(1)
                    await asyncio.sleep(0)
                    if is_ill(i):
                        raise Down
            except (OSError, weir.BreakerOpen) as error:
                if isinstance(error, weir.BreakerOpen):
                    rejected.append(1)

        async def main() -> None:
            for start in range(0, n, 50):
                await asyncio.gather(*(one(i) for i in range(start, start + 50)))

        asyncio.run(main())

    with ThreadPoolExecutor(9) as pool:
        faces: list[Callable[[int], None]] = [by_call, by_block, by_task]
        for future in [pool.submit(face, 2000) for face in faces for _ in range(3)]:
            future.result()
    s = law(b)
    assert s.in_flight == 0
    assert s.admitted == len(made)
    assert s.rejected == len(rejected)
    assert s.admitted + s.rejected == 9 * 2000
    assert s.peak_probes <= 3
    at = "closed"
    for before, after in log:
        assert before == at
        assert (before, after) in {
            ("closed", "open"),
            ("open", "half_open"),
            ("half_open", "open"),
            ("half_open", "closed"),
        }
        at = after
    assert at == b.state
    assert s.opened > 0


def test_a_forked_child_has_a_closed_breaker_of_its_own() -> None:
    b = open_it(breaker())
    throttle = weir.Throttle()
    budget = weir.RetryBudget(0, 3)
    with throttle, contextlib.suppress(weir.BreakerOpen):
        under_way = breaker()
        with under_way:
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    assert law(b).state == "closed"
                    assert b.call(int) == 0
                    assert law(b).admitted == 1
                    assert under_way.state == "closed"
                    assert law(under_way).in_flight == 0
                    under_way.__exit__(None, None, None)  # of the parent's call: nothing
                    assert law(under_way).admitted == 0
                    assert throttle.stats().in_flight == 0
                    throttle.__exit__(None, None, None)
                    assert throttle.stats().admitted == 0
                    assert budget.withdraw()
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(pid, 0)[1] == 0
    assert law(b).state == "open"
    assert law(under_way).succeeded == 1


def test_a_breaker_goes_with_its_last_reference() -> None:
    def in_a_cycle() -> weakref.ref[weir.CircuitBreaker]:
        held: list[weir.CircuitBreaker] = []
        held.append(breaker(on_change=lambda a, z: held, is_failure=lambda e: bool(held)))
        return weakref.ref(held[0])

    gone = in_a_cycle()
    gc.collect()
    assert gone() is None


def test_a_breaker_that_is_left_open_at_exit_does_no_harm() -> None:
    program = """
        import weir
        b = weir.CircuitBreaker(on_change=print)
        call = b.admit()
        def generator():
            with b:
                yield
        g = generator()
        next(g)
        b.__enter__()
        print("end")
    """
    assert output_of(program) == "end\n"


# ---- throttle -----------------------------------------------------------------------------------


def seen(t: weir.Throttle) -> weir.ThrottleStats:
    s = t.stats()
    assert s.admitted == s.accepted + s.refused + s.ignored + s.in_flight
    return s


def test_a_throttle_keeps_nothing_back_from_a_healthy_backend() -> None:
    t = weir.Throttle()
    for _ in range(1000):
        t.call(int)
    with t, t:
        assert seen(t).in_flight == 2
    assert seen(t).accepted == 1002
    assert seen(t).chance == 0


def test_a_throttle_keeps_most_back_from_a_dead_one() -> None:
    t = weir.Throttle(name="search")
    kept_back = 0
    for _ in range(5000):
        try:
            t.call(fail)
        except weir.Throttled as error:
            kept_back += 1
            last = error
        except OSError:
            pass
    s = seen(t)
    assert kept_back == s.shed
    assert s.refused + s.shed == 5000
    assert 4500 < kept_back < 4950  # 0.95 of 5000, but for the first few
    assert str(last) == (
        "the throttle 'search' keeps back 95% of the requests, and this one was among them"
    )
    assert isinstance(last, weir.Overloaded)
    assert repr(t) == "<weir.Throttle 'search' keeps back 95%>"


def test_a_throttle_has_the_faces_of_a_breaker() -> None:
    t = weir.Throttle(is_failure=OSError, ignore=KeyError)

    @t
    def plain(error: BaseException | None) -> None:
        if error:
            raise error

    @t
    async def coroutine() -> int:
        return 5

    async def main() -> None:
        assert await coroutine() == 5
        assert await t.acall(coroutine) == 5
        async with t:
            pass

    for error in (None, OSError(), ValueError(), KeyError(), KeyboardInterrupt()):
        with contextlib.suppress(BaseException):
            plain(error)
    s = seen(t)
    assert (s.accepted, s.refused, s.ignored) == (2, 1, 2)
    asyncio.run(main())
    assert seen(t).accepted == 6


@pytest.mark.parametrize(
    "options", [{"k": 0.5}, {"window": 0}, {"max_chance": 1}, {"max_chance": 0}]
)
def test_a_throttle_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        weir.Throttle(**options)
