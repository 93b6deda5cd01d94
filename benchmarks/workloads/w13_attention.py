"""Attention over long sequences, 64 wide: 12 heads over 1024 positions, without a mask and causal, and its gradients; 2 heads over
4096 positions, causal."""

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

WIDTH = 64
SCALE = WIDTH**-0.5
MASKED = np.float32(-1e9)


def _inputs(heads: int, length: int) -> Callable[[], dict[str, Any]]:
    def make() -> dict[str, Any]:
        rng = np.random.default_rng(13)
        return {name: rng.standard_normal((1, heads, length, WIDTH), dtype=np.float32) for name in "qkv"}

    return make


def _softmax(scores: Any) -> Any:
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def _weights(q: Any, k: Any, causal: bool) -> Any:
    scores = q @ np.swapaxes(k, -1, -2) * q.dtype.type(SCALE)
    if causal:
        place = np.arange(q.shape[-2])
        scores = np.where(place > place[:, None], q.dtype.type(MASKED), scores)
    return _softmax(scores)


def _attention(m: Any, softmax: Any, turned: Any, q: Any, k: Any, v: Any, causal: bool) -> Any:
    """For libraries whose arrays multiply by `matmul`."""
    scores = m.matmul(q, turned(k)) * np.float32(SCALE)
    if causal:
        place = np.arange(int(q.shape[-2]))
        scores = m.where(place > place[:, None], MASKED, scores)
    return m.matmul(softmax(scores), v)


def _pierian(p: Any, q: Any, k: Any, v: Any, causal: bool) -> Any:
    scores = p.matmul(q, k, transpose_b=True) * SCALE
    if causal:
        place = p.arange(q.shape[-2])
        scores = p.where(p.expand_dims(place, 0) > p.expand_dims(place, 1), MASKED, scores)
    return p.matmul(p.softmax(scores, axis=-1), v)


def _torch(torch: Any, q: Any, k: Any, v: Any, causal: bool) -> Any:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)


def _jax(jnp: Any, q: Any, k: Any, v: Any, causal: bool) -> Any:
    import jax

    return _attention(jnp, jax.nn.softmax, lambda x: jnp.swapaxes(x, -1, -2), q, k, v, causal)


def _tensorflow(tf: Any, q: Any, k: Any, v: Any, causal: bool) -> Any:
    return _attention(tf, tf.nn.softmax, lambda x: tf.transpose(x, (0, 1, 3, 2)), q, k, v, causal)


def _model(data: dict[str, Any], causal: bool) -> bytes:
    from onnx.helper import make_node as node

    length = data["q"].shape[-2]
    nodes = [
        node("Transpose", ["k"], ["turned"], perm=[0, 1, 3, 2]),
        node("MatMul", ["q", "turned"], ["products"]),
        node("Mul", ["products", "scale"], ["scores"]),
        *([node("Where", ["future", "masked", "scores"], ["open"])] if causal else []),
        node("Softmax", ["open" if causal else "scores"], ["weights"], axis=-1),
        node("MatMul", ["weights", "v"], ["y"]),
    ]
    constants = {"scale": np.float32(SCALE)}
    if causal:
        constants |= {"future": np.triu(np.ones((length, length), bool), 1), "masked": MASKED}
    return onnx_peer.model(nodes, data, {"y": (np.float32, list(data["q"].shape))}, constants)


def _gradients(q: Any, k: Any, v: Any) -> list[Any]:
    """Of the mean square of the result."""
    weights = _weights(q, k, True)
    y = weights @ v
    dy = y * q.dtype.type(2 / y.size)
    dw = dy @ np.swapaxes(v, -1, -2)
    ds = weights * (dw - (dw * weights).sum(-1, keepdims=True)) * q.dtype.type(SCALE)
    return [ds @ k, np.swapaxes(ds, -1, -2) @ q, np.swapaxes(weights, -1, -2) @ dy]


def _pierian_gradients(p: Any, **d: Any) -> Any:
    y = _pierian(p, **d, causal=True)
    return p.gradients(p.reduce_mean(y * y), [d[name] for name in "qkv"])


def _torch_gradients(data: dict[str, Any], compile: bool) -> Run:
    torch = torch_peer.setup(gradients=True)
    given = [torch.from_numpy(data[name]).requires_grad_() for name in "qkv"]

    def loss(q: Any, k: Any, v: Any) -> Any:
        return (_torch(torch, q, k, v, True) ** 2).mean()

    forward = torch.compile(loss) if compile else loss
    return lambda: torch.autograd.grad(forward(*given), given)


def _jax_gradients(jnp: Any, q: Any, k: Any, v: Any) -> Any:
    import jax

    return jax.grad(lambda *qkv: (_jax(jnp, *qkv, True) ** 2).mean(), argnums=(0, 1, 2))(q, k, v)


def _tf_gradients(tf: Any, q: Any, k: Any, v: Any) -> Any:
    return tf.gradients(tf.reduce_mean(_tensorflow(tf, q, k, v, True) ** 2), [q, k, v])


def _flops(heads: int, length: int, causal: bool) -> float:
    return 4.0 * heads * length * length * WIDTH / (2 if causal else 1)


def _case(heads: int, length: int, causal: bool) -> Case:
    return Case(
        _inputs(heads, length),
        {
            "pierian": lambda d: pierian_peer.graph(lambda p, **t: _pierian(p, **t, causal=causal), d),
            "numpy": lambda d: numpy_peer.function(lambda m, q, k, v: _weights(q, k, causal) @ v, d),
            "torch": lambda d: torch_peer.function(lambda t, q, k, v: _torch(t, q, k, v, causal), d),
            "torch_compile": lambda d: torch_peer.function(lambda t, q, k, v: _torch(t, q, k, v, causal), d, compile=True),
            "jax": lambda d: jax_peer.function(lambda m, **t: _jax(m, **t, causal=causal), d),
            "tf_function": lambda d: tf_peer.function(lambda tf, **t: _tensorflow(tf, **t, causal=causal), d),
            "tf_xla": lambda d: tf_peer.function(lambda tf, **t: _tensorflow(tf, **t, causal=causal), d, True),
            "ort": lambda d: onnx_peer.ort(_model(d, causal), d),
            "openvino": lambda d: onnx_peer.openvino(_model(d, causal), d),
        },
        lambda q, k, v: _weights(q, k, causal) @ v,
        flops=_flops(heads, length, causal),
        bytes=4.0 * 4 * heads * length * WIDTH,
    )  # fmt: skip


CASES = {
    "s1024": _case(12, 1024, False),
    "causal_s1024": _case(12, 1024, True),
    "causal_s4096": _case(2, 4096, True),
    "gradients_s1024": Case(
        _inputs(12, 1024),
        {
            "pierian": lambda d: pierian_peer.graph(_pierian_gradients, d),
            "torch": lambda d: _torch_gradients(d, False),
            "torch_compile": lambda d: _torch_gradients(d, True),
            "jax": lambda d: jax_peer.function(_jax_gradients, d),
            "tf_function": lambda d: tf_peer.function(_tf_gradients, d),
            "tf_xla": lambda d: tf_peer.function(_tf_gradients, d, True),
        },
        _gradients,
        flops=3 * _flops(12, 1024, True),
        bytes=4.0 * 8 * 12 * 1024 * WIDTH,
    ),
}
