"""The workloads. Each module has `CASES`: name -> Case, and perhaps `CHECKS`: cases that the tests run but nobody times."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Run = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One measured thing.

    Attributes:
        inputs: makes the arrays, the same in every process.
        peers: for each peer a function of the inputs that prepares (compiles, warms up) and returns the call to time;
            the call returns array-likes in a fixed order.
        reference: the right results in NumPy, computed in the element type of the inputs it is given.
        tolerance: largest allowed error relative to the largest magnitude of a result.
        flops: arithmetic operations of one call, an elementary function counted as one.
        bytes: what one call must read and write at least.
        wide: whether the arithmetic is float64.
        floor: peers that are shown but not ranked: machine code by hand for this one case.
        calls: how many calls after each other make up the results (a training step changes its own state).
    """

    inputs: Callable[[], dict[str, Any]]
    peers: dict[str, Callable[[dict[str, Any]], Run]]
    reference: Callable[..., Any]
    tolerance: float = 1e-4
    flops: float = 0.0
    bytes: float = 0.0
    wide: bool = False
    floor: tuple[str, ...] = ()
    calls: int = 1


def load(prefix: str = "", attribute: str = "CASES") -> dict[str, dict[str, Case]]:
    """Cases by workload, for workloads whose name begins with `prefix`."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith(prefix):
            found[module.name] = getattr(importlib.import_module(f"{__name__}.{module.name}"), attribute, {})
    return dict(sorted(found.items()))


WIDER = {np.dtype(np.float32): np.float64, np.dtype(np.float64): np.longdouble}


def widened(inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs in the next wider floating-point type: what the reference takes to be right."""
    return {name: array.astype(WIDER.get(array.dtype, array.dtype)) for name, array in inputs.items()}


class Viewed:
    """A call and how to look at its results after it: for one that changes something in place, or in another layout."""

    def __init__(self, call: Run, results: Run) -> None:
        self._call, self.results = call, results

    def __call__(self) -> Any:
        return self._call()


def results(case: Case, run: Run) -> list[Any]:
    """What the first calls give, as arrays that stay."""
    found: list[Any] = []
    for _ in range(case.calls):
        given = run()
        if not isinstance(run, Viewed):
            found += given if isinstance(given, (list, tuple)) else [given]
            found = [np.array(one) for one in found]
    return [np.array(run.results())] if isinstance(run, Viewed) else found
