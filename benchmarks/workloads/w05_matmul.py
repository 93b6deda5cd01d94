"""Matrix products in float32 (one in float64); constB: the right operand stands in the graph as a constant."""

from __future__ import annotations

from typing import Any

import numpy as np
from frameworks import jax_function, numpy_function, pierian_graph, torch_function

from workloads import Case


def _case(left: tuple[int, ...], right: tuple[int, ...], dtype: Any = np.float32, constant: bool = False) -> Case:
    def inputs() -> dict[str, Any]:
        rng = np.random.default_rng(6)
        return {"a": rng.standard_normal(left).astype(dtype), "b": rng.standard_normal(right).astype(dtype)}

    def matmul(m: Any, a: Any, b: Any) -> Any:
        return m.matmul(a, b)

    return Case(
        inputs,
        {
            "pierian": lambda d: pierian_graph(matmul, d, ["b"] if constant else []),
            "numpy": lambda d: numpy_function(matmul, d),
            "torch": lambda d: torch_function(matmul, d),
            "jax": lambda d: jax_function(matmul, d),
        },
        lambda a, b: a.astype(np.float64) @ b.astype(np.float64),
        1e-4,
        flops=2.0 * np.prod(left) * right[-1],
        bytes=float(np.prod(left) + np.prod(right)) * np.dtype(dtype).itemsize,
    )


CASES = {
    **{f"sq{n}": _case((n, n), (n, n)) for n in (64, 128, 256, 512, 1024, 2048)},
    "m1_n4096_k4096": _case((1, 4096), (4096, 4096)),
    "m1_n4096_k4096_constB": _case((1, 4096), (4096, 4096), constant=True),
    "m8_n1024_k1024": _case((8, 1024), (1024, 1024)),
    "m8_n1024_k1024_constB": _case((8, 1024), (1024, 1024), constant=True),
    "m32_n768_k3072": _case((32, 3072), (3072, 768)),
    "m32_n768_k3072_constB": _case((32, 3072), (3072, 768), constant=True),
    "batched_96x128x64x128": _case((96, 128, 64), (96, 64, 128)),
    "f64_512": _case((512, 512), (512, 512), np.float64),
}
