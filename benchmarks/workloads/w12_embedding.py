"""Gather 8192 rows of 64 from a table of 100,000 rows; the gradient of that as a dense array."""

from __future__ import annotations

from typing import Any

import numpy as np
from frameworks import jax_function, numpy_function, pierian_graph, torch_function

from workloads import Case

ROWS, WIDTH, COUNT = 100_000, 64, 8192


def _inputs(*names: str) -> Any:
    def make() -> dict[str, Any]:
        rng = np.random.default_rng(12)
        data = {
            "table": rng.standard_normal((ROWS, WIDTH), dtype=np.float32),
            "indices": rng.integers(0, ROWS, COUNT).astype(np.int64),
            "updates": rng.standard_normal((COUNT, WIDTH), dtype=np.float32),
        }
        return {name: data[name] for name in names}

    return make


def _dense(indices: Any, updates: Any) -> Any:
    result = np.zeros((ROWS, WIDTH))
    np.add.at(result, indices, updates)
    return result


def _pierian_dense(p: Any, indices: Any, updates: Any) -> Any:
    return p.scatter_add(p.zeros((ROWS, WIDTH), p.float32), indices, updates)


def _torch_dense(t: Any, indices: Any, updates: Any) -> Any:
    return t.zeros((ROWS, WIDTH)).index_add_(0, indices, updates)


def _jax_dense(m: Any, indices: Any, updates: Any) -> Any:
    return m.zeros((ROWS, WIDTH), np.float32).at[indices].add(updates)


CASES = {
    "gather": Case(
        _inputs("table", "indices"),
        {
            "pierian": lambda d: pierian_graph(lambda p, table, indices: p.gather(table, indices), d),
            "numpy": lambda d: numpy_function(lambda m, table, indices: m.take(table, indices, 0), d),
            "torch": lambda d: torch_function(lambda t, table, indices: t.index_select(table, 0, indices), d),
            "jax": lambda d: jax_function(lambda m, table, indices: table[indices], d),
        },
        lambda table, indices: table[indices],
        0.0,
        bytes=8.0 * COUNT * WIDTH,
    ),
    "grad_dense": Case(
        _inputs("indices", "updates"),
        {
            "pierian": lambda d: pierian_graph(_pierian_dense, d),
            "numpy": lambda d: numpy_function(lambda m, indices, updates: _dense(indices, updates), d),
            "torch": lambda d: torch_function(_torch_dense, d),
            "jax": lambda d: jax_function(_jax_dense, d),
        },
        _dense,
        1e-6,
        bytes=4.0 * ROWS * WIDTH + 12.0 * COUNT * WIDTH,
    ),
}
