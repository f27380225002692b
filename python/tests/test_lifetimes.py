"""Limits that go in odd ways: in a cycle, with waiters, at the end of the program, in a child.

Each test runs on each row of KINDS: a line that makes `limit`, and the waits that it has.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import output_of


@dataclass(frozen=True)
class Kind:
    name: str
    make: str  # full: who comes now waits
    wait: str = ""
    await_: str = ""
    shared: bool = False

    def __str__(self) -> str:
        return self.name


GOVERNOR = "weir.MemoryGovernor(10 << 42{shared}); held = limit.reserve(9 << 42)"
KINDS = [
    Kind("limiter", "weir.Limiter(1); held = limit.acquire()", "acquire()", "aacquire()"),
    Kind(
        "vegas",
        "weir.Limiter(weir.Vegas(1, 1, 1)); held = limit.acquire()",
        "acquire()",
        "aacquire()",
    ),
    Kind(
        "limiter, shared",
        "weir.Limiter(1, shared=name); held = limit.acquire()",
        "acquire()",
        "aacquire()",
        True,
    ),
    Kind(
        "bucket",
        "weir.TokenBucket(1, per=3600); held = limit.acquire()",
        "acquire()",
        "aacquire()",
    ),
    Kind(
        "bucket, shared",
        "weir.TokenBucket(1, per=3600, shared=name); held = limit.acquire()",
        "acquire()",
        "aacquire()",
        True,
    ),
    Kind("governor", GOVERNOR.format(shared=""), "reserve(5 << 42)", "areserve(5 << 42)"),
    Kind(
        "governor, shared",
        GOVERNOR.format(shared=", shared=name"),
        "reserve(5 << 42)",
        "areserve(5 << 42)",
        True,
    ),
    Kind(
        "watermark",
        "weir.Watermark(1); held = limit.add(1)",
        "drain()",
        "adrain()",
    ),
    # A breaker has nobody wait.
    Kind("breaker", "weir.CircuitBreaker(); held = limit.admit()"),
]
ALL = pytest.mark.parametrize("kind", KINDS, ids=str)
WAITS = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.wait], ids=str)

NAME = f"lifetimes.{os.getpid()}"
HEAD = """
import asyncio, gc, os, threading, time, weakref
import weir
name = %r
limit = %s

def waiting(n):
    until = time.monotonic() + 30
    while limit.stats().waiting < n:
        assert time.monotonic() < until
        time.sleep(0.001)
"""

# A shared bucket that is not full stays for the next program; fill it for ours.
FILL = """
if isinstance(limit, weir.TokenBucket) and limit.shared:
    limit.change(1000000)
    while limit.available < limit.burst:
        time.sleep(0.001)
"""


def program(kind: Kind, body: str) -> str:
    return HEAD % (NAME, kind.make) + body


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """A program that ends while daemon threads wait leaves its shared limit as if it was killed."""
    yield
    for left in Path("/dev/shm").glob(f"weir-*-{NAME}"):
        left.unlink()


def output(kind: Kind, body: str) -> str:
    return output_of(program(kind, body), timeout=60)


@ALL
def test_one_in_a_cycle_is_collected_with_what_it_held(kind: Kind) -> None:
    body = """
class Owner: pass
owner = Owner()
owner.limit, owner.held, owner.owner = limit, held, owner
gone = weakref.ref(owner)
core = weakref.ref(limit)
del limit, held, owner
gc.collect()
print(gone(), core())
"""
    assert output(kind, FILL + body) == "None None\n"


@WAITS
def test_the_program_ends_while_daemon_threads_wait(kind: Kind) -> None:
    body = f"""
for _ in range(3):
    threading.Thread(target=lambda: limit.{kind.wait}, daemon=True).start()
waiting(3)
print("end")
"""
    assert output(kind, body) == "end\n"


@WAITS
def test_the_program_ends_after_a_loop_went_with_its_waiters(kind: Kind) -> None:
    body = f"""
loop = asyncio.new_event_loop()
tasks = [loop.create_task(limit.{kind.await_}) for _ in range(3)]
loop.run_until_complete(asyncio.sleep(0.01))
for task in tasks:
    task.cancel()
loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
loop.close()
if hasattr(held, "release"):
    held.release()  # a shared limiter has a thread that stays in line until then
until = time.monotonic() + 30
while limit.stats().waiting:
    assert time.monotonic() < until
    time.sleep(0.001)
print("end")
"""
    assert output(kind, body) == "end\n"


@WAITS
def test_a_loop_that_is_closed_on_its_waiters_takes_nothing_with_it(kind: Kind) -> None:
    body = f"""
import logging
logging.disable()  # asyncio tells of tasks that were pending
loop = asyncio.new_event_loop()
tasks = [loop.create_task(limit.{kind.await_}) for _ in range(3)]
loop.run_until_complete(asyncio.sleep(0.01))
loop.close()
if hasattr(held, "release"):
    held.release()  # to those of the loop that is gone
gc.collect()
if isinstance(limit, weir.TokenBucket):
    limit.change(1000, per=1)
    print(limit.acquire(timeout=30) and "mine")
elif isinstance(limit, weir.Watermark):
    limit.sub(1)
    limit.drain(timeout=30)
    print("mine")
else:
    limit.{kind.wait[:-1]}{", " if kind.wait[-2] != "(" else ""}timeout=30).release()
    print("mine")
"""

    assert output(kind, body) == "mine\n"


@WAITS
def test_a_fork_while_others_wait_leaves_the_parent_as_it_was(kind: Kind) -> None:
    body = f"""
import warnings
warnings.simplefilter("ignore")
def wait():
    try:
        limit.{kind.wait}
    except weir.ShutDown:
        closed.append(1)
closed = []
threads = [threading.Thread(target=wait) for _ in range(2)]
for thread in threads:
    thread.start()
waiting(2)
child = os.fork()
if child == 0:
    del held, limit
    gc.collect()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert limit.stats().waiting == 2
limit.close()
for thread in threads:
    thread.join(30)
print(len(closed))
"""
    assert output(kind, body) == "2\n"


@ALL
def test_a_child_may_end_as_a_program_does(kind: Kind) -> None:
    body = """
child = os.fork()
if child == 0:
    gc.collect()
    raise SystemExit(0)
print(os.waitpid(child, 0)[1])
"""
    assert output(kind, body) == "0\n"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="older ones share one GIL, and more")
@ALL
def test_a_subinterpreter_has_one_of_its_own(kind: Kind) -> None:
    code = program(kind, FILL)
    out = output_of(
        f"""
        import sys
        if sys.version_info >= (3, 13):
            import _interpreters as interpreters
            config = "legacy"
        else:
            import _xxsubinterpreters as interpreters
            config = False
        for _ in range(3):
            one = (interpreters.create(config) if config else interpreters.create(isolated=False))
            print(interpreters.run_string(one, {code!r}))
            interpreters.destroy(one)
        """
    )
    assert out == "None\n" * 3
