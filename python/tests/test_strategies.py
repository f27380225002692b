"""Strategies: what they show, and what queues and executors with one do."""

from __future__ import annotations

import logging
import pickle
import queue
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest

import weir
from weir import strategies
from weir.strategies import Strategy

ALL = [strategies.real_time, strategies.critical, strategies.batch, strategies.user_facing]
BLOCKING = Strategy("test", "tests")


# ---- the record -----------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ALL, ids=lambda s: s.name)
def test_print_shows_every_setting_with_its_reason(strategy: Strategy) -> None:
    lines = str(strategy).splitlines()
    assert lines[0] == f"{strategy.name}: {strategy.use}"
    shown = {line.split()[0]: line for line in lines[1:]}
    for name in strategy.settings():
        assert shown[name].endswith(strategy.why[name]), "each setting says why"
    for name, value in (strategy.breaker or {}).items():
        assert f"{name}={value!r}" in str(strategy)


def test_the_presets_are_what_the_use_cases_need() -> None:
    assert strategies.real_time.settings() == {"overflow": "drop_oldest"}
    assert strategies.critical.overflow == "block"
    assert strategies.critical.patience == 5.0
    assert strategies.critical.attempts is None
    assert strategies.batch.rate == 100.0
    assert strategies.user_facing.overflow == "fail"
    assert strategies.user_facing.breaker is not None
    assert "rate" in str(strategies.batch) and "100 per second" in str(strategies.batch)


