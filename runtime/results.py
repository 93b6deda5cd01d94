"""Memory for results."""

from __future__ import annotations

import functools
import math
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from pierian.runtime.memory import COUNTS_REFERENCES, PAGE

Array = np.ndarray[Any, Any]
_Block = tuple[Array, int]  # memory, and where in it a multiple of the alignment is
# Results from this many bytes on lie in memory that is used again.
LARGE = 128 * 1024
# Blocks of one size kept for this, and how many sizes.
KEPT, KEPT_SIZES = 8, 256


class ResultMemory:
    """Arrays for results. The memory of large ones is used again once nobody holds a result in it any more: fresh pages from the
    system cost more than the work: 40 MB take 4.3 ms at first touch and 2.8 ms to write anew."""

    def __init__(self) -> None:
        self._blocks: dict[int, deque[_Block]] = {}

    def maker(self, shape: tuple[int, ...], dtype: Any) -> Callable[[], Array]:
        """What makes new arrays of one size, not initialized."""
        small = math.prod(shape) * dtype.itemsize < LARGE
        return functools.partial(np.empty if small else self.array, shape, dtype)

    def array(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """A new array, not initialized."""
        size = math.prod(shape) * dtype.itemsize
        if size < LARGE:
            return np.empty(shape, dtype)
        blocks = self._blocks.get(size)
        if blocks is None:
            blocks = self._blocks.setdefault(size, deque(maxlen=KEPT))
            if len(self._blocks) > KEPT_SIZES:
                self._blocks.pop(next(iter(self._blocks)), None)
        block = self._free(blocks)
        if block is None:
            memory = np.empty(size + PAGE, np.uint8)
            block = memory, -memory.ctypes.data % PAGE
        memory, start = block
        result = memory[start : start + size].view(dtype).reshape(shape)
        blocks.append(block)
        return result

    def _free(self, blocks: deque[_Block]) -> _Block | None:
        """A block that no result lies in, taken out, so that no other thread finds it."""
        if not COUNTS_REFERENCES:
            return None
        for _ in range(len(blocks)):
            try:
                block = blocks.popleft()
            except IndexError:
                return None
            # The pair and the argument of getrefcount hold it; a result in it is one more.
            if sys.getrefcount(block[0]) == 2:
                return block
            blocks.append(block)
        return None

    def clear(self) -> None:
        """Forget the memory nobody holds a result in, and leave the rest to its holders."""
        self._blocks.clear()
