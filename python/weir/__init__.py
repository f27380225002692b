"""weir: backpressure for Python.

    from weir import ThreadPoolExecutor     # or ProcessPoolExecutor, or Queue

A fast producer never drowns a slow consumer, memory never grows without bound, and nothing is lost
without being counted.
"""

from __future__ import annotations

from weir._weir import Queue, SharedBuffer, SharedQueue, __version__

TYPE_CHECKING = False  # without importing typing, which takes a quarter of a worker's start
if TYPE_CHECKING:
    from typing import Any

    from weir import aio, asgi, prometheus, strategies
    from weir._admission import OnFull
    from weir._bounded import BoundedExecutor, bounded
    from weir._breaker import BreakerState, CircuitBreaker, Throttle
    from weir._died import RemoteError, WorkerDied, WorkerNotStarted
    from weir._errors import (
        BacklogFull,
        BreakerOpen,
        Dropped,
        Overloaded,
        ShutDown,
        Throttled,
        TooLarge,
    )
    from weir._flow import Flow
    from weir._limit import AIMD, Gradient2, Limiter, LimitModel, LimitPermit, Vegas
    from weir._map import MapIterator
    from weir._memory import MemoryGovernor, MemoryReservation
    from weir._metrics_server import MetricsServer, serve_metrics
    from weir._monitor import History, Issue, Monitor
    from weir._observe import (
        METRICS_CONTENT_TYPE,
        ObjectStats,
        ProcessStats,
        Rates,
        Stats,
        Times,
        metrics,
        stats,
    )
    from weir._pipeline import Pipeline, Stage
    from weir._pipeline_report import PipelineReport, PipelineStats, StageStats
    from weir._process import ProcessPoolExecutor
    from weir._rate import Reservation, TokenBucket
    from weir._retry import Attempt, Jitter, Retry, RetryBudget, block_and_retry
    from weir._shared import shared_array
    from weir._spill import Spill
    from weir._stats import (
        BoundedStats,
        BreakerStats,
        FlowBudgetStats,
        FlowWriterStats,
        LimiterStats,
        MemoryStats,
        ProcessPoolStats,
        QueueStats,
        RetryBudgetStats,
        RetryStats,
        SharedQueueStats,
        ThreadPoolStats,
        ThrottleStats,
        TokenBucketStats,
        WatermarkStats,
    )
    from weir._thread import ThreadPoolExecutor
    from weir._watermark import Watermark

    BoundedProcessPoolExecutor = ProcessPoolExecutor
    BoundedThreadPoolExecutor = ThreadPoolExecutor

__all__ = [
    "AIMD",
    "METRICS_CONTENT_TYPE",
    "Attempt",
    "BacklogFull",
    "BoundedExecutor",
    "BoundedProcessPoolExecutor",
    "BoundedStats",
    "BoundedThreadPoolExecutor",
    "BreakerOpen",
    "BreakerState",
    "BreakerStats",
    "CircuitBreaker",
    "Dropped",
    "Flow",
    "FlowBudgetStats",
    "FlowWriterStats",
    "Gradient2",
    "History",
    "Issue",
    "Jitter",
    "LimitModel",
    "LimitPermit",
    "Limiter",
    "LimiterStats",
    "MapIterator",
    "MemoryGovernor",
    "MemoryReservation",
    "MemoryStats",
    "MetricsServer",
    "Monitor",
    "ObjectStats",
    "OnFull",
    "Overloaded",
    "Pipeline",
    "PipelineReport",
    "PipelineStats",
    "ProcessPoolExecutor",
    "ProcessPoolStats",
    "ProcessStats",
    "Queue",
    "QueueStats",
    "Rates",
    "RemoteError",
    "Reservation",
    "Retry",
    "RetryBudget",
    "RetryBudgetStats",
    "RetryStats",
    "SharedBuffer",
    "SharedQueue",
    "SharedQueueStats",
    "ShutDown",
    "Spill",
    "Stage",
    "StageStats",
    "Stats",
    "ThreadPoolExecutor",
    "ThreadPoolStats",
    "Throttle",
    "ThrottleStats",
    "Throttled",
    "Times",
    "TokenBucket",
    "TokenBucketStats",
    "TooLarge",
    "Vegas",
    "Watermark",
    "WatermarkStats",
    "WorkerDied",
    "WorkerNotStarted",
    "__version__",
    "aio",
    "asgi",
    "block_and_retry",
    "bounded",
    "metrics",
    "prometheus",
    "serve_metrics",
    "shared_array",
    "stats",
    "strategies",
]

