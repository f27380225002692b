"""ThreadPoolExecutor with a bounded backlog.

The executor that people hold is a shell around `_Pool`, which the worker threads share; so that an
executor nobody holds any more is collected, and its threads end when they have run what was
accepted.

    order:   tasks wait in `pending` and start in the order they were accepted
    cancel:  takes the task out of `pending`, so its permit is free at once
    signals: a handler may raise at any call on the main thread.  So what becomes of a future is
             decided in the future first; if it stays in `pending` then, a worker puts it away.
             Under the lock, statements that belong together have no call between them
    idle:    a worker without a task waits for a token in `wake`; there are never more tokens than
             workers that wait, so a cancelled task leaves nothing behind
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.thread import BrokenThreadPool
from typing import Any, TypeVar

from weir._admission import Admission, OnFull
from weir._errors import Dropped, ShutDown
from weir._map import MappingExecutor
from weir._stats import ThreadPoolStats
from weir._weir import BacklogPermit, Queue

__all__ = ["ThreadPoolExecutor"]

T = TypeVar("T")
_Task = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

_LOGGER = logging.getLogger("concurrent.futures")  # where the standard pool reports the same


class _PoolFuture(Future[T]):
    """A future that can leave the line it stands in."""

    def __init__(self, pool: _Pool) -> None:
        super().__init__()
        self._pool = pool
        self._permit = BacklogPermit(pool.permits)
        # The condition's lock: a signal cannot come into its __exit__, as into the condition's.
        self._guard = self._condition._lock  # type: ignore[attr-defined]

    def cancel(self) -> bool:
        """Cancel the task unless it has started; its place in the backlog is free at once."""
        if self._pool.pid != os.getpid():
            return False  # it is the parent's, like the locks
        return self._leave(None, None) or self._state == "CANCELLED_AND_NOTIFIED"

    def _leave(self, error: BaseException | None, heir: BacklogPermit | None) -> bool:
        """Ends before the task has started, cancelled or with an error; False: it is too late.

        The heir gets the permit.
        """
        has_left = False
        try:
            with self._guard:
                if self._state != "PENDING":
                    return False
                has_left = True
                self._exception = error
                self._state = "CANCELLED_AND_NOTIFIED" if error is None else "FINISHED"
            self._pool.put_away(self, heir)  # before the callbacks, which may submit
        finally:
            if has_left:
                try:
                    self._tell_waiters()
                finally:
                    self._invoke_callbacks()  # type: ignore[attr-defined]
        return True

    def _tell_waiters(self) -> None:
        with self._guard:
            self._condition.notify_all()
            for waiter in self._waiters:
                if self._exception is None:
                    waiter.add_cancelled(self)
                else:
                    waiter.add_exception(self)

    def _start(self) -> bool:
        """Whether the task may run now: it has not left."""
        with self._guard:
            return self._state == "PENDING" and self.set_running_or_notify_cancel()


def _reason(future: _PoolFuture[Any]) -> str | None:
    """Why a future that has left was dropped; None: it was cancelled."""
    if future._exception is None:
        return None
    return "oldest" if isinstance(future._exception, Dropped) else "broken"


class _Pool(Admission):
    """What the worker threads share.  `lock` guards everything that changes."""

    def __init__(
        self,
        workers: int,
        max_submit_backlog: int | bool | None,
        on_full: OnFull,
        submit_timeout: float | None,
        name: str | None,
        thread_name_prefix: str,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> None:
        super().__init__(workers, max_submit_backlog, on_full, submit_timeout, name)
        self.thread_name_prefix = thread_name_prefix
        self.initializer = initializer
        self.initargs = initargs
        self.pending: OrderedDict[_PoolFuture[Any], _Task] = OrderedDict()
        self.threads: set[threading.Thread] = set()
        self.idle = 0  # workers that wait, or are about to, and have no token coming
        self.running = 0
        self.wake: Queue[None] = Queue(None, name=name)
        self.closed = False
        self.broken: BaseException | None = None
        self.dropped["broken"] = 0
        self.counter = itertools.count()

    # -- admission

    def check_open(self) -> None:
        if self.broken is not None:
            raise self.broken_error()
        if _exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        if self.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def launch(
        self,
        permit: BacklogPermit,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Future[Any]:
        future: _PoolFuture[Any] = _PoolFuture(self)
        with self.lock:
            self.check_open()
            self.pending[future] = (fn, args, kwargs)
            self.accepted += 1
            try:
                future._permit.take(permit)
                self.find_worker()
            except BaseException:
                if future in self.pending:
                    self.accepted -= 1
                    del self.pending[future]
                future._permit.release()
                raise
        return future

    def find_worker(self) -> None:
        """Under the lock: sees to it that the task that came last will be run."""
        if self.idle:
            try:
                self.wake.put_nowait(None)
            except ShutDown:  # closed just now: that wakes the worker, too
                pass
            finally:
                self.idle -= 1
        elif len(self.threads) < self.workers:
            try:
                self.start_thread()
            except RuntimeError:  # no more threads can be started: those there are will do
                if not self.threads:
                    raise

    def start_thread(self) -> None:
        thread = threading.Thread(
            name=f"{self.thread_name_prefix}_{next(self.counter)}", target=_work, args=(self,)
        )
        self.threads.add(thread)
        try:
            thread.start()
        except BaseException:
            self.threads.discard(thread)  # if it runs nevertheless, it comes back
            raise

    def enrol(self) -> bool:
        """By a worker: whether it is one; not if its start was interrupted and it was replaced."""
        thread = threading.current_thread()
        with self.lock:
            if thread not in self.threads and len(self.threads) == self.workers:
                return False
            self.threads.add(thread)
            return True

    def put_away(self, future: _PoolFuture[Any], heir: BacklogPermit | None) -> None:
        """Takes a future that has left out of the line, unless somebody did; its permit goes on."""
        reason = _reason(future)
        with self.lock:
            if future not in self.pending:
                return
            if heir is None:
                future._permit.release()
            else:
                heir.take(future._permit)
            del self.pending[future]
            if reason is None:
                self.cancelled += 1
            else:
                self.dropped[reason] += 1

    def evict_oldest(self, permit: BacklogPermit) -> bool:
        while True:
            with self.lock:
                future = next(iter(self.pending), None)
            if future is None:
                return False
            if not future._leave(Dropped("oldest"), permit) and future.done():
                self.put_away(future, permit)  # it has left, and was interrupted
            if self.acquire_now(permit):
                return True

    def has_tasks_on_their_way(self) -> bool:
        return not self.closed

    def insiders(self) -> int:
        with self.lock:
            return len(self.threads) if threading.current_thread() in self.threads else 0

    # -- the workers' side

    def next_task(self) -> tuple[_PoolFuture[Any], _Task] | None:
        """The next task, waiting for one; None: there will be no more."""
        while True:
            with self.lock:
                if self.pending:
                    self.running += 1
                    return self.pending.popitem(last=False)
                if self.closed:
                    return None
                self.idle += 1
            try:
                self.wake.get()
            except ShutDown:
                with self.lock:
                    self.idle -= 1
                    self.closed = True

    def end_task(self, future: _PoolFuture[Any]) -> None:
        """The permit is free before the future is done: whoever sees the result can submit."""
        with self.lock:
            self.running -= 1
            self.finished += 1
        future._permit.release()

    def end_left(self, future: _PoolFuture[Any]) -> None:
        """Of a task that a worker took out of the line before whoever cancelled or dropped it."""
        reason = _reason(future)
        with self.lock:
            self.running -= 1
            if reason is None:
                self.cancelled += 1
            else:
                self.dropped[reason] += 1
        future._permit.release()

    # -- ending

    def close(self) -> None:
        """Takes no more tasks.  Without the lock: the garbage collector calls it anywhere."""
        if self.pid != os.getpid():
            return
        self.closed = True
        self.wake.shutdown()
        self.permits.close()

    def cancel_pending(self) -> None:
        while self.pid == os.getpid():
            with self.lock:
                if not self.pending:
                    return
                future = next(iter(self.pending))
            future.cancel()
            self.put_away(future, None)  # if it had left before

    def break_down(self, error: BaseException) -> None:
        """The initializer raised: nothing will ever run here."""
        with self.lock:
            if self.broken is None:
                self.broken = error
            futures = list(self.pending)
        self.close()
        for future in futures:
            try:
                future._leave(self.broken_error(), None)
            except BaseException:  # of a done-callback
                _LOGGER.critical("Exception in worker", exc_info=True)
            self.put_away(future, None)

    def broken_error(self) -> BrokenThreadPool:
        error = BrokenThreadPool(
            "A thread initializer failed, the thread pool is not usable anymore: "
            f"{type(self.broken).__name__}: {self.broken}"
        )
        error.__cause__ = self.broken
        return error

    def join(self) -> None:
        if self.pid != os.getpid():  # the threads, and whoever held the lock, are the parent's
            return
        with self.lock:  # a thread is added and started under it
            threads = [thread for thread in self.threads if thread.ident is not None]
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()


# ---- the worker threads ---------------------------------------------------------------------


def _work(pool: _Pool) -> None:
    try:
        if pool.enrol() and (pool.initializer is None or _initialise(pool, pool.initializer)):
            while (task := pool.next_task()) is not None:
                try:
                    _run_task(pool, *task)
                except BaseException:  # of a done-callback; the worker goes on
                    _LOGGER.critical("Exception in worker", exc_info=True)
                del task  # nothing of it stays with an idle worker
    finally:
        del pool  # the traceback of an exception may refer to this frame


def _initialise(pool: _Pool, initializer: Callable[..., object]) -> bool:
    try:
        initializer(*pool.initargs)
    except BaseException as error:
        _LOGGER.critical("Exception in initializer:", exc_info=True)
        # Without this frame, which refers to the pool, which will refer to the error.
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        pool.break_down(error)
        del pool
        return False
    return True


def _run_task(pool: _Pool, future: _PoolFuture[Any], task: _Task) -> None:
    if not future._start():
        pool.end_left(future)
        return
    fn, args, kwargs = task
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:
        pool.end_task(future)
        future.set_exception(error)
        # The exception's traceback refers to this frame: break the cycle, and keep nothing alive.
        del pool, future, task, fn, args, kwargs
    else:
        pool.end_task(future)
        future.set_result(result)


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
        pool.close()
    for pool in pools:
        pool.join()


def _in_forked_child() -> None:
    global _pools_lock
    _pools_lock = threading.Lock()
    _pools.clear()


threading._register_atexit(_at_exit)  # type: ignore[attr-defined]  # as the standard pool does
os.register_at_fork(after_in_child=_in_forked_child)


# ---- the executor ---------------------------------------------------------------------------


class ThreadPoolExecutor(MappingExecutor):
    """A `concurrent.futures` thread pool that never accepts more than it can hold.

    max_workers         threads, started when needed; default min(32, CPUs + 4)
    thread_name_prefix  of the threads
    initializer         called with `initargs` in each new thread; if it raises, the pool is broken
    max_submit_backlog  tasks that may wait, on top of those that run: True = 2 x max_workers, an
                        int > 0, or None = without bound
    on_full             what submit() does when there is no room:
                        "block"        waits, in line, up to `submit_timeout` seconds
                        "fail"         raises weir.BacklogFull at once
                        "drop_newest"  returns a future that raises weir.Dropped
                        "drop_oldest"  does that to the oldest waiting task, and takes this one
                        "caller_runs"  runs the task in the submitting thread
    submit_timeout      seconds, for "block"; None: as long as it takes
    name                for people who look at it

    Accepted and unfinished tasks are never more than `max_submit_backlog + max_workers`.
    Cancelling a waiting future frees its place at once.
    """

    _names = itertools.count()
    _map_in_batches = False

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_submit_backlog: int | bool | None = True,
        on_full: OnFull = "block",
        submit_timeout: float | None = None,
        name: str | None = None,
    ) -> None:
        if max_workers is None:
            max_workers = min(32, _cpus() + 4)
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._pool = _Pool(
            max_workers,
            max_submit_backlog,
            on_full,
            submit_timeout,
            name,
            thread_name_prefix or f"ThreadPoolExecutor-{next(self._names)}",
            initializer,
            initargs,
        )
        with _pools_lock:
            _pools.add(self._pool)
        weakref.finalize(self, self._pool.close).atexit = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Schedule fn(*args, **kwargs); when there is no room, `on_full` decides.

        Raises RuntimeError (shut down; or it would wait for itself, inside a task of this very
        pool), BrokenThreadPool (the initializer raised), weir.BacklogFull, TimeoutError.  The
        function has not been called then.
        """
        return self._pool.submit(fn, args, kwargs, 3)

    def try_submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T] | None:
        """Schedule fn(*args, **kwargs) if there is room now, else return None.

        Never waits, drops or runs anything, whatever `on_full` says.
        """
        return self._pool.try_submit(fn, args, kwargs)

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
        pool.check_process()
        with pool.lock:
            submitters_waiting, submit_blocked = pool.waits()
            return ThreadPoolStats(
                name=pool.name,
                max_workers=pool.workers,
                workers=sum(thread.is_alive() for thread in pool.threads),
                max_submit_backlog=pool.backlog,
                waiting=len(pool.pending),
                running=pool.running,
                accepted=pool.accepted,
                finished=pool.finished,
                cancelled=pool.cancelled,
                dropped=dict(pool.dropped),
                caller_ran=pool.caller_ran,
                refused=pool.refused,
                submitters_waiting=submitters_waiting,
                submit_blocked=submit_blocked,
                is_shutdown=pool.closed,
            )

    # -- what map needs

    def _submit_wait(
        self, fn: Callable[..., T], args: tuple[Any, ...], timeout: float | None
    ) -> Future[T]:
        return self._pool.submit_wait(fn, args, timeout, 4)

    def _try_submit(self, fn: Callable[..., T], /, *args: Any) -> Future[T] | None:
        return self._pool.try_submit(fn, args, {}, counts=False)

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


def _cpus() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) or 1
