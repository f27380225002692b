"""bounded(): the backlog of weir's executors around any executor.

    permit: taken before `executor.submit`, given back when the future is done, or if submit raises;
            meanwhile the task's entry holds it
    future: the executor's own; weir adds one done-callback

What cannot be done to a foreign future: make it raise `Dropped`.  "drop_oldest" therefore cancels
the oldest one that lets itself be cancelled (its result is CancelledError), and if none does, drops
the new task instead.

What the bound does not reach: an executor may keep a cancelled task, with its arguments, until a
worker comes to it (the standard ones do).  Under "drop_oldest" that is a buffer behind the bound;
weir's own executors let go at once.
"""

from __future__ import annotations

import concurrent.futures
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, TypeVar

from weir._admission import Admission, OnFull
from weir._map import MappingExecutor
from weir._stats import BoundedStats
from weir._weir import BacklogPermit, Permits

if TYPE_CHECKING:
    from weir.strategies import Strategy

__all__ = ["BoundedExecutor", "bounded"]

T = TypeVar("T")


class _Inside:
    """A task that was submitted and is not completed; under the lock of its _Bound."""

    __slots__ = ("future", "heir", "launcher", "permit")

    def __init__(self, permits: Permits) -> None:
        self.permit = BacklogPermit(permits)
        self.future: Future[Any] | None = None  # None: submit has not returned yet
        self.launcher: int | None = threading.get_ident()  # until the launch is over
        self.heir: BacklogPermit | None = None  # of the thread that tries to cancel it


