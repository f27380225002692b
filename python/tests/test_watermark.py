"""weir.Watermark: counting, marks, waiting in threads and in coroutines, callbacks, ends."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import select
import signal
import threading
import time
import weakref
from typing import Any

import pytest
from conftest import InThread, output_of, wait_until
from hypothesis import given
from hypothesis import strategies as st

import weir

# ---- marks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("high", "low", "error", "text"),
    [
        (0, None, ValueError, "'high' must be from 1 to"),
        (-1, None, ValueError, "'high' must be from 1 to"),
        (1 << 46, None, ValueError, "'high' must be from 1 to"),
        (True, None, TypeError, "'high' must be an int, not True"),
        (2.5, None, TypeError, "'high' must be an int, not 2.5"),
        (None, None, TypeError, "'high' must be an int, not None"),
        (10, 10, ValueError, r"'low' must be >= 0 and below high \(10\), not 10"),
        (10, -1, ValueError, "'low' must be >= 0"),
        (10, "x", TypeError, "'low' must be an int, not 'x'"),
    ],
)
def test_marks_that_are_no_pair_are_refused(
    high: Any, low: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        weir.Watermark(high, low)
    mark = weir.Watermark(8, 2)
    with pytest.raises(error, match=text):
        mark.set_marks(high, low)
    assert (mark.high, mark.low) == (8, 2)


def test_callbacks_that_cannot_be_called_are_refused() -> None:
    with pytest.raises(TypeError, match="'on_high' must be callable or None, not 3"):
        weir.Watermark(1, on_high=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'on_low' must be callable or None, not 3"):
        weir.Watermark(1, on_low=3)  # type: ignore[arg-type]


def test_the_low_mark_is_half_of_the_high_one_until_somebody_chooses() -> None:
    mark = weir.Watermark(100)
    assert mark.low == 50
    mark.high = 20
    assert mark.low == 10
    mark.low = 0
    mark.high = 40
    assert (mark.high, mark.low) == (40, 0)
    with pytest.raises(ValueError, match="'low' must be"):
        mark.low = 40


def test_it_pauses_at_the_high_mark_and_goes_on_at_the_low_one() -> None:
    mark = weir.Watermark(100, 25)
    assert mark.add(99) is False
    assert not mark.stats().is_paused
    assert mark.add(1) is True
    assert mark.paused is True
    assert mark.sub(74) is True
    assert mark.sub(1) is False
    assert (mark.level, mark.stats().is_paused) == (25, False)


def test_a_pair_of_marks_can_be_changed_together() -> None:
    mark = weir.Watermark(10, 5)
    mark.add(8)
    mark.set_marks(8, 4)
    assert mark.stats().is_paused
    mark.set_marks(100)
    assert not mark.stats().is_paused
    assert mark.low == 50


@given(
    st.integers(1, 20),
    st.integers(0, 19),
    st.lists(st.integers(-30, 30), max_size=40),
)
def test_it_is_what_a_few_lines_of_python_say(high: int, low: int, steps: list[int]) -> None:
    low = min(low, high - 1)
    told: list[str] = []
    mark = weir.Watermark(
        high, low, on_high=lambda: told.append("high"), on_low=lambda: told.append("low")
    )
    level, paused, pauses, entered = 0, False, 0, 0
    for step in steps:
        if step < -level:
            with pytest.raises(ValueError, match="more than is inside"):
                mark.sub(-step)
            continue
        level += step
        entered += max(step, 0)
        was, paused = paused, level > low if paused else level >= high
        pauses += paused and not was
        assert (mark.add(step) if step >= 0 else mark.sub(-step)) is paused
    stats = mark.stats()
    assert (stats.level, stats.is_paused, stats.pauses) == (level, paused, pauses)
    assert stats.added == entered == stats.subtracted + stats.level
    assert told == (["high", "low"] * pauses)[: 2 * pauses - paused]


# ---- counting ------------------------------------------------------------------------------------


def test_numbers_that_cannot_be_counted_are_refused_and_count_nothing() -> None:
    mark = weir.Watermark(10)
    with pytest.raises(ValueError, match="n must be >= 0, not -1"):
        mark.add(-1)
    with pytest.raises(ValueError, match="n must be >= 0, not -100000000000000000000"):
        mark.sub(-(10**20))
    with pytest.raises(TypeError):
        mark.add(1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"2\*\*46: add\(100000000000000000000\) to a level of 0"):
        mark.add(10**20)
    mark.add(7)
    with pytest.raises(ValueError, match=r"more than is inside: sub\(8\) from a level of 7"):
        mark.sub(8)
    assert mark.stats().added == 7
    assert mark.level == 7


def test_stats_tell_what_happened() -> None:
    mark = weir.Watermark(10, 4, name="buffer")
    mark.add(12)
    with pytest.raises(TimeoutError):
        mark.drain(timeout=0.01)
    mark.sub(9)
    stats = mark.stats()
    assert (stats.name, stats.high, stats.low) == ("buffer", 10, 4)
    assert (stats.level, stats.added, stats.subtracted, stats.peak) == (3, 12, 9, 12)
    assert (stats.pauses, stats.waiting, stats.is_paused, stats.is_closed) == (1, 0, False, False)
    assert stats.paused_for >= 0.01
    assert stats.blocked >= 0.01
    with pytest.raises(AttributeError):
        stats.level = 3  # type: ignore[misc]
    assert repr(mark) == "<weir.Watermark 'buffer': 3 of 10, low 4>"
    mark.add(9)
    assert repr(mark).endswith("low 4, paused>")
    mark.close()
    assert repr(mark).endswith("low 4, closed>")


def test_one_that_was_not_made_says_so() -> None:
    mark = weir.Watermark.__new__(weir.Watermark)
    for call in (lambda: mark.add(1), lambda: mark.paused, mark.drain, mark.close, mark.fileno):
        with pytest.raises(RuntimeError, match="__init__"):
            call()
    made = weir.Watermark(1)
    with pytest.raises(RuntimeError, match="has been called already"):
        made.__init__(2)  # type: ignore[misc]


def test_it_is_of_one_process_and_not_copied() -> None:
    mark = weir.Watermark(1)
    for call in (lambda: pickle.dumps(mark), lambda: copy.copy(mark)):
        with pytest.raises(TypeError, match="of one process"):
            call()
    pid = os.fork()
    if pid == 0:
        try:
            mark.add(1)
        except RuntimeError as error:
            os._exit(0 if "parent process" in str(error) else 2)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


# ---- threads -------------------------------------------------------------------------------------


def full(high: int = 10, low: int | None = None) -> weir.Watermark:
    mark = weir.Watermark(high, low)
    mark.add(high)
    return mark


def test_all_threads_that_wait_go_on_together() -> None:
    mark = full()
    waits = [InThread(mark.drain) for _ in range(5)]
    wait_until(lambda: mark.stats().waiting == 5)
    mark.sub(4)
    assert mark.stats().waiting == 5
    mark.sub(1)
    for wait in waits:
        wait.result()
    assert mark.stats().waiting == 0


def test_drain_without_a_pause_returns_at_once() -> None:
    mark = weir.Watermark(10)
    mark.drain(timeout=0)
    mark.drain()
    with pytest.raises(TimeoutError, match="still paused"):
        full().drain(timeout=0)
    with pytest.raises(ValueError, match="non-negative"):
        mark.drain(timeout=-1)


def test_close_releases_threads_and_lets_what_is_inside_leave() -> None:
    mark = full()
    wait = InThread(mark.drain)
    wait_until(lambda: mark.stats().waiting == 1)
    mark.close()
    with pytest.raises(weir.ShutDown, match="the watermark is closed"):
        wait.result()
    with pytest.raises(weir.ShutDown):
        mark.add(1)
    with pytest.raises(weir.ShutDown):
        mark.drain()
    assert mark.sub(10) is False
    mark.close()
    assert mark.stats().is_closed


def test_a_signal_handler_ends_a_wait_and_the_next_goes_on() -> None:
    code = """
    import signal, threading, time, weir
    mark = weir.Watermark(1)
    mark.add(1)
    def handle(*_):
        raise KeyError("from the handler")
    signal.signal(signal.SIGUSR1, handle)
    def send():
        while mark.stats().waiting == 0:
            time.sleep(0.001)
        signal.raise_signal(signal.SIGUSR1)
    threading.Thread(target=send).start()
    try:
        mark.drain(timeout=30)
    except KeyError as error:
        print(error, mark.stats().waiting)
    mark.sub(1)
    mark.drain(timeout=0)
    """
    assert output_of(code) == "'from the handler' 0\n"


def test_a_handler_that_raises_nothing_leaves_the_wait_in_place() -> None:
    mark = full()
    seen: list[int] = []

    def handle(*_: object) -> None:
        seen.append(mark.stats().waiting)
        mark.sub(10)

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        mark.drain(timeout=30)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert seen == [1]


def test_select_sees_it_readable_while_drain_would_not_wait() -> None:
    mark = weir.Watermark(2)

    def readable() -> bool:
        return bool(select.select([mark], [], [], 0)[0])

    assert readable()
    mark.add(2)
    assert not readable()
    mark.sub(1)
    assert readable()
    mark.add(9)
    mark.close()
    assert readable()


def test_many_threads_keep_to_the_bound_and_the_law() -> None:
    mark = weir.Watermark(50, 10)
    adders, each, step = 8, 300, 7
    done = threading.Event()

    def add() -> None:
        for _ in range(each):
            if mark.add(step):
                mark.drain()

    def take() -> None:
        while not (done.is_set() and mark.level == 0):
            level = mark.level
            if level:
                mark.sub(level)
            else:
                time.sleep(0)

    taker = InThread(take)
    for call in [InThread(add) for _ in range(adders)]:
        call.result(30)
    done.set()
    taker.result(30)
    stats = mark.stats()
    assert stats.added == adders * each * step == stats.subtracted + stats.level
    assert stats.peak < 50 + adders * step
    assert not stats.is_paused


# ---- coroutines ----------------------------------------------------------------------------------


def test_adrain_does_not_suspend_where_it_need_not_wait() -> None:
    mark = weir.Watermark(10)

    async def main() -> None:
        coroutine = mark.adrain()
        with pytest.raises(StopIteration):
            coroutine.send(None)

    asyncio.run(main())


def test_coroutines_of_several_loops_and_threads_go_on_together() -> None:
    mark = full()

    async def many() -> None:
        await asyncio.gather(*(mark.adrain() for _ in range(20)))

    loops = [InThread(asyncio.run, many()) for _ in range(3)]
    thread = InThread(mark.drain)
    wait_until(lambda: mark.stats().waiting == 61)
    mark.sub(5)
    for loop in loops:
        loop.result()
    thread.result()
    assert mark.stats().waiting == 0


def test_adrain_ends_at_its_timeout_and_with_a_cancel() -> None:
    mark = full()

    async def main() -> None:
        with pytest.raises(TimeoutError, match="still paused"):
            await mark.adrain(timeout=0.01)
        with pytest.raises(TimeoutError):
            await mark.adrain(timeout=0)
        task = asyncio.create_task(mark.adrain())
        await asyncio.sleep(0)
        assert mark.stats().waiting == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert mark.stats().waiting == 0

    asyncio.run(main())


def test_close_releases_coroutines() -> None:
    mark = full()

    async def main() -> None:
        tasks = [asyncio.create_task(mark.adrain()) for _ in range(3)]
        await asyncio.sleep(0)
        mark.close()
        for task in tasks:
            with pytest.raises(weir.ShutDown):
                await task
        with pytest.raises(weir.ShutDown):
            await mark.adrain()

    asyncio.run(main())


def test_coroutines_that_add_and_drain_keep_to_the_bound() -> None:
    mark = weir.Watermark(20, 5)
    tasks, each = 10, 50

    async def add() -> None:
        for _ in range(each):
            if mark.add(3):
                await mark.adrain()

    async def take() -> None:
        while mark.stats().subtracted < tasks * each * 3:
            mark.sub(min(4, mark.level))
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(take(), *(add() for _ in range(tasks)))

    asyncio.run(main())
    stats = mark.stats()
    assert stats.added == tasks * each * 3
    assert stats.level == 0
    assert stats.peak < 20 + tasks * 3


# ---- callbacks -----------------------------------------------------------------------------------


def test_callbacks_alternate_and_may_call_back() -> None:
    told: list[str] = []

    def on_high() -> None:
        told.append(f"high at {mark.level}")
        mark.sub(mark.level)

    mark = weir.Watermark(3, on_high=on_high, on_low=lambda: told.append(f"low at {mark.level}"))
    assert mark.add(5) is False
    assert told == ["high at 5", "low at 0"]


def test_only_one_of_the_callbacks_is_fine() -> None:
    told: list[str] = []
    mark = weir.Watermark(2, on_low=lambda: told.append("low"))
    mark.add(2)
    mark.sub(2)
    assert told == ["low"]


def test_an_exception_in_a_callback_harms_nothing(unraisable: list[Any]) -> None:
    def fail() -> None:
        raise KeyError("callback")

    mark = weir.Watermark(2, on_high=fail)
    assert mark.add(2) is True
    assert [type(error) for error in unraisable] == [KeyError]
    assert mark.sub(2) is False


def test_callbacks_of_many_threads_alternate_and_end_with_the_truth() -> None:
    told: list[str] = []
    mark = weir.Watermark(
        3, 1, on_high=lambda: told.append("high"), on_low=lambda: told.append("low")
    )

    def churn() -> None:
        for _ in range(500):
            mark.add(1)
            mark.sub(1)

    for call in [InThread(churn) for _ in range(6)]:
        call.result(30)
    assert told == (["high", "low"] * len(told))[: len(told)]
    assert len(told) % 2 == 0


def test_one_in_a_cycle_with_its_callbacks_is_collected() -> None:
    class Owner:
        def __init__(self) -> None:
            self.mark = weir.Watermark(1, on_high=self.heard, on_low=self.heard)

        def heard(self) -> None:
            pass

    owner = Owner()
    owner.mark.add(1)
    gone = weakref.ref(owner.mark)
    del owner
    gc.collect()
    assert gone() is None
