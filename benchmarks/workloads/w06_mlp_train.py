"""Training step 784-512-512-10, batch 128, relu, softmax cross-entropy, Adam; checked but not timed: loss and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from peers import jax as jax_peer
from peers import numpy as numpy_peer
from peers import tensorflow as tf_peer
from peers import threads
from peers import torch as torch_peer

from workloads import Case, Run

SIZES = (784, 512, 512, 10)
BATCH, RATE = 128, 1e-3
NAMES = [f"{kind}{i}" for i in range(3) for kind in "wb"]


def inputs() -> dict[str, Any]:
    rng = np.random.default_rng(7)
    data = {
        "x": rng.standard_normal((BATCH, SIZES[0]), dtype=np.float32),
        "labels": rng.integers(0, SIZES[-1], BATCH).astype(np.int64),
    }
    for i, (m, n) in enumerate(zip(SIZES, SIZES[1:], strict=False)):
        data[f"w{i}"] = (rng.standard_normal((m, n)) * (2 / m) ** 0.5).astype(np.float32)
        data[f"b{i}"] = np.zeros(n, np.float32)
    return data


def _logits(m: Any, x: Any, p: dict[str, Any], relu: Any) -> Any:
    for i in range(3):
        x = m.matmul(x, p[f"w{i}"]) + p[f"b{i}"]
        if i < 2:
            x = relu(x)
    return x


def _pierian(data: dict[str, Any], train: bool = True) -> Run:
    import pierian as tf

    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, ["batch", SIZES[0]], name="x")
        labels = tf.placeholder(tf.int64, ["batch"], name="labels")
        p = {name: tf.Variable(data[name], name=name) for name in NAMES}
        logits = _logits(tf, x, p, tf.relu)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        if train:
            beside = [tf.keras.optimizers.Adam(RATE).minimize(loss, var_list=list(p.values()))]
        else:
            beside = tf.gradients(loss, list(p.values()))
    session = tf.Session(graph, threads=threads())
    call = session.make_callable([loss, *beside], [x, labels])
    if train:
        return lambda: call(data["x"], data["labels"])[0]
    return lambda: call(data["x"], data["labels"])


def _torch(data: dict[str, Any], compile: bool) -> Run:
    torch = torch_peer.setup(gradients=True)
    layers: list[Any] = []
    for i in range(3):
        layer = torch.nn.Linear(SIZES[i], SIZES[i + 1])
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(data[f"w{i}"].T))
            layer.bias.zero_()
        layers += [layer, torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    epsilon = 1e-7 / (1 - 0.999) ** 0.5  # it is added after the correction of bias: the same in the first step
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, eps=epsilon, fused=True)
    given = [torch.from_numpy(data["x"]), torch.from_numpy(data["labels"])]
    return torch_peer.training(
        lambda x, labels: torch.nn.functional.cross_entropy(model(x), labels), optimizer, given, compile
    )


def _jax(data: dict[str, Any]) -> Run:
    jax = jax_peer.setup()
    given = [jax.numpy.asarray(data[name]) for name in ("x", "labels")]

    def loss_of(p: Any, x: Any, labels: Any) -> Any:
        logits = _logits(jax.numpy, x, p, jax.nn.relu)
        return -jax.numpy.mean(jax.nn.log_softmax(logits)[jax.numpy.arange(BATCH), labels])

    step, state = jax_peer.adam(loss_of, {name: data[name] for name in NAMES}, RATE)
    return jax_peer.training(step, state, given)


def _tensorflow(data: dict[str, Any], xla: bool) -> Run:
    def loss_of(tf: Any, p: Any, x: Any, labels: Any) -> Any:
        logits = _logits(tf, x, p, tf.nn.relu)
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))

    parameters = {name: data[name] for name in NAMES}
    return tf_peer.training(loss_of, parameters, [data["x"], data["labels"]], tf_peer.adam(RATE), 2, xla)


def _tf1(data: dict[str, Any]) -> Run:
    def build(tf: Any, given: dict[str, Any]) -> Any:
        p = {name: tf.Variable(data[name]) for name in NAMES}
        logits = _logits(tf, given["x"], p, tf.nn.relu)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=given["labels"], logits=logits))
        return loss, [tf.train.AdamOptimizer(RATE, epsilon=1e-7).minimize(loss)]

    return tf_peer.session(build, {name: data[name] for name in ("x", "labels")})


def gradients(x: Any, labels: Any, **p: Any) -> list[Any]:
    """Loss and gradients of all parameters."""
    kept = [x]
    for i in range(3):
        z = kept[-1] @ p[f"w{i}"] + p[f"b{i}"]
        kept.append(np.maximum(z, 0) if i < 2 else z)
    loss, d = numpy_peer.cross_entropy(kept[-1], labels)
    found: dict[str, Any] = {}
    for i in (2, 1, 0):
        found[f"w{i}"], found[f"b{i}"] = kept[i].T @ d, d.sum(0)
        if i:
            d = np.where(kept[i] > 0, d @ p[f"w{i}"].T, 0)
    return [loss, *(found[name] for name in NAMES)]


def reference(x: Any, labels: Any, **p: Any) -> list[Any]:
    """The losses of the first three steps."""
    p = {name: array.copy() for name, array in p.items()}
    optimizer = numpy_peer.Adam([p[name] for name in NAMES], RATE)
    losses = []
    for _ in range(3):
        loss, *found = gradients(x, labels, **p)
        losses.append(loss)
        optimizer.apply(found)
    return losses


PAIRS = list(zip(SIZES, SIZES[1:], strict=False))
CASES = {
    "mlp": Case(
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
        1e-3,  # Adam moves by the whole rate where a gradient is tiny, so that epsilon's place shows
        flops=2.0 * BATCH * (3 * sum(m * n for m, n in PAIRS) - SIZES[0] * SIZES[1]),
        bytes=4.0 * sum(7 * m * n for m, n in PAIRS),
        calls=3,
    )
}
CHECKS = {"mlp_gradients": Case(inputs, {"pierian": lambda d: _pierian(d, train=False)}, gradients, 1e-4)}
