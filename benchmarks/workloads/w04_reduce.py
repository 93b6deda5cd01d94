"""Reductions of a 4096x4096 float32 matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from frameworks import jax_function, numpy_function, pierian_graph, torch_function

from workloads import Case

N = 4096


def inputs() -> dict[str, Any]:
    return {"x": np.random.default_rng(5).standard_normal((N, N), dtype=np.float32)}


def _sum(axis: int | None) -> Case:
    return Case(
        inputs,
        {
            "pierian": lambda d: pierian_graph(lambda p, x: p.sum(x, axis=axis), d),
            "numpy": lambda d: numpy_function(lambda m, x: x.sum(axis), d),
            "torch": lambda d: torch_function(lambda t, x: x.sum() if axis is None else x.sum(axis), d),
            "torch_compile": lambda d: torch_function(
                lambda t, x: x.sum() if axis is None else x.sum(axis), d, compile=True
            ),
            "jax": lambda d: jax_function(lambda m, x: x.sum(axis), d),
        },
        lambda x: x.sum(axis, dtype=np.float64),
        1e-4,
        bytes=4.0 * N * N,
    )


CASES = {
    "sum_axis0": _sum(0),
    "sum_axis1": _sum(1),
    "sum_all": _sum(None),
    "argmax_axis1": Case(
        inputs,
        {
            "pierian": lambda d: pierian_graph(lambda p, x: p.argmax(x, axis=1), d),
            "numpy": lambda d: numpy_function(lambda m, x: x.argmax(1), d),
            "torch": lambda d: torch_function(lambda t, x: x.argmax(1), d),
            "torch_compile": lambda d: torch_function(lambda t, x: x.argmax(1), d, compile=True),
            "jax": lambda d: jax_function(lambda m, x: x.argmax(1), d),
        },
        lambda x: x.argmax(1),
        0.0,
        bytes=4.0 * N * N,
    ),
}
