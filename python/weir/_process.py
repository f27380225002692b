"""ProcessPoolExecutor: the standard executor's interface on libweir's bounded process pool.

The pool (``_weir.Pool``) does the flow control.  One thread per executor collects what the workers
reply and completes the futures; it refers to the pool and to ``_Workers``, never to the executor,
so that an executor nobody refers to any more can shut down.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from weir import _transfer, _weir, _worker
from weir._admission import OnFull, parse_backlog, parse_on_full, run, warn_in_event_loop
from weir._died import WorkerDied, WorkerNotStarted
from weir._errors import BacklogFull, Dropped, Timeout
from weir._map import BatchFuture, MappingExecutor
from weir._stats import ProcessPoolStats
from weir._weir import LazyFuture

if TYPE_CHECKING:
    from weir._memory import MemoryGovernor
    from weir.strategies import Strategy

T = TypeVar("T")

_LOGGER = logging.getLogger("concurrent.futures")  # where the standard pool reports the same

# weir_outcome
_REPLIED, _DIED, _NOT_STARTED, _NO_MEMORY = range(4)


class _TaskFuture(LazyFuture[T]):
    """A future that asks the pool whether its task has started."""

    _pool: _weir.Pool | None = None  # None: not in the pool
    _shared: tuple[_weir.SharedBuffer, ...] = ()  # named in the task; kept until it is done
    _id = 0

    def cancel(self) -> bool:
        pool = self._pool
        if pool is None or self.done():
            return super().cancel()
        pool.cancel(self._id, self)  # calls _let_go before it returns, if no worker has the task
        return self.cancelled()

    def running(self) -> bool:
        pool = self._pool
        if pool is not None and not self.done():
            return pool.is_running(self._id)
        return super().running()


class _BatchOfOne(_TaskFuture[T], BatchFuture):
    """A batch that is a plain task: its result is the only one of the list."""

    def set_result(self, result: Any) -> None:
        super().set_result([result])  # type: ignore[arg-type]

    def set_exception(self, exception: BaseException | None) -> None:
        if exception is None:
            super().set_exception(None)
        else:
            super().set_result([_weir.Failure(exception)])  # type: ignore[arg-type]


_MISSING = object()


def _load_item(message: memoryview) -> Any:
    try:
        return _transfer.load(message)
    except _transfer.SharedMemoryGone as error:
        raise WorkerDied(error.pid) from None


class _BatchFuture(_TaskFuture[list[Any]], BatchFuture):
    """The results of a batch that the pool takes apart: they come in parts, in any order."""

    def __init__(self, items: int, errors: dict[int, Exception]) -> None:
        super().__init__()
        self._results = [_MISSING] * items
        self._errors = errors  # of items that could not be pickled
        self.seconds = 0.0  # that its items ran, so far

    def take_part(
        self,
        first: int,
        items: int,
        outcome: int,
        data: memoryview,
        error: Callable[[], BaseException],
    ) -> None:
        if outcome in (_REPLIED, _DIED):
            results = _weir.load_results(data, items, first, _load_item, self._errors)
            self._results[first : first + items] = results
            if outcome == _DIED:
                self._results[first + items] = _weir.Failure(error())
        else:
            self._results[first : first + items] = [_weir.Failure(error())] * items

    def end(self, reason: BaseException) -> None:
        """No more will come; what is missing has that reason."""
        if self.report is not None:
            self.report(self.seconds)
        missing = _weir.Failure(reason)
        self.set_result([missing if r is _MISSING else r for r in self._results])


def _failed(error: Exception) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def _with_error(future: _TaskFuture[T], error: Exception) -> _TaskFuture[T]:
    future.set_exception(error)
    return future


def _tell_waiters(future: Future[Any]) -> None:
    """Cancelled -> cancelled and notified, once."""
    with future._condition:
        if future._state == "CANCELLED":
            future.set_running_or_notify_cancel()


_CANCELS = ("cancelled", "discarded")  # the latter: shutdown(cancel_futures=True)


def _let_go(future: Future[Any], reason: str) -> None:
    """The pool has let go of a task that no worker has started.

    Called again if a signal handler or a callback raised in the middle of it.
    """
    if isinstance(future, _BatchFuture) and any(r is not _MISSING for r in future._results):
        if not future.done():  # a part was left in line
            future.end(CancelledError() if reason in _CANCELS else Dropped(reason))
    elif reason in _CANCELS:
        try:
            Future.cancel(future)
        finally:
            _tell_waiters(future)
    elif not future.done():
        future.set_exception(Dropped(reason))
    if isinstance(future, _TaskFuture):
        future._pool = None
        future._shared = ()


def _backlog_code(backlog: int | Literal["auto"] | None) -> int:
    if backlog is None:
        return -1
    return -2 if backlog == "auto" else backlog


def _parse_memory(
    memory: MemoryGovernor | None,
    memory_per_task: int | str | None,
    max_worker_rss: int | str | None,
) -> tuple[Any, int, int]:
    """What the pool needs of the three arguments."""
    from weir import _memory

    governor = _memory.core_of(memory)
    if memory_per_task is not None and memory is None:
        raise ValueError("'memory_per_task' needs memory=, a weir.MemoryGovernor")
    task_bytes = rss = 0
    if memory_per_task is not None:
        task_bytes = _memory.parse_bytes(memory_per_task, "memory_per_task")
    if max_worker_rss is not None:
        rss = _memory.parse_bytes(max_worker_rss, "max_worker_rss")
    return governor, task_bytes, rss


def _kind_of(fn: object) -> int:
    from weir import _memory

    return _memory.kind_of(fn)


def _preload_worker() -> None:
    """Lets the fork server, if it does not run yet, import what each worker would."""
    server: Any = forkserver._forkserver
    modules = list(server._preload_modules)
    if server._forkserver_pid is None and _worker.__name__ not in modules:
        server.set_forkserver_preload([*modules, _worker.__name__])


class _Workers:
    """Starts and reaps the worker processes of one pool; called by its collecting thread."""

    def __init__(
        self,
        context: BaseContext,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> None:
        self.context = context
        self.initializer = initializer
        self.initargs = initargs
        self.processes: dict[int, BaseProcess] = {}  # by process id
        self.seats: dict[int, int] = {}  # the process id of each seat
        self.start_error: str | None = None  # why the last start failed

    def start(self, memory_fd: int, bell_fd: int, parent_fd: int, seat: int) -> int:
        ticket = _worker.Ticket(memory_fd, bell_fd, parent_fd, seat)
        process = self.context.Process(  # type: ignore[attr-defined]
            target=_worker.main, args=(ticket, self.initializer, self.initargs)
        )
        # The child inherits the mask, and lets Ctrl-C through when it can deal with it.  What the
        # resource tracker does to the mask when it starts must not come between.
        method = self.context.get_start_method(allow_none=False)
        if method != "fork":
            resource_tracker.ensure_running()
        if method == "forkserver":
            _preload_worker()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        except BaseException:  # an initializer that cannot be pickled, no memory for a process
            self.start_error = traceback.format_exc()
            return -1
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.start_error = None
        self.processes[process.pid] = process
        self.seats[seat] = process.pid
        return process.pid  # type: ignore[no-any-return]

    def reap(self, seat: int) -> int | None:
        pid = self.seats.pop(seat, None)
        if pid is None:
            return None
        process = self.processes.pop(pid)
        process.join()
        return process.exitcode  # None: another thread of multiprocessing reaped it


# ---- the collecting thread ----------------------------------------------------------------------


def _worker_died(exit: tuple[int, int, int, int, int]) -> WorkerDied:
    pid, code, signum, peak_rss, oom = exit
    return WorkerDied(
        pid,
        code if code >= 0 else None,
        signum or None,
        peak_rss or None,
        bool(oom) if oom >= 0 else None,
    )


def _not_started(
    data: memoryview, exit: tuple[int, int, int, int, int], start_error: str | None
) -> WorkerNotStarted:
    if data:
        text = bytes(data).decode(errors="replace")
        return WorkerNotStarted(f"the initializer of the worker processes failed:\n\n{text}")
    if start_error is not None:
        return WorkerNotStarted(f"no worker process could be started:\n\n{start_error}")
    pid, code, signum, _peak_rss, _oom = exit
    if not pid:
        return WorkerNotStarted("no worker process could be started: out of memory or descriptors")
    how = f"signal {signum}" if signum else f"exit code {code}"
    return WorkerNotStarted(
        f"the worker processes end ({how}) before they are ready, again and again; "
        "with the start methods spawn and forkserver the main module must be importable, and "
        'what starts the pool must be under `if __name__ == "__main__":`'
    )


def _error_of(
    outcome: int,
    data: memoryview,
    exit: tuple[int, int, int, int, int] | None,
    workers: _Workers,
) -> Exception:
    """Why there is no reply."""
    if outcome == _NO_MEMORY:
        return MemoryError("the task or its result did not fit into the machine's shared memory")
    assert exit is not None
    if outcome == _DIED:
        return _worker_died(exit)
    return _not_started(data, exit, workers.start_error)


def _complete(
    future: Future[Any],
    outcome: int,
    status: int,
    data: memoryview,
    exit: tuple[int, int, int, int, int] | None,
    workers: _Workers,
) -> None:
    """Gives a future its result or exception."""
    if outcome == _REPLIED:
        try:
            value = _weir.load_plain(data) if status == _worker.PLAIN else _load_item(data)
        except BaseException as error:
            error.__cause__ = None
            future.set_exception(error)
        else:
            if status == _worker.EXCEPTION:
                future.set_exception(value)
            else:
                future.set_result(value)
    else:
        future.set_exception(_error_of(outcome, data, exit, workers))


def _take_part(
    future: _BatchFuture,
    outcome: int,
    data: memoryview,
    exit: tuple[int, int, int, int, int] | None,
    seconds: float,
    part: tuple[int, int, bool],
    workers: _Workers,
) -> bool:
    """Of a batch; whether it was the last."""
    first, items, last = part
    future.seconds += seconds
    try:
        with data:
            future.take_part(
                first, items, outcome, data, lambda: _error_of(outcome, data, exit, workers)
            )
    except BaseException:  # no memory for the results: they count as never done
        _LOGGER.exception("exception while reading results of %r", future)
    return last


def _collect(
    pool: _weir.Pool, workers: _Workers, started: threading.Event, early_workers: int
) -> None:
    """The thread's life: until the pool is closed, its tasks done and its workers gone."""
    pool.start_workers(early_workers)
    started.set()
    while True:
        batch = pool.collect()  # those that it has not completed itself
        if batch is None:
            return
        future = data = part = None
        for future, outcome, status, data, seconds, exit, part in batch:
            if part is not None and not _take_part(
                future, outcome, data, exit, seconds, part, workers
            ):
                continue
            # A callback may submit one follow-up without waiting for itself: it takes over the
            # permit of the task that has just ended, so that one is given back after it.
            followed = bool(future._done_callbacks)
            if not followed:
                pool.settle()
            try:
                if part is not None:
                    future.end(CancelledError())
                else:
                    if isinstance(future, _BatchOfOne) and future.report is not None:
                        future.report(seconds)
                    with data:
                        _complete(future, outcome, status, data, exit, workers)
                future._pool = None  # not before: until it is done, cancel() has to ask the pool
                if future._shared:
                    future._shared = ()
            except BaseException:  # SystemExit of a callback; a state set by the user
                _LOGGER.exception("exception while completing %r", future)
            if followed:
                pool.settle()
        del batch, future, data, part  # do not keep results alive while waiting


