"""weir.ThreadPoolExecutor: the standard pool's promises, and the bound."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import queue
import random
import signal
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.thread import BrokenThreadPool
from typing import Any, get_args

import pytest
from conftest import InThread, output_of, wait_until

import weir


class Gate:
    """Tasks that run until it opens."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, value: Any = None) -> Any:
        assert self.open.wait(30)
        return value


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def check_law(pool: weir.ThreadPoolExecutor) -> None:
    s = pool.stats()
    assert s.accepted == s.finished + s.cancelled + sum(s.dropped.values()) + s.waiting + s.running


def fill(pool: weir.ThreadPoolExecutor, gate: Gate) -> list[Future[Any]]:
    """Submits until there is no room; the workers have started their tasks when it returns."""
    futures: list[Future[Any]] = []
    while (future := pool.try_submit(gate, len(futures))) is not None:
        futures.append(future)
    wait_until(lambda: pool.stats().running == pool.stats().max_workers)
    return futures


# ---- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backlog", [0, -1, False, 3.5, "2", 1.0, [], 2 + 0j])
def test_a_backlog_that_is_none_is_refused_with_a_sentence(backlog: Any) -> None:
    with pytest.raises(ValueError, match=r"must be True .* an int > 0 or None .*not "):
        weir.ThreadPoolExecutor(2, max_submit_backlog=backlog)


@pytest.mark.parametrize("on_full", ["", "wait", None, 3, True])
def test_an_unknown_policy_is_refused_with_the_choices(on_full: Any) -> None:
    with pytest.raises(ValueError, match=r'on_full must be one of "block", "fail", "drop_newest"'):
        weir.ThreadPoolExecutor(2, on_full=on_full)


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_a_submit_timeout_out_of_range_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="submit_timeout must be seconds >= 0"):
        weir.ThreadPoolExecutor(2, submit_timeout=timeout)


def test_a_submit_timeout_without_blocking_is_refused() -> None:
    with pytest.raises(ValueError, match='only goes with on_full="block"'):
        weir.ThreadPoolExecutor(2, on_full="fail", submit_timeout=1)


@pytest.mark.parametrize("workers", [0, -1])
def test_max_workers_must_be_positive_as_in_the_standard_library(workers: int) -> None:
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        weir.ThreadPoolExecutor(workers)


def test_initializer_must_be_callable_as_in_the_standard_library() -> None:
    with pytest.raises(TypeError, match="initializer must be a callable"):
        weir.ThreadPoolExecutor(initializer=3)  # type: ignore[arg-type]


def test_true_means_twice_the_workers() -> None:
    with weir.ThreadPoolExecutor(3) as pool:
        assert pool.stats().max_submit_backlog == 6
    with weir.ThreadPoolExecutor(3, max_submit_backlog=1) as pool:
        assert pool.stats().max_submit_backlog == 1
    with weir.ThreadPoolExecutor(3, max_submit_backlog=None) as pool:
        assert pool.stats().max_submit_backlog is None


def test_both_names_are_one_class() -> None:
    assert weir.BoundedThreadPoolExecutor is weir.ThreadPoolExecutor
    assert issubclass(weir.ThreadPoolExecutor, concurrent.futures.Executor)


# ---- as the standard pool ---------------------------------------------------------------------


def test_results_and_exceptions_come_through_real_futures() -> None:
    with weir.ThreadPoolExecutor(2) as pool:
        future = pool.submit(pow, 2, exp=5)
        assert isinstance(future, concurrent.futures.Future)
        assert future.result() == 32
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result()
        done, not_done = concurrent.futures.wait([pool.submit(int) for _ in range(4)], 10)
        assert (len(done), len(not_done)) == (4, 0)
        assert sum(f.result() for f in concurrent.futures.as_completed(done)) == 0
    check_law(pool)


def test_any_keyword_goes_to_the_function() -> None:
    with weir.ThreadPoolExecutor(1) as pool:
        assert pool.submit(dict, fn=1, self=2, args=3).result() == {"fn": 1, "self": 2, "args": 3}


def test_threads_start_when_needed_and_idle_ones_are_used_again() -> None:
    with weir.ThreadPoolExecutor(4) as pool:
        assert pool.stats().workers == 0
        for _ in range(20):
            pool.submit(int).result()
            time.sleep(0.002)
        assert pool.stats().workers <= 2
        barrier = threading.Barrier(4)
        for future in [pool.submit(barrier.wait, 10) for _ in range(4)]:
            future.result()
        assert pool.stats().workers == 4


