"""shared_array: a NumPy array that is born in shared memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from weir._weir import SharedBuffer

if TYPE_CHECKING:
    import numpy


def shared_array(shape: int | tuple[int, ...], dtype: Any = float) -> numpy.ndarray[Any, Any]:
    """A NumPy array of zeros in a `SharedBuffer` of its own, in C order.

    It, and any contiguous part of it, travels to the workers of a `ProcessPoolExecutor` and back
    without a copy, and each side sees what the other writes.  Raises ImportError without NumPy,
    MemoryError when there is not so much shared memory, ValueError for a dtype of objects.
    """
    try:
        import numpy
    except ImportError:
        raise ImportError(
            "weir.shared_array needs NumPy, which is not installed; weir.SharedBuffer does not"
        ) from None
    kind = numpy.dtype(dtype)
    if kind.hasobject:
        raise ValueError(f"a shared array cannot hold Python objects, as dtype {kind} does")
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if any(n < 0 for n in shape):
        raise ValueError(f"negative dimensions are not allowed: {shape}")
    nbytes = math.prod(shape) * kind.itemsize
    array: numpy.ndarray[Any, Any] = numpy.ndarray(
        shape,
        kind,
        memoryview(SharedBuffer(max(nbytes, 1))),
    )
    return array
