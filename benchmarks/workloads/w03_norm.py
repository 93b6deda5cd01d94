"""softmax and logsumexp on 4096x1024, layer norm on 4096x768 (with scale and shift), along the last axis; checked but not
timed: their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from peers import jax as jax_peer
from peers import numpy as numpy_peer
from peers import onnx as onnx_peer
from peers import pierian as pierian_peer
from peers import tensorflow as tf_peer
from peers import torch as torch_peer

from workloads import Case, Run

ROWS, WIDE, NARROW, EPSILON = 4096, 1024, 768, 1e-5


def matrix() -> dict[str, Any]:
    return {"x": np.random.default_rng(3).standard_normal((ROWS, WIDE), dtype=np.float32) * 3}


def norm_inputs() -> dict[str, Any]:
    rng = np.random.default_rng(4)
    return {
        "x": rng.standard_normal((ROWS, NARROW), dtype=np.float32),
        "scale": rng.standard_normal(NARROW, dtype=np.float32),
        "shift": rng.standard_normal(NARROW, dtype=np.float32),
    }


def _softmax(m: Any, x: Any) -> Any:
    e = m.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _logsumexp(m: Any, x: Any) -> Any:
    top = x.max(-1, keepdims=True)
    return m.log(m.exp(x - top).sum(-1)) + top[:, 0]


def _layernorm(m: Any, x: Any, scale: Any, shift: Any) -> Any:
    centered = x - x.mean(-1, keepdims=True)
    variance = (centered * centered).mean(-1, keepdims=True)
    return centered / m.sqrt(variance + EPSILON) * scale + shift


def _layernorm_of(rsqrt: Callable[[Any], Any]) -> Callable[..., Any]:
    """Ours and TensorFlow's, who have `rsqrt` in different places."""

    def layernorm(p: Any, x: Any, scale: Any, shift: Any) -> Any:
        centered = x - p.reduce_mean(x, axis=-1, keepdims=True)
        variance = p.reduce_mean(centered * centered, axis=-1, keepdims=True)
        return centered * rsqrt(p)(variance + EPSILON) * scale + shift

    return layernorm


def _jax_layernorm(jnp: Any, x: Any, scale: Any, shift: Any) -> Any:
    import jax

    centered = x - x.mean(-1, keepdims=True)
    return centered * jax.lax.rsqrt((centered * centered).mean(-1, keepdims=True) + EPSILON) * scale + shift


# --- Numba: two or three passes over a row that is in cache --------------------------------------------------------


def _numba_softmax(data: dict[str, Any]) -> Run:
    import numba

    def kernel(x: Any, out: Any) -> Any:
        for i in numba.prange(x.shape[0]):
            top = x[i, 0]
            for j in range(x.shape[1]):
                top = max(top, x[i, j])
            total = np.float32(0)
            for j in range(x.shape[1]):
                e = np.exp(x[i, j] - top)
                out[i, j] = e
                total += e
            factor = np.float32(1) / total
            for j in range(x.shape[1]):
                out[i, j] *= factor
        return out

    return numpy_peer.compiled(kernel, {**data, "out": np.empty((ROWS, WIDE), np.float32)})


def _numba_logsumexp(data: dict[str, Any]) -> Run:
    import numba

    def kernel(x: Any, out: Any) -> Any:
        for i in numba.prange(x.shape[0]):
            top = x[i, 0]
            for j in range(x.shape[1]):
                top = max(top, x[i, j])
            total = np.float32(0)
            for j in range(x.shape[1]):
                total += np.exp(x[i, j] - top)
            out[i] = np.log(total) + top
        return out

    return numpy_peer.compiled(kernel, {**data, "out": np.empty(ROWS, np.float32)})


def _numba_layernorm(data: dict[str, Any]) -> Run:
    import numba

    def kernel(x: Any, scale: Any, shift: Any, out: Any) -> Any:
        part = np.float32(1 / x.shape[1])
        for i in numba.prange(x.shape[0]):
            total = np.float32(0)
            for j in range(x.shape[1]):
                total += x[i, j]
            mean = total * part
            squares = np.float32(0)
            for j in range(x.shape[1]):
                squares += (x[i, j] - mean) * (x[i, j] - mean)
            factor = np.float32(1) / np.sqrt(squares * part + np.float32(EPSILON))
            for j in range(x.shape[1]):
                out[i, j] = (x[i, j] - mean) * factor * scale[j] + shift[j]
        return out

    return numpy_peer.compiled(kernel, {**data, "out": np.empty((ROWS, NARROW), np.float32)})


# --- ONNX -----------------------------------------------------------------------------------------------------------


def _onnx_softmax(data: dict[str, Any]) -> bytes:
    from onnx.helper import make_node

    return onnx_peer.model([make_node("Softmax", ["x"], ["y"], axis=-1)], data, {"y": (np.float32, [ROWS, WIDE])})