def test_threads_are_named_and_initialised() -> None:
    local = threading.local()

    def initialise(value: int) -> None:
        local.value = value

    def look() -> tuple[str, int]:
        return threading.current_thread().name, local.value

    with weir.ThreadPoolExecutor(2, "named", initialise, (7,)) as pool:
        assert pool.submit(look).result() in [("named_0", 7), ("named_1", 7)]


def test_an_initializer_that_raises_is_shown_to_everybody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def initialise() -> None:
        time.sleep(0.05)
        raise LookupError("no licence")

    with weir.ThreadPoolExecutor(1, initializer=initialise, max_submit_backlog=1) as pool:
        futures = [pool.submit(int) for _ in range(2)]
        blocked = InThread(pool.submit, int)
        for future in futures:
            with pytest.raises(BrokenThreadPool, match="LookupError: no licence") as caught:
                future.result(10)
            assert isinstance(caught.value.__cause__, LookupError)
        with pytest.raises(BrokenThreadPool, match="no licence"):
            blocked.result()
        with pytest.raises(BrokenThreadPool, match="no licence"):
            pool.submit(int)
        with pytest.raises(BrokenThreadPool, match="no licence"):
            pool.try_submit(int)
    assert "Exception in initializer" in caplog.text
    check_law(pool)
    assert pool.stats().dropped["broken"] == 2


def test_shutdown_runs_what_was_accepted() -> None:
    done: list[int] = []

    def task(i: int) -> None:
        time.sleep(0.005)
        done.append(i)

    pool = weir.ThreadPoolExecutor(2, max_submit_backlog=None)
    for i in range(20):
        pool.submit(task, i)
    pool.shutdown()
    assert sorted(done) == list(range(20))
    assert not any(thread.is_alive() for thread in pool._threads)
    for submit in (pool.submit, pool.try_submit):
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            submit(int)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.map(int, [1])
    pool.shutdown()


def test_shutdown_without_wait_returns_at_once(gate: Gate) -> None:
    pool = weir.ThreadPoolExecutor(1)
    future = pool.submit(gate, 5)
    pool.shutdown(wait=False)
    assert not future.done()
    gate.open.set()
    assert future.result(10) == 5


def test_shutdown_with_cancel_futures_cancels_what_has_not_started(gate: Gate) -> None:
    pool = weir.ThreadPoolExecutor(2, max_submit_backlog=10)
    futures = fill(pool, gate)
    pool.shutdown(wait=False, cancel_futures=True)
    assert [future.cancelled() for future in futures] == [False] * 2 + [True] * 10
    assert not concurrent.futures.wait(futures[2:], 10).not_done
    gate.open.set()
    pool.shutdown()
    assert [future.result() for future in futures[:2]] == [0, 1]
    check_law(pool)


def test_shutdown_releases_submitters_that_wait(gate: Gate) -> None:
    pool = weir.ThreadPoolExecutor(1, max_submit_backlog=1)
    fill(pool, gate)
    blocked = [InThread(pool.submit, int) for _ in range(5)]
    wait_until(lambda: pool.stats().submitters_waiting == 5)
    pool.shutdown(wait=False)
    for submitter in blocked:
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            submitter.result()
    gate.open.set()
    pool.shutdown()
    assert pool.stats().accepted == 2


def test_a_task_may_shut_its_own_pool_down() -> None:
    pool = weir.ThreadPoolExecutor(2)
    pool.submit(pool.shutdown).result(10)
    pool.shutdown()


def test_an_executor_nobody_holds_is_collected_and_its_threads_end() -> None:
    pool = weir.ThreadPoolExecutor(3)
    futures = [pool.submit(time.sleep, 0.01) for _ in range(6)]
    threads = list(pool._threads)
    ref = weakref.ref(pool)
    del pool
    gc.collect()
    assert ref() is None
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert all(future.done() for future in futures)


def test_nothing_of_a_task_stays_alive_after_it() -> None:
    class Payload:
        def __call__(self, other: Payload) -> Payload:
            return self

        def fail(self, other: Payload) -> None:
            raise LookupError

    with weir.ThreadPoolExecutor(1) as pool:
        payloads = [Payload() for _ in range(3)]
        refs = [weakref.ref(payload) for payload in payloads]
        future: Future[Any] = pool.submit(payloads[0], payloads[1])
        future.result()
        future = pool.submit(payloads[2].fail, payloads[1])
        with pytest.raises(LookupError):
            future.result()
        del payloads, future
        gc.collect()
        wait_until(lambda: all(ref() is None for ref in refs))


