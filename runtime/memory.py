"""Arrays that begin where a cache line does.

Vectors that lie across two cache lines cost two accesses each. NumPy's own allocations begin at multiples of 16; from four megabytes
on it asks the system for large pages, and that asking is all the difference they could make here.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# One cache line, and the widest vector.
ALIGNMENT = 64
# Where large blocks begin. Processors compare the last 12 bits of addresses before they let a load pass a store: a result that lies
# a little further into its page than the array it is computed from, which the system places 16 bytes behind the beginning of one,
# holds up every load (some 5 % of a layer norm of 12 MB on Zen 4).
PAGE = 4096
# Without a global interpreter lock a count of references says nothing.
COUNTS_REFERENCES = getattr(sys, "_is_gil_enabled", lambda: True)()


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """A new dense array, not initialized."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < ALIGNMENT:
        return np.empty(shape, dtype)
    block = np.empty(size + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + size].view(dtype).reshape(shape)


def aligned_copy(array: Any) -> Array:
    """A dense copy of an array."""
    found = aligned_empty(array.shape, array.dtype)
    found[...] = array
    return found
