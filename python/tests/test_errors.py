"""The exceptions: what they say, and that they survive a trip between processes."""

from __future__ import annotations

import pickle
import queue
from concurrent.futures.process import BrokenProcessPool

import pytest

import weir


@pytest.mark.parametrize(
    "error",
    [
        weir.BacklogFull("full"),
        weir.TooLarge("large"),
        weir.ShutDown(),
        weir.Dropped("oldest"),
        weir.Overloaded("late"),
        weir.BreakerOpen(1.5, "backend"),
        weir.Throttled(0.5, "backend"),
        weir.WorkerDied(12, 3, None, 2**30, False),
        weir.WorkerDied(12, None, 9, None, None),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_survives_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.args == error.args
    assert vars(again) == vars(error)


def test_the_exceptions_are_caught_by_the_handlers_people_have() -> None:
    assert issubclass(weir.BacklogFull, queue.Full)
    assert issubclass(weir.TooLarge, ValueError)
    assert issubclass(weir.WorkerDied, BrokenProcessPool)
    for name in ("BacklogFull", "BreakerOpen", "Dropped", "Overloaded", "Throttled", "TooLarge"):
        assert getattr(weir, name).__module__ == "weir"


def test_worker_died_says_everything_in_a_sentence() -> None:
    assert str(weir.WorkerDied(12, None, 9, 3 * 2**29, True)) == (
        "worker process 12 died, killed by signal 9 (SIGKILL), while it ran this task; it had used "
        "up to 1536.0 MiB of memory; the kernel's out-of-memory killer ended it"
    )
    text = str(weir.WorkerDied(12, 3, None, None, None))
    assert "with exit code 3" in text
    assert "its peak memory is not known" in text
    assert "cannot be told" in text
    assert "signal 77" in str(weir.WorkerDied(1, None, 77))
    assert "it was not the out-of-memory killer" in str(weir.WorkerDied(1, 1, None, 1, False))
    error = weir.WorkerDied(1, None, 9, 5, True)
    assert (error.pid, error.exitcode, error.signal) == (1, None, 9)
    assert (error.peak_rss, error.oom) == (5, True)


def test_an_open_breaker_says_when_to_come_back() -> None:
    assert str(weir.BreakerOpen(1.5)) == "the circuit breaker is open for another 1.5 s"
    assert str(weir.BreakerOpen(None, "db")) == "the circuit breaker 'db' is isolated"
    assert weir.BreakerOpen(2.0, "db").retry_after == 2.0


@pytest.mark.parametrize("reason", ["newest", "oldest", "sampled", "expired", "discarded"])
def test_dropped_says_why(reason: str) -> None:
    error = weir.Dropped(reason)
    assert error.reason == reason
    assert str(error).startswith(f"dropped ({reason}): ")
    assert str(weir.Dropped("other")) == "dropped (other)"