def test_wrapped_in_a_running_loop_it_serves_asyncio() -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        with weir.ThreadPoolExecutor(2, max_submit_backlog=100) as pool:
            calls = [loop.run_in_executor(pool, pow, i, 2) for i in range(50)]
            return list(await asyncio.gather(*calls))

    assert asyncio.run(main()) == [i**2 for i in range(50)]


def test_tasks_start_in_the_order_they_were_accepted(gate: Gate) -> None:
    started: list[int] = []
    with weir.ThreadPoolExecutor(1, max_submit_backlog=200) as pool:
        pool.submit(gate)
        futures = [pool.submit(started.append, i) for i in range(200)]
        for future in futures[::3]:
            assert future.cancel()
        futures += [pool.submit(started.append, i) for i in range(200, 250)]
        gate.open.set()
    assert started == [i for i in range(250) if i >= 200 or i % 3]


def make_short(pool: weir.ThreadPoolExecutor) -> None:
    """The pool has seen many short tasks: it does not wake a worker for each."""
    for _ in range(20):
        for future in [pool.submit(int) for _ in range(100)]:
            future.result(20)


def test_a_task_that_blocks_keeps_no_other_from_starting(gate: Gate) -> None:
    with weir.ThreadPoolExecutor(2, max_submit_backlog=200) as pool:
        for _ in range(20):
            make_short(pool)
            gate.open.clear()
            # Behind short ones, so that the same worker would have come to all of them.
            futures = [pool.submit(int) for _ in range(30)]
            blocked = pool.submit(gate, 5)
            futures += [pool.submit(int) for _ in range(30)]
            for future in futures:
                future.result(20)
            assert not blocked.done()
            gate.open.set()
            assert blocked.result(20) == 5


def test_tasks_that_block_use_all_workers_after_many_short_ones() -> None:
    with weir.ThreadPoolExecutor(8, max_submit_backlog=200) as pool:
        for _ in range(10):
            make_short(pool)
            barrier = threading.Barrier(8)
            for future in [pool.submit(barrier.wait, 20) for _ in range(8)]:
                future.result(20)


def test_a_callback_that_blocks_keeps_no_task_from_starting(gate: Gate) -> None:
    with weir.ThreadPoolExecutor(2, max_submit_backlog=200) as pool:
        make_short(pool)
        go = threading.Event()
        first = pool.submit(go.wait, 20)
        first.add_done_callback(gate)
        go.set()
        assert first.result(20)
        for future in [pool.submit(int) for _ in range(50)]:
            assert future.result(20) == 0
        gate.open.set()


def test_a_task_that_waits_for_another_one_lets_it_run() -> None:
    with weir.ThreadPoolExecutor(2, max_submit_backlog=200) as pool:
        make_short(pool)
        for _ in range(50):
            assert pool.submit(lambda: pool.submit(int, "3").result(20)).result(20) == 3


def test_a_worker_that_starts_slowly_keeps_no_idle_one_from_working(gate: Gate) -> None:
    begun: list[int] = []

    def initialise() -> None:
        begun.append(0)
        if len(begun) == 2:
            gate()

    with weir.ThreadPoolExecutor(2, initializer=initialise) as pool:
        go = threading.Event()
        first = pool.submit(go.wait, 20)
        wait_until(first.running)
        second = pool.submit(int)
        wait_until(lambda: len(begun) == 2)
        go.set()
        assert second.result(20) == 0
        for _ in range(20):
            assert pool.submit(int, "5").result(20) == 5
            time.sleep(0.001)
        gate.open.set()


@pytest.mark.skipif(
    os.environ.get("WEIR_SANITIZER") == "tsan", reason="it fails in a child of a thread"
)
def test_a_task_that_forks_ends_in_the_child_without_a_trace_in_the_parent() -> None:
    output_of(
        """
        import os, warnings
        import weir
        warnings.simplefilter("ignore")
        parent = os.getpid()
        with weir.ThreadPoolExecutor(2, max_submit_backlog=4) as pool:
            pids = [pool.submit(os.fork) for _ in range(4)]
            for pid in pids:
                assert os.waitstatus_to_exitcode(os.waitpid(pid.result(20), 0)[1]) == 0
            assert pool.stats().finished == 4
            assert pool.submit(int, "3").result(20) == 3
        assert os.getpid() == parent
        """
    )


