"""gelu_tanh(a x + b) * tanh(y) + exp(-x x) on ten million float32; checked but not timed: its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from peers import jax as jax_peer
from peers import numpy as numpy_peer
from peers import onnx as onnx_peer
from peers import pierian as pierian_peer
from peers import tensorflow as tf_peer
from peers import torch as torch_peer

from workloads import Case, Run

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


def _tf_chain(tf: Any, x: Any, y: Any) -> Any:
    return tf.nn.gelu(x * A + B, approximate=True) * tf.tanh(y) + tf.exp(-(x * x))


def _jax_chain(jnp: Any, x: Any, y: Any) -> Any:
    import jax

    return jax.nn.gelu(x * A + B, approximate=True) * jnp.tanh(y) + jnp.exp(-(x * x))


def _torch_chain(torch: Any, x: Any, y: Any) -> Any:
    gelu = torch.nn.functional.gelu(x * A + B, approximate="tanh")
    return gelu * torch.tanh(y) + torch.exp(-(x * x))


def _numba(data: dict[str, Any]) -> Run:
    import numba

    def kernel(x: Any, y: Any, out: Any) -> Any:
        for i in numba.prange(len(x)):
            z = x[i] * np.float32(A) + np.float32(B)
            inner = (z + z * z * z * np.float32(0.044715)) * np.float32(C)
            gelu = z * np.float32(0.5) * (np.tanh(inner) + np.float32(1))
            out[i] = gelu * np.tanh(y[i]) + np.exp(-(x[i] * x[i]))
        return out

    return numpy_peer.compiled(kernel, {**data, "out": np.empty(N, np.float32)})


def _model(data: dict[str, Any]) -> bytes:
    from onnx.helper import make_node as node

    nodes = [
        node("Mul", ["x", "a"], ["ax"]), node("Add", ["ax", "b"], ["z"]), node("Gelu", ["z"], ["g"], approximate="tanh"),
        node("Tanh", ["y"], ["t"]), node("Mul", ["g", "t"], ["gt"]), node("Mul", ["x", "x"], ["xx"]),
        node("Neg", ["xx"], ["minus"]), node("Exp", ["minus"], ["e"]), node("Add", ["gt", "e"], ["out"]),
    ]  # fmt: skip
    constants = {"a": np.float32(A), "b": np.float32(B)}
    return onnx_peer.model(nodes, data, {"out": (np.float32, [N])}, constants)


def _gradient(p: Any, x: Any, y: Any) -> Any:
    return p.gradients(p.sum(chain(p, x, y)), [x, y])


def _gradient_reference(x: Any, y: Any) -> Any:
    z = x * A + B
    t, s = np.tanh((z + z * z * z * 0.044715) * C), np.tanh(y)
    gelu, slope = z * 0.5 * (t + 1), 0.5 * (t + 1) + z * 0.5 * (1 - t * t) * (z * z * 3 * 0.044715 + 1) * C
    return slope * A * s - np.exp(-(x * x)) * x * 2, gelu * (1 - s * s)


CASES = {
    "chain_10M": Case(
        inputs,
        {
            "pierian": lambda d: pierian_peer.graph(chain, d),
            "numpy": lambda d: numpy_peer.function(chain, d),
            "torch": lambda d: torch_peer.function(_torch_chain, d),
            "torch_compile": lambda d: torch_peer.function(_torch_chain, d, compile=True),
            "jax": lambda d: jax_peer.function(_jax_chain, d),
            "numba": _numba,
            "tf_function": lambda d: tf_peer.function(_tf_chain, d),
            "tf_xla": lambda d: tf_peer.function(_tf_chain, d, xla=True),
            "ort": lambda d: onnx_peer.ort(_model(d), d),
            "openvino": lambda d: onnx_peer.openvino(_model(d), d),
        },
        lambda x, y: chain(np, x, y),
        1e-5,
        flops=18.0 * N,
        bytes=12.0 * N,
    )
}
CHECKS = {
    "chain_gradient": Case(inputs, {"pierian": lambda d: pierian_peer.graph(_gradient, d)}, _gradient_reference, 1e-5)
}
