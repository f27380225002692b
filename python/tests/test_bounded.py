"""weir.bounded(): the bound around executors that weir did not write."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from typing import Any

import pytest
from conftest import InThread, wait_until
from test_thread_executor import storm

import weir


class ByHand(Executor):
    """An executor whose tasks run when the test says so."""

    def __init__(self) -> None:
        self.tasks: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.refuses = False
        self.shutdowns: list[bool] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.refuses:
            raise OSError("refused")
        future: Future[Any] = Future()
        self.tasks.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run_one(self) -> None:
        future, call = self.tasks.pop(0)
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)

    def run_in_thread(self) -> None:
        InThread(self.run_one).result()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.shutdowns.append(wait)


def check_law(pool: weir.BoundedExecutor) -> None:
    s = pool.stats()
    assert s.accepted == s.completed + s.cancelled + sum(s.dropped.values()) + s.inside


def in_use(pool: weir.BoundedExecutor) -> int:
    return pool._bound.permits.stats()[0]


@pytest.fixture
def inner() -> ByHand:
    return ByHand()


def square(x: int) -> int:
    return x * x


def fail(x: int) -> int:
    raise LookupError(x)


# ---- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backlog", [0, -1, False, 3.5, "2"])
def test_a_backlog_that_is_none_is_refused(backlog: Any, inner: ByHand) -> None:
    with pytest.raises(ValueError, match="max_submit_backlog must be"):
        weir.bounded(inner, backlog)


def test_what_cannot_submit_is_not_an_executor() -> None:
    with pytest.raises(TypeError, match="needs an executor with a submit method, not 3"):
        weir.bounded(3)  # type: ignore[arg-type]


def test_workers_are_the_executors_own_where_it_says_so(inner: ByHand) -> None:
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        s = weir.bounded(threads).stats()
        assert (s.max_workers, s.max_submit_backlog) == (3, 6)
    assert weir.bounded(inner).stats().max_workers >= 1
    assert weir.bounded(inner).executor is inner


# ---- permits ----------------------------------------------------------------------------------


def test_a_permit_comes_back_exactly_once_however_a_task_ends(inner: ByHand) -> None:
    inner._max_workers = 2  # type: ignore[attr-defined]
    pool = weir.bounded(inner, 3, "fail")
    good, bad, cancelled = pool.submit(square, 3), pool.submit(fail, 1), pool.submit(square, 2)
    assert in_use(pool) == 3
    inner.run_one()
    assert (good.result(), in_use(pool)) == (9, 2)
    inner.run_one()
    assert isinstance(bad.exception(), LookupError)
    assert in_use(pool) == 1
    assert cancelled.cancel()
    assert cancelled.cancel()
    assert in_use(pool) == 0
    inner.run_one()
    assert in_use(pool) == 0
    inner.refuses = True
    for _ in range(20):
        with pytest.raises(OSError, match="refused"):
            pool.submit(square, 1)
    assert in_use(pool) == 0
    inner.refuses = False
    for _ in range(5):
        pool.submit(square, 1)
    with pytest.raises(weir.BacklogFull):
        pool.submit(square, 1)
    check_law(pool)


def test_block_waits_for_a_completion(inner: ByHand) -> None:
    inner._max_workers = 1  # type: ignore[attr-defined]
    pool = weir.bounded(inner, 1)
    pool.submit(square, 1)
    pool.submit(square, 2)
    assert pool.try_submit(square, 3) is None
    waiting = InThread(pool.submit, square, 3)
    wait_until(lambda: pool.stats().submitters_waiting == 1)
    inner.run_one()
    future = waiting.result()
    inner.run_one()
    inner.run_one()
    assert future.result(0) == 9
    check_law(pool)


def test_block_times_out(inner: ByHand) -> None:
    inner._max_workers = 1  # type: ignore[attr-defined]
    pool = weir.bounded(inner, 1, submit_timeout=0.01)
    pool.submit(square, 1)
    pool.submit(square, 1)
    with pytest.raises(TimeoutError):
        pool.submit(square, 1)
    assert (len(inner.tasks), pool.stats().refused) == (2, 1)


def test_drop_newest_does_not_bother_the_executor(inner: ByHand) -> None:
    inner._max_workers = 1  # type: ignore[attr-defined]
    pool = weir.bounded(inner, 1, "drop_newest")
    for _ in range(2):
        pool.submit(square, 1)
    with pytest.raises(weir.Dropped):
        pool.submit(square, 1).result(0)
    assert len(inner.tasks) == 2
    check_law(pool)


def test_drop_oldest_cancels_the_oldest_that_can_be_cancelled(inner: ByHand) -> None:
    inner._max_workers = 1  # type: ignore[attr-defined]
    pool = weir.bounded(inner, 2, "drop_oldest")
    futures = [pool.submit(square, i) for i in range(3)]
    futures[0].set_running_or_notify_cancel()
    futures.append(pool.submit(square, 3))
    with pytest.raises(CancelledError):
        futures[1].result(0)
    assert in_use(pool) == 3
    for waiting in futures[2:]:
        waiting.set_running_or_notify_cancel()
    with pytest.raises(weir.Dropped, match="newest"):
        pool.submit(square, 4).result(0)
    assert pool.stats().dropped == {"newest": 1, "oldest": 1}
    check_law(pool)


def test_caller_runs_runs_it_here(inner: ByHand) -> None:
    inner._max_workers = 1  # type: ignore[attr-defined]
    pool = weir.bounded(inner, 1, "caller_runs")
    for _ in range(2):
        pool.submit(square, 1)
    assert pool.submit(square, 5).result(0) == 25
    assert pool.submit(fail, 5).exception(0)
    check_law(pool)


def test_unbounded_is_possible_by_name(inner: ByHand) -> None:
    pool = weir.bounded(inner, None)
    for i in range(1000):
        pool.submit(square, i)
    assert pool.stats().inside == 1000


# ---- ending -----------------------------------------------------------------------------------


def test_shutdown_reaches_the_executor_and_releases_submitters(inner: ByHand) -> None:
    inner._max_workers = 1  # type: ignore[attr-defined]
    pool = weir.bounded(inner, 1)
    futures = [pool.submit(square, 1) for _ in range(2)]
    waiting = InThread(pool.submit, square, 1)
    wait_until(lambda: pool.stats().submitters_waiting == 1)
    pool.shutdown(wait=False, cancel_futures=True)
    assert inner.shutdowns == [False]
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        waiting.result()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.submit(square, 1)
    assert all(future.cancelled() for future in futures)
    check_law(pool)


# ---- submitting from inside -------------------------------------------------------------------


def test_a_callback_that_would_wait_for_its_own_thread_is_told(inner: ByHand) -> None:
    inner._max_workers = 1  # type: ignore[attr-defined]
    pool = weir.bounded(inner, 1)
    errors: list[BaseException | None] = []

    def again(done: Future[Any]) -> None:
        try:
            for _ in range(3):
                pool.submit(square, 2)
        except RuntimeError as error:
            errors.append(error)

    pool.submit(square, 1)
    second = pool.submit(square, 1)
    second.add_done_callback(again)

    def collect() -> None:  # as the one thread of a process pool that completes futures
        inner.run_one()
        inner.run_one()

    InThread(collect).result()
    assert "would wait for itself" in str(errors[0])
    check_law(pool)


def test_tasks_of_a_foreign_thread_pool_are_told_too() -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        pool = weir.bounded(threads, 1)
        go = threading.Event()

        def task() -> None:
            assert go.wait(10)
            pool.submit(square, 1)
            pool.submit(square, 1)

        future = pool.submit(task)
        pool.submit(square, 2)
        go.set()
        with pytest.raises(RuntimeError, match="would wait for itself"):
            future.result(10)


# ---- real executors ---------------------------------------------------------------------------


def test_a_standard_thread_pool_under_a_hundred_threads_keeps_the_bound() -> None:
    def task(x: int) -> int:
        time.sleep(0.0002)
        return x

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        pool = weir.bounded(threads, 4)
        stop = threading.Event()
        depths: list[int] = []

        def watch() -> None:
            while not stop.is_set():
                depths.append(threads._work_queue.qsize())
                check_law(pool)

        watcher = InThread(watch)
        submitters = [
            InThread(lambda: [pool.submit(task, i).result() for i in range(10)]) for _ in range(100)
        ]
        for submitter in submitters:
            assert submitter.result(60) == list(range(10))
        stop.set()
        watcher.result()
    assert max(depths) <= 8
    assert in_use(pool) == 0
    assert pool.stats().completed == 1000


def test_a_standard_process_pool_is_bounded_and_maps() -> None:
    with weir.bounded(concurrent.futures.ProcessPoolExecutor(2)) as pool:
        assert list(pool.map(square, range(50))) == [i * i for i in range(50)]
        assert list(pool.map(square, range(50), chunksize=7)) == [i * i for i in range(50)]
        results = pool.map(fail, [1, 2])
        for item in (1, 2):
            with pytest.raises(LookupError, match=str(item)):
                next(results)
        assert pool.submit(square, 3).result() == 9
    check_law(pool)
    assert in_use(pool) == 0


def test_a_pool_of_weir_can_be_bounded_once_more() -> None:
    with weir.bounded(weir.ThreadPoolExecutor(2), 3) as pool:
        assert sum(pool.map(square, range(100))) == sum(i * i for i in range(100))
    check_law(pool)


def test_an_interrupted_submit_keeps_no_permit(inner: ByHand, unraisable: list[Any]) -> None:
    # Completed in this thread: a standard future does not survive such interrupts in another.
    pool = weir.bounded(inner, 50, on_full="fail")

    def step() -> None:
        for _ in range(30):
            pool.submit(int)

    def settle() -> None:
        while inner.tasks:
            inner.run_one()
        assert in_use(pool) == pool.stats().inside == 0

    storm(step, settle)
    check_law(pool)


def test_drop_oldest_asks_a_running_task_only_once(inner: ByHand) -> None:
    asked: list[Future[Any]] = []

    class Asked(Future[Any]):
        def cancel(self) -> bool:
            asked.append(self)
            return super().cancel()

    class Asking(ByHand):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            return Asked()

    pool = weir.bounded(Asking(), 100, on_full="drop_oldest")
    futures = [pool.submit(int) for _ in range(50)]
    for future in futures:
        future.set_running_or_notify_cancel()
    while pool.stats().inside < pool.stats().max_workers + 100:
        futures.append(pool.submit(int))
    futures += [pool.submit(int) for _ in range(50)]
    assert len(asked) == 50 + 50
    assert [future.cancelled() for future in futures[50:101]] == [True] * 50 + [False]
    assert pool.stats().dropped["oldest"] == 50
