"""How far results are from the right ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def errors(found: Sequence[Any], right: Sequence[Any]) -> dict[str, float]:
    """The worst over all results of the largest error over the largest magnitude, and of the root mean square error over the
    root mean square."""
    most = square = 0.0
    for one, wanted in zip(found, right, strict=True):
        wanted = np.asarray(wanted)
        if not wanted.size:
            continue
        error = np.abs(np.asarray(one).reshape(wanted.shape).astype(wanted.dtype) - wanted).astype(np.float64)
        size = np.abs(wanted).astype(np.float64)
        most = worst(most, float(error.max() / max(size.max(), 1e-300)))
        square = worst(square, float(np.sqrt(np.mean(error**2) / max(np.mean(size**2), 1e-300))))
    return {"max_error": most, "rms_error": square}


def worst(first: float, second: float) -> float:
    """The larger one; not a number is worst."""
    return second if not second <= first else first