# Loaded when somebody asks for it: a worker process needs next to nothing of this, and starts in
# half the time without.
_LATER = {
    "AIMD": ("weir._limit", "AIMD"),
    "Attempt": ("weir._retry", "Attempt"),
    "BacklogFull": ("weir._errors", "BacklogFull"),
    "BoundedExecutor": ("weir._bounded", "BoundedExecutor"),
    "BoundedProcessPoolExecutor": ("weir._process", "ProcessPoolExecutor"),
    "BoundedStats": ("weir._stats", "BoundedStats"),
    "BoundedThreadPoolExecutor": ("weir._thread", "ThreadPoolExecutor"),
    "BreakerOpen": ("weir._errors", "BreakerOpen"),
    "BreakerState": ("weir._breaker", "BreakerState"),
    "BreakerStats": ("weir._stats", "BreakerStats"),
    "CircuitBreaker": ("weir._breaker", "CircuitBreaker"),
    "Dropped": ("weir._errors", "Dropped"),
    "Flow": ("weir._flow", "Flow"),
    "FlowBudgetStats": ("weir._stats", "FlowBudgetStats"),
    "FlowWriterStats": ("weir._stats", "FlowWriterStats"),
    "Gradient2": ("weir._limit", "Gradient2"),
    "History": ("weir._monitor", "History"),
    "Issue": ("weir._monitor", "Issue"),
    "Jitter": ("weir._retry", "Jitter"),
    "LimitModel": ("weir._limit", "LimitModel"),
    "LimitPermit": ("weir._limit", "LimitPermit"),
    "Limiter": ("weir._limit", "Limiter"),
    "LimiterStats": ("weir._stats", "LimiterStats"),
    "METRICS_CONTENT_TYPE": ("weir._observe", "METRICS_CONTENT_TYPE"),
    "MapIterator": ("weir._map", "MapIterator"),
    "MemoryGovernor": ("weir._memory", "MemoryGovernor"),
    "MemoryReservation": ("weir._weir", "MemoryReservation"),
    "MemoryStats": ("weir._stats", "MemoryStats"),
    "MetricsServer": ("weir._metrics_server", "MetricsServer"),
    "Monitor": ("weir._monitor", "Monitor"),
    "ObjectStats": ("weir._observe", "ObjectStats"),
    "OnFull": ("weir._admission", "OnFull"),
    "Overloaded": ("weir._errors", "Overloaded"),
    "Pipeline": ("weir._pipeline", "Pipeline"),
    "PipelineReport": ("weir._pipeline_report", "PipelineReport"),
    "PipelineStats": ("weir._pipeline_report", "PipelineStats"),
    "ProcessPoolExecutor": ("weir._process", "ProcessPoolExecutor"),
    "ProcessPoolStats": ("weir._stats", "ProcessPoolStats"),
    "ProcessStats": ("weir._observe", "ProcessStats"),
    "QueueStats": ("weir._stats", "QueueStats"),
    "Rates": ("weir._observe", "Rates"),
    "RemoteError": ("weir._died", "RemoteError"),
    "Reservation": ("weir._rate", "Reservation"),
    "Retry": ("weir._retry", "Retry"),
    "RetryBudget": ("weir._retry", "RetryBudget"),
    "RetryBudgetStats": ("weir._stats", "RetryBudgetStats"),
    "RetryStats": ("weir._stats", "RetryStats"),
    "SharedQueueStats": ("weir._stats", "SharedQueueStats"),
    "ShutDown": ("weir._errors", "ShutDown"),
    "Spill": ("weir._spill", "Spill"),
    "Stage": ("weir._pipeline", "Stage"),
    "StageStats": ("weir._pipeline_report", "StageStats"),
    "Stats": ("weir._observe", "Stats"),
    "ThreadPoolExecutor": ("weir._thread", "ThreadPoolExecutor"),
    "ThreadPoolStats": ("weir._stats", "ThreadPoolStats"),
    "Throttle": ("weir._breaker", "Throttle"),
    "ThrottleStats": ("weir._stats", "ThrottleStats"),
    "Throttled": ("weir._errors", "Throttled"),
    "Times": ("weir._observe", "Times"),
    "TokenBucket": ("weir._rate", "TokenBucket"),
    "TokenBucketStats": ("weir._stats", "TokenBucketStats"),
    "TooLarge": ("weir._errors", "TooLarge"),
    "Vegas": ("weir._limit", "Vegas"),
    "Watermark": ("weir._watermark", "Watermark"),
    "WatermarkStats": ("weir._stats", "WatermarkStats"),
    "WorkerDied": ("weir._died", "WorkerDied"),
    "WorkerNotStarted": ("weir._died", "WorkerNotStarted"),
    "aio": ("weir.aio", ""),
    "asgi": ("weir.asgi", ""),
    "block_and_retry": ("weir._retry", "block_and_retry"),
    "bounded": ("weir._bounded", "bounded"),
    "metrics": ("weir._observe", "metrics"),
    "prometheus": ("weir.prometheus", ""),
    "serve_metrics": ("weir._metrics_server", "serve_metrics"),
    "shared_array": ("weir._shared", "shared_array"),
    "stats": ("weir._observe", "stats"),
    "strategies": ("weir.strategies", ""),
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'weir' has no attribute {name!r}")
    import importlib

    module, attribute = _LATER[name]
    value: Any = importlib.import_module(module)
    if attribute:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_LATER))
