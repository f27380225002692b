"""LazyFuture: a standard future to everybody who looks at it, without a condition."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import gc
import logging
import os
import pickle
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any

import pytest
from conftest import InThread, output_of, wait_until

from weir._weir import LazyFuture

STATES = ["PENDING", "RUNNING", "CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED"]


def waiting_in(call: Callable[..., Any], *args: Any) -> InThread:
    """The call waits in another thread when this returns."""
    thread = InThread(call, *args)
    time.sleep(0.02)
    assert not thread.is_done
    return thread


# ---- the standard interface -------------------------------------------------------------------


def test_it_is_a_standard_future() -> None:
    future: LazyFuture[int] = LazyFuture()
    assert isinstance(future, Future)
    assert (future.done(), future.running(), future.cancelled()) == (False, False, False)
    assert future.set_running_or_notify_cancel()
    assert (future.done(), future.running(), future.cancelled()) == (False, True, False)
    assert not future.cancel()
    future.set_result(3)
    assert (future.done(), future.running(), future.cancelled()) == (True, False, False)
    assert (future.result(), future.result(timeout=0), future.exception()) == (3, 3, None)


def test_nobody_who_waits_for_a_result_makes_a_condition() -> None:
    future: LazyFuture[int] = LazyFuture()
    called: list[Any] = []
    waiting = [
        waiting_in(future.result),
        waiting_in(future.exception),
        waiting_in(future.result, 9),
    ]
    future.add_done_callback(called.append)
    future.set_running_or_notify_cancel()
    future.set_result(3)
    assert [thread.result() for thread in waiting] == [3, None, 3]
    assert called == [future]
    assert future._lazy_condition is None


def test_the_condition_is_made_once_for_all_who_ask() -> None:
    future: LazyFuture[int] = LazyFuture()
    conditions = [InThread(lambda: future._condition) for _ in range(20)]
    assert {id(thread.result()) for thread in conditions} == {id(future._condition)}
    assert future._lazy_condition is future._condition


@pytest.mark.parametrize("timeout", [0, -1, 0.01, -float("inf")])
def test_a_result_that_does_not_come_in_time_raises_the_standard_error(timeout: float) -> None:
    future: LazyFuture[int] = LazyFuture()
    for get in (future.result, future.exception):
        with pytest.raises(concurrent.futures.TimeoutError):
            get(timeout)
    assert future._lazy_condition is None
    future.set_result(1)
    assert future.result(timeout) == 1


def test_a_timeout_that_is_none_is_a_type_error() -> None:
    future: LazyFuture[int] = LazyFuture()
    with pytest.raises(TypeError):
        future.result("soon")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        future.result(seconds=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        LazyFuture(1)  # type: ignore[call-arg]


def test_what_was_raised_is_raised_again_with_its_traceback() -> None:
    future: LazyFuture[int] = LazyFuture()
    try:
        raise LookupError("no")
    except LookupError as error:
        future.set_exception(error)
    for _ in range(2):
        with pytest.raises(LookupError, match="no") as caught:
            future.result()
        assert caught.value is future.exception()
        assert caught.traceback[-1].name == sys._getframe().f_code.co_name


def test_a_cancelled_future_says_so_to_everybody() -> None:
    future: LazyFuture[int] = LazyFuture()
    waiting = waiting_in(future.result)
    assert future.cancel()
    assert future.cancel()
    with pytest.raises(CancelledError):
        waiting.result()
    with pytest.raises(CancelledError):
        future.exception(0)
    assert (future.done(), future.cancelled()) == (True, True)
    assert not future.set_running_or_notify_cancel()
    assert future._state == "CANCELLED_AND_NOTIFIED"


@pytest.mark.parametrize("has_condition", [False, True])
def test_a_done_future_cannot_be_finished_again(has_condition: bool) -> None:
    done: LazyFuture[int] = LazyFuture()
    cancelled: LazyFuture[int] = LazyFuture()
    if has_condition:
        assert done._condition
        assert cancelled._condition
    done.set_result(1)
    cancelled.cancel()
    for future in (done, cancelled):
        with pytest.raises(InvalidStateError, match=f"{future._state}: <LazyFuture at "):
            future.set_result(2)
        with pytest.raises(InvalidStateError):
            future.set_exception(LookupError())
        assert not future._condition._is_owned()  # type: ignore[attr-defined]
    assert done.result() == 1
    with pytest.raises(RuntimeError, match="unexpected state"):
        done.set_running_or_notify_cancel()


def test_callbacks_are_called_once_in_order_and_what_they_raise_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    called: list[int] = []

    def fail(future: Future[int]) -> None:
        raise LookupError

    future: LazyFuture[int] = LazyFuture()
    future.add_done_callback(lambda _: called.append(1))
    future.add_done_callback(fail)
    assert future._condition  # from now on the standard way
    future.add_done_callback(lambda _: called.append(2))
    future.set_result(0)
    future.add_done_callback(lambda _: called.append(3))
    assert called == [1, 2, 3]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_wait_and_as_completed_see_it_finish_and_have_finished() -> None:
    futures: list[LazyFuture[int]] = [LazyFuture() for _ in range(6)]
    futures[0].set_result(0)
    first = waiting_in(concurrent.futures.wait, futures, 10)
    each = waiting_in(lambda: [f.result() for f in concurrent.futures.as_completed(futures, 10)])
    by_result = waiting_in(futures[5].result)
    for i, future in enumerate(futures[1:], 1):
        future.set_running_or_notify_cancel()
        future.set_result(i)
    assert first.result() == (set(futures), set())
    assert each.result() == list(range(6))
    assert by_result.result() == 5


def test_asyncio_waits_for_it() -> None:
    async def main() -> int:
        future: LazyFuture[int] = LazyFuture()
        threading.Timer(0.01, future.set_result, [7]).start()
        return await asyncio.wrap_future(future)

    assert asyncio.run(main()) == 7


def test_repr_tells_what_the_standard_one_tells() -> None:
    future: LazyFuture[int] = LazyFuture()
    assert repr(future) == f"<LazyFuture at {id(future):#x} state=pending>"
    future.set_result(1)
    assert repr(future) == f"<LazyFuture at {id(future):#x} state=finished returned int>"


def test_it_cannot_be_pickled_or_copied() -> None:
    future: LazyFuture[int] = LazyFuture()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(future, protocol)
    with pytest.raises(TypeError):
        copy.copy(future)


# ---- what the standard library calls its own --------------------------------------------------


def test_the_private_names_of_the_standard_class_are_there() -> None:
    future: LazyFuture[Any] = LazyFuture()
    standard: Future[Any] = Future()
    for name in vars(standard):
        assert hasattr(future, name), name
    assert (future._result, future._exception) == (None, None)
    assert future._waiters == []
    assert future._done_callbacks == []  # type: ignore[attr-defined]
    assert future._waiters is future._waiters


@pytest.mark.parametrize("state", STATES)
def test_a_state_set_by_name_is_the_state_and_ends_waits(state: str) -> None:
    future: LazyFuture[Any] = LazyFuture()
    waiting = waiting_in(lambda: future.exception(0.2))
    with future._condition:
        future._exception = LookupError()
        future._state = state
        future._condition.notify_all()
    assert future._state == state
    standard: Future[Any] = Future()
    standard._state, standard._exception = state, LookupError()
    expected = CancelledError if standard.cancelled() else concurrent.futures.TimeoutError
    if state == "FINISHED":
        assert isinstance(waiting.result(), LookupError)
    else:
        with pytest.raises(expected):
            waiting.result()


def test_a_state_that_is_none_is_refused() -> None:
    future: LazyFuture[Any] = LazyFuture()
    with pytest.raises(ValueError, match="a future has no state 'DONE'"):
        future._state = "DONE"
    with pytest.raises(AttributeError):
        del future._state
    with pytest.raises(AttributeError):
        del future._result


def test_the_standard_methods_work_on_it() -> None:
    future: LazyFuture[int] = LazyFuture()
    waiting = waiting_in(future.result)
    assert Future.set_running_or_notify_cancel(future)
    Future.set_result(future, 5)
    assert waiting.result() == Future.result(future) == 5
    cancelled: LazyFuture[int] = LazyFuture()
    waiting = waiting_in(cancelled.result)
    assert Future.cancel(cancelled)
    with pytest.raises(CancelledError):
        waiting.result()


# ---- memory -----------------------------------------------------------------------------------


class Named(LazyFuture[Any]):
    name = "nobody"


def test_subclasses_have_attributes_and_cycles_are_collected() -> None:
    for make in (LazyFuture, Named):
        future: Any = make()
        future.own = [future]
        future.add_done_callback(lambda _, cycle=future: cycle)
        future._condition.cycle = future
        future._waiters.append(future)
        ref = weakref.ref(future)
        del future
        gc.collect()
        assert ref() is None
        future = make()
        future.set_result([future])
        ref = weakref.ref(future)
        del future
        gc.collect()
        assert ref() is None


def test_a_result_is_released_with_its_future() -> None:
    class Payload:
        pass

    for finish in (LazyFuture.set_result, lambda f, p: f.set_exception(LookupError(p))):
        future: LazyFuture[Any] = LazyFuture()
        payload = Payload()
        ref = weakref.ref(payload)
        finish(future, payload)
        del payload
        assert ref() is not None
        del future
        assert ref() is None


def test_waiting_in_vain_leaves_nothing_behind() -> None:
    future: LazyFuture[int] = LazyFuture()
    before = sys.getrefcount(future)
    for _ in range(100):
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(0.0001)
    assert sys.getrefcount(future) == before
    future.set_result(1)


# ---- threads, signals, forks ------------------------------------------------------------------


def test_whoever_waits_however_is_told_whenever_the_condition_is_made() -> None:
    """The order: made and finished under one lock."""
    for round in range(300):
        future: LazyFuture[int] = LazyFuture()
        go = threading.Barrier(5)

        def started(call: Callable[[], Any], go: threading.Barrier = go) -> Any:
            go.wait(20)
            return call()

        threads = [
            InThread(started, lambda f=future: f.result(20)),
            InThread(started, lambda f=future: concurrent.futures.wait([f], 20).not_done),
            InThread(started, lambda f=future: next(concurrent.futures.as_completed([f], 20))),
            InThread(started, lambda f=future, r=round: f.set_result(r)),
        ]
        go.wait(20)
        assert [thread.result() for thread in threads] == [round, set(), future, None]


def test_a_signal_handler_that_raises_ends_the_wait_and_the_future_lives_on() -> None:
    def interrupt(signum: int, frame: object) -> None:
        raise InterruptedError

    def interrupted_result(future: LazyFuture[int]) -> int:
        threading.Timer(0.002, os.kill, [os.getpid(), signal.SIGUSR1]).start()
        return future.result(20)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        future: LazyFuture[int] = LazyFuture()
        for _ in range(20):
            with pytest.raises(InterruptedError):
                interrupted_result(future)
        threading.Timer(0.002, future.set_result, [3]).start()
        assert future.result(20) == 3
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_forked_child_can_finish_what_a_thread_of_its_parent_waits_for() -> None:
    output_of(
        """
        import os, threading, time, warnings
        from weir._weir import LazyFuture
        warnings.simplefilter("ignore")
        future = LazyFuture()
        waiting = threading.Thread(target=future.result)
        waiting.start()
        time.sleep(0.02)
        pid = os.fork()
        if pid == 0:
            future.set_result(1)
            assert future.result() == 1
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert not future.done()
        future.set_result(2)
        waiting.join()
        """
    )


def test_a_daemon_thread_that_waits_does_not_disturb_the_end() -> None:
    output_of(
        """
        import concurrent.futures, threading, time
        from weir._weir import LazyFuture
        future = LazyFuture()
        def wait(timeout):
            try:
                future.result(timeout)
            except concurrent.futures.TimeoutError:
                pass
        for timeout in (None, 0.01, 0.05, 0.1):
            threading.Thread(target=wait, args=(timeout,), daemon=True).start()
        time.sleep(0.005)
        """
    )


def test_threads_that_wait_are_counted_out_one_by_one() -> None:
    future: LazyFuture[int] = LazyFuture()
    patient = [InThread(future.result, 20) for _ in range(20)]
    impatient = [InThread(future.result, 0.001 * i) for i in range(20)]
    for thread in impatient:
        with pytest.raises(concurrent.futures.TimeoutError):
            thread.result()
    future.set_result(4)
    assert [thread.result() for thread in patient] == [4] * 20
    wait_until(lambda: not any(thread.thread.is_alive() for thread in patient))
