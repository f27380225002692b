"""map() of weir's executors: lazy, bounded, in order or not."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import itertools
import os
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any, TypeVar

import pytest
from conftest import InThread, wait_until

import weir
from weir._map import BatchSize, MappingExecutor

T = TypeVar("T")


@pytest.fixture
def pool() -> Iterator[weir.ThreadPoolExecutor]:
    with weir.ThreadPoolExecutor(2) as pool:  # room for 6
        yield pool


class Counted:
    """An iterable that knows how far it was taken."""

    def __init__(self, n: int | None = None, *, fails_at: int | None = None) -> None:
        self.n = n
        self.fails_at = fails_at
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        while self.n is None or self.taken < self.n:
            if self.taken == self.fails_at:
                raise OSError("the source failed")
            self.taken += 1
            yield self.taken - 1


def double(x: int) -> int:
    return 2 * x


def nap(x: int) -> int:
    time.sleep(0.001)
    return x


def odd_fails(x: int) -> int:
    if x % 2:
        raise LookupError(x)
    return x


# ---- as the standard library ------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("buffersize", [True, None, 1, 2, 3, 100])
def test_map_gives_every_result(
    pool: weir.ThreadPoolExecutor, buffersize: Any, ordered: bool
) -> None:
    results = list(pool.map(double, range(100), buffersize=buffersize, ordered=ordered))
    assert (results if ordered else sorted(results)) == [2 * i for i in range(100)]


def test_map_takes_several_iterables_and_stops_with_the_shortest(
    pool: weir.ThreadPoolExecutor,
) -> None:
    assert list(pool.map(pow, [2, 3, 4], itertools.count(1))) == [2, 9, 64]
    assert list(pool.map(double, [])) == []
    assert list(pool.map(double)) == []


@pytest.mark.parametrize("buffersize", [0, -1, False, 2.5, "3"])
def test_a_buffersize_that_is_none_is_refused(
    pool: weir.ThreadPoolExecutor, buffersize: Any
) -> None:
    with pytest.raises(ValueError, match="buffersize must be True"):
        pool.map(double, [1], buffersize=buffersize)


@pytest.mark.parametrize("chunksize", [0, -1, True, 2.5, "3", None])
def test_a_chunksize_that_is_none_is_refused(pool: weir.ThreadPoolExecutor, chunksize: Any) -> None:
    with pytest.raises(ValueError, match='chunksize must be "auto" or an int >= 1'):
        pool.map(double, [1], chunksize=chunksize)


def test_what_is_not_iterable_is_a_type_error_at_the_call(pool: weir.ThreadPoolExecutor) -> None:
    with pytest.raises(TypeError):
        pool.map(double, 5)  # type: ignore[arg-type]


def test_the_first_tasks_start_with_the_call(pool: weir.ThreadPoolExecutor) -> None:
    started = threading.Event()
    results = pool.map(lambda _: started.set(), [1])
    assert started.wait(10)
    results.close()


def test_a_timeout_is_counted_from_the_call(pool: weir.ThreadPoolExecutor) -> None:
    go = threading.Event()
    for ordered in (True, False):
        go.clear()
        results = pool.map(lambda x: go.wait(30) and x, [7], timeout=0.05, ordered=ordered)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                next(results)
            with pytest.raises(concurrent.futures.TimeoutError):
                next(results)
        go.set()
        wait_until(lambda: pool.stats().running == 0)
        assert next(results) == 7  # nothing was lost


# ---- lazy -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
def test_an_endless_iterable_is_taken_only_as_far_as_needed(
    pool: weir.ThreadPoolExecutor, ordered: bool
) -> None:
    source = Counted()
    results = pool.map(double, source, ordered=ordered)
    got = list(itertools.islice(results, 50))
    assert len(set(got)) == 50
    # 6 inside, and one taken that there was no room for
    assert source.taken <= 50 + 6 + 1
    results.close()


@pytest.mark.parametrize("buffersize", [1, 2, 5, 40])
def test_never_more_than_buffersize_are_submitted_and_not_yielded(buffersize: int) -> None:
    started = itertools.count()
    n_started = 0

    def task(x: int) -> int:
        nonlocal n_started
        n_started = next(started) + 1
        return x

    with weir.ThreadPoolExecutor(4, max_submit_backlog=100) as pool:
        results = pool.map(task, itertools.count(), buffersize=buffersize)
        for yielded in range(60):
            time.sleep(0.001)
            assert n_started <= yielded + buffersize
            assert next(results) == yielded
        results.close()


def test_results_that_nobody_takes_are_bounded_too(pool: weir.ThreadPoolExecutor) -> None:
    done: list[int] = []
    results = pool.map(lambda x: done.append(x), itertools.count())
    wait_until(lambda: len(done) == 6)
    time.sleep(0.05)
    assert len(done) == 6
    results.close()


def test_buffersize_none_submits_everything_at_the_call() -> None:
    with weir.ThreadPoolExecutor(2, max_submit_backlog=3) as pool:
        source = Counted(100)
        results = pool.map(double, source, buffersize=None)
        assert source.taken == 100
        assert list(results) == [2 * i for i in range(100)]


def test_a_buffer_larger_than_the_pool_does_not_delay_the_first_result() -> None:
    with weir.ThreadPoolExecutor(1, max_submit_backlog=1) as pool:
        source = Counted()
        results = pool.map(nap, source, buffersize=10_000)
        assert next(results) == 0
        assert source.taken < 100
        assert list(itertools.islice(results, 30)) == list(range(1, 31))
        results.close()


@pytest.mark.parametrize("on_full", ["fail", "drop_newest", "drop_oldest", "caller_runs"])
def test_map_waits_for_room_whatever_the_policy(on_full: Any) -> None:
    with weir.ThreadPoolExecutor(2, max_submit_backlog=1, on_full=on_full) as pool:
        others = [InThread(list, pool.map(double, range(200), buffersize=50)) for _ in range(4)]
        for other in others:
            assert other.result() == [2 * i for i in range(200)]
        s = pool.stats()
        assert sum(s.dropped.values()) == s.caller_ran == 0


def test_a_map_in_a_full_pool_gets_its_turn() -> None:
    with weir.ThreadPoolExecutor(2, max_submit_backlog=1) as pool:
        stop = threading.Event()

        def flood() -> None:
            while not stop.is_set():
                pool.submit(time.sleep, 0.0001)

        floods = [InThread(flood) for _ in range(10)]
        try:
            assert list(pool.map(double, range(50))) == [2 * i for i in range(50)]
        finally:
            stop.set()
        for thread in floods:
            thread.result()


def test_unordered_yields_what_is_done_first(pool: weir.ThreadPoolExecutor) -> None:
    go = threading.Event()
    results = pool.map(lambda x: x or go.wait(30), [0, 1, 2, 3], ordered=False)
    assert sorted(next(results) for _ in range(3)) == [1, 2, 3]
    go.set()
    assert list(results) == [True]


# ---- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
def test_an_exception_appears_at_its_item_and_iteration_goes_on(
    pool: weir.ThreadPoolExecutor, ordered: bool
) -> None:
    results = pool.map(odd_fails, range(20), ordered=ordered)
    good: list[int] = []
    bad: list[int] = []
    while True:
        try:
            good.append(next(results))
        except StopIteration:
            break
        except LookupError as error:
            bad.append(error.args[0])
            if ordered:
                assert bad[-1] == good[-1] + 1
    assert sorted(good) == list(range(0, 20, 2))
    assert sorted(bad) == list(range(1, 20, 2))


def test_stop_iteration_in_the_function_does_not_look_like_the_end(
    pool: weir.ThreadPoolExecutor,
) -> None:
    def task(x: int) -> int:
        if x == 1:
            raise StopIteration
        return x

    results = pool.map(task, [0, 1, 2])
    assert next(results) == 0
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        next(results)
    assert list(results) == [2]


@pytest.mark.parametrize("ordered", [True, False])
def test_an_exception_of_the_iterable_appears_behind_what_came_before(
    pool: weir.ThreadPoolExecutor, ordered: bool
) -> None:
    results = pool.map(double, Counted(fails_at=20), ordered=ordered)
    got = sorted(next(results) for _ in range(20))
    assert got == [2 * i for i in range(20)]
    with pytest.raises(OSError, match="the source failed"):
        next(results)
    assert list(results) == []


def test_an_exception_of_the_iterable_before_anything_is_raised_by_the_call(
    pool: weir.ThreadPoolExecutor,
) -> None:
    with pytest.raises(OSError, match="the source failed"):
        pool.map(double, Counted(fails_at=0))
    with pytest.raises(OSError, match="the source failed"):
        pool.map(double, Counted(fails_at=50), buffersize=None)


def test_a_pool_that_shuts_down_meanwhile_ends_the_iteration_with_an_error() -> None:
    pool = weir.ThreadPoolExecutor(2)
    results = pool.map(double, itertools.count())
    assert next(results) == 0
    pool.shutdown()
    got: list[int] = []
    with pytest.raises(RuntimeError, match="cannot schedule new futures"):
        deque(map(got.append, results))
    assert got == [2 * i for i in range(1, len(got) + 1)]
    assert len(got) >= 5


# ---- ending -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("how", ["close", "del", "with"])
def test_an_iterator_that_is_given_up_cancels_what_has_not_started(how: str, ordered: bool) -> None:
    go = threading.Event()
    with weir.ThreadPoolExecutor(1, max_submit_backlog=20) as pool:
        results = pool.map(lambda _: go.wait(30), itertools.count(), ordered=ordered)
        wait_until(lambda: pool.stats().running == 1)
        if how == "close":
            results.close()
            assert list(results) == []
            results.close()
        elif how == "with":
            with results:
                pass
        else:
            results._begun = True  # a next() would wait
        del results
        gc.collect()
        assert pool.stats().waiting == 0
        assert pool.stats().cancelled == 20
        go.set()


def test_an_iterator_that_was_never_used_leaves_its_tasks_alone() -> None:
    done: list[int] = []
    with weir.ThreadPoolExecutor(1, max_submit_backlog=9) as pool:
        pool.map(done.append, range(10))
    assert done == list(range(10))


def test_an_iterator_that_was_never_used_says_what_it_did_not_submit() -> None:
    with weir.ThreadPoolExecutor(1, max_submit_backlog=9) as pool:
        with pytest.warns(RuntimeWarning, match="only its first 10 items were submitted"):
            pool.map(double, range(11))


def test_breaking_out_of_a_loop_cancels_the_rest(pool: weir.ThreadPoolExecutor) -> None:
    for result in pool.map(double, itertools.count()):
        if result == 20:
            break
    gc.collect()
    wait_until(lambda: pool.stats().waiting == pool.stats().running == 0)


def test_an_iterator_keeps_its_executor_alive() -> None:
    assert list(weir.ThreadPoolExecutor(2).map(double, range(50))) == [2 * i for i in range(50)]


def test_memory_stays_flat_over_a_long_map(pool: weir.ThreadPoolExecutor) -> None:
    gc.collect()
    before = len(gc.get_objects())
    for n, _ in enumerate(pool.map(lambda x: [x], itertools.count(), ordered=False)):
        if n == 5000:
            assert len(gc.get_objects()) - before < 2000
            break


# ---- batches ----------------------------------------------------------------------------------


def test_batches_start_with_one_and_grow_while_they_are_short() -> None:
    size = BatchSize()
    assert size.size == 1
    seen = [1]
    for _ in range(20):
        size.report(size.size, size.size * 0.001)
        seen.append(size.size)
    assert seen[:8] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert 0.05 <= seen[-1] * 0.001 <= 0.5


def test_batches_of_long_tasks_stay_at_one() -> None:
    size = BatchSize()
    for _ in range(20):
        size.report(size.size, 3.0)
    assert size.size == 1


def test_batches_shrink_when_tasks_get_longer_and_never_exceed_the_largest() -> None:
    size = BatchSize()
    for _ in range(30):
        size.report(size.size, 0.0)
    assert size.size == BatchSize.LARGEST
    for _ in range(100):
        size.report(size.size, size.size * 0.1)
    assert 1 <= size.size <= 5


def test_a_report_about_another_size_is_not_counted() -> None:
    size = BatchSize()
    size.report(5, 0.0)
    assert size.size == 1


class Remote(MappingExecutor):
    """Somebody else's executor: it pickles tasks there and back, and knows nothing of batches."""

    _map_in_batches = True
    _map_window = 4

    def __init__(self) -> None:
        self.tasks = 0

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        self.tasks += 1
        future: Future[T] = Future()
        try:
            fn, args, kwargs = pickle.loads(pickle.dumps((fn, args, kwargs), 5))
            result = pickle.loads(pickle.dumps(fn(*args, **kwargs), 5))
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        return future

    async def _submit_async(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[T]:
        return self.submit(fn, *args, **kwargs)

    def try_submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T] | None:
        return self.submit(fn, *args, **kwargs)

    def _submit_wait(
        self, fn: Callable[..., T], args: tuple[Any, ...], timeout: float | None
    ) -> Future[T]:
        return self.submit(fn, *args)


