"""weir.MemoryGovernor, and executors that have one."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import weir
from weir._memory import kind_of

GIB = 1 << 30
MIB = 1 << 20
LIMIT = 10_000 * GIB  # more than any machine has: what is really used does not matter


def soon(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def law(governor: weir.MemoryGovernor) -> weir.MemoryStats:
    stats = governor.stats()
    assert stats.admitted == stats.released + stats.lost + stats.inside
    return stats


# ---- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "nbytes"), [(5 * GIB, 5 * GIB), ("2GiB", 2 * GIB), ("512M", 512 * MIB), ("2kB", 2000)]
)
def test_a_limit_in_bytes_is_that_many(limit: int | str, nbytes: int) -> None:
    assert weir.MemoryGovernor(limit).stats().limit == nbytes


def test_a_limit_in_percent_is_of_the_memory_there_is() -> None:
    stats = weir.MemoryGovernor("50%").stats()
    assert stats.limit == stats.memory // 2 or abs(stats.limit - stats.memory / 2) <= 1
    assert 0 < stats.usage <= stats.memory
    assert stats.rss > MIB
    assert stats.processes >= 1


@pytest.mark.parametrize("limit", ["", "80", "0%", "101%", "GiB", "-1", 0, -1, 2**62])
def test_a_limit_that_is_none_says_what_one_is(limit: int | str) -> None:
    if limit == "80":
        assert weir.MemoryGovernor(limit).stats().limit == 80
        return
    with pytest.raises(ValueError, match=r"'limit' must be .*not "):
        weir.MemoryGovernor(limit)


@pytest.mark.parametrize("limit", [None, 0.8, True, b"80%"])
def test_a_limit_of_another_type_is_a_type_error(limit: Any) -> None:
    with pytest.raises(TypeError, match="'limit' must be bytes"):
        weir.MemoryGovernor(limit)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"interval": 0}, "'interval' must be from 0.001"),
        ({"slow": 1.5}, r"'slow' must be > 0 and <= 1, not 1\.5"),
        ({"slow": 0.9, "pause": 0.8}, "must ascend"),
        ({"shared": "no/name"}, "letters, digits"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        weir.MemoryGovernor(LIMIT, **options)


@given(st.integers(1, 2**30), st.sampled_from(["", "B", "K", "KiB", "kB", "M", "MB", "G", "gib"]))
def test_what_people_write_is_what_they_get(number: int, unit: str) -> None:
    factor = {"": 1, "B": 1, "K": 1024, "KiB": 1024, "kB": 1000, "M": MIB, "MB": 10**6}
    assert weir.MemoryGovernor(f"{number}{unit}").stats().limit == number * factor.get(unit, GIB)


# ---- reserving ----------------------------------------------------------------------------------


def test_memory_is_reserved_within_a_with() -> None:
    governor = weir.MemoryGovernor(LIMIT, name="g")
    with governor.reserve(6000 * GIB) as reservation:
        assert reservation.nbytes == governor.stats().reserved == 6000 * GIB
        assert governor.try_reserve(6000 * GIB) is None
        with pytest.raises(TimeoutError, match=r"no memory for .* bytes within the timeout"):
            governor.reserve(6000 * GIB, timeout=0.01)
    assert reservation.nbytes == law(governor).reserved == 0
    reservation.release()  # once more is fine
    assert law(governor).released == 1
    assert repr(governor) == f"<weir.MemoryGovernor 'g': limit {LIMIT}>"
    assert governor.state == "normal"


def test_a_reservation_that_is_forgotten_is_given_back() -> None:
    governor = weir.MemoryGovernor(LIMIT)
    reservation = governor.reserve(GIB)
    del reservation
    assert law(governor).reserved == 0


@pytest.mark.parametrize("nbytes", [0, -1, 2**62, 2**80])
def test_bytes_out_of_range_are_refused(nbytes: int) -> None:
    governor = weir.MemoryGovernor(LIMIT)
    with pytest.raises(ValueError, match="'nbytes' must be > 0"):
        governor.reserve(nbytes)
    with pytest.raises(TypeError, match="'nbytes' must be an int"):
        governor.reserve("1")  # type: ignore[arg-type]


def test_one_may_go_however_large() -> None:
    governor = weir.MemoryGovernor(MIB)  # this process has more already
    with governor.reserve(GIB):
        assert governor.try_reserve(1) is None
    with governor.reserve(1):
        pass


def test_threads_never_hold_more_than_the_limit() -> None:
    governor = weir.MemoryGovernor(LIMIT)
    lock, held, most = threading.Lock(), 0, 0

    def work(seed: int) -> None:
        nonlocal held, most
        for i in range(200):
            nbytes = (1 + (seed * 7919 + i * 104729) % 5000) * GIB
            with governor.reserve(nbytes):
                with lock:
                    held += nbytes
                    most = max(most, held)
                with lock:
                    held -= nbytes

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= LIMIT
    assert law(governor).admitted == 1600


def test_close_ends_the_wait() -> None:
    governor = weir.MemoryGovernor(LIMIT)
    held = governor.reserve(6000 * GIB)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            governor.reserve(6000 * GIB)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    soon(lambda: governor.stats().waiting == 1)
    governor.close()
    thread.join()
    assert [type(error) for error in errors] == [weir.ShutDown]
    held.release()
    assert governor.stats().is_shutdown


def test_a_signal_ends_the_wait_with_nothing_reserved() -> None:
    governor = weir.MemoryGovernor(LIMIT)
    held = governor.reserve(6000 * GIB)

    def handler(signum: int, frame: object) -> None:
        raise KeyError("signal")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        me = threading.get_ident()

        def send() -> None:
            soon(lambda: governor.stats().waiting == 1)
            signal.pthread_kill(me, signal.SIGUSR1)

        thread = threading.Thread(target=send)
        thread.start()
        with pytest.raises(KeyError):
            governor.reserve(6000 * GIB)
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    held.release()
    assert law(governor).reserved == 0


def test_shed_raises_overloaded_and_tells_on_change() -> None:
    told: list[str] = []
    governor = weir.MemoryGovernor(
        "80%", interval=0.001, slow=1e-6, pause=1e-6, shed=1e-6, on_change=told.append
    )
    soon(lambda: governor.state == "shed")
    with governor.reserve(1):  # one may always go
        with pytest.raises(weir.Overloaded, match="try again later"):
            governor.reserve(1)
        assert governor.try_reserve(1) is None
        with pytest.raises(weir.Overloaded):
            asyncio.run(governor.areserve(1))
    soon(lambda: told == ["shed"])
    governor.close()


def test_coroutines_wait_in_line() -> None:
    governor = weir.MemoryGovernor(LIMIT)

    async def main() -> None:
        first = await governor.areserve(6000 * GIB)
        with pytest.raises(TimeoutError, match="no memory for"):
            await governor.areserve(6000 * GIB, timeout=0.01)
        second = asyncio.create_task(governor.areserve(6000 * GIB))
        third = asyncio.create_task(governor.areserve(6000 * GIB))
        await asyncio.sleep(0)  # both have begun
        assert governor.stats().waiting == 2
        third.cancel()
        first.release()
        with await second as reservation:
            assert reservation.nbytes == 6000 * GIB
        with pytest.raises(asyncio.CancelledError):
            await third

    asyncio.run(main())
    stats = law(governor)
    assert (stats.reserved, stats.refused) == (0, 2)  # one timed out, one was cancelled


def test_sizes_are_learned_for_each_function() -> None:
    governor = weir.MemoryGovernor(LIMIT)
    assert governor.estimate(soon) is None
    for _ in range(10):
        governor.observe(soon, 100 * MIB)
    assert governor.estimate(soon) == 110 * MIB
    assert governor.estimate(partial(partial(soon, bool))) == 110 * MIB
    assert governor.estimate(law) is None
    governor.observe("thumbnails", 1)
    assert governor.estimate("thumbnails") == 64 << 10
    assert kind_of(test_sizes_are_learned_for_each_function) != kind_of(law)


def test_a_forked_child_cannot_use_it() -> None:
    governor = weir.MemoryGovernor(LIMIT)
    held = governor.reserve(GIB)
    pid = os.fork()
    if pid == 0:
        try:
            governor.reserve(1)
        except RuntimeError as error:
            held.release()  # is the parent's: nothing happens
            os._exit(0 if "child" in str(error) else 1)
        os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert law(governor).reserved == GIB


def test_it_cannot_be_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(weir.MemoryGovernor(LIMIT))


# ---- shared -------------------------------------------------------------------------------------


def hold_for_ever(name: str, ready: Any) -> None:
    reservation = weir.MemoryGovernor(LIMIT, shared=name).reserve(6000 * GIB)
    ready.set()
    time.sleep(3600)
    reservation.release()


def test_processes_share_one_and_a_killed_one_holds_nothing() -> None:
    name = f"test-memory-{os.getpid()}"
    governor = weir.MemoryGovernor(LIMIT, shared=name)
    context = multiprocessing.get_context("forkserver")
    ready = context.Event()
    process = context.Process(target=hold_for_ever, args=(name, ready))
    process.start()
    assert ready.wait(30)
    assert governor.stats().reserved == 6000 * GIB
    assert governor.try_reserve(6000 * GIB) is None
    process.kill()
    process.join()
    with governor.reserve(6000 * GIB, timeout=30):
        assert law(governor).lost == 1
    assert asyncio.run(governor.areserve(1)).nbytes == 1
    gc.collect()
    assert law(governor).reserved == 0


# ---- pools --------------------------------------------------------------------------------------


def work(directory: str, number: int, mib: int) -> int:
    path = os.path.join(directory, str(number))
    with open(path, "w"):
        pass
    data = bytearray(b"\1") * (mib * MIB)
    running = len(os.listdir(directory))
    time.sleep(0.005)
    os.unlink(path)
    return running if data else 0


def test_tasks_run_only_with_their_memory_reserved(tmp_path: Any) -> None:
    governor = weir.MemoryGovernor(LIMIT)
    with weir.ProcessPoolExecutor(4, memory=governor, memory_per_task="4000GiB") as pool:
        futures = [pool.submit(work, str(tmp_path), n, 0) for n in range(40)]
        assert max(future.result() for future in futures) <= 2
        assert max(pool.map(work, [str(tmp_path)] * 40, range(40), [0] * 40)) <= 2
    assert pool.stats().completed >= 40
    assert law(governor).reserved == 0


@pytest.mark.skipif("WEIR_SANITIZER" in os.environ, reason="a sanitizer keeps what is freed")
def test_a_pool_learns_what_its_tasks_take(tmp_path: Any) -> None:
    governor = weir.MemoryGovernor(LIMIT)
    with weir.ProcessPoolExecutor(2, memory=governor) as pool:
        assert pool.submit(work, str(tmp_path), 1, 30).result() == 1
        soon(lambda: governor.estimate(work) is not None)
        first = governor.estimate(work)
        assert first is not None
        assert 33 * MIB < first < 50 * MIB  # 30 and a fifth
        for n in range(8):
            pool.submit(work, str(tmp_path), n, 30).result()
        last = governor.estimate(work)
        assert last is not None
        assert 30 * MIB < last < 45 * MIB


leak: list[bytearray] = []


def leak_some(mib: int) -> int:
    leak.append(bytearray(b"\1") * (mib * MIB))
    return os.getpid()


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_worker_that_has_grown_is_replaced_and_no_task_is_lost(method: str) -> None:
    context = multiprocessing.get_context(method)
    with weir.ProcessPoolExecutor(2, context, max_worker_rss="120MiB") as pool:
        pids = [f.result() for f in [pool.submit(leak_some, 10) for _ in range(60)]]
    stats = pool.stats()
    assert len(set(pids)) >= 4
    assert stats.completed == 60
    assert stats.workers_recycled >= 2
    assert stats.died == stats.workers_died == 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_dead_worker_had_comes_back() -> None:
    governor = weir.MemoryGovernor(LIMIT)
    with weir.ProcessPoolExecutor(2, memory=governor, memory_per_task=9000 * GIB) as pool:
        for _ in range(3):
            with pytest.raises(weir.WorkerDied):
                pool.submit(die).result()
        assert pool.submit(os.getpid).result() > 0
    assert law(governor).reserved == 0


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"memory": "80%"}, TypeError, "'memory' must be a weir.MemoryGovernor"),
        ({"memory_per_task": 1}, ValueError, "'memory_per_task' needs memory="),
        ({"max_worker_rss": "50%"}, ValueError, "'max_worker_rss' must be bytes"),
        ({"max_worker_rss": 0}, ValueError, "'max_worker_rss' must be > 0"),
    ],
)
def test_bad_options_of_a_pool_are_refused(
    options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        weir.ProcessPoolExecutor(1, **options)
    with pytest.raises(ValueError, match="'memory_per_task' must be"):
        weir.ProcessPoolExecutor(1, memory=weir.MemoryGovernor(LIMIT), memory_per_task=0)


def pid_and_reserved(governor: weir.MemoryGovernor) -> tuple[int, int]:
    with governor.reserve(MIB):
        return os.getpid(), governor.stats().reserved


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_shared_governor_goes_to_other_processes_by_its_name(method: str) -> None:
    governor = weir.MemoryGovernor(LIMIT, shared=f"pickle.{os.getpid()}.{method}", name="one")
    context = multiprocessing.get_context(method)
    with governor.reserve(2 * MIB), weir.ProcessPoolExecutor(1, context) as pool:
        pid, reserved = pool.submit(pid_and_reserved, governor).result()
    assert pid != os.getpid()
    assert reserved == 3 * MIB
    with pytest.raises(TypeError, match="cannot be pickled; one with shared='name' can"):
        pickle.dumps(weir.MemoryGovernor(LIMIT))
    with pytest.warns(RuntimeWarning, match="exists already, with a limit of"):
        weir.MemoryGovernor(LIMIT * 2, shared=f"pickle.{os.getpid()}.{method}")
