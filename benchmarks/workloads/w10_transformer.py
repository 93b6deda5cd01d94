"""One pre-norm transformer block, d = 768, 12 heads, MLP 3072, sequence 256, batch 2: forward; a training step (SGD on the mean
square of the output)."""

from __future__ import annotations

from typing import Any

import numpy as np
from frameworks import jax_function, threads

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


def _pierian(data: dict[str, Any], train: bool) -> Run:
    import pierian as tf

    def norm(x: Any, scale: Any, shift: Any) -> Any:
        mean = tf.reduce_mean(x, axis=-1, keepdims=True)
        centered = x - mean
        return centered * tf.rsqrt(tf.reduce_mean(centered * centered, axis=-1, keepdims=True) + 1e-5) * scale + shift

    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, data["x"].shape, name="x")
        p = {name: tf.Variable(data[name], name=name) for name in SHAPES}
        softmax, gelu = (lambda z: tf.softmax(z, axis=-1)), (lambda z: tf.nn.gelu(z, approximate=True))
        y = _block(tf, x, p, softmax, gelu, norm, tf.permute_dims)
        if train:
            loss = tf.reduce_mean(y * y)
            step = tf.keras.optimizers.SGD(RATE).minimize(loss, var_list=list(p.values()))
            fetches = [loss, step]
        else:
            fetches = [y]
    call = tf.Session(graph, threads=threads()).make_callable(fetches, [x])
    return lambda: call(data["x"])[0]


def _torch(data: dict[str, Any], train: bool, compile: bool) -> Run:
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(threads())
    x = torch.from_numpy(data["x"])
    p = {name: torch.from_numpy(data[name].copy()).requires_grad_(train) for name in SHAPES}

    def forward(x: Any, p: dict[str, Any]) -> Any:
        h = F.layer_norm(x, (WIDTH,), p["g1"], p["s1"])
        qkv = (h @ p["qkv"] + p["qkv_b"]).reshape(BATCH, STEPS, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        x = x + mixed.permute(0, 2, 1, 3).reshape(BATCH, STEPS, WIDTH) @ p["out"] + p["out_b"]
        h = F.layer_norm(x, (WIDTH,), p["g2"], p["s2"])
        return x + F.gelu(h @ p["up"] + p["up_b"], approximate="tanh") @ p["down"] + p["down_b"]

    call = torch.compile(forward) if compile else forward
    if not train:

        def run() -> Any:
            with torch.no_grad():
                return call(x, p)

        return run
    optimizer = torch.optim.SGD(p.values(), lr=RATE, foreach=True)

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = (call(x, p) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _jax(data: dict[str, Any], train: bool) -> Run:
    def forward(jnp: Any, x: Any, **p: Any) -> Any:
        import jax

        def norm(x: Any, scale: Any, shift: Any) -> Any:
            centered = x - x.mean(-1, keepdims=True)
            return centered * jax.lax.rsqrt((centered * centered).mean(-1, keepdims=True) + 1e-5) * scale + shift

        return _block(jnp, x, p, jax.nn.softmax, jax.nn.gelu, norm, jnp.transpose)

    if not train:
        return jax_function(forward, data)
    import jax
    import jax.numpy as jnp

    x = jnp.asarray(data["x"])

    @jax.jit
    def step(p: Any) -> Any:
        loss, g = jax.value_and_grad(lambda p: (forward(jnp, x, **p) ** 2).mean())(p)
        return loss, {name: p[name] - RATE * g[name] for name in p}

    state = [{name: jnp.asarray(data[name]) for name in SHAPES}]

    def run() -> Any:
        loss, state[0] = step(state[0])
        return jax.block_until_ready(loss)

    return run


def _numpy(x: Any, train: bool, **p: Any) -> Any:
    p = {name: array.astype(np.float64) for name, array in p.items()}

    def norm(x: Any, scale: Any, shift: Any) -> Any:
        centered = x - x.mean(-1, keepdims=True)
        return centered / np.sqrt((centered * centered).mean(-1, keepdims=True) + 1e-5) * scale + shift

    def softmax(z: Any) -> Any:
        e = np.exp(z - z.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    def gelu(z: Any) -> Any:
        return 0.5 * z * (1 + np.tanh((2 / np.pi) ** 0.5 * (z + 0.044715 * z**3)))

    y = _block(np, x.astype(np.float64), p, softmax, gelu, norm, np.transpose)
    return (y * y).mean() if train else y


def _case(train: bool) -> Case:
    return Case(
        inputs,
        {
            "pierian": lambda d: _pierian(d, train),
            "torch": lambda d: _torch(d, train, False),
            "torch_compile": lambda d: _torch(d, train, True),
            "jax": lambda d: _jax(d, train),
        },
        lambda **d: _numpy(**d, train=train),
        1e-4,
        flops=FLOPS * (3 if train else 1),
    )


CASES = {"forward": _case(False), "train_step": _case(True)}
