"""The loads of the soak: each does one thing to weir, and has numbers of its own to check it by.

A round makes its objects, uses them from many sides at once, ends them in one of several ways, and
enters into the ledger what has become of each item.  It leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401  registers with fork, so not while another thread forks
import gc
import itertools
import json
import multiprocessing
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

from ledger import Ledger

import weir

LONG = 200.0  # seconds that a wait which is certain to end may take on a busy machine
COMMAND = Path(__file__).resolve().parents[2] / "build/cli/weir"


class Load:
    """One load; `round()` is called again and again by a thread of its own."""

    pause = 0.0  # seconds between two rounds

    def __init__(self, name: str, ledger: Ledger, seed: int) -> None:
        self.name = name
        self.ledger = ledger
        self.random = random.Random(f"{seed} {name}")

    def round(self) -> None:
        raise NotImplementedError

    def check(self, holds: bool, why: str) -> None:
        self.ledger.check(self.name, holds, why)

    def seeded(self, fn: Callable[[random.Random], object]) -> Callable[[], object]:
        """For a thread: random numbers of its own, which follow from the seed."""
        numbers = random.Random(self.random.random())
        return lambda: fn(numbers)

    def join(self, threads: list[threading.Thread]) -> None:
        """Each has to end: one that does not is a waiter that nobody woke."""
        for thread in threads:
            thread.join(LONG)
            self.check(not thread.is_alive(), f"{thread.name} is stuck")


def start(*fns: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=fn, name=f"soak {fn}", daemon=True) for fn in fns]
    for thread in threads:
        thread.start()
    return threads


# ---- queues of threads --------------------------------------------------------------------------


class QueueLoad(Load):
    """A `weir.Queue` of one policy: putters and getters, resized, looked at, closed or emptied."""

    def __init__(self, overflow: Any, ledger: Ledger, seed: int) -> None:
        super().__init__(f"Queue {overflow}", ledger, seed)
        self.overflow = overflow

    def round(self) -> None:
        with tempfile.TemporaryDirectory(prefix="weir-soak-") as folder:
            self.use(folder)

    def use(self, folder: str) -> None:
        rng = self.random
        numbers = itertools.count()
        taken: list[int] = []  # append of a list is one step for all threads
        got: list[int] = []
        drops: list[tuple[int, str]] = []
        spill = weir.Spill(folder, 1 << 20) if self.overflow == "spill" else None
        q: weir.Queue[int] = weir.Queue(
            rng.randint(1, 40),
            overflow=self.overflow,
            on_drop=lambda item, why: drops.append((item, why)),
            spill=spill,
            max_age=rng.choice((None, 0.01)) if spill is None else None,
        )

        def put(how: random.Random) -> None:
            while True:
                items = [next(numbers) for _ in range(how.choice((1, 1, 1, 7)))]
                try:
                    if len(items) > 1:
                        n = q.put_many(items, timeout=0.05)
                    elif how.random() < 0.5:
                        q.put_nowait(items[0])
                        n = 1
                    else:
                        q.put(items[0], timeout=how.choice((0.001, 0.05, 1.0)))
                        n = 1
                except queue.Full:
                    n = 0
                except weir.ShutDown:
                    return
                taken.extend(items[:n])
                if how.random() < 0.02:
                    time.sleep(0.001)

        def get(how: random.Random) -> None:
            while True:
                try:
                    if how.random() < 0.3:
                        got.extend(q.get_many(5, timeout=0.05))
                    else:
                        got.append(q.get(timeout=how.choice((0.001, 0.05, 1.0))))
                except queue.Empty:
                    pass
                except weir.ShutDown:
                    return
                if how.random() < 0.02:
                    time.sleep(0.001)

        makers = [self.seeded(put) for _ in range(rng.randint(1, 4))]
        takers = [self.seeded(get) for _ in range(rng.randint(1, 4))]
        threads = start(*makers, *takers)
        for _ in range(rng.randint(5, 40)):
            q.maxsize = rng.randint(1, 40)
            self.check_law(q)
            if rng.random() < 0.05:
                q.discard()
            time.sleep(0.005)
        q.shutdown(immediate=rng.random() < 0.5)
        self.join(threads)
        self.settle(q, taken, got, drops)

    def check_law(self, q: weir.Queue[int]) -> None:
        now = q.stats()
        out = now.delivered + sum(now.dropped.values()) + now.qsize
        self.check(now.accepted == out, f"a snapshot: {now}")

    def settle(
        self, q: weir.Queue[int], taken: list[int], got: list[int], drops: list[tuple[int, str]]
    ) -> None:
        self.check_law(q)
        seen = Counter(got) + Counter(item for item, _ in drops)
        twice = [item for item, n in seen.items() if n > 1]
        self.check(not twice, f"seen twice: {twice[:5]}")
        missing = set(taken) ^ set(seen)
        self.check(not missing, f"taken and not seen, or seen and not taken: {list(missing)[:5]}")
        now = q.stats()
        self.check(
            (now.accepted, now.delivered) == (len(taken), len(got)),
            f"the queue says {now.accepted} and {now.delivered}, we {len(taken)} and {len(got)}",
        )
        self.ledger.add(
            self.name,
            accepted=len(taken),
            delivered=len(got),
            dropped=Counter(why for _, why in drops),
            inside=now.qsize,
        )


class AsyncQueueLoad(Load):
    """A queue between coroutines of one loop and threads, with cancellations everywhere."""

    def round(self) -> None:
        asyncio.run(self.use())

    async def use(self) -> None:
        rng = self.random
        numbers = itertools.count()
        taken: list[int] = []
        got: list[int] = []
        q: weir.Queue[int] = weir.Queue(rng.randint(1, 10))

        async def put() -> None:
            item = next(numbers)
            await q.aput(item, timeout=rng.choice((None, 0.01)))
            taken.append(item)

        async def get() -> None:
            got.append(await q.aget(timeout=rng.choice((None, 0.01))))

        def get_in_thread() -> None:
            for item in q:
                got.append(item)

        threads = start(*[get_in_thread] * rng.randint(0, 1))
        tasks: set[asyncio.Task[None]] = set()
        for _ in range(rng.randint(200, 1500)):
            tasks.add(asyncio.ensure_future(put() if rng.random() < 0.5 else get()))
            if rng.random() < 0.2:
                rng.choice(list(tasks)).cancel()
            if rng.random() < 0.3:
                await asyncio.sleep(0)
            if len(tasks) > 60:
                done = {task for task in tasks if task.done()}
                self.note(done)
                tasks -= done
        q.shutdown()
        _, late = await asyncio.wait(tasks, timeout=LONG) if tasks else (None, set())
        self.check(not late, f"{len(late)} coroutines are stuck after shutdown()")
        self.note(tasks - late)
        await asyncio.to_thread(self.join, threads)
        while True:
            try:
                got.append(q.get_nowait())
            except (queue.Empty, weir.ShutDown):
                break
        self.check(Counter(taken) == Counter(got), "what went in is not what came out")
        self.ledger.add(self.name, accepted=len(taken), delivered=len(got), inside=q.qsize())

    def note(self, tasks: set[asyncio.Task[None]]) -> None:
        for task in tasks:
            error = None if task.cancelled() else task.exception()
            expected = (queue.Full, queue.Empty, weir.ShutDown, type(None))
            self.check(isinstance(error, expected), f"a coroutine raised {error!r}")


# ---- executors ----------------------------------------------------------------------------------


class ThreadPoolLoad(Load):
    """A `weir.ThreadPoolExecutor` with many submitters, cancellations, and both ways to end."""

    def round(self) -> None:
        rng = self.random
        ran: list[int] = []
        futures: list[Future[int]] = []
        numbers = itertools.count()
        pool = weir.ThreadPoolExecutor(
            rng.randint(1, 4),
            max_submit_backlog=rng.choice((True, 1, 10)),
            on_full=rng.choice(("block", "fail", "drop_newest", "drop_oldest", "caller_runs")),
        )

        def task(number: int) -> int:
            ran.append(number)
            return number

        def submit(how: random.Random) -> None:
            for _ in range(how.randint(50, 500)):
                try:
                    future = pool.submit(task, next(numbers))
                except queue.Full:
                    continue
                except RuntimeError:  # shut down
                    return
                futures.append(future)
                if how.random() < 0.1:
                    future.cancel()

        threads = start(*[self.seeded(submit) for _ in range(3)])
        if rng.random() < 0.5:
            time.sleep(rng.random() * 0.1)
            pool.shutdown(cancel_futures=rng.random() < 0.5)
        self.join(threads)
        pool.shutdown()
        settle_futures(self, futures, len(ran))
        now = pool.stats()
        out = now.finished + now.cancelled + sum(now.dropped.values()) + now.waiting + now.running
        self.check(now.accepted == out, f"after shutdown(): {now}")


def settle_futures(load: Load, futures: list[Future[int]], ran: int | None) -> None:
    """Enters what each future came to; all of them have to be over."""
    ends: Counter[str] = Counter()
    for future in futures:
        try:
            future.result(LONG)
            ends["result"] += 1
        except weir.Dropped as error:
            ends[error.reason] += 1
        except weir.WorkerDied:
            ends["died"] += 1
        except weir.WorkerNotStarted:  # each was killed before it was ready
            ends["not_started"] += 1
        except CancelledError:
            ends["cancelled"] += 1
        except TimeoutError:
            load.check(False, "a future is not over after shutdown()")
    results = ends.pop("result", 0)
    load.check(ran is None or ran == results, f"{ran} ran, and {results} have a result")
    lost = ends.pop("died", 0)
    load.ledger.add(load.name, accepted=len(futures), delivered=results, dropped=ends, lost=lost)


def work(number: int, seconds: float, nbytes: int) -> tuple[int, int]:
    """The task of the process pools."""
    time.sleep(seconds)
    return number, len(bytes(nbytes))


class ProcessPoolLoad(Load):
    """A `weir.ProcessPoolExecutor` whose workers are killed."""

    def round(self) -> None:
        rng = self.random
        pool = weir.ProcessPoolExecutor(
            2,
            multiprocessing.get_context(rng.choice(("fork", "forkserver"))),
            max_tasks_per_child=rng.choice((None, 20)),
            max_submit_backlog=rng.choice((True, 10)),
            on_full=rng.choice(("block", "drop_oldest")),
            retries=rng.choice((0, 3)),
        )
        futures: list[Future[Any]] = []
        over = threading.Event()

        def kill() -> None:
            how = random.Random(rng.random())
            while not over.wait(0.1 + how.random() * 0.5):
                for process in list(pool._workers.processes.values()):
                    if how.random() < 0.5:
                        process.kill()  # knows whether it was reaped
                        break

        threads = start(kill) if rng.random() < 0.8 else []
        for number in range(rng.randint(20, 300)):
            nbytes = rng.choice((0, 1000, 100_000, 1_000_000))
            futures.append(pool.submit(work, number, rng.random() * 0.006, nbytes))
            if rng.random() < 0.05:
                rng.choice(futures).cancel()
        if rng.random() < 0.7:
            over.set()
        pool.shutdown(cancel_futures=rng.random() < 0.3)
        over.set()
        self.join(threads)
        settle_futures(self, futures, None)
        now = pool.stats()
        out = now.completed + now.cancelled + sum(now.dropped.values()) + now.waiting + now.running
        self.check(now.accepted == out, f"after shutdown(): {now}")
        self.check(now.shm_bytes == 0 or now.workers == 0, f"workers after shutdown(): {now}")


# ---- what disturbs ------------------------------------------------------------------------------


class ForkLoad(Load):
    """Forks in the middle of everything; the child uses weir and goes."""

    pause = 0.2

    def round(self) -> None:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                q: weir.Queue[int] = weir.Queue(2)
                q.put(1)
                code = 0 if q.get(timeout=LONG) == 1 else 2
            finally:
                os._exit(code)
        deadline = time.monotonic() + LONG
        status: int | None = None
        while status is None and time.monotonic() < deadline:
            done, said = os.waitpid(pid, os.WNOHANG)
            status = said if done else None
            time.sleep(0.002)
        if status is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.check(status == 0, f"a forked child ended with {status}")
        self.ledger.add(self.name, accepted=1, delivered=1)


class SignalLoad(Load):
    """Signals at the process and at each of its threads that live as long as it."""

    pause = 0.01
    threads: tuple[threading.Thread, ...] = ()

    def round(self) -> None:
        n = self.random.randint(1, 50)
        for _ in range(n):
            if self.threads and self.random.random() < 0.8:
                ident = self.random.choice(self.threads).ident
                assert ident is not None
                signal.pthread_kill(ident, signal.SIGUSR1)
            else:
                os.kill(os.getpid(), signal.SIGUSR1)
        self.ledger.add(self.name, accepted=n, delivered=n)


class Knot:
    """Part of a cycle that goes through objects of weir."""

    def __init__(self) -> None:
        self.queue: weir.Queue[Knot] = weir.Queue(4, on_drop=self.dropped)
        self.queue.put(self)
        self.limiter = weir.Limiter(2)
        self.permit = self.limiter.acquire()

    def dropped(self, item: Knot, why: str) -> None:
        del item, why


class CycleLoad(Load):
    """Cycles with objects of weir in them, and a collection while all others run."""

    pause = 0.1

    def round(self) -> None:
        knots = [weakref.ref(Knot()) for _ in range(20)]
        gc.collect()
        alive = sum(knot() is not None for knot in knots)
        if alive:  # another thread may be in a collection of its own
            time.sleep(0.5)
            gc.collect()
            alive = sum(knot() is not None for knot in knots)
        self.check(alive == 0, f"{alive} of {len(knots)} cycles were not collected")
        self.ledger.add(self.name, accepted=len(knots), delivered=len(knots) - alive, inside=alive)


IN_INTERPRETERS = """
import sys, threading, time, weir
name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
try:
    interpreters = __import__(name)
