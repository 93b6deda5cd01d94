"""The workloads. Each module has `CASES`: name -> Case."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Run = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One measured thing.

    Attributes:
        inputs: makes the arrays, the same in every process.
        peers: for each peer a function of the inputs that prepares (compiles, warms up) and returns the call to time;
            the call returns array-likes in a fixed order.
        reference: the right result in float64 NumPy, of the same inputs.
        tolerance: largest allowed error relative to the largest magnitude of the result.
        flops, bytes: work of one call, for percent of peak.
    """

    inputs: Callable[[], dict[str, Any]]
    peers: dict[str, Callable[..., Run]]
    reference: Callable[..., Any] | None = None
    tolerance: float = 1e-4
    flops: float = 0.0
    bytes: float = 0.0
    notes: str = field(default="")


def load(prefix: str = "") -> dict[str, dict[str, Case]]:
    """Cases by workload, for workloads whose name begins with `prefix`."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith(prefix):
            found[module.name] = importlib.import_module(f"{__name__}.{module.name}").CASES
    return dict(sorted(found.items()))
