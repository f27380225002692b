"""ProcessPoolExecutor: the bound, the policies, crashes, bad input, ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import reduction
from pathlib import Path
from typing import Any

import pytest

import weir
from weir import ProcessPoolExecutor

METHODS = ["fork", "forkserver", "spawn"]
SLOWER = 10 if "WEIR_SANITIZER" in os.environ else 1


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.002)


def assert_law(pool: ProcessPoolExecutor) -> None:
    s = pool.stats()
    inside = s.waiting + s.running
    assert s.accepted == s.completed + s.cancelled + sum(s.dropped.values()) + inside, s


def assert_takes_its_full_backlog(pool: ProcessPoolExecutor, flag: Path) -> None:
    """No permit has leaked, and none is there twice."""
    wait_until(lambda: pool.stats().waiting + pool.stats().running == 0)
    stats = pool.stats()
    assert stats.max_submit_backlog is not None
    room = stats.max_submit_backlog + stats.max_workers
    taken: list[Future[bool]] = []

    def take() -> bool:  # the collecting thread may not have settled the last completions yet
        future = pool.try_submit(wait_for_file, flag)
        if future is not None:
            taken.append(future)
        return len(taken) == room

    wait_until(take)
    assert pool.try_submit(square, 1) is None
    flag.touch()
    assert all(future.result(30) for future in taken)
    assert_law(pool)
    flag.unlink()


# ---- what the workers run -----------------------------------------------------------------------


def square(x: int) -> int:
    return x * x


def spin(seconds: float, value: int) -> int:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return value


def wait_for_file(path: Path) -> bool:
    while not path.exists():
        time.sleep(0.002)
    return True


def raise_value_error(text: str) -> None:
    raise ValueError(text)


def kill_myself(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(10)


def kill_myself_once(marker: Path) -> str:
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(10)
    return "second time"


def blob(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def get_pid() -> int:
    return os.getpid()


def make_lambda() -> Any:
    return lambda: 0


class NeedsTwoArguments(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(first)


def raise_what_cannot_be_unpickled() -> None:
    raise NeedsTwoArguments(1, 2)


class HasALock(Exception):
    def __init__(self) -> None:
        super().__init__("with a lock")
        self.lock = threading.Lock()


def raise_what_cannot_be_pickled() -> None:
    raise HasALock


class FailsToLoad:
    def __reduce__(self) -> Any:
        return raise_value_error, ("while loading",)


def return_what_fails_to_load() -> FailsToLoad:
    return FailsToLoad()


def identity(x: Any) -> Any:
    return x


def bad_initializer() -> None:
    raise RuntimeError("the database is not there")


_initialized = 0


def initializer(value: int) -> None:
    global _initialized
    _initialized = value


def get_initialized() -> int:
    return _initialized


def initializer_that_fails_once(marker: Path) -> None:
    if not marker.exists():
        marker.touch()
        raise RuntimeError("only once")


# ---- the ordinary ways --------------------------------------------------------------------------


@pytest.fixture(params=METHODS)
def context(request: pytest.FixtureRequest) -> Any:
    return multiprocessing.get_context(request.param)


@pytest.fixture
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2) as executor:
        yield executor


def test_a_result_comes_back_with_every_start_method(context: Any) -> None:
    with ProcessPoolExecutor(2, context) as pool:
        assert [f.result(30) for f in [pool.submit(square, i) for i in range(100)]] == [
            i * i for i in range(100)
        ]
        assert_law(pool)
    assert multiprocessing.active_children() == []


def test_keyword_arguments_travel(pool: ProcessPoolExecutor) -> None:
    assert pool.submit(spin, seconds=0, value=7).result(30) == 7


def test_no_process_is_started_before_there_is_work() -> None:
    with ProcessPoolExecutor(2) as pool:
        assert pool.worker_pids() == []


def test_an_idle_worker_is_used_before_another_is_started() -> None:
    with ProcessPoolExecutor(4, multiprocessing.get_context("forkserver")) as pool:
        for _ in range(20):
            pool.submit(square, 2).result(30)
        assert len(pool.worker_pids()) == 1


_lock_of_the_program = threading.Lock()


def take_the_lock() -> bool:
    return _lock_of_the_program.acquire(timeout=5)


def test_forked_workers_start_in_the_submitting_thread_with_the_locks_it_knows_of() -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        future = pool.submit(take_the_lock)
        with _lock_of_the_program:  # a worker forked now would find it locked for ever
            assert len(pool.worker_pids()) == 2
            time.sleep(0.05)
        assert future.result(30)


def test_a_timeout_of_zero_is_a_timeout(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with ProcessPoolExecutor(1, max_submit_backlog=1, submit_timeout=0) as pool:
        pool.submit(wait_for_file, flag)
        pool.submit(wait_for_file, flag)
        with pytest.raises(TimeoutError):
            pool.submit(square, 1)
        flag.touch()


class CannotBeShown(Exception):
    def __str__(self) -> str:
        raise ValueError("no")

    def __reduce__(self) -> Any:
        raise ValueError("neither")


def raise_what_cannot_be_shown() -> None:
    raise CannotBeShown


def test_an_exception_that_cannot_even_be_shown_fails_only_its_task(
    pool: ProcessPoolExecutor,
) -> None:
    error = pool.submit(raise_what_cannot_be_shown).exception(30)
    assert "CannotBeShown" in str(error)
    assert pool.stats().workers_died == 0


class SlowToLoad:
    def __reduce__(self) -> Any:
        return slow_load, ()


def slow_load() -> int:
    time.sleep(0.2)
    return 7


def return_what_is_slow_to_load() -> Any:
    return SlowToLoad()


def test_a_task_that_has_run_cannot_be_cancelled_while_its_result_is_read(
    pool: ProcessPoolExecutor,
) -> None:
    future = pool.submit(return_what_is_slow_to_load)
    wait_until(lambda: pool.stats().completed == 1)
    assert not future.cancel()
    assert future.result(30) == 7


def test_a_task_that_cannot_be_pickled_drops_no_other(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with ProcessPoolExecutor(1, max_submit_backlog=1, on_full="drop_oldest") as pool:
        running = pool.submit(wait_for_file, flag)
        wait_until(running.running)
        waiting = pool.submit(square, 3)
        assert pool.submit(lambda: 1).exception(0) is not None
        flag.touch()
        assert waiting.result(30) == 9


def test_no_more_tasks_run_than_there_are_workers() -> None:
    with ProcessPoolExecutor(2, max_submit_backlog=300) as pool:
        most = 0
        for i in range(3000):
            pool.submit(square, i)
            most = max(most, pool.stats().running)
        assert most <= 2


def test_a_pool_that_is_dropped_gives_its_descriptors_back_at_once() -> None:
    before = len(os.listdir("/proc/self/fd"))
    gc.disable()
    try:
        for _ in range(20):
            with ProcessPoolExecutor(1) as pool:
                pool.submit(square, 1).result(30)
            del pool
        assert len(os.listdir("/proc/self/fd")) <= before + 8  # the last collecting thread
    finally:
        gc.enable()


def test_ctrl_c_while_workers_start_prints_no_traceback(context: Any) -> None:
    script = textwrap.dedent(
        """
        import multiprocessing, os, signal, sys, threading, time
        from weir import ProcessPoolExecutor
        if __name__ == "__main__":
            os.setpgrp()
            pool = ProcessPoolExecutor(4, multiprocessing.get_context(sys.argv[1]))
            try:
                futures = [pool.submit(abs, -1) for _ in range(4)]
                time.sleep(float(sys.argv[2]))
                os.killpg(0, signal.SIGINT)
                time.sleep(1)
            except KeyboardInterrupt:
                pass
            print([f.result() for f in futures])
            pool.shutdown()
        """
    )
    for delay in ("0.01", "0.04", "0.08"):
        done = subprocess.run(
            [sys.executable, "-c", script, context.get_start_method(), delay],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout == "[1, 1, 1, 1]\n", done.stderr
        assert "Traceback" not in done.stderr


def test_killing_a_deep_pool_settles_every_future() -> None:
    for _ in range(10):
        pool = ProcessPoolExecutor(2, max_submit_backlog=400)
        batch = [pool.submit(spin, 0.00001, i) for i in range(600)]
        batch += [pool.submit(spin, 60, i) for i in range(300)]
        pool.kill_workers()
        pool.shutdown()
        assert all(f.done() for f in batch)
        assert_law(pool)


def test_a_forked_child_may_touch_its_copies_of_futures(pool: ProcessPoolExecutor) -> None:
    future = pool.submit(spin, 0.3, 5)
    pid = os.fork()
    if pid == 0:
        fine = not future.cancel() and not future.running()
        pool.shutdown(cancel_futures=True)
        os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert future.result(30) == 5


def test_an_initializer_runs_in_every_worker_before_its_first_task(context: Any) -> None:
    with ProcessPoolExecutor(2, context, initializer, (42,)) as pool:
        assert {pool.submit(get_initialized).result(30) for _ in range(10)} == {42}


@pytest.mark.parametrize("size", [0, 1, 150, 300, 5_000, 64 << 10, 200_000, 300_000, 9_000_000])
def test_payloads_of_every_size_travel_both_ways(pool: ProcessPoolExecutor, size: int) -> None:
    data = blob(size, size)
    assert pool.submit(identity, data).result(60) == data
    assert pool.submit(blob, size, size).result(60) == data


def test_many_large_results_at_once(pool: ProcessPoolExecutor) -> None:
    results = [pool.submit(blob, 400_000 + i, i) for i in range(40)]
    assert [f.result(60) for f in results] == [blob(400_000 + i, i) for i in range(40)]


def test_futures_are_real_futures(pool: ProcessPoolExecutor) -> None:
    batch = [pool.submit(square, i) for i in range(20)]
    assert sorted(f.result() for f in futures.as_completed(batch, timeout=30)) == sorted(
        i * i for i in range(20)
    )
    done, pending = futures.wait([pool.submit(square, 3), pool.submit(square, 4)], 30)
    assert {f.result() for f in done} == {9, 16} and not pending

    async def through_asyncio() -> int:
        return await asyncio.wrap_future(pool.submit(square, 5))

    assert asyncio.run(through_asyncio()) == 25
    seen: list[int] = []
    future = pool.submit(square, 6)
    future.add_done_callback(lambda f: seen.append(f.result()))
    assert future.result(30) == 36
    wait_until(lambda: seen == [36])


def test_a_remote_exception_shows_the_remote_traceback(pool: ProcessPoolExecutor) -> None:
    error = pool.submit(raise_value_error, "far away").exception(30)
    assert isinstance(error, ValueError)
    assert "raise ValueError(text)" in str(error.__cause__)


# ---- the bound and what happens at it -----------------------------------------------------------


def test_accepted_and_not_completed_never_exceed_backlog_and_workers(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, max_submit_backlog=3) as pool:
        seen = []

        def submit_many() -> None:
            for i in range(100):
                pool.submit(spin, 0.0005, i)
                s = pool.stats()
                seen.append(s.waiting + s.running)

        threads = [threading.Thread(target=submit_many) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert max(seen) <= 5
        assert_takes_its_full_backlog(pool, tmp_path / "flag")


@pytest.mark.parametrize(
    ("option", "room"), [(True, 6), (1, 3), (16, 18), (None, 100)], ids=["True", "1", "16", "None"]
)
def test_the_backlog_is_exact(option: Any, room: int, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with ProcessPoolExecutor(2, max_submit_backlog=option, on_full="fail") as pool:
        for _ in range(room):
            pool.submit(wait_for_file, flag)
        if option is not None:
            with pytest.raises(weir.BacklogFull):
                pool.submit(square, 1)
            assert pool.stats().refused == 1
        flag.touch()


def test_a_blocked_submit_goes_on_when_a_task_completes(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with ProcessPoolExecutor(1, max_submit_backlog=1) as pool:
        pool.submit(wait_for_file, flag)
        pool.submit(wait_for_file, flag)
        done = threading.Event()

        def third() -> None:
            pool.submit(square, 3).result(30)
            done.set()

        thread = threading.Thread(target=third)
        thread.start()
        wait_until(lambda: pool.stats().submitters_waiting == 1)
        assert not done.is_set()
        flag.touch()
        thread.join(30)
        assert done.is_set()
        assert pool.stats().submit_blocked > 0


def test_a_submit_times_out_and_the_task_is_not_accepted(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with ProcessPoolExecutor(1, max_submit_backlog=1, submit_timeout=0.05) as pool:
        pool.submit(wait_for_file, flag)
        pool.submit(wait_for_file, flag)
        before = time.monotonic()
        with pytest.raises(TimeoutError, match="not accepted"):
            pool.submit(square, 3)
        assert 0.05 <= time.monotonic() - before < 5
        assert pool.stats().refused == 1
        flag.touch()
        assert_takes_its_full_backlog(pool, tmp_path / "flag2")


def test_drop_newest_drops_the_new_task(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with ProcessPoolExecutor(1, max_submit_backlog=1, on_full="drop_newest") as pool:
        kept = [pool.submit(wait_for_file, flag), pool.submit(wait_for_file, flag)]
        error = pool.submit(square, 3).exception(30)
        assert isinstance(error, weir.Dropped) and error.reason == "newest"
        assert pool.try_submit(square, 3) is None
        flag.touch()
        assert all(f.result(30) for f in kept)
        assert pool.stats().dropped["newest"] == 1
        assert_law(pool)


def test_drop_oldest_drops_the_oldest_task_that_has_not_started(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with ProcessPoolExecutor(1, max_submit_backlog=2, on_full="drop_oldest") as pool:
        running = pool.submit(wait_for_file, flag)
        wait_until(running.running)
        waiting = [pool.submit(square, i) for i in range(10)]
        reasons = [f.exception(0) for f in waiting[:8]]
        assert all(isinstance(e, weir.Dropped) and e.reason == "oldest" for e in reasons)
        flag.touch()
        assert [f.result(30) for f in waiting[8:]] == [64, 81]
        assert running.result(30)
        assert pool.stats().dropped["oldest"] == 8
        assert_takes_its_full_backlog(pool, tmp_path / "flag2")


def test_caller_runs_runs_in_the_submitting_thread(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with ProcessPoolExecutor(1, max_submit_backlog=1, on_full="caller_runs") as pool:
        pool.submit(wait_for_file, flag)
        pool.submit(wait_for_file, flag)
        assert pool.submit(get_pid).result(0) == os.getpid()
        flag.touch()
        assert pool.stats().caller_ran == 1
        assert_law(pool)


def test_a_submit_that_stalls_an_event_loop_warns_once(tmp_path: Path) -> None:
    flag = tmp_path / "flag"

    async def main() -> None:
        with ProcessPoolExecutor(1, max_submit_backlog=1, submit_timeout=0.01) as pool:
            pool.submit(wait_for_file, flag)
            pool.submit(wait_for_file, flag)
            with pytest.warns(RuntimeWarning, match="event loop"), pytest.raises(TimeoutError):
                pool.submit(square, 3)
            flag.touch()

    asyncio.run(main())


def test_a_callback_may_follow_its_task_up_in_a_full_pool(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, max_submit_backlog=1) as pool:
        lengths: list[int] = []
        finished = threading.Event()

        def follow_up(future: Future[int]) -> None:
            lengths.append(future.result())
            if len(lengths) == 50:
                finished.set()
                return
            pool.submit(square, len(lengths)).add_done_callback(follow_up)

        stop = threading.Event()

        def keep_full() -> None:
            while not stop.is_set():
                pool.submit(square, 1)

        threads = [threading.Thread(target=keep_full) for _ in range(4)]
        for thread in threads:
            thread.start()
        pool.submit(square, 0).add_done_callback(follow_up)
        assert finished.wait(60)
        stop.set()
        for thread in threads:
            thread.join()
        assert_takes_its_full_backlog(pool, tmp_path / "flag")


def test_a_callback_that_would_wait_for_itself_gets_an_error(tmp_path: Path) -> None:
    first, rest = tmp_path / "first", tmp_path / "rest"
    with ProcessPoolExecutor(1, max_submit_backlog=2) as pool:
        followers: list[Future[bool]] = []
        errors: list[BaseException] = []

        def too_many(future: Future[bool]) -> None:
            try:
                while True:
                    followers.append(pool.submit(wait_for_file, rest))
            except RuntimeError as error:
                errors.append(error)

        pool.submit(wait_for_file, first).add_done_callback(too_many)
        first.touch()
        wait_until(lambda: bool(errors))
        assert "would wait for itself" in str(errors[0])
        assert len(followers) == 3  # one takes over its parent's permit, two were free
        rest.touch()
        assert all(follower.result(30) for follower in followers)


# ---- cancelling ---------------------------------------------------------------------------------


def test_a_task_can_be_cancelled_until_it_starts(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with ProcessPoolExecutor(1, max_submit_backlog=20) as pool:
        running = pool.submit(wait_for_file, flag)
        wait_until(running.running)
        waiting = [pool.submit(square, i) for i in range(10)]
        assert not running.cancel()
        assert not waiting[0].running()
        assert all(f.cancel() for f in waiting[:9])
        assert waiting[0].cancel()  # again
        assert all(f.cancelled() and f.done() for f in waiting[:9])
        assert futures.wait(waiting[:9], 0).not_done == set()
        flag.touch()
        assert waiting[9].result(30) == 81
        assert not waiting[9].cancel()
        assert pool.stats().cancelled == 9
        assert_law(pool)


def test_cancelling_at_random_loses_nothing(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, max_submit_backlog=40) as pool:
        outcomes = []
        for i in range(3000):
            future = pool.submit(square, i)
            if i % 3 == 0:
                future.cancel()
            outcomes.append((i, future))
        for i, future in outcomes:
            try:
                assert future.result(30) == i * i
            except futures.CancelledError:
                assert i % 3 == 0
        assert_takes_its_full_backlog(pool, tmp_path / "flag")


# ---- crashes ------------------------------------------------------------------------------------


def test_a_dying_worker_fails_the_task_it_ran_and_says_how(context: Any) -> None:
    with ProcessPoolExecutor(2, context) as pool:
        error = pool.submit(kill_myself, signal.SIGKILL).exception(30)
        assert isinstance(error, weir.WorkerDied)
        assert isinstance(error, BrokenProcessPool)
        assert error.signal == signal.SIGKILL and error.exitcode is None
        assert error.peak_rss is not None and error.peak_rss > 1 << 20
        assert error.oom in (False, None)
        assert "SIGKILL" in str(error) and "MiB" in str(error)
        assert pickle.loads(pickle.dumps(error)).signal == signal.SIGKILL
        assert pool.submit(square, 4).result(30) == 16
        error = pool.submit(os._exit, 3).exception(30)
        assert isinstance(error, weir.WorkerDied) and error.exitcode == 3 and error.signal is None


def test_a_dead_workers_task_is_retried(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, retries=1) as pool:
        assert pool.submit(kill_myself_once, tmp_path / "marker").result(30) == "second time"
        assert pool.stats().retried == 1
        assert isinstance(pool.submit(kill_myself, 9).exception(30), weir.WorkerDied)
        assert pool.stats().retried == 2


def test_tasks_that_wait_behind_a_dying_worker_are_not_harmed() -> None:
    with ProcessPoolExecutor(1, max_submit_backlog=50) as pool:
        bad = pool.submit(kill_myself, 9)
        good = [pool.submit(square, i) for i in range(50)]
        assert isinstance(bad.exception(30), weir.WorkerDied)
        assert [f.result(30) for f in good] == [i * i for i in range(50)]


def test_an_auto_backlog_grows_until_short_tasks_keep_the_workers_busy() -> None:
    with ProcessPoolExecutor(2, max_submit_backlog="auto") as pool:
        assert pool.stats().max_submit_backlog == 4
        assert "twice the workers" in str(pool.stats().backlog_why)
        for _ in range(40):
            for future in [pool.submit(abs, -i) for i in range(2000)]:
                future.result()
            stats = pool.stats()
            backlog = stats.max_submit_backlog or 0
            if backlog > 100:
                break
        assert backlog > 100
        assert stats.backlog_why in (
            "workers ran dry while producers waited for room",
            "20 ms of work for each worker, or twice the workers",
        )
        assert stats.waiting + stats.running <= backlog + 2


def test_an_auto_backlog_of_long_tasks_is_twice_the_workers() -> None:
    with ProcessPoolExecutor(2, max_submit_backlog="auto") as pool:
        for future in [pool.submit(time.sleep, 0.02) for _ in range(40)]:
            future.result()
        assert pool.stats().max_submit_backlog == 4


def test_only_auto_gives_reasons() -> None:
    with ProcessPoolExecutor(1, max_submit_backlog=3) as pool:
        assert pool.stats().max_submit_backlog == 3
        assert pool.stats().backlog_why is None


def names_in_shm() -> set[str]:
    """Without those of shared limits, which other programs may have just now."""
    shared_limits = f"weir-{os.geteuid()}-"
    return {name for name in os.listdir("/dev/shm") if not name.startswith(shared_limits)}


@pytest.mark.parametrize("retries", [20, 0])  # on a busy machine one may meet four kills
def test_workers_killed_at_random_lose_no_task(retries: int, tmp_path: Path) -> None:
    count, stop, kills = 8_000, threading.Event(), 0
    shm_before = names_in_shm()
    with ProcessPoolExecutor(2, max_submit_backlog=64, retries=retries) as pool:

        def kill() -> None:
            nonlocal kills
            while not stop.wait(0.02 * SLOWER):  # a worker is to come to its tasks
                pids = pool.worker_pids()
                if pids:
                    with contextlib.suppress(ProcessLookupError):  # it has just gone by itself
                        os.kill(random.choice(pids), signal.SIGKILL)
                        kills += 1

        killer = threading.Thread(target=kill)
        killer.start()
        batch = [pool.submit(spin, 0.0005, i) for i in range(count)]
        died = 0
        for i, future in enumerate(batch):
            error = future.exception(60)
            if error is None:
                assert future.result() == i
            else:
                assert isinstance(error, weir.WorkerDied)
                died += 1
        stop.set()
        killer.join()
        stats = pool.stats()
        assert kills > 20
        assert died == stats.died
        assert died <= stats.workers_died
        if retries:
            assert died == 0
        assert_takes_its_full_backlog(pool, tmp_path / "flag")
    wait_until(lambda: names_in_shm() <= shm_before)  # others come and go


@pytest.mark.parametrize("method", METHODS)
def test_the_workers_of_a_killed_parent_are_gone_within_a_second(method: str) -> None:
    script = textwrap.dedent(
        """
        import multiprocessing, sys, time
        from weir import ProcessPoolExecutor
        def main():
            pool = ProcessPoolExecutor(3, multiprocessing.get_context(sys.argv[1]))
            tasks = [pool.submit(time.sleep, 60) for _ in range(6)]
            while len(pool.worker_pids()) < 3 or pool.stats().running < 3:
                time.sleep(0.01)
            print(*pool.worker_pids(), flush=True)
            time.sleep(60)
        main()
        """
    )
    shm_before = names_in_shm()
    parent = subprocess.Popen(
        [sys.executable, "-c", script, method], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 3
    parent.kill()
    killed = time.monotonic()
    parent.wait()
    wait_until(lambda: not any(map(is_alive, pids)))
    assert time.monotonic() - killed < 1
    parent.stdout.close()
    wait_until(lambda: names_in_shm() <= shm_before)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_stopped_worker_does_not_delay_the_others() -> None:
    with ProcessPoolExecutor(2, max_submit_backlog=100) as pool:
        warm = [pool.submit(spin, 0.05, 0) for _ in range(4)]
        assert all(f.result(30) == 0 for f in warm)
        victim = pool.worker_pids()[0]
        os.kill(victim, signal.SIGSTOP)
        try:
            batch = [pool.submit(square, i) for i in range(50)]
            wait_until(lambda: sum(f.done() for f in batch) >= 49)
        finally:
            os.kill(victim, signal.SIGCONT)
        assert [f.result(30) for f in batch] == [i * i for i in range(50)]


def test_a_worker_is_replaced_after_its_tasks(context: Any) -> None:
    with ProcessPoolExecutor(2, context, max_tasks_per_child=3) as pool:
        pids = [f.result(60) for f in [pool.submit(get_pid) for _ in range(18)]]
        assert max(pids.count(pid) for pid in pids) <= 3
        assert len(set(pids)) >= 6
        assert pool.stats().died == 0


# ---- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, 2**64, False, 3.5, "2", float("inf"), 2.0, [], b"1"])
def test_a_bad_backlog_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="max_submit_backlog"):
        ProcessPoolExecutor(2, max_submit_backlog=value)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_workers": 0}, ValueError),
        ({"max_workers": -1}, ValueError),
        ({"max_workers": 5000}, ValueError),
        ({"max_workers": "2"}, TypeError),
        ({"mp_context": "fork"}, TypeError),
        ({"on_full": "explode"}, ValueError),
        ({"on_full": "fail", "submit_timeout": 1}, ValueError),
        ({"submit_timeout": -1}, ValueError),
        ({"submit_timeout": float("nan")}, ValueError),
        ({"initializer": 3}, TypeError),
        ({"retries": -1}, ValueError),
        ({"retries": 1.5}, ValueError),
        ({"max_tasks_per_child": 0}, ValueError),
        ({"max_tasks_per_child": "3"}, TypeError),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        ProcessPoolExecutor(**options)


@pytest.mark.parametrize(
    ("task", "error", "text"),
    [
        ((lambda: 1,), (pickle.PicklingError, AttributeError), "lambda"),
        ((identity, lambda: 1), (pickle.PicklingError, AttributeError), "lambda"),
        ((identity, FailsToLoad()), ValueError, "while loading"),
        ((make_lambda,), (pickle.PicklingError, AttributeError), "local"),
        ((return_what_fails_to_load,), ValueError, "while loading"),
        ((raise_what_cannot_be_unpickled,), Exception, "NeedsTwoArguments"),
        ((raise_what_cannot_be_pickled,), Exception, "with a lock"),
        ((sys.exit, 3), SystemExit, "3"),
    ],
    ids=[
        "unpicklable function",
        "unpicklable argument",
        "argument that fails to load",
        "unpicklable result",
        "result that fails to load",
        "exception that fails to load",
        "unpicklable exception",
        "sys.exit",
    ],
)
def test_what_cannot_travel_fails_its_own_future_and_leaks_no_permit(
    task: tuple[Any, ...], error: Any, text: str, tmp_path: Path
) -> None:
    with ProcessPoolExecutor(2, max_submit_backlog=3) as pool:
        for _ in range(10):
            caught = pool.submit(*task).exception(30)
            assert isinstance(caught, error), repr(caught)
            assert text in str(caught)
        assert pool.submit(square, 5).result(30) == 25
        assert pool.stats().workers_died == 0
        assert_takes_its_full_backlog(pool, tmp_path / "flag")


def test_submit_after_shutdown_is_refused(pool: ProcessPoolExecutor) -> None:
    pool.shutdown()
    for submit in (pool.submit, pool.try_submit):
        with pytest.raises(RuntimeError, match="after shutdown"):
            submit(square, 1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        list(pool.map(square, [1]))


def test_an_initializer_that_raises_is_shown_and_the_pool_stays_usable(
    context: Any, tmp_path: Path
) -> None:
    with ProcessPoolExecutor(2, context, bad_initializer, max_submit_backlog=3) as pool:
        for _ in range(2):
            batch = [pool.submit(square, 1) for _ in range(3)]
            for future in batch:
                error = future.exception(60)
                assert isinstance(error, weir.WorkerNotStarted)
                assert isinstance(error, BrokenProcessPool)
                assert "the database is not there" in str(error)
        assert_law(pool)
        assert pool.stats().waiting + pool.stats().running == 0
    with ProcessPoolExecutor(
        1, context, initializer_that_fails_once, (tmp_path / "marker",), max_submit_backlog=3
    ) as pool:
        assert isinstance(pool.submit(square, 1).exception(60), weir.WorkerNotStarted)
        assert pool.submit(square, 4).result(60) == 16
        assert_takes_its_full_backlog(pool, tmp_path / "flag")


def test_an_initializer_that_cannot_be_pickled_is_shown() -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, initializer=lambda: None) as pool:
        error = pool.submit(square, 1).exception(60)
        assert isinstance(error, weir.WorkerNotStarted)
        assert "pickle" in str(error)


def test_workers_that_cannot_start_say_so(tmp_path: Path) -> None:
    script = tmp_path / "no_guard.py"
    script.write_text(
        "import multiprocessing\n"
        "from weir import ProcessPoolExecutor\n"
        "pool = ProcessPoolExecutor(1, multiprocessing.get_context('spawn'))\n"
        "print(repr(pool.submit(abs, -1).exception(60)))\n"
        "pool.shutdown()\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False
    )
    assert "WorkerNotStarted" in done.stdout and "__main__" in done.stdout


def test_a_forked_child_cannot_use_its_parents_pool(pool: ProcessPoolExecutor) -> None:
    assert pool.submit(square, 2).result(30) == 4
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            pool.submit(square, 3)
        except RuntimeError as error:
            os.write(write, str(error).encode())
        pool.shutdown(wait=False)
        os._exit(0)
    os.waitpid(pid, 0)
    assert b"process that created it" in os.read(read, 1000)
    os.close(read)
    os.close(write)
    assert pool.submit(square, 4).result(30) == 16


def test_a_worker_refuses_a_ticket_that_is_not_one_outside_of_a_start(
    pool: ProcessPoolExecutor,
) -> None:
    from weir._worker import Ticket

    with pytest.raises(RuntimeError):
        reduction.ForkingPickler.dumps(Ticket(0, 1, 2, 0))


# ---- ends ---------------------------------------------------------------------------------------


def test_shutdown_lets_accepted_tasks_finish(tmp_path: Path) -> None:
    pool = ProcessPoolExecutor(2, max_submit_backlog=20)
    batch = [pool.submit(spin, 0.01, i) for i in range(20)]
    pool.shutdown()
    assert [f.result(0) for f in batch] == list(range(20))
    assert pool.worker_pids() == []
    pool.shutdown()


def test_shutdown_can_cancel_what_waits(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    pool = ProcessPoolExecutor(1, max_submit_backlog=20)
    running = pool.submit(wait_for_file, flag)
    wait_until(running.running)
    batch = [pool.submit(square, i) for i in range(10)]
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(f.cancelled() for f in batch)
    flag.touch()
    pool.shutdown()
    assert running.result(0)


def test_shutdown_releases_blocked_submitters(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    pool = ProcessPoolExecutor(1, max_submit_backlog=1)
    for _ in range(2):
        pool.submit(wait_for_file, flag)
    errors = []

    def submit() -> None:
        try:
            pool.submit(square, 1)
        except RuntimeError as error:
            errors.append(error)

    threads = [threading.Thread(target=submit) for _ in range(5)]
    for thread in threads:
        thread.start()
    wait_until(lambda: pool.stats().submitters_waiting == 5)
    pool.shutdown(wait=False)
    for thread in threads:
        thread.join(10)
    assert len(errors) == 5
    flag.touch()
    pool.shutdown()


def test_kill_workers_ends_running_tasks_at_once() -> None:
    pool = ProcessPoolExecutor(2, max_submit_backlog=5)
    batch = [pool.submit(time.sleep, 60) for _ in range(5)]
    wait_until(lambda: pool.stats().running == 2)
    before = time.monotonic()
    pool.kill_workers()
    pool.shutdown()
    assert time.monotonic() - before < 5
    assert sum(f.cancelled() for f in batch) == 3
    assert sum(isinstance(f.exception(0), weir.WorkerDied) for f in batch if not f.cancelled()) == 2


def leave_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(600,)).start()


def test_a_thread_that_a_task_leaves_behind_ends_with_its_worker(context: Any) -> None:
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        for _ in range(3):
            assert pool.submit(leave_a_thread).exception(30) is None


def test_programs_that_a_task_starts_inherit_nothing_of_the_pool(context: Any) -> None:
    with ProcessPoolExecutor(1, context) as pool:
        assert pool.submit(os.system, "ls -l /proc/self/fd | grep -q memfd:weir").result(30) != 0


def test_a_forgotten_executor_finishes_its_tasks_and_ends() -> None:
    pool = ProcessPoolExecutor(2)
    future = pool.submit(spin, 0.05, 3)
    reference = weakref.ref(pool)
    pids = pool.worker_pids
    del pool
    del pids
    gc.collect()
    assert reference() is None
    assert future.result(30) == 3
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "weir-collect"])


def test_results_are_not_kept_by_the_pool(pool: ProcessPoolExecutor) -> None:
    future = pool.submit(identity, NeedsTwoArguments)
    future.result(30)
    reference = weakref.ref(future)
    del future
    wait_until(lambda: gc.collect() >= 0 and reference() is None, 5)


def run_script(body: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_interpreter_exit_waits_for_accepted_tasks_and_never_hangs() -> None:
    done = run_script(
        """
        import time
        from weir import ProcessPoolExecutor
        pool = ProcessPoolExecutor(2, max_submit_backlog=10)
        for i in range(10):
            pool.submit(time.sleep, 0.02).add_done_callback(lambda f: print("done"))
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done") == 10
    assert done.stderr == ""