def test_idle_workers_sleep_and_come_when_they_are_needed() -> None:
    with weir.ThreadPoolExecutor(3) as pool:
        make_short(pool)
        for pause in (0.0, 0.0001, 0.001, 0.02):
            for _ in range(10):
                time.sleep(pause)
                assert pool.submit(int, "4").result(20) == 4
        wait_until(lambda: pool._pool.idle == pool.stats().workers)


def test_a_task_future_comes_from_submit_only() -> None:
    with weir.ThreadPoolExecutor(1) as pool:
        with pytest.raises(TypeError, match=r"submit\(\) does"):
            type(pool.submit(int))()


# ---- the bound --------------------------------------------------------------------------------


def test_accepted_and_unfinished_never_exceed_backlog_and_workers() -> None:
    pool = weir.ThreadPoolExecutor(3, max_submit_backlog=4)
    stop = threading.Event()
    peaks: list[int] = []

    def watch() -> None:
        while not stop.is_set():
            s = pool.stats()
            peaks.append(s.accepted - s.finished)
            check_law(pool)

    watcher = InThread(watch)
    submitters = [
        InThread(lambda: [pool.submit(time.sleep, 0.0005) for _ in range(20)]) for _ in range(20)
    ]
    futures = [future for submitter in submitters for future in submitter.result()]
    concurrent.futures.wait(futures)
    stop.set()
    watcher.result()
    pool.shutdown()
    assert max(peaks) <= 7
    assert pool.stats().finished == 400


def test_a_hundred_threads_submit_and_every_result_comes() -> None:
    with weir.ThreadPoolExecutor(8, max_submit_backlog=1) as pool:
        results = [
            InThread(lambda n=n: [pool.submit(pow, n, 2).result() for _ in range(20)])
            for n in range(100)
        ]
        for n, result in enumerate(results):
            assert result.result(60) == [n * n] * 20
    assert pool.stats().finished == 2000


def test_block_waits_and_times_out(gate: Gate) -> None:
    pool = weir.ThreadPoolExecutor(1, max_submit_backlog=1, submit_timeout=0.05, name="jobs")
    futures = fill(pool, gate)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"0\.05 s: the backlog of 'jobs' is full .*=1, work"):
        pool.submit(int)
    assert 0.05 <= time.monotonic() - start < 5
    with pytest.raises(concurrent.futures.TimeoutError):
        pool.submit(int)
    s = pool.stats()
    assert s.refused >= 2
    assert s.submit_blocked >= 0.1
    gate.open.set()
    assert [future.result() for future in futures] == [0, 1]
    assert pool.submit(int, "3").result() == 3
    pool.shutdown()
    check_law(pool)


def test_fail_raises_backlog_full_at_once(gate: Gate) -> None:
    pool = weir.ThreadPoolExecutor(1, max_submit_backlog=2, on_full="fail")
    fill(pool, gate)
    with pytest.raises(weir.BacklogFull, match="max_submit_backlog=2, workers=1"):
        pool.submit(int)
    with pytest.raises(queue.Full):
        pool.submit(int)
    gate.open.set()
    pool.shutdown()
    check_law(pool)


def test_drop_newest_gives_a_future_that_says_so(gate: Gate) -> None:
    pool = weir.ThreadPoolExecutor(1, max_submit_backlog=1, on_full="drop_newest")
    fill(pool, gate)
    future = pool.submit(int)
    with pytest.raises(weir.Dropped, match=r"dropped \(newest\): there was no room") as caught:
        future.result(0)
    assert caught.value.reason == "newest"
    gate.open.set()
    pool.shutdown()
    assert pool.stats().dropped["newest"] == 1
    check_law(pool)


def test_drop_oldest_drops_the_oldest_that_waits(gate: Gate) -> None:
    pool = weir.ThreadPoolExecutor(2, max_submit_backlog=3, on_full="drop_oldest")
    futures = fill(pool, gate)
    futures += [pool.submit(gate, 10), pool.submit(gate, 11)]
    for dropped in futures[2:4]:
        with pytest.raises(weir.Dropped) as caught:
            dropped.result(0)
        assert caught.value.reason == "oldest"
    gate.open.set()
    assert [f.result(10) for f in futures[:2] + futures[4:]] == [0, 1, 4, 10, 11]
    pool.shutdown()
    assert pool.stats().dropped["oldest"] == 2
    check_law(pool)


def test_caller_runs_runs_it_here(gate: Gate) -> None:
    pool = weir.ThreadPoolExecutor(1, max_submit_backlog=1, on_full="caller_runs")
    fill(pool, gate)
    assert pool.submit(threading.get_ident).result(0) == threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result(0)
    gate.open.set()
    pool.shutdown()
    assert pool.stats().caller_ran == 2
    check_law(pool)


