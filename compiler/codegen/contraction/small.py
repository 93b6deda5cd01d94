"""Which work of a contraction is too little to share out."""

from __future__ import annotations

from pierian.compiler.dim import Dim

# Multiplications below which a product stays on the calling thread: 4 us of work, from where two threads are faster (GRAIN of
# loops/plan.py has the measurement).
SMALL_WORK = 1 << 18
# Elements below which one thread packs them sooner than two have been called.
SMALL_PACKING = 1 << 14


def is_at_most(size: Dim, limit: int) -> bool:
    """Whether a size is known to be no larger."""
    return isinstance(size, int) and size <= limit
