"""Matrix products in float32 (one in float64); constB: the right operand stands in the program as a constant and may be packed
beforehand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from peers import jax as jax_peer
from peers import numpy as numpy_peer
from peers import onnx as onnx_peer
from peers import pierian as pierian_peer
from peers import tensorflow as tf_peer
from peers import torch as torch_peer

from workloads import Case


def _matmul(m: Any, a: Any, b: Any) -> Any:
    return m.matmul(a, b)


def _case(left: tuple[int, ...], right: tuple[int, ...], dtype: Any = np.float32, constant: bool = False) -> Case:
    held = ["b"] if constant else []
    out = (*left[:-1], right[-1])

    def inputs() -> dict[str, Any]:
        rng = np.random.default_rng(6)
        return {"a": rng.standard_normal(left).astype(dtype), "b": rng.standard_normal(right).astype(dtype)}

    def serve(engine: Any) -> Any:
        def run(data: dict[str, Any]) -> Any:
            from onnx.helper import make_node

            fed = {name: array for name, array in data.items() if name not in held}
            constants = {name: data[name] for name in held}
            return engine(
                onnx_peer.model([make_node("MatMul", ["a", "b"], ["c"])], fed, {"c": (dtype, out)}, constants), fed
            )

        return run

    return Case(
        inputs,
        {
            "pierian": lambda d: pierian_peer.graph(_matmul, d, held),
            "numpy": lambda d: numpy_peer.function(_matmul, d),
            "torch": lambda d: torch_peer.function(_matmul, d),
            "torch_compile": lambda d: torch_peer.function(_matmul, d, compile=True, constants=held),
            "jax": lambda d: jax_peer.function(_matmul, d, held),
            "tf_function": lambda d: tf_peer.function(_matmul, d, constants=held),
            "tf_xla": lambda d: tf_peer.function(_matmul, d, xla=True, constants=held),
            "ort": serve(onnx_peer.ort),
            "openvino": serve(onnx_peer.openvino),
        },
        lambda a, b: a @ b,
        1e-4 if dtype == np.float32 else 1e-12,
        flops=2.0 * math.prod(left) * right[-1],
        bytes=float(math.prod(left) + math.prod(right) + math.prod(out)) * np.dtype(dtype).itemsize,
        wide=dtype == np.float64,
    )


def _gradient(p: Any, a: Any, b: Any) -> Any:
    c = p.matmul(a, b)
    return p.gradients(p.sum(c * c), [a, b])


def _gradient_reference(a: Any, b: Any) -> Any:
    dc = 2 * (a @ b)
    return dc @ np.swapaxes(b, -1, -2), np.swapaxes(a, -1, -2) @ dc


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
CHECKS = {
    f"{name}_gradient": Case(
        CASES[name].inputs, {"pierian": lambda d: pierian_peer.graph(_gradient, d)}, _gradient_reference, 1e-4
    )
    for name in ("sq256", "m8_n1024_k1024", "batched_96x128x64x128")
}