@pytest.fixture(scope="module")
def processes() -> Iterator[weir.ProcessPoolExecutor]:
    with weir.ProcessPoolExecutor(2) as pool:
        yield pool


def echo(x: T) -> T:
    return x


def pair(a: Any, b: Any) -> tuple[Any, Any]:
    return a, b


def is_same(a: object, b: object) -> bool:
    return a is b


def die_at_77(x: int) -> int:
    if x == 77:
        os._exit(3)
    return x


def log(x: int, folder: str) -> None:
    with open(f"{folder}/runs", "a") as file:
        file.write(f"{x} ")


def log_and_die_once(x: int, folder: str) -> int:
    log(x, folder)
    if x == 77 and not os.path.exists(f"{folder}/died"):
        open(f"{folder}/died", "w").close()
        os._exit(3)
    return x


def log_and_sleep(x: int, folder: str) -> int:
    log(x, folder)
    time.sleep(0.002)
    return x


def long_at_0(x: int) -> int:
    time.sleep(0.2 if x == 0 else 0.001)
    return os.getpid()


class CannotArrive(Exception):
    """Pickles, and fails to unpickle."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__("two are needed")


class CannotLeave:
    def __reduce__(self) -> Any:
        raise LookupError("not for travel")


def whims(x: Any) -> Any:
    if x == 3:
        return CannotLeave()
    if x == 5:
        raise CannotArrive(1, 2)
    if x == 7:
        return lambda: 1
    if x == 9:
        raise LookupError(9)
    return x


@pytest.mark.parametrize("chunksize", [1, 4, 100])
def test_an_error_in_a_batch_hits_only_its_own_item(
    chunksize: int, processes: weir.ProcessPoolExecutor
) -> None:
    items: list[Any] = [0, 1, CannotLeave(), 3, 4, 5, 6, 7, lambda: 1, 9, 10]
    results = processes.map(whims, items, chunksize=chunksize)
    seen: list[Any] = []
    while True:
        try:
            seen.append(next(results))
        except StopIteration:
            break
        except Exception as error:
            seen.append(type(error))
    assert len(seen) == len(items)
    assert [x for x in seen if isinstance(x, int)] == [0, 1, 4, 6, 10]
    assert seen[2] is seen[3] is seen[9] is LookupError
    assert issubclass(seen[5], Exception)
    assert issubclass(seen[7], Exception)
    assert issubclass(seen[8], Exception)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("chunksize", ["auto", 1, 3, 1000])
@pytest.mark.parametrize("buffersize", [True, None, 1, 10])
@pytest.mark.parametrize("ours", [True, False])
def test_batches_give_the_same_results(
    chunksize: Any,
    buffersize: Any,
    ordered: bool,
    ours: bool,
    processes: weir.ProcessPoolExecutor,
) -> None:
    executor = processes if ours else Remote()
    results = executor.map(
        double, range(500), chunksize=chunksize, buffersize=buffersize, ordered=ordered
    )
    got = list(results)
    assert (got if ordered else sorted(got)) == [2 * i for i in range(500)]
    if chunksize == "auto" and buffersize is True and isinstance(executor, Remote):
        assert executor.tasks < 30


def test_batches_keep_the_buffersize_in_items() -> None:
    source = Counted()
    results = Remote().map(double, source, chunksize=8, buffersize=10)
    for yielded in range(50):
        assert source.taken <= yielded + 10
        assert next(results) == 2 * yielded


def test_a_slow_iterable_does_not_hold_up_a_batch() -> None:
    def slow() -> Iterator[int]:
        for i in itertools.count():
            if i >= 200:
                time.sleep(0.03)
            yield i

    start = 0.0
    for result in Remote().map(double, slow(), buffersize=True):
        if result == 398:
            start = time.monotonic()
        if result == 410:
            break
    assert 0 < time.monotonic() - start < 5


def test_an_error_in_a_foreign_batch_hits_only_its_own_item() -> None:
    results = Remote().map(whims, [8, 9, 10], chunksize=3)
    assert next(results) == 8
    with pytest.raises(LookupError, match="9"):
        next(results)
    assert next(results) == 10


def test_large_arguments_and_results_in_a_batch_arrive_whole(
    processes: weir.ProcessPoolExecutor,
) -> None:
    blobs = [bytes([i]) * (100_000 * i) for i in range(9)]
    assert list(processes.map(echo, blobs, chunksize=5)) == blobs
    assert list(processes.map(len, blobs, chunksize=9)) == [100_000 * i for i in range(9)]
    assert list(processes.map(bytes, [300_000, 0, 5_000_000, 1], chunksize=4)) == [
        bytes(300_000),
        b"",
        bytes(5_000_000),
        b"\0",
    ]


@pytest.mark.parametrize("chunksize", [1, 3, 7, 1000, "auto"])
def test_every_kind_of_value_arrives_equal_and_of_its_type(
    chunksize: Any, processes: weir.ProcessPoolExecutor
) -> None:
    values: list[Any] = [
        None,
        True,
        False,
        0,
        -1,
        2**63 - 1,
        -(2**63),
        2**63,
        -(2**200),
        1.5,
        float("inf"),
        -0.0,
        "",
        "plain",
        "umlaut \xfc",
        "\U0001f600",
        "\ud800",
        "a\0b",
        b"",
        b"\0\xff",
        (1, "two"),
        [None, {}],
        {"k": {1, 2}},
        1j,
        bytearray(b"x"),
        LookupError("as a value"),
    ]
    got = list(processes.map(echo, values, chunksize=chunksize))
    assert [type(v) for v in got] == [type(v) for v in values]
    assert got[:-1] == values[:-1]
    assert str(got[-1]) == "as a value"
    assert [str(v) for v in got] == [str(v) for v in values]
    pairs = list(processes.map(pair, values, reversed(values), chunksize=chunksize))
    assert [a for a, b in pairs][:-1] == values[:-1]
    assert [b for a, b in pairs][1:] == values[::-1][1:]


def test_what_the_arguments_of_one_item_share_stays_shared(
    processes: weir.ProcessPoolExecutor,
) -> None:
    items = [[i] for i in range(10)]
    assert list(processes.map(is_same, items, items, chunksize=5)) == [True] * 10


def test_a_function_that_cannot_be_pickled_is_the_error_of_each_item(
    processes: weir.ProcessPoolExecutor,
) -> None:
    results = processes.map(lambda x: x, [1, 2, 3], chunksize=3)
    for _ in range(3):
        with pytest.raises((AttributeError, pickle.PicklingError)):
            next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_an_exception_in_a_batch_has_the_traceback_of_its_worker(
    processes: weir.ProcessPoolExecutor,
) -> None:
    results = processes.map(whims, [8, 9], chunksize=2)
    assert next(results) == 8
    with pytest.raises(LookupError) as caught:
        next(results)
    assert "in whims" in str(caught.value.__cause__)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("chunksize", ["auto", 50])
def test_a_dead_worker_loses_only_its_item(chunksize: Any, ordered: bool) -> None:
    with weir.ProcessPoolExecutor(2) as pool:
        results = pool.map(die_at_77, range(300), chunksize=chunksize, ordered=ordered)
        got, died = [], 0
        while True:
            try:
                got.append(next(results))
            except weir.WorkerDied:
                died += 1
            except StopIteration:
                break
        assert died == 1
        assert sorted(got) == [i for i in range(300) if i != 77]


def test_only_the_item_of_a_dead_worker_is_run_again(tmp_path: Path) -> None:
    with weir.ProcessPoolExecutor(2, retries=1) as pool:
        results = pool.map(
            log_and_die_once, range(200), itertools.repeat(str(tmp_path)), chunksize=100
        )
        assert list(results) == list(range(200))
    runs = (tmp_path / "runs").read_text().split()
    assert sorted(map(int, runs)) == sorted([*range(200), 77])


def test_items_that_wait_behind_a_long_one_go_to_an_idle_worker() -> None:
    with weir.ProcessPoolExecutor(2) as pool:
        list(pool.map(echo, range(10)))  # both are there
        results = pool.map(long_at_0, range(100), chunksize=100, ordered=True)
        pids = list(results)
        assert len(set(pids)) == 2
        assert pids.count(pids[0]) < 60


def test_closing_a_map_stops_a_batch_that_runs(tmp_path: Path) -> None:
    with weir.ProcessPoolExecutor(1) as pool:
        results = pool.map(
            log_and_sleep, range(1000), itertools.repeat(str(tmp_path)), chunksize=1000
        )
        log = tmp_path / "runs"
        wait_until(lambda: log.exists() and len(log.read_text().split()) > 3)
        next_items = pool.stats().accepted
        results.close()
        pool.submit(echo, 1).result(10)
        assert len(log.read_text().split()) < 500
        assert pool.stats().accepted == next_items + 1


def test_a_map_of_a_killed_pool_ends() -> None:
    pool = weir.ProcessPoolExecutor(2)
    results = pool.map(long_at_0, range(100), chunksize=100)
    wait_until(lambda: pool.stats().running > 0)
    pool.kill_workers()
    seen = 0
    with contextlib.suppress(StopIteration):
        while True:
            with contextlib.suppress(weir.WorkerDied, CancelledError, RuntimeError):
                next(results)
            seen += 1
    assert seen in (100, 1)
    pool.shutdown()
    s = pool.stats()
    assert s.accepted == s.completed + s.cancelled + sum(s.dropped.values()) + s.waiting + s.running


def test_the_arguments_of_a_batch_that_is_refused_are_not_lost() -> None:
    go = threading.Event()
    with weir.ThreadPoolExecutor(1, max_submit_backlog=1) as pool:
        pool.submit(go.wait, 30)
        pool.submit(go.wait, 30)
        for ordered in (True, False):
            results = pool.map(double, [1, 2, 3], timeout=0.02, ordered=ordered)
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    next(results)
            with pytest.raises(TimeoutError):
                pool._submit_wait(double, (1,), 0)
            if ordered:
                kept = results
        everything = pool.map(double, [1, 2, 3], timeout=0.02, buffersize=None)
        assert list(pool.map(double, [], timeout=0.02)) == []
        go.set()
        wait_until(lambda: pool.stats().running == 0)
        for again in (kept, results, everything):
            seen: list[int] = []
            while len(seen) < 3:
                try:
                    seen.append(next(again))
                except TimeoutError:
                    time.sleep(0.001)
            assert sorted(seen) == [2, 4, 6]


def test_a_map_that_looks_for_room_is_not_refused_anything(pool: weir.ThreadPoolExecutor) -> None:
    assert list(pool.map(double, range(500), buffersize=400)) == [2 * i for i in range(500)]
    assert pool.stats().refused == 0
    with concurrent.futures.ThreadPoolExecutor(2) as inner:
        outer = weir.bounded(inner, 1)
        assert sum(outer.map(double, range(500), buffersize=400)) == 499 * 500
        assert outer.stats().refused == 0
