"""The loads of the soak that use objects from several processes, and kill these."""

from __future__ import annotations

import os
import queue
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ledger import NAMED, Ledger
from loads import LONG, Load

import weir

ITEMS_MOST = 5000  # of a putter: so that checking a round does not hold up all others
_RECORD = struct.Struct("=II")  # who put the item, and its how-manieth it was


def putter(fd: int, log: int, number: int, seed: float) -> None:
    """Puts (number, 0), (number, 1), ... and writes down each that the queue has taken."""
    how = random.Random(seed)
    q: weir.SharedQueue[tuple[int, int, bytes]] = weir.SharedQueue.attach(fd)
    for n in range(ITEMS_MOST):
        item = (number, n, bytes(how.choice((0, 10, 1000, 70_000))))
        while True:
            try:
                q.put(item, timeout=how.choice((0.001, 0.1, None)))
                break
            except queue.Full:
                pass
            except weir.ShutDown:
                return
        os.write(log, _RECORD.pack(number, n))


def getter(fd: int, log: int, number: int, seed: float) -> None:
    """Gets, and writes down what it got."""
    del number
    how = random.Random(seed)
    q: weir.SharedQueue[tuple[int, int, bytes]] = weir.SharedQueue.attach(fd)
    while True:
        try:
            who, n, _ = q.get(timeout=how.choice((0.001, 0.1, None)))
        except queue.Empty:
            continue
        except weir.ShutDown:
            return
        os.write(log, _RECORD.pack(who, n))


class Child:
    """A putter or getter in a process of its own."""

    def __init__(self, what: str, q: weir.SharedQueue[object], log: Path, n: int, s: float) -> None:
        self.what, self.number, self.log, self.killed = what, n, log, False
        with open(log, "wb") as file:
            arguments = [what, q.fileno(), file.fileno(), n, s]
            self.process = subprocess.Popen(
                [sys.executable, __file__, *map(str, arguments)],
                pass_fds=(q.fileno(), file.fileno()),
            )

    def kill(self) -> None:
        self.killed = True
        self.process.kill()

    def records(self) -> list[tuple[int, int]]:
        return list(_RECORD.iter_unpack(self.log.read_bytes()))


class SharedQueueLoad(Load):
    """A `weir.SharedQueue` of one policy between processes that are killed."""

    def __init__(self, overflow: str, ledger: Ledger, seed: int) -> None:
        super().__init__(f"SharedQueue {overflow}", ledger, seed)
        self.overflow = overflow

    def round(self) -> None:
        rng = self.random
        q: weir.SharedQueue[object] = weir.SharedQueue(
            rng.randint(1, 200),
            max_bytes=1 << 20,
            overflow=self.overflow,  # type: ignore[arg-type]
        )
        with tempfile.TemporaryDirectory(prefix="weir-soak-") as folder:
            children = [
                Child(what, q, Path(folder) / f"{i}", i, rng.random())
                for i, what in enumerate(("putter", "getter") * rng.randint(1, 2))
            ]
            for _ in range(rng.randint(2, 10)):
                time.sleep(0.1 + rng.random() * 0.1)
                self.check_law(q)
                victim = rng.choice(children)
                if rng.random() < 0.5 and not victim.killed:
                    victim.kill()
                    children.append(
                        Child(victim.what, q, Path(folder) / f"{len(children)}", len(children), 1)
                    )
            q.shutdown()
            self.end(children)
            self.settle(q, children)

    def check_law(self, q: weir.SharedQueue[object]) -> weir.SharedQueueStats:
        now = q.stats()
        out = now.delivered + sum(now.dropped.values()) + now.qsize
        self.check(now.accepted == out, f"a snapshot: {now}")
        return now

    def end(self, children: list[Child]) -> None:
        for child in children:
            try:
                code = child.process.wait(LONG)
            except subprocess.TimeoutExpired:
                child.kill()
                child.process.wait()
                self.check(False, f"a {child.what} is stuck after shutdown()")
            else:
                expected = -signal.SIGKILL if child.killed else 0
                self.check(code in (0, expected), f"a {child.what} ended with {code}")

    def settle(self, q: weir.SharedQueue[object], children: list[Child]) -> None:
        """Who was killed may have had one item accepted, or got one, and not written it down."""
        now = self.check_law(q)
        put = [record for c in children if c.what == "putter" for record in c.records()]
        got = [record for c in children if c.what == "getter" for record in c.records()]
        dead = {what: sum(c.killed for c in children if c.what == what) for what in _ROLES}
        unsaid = set(got) - set(put)
        self.check(len(set(got)) == len(got), "an item came out twice")
        self.check(len(unsaid) <= dead["putter"], f"came out and did not go in: {unsaid}")
        more = now.accepted - len(put)
        lost = now.delivered - len(got)
        self.check(0 <= more <= dead["putter"], f"{more} accepted beyond what was put")
        self.check(0 <= lost <= dead["getter"], f"{lost} delivered beyond what was got")
        self.ledger.add(
            self.name,
            accepted=now.accepted,
            delivered=len(got),
            dropped=now.dropped,
            inside=now.qsize,
            lost=lost,
        )


def _hold_permits(name: str, seed: float) -> None:
    """In a forked child, until it is killed."""
    how = random.Random(seed)
    limiter = weir.Limiter(4, shared=name)
    while True:
        try:
            with limiter.acquire(timeout=1.0):
                time.sleep(how.random() * 0.003)
        except TimeoutError:
            pass


class SharedLimiterLoad(Load):
    """A limit of several processes: whoever is killed gives back what it held."""

    def round(self) -> None:
        name = f"{NAMED}{self.random.randrange(10**6)}"
        limiter = weir.Limiter(4, shared=name)
        children = [self.fork(lambda: _hold_permits(name, self.random.random())) for _ in range(3)]
        time.sleep(0.2 + self.random.random())
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        permits = []
        try:
            permits = [limiter.acquire(timeout=LONG) for _ in range(4)]
        except TimeoutError:
            self.check(False, f"permits of killed processes did not come back: {limiter.stats()}")
        for permit in permits:
            permit.release()
        now = limiter.stats()
        self.check(now.lost <= 4, f"more is lost than was held: {now}")
        self.check(now.in_flight == 0, f"in flight after the last release: {now}")
        self.ledger.add(
            self.name,
            accepted=now.admitted,
            delivered=now.released,
            inside=now.in_flight,
            lost=now.lost,
        )
        limiter.close()

    def fork(self, fn: Callable[[], None]) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                fn()
            finally:
                os._exit(1)
        return pid


_ROLES: dict[str, Callable[[int, int, int, float], None]] = {"putter": putter, "getter": getter}

if __name__ == "__main__":
    role, fd, log, number, seed = sys.argv[1:]
    _ROLES[role](int(fd), int(log), int(number), float(seed))