@pytest.mark.parametrize(
    "what",
    [
        "pool.submit(time.sleep, 60)",
        "pool.submit(time.sleep, 0).result(); futures[0].result()",
        "pool.shutdown()",
    ],
    ids=["submit", "result", "shutdown"],
)
def test_ctrl_c_ends_a_blocking_call_within_100_ms(what: str) -> None:
    workers, blocker = (1, 2) if "result()" not in what else (2, 1)
    script = textwrap.dedent(
        f"""
        import os, sys, time
        from weir import ProcessPoolExecutor
        pool = ProcessPoolExecutor({workers}, max_submit_backlog=1)
        futures = [pool.submit(time.sleep, 60) for _ in range({blocker})]
        while pool.stats().running < 1:
            time.sleep(0.01)
        print("ready", flush=True)
        try:
            {what}
        except KeyboardInterrupt:
            print("interrupted", time.time(), flush=True)
        pool.kill_workers()
        """
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.3)
    sent = time.time()
    child.send_signal(signal.SIGINT)
    word, at = child.stdout.readline().split()
    assert word == "interrupted"
    assert float(at) - sent < 0.1
    assert child.wait(20) == 0
    child.stdout.close()


class Alarm(Exception):
    pass


def test_a_signal_handler_that_raises_during_submit_leaks_no_permit(tmp_path: Path) -> None:
    armed = False

    def ring(signum: int, frame: object) -> None:
        if armed:
            raise Alarm

    stop = threading.Event()

    def keep_ringing() -> None:
        while not stop.wait(random.uniform(0.0001, 0.002)):
            signal.pthread_kill(main, signal.SIGUSR1)

    main = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, ring)
    ringer = threading.Thread(target=keep_ringing)
    alarms = 0
    try:
        with ProcessPoolExecutor(2, max_submit_backlog=2) as pool:
            pool.submit(square, 1).result(30)
            ringer.start()
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                try:
                    armed = True
                    while True:
                        pool.submit(spin, 0.0001, 1)
                except Alarm:
                    armed = False
                    alarms += 1
            stop.set()
            ringer.join()
            assert alarms > 100
            assert_takes_its_full_backlog(pool, tmp_path / "flag")
    finally:
        stop.set()
        signal.signal(signal.SIGUSR1, before)


