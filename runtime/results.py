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
    system cost more than the work: 40 MB take 4.3 ms at first touch and 2.8 ms to write anew. Of several free blocks the one used
    last comes first, what of it is in the caches need not be fetched: a layer norm of 12 MB takes 0.65 of the time with three of
    them in turn (Zen 4, two threads)."""

    def __init__(self) -> None:
        self._blocks: dict[int, deque[_Block]] = {}

    def maker(self, shape: tuple[int, ...], dtype: Any) -> Callable[[], Array]:
        """What makes new arrays of one size, not initialized."""
        size = math.prod(shape) * dtype.itemsize
        if size < LARGE:
            return functools.partial(np.empty, shape, dtype)
        blocks = self._blocks_of(size)
        take, keep, references, array = blocks.pop, blocks.append, sys.getrefcount, np.ndarray

        def make() -> Array:
            try:
                block = take()
                if not COUNTS_REFERENCES or references(block[0]) != _FREE:
                    keep(block)
                    block = _free(blocks) or _new_block(size)
            except IndexError:
                block = _new_block(size)
            result: Array = array(shape, dtype, block[0], block[1])
            keep(block)
            return result

        return make

    def _blocks_of(self, size: int) -> deque[_Block]:
        blocks = self._blocks.setdefault(size, deque(maxlen=KEPT))
        if len(self._blocks) > KEPT_SIZES:
            self._blocks.pop(next(iter(self._blocks)), None)
        return blocks

    def clear(self) -> None:
        """Forget the memory nobody holds a result in, and leave the rest to its holders."""
        for blocks in list(self._blocks.values()):
            blocks.clear()


# What is counted of the memory of a block that no result lies in: the pair and the argument of getrefcount hold it.
_FREE = 2


def _free(blocks: deque[_Block]) -> _Block | None:
    """The block used last of those that no result lies in, taken out, so that no other thread finds it."""
    if not COUNTS_REFERENCES:
        return None
    for _ in range(len(blocks)):
        try:
            block = blocks.pop()
        except IndexError:
            return None
        if sys.getrefcount(block[0]) == _FREE:
            return block
        blocks.appendleft(block)
    return None


def _new_block(size: int) -> _Block:
    memory = np.empty(size + PAGE, np.uint8)
    return memory, -memory.ctypes.data % PAGE
