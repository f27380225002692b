"""weir.aio: many things at a time in asyncio, and never more than were asked for.

    from weir.aio import amap, as_completed, gather, TaskGroup      # calls, at most `limit` of them
    from weir.aio import copy, read_chunks                          # bytes, one chunk at a time
    from weir.aio import FlowBudget, FlowWriter                     # writers, so many bytes in all

Sources are pulled, results wait for their reader in a bound, and nothing outlives the `async for`,
`await` or `async with` it belongs to.  On asyncio's own event loops and on uvloop's; everything is
for one loop, but a weir.Limiter or weir.TokenBucket that it is given may be shared with others.
"""

from __future__ import annotations

from weir._gather import AsyncResults, amap, as_completed, gather
from weir._group import TaskGroup
from weir._streams import copy, read_chunks
from weir._writer import FlowBudget, FlowWriter

__all__ = [
    "AsyncResults",
    "FlowBudget",
    "FlowWriter",
    "TaskGroup",
    "amap",
    "as_completed",
    "copy",
    "gather",
    "read_chunks",
]