class _Bound(Admission):
    """The permits around an executor."""

    def __init__(
        self,
        executor: Executor,
        max_submit_backlog: int | bool | None,
        on_full: OnFull,
        submit_timeout: float | None,
    ) -> None:
        super().__init__(_workers_of(executor), max_submit_backlog, on_full, submit_timeout)
        self.executor = executor
        self.inside: dict[_Inside, None] = {}
        # Those that may let themselves be cancelled, oldest first; each is tried once.
        self.cancellable: OrderedDict[_Inside, None] = OrderedDict()
        self.closed = False
        # Threads that were seen to complete futures.
        self.completers: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    def check_open(self) -> None:
        if self.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def launch(
        self,
        permit: BacklogPermit,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Future[Any]:
        entry = _Inside(self.permits)
        try:
            with self.lock:
                self.check_open()
                self.accepted += 1
                self.inside[entry] = None
            entry.permit.take(permit)
            # Not under the lock: it may wait for a completion, which needs the lock.
            entry.future = self.executor.submit(fn, *args, **kwargs)
            entry.future.add_done_callback(lambda done: self.on_done(entry, done))
            entry.launcher = None
            with self.lock:
                if entry in self.inside:
                    self.cancellable[entry] = None
        except BaseException:
            self.launch_failed(entry)
            raise
        if entry in self.inside and entry.future.done():
            self.on_done(entry, entry.future)  # a signal may have interrupted the callback
        return entry.future

    def launch_failed(self, entry: _Inside) -> None:
        future = entry.future
        if future is not None:  # a signal, when the executor had the task already
            future.add_done_callback(lambda done: self.on_done(entry, done))
            return
        entry.permit.release()
        with self.lock:
            if entry in self.inside:
                self.accepted -= 1
                del self.inside[entry]

    def on_done(self, entry: _Inside, future: Future[Any]) -> None:
        """In the thread that completed or cancelled it; nothing the second time."""
        if self.pid != os.getpid():
            return
        cancelled = future.cancelled()
        with self.lock:
            # No call before the permit is free: there a signal handler could raise.
            if entry not in self.inside:
                return
            del self.inside[entry]
            if entry in self.cancellable:
                del self.cancellable[entry]
            if cancelled and entry.heir is not None:
                self.dropped["oldest"] += 1
                entry.heir.take(entry.permit)
                return
            if cancelled:
                self.cancelled += 1
            else:
                self.finished += 1
            entry.permit.release()
            if not cancelled and entry.launcher != threading.get_ident():  # else by the launch
                self.completers.add(threading.current_thread())

    def evict_oldest(self, permit: BacklogPermit) -> bool:
        while True:
            with self.lock:
                entry = next(iter(self.cancellable), None)
                if entry is None:
                    return False
                del self.cancellable[entry]
                entry.heir = permit
            assert entry.future is not None
            try:
                cancelled = entry.future.cancel()
            finally:
                entry.heir = None
            # It has the permit by now, unless the task reports its end in its own time.
            if cancelled and self.acquire_now(permit):
                return True

    def insiders(self) -> int:
        """A thread pool's own threads; of other executors, the thread that completes futures."""
        threads = getattr(self.executor, "_threads", None)
        if isinstance(threads, (set, frozenset)):
            return len(threads) if threading.current_thread() in threads else 0
        with self.lock:
            return 1 if threading.current_thread() in self.completers else 0

    def close(self) -> None:
        self.closed = True
        self.permits.close()

    def cancel_inside(self) -> None:
        with self.lock:
            entries = list(self.inside)
        for entry in entries:
            if entry.future is not None:
                entry.future.cancel()


def _workers_of(executor: Executor) -> int:
    workers = getattr(executor, "_max_workers", None)
    if isinstance(workers, int) and workers > 0:
        return workers
    return os.cpu_count() or 1


class BoundedExecutor(MappingExecutor):
    """Any executor, with weir's bound on what is submitted; made by `weir.bounded`."""

    def __init__(
        self,
        executor: Executor,
        max_submit_backlog: int | bool | None = True,
        on_full: OnFull | Strategy = "block",
        submit_timeout: float | None = None,
    ) -> None:
        if not callable(getattr(executor, "submit", None)):
            raise TypeError(f"bounded() needs an executor with a submit method, not {executor!r}")
        on_full, submit_timeout = self._keep_to(on_full, submit_timeout)
        self._bound = _Bound(executor, max_submit_backlog, on_full, submit_timeout)
        self._map_in_batches = not isinstance(
            executor, concurrent.futures.ThreadPoolExecutor
        ) and not hasattr(executor, "_threads")

    @property
    def executor(self) -> Executor:
        """The executor inside."""
        return self._bound.executor

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Submit fn(*args, **kwargs) to the executor; when there is no room, `on_full` decides.

        Raises weir.BacklogFull, TimeoutError, RuntimeError (shut down; or it would wait for
        itself, in a done-callback) and whatever the executor's own submit raises.  The function
        has not been called then.
        """
        return self._bound.submit(fn, args, kwargs, 3)

    async def _submit_async(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[T]:
        return await self._bound.submit_async(fn, args, kwargs)

    def try_submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T] | None:
        """Submit fn(*args, **kwargs) if there is room now, else return None."""
        return self._bound.try_submit(fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks, and shut the executor down.

        cancel_futures works with executors that do not know it, too: what can be cancelled is.
        """
        if self._bound.pid != os.getpid():
            return  # a forked child has none of the workers
        self._bound.close()
        if cancel_futures:
            self._bound.cancel_inside()
        self._bound.executor.shutdown(wait=wait)

    def stats(self) -> BoundedStats:
        """Everything that is counted, at one instant."""
        bound = self._bound
        bound.check_process()
        with bound.lock:
            submitters_waiting, submit_blocked = bound.waits()
            return BoundedStats(
                max_workers=bound.workers,
                max_submit_backlog=bound.backlog,
                inside=len(bound.inside),
                accepted=bound.accepted,
                completed=bound.finished,
                cancelled=bound.cancelled,
                dropped=dict(bound.dropped),
                caller_ran=bound.caller_ran,
                refused=bound.refused,
                submitters_waiting=submitters_waiting,
                submit_blocked=submit_blocked,
                is_shutdown=bound.closed,
            )

    def __repr__(self) -> str:
        bound = self._bound
        backlog = "unbounded" if bound.backlog is None else bound.backlog
        return (
            f"<weir.bounded {bound.executor!r}: {bound.workers} workers, backlog {backlog}, "
            f"on_full={bound.on_full!r}{', shut down' if bound.closed else ''}>"
        )

    def _submit_wait(
        self, fn: Callable[..., T], args: tuple[Any, ...], timeout: float | None
    ) -> Future[T]:
        return self._bound.submit_wait(fn, args, timeout, 4)

    def _try_submit(self, fn: Callable[..., T], /, *args: Any) -> Future[T] | None:
        return self._bound.try_submit(fn, args, {}, counts=False)

    @property
    def _map_window(self) -> int:
        bound = self._bound
        return bound.workers + (2 * bound.workers if bound.backlog is None else bound.backlog)

    @property
    def _max_workers(self) -> int:
        return self._bound.workers


def bounded(
    executor: Executor,
    max_submit_backlog: int | bool | None = True,
    on_full: OnFull | Strategy = "block",
    submit_timeout: float | None = None,
) -> BoundedExecutor:
    """Put a bound on what is submitted to any executor and not completed yet.

    Works with whatever looks like a `concurrent.futures.Executor`: the standard pools, loky,
    mpi4py, `dask.distributed.Client.get_executor()`.  Options as in `weir.ThreadPoolExecutor`; the
    workers are `executor._max_workers`, or the CPUs of this machine where it does not say.

    "drop_oldest" cancels the oldest future that can still be cancelled: its result is
    CancelledError, for only the executor could make it weir.Dropped.  Where none can be, the new
    task is dropped, and its future raises weir.Dropped("newest").  The standard pools keep a
    cancelled task and its arguments until a worker comes to it; weir's let go at once.

    A submit in a done-callback would often wait for the very thread it runs in; where that is so
    it raises RuntimeError.  What is submitted to `executor` directly is not counted.
    """
    return BoundedExecutor(executor, max_submit_backlog, on_full, submit_timeout)
