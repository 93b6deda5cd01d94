"""Training step on 32x3x32x32: three 3x3 convolutions (3-32, 32-64 and 64-128 with stride 2) with relu, global average
pool, dense 10, softmax cross-entropy, SGD with momentum. Each framework in the layout it likes best."""

from __future__ import annotations

from typing import Any

import numpy as np
from frameworks import threads

from workloads import Case, Run

BATCH, SIZE, RATE, MOMENTUM = 32, 32, 1e-2, 0.9
CHANNELS, STRIDES = (3, 32, 64, 128), (1, 2, 2)
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


def _pierian(data: dict[str, Any]) -> Run:
    import pierian as tf

    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, [BATCH, SIZE, SIZE, 3], name="x")
        labels = tf.placeholder(tf.int64, [BATCH], name="labels")
        w = [tf.Variable(data[f"w{i}"], name=f"w{i}") for i in range(4)]
        b = [tf.Variable(data[f"b{i}"], name=f"b{i}") for i in range(4)]
        h = x
        for i, stride in enumerate(STRIDES):
            h = tf.relu(tf.nn.conv2d(h, w[i], stride, [(1, 1), (1, 1)]) + b[i])
        logits = tf.matmul(tf.reduce_mean(h, axis=(1, 2)), w[3]) + b[3]
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        train = tf.keras.optimizers.SGD(RATE, momentum=MOMENTUM).minimize(loss, var_list=[*w, *b])
    call = tf.Session(graph, threads=threads()).make_callable([loss, train], [x, labels])
    return lambda: call(data["x"], data["labels"])[0]


def _torch(data: dict[str, Any], compile: bool) -> Run:
    import torch

    torch.set_num_threads(threads())
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
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, foreach=True)
    x = torch.from_numpy(data["x"].transpose(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(data["labels"])

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
    from jax import lax

    x, labels = jnp.asarray(data["x"]), jnp.asarray(data["labels"])
    parameters = [jnp.asarray(data[f"{kind}{i}"]) for i in range(4) for kind in "wb"]

    def loss_of(p: Any) -> Any:
        h = x
        for i, stride in enumerate(STRIDES):
            h = lax.conv_general_dilated(
                h, p[2 * i], (stride, stride), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            h = jax.nn.relu(h + p[2 * i + 1])
        logits = h.mean((1, 2)) @ p[6] + p[7]
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(BATCH), labels])

    @jax.jit
    def step(state: Any) -> Any:
        p, m = state
        loss, g = jax.value_and_grad(loss_of)(p)
        m = [MOMENTUM * a + b for a, b in zip(m, g, strict=True)]
        return loss, ([a - RATE * b for a, b in zip(p, m, strict=True)], m)

    state = [(parameters, [jnp.zeros_like(one) for one in parameters])]

    def run() -> Any:
        loss, state[0] = step(state[0])
        return jax.block_until_ready(loss)

    return run


def _first_loss(x: Any, labels: Any, **p: Any) -> Any:
    h = x.astype(np.float64)
    for i, stride in enumerate(STRIDES):
        wide = np.pad(h, [(0, 0), (1, 1), (1, 1), (0, 0)])
        seen = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), (1, 2))[:, ::stride, ::stride]
        h = np.maximum(np.tensordot(seen, p[f"w{i}"].astype(np.float64), ((4, 5, 3), (0, 1, 2))) + p[f"b{i}"], 0)
    logits = h.mean((1, 2)) @ p["w3"].astype(np.float64) + p["b3"]
    top = logits.max(1)
    return np.mean(np.log(np.exp(logits - top[:, None]).sum(1)) + top - logits[np.arange(BATCH), labels])


CASES = {
    "cnn": Case(
        inputs,
        {
            "pierian": _pierian,
            "torch": lambda d: _torch(d, False),
            "torch_compile": lambda d: _torch(d, True),
            "jax": _jax,
        },
        _first_loss,
        1e-5,
        flops=float(FLOPS),
    )
}
