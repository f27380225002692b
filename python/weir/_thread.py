"""ThreadPoolExecutor with a bounded backlog.

The executor that people hold is a shell around `_Pool`, which the worker threads share; so that an
executor nobody holds any more is collected, and its threads end when they have run what was
accepted.  Both have their hearts in C (`ext/thread_pool.c`): submitting, the line, the workers'
loop.  Here is what happens once: options, starting threads, initializers, the end.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.thread import BrokenThreadPool
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from weir._admission import OnFull, parse_backlog, parse_on_full, warn_in_event_loop
from weir._errors import Timeout
from weir._map import MappingExecutor
from weir._stats import ThreadPoolStats
from weir._weir import ThreadExecutor, ThreadPool, wait

if TYPE_CHECKING:
    from weir._memory import MemoryGovernor
    from weir.strategies import Strategy

__all__ = ["ThreadPoolExecutor"]

T = TypeVar("T")

_LOGGER = logging.getLogger("concurrent.futures")  # where the standard pool reports the same


class _Pool(ThreadPool):
    """What the worker threads share."""

    thread_name_prefix: str
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    counter: itertools.count[int]

    def new_thread(self) -> threading.Thread:
        """A thread for one more worker; `start()` is called next."""
        name = f"{self.thread_name_prefix}_{next(self.counter)}"
        return threading.Thread(name=name, target=_work, args=(self,))

    def broken_error(self) -> BrokenThreadPool:
        error = BrokenThreadPool(
            "A thread initializer failed, the thread pool is not usable anymore: "
            f"{type(self.broken).__name__}: {self.broken}"
        )
        error.__cause__ = self.broken
        return error

    def warn_in_event_loop(self) -> bool:
        """A submit() is about to wait: its caller is to blame, if there is a loop."""
        return warn_in_event_loop(3)

    def join(self) -> None:
        if self.pid != os.getpid():  # the threads are the parent's
            return
        for thread in list(self.threads):
            if thread is not threading.current_thread() and thread.ident is not None:
                thread.join()


# ---- the worker threads ---------------------------------------------------------------------


def _work(pool: _Pool) -> None:
    try:
        if not pool.enrol(threading.current_thread()):
            return None
        if pool.initializer is not None and not _initialise(pool, pool.initializer):
            return None
        while True:
            try:
                return pool.work()
            except BaseException:  # of a done-callback; the worker goes on
                _LOGGER.critical("Exception in worker", exc_info=True)
    finally:
        del pool  # the traceback of an exception may refer to this frame


def _initialise(pool: _Pool, initializer: Callable[..., object]) -> bool:
    try:
        initializer(*pool.initargs)
    except BaseException as error:
        _LOGGER.critical("Exception in initializer:", exc_info=True)
        # Without this frame, which refers to the pool, which will refer to the error.
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        try:
            pool.break_down(error)
        except BaseException:  # of a done-callback
            _LOGGER.critical("Exception in worker", exc_info=True)
        del pool
        return False
    return True


# ---- interpreter exit and fork --------------------------------------------------------------

_pools: weakref.WeakSet[_Pool] = weakref.WeakSet()
_pools_lock = threading.Lock()
_exiting = False


def _at_exit() -> None:
    """Before the interpreter waits for threads: what was accepted is run, then they end."""
    global _exiting
    with _pools_lock:
        _exiting = True
        pools = list(_pools)
    for pool in pools:
        pool.close(True)
    for pool in pools:
        pool.join()


def _in_forked_child() -> None:
    global _pools_lock
    _pools_lock = threading.Lock()
    _pools.clear()


threading._register_atexit(_at_exit)  # type: ignore[attr-defined]  # as the standard pool does
os.register_at_fork(after_in_child=_in_forked_child)


# ---- the executor ---------------------------------------------------------------------------


class ThreadPoolExecutor(ThreadExecutor, MappingExecutor):
    """A `concurrent.futures` thread pool that never accepts more than it can hold.

    max_workers         threads, started when needed; default min(32, CPUs + 4)
    thread_name_prefix  of the threads
    initializer         called with `initargs` in each new thread; if it raises, the pool is broken
    max_submit_backlog  tasks that may wait, on top of those that run: True = 2 x max_workers;
                        "auto" = the least with which no worker runs dry while producers wait (see
                        stats()), up to what is finished in 20 ms; an int > 0; None = without bound
    on_full             what submit() does when there is no room:
                        "block"        waits, in line, up to `submit_timeout` seconds
                        "fail"         raises weir.BacklogFull at once
                        "drop_newest"  returns a future that raises weir.Dropped
                        "drop_oldest"  does that to the oldest waiting task, and takes this one
                        "caller_runs"  runs the task in the submitting thread
                        or a strategy of weir.strategies
    submit_timeout      seconds, for "block"; None: as long as it takes
    name                for people who look at it
    memory              a `weir.MemoryGovernor`: a task runs only with memory reserved for it, given
                        back when it has run.  Those that wait for memory count as waiting, and can
                        be cancelled.  "caller_runs" waits for memory, too, and raises
                        weir.Overloaded when the governor sheds
    memory_per_task     bytes that a task takes (an int, "400M"); memory= needs it, because what one
                        of the threads of a process takes cannot be measured

    Accepted and unfinished tasks are never more than `max_submit_backlog + max_workers`.
    Cancelling a waiting future frees its place at once.

    With memory=, a task that waits for another one of the same pool, or for room in it, keeps its
    memory meanwhile, and may wait for ever: use `try_submit()` there.  Once the governor is closed,
    tasks run without it.  When the interpreter ends, tasks that there is no memory for run without
    it, one at a time.
    """

    _pool: _Pool

    _names = itertools.count()
    _map_in_batches = False

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_submit_backlog: int | bool | Literal["auto"] | None = True,
        on_full: OnFull | Strategy = "block",
        submit_timeout: float | None = None,
        name: str | None = None,
        memory: MemoryGovernor | None = None,
        memory_per_task: int | str | None = None,
    ) -> None:
        if max_workers is None:
            max_workers = min(32, _cpus() + 4)
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        task_bytes = 0
        if memory is not None or memory_per_task is not None:
            task_bytes = _parse_memory(memory, memory_per_task)
        on_full, submit_timeout = self._keep_to(on_full, submit_timeout)
        self._on_full, self._timeout = parse_on_full(on_full, submit_timeout), submit_timeout
        pool = self._pool = _Pool(
            max_workers,
            "auto"
            if max_submit_backlog == "auto"
            else parse_backlog(max_submit_backlog, max_workers),
            self._on_full,
            submit_timeout,
            name,
            memory,
            task_bytes,
        )
        pool.thread_name_prefix = thread_name_prefix or f"ThreadPoolExecutor-{next(self._names)}"
        pool.initializer = initializer
        pool.initargs = initargs
        pool.counter = itertools.count()
        with _pools_lock:
            _pools.add(pool)
            if _exiting:
                pool.close(True)
        weakref.finalize(self, pool.close).atexit = False

    async def _submit_async(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[T]:
        if self._on_full not in ("block", "caller_runs"):
            return self.submit(fn, *args, **kwargs)
        pool = self._pool
        try:
            return await wait(lambda ready: pool.pend(ready, fn, *args, **kwargs), self._timeout)
        except TimeoutError:
            pool.count_refused()
            raise Timeout(
                f"no room within {self._timeout} s: the backlog is full "
                f"(max_submit_backlog={pool.backlog}, workers={pool.workers})"
            ) from None

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks; those accepted still run, unless cancel_futures.

        wait=True returns when all threads have ended.  submit() raises RuntimeError from now on,
        also where it waits for room.
        """
        self._pool.close()  # this and the others do nothing in a forked child
        if cancel_futures:
            self._pool.cancel_pending()
        if wait:
            self._pool.join()

    def stats(self) -> ThreadPoolStats:
        """Everything the pool counts, at one instant."""
        pool = self._pool
        counts = pool.counts()
        return ThreadPoolStats(
            name=pool.name,
            max_workers=pool.workers,
            workers=sum(thread.is_alive() for thread in list(pool.threads)),
            max_submit_backlog=pool.backlog,
            backlog_why=pool.backlog_why,
            **counts,
        )

    def __repr__(self) -> str:
        pool = self._pool
        backlog = "unbounded" if pool.backlog is None else pool.backlog
        name = f" {pool.name!r}" if pool.name else ""
        return (
            f"<weir.ThreadPoolExecutor{name}: {pool.workers} workers, backlog {backlog}, "
            f"on_full={self._on_full!r}{', shut down' if pool.closed else ''}>"
        )

    # -- what map needs

    @property
    def _map_window(self) -> int:
        backlog = self._pool.backlog
        return self._pool.workers + (2 * self._pool.workers if backlog is None else backlog)

    # -- what people look at in the standard pool

    @property
    def _max_workers(self) -> int:
        return self._pool.workers

    @property
    def _threads(self) -> set[threading.Thread]:
        return self._pool.threads

    @property
    def _shutdown(self) -> bool:
        return self._pool.closed

    @property
    def _broken(self) -> bool:
        return self._pool.broken is not None


def _parse_memory(memory: MemoryGovernor | None, memory_per_task: int | str | None) -> int:
    from weir import _memory

    _memory.core_of(memory)
    if memory is None:
        raise ValueError("'memory_per_task' needs memory=, a weir.MemoryGovernor")
    if memory_per_task is None:
        raise ValueError(
            '\'memory\' needs memory_per_task=, bytes (an int > 0, "512M", "2GiB"): what one of '
            "the threads of a process takes cannot be measured (that of a process can: "
            "weir.ProcessPoolExecutor learns it)"
        )
    return _memory.parse_bytes(memory_per_task, "memory_per_task")


def _cpus() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) or 1