def test_caller_runs_lets_ctrl_c_in_the_task_through(gate: Gate) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    pool = weir.ThreadPoolExecutor(1, max_submit_backlog=1, on_full="caller_runs")
    fill(pool, gate)
    with pytest.raises(KeyboardInterrupt):
        pool.submit(interrupted)
    gate.open.set()
    pool.shutdown()
    check_law(pool)


@pytest.mark.parametrize("on_full", ["block", "fail", "drop_newest", "drop_oldest", "caller_runs"])
def test_try_submit_never_waits_drops_or_runs(on_full: Any, gate: Gate) -> None:
    pool = weir.ThreadPoolExecutor(1, max_submit_backlog=1, on_full=on_full)
    futures = fill(pool, gate)
    assert pool.try_submit(int) is None
    gate.open.set()
    assert [future.result(10) for future in futures] == [0, 1]
    late = pool.try_submit(int, "7")
    assert late is not None
    assert late.result(10) == 7
    pool.shutdown()
    check_law(pool)


def test_every_policy_under_many_threads_keeps_bound_and_law() -> None:
    for on_full in get_args(weir.OnFull):
        pool = weir.ThreadPoolExecutor(4, max_submit_backlog=2, on_full=on_full)

        def produce(pool: weir.ThreadPoolExecutor = pool) -> list[Future[Any]]:
            futures = []
            for i in range(100):
                try:
                    futures.append(pool.submit(time.sleep, 0.0001))
                except weir.BacklogFull:
                    continue
                if i % 7 == 0:
                    futures[-1].cancel()
            return futures

        producers = [InThread(produce) for _ in range(8)]
        futures = [future for producer in producers for future in producer.result()]
        _, not_done = concurrent.futures.wait(futures, 30)
        assert not not_done
        pool.shutdown()
        s = pool.stats()
        assert (s.waiting, s.running) == (0, 0)
        assert s.accepted == len(futures)
        dropped = sum(isinstance(f.exception(), weir.Dropped) for f in futures if not f.cancelled())
        assert dropped == sum(s.dropped.values())
        assert sum(f.cancelled() for f in futures) == s.cancelled
        check_law(pool)
        assert pool._pool.permits_out == 0


