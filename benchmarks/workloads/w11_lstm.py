"""LSTM over 256 steps, input and hidden 128, batch 16: forward, and forward with the gradient of all weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from peers import jax as jax_peer
from peers import onnx as onnx_peer
from peers import tensorflow as tf_peer
from peers import threads
from peers import torch as torch_peer

from workloads import Case, Run

STEPS, BATCH, WIDTH = 256, 16, 128


def inputs() -> dict[str, Any]:
    rng = np.random.default_rng(11)
    scale = WIDTH**-0.5
    return {
        "x": rng.standard_normal((STEPS, BATCH, WIDTH), dtype=np.float32),
        "wx": rng.uniform(-scale, scale, (WIDTH, 4 * WIDTH)).astype(np.float32),
        "wh": rng.uniform(-scale, scale, (WIDTH, 4 * WIDTH)).astype(np.float32),
        "b": rng.uniform(-scale, scale, 4 * WIDTH).astype(np.float32),
    }


def _pierian(data: dict[str, Any], gradient: bool) -> Run:
    import pierian as tf

    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, [STEPS, BATCH, WIDTH], name="x")
        weights = [tf.placeholder(tf.float32, data[n].shape, name=n) for n in ("wx", "wh", "b")]
        wx, wh, bias = weights
        gates_of_x = tf.matmul(x, wx) + bias

        def step(state: Any, given: Any) -> Any:
            h, c = state
            gates = given + tf.matmul(h, wh)
            i, f, g, o = (gates[:, k * WIDTH : (k + 1) * WIDTH] for k in range(4))
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
            return [h, c], h

        zero = tf.zeros((BATCH, WIDTH), tf.float32)
        _, hs = tf.scan(step, [zero, zero], gates_of_x)
        results = tf.gradients(tf.reduce_sum(hs), weights) if gradient else [hs]
    call = tf.Session(graph, threads=threads()).make_callable(results, [x, *weights])
    return lambda: call(data["x"], data["wx"], data["wh"], data["b"])


def _torch(data: dict[str, Any], gradient: bool) -> Run:
    torch = torch_peer.setup(gradients=gradient)
    layer = torch.nn.LSTM(WIDTH, WIDTH)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.from_numpy(data["wx"].T))
        layer.weight_hh_l0.copy_(torch.from_numpy(data["wh"].T))
        layer.bias_ih_l0.copy_(torch.from_numpy(data["b"]))
        layer.bias_hh_l0.zero_()
    x = torch.from_numpy(data["x"])

    def both() -> Any:
        layer.zero_grad(set_to_none=True)
        layer(x)[0].sum().backward()
        return [layer.weight_ih_l0.grad.T, layer.weight_hh_l0.grad.T, layer.bias_ih_l0.grad]

    return both if gradient else lambda: layer(x)[0]


def _jax(data: dict[str, Any], gradient: bool) -> Run:
    def forward(jnp: Any, x: Any, wx: Any, wh: Any, b: Any) -> Any:
        import jax

        def step(state: Any, given: Any) -> Any:
            h, c = state
            i, f, g, o = jnp.split(given + h @ wh, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zero = jnp.zeros((BATCH, WIDTH), np.float32)
        return jax.lax.scan(step, (zero, zero), x @ wx + b)[1]

    def both(jnp: Any, x: Any, wx: Any, wh: Any, b: Any) -> Any:
        import jax

        return jax.grad(lambda *w: forward(jnp, x, *w).sum(), (0, 1, 2))(wx, wh, b)

    return jax_peer.function(both if gradient else forward, data)


def _tf_forward(tf: Any, x: Any, wx: Any, wh: Any, b: Any) -> Any:
    gates_of_x = tf.tensordot(x, wx, 1) + b

    def step(t: Any, h: Any, c: Any, hs: Any) -> Any:
        i, f, g, o = tf.split(gates_of_x[t] + tf.matmul(h, wh), 4, axis=-1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        h = tf.sigmoid(o) * tf.tanh(c)
        return t + 1, h, c, hs.write(t, h)

    zero = tf.zeros((BATCH, WIDTH))
    hs = tf.TensorArray(tf.float32, STEPS, element_shape=(BATCH, WIDTH))
    start = (tf.constant(0), zero, zero, hs)
    *_, hs = tf.while_loop(lambda t, *_: t < STEPS, step, start, maximum_iterations=STEPS, parallel_iterations=1)
    return hs.stack()


def _tf_both(tf: Any, x: Any, wx: Any, wh: Any, b: Any) -> Any:
    with tf.GradientTape() as tape:
        tape.watch([wx, wh, b])
        total = tf.reduce_sum(_tf_forward(tf, x, wx, wh, b))
    return tape.gradient(total, [wx, wh, b])


def _model(data: dict[str, Any]) -> bytes:
    """The ONNX operator has its gates in the order i o f c and its weights as rows."""
    from onnx.helper import make_node

    def rows(weights: Any) -> Any:
        i, f, g, o = np.split(weights, 4, axis=-1)
        return np.concatenate([i, o, f, g], axis=-1).T[None]

    node = make_node("LSTM", ["x", "wx", "wh", "b"], ["hs"], hidden_size=WIDTH)
    flat = make_node("Squeeze", ["hs", "axes"], ["y"])
    bias = np.concatenate([rows(data["b"][None])[..., 0], np.zeros((1, 4 * WIDTH), np.float32)], axis=-1)
    constants = {"wx": rows(data["wx"]), "wh": rows(data["wh"]), "b": bias, "axes": np.array([1], np.int64)}
    return onnx_peer.model([node, flat], {"x": data["x"]}, {"y": (np.float32, [STEPS, BATCH, WIDTH])}, constants)


def _numpy(x: Any, wx: Any, wh: Any, b: Any, gradient: bool) -> Any:
    """The gradient by hand."""

    def sigmoid(z: Any) -> Any:
        return 1 / (1 + np.exp(-z))

    h = c = np.zeros((BATCH, WIDTH), x.dtype)
    saved, hs = [], []
    for t in range(STEPS):
        i, f, g, o = np.split(x[t] @ wx + h @ wh + b, 4, axis=-1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        before = (h, c)
        c = f * c + i * g
        h = o * np.tanh(c)
        saved.append((*before, i, f, g, o, np.tanh(c)))
        hs.append(h)
    if not gradient:
        return np.stack(hs)
    dwx, dwh, db = np.zeros_like(wx), np.zeros_like(wh), np.zeros_like(b)
    dh = dc = np.zeros((BATCH, WIDTH), x.dtype)
    for t in reversed(range(STEPS)):
        h, c, i, f, g, o, tc = saved[t]
        dh = dh + 1
        dc = dc + dh * o * (1 - tc * tc)
        parts = [dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * tc * o * (1 - o)]
        dz = np.concatenate(parts, axis=-1)
        dwx, dwh, db = dwx + x[t].T @ dz, dwh + h.T @ dz, db + dz.sum(0)
        dh, dc = dz @ wh.T, dc * f
    return dwx, dwh, db


def _case(gradient: bool) -> Case:
    tf = _tf_both if gradient else _tf_forward
    peers: dict[str, Any] = {
        "pierian": lambda d: _pierian(d, gradient),
        "torch": lambda d: _torch(d, gradient),
        "jax": lambda d: _jax(d, gradient),
        "tf_function": lambda d: tf_peer.function(tf, d),
        "tf_xla": lambda d: tf_peer.function(tf, d, xla=True),
    }
    if not gradient:
        peers["ort"] = lambda d: onnx_peer.ort(_model(d), {"x": d["x"]})
        peers["openvino"] = lambda d: onnx_peer.openvino(_model(d), {"x": d["x"]})
    return Case(
        inputs,
        peers,
        lambda **d: _numpy(**d, gradient=gradient),
        1e-4,
        flops=2.0 * STEPS * BATCH * 2 * WIDTH * 4 * WIDTH * (2.5 if gradient else 1),
        bytes=4.0 * (STEPS * BATCH * WIDTH * (6 if gradient else 2) + 8 * WIDTH * WIDTH),
    )


CASES = {"forward": _case(False), "forward_backward": _case(True)}
