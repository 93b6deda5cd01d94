"""A chain of n distinct small operators on 1000 floats. `first` (in the JSON) is build + compile + first run."""

from __future__ import annotations

from typing import Any

import numpy as np
from frameworks import jax_function, numpy_function, pierian_graph

from workloads import Case


def inputs() -> dict[str, Any]:
    return {"x": np.random.default_rng(8).standard_normal(1000).astype(np.float32)}


def _chain(n: int) -> Any:
    def chain(m: Any, x: Any) -> Any:
        for i in range(n):
            if i % 3 == 0:
                x = x + np.float32(0.001 * i).item()
            elif i % 3 == 1:
                x = x * (1.0 - 1e-5 * i)
            else:
                x = m.tanh(x)
        return x

    return chain


def _case(n: int) -> Case:
    chain = _chain(n)
    peers = {"pierian": lambda d: pierian_graph(chain, d), "numpy": lambda d: numpy_function(chain, d)}
    if n <= 1000:
        peers["jax"] = lambda d: jax_function(chain, d)
    return Case(inputs, peers, lambda x: chain(np, x.astype(np.float64)), 1e-3)


CASES = {f"n{n}": _case(n) for n in (100, 1000, 10000)}