def test_a_thread_that_cannot_be_started_is_an_error_and_leaks_nothing(
    monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = weir.ThreadPoolExecutor(2, max_submit_backlog=1, on_full="fail")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for _ in range(10):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                pool.submit(int)
    assert pool.stats().accepted == 0
    futures = [pool.submit(gate, 1)]
    with monkeypatch.context() as patch:  # one thread will do
        patch.setattr(threading.Thread, "start", start)
        futures += [pool.submit(gate, i) for i in (2, 3)]
        with pytest.raises(weir.BacklogFull):
            pool.submit(int)
    gate.open.set()
    assert [future.result(10) for future in futures] == [1, 2, 3]
    pool.shutdown()
    check_law(pool)


def test_a_callback_that_exits_does_not_cost_a_worker(caplog: pytest.LogCaptureFixture) -> None:
    def leave(future: Future[Any]) -> None:
        raise SystemExit

    with weir.ThreadPoolExecutor(1) as pool:
        go = threading.Event()
        future = pool.submit(go.wait, 10)
        future.add_done_callback(leave)
        go.set()
        assert pool.submit(int, "5").result(10) == 5
    assert "Exception in worker" in caplog.text


# ---- cancelling -------------------------------------------------------------------------------


def test_cancelling_a_waiting_future_frees_its_place_at_once(gate: Gate) -> None:
    pool = weir.ThreadPoolExecutor(1, max_submit_backlog=2, on_full="fail")
    futures = fill(pool, gate)
    for _ in range(1000):  # far more than ever fit: nothing stays behind
        assert futures[-1].cancel()
        assert futures[-1].cancelled()
        futures[-1] = pool.submit(gate, "late")
    assert not futures[0].cancel()
    assert pool.stats().waiting == 2
    gate.open.set()
    assert [future.result(10) for future in futures] == [0, 1, "late"]
    pool.shutdown()
    assert pool.stats().cancelled == 1000
    check_law(pool)


def test_cancelling_lets_a_waiting_submitter_in(gate: Gate) -> None:
    pool = weir.ThreadPoolExecutor(1, max_submit_backlog=1)
    futures = fill(pool, gate)
    blocked = InThread(pool.submit, int)
    wait_until(lambda: pool.stats().submitters_waiting == 1)
    futures[1].cancel()
    future = blocked.result()
    gate.open.set()
    assert future.result(10) == 0
    pool.shutdown()


def test_a_cancelled_future_tells_its_waiters_and_callbacks_once(gate: Gate) -> None:
    pool = weir.ThreadPoolExecutor(1, max_submit_backlog=2)
    futures = fill(pool, gate)
    called: list[Any] = []
    futures[1].add_done_callback(called.append)
    waiter = InThread(concurrent.futures.wait, futures[1:2])
    assert futures[1].cancel()
    assert futures[1].cancel()
    assert called == [futures[1]]
    assert not waiter.result().not_done
    with pytest.raises(concurrent.futures.CancelledError):
        futures[1].result()
    gate.open.set()
    pool.shutdown()
    assert pool.stats().cancelled == 1


def test_a_callback_of_a_cancelled_future_finds_its_place_free(gate: Gate) -> None:
    pool = weir.ThreadPoolExecutor(1, max_submit_backlog=1, on_full="fail")
    futures = fill(pool, gate)
    again: list[Future[Any]] = []
    futures[1].add_done_callback(lambda _: again.append(pool.submit(int)))
    futures[1].cancel()
    gate.open.set()
    assert again[0].result(10) == 0
    pool.shutdown()


# ---- submitting from inside -------------------------------------------------------------------


def test_the_last_worker_that_would_wait_for_itself_is_told(gate: Gate) -> None:
    pool = weir.ThreadPoolExecutor(2, max_submit_backlog=1)
    both = threading.Barrier(2)

    def task() -> Any:
        both.wait(10)
        gate()
        return pool.submit(int)

    outer = [pool.submit(task) for _ in range(2)]
    waiting = pool.submit(int)
    gate.open.set()
    errors = [future.exception(20) for future in outer]
    assert sum(error is None for error in errors) == 1
    (error,) = (error for error in errors if error is not None)
    assert isinstance(error, RuntimeError)
    assert "would wait for itself" in str(error)
    assert waiting.result(10) == 0
    pool.shutdown()
    check_law(pool)


def test_a_submit_in_a_callback_never_deadlocks() -> None:
    pool = weir.ThreadPoolExecutor(1, max_submit_backlog=1)
    outcomes: list[bool] = []

    def again(done: Future[Any]) -> None:
        for _ in range(3):
            try:
                pool.submit(int)
            except RuntimeError as error:
                outcomes.append("would wait for itself" not in str(error))
            else:
                outcomes.append(True)

    go = threading.Event()
    first = pool.submit(go.wait, 10)
    first.add_done_callback(again)
    second = pool.submit(int)
    go.set()
    assert second.result(10) == 0
    pool.shutdown()
    assert outcomes == [True, False, False]
    check_law(pool)


def test_a_task_may_submit_to_its_pool_while_there_is_room_or_another_worker(gate: Gate) -> None:
    with weir.ThreadPoolExecutor(2, max_submit_backlog=1) as pool:

        def nested(depth: int) -> int:
            return 0 if depth == 0 else 1 + pool.submit(int).result() + nested(depth - 1)

        assert pool.submit(nested, 50).result(20) == 50


# ---- event loops ------------------------------------------------------------------------------


def test_a_submit_that_stalls_an_event_loop_warns_once_and_only_if_it_waits(gate: Gate) -> None:
    pool = weir.ThreadPoolExecutor(1, max_submit_backlog=1, submit_timeout=0.01)

    async def main() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fill(pool, gate)
        with pytest.warns(RuntimeWarning, match="stalls the event loop") as caught:
            with pytest.raises(TimeoutError):
                pool.submit(int)
        assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(TimeoutError):
                pool.submit(int)

    asyncio.run(main())
    gate.open.set()
    pool.shutdown()


# ---- exit and fork ----------------------------------------------------------------------------


def test_the_interpreter_runs_what_was_accepted_and_ends() -> None:
    assert (
        output_of(
            """
            import time, threading
            import weir
            pool = weir.ThreadPoolExecutor(2)
            def task(i):
                time.sleep(0.02)
                print("task", i)
            for i in range(6):
                pool.submit(task, i)
            # Nobody will make room for this one: it is released, too.
            full = weir.ThreadPoolExecutor(1, max_submit_backlog=1)
            def submit():
                try:
                    while True:
                        full.submit(time.sleep, 0.01)
                except RuntimeError as error:
                    print(error)
            threading.Thread(target=submit).start()
            threading.Thread(target=submit, daemon=True).start()
            """
        ).count("task")
        == 6
    )


def test_a_submit_while_the_interpreter_ends_is_refused() -> None:
    assert "cannot schedule new futures after interpreter shutdown" in output_of(
        """
        import time
        import weir
        pool = weir.ThreadPoolExecutor(1)
        def late():
            time.sleep(0.2)
            try:
                pool.submit(int)
            except RuntimeError as error:
                print(error)
        pool.submit(late)
        """
    )


def test_a_forked_child_is_told_that_the_pool_is_not_its_own_and_can_end() -> None:
    output_of(
        """
        import os, threading, warnings
        import weir
        warnings.simplefilter("ignore")
        go = threading.Event()
        pool = weir.ThreadPoolExecutor(1)
        pool.submit(go.wait)
        pid = os.fork()
        if pid == 0:
            try:
                pool.submit(int)
            except RuntimeError as error:
                assert "belongs to process" in str(error)
                del pool
                own = weir.ThreadPoolExecutor(1)
                assert own.submit(int, "3").result() == 3
                raise SystemExit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        go.set()
        pool.shutdown()
        """
    )


def test_interrupts_of_a_waiting_submit_leak_no_permit() -> None:
    output_of(
        """
        import os, signal, threading, time
        import weir
        pool = weir.ThreadPoolExecutor(1, max_submit_backlog=3)
        go = threading.Event()
        for _ in range(4):
            pool.submit(go.wait)
        def interrupt():
            while pool.stats().submitters_waiting == 0:
                time.sleep(0.0005)
            os.kill(os.getpid(), signal.SIGINT)
        for _ in range(50):
            thread = threading.Thread(target=interrupt)
            thread.start()
            try:
                pool.submit(int)
            except KeyboardInterrupt:
                thread.join()
            else:
                raise AssertionError
        assert pool._pool.permits_out == 4
        go.set()
        while pool.stats().finished < 4:
            time.sleep(0.001)
        # The whole backlog is there again.
        go.clear()
        assert sum(pool.try_submit(go.wait) is not None for _ in range(9)) == 4
        go.set()
        pool.shutdown()
        """
    )


# ---- signal handlers that raise ---------------------------------------------------------------


class Alarm(BaseException):
    pass


def storm(step: Callable[[], object], settle: Callable[[], object], seconds: float = 1.0) -> None:
    """Calls step() again and again, interrupted by a signal handler that raises; and settle() in
    between.  What the tracebacks refer to stays alive all the time."""
    armed = False
    kept: list[Alarm] = []

    def ring(signum: int, frame: object) -> None:
        nonlocal armed
        if armed:
            armed = False  # a second one would interrupt what mends after the first
            raise Alarm

    stop = threading.Event()

    def keep_ringing() -> None:
        while not stop.wait(random.uniform(0.00002, 0.0005)):
            signal.pthread_kill(main, signal.SIGUSR1)

    main = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, ring)
    ringer = threading.Thread(target=keep_ringing)
    ringer.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)  # else it rings only while we wait
    try:
        start = time.monotonic()
        # Longer where other programs leave us little of the machine, until it was a storm.
        while (passed := time.monotonic() - start) < seconds or (len(kept) <= 50 and passed < 20):
            try:
                armed = True
                step()
                armed = False
            except Alarm as error:
                kept.append(error)
            settle()
    finally:
        armed = False
        stop.set()
        ringer.join()
        sys.setswitchinterval(interval)
        signal.signal(signal.SIGUSR1, before)
    assert len(kept) > 50


