"""Training step on 32x3x32x32: three 3x3 convolutions (3-32, 32-64 and 64-128 with stride 2) with relu, global average
pool, dense 10, softmax cross-entropy, SGD with momentum; checked but not timed: loss and gradients. Each framework in the layout
it likes best."""

from __future__ import annotations

from typing import Any

import numpy as np
from peers import jax as jax_peer
from peers import numpy as numpy_peer
from peers import tensorflow as tf_peer
from peers import threads
from peers import torch as torch_peer

from workloads import Case, Run

BATCH, SIZE, RATE, MOMENTUM = 32, 32, 1e-2, 0.9
CHANNELS, STRIDES = (3, 32, 64, 128), (1, 2, 2)
NAMES = [f"{kind}{i}" for i in range(4) for kind in "wb"]
FLOPS = sum(
    2 * BATCH * (SIZE // over) ** 2 * 9 * m * n * passes
    for over, m, n, passes in zip((1, 2, 4), CHANNELS, CHANNELS[1:], (2, 3, 3), strict=False)
)


def inputs() -> dict[str, Any]:
    rng = np.random.default_rng(8)
    data = {
        "x": rng.standard_normal((BATCH, SIZE, SIZE, 3), dtype=np.float32),
        "labels": rng.integers(0, 10, BATCH).astype(np.int64),
    }
    for i, (m, n) in enumerate(zip(CHANNELS, CHANNELS[1:], strict=False)):
        data[f"w{i}"] = (rng.standard_normal((3, 3, m, n)) * (2 / (9 * m)) ** 0.5).astype(np.float32)
        data[f"b{i}"] = np.zeros(n, np.float32)
    data["w3"] = (rng.standard_normal((CHANNELS[-1], 10)) * (1 / CHANNELS[-1]) ** 0.5).astype(np.float32)
    data["b3"] = np.zeros(10, np.float32)
    return data


def _pierian(data: dict[str, Any], train: bool = True) -> Run:
    import pierian as tf

    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, [BATCH, SIZE, SIZE, 3], name="x")
        labels = tf.placeholder(tf.int64, [BATCH], name="labels")
        p = {name: tf.Variable(data[name], name=name) for name in NAMES}
        h = x
        for i, stride in enumerate(STRIDES):
            h = tf.relu(tf.nn.conv2d(h, p[f"w{i}"], stride, [(1, 1), (1, 1)]) + p[f"b{i}"])
        logits = tf.matmul(tf.reduce_mean(h, axis=(1, 2)), p["w3"]) + p["b3"]
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        if train:
            beside = [tf.keras.optimizers.SGD(RATE, momentum=MOMENTUM).minimize(loss, var_list=list(p.values()))]
        else:
            beside = tf.gradients(loss, list(p.values()))
    call = tf.Session(graph, threads=threads()).make_callable([loss, *beside], [x, labels])
    if train:
        return lambda: call(data["x"], data["labels"])[0]
    return lambda: call(data["x"], data["labels"])


def _torch(data: dict[str, Any], compile: bool) -> Run:
    torch = torch_peer.setup(gradients=True)
    layers: list[Any] = []
    for i, stride in enumerate(STRIDES):
        layer = torch.nn.Conv2d(CHANNELS[i], CHANNELS[i + 1], 3, stride, 1)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(data[f"w{i}"].transpose(3, 2, 0, 1)))
            layer.bias.zero_()
        layers += [layer, torch.nn.ReLU()]
    head = torch.nn.Linear(CHANNELS[-1], 10)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(data["w3"].T))
        head.bias.zero_()
    model = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), head)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, fused=True)
    x = torch.from_numpy(data["x"].transpose(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last)
    given = [x, torch.from_numpy(data["labels"])]
    return torch_peer.training(
        lambda x, labels: torch.nn.functional.cross_entropy(model(x), labels), optimizer, given, compile
    )


def _jax(data: dict[str, Any]) -> Run:
    jax = jax_peer.setup()
    jnp = jax.numpy
    given = [jnp.asarray(data[name]) for name in ("x", "labels")]

    def loss_of(p: Any, x: Any, labels: Any) -> Any:
        for i, stride in enumerate(STRIDES):
            x = jax.lax.conv_general_dilated(
                x, p[f"w{i}"], (stride, stride), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x + p[f"b{i}"])
        logits = x.mean((1, 2)) @ p["w3"] + p["b3"]
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(BATCH), labels])

    step, state = jax_peer.momentum(loss_of, {name: data[name] for name in NAMES}, RATE, MOMENTUM)
    return jax_peer.training(step, state, given)