def _onnx_logsumexp(data: dict[str, Any]) -> bytes:
    from onnx.helper import make_node

    node = make_node("ReduceLogSumExp", ["x", "axes"], ["y"], keepdims=0)
    return onnx_peer.model([node], data, {"y": (np.float32, [ROWS])}, {"axes": np.array([1], np.int64)})


def _onnx_layernorm(data: dict[str, Any]) -> bytes:
    from onnx.helper import make_node

    node = make_node("LayerNormalization", ["x", "scale", "shift"], ["y"], axis=-1, epsilon=EPSILON)
    constants = {name: data[name] for name in ("scale", "shift")}
    return onnx_peer.model([node], {"x": data["x"]}, {"y": (np.float32, [ROWS, NARROW])}, constants)


# --- gradients of sum(square) in NumPy --------------------------------------------------------------------------------


def _softmax_gradient(x: Any) -> Any:
    y = _softmax(np, x)
    return 2 * y * (y - (y * y).sum(-1, keepdims=True))


def _logsumexp_gradient(x: Any) -> Any:
    return 2 * _logsumexp(np, x)[:, None] * _softmax(np, x)


def _layernorm_gradient(x: Any, scale: Any, shift: Any) -> Any:
    centered = x - x.mean(-1, keepdims=True)
    factor = 1 / np.sqrt((centered * centered).mean(-1, keepdims=True) + EPSILON)
    normal = centered * factor
    dy = 2 * (normal * scale + shift)
    dn = dy * scale
    dx = (dn - dn.mean(-1, keepdims=True) - normal * (dn * normal).mean(-1, keepdims=True)) * factor
    return dx, (dy * normal).sum(0), dy.sum(0)


def _gradient(function: Any) -> Any:
    def gradient(p: Any, **given: Any) -> Any:
        y = function(p, **given)
        return p.gradients(p.sum(y * y), list(given.values()))

    return gradient


OURS: dict[str, Any] = {
    "softmax": lambda p, x: p.softmax(x, axis=-1),
    "layernorm": _layernorm_of(lambda p: p.rsqrt),
    "logsumexp": lambda p, x: p.logsumexp(x, axis=-1),
}


def _case(name: str, make: Any, plain: Any, torch: Any, tf: Any, jax: Any, model: Any, numba: Any, work: Any) -> Case:
    def serve(engine: Any) -> Any:
        return lambda d: engine(model(d), {"x": d["x"]})

    return Case(
        make,
        {
            "pierian": lambda d: pierian_peer.graph(OURS[name], d),
            "numpy": lambda d: numpy_peer.function(plain, d),
            "torch": lambda d: torch_peer.function(torch, d),
            "torch_compile": lambda d: torch_peer.function(torch, d, compile=True),
            "jax": lambda d: jax_peer.function(jax, d),
            "numba": numba,
            "tf_function": lambda d: tf_peer.function(tf, d),
            "tf_xla": lambda d: tf_peer.function(tf, d, xla=True),
            "ort": serve(onnx_peer.ort),
            "openvino": serve(onnx_peer.openvino),
        },
        lambda **arrays: plain(np, **arrays),
        1e-5,
        flops=work[0],
        bytes=4.0 * work[1],
    )


def _jax_nn(name: str) -> Any:
    def call(jnp: Any, x: Any) -> Any:
        import jax

        return {"softmax": jax.nn.softmax, "logsumexp": jax.nn.logsumexp}[name](x, axis=-1)

    return call


CASES = {
    "softmax": _case(
        "softmax", matrix, _softmax, lambda t, x: t.softmax(x, -1), lambda tf, x: tf.nn.softmax(x),
        _jax_nn("softmax"), _onnx_softmax, _numba_softmax, (5.0 * ROWS * WIDE, 2 * ROWS * WIDE),
    ),
    "layernorm": _case(
        "layernorm", norm_inputs, _layernorm,
        lambda t, x, scale, shift: t.nn.functional.layer_norm(x, (NARROW,), scale, shift, EPSILON),
        _layernorm_of(lambda tf: tf.math.rsqrt), _jax_layernorm, _onnx_layernorm, _numba_layernorm,
        (8.0 * ROWS * NARROW, 2 * ROWS * NARROW),
    ),
    "logsumexp": _case(
        "logsumexp", matrix, _logsumexp, lambda t, x: t.logsumexp(x, -1), lambda tf, x: tf.reduce_logsumexp(x, -1),
        _jax_nn("logsumexp"), _onnx_logsumexp, _numba_logsumexp, (4.0 * ROWS * WIDE, ROWS * WIDE),
    ),
}  # fmt: skip
CHECKS = {
    f"{name}_gradient": Case(
        CASES[name].inputs, {"pierian": lambda d, name=name: pierian_peer.graph(_gradient(OURS[name]), d)}, plain, 1e-5
    )
    for name, plain in (
        ("softmax", _softmax_gradient), ("layernorm", _layernorm_gradient), ("logsumexp", _logsumexp_gradient)
    )
}  # fmt: skip
