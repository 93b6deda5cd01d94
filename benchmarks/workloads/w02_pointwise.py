"""gelu_tanh(a x + b) * tanh(y) + exp(-x x) on ten million float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from frameworks import jax_function, numpy_function, pierian_graph, torch_function

from workloads import Case

N = 10_000_000
A, B = 1.25, -0.5
C = 0.7978845608028654  # sqrt(2 / pi)


def inputs() -> dict[str, Any]:
    rng = np.random.default_rng(2)
    return {"x": rng.standard_normal(N, dtype=np.float32), "y": rng.standard_normal(N, dtype=np.float32)}


def chain(m: Any, x: Any, y: Any) -> Any:
    z = x * A + B
    gelu = z * 0.5 * (m.tanh((z + z * z * z * 0.044715) * C) + 1.0)
    return gelu * m.tanh(y) + m.exp(-(x * x))


def reference(x: Any, y: Any) -> Any:
    return chain(np, x.astype(np.float64), y.astype(np.float64))


CASES = {
    "chain_10M": Case(
        inputs,
        {
            "pierian": lambda d: pierian_graph(chain, d),
            "numpy": lambda d: numpy_function(chain, d),
            "torch": lambda d: torch_function(chain, d),
            "torch_compile": lambda d: torch_function(chain, d, compile=True),
            "jax": lambda d: jax_function(chain, d),
        },
        reference,
        1e-5,
        bytes=12.0 * N,
    )
}
