"""One pre-norm transformer block, d = 768, 12 heads, MLP 3072, sequence 256, batch 2: forward; a training step (SGD on the mean
square of the output); checked but not timed: loss and gradients. Forward alone the weights are constants of our graph, as they are
of the ONNX model."""

from __future__ import annotations

from typing import Any

import numpy as np
from peers import jax as jax_peer
from peers import onnx as onnx_peer
from peers import tensorflow as tf_peer
from peers import threads
from peers import torch as torch_peer

from workloads import Case, Run

BATCH, STEPS, WIDTH, HEADS, INNER, RATE = 2, 256, 768, 12, 3072, 1e-3
HEAD = WIDTH // HEADS
SHAPES = {
    "qkv": (WIDTH, 3 * WIDTH), "qkv_b": (3 * WIDTH,), "out": (WIDTH, WIDTH), "out_b": (WIDTH,), "up": (WIDTH, INNER),
    "up_b": (INNER,), "down": (INNER, WIDTH), "down_b": (WIDTH,), "g1": (WIDTH,), "s1": (WIDTH,), "g2": (WIDTH,),
    "s2": (WIDTH,),
}  # fmt: skip
ROWS = BATCH * STEPS
FLOPS = 2.0 * ROWS * WIDTH * (3 * WIDTH + WIDTH + 2 * INNER) + 4.0 * BATCH * STEPS * STEPS * WIDTH


def inputs() -> dict[str, Any]:
    rng = np.random.default_rng(10)
    data = {"x": rng.standard_normal((BATCH, STEPS, WIDTH), dtype=np.float32)}
    for name, shape in SHAPES.items():
        scale = shape[0] ** -0.5 if len(shape) == 2 else 0.02
        data[name] = (rng.standard_normal(shape) * scale + (name in ("g1", "g2"))).astype(np.float32)
    return data


def _block(m: Any, x: Any, p: dict[str, Any], softmax: Any, gelu: Any, norm: Any, permute: Any) -> Any:
    h = norm(x, p["g1"], p["s1"])
    qkv = m.matmul(h, p["qkv"]) + p["qkv_b"]
    qkv = permute(m.reshape(qkv, (BATCH, STEPS, 3, HEADS, HEAD)), (2, 0, 3, 1, 4))
    q, k, v = qkv[0], qkv[1], qkv[2]
    scores = softmax(m.matmul(q, permute(k, (0, 1, 3, 2))) * HEAD**-0.5)
    mixed = m.reshape(permute(m.matmul(scores, v), (0, 2, 1, 3)), (BATCH, STEPS, WIDTH))
    x = x + m.matmul(mixed, p["out"]) + p["out_b"]
    h = norm(x, p["g2"], p["s2"])
    return x + m.matmul(gelu(m.matmul(h, p["up"]) + p["up_b"]), p["down"]) + p["down_b"]


def _pierian(data: dict[str, Any], train: bool, gradients: bool = False) -> Run:
    import pierian as tf

    def norm(x: Any, scale: Any, shift: Any) -> Any:
        mean = tf.reduce_mean(x, axis=-1, keepdims=True)
        centered = x - mean
        return centered * tf.rsqrt(tf.reduce_mean(centered * centered, axis=-1, keepdims=True) + 1e-5) * scale + shift

    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, data["x"].shape, name="x")
        learns = train or gradients
        p = {name: tf.Variable(data[name], name=name) if learns else tf.constant(data[name]) for name in SHAPES}
        softmax, gelu = (lambda z: tf.softmax(z, axis=-1)), (lambda z: tf.nn.gelu(z, approximate=True))
        y = _block(tf, x, p, softmax, gelu, norm, tf.permute_dims)
        loss = tf.reduce_mean(y * y)
        if gradients:
            fetches = [loss, *tf.gradients(loss, list(p.values()))]
        elif train:
            fetches = [loss, tf.keras.optimizers.SGD(RATE).minimize(loss, var_list=list(p.values()))]
        else:
            fetches = [y]
    call = tf.Session(graph, threads=threads()).make_callable(fetches, [x])
    if gradients:
        return lambda: call(data["x"])
    return lambda: call(data["x"])[0]


