"""The cases of CPython's tests that weir does not pass as they are, and why: one line each.

EXCLUSIONS    it does not pass; run.py sees to it that this is still so
UNBOUNDED     it passes, with max_submit_backlog=None
NOT_FOR_WEIR  modules that are not even loaded
"""

from __future__ import annotations

import sys
from typing import NamedTuple


class Exclusion(NamedTuple):
    tests: str  # as fnmatch reads it
    reason: str
    flaky: bool = False  # it may pass, too
    since: tuple[int, int] = (3, 10)  # the first and the last Python that have such a test
    until: tuple[int, int] = (3, 99)


_Q = "test_queue."
_CF = "test_concurrent_futures."
_PP = _CF + "ProcessPool*ProcessPool"  # each start method
_PP_BEHIND = _CF + "ProcessPool*[rn]ProcessPool"  # forkserver and spawn, not fork
_DL = _CF + "ProcessPool*ExecutorDeadlockTest."
_FI = _CF + "ProcessPool*FailingInitializerTest."


def _aio(tests: str, reason: str) -> Exclusion:
    """Of asyncio's tests: on its own loop, and ...OnUvloop."""
    return Exclusion(f"test_asyncio.{tests}", reason, since=(3, 11))


EXCLUSIONS = [
    # ---- not offered
    Exclusion(_Q + "*LifoQueueTest.*", "there is no LifoQueue"),
    Exclusion(_Q + "*PriorityQueueTest.*", "there is no PriorityQueue"),
    _aio("LifoQueue*", "there is no LifoQueue"),
    _aio("PriorityQueue*", "there is no PriorityQueue"),
    _aio("EventTests*", "there is no Event"),
    _aio("ConditionTests*", "there is no Condition"),
    _aio("BarrierTests*", "there is no Barrier"),
    _aio("LockTests*.test_lock_doesnt_accept_loop_parameter", "asks a Condition, too"),
    _aio("LockTests*.test_lock_by_with_statement", "asks a Condition, too"),
    Exclusion(_CF + "InterpreterPool*", "there is no InterpreterPoolExecutor", since=(3, 14)),
    # ---- reads what the standard class is made of
    Exclusion(_Q + "*FailingQueueTest.*", "overrides _put and _get of queue.Queue"),
    _aio("QueueBasicTests*.test_repr", "_getters, _putters and _queue in the repr"),
    _aio("QueueBasicTests*.test_str", "_getters, _putters and _queue in the repr"),
    _aio("QueueGetTests*.test_get_with_putters", "puts a future into _putters"),
    _aio("QueueJoinTests*.test_format", "_format, _unfinished_tasks"),
    _aio("LockTests*.test_repr", "[locked] and [unlocked] in the repr"),
    _aio("LockTests*.test_cancel_race", "wants _waiters[0] to be a future"),
    _aio("SemaphoreTests*.test_repr", "[locked] in the repr; puts mocks into _waiters"),
    Exclusion(_PP + "ShutdownTest.test_del_shutdown", "_call_queue, _executor_manager_thread"),
    Exclusion(_PP + "ShutdownTest.test_shutdown_no_wait", "_call_queue, _executor_manager_thread"),
    Exclusion(_DL + "test_shutdown_deadlock_pickle", "_executor_manager_thread"),
    # ---- a bound is an int, and a permit that is free can be had
    _aio("QueuePutTests*.test_float_maxsize", "wants maxsize=1.3 to be 2"),
    _aio(
        "SemaphoreTests*.test_acquire_fifo_order_2",
        "wants the permit just released to wait until a task that has its own has run",
    ),
    # ---- weir's process pool does not break: a bad task is the error of that task alone
    Exclusion(_PP + "ExecutorTest.test_killed_child", "wants submit to fail after a worker died"),
    Exclusion(_FI + "test_initializer", "wants submit to fail after an initializer failed"),
    Exclusion(_DL + "test_error_at_task_unpickle", "weir raises the UnpicklingError itself"),
    Exclusion(_DL + "test_exit_at_task_unpickle", "weir raises the SystemExit itself"),
    Exclusion(_DL + "test_error_during_result_unpickle_in_result_handler", "the same, of a result"),
    Exclusion(_DL + "test_exit_during_result_unpickle_in_result_handler", "the same, of a result"),
    # ---- workers start when there is work, behind submit
    Exclusion(
        _PP_BEHIND + "ShutdownTest.test_processes_terminate", "counts processes right after submit"
    ),
    Exclusion(_PP_BEHIND + "ExecutorTest.test_saturation", "counts processes right after submit"),
    Exclusion(
        _PP + "ShutdownTest.test_cancel_futures",
        "wants one of 50 tasks to be past cancelling before a process can have started",
        flaky=True,
    ),
    # ---- a race that CPython has taken out of its test since (gh-116682)
    Exclusion(
        _CF + "ThreadPoolShutdownTest.test_cancel_futures_wait_false",
        "wants a thread to take the task before the next statement can cancel it",
        flaky=True,
        until=(3, 12),
    ),
    # ---- max_tasks_per_child goes with every start method
    Exclusion(
        _CF + "ProcessPoolForkProcessPoolExecutorTest.test_max_tasks_per_child",
        "wants fork to be refused",
        since=(3, 11),
    ),
    Exclusion(
        _PP + "ExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context",
        "wants the default start method to change",
        since=(3, 11),
    ),
]

UNBOUNDED = [
    Exclusion(_CF + "*.test_saturation", "submits 15 tasks per worker before it lets one end"),
    Exclusion(_CF + "ThreadPoolWait*.test_pending_calls_race", "the same, 100 tasks"),
    Exclusion(_CF + "*.test_cancel_futures", "wants more than 20 tasks waiting for 5 workers"),
]

NOT_FOR_WEIR = {"test_interpreter_pool"}  # there is no InterpreterPoolExecutor


def for_this_python(table: list[Exclusion]) -> list[Exclusion]:
    return [entry for entry in table if entry.since <= sys.version_info[:2] <= entry.until]
