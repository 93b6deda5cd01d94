"""Single convolutions, NCHW, batch 1; the filters stand in the graph as constants, as in a network that is run."""

from __future__ import annotations

from typing import Any

import numpy as np
from frameworks import jax_function, pierian_graph, torch_function

from workloads import Case


def _case(channels: int, outputs: int, size: int, window: int, stride: int = 1, groups: int = 1) -> Case:
    pad = window // 2
    out = (size + 2 * pad - window) // stride + 1

    def inputs() -> dict[str, Any]:
        rng = np.random.default_rng(15)
        return {
            "x": rng.standard_normal((1, channels, size, size), dtype=np.float32),
            "w": rng.standard_normal((outputs, channels // groups, window, window), dtype=np.float32),
        }

    def pierian(p: Any, x: Any, w: Any) -> Any:
        filters = p.permute_dims(w, (2, 3, 1, 0))
        return p.nn.conv2d(x, filters, stride, [(pad, pad)] * 2, "NCHW")

    def torch(t: Any, x: Any, w: Any) -> Any:
        return t.nn.functional.conv2d(x, w, stride=stride, padding=pad, groups=groups)

    def jax(jnp: Any, x: Any, w: Any) -> Any:
        from jax import lax

        return lax.conv_general_dilated(x, w, (stride, stride), [(pad, pad)] * 2, feature_group_count=groups)

    def reference(x: Any, w: Any) -> Any:
        wide = np.pad(x.astype(np.float64), [(0, 0), (0, 0), (pad, pad), (pad, pad)])
        seen = np.lib.stride_tricks.sliding_window_view(wide, (window, window), (2, 3))[:, :, ::stride, ::stride]
        if groups > 1:
            return np.einsum("bchwuv,cuv->bchw", seen, w[:, 0])
        return np.moveaxis(np.tensordot(seen, w.astype(np.float64), ((1, 4, 5), (1, 2, 3))), -1, 1)

    return Case(
        inputs,
        {
            "pierian": lambda d: pierian_graph(pierian, d, ["w"]),
            "torch": lambda d: torch_function(torch, d),
            "torch_compile": lambda d: torch_function(torch, d, compile=True),
            "jax": lambda d: jax_function(jax, d),
        },
        reference,
        1e-5,
        flops=2.0 * out * out * outputs * channels // groups * window * window,
        bytes=4.0 * (channels * size * size + outputs * out * out),
    )


CASES = {
    "3x3_64_64_56": _case(64, 64, 56, 3),
    "1x1_256_64_56": _case(256, 64, 56, 1),
    "7x7s2_3_64_224": _case(3, 64, 224, 7, 2),
    "dw3x3_96_112": _case(96, 96, 112, 3, 1, 96),
    "3x3_512_512_7": _case(512, 512, 7, 3),
}
