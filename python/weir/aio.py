"""weir for event loops: what asyncio has no bounded form of."""

from __future__ import annotations

from weir._writer import FlowBudget, FlowWriter

__all__ = ["FlowBudget", "FlowWriter"]