@pytest.mark.parametrize("on_full", ["fail", "drop_oldest"])
def test_an_interrupted_submit_keeps_no_permit_and_loses_no_future(
    on_full: Any, unraisable: list[Any]
) -> None:
    futures: list[Future[Any]] = []
    backlog = 5 if on_full == "drop_oldest" else 10_000
    with weir.ThreadPoolExecutor(2, max_submit_backlog=backlog, on_full=on_full) as pool:

        def step() -> None:
            for _ in range(10_000):
                futures.append(pool.submit(int))

        def settle() -> None:
            for future in futures:
                future.exception(10)
            futures.clear()
            wait_until(lambda: pool._pool.permits_out == 0)

        storm(step, settle, 2.0)
        wait_until(lambda: pool._pool.idle == pool.stats().workers)
        check_law(pool)


def test_an_interrupted_cancel_leaves_no_future_behind(gate: Gate, unraisable: list[Any]) -> None:
    with weir.ThreadPoolExecutor(1, max_submit_backlog=1000, on_full="fail") as pool:
        running = pool.submit(gate)
        wait_until(running.running)
        every: list[Future[Any]] = []

        def step() -> None:
            for future in every:
                future.cancel()

        def settle() -> None:
            assert [f for f in every if not f.cancel()] == []
            assert pool.stats().waiting == 0
            every[:] = [pool.submit(int) for _ in range(1000)]
            assert all(future._condition for future in every[::10])

        settle()
        storm(step, settle)
        gate.open.set()
        running.result(20)
        assert not concurrent.futures.wait(every, 20).not_done
        wait_until(lambda: pool._pool.permits_out == 0)
        wait_until(lambda: pool.stats().waiting == 0)
        check_law(pool)