except ImportError:
    sys.exit()
INSIDE = "import weir; q = weir.Queue(2); q.put(1); assert q.get() == 1; q.put(2)"

def use():
    for _ in range(5):
        interpreter = interpreters.create()
        said = interpreters.run_string(interpreter, INSIDE)
        interpreters.destroy(interpreter)
        assert said is None, said

threads = [threading.Thread(target=use) for _ in range(2)]
q = weir.Queue(10)
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    q.put(1)
    assert q.get() == 1
    time.sleep(0.001)  # an interpreter does not hear that another one wants the GIL
"""


class InterpreterLoad(Load):
    """Weir in subinterpreters beside the main one, where Python has them.

    In a process of its own: Python's own fork() hangs in the child while a subinterpreter comes or
    goes, whatever these run.
    """

    pause = 2.0

    def round(self) -> None:
        ended = subprocess.run(
            [sys.executable, "-c", IN_INTERPRETERS], capture_output=True, text=True, timeout=LONG
        )
        self.check(ended.returncode == 0, f"subinterpreters: {ended.returncode} {ended.stderr}")
        self.ledger.add(self.name, accepted=1, delivered=1)


class WatchLoad(Load):
    """Looks on, from inside and from outside."""

    pause = 1.0

    def round(self) -> None:
        to_be_seen: weir.Queue[int] = weir.Queue(1, name="soak")
        names = {seen.name for seen in weir.stats()}
        self.check("soak" in names, f"stats() does not see {to_be_seen}")
        self.check(weir.metrics().endswith("# EOF\n"), "metrics() has no end")
        looks = 0
        if COMMAND.exists():
            for arguments in (["stats", "--json"], ["top", "--once"]):
                ended = subprocess.run(
                    [COMMAND, *arguments], capture_output=True, text=True, timeout=LONG
                )
                looks += 1
                self.check(ended.returncode == 0, f"{arguments}: {ended.stderr}")
                if "--json" in arguments and ended.returncode == 0:
                    json.loads(ended.stdout)
        self.ledger.add(self.name, accepted=2 + looks, delivered=2 + looks)


class MemoryLoad(Load):
    """A governor, with memory that is really taken."""

    def round(self) -> None:
        governor = weir.MemoryGovernor("64MiB", interval=0.01)

        def reserve(how: random.Random) -> None:
            for _ in range(how.randint(5, 40)):
                try:
                    with governor.reserve(how.randint(1, 8 << 20), timeout=0.05) as held:
                        bytearray(held.nbytes)[::4096] = b"x" * -(-held.nbytes // 4096)
                except (TimeoutError, weir.Overloaded):
                    pass

        self.join(start(*[self.seeded(reserve) for _ in range(3)]))
        now = governor.stats()
        self.check(now.reserved == 0, f"bytes are reserved for nobody: {now}")
        self.ledger.add(
            self.name,
            accepted=now.admitted,
            delivered=now.released,
            inside=now.inside,
            lost=now.lost,
        )
        governor.close()
