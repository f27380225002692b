"""What runs in a worker process: take a task, call it, reply, until told to leave."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import traceback
from concurrent.futures.process import _ExceptionWithTraceback
from multiprocessing import context, reduction, util
from multiprocessing.reduction import ForkingPickler

from weir import _transfer, _weir
from weir._died import RemoteError

TYPE_CHECKING = False  # as in weir/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# The status that goes with a reply; as in module.h.
RESULT = 0
EXCEPTION = 1
PLAIN = 2  # a result that is not pickled: _weir knows how


class Ticket:
    """The worker's way to its pool: descriptors, inherited or handed over by the start method."""

    def __init__(self, memory_fd: int, bell_fd: int, parent_fd: int, seat: int) -> None:
        self._fds: list[Any] = [memory_fd, bell_fd, parent_fd]
        self._seat = seat

    def __getstate__(self) -> tuple[list[Any], int]:
        context.assert_spawning(self)
        return [reduction.DupFd(fd) for fd in self._fds], self._seat

    def __setstate__(self, state: tuple[list[Any], int]) -> None:
        duplicates, self._seat = state
        self._fds = [duplicate.detach() for duplicate in duplicates]
        for fd in self._fds:  # spawn hands them over inheritable: programs of a task need none
            os.set_inheritable(fd, False)

    def open(self) -> _weir.Worker:
        memory_fd, bell_fd, parent_fd = self._fds
        return _weir.Worker(memory_fd, bell_fd, parent_fd, self._seat)


def main(
    ticket: Ticket, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> None:
    """The life of a worker process."""
    serve(ticket, initializer, initargs)
    # Returning would wait for threads that tasks have left behind, perhaps for ever, and the pool
    # would wait for us.  What multiprocessing does at the end of a process comes first.
    util._exit_function()  # type: ignore[attr-defined]
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(0)


def serve(
    ticket: Ticket, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> None:
    """Takes and runs tasks until told to leave."""
    # Ctrl-C reaches the whole process group.  The parent decides what it means; a handler, unlike
    # SIG_IGN, is not inherited by programs that a task starts.
    signal.signal(signal.SIGINT, lambda signum, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    worker = ticket.open()
    if initializer is not None:
        try:
            initializer(*initargs)
        except BaseException:
            text = traceback.format_exc().encode(errors="replace")
            worker.fail(text[-4096:])
            return
    worker.ready()
    replies = _transfer.Replies(worker)
    while True:
        task = replies.take()
        if task is None:
            return
        if task is True:
            replies.run_batch(dump_exception)
            continue
        reply = run(worker, task)
        if reply is not None:  # now that nothing refers to the arguments any more
            replies.send(*reply)
        del task, reply  # nothing of a task outlives it here


def run(worker: _weir.Worker, task: memoryview) -> tuple[int, Any] | None:
    """Calls a pickled task; the status, and the pickled result or exception; None: has replied."""
    try:
        room, size = _transfer.room_of(task), len(task)
        with task:
            fn, args, kwargs = _transfer.load(task)
        result = fn(*args, **kwargs)
        if type(result) in _transfer.PLAIN and worker.reply_plain(result):
            return None
        return RESULT, _transfer.dump_result(result, worker, room, size)
    except BaseException as error:
        return EXCEPTION, dump_exception(error)


def dump_exception(error: BaseException) -> Any:
    """Pickles an exception with its remote traceback, after a trial that it can be read again."""
    text = ""
    try:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        assert error.__traceback__ is not None
        remote = _ExceptionWithTraceback(error, error.__traceback__)
        data = ForkingPickler.dumps(remote, _transfer.PROTOCOL)
        pickle.loads(data)
        return data
    except BaseException as reason:
        stand_in = RemoteError(
            f"{type(error).__module__}.{type(error).__qualname__}: {_try(str, error)} "
            f"(the exception itself cannot be sent between processes: {_try(repr, reason)})"
            f"\n\n{text}"
        )
        return ForkingPickler.dumps(stand_in, _transfer.PROTOCOL)


def _try(show: Callable[[Any], str], error: BaseException) -> str:
    try:
        return show(error)
    except BaseException:
        return "<it cannot be shown either>"