def _loss(tf: Any, p: Any, x: Any, labels: Any) -> Any:
    for i, stride in enumerate(STRIDES):
        x = tf.nn.conv2d(x, p[f"w{i}"], stride, [[0, 0], [1, 1], [1, 1], [0, 0]])
        x = tf.nn.relu(tf.nn.bias_add(x, p[f"b{i}"]))
    logits = tf.matmul(tf.reduce_mean(x, (1, 2)), p["w3"]) + p["b3"]
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))


def _tensorflow(data: dict[str, Any], xla: bool) -> Run:
    parameters = {name: data[name] for name in NAMES}
    given = [data["x"], data["labels"]]
    return tf_peer.training(_loss, parameters, given, tf_peer.momentum(RATE, MOMENTUM), 1, xla)


def _tf1(data: dict[str, Any]) -> Run:
    def build(tf: Any, given: dict[str, Any]) -> Any:
        loss = _loss(tf, {name: tf.Variable(data[name]) for name in NAMES}, given["x"], given["labels"])
        return loss, [tf.train.MomentumOptimizer(RATE, MOMENTUM).minimize(loss)]

    return tf_peer.session(build, {name: data[name] for name in ("x", "labels")})


def gradients(x: Any, labels: Any, **p: Any) -> list[Any]:
    """Loss and gradients of all parameters."""
    kept, windows = [x], []
    for i, stride in enumerate(STRIDES):
        wide = np.pad(kept[-1], [(0, 0), (1, 1), (1, 1), (0, 0)])
        windows.append(np.lib.stride_tricks.sliding_window_view(wide, (3, 3), (1, 2))[:, ::stride, ::stride])
        kept.append(np.maximum(np.tensordot(windows[-1], p[f"w{i}"], ((4, 5, 3), (0, 1, 2))) + p[f"b{i}"], 0))
    pooled = kept[-1].mean((1, 2))
    loss, d = numpy_peer.cross_entropy(pooled @ p["w3"] + p["b3"], labels)
    found = {"w3": pooled.T @ d, "b3": d.sum(0)}
    places = kept[-1].shape[1] * kept[-1].shape[2]
    d = np.broadcast_to((d @ p["w3"].T / x.dtype.type(places))[:, None, None, :], kept[-1].shape)
    for i in (2, 1, 0):
        d = np.where(kept[i + 1] > 0, d, 0)
        found[f"w{i}"] = np.tensordot(windows[i], d, ((0, 1, 2), (0, 1, 2))).transpose(1, 2, 0, 3)
        found[f"b{i}"] = d.sum((0, 1, 2))
        wide = np.zeros_like(np.pad(kept[i], [(0, 0), (1, 1), (1, 1), (0, 0)]))
        side, stride = d.shape[1], STRIDES[i]
        for u in range(3):
            for v in range(3):
                end = stride * (side - 1) + 1
                wide[:, u : u + end : stride, v : v + end : stride] += d @ p[f"w{i}"][u, v].T
        d = wide[:, 1:-1, 1:-1]
    return [loss, *(found[name] for name in NAMES)]


def reference(x: Any, labels: Any, **p: Any) -> list[Any]:
    """The losses of the first three steps."""
    p = {name: array.copy() for name, array in p.items()}
    speed = {name: np.zeros_like(array) for name, array in p.items()}
    losses = []
    for _ in range(3):
        loss, *found = gradients(x, labels, **p)
        losses.append(loss)
        for name, gradient in zip(NAMES, found, strict=True):
            speed[name] = x.dtype.type(MOMENTUM) * speed[name] + gradient
            p[name] -= x.dtype.type(RATE) * speed[name]
    return losses


CASES = {
    "cnn": Case(
        inputs,
        {
            "pierian": _pierian,
            "torch": lambda d: _torch(d, False),
            "torch_compile": lambda d: _torch(d, True),
            "jax": _jax,
            "tf_function": lambda d: _tensorflow(d, False),
            "tf_xla": lambda d: _tensorflow(d, True),
            "tf1": _tf1,
        },
        reference,
        1e-4,
        flops=float(FLOPS),
        bytes=4.0 * BATCH * sum(4 * (SIZE // over) ** 2 * n for over, n in zip((1, 2, 4), CHANNELS[1:], strict=True)),
        calls=3,
    )
}
CHECKS = {"cnn_gradients": Case(inputs, {"pierian": lambda d: _pierian(d, train=False)}, gradients, 1e-4)}
