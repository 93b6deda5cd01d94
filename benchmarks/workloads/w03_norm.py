"""softmax and logsumexp on 4096x1024, layer norm on 4096x768, along the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np
from frameworks import jax_function, numpy_function, pierian_graph, torch_function

from workloads import Case

ROWS = 4096


def matrix() -> dict[str, Any]:
    return {"x": np.random.default_rng(3).standard_normal((ROWS, 1024), dtype=np.float32) * 3}


def norm_inputs() -> dict[str, Any]:
    rng = np.random.default_rng(4)
    return {
        "x": rng.standard_normal((ROWS, 768), dtype=np.float32),
        "scale": rng.standard_normal(768, dtype=np.float32),
        "shift": rng.standard_normal(768, dtype=np.float32),
    }


def np_softmax(m: Any, x: Any) -> Any:
    e = m.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def np_logsumexp(m: Any, x: Any) -> Any:
    top = x.max(-1, keepdims=True)
    return m.log(m.exp(x - top).sum(-1)) + top[:, 0]


def np_layernorm(m: Any, x: Any, scale: Any, shift: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    centered = x - mean
    variance = (centered * centered).mean(-1, keepdims=True)
    return centered / m.sqrt(variance + 1e-5) * scale + shift


def _f64(function: Any) -> Any:
    return lambda **arrays: function(np, **{name: array.astype(np.float64) for name, array in arrays.items()})


def _pierian_layernorm(p: Any, x: Any, scale: Any, shift: Any) -> Any:
    mean = p.reduce_mean(x, axis=-1, keepdims=True)
    centered = x - mean
    variance = p.reduce_mean(centered * centered, axis=-1, keepdims=True)
    return centered * p.rsqrt(variance + 1e-5) * scale + shift


def _torch_layernorm(t: Any, x: Any, scale: Any, shift: Any) -> Any:
    return t.nn.functional.layer_norm(x, (768,), scale, shift)


def _case(make: Any, ours: Any, plain: Any, torch: Any, floats: float) -> Case:
    return Case(
        make,
        {
            "pierian": lambda d: pierian_graph(ours, d),
            "numpy": lambda d: numpy_function(plain, d),
            "torch": lambda d: torch_function(torch, d),
            "torch_compile": lambda d: torch_function(torch, d, compile=True),
            "jax": lambda d: jax_function(plain, d),
        },
        _f64(plain),
        1e-5,
        bytes=4.0 * floats,
    )


CASES = {
    "softmax": _case(
        matrix, lambda p, x: p.softmax(x, axis=-1), np_softmax, lambda t, x: t.softmax(x, -1), 2 * ROWS * 1024
    ),
    "layernorm": _case(norm_inputs, _pierian_layernorm, np_layernorm, _torch_layernorm, 2 * ROWS * 768),
    "logsumexp": _case(
        matrix, lambda p, x: p.logsumexp(x, axis=-1), np_logsumexp, lambda t, x: t.logsumexp(x, -1), ROWS * 1024
    ),
}
