"""How a `SharedQueue` gets into a child that is not forked: its descriptor is handed over."""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing import context, reduction
from typing import Any

from weir._weir import SharedQueue


def reduce(
    queue: SharedQueue[Any],
) -> tuple[Callable[..., SharedQueue[Any]], tuple[type[SharedQueue[Any]], Any, str | None]]:
    """Pickles a queue for a process that is being started; RuntimeError at any other time."""
    context.assert_spawning(queue)
    return attach, (type(queue), reduction.DupFd(queue.fileno()), queue.name)


def attach(cls: type[SharedQueue[Any]], duplicate: Any, name: str | None) -> SharedQueue[Any]:
    fd = duplicate.detach()
    try:
        return cls.attach(fd, name=name)
    finally:
        os.close(fd)