def test_a_callback_that_exits_during_cancel_does_not_keep_the_news_from_others(gate: Gate) -> None:
    def leave(future: Future[Any]) -> None:
        raise SystemExit

    with weir.ThreadPoolExecutor(1, max_submit_backlog=1) as pool:
        pool.submit(gate)
        waiting = pool.submit(int)
        news = InThread(concurrent.futures.wait, [waiting], 20)
        wait_until(lambda: waiting._waiters)
        waiting.add_done_callback(leave)
        with pytest.raises(SystemExit):
            waiting.cancel()
        assert news.result() == ({waiting}, set())
        assert pool.try_submit(int) is not None
        gate.open.set()


def test_what_a_forked_child_inherits_is_quiet_whatever_was_locked() -> None:
    output_of(
        """
        import concurrent.futures, gc, os, signal, threading, warnings
        import weir
        warnings.simplefilter("ignore")
        go = threading.Event()
        pool = weir.ThreadPoolExecutor(1, max_submit_backlog=8)
        inner = concurrent.futures.ThreadPoolExecutor(1)
        outer = weir.bounded(inner, 8)
        running = [pool.submit(go.wait), outer.submit(go.wait)]
        waiting = pool.submit(int)
        foreign = outer.submit(int)
        results = pool.map(int, range(100))
        begun = pool.map(lambda i: go.wait(), range(100), timeout=0.01)
        try:
            next(begun)
        except TimeoutError:
            pass
        locked, forked = threading.Event(), threading.Event()
        def hold():
            with outer._bound.lock, waiting._condition:
                locked.set()
                forked.wait()
        holder = threading.Thread(target=hold)
        holder.start()
        locked.wait()
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            assert not waiting.cancel()
            foreign.cancel()
            results.close()
            del results, begun
            gc.collect()
            pool.shutdown(cancel_futures=True)
            outer.shutdown(cancel_futures=True)
            for executor in (pool, outer):
                try:
                    executor.stats()
                except RuntimeError:
                    pass
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        forked.set()
        go.set()
        assert waiting.result() == 0
        assert list(results) == list(range(100))
        pool.shutdown()
        outer.shutdown()
        """
    )


# ---- a backlog that finds its own size ----------------------------------------------------------


def test_an_auto_backlog_grows_while_producers_wait_and_workers_idle() -> None:
    with weir.ThreadPoolExecutor(2, max_submit_backlog="auto") as pool:
        assert pool.stats().max_submit_backlog == 4
        assert "twice the workers" in str(pool.stats().backlog_why)
        for _ in range(50):
            for future in [pool.submit(int) for _ in range(2000)]:
                future.result()
            if (pool.stats().max_submit_backlog or 0) > 64:
                break
        s = pool.stats()
        assert (s.max_submit_backlog or 0) > 64
        assert s.backlog_why in (
            "workers ran dry while producers waited for room",
            "20 ms of work, or twice the workers",
        )
    assert s.accepted == s.finished


def test_an_auto_backlog_of_long_tasks_is_twice_the_workers() -> None:
    with weir.ThreadPoolExecutor(2, max_submit_backlog="auto") as pool:
        for future in [pool.submit(time.sleep, 0.02) for _ in range(40)]:
            future.result()
        assert pool.stats().max_submit_backlog == 4


def test_an_auto_backlog_lets_those_in_line_in_when_it_grows() -> None:
    with weir.ThreadPoolExecutor(2, max_submit_backlog="auto") as pool:

        def submit_many() -> list[int]:
            return [pool.submit(int).result(30) for _ in range(300)]

        submitters = [InThread(submit_many) for _ in range(20)]
        for submitter in submitters:
            assert submitter.result(60) == [0] * 300
        assert pool._pool.permits_out == 0


def test_only_auto_gives_reasons() -> None:
    with weir.ThreadPoolExecutor(2) as pool:
        assert pool.stats().backlog_why is None