# ---- at exit ------------------------------------------------------------------------------------

_collectors: weakref.WeakKeyDictionary[threading.Thread, _weir.Pool] = weakref.WeakKeyDictionary()
_collectors_lock = threading.Lock()
_exiting = False


def _in_forked_child() -> None:
    global _collectors_lock
    _collectors_lock = threading.Lock()
    _collectors.clear()


def _at_exit() -> None:
    """Lets what was accepted finish, as the standard executor does; Ctrl-C then kills it."""
    global _exiting
    with _collectors_lock:
        _exiting = True
        collectors = list(_collectors.items())
    for _thread, pool in collectors:
        pool.close()
    try:
        for thread, _pool in collectors:
            thread.join()
    except BaseException:
        for _thread, pool in collectors:
            pool.kill()
        raise


threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
os.register_at_fork(after_in_child=_in_forked_child)


# ---- the executor -------------------------------------------------------------------------------


class ProcessPoolExecutor(MappingExecutor):
    """A drop-in for `concurrent.futures.ProcessPoolExecutor` whose backlog is bounded.

    max_workers          worker processes at most; default: the CPUs this process may use
    mp_context           how processes start, from `multiprocessing.get_context`.  With "fork" all
                         workers start at the first submit, in its thread; one that is replaced
                         later is forked while other threads may hold locks, so a program with
                         many threads is better off with "forkserver".  The others start a worker
                         when there is work for it.
    initializer, initargs    called in each worker before its first task
    max_tasks_per_child  a worker is replaced after so many tasks
    max_submit_backlog   tasks accepted and not started: True is twice the workers, "auto" the least
                         with which no worker runs dry while producers wait (see stats()), up to
                         20 ms of work for each worker or 64 MiB of payloads; an int > 0 that
                         many, None unbounded
    on_full              what `submit` does when the backlog is full: "block", "fail" (raises
                         BacklogFull), "drop_newest", "drop_oldest" (the dropped task's future
                         raises Dropped), "caller_runs"; or a strategy of weir.strategies
    submit_timeout       seconds that "block" waits before it raises TimeoutError; None: for ever
    retries              how often a task is run again after the worker that ran it has died
    memory               a `weir.MemoryGovernor`: a worker runs a task only with memory reserved for
                         it.  Those that wait for memory count as waiting
    memory_per_task      bytes that a task takes (an int, "400M"); None: learned for each function
                         from what its workers took at their peaks.  Until one call of a function
                         has ended, it runs when nothing else does
    max_worker_rss       bytes (an int, "2GiB"): a worker that has more resident when a task has
                         ended is replaced before its next one
    name                 shown in `repr` and `stats`

    Large data travels through shared memory, not through a pipe: NumPy arrays, bytes, bytearray,
    memoryview and whatever else gives pickle 5 buffers, from 64 KiB on.  An array is copied once on
    the way to a worker and once on the way back, or not at all when the task returns its argument.
    As in the standard library what arrives is writable if what was sent was, and writes stay on
    their side.  A received array keeps its memory until the last view of it is gone; what results
    the program holds is not bounded here.  Data that is born in a `SharedBuffer` or `shared_array`
    is not copied, and both sides see what each writes.

    A dead worker fails (or retries) the one task it was running and is replaced; the pool never
    breaks.  A task may be cancelled until a worker starts it.  All methods are thread-safe.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        max_submit_backlog: int | bool | Literal["auto"] | None = True,
        on_full: OnFull | Strategy = "block",
        submit_timeout: float | None = None,
        retries: int = 0,
        memory: MemoryGovernor | None = None,
        memory_per_task: int | str | None = None,
        max_worker_rss: int | str | None = None,
        name: str | None = None,
    ) -> None:
        if max_workers is None:
            max_workers = len(os.sched_getaffinity(0))
        if not isinstance(max_workers, int) or isinstance(max_workers, bool):
            raise TypeError(f"max_workers must be an int, not {max_workers!r}")
        if not 0 < max_workers <= 4096:
            raise ValueError(
                f"max_workers must be greater than 0 and at most 4096, not {max_workers}"
            )
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
        if not isinstance(retries, int) or isinstance(retries, bool) or not 0 <= retries < 2**31:
            raise ValueError(f"retries must be an int >= 0, not {retries!r}")
        if mp_context is not None and not isinstance(mp_context, BaseContext):
            raise TypeError(
                "mp_context must be a context from multiprocessing.get_context(...), "
                f"not {mp_context!r}"
            )
        governor = task_bytes = rss = None
        if memory is not None or memory_per_task is not None or max_worker_rss is not None:
            governor, task_bytes, rss = _parse_memory(memory, memory_per_task, max_worker_rss)
        self._memory = memory
        self._learns = memory is not None and memory_per_task is None
        self._max_workers = max_workers
        self._backlog: int | Literal["auto"] | None
        if max_submit_backlog == "auto":
            self._backlog = "auto"
        else:
            self._backlog = parse_backlog(max_submit_backlog, max_workers)
        on_full, submit_timeout = self._keep_to(on_full, submit_timeout)
        self._on_full = parse_on_full(on_full, submit_timeout)
        self._submit_timeout = submit_timeout
        self._name = name
        self._mp_context = mp_context if mp_context is not None else multiprocessing.get_context()
        self._workers = _Workers(self._mp_context, initializer, initargs)
        self._pool = _weir.Pool(
            workers=max_workers,
            backlog=_backlog_code(self._backlog),
            overflow="fail" if on_full == "caller_runs" else on_full,
            retries=retries,
            tasks_per_worker=max_tasks_per_child or 0,
            start=self._workers.start,
            reap=self._workers.reap,
            on_drop=_let_go,
            future_type=_TaskFuture,
            load=pickle.loads,
            governor=governor,
            task_bytes=task_bytes or 0,
            max_worker_rss=rss or 0,
            name=name,
        )
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._collector: threading.Thread | None = None
        self._is_shutdown = False
        self._caller_ran = 0
        self._has_warned = False
        # An executor that is forgotten shuts down; its tasks still finish.
        self._finalizer = weakref.finalize(self, self._pool.close)
        self._finalizer.atexit = False

    # ---- submitting -----------------------------------------------------------------------------

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Schedules ``fn(*args, **kwargs)`` and returns its future.

        A full backlog is met as `on_full` says.  Raises BacklogFull ("fail"), TimeoutError
        (`submit_timeout` passed; the task was not accepted), RuntimeError after `shutdown`.
        What cannot be pickled is reported by the future, as in the standard library.
        """
        self._ensure_collector()
        if self._on_full == "drop_oldest":
            return self._submit_evicting(fn, args, kwargs)
        permit: _weir.Permit | Literal[False] | None
        try:
            if self._on_full == "caller_runs":
                permit = self._pool.try_admit_wait()
            else:
                permit = self._pool.try_admit()
            if permit is None and self._on_full == "block":
                self._warn_once_in_event_loop(4)
                permit = self._pool.admit(self._submit_timeout, False)
        except TimeoutError:
            raise self._no_room() from None
        if permit:
            kind = _kind_of(fn) if self._learns else 0
            return self._post(permit, lambda: _transfer.dump_call(fn, args, kwargs), kind)
        if permit is None and self._on_full == "caller_runs":
            return self._run_here(fn, args, kwargs)
        if permit is None:
            raise BacklogFull(f"the backlog of {self._backlog_now} tasks is full")
        return _failed(Dropped("newest"))

    def _submit_evicting(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[T]:
        """Nothing is dropped for a task that cannot be sent: it is pickled first."""
        try:
            data = _transfer.dump_call(fn, args, kwargs)
        except Exception as error:
            return _failed(error)
        permit = self._pool.try_admit()
        if not permit:
            return _failed(Dropped("newest"))
        return self._post(permit, lambda: data, _kind_of(fn) if self._learns else 0)

    async def _submit_async(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[T]:
        if self._on_full not in ("block", "caller_runs"):
            return self.submit(fn, *args, **kwargs)
        self._ensure_collector()
        try:
            permit = await _weir.wait(self._pool.pend_permit, self._submit_timeout)
        except TimeoutError:
            permit = self._permit_at_last()
        kind = _kind_of(fn) if self._learns else 0
        return self._post(permit, lambda: _transfer.dump_call(fn, args, kwargs), kind)

    def _permit_at_last(self) -> _weir.Permit:
        """The time of a coroutine is up: a last look, as a thread has one, which counts it as
        refused."""
        try:
            permit = self._pool.admit(1e-9, True)
        except TimeoutError:
            raise self._no_room() from None
        assert permit
        return permit

    def _no_room(self) -> Timeout:
        return Timeout(
            f"no room in the backlog within submit_timeout={self._submit_timeout} s; "
            "the task was not accepted"
        )

    def try_submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T] | None:
        """Schedules ``fn(*args, **kwargs)`` if there is room now, else returns None.

        Never waits, drops or runs anything, whatever `on_full` says.
        """
        return self._post_if_room(fn, args, kwargs)

    def _try_submit(self, fn: Callable[..., T], /, *args: Any) -> Future[T] | None:
        return self._post_if_room(fn, args, {})

    def _post_if_room(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[T] | None:
        self._ensure_collector()
        permit = self._pool.try_admit_wait()
        if not permit:
            return None
        kind = _kind_of(fn) if self._learns else 0
        return self._post(permit, lambda: _transfer.dump_call(fn, args, kwargs), kind)

    def _submit_wait(
        self, fn: Callable[..., T], args: tuple[Any, ...], timeout: float | None
    ) -> Future[T]:
        """As `submit`, but waits for room whatever `on_full` is."""
        self._ensure_collector()
        permit = self._permit_for_map(True, timeout)
        assert permit is not None
        kind = _kind_of(fn) if self._learns else 0
        return self._post(permit, lambda: _transfer.dump_call(fn, args, {}), kind)

    def _permit_for_map(self, wait: bool, timeout: float | None) -> _weir.Permit | None:
        permit: _weir.Permit | Literal[False] | None = self._pool.try_admit_wait()
        if permit is None and wait:
            self._warn_once_in_event_loop(7)
            try:
                permit = self._pool.admit(timeout, True)
            except TimeoutError:
                raise Timeout(f"no room in the backlog within {timeout} s") from None
            assert permit
        return permit or None

    def _warn_once_in_event_loop(self, stacklevel: int) -> None:
        if not self._has_warned:
            self._has_warned = warn_in_event_loop(stacklevel)

    def _post(
        self,
        permit: _weir.Permit,
        dump: Callable[[], Any],
        kind: int,
        make: Callable[[], _TaskFuture[Any]] = _TaskFuture,
    ) -> Future[Any]:
        """Hands a task to the pool under a permit, which goes back if it is not used."""
        try:
            data = dump()
        except Exception as error:
            permit.release()  # before anybody sees the error
            return _with_error(make(), error)  # whose traceback refers to this frame, not back
        except BaseException:
            permit.release()  # not only when the traceback goes
            raise
        return self._post_as(make(), permit, data, 0, kind)

    def _post_as(
        self, future: _TaskFuture[Any], permit: _weir.Permit, data: Any, items: int, kind: int
    ) -> Future[Any]:
        """items > 0: a batch of so many; kind: of tasks that take about as much memory."""
        future._pool = self._pool
        if isinstance(data, _transfer.Parts):
            future._shared = data.shared
        try:
            future._id = self._pool.post(permit, future, data, items, kind)
        except MemoryError as error:
            permit.release()
            future._pool = None
            future.set_exception(error.with_traceback(None))  # it would refer to the future
        finally:
            permit.release()
        return future

    def _run_here(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[T]:
        with self._lock:
            if self._is_shutdown:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._caller_ran += 1
        future: Future[T] = Future()
        run(future, fn, args, kwargs)
        return future

    def _ensure_collector(self) -> None:
        if self._collector is not None:
            return
        with self._lock:
            if self._collector is not None or self._is_shutdown:
                return
            # With fork, as in the standard pool, all workers start before the first submit goes on:
            # where the caller knows which locks are held, but not in its own thread, where a
            # signal handler may interrupt it.
            started = threading.Event()
            fork = self._mp_context.get_start_method(allow_none=False) == "fork"
            early_workers = self._max_workers if fork else 0
            thread = threading.Thread(
                target=_collect,
                args=(self._pool, self._workers, started, early_workers),
                name=f"weir-collect-{self._name}" if self._name else "weir-collect",
                daemon=False,
            )
            with _collectors_lock:
                if _exiting:
                    self._pool.close()
                    raise RuntimeError("cannot schedule new futures after interpreter shutdown")
                thread.start()
                _collectors[thread] = self._pool
            self._collector = thread
            started.wait()

    # ---- what map needs -------------------------------------------------------------------------

    _map_in_batches = _map_reports = True
    _BATCH_BYTES = 256 << 10  # of arguments in a batch

    def _dump_batch(
        self, fn: Callable[..., Any], calls: list[Any], n_args: int
    ) -> tuple[bytes, int, dict[int, Exception]]:
        """The payload of the first calls, how many, and why some of them cannot be pickled; less
        than two are no batch."""
        fn_data = _transfer.dump_argument(fn) if len(calls) > 1 and n_args <= 64 else None
        if fn_data is None:
            return b"", 0, {}
        return _weir.dump_calls(fn_data, calls, n_args, _transfer.dump_argument, self._BATCH_BYTES)

    def _submit_batch(
        self,
        fn: Callable[..., Any],
        calls: list[Any],
        n_args: int,
        wait: bool,
        timeout: float | None,
        report: Callable[[int, float], object] | None,
    ) -> tuple[Future[Any] | None, int]:
        self._ensure_collector()
        permit = self._permit_for_map(wait, timeout)
        if permit is None:
            return None, 0
        try:
            payload, items, errors = self._dump_batch(fn, calls, n_args)
        except Exception:
            items = 0  # fn cannot be pickled: the error of each item alone
        except BaseException:
            permit.release()
            raise
        kind = _kind_of(fn) if self._learns else 0
        if items > 1:
            future = _BatchFuture(items, errors)
            future.report = report and partial(report, items)
            return self._post_as(future, permit, payload, items, kind), items
        # Alone it is a plain task, and its large buffers travel out of band.
        args = (calls[0],) if n_args == 1 else calls[0]

        def alone() -> _BatchOfOne[Any]:
            future: _BatchOfOne[Any] = _BatchOfOne()
            future.report = report and partial(report, 1)
            return future

        return self._post(permit, lambda: _transfer.dump_call(fn, args, {}), kind, alone), 1

    @property
    def _map_window(self) -> int:
        workers = self._max_workers
        return workers + (2 * workers if self._backlog is None else self._backlog_now)

    # ---- ending ---------------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuses new tasks; those accepted still run, or are cancelled with `cancel_futures`.

        With `wait` it returns when the tasks are done and the workers gone.  Ctrl-C ends the wait,
        not the tasks.  May be called more than once.
        """
        if self._pid != os.getpid():
            return  # a forked child has a copy of the object, and none of the pool
        with self._lock:
            self._is_shutdown = True
            self._pool.close()
            collector = self._collector
        if cancel_futures:
            self._pool.discard()
        if wait and collector is not None and collector is not threading.current_thread():
            collector.join()

    def kill_workers(self) -> None:
        """Ends the workers at once, and the pool: running tasks raise WorkerDied, waiting ones are
        cancelled.  Does not wait; `shutdown` does."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._is_shutdown = True
            self._pool.close()
        self._pool.kill()

    # ---- looking --------------------------------------------------------------------------------

    def stats(self) -> ProcessPoolStats:
        """One instant of the pool; the conservation law holds in it."""
        numbers = self._pool.snapshot()
        if self._backlog is None:
            numbers["max_submit_backlog"] = None
        numbers["accepted"] += self._caller_ran
        numbers["completed"] += self._caller_ran
        return ProcessPoolStats(
            name=self._name,
            max_workers=self._max_workers,
            caller_ran=self._caller_ran,
            **numbers,
        )

    @property
    def _backlog_now(self) -> int:
        if isinstance(self._backlog, int):
            return self._backlog
        backlog: int = self._pool.snapshot()["max_submit_backlog"]
        return backlog

    @property
    def _processes(self) -> dict[int, BaseProcess]:
        return self._workers.processes

    def worker_pids(self) -> list[int]:
        """Process ids of the workers that are alive now."""
        return self._pool.pids()

    def __repr__(self) -> str:
        backlog = "unbounded" if self._backlog is None else self._backlog
        name = f" {self._name!r}" if self._name else ""
        return (
            f"<weir.ProcessPoolExecutor{name}: {self._max_workers} workers, backlog {backlog}, "
            f"on_full={self._on_full!r}{', shut down' if self._is_shutdown else ''}>"
        )
