"""WorkerDied and WorkerNotStarted, apart from the others: their base loads multiprocessing."""

from __future__ import annotations

import signal as signals
from concurrent.futures.process import BrokenProcessPool

__all__ = ["RemoteError", "WorkerDied", "WorkerNotStarted"]


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signals.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


class WorkerDied(BrokenProcessPool):
    """The process that ran the task has died, as often as `retries` allowed.

    Only this task is lost: the pool has replaced the worker and goes on.

    pid        process id of the worker
    exitcode   its exit status; None if a signal ended it, or if nothing is known
    signal     the number of the signal that ended it; None if it exited
    peak_rss   the most memory it ever held, in bytes; None if not known
    oom        whether the kernel's out-of-memory killer did it; None if that cannot be told
    """

    def __init__(
        self,
        pid: int,
        exitcode: int | None = None,
        signal: int | None = None,
        peak_rss: int | None = None,
        oom: bool | None = None,
    ) -> None:
        super().__init__(pid, exitcode, signal, peak_rss, oom)
        self.pid = pid
        self.exitcode = exitcode
        self.signal = signal
        self.peak_rss = peak_rss
        self.oom = oom

    def __str__(self) -> str:
        if self.signal is not None:
            how = f"killed by {_signal_name(self.signal)}"
        elif self.exitcode is not None:
            how = f"with exit code {self.exitcode}"
        else:
            how = "for an unknown reason"
        if self.peak_rss is None:
            peak = "its peak memory is not known"
        else:
            peak = f"it had used up to {self.peak_rss / 2**20:.1f} MiB of memory"
        if self.oom:
            culprit = "the kernel's out-of-memory killer ended it"
        elif self.oom is False:
            culprit = "it was not the out-of-memory killer"
        else:
            culprit = "whether it was the out-of-memory killer cannot be told"
        return f"worker process {self.pid} died, {how}, while it ran this task; {peak}; {culprit}"


WorkerDied.__module__ = "weir"


class WorkerNotStarted(BrokenProcessPool):
    """The task was accepted, and no worker process could be started to run it.

    The text says why: the traceback of the initializer, or how the process ended.  The pool stays
    usable: the next task makes it try again.
    """


class RemoteError(Exception):
    """Stands for an exception of a worker that cannot travel: its type, text and traceback."""


for _class in (WorkerNotStarted, RemoteError):
    _class.__module__ = "weir"