def _torch(data: dict[str, Any], train: bool, compile: bool) -> Run:
    torch = torch_peer.setup(gradients=train)
    F = torch.nn.functional
    x = torch.from_numpy(data["x"])
    p = {name: torch.from_numpy(data[name].copy()).requires_grad_(train) for name in SHAPES}

    def forward(x: Any) -> Any:
        h = F.layer_norm(x, (WIDTH,), p["g1"], p["s1"])
        qkv = (h @ p["qkv"] + p["qkv_b"]).reshape(BATCH, STEPS, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        x = x + mixed.permute(0, 2, 1, 3).reshape(BATCH, STEPS, WIDTH) @ p["out"] + p["out_b"]
        h = F.layer_norm(x, (WIDTH,), p["g2"], p["s2"])
        return x + F.gelu(h @ p["up"] + p["up_b"], approximate="tanh") @ p["down"] + p["down_b"]

    if not train:
        call = torch.compile(forward) if compile else forward
        return lambda: call(x)
    optimizer = torch.optim.SGD(p.values(), lr=RATE, fused=True)
    return torch_peer.training(lambda x: (forward(x) ** 2).mean(), optimizer, [x], compile)


def _jax_forward(jnp: Any, x: Any, **p: Any) -> Any:
    import jax

    def norm(x: Any, scale: Any, shift: Any) -> Any:
        centered = x - x.mean(-1, keepdims=True)
        return centered * jax.lax.rsqrt((centered * centered).mean(-1, keepdims=True) + 1e-5) * scale + shift

    return _block(jnp, x, p, jax.nn.softmax, jax.nn.gelu, norm, jnp.transpose)


def _jax(data: dict[str, Any], train: bool) -> Run:
    if not train:
        return jax_peer.function(_jax_forward, data)
    jnp = jax_peer.setup().numpy

    def loss_of(p: Any, x: Any) -> Any:
        return (_jax_forward(jnp, x, **p) ** 2).mean()

    step, state = jax_peer.momentum(loss_of, {name: data[name] for name in SHAPES}, RATE, 0.0)
    return jax_peer.training(step, state, [jnp.asarray(data["x"])])


def _tf_forward(tf: Any, x: Any, **p: Any) -> Any:
    def norm(x: Any, scale: Any, shift: Any) -> Any:
        centered = x - tf.reduce_mean(x, -1, keepdims=True)
        variance = tf.reduce_mean(centered * centered, -1, keepdims=True)
        return centered * tf.math.rsqrt(variance + 1e-5) * scale + shift

    return _block(tf, x, p, tf.nn.softmax, lambda z: tf.nn.gelu(z, approximate=True), norm, tf.transpose)


def _tensorflow(data: dict[str, Any], train: bool, xla: bool) -> Run:
    if not train:
        return tf_peer.function(_tf_forward, data, xla)

    def loss_of(tf: Any, p: Any, x: Any) -> Any:
        return tf.reduce_mean(_tf_forward(tf, x, **p) ** 2)

    parameters = {name: data[name] for name in SHAPES}
    return tf_peer.training(loss_of, parameters, [data["x"]], tf_peer.descent(RATE), 0, xla)


def _model(data: dict[str, Any]) -> bytes:
    from onnx.helper import make_node as node

    nodes = [
        node("LayerNormalization", ["x", "g1", "s1"], ["h1"], epsilon=1e-5),
        node("MatMul", ["h1", "qkv"], ["m1"]), node("Add", ["m1", "qkv_b"], ["a1"]),
        node("Split", ["a1"], ["q0", "k0", "v0"], axis=-1, num_outputs=3),
        *(node("Reshape", [f"{n}0", "heads"], [f"{n}1"]) for n in "qkv"),
        node("Transpose", ["q1"], ["q"], perm=[0, 2, 1, 3]), node("Transpose", ["k1"], ["k"], perm=[0, 2, 3, 1]),
        node("Transpose", ["v1"], ["v"], perm=[0, 2, 1, 3]),
        node("MatMul", ["q", "k"], ["scores"]), node("Mul", ["scores", "scale"], ["scaled"]),
        node("Softmax", ["scaled"], ["weights"], axis=-1), node("MatMul", ["weights", "v"], ["mixed"]),
        node("Transpose", ["mixed"], ["rows"], perm=[0, 2, 1, 3]), node("Reshape", ["rows", "flat"], ["merged"]),
        node("MatMul", ["merged", "out"], ["m2"]), node("Add", ["m2", "out_b"], ["a2"]), node("Add", ["x", "a2"], ["x2"]),
        node("LayerNormalization", ["x2", "g2", "s2"], ["h2"], epsilon=1e-5),
        node("MatMul", ["h2", "up"], ["m3"]), node("Add", ["m3", "up_b"], ["a3"]),
        node("Gelu", ["a3"], ["g"], approximate="tanh"),
        node("MatMul", ["g", "down"], ["m4"]), node("Add", ["m4", "down_b"], ["a4"]), node("Add", ["x2", "a4"], ["y"]),
    ]  # fmt: skip
    constants = {name: data[name] for name in SHAPES}
    constants["heads"] = np.array([BATCH, STEPS, HEADS, HEAD], np.int64)
    constants["flat"] = np.array([BATCH, STEPS, WIDTH], np.int64)
    constants["scale"] = np.float32(HEAD**-0.5)
    return onnx_peer.model(nodes, {"x": data["x"]}, {"y": (np.float32, [BATCH, STEPS, WIDTH])}, constants)


# --- NumPy ------------------------------------------------------------------------------------------------------------


def _norm(x: Any, scale: Any, shift: Any) -> Any:
    centered = x - x.mean(-1, keepdims=True)
    return centered / np.sqrt((centered * centered).mean(-1, keepdims=True) + 1e-5) * scale + shift


def _norm_gradient(x: Any, scale: Any, dy: Any) -> tuple[Any, Any, Any]:
    centered = x - x.mean(-1, keepdims=True)
    factor = 1 / np.sqrt((centered * centered).mean(-1, keepdims=True) + 1e-5)
    normal = centered * factor
    d = dy * scale
    dx = (d - d.mean(-1, keepdims=True) - normal * (d * normal).mean(-1, keepdims=True)) * factor
    return dx, (dy * normal).sum((0, 1)), dy.sum((0, 1))


def _softmax(z: Any) -> Any:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _gelu(z: Any) -> tuple[Any, Any]:
    """The function and its slope."""
    c = (2 / np.pi) ** 0.5
    t = np.tanh((z + z * z * z * 0.044715) * c)
    return z * 0.5 * (t + 1), 0.5 * (t + 1) + z * 0.5 * (1 - t * t) * (z * z * 3 * 0.044715 + 1) * c


def forward(x: Any, **p: Any) -> Any:
    return _block(np, x, p, _softmax, lambda z: _gelu(z)[0], _norm, np.transpose)


def gradients(x: Any, **p: Any) -> list[Any]:
    """Loss and gradients of all parameters."""
    h1 = _norm(x, p["g1"], p["s1"])
    q, k, v = (h1 @ p["qkv"] + p["qkv_b"]).reshape(BATCH, STEPS, 3, HEADS, HEAD).transpose(2, 0, 3, 1, 4)
    weights = _softmax(q @ k.swapaxes(-1, -2) * HEAD**-0.5)
    merged = (weights @ v).transpose(0, 2, 1, 3).reshape(BATCH, STEPS, WIDTH)
    x2 = x + merged @ p["out"] + p["out_b"]
    h2 = _norm(x2, p["g2"], p["s2"])
    g, slope = _gelu(h2 @ p["up"] + p["up_b"])
    y = x2 + g @ p["down"] + p["down_b"]
    found: dict[str, Any] = {}

    def linear(name: str, given: Any, d: Any) -> Any:
        rows = d.reshape(ROWS, -1)
        found[name], found[f"{name}_b"] = given.reshape(ROWS, -1).T @ rows, rows.sum(0)
        return d @ p[name].T

    dy = 2 * y / y.dtype.type(y.size)
    dh2 = linear("up", h2, linear("down", g, dy) * slope)
    d, found["g2"], found["s2"] = _norm_gradient(x2, p["g2"], dh2)
    mixed = linear("out", merged, dy + d).reshape(BATCH, STEPS, HEADS, HEAD).transpose(0, 2, 1, 3)
    dw = mixed @ v.swapaxes(-1, -2)
    dz = weights * (dw - (dw * weights).sum(-1, keepdims=True)) * HEAD**-0.5
    dqkv = np.stack([dz @ k, dz.swapaxes(-1, -2) @ q, weights.swapaxes(-1, -2) @ mixed])
    dh1 = linear("qkv", h1, dqkv.transpose(1, 3, 0, 2, 4).reshape(BATCH, STEPS, 3 * WIDTH))
    _, found["g1"], found["s1"] = _norm_gradient(x, p["g1"], dh1)
    return [(y * y).mean(), *(found[name] for name in SHAPES)]


def losses(x: Any, **p: Any) -> list[Any]:
    """The losses of the first three steps."""
    results = []
    for _ in range(3):
        loss, *found = gradients(x, **p)
        results.append(loss)
        p = {name: p[name] - x.dtype.type(RATE) * g for name, g in zip(SHAPES, found, strict=True)}
    return results


WEIGHTS = float(sum(np.prod(shape) for shape in SHAPES.values()))


def _case(train: bool) -> Case:
    peers: dict[str, Any] = {
        "pierian": lambda d: _pierian(d, train),
        "torch": lambda d: _torch(d, train, False),
        "torch_compile": lambda d: _torch(d, train, True),
        "jax": lambda d: _jax(d, train),
        "tf_function": lambda d: _tensorflow(d, train, False),
        "tf_xla": lambda d: _tensorflow(d, train, True),
    }
    if not train:
        peers["ort"] = lambda d: onnx_peer.ort(_model(d), {"x": d["x"]})
        peers["openvino"] = lambda d: onnx_peer.openvino(_model(d), {"x": d["x"]})
    return Case(
        inputs,
        peers,
        losses if train else forward,
        1e-4,
        flops=FLOPS * 3 if train else FLOPS,
        bytes=4.0 * (WEIGHTS * (3 if train else 1) + 2 * ROWS * WIDTH),
        calls=3 if train else 1,
    )


CASES = {"forward": _case(False), "train_step": _case(True)}
CHECKS = {"gradients": Case(inputs, {"pierian": lambda d: _pierian(d, True, True)}, gradients, 1e-4)}
