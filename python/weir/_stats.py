"""What `stats()` returns: plain, immutable records of one instant.

Counts only grow; times are seconds.  In each of them the conservation law holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "BoundedStats",
    "BreakerStats",
    "FlowBudgetStats",
    "FlowWriterStats",
    "LimiterStats",
    "LoadShedStats",
    "MemoryStats",
    "ProcessPoolStats",
    "QueueStats",
    "RetryBudgetStats",
    "RetryStats",
    "SharedQueueStats",
    "ThreadPoolStats",
    "ThrottleStats",
    "TokenBucketStats",
    "WatermarkStats",
]


@dataclass(frozen=True)
class QueueStats:
    """One instant of a `weir.Queue`.

    The law, in items and in bytes: `accepted == delivered + sum(dropped.values()) + qsize`.
    """

    name: str | None
    maxsize: int | None  # None: unbounded
    max_bytes: int | None  # None: no bound on bytes
    qsize: int
    bytes: int  # summed cost of the items inside; 0 unless the queue measures its items
    accepted: int
    accepted_bytes: int
    delivered: int
    delivered_bytes: int
    dropped: Mapping[str, int]  # by reason: newest, oldest, sampled, expired, discarded, lost
    dropped_bytes: Mapping[str, int]
    refused: int  # puts that ended in Full or TooLarge
    put_blocked: float  # seconds waited, summed over the putters whose wait has ended
    get_blocked: float
    putters_waiting: int
    getters_waiting: int
    peak_qsize: int  # in memory
    unfinished_tasks: int  # what join() waits for
    above_high: bool
    is_shutdown: bool
    spilled: int  # of qsize: on disk; this and what follows is 0 unless the queue spills
    spilled_bytes: int  # of bytes
    spills: int  # items that went to disk
    recovered: int  # items that an earlier process left, counted as accepted
    disk_bytes: int  # of the files
    damaged_files: int  # in which something was skipped; dropped["lost"] says how many items
    disk_full: bool  # the last write found no room


@dataclass(frozen=True)
class SharedQueueStats:
    """One instant of a `weir.SharedQueue`, for all its processes together.

    The law, in items and in bytes: `accepted == delivered + sum(dropped.values()) + qsize`.
    """

    name: str | None
    maxsize: int
    max_bytes: int
    qsize: int
    bytes: int  # of the items inside, as messages
    accepted: int
    accepted_bytes: int
    delivered: int  # also to a process that was killed before its get() returned
    delivered_bytes: int
    dropped: Mapping[str, int]  # by reason: newest, oldest, sampled, expired, discarded
    dropped_bytes: Mapping[str, int]
    refused: int  # puts that ended in Full or TooLarge
    put_blocked: float  # seconds waited, summed over the putters whose wait has ended
    get_blocked: float
    putters_waiting: int  # one that was killed counts until its turn comes
    getters_waiting: int
    peak_qsize: int
    recovered: int  # processes killed in the middle of a call whose rest was undone
    above_high: bool
    is_shutdown: bool


@dataclass(frozen=True)
class ThreadPoolStats:
    """One instant of a `weir.ThreadPoolExecutor`.

    The law: `accepted == finished + cancelled + sum(dropped.values()) + waiting + running`.
    """

    name: str | None
    max_workers: int
    workers: int  # threads alive
    max_submit_backlog: int | None  # None: unbounded
    backlog_why: str | None  # with max_submit_backlog="auto": what made it so large
    waiting: int  # accepted, not started
    running: int
    accepted: int
    finished: int  # ran to a result or an exception, on a worker or in its caller
    cancelled: int  # before they started
    dropped: Mapping[str, int]  # by reason: newest, oldest
    caller_ran: int  # of the finished, those that ran in the thread that submitted them
    refused: int  # submits that ended in BacklogFull or TimeoutError
    submitters_waiting: int
    submit_blocked: float  # seconds waited, summed over the submits whose wait has ended
    is_shutdown: bool


@dataclass(frozen=True)
class BoundedStats:
    """One instant of an executor made by `weir.bounded`.

    The law: `accepted == completed + cancelled + sum(dropped.values()) + inside`.
    """

    max_workers: int
    max_submit_backlog: int | None  # None: unbounded
    inside: int  # submitted, not completed
    accepted: int
    completed: int
    cancelled: int
    dropped: Mapping[str, int]  # by reason: newest, oldest
    caller_ran: int  # of the completed
    refused: int
    submitters_waiting: int
    submit_blocked: float
    is_shutdown: bool


@dataclass(frozen=True)
class LimiterStats:
    """One instant of a `weir.Limiter`; of a shared one, for all its processes together.

    The law: `admitted == released + in_flight + lost`.
    """

    name: str | None
    algorithm: str  # "fixed", "aimd", "vegas" or "gradient2"
    limit: int
    why: str  # why it is what it is
    in_flight: int  # calls
    used: int  # their cost
    partitions: Mapping[str, int]  # cost in flight, by name
    peak: int  # the most cost that ever was in flight
    waiting: int
    admitted: int  # calls
    released: int
    refused: int  # that ended in TimeoutError, with nothing from try_acquire(), or cancelled
    shed: int  # that ended in Overloaded
    lost: int  # in flight in processes that were killed
    blocked: float  # seconds waited, summed over the waits that have ended
    latency: float | None  # seconds: of the last window of calls; None: fixed, or not known yet
    baseline: float | None  # seconds: when nobody waits; None: not known, or not needed
    samples: int  # calls that an adaptive limit has learned from
    drops: int  # of them, those that were dropped or timed out
    is_closed: bool


@dataclass(frozen=True)
class LoadShedStats:
    """One instant of a `weir.asgi.LoadShed`, for the requests of this process.

    The law: `received == served + sum(shed.values()) + disconnected + inside`.
    """

    name: str | None
    limit: int  # requests that may be in the app; of a shared limit, for all processes
    queue_limit: int  # that may wait
    max_bytes: int | None  # for bodies; None: any
    received: int
    served: int  # went through the app; of websockets, as far as `websockets` says
    failed: int  # of the served, those whose app raised an exception
    shed: Mapping[str, int]  # by reason: queue (full), wait (too long), bytes, body (413), closed
    disconnected: int  # cancelled, or the client went: while it waited, or the app gave up
    inside: int  # none of these yet: waiting, in the app, or on the way
    waiting: int
    in_flight: int  # in the app
    exempt: int  # not among the received
    bytes: int  # reserved for bodies
    waited: float  # seconds, summed over the waits that have ended
    service: float | None  # seconds that a request is in the app, lately; None: not known yet
    rate: float | None  # requests a second that come out of the app, lately; None: not known yet
    peak_waiting: int
    peak_in_flight: int
    peak_bytes: int


@dataclass(frozen=True)
class ProcessPoolStats:
    """One instant of a `weir.ProcessPoolExecutor`.

    The law: `accepted == completed + cancelled + sum(dropped.values()) + waiting + running`.
    """

    name: str | None
    max_workers: int
    workers: int  # processes alive
    max_submit_backlog: int | None  # None: unbounded
    backlog_why: str | None  # with max_submit_backlog="auto": what made it so large
    waiting: int  # accepted, not started
    running: int
    accepted: int
    completed: int  # with a result, an exception or a dead worker
    cancelled: int  # before they started
    dropped: Mapping[str, int]  # by reason: newest, oldest, discarded
    caller_ran: int  # of the completed, those that ran in the thread that submitted them
    refused: int  # submits that ended in BacklogFull or TimeoutError
    retried: int  # runs that began again after a worker had died
    died: int  # tasks that ended in WorkerDied
    workers_started: int
    workers_died: int
    workers_recycled: int  # replaced after max_tasks_per_child tasks, or above max_worker_rss
    submitters_waiting: int
    submit_blocked: float  # seconds waited, summed over the submits whose wait has ended
    service: float  # seconds that workers spent on tasks, summed
    shm_bytes: int  # shared memory taken from the system now
    is_shutdown: bool


@dataclass(frozen=True)
class BreakerStats:
    """One instant of a `weir.CircuitBreaker`.

    The law: `admitted == succeeded + failed + ignored + expired + in_flight`.
    """

    name: str | None
    state: str  # "closed", "open", "half_open" or "isolated"
    admitted: int  # calls
    succeeded: int
    failed: int
    ignored: int  # cancelled, or as `ignore` says
    expired: int  # probes that did not report within half_open_timeout
    in_flight: int  # admitted, and none of these yet
    rejected: int  # calls that ended in BreakerOpen
    slow: int  # of the succeeded and failed
    stale: int  # of the succeeded and failed, those whose state had ended: they decided nothing
    late: int  # reports of expired probes, counted nowhere else
    opened: int  # how often
    window_calls: int  # what it is judged by now: the window, or of a half-open breaker the probes
    window_failed: int
    window_slow: int
    probes: int  # under way
    peak_probes: int  # the most that ever were
    retry_after: float | None  # seconds until a call may be admitted; None: not before reset()
    open_time: float  # seconds: as long as it was, or is, open, without jitter


@dataclass(frozen=True)
class ThrottleStats:
    """One instant of a `weir.Throttle`.

    The law: `admitted == accepted + refused + ignored + in_flight`.
    """

    name: str | None
    admitted: int  # requests that were let go
    accepted: int
    refused: int
    ignored: int
    in_flight: int
    shed: int  # kept back: they ended in Throttled
    window_requests: int  # that came back or were kept back within the window
    window_accepts: int
    chance: float  # of being kept back now


@dataclass(frozen=True)
class RetryBudgetStats:
    """One instant of a `weir.RetryBudget`."""

    calls: int  # that were no retries
    retries: int  # that were allowed
    refused: int  # that were not
    tokens: float  # there now


@dataclass(frozen=True)
class RetryStats:
    """One instant of a `weir.Retry`.

    The law: `troubled == recovered + sum(gave_up.values()) + stopped + in_progress`.
    """

    troubled: int  # calls whose first attempt failed with an exception to be retried
    recovered: int  # of these: succeeded in the end
    gave_up: Mapping[str, int]  # by reason: attempts, deadline, budget
    stopped: int  # ended otherwise: by another exception, cancelled, left by break
    in_progress: int
    retries: int  # attempts after the first, and those that are being waited for


@dataclass(frozen=True)
class TokenBucketStats:
    """One instant of a `weir.TokenBucket`; of a shared one, for all its processes together.

    The law: `granted - returned` tokens are, or were, callers'.
    """

    name: str | None
    shared: str | None
    rate: float  # tokens in `per` seconds
    per: float
    burst: int
    available: int  # whole tokens inside; below 0: reserved and not there yet
    granted: int  # tokens, to calls that took them and to reservations
    returned: int  # tokens, by reservations that were cancelled
    refused: int  # calls that ended without
    waiting: int  # calls of this process
    blocked: float  # seconds waited, summed over the calls whose wait has ended
    is_closed: bool  # here


@dataclass(frozen=True)
class MemoryStats:
    """One instant of a `weir.MemoryGovernor`; sizes in bytes.

    The law: `admitted == released + lost + inside`.
    """

    name: str | None
    limit: int  # that is meant to be used at most
    memory: int  # there is: the machine's, or a cgroup's bound
    usage: int  # of it, by everybody; file pages that can be had back do not count
    is_cgroup: bool  # memory is a cgroup's bound
    rss: int  # of this process and its children, now; shared pages count in each
    processes: int  # that those are
    psi_some: float  # percent of the last 10 s in which some tasks stalled for memory
    psi_full: float  # all tasks
    state: str  # normal, slow, pause, shed
    base: int  # use that is taken not to be reserved
    capacity: int  # that may be reserved now
    reserved: int  # with shared=, by all processes
    peak_reserved: int
    inside: int  # reservations
    admitted: int
    released: int
    lost: int  # of processes that were killed
    refused: int  # tries that failed, TimeoutErrors, and coroutines that were cancelled
    shed: int  # that ended in Overloaded, in this process
    waiting: int
    blocked: float  # seconds waited, summed over waits that have ended
    measured: int  # how often
    is_shutdown: bool


@dataclass(frozen=True)
class WatermarkStats:
    """One instant of a `weir.Watermark`.

    The law: `added == subtracted + level`.
    """

    name: str | None
    high: int
    low: int
    level: int
    added: int
    subtracted: int
    peak: int  # the highest level that an add() has seen
    pauses: int
    paused_for: float  # seconds in all, the present pause included
    blocked: float  # seconds waited, summed over the drains whose wait has ended
    waiting: int  # threads and coroutines
    is_paused: bool
    is_closed: bool


@dataclass(frozen=True)
class FlowBudgetStats:
    """One instant of a `weir.aio.FlowBudget`, in bytes.

    The law: `granted == returned + used`.
    """

    name: str | None
    limit: int
    used: int
    peak: int
    granted: int
    returned: int  # taken by a kernel, or dropped with a connection
    waiting: int  # writers in line


@dataclass(frozen=True)
class FlowWriterStats:
    """One instant of a `weir.aio.FlowWriter`, in bytes.

    The law: `accepted == delivered + dropped + buffered`.
    """

    high: int
    low: int
    accepted: int  # given to the transport
    delivered: int  # taken by the kernel
    dropped: int  # buffered when the connection was lost (when last heard of: it may be less)
    buffered: int
    peak: int  # the most ever buffered
    held: int  # of the total
    pauses: int  # how often the buffer was full
    paused_for: float  # seconds in all, the present pause included
    waiting: int  # calls that wait for the buffer, the total or the end
    is_paused: bool
    is_closed: bool