def test_calling_one_changes_a_copy() -> None:
    mine = strategies.batch(rate=5, name="mine")
    assert (mine.rate, mine.name, mine.burst) == (5, "mine", strategies.batch.burst)
    assert strategies.batch.rate == 100.0
    assert "an even load" not in str(mine), "the reason was for the other number"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"overflow": "explode"}, "'overflow' must be one of"),
        ({"rate": 0}, "'rate' must be > 0 or None, not 0"),
        ({"rate": float("nan")}, "'rate' must be"),
        ({"patience": -1}, "'patience' must be > 0 seconds, not -1"),
        ({"max_age": 0}, "'max_age' must be > 0 seconds, not 0"),
        ({"attempts": 0}, "'attempts' must be from 1 to"),
        ({"burst": 0}, "'burst' must be from 1 to"),
        ({"backoff": (2, 1)}, "'backoff' must be"),
        ({"backoff": 2}, "'backoff' must be a tuple"),
    ],
)
def test_a_setting_out_of_range_says_so(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        BLOCKING(**changes)


def test_an_unknown_setting_names_those_there_are() -> None:
    with pytest.raises(TypeError, match=r"has no setting .speed.; it has .*rate"):
        BLOCKING(speed=3)
    with pytest.raises(ValueError, match="'patience' goes with"):
        strategies.real_time(patience=3)
    with pytest.raises(ValueError, match="'rate' goes with"):
        strategies.real_time(rate=3)


def test_a_strategy_can_be_compared_and_pickled() -> None:
    mine = BLOCKING(rate=5.0)
    assert pickle.loads(pickle.dumps(mine)) == mine
    assert mine != BLOCKING


# ---- queues ---------------------------------------------------------------------------------


def test_a_queue_with_a_strategy_is_a_queue() -> None:
    q: weir.Queue[int] = weir.Queue(3, overflow=strategies.real_time, name="prices")
    assert isinstance(q, weir.Queue)
    assert type(q).__name__ == "Queue"
    for item in range(5):
        q.put(item)
    assert q.get_many(5) == [2, 3, 4]
    assert q.stats().dropped["oldest"] == 2
    assert q.stats().name == "prices"
    q.shutdown()
    with pytest.raises(weir.ShutDown):
        q.put(1)


def test_a_plain_queue_knows_nothing_of_strategies() -> None:
    assert type(weir.Queue(3)) is weir.Queue
    assert type(weir.Queue(3, overflow="fail")) is weir.Queue
    with pytest.raises(ValueError, match="overflow must be"):
        weir.Queue(3, overflow=7)  # type: ignore[call-overload, arg-type, unused-ignore]


def test_a_subclass_of_a_queue_stays_one() -> None:
    class Mine(weir.Queue[int]):
        def __init__(self, size: int, extra: str, overflow: Strategy) -> None:
            super().__init__(size, overflow=overflow)
            self.extra = extra

    q = Mine(2, "x", overflow=strategies.user_facing)
    assert isinstance(q, Mine) and q.extra == "x"
    q.put(1)
    q.put(2)
    with pytest.raises(queue.Full):
        q.put(3)
    assert q.keeper.breaker is not None  # type: ignore[attr-defined]
    assert type(Mine(2, "x", overflow="fail")) is Mine  # type: ignore[arg-type]


def test_critical_tries_again_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    patient = strategies.critical(patience=0.01, backoff=(1e-4, 1e-3))
    q: Any = weir.Queue(1, overflow=patient, name="orders")
    q.put(1)
    with caplog.at_level(logging.WARNING, logger="weir"):
        thread = threading.Thread(target=q.put, args=(2,))
        thread.start()
        while q.keeper.stalls < 3:
            time.sleep(0.001)
        assert q.get() == 1
        thread.join()
    assert q.get() == 2
    assert "the queue 'orders' has had no room for 0.01 s (try 1)" in caplog.text
    assert q.stats().accepted == q.stats().delivered == 2


def test_critical_with_a_number_of_attempts_gives_up_and_the_item_stays() -> None:
    q: Any = weir.Queue(
        1, overflow=strategies.critical(patience=0.001, attempts=2, backoff=(1e-4, 1e-3))
    )
    q.put(1)
    with pytest.raises(queue.Full):
        q.put(2)
    assert q.keeper.stalls == 2
    assert q.stats().accepted == 1


def test_a_timeout_ends_all_tries_together() -> None:
    q: Any = weir.Queue(1, overflow=strategies.critical(patience=0.01))
    q.put(1)
    began = time.monotonic()
    with pytest.raises(queue.Full):
        q.put(2, timeout=0.05)
    assert time.monotonic() - began >= 0.05
    with pytest.raises(queue.Full):
        q.put_nowait(2)


def test_batch_lets_in_at_its_rate() -> None:
    q: Any = weir.Queue(1000, overflow=strategies.batch(rate=1e-3, burst=3))
    for item in range(3):
        q.put(item)
    with pytest.raises(queue.Full):
        q.put_nowait(3)
    with pytest.raises(queue.Full):
        q.put(3, timeout=0.01)
    assert q.put_many([], timeout=0) == 0
    assert q.stats().accepted == 3
    assert q.keeper.bucket.rate == 1e-3


def test_user_facing_stops_trying_when_it_is_full_for_long() -> None:
    q: Any = weir.Queue(
        1, overflow=strategies.user_facing(breaker={"min_calls": 4, "window": 4, "open_time": 60})
    )
    q.put(0)
    refused = 0
    while q.keeper.breaker.state == "closed":
        with pytest.raises(queue.Full):
            q.put(1)
        refused += 1
    assert 2 <= refused <= 4
    with pytest.raises(weir.BreakerOpen) as caught:
        q.put(1)
    assert caught.value.retry_after is not None and 0 < caught.value.retry_after <= 60
    assert q.stats().accepted == 1


def test_max_age_comes_with_the_strategy_unless_it_is_said() -> None:
    hasty = strategies.user_facing(max_age=0.001)

    def is_there_later(q: weir.Queue[int]) -> bool:
        q.put(1)
        time.sleep(0.01)
        try:
            return q.get_nowait() == 1
        except queue.Empty:
            return False

    assert not is_there_later(weir.Queue(3, overflow=hasty))
    assert is_there_later(weir.Queue(3, overflow=hasty, max_age=60))
    assert is_there_later(weir.Queue(3, overflow=hasty, max_age=None))


# ---- executors ------------------------------------------------------------------------------


def bounded(on_full: Strategy, **options: Any) -> Any:
    return weir.bounded(ThreadPoolExecutor(1), 1, on_full, **options)


def threads(on_full: Strategy, **options: Any) -> Any:
    return weir.ThreadPoolExecutor(1, max_submit_backlog=1, on_full=on_full, **options)


def processes(on_full: Strategy, **options: Any) -> Any:
    return weir.ProcessPoolExecutor(1, max_submit_backlog=1, on_full=on_full, **options)


EXECUTORS = [threads, bounded, processes]


@pytest.mark.parametrize("make", EXECUTORS)
def test_an_executor_with_a_strategy_is_an_executor(make: Any) -> None:
    with make(strategies.critical) as executor:
        assert executor.submit(pow, 2, 5).result() == 32
        assert executor.try_submit(pow, 2, 6).result() == 64
        assert list(executor.map(abs, range(-50, 0))) == list(range(50, 0, -1))
        assert executor.keeper.strategy is strategies.critical
        assert isinstance(executor, weir.MapIterator | object)


@pytest.mark.parametrize("make", [threads, bounded])
def test_submit_of_critical_tries_again(make: Any) -> None:
    gate = threading.Event()
    with make(strategies.critical(patience=0.01, backoff=(1e-4, 1e-3))) as executor:
        first = [executor.submit(gate.wait) for _ in range(2)]
        thread = ThreadPoolExecutor(1)
        third = thread.submit(executor.submit, pow, 2, 3)
        while executor.keeper.stalls < 2:
            time.sleep(0.001)
        gate.set()
        assert third.result().result() == 8
        wait(first)
        thread.shutdown()
    assert executor.stats().accepted == 3


@pytest.mark.parametrize("make", [threads, bounded])
def test_submit_timeout_ends_all_tries_together(make: Any) -> None:
    gate = threading.Event()
    patient = strategies.critical(patience=0.005, backoff=(1e-4, 1e-3))
    with make(patient, submit_timeout=0.05) as executor:
        for _ in range(2):
            executor.submit(gate.wait)
        with pytest.raises(TimeoutError):
            executor.submit(pow, 2, 3)
        assert executor.keeper.stalls >= 1
        gate.set()


@pytest.mark.parametrize("make", EXECUTORS)
def test_batch_paces_submit_and_map(make: Any) -> None:
    with make(strategies.batch(rate=1e-3, burst=5)) as executor:
        executor.submit(pow, 2, 3).result()
        assert executor.try_submit(pow, 2, 3).result() == 8
        results = executor.map(abs, [-1, -2])
        assert list(results) == [1, 2]
        assert executor.keeper.bucket.try_acquire()
        assert executor.try_submit(pow, 2, 3) is None
        assert executor.stats().accepted <= 4


@pytest.mark.parametrize("make", [threads, bounded])
def test_real_time_drops_the_oldest_task(make: Any) -> None:
    gate = threading.Event()
    with make(strategies.real_time) as executor:
        running = executor.submit(gate.wait)
        while executor.stats().__dict__.get("running", 1) == 0:
            time.sleep(0.001)
        futures = [executor.submit(pow, 2, n) for n in range(4)]
        gate.set()
        assert futures[-1].result() == 8, "the last one always arrives"
        assert running.result()
        assert executor.stats().dropped["oldest"] >= 1


def fail() -> None:
    raise OSError("down")


@pytest.mark.parametrize("make", EXECUTORS)
def test_the_breaker_of_an_executor_judges_its_tasks(make: Any) -> None:
    breaker = {"min_calls": 3, "window": 3, "open_time": 60, "failure_ratio": 1.0}
    with make(strategies.user_facing(breaker=breaker, overflow="block")) as executor:
        for _ in range(3):
            assert isinstance(executor.submit(fail).exception(), OSError)
        deadline = time.monotonic() + 30
        while executor.keeper.breaker.state == "closed" and time.monotonic() < deadline:
            time.sleep(0.001)
        with pytest.raises(weir.BreakerOpen):
            executor.submit(pow, 2, 3)
        with pytest.raises(weir.BreakerOpen):
            next(executor.map(abs, [1]))
        executor.keeper.breaker.reset()
        assert executor.submit(pow, 2, 3).result() == 8


@pytest.mark.parametrize("make", [threads, bounded])
def test_submit_timeout_covers_the_wait_for_the_rate(make: Any) -> None:
    with make(strategies.batch(rate=1e-3, burst=1), submit_timeout=0.02) as executor:
        executor.submit(pow, 2, 3).result()
        with pytest.raises(TimeoutError, match=r"lets in 0\.001 per second"):
            executor.submit(pow, 2, 3)
        assert executor.keeper.too_fast == 1
    hasty = strategies.batch(rate=1e-3, burst=1, overflow="fail")
    with make(hasty) as executor:
        executor.submit(pow, 2, 3).result()
        with pytest.raises(weir.BacklogFull, match="no token now"):
            executor.submit(pow, 2, 3)


def test_map_is_paced_whatever_submit_would_do() -> None:
    hasty = strategies.batch(rate=50.0, burst=1, overflow="fail")
    with threads(hasty) as executor:
        began = time.monotonic()
        assert list(executor.map(abs, [-1, -2, -3])) == [1, 2, 3]
        assert time.monotonic() - began >= 2 / 50 - 0.001
        assert executor.keeper.too_fast == 0


def starts(fn: Any, *args: Any) -> Any:
    """Calls fn in a thread that has begun to wait, as far as can be told."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(fn, *args)
    time.sleep(0.05)
    pool.shutdown(wait=False)
    return future


def test_shutdown_wakes_who_is_paced_or_pauses() -> None:
    paced: Any = weir.Queue(10, overflow=strategies.batch(rate=1e-3, burst=1))
    paced.put(1)
    waits = starts(paced.put, 2)
    paced.shutdown()
    with pytest.raises(weir.ShutDown):
        waits.result(10)
    pauses: Any = weir.Queue(1, overflow=strategies.critical(patience=0.01, backoff=(1e3, 1e3)))
    pauses.put(1)
    waits = starts(pauses.put, 2)
    pauses.shutdown()
    with pytest.raises(weir.ShutDown):
        waits.result(10)


@pytest.mark.parametrize("make", EXECUTORS)
def test_shutdown_of_an_executor_wakes_who_is_paced(make: Any) -> None:
    executor = make(strategies.batch(rate=1e-3, burst=1))
    assert executor.submit(pow, 2, 3).result() == 8
    waits = starts(executor.submit, pow, 2, 4)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        waits.result(10)


def test_an_executor_that_nobody_holds_still_goes() -> None:
    executor = threads(strategies.batch)
    assert executor.submit(pow, 2, 3).result() == 8
    gone = weakref.ref(executor)
    del executor
    assert gone() is None


def test_something_that_is_no_policy_is_refused_as_before() -> None:
    for make in EXECUTORS:
        policy: Any = 7
        with pytest.raises(ValueError, match="on_full must be one of"):
            make(policy)