def test_a_callback_that_exits_does_not_stop_the_pool(
    pool: ProcessPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    pool.submit(square, 2).add_done_callback(lambda f: sys.exit(3))
    assert pool.submit(square, 3).result(30) == 9
    assert pool.submit(square, 4).result(30) == 16


def test_ctrl_c_of_the_terminal_does_not_kill_the_workers() -> None:
    # The whole process group gets it; the parent drains.
    script = textwrap.dedent(
        """
        import os, signal, time
        from weir import ProcessPoolExecutor
        os.setpgrp()
        with ProcessPoolExecutor(2) as pool:
            futures = [pool.submit(time.sleep, 0.5) for _ in range(2)]
            while pool.stats().running < 2:
                time.sleep(0.01)
            try:
                os.killpg(0, signal.SIGINT)
                time.sleep(1)
            except KeyboardInterrupt:
                pass
        print([f.exception() for f in futures], pool.stats().workers_died)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "[None, None] 0\n", done.stderr
    assert done.stderr == ""


# ---- memory -------------------------------------------------------------------------------------


@pytest.mark.skipif("WEIR_SANITIZER" in os.environ, reason="a sanitizer keeps what is freed")
def test_overload_does_not_grow_the_parent() -> None:
    done = run_script(
        """
        import os, resource, threading, time
        from weir import ProcessPoolExecutor
        def work(data):
            time.sleep(0.002)
            return len(data)
        def rss():
            fields = open("/proc/self/status").read().split()
            return int(fields[fields.index("VmRSS:") + 1])
        with ProcessPoolExecutor(2) as pool:
            pool.submit(work, b"").result()
            start = peak = rss()
            def produce(i):
                futures = [pool.submit(work, os.urandom(65536)) for _ in range(40)]
                good[i] = sum(f.result() == 65536 for f in futures)
            good = [0] * 100
            threads = [threading.Thread(target=produce, args=(i,)) for i in range(100)]
            for t in threads: t.start()
            while any(t.is_alive() for t in threads):
                peak = max(peak, rss())
                time.sleep(0.005)
        print(sum(good), (peak - start) // 1024)
        """
    )
    results, grown = map(int, done.stdout.split())
    assert results == 4000
    assert grown <= 32, f"grew by {grown} MiB"


def test_descriptors_do_not_leak(context: Any) -> None:
    def one_round() -> None:
        with ProcessPoolExecutor(2, context, max_tasks_per_child=2) as pool:
            for _ in range(8):
                pool.submit(square, 2).result(60)
            pool.submit(kill_myself, 9).exception(60)

    one_round()  # the fork server, the resource tracker
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        one_round()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


# ---- map ----------------------------------------------------------------------------------------


def test_map_is_lazy_on_both_sides(pool: ProcessPoolExecutor) -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = pool.map(square, endless(), chunksize=1)
    assert [next(results) for _ in range(10)] == [i * i for i in range(1, 11)]
    assert taken <= 10 + 6 + 1
    results.close()


@pytest.mark.parametrize("chunksize", [1, 7, "auto"])
@pytest.mark.parametrize("ordered", [True, False])
def test_map_gives_every_result_once(
    pool: ProcessPoolExecutor, chunksize: Any, ordered: bool
) -> None:
    results = list(pool.map(square, range(5000), chunksize=chunksize, ordered=ordered))
    expected = [i * i for i in range(5000)]
    assert (results if ordered else sorted(results)) == expected
    assert_law(pool)


def test_an_error_inside_a_batch_hits_only_its_own_item(pool: ProcessPoolExecutor) -> None:
    results = pool.map(divide_by, [1, 2, 0, 4], chunksize=4)
    assert next(results) == 100
    assert next(results) == 50
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert next(results) == 25


def divide_by(x: int) -> int:
    return 100 // x


def test_an_error_inside_a_batch_shows_the_remote_traceback(pool: ProcessPoolExecutor) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        list(pool.map(divide_by, [1, 2, 0, 4], chunksize=4))
    assert "return 100 // x" in str(caught.value.__cause__)


def exit_at(x: int) -> int:
    return sys.exit(x) if x == 2 else x


def test_a_system_exit_inside_a_batch_hits_only_its_own_item(pool: ProcessPoolExecutor) -> None:
    results = pool.map(exit_at, range(4), chunksize=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(SystemExit):
        next(results)
    assert next(results) == 3


def test_threads_may_share_one_map(pool: ProcessPoolExecutor) -> None:
    results = pool.map(square, range(5000))
    seen: list[int] = []

    def take() -> None:
        for value in results:
            seen.append(value)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [i * i for i in range(5000)]


def test_a_map_that_outlives_its_executor_says_so() -> None:
    with ProcessPoolExecutor(1) as pool:
        results = pool.map(square, range(1000), chunksize=1)
    with pytest.raises(RuntimeError, match="buffersize=None"):
        list(results)
