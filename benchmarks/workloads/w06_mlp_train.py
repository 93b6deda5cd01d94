"""Training step 784-512-512-10, batch 128, relu, softmax cross-entropy, Adam."""

from __future__ import annotations

from typing import Any

import numpy as np
from frameworks import threads

from workloads import Case, Run

SIZES = (784, 512, 512, 10)
BATCH, RATE = 128, 1e-3


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


def _pierian(data: dict[str, Any]) -> Run:
    import pierian as tf

    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, ["batch", SIZES[0]], name="x")
        labels = tf.placeholder(tf.int64, ["batch"], name="labels")
        variables = []
        h = x
        for i in range(3):
            w, b = tf.Variable(data[f"w{i}"], name=f"w{i}"), tf.Variable(data[f"b{i}"], name=f"b{i}")
            variables += [w, b]
            h = tf.matmul(h, w) + b
            if i < 2:
                h = tf.relu(h)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=h))
        train = tf.keras.optimizers.Adam(RATE).minimize(loss, var_list=variables)
    session = tf.Session(graph, threads=threads())
    call = session.make_callable([loss, train], [x, labels])
    return lambda: call(data["x"], data["labels"])[0]


def _torch(data: dict[str, Any], compile: bool) -> Run:
    import torch

    torch.set_num_threads(threads())
    layers: list[Any] = []
    for i in range(3):
        layer = torch.nn.Linear(SIZES[i], SIZES[i + 1])
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(data[f"w{i}"].T))
            layer.bias.zero_()
        layers += [layer, torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, foreach=True)
    x, labels = torch.from_numpy(data["x"]), torch.from_numpy(data["labels"])

    def forward(x: Any, labels: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(x), labels)

    call = torch.compile(forward) if compile else forward

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = call(x, labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _jax(data: dict[str, Any]) -> Run:
    import jax
    import jax.numpy as jnp

    x, labels = jnp.asarray(data["x"]), jnp.asarray(data["labels"])
    parameters = [jnp.asarray(data[f"{kind}{i}"]) for i in range(3) for kind in "wb"]

    def loss_of(p: Any) -> Any:
        h = x
        for i in range(3):
            h = h @ p[2 * i] + p[2 * i + 1]
            if i < 2:
                h = jax.nn.relu(h)
        return -jnp.mean(jax.nn.log_softmax(h)[jnp.arange(BATCH), labels])

    @jax.jit
    def step(state: Any) -> Any:
        p, m, v, t = state
        loss, g = jax.value_and_grad(loss_of)(p)
        t = t + 1
        m = [0.9 * a + 0.1 * b for a, b in zip(m, g, strict=True)]
        v = [0.999 * a + 0.001 * b * b for a, b in zip(v, g, strict=True)]
        rate = RATE * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        p = [a - rate * b / (jnp.sqrt(c) + 1e-7) for a, b, c in zip(p, m, v, strict=True)]
        return loss, (p, m, v, t)

    zeros = [jnp.zeros_like(one) for one in parameters]
    state = [(parameters, zeros, zeros, jnp.float32(0))]

    def run() -> Any:
        loss, state[0] = step(state[0])
        return jax.block_until_ready(loss)

    return run


def _first_loss(x: Any, labels: Any, **p: Any) -> Any:
    h = x.astype(np.float64)
    for i in range(3):
        h = h @ p[f"w{i}"].astype(np.float64) + p[f"b{i}"]
        if i < 2:
            h = np.maximum(h, 0)
    top = h.max(1)
    return np.mean(np.log(np.exp(h - top[:, None]).sum(1)) + top - h[np.arange(len(labels)), labels])


CASES = {
    "mlp": Case(
        inputs,
        {
            "pierian": _pierian,
            "torch": lambda d: _torch(d, False),
            "torch_compile": lambda d: _torch(d, True),
            "jax": _jax,
        },
        _first_loss,
        1e-5,
        flops=3 * 2.0 * BATCH * sum(m * n for m, n in zip(SIZES, SIZES[1:], strict=False)),
    )
}
